# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is published: the tarball holds what users need and nothing else, and works where it is installed."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

import pytest

from support.checkout import below, playbook_names, text, tracked_files
from support.modules import CHECKOUT
from support.tarball import build, install, run_installed

# Every tracked file below these is shipped; beside them only the files of ROOT.
SHIPPED = ("inventories", "meta", "playbooks", "plugins", "roles")
ROOT = {"CHANGELOG.md", "CONTRIBUTING.md", "COPYING", "README.md"}
GENERATED = {"FILES.json", "MANIFEST.json"}
# Pages about work on the collection, and locks: an execution environment would install what they pin.
NEVER = (
    "tests",
    "molecule",
    "collections",
    "docs/contributing",
    "docs/coverage",
    "requirements",
    ".git",
    ".config",
    ".ci",
    "galaxy.yml",
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
"""A link in Markdown to another file of the collection."""


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built from the checkout as it is on disk."""
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def content(tarball: Path) -> set[str]:
    """The names of the files in the tarball."""
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive.getmembers() if not member.isdir()}


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of collections with nothing but this one in it."""
    return install(tarball, tmp_path_factory.mktemp("installed"))


def test_holds_everything_that_users_need(content: set[str]) -> None:
    """Every tracked plugin, role, playbook, inventory and piece of metadata."""
    wanted = {str(path) for folder in SHIPPED for path in below(folder)} | {
        name for name in ROOT if (CHECKOUT / name).exists()
    }
    assert wanted - content == set()


def test_holds_the_documentation_of_users(content: set[str]) -> None:
    """Every page but those for work on the collection."""
    pages = {str(path) for path in below("docs", ".md")}
    assert {page for page in pages if not page.startswith(NEVER)} - content == set()


def find_dead_links(pages: dict[str, str], content: set[str]) -> list[str]:
    """Return the links of these pages (name and text) to files that are not in ``content``."""
    folders = {str(parent) for name in content for parent in Path(name).parents}
    return [
        f"{name}: {link}"
        for name, words in pages.items()
        for link in LINK.findall(words)
        if os.path.normpath(Path(name).parent / link) not in content | folders
    ]


def test_links_of_pages_lead_to_files_of_the_tarball(content: set[str]) -> None:
    """What a user reads names no file that only the repository has."""
    pages = {name: text(Path(name)) for name in content - GENERATED if name.endswith(".md")}
    assert find_dead_links(pages, content) == []


def test_dead_links_are_found() -> None:
    """A file that is not shipped; sections, addresses and directories are links as well."""
    page = "[a](x.md#part) [b](../README.md) [c](https://example.com) [d](#here) [e](../roles) [f](../tests/z.md)"
    assert find_dead_links({"docs/y.md": page}, {"docs/x.md", "README.md", "roles/r/README.md"}) == [
        "docs/y.md: ../tests/z.md"
    ]


def test_holds_nothing_else(content: set[str]) -> None:
    """Only files that git knows, none of the tests, nothing of this machine."""
    assert content - GENERATED - {str(path) for path in tracked_files()} == set()
    assert [name for name in content if name.startswith(NEVER)] == []


def test_installed_playbooks_are_found_by_name(installed: Path) -> None:
    """Each playbook parses from the installed tarball, from any folder, with an inventory of the tarball."""
    inventory = installed / "ansible_collections" / "lowtide" / "ops" / "inventories" / "demo"
    assert os.access(inventory / "lab.sh", os.X_OK)
    names = [f"lowtide.ops.{name}" for name in playbook_names()]
    run = run_installed(installed, names[0], *names[1:], "--syntax-check", "-i", str(inventory))
    assert run.rc == 0, run.stdout + run.stderr
    parsed = {line.removeprefix("playbook: ") for line in run.stdout.splitlines() if line.startswith("playbook: ")}
    playbooks = installed / "ansible_collections" / "lowtide" / "ops" / "playbooks"
    assert parsed == {str(playbooks / f"{name}.yml") for name in playbook_names()}


def test_window_is_among_the_installed_playbooks(installed: Path) -> None:
    """``ansible-playbook lowtide.ops.maintenance_window`` is what the README tells users to run."""
    run = run_installed(installed, "lowtide.ops.maintenance_window", "--syntax-check")
    assert run.rc == 0, run.stdout + run.stderr


def test_unknown_playbook_is_refused(installed: Path) -> None:
    """The check above can fail."""
    assert run_installed(installed, "lowtide.ops.no_such_playbook", "--syntax-check").rc != 0
