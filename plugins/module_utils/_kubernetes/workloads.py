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
from . import guards, stopping
from .api import Api, Json, check_name, collection_path, object_path
from .connection import connect, missing, read_cluster_uid
from .errors import ApiError
from .parse import Scaler, Workload, scaled_object, workload

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

KINDS = ("StatefulSet", "Deployment", "CronJob")


def read_kind(api: Api, kind: str, namespace: str, names: t.Sequence[str]) -> tuple[dict[str, Json], str]:
    """The named objects of one kind by one LIST, and the version to watch from; a Refusal names those missing."""
    params = {"fieldSelector": f"metadata.name={names[0]}"} if len(names) == 1 else None
    answer = api.get(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}", params=params)
    found = {str(obj["metadata"]["name"]): obj for obj in answer.get("items") or []}
    absent = [name for name in names if name not in found]
    if absent:
        raise missing(api, kind, namespace, absent)
    return found, str(answer["metadata"]["resourceVersion"])


class Tier:
    """The workloads of one task, treated alike."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, api: Api) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.api = api
        self.namespace = str(self.params["namespace"])
        self.stopping = self.params["state"] == "stopped"
        self.at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.replicas = {f"{one['kind']}/{one['name']}": one["replicas"] for one in self.params["workloads"]}
        self.versions: dict[str, str] = {}

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        views = self._read()
        around = guards.read(self.api, self.namespace, self.params["guards"])
        scalers = {scaler.title: scaler for view in views for scaler in around.scalers_of(view)}
        changes = {view.key: self._decide(view) for view in views}
        self._refuse_fights(views, around, changes)
        frozen = {title: body for title, scaler in scalers.items() if (body := self._scaler_body(scaler)) is not None}
        self._describe(views, changes, [scalers[title] for title in frozen])
        if not self.module.check_mode:
            views = self._apply(views, [scalers[title] for title in frozen])
            views = self._wait(views, {view.key: changes[view.key].after for view in views})
        self.outcome.facts["workloads"] = [stopping.described(view) for view in views]

    def _read(self) -> list[Workload]:
        wanted: dict[str, list[str]] = {}
        for one in self.params["workloads"]:
            wanted.setdefault(one["kind"], []).append(check_name("name", one["name"]))
        found: dict[str, Json] = {}
        for kind, names in wanted.items():
            objects, self.versions[kind] = read_kind(self.api, kind, self.namespace, names)
            found.update({f"{kind}/{name}": obj for name, obj in objects.items()})
        return [workload(found[f"{one['kind']}/{one['name']}"], one["kind"]) for one in self.params["workloads"]]

    def _decide(self, view: Workload) -> stopping.Change:
        if self.stopping:
            return stopping.stop(view, run=self.api.run_id, at=self.at)
        return stopping.start(view, replicas=self.replicas[view.key], assume_stopped=self.params["assume"] == "stopped")

    def _scaler_body(self, scaler: Scaler) -> Json | None:
        if not self.stopping:
            return stopping.unfreeze(scaler) if scaler.kind == "ScaledObject" else None
        if scaler.kind == "ScaledObject" and self.params["autoscaler"] == "freeze":
            return stopping.freeze(scaler, run=self.api.run_id, at=self.at)
        return None

    def _refuse_fights(
        self, views: list[Workload], around: guards.Surroundings, changes: t.Mapping[str, stopping.Change]
    ) -> None:
        found: list[Blocker] = []
        for view in views:
            owner = guards.gitops_owner(view) if "gitops" in self.params["guards"] else None
            if owner and changes[view.key].body is not None:
                found.append(owner)
            for scaler in around.scalers_of(view) if self.stopping else []:
                freezable = scaler.kind == "ScaledObject" and self.params["autoscaler"] == "freeze"
                if stopping.fights_stop(scaler) and not freezable:
                    found.append(_fight(view, scaler))
        if found:
            self.outcome.blockers += found
            raise Refusal(
                obj=found[0].object,
                problem="; ".join(f"{blocker.object}: {blocker.what}" for blocker in found),
                next_step=found[0].next_step,
            )

    def _describe(self, views: list[Workload], changes: t.Mapping[str, stopping.Change], scalers: list[Scaler]) -> None:
        outcome = self.outcome
        outcome.before = {key: change.before for key, change in changes.items()}
        outcome.after = {key: change.after for key, change in changes.items()}
        verb = "freeze" if self.stopping else "unfreeze"
        for scaler in scalers:
            outcome.plan.append(PlanItem(scaler.title, verb, "it owns the replicas of one of these workloads"))
            outcome.before[scaler.title], outcome.after[scaler.title] = not self.stopping, self.stopping
        for view in views:
            change = changes[view.key]
            if change.body is not None:
                outcome.plan.append(PlanItem(view.title, f"replicas {change.before} -> {change.after}", change.why))
        outcome.facts["reasons"] = {key: change.why for key, change in changes.items()}
        if self.module.check_mode:
            outcome.changed = bool(outcome.plan)

    def _apply(self, views: list[Workload], scalers: list[Scaler]) -> list[Workload]:
        """Freeze before stopping, unfreeze after starting; each object by one patch."""
        if self.stopping:
            self._patch_scalers(scalers)
        done: list[Workload] = []
        for view in views:
            path = object_path(view.kind, self.namespace, view.name)
            obj, wrote = self.api.converge(path, self._decider(view), obj=view.title, first=t.cast("Json", view.raw))
            self.outcome.changed = self.outcome.changed or wrote
            done.append(workload(obj, view.kind))
        if not self.stopping:
            self._patch_scalers(scalers)
        return done

    def _decider(self, view: Workload) -> t.Callable[[Json], Json | None]:
        return lambda obj: self._decide(workload(obj, view.kind)).body

    def _patch_scalers(self, scalers: list[Scaler]) -> None:
        for scaler in scalers:  # HPAs rest at 0 by themselves; those to patch are all ScaledObjects
            path = object_path(scaler.kind, self.namespace, scaler.name)
            _obj, wrote = self.api.converge(
                path,
                lambda obj: self._scaler_body(scaled_object(obj)),
                obj=scaler.title,
                first=t.cast("Json", scaler.raw),
            )
            self.outcome.changed = self.outcome.changed or wrote

    def _wait(self, views: list[Workload], goals: t.Mapping[str, int]) -> list[Workload]:
        if not self.stopping and all(view.settled(goals[view.key]) for view in views):
            return views
        from .wait import Waiter  # here, because a run that has nothing to wait for need not compile it

        versions = dict(self.versions)
        if len(views) == 1:
            versions = {views[0].kind: views[0].resource_version}
        waiter = Waiter(
            self.api, self.outcome, views, versions, deadline=self.api.deadline, patience=self.params["patience"]
        )
        try:
            if self.stopping:
                waiter.vanish()
            else:
                waiter.settle(goals)
        finally:
            for warning in waiter.warnings:
                self.module.warn(warning)
        return waiter.views


def _fight(view: Workload, scaler: Scaler) -> Blocker:
    keda = scaler.kind == "ScaledObject"
    return Blocker(
        object=view.title,
        what=f"{scaler.title} owns its replicas ({scaler.minimum} to {scaler.maximum}) and would start pods again",
        holder=scaler.title,
        next_step="Set autoscaler to freeze, or pause it yourself"
        if keda
        else "Set its minReplicas to 1 or more, or remove it",
    )


def run_workloads(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, report."""
    if module.params["assume"] and not module.check_mode:
        raise Refusal(
            obj="option assume", problem="it is set outside check mode", next_step="Use it for rehearsals only"
        )
    keys = [f"{one['kind']}/{one['name']}" for one in module.params["workloads"]]
    if len(set(keys)) != len(keys) or not keys:
        raise Refusal(
            obj="option workloads",
            problem=f"it names {', '.join(keys) or 'nothing'}",
            next_step="Name each workload once, and at least one",
        )
    api = connect(module, seconds=module.params["timeout"])
    try:
        Tier(module, outcome, api).run()
    finally:
        api.close()
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
