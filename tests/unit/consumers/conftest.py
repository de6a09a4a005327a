# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An API server in memory for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.memory_controllers import Controllers
from support.memory_kubernetes import MemoryServer


@pytest.fixture
def memory() -> Iterator[MemoryServer]:
    """A server with nothing in it."""
    with MemoryServer() as server:
        yield server


@pytest.fixture
def controllers(memory: MemoryServer) -> Controllers:
    """Who settles at once what is written; there is a workload of 3 replicas."""
    controllers = Controllers(memory)
    controllers.add("StatefulSet", "w")
    return controllers
