# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a window's lease fresh while its controller lives: a small process of its own, standard library only.

Private to lowtide.ops: do not import from other collections. Usage: renewer.py LEASE TOKEN PID STARTED INTERVAL SECONDS

It ends with the controller (pidfd, so at once), when the lease passes to another owner, or at the window's end. It never
takes or releases a lease: it only moves the file's time stamp, which the file's server sets.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time


def _is(path: str, token: int) -> bool:
    """Whether the lease at ``path`` is still held under ``token``."""
    try:
        with open(path, encoding="utf-8") as handle:
            lease = json.load(handle)
    except FileNotFoundError:
        return False
    return bool(lease["token"] == token and not lease["released"])


def _started(pid: int) -> int:
    """Start time of ``pid`` in clock ticks since boot."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
        return int(handle.read().rpartition(")")[2].split()[19])


def renew(path: str, token: int, pid: int, started: int, *, interval: float, seconds: float) -> str:
    """Renew every ``interval`` seconds for at most ``seconds``; returns why it ended."""
    end = time.monotonic() + seconds
    try:
        controller = os.pidfd_open(pid)
        if _started(pid) != started:
            return "controller ended"
    except (ProcessLookupError, FileNotFoundError):
        return "controller ended"
    poller = select.poll()
    poller.register(controller, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if not _is(path, token):
            return "lease passed on"
        os.utime(path)
        if poller.poll(min(interval, left) * 1000):
            return "controller ended"
    return "window ended"


def main(arguments: list[str]) -> None:
    """Detach from the folder and the terminal of the caller, then renew."""
    path, token, pid, started, interval, seconds = arguments
    os.chdir("/")
    renew(path, int(token), int(pid), int(started), interval=float(interval), seconds=float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
