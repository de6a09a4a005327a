# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions to replicas: the invariants hold for every input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plan import (
    Rule,
    checked_counts,
    target_replicas,
    with_direction,
)

counts_of_topics = st.dictionaries(st.text("abc", min_size=1), st.integers(1, 5000), min_size=1, max_size=4)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Every rule whose min_replicas is not above its max_replicas."""
    min_replicas = draw(st.integers(1, 50))
    max_replicas = draw(st.none() | st.integers(min_replicas, 6000))
    return Rule(draw(st.sampled_from(["max", "sum"])), min_replicas, max_replicas, draw(st.booleans()))


@given(counts_of_topics, rules())
def test_never_zero_never_above_the_ceiling_never_below_the_floor(counts: dict[str, int], rule: Rule) -> None:
    """And never more than partitions, unless the min_replicas asks for it; or a refusal, where no even divisor fits."""
    try:
        target = target_replicas(counts, rule)
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
    rule = Rule(rule.combine, rule.min_replicas, rule.max_replicas, True)
    shares = [sum(counts.values())] if rule.combine == "sum" else list(counts.values())
    limit = min(max(counts.values()) if rule.combine == "max" else shares[0], rule.max_replicas or 10**9)
    fitting = [n for n in range(rule.min_replicas, limit + 1) if all(share % n == 0 for share in shares)]
    if not fitting:
        with pytest.raises(Refusal, match="no even divisor"):
            target_replicas(counts, rule)
        return
    assert target_replicas(counts, rule).replicas == fitting[-1]


@given(st.integers(0, 100), counts_of_topics, st.booleans())
def test_down_only_with_the_flag(current: int, counts: dict[str, int], allowed: bool) -> None:
    """Going up is always allowed."""
    target = target_replicas(counts, Rule())
    replicas = with_direction(current, target, allow_scale_down=allowed)
    assert replicas == (target.replicas if allowed or target.replicas > current else current)
    assert replicas >= 1


@pytest.mark.parametrize(
    "value", [None, 0, -1, "", "0", " ", "12\r", "1e2", "0x10", "-3", 1.5, True, [], {}, "None", "null", "²", "١٢"]
)
def test_what_is_no_count_is_refused(value: Any) -> None:
    """With the topic and the value seen."""
    with pytest.raises(Refusal, match="topic 'events'") as caught:
        checked_counts({"events": value}, ["events"])
    assert ("null" if value is None else repr(value)) in str(caught.value)


@given(st.none() | st.booleans() | st.floats() | st.text() | st.integers() | st.lists(st.integers()))
def test_a_count_is_at_least_one_or_a_refusal(value: Any) -> None:
    """Nothing else, whatever comes in."""
    try:
        count = checked_counts({"t": value}, ["t"])["t"]
    except Refusal:
        return
    assert count >= 1
    assert str(count) == str(value).lstrip("0")


@pytest.mark.parametrize(
    ("counts", "topics", "said"),
    [({}, ["a"], "none"), ({"b": 1}, ["a"], "known are b"), ({"a": 1}, [], "names no topic")],
)
def test_missing_topics_are_refused(counts: dict[str, int], topics: list[str], said: str) -> None:
    """Also when there is none at all."""
    with pytest.raises(Refusal, match=said):
        checked_counts(counts, topics)


@pytest.mark.parametrize(("min_replicas", "max_replicas"), [(0, None), (-1, 5), (3, 2), (1, 0)])
def test_bounds_that_make_no_sense_are_refused(min_replicas: int, max_replicas: int | None) -> None:
    """Zero replicas can be reached by no option."""
    with pytest.raises(Refusal, match="min_replicas is"):
        target_replicas({"a": 4}, Rule(min_replicas=min_replicas, max_replicas=max_replicas))


@pytest.mark.parametrize(
    ("counts", "rule", "replicas", "why"),
    [
        ({"a": 12}, Rule(), 12, "a has 12 partitions"),
        ({"a": 12, "b": 8}, Rule("sum"), 20, "sum of a has 12 partitions, b has 8 partitions"),
        ({"a": 12}, Rule(max_replicas=8), 8, "a has 12 partitions, at most 8 (max_replicas)"),
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
        ({"a": 1}, Rule(min_replicas=2), 2, "a has 1 partition, at least 2 (min_replicas)"),
    ],
)
def test_reasons(counts: dict[str, int], rule: Rule, replicas: int, why: str) -> None:
    """A person reads why it is that number."""
    target = target_replicas(counts, rule)
    assert (target.replicas, target.why) == (replicas, why)
