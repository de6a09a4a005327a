# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of ``support.rules`` and of the layout, on every file; and each rule on a file that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import rules
from support.checkout import below, files, load_yaml, playbook_names, python_files, text

PRIVATE = "Private to lowtide.ops"
PYTHON = python_files("plugins", "tests", "docs", "inventories")
TASKS = [*below("roles", ".yml"), *below("playbooks", ".yml"), *below("molecule", ".yml"), *files("*.yml")]


@pytest.mark.parametrize("path", PYTHON, ids=str)
def test_python_file(path: Path) -> None:
    """No shell, no bare except, no dropped exception, nothing unfinished; a licence; a size that can be read."""
    source = text(path)
    assert rules.python_findings(source) == []
    assert not source or "GNU General Public License v3.0+" in "\n".join(source.splitlines()[:4])
    assert len(source.splitlines()) <= 600


@pytest.mark.parametrize(
    "path",
    [
        *below("plugins/module_utils", ".py"),
        *below("plugins/plugin_utils", ".py"),
        *below("plugins/doc_fragments", ".py"),
    ],
    ids=str,
)
def test_private_file_says_so(path: Path) -> None:
    """Whatever is no module or role is nobody else's to import, by its name and in words."""
    assert any(part.startswith("_") for part in path.parts[2:])
    source = text(path)
    assert not source or PRIVATE in source


@pytest.mark.parametrize("path", python_files("plugins"), ids=str)
def test_plugin_pauses_only_by_an_injected_sleep(path: Path) -> None:
    """Waits watch a condition and a deadline; what they pause with is handed to them."""
    assert rules.sleeps(text(path)) == []


@pytest.mark.parametrize(
    "path", [path for path in python_files("tests") if path.name.startswith(("test_", "conftest"))], ids=str
)
def test_test_file(path: Path) -> None:
    """Tests mock nothing, skip nothing and expect no failure of their own."""
    assert rules.test_findings(text(path)) == []


@pytest.mark.parametrize("path", sorted(set(TASKS)), ids=str)
def test_task_file(path: Path) -> None:
    """Tasks run no shell and ignore no error."""
    assert rules.task_findings(load_yaml(path)) == []
    assert rules.unfinished(text(path)) == []


def test_playbooks_can_be_called_by_name() -> None:
    """A dash cannot be in a fully qualified name; the one wrapper with a dash is not among the playbooks."""
    definition = "execution-environment.yml"  # no playbook; ansible-builder gives it the name
    assert [name for name in playbook_names() if "-" in name] == []
    assert [name for name in map(str, files("*-*.yml")) if "/" not in name and name != definition] == [
        "maintenance-window.yml"
    ]


def test_roles_have_no_handlers() -> None:
    """A failing handler ends a run before its closing plays."""
    assert below("roles", ".yml") == [path for path in below("roles", ".yml") if "handlers" not in path.parts]


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import os\nos.system('x')",
        "module.run_command('x', use_unsafe_shell=True)",
        "try:\n    f()\nexcept:\n    raise",
        "try:\n    f()\nexcept OSError:\n    pass",
        "with contextlib.suppress(Exception):\n    f()",
        "x = 1  # TO" + "DO: finish",
    ],
)
def test_rule_finds_bad_python(source: str) -> None:
    """Each rule can fail."""
    assert len(rules.python_findings(source)) == 1


def test_rule_lets_a_task_tell_of_an_unreachable_host() -> None:
    """By what it registers."""
    assert rules.task_findings([{"name": "t", "command": "x", "ignore_unreachable": True, "register": "r"}]) == []


@pytest.mark.parametrize(
    "tasks",
    [
        [{"name": "t", "ansible.builtin.shell": "x"}],
        [{"name": "t", "block": [{"name": "u", "shell": "x"}]}],
        [{"name": "t", "command": "x", "ignore_errors": True}],
        [{"name": "t", "command": "x", "ignore_errors": True, "register": "r"}],
        [{"name": "t", "command": "x", "ignore_unreachable": True}],
        [{"hosts": "all", "ignore_unreachable": True, "tasks": []}],
        [{"hosts": "all", "tasks": [{"name": "t", "command": "x", "failed_when": False}]}],
    ],
)
def test_rule_finds_bad_tasks(tasks: list[dict[str, object]]) -> None:
    """Each rule can fail."""
    assert len(rules.task_findings(tasks)) == 1


@pytest.mark.parametrize(
    "source",
    ["from unittest import mock", "import unittest.mock", "pytest.skip('x')", "@pytest.mark.xfail\ndef test_x(): ..."],
)
def test_rule_finds_bad_tests(source: str) -> None:
    """Each rule can fail."""
    assert len(rules.test_findings(source)) == 1


def test_rule_finds_a_sleep() -> None:
    """Called, or imported to be called; handed on is fine."""
    assert len(rules.sleeps("import time\ntime.sleep(1)\nwait(sleep=time.sleep)")) == 1
    assert len(rules.sleeps("from time import sleep")) == 1
