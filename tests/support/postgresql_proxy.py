# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A proxy that reads PostgreSQL's framing, so that a test can act just before any statement reaches the server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from support.tcp_proxy import TcpProxy

QUERY = b"Q"


class Statement(NamedTuple):
    """A simple query: the how-manieth of all connections it is, from 1 on, and its text."""

    number: int
    text: str


class StatementProxy(TcpProxy):
    """Tells ``before`` of each statement before it is passed on; where that returns False, it cuts the connection.

    Clients have to connect without TLS.
    """

    def __init__(self, host: str, target_port: int, before: Callable[[Statement], bool]) -> None:
        self.before = before
        self.statements: list[Statement] = []
        super().__init__(host, target_port)

    def from_client(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on message by message. The first one has no type."""
        reader = client.makefile("rb")
        length = reader.read(4)
        server.sendall(length + reader.read(struct.unpack("!I", length)[0] - 4))
        while head := reader.read(5):
            (size,) = struct.unpack("!I", head[1:])
            body = reader.read(size - 4)
            if head[:1] == QUERY:
                statement = Statement(len(self.statements) + 1, body.rstrip(b"\0").decode("utf-8", "replace"))
                self.statements.append(statement)
                if not self.before(statement):
                    return
            server.sendall(head + body)
