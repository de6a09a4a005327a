# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What keeps a copy from the live name on real servers: a request that was fulfilled before, replication, another database."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
import pytest

from support.backups import quoted
from support.modules import run_module
from support.postgresql_proxy import Statement, StatementProxy
from support.restores import Shop, assert_done

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

SUBSCRIPTION = (
    "CREATE SUBSCRIPTION stock CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false)"
)


def ask(shop: Shop, question: str) -> list[tuple[object, ...]]:
    """Ask the server, outside of the live database."""
    return shop.site.sql(question, database="postgres")


@pytest.mark.procedure("A24", "C21")
def test_a_request_that_comes_once_more_replaces_nothing(shop: Shop) -> None:
    """After a person has replaced the comment with its mark and the original was let go, or was put back; the way on is named."""
    wanted: dict[str, Any] = {"state": "live", "backup": shop.run_id}
    for check in (True, False):
        early = shop.restore(check=check, **wanted)
        assert early["error"]["refused"] is True
        assert "state: beside" in early.msg
        assert shop.databases() == [shop.name]
    assert_done(shop.restore())
    # What a killed run has left is no copy either: to make one takes hours in which the workloads are stopped.
    comment = str(ask(shop, f"SELECT shobj_description({shop.oid(shop.copy)}, 'pg_database')")[0][0])
    comment = comment.replace("'", "''")
    begun = comment.replace('"restored"', '"restoring"')
    assert begun != comment
    shop.site.sql(f"COMMENT ON DATABASE {quoted(shop.copy)} IS '{begun}'", database="postgres")
    unfinished = shop.restore(**wanted)
    assert unfinished["error"]["refused"] is True
    assert "there is no whole copy" in unfinished.msg
    assert shop.databases() == sorted([shop.name, shop.copy])
    shop.site.sql(f"COMMENT ON DATABASE {quoted(shop.copy)} IS '{comment}'", database="postgres")
    # The live database gets statistics with the copy, since no dump has any.
    assert (
        int(str(shop.site.sql("SELECT count(*) FROM pg_stats WHERE schemaname = 'shop'", database=shop.copy)[0][0])) > 5
    )
    done = shop.restore(**wanted)
    assert_done(done)
    assert 0 <= done["swap_seconds"] < 60
    shop.site.sql("INSERT INTO shop.orders VALUES (501, 1)")
    for statement in (f"DROP DATABASE {shop.kept}", f"COMMENT ON DATABASE {shop.name} IS 'the shop'"):
        shop.site.sql(statement, database="postgres")
    again = shop.restore(**wanted)
    assert again["error"]["refused"] is True
    assert "has not taken its place before" in again.msg
    assert (shop.databases(), shop.count()) == ([shop.name], 501)
    # A copy of some tables is for looking something up.
    assert_done(shop.restore(tables=["shop.orders"]))
    assert shop.restore(**wanted)["error"]["refused"] is True
    assert (shop.databases(), shop.count()) == (sorted([shop.name, shop.copy]), 501)


@pytest.mark.procedure("A24", "C21")
def test_logical_replication_of_the_live_database_is_not_left_behind(shop: Shop) -> None:
    """A slot and a subscription belong to the database and not to its name: each is named, with what to do."""
    assert_done(shop.restore())
    wanted: dict[str, Any] = {"state": "live", "backup": shop.run_id}
    shop.site.sql("SELECT pg_create_logical_replication_slot('ra_cdc_' || current_database(), 'pgoutput')")
    shop.site.sql(SUBSCRIPTION)
    shop.site.sql("ALTER SUBSCRIPTION stock ENABLE")
    try:
        for check in (True, False):
            run = shop.restore(check=check, sessions="end", **wanted)
            assert run["error"]["refused"] is True
            assert [entry["object"] for entry in run["blockers"]] == [
                f"replication slot ra_cdc_{shop.name}",
                "subscription stock",
            ]
            assert shop.databases() == sorted([shop.name, shop.copy])
        slot, subscription = (entry["next_step"] for entry in run["blockers"])
        ask(shop, f"SELECT pg_drop_replication_slot('ra_cdc_{shop.name}')")
        assert f"pg_drop_replication_slot('ra_cdc_{shop.name}')" in slot
        assert "ALTER SUBSCRIPTION stock DISABLE" in subscription
        shop.site.sql("ALTER SUBSCRIPTION stock DISABLE")
        done = shop.restore(sessions="end", **wanted)
        assert_done(done)
        kept = shop.restore(state="released", backup=shop.run_id)
        assert kept["error"]["refused"] is True
        assert "subscription stock" in kept.msg
        for statement in kept["blockers"][0]["next_step"].partition(": ")[2].partition(". ")[0].split("; "):
            shop.site.sql(statement, database=shop.kept)
        assert_done(shop.restore(state="released", backup=shop.run_id))
    finally:
        ask(
            shop,
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            f" WHERE slot_name = 'ra_cdc_{shop.name}'",
        )
        for name in shop.databases():
            if shop.site.sql(
                "SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid AND datname = current_database()",
                database=name,
            ):
                for action in ("ALTER SUBSCRIPTION stock DISABLE", "ALTER SUBSCRIPTION stock SET (slot_name = NONE)"):
                    shop.site.sql(action, database=name)
                shop.site.sql("DROP SUBSCRIPTION stock", database=name)


@pytest.mark.procedure("A24", "D19")
def test_a_subscription_in_a_copy_never_consumes_and_goes_with_it(shop: Shop) -> None:
    """The dump of a superuser has it: it is off in the copy, and does not keep the copy from being dropped."""
    shop.site.sql(SUBSCRIPTION)
    shop.site.sql("ALTER SUBSCRIPTION stock ENABLE")
    try:
        run_id = shop.back_up()
        options = shop.site.params(maintenance_db="lowtide", bin_dir=shop.programs, backup=run_id)
        done = run_module("pg_restore", options)
        assert_done(done)
        question = (
            "SELECT datname, subenabled FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = "
        )
        assert ask(shop, f"{question}'{done['database']}'") == [(done["database"], False)]
        gone = run_module("pg_restore", options | {"state": "absent"})
        assert_done(gone)
        assert shop.databases() == [shop.name]
        assert ask(shop, f"{question}'{shop.name}'") == [(shop.name, True)]
    finally:
        for statement in ("DISABLE", "SET (slot_name = NONE)"):
            shop.site.sql(f"ALTER SUBSCRIPTION stock {statement}")
        shop.site.sql("DROP SUBSCRIPTION stock")


@pytest.mark.procedure("A24", "C21")
def test_what_an_interrupted_drop_has_left_is_replaced(shop: Shop) -> None:
    """A copy of that kind is made anew, and a live database of that kind gets the limits of the backup."""
    assert_done(shop.restore())
    mark = "UPDATE pg_database SET datconnlimit = -2 WHERE datname ="
    ask(shop, f"{mark} '{shop.copy}'")
    again = shop.restore()
    assert_done(again)
    assert [step["what"] for step in again["plan"]] == ["drop", "restore beside"]
    assert shop.count(database=shop.copy) == 500
    ask(shop, f"{mark} '{shop.name}'")
    done = shop.restore(state="live", backup=shop.run_id)
    assert_done(done)
    assert "interrupted DROP DATABASE" in done["plan"][-1]["why"]
    assert shop.count() == 500
    assert ask(shop, f"SELECT datconnlimit FROM pg_database WHERE datname = '{shop.name}'") == [(20,)]


@pytest.mark.procedure("A24", "C21")
def test_only_the_database_that_was_compared_takes_the_live_name(shop: Shop) -> None:
    """Somebody puts an empty one in its place in the last moment: both are as they were."""
    assert_done(shop.restore())
    original = shop.oid(shop.name)
    facts = shop.site.lab["postgresql"]

    def before(statement: Statement) -> bool:
        if f"ALTER DATABASE {quoted(shop.name)} RENAME" in statement.text:
            with closing(
                psycopg2.connect(
                    host=shop.server.host,
                    port=shop.server.port,
                    user=facts["superuser"],
                    passfile=facts["passfile"],
                    dbname="postgres",
                )
            ) as other:
                other.autocommit = True
                with other.cursor() as cursor:
                    cursor.execute(f"DROP DATABASE {shop.copy}")
                    cursor.execute(f"CREATE DATABASE {shop.copy} OWNER {shop.account}")
        return True

    with StatementProxy(shop.server.host, shop.server.port, before) as proxy:
        way = {"login_host": proxy.host, "login_port": proxy.port, "ssl_mode": "disable"}
        run = run_module("pg_restore", shop.params(state="live", backup=shop.run_id, **way))
    assert run.failed
    assert "another one has taken that name" in run.msg
    assert (shop.oid(shop.name), shop.count()) == (original, 500)
    assert shop.databases() == sorted([shop.name, shop.copy])
