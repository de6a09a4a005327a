# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window as a fixture, and which version of ansible-core runs which test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit.ansible_versions import VERSIONS

from support.fast_window import FastWindow
from support.turns import take_turns


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One version of ansible-core for each test, by turns; all of them with LOWTIDE_EXHAUSTIVE=1.

    Every run takes seconds of processor time, so that all tests on all versions would be most of ``make test``.
    """
    take_turns(config, items, "window", VERSIONS)


@pytest.fixture(params=VERSIONS)
def window(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FastWindow]:
    """A fast window whose world is at its beginning, run by a supported version of ansible-core."""
    fast = FastWindow(tmp_path / "fast", request.param)
    yield fast
    fast.end()
