# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What READMEs of roles for PostgreSQL print, run as it is by the accounts of docs/postgresql-rights.sql."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg2 import sql

from support.backups import Site, make_site
from support.checkout import text
from support.modules import run_module
from support.playbooks import PlaybookRun, run_playbook
from support.postgresql_rights import Superuser, grant_documented_rights
from support.postgresql_servers import OWNER, Server, make_database
from support.readme import find_example, write_example

pytestmark = pytest.mark.lab("postgresql", "postgresql_versions", "versitygw")

MAINTENANCE = Path("roles/database_maintenance/README.md")
RECONCILIATION = Path("roles/event_reconciliation/README.md")
PASSWORD = "canary-of-a-reader"  # noqa: S105 - of roles that a test makes
SEED = """
CREATE ROLE {owner};
CREATE SCHEMA shop AUTHORIZATION {owner};
CREATE TABLE shop.orders (id int PRIMARY KEY, note text) WITH (autovacuum_enabled = off);
ALTER TABLE shop.orders OWNER TO {owner};
INSERT INTO shop.orders SELECT g, 'x' FROM generate_series(1, 5000) g;
UPDATE shop.orders SET note = 'y' WHERE id % 2 = 0;
SELECT pg_stat_force_next_flush();
"""


@contextmanager
def make_shop(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Site]:
    """A database with a table that is due, and a maintenance account."""
    facts = lab["postgresql"]
    with make_site(lab, "versitygw", unique_name, seed="SELECT") as site:
        owner, keeper = f"{site.database}_owner", f"{site.database}_keeper"
        site.sql(SEED.format(owner=owner))
        superuser = Superuser(site.primary, facts["port"], facts["superuser"], facts["passfile"])
        grant_documented_rights(superuser, site.database, owner=owner, maintenance=keeper)
        site.sql(f"ALTER ROLE {keeper} PASSWORD '{PASSWORD}'")
        try:
            yield site
        finally:
            site.sql(f"DROP OWNED BY {keeper}, {owner}; DROP ROLE {keeper}, {owner}")


@pytest.mark.procedure("A12", "B8")
def test_the_printed_play_of_maintenance(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> None:
    """It does what is due, and nothing when it is run again."""
    with make_shop(lab, unique_name) as site:
        passfile = tmp_path / "pgpass"
        passfile.write_text(f"*:*:*:{site.database}_keeper:{PASSWORD}\n", encoding="utf-8")
        passfile.chmod(0o600)
        values = {
            "db1.example.com,db2.example.com,db3.example.com": ",".join(lab["postgresql"]["hosts"]),
            "lowtide_maintenance": f"{site.database}_keeper",
            "/etc/ansible/pgpass": str(passfile),
            "feature_db": site.database,
            "7428119042137459183": lab["postgresql"]["system_identifier"],
        }
        hosts = write_example(MAINTENANCE, "hosts.yml", tmp_path)
        play = write_example(MAINTENANCE, "maintenance.yml", tmp_path, values)

        def run(*arguments: str) -> PlaybookRun:
            done = run_playbook(play, "-i", str(hosts), *arguments)
            assert done.rc == 0, done.stdout + done.stderr
            return done

        assert [run("--check").changed, run().changed, run().changed] == [1, 1, 0]
        assert site.sql("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'orders'") == [(1,)]


@pytest.mark.procedure("B22")
def test_the_printed_query_of_a_ledger(server: Server, unique_name: Callable[..., str]) -> None:
    """One partition of two is recorded twice in part; the account reads nothing but the ledger."""
    with make_database(server, unique_name) as database:
        owner, reader = sql.Identifier(server.accounts[OWNER].user), f"{database.name}_reader"
        database.administer(sql.SQL("CREATE SCHEMA app AUTHORIZATION {}").format(owner))
        database.sql("SET search_path = app", find_example(text(RECONCILIATION), "ledger.sql"))
        database.sql(
            "INSERT INTO app.event_ledger VALUES ('orders', 0, 5), ('orders', 0, 6), ('orders', 1, 7), ('orders', 1, 7)",
            "CREATE TABLE app.secrets (i int)",
        )
        grant_documented_rights(server.superuser, database.name, query=reader, ledger="app.event_ledger")
        role = sql.Identifier(reader)
        database.administer(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(PASSWORD)),
            sql.SQL("ALTER ROLE {} SET search_path = app").format(role),
        )
        login = {**server.params(database.name), "login_user": reader, "login_password": PASSWORD, "passfile": None}
        printed = yaml.safe_load(find_example(text(RECONCILIATION), "group_vars/control.yml"))
        passed = [{"topic": "orders", "partition": partition, "log_start": 5, "committed": 8} for partition in (0, 1)]
        values = {"passed": json.dumps(passed), "since": "2020-01-01T00:00:00Z"}
        try:
            run = run_module(
                "pg_query_info", {**login, "query": printed["event_reconciliation_query"], "values": values}
            )
            assert not run.failed, run.msg
            rows = sorted((row["partition"], row["recorded"], row["doubled"]) for row in run["rows"])
            assert rows == [(0, 2, 0), (1, 1, 1)]
            refused = run_module("pg_query_info", {**login, "query": "SELECT * FROM app.secrets"})
            assert "permission denied for table secrets" in refused.msg
        finally:
            database.administer(sql.SQL("DROP OWNED BY {}").format(role), sql.SQL("DROP ROLE {}").format(role))
