# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fault injector: a TCP proxy before a MariaDB server. It counts the commands of all clients, and acts before one."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Self

READING = re.compile(
    r"\s*(/\*[!M]*\d* *)?"
    r"(SELECT (?!GET_LOCK)|SHOW|SET|USE|EXPLAIN|START TRANSACTION|ROLLBACK|RELEASE|SAVEPOINT|COMMIT)",
    re.IGNORECASE,
)
"""A server is after such a command as it was before."""


class CommandProxy:
    """Passes commands on to a server; before the ``stop_at``-th it calls ``act``, and passes nothing from then on.

    So it does before the first one that has the text ``stop_before`` in it. With ``goes_on`` it passes all of them.
    """

    def __init__(
        self,
        host: str,
        target_port: int,
        *,
        stop_at: int = 0,
        stop_before: bytes = b"",
        act: Callable[[], None] | None = None,
        goes_on: bool = False,
    ) -> None:
        self._target = (host, target_port)
        self._stop_at = stop_at
        self._stop_before = stop_before
        self._goes_on = goes_on
        self._is_stopped = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.act = act
        self.commands = 0
        self.texts: list[str] = []
        """How each of them begins."""
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for end in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed: the end
            while True:
                client, _address = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, sink, counts in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=(source, sink, counts), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                # A command begins with its length, number 0 and kind; 3 is COM_QUERY. Rows of a load are one each, too.
                if counts and chunk[3:5] == b"\x00\x03" and not self._may_pass(chunk):
                    return
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)

    def list_writes(self) -> list[int]:
        """The numbers of the commands that change something which another session sees, or lock it."""
        return [number for number, text in enumerate(self.texts, 1) if not READING.match(text)]

    def _may_pass(self, command: bytes) -> bool:
        with self._lock:
            self.commands += 1
            self.texts.append(command[5:105].decode("utf-8", "replace"))
            is_meant = bool(self._stop_at) and self.commands >= self._stop_at
            is_meant = is_meant or (bool(self._stop_before) and self._stop_before in command)
            self._is_stopped = self._is_stopped or is_meant
            if not self._is_stopped:
                return True
            act, self.act = self.act, None
        if act is not None:
            act()
        return self._goes_on
