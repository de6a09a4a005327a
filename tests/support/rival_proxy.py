# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let another writer act at one exact moment: between two requests of a client to a real Kubernetes API server.

``KubernetesProxy`` injects faults; this one injects rivals, and can speak to the server as a restricted account.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from .kubernetes_account import read_cluster_entry
from .kubernetes_proxy import upstream

PASSED_ON = ("accept", "content-type", "user-agent", "accept-encoding")
CHUNK = 65536


class CutOffError(Exception):
    """Raised by a rival: the request does not reach the server, or its answer not the client; the connection ends."""


@dataclass
class Rival:
    """Acts before a request with this method whose path ends in ``path`` reaches the server, or after it was answered.

    It acts ``times`` times; the request, or its answer, waits for it.
    """

    method: str
    path: str
    act: Callable[[], object]
    when: str = "before"
    times: int = 1


class RivalProxy:
    """Listens on loopback without TLS and passes requests on, as the lab's administrator or with ``token``.

    ``answers`` has paths that it answers by itself, each with a status.
    """

    def __init__(
        self, facts: Mapping[str, Any], *rivals: Rival, token: str = "", answers: Mapping[str, int] | None = None
    ) -> None:
        self.rivals = list(rivals)
        self.answers = dict(answers or {})
        self.is_silent = False
        """Whether watches are begun and then pass on nothing, as on a connection that one side has forgotten."""
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of everything that arrived, in order."""
        host, port, tls = upstream(facts["kubeconfig"])
        self.headers = {}
        if token:
            authority = base64.b64decode(read_cluster_entry(facts)["certificate-authority-data"]).decode()
            tls = ssl.create_default_context(cadata=authority)  # without the administrator's certificate
            self.headers["Authorization"] = f"Bearer {token}"
        self.target = (host, port, tls)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """For the option ``host``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def let_rivals_act(self, method: str, target: str, when: str) -> None:
        """Have every rival act whose moment this is."""
        path = urlsplit(target).path
        for rival in self.rivals:
            with self._lock:
                is_due = rival.times > 0 and (rival.method, rival.when) == (method, when) and path.endswith(rival.path)
                rival.times -= is_due
            if is_due:
                rival.act()

    def __enter__(self) -> Self:
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
        """Say nothing; the proxy keeps what it was asked."""

    def do_GET(self) -> None:
        """Pass on a read or a watch."""
        self._pass_on()

    def do_PATCH(self) -> None:
        """Pass on a change."""
        self._pass_on()

    def do_POST(self) -> None:
        """Pass on a creation or a review."""
        self._pass_on()

    def do_DELETE(self) -> None:
        """Pass on a deletion."""
        self._pass_on()

    def _pass_on(self) -> None:
        try:
            self._exchange()
        except CutOffError:
            self.close_connection = True

    def _exchange(self) -> None:
        proxy: RivalProxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        proxy.requests.append((self.command, self.path))
        status = proxy.answers.get(urlsplit(self.path).path)
        if status is not None:
            self._answer(status, {}, json.dumps({"kind": "Status", "message": "answered by a test"}).encode())
            return
        proxy.let_rivals_act(self.command, self.path, "before")
        host, port, tls = proxy.target
        connection = http.client.HTTPSConnection(host, port, context=tls)
        given = {key: value for key, value in self.headers.items() if key.lower() in PASSED_ON}
        connection.request(self.command, self.path, body=body, headers={**given, **proxy.headers})
        response = connection.getresponse()
        if "watch=true" in self.path and response.status == http.client.OK:
            self._stream(response)
        else:
            content = response.read()
            proxy.let_rivals_act(self.command, self.path, "after")
            self._answer(response.status, dict(response.getheaders()), content)
        connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for key in ("Content-Type", "Content-Encoding", "Retry-After"):
            if key in headers:
                self.send_header(key, headers[key])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, response: http.client.HTTPResponse) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        proxy: RivalProxy = self.server.proxy  # type: ignore[attr-defined]
        try:
            if proxy.is_silent:
                self.rfile.read(1)  # until the client closes the connection
            while part := response.read1(CHUNK):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the client has what it wanted
