# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what the declared condition is about, and plan. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import functools
import typing as t

from .._common.outcome import Outcome
from .._common.retry import Deadline
from . import blockers, catalog, names
from .arguments import Scope
from .bloat import POSTPONED, Bloat, estimate_bloat, find_remedy, measure_bloat, sort_by_gain
from .catalog import IndexState, TableState
from .collations import Collation, fit_collations, plan_collations, read_collations
from .connection import Session, driver_error
from .errors import is_lost, one_line, sql_error
from .plan import Surroundings, add_index_time, apply_time_budget, plan_tables
from .plan_indexes import Rights, plan_bloat, plan_invalid, warn_of_remains
from .scope import find_excluded, find_unmatched, select_tables
from .steps import Conditions, Plan, describe_unmet, list_items, report_skips
from .unfrozen import plan_unfrozen, read_unfrozen
from .worker_pool import to_milliseconds

if t.TYPE_CHECKING:
    from .holders import XminHolder


MEASURING_SHARE = 0.25
"""How much of the time for the run may go into reading indexes, which by itself changes nothing."""

NO_TIME = "the quarter of the time that measuring may take was over; raise time_budget (or timeout)"


class Assessment(t.NamedTuple):
    """What was read, and the plan made of it. ``all_tables`` are those out of scope too."""

    tables: list[TableState]
    all_tables: list[TableState]
    indexes: list[tuple[IndexState, Bloat | None]]
    collations: list[Collation]
    plan: Plan
    server: Surroundings
    warnings: list[str]


def examine_bloat(
    session: Session,
    indexes: list[IndexState],
    conditions: Conditions,
    *,
    lock_timeout: float,
    budget: float | None,
    postpone: bool = False,
) -> list[tuple[IndexState, Bloat | None]]:
    """Return each index with its waste: estimated, and of those that may be above the limit measured where pgstattuple is.

    Measuring reads an index whole, so it ends with the time ``budget``, the largest possible gain first, and waits for no
    lock longer than lock_timeout. With ``postpone`` it is left for later.
    """
    limit = conditions.index_bloat_ratio
    if limit is None:
        return [(index, None) for index in indexes]
    block_size, minimum = session.server.block_size, conditions.minimum_index_size
    estimates = [
        (index, estimate_bloat(index, block_size=block_size) if index.pages * block_size >= minimum else None)
        for index in indexes
    ]
    candidates = [(index, bloat) for index, bloat in estimates if bloat and bloat.most > limit and index.valid]
    if not candidates:
        return estimates
    stattuple = catalog.read_stattuple(session)
    remedy = find_remedy(stattuple, user=session.settings.user)
    if stattuple is None or remedy:
        return [(index, bloat and bloat._replace(remedy=remedy)) for index, bloat in estimates]
    deadline = None if budget is None else Deadline(budget)
    measured = {
        index.oid: Bloat(0.0, 1.0, POSTPONED)
        if postpone
        else _measure(session, stattuple.schema, index, lock_timeout, deadline)
        for index in sort_by_gain(candidates)
    }
    return [(index, measured.get(index.oid, bloat)) for index, bloat in estimates]


def limit_statements(session: Session, *, lock_timeout: float, seconds: float | None) -> None:
    """Let a statement wait for a lock no longer than lock_timeout, and take ``seconds`` at most (None: as long as it needs)."""
    session.query(
        "SELECT set_config('lock_timeout', %(lock)s, false), set_config('statement_timeout', %(statement)s, false)",
        {"lock": to_milliseconds(lock_timeout), "statement": "0" if seconds is None else to_milliseconds(seconds)},
    )


def _measure(session: Session, schema: str, index: IndexState, lock_timeout: float, deadline: Deadline | None) -> Bloat:
    """Measure one index; undecided where that is not possible within the limits."""
    if deadline is not None and deadline.passed:
        return Bloat(0.0, 1.0, NO_TIME)
    limit_statements(session, lock_timeout=lock_timeout, seconds=None if deadline is None else deadline.remaining)
    try:
        return measure_bloat(session, schema, index)
    except driver_error() as error:
        if is_lost(error, session.connection):
            raise
        problem = sql_error(names.format_name(index.schema, index.name), error).problem
        return Bloat(0.0, 1.0, f"pgstatindex could not measure it ({one_line(problem)})")
    finally:
        if not session.connection.closed:
            limit_statements(session, lock_timeout=lock_timeout, seconds=None)


def assess(
    session: Session,
    conditions: Conditions,
    scope: Scope,
    *,
    jobs: int,
    budget: float | None,
    lock_timeout: float,
    timeout: float | None = None,
) -> Assessment:
    """Read everything that the conditions are about, and plan. No statement waits for a lock longer than lock_timeout."""
    limit_statements(session, lock_timeout=lock_timeout, seconds=timeout)
    everything = catalog.read_tables(session, system=scope.system)
    tables = select_tables(everything, scope, target=session.settings.target)
    oids = None if scope.is_everything else [table.oid for table in tables]
    collations = read_collations(session) if conditions.collation_versions != "ignore" else []
    indexes = _read_indexes(session, conditions, scope, oids, collations)
    facts = session.server
    server = Surroundings(
        version=facts.version,
        block_size=facts.block_size,
        freeze_max_age=facts.freeze_max_age,
        multixact_freeze_max_age=facts.multixact_freeze_max_age,
        in_scope={table.oid for table in tables},
        excluded=find_excluded(everything, scope),
        user=session.settings.user,
    )
    plan = Plan()
    plan_tables(everything, conditions, read_holders=cache_holders(session), server=server, plan=plan)
    add_index_time(
        plan,
        catalog.read_index_pages(session, [step.oid for step in plan.steps if step.vacuum]),
        facts.block_size,
    )
    examined = examine_bloat(
        session,
        indexes,
        conditions,
        lock_timeout=lock_timeout,
        budget=share_time(budget, timeout),
        postpone=any(step.is_danger for step in plan.steps),
    )
    warnings = find_unmatched(everything, scope, target=session.settings.target)
    assessment = Assessment(tables, everything, examined, collations, plan, server, warnings)
    _plan_indexes(session, assessment, conditions)
    warnings += warn_of_remains(plan.steps, indexes, user=session.settings.user)
    if conditions.transaction_id_age is not None and scope.is_whole_database:
        plan_unfrozen(
            read_unfrozen(session, limit=conditions.transaction_id_age),
            server.in_scope or (),
            conditions,
            freeze_max_age=server.freeze_max_age,
            multixact_freeze_max_age=server.multixact_freeze_max_age,
            plan=plan,
        )
    fit_collations(plan, collations, budget=budget, jobs=jobs)
    apply_time_budget(plan, budget=budget, jobs=jobs)
    limit_statements(session, lock_timeout=lock_timeout, seconds=None)
    return assessment


def share_time(*limits: float | None) -> float | None:
    """Return the seconds that measuring may take of what is left for all; None where nothing limits the run."""
    return min((seconds * MEASURING_SHARE for seconds in limits if seconds is not None), default=None)


def _read_indexes(
    session: Session, conditions: Conditions, scope: Scope, oids: list[int] | None, collations: list[Collation]
) -> list[IndexState]:
    """Return the indexes that a condition is about, of the tables in scope (None: of all)."""
    if not conditions.invalid_indexes and conditions.index_bloat_ratio is None and not collations:
        return []
    minimum_pages = None
    if conditions.index_bloat_ratio is not None:
        minimum_pages = max(1, conditions.minimum_index_size // session.server.block_size)
    by_collation = [oid for collation in collations for oid in collation.indexes]
    indexes = catalog.read_indexes(
        session, minimum_pages=minimum_pages, tables=oids, indexes=by_collation, system=scope.system
    )
    in_scope = None if oids is None else set(oids)
    return [index for index in indexes if in_scope is None or index.table_oid in in_scope]


def cache_holders(session: Session) -> t.Callable[[], list[XminHolder]]:
    """Return what gives the holders of dead rows, asked of the server once and only when it matters."""
    return functools.cache(lambda: blockers.read_xmin_holders(session))


def _plan_indexes(session: Session, assessment: Assessment, conditions: Conditions) -> None:
    """Add what is due for indexes."""
    indexes = [index for index, _bloat in assessment.indexes]
    rights = Rights(session.server.version, session.server.sees_sessions, session.settings.user)
    block_size, plan = session.server.block_size, assessment.plan
    if conditions.invalid_indexes:
        locked = [oid for index in indexes if not index.valid for oid in (index.oid, index.table_oid)]
        building = blockers.read_builders(session, locked) if locked else {}
        plan_invalid(indexes, building=building, rights=rights, block_size=block_size, plan=plan)
    plan_bloat(assessment.indexes, conditions, rights=rights, block_size=block_size, plan=plan)
    plan_collations(assessment.collations, indexes, conditions, rights=rights, block_size=block_size, plan=plan)


def report_assessment(outcome: Outcome, session: Session, assessment: Assessment, *, diff: bool) -> None:
    """Fill the outcome with what is planned; the diff, if asked for, says which conditions do not hold, and that they will."""
    plan = assessment.plan
    outcome.plan = list_items(plan.steps)
    outcome.facts.update(
        database=session.server.database,
        server=session.server.address or session.settings.host,
        system_identifier=session.server.system_identifier,
        tables_assessed=len(assessment.tables),
        transaction_id_age=catalog.read_database_age(session),
        done=[],
        invalid_indexes_left=sorted(
            names.format_name(index.schema, index.name) for index, _bloat in assessment.indexes if not index.valid
        ),
    )
    report_skips(outcome, plan.skips)
    if diff:
        outcome.before = describe_unmet(plan.steps)
        outcome.after = {key: dict.fromkeys(value, "holds") for key, value in outcome.before.items()}
