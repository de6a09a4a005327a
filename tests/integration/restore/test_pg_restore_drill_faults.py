# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_restore_drill where something is odd: read-only databases, poolers, other runs, newer backups that do not count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from labkit.postgresql_programs import NEWEST

from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.side import MARK_LIMIT, find_lock_key
from support.backups import quoted
from support.modules import ModuleRun, run_module
from support.postgresql_proxy import Statement, StatementProxy
from support.postgresql_servers import find_server
from support.restores import PASSWORD, Shop, assert_done, make_shop

from .test_pg_restore_drill import QUERY, make_key

pytestmark = pytest.mark.lab("postgresql_versions", "versitygw")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The site's key."""
    return make_key(tmp_path / "drill.pem")


def drill(shop: Shop, key: Path, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("pg_restore_drill", {**shop.params(query=QUERY, signing_key=str(key)), **more})


@pytest.mark.procedure("D19", "D21", "E6")
def test_a_newer_backup_that_does_not_count_is_named(shop: Shop, key: Path) -> None:
    """The older one is proven, and the result and the evidence say what was passed over; its transactions are read only."""
    shop.site.sql(f"ALTER DATABASE {quoted(shop.name)} SET default_transaction_read_only TO on", database="postgres")
    proven, broken = shop.back_up(), shop.back_up()
    for name in shop.site.names():
        if broken in name and name.endswith("dump.pgc.zst"):
            shop.site.client.delete_object(Bucket=shop.site.bucket, Key=name)
    done = drill(shop, key)
    assert not done.failed, done.msg
    assert done["drill"]["backup"] == proven
    assert [(broken in entry["url"], entry["problem"]) for entry in done["passed_over"]] == [
        (True, "dump.pgc.zst is missing")
    ]
    assert done["drill"]["passed_over"] == done["passed_over"]
    assert f"newer than backup {proven} and was passed over" in str(done["warnings"])
    assert shop.databases() == [shop.name]


@pytest.mark.procedure("D19")
def test_what_another_run_is_making_is_left_alone(shop: Shop, key: Path) -> None:
    """A copy that has no mark so far belongs to who holds the lock; without one it is a leftover, and its end a change."""
    left = f"{shop.name}_drill_20260101t000000z_00000001"
    other_name = f"{shop.name}_drill_drill_20260101t000000z_00000001"
    for name in (left, other_name):
        shop.site.sql(f"CREATE DATABASE {name} OWNER {shop.account} CONNECTION LIMIT {MARK_LIMIT}", database="postgres")
    facts = shop.site.lab["postgresql"]
    with closing(
        psycopg2.connect(
            host=shop.server.host,
            port=shop.server.port,
            user=facts["superuser"],
            passfile=facts["passfile"],
            dbname="postgres",
        )
    ) as other:
        with other.cursor() as cursor:
            cursor.execute(f"SELECT pg_advisory_lock({0x4C4F5754}, {find_lock_key(shop.name)})")
        run = drill(shop, key)
        assert run["error"]["refused"] is True
        assert "another restore of this database is running" in run.msg
        assert (run.changed, left in shop.databases()) == (False, True)
    failed = drill(shop, key, query="SELECT false AS fine")
    assert failed.failed
    assert (failed.changed, failed["removed"]) == (True, [left])
    assert shop.databases() == sorted([shop.name, other_name])


def connect(shop: Shop, database: str, **account: Any) -> Any:
    """A session such as an exporter keeps, which visits every database."""
    place: dict[str, Any] = {"host": shop.server.host, "port": shop.server.port, "dbname": database}
    return closing(psycopg2.connect(application_name="postgres_exporter", **place, **account))


@pytest.mark.procedure("D19", "D21")
def test_an_exporter_in_a_copy_keeps_no_drill_from_being_made(shop: Shop, key: Path) -> None:
    """Its session is ended with the copy. Where this account may not, the next drill is made, and the copy is told."""
    facts = shop.site.lab["postgresql"]
    superuser = {"user": facts["superuser"], "passfile": facts["passfile"]}
    open_sessions: list[Any] = []

    def before(statement: Statement) -> bool:
        if not statement.text.startswith("DROP DATABASE"):
            return True
        name = next(name for name in shop.databases() if quoted(name) in statement.text)
        account = superuser if not open_sessions else {"user": shop.account, "password": PASSWORD}
        session = connect(shop, name, **account)
        open_sessions.append(session)
        return len(open_sessions) > 1

    try:
        with StatementProxy(shop.server.host, shop.server.port, before) as proxy:
            way = {"login_host": proxy.host, "login_port": proxy.port, "ssl_mode": "disable"}
            assert drill(shop, key, **way)["drill"]["copy_removed"] is False
            (left,) = [name for name in shop.databases() if name != shop.name]
            looked = drill(shop, key)
            assert "postgres_exporter" in looked.msg
            assert "could not be ended by this account" in looked.msg
            newer = shop.back_up()
            done = drill(shop, key, max_age="0", **way)
        assert not done.failed, done.msg
        assert (done["drill"]["backup"], done["drill"]["copy_removed"], done["removed"]) == (newer, True, [])
        assert f"{left}" in str(done["warnings"])
        assert len(open_sessions) == 2
        assert shop.databases() == sorted([shop.name, left])
        open_sessions[0].thing.close()
        with connect(shop, left, user=shop.account, password=PASSWORD):
            again = drill(shop, key)
        assert (again.failed, again["removed"]) == (False, [left]), again.msg
    finally:
        for session in open_sessions:
            session.thing.close()


@pytest.fixture
def newest(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Shop]:
    """A shop on the server behind PgBouncer."""
    with make_shop(find_server(lab, NEWEST), lab, unique_name) as made:
        yield made


@pytest.mark.lab("pgbouncer")
@pytest.mark.procedure("D19", "D21")
def test_a_drill_through_a_pooler_that_keeps_sessions(newest: Shop, key: Path, lab: dict[str, Any]) -> None:
    """What it keeps of the drill's own sessions is no stranger; and the owner of a large object is compared."""
    place = lab["pgbouncer"]["session"]
    way = newest.site.params(
        login_host=place["host"], login_port=place["port"], bin_dir=newest.programs, maintenance_db="lowtide"
    )
    done = run_module("pg_restore_drill", {**way, "query": QUERY, "signing_key": str(key)})
    assert not done.failed, done.msg
    assert newest.databases() == [newest.name]

    def restore(**more: Any) -> ModuleRun:
        return run_module("pg_restore", {**way, **more})

    for is_changed in (True, False):
        run = restore()
        assert (run.failed, run.changed) == (False, is_changed), run.msg
    newest.site.sql(f"ALTER LARGE OBJECT 900001 OWNER TO {newest.reader}", database=newest.copy)
    assert "large object 900001: its owner, grants or comment are others" in restore().msg
    live = {"state": "live", "backup": newest.run_id, "compare_with": "original"}
    for options in ({"state": "absent", "backup": newest.run_id}, {}, live):
        run = restore(**options)
        assert_done(run)
    assert newest.databases() == sorted([newest.name, newest.kept])
