# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several module results as one: skipped ones left out, everything else in order, and what is no result refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.filter.merge_results import FilterModule

merge = FilterModule().filters()["merge_results"]
STOPPED: dict[str, Any] = {
    "changed": True,
    "check_mode": False,
    "summary": "stopped w",
    "plan": [{"object": "w"}],
    "blockers": [],
    "evidence": ["w: 0 pods"],
    "requests": 5,
}
DRAINED: dict[str, Any] = {
    "changed": False,
    "check_mode": False,
    "summary": "g empty, lag 0",
    "plan": [],
    "blockers": [{"object": "g"}],
    "evidence": ["g empty"],
}
SKIPPED = {"changed": False, "skipped": True, "skip_reason": "Conditional result was False"}


def test_results_follow_each_other() -> None:
    """Keys of the contract, and no others."""
    assert merge([STOPPED, DRAINED, SKIPPED]) == {
        "changed": True,
        "check_mode": False,
        "summary": "stopped w; g empty, lag 0",
        "plan": [{"object": "w"}],
        "blockers": [{"object": "g"}],
        "evidence": ["w: 0 pods", "g empty"],
    }


@pytest.mark.parametrize(
    ("results", "changed", "check_mode"),
    [
        ([DRAINED], False, False),
        ([DRAINED, STOPPED], True, False),
        ([DRAINED, {**DRAINED, "check_mode": True}], False, True),
        ([], False, False),
    ],
)
def test_one_that_changed_is_enough(results: list[dict[str, Any]], changed: bool, check_mode: bool) -> None:
    """So is one that was in check mode."""
    merged = merge(results)
    assert (merged["changed"], merged["check_mode"]) == (changed, check_mode)


def test_nothing_performed_is_said() -> None:
    """All skipped, or an empty loop."""
    assert merge([SKIPPED])["summary"] == merge([])["summary"] == "nothing to do"
    assert merge([{"changed": False, "msg": "of a foreign module"}])["summary"] == "nothing to do"


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (STOPPED, "of type dict, not a list"),
        ("text", "of type str, not a list"),
        ([STOPPED, None], "result 1: it is NoneType 'None' and has no changed"),
        ([{"results": []}], "result 0: it is dict"),
    ],
)
def test_what_is_no_result_is_refused(results: Any, words: str) -> None:
    """By its place, with what to give instead."""
    with pytest.raises(AnsibleFilterError, match=words):
        merge(results)
