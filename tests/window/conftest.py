# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from window.harness import FastWindow


@pytest.fixture
def window(tmp_path: Path) -> Iterator[FastWindow]:
    """A fast window whose world is at its beginning."""
    fast = FastWindow(tmp_path / "fast")
    yield fast
    fast.end()
