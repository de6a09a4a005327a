# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences about clusters for summaries. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.text import format_size
from .plan import Move, find_obstacle
from .state import Cluster


def summarize_move(move: Move | None, cluster: Cluster, restarted: t.Sequence[str], *, check_mode: bool) -> str:
    """Return one line that says who leads and what was done for it."""
    parts = []
    if restarted:
        parts.append(f"{'would restart' if check_mode else 'restarted'} {', '.join(restarted)}")
    if move is not None and check_mode:
        parts.append(f"would move the leader of {cluster.scope} to {move.candidate.name} by {move.action} ({move.why})")
    elif move is not None:
        leader = cluster.leader.name if cluster.leader else "nobody"
        was = f", was {move.leader.name}" if move.leader else ""
        parts.append(f"{leader} leads {cluster.scope} on timeline {cluster.timeline}{was} ({move.action})")
    if parts:
        return "; ".join(parts)
    leader = cluster.leader.name if cluster.leader else "nobody"
    return f"{leader} leads {cluster.scope} already, on timeline {cluster.timeline}"


def summarize_cluster(cluster: Cluster) -> str:
    """Return one line about a cluster: leader, members, worst lag."""
    leader = cluster.leader.name if cluster.leader else "nobody"
    running = sum(member.is_running for member in cluster.members)
    lags = [lag for member in cluster.members if not member.is_leader for lag in cluster.measure_lag(member) if lag]
    parts = [
        f"{cluster.scope}: {leader} leads on timeline {cluster.timeline}",
        f"{running} of {len(cluster.members)} members run",
        f"lag up to {format_size(max(lags, default=0))}",
    ]
    if cluster.is_standby_cluster:
        parts.append("it is a standby cluster")
    if cluster.paused:
        parts.append("it is paused")
    return ", ".join(parts)


def list_evidence(cluster: Cluster) -> list[str]:
    """Return a line for each member."""
    lines = []
    for member in cluster.members:
        status = member.status
        role = "leader" if member.is_leader else member.role
        if status.error:
            lines.append(f"{member.name}: {role}, {status.error}")
            continue
        line = f"{member.name}: {role}, {status.state}, timeline {status.timeline}"
        if not member.is_leader:
            receive_lag, replay_lag = cluster.measure_lag(member)
            line += f", lag {receive_lag} bytes to receive, {replay_lag} to replay"
            obstacle = find_obstacle(cluster, member, cluster.max_lag)
            line += f", may not take over ({obstacle})" if obstacle else ""
        lines.append(line)
    return lines
