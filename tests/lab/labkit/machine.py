# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine must offer to run the lab, looked at before anything is done."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from labkit import cgroup
from labkit.errors import LabError
from labkit.lab import Lab

GIB = 1024**3
COLD_BYTES = 12 * GIB
"""From nothing: packages, Go build and module caches, Python environment, images, one lab's state."""
WARM_BYTES = 4 * GIB
"""One more lab's state on a filled cache; three database servers keep their logs in it."""
MEMORY_BYTES = 6 * GIB
DEBIAN = "12"


@dataclass(frozen=True)
class Machine:
    """What was found; sizes in bytes. ``space_at`` is the directory whose filesystem takes the cache."""

    root: bool
    system: dict[str, str]
    architecture: str
    memory: int
    free: int
    needed: int
    space_at: Path
    overlay: bool
    cgroups: bool
    namespaces: str
    """Why a network or mount namespace cannot be made; empty when both can."""


def os_release(text: str) -> dict[str, str]:
    """The fields of /etc/os-release."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, _sep, value in pairs}


def kernel_has(filesystem: str) -> bool:
    """Whether the kernel knows a filesystem, or has a module for it."""
    if filesystem in Path("/proc/filesystems").read_text().split():
        return True
    modules = Path("/lib/modules") / platform.release() / "kernel/fs"
    return any(modules.glob(f"{filesystem}*/{filesystem}*.ko*"))


def look(lab: Lab) -> Machine:
    """Look at this machine; changes nothing."""
    release = Path("/etc/os-release")
    place = next(path for path in (lab.cache, *lab.cache.parents) if path.exists())
    unshare = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "unchanged", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return Machine(
        root=os.geteuid() == 0,
        system=os_release(release.read_text()) if release.exists() else {},
        architecture=platform.machine(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        free=shutil.disk_usage(place).free,
        needed=WARM_BYTES if (lab.cache / "venv").exists() else COLD_BYTES,
        space_at=place,
        overlay=kernel_has("overlay"),
        cgroups=bool(cgroup.hierarchies(cgroup.MOUNTS.read_text())),
        namespaces=unshare.stderr.strip() if unshare.returncode else "",
    )


def missing(machine: Machine) -> list[str]:
    """What ``machine`` lacks, each with how to get it."""
    found = []
    if not machine.root:
        found.append("you are not root, which namespaces, mounts and cgroups need (run it with sudo)")
    if (machine.system.get("ID"), machine.system.get("VERSION_ID")) != ("debian", DEBIAN):
        seen = machine.system.get("PRETTY_NAME", "unknown")
        found.append(f"the system is {seen}; the lab is made of Debian {DEBIAN}'s packages (use such a machine)")
    if machine.architecture != "x86_64":
        found.append(f"the architecture is {machine.architecture}; the lab is known to work on x86_64 only")
    if machine.memory < MEMORY_BYTES:
        found.append(f"it has {machine.memory / GIB:.1f} GiB of memory; {MEMORY_BYTES / GIB:.0f} GiB are needed")
    if machine.free < machine.needed:
        found.append(
            f"{machine.space_at} has {machine.free / GIB:.1f} GiB free; {machine.needed / GIB:.0f} GiB are needed "
            "(free some, or set LOWTIDE_CACHE to a directory on a larger disk)"
        )
    if not machine.overlay:
        found.append("the kernel has no overlay filesystem (modprobe overlay, or a kernel with CONFIG_OVERLAY_FS)")
    if not machine.cgroups:
        found.append("no cgroup hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)")
    if machine.root and machine.namespaces:
        found.append(f"namespaces cannot be made: {machine.namespaces} (in a container: give it CAP_SYS_ADMIN)")
    return found


def check(lab: Lab) -> None:
    """Refuse at once, before anything is changed, and name everything that is missing."""
    found = missing(look(lab))
    if found:
        raise LabError(
            obj="this machine",
            problem="it cannot run the lab, and nothing has been changed:\n" + "\n".join(f"  - {one}" for one in found),
            next_step="The inventories also work against servers of your own: see README.md",
        )
