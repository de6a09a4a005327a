# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An event bus in memory: a double of the interface ``BusClient``, which this project made as its seam to Kafka.

It keeps groups, offsets and logs as a broker does, and fails where a test tells it to. It proves what the code above the
interface does with an answer, not that a broker gives it; that is for ``tests/integration/kafka``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ansible_collections.lowtide.ops.plugins.module_utils._kafka import api
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import OffsetRange, RecordCount, TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


class MemoryBus(api.BusClient):
    """Topic ``t`` with 10 records in each of two partitions, and an empty group ``g`` at offset 4 in both."""

    label = "b:9092"

    def __init__(self) -> None:
        self.state: dict[str, api.Group] = {"g": api.Group("g", api.EMPTY)}
        self.offsets: dict[str, dict[TopicPartition, int]] = {"g": {T0: 4, T1: 4}}
        self.ranges = {T0: OffsetRange(0, 10), T1: OffsetRange(0, 10)}
        self.control_records: set[tuple[TopicPartition, int]] = set()
        self.last_stable: dict[TopicPartition, int] = {}
        self.policies: dict[str, tuple[str, ...]] = {"t": ("delete",)}
        self.calls: list[str] = []
        self._failures: dict[str, list[Exception | None]] = {}
        self.on_call: Callable[[str], None] = lambda _question: None
        self.closed = False

    def fail(self, question: str, *errors: Exception | None) -> None:
        """Raise these errors when it is asked that, one each time; None is an answer."""
        self._failures[question] = list(errors)

    def _ask(self, question: str) -> None:
        self.calls.append(question)
        self.on_call(question)
        failures = self._failures.get(question)
        if failures and (error := failures.pop(0)) is not None:
            raise error

    def cluster_id(self) -> str:
        self._ask("cluster_id")
        return "c"

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        self._ask("partition_counts")
        return {topic: sum(own.topic == topic for own in self.ranges) or None for topic in topics}

    def groups(self, names: Iterable[str]) -> dict[str, api.Group]:
        self._ask("groups")
        return {name: self.state.get(name, api.Group(name, api.MISSING)) for name in names}

    def committed(self, group: str) -> dict[TopicPartition, int]:
        self._ask("committed")
        return dict(self.offsets.get(group, {}))

    def offset_ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        self._ask("offset_ranges")
        return {partition: self.ranges[partition] for partition in partitions}

    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        self._ask("offsets_at")
        return {partition: None if milliseconds else 0 for partition in partitions}

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        self._ask("commit")
        self.offsets.setdefault(group, {}).update(offsets)
        return {}

    def cleanup_policies(self, topics: Iterable[str]) -> dict[str, tuple[str, ...]]:
        self._ask("cleanup_policies")
        return {topic: self.policies[topic] for topic in topics}

    def count_records(
        self,
        group: str,  # noqa: ARG002 (the interface's, as the last one)
        ranges: Mapping[TopicPartition, OffsetRange],
        *,
        limit: int | None = None,
        seconds: float | None = None,  # noqa: ARG002
    ) -> dict[TopicPartition, RecordCount]:
        self._ask("count_records")
        counts = {}
        for partition, (start, end) in ranges.items():
            stable = min(end, self.last_stable.get(partition, end))
            records = sum((partition, offset) not in self.control_records for offset in range(start, stable))
            counts[partition] = RecordCount(records if limit is None else min(limit, records), stable)
        return counts

    def close(self) -> None:
        self.closed = True
