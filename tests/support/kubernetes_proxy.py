# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fault injector: an HTTP proxy before a real Kubernetes API server that counts requests by verb and fails as told."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


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


def upstream(kubeconfig: str) -> tuple[str, int, ssl.SSLContext]:
    """Host, port and TLS context of the current context of a kubeconfig with inline certificates."""
    document = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
    context = next(one["context"] for one in document["contexts"] if one["name"] == document["current-context"])
    cluster = next(one["cluster"] for one in document["clusters"] if one["name"] == context["cluster"])
    user = next(one["user"] for one in document["users"] if one["name"] == context["user"])
    tls = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority"))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(_pem(user, "client-certificate") + "\n" + _pem(user, "client-key"))
        file.flush()
        tls.load_cert_chain(file.name)
    address = urlsplit(cluster["server"])
    return str(address.hostname), address.port or 443, tls


def _pem(entry: dict[str, str], key: str) -> str:
    if f"{key}-data" in entry:
        return base64.b64decode(entry[f"{key}-data"]).decode()
    return Path(entry[key]).read_text(encoding="utf-8")


class KubernetesProxy:
    """Listens on loopback without TLS and passes every request on with the kubeconfig's credentials."""

    def __init__(self, kubeconfig: str) -> None:
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self.target = upstream(kubeconfig)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """For the option ``host``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def verbs(self) -> Counter[str]:
        """How many requests of each verb arrived."""
        with self._lock:
            return Counter(verb for verb, _path in self.seen)

    def take(self, verb: str, path: str) -> Fault | None:
        """Note a request and say which fault, if any, it meets."""
        with self._lock:
            self.seen.append((verb, path))
            for fault in self.faults:
                if fault.times > 0 and fault.verb == verb and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def __enter__(self) -> KubernetesProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the proxy keeps what it saw."""

    def do_GET(self) -> None:
        """GET, LIST or WATCH."""
        self._pass_on()

    def do_PATCH(self) -> None:
        """A write."""
        self._pass_on()

    def do_POST(self) -> None:
        """A new object, or a review."""
        self._pass_on()

    def do_DELETE(self) -> None:
        """An object's end."""
        self._pass_on()

    def _verb(self) -> str:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if "dryRun" in query:
            return "DRY_RUN"
        if self.command != "GET":
            return "REVIEW" if parts.path.endswith("accessreviews") else self.command
        if query.get("watch") == ["true"]:
            return "WATCH"
        segments = parts.path.strip("/").split("/")
        resource = (
            segments[segments.index("namespaces") + 2 :]
            if "namespaces" in segments
            else segments[2 if segments[0] == "api" else 3 :]
        )
        return "LIST" if len(resource) == 1 else "GET"

    def _pass_on(self) -> None:
        proxy: KubernetesProxy = self.server.proxy  # type: ignore[attr-defined]
        verb = self._verb()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        fault = proxy.take(verb, self.path)
        if fault is not None and fault.status:
            self._answer(
                fault.status,
                json.dumps({"kind": "Status", "message": f"injected {fault.status}"}).encode(),
                fault.headers,
            )
            return
        if fault is not None and fault.hang:
            threading.Event().wait(fault.hang)
        if fault is not None and fault.reset == "before":
            self._reset()
            return
        host, port, tls = proxy.target
        connection = http.client.HTTPSConnection(host, port, context=tls)
        headers = {
            key: value for key, value in self.headers.items() if key.lower() in ("accept", "content-type", "user-agent")
        }
        connection.request(self.command, self.path, body=body, headers=headers)
        response = connection.getresponse()
        if fault is not None and fault.reset == "after":
            response.read()
            self._reset()
        elif fault is not None and fault.reset == "middle":
            body = response.read()
            self.send_response(response.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self._reset()
        elif verb == "WATCH" and response.status == 200:
            self._stream(response, fault)
        else:
            self._answer(response.status, response.read(), {})
        connection.close()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client has stopped waiting

    def _stream(self, response: http.client.HTTPResponse, fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in self._lines(response, fault):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the client has what it wanted

    def _lines(self, response: http.client.HTTPResponse, fault: Fault | None) -> Iterator[bytes]:
        left = fault.end_after if fault is not None else None
        while left is None or left > 0:
            line = response.readline()
            if not line:
                return
            yield line
            left = None if left is None else left - 1
        if fault is not None and fault.gone:
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            yield json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.close()
