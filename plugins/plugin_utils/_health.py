# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was read of a system to a verdict on it. Private to lowtide.ops: do not import from other collections.

Every function is pure: the result of the module that read, and the limits that the caller declared, give lines.
What is not known is a failure, never an OK.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.lowtide.ops.plugins.module_utils._backup.plan import parse_age

Result = t.Mapping[str, t.Any]
Limits = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Line:
    """One finding: ``level`` is OK, WARN or FAIL; ``object`` is what was looked at; ``seen`` has value and limit."""

    level: str
    object: str
    seen: str

    def as_dict(self) -> dict[str, str]:
        """The parts, and ``text``, the line as people read it."""
        return {**asdict(self), "text": f"{self.level:4} {self.object}: {self.seen}"}


def at_most(obj: str, what: str, value: float | None, limit: float, warn_ratio: float, *, unit: str = "") -> Line:
    """A value that must not be above its limit, and is worth a warning above ``warn_ratio`` of it; rounded only to be shown."""
    if value is None:
        return Line("FAIL", obj, f"{what} is not known (limit {limit:.15g}{unit})")
    level = "FAIL" if value > limit else "WARN" if value > limit * warn_ratio else "OK"
    return Line(level, obj, f"{what} {round(value, 2):.15g}{unit} (limit {limit:.15g}{unit})")


def workload_lines(result: Result, limits: Limits) -> list[Line]:
    """Lines for ``k8s_workload_info``: every workload has exactly the pods it asks for, and nobody left it stopped."""
    lines = [_workload_line(workload) for workload in result["workloads"]]
    return lines or [Line("FAIL", f"namespace {limits['namespace']}", "there is no workload in it")]


def _workload_line(workload: Result) -> Line:
    obj = f"{workload['kind']} {workload['namespace']}/{workload['name']}"
    ready = f"{workload['ready']} of {workload['replicas']} ready"
    stopped = workload.get("stopped_by_us")
    if workload.get("problem"):
        return Line("FAIL", obj, str(workload["problem"]))
    if stopped:
        return Line("FAIL", obj, f"left stopped by run {stopped.get('run')} since {stopped.get('since')}")
    if not workload["settled"]:
        return Line("FAIL", obj, ready)
    if workload.get("stale_note"):
        return Line(
            "WARN",
            obj,
            f"{ready}, and still carries the note of run {workload['stale_note'].get('run')} that stopped it",
        )
    return Line("OK" if workload["replicas"] else "WARN", obj, ready)


def group_lines(result: Result, limits: Limits) -> list[Line]:
    """Lines for ``rpk_group_info``: each declared group is in one of its states and its lag is below its limit."""
    seen = {group["name"]: group for group in result["groups"]}
    lines = []
    for declared in limits["groups"]:
        obj = f"consumer group {declared['name']}"
        group = seen.get(declared["name"], {"state": "missing"})
        states = declared.get("states") or ["stable"]
        level = "OK" if group["state"] in states else "FAIL"
        lines.append(
            Line(
                level,
                obj,
                f"{group['state']} with {group.get('member_count', 0)} members (declared {' or '.join(states)})",
            )
        )
        lines.append(at_most(obj, "lag", group.get("total_lag"), declared["max_lag"], limits["warn_ratio"]))
    return lines


def database_lines(result: Result, limits: Limits) -> list[Line]:
    """Lines for the one row that the role asks a primary for: identity, connections, standbys and how far they are."""
    obj = f"database {limits['database']}"
    (row,) = result["query_result"]
    wanted = limits.get("system_identifier")
    identity = f"system identifier {row['system_identifier']}"
    if wanted and str(wanted) != str(row["system_identifier"]):
        return [Line("FAIL", obj, f"{identity} (declared {wanted}; health_connection.system_identifier settles it)")]
    lines = [
        Line(
            "FAIL" if row["in_recovery"] else "OK", obj, f"{'standby' if row['in_recovery'] else 'primary'}, {identity}"
        ),
        at_most(
            obj,
            f"{row['connections']} of {row['max_connections']} connections, percent",
            _percent(row),
            100 * limits["connection_ratio"],
            limits["warn_ratio"],
        ),
    ]
    standbys = row["standbys"] or []
    if limits["standbys"] or standbys:
        streaming = sum(standby["state"] == "streaming" for standby in standbys)
        level = "OK" if streaming >= limits["standbys"] else "FAIL"
        lines.append(Line(level, obj, f"{streaming} standbys streaming (declared {limits['standbys']} at least)"))
    lines.extend(
        at_most(
            f"standby {standby['name']}",
            "bytes behind",
            standby["behind"],
            limits["standby_bytes"],
            limits["warn_ratio"],
        )
        for standby in standbys
    )
    return lines


def _percent(row: Result) -> float:
    return 100 * float(row["connections"]) / float(row["max_connections"])


def backup_lines(result: Result, limits: Limits) -> list[Line]:
    """Lines for ``pg_backup_info``: each declared database has a verified backup that is young enough."""
    lines = []
    for declared in limits["backups"]:
        obj = f"backup of {declared['database']}"
        ages = [
            backup["age_seconds"]
            for backup in result["newest"]
            if backup["database"] == declared["database"]
            and str(declared.get("system_identifier") or backup["system_identifier"])
            == str(backup["system_identifier"])
        ]
        limit = parse_age(str(declared["max_age"])).total_seconds() / 3600
        if ages:
            # Two clusters may have a database of that name: the older of their newest backups counts.
            lines.append(at_most(obj, "age", max(ages) / 3600, limit, limits["warn_ratio"], unit=" h"))
        else:
            lines.append(
                Line("FAIL", obj, f"there is no verified one in bucket {limits['bucket']} (limit {limit:g} h)")
            )
    lines.extend(
        Line("WARN", f"backup {bad.get('run_id', '')}".strip(), f"does not count: {bad['problem']}")
        for bad in result.get("bad") or []
    )
    return lines


def alert_lines(result: Result, limits: Limits) -> list[Line]:
    """Lines for Prometheus' ``/api/v1/rules``: alerting rules are loaded, work, and none of them fires.

    An alert of a severity in ``fail_severities``, or without any, is a failure, another one a warning. A rule that
    cannot be evaluated never fires, and therefore is a failure; so is an empty set of rules.
    """
    obj = f"alerts of {limits['url']}"
    answer = result.get("json") or {}
    if answer.get("status") != "success":
        return [
            Line(
                "FAIL",
                obj,
                f"Prometheus did not answer with success: {answer.get('error') or 'no answer in its format'}",
            )
        ]
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"] if rule.get("type") == "alerting"]
    missing = sorted(set(limits["required"]) - {rule["name"] for rule in rules})
    lines = [Line("FAIL", f"alert {name}", "there is no such rule, so it can never fire") for name in missing]
    if not rules:
        return [*lines, Line("FAIL", obj, "no alerting rule is loaded")]
    for rule in rules:
        lines.extend(_rule_lines(rule, limits))
    return lines or [Line("OK", obj, f"none of {len(rules)} rules fires")]


def _rule_lines(rule: Result, limits: Limits) -> t.Iterator[Line]:
    obj = f"alert {rule['name']}"
    if rule.get("health") == "unknown":
        yield Line("WARN", obj, "the rule has not been evaluated yet")
    elif rule.get("health") != "ok":
        yield Line("FAIL", obj, f"the rule cannot be evaluated: {rule.get('lastError') or rule.get('health')}")
    if rule["name"] in limits["ignored"]:
        return
    for alert in rule.get("alerts") or []:
        severity = alert["labels"].get("severity")
        labels = ", ".join(f"{key}={value}" for key, value in sorted(alert["labels"].items()) if key != "alertname")
        serious = alert["state"] == "firing" and (severity is None or severity in limits["fail_severities"])
        yield Line("FAIL" if serious else "WARN", obj, f"{alert['state']} since {alert.get('activeAt')} ({labels})")


KINDS: dict[str, t.Callable[[Result, Limits], list[Line]]] = {
    "workloads": workload_lines,
    "groups": group_lines,
    "database": database_lines,
    "backups": backup_lines,
    "alerts": alert_lines,
}


def health_lines(result: Result, kind: str, limits: Limits) -> list[dict[str, str]]:
    """The lines for one kind of system; a read that failed is one failing line with its message."""
    if result.get("failed"):
        message = " ".join(str(result.get("msg") or "no message").split())
        advice = "" if result.get("error") else ". Correct health_connection and what is named here"
        return [Line("FAIL", str(limits["name"]), f"cannot be read: {message}{advice}").as_dict()]
    return [line.as_dict() for line in KINDS[kind](result, limits)]


def health_result(result: Result, kind: str, limits: Limits, host: str) -> dict[str, t.Any]:
    """The public result of the role health for ``host``."""
    lines = health_lines(result, kind, limits)
    failed, warned = ([line for line in lines if line["level"] == level] for level in ("FAIL", "WARN"))
    verdict = "FAIL" if failed else "WARN" if warned else "OK"
    count = f"{host} {verdict}: {len(failed)} of {len(lines)} checks failed, {len(warned)} warned"
    return {
        "changed": False,
        "summary": "; ".join([count, *(line["text"] for line in failed + warned)]),
        "plan": [],
        "blockers": failed,
        "evidence": {"verdict": verdict, "lines": lines},
    }
