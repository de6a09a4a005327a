# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bounds a workload's number of replicas: autoscalers, budgets, quotas, room on the nodes.

Reading costs one request for each guard (headroom two: nodes and pods; quota one for what pods get by default, and one
for volume claims where a quota limits them). What they allow is judged by ``constraints``.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .autoscalers import Autoscaler, select_autoscalers
from .client import Client
from .errors import Forbidden, NotFound
from .fields import as_dict, as_text, get_path
from .objects import Workload
from .resources import Kind, collection_path, find_resource

if t.TYPE_CHECKING:
    from .fields import Json
    from .patches import Write
    from .saved_state import SavedState

GUARDS = ("hpa", "keda", "gitops", "disruption_budget", "quota", "headroom")
OCCUPYING = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector of the pods that take room on a node."""


class ScalingConstraints:
    """What the declared guards read. ``pods`` are those of all namespaces that take room on a node."""

    def __init__(self) -> None:
        self.autoscalers: list[Autoscaler] = []
        self.budgets: list[Json] = []
        self.quotas: list[Json] = []
        self.limit_ranges: list[Json] = []
        self.nodes: list[Json] = []
        self.pods: list[Json] = []
        self.warnings: list[str] = []
        self.is_keda_known = False

    def list_autoscalers(self, workload: Workload) -> list[Autoscaler]:
        """Return the autoscalers of a workload; an HPA that KEDA made is represented by its ScaledObject."""
        return select_autoscalers(self.autoscalers, workload)

    def find_pausing_runs(self, workload: Workload) -> list[str] | None:
        """Return the runs whose pause of the workload's ScaledObject is still there; None where that is not known."""
        if not self.is_keda_known:
            return None
        return [run_id for scaler in self.list_autoscalers(workload) for run_id in scaler.list_pausing_runs()]

    def find_saved_stop(self, workload: Workload) -> SavedState | None:
        """Return what was saved on the workload's ScaledObject when a run paused it, None where nothing was."""
        states = [scaler.find_saved_stop() for scaler in self.list_autoscalers(workload)]
        return next((state for state in states if state is not None), None)

    def holds_at_zero(self, workload: Workload) -> bool:
        """Return whether an autoscaler that scales by itself has a workload at 0 as long as there is nothing to do."""
        return any(scaler.holds_at_zero for scaler in self.list_autoscalers(workload))

    def replace_autoscaler(self, scaler: Autoscaler) -> None:
        """Take what an autoscaler is now in place of what it was."""
        self.autoscalers = [
            scaler if (known.kind, known.uid) == (scaler.kind, scaler.uid) else known for known in self.autoscalers
        ]


def list_claims(client: Client, namespace: str) -> list[str]:
    """Return the names of the volume claims of a namespace: one request. Raises ApiError."""
    path = collection_path("PersistentVolumeClaim", namespace)
    listing = client.list(path, obj=f"PersistentVolumeClaims of namespace {namespace}")
    return [as_text(get_path(obj, "metadata", "name")) for obj in listing.items]


def apply_bounds(scaler: Autoscaler, write: Write) -> Autoscaler:
    """Return an autoscaler with the bounds that a write gives it."""
    spec = {**as_dict(scaler.raw.get("spec")), **as_dict(write.body.get("spec"))}
    return Autoscaler.from_object({**scaler.raw, "spec": spec}, scaler.kind)


def describe_bounds(before: Autoscaler, after: Autoscaler) -> str:
    """Return what a change of bounds does, for a plan."""
    if (before.bounds, before.idle) == (after.bounds, after.idle):
        return "remove the bounds that were saved on it"
    what = f"bounds {before.minimum}..{before.maximum} -> {after.minimum}..{after.maximum}"
    return what if before.idle == after.idle else f"{what}, idle {_format_idle(before)} -> {_format_idle(after)}"


def _format_idle(scaler: Autoscaler) -> str:
    return "none" if scaler.idle is None else str(scaler.idle)


def read_constraints(
    client: Client, namespace: str, guards: t.Collection[str], *, required: bool = True
) -> ScalingConstraints:
    """Read what the guards need.

    Without ``required``, as for the way back, what this account may not read is a warning in the result.
    """
    constraints = ScalingConstraints()

    def read(kind: str) -> list[Json]:
        try:
            return client.list(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}").items
        except NotFound:
            if kind != "ScaledObject":
                raise
            return []  # 404 for the list of a kind: KEDA is not installed in this cluster
        except Forbidden as error:
            if kind == "ScaledObject" and not is_served(client, kind):
                return []
            if required:
                raise
            constraints.warnings.append(f"{error} Until then nothing is known of the {kind}s there.")
            return []

    if "hpa" in guards:
        kind = "HorizontalPodAutoscaler"
        constraints.autoscalers += [Autoscaler.from_object(obj, kind) for obj in read(kind)]
    if "keda" in guards:
        kind = "ScaledObject"
        known = len(constraints.warnings)
        constraints.autoscalers += [Autoscaler.from_object(obj, kind) for obj in read(kind)]
        constraints.is_keda_known = len(constraints.warnings) == known
    if "disruption_budget" in guards:
        constraints.budgets = read("PodDisruptionBudget")
    if "quota" in guards:
        constraints.quotas = read("ResourceQuota")
        constraints.limit_ranges = read("LimitRange") if constraints.quotas else []
    if "headroom" in guards:
        constraints.nodes = client.list(collection_path("Node", None), obj="nodes").items
        constraints.pods = client.list(
            collection_path("Pod", None), obj="pods of all namespaces", params={"fieldSelector": OCCUPYING}
        ).items
    return constraints


def is_served(client: Client, kind: Kind) -> bool:
    """Return whether the cluster has the API of a kind at all.

    Authorization comes before routing: an account of one namespace gets 403, not 404, for an API that does not exist. All
    that are authenticated may read the list of groups (ClusterRole system:discovery).
    """
    group = find_resource(kind).group_version.partition("/")[0]
    try:
        client.get(f"/apis/{group}", obj=f"API group {group}")
    except NotFound:
        return False
    except Forbidden:
        return True  # without system:discovery nothing is known, and the first answer stands
    return True
