# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a failed window ends when only reading steps failed, and which message of a failed task is told."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._window.model import Window, read
from ansible_collections.lowtide.ops.plugins.module_utils._window.results import describe_error
from ansible_collections.lowtide.ops.plugins.module_utils._window.steps import Steps

STEPS = [{"name": "health", "reads_only": True}, {"name": "work"}]
FAILED_END = {"kind": "end", "ok": False, "changed": False, "error": "no", "refused": False}
DONE_END = {"kind": "end", "ok": True, "changed": True, "summary": "did it", "closes": None, "closes_all": False}


def state(*records: dict[str, Any]) -> str:
    """State of a window with ``records`` of (kind, step, host) after its opening."""
    whole: list[dict[str, Any]] = [{"kind": "open", "at": 1.0, "name": "weekly"}, *records]
    occurrence = read(
        [{"host": "db1", **record, "id": "weekly@1", "run": 1} for record in whole], identity="weekly@1", run=1
    )
    selected = frozenset({"health", "work"})
    return Window(Steps(STEPS), occurrence, selected=selected, control="ctl", ends=600.0).state()


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{**FAILED_END, "step": "health"}], "refused"),
        ([{**FAILED_END, "step": "work"}], "failed_closed"),
        ([{**FAILED_END, "step": "work", "refused": True}], "refused"),
        ([{**FAILED_END, "step": "health"}, {**FAILED_END, "step": "work"}], "failed_closed"),
        ([{**DONE_END, "step": "work"}, {**FAILED_END, "step": "health"}], "failed_closed"),
    ],
    ids=["reader", "worker", "worker_that_refused", "both", "reader_after_a_change"],
)
def test_a_failure_of_reading_steps_alone_is_a_refusal(records: list[dict[str, Any]], expected: str) -> None:
    assert state(*records) == expected


@pytest.mark.parametrize(("step", "expected"), [("health", "refused"), ("work", "failed_closed")])
def test_a_step_that_never_ended_may_have_changed_something_unless_it_only_reads(step: str, expected: str) -> None:
    begun = {"kind": "begin", "step": step, "closer": None}
    died = {"kind": "failure", "step": step, "error": "it was begun and never ended", "refused": False}
    assert state(begun, died) == expected


def test_of_a_loop_the_first_failed_item_is_told() -> None:
    items: list[Any] = [
        {"msg": "fine"},
        {"failed": True, "msg": "db1: too full", "error": {"refused": True}},
        {"failed": True, "msg": "db2: later"},
    ]
    loop = {"msg": "One or more items failed", "failed": True, "results": items}
    assert describe_error(loop, {"name": "Vacuum"}) == ("Vacuum: db1: too full", True)
    assert describe_error({**loop, "results": items[:1]}, {"name": "Vacuum"}) == (
        "Vacuum: One or more items failed",
        False,
    )
    hidden = describe_error(loop, {"name": "Vacuum", "no_log": True})
    assert hidden == ("Vacuum: failed (its output is hidden by no_log)", False)
