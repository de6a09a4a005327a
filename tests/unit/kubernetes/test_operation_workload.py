# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_workload against the API server in memory: what is done, in which order, and what is reported of it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._consumers.operations.scale_to_partitions import (
    run_scale_to_partitions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from support.memory_controllers import (
    NAMESPACE,
    PAUSED_REPLICAS,
    Controllers,
    act_while_waiting,
    describe_hpa,
    describe_scaled_object,
    describe_workload,
    play_keda,
    scale,
)
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import list_writes, run_operation

from .workload_steps import (
    TITLE,
    WORKER,
    act_between,
    change_worker,
    check_done,
    count_replicas,
    describe_claims,
    own_by_operator,
    read_annotations,
    read_saved,
    run_tiers,
    start,
    stop,
    take_picture,
)

# --- check mode, and a second run -----------------------------------------------------------------------------------


def put_shop(memory: MemoryServer, controllers: Controllers) -> None:
    """Put workloads of all kinds, one of them KEDA's, one at 0 and one suspended."""
    controllers.add("StatefulSet", "w")
    controllers.add("Deployment", "d", 2)
    controllers.add("StatefulSet", "zero", 0)
    memory.put(describe_workload("CronJob", "c", 1))
    memory.put(describe_workload("CronJob", "quiet", 0))
    memory.put(describe_workload("Job", "j", 2))
    memory.put(describe_scaled_object(WORKER, 1, 9))


SHOP = [WORKER, "Deployment/d", "StatefulSet/zero", "CronJob/c", "CronJob/quiet", "Job/j"]


def test_check_mode_predicts_and_writes_nothing(memory: MemoryServer) -> None:
    """Plan, diff and changed are those of the real run, of the stop and of the start after it."""
    play_keda(memory)
    put_shop(memory, Controllers(memory))
    for act in (stop, start):
        predicted = check_done(act(memory, *SHOP, check=True, autoscaler="pause"))
        assert (memory.count("patch"), list_writes(memory), predicted["check_mode"]) == (0, [], True)
        real = check_done(act(memory, *SHOP, autoscaler="pause"))
        for key in ("plan", "diff", "changed", "reasons"):
            assert predicted[key] == real[key], key
        assert real.changed
        assert len(real["plan"]) == 7
        memory.log.clear()
    assert predicted["diff"]["before"][WORKER] == 0
    assert predicted["diff"]["after"][WORKER] == 3


def test_stop_and_start_give_back_what_there_was(memory: MemoryServer) -> None:
    """Also that something was at 0, or suspended; and nothing of ours is left."""
    play_keda(memory)
    put_shop(memory, Controllers(memory))
    before = take_picture(memory)
    stopped = check_done(stop(memory, *SHOP, autoscaler="pause"))
    now = take_picture(memory)
    assert [now[name][0].get("replicas", now[name][0].get("suspend")) for name in SHOP] == [0, 0, 0, True, True, True]
    assert read_annotations(memory, "ScaledObject", "k")[PAUSED_REPLICAS] == "0"
    assert [entry["name"] for entry in stopped["workloads"]] == ["w", "d", "zero", "c", "quiet", "j"]
    assert stopped["plan"][0] == {
        "object": "ScaledObject n/k",
        "what": "pause",
        "why": "it owns the replicas of StatefulSet n/w",
        "reversible": True,
        "estimate": None,
    }
    started = check_done(start(memory, *SHOP))
    assert take_picture(memory) == before
    assert started["plan"][0]["what"] == "resume"
    assert "left as it was before it was stopped: StatefulSet n/zero, CronJob n/quiet" in started["summary"]


@pytest.mark.parametrize("check", [False, True])
def test_a_second_run_changes_nothing(memory: MemoryServer, check: bool) -> None:
    """It sends no write, not even a dry run, and reports no change."""
    play_keda(memory)
    put_shop(memory, Controllers(memory))
    for act in (stop, start):
        check_done(act(memory, *SHOP, autoscaler="pause"))
        picture = take_picture(memory)
        memory.log.clear()
        again = check_done(
            act(memory, *SHOP, autoscaler="pause", on_missing_state="report", check=check, run_id="later")
        )
        assert (again.changed, again["plan"], memory.count("patch")) == (False, [], 0)
        assert take_picture(memory) == picture
    assert again["summary"].startswith("nothing to start; left stopped, as nothing was saved on it")
    runs = check_done(start(memory))
    assert (runs.changed, runs["summary"]) == (False, "all workloads run")


def test_diff_and_summary_of_a_stop(memory: MemoryServer, controllers: Controllers) -> None:
    """What was done by a run that is no window is what lowtide.ops.startup starts again."""
    controllers.add("StatefulSet", "w")
    predicted = stop(memory, check=True)
    assert predicted["summary"] == "would stop StatefulSet n/w (3 replicas)"
    stopped = check_done(stop(memory))
    assert stopped["diff"] == {"before": {WORKER: 3}, "after": {WORKER: 0}}
    assert stopped["summary"] == ("stopped StatefulSet n/w (3 replicas); lowtide.ops.startup starts them again")
    assert stopped["evidence"] == ["StatefulSet n/w: stopped, 0 pods left; asked to be stopped"]
    check_done(start(memory))
    of_window = check_done(stop(memory, run_id="night@2026-05-01T22:00:00Z"))
    assert of_window["summary"] == "stopped StatefulSet n/w (3 replicas)"


def test_replicas_as_given_win(memory: MemoryServer, controllers: Controllers) -> None:
    """Over what was saved."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    workloads = [{"kind": "StatefulSet", "name": "w", "replicas": 5}]
    check_done(run_operation(memory, run_workload, state="running", workloads=workloads))
    assert (count_replicas(memory), read_saved(memory)) == (5, None)


# --- tiers ----------------------------------------------------------------------------------------------------------


def test_each_tier_is_waited_for_before_the_next(memory: MemoryServer) -> None:
    """They start in the order given and stop in the other one."""
    controllers = Controllers(memory, seconds=0.1)
    tiers = [["StatefulSet/db"], [WORKER, "StatefulSet/v"], ["Deployment/api"]]
    for name in ("db", "w", "v"):
        controllers.add("StatefulSet", name)
    controllers.add("Deployment", "api")
    order = [["api"], ["v", "w"], ["db"]]
    for state in ("stopped", "running"):
        controllers.history.clear()
        run = check_done(run_tiers(memory, state, *tiers))
        expected = [[f"{what} {name}" for name in tier] for tier in order for what in ("changed", "settled")]
        entries = list(controllers.history)
        assert [sorted(entries.pop(0) for _entry in group) for group in expected] == expected
        assert entries == []
        names = [name for tier in order for name in tier]
        assert sorted(entry["name"] for entry in run["workloads"]) == sorted(names)
        assert run["waited"] > 0.2
        order.reverse()


def test_a_pod_that_is_left_is_waited_for(memory: MemoryServer, controllers: Controllers) -> None:
    """The status says 0, and a pod still ends: only when it is gone is a workload stopped."""
    controllers.add("StatefulSet", "w", 1)
    pod = memory.read("Pod", NAMESPACE, "w-0")
    pod["metadata"]["name"] = "hangs"
    memory.put(pod)
    done = threading.Event()

    def end() -> None:
        done.set()
        memory.remove("Pod", NAMESPACE, "hangs")

    act_while_waiting(memory, end, path="/pods")
    check_done(stop(memory))
    assert done.is_set()


def test_pods_of_another_owner_stay_and_are_named(memory: MemoryServer, controllers: Controllers) -> None:
    """They have the same labels, as those of a Rollout that took the template over."""
    controllers.add("StatefulSet", "w", 1)
    pod = memory.read("Pod", NAMESPACE, "w-0")
    owner = {"kind": "ReplicaSet", "name": "w-6d8", "uid": "rs", "controller": True}
    pod["metadata"] = {**pod["metadata"], "name": "other-6d8-1", "uid": "p", "ownerReferences": [owner]}
    memory.put(pod)
    run = check_done(stop(memory))
    assert run["evidence"][1:] == ["StatefulSet n/w: 1 pod with the same labels belongs to ReplicaSet w-6d8 and stays"]


def test_a_later_tier_is_looked_at_again(memory: MemoryServer, controllers: Controllers) -> None:
    """What served when the run began need not serve when its turn comes."""
    controllers.add("StatefulSet", "a")
    controllers.add("StatefulSet", "w")
    check_done(stop(memory, "StatefulSet/a"))

    def fail() -> None:
        memory.change("StatefulSet", NAMESPACE, "w", lambda obj: obj["status"].update(readyReplicas=0))

    act_between(memory, fail)
    act_while_waiting(memory, lambda: controllers.settle("StatefulSet", "w"), watch=2)
    controllers.history.clear()
    started = check_done(run_tiers(memory, "running", ["StatefulSet/a"], [WORKER]))
    assert controllers.history[-1] == "settled w"
    assert [entry["ready"] for entry in started["workloads"]] == [3, 3]


def test_each_tier_has_a_deadline_of_its_own(memory: MemoryServer) -> None:
    """Eight tiers that need more than the timeout together, and each of them little of it."""
    controllers = Controllers(memory, seconds=0.4)
    names = "abcdefgh"
    for name in names:
        controllers.add("StatefulSet", name)
    begun = time.monotonic()
    check_done(run_tiers(memory, "stopped", *([f"StatefulSet/{name}"] for name in names), timeout=3.0))
    assert time.monotonic() - begun > 3.0


def test_a_failure_in_the_second_tier_says_what_was_done(memory: MemoryServer, controllers: Controllers) -> None:
    """The first tier is stopped, the second one written and not gone, the third one untouched."""
    for name in ("a", "w", "z"):
        controllers.add("StatefulSet", name)
    controllers.held = {"w"}
    run = run_tiers(memory, "stopped", ["StatefulSet/z"], [WORKER], ["StatefulSet/a"], timeout=1)
    assert run.failed
    assert (run.changed, run["error"]["refused"]) == (True, False)
    assert run["error"]["object"] == TITLE
    assert run["summary"].startswith("stopped StatefulSet n/a (3 replicas), StatefulSet n/w (3 replicas); not stopped:")
    assert [(entry["name"], entry["replicas"], entry["pods"]) for entry in run["workloads"]] == [
        ("a", 0, 0),
        ("w", 0, 3),
        ("z", 3, 3),
    ]
    assert (count_replicas(memory, "z"), run["run_id"], run["requests"]) == (3, "r", run["requests"])
    assert set(run["reasons"]) == {"StatefulSet/a", WORKER, "StatefulSet/z"}


# --- KEDA -----------------------------------------------------------------------------------------------------------


def test_saved_first_then_paused_then_scaled(memory: MemoryServer, controllers: Controllers) -> None:
    """And on the way back KEDA first, which would put the workload to 0 again."""
    controllers.add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 1, 9))
    check_done(stop(memory, autoscaler="pause"))
    assert list_writes(memory) == [
        ("w", ["stopped"]),
        ("k", ["paused-replicas", "paused-by"]),
        ("w", ["stopped", "replicas"]),
    ]
    memory.log.clear()
    check_done(start(memory))
    assert list_writes(memory) == [("k", ["paused-by", "paused-replicas"]), ("w", ["stopped", "replicas"])]


def test_keda_that_is_faster_does_not_lose_the_replicas(memory: MemoryServer) -> None:
    """It has scaled to 0 when the second write comes."""
    play_keda(memory)
    Controllers(memory).add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 1, 9))
    run = check_done(stop(memory, autoscaler="pause"))
    assert (count_replicas(memory), read_saved(memory), run.changed) == (0, {"replicas": 3}, True)
    assert run["summary"].startswith("stopped StatefulSet n/w (3 replicas)")
    assert run["diff"]["before"][WORKER] == 3
    check_done(start(memory))
    assert (count_replicas(memory), read_saved(memory)) == (3, None)
    assert read_annotations(memory, "ScaledObject", "k") == {}


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []])
def test_what_was_paused_is_resumed_by_every_start(memory: MemoryServer, guards: list[str]) -> None:
    """Whatever it looks at before, and whatever the option for autoscalers is."""
    Controllers(memory).add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 1, 9, annotations={PAUSED_REPLICAS: "7"}))
    check_done(stop(memory, autoscaler="pause"))
    check_done(start(memory, guards=guards))
    assert read_annotations(memory, "ScaledObject", "k") == {PAUSED_REPLICAS: "7"}


def test_keda_that_a_person_has_paused_stays_paused(memory: MemoryServer, controllers: Controllers) -> None:
    """It is in nobody's way, and not ours to resume."""
    controllers.add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 1, 9, annotations={PAUSED_REPLICAS: "0"}))
    check_done(stop(memory))
    check_done(start(memory))
    assert read_annotations(memory, "ScaledObject", "k") == {PAUSED_REPLICAS: "0"}
    assert memory.count("patch", "scaledobjects") == 0


def test_the_replicas_are_saved_with_keda_too(memory: MemoryServer, controllers: Controllers) -> None:
    """Where what was saved on the workload is lost, as with a GitOps tool that prunes annotations."""
    controllers.add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 1, 9))
    check_done(stop(memory, autoscaler="pause"))
    memory.change("StatefulSet", NAMESPACE, "w", lambda obj: obj["metadata"].pop("annotations"))
    check_done(start(memory))
    assert count_replicas(memory) == 3


# --- bounds that scaling has set ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_bounds_that_were_adjusted_are_given_back_by_a_start(memory: MemoryServer, kind: str) -> None:
    """Before the workload has a pod again, so that nobody moves it meanwhile; check mode predicts it."""
    play_keda(memory)
    Controllers(memory).add("StatefulSet", "w")
    describe, name = (describe_hpa, "h") if kind == "HorizontalPodAutoscaler" else (describe_scaled_object, "k")
    memory.put(describe(WORKER, 1, 9))
    before = take_picture(memory)
    scaled = run_operation(memory, run_scale_to_partitions, partitions=3, autoscaler="adjust")
    assert not scaled.failed, scaled.msg
    pinned = take_picture(memory)[f"{kind}/{name}"]
    check_done(stop(memory, autoscaler="pause"))
    assert take_picture(memory)[f"{kind}/{name}"][0] == pinned[0]
    predicted = check_done(start(memory, check=True))
    memory.log.clear()
    started = check_done(start(memory))
    assert take_picture(memory) == before
    written = [written for written, _fields in list_writes(memory)]
    assert (written[0], written.index("w"), written[-1]) == (name, 1 if name == "h" else 2, "w")
    for key in ("plan", "diff", "changed"):
        assert predicted[key] == started[key], key
    assert started["plan"][0]["what"] == "bounds 3..3 -> 1..9"
    title = f"bounds of {kind} n/{name}"
    assert [started["diff"][when][title] for when in ("before", "after")] == [
        {"min": 3, "max": 3},
        {"min": 1, "max": 9},
    ]


def adjust_bounds(memory: MemoryServer, controllers: Controllers, **params: Any) -> None:
    """Have a workload whose HPA was given the bounds 3 and 3 by a scale."""
    controllers.add("StatefulSet", "w")
    memory.put(describe_hpa(WORKER, 1, 9))
    check_done(run_operation(memory, run_scale_to_partitions, partitions=3, autoscaler="adjust", **params))


def test_bounds_of_what_runs_stay_as_they_were_adjusted(memory: MemoryServer, controllers: Controllers) -> None:
    """A start that has nothing to start changes nothing."""
    adjust_bounds(memory, controllers)
    assert not check_done(start(memory)).changed


def test_bounds_that_were_given_back_are_those_within_which_it_may_move(
    memory: MemoryServer, controllers: Controllers
) -> None:
    """They are no longer what was read."""
    adjust_bounds(memory, controllers)
    run = check_done(move_during_start(memory, controllers, 6, hpa=False))
    assert run["workloads"][0]["replicas"] == 6


@pytest.mark.parametrize("run_id", ["purpose", "night@2026-05-01T22:00:00Z"])
def test_bounds_that_no_window_has_set(memory: MemoryServer, controllers: Controllers, run_id: str) -> None:
    """They stay where only what windows did is taken back."""
    adjust_bounds(memory, controllers, run_id=run_id)
    check_done(stop(memory, run_id="night@2026-05-01T22:00:00Z"))
    check_done(start(memory, saved_by="window"))
    spec = memory.read("HorizontalPodAutoscaler", NAMESPACE, "h")["spec"]
    assert (count_replicas(memory), spec["maxReplicas"]) == (3, 9 if "@" in run_id else 3)


@pytest.mark.parametrize("check", [True, False])
def test_bounds_that_may_not_be_given_back_do_not_stop_a_start(
    memory: MemoryServer, controllers: Controllers, check: bool
) -> None:
    """They stay, which is said, and the workload is started."""
    adjust_bounds(memory, controllers)
    check_done(stop(memory))
    memory.deny("patch", "horizontalpodautoscalers.autoscaling")
    memory.log.clear()
    run = check_done(start(memory, check=check))
    assert [name for name, _fields in list_writes(memory) if name == "w"] == ([] if check else ["w"])
    assert any("its bounds stay at 3 to 3" in warning for warning in run["warnings"]) is not check


# --- whose stops, what was not saved, rehearsals --------------------------------------------------------------------


def test_only_what_a_window_stopped_is_started(memory: MemoryServer, controllers: Controllers) -> None:
    """What another run stopped stays, its ScaledObject too, whatever replicas say; who stopped it is named."""
    for name in ("a", "w"):
        controllers.add("StatefulSet", name)
        memory.put(describe_scaled_object(f"StatefulSet/{name}", 1, 9, name=f"k-{name}"))
    check_done(stop(memory, "StatefulSet/a", run_id="night@2026-05-01T22:00:00Z", autoscaler="pause"))
    check_done(stop(memory, autoscaler="pause", run_id="purpose"))
    picture = take_picture(memory)
    workloads = [{"kind": "StatefulSet", "name": "a"}, {"kind": "StatefulSet", "name": "w", "replicas": 4}]
    run = check_done(run_operation(memory, run_workload, state="running", saved_by="window", workloads=workloads))
    assert [count_replicas(memory, name) for name in ("a", "w")] == [3, 0]
    now = take_picture(memory)
    for name in (WORKER, "ScaledObject/k-w"):
        assert now[name] == picture[name]
    assert now["ScaledObject/k-a"][1] == {}
    assert [(blocker["object"], blocker["holder"]) for blocker in run["blockers"]] == [(TITLE, "run purpose")]
    assert "left stopped, as no window stopped it: StatefulSet n/w" in run["summary"]
    check_done(start(memory, "StatefulSet/a", WORKER))
    assert [count_replicas(memory, name) for name in ("a", "w")] == [3, 3]


@pytest.mark.parametrize("policy", ["fail", "report"])
def test_what_nothing_was_saved_about(memory: MemoryServer, controllers: Controllers, policy: str) -> None:
    """Either nothing at all is started, or everything else is and that is named."""
    controllers.add("StatefulSet", "a")
    controllers.add("StatefulSet", "w", 0)
    check_done(stop(memory, "StatefulSet/a"))
    # It is not waited for: something hangs there for ever.
    memory.change("StatefulSet", NAMESPACE, "w", lambda obj: obj["status"].update(replicas=1))
    memory.log.clear()
    run = start(memory, "StatefulSet/a", WORKER, on_missing_state=policy)
    assert count_replicas(memory) == 0
    if policy == "fail":
        assert (run.failed, run["error"]["refused"], list_writes(memory)) == (True, True, [])
        assert "nothing was saved on it" in run.msg
        assert [entry["name"] for entry in run["workloads"]] == ["a", "w"]
    else:
        check_done(run)
        assert count_replicas(memory, "a") == 3
        assert [blocker["object"] for blocker in run["blockers"]] == [TITLE]
        assert "left stopped, as nothing was saved on it: StatefulSet n/w" in run["summary"]


@pytest.mark.parametrize("check", [True, False])
def test_a_rehearsal_of_a_start(memory: MemoryServer, controllers: Controllers, check: bool) -> None:
    """Told that it would be stopped; outside check mode nothing is even asked."""
    controllers.add("StatefulSet", "w")
    run = start(memory, assume="stopped", check=check)
    if check:
        assert (check_done(run).changed, run["diff"]) == (True, {"before": {WORKER: 0}, "after": {WORKER: 3}})
    else:
        assert (run.failed, run["error"]["refused"], memory.log) == (True, True, [])


def test_a_person_s_later_change_makes_what_was_saved_stale(memory: MemoryServer, controllers: Controllers) -> None:
    """It is scaled up and down again by hand: nothing says any more what it should have."""
    controllers.add("StatefulSet", "w")
    check_done(stop(memory))
    scale(memory, "StatefulSet", "w", 2, manager="kubectl")
    scale(memory, "StatefulSet", "w", 0, manager="kubectl")
    run = start(memory)
    assert run.failed
    assert "kubectl" in run.msg
    assert "since run r saved what it had" in run.msg


# --- an HPA, and guards that are left out ---------------------------------------------------------------------------


def move_during_start(
    memory: MemoryServer, controllers: Controllers, replicas: int, *, hpa: bool = True, **params: Any
) -> ModuleRun:
    """Start while the HPA's controller moves the number of a workload that does not serve yet."""
    if hpa:
        controllers.add("StatefulSet", "w")
        memory.put(describe_hpa(WORKER, 2, 9))
    check_done(stop(memory, guards=[]))
    controllers.held = {"w"}

    def move() -> None:
        scale(memory, "StatefulSet", "w", replicas, manager="kube-controller-manager")
        controllers.settle("StatefulSet", "w")

    act_while_waiting(memory, move)
    return start(memory, **params)


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []])
def test_an_hpa_that_moves_the_number_sets_the_goal(
    memory: MemoryServer, controllers: Controllers, guards: list[str]
) -> None:
    """Within its bounds, whatever the guards are."""
    run = check_done(move_during_start(memory, controllers, 6, guards=guards))
    assert [run["workloads"][0][key] for key in ("replicas", "ready")] == [6, 6]


def test_a_number_outside_the_bounds_is_somebody_else_s(memory: MemoryServer, controllers: Controllers) -> None:
    """Whoever it is."""
    run = move_during_start(memory, controllers, 10)
    assert run.failed
    assert "are 2 to 9" in run.msg


def test_guards_that_are_left_out_ask_nothing(memory: MemoryServer, controllers: Controllers) -> None:
    """Neither autoscalers nor owners are in the way; claims always are."""
    controllers.add("StatefulSet", "w")
    controllers.add("StatefulSet", "v", **describe_claims())
    memory.put(describe_scaled_object(WORKER, 1, 9))
    change_worker(own_by_operator)(memory)
    check_done(stop(memory, guards=[]))
    assert memory.count("list", "scaledobjects") + memory.count("list", "horizontalpodautoscalers") == 0
    assert "data-v-0" in stop(memory, "StatefulSet/v", guards=[]).msg


@pytest.mark.parametrize("guard", ["hpa", "keda"])
def test_each_guard_costs_one_request(memory: MemoryServer, controllers: Controllers, guard: str) -> None:
    """And a run in which nothing changes no other one but the read and the wait for pods."""
    controllers.add("StatefulSet", "w")
    bare = check_done(stop(memory, guards=["gitops"], check=True))
    assert bare["requests"] == 3
    assert check_done(stop(memory, guards=[guard], check=True))["requests"] == 4
