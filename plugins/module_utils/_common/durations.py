# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations as people write them; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
from datetime import timedelta

from .errors import Refusal

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(\d+)([smhdw]?)")


def parse_age(text: str, *, option: str = "max_age") -> timedelta:
    """Return ``24h``, ``90m``, ``7d``, ``3600`` (seconds) as a duration; anything else is refused."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise Refusal(
            obj=f"option {option}",
            problem=f"{text!r} is not a duration",
            next_step="Give a whole number with a unit s, m, h, d or w, for example 24h",
        )
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise Refusal(
            obj=f"option {option}", problem=f"{text!r} is longer than can be counted", next_step="Give fewer days"
        ) from None
