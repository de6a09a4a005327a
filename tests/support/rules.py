# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules of this project that no linter knows, as functions from source to findings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

BROAD = {"Exception", "BaseException"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
# Words that stand for unfinished work, written so that this file does not hold them.
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
FORBIDDEN_TASKS = {"shell", "raw", "expect"}
FORBIDDEN_KEYWORDS = {"ignore_errors", "ignore_unreachable"}


def dotted(node: ast.expr | None) -> str:
    """``os.path.join`` for the expression that says so, an empty string for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _call_findings(node: ast.Call) -> Iterator[str]:
    name = dotted(node.func)
    if name in SHELLS:
        yield f"{node.lineno}: {name} runs a shell"
    for keyword in node.keywords:
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            yield f"{node.lineno}: shell={ast.unparse(keyword.value)}"
        if keyword.arg == "use_unsafe_shell":
            yield f"{node.lineno}: use_unsafe_shell runs a shell"
    if name.endswith("suppress") and any(dotted(argument) in BROAD for argument in node.args):
        yield f"{node.lineno}: suppresses every exception"


def _handler_findings(node: ast.ExceptHandler) -> Iterator[str]:
    if node.type is None:
        yield f"{node.lineno}: bare except"
    elif all(isinstance(statement, ast.Pass) for statement in node.body):
        yield f"{node.lineno}: exception caught and dropped"


def python_findings(source: str) -> list[str]:
    """What no Python file here may hold: shells, bare excepts, dropped exceptions, unfinished work."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found.extend(_call_findings(node))
        elif isinstance(node, ast.ExceptHandler):
            found.extend(_handler_findings(node))
    found.extend(unfinished(source))
    return found


def sleeps(source: str) -> list[str]:
    """Calls of ``time.sleep``: a pause is an argument with that default, so that a test need not wait for it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and dotted(node.func) == "time.sleep":
            found.append(f"{node.lineno}: time.sleep")
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and any(alias.name == "sleep" for alias in node.names)
        ):
            found.append(f"{node.lineno}: from time import sleep")
    return found


def test_findings(source: str) -> list[str]:
    """What no test may hold: mocks, skips, expected failures."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names] + [str(getattr(node, "module", ""))]
            found.extend(f"{node.lineno}: imports {name}" for name in names if "mock" in name.split("."))
        if isinstance(node, ast.Attribute) and dotted(node) in {
            "pytest.mark.skip",
            "pytest.mark.skipif",
            "pytest.mark.xfail",
            "pytest.skip",
            "pytest.xfail",
            "pytest.importorskip",
        }:
            found.append(f"{node.lineno}: {dotted(node)}")
    return found


def unfinished(source: str) -> list[str]:
    """Lines that announce work for later."""
    return [
        f"{number}: {line.strip()}" for number, line in enumerate(source.splitlines(), 1) if UNFINISHED.search(line)
    ]


def task_findings(data: Any, where: str = "") -> list[str]:
    """What no task file or playbook may hold: a shell, an ignored error, a failure declared away."""
    found: list[str] = []
    if isinstance(data, list):
        for item in data:
            found.extend(task_findings(item, where))
    elif isinstance(data, dict):
        here = str(data.get("name", where))
        for key, value in data.items():
            if not isinstance(key, str):
                continue
            if key.rpartition(".")[2] in FORBIDDEN_TASKS and key.rpartition(".")[0] in {
                "",
                "ansible.builtin",
                "ansible.legacy",
            }:
                found.append(f"{here}: {key}")
            # A task that registers its result can tell that its host was not reached; a play cannot.
            tells = key == "ignore_unreachable" and "register" in data
            if key in FORBIDDEN_KEYWORDS and not tells:
                found.append(f"{here}: {key}")
            if key == "failed_when" and value is False:
                found.append(f"{here}: failed_when: false")
            found.extend(task_findings(value, here))
    return found
