# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection as it is published, built once for all tests that look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tarball import build, install


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built from the checkout as it is on disk."""
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of collections with nothing but this one in it."""
    return install(tarball, tmp_path_factory.mktemp("installed"))
