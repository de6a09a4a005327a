# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions to replicas, and the write that a workload needs for them: the invariants hold for every input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans import replicas_from_partitions as scaling
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.replicas_from_partitions import Rule, Target
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.stop_start import plan_stop
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import STOPPED, SavedState, save_state
from support.kept_object import KeptObject, load_object
from support.memory_objects import Rejected

AT = "2026-01-01T00:00:00Z"


def keep(replicas: int = 3) -> KeptObject:
    """A StatefulSet with this number of replicas."""
    obj = load_object("workloads", "statefulset")
    obj["spec"]["replicas"] = replicas
    return KeptObject(obj)


def stop(kept: KeptObject) -> None:
    """Stop it."""
    kept.write(plan_stop(kept.workload, run_id="r", now=AT).write)


def annotate(kept: KeptObject, text: str) -> None:
    """Let another client write our annotation."""
    kept.change({"metadata": {"annotations": {STOPPED: text}}})


counts_of_topics = st.dictionaries(st.text("abc", min_size=1), st.integers(1, 5000), min_size=1, max_size=4)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Every rule whose min_replicas is not above its max_replicas."""
    min_replicas = draw(st.integers(1, 50))
    max_replicas = draw(st.none() | st.integers(min_replicas, 6000))
    return Rule(draw(st.sampled_from(["max", "sum"])), min_replicas, max_replicas, draw(st.booleans()))


@given(counts_of_topics, rules())
def test_never_zero_never_above_the_maximum_never_below_the_minimum(counts: dict[str, int], rule: Rule) -> None:
    """And never more than partitions, unless min_replicas asks for it; or a refusal, where no even divisor fits."""
    try:
        target = scaling.compute_target(counts, rule)
    except Refusal:
        assert rule.even_divisors_only
        return
    assert target.replicas >= max(1, rule.min_replicas)
    assert rule.max_replicas is None or target.replicas <= rule.max_replicas
    assert target.partitions == (sum(counts.values()) if rule.combine == "sum" else max(counts.values()))
    assert target.replicas <= max(target.partitions, rule.min_replicas)


@given(counts_of_topics, rules())
def test_even_divisors_give_each_replica_the_same_share(counts: dict[str, int], rule: Rule) -> None:
    """And no larger one would have been allowed."""
    rule = rule._replace(even_divisors_only=True)
    shares = [sum(counts.values())] if rule.combine == "sum" else list(counts.values())
    limit = min(max(counts.values()) if rule.combine == "max" else shares[0], rule.max_replicas or 10**9)
    fitting = [n for n in range(rule.min_replicas, limit + 1) if all(share % n == 0 for share in shares)]
    if not fitting:
        with pytest.raises(Refusal, match="no even divisor"):
            scaling.compute_target(counts, rule)
        return
    assert scaling.compute_target(counts, rule).replicas == fitting[-1]


@given(st.integers(0, 100), counts_of_topics, st.booleans())
def test_down_only_with_the_option(current: int, counts: dict[str, int], allowed: bool) -> None:
    """Going up is always allowed."""
    target = scaling.compute_target(counts, Rule())
    replicas = scaling.limit_direction(current, target, allow_scale_down=allowed)
    assert replicas == (target.replicas if allowed or target.replicas > current else current)
    assert replicas >= 1


@pytest.mark.parametrize(
    "value", [None, 0, -1, "", "0", " ", "12\r", "1e2", "0x10", "-3", 1.5, True, [], {}, "None", "null", "²", "١٢"]
)
def test_what_is_no_count_is_refused(value: Any) -> None:
    """With the topic and the value."""
    with pytest.raises(Refusal) as caught:
        scaling.check_counts({"events": value}, ["events"])
    assert str(caught.value) == (
        f"topic 'events': its partition count is {'null' if value is None else repr(value)}, which is not a whole number"
        " of at least 1. Check that the topic exists and how its partitions were read; nothing has been scaled."
    )


@given(st.none() | st.booleans() | st.floats() | st.text() | st.integers() | st.lists(st.integers()))
def test_a_count_is_at_least_one_or_a_refusal(value: Any) -> None:
    """Nothing else, whatever comes in."""
    try:
        count = scaling.check_counts({"t": value}, ["t"])["t"]
    except Refusal:
        return
    assert count >= 1
    assert str(count) == str(value).lstrip("0")


@pytest.mark.parametrize(
    ("partitions", "topics", "counts"),
    [
        ({"a": 3, "b": "4"}, [], {"a": 3, "b": 4}),
        ({"a": 3, "b": 4}, ["b"], {"b": 4}),
        (12, [], {"the topic": 12}),
        (1, [], {"the topic": 1}),
        ("12", ["a"], {"a": 12}),
    ],
)
def test_counts_that_are_given(partitions: Any, topics: list[str], counts: dict[str, int]) -> None:
    """A mapping, or one number for one topic."""
    assert scaling.read_given_counts(partitions, topics) == counts


@pytest.mark.parametrize(
    ("partitions", "topics", "message"),
    [
        (
            None,
            ["a"],
            "options partitions and kafka_connection: neither of them is set, so that the number of partitions is not"
            " known. Set partitions, or kafka_connection to read them from Kafka; nothing has been scaled.",
        ),
        (
            12,
            ["a", "b"],
            "option partitions: it is the one value 12 for the 2 topics a, b."
            " Give a mapping of topic to number of partitions.",
        ),
        (0, [], "option partitions: its partition count is 0, which"),
        (0, ["a"], "topic 'a': its partition count is 0, which"),
        ({}, [], "option topics: it names no topic. Name the topics that the workload consumes."),
        ({}, ["a"], "topic 'a': no partition count is known for it; known are none. Correct the name of the topic or"),
        (
            {"c": 1, "b": 1},
            ["a"],
            "topic 'a': no partition count is known for it; known are b, c."
            " Correct the name of the topic or the option partitions; nothing has been scaled.",
        ),
    ],
)
def test_counts_that_are_missing_are_refused(partitions: Any, topics: list[str], message: str) -> None:
    """Neither source is a refusal too."""
    with pytest.raises(Refusal) as caught:
        scaling.read_given_counts(partitions, topics)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("min_replicas", "max_replicas"), [(0, None), (-1, 5), (3, 2), (1, 0)])
def test_bounds_that_make_no_sense_are_refused(min_replicas: int, max_replicas: int | None) -> None:
    """Zero replicas can be reached by no option."""
    with pytest.raises(Refusal) as caught:
        scaling.compute_target({"a": 4}, Rule(min_replicas=min_replicas, max_replicas=max_replicas))
    assert str(caught.value) == (
        f"options min_replicas and max_replicas: min_replicas is {min_replicas} and max_replicas is {max_replicas}."
        " Use 1 <= min_replicas <= max_replicas."
    )


@pytest.mark.parametrize(
    ("counts", "rule", "replicas", "reason"),
    [
        ({"a": 12}, Rule(), 12, "a has 12 partitions"),
        ({"a": 1}, Rule(), 1, "a has 1 partition"),
        ({"a": 2}, Rule(min_replicas=2), 2, "a has 2 partitions"),
        ({"b": 8, "a": 12}, Rule("sum"), 20, "sum of a has 12 partitions, b has 8 partitions"),
        ({"a": 12}, Rule(max_replicas=8), 8, "a has 12 partitions, at most 8 (max_replicas)"),
        ({"a": 12}, Rule(max_replicas=12), 12, "a has 12 partitions"),
        (
            {"a": 12},
            Rule(max_replicas=8, even_divisors_only=True),
            6,
            "a has 12 partitions, at most 8 (max_replicas), largest even divisor of 12",
        ),
        (
            {"a": 12, "b": 8},
            Rule(even_divisors_only=True),
            4,
            "max of a has 12 partitions, b has 8 partitions, largest even divisor of 4",
        ),
        ({"a": 12}, Rule(even_divisors_only=True), 12, "a has 12 partitions"),
        ({"a": 1}, Rule(min_replicas=2), 2, "a has 1 partition, at least 2 (min_replicas)"),
    ],
)
def test_reasons(counts: dict[str, int], rule: Rule, replicas: int, reason: str) -> None:
    """A person reads why it is that number."""
    target = scaling.compute_target(counts, rule)
    assert (target.replicas, target.reason) == (replicas, reason)


def test_no_even_divisor_names_the_topics_and_the_limits() -> None:
    """The one that would be too few is none."""
    with pytest.raises(Refusal) as caught:
        scaling.compute_target({"a": 7, "b": 7}, Rule(min_replicas=2, max_replicas=6, even_divisors_only=True))
    assert str(caught.value) == (
        "topic 'a', topic 'b': no even divisor of 7 lies between min_replicas 2 and 6."
        " Lower min_replicas, raise max_replicas, or set even_divisors_only to false."
    )


def test_what_another_operation_saved_is_none_of_a_scales() -> None:
    """Nothing is written for it."""
    kept = keep(12)
    kept.change({"metadata": {"annotations": save_state({}, STOPPED, SavedState({}, "r", AT, 1, "rollout"))}})
    assert plan_scale(kept).write is None


DELETES_CLAIMS = {
    "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"},
    "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
}
TARGET = Target(12, 12, "a has 12 partitions")


def plan_scale(kept: KeptObject, **options: Any) -> scaling.Scaling:
    """Plan to scale it to 12, never down and never from a stop, unless told otherwise."""
    defaults = {"allow_scale_down": False, "start_stopped": False}
    return scaling.plan_scale(kept.workload, TARGET, **{**defaults, **options})


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(("now", "after"), [(0, 12), (3, 12), (12, 12), (20, 12)])
def test_a_scale(now: int, after: int, allowed: bool) -> None:
    """Also from a 0 that nobody saved: what is declared is a number of replicas."""
    kept = keep(now)
    plan = plan_scale(kept, allow_scale_down=allowed)
    after = after if allowed or now <= after else now
    assert (plan.before, plan.after, plan.reason) == (now, after, TARGET.reason)
    assert (plan.is_left, plan.reversible, plan.write is None) == (False, True, now == after)
    kept.write(plan.write)
    assert kept.spec["replicas"] == after


def test_a_scale_of_a_stopped_workload() -> None:
    """Refused, or it counts as having what it had; its saved state goes."""
    kept = keep(20)
    stop(kept)
    with pytest.raises(Refusal) as caught:
        plan_scale(kept)
    assert str(caught.value) == (
        f"StatefulSet n/statefulset: it was stopped on purpose by run r at {AT}, when it had 20 replicas."
        " Start it with the role startup or k8s_workload, or set start_stopped to true."
    )
    plan = plan_scale(kept, start_stopped=True)
    assert (plan.before, plan.after) == (0, 20)
    kept.write(plan_scale(kept, start_stopped=True, allow_scale_down=True).write)
    assert (kept.spec["replicas"], kept.annotations) == (12, {})


def test_a_scale_of_what_was_at_0_before_it_was_stopped_leaves_it_there() -> None:
    """It was at 0 on purpose; that it was saved goes, so that the next scale is one from 0."""
    kept = keep(0)
    stop(kept)
    with pytest.raises(Refusal, match="when it had 0 replicas"):
        plan_scale(kept)
    plan = plan_scale(kept, start_stopped=True)
    assert (plan.before, plan.after, plan.is_left, plan.reversible) == (0, 0, True, True)
    assert plan.reason == f"it was at 0 replicas before run r at {AT}, and stays so"
    kept.write(plan.write)
    assert (kept.spec["replicas"], kept.annotations) == (0, {})
    assert plan_scale(kept).after == 12


def test_a_scale_uses_no_saved_state_that_is_out_of_date() -> None:
    """Neither of what runs, nor of what a person has changed since; one that cannot be read only matters at 0."""
    kept = keep(20)
    stop(kept)
    kept.scale(5)
    plan = plan_scale(kept)
    assert (plan.before, plan.after) == (5, 12)
    kept.scale(0)
    assert (plan_scale(kept).before, plan_scale(kept).after) == (0, 12)
    fallback = SavedState({"replicas": 30}, "r", AT)
    assert plan_scale(kept, fallback=fallback).after == 12
    annotate(kept, "3")
    with pytest.raises(
        Refusal,
        match=r"is not of format 1 or 2: '3'\. Remove the annotation lowtide\.ops/stopped if it is not needed\.$",
    ):
        plan_scale(kept)
    kept.scale(12)
    kept.write(plan_scale(kept).write)
    assert (kept.spec["replicas"], kept.annotations) == (12, {})
    assert plan_scale(kept, fallback=fallback).write is None


def test_a_scale_of_what_only_its_autoscaler_knows_to_be_stopped() -> None:
    """It is as stopped as with a saved state of its own."""
    kept = keep(0)
    fallback = SavedState({"replicas": 30}, "r", AT)
    with pytest.raises(Refusal, match="when it had 30 replicas"):
        plan_scale(kept, fallback=fallback)
    assert plan_scale(kept, fallback=fallback, start_stopped=True).after == 30


@pytest.mark.parametrize(("now", "before", "after", "left"), [(3, 0, 12, False), (20, 0, 20, False), (0, 0, 0, True)])
def test_an_assumed_stop_predicts_the_scale(now: int, before: int, after: int, left: bool) -> None:
    """What is at 0 now would be saved as that, and stay."""
    plan = plan_scale(keep(now), start_stopped=True, assume_stopped=True)
    assert (plan.before, plan.after, plan.is_left) == (before, after, left)
    if left:
        assert plan.write is not None
        assert plan.reason == "it is stopped now, and stays so (assumed to be stopped by then)"


def test_an_assumed_stop_is_refused_as_the_stop_itself_would_be() -> None:
    """A rehearsal does not promise what the run refuses."""
    with pytest.raises(Refusal, match="it will be stopped by then"):
        plan_scale(keep(3), start_stopped=False, assume_stopped=True)


@pytest.mark.parametrize(
    ("now", "allowed", "reversible"), [(20, True, False), (20, False, True), (12, True, True), (3, True, True)]
)
def test_a_scale_down_that_will_delete_claims_is_not_reversible(now: int, allowed: bool, reversible: bool) -> None:
    """A part of them is enough."""
    kept = keep(now)
    kept.change({"spec": DELETES_CLAIMS})
    assert plan_scale(kept, allow_scale_down=allowed).reversible is reversible


def test_a_scale_is_conditional_on_the_number_and_on_what_was_saved() -> None:
    """Another client's number in between is a conflict, and so is another run's stop."""
    kept = keep()
    write = plan_scale(kept).write
    assert write is not None
    operations = build_json_patch(kept.obj, write)
    before = kept.obj
    kept.scale(4)
    with pytest.raises(Rejected):
        kept.send(operations)
    kept.obj = before
    annotate(kept, "{}")
    with pytest.raises(Rejected):
        kept.send(operations)
