# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the opening of a window is asked for. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .places import Place


@dataclass(frozen=True)
class Request:
    """What the opening is asked for: options of the action. ``duration`` and ``orphan_timeout`` are in seconds;
    ``places`` is how many plays the playbook has, 0 for any number; ``mode`` is ``window`` or :data:`.rules.RESTORE`;
    ``job`` is what AWX says of this job, empty elsewhere; ``approved`` is what the check mode of this window has
    shown in a workflow (:mod:`.approval`), and ``approved_only`` that there must be such a check mode.
    """

    name: str
    steps: list[Any]
    place: Place
    version: str
    start: str = ""
    only: list[str] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)
    duration: float = 14400.0
    orphan_timeout: float = 300.0
    keep_days: int = 90
    places: int = 0
    mode: str = "window"
    job: dict[str, str] = field(default_factory=dict)
    times: Any = ()
    approved: Any = None
    approved_only: bool = False
