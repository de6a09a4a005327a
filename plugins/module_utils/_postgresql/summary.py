# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line and the evidence of a maintenance run, without I/O.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.text import format_count, format_duration, join_some

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome, PlanItem

EVIDENCE_LIMIT = 20
"""Lines of evidence at most; the result's C(done) has all steps."""


def summarize_maintenance(facts: t.Mapping[str, t.Any], plan: t.Sequence[PlanItem], *, check_mode: bool) -> str:
    """Return one line: what was done, or would be, and what was left although it is due.

    ``facts`` are the module's own: database, tables_assessed, done, not_done.
    """
    database, tables = facts["database"], format_count(facts["tables_assessed"], "table")
    reasons = {(item.object, item.what): item.why for item in plan}
    steps = [(item.object, item.what) for item in plan]
    if not check_mode:
        steps = [(step["object"], step["what"]) for step in facts["done"]]
        # What was found only after a VACUUM is not in the plan.
        reasons = {(step["object"], step["what"]): step["why"] for step in facts["done"]}
    if steps:
        words = join_some([f"{what} of {name} ({reasons[name, what]})" for name, what in steps], limit=2)
        verb = "would do" if check_mode else "did"
        summary = f"{verb} {len(steps)} of {format_count(max(len(plan), len(steps)), 'step')} on {tables} of {database}: {words}"
    elif plan or facts["not_done"]:
        summary = f"nothing done on {tables} of {database}"
    else:
        summary = f"{tables} of {database} in condition"
    left = facts["not_done"]
    return f"{summary}; {len(left)} left, first {left[0]['object']}: {left[0]['why']}" if left else summary


def summarize_assessment(facts: t.Mapping[str, t.Any], plan: t.Sequence[PlanItem]) -> str:
    """Return one line about what is due, for pg_maintenance_info."""
    tables = f"{format_count(facts['tables_assessed'], 'table')} of {facts['database']}"
    if not plan and not facts["not_done"]:
        return f"{tables} in condition"
    due = (
        join_some([f"{item.what} of {item.object} ({item.why})" for item in plan], limit=2)
        or "nothing that can be done"
    )
    left = f"; {len(facts['not_done'])} left" if facts["not_done"] else ""
    return f"{format_count(len(plan), 'step')} due on {tables}: {due}{left}"


def list_evidence(facts: t.Mapping[str, t.Any]) -> list[str]:
    """Return what proves the run: the server that was asked, the steps with their durations, what is left."""
    lines = [
        f"database {facts['database']} on {facts['server']}, system identifier {facts['system_identifier']}:"
        f" {format_count(facts['tables_assessed'], 'table')} assessed, transaction id age {facts['transaction_id_age']}"
    ]
    done = facts.get("done") or []
    for step in done[:EVIDENCE_LIMIT]:
        seconds = step["seconds"]
        took = format_duration(seconds) if seconds >= 10 else f"{seconds:.1f} s"
        lines.append(f"{step['what']} of {step['object']}: {took}")
    if len(done) > EVIDENCE_LIMIT:
        lines.append(f"{len(done) - EVIDENCE_LIMIT} more steps done")
    lines += [f"invalid index left: {name}" for name in facts["invalid_indexes_left"]]
    return lines


def tell_maintenance(outcome: Outcome, *, check_mode: bool) -> None:
    """Set summary and evidence of pg_maintenance from what the outcome holds; nothing where the state was never read."""
    if "tables_assessed" not in outcome.facts:
        return
    outcome.summary = summarize_maintenance(outcome.facts, outcome.plan, check_mode=check_mode)
    outcome.evidence = list_evidence(outcome.facts)
