# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_scale_to_partitions. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, Outcome, PlanItem
from .._common.text import format_count
from .._kafka.connection import open_client
from . import capacity, guards
from .api import Api, Json, object_path
from .connection import connect, read_object
from .parse import BOUNDS, STOPPED, Record, Scaler, UnreadableRecord, Workload, workload
from .plan import Rule, Target, checked_count, checked_counts, target_replicas, with_direction
from .summary import describe_state, summarize_scaling
from .wait import Waiter

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._kafka.api import BusClient

ROUNDS = 3  # how often partitions that were added meanwhile are followed in one run


class Partitions:
    """The partition counts: data that was passed, or Kafka that is asked each time."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self._topics: list[str] = list(params["topics"])
        self._given = params["partitions"]
        self._bus = params["kafka_connection"]
        self._client: BusClient | None = None

    @property
    def live(self) -> bool:
        """Whether asking again can give another answer."""
        return self._given is None

    def counts(self) -> dict[str, int]:
        """Partitions of each topic, each at least 1; anything else is a Refusal."""
        if self._given is None:
            return checked_counts(self._ask(), self._topics)
        if isinstance(self._given, dict):
            return checked_counts(self._given, self._topics or sorted(self._given))
        if len(self._topics) > 1:
            raise Refusal(
                obj="option partitions",
                problem=f"it is the one value {self._given!r} for the {len(self._topics)} topics {', '.join(self._topics)}",
                next_step="Give a mapping of topic to number of partitions",
            )
        name = self._topics[0] if self._topics else "the topic"
        return {name: checked_count(self._given, f"topic {name!r}" if self._topics else "option partitions")}

    def _ask(self) -> dict[str, int | None]:
        if self._client is None:
            self._client = open_client(self._bus)
        found = self._client.partition_counts(self._topics)
        absent = [topic for topic in self._topics if found.get(topic) is None]
        if absent:
            raise Refusal(
                obj=", ".join(f"topic {topic!r}" for topic in absent),
                problem=f"it does not exist on {self._client.label}",
                next_step="Correct the option topics, or create the topic; nothing has been scaled",
            )
        return found

    def close(self) -> None:
        """Let go of the bus."""
        if self._client is not None:
            self._client.close()


class Scaling:
    """One run: read, decide, write, wait, look at the partitions again."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, api: Api) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.api = api
        self.path = object_path(self.params["kind"], self.params["namespace"], self.params["name"])
        self.around = guards.Surroundings()
        self.at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.view: Workload | None = None  # as last read or written
        self.serves = False
        self.adjusted: list[str] = []

    def run(self, partitions: Partitions) -> None:
        """Fill the outcome; raise OpsError."""
        try:
            self._run(partitions)
        finally:
            self._report()

    def _run(self, partitions: Partitions) -> None:
        params = self.params
        rule = Rule(params["combine"], params["min_replicas"], params["max_replicas"], params["even_divisors_only"])
        counts = partitions.counts()
        target = target_replicas(counts, rule)
        obj = read_object(self.api, params["kind"], params["namespace"], params["name"])
        self.around = guards.read(self.api, params["namespace"], params["guards"])
        first = workload(obj, params["kind"])
        self.outcome.facts.update(partitions=counts, target=target.replicas)
        view = self._approach(obj, target)
        for _round in range(ROUNDS):
            if self.module.check_mode or not partitions.live:
                break
            counts = partitions.counts()
            again = target_replicas(counts, rule)
            if again.replicas == target.replicas:
                break
            target = again
            self.outcome.facts.update(partitions=counts, target=target.replicas)
            view = self._approach(t.cast("Json", view.raw), target)
        else:
            raise OpsError(
                obj=", ".join(counts),
                problem=f"their partitions changed {ROUNDS} times while {first.title} was scaled; it has {view.replicas} replicas",
                next_step="Run again when the number of partitions is stable",
            )
        if not self.module.check_mode:
            self.outcome.facts["ready"] = view.ready
            self.serves = True

    def _report(self) -> None:
        """Set the summary and the evidence, as far as the run got."""
        if self.view is None or "reason" not in self.outcome.facts:
            return
        replicas = self.outcome.facts["replicas"]
        self.outcome.summary = summarize_scaling(
            self.view.title,
            before=self.outcome.before["replicas"],
            after=replicas,
            why=self.outcome.facts["reason"],
            adjusted=self.adjusted,
            check_mode=self.module.check_mode,
            done=self.serves,
        )
        counts = self.outcome.facts["partitions"]
        self.outcome.evidence = [
            describe_state(self.view),
            *(f"topic {topic}: {format_count(count, 'partition')}" for topic, count in sorted(counts.items())),
        ]

    def _approach(self, obj: Json, target: Target) -> Workload:
        """Bring the workload to ``target`` from what was read, and wait until it serves."""
        view = self.view = workload(obj, self.params["kind"])
        replicas = self._decide(view, target)
        scalers = self.around.scalers_of(view)
        adjust = self._adjustable(view, replicas, scalers)
        self._describe(view, replicas, target, adjust)
        if self.module.check_mode:
            return view
        for scaler in adjust:
            self._adjust(scaler, replicas)
        obj, wrote = self.api.converge(self.path, lambda now: self._patch(now, target), obj=view.title, first=obj)
        self.outcome.changed = self.outcome.changed or wrote
        view = self.view = workload(obj, self.params["kind"])
        if wrote and view.replicas != replicas:  # somebody else moved it meanwhile, and it was decided anew
            self.outcome.after = {**self.outcome.after, "replicas": view.replicas}
        self.outcome.facts["replicas"] = view.replicas
        if view.settled(view.replicas):
            return view
        waiter = Waiter(
            self.api,
            self.outcome,
            [view],
            {view.kind: view.resource_version},
            deadline=self.api.deadline,
            patience=self.params["patience"],
        )
        try:
            waiter.settle({view.key: view.replicas})
        finally:
            self.view = waiter.views[0]
            for warning in waiter.warnings:
                self.module.warn(warning)
        return waiter.views[0]

    def _decide(self, view: Workload, target: Target) -> int:
        """The replicas to have. Fewer than now only where that is allowed; a workload that was stopped counts as what it was."""
        return with_direction(self._current(view), target, allow_scale_down=self.params["allow_scale_down"])

    def _current(self, view: Workload) -> int:
        try:
            record = view.stopped_record()
        except UnreadableRecord as error:
            raise Refusal(
                obj=view.title, problem=str(error), next_step=f"Remove the annotation {STOPPED} if it is not needed"
            ) from error
        if record is None or view.replicas:
            return view.replicas
        if not self.params["start_stopped"]:
            raise Refusal(
                obj=view.title,
                problem=f"it was stopped on purpose by run {record.run} at {record.at}, when it had {record.value.get('replicas')} replicas",
                next_step="Start it with k8s_workload, or set start_stopped to true",
            )
        before = record.value.get("replicas")
        return before if isinstance(before, int) else 0

    def _patch(self, obj: Json, target: Target) -> Json | None:
        view = workload(obj, self.params["kind"])
        replicas = self._decide(view, target)
        body: Json = {}
        if view.replicas != replicas:
            body["spec"] = {"replicas": replicas}
        if STOPPED in view.annotations:
            body["metadata"] = {"annotations": {STOPPED: None}}
        return body or None

    def _adjustable(self, view: Workload, replicas: int, scalers: list[Scaler]) -> list[Scaler]:
        """The autoscalers whose bounds are to become ``replicas``; a Refusal when one stands in the way and may not be touched."""
        adjust = [scaler for scaler in scalers if (scaler.minimum, scaler.maximum) != (replicas, replicas)]
        if not scalers or self.params["autoscaler"] == "adjust":
            return adjust
        blockers = [
            Blocker(
                object=view.title,
                what=f"{scaler.title} owns its replicas ({scaler.minimum} to {scaler.maximum})",
                holder=scaler.title,
                next_step="Set autoscaler to adjust, change its bounds yourself, or remove it",
            )
            for scaler in scalers
        ]
        if view.replicas == replicas:
            self.outcome.blockers += blockers if adjust else []
            return []
        self.outcome.blockers += blockers
        raise Refusal(
            obj=view.title,
            problem=f"it should go from {view.replicas} to {replicas} replicas, but {'; '.join(blocker.what for blocker in blockers)}",
            next_step="Set autoscaler to adjust to give these bounds the wanted number, or change them yourself",
        )

    def _describe(self, view: Workload, replicas: int, target: Target, adjust: list[Scaler]) -> None:
        """Plan and diff; a Refusal when a declared guard stands against it."""
        assumed = 0 if self.params["assume"] == "stopped" and self.module.check_mode else view.replicas
        outcome = self.outcome
        if replicas > target.replicas:
            outcome.blockers.append(
                Blocker(
                    object=view.title,
                    what=f"it has {replicas} replicas and {target.replicas} are wanted ({target.why}); {replicas - target.replicas} more than can be of use",
                    holder="option allow_scale_down (false)",
                    next_step="Set allow_scale_down to true to let them go",
                )
            )
        before: Json = {"replicas": assumed}
        after: Json = {"replicas": replicas}
        self.adjusted += [scaler.title for scaler in adjust]
        for scaler in adjust:
            before[scaler.title], after[scaler.title] = scaler.bounds, {"min": replicas, "max": replicas}
            outcome.plan.append(
                PlanItem(
                    scaler.title, f"bounds {scaler.minimum}..{scaler.maximum} -> {replicas}..{replicas}", target.why
                )
            )
        if assumed != replicas:
            self._refuse_if_blocked(view, replicas)
            outcome.plan.append(PlanItem(view.title, f"replicas {assumed} -> {replicas}", target.why))
        outcome.before = {**before, **(outcome.before or {})}
        outcome.after = {**(outcome.after or {}), **after}
        outcome.facts.update(replicas=replicas, reason=target.why)
        if self.module.check_mode:
            outcome.changed = before != after or STOPPED in view.annotations

    def _refuse_if_blocked(self, view: Workload, replicas: int) -> None:
        around, declared = self.around, self.params["guards"]
        found = capacity.budget_blockers(view, replicas, around.budgets) + capacity.quota_blockers(
            view, replicas, around.quotas
        )
        if "headroom" in declared:
            found += capacity.headroom_blockers(view, replicas, around.nodes, around.pods)
        owner = guards.gitops_owner(view) if "gitops" in declared else None
        found += [owner] if owner else []
        if found:
            self.outcome.blockers += found
            raise Refusal(
                obj=view.title,
                problem=f"it cannot go from {view.replicas} to {replicas} replicas: {'; '.join(blocker.what for blocker in found)}",
                next_step=found[0].next_step,
            )

    def _adjust(self, scaler: Scaler, replicas: int) -> None:
        names = (
            ("minReplicaCount", "maxReplicaCount") if scaler.kind == "ScaledObject" else ("minReplicas", "maxReplicas")
        )

        def decide(obj: Json) -> Json | None:
            spec, annotations = obj.get("spec") or {}, obj["metadata"].get("annotations") or {}
            if (spec.get(names[0]), spec.get(names[1])) == (replicas, replicas):
                return None
            body: Json = {"spec": dict.fromkeys(names, replicas)}
            if BOUNDS not in annotations:
                before = Record({"min": spec.get(names[0]), "max": spec.get(names[1])}, self.api.run_id, self.at)
                body["metadata"] = {"annotations": {BOUNDS: before.encode()}}
            return body

        path = object_path(scaler.kind, scaler.namespace, scaler.name)
        _obj, wrote = self.api.converge(path, decide, obj=scaler.title, first=t.cast("Json", scaler.raw))
        self.outcome.changed = self.outcome.changed or wrote


def scale(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, look again, report."""
    if module.params["assume"] and not module.check_mode:
        raise Refusal(
            obj="option assume", problem="it is set outside check mode", next_step="Use it for rehearsals only"
        )
    partitions = Partitions(module.params)
    api: Api | None = None
    try:
        api = connect(module, seconds=module.params["timeout"])
        Scaling(module, outcome, api).run(partitions)
    finally:
        partitions.close()
        if api is not None:
            api.close()
            outcome.changed = outcome.changed or api.touched
            outcome.facts.update(requests=api.requests, run_id=api.run_id)
