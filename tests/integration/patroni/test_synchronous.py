# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_cluster where only members that confirm commits may take over, on a real cluster in synchronous mode."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from support.modules import ModuleRun, run_module
from support.patroni_sites import TIMEOUT, Cluster, Region, wait_until
from support.steady_writer import SteadyWriter

Json = dict[str, Any]
MEMBERS = ["sync1", "sync2", "sync3"]
REASON = "synchronous_mode is on, and it does not confirm commits"


@pytest.fixture(scope="module")
def cluster(region: Region) -> Cluster:
    """Three members, of which each may lead."""
    return region.make("sync", MEMBERS)


@contextlib.contextmanager
def synchronous(cluster: Cluster, **more: Any) -> Iterator[None]:
    """The cluster in synchronous mode until the end of the block, also where that fails."""
    mode = {"synchronous_mode": True, **more}
    cluster.wait_whole()
    cluster.ask("/config", body=mode, method="PATCH")
    try:
        wait_until(lambda: find_confirming(cluster), "a standby confirms commits")
        yield
    finally:
        cluster.ask("/config", cluster.leader(), body=dict.fromkeys(mode), method="PATCH")
        cluster.wait_whole()
        wait_until(lambda: not find_confirming(cluster), "no standby confirms commits any more")


def find_confirming(cluster: Cluster) -> str:
    """The member that confirms commits, empty where none does."""
    return next((name for name, member in cluster.members().items() if member["role"] == "sync_standby"), "")


def declare(cluster: Cluster, leader: str, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("patroni_cluster", {**cluster.params, "timeout": TIMEOUT, "leader": leader, **more})


@pytest.mark.procedure("A26")
def test_only_who_confirms_commits_takes_over(cluster: Cluster) -> None:
    """F25. Patroni rejects another one as well, and does not have to be asked."""
    with synchronous(cluster):
        old, new = cluster.leader(), find_confirming(cluster)
        (other,) = set(MEMBERS) - {old, new}
        refused = declare(cluster, other)
        assert refused["error"]["refused"], refused.msg
        assert f"{other}: {REASON}" in refused.msg
        with pytest.raises(urllib.error.HTTPError) as rejected:
            cluster.ask("/switchover", old, {"leader": old, "candidate": other})
        assert rejected.value.code == 412
        assert run_module("patroni_cluster_info", cluster.params)["candidates"] == [new]

        with SteadyWriter(cluster.connect).writing() as writer:
            run = declare(cluster, new)
            assert not run.failed, run.msg
        assert cluster.leader() == new
        assert writer.refused, "the writer has not noticed the switchover"
        assert writer.lost() == []
        wait_until(lambda: find_confirming(cluster), "a standby confirms commits of the new leader")
        assert not declare(cluster, new).changed


@pytest.mark.sweep
@pytest.mark.procedure("A26")
def test_of_a_killed_leader_no_acknowledged_row_is_lost(cluster: Cluster) -> None:
    """F25. The one that confirms commits takes over; the other one is refused, though it may have all rows as well."""
    with synchronous(cluster):
        old, new = cluster.leader(), find_confirming(cluster)
        (other,) = set(MEMBERS) - {old, new}
        with SteadyWriter(cluster.connect).writing() as writer:
            cluster.kill(old)
            try:
                refused = declare(cluster, other, allow_failover=True)
                assert refused["error"]["refused"], refused.msg
                assert REASON in refused.msg
                run = declare(cluster, new, allow_failover=True)
                assert not run.failed, run.msg
                assert cluster.leader() == new
            finally:
                cluster.start(old)
        assert writer.lost() == []
        cluster.wait_whole()


@pytest.mark.sweep
@pytest.mark.procedure("A26")
def test_without_anybody_who_confirms_a_strict_cluster_waits_and_nobody_takes_over(cluster: Cluster) -> None:
    """A write stands still until a standby is back; nobody is promoted meanwhile, and nothing is lost."""
    with synchronous(cluster, synchronous_mode_strict=True):
        leader = cluster.leader()
        standbys = sorted(set(MEMBERS) - {leader})
        cluster.sql("CREATE TABLE IF NOT EXISTS strict (id int)")
        for name in standbys:
            cluster.kill(name)
        writing = threading.Thread(target=cluster.sql, args=("INSERT INTO strict VALUES (1)",), daemon=True)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        try:
            writing.start()
            wait_until(lambda: cluster.sql(waits, leader) == [(1,)], "the write waits")
            for name in standbys:
                for options in ({}, {"allow_failover": True}):
                    run = declare(cluster, name, **options)
                    assert run["error"]["refused"], run.msg
            assert cluster.leader() == leader
            assert cluster.sql(waits, leader) == [(1,)]
        finally:
            cluster.start(*standbys)
        writing.join(60)
        assert not writing.is_alive()
        cluster.wait_whole()
        confirming = wait_until(lambda: find_confirming(cluster), "a standby confirms commits again")
        run = declare(cluster, confirming)
        assert not run.failed, run.msg
        assert cluster.sql("SELECT id FROM strict") == [(1,)]
