# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands in the way of a pod template: its own amounts, LimitRanges, quotas, nodes, and who owns it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints.capacity import find_fit_blockers
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints.limits import find_amount_blockers
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints.owners import (
    POD_TEMPLATE,
    find_owner_blockers,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints.quota import (
    find_rollout_quota_blockers,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from support.memory_controllers import describe_workload

Json = dict[str, Any]


def make_template(**container: Any) -> Json:
    """Return a template of one container."""
    return {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "main", "image": "i", **container}]}}


def ask(**amounts: str) -> Json:
    """Return a template that requests these amounts."""
    return make_template(resources={"requests": amounts})


def make_workload(template: Json, replicas: int = 3) -> Workload:
    """Return a workload all of whose pods are there."""
    obj = describe_workload("Deployment", "w", replicas)
    obj["spec"]["template"] = template
    obj["status"] = {"replicas": replicas}
    return Workload.from_object(obj)


def limit(**bounds: Any) -> list[Json]:
    """Return a LimitRange for containers."""
    return [{"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **bounds}]}}]


@pytest.mark.parametrize(
    ("container", "ranges", "said"),
    [
        ({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1024Mi"}}}, [], None),
        (
            {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
            [],
            "container main requests 2147483648 of memory and is limited to 1073741824",
        ),
        (
            {"resources": {"requests": {"memory": "2Gi"}}},
            limit(default={"memory": "1Gi"}),
            "requests 2147483648 of memory and is limited to 1073741824",
        ),
        ({"resources": {"limits": {"memory": "2Gi"}}}, limit(max={"memory": "2Gi"}), None),
        ({"resources": {"limits": {"memory": "3Gi"}}}, limit(max={"memory": "2Gi"}), "allows at most 2Gi"),
        ({}, limit(max={"memory": "2Gi"}), "has no limit of memory"),
        ({"resources": {"requests": {"cpu": "10m"}}}, limit(min={"cpu": "50m"}), "asks for at least 50m"),
        (
            {"resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "GOMEMLIMIT", "value": "900MiB"}]},
            [],
            None,
        ),
        (
            {"resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "GOMEMLIMIT", "value": "2GiB"}]},
            [],
            "is told GOMEMLIMIT=2GiB, and its memory limit is 1073741824",
        ),
        (
            {"resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "JAVA_OPTS", "value": "-Xms1g -Xmx2g"}]},
            [],
            "is told -Xmx2g",
        ),
        ({"resources": {"limits": {"memory": "1Gi"}}, "args": ["-Xmx512m"]}, [], None),
        ({"resources": {"limits": {"memory": "1Gi"}}, "command": ["java", "-Xmx1024m"]}, [], "is told -Xmx1024m"),
        ({"env": [{"name": "JAVA_OPTS", "value": "-Xmx2g"}]}, [], None),
        ({"resources": {"limits": {"memory": "1Gi"}}, "args": ["-Xmx2g", "-Xmx512m"]}, [], None),
        ({"resources": {"limits": {"memory": "1Gi"}}, "args": ["-Xmx512m", "-Xmx2g"]}, [], "is told -Xmx2g"),
        (
            {
                "resources": {"limits": {"memory": "1Gi"}},
                "env": [{"name": "_JAVA_OPTIONS", "value": "-Xmx512m"}, {"name": "JAVA_OPTS", "value": "-Xmx2g"}],
            },
            [],
            None,
        ),
    ],
)
def test_amounts_have_to_agree(container: Json, ranges: list[Json], said: str | None) -> None:
    """With each other, with LimitRanges, and with what the runtime is told."""
    blockers = find_amount_blockers("T", make_template(**container), containers={"main"}, limit_ranges=ranges)
    assert bool(blockers) is (said is not None)
    assert said is None or said in blockers[0].what
    assert find_amount_blockers("T", make_template(**container), containers={"other"}, limit_ranges=ranges) == []


def quota(hard: str, used: str, resource: str = "requests.memory") -> list[Json]:
    """Return a quota."""
    return [{"metadata": {"name": "q"}, "status": {"hard": {resource: hard}, "used": {resource: used}}}]


@pytest.mark.parametrize(
    ("new", "unavailable", "hard", "said"),
    [
        ("10", 0, "40", None),
        ("10", 0, "39", "1 new pod needs 10 of requests.memory; ResourceQuota n/q has 9 of 39 left for that"),
        ("10", 1, "30", None),
        ("20", 1, "60", None),
        ("20", 1, "59", "3 new pods need 60 of requests.memory; ResourceQuota n/q has 59 of 59 left for that"),
        ("20", 0, "49", "1 new pod needs 20"),
        ("45", 1, "40", "1 new pod needs 45"),
    ],
)
def test_a_quota_has_to_leave_room_for_the_first_pod_and_for_all(
    new: str, unavailable: int, hard: str, said: str | None
) -> None:
    """Old pods that go first give their share back. Three pods take 30 now."""
    blockers = find_rollout_quota_blockers(
        make_workload(ask(memory="10")), ask(memory=new), quota(hard, "30"), unavailable=unavailable
    )
    assert bool(blockers) is (said is not None)
    assert said is None or blockers[0].what.startswith(said)


def test_a_workload_at_zero_needs_no_room() -> None:
    """Neither in a quota nor on a node."""
    stopped = make_workload(ask(memory="10"), 0)
    assert find_rollout_quota_blockers(stopped, ask(memory="99"), quota("1", "1"), unavailable=0) == []
    assert find_fit_blockers(stopped, ask(memory="99"), [], [], replaces_first=False) == []


def make_node(memory: str) -> Json:
    """Return a node that is ready."""
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": "n1"},
        "status": {"conditions": conditions, "allocatable": {"memory": memory, "pods": "9"}},
    }


def make_pod(memory: str, app: str = "w") -> Json:
    """Return a pod on that node."""
    spec = {**ask(memory=memory)["spec"], "nodeName": "n1"}
    return {"metadata": {"name": "p", "namespace": "n", "labels": {"app": app}}, "spec": spec, "status": {}}


@pytest.mark.parametrize(
    ("new", "replaces_first", "fits"),
    [("10", False, True), ("11", False, False), ("20", True, True), ("21", True, False)],
)
def test_a_node_has_to_have_room_for_a_pod(new: str, replaces_first: bool, fits: bool) -> None:
    """Where an old pod goes first, with the room of one of them."""
    pods = [make_pod("10"), make_pod("10"), make_pod("10"), make_pod("5", "other")]
    blockers = find_fit_blockers(
        make_workload(ask(memory="10")), ask(memory=new), [make_node("45")], pods, replaces_first=replaces_first
    )
    assert (blockers == []) is fits
    assert all("leave capacity out of guards" in blocker.next_step for blocker in blockers)


def own(obj: Json, manager: str, *path: str, operation: str = "Apply") -> Workload:
    """Return the workload with one more owner of a field."""
    fields: Json = {}
    for name in reversed(path):
        fields = {f"f:{name}": fields}
    entry = {"manager": manager, "operation": operation, "fieldsV1": fields}
    managed = [*obj["metadata"].get("managedFields", []), entry]
    return Workload.from_object({**obj, "metadata": {**obj["metadata"], "managedFields": managed}})


def test_a_gitops_tool_that_owns_the_template_is_named() -> None:
    """One that owns only the replicas is none of a rollout's, and the other way round."""
    obj = describe_workload("Deployment", "w")
    of_template = own(obj, "argocd-controller", "spec", "template", "spec", "containers")
    (blocker,) = find_owner_blockers(of_template, POD_TEMPLATE)
    assert "manager argocd-controller set spec.template), which may put its pod template back" in blocker.what
    assert blocker.next_step == "Let that tool ignore spec.template (or pause it), then leave gitops out of guards"
    assert find_owner_blockers(of_template) == []
    of_replicas = own(obj, "argocd-controller", "spec", "replicas")
    assert find_owner_blockers(of_replicas, POD_TEMPLATE) == []
    assert len(find_owner_blockers(of_replicas)) == 1


def test_an_operator_that_owns_the_workload_is_named_with_its_way_out() -> None:
    """The pod template is its business."""
    obj = copy.deepcopy(describe_workload("StatefulSet", "w"))
    reference = {"apiVersion": "example.org/v1", "kind": "Shop", "name": "s", "uid": "u", "controller": True}
    obj["metadata"]["ownerReferences"] = [reference]
    (blocker,) = find_owner_blockers(Workload.from_object(obj), POD_TEMPLATE)
    assert blocker.what.endswith("whose operator may put its pod template back")
    assert blocker.next_step == "Pause Shop n/s, or set the pod template there, then leave gitops out of guards"
