# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_workload and k8s_workload_info. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t
from http import HTTPStatus

from .._common.errors import Refusal
from .._common.outcome import Blocker, Outcome, PlanItem
from .._common.retry import Deadline
from . import guards, stopping, summary
from .api import Api, Json, check_name, collection_path, object_path
from .connection import connect, missing, read_cluster_uid
from .errors import ApiError
from .parse import Record, Scaler, Workload, is_window, scaled_object, workload
from .tiers import KINDS, Entry, Tier, parse_tiers
from .wait import Waiter

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def read_kind(api: Api, kind: str, namespace: str, names: t.Sequence[str]) -> tuple[dict[str, Json], str]:
    """The named objects of one kind by one LIST, and the version to watch from; a Refusal names those missing."""
    params = {"fieldSelector": f"metadata.name={names[0]}"} if len(names) == 1 else None
    answer = api.get(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}", params=params)
    found = {str(obj["metadata"]["name"]): obj for obj in answer.get("items") or []}
    absent = [name for name in names if name not in found]
    if absent:
        raise missing(api, kind, namespace, absent)
    return found, str(answer["metadata"]["resourceVersion"])


class StopStart:
    """One run over all tiers: read once, plan everything, refuse before the first write, then tier by tier."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, api: Api, tiers: t.Sequence[Tier]) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.api = api
        self.namespace = str(self.params["namespace"])
        self.stopping = self.params["state"] == "stopped"
        self.only_of_windows = self.params["saved_by"] == "window"
        self.at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.tiers = list(reversed(tiers)) if self.stopping else list(tiers)
        self.replicas = {entry.key: entry.replicas for tier in tiers for entry in tier}
        self.versions: dict[str, str] = {}
        self.around = guards.Surroundings()
        self.first: dict[str, Workload] = {}
        self.latest: dict[str, Workload] = {}
        self.changes: dict[str, stopping.Change] = {}
        self.written: set[str] = set()

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        self.first = self._read([entry for tier in self.tiers for entry in tier])
        self.latest = dict(self.first)
        self.around = self._read_guards()
        self.changes = {key: self._decide(workload) for key, workload in self.first.items()}
        self._refuse_fights()
        for tier in self.tiers:
            self._describe([self.first[entry.key] for entry in tier])
        self.outcome.facts["reasons"] = {key: change.why for key, change in self.changes.items()}
        self._report_left()
        try:
            if self.module.check_mode:
                self.outcome.changed = bool(self.outcome.plan)
            else:
                for number, tier in enumerate(self.tiers):
                    self._perform(tier, number)
        finally:
            self._report()

    def _perform(self, tier: Tier, number: int) -> None:
        """Patch the workloads of one tier and wait for them, with a deadline of its own."""
        self.api.deadline = Deadline(self.params["timeout"])
        if number and not self.stopping and (self.api.touched or self.outcome.waited):
            self.latest.update(self._read(tier))  # what serves now need not be what served before the tiers in between
        self._apply([self.latest[entry.key] for entry in tier])
        self._wait([self.latest[entry.key] for entry in tier])

    def _read(self, entries: t.Iterable[Entry]) -> dict[str, Workload]:
        """Read the workloads by one LIST for each kind, by key and in the order of ``entries``."""
        entries = list(entries)
        names: dict[str, list[str]] = {}
        for entry in entries:
            names.setdefault(entry.kind, []).append(entry.name)
        objects: dict[str, Json] = {}
        for kind, of_kind in names.items():
            by_name, self.versions[kind] = read_kind(self.api, kind, self.namespace, of_kind)
            objects.update({f"{kind}/{name}": obj for name, obj in by_name.items()})
        return {entry.key: workload(objects[entry.key], entry.kind) for entry in entries}

    def _read_guards(self) -> guards.Surroundings:
        """Read what the guards need. For a start, the way back, what this account may not read is only a warning."""
        try:
            return guards.read(self.api, self.namespace, self.params["guards"])
        except ApiError as error:
            if self.stopping or error.status != HTTPStatus.FORBIDDEN:
                raise
            self.module.warn(f"{error} Until then nothing is known of the autoscalers of these workloads.")
            return guards.Surroundings()

    def _decide(self, view: Workload) -> stopping.Change:
        if self.stopping:
            return stopping.stop(view, run=self.api.run_id, at=self.at)
        return stopping.start(
            view,
            replicas=self.replicas[view.key],
            assume_stopped=self.params["assume"] == "stopped",
            leave_unsaved=self.params["on_missing_state"] == "report",
            only_of_windows=self.only_of_windows,
        )

    def _scaler_body(self, scaler: Scaler) -> Json | None:
        if not self.stopping:
            if scaler.kind != "ScaledObject":
                return None
            return stopping.unfreeze(scaler, only_of_windows=self.only_of_windows)
        if scaler.kind == "ScaledObject" and self.params["autoscaler"] == "pause":
            return stopping.freeze(scaler, run=self.api.run_id, at=self.at)
        return None

    def _scalers_to_patch(self, views: t.Sequence[Workload]) -> list[Scaler]:
        """Return the ScaledObjects of these workloads that are to be paused or resumed; HPAs rest at 0 by themselves."""
        scalers = {scaler.title: scaler for view in views for scaler in self.around.scalers_of(view)}
        return [scaler for scaler in scalers.values() if self._scaler_body(scaler) is not None]

    def _refuse_fights(self) -> None:
        """Refuse a stop that an autoscaler or a GitOps tool would undo. A start is never refused: it is the way back."""
        if not self.stopping:
            return
        blockers: list[Blocker] = []
        for view in self.first.values():
            owner = guards.gitops_owner(view) if "gitops" in self.params["guards"] else None
            if owner and self.changes[view.key].body is not None:
                blockers.append(owner)
            for scaler in self.around.scalers_of(view):
                can_pause = scaler.kind == "ScaledObject" and self.params["autoscaler"] == "pause"
                if stopping.fights_stop(scaler) and not can_pause:
                    blockers.append(_fight(view, scaler))
        if blockers:
            self.outcome.blockers += blockers
            raise Refusal(
                obj=blockers[0].object,
                problem="; ".join(f"{blocker.object}: {blocker.what}" for blocker in blockers),
                next_step=blockers[0].next_step,
            )

    def _describe(self, views: t.Sequence[Workload]) -> None:
        """Add the plan and the diff of one tier, in the order in which it will happen."""
        outcome = self.outcome
        outcome.before, outcome.after = outcome.before or {}, outcome.after or {}
        scalers = [
            PlanItem(
                scaler.title, "pause" if self.stopping else "resume", "it owns the replicas of one of these workloads"
            )
            for scaler in self._scalers_to_patch(views)
        ]
        items: list[PlanItem] = []
        for view in views:
            change = self.changes[view.key]
            outcome.before[view.key], outcome.after[view.key] = change.before, change.after
            if change.body is not None:
                items.append(PlanItem(view.title, f"replicas {change.before} -> {change.after}", change.why))
        for item in scalers:
            outcome.before[item.object], outcome.after[item.object] = not self.stopping, self.stopping
        outcome.plan += [*scalers, *items] if self.stopping else [*items, *scalers]

    def _report_left(self) -> None:
        """Report what stays stopped because nothing was saved on it, or because no window stopped it."""
        self.outcome.blockers += [
            _name_stopper(view, self.changes[view.key].stopper)
            for view in self.first.values()
            if self.changes[view.key].is_left
        ]

    def _apply(self, views: t.Sequence[Workload]) -> None:
        """Pause before stopping, resume after starting; each object by one patch."""
        scalers = self._scalers_to_patch(views)
        if self.stopping:
            self._patch_scalers(scalers)
        for view in views:
            path = object_path(view.kind, self.namespace, view.name)
            obj, wrote = self.api.converge(path, self._decider(view), obj=view.title, first=t.cast("Json", view.raw))
            if wrote:
                self.outcome.changed = True
                self.written.add(view.key)
            self.latest[view.key] = workload(obj, view.kind)
        if not self.stopping:
            self._patch_scalers(scalers)

    def _decider(self, view: Workload) -> t.Callable[[Json], Json | None]:
        return lambda obj: self._decide(workload(obj, view.kind)).body

    def _patch_scalers(self, scalers: t.Sequence[Scaler]) -> None:
        for scaler in scalers:
            path = object_path(scaler.kind, self.namespace, scaler.name)
            _obj, wrote = self.api.converge(
                path,
                lambda obj: self._scaler_body(scaled_object(obj)),
                obj=scaler.title,
                first=t.cast("Json", scaler.raw),
            )
            self.outcome.changed = self.outcome.changed or wrote

    def _wait(self, views: t.Sequence[Workload]) -> None:
        """Wait until the tier is gone, or serves. What is left stopped is not waited for."""
        views = [view for view in views if not self.changes[view.key].is_left]
        goals = {view.key: 0 if self.stopping else view.replicas for view in views}
        if not views or (not self.stopping and all(view.settled(goals[view.key]) for view in views)):
            return
        versions = {view.kind: self.versions[view.kind] for view in views}
        if len(views) == 1:
            versions = {views[0].kind: views[0].resource_version}
        waiter = Waiter(
            self.api,
            self.outcome,
            views,
            versions,
            deadline=self.api.deadline,
            patience=self.params["patience"],
            scaled_by_others={view.key for view in views if not self.stopping and self.around.scalers_of(view)},
        )
        try:
            if self.stopping:
                waiter.vanish()
            else:
                waiter.settle(goals)
        finally:
            self.latest.update({view.key: view for view in waiter.views})
            for warning in waiter.warnings:
                self.module.warn(warning)

    def _report(self) -> None:
        """Set what is known of the workloads, the summary and the evidence, also on a failure."""
        check_mode = self.module.check_mode
        summarize = summary.summarize_stop if self.stopping else summary.summarize_start
        self.outcome.summary = summarize(
            list(self.first.values()), self.changes, written=None if check_mode else self.written
        )
        if self.stopping and self.written and not is_window(self.api.run_id):
            self.outcome.summary += summary.START_AGAIN
        latest = list(self.latest.values())
        self.outcome.evidence = summary.list_change_evidence(latest, self.changes, check_mode=check_mode)
        self.outcome.facts["workloads"] = [stopping.described(view) for view in latest]


def _name_stopper(view: Workload, stopper: Record | None) -> Blocker:
    if stopper is None:
        return Blocker(
            object=view.title,
            what="it has 0 replicas and nothing was saved on it, so it is left as it is",
            holder="the client that scaled it to 0",
            next_step="Give replicas for it, if it is meant to run",
        )
    return Blocker(
        object=view.title,
        what=f"it is stopped by run {stopper.run} since {stopper.at}, not by a window, so it is left as it is",
        holder=f"run {stopper.run}",
        since=stopper.at,
        next_step="Start it with lowtide.ops.startup or lowtide.ops.restore_service, if it is meant to run",
    )


def _fight(view: Workload, scaler: Scaler) -> Blocker:
    keda = scaler.kind == "ScaledObject"
    return Blocker(
        object=view.title,
        what=f"{scaler.title} owns its replicas ({scaler.minimum} to {scaler.maximum}) and would start pods again",
        holder=scaler.title,
        next_step="Set autoscaler to pause, or pause it yourself"
        if keda
        else "Set its minReplicas to 1 or more, or remove it",
    )


def run_workloads(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, report."""
    if module.params["assume"] and not module.check_mode:
        raise Refusal(
            obj="option assume", problem="it is set outside check mode", next_step="Use it for rehearsals only"
        )
    tiers = parse_tiers(module.params)
    api = connect(module, seconds=module.params["timeout"])
    try:
        StopStart(module, outcome, api, tiers).run()
    finally:
        api.close()
        outcome.changed = outcome.changed or api.touched
        outcome.facts.update(requests=api.requests, run_id=api.run_id)


def read_workloads(module: AnsibleModule, outcome: Outcome) -> None:
    """List the workloads of a namespace, or those named, and what was left stopped; without a namespace, only the identity."""
    params = module.params
    if params["workloads"] and params["namespace"] is None:
        raise Refusal(
            obj="option namespace", problem="it is not set, and workloads names some", next_step="Set namespace"
        )
    api = connect(module, seconds=params["timeout"])
    try:
        if params["namespace"] is None:
            outcome.facts["cluster_uid"] = params["cluster_uid"] or read_cluster_uid(api)
            views = []
        else:
            outcome.facts["cluster_uid"] = params["cluster_uid"] or _cluster_uid(api)
            views = _named(api, params) if params["workloads"] else _all(api, params)
    finally:
        api.close()
        outcome.facts["requests"] = api.requests
    found = [stopping.described(view) for view in views]
    outcome.facts["workloads"] = found
    outcome.facts["stopped_by_us"] = [one for one in found if one["stopped_by_us"]]
    outcome.summary = (
        f"cluster {outcome.facts['cluster_uid']}"
        if params["namespace"] is None
        else summary.summarize_workloads(views, outcome.facts["stopped_by_us"])
    )
    outcome.evidence = [summary.describe_state(view) for view in views]


def _cluster_uid(api: Api) -> str | None:
    try:
        return read_cluster_uid(api)
    except ApiError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            return None
        raise


def _named(api: Api, params: t.Mapping[str, t.Any]) -> list[Workload]:
    views: list[Workload] = []
    for kind in KINDS:
        names = [check_name("name", one["name"]) for one in params["workloads"] if one["kind"] == kind]
        if names:
            objects, _version = read_kind(api, kind, params["namespace"], names)
            views += [workload(objects[name], kind) for name in names]
    return views


def _all(api: Api, params: t.Mapping[str, t.Any]) -> list[Workload]:
    namespace = params["namespace"]
    views: list[Workload] = []
    for kind in KINDS:
        answer = api.get(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}")
        views += [workload(obj, kind) for obj in answer.get("items") or []]
    if not views:  # an empty answer is also what a namespace that does not exist gives
        api.get(f"/api/v1/namespaces/{namespace}", obj=f"namespace {namespace}")
    return views
