# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Deployment ``web`` and its pods, which a test breaks, on the API server in memory."""

from __future__ import annotations

import base64
import time
from typing import Any

from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer

Json = dict[str, Any]
PLANTED = "pl4nted/S3cret+1"


def format_ago(seconds: float) -> str:
    """Return the time so many seconds ago, as objects have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


class Shop:
    """Puts the objects; each method breaks something."""

    def __init__(self, memory: MemoryServer, *, replicas: int = 2, container: Json | None = None) -> None:
        self.memory = memory
        self.replicas = replicas
        self.container = {"name": "app", "image": "shop:1", **(container or {})}
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [self.container]}}
        self.put("Namespace", NAMESPACE)
        self.put(
            "Deployment",
            "web",
            spec={"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        )
        self.put(
            "ReplicaSet",
            "web-1",
            owner=("Deployment", "web"),
            labels={"app": "web", "pod-template-hash": "1"},
            spec={"replicas": replicas, "template": template},
        )
        for number in range(replicas):
            self.put_pod(f"web-1-{number}")
        self.count(replicas)

    def put(
        self,
        kind: str,
        name: str,
        *,
        owner: tuple[str, str] | None = None,
        labels: Json | None = None,
        uid: str = "",
        created: float = 600,
        **fields: Any,
    ) -> Json:
        """Put an object of the namespace."""
        metadata: Json = {"name": name, "namespace": NAMESPACE, "creationTimestamp": format_ago(created)}
        metadata |= {"labels": labels or {}} | ({"uid": uid} if uid else {})
        if owner is not None:
            known = self.memory.read(owner[0], NAMESPACE, owner[1])["metadata"]["uid"]
            metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "uid": known, "controller": True}]
        if kind in ("Namespace", "Node"):
            del metadata["namespace"]
        return self.memory.put({"kind": kind, "metadata": metadata, **fields})

    def put_revision(self, number: int, *, container: Json) -> None:
        """Put a further ReplicaSet, whose pods are named ``web-<number>-...``."""
        self.container = {**self.container, **container}
        self.put(
            "ReplicaSet",
            f"web-{number}",
            owner=("Deployment", "web"),
            labels={"app": "web", "pod-template-hash": str(number)},
            spec={"replicas": self.replicas, "template": {"spec": {"containers": [self.container]}}},
        )

    def put_pod(self, name: str, *, node: str = "n1", **status: Any) -> None:
        """Put a pod that serves, or one whose container is as ``status`` says."""
        replica_set, number = name.rsplit("-", 1)[0], name.split("-")[1]
        ready = not status
        container = {"name": "app", "image": "shop:1", "ready": ready, "restartCount": 0}
        container |= status or {"state": {"running": {"startedAt": format_ago(500)}}}
        conditions = [{"type": "Ready", "status": "True" if container["ready"] else "False"}]
        labels = {"app": "web", "pod-template-hash": number}
        self.put(
            "Pod",
            name,
            owner=("ReplicaSet", replica_set),
            labels=labels,
            spec={"nodeName": node, "containers": [self.container]},
            status={"phase": "Running", "conditions": conditions, "containerStatuses": [container]},
        )

    def count(self, ready: int, **status: Any) -> None:
        """Let the Deployment count so many ready pods."""
        numbers = {"replicas": self.replicas, "updatedReplicas": self.replicas, "observedGeneration": 1}
        own = {**numbers, "readyReplicas": ready, "availableReplicas": ready, **status}
        self.memory.change("Deployment", NAMESPACE, "web", lambda obj: obj.update(status=own))

    def put_event(self, kind: str, name: str, reason: str, message: str, *, ago: float = 30, field: str = "") -> None:
        """Tell something about an object."""
        uid = self.memory.read(kind, "" if kind == "Node" else NAMESPACE, name)["metadata"]["uid"]
        involved = {"kind": kind, "name": name, "uid": uid, **({"fieldPath": field} if field else {})}
        self.put(
            "Event",
            f"{name}.{reason}.{ago}".lower(),
            created=ago,
            involvedObject=involved,
            reason=reason,
            message=message,
            type="Warning",
            lastTimestamp=format_ago(ago),
            count=3,
        )

    def put_secret(self, name: str = "db", **values: str) -> None:
        """Put a Secret; without values one with the planted value."""
        values = values or {"password": PLANTED, "username": "web"}
        self.put("Secret", name, data={key: base64.b64encode(text.encode()).decode() for key, text in values.items()})

    def end(self, reason: str, *, code: int = 1, ago: float = 30, ready: bool = False, restarts: int = 2) -> Json:
        """Return the status of a container that has ended and runs again, or waits to."""
        ended = {"terminated": {"reason": reason, "exitCode": code, "finishedAt": format_ago(ago)}}
        state = {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        return {"lastState": ended, "state": state, "ready": ready, "restartCount": restarts}
