# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a window as one self-contained HTML page; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from html import escape

from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .report import Report, describe_job, describe_outcome
from .state import explain

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}"
    "body{color:#1d2733;background:#fff}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #dde3ea;vertical-align:top}"
    ".bar{position:relative;min-width:14rem;height:1rem;background:#eef2f6}"
    ".bar i{position:absolute;height:100%;min-width:2px;background:#2f7d5b}.failed .bar i{background:#b3322b}"
    ".state{padding:.2rem .6rem;color:#fff;background:#2f7d5b}.state.failed_not_reverted,"
    ".state.failed_reverted{background:#b3322b}.state.refused{background:#9a6700}.muted{color:#5b6b7c}"
    "ul{margin:.2rem 0;padding-left:1.2rem}"
)


def _render_bar(row: Report, report: Report) -> str:
    if row["begin"] is None or row["seconds"] is None:
        return ""
    span = max(0.1, report["closed"] - report["opened"])
    left = 100 * max(0.0, row["begin"] - report["opened"]) / span
    return f'<div class="bar"><i style="left:{left:.1f}%;width:{100 * row["seconds"] / span:.1f}%"></i></div>'


def _render_list(items: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _render_row(row: Report, report: Report) -> str:
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f} s"
    cells = (row["step"], row["host"], describe_outcome(row, check_mode=report["check_mode"]), seconds)
    blockers = [f"blocked: {item.get('object')}: {item.get('what')}" for item in row["blockers"]]
    words = escape(str(row["summary"] or row["why"])) + _render_list([*row["evidence"], *blockers])
    return (
        f'<tr class="{escape(row["outcome"])}">'
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
        + f"<td>{words}</td><td>{_render_bar(row, report)}</td></tr>"
    )


def render(report: Report) -> str:
    """Return one page without any outside reference: state, first cause, and the steps in the order in which they
    happened."""
    title = escape(report["window_id"])
    state = escape(report["state"])
    cause = f"<p><strong>First cause:</strong> {escape(report['cause'])}</p>" if report["cause"] else ""
    left = report["not_reverted"]
    not_reverted = f"<h2>Not reverted yet</h2>{_render_list(left)}" if left else ""
    resumed = ", resumed" if report["resumed"] else ""
    rows = "".join(_render_row(row, report) for row in report["steps"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>"
        f'<body><h1>{title} <span class="state {state}">{state}</span></h1>'
        f"<p>{escape(explain(report['state'], check_mode=report['check_mode']))}. "
        f"{format_utc(report['opened'])} to {format_utc(report['closed'])}, "
        f"{report['seconds']:.1f} s{resumed}. {escape(describe_job(report['job']))}</p>{cause}"
        "<table><tr><th>Step</th><th>Host</th><th>Outcome</th><th>Time</th><th>What and why</th><th>When</th></tr>"
        f'{rows}</table>{not_reverted}<p class="muted">Journal: {escape(report["journal"])}; '
        f"lowtide.ops {escape(report['version'])}</p></body></html>"
    )
