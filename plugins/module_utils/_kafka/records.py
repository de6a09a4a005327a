# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the records between two offsets of logs by reading them. Private to lowtide.ops: do not import from other collections.

Offsets are not records: control records of transactions, records of aborted ones and what compaction removed have
offsets too. Only reading tells. The reader assigns partitions to itself, joins no group and commits nothing.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, WaitTimeout
from .api import OffsetRange, RecordCount, TopicPartition
from .errors import classify_error

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from .._common.retry import Deadline

BATCH = 10_000
"""Records that are taken over from the library at once."""
SLICE = 0.2
"""Seconds after which the deadline is looked at while no record comes."""
PASSING_EVENTS = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE")
"""Events about connections, which the library makes anew."""


class RecordCounter:
    """The count of each range, as far as it has been read."""

    def __init__(self, ranges: Mapping[TopicPartition, OffsetRange], limit: int | None) -> None:
        self._ranges = ranges
        self._limit = limit
        self.records = dict.fromkeys(ranges, 0)
        self.reached = {partition: own.start for partition, own in ranges.items()}
        self.open = {partition for partition, own in ranges.items() if own.start < own.end}

    def add_record(self, partition: TopicPartition, offset: int) -> bool:
        """Count a record, and return whether the range is done by it."""
        if partition not in self.open:
            return False
        end = self._ranges[partition].end
        if offset < end:
            self.records[partition] += 1
        self.reached[partition] = min(offset + 1, end)
        return self._close(partition, is_done=offset + 1 >= end or self.records[partition] == self._limit)

    def add_end(self, partition: TopicPartition, offset: int) -> bool:
        """Take in that no record that may be read follows before ``offset``, and return whether the range is done."""
        if partition not in self.open:
            return False
        self.reached[partition] = max(self.reached[partition], min(offset, self._ranges[partition].end))
        return self._close(partition, is_done=True)

    def _close(self, partition: TopicPartition, *, is_done: bool) -> bool:
        if is_done:
            self.open.discard(partition)
        return is_done

    def as_counts(self) -> dict[TopicPartition, RecordCount]:
        """Return what was counted."""
        return {own: RecordCount(self.records[own], self.reached[own]) for own in self._ranges}

    def describe_progress(self) -> str:
        """Say how far the reading is."""
        size = sum(own.end - own.start for own in self._ranges.values())
        done = sum(self.reached[partition] - own.start for partition, own in self._ranges.items())
        return f"{done} of {size} offsets have been read in {len(self._ranges)} partitions"


def reader_config(config: Mapping[str, t.Any], group: str, limit: int | None) -> dict[str, t.Any]:
    """Return the configuration of a consumer that reads in the name of a group, and as little as it needs."""
    few = {"queued.min.messages": 1, "fetch.message.max.bytes": 65536} if limit is not None else {}
    return {
        **{key: value for key, value in config.items() if key != "error_cb"},
        **few,
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
    }


def count_records(
    kafka: t.Any, consumer: t.Any, label: str, counter: RecordCounter, deadline: Deadline
) -> dict[TopicPartition, RecordCount]:
    """Read until each range is done, and return its count; ``kafka`` is the library, ``consumer`` one of its consumers."""
    starts = counter.reached
    consumer.assign([kafka.TopicPartition(own.topic, own.partition, starts[own]) for own in sorted(counter.open)])
    while counter.open:
        if deadline.passed:
            raise WaitTimeout(
                obj=f"event bus {label}",
                problem=f"after {deadline.elapsed:.1f} s {counter.describe_progress()}",
                next_step="Give more time, or see whether the brokers are busy",
            )
        done = []
        for message in consumer.consume(BATCH, timeout=SLICE):
            if _take_message(message, label, counter):
                done.append(kafka.TopicPartition(message.topic(), message.partition()))
        if done:
            consumer.incremental_unassign(done)
    return counter.as_counts()


def _take_message(message: t.Any, label: str, counter: RecordCounter) -> bool:
    """Take in a record or an event, and return whether the range of its partition is done by it."""
    error = message.error()
    if error is None:
        return counter.add_record(TopicPartition(message.topic(), message.partition()), message.offset())
    if error.name() == "_PARTITION_EOF":
        return counter.add_end(TopicPartition(message.topic(), message.partition()), message.offset())
    if error.name() in PASSING_EVENTS:
        return False
    what = f"reading the records of {message.topic() or 'these topics'}"
    if error.name() == "_AUTO_OFFSET_RESET":
        raise OpsError(
            obj=f"{message.topic()}[{message.partition()}] on event bus {label}",
            problem="the log no longer holds the offsets whose records were to be counted: retention has removed them",
            next_step="Run again, so that they are counted from where the log starts now",
        )
    raise classify_error(label, what, f"{error.name()}, {error.str()}")
