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
from typing import Any

from .._common.errors import Refusal
from .lease import sync_folder

FORMAT = 1
Record = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """All whole records, how many bytes they take, and whether a cut-off line follows them."""

    records: list[Record]
    size: int
    torn: bool


def checksum(record: Record) -> str:
    """First 12 hex digits of the SHA-256 over the record without its ``sum``."""
    body = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def encode(record: Record) -> bytes:
    """One line, with its checksum."""
    return json.dumps({**record, "sum": checksum(record)}, sort_keys=True).encode() + b"\n"


def decode(data: bytes, *, name: str) -> Reading:
    """Records of a journal's bytes; refuses a damaged line and a format from the future. ``name`` is for the message."""
    whole, newline, rest = data.rpartition(b"\n")
    records = []
    for number, line in enumerate(whole.split(b"\n") if newline else [], start=1):
        records.append(_decode_line(line, number, name))
    return Reading(records, len(whole) + len(newline), bool(rest))


def _decode_line(line: bytes, number: int, name: str) -> Record:
    try:
        record = json.loads(line)
        version = record["v"]
        intact = version > FORMAT or (record["n"] == number and record["sum"] == checksum(record))
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise Refusal(
            obj=f"journal {name}",
            problem=f"line {number} is damaged ({line[:60]!r})",
            next_step="Run the playbook restore_service, so that nothing stays stopped, then move the journal away and run the window again",
        )
    if version > FORMAT:
        raise Refusal(
            obj=f"journal {name}",
            problem=f"line {number} has format {version}, and this version of lowtide.ops knows {FORMAT}",
            next_step="Run the window with the newer version of lowtide.ops",
        )
    return dict(record)


class Journal:
    """The journal in the file ``path``. ``append`` is called inside the lease's lock."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock

    def read(self) -> Reading:
        """Everything on record; an absent file is an empty journal."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        return decode(data, name=str(self.path))

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record and sync it; a cut-off line before it is removed. The record as written."""
        reading = self.read()
        record: Record = {
            **fields,
            "v": FORMAT,
            "n": len(reading.records) + 1,
            "at": round(self._clock(), 3),
            "kind": kind,
        }
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, reading.size)
            os.lseek(descriptor, 0, os.SEEK_END)
            line = encode(record)
            while line:  # what a full disk cuts off has no newline, and so never happened
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)
        return record
