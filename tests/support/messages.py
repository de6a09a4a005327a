# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages that the code can give, and those that documentation quotes, as functions of text.

A value in a message is written ``...`` in both, so that they can be compared by their fixed words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

QUOTED = re.compile(r"^\| `((?:[^`|])+)` \|", re.MULTILINE)
"""The first cell of a row, in backquotes."""


def read_text(node: ast.expr) -> str:
    """Return the text of an expression with ``...`` for each value that is not a constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(read_text(part) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return "..."


def find_texts(source: str) -> set[str]:
    """Find all texts of a Python file, formatted ones as a whole."""
    return {
        read_text(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }


def find_problems(source: str) -> set[str]:
    """Find what the refusals of a Python file say: each argument ``problem``, and the first one of ``refuse``."""
    problems = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "problem"]
        if isinstance(node.func, ast.Name) and node.func.id == "refuse":
            given += node.args[:1]
        problems |= {read_text(value) for value in given}
    return {problem for problem in problems if problem.strip(". :")}


def find_quoted(page: str) -> Iterator[str]:
    """Find the messages that a page quotes in the first column of its tables."""
    for match in QUOTED.finditer(page):
        yield match[1]


def is_quote_of(quoted: str, message: str) -> bool:
    """Return whether the fixed words of ``quoted`` occur in the message, in their order."""
    parts = [part.strip() for part in quoted.split("...")]
    return re.search(".*".join(re.escape(part) for part in parts if part), message, re.DOTALL) is not None
