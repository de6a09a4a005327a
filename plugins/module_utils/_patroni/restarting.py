# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart the PostgreSQL of one member and wait until it serves again.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from .._common.errors import OutcomeUnknown, Refusal, WaitFailed, WaitTimeout
from .._common.outcome import Outcome
from .._common.retry import Deadline
from .client import Client, Unreadable, strip_api_url
from .moving import INTERVAL, REJECTED, list_lacking, list_unready
from .state import Cluster, Json, Member

UNSATISFIED = "restart conditions are not satisfied"
"""Patroni's words, with 503, for a restart whose conditions do not hold."""


def restart_member(client: Client, cluster: Cluster, member: Member, outcome: Outcome, deadline: Deadline) -> Cluster:
    """Restart a member. Return the cluster once it has another start time and follows, or leads, as before.

    An answer that is lost is no verdict: the start time is. Patroni is told what the restart rests on, and restarts
    nothing where that does not hold any more: a standby may lead by now, and writes would stop for its restart.
    """
    conditions: Json = {} if member.is_leader else {"role": "replica"}
    if member.needs_restart:
        conditions["restart_pending"] = True
    attempted_before, outcome.write_attempted = outcome.write_attempted, True
    said = "its answer was lost"
    try:
        address, seconds = strip_api_url(member.api_url), max(deadline.remaining, 1.0)
        answer = client.write("/restart", conditions, url=address, timeout=seconds)
    except OutcomeUnknown:
        outcome.changed = True
    except Refusal:
        outcome.write_attempted = attempted_before
        raise
    else:
        said = f"{answer.code} {' '.join(answer.text.split())[:200]}"
        if answer.code in REJECTED:
            outcome.write_attempted = attempted_before
            raise Refusal(
                obj=f"member {member.name}",
                problem=f"Patroni rejects its restart: {said}",
                next_step="Look at its log, and run again",
            )
        if answer.code == 503 and UNSATISFIED in answer.text:
            outcome.write_attempted = attempted_before
            return _judge_again(client, member, said)
        outcome.changed = True
    return _wait_restarted(client, cluster, member, said, deadline)


def _judge_again(client: Client, member: Member, said: str) -> Cluster:
    """Return the cluster where a member does not need its restart any more. Raises WaitFailed where it does."""
    cluster = client.read_cluster()
    current = cluster.get(member.name)
    if current is not None and member.needs_restart and not current.needs_restart:
        return cluster
    leads = current is not None and current.is_leader and not member.is_leader
    if leads:
        raise WaitFailed(
            obj=f"member {member.name}",
            problem=f"it was not restarted, since it leads by now: {said}",
            next_step="Run again: a leader hands over before its restart",
        )
    raise WaitFailed(
        obj=f"member {member.name}",
        problem=f"it was not restarted: {said}",
        next_step="Look at its log, and run again",
    )


def _wait_restarted(client: Client, before: Cluster, member: Member, said: str, deadline: Deadline) -> Cluster:
    names = [other.name for other in before.members if other.is_running]
    problem = f"{member.name} has not answered since"
    while True:
        try:
            cluster = client.read_cluster(before.config)
        except Unreadable as error:
            problem = error.problem
        else:
            current = cluster.get(member.name)
            if current is not None and current.is_running and current.status.started_at != member.status.started_at:
                lacking = [*list_lacking(cluster, names), *list_unready(cluster, before, names)]
                if not lacking:
                    return cluster
                problem = "; ".join(lacking)
            elif current is not None and current.is_running and said.startswith("503"):
                raise WaitFailed(
                    obj=f"member {member.name}",
                    problem=f"it was not restarted: {said}",
                    next_step="Look at its log, and run again",
                )
            elif current is not None:
                problem = f"{member.name} is {current.status.error or current.status.state}"
        if deadline.passed:
            raise WaitTimeout(
                obj=f"member {member.name}",
                problem=f"{deadline.seconds:.0f} s have passed, and {problem} (restart: {said})",
                next_step="Look at its log; run again to go on",
            )
        deadline.pause(INTERVAL)
