# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop, then start, gives back what there was, whatever happened in between; and what was saved is never invented."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans import stop_start
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.stop_start import Change
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import (
    STOP,
    STOPPED,
    SavedState,
    find_state,
    save_state,
)
from support.kept_object import KeptObject, load_object
from support.memory_objects import Rejected

Json = dict[str, Any]
AT = "2026-01-01T00:00:00Z"
WINDOW = "weekly@2026-01-01"
SCALED = ["statefulset", "deployment"]
SUSPENDED = ["cronjob", "job"]
KINDS = [*SCALED, *SUSPENDED]


def keep(name: str, *, replicas: int | None = None, suspend: bool = False, managed: bool = True) -> KeptObject:
    """A workload of data/workloads.yml with this number of replicas, or suspended."""
    obj = load_object("workloads", name)
    if name in SUSPENDED:
        obj["spec"]["suspend"] = suspend
    elif replicas is not None:
        obj["spec"]["replicas"] = replicas
    return KeptObject(obj, managed=managed)


def plan_stop(kept: KeptObject, run_id: str = "r", **options: Any) -> Change:
    """Plan a stop of it."""
    return stop_start.plan_stop(kept.workload, run_id=run_id, now=AT, **options)


def stop(kept: KeptObject, run_id: str = "r", **options: Any) -> Change:
    """Stop it."""
    change = plan_stop(kept, run_id, **options)
    kept.write(change.write)
    return change


def plan_start(kept: KeptObject, **options: Any) -> Change:
    """Plan a start of it, of whatever run stopped it and with what was saved unless told otherwise."""
    return stop_start.plan_start(kept.workload, **{"replicas": None, "only_windows": False, **options})


def start(kept: KeptObject, **options: Any) -> Change:
    """Start it."""
    change = plan_start(kept, **options)
    kept.write(change.write)
    return change


def read_saved(kept: KeptObject) -> SavedState | None:
    """What a stop has saved on it."""
    return find_state(kept.annotations, STOPPED, STOP)


def annotate(kept: KeptObject, text: str | None) -> None:
    """Let another client write our annotation."""
    kept.change({"metadata": {"annotations": {STOPPED: text}}})


@given(
    st.sampled_from(SCALED),
    st.integers(0, 1000),
    st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=3)),
    st.integers(1, 3),
    st.booleans(),
)
def test_start_undoes_stop(name: str, replicas: int, annotations: dict[str, str], stops: int, managed: bool) -> None:
    """Also from 0, and when it is stopped several times by reruns; a start of what runs changes nothing."""
    obj = load_object("workloads", name)
    obj["metadata"]["annotations"], obj["spec"]["replicas"] = annotations, replicas
    kept = KeptObject(obj, managed=managed)
    for number in range(stops):
        change = stop(kept, f"run{number}")
        assert kept.spec["replicas"] == 0
        assert (change.write is None) is (number > 0)
    saved = read_saved(kept)
    assert saved is not None
    assert (saved.spec, saved.run_id, saved.at) == ({"replicas": replicas}, "run0", AT)
    assert saved.generation == kept.obj["metadata"]["generation"]
    change = start(kept)
    assert (change.before, change.after, change.is_left, change.stopper) == (0, replicas, False, None)
    assert (kept.spec["replicas"], kept.annotations) == (replicas, annotations)
    if replicas:
        again = start(kept)
        assert again == Change(None, replicas, replicas, "it is running")
        assert (again.what, again.reversible) == ("", True)


@pytest.mark.parametrize("suspended", [True, False])
@pytest.mark.parametrize(("name", "count"), [("cronjob", 1), ("job", 3)])
def test_what_is_suspended(name: str, count: int, suspended: bool) -> None:
    """One that was suspended before stays suspended, and gets its saved state removed."""
    kept = keep(name, suspend=suspended)
    stopping = stop(kept)
    assert (stopping.before, stopping.after) == (0 if suspended else count, 0)
    assert kept.spec["suspend"] is True
    saved = read_saved(kept)
    assert saved is not None
    assert saved.spec == {"suspend": suspended}
    starting = start(kept)
    assert (starting.before, starting.after, starting.is_left) == (0, 0 if suspended else count, False)
    assert starting.reason == (
        f"it was suspended before run r at {AT}, and stays so"
        if suspended
        else f"was not suspended when run r stopped it at {AT}"
    )
    assert (kept.spec["suspend"], kept.annotations) == (suspended, {})


def test_reasons_and_plans_of_a_stop() -> None:
    """As a person reads them."""
    kept = keep("statefulset")
    change = stop(kept)
    assert (change.what, change.reason, change.reversible) == ("replicas 3 -> 0", "asked to be stopped", True)
    again = stop(kept, "second")
    assert (again.what, again.before, again.reason) == ("", 0, f"it is stopped already, by run r at {AT}")
    starting = start(kept)
    assert (starting.what, starting.reason) == ("replicas 0 -> 3", f"had 3 when run r stopped it at {AT}")
    at_zero = keep("statefulset", replicas=0)
    change = stop(at_zero)
    assert change.what == "save that it has 0 replicas"
    assert change.reason == "it is stopped already, and that is saved, so that a start leaves it so"
    again = stop(at_zero, "second")
    assert (again.write, again.reason) == (None, f"it was stopped before run r at {AT}, which is saved")
    change = start(at_zero)
    assert change.what == "remove what was saved on it"
    assert change.reason == f"it was at 0 replicas before run r at {AT}, and stays so"


def test_what_an_autoscaler_holds_at_0_has_not_been_stopped() -> None:
    """Where nothing says otherwise: what was saved, a number that is given, or what cannot be read."""
    kept = keep("statefulset", replicas=0)
    held = Change(None, 0, 0, "its autoscaler holds it at 0")
    assert plan_start(kept, is_held_at_zero=True) == plan_start(kept, is_held_at_zero=True, leave_unsaved=True) == held
    assert plan_start(kept, is_held_at_zero=True, replicas=2).after == 2
    assert plan_start(kept, is_held_at_zero=True, fallback=SavedState({"replicas": 3}, "r", AT)).after == 3
    annotate(kept, "no JSON")
    with pytest.raises(Refusal, match="is not JSON"):
        plan_start(kept, is_held_at_zero=True)
    stopped = keep("statefulset")
    stop(stopped)
    assert plan_start(stopped, is_held_at_zero=True).after == 3
    stopped.scale(2, manager="kubectl")
    stopped.scale(0, manager="keda")
    assert plan_start(stopped, is_held_at_zero=True, pausing_runs=()) == held


@pytest.mark.parametrize("name", KINDS)
def test_without_a_saved_state_nothing_is_guessed(name: str) -> None:
    """A suspended CronJob is left like the others; a number that is given decides."""
    kept = keep(name, replicas=0, suspend=True)
    word = "is suspended" if name in SUSPENDED else "has 0 replicas"
    with pytest.raises(Refusal) as caught:
        plan_start(kept)
    assert str(caught.value) == (
        f"{kept.workload.title}: it {word}, and nothing was saved on it: another client stopped it."
        " Give replicas for it, if it is meant to run."
    )
    left = plan_start(kept, leave_unsaved=True)
    expected = f"it {word}, and nothing was saved on it: another client stopped it"
    assert left == Change(None, 0, 0, expected, is_left=True)
    given_number = start(kept, replicas=2, leave_unsaved=True)
    assert given_number.reason == "replicas as given"
    assert (given_number.after, given_number.is_left) == ({"cronjob": 1, "job": 3}.get(name, 2), False)
    assert kept.workload.replicas == given_number.after


def test_an_annotation_of_format_1_is_restored_and_removed() -> None:
    """As the first release wrote it, under its manager of then."""
    kept = keep("deployment")
    note = json.dumps({"format": 1, "run": "old", "at": AT, "replicas": 4})
    kept.change(
        {"metadata": {"annotations": {STOPPED: note}}, "spec": {"replicas": 0}}, manager="lowtide.ops/20260101T000000Z"
    )
    assert stop(kept).write is None
    change = start(kept)
    assert (kept.spec["replicas"], kept.annotations) == (4, {"team": "search"})
    assert change.reason == f"had 4 when run old stopped it at {AT}"


@pytest.mark.parametrize(
    "text", ["", "3", "{", '{"format": 9, "replicas": 3}', '{"format": 1}', '{"format": 1, "replicas": "3"}']
)
def test_a_saved_state_that_cannot_be_used_is_a_refusal_unless_replicas_are_given(text: str) -> None:
    """No number is made of it, and a stop leaves it for a release that may understand it."""
    kept = keep("statefulset", replicas=0)
    annotate(kept, text)
    stopping = stop(kept)
    assert stopping.write is None
    assert stopping.reason.startswith("it is stopped already; annotation lowtide.ops/stopped")
    with pytest.raises(Refusal, match=r"has 0 replicas, and annotation .* Give replicas"):
        plan_start(kept)
    left = plan_start(kept, leave_unsaved=True)
    assert (left.is_left, left.write, "annotation" in left.reason) == (True, None, True)
    start(kept, replicas=2)
    assert (kept.spec["replicas"], kept.annotations) == (2, {})
    annotate(kept, text)
    running = start(kept)
    assert running.what == "remove what was saved on it"
    assert running.reason == "it is running; what an earlier stop saved is out of date"
    assert (kept.spec["replicas"], kept.annotations) == (2, {})
    annotate(kept, text)
    assert stop(kept).before == 2
    assert start(kept).after == 2


@pytest.mark.parametrize("managed", [True, False])
def test_a_persons_later_change_wins_over_a_saved_state(managed: bool) -> None:
    """Stopped by us with 2, started by hand with 9, stopped by hand: neither is started, nor does the next stop keep 2."""
    kept = keep("statefulset", replicas=2, managed=managed)
    stop(kept)
    kept.scale(9)
    kept.scale(0)
    who = "kubectl" if managed else "another client"
    problem = f"it has 0 replicas, and it was changed by {who} since run r saved what it had at {AT}"
    with pytest.raises(Refusal) as caught:
        plan_start(kept)
    assert problem in str(caught.value)
    assert plan_start(kept, leave_unsaved=True) == Change(None, 0, 0, problem, is_left=True)
    assert not plan_start(kept, leave_unsaved=True, replicas=4, only_windows=True).is_left
    change = stop(kept, "second")
    assert change.reason.endswith(f"so that a start leaves it so; what run r saved at {AT} is out of date")
    assert start(kept).after == 0
    assert kept.annotations == {}


def test_another_change_while_it_is_stopped_leaves_the_saved_state_good() -> None:
    """A new image, rolled out in the window, belongs to the generation and not to the replicas."""
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "i:2"}]}}}}
    for replicas in (3, 0):
        kept = keep("statefulset", replicas=replicas)
        stop(kept)
        kept.change(image)
        assert stop(kept).write is None
        assert start(kept).after == replicas


def test_a_workload_that_runs_again_has_its_saved_state_replaced_or_dropped() -> None:
    """Started by another client meanwhile."""
    kept = keep("deployment")
    stop(kept)
    kept.scale(5)
    dropped = plan_start(kept)
    assert (dropped.before, dropped.after) == (5, 5)
    assert dropped.reason == "it is running; what an earlier stop saved is out of date"
    stop(kept)
    assert start(kept).after == 5
    given_number = start(kept, replicas=7)
    assert (given_number.before, given_number.after, given_number.reason) == (5, 7, "replicas as given")
    assert (kept.spec["replicas"], kept.annotations) == (7, {"team": "search"})


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("replicas", [None, 2])
def test_what_an_operator_stopped_is_left_by_a_window(name: str, replicas: int | None) -> None:
    """Whatever number the site gives; what a window stopped, and any stop outside a window, are as ever."""
    by_hand, by_window = keep(name), keep(name)
    stop(by_hand, "20260101T000000Z")
    stop(by_window, WINDOW)
    assert stop(by_hand, WINDOW).write is None
    left = plan_start(by_hand, replicas=replicas, only_windows=True)
    assert (left.write, left.after, left.is_left) == (None, 0, True)
    assert left.reason == f"it is stopped by run 20260101T000000Z since {AT}, not by a window"
    assert left.stopper == read_saved(by_hand)
    assert not plan_start(by_hand, replicas=replicas).is_left
    started = start(by_window, replicas=replicas, only_windows=True)
    assert (started.is_left, started.stopper) == (False, None)
    assert started.after == {"cronjob": 1, "job": 3}.get(name, replicas or 3)
    # The predicted stop of a window does not take what is stopped already.
    assert plan_start(by_hand, replicas=replicas, assume_stopped=True, only_windows=True).is_left


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("replicas", [0, -1, True, False])
def test_a_start_with_fewer_than_one_replica_is_refused(name: str, replicas: int) -> None:
    """Whether it runs or not: scaling to 0 is what a stop does, and saves."""
    running, at_zero = keep(name), keep(name, replicas=0, suspend=True)
    for kept in (running, at_zero):
        with pytest.raises(Refusal, match=rf"to be {replicas}, .*at least 1\. Correct replicas"):
            plan_start(kept, replicas=replicas)
    assert plan_start(at_zero, replicas=1).after == {"job": 3}.get(name, 1)


@pytest.mark.parametrize("replicas", [None, 6])
def test_an_assumed_stop_predicts_the_start(replicas: int | None) -> None:
    """Of what is there now, or of what is given; and what is at 0 now would be saved and stay."""
    predicted = plan_start(keep("statefulset"), replicas=replicas, assume_stopped=True)
    assert (predicted.before, predicted.after) == (0, replicas or 3)
    assert predicted.reason == "restores what is there now (assumed to be stopped by then)"
    assert predicted.write is not None
    at_zero = plan_start(keep("statefulset", replicas=0), replicas=replicas, assume_stopped=True)
    assert (at_zero.before, at_zero.after, at_zero.is_left) == (0, replicas or 0, False)
    assert at_zero.write is not None
    if replicas is None:
        assert at_zero.reason == "it is stopped now, and stays so (assumed to be stopped by then)"
    suspended = plan_start(keep("cronjob", suspend=True), replicas=None, assume_stopped=True)
    assert (suspended.after, suspended.is_left) == (0, False)


@pytest.mark.parametrize("manager", ["keda", "kube-controller-manager"])
@pytest.mark.parametrize("managed", [True, False])
def test_an_autoscaler_that_is_faster_costs_no_replicas(manager: str, managed: bool) -> None:
    """Saved first, then it is paused and scales to 0 by itself, then our write finds 0."""
    kept = keep("statefulset", managed=managed)
    first = kept.workload
    saving = stop_start.plan_save(first, run_id=WINDOW, now=AT)
    assert (saving.before, saving.after, saving.what) == (3, 3, "save that it has 3 replicas")
    assert saving.reason == "saved before its autoscaler is paused"
    kept.write(saving.write)
    assert (kept.spec["replicas"], kept.obj["metadata"]["generation"]) == (3, 1)
    assert stop_start.plan_save(kept.workload, run_id=WINDOW, now=AT).write is None
    assert stop_start.plan_save(kept.workload, run_id="other", now=AT).write is not None
    kept.scale(0, manager=manager)
    change = stop(kept, WINDOW, first=first, has_paused=True)
    assert (change.before, change.after) == (3, 0)
    saved = read_saved(kept)
    assert saved is not None
    assert saved.spec == {"replicas": 3}
    assert start(kept, only_windows=True).after == 3


def test_a_second_look_that_finds_nothing_saved_saves_what_the_first_saw() -> None:
    """Without a saved state, or with one that says that there was nothing; another run's own stop is left alone."""
    kept = keep("deployment")
    first = kept.workload
    kept.scale(0, manager="keda")
    change = plan_stop(kept, first=first)
    assert (change.before, change.after, change.reversible) == (3, 0, True)
    assert change.reason == "asked to be stopped; keda has scaled it to 0 meanwhile"
    stop(kept, "another")
    assert stop(kept, first=first).before == 3
    saved = read_saved(kept)
    assert saved is not None
    assert (saved.spec, saved.run_id, saved.generation) == ({"replicas": 3}, "r", 2)
    again = plan_stop(kept, "third", first=first)
    assert (again.write, again.before) == (None, 3)
    unmanaged = keep("deployment", managed=False)
    unmanaged.scale(0)
    assert (
        plan_stop(unmanaged, first=first, has_paused=True).reason
        == "asked to be stopped; another client has scaled it to 0 meanwhile"
    )
    other = keep("deployment", replicas=0)
    assert plan_stop(other, first=first._replace(uid="another")).before == 0
    assert plan_stop(other, first=first._replace(replicas=0)) == plan_stop(other)
    by_hand = keep("deployment")
    by_hand.scale(0, manager="kubectl")
    for kept_at_zero, as_it_was in ((by_hand, first), (keep("cronjob", suspend=True), keep("cronjob").workload)):
        assert plan_stop(kept_at_zero, first=as_it_was, has_paused=True).before == 0


def test_a_kill_between_the_steps_of_a_stop_leaves_enough_to_start() -> None:
    """Saved, and scaled to 0 by the autoscaler: the run never came back, and the next stop keeps what is there."""
    kept = keep("statefulset")
    kept.write(stop_start.plan_save(kept.workload, run_id=WINDOW, now=AT).write)
    kept.scale(0, manager="keda")
    assert stop(kept, "next").write is None
    assert start(kept, only_windows=True).after == 3


def test_what_was_saved_on_the_autoscaler_helps_where_the_workload_has_nothing() -> None:
    """And never against a person's later change."""
    kept = keep("statefulset", replicas=0)
    fallback = SavedState({"replicas": 3}, WINDOW, AT)
    assert plan_start(kept, fallback=fallback).after == 3
    assert plan_start(kept, fallback=fallback, only_windows=True).after == 3
    by_hand = SavedState({"replicas": 3}, "20260101T000000Z", AT)
    assert plan_start(kept, fallback=by_hand, only_windows=True).stopper == by_hand
    stopped = keep("statefulset", replicas=2)
    stop(stopped)
    assert plan_start(stopped, fallback=fallback).after == 2
    stopped.scale(9)
    stopped.scale(0)
    assert plan_start(stopped, fallback=fallback, leave_unsaved=True).is_left


def test_nothing_to_save_before_an_autoscaler_is_paused() -> None:
    """Where it is stopped, or has ended."""
    for kept in (keep("statefulset", replicas=0), KeptObject(load_object("workloads", "ended-job"))):
        change = stop_start.plan_save(kept.workload, run_id="r", now=AT)
        assert (change.write, change.reason) == (None, "there is nothing to save before an autoscaler is paused")
        assert change.before == change.after


def test_kinds_that_are_not_stopped() -> None:
    """A DaemonSet has no number; a Job that has ended runs nothing."""
    daemon = KeptObject(load_object("workloads", "daemonset"))
    with pytest.raises(Refusal, match="DaemonSet n/daemonset: a DaemonSet has no number of replicas"):
        stop(daemon)
    with pytest.raises(Refusal, match="no number of replicas"):
        stop_start.plan_save(daemon.workload, run_id="r", now=AT)
    assert plan_start(daemon) == Change(None, 4, 4, "it is never stopped")
    ended = KeptObject(load_object("workloads", "ended-job"))
    assert stop(ended) == plan_start(ended) == Change(None, 0, 0, "it has ended")
    ended.change({"status": {"conditions": [{"type": "Complete", "status": "False"}]}})
    assert plan_stop(ended).before == 3
    ended.change({"status": {"conditions": [{"type": "Failed", "status": "True"}]}})
    assert plan_stop(ended).write is None


def test_several_operations_on_one_object() -> None:
    """A stop and its start leave what another operation has saved."""
    kept = keep("statefulset")
    rollout = SavedState({"revision": "5"}, WINDOW, AT, 1, "rollout")
    kept.change({"metadata": {"annotations": save_state({}, STOPPED, rollout)}})
    assert plan_start(kept) == Change(None, 3, 3, "it is running")
    stop(kept)
    assert find_state(kept.annotations, STOPPED, "rollout") == rollout
    assert start(kept).after == 3
    assert find_state(kept.annotations, STOPPED, "rollout") == rollout
    assert read_saved(kept) is None


@pytest.mark.parametrize("name", ["statefulset", "cronjob"])
def test_a_write_is_conditional_on_what_was_decided_about(name: str) -> None:
    """Another client's number, or another run's saved state, in between is a conflict; another change is none."""
    kept = keep(name)
    rival: Json = {"spec": {"suspend": True} if name == "cronjob" else {"replicas": 7}}
    saved = {"metadata": {"annotations": save_state({}, STOPPED, SavedState({"replicas": 1}, "rival", AT))}}
    for prepare in (lambda: None, lambda: stop(kept)):
        prepare()
        change = plan_start(kept) if kept.workload.is_stopped else plan_stop(kept)
        assert change.write is not None
        operations = build_json_patch(kept.obj, change.write)
        before = kept.obj
        for other in (saved, {"spec": {"suspend": False, "replicas": 7}} if kept.workload.is_stopped else rival):
            kept.change(other)
            with pytest.raises(Rejected):
                kept.send(operations)
            kept.obj = before
        kept.change({"metadata": {"labels": {"a": "b"}}})
        kept.send(operations)
        assert kept.workload.replicas == change.after
        kept.obj = before


DELETES = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}
CLAIMS = {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}


@pytest.mark.parametrize(
    ("extra", "reversible"), [({}, True), (DELETES, True), (CLAIMS, True), ({**DELETES, **CLAIMS}, False)]
)
def test_a_stop_that_will_delete_claims_is_not_reversible(extra: Json, reversible: bool) -> None:
    """Also where an autoscaler was faster; a start never lowers what runs."""
    kept = keep("statefulset")
    kept.change({"spec": extra})
    first = kept.workload
    assert plan_stop(kept).reversible is reversible
    assert (plan_start(kept, replicas=2).write, plan_start(kept, replicas=2).after) == (None, 3)
    assert plan_start(kept, replicas=3).reversible
    assert plan_start(kept, replicas=4).reversible
    kept.scale(0, manager="keda")
    assert plan_stop(kept, first=first).reversible is reversible
    assert plan_stop(kept).reversible
    assert plan_start(kept, replicas=4).reversible


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("statefulset", "replicas 3 -> 0"),
        ("cronjob", "suspend false -> true"),
        ("job", "suspend false -> true, which ends its pods: their work begins anew after the start"),
    ],
)
def test_the_words_of_a_plan_are_those_of_the_field(name: str, words: str) -> None:
    """Of a Job also what is lost, which no start brings back."""
    kept = keep(name)
    assert stop(kept).what == words
    assert plan_start(kept).what == ("replicas 0 -> 3" if name == "statefulset" else "suspend true -> false")
