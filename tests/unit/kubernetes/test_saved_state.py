# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is saved in annotations is read back, in both formats, and loses against what a person changed later."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import saved_state
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import (
    BOUNDS,
    BOUNDS_BEFORE,
    PAUSE,
    PAUSED_BY,
    STOP,
    STOPPED,
    FieldOwner,
    SavedState,
    SavedStop,
    UnreadableSavedState,
)

Json = dict[str, Any]
AT = "2026-01-01T00:00:00Z"

states = st.builds(
    SavedState,
    spec=st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=3)),
    run_id=st.text(max_size=8),
    at=st.just(AT),
    generation=st.integers(0, 10**9),
    operation=st.sampled_from([STOP, BOUNDS, PAUSE, "rollout"]),
)


@given(st.lists(states, max_size=6), st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=3)))
def test_what_is_saved_is_read_back(saved: list[SavedState], annotations: dict[str, str]) -> None:
    """The newest of each operation, in the order in which they came; other annotations are none of it."""
    expected: dict[str, SavedState] = {}
    known: Json = dict(annotations)
    for state in saved:
        change = saved_state.save_state(known, STOPPED, state)
        assert list(change) == [STOPPED]
        known.update(change)
        expected.pop(state.operation, None)
        expected[state.operation] = state
    assert saved_state.read_states(known, STOPPED) == list(expected.values())
    for operation, state in expected.items():
        assert saved_state.find_state(known, STOPPED, operation) == state
        left = known | saved_state.drop_state(known, STOPPED, operation)
        rest = [other for other in expected.values() if other.operation != operation]
        assert (left[STOPPED] is None) is (rest == [])
        assert saved_state.read_states(left, STOPPED) == rest
    assert saved_state.find_state(known, STOPPED, "nothing like it") is None
    assert saved_state.read_states(known, BOUNDS_BEFORE) == []


def test_format_2() -> None:
    """The text is for other releases, and for people with kubectl."""
    state = SavedState({"replicas": 3}, "weekly@2026-01-01", AT, 7)
    text = saved_state.save_state({}, STOPPED, state)[STOPPED]
    assert text == (
        '{"format": 2, "operations": [{"at": "2026-01-01T00:00:00Z", "generation": 7, "operation": "stop",'
        ' "run": "weekly@2026-01-01", "spec": {"replicas": 3}}]}'
    )
    assert (STOPPED, BOUNDS_BEFORE, PAUSED_BY) == (
        "lowtide.ops/stopped",
        "lowtide.ops/bounds-before",
        "lowtide.ops/paused-by",
    )
    assert (STOP, BOUNDS, PAUSE) == ("stop", "bounds", "pause")
    sparse = json.dumps({"format": 2, "operations": [{"operation": "stop", "spec": {}, "generation": None}]})
    assert saved_state.read_states({STOPPED: sparse}, STOPPED) == [SavedState({}, "", "", 0, STOP)]


@pytest.mark.parametrize(
    ("key", "values", "operation"),
    [
        (STOPPED, {"replicas": 3}, STOP),
        (STOPPED, {"suspend": False}, STOP),
        (STOPPED, {"paused": None}, PAUSE),
        (STOPPED, {"paused": "2"}, PAUSE),
        (BOUNDS_BEFORE, {"min": None, "max": 9}, BOUNDS),
        (PAUSED_BY, {}, PAUSE),
        ("lowtide.ops/other", {}, STOP),
    ],
)
def test_format_1_is_read(key: str, values: Json, operation: str) -> None:
    """It held one operation, which its key told, and knew no generation."""
    text = json.dumps({"format": 1, "run": "r", "at": AT, **values})
    assert saved_state.read_states({key: text}, key) == [SavedState(values, "r", AT, 0, operation)]
    bare = json.dumps({"format": 1, **values})
    assert saved_state.read_states({key: bare}, key) == [SavedState(values, "", "", 0, operation)]
    assert saved_state.drop_state({key: text}, key, operation) == {key: None}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON: ''"),
        ("{", "is not JSON: '{'"),
        (3, "is not JSON: 3"),
        ("3", "is not of format 1 or 2: '3'"),
        ("null", "is not of format 1 or 2: 'null'"),
        ("[]", "is not of format 1 or 2"),
        ('{"replicas": 3}', "is not of format 1 or 2"),
        ('{"format": 3, "operations": []}', "is not of format 1 or 2"),
        ('{"format": 2}', "is not of format 1 or 2"),
        ('{"format": 2, "operations": {}}', "is not of format 1 or 2"),
        ('{"format": 2, "operations": [3]}', "an operation that is not understood"),
        ('{"format": 2, "operations": [{"operation": "stop"}]}', "an operation that is not understood"),
        ('{"format": 2, "operations": [{"operation": "stop", "spec": 3}]}', "an operation that is not understood"),
        ('{"format": 2, "operations": [{"spec": {}}]}', "an operation that is not understood"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_can_be_replaced_and_dropped(text: Any, problem: str) -> None:
    """Its text is in the message, and its key."""
    annotations = {STOPPED: text, "a": "b"}
    with pytest.raises(UnreadableSavedState, match=r"annotation lowtide\.ops/stopped") as caught:
        saved_state.read_states(annotations, STOPPED)
    assert problem in str(caught.value)
    state = SavedState({"replicas": 1}, "r", AT)
    replaced = annotations | saved_state.save_state(annotations, STOPPED, state)
    assert saved_state.read_states(replaced, STOPPED) == [state]
    assert saved_state.drop_state(annotations, STOPPED, STOP) == {STOPPED: None}


def test_where_nothing_is_saved_nothing_is_dropped() -> None:
    """A patch that removes what is not there would still be a write."""
    assert saved_state.drop_state({"a": "b"}, STOPPED, STOP) == {}


@pytest.mark.parametrize(
    ("spec", "replicas"),
    [
        ({"replicas": 3}, 3),
        ({"replicas": 0}, 0),
        ({"replicas": -1}, None),
        ({"replicas": "3"}, None),
        ({"replicas": True}, None),
        ({"replicas": None}, None),
        ({}, None),
        ({"suspend": False}, 1),
        ({"suspend": True}, 0),
        ({"suspend": "false"}, None),
    ],
)
def test_saved_replicas(spec: Json, replicas: int | None) -> None:
    """Anything that is no number is none."""
    assert SavedState(spec, "r", AT).replicas == replicas


def test_whose_it_is() -> None:
    """A window's run has its occurrence as a name; every release writes under the same manager."""
    assert SavedState({}, "weekly@2026-01-01", AT).is_of_window
    assert not SavedState({}, "20260101T000000Z", AT).is_of_window
    managers = ["lowtide.ops", "lowtide.ops/20260101T000000Z", "lowtide.opsx", "kubectl", ""]
    assert [saved_state.is_own_manager(manager) for manager in managers] == [True, True, False, False, False]
    assert saved_state.MANAGER == "lowtide.ops"


def owned(*managers: str, field: str = "replicas", operation: str = "Update") -> list[Json]:
    """The managedFields of an object whose field these managers own together."""
    return [
        {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {f"f:{field}": {}}}} for manager in managers
    ]


def test_owners_of_a_field() -> None:
    """All of them, with what they did; none is not the same as not known."""
    entries = [*owned("a"), *owned("b", operation="Apply"), *owned("c", field="paused"), {"manager": "d"}]
    obj = {"metadata": {"managedFields": entries}}
    assert saved_state.find_owners(obj, "spec", "replicas") == [FieldOwner("a", "Update"), FieldOwner("b", "Apply")]
    assert saved_state.find_owners(obj, "spec", "replicas", "deeper") == []
    assert saved_state.find_owners(obj, "spec", "suspend") == []
    unknown: list[Json] = [{}, {"metadata": None}, {"metadata": {"managedFields": []}}]
    assert [saved_state.find_owners(other, "spec", "replicas") for other in unknown] == [None, None, None]
    key = "autoscaling.keda.sh/paused-replicas"
    fields: Json = {"f:metadata": {"f:annotations": {".": {}, f"f:{key}": {}}}}
    annotated = {"metadata": {"managedFields": [{"fieldsV1": fields}]}}
    assert saved_state.find_owners(annotated, "metadata", "annotations", key) == [FieldOwner("", "")]


def stopped(kind: str = "StatefulSet", generation: int = 5, *managers: str, annotation: str | None = None) -> Workload:
    """A workload at 0, or suspended, whose field these managers own."""
    field = "suspend" if kind in ("CronJob", "Job") else "replicas"
    meta: Json = {"name": "w", "namespace": "n", "generation": generation, "annotations": {STOPPED: annotation}}
    meta["managedFields"] = owned(*managers, field=field)
    return Workload.from_object({"kind": kind, "metadata": meta, "spec": {"replicas": 0, "suspend": True}})


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment", "CronJob", "Job"])
@pytest.mark.parametrize(
    ("saved", "now", "managers", "current"),
    [
        (5, 5, ["kubectl"], True),
        (5, 5, [], True),
        (5, 6, ["lowtide.ops"], True),
        (5, 6, ["kubectl", "lowtide.ops"], True),
        (5, 6, ["keda"], True),
        (5, 6, ["kube-controller-manager"], True),
        (5, 6, ["kubectl"], False),
        (5, 6, ["argocd-controller"], False),
        (6, 5, ["kubectl"], False),
        (5, 6, [], False),
        (0, 6, ["lowtide.ops/20260101T000000Z"], True),
        (0, 6, ["kubectl"], False),
        (0, 0, ["kubectl"], False),
        (0, 6, [], True),
    ],
)
def test_a_later_change_of_the_field_wins(kind: str, saved: int, now: int, managers: list[str], current: bool) -> None:
    """A later generation alone does not, if the field is still ours; and of format 1 no generation is known."""
    state = SavedState({"replicas": 2}, "r", AT, saved)
    assert saved_state.is_current(state, stopped(kind, now, *managers)) is current


@pytest.mark.parametrize(("runs", "current"), [(["r"], True), (["other"], False), ([], False), (None, False)])
def test_a_zero_without_an_owner_is_kedas_while_the_runs_pause_is_there(runs: list[str] | None, current: bool) -> None:
    """A scale to 0 by the subresource leaves the field without an owner, and makes another generation."""
    state = SavedState({"replicas": 2}, "r", AT, 5)
    assert saved_state.is_current(state, stopped("StatefulSet", 6), pausing_runs=runs) is current


def encode(state: SavedState) -> str:
    """The annotation's text."""
    return str(saved_state.save_state({}, STOPPED, state)[STOPPED])


def test_what_a_stop_saved() -> None:
    """Good while it is stopped and nobody else changed it; "it was at 0" is good as long as it is at 0."""
    two, zero = SavedState({"replicas": 2}, "r", AT, 5), SavedState({"replicas": 0}, "r", AT, 5)
    assert saved_state.read_stop(stopped(annotation=encode(two))) == SavedStop(state=two)
    later = stopped("StatefulSet", 7, "kubectl", annotation=encode(two))
    assert saved_state.read_stop(later) == SavedStop(stale=two)
    assert saved_state.read_stop(stopped("StatefulSet", 7, "kubectl", annotation=encode(zero))) == SavedStop(state=zero)
    for state in (two, zero):
        running = stopped(annotation=encode(state))._replace(replicas=1)
        assert saved_state.read_stop(running) == SavedStop(stale=state)
    assert saved_state.read_stop(stopped()) == SavedStop()
    other = encode(SavedState({"replicas": 2}, "r", AT, 5, "rollout"))
    assert saved_state.read_stop(stopped(annotation=other)) == SavedStop()


def test_what_a_stop_saved_and_cannot_be_used() -> None:
    """The problem names the annotation and what is in it."""
    unusable = saved_state.read_stop(stopped(annotation=encode(SavedState({"replicas": None}, "r", AT))))
    assert unusable == SavedStop(
        problem="annotation lowtide.ops/stopped has no usable number of replicas: {'replicas': None}"
    )
    assert saved_state.read_stop(stopped(annotation="3")) == SavedStop(
        problem="annotation lowtide.ops/stopped is not of format 1 or 2: '3'"
    )
