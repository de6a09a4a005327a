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
from support.turns import leave_out_sweeps, take_turns

def pytest_collection_modifyitems(config, items):
    leave_out_sweeps(config, items)
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

@pytest.mark.parametrize("case", ["one", pytest.param("another", marks=pytest.mark.sweep)])
def test_kind(case): ...

@pytest.mark.sweep
@pytest.mark.every_version
def test_swept(server): ...

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
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  every_version: runs by all\n  sweep: runs in sweeps\n")
    return tmp_path


def collect(folder: Path) -> list[str]:
    """The names of the tests that would run."""
    kept = Kept()
    arguments = ["--collect-only", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(folder)]
    assert pytest.main([*arguments, "-c", str(folder / "pytest.ini"), str(folder)], plugins=[kept]) == 0
    return kept.names


def test_by_turns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test once, each version at some test, the same ones again in the next run; the rest as marked."""
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
        "test_kind[one]",
        "test_other",
    ]
    assert collect(folder) == names


def test_a_sweep_leaves_nothing_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All versions of all tests, and all cases."""
    monkeypatch.setenv("LOWTIDE_EXHAUSTIVE", "1")
    names = collect(folder)
    assert len(names) == len(set(names)) == 30 * len(VERSIONS) + 2 * len(VERSIONS) + 4
    assert {"test_kind[one]", "test_kind[another]", "test_swept[14]"} < set(names)
