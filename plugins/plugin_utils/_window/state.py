# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of one occurrence of a window: a pure function of its events.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .events import (
    Event,
    PlanStarted,
    StepEvent,
    StepFailed,
    StepPlanned,
    StepReached,
    StepReverted,
    StepSkipped,
    StepStarted,
    StepSucceeded,
    WindowClosed,
    WindowOpened,
)

FinalState = Literal["no_changes", "succeeded", "refused", "failed_reverted", "failed_not_reverted"]
FINAL_STATES: dict[FinalState, str] = {
    "no_changes": "nothing was due, nothing was changed",
    "succeeded": "everything that was due is done",
    "refused": "refused before any change",
    "failed_reverted": "failed; every reversible step is reverted",
    "failed_not_reverted": "failed, and NOT REVERTED yet: run the window again, or the playbook restore_service",
}
"""How a run of a window can end, with the words for people."""
PREDICTED = {
    "no_changes": "nothing is due, nothing would be changed",
    "succeeded": "everything that is due would be done; nothing was changed",
}
"""The words for the same in check mode, where they differ."""
SUCCESSFUL = frozenset({"no_changes", "succeeded"})

ABANDONED = "it was started and never finished (host unreachable, or its process ended)"
Key = tuple[str, str]
"""A step and a host."""


def is_settled(last: Event | None) -> bool:
    """Return whether the last event of a journal says that all is done and nothing is left."""
    return isinstance(last, WindowClosed) and last.state in SUCCESSFUL


@dataclass
class WindowState:
    """What is on record of one occurrence. Parts marked (run) begin anew with each run of it."""

    opened: WindowOpened | None = None
    first_opened: float = 0.0
    closed: WindowClosed | None = None
    resumed: bool = False
    plans: dict[Key, StepPlanned] = field(default_factory=dict)
    """(run) What the planned steps said."""
    planning: set[Key] = field(default_factory=set)
    """(run) Plannings that were started and have not ended."""
    reached: list[tuple[str, int]] = field(default_factory=list)
    """(run) Steps and batches whose play the run came to, in order."""
    started: dict[Key, StepStarted] = field(default_factory=dict)
    """(run)"""
    ended: dict[Key, StepSucceeded | StepFailed] = field(default_factory=dict)
    """(run)"""
    skipped: dict[Key, StepSkipped] = field(default_factory=dict)
    """(run)"""
    failures: list[StepFailed] = field(default_factory=list)
    """(run)"""
    order: dict[Key, None] = field(default_factory=dict)
    """(run) Steps on hosts in the order in which they were first heard of, plannings left out."""
    succeeded: dict[Key, StepSucceeded] = field(default_factory=dict)
    """The last success of each step on each host in this occurrence, whatever run."""
    started_steps: set[str] = field(default_factory=set)
    """Steps that were started on any host in this occurrence."""
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every step that a run of this occurrence declared, as it was declared last: what is in force may be reverted by
    one that is declared no more."""
    pending: dict[Key, str] = field(default_factory=dict)
    """The reversible steps that are in force on a host, with the step that reverts them."""

    @property
    def failed(self) -> bool:
        """Whether anything failed in this run."""
        return bool(self.failures)

    @property
    def finished(self) -> bool:
        """Whether the occurrence came to a good end."""
        return self.closed is not None and self.closed.state in SUCCESSFUL

    @property
    def is_begun(self) -> bool:
        """Whether the occurrence has performed something that may have changed something, and came to no good end."""
        return not self.finished and any(
            not self.declared.get(step, {}).get("reads_only") for step in self.started_steps
        )

    def list_pending_hosts(self, step: str) -> list[str]:
        """Return the hosts on which the reversible ``step`` is in force."""
        return [host for name, host in self.pending if name == step]

    def apply(self, event: Event) -> None:
        """Take in one more event."""
        if isinstance(event, StepEvent) and not isinstance(event, (PlanStarted, StepPlanned, StepReverted)):
            planning = isinstance(event, StepFailed) and event.planning
            if not planning:
                self.order.setdefault(event.key)
        match event:
            case WindowOpened():
                self._apply_opened(event)
            case WindowClosed():
                self.closed = event
            case PlanStarted():
                self.planning.add(event.key)
            case StepPlanned():
                self._apply_planned(event)
            case StepReached():
                self.reached.append((event.step, event.batch))
            case StepStarted():
                self._apply_started(event)
            case StepSucceeded():
                self._apply_succeeded(event)
            case StepFailed():
                self._apply_failed(event)
            case StepSkipped():
                self.skipped[event.key] = event
            case StepReverted():
                self.pending.pop(event.key, None)

    def _apply_opened(self, event: WindowOpened) -> None:
        if self.finished:  # what was done stays done, and its changes were told
            self.succeeded = {key: replace(success, changed=False) for key, success in self.succeeded.items()}
            self.started_steps.clear()
        self.resumed = bool(self.first_opened)
        self.first_opened = self.first_opened or event.at
        self.opened, self.closed = event, None
        for run_part in (self.plans, self.started, self.ended, self.skipped):
            run_part.clear()
        self.planning.clear()
        self.reached.clear()
        self.failures.clear()
        self.order.clear()
        self.declared.update({str(step["name"]): step for step in event.steps})
        for left in event.inherited:
            self.pending.setdefault((left["step"], left["host"]), left["reverted_by"])

    def _apply_planned(self, event: StepPlanned) -> None:
        self.plans[event.key] = event
        self.planning.discard(event.key)
        if event.reverts and event.due:
            self.pending.setdefault((event.reverts, event.host), event.step)

    def _apply_started(self, event: StepStarted) -> None:
        self.started[event.key] = event
        self.succeeded.pop(event.key, None)
        self.started_steps.add(event.step)
        if event.reverted_by:
            self.pending[event.key] = event.reverted_by
            for part in (self.started, self.ended):  # what was reverted before in this run has to be reverted again
                for key in [key for key in part if key[0] == event.reverted_by]:
                    del part[key]

    def _apply_succeeded(self, event: StepSucceeded) -> None:
        self.ended[event.key] = event
        self.succeeded[event.key] = event
        if event.reverts:
            for step, host in list(self.pending):
                if step == event.reverts and (event.reverts_all or host == event.host):
                    del self.pending[(step, host)]

    def _apply_failed(self, event: StepFailed) -> None:
        self.failures.append(event)
        self.planning.discard(event.key)
        if not event.planning:
            self.ended[event.key] = event


def compute_state(events: Iterable[Event]) -> WindowState:
    """Return the state after these events."""
    state = WindowState()
    for event in events:
        state.apply(event)
    return state


def explain(state: FinalState, *, check_mode: bool) -> str:
    """Return the words for how a run ended."""
    return (PREDICTED.get(state) if check_mode else None) or FINAL_STATES[state]
