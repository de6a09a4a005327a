# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what a MariaDB server says of its connections, and whether a restart could mend it; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from datetime import timedelta

from .._common.text import format_duration, join_some

if t.TYPE_CHECKING:
    from datetime import datetime

STEPS = {
    "check_process": "Find out whether the server runs, and what its log says; start it if it does not",
    "check_network": "Find out whether its port can be reached from the client: name, bind_address, firewall, Service",
    "end_idle_sessions": "End the sessions that idle (KILL, wait_timeout), and see whether they come back",
    "correct_pools": "Correct the pool of the client that has most sessions: size, life time, leaks",
    "raise_max_connections": "SET GLOBAL max_connections, as far as memory allows; it needs no restart",
    "end_long_transactions": "End the transactions that are open for long, or have their clients commit",
    "end_lock_holders": "End the sessions that others wait for",
}
"""What to do before a restart, by the name that is declared as tried."""
CANNOT = "a restart cannot mend it"


@dataclass(frozen=True)
class Finding:
    """One cause or sign: what was seen, what to do, and which steps have to be tried before a restart.

    Without steps it is nothing that a restart mends.
    """

    name: str
    what: str
    next_step: str
    steps: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, t.Any]:
        """Return it as the module reports it."""
        return {"name": self.name, "what": self.what, "next_step": self.next_step, "steps": list(self.steps)}


@dataclass(frozen=True)
class Limits:
    """From where on something is a finding; durations in seconds."""

    connections_ratio: float
    idle: int
    transaction: int
    lag: int


@dataclass(frozen=True)
class Reading:
    """What the server said; ``sessions`` have id, user, command and seconds, as do ``transactions`` and ``waits``."""

    max_connections: int
    status: t.Mapping[str, int]
    sessions: t.Sequence[t.Mapping[str, t.Any]] = ()
    transactions: t.Sequence[t.Mapping[str, t.Any]] = ()
    waits: t.Sequence[t.Mapping[str, t.Any]] = ()
    read_only: bool = False
    replica: t.Mapping[str, t.Any] | None = None
    limits: Limits = field(default_factory=lambda: Limits(0.8, 300, 60, 30))

    @property
    def used(self) -> int:
        """Return how many connections there are."""
        return self.status.get("Threads_connected", 0)

    def count_by_user(self) -> list[dict[str, t.Any]]:
        """Return for each user how many sessions it has, and how many of them sleep for long; most first."""
        users: dict[str, dict[str, t.Any]] = {}
        for session in self.sessions:
            entry = users.setdefault(
                session["user"], {"user": session["user"], "sessions": 0, "active": 0, "idle": 0, "states": {}}
            )
            is_asleep = session["command"] == "Sleep"
            entry["sessions"] += 1
            entry["active"] += not is_asleep
            entry["idle"] += is_asleep and session["seconds"] >= self.limits.idle
            state = session["state"] or session["command"]
            entry["states"][state] = entry["states"].get(state, 0) + 1
        return sorted(users.values(), key=lambda entry: (-entry["sessions"], entry["user"]))


def judge(reading: Reading) -> list[Finding]:
    """Return what is the matter, the likeliest cause first."""
    return [
        *_judge_connections(reading),
        *_judge_transactions(reading),
        *_judge_refused(reading),
        *_judge_role(reading),
    ]


def _judge_connections(reading: Reading) -> list[Finding]:
    if reading.used < reading.limits.connections_ratio * reading.max_connections:
        return []
    users = [
        f"{entry['user']} has {entry['sessions']}, {entry['idle']} of them idle for"
        f" {format_duration(reading.limits.idle)} or more"
        for entry in reading.count_by_user()[:3]
    ]
    return [
        Finding(
            "connections_taken",
            f"{reading.used} of {reading.max_connections} connections are taken: {join_some(users)}",
            "End idle sessions, correct the pool of the client that has most, or raise max_connections",
            ("end_idle_sessions", "correct_pools", "raise_max_connections"),
        )
    ]


def _judge_transactions(reading: Reading) -> list[Finding]:
    findings: list[Finding] = []
    if reading.waits:
        holders = [
            f"connection {wait['holder']} ({wait['holder_user']}, {wait['holder_command']}) holds up {wait['waiter']}"
            for wait in reading.waits
        ]
        findings.append(
            Finding(
                "lock_waits",
                f"{len(reading.waits)} sessions wait for locks: {join_some(holders)}",
                "End or commit the transaction of the holder (KILL)",
                ("end_lock_holders",),
            )
        )
    old = [entry for entry in reading.transactions if entry["seconds"] >= reading.limits.transaction]
    if old:
        names = [
            f"connection {entry['id']} ({entry['user']}, {entry['command']}) for {format_duration(entry['seconds'])}"
            for entry in old
        ]
        findings.append(
            Finding(
                "long_transactions",
                f"transactions are open for long: {join_some(names)}",
                "End them (KILL), or have their clients commit. A restart has to roll them back first",
                ("end_long_transactions",),
            )
        )
    return findings


def _judge_refused(reading: Reading) -> list[Finding]:
    refused = reading.status.get("Connection_errors_max_connections", 0)
    aborted = reading.status.get("Aborted_connects", 0)
    if not aborted and not refused:
        return []
    return [
        Finding(
            "aborted_connects",
            f"since its start {aborted} attempts to connect failed, {refused} of them as no connection was left",
            "Look for a wrong password, a client that hangs up, or a port scan: log_warnings=4 names them in the log",
        )
    ]


def _judge_role(reading: Reading) -> list[Finding]:
    findings: list[Finding] = []
    replica = reading.replica
    if reading.read_only and replica is None:
        findings.append(
            Finding(
                "read_only",
                "read_only is ON, so that writes fail",
                "Lead writers to the primary; if this should be it, complete the promotion",
            )
        )
    if replica is not None and replica["lag"] is None:
        findings.append(
            Finding(
                "replica_stopped",
                f"replication does not run (IO {replica['io']}, SQL {replica['sql']}): {replica['error'] or 'none'}",
                "Correct what the error names, then START REPLICA",
            )
        )
    elif replica is not None and replica["lag"] >= reading.limits.lag:
        findings.append(
            Finding(
                "replica_lags",
                f"this replica is {format_duration(replica['lag'])} behind",
                "Find out what it executes (SHOW PROCESSLIST), and take its readers elsewhere meanwhile",
            )
        )
    return findings


CONNECT_FINDINGS = {
    1040: ("connections_taken", ("end_idle_sessions", "correct_pools", "raise_max_connections")),
    1045: ("access_denied", ()),
    1129: ("host_blocked", ()),
    1130: ("host_not_allowed", ()),
    1203: ("user_limit", ()),
    1226: ("user_limit", ()),
}


def judge_no_connection(code: int, problem: str, next_step: str, *, answers: bool) -> Finding:
    """Return what it means that there is no connection; ``answers`` says that its port accepts one."""
    if code in CONNECT_FINDINGS:
        name, steps = CONNECT_FINDINGS[code]
        return Finding(name, problem, next_step, steps)
    if answers:
        return Finding(
            "not_responding", f"its port accepts connections, and then: {problem}", next_step, ("check_process",)
        )
    return Finding("unreachable", problem, next_step, ("check_process", "check_network"))


class Tried(t.NamedTuple):
    """A step that was done, and when."""

    step: str
    at: datetime


def explain_restart(
    findings: t.Sequence[Finding], tried: t.Sequence[Tried], *, now: datetime, settle: int
) -> list[str]:
    """Return why the server must not be restarted now; nothing where each step before it was shown not to help.

    That is shown by a finding that is still there ``settle`` seconds after its steps were done.
    """
    mendable = [finding for finding in findings if finding.steps]
    if not findings:
        return ["nothing was found that a restart could mend"]
    if not mendable:
        return [f"{finding.name}: {CANNOT}. {finding.next_step}" for finding in findings]
    times = {entry.step: entry.at for entry in tried}
    reasons: list[str] = []
    for finding in mendable:
        for step in finding.steps:
            at = times.get(step)
            if at is None:
                reasons.append(f"{finding.name}: step {step} was not tried. {STEPS[step]}")
            elif at > now:
                reasons.append(f"{finding.name}: step {step} is dated in the future ({at.isoformat()})")
            elif now - at < timedelta(seconds=settle):
                reasons.append(f"{finding.name}: step {step} was tried less than {settle} s ago; read again then")
    return reasons


def word_refusal(reasons: t.Sequence[str]) -> str:
    """Return why there is no restart, in one text; nothing where there may be one."""
    return f"no restart: {'. '.join(reasons)}" if reasons else ""


def summarize(findings: t.Sequence[Finding], *, used: int | None, maximum: int | None) -> str:
    """Return one line: how many connections are taken, and what is the matter."""
    words = "no connection" if used is None else f"{used} of {maximum} connections taken"
    if not findings:
        return f"{words}; nothing is the matter"
    return f"{words}; {join_some([finding.name for finding in findings])}"
