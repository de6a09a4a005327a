# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Be the HTTP proxy that a site has between its controllers and everything else: CONNECT, and a record of targets."""

from __future__ import annotations

import base64
import socket
import threading

from .http_proxy import Exchange, HttpProxy

CHUNK = 65536


class ForwardProxy(HttpProxy):
    """Joins each CONNECT to its target; it asks for ``credentials``, user:password.

    ``targets`` has ``host:port`` of every tunnel, in order.
    """

    def __init__(self, *, credentials: str = "") -> None:
        self.targets: list[str] = []
        self._expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        super().__init__()

    def respond(self, exchange: Exchange) -> None:
        """Join the client to the target until either of them ends."""
        exchange.close_connection = True
        if exchange.command != "CONNECT":
            exchange.send_error(501)
            return
        if self._expected and exchange.headers.get("Proxy-Authorization") != self._expected:
            exchange.send_error(407)
            return
        self.targets.append(exchange.path)
        host, _colon, port = exchange.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as upstream:
            exchange.send_response(200)
            exchange.end_headers()
            back = threading.Thread(target=_copy_bytes, args=(upstream, exchange.connection), daemon=True)
            back.start()
            _copy_bytes(exchange.connection, upstream)
            back.join()


def _copy_bytes(source: socket.socket, target: socket.socket) -> None:
    """Copy what one socket receives to the other, and then its end."""
    try:
        while part := source.recv(CHUNK):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()  # one side was reset, so nothing more will come from either
        target.close()
