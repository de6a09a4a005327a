# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module file can be imported with nothing but Python and ansible-core: libraries come in when they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from support.checkout import below, module_names
from support.modules import CHECKOUT

PROGRAM = """
import importlib, json, sys
sys.path.insert(0, {collections!r})
import ansible.module_utils.basic  # brings what Ansible itself looks for, whatever the module
before = set(sys.modules)
for name in {names!r}:
    importlib.import_module(name)
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(loaded - sys.stdlib_module_names - {{"ansible", "ansible_collections"}})))
"""


def foreign_imports(*names: str) -> list[str]:
    """Top-level packages, neither Python's nor Ansible's, that a fresh interpreter loads with ``names``."""
    program = PROGRAM.format(collections=str(CHECKOUT / "collections"), names=list(names))
    process = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=600, check=False
    )
    assert process.returncode == 0, process.stderr
    found: list[Any] = json.loads(process.stdout)
    return [str(name) for name in found]


@pytest.mark.parametrize("name", module_names())
def test_module_imports_no_library(name: str) -> None:
    """Goal P1: a module with nothing to change pays for no library that it does not need."""
    assert foreign_imports(f"ansible_collections.lowtide.ops.plugins.modules.{name}") == []


def test_module_utils_import_no_library() -> None:
    """All of them at once: whatever one of them loaded would show."""
    names = [
        f"ansible_collections.lowtide.ops.{str(path.with_suffix('')).replace('/', '.')}"
        for path in below("plugins/module_utils", ".py")
    ]
    assert foreign_imports(*[name.removesuffix(".__init__") for name in names]) == []


def test_a_library_is_found() -> None:
    """The probe sees what it looks for."""
    assert "yaml" in foreign_imports("yaml")
