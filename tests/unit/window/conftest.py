# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processes that stand for controllers, and file systems of a few kilobytes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window import opening
from support.store_contract import start_controller

from .simulation import Simulation

__all__ = ["start_controller"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KB (root only, as the tests of this project are run)."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "none", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    """A site whose world is at its beginning."""
    simulation = Simulation(tmp_path)
    yield simulation
    simulation.end_controller()


@pytest.fixture
def on_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of the site is on a volume, also where a run is a job of AWX."""
    monkeypatch.setattr(opening, "refuse_fleeting_directory", lambda *_arguments, **_options: None)


@pytest.fixture
def fast_directory() -> Iterator[Callable[[], Path]]:
    """Make directories in memory, where a sync costs nothing."""
    root = Path("/dev/shm", f"lowtide-window-{os.getpid()}")
    shutil.rmtree(root, ignore_errors=True)
    numbers = iter(range(10**6))

    def make() -> Path:
        directory = root / str(next(numbers))
        directory.mkdir(parents=True)
        return directory

    yield make
    shutil.rmtree(root, ignore_errors=True)
