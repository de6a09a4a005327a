# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run over the units of a host at a time. Private to lowtide.ops: do not import from other collections.

When the controller is killed or loses the host, what it has started there may go on. A run that follows waits for its
end, as it ends by itself, instead of acting on the same units beside it. With the process, the kernel ends its lock.

The lock is a name in the kernel's abstract namespace of sockets: every account can take it, where a folder for locks
belongs to root on some distributions, and nothing is left on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.retry import Backoff, Deadline
from .._common.text import format_duration

NAME = "lowtide.ops-systemd"


@contextlib.contextmanager
def hold_host(deadline: Deadline, name: str = NAME) -> t.Iterator[None]:
    """Hold the lock of this host for the block; refuse when another run has it until the deadline."""
    backoff = Backoff(limit=1.0)
    with _open(name) as handle:
        while not _bind(handle, name):
            if deadline.passed:
                raise Refusal(
                    obj=f"lock @{name}",
                    problem=f"another run over the units of this host still holds it after "
                    f"{format_duration(deadline.seconds)}",
                    next_step=f"See which process it is: `sudo ss -xap src @{name}`; it ends by itself, or with kill",
                )
            deadline.pause(backoff.take_pause())
        yield


def _open(name: str) -> socket.socket:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise _explain(name, error) from error


def _bind(handle: socket.socket, name: str) -> bool:
    """Take the name; False where another process has it."""
    try:
        handle.bind(f"\0{name}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise _explain(name, error) from error
    return True


def _explain(name: str, error: OSError) -> OpsError:
    return OpsError(
        obj=f"lock @{name}",
        problem=f"it cannot be taken: {error.strerror or error}",
        next_step="Let the account of this run open local sockets (AF_UNIX) on the host",
    )
