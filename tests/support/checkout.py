# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is in the checkout: files as git knows them, modules, roles, playbooks, scenarios."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .modules import CHECKOUT


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that git knows or would add, relative to the checkout, without the link in ``collections``."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {name for name in listing.split("\0") if name and not name.startswith("collections/")}
    return tuple(path for path in sorted(map(Path, names)) if (CHECKOUT / path).is_file())


def files(*patterns: str) -> list[Path]:
    """Tracked files that match one of the patterns of :meth:`pathlib.PurePath.match`, relative to the checkout."""
    return [path for path in tracked_files() if any(path.match(pattern) for pattern in patterns)]


def below(folder: str, suffix: str = "") -> list[Path]:
    """Tracked files below ``folder`` whose name ends in ``suffix``, relative to the checkout."""
    return [path for path in tracked_files() if path.is_relative_to(folder) and path.name.endswith(suffix)]


def python_files(*folders: str) -> list[Path]:
    """Tracked Python files below the folders: by suffix, or by their first line."""
    found = []
    for folder in folders:
        for path in below(folder):
            with (CHECKOUT / path).open("rb") as stream:
                shebang = stream.readline()
            if path.suffix == ".py" or (not path.suffix and shebang.startswith(b"#!") and b"python" in shebang):
                found.append(path)
    return found


def plugin_packages() -> dict[str, list[Path]]:
    """The Python files of each directory below plugins/, packages one by one: ``module_utils/_kafka``, ``modules``."""
    packages: dict[str, list[Path]] = {}
    for path in below("plugins", ".py"):
        parts = path.parent.parts[1:3]
        packages.setdefault("/".join(parts), []).append(path)
    return packages


def text(path: Path) -> str:
    """The content of a file of the checkout."""
    return (CHECKOUT / path).read_text(encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """Knows Ansible's mark for text that is no template."""


_Loader.add_constructor("!unsafe", lambda _loader, node: str(node.value))


def load_yaml(path: Path) -> Any:
    """A YAML file of the checkout, parsed; what is marked ``!unsafe`` for Ansible is text."""
    return yaml.load(text(path), _Loader)  # noqa: S506  # it is a safe one


def module_names() -> list[str]:
    """The collection's modules, without documentation stubs' action plugins told apart."""
    return [path.stem for path in below("plugins/modules", ".py")]


def role_names() -> list[str]:
    """The collection's roles: folders below ``roles`` with tasks."""
    return sorted(
        {path.parts[1] for path in below("roles", ".yml") if len(path.parts) > 3 and path.parts[2] == "tasks"}
    )


def playbook_names() -> list[str]:
    """The collection's playbooks."""
    return [path.stem for path in below("playbooks", ".yml") if len(path.parts) == 2]


def scenario_names() -> list[str]:
    """The molecule scenarios."""
    return [path.parent.name for path in files("molecule/*/molecule.yml")]
