# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether another number of pods is allowed and fits: disruption budgets, quotas, room on the nodes. Pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from decimal import Decimal, InvalidOperation

from .._common.outcome import Blocker
from .parse import Json, Workload, dig, mapping, sequence
from .pods import matches

_SUFFIXES = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def budget_blockers(workload: Workload, replicas: int, budgets: t.Sequence[Json]) -> list[Blocker]:
    """Budgets that fewer replicas would break for good: minAvailable above the new number."""
    labels = mapping(dig(workload.template, "metadata", "labels"))
    blockers: list[Blocker] = []
    for budget in budgets:
        least = dig(budget, "spec", "minAvailable")
        if not isinstance(least, int) or least <= replicas or replicas >= workload.replicas:
            continue
        if matches(mapping(dig(budget, "spec", "selector")), labels):
            name = f"PodDisruptionBudget {workload.namespace}/{dig(budget, 'metadata', 'name')}"
            blockers.append(
                Blocker(
                    object=workload.title,
                    what=f"{name} wants at least {least} pods available; {replicas} replicas can never give that",
                    holder=name,
                    next_step=f"Lower its minAvailable, raise min_replicas to {least}, or leave disruption_budget out of guards",
                )
            )
    return blockers


def quota_blockers(workload: Workload, replicas: int, quotas: t.Sequence[Json]) -> list[Blocker]:
    """Quotas without scopes that leave too little for the additional pods."""
    extra = replicas - workload.pods
    if extra <= 0:
        return []
    need = _quota_needs(workload)
    blockers: list[Blocker] = []
    for quota in quotas:
        if dig(quota, "spec", "scopes") or dig(quota, "spec", "scopeSelector"):
            continue
        used = mapping(dig(quota, "status", "used"))
        for resource, hard in mapping(dig(quota, "status", "hard")).items():
            wanted = need.get(resource, Decimal(0)) * extra
            free = quantity(hard) - quantity(used.get(resource, 0))
            if wanted > free:
                name = f"ResourceQuota {workload.namespace}/{dig(quota, 'metadata', 'name')}"
                blockers.append(
                    Blocker(
                        object=workload.title,
                        what=f"{extra} more pods need {_plain(wanted)} of {resource}; {name} has {_plain(free)} of {hard} left",
                        holder=name,
                        next_step="Raise that quota or lower max_replicas",
                    )
                )
    return blockers


def _quota_needs(workload: Workload) -> dict[str, Decimal]:
    """What one pod counts for, by the names that a quota uses."""
    need = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for resource, amount in pod_requests(mapping(workload.template.get("spec"))).items():
        need[f"requests.{resource}"] = amount
        if resource in ("cpu", "memory", "ephemeral-storage"):
            need[resource] = amount
    for container in sequence(dig(workload.template, "spec", "containers")):
        for resource, amount in mapping(dig(container, "resources", "limits")).items():
            need[f"limits.{resource}"] = need.get(f"limits.{resource}", Decimal(0)) + quantity(amount)
    return need


def headroom_blockers(
    workload: Workload, replicas: int, nodes: t.Sequence[Json], pods: t.Sequence[Json]
) -> list[Blocker]:
    """Whether the additional pods fit on the nodes, by requests, cordons, taints and nodeSelector (affinity is not looked at)."""
    extra = replicas - workload.pods
    if extra <= 0:
        return []
    spec = mapping(workload.template.get("spec"))
    need = {**pod_requests(spec), "pods": Decimal(1)}
    usable = [node for node in nodes if _usable(node, spec)]
    free = {str(dig(node, "metadata", "name")): _allocatable(node) for node in usable}
    for one in pods:
        left = free.get(str(dig(one, "spec", "nodeName")))
        if left is not None:
            for resource, amount in {**pod_requests(mapping(one.get("spec"))), "pods": Decimal(1)}.items():
                left[resource] = left.get(resource, Decimal(0)) - amount
    fits = sum(
        max(0, min(int(left.get(r, Decimal(0)) // amount) for r, amount in need.items() if amount))
        for left in free.values()
    )
    if fits >= extra:
        return []
    wants = ", ".join(f"{_plain(amount)} {resource}" for resource, amount in sorted(need.items()) if resource != "pods")
    return [
        Blocker(
            object=workload.title,
            what=f"{extra} more pods are wanted and {fits} fit on the {len(usable)} usable of {len(nodes)} nodes (each pod requests {wants or 'nothing'})",
            holder="nodes: " + (", ".join(sorted(free)) or "none usable"),
            next_step="Add or uncordon nodes, lower the requests or max_replicas, or leave headroom out of guards (cluster autoscaler)",
        )
    ]


def _usable(node: Json, spec: t.Mapping[str, t.Any]) -> bool:
    """Ready, not cordoned, selected by nodeSelector, and its taints are tolerated."""
    if dig(node, "spec", "unschedulable"):
        return False
    conditions = sequence(dig(node, "status", "conditions"))
    if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        return False
    labels = mapping(dig(node, "metadata", "labels"))
    if any(labels.get(key) != value for key, value in mapping(spec.get("nodeSelector")).items()):
        return False
    tolerations = sequence(spec.get("tolerations"))
    taints = [taint for taint in sequence(dig(node, "spec", "taints")) if taint.get("effect") != "PreferNoSchedule"]
    return all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in taints)


def _tolerates(toleration: t.Mapping[str, t.Any], taint: t.Mapping[str, t.Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("operator") == "Exists":
        return not toleration.get("key") or toleration["key"] == taint.get("key")
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")


def _allocatable(node: Json) -> dict[str, Decimal]:
    return {name: quantity(amount) for name, amount in mapping(dig(node, "status", "allocatable")).items()}


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def quantity(value: t.Any) -> Decimal:
    """A resource quantity as a plain number: cores, bytes or pieces. ValueError when it is none."""
    text = str(value).strip()
    digits = text.rstrip("KMGTPEkinum") if not text[-1:].isdigit() else text
    suffix = text[len(digits) :]
    try:
        if suffix in _BINARY:
            return Decimal(digits) * Decimal(1024) ** _BINARY[suffix]
        return Decimal(digits).scaleb(_SUFFIXES[suffix])
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"not a quantity: {value!r}") from error


def pod_requests(template_spec: Json) -> dict[str, Decimal]:
    """What one pod requests, per resource: the sum of its containers, or its largest init container if that is more."""
    total: dict[str, Decimal] = {}
    for container in sequence(template_spec.get("containers")):
        for name, amount in _requests(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in sequence(template_spec.get("initContainers")):
        for name, amount in _requests(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def _requests(container: Json) -> dict[str, Decimal]:
    """A container's requests; a limit without a request is its request."""
    resources = mapping(container.get("resources"))
    asked = {**mapping(resources.get("limits")), **mapping(resources.get("requests"))}
    return {name: quantity(amount) for name, amount in asked.items()}
