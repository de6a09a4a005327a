# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status of a site: who holds it, what is not reverted, what was done; and it writes nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowClosed
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.lease import LeaseRecord
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.occurrences import read_occurrences
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.processes import Owner
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.status import describe_holder, read_status
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.store_file import FileStore

from .builders import list_files
from .simulation import Simulation

NOW = 1_800_000_000.0
EVERYTHING = "Nothing is left to revert, as far as the journals know"


@pytest.fixture
def site(simulation: Simulation) -> Simulation:
    """A site at a known time."""
    simulation.clock = lambda: NOW
    return simulation


def read(site: Simulation, *, now: float = NOW) -> dict[str, Any]:
    """Return the status, which must not write anything."""
    before = list_files(site.place)
    status = read_status(site.store, now=now)
    assert list_files(site.place) == before
    return status


def test_a_site_that_was_never_used(tmp_path: Path) -> None:
    status = read_status(FileStore(tmp_path / "never"), now=NOW)
    assert status["lines"] == [f"Site {tmp_path / 'never'}: not held by anybody", EVERYTHING]
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
    assert status["lines"][2].startswith("Window weekly@monday: succeeded at 20")
    assert status["lines"][3] == "  save                     db1                  changed   save was due"
    assert len(status["lines"]) == 13


def test_a_window_that_runs_and_one_that_was_interrupted(site: Simulation) -> None:
    assert site.kill(30, start="sunday")
    site.open(start="monday")
    assert site.controller is not None
    status = read(site)
    assert f"process {site.controller.pid}, since " in status["holder"]
    assert status["holder"].endswith(", with window weekly@monday")
    assert status["lines"][0] == f"Site {site.store.location}: held by {status['holder']}"
    lines = "\n".join(status["lines"])
    assert "Window weekly@monday: running, can be resumed until 2027-01-15T08:10:00Z" in lines
    assert "Window weekly@sunday: interrupted, can be resumed until 2027-01-15T08:10:00Z" in lines
    site.end_controller()
    status = read(site)
    assert status["holder"] == ""
    assert "Window weekly@monday: interrupted, can be resumed until" in "\n".join(status["lines"])
    assert {occurrence["state"] for occurrence in status["occurrences"]} == {"open"}
    status = read(site, now=NOW + 600)
    assert "Window weekly@monday: interrupted, and its time is over" in status["lines"]
    assert {occurrence["state"] for occurrence in status["occurrences"]} == {"interrupted"}


def test_what_is_not_reverted(site: Simulation) -> None:
    site.failing = {("resume", "web1")}
    site.run(start="monday")
    status = read(site)
    assert status["not_reverted"] == [
        {"window_id": "weekly@monday", "step": "quiesce", "host": "web1", "reverted_by": "resume"}
    ]
    assert status["lines"][1] == "Not reverted yet: quiesce on web1, by weekly@monday (reverting step: resume)"
    assert status["lines"][2].endswith("; first cause: resume on web1: demo: resume of web1: told to fail. Go on.")
    assert status["occurrences"][0]["not_reverted"] == ["quiesce on web1"]
    site.failing = set()
    site.restore()
    assert read(site)["not_reverted"] == []


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
    assert doubtful.endswith(", with window weekly@1, on a machine that cannot be looked at from here")
