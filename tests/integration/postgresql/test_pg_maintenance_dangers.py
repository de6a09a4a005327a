# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance near wraparound, and behind locks: who is named, what is advised, and what fails the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from support.postgresql_servers import crash_server

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
    # It would begin another one, in the database of the next test.
    until(database, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'")


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


def test_a_temporary_table_that_a_crash_left_is_nobodys(database: Database) -> None:
    """The number of its schema is that of a session of another database by now."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE orphan AS SELECT 1 AS id")
        crash_server(database.server)
    with contextlib.ExitStack() as stack:
        for number in range(20):
            session = database.server.connect("postgres", application=f"innocent-{number}")
            stack.enter_context(contextlib.closing(session))
        burn_transaction_ids(database, 1000)
        run = database.info(transaction_id_age=500)
        blocker = next(entry for entry in run["blockers"] if "orphan" in entry["object"])
        assert "innocent" not in blocker["holder"]
        assert "or nobody any more" in blocker["holder"]
        schema = database.one("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'orphan'")
        assert f"DROP TABLE {schema}.orphan as a superuser" in blocker["next_step"]
        database.sql(f"DROP TABLE {schema}.orphan")
    assert not [entry for entry in database.info(transaction_id_age=500)["blockers"] if "orphan" in entry["object"]]


@pytest.mark.parametrize("application", ["pg_dump", "lowtide.ops pg_backup abcd1234"])
def test_a_backup_is_not_to_be_ended(database: Database, application: str) -> None:
    """Two nightly jobs of one collection stand in each other's way; neither is worth the other. As for rows, so for locks."""
    database.table("busy", dead=False)
    backup = database.connect(autocommit=False, application=application)
    with contextlib.closing(backup), backup.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT 1")
        database.sql("DELETE FROM busy WHERE id % 2 = 0")
        due: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100, "on_blocked": "report"}
        database.maintain(**due)  # which proves that nothing can be removed
        rows = database.maintain(**due)
        database.sql("UPDATE busy SET state = 0")
        analyzed = database.maintain(changed_tuple_ratio=0.1, **due)
        database.sql("UPDATE busy SET state = 1")
        cursor.execute("LOCK TABLE busy IN SHARE MODE")
        locked = database.maintain(changed_tuple_ratio=0.1, minimum_tuples=100, lock_timeout=1, on_blocked="report")
    assert [entry["object"] for entry in analyzed["done"]] == ["table public.busy"]
    assert [entry["object"] for entry in analyzed["not_done"]] == ["table public.busy"]  # once, though looked at again
    for run in (rows, locked):
        blockers = [entry for entry in run["blockers"] if entry["object"] == "table public.busy"]
        assert blockers, run
        assert application in blockers[0]["holder"]
        assert "Run again when that backup has ended" in blockers[0]["next_step"]
        assert "pg_terminate_backend" not in str(run["blockers"])


def test_a_transaction_in_another_database_is_named_for_shared_catalogs_alone(database: Database) -> None:
    """It holds no row of this database's own tables."""
    database.table("busy", dead=False)
    session = database.server.connect("postgres", application="elsewhere")
    session.autocommit = False
    with contextlib.closing(session), session.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")
        burn_transaction_ids(database, 1000)
        run = database.maintain(transaction_id_age=500, system_catalogs=True, jobs=1, on_blocked="report")
    named = {entry["object"] for entry in run["blockers"] if "elsewhere" in entry["holder"]}
    assert "table pg_catalog.pg_database" in named
    assert not named & {"table public.busy", "table pg_catalog.pg_class"}
    assert "has ended since" not in str(run["blockers"])
    blocker = next(entry for entry in run["blockers"] if entry["object"] == "table pg_catalog.pg_database")
    assert "database postgres" in blocker["holder"]


def test_a_setting_that_keeps_dead_rows_is_named(database: Database) -> None:
    """Up to 15 there is one; nobody is in the way, and running again changes nothing."""
    if database.server.version > 15:
        assert database.one("SELECT count(*) FROM pg_settings WHERE name = 'vacuum_defer_cleanup_age'") == 0
        return
    database.sql("ALTER SYSTEM SET vacuum_defer_cleanup_age = 1000000", "SELECT pg_reload_conf()")
    try:
        until(database, "SELECT current_setting('vacuum_defer_cleanup_age') = '1000000'")
        database.table("busy")
        burn_transaction_ids(database, 1000)
        due: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100, "on_blocked": "report"}
        database.maintain(**due)
        kept = database.maintain(**due)
        old = database.maintain(transaction_id_age=500, tables=["busy"], on_blocked="report")
    finally:
        database.sql("ALTER SYSTEM RESET vacuum_defer_cleanup_age", "SELECT pg_reload_conf()")
    assert not kept.changed
    for run in (kept, old):
        blocker = next(entry for entry in run["blockers"] if entry["object"] == "table public.busy")
        assert "vacuum_defer_cleanup_age = 1000000" in blocker["holder"]
        assert "ALTER SYSTEM SET vacuum_defer_cleanup_age = 0" in blocker["next_step"]


def test_an_invalid_index_that_is_left_alone_is_told_after_the_run(database: Database, holder: Any) -> None:
    """It may be under construction, so its table is not touched; what is done elsewhere does not hide it."""
    database.table("busy")
    database.sql(
        "CREATE TABLE built (id int)",
        "CREATE INDEX built_id ON built (id)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'built_id'::regclass",
    )
    holder.cursor().execute("LOCK TABLE built IN SHARE UPDATE EXCLUSIVE MODE")
    run = database.maintain(
        dead_tuple_ratio=0.1, minimum_tuples=100, invalid_indexes="none", tables=["busy", "built"], on_blocked="report"
    )
    assert [entry["object"] for entry in run["done"]] == ["table public.busy"]
    assert run["invalid_indexes_left"] == ["public.built_id"]
    assert (run["waited"] > 0) is (database.server.version < 15)  # for the statistics, which were written late up to 14


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
