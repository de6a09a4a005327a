# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pages for users against the code: keys of steps, states, events of the journal, examples, and their own size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Declaration, Inventory, Step
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import KINDS, Event
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import FINAL_STATES
from support.checkout import below, load_yaml, text

PAGES = [
    Path("README.md"),
    Path("CONTRIBUTING.md"),
    *(page for page in below("docs", ".md") if "coverage" not in page.parts),
]
WIDTH = 120
WORDS = 15
CODE = re.compile(r"`([^`]+)`")
MACRO = re.compile(r"\b(?:(?P<escaping>RV|[EOV])|[BCILMPU])\((?P<value>(?:[^\\)]|\\.)*)\)")
"""Markup of ansible-doc. It ends with the first closing parenthesis; a backslash before one counts in some only."""


def find_yaml(page: str) -> Iterator[str]:
    """Find the examples of YAML in a page."""
    yield from re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)


def find_rows(page: str, heading: str) -> dict[str, list[str]]:
    """Find the rows of the tables below a heading: the first name in code, and the names in code of the last cell."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[CODE.findall(cells[0])[0]] = CODE.findall(cells[-1])
    return rows


def find_long_lines(page: str) -> list[int]:
    """Find the numbers of lines that are too long; rows of tables cannot be split."""
    return [
        number
        for number, line in enumerate(page.splitlines(), start=1)
        if len(line) > WIDTH and not line.startswith("|")
    ]


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_lines_can_be_read(path: Path) -> None:
    """In a terminal as well."""
    assert find_long_lines(text(path)) == []


def test_long_lines_are_found() -> None:
    """One more than allowed; a row of a table is none."""
    assert find_long_lines(f"{'x' * 120}\n{'x' * 121}\n| {'x' * 121} |\n") == [2]


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_examples_are_yaml(path: Path) -> None:
    """What is pasted parses."""
    for example in find_yaml(text(path)):
        assert yaml.safe_load(example)


def find_open_macros(source: str) -> list[str]:
    """Find markup of ansible-doc that ends within parentheses of its own, so that the rest stands behind it."""
    return [
        match[0]
        for match in MACRO.finditer(source)
        if match["value"].count("(") != (match["value"].count("\\)") if match["escaping"] else 0)
    ]


@pytest.mark.parametrize("path", [*below("plugins", ".py"), *below("roles", "argument_specs.yml")], ids=str)
def test_markup_ends_where_it_should(path: Path) -> None:
    """Seen by ansible-doc."""
    assert find_open_macros(text(path)) == []


def test_open_markup_is_found() -> None:
    """One that ends too early; a backslash counts in V, and not in C."""
    assert find_open_macros(r"C(f(x)) and V(%(name\)s) and O(a) and C(f(y\))") == ["C(f(x)", r"C(f(y\))"]


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the ``window_steps`` of the first example that has some."""
    for example in find_yaml(text(path)):
        data = yaml.safe_load(example)
        data = data.get("all", {}).get("vars", data) if isinstance(data, dict) else {}
        if "window_steps" in data:
            steps: list[dict[str, Any]] = data["window_steps"]
            return steps
    raise AssertionError(f"{path} has no example of window_steps")


@pytest.mark.parametrize("path", [Path("README.md"), Path("docs/window.md"), Path("docs/writing-a-step.md")], ids=str)
def test_documented_steps_are_accepted(path: Path) -> None:
    """With a group for each that is named."""
    groups = {name: [f"{name}_host"] for name in ("control", "databases", "workloads", "web_servers")}
    assert list(Declaration.from_entries(read_steps(path), Inventory(groups, "control_host", lambda file: file)))


def test_keys_of_steps_are_documented() -> None:
    """Every key of the declaration, and no other."""
    documented = find_rows(text(Path("docs/window.md")), "Declaring the steps")
    assert set(documented) == {item.name for item in fields(Step)} | {"hosts"}


def test_states_are_documented() -> None:
    """How a window ends."""
    assert list(find_rows(text(Path("docs/window.md")), "How a window ends")) == list(FINAL_STATES)


def test_events_of_the_journal_are_documented() -> None:
    """Each kind with its keys, and the keys that all have."""
    rows = find_rows(text(Path("docs/journal.md")), "Format")
    common = {item.name for item in fields(Event)}
    kinds = {name: keys for name, keys in rows.items() if name in KINDS}
    assert kinds == {
        name: [item.name for item in fields(kind) if item.name not in common] for name, kind in KINDS.items()
    }
    assert set(rows) - set(kinds) == {*common, "v", "n", "sum", "event"}


def test_variables_that_a_window_sets_are_documented() -> None:
    """Those that a role is given."""
    performed = load_yaml(Path("roles/window/tasks/perform_role.yml"))[0]["vars"]
    assert set(find_rows(text(Path("docs/writing-a-step.md")), "Variables that a window sets")) == set(performed)


def test_the_glossary_is_short() -> None:
    """A word that needs an entry is one that should not be there."""
    words = re.findall(r"^\*\*(.+?)\*\*:", text(Path("docs/glossary.md")), re.MULTILINE)
    assert 0 < len(words) <= WORDS
    assert len(set(words)) == len(words)


def test_rows_are_found_below_their_heading() -> None:
    """The first name of the first cell, the names of the last one."""
    page = "\n## A\n| `a` | x | `b`, `c` |\n| d | `e` |\n\n## B\n| `f` | g |\n"
    assert find_rows(page, "A") == {"a": ["b", "c"]}
    assert find_rows(page, "B") == {"f": []}
