# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identity of a process, whether it still lives, and what it left running (Linux, /proc).

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import getpass
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

PROC = Path("/proc")
ENVIRONMENT_MARK = "LOWTIDE_WINDOW_RUN"
"""Environment variable that every module process of a step carries: ``<site>#<fencing token>``."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks at a process whose end cannot be waited for."""

END_PATIENCE = 5.0
"""Seconds for a process to end when it is asked to, before it is killed."""

Liveness = Literal["alive", "dead", "unknown"]


def read_boot_id() -> str:
    """The kernel's random id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read_pid_namespace() -> str:
    """The pid namespace of this process (``pid:[4026531836]``): a pid means nothing outside of it."""
    return os.readlink(PROC / "self/ns/pid")


def read_user_name() -> str:
    """Return the name of the user, or its number: containers run as numbers without a passwd entry."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _read_start(pid: int) -> int | None:
    """Return when process ``pid`` started, in clock ticks since boot (/proc/PID/stat field 22); None for what is left
    of one that ended (a zombie does nothing any more). Raise OSError for one that /proc does not show."""
    stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    fields = stat.rpartition(")")[2].split()  # the command name may hold blanks and parentheses
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def start_ticks(pid: int) -> int | None:
    """When process ``pid`` started; None when /proc shows none with that number that is still at work."""
    try:
        return _read_start(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def check_process(pid: int, started: int) -> Liveness:
    """Return ``alive`` or ``dead`` where that is proved, ``unknown`` for a process that is hidden (/proc mounted with
    hidepid, ProtectProc of systemd): then the kernel still tells whether any process has that number."""
    try:
        return "alive" if _read_start(pid) == started else "dead"
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return "unknown" if _has_any_process(pid) else "dead"


def _has_any_process(pid: int) -> bool:
    """Return whether any process may have that number: only the kernel's own "no such process" says that none has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


@dataclass(frozen=True)
class Owner:
    """The controller process that holds a window. ``since`` is in seconds since the epoch."""

    host: str
    user: str
    pid: int
    started: int
    boot: str
    namespace: str
    since: float

    @classmethod
    def from_pid(cls, pid: int) -> Owner:
        """The process ``pid`` of this host, which must live."""
        started = start_ticks(pid)
        if started is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(
            socket.gethostname(), read_user_name(), pid, started, read_boot_id(), read_pid_namespace(), time.time()
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Owner:
        """Back from :meth:`as_dict`; keys of later versions are ignored."""
        return cls(**{key: values[key] for key in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def is_same_process(self, other: Owner) -> bool:
        """Whether both are one and the same process (a pid alone is reused)."""
        return (self.pid, self.started, self.boot, self.namespace) == (
            other.pid,
            other.started,
            other.boot,
            other.namespace,
        )

    def check_liveness(self) -> Liveness:
        """Return ``alive`` or ``dead`` where this process can prove it, ``unknown`` for another boot, host or pid
        namespace, and for a process that is hidden from this user."""
        if (self.boot, self.namespace) != (read_boot_id(), read_pid_namespace()):
            return "unknown"
        return check_process(self.pid, self.started)

    def describe(self) -> str:
        """``user@host, process 123, since 2026-11-21T01:00:00Z``."""
        return f"{self.user}@{self.host}, process {self.pid}, since {format_utc(self.since)}"


@dataclass(frozen=True)
class Orphan:
    """A process that a dead controller left behind, still at work."""

    pid: int
    command: str

    def describe(self) -> str:
        """``process 123 (python3 .../AnsiballZ_pg_maintenance.py)``."""
        return f"process {self.pid} ({self.command})"


def _list_pids() -> Iterator[int]:
    for entry in os.listdir(PROC):
        if entry.isdigit():
            yield int(entry)


def _has_mark(pid: int, mark: bytes) -> bool:
    return mark in (PROC / str(pid) / "environ").read_bytes().split(b"\0")


def _is_holding_pipe(pid: int, pipe: str) -> bool:
    folder = PROC / str(pid) / "fd"
    for descriptor in os.listdir(folder):
        try:
            if os.readlink(folder / descriptor) == pipe:
                return True
        except FileNotFoundError:  # closed between the listing and the look: it does not hold the pipe
            continue
    return False


def find_orphans(*, mark: str, pipe: str | None, ignore: frozenset[int] = frozenset()) -> list[Orphan]:
    """Processes of a dead run: module processes carry ``mark`` (value of :data:`ENVIRONMENT_MARK`) in their
    environment, forked workers still hold ``pipe`` (``pipe:[inode]``), the result queue of their controller.

    Only processes of users that this one may look at are seen; a remote host's are not.
    """
    found = []
    wanted = f"{ENVIRONMENT_MARK}={mark}".encode()
    for pid in _list_pids():
        if pid in ignore:
            continue
        try:
            if _has_mark(pid, wanted) or (pipe is not None and _is_holding_pipe(pid, pipe)):
                command = (
                    (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                )
                if start_ticks(pid) is not None:
                    found.append(Orphan(pid, command[:200]))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or another user's: not a child of this window
    return found


def wait_for_end(pid: int, seconds: float) -> bool:
    """Wait until process ``pid`` has ended, at most ``seconds``; whether it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (AttributeError, OSError):  # not in this build of Python, or barred by a seccomp filter
        return _look_for_end(pid, seconds)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))
    finally:
        os.close(descriptor)


def _look_for_end(pid: int, seconds: float) -> bool:
    """Do as :func:`wait_for_end` does, by looking at the process once a second."""
    started = start_ticks(pid)
    if started is None:
        return True
    deadline = time.monotonic() + seconds
    while check_process(pid, started) != "dead":
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        select.poll().poll(min(LOOK_INTERVAL, left) * 1000)
    return True


def end_process(pid: int, started: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to the process ``pid`` that started at ``started``, and return whether it ends."""
    if check_process(pid, started) != "alive":
        return True
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    return wait_for_end(pid, END_PATIENCE)


def end_run(pid: int, started: int, *, mark: str, pipe: str | None) -> list[Orphan]:
    """End a controller and what it runs on this machine; return what is left.

    The controller first: it would go on with the next task of a step whose module ended. On SIGTERM ansible-playbook
    (ansible-core 2.19 to 2.21) ends its workers with their process groups, and itself without a rescue.
    """
    left: list[Orphan] = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        end_process(pid, started, number)
        left = find_orphans(mark=mark, pipe=pipe, ignore=frozenset({os.getpid(), pid}))
        for orphan in left:
            ticks = start_ticks(orphan.pid)
            if ticks is not None:
                end_process(orphan.pid, ticks, number)
        left = find_orphans(mark=mark, pipe=pipe, ignore=frozenset({os.getpid()}))
        if not left:
            break
    return left


def tell_process(pid: int, words: str) -> None:
    """Write a line to the standard error of another process of this user. Raise OSError where that cannot be."""
    path = PROC / str(pid) / "fd/2"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"\n{words}\n".encode())
    finally:
        os.close(descriptor)
