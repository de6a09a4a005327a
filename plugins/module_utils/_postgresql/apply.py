# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a plan, and report what became of it. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError
from .._common.outcome import Blocker, Outcome
from . import catalog, names
from .assess import Assessment, examine_bloat, share_time
from .bloat import POSTPONED
from .collations import DATABASE, name_refresh
from .connection import Session, driver_error
from .errors import sql_error
from .plan import apply_time_budget, is_oversized
from .plan_indexes import Rights, plan_bloat
from .reindex import Reindex, build_tasks
from .steps import Conditions, Phase, Plan, Skip, Step, describe_unmet, report_skips
from .vacuum import Counts, Vacuum
from .verify import verify
from .worker_pool import Limits, WorkerPool

if t.TYPE_CHECKING:
    from .._common.retry import Deadline

TABLE_PHASES = {Phase.FREEZE, Phase.CLEAN, Phase.PARENTS}


class Run(t.NamedTuple):
    """One run of a plan: its session, what was assessed, and by which conditions and limits."""

    session: Session
    assessment: Assessment
    conditions: Conditions
    limits: Limits
    truncate: bool


def apply_plan(run: Run, outcome: Outcome, *, run_id: str, deadline: Deadline) -> list[Skip]:
    """Do what is planned, read it back, and return all that was skipped. What was done is in the outcome also when this raises."""
    pool = WorkerPool(
        run.session.settings,
        run.limits,
        module="pg_maintenance",
        run_id=run_id,
        deadline=deadline,
        deciding=run.session,
    )
    with pool:
        pool.open_sessions(_count_tasks(run.assessment.plan.steps))
        outcome.write_attempted = True
        return _apply(run, pool, outcome)


def _count_tasks(steps: list[Step]) -> int:
    """Return how many sessions the widest phase can use."""
    widest = 1
    for phase in Phase:
        due = [step for step in steps if step.phase == phase]
        widest = max(widest, len(due) if phase in TABLE_PHASES else len(build_tasks(due)))
    return widest


def _apply(run: Run, pool: WorkerPool, outcome: Outcome) -> list[Skip]:
    steps, record = list(run.assessment.plan.steps), pool.record
    before = {
        table.oid: Counts(table.oid, table.vacuum_count, table.analyze_count) for table in run.assessment.all_tables
    }
    failure: Exception | None = None
    try:
        _run_phases(run, pool, before)
    except (driver_error(), OpsError) as error:
        failure = error
    done = [step for step, _seconds in record.done]
    outcome.facts["done"] = [
        {"object": step.display_name, "what": step.action, "why": step.why, "seconds": round(seconds, 3)}
        for step, seconds in record.done
    ]
    # What was running when the connection went may have been done, without an answer.
    outcome.changed = bool(record.done) or failure is not None
    skips = [*run.assessment.plan.skips, *record.skips]
    report_skips(outcome, skips)
    _set_after(outcome, steps, [*done, *record.no_longer_needed])
    if isinstance(failure, OpsError):
        raise failure
    if failure is not None:
        raise OpsError(
            obj=run.session.settings.target,
            problem=f"the connection was lost in the middle ({sql_error('', failure).problem});"
            f" {len(record.done)} of {len(steps)} steps were done",
            next_step="Run again: it finds the primary among the hosts of login_host, decides anew, and does nothing twice",
        ) from failure
    try:
        result = verify(run.session, run.assessment, run.conditions, done=done, before=before)
    except driver_error() as error:
        raise sql_error(run.session.settings.target, error) from error
    outcome.waited = result.waited
    outcome.facts["transaction_id_age"] = catalog.read_database_age(run.session)
    if result.invalid_indexes is not None:
        outcome.facts["invalid_indexes_left"] = result.invalid_indexes
    skips += result.skips
    report_skips(outcome, skips)
    if outcome.before is not None:
        for display_name, unmet in result.unmet.items():
            outcome.after[display_name] = {**outcome.after.get(display_name, {}), **unmet}
    _raise_errors([error for _step, error in [*record.errors, *result.errors]], outcome)
    return skips


def _run_phases(run: Run, pool: WorkerPool, before: dict[int, Counts]) -> None:
    vacuums, reindexes = Vacuum(pool, before, truncate=run.truncate), Reindex(pool)
    last: list[Step] = []  # what is longer than the budget would keep all else from being begun
    for phase in Phase:
        if phase == Phase.BLOAT:
            _add_bloated_indexes(run, pool)
        steps = [step for step in run.assessment.plan.steps if step.phase == phase]
        oversized = [step for step in steps if is_oversized(step, run.limits.budget)]
        last += oversized
        due = [step for step in steps if step not in oversized]
        if not due:
            continue
        if phase in TABLE_PHASES:
            vacuums.run(due)
        elif phase == Phase.REFRESH:
            _refresh_collations(run, pool, due)
        else:
            reindexes.run(due)
    for step in last:
        (vacuums if step.phase in TABLE_PHASES else reindexes).run([step])
    vacuums.finish(run.session)


def _add_bloated_indexes(run: Run, pool: WorkerPool) -> None:
    """Add the rebuilds of indexes whose waste shows only now that their tables have been vacuumed, and of those that were
    not measured before the tables in danger were frozen.

    Else the next run would find them due. They are in the result's ``done``; that they are due could not be planned.
    """
    postponed = {index.table_oid for index, bloat in run.assessment.indexes if bloat and bloat.why_unknown == POSTPONED}
    tables = sorted(postponed | {step.oid for step, _seconds in pool.record.done if step.phase in TABLE_PHASES})
    limits = run.limits
    if run.conditions.index_bloat_ratio is None or not tables or pool.is_over:
        return
    plan = run.assessment.plan
    known = {step.oid for step in plan.steps} | {skip.oid for skip in plan.skips if skip.blocker is not None}
    pages = max(1, run.conditions.minimum_index_size // run.session.server.block_size)
    indexes = catalog.read_indexes(run.session, minimum_pages=pages, tables=tables, system=True)
    remaining = None if limits.budget is None else max(limits.budget - pool.elapsed, 0.001)
    examined = examine_bloat(
        run.session,
        [index for index in indexes if index.oid not in known],
        run.conditions,
        lock_timeout=limits.lock_timeout,
        budget=share_time(remaining, None if limits.timeout is None else max(limits.timeout - pool.elapsed, 0.001)),
    )
    later = Plan()
    plan_bloat(
        examined,
        run.conditions,
        rights=Rights(run.session.server.version, run.session.server.sees_sessions, run.session.settings.user),
        block_size=run.session.server.block_size,
        plan=later,
    )
    apply_time_budget(later, budget=remaining, jobs=limits.jobs)
    plan.steps.extend(later.steps)
    replaced = {index.oid for index, _bloat in examined}
    plan.skips[:] = [skip for skip in plan.skips if skip.oid not in replaced] + later.skips


def _refresh_collations(run: Run, pool: WorkerPool, due: list[Step]) -> None:
    """Note the new versions of the collations all of whose indexes have been rebuilt."""
    collations = {collation.oid: collation for collation in run.assessment.collations}
    done = {step.oid for step, _seconds in pool.record.done} | {step.oid for step in pool.record.no_longer_needed}

    def refresh(session: Session, step: Step) -> list[Step]:
        collation = collations[step.oid]
        left = [oid for oid in collation.indexes if oid not in done]
        if left:
            command = name_refresh(collation)
            blocker = Blocker(
                object=step.display_name,
                what=f"{len(left)} of its {len(collation.indexes)} indexes were not rebuilt",
                holder="what not_done says of them",
                next_step=f"Run again when that is cleared; until {command} all of them are due",
            )
            pool.record.add_skip(step, f"{step.why}; {blocker.what}", blocker)
            return []
        try:
            seconds = pool.execute(session, _build_refresh(step), lock_timeout=pool.limits.lock_timeout)
        except driver_error() as error:
            if session.connection.closed:
                raise
            pool.record.add_error(step, sql_error(f"{step.display_name}, {step.action}", error))
            return []
        pool.record.add_done([step], seconds)
        return []

    pool.run(due, refresh, size=lambda _step: 1.0, jobs=1)


def _build_refresh(step: Step) -> t.Any:
    sql = catalog.load_sql()
    if step.oid == DATABASE:
        return sql.SQL("ALTER DATABASE {} REFRESH COLLATION VERSION").format(sql.SQL(names.quote(step.name)))
    return sql.SQL("ALTER COLLATION {} REFRESH VERSION").format(sql.SQL(names.quote(step.schema, step.name)))


def _raise_errors(errors: list[OpsError], outcome: Outcome) -> None:
    """Raise the first of what failed; all are in the result."""
    if not errors:
        return
    outcome.facts["errors"] = [error.as_dict() for error in errors]
    more = f" ({len(errors) - 1} more in errors)" if len(errors) > 1 else ""
    raise OpsError(obj=errors[0].obj, problem=errors[0].problem + more, next_step=errors[0].next_step)


def _set_after(outcome: Outcome, steps: list[Step], settled: list[Step]) -> None:
    """Set the diff's ``after``: what was skipped keeps the value that it had."""
    if outcome.before is None:
        return
    holding = {(step.oid, condition) for step in settled for condition in step.unmet}
    after = [
        step._replace(
            unmet={
                condition: "holds" if (step.oid, condition) in holding else value
                for condition, value in step.unmet.items()
            }
        )
        for step in steps
    ]
    outcome.after = describe_unmet(after)
