# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one line and the evidence of pg_maintenance and pg_maintenance_info."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome, PlanItem
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import summary

PLAN = [PlanItem("table a", "VACUUM", "15 % dead rows"), PlanItem("index i", "REINDEX", "60 % wasted")]
DONE = [
    {"object": "table a", "what": "VACUUM", "why": "15 % dead rows", "seconds": 0.31},
    {"object": "index i", "what": "REINDEX", "why": "60 % wasted", "seconds": 75.2},
]
LEFT = [{"object": "table b", "what": "VACUUM", "why": "no lock within 5 s"}]


def facts(**more: Any) -> dict[str, Any]:
    """What the module knows after its reading."""
    return {
        "database": "shop",
        "server": "10.0.0.1",
        "system_identifier": "7",
        "tables_assessed": 12,
        "transaction_id_age": 4711,
        "done": [],
        "not_done": [],
        "invalid_indexes_left": [],
        **more,
    }


@pytest.mark.parametrize(
    ("known", "plan", "check_mode", "expected"),
    [
        (facts(), [], False, "12 tables of shop in condition"),
        (facts(), PLAN[:1], True, "would do 1 of 1 step on 12 tables of shop: VACUUM of table a (15 % dead rows)"),
        (
            facts(done=DONE),
            PLAN,
            False,
            "did 2 of 2 steps on 12 tables of shop: VACUUM of table a (15 % dead rows), REINDEX of index i (60 % wasted)",
        ),
        (
            facts(done=DONE[:1], not_done=LEFT),
            PLAN,
            False,
            "did 1 of 2 steps on 12 tables of shop: VACUUM of table a (15 % dead rows); 1 left, first table b: no lock within 5 s",
        ),
        (
            facts(done=DONE),
            PLAN[:1],
            False,
            "did 2 of 2 steps on 12 tables of shop: VACUUM of table a (15 % dead rows), REINDEX of index i (60 % wasted)",
        ),
        (
            facts(not_done=LEFT),
            PLAN,
            False,
            "nothing done on 12 tables of shop; 1 left, first table b: no lock within 5 s",
        ),
        (
            facts(not_done=LEFT),
            [],
            True,
            "nothing done on 12 tables of shop; 1 left, first table b: no lock within 5 s",
        ),
    ],
    ids=["nothing_due", "predicted", "done", "found_later", "half_done", "locked", "blocked"],
)
def test_maintenance(known: dict[str, Any], plan: list[PlanItem], check_mode: bool, expected: str) -> None:
    """What was done and why, and what was left and why."""
    assert summary.summarize_maintenance(known, plan, check_mode=check_mode) == expected


def test_assessment() -> None:
    """What is due."""
    assert summary.summarize_assessment(facts(), []) == "12 tables of shop in condition"
    assert (
        summary.summarize_assessment(facts(not_done=LEFT), PLAN[:1])
        == "1 step due on 12 tables of shop: VACUUM of table a (15 % dead rows); 1 left"
    )
    assert (
        summary.summarize_assessment(facts(not_done=LEFT), [])
        == "0 steps due on 12 tables of shop: nothing that can be done; 1 left"
    )


def test_evidence() -> None:
    """The server, each step with its duration, what is left; bounded."""
    lines = summary.list_evidence(facts(done=DONE, invalid_indexes_left=["public.i"]))
    assert lines == [
        "database shop on 10.0.0.1, system identifier 7: 12 tables assessed, transaction id age 4711",
        "VACUUM of table a: 0.3 s",
        "REINDEX of index i: 1 min 15 s",
        "invalid index left: public.i",
    ]
    many = summary.list_evidence(facts(done=DONE * 30))
    assert len(many) == summary.EVIDENCE_LIMIT + 2
    assert many[-1] == "40 more steps done"


def test_nothing_is_said_before_the_state_is_known() -> None:
    """A refused connection leaves it empty."""
    outcome = Outcome()
    summary.tell_maintenance(outcome, check_mode=False)
    assert (outcome.summary, outcome.evidence) == ("", [])
