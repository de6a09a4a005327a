# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a window: data, words and one self-contained HTML page; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from .model import Window
from .processes import utc

Report = dict[str, Any]

EXPLANATION = {
    "nothing_to_do": "nothing was due, nothing was touched",
    "done": "all that was due is done",
    "refused": "refused before any change",
    "failed_closed": "failed; everything that was opened is closed again",
    "failed_open": "failed, and STILL OPEN: run the window again, or the playbook restore_service",
}


def _rows(window: Window) -> list[dict[str, Any]]:
    """One row for each step and host that took part, in the order of the steps."""
    now = window.now
    rows = []
    for step in window.steps:
        hosts = sorted(
            {host for part in (now.plans, now.begun, now.ends, now.skips) for name, host in part if name == step.name}
        )
        for host in hosts:
            key = (step.name, host)
            end, begun, skip, plan = now.ends.get(key), now.begun.get(key), now.skips.get(key), now.plans.get(key)
            builds_on = sorted(({step.closes} if step.closes else set(step.needs)) & now.acted)
            row: dict[str, Any] = {
                "builds_on": builds_on,
                "step": step.name,
                "host": host,
                "closes": step.closes,
                "irreversible": step.irreversible,
                "estimate": step.estimate,
            }
            row["why"] = begun["why"] if begun else skip["why"] if skip else plan["summary"] if plan else ""
            row["plan"] = plan["plan"] if plan else []
            row["blockers"] = plan["blockers"] if plan else []
            row.update(begin=None, seconds=None, changed=False, summary="")
            if begun:
                row["begin"] = begun["at"]
                row["outcome"] = "ok" if end and end["ok"] else "failed"
                if end:
                    row.update(seconds=round(max(0.0, end["at"] - begun["at"]), 1), changed=end["changed"])
                    row["summary"] = end["summary"] if end["ok"] else end["error"]
                else:
                    row["summary"] = "begun and never ended"
            elif end:  # refused before it began
                row.update(outcome="failed", summary=end["error"])
            else:
                row["outcome"] = "skipped" if skip else ("due" if plan and plan["due"] else "not due")
            rows.append(row)
    return rows


def build(
    window: Window, *, name: str, at: float, rehearsal: bool, evidence: Iterable[str], journal: str, version: str
) -> Report:
    """Everything there is to say at the end; times in seconds since the epoch, durations in seconds."""
    now = window.now
    rows = _rows(window)
    phases: dict[str, float] = {}
    for step in window.steps:
        spans = [
            (row["begin"], row["begin"] + row["seconds"])
            for row in rows
            if row["step"] == step.name and row["seconds"] is not None
        ]
        if spans:
            phases[step.name] = round(max(end for _begin, end in spans) - min(begin for begin, _end in spans), 1)
    return {
        "format": 1,
        "window": name,
        "window_id": now.id,
        "run": now.run,
        "version": version,
        "rehearsal": rehearsal,
        "resumed": now.resumed,
        "state": window.state(),
        "cause": window.cause(),
        "opened": now.opened,
        "closed": at,
        "seconds": round(at - now.opened, 1),
        "phases": phases,
        "steps": rows,
        "still_open": sorted(f"{step} on {host}" for step, host in now.owed),
        "evidence": list(evidence),
        "journal": journal,
    }


def text(report: Report) -> list[str]:
    """The summary for a person, line by line."""
    head = "Rehearsal of window" if report["rehearsal"] else "Window"
    lines = [
        f"{head} {report['window_id']}: {EXPLANATION[report['state']]} ({report['seconds']:.0f} s{', resumed' if report['resumed'] else ''})"
    ]
    if report["cause"]:
        lines.append(f"First cause: {report['cause']}")
    for row in report["steps"]:
        duration = "" if row["seconds"] is None else f"{row['seconds']:.1f} s"
        outcome = "changed" if row["outcome"] == "ok" and row["changed"] else row["outcome"]
        lines.append(
            f"  {row['step']:<24} {row['host']:<20} {outcome:<8} {duration:>8}  {row['summary'] or row['why']}".rstrip()
        )
        lines += [
            f"      would: {item.get('object')}: {item.get('what')} ({item.get('why')})"
            for item in row["plan"]
            if report["rehearsal"]
        ]
        lines += [
            f"      blocked: {item.get('object')}: {item.get('what')}, held by {item.get('holder')}. {item.get('next_step')}"
            for item in row["blockers"]
        ]
        if report["rehearsal"] and row["builds_on"] and row["outcome"] == "ok":
            lines.append(
                f"      builds on {', '.join(row['builds_on'])}, which was only rehearsed: the real run may differ"
            )
        if report["rehearsal"] and row["irreversible"] and row["outcome"] == "ok" and row["changed"]:
            lines.append("      cannot be undone")
    if report["phases"]:
        lines.append("Durations: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report["phases"].items()))
    if report["still_open"]:
        lines.append("Still open: " + ", ".join(report["still_open"]))
    lines += [f"Evidence: {item}" for item in report["evidence"]]
    if report.get("path"):
        lines.append(f"Report: {report['path']}")
    return lines


def last_line(report: Report) -> str:
    """``lowtide window NAME@START: state`` and the cause."""
    cause = f": {report['cause']}" if report["cause"] else ""
    return f"lowtide window {report['window_id']}: {report['state']} ({EXPLANATION[report['state']]}){cause}"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1d2733;background:#fff}"
    "h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #dde3ea;"
    "vertical-align:top}.bar{position:relative;min-width:14rem;height:1rem;background:#eef2f6}.bar i{position:absolute;height:100%;min-width:2px;"
    "background:#2f7d5b}.failed .bar i{background:#b3322b}.state{padding:.2rem .6rem;color:#fff;background:#2f7d5b}.state.failed_open,"
    ".state.failed_closed{background:#b3322b}.state.refused{background:#9a6700}.muted{color:#5b6b7c}"
)


def html(report: Report) -> str:
    """One page without any outside reference: state, cause, a timeline of the steps, evidence."""
    span = max(0.1, report["closed"] - report["opened"])
    rows = []
    for row in report["steps"]:
        strip = ""
        if row["begin"] is not None and row["seconds"] is not None:
            left = 100 * max(0.0, row["begin"] - report["opened"]) / span
            strip = f'<div class="bar"><i style="left:{left:.1f}%;width:{100 * row["seconds"] / span:.1f}%"></i></div>'
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f} s"
        outcome = "changed" if row["outcome"] == "ok" and row["changed"] else row["outcome"]
        cells = (row["step"], row["host"], outcome, seconds, row["summary"] or row["why"])
        rows.append(
            f'<tr class="{escape(row["outcome"])}">'
            + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            + f"<td>{strip}</td></tr>"
        )
    lists = ""
    for title, items in (("Still open", report["still_open"]), ("Evidence", report["evidence"])):
        if items:
            lists += f"<h2>{title}</h2><ul>" + "".join(f"<li>{escape(str(item))}</li>" for item in items) + "</ul>"
    cause = f"<p><strong>First cause:</strong> {escape(report['cause'])}</p>" if report["cause"] else ""
    title = escape(report["window_id"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>'
        f'<h1>{title} <span class="state {report["state"]}">{escape(report["state"])}</span></h1>'
        f"<p>{escape(EXPLANATION[report['state']])}. {utc(report['opened'])} to {utc(report['closed'])}, {report['seconds']:.1f} s"
        f"{', resumed' if report['resumed'] else ''}.</p>{cause}"
        f"<table><tr><th>Step</th><th>Host</th><th>Outcome</th><th>Time</th><th>What and why</th><th>When</th></tr>{''.join(rows)}</table>"
        f'{lists}<p class="muted">Journal: {escape(report["journal"])}; lowtide.ops {escape(report["version"])}</p></body></html>'
    )
