# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due for indexes, and why. Private to lowtide.ops: do not import from other collections.

Pure, like :mod:`.plan`. Imported only when there is an index to decide about.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from . import names
from .plan import BLOAT, INVALID, LEFTOVERS, REINDEX_RATE, SECONDS_EACH, Conditions, Plan, Step

if t.TYPE_CHECKING:
    from .bloat import Bloat
    from .catalog import IndexState


def leftover_of(index: IndexState, siblings: list[IndexState]) -> IndexState | None:
    """The index that ``index`` is a broken copy of, left behind by REINDEX CONCURRENTLY; None when there is none.

    A copy is dropped only when its original, of the same definition, stands beside it: valid, or broken and to be rebuilt.
    """
    if index.valid or index.constraint:
        return None
    for other in siblings:
        same = other.oid != index.oid and other.signature == index.signature and other.schema == index.schema
        original = other.valid or names.leftover_base(other.name) is None
        if same and original and names.is_leftover_of(index.name, other.name):
            return other
    return None


def _index_step(
    index: IndexState, *, phase: int, what: str, failing: dict[str, str], weight: float, block_size: int
) -> Step:
    size = 0 if phase == LEFTOVERS else index.pages * block_size
    return Step(
        phase=phase,
        table=index.table_oid,
        oid=index.oid,
        schema=index.schema,
        name=index.name,
        shown=f"index {names.shown(index.schema, index.name)}",
        what=what,
        failing=failing,
        weight=weight,
        size=size,
        estimate=size / REINDEX_RATE + 20 * SECONDS_EACH,
    )


def plan_invalid(indexes: list[IndexState], *, building: dict[int, str], block_size: int, plan: Plan) -> None:
    """Add what is due for invalid indexes: leftovers are dropped, others built anew. ``building``: oid -> who is at work on it."""
    by_table: dict[int, list[IndexState]] = {}
    for index in indexes:
        by_table.setdefault(index.table_oid, []).append(index)
    for index in indexes:
        if index.valid:
            continue
        shown = f"index {names.shown(index.schema, index.name)}"
        original = leftover_of(index, by_table[index.table_oid])
        what = "DROP INDEX CONCURRENTLY" if original else "REINDEX INDEX CONCURRENTLY"
        if index.oid in building or index.table_oid in building:
            holder = building.get(index.oid) or building[index.table_oid]
            plan.leave(shown, what, f"it is invalid, and may be under construction by {holder}; left alone")
            plan.blockers.append(
                Blocker(
                    object=shown,
                    what="perhaps under construction",
                    holder=holder,
                    next_step="Run again when that has ended",
                )
            )
            continue
        reason = _cannot_rebuild(index, dropping=original is not None)
        if reason:
            plan.leave(shown, what, reason)
            plan.blockers.append(
                Blocker(
                    object=shown,
                    what="an invalid index",
                    holder=names.shown(index.table_schema, index.table),
                    next_step=reason,
                )
            )
            continue
        why = (
            f"invalid, left behind by an interrupted REINDEX of {names.shown(original.schema, original.name)}"
            if original
            else "invalid"
        )
        plan.steps.append(
            _index_step(
                index,
                phase=LEFTOVERS if original else INVALID,
                what=what,
                failing={"invalid_indexes": why},
                weight=float(index.pages),
                block_size=block_size,
            )
        )


def _cannot_rebuild(index: IndexState, *, dropping: bool) -> str | None:
    if not index.may_reindex:
        return "login_user does not own it; connect as the owner of its table"
    if dropping:
        return None
    if not index.live:
        return "somebody began to drop it; finish that with DROP INDEX CONCURRENTLY"
    if index.kind == "I":
        return "it is the index of a partitioned table, which becomes valid when every partition has its index attached (ALTER INDEX ... ATTACH PARTITION)"
    if index.exclusion:
        return "an exclusion constraint's index cannot be built concurrently; run REINDEX INDEX on it in a quiet hour"
    return None


def plan_bloat(
    indexes: list[tuple[IndexState, Bloat | None]],
    conditions: Conditions,
    *,
    block_size: int,
    plan: Plan,
) -> None:
    """Add rebuilds of indexes whose waste is for certain above the declared ratio; name those that cannot be decided."""
    limit = conditions.index_bloat_ratio
    if limit is None:
        return
    for index, bloat in indexes:
        shown = f"index {names.shown(index.schema, index.name)}"
        what = "REINDEX INDEX CONCURRENTLY"
        if bloat is None or bloat.most <= limit or not index.valid:
            continue
        if bloat.least <= limit:
            plan.leave(
                shown,
                what,
                f"by the statistics between {100 * bloat.least:.0f} % and {100 * bloat.most:.0f} % of it is wasted, which does not"
                f" decide about {100 * limit:g} %; install the extension pgstattuple to have it measured",
            )
            continue
        reason = _cannot_rebuild(index, dropping=False)
        if reason:
            plan.leave(shown, what, reason)
            continue
        wasted = bloat.least * index.pages * block_size
        why = f"{100 * bloat.least:.0f} % of its {index.pages * block_size / 2**20:.1f} MiB is wasted, more than {100 * limit:g} %"
        plan.steps.append(
            _index_step(
                index, phase=BLOAT, what=what, failing={"index_bloat_ratio": why}, weight=wasted, block_size=block_size
            )
        )
