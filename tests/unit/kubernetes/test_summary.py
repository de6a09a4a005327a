# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one line and the evidence of the Kubernetes modules."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import summary
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.stop_start import (
    Change,
    plan_start,
    plan_stop,
)

Json = dict[str, Any]


def workload(name: str, replicas: int, *, kind: str = "Deployment", ready: int | None = None) -> Workload:
    """A workload whose controller has seen its spec."""
    spec = {"suspend": not replicas} if kind == "CronJob" else {"replicas": replicas}
    counted = replicas if ready is None else ready
    status = {"replicas": replicas, "readyReplicas": counted, "availableReplicas": counted, "updatedReplicas": replicas}
    meta = {"name": name, "namespace": "n", "uid": name}
    return Workload.from_object({"metadata": meta, "spec": spec, "status": status}, kind)


def stops(*workloads: Workload) -> dict[str, Change]:
    """The changes of a stop."""
    return {one.key: plan_stop(one, run_id="r", now="t") for one in workloads}


def starts(*workloads: Workload, replicas: int | None = None, only_windows: bool = False) -> dict[str, Change]:
    """The changes of a start that leaves what nothing was saved on."""
    return {
        one.key: plan_start(one, replicas=replicas, only_windows=only_windows, leave_unsaved=True) for one in workloads
    }


RUNNING = (workload("a", 3, kind="StatefulSet"), workload("b", 1), workload("c", 1, kind="CronJob"))
ALL = "StatefulSet n/a (3 replicas), Deployment n/b (1 replica), CronJob n/c"


def test_stop() -> None:
    """Predicted, done, half done, nothing to do."""
    changes = stops(*RUNNING)
    assert summary.summarize_stop(RUNNING, changes, written=None) == f"would stop {ALL}"
    everything = {one.key for one in RUNNING}
    assert summary.summarize_stop(RUNNING, changes, written=everything) == f"stopped {ALL}"
    assert (
        summary.summarize_stop(RUNNING, changes, written={"StatefulSet/a"})
        == "stopped StatefulSet n/a (3 replicas); not stopped: Deployment n/b, CronJob n/c"
    )
    assert (
        summary.summarize_stop(RUNNING, changes, written=set())
        == "not stopped: StatefulSet n/a, Deployment n/b, CronJob n/c"
    )
    stopped = saved("a", 3)
    assert summary.summarize_stop([stopped], stops(stopped), written=set()) == "all workloads were already stopped"


def test_what_was_at_zero_is_told_apart_from_what_is_stopped() -> None:
    """A stop saves it, a start leaves it so."""
    at_zero, running = workload("z", 0), workload("b", 1)
    changes = stops(at_zero, running)
    assert summary.summarize_stop([at_zero, running], changes, written=None) == (
        "would stop Deployment n/b (1 replica); stopped before, would be saved as such: Deployment n/z"
    )
    assert summary.summarize_stop([at_zero], stops(at_zero), written={"Deployment/z"}) == (
        "all workloads were already stopped; stopped before, saved as such: Deployment n/z"
    )
    kept = saved("z", 0)
    assert summary.summarize_start([kept], starts(kept), written={"Deployment/z"}) == (
        "nothing to start; left as it was before it was stopped: Deployment n/z"
    )


def saved(name: str, replicas: int) -> Workload:
    """A Deployment that was stopped by run r."""
    write = plan_stop(workload(name, replicas), run_id="r", now="t").write
    assert write is not None
    meta = {"name": name, "namespace": "n", "uid": name, **write.body["metadata"]}
    return Workload.from_object({"metadata": meta, "spec": {"replicas": 0}}, "Deployment")


def test_start() -> None:
    """Predicted, done, scaled, nothing to do, left."""
    stopped = saved("a", 3)
    changes = starts(stopped)
    assert summary.summarize_start([stopped], changes, written=None) == "would start Deployment n/a (3 replicas)"
    assert (
        summary.summarize_start([stopped], changes, written={"Deployment/a"}) == "started Deployment n/a (3 replicas)"
    )
    running = workload("a", 2)
    assert summary.summarize_start([running], starts(running), written=set()) == "all workloads run"
    scaled = starts(running, replicas=5)
    assert summary.summarize_start([running], scaled, written=None) == "would start Deployment n/a (2 -> 5 replicas)"
    unsaved = workload("b", 0)
    left = "; left stopped, as nothing was saved on it: Deployment n/b"
    assert summary.summarize_start([unsaved], starts(unsaved), written=set()) == f"nothing to start{left}"
    both = starts(stopped, unsaved)
    assert (
        summary.summarize_start([stopped, unsaved], both, written={"Deployment/a"})
        == f"started Deployment n/a (3 replicas){left}"
    )


def test_a_start_tells_what_autoscalers_did() -> None:
    """The number that they gave meanwhile, and what they hold at 0; what was not started is not theirs."""
    first, second, held = saved("a", 3), saved("b", 2), workload("z", 0)
    changes = starts(first, second)
    changes[held.key] = plan_start(held, replicas=None, only_windows=False, is_held_at_zero=True)
    moved = {first.key: 0, second.key: 5}
    assert summary.summarize_start([first, second, held], changes, written={first.key, second.key}, moved=moved) == (
        "started Deployment n/a (0 replicas, as its autoscaler asks), Deployment n/b (5 replicas, as its autoscaler asks);"
        " left at 0, where its autoscaler holds it: Deployment n/z"
    )
    assert summary.summarize_start([held], changes, written=None) == (
        "nothing to start; left at 0, where its autoscaler holds it: Deployment n/z"
    )
    assert summary.summarize_start([first], changes, written=set(), moved=moved) == "not started: Deployment n/a"


def test_a_start_names_what_no_window_stopped() -> None:
    """Beside what nothing was saved on, which is another reason."""
    stopped, unsaved = saved("a", 3), workload("b", 0)
    changes = starts(unsaved) | starts(stopped, only_windows=True)
    assert summary.summarize_start([stopped, unsaved], changes, written=set()) == (
        "nothing to start; left stopped, as nothing was saved on it: Deployment n/b;"
        " left stopped, as no window stopped it: Deployment n/a"
    )


def test_many_are_counted() -> None:
    """A tier of a hundred is still one line."""
    many = [workload(f"w{number}", 1) for number in range(100)]
    line = summary.summarize_stop(many, stops(*many), written=None)
    assert line.endswith("Deployment n/w9 (1 replica) and 90 more")


def test_evidence() -> None:
    """What each workload is, and why; in check mode only why, since nothing has been done."""
    changes = stops(*RUNNING)
    after = [workload("a", 0, kind="StatefulSet"), workload("b", 0), workload("c", 0, kind="CronJob")]
    assert summary.list_change_evidence(after, changes, check_mode=False) == [
        "StatefulSet n/a: stopped, 0 pods left; asked to be stopped",
        "Deployment n/b: stopped, 0 pods left; asked to be stopped",
        "CronJob n/c: suspended, 0 active jobs; asked to be stopped",
    ]
    assert summary.list_change_evidence(after[:1], changes, check_mode=True) == ["StatefulSet n/a: asked to be stopped"]
    assert summary.describe_state(workload("b", 3, ready=1)) == "Deployment n/b: 1 of 3 replicas ready"


def test_info() -> None:
    """How many are as asked for, and what was left stopped."""
    described = [summary.describe_workload(one) for one in RUNNING]
    assert summary.summarize_workloads(RUNNING, described) == "3 of 3 workloads as asked for"
    late = [workload("b", 3, ready=1), saved("x", 2)]
    described = [summary.describe_workload(one) for one in late]
    assert [(entry["status"], entry["stopped_by_lowtide"]) for entry in described] == [
        ("InProgress", None),
        ("Current", {"run": "r", "since": "t", "replicas": 2}),
    ]
    assert described[0]["detail"] == "1 of 3 replicas ready (3 pods)"
    assert (
        summary.summarize_workloads(late, described)
        == "1 of 2 workloads as asked for; stopped by lowtide.ops: Deployment n/x"
    )


SCALED: list[tuple[dict[str, Any], str]] = [
    ({"check_mode": True}, "would scale StatefulSet n/w from 1 to 3 replicas (t has 3 partitions)"),
    ({"done": True}, "scaled StatefulSet n/w from 1 to 3 replicas (t has 3 partitions)"),
    ({}, "StatefulSet n/w is not at 3 replicas yet, it had 1 (t has 3 partitions)"),
    ({"before": 3, "done": True}, "StatefulSet n/w has 3 replicas (t has 3 partitions)"),
    (
        {"before": 3, "done": True, "adjusted": ["HPA n/h"]},
        "StatefulSet n/w has 3 replicas (t has 3 partitions); adjusted HPA n/h",
    ),
    (
        {"before": 3, "check_mode": True, "adjusted": ["HPA n/h"]},
        "StatefulSet n/w has 3 replicas (t has 3 partitions); would adjust HPA n/h",
    ),
]


@pytest.mark.parametrize(("given", "expected"), SCALED)
def test_scaling(given: dict[str, Any], expected: str) -> None:
    """Predicted, done, not yet, nothing to do, an autoscaler adjusted."""
    run: dict[str, Any] = {"before": 1, "after": 3, "adjusted": [], "check_mode": False, "done": False, **given}
    assert summary.summarize_scaling("StatefulSet n/w", why="t has 3 partitions", **run) == expected
