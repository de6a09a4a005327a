# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_workload beside KEDA, which scales to 0 by itself and says when it has paused, on the API server in memory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from support.memory_controllers import (
    NAMESPACE,
    PAUSED_REPLICAS,
    Controllers,
    act_while_waiting,
    describe_hpa,
    describe_scaled_object,
    scale,
)
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import list_writes, run_operation

from .workload_steps import (
    TITLE,
    WORKER,
    Json,
    check_done,
    count_replicas,
    read_annotations,
    read_saved,
    start,
    stop,
)

HELD = "its autoscaler holds it at 0"


@pytest.fixture
def controllers(memory: MemoryServer) -> Controllers:
    """Who settles at once what is written."""
    return Controllers(memory)


# --- resting at 0 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False], ids=["check mode", "run"])
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "minimum"])
def test_what_keda_holds_at_0_needs_no_start(
    memory: MemoryServer, controllers: Controllers, idle: bool, check: bool
) -> None:
    """Nobody has stopped it: it has nothing to do, and KEDA starts it when it has."""
    controllers.add("StatefulSet", "w", 0)
    scaled = describe_scaled_object(WORKER, 2 if idle else 0, 9)
    scaled["spec"] |= {"idleReplicaCount": 0} if idle else {}
    memory.put(scaled)
    run = check_done(start(memory, check=check))
    assert (run.changed, run["plan"], run["blockers"]) == (False, [], [])
    assert run["reasons"] == {WORKER: HELD}
    assert run["summary"] == f"nothing to start; left at 0, where its autoscaler holds it: {TITLE}"
    assert list_writes(memory) == []


@pytest.mark.parametrize(
    ("low", "annotations"),
    [
        (1, {}),
        (0, {PAUSED_REPLICAS: "0"}),
        (0, {"autoscaling.keda.sh/paused": "true"}),
        (0, {"autoscaling.keda.sh/paused-scale-out": "true"}),
    ],
    ids=["minimum 1", "paused at 0", "paused", "not scaled out"],
)
def test_what_keda_does_not_hold_at_0_is_not_guessed(
    memory: MemoryServer, controllers: Controllers, low: int, annotations: dict[str, str]
) -> None:
    """Somebody has stopped it, or has paused KEDA, which does not start it either."""
    controllers.add("StatefulSet", "w", 0)
    memory.put(describe_scaled_object(WORKER, low, 9, annotations=annotations))
    for check in (True, False):
        run = start(memory, check=check)
        assert run.failed
        assert "nothing was saved on it: another client stopped it" in run.msg
    assert list_writes(memory) == []


def test_a_number_that_is_given_starts_what_keda_holds_at_0(memory: MemoryServer, controllers: Controllers) -> None:
    """It is asked for; KEDA decides what becomes of it then."""
    controllers.add("StatefulSet", "w", 0)
    memory.put(describe_scaled_object(WORKER, 0, 9))
    entry = {"kind": "StatefulSet", "name": "w", "replicas": 2}
    run = check_done(run_operation(memory, run_workload, state="running", workloads=[entry]))
    assert (run.changed, count_replicas(memory)) == (True, 2)


@pytest.mark.parametrize(("replicas", "words"), [(0, "0 replicas"), (5, "5 replicas"), (1, "1 replica")])
def test_a_start_tells_the_number_that_its_autoscaler_gave(
    memory: MemoryServer, controllers: Controllers, replicas: int, words: str
) -> None:
    """Meanwhile: KEDA has put it back to 0, or the work that has piled up asks for more."""
    controllers.add("StatefulSet", "w")
    memory.put(describe_scaled_object(WORKER, 0, 9))
    check_done(stop(memory, autoscaler="pause"))
    controllers.held.add("w")

    def move() -> None:
        scale(memory, "StatefulSet", "w", replicas, manager="keda-operator")
        controllers.held.clear()
        controllers.settle("StatefulSet", "w")

    act_while_waiting(memory, move)
    run = check_done(start(memory))
    assert run["summary"] == f"started {TITLE} ({words}, as its autoscaler asks)"


# --- a pause that the operator takes in -----------------------------------------------------------------------------


def put_scaled(memory: MemoryServer, controllers: Controllers, status: str | None = "False", **metadata: Any) -> None:
    """Put a workload that KEDA scales, whose operator publishes this condition Paused."""
    controllers.add("StatefulSet", "w")
    scaled = describe_scaled_object(WORKER, 1, 9, **metadata)
    if status is not None:
        scaled["status"] = describe_status(status)
    memory.put(scaled)


def describe_status(paused: str) -> Json:
    """Return the status of a ScaledObject as KEDA 2.11 and later has it."""
    types = {"Ready": "True", "Active": "True", "Fallback": "False", "Paused": paused}
    return {"conditions": [{"type": name, "status": status} for name, status in types.items()]}


def say_paused(memory: MemoryServer) -> None:
    """Let KEDA's operator say that it has paused."""
    memory.change("ScaledObject", NAMESPACE, "k", lambda obj: obj.update(status=describe_status("True")))


def list_warnings(run: ModuleRun) -> str:
    """All warnings of a run."""
    return " ".join(run["warnings"])


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_stop_waits_until_keda_has_paused(memory: MemoryServer, controllers: Controllers, status: str) -> None:
    """Before that its loop, which has begun, may undo the 0."""
    put_scaled(memory, controllers, status)
    numbers: list[int] = []

    def act() -> None:
        numbers.append(count_replicas(memory))
        say_paused(memory)

    act_while_waiting(memory, act, path="/scaledobjects")
    run = check_done(stop(memory, autoscaler="pause"))
    assert (numbers, count_replicas(memory), list_warnings(run)) == ([3], 0, "")
    assert run["summary"].startswith(f"stopped {TITLE} (3 replicas)")
    memory.log.clear()
    check_done(stop(memory, autoscaler="pause", run_id="again"))
    assert memory.count("watch", "scaledobjects") == 0


@pytest.mark.parametrize("status", [None, "True"], ids=["no condition", "true already"])
def test_a_stop_waits_for_no_condition_that_says_nothing(
    memory: MemoryServer, controllers: Controllers, status: str | None
) -> None:
    """KEDA before 2.11 has none; one that is true already, for another pause or by mistake, tells nothing of ours."""
    put_scaled(memory, controllers, status)
    check_done(stop(memory, autoscaler="pause"))
    assert count_replicas(memory) == 0
    assert memory.count("watch", "scaledobjects") == 0


def test_an_operator_that_does_not_answer_holds_up_no_stop(memory: MemoryServer, controllers: Controllers) -> None:
    """It is named: KEDA may be down, and reads the annotation when it comes back."""
    put_scaled(memory, controllers)
    run = check_done(stop(memory, autoscaler="pause", timeout=2))
    assert (count_replicas(memory), read_saved(memory)) == (0, {"replicas": 3})
    assert "ScaledObject n/k: its operator has not said within 1 s that it has paused it" in list_warnings(run)
    assert "keda-operator" in list_warnings(run)
    assert memory.count("list", "events") == 0, "no pods are waited for, so nothing about them explains the delay"


@pytest.mark.parametrize(
    "act",
    [
        lambda memory: scale(memory, "StatefulSet", "w", 0, manager="keda-operator"),
        lambda memory: memory.remove("ScaledObject", NAMESPACE, "k"),
    ],
    ids=["scaled to 0", "removed"],
)
def test_what_ends_the_wait_for_a_pause_too(memory: MemoryServer, controllers: Controllers, act: object) -> None:
    """KEDA before 2.18 scales first and says it later; what is removed scales nothing."""
    assert callable(act)
    put_scaled(memory, controllers)
    act_while_waiting(memory, lambda: act(memory), path="/scaledobjects")
    run = check_done(stop(memory, autoscaler="pause", timeout=60))
    assert (count_replicas(memory), read_saved(memory), list_warnings(run)) == (0, {"replicas": 3}, "")
    assert run["waited"] < 15


def test_keda_that_may_not_be_watched_is_read_again_and_again(memory: MemoryServer, controllers: Controllers) -> None:
    """With the rights of an account from before, which are enough."""
    put_scaled(memory, controllers)
    memory.deny("watch", "scaledobjects.keda.sh")
    act_while_waiting(memory, lambda: say_paused(memory), path="/scaledobjects")
    run = check_done(stop(memory, autoscaler="pause"))
    assert count_replicas(memory) == 0
    assert "ScaledObject n/k: watching it is not allowed" in list_warnings(run)


def test_a_pause_of_an_earlier_run_is_waited_for_too(memory: MemoryServer, controllers: Controllers) -> None:
    """It was killed in between, and KEDA has not acted yet."""
    put_scaled(memory, controllers, annotations={PAUSED_REPLICAS: "0"})
    act_while_waiting(memory, lambda: say_paused(memory), path="/scaledobjects")
    check_done(stop(memory))
    assert memory.count("watch", "scaledobjects") == 1


# --- the HPA that KEDA makes ----------------------------------------------------------------------------------------


def put_pair(memory: MemoryServer, *, owned: bool) -> None:
    """Put a ScaledObject and the HPA that KEDA makes for it: with its annotations and its label."""
    scaled = memory.put(describe_scaled_object(WORKER, 1, 9, annotations={"team": "search"}))
    owner = {"kind": "ScaledObject", "name": "k", "uid": scaled["metadata"]["uid"], "controller": True}
    metadata: Json = {"labels": {"scaledobject.keda.sh/name": "k"}, "annotations": scaled["metadata"]["annotations"]}
    metadata |= {"ownerReferences": [owner]} if owned else {}
    memory.put(describe_hpa(WORKER, 1, 9, name="keda-hpa-k", **metadata))


@pytest.mark.parametrize("owned", [True, False], ids=["owner", "label"])
def test_keda_and_its_hpa_are_one_autoscaler(memory: MemoryServer, controllers: Controllers, owned: bool) -> None:
    """The ScaledObject, which is written; the HPA is KEDA's to remove and to make."""
    controllers.add("StatefulSet", "w")
    put_pair(memory, owned=owned)
    refused = stop(memory)
    assert refused.failed
    assert [blocker["holder"] for blocker in refused["blockers"]] == ["ScaledObject n/k"]
    stopped = check_done(stop(memory, autoscaler="pause"))
    assert [item["object"] for item in stopped["plan"]] == ["ScaledObject n/k", TITLE]
    check_done(start(memory))
    assert count_replicas(memory) == 3
    assert memory.count("patch", "horizontalpodautoscalers") == 0


def test_what_keda_copies_to_its_hpa_is_not_restored_there(memory: MemoryServer, controllers: Controllers) -> None:
    """The HPA has the annotations of its ScaledObject, also where that may not be read."""
    controllers.add("StatefulSet", "w")
    put_pair(memory, owned=True)
    check_done(stop(memory, autoscaler="pause"))
    saved = read_annotations(memory, "ScaledObject", "k")
    bounds = '{"format": 2, "operations": [{"operation": "bounds", "run": "r", "spec": {"min": 2, "max": 5}}]}'
    memory.change(
        "HorizontalPodAutoscaler",
        NAMESPACE,
        "keda-hpa-k",
        lambda obj: obj["metadata"].update(annotations={**saved, "lowtide.ops/bounds-before": bounds}),
    )
    memory.deny("list", "scaledobjects.keda.sh")
    memory.log.clear()
    check_done(start(memory))
    assert [name for name, _fields in list_writes(memory)] == ["w"]
