# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a site's lease fresh while its controller lives: a small process of its own, standard library only.

Private to lowtide.ops: do not import from other collections. Usage: renewer.py LEASE TOKEN PID STARTED INTERVAL

It ends with the controller (pidfd, so at once) or when the lease passes to another owner. It never takes or releases a
lease: it only moves the file's time stamp, which the file's server sets.
"""

from __future__ import annotations

import json
import os
import select
import sys


def _is_held(path: str, token: int) -> bool:
    """Return whether the lease at ``path`` is still held under ``token``."""
    try:
        with open(path, encoding="utf-8") as handle:
            lease = json.load(handle)
    except FileNotFoundError:
        return False
    return bool(lease["token"] == token and not lease["released"])


def _read_start(pid: int) -> int:
    """Return the start time of ``pid`` in clock ticks since boot."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
        return int(handle.read().rpartition(")")[2].split()[19])


def renew(path: str, token: int, pid: int, started: int, *, interval: float) -> str:
    """Renew every ``interval`` seconds and return why it ended."""
    try:
        controller = os.pidfd_open(pid)
        if _read_start(pid) != started:
            return "controller ended"
    except (ProcessLookupError, FileNotFoundError):
        return "controller ended"
    poller = select.poll()
    poller.register(controller, select.POLLIN)
    while True:
        try:
            if not _is_held(path, token):
                return "lease passed on"
            os.utime(path)
        except OSError as error:  # the file server does not answer now: that is no other owner
            sys.stderr.write(f"{path}: not renewed ({error})\n")
        if poller.poll(interval * 1000):
            return "controller ended"


def main(arguments: list[str]) -> None:
    """Detach from the directory of the caller, then renew."""
    path, token, pid, started, interval = arguments
    os.chdir("/")
    renew(path, int(token), int(pid), int(started), interval=float(interval))


if __name__ == "__main__":
    main(sys.argv[1:])
