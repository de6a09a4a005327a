# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of servers that do not answer everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg2
import pytest
from psycopg2 import errors

from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.database import Reached, read_timeline


class Server:
    """Stands in for a session: what the server answers to the question for its log's position, or refuses it by."""

    def __init__(self, answer: int | None, error: type[psycopg2.Error], *, in_recovery: bool = False) -> None:
        self.answer, self.error = answer, error
        self.server = SimpleNamespace(in_recovery=in_recovery)

    def query(self, sql: str) -> list[tuple[int]]:
        """Answer one statement."""
        if "pg_current_wal_lsn" not in sql:
            return [(7,)]
        if self.answer is None:
            raise self.error
        return [(self.answer,)]


class NoPosition(errors.ObjectNotInPrerequisiteState):
    """As Amazon Aurora refuses it."""

    pgcode = "55000"


def test_the_timeline_of_a_server_without_a_position_is_that_of_its_last_checkpoint() -> None:
    """Another server tells it by what it writes, and a standby by its checkpoint too; other errors are told."""
    assert read_timeline(Server(8, NoPosition)) == 8  # type: ignore[arg-type]
    assert read_timeline(Server(None, NoPosition)) == 7  # type: ignore[arg-type]
    assert read_timeline(Server(8, NoPosition, in_recovery=True)) == 7  # type: ignore[arg-type]
    with pytest.raises(errors.InsufficientPrivilege):
        read_timeline(Server(None, errors.InsufficientPrivilege))  # type: ignore[arg-type]


def test_a_name_that_leads_to_several_servers_is_found_out() -> None:
    """By their own addresses, and behind one address by when they were started."""
    started_at = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
    first = Reached("10.0.0.1", started_at)
    assert first.explain_other(Reached("10.0.0.1", started_at)) is None
    assert first.explain_other(Reached("10.0.0.2", started_at)) == (
        "its name leads to several servers: 10.0.0.1 (started 2026-11-21T02:00:00Z) and 10.0.0.2 (started"
        " 2026-11-21T02:00:00Z)"
    )
    later = Reached("10.0.0.1", started_at + timedelta(days=1))
    assert "started 2026-11-22T02:00:00Z" in str(first.explain_other(later))
    assert Reached(None, started_at).explain_other(Reached(None, started_at)) is None
