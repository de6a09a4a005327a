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
"""Missing: no such group. Dead: being removed. Empty: offsets, no members. Unknown: :attr:`Group.unknown` says why."""


class TopicPartition(t.NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class OffsetRange(t.NamedTuple):
    """The offsets ``[start, end)``; of a log, the first that it still holds and the one its next record will get."""

    start: int
    end: int


class RecordCount(t.NamedTuple):
    """How many records of a range a consumer with ``isolation.level=read_committed`` gets.

    Control records of transactions, records of aborted ones, and what compaction has removed are no records.
    ``reached``: the offset up to which that is known; below the range's end, a transaction is open from there on.
    """

    records: int
    reached: int


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


class UnknownState(t.NamedTuple):
    """Why a client cannot tell a group's state, what to do, and whether that stays so however long it is asked."""

    problem: str
    next_step: str
    is_lasting: bool = True


UNTOLD = UnknownState(
    "its state is not told",
    "Run again; if that does not help, look at the broker's log for this group",
    is_lasting=False,
)


class Group(t.NamedTuple):
    """A consumer group: ``state`` one of :data:`STATES`, ``protocol`` "classic", "consumer" (KIP-848) or None.

    ``member_count`` may exceed ``len(members)``: rpk lists only members which own a partition. ``unknown`` goes with
    the state of that name.
    """

    name: str
    state: str
    protocol: str | None = None
    assignor: str = ""
    coordinator: str = ""
    members: tuple[Member, ...] = ()
    member_count: int = 0
    unknown: UnknownState = UNTOLD


class BusClient(ABC):
    """The questions; implementations raise :class:`.._common.errors.OpsError` for what they cannot answer."""

    label: str
    """Names the bus in messages: its brokers, or the command which reaches it."""

    @abstractmethod
    def cluster_id(self) -> str:
        """The cluster's own id."""

    @abstractmethod
    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        """How many partitions each topic has; None for one that does not exist, or is hidden. Never creates one."""

    @abstractmethod
    def groups(self, names: Iterable[str]) -> dict[str, Group]:
        """Each named group; one that does not exist has the state :data:`MISSING`."""

    @abstractmethod
    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Every offset which the group has committed; a partition without a commit is not in it.

        An offset that a transaction is about to commit is waited for, and then an error.
        """

    @abstractmethod
    def offset_ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """What each log holds."""

    @abstractmethod
    def offsets_at(self, milliseconds: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """The first offset whose record is not older than that time (ms since 1970); None where there is none."""

    @abstractmethod
    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, str]:
        """Commit all offsets in one request; returns what was refused, per partition, and why.

        An empty answer is no proof: read back. Raises :class:`.._common.errors.OutcomeUnknown` when no answer came.
        """

    @abstractmethod
    def cleanup_policies(self, topics: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What each topic's ``cleanup.policy`` names: delete, compact, or both."""

    @abstractmethod
    def count_records(
        self,
        group: str,
        ranges: Mapping[TopicPartition, OffsetRange],
        *,
        limit: int | None = None,
        seconds: float | None = None,
    ) -> dict[TopicPartition, RecordCount]:
        """How many records each range holds, read from the log, until there are ``limit`` of each (None: all).

        Reads in the name of ``group``, of which it never becomes a member, and commits nothing. ``seconds`` it may
        take, as long as any other question without it; then raises :class:`.._common.errors.WaitTimeout`.
        """

    def close(self) -> None:  # noqa: B027 (most clients hold nothing)
        """Let go of connections."""
