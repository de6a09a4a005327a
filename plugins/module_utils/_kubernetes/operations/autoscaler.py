# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_autoscaler: read, plan, ask, write, wait until the target serves within the bounds.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import time
import typing as t

from ..._common.errors import OpsError, Refusal, WaitTimeout
from ..._common.outcome import Blocker, Outcome, PlanItem
from ..._common.retry import Deadline
from ..._common.text import join_some
from ..autoscaler_metrics import (
    KIND,
    SCALING_ACTIVE,
    MetricsRead,
    describe_silence,
    find_troubles,
    find_unserved_metrics,
)
from ..autoscalers import Autoscaler, select_autoscalers
from ..client import Client, Listing
from ..cluster import check_identity, connect, disconnect, read_object
from ..conditions import Serving
from ..connection_budget import read_budget
from ..constraints.capacity import find_headroom_blockers
from ..constraints.connections import ConnectionBudget, make_connection_blocker
from ..constraints.owners import find_gitops_blocker
from ..constraints.quota import find_quota_blockers
from ..errors import Conflict, NotFound, WriteUnknown
from ..fields import as_dict, as_text, get_path
from ..objects import Workload, index_conditions
from ..plans.autoscaler import (
    FIELDS,
    Declared,
    FieldChange,
    HpaChange,
    build_hpa,
    describe_change,
    parse_declared,
    plan_present,
    plan_takeback,
    summarize_autoscaler,
)
from ..preflight import Planned, check_answer, check_rights
from ..resources import check_name, collection_path, find_resource, object_path
from ..reviews import Right, require_rights
from ..scalable import find_scaled_resource
from ..scaling_constraints import ScalingConstraints, read_constraints
from ..snapshot import Snapshot
from ..summary import describe_state
from ..temporary_ends import check_end
from ..tiers import parse_api
from ..workload_wait import Followed, follow_each, wait_for_workloads

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..fields import Json

GUARDS = ("keda", "gitops", "quota", "headroom")
TARGETS = ("Deployment", "StatefulSet")
"""The kinds that need no api_version."""
METRICS_SECONDS = 60.0
"""How long a new HPA may take to read its metrics: its controller looks every 15 s, and those of new pods come late."""
DECLARING = (
    "min_replicas",
    "max_replicas",
    "metrics",
    "behavior",
    "until",
    "scale_down_utilisation",
    "connection_budget",
)
"""Options that say what an HPA is to be, which taking back does not."""


class ChangeAutoscaler:
    """One run for one HPA."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, client: Client) -> None:
        self.module = module
        self.params = module.params
        self.outcome = outcome
        self.client = client
        self.namespace: str = module.params["namespace"]
        self.name: str = check_name("name", module.params["name"])
        self.title = f"{KIND} {self.namespace}/{self.name}"
        self.path = object_path(KIND, self.namespace, self.name)
        self.now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.is_present = module.params["state"] == "present"
        self.declared = Declared({})
        self.constraints = ScalingConstraints()
        self.budget: ConnectionBudget | None = None
        self.change: HpaChange | None = None
        self.bounds = (1, 1)
        self.is_new = False
        self.is_done = False
        self.unserved: list[Blocker] = []
        """Metrics of the declaration that the cluster does not serve, asked for where the HPA is to get other ones."""
        self.workload: Workload | None = None

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        try:
            self._run()
        finally:
            self._report()

    def _run(self) -> None:
        self._check_options()
        hpa = self._read_hpa()
        workload = self._read_target(hpa)
        self.constraints = read_constraints(self.client, self.namespace, {"hpa", *self.params["guards"]})
        self.budget = read_budget(self.client, self._name_target(workload), self.constraints)
        check_end(self.declared.until, self.client.read_server_clock())
        if hpa is None:
            self._make(workload)
        else:
            self._adapt(hpa, workload)
        self.is_done = not self.module.check_mode

    def _check_options(self) -> None:
        if self.is_present:
            self.declared = parse_declared(self.params)
            return
        given = [name for name in DECLARING if self.params[name] is not None]
        if given:
            raise Refusal(
                obj=f"option {given[0]}",
                problem=f"state {self.params['state']} gives back what was saved and declares nothing else",
                next_step=f"Leave {', '.join(given)} out, or set state to present",
            )

    def _read_hpa(self) -> Json | None:
        """Return the HPA, None where there is none and the declaration may make one."""
        try:
            return self.client.get(self.path, obj=self.title)
        except NotFound:
            if self.is_present and self.params["target"] is not None:
                return None
            return read_object(self.client, KIND, self.namespace, self.name)  # says what there is instead

    def _read_target(self, hpa: Json | None) -> Workload:
        """Return the workload that is scaled, which is the declared one; a Refusal for another one, or none."""
        present = as_dict(get_path(hpa, "spec", "scaleTargetRef"))
        option = self.params["target"]
        target = option if option is not None else self._read_reference(present)
        api_version, plural = parse_api(target, "option target", kinds=TARGETS)
        if hpa is not None and (present.get("kind"), present.get("name")) != (target["kind"], target["name"]):
            raise Refusal(
                obj=self.title,
                problem=(
                    f"it scales {present.get('kind')} {present.get('name')}, and the declared target is"
                    f" {target['kind']} {target['name']}"
                ),
                next_step="Correct name or target, or remove that HPA if it is not needed any more",
            )
        resource = find_scaled_resource(self.client, target["kind"], api_version, plural)
        obj = read_object(self.client, resource, self.namespace, target["name"])
        self.workload = Workload.from_object(obj, resource)
        return self.workload

    @staticmethod
    def _read_reference(present: Json) -> Json:
        """Return what an HPA says of its target, as the option does."""
        kind = as_text(present.get("kind"))
        api_version = "" if kind in TARGETS else as_text(present.get("apiVersion"))
        return {"kind": kind, "name": as_text(present.get("name")), "api_version": api_version}

    def _name_target(self, workload: Workload) -> Json:
        """Return the options with the target's kind and name, which does not share its budget with itself."""
        return {**self.params, "kind": workload.kind, "name": workload.name}

    # --- a new one --------------------------------------------------------------------------------------------------

    def _make(self, workload: Workload) -> None:
        self.is_new = True
        target = {"apiVersion": workload.resource.group_version, "kind": workload.kind, "name": workload.name}
        body = build_hpa(self.declared, namespace=self.namespace, name=self.name, target=target)
        scaler = Autoscaler.from_object(body, KIND)
        fields = tuple(FieldChange(name, None, body["spec"][name]) for name in FIELDS if name in body["spec"])
        self.change = HpaChange(None, fields)
        self.bounds = (scaler.minimum, scaler.maximum)
        self._refuse_rivals(workload)
        self._refuse_blocked(workload, scaler, is_raised=True)
        self.outcome.plan.append(
            PlanItem(self.title, f"make it for {workload.title}: {self._describe(fields)}", "declared")
        )
        self._tell_effect(workload, scaler)
        self._ask_metrics(fields)
        self.outcome.before, self.outcome.after = {self.title: None}, {self.title: body["spec"]}
        path = collection_path(KIND, self.namespace)
        if self.module.check_mode:
            self._check_right_to_create()
            self.outcome.blockers += self.unserved
            self.outcome.changed = True
            return
        self._try(path, body)
        hpa = self._create(path, body)
        self._check_made(hpa)
        if workload.replicas:
            hpa = self._wait_for_metrics(hpa)
        self._tell_troubles(hpa)
        self._wait(workload, Autoscaler.from_object(hpa, KIND), hpa)

    def _try(self, path: str, body: Json) -> None:
        """Refuse what the server would refuse, and what it would make something else of or drop without a word."""
        answer = self.client.create(path, body, obj=self.title, dry_run=True, strict=True)
        difference = self._describe_made(answer)
        if difference:
            raise Refusal(
                obj=self.title,
                problem=f"the server would make something else of it: {difference}; nothing has been changed",
                next_step="Find the admission webhook or policy that changes it, and make an exception or ask for what"
                " it allows",
            )

    def _check_made(self, hpa: Json) -> None:
        difference = self._describe_made(hpa)
        if difference:
            raise OpsError(
                obj=self.title,
                problem=f"it was made, and the server made something else of it: {difference}",
                next_step="Find the admission webhook or policy that changes it, then run this again",
            )

    def _describe_made(self, hpa: Json) -> str:
        """Return in which fields a new HPA is not as declared; defaults beside what is declared do not count."""
        return self._describe(plan_present(hpa, self.declared, run_id=self.client.run_id, now=self.now).fields)

    def _create(self, path: str, body: Json) -> Json:
        """Make the HPA; one that is there by now counts if it is as declared, as after an answer that was lost."""
        try:
            return self.client.create(path, body, obj=self.title, strict=True)
        except (Conflict, WriteUnknown) as error:
            try:
                hpa = self.client.get(self.path, obj=self.title)
            except NotFound:
                raise error from None
            if plan_present(hpa, self.declared, run_id=self.client.run_id, now=self.now).write is not None:
                raise
            return hpa

    def _describe(self, fields: t.Sequence[FieldChange]) -> str:
        return ", ".join(describe_change(field).replace(" None ->", "") for field in fields)

    def _check_right_to_create(self) -> None:
        missing = require_rights(self.client, [Right("create", find_resource(KIND), self.namespace)])
        if missing:
            raise Refusal(
                obj=f"account at {self.client.access.server} ({self.client.access.source})",
                problem=f"it may not {missing[0].rule}, which this run needs; nothing has been changed",
                next_step="Grant it by a Role in that namespace (docs/kubernetes-rights.yml has one)",
            )

    # --- one that exists --------------------------------------------------------------------------------------------

    def _adapt(self, hpa: Json, workload: Workload) -> None:
        scaler = Autoscaler.from_object(hpa, KIND)
        self._refuse_maker(scaler)
        change = self.change = self._plan(hpa)
        after = self._apply(scaler, change)
        self.bounds = (after.minimum, after.maximum)
        if self.is_present:
            self._refuse_rivals(workload)
            self._refuse_blocked(workload, after, is_raised=after.maximum > scaler.maximum)
        for name in change.left:
            self.outcome.blockers.append(
                Blocker(
                    object=self.title,
                    what=f"its {name} is not what the temporary change put there, and stays as it is",
                    holder="the client that changed it since",
                    next_step=f"Set {name} as it should be, if that is not meant",
                )
            )
        for field in change.fields:
            self.outcome.plan.append(PlanItem(self.title, describe_change(field), change.why))
        if change.write is not None and not change.fields:
            self.outcome.plan.append(PlanItem(self.title, "change what is saved on it", change.why))
        self._tell_effect(workload, after)
        self._ask_metrics(change.fields)
        spec = as_dict(hpa.get("spec"))
        self.outcome.before = {self.title: {field.name: spec.get(field.name) for field in change.fields}}
        self.outcome.after = {self.title: change.after}
        if self.is_present:
            self._refuse_gitops(hpa, change)
        if change.write is not None:
            planned = Planned(KIND, self.title, self.path, hpa, change.write)
            check_rights(self.client, [planned], namespace=self.namespace, reads=(), check_mode=self.module.check_mode)
        if self.module.check_mode:
            self.outcome.changed = bool(change.write)
            self.outcome.blockers += self.unserved
            return
        hpa = self._write(hpa, change)
        self._tell_troubles(hpa)
        self._wait(workload, Autoscaler.from_object(hpa, KIND), hpa)

    def _plan(self, hpa: Json) -> HpaChange:
        if self.is_present:
            return plan_present(hpa, self.declared, run_id=self.client.run_id, now=self.now)
        is_expiry = self.params["state"] == "expired"
        return plan_takeback(
            hpa,
            due_at=self.client.read_server_clock() if is_expiry else None,
            only_windows=self.params["saved_by"] == "window",
        )

    @staticmethod
    def _apply(scaler: Autoscaler, change: HpaChange) -> Autoscaler:
        spec = {**as_dict(scaler.raw.get("spec")), **change.after}
        return Autoscaler.from_object({**scaler.raw, "spec": spec}, KIND)

    def _write(self, hpa: Json, change: HpaChange) -> Json:
        if change.write is None:
            return hpa
        decided: list[HpaChange] = []

        def decide(obj: Json) -> t.Any:
            decided.append(self._plan(obj))
            return decided[-1].write

        answer, sent = self.client.patch_with_retry(self.path, decide, obj=self.title, first=hpa)
        if sent and decided[-1].write is not None:
            check_answer(answer, decided[-1].write, self.title)
        return answer

    # --- what stands against it -------------------------------------------------------------------------------------

    def _refuse_maker(self, scaler: Autoscaler) -> None:
        if scaler.managed_by:
            raise Refusal(
                obj=self.title,
                problem=f"ScaledObject {scaler.managed_by} made it and would put it back",
                next_step=(
                    f"Change ScaledObject {scaler.managed_by}: its bounds, its triggers, and"
                    " advanced.horizontalPodAutoscalerConfig.behavior"
                ),
            )

    def _refuse_rivals(self, workload: Workload) -> None:
        """Refuse a second autoscaler on one target: both would set the number, each to its own."""
        rivals = [
            scaler.title
            for scaler in select_autoscalers(self.constraints.autoscalers, workload)
            if (scaler.kind, scaler.name) != (KIND, self.name)
        ]
        if rivals:
            raise Refusal(
                obj=workload.title,
                problem=f"{join_some(rivals)} scales it already, and {self.title} would set the number against it",
                next_step=f"Declare that one by its name, or remove it; keep one autoscaler for {workload.title}",
            )

    def _refuse_blocked(self, workload: Workload, after: Autoscaler, *, is_raised: bool) -> None:
        """Refuse what the cluster or the database cannot bear; say what is only short at the maximum."""
        blockers: list[Blocker] = []
        replicas = workload.replicas
        if replicas > after.maximum and not self.params["allow_scale_down"]:
            raise Refusal(
                obj=workload.title,
                problem=(
                    f"it has {replicas} replicas and {self.title} would let go {replicas - after.maximum} of them at"
                    f" once (maxReplicas {after.maximum}), and allow_scale_down is false"
                ),
                next_step=f"Set allow_scale_down to true, or max_replicas to at least {replicas}",
            )
        if self.budget is not None and after.maximum * self.budget.per_replica > self.budget.left:
            blocker = make_connection_blocker(self.title, after.maximum, self.budget)
            (blockers if is_raised or after.maximum > replicas else self.outcome.blockers).append(blocker)
        if 0 < replicas < after.minimum:
            blockers += self._find_shortages(workload, after.minimum)
        if blockers:
            self.outcome.blockers += blockers
            words = "; ".join(blocker.what for blocker in blockers)
            raise Refusal(
                obj=self.title,
                problem=f"it cannot scale {workload.title} within {after.minimum} to {after.maximum}: {words}",
                next_step=blockers[0].next_step,
            )
        if after.maximum > max(replicas, after.minimum):
            self.outcome.blockers += self._find_shortages(workload, after.maximum)

    def _find_shortages(self, workload: Workload, replicas: int) -> list[Blocker]:
        constraints = self.constraints
        limits = constraints.limit_ranges
        blockers = find_quota_blockers(workload, replicas, constraints.quotas, limit_ranges=limits)
        if "headroom" in self.params["guards"]:
            blockers += find_headroom_blockers(
                workload, replicas, constraints.nodes, constraints.pods, limit_ranges=limits
            )
        return blockers

    def _refuse_gitops(self, hpa: Json, change: HpaChange) -> None:
        """Refuse to change a field that a GitOps tool has in Git."""
        if "gitops" not in self.params["guards"]:
            return
        described = Workload.from_object(hpa, find_resource(KIND))
        for field in change.fields:
            blocker = find_gitops_blocker(described, ("spec", field.name))
            if blocker is not None:
                self.outcome.blockers.append(blocker)
                raise Refusal(obj=self.title, problem=blocker.what, next_step=blocker.next_step)

    def _tell_effect(self, workload: Workload, after: Autoscaler) -> None:
        """Say what the HPA does to its target at once. One at 0 rests until it is started."""
        replicas = self._find_goal(workload, after)
        if replicas != workload.replicas:
            bound = "minReplicas" if replicas > workload.replicas else "maxReplicas"
            what = f"replicas {workload.replicas} -> {replicas}"
            self.outcome.plan.append(PlanItem(workload.title, what, f"{bound} of {self.title}"))

    @staticmethod
    def _find_goal(workload: Workload, scaler: Autoscaler) -> int:
        if workload.replicas == 0:
            return 0
        return max(scaler.minimum, min(scaler.maximum, workload.replicas))

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait(self, workload: Workload, scaler: Autoscaler, hpa: Json) -> None:
        """Wait until the target serves with a number within the bounds."""
        self.outcome.facts["autoscaler"] = {name: get_path(hpa, "spec", name) for name in FIELDS}
        if workload.replicas == 0:
            return
        condition = Serving(workload, self._find_goal(workload, scaler), autoscalers=[scaler])

        def take(snapshot: Snapshot) -> None:
            self.workload = snapshot.workload(workload.resource, self.namespace, workload.name) or workload

        if condition.evaluate(Snapshot.from_objects([{**workload.raw, "kind": workload.kind}])).is_current:
            return
        wait_for_workloads(self.module, self.client, self.outcome, [condition], follow_each([workload]), take=take)

    def _ask_metrics(self, fields: t.Sequence[FieldChange]) -> None:
        """Ask whether the cluster serves the metrics by which the HPA is to scale from now on."""
        metrics = [metric for field in fields if field.name == "metrics" for metric in field.after or []]
        self.unserved = find_unserved_metrics(self.client, self.title, metrics)

    def _wait_for_metrics(self, hpa: Json) -> Json:
        """Wait until a new HPA has read its metrics, or its controller has said why not; return it as it is then."""
        latest = [hpa]

        def take(snapshot: Snapshot) -> None:
            latest.append(snapshot.find(KIND, self.namespace, self.name) or hpa)

        condition = MetricsRead(hpa, can_read=not self.unserved)
        version = as_text(get_path(hpa, "metadata", "resourceVersion"))
        followed = Followed(condition.resource, self.namespace, Listing([hpa], version), self.name)
        deadline = Deadline(min(METRICS_SECONDS, max(self.client.deadline.remaining, 0.0)))
        try:
            wait_for_workloads(
                self.module, self.client, self.outcome, [condition], [followed], deadline=deadline, take=take
            )
        except (
            WaitTimeout
        ):  # the HPA is made and keeps its bounds; what it lacks is told, and the next run tells it too
            if not index_conditions(as_dict(latest[-1].get("status"))).get(SCALING_ACTIVE) and not self.unserved:
                self.outcome.blockers.append(describe_silence(self.title))
        return latest[-1]

    def _tell_troubles(self, hpa: Json) -> None:
        """Say what the HPA says of itself; where it says nothing, what it will find."""
        self.outcome.blockers += find_troubles(self.title, hpa) or self.unserved

    def _report(self) -> None:
        """Set the summary and the evidence, as far as the run got."""
        if self.change is None:
            return
        self.outcome.summary = summarize_autoscaler(
            self.title,
            self.change,
            bounds=self.bounds,
            is_new=self.is_new,
            check_mode=self.module.check_mode,
            done=self.is_done,
        )
        if self.workload is not None:
            self.outcome.facts["replicas"] = self.workload.replicas
            bounds = f"{self.title}: {self.bounds[0]} to {self.bounds[1]} replicas"
            self.outcome.evidence = [bounds, describe_state(self.workload)]
            if self.budget is not None:
                self.outcome.evidence.append(self.budget.describe(self.bounds[1]))


def run_autoscaler(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, report."""
    client = connect(module, seconds=module.params["timeout"])
    try:
        outcome.facts["run_id"] = client.run_id
        check_identity(client, module.params["cluster_uid"])
        ChangeAutoscaler(module, outcome, client).run()
    finally:
        disconnect(module, outcome, client)
