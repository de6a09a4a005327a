# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Opening: which occurrence, what is refused, what is inherited, what a restore reverts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.approval import name_artifact
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Step
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowOpened
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.opening import (
    Opening,
    choose_start,
    refuse_partial_runs,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.verdict import read_verdict

from .builders import (
    GROUPS,
    close,
    compute,
    declare,
    list_files,
    make_inventory,
    make_step,
    open_window,
)
from .simulation import Simulation, damage, leave_in_force, make_entries

# -- which occurrence -----------------------------------------------------------------------------------------------


def occurrence(name: str, *, opened: float, ends: float, state: str = "failed_reverted") -> tuple[str, Any]:
    """Return an occurrence that is not settled."""
    event = open_window(declare(), window_id=f"weekly@{name}", start=name, at=opened, ends=ends)
    return f"weekly@{name}", compute(event, close(state))


@pytest.mark.parametrize(
    ("occurrences", "given", "expected"),
    [
        ([], "", "1970-01-01T00:16:40Z"),
        ([], "monday", "monday"),
        ([occurrence("monday", opened=500, ends=1001)], "", "monday"),
        ([occurrence("monday", opened=500, ends=1000)], "", "1970-01-01T00:16:40Z"),
        ([occurrence("monday", opened=500, ends=1001)], "tuesday", "tuesday"),
        ([occurrence("monday", opened=500, ends=1001)], "monday", "monday"),
        ([occurrence("b", opened=500, ends=2000), occurrence("a", opened=600, ends=1500)], "", "a"),
        ([occurrence("b", opened=600, ends=2000), occurrence("a", opened=500, ends=1500)], "", "b"),
        ([occurrence("b", opened=600, ends=900), occurrence("a", opened=500, ends=1500)], "", "a"),
        ([occurrence("b", opened=600, ends=900)], "a", "a"),
    ],
)
def test_choose_start(occurrences: list[Any], given: str, expected: str) -> None:
    assert choose_start(dict(occurrences), start=given, now=1000.0) == expected


@pytest.mark.parametrize("ends", [1000.0, 999.0])
def test_an_occurrence_whose_time_is_over_cannot_be_asked_for(ends: float) -> None:
    occurrences = dict([occurrence("monday", opened=500, ends=ends)])
    with pytest.raises(Refusal, match=r"window weekly@monday: its time was over at 1970-01-01T00:16:.*Start another"):
        choose_start(occurrences, start="monday", now=1000.0)


def test_a_killed_run_is_resumed_until_its_end_and_keeps_it(simulation: Simulation) -> None:
    now = [1_800_000_000.0]
    simulation.clock = lambda: now[0]
    simulation.kill(50)
    first = simulation.opened
    now[0] += 599
    simulation.open()
    assert simulation.opened["resumed"]
    assert {simulation.opened[key] == first[key] for key in ("window_id", "ends_at", "opened_at")} == {True}
    assert simulation.opened["token"] == 2
    simulation.end_controller()
    now[0] += 1
    assert simulation.run() == "succeeded"
    assert not simulation.opened["resumed"]
    assert simulation.opened["window_id"] == "weekly@2027-01-15T08:10:00Z"
    assert simulation.opened["ends_at"] == "2027-01-15T08:20:00Z"


def test_a_settled_occurrence_is_not_resumed(simulation: Simulation) -> None:
    now = [1_800_000_000.0]
    simulation.clock = lambda: now[0]
    assert simulation.run() == "succeeded"
    now[0] += 1
    assert simulation.run() == "no_changes"
    assert simulation.opened["window_id"] == "weekly@2027-01-15T08:00:01Z"


def test_what_the_opening_returns(simulation: Simulation) -> None:
    opened = simulation.open(start="monday")
    assert (opened["changed"], opened["refused"], opened["token"], opened["resumed"]) == (False, False, 1, False)
    assert opened["msg"] == "Window weekly@monday is open"
    assert opened["plays"][2] == {"title": "Step maintain (1 of 2)", "step": "maintain", "batch": 0, "hosts": ["db1"]}
    assert opened["planning"] == {"db1": ["save", "maintain"], "db2": ["save", "maintain"]}
    assert opened["planning_reverts"] == {"web1": ["resume"], "web2": ["resume"]}
    assert (opened["not_reverted"], opened["warnings"]) == ([], [])
    (event,) = simulation.read_events()
    assert isinstance(event, WindowOpened)
    assert (event.window, event.start, event.mode, event.control, event.version) == (
        "weekly", "monday", "window", "ctl", "1.0.0",
    )  # fmt: skip
    assert event.ends == pytest.approx(event.at + 600, abs=1)
    assert event.selected == sorted(step["name"] for step in make_entries())
    held = simulation.store.read_lease()
    assert held is not None
    assert simulation.controller is not None
    assert (held.owner.pid, held.window_id) == (simulation.controller.pid, "weekly@monday")


# -- what is refused ------------------------------------------------------------------------------------------------


JOB = {"id": "7", "template": "window"}


def open_with(simulation: Simulation, controller: dict[str, Any], **request: Any) -> dict[str, Any]:
    """Open with another controller, or request."""
    changed = replace(simulation.start_controller(), **controller)
    inventory = request.pop("inventory", None) or make_inventory()
    return Opening(changed).open(simulation.make_request(**request), inventory, preload=simulation.preload)


@pytest.mark.parametrize(
    ("controller", "request_changes", "words"),
    [
        ({"limits": {"--limit": "db1"}}, {}, "--limit db1: it would silently leave out the opening or the closing"),
        ({"limits": {"--limit": None, "--tags": ["a", "b"]}}, {}, "--tags a,b: it would silently leave out"),
        ({"limits": {"--skip-tags": ["a"]}}, {}, "--skip-tags a: it would"),
        ({"limits": {"--start-at-task": "x"}}, {}, "--start-at-task x: it would"),
        (
            {"limits": {"--limit": "ctl,web1"}},
            {"job": JOB},
            "--limit ctl,web1: it would silently leave out the opening or the closing of the window. Launch the",
        ),
        ({"limits": {"--tags": ["a"]}}, {"job": JOB}, "--tags a: it would silently leave out"),
        ({}, {"job": {**JOB, "launch": "workflow", "workflow": "window"}}, "AWX job 7: its workflow has the name of"),
        ({"control": []}, {}, "group control: it has no host, and the window is opened on ctl. Give the group control"),
        ({"control": ["ctl", "ctl2"]}, {}, "group control: it has ctl, ctl2, and"),
        ({"control": ["other"]}, {}, "group control: it has other, and the window is opened on ctl"),
        ({}, {"name": ""}, "window_name: it is empty. Name the window"),
        (
            {},
            {"place": Place("site")},
            "window_dir: it is empty. Give a directory that outlives this run, or window_store",
        ),
        (
            {},
            {"places": 5},
            "window_steps: its steps and batches are 6 plays, and this playbook has places for 5.",
        ),
        ({}, {"steps": []}, "window_steps: the list is empty"),
        ({}, {"only": ["nothing"]}, "step nothing: it is not in window_steps"),
        ({}, {"skip": ["quiesce"]}, "window_steps: window_skip leaves out quiesce, which maintain needs"),
        (
            {},
            {"place": Place("s", "/proc/nowhere")},
            "site /proc/nowhere/s: it cannot be written ([Errno 2] No such file",
        ),
    ],
)
def test_refused(
    simulation: Simulation, controller: dict[str, Any], request_changes: dict[str, Any], words: str
) -> None:
    result = open_with(simulation, controller, **request_changes)
    assert (result["refused"], result["changed"]) == (True, False)
    assert words in result["msg"]
    name = request_changes.get("name", "weekly") or "without a name"
    assert result["msg"].startswith(f"lowtide window {name}: refused (refused before any change): ")
    stats = result["ansible_stats"]["data"]["lowtide_window"]
    assert (stats["state"], stats["window_id"], stats["report"]) == ("refused", None, None)
    verdict = read_verdict(simulation.folder)
    assert (verdict["failed"], verdict["state"], verdict["msg"]) == (True, "refused", result["msg"])
    assert not (simulation.place / "windows").exists()


def test_no_option_that_leaves_parts_out_is_no_reason() -> None:
    refuse_partial_runs({"--limit": None, "--tags": [], "--start-at-task": ""})


def test_there_may_be_any_number_of_plays_where_places_are_not_counted(simulation: Simulation) -> None:
    assert not open_with(simulation, {}, places=0)["refused"]
    simulation.end_controller()
    assert not open_with(simulation, {}, places=6)["refused"]


def test_a_directory_that_is_a_file_is_refused(simulation: Simulation) -> None:
    (simulation.place / "file").write_text("")
    assert "window_dir" in simulation.run(place=Place("site", str(simulation.place / "file")))


def test_a_role_that_does_not_load_is_refused_but_one_that_is_left_out_is_not_loaded(simulation: Simulation) -> None:
    loaded: list[str] = []

    def load(step: Step) -> None:
        loaded.append(step.name)
        if step.name == "maintain":
            raise Refusal(obj="role demo.maintain", problem="it cannot be loaded", next_step="Install it")

    simulation.preload = load
    assert simulation.run() == "refused: role demo.maintain: it cannot be loaded. Install it."
    assert loaded == ["save", "quiesce", "maintain"]
    loaded.clear()
    simulation.open(only=["save"])
    assert loaded == ["save", "resume"], "what reverts is loaded too: it may be found in force"


def test_a_journal_that_cannot_be_written_is_a_refusal(simulation: Simulation, small_disk: Path) -> None:
    simulation.directory = small_disk / "windows"
    long = [*make_entries(), *(make_step(f"s{number}", "web") for number in range(900))]
    cause = simulation.run(steps=long, places=0)
    assert cause.startswith("refused: ")
    assert "cannot be written ([Errno 28] No space left on device). Make room" in cause
    assert simulation.store.load(simulation.store.list_occurrences()[0]) == []


# -- what is inherited ----------------------------------------------------------------------------------------------


def test_the_same_window_inherits_what_an_older_occurrence_left(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    simulation.open(start="tuesday")
    (event,) = simulation.read_events()
    assert isinstance(event, WindowOpened)
    assert event.inherited == [
        {"window_id": "weekly@monday", "step": "quiesce", "host": "web1", "reverted_by": "resume"}
    ]
    assert simulation.opened["msg"] == ("Window weekly@tuesday is open; not reverted by a run before: quiesce on web1")
    assert simulation.opened["warnings"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": [make_step("save", "db")]},
        {"steps": [make_step("quiesce"), make_step("save", "db")]},
        {"steps": make_entries(quiesce={"hosts": "web2"})},
    ],
    ids=["step_gone", "reverting_step_gone", "host_gone"],
)
def test_what_no_step_reverts_any_more_is_warned_of(simulation: Simulation, changes: dict[str, Any]) -> None:
    leave_in_force(simulation, "web1")
    simulation.open(start="tuesday", **changes)
    assert simulation.opened["warnings"] == [
        "quiesce on web1 was left by weekly@monday, and no step of this window reverts it there. "
        "Run the playbook restore_service"
    ]
    assert simulation.opened["not_reverted"] == []


def test_a_step_that_reverts_for_all_inherits_hosts_that_are_not_its_own(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    simulation.open(start="tuesday", steps=make_entries(resume={"hosts": "ctl"}))
    assert simulation.opened["not_reverted"] == ["quiesce on web1"]


def test_what_another_window_left_is_warned_of_and_not_touched(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    assert (
        simulation.run(name="other", steps=[step for step in make_entries() if step["name"] == "save"]) == "no_changes"
    )
    assert simulation.opened["warnings"] == [
        "window weekly@monday left not reverted: quiesce on web1. Run the playbook restore_service"
    ]
    assert simulation.list_left() == {"weekly@monday": [("quiesce", "web1")]}


@pytest.mark.parametrize("name", ["weekly", "wöchentlich", "w" * 90, "every week"])
def test_a_damaged_journal_of_this_window_is_refused_and_of_another_warned_of(
    simulation: Simulation, name: str
) -> None:
    leave_in_force(simulation, "web1", name=name)
    damage(simulation, f"{name}@monday")
    cause = simulation.run(name=name, start="tuesday")
    assert cause.startswith("refused: journal ")
    assert "line 1 is damaged" in cause
    assert simulation.run(name="other", steps=[make_step("a", "web")], start="tuesday") == "no_changes"
    (warning,) = simulation.opened["warnings"]
    assert "line 1 is damaged" in warning


def test_a_journal_of_a_later_release_is_refused(simulation: Simulation) -> None:
    simulation.store.create()
    path = simulation.store.directory / "journals" / "weekly@1.jsonl"
    path.write_text('{"v": 2}\n')
    assert "it has format 2, and this version of lowtide.ops knows 1" in simulation.run()
    path.rename(path.with_name("other@1.jsonl"))
    simulation.open()
    assert "it has format 2" in simulation.opened["warnings"][0], "of another window it is a warning"


# -- check mode -----------------------------------------------------------------------------------------------------


def test_check_mode_writes_nothing_below_the_directory_and_needs_no_lease(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    simulation.open(start="tuesday")
    before = list_files(simulation.place / "windows")
    other = Simulation(simulation.place / "other", directory=simulation.place / "windows", world=simulation.world)
    other.check_mode = True
    assert other.run(start="wednesday") == "succeeded"
    assert other.opened["not_reverted"] == ["quiesce on web1"]
    assert other.opened["msg"].startswith("Check mode of window weekly@wednesday is open; not reverted by a run before")
    assert other.opened["token"] == 3
    (warning,) = other.opened["warnings"]
    assert "holds the site now: what it changes is not in this prediction" in warning
    assert list_files(simulation.place / "windows") == before


def test_check_mode_resumes_a_copy(simulation: Simulation) -> None:
    simulation.kill(50)
    simulation.check_mode = True
    before = list_files(simulation.place / "windows")
    simulation.open()
    assert simulation.opened["resumed"]
    assert list_files(simulation.place / "windows") == before


def test_check_mode_refuses_a_directory_that_it_may_not_read(simulation: Simulation) -> None:
    (simulation.place / "windows/site/journals").mkdir(parents=True)
    (simulation.place / "windows/site/lease").symlink_to("lease")
    simulation.check_mode = True
    cause = simulation.run()
    assert "Run check mode as a user who may read it" in cause
    assert "it cannot be read" in cause


def test_check_mode_does_again_what_an_earlier_run_read_also_after_the_lease_was_removed(
    simulation: Simulation,
) -> None:
    simulation.failing = {("verify", "web1")}
    assert simulation.run(start="monday") == "failed_reverted"
    (simulation.store.directory / "lease").unlink()
    simulation.failing = set()
    simulation.check_mode = True
    assert simulation.run(start="monday") == "succeeded"
    assert simulation.opened["token"] == 2
    rows = [line.split()[:3] for line in simulation.closed["lines"] if line.startswith("  verify")]
    assert rows == [["verify", "web1", "ok"], ["verify", "web2", "ok"]]


def test_the_name_of_the_restore_is_reserved(simulation: Simulation) -> None:
    assert "keeps its journals under that name" in simulation.run(name="restore_service")


def declare_time(hours: float, *, now: float = 1_800_000_000.0) -> list[dict[str, str]]:
    """Declare a daily time so many hours from now."""
    return [{"time": f"{datetime.fromtimestamp(now + hours * 3600, UTC):%H:%M}", "zone": "UTC"}]


@pytest.mark.usefixtures("on_volume")
def test_check_mode_outside_of_the_declared_times_predicts_the_next_one(simulation: Simulation) -> None:
    now = 1_800_000_000.0
    simulation.clock = lambda: now
    times = declare_time(3)
    assert "window_times: no declared time is on now" in simulation.run(times=times)
    simulation.check_mode = True
    assert simulation.run(times=times) == "succeeded"
    assert simulation.opened["window_id"] == "weekly@2027-01-15T11:00:00Z"
    (warning,) = simulation.opened["warnings"]
    assert "no declared time is on now, so this is the prediction for the next one, 2027-01-15T11:00:00Z" in warning
    assert "no declared time is on now" in simulation.run(times=times, job={"id": "1", "workflow_id": "9"}), (
        "to approve"
    )
    assert simulation.run(times=times, start="mine") == "succeeded"
    assert (simulation.opened["window_id"], simulation.opened["warnings"]) == ("weekly@mine", [])
    assert simulation.run(times=declare_time(-0.1)) == "succeeded"
    assert simulation.opened["window_id"] == "weekly@2027-01-15T07:54:00Z"


# -- what was approved ----------------------------------------------------------------------------------------------


WORKFLOW = {"id": "1", "launch": "workflow", "workflow": "nightly", "template": "window", "revision": "4f1c"}


def show(simulation: Simulation, **changes: Any) -> dict[str, Any]:
    """Run check mode, and return what it leaves for the window after it."""
    simulation.check_mode = True
    assert simulation.run(job=WORKFLOW, **changes) == "succeeded"
    simulation.check_mode = False
    artifact: dict[str, Any] = simulation.closed["ansible_stats"]["data"][name_artifact("site", "weekly")]
    return artifact


@pytest.mark.usefixtures("on_volume")
def test_what_runs_is_what_the_check_mode_has_shown(simulation: Simulation) -> None:
    artifact = show(simulation)
    other = "what its check mode has shown was approved, and in this run other is: "
    cause = simulation.run(job={**WORKFLOW, "revision": "9b2e"}, approved=artifact)
    assert f"{other}revision 9b2e (shown was 4f1c) of the project. Launch the workflow again from its check" in cause
    for changes, words in (
        ({"steps": make_entries(save={"estimate": 60})}, "window_steps"),
        ({"version": "1.0.1"}, "version 1.0.1 (shown was 1.0.0) of lowtide.ops"),
        ({"skip": ["verify"]}, "the steps that window_only and window_skip choose"),
        ({"inventory": make_inventory({**GROUPS, "web": ["web1"]})}, "the hosts of its steps"),
    ):
        cause = simulation.run(**{"job": WORKFLOW, "approved": artifact, **changes})
        assert f"{other}{words}. Launch" in cause
    permuted = make_inventory({name: hosts[::-1] for name, hosts in GROUPS.items()})
    assert simulation.run(job=WORKFLOW, approved=artifact, inventory=permuted) == "succeeded", "AWX promises no order"
    assert not [name for name in simulation.closed["ansible_stats"]["data"] if name != "lowtide_window"]
    assert simulation.restore(job={**WORKFLOW, "revision": "9b2e"}, approved=artifact) == "no_changes"


@pytest.mark.usefixtures("on_volume")
def test_hosts_that_an_expression_has_put_in_another_order_are_the_same(simulation: Simulation) -> None:
    artifact = show(simulation, steps=make_entries(save={"hosts": ["db1", "db2"]}))
    steps = make_entries(save={"hosts": ["db2", "db1"]})
    assert simulation.run(job=WORKFLOW, approved=artifact, steps=steps) == "succeeded"


@pytest.mark.usefixtures("on_volume")
def test_a_relaunch_goes_on_with_what_was_begun_and_begins_nothing_else(simulation: Simulation) -> None:
    """Relaunch is the button beside the job that was refused, or that was killed."""
    artifact = show(simulation)
    later: dict[str, Any] = {"approved": artifact, "approved_only": True, "job": {**WORKFLOW, "revision": "9b2e"}}
    relaunched = {**later, "job": {**later["job"], "launch": "relaunch"}}
    assert "in this run other is: revision 9b2e" in simulation.run(**later)
    assert "in this run other is: revision 9b2e" in simulation.run(**relaunched)
    assert simulation.kill(40, job=WORKFLOW, approved=artifact)
    assert "in this run other is: revision 9b2e" in simulation.run(**later)
    more = make_entries(save={"estimate": 60})
    assert "in this run other is: window_steps. In force are quiesce on web1" in simulation.run(
        **relaunched, steps=more
    )
    assert simulation.run(**relaunched) == "succeeded"


@pytest.mark.usefixtures("on_volume")
@pytest.mark.parametrize("events", [2, 6, None])
def test_a_relaunch_of_what_performed_nothing_begins_it(simulation: Simulation, events: int | None) -> None:
    """Killed at its opening or while it planned, or a plan failed: all is compared, as for a window that is new."""
    approved: dict[str, Any] = {"approved": show(simulation), "approved_only": True}
    if events is None:
        simulation.failing = {("plan of save", "db1")}
        simulation.run(job=WORKFLOW, **approved)
        simulation.failing = set()
    else:
        assert simulation.kill(events, job=WORKFLOW, **approved)
    relaunched = {**WORKFLOW, "revision": "9b2e", "launch": "relaunch"}
    assert "in this run other is: revision 9b2e" in simulation.run(job=relaunched, **approved)
    assert simulation.performed == []
    assert simulation.run(job={**relaunched, "revision": "4f1c"}, **approved) == "succeeded"


@pytest.mark.usefixtures("on_volume")
def test_a_relaunch_of_what_has_only_looked_performs_what_was_approved(simulation: Simulation) -> None:
    """The health check before everything else has failed, and the project was pushed to before the relaunch."""
    steps = [{"name": "look", "role": "demo.look", "hosts": "db", "reads_only": True}, *make_entries()]
    approved: dict[str, Any] = {"approved": show(simulation, steps=steps), "approved_only": True, "steps": steps}
    simulation.failing = {("look", "db1")}
    assert simulation.run(job=WORKFLOW, **approved) == "refused"
    simulation.failing = set()
    relaunched = {**WORKFLOW, "revision": "9b2e", "launch": "relaunch"}
    assert "in this run other is: revision 9b2e" in simulation.run(job=relaunched, **approved)
    assert simulation.performed == []
    assert simulation.run(job={**relaunched, "revision": "4f1c"}, **approved) == "succeeded"


@pytest.mark.usefixtures("on_volume")
def test_what_an_older_window_left_in_force_is_nothing_that_this_one_has_begun(simulation: Simulation) -> None:
    leave_in_force(simulation, "web1")
    approved: dict[str, Any] = {"start": "tuesday", "approved": show(simulation, start="tuesday")}
    assert simulation.kill(2, job=WORKFLOW, **approved)
    cause = simulation.run(job={**WORKFLOW, "revision": "9b2e", "launch": "relaunch"}, **approved)
    assert "in this run other is: revision 9b2e" in cause
    assert simulation.performed == []


@pytest.mark.usefixtures("on_volume")
def test_a_relaunch_that_is_refused_names_what_is_in_force_and_the_way_back(simulation: Simulation) -> None:
    """The pod was evicted while workers were stopped, and an inventory that was read again has lost a host."""
    approved: dict[str, Any] = {"start": "monday", "approved": show(simulation, start="monday")}
    assert simulation.kill(40, job=WORKFLOW, **approved)
    assert simulation.list_left() == {"weekly@monday": [("quiesce", "web1"), ("quiesce", "web2")]}
    fewer = make_inventory({**GROUPS, "web": ["web1"]})
    cause = simulation.run(job={**WORKFLOW, "launch": "relaunch"}, inventory=fewer, **approved)
    words = "In force are quiesce on web1, quiesce on web2: launch restore_service, which reverts that. Launch the"
    assert f"in this run other is: the hosts of its steps. {words} workflow again from its check mode" in cause
    approved = {**approved, "approved": {}, "approved_only": True}
    cause = simulation.run(job=WORKFLOW, **approved)
    assert f"nothing is known of what its check mode has shown, though this run follows an approval. {words}" in cause


@pytest.mark.usefixtures("on_volume")
@pytest.mark.parametrize("failing", [set(), {("maintain", "db1")}])
def test_a_relaunch_of_what_was_refused_begins_nothing_after_another_run(
    simulation: Simulation, failing: set[tuple[str, str]]
) -> None:
    """One occurrence: it ended, well or not. Another workflow was refused, and its red job is relaunched."""
    simulation.failing = failing
    simulation.run(job=WORKFLOW, start="monday")
    simulation.failing = set()
    simulation.world["db1"]["age"] = simulation.world["db1"]["dead"] = 9
    artifact = show(simulation, start="monday")
    later: dict[str, Any] = {
        "approved": artifact,
        "approved_only": True,
        "start": "monday",
        "steps": [*make_entries(), {"name": "drop", "role": "demo.drop", "hosts": "db", "irreversible": True}],
    }
    simulation.performed.clear()
    for launch in ("workflow", "relaunch"):
        cause = simulation.run(job={**WORKFLOW, "id": "2", "revision": "9b2e", "launch": launch}, **later)
        assert "what its check mode has shown was approved, and in this run other is: " in cause
    assert simulation.performed == []


@pytest.mark.usefixtures("on_volume")
@pytest.mark.parametrize("approved", [{}, None, "text"])
def test_a_window_that_follows_an_approval_needs_what_was_shown(simulation: Simulation, approved: Any) -> None:
    """AWX loses an artifact now and then; that of another site or window has another name."""
    cause = simulation.run(job=WORKFLOW, approved=approved, approved_only=True)
    assert "nothing is known of what its check mode has shown, though this run follows an approval" in cause
    assert simulation.run(job=WORKFLOW, approved=approved) == "succeeded"


def test_an_artifact_is_that_of_one_window_of_one_site() -> None:
    names = {name_artifact(site, window) for site in ("shop", "billing") for window in ("weekly", "nightly")}
    assert len(names) == 4
    assert all(re.fullmatch(r"lowtide_shown_[0-9a-f]{16}", name) for name in names)


@pytest.mark.usefixtures("on_volume")
def test_a_job_of_which_awx_names_neither_template_nor_workflow_is_no_slice(simulation: Simulation) -> None:
    assert simulation.run(job={"id": "1", "launch": "workflow"}) == "succeeded"
