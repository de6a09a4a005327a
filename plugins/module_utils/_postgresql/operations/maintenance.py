# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database's tables in declared condition: read, plan, and have it carried out. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from ..._common.errors import OpsError, Refusal
from ..._common.outcome import Outcome
from ..._common.retry import Deadline
from ..apply import Run, apply_plan
from ..arguments import build_conditions, build_scope, check_waits
from ..assess import Assessment, assess, report_assessment
from ..connection import Session, Settings, new_run_id, settings_from, translate_errors
from ..locks import acquire_run_lock, refuse_if_running
from ..steps import Conditions, Skip
from ..summary import list_evidence, summarize_assessment, tell_maintenance
from ..worker_pool import Limits

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

NO_TIMEOUT = 10.0 * 365 * 86400
"""Seconds of a run that nothing limits."""


def maintain(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of module pg_maintenance."""
    params = module.params
    settings, conditions = settings_from(params), build_conditions(params)
    scope = build_scope(params)
    check_waits(params)
    limits = build_limits(params)
    deadline = Deadline(NO_TIMEOUT if limits.timeout is None else limits.timeout)
    run_id = new_run_id()
    with (
        translate_errors(settings.target),
        Session(settings, module="pg_maintenance", run_id=run_id) as session,
    ):
        if module.check_mode:
            refuse_if_running(session)
        else:
            acquire_run_lock(session)
        check_server(module, session, conditions)
        assessment = assess(
            session,
            conditions,
            scope,
            jobs=limits.jobs,
            budget=limits.budget,
            lock_timeout=limits.lock_timeout,
            timeout=limits.timeout,
        )
        _warn(module, assessment)
        report_assessment(outcome, session, assessment, diff=module._diff)
        skips = list(assessment.plan.skips)
        outcome.changed = module.check_mode and bool(assessment.plan.steps)
        tell_maintenance(outcome, check_mode=module.check_mode)
        if assessment.plan.steps and not module.check_mode:
            skips = _carry_out(
                module, outcome, Run(session, assessment, conditions, limits, params["truncate"]), run_id, deadline
            )
    raise_skipped(skips, outcome, on_blocked=params["on_blocked"])


def _warn(module: AnsibleModule, assessment: Assessment) -> None:
    for warning in assessment.warnings:
        module.warn(warning)


def _carry_out(module: AnsibleModule, outcome: Outcome, run: Run, run_id: str, deadline: Deadline) -> list[Skip]:
    try:
        return apply_plan(run, outcome, run_id=run_id, deadline=deadline)
    finally:
        tell_maintenance(outcome, check_mode=module.check_mode)


def build_limits(params: t.Mapping[str, t.Any]) -> Limits:
    """Return the times that the options set."""
    return Limits(
        jobs=params["jobs"],
        lock_timeout=params["lock_timeout"],
        index_wait_timeout=params["index_wait_timeout"],
        retries=params["lock_retries"],
        budget=None if params["time_budget"] is None else float(params["time_budget"]),
        timeout=None if params["timeout"] is None else float(params["timeout"]),
    )


def check_server(module: AnsibleModule, session: Session, conditions: Conditions) -> None:
    """Refuse a server that does not count what the conditions are about, and warn where it hides what is in the way."""
    counted = (
        conditions.dead_tuple_ratio,
        conditions.changed_tuple_ratio,
        conditions.inserted_tuple_ratio,
        conditions.statistics_age,
        conditions.transaction_id_age,
    )
    if not session.server.track_counts and any(value is not None for value in counted):
        raise Refusal(
            obj=session.settings.target,
            problem="track_counts is off, so the server does not know of dead, changed or inserted rows, nor of any VACUUM",
            next_step="Turn track_counts on",
        )
    if not session.server.sees_sessions:
        module.warn(
            f"{session.settings.target}: without pg_read_all_stats it cannot be told which transactions of other users are in"
            " the way; no index is rebuilt, and a VACUUM may be of no use. GRANT pg_read_all_stats to that role"
        )


def raise_skipped(skips: list[Skip], outcome: Outcome, *, on_blocked: str) -> None:
    """Fail for what is due and was not done: always for a danger or a missing right, else where on_blocked says so."""
    dangers = [skip for skip in skips if skip.is_danger] or [skip for skip in skips if skip.missing_right]
    blocked = [skip for skip in skips if skip.blocker is not None]
    decisive = dangers or (blocked if on_blocked == "fail" else [])
    if not decisive:
        return
    skip = decisive[0]
    more = f" ({len(outcome.blockers) - 1} more in blockers)" if len(outcome.blockers) > 1 else ""
    if skip.blocker is None:
        raise OpsError(
            obj=skip.display_name, problem=f"{skip.action} was not done: {skip.reason}{more}", next_step="Run again"
        )
    advice = "" if dangers else "; or set on_blocked to report"
    raise OpsError(
        obj=skip.display_name,
        problem=f"{skip.blocker.what}; {skip.blocker.holder}{more}",
        next_step=f"{skip.blocker.next_step}{advice}",
    )


def inform(module: AnsibleModule, outcome: Outcome) -> None:
    """Do the work of module pg_maintenance_info: the same assessment, nothing written, nothing locked."""
    params = module.params
    settings, conditions = settings_from(params), build_conditions(params)
    check_waits(params)
    assessment = _assess_only(module, outcome, settings, conditions)
    outcome.facts["due"] = bool(assessment.plan.steps)
    del outcome.facts["done"]
    outcome.summary = summarize_assessment(outcome.facts, outcome.plan)
    outcome.evidence = list_evidence(outcome.facts)


def _assess_only(module: AnsibleModule, outcome: Outcome, settings: Settings, conditions: Conditions) -> Assessment:
    params = module.params
    scope = build_scope(params)
    budget = None if params["time_budget"] is None else float(params["time_budget"])
    with (
        translate_errors(settings.target),
        Session(settings, module="pg_maintenance_info", run_id=new_run_id()) as session,
    ):
        check_server(module, session, conditions)
        assessment = assess(
            session, conditions, scope, jobs=params["jobs"], budget=budget, lock_timeout=params["lock_timeout"]
        )
        _warn(module, assessment)
        report_assessment(outcome, session, assessment, diff=False)
    return assessment
