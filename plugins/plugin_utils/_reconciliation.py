# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare events that a group has passed with events that a database recorded.

Private to lowtide.ops: do not import from other collections.

Pure: the results of rpk_group_info and pg_query_info give the public result of the role event_reconciliation.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

Result = t.Mapping[str, t.Any]

COLUMNS = ("recorded", "doubled", "recorded_since")
STATEMENT = "event_reconciliation_query"


@dataclass(frozen=True)
class Blocker:
    """What keeps the events from being proven: which object, what is wrong with it, what to do."""

    object: str
    what: str
    next_step: str
    holder: str = ""
    since: str | None = None


@dataclass(frozen=True)
class Counts:
    """How many events the group has passed, and what the ledger has of them."""

    expected: int
    recorded: int
    doubled: int
    recorded_since: int

    @property
    def lost(self) -> int:
        """Events that the group has passed and the ledger lacks; negative when it has more than there were."""
        return self.expected - self.recorded

    def describe(self) -> str:
        """Return the counts as people read them."""
        return f"topic {self.expected}, recorded {self.recorded}, lost {self.lost}, doubled {self.doubled}"


def reconcile(bus: Result, ledger: Result, since: str) -> dict[str, t.Any]:
    """Return the public result of the role: the proof, or what stands against it."""
    (group,) = bus["groups"]
    passed = [row for row in group["partitions"] if row["committed"] is not None]
    blocker = check_partitions(group["name"], passed) or check_ledger(ledger)
    counts: Counts | None = None
    if blocker is None:
        (row,) = ledger["rows"]
        expected = sum(row["committed"] - row["log_start"] for row in passed)
        counts = Counts(expected, *(row[column] for column in COLUMNS))
        blocker = compare_counts(group["name"], counts)
    span = f"; {counts.recorded_since} recorded since {since}" if counts is not None and since else ""
    summary = (
        f"{blocker.object}: {blocker.what}. {blocker.next_step}."
        if blocker
        else f"no event lost, none doubled: {counts.describe() if counts else ''}{span}"
    )
    return {
        "changed": False,
        "summary": summary,
        "plan": [],
        "blockers": [asdict(blocker)] if blocker else [],
        "check_mode": bool(bus.get("check_mode")),
        "evidence": list_evidence(group, counts, span) if counts else [],
        "counts": {**asdict(counts), "lost": counts.lost, "lag": group["total_lag"]} if counts else {},
    }


def check_partitions(group: str, passed: t.Sequence[Result]) -> Blocker | None:
    """Return what is wrong with the offsets: none at all, or of a topic that is gone."""
    obj = f"consumer group {group}"
    if not passed:
        return Blocker(obj, "it has committed no offset, so there is nothing to prove", "Correct the group's name")
    gone = sorted({row["topic"] for row in passed if row["log_start"] is None})
    if gone:
        what = f"it has committed offsets of {', '.join(gone)}, which does not exist any more"
        return Blocker(obj, what, "Remove these offsets from the group, or restore the topic")
    return None


def check_ledger(ledger: Result) -> Blocker | None:
    """Return what is wrong with the statement's answer: it must be one row of the three counts."""
    columns = [str(column) for column in ledger["columns"]]
    expected = f"Have it return one row with the columns {', '.join(COLUMNS)}, each a whole number"
    if len(ledger["rows"]) != 1 or sorted(columns) != sorted(COLUMNS):
        what = f"it returned {len(ledger['rows'])} rows with the columns {', '.join(columns) or 'none'}"
        return Blocker(STATEMENT, what, expected)
    (row,) = ledger["rows"]
    wrong = [f"{column} {row[column]!r}" for column in COLUMNS if not is_count(row[column])]
    return Blocker(STATEMENT, f"it returned {', '.join(wrong)}", expected) if wrong else None


def is_count(value: t.Any) -> bool:
    """Return whether a value is a whole number; True is one of Python's, and none of ours."""
    return isinstance(value, int) and not isinstance(value, bool)


def compare_counts(group: str, counts: Counts) -> Blocker | None:
    """Return how the ledger differs from the topic, None when it does not."""
    if counts.lost == 0 and counts.doubled == 0:
        return None
    return Blocker(
        f"consumer group {group}",
        f"events in the topic and events recorded differ ({counts.describe()})",
        "Keep the topic's retention from removing anything, and compare the ledger with the topic partition by"
        " partition before anything else is changed",
    )


def list_evidence(group: Result, counts: Counts, span: str) -> list[str]:
    """Return the lines that prove it, for a report."""
    return [f"consumer group {group['name']}: {counts.describe()}{span}; lag {group['total_lag']}"]
