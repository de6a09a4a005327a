# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods a Service's requests reach, by its EndpointSlices: pure, and as conditions to wait for.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.text import format_count, join_some
from .conditions import CURRENT, IN_PROGRESS, Status
from .fields import Json, as_dict, as_list, as_text, get_path
from .objects import Pod, Workload
from .resources import find_resource
from .routes import format_labels
from .selectors import matches
from .snapshot import Snapshot

SERVICE_NAME = "kubernetes.io/service-name"
"""The label of an EndpointSlice that says whose it is."""


class Endpoint(t.NamedTuple):
    """An address of a Service: the pod that it is, or the address, and whether requests are sent to it.

    ``ports`` are the names of the Service's ports that it has. A pod without the port that targetPort names is an endpoint
    all the same, and ready, and gets no request.
    """

    name: str
    is_ready: bool
    is_pod: bool = True
    ports: tuple[str, ...] = ()


def list_endpoints(slices: t.Iterable[Json], service: str) -> list[Endpoint]:
    """Return the endpoints of a Service, by name. One whose readiness is not stated is ready, as the API says."""
    endpoints = [
        Endpoint(
            _name_endpoint(entry),
            as_dict(entry.get("conditions")).get("ready") is not False,
            is_pod=bool(get_path(entry, "targetRef", "name")),
            ports=tuple(sorted(as_text(port.get("name")) for port in as_list(obj.get("ports")))),
        )
        for obj in slices
        if get_path(obj, "metadata", "labels", SERVICE_NAME) == service
        for entry in as_list(obj.get("endpoints"))
    ]
    return sorted(set(endpoints))  # with IPv4 and IPv6 a pod is in two of them


def _name_endpoint(entry: Json) -> str:
    return as_text(get_path(entry, "targetRef", "name")) or as_text(next(iter(as_list(entry.get("addresses"))), ""))


def list_ready(slices: t.Iterable[Json], service: str, *, ports: t.Collection[str] = ()) -> list[str]:
    """Return the names of what a Service sends requests to, as far as they have all of these ports."""
    endpoints = list_endpoints(slices, service)
    return [endpoint.name for endpoint in endpoints if endpoint.is_ready and set(ports) <= set(endpoint.ports)]


def list_missing_ports(service: Json, pod: Pod) -> list[str]:
    """Return the names that a Service's ports have as targetPort, and no container's port of a pod."""
    init = [entry for entry in as_list(get_path(pod.raw, "spec", "initContainers")) if entry.get("restartPolicy")]
    present = {
        (port.get("name"), port.get("protocol") or "TCP")
        for container in [*as_list(get_path(pod.raw, "spec", "containers")), *init]
        for port in as_list(container.get("ports"))
    }
    named = [
        (port.get("targetPort"), port.get("protocol") or "TCP") for port in as_list(get_path(service, "spec", "ports"))
    ]
    return sorted({as_text(port[0]) for port in named if isinstance(port[0], str) and port not in present})


class _ServiceCondition:
    """What is waited for around a Service. It has no workload: whose pods they are does not matter to a selector."""

    kind = "Pod"

    def __init__(self, namespace: str, name: str, selector: t.Mapping[str, str] | None) -> None:
        self.resource = find_resource(self.kind)
        self.namespace = namespace
        self.name = name
        self.title = f"Service {namespace}/{name}"
        self.selector = dict(selector or {})

    def find_workload(self, snapshot: Snapshot) -> Workload | None:  # noqa: ARG002 (of every condition)
        """Return None: no workload is waited for."""
        return None

    def _list_pods(self, snapshot: Snapshot) -> list[Pod]:
        selector = {"matchLabels": self.selector}
        pods = [Pod.from_object(obj) for obj in snapshot.list_all("Pod", self.namespace)]
        return [pod for pod in pods if matches(selector, pod.labels)]


class PodsReady(_ServiceCondition):
    """Enough pods that a Service is to select are ready, so that requests have somewhere to go.

    ``served`` is how many served before, ``wanted`` how many are wanted now: the lower number has to be ready, and one.
    """

    def __init__(
        self, namespace: str, name: str, selector: t.Mapping[str, str] | None, *, served: int = 1, wanted: int = 1
    ) -> None:
        super().__init__(namespace, name, selector)
        self.served = served
        self.wanted = wanted

    @property
    def minimum(self) -> int:
        """How many have to be ready."""
        return max(1, min(self.served, self.wanted))

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return ("Pod",)

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return whether so many are ready."""
        pods = self._list_pods(snapshot)
        ready = [pod for pod in pods if pod.is_ready and not pod.is_terminating]
        message = (
            f"{len(ready)} of {format_count(len(pods), 'pod')} with {format_labels(self.selector) or 'no label'} ready"
        )
        if len(ready) >= self.minimum:
            return Status(CURRENT, self.title, message)
        message += f", and {self.minimum} needed ({self.served} served before, {self.wanted} wanted now)"
        next_step = "See why the others are not ready (kubectl get pods -l shows them), or scale down what serves it, then run again"
        return Status(IN_PROGRESS, self.title, message, next_step=next_step)


class Routed(_ServiceCondition):
    """A Service's requests reach pods that its selector selects and no others, and at least one if ``is_serving``.

    Where the Service has ports, that one has one of them.
    """

    kind = "EndpointSlice"

    def __init__(
        self,
        namespace: str,
        name: str,
        selector: t.Mapping[str, str] | None,
        *,
        is_serving: bool,
        has_ports: bool = False,
    ) -> None:
        super().__init__(namespace, name, selector)
        self.is_serving = is_serving
        self.has_ports = has_ports

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without, beside the pods that the selector selects."""
        return ("EndpointSlice",)

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where its requests go."""
        endpoints = list_endpoints(snapshot.list_all("EndpointSlice", self.namespace), self.name)
        own = {pod.name for pod in self._list_pods(snapshot)}
        foreign = [endpoint.name for endpoint in endpoints if endpoint.name not in own]
        chosen = [endpoint for endpoint in endpoints if endpoint.is_ready and endpoint.name in own]
        ready = [endpoint.name for endpoint in chosen if endpoint.ports or not self.has_ports]
        portless = [endpoint.name for endpoint in chosen if endpoint.name not in ready]
        if foreign:
            message = f"its EndpointSlices still have {join_some(foreign)}"
            return Status(IN_PROGRESS, self.title, message, next_step="See whether the controller manager runs")
        message = f"{format_count(len(ready), 'ready endpoint')} ({join_some(ready) or 'none'})"
        next_step = ""
        if portless:
            message += f"; without the port that its targetPort names: {join_some(portless)}"
            next_step = "Give a port of these pods' containers that name, or correct targetPort of the Service"
        is_current = bool(ready) or not self.is_serving
        return Status(CURRENT if is_current else IN_PROGRESS, self.title, message, next_step=next_step)
