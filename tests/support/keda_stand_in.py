# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for KEDA's operator in one namespace. It is not KEDA: it has no triggers, no HPA and no conditions.

It does what KEDA does to the replicas of a target (keda.sh/docs/latest/concepts/scaling-deployments): with the
annotation ``paused-replicas`` it scales the target to that number at once, with ``paused: "true"`` it leaves it alone,
and otherwise it keeps the replicas within the ScaledObject's bounds.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

from .kubernetes_server import build_path
from .operator_stand_in import OperatorStandIn

Json = dict[str, Any]

PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
PAUSED = "autoscaling.keda.sh/paused"
MANAGER = "keda"
TARGETS = ("StatefulSet", "Deployment")
DEFAULT_MAXIMUM = 100


def decide_replicas(scaled_object: Mapping[str, Any], replicas: int, demand: int | None = None) -> int:
    """Return how many replicas the target of a ScaledObject is to have, which has ``replicas`` now.

    ``demand`` is what its triggers would ask for; without it they ask for what is there.
    """
    annotations = scaled_object["metadata"].get("annotations") or {}
    if PAUSED_REPLICAS in annotations:
        return int(annotations[PAUSED_REPLICAS])
    if annotations.get(PAUSED) == "true":
        return replicas
    spec = scaled_object["spec"]
    minimum: int = spec.get("minReplicaCount", 0)
    maximum: int = spec.get("maxReplicaCount", DEFAULT_MAXIMUM)
    return max(minimum, min(maximum, replicas if demand is None else demand))


class KedaStandIn(OperatorStandIn):
    """Scales the targets of all ScaledObjects of a namespace."""

    watched = ("ScaledObject", *TARGETS)

    def __init__(self, facts: Json, namespace: str) -> None:
        super().__init__(facts, namespace)
        self.demand: dict[str, int] = {}
        """What the triggers of a ScaledObject ask for, by its name."""
        self.scalings: list[tuple[str, int]] = []
        """What it did: the target's name and its new replicas."""

    def ask_for(self, name: str, replicas: int) -> None:
        """Have the triggers of a ScaledObject ask for so many replicas from now on."""
        self.demand[name] = replicas
        self.wake()

    def reconcile_each(self) -> None:
        """Scale every target that is not as its ScaledObject says."""
        for scaled_object in self.server.list("ScaledObject", self.namespace):
            self._scale_target(scaled_object)

    def _scale_target(self, scaled_object: Json) -> None:
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
            self.scalings.append((name, goal))
