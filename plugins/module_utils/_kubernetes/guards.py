# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands around a workload's number of replicas: autoscalers, budgets, quotas, room on the nodes, GitOps owners.

Reading costs one request for each guard (headroom two: nodes and pods). What budgets, quotas and nodes allow is judged by
``capacity``.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from .api import Api, Json, collection_path
from .errors import NotFound
from .parse import Scaler, Workload, hpa, scaled_object

GUARDS = ("hpa", "keda", "gitops", "disruption_budget", "quota", "headroom")
_GITOPS = {
    "argocd.argoproj.io/tracking-id": "Argo CD application",
    "argocd.argoproj.io/instance": "Argo CD application",
    "kustomize.toolkit.fluxcd.io/name": "Flux Kustomization",
    "helm.toolkit.fluxcd.io/name": "Flux HelmRelease",
}


class Surroundings:
    """What the declared guards read. ``pods`` are those of all namespaces that occupy a node."""

    def __init__(self) -> None:
        self.scalers: list[Scaler] = []
        self.budgets: list[Json] = []
        self.quotas: list[Json] = []
        self.nodes: list[Json] = []
        self.pods: list[Json] = []

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
