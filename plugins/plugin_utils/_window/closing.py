# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closing a window: its final state, its report, and the lease given back.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal

from . import report, report_html, report_text
from .approval import name_artifact
from .events import JOURNAL, StepFailed, WindowClosed
from .results import Result, make_stats
from .rules import RESTORE
from .session import OpenWindow, Session
from .state import compute_state
from .store import PATIENCE, Store
from .verdict import leave_verdict

DAY = 86400.0
MAX_ATTACHED = 400_000
"""Characters of a report that go into a job's artifacts, which AWX keeps in its database and hands to later nodes."""


def close_window(window: OpenWindow, *, clock: Callable[[], float] | None = None) -> Result:
    """Record what was not reached, write the report, end the run of the occurrence, release the lease, remove old
    journals."""
    # No step comes after it whose time a wait would take.
    with window.open_session(patience=PATIENCE) as session:
        warnings = session.warnings
        record_failures(session)
        now = session.read_clock() if clock is None else clock()
        data = report.build_report(
            session.rules,
            at=now,
            check_mode=window.check_mode,
            journal=f"{session.store.location}: {window.journal}",
            version=window.version,
        )
        if not window.check_mode:
            contents = {".html": report_html.render(data), ".json": json.dumps(data, indent=2) + "\n"}
            with _warn_of_errors(warnings, "the report could not be written"):
                data["path"] = session.write(lambda: session.store.write_report(window.journal, window.token, contents))
        session.append(WindowClosed(state=data["state"], cause=data["cause"]))
        if session.lost:
            warnings.append(
                "how the window ended is not in its journal"
                if session.rules.restores
                else "how the window ended is not in its journal, so that the next run resumes it"
            )
        if not window.check_mode:
            with _warn_of_errors(warnings, "the lease could not be given back, it ends with this run"):
                window.sign.end_process()  # it would take the next owner for one that has taken the site from this run
                session.write(lambda: session.store.release(window.token))
            with _warn_of_errors(warnings, "old journals could not be removed"):
                remove_old_journals(session.store, keep_days=window.keep_days, now=now, current=window.journal)
    verdict = {
        "state": data["state"],
        "window": window.window,
        "window_id": window.window_id,
        "cause": data["cause"],
        "report": data.get("path"),
    }
    shown = (
        {name_artifact(window.place.site, window.window): window.shown} if window.check_mode and window.shown else {}
    )
    line = report_text.render_last_line(data)
    leave_verdict(window.folder, verdict, line)
    lines = report_text.render(data)
    return {
        "changed": False,
        "lines": lines,
        "msg": line,
        "warnings": warnings,
        **make_stats({**verdict, **attach_report(lines, data)}, **shown),
    }


def attach_report(lines: list[str], data: report.Report) -> Result:
    """Return the report as AWX is to keep it with the job: as text and as data, where these are not too large."""
    attached: Result = {"report_text": "\n".join(lines), "report_data": data}
    size = len(json.dumps(attached))
    if size <= MAX_ATTACHED:
        return attached
    return {
        "report_text": f"The report has {size} characters; it is in the store: {data.get('path')}",
        "report_data": None,
    }


@contextmanager
def _warn_of_errors(warnings: list[str], words: str) -> Iterator[None]:
    """Keep an error as a warning: how the window ended is on record, and must be told."""
    try:
        yield
    except (OSError, OpsError) as error:
        warnings.append(f"{words} ({error})")


def record_failures(session: Session) -> None:
    """Record as failures what was started and never ended, what was not reached, and events that were not written."""
    for failure in session.rules.find_abandoned():
        session.append(failure)
    if session.lost:
        words = f"{len(session.lost)} events could not be written to the journal of the window"
        session.append(StepFailed(step=JOURNAL, host=session.window.control, error=words))
    for failure in session.rules.find_unreached():
        session.append(failure)


def _has_pending(store: Store, name: str) -> bool:
    """Return whether a journal tells of something to revert; one that cannot be trusted may.

    That of restore_service does not: what it was to revert stands in the journals of others.
    """
    try:
        state = compute_state(store.load(name))
    except Refusal:
        return True
    return bool(state.pending) and state.opened is not None and state.opened.mode != RESTORE


def remove_old_journals(store: Store, *, keep_days: int, now: float, current: str = "") -> list[str]:
    """Remove journals and reports whose last event is older than ``keep_days`` days (0 keeps all), and return their
    names.

    What left something to revert is kept however old it is; so is a journal that cannot be trusted.
    """
    old = []
    for name in store.list_occurrences() if keep_days else []:
        last = store.read_last_event(name)
        if name == current or last is None or last.at > now - keep_days * DAY:
            continue
        if not _has_pending(store, name):
            old.append(name)
    store.remove(old)
    return old
