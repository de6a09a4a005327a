# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the versions of ansible-core that the window is tested with, and says where their ansible-playbook is.

ansible-core 2.20 and 2.21 need Python 3.12, and Debian 12 has 3.11. They run on Debian 13's Python 3.13, unpacked into
the cache with the libraries that it needs. Its program header is set to use Debian 13's loader and libraries from
there, so it is an ordinary program: no chroot, no wrapper, the machine's own paths and processes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from labkit import packages
from labkit.errors import LabError
from labkit.lab import CHECKOUT, Lab

IN_TEST_ENVIRONMENT = "2.19"
VERSIONS = (IN_TEST_ENVIRONMENT, "2.20", "2.21")
LOCKS = "tests/lab/build/ansible-core"
PYTHON_PACKAGES = (
    "python3.13-minimal",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "libc6",
    "libbz2-1.0",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libsqlite3-0",
    "libssl3t64",
    "libuuid1",
    "libzstd1",
    "zlib1g",
)
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def find_ansible_playbook(version: str) -> Path:
    """Return the ansible-playbook program of ansible-core ``version``, one of VERSIONS.

    The process that executes it is ansible-playbook itself. 2.19 is that of the running Python's environment.
    """
    if version == IN_TEST_ENVIRONMENT:
        environment = Path(sys.executable).parents[1]
    else:
        environment = environment_path(packages.cache(), version)
    program = environment / "bin/ansible-playbook"
    if not program.exists():
        raise LabError(obj=f"ansible-core {version}", problem=f"{program} does not exist", next_step="Run `make tools`")
    return program


def environment_path(cache: Path, version: str) -> Path:
    """The virtual environment of a version: its name changes with the lock and with the Python below it."""
    if version not in VERSIONS[1:]:
        raise LabError(
            obj=f"ansible-core {version}",
            problem="it is not among the versions that are tested",
            next_step=f"Use one of {', '.join(VERSIONS)}, or add it to VERSIONS and {LOCKS}",
        )
    content = (CHECKOUT / LOCKS / f"{version}.txt").read_bytes() + python_path(cache).name.encode()
    return cache / f"ansible-core-{version}-{hashlib.sha256(content).hexdigest()[:12]}"


def python_path(cache: Path) -> Path:
    """The unpacked root of Debian 13's Python: its name changes with the list of packages."""
    digest = hashlib.sha256(" ".join(PYTHON_PACKAGES).encode()).hexdigest()
    return cache / "trixie" / f"python3.13-{digest[:12]}"


def are_installed(lab: Lab) -> bool:
    """Whether every version is installed completely."""
    return all((environment_path(lab.cache, version) / packages.COMPLETE).exists() for version in VERSIONS[1:])


def install(lab: Lab) -> None:
    """Install every version that is not in the test environment; nothing is left half by an install that was killed."""
    for version in VERSIONS[1:]:
        target = environment_path(lab.cache, version)
        if (target / packages.COMPLETE).exists():
            continue
        with lab.locked("ansible-core"):
            lock = CHECKOUT / LOCKS / f"{version}.txt"
            packages.install_environment(lab, target, python=_install_python(lab), lock=lock)
        packages.remove_superseded(lab, f"ansible-core-{version}-*", target)


def lock(lab: Lab) -> None:
    """Renew the locks of all versions."""
    python = _install_python(lab)
    for version in VERSIONS[1:]:
        packages.lock_requirements(lab, f"{LOCKS}/{version}.in", python=python)


def _install_python(lab: Lab) -> Path:
    """Unpack Debian 13's Python, make it independent of the machine's libraries, and return the program."""
    root = python_path(lab.cache)
    program = root / "usr/bin/python3.13"
    if (root / packages.COMPLETE).exists():
        return program
    packages.apt(lab, "patchelf")
    with lab.locked("trixie"):
        if (root / packages.COMPLETE).exists():
            return program
        shutil.rmtree(root, ignore_errors=True)
        packages.unpack_trixie(lab, PYTHON_PACKAGES, root)
        libraries = root / LIBRARIES
        loader = ["--set-interpreter", str(libraries / "ld-linux-x86-64.so.2")]
        # Unlike a RUNPATH, an RPATH is used for what the libraries and extension modules need as well.
        search = ["--force-rpath", "--set-rpath", str(libraries)]
        packages.command(["patchelf", *loader, *search, str(program)])
        packages.command([str(program), "-m", "compileall", "-q", str(root / "usr/lib/python3.13")])
        (root / packages.COMPLETE).touch()
    return program
