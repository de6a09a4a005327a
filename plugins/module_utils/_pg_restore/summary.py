# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Word what pg_restore and drills report; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.text import format_count, join_some


def summarize_restore(
    facts: t.Mapping[str, t.Any], *, live: str, is_swapped: bool, check_mode: bool, changed: bool
) -> str:
    """Return one line: what was restored and where to, what would be, or why nothing is due."""
    run, database = facts["backup"]["run_id"], facts["database"]
    if facts["live_since"] is not None:
        words = f"nothing done: backup {run} has taken the place of {live} at {facts['live_since']}"
    elif not changed:
        words = f"nothing to do: {database} is there and is backup {run}"
    elif check_mode:
        words = (
            f"would put backup {run} in the place of {live}"
            if is_swapped
            else f"would restore backup {run} to {database}"
        )
    elif is_swapped:
        words = f"backup {run} has taken the place of {live}"
        words += f", which is kept as {facts['kept']}" if facts["kept"] else ", which was not there"
    else:
        words = f"restored backup {run} to {database}, compared"
    if facts["live_since"] is not None:
        words += "; what was written since was not compared"
    elif facts["not_compared"]:
        words += "; not all could be compared"
    return words if facts["backup"]["proven"] else f"{words} (unproven: a dump without a manifest)"


def describe_restore(facts: t.Mapping[str, t.Any]) -> str:
    """Return one line of evidence: how much was compared with what, and how long it took."""
    words = (
        f"{facts['backup']['url']}: {format_count(facts['rows'], 'row')} of {format_count(facts['tables'], 'table')} in"
        f" {facts['database']} equal {join_some(facts['compared'])}"
    )
    if facts["restore_seconds"] is not None:
        words += f"; restored in {facts['restore_seconds']:.1f} s"
    return f"{words}; compared in {facts['compare_seconds']:.1f} s"
