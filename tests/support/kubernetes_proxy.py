# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fault injector: an HTTP proxy before a real Kubernetes API server that counts requests by verb and fails as told."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .http_proxy import ApiProxy, CutOffError, Exchange, choose_headers


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a verb whose path contains ``path``.

    The verb is GET, LIST, WATCH, POST, PATCH or DELETE; REVIEW is an access review, DRY_RUN a write that is only tried.
    ``status``: answered by the proxy, with ``headers``. ``reset``:
    "before" the request reaches the server, "after" it did and before its answer, or in the "middle" of the answer.
    ``hang``: so many seconds pass before the request reaches the server. ``end_after``: a watch ends after so many
    events; ``gone`` then adds the event that says 410.
    """

    verb: str
    path: str = ""
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reset: str = ""
    hang: float = 0.0
    end_after: int | None = None
    gone: bool = False


NO_FAULT = Fault("")


class KubernetesProxy(ApiProxy):
    """Passes every request on with the kubeconfig's credentials, unless it meets one of ``faults``."""

    def __init__(self, kubeconfig: str) -> None:
        self.faults: list[Fault] = []
        super().__init__(kubeconfig)

    def find_verb(self, exchange: Exchange) -> str:
        """Return the API's verb, or REVIEW, or DRY_RUN."""
        path = urlsplit(exchange.path).path
        if "dryRun" in exchange.query:
            return "DRY_RUN"
        if exchange.command != "GET":
            return "REVIEW" if path.endswith("accessreviews") else exchange.command
        if exchange.is_watch:
            return "WATCH"
        segments = path.strip("/").split("/")
        resource = (
            segments[segments.index("namespaces") + 2 :]
            if "namespaces" in segments
            else segments[2 if segments[0] == "api" else 3 :]
        )
        return "LIST" if len(resource) == 1 else "GET"

    def respond(self, exchange: Exchange) -> None:
        """Pass it on, or fail as told."""
        fault = self._take_fault(exchange)
        if fault.status:
            exchange.answer_status(fault.status, f"injected {fault.status}", fault.headers)
            return
        threading.Event().wait(fault.hang)
        if fault.reset == "before":
            raise CutOffError
        with self.ask_server(exchange) as response:
            if exchange.is_watch and response.status == http.client.OK and not fault.reset:
                exchange.stream(_limit_events(response, fault))
                return
            content = response.read()
            if fault.reset == "after":
                raise CutOffError
            cut_to = len(content) // 2 if fault.reset == "middle" else None
            exchange.answer(response.status, content, choose_headers(response), cut_to=cut_to)
            if cut_to is not None:
                raise CutOffError

    def _take_fault(self, exchange: Exchange) -> Fault:
        verb = self.find_verb(exchange)
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.verb == verb and fault.path in exchange.path:
                    fault.times -= 1
                    return fault
        return NO_FAULT


def _limit_events(response: http.client.HTTPResponse, fault: Fault) -> Iterator[bytes]:
    left = fault.end_after
    while left is None or left > 0:
        line = response.readline()
        if not line:
            return
        yield line
        left = None if left is None else left - 1
    if fault.gone:
        status = {"kind": "Status", "code": 410, "message": "too old resource version"}
        yield json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
