# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes whose kubelet does not report: they fail no rollout of a DaemonSet, unless they hold up all of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Pod, Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.silent_nodes import (
    describe_silent,
    find_hold,
    is_silent,
    serves_elsewhere,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import RolloutControllers
from support.operation_runs import is_write

from .rollout_steps import QUICK, check_done, read_image, roll_out

Json = dict[str, Any]
KIND = "DaemonSet"
LATER = {"rollingUpdate": {"maxUnavailable": 2}}


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once, but on silent nodes."""
    return RolloutControllers(memory)


def test_a_silent_node_is_named_and_fails_nothing(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """The others are of the new revision and serve. A second run is unchanged, and names it still."""
    controllers.add(KIND, replicas=3, updateStrategy=LATER)
    controllers.silence("w-1", "b")
    run = check_done(roll_out(memory, KIND, image="j", serve_seconds=0.1))
    said = "the kubelet of node b does not report: w-1 keeps the earlier revision until it does"
    assert any(said in warning for warning in run["warnings"])
    assert f"revision 2 serves on 2 of 3 nodes; {said}" in run["summary"]
    assert (run["rolled_back"], run["cause"], read_image(memory, KIND)) == (False, None, "j")
    again = check_done(roll_out(memory, KIND, image="j"))
    assert not again["changed"]
    assert said in again["summary"]
    controllers.silent.clear()
    controllers.act()
    finished = check_done(roll_out(memory, KIND, image="j"))
    assert (finished["changed"], finished["warnings"]) == (False, [])
    assert "3 of 3 replicas ready" in finished["summary"]


def test_a_node_that_holds_the_controller_up_is_refused(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """With maxUnavailable 1 nothing could be replaced; nothing is written."""
    controllers.add(KIND, replicas=3)
    controllers.silence("w-1", "b")
    run = roll_out(memory, KIND, image="j")
    assert (run.failed, run["error"]["refused"]) == (True, True)
    assert "the kubelet of node b does not report, and with maxUnavailable 1" in run.msg
    assert "raise updateStrategy.rollingUpdate.maxUnavailable above 1" in run.msg
    assert run["blockers"][0]["holder"] == "node b"
    assert not [request for request in memory.log if is_write(request)]


def test_a_node_lost_meanwhile_undoes_nothing(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """The undo would be held up as well."""
    controllers.add(KIND, replicas=3)
    controllers.held.add("w")
    memory.add_rival(lambda: controllers.silence("w-1", "b"), when="after", verb="patch", times=1)
    run = roll_out(memory, KIND, image="j", **{**QUICK, "timeout": 1.0})
    assert run.failed
    assert (run["rolled_back"], run["cause"]["reason"], read_image(memory, KIND)) == (False, "NodeNotReady", "j")
    assert "it was not undone, since that would hold an undo up as well" in run.msg


def describe_pod(name: str = "w-0", mark: str = "old", **status: Any) -> Json:
    """Return a pod of a DaemonSet, on a node named after it."""
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": name,
            "namespace": NAMESPACE,
            "labels": {"controller-revision-hash": mark},
            "ownerReferences": [{"kind": KIND, "uid": "u", "controller": True}],
        },
        "spec": {"nodeName": f"node-{name}"},
        "status": status,
    }


def describe_conditions(ready: str, containers: str, reason: str = "") -> list[Json]:
    """Return the two conditions of a pod that tell."""
    return [
        {"type": "Ready", "status": ready, "reason": reason},
        {"type": "ContainersReady", "status": containers},
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"conditions": describe_conditions("False", "True")}, True),
        ({"conditions": describe_conditions("True", "True")}, False),
        ({"conditions": describe_conditions("False", "False", "ContainersNotReady")}, False),
        ({"conditions": describe_conditions("False", "False")}, False),
        ({"conditions": describe_conditions("False", "True", "ReadinessGatesNotReady")}, False),
        ({"reason": "NodeLost"}, True),
        ({"phase": "Unknown"}, True),
        ({}, False),
    ],
)
def test_the_pod_tells_whether_its_node_reports(status: Json, expected: bool) -> None:
    """A kubelet says why a pod is not ready; the node controller does not."""
    assert is_silent(Pod.from_object(describe_pod(**status))) is expected


def make_set(rolling: Json | None = None, **status: int) -> Workload:
    """Return a DaemonSet on 4 nodes."""
    counts = {"desiredNumberScheduled": 4, "currentNumberScheduled": 4, "numberReady": 3, "numberAvailable": 3}
    spec = {"updateStrategy": {"rollingUpdate": rolling or {}}, "selector": {}}
    metadata = {"name": "w", "namespace": NAMESPACE, "uid": "u"}
    return Workload.from_object({"kind": KIND, "metadata": metadata, "spec": spec, "status": {**counts, **status}})


REVISION: Json = {
    "kind": "ControllerRevision",
    "metadata": {
        "name": "w-new",
        "uid": "r",
        "namespace": NAMESPACE,
        "labels": {"controller-revision-hash": "new"},
        "ownerReferences": [{"kind": KIND, "uid": "u", "controller": True}],
    },
    "revision": 2,
}
"""The newest one."""
SILENT: Json = {"conditions": describe_conditions("False", "True")}


@pytest.mark.parametrize(
    ("rolling", "silent", "option"),
    [
        ({}, 1, "maxUnavailable 1"),
        ({"maxUnavailable": 2}, 1, None),
        ({"maxUnavailable": 2}, 2, "maxUnavailable 2"),
        ({"maxUnavailable": "30%"}, 1, None),
        ({"maxUnavailable": "25%"}, 1, "maxUnavailable 1"),
        ({"maxUnavailable": 0, "maxSurge": 1}, 1, "maxSurge 1"),
        ({"maxUnavailable": 0, "maxSurge": "50%"}, 1, None),
        ({}, 4, None),
        ({}, 0, None),
    ],
)
def test_what_is_unavailable_holds_the_others_up(rolling: Json, silent: int, option: str | None) -> None:
    """The limit is rounded up, as its controller does."""
    pods = [Pod.from_object(describe_pod(f"w-{number}", **SILENT)) for number in range(silent)]
    hold = find_hold(pods, make_set(rolling))
    assert (None if hold is None else f"with {option} its" in hold.what) == (None if option is None else True)


@pytest.mark.parametrize(
    ("silent_mark", "updated", "serving", "expected"),
    [
        ("old", 3, 3, True),
        ("old", 2, 3, False),
        ("old", 3, 2, False),
        ("new", 4, 3, True),
        ("new", 3, 3, False),
    ],
)
def test_pods_elsewhere_are_new_and_serve(silent_mark: str, updated: int, serving: int, expected: bool) -> None:
    """A new pod on a silent node does not stand for an old one on another."""
    workload = make_set(updatedNumberScheduled=updated, numberReady=serving, numberAvailable=serving)
    snapshot = Snapshot.from_objects([workload.raw, REVISION, describe_pod("w-0", silent_mark, **SILENT)])
    assert serves_elsewhere(snapshot, workload) is expected
    assert not serves_elsewhere(Snapshot.from_objects([workload.raw, REVISION]), workload)


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ([], ""),
        (["new"], "the kubelet of node node-w-0 does not report, and whether the pod there serves is not known"),
        (
            ["old", "old"],
            "the kubelet of nodes node-w-0, node-w-1 does not report: w-0, w-1 keep the earlier revision until",
        ),
        (
            ["new", "old"],
            "the kubelet of nodes node-w-0, node-w-1 does not report: w-1 keeps the earlier revision until",
        ),
    ],
)
def test_what_becomes_of_pods_on_silent_nodes_is_told(marks: list[str], said: str) -> None:
    """Which keep the earlier revision, and that nothing is known of the others."""
    pods = [describe_pod(f"w-{number}", mark, **SILENT) for number, mark in enumerate(marks)]
    told = describe_silent(Snapshot.from_objects([make_set().raw, REVISION, *pods]), make_set())
    assert told.startswith(said)
    assert bool(told) is bool(marks)


def test_a_set_that_serves_everywhere_costs_no_request(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Its own numbers say so. Nor are pods of another kind looked at before they are replaced."""
    controllers.add(KIND, replicas=2)
    check_done(roll_out(memory, KIND, image="j", guards=[], check=True))
    assert not [request for request in memory.log if request.path.endswith("/pods")]
