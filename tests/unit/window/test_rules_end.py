# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules about the end of a window: what was not reached or abandoned, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event, PlanStarted
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.rules import (
    RESTORE,
    Decision,
    describe_pending,
)

from .builders import (
    compute,
    declare,
    fail,
    find_number,
    make_rules,
    make_step,
    open_window,
    plan,
    reach_until,
    skip,
    start,
    stop_and_start,
    succeed,
)

NOW = 1100.0
SAVE_NOT_DUE = Decision(False, "save is not due", record=True, not_due=True)
NOT_IN_FORCE = Decision(False, "quiesce is not in force here", record=True, not_due=True)
INHERITED = [{"window_id": "weekly@sunday", "step": "quiesce", "host": "web1", "reverted_by": "resume"}]
MAINTAIN_DUE = [plan("maintain", "db1"), plan("maintain", "db2", due=False)]
NOTHING_DUE = [plan(step, host, due=False) for step in ("save", "maintain") for host in ("db1", "db2")]


# -- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "over"),
    [
        ([], False),
        ([fail("save", "db1")], True),
        ([fail("save", "db1", planning=True)], True),
        ([*stop_and_start(), fail("maintain", "db1")], False),
    ],
)
def test_is_over(events: list[Event], over: bool) -> None:
    assert make_rules(*events).is_over is over


def name(failures: Any) -> list[tuple[str, str]]:
    """Return the keys of failures."""
    return [failure.key for failure in failures]


def test_what_was_started_and_never_ended_is_abandoned() -> None:
    rules = make_rules(start("save", "db1"), succeed("save", "db1"), start("save", "db2"), start("quiesce", "web1"))
    assert name(rules.find_abandoned()) == [("save", "db2"), ("quiesce", "web1")]
    assert name(rules.find_abandoned(find_number(rules, "quiesce"))) == [("save", "db2")]
    assert name(rules.find_abandoned(find_number(rules, "save"))) == [("quiesce", "web1")]
    first = rules.find_abandoned()[0]
    assert (first.error, first.planning) == (
        "it was started and never finished (host unreachable, or its process ended)",
        False,
    )
    rules = make_rules(start("save", "db1"), fail("save", "db1"), start("maintain", "db1", batch=0))
    assert rules.find_abandoned(find_number(rules, "maintain")) == []
    assert name(rules.find_abandoned(find_number(rules, "maintain", 1))) == [("maintain", "db1")]


def test_a_planning_that_did_not_end_is_abandoned_and_nothing_was_changed() -> None:
    rules = make_rules(PlanStarted(step="save", host="db2"), PlanStarted(step="save", host="db1"), plan("save", "db2"))
    for number in (None, 0):
        (failure,) = rules.find_abandoned(number)
        assert (failure.key, failure.planning) == (("save", "db1"), True)


ALL_DONE = [
    *NOTHING_DUE,
    *(skip(step.name, host, not_due=True) for step in declare() for host in step.hosts),
    *reach_until("verify"),
]


def test_what_was_due_and_was_not_reached() -> None:
    assert make_rules(*ALL_DONE).find_unreached() == []
    assert make_rules(selected=[]).find_unreached() == []
    missing = {failure.key: failure.error for failure in make_rules(*ALL_DONE[:-1]).find_unreached()}
    assert set(missing) == {("verify", "web1"), ("verify", "web2")}, "without its play nobody was asked"
    rules = make_rules(*reach_until("save"), skip("save", "db1", not_due=True))
    missing = {failure.key: failure.error for failure in rules.find_unreached()}
    assert missing.pop(("save", "db2")) == "this host was not reached (unreachable?)"
    assert missing.keys() == {
        ("quiesce", "web1"), ("quiesce", "web2"), ("maintain", "db1"), ("maintain", "db2"),
        ("resume", "web1"), ("resume", "web2"), ("verify", "web1"), ("verify", "web2"),
    }  # fmt: skip
    assert set(missing.values()) == {
        "its play was not reached: there is no play of this step between opening and closing"
    }


def test_after_a_failure_only_reverting_steps_are_missed() -> None:
    assert make_rules(fail("save", "db1")).find_unreached() == []
    (failure,) = make_rules(*stop_and_start(), fail("maintain", "db1")).find_unreached()
    assert (failure.key, failure.error) == (
        ("resume", "web1"),
        "it was to revert quiesce, and it did not run",
    )
    failed = [start("resume", "web1"), fail("resume", "web1")]
    assert make_rules(*stop_and_start(), fail("maintain", "db1"), *failed).find_unreached() == []


def test_what_is_in_force_is_missed_when_its_reverting_step_is_no_longer_declared() -> None:
    """The list was edited before the resume: nobody may call that a success and forget what is stopped."""
    declaration = declare(make_step("a"))
    done = [start("a", "web1"), succeed("a", "web1"), start("a", "web2"), succeed("a", "web2")]
    rules = make_rules(*stop_and_start(), open_window(declaration), *done, *reach_until("a", 0, declaration))
    (failure,) = rules.find_unreached()
    assert (failure.key, failure.error) == (
        ("resume", "web1"),
        "it was to revert quiesce, and window_steps does not declare it any more",
    )
    rules.state.apply(failure)
    assert rules.compute_final_state() == "failed_not_reverted"


def test_what_is_in_force_is_missed_when_its_host_left_the_group() -> None:
    smaller = declare(make_step("quiesce", "web2"), make_step("resume", None, reverts="quiesce"))
    rules = make_rules(*stop_and_start("web1"), open_window(smaller), selected=[])
    rules.state.apply(succeed("resume", "web2", reverts="quiesce"))
    assert ("resume", "web1") in name(rules.find_unreached())


def test_a_step_that_reverts_for_all_and_failed_is_not_also_missed_on_other_hosts() -> None:
    declaration = declare(make_step("stop"), make_step("start", "ctl", reverts="stop"))
    stopped = [start("stop", "web1", reverted_by="start"), succeed("stop", "web1")]
    rules = make_rules(*stopped, start("start", "ctl"), fail("start", "ctl"), declaration=declaration)
    assert rules.find_unreached() == []
    assert name(make_rules(*stopped, fail("stop", "web2"), declaration=declaration).find_unreached()) == [
        ("start", "web1")
    ]


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "no_changes"),
        ([start("save", "db1"), succeed("save", "db1", changed=False)], "no_changes"),
        ([start("save", "db1"), succeed("save", "db1")], "succeeded"),
        ([fail("save", "db1", planning=True)], "refused"),
        ([fail("save", "db1")], "refused"),  # it was never started
        ([start("save", "db1"), fail("save", "db1")], "failed_reverted"),  # it was started
        ([start("save", "db1"), fail("quiesce", "web1")], "failed_reverted"),  # unfinished: who knows
        ([start("save", "db1"), succeed("save", "db1"), fail("quiesce", "web1")], "failed_reverted"),
        ([start("save", "db1"), succeed("save", "db1", changed=False), fail("x", "h")], "refused"),
        ([start("verify", "web1"), fail("verify", "web1")], "refused"),  # only read
        ([start("verify", "web1"), fail("x", "h")], "refused"),
        ([*stop_and_start(), fail("maintain", "db1")], "failed_not_reverted"),
        ([start("quiesce", "web1", reverted_by="resume"), fail("quiesce", "web1")], "failed_not_reverted"),
        (
            [*stop_and_start(), start("resume", "web1"), succeed("resume", "web1", reverts="quiesce"), fail("x", "h")],
            "failed_reverted",
        ),
        ([start("save", "db1"), succeed("save", "db1"), open_window(declare())], "succeeded"),  # by the run before
    ],
)
def test_every_final_state(events: list[Event], state: str) -> None:
    assert make_rules(*events).compute_final_state() == state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([fail("resume", "web1")], "failed_not_reverted"),
        ([start("resume", "web1"), succeed("resume", "web1", changed=False)], "no_changes"),
        ([start("resume", "web1"), succeed("resume", "web1")], "succeeded"),
    ],
)
def test_a_restore_that_failed_has_not_restored(events: list[Event], state: str) -> None:
    declaration = declare(make_step("resume"))
    assert make_rules(*events, declaration=declaration, mode=RESTORE).compute_final_state() == state


def test_the_first_failure_is_the_cause() -> None:
    assert make_rules().describe_cause() == ""
    failures = [fail("save", "db1", planning=True, error="no"), fail("quiesce", "web1", error="later")]
    assert make_rules(*failures).describe_cause() == "plan of save on db1: no"
    assert make_rules(failures[1]).describe_cause() == "quiesce on web1: later"


def test_pending_is_told_sorted() -> None:
    state = compute(open_window(declare()), *stop_and_start("web2"), *stop_and_start("web1"))
    assert describe_pending(state) == ["quiesce on web1", "quiesce on web2"]
