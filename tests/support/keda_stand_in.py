# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for KEDA's operator in one namespace. It is not KEDA: it has no triggers.

It does what KEDA does to the replicas of a target (keda.sh/docs/latest/concepts/scaling-deployments): with the
annotation ``paused-replicas`` it scales the target to that number at once, with ``paused: "true"`` it leaves it alone,
and otherwise it keeps the replicas within the ScaledObject's bounds. It makes the HPA that KEDA makes, and removes it
while the ScaledObject is paused; and it publishes the conditions that KEDA publishes, the pause before it acts on it,
as KEDA does since 2.19 (controllers/keda/scaledobject_controller.go there).
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

from .kubernetes_server import JSON, MERGE, build_path
from .operator_stand_in import OperatorStandIn

Json = dict[str, Any]

PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
PAUSED = "autoscaling.keda.sh/paused"
MANAGER = "keda"
TARGETS = ("StatefulSet", "Deployment")
NAME_LABEL = "scaledobject.keda.sh/name"
READY = ("Ready", "True", "ScaledObjectReady", "ScaledObject is defined correctly and is ready for scaling")
NO_FALLBACK = ("Fallback", "False", "NoFallbackFound", "No fallbacks are active on this scaled object")
NEVER_PAUSED = ("Paused", "False", "", "")
PAUSED_NOW = ("Paused", "True", "ScaledObjectPaused", "ScaledObject is paused")
RESUMED = ("Paused", "False", "ScaledObjectUnpaused", "pause annotation removed for ScaledObject")
UNKNOWN = ("Active", "Unknown", "", "")
ACTIVE = ("Active", "True", "ScalerActive", "Scaling is performed because triggers are active")
INACTIVE = ("Active", "False", "ScalerNotActive", "Scaling is not performed because triggers are not active")
DEFAULT_MAXIMUM = 100


def decide_replicas(scaled_object: Mapping[str, Any], replicas: int, demand: int | None = None) -> int:
    """Return how many replicas the target of a ScaledObject is to have, which has ``replicas`` now.

    ``demand`` is what its triggers would ask for; without it they ask for what is there.
    """
    annotations = scaled_object["metadata"].get("annotations") or {}
    if PAUSED_REPLICAS in annotations:
        return int(annotations[PAUSED_REPLICAS])
    if is_paused(scaled_object):
        return replicas
    spec = scaled_object["spec"]
    minimum: int = spec.get("minReplicaCount", 0)
    maximum: int = spec.get("maxReplicaCount", DEFAULT_MAXIMUM)
    return max(minimum, min(maximum, replicas if demand is None else demand))


def is_paused(scaled_object: Mapping[str, Any]) -> bool:
    """Return whether an annotation pauses a ScaledObject."""
    annotations = scaled_object["metadata"].get("annotations") or {}
    return PAUSED_REPLICAS in annotations or annotations.get(PAUSED) == "true"


def describe_conditions(scaled_object: Mapping[str, Any], demand: int | None = None) -> list[dict[str, str]]:
    """Return the conditions that a ScaledObject is to have; of its triggers it keeps what it has while it is paused."""
    present = (scaled_object.get("status") or {}).get("conditions") or []
    before = {entry["type"]: entry for entry in present}
    active = before.get("Active", _make_condition(*UNKNOWN))
    if is_paused(scaled_object):
        return [_make_condition(*READY), active, _make_condition(*NO_FALLBACK), _make_condition(*PAUSED_NOW)]
    active = _make_condition(*(INACTIVE if demand == 0 else ACTIVE))
    paused = before.get("Paused", _make_condition(*NEVER_PAUSED))
    if paused["status"] == "True":
        paused = _make_condition(*RESUMED)
    return [_make_condition(*READY), active, _make_condition(*NO_FALLBACK), paused]


def _make_condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    condition = {"type": kind, "status": status, "reason": reason, "message": message}
    return {key: value for key, value in condition.items() if value}


def describe_hpa(scaled_object: Mapping[str, Any]) -> Json:
    """Return the HPA that KEDA makes for a ScaledObject: with its annotations, of at least 1 replica, owned by it."""
    metadata, spec = scaled_object["metadata"], scaled_object["spec"]
    name = metadata["name"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]}
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": name, "uid": metadata["uid"]}
    metric = {"metric": {"name": "s0-stand-in"}, "target": {"type": "AverageValue", "averageValue": "5"}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": f"keda-hpa-{name}",
            "labels": {"app.kubernetes.io/managed-by": "keda-operator", NAME_LABEL: name},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": max(1, spec.get("minReplicaCount", 0)),
            "maxReplicas": spec.get("maxReplicaCount", DEFAULT_MAXIMUM),
            "metrics": [{"type": "External", "external": metric}],
        },
    }


class KedaStandIn(OperatorStandIn):
    """Scales the targets of all ScaledObjects of a namespace.

    Without ``publishes`` there are no conditions, as with KEDA before 2.11 as far as the modules look at it.
    """

    watched = ("ScaledObject", *TARGETS)

    def __init__(self, facts: Json, namespace: str, *, publishes: bool = True) -> None:
        super().__init__(facts, namespace)
        self.publishes = publishes
        self.demand: dict[str, int] = {}
        """What the triggers of a ScaledObject ask for, by its name."""
        self._scalings: list[tuple[str, int]] = []

    @property
    def scalings(self) -> list[tuple[str, int]]:
        """What it did, as soon as what it does at the moment is done: the target's name and its new replicas."""
        with self.at_rest:
            return list(self._scalings)

    def ask_for(self, name: str, replicas: int) -> None:
        """Have the triggers of a ScaledObject ask for so many replicas from now on."""
        self.demand[name] = replicas
        self.wake()

    def reconcile_each(self) -> None:
        """Publish, make or remove HPAs, and scale every target that is not as its ScaledObject says."""
        for scaled_object in self.server.list("ScaledObject", self.namespace):
            self._reconcile(scaled_object)

    def _reconcile(self, scaled_object: Json) -> None:
        if self.publishes:
            self._publish(scaled_object)
        self._keep_hpa(scaled_object)
        self._scale(scaled_object)

    def _publish(self, scaled_object: Json) -> None:
        name = scaled_object["metadata"]["name"]
        conditions = describe_conditions(scaled_object, self.demand.get(name))
        if (scaled_object.get("status") or {}).get("conditions") != conditions:
            self._ask("PATCH", "ScaledObject", name, "status", {"status": {"conditions": conditions}})

    def _keep_hpa(self, scaled_object: Json) -> None:
        """Make the HPA, give it the bounds of the ScaledObject, or remove it while that is paused."""
        kind, described = "HorizontalPodAutoscaler", describe_hpa(scaled_object)
        name = described["metadata"]["name"]
        present = self._ask("GET", kind, name)
        if is_paused(scaled_object):
            if present is not None:
                self._ask("DELETE", kind, name)
        elif present is None:
            self._ask("POST", kind, "", body=described)
        elif any(present["spec"].get(key) != described["spec"][key] for key in ("minReplicas", "maxReplicas")):
            self._ask("PATCH", kind, name, body=described)

    def _ask(self, method: str, kind: str, name: str, subresource: str = "", body: Json | None = None) -> Json | None:
        """Send a request; None where the object is not there (any more)."""
        content_type = MERGE if method == "PATCH" else JSON
        path = f"{build_path(kind, self.namespace, name, subresource)}?fieldManager={MANAGER}"
        status, answer = self.server.ask(method, path, body, content_type=content_type)
        if status == http.client.NOT_FOUND:
            return None
        assert status < http.client.MULTIPLE_CHOICES, answer
        return answer

    def _scale(self, scaled_object: Json) -> None:
        target = scaled_object["spec"]["scaleTargetRef"]
        kind, name = target.get("kind", "Deployment"), target["name"]
        status, scale = self.server.ask("GET", build_path(kind, self.namespace, name, "scale"))
        if status == http.client.NOT_FOUND:
            return
        assert status == http.client.OK, scale
        replicas = scale["spec"].get("replicas", 0)
        goal = decide_replicas(scaled_object, replicas, self.demand.get(scaled_object["metadata"]["name"]))
        if goal != replicas:
            self.server.scale(kind, self.namespace, name, goal, manager=MANAGER)
            self._scalings.append((name, goal))
