# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works on a database: the lock that keeps two runs apart, what a killed run has left, and sessions of others.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker
from .._common.retry import Backoff, Deadline
from .._common.text import format_count, join_some
from .errors import read_code
from .programs import LOCK_WAIT

if t.TYPE_CHECKING:
    from .connection import Session

ORPHAN_SECONDS = 60
"""For so long a session that was killed may take to end: it takes back what it has not committed."""
NO_SUCH_THREAD = 1094
_OWN_SESSIONS = """
SELECT ID AS id FROM information_schema.PROCESSLIST
 WHERE ID <> CONNECTION_ID() AND USER = SUBSTRING_INDEX(USER(), '@', 1)
   AND (DB IN ({names}) OR (DB = %s AND ID = IS_USED_LOCK(%s)))
"""
_SESSIONS = """
SELECT ID AS id, USER AS user, HOST AS host, DB AS db, COMMAND AS command, TIME AS seconds,
       USER = SUBSTRING_INDEX(USER(), '@', 1) AS is_own
  FROM information_schema.PROCESSLIST WHERE DB = %s AND ID <> CONNECTION_ID()
"""


class NamedLock:
    """A lock of the server (GET_LOCK) for one database; the server releases it when the session ends."""

    def __init__(self, session: Session, database: str, what: str) -> None:
        self._session = session
        self._database = database
        self._what = what
        self._name = f"lowtide.ops {what} {hashlib.sha256(database.encode()).hexdigest()[:24]}"

    def holder(self) -> Blocker | None:
        """Return who holds it; None when it is free."""
        owner = self._session.query("SELECT IS_USED_LOCK(%s) AS owner", [self._name])[0]["owner"]
        return None if owner is None else self._describe(owner)

    def take(self) -> Blocker | None:
        """Take it, or return who holds it."""
        if self._session.query("SELECT GET_LOCK(%s, 0) AS got", [self._name])[0]["got"] == 1:
            return None
        return self.holder() or self._describe(None)

    def _describe(self, owner: int | None) -> Blocker:
        return Blocker(
            object=f"database {self._database} on {self._session.settings.target}",
            what=f"another {self._what} of it is at work",
            holder=f"connection {owner}" if owner is not None else "a session that has just ended",
            next_step="Wait for it to end"
            + (f", or end it with KILL {owner}, then run again" if owner is not None else " and run again"),
        )

    def assert_held(self) -> None:
        """Raise where the session no longer holds it, so that another run may have begun."""
        own = self._session.query("SELECT IS_USED_LOCK(%s) = CONNECTION_ID() AS own", [self._name])[0]["own"]
        if own != 1:
            raise OpsError(
                obj=f"database {self._database} on {self._session.settings.target}",
                problem=f"the lock of this {self._what} is lost",
                next_step="Run again; nothing of this run counts",
            )


def name_client(database: str) -> str:
    """Return the name of the lock that a client program of a move holds, so that a later run knows it."""
    return f"lowtide.ops client {hashlib.sha256(database.encode()).hexdigest()[:24]}"


def end_orphans(session: Session, databases: t.Sequence[str], *, live: str | None, deadline: Deadline) -> int:
    """End the sessions of this account in ``databases``, wait until they have gone, and return how many there were.

    Only under the lock, and only where a run was killed: its client programs go on alone with what they have read. A
    session knows its database by name, so it would write into one that is made anew under that name. In ``live`` others
    may work by the same account: there only the client program is ended that holds the lock of :func:`name_client`.
    """
    names = ", ".join(["%s"] * len(databases))
    values = [*databases, live or "", name_client(live or "")]
    ended: set[int] = set()
    end, backoff = Deadline(min(ORPHAN_SECONDS, max(1, int(deadline.remaining)))), Backoff(first=0.02, limit=1)
    while True:
        found = {int(row["id"]) for row in session.query(_OWN_SESSIONS.format(names=names), values)}
        if not found:
            return len(ended)
        for connection in sorted(found - ended):
            _kill(session, connection)
            ended.add(connection)
        if end.passed:
            raise OpsError(
                obj=f"database {databases[0]} on {session.settings.target}",
                problem="sessions that a killed run has left do not end:"
                f" {join_some([f'connection {number}' for number in sorted(found)])}",
                next_step="Wait until they have gone (SHOW PROCESSLIST), then run again",
            )
        end.pause(backoff.take_pause())


def _kill(session: Session, connection: int) -> None:
    """Kill a session; one that has ended is as it should be."""
    try:
        session.execute("KILL %s", [connection])
    except OpsError as error:
        if read_code(error.__cause__ or error) != NO_SUCH_THREAD:
            raise


def find_use(session: Session, database: str, blockers: list[Blocker]) -> str:
    """Add who uses a database to ``blockers``, and return it in words; empty where nobody does."""
    sessions = _list_sessions(session, database)
    blockers += [
        Blocker(
            object=f"connection {row['id']}",
            what=f"it uses {row['db']} ({row['command']} for {row['seconds']} s)",
            holder=f"{row['user']} from {row['host']}",
            next_step="Stop the client",
        )
        for row in sessions
    ]
    names = join_some([f"{row['user']} from {row['host']} (connection {row['id']})" for row in sessions])
    return f"it is in use by {format_count(len(sessions), 'session')}: {names}" if sessions else ""


def refuse_used(session: Session, database: str, blockers: list[Blocker], *, then: str) -> None:
    """Refuse while sessions use a database, each by its user; ``then`` is what is to be known besides."""
    problem = find_use(session, database, blockers)
    if problem:
        raise Refusal(
            obj=f"database {database} on {session.settings.target}",
            problem=problem,
            next_step=f"Stop its clients (role shutdown), and run again; {then}",
        )


def _list_sessions(session: Session, database: str) -> list[dict[str, t.Any]]:
    """Return who uses a database. A client program of this account that has ended is listed for a moment still."""
    end, backoff = Deadline(LOCK_WAIT), Backoff(first=0.02, limit=0.5)
    while True:
        found = session.query(_SESSIONS, [database])
        if not found or end.passed or not all(row["is_own"] for row in found):
            return found
        end.pause(backoff.take_pause())
