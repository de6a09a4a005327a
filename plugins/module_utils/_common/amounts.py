# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations and sizes as people write them. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
from datetime import timedelta

from .errors import Refusal

_DURATIONS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,12})([smhdw]?)")
_SIZES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SIZE = re.compile(r"(\d{1,18}) ?(|b|kib|mib|gib|tib)", re.IGNORECASE)


def parse_duration(text: str, *, option: str) -> int:
    """Return ``24h``, ``90m``, ``7d``, ``3600`` (seconds) in seconds; anything else is refused."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise Refusal(
            obj=f"option {option}",
            problem=f"{text!r} is not a duration",
            next_step="Give a whole number with a unit s, m, h, d or w, for example 24h",
        )
    return int(match[1]) * _DURATIONS[match[2]]


def parse_age(text: str, *, option: str = "max_age") -> timedelta:
    """Return a duration that is written so; one that is longer than can be counted is refused as well."""
    seconds = parse_duration(text, option=option)
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise Refusal(
            obj=f"option {option}", problem=f"{text!r} is longer than can be counted", next_step="Give fewer days"
        ) from None


def parse_size(text: str, *, option: str) -> int:
    """Return ``10GiB``, ``512 MiB``, ``4096`` (bytes) in bytes; anything else is refused."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Refusal(
            obj=f"option {option}",
            problem=f"{text!r} is not a size",
            next_step="Give a whole number of bytes, or one with a unit KiB, MiB, GiB or TiB, for example 10GiB",
        )
    return int(match[1]) * _SIZES[match[2].lower()]
