# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of an occurrence: events in, state out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    Event,
    PlanStarted,
    StepReverted,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import (
    WindowState,
    compute_state,
)

from .builders import (
    close,
    compute,
    declare,
    fail,
    open_window,
    plan,
    reach,
    skip,
    stamp,
    start,
    stop_and_start,
    succeed,
)

OPEN = open_window(declare())
STOPPED = ("quiesce", "web1")
INHERITED = [{"window_id": "weekly@sunday", "step": "quiesce", "host": "web1", "reverted_by": "resume"}]


def test_nothing_is_known_before_the_opening() -> None:
    assert compute() == WindowState()
    assert not compute().finished


def test_the_first_opening() -> None:
    state = compute(OPEN)
    assert (state.opened, state.first_opened, state.resumed, state.closed) == (OPEN, 1000.0, False, None)


def test_a_step_from_its_plan_to_its_success() -> None:
    state = compute(
        OPEN,
        PlanStarted(step="save", host="db1"),
        plan("save", "db1"),
        reach("save"),
        start("save", "db1"),
        succeed("save", "db1"),
    )
    key = ("save", "db1")
    assert state.plans[key].due
    assert state.planning == set()
    assert state.reached == [("save", 0)]
    assert (state.started[key].at, state.ended[key].at) == (1004.0, 1005.0)
    assert state.succeeded[key] == state.ended[key]
    assert state.started_steps == {"save"}
    assert (list(state.order), state.failures, state.pending) == ([key], [], {})


def test_a_planning_that_did_not_end_and_one_that_failed() -> None:
    asked = [PlanStarted(step="save", host=host) for host in ("db1", "db2")]
    state = compute(OPEN, *asked, fail("save", "db1", planning=True))
    assert state.planning == {("save", "db2")}
    assert state.failed
    assert (state.ended, list(state.order)) == ({}, [])


def test_order_is_that_in_which_steps_were_first_heard_of() -> None:
    state = compute(
        OPEN,
        plan("maintain", "db1"),
        skip("save", "db1"),
        start("save", "db2"),
        start("quiesce", "web1"),
        succeed("quiesce", "web1"),
        succeed("save", "db2"),
        fail("verify", "web1"),
    )
    assert list(state.order) == [("save", "db1"), ("save", "db2"), ("quiesce", "web1"), ("verify", "web1")]


def test_a_reversible_step_is_in_force_from_its_start_until_it_is_reverted() -> None:
    begun = start("quiesce", "web1", reverted_by="resume")
    assert compute(OPEN, begun).pending == {STOPPED: "resume"}
    assert compute(OPEN, begun, fail("quiesce", "web1")).pending.keys() == {STOPPED}
    assert compute(OPEN, *stop_and_start()).pending.keys() == {STOPPED}
    reverting = [start("resume", "web1"), succeed("resume", "web1", reverts="quiesce")]
    assert compute(OPEN, *stop_and_start(), reverting[0]).pending.keys() == {STOPPED}
    assert compute(OPEN, *stop_and_start(), reverting[0], fail("resume", "web1")).pending.keys() == {STOPPED}
    assert compute(OPEN, *stop_and_start(), *reverting).pending == {}
    both = [*stop_and_start("web1"), *stop_and_start("web2")]
    assert compute(OPEN, *both).list_pending_hosts("quiesce") == ["web1", "web2"]
    assert compute(OPEN, *both, *reverting).list_pending_hosts("quiesce") == ["web2"]
    everywhere = succeed("resume", "ctl", reverts="quiesce", reverts_all=True)
    assert compute(OPEN, *both, start("freeze", "web1", reverted_by="thaw"), everywhere).pending == {
        ("freeze", "web1"): "thaw"
    }


def test_what_a_reverting_step_finds_on_the_objects_is_in_force() -> None:
    assert compute(OPEN, plan("resume", "web1", reverts="quiesce")).pending == {STOPPED: "resume"}
    assert compute(OPEN, plan("resume", "web1", due=False, reverts="quiesce")).pending == {}
    known = compute(OPEN, *stop_and_start(), plan("resume", "web1", reverts="quiesce"))
    assert known.pending == {STOPPED: "resume"}


def test_what_an_older_occurrence_left_is_in_force() -> None:
    inherits = open_window(declare(), inherited=INHERITED)
    assert compute(inherits).pending == {STOPPED: "resume"}
    assert compute(inherits, start("resume", "web1"), succeed("resume", "web1", reverts="quiesce")).pending == {}


def test_another_occurrence_reverted_it() -> None:
    reverted = StepReverted(step="quiesce", host="web1", by="restore_service@monday")
    events = [OPEN, *stop_and_start("web1"), *stop_and_start("web2"), close("failed_not_reverted")]
    state = compute(*events, reverted)
    assert state.pending.keys() == {("quiesce", "web2")}
    assert state.order == compute(*events).order
    assert compute(OPEN, reverted).pending == {}


RUN: list[Event] = [
    PlanStarted(step="save", host="db2"),
    plan("save", "db1"),
    reach("save"),
    start("save", "db1"),
    succeed("save", "db1"),
    reach("quiesce"),
    *stop_and_start(),
    skip("verify", "web1"),
    fail("maintain", "db1"),
]


def test_a_resume_clears_what_belongs_to_the_run_and_keeps_what_belongs_to_the_occurrence() -> None:
    state = compute(OPEN, *RUN, close("failed_not_reverted"), open_window(declare(), at=1500.0))
    assert (state.resumed, state.first_opened, state.closed) == (True, 1000.0, None)
    assert state.opened is not None
    assert (state.opened.at, state.opened.token) == (1500.0, 2)
    assert [state.plans, state.started, state.ended, state.skipped] == [{}, {}, {}, {}]
    assert (state.planning, state.reached, state.failures, list(state.order)) == (set(), [], [], [])
    assert state.succeeded.keys() == {("save", "db1"), STOPPED}
    assert state.started_steps == {"save", "quiesce"}
    assert state.pending == {STOPPED: "resume"}


@pytest.mark.parametrize("final", ["succeeded", "no_changes"])
def test_an_occurrence_that_came_to_a_good_end_and_is_asked_for_again_keeps_what_was_done(final: str) -> None:
    """A scheduler's retry must not do everything twice; nor does it tell the changes again."""
    done = [OPEN, start("save", "db1"), succeed("save", "db1"), close(final)]
    assert compute(*done).finished
    state = compute(*done, open_window(declare(), at=1500.0))
    assert state.succeeded.keys() == {("save", "db1")}
    assert not state.succeeded[("save", "db1")].changed
    assert (state.started_steps, state.first_opened, state.resumed) == (set(), 1000.0, True)


@pytest.mark.parametrize("final", ["failed_reverted", "failed_not_reverted", "refused"])
def test_one_that_came_to_a_bad_end_does_not(final: str) -> None:
    state = compute(OPEN, start("save", "db1"), succeed("save", "db1"), close(final), OPEN)
    assert state.resumed
    assert state.succeeded.keys() == {("save", "db1")}


def test_a_step_that_is_started_again_is_no_longer_done() -> None:
    done = [OPEN, start("save", "db1"), succeed("save", "db1"), OPEN]
    assert compute(*done).succeeded.keys() == {("save", "db1")}
    assert compute(*done, start("save", "db1")).succeeded == {}
    assert compute(*done, start("save", "db1"), fail("save", "db1")).succeeded == {}


ANY: st.SearchStrategy[list[Event]] = st.lists(
    st.sampled_from(
        [
            OPEN,
            open_window(declare(), inherited=INHERITED),
            *RUN,
            start("quiesce", "web2", reverted_by="resume"),
            start("resume", "web1"),
            succeed("resume", "web1", reverts="quiesce"),
            succeed("resume", "ctl", reverts="quiesce", reverts_all=True),
            plan("resume", "web2", reverts="quiesce"),
            StepReverted(step="quiesce", host="web1", by="x"),
            close("succeeded"),
            close("failed_reverted"),
        ]
    ),
    max_size=25,
)


@given(ANY, ANY)
def test_the_state_is_a_function_of_the_events_alone(before: Sequence[Event], after: Sequence[Event]) -> None:
    """In one go or event by event; what was computed before is not touched by what is computed later."""
    events = stamp([*before, *after])
    state = compute_state(events[: len(before)])
    copy = deepcopy(state)
    assert compute_state(events[: len(before)]) == copy
    for event in events[len(before) :]:
        state.apply(event)
    assert state == compute_state(events)


@given(ANY)
def test_a_run_begins_empty_and_what_is_in_force_has_a_step_that_reverts_it(events: list[Event]) -> None:
    state = compute(OPEN, *events, open_window(declare()))
    assert [state.plans, state.started, state.ended, state.skipped, state.failures, list(state.order)] == [{}] * 4 + [
        []
    ] * 2
    assert set(state.pending.values()) <= {"resume"}
    assert state.first_opened <= state.opened.at if state.opened else False
