# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Speak to the lab's API server by plain requests, with other code than the collection's own and from any thread."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from .http_proxy import upstream

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON = "application/json"
IDLE_SECONDS = 30
"""The server closes a connection on which nothing was asked for longer."""
ATTEMPTS = 60
"""How often a request is sent that the server puts off (429)."""
RESOURCES = {
    "Namespace": ("api/v1", "namespaces"),
    "Node": ("api/v1", "nodes"),
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "ConfigMap": ("api/v1", "configmaps"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "ResourceQuota": ("api/v1", "resourcequotas"),
    "PersistentVolume": ("api/v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "ReplicaSet": ("apis/apps/v1", "replicasets"),
    "Job": ("apis/batch/v1", "jobs"),
    "CronJob": ("apis/batch/v1", "cronjobs"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "Application": ("apis/argoproj.io/v1alpha1", "applications"),
    "Rollout": ("apis/argoproj.io/v1alpha1", "rollouts"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
}
CLUSTER_SCOPED = {"Namespace", "Node", "PersistentVolume"}


def build_path(kind: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """Return the path of a collection, of an object, or of a subresource of one."""
    group, plural = RESOURCES[kind]
    place = [] if kind in CLUSTER_SCOPED else ["namespaces", namespace]
    return "/" + "/".join(part for part in [group, *place, plural, name, subresource] if part)


class ApiServer:
    """Sends requests as the administrator of the lab's cluster; each thread has a connection of its own."""

    def __init__(self, facts: Json) -> None:
        self.facts = facts
        self.target = upstream(facts["kubeconfig"])
        self._local = threading.local()

    def ask(self, method: str, path: str, body: Any = None, *, content_type: str = JSON) -> tuple[int, Json]:
        """Send a request and return status and answer, whatever they are; again while the server asks for that.

        As it does when a resource definition has just been changed.
        """
        payload = None if body is None else json.dumps(body)
        for attempt in range(ATTEMPTS):
            connection = self._connect()
            connection.request(method, path, body=payload, headers={"Content-Type": content_type})
            response = connection.getresponse()
            answer: Json = json.loads(response.read())
            if response.status != http.client.TOO_MANY_REQUESTS or attempt == ATTEMPTS - 1:
                break
            time.sleep(float(response.headers.get("Retry-After", 1)))
        return response.status, answer

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = JSON) -> Json:
        """Send a request and return its answer; an error is a failed test."""
        status, answer = self.ask(method, path, body, content_type=content_type)
        assert status < 300, f"{method} {path}: {answer}"
        return answer

    def apply(self, one: Json) -> Json:
        """Create or change an object."""
        metadata = one["metadata"]
        path = build_path(one["kind"], metadata.get("namespace", ""), metadata["name"])
        return self.request("PATCH", f"{path}?fieldManager=test&force=true", one, content_type=APPLY)

    def patch(self, path: str, body: Json, *, manager: str = "test") -> Json:
        """Change an object as field manager ``manager``."""
        return self.request("PATCH", f"{path}?fieldManager={manager}", body, content_type=MERGE)

    def scale(self, kind: str, namespace: str, name: str, replicas: int, *, manager: str) -> Json:
        """Set the replicas by the subresource, as autoscalers and ``kubectl scale`` do."""
        return self.patch(build_path(kind, namespace, name, "scale"), {"spec": {"replicas": replicas}}, manager=manager)

    def list(self, kind: str, namespace: str) -> list[Json]:
        """Return all objects of a kind in a namespace."""
        return list(self.request("GET", build_path(kind, namespace))["items"])

    def open_watch(self, path: str) -> http.client.HTTPSConnection:
        """Return a connection of its own on which a watch was begun; closing it ends the watch."""
        host, port, tls = self.target
        connection = http.client.HTTPSConnection(host, port, context=tls)
        connection.request("GET", f"{path}?watch=true")
        return connection

    def _connect(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            host, port, tls = self.target
            connection = self._local.connection = http.client.HTTPSConnection(host, port, context=tls)
        elif time.monotonic() - self._local.used > IDLE_SECONDS:
            connection.close()  # the next request opens it again
        self._local.used = time.monotonic()
        return connection


def read_events(connection: http.client.HTTPSConnection) -> Iterator[Json]:
    """Yield the events of a watch until it ends or its connection is closed."""
    response = connection.getresponse()
    while line := response.readline():
        yield json.loads(line)
