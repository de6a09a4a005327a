# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From declared offsets to changes. Pure. Private to lowtide.ops: do not import from other collections.

A declaration names where partitions should stand; a target is that for one partition; a change is what one commit does.
Skipped and repeated are counted in offsets, which is at most the number of records (compaction leaves holes).
"""

from __future__ import annotations

import datetime
import re
import typing as t

from .._common.errors import Refusal
from .api import OffsetRange, TopicPartition

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

START = "start"
END = "end"
TIME = "time"
OFFSET = "offset"
SHIFT = "shift"
GROUP = "group"
OLDEST_MILLISECONDS = 100_000_000_000
"""1973-03-03. A smaller number of milliseconds is far more likely seconds."""


class OffsetTarget(t.NamedTuple):
    """Where one partition should stand. ``value``: ms for TIME, offset for OFFSET, difference for SHIFT, else 0."""

    kind: str
    value: int


class OffsetRule(t.NamedTuple):
    """Where some partitions should stand; ``topic`` None means each topic of the group, ``partitions`` None each of the topic."""

    kind: str
    value: int = 0
    group: str = ""
    topic: str | None = None
    partitions: tuple[int, ...] | None = None


class OffsetChange(t.NamedTuple):
    """One partition: the offset before (None: no commit) and after, what its log holds, and what the change costs."""

    partition: TopicPartition
    before: int | None
    after: int
    log_start: int
    log_end: int
    skipped: int
    repeated: int
    note: str = ""

    @property
    def needed(self) -> bool:
        """Whether the commit differs from what there is."""
        return self.before != self.after

    def as_dict(self) -> dict[str, t.Any]:
        """For a module's result."""
        return {
            "topic": self.partition.topic,
            "partition": self.partition.partition,
            "before": self.before,
            "after": self.after,
            "log_start": self.log_start,
            "log_end": self.log_end,
            "skipped": self.skipped,
            "repeated": self.repeated,
            "note": self.note,
        }


def parse_target(text: str) -> tuple[str, int]:
    """``to``: start, end, an RFC 3339 time with its zone, or milliseconds since 1970, as (kind, value)."""
    if text in (START, END):
        return text, 0
    if re.fullmatch(r"\d+", text):
        if int(text) < OLDEST_MILLISECONDS:
            raise _bad_target(
                text, "as milliseconds since 1970 that is before 1973", "Give milliseconds, or use offset"
            )
        return TIME, int(text)
    try:
        moment = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in "zZ" else text)
    except ValueError as error:
        raise _bad_target(
            text, "it is no time", "Use start, end, 2026-01-31T02:00:00Z or milliseconds since 1970"
        ) from error
    if moment.tzinfo is None:
        raise _bad_target(text, "it has no zone", "Append Z or an offset such as +01:00")
    return TIME, round(moment.timestamp() * 1000)


def _bad_target(text: str, problem: str, next_step: str) -> Refusal:
    hint = {"latest": ". Kafka's name for it is end", "earliest": ". Kafka's name for it is start"}.get(text, "")
    return Refusal(obj=f"offsets: to: {text}", problem=problem + hint, next_step=next_step)


def declaration(row: Mapping[str, t.Any]) -> OffsetRule:
    """One element of the module's ``offsets``, of which argument checking has left exactly one of the four targets."""
    scope: dict[str, t.Any] = {
        "topic": row.get("topic"),
        "partitions": tuple(row["partitions"]) if row.get("partitions") is not None else None,
    }
    if scope["partitions"] == ():
        raise Refusal(
            obj=f"offsets of topic {row.get('topic')}",
            problem="partitions is an empty list",
            next_step="Name partitions, or leave the key out for all of them",
        )
    if row.get("to") is not None:
        kind, value = parse_target(row["to"].strip())
        return OffsetRule(kind, value, **scope)
    if row.get("offset") is not None:
        if row["offset"] < 0:
            raise Refusal(
                obj=f"offsets of topic {row.get('topic')}",
                problem=f"offset is {row['offset']}; brokers would store it, and consumers read it as no commit",
                next_step="Use to: start, to: end, or an offset of 0 or more",
            )
        return OffsetRule(OFFSET, row["offset"], **scope)
    if row.get("shift") is not None:
        return OffsetRule(SHIFT, row["shift"], **scope)
    return OffsetRule(GROUP, group=row["from_group"], **scope)


def topics_named(declarations: Iterable[OffsetRule]) -> set[str]:
    """Topics which declarations name."""
    return {rule.topic for rule in declarations if rule.topic is not None}


def groups_named(declarations: Iterable[OffsetRule]) -> set[str]:
    """Groups whose offsets are to be copied."""
    return {rule.group for rule in declarations if rule.kind == GROUP}


def resolve_targets(
    declarations: Sequence[OffsetRule],
    *,
    name: str,
    base: Mapping[TopicPartition, int],
    counts: Mapping[str, int | None],
    others: Mapping[str, Mapping[TopicPartition, int]],
) -> dict[TopicPartition, OffsetTarget]:
    """What each partition should be at; a later declaration overrides an earlier one.

    ``base``: the offsets of group ``name``, from which a shift counts; ``counts``: partitions of every topic in question;
    ``others``: the offsets of groups to copy from. Shift and copy leave out partitions without a commit to start from,
    unless these are named one by one.
    """
    targets: dict[TopicPartition, OffsetTarget] = {}
    for rule in declarations:
        source = others[rule.group] if rule.kind == GROUP else base
        topics = [rule.topic] if rule.topic is not None else sorted({partition.topic for partition in source})
        if not topics:
            owner = rule.group if rule.kind == GROUP else name
            raise Refusal(
                obj=f"group {owner}",
                problem="it has no committed offsets, so that there is no topic to set offsets of",
                next_step="Name the topic in offsets",
            )
        hits = 0
        for topic in topics:
            for partition in _partitions(rule, topic, counts[topic]):
                if rule.kind in (SHIFT, GROUP) and partition not in source:
                    if rule.partitions is not None:
                        raise _nothing_there(partition, rule.group or name)
                    continue
                hits += 1
                targets[partition] = (
                    OffsetTarget(OFFSET, source[partition])
                    if rule.kind == GROUP
                    else _make_target(rule, source, partition)
                )
        if not hits:
            raise _nothing_there(TopicPartition(topics[0], 0), rule.group or name)
    return targets


def _make_target(rule: OffsetRule, base: Mapping[TopicPartition, int], partition: TopicPartition) -> OffsetTarget:
    return (
        OffsetTarget(OFFSET, base[partition] + rule.value)
        if rule.kind == SHIFT
        else OffsetTarget(rule.kind, rule.value)
    )


def _partitions(rule: OffsetRule, topic: str, count: int | None) -> list[TopicPartition]:
    if not count:
        raise Refusal(
            obj=f"topic {topic}",
            problem="it does not exist, or this user may not describe it" if count is None else "it has no partitions",
            next_step="Correct the name in offsets, create the topic first, or give this user DESCRIBE on it",
        )
    beyond = [number for number in rule.partitions or () if not 0 <= number < count]
    if beyond:
        raise Refusal(
            obj=f"topic {topic}",
            problem=f"it has partitions 0 to {count - 1}, and offsets names {', '.join(map(str, beyond))}",
            next_step="Correct partitions in offsets",
        )
    return [TopicPartition(topic, number) for number in (range(count) if rule.partitions is None else rule.partitions)]


def _nothing_there(partition: TopicPartition, group: str) -> Refusal:
    return Refusal(
        obj=f"{partition.topic}, group {group}",
        problem=f"the group has committed nothing there (first looked for: {partition})",
        next_step="Declare to or offset for it instead",
    )


def times_named(targets: Mapping[TopicPartition, OffsetTarget]) -> dict[int, list[TopicPartition]]:
    """Time stamps to look up, with the partitions to look in."""
    times: dict[int, list[TopicPartition]] = {}
    for partition, target in targets.items():
        if target.kind == TIME:
            times.setdefault(target.value, []).append(partition)
    return times


def compute_changes(
    targets: Mapping[TopicPartition, OffsetTarget],
    *,
    committed: Mapping[TopicPartition, int],
    logs: Mapping[TopicPartition, OffsetRange],
    at_time: Mapping[TopicPartition, int | None],
) -> list[OffsetChange]:
    """One change a partition, sorted; every target lies within its log, and the note says where that made a difference."""
    return [
        compute_change(
            partition,
            target,
            committed.get(partition),
            log=logs[partition],
            at_time=at_time.get(partition),
        )
        for partition, target in sorted(targets.items())
    ]


def compute_change(
    partition: TopicPartition, target: OffsetTarget, before: int | None, *, log: OffsetRange, at_time: int | None = None
) -> OffsetChange:
    """The change of one partition; ``at_time``: what a TIME target found.

    Without a commit before, all that the log holds below the target counts as skipped.
    """
    start, end = log
    note = ""
    if target.kind == START:
        after = start
    elif target.kind == END:
        after = end
    elif target.kind == TIME and at_time is None:
        after, note = end, "no record is that new: log end"
    else:
        asked = target.value if at_time is None else at_time
        after = min(max(asked, start), end)
        if asked < start:
            note = f"{asked} is no longer in the log: its start"
        elif asked > end:
            note = f"{asked} is beyond the log: its end"
    stood = start if before is None else min(max(before, start), end)
    return OffsetChange(
        partition=partition,
        before=before,
        after=after,
        log_start=start,
        log_end=end,
        skipped=max(0, after - stood),
        repeated=0 if before is None else max(0, stood - after),
        note=note,
    )
