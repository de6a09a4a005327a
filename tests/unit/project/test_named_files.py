# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and targets that the Makefile, CI and the documentation name exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkout import files, text
from support.modules import CHECKOUT
from support.named_files import find_made, find_paths, find_targets

NAMING = [Path("Makefile"), Path(".ci/run"), *(path for path in files("*.md") if path.name != "CHANGELOG.md")]
TARGETS = find_targets(text(Path("Makefile")))


@pytest.mark.parametrize("path", NAMING, ids=str)
def test_named_paths_and_targets_exist(path: Path) -> None:
    """A renamed file takes its mentions along."""
    content = text(path)
    assert [name for name in find_paths(content) if not (CHECKOUT / name).exists()] == []
    assert sorted(find_made(content) - TARGETS) == []


def test_paths_are_found_without_placeholders() -> None:
    """Wherever they stand; an absolute path, and one below a directory that is not named, are other files."""
    content = (
        "\t@tests/lab/lab up; see `docs/window.md`. roles/NAME/ docs/*.md /etc/docs/x $(A)/tests/y inventories/yours"
    )
    assert list(find_paths(content)) == ["tests/lab/lab", "docs/window.md"]


def test_made_targets_are_found() -> None:
    """As commands, in prose, and in the lanes of the Makefile; prose that makes something is none."""
    content = (
        "make unit\n`make lint`\nexec make test\nThey make use of it.\nWITH_LAB := up $(if $(filter true,$(CI)),down)\n"
    )
    assert find_made(content) == {"unit", "lint", "test", "up", "down"}


def test_targets_are_found() -> None:
    """Variables are none."""
    assert find_targets("LAB := x\nlab:=y\n.PHONY: help\nhelp: ## list\nunit: tools\n\t@x: y\n") == {"help", "unit"}
