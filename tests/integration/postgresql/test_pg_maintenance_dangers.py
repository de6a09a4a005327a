# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance near wraparound, and behind locks: who is named, what is advised, and what fails the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Database, until
from .test_pg_maintenance_faults import burn_transaction_ids
from .test_pg_maintenance_indexes import COMPACT, _waste


@pytest.fixture
def holder(database: Database) -> Iterator[Any]:
    """A session in a transaction, for what stands in the way."""
    with contextlib.closing(database.connect(autocommit=False, application="the-holder")) as connection:
        yield connection


@pytest.fixture
def autovacuum(database: Database) -> Iterator[None]:
    """Autovacuum that looks around every second."""
    database.sql(
        "ALTER SYSTEM SET autovacuum = on", "ALTER SYSTEM SET autovacuum_naptime = 1", "SELECT pg_reload_conf()"
    )
    yield
    database.sql("ALTER SYSTEM RESET autovacuum", "ALTER SYSTEM RESET autovacuum_naptime", "SELECT pg_reload_conf()")


@pytest.mark.usefixtures("autovacuum")
def test_an_autovacuum_against_wraparound_is_the_cure(database: Database) -> None:
    """It does not give way, so the run leaves the table to it: no failure, and no advice to end it."""
    # Never vacuumed, so that nothing of it is frozen, and it takes a minute.
    database.sql(
        "CREATE TABLE old WITH (autovacuum_enabled = off, autovacuum_freeze_max_age = 100000,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
        " AS SELECT number, repeat('x', 50) AS note FROM generate_series(1, 100000) AS number"
    )
    burn_transaction_ids(database, 100_500)
    at_work = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'autovacuum:%old (to prevent wraparound)'"
    until(database, at_work)
    options: dict[str, Any] = {"tables": ["old"], "lock_timeout": 1.0, "lock_retries": 0, "on_blocked": "report"}
    run = database.maintain(transaction_id_age=50_000, **options)
    assert not run.failed, run.msg
    assert [entry["object"] for entry in run["not_done"]] == ["table public.old"]
    blocker = run["blockers"][0]
    assert "to prevent wraparound" in blocker["holder"]
    assert "Let it finish" in blocker["next_step"]
    assert "pg_terminate_backend" not in str(run["blockers"])
    assert database.one(at_work)


@pytest.mark.usefixtures("autovacuum")
def test_an_ordinary_autovacuum_gives_way_to_a_build(database: Database) -> None:
    """The server ends it when the build has waited for deadlock_timeout."""
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    database.sql(
        "ALTER TABLE bloated SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
        "UPDATE bloated SET note = 'z' WHERE id % 2 = 0",
    )
    until(
        database,
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%bloated'"
        " AND xact_start < clock_timestamp() - interval '2 seconds'",
    )
    run = database.maintain(**COMPACT, lock_timeout=1.0)
    assert not run.failed, run.msg
    assert {entry["what"] for entry in run["done"]} == {"REINDEX INDEX CONCURRENTLY"}


def test_the_assessment_does_not_hang_behind_a_lock(database: Database, holder: Any) -> None:
    """In check mode too: a table under a TRUNCATE is judged by the catalog alone."""
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    with holder.cursor() as cursor:
        cursor.execute("TRUNCATE bloated")
        run = database.maintain(**COMPACT, lock_timeout=0.5, on_blocked="report", check=True)
    assert not run.failed, run.msg
    assert run["tables_assessed"] == 1


def test_a_table_in_danger_is_frozen_before_indexes_are_measured(database: Database) -> None:
    """Reading them may take hours; it comes after, and what it finds is rebuilt in the same run."""
    database.sql("CREATE EXTENSION pgstattuple")
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    database.table("old", dead=False)
    burn_transaction_ids(database, 1000)
    options: dict[str, Any] = {**COMPACT, "transaction_id_age": 500}
    predicted = database.maintain(**options, check=True)
    run = database.maintain(**options)
    assert predicted["plan"] == run["plan"]
    assert {item["what"] for item in run["plan"]} == {"VACUUM (FREEZE)"}
    assert "REINDEX INDEX CONCURRENTLY" in [entry["what"] for entry in run["done"]]
    assert run["not_done"] == []


def test_a_lost_slot_holds_nothing(database: Database) -> None:
    """Nor does it keep a table from being frozen."""
    slot = f"{database.name}_lost"
    database.sql(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    try:
        database.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
        until(
            database,
            "SELECT pg_switch_wal() IS NOT NULL AND pg_logical_emit_message(false, 'x', repeat('x', 1000)) IS NOT NULL"
            f" AND wal_status IN ('lost', 'unreserved') FROM pg_replication_slots WHERE slot_name = '{slot}'",
        )
        database.sql("CHECKPOINT")
        until(database, f"SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{slot}'")
        database.table("busy")
        burn_transaction_ids(database, 1000)
        run = database.maintain(transaction_id_age=500, on_blocked="report")
        assert not run.failed, run.msg
        assert slot not in str(run["blockers"])
    finally:
        database.sql(
            "ALTER SYSTEM RESET max_slot_wal_keep_size",
            "SELECT pg_reload_conf()",
            f"SELECT pg_drop_replication_slot('{slot}')",
        )


def test_a_temporary_table_that_holds_the_age_is_named(database: Database, holder: Any) -> None:
    """Nobody but its session can freeze it, so the database would stop with every table in order."""
    with holder.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE forgotten AS SELECT 1 AS id")
    holder.commit()
    burn_transaction_ids(database, 1000)
    options: dict[str, Any] = {"transaction_id_age": 500, "on_blocked": "report"}
    run = database.maintain(**options)
    assert run.failed
    blocker = next(entry for entry in run["blockers"] if "forgotten" in entry["object"])
    named = "the-holder" if int(database.one("SHOW server_version_num")) >= 160000 else "pg_temp_"
    assert named in blocker["holder"]
    holder.close()
    until(database, "SELECT count(*) = 0 FROM pg_class WHERE relname = 'forgotten'")
    assert not database.maintain(**options).failed


def test_a_freeze_that_lowered_nothing_fails(database: Database, holder: Any) -> None:
    """An account that does not see other users' snapshots learns that there is one."""
    role = f"owner_{database.name}"
    database.table("busy", dead=False)
    database.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'weak'", f"ALTER TABLE busy OWNER TO {role}")
    try:
        with holder.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT pg_current_xact_id()")
            burn_transaction_ids(database, 1000)
            weak: dict[str, Any] = {"login_user": role, "login_password": "weak"}
            run = database.maintain(transaction_id_age=500, tables=["busy"], on_blocked="report", **weak)
        assert run.failed
        assert "GRANT pg_read_all_stats" in run["error"]["next_step"]
    finally:
        database.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
