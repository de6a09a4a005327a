# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cgroup in every hierarchy of the machine (v1, v2 or both), so that no process of a lab can get lost."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from labkit.errors import LabError

MOUNTS = Path("/proc/self/mounts")


def hierarchies(mounts: str) -> list[Path]:
    """Mount points of all cgroup hierarchies, from the text of /proc/self/mounts."""
    found = []
    for line in mounts.splitlines():
        _device, point, kind, *_rest = line.split()
        if kind in {"cgroup", "cgroup2"}:
            found.append(Path(point))
    return found


class Cgroup:
    """The cgroup ``name`` (a path relative to each hierarchy's root, such as ``lowtide-main``)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def roots(self) -> list[Path]:
        """This cgroup's directory in each hierarchy, whether or not it exists."""
        return [mount / self.name for mount in hierarchies(MOUNTS.read_text())]

    def create(self, child: str = "services") -> list[Path]:
        """Make ``child`` below this cgroup in each hierarchy; the directories whose cgroup.procs takes a process."""
        created = []
        for root in self.roots():
            path = root / child if child else root
            for step in reversed([path, *path.parents]):
                if step.is_relative_to(root) and not step.is_dir():
                    step.mkdir()
                    self._inherit_cpuset(step)
            created.append(path)
        if not created:
            raise LabError(
                obj="cgroups",
                problem="no cgroup hierarchy is mounted on this machine",
                next_step="Mount one: mount -t cgroup2 none /sys/fs/cgroup",
            )
        return created

    @staticmethod
    def _inherit_cpuset(path: Path) -> None:
        """A new v1 cpuset is empty and takes no process: give it its parent's CPUs and memory nodes."""
        for name in ("cpuset.cpus", "cpuset.mems"):
            target = path / name
            if target.exists() and not (path / "cgroup.controllers").exists() and not target.read_text().strip():
                target.write_text((path.parent / name).read_text())

    def pids(self) -> set[int]:
        """Every process in this cgroup or below it, in any hierarchy."""
        found: set[int] = set()
        for root in self.roots():
            for folder, _folders, _files in os.walk(root):
                try:
                    text = (Path(folder) / "cgroup.procs").read_text()
                except FileNotFoundError:  # a container's cgroup went away during the walk
                    continue
                except OSError as error:
                    if error.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:  # gone, or threaded (v2)
                        raise
                    continue
                found.update(int(line) for line in text.split() if line != "0")
        return found

    def remove(self, seconds: float = 60.0) -> None:
        """Remove this cgroup and all below it in each hierarchy; they must hold no process."""
        deadline = time.monotonic() + seconds
        while True:
            left = self._remove_once()
            if not left:
                return
            if time.monotonic() > deadline:
                raise LabError(
                    obj=f"cgroup {left[0]}",
                    problem=f"it cannot be removed; processes in it: {sorted(self.pids()) or 'none'}",
                    next_step="End these processes and take the lab down again",
                )
            time.sleep(0.05)

    def _remove_once(self) -> list[Path]:
        left = []
        for root in self.roots():
            for folder, _folders, _files in os.walk(root, topdown=False):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    left.append(Path(folder))
        return left
