# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run by which version of a program in an ordinary run, and in a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

VERSIONS = ("14", "15", "16")
PLUGIN = f"""
import pytest
from support.turns import take_turns

def pytest_collection_modifyitems(config, items):
    take_turns(config, items, "server", {VERSIONS!r})

@pytest.fixture(params={VERSIONS!r})
def server(request):
    return request.param
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(30))
def test_many(server, number): ...

@pytest.mark.every_version
def test_every(server): ...

def test_other(): ...

@pytest.mark.parametrize("server", ["any"], indirect=False)
def test_foreign(server): ...
"""


class Kept:
    """What was left to run."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the names of what would run."""
        self.names = [item.name for item in session.items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tests that take turns."""
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "test_turns_sample.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = every_version: runs by all\n")
    return tmp_path


def collect(folder: Path) -> list[str]:
    """The names of the tests that would run."""
    kept = Kept()
    arguments = ["--collect-only", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(folder)]
    assert pytest.main([*arguments, "-c", str(folder / "pytest.ini"), str(folder)], plugins=[kept]) == 0
    return kept.names


def test_by_turns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test once, each version at some test, the same ones again in the next run; what takes no part stays."""
    monkeypatch.delenv("LOWTIDE_EXHAUSTIVE", raising=False)
    names = collect(folder)
    many = [name for name in names if name.startswith("test_many")]
    assert len(many) == 30
    assert all(any(version in name for name in many) for version in VERSIONS)
    assert sorted(set(names) - set(many)) == [
        "test_every[14]",
        "test_every[15]",
        "test_every[16]",
        "test_foreign[any]",
        "test_other",
    ]
    assert collect(folder) == names


def test_a_sweep_leaves_nothing_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All versions of all tests."""
    monkeypatch.setenv("LOWTIDE_EXHAUSTIVE", "1")
    assert len(collect(folder)) == 30 * len(VERSIONS) + len(VERSIONS) + 2
