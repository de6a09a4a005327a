# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Opening: which occurrence, what is refused, who is waited for, what is inherited, what a restore reverts."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window import opening
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import Step
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowOpened
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.opening import (
    Opening,
    choose_start,
    refuse_partial_runs,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import ENVIRONMENT_MARK, Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.verdict import read_verdict
from support.window_stores import start_process

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
from .simulation import Simulation, damage, leave_in_force, load_nothing, make_entries

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


# -- who is waited for ----------------------------------------------------------------------------------------------


def test_a_site_is_held_by_one_window_whatever_its_name(simulation: Simulation) -> None:
    simulation.open(start="monday")
    other = Simulation(simulation.place / "other", directory=simulation.place / "windows")
    cause = other.run(name="other")
    assert simulation.controller is not None
    assert f"process {simulation.controller.pid}, since " in cause
    assert "holds it with window weekly@monday (that process lives)" in cause
    assert other.restore().startswith("refused: site ")
    assert simulation.store.list_occurrences() == ["weekly@monday"]


def test_an_orphan_is_waited_for_and_then_named(simulation: Simulation) -> None:
    assert simulation.kill(45)
    orphan = start_process(env={ENVIRONMENT_MARK: f"{simulation.store.location}#1"})
    try:
        cause = simulation.run(orphan_timeout=0.05)
        assert f"a step of the run before: process {orphan.pid} (" in cause
        assert "still runs after 0 s, though its controller ended. Let it end and run the window again" in cause
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {orphan.pid}"])
        assert simulation.run(orphan_timeout=20.0) == "succeeded"
    finally:
        orphan.kill()
        orphan.wait()


def test_a_process_that_another_token_left_is_no_orphan_of_the_last_run(simulation: Simulation) -> None:
    assert simulation.kill(45)
    orphan = start_process(env={ENVIRONMENT_MARK: f"{simulation.store.location}#7"})
    try:
        assert simulation.run() == "succeeded"
    finally:
        orphan.kill()
        orphan.wait()


def hold_from_elsewhere(simulation: Simulation) -> Path:
    """Make a controller of another machine the holder; return the lease."""
    store = simulation.store
    store.create()
    owner = replace(Owner.from_pid(os.getpid()), host="elsewhere", boot="another")
    with store.lock():
        store.acquire(owner, "weekly@sunday")
    return store.directory / "lease"


class Time:
    """A clock that nobody sets; ``on_sleep`` is called with its seconds after each pause."""

    def __init__(self, on_sleep: Callable[[float], None] = lambda _seconds: None) -> None:
        self.now = 0.0
        self.on_sleep = on_sleep
        self.told: list[str] = []

    def sleep(self, seconds: float) -> None:
        """Let so much time go by."""
        self.now += seconds
        self.on_sleep(self.now)

    def open(self, simulation: Simulation, **changes: Any) -> dict[str, Any]:
        """Open a window in this time."""
        opening = Opening(
            simulation.start_controller(), sleep=self.sleep, ticks=lambda: self.now, tell=self.told.append
        )
        return opening.open(simulation.make_request(**changes), make_inventory(), preload=load_nothing)


def stamp_lease(lease: Path, *, age: float) -> None:
    """Make the lease one that was renewed so many seconds ago, by the clock of the file system."""
    os.utime(lease, (time.time() - age,) * 2)


def test_a_holder_that_cannot_be_looked_at_and_does_not_renew_is_waited_for(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    begun = time.time()
    one = Time(lambda seconds: os.utime(lease, (begun, begun)) if seconds == 1 else None)
    os.utime(lease, (begun, begun))
    opened = one.open(simulation)
    assert not opened["refused"]
    assert opened["token"] == 2
    assert one.now == 60.0, "its whole time"
    (told,) = one.told
    assert "elsewhere, process" in told
    assert told.endswith("Waiting: it is succeeded if it is not renewed for 60 s")


def test_a_lease_that_is_over_is_looked_at_for_longer_than_a_renewal_takes(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=3600)
    one = Time()
    assert not one.open(simulation)["refused"]
    assert one.now == 20.0
    assert one.told[0].endswith("Waiting: it is succeeded if it is not renewed for 20 s")


def test_a_lease_that_seems_to_be_over_and_is_renewed_is_not_taken(simulation: Simulation) -> None:
    """Its holder asks a server whose clock is two minutes behind that of the one which answers here."""
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=120)
    one = Time(lambda seconds: stamp_lease(lease, age=119) if seconds == 15 else None)
    opened = one.open(simulation)
    assert opened["refused"]
    assert "holds it with window weekly@sunday (last renewed at " in opened["msg"]
    assert one.now == 15.0


def test_a_lease_of_the_future_is_over_when_nothing_was_renewed_for_its_whole_time(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    stamp_lease(lease, age=-3600)
    one = Time()
    opened = one.open(simulation)
    assert (opened["refused"], opened["token"]) == (False, 2)
    assert one.now == 60.0


def test_a_holder_that_cannot_be_looked_at_and_renews_is_not_waited_for(simulation: Simulation) -> None:
    lease = hold_from_elsewhere(simulation)
    one = Time(lambda seconds: stamp_lease(lease, age=-seconds))
    opened = one.open(simulation)
    assert opened["refused"]
    assert "elsewhere, process" in opened["msg"]
    assert "holds it with window weekly@sunday (last renewed at " in opened["msg"]
    assert one.now == 1.0, "it was seen to live"


@pytest.mark.parametrize(("until", "refused", "end"), [(30.0, False, 90.0), (1000.0, True, 60.0)])
def test_a_restore_waits_for_a_pod_that_is_ending_and_not_for_one_that_lives(
    simulation: Simulation, until: float, refused: bool, end: float
) -> None:
    """The pod of a job that was cancelled renews for its grace period, and what it stopped has to be started."""
    lease = hold_from_elsewhere(simulation)
    one = Time(lambda seconds: stamp_lease(lease, age=-seconds) if seconds <= until else None)
    opened = one.open(simulation, name="restore_service", mode="restore", orphan_timeout=300.0)
    assert (opened["refused"], one.now) == (refused, end)
    (told,) = one.told
    assert "holds it with window weekly@sunday (last renewed at" in told
    assert told.endswith("if it is not renewed for 60 s; if it is renewed, this ends after 60 s")


def test_the_job_that_holds_the_site_is_named(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "refuse_fleeting_directory", lambda *_arguments, **_options: None)
    simulation.open(start="monday", job={"id": "12", "user": "alice", "template": "shop window"})
    other = Simulation(simulation.place / "other", directory=simulation.place / "windows")
    cause = other.run(name="other")
    assert "(that process lives); that run is AWX job 12 of template shop window, by alice. Wait for its end" in cause
    assert "or cancel job 12 in AWX, and run this again" in cause


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


def test_check_mode_outside_of_the_declared_times_predicts_the_next_one(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    simulation.clock = lambda: now
    times = declare_time(3)
    assert "window_times: no declared time is on now" in simulation.run(times=times)
    simulation.check_mode = True
    assert simulation.run(times=times) == "succeeded"
    assert simulation.opened["window_id"] == "weekly@2027-01-15T11:00:00Z"
    (warning,) = simulation.opened["warnings"]
    assert "no declared time is on now, so this is the prediction for the next one, 2027-01-15T11:00:00Z" in warning
    monkeypatch.setattr(opening, "refuse_fleeting_directory", lambda *_arguments, **_options: None)
    assert "no declared time is on now" in simulation.run(times=times, job={"id": "1", "workflow_id": "9"}), (
        "to approve"
    )
    assert simulation.run(times=times, start="mine") == "succeeded"
    assert (simulation.opened["window_id"], simulation.opened["warnings"]) == ("weekly@mine", [])
    assert simulation.run(times=declare_time(-0.1)) == "succeeded"
    assert simulation.opened["window_id"] == "weekly@2027-01-15T07:54:00Z"


# -- what was approved ----------------------------------------------------------------------------------------------


def test_what_runs_is_what_the_check_mode_has_shown(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "refuse_fleeting_directory", lambda *_arguments, **_options: None)
    job = {"id": "1", "launch": "workflow", "workflow": "nightly", "template": "window", "revision": "4f1c"}
    simulation.check_mode = True
    assert simulation.run(job=job) == "succeeded"
    artifact = simulation.closed["ansible_stats"]["data"]["lowtide_window"]
    simulation.check_mode = False
    words = "its check mode has shown revision 4f1c of the project, and this run has revision 9b2e of the project"
    assert words in simulation.run(job={**job, "revision": "9b2e"}, approved=artifact)
    assert "Launch the workflow again from its check mode" in simulation.opened["msg"]
    for changes in (
        {"steps": make_entries(save={"estimate": 60})},
        {"version": "1.0.1"},
        {"skip": ["verify"]},
        {"inventory": make_inventory({**GROUPS, "web": ["web1"]})},
    ):
        cause = simulation.run(**{"job": job, "approved": artifact, **changes})
        assert re.search(r"has shown declaration [0-9a-f]{16}, and this run has declaration [0-9a-f]{16}, which", cause)
    assert simulation.run(name="other", job={**job, "revision": "9b2e"}, approved=artifact) == "succeeded"
    assert "shown" not in simulation.closed["ansible_stats"]["data"]["lowtide_window"]
    permuted = make_inventory({name: hosts[::-1] for name, hosts in GROUPS.items()})
    assert simulation.run(job=job, approved=artifact, inventory=permuted) == "no_changes", "AWX promises no order"
    assert simulation.run(job={**job, "launch": "relaunch", "revision": "9b2e"}, approved=artifact) == "no_changes"
    assert simulation.restore(job={**job, "revision": "9b2e"}, approved=artifact) == "no_changes"


@pytest.mark.parametrize("approved", [{}, {"window": "weekly", "shown": {"site": "another"}}])
def test_a_window_that_follows_an_approval_needs_what_was_shown(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, approved: Any
) -> None:
    """AWX loses an artifact now and then; that of another site is none."""
    monkeypatch.setattr(opening, "refuse_fleeting_directory", lambda *_arguments, **_options: None)
    job = {"id": "1", "launch": "workflow", "workflow": "nightly", "template": "window"}
    cause = simulation.run(job=job, approved=approved, approved_only=True)
    assert "nothing is known of what its check mode has shown, though this run follows an approval" in cause
    assert simulation.run(job=job, approved=approved) == "succeeded"


@pytest.mark.parametrize("approved", [{}, None, {"window": "weekly"}, {"window": "weekly", "shown": "text"}])
def test_a_window_without_a_check_mode_before_it_needs_none(simulation: Simulation, approved: Any) -> None:
    assert simulation.run(approved=approved) == "succeeded"
