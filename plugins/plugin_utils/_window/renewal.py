# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run and the process that renews its lease know of each other, by files in the run's own directory.

Private to lowtide.ops: do not import from other collections. Times are those of a clock that nobody sets
(CLOCK_BOOTTIME): it goes on while the machine is suspended, and is the same for all processes of the machine.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from .processes import end_process, start_ticks

SIGN = "lowtide_window_renewed"


def read_tick() -> float:
    """Return the seconds since the machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Sign:
    """The file whose time stamp is the beginning of the last renewal that the store has confirmed, and those beside
    it: the renewer's process, its last error, and why the lease is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._error = path.with_name(f"{path.name}_error")
        self._loss = path.with_name(f"{path.name}_lost")
        self._process = path.with_name(f"{path.name}_process")

    def create(self, tick: float) -> None:
        """Make it, for a lease that was asked for at ``tick``."""
        self.path.touch()
        self.write(tick)

    def write(self, tick: float) -> None:
        """Tell that the lease was renewed by a request that began at ``tick``."""
        os.utime(self.path, (tick, tick))
        self._error.unlink(missing_ok=True)

    def measure_age(self) -> float | None:
        """Return the seconds since the last renewal began; None where that is not known."""
        try:
            age = read_tick() - self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        return age if age >= 0 else None

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
