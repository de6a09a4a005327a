# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The occurrence of a run that a scheduler started late, twice, or outside of the declared times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import WindowOpened
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.schedule import Schedule, explain_lateness

from .simulation import Simulation

NIGHTLY = {"time": "02:00", "zone": "Europe/Berlin"}
HOURS = 3600.0


def at(text: str) -> float:
    """Return a time in UTC as seconds since the epoch."""
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


@pytest.mark.parametrize(
    ("entries", "now", "expected"),
    [
        ([NIGHTLY], "2026-11-27T01:00:00", "2026-11-27T01:00:00Z"),
        ([NIGHTLY], "2026-11-27T00:59:30", "2026-11-27T01:00:00Z"),  # clocks differ
        ([NIGHTLY], "2026-11-27T04:59:59", "2026-11-27T01:00:00Z"),
        ([NIGHTLY], "2026-07-27T00:10:00", "2026-07-27T00:00:00Z"),  # summer time
        ([NIGHTLY], "2026-03-29T01:10:00", "2026-03-29T01:00:00Z"),  # 02:00 is not there on that day
        ([NIGHTLY], "2026-10-25T00:10:00", "2026-10-25T00:00:00Z"),  # 02:00 is there twice: the first one
        ([{**NIGHTLY, "weekdays": ["sat"]}], "2026-11-28T03:00:00", "2026-11-28T01:00:00Z"),
        ([{**NIGHTLY, "weekdays": ["fri", "sat"]}], "2026-11-27T03:00:00", "2026-11-27T01:00:00Z"),
        ([{**NIGHTLY, "weekdays": ["sun"], "weeks": [1]}], "2026-12-06T02:00:00", "2026-12-06T01:00:00Z"),
        ([{**NIGHTLY, "weekdays": ["sun"], "weeks": ["5"]}], "2026-11-29T02:00:00", "2026-11-29T01:00:00Z"),
        ([{"time": "23:30", "zone": "Pacific/Auckland"}], "2026-11-27T11:00:00", "2026-11-27T10:30:00Z"),
        ([NIGHTLY, {"time": "3:30", "zone": "UTC"}], "2026-11-27T03:31:00", "2026-11-27T03:30:00Z"),
    ],
)
def test_the_declared_time_that_is_on(entries: list[Any], now: str, expected: str) -> None:
    start = Schedule.from_entries(entries).find_start(at(now), duration=4 * HOURS)
    assert start is not None
    assert format_utc(start) == expected


@pytest.mark.parametrize(
    ("entries", "now", "words"),
    [
        (
            [NIGHTLY],
            "2026-11-27T05:00:00",
            "the last one began at 2026-11-27T01:00:00Z and was over at 2026-11-27T05:00:00Z, "
            "the next one begins at 2026-11-28T01:00:00Z",
        ),
        ([{**NIGHTLY, "weekdays": ["sat"]}], "2026-11-27T03:00:00", "the next one begins at 2026-11-28T01:00:00Z"),
        (
            [{"time": "02:00", "zone": "UTC", "weekdays": ["mon"], "weeks": [5]}],
            "2026-11-27T12:00:00",
            "the last one began at 2026-08-31T02:00:00Z and was over at 2026-08-31T06:00:00Z, "
            "the next one begins at 2026-11-30T02:00:00Z",
        ),
        ([{**NIGHTLY, "weekdays": ["sun"], "weeks": [1]}], "2026-11-29T02:00:00", "begins at 2026-12-06T01:00:00Z"),
    ],
)
def test_outside_of_them_the_next_one_is_named(entries: list[Any], now: str, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        Schedule.from_entries(entries).find_start(at(now), duration=4 * HOURS)
    assert words in str(caught.value)
    assert "name an occurrence with window_start" in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("02:00", "it is no list"),
        ([{"time": "02:00"}], "an entry has time. Give time and zone"),
        ([{**NIGHTLY, "day": 1}], "an entry has day, time, zone"),
        ([{**NIGHTLY, "time": "25:00"}], "time '25:00' is no time of day"),
        ([{**NIGHTLY, "time": 7200}], "time 7200 is no time of day"),  # what YAML makes of 2:00:00 without quotes
        ([{**NIGHTLY, "zone": "Berlin"}], "zone 'Berlin' is not known here"),
        ([{**NIGHTLY, "zone": "../etc/passwd"}], "is not known here"),
        ([{**NIGHTLY, "weekdays": "sat"}], "weekdays has 'sat'. Give a list of mon, tue"),
        ([{**NIGHTLY, "weekdays": ["someday"]}], "weekdays has"),
        ([{**NIGHTLY, "weekdays": []}], "weekdays has []"),
        ([{**NIGHTLY, "weeks": [6]}], "weeks has [6]"),
        ([{**NIGHTLY, "weeks": []}], "weeks has []"),
    ],
)
def test_what_cannot_be_meant_is_refused(entries: Any, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        Schedule.from_entries(entries)
    assert words in str(caught.value)


def test_lateness_is_told_from_five_minutes_on() -> None:
    assert explain_lateness(1000.0, 1299.0) == ""
    assert explain_lateness(0.0, 720.0) == (
        "it begins 12 minutes after its declared time 1970-01-01T00:00:00Z, and has so much less time"
    )


def test_a_late_run_has_the_declared_start_and_end(simulation: Simulation) -> None:
    simulation.clock = lambda: at("2026-11-27T01:08:00")
    assert simulation.run(times=[NIGHTLY], duration=600.0) == "succeeded"
    opened = simulation.read_events()[0]
    assert isinstance(opened, WindowOpened)
    assert opened.window_id == "weekly@2026-11-27T01:00:00Z"
    assert opened.ends == at("2026-11-27T01:10:00")
    assert "it begins 8 minutes after its declared time" in simulation.opened["warnings"][0]


def test_a_schedule_that_fires_twice_does_the_work_once(simulation: Simulation) -> None:
    simulation.clock = lambda: at("2026-11-27T01:00:10")
    assert simulation.run(times=[NIGHTLY]) == "succeeded"
    performed = list(simulation.performed)
    assert simulation.run(times=[NIGHTLY]) == "no_changes"
    assert simulation.store.list_occurrences() == ["weekly@2026-11-27T01:00:00Z"]
    assert {"maintain", "save"} <= {step for step, _host in performed}
    assert not {"maintain", "save"} & {step for step, _host in simulation.performed}


def test_outside_of_its_times_a_window_is_refused_unless_it_is_named_or_resumed(simulation: Simulation) -> None:
    simulation.clock = lambda: at("2026-11-27T12:00:00")
    assert "no declared time is on now" in simulation.run(times=[NIGHTLY])
    assert simulation.store.list_occurrences() == []
    simulation.failing = {("maintain", "db1")}
    assert simulation.run(times=[NIGHTLY], start="hand") == "failed_reverted"
    simulation.failing = set()
    assert simulation.run(times=[NIGHTLY]) == "succeeded", "what is not finished is resumed until its end"
    assert simulation.store.list_occurrences() == ["weekly@hand"]
