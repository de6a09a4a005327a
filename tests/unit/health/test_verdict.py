# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines of the verdict: each kind healthy, at its limit, beyond it, unknown, and unreadable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._health import (
    COMPARE,
    Window,
    compare_with_limit,
    judge_health,
)

LIMITS: dict[str, Any] = {
    "warn_ratio": 0.8,
    "connection_ratio": 0.8,
    "standbys": 1,
    "standby_bytes": 1000,
    "alerts_required": ["Down"],
    "alerts_ignored": ["Watchdog"],
    "alerts_fail_severities": ["critical"],
}
PLAN: dict[str, Any] = {
    "host": "web1",
    "unchecked": {},
    "variables": {
        "workloads": "kubernetes_connection",
        "consumer_groups": "kafka_connection",
        "database": "health_postgresql_connection",
        "backups": "s3_connection",
        "secrets": "kubernetes_connection",
        "alerts": "health_alerts_url",
    },
    "namespace": "n",
    "workloads": [],
    "stopped_workloads": [],
    "bucket": "b",
    "alerts_url": "http://p",
    "database": "d",
    "consumer_groups": [{"name": "g", "max_lag": 10, "states": ["stable"]}],
    "backups": [{"database": "d", "max_age": "24h", "system_identifier": None}],
    "secrets": [{"name": "s", "valid_for": 30 * 86400.0, "max_age": 90 * 86400.0}],
    "limits": LIMITS,
}
WORKLOAD = {"kind": "Deployment", "namespace": "n", "name": "w", "replicas": 3, "ready": 3}
WORKLOAD |= {"status": "Current", "detail": "3 of 3 ready"}
POSITION = {
    "topic": "t",
    "partition": 0,
    "committed": 15,
    "log_start": 5,
    "log_end": 20,
    "lost": 0,
    "beyond_end": 0,
}
GROUP = {"name": "g", "state": "stable", "member_count": 2, "total_lag": 3}
ROW = {
    "role": "monitor",
    "may_read_statistics": True,
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


def judge(kind: str, result: dict[str, Any], *, pending: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """The role's result for one kind; ``changes`` go into the plan, or into its limits."""
    limits = {key: changes.pop(key, value) for key, value in LIMITS.items()}
    return judge_health({kind: result}, {**PLAN, "checks": [kind], **changes, "limits": limits}, pending)


def levels(kind: str, result: dict[str, Any], **changes: Any) -> list[str]:
    """The levels of the lines, in order."""
    return [line.partition(" ")[0] for line in judge(kind, result, **changes)["evidence"]]


@pytest.mark.parametrize(
    ("workload", "level"),
    [
        ({}, "OK"),
        ({"status": "InProgress", "detail": "2 of 3 ready"}, "FAIL"),
        ({"replicas": 0, "ready": 0, "detail": "no pod left"}, "WARN"),
        ({"replicas": 0, "ready": 0, "stopped_by_lowtide": {"run": "r", "since": "s"}}, "FAIL"),
        ({"stale_saved_state": {"run": "r"}}, "WARN"),
        ({"problem": "unreadable note"}, "FAIL"),
    ],
)
def test_workloads(workload: dict[str, Any], level: str) -> None:
    """Ready, not ready, stopped by somebody, left stopped by a run, with a note that nobody can read."""
    assert levels("workloads", {"workloads": [{**WORKLOAD, **workload}]}) == [level]


ZERO = {"replicas": 0, "ready": 0, "detail": "no pod left"}


@pytest.mark.parametrize(
    ("workload", "line"),
    [
        (ZERO, "OK   Deployment n/w: it has 0 replicas, as declared"),
        ({**ZERO, "kind": "CronJob"}, "OK   CronJob n/w: it is suspended, as declared"),
        (
            {**ZERO, "stopped_by_lowtide": {"run": "r", "since": "s"}},
            "OK   Deployment n/w: it has 0 replicas, as declared",
        ),
        (
            {**ZERO, "status": "InProgress", "detail": "1 pod left"},
            "FAIL Deployment n/w: 1 pod left. Look at the events of its pods.",
        ),
        (
            {},
            "FAIL Deployment n/w: it is not stopped, and declared to be in health_stopped_workloads: 3 of 3 ready."
            " Stop it, or take it out of health_stopped_workloads.",
        ),
    ],
)
def test_what_is_meant_to_be_stopped(workload: dict[str, Any], line: str) -> None:
    """At 0 it is well, whoever stopped it; while its pods end, and when it runs, it is not."""
    read = {**WORKLOAD, **workload}
    declared: list[dict[str, Any]] = [{"kind": read["kind"], "name": "w"}]
    assert judge("workloads", {"workloads": [read]}, stopped_workloads=declared)["evidence"] == [line]
    declared[0]["api_version"] = "example.org/v1"
    assert judge("workloads", {"workloads": [read]}, stopped_workloads=declared)["evidence"] == [line]


def test_a_declared_workload_at_zero_is_told_without_a_guess_at_who_did_it() -> None:
    """It fails, with the variable that says that it is meant."""
    read = {**WORKLOAD, **ZERO, "kind": "Job"}
    declared = [{"kind": "Job", "name": "w"}]
    assert judge("workloads", {"workloads": [read]}, workloads=declared)["evidence"] == [
        "FAIL Job n/w: it is suspended, no pod left. Start it, or name it in health_stopped_workloads if it is meant to"
        " be stopped."
    ]


def test_offsets_outside_of_the_log_are_told_with_their_place() -> None:
    """And why a state is not known."""
    rows = [{**POSITION, "committed": 3, "log_start": 100, "lost": 97}, {**POSITION, "committed": 50, "beyond_end": 30}]
    group = {**GROUP, "state": "unknown", "reason": "a group of another kind", "partitions": rows, "total_lag": None}
    told = judge_health({"consumer_groups": {"groups": [group]}}, {**PLAN, "checks": ["consumer_groups"]}, [])
    text = "\n".join(told["evidence"])
    assert "unknown with 2 members (declared stable): a group of another kind" in text
    assert (
        "97 offsets that it had not passed are no longer in the log (first t[0]: committed 3, the log starts at 100"
        in text
    )
    assert "1 offsets are beyond the end of their log (first t[0]: committed 50, the log ends at 20)" in text


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({}, ["OK", "OK"]),
        ({"total_lag": 9}, ["OK", "WARN"]),
        ({"total_lag": 11}, ["OK", "FAIL"]),
        ({"total_lag": None}, ["OK", "FAIL"]),
        ({"state": "rebalancing"}, ["FAIL", "OK"]),
        ({"name": "another"}, ["FAIL", "FAIL"]),
        ({"partitions": [POSITION]}, ["OK", "OK"]),
        ({"partitions": [{**POSITION, "lost": 2}, {**POSITION, "lost": 8}]}, ["OK", "OK", "WARN"]),
        ({"partitions": [{**POSITION, "lost": 2}, {**POSITION, "lost": 9}]}, ["OK", "OK", "FAIL"]),
        ({"partitions": [{**POSITION, "beyond_end": 1}], "total_lag": None}, ["OK", "FAIL", "FAIL"]),
        ({"partitions": [{**POSITION, "lost": None, "beyond_end": None}], "total_lag": None}, ["OK", "FAIL"]),
    ],
)
def test_groups(group: dict[str, Any], expected: list[str]) -> None:
    """State and lag, each for itself; a group that was not seen is missing."""
    assert levels("consumer_groups", {"groups": [{**GROUP, **group}]}) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, ["OK", "OK", "OK", "OK"]),
        ({"connections": 70}, ["OK", "WARN", "OK", "OK"]),
        ({"connections": 81}, ["OK", "FAIL", "OK", "OK"]),
        ({"standbys": None}, ["OK", "OK", "FAIL"]),
        ({"standbys": [{"name": "s", "state": "catchup", "behind": 5000}]}, ["OK", "OK", "FAIL", "FAIL"]),
        ({"standbys": [{"name": "s", "state": "streaming", "behind": None}]}, ["OK", "OK", "OK", "FAIL"]),
        ({"may_read_statistics": False}, ["OK", "FAIL"]),
    ],
)
def test_database(row: dict[str, Any], expected: list[str]) -> None:
    """Connections, standbys and how far they are; to a role that may not see them nothing is said to be well."""
    assert levels("database", {"system_identifier": "7", "rows": [{**ROW, **row}]}) == expected


def test_database_without_standbys_may_have_none() -> None:
    """Nothing is said about standbys where none is declared and none is there."""
    answer = {"system_identifier": "7", "rows": [{**ROW, "standbys": None}]}
    assert levels("database", answer, standbys=0) == ["OK", "OK"]


def test_a_role_without_rights_is_told_what_to_grant() -> None:
    """By name."""
    answer = {"system_identifier": "7", "rows": [{**ROW, "may_read_statistics": False}]}
    assert "GRANT pg_read_all_stats TO monitor" in judge("database", answer)["blockers"][0]["next_step"]


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


def test_a_window_is_not_refused_for_the_backup_that_it_takes() -> None:
    """Missing or too old, it is a warning there; a backup that cannot be read is a failure all the same."""
    plan = {**PLAN, "checks": ["backups"]}
    told = judge_health({"backups": {"newest": []}}, plan, [], in_window=True)
    assert told["verdict"] == "WARN"
    assert "the steps of the window that is open decide about backups" in told["evidence"][0]
    read = {"failed": True, "msg": "no such bucket"}
    assert judge_health({"backups": read}, plan, [], in_window=True)["verdict"] == "FAIL"


def test_backups_of_a_declared_cluster() -> None:
    """With the identity declared, another cluster's database of that name does not count."""
    old = {**BACKUP, "system_identifier": "8", "age_seconds": 25 * 3600}
    declared = [{"database": "d", "max_age": "24h", "system_identifier": 7}]
    assert levels("backups", {"newest": [BACKUP, old]}, backups=declared) == ["OK"]
    assert levels("backups", {"newest": [old]}, backups=declared) == ["FAIL"]


def test_a_backup_of_a_copy_of_the_cluster_does_not_vouch() -> None:
    """Same database, same system identifier: only those of the declared servers are judged, the newest of them."""
    own = {**BACKUP, "hosts": ["db1:5432", "10.0.0.1:5432"]}
    clone = {**BACKUP, "hosts": ["staging:5432"], "age_seconds": 60}
    declared = [{**PLAN["backups"][0], "hosts": ["db1:5432", "db2:5432"]}]
    old = {**own, "age_seconds": 25 * 3600}
    assert levels("backups", {"newest": [clone], "backups": [clone, own, old], "node": "n"}, backups=declared) == ["OK"]
    assert levels("backups", {"newest": [clone], "backups": [clone, old], "node": "n"}, backups=declared) == ["FAIL"]
    told = judge("backups", {"newest": [clone], "backups": [clone], "node": "n"}, backups=declared)
    assert "there is no verified one of db1:5432, db2:5432 in bucket b" in told["evidence"][0]
    assert "there is one of staging:5432" in told["evidence"][0]
    local = [{**PLAN["backups"][0], "hosts": ["localhost:5432"]}]
    here = {**BACKUP, "hosts": ["n:5432"]}
    assert levels("backups", {"newest": [here], "backups": [here], "node": "n"}, backups=local) == ["OK"]
    assert levels("backups", {"newest": [here], "backups": [here], "node": "m"}, backups=local) == ["FAIL"]


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


@pytest.mark.parametrize("kind", sorted(COMPARE))
@pytest.mark.parametrize("read", [{"failed": True, "msg": "no route\n  to host."}, {"skipped": True}, {}])
def test_a_read_that_failed_or_was_not_made_is_one_failing_line(kind: str, read: dict[str, Any]) -> None:
    """With the message, and the variable to correct, in one line."""
    told = judge(kind, read)
    (blocker,) = told["blockers"]
    message = "no route to host" if read.get("failed") else "nothing has been read"
    assert blocker["what"] == f"cannot be read: {message}"
    assert blocker["next_step"] == f"Correct {PLAN['variables'][kind]}, or what is named here"
    assert told["evidence"] == [f"FAIL {blocker['object']}: {blocker['what']}. {blocker['next_step']}."]


def test_another_cluster_names_the_variable_of_the_inventory() -> None:
    """A module knows its option, the role knows which variable set it."""
    error = {
        "object": "PostgreSQL database d",
        "problem": "this is another cluster",
        "next_step": "Correct login_host, or system_identifier if this is the cluster that is meant",
    }
    told = judge("database", {"failed": True, "msg": "not shown", "error": error})
    assert told["evidence"] == [
        "FAIL database d: cannot be read: PostgreSQL database d: this is another cluster. Correct login_host, or"
        " health_postgresql_connection.system_identifier if this is the cluster that is meant"
        " (in health_postgresql_connection)."
    ]


STOPPED = {"replicas": 0, "ready": 0, "stopped_by_lowtide": {"run": "weekly@r", "since": "s"}}
BY_OPERATOR = {"replicas": 0, "ready": 0, "stopped_by_lowtide": {"run": "20260101T000000Z", "since": "s"}}


@pytest.mark.parametrize(
    ("kind", "result", "without", "within"),
    [
        ("workloads", {"workloads": [{**WORKLOAD, **STOPPED}]}, ["FAIL"], ["WARN"]),
        ("workloads", {"workloads": [{**WORKLOAD, **BY_OPERATOR}]}, ["FAIL"], ["FAIL"]),
        (
            "workloads",
            {"workloads": [{**WORKLOAD, "status": "InProgress", "detail": "1 of 3 ready"}]},
            ["FAIL"],
            ["WARN"],
        ),
        ("workloads", {"workloads": [{**WORKLOAD, "problem": "unreadable"}]}, ["FAIL"], ["FAIL"]),
        ("consumer_groups", {"groups": [{**GROUP, "state": "empty"}]}, ["FAIL", "OK"], ["WARN", "OK"]),
        ("consumer_groups", {"groups": [{**GROUP, "state": "rebalancing"}]}, ["FAIL", "OK"], ["WARN", "OK"]),
        ("consumer_groups", {"groups": [{**GROUP, "total_lag": 11}]}, ["OK", "FAIL"], ["OK", "WARN"]),
        ("consumer_groups", {"groups": [{**GROUP, "state": "missing", "total_lag": None}]}, ["FAIL"] * 2, ["FAIL"] * 2),
        ("backups", {"newest": []}, ["FAIL"], ["FAIL"]),
    ],
)
def test_what_a_pending_step_explains_is_a_warning(
    kind: str, result: dict[str, Any], without: list[str], within: list[str]
) -> None:
    """Stopped or on its way by us, a group whose members are gone or on their way, its lag; not outside of a window."""
    assert levels(kind, result) == without
    assert levels(kind, result, pending=("shutdown",)) == within


def test_the_reason_names_the_steps() -> None:
    """One, or several."""
    told = judge("workloads", {"workloads": [{**WORKLOAD, **STOPPED}]}, pending=("shutdown",))
    assert told["evidence"][0].endswith("since s; stopped by window step shutdown, reverted later in this window")
    told = judge("workloads", {"workloads": [{**WORKLOAD, **STOPPED}]}, pending=("shutdown", "silence"))
    assert "stopped by window steps shutdown, silence" in told["evidence"][0]
    assert Window().pending == ()


@pytest.mark.parametrize(
    ("workloads", "verdict", "summary"),
    [
        ([{}], "OK", "OK: all 1 checks passed"),
        (
            [{}, {"replicas": 0, "ready": 0, "detail": "no pod left"}],
            "WARN",
            "WARN: 0 of 2 checks failed, 1 warned: Deployment n/w: it has 0 replicas, no pod left",
        ),
        (
            [
                {},
                {"replicas": 0, "ready": 0, "detail": "no pod left"},
                {"status": "InProgress", "detail": "2 of 3 ready"},
                {"status": "InProgress", "detail": "1 of 3 ready"},
            ],
            "FAIL",
            "FAIL: 2 of 4 checks failed, 1 warned: Deployment n/w: 2 of 3 ready and 1 more",
        ),
    ],
)
def test_the_result_is_short_and_has_every_failure(workloads: list[dict[str, Any]], verdict: str, summary: str) -> None:
    """The summary names the first; each failure is a blocker; all lines are evidence; nothing is ever changed."""
    told = judge("workloads", {"workloads": [{**WORKLOAD, **workload} for workload in workloads]})
    assert (told["verdict"], told["summary"]) == (verdict, summary)
    assert [blocker["text"] for blocker in told["blockers"]] == [
        line for line in told["evidence"] if line[:4] == "FAIL"
    ]
    assert (len(told["evidence"]), told["plan"], told["changed"]) == (len(workloads), [], False)


def test_one_unreadable_system_does_not_hide_the_others() -> None:
    """All kinds of a host in one verdict, in order; what was read beside them is not looked at."""
    reads: dict[str, Any] = {
        "workloads": {"failed": True, "msg": "down"},
        "consumer_groups": {"groups": [GROUP], "check_mode": True},
        "backups": {"newest": []},
        "alerts": {"failed": True},
    }
    told = judge_health(reads, {**PLAN, "checks": ["workloads", "consumer_groups", "backups"]}, [])
    assert [line[:4] for line in told["evidence"]] == ["FAIL", "OK  ", "OK  ", "FAIL"]
    assert (told["checks"], told["check_mode"]) == (["workloads", "consumer_groups", "backups"], True)


@given(value=st.floats(0, 1e9), limit=st.floats(0, 1e9), ratio=st.floats(0, 1))
def test_at_most_never_passes_what_is_above(value: float, limit: float, ratio: float) -> None:
    """Above the limit fails, below the warning is fine, and nothing else."""
    level = compare_with_limit("o", "w", value, limit, ratio).level
    assert (level == "FAIL") == (value > limit)
    assert (level == "OK") == (value <= limit and value <= limit * ratio)


def test_what_is_declared_in_part_is_a_warning_that_the_summary_names() -> None:
    """A verdict that has not looked at it is not simply OK; a failure does not hide it."""
    unchecked = {"backups": ["postgresql_connection"], "consumer_groups": ["kafka_connection", "consumer_groups"]}
    told = judge("workloads", {"workloads": [WORKLOAD]}, unchecked=unchecked)
    assert told["evidence"][1:] == [
        "WARN backups: not checked: postgresql_connection is not set on web1",
        "WARN consumer_groups: not checked: kafka_connection and consumer_groups is not set on web1",
    ]
    assert (told["verdict"], told["blockers"]) == ("WARN", [])
    assert told["summary"] == (
        "WARN: all 1 checks passed; not checked: backups (postgresql_connection is not set on web1),"
        " consumer_groups (kafka_connection and consumer_groups is not set on web1)"
    )
    failed = judge(
        "workloads",
        {"workloads": [{**WORKLOAD, "status": "InProgress", "detail": "1 of 3 ready"}]},
        unchecked=unchecked,
    )
    assert failed["summary"].startswith("FAIL: 1 of 1 checks failed")
    assert "; not checked: backups (" in failed["summary"]


def describe_secret(*days: float, age: float | None = None, phase: str = "finished", **fields: Any) -> dict[str, Any]:
    """A Secret with certificates that are valid for so many days, and a password of that age."""
    certificates = [
        {"subject": "CN=x", "seconds_left": left * 86400, "not_after": "2026-05-04T02:00:00Z"} for left in days
    ]
    credential = None if age is None else {"phase": phase, "age_seconds": age * 86400}
    secret = {"name": "s", "title": "Secret n/s", "exists": True, "certificates": certificates}
    return {**secret, "credential": credential, **fields}


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (describe_secret(60, age=10), ["OK", "OK"]),
        (describe_secret(31, age=80), ["WARN", "WARN"]),
        (describe_secret(29, age=91), ["FAIL", "FAIL"]),
        (describe_secret(-1, 60, age=10), ["FAIL", "OK", "OK"]),
        (describe_secret(age=10, phase="proven"), ["WARN"]),
        (describe_secret(), ["FAIL"]),
        (describe_secret(exists=False), ["FAIL"]),
    ],
)
def test_secrets(secret: dict[str, Any], expected: list[str]) -> None:
    """Each certificate, then the password; of one that was never replaced the age is not known."""
    assert levels("secrets", {"secrets": [secret]}) == expected


def test_a_secret_of_which_nothing_is_declared_that_could_be_told_fails() -> None:
    """Nothing expected is never healthy."""
    plan = {**PLAN, "checks": ["secrets"], "secrets": [{"name": "s", "valid_for": 86400.0, "max_age": None}]}
    told = judge_health({"secrets": {"secrets": [describe_secret()]}}, plan, [])
    assert "there is nothing to check" in told["summary"]
    told = judge_health({"secrets": {"secrets": [describe_secret(-3)]}}, plan, [])
    assert told["evidence"] == [
        "FAIL Secret n/s, CN=x: expired 3.0 d ago, until 2026-05-04T02:00:00Z (limit 1 d). Renew it."
    ]
