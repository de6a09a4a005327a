# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speak on a session that waits, so that no proxy takes it for idle. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import threading
import typing as t

PERIOD = 10.0
"""Seconds between two questions. TCP keepalives are none for a proxy, which counts bytes; a minute is a common limit."""


class Pings:
    """A context manager that calls ``ping`` every ``period`` seconds, in a thread, as long as it returns true.

    That it does not is found out by whoever uses the session next.
    """

    def __init__(self, ping: t.Callable[[], bool], *, period: float = PERIOD) -> None:
        self._ping = ping
        self._period = period
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        # A server that does not answer would hold it for ever; the thread ends with the session, or this process.
        self._thread.join(self._period)

    def _run(self) -> None:
        while not self._over.wait(self._period) and self._ping():
            pass
