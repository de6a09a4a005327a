# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit.ansible_versions import VERSIONS

from window.harness import FastWindow


@pytest.fixture(params=VERSIONS)
def window(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FastWindow]:
    """A fast window whose world is at its beginning, run by each supported version of ansible-core."""
    fast = FastWindow(tmp_path / "fast", request.param)
    yield fast
    fast.end()
