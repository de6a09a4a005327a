# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of patroni_cluster: restart what waits for it, then bring the declared member to lead.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal, WaitFailed
from ..._common.outcome import Outcome, PlanItem
from ..._common.retry import Deadline
from ..arguments import check_dcs, make_client, read_cluster
from ..client import Client
from ..moving import explain_timeline, follow_move, send_move
from ..plan import (
    Leadership,
    Limits,
    Move,
    check_ready,
    check_single_primary,
    choose_candidate,
    describe_cluster,
    explain_restart,
    list_restarts,
    parse_time,
    plan_move,
)
from ..restarting import restart_member
from ..state import Cluster
from ..summary import list_evidence, summarize_move
from ..unheard import Unheard, find_unheard, finish_report, refuse_writers, report_unheard

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

NO_HELP = (
    "See pg_settings where pending_restart, and what is in the way of the setting (ALTER SYSTEM, another file). A"
    " standby does not go below its primary's max_connections, max_worker_processes, max_wal_senders,"
    " max_prepared_transactions and max_locks_per_transaction: to lower one, restart the primary in its place first"
    " (patronictl restart CLUSTER MEMBER; writes stop for it). Then run again"
)


class Run:
    """One run: ``restart`` and ``move`` bring the cluster to what is declared."""

    def __init__(self, client: Client, cluster: Cluster, params: t.Mapping[str, t.Any], outcome: Outcome) -> None:
        self.client, self.cluster, self.outcome = client, cluster, outcome
        self.leadership = Leadership(params["leader"] or "", params["leader_tags"] or {})
        max_lag = cluster.max_lag if params["max_lag"] is None else params["max_lag"]
        self.limits = Limits(max_lag, params["allow_failover"])
        self.pending = params["restart"] == "pending"
        self.started_after = _read_time(params["started_after"])
        self.deadline = Deadline(params["timeout"])
        self.moved: Move | None = None
        self.restarted: list[str] = []

    def plan(self) -> None:
        """Put what is to be done into the outcome. Raises Refusal for what must not be done."""
        due = list_restarts(self.cluster, self.started_after, pending=self.pending)
        if due:
            check_single_primary(self.cluster)
            check_ready(self.cluster)
        for member in due:
            why = explain_restart(member, self.started_after, pending=self.pending)
            what = "restart PostgreSQL"
            if member.is_leader and len(self.cluster.members) > 1:
                candidate = self._find_successor()
                what = f"hand over to {candidate.candidate.name}, then restart PostgreSQL"
            self.outcome.plan.append(PlanItem(f"member {member.name}", what, why))
            self.restarted.append(member.name)
        move = plan_move(self.cluster, self.leadership, self.limits)
        if move is not None:
            self.outcome.plan.append(
                PlanItem(self.cluster.title, f"{move.action} to {move.candidate.name}", move.why, reversible=True)
            )
        self.moved = move
        self.outcome.changed = bool(self.outcome.plan)

    def perform(self) -> None:
        """Do it: standbys are restarted first, the old leader after it has handed over."""
        self.moved, self.restarted = None, []
        self.outcome.changed = False
        due = list_restarts(self.cluster, self.started_after, pending=self.pending)
        for member in due:
            self._restart(member.name)
            if not member.is_leader:
                # What did not help one standby helps none, nor the leader: it would hand over for nothing.
                self._refuse_helpless(member.name)
        self._move(plan_move(self.cluster, self.leadership, self.limits))
        for member in due:
            self._refuse_helpless(member.name)

    def _restart(self, name: str) -> None:
        member = self.cluster.get(name)
        if member is None or not explain_restart(member, self.started_after, pending=self.pending):
            return
        if member.is_leader and len(self.cluster.members) > 1:
            self._move(self._find_successor())
            member = self.cluster.get(name)
        # A leader that hands over is restarted by that as a rule.
        if member is not None and explain_restart(member, self.started_after, pending=self.pending):
            self.cluster = restart_member(self.client, self.cluster, member, self.outcome, self.deadline)
        self.restarted.append(name)

    def _refuse_helpless(self, name: str) -> None:
        """Raise if a member that was restarted is due all the same: again and again it would be."""
        member = self.cluster.get(name)
        why = "" if member is None else explain_restart(member, self.started_after, pending=self.pending)
        if why and name in self.restarted:
            raise WaitFailed(
                obj=f"member {name}",
                problem=f"it was restarted, and waits for a restart all the same: {why}",
                next_step=NO_HELP if "pending" in why else "Correct started_after, or the clocks",
            )

    def _find_successor(self) -> Move:
        """Return the move that frees the leader for its restart: to a declared one, or else to any that may."""
        declared = self.leadership
        is_declared = self.cluster.leader is not None and declared.admits(self.cluster.leader)
        wish = Leadership() if is_declared or not (declared.name or declared.tags) else declared
        candidate = choose_candidate(self.cluster, wish, self.limits.max_lag)
        return Move("switchover", candidate, self.cluster.leader, "the leader is to be restarted")

    def _move(self, move: Move | None) -> None:
        if move is None:
            return
        before = self.cluster
        said = send_move(self.client, move, self.outcome, self.deadline)
        self.moved = move
        admitted = Leadership(move.candidate.name) if "restarted" in move.why else self.leadership
        self.cluster = follow_move(self.client, before, move, admitted, said=said, deadline=self.deadline)
        self.outcome.evidence.append(explain_timeline(before, self.cluster))
        self.outcome.evidence.append(
            f"Patroni's answer: {said}" if said else "Patroni's answer was lost; read from /cluster"
        )


def run_cluster(module: AnsibleModule, outcome: Outcome) -> None:
    """Read the options, plan, act, report."""
    params = module.params
    client = make_client(module, params)
    cluster = read_cluster(client, params)
    check_dcs(cluster)
    run = Run(client, cluster, params, outcome)
    outcome.before = outcome.after = _describe_leader(cluster)
    outcome.facts["cluster"] = describe_cluster(cluster)
    unheard = _find_unheard(client, cluster, outcome)
    run.plan()
    if module.check_mode:
        outcome.after = _predict(cluster, run)
    elif outcome.plan:
        try:
            run.perform()
        finally:
            outcome.waited = run.deadline.elapsed
            outcome.after = _describe_leader(run.cluster)
            outcome.facts["cluster"] = describe_cluster(run.cluster)
        # What has been done may have left one behind: a leader that was gone, or one that Patroni itself has replaced.
        unheard = _find_unheard(client, run.cluster, outcome, before=cluster)
    outcome.summary = summarize_move(run.moved, run.cluster, run.restarted, check_mode=module.check_mode)
    outcome.evidence += list_evidence(run.cluster)
    finish_report(outcome, unheard, module.warn)


def _find_unheard(
    client: Client, cluster: Cluster, outcome: Outcome, *, before: Cluster | None = None
) -> list[Unheard]:
    """Return who is not heard of and may accept no writes. Raises Refusal where one may."""
    unheard = find_unheard(client, cluster, before)
    outcome.blockers = report_unheard(cluster, unheard)
    refuse_writers(cluster, unheard)
    return unheard


def _predict(cluster: Cluster, run: Run) -> dict[str, t.Any]:
    leader = run.moved.candidate.name if run.moved is not None else _describe_leader(cluster)["leader"]
    return (
        {**_describe_leader(cluster), "leader": leader, "pending_restart": []}
        if run.outcome.plan
        else _describe_leader(cluster)
    )


def _describe_leader(cluster: Cluster) -> dict[str, t.Any]:
    leader = cluster.leader
    return {
        "leader": leader.name if leader else None,
        "pending_restart": [member.name for member in cluster.members if member.needs_restart],
    }


def _read_time(text: str | None) -> float | None:
    if not text:
        return None
    moment = parse_time(text)
    if moment is None:
        raise Refusal(
            obj="option started_after",
            problem=f"{text!r} is no time with its zone",
            next_step="Write it as 2026-11-27T02:00:00Z",
        )
    return moment
