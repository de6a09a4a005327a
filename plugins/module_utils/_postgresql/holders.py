# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds dead rows or a lock, and how messages say it. Private to lowtide.ops: do not import from other collections.

Pure: :mod:`.blockers` reads them from the server.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker

if t.TYPE_CHECKING:
    from .catalog import TableState

XIDS = 2**32

OPEN_SNAPSHOT = "an open snapshot"


class XminHolder(t.NamedTuple):
    """Something that keeps dead rows from being removed: those that died at ``xid`` or later.

    ``age`` is that of ``xid``, in transactions; ``began`` (by the server's clock, seconds since 1970) and ``seconds`` (ago)
    tell since when, if the server knows. ``only_catalogs`` is true for what holds rows of system catalogs alone,
    ``only_shared`` for what is in another database, so that it holds those of shared catalogs alone.
    ``transaction_seconds`` is the age of a session's transaction, of which its snapshot may be only the newest.
    """

    what: str
    holder: str
    since: str | None
    began: float | None
    seconds: float | None
    age: int
    xid: int
    only_catalogs: bool
    next_step: str
    transaction_seconds: float | None = None
    only_shared: bool = False


class LockHolder(t.NamedTuple):
    """A session or prepared transaction that has a lock on a relation. ``seconds`` is its transaction's age.

    ``vacuum`` says whether a VACUUM holds it: ``autovacuum`` for one that the server ends when somebody waits for the lock,
    ``wraparound`` for one that it does not, since it is the cure of a table near wraparound, ``command`` for a person's.
    """

    relation: int
    pid: int | None
    holder: str
    mode: str
    since: str | None
    seconds: float | None
    next_step: str
    vacuum: str = ""


VACUUM_NEXT_STEP = {
    "autovacuum": "Run again, or set lock_timeout to more than deadlock_timeout of the server: an autovacuum ends by itself"
    " when somebody has waited that long",
    "wraparound": "Let it finish: it freezes the table itself, and one that is ended begins anew. Run again after it",
    "command": "Run again when that VACUUM has ended",
}
"""What to do about a VACUUM in the way; to end one is never the advice."""


def is_cure(holder: LockHolder) -> bool:
    """Return whether the holder of the lock is freezing the table already, so that nothing is in danger."""
    return holder.vacuum == "wraparound"


def find_lasting(holders: t.Iterable[LockHolder], *, limit: float) -> LockHolder | None:
    """Return who would keep a build waiting: a transaction of at least ``limit`` seconds. An autovacuum ends by itself."""
    return next(
        (
            holder
            for holder in holders
            if holder.vacuum != "autovacuum" and (holder.seconds is None or holder.seconds >= limit)
        ),
        None,
    )


def find_old_snapshot(holders: t.Iterable[XminHolder], *, limit: float) -> XminHolder | None:
    """Return the open transaction of at least ``limit`` seconds that a concurrent build would wait for, dated by its start."""
    for holder in holders:
        seconds = max(holder.seconds or 0.0, holder.transaction_seconds or 0.0)
        if holder.what == OPEN_SNAPSHOT and not holder.only_shared and seconds >= limit:
            return holder._replace(seconds=seconds)
    return None


def precedes(left: int, right: int) -> bool:
    """Return whether transaction id ``left`` is older than ``right``; ids wrap around."""
    return 0 < (right - left) % XIDS < XIDS // 2


def find_oldest(holders: t.Iterable[XminHolder], *, catalog: bool, shared: bool) -> XminHolder | None:
    """Return the holder of the oldest transaction that counts for a table; ``holders`` are sorted, the oldest first."""
    return next(
        (holder for holder in holders if (catalog or not holder.only_catalogs) and (shared or not holder.only_shared)),
        None,
    )


def is_nothing_removable(table: TableState, holder: XminHolder | None) -> bool:
    """Return whether it is proven that a VACUUM would remove no row of the table while ``holder`` is there.

    Every transaction id of the table older than its relfrozenxid is gone or frozen. A row that could be removed has died
    before the holder's xid; where relfrozenxid is not older than that, there is none.
    """
    return holder is not None and table.frozen_xid != 0 and not precedes(table.frozen_xid, holder.xid)


def needs_proof(table: TableState, holder: XminHolder | None, *, minimum: int) -> bool:
    """Return whether the last VACUUM may have removed all that the holder lets go, so that the next one should prove it.

    It was vacuumed after the holder began. But an older holder may have been there at that time, and have ended since, so
    this alone proves nothing. Of a slot or standby the server does not tell since when; few changes since speak for it.
    """
    if holder is None or table.vacuumed is None:
        return False
    if holder.began is not None:
        return holder.began <= table.vacuumed
    return table.changed < minimum


def format_seconds(seconds: float | None) -> str:
    """Return `` for 35 s``, or nothing when the server does not know."""
    return "" if seconds is None else f" for {seconds:.0f} s"


def make_xmin_blocker(display_name: str, holder: XminHolder, problem: str) -> Blocker:
    """Return a holder of dead rows as what stands in the way of one object."""
    return Blocker(
        object=display_name,
        what=f"{problem}: {holder.what}, {holder.age} transactions old",
        holder=f"{holder.holder}{format_seconds(holder.seconds)}",
        next_step=holder.next_step,
        since=holder.since,
    )


def make_lock_blocker(display_name: str, holder: LockHolder) -> Blocker:
    """Return a lock as what stands in the way of one object."""
    return Blocker(
        object=display_name,
        what=f"locked by a VACUUM ({holder.mode})" if holder.vacuum else f"locked by somebody else ({holder.mode})",
        holder=f"{holder.holder}{format_seconds(holder.seconds)}",
        next_step=VACUUM_NEXT_STEP.get(holder.vacuum, holder.next_step),
        since=holder.since,
    )
