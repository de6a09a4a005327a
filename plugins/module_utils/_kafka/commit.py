# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commit offsets once, and say what is really there afterwards. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, OutcomeUnknown
from .api import TopicPartition
from .errors import PASSING_ERRORS, find_error_name, is_denial

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .._common.outcome import Outcome
    from .._common.retry import Deadline
    from .api import BusClient

MAY_HAPPEN = (
    "The commit without an answer may still be done: repair the connection, and look at the offsets before the consumers"
    " are started"
)
PAUSE = 0.2
"""Seconds before a commit whose answer was lost, and which was not done, is repeated."""


class Change(t.NamedTuple):
    """A commit to be made: the offsets of ``group`` before (as far as there are any) and after, and where they are kept."""

    group: str
    committed: Mapping[TopicPartition, int]
    targets: Mapping[TopicPartition, int]
    undo_file: str

    def find_wrong(self, actual: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the targets of the partitions that are not where they are to be."""
        return {partition: after for partition, after in self.targets.items() if actual.get(partition) != after}

    def is_begun(self, actual: Mapping[TopicPartition, int]) -> bool:
        """Return whether any partition is elsewhere than before."""
        return any(actual.get(partition) != self.committed.get(partition) for partition in self.targets)


def commit_offsets(client: BusClient, change: Change, outcome: Outcome, deadline: Deadline) -> None:
    """Make one commit, then read what is really there. One whose answer was lost is repeated only where it was not done.

    From the first commit on, ``outcome.changed`` is true until reading back has shown that nothing moved.
    """
    remaining = dict(change.targets)
    while True:
        outcome.write_attempted = outcome.changed = True
        errors, problem = _send(client, change.group, remaining)
        actual = _read_back(client, change, problem, outcome, deadline)
        outcome.changed = change.is_begun(actual)
        remaining = change.find_wrong(actual)
        if not remaining:
            return
        if problem:
            problem = _find_obstacle(client, change.group, problem)
        if not problem.is_passing or deadline.passed:
            break
        deadline.pause(PAUSE)
    _fail_partial(client, change, actual=actual, errors=errors, problem=problem, outcome=outcome)


class Problem(t.NamedTuple):
    """Why a commit has no answer, empty where it has one; what to do then, and whether it may be repeated."""

    words: str = ""
    next_step: str = ""
    is_passing: bool = False

    def __bool__(self) -> bool:
        return bool(self.words)


def _send(
    client: BusClient, group: str, offsets: Mapping[TopicPartition, int]
) -> tuple[dict[TopicPartition, str], Problem]:
    """Send the commit; return what was refused of it, or why nobody knows."""
    try:
        return client.commit(group, offsets), Problem()
    except (OutcomeUnknown, *PASSING_ERRORS) as error:
        return {}, Problem(error.problem, MAY_HAPPEN, is_passing=True)
    except OpsError as error:
        return {}, Problem(error.problem, error.next_step)


def _find_obstacle(client: BusClient, group: str, problem: Problem) -> Problem:
    """Return the problem, and that the commit must not be repeated where the group has got members meanwhile."""
    try:
        members = client.groups([group])[group].member_count
    except OpsError as error:
        words = f"{problem.words}; whether it has members is not known: {error.problem}"
        return problem._replace(words=words, is_passing=problem.is_passing and isinstance(error, PASSING_ERRORS))
    if not members:
        return problem
    return problem._replace(words=f"{problem.words}; it has {members} members now", is_passing=False)


def _read_back(
    client: BusClient, change: Change, problem: Problem, outcome: Outcome, deadline: Deadline
) -> dict[TopicPartition, int]:
    """Return what is committed now, asked until the deadline: without it nobody knows what the commit did."""
    while True:
        try:
            return client.committed(change.group)
        except OpsError as error:
            if isinstance(error, PASSING_ERRORS) and not deadline.passed:
                deadline.pause(PAUSE)
                continue
            for row in _list_rows(change, outcome):
                row["actual"] = None
                row["error"] = f"it was not read back: {error.problem}"
            raise OutcomeUnknown(
                obj=f"group {change.group} on event bus {client.label}",
                problem=(
                    f"a commit of {len(change.targets)} offsets was sent"
                    f"{f' and its answer lost ({problem.words})' if problem else ''}, and what it did is not known, "
                    f"because reading back failed: {error.problem}"
                ),
                next_step=(
                    f"{error.next_step}. Then run again: {change.undo_file} holds the offsets before, and the run goes "
                    "on from what is there"
                ),
            ) from error


def _list_rows(change: Change, outcome: Outcome) -> list[dict[str, t.Any]]:
    """List the result's rows of the partitions that change."""
    return [
        row for row in outcome.facts["partitions"] if TopicPartition(row["topic"], row["partition"]) in change.targets
    ]


def _fail_partial(
    client: BusClient,
    change: Change,
    *,
    actual: Mapping[TopicPartition, int],
    errors: Mapping[TopicPartition, str],
    problem: Problem,
    outcome: Outcome,
) -> None:
    """Say of every partition where it is, and fail."""
    wrong = sorted(change.find_wrong(actual))
    for row in _list_rows(change, outcome):
        partition = TopicPartition(row["topic"], row["partition"])
        row["actual"] = actual.get(partition)
        row["error"] = errors.get(partition, problem.words) if partition in wrong else ""
    outcome.after = {**(outcome.after or {}), **{str(partition): actual.get(partition) for partition in wrong}}
    first = wrong[0]
    why = errors.get(first) or problem.words or "the broker reported no error; another client has committed in between"
    raise OpsError(
        obj=f"group {change.group} on event bus {client.label}",
        problem=(
            f"{len(wrong)} of {len(change.targets)} partitions are not where they were set: {first} is at "
            f"{actual.get(first)}, not {change.targets[first]} ({why})"
        ),
        next_step=f"{_advise(why, problem)}; {change.undo_file} holds the offsets before",
    )


def _advise(why: str, problem: Problem) -> str:
    """Return what to do about a commit that was refused or had no answer."""
    if problem:
        return f"{problem.next_step}, and run again"
    if is_denial(find_error_name(why)):
        return "Give this user READ on the group and the topics, and run again"
    return "Stop the consumers of the group, and run again"
