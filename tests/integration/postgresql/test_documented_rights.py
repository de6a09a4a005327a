# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/postgresql-rights.sql, executed as it is: its accounts can do their work, and none of its grants is too much."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from labkit.postgresql_accounts import HAS_PG_MAINTAIN, RIGHTS
from psycopg2 import sql

from support.backups import Site, make_bucket
from support.checkout import load_yaml
from support.modules import ModuleRun, run_module
from support.postgresql_rights import find_grants, grant_all_but, grant_documented_rights
from support.postgresql_servers import OWNER, Database, Server, make_database

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")

PURPOSES = ("maintenance", "backup", "query", "monitor", "integrity")
"""Whose accounts act here; that for restores does in the tests of restores."""
PASSWORD = "canary-of-an-operator"  # noqa: S105 - of roles that a test makes
SEED = """
CREATE EXTENSION pgstattuple;
CREATE EXTENSION amcheck;
CREATE SCHEMA shop;
CREATE SEQUENCE shop.numbers;
CREATE TABLE shop.hidden (i int);
ALTER TABLE shop.hidden ENABLE ROW LEVEL SECURITY;
INSERT INTO shop.hidden VALUES (1);
CREATE TABLE shop.ledger (topic text, partition int, "offset" bigint);
CREATE TABLE shop.busy (id int PRIMARY KEY, note text);
CREATE TABLE shop.bloated (id int, note text);
CREATE INDEX bloated_note ON shop.bloated (note);
INSERT INTO shop.busy SELECT g, 'x' FROM generate_series(1, 2000) g;
INSERT INTO shop.bloated SELECT g, 'note ' || g FROM generate_series(1, 40000) g;
DELETE FROM shop.bloated WHERE id % 10 <> 0;
SELECT lo_from_bytea(0, 'x');
"""
DUE: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100, "index_bloat_ratio": 0.5}
(HEALTH,) = [
    entry["block"][0]["lowtide.ops.pg_query_info"]["query"]
    for entry in load_yaml(Path("roles/health/tasks/read.yml"))
    if entry["name"] == "Database"
]
HAS_OBJECT_DEFAULTS = 18
FOR_OTHER_VERSIONS = {
    True: (':"owner"',),
    # Who has the rights of the database's owner comes in.
    False: ("pg_maintain", 'CONNECT ON DATABASE :"DBNAME" TO :"maintenance"'),
}


def find_purpose(grant: str) -> str:
    """Return for which account a statement of the file is."""
    (purpose,) = {match[1] for match in re.finditer(r""":['"](\w+)""", grant)} & {*PURPOSES, "restore", "credentials"}
    return str(purpose)


class Shop(NamedTuple):
    """A database with something of everything that needs a right, and a bucket."""

    database: Database
    store: Site
    folder: Path

    def name(self, purpose: str) -> str:
        """The account of a purpose."""
        return f"{self.database.name}_{purpose}"

    def grant(self, *, left_out: str = "", **names: str) -> None:
        """Execute the file, or all of it but one statement."""
        if left_out:
            grant_all_but(self.database.server.superuser, self.database.name, self.folder, left_out, **names)
        else:
            grant_documented_rights(self.database.server.superuser, self.database.name, **names)

    @contextmanager
    def accounts(self, grant: Callable[..., None], *purposes: str) -> Iterator[None]:
        """Have accounts made and granted their rights; they are removed."""
        names = {purpose: self.name(purpose) for purpose in purposes}
        owner = self.database.server.accounts[OWNER].user
        try:
            grant(owner=owner, ledger="shop.ledger", **names)
            for name in names.values():
                self.database.administer(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(PASSWORD))
                )
            yield
        finally:
            for role in map(sql.Identifier, names.values()):
                self.database.administer(sql.SQL("DROP OWNED BY {}").format(role), sql.SQL("DROP ROLE {}").format(role))

    def act(self, purpose: str, *, check: bool = True) -> ModuleRun:
        """Have an account do what it is for."""
        connection = self.database.server.params(self.database.name)
        connection |= {"login_user": self.name(purpose), "login_password": PASSWORD}
        del connection["passfile"]
        if purpose == "maintenance":
            options = {**connection, **DUE, "minimum_index_size": 65536, "schemas": ["shop"]}
            return run_module("pg_maintenance", options, check=check)
        if purpose == "backup":
            programs = self.store.lab["postgresql_versions"]["client_programs"]
            options = {**connection, **self.store.s3_params(), "bin_dir": programs}
            return run_module("pg_backup", options, check=check)
        if purpose == "integrity":
            return run_module("pg_integrity_info", connection, check=check)
        query = HEALTH if purpose == "monitor" else "SELECT count(*) FROM shop.ledger"
        return run_module("pg_query_info", {**connection, "query": query}, check=check)

    def is_able(self, purpose: str) -> bool:
        """Return whether an account could do all of its work."""
        run = self.act(purpose)
        if purpose == "maintenance":
            return not run.failed and run["not_done"] == [] and len(run["plan"]) == 2
        if purpose == "integrity":
            return not run.failed and bool(run["status"] == "whole")
        if purpose == "monitor":
            return not run.failed and run["rows"][0]["may_read_statistics"]
        return not run.failed


@pytest.fixture
def shop(lab: dict[str, Any], server: Server, unique_name: Callable[..., str], tmp_path: Path) -> Iterator[Shop]:
    """Such a database; its tables are the owner's, its schema the superuser's."""
    with make_database(server, unique_name) as database, make_bucket(lab, "versitygw", unique_name) as store:
        database.administer(SEED)
        owner = sql.Identifier(server.accounts[OWNER].user)
        for name in ("busy", "bloated", "hidden", "ledger"):
            database.administer(sql.SQL("ALTER TABLE shop.{} OWNER TO {}").format(sql.Identifier(name), owner))
        database.administer("VACUUM ANALYZE shop.busy")
        database.administer("VACUUM ANALYZE shop.bloated")
        database.administer("UPDATE shop.busy SET note = 'y' WHERE id % 2 = 0")
        # So that only pgstattuple can tell how much of the index is wasted.
        database.administer("DELETE FROM pg_statistic WHERE starelid = 'shop.bloated'::regclass")
        yield Shop(database, store, tmp_path)


@pytest.mark.procedure("A12", "C18")
def test_the_documented_rights_are_enough(shop: Shop) -> None:
    """Each account does its work, and is predicted to; executed again, the file changes nothing."""

    def grant(**names: str) -> None:
        for _ in range(2):
            shop.grant(**names)

    with shop.accounts(grant, *PURPOSES):
        assert [purpose for purpose in PURPOSES if not shop.is_able(purpose)] == []
        maintained = shop.act("maintenance", check=False)
        assert [entry["object"] for entry in maintained["done"]] == ["table shop.busy", "index shop.bloated_note"]
        saved = shop.act("backup", check=False)
        assert saved.changed, saved.msg
        assert saved["backup"]["rows"] == 2000 + 4000 + 1
        assert not shop.act("maintenance").changed


@pytest.mark.procedure("C18")
@pytest.mark.parametrize("purpose", PURPOSES)
def test_each_grant_is_needed(shop: Shop, purpose: str) -> None:
    """Without any of them, the account cannot do its work."""
    unused = FOR_OTHER_VERSIONS[shop.database.server.version >= HAS_PG_MAINTAIN]
    grants = [grant for grant in find_grants(RIGHTS.read_text(encoding="utf-8")) if find_purpose(grant) == purpose]
    needless = []
    for left_out in (grant for grant in grants if not any(part in grant for part in unused)):
        with shop.accounts(partial(shop.grant, left_out=left_out), purpose):
            if shop.is_able(purpose):
                needless.append(left_out)
    assert needless == []


def test_an_owner_is_asked_for_where_it_is_needed(shop: Shop) -> None:
    """Up to 16."""
    if shop.database.server.version < HAS_PG_MAINTAIN:
        refuse_names(shop, "give -v owner=NAME", maintenance=shop.name("maintenance"))
        return
    name = sql.Identifier(shop.name("maintenance"))
    try:
        shop.grant(maintenance=shop.name("maintenance"))
    finally:
        shop.database.administer(sql.SQL("DROP OWNED BY {}").format(name), sql.SQL("DROP ROLE {}").format(name))


def refuse_names(shop: Shop, words: str, **names: str) -> None:
    """Execute the file with names that cannot be meant: it says why, and nothing of it has been done."""
    with pytest.raises(AssertionError, match=words):
        shop.grant(**names)
    made = "SELECT count(*) FROM pg_roles WHERE rolname LIKE '{}%'"
    assert shop.database.administer(made.format(shop.database.name + "_")) == [(0,)]


def test_names_that_cannot_be_meant_change_nothing(shop: Shop) -> None:
    """None at all, a misspelt variable, one that needs another one, a role that is not there."""
    refuse_names(shop, "no account is named")
    refuse_names(shop, "no account is named", back_up=shop.name("backup"))
    refuse_names(shop, "give -v ledger=NAME", query=shop.name("query"), backup=shop.name("backup"))
    refuse_names(shop, "hands over to the owner what it restores: give -v owner=NAME", restore=shop.name("restore"))
    refuse_names(shop, "replaces the password of a role: give -v first=NAME", credentials=shop.name("credentials"))
    refuse_names(shop, "does not exist", query=shop.name("query"), backup=shop.name("backup"), ledger="shop.misspelt")


def test_accounts_that_do_not_inherit_get_their_rights(shop: Shop) -> None:
    """Whether they were granted before or not."""

    def grant(**names: str) -> None:
        for purpose in PURPOSES:
            role = sql.Identifier(names[purpose])
            shop.database.administer(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(role))
        shop.database.administer(sql.SQL("GRANT pg_read_all_data TO {}").format(sql.Identifier(names["backup"])))
        shop.grant(**names)

    with shop.accounts(grant, *PURPOSES):
        assert [purpose for purpose in PURPOSES if not shop.is_able(purpose)] == []


def test_without_a_superuser_all_but_row_level_security_is_given(shop: Shop) -> None:
    """By a role that may create roles and grant those that are granted; it says what is missing, and what to do."""
    server, admin = shop.database.server, shop.name("admin")
    owner = server.accounts[OWNER].user
    role = sql.Identifier(admin)
    shop.database.administer(
        sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(role, sql.Literal(PASSWORD)),
        sql.SQL("GRANT pg_read_all_data TO {} WITH ADMIN OPTION").format(role),
        sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(owner), role),
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    )

    def grant(**names: str) -> None:
        account = server.superuser._replace(user=admin, passfile="", password=PASSWORD)
        assert "may not give BYPASSRLS" in grant_documented_rights(account, shop.database.name, backup=names["backup"])

    try:
        with shop.accounts(grant, "backup"):
            refused = shop.act("backup")
            assert "row-level security hides rows of 1 table" in refused.msg
            assert f"GRANT {owner} TO {shop.name('backup')}" in refused["error"]["next_step"]
            shop.database.administer(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner), sql.Identifier(shop.name("backup")))
            )
            assert shop.is_able("backup")
    finally:
        shop.database.administer(sql.SQL("DROP OWNED BY {}").format(role), sql.SQL("DROP ROLE {}").format(role))


def test_large_objects_that_are_stored_later_are_opened(shop: Shop) -> None:
    """By default privileges, which PostgreSQL has from 18 on; before, the next step names the owner whose rights do."""
    owner = shop.database.server.accounts[OWNER].user
    shop.database.sql("SELECT lo_from_bytea(0, 'of the owner')")

    with shop.accounts(shop.grant, "backup"):
        shop.database.sql("SELECT lo_from_bytea(0, 'later')")
        if shop.database.server.version >= HAS_OBJECT_DEFAULTS:
            assert shop.is_able("backup")
        else:
            assert f"GRANT {owner} TO {shop.name('backup')}" in shop.act("backup")["error"]["next_step"]
