# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a window does next, from its declaration and its state; pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .declaration import Declaration, Play, Step
from .events import JOURNAL, StepFailed, StepSucceeded, WindowOpened
from .state import ABANDONED, FinalState, Key, WindowState

RESTORE = "restore"
"""Mode of an occurrence that only reverts (playbook restore_service): a failure does not hold back the other steps."""


@dataclass(frozen=True)
class Decision:
    """Whether a host performs a step now, and why (not). ``record``: worth an event; ``not_due``: there is nothing to
    do."""

    perform: bool
    why: str
    record: bool = False
    not_due: bool = False


@dataclass(frozen=True)
class HostContext:
    """The host that asks, what computes the digest of its inputs for the step, and the collection's version."""

    host: str
    digest: Callable[[], str]
    version: str


NOT_ASSIGNED = Decision(False, "not assigned to this host")


class WindowRules:
    """The rules over one occurrence: which step is due, where, and how it ends."""

    def __init__(self, state: WindowState) -> None:
        """``state`` is that of an occurrence that was opened."""
        assert_opened(state.opened)
        opened: Any = state.opened
        self.state = state
        self.opened: WindowOpened = opened
        self.declaration = Declaration.from_dicts(opened.steps)
        self.selected = frozenset(opened.selected)

    @property
    def restores(self) -> bool:
        """Whether this occurrence only reverts what is in force."""
        return self.opened.mode == RESTORE

    # -- whether a step is due anywhere ---------------------------------------------------------------------------

    def is_due(self, name: str, asking: frozenset[str] = frozenset()) -> bool:
        """Return whether the step has work on any host in this run, as far as is known now.

        ``asking`` are the steps whose answer depends on this one: a step that is due only after another, and that
        alone needs it, makes neither due.
        """
        step = self.declaration[name]
        if step.reverts and self.state.list_pending_hosts(step.reverts):
            return True
        asking |= {name}
        if name not in self.selected or not self._has_trigger(step, asking):
            return False
        if step.reverts:
            return step.reverts not in asking and self.is_due(step.reverts, asking)
        if self.declaration.find_reverting(name):
            return self._is_needed(name, asking)
        plans = [plan.due for (planned, _host), plan in self.state.plans.items() if planned == name]
        if plans:
            return any(plans)
        return any(not self._is_done(step, host) for host in step.hosts)

    def _has_trigger(self, step: Step, asking: frozenset[str]) -> bool:
        """Whether one of the steps after which alone this one is due was started, or is due."""
        if not step.only_after:
            return True
        return any(
            other in self.state.started_steps or (other not in asking and self.is_due(other, asking))
            for other in step.only_after
        )

    def _is_needed(self, name: str, asking: frozenset[str] = frozenset()) -> bool:
        needing = self.declaration.list_needing(name)
        return any(self.is_due(step.name, asking) for step in needing if step.name not in asking) if needing else True

    def _is_done(self, step: Step, host: str) -> bool:
        """Whether a success of this occurrence counts: in this run any, of an earlier run only that of a plain step."""
        success = self.state.succeeded.get((step.name, host))
        if success is None:
            return False
        if success.token == self.opened.token:
            return True
        return not (step.reads_only or step.plan or self.declaration.find_reverting(step.name))

    # -- what one host does ---------------------------------------------------------------------------------------

    def decide(self, play: int, context: HostContext, *, now: float) -> Decision:
        """Return what the host does about the play numbered ``play`` at ``now`` (seconds since the epoch).

        Raise Refusal when the step is due and must not start; that is a failure of the step.
        """
        current = self.declaration.plays[play]
        step = self.declaration[current.step]
        if context.host not in current.hosts:
            return NOT_ASSIGNED
        if self.restores:
            return Decision(True, "restores the service")
        if step.reverts:  # whatever is wrong with the plays: the way back is never refused
            return self._decide_reverting(step, context)
        self._require_order(play)
        return self._decide_plain(step, context, now)

    def _decide_plain(self, step: Step, context: HostContext, now: float) -> Decision:
        if step.name not in self.selected:
            return Decision(False, "left out by window_only or window_skip", record=True)
        if self.state.failed:
            return Decision(False, self._explain_failure(), record=True)
        if self._is_done(step, context.host):
            return self._decide_done(step, context)
        decision = self._decide_need(step, context)
        if decision.perform:
            self._require_needs(step)
            self._require_time(step, now)
        return decision

    def _explain_failure(self) -> str:
        first = self.state.failures[0]
        return f"skipped after the failure of {first.step} on {first.host}"

    def _decide_reverting(self, step: Step, context: HostContext) -> Decision:
        reversible = step.reverts or ""
        hosts = self.state.list_pending_hosts(reversible)
        if context.host in hosts or (hosts and self.declaration.is_reverting_all(step)):
            return Decision(True, f"reverts {reversible}")
        return Decision(False, f"{reversible} is not in force here", record=True, not_due=True)

    def _decide_done(self, step: Step, context: HostContext) -> Decision:
        success = self.state.succeeded[(step.name, context.host)]
        if success.token != self.opened.token:
            when = format_utc(success.at)
            if success.version != context.version:
                problem = f"lowtide.ops {success.version} did it at {when}, and this is {context.version}"
                raise self._make_inputs_refusal(step, context, problem)
            if success.digest != context.digest():
                raise self._make_inputs_refusal(step, context, f"it was done at {when} with other inputs")
        return Decision(False, f"done at {format_utc(success.at)}", record=True)

    def _make_inputs_refusal(self, step: Step, context: HostContext, problem: str) -> Refusal:
        return Refusal(
            obj=f"step {step.name} on {context.host}",
            problem=problem,
            next_step=f"Resume {self.opened.window_id} with what it was started with, "
            "or start another occurrence with window_start",
        )

    def _decide_need(self, step: Step, context: HostContext) -> Decision:
        if step.only_after and not self.state.started_steps.intersection(step.only_after):
            why = f"none of {', '.join(step.only_after)} was performed"
            return Decision(False, why, record=True, not_due=True)
        if self.declaration.find_reverting(step.name):
            if not self._is_needed(step.name):
                return Decision(False, "no due step needs it", record=True, not_due=True)
            needing = [other.name for other in self.declaration.list_needing(step.name) if self.is_due(other.name)]
            return Decision(
                True, f"needed by {', '.join(needing)}" if needing else "declared without a step that needs it"
            )
        planned = self.state.plans.get((step.name, context.host))
        if planned is None and step.plan:
            raise Refusal(
                obj=f"step {step.name} on {context.host}",
                problem="whether it is due was not found out in this run",
                next_step="Run the whole playbook; leave window_* out of extra variables but those that are documented",
            )
        if planned is None:
            return Decision(True, "not planned: always due")
        if not planned.due:
            return Decision(False, planned.summary or "nothing to do", record=True, not_due=True)
        return Decision(True, planned.summary or "due")

    def _require_order(self, play: int) -> None:
        """Refuse a play that comes before one that is declared before it, or after one that is declared after it."""
        plays = self.declaration.plays
        current = plays[play]
        reached = set(self.state.reached)
        for number, other in enumerate(plays):
            is_reached = (other.step, other.batch) in reached
            due = other.step in self.selected or self.declaration[other.step].reverts
            if (number < play and not is_reached and due) or (number > play and is_reached):
                first, then = (other, current) if number < play else (current, other)
                raise Refusal(
                    obj=f"play of step {current.step}",
                    problem=f"it comes {'before' if number < play else 'after'} that of {other.step}, "
                    f"and window_steps declares {first.step} before {then.step}",
                    next_step="Put the plays in the order of window_steps, or use the playbook maintenance_window",
                )

    def _require_needs(self, step: Step) -> None:
        for name in step.needs:
            for host in self.declaration[name].hosts:
                if not self._is_satisfied(name, host):
                    raise Refusal(
                        obj=f"step {step.name}",
                        problem=f"it needs {name}, which is not {self._describe_need(name)} on {host}",
                        next_step=f"See why {name} did not run there, then run the window again",
                    )

    def _describe_need(self, name: str) -> str:
        return "in force" if self.declaration.find_reverting(name) else "done"

    def _is_satisfied(self, name: str, host: str) -> bool:
        if self.declaration.find_reverting(name):
            return (name, host) in self.state.pending and (name, host) in self.state.succeeded
        skipped = self.state.skipped.get((name, host))
        return self._is_done(self.declaration[name], host) or (skipped is not None and skipped.not_due)

    def _require_time(self, step: Step, now: float) -> None:
        """Refuse a step that cannot be over before the window's end, with the reverting steps that come after it."""
        pending = [
            self.declaration[reverted_by]
            for reverted_by in self.state.pending.values()
            if reverted_by in self.declaration
        ]
        reverting = self.declaration.find_reverting(step.name)
        after = {other.name: other.estimate or 0.0 for other in (*pending, *filter(None, [reverting]))}
        needed = (step.estimate or 0.0) + sum(after.values())
        if now + needed <= self.opened.ends:
            return
        left = max(0.0, self.opened.ends - now)
        problem = f"the window ended at {format_utc(self.opened.ends)}"
        if left:
            problem = (
                f"{left:.0f} s are left until {format_utc(self.opened.ends)}, and it is expected to take {needed:.0f} s"
            )
            problem += f" with {', '.join(after)}" if after else ""
        raise Refusal(
            obj=f"step {step.name}",
            problem=problem,
            next_step="Start another occurrence (window_start), with a longer window_duration if it needs more time",
        )

    def decide_plan(self, name: str, context: HostContext) -> Decision:
        """Return whether the host has to find out if step ``name`` is due there."""
        step = self.declaration[name]
        if not step.plan or context.host not in step.hosts:
            return NOT_ASSIGNED
        if step.reverts:
            if (step.reverts, context.host) in self.state.pending:
                return Decision(False, f"{step.reverts} is in force here, as the journal says")
            return Decision(True, f"find out whether {step.reverts} is in force")
        if name not in self.selected:
            return Decision(False, "left out by window_only or window_skip")
        if self.state.failed:
            return Decision(False, self._explain_failure())
        return Decision(True, "find out whether it is due")

    def list_planned_steps(self, host: str, *, reverting: bool) -> list[str]:
        """Return the names of the steps that ``host`` plans, in order: the reverting ones, or all others."""
        if self.restores:
            return []
        return [
            step.name
            for step in self.declaration
            if step.plan and host in step.hosts and bool(step.reverts) == reverting
            if step.name in self.selected or step.reverts
        ]

    def list_reverts(self) -> list[Play]:
        """Return the batches of reverting steps that are to run out of turn, in their order.

        When the window opens, those for what runs before left in force, so that nothing else can come before the way
        back, but those that are declared to wait for their turn (a service whose database is yet to be restored). When
        it closes, those for all that is still in force and was not tried in vain.
        """
        if self.restores:
            return []
        opens = not self.state.reached and not self.state.failed
        plays = []
        for play in self.declaration.plays:
            step = self.declaration[play.step]
            if opens and step.in_turn:
                continue
            in_force = self.state.list_pending_hosts(step.reverts) if step.reverts else []
            hosts = play.hosts if in_force and self.declaration.is_reverting_all(step) else in_force
            tried = (*self.state.started, *self.state.ended)
            if any(host in hosts and (step.name, host) not in tried for host in play.hosts):
                plays.append(play)
        return plays

    def decide_revert(self, play: int, context: HostContext) -> Decision:
        """Return what the host does about a reverting step that runs out of turn."""
        current = self.declaration.plays[play]
        if context.host not in current.hosts or (current.step, context.host) in self.state.ended:
            return NOT_ASSIGNED
        return self._decide_reverting(self.declaration[current.step], context)

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether no step can start any more: one has failed, and nothing is left to revert."""
        return self.state.failed and not self.state.pending and not self.restores

    def find_abandoned(self, play: int | None = None) -> list[StepFailed]:
        """Return failures for what was started and cannot end any more, as seen from the play numbered ``play``, None
        at the closing: plays follow each other, so what an earlier one started has ended by now, or its host is lost.
        """
        current = self.declaration.plays[play] if play is not None else None
        known = {failure.key for failure in self.state.failures}
        abandoned = [
            StepFailed(step=step, host=host, error=ABANDONED, planning=True)
            for step, host in sorted(self.state.planning)
        ]
        for key, started in self.state.started.items():
            same_play = current is not None and (started.step, started.batch) == (current.step, current.batch)
            if key not in self.state.ended and key not in known and not same_play:
                abandoned.append(StepFailed(step=key[0], host=key[1], error=ABANDONED))
        return abandoned

    def find_unreached(self) -> list[StepFailed]:
        """Return failures for what was due and whose play or host was never reached. After a failure only reverting
        steps, which are all steps of a restore."""
        missing: dict[Key, str] = {}
        reached = set(self.state.reached)
        if self.restores or not self.state.failed:
            for play in self.declaration.plays:
                for host in play.hosts:
                    key = (play.step, host)
                    is_reached = (play.step, play.batch) in reached
                    is_settled = key in self.state.ended or key in self.state.skipped
                    if play.step not in self.selected or (is_reached and is_settled):
                        continue
                    if not is_reached:
                        missing[key] = (
                            "its play was not reached: there is no play of this step between opening and closing"
                        )
                    else:
                        missing[key] = "this host was not reached (unreachable?)"
        for (step, host), reverted_by in self.state.pending.items():
            key = (reverted_by, host)
            if key not in self.state.ended and not self._has_failed_elsewhere(reverted_by, host):
                declared = reverted_by in self.declaration
                missing.setdefault(
                    key,
                    f"it was to revert {step}, and "
                    + ("it did not run" if declared else "window_steps does not declare it any more"),
                )
        return [StepFailed(step=step, host=host, error=why) for (step, host), why in missing.items()]

    def _has_failed_elsewhere(self, name: str, host: str) -> bool:
        """Whether a step that reverts for ``host`` on other hosts failed on one of them."""
        step = self.declaration.get(name)
        return step is not None and any(
            isinstance(self.state.ended.get((name, other)), StepFailed)
            for other in step.hosts
            if host not in step.hosts
        )

    def describe_cause(self) -> str:
        """Return the first failure in words; empty when there is none."""
        return describe_failure(self.state.failures[0]) if self.state.failures else ""

    def compute_final_state(self) -> FinalState:
        """Return how the run ends, from what is on record."""
        if not self.state.failed:
            return "succeeded" if self._has_changed() else "no_changes"
        # What could not be told to journals is reverted; of a step that has their name nobody can say so.
        is_untold = JOURNAL not in self.declaration and all(failure.step == JOURNAL for failure in self.state.failures)
        if self.state.pending or (self.restores and not is_untold):
            return "failed_not_reverted"
        return "failed_reverted" if self.restores or self._may_have_changed() else "refused"

    def _has_changed(self) -> bool:
        successes = [event for event in self.state.ended.values() if not isinstance(event, StepFailed)]
        return any(event.changed for event in (*successes, *self.state.succeeded.values()))

    def _is_reader(self, name: str) -> bool:
        return name in self.declaration and self.declaration[name].reads_only

    def _may_have_changed(self) -> bool:
        """Whether something was changed, or a step was started that may have changed something before it failed."""
        ended_badly = [
            key
            for key in self.state.started
            if not isinstance(self.state.ended.get(key), StepSucceeded) and not self._is_reader(key[0])
        ]
        return self._has_changed() or bool(ended_badly)


def assert_opened(opened: WindowOpened | None) -> None:
    """Raise Refusal for an occurrence whose journal does not begin with its opening."""
    if opened is None:
        raise Refusal(
            obj="window",
            problem="its journal has no opening",
            next_step="Run the playbook restore_service, then open another occurrence",
        )


def describe_failure(failure: StepFailed) -> str:
    """Return ``step on host: error``."""
    return f"{'plan of ' if failure.planning else ''}{failure.step} on {failure.host}: {failure.error}"


def describe_pending(state: WindowState) -> list[str]:
    """Return what is not reverted yet, one line each, sorted."""
    return sorted(f"{step} on {host}" for step, host in state.pending)
