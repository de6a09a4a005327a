# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Triage, restore and drill of one database go together: the extension that triage asks for is in the way of neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._triage import judge
from support.modules import run_module
from support.postgresql_rights import grant_documented_rights
from support.postgresql_servers import Server
from support.restores import OWN_PUBLIC, SEED, Shop, make_shop

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")
OWN_FUNCTION = """
CREATE SCHEMA own;
CREATE FUNCTION own.bt_index_check(i int) RETURNS int LANGUAGE sql AS 'SELECT i';
CREATE TABLE own.tagged (tags jsonb);
CREATE INDEX tagged_tags ON own.tagged USING gin (tags);
CREATE INDEX tagged_hash ON own.tagged USING hash (tags);
REVOKE ALL ON FUNCTION own.bt_index_check(int) FROM PUBLIC;
"""


@pytest.fixture
def watched(server: Server, lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Shop]:
    """A shop that is looked at for damage: it has the extension, and an account with the documented rights."""
    with make_shop(server, lab, unique_name, seed=SEED + OWN_FUNCTION) as shop:
        watch = unique_name("watch", separator="_")
        shop.site.sql("CREATE EXTENSION amcheck; COMMENT ON EXTENSION amcheck IS 'ours'")
        grant_documented_rights(server.superuser, shop.name, integrity=watch)
        try:
            yield shop
        finally:
            shop.drop()
            shop.site.sql(f"DROP OWNED BY {watch}; DROP ROLE {watch}")


def judge_copy(shop: Shop, copy: str, run: str) -> dict[str, Any]:
    """What triage says of a copy, if a table of the original is damaged."""
    params = shop.site.params()
    connection = {name: params[name] for name in ("login_host", "login_port", "login_user", "passfile")}
    original, replacement = (
        run_module("pg_integrity_info", {**connection, "login_db": name}) for name in (shop.name, copy)
    )
    damage = {"status": "damaged", "damaged": [{"object": "table shop.orders", "kind": "table"}]}
    newest = {
        "database": shop.name,
        "system_identifier": shop.server.system_identifier,
        "run_id": run,
        "taken_at": "now",
    }
    return judge({**original.result, **damage}, backups={"newest": [newest]}, replacement=replacement.result)


@pytest.mark.procedure("B22", "A24")
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.sweep)])
def test_the_documented_account_restores_a_database_that_is_looked_at(watched: Shop, jobs: int) -> None:
    """Without the extension, which only a superuser creates; created in the copy, it makes no difference."""
    shop, run = watched, watched.back_up(jobs=jobs)
    done = shop.restore(backup=run)
    assert not done.failed, done.msg
    copy = done["database"]
    may_create = shop.server.version < OWN_PUBLIC  # there it is a superuser that restores
    assert ("without the extension amcheck" in str(done["plan"])) is not may_create
    extensions = "SELECT extname FROM pg_extension WHERE extname IN ('amcheck', 'citext') ORDER BY 1"
    assert shop.site.sql(extensions, database=copy) == [*([("amcheck",)] if may_create else []), ("citext",)]
    public = "SELECT has_function_privilege('public', 'own.bt_index_check(int)', 'EXECUTE')"
    assert shop.site.sql(public, database=copy) == [(False,)]
    shop.site.sql("CREATE EXTENSION IF NOT EXISTS amcheck", database=copy)
    verdict = judge_copy(shop, copy, run)
    assert verdict["may_be_replaced"], verdict["summary"]
    assert f"{copy} can take its place: its tables are whole" in verdict["summary"]
    assert any("index own.tagged_hash is not checked" in line for line in verdict["evidence"])
    again = shop.restore(backup=run, state="live")
    assert not again.failed, again.msg
    assert shop.count() == 500


@pytest.mark.procedure("B22", "A24")
def test_a_backup_from_before_the_extension_is_equal_to_its_copy_with_it(watched: Shop) -> None:
    """The disaster came first: it was created in the copy only."""
    shop = watched
    assert shop.restore().changed
    shop.site.sql("CREATE EXTENSION amcheck", database=shop.copy)
    again = shop.restore()
    assert (again.failed, again.changed) == (False, False), again.msg
    shop.site.sql("GRANT EXECUTE ON FUNCTION own.bt_index_check TO PUBLIC", database=shop.copy)
    differs = shop.restore()
    assert differs.failed
    assert "grants on FUNCTION own.bt_index_check(i integer)" in differs.msg
