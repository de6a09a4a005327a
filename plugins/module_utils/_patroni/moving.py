# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask Patroni for another leader and follow it to a verdict, whatever becomes of the answer.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError, OutcomeUnknown, Refusal, WaitFailed, WaitTimeout
from .._common.outcome import Outcome
from .._common.retry import Deadline
from .client import Answer, Client
from .plan import Leadership, Move, check_single_primary
from .state import Cluster, Member

INTERVAL = 0.05
"""Seconds between two looks at the cluster while it changes."""
REJECTED = range(400, 500)


def send_move(client: Client, move: Move, outcome: Outcome, deadline: Deadline) -> str:
    """Ask for the move. Return what Patroni said, empty where its answer was lost. Raises Refusal for a rejection."""
    body: dict[str, t.Any] = {"candidate": move.candidate.name}
    if move.leader is not None and move.action == "switchover":
        body["leader"] = move.leader.name
    attempted_before, outcome.write_attempted = outcome.write_attempted, True
    try:
        answer = client.write(f"/{move.action}", body, timeout=max(deadline.remaining, 1.0))
    except OutcomeUnknown:
        outcome.changed = True
        return ""
    except Refusal:
        outcome.write_attempted = attempted_before
        raise
    if answer.code in REJECTED:
        outcome.write_attempted = attempted_before
        raise Refusal(
            obj=f"{move.action} to {move.candidate.name}",
            problem=f"Patroni rejects it: {answer.code} {_quote(answer)}",
            next_step="Look at the members with patroni_cluster_info, correct what stands against it, and run again",
        )
    outcome.changed = True
    return f"{answer.code} {_quote(answer)}"


def follow_move(
    client: Client, before: Cluster, move: Move, leadership: Leadership, *, said: str, deadline: Deadline
) -> Cluster:
    """Return the cluster once a declared member leads and the old leader follows it. Raises WaitError otherwise."""
    cluster = wait_for_leader(client, before, move, said, deadline)
    leader = cluster.leader
    if leader is not None and not leadership.admits(leader):
        raise WaitFailed(
            obj=cluster.title,
            problem=f"{leader.name} leads instead of {leadership}, so that {move.candidate.name} could not take over",
            next_step="Look at its log; run again once it can",
        )
    gone = move.leader.name if move.leader is not None and move.action == "failover" else ""
    return wait_whole(client, cluster, before, deadline, without=gone)


def wait_for_leader(client: Client, before: Cluster, move: Move, said: str, deadline: Deadline) -> Cluster:
    """Return the cluster once another member than before leads and serves."""
    patience = Deadline(2.0 * max(10, before.loop_wait) + (before.ttl if move.action == "failover" else 0))
    last = "nobody has answered since"
    while True:
        cluster = _read_quietly(client, before)
        if cluster is not None:
            leader = cluster.leader
            last = f"{leader.name if leader else 'nobody'} leads"
            if (
                leader is not None
                and (move.leader is None or leader.name != move.leader.name)
                and serves(cluster, leader)
            ):
                return cluster
            is_kept = leader is not None and move.leader is not None and leader.name == move.leader.name
            gave_up = said.startswith("503") and "failed" in said
            if is_kept and leader is not None and leader.is_running and (gave_up or patience.passed):
                raise WaitFailed(
                    obj=f"{move.action} to {move.candidate.name}",
                    problem=f"{leader.name} leads as before; Patroni's answer was {said or 'lost'}",
                    next_step=f"Look at the logs of {leader.name} and {move.candidate.name}, and run again",
                )
        if deadline.passed:
            raise WaitTimeout(
                obj=f"{move.action} to {move.candidate.name}",
                problem=f"{last} after {deadline.seconds:.0f} s; Patroni's answer was {said or 'lost'}",
                next_step="Run again to go on waiting, or look at the members' logs",
            )
        deadline.pause(INTERVAL)


def serves(cluster: Cluster, leader: Member) -> bool:
    """Return whether a leader does what its cluster is for: accept writes, or follow another cluster."""
    return leader.is_running if cluster.is_standby_cluster else leader.status.accepts_writes


def wait_whole(client: Client, cluster: Cluster, before: Cluster, deadline: Deadline, *, without: str = "") -> Cluster:
    """Return the cluster once every member that ran before follows the leader, as ready to take over as before.

    ``without``: a member that is known to be gone. Raises WaitTimeout that names who does not follow.
    """
    names = [member.name for member in before.members if member.is_running and member.name != without]
    current: Cluster | None = cluster
    lacking = ["no member has answered since"]
    while True:
        if current is not None:
            check_single_primary(current)
            lacking = [*list_lacking(current, names), *list_unready(current, before, names)]
            if not lacking:
                return current
        if deadline.passed:
            raise WaitTimeout(
                obj=cluster.title,
                problem=f"after {deadline.seconds:.0f} s it is not whole: {'; '.join(lacking)}",
                next_step="Look at the logs of these members; run again to go on waiting",
            )
        deadline.pause(INTERVAL)
        current = _read_quietly(client, before)


def list_lacking(cluster: Cluster, names: t.Iterable[str]) -> list[str]:
    """Return what keeps each of these members from following the leader, or from being it."""
    leader = cluster.leader
    if leader is None or not serves(cluster, leader):
        return ["no leader serves"]
    problems = []
    for name in names:
        member = cluster.get(name)
        if member is None:
            problems.append(f"{name} is not in the cluster any more")
        elif member.is_leader:
            continue
        elif not member.is_running:
            problems.append(f"{name} is {member.status.error or member.status.state}")
        elif member.status.accepts_writes:
            problems.append(f"{name} accepts writes")
        elif member.status.timeline != leader.status.timeline:
            problems.append(
                f"{name} is on timeline {member.status.timeline}, {leader.name} on {leader.status.timeline}"
            )
        elif not _follows(cluster, member):
            problems.append(f"{name} does not stream from {leader.name}")
    return problems


def list_unready(cluster: Cluster, before: Cluster, names: t.Collection[str]) -> list[str]:
    """Return what keeps members from taking over that a restart or a move has caused, and that passes.

    Patroni counts a member among those that confirm commits only some rounds after it streams, and one that was away
    has to replay what it has missed.
    """
    problems = []
    followers = [m for m in cluster.members if m.name in names and not m.is_leader]
    # Patroni itself gives a member the tag nosync while it restarts, so that it counts as it was before.
    able = [member for member in followers if not _has_nosync(before.get(member.name) or member)]
    wanted = min(sum(member.is_sync for member in before.members), len(able))
    confirming = sum(member.is_sync for member in cluster.members)
    if cluster.is_synchronous and confirming < wanted:
        problems.append(f"{confirming} of {wanted} members confirm commits (synchronous_mode)")
    for member in followers:
        old = before.get(member.name)
        lag, old_lag = (
            max((n for n in c.measure_lag(m) if n is not None), default=0)
            for c, m in ((cluster, member), (before, old or member))
        )
        if lag > before.max_lag >= old_lag:
            problems.append(f"{member.name} lags by {lag} bytes, more than {before.max_lag}")
    return problems


def _has_nosync(member: Member) -> bool:
    return member.tags.get("nosync") in (True, "true", "True", "on", "yes", 1)


def _follows(cluster: Cluster, member: Member) -> bool:
    """Return whether somebody sends it WAL: the leader, or another member where replication is cascading.

    The member itself answers as a standby, and since 3.0.4 whether it receives any. So its name is enough, whatever
    address the leader sees it at.
    """
    is_sent = any(member.name in one.status.streaming for one in cluster.members)
    return is_sent and member.status.is_receiving is not False


def _read_quietly(client: Client, before: Cluster) -> Cluster | None:
    """Return the cluster, None while nobody can say what it is."""
    try:
        return client.read_cluster(before.config)
    except Refusal:
        return None


def _quote(answer: Answer) -> str:
    return " ".join(answer.text.split())[:200]


def explain_timeline(before: Cluster, after: Cluster) -> str:
    """Return a line about the timeline. Raises OpsError where it has not risen, which a promotion always does."""
    old, new = before.timeline, after.timeline
    if old is not None and new is not None and new <= old and not after.is_standby_cluster:
        raise OpsError(
            obj=after.title,
            problem=f"its timeline is {new} and was {old} before, so that what leads was not promoted",
            next_step="Look at /history and at the logs of all members",
        )
    return f"timeline {old} -> {new}"
