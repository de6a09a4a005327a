# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read groups and topics, and wait for a group to be as wanted. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import Refusal, WaitFailed, WaitTimeout
from .._common.retry import Deadline
from .api import DEAD, EMPTY, MISSING, UNKNOWN, Group, Log, TopicPartition
from .connection import open_client
from .errors import BusUnreachableError
from .summary import list_reading_evidence, summarize_reading

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome
    from .api import BusClient

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two readings while waiting: Kafka has nothing to watch, so it is asked, less and less often."""

SHOWN = 3
"""Members named in one message; all of them are in the result."""

STATIC_ADVICE = (
    "Members with a group.instance.id are static: they stay in the group after they have stopped, until their"
    " session is over (session.timeout.ms). Wait longer than that"
)


class PartitionView(t.NamedTuple):
    """A partition as a group sees it. ``lag``: records between the commit (or the log's start) and the log's end.

    Everything but the commit is None when the topic is gone.
    """

    partition: TopicPartition
    committed: int | None
    log_start: int | None
    log_end: int | None
    lag: int | None
    member_id: str | None


class GroupView(t.NamedTuple):
    """A group with every partition of each topic that it has committed to or is assigned."""

    group: Group
    partitions: tuple[PartitionView, ...]

    @property
    def total_lag(self) -> int | None:
        """Sum over partitions; None when nothing is known: no partition at all, or a topic that is gone."""
        lags = [row.lag for row in self.partitions]
        return sum(lag for lag in lags if lag is not None) if lags and None not in lags else None

    @property
    def lost_topics(self) -> list[str]:
        """The topics that it has committed to or is assigned, and that are gone: their lag cannot be known."""
        return sorted({row.partition.topic for row in self.partitions if row.lag is None})

    def as_dict(self) -> dict[str, t.Any]:
        """For a module's result."""
        group = self.group
        return {
            "name": group.name,
            "state": group.state,
            "protocol": group.protocol,
            "assignor": group.assignor,
            "coordinator": group.coordinator,
            "member_count": group.member_count,
            "members": [
                {
                    "member_id": member.member_id,
                    "client_id": member.client_id,
                    "host": member.host,
                    "instance_id": member.instance_id,
                    "assignments": [own._asdict() for own in member.assignments],
                }
                for member in group.members
            ],
            "partitions": [
                {
                    "topic": row.partition.topic,
                    "partition": row.partition.partition,
                    "committed": row.committed,
                    "log_start": row.log_start,
                    "log_end": row.log_end,
                    "lag": row.lag,
                    "member_id": row.member_id,
                }
                for row in self.partitions
            ],
            "total_lag": self.total_lag,
        }


class Wanted(t.NamedTuple):
    """The condition of a wait, for every group: one of ``states`` (empty: any), at most ``max_lag`` (None: any).

    ``lag_known``: whether the lag must be known. A group without partitions has nothing to be behind of, so it is.
    """

    states: tuple[str, ...] = ()
    max_lag: int | None = None
    lag_known: bool = False

    def unmet(self, view: GroupView) -> str:
        """What is not so yet, in words; empty when the condition holds."""
        reasons = []
        if self.states and view.group.state not in self.states:
            reasons.append(
                f"it is {view.group.state} with {view.group.member_count} members, not {' or '.join(self.states)}"
            )
        if self.max_lag is not None and (view.total_lag is None or view.total_lag > self.max_lag):
            lag = "unknown" if view.total_lag is None else str(view.total_lag)
            reasons.append(f"its lag is {lag}, not {self.max_lag} or less")
        if self.lag_known and view.lost_topics:
            reasons.append(f"its lag is unknown, since topic {', '.join(view.lost_topics)} is gone")
        return ", and ".join(reasons)


def lag(committed: int | None, log: Log) -> int:
    """Records still to be read; without a commit the whole log; never negative, and never counting what retention removed."""
    return max(0, log.end - max(log.start if committed is None else committed, log.start))


def report(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of ``rpk_group_info``."""
    params = module.params
    wanted, timeout = read_wanted(params.get("wait_for"))
    if params["wait_for"] and not params["names"]:
        raise Refusal(
            obj="option names", problem="it is empty, and wait_for waits for groups", next_step="Name a group"
        )
    client = open_client(params)
    try:
        outcome.facts["cluster_id"] = client.cluster_id()
        views = read_groups(client, params["names"]) if params["names"] else []
        _tell(outcome, views, wanted)
        if module.check_mode:
            refuse_lasting(views, wanted)
        elif params["wait_for"]:
            deadline = Deadline(timeout)
            try:
                wait(
                    lambda: read_groups(client, params["names"]),
                    views,
                    wanted,
                    deadline,
                    tell=lambda latest: _tell(outcome, latest, wanted),
                )
            finally:
                outcome.waited = deadline.elapsed
        outcome.facts["topics"] = read_topics(client, params["topics"])
        if params["topics"]:
            _summarize(outcome, [view.group.name for view in views if wanted.unmet(view)])
    finally:
        client.close()


def read_wanted(wait_for: Mapping[str, t.Any] | None) -> tuple[Wanted, float]:
    """Condition and timeout in seconds of the option ``wait_for``."""
    if wait_for is None:
        return Wanted(), 0.0
    wanted = Wanted(
        tuple(wait_for.get("states") or ()), wait_for.get("max_lag"), bool(wait_for.get("lag_known", False))
    )
    if not wanted.states and wanted.max_lag is None and not wanted.lag_known:
        raise Refusal(
            obj="option wait_for", problem="it names no condition", next_step="Set states, max_lag or lag_known"
        )
    if (wanted.max_lag is not None and wanted.max_lag < 0) or wait_for["timeout"] < 0:
        raise Refusal(obj="option wait_for", problem="max_lag or timeout is below 0", next_step="Give 0 or more")
    return wanted, float(wait_for["timeout"])


def _tell(outcome: Outcome, views: Sequence[GroupView], wanted: Wanted) -> None:
    outcome.facts["groups"] = [view.as_dict() for view in views]
    unmet = [view.group.name for view in views if wanted.unmet(view)]
    outcome.facts["condition_met"] = not unmet
    _summarize(outcome, unmet)


def _summarize(outcome: Outcome, unmet: Sequence[str]) -> None:
    """Set summary and evidence from what was read so far; ``unmet`` names groups that are not as declared."""
    groups, topics = outcome.facts["groups"], outcome.facts.get("topics", [])
    summary = summarize_reading(groups, topics, would_wait_for=unmet if outcome.check_mode else ())
    outcome.summary = summary or f"cluster {outcome.facts['cluster_id']}"
    outcome.evidence = list_reading_evidence(outcome.facts["cluster_id"], groups, topics)


def read_groups(client: BusClient, names: Iterable[str]) -> list[GroupView]:
    """Each group once, in the order named; all logs are read together."""
    wanted = list(dict.fromkeys(names))
    groups = client.groups(wanted)
    committed = {
        name: {} if group.state in (MISSING, DEAD, UNKNOWN) else client.committed(name)
        for name, group in groups.items()
    }
    owners = {
        name: {own: member.member_id for member in group.members for own in member.assignments}
        for name, group in groups.items()
    }
    topics = {name: {partition.topic for partition in (*committed[name], *owners[name])} for name in wanted}
    counts = client.partition_counts({topic for own in topics.values() for topic in own})
    logs = client.logs(TopicPartition(topic, number) for topic, count in counts.items() for number in range(count or 0))
    views = []
    for name in wanted:
        partitions = {partition for partition in logs if partition.topic in topics[name]} | {
            *committed[name],
            *owners[name],
        }
        rows = []
        for partition in sorted(partitions):
            commit, log = committed[name].get(partition), logs.get(partition)
            rows.append(
                PartitionView(
                    partition=partition,
                    committed=commit,
                    log_start=log.start if log else None,
                    log_end=log.end if log else None,
                    lag=lag(commit, log) if log else None,
                    member_id=owners[name].get(partition),
                )
            )
        views.append(GroupView(groups[name], tuple(rows)))
    return views


def read_topics(client: BusClient, names: Iterable[str]) -> list[dict[str, t.Any]]:
    """Partitions and logs of topics; ``written`` counts every offset ever given, ``held`` those the log still has."""
    wanted = list(dict.fromkeys(names))
    counts = client.partition_counts(wanted)
    logs = client.logs(TopicPartition(topic, number) for topic in wanted for number in range(counts[topic] or 0))
    return [
        {
            "name": topic,
            "exists": counts[topic] is not None,
            "partition_count": counts[topic],
            "partitions": [
                {"partition": own.partition, "log_start": log.start, "log_end": log.end}
                for own, log in logs.items()
                if own.topic == topic
            ],
            "held": sum(log.end - log.start for own, log in logs.items() if own.topic == topic)
            if counts[topic]
            else None,
            "written": sum(log.end for own, log in logs.items() if own.topic == topic) if counts[topic] else None,
        }
        for topic in wanted
    ]


def wait(
    read: Callable[[], Sequence[GroupView]],
    views: Sequence[GroupView],
    wanted: Wanted,
    deadline: Deadline,
    *,
    tell: Callable[[Sequence[GroupView]], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Read again until the condition holds for every group; ``views`` is the first reading, ``tell`` is given each later one.

    Brokers that do not answer for a while are asked again until the deadline.
    """
    pause = FIRST_PAUSE
    while True:
        unmet = {view.group.name: wanted.unmet(view) for view in views if wanted.unmet(view)}
        if not unmet:
            return
        lasting = find_lasting_problem(views, wanted)
        if lasting is not None:
            raise WaitFailed(obj=lasting.obj, problem=lasting.problem, next_step=lasting.next_step)
        if deadline.passed:
            name, why = next(iter(unmet.items()))
            raise WaitTimeout(
                obj=f"group {name}" + (f" and {len(unmet) - 1} more" if len(unmet) > 1 else ""),
                problem=f"after {deadline.elapsed:.1f} s {why}",
                next_step=_advice(next(view for view in views if view.group.name == name), wanted),
            )
        sleep(min(pause, deadline.remaining))
        pause = min(pause * 1.5, LONGEST_PAUSE)
        try:
            views = read()
        except BusUnreachableError:
            if deadline.passed:
                raise
        else:
            tell(views)


class LastingProblem(t.NamedTuple):
    """Why waiting cannot help, in the parts of an error message."""

    obj: str
    problem: str
    next_step: str


def find_lasting_problem(views: Sequence[GroupView], wanted: Wanted) -> LastingProblem | None:
    """Return the first group that cannot be seen, cannot become empty as it is absent, or whose lag stays unknown."""
    for view in views:
        obj = f"group {view.group.name}"
        if view.group.state == UNKNOWN:
            return LastingProblem(
                obj,
                "rpk describes it as dead although it is listed: a group of the new consumer protocol (KIP-848)",
                "Use client: kafka, which sees its members and offsets",
            )
        if view.group.state == MISSING and wanted.states and set(wanted.states) <= {EMPTY, DEAD}:
            return LastingProblem(
                obj,
                "there is no such group, and waiting does not make one",
                "Correct the name, or add missing to wait_for.states if that is good enough",
            )
        if wanted.lag_known and view.lost_topics:
            return LastingProblem(
                obj,
                f"its lag is unknown, since topic {', '.join(view.lost_topics)} is gone: nothing shows what is left",
                "Create the topic again, or delete the group's offsets of it (rpk group offset-delete)",
            )
    return None


def refuse_lasting(views: Sequence[GroupView], wanted: Wanted) -> None:
    """Refuse, in check mode, what a wait would end early for: no step before it can mend that."""
    problem = find_lasting_problem([view for view in views if wanted.unmet(view)], wanted)
    if problem is not None:
        raise Refusal(obj=problem.obj, problem=problem.problem, next_step=problem.next_step)


def _advice(view: GroupView, wanted: Wanted) -> str:
    members = view.group.members
    if members:
        rest = view.group.member_count - min(len(members), SHOWN)
        more = f" and {rest} more" if rest > 0 else ""
        advice = f"Look at its members: {'; '.join(str(member) for member in members[:SHOWN])}{more}"
        static = any(member.instance_id for member in members)
        return f"{advice}. {STATIC_ADVICE}" if static and EMPTY in wanted.states else advice
    if view.group.state == MISSING:
        return "Correct the name, or start its consumers"
    return "Start its consumers if they should be working, or wait longer"
