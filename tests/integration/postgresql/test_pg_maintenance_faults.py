# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance on a real server in situations that hid danger, threw work away, or ended in a traceback."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from support.modules import finish_module, start_module

from .conftest import Database, until
from .test_pg_maintenance_indexes import COMPACT, VALID, _waste

DEAD: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100}


def burn_transaction_ids(database: Database, count: int) -> None:
    """Use up transaction ids, so that everything gets older."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE PROCEDURE burn(n int) LANGUAGE plpgsql AS $$BEGIN FOR i IN 1..n LOOP"
                       " PERFORM pg_current_xact_id(); COMMIT; END LOOP; END$$")  # fmt: skip
        cursor.execute(f"CALL burn({count})")


@pytest.fixture
def holder(database: Database) -> Iterator[Any]:
    """A session in a transaction, for what stands in the way."""
    with contextlib.closing(database.connect(autocommit=False, application="the-holder")) as connection:
        yield connection
        connection.rollback()


def age_of(database: Database, table: str) -> int:
    """How old the table's oldest transaction id may be."""
    return int(database.one(f"SELECT age(relfrozenxid) FROM pg_class WHERE relname = '{table}'"))


def test_freezing_goes_as_far_as_it_can_and_danger_left_fails_the_run(database: Database, holder: Any) -> None:
    """M1: a transaction just above the limit does not switch freezing off, and reporting does not hide what is left."""
    database.table("busy", dead=False)
    burn_transaction_ids(database, 10000)
    with holder.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT pg_current_xact_id()")
        burn_transaction_ids(database, 300)
        options: dict[str, Any] = {"transaction_id_age": 250, "tables": ["busy"], "on_blocked": "report"}
        run = database.maintain(**options)
        assert [entry["what"] for entry in run["done"]] == ["VACUUM (FREEZE)"]
        assert age_of(database, "busy") < 1000
        assert run.failed
        assert "the-holder" in run.msg
        again = database.maintain(**options)
    assert again.failed
    assert again["plan"] == []
    assert not again.changed
    holder.rollback()
    assert not database.maintain(**options).failed
    assert age_of(database, "busy") < 250


def test_danger_ignores_the_budget(database: Database) -> None:
    """M2: the big old table is what a budget must not leave."""
    database.table("huge", dead=False)
    database.table("small")
    burn_transaction_ids(database, 1000)
    database.sql("UPDATE pg_class SET relpages = 134217728 WHERE relname = 'huge'", "VACUUM FREEZE small")
    database.sql("UPDATE small SET note = 'z' WHERE id % 2 = 0")
    run = database.maintain(
        **DEAD, transaction_id_age=500, tables=["huge", "small"], time_budget=60, on_blocked="report"
    )
    assert [entry["object"] for entry in run["done"]] == ["table public.huge"]
    assert run["blockers"][0]["object"] == "table public.small"


def test_timeout_cancels_what_runs(database: Database, holder: Any) -> None:
    """M2: a command that has begun is cancelled at the hard limit, and nothing half made is left."""
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    with holder.cursor() as cursor:
        # A young snapshot: the build begins, and waits for it at its end.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM pg_class")
        began = time.monotonic()
        run = database.maintain(**COMPACT, timeout=6, on_blocked="report", lock_timeout=60)
        assert time.monotonic() - began < 60
    assert not run.failed, run.msg
    assert "timeout of 6 s" in run["not_done"][0]["why"]
    assert "timeout of 6 s" in run["blockers"][0]["holder"]
    assert database.invalid() == []
    holder.rollback()
    assert database.maintain(**COMPACT).changed


def test_a_finished_build_waits_longer_than_for_a_lock(database: Database, holder: Any) -> None:
    """M3: the lock timeout is not for the last phases of a build, whose waits hinder nobody."""
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    with contextlib.closing(database.connect(autocommit=False)) as gate, holder.cursor() as cursor:
        gate.cursor().execute("LOCK TABLE bloated IN ROW EXCLUSIVE MODE")
        process = start_module(
            "pg_maintenance",
            {**database.server.params(database.name), **COMPACT, "lock_timeout": 4.0, "lock_retries": 0},
        )
        # The session that is to build is there, and waits for who uses the table: the transaction is younger than
        # lock_timeout when the build begins, and older than the build.
        until(database, "SELECT count(*) > 1 FROM pg_stat_activity WHERE application_name LIKE 'lowtide.ops%'")
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM pg_class")
        gate.rollback()
        until(database, "SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted")
        cursor.execute("SELECT pg_sleep(5)")
        holder.rollback()
    run = finish_module(process)
    assert not run.failed, run.msg
    assert len(run["done"]) == 2
    assert database.invalid() == []


def test_builds_of_one_run_do_not_wait_for_each_other(database: Database) -> None:
    """M3: an index with an expression keeps every other concurrent build waiting, so it is built by itself.

    Two such indexes at once would wait for each other, which the server ends.
    """
    for name in ("a", "b", "c"):
        database.table(name, rows=40000, dead=False)
    database.sql("CREATE INDEX a_expression ON a ((id % 7), id)", "CREATE INDEX b_partial ON b (id) WHERE state > 1")
    for name in ("a", "b", "c"):
        _waste(database, name)
    run = database.maintain(**COMPACT, jobs=3, index_wait_timeout=5, lock_retries=0)
    assert not run.failed, run.msg
    assert len(run["done"]) == 8
    assert database.invalid() == []


def test_a_named_partitioned_table_stands_for_its_tree(database: Database) -> None:
    """M5, M6: also where its partitions are in another schema."""
    database.sql(
        "CREATE SCHEMA parts",
        "CREATE TABLE public.events (id int, p int) PARTITION BY LIST (p)",
        "CREATE TABLE parts.events_1 PARTITION OF public.events FOR VALUES IN (1)",
        "INSERT INTO events SELECT g, 1 FROM generate_series(1, 10000) g",
        "ANALYZE events",
    )
    database.sql("VACUUM parts.events_1")
    database.sql("UPDATE events SET id = id + 1")
    options: dict[str, Any] = {**DEAD, "changed_tuple_ratio": 0.1, "tables": ["public.events"]}
    assert not database.maintain(check=True, **options, exclude=["events"]).changed
    by_schema = database.maintain(check=True, **{**options, "tables": None}, schemas=["public"])
    assert [item["object"] for item in by_schema["plan"]] == ["table public.events"]
    run = database.maintain(**options)
    assert {entry["object"] for entry in run["done"]} == {"table public.events", "table parts.events_1"}
    assert database.vacuums("events_1") == 2
    # It is analyzed once: by itself from 18 on, with its parent before.
    assert database.one("SELECT analyze_count FROM pg_stat_user_tables WHERE relname = 'events_1'") == 2
    assert not database.maintain(**options).changed


def test_a_parent_of_a_foreign_partition_is_left(database: Database) -> None:
    """Case 24: its ANALYZE would connect to a server that is gone, in every run."""
    database.sql(
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER gone FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1')",
        "CREATE USER MAPPING FOR postgres SERVER gone OPTIONS (user 'x', password 'y')",
        "CREATE TABLE events (id int, p int) PARTITION BY LIST (p)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)",
        "CREATE FOREIGN TABLE events_2 PARTITION OF events FOR VALUES IN (2) SERVER gone",
        "INSERT INTO events SELECT g, 1 FROM generate_series(1, 1000) g",
    )
    run = database.maintain(statistics_age=86400)
    assert not run.failed, run.msg
    assert [entry["object"] for entry in run["done"]] == ["table public.events_1"]
    assert "foreign table" in run["not_done"][0]["why"]
    assert not database.maintain(statistics_age=86400).changed


def test_inheritance_children_are_tables_of_their_own(database: Database) -> None:
    """M6: from 18 on a parent's command would do its children too, if it were not told to do it alone."""
    database.table("parent")
    database.sql("CREATE TABLE child () INHERITS (parent)", "INSERT INTO child SELECT g FROM generate_series(1, 500) g")
    database.sql("VACUUM ANALYZE child")
    assert [entry["object"] for entry in database.maintain(**DEAD)["done"]] == ["table public.parent"]
    assert database.vacuums("child") == 1


def test_overlapping_readers_do_not_keep_a_table_from_being_cleaned(database: Database) -> None:
    """M8: the second one was there at the last VACUUM, but it was the first one, which has ended, that kept the rows."""
    database.table("other", dead=False)
    database.table("busy", dead=False)
    first, second = database.connect(autocommit=False), database.connect(autocommit=False)
    with contextlib.closing(first), contextlib.closing(second), first.cursor() as one, second.cursor() as two:
        for cursor in (one, two):
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        one.execute("SELECT count(*) FROM other")
        database.sql("UPDATE busy SET note = 'z' WHERE id % 2 = 0")
        two.execute("SELECT count(*) FROM other")
        held = database.maintain(**DEAD, on_blocked="report")
        assert held.changed
        first.rollback()
        run = database.maintain(**DEAD)
    assert run.changed
    assert run["blockers"] == []
    assert database.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'busy'") == 0


OUT_OF_LINE = (
    "CREATE TABLE t (id int, u text)",
    "ALTER TABLE t ALTER u SET STORAGE EXTERNAL",
    "INSERT INTO t SELECT g, (SELECT string_agg(md5(g || '-' || i), '') FROM generate_series(1, 70) i)"
    " FROM generate_series(1, 3000) g",
    "CREATE INDEX t_u ON t (u)",
)


@pytest.mark.parametrize("measured", [False, True])
def test_a_fresh_index_over_values_out_of_line_is_not_rebuilt(database: Database, measured: bool) -> None:
    """M9: the statistics have the width of a pointer."""
    database.sql(*OUT_OF_LINE)
    database.sql("VACUUM ANALYZE t")
    if measured:
        database.sql('CREATE SCHEMA "per%cent"', 'CREATE EXTENSION pgstattuple SCHEMA "per%cent"')
    run = database.maintain(index_bloat_ratio=0.5)
    assert not run.changed
    assert [entry["object"] for entry in run["not_done"]] == ([] if measured else ["index public.t_u"])


def test_what_is_measured_decides(database: Database) -> None:
    """M9, M14: with pgstattuple neither a bloated index is missed nor a compact one rebuilt, whatever the estimate says."""
    database.sql("CREATE EXTENSION pgstattuple", *OUT_OF_LINE)
    database.sql("DELETE FROM t WHERE id % 10 <> 0")
    database.sql("VACUUM ANALYZE t")
    with contextlib.closing(database.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("REINDEX INDEX t_u")
        locked = database.info(index_bloat_ratio=0.5, lock_timeout=0.2)
        holder.rollback()
    assert not locked["due"]
    assert "could not measure" in locked["not_done"][0]["why"]
    run = database.maintain(index_bloat_ratio=0.5)
    assert [entry["object"] for entry in run["done"]] == ["index public.t_u"]
    assert not database.maintain(index_bloat_ratio=0.5).changed


def test_catalogs_that_cannot_be_rebuilt_are_not_an_error(database: Database) -> None:
    """M10: reported, and not tried in every run."""
    database.sql("UPDATE pg_class SET relpages = 10000 WHERE relname = 'pg_attribute_relid_attnam_index'")
    database.sql("ANALYZE pg_attribute")
    database.sql("UPDATE pg_class SET relpages = 10000 WHERE relname = 'pg_attribute_relid_attnam_index'")
    run = database.maintain(
        index_bloat_ratio=0.5, system_catalogs=True, tables=["pg_catalog.pg_attribute"], on_blocked="report"
    )
    assert not run.failed, run.msg
    assert not run.changed
    assert "system catalog" in run["not_done"][0]["why"]
    assert "quiet hour" in run["blockers"][0]["next_step"]


@pytest.mark.parametrize(
    "setting",
    [
        "statement_timeout = '1500ms'",
        "idle_session_timeout = '1500ms'",
        "transaction_timeout = '1500ms'",
        "lock_timeout = '1ms'",
    ],
)
def test_timeouts_of_the_role_do_not_end_the_run(database: Database, holder: Any, setting: str) -> None:
    """M11, M13: each is set anew on every session."""
    if "transaction_timeout" in setting and holder.server_version < 170000:
        setting = "idle_in_transaction_session_timeout = '1500ms'"
    database.table("busy")
    database.table("other")
    database.sql(f"ALTER ROLE postgres IN DATABASE {database.name} SET {setting}")
    with holder.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("LOCK TABLE busy IN SHARE MODE")
        process = start_module(
            "pg_maintenance", {**database.server.params(database.name), **DEAD, "lock_timeout": 30.0}
        )
        until(
            Database(database.server, "postgres"),
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'",
        )
        # Longer than each of them; they are longer than what a session has said until they are set anew.
        cursor.execute("SELECT pg_sleep(2)")
        holder.rollback()
    run = finish_module(process)
    assert not run.failed, run.msg
    assert len(run["done"]) == 2


def test_a_lost_connection_while_assessing_is_an_error_with_its_parts(database: Database) -> None:
    """M11: no traceback."""
    database.table("busy")
    database.sql(
        "CREATE EXTENSION pgstattuple", "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC"
    )
    role = f"weak_{database.name}"
    database.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'weak'")
    try:
        run = database.info(**DEAD, login_user=role, login_password="weak")  # noqa: S106 - a role of this test
    finally:
        database.sql(f"DROP ROLE {role}", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO PUBLIC")
    assert run.failed
    assert run["error"]["next_step"]
    assert "pg_control_system" in run["error"]["problem"]


def test_no_free_connection_is_refused_before_anything_is_done(database: Database) -> None:
    """M12: all sessions are opened before the first statement, so this is a refusal, and nothing is changed."""
    for number in range(8):
        database.table(f"t{number}")
    role = f"owner_{database.name}"
    database.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'weak' CONNECTION LIMIT 2")
    for number in range(8):
        database.sql(f"ALTER TABLE t{number} OWNER TO {role}")
    try:
        run = database.maintain(**DEAD, jobs=4, login_user=role, login_password="weak")  # noqa: S106 - a role of this test
    finally:
        database.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert run["error"]["refused"]
    assert not run.changed
    assert run["done"] == []
    assert [database.vacuums(f"t{number}") for number in range(8)] == [1] * 8


def test_a_function_that_cannot_find_its_table_is_an_error(database: Database) -> None:
    """Case 6: undefined_table inside a function of an index is no sign that the table has been dropped."""
    database.sql(
        "CREATE TABLE public.machines (id int PRIMARY KEY, kind text)",
        "INSERT INTO machines VALUES (1, 'a')",
        "CREATE FUNCTION public.kind_of(i int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS"
        " $$BEGIN RETURN (SELECT kind FROM machines WHERE id = i); END$$",
        "CREATE TABLE public.requests AS SELECT 1 AS machine, g FROM generate_series(1, 5000) g",
    )
    # Up to 16 an index may be built by such a function; from 17 on it is looked up as here.
    database.sql(
        "ALTER FUNCTION public.kind_of SET search_path = public", "CREATE INDEX ON public.requests (kind_of(machine))"
    )
    database.sql("ALTER FUNCTION public.kind_of RESET search_path", "VACUUM requests")
    database.sql("UPDATE requests SET g = g + 1")
    for _ in range(2):
        run = database.maintain(**DEAD, changed_tuple_ratio=0.1, tables=["requests"])
        assert run.failed
        assert "public.kind_of" in run.msg
        assert "search_path" in run["error"]["next_step"]


def _fail_to_build(cursor: Any, statement: str) -> None:
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute(statement)


def test_messages_hold_no_values_of_rows(database: Database) -> None:
    """M16: neither a DETAIL nor what a function says of a value."""
    database.sql(
        "CREATE TABLE people (id int, email text)", "INSERT INTO people VALUES (1, 'x@y.example'), (2, 'x@y.example')"
    )
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        _fail_to_build(cursor, "CREATE UNIQUE INDEX CONCURRENTLY people_email ON people (email)")
    run = database.maintain(**VALID)
    assert run.failed
    assert "x@y" not in str(run.result)
    assert "duplicate rows" in run["error"]["next_step"]
    database.sql(
        "DROP INDEX people_email",
        "CREATE TABLE v (t text)",
        "CREATE INDEX v_t ON v ((t::int))",
        "INSERT INTO v VALUES ('1')",
    )
    database.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'v_t'::regclass")
    database.sql(
        "SET session_replication_role = replica",
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'v_t'::regclass",
        "INSERT INTO v VALUES ('secret-value')",
    )
    run = database.maintain(**VALID)
    assert run.failed
    assert "secret-value" not in str(run.result)
    assert "22P02" in run.msg
