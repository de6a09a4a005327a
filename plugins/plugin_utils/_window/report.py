# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a window has to tell at its end, as data; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .events import StepFailed, StepPlanned, StepSkipped, StepStarted, StepSucceeded
from .results import NO_RESULT
from .rules import WindowRules, describe_pending
from .state import Key

Report = dict[str, Any]


def describe_outcome(row: Report, *, check_mode: bool = False) -> str:
    """Return in a word how a step ended on a host."""
    if row["outcome"] == "ok" and row["changed"]:
        return "would change" if check_mode else "changed"
    return str(row["outcome"])


def build_rows(rules: WindowRules, *, check_mode: bool = False, running: int | None = None) -> list[Report]:
    """Return one row for each step and host that took part, in the order in which they happened.

    ``running`` is the token of a run that is at work now: what it started and has not ended is running.
    """
    state = rules.state
    planned = [
        key
        for key in state.plans
        if key not in state.order and (state.plans[key].due or not rules.declaration[key[0]].reverts)
    ]
    not_planned = [failure.key for failure in state.failures if failure.planning and failure.key not in state.order]
    rows = [_build_row(rules, key) for key in [*not_planned, *state.order, *planned]]
    for row in rows:
        if row["outcome"] == "interrupted" and running == state.started[row["step"], row["host"]].token:
            row.update(outcome="running", summary=f"since {format_time(row['begin'])}")
        elif row["outcome"] == "ok" and row["summary"] == NO_RESULT and not check_mode:
            row["summary"] = f"done ({NO_RESULT})"
    return rows


def format_time(at: float) -> str:
    """Return the time of day in UTC."""
    return format_utc(at).partition("T")[2]


def _build_row(rules: WindowRules, key: Key) -> Report:
    state = rules.state
    started, ended = state.started.get(key), state.ended.get(key)
    skipped, plan = state.skipped.get(key), state.plans.get(key)
    step = rules.declaration.get(key[0])
    builds_on = {step.reverts} if step and step.reverts else set(step.needs if step else ())
    not_planned = next((event for event in state.failures if event.planning and event.key == key), None)
    told = ended or not_planned or plan
    row: Report = {
        "step": key[0],
        "host": key[1],
        "reverts": step.reverts if step else None,
        "irreversible": bool(step and step.irreversible),
        "estimate": step.estimate if step else None,
        "builds_on": sorted(name for name in builds_on if name in state.started_steps),
        "why": _explain(started, skipped, plan),
        "begin": started.at if started else None,
        "seconds": round(max(0.0, ended.at - started.at), 1) if started and ended else None,
        "changed": False,
        "summary": "",
        "plan": told.plan if told else [],
        "blockers": told.blockers if told else [],
        "evidence": ended.evidence if isinstance(ended, StepSucceeded) else [],
    }
    if isinstance(ended, StepFailed):
        row.update(outcome="failed", summary=ended.error)
    elif isinstance(ended, StepSucceeded):
        row.update(outcome="ok", summary=ended.summary, changed=ended.changed)
    elif started:
        row.update(outcome="interrupted", summary=f"started at {format_utc(started.at)}, and its end is not on record")
    elif not_planned:
        row.update(outcome="failed", summary=f"whether it is due is unknown: {not_planned.error}")
    elif skipped:
        row["outcome"] = "skipped"
    else:
        row["outcome"] = "due" if plan and plan.due else "not due"
    return row


def _explain(started: StepStarted | None, skipped: StepSkipped | None, plan: StepPlanned | None) -> str:
    if started:
        return started.why
    if skipped:
        return skipped.why
    return plan.summary if plan else ""


def _measure_durations(rules: WindowRules, rows: list[Report]) -> dict[str, float]:
    """Return the seconds of each step that was performed, from the first host's start to the last host's end."""
    durations = {}
    for step in rules.declaration:
        spans = [
            (row["begin"], row["begin"] + row["seconds"])
            for row in rows
            if row["step"] == step.name and row["seconds"] is not None
        ]
        if spans:
            durations[step.name] = round(max(end for _begin, end in spans) - min(begin for begin, _end in spans), 1)
    return durations


def build_report(rules: WindowRules, *, at: float, check_mode: bool, journal: str, version: str) -> Report:
    """Return everything there is to tell; times in seconds since the epoch, durations in seconds."""
    opened, rows = rules.opened, build_rows(rules, check_mode=check_mode)
    return {
        "format": 1,
        "window": opened.window,
        "window_id": opened.window_id,
        "token": opened.token,
        "version": version,
        "check_mode": check_mode,
        "resumed": rules.state.resumed,
        "state": rules.compute_final_state(),
        "cause": rules.describe_cause(),
        "opened": opened.at,
        "closed": at,
        "seconds": round(at - opened.at, 1),
        "durations": _measure_durations(rules, rows),
        "steps": rows,
        "not_reverted": describe_pending(rules.state),
        "journal": journal,
        "job": opened.job,
    }


def describe_job(job: dict[str, str]) -> str:
    """Return what AWX job a run was, in words; empty for none."""
    if not job:
        return ""
    by = f", by {job['user']}" if job.get("user") else ""
    template = f" of template {job['template']}" if job.get("template") else ""
    schedule = f", schedule {job['schedule']}" if job.get("schedule") else ""
    launch = f" ({job['launch']}{schedule})" if job.get("launch") else ""
    return f"AWX job {job['id']}{template}{by}{launch}"
