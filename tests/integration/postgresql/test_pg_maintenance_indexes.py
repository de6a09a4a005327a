# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance on a real server: invalid and bloated indexes, interrupted builds, a full disk, a killed run."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from support.modules import start_module

from .conftest import Database, until

VALID: dict[str, Any] = {"invalid_indexes": "none"}
COMPACT: dict[str, Any] = {"index_bloat_ratio": 0.5, "minimum_index_size": 65536}


def _interrupt_reindex(database: Database, index: str, *, times: int) -> None:
    """Leave what a REINDEX CONCURRENTLY leaves when it cannot get its lock: a broken copy each time."""
    table = database.one(f"SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = '{index}'::regclass")
    with contextlib.closing(database.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} (id) VALUES (-1)")
        for _ in range(times):
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                database.sql("SET lock_timeout = '100ms'", f"REINDEX INDEX CONCURRENTLY {index}")
        holder.rollback()


def _waste(database: Database, table: str) -> None:
    """Make the indexes of a table mostly empty, and let the catalog know."""
    database.sql(f"DELETE FROM {table} WHERE id % 10 <> 0")
    database.sql(f"VACUUM ANALYZE {table}")


@pytest.mark.procedure("A12", "B8")
def test_leftovers_are_dropped_and_none_is_left(database: Database) -> None:
    """Three interrupted rebuilds leave _ccnew, _ccnew1 and _ccnew2; a broken index of somebody's own is built anew."""
    database.table("busy", dead=False)
    _interrupt_reindex(database, "busy_state", times=3)
    database.sql(
        "CREATE INDEX mine ON busy (note)", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mine'::regclass"
    )
    assert len(database.invalid()) == 4
    predicted = database.maintain(check=True, **VALID)
    assert [item["what"] for item in predicted["plan"]] == ["DROP INDEX CONCURRENTLY"] * 3 + [
        "REINDEX INDEX CONCURRENTLY"
    ]
    assert len(database.invalid()) == 4
    real = database.maintain(**VALID)
    assert real["plan"] == predicted["plan"]
    assert real["diff"] == predicted["diff"]
    assert real["invalid_indexes_left"] == []
    assert database.invalid() == []
    names = {
        row[0]
        for row in database.sql("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'busy'::regclass")
    }
    assert names == {"busy_pkey", "busy_state", "mine"}
    assert not database.maintain(check=True, **VALID).changed
    assert not database.maintain(**VALID).changed


def test_leftover_of_a_63_byte_name(database: Database) -> None:
    """The server cuts the base of a long name; it is still known as a leftover and not built anew."""
    long = "i" * 63
    database.table("busy", dead=False)
    database.sql(f"ALTER INDEX busy_state RENAME TO {long}")
    _interrupt_reindex(database, long, times=2)
    run = database.maintain(**VALID)
    assert {item["what"] for item in run["plan"]} == {"DROP INDEX CONCURRENTLY"}
    assert database.invalid() == []


def test_an_index_under_construction_is_left_alone(database: Database) -> None:
    database.table("busy", dead=False)
    with contextlib.closing(database.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("INSERT INTO busy VALUES (-1)")
        with contextlib.closing(psycopg2.connect(**_dsn(database), async_=True)) as builder:
            _wait(builder)
            with builder.cursor() as building:
                building.execute("CREATE INDEX CONCURRENTLY under_way ON busy (note)")
                until(database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")
                run = database.maintain(**VALID, on_blocked="report", lock_timeout=0.3)
                holder.rollback()
                _wait(builder)
    assert not run.changed
    assert "left alone" in run["not_done"][0]["why"]
    assert "pid" in run["blockers"][0]["holder"]
    assert database.one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'under_way'::regclass")


def _dsn(database: Database) -> dict[str, Any]:
    params = database.server.params(database.name)
    return {
        "host": params["login_host"],
        "port": params["login_port"],
        "user": "postgres",
        "password": params["login_password"],
        "dbname": database.name,
    }


def _wait(connection: Any) -> None:
    """psycopg2's own loop for asynchronous connections."""
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        reading = [connection.fileno()] if state == psycopg2.extensions.POLL_READ else []
        writing = [connection.fileno()] if state == psycopg2.extensions.POLL_WRITE else []
        select.select(reading, writing, [], 30)


@pytest.mark.procedure("A12", "B29", "B30", "D17", "D18")
def test_bloat_decides_for_a_rebuild_and_once(database: Database) -> None:
    """Unconditional or locking rebuilds are what the guides do: here the compact table's indexes keep their files."""
    database.table("bloated", rows=40000, dead=False)
    database.table("compact", rows=40000, dead=False)
    _waste(database, "bloated")
    files = "SELECT relfilenode FROM pg_class WHERE relname IN ('compact_pkey', 'compact_state') ORDER BY 1"
    before = database.sql(files)
    predicted = database.maintain(check=True, **COMPACT)
    assert {item["object"] for item in predicted["plan"]} == {"index public.bloated_pkey", "index public.bloated_state"}
    size = database.one("SELECT pg_relation_size('bloated_pkey')")
    with contextlib.closing(database.connect(autocommit=True)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bloated")
        real = database.maintain(**COMPACT)
        cursor.execute("SELECT count(*) FROM bloated")
    assert real["plan"] == predicted["plan"]
    assert len(real["done"]) == 2
    assert real["not_done"] == []
    assert database.one("SELECT pg_relation_size('bloated_pkey')") < size / 5
    assert database.sql(files) == before
    assert not database.maintain(**COMPACT).changed
    assert database.invalid() == []


@pytest.mark.procedure("A12")
def test_open_transaction_is_named_and_nothing_is_built_in_vain(database: Database) -> None:
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    with (
        contextlib.closing(database.connect(autocommit=False, application="forgotten")) as holder,
        holder.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*) FROM bloated")
        run = database.maintain(**COMPACT, lock_timeout=0.3, on_blocked="report")
    assert not run.changed
    assert "forgotten" in run["blockers"][0]["holder"]
    assert database.invalid() == []
    assert database.maintain(**COMPACT).changed


def test_full_disk_is_an_error_that_leaves_nothing_behind(database: Database, small_volume: Path) -> None:
    """F21: the rebuild fails for want of space, its half-made copy is dropped in the same run, and the table serves."""
    space = f"space_{database.name}"
    database.table("bloated", rows=150000, dead=False)
    database.sql(f"CREATE TABLESPACE {space} LOCATION '{small_volume}'")
    try:
        database.sql("CREATE INDEX big ON bloated (id, state) TABLESPACE " + space)
        with (small_volume / "ballast").open("wb") as ballast:
            free = os.statvfs(small_volume)
            ballast.write(bytes(free.f_bavail * free.f_frsize - 65536))
        database.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'big'::regclass")
        run = database.maintain(**VALID)
        assert run.failed
        assert run.rc != 0
        assert "No space left on device" in run.msg
        assert "Free space" in run.msg
        assert database.invalid() == ["big"]
        (small_volume / "ballast").unlink()
        assert database.maintain(**VALID).changed
        assert database.invalid() == []
    finally:
        database.sql("DROP TABLE bloated")
        database.sql(f"DROP TABLESPACE {space}")


def test_killed_run_is_finished_by_the_next(database: Database) -> None:
    """F2, F21: SIGKILL in the middle of a rebuild; beside its orphan nobody starts, and after it all is in condition."""
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    with contextlib.closing(database.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        # A young snapshot without a lock on the table: the run begins, and its end has to wait.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM pg_class")
        process = start_module(
            "pg_maintenance", {**database.server.params(database.name), **COMPACT, "lock_timeout": 60}
        )
        until(database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        beside = database.maintain(**COMPACT, **VALID)
        assert beside["error"]["refused"]
        assert "another maintenance run, or a session that it left behind" in beside.msg
        database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'lowtide.ops%'"
        )
        until(database, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'lowtide.ops%'")
        holder.rollback()
    assert database.invalid() == ["bloated_pkey_ccnew"]
    run = database.maintain(**COMPACT, **VALID)
    assert run.changed
    assert run["invalid_indexes_left"] == []
    assert database.invalid() == []
    assert not database.maintain(**COMPACT, **VALID).changed
