# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rpk_group's work on a bus in memory: what is refused, and that a commit is reported as what it did, however it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import (
    OpsError,
    OutcomeUnknown,
    Refusal,
)
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import errors, group
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import Group, Member, UnknownState
from unit.kafka.memory_bus import T0, T1, MemoryBus

LOADING = errors.not_ready("b:9092", "reading the offsets of group g", "COORDINATOR_LOAD_IN_PROGRESS, loading")
AWAY = errors.unreachable("b:9092", "refused")
REVOKED = errors.not_authorized("b:9092", "reading the offsets of group g", "GROUP_AUTHORIZATION_FAILED, no")
ODD = errors.unreadable("b:9092", "rpk group describe g", expected="a group", output="what?")
LOST = OutcomeUnknown(obj="group g", problem="_TIMED_OUT, no answer", next_step="Read back")


def run(bus: MemoryBus, undo: Path, *, check: bool = False, seconds: float = 0.5, **params: Any) -> Outcome:
    """Set all offsets of group g to the end; a failure leaves with the outcome in it."""
    outcome = Outcome(check_mode=check)
    options = {"name": "g", "max_skipped": 100, "undo_file": str(undo), "offsets": [{"to": "end"}], "create": False}
    request = group.read_request({**options, **params})
    try:
        group.run(bus, request, outcome, check_mode=check, seconds=seconds)
    except OpsError as error:
        error.outcome = outcome  # type: ignore[attr-defined]
        raise
    return outcome


def fail(bus: MemoryBus, undo: Path, kind: type[OpsError], **params: Any) -> tuple[OpsError, Outcome]:
    """The error of a run that fails, and its outcome."""
    with pytest.raises(kind) as caught:
        run(bus, undo, **params)
    return caught.value, caught.value.outcome  # type: ignore[attr-defined]


@pytest.fixture
def undo(tmp_path: Path) -> Path:
    """Where the undo is written."""
    return tmp_path / "undo.json"


@pytest.mark.parametrize("failure", [LOADING, AWAY, REVOKED, ODD], ids=lambda error: type(error).__name__)
def test_reading_back_that_fails_is_a_change_of_which_nothing_is_known(undo: Path, failure: OpsError) -> None:
    """Whatever the failure: the commit and the undo file are named, and nothing is claimed of the offsets."""
    bus = MemoryBus()
    bus.fail("committed", None, *[failure] * 50)
    error, outcome = fail(bus, undo, OutcomeUnknown)
    assert (outcome.changed, outcome.write_attempted) == (True, True)
    assert "a commit of 2 offsets was sent, and what it did is not known" in error.problem
    assert failure.problem in error.problem
    assert f"{undo} holds the offsets before" in error.next_step
    assert failure.next_step in error.next_step
    for row in outcome.facts["partitions"]:
        assert row["actual"] is None
        assert row["error"] == f"it was not read back: {failure.problem}"
    assert bus.offsets["g"] == {T0: 10, T1: 10}


@pytest.mark.parametrize("passing", [LOADING, AWAY])
def test_reading_back_goes_on_through_what_passes(undo: Path, passing: OpsError) -> None:
    """Until the deadline."""
    bus = MemoryBus()
    bus.fail("committed", None, passing, passing)
    assert run(bus, undo, seconds=30).changed
    assert bus.calls.count("commit") == 1


@pytest.mark.parametrize("failure", [REVOKED, ODD])
def test_what_does_not_pass_is_not_asked_again(undo: Path, failure: OpsError) -> None:
    bus = MemoryBus()
    bus.fail("committed", None, failure, failure)
    fail(bus, undo, OutcomeUnknown, seconds=30)
    assert bus.calls.count("committed") == 2


def test_an_exception_that_nobody_foresaw_leaves_a_change(undo: Path) -> None:
    """Since the commit was sent, changed is true until it is known better."""
    bus = MemoryBus()
    bus.fail("committed", None, ZeroDivisionError())
    outcome = Outcome()
    request = group.read_request(
        {"name": "g", "max_skipped": 100, "undo_file": str(undo), "offsets": [{"to": "end"}], "create": False}
    )
    with pytest.raises(ZeroDivisionError):
        group.run(bus, request, outcome, check_mode=False, seconds=1)
    assert (outcome.changed, outcome.write_attempted, outcome.facts["undo_file"]) == (True, True, str(undo))


@pytest.mark.parametrize("answer", [LOST, LOADING, AWAY], ids=lambda error: type(error).__name__)
def test_a_commit_that_was_not_done_is_repeated(undo: Path, answer: OpsError) -> None:
    """Read back first."""
    bus = MemoryBus()
    bus.fail("commit", answer)
    assert run(bus, undo, seconds=30).changed
    assert [call for call in bus.calls if call in {"commit", "committed"}] == [
        *("committed", "commit", "committed", "commit", "committed")
    ]


def test_a_commit_that_is_never_done_changed_nothing_and_may_still_happen(undo: Path) -> None:
    """After the deadline, with every partition where it was."""
    bus = MemoryBus()
    bus.fail("commit", *[LOST] * 50)
    error, outcome = fail(bus, undo, OpsError)
    assert (outcome.changed, outcome.write_attempted) == (False, True)
    assert "2 of 2 partitions are not where they were set: t[0] is at 4, not 10 (_TIMED_OUT, no answer)" in str(error)
    assert "may still be done" in error.next_step
    assert str(undo) in error.next_step
    assert [row["actual"] for row in outcome.facts["partitions"]] == [4, 4]


def test_a_commit_is_not_repeated_over_members_or_without_knowing_of_them(undo: Path) -> None:
    """They would be set back."""
    bus = MemoryBus()
    bus.fail("commit", *[LOST] * 50)

    def join(question: str) -> None:
        if question == "commit":
            bus.state["g"] = Group("g", "stable", members=(Member("m", "app", "h"),), member_count=1)

    bus.on_call = join
    error, outcome = fail(bus, undo, OpsError, seconds=30)
    assert "it has 1 members now" in error.problem
    assert not outcome.changed
    bus = MemoryBus()
    bus.fail("commit", *[LOST] * 50)
    bus.fail("groups", None, REVOKED)
    error, outcome = fail(bus, undo, OpsError, seconds=30)
    assert "whether it has members is not known: reading the offsets of group g is not allowed" in error.problem
    assert bus.calls.count("commit") == 1
    bus = MemoryBus()
    bus.fail("commit", LOST)
    bus.fail("groups", None, AWAY)
    assert run(bus, undo.with_name("other.json"), seconds=30).changed


def test_a_denied_commit_is_not_blamed_on_consumers(undo: Path) -> None:
    """And changed nothing."""
    bus = MemoryBus()
    bus.fail("commit", REVOKED)
    error, outcome = fail(bus, undo, OpsError)
    assert (outcome.changed, bus.calls.count("commit")) == (False, 1)
    assert "is not allowed" in error.problem
    assert error.next_step.startswith("Give this user DESCRIBE")
    assert "consumers" not in error.next_step


def test_what_stands_before_the_commit_is_refused_and_no_attempt(undo: Path) -> None:
    """Unlike anything after it."""
    bus = MemoryBus()
    _error, outcome = fail(bus, undo, Refusal, max_skipped=1)
    assert (outcome.changed, outcome.write_attempted) == (False, False)
    assert not undo.exists()


def test_the_undo_holds_the_offsets_before(undo: Path) -> None:
    """On disk before the commit."""
    bus = MemoryBus()

    def look(question: str) -> None:
        assert question != "commit" or undo.exists()

    bus.on_call = look
    run(bus, undo)
    assert [row["before"] for row in json.loads(undo.read_text())["offsets"]] == [4, 4]


def test_a_group_of_another_kind_is_refused_by_its_reason(undo: Path) -> None:
    """Whichever client said so; it is never taken for one that is dead or that may be created."""
    bus = MemoryBus()
    bus.state["g"] = Group("g", "unknown", unknown=UnknownState("a group of another kind", "Name a consumer group"))
    error, _outcome = fail(bus, undo, Refusal, create=True)
    assert "a group of another kind. Name a consumer group" in str(error)
    assert "commit" not in bus.calls


def test_a_rebalance_is_refused_as_what_it_is(undo: Path) -> None:
    """With its members."""
    bus = MemoryBus()
    bus.state["g"] = Group("g", "rebalancing", member_count=2)
    error, _outcome = fail(bus, undo, Refusal)
    assert "it is rebalancing with 2 members: their names are not shown while they join" in str(error)


def test_a_static_member_is_named_with_what_ends_it(undo: Path) -> None:
    """Its workload may be at 0 already."""
    bus = MemoryBus()
    member = Member("m-1", "app", "10.0.0.1", instance_id="worker-0")
    bus.state["g"] = Group("g", "stable", members=(member,), member_count=1)
    error, outcome = fail(bus, undo, Refusal)
    words = "worker-0 is a static member (group.instance.id)"
    assert words in error.next_step
    assert words in outcome.blockers[0].next_step
    assert "removeMembersFromConsumerGroup" in error.next_step


def test_a_topic_that_is_not_shown(undo: Path) -> None:
    """Is missing, or hidden from this user."""
    error, _outcome = fail(MemoryBus(), undo, Refusal, offsets=[{"topic": "u", "to": "end"}])
    assert "topic u: it does not exist, or this user may not describe it" in str(error)
