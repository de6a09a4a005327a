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
from support.tarball import run_installed

# Every tracked file below these is shipped; beside them only the files of ROOT.
SHIPPED = ("extensions", "inventories", "meta", "playbooks", "plugins", "roles")
ROOT = {"CHANGELOG.md", "CONTRIBUTING.md", "COPYING", "README.md"}
GENERATED = {"FILES.json", "MANIFEST.json"}
SANITY = "tests/config.yml"
"""By which a Hub that runs ansible-test knows the Python that modules are written for. No other file of the tests."""
# Pages about work on the collection, and locks: an execution environment would install what they pin.
NEVER = (
    "tests",
    "molecule",
    "collections",
    "docs/contributing",
    "docs/coverage",
    "requirements",
    "bindep",
    "execution-environment",
    ".git",
    ".config",
    ".ci",
    "galaxy.yml",
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
"""A link in Markdown to another file of the collection."""


@pytest.fixture(scope="module")
def content(tarball: Path) -> set[str]:
    """The names of the files in the tarball."""
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive.getmembers() if not member.isdir()}


def test_holds_everything_that_users_need(content: set[str]) -> None:
    """Every tracked plugin, role, playbook, rulebook, inventory and piece of metadata."""
    wanted = {str(path) for folder in SHIPPED for path in below(folder)} | {
        name for name in ROOT | {SANITY} if (CHECKOUT / name).exists()
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
    assert [name for name in content - {SANITY} if name.startswith(NEVER)] == []


def find_locks(archive: tarfile.TarFile) -> list[str]:
    """Find files that pin Python packages: by a hash, or by one version."""
    pin = re.compile(rb"--hash=sha256:|^[A-Za-z0-9._-]+(?:\[[a-z0-9,]+\])?==", re.MULTILINE)
    members = [member for member in archive.getmembers() if member.name.endswith((".txt", ".in", ".lock", ".toml"))]
    return [member.name for member in members if pin.search(archive.extractfile(member).read())]  # type: ignore[union-attr]


def test_holds_no_locks(tarball: Path) -> None:
    """They are for tests: next to another collection pip could not install what they pin."""
    with tarfile.open(tarball) as archive:
        assert find_locks(archive) == []


def test_locks_are_found(tmp_path: Path) -> None:
    """Those of the tests, under whatever name they were shipped; ranges are none."""
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(CHECKOUT / "tests/requirements.txt", "meta/ee.lock")
        archive.add(CHECKOUT / "meta/ee-requirements.txt", "meta/ee-requirements.txt")
    with tarfile.open(tmp_path / "t.tar") as archive:
        assert find_locks(archive) == ["meta/ee.lock"]


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
