# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deadlines and pauses between attempts. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import random
import time
import typing as t


class Deadline:
    """A point in time that a wait must not pass. Clock in seconds, monotonic; it and the sleep injectable for tests."""

    def __init__(
        self,
        seconds: float,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._start = clock()
        self._end = self._start + seconds
        self.seconds = seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return self._clock() - self._start

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.left)

    @property
    def left(self) -> float:
        """Seconds left, negative once it has passed."""
        return self._end - self._clock()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining <= 0.0

    def renew(self) -> None:
        """Give as many seconds as at first from now on. What has elapsed is counted from the beginning all the same."""
        self._end = self._clock() + self.seconds

    def pause(self, seconds: float) -> None:
        """Sleep between two looks at a condition that nothing announces, but not past the deadline."""
        self._sleep(min(seconds, self.remaining))


class Backoff:
    """Pauses between attempts that grow: ``first`` seconds, doubled each time up to ``limit``, each with jitter.

    The jitter keeps clients that failed together from coming back together; it takes up to half of a pause away.
    """

    def __init__(
        self, *, first: float = 0.1, limit: float = 5.0, jitter: t.Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._limit = limit
        self._jitter = jitter
        self._attempts = 0

    def take_pause(self) -> float:
        """Return the seconds to wait before the next attempt."""
        pause = min(self._limit, self._first * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return pause * (1.0 - 0.5 * self._jitter())

    def reset(self) -> None:
        """Begin again with the first pause, after something has worked."""
        self._attempts = 0
