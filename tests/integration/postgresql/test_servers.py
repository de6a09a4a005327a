# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the lab's servers of each version let each account do: tests as the least privileged account rest on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from labkit.postgresql_accounts import HAS_PG_MAINTAIN
from psycopg2 import errors, sql

from support.modules import run_module
from support.postgresql_servers import BACKUP, MAINTENANCE, OWNER, SUPERUSER, Database, Server, make_database

pytestmark = pytest.mark.lab("postgresql_versions")


def test_owner(owned_database: Database) -> None:
    """It has what it made, and sees nothing of a superuser's session."""
    owned_database.table("feature")
    assert owned_database.vacuums("feature") == 1
    assert owned_database.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'feature'") == 1000
    owned_database.administer("CREATE TABLE other (i int)")
    with pytest.raises(errors.InsufficientPrivilege):
        owned_database.sql("SELECT * FROM other")
    with contextlib.closing(owned_database.connect(account=SUPERUSER)) as connection:
        question = f"SELECT xact_start, query FROM pg_stat_activity WHERE pid = {connection.info.backend_pid}"
        assert owned_database.sql(question) == [(None, "<insufficient privilege>")]


def test_maintenance_account(owned_database: Database) -> None:
    """It may maintain tables that are not its own and sees other users' sessions; from 17 on it reads no row."""
    owned_database.table("feature")
    owned_database.sql("VACUUM feature", account=MAINTENANCE)
    assert owned_database.vacuums("feature") == 2
    assert owned_database.sql("SELECT count(*) FROM pg_stat_activity WHERE query = ''", account=MAINTENANCE)
    if owned_database.server.version >= HAS_PG_MAINTAIN:
        with pytest.raises(errors.InsufficientPrivilege):
            owned_database.sql("SELECT * FROM feature", account=MAINTENANCE)


def test_backup_accounts(server: Server, owned_database: Database) -> None:
    """The lab's own and that of a test read all of one database, and come into no other."""
    owned_database.table("feature")
    account = owned_database.make_backup_account()
    parameters: dict[str, Any] = {"host": server.host, "port": server.port, **account.libpq}
    with (
        contextlib.closing(psycopg2.connect(dbname=owned_database.name, **parameters)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*) FROM feature")
        assert cursor.fetchall() == [(2000,)]
    server.connect("lowtide", BACKUP).close()
    for database in ("postgres", "template1", "lowtide"):
        with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection"):
            psycopg2.connect(dbname=database, **parameters)
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection"):
        server.connect(owned_database.name, BACKUP)


def test_strangers(server: Server, owned_database: Database, unique_name: Callable[..., str]) -> None:
    """An account comes into no database that is not granted to it."""
    role = unique_name("role", separator="_")
    server.administer(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
    try:
        for name in (owned_database.name, "lowtide", "postgres"):
            with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
                psycopg2.connect(host=server.host, port=server.port, user=role, password="x", dbname=name)  # noqa: S106
    finally:
        server.administer(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_extensions_and_checksums(server: Server, owned_database: Database) -> None:
    """What measures bloat and looks for damage is there; pages have checksums."""
    owned_database.administer("CREATE EXTENSION pgstattuple", "CREATE EXTENSION amcheck")
    assert owned_database.one("SHOW data_checksums") == "on"
    assert owned_database.one("SHOW server_version_num").startswith(str(server.version))


def test_database_of_the_accounts(server: Server) -> None:
    """It is the owner's, and has the extensions."""
    with contextlib.closing(server.connect("lowtide")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datdba::regrole::text, current_user FROM pg_database WHERE datname = 'lowtide'")
        assert cursor.fetchall() == [(server.accounts[OWNER].user,) * 2]
        cursor.execute("SELECT extname FROM pg_extension WHERE extname IN ('amcheck', 'pgstattuple') ORDER BY 1")
        assert cursor.fetchall() == [("amcheck",), ("pgstattuple",)]


def test_a_module_runs_as_the_owner(owned_database: Database) -> None:
    """With the options that the server gives."""
    params = owned_database.server.params(owned_database.name)
    run = run_module("pg_query_info", {**params, "query": "SELECT current_user AS account"})
    assert not run.failed, run.msg
    assert run["rows"] == [{"account": params["login_user"]}]


def test_a_database_goes_with_its_backup_account(server: Server, unique_name: Callable[..., str]) -> None:
    """Nothing is left of a test."""
    with make_database(server, unique_name) as database:
        database.make_backup_account()
    question = (
        "SELECT datname FROM pg_database WHERE datname = '{0}' UNION SELECT rolname FROM pg_roles WHERE rolname = '{0}'"
    )
    assert server.administer(question.format(database.name)) == []
