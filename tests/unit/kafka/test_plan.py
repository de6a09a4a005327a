# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From declarations to changes: clamping, sums, and that an undo is the inverse of what it undoes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import plan
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import OffsetRange, TopicPartition

T0, T1, T2 = (TopicPartition("t", number) for number in range(3))
U0 = TopicPartition("u", 0)
COUNTS: dict[str, int | None] = {"t": 3, "u": 1, "gone": None, "hollow": 0}
COMMITTED = {T0: 5, T1: 7}

logs = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda pair: OffsetRange(min(pair), max(pair)))
offsets = st.integers(0, 1200)
targets = st.one_of(
    st.just(plan.OffsetTarget(plan.START, 0)),
    st.just(plan.OffsetTarget(plan.END, 0)),
    st.builds(plan.OffsetTarget, st.just(plan.OFFSET), st.integers(-50, 1200)),
)


@given(target=targets, before=st.none() | offsets, log=logs)
def test_a_move_ends_within_the_log_and_its_sums_agree(
    target: plan.OffsetTarget, before: int | None, log: OffsetRange
) -> None:
    """Skipped less repeated is the way, as far as the log holds it; never both; and a change made is no change any more."""
    start, end = log
    change = plan.compute_change(T0, target, before, log=log)
    assert start <= change.after <= end
    assert change.skipped >= 0
    assert change.repeated >= 0
    assert not (change.skipped and change.repeated)
    stood = start if before is None else min(max(before, start), end)
    assert change.skipped - change.repeated == change.after - stood
    again = plan.compute_change(T0, target, change.after, log=log)
    assert not again.needed
    assert (again.skipped, again.repeated) == (0, 0)


@given(target=targets, log=logs, data=st.data())
def test_the_undo_is_the_inverse(target: plan.OffsetTarget, log: OffsetRange, data: st.DataObject) -> None:
    """Back at the offset before, and what was skipped is repeated."""
    before = data.draw(st.integers(*log))
    change = plan.compute_change(T0, target, before, log=log)
    back = plan.compute_change(T0, plan.OffsetTarget(plan.OFFSET, before), change.after, log=log)
    assert back.after == before
    assert (back.skipped, back.repeated) == (change.repeated, change.skipped)


@given(target=targets, before=st.none() | offsets, log=logs)
def test_a_note_says_that_the_log_does_not_hold_what_was_asked(
    target: plan.OffsetTarget, before: int | None, log: OffsetRange
) -> None:
    """And only then."""
    change = plan.compute_change(T0, target, before, log=log)
    assert bool(change.note) == (target.kind == plan.OFFSET and change.after != target.value)


def test_notes() -> None:
    """In words."""
    assert (
        plan.compute_change(T0, plan.OffsetTarget(plan.OFFSET, 5000), 4, log=OffsetRange(2, 10)).note
        == "5000 is beyond the log: its end"
    )
    assert (
        plan.compute_change(T0, plan.OffsetTarget(plan.OFFSET, 1), 4, log=OffsetRange(2, 10)).note
        == "1 is no longer in the log: its start"
    )
    late = plan.compute_change(T0, plan.OffsetTarget(plan.TIME, 99), 4, log=OffsetRange(2, 10), at_time=None)
    assert (late.after, late.note) == (10, "no record is that new: log end")
    assert plan.compute_change(T0, plan.OffsetTarget(plan.TIME, 99), 4, log=OffsetRange(2, 10), at_time=6).after == 6


def targets_for(
    *rows: dict[str, Any], base: dict[TopicPartition, int] | None = None
) -> dict[TopicPartition, plan.OffsetTarget]:
    """Wishes for declarations of group g at ``COMMITTED``; group h is at 2 in ``u[0]``."""
    declared = [plan.declaration(row) for row in rows]
    return plan.resolve_targets(
        declared, name="g", base=COMMITTED if base is None else base, counts=COUNTS, others={"h": {U0: 2}, "none": {}}
    )


def test_without_a_topic_every_topic_of_the_group_is_meant() -> None:
    """All partitions of them, committed or not."""
    end = plan.OffsetTarget(plan.END, 0)
    assert targets_for({"to": "end"}) == {T0: end, T1: end, T2: end}


def test_a_later_declaration_overrides() -> None:
    """The general first, the exception after it."""
    assert targets_for({"topic": "t", "to": "end"}, {"topic": "t", "partitions": [1], "offset": 3})[
        T1
    ] == plan.OffsetTarget(plan.OFFSET, 3)


def test_a_shift_leaves_out_what_was_never_committed() -> None:
    """There is nothing to count from."""
    assert targets_for({"shift": -2}) == {T0: plan.OffsetTarget(plan.OFFSET, 3), T1: plan.OffsetTarget(plan.OFFSET, 5)}


def test_another_groups_offsets() -> None:
    """Those it has."""
    assert targets_for({"from_group": "h"}) == {U0: plan.OffsetTarget(plan.OFFSET, 2)}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"topic": "gone", "to": "end"}], "topic gone: it does not exist"),
        ([{"topic": "hollow", "to": "end"}], "topic hollow: it has no partitions"),
        ([{"topic": "t", "partitions": [1, 9], "to": "end"}], "partitions 0 to 2, and offsets names 9"),
        ([{"topic": "t", "partitions": [-1], "to": "end"}], "names -1"),
        ([{"topic": "t", "partitions": [], "to": "end"}], "empty list"),
        ([{"topic": "t", "partitions": [2], "shift": 1}], "committed nothing there"),
        ([{"topic": "u", "shift": 1}], "committed nothing there"),
        ([{"from_group": "none"}], "group none: it has no committed offsets"),
        ([{"topic": "t", "offset": -1}], "offset is -1"),
        ([{"to": "latest"}], "Kafka's name for it is end"),
        ([{"to": "2026-01-01T00:00:00"}], "no zone"),
        ([{"to": "1767225780"}], "before 1973"),
        ([{"to": ""}], "no time"),
    ],
)
def test_refusals(rows: list[dict[str, Any]], words: str) -> None:
    """Object, value, next step; nothing is read as 0."""
    with pytest.raises(Refusal) as caught:
        targets_for(*rows)
    assert words in str(caught.value)


def test_times() -> None:
    """RFC 3339 with any zone, or milliseconds."""
    assert plan.parse_target("2026-01-01T00:03:00Z") == (plan.TIME, 1767225780000)
    assert plan.parse_target("2026-01-01T01:03:00.250+01:00") == (plan.TIME, 1767225780250)
    assert plan.parse_target("1767225780000") == (plan.TIME, 1767225780000)
    targets = targets_for({"topic": "t", "to": "1767225780000"}, {"topic": "t", "partitions": [0], "to": "end"})
    assert plan.times_named(targets) == {1767225780000: [T1, T2]}
