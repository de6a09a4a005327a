# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HPAs and ScaledObjects: who would move a workload, and that pausing and pinning are taken back exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Blocker
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.autoscalers import (
    MADE_FOR,
    PAUSED,
    PAUSED_REPLICAS,
    PAUSED_SCALE_OUT,
    Autoscaler,
    select_autoscalers,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import (
    BOUNDS,
    BOUNDS_BEFORE,
    PAUSE,
    PAUSED_BY,
    STOPPED,
    SavedState,
    find_state,
    save_state,
)
from support.kept_object import KeptObject, load_object, load_objects
from support.memory_objects import Rejected

Json = dict[str, Any]
AT = "2026-01-01T00:00:00Z"
WINDOW = "weekly@2026-01-01"
WORKLOAD = Workload.from_object({"kind": "StatefulSet", "metadata": {"name": "w", "namespace": "n"}})


def keep(name: str, annotations: dict[str, str] | None = None, *, managed: bool = True) -> KeptObject:
    """An autoscaler of data/autoscalers.yml, with these annotations of other clients."""
    obj = load_object("autoscalers", name)
    if annotations:
        obj["metadata"]["annotations"] = annotations
    return KeptObject(obj, managed=managed)


def pause(kept: KeptObject, replicas: int = 3, run_id: str = "r") -> bool:
    """Pause it, and return whether there was anything to write."""
    write = kept.autoscaler.plan_pause(replicas, run_id=run_id, now=AT)
    kept.write(write)
    return write is not None


def resume(kept: KeptObject, **options: bool) -> bool:
    """Resume it, and return whether there was anything to write."""
    write = kept.autoscaler.plan_resume(**options)
    kept.write(write)
    return write is not None


def pin(kept: KeptObject, replicas: int, run_id: str = "r") -> bool:
    """Pin its bounds, and return whether there was anything to write."""
    write = kept.autoscaler.plan_bounds(replicas, run_id=run_id, now=AT)
    kept.write(write)
    return write is not None


def unpin(kept: KeptObject, **options: bool) -> bool:
    """Restore its bounds, and return whether there was anything to write."""
    write = kept.autoscaler.plan_restore_bounds(**options)
    kept.write(write)
    return write is not None


@pytest.mark.parametrize(
    ("name", "target", "bounds", "idle", "managed_by"),
    [
        ("hpa", "StatefulSet/w", (2, 10), None, None),
        ("hpa-default", "StatefulSet/w", (1, 10), None, None),
        ("hpa-to-zero", "StatefulSet/w", (0, 10), None, None),
        ("keda-hpa-so", "StatefulSet/w", (1, 10), None, "so"),
        ("so", "StatefulSet/w", (2, 10), None, None),
        ("so-default", "Deployment/w", (0, 100), None, None),
        ("so-idle", "StatefulSet/w", (2, 10), 0, None),
    ],
)
def test_what_is_read(
    name: str, target: str, bounds: tuple[int, int], idle: int | None, managed_by: str | None
) -> None:
    """With the defaults of each kind."""
    scaler = keep(name).autoscaler
    assert scaler.target == target
    assert scaler.bounds == {"min": bounds[0], "max": bounds[1]}
    assert (scaler.idle, scaler.managed_by, scaler.uid) == (idle, managed_by, "u1")
    assert scaler.title == f"{scaler.kind} n/{name}"
    assert scaler.can_be_paused is (scaler.kind == "ScaledObject")


@pytest.mark.parametrize(
    ("kind", "bounds", "target"),
    [
        ("HorizontalPodAutoscaler", {"min": 1, "max": 1}, "/"),
        ("ScaledObject", {"min": 0, "max": 100}, "Deployment/"),
    ],
)
def test_missing_and_null_fields_are_borne(kind: str, bounds: Json, target: str) -> None:
    """Items of a list carry no kind either."""
    for obj in ({}, {"metadata": None, "spec": None}, {"spec": {"scaleTargetRef": None, "idleReplicaCount": None}}):
        scaler = Autoscaler.from_object(obj, kind)
        assert (scaler.bounds, scaler.target, scaler.idle, scaler.managed_by) == (bounds, target, None, None)
        assert not scaler.is_paused


PAUSES: list[tuple[dict[str, str], bool, bool, bool]] = [
    ({}, False, True, True),
    ({PAUSED_REPLICAS: "0"}, True, False, True),
    ({PAUSED_REPLICAS: "3"}, True, True, False),
    ({PAUSED_REPLICAS: "x"}, True, True, True),
    ({PAUSED_REPLICAS: "3", PAUSED: "true"}, True, True, False),
    ({PAUSED: "true"}, True, False, False),
    ({PAUSED: "whatever"}, True, False, False),
    ({PAUSED: "false"}, False, True, True),
    ({PAUSED: "0"}, False, True, True),
]
"""Annotations, and whether it is paused, would start pods at 0, and would move a workload away from 3."""


@pytest.mark.parametrize(("annotations", "paused", "blocks_stop", "blocks_scale"), PAUSES)
def test_both_annotations_of_keda(
    annotations: dict[str, str], paused: bool, blocks_stop: bool, blocks_scale: bool
) -> None:
    """A number wins over the other one, and holds the workload there; the other leaves it where it is."""
    scaler = keep("so", annotations).autoscaler
    assert (scaler.is_paused, scaler.blocks_stop, scaler.blocks_scale(3)) == (paused, blocks_stop, blocks_scale)
    hpa = keep("hpa", annotations).autoscaler
    assert (hpa.is_paused, hpa.blocks_stop, hpa.blocks_scale(3)) == (False, False, True)


@pytest.mark.parametrize(
    ("name", "annotations", "accepted"),
    [
        ("hpa", {}, {2, 10}),
        ("hpa-default", {}, {1, 2, 10}),
        ("hpa-to-zero", {}, {0, 1, 2, 10}),
        ("keda-hpa-so", {}, {0, 1, 2, 10}),
        ("so", {}, {2, 10}),
        ("so-default", {}, {0, 1, 2, 10, 11}),
        ("so-idle", {}, {0, 2, 10}),
        ("so", {PAUSED_REPLICAS: "11"}, {2, 10, 11}),
        ("so", {PAUSED_REPLICAS: "0"}, {2, 10}),
    ],
)
def test_the_numbers_that_it_may_set(name: str, annotations: dict[str, str], accepted: set[int]) -> None:
    """Its bounds, and what KEDA sets while nothing triggers it; 0 by a pause is a stop, which a start undoes."""
    scaler = keep(name, annotations).autoscaler
    assert {number for number in (0, 1, 2, 10, 11) if scaler.accepts(number)} == accepted
    assert not scaler.accepts(101)


@pytest.mark.parametrize(
    ("name", "blocks"), [("hpa", False), ("hpa-default", False), ("hpa-to-zero", True), ("keda-hpa-so", True)]
)
def test_an_hpa_rests_at_0_unless_its_minimum_is_0_or_keda_made_it(name: str, blocks: bool) -> None:
    """It cannot be paused in any case."""
    kept = keep(name)
    assert kept.autoscaler.blocks_stop is blocks
    assert (kept.autoscaler.find_stop_blocker(WORKLOAD) is not None) is blocks
    assert not pause(kept)
    assert not resume(kept)


@pytest.mark.parametrize(
    ("name", "annotations", "what", "next_step"),
    [
        (
            "hpa-to-zero",
            {},
            "HorizontalPodAutoscaler n/hpa-to-zero owns its replicas (0 to 10) and would start pods again",
            "Set its minReplicas to 1 or more, or remove it",
        ),
        (
            "keda-hpa-so",
            {},
            "HorizontalPodAutoscaler n/keda-hpa-so is made by ScaledObject so, which would start pods again",
            "Leave keda in guards so that the ScaledObject can be paused, or pause it yourself",
        ),
        (
            "so",
            {},
            "ScaledObject n/so owns its replicas (2 to 10) and would start pods again",
            "Set autoscaler to pause, or pause it yourself",
        ),
        (
            "so",
            {PAUSED_REPLICAS: "2"},
            "ScaledObject n/so is paused at 2 replicas (autoscaling.keda.sh/paused-replicas) and would start pods again",
            "Set autoscaler to pause, which puts that number back at the start, or change it yourself",
        ),
    ],
)
def test_what_stands_against_a_stop(name: str, annotations: dict[str, str], what: str, next_step: str) -> None:
    """The object, its bounds or its number, what to do."""
    scaler = keep(name, annotations).autoscaler
    expected = Blocker(object="StatefulSet n/w", what=what, holder=scaler.title, next_step=next_step)
    assert scaler.find_stop_blocker(WORKLOAD) == expected


@pytest.mark.parametrize(
    ("name", "annotations", "what", "next_step"),
    [
        (
            "hpa",
            {},
            "HorizontalPodAutoscaler n/hpa owns its replicas (2 to 10)",
            "Set autoscaler to adjust, change its bounds yourself, or remove it",
        ),
        (
            "keda-hpa-so",
            {},
            "HorizontalPodAutoscaler n/keda-hpa-so owns its replicas (1 to 10)",
            "Leave keda in guards, so that ScaledObject so can be adjusted",
        ),
        (
            "so",
            {PAUSED_REPLICAS: "2"},
            "ScaledObject n/so is paused and keeps it at 2 replicas",
            "Remove its annotation autoscaling.keda.sh/paused-replicas, if it is meant to scale again",
        ),
    ],
)
def test_what_stands_against_a_scale(name: str, annotations: dict[str, str], what: str, next_step: str) -> None:
    """The object, its bounds or its number, what to do."""
    scaler = keep(name, annotations).autoscaler
    expected = Blocker(object="StatefulSet n/w", what=what, holder=scaler.title, next_step=next_step)
    assert scaler.find_scale_blocker(WORKLOAD, 4) == expected
    pinned = scaler._replace(minimum=4, maximum=4, annotations={})
    assert pinned.find_scale_blocker(WORKLOAD, 4) is None
    for moving in (pinned._replace(minimum=3), pinned._replace(maximum=5), pinned._replace(idle=0)):
        assert moving.blocks_scale(4)


@given(
    st.dictionaries(
        st.sampled_from([PAUSED_REPLICAS, PAUSED, "team"]), st.sampled_from(["0", "2", "true", "false", "x"])
    ),
    st.booleans(),
)
def test_resume_undoes_pause(annotations: dict[str, str], managed: bool) -> None:
    """Whatever another client had set; what is at 0 already, or left alone, is not touched, and so never resumed."""
    kept = keep("so", annotations, managed=managed)
    needed = kept.autoscaler.blocks_stop
    before = kept.annotations
    assert pause(kept) is needed
    assert not kept.autoscaler.blocks_stop
    assert not pause(kept, 0, "second")
    assert (kept.annotations == before) is not needed
    assert resume(kept) is needed
    assert kept.annotations == before
    assert not resume(kept)


def test_what_a_pause_saves() -> None:
    """What the annotation was, and how many replicas the workload had, which also helps where it has no note itself."""
    kept = keep("so")
    assert kept.autoscaler.find_saved_stop() is None
    pause(kept, 5, WINDOW)
    assert kept.annotations[PAUSED_REPLICAS] == "0"
    assert find_state(kept.annotations, PAUSED_BY, PAUSE) == SavedState(
        {"paused_replicas": None, "replicas": 5}, WINDOW, AT, 1, PAUSE
    )
    assert kept.autoscaler.find_saved_stop() == SavedState({"replicas": 5}, WINDOW, AT)
    kept.change({"metadata": {"annotations": {PAUSED_REPLICAS: "4"}}})
    assert kept.autoscaler.find_saved_stop() is None


@pytest.mark.parametrize(("run_id", "resumed"), [("20260101T000000Z", False), (WINDOW, True)])
def test_what_an_operator_paused_stays_paused_in_a_window(run_id: str, resumed: bool) -> None:
    """Else KEDA would start what the operator stopped."""
    kept = keep("so")
    pause(kept, run_id=run_id)
    assert resume(kept, only_windows=True) is resumed
    assert resume(kept) is not resumed


@pytest.mark.parametrize("later", [None, "0", "4"])
@pytest.mark.parametrize("managed", [True, False])
def test_what_another_client_made_of_the_pause_is_left(later: str | None, managed: bool) -> None:
    """Removed, changed, or removed and set again: only what was saved goes. (The last needs managedFields.)"""
    kept = keep("so", managed=managed)
    pause(kept)
    kept.change({"metadata": {"annotations": {PAUSED_REPLICAS: None}}})
    kept.change({"metadata": {"annotations": {PAUSED_REPLICAS: later, PAUSED: "true"}}})
    assert resume(kept)
    expected = {"team": "search", PAUSED: "true"}
    if later is not None and (managed or later != "0"):
        expected[PAUSED_REPLICAS] = later
    assert kept.annotations == expected


def test_a_pause_that_is_out_of_date_is_replaced() -> None:
    """Resumed by hand, paused again by the next run."""
    kept = keep("so")
    pause(kept, 3, "first")
    kept.change({"metadata": {"annotations": {PAUSED_REPLICAS: "2"}}})
    assert pause(kept, 4, "second")
    assert kept.autoscaler.find_saved_stop() == SavedState({"replicas": 4}, "second", AT)
    resume(kept)
    assert kept.annotations == {"team": "search", PAUSED_REPLICAS: "2"}


@pytest.mark.parametrize(("before", "after"), [(None, {}), ("2", {PAUSED_REPLICAS: "2"})])
def test_a_pause_of_format_1_is_resumed(before: str | None, after: dict[str, str]) -> None:
    """It was saved under the key of workloads, without replicas."""
    note = json.dumps({"format": 1, "run": "old", "at": AT, "paused": before})
    kept = keep("so-default")
    kept.change({"metadata": {"annotations": {PAUSED_REPLICAS: "0", STOPPED: note}}}, manager="lowtide.ops/old")
    assert kept.autoscaler.find_saved_stop() is None
    assert not resume(kept, only_windows=True)
    assert resume(kept)
    assert kept.annotations == after
    again = keep("so-default", {STOPPED: note})
    pause(again)
    assert sorted(again.annotations) == sorted([PAUSED_REPLICAS, PAUSED_BY])


@pytest.mark.parametrize("key", [PAUSED_BY, STOPPED])
def test_a_pause_that_cannot_be_read_is_a_refusal(key: str) -> None:
    """It names the annotation, and what is to be done."""
    kept = keep("so", {key: "3", PAUSED_REPLICAS: "0"})
    with pytest.raises(Refusal) as caught:
        resume(kept)
    assert str(caught.value) == (
        f"ScaledObject n/so: annotation {key} is not of format 1 or 2: '3'."
        f" Set its annotation {PAUSED_REPLICAS} as it should be and remove its annotation {key}."
    )


def test_what_it_will_be_after_a_resume() -> None:
    """So that a scale in the same run judges it as it will be."""
    kept = keep("so", {PAUSED_REPLICAS: "5", "team": "search"})
    pause(kept)
    scaler = kept.autoscaler
    assert scaler.blocks_scale(5)
    resumed = scaler.apply(scaler.plan_resume())
    assert not resumed.blocks_scale(5)
    assert resumed.annotations == {PAUSED_REPLICAS: "5", "team": "search"}
    assert resumed._replace(annotations=scaler.annotations) == scaler
    assert scaler.apply(None) == scaler


@pytest.mark.parametrize("name", ["hpa", "hpa-default", "hpa-to-zero", "so", "so-default", "so-idle"])
@given(replicas=st.integers(1, 50), more=st.integers(1, 50), managed=st.booleans())
def test_restoring_undoes_pinning(name: str, replicas: int, more: int, managed: bool) -> None:
    """Also when it was pinned twice, and where a bound was not set at all."""
    kept = keep(name, managed=managed)
    before = kept.spec
    pinned = [pin(kept, number) for number in (replicas, more)]
    assert pinned == [True, replicas != more]
    assert kept.autoscaler.bounds == {"min": more, "max": more}
    assert not kept.autoscaler.blocks_scale(more)
    saved = find_state(kept.annotations, BOUNDS_BEFORE, BOUNDS)
    assert saved is not None
    assert (saved.spec["pinned"], saved.generation) == (more, kept.obj["metadata"]["generation"])
    assert unpin(kept)
    assert kept.spec == before
    assert BOUNDS_BEFORE not in kept.annotations
    assert not unpin(kept)


def test_what_pinning_saves() -> None:
    """The bounds as they were written, and KEDA's idle number, which lies outside of them."""
    hpa, idle = keep("hpa-default"), keep("so-idle")
    pin(hpa, 4)
    pin(idle, 4, WINDOW)
    assert find_state(hpa.annotations, BOUNDS_BEFORE, BOUNDS) == SavedState(
        {"min": None, "max": 10, "pinned": 4}, "r", AT, 2, BOUNDS
    )
    assert find_state(idle.annotations, BOUNDS_BEFORE, BOUNDS) == SavedState(
        {"min": 2, "max": 10, "idle": 0, "pinned": 4}, WINDOW, AT, 2, BOUNDS
    )
    assert "idleReplicaCount" not in idle.spec
    assert not unpin(hpa, only_windows=True)
    assert unpin(idle, only_windows=True)


def test_bounds_that_are_that_number_already_are_not_touched() -> None:
    """And so never restored; with an idle number beside them they are not that number."""
    kept = keep("hpa")
    kept.change({"spec": {"minReplicas": 4, "maxReplicas": 4}})
    assert not pin(kept, 4)
    assert not unpin(kept)
    idle = keep("so-idle")
    idle.change({"spec": {"minReplicaCount": 4, "maxReplicaCount": 4}})
    assert pin(idle, 4)


@pytest.mark.parametrize(
    "change", [{"minReplicas": 3}, {"maxReplicas": 20}, {"minReplicas": 5, "maxReplicas": 5}, {"minReplicas": None}]
)
def test_bounds_that_another_client_changed_since_are_left(change: Json) -> None:
    """Only what was saved goes; and pinned again, what is there then is what is saved."""
    for again in (False, True):
        kept = keep("hpa")
        pin(kept, 4)
        kept.change({"spec": change})
        changed = kept.spec
        if again:
            pin(kept, 6)
            assert kept.autoscaler.bounds == {"min": 6, "max": 6}
        assert unpin(kept)
        assert kept.spec == changed
        assert BOUNDS_BEFORE not in kept.annotations


@pytest.mark.parametrize(
    ("minimum", "manager", "restored"),
    [(4, "lowtide.ops/old", True), (4, "kubectl", False), (3, "lowtide.ops/old", False), (4, None, True)],
)
def test_bounds_of_format_1_are_restored(minimum: int, manager: str | None, restored: bool) -> None:
    """It did not save to what they were set: they have to be one number, and ours where that is known."""
    note = json.dumps({"format": 1, "run": "old", "at": AT, "min": 2, "max": 9})
    kept = keep("hpa", managed=manager is not None)
    patch = {"metadata": {"annotations": {BOUNDS_BEFORE: note}}, "spec": {"minReplicas": minimum, "maxReplicas": 4}}
    kept.change(patch, manager=manager or "nobody")
    assert unpin(kept)
    assert kept.autoscaler.bounds == ({"min": 2, "max": 9} if restored else {"min": minimum, "max": 4})
    assert kept.annotations == {}


def test_bounds_that_cannot_be_read_are_a_refusal() -> None:
    """For pinning again too, since that would lose them."""
    kept = keep("hpa", {BOUNDS_BEFORE: "{}"})
    acts: list[Callable[[], bool]] = [lambda: unpin(kept), lambda: pin(kept, 4)]
    for act in acts:
        with pytest.raises(Refusal, match=r"bounds-before is not of format 1 or 2: '{}'\. Set its bounds as they"):
            act()


def test_an_hpa_that_keda_made_is_never_pinned() -> None:
    """KEDA would put its bounds back."""
    with pytest.raises(Refusal) as caught:
        pin(keep("keda-hpa-so"), 4)
    assert str(caught.value) == (
        "HorizontalPodAutoscaler n/keda-hpa-so: ScaledObject so made it and would put its bounds back."
        " Leave keda in guards, so that ScaledObject so is adjusted."
    )


@pytest.mark.parametrize("replicas", [0, -1])
def test_bounds_below_1_are_refused(replicas: int) -> None:
    """Stopping is another module's."""
    with pytest.raises(Refusal, match=f"its bounds cannot become {replicas}, which is less than 1"):
        pin(keep("so"), replicas)


def test_an_hpa_that_keda_made_is_represented_by_its_scaled_object() -> None:
    """One owner, named once; without the ScaledObject the HPA is all that is known."""
    scalers = [Autoscaler.from_object(obj) for obj in load_objects("autoscalers")]
    names = [scaler.name for scaler in select_autoscalers(scalers, WORKLOAD)]
    assert names == ["hpa", "hpa-default", "hpa-to-zero", "so", "so-idle"]
    deployment = WORKLOAD._replace(kind="Deployment")
    assert [scaler.name for scaler in select_autoscalers(iter(scalers), deployment)] == ["so-default"]
    hpas = [scaler for scaler in scalers if scaler.kind != "ScaledObject"]
    assert "keda-hpa-so" in [scaler.name for scaler in select_autoscalers(hpas, WORKLOAD)]
    assert select_autoscalers(scalers, WORKLOAD._replace(name="x")) == []


@pytest.mark.parametrize(("owned", "labelled"), [(True, False), (False, True), (True, True)])
def test_an_hpa_of_kedas_is_known_by_owner_or_label(owned: bool, labelled: bool) -> None:
    """It has the annotations of its ScaledObject, which are not its own; a ScaledObject has the label as well."""
    obj = load_object("autoscalers", "keda-hpa-so")
    obj["metadata"]["annotations"] = {PAUSED_BY: "{}", BOUNDS_BEFORE: "{}"}
    obj["metadata"]["labels"] = {MADE_FOR: "so"} if labelled else {}
    if not owned:
        del obj["metadata"]["ownerReferences"]
    scaler = Autoscaler.from_object(obj)
    assert (scaler.managed_by, scaler.annotations) == ("so", {})
    assert (scaler.plan_resume(), scaler.plan_restore_bounds(), scaler.list_pausing_runs()) == (None, None, [])
    made = load_object("autoscalers", "so")
    made["metadata"]["labels"] = {MADE_FOR: "so"}
    assert select_autoscalers([scaler, Autoscaler.from_object(made)], WORKLOAD) == [Autoscaler.from_object(made)]


@pytest.mark.parametrize(
    ("annotations", "condition", "awaited"),
    [
        ({PAUSED_REPLICAS: "0"}, "False", True),
        ({PAUSED_REPLICAS: "0"}, "Unknown", True),
        ({PAUSED: "true"}, "False", True),
        ({PAUSED_REPLICAS: "0"}, "True", False),
        ({PAUSED_REPLICAS: "0"}, None, False),
        ({PAUSED: "false"}, "False", False),
        ({}, "False", False),
    ],
)
def test_when_the_operator_has_still_to_act_on_a_pause(
    annotations: dict[str, str], condition: str | None, awaited: bool
) -> None:
    """It is paused, and its condition, where the operator publishes it, does not say so."""
    obj = load_object("autoscalers", "so")
    obj["metadata"]["annotations"] = annotations
    obj["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    if condition is not None:
        obj["status"]["conditions"].append({"type": "Paused", "status": condition})
    assert Autoscaler.from_object(obj).is_pause_awaited is awaited


@pytest.mark.parametrize(
    "annotations", [{}, {PAUSED_SCALE_OUT: "true"}, {"autoscaling.keda.sh/paused-scale-in": "true"}]
)
def test_the_condition_alone_is_no_pause(annotations: dict[str, str]) -> None:
    """KEDA sets it for a pause in one direction too, and may leave it after a resume: it scales then."""
    obj = load_object("autoscalers", "so")
    obj["metadata"]["annotations"] = annotations
    obj["status"] = {"conditions": [{"type": "Paused", "status": "True"}]}
    scaler = Autoscaler.from_object(obj)
    assert (scaler.is_paused, scaler.blocks_stop) == (False, True)
    assert scaler.plan_pause(3, run_id="r", now=AT) is not None


@pytest.mark.parametrize(
    ("name", "annotations", "held"),
    [
        ("hpa", {}, False),
        ("hpa-to-zero", {}, True),
        ("keda-hpa-so", {}, False),
        ("so", {}, False),
        ("so-default", {}, True),
        ("so-idle", {}, True),
        ("so-idle", {PAUSED: "false"}, True),
        ("so-idle", {PAUSED: "true"}, False),
        ("so-idle", {PAUSED_REPLICAS: "0"}, False),
        ("so-idle", {PAUSED_SCALE_OUT: "true"}, False),
    ],
)
def test_who_holds_a_workload_at_0(name: str, annotations: dict[str, str], held: bool) -> None:
    """Only who starts it by itself too."""
    assert keep(name, annotations).autoscaler.holds_at_zero is held


@pytest.mark.parametrize("known", [True, False])
def test_writes_are_conditional_on_what_was_decided_about(known: bool) -> None:
    """Another client's pause, or its bounds, in between is a conflict, also where there was nothing before."""
    kept = keep("so" if known else "so-default", {PAUSED_REPLICAS: "3"} if known else {"a": "b"})
    scaler, before = kept.autoscaler, kept.obj
    rivals: list[tuple[Any, Json]] = [
        (scaler.plan_pause(1, run_id="r", now=AT), {"metadata": {"annotations": {PAUSED_REPLICAS: "1"}}}),
        (scaler.plan_bounds(4, run_id="r", now=AT), {"spec": {"minReplicaCount": 1}}),
        (scaler.plan_bounds(4, run_id="r", now=AT), {"spec": {"maxReplicaCount": 99}}),
    ]
    for write, rival in rivals:
        operations = build_json_patch(before, write)
        kept.obj = before
        kept.change(rival)
        with pytest.raises(Rejected):
            kept.send(operations)
        kept.obj = before
        kept.change({"metadata": {"labels": {"a": "b"}}})
        kept.send(operations)


def test_several_operations_on_one_object() -> None:
    """Paused and pinned, it is resumed and restored in any order; what others saved stays."""
    other = SavedState({"x": 1}, "r", AT, 1, "other")
    notes: Json = {**save_state({}, PAUSED_BY, other), **save_state({}, BOUNDS_BEFORE, other)}
    orders: list[tuple[Callable[[KeptObject], bool], Callable[[KeptObject], bool]]] = [(resume, unpin), (unpin, resume)]
    for first, second in orders:
        kept = keep("so", notes)
        before = kept.spec
        pin(kept, 4)
        pause(kept)
        assert first(kept)
        assert second(kept)
        assert (kept.spec, kept.annotations) == (before, notes)
