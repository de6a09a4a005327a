# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Kubernetes modules with workloads of other APIs, against the API server in memory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._consumers.operations.scale_to_partitions import (
    run_scale_to_partitions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload_info import read_workloads
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import Resource
from support.kubernetes_objects import refer_to
from support.memory_controllers import ALWAYS, NAMESPACE, Controllers, describe_hpa, describe_workload, scale
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import list_writes, run_operation

from .workload_steps import check_done, count_replicas, read_annotations, read_saved

Json = dict[str, Any]

API = "argoproj.io/v1alpha1"
ROLLOUT = Resource(API, "rollouts", "Rollout")
R: Json = {"kind": "Rollout", "name": "r", "api_version": API}
TITLE = "Rollout n/r"


class RolloutController:
    """Give each Rollout a ReplicaSet with its pods, and a status, after each write. ``says_ready``: also how many are."""

    def __init__(self, server: MemoryServer, *, says_ready: bool = True) -> None:
        self.server = server
        self.says_ready = says_ready
        self.holds_pods = False
        server.add_rival(self.act, when="after", times=ALWAYS)

    def act(self) -> None:
        """Settle them all."""
        for obj in self.server.read_all("Rollout"):
            self.settle(obj)

    def settle(self, obj: Json) -> None:
        """Bring pods and status to what the spec asks for."""
        name, count = obj["metadata"]["name"], obj["spec"]["replicas"]
        owner = self._make_replica_set(obj)
        present = [pod["metadata"]["name"] for pod in self.server.read_all("Pod")]
        present = [pod for pod in present if pod.startswith(f"{name}-hash-")]
        for number in range(max(count, len(present))):
            pod = f"{name}-hash-{number}"
            if number >= count and not self.holds_pods:
                self.server.remove("Pod", NAMESPACE, pod)
            elif number < count and pod not in present:
                metadata: Json = {"name": pod, "namespace": NAMESPACE, "labels": {"app": name}}
                metadata["ownerReferences"] = [refer_to(owner, "ReplicaSet")]
                ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                self.server.put({"kind": "Pod", "metadata": metadata, "status": ready})
        status = {
            "replicas": count,
            "observedGeneration": str(obj["metadata"]["generation"]),
            "selector": f"app={name}",
        }
        if self.says_ready and count:
            status["readyReplicas"] = count
        if obj.get("status") != status:
            self.server.change("Rollout", NAMESPACE, name, lambda kept: kept.update(status=status), manager="argo")

    def _make_replica_set(self, owner: Json) -> Json:
        name = f"{owner['metadata']['name']}-hash"
        known = [obj for obj in self.server.read_all("ReplicaSet") if obj["metadata"]["name"] == name]
        if known:
            return known[0]
        metadata = {"name": name, "namespace": NAMESPACE, "ownerReferences": [refer_to(owner, "Rollout")]}
        return self.server.put({"kind": "ReplicaSet", "metadata": metadata, "spec": {}})


@pytest.fixture(params=[True, False], ids=["status says ready", "pods are counted"])
def controller(memory: MemoryServer, request: pytest.FixtureRequest) -> RolloutController:
    """Whose status says how many are ready, or not; there is a Rollout of 3."""
    memory.register(ROLLOUT, scaled="replicas")
    controller = RolloutController(memory, says_ready=request.param)
    metadata = {"name": "r", "namespace": NAMESPACE}
    controller.settle(memory.put({"kind": "Rollout", "metadata": metadata, "spec": {"replicas": 3, "paused": True}}))
    return controller


def run(memory: MemoryServer, state: str, *workloads: Json, **params: Any) -> ModuleRun:
    """Stop or start the Rollout, or others."""
    return run_operation(memory, run_workload, state=state, workloads=list(workloads or [R]), **params)


def look(memory: MemoryServer, *workloads: Json) -> ModuleRun:
    """Read it."""
    return run_operation(memory, read_workloads, workloads=list(workloads or [R]))


# --- stop and start -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controller")
def test_stop_and_start_give_back_what_there_was(memory: MemoryServer) -> None:
    """What check mode predicts; a second run changes nothing."""
    for state, left, plan in (("stopped", 0, "replicas 3 -> 0"), ("running", 3, "replicas 0 -> 3")):
        predicted = check_done(run(memory, state, check=True))
        assert list_writes(memory) == []
        done = check_done(run(memory, state))
        for key in ("plan", "diff", "changed", "reasons"):
            assert predicted[key] == done[key], key
        assert [(item["object"], item["what"]) for item in done["plan"]] == [(TITLE, plan)]
        assert count_replicas(memory, "r", "Rollout") == left
        assert len(memory.read_all("Pod")) == left
        assert read_saved(memory, "r", "Rollout") == ({"replicas": 3} if not left else None)
        memory.log.clear()
        assert not check_done(run(memory, state)).changed
        assert (list_writes(memory), memory.count("patch")) == ([], 0)


@pytest.mark.usefixtures("controller")
def test_the_requests_of_a_stop(memory: MemoryServer) -> None:
    """Two more than for a known kind: what its API serves, and its scale. Its own patch writes its replicas."""
    check_done(run(memory, "stopped"))
    paths = [request.path.rpartition("/")[2] for request in memory.log[: 1 + memory.log.index(_find_write(memory))]]
    assert paths == [
        "v1alpha1",
        "rollouts",
        "scale",
        "horizontalpodautoscalers",
        "scaledobjects",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreviews",
        "r",
        "r",
    ]
    assert list_writes(memory) == [("r", ["stopped", "replicas"])]


def _find_write(memory: MemoryServer) -> Any:
    return next(request for request in memory.log if request.verb == "patch" and "dryRun" not in request.query)


def test_a_stop_waits_for_the_pods_behind_its_replica_set(memory: MemoryServer, controller: RolloutController) -> None:
    """Whatever its own status says."""
    controller.holds_pods = True
    stopped = run(memory, "stopped", timeout=1.0)
    assert stopped.failed
    assert "Rollout n/r: after 1 s: 3 pods left (r-hash-0, r-hash-1, r-hash-2)" in stopped.msg
    controller.holds_pods = False
    controller.act()
    check_done(run(memory, "stopped"))


@pytest.mark.usefixtures("controller")
def test_a_start_fails_when_somebody_scales_it_meanwhile(memory: MemoryServer) -> None:
    """As for every workload."""
    check_done(run(memory, "stopped"))
    memory.add_rival(lambda: scale(memory, "Rollout", "r", 1), when="before", verb="list", path="/pods")
    started = run(memory, "running")
    assert started.failed
    assert "replicas were set to 3, and rival has set them to 1 since" in started.msg


def test_several_tiers_of_several_apis(memory: MemoryServer, controller: RolloutController) -> None:
    """In one task, by one LIST of each kind."""
    Controllers(memory).add("StatefulSet", "w")
    metadata = {"name": "s", "namespace": NAMESPACE}
    memory.put({"kind": "Rollout", "metadata": metadata, "spec": {"replicas": 0}})
    controller.act()
    entries = [R, {**R, "name": "s"}, {"kind": "StatefulSet", "name": "w"}]
    stopped = check_done(run(memory, "stopped", *entries))
    assert [entry["name"] for entry in stopped["workloads"]] == ["r", "s", "w"]
    started = check_done(run(memory, "running", *entries))
    assert started["summary"].startswith("started Rollout n/r (3 replicas), StatefulSet n/w (3 replicas)")
    assert count_replicas(memory, "s", "Rollout") == 0


@pytest.mark.usefixtures("controller")
def test_an_autoscaler_of_it_counts(memory: MemoryServer) -> None:
    """An HPA from 0 would start it again."""
    memory.put(describe_hpa("Rollout/r", 0, 9))
    stopped = run(memory, "stopped")
    assert stopped.failed
    assert "HorizontalPodAutoscaler n/h owns its replicas (0 to 9)" in stopped.msg


@pytest.mark.usefixtures("controller")
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("state", "denied", "words"),
    [
        ("stopped", ("list", "replicasets.apps"), "list replicasets.apps in namespace n"),
        ("running", ("list", "pods"), "list pods in namespace n"),
        ("stopped", ("patch", "rollouts.argoproj.io"), "patch"),
        ("stopped", ("get", "rollouts/scale"), "scale of Rollout n/r"),
    ],
)
def test_a_lacking_right_is_named_before_the_first_write(
    memory: MemoryServer, check: bool, state: str, denied: tuple[str, str], words: str
) -> None:
    """Also to list what its pods are counted by."""
    if state == "running":
        check_done(run(memory, "stopped"))
        memory.log.clear()
    memory.deny(*denied)
    refused = run(memory, state, check=check)
    assert (refused.failed, refused.changed, list_writes(memory)) == (True, False, [])
    assert words in refused.msg


@pytest.mark.parametrize("plural", [None, "rollouts"])
def test_a_kind_without_scale_is_refused(memory: MemoryServer, plural: str | None) -> None:
    """By name, with what to do."""
    memory.register(ROLLOUT)
    memory.put({"kind": "Rollout", "metadata": {"name": "r", "namespace": NAMESPACE}, "spec": {"replicas": 3}})
    for refused in (
        run(memory, "stopped", {**R, "plural": plural}),
        run_operation(memory, run_scale_to_partitions, **{**R, "plural": plural}, partitions=3),
    ):
        assert (refused["error"]["refused"], list_writes(memory)) == (True, [])
        assert "it has no subresource scale" in refused.msg
        assert refused["error"]["next_step"].startswith("Stop, start and scale it by the means of its operator")


def test_a_name_that_does_not_exist(memory: MemoryServer) -> None:
    """What there is instead is named."""
    memory.register(ROLLOUT, scaled="replicas")
    memory.put({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    memory.put({"kind": "Rollout", "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": {"replicas": 3}})
    assert "Rollout n/r: it does not exist in cluster" in run(memory, "stopped").msg
    assert "Rollouts there: web" in run(memory, "stopped").msg


# --- the other modules ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controller")
def test_what_info_returns_starts_it_again(memory: MemoryServer) -> None:
    """It carries the API."""
    memory.put({"kind": "Namespace", "metadata": {"name": "kube-system"}})
    assert [(entry["api_version"], entry["replicas"]) for entry in look(memory)["workloads"]] == [(API, 3)]
    check_done(run(memory, "stopped"))
    memory.put(describe_workload("StatefulSet", "w", 0))
    seen = check_done(look(memory, R, {"kind": "StatefulSet", "name": "w"}))
    assert [entry["kind"] for entry in seen["workloads"]] == ["Rollout", "StatefulSet"]
    assert seen["workloads"][0]["status"] == "Current"
    check_done(run(memory, "running", *seen["stopped_by_lowtide"]))
    assert count_replicas(memory, "r", "Rollout") == 3


@pytest.mark.usefixtures("controller")
def test_it_is_scaled_to_partitions(memory: MemoryServer) -> None:
    """And waited for; what check mode predicts is done."""
    predicted = check_done(run_operation(memory, run_scale_to_partitions, check=True, **R, partitions=5))
    assert list_writes(memory) == []
    scaled = check_done(run_operation(memory, run_scale_to_partitions, **R, partitions=5))
    assert predicted["plan"] == scaled["plan"]
    assert scaled["summary"] == "scaled Rollout n/r from 3 to 5 replicas (the topic has 5 partitions)"
    assert (count_replicas(memory, "r", "Rollout"), len(memory.read_all("Pod"))) == (5, 5)
    assert not check_done(run_operation(memory, run_scale_to_partitions, **R, partitions=5)).changed
    assert read_annotations(memory, "Rollout", "r") == {}


@pytest.mark.parametrize("kind", ["CronJob", "Job", "DaemonSet", "Rollout"])
def test_what_has_no_such_number_is_not_scaled_to_partitions(memory: MemoryServer, kind: str) -> None:
    """A CronJob has no replicas; another kind needs its API."""
    refused = run_operation(memory, run_scale_to_partitions, kind=kind, name="x", partitions=5)
    assert (refused["error"]["refused"], memory.log) == (True, [])
    words = "nodeSelector" if kind == "DaemonSet" else "Use one of StatefulSet, Deployment, or give the api_version of"
    assert words in refused.msg
