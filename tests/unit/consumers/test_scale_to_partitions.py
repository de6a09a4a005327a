# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_scale_to_partitions against the API server in memory: what is read, refused, written, followed, reported."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from support.memory_controllers import (
    ALWAYS,
    NAMESPACE,
    Controllers,
    act_while_waiting,
    describe_hpa,
    scale,
)
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import list_writes

from .scale_steps import (
    BOUNDS_BEFORE,
    TITLE,
    WORKER,
    Growing,
    Json,
    act_between,
    check_done,
    check_refused,
    count_replicas,
    follow,
    read_annotations,
    read_bounds,
    scale_to,
)

GUARDS = ["hpa", "keda", "gitops", "disruption_budget", "quota", "headroom"]
COSTS = [("gitops", 0), ("hpa", 1), ("keda", 1), ("disruption_budget", 1), ("quota", 1), ("headroom", 2)]


# --- what is done ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controllers")
def test_check_mode_predicts_and_writes_nothing(memory: MemoryServer) -> None:
    """Plan, diff and changed are those of the real run; the second one changes nothing."""
    memory.put(describe_hpa(WORKER, 1, 9))
    predicted = check_done(scale_to(memory, 12, autoscaler="adjust", check=True))
    assert (memory.count("patch"), predicted.changed, predicted["replicas"]) == (0, True, 12)
    assert predicted["summary"].startswith("would scale StatefulSet n/w from 3 to 12 replicas")
    real = check_done(scale_to(memory, 12, autoscaler="adjust"))
    for key in ("plan", "diff", "changed", "replicas", "target", "reason", "partitions"):
        assert predicted[key] == real[key], key
    assert (count_replicas(memory), real["ready"]) == (12, 12)
    assert real["summary"].startswith("scaled StatefulSet n/w from 3 to 12 replicas")
    assert real["evidence"][0] == "StatefulSet n/w: 12 of 12 replicas ready"
    memory.log.clear()
    for check in (True, False):
        again = check_done(scale_to(memory, 12, autoscaler="adjust", check=check))
        assert (again.changed, again["plan"], memory.count("patch")) == (False, [], 0)


@pytest.mark.usefixtures("controllers")
def test_requests_are_few(memory: MemoryServer) -> None:
    """Read, dry run, write, the watch that waits: at most 5, and one for each guard (two for headroom)."""
    put_node(memory, "100")
    bare = check_done(scale_to(memory, 4, guards=[]))
    assert len(memory.log) == bare["requests"] <= 5
    memory.log.clear()
    full = check_done(scale_to(memory, 5, guards=GUARDS))
    assert len(memory.log) == full["requests"] <= 5 + sum(cost for _guard, cost in COSTS)


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize(("guard", "cost"), COSTS)
def test_no_change_costs_one_request_and_the_guard(memory: MemoryServer, guard: str, cost: int) -> None:
    """What serves already is not waited for."""
    run = check_done(scale_to(memory, 3, guards=[guard]))
    for thread in threading.enumerate():
        if thread.name.startswith("watch "):
            thread.join(5)
    assert (run.changed, run["requests"], len(memory.log), run["waited"]) == (False, 1 + cost, 1 + cost, 0.0)


def test_what_does_not_serve_yet_is_waited_for(memory: MemoryServer, controllers: Controllers) -> None:
    """Also where nothing has to be changed."""
    controllers.held = {"w"}
    scale(memory, "StatefulSet", "w", 5)
    act_while_waiting(memory, lambda: controllers.settle("StatefulSet", "w"))
    run = check_done(scale_to(memory, 5))
    assert (run.changed, run["ready"]) == (False, 5)
    assert memory.count("watch") == 1


@pytest.mark.usefixtures("controllers")
def test_never_down_unless_that_is_allowed(memory: MemoryServer) -> None:
    """What is of no use is named."""
    for check in (True, False):
        kept = check_done(scale_to(memory, 2, check=check))
        assert (kept.changed, count_replicas(memory), kept["replicas"], kept["target"]) == (False, 3, 3, 2)
        assert [blocker["holder"] for blocker in kept["blockers"]] == ["option allow_scale_down (false)"]
    lowered = check_done(scale_to(memory, 2, allow_scale_down=True))
    assert (lowered.changed, count_replicas(memory), lowered["blockers"]) == (True, 2, [])


# --- partitions that grow -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controllers")
def test_partitions_that_grow_meanwhile_are_followed(memory: MemoryServer) -> None:
    """They are asked for again once the workload serves, until they stay as they are."""
    partitions = Growing(4, 6, 7, 7)
    run = check_done(follow(memory, partitions))
    assert (count_replicas(memory), partitions.asked) == (7, 4)
    assert (run["target"], run["replicas"], run["partitions"], run["ready"]) == (7, 7, {"t": 7}, 7)
    assert run["diff"] == {"before": {"replicas": 3}, "after": {"replicas": 7}}
    assert [item["what"] for item in run["plan"]] == ["replicas 3 -> 4", "replicas 4 -> 6", "replicas 6 -> 7"]
    assert "from 3 to 7 replicas" in run["summary"]


@pytest.mark.usefixtures("controllers")
def test_partitions_that_never_rest_are_given_up(memory: MemoryServer) -> None:
    """After three rounds; what was done is reported."""
    partitions = Growing(4, 5, 6, 7, 8, 9, 10)
    run = follow(memory, partitions)
    assert (run.failed, run["error"]["refused"]) == (True, False)
    assert (count_replicas(memory), partitions.asked) == (7, 4)
    assert "changed 3 times" in run.msg
    assert "it has 7 replicas" in run.msg
    assert run["replicas"] == 7


@pytest.mark.usefixtures("controllers")
def test_the_bounds_follow_too(memory: MemoryServer) -> None:
    """And what is saved stays what there was at first."""
    memory.put(describe_hpa(WORKER, 1, 9))
    check_done(follow(memory, Growing(4, 6), autoscaler="adjust"))
    assert read_bounds(memory) == [6, 6]
    assert json.loads(read_annotations(memory, "HorizontalPodAutoscaler", "h")[BOUNDS_BEFORE])["operations"][0][
        "spec"
    ] == {"min": 1, "max": 9, "pinned": 6}
    check_done(scale_to(memory, 6, autoscaler="restore"))
    assert read_bounds(memory) == [1, 9]


@pytest.mark.usefixtures("controllers")
def test_partitions_are_asked_once_in_check_mode_and_where_they_are_given(memory: MemoryServer) -> None:
    """Nothing else could come of it."""
    partitions = Growing(4, 6)
    check_done(follow(memory, partitions, check=True))
    assert partitions.asked == 1
    assert count_replicas(memory) == 3


@pytest.mark.parametrize("partitions", [0, None, "x", {"other": 3}])
def test_partitions_that_are_no_number_ask_nothing(memory: MemoryServer, partitions: Any) -> None:
    """Nothing is sent to the cluster."""
    run = scale_to(memory, partitions, topics=["t"])
    assert (run.failed, run["error"]["refused"], memory.log) == (True, True, [])


# --- other guards ---------------------------------------------------------------------------------------------------


def put_node(memory: MemoryServer, pods: str) -> None:
    """Put a node with room for so many pods."""
    ready = [{"type": "Ready", "status": "True"}]
    memory.put(
        {
            "kind": "Node",
            "metadata": {"name": "n1"},
            "status": {"conditions": ready, "allocatable": {"pods": pods, "cpu": "8", "memory": "8Gi"}},
        }
    )


def put_budget(memory: MemoryServer) -> None:
    """Want three pods of the workload."""
    spec = {"minAvailable": 3, "selector": {"matchLabels": {"app": "w"}}}
    memory.put({"kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": NAMESPACE}, "spec": spec})


def put_quota(memory: MemoryServer) -> None:
    """Allow four pods, three of which are there."""
    memory.put(
        {
            "kind": "ResourceQuota",
            "metadata": {"name": "q", "namespace": NAMESPACE},
            "spec": {"hard": {"pods": "4"}},
            "status": {"hard": {"pods": "4"}, "used": {"pods": "3"}},
        }
    )


def own_by_operator(obj: Json) -> None:
    """Let an operator own it."""
    reference = {"apiVersion": "example.org/v1", "kind": "Shop", "name": "s", "uid": "u", "controller": True}
    obj["metadata"]["ownerReferences"] = [reference]


def delete_claims(obj: Json) -> None:
    """Let its controller delete claims."""
    obj["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Delete"}
    obj["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]


def change_worker(memory: MemoryServer, change: Callable[[Json], None]) -> None:
    """Change the workload."""
    memory.change("StatefulSet", NAMESPACE, "w", change)


OBSTACLES: dict[str, tuple[Callable[[MemoryServer], None], int, str]] = {
    "disruption_budget": (put_budget, 2, "PodDisruptionBudget n/b"),
    "quota": (put_quota, 5, "ResourceQuota n/q"),
    "headroom": (lambda memory: put_node(memory, "4"), 5, "2 more pods are wanted and 1 fits"),
    "gitops": (lambda memory: change_worker(memory, own_by_operator), 5, "Shop n/s"),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("guard", OBSTACLES)
def test_what_a_guard_refuses(memory: MemoryServer, controllers: Controllers, guard: str, check: bool) -> None:
    """Before anything is written, and only where it is asked to look."""
    obstruct, partitions, words = OBSTACLES[guard]
    obstruct(memory)
    controllers.settle("StatefulSet", "w")
    for number in range(3):
        memory.change("Pod", NAMESPACE, f"w-{number}", lambda pod: pod.update(spec={"nodeName": "n1"}))
    run = scale_to(memory, partitions, guards=[guard], allow_scale_down=True, check=check)
    check_refused(memory, run, words)
    assert [blocker["object"] for blocker in run["blockers"]] == [TITLE]
    assert run["error"]["next_step"] == run["blockers"][0]["next_step"].rstrip(".")
    check_done(scale_to(memory, partitions, guards=[], allow_scale_down=True, check=check))


def put_claims(memory: MemoryServer, *numbers: int, hard: Json) -> None:
    """Let each pod have a volume claim, some of which are there, and limit what there may be."""
    template = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    change_worker(memory, lambda obj: obj["spec"].update(volumeClaimTemplates=[template]))
    for number in numbers:
        metadata = {"name": f"data-w-{number}", "namespace": NAMESPACE}
        memory.put({"kind": "PersistentVolumeClaim", "metadata": metadata})
    status = {"hard": hard, "used": {"persistentvolumeclaims": "3", "requests.storage": "3Gi"}}
    metadata = {"name": "q", "namespace": NAMESPACE}
    memory.put({"kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}, "status": status})


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("hard", "words"),
    [
        ({"persistentvolumeclaims": "4"}, "2 more pods need 2 of persistentvolumeclaims; ResourceQuota n/q has 1 of 4"),
        ({"requests.storage": "4Gi"}, "2 more pods need 2147483648 of requests.storage; ResourceQuota n/q has 107374"),
    ],
)
def test_a_quota_on_volumes_stops_no_scaling_half_way(
    memory: MemoryServer, controllers: Controllers, hard: Json, words: str, check: bool
) -> None:
    """It is refused before; claims that are there already, of pods that are gone, need nothing more."""
    put_claims(memory, 0, 1, 2, hard=hard)
    controllers.settle("StatefulSet", "w")
    check_refused(memory, scale_to(memory, 5, guards=["quota"], check=check), words)
    metadata = {"name": "data-w-3", "namespace": NAMESPACE}
    memory.put({"kind": "PersistentVolumeClaim", "metadata": metadata})
    check_done(scale_to(memory, 5, guards=["quota"], check=check))


def test_claims_are_read_only_where_a_quota_limits_them(memory: MemoryServer, controllers: Controllers) -> None:
    """Nor where there are to be fewer pods, or without that guard."""
    put_claims(memory, hard={"pods": "9"})
    controllers.settle("StatefulSet", "w")
    check_done(scale_to(memory, 4, guards=["quota"]))
    put_claims(memory, hard={"persistentvolumeclaims": "4"})
    check_done(scale_to(memory, 3, guards=["quota"], allow_scale_down=True))
    check_done(scale_to(memory, 9, guards=[]))
    assert memory.count("list", "/persistentvolumeclaims") == 0
    memory.deny("list", "persistentvolumeclaims")
    refused = scale_to(memory, 10, guards=["quota"])
    assert (refused.failed, refused.changed) == (True, False)
    assert "PersistentVolumeClaims of namespace n" in refused.msg


@pytest.mark.usefixtures("controllers")
def test_a_guard_refuses_a_change_only(memory: MemoryServer) -> None:
    """What is as it should be may be owned by anybody."""
    change_worker(memory, own_by_operator)
    assert not check_done(scale_to(memory, 3)).changed


@pytest.mark.usefixtures("controllers")
def test_claims_are_kept_whatever_the_guards_are(memory: MemoryServer) -> None:
    """Unless it is said that they may go, and then the plan says that there is no way back."""
    change_worker(memory, delete_claims)
    run = scale_to(memory, 1, guards=[], allow_scale_down=True)
    check_refused(memory, run, "deletes the claims data-w-2")
    lowered = check_done(scale_to(memory, 1, allow_scale_down=True, allow_volume_deletion=True, check=True))
    assert [item["reversible"] for item in lowered["plan"]] == [False]


@pytest.mark.usefixtures("controllers")
def test_a_webhook_refuses_before_the_bounds_are_touched(memory: MemoryServer) -> None:
    """The dry run of the last write comes before the first one."""
    memory.put(describe_hpa(WORKER, 1, 9))
    memory.fail_next(400, verb="patch", path="/statefulsets/w")
    run = scale_to(memory, 12, autoscaler="adjust")
    check_refused(memory, run, "injected 400")
    assert read_bounds(memory) == [1, 9]


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("resource", ["statefulsets.apps", "horizontalpodautoscalers.autoscaling"])
@pytest.mark.parametrize("check", [True, False])
def test_a_missing_right_is_found_first(memory: MemoryServer, resource: str, check: bool) -> None:
    """Also in check mode, which predicts."""
    memory.put(describe_hpa(WORKER, 1, 9))
    memory.deny("patch", resource)
    check_refused(memory, scale_to(memory, 12, autoscaler="adjust", check=check), "patch")


@pytest.mark.usefixtures("controllers")
def test_no_right_for_keda_in_a_cluster_without_it(memory: MemoryServer) -> None:
    """403 for an API that does not exist says nothing."""
    memory.unregister("ScaledObject")
    memory.faults.append(Fault(ALWAYS, path="/scaledobjects", status=403))
    check_done(scale_to(memory, 4))


# --- rivals ---------------------------------------------------------------------------------------------------------


def test_a_rival_before_the_write_is_decided_about_anew(memory: MemoryServer, controllers: Controllers) -> None:
    """More than asked for by now: it stays, and is reported."""

    def act() -> None:
        scale(memory, "StatefulSet", "w", 20)
        controllers.act()

    act_between(memory, act)
    run = check_done(scale_to(memory, 12))
    assert (count_replicas(memory), run["replicas"], run["ready"]) == (20, 20, 20)
    assert run["diff"]["after"] == {"replicas": 20}


@pytest.mark.usefixtures("controllers")
def test_guards_look_at_what_a_rival_made_of_it(memory: MemoryServer) -> None:
    """What went up when it was planned goes down when it is written."""
    put_budget(memory)
    memory.change("PodDisruptionBudget", NAMESPACE, "b", lambda obj: obj["spec"].update(minAvailable=15))
    act_between(memory, lambda: scale(memory, "StatefulSet", "w", 20))
    run = scale_to(memory, 12, allow_scale_down=True, guards=["disruption_budget"])
    check_refused_late(memory, run)
    assert "PodDisruptionBudget n/b" in run.msg
    assert count_replicas(memory) == 20


def check_refused_late(memory: MemoryServer, run: ModuleRun) -> None:
    """Check that a write was tried and not carried out, and the next one refused."""
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, False, True)
    assert len(list_writes(memory)) == 1


def test_a_rival_after_the_write_is_named(memory: MemoryServer, controllers: Controllers) -> None:
    """Also where an HPA is known: its bounds are pinned, so that another number is somebody else's."""
    memory.put(describe_hpa(WORKER, 1, 9))
    controllers.held = {"w"}
    act_while_waiting(memory, lambda: scale(memory, "StatefulSet", "w", 7, manager="someone"))
    run = scale_to(memory, 12, autoscaler="adjust", timeout=60)
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, True, False)
    assert "replicas were set to 12, and someone has set them to 7 since" in run.msg
    assert (run["replicas"], run["waited"] < 30) == (7, True)


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_is_no_failure(memory: MemoryServer, when: str) -> None:
    """It is looked whether the write was carried out."""
    act_between(memory, lambda: memory.lose_next(when, verb="patch"))
    run = check_done(scale_to(memory, 12))
    assert (run.changed, count_replicas(memory)) == (True, 12)


@pytest.mark.usefixtures("controllers")
def test_a_server_that_is_lost_after_the_write(memory: MemoryServer) -> None:
    """It is not known whether it was carried out: changed, and no refusal."""

    def lose() -> None:
        memory.lose_next("after", verb="patch")
        memory.lose_next("before", times=ALWAYS)

    act_between(memory, lose)
    run = scale_to(memory, 12, timeout=1)
    assert (run.failed, run.changed, run["error"]["refused"], run["run_id"]) == (True, True, False, "r")


def test_a_wait_without_success(memory: MemoryServer, controllers: Controllers) -> None:
    """The summary does not claim that it serves."""
    controllers.held = {"w"}
    run = scale_to(memory, 12, timeout=1)
    assert (run.failed, run.changed, run["error"]["refused"]) == (True, True, False)
    assert run["summary"].startswith("StatefulSet n/w is not at 12 replicas yet, it had 3")
    assert "ready" not in run.result


# --- the cluster and its objects ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controllers")
def test_another_cluster_is_refused_before_anything(memory: MemoryServer) -> None:
    """One request tells."""
    memory.put({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "here"}})
    run = scale_to(memory, 5, cluster_uid="elsewhere")
    check_refused(memory, run, "here, not the expected elsewhere")
    assert (len(memory.log), run["requests"], run["run_id"]) == (1, 1, "r")


@pytest.mark.usefixtures("controllers")
def test_a_missing_workload(memory: MemoryServer) -> None:
    """It says what there is instead."""
    memory.put({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    check_refused(memory, scale_to(memory, 5, name="gone"), "StatefulSets there: w")
