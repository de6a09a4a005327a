# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What k8s_workload refuses, and which rights it needs, against the API server in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.memory_controllers import (
    ALWAYS,
    NAMESPACE,
    Controllers,
    describe_hpa,
    describe_scaled_object,
    describe_workload,
)
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer
from support.operation_runs import list_writes

from .workload_steps import (
    TITLE,
    WORKER,
    Json,
    change_worker,
    check_done,
    count_replicas,
    describe_claims,
    own_by_operator,
    run_tiers,
    start,
    stop,
    take_picture,
)

# --- refusals -------------------------------------------------------------------------------------------------------


def track_by_argo_cd(obj: Json) -> None:
    """Let Argo CD have set the replicas."""
    obj["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:apps/StatefulSet:n/w"}
    obj["spec"]["replicas"] = 4


def delete_claims(obj: Json) -> None:
    """Let its controller delete claims."""
    obj["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Delete"}
    obj["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]


REFUSALS: dict[str, tuple[Callable[[MemoryServer], Any], str]] = {
    "keda": (lambda memory: memory.put(describe_scaled_object(WORKER, 1, 9)), "ScaledObject n/k owns its replicas"),
    "hpa to zero": (lambda memory: memory.put(describe_hpa(WORKER, 0, 9)), "HorizontalPodAutoscaler n/h owns"),
    "gitops": (change_worker(track_by_argo_cd), "Argo CD application shop"),
    "operator": (change_worker(own_by_operator), "Shop n/s"),
    "claims": (change_worker(delete_claims), "deletes the claims data-w-2"),
    "right to list pods": (lambda memory: memory.deny("list", "pods"), "may not list pods in namespace n"),
    "right to patch": (lambda memory: memory.deny("patch", "statefulsets.apps"), "n/w|patch statefulsets.apps"),
}


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_come_before_the_first_write(
    memory: MemoryServer, controllers: Controllers, name: str, check: bool
) -> None:
    """Of a stop of several tiers, whichever of them is in the way; the result says what was read, and why."""
    for other in ("a", "w"):
        controllers.add("StatefulSet", other)
    obstruct, words = REFUSALS[name]
    obstruct(memory)
    picture = take_picture(memory)
    run = run_tiers(memory, "stopped", [WORKER], ["StatefulSet/a"], check=check)
    assert run.failed
    assert (run.changed, run["error"]["refused"], list_writes(memory)) == (False, True, [])
    assert take_picture(memory) == picture
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(run.msg)
    assert run["error"]["next_step"]
    assert [entry["name"] for entry in run["workloads"]] == ["a", "w"]
    assert set(run["reasons"]) == {"StatefulSet/a", WORKER}
    assert (run["run_id"], run["requests"]) == ("r", len(memory.log))
    if "right" not in name:
        assert [blocker["object"] for blocker in run["blockers"]] == [TITLE]
        assert run["blockers"][0]["holder"] in run.msg


def test_several_obstacles_are_named_together(memory: MemoryServer, controllers: Controllers) -> None:
    """One run shows them all."""
    controllers.add("StatefulSet", "w")
    controllers.add("StatefulSet", "v", **describe_claims())
    memory.put(describe_scaled_object(WORKER, 1, 9))
    run = stop(memory, WORKER, "StatefulSet/v")
    assert [blocker["object"] for blocker in run["blockers"]] == [TITLE, "StatefulSet n/v"]
    assert "ScaledObject n/k" in run.msg
    assert "data-v-0" in run.msg


def test_claims_may_be_deleted_where_that_is_said(memory: MemoryServer, controllers: Controllers) -> None:
    """The plan says that there is no way back."""
    controllers.add("StatefulSet", "w", **describe_claims())
    run = check_done(stop(memory, allow_volume_deletion=True))
    assert [item["reversible"] for item in run["plan"]] == [False]


def test_a_webhook_that_refuses_the_second_workload(memory: MemoryServer, controllers: Controllers) -> None:
    """Its refusal is found by the dry run, before the first workload is stopped."""
    for name in ("a", "w"):
        controllers.add("StatefulSet", name)
    memory.fail_next(400, verb="patch", path="/statefulsets/w")
    run = run_tiers(memory, "stopped", [WORKER], ["StatefulSet/a"])
    assert (run.failed, run.changed, run["error"]["refused"], list_writes(memory)) == (True, False, True, [])
    assert "the server would refuse the change" in run.msg
    assert "injected 400" in run.msg
    assert run["error"]["object"] == TITLE
    assert run["summary"] == "not stopped: StatefulSet n/a, StatefulSet n/w"


def test_a_start_is_not_refused_by_guards(memory: MemoryServer, controllers: Controllers) -> None:
    """It is the way back."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    memory.put(describe_hpa(WORKER, 0, 9))
    change_worker(own_by_operator)(memory)
    check_done(start(memory))
    assert count_replicas(memory) == 3


def test_what_is_stopped_needs_no_right_and_no_owner_s_leave(memory: MemoryServer, controllers: Controllers) -> None:
    """Nothing is written then."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    change_worker(own_by_operator)(memory)
    memory.deny("patch", "statefulsets.apps")
    assert not check_done(stop(memory)).changed


# --- rights ---------------------------------------------------------------------------------------------------------


def forbid_keda(memory: MemoryServer) -> None:
    """Answer as a server does that asks for rights before it looks whether there is such an API."""
    memory.faults.append(Fault(ALWAYS, path="/scaledobjects", status=403))


def test_no_right_for_an_api_that_does_not_exist(memory: MemoryServer, controllers: Controllers) -> None:
    """403 for keda.sh says nothing in a cluster without KEDA."""
    controllers.add("StatefulSet", "w")
    memory.unregister("ScaledObject")
    forbid_keda(memory)
    assert check_done(stop(memory))["warnings"] == []
    assert check_done(start(memory))["warnings"] == []


def test_no_right_for_keda_that_is_there(memory: MemoryServer, controllers: Controllers) -> None:
    """A stop is refused; a start, the way back, warns and goes on."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    forbid_keda(memory)
    memory.faults.append(Fault(ALWAYS, "get", "/apis/keda.sh", status=200, body=b'{"kind": "APIGroup"}'))
    run = stop(memory)
    assert (run.failed, run["error"]["refused"]) == (True, True)
    assert "ScaledObjects of namespace n" in run.msg
    started = check_done(start(memory))
    assert "nothing is known of the ScaledObjects" in " ".join(started["warnings"])


def test_an_account_that_may_only_read_named_objects(memory: MemoryServer, controllers: Controllers) -> None:
    """Its role has resourceNames: GET instead of LIST, for the first read and for the wait."""
    for name in ("w", "v"):
        controllers.add("StatefulSet", name)
    for verb in ("list", "watch"):
        memory.deny(verb, "statefulsets.apps")
    for act in (stop, start):
        run = check_done(act(memory, WORKER, "StatefulSet/v"))
        assert run.changed
        assert "it may be read, not listed" in " ".join(run["warnings"])
        memory.log.clear()
    assert [count_replicas(memory, name) for name in ("w", "v")] == [3, 3]


def test_no_right_to_watch(memory: MemoryServer, controllers: Controllers) -> None:
    """It is polled instead, and that is said."""
    controllers.add("StatefulSet", "w")
    memory.deny("watch", "*")
    run = check_done(stop(memory))
    assert "instead of being watched" in " ".join(run["warnings"])


# --- the cluster and its objects ------------------------------------------------------------------------------------


def test_another_cluster_is_refused_before_anything(memory: MemoryServer, controllers: Controllers) -> None:
    """One request tells."""
    controllers.add("StatefulSet", "w")
    memory.put({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "here"}})
    run = stop(memory, cluster_uid="elsewhere")
    assert (run.failed, run["error"]["refused"], len(memory.log)) == (True, True, 1)
    assert "here, not the expected elsewhere" in run.msg
    assert (run["requests"], run["run_id"]) == (1, "r")
    check_done(stop(memory, cluster_uid="here"))


def test_a_missing_workload_is_found_before_the_first_write(memory: MemoryServer, controllers: Controllers) -> None:
    """It says what there is instead."""
    controllers.add("StatefulSet", "w")
    memory.put({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    run = run_tiers(memory, "stopped", ["StatefulSet/gone"], [WORKER])
    assert (run.failed, run["error"]["refused"], list_writes(memory)) == (True, True, [])
    assert "StatefulSet n/gone: it does not exist" in run.msg
    assert "StatefulSets there: w" in run.msg


def test_an_invalid_option_asks_nothing(memory: MemoryServer) -> None:
    """Names are checked before a path is made of them."""
    run = stop(memory, namespace="n/../x")
    assert (run.failed, run["error"]["refused"], memory.log) == (True, True, [])


def test_a_gitops_tool_is_found_again_after_our_own_stop_and_start(
    memory: MemoryServer, controllers: Controllers
) -> None:
    """Our patch takes the field away from a tool, so that the tool is saved with it."""
    memory.put(describe_workload("StatefulSet", "w"), manager="argocd-controller")
    controllers.settle("StatefulSet", "w")
    assert "argocd-controller" in stop(memory).msg
    check_done(stop(memory, guards=["hpa", "keda"]))
    check_done(start(memory))
    run = stop(memory)
    assert (run.failed, run["error"]["refused"]) == (True, True)
    assert "manager argocd-controller set spec.replicas before run r" in run.msg
