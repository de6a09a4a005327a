# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_autoscaler against the API server in memory: what is read, refused, written, waited for, reported."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.autoscaler import run_autoscaler
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import Resource
from support.memory_controllers import (
    ALWAYS,
    NAMESPACE,
    Controllers,
    describe_hpa,
    describe_scaled_object,
    describe_workload,
    scale,
)
from support.memory_kubernetes import MemoryServer
from support.memory_objects import format_now
from support.modules import ModuleRun
from support.operation_runs import list_writes, run_operation

Json = dict[str, Any]
HPA = "HorizontalPodAutoscaler"
TARGET: Json = {"kind": "Deployment", "name": "api", "api_version": None, "plural": None}
CPU: Json = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
}
DECLARED: Json = {"target": TARGET, "min_replicas": 2, "max_replicas": 8, "metrics": [CPU]}
POOL: Json = {
    "max_connections": 100,
    "limited_by": "max_connections",
    "pool_per_replica": 10,
    "used_by_others": 10,
    "reserved": 0,
    "shared_with": [],
}
END = "2999-01-01T00:00:00Z"


@pytest.fixture
def controllers(memory: MemoryServer) -> Controllers:
    """Who settles at once what is written, an HPA's controller among them; there is an API of 3 replicas."""
    controllers = Controllers(memory)
    controllers.add("Deployment", "api")
    serve_metrics(memory, "metrics.k8s.io/v1beta1")
    for verb in ("patch", "create"):
        act = partial(keep_bounds, memory, controllers)
        memory.add_rival(act, when="after", verb=verb, path="autoscalers", times=ALWAYS)
    return controllers


def serve_metrics(memory: MemoryServer, version: str) -> None:
    """Have an API of metrics."""
    memory.resources[version, "pods"] = Resource(version, "pods", "PodMetrics")


def set_condition(memory: MemoryServer, status: str, reason: str, message: str = "") -> None:
    """Have the HPA say whether it can read its metrics."""
    condition = {"type": "ScalingActive", "status": status, "reason": reason, "message": message}
    memory.change(HPA, NAMESPACE, "h", lambda obj: obj.update(status={"conditions": [condition]}))


def keep_bounds(memory: MemoryServer, controllers: Controllers) -> None:
    """Bring the API into the bounds of its HPAs, and say that their metrics are read, as their controller does."""
    for hpa in memory.read_all(HPA):
        if "status" not in hpa and hpa["metadata"]["name"] == "h":
            set_condition(memory, "True", "ValidMetricFound")
        replicas = memory.read("Deployment", NAMESPACE, "api")["spec"]["replicas"]
        goal = max(hpa["spec"]["minReplicas"], min(hpa["spec"]["maxReplicas"], replicas))
        if replicas not in (0, goal):
            scale(memory, "Deployment", "api", goal)
            controllers.act()


def run(memory: MemoryServer, *, check: bool = False, **params: Any) -> ModuleRun:
    """Run the module."""
    return run_operation(memory, run_autoscaler, check=check, **params)


def put_hpa(
    memory: MemoryServer, low: int = 2, high: int = 8, *, metrics: list[Json] | None = None, **metadata: Any
) -> None:
    """Have an HPA of the API."""
    hpa = describe_hpa("Deployment/api", low, high, **metadata)
    memory.put({**hpa, "spec": {**hpa["spec"], "metrics": metrics or [CPU]}})


def read_spec(memory: MemoryServer) -> Json:
    """Return the spec of the HPA."""
    spec: Json = memory.read(HPA, NAMESPACE, "h")["spec"]
    return spec


def check_refused(memory: MemoryServer, words: str, **params: Any) -> ModuleRun:
    """Check that a rehearsal and a run are refused before anything is written."""
    for check in (True, False):
        refused = run(memory, check=check, **params)
        assert (refused.failed, refused["error"]["refused"], list_writes(memory)) == (True, True, [])
        assert words in refused.msg, refused.msg
    return refused


@pytest.mark.usefixtures("controllers")
def test_it_is_made_and_its_target_follows(memory: MemoryServer) -> None:
    """Check mode predicts both and writes nothing; the second run changes nothing."""
    declared = {**DECLARED, "min_replicas": 5}
    predicted = run(memory, check=True, **declared)
    assert (predicted.changed, list_writes(memory), memory.read_all(HPA)) == (True, [], [])
    made = run(memory, **declared)
    assert not made.failed, made.msg
    for key in ("plan", "diff", "changed"):
        assert made[key] == predicted[key], key
    assert [entry["what"] for entry in made["plan"]] == [
        "make it for Deployment n/api: minReplicas 5, maxReplicas 8, metrics none -> cpu 70 %",
        "replicas 3 -> 5",
    ]
    assert (made["summary"], made["replicas"]) == (f"made {HPA} n/h (5 to 8 replicas)", 5)
    memory.log.clear()
    for check in (True, False):
        again = run(memory, check=check, **declared)
        assert (again.changed, again["plan"], list_writes(memory)) == (False, [], [])
    assert again["summary"] == f"{HPA} n/h is unchanged (as declared)"


@pytest.mark.usefixtures("controllers")
def test_bounds_move_the_target_and_are_waited_for(memory: MemoryServer) -> None:
    """A maximum below what there is only where that is allowed."""
    put_hpa(memory)
    raised = run(memory, min_replicas=4)
    assert (raised["replicas"], [entry["what"] for entry in raised["plan"]]) == (
        4,
        ["minReplicas 2 -> 4", "replicas 3 -> 4"],
    )
    memory.log.clear()
    check_refused(memory, "would let go 1 of them at once", min_replicas=1, max_replicas=3)
    lowered = run(memory, min_replicas=1, max_replicas=3, allow_scale_down=True)
    assert not lowered.failed, lowered.msg
    assert lowered["replicas"] == 3
    assert lowered["evidence"] == [f"{HPA} n/h: 1 to 3 replicas", "Deployment n/api: 3 of 3 replicas ready"]


def test_a_target_that_does_not_follow_is_named(memory: MemoryServer) -> None:
    """Nobody runs the HPA's controller here; running again goes on waiting, and writes nothing."""
    Controllers(memory).add("Deployment", "api")
    put_hpa(memory)
    late = run(memory, min_replicas=4, timeout=0.5)
    assert (late.failed, late.changed, late["error"]["refused"]) == (True, True, False)
    assert "Deployment n/api" in late.msg
    assert late["summary"] == f"{HPA} n/h is not in force yet: minReplicas 2 -> 4 (declared)"
    memory.log.clear()
    later = run(memory, min_replicas=4, timeout=0.5)
    assert (later.failed, later.changed, list_writes(memory)) == (True, False, [])


@pytest.mark.usefixtures("controllers")
def test_a_target_at_zero_rests(memory: MemoryServer) -> None:
    """An HPA does not start it, so nothing is waited for."""
    scale(memory, "Deployment", "api", 0)
    done = run(memory, **DECLARED)
    assert (done.failed, done["replicas"], done["waited"]) == (False, 0, 0.0)


@pytest.mark.procedure("C6")
@pytest.mark.usefixtures("controllers")
def test_one_autoscaler_for_a_target(memory: MemoryServer) -> None:
    """Another HPA, a ScaledObject, and the HPA that it makes."""
    memory.put(describe_hpa("Deployment/api", 1, 9, name="other"))
    check_refused(memory, f"{HPA} n/other scales it already", **DECLARED)
    memory.remove(HPA, NAMESPACE, "other")
    memory.put(describe_scaled_object("Deployment/api", 1, 9))
    check_refused(memory, "ScaledObject n/k scales it already", **DECLARED)
    owner = {"kind": "ScaledObject", "name": "k", "uid": "x"}
    put_hpa(memory, ownerReferences=[owner])
    check_refused(memory, "ScaledObject k made it and would put it back", min_replicas=3)


@pytest.mark.usefixtures("controllers")
def test_what_does_not_exist_or_is_something_elses_is_refused(memory: MemoryServer) -> None:
    """An HPA without a target, a target that is not there, an HPA of another target, too little for a new one."""
    check_refused(memory, "it does not exist", min_replicas=3)
    check_refused(memory, "it does not exist", **{**DECLARED, "target": {**TARGET, "name": "nothing"}})
    check_refused(memory, "max_replicas and metrics are not declared", target=TARGET, min_replicas=3)
    check_refused(memory, "there is nothing that could be given back later", **DECLARED, save_before=True)
    put_hpa(memory)
    memory.put(describe_workload("Deployment", "b"))
    check_refused(
        memory, "it scales Deployment api, and the declared target is Deployment b", target={**TARGET, "name": "b"}
    )


@pytest.mark.usefixtures("controllers")
def test_the_database_bounds_the_maximum(memory: MemoryServer) -> None:
    """100 connections, 10 of others, 10 for each: nine replicas. A maximum that stays is only named."""
    refused = check_refused(memory, "9 replicas fit", **{**DECLARED, "max_replicas": 10}, connection_budget=POOL)
    assert refused["blockers"][0]["holder"] == "max_connections 100"
    fitting = run(memory, **{**DECLARED, "max_replicas": 9}, connection_budget=POOL)
    assert not fitting.failed, fitting.msg
    full = run(memory, max_replicas=3, connection_budget={**POOL, "max_connections": 20}, allow_scale_down=True)
    assert not full.failed, full.msg
    assert "1 replica fits" in full["blockers"][0]["what"]


@pytest.mark.usefixtures("controllers")
def test_a_quota_bounds_the_minimum_and_is_named_for_the_maximum(memory: MemoryServer) -> None:
    """More than there can ever be is no error of the declaration, but nobody should rely on it."""
    quota = {"hard": {"pods": "5"}, "used": {"pods": "3"}}
    memory.put({"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": NAMESPACE}, "status": quota})
    check_refused(memory, "ResourceQuota", **{**DECLARED, "min_replicas": 6})
    done = run(memory, **{**DECLARED, "min_replicas": 3})
    assert not done.failed, done.msg
    assert "ResourceQuota" in done["blockers"][0]["what"]


@pytest.mark.usefixtures("controllers")
def test_a_gitops_tool_that_has_the_field_is_named(memory: MemoryServer) -> None:
    """A field that it does not have is free."""
    hpa = describe_hpa("Deployment/api", 2, 8, labels={"kustomize.toolkit.fluxcd.io/name": "apps"})
    memory.put({**hpa, "spec": {**hpa["spec"], "metrics": [CPU]}}, manager="kustomize-controller")
    check_refused(memory, "Flux Kustomization apps", max_replicas=9)
    free = run(memory, behavior={"scaleDown": {"stabilizationWindowSeconds": 600}})
    assert not free.failed, free.msg
    let = run(memory, max_replicas=9, guards=[])
    assert (let.failed, read_spec(memory)["maxReplicas"]) == (False, 9)


@pytest.mark.usefixtures("controllers")
def test_what_the_hpa_says_of_itself_is_reported(memory: MemoryServer) -> None:
    """It cannot read its metrics; that it rests at 0 is no trouble."""
    put_hpa(memory)
    conditions = [
        {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale"},
        {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics API"},
    ]
    memory.change(HPA, NAMESPACE, "h", lambda obj: obj.update(status={"conditions": conditions}))
    assert [blocker["what"] for blocker in run(memory)["blockers"]] == ["FailedGetResourceMetric: no metrics API"]
    conditions[1] = {"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled"}
    memory.change(HPA, NAMESPACE, "h", lambda obj: obj.update(status={"conditions": conditions}))
    assert run(memory)["blockers"] == []


@pytest.mark.usefixtures("controllers")
def test_a_change_for_a_time_comes_and_goes(memory: MemoryServer) -> None:
    """By its end on the server's clock, or when that is asked for."""
    put_hpa(memory)
    before = read_spec(memory)
    assert run(memory, min_replicas=4, until=END).changed
    early = run(memory, state="expired")
    assert (early.changed, early["plan"]) == (False, [])
    foreseen = run(memory, state="restored", check=True)
    restored = run(memory, state="restored")
    assert (restored.changed, restored["plan"], read_spec(memory)) == (True, foreseen["plan"], before)
    assert run(memory, min_replicas=4, until="2998-01-01T00:00:00Z").changed
    memory.clock_ahead = 1000 * 365.25 * 86400
    expired = run(memory, state="expired")
    assert (expired.changed, read_spec(memory)) == (True, before)
    assert not run(memory, state="expired").changed


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("option", [{"min_replicas": 3}, {"connection_budget": POOL}, {"until": END}])
def test_giving_back_declares_nothing(memory: MemoryServer, option: Json) -> None:
    """What would be ignored is refused."""
    put_hpa(memory)
    check_refused(memory, f"option {next(iter(option))}", state="restored", **option)


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_an_end_is_judged_by_the_clock_of_the_server(memory: MemoryServer, ahead: float) -> None:
    """As k8s_rollout does, whatever the clock of this machine says."""
    put_hpa(memory)
    memory.clock_ahead = ahead
    check_refused(memory, "option until", min_replicas=4, until=format_now(ahead - 1800))
    assert run(memory, min_replicas=4, until=format_now(ahead + 1800)).changed
    assert not run(memory, state="expired").changed
    memory.clock_ahead = ahead + 3600.0
    assert run(memory, state="expired").changed


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("until", ["2001-01-01T00:00:00Z", "tomorrow", "2099-01-01"])
def test_an_end_has_to_come(memory: MemoryServer, until: str) -> None:
    """And to be a time."""
    put_hpa(memory)
    check_refused(memory, "option until", min_replicas=3, until=until)


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("verb", ["create", "patch"])
def test_a_lost_answer_is_no_second_write(memory: MemoryServer, verb: str) -> None:
    """What was carried out is found, and counts as changed."""
    if verb == "patch":
        put_hpa(memory)
    memory.lose_next("after", verb=verb, path="horizontalpodautoscalers", times=2)  # the dry run, and the write
    done = run(memory, **{**DECLARED, "max_replicas": 9})
    assert not done.failed, done.msg
    assert (done.changed, read_spec(memory)["maxReplicas"], len(memory.read_all(HPA))) == (True, 9, 1)


@pytest.mark.usefixtures("controllers")
def test_a_rival_change_is_decided_about_again(memory: MemoryServer) -> None:
    """What was saved is what the rival has left."""
    put_hpa(memory)
    calls: list[int] = []

    def interfere() -> None:
        calls.append(1)
        if len(calls) == 2:  # before the write, after its dry run
            memory.change(HPA, NAMESPACE, "h", lambda obj: obj["spec"].update(maxReplicas=7))

    memory.add_rival(interfere, path="horizontalpodautoscalers", times=2)
    assert run(memory, max_replicas=12, save_before=True).changed
    run(memory, state="restored")
    assert read_spec(memory)["maxReplicas"] == 7


@pytest.mark.usefixtures("controllers")
def test_missing_rights_are_found_before_the_first_write(memory: MemoryServer) -> None:
    """In check mode too."""
    memory.deny("create", "horizontalpodautoscalers.autoscaling")
    check_refused(memory, "horizontalpodautoscalers", **DECLARED)
    put_hpa(memory)
    memory.deny("patch", "horizontalpodautoscalers.autoscaling")
    check_refused(memory, "horizontalpodautoscalers", max_replicas=9)


def drop_metrics(memory: MemoryServer, *, dry_runs: bool) -> None:
    """Let the server drop the metrics of what is made; without ``dry_runs`` only where it keeps it."""
    create = memory.create_object

    def drop(target: Any, request: Any) -> Json:
        if dry_runs or "dryRun" not in request.query:
            request.body["spec"]["metrics"] = [{**CPU, "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]
        return create(target, request)

    memory.create_object = drop  # type: ignore[method-assign]


@pytest.mark.usefixtures("controllers")
def test_a_new_one_of_which_the_server_drops_something_is_not_made(memory: MemoryServer) -> None:
    """Its dry run is compared with what is declared, and the server is asked to refuse unknown fields itself."""
    drop_metrics(memory, dry_runs=True)
    refused = run(memory, **DECLARED)
    assert (refused.failed, refused["error"]["refused"], refused.changed) == (True, True, False)
    assert f"{HPA} n/h: the server would make something else of it: metrics" in refused.msg
    assert memory.read_all(HPA) == []
    asked = [request.query for request in memory.log if request.verb == "create" and "autoscalers" in request.path]
    assert [(query.get("fieldValidation"), query.get("dryRun")) for query in asked] == [("Strict", "All")]


@pytest.mark.usefixtures("controllers")
def test_a_new_one_that_became_something_else_is_a_failure(memory: MemoryServer) -> None:
    """As with a webhook that sees no dry run: it is there, and it is not as declared."""
    drop_metrics(memory, dry_runs=False)
    failed = run(memory, **DECLARED)
    assert (failed.failed, failed["error"]["refused"], failed.changed) == (True, False, True)
    assert "it was made, and the server made something else of it: metrics" in failed.msg
    assert len(memory.read_all(HPA)) == 1
