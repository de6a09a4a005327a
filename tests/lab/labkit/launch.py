# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Become a lab process: join its cgroups, drop to its user, run its program. Used by ``process.spawn`` only.

A program of its own, because joining must come before the first fork of the daemon and after the fork of its
parent, which has threads and so may not run Python between fork and exec.
"""

from __future__ import annotations

import os
import pwd
import sys

RECORDED = b"1"
"""What the parent writes once the process is on record: nothing runs that `up` and `down` do not know."""


def main(arguments: list[str]) -> None:
    """``USER CGROUP... -- PROGRAM ARGUMENT...``; an empty USER stays root."""
    split = arguments.index("--")
    user, *cgroups = arguments[:split]
    command = arguments[split + 1 :]
    if sys.stdin.buffer.read(1) != RECORDED:
        raise SystemExit(f"{command[0]}: not started, since the lab command ended before it had recorded this process")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for cgroup in cgroups:
        with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as handle:
            handle.write(str(os.getpid()))
    if user:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
