# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a window: what was begun and how it ended, on disk before the next thing happens.

Private to lowtide.ops: do not import from other collections. One JSON object a line, ``{"v": format, "n": number, "sum":
checksum, "at": seconds since the epoch, "kind": ..., ...}``, appended under the lease's lock and synced. A line without its
newline is a write that a crash cut off: it never happened. Any other damage is refused, never guessed at.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._common.errors import Refusal
from .lease import sync_folder

FORMAT = 1
Record = dict[str, Any]


class Place(NamedTuple):
    """A place in a journal between two lines: how many records stand before it, in how many bytes."""

    records: int = 0
    size: int = 0


@dataclass(frozen=True)
class Reading:
    """Whole records, where the first of them stands and where each of them ends, and whether a cut-off line follows them."""

    records: list[Record]
    places: list[Place]
    torn: bool

    @property
    def end(self) -> Place:
        """Where the next record belongs."""
        return self.places[-1]

    @property
    def size(self) -> int:
        """How many bytes all whole records take."""
        return self.end.size


def checksum(record: Record) -> str:
    """First 12 hex digits of the SHA-256 over the record without its ``sum``."""
    body = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def encode(record: Record) -> bytes:
    """One line, with its checksum."""
    return json.dumps({**record, "sum": checksum(record)}, sort_keys=True).encode() + b"\n"


def decode(data: bytes, *, name: str, after: Place = Place()) -> Reading:  # noqa: B008 (immutable)
    """Records of a journal's bytes from ``after`` on; refuses a damaged line and a format from the future. ``name`` is for the message."""
    *lines, rest = data.split(b"\n")
    records, places = [], [after]
    for line in lines:
        number, size = places[-1].records + 1, places[-1].size + len(line) + 1
        records.append(_decode_line(line, number, name))
        places.append(Place(number, size))
    return Reading(records, places, bool(rest))


def _decode_line(line: bytes, number: int, name: str) -> Record:
    try:
        record = json.loads(line)
        version = record["v"]
        intact = version > FORMAT or (record["n"] == number and record["sum"] == checksum(record))
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise _damaged(name, f"line {number} is damaged ({line[:60]!r})")
    if version > FORMAT:
        raise Refusal(
            obj=f"journal {name}",
            problem=f"line {number} has format {version}, and this version of lowtide.ops knows {FORMAT}",
            next_step="Run the window with the newer version of lowtide.ops",
        )
    return dict(record)


def _damaged(name: str, problem: str) -> Refusal:
    return Refusal(
        obj=f"journal {name}",
        problem=problem,
        next_step="Run the playbook restore_service, so that nothing stays stopped, then move the journal away and run the window again",
    )


class Journal:
    """The journal in the file ``path``, read from ``after`` on. ``append`` is called inside the lease's lock."""

    def __init__(self, path: Path, *, after: Place = Place(), clock: Callable[[], float] = time.time) -> None:  # noqa: B008 (immutable)
        self.path = path
        self._after = after
        self._clock = clock
        self._end: Place | None = None

    def read(self) -> Reading:
        """What is on record; an absent file is an empty journal."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(self._after.size)
                data = file.read()
        except FileNotFoundError:
            size, data = 0, b""
        if size < self._after.size:
            raise _damaged(
                str(self.path), f"it is cut off ({size} bytes, and it had {self._after.size} when the window opened)"
            )
        reading = decode(data, name=str(self.path), after=self._after)
        self._end = None if reading.torn else reading.end
        return reading

    def _place_to_write(self) -> Place:
        # Lines are only ever added: a file as long as it was holds what it held.
        if self._end is not None and self.path.exists() and self.path.stat().st_size == self._end.size:
            return self._end
        return self.read().end

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record and sync it; a cut-off line before it is removed. The record as written."""
        before = self._place_to_write()
        record: Record = {
            **fields,
            "v": FORMAT,
            "n": before.records + 1,
            "at": round(self._clock(), 3),
            "kind": kind,
        }
        line = encode(record)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, before.size)
            os.lseek(descriptor, 0, os.SEEK_END)
            left = line
            while left:  # what a full disk cuts off has no newline, and so never happened
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)
        self._end = Place(before.records + 1, before.size + len(line))
        return record
