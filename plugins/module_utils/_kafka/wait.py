# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for groups to be as declared. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, Refusal, WaitFailed, WaitTimeout
from .._common.text import format_count
from .api import DEAD, EMPTY, MISSING, UNKNOWN, OffsetRange, TopicPartition
from .errors import PASSING_ERRORS, BusDeniedError, BusUnsupportedError
from .groups import GroupReading, PartitionReading, explain_static_members

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._common.retry import Deadline
    from .api import BusClient

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two readings while waiting: Kafka has nothing to watch, so it is asked, less and less often."""

SHOWN = 3
"""Members named in one message; all of them are in the result."""


class Condition(t.NamedTuple):
    """What every group is to be: in one of ``states`` (empty: any), at most ``max_lag`` behind (None: any).

    ``lag_known``: whether the lag must be known. A group without partitions has nothing to be behind of, so it is.
    ``idle_for``: seconds during which none of its offsets may have moved.
    """

    states: tuple[str, ...] = ()
    max_lag: int | None = None
    lag_known: bool = False
    idle_for: float = 0.0

    def explain_unmet(self, reading: GroupReading) -> str:
        """Return what is not so yet, in words; empty when the condition holds. Of ``idle_for`` one reading cannot tell."""
        group = reading.group
        reasons = []
        if self.states and group.state not in self.states and not self.is_drained_by_removal(reading):
            why = f" ({group.unknown.problem})" if group.state == UNKNOWN else ""
            reasons.append(
                f"it is {group.state} with {group.member_count} members{why}, not {' or '.join(self.states)}"
            )
        if self.max_lag is not None or self.lag_known:
            reasons += explain_unknown_lag(reading)
        if (
            self.max_lag is not None
            and reading.total_lag is None
            and not reading.gone_topics
            and not reading.beyond_end
        ):
            why = f"since {reading.removed}" if reading.removed else f"not {self.max_lag} or less"
            reasons.append(f"its lag is unknown, {why}")
        if self.max_lag is not None and (reading.total_lag or 0) + reading.lost > self.max_lag:
            lost = f", and {explain_lost(reading)}" if reading.lost else ""
            reasons.append(f"its lag is {reading.total_lag}, not {self.max_lag} or less{lost}")
        return ", and ".join(reasons)

    def is_drained_by_removal(self, reading: GroupReading) -> bool:
        """Return whether a group that is to have no members had some, or none, before, and does not exist any more."""
        return bool(reading.removed) and (EMPTY in self.states or DEAD in self.states)

    def is_lag_unmet(self, reading: GroupReading) -> bool:
        """Return whether the lag is known and above its limit."""
        return self.max_lag is not None and reading.total_lag is not None and reading.total_lag > self.max_lag


def explain_unknown_lag(reading: GroupReading) -> list[str]:
    """Say why the lag of a group with partitions cannot be known; nothing where it can."""
    reasons = []
    if reading.gone_topics:
        reasons.append(f"its lag is unknown, since topic {', '.join(reading.gone_topics)} is gone")
    if reading.beyond_end:
        reasons.append(f"its lag is unknown, since {explain_beyond_end(reading)}")
    return reasons


def explain_lost(reading: GroupReading) -> str:
    """Say how many offsets the logs no longer hold that the group had not passed, and where."""
    rows = [row for row in reading.partitions if row.lost]
    return (
        f"{reading.lost} offsets that it had not passed are no longer in the log"
        f" (first in {rows[0].partition}: committed {rows[0].committed}, the log starts at {rows[0].log_start})"
    )


def explain_beyond_end(reading: GroupReading) -> str:
    """Say where a commit is beyond the log's end."""
    row = reading.beyond_end[0]
    more = f" (and {len(reading.beyond_end) - 1} more)" if len(reading.beyond_end) > 1 else ""
    return f"it has committed {row.committed} in {row.partition}{more}, beyond the log's end {row.log_end}"


def read_condition(wait_for: Mapping[str, t.Any] | None) -> tuple[Condition, float]:
    """Return condition and timeout in seconds of the option ``wait_for``."""
    if wait_for is None:
        return Condition(), 0.0
    condition = Condition(
        tuple(wait_for.get("states") or ()),
        wait_for.get("max_lag"),
        bool(wait_for.get("lag_known", False)),
        float(wait_for.get("idle_for") or 0.0),
    )
    timeout = float(wait_for["timeout"])
    if condition == Condition():
        raise Refusal(
            obj="option wait_for",
            problem="it names no condition",
            next_step="Set states, max_lag, lag_known or idle_for",
        )
    if (condition.max_lag is not None and condition.max_lag < 0) or timeout < 0 or condition.idle_for < 0:
        raise Refusal(
            obj="option wait_for", problem="max_lag, idle_for or timeout is below 0", next_step="Give 0 or more"
        )
    if condition.idle_for > timeout:
        raise Refusal(
            obj="option wait_for",
            problem=f"idle_for is {condition.idle_for:g} s, and timeout {timeout:g} s ends before that",
            next_step="Set timeout above idle_for",
        )
    return condition, timeout


class Tails:
    """The rest of logs behind a group's offsets, read to tell records from control records of transactions.

    A transaction ends with a control record, which has an offset and no consumer gets: a group that commits the offset
    after its last record stays behind the log's end for ever. So where a lag stands in the way and its commit has not
    moved since the last look, the log is read from there, as ``read_committed``, up to its first record. Where none is
    left, the lag is 0. Each commit is judged once.
    """

    def __init__(self, client: BusClient) -> None:
        self._client = client
        self._committed: dict[tuple[str, TopicPartition], int | None] = {}
        self._holds_records: dict[tuple[str, TopicPartition], int | None] = {}
        self._problem = ""
        self.notes: dict[str, str] = {}
        """By group, why its lag may be of control records all the same."""

    def settle(self, reading: GroupReading, *, is_last: bool = False) -> GroupReading:
        """Return the reading with a lag of 0 where no record is left; ``is_last``: there will be no further look."""
        name = reading.group.name
        stopped = [row for row in reading.partitions if is_last or is_kept(self._committed, name, row)]
        self._committed.update({(name, row.partition): row.committed for row in reading.partitions})
        ranges = {
            row.partition: OffsetRange(row.log_end - row.lag, row.log_end)
            for row in stopped
            if row.lag and row.log_end is not None and not is_kept(self._holds_records, name, row)
        }
        empty = self._find_empty(reading, ranges) if ranges and not self._problem else set()
        rows = [row._replace(lag=0) if row.partition in empty else row for row in reading.partitions]
        return reading._replace(partitions=tuple(rows))

    def _find_empty(self, reading: GroupReading, ranges: Mapping[TopicPartition, OffsetRange]) -> set[TopicPartition]:
        """Return which of these ranges hold no record, and remember which of them do."""
        name = reading.group.name
        self.notes.pop(name, None)
        try:
            counts = self._client.count_records(name, ranges, limit=1)
        except (BusDeniedError, BusUnsupportedError) as error:
            self._problem = f"whether that is of control records of transactions is not known: {error.problem}"
            self.notes[name] = self._problem
            return set()
        except WaitTimeout as error:
            self.notes[name] = f"whether that is of control records of transactions is not known: {error.problem}"
            return set()
        for row in reading.partitions:
            count = counts.get(row.partition)
            if count is not None and count.records:
                self._holds_records[name, row.partition] = row.committed
            elif count is not None and count.reached < ranges[row.partition].end:
                self.notes[name] = f"a transaction is open in {row.partition} from offset {count.reached} on"
        return {
            partition
            for partition, count in counts.items()
            if not count.records and count.reached >= ranges[partition].end
        }


def is_kept(offsets: Mapping[tuple[str, TopicPartition], int | None], group: str, row: PartitionReading) -> bool:
    """Return whether the partition's commit is the one that is kept there."""
    key = group, row.partition
    return key in offsets and offsets[key] == row.committed


class Sightings:
    """How each group was when the wait last read it, so that one which was removed is not taken for one that never was.

    Brokers remove a group that has committed nothing once its last member has left: it is drained, and never empty.
    """

    def __init__(self) -> None:
        self._last: dict[str, GroupReading] = {}

    def mark_removed(self, reading: GroupReading) -> GroupReading:
        """Return the reading, with what the group was before where it is missing now."""
        name, state = reading.group.name, reading.group.state
        before = self._last.get(name)
        if state == MISSING:
            return reading if before is None else reading._replace(removed=describe_removal(before))
        # Of a dead group no offsets are read, and what was read before tells more.
        if state != UNKNOWN and (state != DEAD or before is None):
            self._last[name] = reading
        return reading


def describe_removal(before: GroupReading) -> str:
    """Say what a group was that has been removed since."""
    members = format_count(before.group.member_count, "member")
    offsets = format_count(sum(row.committed is not None for row in before.partitions), "committed offset")
    return f"it was {before.group.state} with {members} and {offsets} earlier in this wait, and has been removed since"


class IdleTimes:
    """Since when the offsets of each group have not moved, in seconds of the wait."""

    def __init__(self) -> None:
        self._offsets: dict[str, tuple[dict[TopicPartition, int | None], float]] = {}

    def explain_unmet(self, reading: GroupReading, condition: Condition, elapsed: float) -> str:
        """Return that the offsets moved too lately, empty when they did not."""
        offsets = {row.partition: row.committed for row in reading.partitions}
        before, since = self._offsets.get(reading.group.name, ({}, elapsed))
        if reading.group.name not in self._offsets or offsets != before:
            since = elapsed
        self._offsets[reading.group.name] = (offsets, since)
        if elapsed - since >= condition.idle_for:
            return ""
        return f"its offsets have stood still for {elapsed - since:.1f} s, not for {condition.idle_for:g} s"


def wait_for_groups(
    read: Callable[[], Sequence[GroupReading]],
    condition: Condition,
    deadline: Deadline,
    *,
    tails: Tails,
    tell: Callable[[Sequence[GroupReading]], None],
) -> list[GroupReading]:
    """Read again until the condition holds for every group, and return what was read then; ``tell`` is given each reading.

    Brokers that do not answer, or are not ready, are asked again until the deadline.
    """
    pause = FIRST_PAUSE
    idle, sightings = IdleTimes(), Sightings()
    while True:
        problem: OpsError | None = None
        try:
            readings = [
                tails.settle(reading, is_last=deadline.passed) if condition.is_lag_unmet(reading) else reading
                for reading in map(sightings.mark_removed, read())
            ]
        except PASSING_ERRORS as error:
            problem = error
        else:
            tell(readings)
            problem = _judge(readings, condition, idle, tails, deadline)
            if problem is None:
                return readings
        if deadline.passed:
            raise WaitTimeout(
                obj=problem.obj,
                problem=f"after {deadline.elapsed:.1f} s {problem.problem}",
                next_step=problem.next_step,
            ) from problem
        deadline.pause(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _judge(
    readings: Sequence[GroupReading], condition: Condition, idle: IdleTimes, tails: Tails, deadline: Deadline
) -> OpsError | None:
    """Return what is unmet as the error of a wait that ends now, None when all is met; raises where waiting cannot help."""
    unmet: list[tuple[GroupReading, str]] = []
    for reading in readings:
        still = idle.explain_unmet(reading, condition, deadline.elapsed)
        words = condition.explain_unmet(reading) or still
        if words:
            note = tails.notes.get(reading.group.name)
            unmet.append((reading, f"{words} ({note})" if note and condition.is_lag_unmet(reading) else words))
    if not unmet:
        return None
    lasting = find_lasting_problem(readings, condition)
    if lasting is not None:
        raise WaitFailed(obj=lasting.obj, problem=lasting.problem, next_step=lasting.next_step)
    reading, words = unmet[0]
    return OpsError(
        obj=f"group {reading.group.name}" + (f" and {len(unmet) - 1} more" if len(unmet) > 1 else ""),
        problem=words,
        next_step=_advise(reading, condition),
    )


class LastingProblem(t.NamedTuple):
    """Why waiting cannot help, in the parts of an error message."""

    obj: str
    problem: str
    next_step: str


def find_lasting_problem(readings: Sequence[GroupReading], condition: Condition) -> LastingProblem | None:
    """Return the first group that cannot be read, cannot become empty as it is absent, or whose lag stays as it is."""
    for reading in readings:
        group = reading.group
        obj = f"group {group.name}"
        if group.state == UNKNOWN and group.unknown.is_lasting:
            return LastingProblem(obj, group.unknown.problem, group.unknown.next_step)
        if reading.removed and condition.max_lag is not None and condition.is_drained_by_removal(reading):
            return LastingProblem(
                obj,
                condition.explain_unmet(reading),
                "Compare the topic's records with what was done; without max_lag a group that was removed is drained",
            )
        if (
            group.state == MISSING
            and not reading.removed
            and condition.states
            and set(condition.states) <= {EMPTY, DEAD}
        ):
            return LastingProblem(
                obj,
                "there is no such group, and waiting does not make one",
                "Correct the name, or add missing to wait_for.states if that is good enough",
            )
        if condition.lag_known and reading.gone_topics:
            return LastingProblem(
                obj,
                f"its lag is unknown, since topic {', '.join(reading.gone_topics)} is gone: nothing shows what is left",
                "Create the topic again, or delete the group's offsets of it (rpk group offset-delete)",
            )
        if group.state == EMPTY and (not condition.states or EMPTY in condition.states):
            problem = _find_lasting_offsets(reading, condition)
            if problem is not None:
                return problem
    return None


def _find_lasting_offsets(reading: GroupReading, condition: Condition) -> LastingProblem | None:
    """Return what is wrong with the offsets of a group that has no member to commit others, and need not get one."""
    obj = f"group {reading.group.name}"
    if (condition.lag_known or condition.max_lag is not None) and reading.beyond_end:
        return LastingProblem(
            obj,
            f"its lag is unknown, since {explain_beyond_end(reading)}: records up to there would never be read",
            "Find out whether the topic was made anew or has lost records, and set the offsets with lowtide.ops.rpk_group",
        )
    if condition.max_lag is not None and reading.lost > condition.max_lag:
        return LastingProblem(
            obj,
            explain_lost(reading),
            "If nothing of that is missed, set the offsets to the log's start with lowtide.ops.rpk_group",
        )
    return None


def refuse_lasting(readings: Sequence[GroupReading], condition: Condition) -> None:
    """Refuse, in check mode, what a wait would end early for: no step before it can mend that."""
    unmet = [reading for reading in readings if condition.explain_unmet(reading)]
    problem = find_lasting_problem(unmet, condition)
    if problem is not None:
        raise Refusal(obj=problem.obj, problem=problem.problem, next_step=problem.next_step)


def _advise(reading: GroupReading, condition: Condition) -> str:
    """Return what to do about a group that is not as declared when the wait ends."""
    group = reading.group
    if group.state == UNKNOWN:
        return group.unknown.next_step
    if group.members:
        rest = group.member_count - min(len(group.members), SHOWN)
        more = f" and {rest} more" if rest > 0 else ""
        advice = f"Look at its members: {'; '.join(str(member) for member in group.members[:SHOWN])}{more}"
        static = explain_static_members(group.members) if EMPTY in condition.states else ""
        return f"{advice}. {static}" if static else advice
    if group.state == MISSING and not reading.removed:
        return "Correct the name, or start its consumers"
    if condition.idle_for and not condition.explain_unmet(reading):
        return "Stop what commits these offsets: a consumer that assigns partitions to itself is no member of the group"
    return "Start its consumers if they should be working, or wait longer"
