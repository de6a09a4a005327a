# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Patroni says of a cluster and its members. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

LEADER_ROLES = ("leader", "master", "primary", "standby_leader")
"""Roles in /cluster of who holds the leader key; the words changed over the versions."""
PRIMARY_ROLES = ("master", "primary")
"""Roles in /patroni of a server that accepts writes."""
SYNC_ROLES = ("sync_standby", "quorum_standby")
RUNNING = ("running", "streaming", "in archive recovery")
"""States of a PostgreSQL that serves; replicas say more than ``running`` since Patroni 3.0.4."""
DEFAULT_MAX_LAG = 1048576
"""Bytes that Patroni takes for maximum_lag_on_failover where the configuration does not say it."""

Json = dict[str, t.Any]


def format_lsn(position: int) -> str:
    """Return a position in the WAL as PostgreSQL writes it: ``0/5000060``."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


class Status(t.NamedTuple):
    """What a member says of itself in /patroni; ``error`` is why it does not."""

    error: str = ""
    state: str = ""
    role: str = ""
    timeline: int | None = None
    written: int | None = None
    """On a primary: the position in the WAL up to which it has written."""
    received: int | None = None
    replayed: int | None = None
    replay_paused: bool = False
    is_receiving: bool | None = None
    """Whether another server sends it WAL just now; None where Patroni does not say so.

    It does since 3.0.4, but not where a restore_command is set and nothing streams.
    """
    streaming: frozenset[str] = frozenset()
    """Names of the servers that stream from it."""
    clients: frozenset[tuple[str, str]] = frozenset()
    """Names and addresses of these."""
    started_at: str = ""
    pending_restart: bool = False
    pending_reason: str = ""
    """Which settings wait for it, and their values; Patroni says so since 4.0."""
    system_identifier: str = ""
    scope: str = ""
    name: str = ""
    """Its own name, which Patroni says since 3.1."""
    version: str = ""
    dcs_age: float | None = None
    """Seconds since it has read the DCS, by its own clock."""

    @property
    def accepts_writes(self) -> bool:
        """Whether it is a primary that runs."""
        return not self.error and self.role in PRIMARY_ROLES and self.state in RUNNING

    @property
    def position(self) -> int | None:
        """Return the end of the WAL that it has, None if it is not known."""
        known = [position for position in (self.written, self.received, self.replayed) if position is not None]
        return max(known) if known else None

    @classmethod
    def from_answer(cls, answer: Json, date: float | None = None) -> Status:
        """Read the answer of /patroni, which was given at ``date``."""
        dcs_last_seen = _as_int(answer.get("dcs_last_seen"))
        xlog = answer.get("xlog") or {}
        patroni = answer.get("patroni") or {}
        streams = [entry for entry in answer.get("replication") or [] if entry.get("state") == "streaming"]
        return cls(
            state=str(answer.get("state") or ""),
            role=str(answer.get("role") or ""),
            timeline=_as_int(answer.get("timeline")),
            written=_as_int(xlog.get("location")),
            received=_as_int(xlog.get("received_location")),
            replayed=_as_int(xlog.get("replayed_location")),
            replay_paused=xlog.get("paused") is True,
            is_receiving=_read_receiving(answer, str(patroni.get("version") or "")),
            streaming=frozenset(str(entry.get("application_name")) for entry in streams),
            clients=frozenset((str(entry.get("application_name")), str(entry.get("client_addr"))) for entry in streams),
            started_at=str(answer.get("postmaster_start_time") or ""),
            pending_restart=bool(answer.get("pending_restart")),
            pending_reason=_tell_settings(answer.get("pending_restart_reason")),
            system_identifier=str(answer.get("database_system_identifier") or ""),
            scope=str(patroni.get("scope") or ""),
            name=str(patroni.get("name") or ""),
            version=str(patroni.get("version") or ""),
            dcs_age=None if date is None or not dcs_last_seen else max(0.0, date - dcs_last_seen),
        )


def _tell_settings(reason: t.Any) -> str:
    """Return the settings that wait for a restart with the values that they have and are to have."""
    if not isinstance(reason, dict):
        return ""
    words = []
    for name, values in sorted(reason.items()):
        both = values if isinstance(values, dict) else {}
        words.append(f"{name} {both.get('old_value', '?')} -> {both.get('new_value', '?')}")
    return ", ".join(words)


class Member(t.NamedTuple):
    """A member of /cluster with its own status."""

    name: str
    role: str
    state: str
    api_url: str
    host: str = ""
    port: int | None = None
    tags: t.Mapping[str, t.Any] = {}
    known_lag: int | None = None
    """Bytes behind what the leader last noted in the DCS, as /cluster has it."""
    pending_restart: bool = False
    status: Status = Status(error="it was not asked")

    @property
    def is_leader(self) -> bool:
        """Whether it holds the leader key."""
        return self.role in LEADER_ROLES

    @property
    def is_sync(self) -> bool:
        """Whether it confirms the primary's commits."""
        return self.role in SYNC_ROLES

    @property
    def is_running(self) -> bool:
        """Whether its PostgreSQL serves, as it says itself."""
        return not self.status.error and self.status.state in RUNNING

    @property
    def needs_restart(self) -> bool:
        """Whether Patroni says that settings wait for a restart: its member, or where that does not answer the DCS."""
        return self.pending_restart if self.status.error else self.status.pending_restart

    @property
    def priority(self) -> int:
        """Return the tag failover_priority as Patroni reads it: the tag nofailover counts before it, below 0 is 0."""
        nofailover = self.tags.get("nofailover")
        if nofailover is not None:
            return 0 if nofailover in (True, "true", "True", "on", "yes", 1) else 1
        priority = _as_int(self.tags.get("failover_priority"))
        return 1 if priority is None else max(0, priority)

    def has_tags(self, tags: t.Mapping[str, t.Any]) -> bool:
        """Return whether it has each of these tags, by their texts."""
        return all(name in self.tags and _as_text(self.tags[name]) == _as_text(value) for name, value in tags.items())

    @classmethod
    def from_answer(cls, answer: Json, status: Status) -> Member:
        """Read an entry of ``members``."""
        return cls(
            name=str(answer["name"]),
            role=str(answer.get("role") or ""),
            state=str(answer.get("state") or ""),
            api_url=str(answer.get("api_url") or ""),
            host=str(answer.get("host") or ""),
            port=_as_int(answer.get("port")),
            tags=dict(answer.get("tags") or {}),
            known_lag=_as_int(answer.get("receive_lag", answer.get("lag"))),
            pending_restart=bool(answer.get("pending_restart")),
            status=status,
        )


class Cluster(t.NamedTuple):
    """A cluster as /cluster, /config and each member's /patroni have it at one time."""

    members: tuple[Member, ...]
    paused: bool
    config: Json
    scheduled_switchover: Json

    @property
    def leader(self) -> Member | None:
        """Return who holds the leader key."""
        return next((member for member in self.members if member.is_leader), None)

    @property
    def scope(self) -> str:
        """Return the cluster's name in the DCS; empty when no member answers."""
        return next((member.status.scope for member in self.members if member.status.scope), "")

    @property
    def system_identifier(self) -> str:
        """Return the identity of the data: the leader's, or else any member's."""
        ordered = sorted(self.members, key=lambda member: not member.is_leader)
        return next((m.status.system_identifier for m in ordered if m.status.system_identifier), "")

    @property
    def title(self) -> str:
        """Return the object of a message."""
        return f"Patroni cluster {self.scope}" if self.scope else "Patroni cluster"

    @property
    def primaries(self) -> list[Member]:
        """Return all members that accept writes."""
        return [member for member in self.members if member.status.accepts_writes]

    @property
    def timeline(self) -> int | None:
        """Return the leader's timeline, or without a leader the newest of all."""
        if self.leader is not None and self.leader.status.timeline is not None:
            return self.leader.status.timeline
        timelines = [m.status.timeline for m in self.members if m.status.timeline is not None]
        return max(timelines, default=None)

    @property
    def position(self) -> int | None:
        """Return the end of the WAL: the leader's, or without one the furthest of all."""
        if self.leader is not None and self.leader.status.position is not None:
            return self.leader.status.position
        return max((p for m in self.members if (p := m.status.position) is not None), default=None)

    @property
    def has_synchronous_mode(self) -> bool:
        """Whether it is configured, also where it counts for nothing as long as this is a standby cluster."""
        return self.config.get("synchronous_mode") not in (None, False, "off", "false", "no")

    @property
    def is_synchronous(self) -> bool:
        """Whether only members that confirm commits may be promoted."""
        # Patroni disregards it in a standby cluster, where nobody commits.
        return self.has_synchronous_mode and not self.is_standby_cluster

    @property
    def is_quorum(self) -> bool:
        """Whether any so many of the members that confirm commits are enough for each commit."""
        return self.is_synchronous and self.config.get("synchronous_mode") == "quorum"

    @property
    def synchronous_node_count(self) -> int:
        """Return how many members confirm each commit."""
        return _as_int(self.config.get("synchronous_node_count")) or 1

    @property
    def is_standby_cluster(self) -> bool:
        """Whether the cluster follows another one: for Patroni, where the section says from where."""
        section = self.config.get("standby_cluster")
        return isinstance(section, dict) and any(section.get(key) for key in ("host", "port", "restore_command"))

    @property
    def max_lag(self) -> int:
        """Return maximum_lag_on_failover, in bytes."""
        max_lag = _as_int(self.config.get("maximum_lag_on_failover"))
        return DEFAULT_MAX_LAG if max_lag is None else max_lag

    @property
    def loop_wait(self) -> int:
        """Return the seconds between two looks of Patroni at the DCS."""
        return _as_int(self.config.get("loop_wait")) or 10

    @property
    def ttl(self) -> int:
        """Return the seconds after which the key of a leader that is gone ends."""
        return _as_int(self.config.get("ttl")) or 30

    @property
    def max_dcs_age(self) -> int:
        """Return the seconds after which a member that has not read the DCS is without it: two rounds of Patroni's."""
        return 2 * self.loop_wait + (_as_int(self.config.get("retry_timeout")) or 10) // 2

    def has_lost_dcs(self, member: Member) -> bool:
        """Return whether a member that answers has not read the DCS for too long."""
        return member.status.dcs_age is not None and member.status.dcs_age > self.max_dcs_age

    def get(self, name: str) -> Member | None:
        """Return the member of this name."""
        return next((member for member in self.members if member.name == name), None)

    def find_sources(self, name: str) -> frozenset[str]:
        """Return the addresses from which servers of a name stream from a member that answers."""
        answering = [member.status for member in self.members if not member.status.error]
        return frozenset(address for status in answering for client, address in status.clients if client == name)

    def measure_lag(self, member: Member) -> tuple[int | None, int | None]:
        """Return the bytes of WAL that a member has not received, and not replayed; None where it is not known."""
        end, status = self.position, member.status
        received = status.received if status.received is not None else status.replayed
        if end is None:
            return None, None
        receive_lag = None if received is None else max(0, end - received)
        if receive_lag is not None and (self.leader is None or self.leader.status.position is None):
            # What a leader that is gone had is known from its last note only.
            receive_lag = max(receive_lag, member.known_lag or 0)
        replay_lag = None if status.replayed is None else max(0, end - status.replayed)
        return receive_lag, replay_lag


def parse_version(version: str) -> tuple[int, ...]:
    """Return the numbers of a version of Patroni, none where it says none."""
    numbers = version.split(".")
    return tuple(int(number) for number in numbers) if all(number.isdigit() for number in numbers) else ()


def _read_receiving(answer: Json, version: str) -> bool | None:
    """Return whether a member streams, None where the absence of the word says nothing."""
    said = (answer.get("replication_state"), answer.get("state"))
    if "streaming" in said:
        return True
    is_silent = "in archive recovery" in said or parse_version(version) < (3, 0, 4)
    return None if is_silent else False


def _as_int(value: t.Any) -> int | None:
    try:
        return None if value is None or isinstance(value, bool) else int(value)
    except (TypeError, ValueError):
        return None


def _as_text(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
