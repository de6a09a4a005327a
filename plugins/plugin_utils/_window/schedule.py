# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The times at which a site's window is declared to begin (window_times); pure.

Private to lowtide.ops: do not import from other collections. A scheduler that starts a run may start it late, or twice,
and AWX tells no job its scheduled time (facts of AWX 24.6.1). So the occurrence comes from what the site declares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAME = "window_times"
KEYS = frozenset({"time", "zone", "weekdays", "weeks"})
REACH = 100
"""Days before and after now in which times are looked for: more than a quarter, for the fifth Monday of a month."""
EARLY = 60.0
"""Seconds before a declared time from which a run belongs to it: clocks differ."""
LATE = 300.0
"""Seconds after a declared time from which a run is told to be late."""


@dataclass(frozen=True)
class DeclaredTime:
    """One entry: an hour of the day in a zone, on some weekdays (0 is Monday) of some weeks of the month (from 1)."""

    hour: int
    minute: int
    zone: ZoneInfo
    weekdays: frozenset[int]
    weeks: frozenset[int]

    def list_starts(self, around: float) -> Iterator[float]:
        """Yield its times within REACH days of a time, in seconds since the epoch."""
        today = datetime.fromtimestamp(around, self.zone).date()
        for offset in range(-REACH, REACH + 1):
            day = today + timedelta(days=offset)
            if day.weekday() in self.weekdays and (day.day - 1) // 7 + 1 in self.weeks:
                yield self._at(day)

    def list_gaps(self, around: float) -> Iterator[date]:
        """Yield the days of the year after a time on which its hour does not exist: the clock goes forward over it.

        AWX starts nothing on such a day; the window's time is then an hour later by the clock.
        """
        today = datetime.fromtimestamp(around, self.zone).date()
        for day in (today + timedelta(days=offset) for offset in range(366)):
            if day.weekday() in self.weekdays and (day.day - 1) // 7 + 1 in self.weeks:
                back = datetime.fromtimestamp(self._at(day), self.zone)
                if (back.hour, back.minute) != (self.hour, self.minute):
                    yield day

    def _at(self, day: date) -> float:
        local = datetime(day.year, day.month, day.day, self.hour, self.minute, tzinfo=self.zone)
        return local.astimezone(UTC).timestamp()


@dataclass(frozen=True)
class Schedule:
    """All declared times of a window; none means that it may begin at any time."""

    times: tuple[DeclaredTime, ...] = ()

    @classmethod
    def from_entries(cls, entries: Any) -> Schedule:
        """Read window_times. Raise Refusal for what cannot be meant."""
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise _refuse(
                "it is no list", 'Give a list such as [{time: "02:00", zone: Europe/Berlin, weekdays: [sat]}]'
            )
        return cls(tuple(read_entry(entry) for entry in entries))

    def find_start(self, now: float, *, duration: float) -> float | None:
        """Return the declared time to which a run at ``now`` belongs, None where none is declared.

        Raise Refusal where none is on: ``duration`` seconds after it has begun, each is over.
        """
        if not self.times:
            return None
        starts = sorted({start for one in self.times for start in one.list_starts(now)})
        begun = [start for start in starts if start <= now + EARLY]
        if begun and now < begun[-1] + duration:
            return begun[-1]
        last = "there was none lately"
        if begun:
            last = f"the last one began at {format_utc(begun[-1])} and was over at {format_utc(begun[-1] + duration)}"
        coming = next((start for start in starts if start > now + EARLY), None)
        raise _refuse(
            f"no declared time is on now: {last}, the next one begins at "
            f"{format_utc(coming) if coming is not None else 'a time that is far away'}",
            "Wait for it, or name an occurrence with window_start to run the window outside of its times",
        )


def explain_lateness(start: float, now: float) -> str:
    """Return in words that a run begins late; empty where it does not."""
    late = now - start
    if late <= LATE:
        return ""
    return f"it begins {late / 60:.0f} minutes after its declared time {format_utc(start)}, and has so much less time"


def read_entry(entry: Any, obj: str = NAME) -> DeclaredTime:
    """Read one entry, for the window and for the schedules of AWX. Raise Refusal for what cannot be meant."""
    if not isinstance(entry, Mapping) or not {"time", "zone"} <= entry.keys() <= KEYS:
        keys = ", ".join(sorted(entry)) if isinstance(entry, Mapping) else repr(entry)
        raise _refuse(f"an entry has {keys}", "Give time and zone, and weekdays and weeks where they are not all", obj)
    matched = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", str(entry["time"]))
    if matched is None:
        raise _refuse(f"time {entry['time']!r} is no time of day", 'Write it in quotes, as "02:00"', obj)
    return DeclaredTime(
        int(matched[1]),
        int(matched[2]),
        _read_zone(str(entry["zone"]), obj),
        _read_weekdays(entry.get("weekdays"), obj),
        _read_weeks(entry.get("weeks"), obj),
    )


def _read_zone(name: str, obj: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown, no name of a file, or no time zones here
        raise _refuse(
            f"zone {name!r} is not known here ({error})",
            "Give a name such as Europe/Berlin or UTC; without a system's time zones install the Python package tzdata",
            obj,
        ) from error


def _read_weekdays(names: Any, obj: str) -> frozenset[int]:
    if names is None:
        return frozenset(range(7))
    found = (
        [str(name).lower()[:3] for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else []
    )
    if not found or not set(found) <= set(WEEKDAYS):
        raise _refuse(f"weekdays has {names!r}", f"Give a list of {', '.join(WEEKDAYS)}", obj)
    return frozenset(WEEKDAYS.index(name) for name in found)


def _read_weeks(numbers: Any, obj: str) -> frozenset[int]:
    if numbers is None:
        return frozenset(range(1, 6))
    is_list = isinstance(numbers, Sequence) and not isinstance(numbers, str)
    if not is_list or not numbers or not set(map(str, numbers)) <= set("12345"):
        raise _refuse(f"weeks has {numbers!r}", "Give a list of 1 to 5: which of these weekdays of a month", obj)
    return frozenset(int(number) for number in numbers)


def _refuse(problem: str, next_step: str, obj: str = NAME) -> Refusal:
    return Refusal(obj=obj, problem=problem, next_step=next_step)
