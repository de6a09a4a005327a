# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for the controller of Argo's Rollouts in one namespace. It is not Argo: it rolls nothing out.

It does what the modules look at (argo-rollouts.readthedocs.io/en/stable/features/specification): a Rollout owns a
ReplicaSet, which owns the pods, and its status has their numbers, the generation it has seen (as text) and a selector.
"""

from __future__ import annotations

import http.client
from typing import Any

from .kubernetes_objects import refer_to
from .kubernetes_server import JSON, build_path
from .operator_stand_in import OperatorStandIn

Json = dict[str, Any]

API = "argoproj.io/v1alpha1"
MANAGER = "rollouts-controller"


def describe_definition(kind: str, plural: str, *, replicas_path: str = "", group: str = "argoproj.io") -> Json:
    """Return a CustomResourceDefinition, with the subresource scale if its replicas have a path."""
    subresources: Json = {"status": {}}
    if replicas_path:
        paths = {"statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}
        subresources["scale"] = {"specReplicasPath": replicas_path, **paths}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": schema, "subresources": subresources}
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class RolloutStandIn(OperatorStandIn):
    """Gives each Rollout of a namespace a ReplicaSet and a status; without ``says_ready`` not how many are ready."""

    watched = ("Rollout", "ReplicaSet")

    def __init__(self, facts: Json, namespace: str, *, says_ready: bool = True) -> None:
        super().__init__(facts, namespace)
        self.says_ready = says_ready

    def reconcile_each(self) -> None:
        """Bring ReplicaSets and statuses to what the Rollouts ask for."""
        for rollout in self.server.list("Rollout", self.namespace):
            replica_set = self._apply_replica_set(rollout)
            self._write_status(rollout, replica_set.get("status") or {})

    def _apply_replica_set(self, rollout: Json) -> Json:
        name, spec = f"{rollout['metadata']['name']}-5f8d", rollout["spec"]
        path = build_path("ReplicaSet", self.namespace, name)
        status, replica_set = self.server.ask("GET", path)
        if status == http.client.OK and replica_set["spec"]["replicas"] == spec["replicas"]:
            return replica_set
        if status == http.client.OK:
            return self.server.scale("ReplicaSet", self.namespace, name, spec["replicas"], manager=MANAGER)
        metadata = {"name": name, "ownerReferences": [refer_to(rollout, "Rollout")]}
        body = {key: spec[key] for key in ("replicas", "selector", "template")}
        created = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": body}
        return self.server.request("POST", build_path("ReplicaSet", self.namespace), created, content_type=JSON)

    def _write_status(self, rollout: Json, counted: Json) -> None:
        name = rollout["metadata"]["name"]
        labels = rollout["spec"]["selector"]["matchLabels"]
        status: Json = {
            "observedGeneration": str(rollout["metadata"]["generation"]),
            "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
            "replicas": counted.get("replicas", 0),
        }
        if self.says_ready:
            status |= {key: counted.get(key, 0) for key in ("readyReplicas", "availableReplicas")}
        if rollout.get("status") != status:
            path = build_path("Rollout", self.namespace, name, "status")
            self.server.patch(path, {"status": status}, manager=MANAGER)
