# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advisory locks: one run in a database at a time, orphans included. Private to lowtide.ops: do not import from other collections.

A maintenance run has two: its own (exclusive, on the session that decides), and one that every working session shares. A
killed run loses the first at once; its working sessions go on until their statement ends, and hold the second so long.

The server keeps advisory locks of each database apart. For work on what all databases share (roles, databases themselves)
there is ClusterLock: two runs exclude each other whichever database each is connected to.
"""

from __future__ import annotations

import typing as t
from enum import IntEnum

from .._common.errors import Refusal

if t.TYPE_CHECKING:
    from .connection import Session

LOCK_CLASS = 0x4C4F5754
""""LOWT" as an int4: the class of this collection's advisory locks, whose second key is a LockKey, or beyond those."""


class LockKey(IntEnum):
    """What a lock is for."""

    MAINTENANCE_RUN = 1
    MAINTENANCE_WORKER = 2
    BACKUP = 3


class Holder(t.NamedTuple):
    """A session that has a lock."""

    pid: int
    description: str
    since: str | None
    query: str | None


_HOLDERS = """
SELECT l.pid, concat_ws(', ', 'pid ' || l.pid, 'user ' || a.usename, 'application ' || a.application_name,
    'client ' || a.client_addr::text, 'in database ' || nullif(d.datname, current_database())) AS description,
    a.backend_start::text AS since, nullif(left(a.query, 80), '') AS query
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objid = ANY(%(keys)s::bigint[]::oid[]) AND l.objsubid = 2
  AND (%(anywhere)s OR l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
  AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY l.objid, a.backend_start
"""


_OWN = """
SELECT 1 FROM pg_catalog.pg_locks
 WHERE locktype = 'advisory' AND classid = %(class)s::bigint::oid AND objid = %(key)s::bigint::oid AND objsubid = 2
   AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND granted AND pid = pg_catalog.pg_backend_pid()
"""


def read_holders(session: Session, *keys: int, anywhere: bool = False) -> list[Holder]:
    """Return the other sessions that hold one of these locks of this database; takes no lock.

    With ``anywhere`` those of every database of the server: the same key is another lock in each of them.
    """
    values = {"class": LOCK_CLASS, "keys": [int(key) for key in keys], "anywhere": anywhere}
    return session.read(Holder, _HOLDERS, values)


class AdvisoryLock:
    """A session-level advisory lock of this database. The server releases it when the session ends, however it ends."""

    def __init__(self, session: Session, key: int) -> None:
        self._session = session
        self._keys = {"class": LOCK_CLASS, "key": int(key)}

    def try_acquire(self) -> bool:
        """Acquire the lock exclusively, or return False at once."""
        return bool(self._session.query("SELECT pg_try_advisory_lock(%(class)s, %(key)s)", self._keys)[0][0])

    def acquire_shared(self) -> None:
        """Acquire the lock beside others that share it."""
        self._session.query("SELECT pg_advisory_lock_shared(%(class)s, %(key)s)", self._keys)

    def release(self) -> None:
        """Give back what try_acquire acquired."""
        self._session.query("SELECT pg_advisory_unlock(%(class)s, %(key)s)", self._keys)


class ClusterLock(AdvisoryLock):
    """A session-level advisory lock that excludes others of the same key in every database of the server.

    Each takes it in its own database first and looks for others then: of two that begin in the same moment both may be told
    False, and never both True. Who has it already does not look: another one that is about to be told False holds it for a moment.
    """

    def __init__(self, session: Session, key: int) -> None:
        super().__init__(session, key)
        self._key = key

    def try_acquire(self) -> bool:
        """Acquire the lock exclusively, or return False at once."""
        is_held = bool(self._session.query(_OWN, self._keys))
        if not super().try_acquire():
            return False
        if is_held:
            return True
        if read_holders(self._session, self._key, anywhere=True):
            self.release()
            return False
        return True


def refuse_if_running(session: Session) -> None:
    """Refuse, naming the holder, when another maintenance run or what is left of one is at work; takes no lock."""
    holders = read_holders(session, LockKey.MAINTENANCE_RUN, LockKey.MAINTENANCE_WORKER)
    if holders:
        holder = holders[0]
        raise Refusal(
            obj=session.settings.target,
            problem="another maintenance run, or a session that it left behind, is at work:"
            f" {holder.description}, since {holder.since}" + (f" ({holder.query})" if holder.query else ""),
            next_step=f"Run again when it has ended, or end it with SELECT pg_terminate_backend({holder.pid})",
        )


def acquire_run_lock(session: Session) -> None:
    """Acquire the run's lock for as long as this session lives, or refuse, naming the holder."""
    run, worker = AdvisoryLock(session, LockKey.MAINTENANCE_RUN), AdvisoryLock(session, LockKey.MAINTENANCE_WORKER)
    # Twice: the holder may end between the attempt and the question who it is.
    for _attempt in range(2):
        if run.try_acquire():
            if worker.try_acquire():
                worker.release()
                return
            run.release()
        refuse_if_running(session)
    raise Refusal(
        obj=session.settings.target,
        problem="another maintenance run has just started",
        next_step="Run again when it has ended",
    )


def mark_worker(session: Session) -> None:
    """Mark a working session of the run whose lock another session holds."""
    AdvisoryLock(session, LockKey.MAINTENANCE_WORKER).acquire_shared()
