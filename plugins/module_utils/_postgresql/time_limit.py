# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a wait for a server that does not answer. Private to lowtide.ops: do not import from other collections.

libpq waits without end for the answer to a statement: of a commit that waits for its synchronous standby (the server
heeds no timeout there), of a server process that is frozen, behind a network that swallows what is sent.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

from .._common.retry import Deadline
from .pooler import Neighbour

GRACE = 3.0
"""Seconds that are spent on ending the server's process of a session that was given up."""


class TimeLimit:
    """Ends the wait on a connection ``seconds`` from now: its socket is shut down, so that libpq returns.

    ``then`` is called after that, in the same thread of its own, with GRACE seconds of time.
    """

    def __init__(self, connection: t.Any, seconds: float, *, then: t.Callable[[], None]) -> None:
        # A descriptor of its own: the connection's may be another file by the time.
        self._socket = socket.socket(fileno=socket.dup(connection.fileno()))
        self._then = then
        self._lock = threading.Lock()
        self._has_passed = self._is_over = False
        self._timer = threading.Timer(max(0.0, seconds), self._pass)
        self._timer.daemon = True
        self._timer.start()

    def _pass(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._has_passed = True
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)
        self._then()

    def stop(self) -> bool:
        """Return whether the time had passed, whatever came as an answer; from now on it does not any more."""
        with self._lock:
            self._is_over = True
        self._timer.cancel()
        if self._has_passed:
            self._timer.join(GRACE)
        self._socket.close()
        return self._has_passed


def find_address(connection: t.Any) -> dict[str, str]:
    """Return libpq's keywords for the server that a connection has reached, by its address, so that no name is resolved."""
    host = connection.info.host
    with socket.socket(fileno=socket.dup(connection.fileno())) as reached:
        peer = reached.getpeername()
    return {"host": host} if isinstance(peer, (str, bytes)) else {"host": host, "hostaddr": str(peer[0])}


class _Lookup(threading.Thread):
    """Looks a name up beside the caller: nothing ends the wait for servers of names that keep silent."""

    def __init__(self, host: str) -> None:
        super().__init__(daemon=True)
        self.host = host
        self.addresses: list[str] = []
        self.problem = ""
        self.start()

    def run(self) -> None:
        """As libpq does: its bytes as they are."""
        try:
            found = socket.getaddrinfo(self.host.encode("utf-8", "surrogateescape"), None, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            self.problem = getattr(error, "strerror", None) or str(error)
        else:
            self.addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))


def find_places(hosts: t.Sequence[str], seconds: float) -> tuple[list[dict[str, str]], list[str]]:
    """Return libpq's keywords for each address of the hosts, in their order, and why others have none, as libpq says it.

    The name stays, for the certificate and the password file. What is no name is the folder of a socket, and has no
    address. The names together take ``seconds``, or one second where that is less.
    """
    deadline = Deadline(max(1.0, seconds))
    places: list[dict[str, str]] = []
    unresolved = []
    for lookup in [host if host.startswith(("/", "@")) else _Lookup(host) for host in hosts]:
        if isinstance(lookup, str):
            places.append({"host": lookup})
            continue
        lookup.join(deadline.remaining)
        if lookup.is_alive():
            lookup.problem = f"no answer within {deadline.seconds:.0f} s"
        if lookup.problem:
            unresolved.append(f'could not translate host name "{lookup.host}" to address: {lookup.problem}')
        else:
            places.extend({"host": lookup.host, "hostaddr": address} for address in lookup.addresses)
    return places, unresolved


# Not by the number alone: a pooler may have handed the process on to another client.
_END_SQL = """
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE pid = %(pid)s AND application_name = %(name)s
"""


def end_process(keywords: t.Mapping[str, t.Any], pid: int) -> None:
    """End a process of the server through another connection, so that it holds no lock any more; try it for GRACE seconds.

    ``keywords`` are those of its session, whose application_name no other one has. A commit that waits for a standby is
    done on this server then. The same role may do that.
    """
    neighbour = Neighbour(keywords, Deadline(GRACE))
    try:
        neighbour.read_value(_END_SQL, {"pid": pid, "name": keywords["application_name"]})
    finally:
        neighbour.close()
