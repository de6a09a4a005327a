# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that keeps two runs on one database apart, and the end of what a killed run has left at work.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import typing as t

from .._common.errors import OpsError
from .._common.outcome import Blocker
from .._common.retry import Backoff, Deadline
from .._common.text import join_some
from .errors import read_code

if t.TYPE_CHECKING:
    from .connection import Session

ORPHAN_SECONDS = 60
"""For so long a session that was killed may take to end: it takes back what it has not committed."""
NO_SUCH_THREAD = 1094
_OWN_SESSIONS = """
SELECT ID AS id FROM information_schema.PROCESSLIST
 WHERE DB IN ({names}) AND ID <> CONNECTION_ID() AND USER = SUBSTRING_INDEX(USER(), '@', 1)
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


def end_orphans(session: Session, databases: t.Sequence[str], *, deadline: Deadline) -> int:
    """End the sessions of this account in ``databases``, wait until they have gone, and return how many there were.

    Only under the lock, and only where a run was killed: its client programs go on alone with what they have read. A
    session knows its database by name, so it would write into one that is made anew under that name.
    """
    names = ", ".join(["%s"] * len(databases))
    ended: set[int] = set()
    end, backoff = Deadline(min(ORPHAN_SECONDS, max(1, int(deadline.remaining)))), Backoff(first=0.02, limit=1)
    while True:
        found = {int(row["id"]) for row in session.query(_OWN_SESSIONS.format(names=names), list(databases))}
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
