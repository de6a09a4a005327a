# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a site's lease fresh while its controller lives: a process of its own.

Private to lowtide.ops: do not import from other collections. It reads what to do from its standard input, since that
holds credentials: the JSON that :meth:`.store.Store.start_renewer` writes.

It ends with the controller (at once by its pidfd, without that within a second) or when the lease passes to another
owner. It never takes or releases a lease.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    WORK = json.load(sys.stdin)
    sys.path[:0] = WORK["path"]

# What follows is found on the path of the process that started this one.
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import connect

if TYPE_CHECKING:
    from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store import Store

LOOK_INTERVAL = 1.0
"""Seconds between two looks at a controller whose end cannot be heard of."""


def _is_at_work(pid: int, started: int) -> bool:
    """Return whether ``pid`` is the process that started at ``started`` (clock ticks since boot), and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            fields = handle.read().rpartition(")")[2].split()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return fields[0] not in {"Z", "X"} and int(fields[19]) == started


class _Controller:
    """The controller's process, whose end is heard of at once (pidfd), or by looking at it once a second where
    pidfd_open is barred (by a seccomp filter) or missing (in this build of Python)."""

    def __init__(self, pid: int, started: int) -> None:
        self._pid = pid
        self._started = started
        self._poller = select.poll()
        self._can_hear = True
        try:
            self._poller.register(os.pidfd_open(pid), select.POLLIN)
        except (AttributeError, OSError):  # missing, barred, or the process has ended
            self._can_hear = False

    def is_at_work(self) -> bool:
        """Return whether it still lives."""
        return _is_at_work(self._pid, self._started)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for its end, at most ``seconds``; return whether it has ended."""
        if self._can_hear:
            return bool(self._poller.poll(seconds * 1000))
        deadline = time.monotonic() + seconds
        while self.is_at_work():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._poller.poll(min(LOOK_INTERVAL, left) * 1000)
        return True


def renew(store: Store, token: int, pid: int, started: int, *, interval: float, sign: str | None = None) -> str:
    """Renew every ``interval`` seconds and return why it ended."""
    controller = _Controller(pid, started)
    if not controller.is_at_work():
        return "controller ended"
    while True:
        try:
            store.renew(token)
            if sign is not None:
                os.utime(sign)
        except LeaseLost:
            return "lease passed on"
        except (OSError, OpsError) as error:  # the server does not answer now: that is no other owner
            sys.stderr.write(f"{store.location}: not renewed ({error})\n")
        if controller.wait_for_end(interval):
            return "controller ended"


def main(work: dict[str, Any]) -> None:
    """Renew what a controller has described."""
    if work["place"]["kind"] == "file":
        os.chdir("/")  # a directory that somebody unmounts; files of a connection may be named from it
    store = connect(work["place"])
    renew(store, work["token"], work["pid"], work["started"], interval=work["interval"], sign=work["sign"])


if __name__ == "__main__":
    main(WORK)
