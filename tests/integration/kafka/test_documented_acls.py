# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/kafka-acls.yml: accounts with its ACLs and nothing else can do their work, and none of the ACLs is too much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from support.checkout import load_yaml
from support.kafka_server import ADMIN, CLUSTER_ID, Broker, start_broker
from support.modules import ModuleRun, run_module

from .conftest import PARTITIONS, RECORDS, Bus

pytestmark = pytest.mark.lab("kafka")
Json = dict[str, Any]
DOCUMENTED: dict[str, list[dict[str, str]]] = load_yaml(Path("docs/kafka-acls.yml"))
GROUP, TOPIC = "feature-workers", "feature-events"
SECONDS = 120.0
"""How long a broker may take until it knows of an ACL."""


def make_binding(account: str, entry: dict[str, str], *, kind: type = AclBinding) -> Any:
    """Return an ACL of the file for an account."""
    words = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
    return kind(
        ResourceType[entry["resource"].upper()],
        entry["name"],
        ResourcePatternType.LITERAL,
        f"User:{account}",
        "*",
        AclOperation[words.get(entry["operation"], entry["operation"].upper())],
        AclPermissionType.ALLOW,
    )


class Cluster(NamedTuple):
    """A broker with the documented names, and its accounts."""

    broker: Broker
    bus: Bus

    def allow(self, account: str, *entries: dict[str, str]) -> None:
        """Give an account these ACLs."""
        for future in self.bus.admin.create_acls([make_binding(account, entry) for entry in entries]).values():
            future.result()

    def take(self, account: str, *entries: dict[str, str]) -> None:
        """Take them away."""
        filters = [make_binding(account, entry, kind=AclBindingFilter) for entry in entries]
        for future in self.bus.admin.delete_acls(filters).values():
            assert len(future.result()) == 1

    def act(self, account: str) -> ModuleRun:
        """Have an account do what it is for."""
        options = {**self.broker.params(account), "cluster_id": CLUSTER_ID, "request_timeout": 5}
        if account == "offsets":
            entry = {"to": "start" if self.bus.offsets()[0] == RECORDS else "end"}
            undo = self.bus.undo.with_name(f"undo-{time.monotonic_ns()}.json")
            wanted = {"name": GROUP, "offsets": [entry], "max_skipped": 1000, "undo_file": str(undo)}
            return run_module("rpk_group", {**options, **wanted})
        wanted = {"names": [GROUP]}
        if account == "reconciliation":
            counted = {"topic": TOPIC, "partition": 0, "start": 0, "end": 4}
            wanted |= {"cleanup_policy": True, "count_records": [counted], "count_timeout": 5}
        return run_module("rpk_group_info", {**options, **wanted})

    def is_able(self, account: str) -> bool:
        """Return whether it could do all of it."""
        run = self.act(account)
        if run.failed:
            return False
        if account == "offsets":
            return run.changed
        (group,) = run["groups"]
        known = bool(group["state"] == "empty" and group["total_lag"] == 18)
        if account == "monitor":
            return known
        return known and run["records"][0]["records"] == 4

    def waits(self, account: str, *, able: bool) -> bool:
        """Return whether an account becomes able, or unable: a broker knows of an ACL a moment later."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if self.is_able(account) is able:
                return True
        return False


@pytest.fixture(scope="module")
def cluster(lab_facts: Json, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker of its own with the documented topic and group, where nobody but its administrator may anything."""
    assert "kafka" in lab_facts
    folder = tmp_path_factory.mktemp("broker")
    with start_broker(folder, *DOCUMENTED) as broker:
        admin = AdminClient(broker.settings(ADMIN))
        bus = Bus(admin, broker.address, CLUSTER_ID, TOPIC, GROUP, folder / "undo.json")
        bus.create(TOPIC)
        producer = Producer(broker.settings(ADMIN))
        for number in range(PARTITIONS * RECORDS):
            producer.produce(TOPIC, b"x", partition=number % PARTITIONS)
        assert producer.flush(120) == 0
        bus.set(dict.fromkeys(range(PARTITIONS), 4))
        yield Cluster(broker, bus)


@pytest.mark.parametrize("account", DOCUMENTED)
def test_the_documented_acls_are_enough_and_each_is_needed(cluster: Cluster, account: str) -> None:
    """Without any the account can do nothing; with all of them everything; without one of them not everything."""
    entries = DOCUMENTED[account]
    assert not cluster.is_able(account)
    cluster.allow(account, *entries)
    assert cluster.waits(account, able=True), cluster.act(account).result
    needless = []
    for entry in entries:
        cluster.take(account, entry)
        if not cluster.waits(account, able=False):
            needless.append(entry)
        cluster.allow(account, entry)
        assert cluster.waits(account, able=True)
    assert needless == []


def test_acls_of_the_file_are_understood(cluster: Cluster) -> None:
    """As the broker has them; accounts have none but theirs."""
    held = cluster.bus.admin.describe_acls(
        AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
    ).result()
    documented = [make_binding(account, entry) for account, entries in DOCUMENTED.items() for entry in entries]
    assert {*held} <= {*documented}
