# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Closing: what was not reached, the report, the verdict, the lease given back, old journals removed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.closing import (
    attach_report,
    close_window,
    remove_old_journals,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.engine import StepCall
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import Event, WindowClosed, WindowOpened
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseLost
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.verdict import leave_verdict, read_verdict

from .builders import close, declare, open_window, stop_and_start, succeed
from .simulation import Simulation, load_nothing

DAY = 86400.0


def test_a_run_that_was_closed_gave_everything_back(simulation: Simulation) -> None:
    assert simulation.run(start="monday") == "succeeded"
    assert (simulation.closed["changed"], simulation.closed["warnings"]) == (False, [])
    held = simulation.store.read_lease()
    assert held is not None
    assert held.released
    last = simulation.read_events()[-1]
    assert isinstance(last, WindowClosed)
    assert (last.state, last.cause, last.token) == ("succeeded", "", 1)


def test_the_verdict_is_what_the_last_line_and_awx_say(simulation: Simulation) -> None:
    simulation.failing = {("maintain", "db2")}
    assert simulation.run(start="monday") == "failed_reverted"
    verdict = read_verdict(simulation.folder)
    report = str(simulation.store.directory / "reports/weekly@monday.1.html")
    expected = {
        "state": "failed_reverted",
        "window": "weekly",
        "window_id": "weekly@monday",
        "cause": "maintain on db2: demo: maintain of db2: told to fail. Go on.",
        "report": report,
    }
    assert {key: verdict[key] for key in expected} == expected
    assert verdict["msg"] == simulation.closed["msg"]
    stats = simulation.closed["ansible_stats"]
    artifact = stats["data"]["lowtide_window"]
    assert {**stats, "data": {}} == {"data": {}, "per_host": False, "aggregate": False}
    assert {key: artifact[key] for key in expected} == expected
    assert artifact["report_text"].splitlines() == simulation.closed["lines"]
    assert artifact["report_data"]["window_id"] == "weekly@monday"
    stored = json.loads(Path(report).with_suffix(".json").read_text())
    assert (stored["state"], stored["cause"]) == (expected["state"], expected["cause"])
    assert "failed_reverted" in Path(report).read_text()


def test_a_report_that_is_too_large_for_a_job_is_left_in_the_store() -> None:
    attached = attach_report(["x" * 500_000], {"path": "somewhere"})
    assert attached["report_data"] is None
    assert "it is in the store: somewhere" in attached["report_text"]
    assert len(attached["report_text"]) < 200


@pytest.mark.usefixtures("on_volume")
def test_the_awx_job_is_on_record_and_in_the_report(simulation: Simulation) -> None:
    job = {"id": "12", "user": "alice", "template": "window", "launch": "scheduled", "schedule": "nightly"}
    assert simulation.run(start="monday", job=job) == "succeeded"
    assert (
        simulation.closed["lines"][1] == "Run as AWX job 12 of template window, by alice (scheduled, schedule nightly)"
    )
    assert "by alice" in (simulation.store.directory / "reports/weekly@monday.1.html").read_text()
    (opened,) = [event for event in simulation.read_events() if isinstance(event, WindowOpened)]
    assert opened.job == job


def test_a_run_without_a_window_has_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"window: it was neither opened nor refused in this run\. Open it in the first"):
        read_verdict(str(tmp_path))


@pytest.mark.parametrize(
    ("state", "failed"),
    [
        ("succeeded", False),
        ("no_changes", False),
        ("refused", True),
        ("failed_reverted", True),
        ("failed_not_reverted", True),
    ],
)
def test_the_last_task_fails_when_the_window_did(tmp_path: Path, state: str, failed: bool) -> None:
    leave_verdict(str(tmp_path), {"state": state}, "a line")
    assert read_verdict(str(tmp_path)) == {
        "changed": False,
        "failed": failed,
        "msg": "a line",
        "_ansible_verbose_always": True,
        "state": state,
    }


def test_a_window_without_its_plays_has_not_succeeded(simulation: Simulation) -> None:
    simulation.open()
    assert simulation.close()["state"] == "refused"
    failures = simulation.read_state().failures
    assert {failure.step for failure in failures} == {"save", "quiesce", "maintain", "resume", "verify"}
    assert "save on db1: its play was not reached" in simulation.closed["msg"]


def test_a_step_that_never_ended_is_a_failure_of_the_window(simulation: Simulation) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    call = StepCall(host="db1", step="save", play_hosts=("db1", "db2", "ctl"))
    simulation.engine.begin_step(call, preload=load_nothing)
    assert simulation.close()["state"] == "failed_reverted"
    assert "save on db1: it was started and never finished (host unreachable" in simulation.closed["msg"]
    assert [failure.host for failure in simulation.read_state().failures] == ["db1"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_in_force_at_the_end_is_reverted_or_told(simulation: Simulation, fails: bool) -> None:
    """A playbook of one's own has no line for the reverting step."""
    simulation.open(only=["maintain"])
    simulation.plan()
    simulation.failing = {("resume", "web1")} if fails else set()
    hosts = ("web1", "web2", "ctl")
    simulation.engine.begin_step(StepCall(host="web1", step="quiesce", play_hosts=hosts), preload=load_nothing)
    assert simulation.close()["state"] == ("failed_not_reverted" if fails else "failed_reverted")
    assert ("Not reverted yet: quiesce on web1" in simulation.closed["lines"]) == fails


def test_a_run_that_was_overtaken_does_not_close(simulation: Simulation) -> None:
    assert simulation.kill(40)
    late = simulation.engine.window
    assert simulation.run() == "succeeded"
    with pytest.raises(LeaseLost):
        close_window(late)


def test_a_report_that_cannot_be_written_does_not_hide_how_the_window_ended(simulation: Simulation) -> None:
    simulation.open(only=["save"])
    simulation.plan()
    simulation.perform()
    (simulation.store.directory / "reports").rmdir()
    verdict = simulation.close()
    assert (verdict["state"], verdict["report"]) == ("succeeded", None)
    assert len(simulation.closed["warnings"]) == 1
    assert "the report could not be written ([Errno 2] No such file or directory" in simulation.closed["warnings"][0]
    held = simulation.store.read_lease()
    assert held is not None
    assert held.released


def test_check_mode_leaves_no_report(simulation: Simulation) -> None:
    simulation.check_mode = True
    simulation.run()
    assert read_verdict(simulation.folder)["report"] is None


# -- old journals ---------------------------------------------------------------------------------------------------


def write_at(store: FileStore, name: str, days: float, *events: Event) -> None:
    """Write a journal whose events happened so many days after the epoch, with a report."""
    clocked = FileStore(store.directory, clock=lambda: days * DAY)
    with store.lock():
        for event in (open_window(declare(), window_id=name), *events):
            clocked.append(name, replace(event, token=1))
        clocked.write_report(name, 1, {".html": "", ".json": ""})


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A site with old and new journals; it is day 100."""
    store = FileStore(tmp_path / "site")
    store.create()
    write_at(store, "done@1", 1, close())
    write_at(store, "done@2", 9.9, close())
    write_at(store, "done@3", 10.1, close())
    write_at(store, "killed@1", 1)
    write_at(store, "failed@1", 1, close("failed_reverted"))
    write_at(store, "pending@1", 1, *stop_and_start(), close("failed_not_reverted"))
    reverted = [*stop_and_start(), succeed("resume", "web1", reverts="quiesce")]
    write_at(store, "reverted@1", 1, *reverted, close("failed_reverted"))
    for name in ("damaged@1", "damaged@2"):
        write_at(store, name, 1, close())
    journals = store.directory / "journals"
    data = (journals / "damaged@1.jsonl").read_bytes()
    (journals / "damaged@1.jsonl").write_bytes(data.replace(b"weekly", b"weekli", 1))
    (journals / "damaged@2.jsonl").write_bytes(b"garbage\n")
    return store


def test_old_journals_are_removed_unless_they_tell_of_something_to_revert(store: FileStore) -> None:
    with store.lock():
        removed = remove_old_journals(store, keep_days=90, now=100 * DAY)
    assert sorted(removed) == ["done@1", "done@2", "failed@1", "killed@1", "reverted@1"]
    left = ["damaged@1", "damaged@2", "done@3", "pending@1"]
    assert store.list_occurrences() == left
    assert sorted({name.rsplit(".", 2)[0] for name in os.listdir(store.directory / "reports")}) == left


@pytest.mark.parametrize(("keep_days", "now"), [(0, 1000 * DAY), (100, 100 * DAY)])
def test_nothing_is_removed_before_its_time(store: FileStore, keep_days: int, now: float) -> None:
    before = store.list_occurrences()
    with store.lock():
        assert remove_old_journals(store, keep_days=keep_days, now=now) == []
    assert store.list_occurrences() == before


@pytest.mark.parametrize(("keep_days", "left"), [(30, False), (0, True)])
def test_closing_removes_old_journals(simulation: Simulation, keep_days: int, left: bool) -> None:
    simulation.store.create()
    write_at(simulation.store, "done@1", 1, close())
    options: dict[str, Any] = {"keep_days": keep_days}
    assert simulation.run(**options) == "succeeded"
    assert ("done@1" in simulation.store.list_occurrences()) is left
