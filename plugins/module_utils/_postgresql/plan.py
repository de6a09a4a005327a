# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due for tables, why, and in which order. Private to lowtide.ops: do not import from other collections.

Pure: no clock, no connection. Conditions and states in, steps out.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from . import blockers, names
from .blockers import Horizon
from .catalog import PG_STATISTIC, TableState

# Bytes a second that an estimate assumes before the run has measured its own: a disk and a core of some years ago.
VACUUM_RATE = 100 * 2**20
REINDEX_RATE = 40 * 2**20
SECONDS_EACH = 0.001

# Phases, in the order that helps most: danger first, then what costs every write, then the biggest effect.
FREEZE, LEFTOVERS, INVALID, CLEAN, PARENTS, BLOAT = range(6)


class Conditions(t.NamedTuple):
    """The declared condition; what is None is not asked for. Ages in seconds or transactions, sizes in bytes, ratios 0 to 1."""

    dead_tuple_ratio: float | None = None
    changed_tuple_ratio: float | None = None
    minimum_tuples: int = 1000
    statistics_age: float | None = None
    transaction_id_age: int | None = None
    invalid_indexes: bool = False
    index_bloat_ratio: float | None = None
    minimum_index_size: int = 2**20


class Step(t.NamedTuple):
    """One thing to do to one table or index. ``failing`` are the conditions that do not hold, with the values seen.

    ``weight`` orders steps of one phase (more first); ``table`` is the oid of the table whose lock the step takes.
    """

    phase: int
    table: int
    oid: int
    schema: str
    name: str
    shown: str
    what: str
    failing: dict[str, str]
    weight: float
    size: int
    estimate: float
    vacuum: bool = False
    analyze: bool = False

    @property
    def why(self) -> str:
        """All reasons on one line."""
        return "; ".join(self.failing.values())

    @property
    def options(self) -> tuple[bool, bool, bool]:
        """(vacuum, freeze, analyze): steps of one statement have the same."""
        return self.vacuum, self.phase == FREEZE, self.analyze


class Plan:
    """Steps in order; ``not_done`` are due, or may be, and will not be done: object, what, why; ``blockers`` say who is in the way."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.not_done: list[dict[str, str]] = []
        self.blockers: list[Blocker] = []

    def leave(self, obj: str, what: str, why: str) -> None:
        """Put on record that something due is not done."""
        self.not_done.append({"object": obj, "what": what, "why": why})


def table_shown(table: TableState) -> str:
    """How messages name a table."""
    return f"table {names.shown(table.schema, table.name)}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _dead(table: TableState, conditions: Conditions) -> str | None:
    """Why the dead rows call for a VACUUM, or None. Chunks of TOAST count as the rows do."""
    limit = conditions.dead_tuple_ratio
    if limit is None or table.kind == "p":
        return None
    for label, dead, live in (("rows", table.dead, table.live), ("TOAST chunks", table.toast_dead, table.toast_live)):
        if dead >= max(conditions.minimum_tuples, 1) and dead / (dead + live) > limit:
            return f"{_percent(dead, dead + live)} dead {label} ({dead} of {dead + live}), more than {100 * limit:g} %"
    if statistics_lost(table) and table.reltuples >= max(conditions.minimum_tuples, 1):
        return f"the server lost its statistics (crash, failover or reset), so the dead among about {table.reltuples:.0f} rows are not known"
    return None


def statistics_lost(table: TableState) -> bool:
    """Whether the table has rows by the catalog, and the statistics know nothing of it at all: they do not survive a crash or failover."""
    return (
        table.kind != "p"
        and table.reltuples > 0
        and table.vacuumed is None
        and table.since_analyze is None
        and table.live == table.dead == table.changed == 0
    )


def _statistics(table: TableState, conditions: Conditions, newest_child: float | None) -> dict[str, str]:
    """Why the planner's statistics call for an ANALYZE, by condition."""
    due: dict[str, str] = {}
    if table.oid == PG_STATISTIC:
        return due
    limit, age = conditions.changed_tuple_ratio, conditions.statistics_age
    rows = max(table.live, 1)
    if limit is not None and table.changed >= max(conditions.minimum_tuples, 1) and table.changed / rows > limit:
        due["changed_tuple_ratio"] = (
            f"{_percent(table.changed, rows)} of the rows changed since the last ANALYZE, more than {100 * limit:g} %"
        )
    if age is None:
        return due
    if table.since_analyze is None:
        # A table of a few rows that has just got its first one is no reason for a maintenance window.
        if table.kind == "p" or max(table.live, table.changed, table.reltuples) >= max(conditions.minimum_tuples, 1):
            due["statistics_age"] = "never analyzed, as far as the server knows"
    elif table.since_analyze > age:
        parts_newer = newest_child is not None and newest_child < table.since_analyze
        if table.changed > 0 or parts_newer:
            due["statistics_age"] = f"changed, and last analyzed more than {age:.0f} s ago"
    return due


def _wraparound(table: TableState, conditions: Conditions) -> str | None:
    limit = conditions.transaction_id_age
    if limit is None or table.kind == "p":
        return None
    for label, age in (("transaction", table.xid_age), ("multixact", table.multixact_age)):
        if age > limit:
            return f"its oldest {label} id is {age} old, more than {limit}"
    return None


def roll_up(tables: list[TableState]) -> tuple[list[TableState], dict[int, float]]:
    """Give partitioned tables the row counts of their leaves; second, by oid, the seconds since the newest ANALYZE of a leaf."""
    by_oid = {table.oid: table for table in tables}
    if not any(table.kind == "p" for table in tables):
        return tables, {}
    live: dict[int, int] = {}
    changed: dict[int, int] = {}
    newest: dict[int, float] = {}
    for table in tables:
        parent = table.parent
        while table.kind != "p" and parent is not None and parent in by_oid:
            live[parent] = live.get(parent, 0) + table.live
            changed[parent] = changed.get(parent, 0) + table.changed
            if table.since_analyze is not None:
                newest[parent] = min(newest.get(parent, table.since_analyze), table.since_analyze)
            parent = by_oid[parent].parent
    rolled = [
        table._replace(live=live.get(table.oid, 0), changed=changed.get(table.oid, 0)) if table.kind == "p" else table
        for table in tables
    ]
    return rolled, newest


def _catalog(schema: str) -> bool:
    return schema in {"pg_catalog", "information_schema"}


def plan_tables(
    tables: list[TableState],
    conditions: Conditions,
    *,
    horizons: t.Callable[[], list[Horizon]],
    block_size: int,
    plan: Plan,
) -> None:
    """Add to ``plan`` what is due for tables, in order. ``horizons`` is called only for a table that is to be vacuumed, and often."""
    rolled, newest = roll_up(tables)
    steps: list[Step] = []
    for table in rolled:
        failing: dict[str, str] = {}
        danger, dead = _wraparound(table, conditions), _dead(table, conditions)
        statistics = _statistics(table, conditions, newest.get(table.oid))
        danger, dead = _without_useless(table, conditions, horizons, plan, danger=danger, dead=dead)
        if danger:
            failing["transaction_id_age"] = danger
        if dead:
            failing["dead_tuple_ratio"] = dead
        failing.update(statistics)
        if not failing:
            continue
        vacuum = bool(danger or dead)
        # A table that is read for its dead rows anyway gets new statistics: their counts are what the next run decides by.
        analyze = bool(statistics or dead) and table.oid != PG_STATISTIC
        what = _statement(vacuum=vacuum, freeze=bool(danger), analyze=analyze)
        shown = table_shown(table)
        if not table.may_vacuum:
            plan.leave(
                shown, what, "login_user neither owns it nor the database; connect as the owner or grant that role"
            )
            plan.blockers.append(
                Blocker(
                    object=shown,
                    what="no permission",
                    holder="the owner of the table",
                    next_step="Connect as its owner, or as the owner of the database",
                )
            )
            continue
        size = table.pages * block_size
        phase = FREEZE if danger else PARENTS if table.kind == "p" else CLEAN
        weight = float(
            max(table.xid_age, table.multixact_age)
            if danger
            else (table.dead + table.toast_dead) * 1000 + table.changed
        )
        steps.append(
            Step(
                phase=phase,
                table=table.oid,
                oid=table.oid,
                schema=table.schema,
                name=table.name,
                shown=shown,
                what=what,
                failing=failing,
                weight=weight,
                size=size,
                estimate=size / VACUUM_RATE + SECONDS_EACH,
                vacuum=vacuum,
                analyze=analyze,
            )
        )
    plan.steps.extend(steps)


def _without_useless(
    table: TableState,
    conditions: Conditions,
    horizons: t.Callable[[], list[Horizon]],
    plan: Plan,
    *,
    danger: str | None,
    dead: str | None,
) -> tuple[str | None, str | None]:
    """``danger`` and ``dead`` without what a VACUUM could not cure now; that goes into the plan's blockers instead."""
    if not danger and not dead:
        return danger, dead
    catalog = _catalog(table.schema)
    shown = table_shown(table)
    if danger and conditions.transaction_id_age is not None:
        holder = blockers.oldest(horizons(), catalog=catalog)
        if (
            holder is not None
            and holder.age > conditions.transaction_id_age
            and table.xid_age > conditions.transaction_id_age
        ):
            plan.leave(shown, "VACUUM (FREEZE)", f"{danger}, and rows cannot be frozen past the oldest transaction")
            plan.blockers.append(
                blockers.horizon_blocker(shown, holder, "a VACUUM could not lower its transaction-id age")
            )
            danger = None
    if dead:
        holder = blockers.useless(
            horizons(),
            vacuumed=table.vacuumed,
            # Nothing resets this counter of pg_statistic, so it cannot tell what died since the last VACUUM.
            changed=0 if table.oid == PG_STATISTIC else table.changed,
            minimum=max(conditions.minimum_tuples, 1),
            catalog=catalog,
        )
        if holder is not None:
            plan.leave(shown, "VACUUM", f"{dead}, and another VACUUM would remove none of them")
            plan.blockers.append(blockers.horizon_blocker(shown, holder, "its dead rows cannot be removed"))
            dead = None
    return danger, dead


def _statement(*, vacuum: bool, freeze: bool, analyze: bool) -> str:
    if not vacuum:
        return "ANALYZE"
    options = [word for word, wanted in (("FREEZE", freeze), ("ANALYZE", analyze)) if wanted]
    return f"VACUUM ({', '.join(options)})" if options else "VACUUM"


def in_order(steps: list[Step]) -> list[Step]:
    """Phase by phase, the biggest effect first, names last so that two runs agree."""
    return sorted(steps, key=lambda step: (step.phase, -step.weight, step.schema, step.name))


def fit(plan: Plan, *, budget: float | None, jobs: int) -> None:
    """Order the plan, and take out what does not fit into ``budget`` seconds by its estimates, on ``jobs`` connections."""
    ordered = in_order(plan.steps)
    plan.steps = []
    used = 0.0
    for step in ordered:
        cost = step.estimate / jobs
        if budget is not None and used + cost > budget:
            plan.leave(
                step.shown,
                step.what,
                f"{step.why}; about {step.estimate:.0f} s, which does not fit into what is left of the time budget of {budget:g} s",
            )
            continue
        used += cost
        plan.steps.append(step)
