# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a wait for a server that does not answer. Private to lowtide.ops: do not import from other collections.

libpq waits without end for the answer to a statement: of a commit that waits for its synchronous standby (the server
heeds no timeout there), of a server process that is frozen, behind a network that swallows what is sent. And it does so
for the servers of names, before it asks any address.
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


SOON = 1.0
"""Seconds in which names are known as a rule; the addresses of those that take longer are asked after the others."""


class _Lookup(threading.Thread):
    """Looks a host up beside the caller: nothing ends the wait for servers of names that keep silent.

    ``places`` are libpq's keywords for each address. The name stays, for the certificate and the password file. What is no
    name is the folder of a socket, and has no address.
    """

    def __init__(self, host: str) -> None:
        super().__init__(daemon=True)
        self.host = host
        self.places: list[dict[str, str]] = []
        self.problem = ""
        self.start()

    def run(self) -> None:
        """As libpq does: its bytes as they are."""
        if self.host.startswith(("/", "@")):
            self.places = [{"host": self.host}]
            return
        try:
            found = socket.getaddrinfo(self.host.encode("utf-8", "surrogateescape"), None, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            self.problem = getattr(error, "strerror", None) or str(error)
        else:
            addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
            self.places = [{"host": self.host, "hostaddr": address} for address in addresses]

    def explain(self, problem: str) -> str:
        """Return why it has no address, as libpq says it."""
        return f'could not translate host name "{self.host}" to address: {problem}'


class Found(t.NamedTuple):
    """Hosts that are known now: their places in the hosts' order, why others have none, how many are not known yet."""

    places: list[dict[str, str]]
    unresolved: list[str]
    waiting: int


def find_places(hosts: t.Sequence[str], deadline: Deadline) -> t.Iterator[Found]:
    """Find libpq's keywords for each address of the hosts: first of those that are known soon, then of the others.

    The latter are waited for after the caller has done with the first, and for half of the time that is left then.
    """
    since = Deadline(SOON)
    lookups = [_Lookup(host) for host in hosts]
    for lookup in lookups:
        lookup.join(since.remaining)
    waiting = [lookup for lookup in lookups if lookup.is_alive()]
    known = [lookup for lookup in lookups if lookup not in waiting]
    yield Found(*_collect(known), waiting=len(waiting))
    if waiting:
        limit = Deadline(deadline.remaining / 2)
        for lookup in waiting:
            lookup.join(limit.remaining)
        silent = [lookup for lookup in waiting if lookup.is_alive()]
        places, unresolved = _collect([lookup for lookup in waiting if lookup not in silent])
        unresolved += [lookup.explain(f"no answer within {since.elapsed:.0f} s") for lookup in silent]
        yield Found(places, unresolved, waiting=0)


def _collect(lookups: t.Sequence[_Lookup]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the places of those that are over, and the problems."""
    places = [place for lookup in lookups for place in lookup.places]
    return places, [lookup.explain(lookup.problem) for lookup in lookups if lookup.problem]


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
