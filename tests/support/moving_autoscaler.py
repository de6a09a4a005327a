# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have a real HorizontalPodAutoscaler move the replicas of its target, though the lab has no metrics.

Its controller keeps the replicas within the bounds without any metric, so a new bound is all that it takes.
"""

from __future__ import annotations

from typing import Any

from .kubernetes_server import ApiServer, build_path

Json = dict[str, Any]
MANAGER = "kube-controller-manager"
"""As which the controller of HPAs writes the replicas, by the subresource ``scale``."""


def describe_autoscaler(name: str, low: int, high: int, *, kind: str = "StatefulSet") -> Json:
    """Return an HPA of the workload ``name`` that scales by a metric which the lab does not have."""
    utilization = {"type": "Utilization", "averageUtilization": 80}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"{name}-hpa"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
            "minReplicas": low,
            "maxReplicas": high,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
        },
    }


class MovingAutoscaler:
    """Moves the replicas of one workload, by its HPA or as its HPA would."""

    def __init__(self, facts: Json, namespace: str, name: str, *, kind: str = "StatefulSet") -> None:
        self.server = ApiServer(facts)
        self.namespace, self.name, self.kind = namespace, name, kind

    def set_bounds(self, low: int, high: int) -> None:
        """Give the HPA other bounds; its controller moves the replicas into them within two seconds."""
        path = build_path("HorizontalPodAutoscaler", self.namespace, f"{self.name}-hpa")
        self.server.patch(path, {"spec": {"minReplicas": low, "maxReplicas": high}})

    def scale(self, replicas: int) -> None:
        """Move the replicas now, as the controller writes them."""
        self.server.scale(self.kind, self.namespace, self.name, replicas, manager=MANAGER)
