# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stops, starts and scalings of workloads that an autoscaler scales at the same time."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.held_pods import HeldPods
from support.http_proxy import CutOffError
from support.keda_stand_in import PAUSED, PAUSED_REPLICAS, KedaStandIn
from support.modules import finish_module, start_module
from support.moving_autoscaler import MovingAutoscaler, describe_autoscaler
from support.rival_proxy import Rival, RivalProxy

from .conftest import Namespace
from .steps import (
    SAVED,
    SCALE,
    WORKLOAD,
    apply_ready,
    name_workloads,
    read_annotations,
    read_replicas,
    start,
    stop,
    tell,
)
from .test_scale import scaled_object

pytestmark = [pytest.mark.lab("kubernetes"), pytest.mark.usefixtures("keda")]
Json = dict[str, Any]
SLOW: Json = {"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 4, "periodSeconds": 1}}
NAMES = ("a", "b")


@pytest.fixture
def operator(namespace: Namespace, keda: None) -> Iterator[KedaStandIn]:
    """A stand-in for KEDA's operator that acts by itself."""
    del keda  # its kind has to be there before it can be watched
    with KedaStandIn(namespace.facts, namespace.name) as stand_in:
        yield stand_in


def apply_scaled(namespace: Namespace, *, replicas: int = 2, low: int = 1, high: int = 5) -> None:
    """Have two workloads with a ScaledObject each."""
    apply_ready(namespace, *(namespace.workload(name, replicas=replicas) for name in NAMES))
    namespace.apply(*(scaled_object(namespace, name, low, high) for name in NAMES))


def check_stopped_and_started(namespace: Namespace, **connection: Any) -> None:
    """Stop and start both: what there was is known, they serve, and KEDA owns their number again."""
    workloads = [f"StatefulSet/{name}" for name in NAMES]
    stopped = stop(namespace, *workloads, autoscaler="pause", timeout=120, **connection)
    assert not stopped.failed, stopped.msg
    assert read_replicas(namespace, "StatefulSet", *NAMES) == [0, 0]
    assert predict_start(namespace, *NAMES) == [2, 2]
    started = start(namespace, *workloads, timeout=120, **connection)
    assert not started.failed, started.msg
    check_resumed(namespace, *NAMES)


def predict_start(namespace: Namespace, *names: str) -> list[int]:
    """Return how many replicas a start would give, by check mode: KEDA decides itself what becomes of them then."""
    run = start(namespace, *(f"StatefulSet/{name}" for name in names), check=True)
    assert not run.failed, run.msg
    return [run["diff"]["after"][f"StatefulSet/{name}"] for name in names]


def check_resumed(namespace: Namespace, *names: str) -> None:
    """Check that workloads serve within KEDA's bounds, and that nothing of ours keeps KEDA from scaling them."""
    for name in names:
        assert not {PAUSED_REPLICAS, SAVED} & read_annotations(namespace, "ScaledObject", f"{name}-keda").keys()
        assert SAVED not in read_annotations(namespace, "StatefulSet", name)
        assert 1 <= read_replicas(namespace, "StatefulSet", name)[0] <= 5


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.sweep), "after"])
def test_keda_that_scales_first_does_not_lose_the_number(namespace: Namespace, when: str) -> None:
    """It scales to 0 as soon as it is paused, and is always faster than the next request of the stop."""
    apply_scaled(namespace)
    stand_in = KedaStandIn(namespace.facts, namespace.name, publishes=False)
    rivals = [
        Rival("PATCH", path, stand_in.reconcile, when, times=20)
        for name in NAMES
        for path in (f"/scaledobjects/{name}-keda", f"/statefulsets/{name}")
    ]
    with RivalProxy(namespace.facts, *rivals) as proxy:
        check_stopped_and_started(namespace, host=proxy.url)
        assert stand_in.scalings[:1] == [("a", 0)]


def test_keda_that_acts_by_itself_gives_the_number_back(namespace: Namespace, operator: KedaStandIn) -> None:
    """Its operator runs all the time."""
    apply_scaled(namespace)
    check_stopped_and_started(namespace)
    operator.reconcile()
    check_resumed(namespace, *NAMES)


def read_condition(namespace: Namespace, name: str, kind: str) -> str:
    """Return the status of a condition of a ScaledObject, "" where it has none."""
    status = namespace.get("ScaledObject", name).get("status") or {}
    return next((entry["status"] for entry in status.get("conditions") or [] if entry["type"] == kind), "")


def list_hpas(namespace: Namespace) -> dict[str, set[str]]:
    """Return who has written each HPA, by its name."""
    return {
        hpa["metadata"]["name"]: {entry["manager"] for entry in hpa["metadata"]["managedFields"]}
        for hpa in namespace.list("HorizontalPodAutoscaler")
    }


def test_a_stop_waits_until_keda_says_that_it_has_paused(namespace: Namespace) -> None:
    """Its operator acts when it is waited for, and the workload has its number until then."""
    apply_ready(namespace, namespace.workload("a", replicas=2))
    namespace.apply(scaled_object(namespace, "a", 1, 5))
    stand_in = KedaStandIn(namespace.facts, namespace.name)
    stand_in.reconcile()
    assert read_condition(namespace, "a-keda", "Paused") == "False"
    numbers: list[int] = []

    def act() -> None:
        if PAUSED_REPLICAS in read_annotations(namespace, "ScaledObject", "a-keda"):
            numbers.extend(read_replicas(namespace, "StatefulSet", "a"))
            stand_in.reconcile()

    with RivalProxy(namespace.facts, Rival("GET", "/scaledobjects", act, times=20)) as proxy:
        stopped = stop(namespace, "StatefulSet/a", autoscaler="pause", timeout=400, host=proxy.url)
    assert not stopped.failed, stopped.msg
    assert numbers[:1] == [2]
    assert "its operator has not said" not in tell(stopped)
    assert read_replicas(namespace, "StatefulSet", "a") == [0]


def test_keda_that_is_down_holds_up_no_stop(namespace: Namespace) -> None:
    """It has published its conditions, and answers no more: it is named, and the stop goes on."""
    apply_ready(namespace, namespace.workload("a"))
    scaled = scaled_object(namespace, "a", 1, 5)
    scaled["spec"]["pollingInterval"] = 1
    namespace.apply(scaled)
    KedaStandIn(namespace.facts, namespace.name).reconcile()
    stopped = stop(namespace, "StatefulSet/a", autoscaler="pause", timeout=120)
    assert not stopped.failed, stopped.msg
    assert "its operator has not said within 11 s that it has paused it" in tell(stopped)
    assert read_replicas(namespace, "StatefulSet", "a") == [0]


def test_keda_and_its_hpa_are_one_autoscaler(namespace: Namespace, operator: KedaStandIn) -> None:
    """KEDA removes its HPA while it is paused, and makes it anew; the modules write the ScaledObject only."""
    apply_ready(namespace, namespace.workload("a", replicas=2))
    namespace.apply(scaled_object(namespace, "a", 1, 5))
    namespace.wait("HPA", lambda: "keda-hpa-a-keda" in list_hpas(namespace))
    refused = stop(namespace, "StatefulSet/a")
    assert [blocker["holder"] for blocker in refused["blockers"]] == [f"ScaledObject {namespace.name}/a-keda"]
    stopped = stop(namespace, "StatefulSet/a", autoscaler="pause", timeout=120)
    assert not stopped.failed, stopped.msg
    assert read_condition(namespace, "a-keda", "Paused") == "True"
    namespace.wait("HPA removed", lambda: list_hpas(namespace) == {})
    started = start(namespace, "StatefulSet/a", timeout=120)
    assert not started.failed, started.msg
    namespace.wait("HPA", lambda: "keda-hpa-a-keda" in list_hpas(namespace))
    namespace.wait("resumed", lambda: read_condition(namespace, "a-keda", "Paused") == "False")
    scaled = namespace.module(SCALE, kind="StatefulSet", name="a", partitions=3, autoscaler="adjust", timeout=120)
    assert not scaled.failed, scaled.msg
    assert list_hpas(namespace)["keda-hpa-a-keda"] <= {"keda", "kube-controller-manager"}
    operator.reconcile()
    assert read_replicas(namespace, "StatefulSet", "a") == [3]


def test_what_keda_holds_at_0_needs_no_start(namespace: Namespace, operator: KedaStandIn) -> None:
    """It is empty in check mode and otherwise; once KEDA is paused, somebody has to say what it is to have."""
    operator.ask_for("a-keda", 0)
    namespace.apply(namespace.workload("a", replicas=0), scaled_object(namespace, "a", 0, 5))
    namespace.wait("known", lambda: read_condition(namespace, "a-keda", "Active") == "False")
    for check in (True, False):
        run = start(namespace, "StatefulSet/a", check=check, timeout=20)
        assert not run.failed, run.msg
        assert (run.changed, run["reasons"]) == (False, {"StatefulSet/a": "its autoscaler holds it at 0"})
    namespace.apply(
        {**scaled_object(namespace, "a", 0, 5), "metadata": {"name": "a-keda", "annotations": {PAUSED: "true"}}}
    )
    assert start(namespace, "StatefulSet/a", timeout=20).failed


def test_keda_that_puts_a_start_back_to_0_is_told(
    namespace: Namespace, operator: KedaStandIn, held_pods: HeldPods
) -> None:
    """Nothing triggers it: the start has done its part."""
    apply_ready(namespace, namespace.workload("a", **held_pods.fields))
    namespace.apply(scaled_object(namespace, "a", 0, 5))
    assert stop(namespace, "StatefulSet/a", autoscaler="pause", timeout=120).changed
    held_pods.hold()
    operator.ask_for("a-keda", 0)
    started = start(namespace, "StatefulSet/a", timeout=120)
    assert not started.failed, started.msg
    assert "(0 replicas, as its autoscaler asks)" in started["summary"]
    assert read_replicas(namespace, "StatefulSet", "a") == [0]


class Killer:
    """Kills a client when it wants to write once more than ``writes`` times."""

    def __init__(self, writes: int) -> None:
        self.writes = writes
        self._process: subprocess.Popen[str] | None = None
        self._is_aimed = threading.Event()

    def aim(self, process: subprocess.Popen[str]) -> None:
        """Name the client."""
        self._process = process
        self._is_aimed.set()

    def act(self) -> None:
        """Count a write, or kill."""
        self._is_aimed.wait(10)
        assert self._process is not None
        self.writes -= 1
        if self.writes < 0:
            self._process.kill()
            self._process.wait()
            raise CutOffError


@pytest.mark.parametrize("writes", [1, 2])
def test_a_stop_that_is_killed_between_its_writes_can_be_taken_back(namespace: Namespace, writes: int) -> None:
    """Whatever it wrote first, KEDA does its part then, and the next start restores what there was."""
    apply_scaled(namespace)
    stand_in = KedaStandIn(namespace.facts, namespace.name)
    killer = Killer(writes)
    rivals = [Rival("PATCH", path, killer.act, times=20) for path in ("/scaledobjects/a-keda", "/statefulsets/a")]
    with RivalProxy(namespace.facts, *rivals) as proxy:
        params = namespace.params(
            host=proxy.url, state="stopped", workloads=name_workloads("StatefulSet/a"), autoscaler="pause", timeout=20
        )
        process = start_module(WORKLOAD, params)
        killer.aim(process)
        process.communicate(timeout=120)
    stand_in.reconcile()
    assert predict_start(namespace, "a") == [2]
    started = start(namespace, "StatefulSet/a", timeout=120)
    assert not started.failed, started.msg
    check_resumed(namespace, "a")


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []], ids=["with guards", "without guards"])
def test_what_a_stop_paused_is_resumed_by_every_start(
    namespace: Namespace, operator: KedaStandIn, guards: list[str]
) -> None:
    """It depends on what was saved, and not on what is looked at before."""
    apply_scaled(namespace)
    assert stop(namespace, "StatefulSet/a", autoscaler="pause").changed
    started = start(namespace, "StatefulSet/a", guards=guards, timeout=120)
    assert not started.failed, started.msg
    operator.reconcile()
    check_resumed(namespace, "a")


def test_what_a_stop_paused_is_resumed_by_scaling_too(namespace: Namespace, operator: KedaStandIn) -> None:
    """Told to start what is stopped, the other module gives KEDA its new bounds and lets it go on."""
    apply_scaled(namespace)
    assert stop(namespace, "StatefulSet/a", autoscaler="pause").changed
    scaled = namespace.module(
        SCALE, kind="StatefulSet", name="a", partitions=3, start_stopped=True, autoscaler="adjust", timeout=120
    )
    assert not scaled.failed, scaled.msg
    operator.reconcile()
    assert PAUSED_REPLICAS not in read_annotations(namespace, "ScaledObject", "a-keda")
    assert read_replicas(namespace, "StatefulSet", "a") == [3]
    assert SAVED not in read_annotations(namespace, "StatefulSet", "a")


def test_keda_that_a_person_paused_is_in_nobody_s_way(namespace: Namespace, operator: KedaStandIn) -> None:
    """By the annotation that only says that it is paused; it stays as the person left it."""
    apply_ready(namespace, namespace.workload("a"))
    paused = scaled_object(namespace, "a", 1, 5)
    paused["metadata"]["annotations"] = {PAUSED: "true"}
    namespace.apply(paused)
    stopped = stop(namespace, "StatefulSet/a", timeout=120)
    assert not stopped.failed, stopped.msg
    operator.reconcile()
    assert read_replicas(namespace, "StatefulSet", "a") == [0]
    started = start(namespace, "StatefulSet/a", timeout=120)
    assert not started.failed, started.msg
    assert read_annotations(namespace, "ScaledObject", "a-keda")[PAUSED] == "true"


@pytest.mark.parametrize("guards", [["hpa", "keda", "gitops"], []], ids=["with guards", "without guards"])
def test_an_hpa_that_moves_a_start_sets_its_goal(namespace: Namespace, guards: list[str], held_pods: HeldPods) -> None:
    """Its own controller scales up while the pods become ready, as it does with the work that has piled up."""
    apply_ready(namespace, namespace.workload("w", **held_pods.fields))
    namespace.apply(describe_autoscaler("w", 1, 5))
    autoscaler = MovingAutoscaler(namespace.facts, namespace.name, "w")
    assert stop(namespace, "StatefulSet/w", guards=["gitops"]).changed
    held_pods.hold()
    params = namespace.params(
        state="running", workloads=name_workloads("StatefulSet/w"), guards=guards, timeout=200, run_id="r"
    )
    process = start_module(WORKLOAD, params)
    namespace.wait("started", lambda: read_replicas(namespace, "StatefulSet", "w") == [1])
    autoscaler.set_bounds(2, 5)
    namespace.wait("moved", lambda: read_replicas(namespace, "StatefulSet", "w") == [2])
    held_pods.let_ready()
    started = finish_module(process)
    assert not started.failed, started.msg
    assert read_replicas(namespace, "StatefulSet", "w") == [2]
    assert [started["workloads"][0][key] for key in ("replicas", "ready")] == [2, 2]


def test_bounds_that_no_longer_hold_what_was_saved_decide(namespace: Namespace) -> None:
    """Changed while the workload was stopped: it starts with what was saved, and the HPA moves it within them."""
    apply_ready(namespace, namespace.workload("w", replicas=1, **SLOW))
    namespace.apply(describe_autoscaler("w", 1, 5))
    assert stop(namespace, "StatefulSet/w").changed
    MovingAutoscaler(namespace.facts, namespace.name, "w").set_bounds(2, 5)
    started = start(namespace, "StatefulSet/w", timeout=120)
    assert not started.failed, started.msg
    namespace.wait("moved", lambda: read_replicas(namespace, "StatefulSet", "w") == [2])


def test_keda_that_is_resumed_may_scale_up_at_once(
    namespace: Namespace, operator: KedaStandIn, held_pods: HeldPods
) -> None:
    """A backlog waits: three are asked for before the first one serves."""
    apply_ready(namespace, namespace.workload("a", **held_pods.fields))
    namespace.apply(scaled_object(namespace, "a", 1, 5))
    assert stop(namespace, "StatefulSet/a", autoscaler="pause").changed
    held_pods.hold()
    operator.ask_for("a-keda", 3)
    process = begin_start(namespace, timeout=200)
    namespace.wait("three are asked for", lambda: read_replicas(namespace, "StatefulSet", "a") == [3])
    held_pods.let_ready()
    started = finish_module(process)
    assert not started.failed, started.msg
    assert read_replicas(namespace, "StatefulSet", "a") == [3]


def begin_start(namespace: Namespace, *, timeout: float) -> subprocess.Popen[str]:
    """Begin a start of ``a`` in a process of its own."""
    params = namespace.params(state="running", workloads=name_workloads("StatefulSet/a"), timeout=timeout)
    return start_module(WORKLOAD, params)


def test_a_scale_to_zero_below_the_autoscalers_minimum_ends_no_start(namespace: Namespace, held_pods: HeldPods) -> None:
    """A workload without a pod serves only where its autoscaler may let it rest at 0.

    Who it was the server does not know: 0 is left out of a scale, so that nobody is the field's manager after it. It may
    be a late write of KEDA's, which it corrects itself, so that the deadline decides.
    """
    apply_ready(namespace, namespace.workload("a", **held_pods.fields))
    namespace.apply(scaled_object(namespace, "a", 1, 5))
    assert stop(namespace, "StatefulSet/a", autoscaler="pause").changed
    held_pods.hold()
    process = begin_start(namespace, timeout=20)
    namespace.wait("started", lambda: read_replicas(namespace, "StatefulSet", "a") == [1])
    MovingAutoscaler(namespace.facts, namespace.name, "a").scale(0)
    run = finish_module(process)
    assert run.failed, tell(run)
    assert (run.changed, run["error"]["refused"]) == (True, False)
    assert f"StatefulSet {namespace.name}/a" in run.msg
    assert "have set them to 0" in run.msg or "has set them to 0" in run.msg


@pytest.mark.parametrize("scaler", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_bounds_that_were_adjusted_are_put_back(namespace: Namespace, scaler: str) -> None:
    """What scaling has pinned to one number is what it was again once the workload was stopped and started."""
    make = scaled_object(namespace, "w", 1, 5) if scaler == "ScaledObject" else describe_autoscaler("w", 1, 5)
    name, low, high = (
        ("w-keda", "minReplicaCount", "maxReplicaCount")
        if scaler == "ScaledObject"
        else ("w-hpa", "minReplicas", "maxReplicas")
    )
    apply_ready(namespace, namespace.workload("w"))
    namespace.apply(make)
    adjusted = namespace.module(SCALE, kind="StatefulSet", name="w", partitions=2, autoscaler="adjust")
    assert not adjusted.failed, adjusted.msg
    assert [namespace.get(scaler, name)["spec"][key] for key in (low, high)] == [2, 2]
    assert stop(namespace, "StatefulSet/w", autoscaler="pause").changed
    started = start(namespace, "StatefulSet/w")
    assert not started.failed, started.msg
    after = namespace.get(scaler, name)
    assert [after["spec"][key] for key in (low, high)] == [1, 5]
    assert "lowtide.ops/bounds-before" not in json.dumps(after["metadata"].get("annotations") or {})
