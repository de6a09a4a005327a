# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due for indexes, and why. Private to lowtide.ops: do not import from other collections.

Pure, like :mod:`.plan`.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from . import names
from .bloat import Bloat
from .catalog import IndexState
from .plan import MAINTAIN_VERSION, REINDEX_RATE, SECONDS_EACH
from .steps import Conditions, Phase, Plan, Step

REINDEX = "REINDEX INDEX CONCURRENTLY"
DROP = "DROP INDEX CONCURRENTLY"

CORRUPTING_VERSIONS = (140000, 140004)
"""From 14.0 to 14.3 a concurrent build misses rows that are pruned meanwhile: the index is corrupt, and nothing says so."""


class Rights(t.NamedTuple):
    """What decides whether an index can be rebuilt concurrently at all."""

    version: int = 180000
    sees_sessions: bool = True
    user: str = "login_user"


def find_original(index: IndexState, siblings: list[IndexState]) -> IndexState | None:
    """Return the index that ``index`` is a broken copy of, left behind by REINDEX CONCURRENTLY; None when there is none.

    A copy is dropped only when its original, of the same definition, stands beside it: valid, or broken and to be rebuilt.
    """
    if index.valid or index.constraint:
        return None
    for other in siblings:
        same = other.oid != index.oid and other.signature == index.signature and other.schema == index.schema
        original = other.valid or names.find_leftover_base(other.name) is None
        if same and original and names.is_leftover_of(index.name, other.name):
            return other
    return None


def format_index(index: IndexState) -> str:
    """Return how messages name an index."""
    return f"index {names.format_name(index.schema, index.name)}"


def make_index_step(
    index: IndexState, *, phase: Phase, unmet: dict[str, str], priority: float, block_size: int
) -> Step:
    """Return the step for one index: its removal in the phase of leftovers, else its rebuild."""
    size = 0 if phase == Phase.LEFTOVERS else index.pages * block_size
    return Step(
        phase=phase,
        table=index.table_oid,
        oid=index.oid,
        schema=index.schema,
        name=index.name,
        display_name=format_index(index),
        action=DROP if phase == Phase.LEFTOVERS else REINDEX,
        unmet=unmet,
        priority=priority,
        size=size,
        estimate=size / REINDEX_RATE + 20 * SECONDS_EACH,
        is_safe=index.is_safe,
    )


def plan_invalid(
    indexes: list[IndexState], *, building: dict[int, str], rights: Rights, block_size: int, plan: Plan
) -> None:
    """Add what is due for invalid indexes: leftovers are dropped, others built anew. ``building``: oid -> who is at work on it."""
    by_table: dict[int, list[IndexState]] = {}
    for index in indexes:
        by_table.setdefault(index.table_oid, []).append(index)
    for index in indexes:
        if index.valid:
            continue
        original = find_original(index, by_table[index.table_oid])
        if index.oid in building or index.table_oid in building:
            holder = building.get(index.oid) or building[index.table_oid]
            reason = f"it is invalid, and may be under construction by {holder}; left alone"
            blocker = Blocker(
                format_index(index), "perhaps under construction", holder, "Run again when that has ended"
            )
            plan.skip(index.oid, format_index(index), DROP if original else REINDEX, reason, blocker)
            continue
        why = "invalid"
        if original is not None:
            why = (
                f"invalid, left behind by an interrupted REINDEX of {names.format_name(original.schema, original.name)}"
            )
        step = make_index_step(
            index,
            phase=Phase.INVALID if original is None else Phase.LEFTOVERS,
            unmet={"invalid_indexes": why},
            priority=float(index.pages),
            block_size=block_size,
        )
        add_possible_step(step, index, rights, plan)


def add_possible_step(step: Step, index: IndexState, rights: Rights, plan: Plan) -> None:
    """Add the step to the plan, or put on record why it is not possible."""
    obstacle = find_obstacle(index, rights, dropping=step.phase == Phase.LEFTOVERS)
    if obstacle is None:
        plan.steps.append(step)
        return
    blocker = Blocker(
        object=step.display_name,
        what=f"{step.why}; {obstacle.problem}",
        holder=names.format_name(index.table_schema, index.table),
        next_step=obstacle.next_step,
    )
    plan.skip(
        step.oid,
        step.display_name,
        step.action,
        f"{step.why}; {obstacle.problem}",
        blocker,
        missing_right=obstacle.missing_right,
    )


def warn_of_remains(steps: t.Iterable[Step], indexes: t.Iterable[IndexState], *, user: str) -> list[str]:
    """Return a warning where login_user may rebuild indexes, and not drop what a rebuild that fails leaves behind."""
    rebuilt = {step.oid for step in steps if step.action == REINDEX}
    kept = [index for index in indexes if index.oid in rebuilt and not index.may_drop]
    if not kept:
        return []
    first = names.format_name(kept[0].table_schema, kept[0].table)
    return [
        f"{len(kept)} of the indexes that are rebuilt, the first {format_index(kept[0])}, are another role's, so what an"
        " interrupted rebuild leaves behind (_ccnew, _ccold) could not be dropped."
        f" GRANT the role that owns {first} TO {names.format_name(user)}, or drop it as that role"
    ]


class Obstacle(t.NamedTuple):
    """Why an index cannot be rebuilt, or dropped, and what to do; whether it is a right that login_user lacks."""

    problem: str
    next_step: str
    missing_right: bool = False


def find_obstacle(index: IndexState, rights: Rights, *, dropping: bool = False) -> Obstacle | None:
    """Return why the index cannot be rebuilt, or dropped, by this run; None when it can."""
    user, table = names.format_name(rights.user), names.format_name(index.table_schema, index.table)
    if not (index.may_drop if dropping else index.may_reindex):
        next_step = f"GRANT the role that owns {table} TO {user}"
        if not dropping and rights.version >= MAINTAIN_VERSION:
            next_step = f"GRANT MAINTAIN ON {table} TO {user} (of all tables: GRANT pg_maintain TO {user})"
        return Obstacle("login_user does not own it", next_step, missing_right=True)
    if not index.may_enter:
        problem = f"no permission for schema {names.format_name(index.schema)}"
        return Obstacle(problem, names.grant_schema(index.schema, rights.user), missing_right=True)
    if dropping:
        return None
    quiet_hour = "Run REINDEX INDEX on it in a quiet hour"
    obstacles = (
        (
            CORRUPTING_VERSIONS[0] <= rights.version < CORRUPTING_VERSIONS[1],
            "concurrent builds of PostgreSQL 14.0 to 14.3 miss rows, so the index would be corrupt",
            "Update the server to 14.4 or newer",
        ),
        (not index.live, "somebody began to drop it", "Finish that with DROP INDEX CONCURRENTLY"),
        (
            index.kind == "I",
            "it is the index of a partitioned table, which becomes valid when every partition has its index attached",
            "Attach the missing ones with ALTER INDEX ... ATTACH PARTITION",
        ),
        (index.exclusion, "an exclusion constraint's index cannot be built concurrently", quiet_hour),
        (
            index.table_schema == "pg_catalog",
            "an index of a system catalog cannot be built concurrently",
            quiet_hour,
        ),
        (
            not rights.sees_sessions,
            "login_user may not see other users' transactions, which a concurrent build would wait for",
            f"GRANT pg_read_all_stats TO {user}",
        ),
    )
    return next(
        (
            Obstacle(problem, next_step, missing_right=not rights.sees_sessions and "pg_read_all_stats" in next_step)
            for applies, problem, next_step in obstacles
            if applies
        ),
        None,
    )


def plan_bloat(
    indexes: t.Sequence[tuple[IndexState, Bloat | None]],
    conditions: Conditions,
    *,
    rights: Rights,
    block_size: int,
    plan: Plan,
) -> None:
    """Add rebuilds of indexes whose waste is for certain above the declared ratio; name those that cannot be decided."""
    limit = conditions.index_bloat_ratio
    if limit is None:
        return
    for index, bloat in indexes:
        if bloat is None or bloat.most <= limit or not index.valid:
            continue
        if bloat.least <= limit:
            plan.skip(index.oid, format_index(index), REINDEX, explain_undecided(bloat, limit))
            continue
        size = index.pages * block_size
        why = f"{100 * bloat.least:.0f} % of its {size / 2**20:.1f} MiB is wasted, more than {100 * limit:g} %"
        step = make_index_step(
            index,
            phase=Phase.BLOAT,
            unmet={"index_bloat_ratio": why},
            priority=bloat.least * size,
            block_size=block_size,
        )
        add_possible_step(step, index, rights, plan)


def explain_undecided(bloat: Bloat, limit: float) -> str:
    """Return why the waste of an index is not known."""
    remedy = f"; {bloat.remedy}" if bloat.remedy else ""
    if bloat.why_unknown:
        return f"how much of it is wasted is not known: {bloat.why_unknown}{remedy}"
    return (
        f"by the statistics between {100 * bloat.least:.0f} % and {100 * bloat.most:.0f} % of it is wasted, which does not"
        f" decide about {100 * limit:g} %{remedy}"
    )
