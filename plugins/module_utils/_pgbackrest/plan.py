# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a run of pgbackrest_backup does; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from datetime import timedelta

from .._backup.plan import explain_age
from .._common.text import format_duration

if t.TYPE_CHECKING:
    from .repository import Backup

FULL = "full"


class Decision(t.NamedTuple):
    """What is due and why: a backup of this ``type``, the verification of ``unverified``, or neither.

    ``corrupt`` is a young backup that found damage in the database; another would find it again, and take its space.
    """

    why: str
    type: str | None = None
    unverified: Backup | None = None
    corrupt: Backup | None = None

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
    interval: timedelta,
    full_max_age: timedelta,
    between: str,
) -> Decision:
    """Decide what is due at ``now``, seconds since the epoch by the clock that pgBackRest stamps backups with.

    The next occasion is in ``interval``, as for :func:`explain_age`. ``between`` is the type of a backup between two
    full ones. It builds only on a full one that was verified, and that is young enough half an interval from now: so
    full ones come at the occasion nearest to ``full_max_age``, whatever seconds a run begins sooner or later.
    """
    current = [backup for backup in backups if backup.is_current]
    by_label = {backup.label: backup for backup in current}
    usable = [
        backup
        for backup in current
        if is_sound(backup) and all(label in by_label and is_sound(by_label[label]) for label in backup.references)
    ]
    last = max(current, key=lambda backup: backup.ended, default=None)
    if last is not None and last.has_errors and now - last.started <= max_age.total_seconds():
        return Decision(f"the newest backup {last.label} found damage in the database", corrupt=last)
    newest = max(usable, key=lambda backup: backup.ended, default=None)
    full = max((backup for backup in usable if backup.type == FULL), key=lambda backup: backup.ended, default=None)
    full_until = full_max_age - interval / 2
    due = between if builds_on_sound(current, usable, between, now=now, full_max_age=full_until) else FULL
    if newest is None:
        return Decision(explain_none(current, len(backups) - len(current)), type=due)
    age = timedelta(seconds=now - newest.started)
    readable = format_duration(age.total_seconds())
    words = f"the newest backup without errors {newest.label} is {readable} old"
    late = explain_age(age, max_age=max_age, interval=interval)
    if late is not None:
        return Decision(f"{words}{late}", type=due)
    if full is None or now - full.started > full_max_age.total_seconds():
        words = "there is no full backup without errors that is young enough, allowed are"
        return Decision(f"{words} {format_duration(full_max_age.total_seconds())}", type=FULL)
    if not newest.verified_at:
        return Decision(f"{words}, and nobody has verified it", unverified=newest)
    allowed = format_duration(max_age.total_seconds())
    return Decision(f"the newest verified backup {newest.label} is {readable} old, allowed are {allowed}")


def explain_none(current: t.Sequence[Backup], others: int) -> str:
    """Return why there is no backup that counts; ``others`` are of the cluster from before a stanza-upgrade."""
    if current:
        return "there is no backup without errors"
    return (
        f"there is no backup of this cluster, only {others} from before a stanza-upgrade"
        if others
        else ("there is no backup")
    )


def builds_on_sound(
    current: t.Sequence[Backup], usable: t.Sequence[Backup], between: str, *, now: float, full_max_age: timedelta
) -> bool:
    """Return whether a backup that is not a full one would build on what is sound, by the choice that pgBackRest makes.

    That is the newest full one for a ``diff``, and the newest of all for an ``incr``, whatever is known against it.
    """
    full = max((backup for backup in current if backup.type == FULL), key=lambda backup: backup.ended, default=None)
    if full is None or full not in usable or not full.verified_at:
        return False
    last = max(current, key=lambda backup: backup.ended)
    return now - full.started <= full_max_age.total_seconds() and (between != "incr" or last in usable)
