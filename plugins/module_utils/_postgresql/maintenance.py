# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database's tables in declared condition: plan, apply, read back. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.module import Deadline
from .._common.outcome import Blocker, Outcome
from . import blockers, catalog, guard, names, vacuum
from .assess import Assessment, assess, conditions_from, diff_of, report, scope_from, with_bloat
from .connection import Session, driver_error, new_run_id, settings_from
from .crew import Crew
from .errors import sql_error
from .plan import BLOAT, CLEAN, FREEZE, INVALID, LEFTOVERS, PARENTS, Conditions, Plan, Step, plan_tables
from .reindex import Reindex
from .vacuum import Counts, Vacuum

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

STATISTICS_WAIT = 3.0  # seconds; up to 14 the statistics arrive by a collector, half a second late


def maintain(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of module pg_maintenance."""
    params = module.params
    settings, conditions, scope = settings_from(params), conditions_from(params), scope_from(params)
    for option in ("lock_timeout", "lock_retries"):
        if params[option] < 0 or (option == "lock_timeout" and params[option] == 0):
            raise Refusal(
                obj=f"option {option}",
                problem=f"{params[option]} would wait for ever, or not at all",
                next_step=f"Set {option} to more than 0",
            )
    budget = None if params["time_budget"] is None else float(params["time_budget"])
    started = time.monotonic()
    run_id = new_run_id()
    with Session(settings, module="pg_maintenance", run_id=run_id) as session:
        if module.check_mode:
            guard.refuse_if_taken(session)
        else:
            guard.take(session)
        found = assess(session, conditions, scope, jobs=params["jobs"], budget=budget)
        report(outcome, session, found)
        outcome.changed = bool(found.plan.steps)
        if found.plan.steps and not module.check_mode:
            crew = Crew(
                settings,
                module="pg_maintenance",
                run_id=run_id,
                jobs=params["jobs"],
                lock_timeout=params["lock_timeout"],
                retries=params["lock_retries"],
                budget=budget,
                started=started,
            )
            with crew:
                apply(session, crew, found, conditions, outcome)
    if params["on_blocked"] == "fail" and outcome.blockers:
        first = outcome.blockers[0]
        more = f" ({len(outcome.blockers) - 1} more in blockers)" if len(outcome.blockers) > 1 else ""
        raise OpsError(
            obj=first.object,
            problem=f"{first.what}; {first.holder}{more}",
            next_step=f"{first.next_step}; or set on_blocked to report",
        )


def inform(module: AnsibleModule, outcome: Outcome) -> None:
    """The work of module pg_maintenance_info: the same assessment, nothing written, nothing locked."""
    params = module.params
    settings, conditions, scope = settings_from(params), conditions_from(params), scope_from(params)
    budget = None if params["time_budget"] is None else float(params["time_budget"])
    with Session(settings, module="pg_maintenance_info", run_id=new_run_id()) as session:
        found = assess(session, conditions, scope, jobs=params["jobs"], budget=budget)
        report(outcome, session, found)
        outcome.facts["due"] = bool(found.plan.steps)
        del outcome.facts["done"]
    outcome.before = outcome.after = None


def apply(session: Session, crew: Crew, found: Assessment, conditions: Conditions, outcome: Outcome) -> None:
    """Do the plan phase by phase, then read back; what was done is in the outcome also when this raises."""
    steps = found.plan.steps
    states = {table.oid: table for table in found.tables}
    before = {
        step.oid: Counts(states[step.oid].vacuum_count, states[step.oid].analyze_count)
        for step in steps
        if step.oid in states
    }
    vacuums, reindexes = Vacuum(crew, before), Reindex(crew)
    lost: Exception | None = None
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
    record = crew.record
    outcome.facts["done"] = [
        {"object": step.shown, "what": step.what, "seconds": round(seconds, 3)} for step, seconds in record.done
    ]
    outcome.facts["not_done"].extend(record.not_done)
    outcome.blockers.extend(record.blockers)
    outcome.changed = bool(record.done)
    _set_after(outcome, steps, [step for step, _seconds in record.done] + record.settled)
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
        errors = vacuum.not_shown(before, vacuumed, vacuum.read_counts(session, oids))
        while errors and session.server.version < 150000 and not deadline.passed:
            deadline.pause(0.1)
            errors = vacuum.not_shown(before, vacuumed, vacuum.read_counts(session, oids))
        outcome.waited = deadline.elapsed if session.server.version < 150000 else 0.0
        _still_failing(session, oids, conditions, outcome)
    touched = sorted({step.table for step in found.plan.steps if step.oid not in before})
    if touched or conditions.invalid_indexes:
        _indexes_after(session, found, conditions, outcome, touched=touched, done=done)
    outcome.facts["transaction_id_age"] = catalog.database_age(session)
    return errors


def _still_failing(session: Session, oids: list[int], conditions: Conditions, outcome: Outcome) -> None:
    """Tables that were done and whose condition does not hold all the same: who holds it."""
    horizons = blockers.read_horizons(session)
    remaining = Plan()
    now = catalog.read_tables(session, system=True, oids=oids)
    plan_tables(now, conditions, horizons=horizons, block_size=session.server.block_size, plan=remaining)
    known = {(blocker.object, blocker.holder.split(" for ")[0]) for blocker in outcome.blockers}
    outcome.blockers.extend(
        blocker for blocker in remaining.blockers if (blocker.object, blocker.holder.split(" for ")[0]) not in known
    )
    outcome.facts["not_done"].extend(remaining.not_done)
    left = {step.shown: step.failing for step in remaining.steps}
    left.update({entry["object"]: {"dead_tuple_ratio": entry["why"]} for entry in remaining.not_done})
    for shown, failing in left.items():
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
