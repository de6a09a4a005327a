# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fault injector: an HTTP proxy in front of a real S3 server, which it disturbs as a test says.

Requests are passed on as they are (the Host header too, so that signatures stay valid). ``rule`` sees each request
before it is passed on, and may act (kill a process, wait) or return a :class:`Fault`. ``support.s3_servers`` has rules
that make the server answer as others do.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, urlsplit

HOP_HEADERS = {"connection", "transfer-encoding", "expect", "keep-alive"}


@dataclass(frozen=True)
class Request:
    """One request as it arrived; ``number`` counts from 1."""

    number: int
    method: str
    target: str
    headers: Message = field(default_factory=Message, repr=False)
    """By names in any case."""
    body: bytes = field(default=b"", repr=False)
    """Of a DeleteObjects request; others are not kept."""

    @property
    def query(self) -> dict[str, list[str]]:
        """What stands behind the path."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def access_key(self) -> str:
        """The key by which it is signed."""
        return str(self.headers.get("authorization", "")).partition("Credential=")[2].partition("/")[0]

    @property
    def is_bulk_deletion(self) -> bool:
        """Whether it is a DeleteObjects."""
        return self.method == "POST" and "delete" in self.query

    @property
    def is_deletion(self) -> bool:
        """Whether it is a DeleteObject. One that aborts an upload is none, nor one that deletes a bucket."""
        has_key = len(urlsplit(self.target).path.strip("/").split("/", 1)) > 1
        return self.method == "DELETE" and has_key and "uploadId" not in self.query

    @property
    def is_list(self) -> bool:
        """Whether it is a ListObjectsV2."""
        return self.method == "GET" and "list-type" in self.query

    @property
    def is_dump_read(self) -> bool:
        """Whether a dump is read."""
        return self.method == "GET" and self.target.endswith("dump.pgc.zst")

    @property
    def is_part(self) -> bool:
        """Whether a dump, or a part of it, is sent."""
        return self.method == "PUT" and "dump.pgc.zst" in self.target


@dataclass(frozen=True)
class Fault:
    """What to do to one exchange."""

    flip_at: int | None = None  # flip one bit of this byte of the answer's body
    cut_to: int | None = None  # answer with this many bytes of the body, and a length that says so
    break_at: int | None = None  # close the connection after this many bytes of the body
    status: int | None = None  # do not pass on; answer with this status
    code: str = ""
    message: str = "injected"
    body: bytes | None = None  # with ``status``: the whole body, instead of an error by ``code``
    replace: tuple[str, str] | None = None  # a text in the answer's body, and what it becomes
    headers: Mapping[str, str] = field(default_factory=dict)  # set these headers of the answer
    has_length: bool = True  # otherwise answer in chunks, without Content-Length
    drop_answer: bool = False  # pass on, then close the connection without an answer


@dataclass
class Proxy:
    """The proxy's address and the requests that it saw."""

    url: str
    seen: list[Request]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str, rule: Callable[[Request], Fault | None], host: str) -> None:
        super().__init__((host, 0), _Handler)
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self.upstream = (parts.hostname, parts.port)
        self.rule = rule
        self.seen: list[Request] = []
        self.lock = threading.Lock()

    def note(self, method: str, target: str, headers: Message, body: bytes) -> Request:
        """Number a request and keep it."""
        with self.lock:
            request = Request(len(self.seen) + 1, method, target, headers, body)
            if not request.is_bulk_deletion:
                request = replace(request, body=b"")
            self.seen.append(request)
        return request

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed leaves a broken connection: that is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        server = cast("_Server", self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = server.rule(server.note(self.command, self.path, self.headers, body)) or Fault()
        if fault.status is not None:
            text = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
            body = text.encode() if fault.body is None else fault.body
            self._answer(fault.status, [], body, Fault(headers=fault.headers))
            return
        connection = http.client.HTTPConnection(*server.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        answer = response.read()
        if fault.drop_answer:
            self._hang_up()
        else:
            self._answer(response.status, response.getheaders(), answer, fault)
        connection.close()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault) -> None:
        if fault.flip_at is not None and body:
            place = fault.flip_at % len(body)
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        if fault.replace is not None:
            text, substitute = fault.replace
            body = body.replace(text.encode(), substitute.encode())
        body = body[: fault.cut_to]
        headers = [(name, value) for name, value in headers if name.lower() not in map(str.lower, fault.headers)]
        dropped = HOP_HEADERS if self.command == "HEAD" else HOP_HEADERS | {"content-length"}
        self.send_response_only(status)
        for name, value in [*headers, *fault.headers.items()]:
            if name.lower() not in dropped:
                self.send_header(name, value)
        if not fault.has_length:
            self.send_header("Transfer-Encoding", "chunked")
        elif self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            body = b""
        elif not fault.has_length:
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        self.wfile.write(body[: fault.break_at])
        if fault.break_at is not None:
            self.wfile.flush()
            self._hang_up()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815  # names are http.server's

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def s3_proxy(upstream: str, rule: Callable[[Request], Fault | None], *, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run the proxy for ``upstream`` on a free port of ``host`` while the block lasts."""
    server = _Server(upstream, rule, host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Proxy(url=f"http://{host}:{server.server_address[1]}", seen=server.seen)
    finally:
        server.shutdown()
        server.server_close()
