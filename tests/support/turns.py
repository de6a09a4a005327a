# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is a sample in an ordinary run, and whole in a sweep (LOWTIDE_EXHAUSTIVE=1): tests that run by several versions
of a program, by turns, and further cases of a kind."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence

import pytest


def is_sweep() -> bool:
    """Whether everything is to run (``make faults``)."""
    return os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"


def leave_out_sweeps(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``sweep``; nothing with LOWTIDE_EXHAUSTIVE=1."""
    if not is_sweep():
        leave_out(config, items, [item for item in items if item.get_closest_marker("sweep")])


def leave_out(config: pytest.Config, items: list[pytest.Item], others: list[pytest.Item]) -> None:
    """Have pytest run ``items`` without ``others``."""
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def take_turns(config: pytest.Config, items: list[pytest.Item], fixture: str, versions: Sequence[str]) -> None:
    """Leave each test one version of ``fixture``; all of them for ``every_version`` and with LOWTIDE_EXHAUSTIVE=1.

    A test keeps its version from run to run. One without the fixture, or with other values of it, is left as it is.
    """
    if not is_sweep():
        leave_out(config, items, [item for item in items if not has_turn(item, fixture, versions)])


def has_turn(item: pytest.Item, fixture: str, versions: Sequence[str]) -> bool:
    """Whether it is the turn of the item's version."""
    callspec = getattr(item, "callspec", None)
    version = callspec.params.get(fixture) if callspec else None
    if callspec is None or version not in versions or item.get_closest_marker("every_version"):
        return True
    others = callspec.id.split("-")
    others.remove(version)
    test = f"{item.nodeid.partition('[')[0]}{others}".encode()
    return bool(version == versions[zlib.crc32(test) % len(versions)])
