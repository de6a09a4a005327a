# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way of another pod template: its owner, amounts, quotas, nodes; and what autoscalers make of it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from .autoscalers import Autoscaler
from .client import Client
from .constraints.capacity import find_fit_blockers
from .constraints.delivery import DELIVERY_TOOLS, DeliveryTool, find_delivery_blocker
from .constraints.limits import RUNTIME_VARIABLES, find_amount_blockers, list_runtime_warnings
from .constraints.owners import POD_TEMPLATE, find_operator_blocker, find_owner_blockers
from .constraints.quota import find_rollout_quota_blockers
from .errors import Forbidden, NotFound
from .fields import Json, as_dict, as_list, get_path
from .objects import Workload
from .plans.rollout import Plan, count_unavailable
from .pod_templates import ENV, LIMITS, REQUESTS, RESTARTED_AT, Edit
from .resources import collection_path
from .scaling_constraints import ScalingConstraints, is_served, read_constraints
from .selectors import format_selector
from .silent_nodes import find_hold, list_silent_pods
from .snapshot import Snapshot


def find_rollout_blockers(
    client: Client, workload: Workload, plan: Plan, guards: t.Collection[str]
) -> tuple[list[Blocker], list[str]]:
    """Return what stands in the way of a planned template, and what the user should know of autoscalers.

    Each guard costs one request, capacity two, gitops one for each tool that may roll its kind out. Whatever they are, amounts that do not agree are found, and
    nodes that would hold up a DaemonSet that does not serve everywhere.
    """
    blockers, warnings = _find_owners(client, workload, plan) if "gitops" in guards else ([], [])
    blockers += _find_silent_nodes(client, workload)
    reads = {"headroom" if guard == "capacity" else guard for guard in guards} - {"gitops"}
    constraints = read_constraints(client, workload.namespace, reads)
    if "quota" in guards and not constraints.limit_ranges and _changes(plan, REQUESTS, LIMITS):
        path = collection_path("LimitRange", workload.namespace)
        constraints.limit_ranges = client.list(path, obj=f"LimitRanges of namespace {workload.namespace}").items
    ranges, unavailable = constraints.limit_ranges, count_unavailable(workload)
    edited = {edit.place.container for edit in plan.edits if edit.place.container}
    sized = {edit.place.container for edit in plan.edits if _sizes(edit)}
    title, template = workload.title, plan.template
    blockers += find_amount_blockers(title, template, containers=edited, limit_ranges=ranges, sized=sized)
    told = list_runtime_warnings(title, template, containers=edited - sized, limit_ranges=ranges)
    blockers += find_rollout_quota_blockers(
        workload, plan.template, constraints.quotas, limit_ranges=ranges, unavailable=unavailable
    )
    if "capacity" in guards:
        blockers += find_fit_blockers(
            workload,
            plan.template,
            constraints.nodes,
            constraints.pods,
            limit_ranges=ranges,
            replaces_first=unavailable > 0,
        )
    return blockers, warnings + told + _list_warnings(constraints, workload, changes_requests=_changes(plan, REQUESTS))


def _find_owners(client: Client, workload: Workload, plan: Plan) -> tuple[list[Blocker], list[str]]:
    """Return who keeps the pod template or rolls it out, and a warning for what this account may not read.

    The annotation of a restart is in no Git. An operator makes the whole template, and takes it out again.
    """
    is_restart = _drop_restart(plan.template) == _drop_restart(workload.template)
    keeper = find_operator_blocker(workload, POD_TEMPLATE)
    kept = ([keeper] if keeper is not None else []) if is_restart else find_owner_blockers(workload, POD_TEMPLATE)
    blockers, warnings = list(kept), []
    for tool in DELIVERY_TOOLS:
        if workload.kind not in tool.kinds:
            continue
        try:
            objects = _list_delivered(client, workload.namespace, tool)
        except Forbidden as error:
            warnings.append(f"{error} Until then it is not known whether {tool.name} rolls {workload.title} out.")
            continue
        blocker = find_delivery_blocker(workload, tool, objects)
        blockers += [blocker] if blocker is not None else []
    return blockers, warnings


def _drop_restart(template: Json) -> Json:
    """Return a pod template without the moment of its last restart."""
    metadata = as_dict(template.get("metadata"))
    annotations = {key: value for key, value in as_dict(metadata.get("annotations")).items() if key != RESTARTED_AT}
    return {**template, "metadata": {**metadata, "annotations": annotations}}


def _list_delivered(client: Client, namespace: str, tool: DeliveryTool) -> list[Json]:
    """Return the objects of a tool, none where the cluster does not have it. Raises Forbidden where it may."""
    title = f"{tool.resource.plural} of {tool.name} in namespace {namespace}"
    try:
        return client.list(collection_path(tool.resource, namespace), obj=title).items
    except NotFound:
        return []
    except Forbidden:
        if is_served(client, tool.resource):
            raise
        return []


def _find_silent_nodes(client: Client, workload: Workload) -> list[Blocker]:
    """Return the nodes that would keep a DaemonSet's controller from replacing any pod."""
    if workload.kind != "DaemonSet" or workload.serving >= workload.replicas:
        return []
    path, params = collection_path("Pod", workload.namespace), {"labelSelector": format_selector(workload.selector)}
    pods = client.list(path, obj=f"Pods of {workload.title}", params=params).items
    silent = list_silent_pods(Snapshot.from_objects([{**pod, "kind": "Pod"} for pod in pods]), workload)
    hold = find_hold(silent, workload)
    return [hold] if hold is not None else []


def _sizes(edit: Edit) -> bool:
    """Return whether an edit is about the memory that a container may have, or that its runtime is told to take."""
    field, key = edit.place.field, edit.place.key
    return (field == LIMITS and key == "memory") or (field == ENV and key in RUNTIME_VARIABLES)


def _changes(plan: Plan, *fields: str) -> bool:
    return any(edit.place.field in fields for edit in plan.edits)


def _list_warnings(constraints: ScalingConstraints, workload: Workload, *, changes_requests: bool) -> list[str]:
    warnings = []
    for scaler in constraints.list_autoscalers(workload):
        if workload.replicas >= scaler.maximum:
            warnings.append(
                f"{scaler.title} has {workload.title} at its maximum of {scaler.maximum}: pods of a surge come on top of"
                " it, and load that grows meanwhile does not add any"
            )
        if changes_requests and _measures_utilization(scaler):
            warnings.append(
                f"{scaler.title} scales by a share of what pods request: with other requests it will ask for another"
                " number of replicas"
            )
    return warnings


def _measures_utilization(scaler: Autoscaler) -> bool:
    """Return whether an HPA has a metric that is a share of what pods request."""
    metrics = [as_dict(metric) for metric in as_list(get_path(scaler.raw, "spec", "metrics"))]
    parts = ("resource", "containerResource")
    return any(get_path(metric, part, "target", "type") == "Utilization" for metric in metrics for part in parts)
