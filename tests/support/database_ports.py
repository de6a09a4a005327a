# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports for database servers that tests start, and stop and start again, while other tests do so beside them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

FIRST, EACH = 20000, 1000
"""Below the ports that the system hands out by itself, to connections and to whoever asks for any: between the look and
the start of the server, and as long as it is stopped, nobody else gets one of these. Each worker has its own."""


def _list_ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        yield from range(FIRST + worker * EACH, FIRST + (worker + 1) * EACH)


_ports = _list_ports()


def find_port(address: str = "127.0.0.1") -> int:
    """Return a port of this host that nobody listens at, and another one each time."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports have no end")
