# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_site on two clusters: the primary one moves, the other one follows, and no acknowledged row is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg2
import pytest

from support.modules import ModuleRun, finish_module, run_module, start_module
from support.patroni_sites import ADDRESS, Cluster, Region, wait_until
from support.steady_writer import SteadyWriter

Json = dict[str, Any]


class Pair(NamedTuple):
    """Two clusters with the same data."""

    south: Cluster
    north: Cluster

    @property
    def primary(self) -> Cluster:
        """The one that follows nobody."""
        return self.north if self.south.ask("/config").get("standby_cluster") else self.south

    @property
    def standby(self) -> Cluster:
        """The other one."""
        return self.north if self.primary is self.south else self.south

    def connect(self) -> Any:
        """A session on the primary, wherever it is."""
        ports = [node.port for cluster in self for node in cluster.site.nodes]
        connection = psycopg2.connect(
            host=",".join([ADDRESS] * len(ports)),
            port=",".join(map(str, ports)),
            user="postgres",
            password=self.south.site.passwords.superuser,
            dbname="postgres",
            connect_timeout=2,
            target_session_attrs="read-write",
        )
        connection.autocommit = True
        return connection


@pytest.fixture(scope="module")
def pair(region: Region) -> Pair:
    """South, and north, which follows it."""
    south = region.make("south", ["south1", "south2"])
    primary = {"host": ADDRESS, "port": south.nodes[south.leader()].port}
    return Pair(south, region.make("north", ["north1"], primary=primary))


def params(new: Cluster, old: Cluster, **more: Any) -> Json:
    """Have ``new`` be the primary cluster."""
    return {"primary": new.params, "old_primary": old.params, "timeout": 90, **more}


def declare(new: Cluster, old: Cluster, *, check: bool = False, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("patroni_site", params(new, old, **more), check=check)


@pytest.mark.procedure("A27")
def test_the_other_site_takes_over_and_nothing_is_lost(pair: Pair) -> None:
    """Fenced before it is promoted; then back again, the same way."""
    for _way in ("there", "back"):
        new, old = pair.standby, pair.primary
        predicted = declare(new, old, check=True)
        assert predicted.changed, predicted.msg
        assert pair.primary is old
        with SteadyWriter(pair.connect).writing() as writer:
            run = declare(new, old)
            assert not run.failed, run.msg
        assert run["plan"] == predicted["plan"]
        assert run["diff"] == predicted["diff"]
        assert [item["object"] for item in run["plan"]] == [
            f"Patroni cluster {old.site.scope}",
            f"Patroni cluster {new.site.scope}",
        ]
        assert pair.primary is new
        assert writer.lost() == []
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            old.sql("INSERT INTO steady VALUES (-1)", old.leader())
        wait_until(lambda old=old, writer=writer: has_all(old, writer), "the old site has all rows")
        again = declare(new, old)
        assert not again.failed, again.msg
        assert not again.changed
        print(f"gap {writer.gap:.1f} s, {run['waited']} s")


def has_all(cluster: Cluster, writer: SteadyWriter) -> bool:
    """Whether a cluster that follows has each acknowledged row."""
    rows = {row[0] for row in cluster.sql("SELECT id FROM steady", cluster.leader())}
    return set(writer.acknowledged) <= rows
