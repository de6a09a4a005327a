# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may lead a cluster, and what has to be asked of Patroni for it: decisions without a server.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import datetime
import typing as t

from .._common.errors import Refusal
from .state import RUNNING, Cluster, Member, format_lsn


class Leadership(t.NamedTuple):
    """Who is to lead: a member by name, or any that has all of these tags (both empty: whoever leads)."""

    name: str = ""
    tags: t.Mapping[str, t.Any] = {}

    def admits(self, member: Member) -> bool:
        """Return whether this member is one that may lead."""
        return (not self.name or member.name == self.name) and member.has_tags(self.tags)

    def __str__(self) -> str:
        tags = ", ".join(f"{name}={value}" for name, value in self.tags.items())
        return " with tags ".join(part for part in (self.name or ("a member" if tags else ""), tags) if part)


class Move(t.NamedTuple):
    """What Patroni is to be asked: ``action`` is switchover, or failover where no leader is to be waited for."""

    action: str
    candidate: Member
    leader: Member | None
    why: str


class Limits(t.NamedTuple):
    """``max_lag`` in bytes of WAL; ``allow_failover``: a leader that is gone may be replaced."""

    max_lag: int
    allow_failover: bool = False


def plan_move(cluster: Cluster, leadership: Leadership, limits: Limits) -> Move | None:
    """Return what to ask so that the declared member leads, None when it does. Raises Refusal where it must not."""
    check_declared(cluster, leadership)
    leader = cluster.leader
    check_single_primary(cluster)
    if leader is not None and leader.is_running and leadership.admits(leader):
        check_serves(cluster, leader)
        return None
    why_gone = explain_gone(cluster)
    if why_gone and not limits.allow_failover:
        raise Refusal(
            obj=cluster.title,
            problem=f"{why_gone}, so that this is no switchover but a failover, and what no standby has is lost",
            next_step="Wait until Patroni has elected a leader (at most about"
            f" {cluster.ttl + cluster.loop_wait} s after the last one ended), or set allow_failover: true",
        )
    check_ready(cluster)
    if why_gone:
        candidate = choose_candidate(cluster, leadership, limits.max_lag, rank=rank_by_wal)
        check_has_most(cluster, candidate)
        return Move("failover", candidate, leader, why_gone)
    candidate = choose_candidate(cluster, leadership, limits.max_lag)
    why = f"{leader.name if leader else 'nobody'} leads, and {leadership} is declared"
    return Move("switchover", candidate, leader, why)


def check_serves(cluster: Cluster, leader: Member) -> None:
    """Raise Refusal where a member has the leader key and does not do yet what the cluster is for."""
    if not cluster.is_standby_cluster and not leader.status.accepts_writes:
        raise Refusal(
            obj=cluster.title,
            problem=f"{leader.name} has the leader key, and is {leader.status.role}, so that nobody accepts writes",
            next_step="Look at its log (its promotion may hang, for example in pre_promote), and run again",
        )


def explain_gone(cluster: Cluster) -> str:
    """Return why there is no leader that could hand over, empty when there is one."""
    leader = cluster.leader
    if leader is None:
        return "nobody holds the leader key"
    if leader.status.error:
        return f"the leader {leader.name} does not answer: {leader.status.error}"
    if not leader.is_running:
        return f"PostgreSQL of the leader {leader.name} is {leader.status.state or 'in no state that it says'}"
    return ""


def check_declared(cluster: Cluster, leadership: Leadership) -> None:
    """Raise Refusal where no member could ever be the declared one."""
    names = [member.name for member in cluster.members]
    if leadership.name and leadership.name not in names:
        raise Refusal(
            obj=cluster.title,
            problem=f"it has no member {leadership.name}; its members are {', '.join(names)}",
            next_step="Correct leader",
        )
    if not any(leadership.admits(member) for member in cluster.members):
        tags = "; ".join(f"{m.name}: {dict(m.tags) or 'none'}" for m in cluster.members)
        raise Refusal(
            obj=cluster.title,
            problem=f"no member is {leadership}; their tags are {tags}",
            next_step="Correct leader_tags, or the tags in the members' configuration",
        )


def check_single_primary(cluster: Cluster) -> None:
    """Raise Refusal where more than one member accepts writes."""
    primaries = cluster.primaries
    if len(primaries) > 1:
        timelines = ", ".join(f"{member.name} (timeline {member.status.timeline})" for member in primaries)
        raise Refusal(
            obj=cluster.title,
            problem=f"{len(primaries)} members accept writes: {timelines}",
            next_step="Stop the one that must not, and look for rows that only it has, before anything else",
        )


def check_ready(cluster: Cluster) -> None:
    """Raise Refusal where the cluster is paused, or a switchover of somebody else is to come."""
    if cluster.paused:
        raise Refusal(
            obj=cluster.title,
            problem="it is paused (maintenance mode), so that Patroni neither elects a leader nor repairs what fails",
            next_step="End the pause first (PATCH /config with pause: null, or patronictl resume), or leave the leader",
        )
    scheduled = cluster.scheduled_switchover
    if scheduled:
        raise Refusal(
            obj=cluster.title,
            problem=f"a switchover is scheduled, at {scheduled.get('at')} to {scheduled.get('to') or 'any member'}",
            next_step="Wait for it, or take it back (DELETE /switchover)",
        )


def rank_candidate(cluster: Cluster, member: Member) -> tuple[bool, int, int, int, str]:
    """Return what candidates are ordered by: who confirms commits, then priority, then lag, then name."""
    receive_lag, replay_lag = cluster.measure_lag(member)
    return not member.is_sync, -member.priority, receive_lag or 0, replay_lag or 0, member.name


def rank_by_wal(cluster: Cluster, member: Member) -> tuple[int, bool, int, int, str]:
    """Return what candidates are ordered by where nobody hands over: WAL, then as else among those that have as much.

    Patroni promotes a named candidate without a comparison then, and what it lacks is lost.
    """
    is_async, priority, _receive_lag, replay_lag, name = rank_candidate(cluster, member)
    return -(member.status.position or 0), is_async, priority, replay_lag, name


def check_has_most(cluster: Cluster, candidate: Member) -> None:
    """Raise Refusal where a standby has WAL that the candidate of a failover lacks, or may have acknowledged such.

    With quorum commit a row that was acknowledged is on as many standbys as synchronous_node_count says, and nobody
    knows on which: unless fewer are silent, one of those that answer has it.
    """
    own = candidate.status.position or 0
    standbys = [member for member in cluster.members if not member.is_leader and member.name != candidate.name]
    # WAL of an older timeline is of a history that has been left.
    current = [m for m in standbys if m.status.timeline is None or m.status.timeline == candidate.status.timeline]
    ahead = {m.name: m.status.position - own for m in current if m.status.position is not None}
    ahead = {name: size for name, size in ahead.items() if size > 0}
    if ahead:
        described = "; ".join(f"{name} has {size} bytes of WAL more" for name, size in ahead.items())
        raise Refusal(
            obj=cluster.title,
            problem=f"{candidate.name} would take over, and {described}, which would be lost",
            next_step=f"Declare {max(ahead, key=ahead.__getitem__)} as the leader, or correct what stands against it",
        )
    _refuse_silent(cluster, candidate, standbys)
    silent = [member.name for member in standbys if member.is_sync and member.status.position is None]
    if cluster.is_quorum and len(silent) >= cluster.synchronous_node_count:
        raise Refusal(
            obj=cluster.title,
            problem=f"synchronous_mode is quorum with {cluster.synchronous_node_count} to confirm each commit, and the"
            f" position of {', '.join(silent)} is not known, so that {candidate.name} may lack acknowledged rows",
            next_step="Bring them back until they say their position, and run again",
        )


def _refuse_silent(cluster: Cluster, candidate: Member, standbys: t.Sequence[Member]) -> None:
    """Raise Refusal where a standby is silent that had, when it was noted last, more WAL than the candidate.

    Where members confirm commits the candidate is one of them, and has what was acknowledged.
    """
    if cluster.is_synchronous:
        return
    own = cluster.measure_lag(candidate)[0] or 0
    ahead = [
        f"{m.name} lacked {'an unknown number of' if m.known_lag is None else m.known_lag} bytes"
        for m in standbys
        if m.status.position is None and m.state in RUNNING and (m.known_lag is None or m.known_lag < own)
    ]
    if ahead:
        raise Refusal(
            obj=cluster.title,
            problem=f"{candidate.name}, which lacks {own} bytes of the leader's WAL, would take over, and a standby"
            f" that does not answer may have more: by /cluster {'; '.join(ahead)}",
            next_step="Bring it back until it says its position; where that cannot be, run again once it has left"
            f" /cluster (ttl is {cluster.ttl} s)",
        )


def choose_candidate(
    cluster: Cluster,
    leadership: Leadership,
    max_lag: int,
    *,
    rank: t.Callable[[Cluster, Member], t.Any] = rank_candidate,
) -> Member:
    """Return the best member that may take over. Raises Refusal with the reason and number of each that may not."""
    standbys = [member for member in cluster.members if not member.is_leader and leadership.admits(member)]
    reasons = {member.name: find_obstacle(cluster, member, max_lag) for member in standbys}
    eligible = [member for member in standbys if not reasons[member.name]]
    if not eligible:
        described = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        described = described or f"no standby is {str(leadership) or 'there'}"
        raise Refusal(
            obj=cluster.title,
            problem=f"no candidate may take over ({described})",
            next_step="Correct what stands against one of them, or declare another leader",
        )
    return min(eligible, key=lambda member: rank(cluster, member))


def find_obstacle(cluster: Cluster, member: Member, max_lag: int) -> str:
    """Return why a member may not take over, with the value seen; empty when it may."""
    status = member.status
    if status.error:
        return status.error
    if cluster.has_lost_dcs(member):
        return f"it has not read the DCS for {status.dcs_age:.0f} s"
    if not member.is_running:
        return f"its PostgreSQL is {status.state or member.state or 'in no state that it says'}"
    if member.priority == 0:
        tag = "nofailover" if "nofailover" in member.tags else "failover_priority"
        return f"tag {tag} is {member.tags[tag]}"
    return _find_difference(cluster, member, max_lag)


def _find_difference(cluster: Cluster, member: Member, max_lag: int) -> str:
    """Return what a member that runs does not have of the leader's data, empty when it has it."""
    timeline = member.status.timeline
    if cluster.timeline is not None and timeline is not None and timeline != cluster.timeline:
        return f"it is on timeline {timeline}, and the cluster on {cluster.timeline}"
    if cluster.is_synchronous and not member.is_sync:
        return "synchronous_mode is on, and it does not confirm commits"
    receive_lag, replay_lag = cluster.measure_lag(member)
    if receive_lag is None or replay_lag is None:
        return "its lag is not known"
    paused = ", and replay is paused" if member.status.replay_paused else ""
    if receive_lag > max_lag:
        return f"it lacks {receive_lag} bytes of WAL, more than max_lag {max_lag}{paused}"
    if replay_lag > max_lag:
        return f"it has {replay_lag} bytes of WAL to replay, more than max_lag {max_lag}{paused}"
    return ""


def list_restarts(cluster: Cluster, started_after: float | None, *, pending: bool) -> list[Member]:
    """Return the members to restart, standbys first: those with settings that wait, or that run since too long ago."""
    due = [member for member in cluster.members if explain_restart(member, started_after, pending=pending)]
    return sorted(due, key=lambda member: (member.is_leader, member.name))


def explain_restart(member: Member, started_after: float | None, *, pending: bool) -> str:
    """Return why a member has to be restarted, empty when it has not."""
    if pending and member.needs_restart:
        return "pending_restart is set" + (f" ({member.status.pending_reason})" if member.status.pending_reason else "")
    if started_after is not None and member.is_running:
        started_at = parse_time(member.status.started_at)
        if started_at is not None and started_at < started_after:
            return f"it runs since {member.status.started_at}"
    return ""


def parse_time(text: str) -> float | None:
    """Return the seconds since the epoch of a time with its zone as Patroni writes it, None for what is none."""
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


def describe_member(cluster: Cluster, member: Member) -> dict[str, t.Any]:
    """Return a member as a result shows it."""
    receive_lag, replay_lag = cluster.measure_lag(member)
    status = member.status
    return {
        "name": member.name,
        "role": member.role,
        "state": status.state or member.state,
        "timeline": status.timeline,
        "position": None if status.position is None else format_lsn(status.position),
        "receive_lag": None if member.is_leader else receive_lag,
        "replay_lag": None if member.is_leader else replay_lag,
        "replay_paused": status.replay_paused,
        "tags": dict(member.tags),
        "pending_restart": member.needs_restart,
        "started_at": status.started_at,
        "host": member.host,
        "port": member.port,
        "api_url": member.api_url,
        "version": status.version,
        "error": status.error,
    }


def describe_cluster(cluster: Cluster) -> dict[str, t.Any]:
    """Return a cluster as a result shows it."""
    leader = cluster.leader
    return {
        "scope": cluster.scope,
        "system_identifier": cluster.system_identifier,
        "leader": leader.name if leader else None,
        "timeline": cluster.timeline,
        "paused": cluster.paused,
        "synchronous": cluster.is_synchronous,
        "standby_cluster": cluster.config.get("standby_cluster"),
        "max_lag": cluster.max_lag,
        "scheduled_switchover": cluster.scheduled_switchover or None,
        "members": [describe_member(cluster, member) for member in cluster.members],
    }
