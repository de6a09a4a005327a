# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop, then start, gives back what there was, whatever happened in between; and a note is never invented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import parse, stopping

Json = dict[str, Any]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2: what the server makes of a merge patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def obj(replicas: int | None, annotations: Json | None = None) -> Json:
    """A StatefulSet."""
    return {"metadata": {"name": "w", "namespace": "n", "annotations": annotations}, "spec": {"replicas": replicas}}


def view(one: Json, kind: str = "StatefulSet") -> parse.Workload:
    """Its view."""
    return parse.workload(one, kind)


def stop(one: Json, kind: str = "StatefulSet") -> Json:
    """The object after a stop."""
    change = stopping.stop(view(one, kind), run="r", at="2026-01-01T00:00:00Z")
    return one if change.body is None else dict(merged(one, change.body))


def start(one: Json, kind: str = "StatefulSet", replicas: int | None = None) -> Json:
    """The object after a start."""
    change = stopping.start(view(one, kind), replicas=replicas)
    return one if change.body is None else dict(merged(one, change.body))


@given(
    st.none() | st.integers(1, 1000),
    st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=3)),
    st.integers(1, 3),
)
def test_start_undoes_stop(replicas: int | None, annotations: dict[str, str], stops: int) -> None:
    """Also when it is stopped several times, by reruns."""
    before = obj(replicas, annotations)
    after = before
    for _number in range(stops):
        after = stop(after)
        assert after["spec"]["replicas"] == 0
    restored = start(after)
    assert restored["spec"]["replicas"] == (replicas or 1)
    assert restored["metadata"]["annotations"] == annotations
    assert start(restored) == restored


@pytest.mark.parametrize("suspended", [True, False])
def test_cron_job(suspended: bool) -> None:
    """Suspended and resumed; one that was suspended before stays without a note."""
    one: Json = {"metadata": {"name": "c", "namespace": "n"}, "spec": {"suspend": suspended}}
    stopped = stop(one, "CronJob")
    assert stopped["spec"]["suspend"] is True
    assert (stopped == one) is suspended
    assert start(stopped, "CronJob")["spec"]["suspend"] is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "null",
        "{",
        "[]",
        '{"format": 2, "replicas": 3}',
        '{"replicas": 3}',
        '{"format": 1}',
        '{"format": 1, "replicas": 0}',
        '{"format": 1, "replicas": "3"}',
        '{"format": 1, "replicas": true}',
        '{"format": 1, "replicas": -1}',
        '{"format": 1, "replicas": null}',
    ],
)
def test_no_usable_note_is_a_refusal_unless_replicas_are_given(text: str) -> None:
    """No number is ever made of it."""
    one = obj(0, {parse.STOPPED: text})
    with pytest.raises(Refusal, match="Give replicas"):
        start(one)
    given_number = start(one, replicas=2)
    assert given_number["spec"]["replicas"] == 2
    assert given_number["metadata"]["annotations"] == {}
    assert stop(one) == one
    assert "problem" in stopping.described(view(one))


def test_zero_without_a_note_is_a_refusal() -> None:
    """Somebody else stopped it."""
    with pytest.raises(Refusal, match="no note of how many"):
        start(obj(0))
    assert stop(obj(0)) == obj(0)


@pytest.mark.parametrize("kind", ["StatefulSet", "CronJob"])
def test_what_nothing_was_saved_on_is_left_where_asked(kind: str) -> None:
    """Not started, unless replicas are given; what was saved on is started as ever."""
    unsaved: Json = {"metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": 0, "suspend": True}}
    left = stopping.start(view(unsaved, kind), replicas=None, leave_unsaved=True)
    assert (left.body, left.is_left, left.after) == (None, True, 0)
    assert not stopping.start(view(unsaved, kind), replicas=2, leave_unsaved=True).is_left
    saved = stop({"metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": 3, "suspend": False}}, kind)
    started = stopping.start(view(saved, kind), replicas=None, leave_unsaved=True)
    assert (started.is_left, started.body is not None) == (False, True)


def stopped_by(run: str, kind: str, replicas: int = 3) -> parse.Workload:
    """A workload that this run has stopped."""
    running: Json = {"metadata": {"name": "w", "namespace": "n"}, "spec": {"replicas": replicas, "suspend": False}}
    body = stopping.stop(view(running, kind), run=run, at="2026-01-01T00:00:00Z").body
    return view(dict(merged(running, body)), kind)


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment", "CronJob"])
@pytest.mark.parametrize("replicas", [None, 2])
def test_what_an_operator_stopped_is_left_by_a_window(kind: str, replicas: int | None) -> None:
    """Whatever number the site gives; what a window stopped, what runs, and any stop outside a window are as ever."""
    by_hand, by_window = stopped_by("20260101T000000Z", kind), stopped_by("weekly@2026-01-01", kind)
    left = stopping.start(by_hand, replicas=replicas, only_of_windows=True)
    assert (left.body, left.is_left, left.after) == (None, True, 0)
    assert left.why == "it is stopped by run 20260101T000000Z since 2026-01-01T00:00:00Z, not by a window"
    assert left.stopper is not None
    assert left.stopper.run == "20260101T000000Z"
    assert not stopping.start(by_hand, replicas=replicas).is_left
    started = stopping.start(by_window, replicas=replicas, only_of_windows=True)
    assert (started.is_left, started.after) == (False, 1 if kind == "CronJob" else replicas or 3)
    # The predicted stop of a window does not take what is stopped already.
    assert stopping.start(by_hand, replicas=replicas, assume_stopped=True, only_of_windows=True).is_left


def test_stale_note_is_dropped_or_replaced() -> None:
    """Started by somebody else meanwhile: running drops the note, the next stop writes a new one."""
    stopped = stop(obj(3))
    by_hand = merged(stopped, {"spec": {"replicas": 5}})
    assert stopping.described(view(by_hand))["stale_note"]["replicas"] == 3
    running = start(by_hand)
    assert (running["spec"]["replicas"], running["metadata"]["annotations"]) == (5, {})
    assert start(stop(by_hand))["spec"]["replicas"] == 5


def test_assumed_stop_predicts_the_start_and_its_patch_is_that_of_one_from_zero() -> None:
    """Of what is there now, or of what is given."""
    assert (
        stopping.start(view(obj(4)), replicas=None, assume_stopped=True).before,
        stopping.start(view(obj(4)), replicas=None, assume_stopped=True).after,
    ) == (0, 4)
    assert stopping.start(view(obj(4)), replicas=6, assume_stopped=True).after == 6


@pytest.mark.parametrize("paused", [None, "2"])
def test_keda_is_released_as_it_was(paused: str | None) -> None:
    """Also when somebody had paused it at another number."""
    one: Json = {"metadata": {"name": "s", "annotations": {stopping.PAUSED: paused} if paused else {}}, "spec": {}}
    body = stopping.freeze(parse.scaled_object(one), run="r", at="t")
    frozen = merged(one, body)
    assert frozen["metadata"]["annotations"][stopping.PAUSED] == "0"
    assert stopping.freeze(parse.scaled_object(frozen), run="r", at="t") is None
    assert merged(frozen, stopping.unfreeze(parse.scaled_object(frozen))) == one
    assert stopping.unfreeze(parse.scaled_object(one)) is None


@pytest.mark.parametrize(("run", "released"), [("20260101T000000Z", False), ("weekly@2026-01-01", True)])
def test_keda_that_an_operator_paused_stays_paused_in_a_window(run: str, released: bool) -> None:
    """Else KEDA would start what the operator stopped."""
    one: Json = {"metadata": {"name": "s"}, "spec": {}}
    frozen = parse.scaled_object(merged(one, stopping.freeze(parse.scaled_object(one), run=run, at="t")))
    assert (stopping.unfreeze(frozen, only_of_windows=True) is not None) is released
    assert stopping.unfreeze(frozen) is not None
