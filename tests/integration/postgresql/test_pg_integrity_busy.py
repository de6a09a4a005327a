# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_integrity_info on a database that others work in: what is dropped, locked or cannot be computed is not damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from support.modules import ModuleRun, run_module
from support.postgresql_servers import SUPERUSER, Database, Server, make_database, start_standby

pytestmark = pytest.mark.lab("postgresql_versions")
WAITS = """
SELECT coalesce((SELECT a.query_start::text <> '{since}' FROM pg_stat_activity a JOIN pg_locks l USING (pid)
   WHERE a.datname = current_database() AND a.application_name LIKE 'lowtide.ops pg_integrity_info%' AND NOT l.granted
   LIMIT 1), false)
"""
SINCE = """
SELECT query_start::text FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'lowtide.ops pg_integrity_info%'
"""
TABLES = ("a_first", "gone", "kept")
ENDS = (("table", ""), ("index", "_note"), ("index", "_pkey"))


@pytest.fixture
def busy(owned_database: Database) -> Database:
    """A few sound tables."""
    owned_database.administer("CREATE EXTENSION amcheck")
    for name in TABLES:
        owned_database.sql(
            f"CREATE TABLE {name} (id int PRIMARY KEY, note text)",
            f"INSERT INTO {name} SELECT g, 'canary-' || g FROM generate_series(1, 500) g",
            f"CREATE INDEX {name}_note ON {name} (note)",
        )
    return owned_database


@contextlib.contextmanager
def asking(database: Database, **options: Any) -> Iterator[Future[ModuleRun]]:
    """The module at work."""
    params = {**database.server.params(database.name, SUPERUSER), **options}
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run_module, "pg_integrity_info", params)


@pytest.mark.procedure("B22")
@pytest.mark.every_version
def test_what_was_dropped_meanwhile_is_not_damaged(busy: Database) -> None:
    """Listed, and dropped before its turn; what has taken the place of an index is looked at."""
    with contextlib.closing(busy.connect(autocommit=False)) as session:
        session.cursor().execute("DROP TABLE gone; DROP INDEX kept_note; CREATE INDEX kept_note ON kept (note)")
        with asking(busy) as answer:
            busy.wait_until(WAITS.format(since=""))
            session.commit()
            run = answer.result()
    assert not run.failed, run.msg
    assert (run["status"], run["damaged"], run["unchecked"]) == ("whole", [], [])
    assert run["gone"] == [*(f"{kind} public.gone{end}" for kind, end in ENDS), "index public.kept_note"]
    assert "4 relations dropped meanwhile" in run["summary"]
    kept = {f"{kind} public.{name}{end}" for name in ("a_first", "kept") for kind, end in ENDS}
    assert sorted(run["checked"]) == sorted(kept)


@pytest.mark.procedure("B22")
def test_a_locked_table_does_not_take_the_time_of_the_others(busy: Database) -> None:
    """Its holder is named, once for the table with its indexes; all the others are read."""
    with contextlib.closing(busy.connect(autocommit=False, application="migration")) as session:
        session.cursor().execute("LOCK TABLE a_first")
        with asking(busy, timeout=6) as answer:
            run = answer.result()
    assert not run.failed, run.msg
    assert (run["status"], run["damaged"]) == ("unproven", [])
    assert sorted(run["checked"]) == sorted(f"{kind} public.{name}{end}" for name in TABLES[1:] for kind, end in ENDS)
    assert {entry["object"]: entry["cause"] for entry in run["unchecked"]} == {
        f"{kind} public.a_first{end}": "lock" for kind, end in ENDS
    }
    (blocker,) = run["blockers"]
    assert "it is locked by" in blocker["what"]
    assert "migration" in blocker["what"]
    assert "pg_terminate_backend" in blocker["next_step"]


def test_a_table_is_come_back_to_when_its_lock_is_over(busy: Database) -> None:
    """It was not to be had at first."""
    with contextlib.closing(busy.connect(autocommit=False)) as session:
        session.cursor().execute("LOCK TABLE a_first")
        with asking(busy) as answer:
            busy.wait_until(WAITS.format(since=""))
            ((since,),) = busy.administer(SINCE)
            busy.wait_until(WAITS.format(since=since))
            session.rollback()
            run = answer.result()
    assert (run["status"], run["unchecked"]) == ("whole", []), run.result
    assert len(run["checked"]) == len(TABLES) * len(ENDS)


@pytest.mark.procedure("B22")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("BEGIN RAISE EXCEPTION 'no key of %', note; END", "P0001"),
        pytest.param("BEGIN RETURN length(nosuch(note)); END", "42883", marks=pytest.mark.sweep),
        pytest.param("BEGIN RETURN note::int; END", "22P02", marks=pytest.mark.sweep),
    ],
)
def test_an_index_whose_function_fails_is_not_damaged(busy: Database, body: str, code: str) -> None:
    """Nor proven to be whole; the values that the function complains of are not shown."""
    function = "CREATE OR REPLACE FUNCTION public.key(note text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ {} $$"
    busy.sql(function.format("BEGIN RETURN 1; END"), "CREATE INDEX kept_key ON kept (public.key(note))")
    busy.sql(function.format(body))
    with asking(busy) as answer:
        run = answer.result()
    assert (run["status"], run["damaged"]) == ("unproven", []), run.result
    (entry,) = run["unchecked"]
    assert (entry["object"], entry["cause"]) == ("index public.kept_key", "error")
    assert code in entry["reason"]
    assert "canary" not in str(run.result)


def test_an_extension_from_before_an_upgrade_is_told(busy: Database) -> None:
    """It knows no tables, so that nothing would be known of them."""
    busy.administer("DROP EXTENSION amcheck", "CREATE EXTENSION amcheck VERSION '1.2'")
    with asking(busy) as answer:
        run = answer.result()
    assert run["status"] == "unproven", run.result
    assert {entry["object"]: entry["cause"] for entry in run["unchecked"]} == {
        f"table public.{name}": "extension" for name in TABLES
    }
    assert "ALTER EXTENSION amcheck UPDATE" in run["blockers"][0]["next_step"]


@pytest.mark.every_version
@pytest.mark.parametrize("own_server", ["15"], indirect=True)
def test_a_standby_has_no_rows_of_an_unlogged_table(own_server: Server, unique_name: Callable[..., str]) -> None:
    """The server skips it there without a word."""
    with make_database(own_server, unique_name) as database:
        database.administer("CREATE EXTENSION amcheck", "CREATE UNLOGGED TABLE hasty (id int PRIMARY KEY)")
        database.administer("INSERT INTO hasty VALUES (1)", "CREATE TABLE logged (id int)")
        with start_standby(own_server) as standby:
            there = Database(standby, database.name)
            there.wait_until("SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'logged')")
            run = run_module("pg_integrity_info", standby.params(database.name, SUPERUSER))
    assert (run["status"], run["checked"]) == ("unproven", ["table public.logged"]), run.result
    assert {entry["object"]: entry["cause"] for entry in run["unchecked"]} == {
        "table public.hasty": "unlogged",
        "index public.hasty_pkey": "unlogged",
    }
