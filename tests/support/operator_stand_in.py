# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stand-ins for operators have in common: they watch kinds of a namespace, and act on each change."""

from __future__ import annotations

import http.client
import socket
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from .kubernetes_server import ApiServer, build_path, read_events

Json = dict[str, Any]


class OperatorStandIn(ABC):
    """Entered, it acts by itself until it is left; without that, :meth:`reconcile` acts once."""

    def __init__(self, facts: Json, namespace: str, kinds: tuple[str, ...]) -> None:
        self.server = ApiServer(facts)
        self.namespace = namespace
        self._kinds = kinds
        self._failures: list[Exception] = []
        self._due = threading.Event()
        self._ended = False
        self._watches: list[http.client.HTTPSConnection] = []
        self._threads: list[threading.Thread] = []

    @abstractmethod
    def reconcile(self) -> None:
        """Bring what is there to what is declared."""

    def __enter__(self) -> Self:
        for kind in self._kinds:
            watch = self.server.open_watch(build_path(kind, self.namespace))
            self._watches.append(watch)
            self._threads.append(threading.Thread(target=self._follow, args=(watch,), daemon=True))
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
        assert self._failures == [] or value is not None, self._failures

    def _follow(self, watch: http.client.HTTPSConnection) -> None:
        try:
            for _event in read_events(watch):
                self._due.set()
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
