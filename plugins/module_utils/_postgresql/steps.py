# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared condition, and what a run is made of: steps, and what it skips. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
from enum import IntEnum

from .._common.outcome import Blocker, PlanItem

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome


class Phase(IntEnum):
    """What a step belongs to, in the order that helps most: danger first, then what costs every write, then the biggest effect."""

    FREEZE = 0
    LEFTOVERS = 1
    INVALID = 2
    CLEAN = 3
    PARENTS = 4
    BLOAT = 5
    COLLATION = 6
    REFRESH = 7


class Conditions(t.NamedTuple):
    """The declared condition; what is None is not asked for. Ages in seconds or transactions, sizes in bytes, ratios 0 to 1."""

    dead_tuple_ratio: float | None = None
    changed_tuple_ratio: float | None = None
    inserted_tuple_ratio: float | None = None
    minimum_tuples: int = 1000
    statistics_age: float | None = None
    transaction_id_age: int | None = None
    invalid_indexes: bool = False
    index_bloat_ratio: float | None = None
    minimum_index_size: int = 2**20
    collation_versions: str = "ignore"


class Step(t.NamedTuple):
    """One thing to do to one table or index, which ``oid`` identifies.

    ``unmet`` are the conditions that do not hold, with the values seen. ``priority`` orders steps of one phase (more
    first); ``table`` is the oid of the table whose lock the step takes. ``is_safe`` is false for a concurrent build that
    other concurrent builds wait for.
    """

    phase: Phase
    table: int
    oid: int
    schema: str
    name: str
    display_name: str
    action: str
    unmet: dict[str, str]
    priority: float
    size: int
    estimate: float
    vacuum: bool = False
    analyze: bool = False
    is_safe: bool = True

    @property
    def why(self) -> str:
        """All reasons on one line."""
        return "; ".join(self.unmet.values())

    @property
    def options(self) -> tuple[bool, bool, bool]:
        """(vacuum, freeze, analyze): steps of one statement have the same."""
        return self.vacuum, "FREEZE" in self.action, self.analyze

    @property
    def is_danger(self) -> bool:
        """Whether it is there against wraparound, so that it must not be left."""
        return "transaction_id_age" in self.unmet


class Skip(t.NamedTuple):
    """Something due, or perhaps due, that is not done. ``blocker`` is what somebody can clear, None where the declared
    scope itself is the reason. ``is_danger``: it fails the run, whatever on_blocked says; so does a ``missing_right``, which
    no waiting clears.
    """

    oid: int
    display_name: str
    action: str
    reason: str
    blocker: Blocker | None = None
    is_danger: bool = False
    missing_right: bool = False


class Plan:
    """Steps in order, and what is skipped."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.skips: list[Skip] = []

    def skip(
        self,
        oid: int,
        display_name: str,
        action: str,
        reason: str,
        blocker: Blocker | None = None,
        *,
        danger: bool = False,
        missing_right: bool = False,
    ) -> None:
        """Put on record that something due is not done."""
        self.skips.append(Skip(oid, display_name, action, reason, blocker, danger, missing_right))


def skip_step(step: Step, reason: str, blocker: Blocker | None) -> Skip:
    """Return the record of a planned step that is not done."""
    return Skip(step.oid, step.display_name, step.action, reason, blocker, step.is_danger)


def report_skips(outcome: Outcome, skips: t.Iterable[Skip]) -> None:
    """Set not_done and blockers of the result. Of one object, a blocker that says the same as an earlier one is left out."""
    not_done: list[dict[str, str]] = []
    blockers: list[Blocker] = []
    known: set[tuple[int, str]] = set()
    for skip in skips:
        not_done.append({"object": skip.display_name, "what": skip.action, "why": skip.reason})
        if skip.blocker is not None and (skip.oid, skip.blocker.next_step) not in known:
            known.add((skip.oid, skip.blocker.next_step))
            blockers.append(skip.blocker)
    outcome.facts["not_done"] = not_done
    outcome.blockers = blockers


def list_items(steps: t.Iterable[Step]) -> list[PlanItem]:
    """Return the plan as the result has it."""
    return [PlanItem(step.display_name, step.action, step.why, estimate=round(step.estimate, 3)) for step in steps]


def describe_unmet(steps: t.Iterable[Step]) -> dict[str, dict[str, str]]:
    """Return object -> condition -> the value that does not hold, which is the diff's ``before``."""
    unmet: dict[str, dict[str, str]] = {}
    for step in steps:
        unmet.setdefault(step.display_name, {}).update(step.unmet)
    return unmet
