# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_maintenance in a schema of its own, with rights that are missing: said before, in check mode too, with the GRANT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg2 import sql

from .conftest import Database
from .test_pg_maintenance_indexes import COMPACT, _waste

DEAD: dict[str, Any] = {"dead_tuple_ratio": 0.1, "minimum_tuples": 100}


@pytest.fixture
def keeper(database: Database) -> Iterator[dict[str, Any]]:
    """A role that may maintain every table, and uses no schema but public; up to 16 it owns what it maintains."""
    role = f"keeper_{database.name}"
    version = int(database.one("SHOW server_version_num"))
    database.table("busy")
    database.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'weak'",
        f"GRANT {'pg_maintain, ' if version >= 170000 else ''}pg_read_all_stats TO {role}",
        *([] if version >= 170000 else [f"ALTER TABLE busy OWNER TO {role}"]),
        "CREATE SCHEMA shop",
        "ALTER TABLE busy SET SCHEMA shop",
    )
    yield {"login_user": role, "login_password": "weak"}
    database.sql(f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("check", [True, False])
def test_a_schema_that_is_closed_is_said_with_its_grant(
    database: Database, keeper: dict[str, Any], check: bool
) -> None:
    """Check mode does not promise what the run could not do, and reporting does not hide it."""
    run = database.maintain(**DEAD, **keeper, on_blocked="report", check=check)
    assert run.failed
    assert not run.changed
    assert run["plan"] == []
    assert run["error"]["next_step"] == f"GRANT USAGE ON SCHEMA shop TO {keeper['login_user']}"
    database.sql(run["error"]["next_step"])
    again = database.maintain(**DEAD, **keeper, on_blocked="report", check=check)
    assert not again.failed, again.msg
    assert again.changed


def test_an_index_in_a_schema_that_is_closed(database: Database, keeper: dict[str, Any]) -> None:
    """The same for a rebuild."""
    database.table("bloated", dead=False)
    database.sql(
        "ALTER TABLE bloated SET SCHEMA shop",
        f"ALTER TABLE shop.bloated OWNER TO {keeper['login_user']}",
    )
    options: dict[str, Any] = {"invalid_indexes": "none", **keeper, "on_blocked": "report"}
    database.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.bloated_state'::regclass")
    run = database.maintain(**options, check=True)
    assert run.failed
    assert run["error"]["next_step"] == f"GRANT USAGE ON SCHEMA shop TO {keeper['login_user']}"
    database.sql(run["error"]["next_step"])
    run = database.maintain(**options)
    assert not run.failed, run.msg
    assert [entry["object"] for entry in run["done"]] == ["index shop.bloated_state"]


def test_a_measuring_that_is_not_allowed_names_its_right(database: Database, keeper: dict[str, Any]) -> None:
    """pgstattuple is there, and GRANT pg_stat_scan_tables is less than what else would open it."""
    role = sql.Identifier(keeper["login_user"])
    database.table("bloated", rows=40000, dead=False)
    database.sql(
        "CREATE EXTENSION pgstattuple",
        "CREATE INDEX bloated_note ON bloated (note)",
        sql.SQL("ALTER TABLE bloated OWNER TO {}").format(role),
    )
    _waste(database, "bloated")
    database.sql("DELETE FROM pg_statistic WHERE starelid = 'bloated'::regclass")
    options: dict[str, Any] = {**COMPACT, **keeper, "tables": ["bloated"], "on_blocked": "report"}
    run = database.maintain(**options, check=True)
    assert f"GRANT pg_stat_scan_tables TO {keeper['login_user']}" in str(run["not_done"])
    database.sql(sql.SQL("GRANT pg_stat_scan_tables TO {}").format(role))
    assert not database.maintain(**options, check=True)["not_done"]
