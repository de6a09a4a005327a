# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_site on two clusters: the primary one moves, the other one follows, and no acknowledged row is lost."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest

from support.modules import ModuleRun, finish_module, run_module, start_module
from support.patroni_sites import ADDRESS, TIMEOUT, Cluster, Region, wait_until
from support.playbooks import PlaybookRun, describe_window, write_yaml
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
            connect_timeout=10,
            target_session_attrs="read-write",
        )
        connection.autocommit = True
        return connection


@pytest.fixture(scope="module")
def shared_pair(region: Region) -> Pair:
    """South, and north, which follows it."""
    south = region.make("south", ["south1", "south2"])
    primary = {"host": ADDRESS, "port": south.nodes[south.leader()].port}
    return Pair(south, region.make("north", ["north1"], primary=primary))


def let_claims_age(pair: Pair) -> None:
    """Have what killed runs have noted as it is a minute later."""
    for cluster in pair:
        for key in [key for key in cluster.ask("/config") if key.startswith("lowtide_")]:
            cluster.ask("/config", body={key: {"seen": 0}}, method="PATCH")


@pytest.fixture
def pair(shared_pair: Pair) -> Pair:
    """The clusters, without a run of another test that was killed a moment ago."""
    let_claims_age(shared_pair)
    return shared_pair


def params(new: Cluster, old: Cluster, **more: Any) -> Json:
    """Have ``new`` be the primary cluster."""
    return {"primary": new.params, "old_primary": old.params, "timeout": TIMEOUT, **more}


def declare(new: Cluster, old: Cluster, *, check: bool = False, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("patroni_site", params(new, old, **more), check=check)


EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
KILLED = ["", "fence", "promote"] if EXHAUSTIVE else ["fence"]
"""After which step a first run is killed; not at all where it is empty."""


@pytest.mark.procedure("A27")
@pytest.mark.parametrize("killed", KILLED)
def test_the_other_site_takes_over_and_nothing_is_lost(pair: Pair, killed: str) -> None:
    """Fenced before it is promoted, also where the first run is killed. LOWTIDE_EXHAUSTIVE=1 kills it after each step."""
    new, old = pair.standby, pair.primary
    predicted = declare(new, old, check=True)
    assert predicted.changed, predicted.msg
    assert pair.primary is old
    assert [item["object"] for item in predicted["plan"]] == [
        f"Patroni cluster {old.site.scope}",
        f"Patroni cluster {new.site.scope}",
    ]
    with SteadyWriter(pair.connect).writing() as writer:
        if killed:
            process = start_module("patroni_site", params(new, old))
            cluster = old if killed == "fence" else new
            is_standby = bool(cluster.ask("/config").get("standby_cluster"))
            wait_until(
                lambda: bool(cluster.ask("/config").get("standby_cluster")) != is_standby, f"{killed} is asked for"
            )
            process.kill()
            process.wait()
        run = declare(new, old)
        assert not run.failed, run.msg
    assert killed or run["plan"] == predicted["plan"]
    assert run["diff"]["after"] == predicted["diff"]["after"]
    assert pair.primary is new
    assert writer.lost() == []
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        old.sql("INSERT INTO steady VALUES (-1)", old.leader())
    wait_until(lambda: has_all(old, writer), "the old site has all rows")
    again = declare(new, old)
    assert not again.failed, again.msg
    assert not again.changed


def has_all(cluster: Cluster, writer: SteadyWriter) -> bool:
    """Whether a cluster that follows has each acknowledged row."""
    rows = {row[0] for row in cluster.sql("SELECT id FROM steady", cluster.leader())}
    return set(writer.acknowledged) <= rows


@pytest.mark.procedure("A27")
def test_what_could_not_be_fenced_is_refused(pair: Pair, shared_east: Cluster) -> None:
    """A site that cannot be reached, one of other data, one that is paused; nothing is sent."""
    new, old = pair.standby, pair.primary
    away = {**old.params, "urls": ["https://127.0.0.1:9"]}
    for options, said in (
        ({"old_primary": away}, "whether it still accepts writes is not known"),
        ({"old_primary": shared_east.params}, "they have different data: system identifiers"),
        ({"old_primary": new.params}, "both connections lead to it"),
    ):
        run = run_module("patroni_site", {**params(new, old), **options})
        assert run["error"]["refused"], run.msg
        assert said in run.msg, run.msg
    old.ask("/config", body={"pause": True}, method="PATCH")
    try:
        wait_until(lambda: old.ask("/cluster").get("pause"), "it is paused")
        run = declare(new, old)
        assert run["error"]["refused"]
        assert "so that it would go on accepting writes" in run.msg
    finally:
        old.ask("/config", body={"pause": None}, method="PATCH")
    wait_until(lambda: not old.ask("/cluster").get("pause"), "it is not paused")
    assert pair.primary is old


def list_claims(pair: Pair) -> dict[str, Json]:
    """What runs have noted in both clusters, by scope and key."""
    configs = {cluster.site.scope: cluster.ask("/config") for cluster in pair}
    return {f"{scope} {key}": value for scope in configs for key, value in configs[scope].items() if "lowtide" in key}


@pytest.mark.procedure("A27")
def test_of_opposite_runs_at_once_exactly_one_proceeds(pair: Pair) -> None:
    """Both have something to do, since a run was killed between the fence and the promotion."""
    new, old = pair.standby, pair.primary
    with SteadyWriter(pair.connect).writing() as writer:
        process = start_module("patroni_site", params(new, old))
        wait_until(lambda: bool(old.ask("/config").get("standby_cluster")), "it is fenced")
        process.kill()
        process.wait()
        young = declare(old, new)
        assert young["error"]["refused"], young.msg
        assert f"(process {process.pid})" in young.msg
        wait_until(lambda: old.is_whole() and new.is_whole(), "both directions can be gone")
        let_claims_age(pair)
        processes = [start_module("patroni_site", params(*direction)) for direction in ((new, old), (old, new))]
        runs = [finish_module(process) for process in processes]
    (won,), (refused,) = ([run for run in runs if run.failed is failed] for failed in (False, True))
    assert refused["error"]["refused"], refused.msg
    winner = runs.index(won)
    assert "another run is at work, which makes it a" in refused.msg
    assert f"(process {processes[winner].pid})" in refused.msg
    assert f"(process {process.pid}), seen" in str(won["warnings"])
    assert pair.primary is (new, old)[winner]
    assert writer.lost() == []
    assert list_claims(pair) == {}


HOOKS = ("scale", "smoke", "dns")


def play(pair: Pair, folder: Path, **more: Any) -> list[Json]:
    """A play of the role with hooks that leave their names in a file."""
    for name in HOOKS:
        line = {
            "ansible.builtin.lineinfile": {"path": str(folder / "calls"), "line": name, "create": True, "mode": "0600"}
        }
        check = {"ansible.builtin.assert": {"that": f"'{name}' != hook_fails | default('')"}}
        write_yaml(folder / f"{name}.yml", [{"name": name, **check}, {"name": f"Note {name}", **line}])
    variables = {
        "ansible_python_interpreter": sys.executable,
        "site_failover_primary": pair.standby.params,
        "site_failover_old_primary": pair.primary.params,
        **{f"site_failover_{name}_tasks": str(folder / f"{name}.yml") for name in HOOKS},
        **more,
    }
    role = {"name": "Fail over", "ansible.builtin.include_role": {"name": "lowtide.ops.site_failover"}}
    return [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": [role]}]


@pytest.mark.procedure("A27")
def test_clients_are_led_last_and_only_to_what_works(
    pair: Pair, tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """A smoke test that fails leaves DNS alone; the next run goes on from there."""
    new = pair.standby
    plays = play(pair, tmp_path)
    untested = ansible_playbook(plays, extra_vars={"site_failover_smoke_tasks": ""})
    assert untested.rc == 2
    assert "clients would be led to what nobody has tested" in untested.stdout
    failed = ansible_playbook(plays, extra_vars={"hook_fails": "smoke"})
    assert failed.rc == 2, failed.stdout
    assert (tmp_path / "calls").read_text().split() == ["scale"]
    assert pair.primary is new
    done = ansible_playbook(plays)
    assert done.rc == 0, done.stdout
    assert (tmp_path / "calls").read_text().split() == ["scale", "smoke", "dns"]
    again = ansible_playbook(plays)
    assert again.rc == 0, again.stdout
    assert again.changed == 0


@pytest.mark.procedure("A27")
def test_disaster_recovery_has_the_other_site_take_over(
    pair: Pair, tmp_path: Path, ansible_playbook: Callable[..., PlaybookRun]
) -> None:
    """The playbook's own step: a rehearsal runs no task file; DNS failed, the same command leads the clients too."""
    new, old = pair.standby, pair.primary
    chosen = {"disaster_recovery": "site_failover", "window_only": "site_failover"}
    variables = {**play(pair, tmp_path)[0]["vars"], **chosen, **describe_window(tmp_path)}
    arguments = ("lowtide.ops.disaster_recovery", "-i", str(tmp_path / "hosts.yml"))
    rehearsal = ansible_playbook(*arguments, "--check", extra_vars=variables)
    assert rehearsal.rc == 0, rehearsal.stdout
    assert pair.primary is old
    assert not (tmp_path / "calls").exists()
    failed = ansible_playbook(*arguments, extra_vars={**variables, "hook_fails": "dns"})
    assert failed.rc == 2, failed.stdout
    assert pair.primary is new
    done = ansible_playbook(*arguments, extra_vars=variables)
    assert done.rc == 0, done.stdout
    assert (tmp_path / "calls").read_text().split() == ["scale", "smoke", "dns"]
    again = ansible_playbook(*arguments, extra_vars=variables)
    assert (again.rc, again.changed) == (0, 0), again.stdout


@pytest.mark.procedure("A27")
def test_a_site_that_still_sends_is_not_lost(pair: Pair) -> None:
    """Only this host is cut off from it. Patroni 3.0.2 does not say who streams; the WAL that comes does."""
    new, old = pair.standby, pair.primary
    away = {**old.params, "urls": ["https://127.0.0.1:9"]}
    with SteadyWriter(pair.connect).writing() as writer:
        run = declare(new, old, old_primary=away, old_site_lost=True)
        assert run["error"]["refused"], run.msg
        assert "bytes of WAL during this run, so that another server still sends them" in run.msg
        assert pair.primary is old
    assert writer.lost() == []


@pytest.mark.sweep
@pytest.mark.procedure("A27")
def test_a_slot_goes_there_and_comes_back(pair: Pair) -> None:
    """With Patroni up to 3.2 it is taken out before the fence, by the change that the refusal names, and put back."""
    new, old = pair.standby, pair.primary
    slots = {"slots": {"site": {"type": "physical"}}}
    reads = "SELECT active FROM pg_replication_slots WHERE slot_name = 'site'"
    old.ask("/config", body=slots, method="PATCH")
    wait_until(lambda: old.sql(reads, old.leader()), "the slot is there")
    new.ask("/config", body={"standby_cluster": {"primary_slot_name": "site"}}, method="PATCH")
    wait_until(lambda: old.sql(reads, old.leader()) == [(True,)], "it streams by its slot")
    refused = declare(new, old)
    assert refused["error"]["refused"], refused.msg
    assert "primary_slot_name site (with Patroni 3.0.2)" in refused.msg
    patch = re.search(r"Send PATCH (\{.*\}) to", refused.msg)
    assert patch
    new.ask("/config", body=json.loads(patch[1]), method="PATCH")
    wait_until(lambda: old.sql(reads, old.leader()) == [(False,)], "it has let the slot go")
    wait_until(lambda: not declare(new, old, check=True).failed, "it streams again")
    try:
        with SteadyWriter(pair.connect).writing() as writer:
            run = declare(new, old)
            assert not run.failed, run.msg
            back = declare(old, new)
            assert not back.failed, back.msg
        assert writer.lost() == []
        assert new.ask("/config")["standby_cluster"]["primary_slot_name"] == "site"
        wait_until(lambda: old.sql(reads, old.leader()) == [(True,)], "it streams by its slot again")
        assert not declare(old, new).changed
    finally:
        new.ask("/config", body={"standby_cluster": {"primary_slot_name": None}}, method="PATCH")
        old.ask("/config", body={"slots": None}, method="PATCH")


@pytest.mark.procedure("A27")
def test_a_lost_site_needs_a_word_and_two_primaries_are_refused_after_it(pair: Pair) -> None:
    """The site comes back as a second primary: nothing is guessed then. The last test, since the pair is beyond repair."""
    new, old = pair.standby, pair.primary
    # For so long no WAL must come, since Patroni 3.0.2 does not say whether it streams.
    new.ask("/config", body={"postgresql": {"parameters": {"wal_receiver_timeout": "2s"}}}, method="PATCH")
    for name in old.nodes:
        old.kill(name)
    try:
        assert declare(new, old)["error"]["refused"]
        run = declare(new, old, old_site_lost=True)
        assert not run.failed, run.msg
        assert "whether the lost site accepts writes is not known" in run["summary"]
        assert "declared lost" in str(run["warnings"])
        assert new.sql("SELECT pg_is_in_recovery()", new.leader()) == [(False,)]
    finally:
        old.start()
    old.wait_whole()
    both = declare(new, old)
    assert both["error"]["refused"]
    assert "neither is a standby cluster, so that both accept writes" in both.msg
