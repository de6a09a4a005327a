# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fault injector: TCP proxies between a client and a real server, which cut, delay and count.

``TcpProxy`` passes bytes. ``KafkaProxy`` reads Kafka's framing, so that a test can cut the connection before one kind
of answer and count requests by kind; it replaces the broker's own port in answers by its own, so that clients stay.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, LIST_OFFSETS, API_VERSIONS = 3, 8, 9, 10, 2, 18
SYNC_GROUP, DESCRIBE_GROUPS = 14, 15
API_NAMES = {
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    15: "DescribeGroups",
    16: "ListGroups",
    18: "ApiVersions",
    69: "ConsumerGroupDescribe",
    75: "DescribeTopicPartitions",
}
"""Kafka's api keys (https://kafka.apache.org/protocol#protocol_api_keys), as far as tests look at them."""


class TcpProxy:
    """Listens on ``host`` at a free port and passes each connection on to ``host:target_port``.

    ``cut_after`` bytes from the server, a connection is reset; ``delay`` seconds pass before each of its chunks. One on
    which either side has been silent for ``idle`` seconds is closed.
    """

    def __init__(
        self,
        host: str,
        target_port: int,
        *,
        cut_after: int | None = None,
        delay: float = 0.0,
        idle: float | None = None,
    ) -> None:
        self.host, self.target_port, self.idle = host, target_port, idle
        self.cut_after, self.delay = cut_after, delay
        self.connections = 0
        self.cuts = 0
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        return f"{self.host}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        for one in [self._listener, *self._sockets]:
            _close(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed: the end
            while True:
                client, _address = self._listener.accept()
                self.connections += 1
                server = socket.create_connection((self.host, self.target_port))
                client.settimeout(self.idle)
                server.settimeout(self.idle)
                with self._lock:
                    self._sockets += [client, server]
                for work in (self.from_client, self.from_server):
                    threading.Thread(target=self._run, args=(work, client, server), daemon=True).start()

    def _run(self, work: object, client: socket.socket, server: socket.socket) -> None:
        assert callable(work)
        with contextlib.suppress(OSError):  # either side is gone: so is the other
            work(client, server)
        _close(client)
        _close(server)

    def from_client(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client sends, until it ends."""
        while chunk := client.recv(65536):
            server.sendall(chunk)

    def from_server(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the server sends, until it ends or the cut is due."""
        passed = 0
        while chunk := server.recv(65536):
            time.sleep(self.delay)
            if self.cut_after is not None and passed + len(chunk) > self.cut_after:
                client.sendall(chunk[: self.cut_after - passed])
                self.cut(client)
                return
            client.sendall(chunk)
            passed += len(chunk)

    def cut(self, client: socket.socket) -> None:
        """Reset the client's connection."""
        self.cuts += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _close(client)


class KafkaProxy(TcpProxy):
    """Knows requests from answers.

    ``cut_before_answer``: the api key whose answer is swallowed, the connection being cut, ``cut_times`` times in all.
    ``drop_request``: the api key of which requests are not passed on at all (the connection is cut instead), as often.
    ``hold_request``, ``hold_answer``: the api key of which requests, or answers, wait until ``release`` is set;
    ``held`` is set when one does, so that a test can change the world or kill the client just then.
    ``alter``: given the api key of an answer and its frame (from the correlation id on), returns the frame to pass on.
    ``counts``: requests that were passed on, by api key; ``last_request``: the last frame of each.
    """

    def __init__(
        self,
        host: str,
        target_port: int,
        *,
        cut_before_answer: int | None = None,
        drop_request: int | None = None,
        cut_times: int = 1,
        hold_request: int | None = None,
        hold_answer: int | None = None,
        alter: Callable[[int, bytes], bytes] | None = None,
    ) -> None:
        self.cut_before_answer, self.drop_request, self.cut_times = cut_before_answer, drop_request, cut_times
        self.hold_request, self.hold_answer, self.alter = hold_request, hold_answer, alter
        self.held, self.release = threading.Event(), threading.Event()
        self._closing = False
        self.counts: Counter[int] = Counter()
        self.last_request: dict[int, bytes] = {}
        self._asked: dict[tuple[int, int], int] = {}
        super().__init__(host, target_port)

    @property
    def named_counts(self) -> dict[str, int]:
        """Requests by name, without the handshake of each connection."""
        return {
            API_NAMES.get(key, str(key)): count for key, count in sorted(self.counts.items()) if key != API_VERSIONS
        }

    def hold(self) -> None:
        """Wait for the test. What is still held when the proxy closes is not passed on."""
        self.held.set()
        self.release.wait()
        if self._closing:
            raise ConnectionAbortedError

    def close(self) -> None:
        """Drop what is held, and cut every connection."""
        self._closing = True
        self.release.set()
        super().close()

    def from_client(self, client: socket.socket, server: socket.socket) -> None:
        """Count requests, and drop what is to be dropped."""
        while (frame := _frame(client)) is not None:
            key, _version, correlation = struct.unpack(">hhi", frame[:8])
            if key == self.drop_request and self.cuts < self.cut_times:
                self.cut(client)
                return
            if key == self.hold_request:
                self.hold()
            self.counts[key] += 1
            self.last_request[key] = frame
            self._asked[id(client), correlation] = key
            server.sendall(struct.pack(">i", len(frame)) + frame)

    def from_server(self, client: socket.socket, server: socket.socket) -> None:
        """Pass answers on, or cut before one."""
        own = self.host.encode() + struct.pack(">i", self.target_port)
        mine = self.host.encode() + struct.pack(">i", self.port)
        while (frame := _frame(server)) is not None:
            key = self._asked.pop((id(client), struct.unpack(">i", frame[:4])[0]))
            if key == self.cut_before_answer and self.cuts < self.cut_times:
                self.cut(client)
                return
            if key == self.hold_answer:
                self.hold()
            frame = frame.replace(own, mine)
            if self.alter is not None:
                frame = self.alter(key, frame)
            client.sendall(struct.pack(">i", len(frame)) + frame)


def _frame(source: socket.socket) -> bytes | None:
    """One length-prefixed message, None at the end of the connection."""
    head = _exactly(source, 4)
    return None if head is None else _exactly(source, struct.unpack(">i", head)[0])


def _exactly(source: socket.socket, size: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = source.recv(size - len(chunks))
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected any more: closing is still due
        one.shutdown(socket.SHUT_RDWR)
    one.close()
