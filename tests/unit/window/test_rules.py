# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules, as tables of events, question and answer: what is due, what one host does, what it must not start."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Declaration
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.rules import (
    NOT_ASSIGNED,
    RESTORE,
    Decision,
    WindowRules,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.state import WindowState

from .builders import (
    ask,
    close,
    declare,
    fail,
    find_number,
    make_rules,
    make_step,
    open_window,
    plan,
    reach,
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


def decide(rules: WindowRules, step: str, host: str, *, batch: int = 0, now: float = NOW, **context: Any) -> Decision:
    """Return what a host does about the play of a step."""
    return rules.decide(find_number(rules, step, batch), ask(host, **context), now=now)


def come(step: str, *events: Event, batch: int = 0, **opening: Any) -> WindowRules:
    """Return the rules at the play of a step, after these events."""
    return make_rules(*events, *reach_until(step, batch, opening.get("declaration")), **opening)


def test_an_occurrence_without_an_opening_is_refused() -> None:
    with pytest.raises(Refusal, match=r"window: its journal has no opening. Run the playbook restore_service"):
        WindowRules(WindowState())


# -- whether a step is due anywhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "due"),
    [
        (NOTHING_DUE, set()),
        (MAINTAIN_DUE, {"save", "quiesce", "maintain", "resume", "verify"}),
        ([plan("save", "db1"), *NOTHING_DUE[1:]], {"save", "verify"}),
        ([*NOTHING_DUE[:2], *MAINTAIN_DUE], {"quiesce", "maintain", "resume", "verify"}),
        ([*NOTHING_DUE, plan("resume", "web1", reverts="quiesce")], {"resume", "verify"}),
        ([*NOTHING_DUE, start("save", "db1")], {"verify"}),
    ],
    ids=["nothing", "maintain", "save", "maintain_only", "found_stopped", "started"],
)
def test_what_is_due(events: list[Event], due: set[str]) -> None:
    rules = make_rules(*events)
    assert {step.name for step in rules.declaration if rules.is_due(step.name)} == due


def test_what_is_left_out_is_not_due_but_what_is_in_force_is_reverted() -> None:
    rules = make_rules(*MAINTAIN_DUE, selected=["save"])
    assert [step.name for step in rules.declaration if rules.is_due(step.name)] == ["save"]
    rules = make_rules(*stop_and_start(), selected=["save"])
    assert rules.is_due("resume")
    assert not rules.is_due("quiesce")


def test_a_plain_step_is_due_until_it_is_done_everywhere() -> None:
    declaration = declare(make_step("a"))
    assert make_rules(declaration=declaration).is_due("a")
    assert make_rules(succeed("a", "web1"), declaration=declaration).is_due("a")
    assert not make_rules(succeed("a", "web1"), succeed("a", "web2"), declaration=declaration).is_due("a")


ONLY_AFTER_WHAT_IT_NEEDS = [
    make_step("stop"),
    make_step("work", "db", needs="stop", plan=True),
    make_step("also", "db", needs="stop", only_after="stop"),
    make_step("start", None, reverts="stop"),
]


@pytest.mark.parametrize("due", [True, False])
def test_a_step_that_is_due_only_after_what_it_needs_makes_nothing_due(due: bool) -> None:
    rules = make_rules(plan("work", "db1", due=due), declaration=declare(*ONLY_AFTER_WHAT_IT_NEEDS))
    assert {rules.is_due(step.name) for step in rules.declaration} == {due}
    assert decide(come_to_stop(due), "stop", "web1") == (
        Decision(True, "needed by work, also")
        if due
        else Decision(False, "no due step needs it", record=True, not_due=True)
    )


def come_to_stop(due: bool) -> WindowRules:
    """Return the rules at the first play of such a window."""
    return come("stop", plan("work", "db1", due=due), declaration=declare(*ONLY_AFTER_WHAT_IT_NEEDS))


# -- what one host does ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "host", "events", "answer"),
    [
        ("save", "ctl", [], NOT_ASSIGNED),
        ("save", "web1", [], NOT_ASSIGNED),
        ("save", "db1", [plan("save", "db1")], Decision(True, "save is due")),
        ("save", "db1", [plan("save", "db1", due=False)], SAVE_NOT_DUE),
        ("quiesce", "web1", MAINTAIN_DUE, Decision(True, "needed by maintain")),
        ("quiesce", "web1", NOTHING_DUE, Decision(False, "no due step needs it", record=True, not_due=True)),
        ("resume", "web1", stop_and_start(), Decision(True, "reverts quiesce")),
        ("resume", "web2", stop_and_start(), NOT_IN_FORCE),
        ("resume", "web1", [plan("resume", "web1", reverts="quiesce")], Decision(True, "reverts quiesce")),
        ("resume", "web1", [*stop_and_start(), fail("maintain", "db1")], Decision(True, "reverts quiesce")),
        (
            "verify",
            "web1",
            NOTHING_DUE,
            Decision(False, "none of resume, save was performed", record=True, not_due=True),
        ),
        ("verify", "web1", [start("save", "db1"), succeed("save", "db1")], Decision(True, "not planned: always due")),
        ("verify", "web1", [start("save", "db1"), fail("save", "db1", error="no")],
         Decision(False, "skipped after the failure of save on db1", record=True)),
        ("verify", "web1", [fail("resume", "web1", planning=True)],
         Decision(False, "skipped after the failure of resume on web1", record=True)),
        ("save", "db1", [start("save", "db1"), succeed("save", "db1")],
         Decision(False, "done at 1970-01-01T00:16:42Z", record=True)),
    ],
)  # fmt: skip
def test_decide(step: str, host: str, events: list[Event], answer: Decision) -> None:
    assert decide(come(step, *events), step, host) == answer


def test_a_planned_step_that_was_not_planned_in_this_run_is_refused() -> None:
    with pytest.raises(Refusal, match="step save on db1: whether it is due was not found out in this run"):
        decide(come("save"), "save", "db1")


@pytest.mark.parametrize("step", ["save", "quiesce"])
def test_what_window_only_and_window_skip_leave_out(step: str) -> None:
    rules = come(step, *MAINTAIN_DUE, plan("save", "db1"), selected=["verify"])
    host = "db1" if step == "save" else "web1"
    assert decide(rules, step, host) == Decision(False, "left out by window_only or window_skip", record=True)


def test_a_reverting_step_that_was_left_out_reverts_all_the_same() -> None:
    assert decide(come("resume", selected=["save"], inherited=INHERITED), "resume", "web1").perform


def test_a_reversible_step_that_nothing_needs_by_declaration() -> None:
    declaration = declare(make_step("freeze"), make_step("thaw", None, reverts="freeze"))
    assert decide(come("freeze", declaration=declaration), "freeze", "web1") == Decision(
        True, "declared without a step that needs it"
    )


def test_a_reverting_step_on_other_hosts_reverts_what_is_in_force_anywhere() -> None:
    declaration = declare(make_step("stop"), make_step("start", "ctl", reverts="stop"))
    stopped = [start("stop", "web1", reverted_by="start"), succeed("stop", "web1")]
    assert decide(come("start", *stopped, declaration=declaration), "start", "ctl").perform
    assert not decide(come("start", declaration=declaration), "start", "ctl").perform


# -- the order of plays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reached", "play", "words"),
    [
        (
            [],
            1,
            "play of step quiesce: it comes before that of save, and window_steps declares save before quiesce. Put",
        ),
        ([0, 1], 3, "play of step maintain: it comes before that of maintain, .* maintain before maintain"),
        ([0, 1, 2, 3], 5, "play of step verify: it comes before that of resume, .* resume before verify"),
        ([0, 1, 2], 1, "play of step quiesce: it comes after that of maintain, .* quiesce before maintain"),
        ([0, 1, 2, 3], 2, "play of step maintain: it comes after that of maintain"),
    ],
)
def test_a_play_out_of_order_is_refused(reached: list[int], play: int, words: str) -> None:
    plays = declare().plays
    rules = make_rules(*(reach(plays[number].step, plays[number].batch) for number in [*reached, play]))
    with pytest.raises(Refusal, match=words):
        rules.decide(play, ask(plays[play].hosts[0]), now=NOW)


def test_a_play_that_was_left_out_need_not_be_reached_but_a_reverting_one_must() -> None:
    rules = make_rules(*MAINTAIN_DUE, reach("quiesce"), selected=["quiesce", "maintain", "resume", "verify"])
    assert decide(rules, "quiesce", "web1").perform
    only = make_rules(
        start("save", "db1"), *reach_until("save"), *reach_until("verify")[-1:], selected=["save", "verify"]
    )
    with pytest.raises(Refusal, match="it comes before that of resume"):
        decide(only, "verify", "web1")


def test_a_reverting_step_is_never_refused_for_the_order_of_plays() -> None:
    rules = make_rules(*stop_and_start(), reach("quiesce"), reach("verify"), reach("resume"))
    assert decide(rules, "resume", "web1").perform


# -- needs ----------------------------------------------------------------------------------------------------------

CHAIN = [make_step("a"), make_step("b", "db", needs="a")]


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([], "web1"),
        ([start("a", "web1"), succeed("a", "web1")], "web2"),
        ([start("a", "web1"), succeed("a", "web1"), start("a", "web2")], "web2"),
        ([start("a", "web1"), succeed("a", "web1"), skip("a", "web2")], "web2"),
        ([start("a", "web1"), succeed("a", "web1"), skip("a", "web2", not_due=True)], None),
        ([start("a", "web1"), succeed("a", "web1"), start("a", "web2"), succeed("a", "web2")], None),
    ],
)
def test_a_step_needs_a_plain_step_done_on_every_host(events: list[Event], missing: str | None) -> None:
    rules = come("b", *events, declaration=declare(*CHAIN))
    if missing is None:
        assert decide(rules, "b", "db1").perform
    else:
        with pytest.raises(Refusal, match=f"step b: it needs a, which is not done on {missing}. See why a did not run"):
            decide(rules, "b", "db1")


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([], "web1"),
        ([*stop_and_start("web1")], "web2"),
        ([*stop_and_start("web1"), start("quiesce", "web2", reverted_by="resume")], "web2"),
        ([*stop_and_start("web2"), skip("quiesce", "web1", not_due=True)], "web1"),
        ([*stop_and_start("web1"), *stop_and_start("web2")], None),
        # In force by an older occurrence: only what this one did counts.
        ([*stop_and_start("web2"), plan("resume", "web1", reverts="quiesce")], "web1"),
        # Done and reverted again.
        (
            [
                *stop_and_start("web1"),
                *stop_and_start("web2"),
                start("resume", "web2"),
                succeed("resume", "web2", reverts="quiesce"),
            ],
            "web2",
        ),
    ],
)
def test_a_step_needs_a_reversible_step_in_force_on_every_host(events: list[Event], missing: str | None) -> None:
    rules = come("maintain", *MAINTAIN_DUE, *events)
    if missing is None:
        assert decide(rules, "maintain", "db1").perform
    else:
        with pytest.raises(Refusal, match=f"step maintain: it needs quiesce, which is not in force on {missing}"):
            decide(rules, "maintain", "db1")


def test_a_step_that_is_not_due_needs_nothing() -> None:
    assert decide(come("maintain", *NOTHING_DUE, batch=1), "maintain", "db2", batch=1).not_due


# -- resuming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "again"),
    [({}, False), ({"reads_only": True}, True), ({"plan": True}, True)],
    ids=["plain", "reader", "planned"],
)
def test_after_a_resume_only_a_plain_step_stays_done(keys: dict[str, Any], again: bool) -> None:
    declaration = declare(make_step("a", **keys))
    done = [start("a", "web1"), succeed("a", "web1"), close("failed_reverted")]
    plans = [plan("a", host) for host in ("web1", "web2")] if keys.get("plan") else []
    rules = come("a", *done, open_window(declaration), *plans, declaration=declaration)
    assert rules.state.resumed
    assert decide(rules, "a", "web1").perform is again
    same_run = come("a", *plans, *done[:2], declaration=declaration)
    assert not decide(same_run, "a", "web1").perform
    assert decide(same_run, "a", "web2").perform


def test_after_a_resume_a_reversible_step_is_done_again() -> None:
    opening = open_window(declare())
    rules = come("quiesce", *stop_and_start(), close("failed_reverted"), opening, *MAINTAIN_DUE)
    assert decide(rules, "quiesce", "web1").perform


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"digest": "other"}, "step a on web1: it was done at 1970-01-01T00:16:42Z with other inputs. Resume weekly@"),
        ({"version": "2.0.0"}, "step a on web1: lowtide.ops 1.0.0 did it at 1970-01-01T00:16:42Z, and this is 2.0.0"),
    ],
)
def test_what_was_done_with_other_inputs_or_by_another_version_is_refused(context: dict[str, Any], words: str) -> None:
    declaration = declare(make_step("a"))
    done = [start("a", "web1"), succeed("a", "web1")]
    with pytest.raises(Refusal, match=words):
        decide(come("a", *done, open_window(declaration), declaration=declaration), "a", "web1", **context)
    assert not decide(come("a", *done, declaration=declaration), "a", "web1", **context).perform, "in the same run"


# -- time -----------------------------------------------------------------------------------------------------------


def declare_timed(reverting: float | None = 30) -> Declaration:
    """Return a window whose steps say how long they take."""
    return declare(
        make_step("stop", estimate=10),
        make_step("work", "db", needs="stop", estimate=100),
        make_step("start", None, reverts="stop", estimate=reverting),
        make_step("check", estimate=50),
    )


STOPPED = [
    event for host in ("web1", "web2") for event in (start("stop", host, reverted_by="start"), succeed("stop", host))
]
REVERTED = [
    event for host in ("web1", "web2") for event in (start("start", host), succeed("start", host, reverts="stop"))
]


@pytest.mark.parametrize(
    ("step", "events", "needed"),
    [
        ("stop", [], 40),  # with the step that will revert it
        ("work", STOPPED, 130),  # with what is in force
        ("check", [*STOPPED, *REVERTED], 50),
    ],
)
def test_a_step_must_be_over_before_the_end(step: str, events: list[Event], needed: int) -> None:
    rules = come(step, *events, declaration=declare_timed())
    host = "db1" if step == "work" else "web1"
    assert decide(rules, step, host, now=2000.0 - needed).perform
    with pytest.raises(Refusal) as caught:
        decide(rules, step, host, now=2001.0 - needed)
    tail = "" if step == "check" else " with start"
    assert str(caught.value) == (
        f"step {step}: {needed - 1} s are left until 1970-01-01T00:33:20Z, "
        f"and it is expected to take {needed} s{tail}. "
        "Start another occurrence (window_start), with a longer window_duration if it needs more time."
    )


def test_after_the_end_nothing_starts_but_what_reverts() -> None:
    with pytest.raises(
        Refusal, match=r"step work: the window ended at 1970-01-01T00:33:20Z\. Start another occurrence"
    ):
        decide(come("work", *STOPPED, declaration=declare_timed(None)), "work", "db1", now=2000.5)
    assert decide(come("start", *STOPPED, declaration=declare_timed()), "start", "web1", now=9999.0).perform


def test_without_estimates_the_end_alone_counts() -> None:
    declaration = declare(make_step("a"))
    assert decide(come("a", declaration=declaration), "a", "web1", now=2000.0).perform
    with pytest.raises(Refusal, match="the window ended at"):
        decide(come("a", declaration=declaration), "a", "web1", now=2000.1)


def test_what_is_not_due_needs_no_time() -> None:
    assert decide(come("save", *NOTHING_DUE), "save", "db1", now=9999.0).not_due


# -- planning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "host", "events", "opening", "answer"),
    [
        ("save", "db1", [], {}, Decision(True, "find out whether it is due")),
        ("save", "web1", [], {}, NOT_ASSIGNED),
        ("quiesce", "web1", [], {}, NOT_ASSIGNED),
        ("save", "db1", [], {"selected": ["verify"]}, Decision(False, "left out by window_only or window_skip")),
        ("save", "db1", [fail("save", "db2", planning=True)], {},
         Decision(False, "skipped after the failure of save on db2")),
        ("resume", "web1", [], {}, Decision(True, "find out whether quiesce is in force")),
        ("resume", "web1", [], {"selected": []}, Decision(True, "find out whether quiesce is in force")),
        ("resume", "web1", [fail("save", "db2", planning=True)], {},
         Decision(True, "find out whether quiesce is in force")),
        ("resume", "web1", [], {"inherited": INHERITED},
         Decision(False, "quiesce is in force here, as the journal says")),
        ("resume", "web2", [], {"inherited": INHERITED}, Decision(True, "find out whether quiesce is in force")),
    ],
)  # fmt: skip
def test_decide_plan(step: str, host: str, events: list[Event], opening: dict[str, Any], answer: Decision) -> None:
    assert make_rules(*events, **opening).decide_plan(step, ask(host)) == answer


@pytest.mark.parametrize(
    ("host", "opening", "steps"),
    [
        ("db1", {}, ["save", "maintain"]),
        ("web1", {}, ["resume"]),
        ("ctl", {}, []),
        ("db1", {"selected": ["verify"]}, []),
        ("web1", {"selected": ["verify"]}, ["resume"]),
        ("web1", {"mode": RESTORE}, []),
    ],
)
def test_list_planned_steps(host: str, opening: dict[str, Any], steps: list[str]) -> None:
    rules = make_rules(**opening)
    reverting = [name for name in steps if name == "resume"]
    assert rules.list_planned_steps(host, reverting=True) == reverting
    assert rules.list_planned_steps(host, reverting=False) == [name for name in steps if name not in reverting]


def test_what_is_reverted_out_of_turn() -> None:
    """At the opening and at the closing all that is in force and was not tried in vain."""

    def name(rules: WindowRules) -> list[tuple[str, int]]:
        return [(play.step, play.batch) for play in rules.list_reverts()]

    assert name(make_rules()) == []
    own = make_rules(start("quiesce", "web1", reverted_by="resume"))
    assert name(own) == [("resume", 0)]
    found = make_rules(plan("resume", "web1", reverts="quiesce"))
    assert name(found) == [("resume", 0)]
    in_vain = make_rules(
        start("quiesce", "web1", reverted_by="resume"), start("resume", "web1"), fail("resume", "web1")
    )
    assert name(in_vain) == []
    again = make_rules(
        plan("resume", "web1", reverts="quiesce"),
        start("resume", "web1"),
        succeed("resume", "web1", reverts="quiesce"),
        start("quiesce", "web1", reverted_by="resume"),
    )
    assert name(again) == [("resume", 0)], "what was reverted at the opening was stopped again"
    assert name(make_rules(start("quiesce", "web1", reverted_by="resume"), mode=RESTORE)) == []


def test_what_waits_for_its_turn_is_not_reverted_at_the_opening() -> None:
    """A service cannot be up before its database is restored; at the closing it is reverted, and after a failure."""
    steps = [make_step("stop", "web1"), make_step("mend", "db1"), make_step("go", reverts="stop", in_turn=True)]
    declaration = declare(*steps)

    def name(*events: Event) -> list[str]:
        return [play.step for play in make_rules(*events, declaration=declaration).list_reverts()]

    stopped = start("stop", "web1", reverted_by="go")
    assert name(stopped) == []
    assert name(stopped, *reach_until("mend", 0, declaration)) == ["go"]
    assert name(stopped, fail("mend", "db1")) == ["go"]


# -- restoring ------------------------------------------------------------------------------------------------------


def test_a_restore_performs_every_step_whatever_failed_and_however_late() -> None:
    declaration = declare(make_step("thaw", "web1"), make_step("resume"))
    rules = come("resume", fail("thaw", "web1"), declaration=declaration, mode=RESTORE)
    assert decide(rules, "resume", "web2", now=9999.0) == Decision(True, "restores the service")
    assert decide(rules, "resume", "ctl", now=9999.0) == NOT_ASSIGNED
    assert not rules.is_over
    early = make_rules(*reach_until("resume", 0, declaration)[-1:], declaration=declaration, mode=RESTORE)
    assert decide(early, "resume", "web2").perform, "the way back is never refused"
