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
    units: t.Sequence[Unit],
    stopped: t.Sequence[str],
    started: t.Sequence[str],
    switched: t.Sequence[str],
    *,
    mode: str,
    amiss: t.Sequence[str] = (),
    killed: t.Sequence[str] = (),
) -> str:
    """Return one line: what was done, or would be, and what is not as declared. ``mode`` is did, would or failed.

    ``killed`` are units that had been killed out of memory before.
    """
    restarted = [name for name in started if name in stopped]
    words = [
        f"{verb if mode == 'would' else past} {join_some(names)}"
        for verb, past, names in (
            ("switch", "switched", list(switched)),
            ("restart", "restarted", restarted),
            ("stop", "stopped", [name for name in stopped if name not in started]),
            ("start", "started", [name for name in started if name not in stopped]),
        )
        if names
    ]
    if not words and mode == "failed":
        words = ["nothing was stopped, switched or started"]
    if not words and not amiss:
        return f"{format_count(len(units), 'unit')} as declared"
    if killed:
        words.append(f"{join_some(list(killed))} had been killed out of memory")
    words += [f"not as declared: {join_some(list(amiss))}"] if amiss else []
    return ("would " if mode == "would" else "") + "; ".join(words)


def list_amiss(units: t.Sequence[Unit], states: t.Mapping[str, UnitState], state: str) -> list[str]:
    """Return what does not run and should, or the other way round, each with its state."""
    return [
        f"{unit.name} is {states[unit.name].describe()}"
        for unit in units
        if (states[unit.name].running and not unit.shared if state == "stopped" else not states[unit.name].serving)
    ]


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
