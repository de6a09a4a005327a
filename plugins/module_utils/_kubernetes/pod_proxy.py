# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the pods of a workload through the API server's pod proxy: how much is in flight, whether a smoke check passes.

So it works from wherever the API server can be reached, and each pod is asked, not one of them behind a Service.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import typing as t
from urllib.parse import quote

from .._common.errors import OpsError, Refusal
from .client import Answer, Client
from .errors import Forbidden
from .fields import as_list, get_path
from .objects import Pod, Workload
from .readings import UnreadableAnswer, format_number, quote_answer, read_body, read_field, shorten, sum_metric
from .resources import collection_path, find_resource
from .reviews import Right
from .selectors import format_selector
from .snapshot import Snapshot

_REFUSED = "connection refused"
_WRONG_SCHEME = ("HTTP response to HTTPS client", "malformed HTTP response", "does not look like a TLS handshake")
_PASSING = (408, 425, 429)
"""Answers below 500 that a later request need not get."""
_ADVICE = {
    401: "Let the pod answer at this path without a login, or correct path",
    403: "Let the pod answer at this path without a login, or correct path",
    404: "Correct path and port: the pod has nothing there",
}

PROXY_RIGHT = ("get", "proxy")
"""The verb and the subresource of Pods that asking through the proxy takes."""


KINDS = ("Deployment", "StatefulSet", "DaemonSet")
"""Kinds of workloads whose pods can be asked."""


class Place(t.NamedTuple):
    """Where each pod of a workload is asked."""

    kind: str
    workload: str
    port: str
    path: str
    scheme: str

    @property
    def key(self) -> str:
        """Kind/name of the workload."""
        return f"{self.kind}/{self.workload}"


class Gauge(t.NamedTuple):
    """What is in flight in a pod, and how much of it counts as nothing (a pod may count the request that asks)."""

    place: Place
    metric: str
    labels: dict[str, str]
    field: str
    limit: float

    @property
    def title(self) -> str:
        """What is read, for messages."""
        return self.metric or self.field or self.place.path


class Check(t.NamedTuple):
    """What a pod must answer."""

    place: Place
    status: int
    contains: str


class Reading(t.NamedTuple):
    """What asking one pod brought: whether it is as it must be, the number where there is one, and words for it.

    ``is_lasting`` says that waiting does not bring the number, ``next_step`` what does.
    """

    pod: str
    title: str
    is_met: bool
    value: float | None
    message: str
    is_lasting: bool = False
    next_step: str = ""

    def as_dict(self) -> dict[str, t.Any]:
        """Return plain values for a result."""
        return {"pod": self.pod, "what": self.title, "met": self.is_met, "value": self.value, "detail": self.message}


def require_proxy(namespace: str) -> Right:
    """Return the right that asking through the proxy takes."""
    verb, subresource = PROXY_RIGHT
    return Right(verb, find_resource("Pod"), namespace, subresource=subresource)


def parse_place(option: str, entry: t.Mapping[str, t.Any]) -> Place:
    """Return the place of an entry of an option. Raises Refusal for a path that is none."""
    path = str(entry["path"])
    if not path.startswith("/") or any(letter.isspace() or not letter.isprintable() for letter in path):
        raise Refusal(
            obj=f"option {option}",
            problem=f"path {path!r} is no path of a URL",
            next_step="Begin it with / and write spaces as %20",
        )
    port = str(entry["port"])
    if not port or not port.replace("-", "").isalnum():
        raise Refusal(
            obj=f"option {option}",
            problem=f"port {port!r} is neither a number nor the name of a container's port",
            next_step="Give the port at which the pods answer, such as 8080",
        )
    return Place(str(entry["kind"]), str(entry["name"]), port, path, str(entry["scheme"]))


def list_workload_pods(client: Client, workload: Workload) -> list[Pod]:
    """Return the pods that a workload owns and that have not ended, terminating ones included."""
    pods = _list(client, "Pod", workload)
    replica_sets = _list(client, "ReplicaSet", workload) if workload.kind == "Deployment" else []
    snapshot = Snapshot.from_objects([*pods, *replica_sets], known=("Pod", "ReplicaSet"))
    return sorted(snapshot.list_running_pods(workload), key=lambda pod: pod.name)


def _list(client: Client, kind: str, workload: Workload) -> list[dict[str, t.Any]]:
    path = collection_path(kind, workload.namespace)
    params = {"labelSelector": format_selector(workload.selector)}
    listing = client.list(path, obj=f"{kind}s of {workload.title}", params=params)
    return [{**item, "kind": kind} for item in listing.items]


def read_gauge(client: Client, pod: Pod, gauge: Gauge) -> Reading:
    """Ask a pod how much is in flight. No answer, and one that cannot be read, is never taken for nothing."""
    title = gauge.title
    try:
        text = ask_text(client, pod, gauge.place, expected=200)
        value = _extract(text, gauge)
    except UnreadableAnswer as error:
        return Reading(
            pod.title,
            title,
            is_met=False,
            value=None,
            message=f"{gauge.place.path}: {error}",
            is_lasting=error.is_lasting and not pod.is_terminating,
            next_step=f"{error.next_step or 'Correct path, port and what is read there'} (in_flight, {gauge.place.kind} {gauge.place.workload})",
        )
    is_met = value <= gauge.limit
    return Reading(pod.title, title, is_met=is_met, value=value, message=f"{title} {format_number(value)}")


def _extract(text: str, gauge: Gauge) -> float:
    if gauge.metric:
        return sum_metric(text, gauge.metric, gauge.labels)
    return read_field(text, gauge.field) if gauge.field else read_body(text)


def run_check(client: Client, pod: Pod, check: Check) -> Reading:
    """Ask a pod what a smoke check asks, and compare."""
    title = check.place.path
    try:
        text = ask_text(client, pod, check.place, expected=check.status)
    except UnreadableAnswer as error:
        return Reading(pod.title, title, is_met=False, value=None, message=f"{title}: {error}")
    if check.contains not in text:
        message = f"{title}: {quote_answer(text)} does not contain {check.contains!r}"
        return Reading(pod.title, title, is_met=False, value=None, message=message)
    return Reading(pod.title, title, is_met=True, value=None, message=f"{title}: {check.status}")


def _ask(client: Client, pod: Pod, place: Place) -> Answer:
    """Return what a pod answers. Raises UnreadableAnswer where none came, Forbidden where it may not be asked."""
    prefix = "https:" if place.scheme == "https" else ""
    target = quote(f"{prefix}{pod.name}:{_find_port(pod, place.port)}", safe=":")
    path = f"{collection_path('Pod', pod.namespace)}/{target}/proxy{place.path}"
    try:
        answer = client.ask(path, obj=pod.title)
    except OpsError as error:
        next_step = "See why it does not answer, or raise in_flight_timeout"
        raise UnreadableAnswer(error.problem, next_step=next_step, is_lasting=False) from error
    refusal = _read_refusal(answer)
    if refusal.get("reason") == "Forbidden":
        raise Forbidden(
            obj=pod.title,
            problem=f"the server answered 403: {shorten(str(refusal.get('message')))}",
            next_step=f"Grant this account: {require_proxy(pod.namespace).rule} (docs/kubernetes-rights.yml)",
            status=403,
        )
    if refusal:
        message = shorten(str(refusal.get("message")))
        # One that is not ready may listen later. What it says in another protocol it will always say.
        is_lasting = any(word in message for word in _WRONG_SCHEME) or (pod.is_ready and _REFUSED in message)
        next_step = (
            "Correct port and scheme" if is_lasting else "See why it does not answer, or raise in_flight_timeout"
        )
        problem = f"the API server could not ask it: {message}"
        raise UnreadableAnswer(problem, next_step=next_step, is_lasting=is_lasting)
    return answer


def _find_port(pod: Pod, port: str) -> str:
    """Return the number of a port of a pod: for a name the API server would cut the connection without an answer."""
    if port.isdigit():
        return port
    containers = as_list(get_path(pod.raw, "spec", "containers")) + as_list(get_path(pod.raw, "spec", "initContainers"))
    ports = [entry for container in containers for entry in as_list(get_path(container, "ports"))]
    numbers = [str(entry.get("containerPort")) for entry in ports if entry.get("name") == port]
    if not numbers:
        problem = f"none of its containers has a port named {port}"
        raise UnreadableAnswer(problem, next_step="Correct port, or name it so in the pod template")
    return numbers[0]


def _read_refusal(answer: Answer) -> dict[str, t.Any]:
    """Return the Status object by which the API server itself says why it has no answer of the pod; empty for an answer."""
    if answer.status < 400:
        return {}
    try:
        document = json.loads(answer.content)
    except ValueError:
        return {}
    is_status = get_path(document, "kind") == "Status" and get_path(document, "apiVersion") == "v1"
    return document if is_status else {}


def ask_text(client: Client, pod: Pod, place: Place, *, expected: int) -> str:
    """Return the text of what a pod answers with this status. Raises UnreadableAnswer, Forbidden."""
    answer = _ask(client, pod, place)
    text = answer.content.decode("utf-8", "replace")
    if answer.status != expected:
        problem = f"it answered {answer.status} and not {expected}: {quote_answer(text)}"
        is_lasting = answer.status < 500 and answer.status not in _PASSING
        next_step = "See why it does not answer, or raise in_flight_timeout"
        if is_lasting:
            next_step = _ADVICE.get(answer.status, "Correct path, port and scheme")
        raise UnreadableAnswer(problem, next_step=next_step, is_lasting=is_lasting)
    return text
