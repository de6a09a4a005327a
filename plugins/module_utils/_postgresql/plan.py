# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due for tables, why, and in which order. Private to lowtide.ops: do not import from other collections.

Pure: no clock, no connection. Conditions and states in, steps out.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from . import names
from .catalog import PG_STATISTIC, TableState
from .holders import XminHolder, find_oldest, is_nothing_removable, make_xmin_blocker, needs_proof
from .steps import Conditions, Phase, Plan, Step

# Bytes a second that an estimate assumes: a disk and a core of some years ago.
VACUUM_RATE = 100 * 2**20
REINDEX_RATE = 40 * 2**20
SECONDS_EACH = 0.001

WORTH_FREEZING = 0.05
"""The share of transaction_id_age by which a VACUUM must lower a table's age, to be worth its time while something holds it."""

ONLY_VERSION = 180000
"""From here on ONLY keeps VACUUM and ANALYZE to the table that is named."""

MAINTAIN_VERSION = 170000
"""From here on MAINTAIN can be granted, and pg_maintain has it on all tables."""

SMALLEST_ROW = 28
"""Bytes of a block that a row needs at least: its header and the pointer to it."""

CATALOGS = {"pg_catalog", "information_schema"}


class Surroundings(t.NamedTuple):
    """What the plan has to know of the server and of the scope. ``in_scope`` is None where every table is; ``excluded`` are
    tables that were named to be left alone; ``user`` is the role that would be granted what is missing.
    """

    version: int = ONLY_VERSION
    block_size: int = 8192
    freeze_max_age: int = 200_000_000
    multixact_freeze_max_age: int = 400_000_000
    in_scope: t.Collection[int] | None = None
    excluded: t.Collection[int] = ()
    user: str = "login_user"

    def has(self, oid: int) -> bool:
        """Return whether the table is in the declared scope."""
        return self.in_scope is None or oid in self.in_scope


class Tree(t.NamedTuple):
    """Partitions of the tables that were read, in scope or not. By oid of a partitioned table: all that is below it."""

    descendants: dict[int, list[TableState]]
    ancestors: dict[int, list[int]]


class Needs(t.NamedTuple):
    """Why one table is due: by condition, what it is."""

    danger: str | None = None
    dead: str | None = None
    inserted: str | None = None
    statistics: t.Mapping[str, str] = {}

    @property
    def vacuum(self) -> bool:
        """Whether it calls for a VACUUM."""
        return bool(self.danger or self.dead or self.inserted)

    def as_unmet(self) -> dict[str, str]:
        """The conditions that do not hold, with the values seen."""
        vacuum = {
            "transaction_id_age": self.danger,
            "dead_tuple_ratio": self.dead,
            "inserted_tuple_ratio": self.inserted,
        }
        return {**{name: value for name, value in vacuum.items() if value}, **self.statistics}


def format_table(table: TableState) -> str:
    """Return how messages name a table."""
    return f"table {names.format_name(table.schema, table.name)}"


def _format_share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def explain_lost_counts(table: TableState, minimum: int, block_size: int) -> str | None:
    """Return what the server cannot know of a table's dead rows, or None: its counters do not survive a crash, a failover
    or an upgrade, and those of a copied database begin at nothing.

    The rows of a table that was never vacuumed or analyzed were all counted when they came. Where the counters know of
    fewer than the catalog does, or of fewer than there are blocks, they were lost in between.
    """
    if table.kind == "p" or table.vacuumed is not None or table.since_analyze is not None:
        return None
    if table.reltuples > table.changed and table.reltuples >= minimum:
        return f"the dead among about {table.reltuples:.0f} rows are not known"
    if not table.is_uncounted:
        return None
    if table.file_pages is None:
        return "how many rows it has is not known" if not table.changed else None
    if table.file_pages > table.changed + table.dead and table.file_pages * (block_size // SMALLEST_ROW) >= minimum:
        return f"how many rows its {table.file_pages} blocks hold, and how many of them are dead, is not known"
    return None


LOST = "the server lost its statistics (crash, failover, upgrade or reset), so "


def _check_dead(table: TableState, conditions: Conditions, lost: str | None) -> str | None:
    """Return why the dead rows call for a VACUUM, or None. Chunks of TOAST count as the rows do."""
    limit, minimum = conditions.dead_tuple_ratio, max(conditions.minimum_tuples, 1)
    if limit is None or table.kind == "p":
        return None
    for label, dead, live in (("rows", table.dead, table.live), ("TOAST chunks", table.toast_dead, table.toast_live)):
        if dead >= minimum and dead / (dead + live) > limit:
            return f"{_format_share(dead, dead + live)} dead {label} ({dead} of {dead + live}), more than {100 * limit:g} %"
    if lost:
        return LOST + lost
    if table.toast_unknown >= minimum:
        return f"{LOST}the dead among about {table.toast_unknown:.0f} TOAST chunks are not known"
    return None


def _check_inserted(table: TableState, conditions: Conditions, lost: str | None) -> str | None:
    """Return why rows that were only inserted call for a VACUUM: they are not marked as visible to all, nor frozen.

    Of a table that was never vacuumed all rows count. Where the counters know of fewer, they were lost; then the blocks
    that are marked decide, as an ANALYZE that has been done since saw them.
    """
    limit = conditions.inserted_tuple_ratio
    if limit is None or table.kind == "p":
        return None
    if lost:
        return f"{LOST}the rows inserted since its last VACUUM are not known"
    minimum, rows = max(conditions.minimum_tuples, 1), max(table.live, 1)
    if table.vacuumed is None and minimum <= table.live > table.inserted:
        unmarked = max(table.heap_pages - table.visible_pages, 0)
        if unmarked > limit * table.heap_pages:
            return (
                f"{_format_share(unmarked, table.heap_pages)} of its blocks are not marked as visible to all, more than"
                f" {100 * limit:g} %, and no VACUUM of it is known"
            )
        return None
    if table.inserted < minimum or table.inserted / rows <= limit:
        return None
    return (
        f"{_format_share(table.inserted, rows)} of the rows inserted since the last VACUUM, more than {100 * limit:g} %"
    )


def _check_statistics(
    table: TableState, conditions: Conditions, newest_leaf: float | None, lost: str | None
) -> dict[str, str]:
    """Return why the planner's statistics call for an ANALYZE, by condition."""
    due: dict[str, str] = {}
    if table.oid == PG_STATISTIC:
        return due
    limit, age = conditions.changed_tuple_ratio, conditions.statistics_age
    minimum, rows = max(conditions.minimum_tuples, 1), max(table.live, 1)
    known = max(table.live, table.reltuples)
    if limit is None:
        pass
    elif table.since_analyze is None and (lost or minimum <= known > table.changed):
        due["changed_tuple_ratio"] = "never analyzed, as far as the server knows, so what has changed is not known"
    elif table.changed >= minimum and table.changed / rows > limit:
        due["changed_tuple_ratio"] = (
            f"{_format_share(table.changed, rows)} of the rows changed since the last ANALYZE, more than {100 * limit:g} %"
        )
    if age is None:
        return due
    if table.since_analyze is None:
        # A table of a few rows that has just got its first one is no reason for a maintenance window.
        if table.kind == "p" or lost or max(known, table.changed) >= minimum:
            due["statistics_age"] = "never analyzed, as far as the server knows"
    elif table.since_analyze > age:
        has_newer_leaf = newest_leaf is not None and newest_leaf < table.since_analyze
        if table.changed > 0 or has_newer_leaf:
            due["statistics_age"] = f"changed, and last analyzed more than {age:.0f} s ago"
    return due


def _check_age(table: TableState, conditions: Conditions) -> str | None:
    limit = conditions.transaction_id_age
    if limit is None or table.kind == "p":
        return None
    for label, age in (("transaction", table.xid_age), ("multixact", table.multixact_age)):
        if age > limit:
            return f"its oldest {label} id is {age} old, more than {limit}"
    return None


def build_tree(tables: t.Iterable[TableState]) -> Tree:
    """Return which partitions belong to which partitioned tables, over all levels."""
    by_oid = {table.oid: table for table in tables}
    tree = Tree({oid: [] for oid, table in by_oid.items() if table.kind == "p"}, {})
    for table in by_oid.values():
        parent = table.parent
        while parent is not None and parent in by_oid:
            tree.descendants[parent].append(table)
            tree.ancestors.setdefault(table.oid, []).append(parent)
            parent = by_oid[parent].parent
    return tree


def aggregate_partitions(tables: t.Sequence[TableState], tree: Tree) -> tuple[list[TableState], dict[int, float]]:
    """Return the tables, with partitioned ones given rows, changes and pages of their leaves; and, by oid, the seconds
    since the newest ANALYZE of a leaf.
    """
    newest: dict[int, float] = {}
    aggregated: list[TableState] = []
    for table in tables:
        if table.kind != "p":
            aggregated.append(table)
            continue
        leaves = [leaf for leaf in tree.descendants[table.oid] if leaf.kind != "p"]
        ages = [leaf.since_analyze for leaf in leaves if leaf.since_analyze is not None]
        if ages:
            newest[table.oid] = min(ages)
        sums = {field: sum(getattr(leaf, field) for leaf in leaves) for field in ("live", "changed")}
        aggregated.append(table._replace(pages=sum(max(leaf.pages, 0) for leaf in leaves), **sums))
    return aggregated, newest


def plan_tables(
    tables: t.Sequence[TableState],
    conditions: Conditions,
    *,
    read_holders: t.Callable[[], list[XminHolder]],
    server: Surroundings,
    plan: Plan,
) -> None:
    """Add to ``plan`` what is due for the tables in scope. ``tables`` are all, since a partitioned table is judged by all of
    its leaves. ``read_holders`` is called only for a table that is to be vacuumed, and often.
    """
    tree = build_tree(tables)
    aggregated, newest = aggregate_partitions(tables, tree)
    steps: list[Step] = []
    for table in aggregated:
        if table.kind in {"f", "v"} or not server.has(table.oid):
            continue
        lost = explain_lost_counts(table, max(conditions.minimum_tuples, 1), server.block_size)
        needs = Needs(
            _check_age(table, conditions),
            _check_dead(table, conditions, lost),
            _check_inserted(table, conditions, lost),
            _check_statistics(table, conditions, newest.get(table.oid), lost),
        )
        if (
            table.kind == "p"
            and needs.statistics
            and (reason := _explain_unanalyzable(tree.descendants[table.oid], server))
        ):
            plan.skip(table.oid, format_table(table), "ANALYZE", f"{'; '.join(needs.statistics.values())}; {reason}")
            continue
        step = _plan_table(table, conditions, needs, read_holders, server=server, plan=plan)
        if step is not None:
            steps.append(step)
    plan.steps.extend(steps if server.version >= ONLY_VERSION else drop_covered_steps(steps, tree))


def _explain_unanalyzable(partitions: list[TableState], server: Surroundings) -> str | None:
    """Return why the scope forbids an ANALYZE of a partitioned table, or None.

    It reads rows of every partition, foreign ones over the network; without ONLY it also analyzes each of them.
    """
    foreign = next((table for table in partitions if table.kind == "f"), None)
    if foreign is not None:
        return f"its ANALYZE would read {names.format_name(foreign.schema, foreign.name)}, a foreign table on another server"
    excluded = next((table for table in partitions if table.oid in server.excluded), None)
    if excluded is not None and server.version < ONLY_VERSION:
        return (
            f"its ANALYZE would analyze the partition {names.format_name(excluded.schema, excluded.name)}, which is excluded;"
            " take both in or out (PostgreSQL 18 can do one alone)"
        )
    return None


def drop_covered_steps(steps: list[Step], tree: Tree) -> list[Step]:
    """Return the steps without the ANALYZE of what is below a partitioned table that is analyzed: up to 17 the server does
    it with the parent.
    """
    due_parents = {step.oid for step in steps if step.phase == Phase.PARENTS}
    remaining: list[Step] = []
    for step in steps:
        if not step.analyze or due_parents.isdisjoint(tree.ancestors.get(step.oid, ())):
            remaining.append(step)
        elif step.vacuum:
            action = name_action(vacuum=True, freeze="FREEZE" in step.action, analyze=False)
            unmet = {
                name: why for name, why in step.unmet.items() if name not in {"changed_tuple_ratio", "statistics_age"}
            }
            remaining.append(step._replace(analyze=False, action=action, unmet=unmet))
    return remaining


def _plan_table(
    table: TableState,
    conditions: Conditions,
    needs: Needs,
    read_holders: t.Callable[[], list[XminHolder]],
    *,
    server: Surroundings,
    plan: Plan,
) -> Step | None:
    """Return the step for one table, or None; what is not done about it goes into the plan's skips."""
    needs, prove = drop_blocked_needs(table, conditions, needs, read_holders, server=server, plan=plan)
    unmet = needs.as_unmet()
    if not unmet:
        return None
    # A table that is read for its dead rows anyway gets new statistics: their counts are what the next run decides by.
    analyze = bool(needs.statistics or needs.dead) and table.oid != PG_STATISTIC
    action = name_action(vacuum=needs.vacuum, freeze=bool(needs.danger) or prove, analyze=analyze)
    display_name = format_table(table)
    blocker = find_missing_right(table, server)
    if blocker is not None:
        reason = f"{'; '.join(unmet.values())}; {blocker.what}: {blocker.next_step}"
        plan.skip(table.oid, display_name, action, reason, blocker, danger=bool(needs.danger), missing_right=True)
        return None
    size = table.pages * server.block_size
    dead = (table.dead + table.toast_dead) * 1000 + table.changed + table.inserted
    return Step(
        phase=Phase.FREEZE if needs.danger else Phase.PARENTS if table.kind == "p" else Phase.CLEAN,
        table=table.oid,
        oid=table.oid,
        schema=table.schema,
        name=table.name,
        display_name=display_name,
        action=action,
        unmet=unmet,
        priority=float(max(table.xid_age, table.multixact_age) if needs.danger else dead),
        size=size,
        estimate=size / VACUUM_RATE + SECONDS_EACH,
        vacuum=needs.vacuum,
        analyze=analyze,
    )


def find_missing_right(table: TableState, server: Surroundings) -> Blocker | None:
    """Return which right login_user lacks to vacuum or analyze a table, with the statement that grants it."""
    user, name = names.format_name(server.user), names.format_name(table.schema, table.name)
    if not table.may_vacuum:
        next_step = f"GRANT MAINTAIN ON {name} TO {user} (of all tables: GRANT pg_maintain TO {user} WITH INHERIT TRUE)"
        if server.version < MAINTAIN_VERSION:
            next_step = names.grant_role(table.owner, server.user, server.version)
        return Blocker(format_table(table), "no permission to maintain it", "the owner of the table", next_step)
    if not table.may_enter:
        return Blocker(
            object=format_table(table),
            what=f"no permission for schema {names.format_name(table.schema)}",
            holder="the owner of the schema",
            next_step=names.grant_schema(table.schema, server.user),
        )
    return None


def drop_blocked_needs(
    table: TableState,
    conditions: Conditions,
    needs: Needs,
    read_holders: t.Callable[[], list[XminHolder]],
    *,
    server: Surroundings,
    plan: Plan,
) -> tuple[Needs, bool]:
    """Return the needs without what a VACUUM could not cure now, which goes into the plan's skips; and whether the VACUUM
    has to freeze, so that the next run can tell that nothing more was to be removed.
    """
    if not needs.danger and not needs.dead:
        return needs, False
    display_name = format_table(table)
    holder = find_oldest(read_holders(), catalog=table.schema in CATALOGS, shared=table.shared)
    if needs.danger and not is_worth_freezing(table, conditions, holder, server) and holder is not None:
        reason = f"{needs.danger}, and rows cannot be frozen past the oldest transaction"
        blocker = make_xmin_blocker(display_name, holder, "a VACUUM could not lower its transaction-id age")
        plan.skip(table.oid, display_name, "VACUUM (FREEZE)", reason, blocker, danger=True)
        needs = needs._replace(danger=None)
    if needs.dead and holder is not None and is_nothing_removable(table, holder):
        reason = f"{needs.dead}, and another VACUUM would remove none of them"
        blocker = make_xmin_blocker(display_name, holder, "its dead rows cannot be removed")
        plan.skip(table.oid, display_name, "VACUUM", reason, blocker)
        return needs._replace(dead=None), False
    minimum = max(conditions.minimum_tuples, 1)
    # Nothing resets this counter of pg_statistic, so it cannot tell what died since the last VACUUM.
    counted = table._replace(changed=0) if table.oid == PG_STATISTIC else table
    return needs, bool(needs.dead) and needs_proof(counted, holder, minimum=minimum)


def is_worth_freezing(
    table: TableState, conditions: Conditions, holder: XminHolder | None, server: Surroundings
) -> bool:
    """Return whether a VACUUM (FREEZE) would lower the table's age by enough, or must be tried because of how old it is."""
    limit = conditions.transaction_id_age
    if limit is None or holder is None or table.multixact_age > limit:
        return True  # a holder's age says nothing about multixacts
    gain = table.xid_age - holder.age
    if gain > limit * WORTH_FREEZING or holder.age <= limit:
        return True
    return gain > 0 and table.xid_age > server.freeze_max_age


def name_action(*, vacuum: bool, freeze: bool, analyze: bool) -> str:
    """Return the command as messages have it."""
    if not vacuum:
        return "ANALYZE"
    options = [word for word, requested in (("FREEZE", freeze), ("ANALYZE", analyze)) if requested]
    return f"VACUUM ({', '.join(options)})" if options else "VACUUM"


def add_index_time(plan: Plan, pages: t.Mapping[int, int], block_size: int) -> None:
    """Add to the estimates the time that a VACUUM takes for the indexes; ``pages`` are their blocks, by the table's oid."""
    plan.steps = [
        step._replace(estimate=step.estimate + pages.get(step.oid, 0) * block_size / VACUUM_RATE)
        if step.vacuum
        else step
        for step in plan.steps
    ]


def sort_steps(steps: t.Iterable[Step]) -> list[Step]:
    """Return the steps phase by phase, the biggest effect first, names last so that two runs agree."""
    return sorted(steps, key=lambda step: (step.phase, -step.priority, step.schema, step.name))


def apply_time_budget(plan: Plan, *, budget: float | None, jobs: int) -> None:
    """Sort the steps, and skip those whose estimated time exceeds the time budget.

    ``budget`` is in seconds of wall time; estimates are divided by ``jobs``. What is there against wraparound ignores it.
    One step that is longer than the whole budget is kept as well, so that none is starved in every run: the first of them,
    after all that fits.
    """
    ordered = sort_steps(plan.steps)
    plan.steps = [step for step in ordered if step.is_danger] if budget is not None else ordered
    if budget is None:
        return
    used = sum(step.estimate for step in plan.steps) / jobs
    late: list[Step] = []
    for step in ordered:
        if step.is_danger:
            continue
        if used + step.estimate / jobs > budget:
            late.append(step)
            continue
        used += step.estimate / jobs
        plan.steps.append(step)
    oversized = next((step for step in late if is_oversized(step, budget)), None)
    if oversized is not None:
        late.remove(oversized)
        plan.steps.append(oversized)
    for step in late:
        skip_late_step(plan, step, budget)


def is_oversized(step: Step, budget: float | None) -> bool:
    """Return whether a step needs more than the whole time budget, so that it comes last."""
    return budget is not None and not step.is_danger and step.estimate > budget


def skip_late_step(plan: Plan, step: Step, budget: float) -> None:
    """Put on record that there is no time for a step."""
    reason = f"{step.why}; about {step.estimate:.0f} s, which does not fit into what is left of the time budget of {budget:g} s"
    plan.skip(
        step.oid, step.display_name, step.action, reason, make_budget_blocker(step, budget), danger=step.is_danger
    )


def make_budget_blocker(step: Step, budget: float) -> Blocker:
    """Return the time budget as what stands in the way of a step."""
    return Blocker(
        object=step.display_name,
        what=f"no time for {step.action}, about {step.estimate:.0f} s",
        holder=f"time_budget of {budget:g} s",
        next_step="Raise time_budget, or run again: of what needs more than all of it, each run begins one, last",
    )
