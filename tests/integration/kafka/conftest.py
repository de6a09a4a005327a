# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A topic and a group of the test's own on the lab's broker, and the modules' arguments for each client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from support import fake_rpk
from support.modules import ModuleRun, run_module

FIRST = 1767225600000
"""Milliseconds of each partition's first record: 2026-01-01T00:00:00Z. The next ones follow a minute apart."""
PARTITIONS, RECORDS = 3, 10


@dataclass(frozen=True)
class Bus:
    """The broker through a client that is not the tested one, and this test's names on it."""

    admin: AdminClient
    brokers: str
    cluster_id: str
    topic: str
    group: str
    undo: Path

    @property
    def params(self) -> dict[str, Any]:
        """The options of ``rpk_group`` that say where and what: broker, group, and the file for the undo."""
        return {"brokers": [self.brokers], "name": self.group, "undo_file": str(self.undo)}

    def offsets(self, group: str | None = None) -> dict[int, int]:
        """Committed offsets in the test's topic, by partition."""
        name = group or self.group
        rows = (
            self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result().topic_partitions
        )
        return {row.partition: row.offset for row in rows if row.topic == self.topic and row.offset >= 0}

    def set(self, offsets: Mapping[int, int], group: str | None = None, topic: str | None = None) -> None:
        """Commit offsets for a group without members."""
        rows = [TopicPartition(topic or self.topic, number, offset) for number, offset in offsets.items()]
        name, deadline = group or self.group, time.monotonic() + 120
        while True:
            answer = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(name, rows)])[name].result()
            errors = [row.error for row in answer.topic_partitions if row.error is not None]
            if not errors:
                return
            assert time.monotonic() < deadline, f"the offsets cannot be set: {errors}"

    def create(self, topic: str, partitions: int = PARTITIONS, **config: str) -> None:
        """A topic that keeps everything; each of its partitions answers when this returns."""
        made = NewTopic(topic, partitions, 1, config={"retention.ms": "-1", **config})
        self.admin.create_topics([made])[topic].result()
        logs = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(partitions)}
        deadline = time.monotonic() + 120
        while any(future.exception() for future in self.admin.list_offsets(logs).values()):
            assert time.monotonic() < deadline, f"the partitions of {topic} do not answer"
            # librdkafka keeps metadata without leaders for good, and every later question fails by them.
            self.admin.list_topics(topic, timeout=60)

    def produce(self, topic: str, partitions: int = PARTITIONS, records: int = RECORDS) -> None:
        """So many records into each partition, a minute apart."""
        producer = Producer({"bootstrap.servers": self.brokers})
        for number in range(partitions):
            for minute in range(records):
                producer.produce(topic, b"x", partition=number, timestamp=FIRST + 60_000 * minute)
        assert producer.flush(120) == 0

    def remove_records(self, starts: Mapping[int, int]) -> None:
        """As retention does: the logs of the test's topic start at these offsets then."""
        rows = [TopicPartition(self.topic, number, start) for number, start in starts.items()]
        for future in self.admin.delete_records(rows).values():
            future.result()

    def remove(self, topics: list[str], groups: list[str]) -> None:
        """Take away what a test made."""
        for future in self.admin.delete_consumer_groups(groups).values() if groups else ():
            _done_or_absent(future)
        for future in self.admin.delete_topics(topics).values() if topics else ():
            _done_or_absent(future)


def _done_or_absent(future: Any) -> None:
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].name() not in ("GROUP_ID_NOT_FOUND", "UNKNOWN_TOPIC_OR_PART"):
            raise


@pytest.fixture
def bus(lab: dict[str, Any], unique_name: Callable[..., str], tmp_path: Path) -> Iterator[Bus]:
    """A topic of 3 partitions with 10 records each, and a group at offset 4 in all of them."""
    facts = lab["kafka"]
    found = Bus(
        admin=AdminClient({"bootstrap.servers": facts["bootstrap_servers"]}),
        brokers=facts["bootstrap_servers"],
        cluster_id=facts["cluster_id"],
        topic=unique_name("topic"),
        group=unique_name("group"),
        undo=tmp_path / "undo.json",
    )
    found.create(found.topic)
    found.produce(found.topic)
    found.set(dict.fromkeys(range(PARTITIONS), 4))
    yield found
    found.remove([found.topic], [found.group])


@pytest.fixture
def rpk(tmp_path: Path) -> str:
    """The path of an executable FAKE of rpk."""
    return fake_rpk.write_launcher(tmp_path / "rpk")


@pytest.fixture
def set_offsets(bus: Bus) -> Callable[..., ModuleRun]:
    """Run ``rpk_group`` on the test's group: ``set_offsets([{"to": "end"}], check=True, max_skipped=100)``."""

    def run(
        offsets: list[dict[str, Any]] | None, *, check: bool = False, env: dict[str, str] | None = None, **options: Any
    ) -> ModuleRun:
        declared = {} if offsets is None else {"offsets": offsets}
        params = {**bus.params, "max_skipped": 1000, **declared, **options}
        return run_module("rpk_group", params, check=check, env=env)

    return run
