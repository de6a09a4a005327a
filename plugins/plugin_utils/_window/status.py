# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is open at a site, who holds it, what was done; only reads.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .events import WindowOpened
from .lease import LeaseRecord
from .occurrences import read_occurrences
from .report import build_rows, describe_outcome, format_time
from .results import Result
from .rules import RESTORE, WindowRules, describe_pending
from .state import FINAL_STATES, WindowState, compute_state
from .store import Store

SHOWN = 5
"""Occurrences that are told in full, the newest ones."""
SOURCE = (
    "This is what journals tell. The reverting roles in check mode tell what is on the systems: "
    "lowtide.ops.restore_service --check"
)


def describe_holder(held: LeaseRecord | None) -> str:
    """Return who holds the site now, in words; empty when nobody does."""
    if held is None or held.released or held.owner.check_liveness() == "dead":
        return ""
    doubt = "" if held.owner.check_liveness() == "alive" else ", a process that cannot be looked at from here"
    return f"{held.owner.describe()}, with window {held.window_id}{doubt}"


def find_running(store: Store, held: LeaseRecord | None, *, now: float) -> int | None:
    """Return the token of the run that is at work at the site, None when there is none. A holder that cannot be looked
    at is at work as long as its lease is renewed."""
    if held is None or held.released:
        return None
    liveness = held.owner.check_liveness()
    is_at_work = liveness == "alive" or (liveness == "unknown" and now < store.read_last_renewal() + store.ttl)
    return held.token if is_at_work else None


def read_status(store: Store, *, now: float) -> Result:
    """Return the site's status as data, and as lines for people."""
    with store.reading():
        return _read_status(store, now=now)


def _read_status(store: Store, *, now: float) -> Result:
    if store.is_new():
        lines = [f"Site {store.location}: no window was ever opened there"]
        nothing: Result = {"holder": "", "not_reverted": [], "occurrences": []}
        return {"changed": False, **nothing, "lines": lines, "msg": lines[0]}
    held = store.read_lease()
    holder, running = describe_holder(held), find_running(store, held, now=now)
    if holder and running is None:
        holder += (
            f"; its lease was last renewed at {format_utc(store.read_last_renewal())}, so another run may take over"
        )
    unsettled = read_occurrences(store)
    not_reverted = [
        {"window_id": window_id, "step": step, "host": host, "reverted_by": reverted_by}
        for window_id, state in unsettled.states.items()
        for (step, host), reverted_by in sorted(state.pending.items())
    ]
    newest = _read_newest(store, unsettled.damaged)
    lines = [f"Site {store.location}: {f'held by {holder}' if holder else 'not held by anybody'}"]
    at_work = held.window_id if held is not None and running is not None else ""
    lines += [_describe_left(left, at_work) for left in not_reverted] or ["Nothing is left to revert"]
    lines.append(SOURCE)
    lines += [f"Damaged: {error}" for error in unsettled.damaged.values()]
    for state in newest:
        lines += _describe_occurrence(state, running=running, now=now)
    return {
        "changed": False,
        "holder": holder,
        "not_reverted": not_reverted,
        "occurrences": [_summarize(state, now=now) for state in newest],
        "lines": lines,
        "msg": lines[0],
    }


def _describe_left(left: dict[str, str], at_work: str) -> str:
    """Return what is not reverted, and what to do. ``at_work`` is the window that runs now, if any does."""
    next_step = (
        "The window runs, and reverts it"
        if left["window_id"] == at_work
        else f"Wait for window {at_work}, then run the window again, or lowtide.ops.restore_service"
        if at_work
        else "Run the window again, or lowtide.ops.restore_service"
    )
    return (
        f"Not reverted yet: {left['step']} on {left['host']}, by {left['window_id']} "
        f"(reverting step: {left['reverted_by']}). {next_step}"
    )


def _read_newest(store: Store, damaged: dict[str, Refusal]) -> list[WindowState]:
    """Return the newest occurrences, those with the latest event first; add journals that are found damaged to
    ``damaged``."""
    names = []
    for name in store.list_occurrences():
        last = store.read_last_event(name)
        if last is not None:
            names.append((last.at, name))
    states = []
    for _at, name in sorted(names, reverse=True)[:SHOWN]:
        try:
            states.append(compute_state(store.load(name)))
        except Refusal as error:
            damaged[name] = error
    return [state for state in states if state.opened is not None]


def _describe_state(state: WindowState, opened: WindowOpened, *, is_running: bool, now: float) -> str:
    is_over = now >= opened.ends
    if is_running:
        when = "since" if is_over else "after"
        return f"running; no new step starts {when} {format_time(opened.ends)}"
    ended = "interrupted" if state.closed is None else f"{state.closed.state} at {format_utc(state.closed.at)}"
    if state.finished or opened.mode == RESTORE:  # each run of restore_service is an occurrence of its own
        return ended
    return f"{ended}; " + (
        "its time is over" if is_over else f"the next run resumes it until {format_utc(opened.ends)}"
    )


def _summarize(state: WindowState, *, now: float) -> Result:
    opened = WindowRules(state).opened
    return {
        "window_id": opened.window_id,
        "state": state.closed.state if state.closed else ("interrupted" if now >= opened.ends else "open"),
        "opened_at": format_utc(state.first_opened),
        "ends_at": format_utc(opened.ends),
        "cause": state.closed.cause if state.closed else "",
        "not_reverted": describe_pending(state),
    }


def _describe_occurrence(state: WindowState, *, running: int | None, now: float) -> list[str]:
    opened = WindowRules(state).opened
    is_running = state.closed is None and opened.token == running
    head = f"Window {opened.window_id}: {_describe_state(state, opened, is_running=is_running, now=now)}"
    if state.closed is not None and state.closed.state in FINAL_STATES and state.closed.cause:
        head += f"; first cause: {state.closed.cause}"
    rows = [
        f"  {row['step']:<24} {row['host']:<20} {describe_outcome(row):<12} {row['summary'] or row['why']}".rstrip()
        for row in build_rows(WindowRules(state), running=running)
    ]
    return [head, *rows]
