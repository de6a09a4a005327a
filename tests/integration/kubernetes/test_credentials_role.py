# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role credentials, with clients that log in ten times a second all the time: none of them is ever refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.credential_site import CredentialSite, Sink
from support.playbooks import PlaybookRun, start_playbook, write_yaml

pytestmark = pytest.mark.lab("kubernetes", "postgresql_versions", "feature_service")
EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
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
        "credentials_timeout": 60,
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

    predicted = ansible_playbook(play, "--check")
    assert predicted.rc == 0, predicted.stdout
    assert site.values() == old
    run = ansible_playbook(play, "-vvvv", "--diff")
    assert run.rc == 0, run.stdout
    new = site.values()
    end = time.monotonic() + 20
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


@pytest.mark.every_version
@pytest.mark.parametrize("postgresql", VERSIONS, indirect=True)
@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0, 4.0, 6.0] if EXHAUSTIVE else [1.0])
def test_killed_in_the_restart_no_login_fails(
    clients: CredentialSite, sink: Sink, ansible_playbook: Callable[..., PlaybookRun], tmp_path: Path, seconds: float
) -> None:
    """The controller is killed while some clients have the old credential and others the new one."""
    site = clients
    old = site.values()
    play = write_play(tmp_path / "play.yml", site)
    killed = start_playbook(play)
    end = time.monotonic() + 120
    while (site.note() or {}).get("phase") != "proven":
        assert time.monotonic() < end
        assert killed.poll() is None, "it was over before the kill"
        time.sleep(0.05)
    time.sleep(seconds)  # the kill comes at a time, not at a condition
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert site.works()
    run = ansible_playbook(play, timeout=240)
    assert run.rc == 0, run.stdout
    assert sink.failures == []
    assert site.values()["username"] == site.b
    assert not site.may_login(site.a, old["password"])
    assert ansible_playbook(play).changed == 0


READY = "import os, sys; sys.exit(os.environ['PGUSER'] != {!r})"
"""A probe of pods that serve with one role only."""
KINDS = ["Deployment", pytest.param("StatefulSet", marks=pytest.mark.sweep)]


@pytest.fixture(params=KINDS)
def choosy(
    request: pytest.FixtureRequest, credentials: CredentialSite, sink: Sink, lab: dict[str, Any]
) -> CredentialSite:
    """The application, with clients that become ready with the first role only."""
    probe = {"exec": {"command": ["/usr/bin/python3.11", "-c", READY.format(credentials.a)]}, "periodSeconds": 1}
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
    run = ansible_playbook(play, timeout=240)
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
