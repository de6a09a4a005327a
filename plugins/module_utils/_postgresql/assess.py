# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared condition, the tables it is about, and what they call for. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import functools
import typing as t

from .._common.errors import Refusal
from .._common.outcome import Outcome, PlanItem
from . import bloat, blockers, catalog, names, plan_indexes
from .catalog import IndexState, TableState
from .connection import CONNECTION_SPEC, Session
from .names import TableName
from .plan import Conditions, Plan, Step, fit, plan_tables

if t.TYPE_CHECKING:
    from .bloat import Bloat

# The declared condition and its scope, shared by pg_maintenance and pg_maintenance_info.
CONDITION_SPEC: dict[str, dict[str, t.Any]] = {
    "schemas": {"type": "list", "elements": "str"},
    "tables": {"type": "list", "elements": "str"},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "system_catalogs": {"type": "bool", "default": False},
    "dead_tuple_ratio": {"type": "float"},
    "changed_tuple_ratio": {"type": "float"},
    "minimum_tuples": {"type": "int", "default": 1000},
    "statistics_age": {"type": "int"},
    "transaction_id_age": {"type": "int"},
    "invalid_indexes": {"type": "str", "choices": ["none", "ignore"], "default": "ignore"},
    "index_bloat_ratio": {"type": "float"},
    "minimum_index_size": {"type": "int", "default": 2**20},
    "jobs": {"type": "int", "default": 2},
    "time_budget": {"type": "int"},
}
RUN_SPEC: dict[str, dict[str, t.Any]] = {
    "lock_timeout": {"type": "float", "default": 5.0},
    "lock_retries": {"type": "int", "default": 1},
    "on_blocked": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
}
INFO_SPEC = {**CONNECTION_SPEC, **CONDITION_SPEC}
MAINTENANCE_SPEC = {**INFO_SPEC, **RUN_SPEC}

KINDS = {"v": "a view", "f": "a foreign table, whose rows are another server's to maintain"}


class Scope(t.NamedTuple):
    """Which tables are meant."""

    schemas: list[str] | None
    tables: list[TableName] | None
    exclude: list[TableName]
    system: bool


class Assessment(t.NamedTuple):
    """What was read, and the plan made of it."""

    tables: list[TableState]
    indexes: list[tuple[IndexState, Bloat | None]]
    plan: Plan


def conditions_from(params: t.Mapping[str, t.Any]) -> Conditions:
    """The declared condition; refuses one that cannot be meant."""
    for option in ("dead_tuple_ratio", "changed_tuple_ratio", "index_bloat_ratio"):
        value = params[option]
        limit = 1.0 if option != "changed_tuple_ratio" else float("inf")
        if value is not None and not 0 <= value < limit:
            raise Refusal(
                obj=f"option {option}",
                problem=f"{value} is not a ratio from 0 to below 1",
                next_step=f"Write {option} as a share, such as 0.1 for 10 %",
            )
    for option, least in (
        ("minimum_tuples", 0),
        ("statistics_age", 0),
        ("transaction_id_age", 1),
        ("minimum_index_size", 0),
        ("jobs", 1),
        ("time_budget", 1),
    ):
        value = params[option]
        if value is not None and value < least:
            raise Refusal(
                obj=f"option {option}", problem=f"{value} is less than {least}", next_step=f"Correct {option}"
            )
    declared = [
        params[option]
        for option in (
            "dead_tuple_ratio",
            "changed_tuple_ratio",
            "statistics_age",
            "transaction_id_age",
            "index_bloat_ratio",
        )
    ]
    if all(value is None for value in declared) and params["invalid_indexes"] != "none":
        raise Refusal(
            obj="the declared condition",
            problem="it is empty, so there is nothing to decide by",
            next_step="Set at least one of dead_tuple_ratio, changed_tuple_ratio, statistics_age, transaction_id_age, invalid_indexes: none, index_bloat_ratio",
        )
    return Conditions(
        dead_tuple_ratio=params["dead_tuple_ratio"],
        changed_tuple_ratio=params["changed_tuple_ratio"],
        minimum_tuples=params["minimum_tuples"],
        statistics_age=params["statistics_age"],
        transaction_id_age=params["transaction_id_age"],
        invalid_indexes=params["invalid_indexes"] == "none",
        index_bloat_ratio=params["index_bloat_ratio"],
        minimum_index_size=params["minimum_index_size"],
    )


def scope_from(params: t.Mapping[str, t.Any]) -> Scope:
    """Which tables the options mean; an empty list is a mistake, not everything."""
    for option in ("schemas", "tables"):
        if params[option] is not None and not params[option]:
            raise Refusal(
                obj=f"option {option}",
                problem="the list is empty",
                next_step=f"Name at least one, or leave {option} out to mean all",
            )
    tables = params["tables"]
    return Scope(
        schemas=params["schemas"],
        tables=None if tables is None else [names.parse_name(name, option="tables") for name in tables],
        exclude=[names.parse_name(name, option="exclude") for name in params["exclude"]],
        system=params["system_catalogs"],
    )


def _matches(table: TableState, name: TableName) -> bool:
    return table.name == name.name and name.schema in {None, table.schema}


def _closest(name: str, known: t.Iterable[str]) -> str | None:
    """The known name that was probably meant; the library for that is needed for this alone."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def select(tables: list[TableState], scope: Scope, *, target: str) -> list[TableState]:
    """The tables of the scope; refuses a name that means none, or something that is not a table here."""
    schemas = {table.schema for table in tables}
    for schema in scope.schemas or []:
        if schema not in schemas:
            close = _closest(schema, schemas)
            hint = f"Did you mean {close}? " if close else ""
            raise Refusal(
                obj=f"{target}, schema {names.shown(schema)}",
                problem="no table in it, or no such schema",
                next_step=f"{hint}Correct schemas",
            )
    if scope.schemas is not None:
        tables = [table for table in tables if table.schema in scope.schemas]
    excluded = {name.name for name in scope.exclude}
    kept = [
        table
        for table in tables
        if table.name not in excluded or not any(_matches(table, name) for name in scope.exclude)
    ]
    if scope.tables is None:
        return [table for table in kept if table.kind not in KINDS]
    wanted: dict[int, TableState] = {}
    by_name: dict[str, list[TableState]] = {}
    for table in tables:
        by_name.setdefault(table.name, []).append(table)
    for name in scope.tables:
        found = [table for table in by_name.get(name.name, []) if _matches(table, name)]
        shown = names.shown(*(part for part in name if part is not None))
        if not found:
            close = _closest(name.name, by_name)
            hint = f"Did you mean {names.shown(by_name[close][0].schema, close)}? " if close else ""
            raise Refusal(
                obj=f"{target}, table {shown}", problem="there is no such table", next_step=f"{hint}Correct tables"
            )
        for table in found:
            if table.kind in KINDS:
                raise Refusal(
                    obj=f"{target}, {shown}", problem=f"it is {KINDS[table.kind]}", next_step="Take it out of tables"
                )
            wanted[table.oid] = table
    return [table for table in kept if table.oid in wanted]


def with_bloat(
    session: Session, indexes: list[IndexState], conditions: Conditions
) -> list[tuple[IndexState, Bloat | None]]:
    """Each index with its waste: estimated, and measured where the estimate does not decide and pgstattuple is there."""
    limit = conditions.index_bloat_ratio
    if limit is None:
        return [(index, None) for index in indexes]
    estimated = [(index, bloat.estimate(index, block_size=session.server.block_size)) for index in indexes]
    open_ones = [index for index, waste in estimated if waste is not None and waste.least <= limit < waste.most]
    schema = catalog.stattuple_schema(session) if open_ones else None
    if schema is None:
        return estimated
    undecided = {index.oid for index in open_ones}
    return [
        (index, bloat.measure(session, schema, index) if index.oid in undecided else waste)
        for index, waste in estimated
    ]


def assess(session: Session, conditions: Conditions, scope: Scope, *, jobs: int, budget: float | None) -> Assessment:
    """Read everything that the conditions are about, and plan."""
    block_size = session.server.block_size
    catalog.uncompiled(session)
    tables = select(catalog.read_tables(session, system=scope.system), scope, target=session.settings.target)
    indexes: list[IndexState] = []
    if conditions.invalid_indexes or conditions.index_bloat_ratio is not None:
        pages = (
            catalog.NO_BLOAT
            if conditions.index_bloat_ratio is None
            else max(1, conditions.minimum_index_size // block_size)
        )
        everything = scope.tables is None and scope.schemas is None and not scope.exclude
        oids = None if everything else [table.oid for table in tables]
        indexes = catalog.read_indexes(session, pages=pages, tables=oids, system=scope.system)
    found = Assessment(tables=tables, indexes=with_bloat(session, indexes, conditions), plan=Plan())
    plan_tables(tables, conditions, horizons=horizons_of(session), block_size=block_size, plan=found.plan)
    if indexes:
        _plan_indexes(session, found, conditions, block_size=block_size)
    fit(found.plan, budget=budget, jobs=jobs)
    return found


def horizons_of(session: Session) -> t.Callable[[], list[blockers.Horizon]]:
    """What gives the horizons of this database, asked of the server once and only when somebody wants to know."""
    return functools.cache(lambda: blockers.read_horizons(session))


def _plan_indexes(session: Session, found: Assessment, conditions: Conditions, *, block_size: int) -> None:
    """Add what is due for the indexes that were found."""
    indexes = [index for index, _waste in found.indexes]
    if conditions.invalid_indexes:
        invalid = [index for index in indexes if not index.valid]
        locked = [oid for index in invalid for oid in (index.oid, index.table_oid)]
        building = blockers.read_builders(session, locked) if locked else {}
        plan_indexes.plan_invalid(indexes, building=building, block_size=block_size, plan=found.plan)
    plan_indexes.plan_bloat(found.indexes, conditions, block_size=block_size, plan=found.plan)


def report(outcome: Outcome, session: Session, found: Assessment, *, diff: bool) -> None:
    """Fill the outcome with what is planned; the diff, if asked for, says which conditions do not hold, and that they will."""
    outcome.plan = [
        PlanItem(object=step.shown, what=step.what, why=step.why, estimate=round(step.estimate, 3))
        for step in found.plan.steps
    ]
    outcome.blockers = list(found.plan.blockers)
    if diff:
        outcome.before = diff_of(found.plan.steps)
        outcome.after = {key: dict.fromkeys(value, "holds") for key, value in outcome.before.items()}
    outcome.facts.update(
        database=session.server.database,
        server=session.server.address or session.settings.host,
        system_identifier=session.server.system_identifier,
        tables_assessed=len(found.tables),
        transaction_id_age=catalog.database_age(session),
        not_done=list(found.plan.not_done),
        done=[],
        invalid_indexes_left=sorted(
            names.shown(index.schema, index.name) for index, _waste in found.indexes if not index.valid
        ),
    )


def diff_of(steps: list[Step]) -> dict[str, dict[str, str]]:
    """Object -> condition -> the value that does not hold."""
    result: dict[str, dict[str, str]] = {}
    for step in steps:
        result.setdefault(step.shown, {}).update(step.failing)
    return result
