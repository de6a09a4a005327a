# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast window as a fixture, and which version of ansible-core runs which test."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit.ansible_versions import VERSIONS

from window.harness import FastWindow


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One version for each test, by turns; all of them for ``every_version`` and with LOWTIDE_EXHAUSTIVE=1.

    Every run takes seconds of processor time, so that all tests on all versions would be most of ``make test``.
    """
    if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1":
        return
    left_out = [item for item in items if _version(item) not in _versions(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _version(item: pytest.Item) -> str | None:
    """The version that the item's window is run by."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("window") if callspec else None


def _versions(item: pytest.Item) -> tuple[str | None, ...]:
    """The versions whose turn it is; a test without window, or of another folder, is left as it is."""
    version = _version(item)
    if version is None or item.get_closest_marker("every_version"):
        return (version,)
    test = item.nodeid.replace(f"[{version}", "[").encode()
    return (VERSIONS[zlib.crc32(test) % len(VERSIONS)],)


@pytest.fixture(params=VERSIONS)
def window(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FastWindow]:
    """A fast window whose world is at its beginning, run by a supported version of ansible-core."""
    fast = FastWindow(tmp_path / "fast", request.param)
    yield fast
    fast.end()
