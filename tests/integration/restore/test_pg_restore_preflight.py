# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the server would not accept at the end of a restore is named before anything is written; and what is hard to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.dump_text import read_schema
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.rights import Account, find_grant_lacks
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import Session, Settings
from support.postgresql_rights import grant_documented_rights
from support.postgresql_servers import find_server
from support.restores import OWN_PUBLIC, PASSWORD, Shop, assert_done, make_shop
from support.turns import is_sweep

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

VERSIONS = ["15", "16", "18"] if is_sweep() else ["15"]
"""With an account that is no superuser, which PostgreSQL 14 takes."""
NO_ESCAPES = "ALTER DATABASE {name} SET standard_conforming_strings TO off"


@pytest.fixture(params=VERSIONS)
def shop(request: pytest.FixtureRequest, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Shop]:
    """Backed up once, by a superuser."""
    with make_shop(find_server(lab, request.param), lab, unique_name) as made:
        yield made


@pytest.mark.procedure("A24", "D19")
def test_settings_that_the_account_may_not_give_are_named_first(shop: Shop) -> None:
    """Each with the statement that gives the right, in check mode too; then the copy has them, and large objects are read."""
    for statement in (
        f"ALTER DATABASE {shop.name} SET log_min_duration_statement TO 500",
        f"ALTER DATABASE {shop.name} SET shop.tenant TO 'x'",
        NO_ESCAPES.format(name=shop.name),
        f"ALTER ROLE {shop.reader} IN DATABASE {shop.name} SET work_mem TO '6MB'",
    ):
        shop.site.sql(statement, database="postgres")
    shop = shop.replace_run(shop.back_up())
    for check in (True, False):
        run = shop.restore(check=check)
        assert run["error"]["refused"] is True
        steps = [entry["next_step"] for entry in run["blockers"]]
        assert steps[:2] == [
            f"GRANT SET ON PARAMETER log_min_duration_statement TO {shop.account}",
            f"GRANT SET ON PARAMETER shop.tenant TO {shop.account}",
        ]
        assert "Restore as a superuser" in steps[2]
        assert shop.reader in run["blockers"][2]["what"]
        assert shop.databases() == [shop.name]
    try:
        for statement in (*steps[:2], f"ALTER ROLE {shop.account} CREATEROLE"):
            shop.site.sql(statement, database="postgres")
        if shop.server.version > OWN_PUBLIC:
            shop.site.sql(f"GRANT {shop.reader} TO {shop.account} WITH ADMIN OPTION", database="postgres")
        done = shop.restore()
        assert_done(done)
        question = "SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = "
        assert shop.site.sql(f"{question}'{shop.copy}'") == [(2,)]
        shop.site.sql("SELECT lo_put(900001, 0, 'XYZ')", database=shop.copy)
        assert "large object 900001: its content is another" in shop.restore().msg
    finally:
        for statement in steps[:2]:
            shop.site.sql(statement.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "), database="postgres")
        shop.site.sql(f"REVOKE {shop.reader} FROM {shop.account}", database="postgres")


@pytest.mark.procedure("A24", "D19")
def test_a_database_that_was_shut_or_a_template_is_restored(shop: Shop) -> None:
    """Who may come in is for the live name; a tablespace, and an owner whose rights are not inherited, are named first."""
    for own in ("CONNECTION LIMIT 0", "IS_TEMPLATE true"):
        shop.site.sql(f"ALTER DATABASE {shop.name} {own}", database="postgres")
    shop = shop.replace_run(shop.back_up())
    shop.site.sql(f"ALTER ROLE {shop.account} NOINHERIT", database="postgres")
    if shop.server.version > OWN_PUBLIC:
        shop.site.sql(f"GRANT {shop.owner} TO {shop.account} WITH INHERIT FALSE", database="postgres")
    lacking = shop.restore()
    assert lacking["error"]["refused"] is True
    assert lacking["blockers"][0]["next_step"].startswith(f"GRANT {shop.owner} TO {shop.account}")
    shop.site.sql(lacking["blockers"][0]["next_step"], database="postgres")
    shop.site.sql(f"ALTER ROLE {shop.account} INHERIT", database="postgres")
    assert_done(shop.restore())
    assert_done(shop.restore(state="absent", backup=shop.run_id))
    shop.site.sql(f"ALTER DATABASE {shop.name} IS_TEMPLATE false", database="postgres")
    shop.site.sql(f"DROP DATABASE {shop.name}", database="postgres")
    assert_done(shop.restore(state="live", backup=shop.run_id))
    question = f"SELECT datconnlimit, datistemplate FROM pg_database WHERE datname = '{shop.name}'"
    assert shop.site.sql(question, database="postgres") == [(0, True)]
    shop.site.sql(f"ALTER DATABASE {shop.name} IS_TEMPLATE false", database="postgres")


@pytest.mark.procedure("A24", "D19")
def test_the_schema_public_of_a_database_from_before_15(shop: Shop) -> None:
    """pg_upgrade keeps its owner, who is a superuser: what owns it and the way out are named first; that way leads there."""
    for statement in (
        f"ALTER SCHEMA public OWNER TO {shop.site.lab['postgresql']['superuser']}",
        f"GRANT CREATE ON SCHEMA public TO {shop.reader}",
        "COMMENT ON SCHEMA public IS 'of the shop'",
    ):
        shop.site.sql(statement)
    shop = shop.replace_run(shop.back_up())
    for check in (True, False):
        run = shop.restore(check=check)
        assert run["error"]["refused"] is True
        assert "which owns schema public and is a superuser" in run.msg
        assert "ALTER SCHEMA public OWNER TO pg_database_owner, as it is in a new one, and back up again" in run.msg
    shop.site.sql("ALTER SCHEMA public OWNER TO pg_database_owner")
    shop = shop.replace_run(shop.back_up())
    assert_done(shop.restore())


@pytest.mark.procedure("A24", "D19")
def test_grants_on_the_schema_public_of_a_dump_of_14(shop: Shop) -> None:
    """By its header the superuser owns that, and says so in no statement: on a newer server it is the database owner's."""
    superuser = shop.site.lab["postgresql"]["superuser"]
    text = ""
    for name, schema in (("SCHEMA public", "-"), ("FUNCTION pg_ls_waldir()", "pg_catalog")):
        text += (
            f"--\n-- Name: {name}; Type: ACL; Schema: {schema}; Owner: {superuser}\n--\n\nGRANT ALL ON x TO y;\n\n\n"
        )
    settings = Settings(
        host=shop.server.host, port=shop.server.port, user=shop.account, password=PASSWORD, dbname="lowtide"
    )
    account = Account(shop.account, False, True, False, False)
    with Session(settings, module="test", run_id="1") as session:
        (lack,) = find_grant_lacks(session, read_schema(text), account)
    assert lack.what == "the dump has grants on FUNCTION pg_catalog.pg_ls_waldir(), and it does not own that"


@pytest.mark.procedure("A24", "D19")
def test_rows_that_are_hidden_from_their_owner_are_named_first(shop: Shop) -> None:
    """The comparison has to read them: the right is missed by its statement, before anything is written."""
    shop.site.sql("ALTER TABLE shop.lines ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.lines FORCE ROW LEVEL SECURITY")
    shop = shop.replace_run(shop.back_up())
    for check in (True, False):
        run = shop.restore(check=check)
        assert run["error"]["refused"] is True
        assert "shop.lines has FORCE ROW LEVEL SECURITY" in run.msg
        assert run["blockers"][0]["next_step"] == f"ALTER ROLE {shop.account} BYPASSRLS"
        assert shop.databases() == [shop.name]
    grant_documented_rights(shop.server.superuser, shop.name, owner=shop.owner, restore=shop.account)
    done = shop.restore()
    assert_done(done)
    assert shop.count("shop.lines", database=shop.copy) == 300


@pytest.mark.procedure("A24", "D19")
def test_grants_that_only_a_superuser_can_give_are_named_first(shop: Shop) -> None:
    """They would be the last statements, after all rows. A superuser restores them, and a shut database is not compared with."""
    shop.site.sql(f"GRANT SELECT ON shop.orders TO {shop.reader} WITH GRANT OPTION")
    shop.site.sql(f"SET SESSION AUTHORIZATION {shop.reader}; GRANT SELECT ON shop.orders TO pg_monitor")
    shop.site.sql(f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO {shop.reader}")
    shop = shop.replace_run(shop.back_up())
    for check in (True, False):
        run = shop.restore(check=check)
        assert run["error"]["refused"] is True
        passed_on, of_server = [entry["what"] for entry in run["blockers"]]
        assert passed_on == f"it may not grant as {shop.reader}, who has passed on what was granted to it"
        assert of_server.startswith("the dump has grants on FUNCTION pg_catalog.pg_ls_waldir(")
        assert run["error"]["next_step"] == "Restore as a superuser"
        assert shop.databases() == [shop.name]
    shop.site.sql(f"ALTER ROLE {shop.account} SUPERUSER", database="postgres")
    shop.site.sql(f"ALTER DATABASE {shop.name} ALLOW_CONNECTIONS false", database="postgres")
    for check in (True, False):
        shut = shop.restore(compare_with="original", check=check)
        assert shut["error"]["refused"] is True
        assert "it allows no connections, and compare_with is original" in shut.msg
        assert shop.databases() == [shop.name]
    assert_done(shop.restore())
    done = shop.restore(state="live", backup=shop.run_id)
    assert_done(done)
    assert "is shut as it was before" in str(done["warnings"])
    shop.site.sql(f"ALTER DATABASE {shop.name} ALLOW_CONNECTIONS true", database="postgres")
    assert shop.count() == 500


@pytest.mark.procedure("A24", "C21")
@pytest.mark.parametrize("shut", ["ALLOW_CONNECTIONS false", "CONNECTION LIMIT 0"])
def test_a_run_that_ends_sessions_opens_what_was_shut(shop: Shop, shut: str) -> None:
    """Whoever is to come next, as in a window, finds the database as the backup has it; nobody had to shut it."""
    assert_done(shop.restore())
    shop.site.sql(f"ALTER DATABASE {shop.name} {shut}", database="postgres")
    done = shop.restore(state="live", backup=shop.run_id, sessions="end")
    assert_done(done)
    assert f"{shop.name} was shut, and lets clients in again as in the backup" in str(done["warnings"])
    question = f"SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = '{shop.name}'"
    assert shop.site.sql(question, database="postgres") == [(True, 20)]
