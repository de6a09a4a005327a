# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout refuses what a Canary of Flagger or a Rollout of Argo rolls out, and says what it may not read."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints.delivery import (
    ARGO,
    FLAGGER,
    DeliveryTool,
)
from support.memory_controllers import NAMESPACE
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import RolloutControllers
from support.operation_runs import is_write

from .rollout_steps import check_done, roll_out

Json = dict[str, Any]


def put_tool(memory: MemoryServer, tool: DeliveryTool, **reference: str) -> None:
    """Serve the kind of a tool, and put an object of it for the workload ``w``."""
    memory.register(tool.resource)
    named = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", **reference}
    metadata = {"name": "own", "namespace": NAMESPACE}
    memory.put({"kind": tool.resource.kind, "metadata": metadata, "spec": {tool.reference: named}})


@pytest.mark.parametrize(
    ("tool", "kind", "holder"),
    [
        (FLAGGER, "Deployment", "Canary n/own of Flagger (spec.targetRef)"),
        (FLAGGER, "DaemonSet", "Canary n/own of Flagger (spec.targetRef)"),
        (ARGO, "Deployment", "Rollout n/own of Argo Rollouts (spec.workloadRef)"),
    ],
)
def test_what_another_controller_rolls_out_is_refused(
    memory: MemoryServer, tool: DeliveryTool, kind: str, holder: str
) -> None:
    """By name, with the next step, and before the first write; not without the guard."""
    RolloutControllers(memory).add(kind)
    put_tool(memory, tool, kind=kind)
    run = roll_out(memory, kind, image="j")
    assert (run.failed, run["error"]["refused"]) == (True, True)
    assert f"it is rolled out by {holder}" in run.msg
    assert f"Release it by {tool.name}, and follow {tool.resource.kind} n/own" in run["error"]["next_step"]
    assert not [request for request in memory.log if is_write(request)]
    check_done(roll_out(memory, kind, image="j", guards=[], serve_seconds=0.0))


@pytest.mark.parametrize("other", [{"kind": "Service"}, {"name": "x"}, {"apiVersion": "example.org/v1"}])
@pytest.mark.parametrize("tool", [FLAGGER, ARGO])
def test_one_that_names_something_else_stops_nothing(memory: MemoryServer, tool: DeliveryTool, other: Json) -> None:
    """Kind, name and API have to be those of the workload."""
    RolloutControllers(memory).add("Deployment")
    put_tool(memory, tool, **other)
    assert check_done(roll_out(memory, image="j", serve_seconds=0.0)).changed


def test_what_may_not_be_read_is_said(memory: MemoryServer) -> None:
    """As a warning that names the tool; nothing is said of one that the cluster does not have."""
    RolloutControllers(memory).add("Deployment")
    memory.register(FLAGGER.resource)
    memory.put({"kind": "Canary", "metadata": {"name": "own", "namespace": NAMESPACE}, "spec": {}})
    memory.faults += [
        Fault(times=99, path="/canaries", status=403),
        Fault(times=99, path="/rollouts", status=403),
        Fault(times=99, path="/apis/argoproj.io", status=404),
        Fault(times=99, path="/apis/flagger.app", status=200, body=b"{}"),
    ]
    run = check_done(roll_out(memory, image="j", serve_seconds=0.0))
    assert [warning for warning in run["warnings"] if "it is not known whether Flagger rolls" in warning]
    assert not [warning for warning in run["warnings"] if "Argo" in warning]


def test_a_stateful_set_is_not_asked_about(memory: MemoryServer) -> None:
    """Neither tool rolls one out."""
    RolloutControllers(memory).add("StatefulSet")
    put_tool(memory, FLAGGER, kind="StatefulSet")
    check_done(roll_out(memory, "StatefulSet", image="j", serve_seconds=0.0))
    assert not [request for request in memory.log if "canaries" in request.path or "rollouts" in request.path]


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (
            {
                "annotations": {
                    "argocd.argoproj.io/tracking-id": "shop:apps/Deployment:n/w",
                    "kubectl.kubernetes.io/last-applied-configuration": '{"spec": {"template": {}}}',
                }
            },
            "it is kept by Argo CD application shop",
        ),
        (
            {"ownerReferences": [{"apiVersion": "example.org/v1", "kind": "Shop", "name": "s", "controller": True}]},
            "it belongs to Shop n/s (example.org/v1), whose operator may put its pod template back",
        ),
    ],
)
def test_a_restart_is_nothing_that_a_gitops_tool_has(memory: MemoryServer, marks: Json, words: str) -> None:
    """Its annotation is in no Git; an operator makes the whole template, and takes it out again."""
    RolloutControllers(memory).add("Deployment")
    obj = memory.read("Deployment", NAMESPACE, "w")
    obj["metadata"] = {**obj["metadata"], **marks}
    memory.put(obj, manager="argocd-controller" if "annotations" in marks else "test")
    for pod in memory.read_all("Pod"):
        memory.remove("Pod", NAMESPACE, pod["metadata"]["name"])
        pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        memory.put(pod)
    after = "2026-01-01T00:00:01Z"
    assert words in roll_out(memory, image="j", check=True).msg
    restart = roll_out(memory, restarted_after=after, check=True)
    both = roll_out(memory, restarted_after=after, image="j", check=True)
    assert words in both.msg
    if "ownerReferences" in marks:
        assert words in restart.msg
    else:
        assert check_done(restart).changed
