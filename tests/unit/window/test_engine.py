# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whole windows on a world in memory: need-driven, failing, resumed, killed at every point, restored."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.engine import Engine, StepCall
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import StepReverted, StepStarted, StepSucceeded
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.journal import encode_line
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from support.turns import is_sweep

from .builders import fill, list_files, make_step, skip
from .simulation import BEGINNING, END, KilledError, Simulation, load_nothing, make_entries

POINTS = 100
EACH = 1 if is_sweep() else 4
"""A kill is tried at every point in a sweep, else at every fourth."""
"""More points at which a run can be killed than a run has."""


# -- need-driven ----------------------------------------------------------------------------------------------------


def test_what_is_due_is_done_and_the_next_run_finds_nothing(simulation: Simulation) -> None:
    assert simulation.run() == "succeeded"
    assert simulation.world == END
    assert simulation.performed == [
        ("save", "db1"),
        ("save", "db2"),
        ("quiesce", "web1"),
        ("quiesce", "web2"),
        ("maintain", "db1"),
        ("maintain", "db2"),
        ("resume", "web1"),
        ("resume", "web2"),
        ("verify", "web1"),
        ("verify", "web2"),
    ]
    assert simulation.run(start="next") == "no_changes"
    assert simulation.world == END
    assert simulation.performed == []
    assert {step: why for (step, _host), why in simulation.read_skips().items()} == {
        "save": "save is as it should be",
        "quiesce": "no due step needs it",
        "maintain": "maintain is as it should be",
        "resume": "quiesce is not in force here",
        "verify": "none of resume, save was performed",
    }


def test_a_finished_occurrence_that_is_asked_for_again_is_planned_anew(simulation: Simulation) -> None:
    assert simulation.run(start="monday") == "succeeded"
    simulation.world["db1"]["age"] = 9
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.opened["resumed"]
    assert simulation.performed == [("save", "db1"), ("verify", "web1"), ("verify", "web2")]
    assert simulation.run(start="monday") == "no_changes"


def test_a_plain_step_of_a_finished_occurrence_is_not_done_again(simulation: Simulation) -> None:
    plain = make_entries(save={"plan": False})
    assert simulation.run(start="monday", steps=plain) == "succeeded"
    assert simulation.run(start="monday", steps=plain) == "no_changes"
    assert ("save", "db1") not in simulation.performed


def test_a_need_is_one_of_the_window_not_of_a_host(simulation: Simulation) -> None:
    simulation.world["db1"].update(dead=0, age=0)
    simulation.world["db2"].update(age=0)
    assert simulation.run() == "succeeded"
    assert simulation.world["db1"] == {"dead": 0, "age": 0}
    assert simulation.world["db2"] == {"dead": 0, "age": 0, "maintained": 1}
    assert [step for step, _host in simulation.performed] == [
        "quiesce", "quiesce", "maintain", "resume", "resume", "verify", "verify",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"only": ["save"]}, {"save"}),
        ({"only": ["maintain"]}, {"quiesce", "maintain", "resume"}),
        ({"skip": ["maintain", "quiesce", "resume"]}, {"save", "verify"}),
    ],
)
def test_steps_can_be_chosen(simulation: Simulation, options: dict[str, Any], steps: set[str]) -> None:
    assert simulation.run(**options) == "succeeded"
    assert {step for step, _host in simulation.performed} == steps


# -- killed ---------------------------------------------------------------------------------------------------------


def test_killed_at_every_point_the_next_run_ends_in_the_same_state(fast_directory: Callable[[], Path]) -> None:
    point = 1
    while (simulation := Simulation(fast_directory())).kill(point):
        assert simulation.run() in {"succeeded", "no_changes"}, f"point {point}"
        assert simulation.world == END, f"point {point}"
        assert simulation.list_left() == {}, f"point {point}"
        point += EACH
    assert 60 < point < POINTS


def test_killed_and_the_journals_lost_it_ends_in_the_same_state(
    fast_directory: Callable[[], Path],
) -> None:
    """What was stopped is found on the objects: a lost journal never means nothing to do."""
    point = 1
    while (simulation := Simulation(fast_directory())).kill(point):
        shutil.rmtree(simulation.place / "windows", ignore_errors=True)
        assert simulation.run() in {"succeeded", "no_changes"}, f"point {point}"
        assert simulation.world == END, f"point {point}"
        point += 2 * EACH
    assert 60 < point < POINTS


def test_killed_at_many_points_the_service_can_be_restored_instead(fast_directory: Callable[[], Path]) -> None:
    point = 2
    while (simulation := Simulation(fast_directory())).kill(point):
        assert simulation.restore() in {"succeeded", "no_changes"}, f"point {point}"
        for web in ("web1", "web2"):
            assert simulation.world[web] == {"replicas": 3}, f"point {point}"
        assert {step for step, _host in simulation.performed} == {"resume"}
        assert simulation.list_left() == {}, f"point {point}"
        point += 2 * EACH
    assert 60 < point < POINTS


@settings(
    max_examples=15 if is_sweep() else 5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(points=st.lists(st.integers(1, 90), min_size=2, max_size=3), restore_too=st.booleans())
def test_killed_again_and_again_it_still_ends_in_the_same_state(
    fast_directory: Callable[[], Path], points: list[int], restore_too: bool
) -> None:
    simulation = Simulation(fast_directory())
    for point in points:
        simulation.kill(point)
    if restore_too:
        assert simulation.restore() in {"succeeded", "no_changes"}
        assert simulation.list_left() == {}
    assert simulation.run() in {"succeeded", "no_changes"}
    assert simulation.world == END
    assert simulation.list_left() == {}


def test_a_restore_that_was_killed_is_run_again(fast_directory: Callable[[], Path]) -> None:
    point = 1
    while True:
        simulation = Simulation(fast_directory())
        assert simulation.kill(40)
        assert simulation.list_left()
        if not simulation.kill(point, name="restore_service", mode="restore", places=0):
            break
        assert simulation.restore() in {"succeeded", "no_changes"}
        assert [simulation.world[web] for web in ("web1", "web2")] == [{"replicas": 3}] * 2
        assert simulation.list_left() == {}
        point += 1
    assert point > 10


def test_a_killed_run_left_steps_that_started_and_never_ended(simulation: Simulation) -> None:
    """What the next run says of them: nothing, since it plans anew; what was in force is reverted first of all."""
    assert simulation.kill(44)
    left = simulation.list_left()
    assert list(left.values()) == [[("quiesce", "web1"), ("quiesce", "web2")]]
    assert simulation.run() == "succeeded"
    assert simulation.opened["resumed"]
    assert simulation.opened["not_reverted"] == ["quiesce on web1", "quiesce on web2"]


# -- failing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "state", "performed"),
    [
        ({("plan of save", "db1")}, "refused", set()),
        ({("save", "db1")}, "failed_reverted", {"save"}),
        ({("quiesce", "web2")}, "failed_reverted", {"save", "quiesce", "resume"}),
        ({("maintain", "db1")}, "failed_reverted", {"save", "quiesce", "maintain", "resume"}),
        ({("maintain", "db2")}, "failed_reverted", {"save", "quiesce", "maintain", "resume"}),
        ({("verify", "web1")}, "failed_reverted", {"save", "quiesce", "maintain", "resume", "verify"}),
    ],
)
def test_a_failure_leaves_out_what_follows_and_reverts(
    simulation: Simulation, failing: set[tuple[str, str]], state: str, performed: set[str]
) -> None:
    simulation.failing = failing
    ((step, host),) = failing
    assert simulation.run() == state
    assert [simulation.world[web] for web in ("web1", "web2")] == [{"replicas": 3}, {"replicas": 3}]
    assert {name for name, _host in simulation.performed} == performed
    assert simulation.read_state().closed is not None
    assert simulation.closed["msg"].endswith(
        f": {step} on {host}: demo: {step.split()[-1]} of {host}: told to fail. Go on."
    )
    simulation.failing = set()
    assert simulation.run() == "succeeded"
    assert simulation.world == END


def test_a_second_batch_is_not_begun_after_a_failure_in_the_first(simulation: Simulation) -> None:
    simulation.failing = {("maintain", "db1")}
    simulation.run()
    assert ("maintain", "db2") not in simulation.performed
    assert simulation.read_skips()[("maintain", "db2")] == "skipped after the failure of maintain on db1"


def test_a_reverting_step_that_fails_is_run_by_the_next_one(simulation: Simulation) -> None:
    simulation.failing = {("resume", "web1")}
    assert simulation.run(start="monday") == "failed_not_reverted"
    assert simulation.list_left() == {"weekly@monday": [("quiesce", "web1")]}
    simulation.failing = set()
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.world == END
    assert ("resume", "web1") in simulation.performed
    assert ("resume", "web2") not in simulation.performed, "it was reverted by the first run"
    assert simulation.list_left() == {}


def test_a_later_occurrence_reverts_what_an_earlier_one_left(simulation: Simulation) -> None:
    simulation.failing = {("resume", "web1"), ("resume", "web2")}
    assert simulation.run(start="monday") == "failed_not_reverted"
    simulation.failing = set()
    assert simulation.run(start="tuesday") == "succeeded"
    assert simulation.world == END
    assert simulation.opened["not_reverted"] == ["quiesce on web1", "quiesce on web2"]
    assert simulation.list_left() == {}
    marks = [event for event in simulation.read_events("weekly@monday") if isinstance(event, StepReverted)]
    assert [(mark.key, mark.by, mark.token) for mark in marks] == [
        (("quiesce", "web1"), "weekly@tuesday", 2),
        (("quiesce", "web2"), "weekly@tuesday", 2),
    ]


def test_what_was_inherited_and_reverted_is_not_inherited_again_on_a_resume(simulation: Simulation) -> None:
    simulation.failing = {("resume", "web1")}
    assert simulation.run(start="monday") == "failed_not_reverted"
    simulation.failing = {("verify", "web1")}
    assert simulation.run(start="tuesday") == "failed_reverted"
    assert ("resume", "web1") in simulation.performed
    simulation.failing = set()
    assert simulation.run(start="tuesday") == "succeeded"
    assert simulation.opened["not_reverted"] == []
    assert simulation.performed == [("verify", "web1"), ("verify", "web2")]


def test_a_resumed_occurrence_reverts_what_another_one_left_since(simulation: Simulation) -> None:
    simulation.failing = {("verify", "web1")}
    assert simulation.run(start="monday") == "failed_reverted"
    simulation.world["db1"]["dead"] = 9
    simulation.failing = {("resume", "web1")}
    assert simulation.run(start="tuesday") == "failed_not_reverted"
    simulation.failing = set()
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.opened["not_reverted"] == ["quiesce on web1"]
    assert simulation.world["web1"] == {"replicas": 3}
    assert simulation.list_left() == {}


def test_a_window_that_was_edited_while_something_was_in_force_does_not_succeed(simulation: Simulation) -> None:
    simulation.failing = {("resume", "web1")}
    assert simulation.run(start="monday") == "failed_not_reverted"
    simulation.failing = set()
    save = [step for step in make_entries() if step["name"] == "save"]
    assert simulation.run(start="monday", steps=save) == "failed_not_reverted"
    assert "window_steps does not declare it any more" in simulation.closed["msg"]
    assert simulation.restore() == "succeeded"
    assert simulation.world["web1"] == {"replicas": 3}
    assert simulation.list_left() == {}


def test_a_plain_step_is_not_done_again_on_a_resume_and_other_inputs_are_refused(simulation: Simulation) -> None:
    steps = make_entries(save={"plan": False})
    simulation.failing = {("maintain", "db2")}
    assert simulation.run(steps=steps) == "failed_reverted"
    simulation.failing = set()
    simulation.digest = "others"
    assert simulation.run(steps=steps) == "failed_reverted"
    assert "save on db1: step save on db1: it was done at" in simulation.closed["msg"]
    assert "with other inputs" in simulation.closed["msg"]
    simulation.digest = "inputs"
    assert simulation.run(steps=steps) == "succeeded"
    assert simulation.world == END
    assert not {step for step, _host in simulation.performed} & {"save"}


def test_facts_that_a_role_sets_while_it_runs_are_not_other_inputs(simulation: Simulation) -> None:
    steps = make_entries(save={"plan": False})
    simulation.failing = {("maintain", "db2")}

    def set_facts(step: str, _host: str) -> None:
        if step == "save":
            simulation.digest = "inputs and facts"

    simulation.before = set_facts
    assert simulation.run(steps=steps) == "failed_reverted"
    simulation.failing = set()
    simulation.digest = "inputs"
    simulation.before = lambda _step, _host: None
    assert simulation.run(steps=steps) == "succeeded"
    assert simulation.world == END


def test_a_planned_role_without_a_result_is_a_failure_and_says_what_to_do(simulation: Simulation) -> None:
    simulation.open()
    call = StepCall(host="db1", step="save", planning=True)
    assert simulation.engine.begin_step(call, preload=load_nothing)["perform"]
    told = simulation.engine.finish_step(call, None)
    assert told["msg"] == (
        "demo.save: it left no result, so whether the step is due is unknown. "
        "Set the fact save_result (changed, summary) in it, or leave plan out of step save."
    )
    (failure,) = simulation.read_state().failures
    assert failure.planning
    reverting = StepCall(host="web1", step="resume", planning=True)
    assert simulation.engine.begin_step(reverting, preload=load_nothing)["perform"]
    assert simulation.engine.finish_step(reverting, None)["msg"] == "not due: it gave no result"


def test_a_role_without_a_result_is_taken_to_have_changed_something_unless_it_only_reads(
    simulation: Simulation,
) -> None:
    steps = [make_step("a", "web1"), make_step("b", "web1", reads_only=True)]
    simulation.open(steps=steps)
    hosts = ("web1", "ctl")
    for number in (0, 1):
        call = StepCall(host="web1", play=number, play_hosts=hosts)
        simulation.engine.begin_step(call, preload=load_nothing)
        simulation.engine.finish_step(call, None)
    changed = {key[0]: event.changed for key, event in simulation.read_state().succeeded.items()}
    assert changed == {"a": True, "b": False}


# -- what stands around a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"serial": True}, "play of step save: it has serial, and Ansible ends a run .* declare batches for save"),
        (
            {"strategy": "free"},
            "play of step save: it runs with strategy free, under which steps overlap. Set strategy",
        ),
        ({"strategy": "host_pinned"}, "it runs with strategy host_pinned"),
    ],
)
def test_a_play_that_would_break_the_window_is_a_failure_of_its_step(
    simulation: Simulation, change: dict[str, Any], words: str
) -> None:
    for key, value in change.items():
        setattr(simulation, key, value)
    assert simulation.run() == "refused"
    assert simulation.world == BEGINNING
    failure = simulation.read_state().failures[0]
    assert failure.key == ("save", "db1")
    assert re.search(words, failure.error)


def test_a_linear_strategy_by_its_long_name_is_linear(simulation: Simulation) -> None:
    simulation.strategy = "ansible.builtin.linear"
    assert simulation.run() == "succeeded"


@pytest.mark.parametrize("hosts", [("db1", "ctl"), ("db1", "db2"), ("db1", "db2", "ctl", "web1")])
def test_hosts_that_differ_from_the_declaration_are_refused(simulation: Simulation, hosts: tuple[str, ...]) -> None:
    simulation.open()
    call = StepCall(host="db1", step="save", play_hosts=hosts)
    with pytest.raises(
        Refusal, match="its hosts differ from those that window_steps declares, with the control host, by"
    ):
        simulation.engine.begin_step(call, preload=load_nothing)


def test_a_step_by_name_and_batch(simulation: Simulation) -> None:
    simulation.open(only=["maintain"])
    with pytest.raises(Refusal, match="step nothing: it is not in window_steps"):
        simulation.engine.begin_step(StepCall(host="db1", step="nothing"), preload=load_nothing)
    with pytest.raises(Refusal, match="step maintain: it has no batch number 3 with hosts"):
        simulation.engine.begin_step(StepCall(host="db1", step="maintain", batch=2), preload=load_nothing)
    call = StepCall(host="ctl", step="quiesce", play_hosts=("web1", "web2", "ctl"))
    assert simulation.engine.begin_step(call, preload=load_nothing)["msg"] == "not assigned to this host"


def test_a_role_that_does_not_load_is_not_started(simulation: Simulation) -> None:
    def refuse(_step: Any) -> None:
        raise Refusal(obj="role demo.save", problem="it cannot be loaded", next_step="Install it")

    simulation.open(only=["save"])
    simulation.plan()
    call = StepCall(host="db1", step="save", play_hosts=("db1", "db2", "ctl"))
    with pytest.raises(Refusal, match="it cannot be loaded"):
        simulation.engine.begin_step(call, preload=refuse)
    assert not [event for event in simulation.read_events() if isinstance(event, StepStarted)]


def test_without_a_window_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(
        Refusal, match=r"window: it was not opened in this run .*left the opening out, .* control\?\)\. Run the whole"
    ):
        Engine(None).begin_step(StepCall(host="db1"), preload=load_nothing)
    assert list(tmp_path.iterdir()) == []


def test_what_a_role_is_told(simulation: Simulation) -> None:
    simulation.open(start="monday", only=["maintain"])
    call = StepCall(host="web1", step="quiesce", play_hosts=("web1", "web2", "ctl"))
    answer = simulation.engine.begin_step(call, preload=load_nothing)
    assert answer["environment"] == {"LOWTIDE_WINDOW_RUN": f"{simulation.store.location}#1"}
    assert (answer["role"], answer["tasks"], answer["tasks_from"], answer["result_variable"]) == (
        "demo.quiesce",
        None,
        "main",
        "quiesce_result",
    )
    assert answer["variables"] == {
        "window_id": "weekly@monday",
        "window_opened_at": simulation.opened["opened_at"],
        "window_assumed": [],
        "window_revert_assumed": False,
        "window_pending": ["quiesce"],
        "window_restoring": False,
    }


# -- check mode -----------------------------------------------------------------------------------------------------


def test_check_mode_writes_nothing_and_foretells_the_run(simulation: Simulation) -> None:
    simulation.check_mode = True
    assert simulation.run() == "succeeded"
    assert simulation.world == BEGINNING
    assert not (simulation.place / "windows").exists()
    foretold = [line.split("  ")[1] for line in simulation.closed["lines"] if line.startswith("  ")]
    simulation.check_mode = False
    assert simulation.run() == "succeeded"
    assert [line.split("  ")[1] for line in simulation.closed["lines"] if line.startswith("  ")][:1] == foretold[:1]


def test_check_mode_after_a_kill_foretells_that_it_reverts_and_leaves_the_journal_alone(
    simulation: Simulation,
) -> None:
    simulation.failing = {("resume", "web1")}
    assert simulation.run(start="monday") == "failed_not_reverted"
    before = list_files(simulation.place / "windows")
    simulation.failing = set()
    simulation.check_mode = True
    for start in ("monday", "tuesday"):
        assert simulation.run(start=start) == "succeeded"
        assert simulation.opened["not_reverted"] == ["quiesce on web1"]
        assert any(line.split()[:2] == ["resume", "web1"] for line in simulation.closed["lines"])
        assert list_files(simulation.place / "windows") == before


def test_in_check_mode_a_role_is_told_what_was_only_predicted(simulation: Simulation) -> None:
    simulation.check_mode = True
    simulation.open(only=["maintain"])
    hosts = ("web1", "web2", "ctl")
    for host in hosts[:2]:
        call = StepCall(host=host, play=1, play_hosts=hosts)
        simulation.engine.begin_step(call, preload=load_nothing)
        simulation.engine.finish_step(call, {"changed": host == "web1", "summary": "would stop"})
    for host in hosts[:2]:
        for number, batch in ((2, "db1"), (3, "db2")):
            simulation.engine.begin_step(
                StepCall(host="ctl", play=number, play_hosts=(batch, "ctl")), preload=load_nothing
            )
        answer = simulation.engine.begin_step(StepCall(host=host, play=4, play_hosts=hosts), preload=load_nothing)
        assert answer["perform"]
        assert answer["variables"]["window_revert_assumed"] is (host == "web1")
        assert "quiesce" in answer["variables"]["window_assumed"]


# -- taken over -----------------------------------------------------------------------------------------------------


def test_a_run_that_was_overtaken_writes_no_more(simulation: Simulation) -> None:
    assert simulation.kill(40)
    late = simulation.engine
    assert simulation.run() == "succeeded"
    before = list_files(simulation.place / "windows")
    call = StepCall(host="db1", step="save", play_hosts=("db1", "db2", "ctl"))
    with pytest.raises(LeaseLost, match="Leave the site to that run; this one writes no more"):
        late.begin_step(call, preload=load_nothing)
    with pytest.raises(LeaseLost):
        late.finish_step(call, {"changed": True})
    with pytest.raises(LeaseLost):
        late.fail_step(call, error={"msg": "no"}, task={})
    assert list_files(simulation.place / "windows") == before


# -- a journal that cannot be written -------------------------------------------------------------------------------


def test_a_full_disk_lets_no_step_start_and_reverting_steps_run(simulation: Simulation, small_disk: Path) -> None:
    simulation.directory = small_disk / "windows"

    def fill_up(step: str, host: str) -> None:
        if (step, host) != ("maintain", "db1") or simulation.performed[-1:] != [(step, host)]:
            return
        store, name = simulation.store, simulation.store.make_name("weekly@monday")
        size = len(b"".join(path.read_bytes() for path in (store.directory / "journals").iterdir()))
        with store.lock():  # up to the end of the journal's last block, which a full disk still takes
            empty = store.append(name, skip("pad", ""))
            length = len(encode_line(empty, 100))
            store.append(name, skip("pad", "x" * (-(size + 2 * length) % 4096 - 20)))
        fill(small_disk)

    simulation.before = fill_up
    assert simulation.run(start="monday") == "failed_reverted"
    assert [simulation.world[web] for web in ("web1", "web2")] == [{"replicas": 3}, {"replicas": 3}]
    assert "maintained" not in simulation.world["db2"], "nothing is done that is not on record"
    assert "No space left on device" in simulation.closed["msg"]
    assert "No space left on device" in simulation.closed["warnings"][0]
    (small_disk / "filler").unlink()
    simulation.before = lambda _step, _host: None
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.world == END
    assert simulation.list_left() == {}


def test_a_disk_that_became_read_only_lets_no_step_start_and_reverting_steps_run(
    simulation: Simulation, small_disk: Path
) -> None:
    simulation.directory = small_disk / "windows"
    remounted: list[str] = []

    def remount(step: str, _host: str) -> None:
        if step == "maintain" and len(simulation.performed) == 5 and not remounted:
            remounted.append(step)
            subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    simulation.before = remount
    assert simulation.run(start="monday") == "failed_reverted"
    assert remounted
    assert [simulation.world[web] for web in ("web1", "web2")] == [{"replicas": 3}, {"replicas": 3}]
    assert "maintained" not in simulation.world["db2"], "nothing is done that is not on record"
    assert "cannot be written" in simulation.closed["msg"]
    assert "Make room there, or bring its server back" in simulation.closed["msg"]
    assert len(simulation.closed["warnings"]) == 3
    assert "Read-only file system" in simulation.closed["warnings"][0]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    simulation.before = lambda _step, _host: None
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.world == END
    assert simulation.list_left() == {}


def test_a_step_that_is_told_to_fail_in_the_simulation_fails() -> None:
    """The simulation itself: it can fail and be killed."""
    simulation = Simulation(Path("/nowhere"), failing={("save", "db1")}, kill_at=1)
    with pytest.raises(OpsError):
        simulation.act("save", "db1", check=False)
    with pytest.raises(KilledError):
        simulation.act("save", "db2", check=False)
    assert json.loads(json.dumps(simulation.act("verify", "web1", check=True)))["changed"] is False


def test_events_that_could_not_be_written_for_a_while_are_written_afterwards(
    simulation: Simulation, small_disk: Path
) -> None:
    """Found in force while the journal was read-only, reverted when it was writable again."""
    simulation.directory = small_disk / "windows"
    simulation.world["web1"] = {"replicas": 0, "before": 3}
    simulation.open(start="monday", only=["save"])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    simulation.plan()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    simulation.perform()
    assert ("resume", "web1") in simulation.performed
    verdict = simulation.close()
    assert verdict["state"] == "succeeded"
    assert "Not reverted yet" not in "\n".join(simulation.closed["lines"])
    succeeded = [event.key for event in simulation.read_events() if isinstance(event, StepSucceeded)]
    assert ("resume", "web1") in succeeded, "what was kept is on record"
