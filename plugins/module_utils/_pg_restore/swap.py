# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a copy and the live database take each other's place. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import threading
import time
import typing as t

from .._common.errors import OpsError, Refusal
from .._postgresql.connection import driver_error, transact
from .._postgresql.errors import sql_error, sqlstate
from .._postgresql.names import quote
from .side import LIVE, ORIGINAL, Database, Mark, list_sessions, read_time, set_mark

if t.TYPE_CHECKING:
    from .._postgresql.connection import Session

OBJECT_IN_USE = "55006"
END_SECONDS = 30.0
# Of clients only: what the server or an extension has started ends with its cause, or not at all (a scheduler that is ended
# may stay away until the server is restarted). Who may not read all statistics does not see what kind a session is.
_END = """
SELECT pid, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE datname::text = %(name)s AND pid <> pg_catalog.pg_backend_pid() AND usename IS NOT NULL
   AND coalesce(backend_type, 'client backend') IN ('client backend', 'parallel worker')
"""
_OID = "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname::text = %(name)s"


class Swap(t.NamedTuple):
    """Two databases that take each other's place: ``copy`` gets the name ``live``, the original the name ``kept``.

    Both are as they were compared and looked at; there may be no original.
    """

    live: str
    kept: str
    mark: Mark
    copy: Database
    original: Database | None
    limits: tuple[str, ...]
    """Statements of the dump that say who may come in, for the live name."""
    opens: bool = False

    @property
    def was_shut(self) -> bool:
        """Return whether clients were kept out of the original."""
        original = self.original
        if original is None or original.is_invalid:
            return False
        return not original.allows_connections or original.connection_limit == 0

    def list_limits(self) -> list[str]:
        """Return what says who may come in afterwards: as before, unless there is no database to take it from.

        Where the run ``opens``, what was shut is as in the dump: who has ended sessions by it had not to shut it.
        """
        if self.original is None or self.original.is_invalid or (self.opens and self.was_shut):
            return list(self.limits)
        allows = "true" if self.original.allows_connections else "false"
        own = f"CONNECTION LIMIT {int(self.original.connection_limit)} ALLOW_CONNECTIONS {allows}"
        return [*self.limits, f"ALTER DATABASE {quote(self.live)} WITH {own}"]


class Swapped(t.NamedTuple):
    """For how many seconds the live name was locked, and how many sessions were ended."""

    seconds: float
    ended: int


def swap_databases(session: Session, swap: Swap, *, end: Session | None) -> Swapped:
    """Rename both in one transaction.

    The first rename locks the live name: who comes from then on waits for the outcome. The server waits some seconds for
    sessions to end before it refuses; with ``end``, a second session ends them meanwhile. Nothing persists of a run that
    is killed before the commit, and all of it after that.
    """
    live, kept, copy, original = quote(swap.live), quote(swap.kept), swap.copy, swap.original
    ending = _Ending(end, swap.live)
    try:
        with transact(session):
            started = time.monotonic()
            if original is not None:
                with ending:
                    session.execute(f"ALTER DATABASE {live} RENAME TO {kept}")
                _require(session, swap.kept, original.oid)
                set_mark(session, swap.kept, swap.mark._replace(state=ORIGINAL), comment=original.comment)
            session.execute(f"ALTER DATABASE {quote(copy.name)} RENAME TO {live}")
            _require(session, swap.live, copy.oid)
            mark = swap.mark._replace(
                state=LIVE, oid=copy.oid, system=session.server.system_identifier, since=read_time(session)
            )
            set_mark(session, swap.live, mark, comment=copy.comment)
            for statement in swap.list_limits():
                session.execute(statement)
    except driver_error() as error:
        raise explain_swap(session, swap, error, ending.error) from error
    return Swapped(time.monotonic() - started, len(ending.ended))


def _require(session: Session, name: str, oid: int) -> None:
    """Refuse to go on with another database than the one that was looked at: a name tells nothing of what is in it."""
    found = [row[0] for row in session.query(_OID, {"name": name})]
    if found != [oid]:
        raise Refusal(
            obj=f"database {name}",
            problem="another one has taken that name since it was looked at",
            next_step="Both are as they were. Find out who has made it, and run again",
        )


def explain_swap(session: Session, swap: Swap, error: Exception, ending: Exception | None) -> OpsError:
    """Return why two databases could not be renamed, with who is connected to them and why they were not ended."""
    if sqlstate(error) != OBJECT_IN_USE or session.connection.closed:
        return sql_error(f"database {swap.live}", error)
    sessions = [*list_sessions(session, swap.live), *list_sessions(session, swap.copy.name)]
    words = sessions[0].describe() if sessions else "they have ended since"
    if ending is not None:
        words += f"; they could not be ended: {sql_error(swap.live, ending).problem}"
    return Refusal(
        obj=f"database {swap.live}",
        problem=f"it or {swap.copy.name} was in use, and was not renamed: {words}",
        next_step="Both are as they were. Stop who connects, or set sessions to end, and run again",
    )


class _Ending:
    """Ends the sessions on a database from another session, again and again, until it is left."""

    def __init__(self, session: Session | None, name: str) -> None:
        self._session = session
        self._name = name
        self._over = threading.Event()
        self.error: Exception | None = None
        self.ended: set[int] = set()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        if self._session is None:
            return
        try:
            while not self._over.is_set():
                self.ended |= {row[0] for row in self._session.query(_END, {"name": self._name}) if row[1]}
                self._over.wait(0.2)
        except driver_error() as error:
            self.error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join(END_SECONDS)
