# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status of a site: who holds it, what is not reverted, what was done; and it writes nothing."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowClosed
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import TTL, LeaseRecord
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.occurrences import read_occurrences
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.status import SOURCE, describe_holder, read_status
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

from .builders import list_files
from .simulation import KilledError, Simulation

NOW = 1_800_000_000.0
EVERYTHING = "Nothing is left to revert"
RESTORE = "lowtide.ops.restore_service"
AGAIN = f"Run the window again, or {RESTORE}"


@pytest.fixture
def site(simulation: Simulation) -> Simulation:
    """A site at a known time."""
    simulation.clock = lambda: NOW
    return simulation


def read(site: Simulation, *, now: float = NOW) -> dict[str, Any]:
    """Return the status, which must not write anything. (The folders of runs are not looked at: a renewer writes.)"""
    before = list_files(site.place / "windows")
    assert before or not site.store.read_lease()
    status = read_status(site.store, now=now)
    assert list_files(site.place / "windows") == before
    return status


def test_a_site_that_was_never_used(tmp_path: Path) -> None:
    status = read_status(FileStore(tmp_path / "never"), now=NOW)
    assert status["lines"] == [f"Site {tmp_path / 'never'}: not held by anybody", EVERYTHING, SOURCE]
    assert (status["holder"], status["not_reverted"], status["occurrences"], status["changed"]) == ("", [], [], False)
    assert status["msg"] == status["lines"][0]
    assert not (tmp_path / "never").exists()


def test_a_window_that_came_to_its_end(site: Simulation) -> None:
    site.run(start="monday")
    status = read(site)
    (occurrence,) = status["occurrences"]
    assert occurrence["window_id"] == "weekly@monday"
    assert (occurrence["state"], occurrence["cause"], occurrence["not_reverted"]) == ("succeeded", "", [])
    assert status["lines"][1] == EVERYTHING
    assert status["lines"][2] == SOURCE
    assert re.fullmatch(r"Window weekly@monday: succeeded at 20\d\d-[^ ]*Z", status["lines"][3])
    assert status["lines"][4] == "  save                     db1                  changed      save was due"
    assert len(status["lines"]) == 14


def test_a_window_that_runs_and_one_that_was_interrupted(site: Simulation) -> None:
    assert site.kill(30, start="sunday")
    site.open(start="monday")
    assert site.controller is not None
    status = read(site)
    assert f"process {site.controller.pid}, since " in status["holder"]
    assert status["holder"].endswith(", with window weekly@monday")
    assert status["lines"][0] == f"Site {site.store.location}: held by {status['holder']}"
    lines = "\n".join(status["lines"])
    assert "Window weekly@monday: running; no new step starts after 08:10:00Z" in lines
    assert "Window weekly@sunday: interrupted; the next run resumes it until 2027-01-15T08:10:00Z" in lines
    assert "Window weekly@monday: running; no new step starts since 08:10:00Z" in read(site, now=NOW + 600)["lines"]
    site.end_controller()
    status = read(site)
    assert status["holder"] == ""
    assert "Window weekly@monday: interrupted; the next run resumes it until" in "\n".join(status["lines"])
    assert {occurrence["state"] for occurrence in status["occurrences"]} == {"open"}
    status = read(site, now=NOW + 600)
    assert "Window weekly@monday: interrupted; its time is over" in status["lines"]
    assert {occurrence["state"] for occurrence in status["occurrences"]} == {"interrupted"}


def test_a_step_that_runs_now_is_running_and_after_a_kill_interrupted(site: Simulation) -> None:
    told: list[list[str]] = []

    def look(step: str, host: str) -> None:
        if (step, host) == ("maintain", "db1") and (step, host) in site.read_state().started:
            told.append(read(site)["lines"])
            raise KilledError

    site.before = look
    with pytest.raises(KilledError):
        site.run(start="monday")
    row, left = "  maintain                 db1                  ", "Not reverted yet: quiesce on web"
    (running,) = told
    assert [line for line in running if re.fullmatch(rf"{row}running      since \d\d:\d\d:\d\dZ", line)]
    assert not [line for line in running if "failed" in line or "interrupted" in line]
    next_steps = {line.partition(" (reverting step: resume). ")[2] for line in running if line.startswith(left)}
    assert next_steps == {"The window runs, and reverts it"}
    killed = read(site)["lines"]
    told_row = rf"{row}interrupted  started at 20\d\d-.*Z, and its end is not on record"
    assert [line for line in killed if re.fullmatch(told_row, line)]
    assert not [line for line in killed if "failed" in line or "running" in line]
    assert {line.partition(" (reverting step: resume). ")[2] for line in killed if line.startswith(left)} == {AGAIN}


def test_a_holder_that_cannot_be_looked_at_is_at_work_as_long_as_it_renews(site: Simulation) -> None:
    site.open(start="monday")
    held = site.store.read_lease()
    assert held is not None
    with site.store.lock():
        site.store._write_lease(replace(held, owner=replace(held.owner, boot="other")))
    renewed = site.store.read_last_renewal()
    status = read(site, now=renewed + TTL - 1)
    assert "Window weekly@monday: running; " in "\n".join(status["lines"])
    assert status["holder"].endswith(", with window weekly@monday, a process that cannot be looked at from here")
    # Its renewer lives, and may have renewed meanwhile.
    status = read(site, now=renewed + 2 * TTL)
    assert "Window weekly@monday: interrupted; " in "\n".join(status["lines"])
    renewals = {format_utc(moment) for moment in (renewed, site.store.read_last_renewal())}
    told = [f"; its lease was last renewed at {moment}, so another run may take over" for moment in renewals]
    assert status["holder"].endswith(tuple(told))


def test_what_is_not_reverted(site: Simulation) -> None:
    site.failing = {("resume", "web1")}
    site.run(start="monday")
    status = read(site)
    assert status["not_reverted"] == [
        {"window_id": "weekly@monday", "step": "quiesce", "host": "web1", "reverted_by": "resume"}
    ]
    assert (
        status["lines"][1] == "Not reverted yet: quiesce on web1, by weekly@monday (reverting step: resume). " + AGAIN
    )
    resuming = "; the next run resumes it until 2027-01-15T08:10:00Z; first cause: "
    assert re.match(rf"Window weekly@monday: failed_not_reverted at 20[^ ]*Z{resuming}", status["lines"][3])
    assert status["lines"][3].endswith("; first cause: resume on web1: demo: resume of web1: told to fail. Go on.")
    assert status["occurrences"][0]["not_reverted"] == ["quiesce on web1"]
    site.open(name="other", start="monday")
    assert read(site)["lines"][1].endswith(f"). Wait for window other@monday, then run the window again, or {RESTORE}")
    site.end_controller()
    site.failing = set()
    site.restore()
    status = read(site)
    assert status["not_reverted"] == []
    restored = [line for line in status["lines"] if line.startswith("Window restore_service@")]
    assert len(restored) == 1
    assert re.search(r": succeeded at 20[^ ]*Z$", restored[0])


def test_the_five_newest_are_told_the_newest_first(site: Simulation) -> None:
    times = iter(range(100000))
    for number in range(7):
        site.run(start=f"day{number}", only=["save"])
        store = FileStore(site.store.directory, clock=lambda: NOW + next(times))
        with store.lock():
            store.append(f"weekly@day{number}", WindowClosed(state="no_changes"))
    status = read(site)
    told = [occurrence["window_id"] for occurrence in status["occurrences"]]
    assert told == [f"weekly@day{number}" for number in (6, 5, 4, 3, 2)]


@pytest.mark.parametrize("settled", [True, False])
def test_a_damaged_journal_is_told_and_hides_no_other(site: Simulation, settled: bool) -> None:
    site.failing = set() if settled else {("resume", "web1")}
    site.run(start="sunday")
    path = site.store.directory / "journals/weekly@sunday.jsonl"
    site.failing = set()
    site.run(name="other", start="monday")
    path.write_bytes(path.read_bytes().replace(b"quiesce", b"quiezce", 1))
    status = read(site)
    (damaged,) = [line for line in status["lines"] if line.startswith("Damaged: ")]
    assert "weekly@sunday.jsonl: line 1 is damaged" in damaged
    assert [occurrence["window_id"] for occurrence in status["occurrences"]] == ["other@monday"]


def test_settled_occurrences_are_not_read_again(site: Simulation) -> None:
    site.run(start="sunday")
    site.failing = {("verify", "web1")}
    site.world["db1"]["dead"] = 9
    site.run(start="monday")
    occurrences = read_occurrences(site.store)
    assert (list(occurrences.states), occurrences.damaged) == (["weekly@monday"], {})
    assert list(occurrences.select_window("weekly")) == ["weekly@monday"]
    assert occurrences.select_window("week") == {}


def test_a_holder_in_words() -> None:
    me = Owner.from_pid(os.getpid())
    held = LeaseRecord(1, me, "weekly@1")
    assert describe_holder(None) == ""
    assert describe_holder(held) == f"{me.describe()}, with window weekly@1"
    assert describe_holder(replace(held, released=True)) == ""
    assert describe_holder(replace(held, owner=replace(me, started=1))) == ""
    doubtful = describe_holder(replace(held, owner=replace(me, boot="other")))
    assert doubtful.endswith(", with window weekly@1, a process that cannot be looked at from here")
