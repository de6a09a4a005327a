# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables are locked before the moment of a dump, and again when they were written anew in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.held_tables import ATTEMPTS, hold_tables

Listing = list[tuple[int, bytes, bool]]
T = (1, b"s.t", False)
U = (2, b"s.u", False)


class MemorySession:
    """Answers each list of tables with the next one; ``errors`` are raised by the statements that begin so."""

    def __init__(self, *listings: Listing, errors: tuple[Exception, ...] = ()) -> None:
        self.settings = SimpleNamespace(target="db")
        self._listings = [*listings]
        self._errors = [*errors]
        self.sent: list[str] = []

    def query(self, _sql: str, _values: dict[str, Any]) -> Listing:
        """The next list; the last one for ever."""
        return self._listings.pop(0) if len(self._listings) > 1 else self._listings[0]

    def execute(self, sql: str | bytes) -> None:
        """Keep the statement."""
        text = sql.decode() if isinstance(sql, bytes) else sql
        self.sent.append(text)
        if text.startswith("LOCK") and self._errors:
            raise self._errors.pop(0)

    def hold(self) -> list[str]:
        """The locks and ends of transactions that were sent."""
        hold_tables(self, ["p"], lock_timeout=3)  # type: ignore[arg-type]
        return [text for text in self.sent if text.startswith(("LOCK", "ROLLBACK"))]


def test_tables_are_locked_before_the_moment_is_chosen() -> None:
    """The first query after BEGIN would choose it."""
    session = MemorySession([T, U])
    assert session.hold() == ["LOCK TABLE ONLY s.t, ONLY s.u IN ACCESS SHARE MODE"]
    assert session.sent[0].startswith("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert session.sent[1] == "SET LOCAL lock_timeout = 3000"


def test_a_table_that_came_in_between_is_locked_as_well() -> None:
    """Its rows are of that moment only if it was not written anew since."""
    first, second = "LOCK TABLE ONLY s.t IN ACCESS SHARE MODE", "LOCK TABLE ONLY s.u IN ACCESS SHARE MODE"
    assert MemorySession([T], [T, U], [T, U]).hold() == [first, second]
    anew = (2, b"s.u", True)
    assert MemorySession([T], [T, U], [T, anew], [T, U]).hold() == [
        first,
        second,
        "ROLLBACK",
        "LOCK TABLE ONLY s.t, ONLY s.u IN ACCESS SHARE MODE",
    ]


class Gone(psycopg2.Error):
    """What the server says of a table that is not there; the driver's own class has its code from a server only."""

    pgcode = "42P01"


class Denied(psycopg2.Error):
    """What it says of one that this user may not read."""

    pgcode = "42501"


def test_a_table_that_is_gone_begins_it_anew() -> None:
    """With what is there then; any other error is told."""
    session = MemorySession([T, U], [T], errors=(Gone("relation s.u does not exist"),))
    assert session.hold() == [
        "LOCK TABLE ONLY s.t, ONLY s.u IN ACCESS SHARE MODE",
        "ROLLBACK",
        "LOCK TABLE ONLY s.t IN ACCESS SHARE MODE",
    ]
    with pytest.raises(OpsError, match="permission denied"):
        MemorySession([T], errors=(Denied("permission denied for table t"),)).hold()


def test_it_gives_up_after_some_attempts() -> None:
    """And names what is written anew."""
    session = MemorySession([(1, b"s.t", True)])
    with pytest.raises(OpsError, match=f"faster than they can be locked: s.t; {ATTEMPTS} attempts"):
        session.hold()
    assert session.sent.count("ROLLBACK") == ATTEMPTS
