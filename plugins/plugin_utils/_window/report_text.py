# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a window as lines for the console; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from .report import Report, describe_job, describe_outcome
from .state import explain


def _render_row(row: Report, *, check_mode: bool) -> list[str]:
    duration = "" if row["seconds"] is None else f"{row['seconds']:.1f} s"
    words = row["summary"] or row["why"]
    outcome = describe_outcome(row, check_mode=check_mode)
    lines = [f"  {row['step']:<24} {row['host']:<20} {outcome:<12} {duration:>8}  {words}".rstrip()]
    if check_mode:
        lines += [f"      would: {item.get('object')}: {item.get('what')} ({item.get('why')})" for item in row["plan"]]
    else:  # what was not done is proved by nothing
        lines += [f"      {line}" for line in row["evidence"]]
    lines += [
        f"      blocked: {item.get('object')}: {item.get('what')}"
        + (f", held by {item['holder']}" if item.get("holder") else "")
        + (f". {item['next_step']}" if item.get("next_step") else "")
        for item in row["blockers"]
    ]
    if check_mode and row["outcome"] == "ok":
        if row["builds_on"]:
            names = ", ".join(row["builds_on"])
            lines.append(f"      builds on {names}, which was only predicted: the real run may differ")
        if row["irreversible"] and row["changed"]:
            lines.append("      cannot be undone")
    return lines


def render(report: Report) -> list[str]:
    """Return the summary for a person, line by line: the steps in the order in which they happened."""
    head = "Check mode of window" if report["check_mode"] else "Window"
    resumed = ", resumed" if report["resumed"] else ""
    meaning = explain(report["state"], check_mode=report["check_mode"])
    lines = [f"{head} {report['window_id']}: {meaning} ({report['seconds']:.0f} s{resumed})"]
    if report["job"]:
        lines.append(f"Run as {describe_job(report['job'])}")
    if report["cause"]:
        lines.append(f"First cause: {report['cause']}")
    for row in report["steps"]:
        lines += _render_row(row, check_mode=report["check_mode"])
    if report["durations"]:
        durations = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report["durations"].items())
        lines.append(f"Durations: {durations}")
    if report["not_reverted"]:
        lines.append("Not reverted yet: " + ", ".join(report["not_reverted"]))
    if report.get("path"):
        lines.append(f"Report: {report['path']}")
    return lines


def render_last_line(report: Report) -> str:
    """Return ``lowtide window NAME@START: state`` with the state's meaning and the first cause."""
    cause = f": {report['cause']}" if report["cause"] else ""
    meaning = explain(report["state"], check_mode=report["check_mode"])
    return f"lowtide window {report['window_id']}: {report['state']} ({meaning}){cause}"
