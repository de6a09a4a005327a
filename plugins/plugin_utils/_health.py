# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn what was read of the systems of a host into a verdict on them.

Private to lowtide.ops: do not import from other collections.

Pure. What was read of each system, and the plan that :mod:`._health_inputs` made of the inputs, give lines. What is
not known is a failure, never an OK.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import is_taken_from
from ansible_collections.lowtide.ops.plugins.module_utils._common.amounts import parse_age
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.notes import FINISHED
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import is_window

Result = t.Mapping[str, t.Any]
Plan = t.Mapping[str, t.Any]

# By which option a module knows the identity of the system that it reaches.
IDENTITY_KEYS = {
    "workloads": "cluster_uid",
    "secrets": "cluster_uid",
    "consumer_groups": "cluster_id",
    "database": "system_identifier",
}
DAY = 86400.0
SUSPENDED_KINDS = ("CronJob", "Job")


@dataclass(frozen=True)
class Line:
    """One check: ``level`` is OK, WARN or FAIL, ``object`` what was looked at, ``what`` the value and its limit."""

    level: str
    object: str
    what: str
    next_step: str = ""

    @property
    def text(self) -> str:
        """The line as people read it; a failure says what to do."""
        advice = f". {self.next_step}." if self.level == "FAIL" and self.next_step else ""
        return f"{self.level:4} {self.object}: {self.what}{advice}"

    def as_blocker(self) -> dict[str, t.Any]:
        """The line as an entry of a result's ``blockers``."""
        return {
            "object": self.object,
            "what": self.what,
            "holder": "",
            "since": None,
            "next_step": self.next_step,
            "text": self.text,
        }


class Window(t.NamedTuple):
    """The window in which the check is made: the ``pending`` steps have stopped something and are not reverted yet."""

    pending: tuple[str, ...] = ()
    is_open: bool = False

    def excuse_backup(self, line: Line) -> Line:
        """Return a missing or old backup as a warning: a window that takes it must not be refused for the lack of it."""
        if not self.is_open or line.level != "FAIL":
            return line
        return Line("WARN", line.object, f"{line.what}; the steps of the window that is open decide about backups")

    def excuse(self, line: Line) -> Line:
        """Return a failure that a pending step explains as a warning with that reason; any other line as it is."""
        if not self.pending or line.level != "FAIL":
            return line
        steps = f"step {self.pending[0]}" if len(self.pending) == 1 else f"steps {', '.join(self.pending)}"
        return Line("WARN", line.object, f"{line.what}; stopped by window {steps}, reverted later in this window")


def compare_with_limit(
    obj: str, what: str, value: float | None, limit: float, warn_ratio: float, *, unit: str = "", next_step: str = ""
) -> Line:
    """Compare a value with its limit, and warn above ``warn_ratio`` of it; the value is rounded only to be shown."""
    if value is None:
        return Line("FAIL", obj, f"{what} is not known (limit {limit:.15g}{unit})", next_step)
    level = "FAIL" if value > limit else "WARN" if value > limit * warn_ratio else "OK"
    return Line(level, obj, f"{what} {round(value, 2):.15g}{unit} (limit {limit:.15g}{unit})", next_step)


def check_workloads(result: Result, plan: Plan, window: Window) -> list[Line]:
    """Return a line for each workload of ``k8s_workload_info``: it has exactly the pods that it asks for.

    One that is declared is meant to run: at 0 it is a failure, where none is declared a warning. One that is declared
    as stopped is meant to be at 0.
    """
    is_declared = bool(plan["workloads"])
    stopped = {(entry["kind"], entry["name"]) for entry in plan["stopped_workloads"]}
    return [
        _check_stopped_workload(workload, window)
        if (workload["kind"], workload["name"]) in stopped
        else _check_workload(workload, window, is_declared=is_declared)
        for workload in result["workloads"]
    ]


def _name_workload(workload: Result) -> str:
    return f"{workload['kind']} {workload['namespace']}/{workload['name']}"


def _describe_zero(workload: Result) -> str:
    """Return how a workload without replicas is stopped."""
    return "it is suspended" if workload["kind"] in SUSPENDED_KINDS else "it has 0 replicas"


def _check_stopped_workload(workload: Result, window: Window) -> Line:
    """Return the line for a workload that is meant to be at 0 replicas, or suspended, whoever has stopped it."""
    obj, message = _name_workload(workload), str(workload["detail"])
    if workload["replicas"]:
        what = f"it is not stopped, and declared to be in health_stopped_workloads: {message}"
        return Line("FAIL", obj, what, "Stop it, or take it out of health_stopped_workloads")
    if workload["status"] != "Current":
        return window.excuse(Line("FAIL", obj, message, "Look at the events of its pods"))
    return Line("OK", obj, f"{_describe_zero(workload)}, as declared")


def _check_workload(workload: Result, window: Window, *, is_declared: bool) -> Line:
    obj = _name_workload(workload)
    message = str(workload["detail"])
    if workload.get("problem"):
        next_step = "Set its replicas as they should be and remove the annotation"
        line = Line("FAIL", obj, str(workload["problem"]), next_step)
    elif workload.get("stopped_by_lowtide"):
        line = _check_stopped(obj, workload["stopped_by_lowtide"], window)
    elif workload["status"] != "Current":
        line = window.excuse(Line("FAIL", obj, message, "Look at the events of its pods"))
    elif workload["replicas"] and workload.get("stale_saved_state"):
        run = workload["stale_saved_state"].get("run")
        line = Line("WARN", obj, f"{message}, and still carries what run {run} saved when it stopped it")
    elif workload["replicas"]:
        line = Line("OK", obj, message)
    else:
        level = "FAIL" if is_declared else "WARN"
        next_step = "Start it, or name it in health_stopped_workloads if it is meant to be stopped"
        line = Line(level, obj, f"{_describe_zero(workload)}, {message}", next_step if is_declared else "")
    return line


def _check_stopped(obj: str, saved: Result, window: Window) -> Line:
    run = str(saved.get("run"))
    since = f"left stopped by run {run} since {saved.get('since')}"
    if not is_window(run):
        return Line("FAIL", obj, since, "Start it with lowtide.ops.startup")
    return window.excuse(Line("FAIL", obj, since, "Start it with lowtide.ops.restore_service"))


def check_consumer_groups(result: Result, plan: Plan, window: Window) -> list[Line]:
    """Return lines for ``rpk_group_info``: each group is in one of its states, and its lag below its limit."""
    groups = {group["name"]: group for group in result["groups"]}
    lines = []
    for declared in plan["consumer_groups"]:
        group = groups.get(declared["name"], {"state": "missing"})
        lines += [_check_state(group, declared, window), _check_lag(group, declared, plan, window)]
        lines += _check_positions(group, declared)
    return lines


def _check_positions(group: Result, declared: Result) -> list[Line]:
    """Return a line for offsets that the log does not hold: beyond its end, or removed before the group passed them."""
    obj, rows = f"consumer group {declared['name']}", group.get("partitions") or []
    beyond = [row for row in rows if row.get("beyond_end")]
    lost = [row for row in rows if row.get("lost")]
    lines = []
    if beyond:
        row = beyond[0]
        what = (
            f"{len(beyond)} offsets are beyond the end of their log (first {row['topic']}[{row['partition']}]: committed"
            f" {row['committed']}, the log ends at {row['log_end']})"
        )
        step = "Find out whether the topic was made anew or has lost records, then set them with lowtide.ops.rpk_group"
        lines.append(Line("FAIL", obj, what, step))
    if lost:
        row, total = lost[0], sum(row["lost"] for row in lost)
        what = (
            f"{total} offsets that it had not passed are no longer in the log (first {row['topic']}[{row['partition']}]:"
            f" committed {row['committed']}, the log starts at {row['log_start']}; limit {declared['max_lag']})"
        )
        level = "FAIL" if total > declared["max_lag"] else "WARN"
        lines.append(Line(level, obj, what, "Find out why its consumers were that late, and how to get these records"))
    return lines


def _check_state(group: Result, declared: Result, window: Window) -> Line:
    state, states = group["state"], declared["states"]
    line = Line(
        "OK" if state in states else "FAIL",
        f"consumer group {declared['name']}",
        f"{state} with {group.get('member_count', 0)} members (declared {' or '.join(states)})"
        + (f": {group['reason']}" if group.get("reason") else ""),
        "Correct the name, or start its consumers" if state == "missing" else "Look at its consumers",
    )
    # Its consumers leave or come back while the window stops or starts them.
    return window.excuse(line) if state in {"empty", "rebalancing"} else line


def _check_lag(group: Result, declared: Result, plan: Plan, window: Window) -> Line:
    lag = group.get("total_lag")
    obj, ratio = f"consumer group {declared['name']}", plan["limits"]["warn_ratio"]
    line = compare_with_limit(
        obj, "lag", lag, declared["max_lag"], ratio, next_step="See whether its consumers work it off"
    )
    return line if lag is None else window.excuse(line)


def check_database(result: Result, plan: Plan) -> list[Line]:
    """Return lines for the one row that the role asks a primary for: connections, standbys and how far they are."""
    obj, limits = f"database {plan['database']}", plan["limits"]
    (row,) = result["rows"]
    lines = [Line("OK", obj, f"primary, system identifier {result['system_identifier']}")]
    if not row["may_read_statistics"]:
        return [
            *lines,
            Line(
                "FAIL",
                obj,
                f"role {row['role']} may not read other sessions' statistics: connections and standbys are not known",
                f"GRANT pg_read_all_stats TO {row['role']}",
            ),
        ]
    lines.append(
        compare_with_limit(
            obj,
            f"{row['connections']} of {row['max_connections']} connections, percent",
            _compute_percent(row),
            100 * limits["connection_ratio"],
            limits["warn_ratio"],
            next_step="Look who holds them in pg_stat_activity",
        )
    )
    standbys = row["standbys"] or []
    if limits["standbys"] or standbys:
        streaming = sum(standby["state"] == "streaming" for standby in standbys)
        level = "OK" if streaming >= limits["standbys"] else "FAIL"
        what = f"{streaming} standbys streaming (declared {limits['standbys']} at least)"
        lines.append(Line(level, obj, what, "Look at the standbys that are missing from pg_stat_replication"))
    for standby in standbys:
        standby_line = compare_with_limit(
            f"standby {standby['name']}",
            "bytes behind",
            standby["behind"],
            limits["standby_bytes"],
            limits["warn_ratio"],
            next_step="Look at its log and at the network between them",
        )
        lines.append(standby_line)
    return lines


def _compute_percent(row: Result) -> float:
    return 100 * float(row["connections"]) / float(row["max_connections"])


def check_backups(result: Result, plan: Plan, window: Window) -> list[Line]:
    """Return lines for ``pg_backup_info``: each declared database has a verified backup that is young enough."""
    lines = []
    for declared in plan["backups"]:
        obj, cluster = f"backup of {declared['database']}", declared.get("system_identifier")
        hosts = declared.get("hosts") or []
        named = [
            backup
            for backup in result["backups" if hosts else "newest"]
            if backup["database"] == declared["database"]
            and str(cluster or backup["system_identifier"]) == str(backup["system_identifier"])
        ]
        newest: dict[str, float] = {}
        for backup in named:
            if not hosts or is_taken_from(backup["hosts"], hosts, node=result["node"]):
                newest.setdefault(str(backup["system_identifier"]), backup["age_seconds"])
        limit = parse_age(str(declared["max_age"])).total_seconds() / 3600
        step = "Make one with lowtide.ops.backup"
        if newest:
            # Two clusters may have a database of that name: the older of their newest backups counts.
            ratio = plan["limits"]["warn_ratio"]
            line = compare_with_limit(obj, "age", max(newest.values()) / 3600, limit, ratio, unit=" h", next_step=step)
        else:
            servers = f" of {', '.join(hosts)}" if hosts else ""
            what = f"there is no verified one{servers} in bucket {plan['bucket']} (limit {limit:g} h)"
            if named:
                what += f"; there is one of {' = '.join(named[0]['hosts'])}, which is another server or a copy"
                step += ", or name that server in hosts of health_backups if it is the one that is meant"
            line = Line("FAIL", obj, what, step)
        lines.append(window.excuse_backup(line))
    lines.extend(
        Line("WARN", f"backup {bad.get('run_id', '')}".strip(), f"does not count: {bad['problem']}")
        for bad in result.get("bad") or []
    )
    return lines


def check_secrets(result: Result, plan: Plan) -> list[Line]:
    """Return lines for ``k8s_secret_info``: certificates are valid for long enough, and a password is young enough."""
    secrets = {secret["name"]: secret for secret in result["secrets"]}
    return [line for declared in plan["secrets"] for line in _check_secret(secrets[declared["name"]], declared, plan)]


def _check_secret(secret: Result, declared: Result, plan: Plan) -> t.Iterator[Line]:
    obj = str(secret["title"])
    if not secret["exists"]:
        yield Line("FAIL", obj, "it does not exist", "Create it, or correct health_secrets")
    elif not secret["certificates"] and declared["max_age"] is None:
        next_step = "Declare its max_age, or take it out of health_secrets"
        yield Line(
            "FAIL", obj, "it has no certificate, and no max_age is declared, so there is nothing to check", next_step
        )
    for certificate in secret["certificates"]:
        yield _check_certificate(f"{obj}, {certificate['subject']}", certificate, declared, plan)
    if secret["exists"] and declared["max_age"] is not None:
        yield _check_credential(obj, secret["credential"] or {}, declared, plan)


def _check_certificate(obj: str, certificate: Result, declared: Result, plan: Plan) -> Line:
    left, limit = certificate["seconds_left"] / DAY, declared["valid_for"] / DAY
    level = "FAIL" if left < limit else "WARN" if left * plan["limits"]["warn_ratio"] < limit else "OK"
    words = f"valid for {left:.1f} d" if left > 0 else f"expired {-left:.1f} d ago"
    return Line(level, obj, f"{words}, until {certificate['not_after']} (limit {limit:.15g} d)", "Renew it")


def _check_credential(obj: str, credential: Result, declared: Result, plan: Plan) -> Line:
    age, limit = credential.get("age_seconds"), declared["max_age"] / DAY
    days = None if age is None else age / DAY
    step = "Replace it with lowtide.ops.credentials"
    line = compare_with_limit(
        obj, "age of the password", days, limit, plan["limits"]["warn_ratio"], unit=" d", next_step=step
    )
    if line.level == "OK" and credential.get("phase") != FINISHED:
        return Line(
            "WARN", obj, f"its password is being replaced ({credential.get('phase')}), and the old one still works"
        )
    return line


def check_alerts(result: Result, plan: Plan) -> list[Line]:
    """Return lines for Prometheus' ``/api/v1/rules``: alerting rules are loaded, work, and none of them fires.

    An alert of a severity in ``alerts_fail_severities``, or without any, is a failure, another one a warning. A rule
    that cannot be evaluated never fires, and therefore is a failure; so is an empty set of rules.
    """
    obj, limits = f"alerts of {plan['alerts_url']}", plan["limits"]
    answer = result.get("json") or {}
    if answer.get("status") != "success":
        what = f"Prometheus did not answer with success: {answer.get('error') or 'no answer in its format'}"
        return [Line("FAIL", obj, what, "Correct health_alerts_url")]
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"] if rule.get("type") == "alerting"]
    missing = sorted(set(limits["alerts_required"]) - {rule["name"] for rule in rules})
    load = "Load it into Prometheus"
    lines = [Line("FAIL", f"alert {name}", "there is no such rule, so it can never fire", load) for name in missing]
    if not rules:
        return [*lines, Line("FAIL", obj, "no alerting rule is loaded", "Load the rules into Prometheus")]
    for rule in rules:
        lines.extend(_check_rule(rule, limits))
    return lines or [Line("OK", obj, f"none of {len(rules)} rules fires")]


def _check_rule(rule: Result, limits: t.Mapping[str, t.Any]) -> t.Iterator[Line]:
    obj = f"alert {rule['name']}"
    if rule.get("health") == "unknown":
        yield Line("WARN", obj, "the rule has not been evaluated yet")
    elif rule.get("health") != "ok":
        what = f"the rule cannot be evaluated: {rule.get('lastError') or rule.get('health')}"
        yield Line("FAIL", obj, what, "Correct its expression")
    if rule["name"] in limits["alerts_ignored"]:
        return
    for alert in rule.get("alerts") or []:
        severity = alert["labels"].get("severity")
        labels = ", ".join(f"{key}={value}" for key, value in sorted(alert["labels"].items()) if key != "alertname")
        serious = alert["state"] == "firing" and (severity is None or severity in limits["alerts_fail_severities"])
        what = f"{alert['state']} since {alert.get('activeAt')} ({labels})"
        yield Line(
            "FAIL" if serious else "WARN", obj, what, "Mend what it is about, or add it to health_alerts_ignored"
        )


COMPARE: dict[str, t.Callable[[Result, Plan, Window], list[Line]]] = {
    "workloads": check_workloads,
    "consumer_groups": check_consumer_groups,
    "database": lambda result, plan, _window: check_database(result, plan),
    "backups": check_backups,
    "secrets": lambda result, plan, _window: check_secrets(result, plan),
    "alerts": lambda result, plan, _window: check_alerts(result, plan),
}


def name_system(kind: str, plan: Plan) -> str:
    """Return how a line names a system of which nothing could be read."""
    return {
        "workloads": f"namespace {plan['namespace']}",
        "consumer_groups": f"consumer groups {', '.join(group['name'] for group in plan['consumer_groups'])}",
        "database": f"database {plan['database']}",
        "backups": f"bucket {plan['bucket']}",
        "secrets": f"Secrets of namespace {plan['namespace']}",
        "alerts": f"alerts of {plan['alerts_url']}",
    }[kind]


def explain_failed_read(kind: str, result: Result, plan: Plan) -> Line:
    """Return the failing line for a system that could not be read, naming the variable that settles it."""
    variable = plan["variables"][kind]
    error = result.get("error") or {}
    message = " ".join(str(result.get("msg") or "nothing has been read").split()).rstrip(".")
    if error.get("problem") and error.get("next_step"):
        message = " ".join(f"{error.get('object')}: {error['problem']}".split())
        next_step = f"{name_identity(kind, str(error['next_step']), variable)} (in {variable})"
    else:
        next_step = f"Correct {variable}, or what is named here"
    return Line("FAIL", name_system(kind, plan), f"cannot be read: {message}", next_step)


def name_identity(kind: str, next_step: str, variable: str) -> str:
    """Return a module's advice with its option for the identity written as the key of the inventory's variable."""
    key = IDENTITY_KEYS.get(kind)
    return next_step if key is None else re.sub(rf"\b{key}\b", f"{variable}.{key}", next_step)


def list_lines(reads: t.Mapping[str, Result], plan: Plan, window: Window) -> list[Line]:
    """Return the lines of every kind that is checked; a read that failed, or was not made, is one failing line."""
    lines: list[Line] = []
    for kind in plan["checks"]:
        result = reads.get(kind) or {}
        if result.get("failed") or result.get("skipped") or not result:
            lines.append(explain_failed_read(kind, result, plan))
        else:
            lines += COMPARE[kind](result, plan, window)
    return lines


def summarize_lines(lines: t.Sequence[Line], plan: Plan) -> str:
    """Return the verdict in one short line: the counts, the first of what is not well, and what was not checked."""
    unchecked = [
        f"{kind} ({' and '.join(lacks)} is not set on {plan['host']})" for kind, lacks in plan["unchecked"].items()
    ]
    omitted = f"; not checked: {', '.join(unchecked)}" if unchecked else ""
    failed, warned = ([line for line in lines if line.level == level] for level in ("FAIL", "WARN"))
    if not failed and not warned:
        return f"{'WARN' if unchecked else 'OK'}: all {len(lines)} checks passed{omitted}"
    count = f"{len(failed)} of {len(lines)} checks failed, {len(warned)} warned"
    first = (failed or warned)[0]
    more = len(failed or warned) - 1
    rest = f" and {more} more" if more else ""
    return f"{'FAIL' if failed else 'WARN'}: {count}: {first.object}: {first.what}{rest}{omitted}"


def list_unchecked(plan: Plan) -> list[Line]:
    """Return a warning for each kind that is declared in part, and therefore was not looked at."""
    return [
        Line("WARN", kind, f"not checked: {' and '.join(lacks)} is not set on {plan['host']}")
        for kind, lacks in plan["unchecked"].items()
    ]


def judge_health(
    reads: t.Mapping[str, Result], plan: Plan, pending: t.Sequence[str], *, in_window: bool = False
) -> dict[str, t.Any]:
    """Return the public result of the role health."""
    checked = list_lines(reads, plan, Window(tuple(map(str, pending)), in_window))
    lines = [*checked, *list_unchecked(plan)]
    failed = [line for line in lines if line.level == "FAIL"]
    warned = [line for line in lines if line.level == "WARN"]
    return {
        "changed": False,
        "summary": summarize_lines(checked, plan),
        "plan": [],
        "blockers": [line.as_blocker() for line in failed],
        "check_mode": any(bool(result.get("check_mode")) for result in reads.values()),
        "evidence": [line.text for line in lines],
        "verdict": "FAIL" if failed else "WARN" if warned else "OK",
        "checks": list(plan["checks"]),
    }
