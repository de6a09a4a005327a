# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_scale_to_partitions with autoscalers, and for what was stopped, against the API server in memory."""

from __future__ import annotations

import pytest

from support.memory_controllers import (
    NAMESPACE,
    PAUSED_REPLICAS,
    Controllers,
    act_while_waiting,
    describe_hpa,
    describe_scaled_object,
    play_keda,
    scale,
)
from support.memory_kubernetes import MemoryServer
from support.operation_runs import list_writes

from .scale_steps import (
    TITLE,
    WORKER,
    check_done,
    check_refused,
    count_replicas,
    read_annotations,
    read_bounds,
    scale_to,
    stop,
)

# --- autoscalers ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("check", [True, False])
def test_an_autoscaler_is_in_the_way(memory: MemoryServer, check: bool) -> None:
    """It is named with its bounds; a failure it is only where something is to change."""
    memory.put(describe_hpa(WORKER, 1, 9))
    run = scale_to(memory, 12, check=check)
    check_refused(memory, run, "HorizontalPodAutoscaler n/h owns its replicas (1 to 9)")
    assert [blocker["object"] for blocker in run["blockers"]] == [TITLE]
    assert (run["partitions"], run["target"], run["run_id"]) == ({"the topic": 12}, 12, "r")
    assert run["requests"] == len(memory.log)
    kept = check_done(scale_to(memory, 3, check=check))
    assert (kept.changed, len(kept["blockers"])) == (False, 1)
    check_done(scale_to(memory, 12, check=check, guards=["gitops"]))
    memory.put(describe_hpa("StatefulSet/other", 1, 9))
    check_done(scale_to(memory, 12, check=check))


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_adjust_pins_the_bounds_first_and_restore_gives_them_back(memory: MemoryServer, kind: str) -> None:
    """An autoscaler that was asked for less would scale down again at once."""
    describe, name = (describe_hpa, "h") if kind == "HorizontalPodAutoscaler" else (describe_scaled_object, "k")
    memory.put(describe(WORKER, 1, 9))
    before = memory.read(kind, NAMESPACE, name)
    run = check_done(scale_to(memory, 12, autoscaler="adjust"))
    assert [name for name, _fields in list_writes(memory)] == [name, "w"]
    assert read_bounds(memory, kind, name) == [12, 12]
    assert run["plan"][0]["what"] == "bounds 1..9 -> 12..12"
    assert run["diff"]["before"][f"{kind} n/{name}"] == {"min": 1, "max": 9}
    assert run["diff"]["after"][f"{kind} n/{name}"] == {"min": 12, "max": 12}
    memory.log.clear()
    predicted = check_done(scale_to(memory, 12, autoscaler="restore", check=True))
    restored = check_done(scale_to(memory, 12, autoscaler="restore"))
    for key in ("plan", "diff", "changed"):
        assert predicted[key] == restored[key], key
    after = memory.read(kind, NAMESPACE, name)
    assert (after["spec"], after["metadata"].get("annotations") or {}) == (before["spec"], {})
    assert count_replicas(memory) == 12
    assert [name for name, _fields in list_writes(memory)] == [name]
    assert not check_done(scale_to(memory, 12, autoscaler="restore")).changed


@pytest.mark.usefixtures("controllers")
def test_an_idle_number_outside_the_bounds_is_told(memory: MemoryServer) -> None:
    """Where the bounds are those already, only it changes."""
    scaled_object = describe_scaled_object(WORKER, 3, 3)
    scaled_object["spec"]["idleReplicaCount"] = 0
    memory.put(scaled_object)
    run = check_done(scale_to(memory, 3, autoscaler="adjust"))
    assert run["plan"][0]["what"] == "bounds 3..3 -> 3..3, idle 0 -> none"
    restored = check_done(scale_to(memory, 3, autoscaler="restore"))
    assert restored["plan"][0]["what"] == "bounds 3..3 -> 3..3, idle none -> 0"


@pytest.mark.usefixtures("controllers")
def test_restore_leaves_the_number_to_the_autoscaler(memory: MemoryServer) -> None:
    """Neither the partitions nor a stop of scaling down says anything about it."""
    memory.put(describe_hpa(WORKER, 1, 9))
    check_done(scale_to(memory, 5, autoscaler="adjust"))
    check_done(scale_to(memory, 20, autoscaler="restore", check=True))
    run = check_done(scale_to(memory, 2, autoscaler="restore"))
    assert (count_replicas(memory), run["replicas"], run["blockers"]) == (5, 5, [])


def test_an_autoscaler_may_move_the_number_once_it_has_its_bounds(
    memory: MemoryServer, controllers: Controllers
) -> None:
    """What is waited for follows it."""
    memory.put(describe_hpa(WORKER, 1, 9))
    check_done(scale_to(memory, 5, autoscaler="adjust"))
    controllers.held = {"w"}
    scale(memory, "StatefulSet", "w", 4)

    def move() -> None:
        scale(memory, "StatefulSet", "w", 6, manager="kube-controller-manager")
        controllers.settle("StatefulSet", "w")

    act_while_waiting(memory, move)
    run = check_done(scale_to(memory, 5, autoscaler="restore"))
    assert (run["replicas"], run["ready"]) == (6, 6)


@pytest.mark.usefixtures("controllers")
def test_a_kill_between_bounds_and_replicas(memory: MemoryServer) -> None:
    """Another run goes on, and the bounds that come back are those of before the first one."""
    memory.put(describe_hpa(WORKER, 1, 9))
    memory.add_rival(
        lambda: memory.fail_next(400, verb="patch", path="/statefulsets"), when="after", path="/statefulsets"
    )
    killed = scale_to(memory, 12, autoscaler="adjust")
    assert (killed.failed, killed.changed, killed["error"]["refused"]) == (True, True, False)
    assert (read_bounds(memory), count_replicas(memory)) == ([12, 12], 3)
    assert killed["summary"].startswith("StatefulSet n/w is not at 12 replicas yet, it had 3")
    check_done(scale_to(memory, 12, autoscaler="adjust"))
    check_done(scale_to(memory, 12, autoscaler="restore"))
    assert (read_bounds(memory), count_replicas(memory)) == ([1, 9], 12)


# --- what is stopped ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controllers")
def test_what_was_stopped_on_purpose_stays_so(memory: MemoryServer) -> None:
    """Unless it is said that it is to be started."""
    stop(memory)
    memory.log.clear()
    check_refused(memory, scale_to(memory, 12), "it was stopped on purpose by run s")
    run = check_done(scale_to(memory, 2, start_stopped=True))
    assert (count_replicas(memory), read_annotations(memory, "StatefulSet", "w")) == (3, {})
    assert run["diff"] == {"before": {"replicas": 0}, "after": {"replicas": 3}}


def test_what_was_at_zero_stays_so(memory: MemoryServer) -> None:
    """It is not started by partitions; only what was saved about it goes."""
    Controllers(memory).add("StatefulSet", "w", 0)
    stop(memory)
    run = check_done(scale_to(memory, 12, start_stopped=True))
    assert (count_replicas(memory), read_annotations(memory, "StatefulSet", "w")) == (0, {})
    assert run["plan"][0]["what"] == "remove what was saved on it"


def test_the_replicas_that_keda_s_object_has(memory: MemoryServer, controllers: Controllers) -> None:
    """They count where what was saved on the workload is lost: it was stopped on purpose, and does not shrink."""
    memory.put(describe_scaled_object(WORKER, 3, 3))
    stop(memory, autoscaler="pause")
    memory.change("StatefulSet", NAMESPACE, "w", lambda obj: obj["metadata"].pop("annotations"))
    controllers.settle("StatefulSet", "w")
    memory.log.clear()
    check_refused(memory, scale_to(memory, 2), "it was stopped on purpose by run s")
    check_done(scale_to(memory, 2, start_stopped=True))
    assert count_replicas(memory) == 3


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []])
def test_keda_that_was_paused_is_resumed_first(memory: MemoryServer, guards: list[str]) -> None:
    """It would put the workload to 0 again as long as it is paused; whatever the guards are."""
    play_keda(memory)
    Controllers(memory).add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 5, 5))
    stop(memory, autoscaler="pause")
    memory.log.clear()
    predicted = check_done(scale_to(memory, 5, start_stopped=True, guards=guards, check=True))
    run = check_done(scale_to(memory, 5, start_stopped=True, guards=guards))
    assert (predicted["plan"], predicted["diff"]) == (run["plan"], run["diff"])
    assert [name for name, _fields in list_writes(memory)][:2] == ["k", "w"]
    assert PAUSED_REPLICAS not in read_annotations(memory, "ScaledObject", "k")
    assert count_replicas(memory) == 5


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []])
def test_a_start_that_was_killed_after_keda_was_resumed(memory: MemoryServer, guards: list[str]) -> None:
    """The next run goes on from there."""
    controllers = Controllers(memory)
    controllers.add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 5, 5))
    stop(memory, autoscaler="pause")
    memory.add_rival(
        lambda: memory.fail_next(400, verb="patch", path="/statefulsets"), when="after", path="/statefulsets"
    )
    killed = scale_to(memory, 5, start_stopped=True, guards=guards)
    assert (killed.failed, killed.changed, count_replicas(memory)) == (True, True, 0)
    check_done(scale_to(memory, 5, start_stopped=True, guards=guards))
    assert (count_replicas(memory), read_annotations(memory, "ScaledObject", "k")) == (5, {})


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("check", [True, False])
def test_a_rehearsal_takes_it_for_stopped(memory: MemoryServer, check: bool) -> None:
    """Outside check mode nothing is even asked."""
    run = scale_to(memory, 5, assume="stopped", start_stopped=True, check=check)
    if check:
        assert check_done(run)["diff"] == {"before": {"replicas": 0}, "after": {"replicas": 5}}
    else:
        assert (run.failed, run["error"]["refused"], memory.log) == (True, True, [])
