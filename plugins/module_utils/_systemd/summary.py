# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line of a run over units, and the lines that prove it, without I/O.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.text import format_count, join_some
from .._common.timestamps import format_utc
from .releases import LinkState
from .units import Unit, UnitState


def summarize(
    units: t.Sequence[Unit], stopped: t.Sequence[str], started: t.Sequence[str], switched: t.Sequence[str], *, mode: str
) -> str:
    """Return one line: what was done, or would be. ``mode``: did, would, or failed (what was done before)."""
    restarted = [name for name in started if name in stopped]
    future = mode == "would"
    words = [
        f"{verb} {join_some(names)}"
        for verb, names in (
            ("switch" if future else "switched", list(switched)),
            ("restart" if future else "restarted", restarted),
            ("stop" if future else "stopped", [name for name in stopped if name not in started]),
            ("start" if future else "started", [name for name in started if name not in stopped]),
        )
        if names
    ]
    if mode == "failed":
        return f"failed after: {'; '.join(words)}" if words else "nothing was stopped, switched or started"
    if not words:
        return f"{format_count(len(units), 'unit')} as declared"
    return ("would " if future else "") + "; ".join(words)


def describe_unit(unit: Unit, state: UnitState, proof: str) -> str:
    """Return the line of evidence of one unit."""
    if not state.running:
        return f"{unit.name}: {state.describe()}"
    shared = ", shared: never stopped" if unit.shared else ""
    proof = proof or "no readiness declared"
    return f"{unit.name}: {state.describe()} since {format_utc(state.entered)}, {proof}{shared}"


def describe_link(path: str, link: LinkState) -> str:
    """Return the line of evidence of one release."""
    return f"{path}: {link.target} since {format_utc(link.switched)}"
