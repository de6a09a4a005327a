# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role credentials, with clients that log in ten times a second all the time: none of them is ever refused."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.credential_site import CredentialSite, Sink
from support.http_proxy import CutOffError
from support.kubernetes_objects import refer_to
from support.playbooks import PlaybookRun, kill_playbook, start_playbook, write_yaml
from support.rival_proxy import Rival, RivalProxy

pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions", "feature_service")
EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
Json = dict[str, Any]
SAMPLE = ("in the restart", "two_roles")
VERSIONS = ["15", "18"] if EXHAUSTIVE else ["18"]


@pytest.fixture
def sink(lab: dict[str, Any]) -> Iterator[Sink]:
    """Where clients say how their logins ended."""
    with Sink(lab["kubernetes"]["nodes"][0]["address"]) as running:
        yield running


@pytest.fixture
def clients(credentials: CredentialSite, sink: Sink, lab: dict[str, Any]) -> CredentialSite:
    """The application, with clients that log in."""
    credentials.start_clients(sink, lab["feature_service"]["images"][0])
    return credentials


def write_play(path: Path, site: CredentialSite, **variables: Any) -> Path:
    """Write a play with the role."""
    connection = {key: value for key, value in site.params().items() if key.startswith("login_")}
    inputs = {
        "credentials_connection": connection,
        "credentials_kubernetes_connection": {"kubeconfig": site.kubeconfig},
        "credentials_namespace": site.space.name,
        "credentials_secret": "database",
        "credentials_roles": [site.a, site.b],
        "credentials_owner": site.owner,
        "credentials_workloads": [{"kind": "Deployment", "name": "client"}],
        "credentials_timeout": 120,
        **variables,
    }
    tasks = [
        {"name": "Replace", "ansible.builtin.include_role": {"name": "lowtide.ops.credentials"}},
        {"name": "Tell", "ansible.builtin.debug": {"msg": "{{ credentials_result.summary }}"}},
    ]
    return write_yaml(path, [{"hosts": "localhost", "gather_facts": False, "vars": inputs, "tasks": tasks}])


@pytest.mark.every_version
@pytest.mark.parametrize("postgresql", VERSIONS, indirect=True)
@pytest.mark.procedure("C27", "A10")
def test_no_login_fails_while_the_password_is_replaced(
    clients: CredentialSite, sink: Sink, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path
) -> None:
    site = clients
    old = site.values()
    play = write_play(tmp_path / "play.yml", site)
    # What an operator keeps is refused. A GitOps tool has no restart in Git.
    site.space.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "keeper"}})
    keeper = refer_to(site.space.get("ConfigMap", "keeper"), "ConfigMap")
    body: dict[str, Any] = {"metadata": {"ownerReferences": [keeper]}}
    site.space.request("PATCH", "Deployment", "client", body, type_="merge-patch+json")
    guarded = ansible_playbook(play, "--check")
    assert guarded.rc == 2, guarded.stdout
    assert "keeper" in guarded.stdout
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": {"template": {}}})}
    marks = {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/client", **applied}
    body = {"metadata": {"ownerReferences": None, "annotations": marks}}
    site.space.request("PATCH", "Deployment", "client", body, type_="merge-patch+json")

    predicted = ansible_playbook(play, "--check")
    assert predicted.rc == 0, predicted.stdout
    assert site.values() == old
    run = ansible_playbook(play, "-vvvv", "--diff")
    assert run.rc == 0, run.stdout
    new = site.values()
    end = time.monotonic() + 120
    while sink.logins[site.b] < 20:
        assert time.monotonic() < end, sink.logins
        time.sleep(0.1)

    assert sink.failures == []
    assert sink.logins[site.a] > 20
    assert new["username"] == site.b
    assert not site.may_login(site.a, old["password"])
    for password in (old["password"], new["password"], site.passwords[site.account]):
        assert password not in run.stdout
    again = ansible_playbook(play)
    assert again.rc == 0, again.stdout
    assert again.changed == 0, again.stdout
    assert site.values() == new


Point = tuple[str, str, int, str]
POINTS: dict[str, Point] = {
    "before the role is altered": ("PATCH", "/secrets/database", 1, "after"),
    "before the Secret is changed": ("PATCH", "/secrets/database", 2, "before"),
    "before the restart": ("PATCH", "/secrets/database", 3, "after"),
    "in the restart": ("PATCH", "/deployments/client", 1, "after"),
    "before the old one is ended": ("GET", "/secrets/database", 2, "before"),
}
"""Which request the controller is killed at, before it reaches the server or before its answer comes back.

The Secret is read once to begin with, and once more to end the old password. A kill in the restart waits for the first
client that has been let in beside those of before.
"""
METHODS: dict[str, Json] = {
    "two_roles": {},
    "one_role": {
        "credentials_method": "one_role",
        "credentials_owner": "",
        "credentials_accept_interruption": True,
    },
}
Kill = tuple[str, str]
KILLS = [
    pytest.param((point, method), id=f"{point}, {method}", marks=() if (point, method) == SAMPLE else pytest.mark.sweep)
    for point in POINTS
    for method in METHODS
]


def kill_at(point: Point, site: CredentialSite, sink: Sink, path: Path, **inputs: Any) -> None:
    """Run the role, and kill its controller with all that it has started when it sends a request."""
    method, ending, number, when = point
    started: list[subprocess.Popen[str]] = []
    counted, is_killed = itertools.count(1), threading.Event()

    def kill() -> None:
        if next(counted) != number:
            return
        if point == POINTS["in the restart"]:
            wait_for(lambda: len(sink.pods) > 2, "a pod with the new credential")
        kill_playbook(started[0])
        is_killed.set()
        raise CutOffError

    with RivalProxy(site.space.facts, Rival(method, ending, kill, when, times=100)) as proxy:
        play = write_play(path, site, credentials_kubernetes_connection={"host": proxy.url}, **inputs)
        started.append(start_playbook(play))
        assert is_killed.wait(400), "it has not come to the point"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    """Until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.every_version
@pytest.mark.parametrize("postgresql", VERSIONS[-1:], indirect=True)
@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.procedure("C27", "A10")
def test_killed_with_its_controller_the_next_run_ends_it(
    clients: CredentialSite, sink: Sink, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path, kill: Kill
) -> None:
    """At each point clients go on logging in; with one role, those that have the password of the server."""
    (point, method), site, old = kill, clients, clients.values()
    wait_for(lambda: len(sink.pods) == 2, "both clients log in")
    inputs = {**METHODS[method], **({"credentials_roles": [site.a]} if METHODS[method] else {})}
    kill_at(POINTS[point], site, sink, tmp_path / "killed.yml", **inputs)

    killed_in = site.values()
    pairs = {(values["username"], values["password"]) for values in (old, killed_in)}
    works = [site.may_login(*pair) for pair in sorted(pairs)]
    assert all(works) if method == "two_roles" else works.count(True) == 1, (point, works)
    if method == "two_roles":
        count = sum(sink.logins.values())
        wait_for(lambda: sum(sink.logins.values()) > count + 20, "clients go on after the kill")
        assert sink.failures == []

    play = write_play(tmp_path / "play.yml", site, **inputs)
    run = ansible_playbook(play)
    assert run.rc == 0, run.stdout
    new = site.values()
    assert new["username"] == (site.b if method == "two_roles" else site.a)
    assert sorted(new) == ["other", "password", "username"]
    assert site.works()
    assert not site.may_login(site.a, old["password"])
    if method == "one_role":
        sink.failures.clear()
    count = sink.logins[new["username"]]
    wait_for(lambda: sink.logins[new["username"]] > count + 20, "clients log in with the new one")
    assert sink.failures == []
    assert ansible_playbook(play).changed == 0


READY = "import os, sys; sys.exit(os.environ['PGUSER'] != {!r})"
"""A probe of pods that serve with one role only."""
KINDS = ["Deployment", pytest.param("StatefulSet", marks=pytest.mark.sweep)]


@pytest.fixture(params=KINDS)
def choosy(
    request: pytest.FixtureRequest, credentials: CredentialSite, sink: Sink, lab: dict[str, Any]
) -> CredentialSite:
    """The application, with clients that become ready with the first role only."""
    # A second is little for an interpreter that starts on a busy machine.
    probe: Json = {"exec": {"command": ["/usr/bin/python3.11", "-c", READY.format(credentials.a)]}}
    probe |= {"periodSeconds": 1, "timeoutSeconds": 10}
    credentials.start_clients(sink, lab["feature_service"]["images"][0], kind=request.param, readinessProbe=probe)
    return credentials


@pytest.mark.every_version
@pytest.mark.parametrize("postgresql", ["18"], indirect=True)
@pytest.mark.procedure("C27", "A10")
def test_clients_that_do_not_start_with_the_new_one_are_given_the_old_one_again(
    choosy: CredentialSite, sink: Sink, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path
) -> None:
    """Nobody is locked out, the run says what is where, and the next one makes another password."""
    site, old = choosy, choosy.values()
    kind = "StatefulSet" if site.space.list("StatefulSet") else "Deployment"
    workloads = [{"kind": kind, "name": "client"}]
    play = write_play(tmp_path / "play.yml", site, credentials_workloads=workloads, credentials_timeout=15)
    run = ansible_playbook(play)
    assert run.rc == 2, run.stdout
    said = f"Secret {site.space.name}/database has the old credential of {site.a} again, which works."
    assert said in run.stdout, run.stdout
    assert "could not be restarted with its new credential" in run.stdout
    assert "The new one has been ended, and is refused." in run.stdout
    assert "run again: that makes another password" in run.stdout
    assert site.values() == old
    assert (site.note() or {})["phase"] == "reverted"
    assert site.works()
    site.space.ready(kind, "client", 2)
    pods = [pod for pod in site.space.list("Pod") if pod["status"]["phase"] == "Running"]
    assert len([pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]) == 2
    assert sink.failures == []
    assert site.execute(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{site.b}'") == [(None,)]

    again = site.run(check=True)
    assert "the rotation before it was taken back at" in again["summary"], again.result
    assert again.changed


@pytest.mark.sweep
@pytest.mark.every_version
@pytest.mark.parametrize("postgresql", ["18"], indirect=True)
@pytest.mark.parametrize("choosy", ["Deployment"], indirect=True)
def test_killed_on_the_way_back_the_next_run_goes_on_with_it(
    choosy: CredentialSite, sink: Sink, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path
) -> None:
    """The Secret has the old credential again, and a pod that does not become ready has the new one."""
    site, old = choosy, choosy.values()
    kill_at(("PATCH", "/secrets/database", 4, "after"), site, sink, tmp_path / "killed.yml", credentials_timeout=15)
    assert (site.note() or {})["phase"] == "reverting"
    assert site.works()
    play = write_play(tmp_path / "play.yml", site, credentials_timeout=15)
    run = ansible_playbook(play)
    assert run.rc == 2, run.stdout
    assert "is taken back. Secret" in run.stdout, run.stdout
    assert "Put back: Deployment" in run.stdout
    assert "The new one has been ended, and is refused." in run.stdout
    assert site.values() == old
    assert (site.note() or {})["phase"] == "reverted"
    site.space.ready("Deployment", "client", 2)
    assert sink.failures == []


@pytest.mark.sweep
@pytest.mark.every_version
@pytest.mark.parametrize("postgresql", ["18"], indirect=True)
@pytest.mark.procedure("C27")
def test_no_login_fails_where_somebody_else_changes_the_secret(
    clients: CredentialSite, sink: Sink, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path
) -> None:
    """The note is removed in the middle, then another password is put there in the middle of the next rotation."""
    site, old = clients, clients.values()
    play = write_play(tmp_path / "play.yml", site)
    assert site.run().rc == 0
    site.edit({}, keeps_note=False)
    run = ansible_playbook(play)
    assert run.rc == 0, run.stdout
    assert site.works()
    assert not site.may_login(site.a, old["password"])
    live = site.values()

    assert site.run(max_age="0s").rc == 0
    site.edit({"password": "wrong"})
    run = ansible_playbook(play)
    assert run.rc == 2
    assert "Run with state reverted" in run.stdout, run.stdout
    assert site.run(state="reverted").rc == 0
    run = ansible_playbook(play)
    assert run.rc == 2
    assert f"has the old credential of {site.b} again, which works" in " ".join(run.stdout.split()), run.stdout
    assert site.values() == live
    assert (site.note() or {})["phase"] == "reverted"
    count = sink.logins[site.b]
    wait_for(lambda: sink.logins[site.b] > count + 20, "clients go on")
    assert sink.failures == []
