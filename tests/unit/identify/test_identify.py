# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Distinct connections of an inventory, and what is made of the answers: blocks to paste, notes, failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleUndefinedVariable

from ansible_collections.lowtide.ops.plugins.plugin_utils._identify import list_connections, report_identities

BUS = {"brokers": ["b:1"], "sasl_password": "canary"}
OTHER = {"brokers": ["c:1"]}


class Undefined(dict[str, Any]):
    """The variables of a host one of which refers to another that is not there."""

    def get(self, key: str, default: Any = None) -> Any:
        """Fail as Ansible does."""
        if key == "kafka_connection":
            raise AnsibleUndefinedVariable("'nosuch' is undefined")
        return super().get(key, default)


def shape(variables: Mapping[str, Mapping[str, Any]], kind: str = "kafka") -> list[list[str]]:
    """The hosts of each distinct connection of a kind."""
    return [entry["hosts"] for entry in list_connections(variables, list(variables))[kind]]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"a": {}, "b": {}}, []),
        ({"a": {"kafka_connection": BUS}, "b": {"kafka_connection": BUS}}, [["a", "b"]]),
        ({"a": {"kafka_connection": {**BUS, "cluster_id": "x"}}, "b": {"kafka_connection": BUS}}, [["a", "b"]]),
        (
            {"a": {"kafka_connection": BUS}, "b": {"kafka_connection": OTHER}, "c": {"kafka_connection": BUS}},
            [["a", "c"], ["b"]],
        ),
        ({"a": {"kafka_connection": {}}}, [["a"]]),
        ({"a": {"kafka_connection": "b:1"}, "b": {"kafka_connection": BUS}}, [["b"]]),
        ({"a": Undefined(), "b": {"kafka_connection": BUS}}, [["b"]]),
    ],
)
def test_each_distinct_connection_is_asked_once(variables: dict[str, Any], expected: list[list[str]]) -> None:
    """Whatever identity it declares; empty ones too; a variable without a value hides no other host."""
    assert shape(variables) == expected


def test_two_buckets_of_one_server_are_two() -> None:
    """Which bucket is part of what is asked; the prefix of the backups is taken from whoever has it."""
    store: dict[str, Any] = {"endpoint_url": "http://s"}
    variables: dict[str, dict[str, Any]] = {
        "a": {"s3_connection": store, "bucket": "x"},
        "b": {"s3_connection": store, "bucket": "x", "backup_prefix": "p"},
        "c": {"s3_connection": store, "bucket": "y"},
    }
    entries = list_connections(variables, list(variables))["s3"]
    assert [(entry["hosts"], entry["bucket"], entry["prefix"]) for entry in entries] == [
        (["a", "b"], "x", "p"),
        (["c"], "y", ""),
    ]


def test_a_host_on_the_controller_asks() -> None:
    """So that no other machine must be reached for it."""
    variables: dict[str, dict[str, Any]] = {
        "a": {"kafka_connection": BUS},
        "b": {"kafka_connection": BUS, "ansible_connection": "local"},
    }
    assert [entry["host"] for entry in list_connections(variables, ["a", "b"])["kafka"]] == ["b"]


def test_no_secret_is_in_what_is_looped_over() -> None:
    """Ansible shows the items of a loop."""
    assert "canary" not in json.dumps(list_connections({"a": {"kafka_connection": BUS}}, ["a"]))


def report(variables: dict[str, Any], **answers: Any) -> dict[str, Any]:
    """The report on these hosts, whose answers are results of loops."""
    loops = {kind: {"results": results} for kind, results in answers.items()}
    return report_identities(list_connections(variables, list(variables)), loops)


def test_what_the_same_hosts_use_is_one_block() -> None:
    """And another one for those that use something else."""
    site = {"kafka_connection": BUS, "postgresql_connection": {"login_host": "db"}}
    told = report(
        {"a": site, "b": {**site, "kafka_connection": OTHER}},
        kafka=[{"cluster_id": "one"}, {"cluster_id": "two"}],
        postgresql=[{"system_identifier": 7}],
    )
    assert told["blocks"] == [
        {"hosts": "a", "paste": {"kafka_connection": {"cluster_id": "one"}}},
        {"hosts": "b", "paste": {"kafka_connection": {"cluster_id": "two"}}},
        {"hosts": "all 2 hosts", "paste": {"postgresql_connection": {"system_identifier": "7"}}},
    ]
    assert (told["notes"], told["failures"], told["summary"]) == ([], [], "")


def test_another_identity_than_declared_is_told() -> None:
    """With the hosts that declare it; the right one is not."""
    variables = {name: {"kafka_connection": {**BUS, "cluster_id": name}} for name in ("x", "one")}
    told = report(variables, kafka=[{"cluster_id": "one"}])
    (note,) = told["notes"]
    assert note.startswith("kafka_connection.cluster_id of x is x in the inventory, and the system says one.")
    assert told["failures"] == []


def test_one_that_does_not_answer_does_not_hide_the_others() -> None:
    """Each failure by variable and hosts; also one that was never asked, and a variable without a value."""
    variables: dict[str, Any] = {
        "a": {"kafka_connection": BUS},
        "b": {"kafka_connection": OTHER},
        "c": Undefined(kubernetes_connection={}),
    }
    told = report(variables, kafka=[{"failed": True, "msg": "down.\n Start it."}, {"cluster_id": "two"}], kubernetes=[])
    assert told["failures"] == [
        "kafka_connection of c: 'nosuch' is undefined",
        "kubernetes_connection of c: it was not asked",
        "kafka_connection of a: down. Start it.",
    ]
    assert told["summary"].splitlines()[0] == "3 of the declared systems could not be identified:"
    assert [block["hosts"] for block in told["blocks"]] == ["b"]
    away = report(
        {"a": {"kafka_connection": BUS}, "b": {"kafka_connection": OTHER}},
        kafka=[{"unreachable": True, "msg": "Connection refused."}, {"cluster_id": "two"}],
    )
    (failure,) = away["failures"]
    assert failure.startswith(
        "kafka_connection of a: host a, which is to ask it, cannot be reached: Connection refused. "
    )
    assert [block["hosts"] for block in away["blocks"]] == ["b"]
    early = report_identities(
        list_connections({"a": variables["a"]}, ["a"]), {"kafka": {"failed": True, "msg": "no loop"}}
    )
    assert early["failures"] == ["kafka_connection of a: no loop"]


@pytest.mark.parametrize(
    ("bucket", "answer", "words"),
    [
        ("x", {"backups": []}, "Bucket x can be listed with these credentials."),
        (None, {"skipped": True}, "The variable bucket is not set, so it was not asked."),
    ],
)
def test_s3_has_no_identity(bucket: str | None, answer: dict[str, Any], words: str) -> None:
    """It says so, and whether the bucket was reached."""
    told = report({"a": {"s3_connection": {}, "bucket": bucket}}, s3=[answer])
    (note,) = told["notes"]
    assert "S3 has no identity" in note
    assert note.endswith(words)
    assert (told["blocks"], told["failures"]) == ([], [])


def test_a_site_without_connections_is_a_failure() -> None:
    """It names the variables to set."""
    assert "no host sets kubernetes_connection, kafka_connection" in report({"a": {}})["summary"]


def test_many_hosts_are_counted() -> None:
    """The first five by name."""
    variables: dict[str, Any] = {f"h{number}": {"kafka_connection": BUS} for number in range(7)}
    told = report({**variables, "x": {}}, kafka=[{"cluster_id": "one"}])
    assert told["blocks"][0]["hosts"] == "h0, h1, h2, h3, h4 and 2 more"
