# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file system of a service host: Debian 12 with systemd, SSH and Python, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from labkit import packages
from labkit.errors import LabError
from labkit.lab import Lab

RELEASE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "polkitd", "openssh-server", "python3", "iproute2")
ACCOUNT = "lowtide"
"""Who runs the procedures. It may read the journal; what else it may is a host's own configuration."""
VERSION = 1
"""Counted up when a change of this file makes another image of the same packages."""


def image_path(cache: Path) -> Path:
    """The finished image: its name changes with what it is made of."""
    digest = hashlib.sha256(f"{VERSION} {RELEASE} {PACKAGES} {ACCOUNT}".encode()).hexdigest()
    return cache / f"service-host-{digest[:12]}"


def build(lab: Lab) -> Path:
    """Make the image unless it is complete, and return it; the remains of a build that was killed are removed."""
    image = image_path(lab.cache)
    if not image.is_dir():
        packages.apt(lab, "debootstrap")
        with lab.locked("service-host"):
            if not image.is_dir():
                partial = image.with_name(f".{image.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                _debootstrap(lab, partial)
                _configure(lab, partial)
                partial.rename(image)
        packages.remove_superseded(lab, "service-host-*", image)
    return image


def _debootstrap(lab: Lab, target: Path) -> None:
    """Install the packages. debootstrap's mounts and processes end with it, also when it is killed."""
    enter = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--"]
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    argv: list[str | Path] = [*enter, "debootstrap", *options, RELEASE, target, _mirror(lab)]
    lab.build("service hosts: debootstrap", argv, env={"DEBIAN_FRONTEND": "noninteractive"})


def _mirror(lab: Lab) -> str:
    """The mirror that this machine's own apt takes Debian 12 from."""
    asked = ["Identifier: Packages", f"Codename: {RELEASE}", "Component: main"]
    listed = lab.run_outside(["apt-get", "indextargets", "--format", "$(REPO_URI)", *asked]).stdout.split()
    if not listed:
        raise LabError(
            obj="apt's sources of this machine",
            problem=f"none has the component main of {RELEASE}, which the service hosts are made of",
            next_step=f"Add a Debian mirror with {RELEASE} to /etc/apt/sources.list.d and run `apt-get update`",
        )
    return listed[0]


def _configure(lab: Lab, root: Path) -> None:
    """Write what all hosts have in common: the account, and no host key."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    inside: list[str | Path] = ["chroot", root]
    lab.run_outside([*inside, "useradd", "--create-home", "--shell", "/bin/bash", ACCOUNT])
    lab.run_outside([*inside, "usermod", "--append", "--groups", "systemd-journal", ACCOUNT])
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
