# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands around a workload's number of replicas: autoscalers, budgets, quotas, room on the nodes, GitOps owners.

Reading costs one request for each guard (headroom two: nodes and pods); judging is pure.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from decimal import Decimal

from .._common.outcome import Blocker
from .api import Api, Json, collection_path
from .errors import NotFound
from .parse import Scaler, Workload, dig, hpa, mapping, matches, pod_requests, quantity, scaled_object, sequence

GUARDS = ("hpa", "keda", "gitops", "disruption_budget", "quota", "headroom")
_GITOPS = {
    "argocd.argoproj.io/tracking-id": "Argo CD application",
    "argocd.argoproj.io/instance": "Argo CD application",
    "kustomize.toolkit.fluxcd.io/name": "Flux Kustomization",
    "helm.toolkit.fluxcd.io/name": "Flux HelmRelease",
}


@dataclass
class Surroundings:
    """What the declared guards read. ``pods`` are those of all namespaces that occupy a node."""

    scalers: list[Scaler] = field(default_factory=list)
    budgets: list[Json] = field(default_factory=list)
    quotas: list[Json] = field(default_factory=list)
    nodes: list[Json] = field(default_factory=list)
    pods: list[Json] = field(default_factory=list)

    def scalers_of(self, workload: Workload) -> list[Scaler]:
        """The autoscalers of a workload; an HPA that KEDA made is represented by its ScaledObject."""
        known = {scaler.name for scaler in self.scalers if scaler.kind == "ScaledObject"}
        return [one for one in self.scalers if one.target == workload.key and one.managed_by not in known]


def read(api: Api, namespace: str, guards: t.Collection[str]) -> Surroundings:
    """Read what the guards need, one request each."""
    found = Surroundings()
    if "hpa" in guards:
        found.scalers += [hpa(obj) for obj in _items(api, "HorizontalPodAutoscaler", namespace)]
    if "keda" in guards:
        try:
            found.scalers += [scaled_object(obj) for obj in _items(api, "ScaledObject", namespace)]
        except NotFound:
            found.scalers += []  # 404 on the list of a kind: KEDA is not installed in this cluster
    if "disruption_budget" in guards:
        found.budgets = _items(api, "PodDisruptionBudget", namespace)
    if "quota" in guards:
        found.quotas = _items(api, "ResourceQuota", namespace)
    if "headroom" in guards:
        found.nodes = list(api.get("/api/v1/nodes", obj="nodes").get("items") or [])
        occupying = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        found.pods = list(api.get("/api/v1/pods", obj="pods of all namespaces", params=occupying).get("items") or [])
    return found


def _items(api: Api, kind: str, namespace: str) -> list[Json]:
    answer = api.get(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}")
    return list(answer.get("items") or [])


def gitops_owner(workload: Workload) -> Blocker | None:
    """The GitOps tool that would put the replicas back, named by its own tracking label or annotation."""
    marks = {**workload.labels, **workload.annotations}
    for key, tool in _GITOPS.items():
        if key in marks:
            return Blocker(
                object=workload.title,
                what=f"it is kept by {tool} {marks[key]} ({key}), which may put its replicas back",
                holder=f"{tool} {marks[key]}",
                next_step="Let that tool ignore spec.replicas (or pause it), then leave gitops out of guards",
            )
    return None


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
                    next_step=f"Lower its minAvailable, raise floor to {least}, or leave disruption_budget out of guards",
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
                        next_step="Raise that quota or lower ceiling",
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


def headroom_blockers(workload: Workload, replicas: int, nodes: t.Sequence[Json], pods: t.Sequence[Json]) -> list[Blocker]:
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
    fits = sum(max(0, min(int(left.get(r, Decimal(0)) // amount) for r, amount in need.items() if amount)) for left in free.values())
    if fits >= extra:
        return []
    wants = ", ".join(f"{_plain(amount)} {resource}" for resource, amount in sorted(need.items()) if resource != "pods")
    return [
        Blocker(
            object=workload.title,
            what=f"{extra} more pods are wanted and {fits} fit on the {len(usable)} usable of {len(nodes)} nodes (each pod requests {wants or 'nothing'})",
            holder="nodes: " + (", ".join(sorted(free)) or "none usable"),
            next_step="Add or uncordon nodes, lower the requests or ceiling, or leave headroom out of guards (cluster autoscaler)",
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
