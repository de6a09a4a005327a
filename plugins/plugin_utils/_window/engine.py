# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens around each step on each host: decide and record before it, record how it ended.

Private to lowtide.ops: do not import from other collections. Each method loads the state, decides, and appends an
event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .declaration import STANDBY, Play, Step
from .events import (
    JOURNAL,
    PlanStarted,
    StepFailed,
    StepPlanned,
    StepReached,
    StepReverted,
    StepSkipped,
    StepStarted,
    StepSucceeded,
)
from .results import Failure, Result, RoleResult, describe_error
from .rules import Decision, HostContext
from .session import OpenWindow, Session, StillSilentError, UnrecordedError, UnrecordedPlay
from .store import SHORT_PATIENCE


@dataclass(frozen=True)
class StepCall:
    """One step on one host, as a task of a play asks for it.

    ``reverting``: the step runs out of turn, at the opening or the closing. ``play`` is its number among the window's
    plays, None when it is named by ``step`` and ``batch``; ``play_hosts`` are the hosts of the Ansible play,
    ``serial`` its keyword, ``strategy`` its strategy; ``digest`` computes that of a step's inputs on this host.
    """

    host: str
    step: str = ""
    batch: int = 0
    play: int | None = None
    planning: bool = False
    reverting: bool = False
    play_hosts: tuple[str, ...] = ()
    serial: bool = False
    strategy: str = "linear"
    digest: Callable[[Step], str] = lambda _step: ""


class _DigestNeededError(Exception):
    """The digest of a step's inputs is needed, which is computed outside the site's lock."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.name)
        self.step = step


def _require_digest(digest: str | None, step: Step) -> str:
    if digest is None:
        raise _DigestNeededError(step)
    return digest


class Engine:
    """The steps of the window that is open in this controller run."""

    def __init__(self, window: OpenWindow | None, *, clock: Callable[[], float] | None = None) -> None:
        self._window = window
        self._clock = clock

    @property
    def window(self) -> OpenWindow:
        """The open window. Raise Refusal when none was opened in this run."""
        if self._window is None:
            raise Refusal(
                obj="window",
                problem="it was not opened in this run "
                "(--limit, --tags, --skip-tags or --start-at-task left the opening out, "
                "or this is a slice of an AWX job without the host of the group control?)",
                next_step="Run the whole playbook, and choose steps with -e window_only=STEP,... or "
                "-e window_skip=STEP,...; in AWX set Job Slicing of the template to 1, leave its limit and tags empty, "
                "and relaunch on all hosts",
            )
        return self._window

    def list_in_force(self) -> Result:
        """Return the batches of reverting steps that are to run out of turn, and their hosts."""
        with self.window.open_session() as session:
            plays = session.rules.list_reverts()
            warnings = session.warnings
        items = [{"step": play.step, "batch": play.batch} for play in plays]
        hosts = list(dict.fromkeys(host for play in plays for host in play.hosts))
        words = ", ".join(play.title for play in plays) or "nothing"
        msg = f"to be reverted out of turn: {words}"
        return {"changed": False, "items": items, "hosts": hosts, "msg": msg, "warnings": warnings}

    # -- before a step --------------------------------------------------------------------------------------------

    def begin_step(self, call: StepCall, *, preload: Callable[[Step], None]) -> Result:
        """Decide whether the host performs (or plans) the step now, and record that.

        The role is loaded, and its inputs are digested, before it is started and outside the site's lock: both may run
        code of others, such as a lookup that waits.
        """
        digest: str | None = None
        patience: float | None = None
        warnings: list[str] = []
        while True:
            try:
                return self._try_to_begin(call, digest, patience=patience, warnings=warnings)
            except _DigestNeededError as needed:
                preload(needed.step)
                digest = "" if call.planning else call.digest(needed.step)
            except StillSilentError:
                patience = SHORT_PATIENCE

    def _try_to_begin(
        self, call: StepCall, digest: str | None, *, patience: float | None, warnings: list[str]
    ) -> Result:
        """``warnings`` are those of the tries before, and of this one."""
        with self.window.open_session(patience=patience) as session:
            warnings += session.warnings
            session.warnings = warnings
            rules = session.rules
            if call.planning:
                step = rules.declaration[call.step]
                decision = rules.decide_plan(step.name, self._make_context(call, step, digest))
                if decision.perform:
                    _require_digest(digest, step)
                    session.append(PlanStarted(step=step.name, host=call.host))
            else:
                number = rules.declaration.find_play(call.step, call.batch) if call.play is None else call.play
                if not 0 <= number < len(rules.declaration.plays):
                    raise Refusal(
                        obj=f"place {number}",
                        problem=f"the window has {len(rules.declaration.plays)} plays",
                        next_step="Use the playbook maintenance_window, or name steps with window_step",
                    )
                step = rules.declaration[rules.declaration.plays[number].step]
                decision = self._begin(session, call, number, digest)
            return self._build_answer(session, call, step, decision)

    def _make_context(self, call: StepCall, step: Step, digest: str | None) -> HostContext:
        return HostContext(call.host, lambda: _require_digest(digest, step), self.window.version)

    def _begin(self, session: Session, call: StepCall, number: int, digest: str | None) -> Decision:
        rules = session.rules
        play = rules.declaration.plays[number]
        step = rules.declaration[play.step]
        context = self._make_context(call, step, digest)
        for failure in rules.find_abandoned(number):
            session.append(failure)
        if call.reverting:
            decision = rules.decide_revert(number, context)
        else:
            if (play.step, play.batch) not in session.state.reached:
                session.append(StepReached(step=play.step, batch=play.batch))
            if not step.reverts and not rules.restores:  # whatever is wrong with a play: the way back is never refused
                self._require_play(call, play)
            decision = rules.decide(number, context, now=session.read_clock() if self._clock is None else self._clock())
        if decision.perform:
            reverting = rules.declaration.find_reverting(step.name)
            started = StepStarted(
                step=step.name,
                host=call.host,
                batch=play.batch,
                why=decision.why,
                digest=_require_digest(digest, step),
                reverted_by=reverting.name if reverting else None,
            )
            if step.reverts or rules.restores:
                session.append(started)
            else:
                self._record_start(session, number, started)
        elif decision.record:
            session.append(StepSkipped(step=step.name, host=call.host, why=decision.why, not_due=decision.not_due))
        return decision

    def _record_start(self, session: Session, number: int, started: StepStarted) -> None:
        """Record the start of a step that is only performed when that is on record."""
        play = UnrecordedPlay(self.window.folder)
        try:
            session.append(started, durable=True)
        except StillSilentError:
            play.refuse(number)
            raise
        except UnrecordedError as error:
            play.tell(number, error)
            raise

    def _require_play(self, call: StepCall, play: Play) -> None:
        """Refuse a play that does not run the step as it is declared."""
        name = play.step
        if call.serial:
            raise Refusal(
                obj=f"play of step {name}",
                problem="it has serial, and Ansible ends a run whose batch is lost as a whole",
                next_step=f"Leave serial out and declare batches for {name} in window_steps",
            )
        if not call.strategy.endswith("linear"):
            raise Refusal(
                obj=f"play of step {name}",
                problem=f"it runs with strategy {call.strategy}, under which steps overlap",
                next_step="Set strategy linear: in the play, in ansible.cfg or in ANSIBLE_STRATEGY, wherever it is set",
            )
        expected = {*play.hosts, self.window.control}
        different = sorted((expected ^ set(call.play_hosts)) - ({STANDBY} - expected))
        if different:
            raise Refusal(
                obj=f"play of step {name}",
                problem="its hosts differ from those that window_steps declares, with the control host, "
                f"by {', '.join(different)}",
                next_step="Import the playbook lowtide.ops.step, which takes the hosts from the declaration",
            )

    def _build_answer(self, session: Session, call: StepCall, step: Step, decision: Decision) -> Result:
        window, state = self.window, session.state
        reversible = state.ended.get((step.reverts or "", call.host))
        return {
            "changed": False,
            "perform": decision.perform,
            "warnings": session.warnings,
            "msg": decision.why,
            # Not while it plans: what is in force may not be known yet.
            "over": session.rules.is_over and not call.planning and not call.reverting,
            "step": step.name,
            "role": step.role,
            "tasks": step.tasks,
            "tasks_from": step.tasks_from,
            "result_variable": step.result_variable,
            "environment": window.environment,
            "variables": {
                "window_id": window.window_id,
                "window_opened_at": format_utc(state.first_opened),
                "window_assumed": sorted(state.started_steps) if window.check_mode else [],
                "window_revert_assumed": window.check_mode
                and isinstance(reversible, StepSucceeded)
                and reversible.changed,
                "window_restoring": session.rules.restores,
                "window_pending": sorted({name for name, _host in state.pending}),
            },
        }

    # -- after a step ---------------------------------------------------------------------------------------------

    def finish_step(self, call: StepCall, result: Any) -> Result:
        """Record that the step, or its planning, ended well."""
        if isinstance(result, dict) and (result.get("failed") or result.get("unreachable")):
            return self.fail_step(call, error=result, task={"name": "its result says that it failed"})
        with self.window.open_session() as session:
            step = self._find_step(session, call)
            role = RoleResult.from_value(result, otherwise_changed=not step.reads_only)
            if call.planning:
                return self._finish_plan(session, call, step, role)
            started = session.state.started.get((step.name, call.host))
            session.append(
                StepSucceeded(
                    step=step.name,
                    host=call.host,
                    changed=role.changed,
                    summary=role.summary,
                    plan=role.plan,
                    blockers=role.blockers,
                    evidence=role.evidence,
                    # That of what it was started with: the role itself may have set facts of its name since.
                    digest=started.digest if started else "",
                    version=self.window.version,
                    reverts=step.reverts,
                    reverts_all=session.rules.declaration.is_reverting_all(step),
                )
            )
            inherited = self._revert_inherited(session, step, call.host)
            # Once one could not be told the window has failed, and what is to be reverted still needs the time.
            is_lost = any(failure.step == JOURNAL for failure in session.state.failures)
        warnings = session.warnings
        if inherited and not self.window.check_mode:
            warnings += self._tell_older(inherited, patience=None if is_lost else SHORT_PATIENCE)
        return {"changed": False, "msg": role.summary, "warnings": warnings}

    def _find_step(self, session: Session, call: StepCall) -> Step:
        declaration = session.rules.declaration
        return declaration[call.step if call.play is None else declaration.plays[call.play].step]

    def _finish_plan(self, session: Session, call: StepCall, step: Step, role: RoleResult) -> Result:
        if not role.given and not step.reverts:
            error = (
                f"{step.performer}: it left no result, so whether the step is due is unknown. "
                f"Set the fact {step.result_variable} (changed, summary) in it, or leave plan out of step {step.name}."
            )
            session.append(StepFailed(step=step.name, host=call.host, error=error, planning=True))
            return {"changed": False, "msg": error, "warnings": session.warnings}
        due = role.given and role.changed
        session.append(
            StepPlanned(
                step=step.name,
                host=call.host,
                due=due,
                summary=role.summary,
                plan=role.plan,
                blockers=role.blockers,
                reverts=step.reverts,
            )
        )
        return {
            "changed": False,
            "msg": f"{'due' if due else 'not due'}: {role.summary}",
            "warnings": session.warnings,
        }

    def _revert_inherited(self, session: Session, step: Step, host: str) -> list[tuple[str, StepReverted]]:
        """Record what older occurrences had left and was reverted here; return it with the occurrence."""
        inherited = []
        for left in session.rules.opened.inherited:
            if left["reverted_by"] != step.name or (left["host"] != host and left["host"] in step.hosts):
                continue
            reverted = StepReverted(
                step=left["step"], host=left["host"], by=self.window.window_id, token=self.window.token
            )
            session.append(reverted)
            inherited.append((left["window_id"], reverted))
        return inherited

    def _tell_older(self, inherited: list[tuple[str, StepReverted]], *, patience: float | None) -> list[str]:
        """Tell the journals of older occurrences that what they left was reverted here, and nothing else. Nothing keeps
        it for later, so that a store that was silent a moment ago is asked again. Return warnings."""
        with self.window.open_session(patience=patience) as session:
            for window_id, reverted in inherited:
                try:
                    session.append_elsewhere(session.store.make_name(window_id), reverted)
                except (OSError, Refusal) as error:  # the service is back; a next run settles that journal
                    problem = f"{reverted.step} is reverted, and the journal of {window_id} cannot be told ({error})"
                    session.append(StepFailed(step=JOURNAL, host=reverted.host, error=problem))
        return session.warnings

    def fail_step(self, call: StepCall, *, error: Any, task: Any) -> Result:
        """Record that the step, or its planning, failed; the play goes on."""
        failure = describe_error(error, task)
        with self.window.open_session() as session:
            step = call.step
            if call.play is not None:
                step = session.rules.declaration.plays[call.play].step
            session.append(self._make_failed(call, step, failure))
        return {
            "changed": False,
            "failure": failure.error,
            "warnings": session.warnings,
            "msg": f"{step} failed on {call.host}; later steps are skipped, reverting steps run",
        }

    @staticmethod
    def _make_failed(call: StepCall, step: str, failure: Failure) -> StepFailed:
        return StepFailed(
            step=step,
            host=call.host,
            error=failure.error,
            planning=call.planning,
            plan=failure.plan,
            blockers=failure.blockers,
        )
