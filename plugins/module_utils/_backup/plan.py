# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide whether a backup is due, and which ones may go; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from .._common.errors import Refusal
from .._common.text import format_duration, format_size
from .manifest import Published, stamp

SKEW = timedelta(minutes=5)
"""A backup dated this far ahead of the database server's clock is not believed, nor are clocks that differ by it."""
MIN_PART = 16 << 20
MAX_PART = 5 << 30
"""What S3 allows for one part."""
MAX_PARTS = 10_000
"""What S3 allows for one upload; some servers allow fewer, Scaleway 1,000."""


def readable_age(age: timedelta) -> str:
    """Return a duration as a person says it: the two largest units."""
    return format_duration(age.total_seconds())


@dataclass(frozen=True)
class Decision:
    """Whether a backup is due and the one line that says why."""

    due: bool
    why: str


def explain_age(age: timedelta, *, max_age: timedelta, interval: timedelta) -> str | None:
    """Return how the sentence "it is ``age`` old" goes on where another one is due; None where none is.

    It is due also when it would be too old before the next occasion, which is in ``interval``. What is younger than a
    twelfth of that was made on this occasion, and is not made again: two hours for a nightly run, so that one which was
    made up for by day leaves the next night its own.
    """
    allowed = f"allowed are {readable_age(max_age)}"
    if age > max_age:
        return f", {allowed}"
    if age >= interval / 12 and age + interval > max_age:
        return f" and would be {readable_age(age + interval)} old at the next run, {allowed}"
    return None


def decide(*, newest: Published | None, now: datetime, max_age: timedelta, interval: timedelta) -> Decision:
    """Decide whether a new backup is due, by the database server's clock ``now``. Age counts from the snapshot."""
    if newest is None:
        return Decision(True, "there is no verified backup")
    age = now - newest.taken_at
    late = explain_age(age, max_age=max_age, interval=interval)
    if late is not None:
        return Decision(True, f"the newest verified backup {newest.run_id} is {readable_age(age)} old{late}")
    return Decision(
        False,
        f"newest verified backup {newest.run_id} is {readable_age(age)} old, younger than {readable_age(max_age)}",
    )


def explain_old_data(*, moment: datetime, newest: Published | None, now: datetime, max_age: timedelta) -> str | None:
    """Return why a dump of data as of ``moment``, on a standby that is not current, would be no backup; None if it would.

    It has to be newer than the last one and, unless ``max_age`` is 0 (one in each run), young enough not to be due again.
    """
    words = f"its data is of {stamp(moment)}, {readable_age(now - moment)} ago"
    if newest is not None and moment.replace(microsecond=0) <= newest.taken_at:
        return f"{words}, and the verified backup {newest.run_id} is no older"
    if max_age and now - moment > max_age:
        return f"{words}, allowed are {readable_age(max_age)}"
    return None


def explain_old_result(*, made: Published, now: datetime, max_age: timedelta) -> str | None:
    """Return why the backup ``made`` just now is no reason to remove another one: it would be due again at once."""
    decision = decide(newest=made, now=now, max_age=max_age, interval=timedelta(0))
    return f"no older backup is removed: {decision.why}" if max_age and decision.due else None


@dataclass(frozen=True)
class Retention:
    """Which older backups go after a new one: not among the newest ``keep``, and older than ``keep_for``.

    Of the two, None does not keep anything; both None keep everything.
    """

    keep: int | None
    keep_for: timedelta | None

    @property
    def is_limited(self) -> bool:
        """Return whether some backups may have to go."""
        return self.keep is not None or self.keep_for is not None

    def choose(self, verified: t.Sequence[Published], *, now: datetime, taken_at: datetime) -> list[Published]:
        """Choose which of this server's verified backups go, oldest first. The one being made is not among them, and stays.

        ``taken_at`` is the moment of its data. What is dated after that has what the new one lacks, and stays as well.
        """
        if not self.is_limited:
            return []
        older = [manifest for manifest in verified if manifest.taken_at <= taken_at]
        ordered = sorted(older, key=lambda manifest: manifest.taken_at, reverse=True)
        surplus = ordered[max(0, (self.keep or 1) - 1) :]
        return [
            manifest
            for manifest in reversed(surplus)
            if self.keep_for is None or now - manifest.taken_at > self.keep_for
        ]


def explain_clock(*, now: datetime, server_time: datetime | None, newest_taken: datetime | None) -> str | None:
    """Return why the database server's clock cannot be trusted with removing anything; None when it can."""
    if server_time is not None and abs(now - server_time) > SKEW:
        return f"the database server's clock says {stamp(now)}, and the S3 server's {stamp(server_time)}"
    if newest_taken is not None and newest_taken - now > SKEW:
        return f"a backup is dated {stamp(newest_taken)}, and the database server's clock says {stamp(now)}"
    return None


def part_size(database_bytes: int, *, max_parts: int) -> int:
    """Return the bytes of one part of the upload: no more than ``max_parts`` of them even if nothing compresses.

    The text form of a dump may be larger than the table it comes from, hence the factor of two.
    """
    size = max(MIN_PART, -(-2 * database_bytes // max_parts))
    return -(-size // (1 << 20)) * (1 << 20)


def refuse_large_parts(database_bytes: int, *, max_parts: int) -> None:
    """Refuse a dump whose parts S3 would refuse, once it had read one into memory."""
    size = part_size(database_bytes, max_parts=max_parts)
    if size > MAX_PART:
        raise Refusal(
            obj="option max_parts",
            problem=f"{format_size(database_bytes)} in one upload of {max_parts} parts would make each {format_size(size)}, and"
            f" S3 takes {format_size(MAX_PART)}",
            next_step="Raise max_parts as far as the server allows, or jobs, which divides the dump into several uploads",
        )
