# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Topics whose offsets are not records, on a real broker: control records, aborted and open transactions, compaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from support.kafka_consumer import consumer
from support.modules import ModuleRun, finish_module, run_module, start_module
from support.playbooks import PlaybookRun
from support.tcp_proxy import OFFSET_FETCH, KafkaProxy

from .conftest import Bus

pytestmark = pytest.mark.lab("kafka")
EVENTS = 10


class Transactions:
    """A transactional producer of one topic of one partition, and a group that reads it."""

    def __init__(self, bus: Bus, topic: str, group: str) -> None:
        self.bus, self.topic, self.group = bus, topic, group
        bus.create(topic, 1)
        self.producer = Producer(
            {"bootstrap.servers": bus.brokers, "transactional.id": topic, "transaction.timeout.ms": 60_000}
        )
        self.producer.init_transactions(30)

    def send(self, *, commit: bool = True) -> None:
        """One event in a transaction of its own: two offsets."""
        self.begin()
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.abort_transaction(30)

    def begin(self) -> None:
        """One event, in a transaction that stays open."""
        self.producer.begin_transaction()
        self.producer.produce(self.topic, b"x", partition=0)
        assert self.producer.flush(30) == 0

    def consume(self, count: int) -> int:
        """Read so many events, commit the offset after each of them, and leave; returns the last one."""
        member = Consumer(
            {
                "bootstrap.servers": self.bus.brokers,
                "group.id": self.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        member.subscribe([self.topic])
        committed = -1
        try:
            for _number in range(count):
                message = member.poll(30)
                assert message is not None
                assert message.error() is None
                (position,) = member.commit(message=message, asynchronous=False)
                committed = position.offset
        finally:
            member.close()
        return committed

    def info(self, *, rpk: str = "", **options: Any) -> ModuleRun:
        """Read the group."""
        client = {"client": "rpk", "rpk_command": rpk} if rpk else {}
        params = {"brokers": [self.bus.brokers], "names": [self.group], **client, **options}
        return run_module("rpk_group_info", params)


@pytest.fixture
def transactions(bus: Bus, unique_name: Callable[..., str]) -> Iterator[Transactions]:
    """A topic that is written by transactions only."""
    made = Transactions(bus, unique_name("transactional"), unique_name("reader"))
    yield made
    bus.remove([made.topic], [made.group])


@pytest.mark.procedure("A9")
def test_a_group_that_has_read_every_event_has_no_lag(transactions: Transactions, rpk: str) -> None:
    """The last control record is behind its commit for ever; rpk cannot tell and says so."""
    for _number in range(EVENTS):
        transactions.send()
    assert transactions.consume(EVENTS) == 2 * EVENTS - 1
    read = transactions.info(wait_for={"max_lag": 0, "timeout": 60.0})
    assert not read.failed, read.msg
    (row,) = read["groups"][0]["partitions"]
    assert (row["committed"], row["log_end"], row["lag"]) == (2 * EVENTS - 1, 2 * EVENTS, 0)
    blind = transactions.info(rpk=rpk, wait_for={"max_lag": 0, "timeout": 1.0})
    assert "its lag is 1, not 0 or less (whether that is of control records" in blind.msg
    assert "client: rpk cannot count the records" in blind.msg


@pytest.mark.procedure("A9")
def test_aborted_events_are_no_lag_and_an_unread_one_is(transactions: Transactions) -> None:
    """Behind the last commit: two aborted transactions; then an event after them."""
    transactions.send()
    transactions.consume(1)
    transactions.send(commit=False)
    transactions.send(commit=False)
    done = transactions.info(wait_for={"max_lag": 0, "timeout": 60.0})
    assert not done.failed, done.msg
    transactions.send()
    left = transactions.info(wait_for={"max_lag": 0, "timeout": 1.0})
    assert "its lag is 7, not 0 or less" in left.msg


@pytest.mark.procedure("A9")
def test_an_open_transaction_is_lag_and_is_named(transactions: Transactions) -> None:
    """Its event may still come."""
    transactions.send()
    transactions.consume(1)
    transactions.begin()
    left = transactions.info(wait_for={"max_lag": 0, "timeout": 1.0})
    assert f"a transaction is open in {transactions.topic}[0] from offset 2 on" in left.msg
    ranges = [{"topic": transactions.topic, "partition": 0, "start": 0, "end": 3}]
    assert "a transaction is open from offset 2 on" in transactions.info(count_records=ranges).msg
    transactions.producer.abort_transaction(30)
    assert not transactions.info(wait_for={"max_lag": 0, "timeout": 60.0}).failed


@pytest.mark.procedure("A9")
def test_records_are_counted_not_offsets(transactions: Transactions) -> None:
    """Of the whole log, of a part, and of one that is written without transactions; nothing is committed by it."""
    for number in range(EVENTS):
        transactions.send(commit=number != 3)
    bus = transactions.bus
    ranges = [
        {"topic": transactions.topic, "partition": 0, "start": 0, "end": 2 * EVENTS},
        {"topic": bus.topic, "partition": 1, "start": 2, "end": 9},
        {"topic": bus.topic, "partition": 2, "start": 10, "end": 10},
    ]
    counted = transactions.info(count_records=ranges)
    assert not counted.failed, counted.msg
    assert {(row["topic"], row["partition"]): row["records"] for row in counted["records"]} == {
        (transactions.topic, 0): EVENTS - 1,
        (bus.topic, 1): 7,
        (bus.topic, 2): 0,
    }
    assert counted["groups"][0]["state"] == "missing"
    part = [{"topic": transactions.topic, "partition": 0, "start": 1, "end": 5}]
    assert transactions.info(count_records=part)["records"][0]["records"] == 2
    bus.remove_records({0: 5})
    gone = [{"topic": bus.topic, "partition": 0, "start": 0, "end": 9}]
    assert "retention has removed them" in transactions.info(count_records=gone).msg


@pytest.mark.procedure("A15")
def test_offsets_that_a_transaction_is_about_to_commit_are_waited_for(
    transactions: Transactions, set_offsets: Callable[..., ModuleRun]
) -> None:
    """They are the offsets before, not those that the broker still holds; no undo is made of these."""
    bus = transactions.bus
    group = Consumer({"bootstrap.servers": bus.brokers, "group.id": bus.group})
    try:
        transactions.producer.begin_transaction()
        position = [TopicPartition(bus.topic, 0, 6)]
        transactions.producer.send_offsets_to_transaction(position, group.consumer_group_metadata(), 30)
        early = set_offsets([{"to": "end"}], request_timeout=3.0)
        assert "UNSTABLE_OFFSET_COMMIT" in early.msg
        assert "transaction.timeout.ms" in early.msg
        assert not bus.undo.exists()
        params = {"names": [bus.group], "request_timeout": 1.0, "wait_for": {"states": ["empty"], "timeout": 60.0}}
        with KafkaProxy("10.77.0.1", 9092) as proxy:
            process = start_module("rpk_group_info", {"brokers": [proxy.address], **params})
            while proxy.counts[OFFSET_FETCH] < 8 and process.poll() is None:  # longer than one question may take
                proxy.held.wait(0.02)
            transactions.producer.commit_transaction(30)
            read = finish_module(process)
        assert not read.failed, read.msg
        committed = {row["partition"]: row["committed"] for row in read["groups"][0]["partitions"]}
        assert committed == {0: 6, 1: 4, 2: 4}
    finally:
        group.close()


@pytest.mark.procedure("A9")
@pytest.mark.parametrize("client", ["kafka", "rpk"])
def test_compacted_topics_are_told(bus: Bus, unique_name: Callable[..., str], rpk: str, client: str) -> None:
    """Of the group and of those named; with both policies too."""
    compacted, both = unique_name("compacted"), unique_name("both")
    bus.create(compacted, 1, **{"cleanup.policy": "compact"})
    bus.create(both, 1, **{"cleanup.policy": "compact,delete"})
    bus.set({0: 0}, topic=compacted)
    bus.set({0: 0}, topic=both)
    try:
        params = {
            "brokers": [bus.brokers],
            "client": client,
            "rpk_command": rpk,
            "names": [bus.group],
            "topics": [bus.topic, compacted, "no.such.topic"],
            "cleanup_policy": True,
        }
        read = run_module("rpk_group_info", params)
        assert not read.failed, read.msg
        assert read["groups"][0]["compacted_topics"] == sorted([compacted, both])
        assert [topic["is_compacted"] for topic in read["topics"]] == [False, True, None]
    finally:
        bus.remove([compacted, both], [])


LEDGER = "SELECT %(recorded)s AS recorded, 0 AS doubled, 0 AS recorded_since WHERE %%(passed)s <> ''"


@pytest.mark.lab("postgresql")
@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        (EVENTS, f"no event lost, none doubled: topic {EVENTS}, recorded {EVENTS}, lost 0"),
        (EVENTS - 1, f"topic {EVENTS}, recorded {EVENTS - 1}, lost 1, doubled 0"),
    ],
)
def test_events_of_transactions_are_reconciled_by_records(
    transactions: Transactions,
    lab: dict[str, Any],
    ansible_playbook: Callable[..., PlaybookRun],
    recorded: int,
    words: str,
) -> None:
    """Ten events with twenty offsets: proven where all ten are recorded, lost where one is not."""
    for _number in range(EVENTS):
        transactions.send()
    run = reconcile(transactions, lab, ansible_playbook, recorded)
    assert words in " ".join(run.stdout.split())
    assert (run.rc == 0) == (recorded == EVENTS)


@pytest.mark.lab("postgresql")
def test_a_compacted_topic_is_not_reconciled(
    transactions: Transactions, lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """By name, whatever the ledger says."""
    transactions.send()
    resource = ConfigResource(ConfigResource.Type.TOPIC, transactions.topic)
    resource.add_incremental_config(
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    )
    transactions.bus.admin.incremental_alter_configs([resource])[resource].result()
    run = reconcile(transactions, lab, ansible_playbook, 2)
    assert run.rc == 2
    assert f"topic {transactions.topic} is compacted (cleanup.policy)" in " ".join(run.stdout.split())


@pytest.mark.lab("postgresql")
def test_what_retention_removed_during_a_stop_is_lost(
    transactions: Transactions, lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """The group goes on behind it, and everything that is left is recorded: only the commits of before the stop tell."""
    for _number in range(EVENTS):
        transactions.send()
    committed = transactions.consume(EVENTS // 2)
    before = transactions.info()["groups"]
    moved = TopicPartition(transactions.topic, 0, committed + 3)
    transactions.bus.admin.delete_records([moved])[moved].result()
    left = EVENTS // 2 - 1
    blind = reconcile(transactions, lab, ansible_playbook, left)
    assert blind.rc == 0, blind.stdout
    told = reconcile(transactions, lab, ansible_playbook, left, event_reconciliation_before=before)
    assert told.rc == 2
    words = f"when it was stopped: 3 of {transactions.topic}[0] ({committed} to {committed + 2})"
    assert words in " ".join(told.stdout.split())


@pytest.mark.lab("postgresql")
def test_a_group_that_has_passed_nothing_proves_nothing(
    transactions: Transactions, lab: dict[str, Any], ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """The ledger is asked about an empty list, which is one in JSON too."""
    query = (
        "SELECT count(*) AS recorded, 0 AS doubled, 0 AS recorded_since"
        " FROM jsonb_to_recordset(%(passed)s::jsonb) AS log (topic text)"
    )
    run = reconcile(transactions, lab, ansible_playbook, 0, event_reconciliation_query=query)
    assert run.rc == 2
    assert "it has committed no offset, so there is nothing to prove" in " ".join(run.stdout.split())


def reconcile(
    transactions: Transactions,
    lab: dict[str, Any],
    ansible_playbook: Callable[..., PlaybookRun],
    recorded: int,
    **more: Any,
) -> PlaybookRun:
    """Run the role over a ledger that holds so many events, while a consumer is in the group."""
    server = lab["postgresql"]
    tasks = [
        {"ansible.builtin.include_role": {"name": "lowtide.ops.event_reconciliation"}},
        {"ansible.builtin.debug": {"var": "event_reconciliation_result.summary"}},
    ]
    with consumer(transactions.bus.brokers, transactions.group, transactions.topic, consume=True):
        return ansible_playbook(
            [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}],
            extra_vars={
                "event_reconciliation_kafka_connection": {"brokers": [transactions.bus.brokers]},
                "event_reconciliation_connection": {
                    "login_host": ",".join(server["hosts"]),
                    "login_port": server["port"],
                    "login_user": server["superuser"],
                    "login_db": "postgres",
                    "passfile": server["passfile"],
                },
                "event_reconciliation_group": transactions.group,
                "event_reconciliation_max_lag": 0,
                "event_reconciliation_timeout": 60,
                "event_reconciliation_query": LEDGER % {"recorded": recorded},
                **more,
            },
        )
