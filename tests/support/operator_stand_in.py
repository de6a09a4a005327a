# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stand in for an operator in one namespace: watch objects, and act when one of them has changed."""

from __future__ import annotations

import http.client
import socket
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, ClassVar, Self

from .kubernetes_server import ApiServer, build_path, read_events

Json = dict[str, Any]


class OperatorStandIn(ABC):
    """Acts for the kinds that are ``watched``.

    Entered, it watches and acts by itself, as an operator does. Without that, :meth:`reconcile` acts once, so that a
    test decides when: before a request is passed on, for an operator that is faster than the second write of a stop.
    """

    watched: ClassVar[tuple[str, ...]]

    def __init__(self, facts: Json, namespace: str) -> None:
        self.server = ApiServer(facts)
        self.namespace = namespace
        self._failures: list[Exception] = []
        self._due = threading.Event()
        self._ended = False
        self._watches: list[http.client.HTTPSConnection] = []
        self._threads: list[threading.Thread] = []
        self.at_rest = threading.Lock()
        """Held while it acts: what it has done can be seen in the server before it has taken note of it."""

    @abstractmethod
    def reconcile_each(self) -> None:
        """Bring every object to what it should be."""

    def reconcile(self) -> None:
        """Act once."""
        with self.at_rest:
            self.reconcile_each()

    def wake(self) -> None:
        """Act soon."""
        self._due.set()

    def __enter__(self) -> Self:
        for number, kind in enumerate(self.watched):
            self._watches.append(self.server.open_watch(build_path(kind, self.namespace)))
            self._threads.append(threading.Thread(target=self._follow, args=(number, kind), daemon=True))
        self._threads.append(threading.Thread(target=self._operate, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._due.set()
        for watch in self._watches:
            if watch.sock is not None:
                watch.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        if value is not None and self._failures:
            value.add_note(f"The stand-in has ended: {self._failures}")
        assert self._failures == [] or value is not None, self._failures

    def _follow(self, number: int, kind: str) -> None:
        """Follow a watch; the server ends those of a kind whose definition is changed, and it is begun again."""
        try:
            while not self._ended:
                for _event in read_events(self._watches[number]):
                    self._due.set()
                if not self._ended:
                    self._watches[number] = self.server.open_watch(build_path(kind, self.namespace))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._ended:
                self._failures.append(error)

    def _operate(self) -> None:
        while not self._ended:
            self._due.wait()
            self._due.clear()
            try:
                if not self._ended:
                    self.reconcile()
            except (AssertionError, OSError, http.client.HTTPException) as error:
                self._failures.append(error)
                return
