# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what was decided: drains and stops, switches, starts and waits, watches, puts back.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import sys
import typing as t

from .._common.errors import OpsError, Refusal, WaitFailed, WaitTimeout
from .._common.redaction import Redactor
from .._common.retry import Backoff, Deadline
from .._common.text import format_count, format_duration
from . import memory, probes, releases
from .plan import Decision, find_dependents, flatten, order_stops
from .releases import LinkState
from .units import Drain, Ready, Release, Unit, UnitState

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome
    from .manager import Manager

CRASHES = 3
"""So many restarts by systemd itself while a unit is waited for are a crash loop."""
LINES_BEFORE = 100
"""Lines of a journal that are read before those that are kept: a private key has up to that many."""
MakeDeadline = t.Callable[[float], Deadline]


class Limits(t.NamedTuple):
    """What a run may do, and how long it looks."""

    on_busy: str = "fail"
    canary_seconds: float = 0.0
    log_lines: int = 20


class Run:
    """One run over the units of this host. It keeps what it did, so that a failure can be taken back and told."""

    def __init__(
        self,
        tiers: t.Sequence[t.Sequence[Unit]],
        manager: Manager,
        outcome: Outcome,
        limits: Limits,
        *,
        deadline: MakeDeadline = Deadline,
    ) -> None:
        self.tiers = tiers
        self.manager = manager
        self.outcome = outcome
        self.limits = limits
        self.related: dict[str, UnitState] = {}
        """All units that were read before the run changed anything, those that nobody declared among them."""
        self.stopped: list[str] = []
        self.started: list[str] = []
        self.switched: list[str] = []
        self.proofs: dict[str, str] = {}
        """Name of a unit: what it answered when it was last found ready."""
        self.notes: list[str] = []
        """Lines of evidence of what happened on the way."""
        self.failed = ""
        """The unit on which the run failed."""
        self.is_stopping = False
        """Whether it is still draining and stopping: what fails then says nothing against a release."""
        self._deadline = deadline
        self._redactor = Redactor()
        self._restarts: dict[str, int] = {}
        """Name of a unit: how often systemd had restarted it before it was waited for."""
        self._drained: dict[str, str] = {}
        """Name of a unit that was told to take no new requests: which start of it that was."""

    def look(self, unit: Unit) -> UnitState:
        """Return the unit's state now."""
        return self.manager.show([unit.name])[unit.name]

    def _write(self) -> None:
        self.outcome.write_attempted = True
        self.outcome.changed = True

    # -- stop -------------------------------------------------------------------------------------------------------

    def stop(self, decision: Decision) -> None:
        """Drain and stop what is due, the last tier first, in the reverse order of the declaration."""
        self.is_stopping = True
        if decision.start or not decision.stop:
            self._resume(decision)
            self._refuse_unready(decision)
        for unit in order_stops(self.tiers, self.related, decision.stop):
            self.failed = unit.name
            if unit.drain is not None and self.look(unit).answering:
                self._drain(unit, unit.drain)
            left = self._stop(unit)
            if left.running and unit.name not in decision.start:
                raise _fail_again(left)
        self.failed = ""
        self.is_stopping = False

    def stop_woken(self, decision: Decision) -> None:
        """Stop again what something has started between its stop and the switch: it runs what was there before.

        What is started from now on, by whomever, finds the declared release.
        """
        moved = {release.link for release in decision.switch}
        names = {unit.name for unit in flatten(self.tiers) if unit.release and unit.release.link in moved}
        for unit in order_stops(self.tiers, self.related, names.union(decision.stop)):
            self.failed = unit.name
            if self.look(unit).running:
                self._stop_late(unit, "since it was started before the switch")
        self.failed = ""

    def _stop(self, unit: Unit) -> UnitState:
        """Stop a unit, and return how it is then: a socket or a timer may have started it again, as another start.

        It is kept as stopped before systemd is told, which goes on when this run no longer waits.
        """
        before = self.look(unit)
        self._write()
        self.stopped.append(unit.name)
        try:
            self.manager.stop(unit.name, unit.stop_timeout or before.stop_seconds)
        except OpsError as cause:
            raise self._await_end(unit, before, cause) from cause
        left = self.look(unit)
        if left.running and left.identity == before.identity:
            raise _fail_again(left)
        if left.result == "timeout":
            self.notes.append(
                f"{unit.name}: it did not end within its own TimeoutStopSec, and systemd killed its processes"
            )
        return left

    def _await_end(self, unit: Unit, before: UnitState, cause: OpsError) -> OpsError:
        """Wait until systemd has ended what it does to a unit. Return what the run fails with."""
        deadline, backoff = self._deadline(before.stop_seconds), Backoff(limit=1.0)
        while not (left := self.look(unit)).settled and not deadline.passed:
            deadline.pause(backoff.take_pause())
        self.outcome.waited += deadline.elapsed
        if left.serving and left.identity == before.identity and left.settled:
            self.stopped.remove(unit.name)
            return cause
        return OpsError(
            obj=cause.obj, problem=f"{cause.problem}; now it is {left.describe()}", next_step=cause.next_step
        )

    def _drain(self, unit: Unit, drain: Drain) -> None:
        """Wait until nothing is in flight. What does not drain is refused, or stopped where that was asked for."""
        if drain.begin_url:
            self._begin(unit, drain)
        why = self._await_idle(unit, drain)
        if not why:
            return
        if self.limits.on_busy == "stop":
            self.notes.append(f"{unit.name}: stopped with {why} after {format_duration(drain.limit)}, as on_busy says")
            return
        if self._drained.pop(unit.name, "") and drain.cancel_url:
            self._tell(unit, drain.cancel_url, drain, "take requests again")
        raise Refusal(
            obj=f"unit {unit.name}",
            problem=f"{why} after {format_duration(drain.limit)}, so it was not stopped and "
            f"{self._tell_left(unit, drain)}",
            next_step="Find out what keeps them, raise the limit of its drain, or set on_busy: stop",
        )

    def _await_idle(self, unit: Unit, drain: Drain, *, may_end: bool = False) -> str:
        """Wait until nothing is in flight. Return why that is not so at the limit; empty where it is.

        With ``may_end``, a unit that has ended meanwhile has nothing in flight either.
        """
        deadline, backoff = self._deadline(drain.limit), Backoff(limit=1.0)
        try:
            while True:
                try:
                    left = probes.count_in_flight(drain)
                    why = f"{format_count(left, 'request')} in flight"
                except probes.Unanswered as error:
                    left, why = -1, f"how many requests are in flight is not known ({error})"
                if left == 0:
                    self.notes.append(f"{unit.name}: 0 requests in flight before the stop")
                    return ""
                if may_end and not self.look(unit).answering:
                    return ""
                if deadline.passed:
                    return why
                deadline.pause(backoff.take_pause())
        finally:
            self.outcome.waited += deadline.elapsed

    def _begin(self, unit: Unit, drain: Drain) -> None:
        """Tell a unit to take no new requests. That it may have heard it is kept first."""
        self._drained[unit.name] = self.look(unit).identity
        self._tell(unit, drain.begin_url, drain, "take no new requests")

    def cancel_drains(self) -> None:
        """Let units take requests again that were told to take none and that serve on, though the run has failed."""
        for unit in flatten(self.tiers):
            identity = self._drained.pop(unit.name, "")
            if identity and unit.drain is not None:
                try:
                    left = self.look(unit)
                    if left.serving and left.identity == identity:
                        self._cancel(unit, unit.drain)
                except OpsError as error:
                    self.notes.append(f"{unit.name}: {error.problem}. {error.next_step}")

    def _cancel(self, unit: Unit, drain: Drain) -> None:
        if not drain.cancel_url:
            self.notes.append(
                f"{unit.name}: it may take no new requests: begin_url was told it, there is no cancel_url"
            )
            return
        self._tell(unit, drain.cancel_url, drain, "take requests again")
        self.notes.append(f"{unit.name}: told to take requests again")

    def _resume(self, decision: Decision) -> None:
        """Let units take requests again that are not due, run and are not ready: a killed run may have drained them."""
        for unit in flatten(self.tiers):
            drain, ready = unit.drain, unit.ready
            if unit.name in decision.stop or drain is None or not drain.cancel_url or ready is None:
                continue
            if self.look(unit).serving and probes.find_unready(ready):
                try:
                    self._cancel(unit, drain)
                except OpsError as error:
                    self.notes.append(f"{unit.name}: {error.problem}")

    def _refuse_unready(self, decision: Decision) -> None:
        """Refuse to stop anything past whose tier nothing would be started again, since a unit there is not ready."""
        last = max((unit.tier for unit in flatten(self.tiers) if unit.name in decision.stop), default=0)
        for unit in flatten(self.tiers):
            is_due = unit.name in decision.stop or unit.name in decision.start or unit.release in decision.unproven
            if unit.tier < last and not is_due and unit.ready is not None:
                self.failed = unit.name
                try:
                    self._wait_ready(unit, "it is not ready")
                except OpsError as cause:
                    raise Refusal(
                        obj=cause.obj,
                        problem=f"{cause.problem}; nothing was stopped, since nothing would be started again past "
                        f"tier {unit.tier}",
                        next_step=cause.next_step,
                    ) from cause
        self.failed = ""

    def _drain_late(self, unit: Unit, drain: Drain, reason: str) -> None:
        """Drain a unit that has to be stopped whatever it says, since its release has to go."""
        try:
            if drain.begin_url:
                self._begin(unit, drain)
        except OpsError as error:
            self.notes.append(f"{unit.name}: {error.problem}")
        why = self._await_idle(unit, drain, may_end=True)
        if why:
            self.notes.append(f"{unit.name}: stopped with {why} after {format_duration(drain.limit)}, {reason}")

    def _tell_left(self, unit: Unit, drain: Drain) -> str:
        """Return in what state a unit is left that did not drain."""
        shown = self.look(unit)
        if not shown.serving:
            return f"is {shown.describe()}"
        if drain.begin_url and not drain.cancel_url:
            return "still runs, but may take no new requests: begin_url was told it, and there is no cancel_url"
        return "still serves"

    def _tell(self, unit: Unit, url: str, drain: Drain, what: str) -> None:
        self._write()
        try:
            probes.tell(url, drain.ca_path)
        except OSError as error:
            raise OpsError(
                obj=f"unit {unit.name}",
                problem=f"it could not be told to {what}: {error}",
                next_step=f"Correct {probes.redact_url(url)}, or leave it out",
            ) from error

    # -- start ------------------------------------------------------------------------------------------------------

    def switch(self, decision: Decision, links: t.Mapping[str, LinkState]) -> None:
        """Point links at their declared releases, each with what was known to be good beside it."""
        for release in decision.switch:
            self._write()
            link = links[release.link]
            releases.switch(release, link.previous or link.target)
            self.switched.append(release.link)

    def start(self) -> None:
        """Start what does not run, the first tier first; a tier is begun when the one before it is ready."""
        for tier in self.tiers:
            for unit in tier:
                self.failed = unit.name
                self._ensure_started(unit)
            for unit in tier:
                self.failed = unit.name
                self._wait_ready(unit, f"tier {unit.tier} is not ready, and no later tier was started")
        self.failed = ""

    def _ensure_started(self, unit: Unit) -> None:
        """Start a unit that does not run. One that was stopped and that something else has started since counts too."""
        shown = self.look(unit)
        self._restarts[unit.name] = shown.restarts
        if not shown.serving:
            self._start(unit, shown)
        elif unit.name in self.stopped:
            self.started.append(unit.name)

    def _start(self, unit: Unit, shown: UnitState) -> None:
        self._write()
        try:
            self.manager.forget_counts(unit.name)
        except OpsError as error:
            self.notes.append(f"{unit.name}: its counts of starts stay: {error.problem}")
        self.started.append(unit.name)
        seconds = unit.start_timeout or shown.start_seconds
        try:
            self.manager.start(unit.name, seconds)
        except WaitTimeout as cause:
            left = self.look(unit)
            if not left.has_job and left.active != "activating":
                return
            raise WaitTimeout(
                obj=cause.obj,
                problem=f"it is still {left.describe()} after {format_duration(seconds)}, and systemd goes on "
                "starting it; no later tier was started",
                next_step=f"See what it waits for: `systemctl list-jobs`; run this again to go on waiting for it, with "
                f"a longer start_timeout if it needs one, or end it: `systemctl stop {unit.name}`",
            ) from cause

    def _wait_ready(self, unit: Unit, words: str) -> None:
        """Wait until a unit is ready. What fails begins with these words."""
        ready = unit.ready
        seconds = ready.timeout if ready else unit.start_timeout or self.look(unit).start_seconds
        deadline, backoff = self._deadline(seconds), Backoff(limit=0.5)
        while True:
            shown = self.look(unit)
            why = "" if shown.serving else f"it is {shown.describe()}"
            why = why or (probes.find_unready(ready) if ready else "")
            if not why:
                self.outcome.waited += deadline.elapsed
                self.proofs[unit.name] = _describe_proof(ready)
                return
            hopeless = self._find_hopeless(shown)
            if hopeless or deadline.passed:
                self.outcome.waited += deadline.elapsed
                self.proofs.pop(unit.name, None)
                problem = f"{words}: {hopeless or why}"
                kind = WaitFailed if hopeless else WaitTimeout
                raise kind(
                    obj=f"unit {unit.name}",
                    problem=problem if hopeless else f"{problem} (after {format_duration(deadline.seconds)})",
                    next_step="See its last lines in the evidence, mend the cause, and run this again",
                )
            deadline.pause(backoff.take_pause())

    def _find_hopeless(self, shown: UnitState) -> str:
        """Return why waiting does not help: the unit has ended, or systemd restarts it again and again."""
        if shown.active in {"failed", "inactive"}:
            return f"it is {shown.describe()}"
        before = self._restarts[shown.name] = min(shown.restarts, self._restarts.get(shown.name, shown.restarts))
        if shown.restarts - before >= CRASHES:
            return f"it crashes: systemd has restarted it {shown.restarts - before} times while it was waited for"
        return ""

    def watch(self, decision: Decision) -> None:
        """Look at all units for a while after a change: one failed check, or one restart, is a failure."""
        seconds = self.limits.canary_seconds
        if not seconds or not (self.started or decision.unproven):
            return
        units = flatten(self.tiers)
        names = [unit.name for unit in units]
        before = self.manager.show(names)
        deadline = self._deadline(seconds)
        checks = 0
        while True:
            shown = self.manager.show(names)
            for unit in units:
                why = _find_change(before[unit.name], shown[unit.name])
                why = why or (probes.find_unready(unit.ready) if unit.ready else "")
                if why:
                    self.failed = unit.name
                    self.proofs.pop(unit.name, None)
                    raise WaitFailed(
                        obj=f"unit {unit.name}",
                        problem=f"it was ready and did not stay so: {why} "
                        f"({format_duration(deadline.elapsed)} of {format_duration(seconds)})",
                        next_step="See its last lines in the evidence, mend the cause, and run this again",
                    )
            checks += 1
            if deadline.passed:
                break
            deadline.pause(1.0)
        self.outcome.waited += deadline.elapsed
        self.notes.append(f"{format_count(checks, 'check')} in {format_duration(seconds)}, none failed")

    # -- evidence ----------------------------------------------------------------------------------------------------

    def collect_kills(self, states: t.Mapping[str, UnitState], decision: Decision) -> None:
        """Keep what is known of units that were killed out of memory and are due, before their start loses it."""
        kills: list[dict[str, t.Any]] = []
        for unit in flatten(self.tiers):
            shown = states[unit.name]
            due = unit.name in decision.stop or unit.name in decision.start
            kill = memory.find_kill(self.manager, shown) if due else None
            if kill is not None:
                lines = self._read_journal(unit.name)
                kills.append(memory.describe_kill(kill, shown, lines))
                self.notes.append(f"{unit.name}: before this run: {kill.words}")
                self.notes += [f"{unit.name}: before this run: {line}" for line in lines]
        self.outcome.facts["out_of_memory"] = kills

    def _read_journal(self, name: str) -> list[str]:
        """Return the last lines of a unit's journal without secrets.

        What a line is may show only from others, which may be before those that are kept.
        """
        journal = "\n".join(self.manager.read_journal(name, self.limits.log_lines + LINES_BEFORE))
        return self._redactor.redact(journal).splitlines()[-self.limits.log_lines or sys.maxsize :]

    def collect_evidence(self) -> None:
        """Keep state and last journal lines of the unit that failed, before anything else is done to it.

        What cannot be read is no reason to leave a host as it is.
        """
        if not self.failed:
            return
        try:
            shown = self.manager.show([self.failed])[self.failed]
        except OpsError as error:
            self.notes.append(f"{self.failed}: its state could not be read: {error}")
            return
        lines = self._read_journal(self.failed)
        self.outcome.facts["failed_unit"] = {
            "unit": self.failed,
            "state": shown.describe(),
            "restarts": shown.restarts,
            "exit_code": shown.exit_code,
            "exit_status": shown.exit_status,
            "journal": lines,
        }
        exit_words = f", last exit status {shown.exit_status}" if shown.exit_status not in {"", "0"} else ""
        self.notes.append(
            f"{self.failed}: {shown.describe()}, {format_count(shown.restarts, 'restart')} by systemd{exit_words}"
        )
        self.notes += [f"{self.failed}: {line}" for line in lines]

    def put_back(self, unproven: t.Mapping[str, tuple[Release, str]], decision: Decision, cause: OpsError) -> OpsError:
        """Put back the releases that were known to be good, and prove it. Return what the run fails with.

        ``unproven`` has for each link the declared release and the one to go back to.
        """
        units = [unit for unit in flatten(self.tiers) if unit.release and unit.release.link in unproven]
        words = ", ".join(f"{link} -> {previous}" for link, (_release, previous) in unproven.items())
        failed = self.failed
        try:
            self._put_back(unproven, units, decision)
        except OpsError as second:
            commands = [f"ln -sfn {previous} {link}" for link, (_release, previous) in unproven.items()]
            # A unit that systemd has given up is not started again before its counts are reset (StartLimitBurst).
            commands += [f"systemctl reset-failed {unit.name}; systemctl restart {unit.name}" for unit in units]
            return OpsError(
                obj=cause.obj,
                problem=f"{cause.problem}; putting back what was there failed as well: {second}",
                next_step=f"Nothing more was changed. By hand on this host: {'; '.join(commands)}",
            )
        finally:
            self.failed = failed
        self.outcome.facts["rolled_back"] = True
        self.notes.append(f"put back and serving: {words}")
        problem = f"{cause.problem}; put back and serving again: {words}"
        try:
            for release, _previous in unproven.values():
                releases.forget_previous(release)
        except OpsError as left:
            problem = f"{problem}; {left}"
        return OpsError(obj=cause.obj, problem=problem, next_step="Mend the release before it is declared again")

    def _put_back(
        self, unproven: t.Mapping[str, tuple[Release, str]], units: t.Sequence[Unit], decision: Decision
    ) -> None:
        for link, (release, previous) in unproven.items():
            if not os.path.isdir(os.path.join(os.path.dirname(link), previous)):
                raise OpsError(
                    obj=f"release {previous}", problem="there is no such folder any more", next_step="Bring it back"
                )
            self._write()
            releases.put_back(release, previous)
        due = {unit.name for unit in units}
        due.update(*(find_dependents(unit.name, self.related) for unit in units))
        for unit in order_stops(self.tiers, self.related, due):
            if self.look(unit).running:
                self._stop_late(unit, "to put its release back")
        self._start_again(due | {*self.stopped, *decision.start})

    def _start_again(self, names: t.Container[str]) -> None:
        """Start units in their order and prove them, past what does not start or is not ready."""
        failures: list[OpsError] = []
        for tier in self.tiers:
            waiting: list[Unit] = []
            for unit in (unit for unit in tier if unit.name in names):
                try:
                    self._ensure_started(unit)
                    waiting.append(unit)
                except OpsError as error:
                    failures.append(error)
            for unit in waiting:
                try:
                    self._wait_ready(unit, "it is not ready")
                except OpsError as error:
                    failures.append(error)
        if failures:
            self.notes += [str(error) for error in failures[1:]]
            raise failures[0]

    def _stop_late(self, unit: Unit, reason: str) -> None:
        """Stop a unit that has to start again whatever happens: that it took too long is no reason to leave it down."""
        if unit.drain is not None and self.look(unit).answering:
            self._drain_late(unit, unit.drain, reason)
        before = self.look(unit)
        try:
            self._stop(unit)
        except OpsError as error:
            left = self.look(unit)
            if left.running and left.identity == before.identity:
                raise
            self.notes.append(f"{unit.name}: {error.problem}")

    def bring_back(self, cause: OpsError) -> OpsError:
        """Start again what a restart had stopped before it could not go on. Return what the run fails with."""
        failed, stopped = self.failed, ", ".join(self.stopped)
        try:
            self._start_again(self.stopped)
        except OpsError as second:
            problem = f"{cause.problem}; {stopped} had been stopped before, and starting it again failed: {second}"
            return OpsError(obj=cause.obj, problem=problem, next_step=cause.next_step)
        finally:
            self.failed = failed
        problem = f"{cause.problem}; {stopped} had been stopped before and serves again"
        return OpsError(obj=cause.obj, problem=problem, next_step=cause.next_step)


def _fail_again(left: UnitState) -> OpsError:
    return OpsError(
        obj=f"unit {left.name}",
        problem=f"it was stopped and is {left.describe()} again",
        next_step=f"See who starts it: `systemctl show --property=TriggeredBy,UpheldBy {left.name}`",
    )


def _describe_proof(ready: Ready | None) -> str:
    if ready is None:
        return ""
    return (
        f"{probes.redact_url(ready.url)} answers {ready.status}"
        if ready.url
        else f"port {ready.port} accepts connections"
    )


def _find_change(before: UnitState, now: UnitState) -> str:
    if not now.serving:
        return f"it is {now.describe()}"
    if now.identity != before.identity or now.restarts != before.restarts:
        return "it was started anew"
    return ""
