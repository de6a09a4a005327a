# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run over the units of a host at a time. Private to lowtide.ops: do not import from other collections.

When the controller is killed or loses the host, what it has started there may go on. A run that follows waits for its
end, as it ends by itself, instead of acting on the same units beside it. With the process, the kernel ends its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from .._common.errors import Refusal
from .._common.retry import Backoff, Deadline
from .._common.text import format_duration

PLACE = "/run/lock/lowtide.ops-systemd"


@contextlib.contextmanager
def hold_host(deadline: Deadline, place: str = PLACE) -> t.Iterator[None]:
    """Hold the lock of this host for the block; refuse when another run has it until the deadline."""
    handle = _open(place)
    try:
        backoff = Backoff(limit=1.0)
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if deadline.passed:
                    raise Refusal(
                        obj=f"lock {place}",
                        problem=f"another run over the units of this host still holds it after "
                        f"{format_duration(deadline.seconds)}",
                        next_step=f"See which process it is: `fuser {place}`; it ends by itself, or with kill",
                    ) from error
                deadline.pause(backoff.take_pause())
        yield
    finally:
        os.close(handle)


def _open(place: str) -> int:
    """Open the file of the lock, which may be another account's; a link there is not followed."""
    with contextlib.suppress(FileNotFoundError):
        return os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    # Where another run makes it at the same moment, opening it once more finds it.
    with contextlib.suppress(FileExistsError):
        return os.open(place, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    return os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
