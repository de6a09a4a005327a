# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for KEDA's operator in one namespace. It is not KEDA: it has no triggers, no HPA and no conditions.

It does what KEDA does to the replicas of a target (keda.sh/docs/latest/concepts/scaling-deployments): with the
annotation ``paused-replicas`` it scales the target to that number at once, with ``paused: "true"`` it leaves it alone,
and otherwise it keeps the replicas within the ScaledObject's bounds.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from .kubernetes_server import ApiServer, build_path, read_events

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


class KedaStandIn:
    """Scales the targets of all ScaledObjects of a namespace.

    Entered, it watches and acts by itself, as an operator does. Without that, :meth:`reconcile` acts once, so that a
    test decides when: before a request is passed on, for an operator that is faster than the second write of a stop.
    """

    def __init__(self, facts: Json, namespace: str) -> None:
        self.server = ApiServer(facts)
        self.namespace = namespace
        self.demand: dict[str, int] = {}
        """What the triggers of a ScaledObject ask for, by its name."""
        self.scalings: list[tuple[str, int]] = []
        """What it did: the target's name and its new replicas."""
        self._failures: list[Exception] = []
        self._due = threading.Event()
        self._ended = False
        self._watches: list[http.client.HTTPSConnection] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def ask_for(self, name: str, replicas: int) -> None:
        """Have the triggers of a ScaledObject ask for so many replicas from now on."""
        self.demand[name] = replicas
        self._due.set()

    def reconcile(self) -> None:
        """Scale every target that is not as its ScaledObject says."""
        with self._lock:
            for scaled_object in self.server.list("ScaledObject", self.namespace):
                self._reconcile(scaled_object)

    def _reconcile(self, scaled_object: Json) -> None:
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

    # -- as an operator -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        for kind in ("ScaledObject", *TARGETS):
            watch = self.server.open_watch(build_path(kind, self.namespace))
            self._watches.append(watch)
            self._threads.append(threading.Thread(target=self._follow, args=(watch,), daemon=True))
        self._threads.append(threading.Thread(target=self._operate, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._due.set()
        for watch in self._watches:
            if watch.sock is not None:
                watch.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert self._failures == [] or value is not None, self._failures

    def _follow(self, watch: http.client.HTTPSConnection) -> None:
        try:
            for _event in read_events(watch):
                self._due.set()
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._ended:
                self._failures.append(error)

    def _operate(self) -> None:
        while not self._ended:
            self._due.wait()
            self._due.clear()
            try:
                if not self._ended:
                    self.reconcile()
            except (AssertionError, OSError, http.client.HTTPException) as error:
                self._failures.append(error)
                return
