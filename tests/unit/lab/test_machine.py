# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight names everything that a machine lacks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from labkit.machine import COLD_BYTES, GIB, Machine, missing, os_release

FIT = Machine(
    root=True,
    system={"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
    architecture="x86_64",
    memory=8 * GIB,
    free=50 * GIB,
    needed=COLD_BYTES,
    space_at=Path("/var/cache"),
    overlay=True,
    cgroups=True,
    namespaces="",
)


def test_a_fit_machine_lacks_nothing() -> None:
    """Nothing is said about it."""
    assert missing(FIT) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"root": False}, "you are not root"),
        (
            {"system": {"ID": "ubuntu", "VERSION_ID": "24.04", "PRETTY_NAME": "Ubuntu 24.04"}},
            "the system is Ubuntu 24.04",
        ),
        ({"system": {"ID": "debian", "VERSION_ID": "13"}}, "Debian 12's packages"),
        ({"system": {}}, "the system is unknown"),
        ({"architecture": "aarch64"}, "aarch64"),
        ({"memory": 2 * GIB}, "2.0 GiB of memory; 6 GiB"),
        ({"free": 3 * GIB}, "/var/cache has 3.0 GiB free; 12 GiB are needed"),
        ({"overlay": False}, "overlay"),
        ({"cgroups": False}, "cgroup"),
        ({"namespaces": "unshare failed: Operation not permitted"}, "Operation not permitted"),
    ],
)
def test_each_lack_is_named(change: dict[str, Any], said: str) -> None:
    """With the value seen."""
    (found,) = missing(dataclasses.replace(FIT, **change))
    assert said in found


def test_all_lacks_are_named_at_once() -> None:
    """Nobody likes to learn them one by one."""
    assert len(missing(dataclasses.replace(FIT, root=False, free=0, overlay=False))) == 3


def test_os_release_is_read_with_and_without_quotes() -> None:
    """Debian writes both."""
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n\n# a comment\n'
    assert os_release(text) == {"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)", "VERSION_ID": "12", "ID": "debian"}
