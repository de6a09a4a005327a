# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network namespace: loopback, one bridge with every address of the lab, and no way out."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabError

CLONE_NEWNET = 0x40000000
BRIDGE = "br0"
CONTROL = "10.77.0.1"
"""Control plane, Kafka, S3, Prometheus, PostgreSQL of each version, PgBouncer."""
SECOND_KUBELET = "10.77.0.2"
POSTGRESQL = ("10.77.0.11", "10.77.0.12", "10.77.0.13")
SERVICE_HOSTS = ("10.77.0.21", "10.77.0.22", "10.77.0.23")
"""Hosts with network namespaces of their own, on the bridge: these addresses are not local to the lab's."""
ADDRESSES = (CONTROL, SECOND_KUBELET, *POSTGRESQL)
PREFIX = 16
NETWORK = "10.77.0.0/16"

_libc = ctypes.CDLL(None, use_errno=True)


def enter(path: Path) -> None:
    """Move the calling thread (and what it forks later) into the network namespace at ``path``."""
    with path.open("rb") as handle:
        if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))


class Network:
    """The network namespace ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name
        self._depth = threading.local()

    def exists(self) -> bool:
        """Whether the name is there and stands for a network namespace (a file left by a crash does not)."""
        return self.path.exists() and os.path.ismount(self.path)

    def inode(self) -> int:
        """The namespace's inode, which /proc/PID/ns/net shows for a process in it."""
        return self.path.stat().st_ino

    def pids(self) -> set[int]:
        """Every process that is in this namespace."""
        if not self.exists():
            return set()
        here = f"net:[{self.inode()}]"
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    inside = os.readlink(entry / "ns/net") == here
                except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                    continue
                except PermissionError:  # it has capabilities that we lack, so we cannot have started it
                    continue
                if inside:
                    found.add(int(entry.name))
        return found

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread inside the namespace for the duration of the block."""
        depth = getattr(self._depth, "value", 0)
        if depth:
            yield
            return
        home = Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")
        with home.open("rb") as before:
            enter(self.path)
            self._depth.value = 1
            try:
                yield
            finally:
                self._depth.value = 0
                enter(Path(f"/proc/self/fd/{before.fileno()}"))

    def create(self) -> bool:
        """Make the namespace and all in it that is missing; whether the namespace itself had to be made."""
        fresh = not self.exists()
        if fresh:
            self.path.unlink(missing_ok=True)
            _ip("netns", "add", self.name)
        with self.entered():
            _ip("link", "set", "lo", "up")
            if not Path(f"/sys/class/net/{BRIDGE}").exists() and BRIDGE not in _ip("-o", "link", "show"):
                _ip("link", "add", BRIDGE, "type", "bridge")
            _ip("link", "set", BRIDGE, "up")
            for address in ADDRESSES:
                _ip("addr", "replace", f"{address}/{PREFIX}", "dev", BRIDGE)
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
            self.check_local()
        return fresh

    def check_local(self) -> None:
        """Refuse to go on unless every address of the lab belongs to this namespace and nothing leads out of it."""
        for address in ADDRESSES:
            route = _ip("-o", "route", "get", address)
            if not route.startswith(f"local {address}"):
                raise LabError(
                    obj=f"address {address}",
                    problem=f"it is not local to the network namespace {self.name}: {route.strip()}",
                    next_step="Take the lab down and up again",
                )
        default = _ip("route", "show", "default").strip()
        if default:
            raise LabError(
                obj=f"network namespace {self.name}",
                problem=f"it has a way out: {default}",
                next_step="Take the lab down and up again",
            )

    def remove(self) -> None:
        """Remove the namespace's name; the kernel frees it with its bridges once no process is inside."""
        if self.exists():
            _ip("netns", "del", self.name)
        self.path.unlink(missing_ok=True)


def _ip(*arguments: str) -> str:
    """Run ``ip`` in the calling thread's namespace and return what it prints."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(
            obj=f"ip {' '.join(arguments)}",
            problem=f"exit {done.returncode}: {done.stderr.strip()}",
            next_step="Check that this machine allows network namespaces and bridges (CAP_NET_ADMIN)",
        )
    return done.stdout
