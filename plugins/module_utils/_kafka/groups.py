# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups and topics as they were read, and what their offsets mean. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.text import join_some
from .api import DEAD, MISSING, UNKNOWN, Group, Member, OffsetRange, TopicPartition

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .api import BusClient

COMPACT = "compact"


class PartitionReading(t.NamedTuple):
    """A partition as a group has it; everything but the commit is None when the topic is gone.

    ``lag``: offsets between the commit (or the log's start) and the log's end; None beyond the end, where nobody can say.
    ``lost``: offsets that the log no longer holds and the group had not passed. ``beyond_end``: how far the commit is
    beyond the log's end, as after a topic was made anew or lost records.
    """

    partition: TopicPartition
    committed: int | None
    log_start: int | None
    log_end: int | None
    lag: int | None
    lost: int | None
    beyond_end: int | None
    member_id: str | None


class GroupReading(t.NamedTuple):
    """A group with every partition of each topic that it has committed to or is assigned.

    ``removed``: what a missing group was when the same wait read it before, in words; empty for one that it never saw.
    """

    group: Group
    partitions: tuple[PartitionReading, ...]
    removed: str = ""

    @property
    def total_lag(self) -> int | None:
        """Sum over partitions; None when nothing is known: no partition at all, or one of unknown lag."""
        lags = [row.lag for row in self.partitions]
        return sum(lag for lag in lags if lag is not None) if lags and None not in lags else None

    @property
    def lost(self) -> int:
        """Sum over partitions."""
        return sum(row.lost or 0 for row in self.partitions)

    @property
    def beyond_end(self) -> list[PartitionReading]:
        """The partitions whose commit is beyond their log."""
        return [row for row in self.partitions if row.beyond_end]

    @property
    def gone_topics(self) -> list[str]:
        """The topics that it has committed to or is assigned, and that are gone: their lag cannot be known."""
        return sorted({row.partition.topic for row in self.partitions if row.log_end is None})

    def as_dict(self) -> dict[str, t.Any]:
        """For a module's result."""
        group = self.group
        return {
            "name": group.name,
            "state": group.state,
            "reason": group.unknown.problem if group.state == UNKNOWN else self.removed or None,
            "protocol": group.protocol,
            "assignor": group.assignor,
            "coordinator": group.coordinator,
            "member_count": group.member_count,
            "members": [
                {
                    "member_id": member.member_id,
                    "client_id": member.client_id,
                    "host": member.host,
                    "instance_id": member.instance_id,
                    "assignments": [own._asdict() for own in member.assignments],
                }
                for member in group.members
            ],
            "partitions": [
                {
                    **row.partition._asdict(),
                    **{key: value for key, value in row._asdict().items() if key != "partition"},
                }
                for row in self.partitions
            ],
            "total_lag": self.total_lag,
        }


def compute_lag(committed: int | None, log: OffsetRange) -> int | None:
    """Count the offsets still to be read; without a commit the whole log, and never what retention removed.

    None for a commit beyond the end: records that are written below it will never be read.
    """
    if committed is not None and committed > log.end:
        return None
    return log.end - max(log.start if committed is None else committed, log.start)


def read_partition(
    partition: TopicPartition, committed: int | None, log: OffsetRange | None, member_id: str | None
) -> PartitionReading:
    """Put together what is known of one partition."""
    if log is None:
        return PartitionReading(partition, committed, None, None, None, None, None, member_id)
    return PartitionReading(
        partition=partition,
        committed=committed,
        log_start=log.start,
        log_end=log.end,
        lag=compute_lag(committed, log),
        lost=0 if committed is None else max(0, log.start - committed),
        beyond_end=0 if committed is None else max(0, committed - log.end),
        member_id=member_id,
    )


def read_groups(client: BusClient, names: Iterable[str]) -> list[GroupReading]:
    """Read each group once, in the order named; all logs are read together, after the commits."""
    names = list(dict.fromkeys(names))
    groups = client.groups(names)
    committed = {
        name: {} if group.state in (MISSING, DEAD, UNKNOWN) else client.committed(name)
        for name, group in groups.items()
    }
    owners = {
        name: {own: member.member_id for member in group.members for own in member.assignments}
        for name, group in groups.items()
    }
    topics = {name: {partition.topic for partition in (*committed[name], *owners[name])} for name in names}
    counts = client.partition_counts({topic for own in topics.values() for topic in own})
    logs = client.offset_ranges(
        TopicPartition(topic, number) for topic, count in counts.items() for number in range(count or 0)
    )
    readings = []
    for name in names:
        own = {partition for partition in logs if partition.topic in topics[name]}
        partitions = own | {*committed[name], *owners[name]}
        rows = [
            read_partition(partition, committed[name].get(partition), logs.get(partition), owners[name].get(partition))
            for partition in sorted(partitions)
        ]
        readings.append(GroupReading(groups[name], tuple(rows)))
    return readings


def read_topics(client: BusClient, names: Iterable[str]) -> list[dict[str, t.Any]]:
    """Read partitions and logs of topics; ``written`` counts every offset ever given, ``held`` those the log still has."""
    names = list(dict.fromkeys(names))
    counts = client.partition_counts(names)
    logs = client.offset_ranges(
        TopicPartition(topic, number) for topic in names for number in range(counts[topic] or 0)
    )
    return [
        {
            "name": topic,
            "exists": counts[topic] is not None,
            "partition_count": counts[topic],
            "partitions": [
                {"partition": own.partition, "log_start": log.start, "log_end": log.end}
                for own, log in logs.items()
                if own.topic == topic
            ],
            "held": sum(log.end - log.start for own, log in logs.items() if own.topic == topic)
            if counts[topic]
            else None,
            "written": sum(log.end for own, log in logs.items() if own.topic == topic) if counts[topic] else None,
        }
        for topic in names
    ]


def find_compacted(client: BusClient, groups: Sequence[Mapping[str, t.Any]]) -> dict[str, list[str]]:
    """Name the compacted topics of each group that was read; those that are gone have no policy."""
    topics = {
        group["name"]: {row["topic"] for row in group["partitions"] if row["log_end"] is not None} for group in groups
    }
    policies = client.cleanup_policies({topic for own in topics.values() for topic in own})
    return {name: sorted(topic for topic in own if COMPACT in policies[topic]) for name, own in topics.items()}


def explain_static_members(members: Iterable[Member]) -> str:
    """Say which members are static, how long they stay, and what ends that; empty when none is."""
    names = [member.instance_id for member in members if member.instance_id]
    if not names:
        return ""
    subject = f"{join_some(names)} {'is a static member' if len(names) == 1 else 'are static members'}"
    return (
        f"{subject} (group.instance.id): a consumer that was stopped stays in the group until its session ends,"
        " session.timeout.ms after its last heartbeat (45 s unless the consumer sets it; brokers allow up to 30 min)."
        " If it is stopped, wait that long, or remove it with Kafka's Admin.removeMembersFromConsumerGroup"
    )
