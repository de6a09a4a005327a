# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit was killed out of memory: by its last result, or by systemd's own record where it runs again.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.timestamps import format_utc

if t.TYPE_CHECKING:
    from .manager import Manager
    from .units import UnitState

RECORD_SECONDS = 86400.0
"""For so long back a record of a kill counts."""


class Kill(t.NamedTuple):
    """A unit that the OOM killer has hit, in words, and when; 0 where only the unit's last result says so."""

    unit: str
    words: str
    at: float


def find_kill(manager: Manager, shown: UnitState) -> Kill | None:
    """Return the kill that a unit's last result or systemd's record of it tells; None where neither does.

    systemd forgets the result with the next start, its own with Restart= among them, and not the record.
    """
    at = manager.read_kill_record(shown.name, RECORD_SECONDS)
    if shown.result == "oom-kill":
        return Kill(shown.name, shown.describe(), at)
    if at:
        return Kill(shown.name, f"{shown.describe()}, killed out of memory at {format_utc(at)} as systemd noted", at)
    return None


def describe_kill(kill: Kill, shown: UnitState, journal: t.Sequence[str]) -> dict[str, t.Any]:
    """Return plain values for a result."""
    return {
        "unit": kill.unit,
        "state": kill.words,
        "at": format_utc(kill.at) if kill.at else None,
        "restarts": shown.restarts,
        "exit_code": shown.exit_code,
        "exit_status": shown.exit_status,
        "memory_max": shown.memory_max,
        "memory_peak": shown.memory_peak,
        "oom_policy": shown.oom_policy,
        "journal": list(journal),
    }
