# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an HPA needs to be as declared, what is saved on it meanwhile, and what it gets back."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.autoscaler import (
    Declared,
    FieldChange,
    HpaChange,
    check_bounds,
    covers,
    describe_change,
    describe_metric,
    parse_declared,
    plan_present,
    plan_takeback,
    summarize_autoscaler,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.quantities import (
    canonicalize_quantity,
    parse_quantity,
)
from support.memory_objects import apply_operations

Json = dict[str, Any]
NOTHING: Json = {
    "min_replicas": None,
    "max_replicas": None,
    "metrics": None,
    "behavior": None,
    "scale_down_utilisation": None,
    "until": None,
    "save_before": False,
}
CPU: Json = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
DEFAULTS: Json = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max"},
    "scaleDown": {"stabilizationWindowSeconds": 300, "selectPolicy": "Max"},
}
HPA: Json = {
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "h", "namespace": "n", "uid": "u"},
    "spec": {"minReplicas": 2, "maxReplicas": 8, "metrics": [CPU]},
}
BEFORE = "lowtide.ops/autoscaler-before"
END = "2030-01-01T00:00:00Z"


def declare(**options: Any) -> Declared:
    """Return what options declare."""
    return parse_declared({**NOTHING, **options})


def present(hpa: Json, **options: Any) -> HpaChange:
    """Plan a declaration."""
    return plan_present(hpa, declare(**options), run_id="r", now="2029-01-01T00:00:00Z")


def apply(hpa: Json, change: HpaChange) -> Json:
    """Return the HPA after a change, as the server carries its patch out."""
    if change.write is None:
        return hpa
    return apply_operations(copy.deepcopy(hpa), build_json_patch(hpa, change.write))


def test_only_what_differs_is_written() -> None:
    """What is not declared, and what is so already, stays."""
    change = present(HPA, min_replicas=2, max_replicas=9, metrics=[CPU])
    assert change.fields == (FieldChange("maxReplicas", 8, 9),)
    after = apply(HPA, change)
    assert after["spec"] == {**HPA["spec"], "maxReplicas": 9}
    assert present(after, min_replicas=2, max_replicas=9, metrics=[CPU]).write is None


def test_a_part_of_the_behavior_leaves_the_rest() -> None:
    """Defaults that the server has set beside it do not count as a difference."""
    hpa = {**HPA, "spec": {**HPA["spec"], "behavior": DEFAULTS}}
    declared = {"scaleDown": {"stabilizationWindowSeconds": "600"}}
    change = present(hpa, behavior=declared)
    assert [describe_change(field) for field in change.fields] == [
        "behavior scaleDown.stabilizationWindowSeconds 300 -> 600"
    ]
    after = apply(hpa, change)
    assert after["spec"]["behavior"]["scaleUp"] == DEFAULTS["scaleUp"]
    assert present(after, behavior=declared).write is None


def test_amounts_are_compared_as_amounts() -> None:
    """The server writes 0.5 as 500m."""
    external: Json = {
        "type": "External",
        "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "500m"}},
    }
    hpa: Json = {**HPA, "spec": {**HPA["spec"], "metrics": [external]}}
    written = copy.deepcopy(external)
    written["external"]["target"]["value"] = 0.5
    assert present(hpa, metrics=[written]).write is None
    assert describe_metric(external) == "External q value 500m"
    assert describe_metric(CPU) == "cpu 80 %"


@pytest.mark.procedure("E11")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale_down_utilisation": 30}, "it is 30, and an HPA has no separate threshold.*stabilizationWindowSeconds"),
        ({"min_replicas": 0}, "option min_replicas: it is 0"),
        ({"metrics": []}, "it is empty, for which the server sets 80 %"),
        ({"metrics": [{"type": "CPU"}]}, "option metrics, entry 1: its type is 'CPU'"),
        ({"metrics": [{"type": "Resource", "resource": {"name": "cpu"}}]}, "its resource.target is None"),
        (
            {"metrics": [{"type": "Pods", "pods": {"target": {"type": "AverageValue", "averageValue": "many"}}}]},
            "its pods.target.averageValue is 'many'",
        ),
        ({"behavior": {"scaledown": {}}}, "option behavior: it has scaledown"),
        ({"behavior": {"scaleDown": {"utilization": 30}}}, "option behavior.scaleDown: it is"),
        ({"behavior": {"scaleUp": {"tolerance": "some"}}}, "its tolerance is 'some'"),
        ({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 7200}}}, "it is 7200 s"),
        ({"behavior": {"scaleUp": {"policies": [{"type": "Pod", "value": 1}]}}}, "an entry of it is"),
        ({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1}]}}}, "periodSeconds: it is None"),
    ],
)
def test_what_an_hpa_does_not_have_is_refused(options: Json, words: str) -> None:
    """By the option's name, with what to write instead."""
    with pytest.raises(Refusal, match=words):
        declare(**options)


def test_bounds_that_cross_are_refused_with_the_value_that_stays() -> None:
    """Only one of them is declared."""
    with pytest.raises(Refusal, match="minReplicas would be 9 and its maxReplicas 8"):
        present(HPA, min_replicas=9)


def test_a_change_for_a_time_is_given_back_exactly() -> None:
    """Each field that it has replaced, also where it was not there before; nothing is left of it."""
    behavior = {"scaleDown": {"selectPolicy": "Disabled"}}
    change = present(HPA, min_replicas=4, behavior=behavior, until=END)
    during = apply(HPA, change)
    assert during["spec"]["minReplicas"] == 4
    assert present(during, min_replicas=4, behavior=behavior, until=END).write is None
    assert plan_takeback(during, due_at=0.0).write is None
    assert plan_takeback(during, due_at=0.0).why == f"its temporary change ends at {END}"
    for due_at in (None, 4e9):
        after = apply(during, plan_takeback(during, due_at=due_at))
        assert {**after, "metadata": {**after["metadata"], "annotations": {}}} == {
            **HPA,
            "metadata": {**HPA["metadata"], "annotations": {}},
        }
        assert BEFORE not in after["metadata"]["annotations"]
        assert plan_takeback(after, due_at=None).write is None


def test_what_another_client_has_changed_since_stays() -> None:
    """And is named."""
    during = apply(HPA, present(HPA, min_replicas=4, max_replicas=12, save_before=True))
    during["spec"]["maxReplicas"] = 20
    change = plan_takeback(during, due_at=None)
    after = apply(during, change)
    assert (after["spec"]["minReplicas"], after["spec"]["maxReplicas"], change.left) == (2, 20, ("maxReplicas",))


def test_a_second_change_for_a_time_keeps_what_was_there_first() -> None:
    """Also with another end."""
    first = apply(HPA, present(HPA, min_replicas=4, until=END))
    second = apply(first, present(first, min_replicas=6, until="2031-01-01T00:00:00Z"))
    assert plan_takeback(second, due_at=1.9e9).write is None
    assert apply(second, plan_takeback(second, due_at=None))["spec"] == HPA["spec"]
    moved = present(first, min_replicas=4, until="2031-01-01T00:00:00Z")
    assert (moved.fields, moved.write is not None) == ((), True)


def test_what_is_declared_for_good_is_not_given_back() -> None:
    """Other fields of the change for a time still are."""
    during = apply(HPA, present(HPA, min_replicas=4, max_replicas=12, save_before=True))
    settled = apply(during, present(during, min_replicas=4))
    after = apply(settled, plan_takeback(settled, due_at=None))
    assert (after["spec"]["minReplicas"], after["spec"]["maxReplicas"]) == (4, 8)


def test_bounds_declared_for_good_drop_what_a_scaling_had_saved() -> None:
    """A later restore of pinned bounds must not undo a declaration."""
    annotations = {"lowtide.ops/bounds-before": '{"format": 1, "run": "r", "at": "t", "min": 1, "max": 3}'}
    pinned: Json = {**HPA, "metadata": {**HPA["metadata"], "annotations": annotations}}
    assert apply(pinned, present(pinned, max_replicas=9))["metadata"]["annotations"] == {}
    assert (
        "lowtide.ops/bounds-before"
        in apply(pinned, present(pinned, max_replicas=9, until=END))["metadata"]["annotations"]
    )


def test_a_window_gives_back_what_windows_have_changed() -> None:
    """What a person has changed for a time stays, and is named."""
    by_hand = apply(HPA, present(HPA, min_replicas=4, until=END))
    left = plan_takeback(by_hand, due_at=None, only_windows=True)
    assert (left.write, left.why) == (None, "run r, which is no window, changed it for a time at 2029-01-01T00:00:00Z")
    change = plan_present(HPA, declare(min_replicas=4, save_before=True), run_id="night@2029-01-01", now="t")
    by_window = apply(HPA, change)
    assert apply(by_window, plan_takeback(by_window, due_at=None, only_windows=True))["spec"] == HPA["spec"]


def test_what_was_saved_and_cannot_be_read_is_refused() -> None:
    """With the annotation to remove."""
    broken = {**HPA, "metadata": {**HPA["metadata"], "annotations": {BEFORE: "{"}}}
    with pytest.raises(Refusal, match=f"annotation {BEFORE} is not JSON"):
        plan_takeback(broken, due_at=None)


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (0.5, "500m"),
        ("1000m", "1"),
        (2000, "2k"),
        ("1500", "1500"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("512Ki", "512Ki"),
        ("0.5Ki", "512"),
        ("100u", "100u"),
        ("0", "0"),
    ],
)
def test_quantities_are_written_as_the_server_writes_them(value: Any, canonical: str) -> None:
    """As kubectl shows them after a create with the value."""
    assert canonicalize_quantity(value) == canonical


@given(st.integers(0, 10**9), st.sampled_from(["n", "u", "m", "", "k", "M", "Ki", "Mi", "Gi"]))
def test_the_canonical_form_is_the_same_amount(number: int, suffix: str) -> None:
    """And its own canonical form."""
    text = f"{number}{suffix}"
    canonical = canonicalize_quantity(text)
    assert parse_quantity(canonical) == parse_quantity(text)
    assert canonicalize_quantity(canonical) == canonical


def test_covering_is_by_what_is_declared() -> None:
    """Lists are whole."""
    assert covers({"a": 1, "b": 2}, {"a": 1})
    assert not covers({"a": 1}, {"a": 2})
    assert not covers(None, {"a": 1})
    assert not covers([1, 2], [1])


def test_metrics_are_matched_by_their_source() -> None:
    """Servers before 1.28 keep them in an order of their own."""
    queue, lag = (
        {"type": "External", "external": {"metric": {"name": name}, "target": {"type": "Value", "value": "5"}}}
        for name in ("queue", "lag")
    )
    declared: list[Json] = [queue, CPU, lag]
    for order in itertools.permutations(declared):
        assert covers(list(order), declared)
        assert present({**HPA, "spec": {**HPA["spec"], "metrics": list(order)}}, metrics=declared).write is None
    changed: Json = copy.deepcopy(lag)
    changed["external"]["target"]["value"] = "6"
    assert not covers([changed, queue, CPU], declared)
    assert not covers([queue, queue, CPU], declared)
    policies: list[Json] = [{"type": "Pods", "value": 1}, {"type": "Percent", "value": 2}]
    assert not covers(policies, policies[::-1])


@pytest.mark.parametrize("tolerance", ["0.05", 0.05, "50m"])
def test_a_tolerance_is_compared_as_an_amount(tolerance: Any) -> None:
    """The server writes 0.05 as 50m."""
    hpa: Json = {**HPA, "spec": {**HPA["spec"], "behavior": {"scaleUp": {"tolerance": "50m"}}}}
    assert present(hpa, behavior={"scaleUp": {"tolerance": tolerance}}).write is None


def test_summaries() -> None:
    """One line each for what was made, changed, given back, left."""
    title = "HorizontalPodAutoscaler n/h"

    def summarize(change: HpaChange, **options: Any) -> str:
        facts: Json = {"bounds": (2, 8), "is_new": False, "check_mode": False, "done": True}
        return summarize_autoscaler(title, change, **{**facts, **options})

    change = present(HPA, min_replicas=4, until=END)
    assert summarize(HpaChange(None), is_new=True) == f"made {title} (2 to 8 replicas)"
    assert summarize(HpaChange(None), is_new=True, check_mode=True) == f"would make {title} (2 to 8 replicas)"
    assert summarize(change) == f"set minReplicas 2 -> 4 of {title} (declared, until {END})"
    assert summarize(change, check_mode=True) == f"would set minReplicas 2 -> 4 of {title} (declared, until {END})"
    assert summarize(change, done=False) == f"{title} is not in force yet: minReplicas 2 -> 4 (declared, until {END})"
    assert summarize(HpaChange(None)) == f"{title} is unchanged (as declared)"
    assert (
        summarize(HpaChange(None, why="nothing was saved on it")) == f"{title} is unchanged (nothing was saved on it)"
    )


@pytest.mark.parametrize(
    ("values", "is_fitting"),
    [
        ({"maxReplicas": 1}, True),
        ({"minReplicas": 1}, True),
        ({"minReplicas": 2}, False),
        ({"minReplicas": 3, "maxReplicas": 3}, True),
        ({"minReplicas": 4, "maxReplicas": 3}, False),
    ],
)
def test_a_minimum_is_at_most_the_maximum(values: Json, is_fitting: bool) -> None:
    """Each is 1 where it is not set, as the server has it."""
    if is_fitting:
        check_bounds(values, "HPA n/h")
    else:
        with pytest.raises(Refusal, match="HPA n/h: its minReplicas would be"):
            check_bounds(values, "HPA n/h")
