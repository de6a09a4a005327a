# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small forward proxy for tests: CONNECT over http or https, or socks5, each with or without a password."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import ssl
import threading
from types import TracebackType
from typing import Self


class ConnectProxy(socketserver.ThreadingTCPServer):
    """Listens on loopback; ``kind`` is http or socks5.

    With ``tls`` the client speaks TLS with the proxy itself. ``login`` is the user name and password that it asks for.
    ``answer`` is given to an http CONNECT instead of a tunnel; ``code`` to a socks5 request. ``targets`` has what was
    asked for, ``heads`` the head of each CONNECT. ``chunk`` is how many bytes are passed on at once.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        kind: str = "http",
        *,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        answer: bytes | None = None,
        code: int = 0,
        chunk: int = 65536,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind, self.tls, self.login, self.answer, self.code, self.chunk = kind, tls, login, answer, code, chunk
        self.targets: list[str] = []
        self.heads: list[bytes] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """For the option ``proxy``, with credentials."""
        scheme = "https" if self.tls else self.kind
        login = ":".join(self.login) + "@" if self.login else ""
        return f"{scheme}://{login}127.0.0.1:{self.server_address[1]}"

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self.server_close()

    def __enter__(self) -> Self:
        return self


class _Handler(socketserver.BaseRequestHandler):
    server: ConnectProxy

    def handle(self) -> None:
        """One tunnel."""
        client: socket.socket = self.request
        with contextlib.suppress(OSError):  # either side has gone, or does not trust us
            if self.server.tls is not None:
                client = self.server.tls.wrap_socket(client, server_side=True)
            target = self._greet_socks(client) if self.server.kind == "socks5" else self._greet_http(client)
            if target is not None:
                with socket.create_connection(target, 60) as server:
                    self._pass_on(client, server)
        client.close()

    def _greet_http(self, client: socket.socket) -> tuple[str, int] | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.server.heads.append(head)
        address = head.split()[1].decode()
        self.server.targets.append(address)
        if self.server.login:
            expected = base64.b64encode(":".join(self.server.login).encode())
            if b"Proxy-Authorization: Basic " + expected not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return None
        client.sendall(self.server.answer or b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        host, _colon, port = address.rpartition(":")
        return None if self.server.answer else (host.strip("[]"), int(port))

    def _greet_socks(self, client: socket.socket) -> tuple[str, int] | None:
        methods = _receive(client, _receive(client, 2)[1])
        method = 2 if self.server.login else 0
        client.sendall(bytes([5, method if method in methods else 255]))
        if self.server.login:
            name = _receive(client, _receive(client, 2)[1]).decode()
            password = _receive(client, _receive(client, 1)[0]).decode()
            client.sendall(bytes([1, int((name, password) != self.server.login)]))
        kind = _receive(client, 4)[3]
        if kind == 3:
            host = _receive(client, _receive(client, 1)[0]).decode()
        else:
            family, length = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _receive(client, length))
        port = int.from_bytes(_receive(client, 2), "big")
        self.server.targets.append(f"{kind}:{host}:{port}")
        # The bound address is a name here, the rarest of the three forms.
        client.sendall(bytes([5, self.server.code, 0, 3, 4]) + b"here" + b"\0\1")
        return None if self.server.code else ("127.0.0.1" if host == "api.test" else host, port)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        thread = threading.Thread(target=_pump, args=(server, client, self.server.chunk), daemon=True)
        thread.start()
        _pump(client, server, self.server.chunk)
        thread.join(5)


def _pump(source: socket.socket, sink: socket.socket, chunk: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(chunk):
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data
