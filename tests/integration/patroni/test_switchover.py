# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_cluster on a real cluster with TLS, client certificates and a password."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.modules import ModuleRun, finish_module, run_module, start_module
from support.patroni_sites import ADDRESS, TAGS, TIMEOUT, Cluster, Region, wait_until
from support.playbooks import PlaybookRun, describe_window
from support.steady_writer import SteadyWriter
from support.tcp_proxy import TcpProxy

Json = dict[str, Any]


def other(cluster: Cluster) -> str:
    """The one of the two members that may lead which does not."""
    return "east1" if cluster.leader() == "east2" else "east2"


def declare(cluster: Cluster, *, check: bool = False, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("patroni_cluster", {**cluster.params, "timeout": TIMEOUT, **more}, check=check)


@pytest.mark.procedure("A26")
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


@pytest.mark.procedure("A26")
def test_disaster_recovery_has_another_member_lead(
    east: Cluster, tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """The playbook's own step: rehearsed, done, and then not due."""
    old, new = east.leader(), other(east)
    chosen = {"disaster_recovery": "failover", "window_only": "failover", "failover_leader": new}
    variables = {**chosen, "patroni_connection": east.params, **describe_window(tmp_path)}
    arguments = ("lowtide.ops.disaster_recovery", "-i", str(tmp_path / "hosts.yml"))
    rehearsal = ansible_playbook(*arguments, "--check", extra_vars=variables)
    assert rehearsal.rc == 0, rehearsal.stdout
    assert east.leader() == old
    done = ansible_playbook(*arguments, extra_vars=variables)
    assert done.rc == 0, done.stdout
    assert east.leader() == new
    assert "succeeded" in done.stdout
    again = ansible_playbook(*arguments, extra_vars=variables)
    assert (again.rc, again.changed) == (0, 0), again.stdout


@pytest.mark.procedure("A26")
def test_an_account_without_rights_is_refused(east: Cluster) -> None:
    """Reading needs a trusted certificate only; writing needs the password, and a client certificate."""
    new = other(east)
    cases: list[tuple[Json, str]] = [
        ({"username": None}, "401 no auth header received"),
        ({"client_cert": None, "client_key": None}, "403 client certificate required"),
        ({"ca_path": None}, "certificate verify failed"),
    ]
    for changes, said in cases:
        run = declare(east, leader=new, **changes)
        assert run.failed
        assert said in run.msg, run.msg
        assert run["error"]["refused"], run.msg
    assert not declare(east, leader=east.leader(), username=None).failed


@pytest.mark.procedure("A26")
def test_what_must_not_lead_is_refused_with_why(east: Cluster) -> None:
    """F23: a tag, a member and a cluster that do not exist, a pause; nothing is sent."""
    leader = east.leader()
    for options, said in (
        ({"leader": "east3"}, "east3: tag nofailover is True"),
        ({"leader": "pg9"}, "it has no member pg9; its members are east1, east2, east3"),
        ({"leader_tags": {"site": "z"}}, "no member is a member with tags site=z"),
        ({"leader": "east3", "scope": "shop"}, "its scope is east, and shop is meant"),
        ({"leader": "east3", "system_identifier": "1"}, "and 1 is meant"),
        ({"started_after": "yesterday"}, "'yesterday' is no time with its zone"),
    ):
        run = declare(east, **options)
        assert run.failed
        assert said in run.msg, run.msg
        assert run["error"]["refused"]
    east.ask("/config", body={"pause": True}, method="PATCH")
    try:
        wait_until(lambda: east.ask("/cluster").get("pause"), "it is paused")
        run = declare(east, leader=other(east))
        assert run["error"]["refused"]
        assert "it is paused (maintenance mode)" in run.msg
    finally:
        east.ask("/config", body={"pause": None}, method="PATCH")
    wait_until(lambda: not east.ask("/cluster").get("pause"), "it is not paused")
    assert east.leader() == leader


@contextlib.contextmanager
def lagging(cluster: Cluster, name: str) -> Iterator[None]:
    """A member that receives and does not replay, until the end of the block; Patroni would end pg_wal_replay_pause()."""
    ((pid,),) = cluster.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'", name)
    os.kill(pid, signal.SIGSTOP)
    try:
        cluster.sql("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        ((end,),) = cluster.sql("SELECT pg_current_wal_lsn()")
        received = f"SELECT pg_last_wal_receive_lsn() >= '{end}'"
        wait_until(lambda: cluster.sql(received, name)[0][0], f"{name} has received it")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        cluster.sql("DROP TABLE big")


@pytest.mark.procedure("A26")
def test_a_candidate_that_lags_is_refused_with_its_lag(east: Cluster) -> None:
    """F23. The other one is taken where either may lead."""
    candidate = other(east)
    with lagging(east, candidate):
        run = declare(east, leader=candidate)
        assert run["error"]["refused"]
        assert re.search(rf"{candidate}: it has \d{{7}} bytes of WAL to replay, more than max_lag 1048576", run.msg), (
            run.msg
        )
        info = run_module("patroni_cluster_info", east.params)
        assert info["candidates"] == []
        shown = next(member for member in info["cluster"]["members"] if member["name"] == candidate)
        assert shown["replay_lag"] > 1048576
        assert shown["receive_lag"] < 1048576
        allowed = declare(east, leader=candidate, max_lag=100_000_000, check=True)
        assert allowed.changed, allowed.msg


@pytest.mark.procedure("A26")
def test_under_load_no_acknowledged_row_is_lost(east: Cluster) -> None:
    """F25: a client that writes every 10 ms finds each row that was acknowledged, as the leader moves to another site.

    Of a site's members the one with nofailover is not taken. LOWTIDE_EXHAUSTIVE=1 does it ten times.
    """
    for _round in range(10 if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else 1):
        with SteadyWriter(east.connect).writing() as writer:
            new = other(east)
            site: Json = {"leader_tags": {"site": TAGS[new]["site"]}}
            run = declare(east, **site)
            assert not run.failed, run.msg
        assert east.leader() == new
        assert writer.lost() == []
        assert writer.refused, "the writer has not noticed the switchover"
        assert not declare(east, **site).changed


class CuttingProxy(TcpProxy):
    """A proxy whose connections can be cut all at once; what comes ``once`` it is so, and before that, is not passed on."""

    def __init__(self, host: str, target_port: int, once: Callable[[], bool]) -> None:
        self.once = once
        super().__init__(host, target_port)

    def from_server(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the server sends; the answer is none of it, however late the test comes."""
        while (chunk := server.recv(65536)) and (self.cuts or not self.once()):
            client.sendall(chunk)

    def cut_all(self) -> None:
        """Reset what is open."""
        for one in [*self._sockets]:
            with contextlib.suppress(OSError):  # it is closed already
                self.cut(one)


@pytest.mark.procedure("A26")
def test_a_lost_answer_is_read_from_the_cluster(east: Cluster) -> None:
    """F24: Patroni has accepted it, and the connection is cut before its answer."""
    old, new = east.leader(), other(east)
    log = east.site.folder / old / "patroni.log"
    before = log.read_text().count("received switchover request")

    def is_asked() -> bool:
        return log.read_text().count("received switchover request") > before

    with CuttingProxy(ADDRESS, east.nodes[old].rest_port, is_asked) as proxy:
        params = {**east.params, "urls": [f"https://{proxy.address}"], "leader": new, "timeout": TIMEOUT}
        process = start_module("patroni_cluster", params)
        wait_until(is_asked, "it is asked")
        proxy.cut_all()
        run = finish_module(process)
    assert not run.failed, run.msg
    assert proxy.cuts
    assert "Patroni's answer was lost; read from /cluster" in run["evidence"]
    assert run.changed
    assert east.leader() == new
    assert log.read_text().count("received switchover request") == before + 1


def have_lost_dcs(cluster: Cluster) -> bool:
    """Whether two members at least say that they have not read the DCS lately, and none says that it has.

    One that is demoting, or starts again, may not answer.
    """
    ages = []
    for name in cluster.nodes:
        with contextlib.suppress(OSError):
            ages.append(time.time() - cluster.ask("/patroni", name)["dcs_last_seen"])
    return len(ages) >= 2 and min(ages) > 4


def check_without_dcs(east: Cluster, region: Region) -> None:
    """F23: the members answer, and none reads the DCS."""
    candidate = other(east)
    with region.etcd.stopped():
        # One that starts again may hold a question for a minute by itself.
        wait_until(lambda: have_lost_dcs(east), "the members know it", seconds=240)
        run = declare(east, leader=candidate, request_timeout=2)
    assert run.failed
    assert run["error"]["refused"]
    # A member that is demoting just now does not answer, or does not say when it has read the DCS.
    none_reads = r"[23] of 3 members answer, and none reads the DCS .*has seen it last \d+ s ago"
    assert re.search(rf"{none_reads}|it has not read the DCS for \d+ s", run.msg, re.DOTALL), run.msg


@pytest.mark.procedure("A26")
def test_settings_that_wait_for_a_restart_are_applied(east: Cluster) -> None:
    """Standbys first, one at a time, then the old leader, which has handed over."""
    leader = east.leader()
    assert not declare(east, restart="pending").changed
    limit = int(east.sql("SHOW max_connections")[0][0])
    east.ask("/config", body={"postgresql": {"parameters": {"max_connections": limit + 5}}}, method="PATCH")
    wait_until(lambda: all(east.ask("/patroni", name).get("pending_restart") for name in east.nodes), "it waits")
    predicted = declare(east, restart="pending", check=True)
    new = other(east)
    standbys = sorted(set(east.nodes) - {leader})
    assert [item["object"] for item in predicted["plan"]] == [f"member {name}" for name in [*standbys, leader]]
    with SteadyWriter(east.connect).writing() as writer:
        run = declare(east, restart="pending")
        assert not run.failed, run.msg
    assert run["plan"] == predicted["plan"]
    assert run["summary"].startswith(f"restarted {', '.join([*standbys, leader])}; {new} leads east")
    assert writer.lost() == []
    assert {int(east.sql("SHOW max_connections", name)[0][0]) for name in east.nodes} == {limit + 5}
    assert not declare(east, restart="pending").changed


@pytest.mark.procedure("A26")
@pytest.mark.sweep
def test_a_setting_that_is_lowered_takes_the_primary_first(east: Cluster) -> None:
    """A standby does not go below its primary: one is tried, nobody hands over, and what to do is said and helps."""
    leader = east.leader()
    limit = int(east.sql("SHOW max_connections")[0][0])
    east.ask("/config", body={"postgresql": {"parameters": {"max_connections": limit - 5}}}, method="PATCH")
    wait_until(lambda: all(east.ask("/patroni", name).get("pending_restart") for name in east.nodes), "it waits")
    run = declare(east, restart="pending")
    assert run.failed
    assert "it was restarted, and waits for a restart all the same" in run.msg, run.msg
    assert "restart the primary in its place first" in run.msg
    assert east.leader() == leader
    east.ask("/restart", leader, body={}, method="POST")
    wait_until(lambda: not east.ask("/patroni", leader).get("pending_restart"), "the primary has it")
    replayed = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
    wait_until(lambda: east.sql(replayed) == [(2,)], "the standbys know it")
    run = declare(east, restart="pending")
    assert not run.failed, run.msg
    assert east.leader() == leader
    assert {int(east.sql("SHOW max_connections", name)[0][0]) for name in east.nodes} == {limit - 5}
    assert not declare(east, restart="pending").changed


def check_killed_leader(east: Cluster, _region: Region) -> None:
    """F23: refused without the flag; with it the old one's key ends first, and the old leader follows once it is back."""
    old, new = east.leader(), other(east)
    timeline = east.ask("/patroni", old)["timeline"]
    east.kill(old)
    try:
        refused = declare(east, leader=new)
        assert refused["error"]["refused"], refused.msg
        assert f"the leader {old} does not answer" in refused.msg
        assert "set allow_failover: true" in refused.msg
        run = declare(east, leader=new, allow_failover=True)
        assert not run.failed, run.msg
        assert run["summary"].startswith(f"{new} leads east on timeline {timeline + 1}, was {old} (failover)")
        assert east.leader() == new
    finally:
        east.start(old)
    east.wait_whole()
    assert east.sql("SELECT pg_is_in_recovery()", old) == [(True,)]


@contextlib.contextmanager
def without_patroni(cluster: Cluster, name: str) -> Iterator[None]:
    """A member whose Patroni is killed and whose PostgreSQL goes on, until the end of the block."""
    cluster.processes[name].kill()
    cluster.processes[name].wait()
    try:
        yield
    finally:
        cluster.start(name)


@pytest.mark.procedure("A26")
def test_a_primary_whose_patroni_is_gone_is_no_leader_that_is_gone(east: Cluster) -> None:
    """Its PostgreSQL goes on and acknowledges rows, which would be lost by a failover to another member."""
    old, new = east.leader(), other(east)
    port = east.nodes[old].port
    with without_patroni(east, old):
        for options in ({"allow_failover": True}, {}):
            run = declare(east, leader=new, **options)
            assert run["error"]["refused"], run.msg
            assert f"there may be a second primary: member {old}: its PostgreSQL takes connections at" in run.msg
        shown = run_module("patroni_cluster_info", east.params)
        assert f"takes connections at {ADDRESS}:{port}, streams from no member" in shown["blockers"][-1]["what"]
        assert east.sql("SELECT pg_is_in_recovery()", old) == [(False,)]
        assert east.leader() == old


@pytest.mark.procedure("A26")
def test_a_standby_whose_patroni_is_gone_stays_one(east: Cluster) -> None:
    """It streams from the leader, which says so: nothing stands against the other members."""
    with without_patroni(east, "east3"):
        run = declare(east, leader=east.leader())
    assert not run.failed, run.msg
    assert run["blockers"] == []


def check_elected_beside_a_primary(east: Cluster, _region: Region) -> None:
    """Patroni itself elects another leader beside a primary whose own Patroni is gone; no success is said of that."""
    old, url = east.leader(), f"https://{ADDRESS}:{{}}"
    with without_patroni(east, old):
        wait_until(lambda: old not in east.members() and east.leader() not in ("", old), "another one leads")
        run = declare(east, leader=east.leader())
        assert east.sql("SELECT pg_is_in_recovery()", old) == [(False,)]
    # Its address is in urls, and those of all members are one here: where its PostgreSQL listens is not known.
    assert f"whether address {url.format(east.nodes[old].rest_port)} accepts writes is not known" in run["summary"]
    assert len(run["blockers"]) == len(run["warnings"]) == 1


FAULTS = {"dcs": check_without_dcs, "killed": check_killed_leader, "elected": check_elected_beside_a_primary}
TRIED = [*FAULTS] if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else ["dcs"]


@pytest.mark.procedure("A26")
@pytest.mark.parametrize("fault", TRIED)
def test_a_fault_is_no_switchover(east: Cluster, region: Region, fault: str) -> None:
    """F23. LOWTIDE_EXHAUSTIVE=1 also kills the leader, whose key ends after 20 s; test_site.py kills a whole site."""
    FAULTS[fault](east, region)
