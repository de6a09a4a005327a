# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database's tables in declared condition: read, plan, and have it carried out. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import time
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.outcome import Outcome
from . import guard
from .apply import carry_out
from .assess import assess, conditions_from, report, scope_from
from .connection import Session, new_run_id, settings_from
from .summary import list_evidence, summarize_assessment, tell_maintenance

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


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
        report(outcome, session, found, diff=module._diff)
        outcome.changed = module.check_mode and bool(found.plan.steps)
        if found.plan.steps and not module.check_mode:
            try:
                carry_out(params, session, found, conditions, outcome, run_id=run_id, started=started)
            finally:
                tell_maintenance(outcome, check_mode=False)
    tell_maintenance(outcome, check_mode=module.check_mode)
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
        report(outcome, session, found, diff=False)
        outcome.facts["due"] = bool(found.plan.steps)
        del outcome.facts["done"]
    outcome.summary = summarize_assessment(outcome.facts, outcome.plan)
    outcome.evidence = list_evidence(outcome.facts)
