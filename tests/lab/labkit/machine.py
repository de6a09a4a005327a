# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine must offer to run the lab, looked at before anything is done."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from labkit import cgroup
from labkit.errors import LabError
from labkit.lab import Lab

COLD_BYTES = 12 * 1024**3
"""Cache, Go build and module caches, packages and one lab's state, from nothing (measured; see docs/lab.md)."""
WARM_BYTES = 2 * 1024**3
MEMORY_BYTES = 6 * 1024**3


def os_release(text: str) -> dict[str, str]:
    """The fields of /etc/os-release."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, _sep, value in pairs}


def kernel_has(filesystem: str) -> bool:
    """Whether the kernel knows a filesystem, loading its module when it is one."""
    known = Path("/proc/filesystems")
    if filesystem in known.read_text().split():
        return True
    modules = Path("/lib/modules") / platform.release() / "kernel/fs"
    return any(modules.glob(f"{filesystem}*/{filesystem}*.ko*"))


def missing(lab: Lab) -> list[str]:
    """What this machine lacks, each with how to get it."""
    found = []
    if os.geteuid() != 0:
        found.append("it does not run as root: namespaces, mounts and cgroups need it (sudo make ...)")
    release = Path("/etc/os-release")
    fields = os_release(release.read_text()) if release.exists() else {}
    if fields.get("ID") != "debian" or int(fields.get("VERSION_ID", "0").split(".")[0]) < 12:
        seen = fields.get("PRETTY_NAME", "unknown")
        found.append(f"the system is {seen}, not Debian 12 or later: packages come from Debian's archive (use such a machine)")
    if platform.machine() != "x86_64":
        found.append(f"the architecture is {platform.machine()}: the lab is built and tested on x86_64 only")
    found += _missing_kernel()
    found += _missing_space(lab)
    return found


def _missing_kernel() -> list[str]:
    found = []
    if not Path("/proc/self/ns/net").exists():
        found.append("the kernel has no network namespaces (CONFIG_NET_NS)")
    if not kernel_has("overlay"):
        found.append("the kernel has no overlay filesystem (CONFIG_OVERLAY_FS; modprobe overlay)")
    if not cgroup.hierarchies(cgroup.MOUNTS.read_text()):
        found.append("no cgroup hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < MEMORY_BYTES:
        found.append(f"it has {memory / 1024**3:.1f} GiB of memory; the whole lab takes {MEMORY_BYTES / 1024**3:.0f} GiB")
    return found


def _missing_space(lab: Lab) -> list[str]:
    place = next(path for path in (lab.cache, *lab.cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    needed = WARM_BYTES if (lab.cache / "venv").exists() else COLD_BYTES
    if free >= needed:
        return []
    return [
        f"{place} has {free / 1024**3:.1f} GiB free, {needed / 1024**3:.0f} GiB are needed "
        "(free some, or set LOWTIDE_CACHE to a directory on a larger disk)"
    ]


def check(lab: Lab) -> None:
    """Refuse at once, and name everything that is missing."""
    found = missing(lab)
    if found:
        raise LabError(
            obj="this machine",
            problem="it cannot run the lab:\n" + "\n".join(f"  - {one}" for one in found) + "\nNothing has been changed",
            next_step="The inventories also work against servers of your own: see README.md",
        )
