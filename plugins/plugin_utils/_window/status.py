# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is open at a site, who holds it, what was done; only reads.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .lease import LeaseRecord
from .occurrences import read_occurrences
from .report import build_rows, describe_outcome
from .results import Result
from .rules import WindowRules, describe_pending
from .state import FINAL_STATES, WindowState, compute_state
from .store import Store

SHOWN = 5
"""Occurrences that are told in full, the newest ones."""


def describe_holder(held: LeaseRecord | None) -> str:
    """Return who holds the site now, in words; empty when nobody does."""
    if held is None or held.released or held.owner.check_liveness() == "dead":
        return ""
    doubt = "" if held.owner.check_liveness() == "alive" else ", on a machine that cannot be looked at from here"
    return f"{held.owner.describe()}, with window {held.window_id}{doubt}"


def read_status(store: Store, *, now: float) -> Result:
    """Return the site's status as data, and as lines for people."""
    holder = describe_holder(store.read_lease())
    unsettled = read_occurrences(store)
    not_reverted = [
        {"window_id": window_id, "step": step, "host": host, "reverted_by": left.reverted_by}
        for window_id, state in unsettled.states.items()
        for (step, host), left in sorted(state.pending.items())
    ]
    newest = _read_newest(store, unsettled.damaged)
    held = store.read_lease() if holder else None
    running = held.window_id if held else ""
    lines = [f"Site {store.location}: {f'held by {holder}' if holder else 'not held by anybody'}"]
    lines += [
        f"Not reverted yet: {left['step']} on {left['host']}, by {left['window_id']} "
        f"(reverting step: {left['reverted_by']})"
        for left in not_reverted
    ] or ["Nothing is left to revert, as far as the journals know"]
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


def _describe_state(state: WindowState, *, is_running: bool, now: float) -> str:
    opened = state.opened
    if state.closed is not None:
        return f"{state.closed.state} at {format_utc(state.closed.at)}"
    if opened is not None and now < opened.ends:
        return f"{'running' if is_running else 'interrupted'}, can be resumed until {format_utc(opened.ends)}"
    return "interrupted, and its time is over"


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


def _describe_occurrence(state: WindowState, *, running: str, now: float) -> list[str]:
    opened = WindowRules(state).opened
    is_running = opened.window_id == running
    head = f"Window {opened.window_id}: {_describe_state(state, is_running=is_running, now=now)}"
    if state.closed is not None and state.closed.state in FINAL_STATES and state.closed.cause:
        head += f"; first cause: {state.closed.cause}"
    rows = [
        f"  {row['step']:<24} {row['host']:<20} {describe_outcome(row):<9} {row['summary'] or row['why']}".rstrip()
        for row in build_rows(WindowRules(state))
    ]
    return [head, *rows]
