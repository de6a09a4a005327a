# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A web site and its maintenance page in the lab's cluster, and clients that reach them as a load balancer does.

There is no kube-proxy in the lab: the balancer here follows the EndpointSlices of the Service by a watch, as an ingress
controller does, and sends each request to a ready endpoint.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .kubernetes_server import ApiServer, read_events

Json = dict[str, Any]

PORT = 8080
PROGRAM = Path(__file__).with_name("_site_program.py")
SLICES = "apis/discovery.k8s.io/v1"


def describe_site(image: str, namespace: str) -> list[Json]:
    """Return Deployments web of two pods and page of one, a Service for each, an Ingress, and their program."""
    backend = {"service": {"name": "web", "port": {"number": PORT}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    rules = [{"host": host, "http": {"paths": paths}} for host in ("shop.example.org", "status.example.org")]
    return [
        _describe(namespace, "v1", "ConfigMap", "program", data={"site.py": PROGRAM.read_text(encoding="utf-8")}),
        _describe_deployment(namespace, "web", 2, image),
        _describe_deployment(namespace, "page", 1, image),
        *(
            _describe(namespace, "v1", "Service", name, spec={"selector": {"app": name}, "ports": [{"port": PORT}]})
            for name in ("web", "page")
        ),
        _describe(namespace, "networking.k8s.io/v1", "Ingress", "shop", spec={"rules": rules}),
    ]


def _describe(namespace: str, version: str, kind: str, name: str, **content: Any) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


def _describe_deployment(namespace: str, name: str, replicas: int, image: str) -> Json:
    container = {
        "name": "main",
        "image": image,
        "command": ["/usr/bin/python3.11", "/program/site.py"],
        "env": [{"name": "WHO", "value": name}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "volumeMounts": [{"name": "program", "mountPath": "/program"}],
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": "program"}}],
    }
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
    }
    return _describe(namespace, "apps/v1", "Deployment", name, spec=spec)


def fetch(address: str, path: str = "/", *, seconds: float = 60.0) -> str:
    """Return what a pod answers. Raises OSError or HTTPException where it does not, or not with 200."""
    connection = http.client.HTTPConnection(address, PORT, timeout=seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{response.status}: {text}")
    return text


class HeldRequest:
    """A request that a pod has and does not answer before it is released."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: list[str] = []
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    @property
    def has_arrived(self) -> bool:
        """Whether it is in flight."""
        return "http_requests_in_flight 1" in fetch(self.address, "/metrics")

    @property
    def measurements(self) -> int:
        """How often somebody else than a test has asked the pod what is in flight."""
        return int(fetch(self.address, "/metrics").partition("asked_by_module_total ")[2].split()[0])

    def release(self) -> str:
        """Let it be answered, and return the answer."""
        fetch(self.address, "/release")
        self._thread.join(120)
        return self.answers[0]

    def _send(self) -> None:
        self.answers.append(fetch(self.address, "/held", seconds=600))


@dataclass
class Balancer:
    """Follows who serves a Service, and sends requests there all the time. A context manager.

    ``answers`` is who answered each request, in order; ``failures`` what came instead of an answer.
    """

    server: ApiServer
    namespace: str
    service: str
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slices: dict[str, Json] = {}
        self._stop = threading.Event()
        path = f"/{SLICES}/namespaces/{self.namespace}/endpointslices"
        self._watch = self.server.open_watch(path)
        self._socket: socket.socket = self._watch.sock
        self._threads = [
            threading.Thread(target=self._follow, daemon=True),
            threading.Thread(target=self._request, daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        # Closing it while it is read would wait for the reader.
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
        self._watch.close()

    def list_addresses(self) -> list[str]:
        """Return the ready endpoints of the Service."""
        return [
            endpoint["addresses"][0]
            for obj in list(self._slices.values())
            if obj["metadata"]["labels"].get("kubernetes.io/service-name") == self.service
            for endpoint in obj.get("endpoints") or []
            if endpoint["conditions"].get("ready")
        ]

    def wait_for(self, who: str, more: int = 10, seconds: float = 120.0) -> None:
        """Wait until the last ``more`` requests were answered by ``who``."""
        end = time.monotonic() + seconds
        while self.answers[-more:] != [who] * more:
            assert time.monotonic() < end, f"{self.answers[-more:]} answered, not {who}; failures: {self.failures[:3]}"
            time.sleep(0.05)

    def _follow(self) -> None:
        try:
            for event in read_events(self._watch):
                self._slices[event["object"]["metadata"]["name"]] = event["object"]
        except (OSError, AttributeError, ValueError, http.client.HTTPException) as error:
            if not self._stop.is_set():
                self.failures.append(f"the watch ended: {error!r}")

    def _request(self) -> None:
        for number in itertools.count():
            if self._stop.wait(0.02):
                return
            addresses = self.list_addresses()
            if not addresses:
                if self.answers:
                    self.failures.append("no endpoint is ready")
                continue
            try:
                self.answers.append(fetch(addresses[number % len(addresses)]))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
