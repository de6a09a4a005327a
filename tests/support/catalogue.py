# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The coverage catalogue: which procedure of the guides is performed by what, and which test proves it.

A claim is one line in ``docs/coverage/procedures.yml`` (what performs it); its proof is a marker on a test,
``@pytest.mark.procedure("A18")``, or ``proves_procedures: [A18]`` among the vars of a play in a scenario's
``verify.yml``. Neither counts without the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import checkout
from .rules import dotted

DATA = Path("docs/coverage/procedures.yml")
PAGE = Path("docs/coverage/README.md")
# The guides' own numbering: letters and how many procedures each has.
GUIDES = {"A": 30, "B": 33, "C": 27, "D": 28, "E": 19}
EXISTING = {"module": checkout.module_names, "role": checkout.role_names, "playbook": checkout.playbook_names}
MARKER = "pytest.mark.procedure"
SWEEP = "pytest.mark.sweep"


@dataclass(frozen=True)
class Proof:
    """A test that proves procedures: its node id, and the source in which what it tests is named."""

    node: str
    source: str


@dataclass
class Row:
    """One procedure: its title, what performs it, what of it is not done, and the tests that prove it."""

    title: str
    by: list[str] = field(default_factory=list)
    note: str = ""
    proofs: list[Proof] = field(default_factory=list)


def all_ids() -> list[str]:
    """The 137 ids, in the order of the guides."""
    return [f"{guide}{number}" for guide, count in GUIDES.items() for number in range(1, count + 1)]


def _marked_ids(expression: ast.expr) -> list[str]:
    """Ids in one decorator, or in the value of ``pytestmark``."""
    if isinstance(expression, ast.List | ast.Tuple):
        return [found for element in expression.elts for found in _marked_ids(element)]
    if isinstance(expression, ast.Call) and dotted(expression.func) == MARKER:
        return [str(ast.literal_eval(argument)) for argument in expression.args]
    return []


def _marks_of_body(body: list[ast.stmt]) -> list[str]:
    """Ids that ``pytestmark = ...`` gives to everything in a module or class."""
    return [
        found
        for statement in body
        if isinstance(statement, ast.Assign) and any(dotted(target) == "pytestmark" for target in statement.targets)
        for found in _marked_ids(statement.value)
    ]


def python_proofs(path: str, source: str) -> Iterator[tuple[str, Proof]]:
    """Every pair of an id and a test function that carries it, itself or by its class or module.

    A test that is marked ``sweep`` proves nothing: `make test` does not run it.
    """

    def walk(body: list[ast.stmt], prefix: str, inherited: list[str]) -> Iterator[tuple[str, Proof]]:
        inherited = inherited + _marks_of_body(body)
        for statement in body:
            if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if any(dotted(decorator) == SWEEP for decorator in statement.decorator_list):
                    continue
                own = [found for decorator in statement.decorator_list for found in _marked_ids(decorator)]
                node = f"{prefix}::{statement.name}"
                if isinstance(statement, ast.ClassDef):
                    yield from walk(statement.body, node, inherited + own)
                elif statement.name.startswith("test_"):
                    yield from ((found, Proof(node, source)) for found in dict.fromkeys(inherited + own))

    yield from walk(ast.parse(source).body, path, [])


def scenario_proofs(path: str, plays: list[dict[str, Any]], source: str) -> Iterator[tuple[str, Proof]]:
    """Every id that a play of a scenario's ``verify.yml`` says it proves."""
    for play in plays:
        for found in (play.get("vars") or {}).get("proves_procedures", []):
            yield str(found), Proof(path, source)


def proofs_of_checkout() -> list[tuple[str, Proof]]:
    """All pairs of id and proof, in the order of files and lines."""
    found: list[tuple[str, Proof]] = []
    for path in checkout.python_files("tests"):
        if path.name.startswith("test_"):
            found.extend(python_proofs(str(path), checkout.text(path)))
    for path in checkout.files("molecule/*/verify.yml"):
        scenario = path.parent
        source = "\n".join(checkout.text(part) for part in checkout.below(str(scenario), ".yml"))
        found.extend(scenario_proofs(str(path), checkout.load_yaml(path) or [], source))
    return found


def rows_from(data: Mapping[str, Any], proofs: list[tuple[str, Proof]]) -> dict[str, Row]:
    """The catalogue's rows by id, with each proof at its row; proofs of unknown ids are in no row."""
    rows = {
        key: Row(title=str(value["title"]), by=list(value.get("by") or []), note=str(value.get("note", "")))
        for key, value in data["procedures"].items()
    }
    for key, proof in proofs:
        if key in rows:
            rows[key].proofs.append(proof)
    return rows


def findings(data: Mapping[str, Any], proofs: list[tuple[str, Proof]], existing: Mapping[str, list[str]]) -> list[str]:
    """Everything that is claimed and not shown, shown and not claimed, missing, unknown, or not there at all."""
    rows = rows_from(data, proofs)
    found = [f"{key} is missing from {DATA}" for key in all_ids() if key not in rows]
    found += [f"{key} is no procedure of the guides" for key in rows if key not in set(all_ids())]
    found += [f"{proof.node} proves {key}, which is no row" for key, proof in proofs if key not in rows]
    for key, row in rows.items():
        if row.by and not row.proofs:
            found.append(f"{key} claims {', '.join(row.by)}; no test is marked with it")
        if row.proofs and not row.by:
            found.append(
                f"{row.proofs[0].node} proves {key}, whose row names nothing that performs it (add `by` in {DATA})"
            )
        for claim in row.by:
            kind, _space, name = claim.partition(" ")
            if name not in existing.get(kind, []):
                found.append(f"{key} claims {claim}, which does not exist")
            elif row.proofs and not any(name in proof.source for proof in row.proofs):
                found.append(f"{key} claims {claim}, which none of its tests so much as names")
    return found


def page(data: Mapping[str, Any], rows: Mapping[str, Row]) -> str:
    """The catalogue as Markdown: how much is done, then a table for each guide."""
    done = sum(bool(row.by) for row in rows.values())
    lines = [
        "# Coverage catalogue",
        "",
        "Which procedure of the five operations guides is performed by what, and which test proves it.",
        "Generated by `tests/catalogue.py` from `procedures.yml` and the marks on tests; a test compares them.",
        "",
        f"**{done} of {len(rows)}** procedures are performed and proven, wholly or as noted.",
    ]
    for guide, title in data["guides"].items():
        lines += ["", f"## {guide}. {title}", "", "| id | procedure | performed by | proven by |", "|---|---|---|---|"]
        for key, row in rows.items():
            if not key.startswith(guide):
                continue
            performed = (
                ", ".join(f"{claim.partition(' ')[0]} `{claim.partition(' ')[2]}`" for claim in row.by) or "not yet"
            )
            if row.note:
                performed += f" ({row.note})"
            proven = "<br>".join(f"`{proof.node}`" for proof in row.proofs)
            lines.append(f"| {key} | {row.title} | {performed} | {proven} |")
    return "\n".join(lines) + "\n"


def checkout_page() -> str:
    """The page as the checkout's data and tests have it now."""
    data = checkout.load_yaml(DATA)
    return page(data, rows_from(data, proofs_of_checkout()))


def checkout_findings() -> list[str]:
    """The findings of the checkout as it is on disk."""
    existing = {kind: names() for kind, names in EXISTING.items()}
    return findings(checkout.load_yaml(DATA), proofs_of_checkout(), existing)
