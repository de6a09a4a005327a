# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pg_query_info returns, and what the server keeps it from doing, on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2 import sql

from support.modules import ModuleRun, run_module

from .conftest import PASSWORD, Database, until

pytestmark = pytest.mark.lab("postgresql")


def ask(database: Database, query: str, *, check: bool = False, **options: Any) -> ModuleRun:
    """Run the module on the test's database, without what a server would need to be told twice."""
    return run_module(
        "pg_query_info", {**database.server.params(database.name), "query": query, **options}, check=check
    )


@pytest.fixture
def reader(database: Database, unique_name: Callable[..., str]) -> Iterator[str]:
    """A role that may connect, and nothing else; its transactions are read only by default."""
    name = unique_name("reader", separator="_")
    role = sql.Identifier(name)
    database.sql(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(PASSWORD)),
        sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(role),
    )
    yield name
    database.sql(sql.SQL("DROP OWNED BY {}").format(role), sql.SQL("DROP ROLE {}").format(role))


TYPES = """
SELECT 1::smallint AS small, 9007199254740993::bigint AS big, 1.10::numeric AS exact, sum(g) AS total,
       0.1::float8 AS approximate, 'NaN'::float8 AS nan, true AS yes, NULL::int AS nothing, 'é''%'::text AS words,
       '{"a": [1, null]}'::jsonb AS document, '\\x00ff'::bytea AS bytes, '{1,NULL}'::int[] AS numbers,
       timestamptz '2026-11-26 03:00:00.5+01' AS moment, timestamp '2026-11-26 03:00' AS wall, date '2026-11-26' AS day,
       'infinity'::timestamptz AS never, date '0044-03-15 BC' AS ides, interval '1 month 2 days' AS span,
       ARRAY[timestamptz '2026-11-26 03:00Z'] AS moments, int4range(1, 5) AS range, inet '192.0.2.1' AS address,
       '00000000-0000-0000-0000-000000000001'::uuid AS id
  FROM generate_series(1::bigint, 3) AS g
"""


def test_values_arrive_without_loss(database: Database) -> None:
    """Each type that the documentation names; check mode makes no difference."""
    database.sql(sql.SQL("ALTER DATABASE {} SET timezone = 'UTC'").format(sql.Identifier(database.name)))
    run = ask(database, TYPES)
    assert not run.failed, run.msg
    (row,) = run["rows"]
    assert row == {
        "small": 1,
        "big": 9007199254740993,
        "exact": "1.10",
        "total": 6,
        "approximate": 0.1,
        "nan": "NaN",
        "yes": True,
        "nothing": None,
        "words": "é'%",
        "document": {"a": [1, None]},
        "bytes": "\\x00ff",
        "numbers": [1, None],
        "moment": "2026-11-26T02:00:00.5Z",
        "wall": "2026-11-26T03:00:00",
        "day": "2026-11-26",
        "never": "infinity",
        "ides": "0044-03-15 BC",
        "span": "1 mon 2 days",
        "moments": ["2026-11-26T03:00:00Z"],
        "range": "[1,5)",
        "address": "192.0.2.1",
        "id": "00000000-0000-0000-0000-000000000001",
    }
    assert run["columns"] == list(row)
    assert (run["row_count"], run.changed, run["summary"]) == (1, False, f"1 row from database {database.name}")
    assert run["system_identifier"] == database.server.system_identifier
    assert (run["database"], run["in_recovery"]) == (database.name, False)
    assert run["server_version"].startswith(f"{database.server.version}.")
    checked = ask(database, TYPES, check=True)
    assert checked["rows"] == run["rows"]
    assert checked["check_mode"]


@pytest.mark.procedure("C19")
def test_the_size_of_the_named_database(database: Database) -> None:
    """In bytes, so that a limit can be compared with it, and of the database that was meant."""
    database.sql("CREATE TABLE big AS SELECT g, repeat('x', 100) AS note FROM generate_series(1, 20000) g")
    size = "SELECT pg_database_size(current_database()) AS bytes"
    run = ask(database, size)
    assert run["database"] == database.name
    # The server keeps a file of its own beside the tables, which comes and goes.
    assert run["rows"] == [{"bytes": pytest.approx(database.one(size), rel=0.05)}]
    assert run["rows"][0]["bytes"] > database.one("SELECT pg_database_size('template1')") + 2**20


def test_a_statement_without_rows_in_it_has_none(database: Database) -> None:
    """An empty answer has its columns."""
    run = ask(database, "SELECT 1 AS a WHERE false")
    assert (run["rows"], run["row_count"], run["columns"]) == ([], 0, ["a"])


def test_values_are_never_sql(database: Database) -> None:
    """Quotes, statements, percent signs, NULL, lists and JSON come back as they went in."""
    evil = "x'; DROP TABLE t; -- %(other)s \\ \n"
    run = ask(
        database,
        "SELECT %(text)s AS text, %(none)s::int AS none, %(list)s AS list, %(doc)s::jsonb AS doc, 5 %% 3 AS rest,"
        " (%(rows)s::jsonb)->1->>'topic' AS topic",
        values={
            "text": evil,
            "none": None,
            "list": [1, 2],
            "doc": {"a": evil},
            "rows": [{"topic": "a"}, {"topic": "b"}],
            "other": "unused",
        },
    )
    assert not run.failed, run.msg
    assert run["rows"] == [
        {"text": evil, "none": None, "list": [1, 2], "doc": {"a": evil}, "rest": 2, "topic": "b"},
    ]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT %(nosuch)s", "it uses %(nosuch)s, and values has only given"),
        ("SELECT 'a%' || %(given)s", "its values cannot be bound"),
        ("SELECT %s", "its values cannot be bound"),
    ],
)
def test_values_that_do_not_fit_are_refused(database: Database, query: str, problem: str) -> None:
    """A name that is missing, a percent sign that should have been doubled, a placeholder without a name."""
    run = ask(database, query, values={"given": "x"})
    assert run.failed
    assert problem in run["error"]["problem"]
    assert "option query" in run["error"]["object"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("INSERT INTO t VALUES (2) RETURNING a", "25006"),
        ("WITH gone AS (DELETE FROM t RETURNING a) SELECT * FROM gone", "25006"),
        ("SELECT add_row()", "25006"),
        ("SELECT a FROM t FOR UPDATE", "25006"),
        ("SELECT nextval('s')", "25006"),
        ("SELECT set_config('transaction_read_only', 'off', true), add_row()", "25001"),
        ("DELETE FROM t", "42P11"),
        ("DROP TABLE t", "42P11"),
        ("COMMIT", "42P11"),
        ("SELECT 1; SELECT 2", "42P11"),
        ("SELECT 1; COMMIT; DELETE FROM t", "42P11"),
        ("COMMIT; BEGIN READ WRITE; DELETE FROM t; COMMIT", "42P11"),
        ("-- nothing but a comment", "42P11"),
    ],
)
def test_the_server_refuses_whatever_writes(database: Database, query: str, code: str) -> None:
    """Also out of a function, and after leaving the transaction; the table and the sequence are as before."""
    database.sql(
        "CREATE TABLE t (a int)",
        "INSERT INTO t VALUES (1)",
        "CREATE SEQUENCE s",
        "CREATE FUNCTION add_row() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (3) RETURNING a'",
    )
    run = ask(database, query)
    assert run.failed
    assert f"SQLSTATE {code}" in run["error"]["problem"]
    assert run["error"]["next_step"].startswith("Give")
    assert "rows" not in run.result
    assert database.sql("SELECT a FROM t") == [(1,)]
    assert database.one("SELECT is_called FROM s") is False


def test_the_session_is_read_only_too(database: Database) -> None:
    """Whatever the role and the database have it set to."""
    name = sql.Identifier(database.name)
    database.sql(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = off").format(name))
    question = (
        "SELECT current_setting('default_transaction_read_only') AS session,"
        " current_setting('transaction_read_only') AS own"
    )
    assert ask(database, question)["rows"] == [{"session": "on", "own": "on"}]


@pytest.mark.parametrize("query", ["SELECT 1;", "SELECT ';' AS a, $$;$$ AS b -- ;\n", "SHOW work_mem", "VALUES (1)"])
def test_one_statement_is_one_statement(database: Database, query: str) -> None:
    """A semicolon at the end, in a string or in a comment does not make two of it."""
    run = ask(database, query)
    assert not run.failed, run.msg
    assert run["row_count"] == 1


def test_one_row_too_many_is_an_error(database: Database) -> None:
    """Exactly as many as allowed are returned; one more, and millions more, are told and cost nothing."""
    assert ask(database, "SELECT generate_series(1, 5) AS n", max_rows=5)["row_count"] == 5
    run = ask(database, "SELECT generate_series(1, 100000000) AS n", max_rows=5)
    assert run.failed
    assert "more than 5 rows (max_rows)" in run["error"]["problem"]
    assert "rows" not in run.result


@pytest.mark.parametrize("query", ["SELECT pg_sleep(600)", "SELECT * FROM locked"])
def test_the_server_ends_what_takes_too_long(database: Database, query: str) -> None:
    """Work, and waiting for a lock."""
    database.sql("CREATE TABLE locked (a int)")
    holder = database.connect(autocommit=False)
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE locked")
    begun = time.monotonic()
    run = ask(database, query, timeout=0.3)
    holder.close()
    assert run.failed
    assert "statement timeout" in run["error"]["problem"]
    assert "timeout" in run["error"]["next_step"]
    assert time.monotonic() - begun < 60
    # The server ends its session a moment after the client has gone.
    until(database, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name ~ 'pg_query_info'")


def test_another_cluster_is_refused(database: Database) -> None:
    """By its identity, before the statement is sent."""
    run = ask(database, "SELECT pg_notify('never', 'sent')", system_identifier="1")
    assert run.failed
    assert database.server.system_identifier in run.msg
    assert "system_identifier" in run["error"]["next_step"]
    assert not ask(database, "SELECT 1", system_identifier=database.server.system_identifier).failed


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT *\n  FROM nosuch", "at line 2, column 8, near 'nosuch': relation \"nosuch\" does not exist"),
        ("SELEC 1", "at line 1, column 1, near 'SELEC': syntax error"),
        ("SELECT 1/0", "the server refused the statement: division by zero (SQLSTATE 22012)"),
        ("SELECT broken()", 'relation "gone" does not exist'),
        ("SELECT 1 AS a, 2 AS b, 3 AS a", "more than one column named a"),
    ],
)
def test_bad_sql_is_told_in_the_servers_words(database: Database, query: str, problem: str) -> None:
    """With the place in the statement, unless the mistake is in a function that it calls."""
    database.sql(
        "CREATE FUNCTION broken() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM gone); END'"
    )
    run = ask(database, query)
    assert run.failed
    assert problem in run["error"]["problem"]
    assert ("at line" in run["error"]["problem"]) == (problem.startswith("at line"))
    assert database.name in run["error"]["object"]


def test_a_wrong_password_is_told_and_hidden(database: Database) -> None:
    """As everywhere."""
    run = ask(database, "SELECT 1", login_password="wrong-canary")  # noqa: S106 - not a secret
    assert run.failed
    assert "refused the password" in run.msg
    assert "canary" not in json.dumps(run.result)


def test_a_restricted_role_reads_what_it_may(database: Database, reader: str) -> None:
    """It needs no more than CONNECT and what the statement reads; what is missing is named by the server."""
    database.sql("CREATE TABLE secret (a int)", "CREATE TABLE open (a int)")
    database.sql("INSERT INTO open VALUES (1)", sql.SQL("GRANT SELECT ON open TO {}").format(sql.Identifier(reader)))
    assert ask(database, "SELECT a FROM open", login_user=reader)["rows"] == [{"a": 1}]
    run = ask(database, "SELECT a FROM secret", login_user=reader)
    assert run.failed
    assert "permission denied for table secret" in run["error"]["problem"]
    assert "Grant login_user" in run["error"]["next_step"]


def test_names_are_looked_up_as_the_role_has_it(database: Database, reader: str) -> None:
    """A search_path of the role's own counts."""
    role = sql.Identifier(reader)
    database.sql(
        "CREATE SCHEMA ledger",
        "CREATE TABLE ledger.events (a int)",
        sql.SQL("GRANT USAGE ON SCHEMA ledger TO {}").format(role),
        sql.SQL("GRANT SELECT ON ledger.events TO {}").format(role),
        sql.SQL("ALTER ROLE {} SET search_path = ledger").format(role),
    )
    assert ask(database, "SELECT count(*) AS n FROM events", login_user=reader)["rows"] == [{"n": 0}]


def test_the_primary_of_a_cluster_is_asked_and_on_request_any_member(lab: dict[str, Any]) -> None:
    """A standby alone is refused, or answers with target any; among all members the primary is found."""
    facts = lab["postgresql"]
    options = {
        "login_port": facts["port"],
        "login_user": facts["superuser"],
        "login_db": "postgres",
        "passfile": facts["passfile"],
        "system_identifier": facts["system_identifier"],
        "query": "SELECT 1 AS a",
    }
    found = run_module("pg_query_info", {**options, "login_host": ",".join(facts["hosts"])})
    assert not found.failed, found.msg
    assert not found["in_recovery"]
    (standby, *_others) = [host for host in facts["hosts"] if host != found["server"]]
    assert "standby" in run_module("pg_query_info", {**options, "login_host": standby}).msg
    answer = run_module("pg_query_info", {**options, "login_host": standby, "target": "any"})
    assert (answer["in_recovery"], answer["server"]) == (True, standby)


@pytest.mark.procedure("B7")
def test_slow_statements_are_refused_by_name_where_nothing_counts_them(database: Database) -> None:
    """The extension is not there, or is and its library is not loaded: both are said, and neither is an empty list."""
    slowest = "SELECT mean_exec_time FROM pg_stat_statements ORDER BY 1 DESC LIMIT 1"
    absent = ask(database, slowest)
    assert absent.failed
    assert 'relation "pg_stat_statements" does not exist (SQLSTATE 42P01)' in absent.msg
    database.sql(sql.SQL("CREATE EXTENSION pg_stat_statements"))
    unloaded = ask(database, slowest)
    assert unloaded.failed
    assert "pg_stat_statements must be loaded via" in unloaded.msg
    assert "shared_preload_libraries" in unloaded["error"]["next_step"]
