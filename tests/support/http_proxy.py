# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand between a client and a server as an HTTP proxy: what every such proxy of the tests has in common.

``HttpProxy`` listens and keeps what was asked; ``ApiProxy`` also speaks to a real Kubernetes API server. A proxy of
its own says in ``respond`` what it alters.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import ssl
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

PASSED_ON = ("accept", "content-type", "user-agent", "accept-encoding")
PASSED_BACK = ("Content-Type", "Content-Encoding", "Retry-After")


class CutOffError(Exception):
    """Raised while a request is responded to: nothing more is passed on in either direction, the connection ends."""


class Exchange(BaseHTTPRequestHandler):
    """A client's connection, with the request that has come last; ``body`` is None where it has none."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, proxy: HttpProxy, *arguments: Any) -> None:
        self.proxy = proxy
        self.body: bytes | None = None
        super().__init__(*arguments)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the proxy keeps what it was asked."""

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        self.proxy.note(self)
        try:
            self.proxy.respond(self)
        except CutOffError:
            self.close_connection = True

    do_GET = do_PATCH = do_POST = do_DELETE = do_CONNECT = _serve  # noqa: N815  # names are http.server's

    @property
    def query(self) -> dict[str, list[str]]:
        """What stands behind the path."""
        return parse_qs(urlsplit(self.path).query)

    @property
    def is_watch(self) -> bool:
        """Whether a watch is asked for."""
        return self.command == "GET" and self.query.get("watch") == ["true"]

    def answer(self, status: int, content: bytes, headers: Mapping[str, str], *, cut_to: int | None = None) -> None:
        """Answer as a whole, or only the first ``cut_to`` bytes of it."""
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        try:
            self.end_headers()
            self.wfile.write(content[:cut_to])
        except OSError:
            self.close_connection = True  # the client has stopped waiting

    def answer_status(self, status: int, message: str, headers: Mapping[str, str]) -> None:
        """Answer by an object of kind Status."""
        self.answer(status, json.dumps({"kind": "Status", "message": message}).encode(), headers)

    def stream(self, lines: Iterable[bytes]) -> None:
        """Answer a watch line by line."""
        self.send_response(http.client.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        try:
            self.end_headers()
            for line in lines:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the client has what it asked for


class HttpProxy(ABC):
    """Listens on loopback without TLS until the block ends that it was entered for.

    ``requests`` has verb (``find_verb``) and path with query of everything that arrived, in order.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Exchange, self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @abstractmethod
    def respond(self, exchange: Exchange) -> None:
        """Answer a request, by what a server says or otherwise. Raises CutOffError to end the connection instead."""

    def find_verb(self, exchange: Exchange) -> str:
        """Return the name under which a request is counted."""
        return exchange.command

    def note(self, exchange: Exchange) -> None:
        """Keep that a request has arrived."""
        with self.lock:
            self.requests.append((self.find_verb(exchange), exchange.path))

    @property
    def verbs(self) -> Counter[str]:
        """How many requests of each verb arrived."""
        with self.lock:
            return Counter(verb for verb, _path in self.requests)

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """For the option ``host``, or ``HTTPS_PROXY`` and the like."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class ApiProxy(HttpProxy):
    """Speaks to a real API server, with the kubeconfig's credentials or with ``token``."""

    def __init__(self, kubeconfig: str, *, token: str = "") -> None:
        self._target = upstream(kubeconfig, is_anonymous=bool(token))
        self._credentials = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__()

    @contextmanager
    def ask_server(self, exchange: Exchange) -> Iterator[http.client.HTTPResponse]:
        """Pass a request on; the answer can be read while the block lasts."""
        host, port, tls = self._target
        connection = http.client.HTTPSConnection(host, port, context=tls)
        headers = {key: value for key, value in exchange.headers.items() if key.lower() in PASSED_ON}
        try:
            connection.request(exchange.command, exchange.path, exchange.body, {**headers, **self._credentials})
            yield connection.getresponse()
        finally:
            connection.close()


def choose_headers(response: http.client.HTTPResponse) -> dict[str, str]:
    """Return those headers of the server's answer that a client needs."""
    return {key: value for key, value in response.getheaders() if key in PASSED_BACK}


def upstream(kubeconfig: str, *, is_anonymous: bool = False) -> tuple[str, int, ssl.SSLContext]:
    """Host, port and TLS context of the current context of a kubeconfig with inline certificates.

    ``is_anonymous`` leaves out its user's certificate.
    """
    document = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
    context = next(entry["context"] for entry in document["contexts"] if entry["name"] == document["current-context"])
    cluster = next(entry["cluster"] for entry in document["clusters"] if entry["name"] == context["cluster"])
    user = next(entry["user"] for entry in document["users"] if entry["name"] == context["user"])
    tls = ssl.create_default_context(cadata=_read_pem(cluster, "certificate-authority"))
    if not is_anonymous:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(_read_pem(user, "client-certificate") + "\n" + _read_pem(user, "client-key"))
            file.flush()
            tls.load_cert_chain(file.name)
    address = urlsplit(cluster["server"])
    return str(address.hostname), address.port or 443, tls


def _read_pem(entry: dict[str, str], key: str) -> str:
    if f"{key}-data" in entry:
        return base64.b64decode(entry[f"{key}-data"]).decode()
    return Path(entry[key]).read_text(encoding="utf-8")
