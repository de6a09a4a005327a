# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_cluster on a real cluster with TLS, client certificates and a password."""

from __future__ import annotations

from typing import Any

from support.modules import ModuleRun, run_module
from support.patroni_sites import Cluster

Json = dict[str, Any]


def other(cluster: Cluster) -> str:
    """The one of the two members that may lead which does not."""
    return "east1" if cluster.leader() == "east2" else "east2"


def declare(cluster: Cluster, *, check: bool = False, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("patroni_cluster", {**cluster.params, "timeout": 90, **more}, check=check)


def test_the_declared_member_leads(east: Cluster) -> None:
    """Check mode predicts and sends nothing; the run moves the leader; a second one changes nothing."""
    old, new = east.leader(), other(east)
    timeline = east.ask("/patroni", old)["timeline"]
    predicted = declare(east, leader=new, check=True)
    assert not predicted.failed, predicted.msg
    assert predicted.changed
    assert predicted["diff"] == {
        "before": {"leader": old, "pending_restart": []},
        "after": {"leader": new, "pending_restart": []},
    }
    assert east.leader() == old
    run = declare(east, leader=new)
    assert not run.failed, run.msg
    assert run.changed
    assert run["diff"] == predicted["diff"]
    assert run["plan"] == predicted["plan"]
    assert run["summary"] == f"{new} leads east on timeline {timeline + 1}, was {old} (switchover)"
    assert east.is_whole()
    assert east.leader() == new
    assert east.sql("SELECT pg_is_in_recovery()", old) == [(True,)]
    again = declare(east, leader=new)
    assert not again.failed, again.msg
    assert not again.changed
    assert again["plan"] == []
    assert again["waited"] == 0.0
