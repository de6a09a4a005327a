# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detached processes that can be found again: by process id and start time, later by cgroup."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit import launch

TAIL_LINES = 15


def start_time(pid: int) -> int | None:
    """When ``pid`` was started, in clock ticks since boot; None when there is no such process or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def last_lines(log: Path, lines: int) -> list[str]:
    """At most ``lines`` lines from the end of ``log``, none when there is no such file."""
    if not log.exists():
        return []
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - 16384))
        return handle.read().decode(errors="replace").splitlines()[-lines:]


def last_line(log: Path) -> str:
    """The last line of ``log`` without white space around it."""
    return "".join(last_lines(log, 1)).strip()


def tail(log: Path) -> str:
    """The end of ``log``, indented for an error message."""
    return f"the end of {log}:\n" + "\n".join(f"    {line}" for line in last_lines(log, TAIL_LINES))


@dataclass(frozen=True)
class Process:
    """A recorded process: it is this one only while ``pid`` still has the start time ``started`` (clock ticks)."""

    name: str
    pid: int
    started: int
    log: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started

    def tail(self) -> str:
        """The end of its log."""
        return tail(Path(self.log))

    def rss_kib(self) -> int:
        """Its resident memory without its children, 0 when it is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)


def record(folder: Path, process: Process) -> None:
    """Write the record of ``process`` so that it is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{process.name}.json"
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(process)))
    partial.replace(target)


def read_record(folder: Path, name: str) -> Process | None:
    """The process recorded in ``folder`` as ``name``."""
    try:
        return Process(**json.loads((folder / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None


def recorded(folder: Path) -> list[Process]:
    """The processes recorded in ``folder``, first started first, dead ones included."""
    found = (read_record(folder, path.stem) for path in folder.glob("*.json"))
    return sorted((one for one in found if one is not None), key=lambda one: (one.started, one.pid))


def spawn(
    name: str,
    argv: list[str],
    *,
    records: Path,
    log: Path,
    env: dict[str, str],
    cgroups: list[Path],
    user: str,
    cwd: Path,
) -> Process:
    """Start ``argv`` in a session of its own, in ``cgroups``, as ``user``; output is appended to ``log``.

    The program runs only once its record is in ``records``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    launcher = ["/usr/bin/python3", "-IS", launch.__file__, user, *map(str, cgroups), "--", *argv]
    with log.open("ab") as output:
        child = subprocess.Popen(
            launcher,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    process = Process(name=name, pid=child.pid, started=start_time(child.pid) or 0, log=str(log))
    record(records, process)
    if child.stdin is not None:
        with child.stdin as channel:
            channel.write(launch.RECORDED)
    return process


def stop(process: Process, seconds: float, sent: signal.Signals = signal.SIGTERM) -> str:
    """End ``process``: SIGTERM (or what it takes as such), after ``seconds`` SIGKILL.

    Says how: ``was gone``, ``stopped`` or ``killed``.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return "was gone"
    try:
        if not process.alive():
            return "was gone"
        signal.pidfd_send_signal(handle, sent)
        if ended(handle, seconds):
            return "stopped"
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended(handle, seconds)
        return "killed"
    except ProcessLookupError:
        return "stopped"
    finally:
        os.close(handle)


def ended(pidfd: int, seconds: float) -> bool:
    """Wait until the process behind ``pidfd`` has ended, at most ``seconds``."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def kill(pids: set[int]) -> None:
    """Send SIGKILL to each of ``pids``; those that have ended meanwhile are fine."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def working_in(folder: Path) -> set[int]:
    """Every process whose working directory is ``folder``; zombies have none."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                is_inside = os.readlink(entry / "cwd") == str(folder)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if is_inside:
                found.add(int(entry.name))
    return found


def ancestors() -> set[int]:
    """This process and everything above it."""
    found = set()
    pid = os.getpid()
    while pid > 1:
        found.add(pid)
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    return found


def wait_gone(pids: set[int], seconds: float = 60.0) -> set[int]:
    """Wait until none of ``pids`` runs any more; those that still do after ``seconds``."""
    deadline = time.monotonic() + seconds
    left = {pid for pid in pids if start_time(pid) is not None}
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = {pid for pid in left if start_time(pid) is not None}
    return left
