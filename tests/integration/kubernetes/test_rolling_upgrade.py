# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role rolling_upgrade on workloads of a test's namespace: what runs of one name have rolled out goes back together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.playbooks import PlaybookRun
from support.prometheus_stand_in import PrometheusStandIn

from .conftest import Namespace
from .rollout_steps import list_running_images

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
Playbook = Callable[..., PlaybookRun]
CLOSED = {"probes": [{"url": "http://127.0.0.1:1/"}], "timeout": 2}
"""A gate of an address where nobody answers."""


@pytest.fixture
def upgrade(namespace: Namespace, ansible_playbook: Playbook) -> Callable[..., PlaybookRun]:
    """Have three workloads serve; the call upgrades those that are named to the second image, under the name ``release``."""
    for name in ("a", "b", "c"):
        namespace.apply(namespace.workload(name, kind="StatefulSet" if name == "b" else "Deployment"))
    for name in ("a", "b", "c"):
        namespace.ready("StatefulSet" if name == "b" else "Deployment", name, 1)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "lowtide.ops.rolling_upgrade"}}],
    }

    def run(*names: str, **extra: Any) -> PlaybookRun:
        image = namespace.facts["images"][1]
        variables = {
            "rolling_upgrade_connection": {"kubeconfig": namespace.facts["kubeconfig"]},
            "rolling_upgrade_namespace": namespace.name,
            "rolling_upgrade_workloads": [
                {"kind": "StatefulSet" if name == "b" else "Deployment", "name": name, "image": image} for name in names
            ],
            "rolling_upgrade_run_id": "release",
            **extra,
        }
        return ansible_playbook([play], extra_vars=variables)

    return run


def read_images(namespace: Namespace) -> dict[str, str]:
    """The image that each workload asks for."""
    workloads = [*namespace.list("Deployment"), *namespace.list("StatefulSet")]
    return {item["metadata"]["name"]: item["spec"]["template"]["spec"]["containers"][0]["image"] for item in workloads}


@pytest.mark.sweep
@pytest.mark.procedure("A4", "B19", "C2", "C17")
def test_a_breach_puts_back_what_an_earlier_run_of_that_name_has_rolled_out(
    namespace: Namespace, upgrade: Callable[..., PlaybookRun]
) -> None:
    """As where a window was killed after its first workload; what comes after the breach is not touched."""
    old, new = namespace.facts["images"]
    first = upgrade("a")
    assert first.rc == 0, first.stdout
    assert read_images(namespace) == {"a": new, "b": old, "c": old}
    generation = namespace.get("Deployment", "c")["metadata"]["generation"]
    breached = upgrade("a", "b", "c", rolling_upgrade_gate=CLOSED, rolling_upgrade_gate_first=False)
    told = " ".join(breached.stdout.split())
    assert breached.rc != 0
    assert "Gate | addresses that have to answer: Status code was -1" in told
    assert f"Put back: StatefulSet {namespace.name}/b serves revision" in told
    assert f"Deployment {namespace.name}/a serves revision" in told
    assert read_images(namespace) == {"a": old, "b": old, "c": old}
    assert namespace.get("Deployment", "c")["metadata"]["generation"] == generation
    namespace.wait("all pods are the old ones", lambda: list_running_images(namespace) == {old})


@pytest.mark.procedure("A28")
def test_the_evidence_of_a_release_that_fails_is_saved_before_it_is_put_back(
    namespace: Namespace, upgrade: Callable[..., PlaybookRun], tmp_path: Path
) -> None:
    """What is saved shows the pod that fails, which the undo deletes."""
    old = namespace.facts["images"][0]
    workloads = [{"kind": "StatefulSet", "name": "b", "image": "localhost/nothing-there:9"}]
    failed = upgrade(
        rolling_upgrade_workloads=workloads,
        rolling_upgrade_evidence_folder=str(tmp_path),
        rolling_upgrade_failure_grace_factor=0.05,
    )
    told = " ".join(failed.stdout.split())
    assert failed.rc != 0
    assert f"Put back: StatefulSet {namespace.name}/b serves revision" in told
    assert "ImagePullBackOff" in told
    assert read_images(namespace)["b"] == old
    (saved,) = tmp_path.rglob("verdict.json")
    assert json.loads(saved.read_text())["verdict"]["reason"] == "image_pull"
    namespace.wait("all pods are the old ones", lambda: list_running_images(namespace) == {old})


def test_nothing_is_begun_while_the_gate_is_closed(namespace: Namespace, upgrade: Callable[..., PlaybookRun]) -> None:
    old = namespace.facts["images"][0]
    refused = upgrade("a", "b", rolling_upgrade_gate=CLOSED)
    assert refused.rc != 0
    assert read_images(namespace) == {"a": old, "b": old, "c": old}
    assert [item["metadata"]["generation"] for item in namespace.list("Deployment")] == [1, 1]


def test_a_query_that_means_nothing_is_refused_before_a_batch(
    namespace: Namespace, upgrade: Callable[..., PlaybookRun]
) -> None:
    """Also where the gate is not judged first."""
    old = namespace.facts["images"][0]
    gate = {"queries": [{"name": "errors", "query": "sum(rate(x[1m]", "max": 1}]}
    with PrometheusStandIn((400, {"status": "error", "errorType": "bad_data", "error": "unclosed bracket"})) as server:
        refused = upgrade(
            "a",
            rolling_upgrade_gate=gate,
            rolling_upgrade_gate_first=False,
            rolling_upgrade_prometheus={"url": server.url},
        )
    assert refused.rc != 0
    assert "unclosed bracket" in refused.stdout
    assert [item["metadata"]["generation"] for item in namespace.list("Deployment")] == [1, 1]
    assert read_images(namespace)["a"] == old


def test_the_migration_of_the_release_runs_with_its_image(
    namespace: Namespace, upgrade: Callable[..., PlaybookRun]
) -> None:
    """As a container of the workload would, which still has the old one; once for the release."""
    new = namespace.facts["images"][1]
    like = {"kind": "Deployment", "name": "a", "image": new, "command": ["true"]}
    for _run in range(2):
        run = upgrade("a", rolling_upgrade_migration={"from_workload": like, "name_prefix": "migrate", "deadline": 60})
        assert run.rc == 0, run.stdout
    (job,) = namespace.list("Job")
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == new
    assert job["status"]["succeeded"] == 1
    assert read_images(namespace)["a"] == new


def test_what_stands_in_the_way_of_the_last_is_found_before_the_first_is_changed(
    namespace: Namespace, upgrade: Callable[..., PlaybookRun]
) -> None:
    """A paused Deployment is not rolled out."""
    old = namespace.facts["images"][0]
    namespace.request("PATCH", "Deployment", "c", {"spec": {"paused": True}}, type_="merge-patch+json")
    refused = upgrade("a", "c")
    assert refused.rc != 0
    assert "spec.paused is true" in refused.stdout
    assert read_images(namespace) == {"a": old, "b": old, "c": old}
