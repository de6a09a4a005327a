# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance on servers and with roles of all kinds: settings, collations, encodings, rights, a pooler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from support.modules import finish_module, run_module, start_module

from .conftest import Database, until
from .test_pg_maintenance_indexes import COMPACT, _waste

DEAD: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100}


@pytest.fixture
def holder(database: Database) -> Iterator[Any]:
    """A session in a transaction, for what stands in the way."""
    with contextlib.closing(database.connect(autocommit=False, application="the-holder")) as connection:
        yield connection
        connection.rollback()


def test_insert_only_tables(database: Database) -> None:
    """Rows that are never updated or deleted are marked as visible to all by a VACUUM only."""
    database.table("log", dead=False)
    database.sql("INSERT INTO log SELECT g, 1, 'n' FROM generate_series(5001, 7000) g")
    run = database.maintain(inserted_tuple_ratio=0.2, minimum_tuples=100)
    assert [item["what"] for item in run["plan"]] == ["VACUUM"]
    assert "inserted since the last VACUUM" in run["plan"][0]["why"]
    assert not database.maintain(inserted_tuple_ratio=0.2, minimum_tuples=100).changed


def test_track_counts_off_is_refused(database: Database) -> None:
    """M16: all that is counted would count as lost, in every run."""
    database.sql(f"ALTER DATABASE {database.name} SET track_counts = off")
    run = database.maintain(**DEAD)
    assert run["error"]["refused"]
    assert "track_counts" in run.msg


@pytest.mark.procedure("B8")
def test_collation_versions(database: Database) -> None:
    """After an update of the operating system: all indexes by the collation, then the note of its version."""
    database.sql(
        'CREATE TABLE words (id int PRIMARY KEY, word text, plain text COLLATE "C")',
        "CREATE COLLATION mine (provider = icu, locale = 'en')",
        "CREATE INDEX words_word ON words (word COLLATE mine)",
        "CREATE INDEX words_lower ON words ((lower(word COLLATE mine) = 'x'))",
        "CREATE INDEX words_plain ON words (plain)",
        "INSERT INTO words SELECT g, 'w' || g, 'p' FROM generate_series(1, 1000) g",
        "UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'mine'",
    )
    reported = database.maintain(collation_versions="report")
    assert reported.failed
    assert "REFRESH VERSION" in reported.msg
    assert not reported.changed
    assert database.info(collation_versions="report")["blockers"] == reported["blockers"]
    database.sql("CREATE TABLE more (word text)", "CREATE INDEX more_word ON more (word COLLATE mine)")
    part = database.maintain(collation_versions="refresh", exclude=["more"], on_blocked="report")
    assert not part.changed
    assert "not in it" in part["blockers"][0]["next_step"]
    run = database.maintain(collation_versions="refresh")
    assert {item["object"] for item in run["plan"][:-1]} == {
        f"index public.{name}" for name in ("words_word", "words_lower", "more_word")
    }
    assert run["plan"][-1]["object"] == "collation public.mine"
    assert len(run["done"]) == 4
    assert not database.maintain(collation_versions="refresh").changed


def test_a_version_is_not_noted_where_tables_are_divided_by_it(database: Database) -> None:
    """Rows may be in the wrong partition, which no rebuild cures."""
    database.sql(
        "CREATE COLLATION mine (provider = icu, locale = 'en')",
        "CREATE TYPE span AS RANGE (subtype = text, collation = mine)",
        "CREATE TABLE spans (s span)",
        "CREATE INDEX spans_s ON spans (s)",
        "UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'mine'",
    )
    planned = database.maintain(collation_versions="refresh", check=True)
    assert {item["object"] for item in planned["plan"]} == {"index public.spans_s", "collation public.mine"}
    database.sql("CREATE TABLE customers (name text COLLATE mine) PARTITION BY RANGE (name)")
    run = database.maintain(collation_versions="refresh", on_blocked="report")
    assert not run.changed
    assert "public.customers" in run["blockers"][0]["next_step"]


def test_what_cannot_be_finished_in_the_time_is_not_begun(database: Database) -> None:
    """Nothing is noted before the end, so that each run would begin anew."""
    database.sql(
        "CREATE COLLATION mine (provider = icu, locale = 'en')",
        "CREATE TABLE words AS SELECT md5(g::text) COLLATE mine AS word FROM generate_series(1, 200000) g",
        *(f"CREATE INDEX words_{number} ON words (word)" for number in range(6)),
        "UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'mine'",
    )
    run = database.maintain(collation_versions="refresh", time_budget=1, jobs=1, on_blocked="report")
    assert not run.changed
    (blocker,) = run["blockers"]
    assert "no time for the rebuild of its 6 indexes" in blocker["what"]
    assert "in one run" in blocker["what"]


CONTAINERS = {
    "domain": "rules",
    "list": "rule[]",
    "list_of_domain": "rules[]",
    "domain_of_range": "spans",
    "list_of_range": "span[]",
    "multirange": "multispan",
    "composite": "comp",
    "nested": "comp2",
    "list_of_composite": "comp[]",
}


def test_indexes_over_whatever_holds_the_collation_inside_are_rebuilt(database: Database) -> None:
    """Once the version is noted, nothing tells an index by the old rules any more; nor rows in the wrong partition."""
    database.sql(
        "CREATE COLLATION mine (provider = icu, locale = 'en')",
        "CREATE TYPE span AS RANGE (subtype = text, collation = mine, multirange_type_name = multispan)",
        "CREATE DOMAIN spans AS span",
        "CREATE TYPE rule AS (name text COLLATE mine)",
        "CREATE DOMAIN rules AS rule",
        "CREATE TYPE comp AS (a span, n int)",
        "CREATE TYPE comp2 AS (c comp)",
        f"CREATE TABLE t (id int, plain text, note text COLLATE mine, s span, {', '.join(map(' '.join, CONTAINERS.items()))})",
        *(f"CREATE INDEX by_{name} ON t ({name})" for name in CONTAINERS),
        "CREATE INDEX by_rows ON t (id) WHERE row(note, 1) < row('m', 1)",
        "CREATE INDEX by_predicate ON t (id) WHERE s < span('a', 'b')",
        "CREATE INDEX by_id ON t (id)",
        "CREATE INDEX by_plain ON t (plain) WHERE plain > 'm'",
        "UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'mine'",
    )
    planned = database.maintain(collation_versions="refresh", check=True)
    by = [*CONTAINERS, "rows", "predicate"]
    assert {item["object"] for item in planned["plan"]} == {
        "collation public.mine",
        *(f"index public.by_{name}" for name in by),
    }
    database.sql("CREATE TABLE divided (s spans, c comp2) PARTITION BY RANGE (c, s)")
    database.sql("CREATE TABLE computed (a text, b text) PARTITION BY LIST ((a < b COLLATE mine))")
    database.sql("CREATE TABLE listed (c comp2) PARTITION BY LIST (c)")
    run = database.maintain(collation_versions="refresh", on_blocked="report")
    assert not run.changed
    (blocker,) = run["blockers"]
    assert "2 tables are divided by it" in blocker["what"]
    assert "public.computed, public.divided " in blocker["next_step"]


def test_collations_that_nothing_is_built_by_are_one_line(database: Database) -> None:
    """An update of the operating system changes hundreds at once."""
    database.sql(
        *(f"CREATE COLLATION c{number} (provider = icu, locale = 'en')" for number in range(3)),
        "UPDATE pg_collation SET collversion = '0.1' WHERE collname ~ '^c[0-9]$'",
    )
    run = database.maintain(collation_versions="report", on_blocked="report")
    assert [blocker["object"] for blocker in run["blockers"]] == ["collation public.c0 and 2 more"]
    assert len(database.maintain(collation_versions="refresh")["done"]) == 3


def test_an_exclude_that_means_no_table_is_a_warning(database: Database) -> None:
    """The table that it was to protect is not."""
    database.sql('CREATE TABLE "AuditLog" (id int)')
    run = database.maintain(**DEAD, exclude=["public.AuditLog"])
    assert 'Did you mean public."AuditLog"?' in str(run["warnings"])


def test_the_version_of_the_database_s_own_collation(database: Database) -> None:
    """From 15 on it is on record too."""
    if int(database.one("SHOW server_version_num")) < 150000:
        assert not database.maintain(collation_versions="refresh").changed
        return
    name = f"{database.name}_icu"
    database.sql(
        f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' ENCODING 'UTF8' LOCALE 'C'"
    )
    try:
        icu = Database(database.server, name)
        icu.table("t", dead=False)
        icu.sql(
            "CREATE TABLE documents (body jsonb, bodies jsonb[])",
            "CREATE INDEX documents_body ON documents (body)",
            "CREATE INDEX documents_bodies ON documents USING gin (bodies)",
            "CREATE INDEX documents_inside ON documents USING gin (body)",
            "CREATE INDEX t_late ON t (id) WHERE note > 'm'",
            "CREATE INDEX t_note ON t (note)",
            f"UPDATE pg_database SET datcollversion = '0.1' WHERE datname = '{name}'",
        )
        run = icu.maintain(collation_versions="refresh")
        assert {item["object"] for item in run["plan"]} == {
            "index public.documents_body",
            "index public.documents_bodies",
            "index public.t_late",
            "index public.t_note",
            f"database {name}",
        }
        assert not run.failed, run.msg
        assert not icu.maintain(collation_versions="refresh").changed
    finally:
        database.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_database_without_an_encoding(database: Database) -> None:
    """Case 18: names in a database of SQL_ASCII are bytes."""
    name = f"{database.name}_legacy"
    database.sql(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    legacy = Database(database.server, name)
    try:
        with contextlib.closing(legacy.connect()) as connection, connection.cursor() as cursor:
            connection.set_client_encoding("LATIN1")
            cursor.execute('CREATE TABLE "straße" (id int)')
            cursor.execute('INSERT INTO "straße" SELECT generate_series(1, 5000)')
            connection.set_client_encoding("SQL_ASCII")
            cursor.execute("SELECT pg_sleep(0.1)")
        legacy.table("plain")
        run = legacy.maintain(**DEAD, statistics_age=86400)
        assert not run.failed, run.msg
        assert len(run["done"]) == 2
        assert not legacy.maintain(**DEAD, statistics_age=86400).changed
    finally:
        database.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_owner_without_the_right_to_see_others(database: Database) -> None:
    """M15: it warns, vacuums, and rebuilds nothing."""
    role = f"owner_{database.name}"
    database.table("busy")
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    database.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'weak'",
        f"ALTER TABLE busy OWNER TO {role}",
        f"ALTER TABLE bloated OWNER TO {role}",
    )
    login: dict[str, Any] = {"login_user": role, "login_password": "weak"}
    try:
        run = database.maintain(**DEAD, **COMPACT, **login, on_blocked="report")
        assert [entry["object"] for entry in run["done"]] == ["table public.busy"]
        assert "pg_read_all_stats" in run["blockers"][0]["next_step"]
        assert "pg_read_all_stats" in str(run["warnings"])
        database.sql(f"GRANT pg_read_all_stats TO {role}")
        assert len(database.maintain(**DEAD, **COMPACT, **login)["done"]) == 2
    finally:
        database.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_the_right_to_maintain(database: Database) -> None:
    """M15: from 17 on it is enough, for indexes as well."""
    has_maintain = int(database.one("SHOW server_version_num")) >= 170000
    role = f"keeper_{database.name}"
    database.table("busy")
    database.table("bloated", rows=40000, dead=False)
    _waste(database, "bloated")
    database.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'weak'",
        f"GRANT {'pg_maintain,' if has_maintain else ''} pg_read_all_stats, pg_read_all_data TO {role}",
    )
    try:
        login: dict[str, Any] = {"login_user": role, "login_password": "weak"}
        run = database.maintain(**DEAD, **COMPACT, **login, on_blocked="report")
        assert len(run["done"]) == (3 if has_maintain else 0)
        assert len(run["not_done"]) == (0 if has_maintain else 3)
    finally:
        database.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_cancelled_command_is_not_begun_again_in_pieces(database: Database, holder: Any) -> None:
    """M16: who cancels a command of many tables has to do it once."""
    for number in range(8):
        database.table(f"t{number}", rows=300)
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE t0 IN SHARE MODE")
        process = start_module(
            "pg_maintenance", {**database.server.params(database.name), **DEAD, "jobs": 1, "lock_timeout": 60.0}
        )
        until(database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
        database.sql(
            # By the lock: the kind of its wait is on record a moment after that, and not while it looks for a deadlock.
            "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        )
        run = finish_module(process)
    assert run.failed
    assert "cancelled" in run.msg
    assert len(run["errors"]) == 1
    refused = run_module("pg_maintenance", {**database.server.params(database.name), **DEAD}, check=True)
    assert any(item["object"] == "table public.t0" for item in refused["plan"])
