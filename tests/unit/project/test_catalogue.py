# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The coverage catalogue tells the truth; and each way of not doing so is found."""

from __future__ import annotations

from typing import Any

import pytest

from support import catalogue
from support.catalogue import Proof, all_ids, findings, page, python_proofs, rows_from, scenario_proofs
from support.checkout import text

EXISTING = {"module": ["m"], "role": ["r"], "playbook": ["p"]}
PROOF = Proof("tests/test_x.py::test_m", "uses m")


def data(**rows: Any) -> dict[str, Any]:
    """A catalogue of all ids, some of them changed."""
    procedures: dict[str, Any] = {key: {"title": f"title of {key}"} for key in all_ids()}
    return {"guides": {"A": "Guide"}, "procedures": {**procedures, **rows}}


def test_catalogue_holds() -> None:
    """No row claims what no test shows, no mark lacks its row, all 137 ids are there."""
    assert catalogue.checkout_findings() == []


def test_page_is_current() -> None:
    """The committed page is what ``tests/catalogue.py`` would write."""
    assert text(catalogue.PAGE) == catalogue.checkout_page()


def test_all_ids_of_the_guides() -> None:
    """137 procedures, as the guides number them."""
    assert len(all_ids()) == 137
    assert (all_ids()[0], all_ids()[-1]) == ("A1", "E19")


def test_a_claim_with_its_proof_holds() -> None:
    """The one way to be done."""
    assert findings(data(A1={"title": "t", "by": ["module m"]}), [("A1", PROOF)], EXISTING) == []


@pytest.mark.parametrize(
    ("row", "proofs", "said"),
    [
        ({"title": "t", "by": ["module m"]}, [], "no test is marked"),
        ({"title": "t"}, [("A1", PROOF)], "names nothing that performs it"),
        ({"title": "t", "by": ["module gone"]}, [("A1", PROOF)], "does not exist"),
        ({"title": "t", "by": ["verb m"]}, [("A1", PROOF)], "does not exist"),
        ({"title": "t", "by": ["role r"]}, [("A1", Proof("n", "nothing of the kind"))], "none of its tests"),
        ({"title": "t"}, [("Z9", PROOF)], "which is no row"),
    ],
)
def test_a_false_row_is_found(row: dict[str, Any], proofs: list[tuple[str, Proof]], said: str) -> None:
    """Unproven, unclaimed, not existing, not tested by its own tests, unknown."""
    (found,) = findings(data(A1=row), proofs, EXISTING)
    assert said in found


def test_missing_and_unknown_ids_are_found() -> None:
    """137 ids, no more, no fewer."""
    shortened = data(Z1={"title": "t"})
    del shortened["procedures"]["B7"]
    assert findings(shortened, [], EXISTING) == [
        "B7 is missing from docs/coverage/procedures.yml",
        "Z1 is no procedure of the guides",
    ]


def test_marks_are_read_from_functions_classes_and_modules() -> None:
    """A mark counts for each test below it, once."""
    source = """
import pytest
pytestmark = [pytest.mark.lab("kafka"), pytest.mark.procedure("A9")]

@pytest.mark.procedure("A15", "A9")
def test_one(): ...

@pytest.mark.sweep
@pytest.mark.procedure("A16")
def test_swept(): ...

@pytest.mark.procedure("A18")
class TestTwo:
    def test_three(self): ...
    def helper(self): ...
"""
    assert [(key, proof.node) for key, proof in python_proofs("t.py", source)] == [
        ("A9", "t.py::test_one"),
        ("A15", "t.py::test_one"),
        ("A9", "t.py::TestTwo::test_three"),
        ("A18", "t.py::TestTwo::test_three"),
    ]


def test_marks_are_read_from_scenarios() -> None:
    """A play says which procedures its assertions prove."""
    plays: list[dict[str, Any]] = [{"hosts": "bus"}, {"hosts": "database", "vars": {"proves_procedures": ["A11"]}}]
    assert [key for key, _proof in scenario_proofs("molecule/x/verify.yml", plays, "")] == ["A11"]


def test_page_shows_rows_done_and_not_done() -> None:
    """What is done names its tests; what is not says so."""
    catalogued = data(A1={"title": "t", "by": ["module m"], "note": "in part"})
    written = page(catalogued, rows_from(catalogued, [("A1", PROOF)]))
    assert "**1 of 137**" in written
    assert "| A1 | t | module `m` (in part) | `tests/test_x.py::test_m` |" in written
    assert "| A2 | title of A2 | not yet |  |" in written
