# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words for summaries and evidence: sizes, durations, lists.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

_DURATIONS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def format_duration(seconds: float) -> str:
    """Return a duration by its two largest units, such as ``3 h 20 min``; below a second ``0 s``."""
    left = max(0, int(seconds))
    words = []
    for name, size in _DURATIONS:
        if left >= size:
            words.append(f"{left // size} {name}")
            left %= size
    return " ".join(words[:2]) or "0 s"


def format_size(size: int) -> str:
    """Return a number of bytes in the largest binary unit that it fills, with one decimal: ``12.3 MiB``."""
    value = float(size)
    for unit in _SIZES[:-1]:
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_SIZES[-1]}"


def format_count(number: int, noun: str) -> str:
    """Return the number with its noun: ``1 replica``, ``3 replicas``, ``2 indexes``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('x') else 's'}"


def join_some(words: t.Sequence[str], *, limit: int = 5) -> str:
    """Join the first ``limit`` words by commas and count the rest: ``a, b and 3 more``."""
    shown = ", ".join(words[:limit])
    rest = len(words) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
