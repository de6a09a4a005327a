# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare events that a group has passed with events that a database recorded.

Private to lowtide.ops: do not import from other collections.

Pure: the results of rpk_group_info and pg_query_info give the public result of the role event_reconciliation.

Each record is one event, but not each offset is a record: a transaction ends with a control record, and records of an
aborted one are never read. So offsets prove only where there are as many of them as recorded events. Where fewer are
recorded, ``to_count`` names the ranges whose records have to be counted in the log itself. A compacted topic has lost
records on purpose, so nothing can be proven of it.

What retention removes while the consumers are stopped leaves no trace once they go on: their next commit is above it.
So a partition is proven from where the group stood before the stop, if the log begins behind that by now: what was
removed is lost unless the ledger has it, as it has what was removed after the group had gone on. Nothing is netted:
where the ledger tells partitions apart, each one has to be right by itself.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

Result = t.Mapping[str, t.Any]

COLUMNS = ("recorded", "doubled", "recorded_since")
PARTITION = ("topic", "partition")
"""Columns of a statement that returns a row for each partition."""
STATEMENT = "event_reconciliation_query"
EXPECTED = (
    f"Have it return one row with the columns {', '.join(COLUMNS)}, each a whole number, or one for each partition with"
    f" {' and '.join(PARTITION)} as well"
)


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
    """How many events the group has passed, and what the ledger has of them.

    ``expected`` are the records of the log where these were counted, and its offsets otherwise.
    """

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


@dataclass(frozen=True)
class Range:
    """Offsets of a partition that the ledger has to have, ``end`` excluded; the log holds those from ``held`` on."""

    topic: str
    partition: int
    start: int
    held: int
    end: int

    @property
    def place(self) -> str:
        """How messages name the partition."""
        return f"{self.topic}[{self.partition}]"

    @property
    def removed(self) -> int:
        """How many of them the log does not hold any more."""
        return self.held - self.start


def find_ranges(group: Result, stopped: t.Mapping[tuple[str, int], Result]) -> list[Range]:
    """Return what has to be recorded: what the group has passed, and what the log has lost since it was stopped.

    A group that had committed nothing in a partition stood where the log began.
    """
    ranges = []
    for row in group["partitions"]:
        held = row["log_start"]
        earlier = stopped.get((row["topic"], row["partition"]))
        start = None if earlier is None else find_position(earlier)
        if held is None or (row["committed"] is None and (start is None or start >= held)):
            continue
        start = held if start is None else min(start, held)
        end = held if row["committed"] is None else row["committed"]
        ranges.append(Range(row["topic"], row["partition"], start, held, end))
    return ranges


def find_position(row: Result) -> int | None:
    """Return which offset the group would have read next."""
    position: int | None = row["log_start"] if row["committed"] is None else row["committed"]
    return position


def list_passed(bus: Result, before: t.Sequence[Result] = ()) -> list[dict[str, t.Any]]:
    """Return the ranges that the ledger is asked for, as the statement gets them."""
    (group,) = bus["groups"]
    return [
        {"topic": row.topic, "partition": row.partition, "log_start": row.start, "committed": row.end}
        for row in find_ranges(group, find_stopped(group, before))
    ]


def find_stopped(group: Result, before: t.Sequence[Result]) -> dict[tuple[str, int], Result]:
    """Return the partitions of the group as they were when it was stopped; of several readings, the furthest."""
    rows = [row for other in before if other["name"] == group["name"] for row in other["partitions"]]
    return {(row["topic"], row["partition"]): row for row in sorted(rows, key=lambda row: find_position(row) or 0)}


def reconcile(
    bus: Result,
    ledger: Result,
    since: str,
    records: t.Sequence[Result] | None = None,
    before: t.Sequence[Result] = (),
) -> dict[str, t.Any]:
    """Return the public result of the role: the proof, or what stands against it.

    ``records`` are as they were counted; ``before`` are groups as rpk_group_info returned them before the consumers
    were stopped, of which the one of this name counts.
    """
    (group,) = bus["groups"]
    passed = [row for row in group["partitions"] if row["committed"] is not None]
    stopped = find_stopped(group, before)
    ranges = find_ranges(group, stopped)
    blocker = (
        check_topics(group)
        or check_commits(group, stopped)
        or check_partitions(group["name"], passed)
        or check_ledger(ledger)
    )
    counts: Counts | None = None
    to_count: list[dict[str, t.Any]] = []
    if blocker is None:
        expected = {(row.topic, row.partition): row.end - row.start for row in ranges}
        if records is not None:
            removed = {(row.topic, row.partition): row.removed for row in ranges}
            for row in records:
                place = (row["topic"], row["partition"])
                expected[place] = row["records"] + removed[place]
        counts = Counts(sum(expected.values()), *(sum(row[column] for row in ledger["rows"]) for column in COLUMNS))
        differing = compare_partitions(expected, ledger)
        if records is None and (counts.lost > 0 or any(difference.lost > 0 for difference in differing)):
            to_count = [name_range(row) for row in ranges if row.end > row.held]
        blocker = compare_counts(group["name"], counts, differing, ranges, is_counted=records is not None)
    on_the_way = f"; {group['total_lag']} still on their way" if group["total_lag"] else ""
    span = f"; {counts.recorded_since} recorded since {since}" if counts is not None and since else ""
    summary = (
        f"{blocker.object}: {blocker.what}. {blocker.next_step}."
        if blocker
        else f"no event lost, none doubled: {counts.describe() if counts else ''}{span}{on_the_way}"
    )
    return {
        "changed": False,
        "summary": summary,
        "plan": [],
        "blockers": [asdict(blocker)] if blocker else [],
        "check_mode": bool(bus.get("check_mode")),
        "evidence": list_evidence(group, counts, span) if counts else [],
        "counts": {**asdict(counts), "lost": counts.lost, "lag": group["total_lag"]} if counts else {},
        "to_count": to_count,
    }


def name_range(row: Range) -> dict[str, t.Any]:
    """Return what the log holds of a range, as an element of rpk_group_info's ``count_records``."""
    return {"topic": row.topic, "partition": row.partition, "start": row.held, "end": row.end}


def check_topics(group: Result) -> Blocker | None:
    """Return which topics of the group are compacted."""
    compacted = group.get("compacted_topics")
    if not compacted:
        return None
    return Blocker(
        f"consumer group {group['name']}",
        f"topic {', '.join(compacted)} is compacted (cleanup.policy), so records that were events are no longer in it,"
        " and nothing can be proven by counting",
        "Leave this step out for that topic, or reconcile what it holds key by key in the application",
    )


def check_commits(group: Result, stopped: t.Mapping[tuple[str, int], Result]) -> Blocker | None:
    """Return which commits of before the stop are gone or are lower now, and which logs are not the ones of then."""
    obj = f"consumer group {group['name']}"
    now = {(row["topic"], row["partition"]): row for row in group["partitions"]}
    vanished, lowered, other_logs = [], [], []
    for key, row in stopped.items():
        place = f"{row['topic']}[{row['partition']}]"
        current = now.get(key, {"committed": None, "log_start": None, "log_end": None})
        if row["committed"] is not None and current["committed"] is None:
            vanished.append(f"{row['committed']} of {place}")
        elif row["committed"] is not None and current["committed"] < row["committed"]:
            lowered.append(f"{place} from {row['committed']} to {current['committed']}")
        for bound, name in (("log_start", "start"), ("log_end", "end")):
            if row[bound] is not None and current[bound] is not None and current[bound] < row[bound]:
                other_logs.append(f"the {name} of {place} went from {row[bound]} to {current[bound]}")
    if other_logs:
        return Blocker(
            obj,
            f"a log is not the one that it was when the group was stopped: {', '.join(other_logs)}, so offsets of the"
            " ledger may mean other events",
            "Find out whether the topic was made anew or has lost records, and compare the ledger with the producer's"
            " records",
        )
    if vanished:
        return Blocker(
            obj,
            f"commits that it had when it was stopped are gone: {', '.join(vanished)}",
            "Find out who removed them (offsets.retention.minutes of the broker, or a topic that was made anew):"
            " consumers begin where auto.offset.reset says. Set the offsets again with lowtide.ops.rpk_group before"
            " they go on",
        )
    if lowered:
        return Blocker(
            obj,
            f"its commits are lower than when it was stopped: {', '.join(lowered)}, so what the ledger has above them"
            " is not looked at, or is of a topic that was made anew",
            "Find out who set the offsets back, and run again when the group has passed these commits; if the topic was"
            " made anew, compare the ledger with the producer's records",
        )
    return None


def check_partitions(group: str, passed: t.Sequence[Result]) -> Blocker | None:
    """Return what is wrong with the offsets: none at all, or of a topic that is gone."""
    obj = f"consumer group {group}"
    if not passed:
        return Blocker(obj, "it has committed no offset, so there is nothing to prove", "Correct the group's name")
    gone = sorted({row["topic"] for row in passed if row["log_start"] is None})
    if gone:
        what = f"it has committed offsets of {', '.join(gone)}, which does not exist any more"
        return Blocker(obj, what, "Remove these offsets from the group, or restore the topic")
    for row in passed:
        place = f"{row['topic']}[{row['partition']}]"
        if row["beyond_end"]:
            what = f"it has committed {row['committed']} in {place}, beyond the log's end {row['log_end']}"
            return Blocker(
                obj, what, "Find out whether the topic was made anew or has lost records, before anything else"
            )
        if row["lost"]:
            what = (
                f"{row['lost']} offsets that it had not passed are no longer in {place}, so they may have been events"
            )
            return Blocker(obj, what, f"Compare the ledger with the producer's records up to offset {row['log_start']}")
    return None


def check_ledger(ledger: Result) -> Blocker | None:
    """Return what is wrong with the statement's answer: one row of the three counts, or one for each partition."""
    columns = sorted(str(column) for column in ledger["columns"])
    rows = ledger["rows"]
    is_total = columns == sorted(COLUMNS) and len(rows) == 1
    if not is_total and columns != sorted((*PARTITION, *COLUMNS)):
        shown = ", ".join(str(column) for column in ledger["columns"])
        what = f"it returned {len(rows)} rows with the columns {shown or 'none'}"
        return Blocker(STATEMENT, what, EXPECTED)
    wrong = [
        f"{column} {row[column]!r}" for row in rows for column in row if column != "topic" and not is_count(row[column])
    ]
    if wrong:
        return Blocker(STATEMENT, f"it returned {', '.join(wrong)}", EXPECTED)
    partitions = [(row["topic"], row["partition"]) for row in rows if not is_total]
    if len(set(partitions)) < len(partitions):
        return Blocker(STATEMENT, "it returned several rows for one partition", EXPECTED)
    return None


@dataclass(frozen=True)
class Difference:
    """How far the ledger is from one partition."""

    place: str
    lost: int


def compare_partitions(expected: t.Mapping[tuple[str, int], int], ledger: Result) -> list[Difference]:
    """Return the partitions whose events are not those recorded, where the ledger tells them apart."""
    if "partition" not in ledger["columns"]:
        return []
    recorded = {(row["topic"], row["partition"]): row["recorded"] for row in ledger["rows"]}
    return [
        Difference(f"{topic}[{partition}]", lost)
        for topic, partition in sorted({*expected, *recorded})
        if (lost := expected.get((topic, partition), 0) - recorded.get((topic, partition), 0))
    ]


def is_count(value: t.Any) -> bool:
    """Return whether a value is a whole number; True is one of Python's, and none of ours."""
    return isinstance(value, int) and not isinstance(value, bool)


def compare_counts(
    group: str, counts: Counts, differing: t.Sequence[Difference], ranges: t.Sequence[Range], *, is_counted: bool
) -> Blocker | None:
    """Return how the ledger differs from the topic, in sum or in a partition; None when it does not."""
    if counts.lost == 0 and counts.doubled == 0 and not differing:
        return None
    places = "".join(f"; lost {difference.lost} of {difference.place}" for difference in differing)
    short = {difference.place for difference in differing if difference.lost > 0}
    removed = [
        f"{row.removed} of {row.place} ({row.start} to {row.held - 1})"
        for row in ranges
        if row.removed and (row.place in short or (not short and counts.lost > 0))
    ]
    if removed:
        return Blocker(
            f"consumer group {group}",
            f"retention has removed offsets that it had not passed when it was stopped: {', '.join(removed)}, and not"
            f" all of them are recorded ({counts.describe()}{places})",
            "Compare the ledger with the producer's records of these offsets, and raise the topic's retention above the"
            " length of a window",
        )
    unsure = "" if is_counted or counts.lost <= 0 else "; by offsets, of which transactions take some for themselves"
    return Blocker(
        f"consumer group {group}",
        f"events in the topic and events recorded differ ({counts.describe()}{places}{unsure})",
        "Keep the topic's retention from removing anything, and compare the ledger with the topic partition by"
        " partition before anything else is changed",
    )


def list_evidence(group: Result, counts: Counts, span: str) -> list[str]:
    """Return the lines that prove it, for a report."""
    return [f"consumer group {group['name']}: {counts.describe()}{span}; lag {group['total_lag']}"]
