# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection asks of an event bus, whichever client answers. Private to lowtide.ops: do not import from other collections.

Offsets are those of Kafka: the number of the next record to read. A log holds ``[start, end)``.
"""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MISSING = "missing"
DEAD = "dead"
EMPTY = "empty"
STABLE = "stable"
REBALANCING = "rebalancing"
UNKNOWN = "unknown"
STATES = (MISSING, DEAD, EMPTY, STABLE, REBALANCING, UNKNOWN)
"""Missing: no such group. Dead: being removed. Empty: offsets, no members. Unknown: this client cannot tell."""

STATE_OF_NAME = {
    "dead": DEAD,
    "empty": EMPTY,
    "stable": STABLE,
    "preparingrebalance": REBALANCING,
    "preparingrebalancing": REBALANCING,
    "completingrebalance": REBALANCING,
    "completingrebalancing": REBALANCING,
    "assigning": REBALANCING,
    "reconciling": REBALANCING,
}
"""Names of states, lower case, without separators: Kafka's (``ClassicGroupState``, ``ConsumerGroupState``) and librdkafka's."""


class TopicPartition(t.NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Log(t.NamedTuple):
    """``start``: the first offset that a log still holds; ``end``: the one that its next record will get."""

    start: int
    end: int


class Member(t.NamedTuple):
    """One consumer in a group, as the coordinator knows it; ``host`` is where it connects from."""

    member_id: str
    client_id: str
    host: str
    instance_id: str | None = None
    assignments: tuple[TopicPartition, ...] = ()

    def __str__(self) -> str:
        static = f", group.instance.id {self.instance_id}" if self.instance_id else ""
        return f"client {self.client_id} at {self.host} (member {self.member_id}{static})"


class Group(t.NamedTuple):
    """A consumer group: ``state`` one of :data:`STATES`, ``protocol`` "classic", "consumer" (KIP-848) or None.

    ``member_count`` may exceed ``len(members)``: rpk lists only members which own a partition.
    """

    name: str
    state: str
    protocol: str | None = None
    assignor: str = ""
    coordinator: str = ""
    members: tuple[Member, ...] = ()
    member_count: int = 0


class OutcomeUnknownError(Exception):
    """A write was sent and its answer never came: it may or may not have been done. Read back before repeating."""


class BusClient(ABC):
    """The questions; implementations raise :class:`.._common.errors.OpsError` for what they cannot answer."""

    label: str
    """Names the bus in messages: its brokers, or the command which reaches it."""

    @abstractmethod
    def cluster_id(self) -> str:
        """The cluster's own id."""

    @abstractmethod
    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        """How many partitions each topic has; None for a topic that does not exist. Never creates one."""

    @abstractmethod
    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        """Each named group; one that does not exist has the state :data:`MISSING`."""

    @abstractmethod
    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Every offset which the group has committed; a partition without a commit is not in it."""

    @abstractmethod
    def logs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Log]:
        """What each log holds."""

    @abstractmethod
    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """The first offset whose record is not older than that time (ms since 1970); None where there is none."""

    @abstractmethod
    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        """Commit all offsets in one request; returns what was refused, per partition, and why.

        An empty answer is no proof: read back. Raises :class:`OutcomeUnknownError` when the answer never came.
        """

    def close(self) -> None:  # noqa: B027 (most clients hold nothing)
        """Let go of connections."""
