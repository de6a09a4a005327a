# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a plan, and read back what became of it. Private to lowtide.ops: do not import from other collections.

Imported only when something is due: most runs find nothing to do.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError
from .._common.outcome import Blocker, Outcome
from .._common.retry import Deadline
from . import catalog, names, vacuum
from .assess import Assessment, diff_of, horizons_of, with_bloat
from .catalog import TableState
from .connection import Session, driver_error
from .crew import Crew
from .errors import sql_error
from .plan import BLOAT, CLEAN, FREEZE, INVALID, LEFTOVERS, PARENTS, Conditions, Plan, Step, plan_tables
from .reindex import Reindex
from .vacuum import Counts, Vacuum

STATISTICS_WAIT = 3.0  # seconds; up to 14 the statistics arrive by a collector, half a second late


def carry_out(
    params: t.Mapping[str, t.Any],
    session: Session,
    found: Assessment,
    conditions: Conditions,
    outcome: Outcome,
    *,
    run_id: str,
    started: float,
) -> None:
    """Do what is planned, on as many connections as the parameters say; ``started`` is the run's beginning (monotonic)."""
    crew = Crew(
        session.settings,
        module="pg_maintenance",
        run_id=run_id,
        jobs=params["jobs"],
        lock_timeout=params["lock_timeout"],
        retries=params["lock_retries"],
        budget=params["time_budget"],
        started=started,
    )
    with crew:
        apply(session, crew, found, conditions, outcome)


def apply(session: Session, crew: Crew, found: Assessment, conditions: Conditions, outcome: Outcome) -> None:
    """Do the plan phase by phase, then read back; what was done is in the outcome also when this raises."""
    steps = found.plan.steps
    states = {table.oid: table for table in found.tables}
    before = {
        step.oid: Counts(states[step.oid].vacuum_count, states[step.oid].analyze_count)
        for step in steps
        if step.oid in states
    }
    outcome.write_attempted = True
    vacuums, reindexes = Vacuum(crew, before), Reindex(crew)
    lost: Exception | None = None
    stopped: OpsError | None = None
    try:
        for phase in (FREEZE, LEFTOVERS, INVALID, CLEAN, PARENTS, BLOAT):
            due = [step for step in steps if step.phase == phase]
            if not due:
                continue
            if phase in {FREEZE, CLEAN, PARENTS}:
                vacuums.run(due, jobs=crew.jobs)
            else:
                reindexes.run(due)
        vacuums.finish(session)
    except driver_error() as error:
        lost = error
    except OpsError as error:
        stopped = error
    record = crew.record
    outcome.facts["done"] = [
        {"object": step.shown, "what": step.what, "seconds": round(seconds, 3)} for step, seconds in record.done
    ]
    outcome.facts["not_done"].extend(record.not_done)
    outcome.blockers.extend(record.blockers)
    outcome.changed = bool(record.done) or lost is not None  # what was running may have been done, without an answer
    _set_after(outcome, steps, [step for step, _seconds in record.done] + record.settled)
    if stopped is not None:
        raise stopped
    if lost is not None:
        raise OpsError(
            obj=session.settings.target,
            problem=f"the connection was lost in the middle ({sql_error('', lost).problem}); {len(record.done)} of {len(steps)} steps were done",
            next_step="Run again: it finds the primary among the hosts of login_host, decides anew, and does nothing twice",
        ) from lost
    try:
        done = [step for step, _seconds in record.done]
        errors = [*record.errors, *read_back(session, found, conditions, outcome, before=before, done=done)]
    except driver_error() as error:
        raise sql_error(session.settings.target, error) from error
    if errors:
        outcome.facts["errors"] = [error.as_dict() for error in errors]
        first = errors[0]
        more = f" ({len(errors) - 1} more in errors)" if len(errors) > 1 else ""
        raise OpsError(obj=first.obj, problem=first.problem + more, next_step=first.next_step)


def _set_after(outcome: Outcome, steps: list[Step], settled: list[Step]) -> None:
    """The diff's ``after``: what was left keeps the value that it had."""
    if outcome.before is None:
        return
    fine = {(step.shown, condition) for step in settled for condition in step.failing}
    outcome.after = {
        shown: {condition: "holds" if (shown, condition) in fine else value for condition, value in failing.items()}
        for shown, failing in diff_of(steps).items()
    }


def read_back(
    session: Session,
    found: Assessment,
    conditions: Conditions,
    outcome: Outcome,
    *,
    before: dict[int, Counts],
    done: list[Step],
) -> list[OpsError]:
    """Ask the server whether it happened and whether the condition holds now; what remains goes into the outcome."""
    vacuumed = [step for step in done if step.oid in before]
    errors: list[OpsError] = []
    if vacuumed:
        oids = [step.oid for step in vacuumed]
        deadline = Deadline(STATISTICS_WAIT)
        while True:
            now = catalog.read_tables(session, system=True, oids=oids)
            counts = {table.oid: Counts(table.vacuum_count, table.analyze_count) for table in now}
            errors = vacuum.not_shown(before, vacuumed, counts)
            if not errors or session.server.version >= 150000 or deadline.passed:
                break
            deadline.pause(0.1)
        outcome.waited = deadline.elapsed if session.server.version < 150000 else 0.0
        _still_failing(session, now, conditions, outcome)
    touched = sorted({step.table for step in found.plan.steps if step.oid not in before})
    if touched or conditions.invalid_indexes:
        _indexes_after(session, found, conditions, outcome, touched=touched, done=done)
    outcome.facts["transaction_id_age"] = catalog.database_age(session)
    return errors


def _still_failing(session: Session, now: list[TableState], conditions: Conditions, outcome: Outcome) -> None:
    """Tables that were done and whose condition does not hold all the same: who holds it. ``now`` is their state."""
    remaining = Plan()
    plan_tables(now, conditions, horizons=horizons_of(session), block_size=session.server.block_size, plan=remaining)
    known = {(blocker.object, blocker.holder.split(" for ")[0]) for blocker in outcome.blockers}
    outcome.blockers.extend(
        blocker for blocker in remaining.blockers if (blocker.object, blocker.holder.split(" for ")[0]) not in known
    )
    outcome.facts["not_done"].extend(remaining.not_done)
    left = {step.shown: step.failing for step in remaining.steps}
    left.update({entry["object"]: {"dead_tuple_ratio": entry["why"]} for entry in remaining.not_done})
    for shown, failing in left.items() if outcome.before is not None else ():
        outcome.after[shown] = {**outcome.after.get(shown, {}), **failing}
    for step in remaining.steps:
        outcome.facts["not_done"].append(
            {"object": step.shown, "what": step.what, "why": f"done, and again: {step.why}; it is being written to"}
        )


def _indexes_after(
    session: Session,
    found: Assessment,
    conditions: Conditions,
    outcome: Outcome,
    *,
    touched: list[int],
    done: list[Step],
) -> None:
    """Prove what is left of invalid indexes, and that what was rebuilt for its bloat is compact now."""
    oids = sorted({*touched, *(index.table_oid for index, _waste in found.indexes if not index.valid)})
    pages = catalog.NO_BLOAT if conditions.index_bloat_ratio is None else 1
    indexes = catalog.read_indexes(session, pages=pages, tables=oids, system=True) if oids else []
    left = sorted(names.shown(index.schema, index.name) for index in indexes if not index.valid)
    outcome.facts["invalid_indexes_left"] = left
    rebuilt = {(step.schema, step.name): step for step in done if step.phase == BLOAT}
    for index, waste in with_bloat(
        session, [index for index in indexes if (index.schema, index.name) in rebuilt], conditions
    ):
        if (
            waste is not None
            and conditions.index_bloat_ratio is not None
            and waste.least > conditions.index_bloat_ratio
        ):
            step = rebuilt[index.schema, index.name]
            outcome.facts["not_done"].append(
                {
                    "object": step.shown,
                    "what": step.what,
                    "why": f"rebuilt, and still {100 * waste.least:.0f} % of it is wasted",
                }
            )
    for index in indexes:
        shown = f"index {names.shown(index.schema, index.name)}"
        if not index.valid and not any(entry["object"] == shown for entry in outcome.facts["not_done"]):
            outcome.facts["not_done"].append(
                {"object": shown, "what": "DROP or REINDEX", "why": "it is invalid after this run"}
            )
            outcome.blockers.append(
                Blocker(
                    object=shown,
                    what="an invalid index is left",
                    holder=names.shown(index.table_schema, index.table),
                    next_step="Run again",
                )
            )
