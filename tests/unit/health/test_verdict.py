# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines of the verdict: each kind healthy, at its limit, beyond it, unknown, and unreadable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._health import KINDS, at_most, health_lines, health_result

LIMITS: dict[str, dict[str, Any]] = {
    "workloads": {"name": "namespace n", "namespace": "n"},
    "groups": {"name": "bus", "warn_ratio": 0.8, "groups": [{"name": "g", "max_lag": 10, "states": ["stable"]}]},
    "database": {
        "name": "database d",
        "database": "d",
        "system_identifier": "7",
        "connection_ratio": 0.8,
        "standbys": 1,
        "standby_bytes": 1000,
        "warn_ratio": 0.8,
    },
    "backups": {"name": "bucket b", "bucket": "b", "warn_ratio": 0.8, "backups": [{"database": "d", "max_age": "24h"}]},
    "alerts": {
        "name": "alerts",
        "url": "http://p",
        "required": ["Down"],
        "ignored": ["Watchdog"],
        "fail_severities": ["critical"],
    },
}
WORKLOAD = {"kind": "Deployment", "namespace": "n", "name": "w", "replicas": 3, "ready": 3, "settled": True}
GROUP = {"name": "g", "state": "stable", "member_count": 2, "total_lag": 3}
ROW = {
    "system_identifier": "7",
    "in_recovery": False,
    "connections": 10,
    "max_connections": 100,
    "standbys": [{"name": "s", "state": "streaming", "behind": 10}],
}
BACKUP = {"database": "d", "system_identifier": "7", "age_seconds": 3600}
RULE = {"type": "alerting", "name": "Down", "health": "ok", "alerts": []}


def alert(state: str, **labels: str) -> dict[str, Any]:
    """One active alert as Prometheus shows it."""
    return {"state": state, "activeAt": "2026-11-21T03:00:00Z", "labels": {"alertname": "Down", **labels}}


def rules(*found: dict[str, Any]) -> dict[str, Any]:
    """An answer of ``/api/v1/rules``."""
    return {"json": {"status": "success", "data": {"groups": [{"rules": list(found)}]}}}


def levels(kind: str, result: dict[str, Any], **limits: Any) -> list[str]:
    """The levels of the lines, in order."""
    return [line["level"] for line in health_lines(result, kind, {**LIMITS[kind], **limits})]


@pytest.mark.parametrize(
    ("workload", "level"),
    [
        ({}, "OK"),
        ({"ready": 2, "settled": False}, "FAIL"),
        ({"replicas": 0, "ready": 0}, "WARN"),
        ({"replicas": 0, "ready": 0, "stopped_by_us": {"run": "r", "since": "s"}}, "FAIL"),
        ({"stale_note": {"run": "r"}}, "WARN"),
        ({"problem": "unreadable note"}, "FAIL"),
    ],
)
def test_workloads(workload: dict[str, Any], level: str) -> None:
    """Ready, not ready, stopped by somebody, left stopped by a run, with a note that nobody can read."""
    assert levels("workloads", {"workloads": [{**WORKLOAD, **workload}]}) == [level]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({}, ["OK", "OK"]),
        ({"total_lag": 9}, ["OK", "WARN"]),
        ({"total_lag": 11}, ["OK", "FAIL"]),
        ({"total_lag": None}, ["OK", "FAIL"]),
        ({"state": "rebalancing"}, ["FAIL", "OK"]),
        ({"name": "another"}, ["FAIL", "FAIL"]),
    ],
)
def test_groups(group: dict[str, Any], expected: list[str]) -> None:
    """State and lag, each for itself; a group that was not seen is missing."""
    assert levels("groups", {"groups": [{**GROUP, **group}]}) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, ["OK", "OK", "OK", "OK"]),
        ({"in_recovery": True}, ["FAIL", "OK", "OK", "OK"]),
        ({"connections": 70}, ["OK", "WARN", "OK", "OK"]),
        ({"connections": 81}, ["OK", "FAIL", "OK", "OK"]),
        ({"standbys": None}, ["OK", "OK", "FAIL"]),
        ({"standbys": [{"name": "s", "state": "catchup", "behind": 5000}]}, ["OK", "OK", "FAIL", "FAIL"]),
        ({"standbys": [{"name": "s", "state": "streaming", "behind": None}]}, ["OK", "OK", "OK", "FAIL"]),
        ({"system_identifier": "8"}, ["FAIL"]),
    ],
)
def test_database(row: dict[str, Any], expected: list[str]) -> None:
    """Primary, connections, standbys and how far they are; of another cluster nothing else is said."""
    assert levels("database", {"query_result": [{**ROW, **row}]}) == expected


def test_database_without_standbys_may_have_none() -> None:
    """Nothing is said about standbys where none is declared and none is there."""
    assert levels("database", {"query_result": [{**ROW, "standbys": None}]}, standbys=0) == ["OK", "OK"]


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        ([BACKUP], ["OK"]),
        ([{**BACKUP, "age_seconds": 20 * 3600}], ["WARN"]),
        ([{**BACKUP, "age_seconds": 25 * 3600}], ["FAIL"]),
        ([BACKUP, {**BACKUP, "system_identifier": "8", "age_seconds": 25 * 3600}], ["FAIL"]),
        ([{**BACKUP, "database": "other"}], ["FAIL"]),
        ([], ["FAIL"]),
    ],
)
def test_backups(newest: list[dict[str, Any]], expected: list[str]) -> None:
    """Young, ageing, too old, of another cluster too, of another database, none."""
    assert levels("backups", {"newest": newest}) == expected


def test_backups_of_a_declared_cluster() -> None:
    """With the identity declared, another cluster's database of that name does not count."""
    old = {**BACKUP, "system_identifier": "8", "age_seconds": 25 * 3600}
    declared = [{"database": "d", "max_age": "24h", "system_identifier": 7}]
    assert levels("backups", {"newest": [BACKUP, old]}, backups=declared) == ["OK"]
    assert levels("backups", {"newest": [old]}, backups=declared) == ["FAIL"]


def test_a_backup_that_does_not_count_is_a_warning() -> None:
    """It may be a run that failed, and was repeated since."""
    assert levels("backups", {"newest": [BACKUP], "bad": [{"run_id": "r", "problem": "changed"}]}) == ["OK", "WARN"]


def test_an_unreadable_age_is_refused() -> None:
    """Object, value and next step come from whoever parses ages."""
    with pytest.raises(Refusal, match="'soon' is not a duration"):
        levels("backups", {"newest": []}, backups=[{"database": "d", "max_age": "soon"}])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([RULE], ["OK"]),
        ([{**RULE, "alerts": [alert("firing", severity="critical")]}], ["FAIL"]),
        ([{**RULE, "alerts": [alert("firing")]}], ["FAIL"]),
        ([{**RULE, "alerts": [alert("firing", severity="warning")]}], ["WARN"]),
        ([{**RULE, "alerts": [alert("pending", severity="critical")]}], ["WARN"]),
        ([{**RULE, "health": "err", "lastError": "no such metric"}], ["FAIL"]),
        ([{**RULE, "health": "unknown"}], ["WARN"]),
        ([RULE, {**RULE, "name": "Watchdog", "alerts": [alert("firing")]}], ["OK"]),
        ([{**RULE, "name": "Other"}], ["FAIL"]),
        ([], ["FAIL", "FAIL"]),
    ],
)
def test_alerts(found: list[dict[str, Any]], expected: list[str]) -> None:
    """Quiet, firing by severity, pending, a rule that cannot be evaluated, one that is not there, none at all."""
    assert levels("alerts", rules(*found)) == expected


@pytest.mark.parametrize("answer", [{}, {"json": None}, {"json": {"status": "error", "error": "boom"}}])
def test_a_prometheus_that_answers_otherwise_fails(answer: dict[str, Any]) -> None:
    """What is not known is a failure."""
    assert levels("alerts", answer) == ["FAIL"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_failed_read_is_one_failing_line(kind: str) -> None:
    """With the object, the message and the next step, in one line; our own modules' messages have their next step."""
    (line,) = health_lines({"failed": True, "msg": "no route\n  to host"}, kind, LIMITS[kind])
    assert (
        line["text"]
        == f"FAIL {LIMITS[kind]['name']}: cannot be read: no route to host. Correct health_connection and what is named here"
    )
    own = {"failed": True, "msg": "broker b:1: closed. Start it.", "error": {"next_step": "Start it"}}
    assert health_lines(own, kind, LIMITS[kind])[0]["text"].endswith("cannot be read: broker b:1: closed. Start it.")


@pytest.mark.parametrize(
    ("workloads", "verdict"),
    [
        ([{}], "OK"),
        ([{"replicas": 0, "ready": 0}], "WARN"),
        ([{}, {"replicas": 0, "ready": 0}, {"ready": 2, "settled": False}], "FAIL"),
    ],
)
def test_the_result_names_whatever_is_not_well(workloads: list[dict[str, Any]], verdict: str) -> None:
    """Failures before warnings; only failures are blockers; all lines are evidence; nothing is ever changed."""
    read = {"workloads": [{**WORKLOAD, **workload} for workload in workloads]}
    lines = health_lines(read, "workloads", LIMITS["workloads"])
    failed, warned = ([line for line in lines if line["level"] == level] for level in ("FAIL", "WARN"))
    told = health_result(read, "workloads", LIMITS["workloads"], "web")
    head = f"web {verdict}: {len(failed)} of {len(lines)} checks failed, {len(warned)} warned"
    assert told["summary"] == "; ".join([head, *(line["text"] for line in failed), *(line["text"] for line in warned)])
    assert told["evidence"] == {"verdict": verdict, "lines": lines}
    assert (told["blockers"], told["plan"], told["changed"]) == (failed, [], False)


@given(value=st.floats(0, 1e9), limit=st.floats(0, 1e9), ratio=st.floats(0, 1))
def test_at_most_never_passes_what_is_above(value: float, limit: float, ratio: float) -> None:
    """Above the limit fails, below the warning is fine, and nothing else."""
    level = at_most("o", "w", value, limit, ratio).level
    assert (level == "FAIL") == (value > limit)
    assert (level == "OK") == (value <= limit and value <= limit * ratio)
