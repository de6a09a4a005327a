# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run and the process that renews its lease know of each other, by files in the run's own directory.

Private to lowtide.ops: do not import from other collections. Ages are taken by two clocks, and the larger one counts:
CLOCK_BOOTTIME, which nobody sets, stands still while a hypervisor holds the machine (a snapshot, a migration), and the
wall clock, which may be set back, is put right after that.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

from .files import write_atomically
from .processes import end_process, start_ticks

SIGN = "lowtide_window_renewed"


def read_tick() -> float:
    """Return the seconds since the machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Moment(NamedTuple):
    """A time by both clocks, in seconds."""

    tick: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Return this one."""
        return cls(read_tick(), time.time())

    def measure_age(self) -> float | None:
        """Return the seconds since then; None for what is no time of this machine since its start."""
        now = Moment.now()
        return max(now.tick - self.tick, now.wall - self.wall) if now.tick >= self.tick else None


class Sign:
    """The file with the beginning of the last renewal that the store has confirmed, and those beside it: the renewer's
    process, its last error, and why the lease is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._error = path.with_name(f"{path.name}_error")
        self._loss = path.with_name(f"{path.name}_lost")
        self._process = path.with_name(f"{path.name}_process")

    def write(self, begun: Moment) -> None:
        """Tell that the lease was renewed by a request that began then."""
        write_atomically(self.path, json.dumps(begun), is_durable=False)
        self._error.unlink(missing_ok=True)

    def measure_age(self) -> float | None:
        """Return the seconds since the last renewal began; None where that is not known."""
        text = _read(self.path)
        return Moment(*json.loads(text)).measure_age() if text else None

    def write_error(self, words: str) -> None:
        """Keep why the last renewal failed."""
        self._error.write_text(words, encoding="utf-8")

    def read_error(self) -> str:
        """Return why the last renewal failed; empty where it did not."""
        return _read(self._error)

    def write_loss(self, words: str) -> None:
        """Keep that the lease is another owner's now."""
        self._loss.write_text(words, encoding="utf-8")

    def read_loss(self) -> str:
        """Return how the lease was lost; empty while it is held, as far as the renewer knows."""
        return _read(self._loss)

    def record_process(self, pid: int) -> None:
        """Keep which process renews."""
        self._process.write_text(json.dumps([pid, start_ticks(pid)]), encoding="utf-8")

    def end_process(self) -> None:
        """End the process that renews, if there is one."""
        text = _read(self._process)
        pid, started = json.loads(text) if text else (0, None)
        if started is not None:
            end_process(pid, started)
        self._process.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
