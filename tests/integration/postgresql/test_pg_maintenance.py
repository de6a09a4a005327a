# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance on a real server: tables, locks, old transactions, budgets, names."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from psycopg2 import sql

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import (
    CONNECTION_SPEC,
    Session,
    Settings,
    settings_from,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.worker_pool import Limits, WorkerPool
from support.modules import finish_module, run_module, start_module

from .conftest import Database, until

DEAD: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100}
AWKWARD = ['x"; DROP TABLE canary; --', "with space", "Größe 🐘", "a" * 63, "Select", "a.b", "$(id)", "-o"]


@pytest.mark.procedure("A11", "B9", "B29", "D16", "D17")
def test_check_real_check_real(database: Database) -> None:
    """Need decides: the table in condition is left alone, and the second run finds nothing to do."""
    database.table("busy")
    database.table("calm", dead=False)
    before = database.fingerprint()
    predicted = database.maintain(check=True, **DEAD)
    assert predicted.changed
    assert [item["object"] for item in predicted["plan"]] == ["table public.busy"]
    assert "33.3 % dead rows (1000 of 3000)" in predicted["plan"][0]["why"]
    assert database.fingerprint() == before

    real = database.maintain(**DEAD)
    assert real.changed
    assert real["plan"] == predicted["plan"]
    assert real["diff"] == predicted["diff"]
    assert [entry["object"] for entry in real["done"]] == ["table public.busy"]
    assert database.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'busy'") == 0
    assert (database.vacuums("busy"), database.vacuums("calm")) == (2, 1)

    after = database.fingerprint()
    for again in (database.maintain(check=True, **DEAD), database.maintain(**DEAD)):
        assert not again.changed
        assert again["plan"] == []
        assert not again.failed
    assert database.fingerprint() == after


def test_info_says_the_same_and_writes_nothing(database: Database) -> None:
    database.table("busy")
    before = database.fingerprint()
    info = database.info(**DEAD)
    assert not info.changed
    assert info["due"]
    assert info["plan"] == database.maintain(check=True, **DEAD)["plan"]
    assert database.fingerprint() == before


@pytest.mark.procedure("C19")
def test_only_the_named_database_is_touched(database: Database) -> None:
    """The guide's VACUUM without a database works on `postgres`; here the database has no default."""
    database.table("busy")
    params = {**database.server.params("postgres"), **DEAD}
    del params["login_db"]
    refused = run_module("pg_maintenance", params)
    assert refused.failed
    assert "login_db" in refused.msg
    assert database.vacuums("busy") == 1
    assert database.maintain(**DEAD)["database"] == database.name
    assert database.vacuums("busy") == 2


@pytest.mark.procedure("B30")
def test_statistics_by_change_and_age(database: Database) -> None:
    database.table("changed", dead=False)
    database.table("calm", dead=False)
    database.sql("CREATE TABLE fresh (id int)", "INSERT INTO fresh SELECT generate_series(1, 500)")
    database.sql("INSERT INTO changed SELECT g, 1, 'n' FROM generate_series(5001, 6000) g")
    options: dict[str, Any] = {"changed_tuple_ratio": 0.2, "minimum_tuples": 100, "statistics_age": 86400}
    run = database.maintain(**options)
    assert {(item["object"], item["what"]) for item in run["plan"]} == {
        ("table public.changed", "ANALYZE"),
        ("table public.fresh", "ANALYZE"),
    }
    assert database.vacuums("changed") == 1
    assert not database.maintain(**options).changed


def test_partitioned_parent_gets_statistics_of_its_own(database: Database) -> None:
    database.sql(
        "CREATE TABLE events (id int, part int) PARTITION BY LIST (part)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)",
        "CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2)",
        "INSERT INTO events SELECT g, 1 + g % 2 FROM generate_series(1, 1000) g",
        "ANALYZE events_1",
        "ANALYZE events_2",
    )
    run = database.maintain(statistics_age=86400)
    assert [item["object"] for item in run["plan"]] == ["table public.events"]
    assert database.one("SELECT count(*) FROM pg_stats WHERE tablename = 'events' AND inherited") == 2
    assert not database.maintain(statistics_age=86400).changed


def test_old_transaction_ids_are_frozen_first(database: Database) -> None:
    database.table("busy")
    database.table("calm", dead=False)
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        for _ in range(300):
            cursor.execute("SELECT pg_current_xact_id()")
    options: dict[str, Any] = {**DEAD, "transaction_id_age": 250}
    run = database.maintain(**options)
    assert [item["what"] for item in run["plan"]] == ["VACUUM (FREEZE, ANALYZE)", "VACUUM (FREEZE)"]
    ages = database.sql("SELECT age(relfrozenxid) FROM pg_class WHERE relname IN ('busy', 'calm')")
    assert all(age < 250 for (age,) in ages)
    assert not database.maintain(**options).changed


def test_lost_statistics_count_as_unknown(database: Database) -> None:
    """After a crash or failover the server knows of no dead row, which is not the same as none."""
    database.table("busy")
    database.sql("SELECT pg_stat_reset()")
    run = database.maintain(**DEAD)
    assert "lost its statistics" in run["plan"][0]["why"]
    assert not database.maintain(**DEAD).changed


@pytest.mark.parametrize(
    "condition", ["dead_tuple_ratio", "changed_tuple_ratio", "inserted_tuple_ratio", "statistics_age"]
)
def test_no_condition_holds_by_counters_that_were_lost(database: Database, condition: str) -> None:
    """M16: not even where some rows were written since, and where the catalog has never counted the rows."""
    database.table("busy")
    database.sql("CREATE TABLE raw AS SELECT g AS id FROM generate_series(1, 5000) g")
    database.sql("CREATE TABLE empty (id int)")
    database.sql("SELECT pg_stat_reset()")
    database.sql("INSERT INTO busy VALUES (0, 0, 'late')", "INSERT INTO raw VALUES (0)")
    options: dict[str, Any] = {condition: 0.5, "minimum_tuples": 100}
    if condition == "statistics_age":
        options[condition] = 86400
    run = database.maintain(**options)
    assert {item["object"] for item in run["plan"]} == {"table public.busy", "table public.raw"}
    assert not database.maintain(**options).changed


def test_lost_counters_of_values_out_of_line(database: Database) -> None:
    """An ANALYZE that came after the loss knows the dead rows, and not the dead chunks of TOAST."""
    database.sql(
        "CREATE TABLE papers (id int, body text)",
        "ALTER TABLE papers ALTER body SET STORAGE EXTERNAL",
        "INSERT INTO papers SELECT g, repeat('x', 6000) FROM generate_series(1, 200) g",
    )
    database.sql("VACUUM ANALYZE papers")
    database.sql("SELECT pg_stat_reset()")
    database.sql("ANALYZE papers")
    run = database.maintain(**DEAD)
    assert "TOAST chunks are not known" in run["plan"][0]["why"]
    assert not database.maintain(**DEAD).changed


def test_a_table_that_is_locked_against_readers_is_not_waited_for(database: Database) -> None:
    """The size of a table without counters is asked for; whoever locks it is named."""
    database.sql("CREATE TABLE raw AS SELECT g AS id FROM generate_series(1, 5000) g")
    database.sql("SELECT pg_stat_reset()")
    with contextlib.closing(database.connect(autocommit=False, application="the-locker")) as connection:
        connection.cursor().execute("LOCK TABLE raw IN ACCESS EXCLUSIVE MODE")
        assert "not known" in database.info(**DEAD)["plan"][0]["why"]
        run = database.maintain(**DEAD, lock_timeout=0.2, lock_retries=0, on_blocked="report")
        assert "the-locker" in run["blockers"][0]["holder"]


@pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
def test_locked_table_is_named_with_its_holder_and_the_others_are_done(database: Database, mode: str) -> None:
    """F20, both where VACUUM waits in its turn and where it waits before the first table."""
    for number in range(6):
        database.table(f"t{number}", rows=500)
    with (
        contextlib.closing(database.connect(autocommit=False, application="the-report")) as holder,
        holder.cursor() as cursor,
    ):
        cursor.execute(f"LOCK TABLE t3 IN {mode} MODE")
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
        run = database.maintain(**DEAD, lock_timeout=0.3, on_blocked="report", jobs=1)
        failed = database.maintain(**DEAD, lock_timeout=0.3, lock_retries=0)
    assert run.changed
    assert {entry["object"] for entry in run["done"]} == {f"table public.t{number}" for number in (0, 1, 2, 4, 5)}
    assert [entry["object"] for entry in run["not_done"]] == ["table public.t3"]
    holder_text = run["blockers"][0]["holder"]
    assert f"pid {pid}" in holder_text
    assert "user postgres" in holder_text
    assert "the-report" in holder_text
    assert "idle in transaction" in holder_text
    assert run["blockers"][0]["since"]
    assert [database.vacuums(f"t{number}") for number in range(6)] == [2, 2, 2, 1, 2, 2]
    assert failed.failed
    assert failed.rc != 0
    assert not failed.changed
    assert f"pg_terminate_backend({pid})" in failed.msg
    assert run["diff"]["after"]["table public.t3"] == run["diff"]["before"]["table public.t3"]
    later = database.maintain(**DEAD)
    assert [entry["object"] for entry in later["done"]] == ["table public.t3"]


@pytest.mark.procedure("A11")
@pytest.mark.parametrize("kind", ["snapshot", "prepared"])
def test_useless_vacuum_is_not_repeated(database: Database, kind: str) -> None:
    """Dead rows that an old transaction holds: a VACUUM for those before it, one that proves it, then none until it ends."""
    database.table("other", dead=False)
    database.table("busy", dead=False)
    with (
        contextlib.closing(database.connect(autocommit=False, application="old-report")) as holder,
        holder.cursor() as cursor,
    ):
        if kind == "snapshot":
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM other")
        else:
            cursor.execute("INSERT INTO other VALUES (90001, 1, 'p')")
            cursor.execute(f"PREPARE TRANSACTION 'gid-{database.name}'")
        database.sql("UPDATE busy SET note = 'z' WHERE id % 2 = 0")
        proving = [database.maintain(**DEAD, on_blocked="report") for _ in range(2)]
        blocked = database.maintain(**DEAD, on_blocked="report")
        strict = database.maintain(check=True, **DEAD)
        if kind == "prepared":
            holder.rollback()
            database.sql(f"ROLLBACK PREPARED 'gid-{database.name}'")
    assert proving[0]["plan"][0]["what"] == "VACUUM (ANALYZE)"
    # It was vacuumed after the holder began; but that does not prove that no older holder was there at that time.
    assert [run["plan"][0]["what"] for run in proving[1:]] in (["VACUUM (FREEZE, ANALYZE)"], [])
    assert not blocked.changed, blocked["plan"]
    assert blocked["plan"] == []
    assert database.vacuums("busy") == 3
    who = blocked["blockers"][0]
    assert who["object"] == "table public.busy"
    assert who["since"]
    assert ("old-report" if kind == "snapshot" else f"gid-{database.name}") in who["holder"]
    assert strict.failed
    assert "cannot be removed" in strict.msg
    freed = database.maintain(**DEAD)
    assert freed.changed
    assert database.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'busy'") == 0


def test_logical_slot_holds_catalogs_and_not_tables(database: Database) -> None:
    database.sql(f"SELECT pg_create_logical_replication_slot('slot_{database.name}', 'pgoutput')")
    try:
        database.table("busy")
        run = database.maintain(**DEAD)
        assert run.changed
        assert run["blockers"] == []
        database.sql(*["CREATE TABLE churn (id int, a int, b int)", "DROP TABLE churn"] * 60)
        options: dict[str, Any] = {
            "dead_tuple_ratio": 0.05,
            "minimum_tuples": 100,
            "system_catalogs": True,
            "tables": ["pg_catalog.pg_attribute"],
            "on_blocked": "report",
        }
        held = database.maintain(**options)
        if database.server.version < 15:
            # A plain VACUUM moves relfrozenxid only from 15 on; the next one freezes, which is the proof.
            assert f"slot_{database.name}" in held["not_done"][0]["why"]
            held = database.maintain(**options)
        assert any(f"slot_{database.name}" in blocker["holder"] for blocker in held["blockers"])
        assert not database.maintain(**options).changed
    finally:
        database.sql(f"SELECT pg_drop_replication_slot('slot_{database.name}')")


def test_names_are_data(database: Database) -> None:
    """F38: identifiers are quoted by the driver, whatever they say."""
    database.table("canary", dead=False)
    for name in AWKWARD:
        database.table(name)
    run = database.maintain(**DEAD)
    assert len(run["done"]) == len(AWKWARD)
    assert database.one("SELECT count(*) FROM canary") == 2000
    assert not database.maintain(**DEAD).changed
    database.sql(sql.SQL("UPDATE {} SET note = 'q' WHERE id % 2 = 0").format(sql.Identifier("with space")))
    one = database.maintain(**DEAD, tables=['public."with space"'], exclude=["canary"])
    assert [entry["object"] for entry in one["done"]] == ['table public."with space"']


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tables": ["nosuch"]}, "there is no such table"),
        ({"tables": ["bussy"]}, "Did you mean public.busy"),
        ({"tables": ['x"; DROP TABLE busy']}, "it is not the name of a table"),
        ({"tables": []}, "the list is empty"),
        ({"tables": ["a_view"]}, "it is a view"),
        ({"schemas": ["pubic"]}, "Did you mean public"),
        ({"dead_tuple_ratio": 10}, "not a ratio"),
        ({"dead_tuple_ratio": None}, "nothing to decide by"),
        ({"jobs": 0}, "less than 1"),
        ({"lock_timeout": 0}, "option lock_timeout"),
        ({"system_identifier": "1"}, "another cluster"),
    ],
)
def test_refusals_change_nothing(database: Database, options: dict[str, Any], says: str) -> None:
    database.table("busy")
    database.sql("CREATE VIEW a_view AS SELECT 1 AS one")
    run = database.maintain(**{**DEAD, **options})
    assert run.failed
    assert run["error"]["refused"]
    assert says in run.msg
    assert run["error"]["next_step"]
    assert database.vacuums("busy") == 1


def test_not_the_owner(database: Database) -> None:
    database.table("busy")
    role = f"reader_{database.name}"
    database.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'only-reads'", f"GRANT CONNECT ON DATABASE {database.name} TO {role}"
    )
    try:
        run = database.maintain(**DEAD, login_user=role, login_password="only-reads", on_blocked="report")  # noqa: S106 - a role of this test
        assert not run.changed
        assert run["plan"] == []
        assert "no permission to maintain it" in run["not_done"][0]["why"]
    finally:
        database.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_time_budget_leaves_what_does_not_fit(database: Database) -> None:
    database.table("small", rows=400)
    database.table("large", rows=2000)
    database.table("first", rows=3000)
    # The size that an estimate is made of: 40 s by the assumed rate.
    database.sql("UPDATE pg_class SET relpages = 512000 WHERE relname IN ('first', 'large')")
    budget = {**DEAD, "time_budget": 60, "jobs": 1}
    assert database.maintain(check=True, **budget).failed
    run = database.maintain(**budget, on_blocked="report")
    assert {entry["object"] for entry in run["done"]} == {"table public.small", "table public.first"}
    assert run["blockers"][0]["holder"] == "time_budget of 60 s"
    assert [entry["object"] for entry in run["not_done"]] == ["table public.large"]
    assert "time budget of 60 s" in run["not_done"][0]["why"]
    assert database.vacuums("large") == 1
    # What is longer than the whole budget is not starved for ever: it comes last.
    database.sql(
        "UPDATE pg_class SET relpages = 13107200 WHERE relname = 'large'",
        "UPDATE small SET note = 'z' WHERE id % 2 = 0",
    )
    last = database.maintain(**budget)
    assert [entry["object"] for entry in last["done"]] == ["table public.small", "table public.large"]


def test_second_run_beside_the_first_is_refused(database: Database) -> None:
    """F2: while one run waits for a lock, another one names it and does nothing."""
    database.table("busy")
    with contextlib.closing(database.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE busy IN SHARE MODE")
        first = start_module("pg_maintenance", {**database.server.params(database.name), **DEAD, "lock_timeout": 60})
        until(database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
        second, rehearsal = database.maintain(**DEAD), database.maintain(check=True, **DEAD)
        holder.rollback()
    for refused in (second, rehearsal):
        assert refused["error"]["refused"]
        assert "another maintenance run" in refused.msg
        assert "lowtide.ops pg_maintenance" in refused.msg
    assert finish_module(first).changed
    assert database.vacuums("busy") == 2


def test_diff_is_told_when_it_is_asked_for(database: Database) -> None:
    database.table("busy")
    params = {**database.server.params(database.name), **DEAD}
    silent = run_module("pg_maintenance", params, check=True, diff=False)
    assert silent.changed
    assert "diff" not in silent.result
    assert "table public.busy" in run_module("pg_maintenance", params, check=True)["diff"]["before"]
    assert "diff" not in run_module("pg_maintenance", params, diff=False).result
    assert not database.maintain(**DEAD).changed


def _settings(database: Database) -> Settings:
    defaults = {name: option.get("default") for name, option in CONNECTION_SPEC.items()}
    return settings_from({**defaults, **database.server.params(database.name)})


@pytest.mark.parametrize(
    ("jobs", "sizes", "wide"),
    [
        (2, [5, 5, 5, 5], []),
        (2, [50, 5, 5, 5], [50]),  # longer than all the rest: the others would wait for it
        (2, [5], [5]),
        (1, [5, 6], [5, 6]),  # nobody works beside it
        (2, [0, 0], []),
    ],
)
def test_sessions_side_by_side_leave_parallel_workers_to_what_is_longest(
    database: Database, jobs: int, sizes: list[int], wide: list[int]
) -> None:
    seen: dict[int, tuple[str, str]] = {}

    def look(session: Session, size: int) -> list[int]:
        seen[size] = session.query(
            "SELECT current_setting('max_parallel_maintenance_workers'), current_setting('synchronous_commit')"
        )[0]
        return []

    limits = Limits(jobs=jobs, lock_timeout=1, index_wait_timeout=1, retries=0, budget=None, timeout=None)
    settings, deadline = _settings(database), Deadline(60)
    with (
        Session(settings, module="test", run_id="1") as deciding,
        WorkerPool(settings, limits, module="test", run_id="1", deadline=deadline, deciding=deciding) as pool,
    ):
        pool.run(sizes, look, size=float)
    assert {size for size, (workers, _commit) in seen.items() if workers != "0"} == set(wide)
    assert {commit for _workers, commit in seen.values()} == {"off"}
