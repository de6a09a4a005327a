# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup from a standby that stands in the way of its recovery, is paused, or lags, and from a damaged server.

The servers are the tests' own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import DEBIAN_VERSION, USER

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.pings import PERIOD
from support.backups import PATIENCE, Site, make_site
from support.modules import ModuleRun, run_module
from support.postgresql_servers import PASSWORD, Server, damage_table, start_server, start_standby
from support.s3_proxy import Fault, Request, s3_proxy
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.lab("postgresql", "versitygw")

# Its programs are complete: servers of other versions come without pg_basebackup.
PROGRAMS = Path(f"/usr/lib/postgresql/{DEBIAN_VERSION}/bin")

# Each row has 3 kB that hardly compress: 60,000 make some parts of 16 MiB, more than are held in memory.
WIDE = """
CREATE TABLE wide AS
  SELECT g, (SELECT string_agg(encode(sha512(((g * 1000 + i)::text)::bytea), 'hex'), '')
               FROM generate_series(1, 25) i) AS v
    FROM generate_series(1, %(rows)s) g
"""


REPLAYED = """
SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
"""


@dataclass(frozen=True)
class Pair:
    """A primary with a database, a standby whose recovery waits for nobody, and a bucket."""

    site: Site
    standby: Server

    def backup(self, *, check: bool = False, **options: Any) -> ModuleRun:
        """Dump the standby."""
        where = {"login_port": self.standby.port, "source": "standby", "bin_dir": str(self.standby.programs)}
        return run_module("pg_backup", self.site.params(**where, **{"max_age": "0", **options}), check=check)

    def ask(self, question: str) -> Any:
        """Return the value that the standby answers with."""
        return self.standby.administer(question)[0][0]

    def wait_until(self, question: str) -> None:
        """Wait until the standby says yes."""
        end = time.monotonic() + PATIENCE
        while not self.ask(question):
            assert time.monotonic() < end, f"never: {question}"
            time.sleep(0.05)

    def manifests(self) -> list[str]:
        """The backups that may count."""
        return [key for key in self.site.names() if key.endswith("/manifest.json")]


@contextmanager
def make_own_site(server: Server, lab: dict[str, Any], folder: Path, unique_name: Callable[..., str]) -> Iterator[Site]:
    """A site on a server of the test's own."""
    passfile = folder / "pgpass"
    passfile.write_text(f"*:*:*:{USER}:{PASSWORD}\n")
    passfile.chmod(0o600)
    facts = {"hosts": [server.host], "port": server.port, "superuser": USER, "passfile": str(passfile)}
    with make_site({**lab, "postgresql": facts}, "versitygw", unique_name) as site:
        yield site


@pytest.fixture(scope="module")
def servers(lab_facts: dict[str, Any]) -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    with (
        start_server(DEBIAN_VERSION, PROGRAMS, Path(lab_facts["lab"]["state"])) as primary,
        start_standby(primary, "hot_standby_feedback = off", "max_standby_streaming_delay = 0") as standby,
    ):
        yield primary, standby


@pytest.fixture
def pair(
    servers: tuple[Server, Server], lab: dict[str, Any], tmp_path: Path, unique_name: Callable[..., str]
) -> Iterator[Pair]:
    """An empty bucket, and a database that both servers have."""
    primary, standby = servers
    with make_own_site(primary, lab, tmp_path, unique_name) as site:
        site.wait_replayed()
        yield Pair(site, standby)
        standby.administer("SELECT pg_wal_replay_resume()")


def test_a_standby_can_be_dumped_in_several_streams(pair: Pair) -> None:
    """All of the snapshot that the standby has exported."""
    pair.site.sql(WIDE, values={"rows": 8000})
    pair.site.sql("CREATE TABLE as_wide AS SELECT * FROM wide")
    pair.site.wait_replayed()
    done = pair.backup(jobs=2)
    assert done.changed, done.msg
    assert done["backup"]["source"] == "standby"
    assert done["backup"]["dumps"] == ["main.pgc.zst", "data-1.pgc.zst"]


@pytest.mark.procedure("A22")
@pytest.mark.parametrize(
    ("moment", "rows"),
    [("started.json", 500), ("dump.pgc.zst", 60_000)],
    ids=["before the dump", "in the middle of it"],
)
def test_a_conflict_with_recovery_is_named_and_leaves_no_manifest(pair: Pair, moment: str, rows: int) -> None:
    """Rows that the dump needs are vacuumed away on the primary."""
    first = pair.backup()
    assert first.changed, first.msg
    pair.site.sql(WIDE, values={"rows": rows})
    pair.site.wait_replayed()
    vacuumed: list[Request] = []
    turn = threading.Lock()

    def rule(request: Request) -> Fault | None:
        if request.method == "PUT" and moment in request.target:
            with turn:  # the other parts wait, and with them pg_dump
                if not vacuumed:
                    vacuumed.append(request)
                    pair.site.sql("DELETE FROM wide WHERE g % 2 = 0")
                    pair.site.sql("VACUUM wide")
                    pair.site.wait_replayed()
        return None

    with s3_proxy(pair.site.server["endpoint_url"], rule) as proxy:
        failed = pair.backup(endpoint_url=proxy.url)
    assert vacuumed
    assert failed.failed
    assert "this standby went on with its recovery and ended the dump" in failed["error"]["problem"], failed.msg
    assert f":{pair.standby.port} " in failed["error"]["object"]
    assert "hot_standby_feedback" in failed["error"]["next_step"]
    assert len(pair.manifests()) == 1
    pair.site.nothing_left()
    again = pair.backup()
    assert again.changed, again.msg
    proven = pair.site.s3_params(verify="full", bin_dir=str(pair.standby.programs))
    assert not run_module("pg_backup_info", proven).failed


def test_a_standby_that_is_paused_makes_no_backup_older_than_the_last(pair: Pair) -> None:
    """It is refused by name, also in check mode, before retention can take the better one."""
    first = pair.backup()
    assert first.changed, first.msg
    pair.standby.administer("SELECT pg_wal_replay_pause()")
    pair.site.sql("CREATE TABLE later AS SELECT 1 AS i")
    pair.wait_until("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
    names = pair.site.names()
    for check in (True, False):
        refused = pair.backup(check=check, keep=1)
        assert refused.failed
        assert "this standby is paused: its data is of" in refused["error"]["problem"]
        assert first["backup"]["run_id"] in refused["error"]["problem"]
        assert refused["error"]["next_step"] == "Resume its replay (pg_wal_replay_resume())"
        assert refused["error"]["refused"] is True
    assert pair.site.names() == names
    pair.standby.administer("SELECT pg_wal_replay_resume()")
    pair.site.wait_replayed()
    done = pair.backup()
    assert (done["backup"]["tables"], done["backup"]["rows"]) == (5, 2102)


def test_a_standby_that_lags_by_more_than_is_allowed_is_refused(pair: Pair) -> None:
    """Changes arrive, and are applied an hour later; within what is allowed the backup is dated by its data."""
    pair.standby.administer("ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "SELECT pg_reload_conf()")
    pair.wait_until("SELECT current_setting('recovery_min_apply_delay') = '1h'")
    try:
        pair.site.sql("CREATE TABLE later AS SELECT 1 AS i")
        pair.wait_until("SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
        pair.wait_until("SELECT now() - pg_last_xact_replay_timestamp() > '3s'")
        refused = pair.backup(max_age="2s")
        assert "this standby lags behind: its data is of" in refused["error"]["problem"]
        assert "allowed are 2 s" in refused["error"]["problem"]
        assert "pg_stat_wal_receiver" in refused["error"]["next_step"]
        assert pair.site.names() == []
        replayed = pair.ask(REPLAYED)
        done = pair.backup(max_age="1h")
        assert done["backup"]["taken_at"] == replayed
        assert done["backup"]["tables"] == 4
    finally:
        pair.standby.administer("ALTER SYSTEM RESET recovery_min_apply_delay", "SELECT pg_reload_conf()")
        pair.site.wait_replayed()


@pytest.mark.procedure("A22")
def test_a_standby_below_one_that_is_cut_off_is_not_current(pair: Pair) -> None:
    """It has replayed all that it received, and is connected; what the primary wrote since then is not in its data."""
    conninfo = pair.ask("SELECT current_setting('primary_conninfo')").replace("'", "''")
    with start_standby(pair.standby) as below:
        lower = Pair(pair.site, below)
        pair.standby.administer("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        try:
            pair.wait_until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
            lower.wait_until("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)")
            pair.site.sql("CREATE TABLE later AS SELECT 1 AS i")
            lower.wait_until("SELECT now() - pg_last_xact_replay_timestamp() > '3s'")
            refused = lower.backup(max_age="2s")
            assert refused.failed
            assert "this standby lags behind: its data is of" in refused["error"]["problem"]
            assert "allowed are 2 s" in refused["error"]["problem"]
            done = lower.backup(max_age="1h")
            assert done["backup"]["taken_at"] == lower.ask(REPLAYED)
        finally:
            pair.standby.administer(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'", "SELECT pg_reload_conf()")
            pair.wait_until("SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)")
            pair.site.wait_replayed()


@pytest.mark.procedure("A22")
def test_a_proxy_that_ends_idle_connections_does_not_end_a_backup(pair: Pair, servers: tuple[Server, Server]) -> None:
    """While the dump is on its way nothing else is to be said on the sessions of its lock and of its snapshot."""
    primary, _standby = servers

    def rule(request: Request) -> Fault | None:
        if request.method == "PUT" and "dump.pgc.zst" in request.target:
            time.sleep(1.8 * PERIOD)
        return None

    with (
        TcpProxy(primary.host, primary.port, idle=1.7 * PERIOD) as proxy,
        s3_proxy(pair.site.server["endpoint_url"], rule) as store,
    ):
        options = {"login_port": proxy.port, "bin_dir": str(primary.programs), "endpoint_url": store.url}
        done = run_module("pg_backup", pair.site.params(**options))
    assert done.changed, done.msg


@pytest.mark.procedure("B22")
def test_damaged_data_is_named_and_the_last_verified_backup_stays(
    lab: dict[str, Any], tmp_path: Path, unique_name: Callable[..., str]
) -> None:
    """A page that a disk has lost ends the dump; the backup of before counts, and is decoded before a restore."""
    with (
        start_server(DEBIAN_VERSION, PROGRAMS, Path(lab["lab"]["state"])) as server,
        make_own_site(server, lab, tmp_path, unique_name) as site,
    ):
        params = site.params(bin_dir=str(PROGRAMS), max_age="0", keep=1, keep_for="0")
        first = run_module("pg_backup", params)
        assert first.changed, first.msg
        damage_table(server, site.database, "feature")
        failed = run_module("pg_backup", params)
        assert failed.failed
        assert "its data is damaged, and cannot be dumped (pg_dump:" in failed["error"]["problem"], failed.msg
        assert "feature" in failed["error"]["problem"]
        assert "pg_amcheck" in failed["error"]["next_step"]
        site.nothing_left()
        proven = run_module("pg_backup_info", site.s3_params(verify="full", bin_dir=str(PROGRAMS)))
        assert not proven.failed, proven.msg
        assert proven["decoded"] == [first["backup"]["run_id"]]
