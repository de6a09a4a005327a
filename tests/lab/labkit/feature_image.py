# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The feature service's image under two tags: Debian's Python, two drivers from the locked environment, the programs.

Built without a network at run time and without a build tool, and kept in the cache until one of its parts changes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from labkit import kubernetes_images as images
from labkit import packages
from labkit.kubernetes_install import unpack
from labkit.lab import Lab

PROGRAMS = Path(__file__).resolve().parents[1] / "app"
FILES = ("worker.py", "api.py")
TAGS = ("1.0.0", "1.1.0")
NAME = "localhost/feature-service"
DEBIAN = (
    "libc6",
    "libexpat1",
    "zlib1g",
    "libffi8",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
)
DRIVERS = ("confluent_kafka", "confluent_kafka.libs", "psycopg2", "psycopg2_binary.libs")
UNUSED = (
    "usr/share",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/audit",
    *(
        f"usr/lib/python3.11/{name}"
        for name in ("distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "unittest")
    ),
)
LAYOUT = "1"
"""Raise it when the code below makes another image of the same parts."""


def _parts(lab: Lab) -> Iterator[bytes]:
    yield LAYOUT.encode()
    yield (lab.checkout / "tests/requirements-test.txt").read_bytes()
    for name in FILES:
        yield (PROGRAMS / name).read_bytes()


def build(lab: Lab) -> Path:
    """The archive of both images."""
    digest = hashlib.sha256(b"\0".join(_parts(lab))).hexdigest()[:12]
    target = lab.cache / "images" / f"feature-service-{digest}.tar"
    if target.exists():
        return target
    with lab.locked("images"):
        base = _base(lab)
        archive = images.Archive()
        for tag in TAGS:
            tree = target.with_name(".feature-service")
            shutil.rmtree(tree, ignore_errors=True)
            (tree / "app").mkdir(parents=True)
            for name in FILES:
                shutil.copy(PROGRAMS / name, tree / "app" / name)
            (tree / "app/RELEASE").write_text(f"{tag}\n")
            image = images.Image(f"{NAME}:{tag}", ("/usr/bin/python3.11", "/app/api.py"), labels={"version": tag})
            archive.add(image, [base, images.layer(tree)])
            shutil.rmtree(tree)
        for old in target.parent.glob("feature-service-*.tar"):
            old.unlink()
        archive.write(target)
    return target


def _base(lab: Lab) -> bytes:
    """Python and the drivers as a layer, compiled ahead: no pod may spend its start on that."""
    tree = lab.cache / "images/.python"
    shutil.rmtree(tree, ignore_errors=True)
    unpack(lab, tree, DEBIAN)
    for name in UNUSED:
        shutil.rmtree(tree / name, ignore_errors=True)
    drivers = tree / "usr/lib/python3/dist-packages"
    drivers.mkdir(parents=True)
    installed = next((lab.cache / "venv/lib").glob("python3.*")) / "site-packages"
    for name in DRIVERS:
        shutil.copytree(installed / name, drivers / name, ignore=shutil.ignore_patterns("__pycache__"))
    compile_all = [
        "/usr/bin/python3.11",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        str(tree),
        "-p",
        "/",
    ]
    packages.command([*compile_all, str(tree / "usr/lib")])
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    layer = images.layer(tree)
    shutil.rmtree(tree)
    return layer
