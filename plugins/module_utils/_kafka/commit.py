# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commit offsets once, and say what is really there afterwards. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import OpsError
from .._common.retry import Deadline
from .api import OutcomeUnknownError, TopicPartition
from .errors import BusUnreachableError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._common.outcome import Outcome
    from .api import BusClient
    from .group import Request

PAUSE = 0.2
"""Seconds before a commit whose answer was lost, and which was not done, is repeated."""


class Patience(t.NamedTuple):
    """How long a commit without an answer is read back and repeated, and how the pauses between are made."""

    deadline: Deadline
    sleep: Callable[[float], None] = time.sleep

    @property
    def ended(self) -> bool:
        """Whether to give up; otherwise a pause has passed."""
        if self.deadline.passed:
            return True
        self.sleep(PAUSE)
        return False


def commit(
    client: BusClient,
    request: Request,
    *,
    targets: Mapping[TopicPartition, int],
    committed: Mapping[TopicPartition, int],
    outcome: Outcome,
    seconds: float,
) -> None:
    """One commit, then what is really there. A commit whose answer was lost is repeated only where it was not done."""
    patience = Patience(Deadline(seconds))
    wrong = dict(targets)
    lost = ""
    outcome.write_attempted = True
    while True:
        errors: dict[TopicPartition, str] = {}
        try:
            errors = client.commit(request.group, wrong)
            lost = ""
        except OutcomeUnknownError as error:
            lost = str(error)
        actual = _read_back(client, request, lost=lost, outcome=outcome, patience=patience)
        wrong = {partition: after for partition, after in targets.items() if actual.get(partition) != after}
        outcome.changed = any(actual.get(partition) != committed.get(partition) for partition in targets)
        if not wrong:
            return
        if not lost or patience.ended or client.groups([request.group])[request.group].member_count:
            break
    _fail_partial(client, request, targets=targets, actual=actual, errors=errors, lost=lost, outcome=outcome)


def _read_back(
    client: BusClient, request: Request, *, lost: str, outcome: Outcome, patience: Patience
) -> dict[TopicPartition, int]:
    """What is committed now, asked until the deadline: without it nobody knows what the commit did."""
    while True:
        try:
            return client.committed(request.group)
        except BusUnreachableError as error:
            if not patience.ended:
                continue
            outcome.changed = True
            raise OpsError(
                obj=f"group {request.group} on event bus {client.label}",
                problem=(
                    f"a commit was sent{f' and its answer lost ({lost})' if lost else ''}, and what it did is not known, "
                    f"because reading back failed: {error.problem}"
                ),
                next_step=f"Run again when the bus answers: {request.undo_file} holds the offsets before, and the run goes on from what is there",
            ) from error


def _fail_partial(
    client: BusClient,
    request: Request,
    *,
    targets: Mapping[TopicPartition, int],
    actual: Mapping[TopicPartition, int],
    errors: Mapping[TopicPartition, str],
    lost: str,
    outcome: Outcome,
) -> None:
    """Say of every partition what it is at, and fail."""
    wrong = sorted(partition for partition, after in targets.items() if actual.get(partition) != after)
    for row in outcome.facts["partitions"]:
        partition = TopicPartition(row["topic"], row["partition"])
        row["actual"] = actual.get(partition)
        row["error"] = errors.get(partition, lost) if partition in wrong else ""
    outcome.after = {**(outcome.after or {}), **{str(partition): actual.get(partition) for partition in wrong}}
    first = wrong[0]
    why = errors.get(first) or lost or "the broker reported no error; somebody else has committed in between"
    raise OpsError(
        obj=f"group {request.group} on event bus {client.label}",
        problem=(
            f"{len(wrong)} of {len(targets)} partitions are not where they were set: {first} is at {actual.get(first)}, "
            f"not {targets[first]} ({why})"
        ),
        next_step=(
            f"{'Repair the connection' if lost else 'Stop the consumers of the group'}, and run again; "
            f"{request.undo_file} holds the offsets before"
        ),
    )
