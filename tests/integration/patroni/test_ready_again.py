# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_cluster ends with a cluster whose members may take over as before, so that its next step finds a candidate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from support.modules import run_module
from support.patroni_sites import TIMEOUT, Cluster, wait_until


def count_confirming(cluster: Cluster) -> int:
    """How many members confirm commits."""
    return sum(member["role"] == "sync_standby" for member in cluster.members().values())


@contextlib.contextmanager
def synchronous(cluster: Cluster) -> Iterator[None]:
    """Both standbys confirm each commit, until the end of the block."""
    mode = {"synchronous_mode": True, "synchronous_node_count": 2}
    cluster.ask("/config", body=mode, method="PATCH")
    try:
        wait_until(lambda: count_confirming(cluster) == 2, "both standbys confirm commits")
        yield
    finally:
        cluster.ask("/config", body=dict.fromkeys(mode), method="PATCH")
        wait_until(lambda: count_confirming(cluster) == 0, "none confirms commits any more")


@pytest.mark.procedure("A26")
def test_the_next_run_finds_a_candidate_at_once(east: Cluster) -> None:
    """There and back: whoever is declared next confirms commits by then."""
    old = east.leader()
    new = "east1" if old == "east2" else "east2"
    with synchronous(east):
        for leader in (new, old):
            run = run_module("patroni_cluster", {**east.params, "timeout": TIMEOUT, "leader": leader})
            assert not run.failed, run.msg
            assert east.leader() == leader
            assert count_confirming(east) == 2


@pytest.mark.sweep
@pytest.mark.procedure("A26")
def test_a_synchronous_cluster_is_restarted_whole_and_its_leader_leads_again(east: Cluster) -> None:
    """Patroni counts a member among those that confirm some rounds after it streams: each step waits for that."""
    leader = east.leader()
    with synchronous(east):
        limit = int(east.sql("SHOW max_connections")[0][0])
        east.ask("/config", body={"postgresql": {"parameters": {"max_connections": limit + 5}}}, method="PATCH")
        wait_until(lambda: all(east.ask("/patroni", name).get("pending_restart") for name in east.nodes), "it waits")
        params = {**east.params, "timeout": TIMEOUT, "restart": "pending", "leader": leader}
        run = run_module("patroni_cluster", params)
        assert not run.failed, run.msg
        assert count_confirming(east) == 2
    assert east.leader() == leader
    assert {int(east.sql("SHOW max_connections", name)[0][0]) for name in east.nodes} == {limit + 5}
