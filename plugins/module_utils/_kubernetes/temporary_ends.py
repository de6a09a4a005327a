# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a temporary change ends: one reading of the option ``until``, and of what ``state: expired`` takes back.

``now`` is always the server's time, since another control host may take a change back than the one that made it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from .._common.errors import Refusal
from .fields import as_time


def read_moment(option: str, value: str | None) -> float | None:
    """Return a moment in seconds since 1970, None where none is given. A Refusal says what a moment looks like."""
    if not value:
        return None
    moment = as_time(value)
    if moment is None or "T" not in value.upper():
        raise Refusal(
            obj=f"option {option}",
            problem=f"{value!r} is no moment",
            next_step="Write it as in RFC 3339, such as 2026-05-01T22:00:00Z",
        )
    return moment


def check_end(until: str | None, now: float) -> None:
    """Refuse an ``until`` that is no moment, or has passed."""
    end = read_moment("until", until)
    if end is not None and end <= now:
        raise Refusal(
            obj="option until",
            problem=f"{until} has passed",
            next_step="Set a later end, or take the change back by state: expired",
        )


def is_due(until: str, now: float) -> bool:
    """Return whether the end of a temporary change has come; never of one that has none, or none that can be read."""
    end = as_time(until)
    return end is not None and end <= now
