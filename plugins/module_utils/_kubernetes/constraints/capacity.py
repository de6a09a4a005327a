# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether more pods fit on the nodes.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from decimal import Decimal

from ..._common.outcome import Blocker
from ..._common.text import format_count, join_some
from ..fields import Json, as_dict, as_list, as_text, get_path
from ..objects import Workload
from ..quantities import Amounts, compute_requests, format_quantity, parse_quantity
from ..selectors import matches

_FINISHED = ("Succeeded", "Failed")


def find_headroom_blockers(
    workload: Workload,
    replicas: int,
    nodes: t.Sequence[Json],
    pods: t.Iterable[Json],
    *,
    limit_ranges: t.Sequence[Json] = (),
    next_step: str = (
        "Add or uncordon nodes, lower the requests or max_replicas, or leave headroom out of guards (cluster autoscaler)"
    ),
) -> list[Blocker]:
    """Return that the additional pods do not fit, by requests, cordons, taints and nodeSelector.

    ``pods`` are those of all namespaces. Affinity is not looked at.
    """
    extra = replicas - workload.pods
    if extra <= 0:
        return []
    spec = as_dict(workload.template.get("spec"))
    need = {**compute_requests(spec, limit_ranges), "pods": Decimal(1)}
    free = {
        as_text(get_path(node, "metadata", "name")): _read_allocatable(node) for node in nodes if _is_usable(node, spec)
    }
    for pod in pods:
        left = free.get(as_text(get_path(pod, "spec", "nodeName")))
        if left is not None and get_path(pod, "status", "phase") not in _FINISHED:
            for resource, amount in {**compute_requests(as_dict(pod.get("spec"))), "pods": Decimal(1)}.items():
                left[resource] = left.get(resource, Decimal(0)) - amount
    room = sum(_count_room(left, need) for left in free.values())
    if room >= extra:
        return []
    requests = [
        f"{format_quantity(amount)} {resource}" for resource, amount in sorted(need.items()) if resource != "pods"
    ]
    return [
        Blocker(
            object=workload.title,
            what=(
                f"{format_count(extra, 'more pod')} {'is' if extra == 1 else 'are'} wanted and {room}"
                f" {'fits' if room == 1 else 'fit'} on the {len(free)} usable of {format_count(len(nodes), 'node')}"
                f" (each pod requests {', '.join(requests) or 'nothing'})"
            ),
            holder="nodes: " + (join_some(sorted(free)) or "none usable"),
            next_step=next_step,
        )
    ]


def find_fit_blockers(
    workload: Workload,
    template: Json,
    nodes: t.Sequence[Json],
    pods: t.Sequence[Json],
    *,
    limit_ranges: t.Sequence[Json] = (),
    replaces_first: bool,
) -> list[Blocker]:
    """Return that no node has room for a pod of this template.

    With ``replaces_first`` an old pod goes before a new one comes, so that the room of one on each node counts as free.
    """
    if not workload.replicas:
        return []
    kept = _leave_out_replaced(workload, pods) if replaces_first else pods
    return find_headroom_blockers(
        workload._replace(template=template, pods=workload.replicas - 1),
        workload.replicas,
        nodes,
        kept,
        limit_ranges=limit_ranges,
        next_step="Add or uncordon nodes, lower the requests, or leave capacity out of guards (cluster autoscaler)",
    )


def _leave_out_replaced(workload: Workload, pods: t.Sequence[Json]) -> list[Json]:
    """Return the pods without one of the workload's on each node."""
    kept, left_out = [], set()
    for pod in pods:
        node, meta = get_path(pod, "spec", "nodeName"), as_dict(pod.get("metadata"))
        is_own = meta.get("namespace") == workload.namespace and matches(workload.selector, as_dict(meta.get("labels")))
        if is_own and node not in left_out:
            left_out.add(node)
        else:
            kept.append(pod)
    return kept


def _count_room(left: Amounts, need: Amounts) -> int:
    """Return how many whole pods fit into what a node has left."""
    return max(0, min(int(left.get(resource, Decimal(0)) // amount) for resource, amount in need.items() if amount))


def _is_usable(node: Json, spec: Json) -> bool:
    """Return whether the node is ready, not cordoned, selected by nodeSelector, and its taints are tolerated."""
    if get_path(node, "spec", "unschedulable"):
        return False
    conditions = as_list(get_path(node, "status", "conditions"))
    if not any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions):
        return False
    labels = as_dict(get_path(node, "metadata", "labels"))
    if any(labels.get(key) != value for key, value in as_dict(spec.get("nodeSelector")).items()):
        return False
    taints = [taint for taint in as_list(get_path(node, "spec", "taints")) if taint.get("effect") != "PreferNoSchedule"]
    tolerations = as_list(spec.get("tolerations"))
    return all(any(_is_tolerated(taint, toleration) for toleration in tolerations) for taint in taints)


def _is_tolerated(taint: Json, toleration: Json) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("operator") == "Exists":
        return not toleration.get("key") or toleration["key"] == taint.get("key")
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")


def _read_allocatable(node: Json) -> Amounts:
    amounts = as_dict(get_path(node, "status", "allocatable"))
    return {name: parse_quantity(amount) for name, amount in amounts.items()}
