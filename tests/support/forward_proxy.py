# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Be the HTTP proxy that a site has between its controllers and everything else: CONNECT, and a record of targets."""

from __future__ import annotations

import base64
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CHUNK = 65536


class ForwardProxy:
    """Listens on loopback and joins each CONNECT to its target; it asks for ``credentials``, user:password."""

    def __init__(self, *, credentials: str = "") -> None:
        self.targets: list[str] = []
        """``host:port`` of every tunnel, in order."""
        self.expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Return ``host:port``."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """For ``HTTPS_PROXY`` and the like."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the proxy keeps the targets."""

    def do_CONNECT(self) -> None:
        """Join the client to the target until either of them ends."""
        proxy: ForwardProxy = self.server.proxy  # type: ignore[attr-defined]
        self.close_connection = True
        if proxy.expected and self.headers.get("Proxy-Authorization") != proxy.expected:
            self.send_error(407)
            return
        proxy.targets.append(self.path)
        host, _colon, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=copy_bytes, args=(upstream, self.connection), daemon=True)
            back.start()
            copy_bytes(self.connection, upstream)
            back.join()


def copy_bytes(source: socket.socket, target: socket.socket) -> None:
    """Copy what one socket receives to the other, and then its end."""
    try:
        while part := source.recv(CHUNK):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()  # one side was reset, so nothing more will come from either
        target.close()
