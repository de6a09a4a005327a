# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HTTP for the double of the API server in ``support.memory_kubernetes``: verbs, faults, chunks."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from .memory_objects import Json, Rejected, Target

if TYPE_CHECKING:
    from .memory_kubernetes import MemoryServer

VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


class Request(NamedTuple):
    """A request that arrived; ``verb`` as in access rules: get, list, watch, create, patch, delete."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str
    verb: str
    headers: dict[str, str]
    body: Any
    header_list: list[tuple[str, str]]


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a verb (empty: any) whose path contains ``path``.

    ``status`` is answered; ``lose`` cuts the connection ``"before"`` the request is carried out, ``"after"`` it, or
    in the ``"middle"`` of the answer; ``hang`` seconds pass before the answer. ``is_after`` lets the request be
    carried out before the error is answered. ``body`` is answered as it is, with ``drip`` seconds before each byte.
    """

    times: int = 1
    verb: str = ""
    path: str = ""
    status: int = 0
    retry_after: int | None = None
    lose: str = ""
    hang: float = 0.0
    is_after: bool = False
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0.0


@dataclass
class Rival:
    """Another client, who acts ``when`` ("before" or "after") the next ``times`` requests of a verb are carried out."""

    action: Callable[[], object]
    when: str = "before"
    verb: str = "patch"
    path: str = ""
    times: int = 1


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def memory(self) -> MemoryServer:
        """The server's memory."""
        return self.server.memory  # type: ignore[attr-defined, no-any-return]

    def setup(self) -> None:
        """Count it."""
        super().setup()
        with self.memory.changed:
            self.memory.connections += 1
            self.memory.open_connections.add(self.connection)

    def finish(self) -> None:
        """Count it no longer."""
        with self.memory.changed:
            self.memory.open_connections.discard(self.connection)
            self.memory.changed.notify_all()
        try:
            super().finish()
        except OSError:
            self.close_connection = True  # cut on purpose

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the server keeps what arrived."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The header Date, by the server's own clock."""
        now = time.time() if timestamp is None else timestamp
        return super().date_time_string(now + self.memory.clock_ahead) if self.memory.date is None else self.memory.date

    def do_GET(self) -> None:
        """GET, LIST, WATCH or a log."""
        self._serve()

    def do_POST(self) -> None:
        """CREATE."""
        self._serve()

    def do_PATCH(self) -> None:
        """PATCH."""
        self._serve()

    def do_DELETE(self) -> None:
        """DELETE."""
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {key.lower(): value for key, value in self.headers.items()}
        document = json.loads(body) if body else None
        request = Request(
            self.command,
            parts.path,
            query,
            headers.get("content-type", ""),
            self._find_verb(query),
            headers,
            document,
            [(key.lower(), value) for key, value in self.headers.items()],
        )
        self.memory.run_rivals("before", request)
        fault = self.memory.take_fault(request)
        try:
            if fault is not None and self._fail_before(fault):
                return
            served = self.memory.discover(request.path) if request.method == "GET" else None
            if served is not None:
                self._send(200, served)
                return
            self._check(request)
            if request.verb == "watch":
                self._watch(self.memory.parse_path(request.path), query)
                return
            target = self.memory.parse_path(request.path)
            if target.subresource == "log":
                self.memory.check_present(target)
                self._send_log(self.memory.read_log(target, query))
                return
            if target.subresource == "proxy":
                self._send_text(*self.memory.ask_pod(target, parts.path))
                return
            answer = self.memory.answer(request)
            self.memory.run_rivals("after", request)
            if fault is not None and (fault.lose or fault.status):
                self._fail_after(fault, answer)
                return
            self._send(201 if request.verb == "create" else 200, answer)
        except Rejected as error:
            headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
            self._send(error.status, error.as_status(), headers)

    def _find_verb(self, query: dict[str, str]) -> str:
        if self.command != "GET":
            return VERBS.get(self.command, "")
        try:
            target = self.memory.parse_path(urlsplit(self.path).path)
        except Rejected:
            return "get"
        if query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if target.name else "list"

    def _check(self, request: Request) -> None:
        accepted = self.memory.tokens
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if accepted is not None and token not in accepted:
            raise Rejected(401, "Unauthorized", "Unauthorized")
        target = self.memory.parse_path(request.path)
        if not self.memory.check_access(request.verb, target.resource, target.namespace, target.subresource):
            resource = target.resource
            message = (
                f'{resource.qualified} "{target.name}" is forbidden: User "test" cannot {request.verb} resource'
                f' "{resource.plural}" in API group "{resource.group}" in the namespace "{target.namespace}"'
            )
            raise Rejected(403, "Forbidden", message)

    def _fail_before(self, fault: Fault) -> bool:
        """Meet a fault that comes before the request is carried out; returns whether that was the answer."""
        if fault.hang:
            threading.Event().wait(fault.hang)
            return False
        if fault.body is not None:
            self._send_as_it_is(fault, fault.body)
            return True
        if fault.lose == "before":
            self._reset()
            return True
        if fault.status and not fault.is_after:
            raise Rejected(fault.status, "Injected", f"injected {fault.status}", retry_after=fault.retry_after)
        return False

    def _fail_after(self, fault: Fault, answer: Json) -> None:
        if fault.status:
            raise Rejected(fault.status, "Injected", f"injected {fault.status}", retry_after=fault.retry_after)
        if fault.lose == "middle":
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
        self._reset()

    def _send(self, status: int, document: Json, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client has gone

    def _send_as_it_is(self, fault: Fault, body: bytes) -> None:
        self.send_response(fault.status)
        for key, value in {"Content-Length": str(len(body)), **fault.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            for start in range(0, len(body), 1 if fault.drip else len(body) or 1):
                threading.Event().wait(fault.drip)
                self.wfile.write(body[start : start + 1] if fault.drip else body)
        except OSError:
            self.close_connection = True  # the client has gone

    def _send_text(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _send_log(self, lines: list[str]) -> None:
        self._begin_chunks("text/plain")
        for line in lines:
            self._send_chunk(line.encode() + b"\n")
        self._send_chunk(b"")

    def _watch(self, target: Target, query: dict[str, str]) -> None:
        memory = self.memory
        self._begin_chunks("application/json")
        try:
            for event in self._follow(target, query):
                self._send_chunk(json.dumps(event).encode() + b"\n")
            if memory.watch_cuts:
                self._reset()
                return
            self._send_chunk(b"")
        except OSError:
            self.close_connection = True  # the client has what it asked for

    def _follow(self, target: Target, query: dict[str, str]) -> Iterator[Json]:
        memory = self.memory
        end = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
        with memory.changed:
            bookmarks, ends = memory.bookmarks, memory.watch_ends
            if query.get("resourceVersion", "0") == "0":
                version, events = memory.list_present(target, query)
            else:
                version, events = memory.list_changes(target, query, int(query["resourceVersion"]))
        while True:
            yield from events
            if any(event["type"] == "ERROR" for event in events):
                return
            with memory.changed:
                while memory.version <= version and memory.bookmarks == bookmarks and memory.watch_ends == ends:
                    if memory.is_closed or not memory.changed.wait(max(0.0, end - time.monotonic())):
                        return
                if memory.is_closed:
                    return
                version, events = memory.list_changes(target, query, version)
                if memory.bookmarks != bookmarks:
                    bookmarks = memory.bookmarks
                    if query.get("allowWatchBookmarks") == "true":
                        events.append(_make_bookmark(target, version))
                is_ended = memory.watch_ends != ends
            if is_ended:
                yield from events
                return

    def _begin_chunks(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _make_bookmark(target: Target, version: int) -> Json:
    return {
        "type": "BOOKMARK",
        "object": {
            "kind": target.resource.kind,
            "apiVersion": target.resource.group_version,
            "metadata": {"resourceVersion": str(version)},
        },
    }


def find_manager(request: Request) -> str:
    """Return who says to be writing."""
    return request.query.get("fieldManager") or request.headers.get("user-agent", "unknown").split("/")[0]


def is_dry(request: Request) -> bool:
    """Return whether nothing is to be kept."""
    return request.query.get("dryRun") == "All"
