# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_workload: read once, plan everything, refuse before the first write, then tier by tier.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import time
import typing as t

from ..._common.errors import OpsError, Refusal, WaitTimeout
from ..._common.outcome import Blocker, Outcome, PlanItem
from ..._common.retry import Deadline
from .. import summary
from ..autoscalers import Autoscaler
from ..client import Client, Listing
from ..cluster import check_identity, connect, disconnect, list_named
from ..conditions import Condition, Gone, PauseTaken, Serving, describe_foreign_pods
from ..constraints.owners import find_owner_blockers, remember_owner
from ..constraints.volumes import find_volume_blockers, refuse_volume_deletion
from ..errors import Forbidden
from ..fields import get_path
from ..objects import Workload
from ..patches import Write
from ..plans.stop_start import Change, has_ended, plan_save, plan_start, plan_stop
from ..preflight import Planned, check_answer, check_rights
from ..resources import Resource, find_resource, object_path
from ..saved_state import STOP, STOPPED, UnreadableSavedState, find_state, is_window, save_state
from ..scalable import check_scale, find_resources
from ..scaling_constraints import ScalingConstraints, apply_bounds, describe_bounds, read_constraints
from ..snapshot import Snapshot
from ..tiers import Entry, Tier, parse_tiers
from ..workload_wait import Followed, follow_each, wait_for_workloads

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..fields import Json

PAUSE_SLACK_SECONDS = 10.0
"""What KEDA may take to say that it has paused, beyond the time between two turns of its loop."""


class StopStart:
    """One run over all tiers."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, client: Client, tiers: t.Sequence[Tier]) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.client = client
        self.namespace = str(self.params["namespace"])
        self.is_stop = self.params["state"] == "stopped"
        self.only_windows = self.params["saved_by"] == "window"
        self.now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.tiers = list(reversed(tiers)) if self.is_stop else list(tiers)
        self.replicas = {entry.key: entry.replicas for tier in tiers for entry in tier}
        self.resources: dict[str, Resource] = {}
        self.versions: dict[str, str] = {}
        self.constraints = ScalingConstraints()
        self.first: dict[str, Workload] = {}
        self.latest: dict[str, Workload] = {}
        self.changes: dict[str, Change] = {}
        self.saved: set[str] = set()
        self.paused: set[str] = set()
        self.resumed: set[str] = set()
        self.written: set[str] = set()
        self.late: list[str] = []
        self.moved: dict[str, int] = {}
        self.foreign: list[str] = []
        self.is_planned = False

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        entries = [entry for tier in self.tiers for entry in tier]
        self.resources = find_resources(self.client, entries)
        self.first = {key: check_scale(self.client, workload) for key, workload in self._read(entries).items()}
        self.latest = dict(self.first)
        try:
            self._prepare()
            if self.module.check_mode:
                self.outcome.changed = bool(self.outcome.plan)
            else:
                for number, tier in enumerate(self.tiers):
                    self._perform(tier, number)
        finally:
            self._report()

    def _prepare(self) -> None:
        """Plan everything; a Refusal when something stands against it, or the server would not allow it."""
        self.constraints = self._read_constraints()
        for key, workload in self.first.items():
            self.changes[key] = self._plan(workload)
        if self.is_stop:
            self._refuse_blocked()
        for tier in self.tiers:
            self._describe([self.first[entry.key] for entry in tier])
        self._report_left()
        self.is_planned = True
        check_rights(
            self.client,
            self._list_planned(),
            namespace=self.namespace,
            reads=self._list_kinds_to_read(),
            check_mode=self.module.check_mode,
            is_way_back=not self.is_stop,
        )

    def _read(self, entries: t.Iterable[Entry]) -> dict[str, Workload]:
        """Read the workloads by one LIST for each kind, by key and in the order of ``entries``."""
        entries = list(entries)
        names: dict[str, list[str]] = {}
        for entry in entries:
            names.setdefault(entry.kind, []).append(entry.name)
        objects: dict[str, Json] = {}
        for kind, of_kind in names.items():
            listing = list_named(self.client, self.resources[kind], self.namespace, of_kind)
            self.versions[kind] = listing.version
            objects.update({f"{kind}/{name}": obj for name, obj in zip(of_kind, listing.items, strict=True)})
        return {entry.key: Workload.from_object(objects[entry.key], self.resources[entry.kind]) for entry in entries}

    def _read_constraints(self) -> ScalingConstraints:
        """Read the autoscalers: for a stop, as far as the guards ask for them.

        A start, the way back, looks at them whatever the guards are: what a stop has paused is resumed by each start,
        also by one that finds the workload running because another one was cut off, and they may move the number. It
        takes what may not be read for a warning.
        """
        guards = set(self.params["guards"]) if self.is_stop else {"hpa", "keda"}
        constraints = read_constraints(self.client, self.namespace, guards, required=self.is_stop)
        for warning in constraints.warnings:
            self.module.warn(warning)
        return constraints

    def _plan(self, workload: Workload) -> Change:
        return self._remember_owner(workload, self._plan_change(workload))

    def _remember_owner(self, workload: Workload, change: Change) -> Change:
        """Save with a write which GitOps tool owned the replicas until then."""
        write = remember_owner(change.write, workload, run_id=self.client.run_id, now=self.now)
        return change._replace(write=write)

    def _plan_change(self, workload: Workload) -> Change:
        if self.is_stop:
            return plan_stop(
                workload,
                run_id=self.client.run_id,
                now=self.now,
                first=self.first.get(workload.key, workload),
                has_paused=workload.key in self.paused,
                pausing_runs=self.constraints.find_pausing_runs(workload),
            )
        return plan_start(
            workload,
            replicas=self.replicas[workload.key],
            only_windows=self.only_windows,
            assume_stopped=self.params["assume"] == "stopped",
            leave_unsaved=self.params["on_missing_state"] == "report",
            fallback=self.constraints.find_saved_stop(workload),
            pausing_runs=self.constraints.find_pausing_runs(workload),
            is_held_at_zero=self.constraints.holds_at_zero(workload),
        )

    def _plan_scaler(self, scaler: Autoscaler, replicas: int) -> Write | None:
        """Return the write that pauses (before a stop) or resumes (before a start) an autoscaler, None for nothing."""
        if not self.is_stop:
            return scaler.plan_resume(only_windows=self.only_windows)
        if self.params["autoscaler"] != "pause":
            return None
        return scaler.plan_pause(replicas, run_id=self.client.run_id, now=self.now)

    def _list_scalers_to_write(self, workload: Workload) -> list[tuple[Autoscaler, Write]]:
        writes = [
            (scaler, self._plan_scaler(scaler, workload.replicas))
            for scaler in self.constraints.list_autoscalers(workload)
        ]
        return [(scaler, write) for scaler, write in writes if write is not None]

    def _list_bounds_to_restore(self, workload: Workload) -> list[tuple[Autoscaler, Write]]:
        """Return the writes that give back the bounds that scaling set to one number, before a workload is started."""
        change = self.changes[workload.key]
        if self.is_stop or change.before or not change.after:
            return []
        writes = [
            (scaler, scaler.plan_restore_bounds(only_windows=self.only_windows))
            for scaler in self.constraints.list_autoscalers(workload)
        ]
        return [(scaler, write) for scaler, write in writes if write is not None]

    def _refuse_blocked(self) -> None:
        """Refuse a stop that another actor would undo, or that deletes volumes. A start is never refused."""
        blockers: list[Blocker] = []
        for workload in self.first.values():
            if self.changes[workload.key].write is not None and "gitops" in self.params["guards"]:
                blockers += find_owner_blockers(workload)
            if not self.params["allow_volume_deletion"]:
                blockers += find_volume_blockers(workload, 0)
            for scaler in self.constraints.list_autoscalers(workload):
                afterwards = scaler.apply(self._plan_scaler(scaler, workload.replicas))
                blocker = afterwards.find_stop_blocker(workload)
                blockers += [blocker] if blocker is not None else []
        if blockers:
            self.outcome.blockers += blockers
            raise Refusal(
                obj=blockers[0].object,
                problem=_join_blockers(blockers),
                next_step=blockers[0].next_step,
            )

    def _describe(self, workloads: t.Sequence[Workload]) -> None:
        """Add the plan and the diff of one tier, in the order in which it will happen."""
        outcome = self.outcome
        outcome.before, outcome.after = outcome.before or {}, outcome.after or {}
        items: list[PlanItem] = []
        scalers: dict[str, PlanItem] = {}
        for workload in workloads:
            change = self.changes[workload.key]
            outcome.before[workload.key], outcome.after[workload.key] = change.before, change.after
            for scaler, write in self._list_bounds_to_restore(workload):
                restored, key = apply_bounds(scaler, write), f"bounds of {scaler.title}"
                what = describe_bounds(scaler, restored)
                outcome.plan.append(PlanItem(scaler.title, what, f"{workload.title} is started"))
                outcome.before[key], outcome.after[key] = scaler.bounds, restored.bounds
            if change.what:
                items.append(PlanItem(workload.title, change.what, change.reason, reversible=change.reversible))
            for scaler, _write in self._list_scalers_to_write(workload):
                verb = "pause" if self.is_stop else "resume"
                scalers[scaler.title] = PlanItem(scaler.title, verb, f"it owns the replicas of {workload.title}")
                outcome.before[scaler.title], outcome.after[scaler.title] = not self.is_stop, self.is_stop
        outcome.plan += [*scalers.values(), *items]

    def _report_left(self) -> None:
        """Report what stays stopped because nothing was saved on it, or because no window stopped it."""
        self.outcome.blockers += [
            summary.name_stopper(workload, self.changes[key].stopper)
            for key, workload in self.first.items()
            if self.changes[key].is_left
        ]

    def _list_planned(self) -> list[Planned]:
        """Return every write that is planned, to ask the server for it before the first one."""
        planned: list[Planned] = []
        for workload in self.first.values():
            write = self.changes[workload.key].write
            if write is not None and write.body:
                path = object_path(workload.resource, self.namespace, workload.name)
                planned.append(Planned(workload.resource, workload.title, path, workload.raw, write))
            # Bounds are not among them: a start that may not give them back is still the way back.
            for scaler, scaler_write in self._list_scalers_to_write(workload):
                planned.append(Planned(scaler.kind, scaler.title, scaler.path, scaler.raw, scaler_write))
        return planned

    def _list_kinds_to_read(self) -> set[str]:
        """Return the kinds without which it cannot be said that a workload is gone, or serves."""
        return {
            kind
            for workload in self.first.values()
            for kind in self._make_condition(workload).needs()
            if kind != workload.kind
        }

    def _perform(self, tier: Tier, number: int) -> None:
        """Change the workloads of one tier and wait for them, with a deadline of its own."""
        self.client.deadline = Deadline(self.params["timeout"])
        if number and not self.is_stop and (self.client.write_attempted or self.outcome.waited):
            self.latest.update(self._read(tier))  # what serves now need not be what served before the tiers in between
        workloads = [self.latest[entry.key] for entry in tier]
        for workload in workloads:
            self._restore_bounds(workload)
            self._save_before_pause(workload)
        # Before the workload also on the way back: KEDA would put it to 0 again as long as it is paused there.
        self._write_scalers(workloads)
        if self.is_stop:
            self._wait_for_pauses([self.latest[entry.key] for entry in tier])
        for workload in workloads:
            self._write_workload(self.latest[workload.key])
        self._wait([self.latest[entry.key] for entry in tier])

    def _restore_bounds(self, workload: Workload) -> None:
        """Give autoscalers their bounds back while the workload is still stopped, so that they move nothing yet."""
        for scaler, _write in self._list_bounds_to_restore(workload):

            def decide(obj: Json, kind: str = scaler.kind) -> Write | None:
                return Autoscaler.from_object(obj, kind).plan_restore_bounds(only_windows=self.only_windows)

            try:
                obj, _sent = self.client.patch_with_retry(scaler.path, decide, obj=scaler.title, first=scaler.raw)
            except Forbidden as error:
                self._report_bounds(scaler, error)
                continue
            self.constraints.replace_autoscaler(Autoscaler.from_object(obj, scaler.kind))

    def _report_bounds(self, scaler: Autoscaler, error: Forbidden) -> None:
        """Report bounds that this account may not give back."""
        what = f"its bounds stay at {scaler.minimum} to {scaler.maximum}: {error.problem}"
        self.outcome.blockers.append(Blocker(scaler.title, what, "the account of this run", error.next_step))
        self.module.warn(f"{scaler.title}: {what}. {error.next_step}.")

    def _save_before_pause(self, workload: Workload) -> None:
        """Save what a workload has before its autoscaler is paused, which may scale it to 0 faster than this run."""
        if not self.is_stop or not self._list_scalers_to_write(workload):
            return

        def decide(obj: Json) -> Write | None:
            current = Workload.from_object(obj, workload.resource)
            self._refuse_volume_deletion(current)
            return self._remember_owner(current, plan_save(current, run_id=self.client.run_id, now=self.now)).write

        path = object_path(workload.resource, self.namespace, workload.name)
        obj, sent = self.client.patch_with_retry(path, decide, obj=workload.title, first=workload.raw)
        if sent:
            self.saved.add(workload.key)
        self.latest[workload.key] = Workload.from_object(obj, workload.resource)

    def _write_workload(self, workload: Workload) -> None:
        key = workload.key
        decided: list[Change] = []

        def decide(obj: Json) -> Write | None:
            decided.append(self._decide(Workload.from_object(obj, workload.resource)))
            return decided[-1].write

        path = object_path(workload.resource, self.namespace, workload.name)
        obj, sent = self.client.patch_with_retry(path, decide, obj=workload.title, first=workload.raw)
        self.latest[key] = Workload.from_object(obj, workload.resource)
        if sent:
            self.written.add(key)
            self._adopt(key, next(change for change in reversed(decided) if change.write is not None))
            self._check_answer(obj, workload, decided[-1].write)
        elif key in self.saved:
            self.written.add(key)  # by the autoscaler that this run has paused, which was faster
        else:
            self._adopt(key, decided[-1])

    def _check_answer(self, answer: Json, workload: Workload, write: Write | None) -> None:
        """Fail when the server made something else of a write; what was saved is put back then."""
        if write is None:  # its answer was lost, and the wait says what became of it
            return
        try:
            check_answer(answer, write, workload.title)
        except OpsError:
            self._put_back_saved(answer, workload)
            raise

    def _put_back_saved(self, answer: Json, workload: Workload) -> None:
        """Save again what a start has removed, for the object as it is now."""
        try:
            state = find_state(workload.annotations, STOPPED, STOP)
        except UnreadableSavedState:
            state = None
        if self.is_stop or state is None:
            return

        def decide(obj: Json) -> Write:
            current = Workload.from_object(obj, workload.resource)
            saved = save_state(current.annotations, STOPPED, state._replace(generation=current.generation))
            return Write({"metadata": {"annotations": saved}}, (("metadata", "annotations", STOPPED),))

        path = object_path(workload.resource, self.namespace, workload.name)
        obj, _sent = self.client.patch_with_retry(path, decide, obj=workload.title, first=answer)
        self.latest[workload.key] = Workload.from_object(obj, workload.resource)

    def _decide(self, workload: Workload) -> Change:
        """Plan for a workload as it is now.

        KEDA that this run has resumed may have been faster, with the number that it begins with: what was saved still
        counts then, and KEDA moves it from there.
        """
        planned = self.changes[workload.key]
        if self.is_stop:
            self._refuse_volume_deletion(workload)
        if workload.key in self.resumed and 0 < workload.replicas < planned.after and not planned.before:
            change = plan_start(workload, replicas=planned.after, only_windows=self.only_windows)
            return change._replace(before=planned.before, reason=planned.reason)
        return self._plan(workload)

    def _refuse_volume_deletion(self, workload: Workload) -> None:
        """Refuse to stop a workload as it is now if that deletes claims, whatever was so when all was planned."""
        if not self.params["allow_volume_deletion"]:
            refuse_volume_deletion(workload, 0)

    def _adopt(self, key: str, change: Change) -> None:
        """Report what was decided in the end, which another client may have made differ from what was planned."""
        self.changes[key] = change
        self.outcome.before[key], self.outcome.after[key] = change.before, change.after

    def _write_scalers(self, workloads: t.Sequence[Workload]) -> None:
        for workload in workloads:
            replicas = self.first[workload.key].replicas
            for scaler in self.constraints.list_autoscalers(workload):
                if self._write_scaler(scaler, replicas):
                    (self.paused if self.is_stop else self.resumed).add(workload.key)

    def _write_scaler(self, scaler: Autoscaler, replicas: int) -> bool:
        """Pause or resume an autoscaler; return whether something was written."""
        if self._plan_scaler(scaler, replicas) is None:
            return False

        def decide(obj: Json) -> Write | None:
            return self._plan_scaler(Autoscaler.from_object(obj, scaler.kind), replicas)

        obj, sent = self.client.patch_with_retry(scaler.path, decide, obj=scaler.title, first=scaler.raw)
        if self.is_stop:  # on the way back what counts is that it was paused before
            self.constraints.replace_autoscaler(Autoscaler.from_object(obj, scaler.kind))
        return sent

    def _wait_for_pauses(self, workloads: t.Sequence[Workload]) -> None:
        """Wait until KEDA has acted on the pauses, so that what its loop has begun does not undo the stop.

        No longer than its loop takes: where the operator is down nothing is begun, and it reads the pause when it
        comes back. Then the stop goes on with a warning.
        """
        awaited = [
            (scaler, workload)
            for workload in workloads
            for scaler in self.constraints.list_autoscalers(workload)
            if workload.replicas and scaler.is_pause_awaited
        ]
        if not awaited:
            return
        loop = max(scaler.polling_seconds for scaler, _workload in awaited) + PAUSE_SLACK_SECONDS
        deadline = Deadline(min(loop, self.client.deadline.remaining / 2))
        scalers = {scaler.path: scaler for scaler, _workload in awaited}.values()
        followed = follow_each({workload.key: workload for _scaler, workload in awaited}.values())
        followed += [
            Followed(
                find_resource(scaler.kind),
                scaler.namespace,
                Listing([scaler.raw], str(get_path(scaler.raw, "metadata", "resourceVersion") or "")),
                scaler.name,
            )
            for scaler in scalers
        ]
        conditions = [PauseTaken(scaler, workload) for scaler, workload in awaited]
        try:
            wait_for_workloads(self.module, self.client, self.outcome, conditions, followed, deadline=deadline)
        except WaitTimeout as error:
            self.module.warn(
                f"{error.obj}: its operator has not said within {deadline.seconds:.0f} s that it has paused it"
                " (condition Paused), and the stop goes on. Look whether keda-operator runs."
            )

    def _wait(self, workloads: t.Sequence[Workload]) -> None:
        """Wait until the tier is gone, or serves. What is left stopped, and a Job that has ended, is not waited for."""
        workloads = [w for w in workloads if not self.changes[w.key].is_left and not has_ended(w)]
        if not workloads:
            return
        conditions = [self._make_condition(workload) for workload in workloads]

        def take(snapshot: Snapshot) -> None:
            statuses = [condition.evaluate(snapshot) for condition in conditions]
            self.late = [f"{status.title} ({status.message})" for status in statuses if not status.is_current]
            for workload, status in zip(workloads, statuses, strict=True):
                latest = snapshot.workload(workload.resource, workload.namespace, workload.name)
                self.latest[workload.key] = latest or workload
                if status.is_current and status.goal not in (None, self.changes[workload.key].after):
                    self.moved[workload.key] = self.latest[workload.key].replicas
                foreign = describe_foreign_pods(snapshot, workload) if self.is_stop else ""
                self.foreign += [f"{workload.title}: {foreign}"] if foreign else []

        followed = self._list_followed(workloads)
        wait_for_workloads(self.module, self.client, self.outcome, conditions, followed, take=take)

    def _make_condition(self, workload: Workload) -> Condition:
        if self.is_stop:
            return Gone(workload)
        scalers = self.constraints.list_autoscalers(workload)
        return Serving(workload, self._find_goal(workload), autoscalers=scalers)

    def _find_goal(self, workload: Workload) -> int:
        """Return how many pods were asked for, which need not be what the server answered."""
        return self.changes[workload.key].after if workload.key in self.written else workload.replicas

    def _list_followed(self, workloads: t.Sequence[Workload]) -> list[Followed]:
        """Return several of one kind as a collection, others (also where they may not be listed) each by its name."""
        by_kind: dict[str, list[Workload]] = {}
        for workload in workloads:
            by_kind.setdefault(workload.kind, []).append(workload)
        followed: list[Followed] = []
        for kind, of_kind in by_kind.items():
            version = self.versions[kind]
            if len(of_kind) > 1 and version:
                listing = Listing([workload.raw for workload in of_kind], version)
                followed.append(Followed(self.resources[kind], self.namespace, listing))
            else:
                followed += follow_each(of_kind)
        return followed

    def _report(self) -> None:
        """Set what is known of the workloads; once all is planned the summary and the evidence too, also on a failure."""
        check_mode = self.module.check_mode
        latest = list(self.latest.values())
        self.outcome.facts["workloads"] = [summary.describe_workload(workload) for workload in latest]
        self.outcome.facts["reasons"] = {key: change.reason for key, change in self.changes.items()}
        if not self.is_planned:
            return
        first, written = list(self.first.values()), None if check_mode else self.written
        if self.is_stop:
            self.outcome.summary = summary.summarize_stop(first, self.changes, written=written, late=self.late)
        else:
            self.outcome.summary = summary.summarize_start(
                first, self.changes, written=written, late=self.late, moved=self.moved
            )
        if self.is_stop and self.written and not is_window(self.client.run_id):
            self.outcome.summary += summary.START_AGAIN
        evidence = summary.list_change_evidence(latest, self.changes, check_mode=check_mode)
        self.outcome.evidence = [*evidence, *self.foreign]


def _join_blockers(blockers: t.Sequence[Blocker]) -> str:
    """Return what all of them say, each with its object where there are several."""
    if len({blocker.object for blocker in blockers}) == 1:
        return "; ".join(blocker.what for blocker in blockers)
    return "; ".join(f"{blocker.object}: {blocker.what}" for blocker in blockers)


def run_workload(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, report."""
    tiers = parse_tiers(module.params)
    client = connect(module, seconds=module.params["timeout"])
    outcome.facts["run_id"] = client.run_id
    try:
        check_identity(client, module.params["cluster_uid"])
        StopStart(module, outcome, client, tiers).run()
    finally:
        disconnect(module, outcome, client)
