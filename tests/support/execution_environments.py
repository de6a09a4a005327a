# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an execution environment gets of this collection: its requirements, and ansible-builder's own programs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from labkit.packages import cache
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .checkout import below, text

PYTHON = Path("meta/ee-requirements.txt")
SYSTEM = Path("meta/ee-bindep.txt")


def read_requirements(content: str) -> dict[str, Requirement]:
    """Return the requirements of a file of pip, by their normal names."""
    lines = (line.partition("#")[0].strip() for line in content.splitlines())
    parsed = [Requirement(line) for line in lines if line]
    return {canonicalize_name(one.name): one for one in parsed}


def get_minimum(requirement: Requirement) -> str:
    """Return the lower bound of a range."""
    (minimum,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return minimum


def find_calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """Find the calls of a function in the plugins."""
    for path in below("plugins", ".py"):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield path, node


def find_packages(function: str) -> set[str]:
    """Find the values of ``package`` with which the plugins call a function; of a name, what the file gives it."""
    found = set()
    for path, call in find_calls(function):
        (value,) = [keyword.value for keyword in call.keywords if keyword.arg == "package"]
        if isinstance(value, ast.Name):
            assigned = re.search(rf'^{value.id} = "([^"]+)"', text(path), re.MULTILINE)
            found |= {assigned[1]} if assigned else set()
        else:
            found.add(str(ast.literal_eval(value)))
    return found


def find_declared(documentations: Iterable[str], names: Iterable[str]) -> dict[str, set[str]]:
    """Find what the ``requirements`` of modules say of libraries: the minima, and an empty text where none is said."""
    declared: dict[str, set[str]] = {name: set() for name in names}
    for documentation in documentations:
        for line in yaml.safe_load(documentation).get("requirements", []):
            for name, minima in declared.items():
                library = re.escape(name.removesuffix("-binary"))
                words = re.search(rf"(?<![\w-]){library}(?![\w-])(?: \([\w-]+\))?(?: >= ([\d.]*\d))?", line)
                minima.update({words[1] or ""} if words else ())
    return declared


def run_builder(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ansible-builder."""
    command = [str(Path(sys.executable).with_name("ansible-builder")), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def make_collections(folder: Path, installed: Path) -> Path:
    """Make a folder of collections: the installed one, and two of the test environment that are often beside it."""
    (brought,) = Path(sys.prefix).glob("lib/python3.*/site-packages/ansible_collections")
    for namespace, name, source in (
        ("lowtide", "ops", installed / "ansible_collections"),
        ("kubernetes", "core", brought),
        ("community", "postgresql", brought),
    ):
        place = folder / "ansible_collections" / namespace
        place.mkdir(parents=True)
        (place / name).symlink_to(source / namespace / name)
    return folder


def compile_as_in_the_image(steps: Iterable[str], python: Path, collections: Path) -> None:
    """Run the steps of a definition that compile, with this Python and these collections instead of an image's."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for step in steps:
        command = step.removeprefix("RUN ").replace("/usr/share/ansible/collections", str(collections))
        process = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**environment, "PYCMD": str(python)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert process.returncode == 0, process.stdout + process.stderr


def resolve(requirements: Path, folder: Path) -> dict[str, str]:
    """Let pip choose versions as in the image, of what PyPI has now; their names and versions, nothing is installed.

    It is the system's pip and not uv: pip 23 tries versions in another order, and came to no end where uv did.
    """
    report = folder / "report.json"
    command = [str(cache() / "uv/bin/pip"), "install", "--dry-run", "--ignore-installed", "--quiet"]
    process = subprocess.run(
        [*command, "--report", str(report), "-r", str(requirements)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    chosen = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {canonicalize_name(item["name"]): item["version"] for item in chosen}
