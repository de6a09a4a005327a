# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a lease that is another's is renewed while it is looked at.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from collections.abc import Callable


class Watch:
    """What was seen of a lease, by a clock that nobody sets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: tuple[int, float] | None = None
        self._since = 0.0

    def look(self, token: int, renewed: float) -> bool:
        """Take in the lease as it is now; return whether that differs from the look before."""
        is_other = (token, renewed) != self._seen
        is_first = self._seen is None
        if is_other:
            self._seen, self._since = (token, renewed), self._clock()
        return is_other and not is_first

    @property
    def seconds(self) -> float:
        """For how long it was seen as it is."""
        return self._clock() - self._since
