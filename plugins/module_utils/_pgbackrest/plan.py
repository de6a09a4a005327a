# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a run of pgbackrest_backup does; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from datetime import timedelta

from .._common.text import format_duration

if t.TYPE_CHECKING:
    from .repository import Backup

FULL = "full"


class Decision(t.NamedTuple):
    """What is due and why: a backup of this ``type``, the verification of ``unverified``, or neither."""

    why: str
    type: str | None = None
    unverified: Backup | None = None

    @property
    def is_due(self) -> bool:
        """Whether anything is to be done."""
        return self.type is not None or self.unverified is not None


def is_sound(backup: Backup) -> bool:
    """Return whether nothing is known against a backup."""
    return not backup.has_errors and not backup.damaged_at


def decide(
    backups: t.Sequence[Backup],
    *,
    now: float,
    max_age: timedelta,
    full_max_age: timedelta,
    between: str,
) -> Decision:
    """Decide what is due at ``now``, seconds since the epoch by the clock that pgBackRest stamps backups with.

    ``between`` is the type of a backup between two full ones. It builds only on a full one that was verified.
    """
    by_label = {backup.label: backup for backup in backups}
    usable = [
        backup
        for backup in backups
        if is_sound(backup) and all(label in by_label and is_sound(by_label[label]) for label in backup.references)
    ]
    newest = max(usable, key=lambda backup: backup.ended, default=None)
    full = max((backup for backup in usable if backup.type == FULL), key=lambda backup: backup.ended, default=None)
    needs_full = full is None or not full.verified_at or now - full.started > full_max_age.total_seconds()
    due = FULL if needs_full else between
    if newest is None:
        return Decision("there is no backup without errors" if backups else "there is no backup", type=due)
    age = now - newest.started
    words = f"the newest backup without errors {newest.label} is {format_duration(age)} old"
    allowed = format_duration(max_age.total_seconds())
    if age > max_age.total_seconds():
        return Decision(f"{words}, allowed are {allowed}", type=due)
    if full is None or now - full.started > full_max_age.total_seconds():
        return Decision(
            "there is no full backup without errors that is young enough, allowed are"
            f" {format_duration(full_max_age.total_seconds())}",
            type=FULL,
        )
    if not newest.verified_at:
        return Decision(f"{words}, and nobody has verified it", unverified=newest)
    return Decision(f"the newest verified backup {newest.label} is {format_duration(age)} old, allowed are {allowed}")
