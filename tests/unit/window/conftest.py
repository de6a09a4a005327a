# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated window as a fixture."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .simulation import Simulation


@pytest.fixture(scope="module")
def controllers() -> Iterator[list[int]]:
    """Pids of living processes, each a controller of its own."""
    code = "import signal; print('up', flush=True); signal.pause()"
    processes = [subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) for _ in range(6)]
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def simulation(tmp_path: Path, controllers: list[int], monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """A window whose world is at its beginning. Its renewers are not started: the lease has tests of its own."""
    monkeypatch.setattr(
        "ansible_collections.lowtide.ops.plugins.module_utils._window.lease.FileLease.start_renewer", lambda *_, **__: 0
    )
    return Simulation(tmp_path, controllers)
