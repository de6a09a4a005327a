# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one line and the evidence of rpk_group and rpk_group_info."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kafka import summary

REMOVED = "g does not exist any more (it was stable, and was removed since)"


def group(state: str, lag: int | None, *, members: int = 0, partitions: int = 12) -> dict[str, Any]:
    """A group as rpk_group_info returns it."""
    return {
        "name": "g",
        "state": state,
        "member_count": members,
        "total_lag": lag,
        "partitions": [{"partition": number} for number in range(partitions)],
    }


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (group("empty", 0), "g empty, lag 0"),
        ({**group("missing", None, partitions=0), "reason": "it was stable, and was removed since"}, REMOVED),
        (group("stable", 7, members=4), "g stable with 4 members, lag 7"),
        (group("stable", 7, members=1), "g stable with 1 member, lag 7"),
        (group("empty", None), "g empty, lag unknown"),
        (group("stable", None, members=2, partitions=0), "g stable with 2 members, nothing committed"),
        (group("missing", None, partitions=0), "g does not exist"),
    ],
)
def test_group(entry: dict[str, Any], expected: str) -> None:
    """State, members, lag; what is not known is said."""
    assert summary.summarize_group(entry) == expected


def test_reading() -> None:
    """Groups, topics, and in check mode what would be waited for."""
    topics: list[dict[str, Any]] = [
        {"name": "t", "exists": True, "partition_count": 2, "held": 30},
        {"name": "u", "exists": False, "partition_count": None, "held": None},
    ]
    groups = [group("empty", 0)]
    assert (
        summary.summarize_reading(groups, topics) == "g empty, lag 0, t has 2 partitions, 30 records, u does not exist"
    )
    assert summary.summarize_reading(groups, [], would_wait_for=["g"]) == "would wait for g, now empty, lag 0"
    assert summary.list_reading_evidence("id", groups, topics) == [
        "consumer group g empty, lag 0, 12 partitions (cluster id)",
        "topic t has 2 partitions, 30 records (cluster id)",
        "topic u does not exist (cluster id)",
    ]


def row(before: int | None, after: int, **more: int) -> dict[str, Any]:
    """A partition as rpk_group returns it."""
    return {"before": before, "after": after, "skipped": 0, "repeated": 0, **more}


MOVES = [row(3, 10, skipped=7), row(9, 5, repeated=4), row(5, 5)]


@pytest.mark.parametrize(
    ("rows", "changed", "check_mode", "expected"),
    [
        ([row(5, 5)], False, False, "g stands where it is declared, 1 partition"),
        (MOVES, True, True, "would set 2 offsets of g: skips 7 records, repeats 4"),
        (MOVES, True, False, "set 2 offsets of g: skips 7 records, repeats 4"),
        (MOVES, False, False, "no offset of g was set, 2 differ from the declared ones"),
        ([{**MOVES[0], "actual": 10}, {**MOVES[1], "actual": 9}], True, False, "set 1 of 2 offsets of g"),
    ],
)
def test_offsets(rows: list[dict[str, Any]], changed: bool, check_mode: bool, expected: str) -> None:
    """Nothing to do, predicted, done, refused, half done."""
    assert summary.summarize_offsets("g", rows, changed=changed, check_mode=check_mode) == expected


def test_offset_evidence() -> None:
    """The undo file is named where there is something to undo."""
    facts = {"group": "g", "state": "empty", "cluster_id": "id", "undo_file": "/u"}
    assert summary.list_offset_evidence(facts, changed=True) == [
        "consumer group g was empty (cluster id)",
        "the offsets before are in /u",
    ]
    assert summary.list_offset_evidence(facts, changed=False) == ["consumer group g was empty (cluster id)"]
