# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Events: each comes back from JSON as it was, whatever is in it; what is not known is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window import events
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    FORMAT,
    KINDS,
    Event,
    StepFailed,
    StepReverted,
    WindowClosed,
    decode,
    encode,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.results import MAX_TEXT, RoleResult, describe_error

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    str | None: st.none() | st.text(max_size=20),
    int: st.integers(0, 10**9),
    float: st.floats(0, 1e12),
    bool: st.booleans(),
    list[str]: st.lists(st.text(max_size=20), max_size=3),
    list[dict[str, Any]]: st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=3),
    dict[str, str]: st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    list[dict[str, str]]: st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), max_size=3),
}


@st.composite
def drawn_events(draw: st.DrawFn) -> Event:
    """Any event."""
    kind = draw(st.sampled_from(list(KINDS.values())))
    hints = get_type_hints(kind)
    return kind(**{item.name: draw(VALUES[hints[item.name]]) for item in dataclasses.fields(kind)})


@given(drawn_events())
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert decode(json.loads(json.dumps(encode(event))), source="J") == event


def test_every_event_is_a_kind() -> None:
    declared = {
        name
        for name, value in vars(events).items()
        if isinstance(value, type) and issubclass(value, Event) and value not in {Event, events.StepEvent}
    }
    assert declared == KINDS.keys()


def test_a_key_of_a_later_release_is_ignored_and_one_with_a_default_may_be_missing() -> None:
    values = {"v": FORMAT, "event": "StepFailed", "step": "a", "host": "h", "error": "no", "refused": True, "later": 1}
    assert decode(values, source="J") == StepFailed(step="a", host="h", error="no")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"event": "WindowClosed", "state": "succeeded"}, "no version"),
        ({"v": "1", "event": "WindowClosed", "state": "succeeded"}, "no version"),
        ({"v": 1, "state": "succeeded"}, "unknown event None"),
        ({"v": 1, "event": "StepPaused"}, "unknown event 'StepPaused'"),
        ({"v": 1, "event": "Event"}, "unknown event 'Event'"),
        ({"v": 1, "event": "WindowClosed"}, "WindowClosed without state"),
        ({"v": 1, "event": "StepReverted", "by": "x"}, "StepReverted without step, host"),
    ],
)
def test_what_is_not_known_is_no_event(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode(values, source="J")


def test_a_later_format_is_refused_by_name() -> None:
    with pytest.raises(
        Refusal, match=r"journal J: it has format 2, and this version of lowtide\.ops knows 1\. Run the"
    ):
        decode({"v": FORMAT + 1, "event": "WindowPaused"}, source="J")


def test_an_event_of_a_step_has_a_key() -> None:
    assert StepReverted(step="a", host="h", by="x").key == ("a", "h")
    assert not hasattr(WindowClosed(state="succeeded"), "key")


# -- what is kept of a role's result --------------------------------------------------------------------------------


def test_of_a_result_at_most_fifty_items_are_kept_and_long_lines_are_cut() -> None:
    result = RoleResult.from_value(
        {
            "changed": True,
            "summary": "s" * (MAX_TEXT + 1),
            "plan": [{"object": number} for number in range(51)],
            "blockers": [{"object": number} for number in range(51)],
            "evidence": ["e" * (MAX_TEXT + 1)] * 51,
        },
        otherwise_changed=False,
    )
    assert (len(result.plan), len(result.blockers), len(result.evidence)) == (50, 50, 50)
    assert result.plan[-1] == result.blockers[-1] == {"object": 49}
    assert (len(result.summary), len(result.evidence[0])) == (MAX_TEXT, MAX_TEXT)


@pytest.mark.parametrize("value", [None, "text", [], {"summary": "x"}])
@pytest.mark.parametrize("otherwise", [True, False])
def test_a_role_without_a_result(value: Any, otherwise: bool) -> None:
    assert RoleResult.from_value(value, otherwise_changed=otherwise) == RoleResult(
        False, otherwise, "it gave no result"
    )


def test_what_is_no_list_of_dictionaries_is_left_out() -> None:
    values = {"changed": 0, "summary": None, "plan": "x", "blockers": [1, {"object": "o"}], "evidence": {"a": 1}}
    result = RoleResult.from_value(values, otherwise_changed=True)
    assert (result.given, result.changed, result.summary) == (True, False, "")
    assert (result.plan, result.blockers, result.evidence) == ([], [{"object": "o"}], [])
    assert RoleResult.from_value({"changed": True, "evidence": [1, "two"]}, otherwise_changed=False).evidence == [
        "1",
        "two",
    ]


LOOP = {"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "no", "plan": [{}]}]}


@pytest.mark.parametrize(
    ("result", "task", "error"),
    [
        ({"msg": "no"}, {"name": "Back up"}, "Back up: no"),
        ({"msg": "no", "error": {"refused": True}}, {"action": "pg_backup"}, "pg_backup: no"),
        ({"msg": "secret"}, {"name": "Log in", "no_log": True}, "Log in: failed (its output is hidden by no_log)"),
        ({"msg": "no"}, {"name": "Log in", "no_log": "False"}, "Log in: no"),
        ({"msg": "no"}, {"name": "Log in", "no_log": "no"}, "Log in: no"),
        ({"msg": "secret"}, {"name": "Log in", "no_log": "True"}, "Log in: failed (its output is hidden by no_log)"),
        ({"msg": "secret"}, {"name": "L", "no_log": "{{ hide }}"}, "L: failed (its output is hidden by no_log)"),
        ({"msg": "secret", "_ansible_no_log": True}, None, "task: failed (its output is hidden by no_log)"),
        (None, None, "task: failed"),
        ({"msg": "step x: no"}, {"action": "lowtide.ops.window"}, "step x: no"),
        (LOOP, {"name": "Loop"}, "Loop: no"),
        ({"results": [{"msg": "fine"}], "msg": "all"}, {"name": "Loop"}, "Loop: all"),
        ({"msg": "x" * 3000}, {"name": "T"}, "T: " + "x" * MAX_TEXT),
    ],
)
def test_a_failed_task_in_words(result: Any, task: Any, error: str) -> None:
    assert describe_error(result, task).error == error


def test_a_failed_task_keeps_plan_and_blockers_of_the_item_that_failed() -> None:
    assert describe_error(LOOP, None).plan == [{}]
    blockers = [{"object": "lock"}] * 51
    assert describe_error({"msg": "no", "blockers": blockers}, None).blockers == blockers[:50]
