# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_restore on real servers: beside, compared, swapped, released; what differs is named, and what is not ours is left alone."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.side import find_lock_key
from support import wide_database
from support.backups import make_bucket, quoted
from support.modules import run_module
from support.postgresql_servers import Server, find_server
from support.restores import OWN_PUBLIC, Shop, assert_done, make_shop
from support.s3_proxy import Fault, s3_proxy

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
"""Each difference by itself, not all of them at once."""
EDITS = {
    "table shop.orders: it has 499 rows, not 500": ("DELETE FROM shop.orders WHERE id = 400", ""),
    "table shop.lines: it has as many rows (300), but not the same ones": (
        "UPDATE shop.lines SET note = 'other' WHERE orders = 7",
        "",
    ),
    "sequence shop.counter: it is at 42, where it should be that it is at 41": ("SELECT nextval('shop.counter')", ""),
    "grants on TABLE shop.orders: missing is GRANT SELECT ON TABLE shop.orders TO {reader};": (
        "REVOKE SELECT ON shop.orders FROM {reader}",
        "",
    ),
    "schema shop: missing is ALTER SCHEMA shop OWNER TO {owner};": (
        "ALTER SCHEMA shop OWNER TO {account}",
        "not expected is ALTER SCHEMA shop OWNER TO {account};",
    ),
    "extension citext: it is missing": ("DROP EXTENSION citext", ""),
    "large object 900001: its content is another": ("SELECT lo_put(900001, 5, 'x')", ""),
    "large object 900002: it is missing": ("SELECT lo_unlink(900002)", ""),
    "constraint shop.lines lines_orders_fkey: it is missing": (
        "ALTER TABLE shop.lines DROP CONSTRAINT lines_orders_fkey",
        "",
    ),
    "database: missing is ALTER DATABASE {name} SET work_mem TO '5MB';": (
        "ALTER DATABASE {copy} RESET work_mem",
        "not expected is ALTER ROLE {reader} IN DATABASE {name} SET work_mem TO '7MB';",
    ),
    "function shop.twice(integer): missing is": (
        "CREATE OR REPLACE FUNCTION shop.twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 3 * i'",
        "",
    ),
}
"""What is found when the copy was changed by a statement, and what else has to be said then."""


def hold(shop: Shop, database: str, application: str) -> Any:
    """A session in a database, as an application has one."""
    facts = shop.site.lab["postgresql"]
    return psycopg2.connect(
        host=shop.server.host,
        port=shop.server.port,
        user=facts["superuser"],
        passfile=facts["passfile"],
        dbname=database,
        application_name=application,
    )


@pytest.mark.procedure("A24", "B20", "C21")
def test_a_backup_takes_the_place_of_the_live_database(shop: Shop) -> None:
    """Predicted and done, each state, by an account that may do no more; a second run has nothing to do; nothing is lost."""
    site, original = shop.site, shop.oid(shop.name)
    site.sql("DELETE FROM shop.orders WHERE id > 400")  # why it is to be restored
    for state, own in (("beside", {}), ("live", {"backup": shop.run_id})):
        options: dict[str, Any] = {"state": state, **own}
        before = shop.databases()
        predicted = shop.restore(check=True, **options)
        assert_done(predicted)
        assert shop.databases() == before
        done = shop.restore(**options)
        assert_done(done)
        assert (predicted["plan"], predicted["diff"]) == (done["plan"], done["diff"])
        assert done["diff"]["after"]["databases"] == shop.databases()
        assert done["compared"] == [
            f"backup {shop.run_id}: rows, sequences, large objects, definitions, owners, grants, extensions, settings"
        ]
        for check in (True, False) if state == "live" else (False,):
            again = shop.restore(check=check, **options)
            assert not again.failed, again.msg
            assert not again.changed
            assert again["plan"] == []
            if state == "live":
                assert "what was written since was not compared" in again["summary"]
                assert again["live_since"] in again["not_compared"][0]
    assert done["summary"] == f"backup {shop.run_id} has taken the place of {shop.name}, which is kept as {shop.kept}"
    assert (shop.count(), shop.count(database=shop.kept), shop.oid(shop.kept)) == (500, 400, original)
    question = """SELECT datdba::regrole::text, datacl::text, datconnlimit, datallowconn, setconfig::text,
                  shobj_description(d.oid, 'pg_database')
                  FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = """
    ours, theirs = (site.sql(f"{question}'{name}'", database="postgres")[0] for name in (shop.name, shop.kept))
    assert ours[:-1] == theirs[:-1]
    assert ours[2] == 20
    assert ours[-1].startswith("the shop\n\nof the team\nlowtide.ops pg_restore {")
    # A person lets the original go; then there is nothing left to let go, and no copy to remove.
    for state in ("released", "absent"):
        predicted = shop.restore(check=True, state=state, backup=shop.run_id)
        gone = shop.restore(state=state, backup=shop.run_id)
        assert not gone.failed, gone.msg
        assert predicted.changed is gone.changed is (state == "released")
        assert not shop.restore(state=state, backup=shop.run_id).changed
    assert shop.databases() == [shop.name]


@pytest.mark.procedure("A24", "C21", "D19")
@pytest.mark.parametrize("edits", [[edit] for edit in EDITS] if EXHAUSTIVE else [list(EDITS)], ids=len)
def test_each_difference_is_named(shop: Shop, edits: list[str]) -> None:
    """F30: a row, a value, a sequence, a grantee, an owner, an extension, a large object, a definition; it does not go live."""
    assert_done(shop.restore())
    names = {"owner": shop.owner, "reader": shop.reader, "account": shop.account, "name": shop.name, "copy": shop.copy}
    shop.site.sql(f"ALTER ROLE {shop.reader} IN DATABASE {shop.copy} SET work_mem TO '7MB'", database="postgres")
    for edit in edits:
        shop.site.sql(EDITS[edit][0].format(**names), database=shop.copy)
    run = shop.restore(state="live", backup=shop.run_id)
    assert run.failed
    assert not run.changed
    assert "has not taken the live name" in run.msg
    words = [f"{entry['object']}: {entry['what']}" for entry in run["differences"]]
    for edit in edits:
        assert any(edit.format(**names) in entry and EDITS[edit][1].format(**names) in entry for entry in words), words
    assert shop.databases() == sorted([shop.name, shop.copy])


@pytest.mark.procedure("A24", "D19")
def test_the_original_is_compared_where_that_is_asked(shop: Shop) -> None:
    """A row that was written since is named; a quiet original is equal."""
    same = shop.restore(compare_with="original")
    assert_done(same)
    assert [entry.partition(":")[0] for entry in same["compared"]] == [f"backup {shop.run_id}", f"original {shop.name}"]
    shop.site.sql("INSERT INTO shop.empty VALUES (1)")
    shop.site.sql(f"GRANT SELECT ON shop.lines TO {shop.reader}")
    run = shop.restore(compare_with="original")
    assert run.failed
    assert "It is as the backup has it" in run.msg
    comment = shop.site.sql(f"SELECT shobj_description({shop.oid(shop.copy)}, 'pg_database')")[0][0]
    assert '"since": "20' in comment  # the copy is proven to be as its backup all the same
    assert f"2 differences from original {shop.name}" in run.msg
    assert "table shop.empty: it has 0 rows, not 1" in run.msg
    assert f"missing is GRANT SELECT ON TABLE shop.lines TO {shop.reader};" in run.msg


@pytest.mark.procedure("C21", "A24")
def test_a_live_database_in_use_is_refused_or_left_first(shop: Shop) -> None:
    """F31: the session is named; ended only where that was asked, and clients come back to the copy."""
    assert_done(shop.restore())
    both = sorted([shop.name, shop.copy])
    with closing(hold(shop, shop.name, "checkout")) as session:
        pid = session.info.backend_pid
        for check in (True, False):
            run = shop.restore(state="live", backup=shop.run_id, check=check)
            assert run["error"]["refused"] is True
            assert f"pid {pid}, user postgres, application checkout" in run.msg
            assert run["blockers"][0]["next_step"] == f"SELECT pg_terminate_backend({pid})"
            assert shop.databases() == both
        if shop.server.version >= OWN_PUBLIC:
            denied = shop.restore(state="live", backup=shop.run_id, sessions="end")
            assert denied["error"]["refused"] is True  # of a superuser: nobody else may end it
            assert f"pid {pid}" in denied.msg
            assert "could not be ended" in denied.msg
            assert shop.kept not in shop.databases()
            with session.cursor() as cursor:
                cursor.execute("SELECT 1")  # it was left as it is, and so were all others
    over, counts, errors = threading.Event(), set[int](), list[str]()

    def work() -> None:
        while not over.is_set():
            try:
                with closing(hold(shop, shop.name, "busy")) as client, client.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM shop.orders")
                    counts.add(cursor.fetchall()[0][0])
            except psycopg2.Error as error:
                errors.append(str(error))

    shop.site.sql("DELETE FROM shop.orders WHERE id > 450")
    thread = threading.Thread(target=work)
    thread.start()
    try:
        done = run_module(
            "pg_restore",
            shop.site.params(
                state="live", backup=shop.run_id, sessions="end", maintenance_db="lowtide", bin_dir=shop.programs
            ),
        )
    finally:
        over.set()
        thread.join()
    assert_done(done)
    assert done["sessions_ended"] >= 0
    assert counts <= {450, 500}
    assert shop.count() == 500
    assert all("terminat" in text or "does not exist" in text for text in errors), errors


@pytest.mark.procedure("C21", "A24")
def test_what_is_not_ours_is_left_alone(shop: Shop) -> None:
    """F31: a database of the copy's name or the original's, whatever is in its comment; and a copy that somebody looks at."""
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        (shop.copy, {}),
        (shop.copy, {"state": "absent", "backup": shop.run_id}),
        (shop.kept, {"state": "live", "backup": shop.run_id}),
        (shop.kept, {"state": "released", "backup": shop.run_id}),
    )
    for name, options in cases:
        shop.site.sql(f"CREATE DATABASE {name} OWNER {shop.account}", database="postgres")
        shop.site.sql(f"COMMENT ON DATABASE {name} IS 'lowtide.ops pg_restore by hand'", database="postgres")
        oid = shop.oid(name)
        run = shop.restore(**options)
        assert run["error"]["refused"] is True, (name, options)
        assert name in run.msg
        assert shop.oid(name) == oid
        assert not run.changed
        shop.drop()
    assert_done(shop.restore())
    with closing(hold(shop, shop.copy, "curious")):
        for state in ("absent", "live"):
            run = shop.restore(state=state, backup=shop.run_id)
            assert run.failed
            assert "application curious" in run.msg
    assert shop.databases() == sorted([shop.name, shop.copy])
    # What a run has created and not marked, when it was killed, is ours.
    shop.drop()
    shop.site.sql(
        f"CREATE DATABASE {shop.copy} OWNER {shop.account} CONNECTION LIMIT {0x4C4F5754}", database="postgres"
    )
    again = shop.restore()
    assert_done(again)
    assert [step["what"] for step in again["plan"]] == ["drop", "restore beside"]


@pytest.mark.procedure("D19", "C21", "B20")
def test_the_first_error_ends_a_restore(shop: Shop, lab: dict[str, Any]) -> None:
    """Where the guides go on over SQL errors and print success: the error is told, and nothing goes live.

    By the newest programs, too, which restore into an older server through psql.
    """
    # A function that finds its table by a search_path: it works until the database is restored.
    for statement in (
        "CREATE TABLE public.rates (i int)",
        "GRANT SELECT ON public.rates TO PUBLIC",
        "CREATE FUNCTION shop.rate(i int) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT count(*) FROM rates); END$$",
        "CREATE TABLE shop.rated (i int, note text, CHECK (shop.rate(i) >= 0))",
        "INSERT INTO shop.rated VALUES (1, 'canary-of-a-row')",
    ):
        shop.site.sql(statement)
    run_id, original = shop.back_up(), shop.oid(shop.name)
    options = shop.site.params(maintenance_db="lowtide", bin_dir=shop.programs, backup=run_id)
    for programs in (shop.programs, lab["postgresql_versions"]["client_programs"]):
        run = run_module("pg_restore", {**options, "bin_dir": programs})
        assert run.failed
        assert 'relation "rates" does not exist' in run.msg
        assert "canary" not in str(run.result)
        assert shop.oid(shop.name) == original
        assert len(shop.databases()) == 2
    # The second one has begun anew; the unfinished copy is ours, and is removed when asked.
    assert run_module("pg_restore", options | {"state": "absent"}).changed
    assert shop.databases() == [shop.name]


@pytest.mark.procedure("D19")
def test_a_damaged_backup_is_not_accepted(shop: Shop) -> None:
    """Also where only the way is bad, and the manifest still holds."""
    key = shop.site.key("dump.pgc.zst")
    body = shop.site.get(key)

    def put(content: bytes) -> None:
        shop.site.client.put_object(Bucket=shop.site.bucket, Key=key, Body=content)

    with s3_proxy(
        shop.site.server["endpoint_url"],
        lambda request: Fault(flip_at=-30) if request.target.endswith("dump.pgc.zst") else None,
    ) as proxy:
        assert shop.restore(endpoint_url=proxy.url).failed
    for content in (body[:-9], body[::-1]):
        put(content)
        run = shop.restore()
        assert run.failed
        assert "dump.pgc.zst" in run.msg
    put(body)
    assert_done(shop.restore())


@pytest.mark.procedure("A24", "C21")
def test_roles_are_named_or_made(shop: Shop) -> None:
    """A server that has lost the reader: refused with its name; made from the globals where that is asked, without more."""
    shop.site.sql(f"REVOKE ALL ON shop.orders FROM {shop.reader}; REVOKE ALL ON SCHEMA shop FROM {shop.reader}")
    shop.site.sql(f"REVOKE ALL ON DATABASE {quoted(shop.name)} FROM {shop.reader}; DROP ROLE {shop.reader}")
    for check in (True, False):
        run = shop.restore(check=check)
        assert run["error"]["refused"] is True
        assert f"1 role of it is not on this server: {shop.reader}" in run.msg
        assert "roles to created" in run.msg
    options = shop.site.params(maintenance_db="lowtide", bin_dir=shop.programs, roles="created")
    made = run_module("pg_restore", options)
    assert_done(made)
    assert made["plan"][0]["what"] == f"create {shop.reader}"
    grants = shop.site.sql(f"SELECT has_table_privilege('{shop.reader}', 'shop.orders', 'SELECT')", database=shop.copy)
    assert grants == [(True,)]


@pytest.mark.procedure("C21", "A24")
def test_a_lost_database_comes_back(shop: Shop, lab: dict[str, Any]) -> None:
    """Where nothing has the live name the copy gets it; on another server, the cluster that it was of is asked for."""
    shop.site.sql(f"DROP DATABASE {quoted(shop.name)}", database="postgres")
    done = shop.restore(state="live", backup=shop.run_id)
    assert_done(done)
    assert (done["kept"], shop.databases(), shop.count()) == (None, [shop.name], 500)
    assert not shop.restore(state="live", backup=shop.run_id).changed
    other = find_server(lab, "18" if shop.server.version != 18 else "17")
    facts = lab["postgresql_versions"]
    options = shop.site.params(
        login_host=other.host, login_port=other.port, bin_dir=facts["client_programs"], maintenance_db="lowtide"
    )
    lost = run_module("pg_restore", options)
    assert lost["error"]["refused"] is True
    assert shop.server.system_identifier in lost.msg
    options["source_system_identifier"] = shop.server.system_identifier
    missing = run_module("pg_restore", options)
    assert shop.owner in missing.msg
    try:
        done = run_module("pg_restore", options | {"roles": "created"}, timeout=200)
        assert_done(done)
        assert "PostgreSQL" in done["not_compared"][0]
        assert done["compared"] == [f"backup {shop.run_id}: rows, sequences, large objects"]
        assert "not all could be compared" in done["summary"]
    finally:
        for statement in (
            f"DROP DATABASE IF EXISTS {quoted(shop.copy)} WITH (FORCE)",
            f"DROP ROLE IF EXISTS {shop.owner}",
            f"DROP ROLE IF EXISTS {shop.reader}",
            f"DROP ROLE IF EXISTS {shop.account}",
        ):
            other.administer(statement)


@pytest.mark.procedure("A24")
def test_some_tables_only(shop: Shop) -> None:
    """Their rows, compared, and no others; one that is not in the backup is refused, and so is a swap."""
    done = shop.restore(tables=["shop.orders"])
    assert_done(done)
    assert (shop.count(database=shop.copy), shop.count("shop.lines", database=shop.copy)) == (500, 0)
    assert done["not_compared"] != []
    assert not shop.restore(tables=["orders"]).changed
    shop.site.sql("DELETE FROM shop.orders WHERE id = 3", database=shop.copy)
    assert "table shop.orders: it has 499 rows, not 500" in shop.restore(tables=["shop.orders"]).msg
    assert "no rows of such a table" in shop.restore(tables=["shop.nosuch"], check=True).msg
    refused = shop.restore(tables=["shop.orders"], state="live", backup=shop.run_id)
    assert "option tables" in refused.msg
    # Other tables are another copy: somebody may have mended rows in this one, so it is not dropped for that.
    other = shop.restore()
    assert other["error"]["refused"] is True
    assert "has the rows of shop.orders only" in other.msg
    assert shop.count(database=shop.copy) == 499
    assert_done(shop.restore(state="absent", backup=shop.run_id))
    assert_done(shop.restore())
    assert shop.count("shop.lines", database=shop.copy) == 300
    assert "is a whole one" in shop.restore(tables=["shop.orders"]).msg


@pytest.mark.procedure("A24")
def test_a_backup_in_several_objects(server: Server, lab: dict[str, Any], unique_name: Callable[..., str]) -> None:
    """Every kind of table, and odd names, by the superuser; all of it is equal to the original."""
    with make_shop(server, lab, unique_name, seed="SELECT") as shop:
        wide_database.fill(shop.site)
        run_id = shop.back_up(jobs=3)
        options = shop.site.params(
            maintenance_db="lowtide", bin_dir=shop.programs, backup=run_id, compare_with="original"
        )
        done = run_module("pg_restore", options)
        assert_done(done)
        assert len(done["compared"]) == 2
        copy, original = wide_database.describe(shop.site, done["database"]), wide_database.describe(shop.site)
        (properties,) = copy.pop("database")
        (expected,) = original.pop("database")
        assert copy == original
        assert properties[4].startswith("wide\nlowtide.ops pg_restore ")  # the copy's mark
        assert (*properties[:4], *properties[5:]) == (*expected[:4], *expected[5:])
        assert_done(run_module("pg_restore", options | {"state": "absent"}))
        some = run_module(
            "pg_restore", options | {"tables": ['"odd.sch""ema*"."n' + "n" * 62 + '"'], "compare_with": "backup"}
        )
        assert_done(some)
        assert (some["tables"], some["rows"]) == (1, 2)


@pytest.fixture
def foreign(shop: Shop) -> Callable[..., bytes]:
    """What pg_dump writes of the shop in a format."""

    def dump(letter: str, *more: str) -> bytes:
        facts = shop.site.lab["postgresql"]
        where = [
            "-h",
            shop.server.host,
            "-p",
            str(shop.server.port),
            "-U",
            facts["superuser"],
            f"-F{letter}",
            *more,
            shop.name,
        ]
        environment = {"PGPASSFILE": facts["passfile"]}
        return subprocess.run(
            [f"{shop.programs}/pg_dump", *where], check=True, capture_output=True, env=environment
        ).stdout

    return dump


@pytest.mark.procedure("A24", "D19", "C21")
def test_a_foreign_dump_is_said_to_be_unproven(shop: Shop, foreign: Callable[..., bytes]) -> None:
    """Only where it is named, packed or not; a script, which would run over its errors, is refused."""
    # Such a dump does not say in which time zone it shows times.
    shop.site.sql(f"ALTER ROLE {shop.account} RESET TimeZone", database="postgres")
    body = foreign("c")
    packed = {
        "plain.dump": body,
        "dump.gz": gzip.compress(body),
        "dump.zst": subprocess.run(["zstd", "-q", "-c"], input=body, check=True, capture_output=True).stdout,
    }
    for key, content in packed.items():
        shop.site.client.put_object(Bucket=shop.site.bucket, Key=key, Body=content)
        run = shop.restore(foreign_dump=key)
        assert_done(run)
        assert run["backup"]["proven"] is False
        assert "unproven" in run["summary"]
        assert "no manifest" in str(run["warnings"])
        assert shop.count(database=run["database"]) == 500
        assert shop.restore(foreign_dump=key, state="absent").changed
    # One without the rows of a table is not put in the place of all of it.
    shop.site.client.put_object(
        Bucket=shop.site.bucket, Key="part.dump", Body=foreign("c", "--exclude-table-data=shop.lines")
    )
    assert_done(shop.restore(foreign_dump="part.dump"))
    partial = shop.restore(foreign_dump="part.dump", state="live")
    assert partial["error"]["refused"] is True
    assert "1 table of" in partial.msg
    assert "shop.lines" in partial.msg
    assert shop.count() == 500
    assert_done(shop.restore(foreign_dump="part.dump", state="absent"))
    shop.site.client.put_object(Bucket=shop.site.bucket, Key="backup.sql.gz", Body=gzip.compress(foreign("p")))
    shop.site.client.put_object(Bucket=shop.site.bucket, Key="backup.sql", Body=foreign("p"))
    for key in ("backup.sql", "backup.sql.gz", "nosuch"):
        run = shop.restore(foreign_dump=key)
        assert run.failed, key
        assert key in run.msg
        assert not run.changed
    assert shop.databases() == [shop.name]


@pytest.mark.procedure("A24")
@pytest.mark.parametrize("database", ["postgres", pytest.param("lowtide", marks=pytest.mark.sweep)])
def test_two_runs_exclude_each_other(shop: Shop, database: str) -> None:
    """The holder is named, also one whose maintenance_db is another: an advisory lock is one of its database."""
    facts = shop.site.lab["postgresql"]
    with (
        closing(
            psycopg2.connect(
                host=shop.server.host,
                port=shop.server.port,
                user=facts["superuser"],
                passfile=facts["passfile"],
                dbname=database,
                application_name="the other run",
            )
        ) as other,
        other.cursor() as cursor,
    ):
        cursor.execute(f"SELECT pg_advisory_lock({0x4C4F5754}, {find_lock_key(shop.name)})")
        run = shop.restore()
        assert run["error"]["refused"] is True
        assert "the other run" in run.msg
        assert shop.databases() == [shop.name]
        if database == "lowtide":
            return
    assert_done(shop.restore())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backup": "20261121"}, "option backup"),
        ({"state": "live"}, "does not go with latest"),
        ({"state": "released"}, "does not go with latest"),
        ({"backup": "20200101T000000Z-00000000"}, "there is no backup 20200101T000000Z-00000000"),
        ({"source_database": "nosuch"}, "there is no backup"),
        ({"prefix": "elsewhere"}, "Look whether bucket, prefix (elsewhere) and database are those of the backups."),
        ({"timeout": 0}, "option timeout"),
        ({"tables": ["a.b.c"]}, "option tables"),
    ],
)
def test_options_that_cannot_be_meant(
    server: Server, lab: dict[str, Any], unique_name: Callable[..., str], options: dict[str, Any], words: str
) -> None:
    """With object, value and next step; nothing has been made."""
    with make_bucket(lab, "versitygw", unique_name) as store:
        connection = server.params("shop") | {"maintenance_db": "lowtide"}
        run = run_module("pg_restore", {**connection, **store.s3_params(), **options})
        assert run["error"]["refused"] is True
        assert words in run.msg
