# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Play the controllers of a cluster for the API server in memory, which runs none: statuses, pods, KEDA.

They act as rivals of the server, after each write, or ``seconds`` later. ``history`` has in which order workloads were
changed and settled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .kubernetes_objects import refer_to
from .memory_kubernetes import MemoryServer

Json = dict[str, Any]

NAMESPACE = "n"
SCALED = ("StatefulSet", "Deployment")
PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
ALWAYS = 10**6


def describe_workload(kind: str, name: str, replicas: int = 3, **spec: Any) -> Json:
    """Return a workload; a CronJob or Job with 0 ``replicas`` is suspended."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
    own: Json = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "CronJob":
        own = {"suspend": replicas == 0, "jobTemplate": {"spec": {"template": template}}}
    if kind == "Job":
        own = {"suspend": replicas == 0, "parallelism": replicas or 1, "template": template}
    return {"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {**own, **spec}}


def describe_hpa(target: str, low: int, high: int, *, name: str = "h", **metadata: Any) -> Json:
    """Return an HPA for ``Kind/name``."""
    kind, _slash, scaled = target.partition("/")
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": {"scaleTargetRef": {"kind": kind, "name": scaled}, "minReplicas": low, "maxReplicas": high},
    }


def describe_scaled_object(target: str, low: int, high: int, *, name: str = "k", **metadata: Any) -> Json:
    """Return a ScaledObject of KEDA for ``Kind/name``."""
    kind, _slash, scaled = target.partition("/")
    return {
        "kind": "ScaledObject",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": {"scaleTargetRef": {"kind": kind, "name": scaled}, "minReplicaCount": low, "maxReplicaCount": high},
    }


class Controllers:
    """Make the status of every StatefulSet and Deployment what its spec asks for, and the pods of StatefulSets.

    ``held`` are names of workloads that are left as they are: of a cluster in which nothing moves.
    """

    def __init__(self, server: MemoryServer, *, seconds: float = 0.0) -> None:
        self.server = server
        self.seconds = seconds
        self.held: set[str] = set()
        self.history: list[str] = []
        self._known: dict[str, int] = {}
        server.add_rival(self.act, when="after", times=ALWAYS)

    def add(self, kind: str, name: str, replicas: int = 3, **spec: Any) -> Json:
        """Put a workload that serves."""
        self.server.put(describe_workload(kind, name, replicas, **spec))
        if kind in SCALED:
            self.settle(kind, name)
            self.history.clear()
        return self.server.read(kind, NAMESPACE, name)

    def act(self) -> None:
        """Settle, at once or later, each workload whose spec has changed."""
        for obj in [obj for kind in SCALED for obj in self.server.read_all(kind)]:
            name, generation = obj["metadata"]["name"], obj["metadata"]["generation"]
            if generation == self._known.get(name) or name in self.held:
                continue
            self._known[name] = generation
            self.history.append(f"changed {name}")
            if self.seconds:
                threading.Timer(self.seconds, self.settle, (obj["kind"], name)).start()
            else:
                self.settle(obj["kind"], name)

    def settle(self, kind: str, name: str) -> None:
        """Let a workload have exactly the pods that it asks for."""
        obj = self.server.read(kind, NAMESPACE, name)
        count, generation = obj["spec"]["replicas"], obj["metadata"]["generation"]
        if kind == "StatefulSet":
            self._make_pods(obj, count)
        self._known[name] = generation
        self.history.append(f"settled {name}")
        numbers = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), count)
        status = {**numbers, "observedGeneration": generation}
        self.server.change(kind, NAMESPACE, name, lambda kept: kept.update(status=status), manager="controller")

    def _make_pods(self, owner: Json, count: int) -> None:
        name = owner["metadata"]["name"]
        present = {pod["metadata"]["name"] for pod in self.server.read_all("Pod")}
        due = {f"{name}-{number}" for number in range(count)}
        for pod in sorted(pod for pod in present - due if pod.startswith(f"{name}-")):
            self.server.remove("Pod", NAMESPACE, pod)
        for pod in sorted(due - present):
            metadata: Json = {"name": pod, "namespace": NAMESPACE, "labels": {"app": name}}
            metadata["ownerReferences"] = [refer_to(owner, "StatefulSet")]
            self.server.put({"kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}})


def play_keda(server: MemoryServer) -> None:
    """Let KEDA act between two requests of the client: to the paused number whenever it is another, and to its minimum.

    To be called before there are ``Controllers``, which then see what it did.
    """

    def act() -> None:
        for scaled in server.read_all("ScaledObject"):
            target, low = scaled["spec"]["scaleTargetRef"], scaled["spec"]["minReplicaCount"]
            paused = scaled["metadata"].get("annotations", {}).get(PAUSED_REPLICAS)
            now = server.read(target["kind"], NAMESPACE, target["name"])["spec"]["replicas"]
            number = max(now, low) if paused is None else int(paused)
            if number != now:
                scale(server, target["kind"], target["name"], number, manager="keda-operator")

    server.add_rival(act, when="after", times=ALWAYS)


def scale(server: MemoryServer, kind: str, name: str, replicas: int, *, manager: str = "rival") -> None:
    """Set the replicas of a workload as another client."""
    server.change(kind, NAMESPACE, name, lambda obj: obj["spec"].update(replicas=replicas), manager=manager)


def act_while_waiting(
    server: MemoryServer, action: Callable[[], object], *, path: str = "/statefulsets", watch: int = 1
) -> None:
    """Let something happen when the client waits: it opens its first (or another) watch of these objects."""
    watches = iter(range(1, ALWAYS))

    def act() -> None:
        if next(watches) == watch:
            action()

    server.add_rival(act, verb="watch", path=path, times=ALWAYS)
