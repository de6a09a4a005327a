# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What scaling one workload to a target takes, wherever the target comes from: read, plan, ask, write, wait, look again.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import time
import typing as t
from abc import ABC, abstractmethod

from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, Outcome, PlanItem
from .autoscalers import Autoscaler
from .client import Client
from .cluster import check_identity, connect, disconnect, read_object
from .conditions import Serving, assess_alone
from .connection_budget import read_budget
from .constraints.capacity import find_headroom_blockers
from .constraints.connections import ConnectionBudget, find_connection_blockers
from .constraints.disruption import find_budget_blockers
from .constraints.owners import find_owner_blockers, remember_owner
from .constraints.quota import find_quota_blockers, is_about_claims
from .constraints.volumes import find_volume_blockers, refuse_volume_deletion
from .objects import Workload
from .plans.replicas_from_partitions import Scaling, Target, plan_scale
from .preflight import Planned, check_answer, check_rights
from .resources import object_path
from .scalable import check_scale, find_scaled_resource
from .scaling_constraints import (
    ScalingConstraints,
    apply_bounds,
    describe_bounds,
    list_claims,
    read_constraints,
)
from .snapshot import Snapshot
from .summary import describe_state, summarize_scaling
from .tiers import parse_api
from .workload_wait import follow_each, wait_for_workloads

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .fields import Json
    from .patches import Write

KINDS = ("StatefulSet", "Deployment")
"""The kinds that need no api_version."""
ROUNDS = 3
"""How often a target that has changed meanwhile is followed in one run."""


class TargetSource(ABC):
    """Where the number of replicas comes from that a workload is to have."""

    @property
    def is_live(self) -> bool:
        """Whether asking again can give another answer."""
        return False

    @abstractmethod
    def read_target(self) -> Target:
        """Return the number, at least 1, and why it is that one. Raises Refusal and OpsError."""

    @abstractmethod
    def list_facts(self) -> dict[str, t.Any]:
        """Return what is known of it, as return values of the module."""

    @abstractmethod
    def list_evidence(self) -> list[str]:
        """Return the lines that prove it."""

    @abstractmethod
    def find_surplus(self, workload: Workload, replicas: int, target: Target) -> Blocker:
        """Return what keeps a workload at more replicas than the target. Raises Refusal where that is no success."""

    def explain_instability(self, workload: Workload) -> OpsError:
        """Return the error for a target that was another one each time that it was read."""
        return OpsError(
            obj=workload.title,
            problem=f"its target changed {ROUNDS} times while it was scaled; it has {workload.replicas} replicas",
            next_step="Run again when the target is stable",
        )


class ScalerWrite(t.NamedTuple):
    """What an autoscaler gets, and in which words: ``decide`` gives the write for the object as it is then."""

    scaler: Autoscaler
    what: str
    before: t.Any
    after: t.Any
    decide: t.Callable[[Autoscaler], Write | None]


class ScaleWorkload:
    """One run for one workload."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, client: Client) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.client = client
        self.path = ""
        self.constraints = ScalingConstraints()
        self.budget: ConnectionBudget | None = None
        self.source: TargetSource
        self.now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.workload: Workload | None = None  # as last read or written
        self.serves = False
        self.adjusted: list[str] = []

    def run(self, source: TargetSource) -> None:
        """Fill the outcome; raise OpsError."""
        self.source = source
        try:
            self._run(source)
        finally:
            self._report(source)

    def _run(self, source: TargetSource) -> None:
        target = self._read_target(source)
        first = self.workload = self._read()
        self.constraints = read_constraints(self.client, self.params["namespace"], self._list_guards())
        self.budget = read_budget(self.client, self.params, self.constraints)
        workload = self._approach(first, target)
        for _round in range(ROUNDS):
            if self.module.check_mode or not source.is_live:
                break
            again = self._read_target(source)
            if again.replicas == target.replicas:
                break
            target = again
            workload = self._approach(workload, target)
        else:
            raise source.explain_instability(workload)
        if not self.module.check_mode:
            self.outcome.facts["ready"] = workload.ready
            self.serves = True

    def _read_target(self, source: TargetSource) -> Target:
        target = source.read_target()
        self.outcome.facts.update(source.list_facts(), target=target.replicas)
        return target

    def _read(self) -> Workload:
        """Read the workload; a Refusal for one that cannot be scaled."""
        kind, namespace, name = (self.params[key] for key in ("kind", "namespace", "name"))
        api_version, plural = parse_api(self.params, "option kind", kinds=KINDS)
        resource = find_scaled_resource(self.client, kind, api_version, plural)
        obj = read_object(self.client, resource, namespace, name)
        self.path = object_path(resource, namespace, name)
        return check_scale(self.client, Workload.from_object(obj, resource))

    def _list_guards(self) -> set[str]:
        """Return what is to be read.

        What a stop has paused is resumed by a start, whatever the guards are, also where the workload runs already
        because another run was cut off in between.
        """
        guards = set(self.params["guards"])
        return guards | {"keda"} if self.params["start_stopped"] else guards

    def _approach(self, workload: Workload, target: Target) -> Workload:
        """Bring the workload to ``target`` from what was read, and wait until it serves."""
        self.workload = workload
        scaling = self._plan(workload, target)
        if self.params["autoscaler"] == "restore":
            scaling = scaling._replace(write=None, after=workload.replicas)
        writes = self._plan_scalers(workload, scaling)
        self._describe(workload, scaling, target, writes)
        self._check_rights(workload, scaling, writes)
        if self.module.check_mode:
            self.outcome.changed = bool(self.outcome.plan)
            return workload
        # Bounds first, so that what is resumed does not move it; KEDA would put it to 0 again while it is paused there.
        for entry in sorted(writes, key=lambda entry: entry.what == "resume"):
            self._write_scaler(entry)
        if scaling.write is not None:
            workload = self._write_workload(workload, target, scaling.after)
        return self._wait(workload)

    def _plan(self, workload: Workload, target: Target) -> Scaling:
        """Plan the replicas: fewer than now only where that is allowed; what was stopped counts as what it had."""
        scaling = plan_scale(
            workload,
            target,
            allow_scale_down=self.params["allow_scale_down"],
            start_stopped=self.params["start_stopped"],
            assume_stopped=self.params["assume"] == "stopped" and self.module.check_mode,
            fallback=self.constraints.find_saved_stop(workload),
            pausing_runs=self.constraints.find_pausing_runs(workload),
        )
        write = remember_owner(scaling.write, workload, run_id=self.client.run_id, now=self.now)
        return scaling._replace(write=write)

    def _plan_scalers(self, workload: Workload, scaling: Scaling) -> list[ScalerWrite]:
        """Plan what the autoscalers get; a Refusal when one stands in the way and may not be touched."""
        scalers = self.constraints.list_autoscalers(workload)
        writes: list[ScalerWrite] = []
        blockers: list[Blocker] = []
        replicas = scaling.after
        for scaler in scalers:
            resumed = scaler.apply(scaler.plan_resume() if replicas else None)
            if resumed is not scaler and resumed.annotations != scaler.annotations:
                writes.append(ScalerWrite(scaler, "resume", True, False, lambda current: current.plan_resume()))
            if self.params["autoscaler"] == "restore":
                writes += self._plan_bounds(scaler, lambda current: current.plan_restore_bounds())
            elif replicas and self.params["autoscaler"] == "adjust" and not resumed.is_paused:
                writes += self._plan_bounds(
                    scaler, lambda current: current.plan_bounds(replicas, run_id=self.client.run_id, now=self.now)
                )
            elif replicas:  # other bounds change nothing for one that another client has paused
                blocker = resumed.find_scale_blocker(workload, replicas)
                blockers += [blocker] if blocker is not None else []
        self.outcome.blockers += blockers
        if blockers and workload.replicas != replicas:
            words = "; ".join(blocker.what for blocker in blockers)
            raise Refusal(
                obj=workload.title,
                problem=f"it should go from {workload.replicas} to {replicas} replicas, but {words}",
                next_step=blockers[0].next_step,
            )
        return writes

    @staticmethod
    def _plan_bounds(scaler: Autoscaler, decide: t.Callable[[Autoscaler], Write | None]) -> list[ScalerWrite]:
        """Plan the bounds that ``decide`` gives an autoscaler; nothing where it has them."""
        write = decide(scaler)
        if write is None:
            return []
        changed = apply_bounds(scaler, write)
        return [ScalerWrite(scaler, describe_bounds(scaler, changed), scaler.bounds, changed.bounds, decide)]

    def _describe(self, workload: Workload, scaling: Scaling, target: Target, writes: t.Sequence[ScalerWrite]) -> None:
        """Add plan and diff; a Refusal when a guard stands against it."""
        outcome, replicas = self.outcome, scaling.after
        if replicas > target.replicas and self.params["autoscaler"] != "restore":
            outcome.blockers.append(self.source.find_surplus(workload, replicas, target))
        before: Json = {"replicas": scaling.before}
        after: Json = {"replicas": replicas}
        for entry in writes:
            self.adjusted.append(entry.scaler.title)
            before[entry.scaler.title], after[entry.scaler.title] = entry.before, entry.after
            outcome.plan.append(PlanItem(entry.scaler.title, entry.what, scaling.reason))
        if scaling.before != replicas:
            self._refuse_blocked(workload, replicas)
            what = f"replicas {scaling.before} -> {replicas}"
            outcome.plan.append(PlanItem(workload.title, what, scaling.reason, reversible=scaling.reversible))
        elif scaling.write is not None and scaling.write.body:
            outcome.plan.append(PlanItem(workload.title, "remove what was saved on it", scaling.reason))
        outcome.before = {**before, **(outcome.before or {})}
        outcome.after = {**(outcome.after or {}), **after}
        outcome.facts.update(replicas=replicas, reason=scaling.reason)

    def _refuse_blocked(self, workload: Workload, replicas: int) -> None:
        constraints, declared = self.constraints, self.params["guards"]
        blockers = find_budget_blockers(workload, replicas, constraints.budgets)
        is_claiming = is_about_claims(workload, replicas, constraints.quotas)
        blockers += find_quota_blockers(
            workload,
            replicas,
            constraints.quotas,
            limit_ranges=constraints.limit_ranges,
            claims=list_claims(self.client, workload.namespace) if is_claiming else (),
        )
        blockers += find_connection_blockers(workload, replicas, self.budget)
        if "headroom" in declared:
            blockers += find_headroom_blockers(
                workload, replicas, constraints.nodes, constraints.pods, limit_ranges=constraints.limit_ranges
            )
        if "gitops" in declared:
            blockers += find_owner_blockers(workload)
        if not self.params["allow_volume_deletion"]:
            blockers += find_volume_blockers(workload, replicas)
        if blockers:
            self.outcome.blockers += blockers
            words = "; ".join(blocker.what for blocker in blockers)
            raise Refusal(
                obj=workload.title,
                problem=f"it cannot go from {workload.replicas} to {replicas} replicas: {words}",
                next_step=blockers[0].next_step,
            )

    def _check_rights(self, workload: Workload, scaling: Scaling, writes: t.Sequence[ScalerWrite]) -> None:
        planned: list[Planned] = []
        for scaler, write in [(entry.scaler, entry.decide(entry.scaler)) for entry in writes]:
            if write is not None:
                planned.append(Planned(scaler.kind, scaler.title, scaler.path, scaler.raw, write))
        if scaling.write is not None and scaling.write.body:
            planned.append(Planned(workload.resource, workload.title, self.path, workload.raw, scaling.write))
        check_rights(
            self.client,
            planned,
            namespace=workload.namespace,
            reads={kind for kind in Serving(workload, scaling.after).needs() if kind != workload.kind},
            check_mode=self.module.check_mode,
        )

    def _write_scaler(self, entry: ScalerWrite) -> None:
        scaler = entry.scaler

        def decide(obj: Json) -> Write | None:
            return entry.decide(Autoscaler.from_object(obj, scaler.kind))

        obj, _sent = self.client.patch_with_retry(scaler.path, decide, obj=scaler.title, first=scaler.raw)
        if entry.what != "resume":  # what was saved on one that is resumed still counts for its workload
            self.constraints.replace_autoscaler(Autoscaler.from_object(obj, scaler.kind))

    def _write_workload(self, workload: Workload, target: Target, replicas: int) -> Workload:
        decided: list[Scaling] = []

        def decide(obj: Json) -> Write | None:
            current = Workload.from_object(obj, workload.resource)
            scaling = self._plan(current, target)
            decided.append(scaling)
            if current.replicas not in (workload.replicas, scaling.after):
                self._refuse_blocked(current, scaling.after)
            if scaling.write is not None and not self.params["allow_volume_deletion"]:
                refuse_volume_deletion(current, scaling.after)
            return scaling.write

        obj, sent = self.client.patch_with_retry(self.path, decide, obj=workload.title, first=workload.raw)
        write = decided[-1].write
        written = self.workload = Workload.from_object(obj, workload.resource)
        if written.replicas != replicas:  # another client moved it meanwhile, and it was decided anew
            self.outcome.after = {**self.outcome.after, "replicas": written.replicas}
        self.outcome.facts["replicas"] = written.replicas
        if sent and write is not None:
            check_answer(obj, write, workload.title)
        return written

    def _wait(self, workload: Workload) -> Workload:
        if assess_alone(workload).is_current:
            return workload
        # Only bounds that are given back leave the number to the autoscaler: otherwise another number is a rival's.
        is_autoscaled = self.params["autoscaler"] == "restore"
        scalers = self.constraints.list_autoscalers(workload) if is_autoscaled else None
        condition = Serving(workload, workload.replicas, autoscalers=scalers or None)

        def take(snapshot: Snapshot) -> None:
            latest = snapshot.workload(workload.resource, workload.namespace, workload.name) or workload
            self.workload = latest
            self.outcome.facts["replicas"] = latest.replicas

        wait_for_workloads(self.module, self.client, self.outcome, [condition], follow_each([workload]), take=take)
        return self.workload or workload

    def _report(self, source: TargetSource) -> None:
        """Set the summary and the evidence, as far as the run got."""
        if self.workload is None or "reason" not in self.outcome.facts:
            return
        replicas = self.workload.replicas if self.serves else self.outcome.after["replicas"]
        self.outcome.summary = summarize_scaling(
            self.workload.title,
            before=self.outcome.before["replicas"],
            after=replicas,
            why=self.outcome.facts["reason"],
            adjusted=self.adjusted,
            check_mode=self.module.check_mode,
            done=self.serves,
        )
        self.outcome.evidence = [describe_state(self.workload), *source.list_evidence()]
        if self.budget is not None:
            self.outcome.evidence.append(self.budget.describe(replicas))


def run_scaling(module: AnsibleModule, outcome: Outcome, source: TargetSource) -> None:
    """Read, plan, apply unless check mode, wait, look again, report."""
    client = connect(module, seconds=module.params["timeout"])
    try:
        outcome.facts["run_id"] = client.run_id
        check_identity(client, module.params["cluster_uid"])
        ScaleWorkload(module, outcome, client).run(source)
    finally:
        disconnect(module, outcome, client)
