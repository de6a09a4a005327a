# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a window: what the action does, without Ansible. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._common.errors import OpsError, Refusal
from . import report
from .journal import Journal
from .lease import FileLease, Held
from .model import DIED, Here, Window, choose_start, summarise, window_id
from .processes import Orphan, Owner, boot_id, orphans, pid_namespace, utc, wait_for_end
from .results import Result, collection_version, describe_error, dicts, public, stats, write_report
from .run import Run, Session, mark, stem
from .steps import Steps

VERDICT = "lowtide_window_verdict.json"
FAILED = frozenset({"refused", "failed_closed", "failed_open"})


@dataclass(frozen=True)
class Controller:
    """The ansible-playbook process: its ``pid``, temporary ``folder`` and result queue (``pipe:[inode]``), whether it rehearses
    (``--check``), the group ``control``, the ``host`` of this task, its play's ``strategy``, and the options that leave parts of a playbook out."""

    pid: int
    folder: str
    pipe: str | None
    rehearsal: bool
    control: list[str]
    host: str
    strategy: str
    limits: dict[str, Any]


@dataclass(frozen=True)
class StepCall:
    """One step on one host; ``members`` are the inventory's groups with their hosts, ``digest`` computes that of the role's inputs,
    ``result`` is the role's public result."""

    step: str
    role: str
    tasks_from: str
    planning: bool
    host: str
    members: dict[str, frozenset[str]]
    play_hosts: list[str]
    batch: list[str]
    digest: Callable[[], str]
    result: Any

    def groups_of(self, host: str) -> list[str]:
        """Groups that ``host`` is in."""
        return [name for name, hosts in self.members.items() if host in hosts]


class Phases:
    """One method a phase; each answers with the result of its task."""

    def __init__(self, controller: Controller, *, clock: Callable[[], float] = time.time) -> None:
        self._controller = controller
        self._clock = clock
        self._run = Run.load(controller.folder)

    # -- open -----------------------------------------------------------------------------------------------------

    def open(self, given: dict[str, Any], *, preload: Callable[[str], None]) -> Result:
        """Open or resume the occurrence; a refusal is told by :meth:`verdict`, so that it also reaches ``set_stats``."""
        try:
            return self._open(given, preload=preload)
        except OpsError as error:
            name = given.get("name") or "window"
            line = f"lowtide window {name}: refused (refused before any change): {error}"
            self._leave_verdict(
                {"state": "refused", "window": name, "window_id": None, "cause": str(error), "report": None}, line
            )
            return {
                "changed": False,
                "refused": True,
                "error": error.as_dict(),
                "msg": line,
                **stats({"state": "refused", "cause": str(error)}),
            }

    def _open(self, given: dict[str, Any], *, preload: Callable[[str], None]) -> Result:
        controller = self._controller
        self._refuse_partial_runs()
        if controller.control != [controller.host]:
            raise Refusal(
                obj="group control",
                problem=f"it holds {controller.control or 'no host'}, and the window is opened on {controller.host}",
                next_step="Give the group control exactly one host (ansible_connection: local), and open and close the window on it",
            )
        if not given.get("name"):
            raise Refusal(obj="window_name", problem="it is empty", next_step="Name the window")
        steps = Steps(given["steps"])
        selected = steps.select(only=given["only"], skip=given["skip"])
        for step in steps:
            if step.role and step.name in selected:
                preload(step.role)
        place = stem(given["dir"], given["site"], given["name"])
        if controller.rehearsal:
            return self._open_rehearsal(given, steps, selected, place)
        try:
            return self._open_really(given, steps, selected, place)
        except OSError as error:
            raise Refusal(
                obj=f"window_dir {given['dir']}",
                problem=f"it cannot be written ({error})",
                next_step="Make room there, or set window_dir to a folder of yours",
            ) from error

    def _refuse_partial_runs(self) -> None:
        for option, value in self._controller.limits.items():
            if value:
                shown = value if isinstance(value, str) else ",".join(value)
                raise Refusal(
                    obj=f"{option} {shown}",
                    problem="it would silently leave out the opening or the closing of the window",
                    next_step="Choose steps by name with -e window_only=STEP,... or -e window_skip=STEP,...",
                )

    def _new_run(
        self, given: dict[str, Any], steps: Steps, selected: frozenset[str], *, place: str, start: str, token: int
    ) -> Run:
        return Run(
            name=given["name"],
            id=window_id(given["name"], start),
            token=token,
            steps=[step.as_dict() for step in steps],
            selected=sorted(selected),
            control=self._controller.host,
            ends=self._clock() + given["duration"],
            rehearsal=self._controller.rehearsal,
            stem=place,
            version=collection_version(),
            folder=self._controller.folder,
        )

    def _start(self, journal: Journal, given: dict[str, Any]) -> str:
        now = self._clock()
        return choose_start(
            journal.read().records, name=given["name"], start=given["start"], today=utc(now)[:10], now=now
        )

    def _open_rehearsal(self, given: dict[str, Any], steps: Steps, selected: frozenset[str], place: str) -> Result:
        real = Journal(Path(f"{place}.journal"))
        held = FileLease(Path(f"{place}.lease")).read()
        folder = Path(self._controller.folder, "lowtide_rehearsal")
        folder.mkdir()
        if real.path.exists():
            shutil.copyfile(real.path, folder / "window.journal")
        run = self._new_run(
            given,
            steps,
            selected,
            place=str(folder / "window"),
            start=self._start(real, given),
            token=held.token + 1 if held else 1,
        )
        result = self._begin_run(run)
        if held is not None and not held.released and held.owner.life() != "dead":
            result["warnings"] = [
                f"{held.owner.describe()}, is running this window now: what it changes is not in this rehearsal"
            ]
        return result

    def _open_really(self, given: dict[str, Any], steps: Steps, selected: frozenset[str], place: str) -> Result:
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        journal = Journal(Path(f"{place}.journal"))
        lease = FileLease(Path(f"{place}.lease"))
        owner = Owner.of(self._controller.pid)
        deadline = self._clock() + given["orphan_timeout"]
        while True:
            with lease.locked():
                start = self._start(journal, given)
                orphan = self._orphan(lease, owner, place)
                if orphan is None:
                    held = lease.acquire(owner, window_id(given["name"], start), pipe=self._controller.pipe)
                    run = self._new_run(given, steps, selected, place=place, start=start, token=held.token)
                    break
            self._await(orphan, deadline - self._clock(), given["orphan_timeout"])
        result = self._begin_run(run)
        lease.start_renewer(held, seconds=given["duration"])
        return result

    def _orphan(self, lease: FileLease, owner: Owner, place: str) -> Orphan | None:
        """A process that the last owner, dead by now, left behind on this host."""
        held: Held | None = lease.read()
        if held is None or held.released or held.owner.same_process(owner) or lease.blocked_by(held):
            return None
        if (held.owner.boot, held.owner.namespace) != (boot_id(), pid_namespace()):
            return None
        left = orphans(mark=mark(place, held.token), pipe=held.pipe, ignore=frozenset({os.getpid(), owner.pid}))
        return left[0] if left else None

    @staticmethod
    def _await(orphan: Orphan, seconds: float, timeout: float) -> None:
        if seconds <= 0 or not wait_for_end(orphan.pid, seconds):
            raise Refusal(
                obj="a step of the run before",
                problem=f"{orphan.describe()} still runs after {timeout:.0f} s, though its controller is dead",
                next_step="Let it end and run the window again, or raise window_orphan_timeout",
            )

    def _begin_run(self, run: Run) -> Result:
        with run.writing() as session:
            run = replace(run, since=session.since())
            session.write(
                "open",
                durable=True,
                name=run.name,
                steps=run.steps,
                selected=run.selected,
                version=run.version,
                pid=self._controller.pid,
            )
            window = session.window()
        run.save()
        resumed = window.now.resumed
        owed = sorted(f"{step} on {host}" for step, host in window.now.owed)
        words = f"{'Rehearsal of window' if run.rehearsal else 'Window'} {run.id} is {'resumed' if resumed else 'open'}"
        if owed:
            words += f"; still open from a run before: {', '.join(owed)}"
        return {
            "changed": False,
            "refused": False,
            "msg": words,
            "window_id": run.id,
            "run": run.token,
            "resumed": resumed,
            "opened_at": utc(window.now.first_opened),
            "still_open": owed,
        }

    # -- steps ----------------------------------------------------------------------------------------------------

    def _here(self, run: Run, call: StepCall) -> Here:
        return Here(call.host, call.groups_of(call.host), call.digest, run.version)

    def _expected(self, run: Run, window: Window, call: StepCall) -> list[str]:
        step = window.steps[call.step]
        return [
            host
            for host in call.play_hosts
            if window.steps.performs(step, host, call.groups_of(host), control=run.control)
        ]

    def begin(self, call: StepCall, *, required: bool, preload: Callable[[str, str], None]) -> Result:
        """Whether this host performs (or plans) the step now; its role is loaded once before it is begun."""
        run = self._run
        if run is None:
            if required:
                raise Refusal(
                    obj=f"step {call.step}",
                    problem="its window was not opened in this run (--limit, --tags, --skip-tags or --start-at-task left the opening out?)",
                    next_step="Run the whole playbook, and choose steps with -e window_only=STEP,... or -e window_skip=STEP,...",
                )
            control = call.members.get("control", frozenset())
            stands_by = call.host in control and not control.issuperset(call.play_hosts)
            why = "the control host stands by" if stands_by else "no window is open"
            return {"changed": False, "run": not stands_by, "why": why, "environment": {}, "assumed": []}
        if not self._controller.strategy.endswith("linear"):
            raise Refusal(
                obj=f"step {call.step}",
                problem=f"its play has the strategy {self._controller.strategy}, under which steps overlap",
                next_step="Leave strategy out of the plays of a window",
            )
        with run.writing() as session:
            _bury(session, call.step, call.batch)
            window = session.window()
            here = self._here(run, call)
            if call.planning:
                decision = window.decide_plan(call.step, here)
            else:
                decision = window.decide(call.step, here, now=self._clock())
            if decision.run:
                preload(call.role, call.tasks_from)
            if call.planning:
                if decision.run:
                    session.write(
                        "planning", step=call.step, host=call.host, expected=self._expected(run, window, call)
                    )
            elif decision.run:
                closer = window.steps.closer_of(call.step)
                session.write(
                    "begin",
                    durable=not window.steps[call.step].closes,
                    step=call.step,
                    host=call.host,
                    expected=self._expected(run, window, call),
                    digest=call.digest(),
                    why=decision.why,
                    closer=closer.name if closer else None,
                )
            elif decision.skip:
                session.write("skip", step=call.step, host=call.host, why=decision.why)
        assumed = sorted(window.now.acted) if run.rehearsal else []
        return {
            "changed": False,
            "run": decision.run,
            "why": decision.why,
            "msg": decision.why,
            "environment": run.environment,
            "assumed": assumed,
        }

    def end(self, call: StepCall, *, error: Any, failed_task: Any) -> Result:
        """Record how the step ended; outside a window an error is raised again as it was."""
        run = self._run
        if run is None:
            return {"changed": False} if error is None else {**public(error), "failed": True, "changed": False}
        changed, summary = summarise(not call.planning, call.result)
        with run.writing() as session:
            if error is not None:
                words, refused = describe_error(error, failed_task)
                self._write_failure(session, run, call, words, refused)
                return {
                    "changed": False,
                    "swallowed": words,
                    "msg": f"{call.step} failed on {call.host}; later steps are skipped, closing ones run",
                }
            if call.planning:
                self._write_plan(session, run, call, changed, summary)
                return {"changed": False, "msg": f"{'due' if changed else 'not due'}: {summary}"}
            self._write_end(session, run, call, ok=True, changed=changed, summary=summary)
        return {"changed": False, "msg": summary}

    def _write_plan(self, session: Session, run: Run, call: StepCall, due: bool, summary: str) -> None:
        result = call.result if isinstance(call.result, dict) else {}
        session.write(
            "plan",
            step=call.step,
            host=call.host,
            expected=self._expected(run, session.window(), call),
            due=due,
            summary=summary,
            plan=dicts(result.get("plan")),
            blockers=dicts(result.get("blockers")),
        )

    def _write_failure(self, session: Session, run: Run, call: StepCall, words: str, refused: bool) -> None:
        if call.planning or call.step not in session.window().steps:
            session.write("failure", step=call.step, host=call.host, error=words, refused=True, planning=call.planning)
            return
        begun = (call.step, call.host) in session.window().now.begun
        self._write_end(session, run, call, ok=False, changed=False, error=words, refused=refused or not begun)

    def _write_end(
        self,
        session: Session,
        run: Run,
        call: StepCall,
        *,
        ok: bool,
        changed: bool,
        summary: str = "",
        error: str = "",
        refused: bool = False,
    ) -> None:
        window = session.window()
        step = window.steps[call.step]
        begun = window.now.begun.get((call.step, call.host), {})
        session.write(
            "end",
            step=call.step,
            host=call.host,
            ok=ok,
            changed=changed,
            summary=summary,
            error=error,
            refused=refused,
            # That of what it was begun with: the role itself may have set facts of its name since.
            digest=begun.get("digest", ""),
            version=run.version,
            closes=step.closes,
            closes_all=window.closes_all(step),
        )

    # -- close ----------------------------------------------------------------------------------------------------

    def _opened(self) -> Run:
        if self._run is None:
            raise Refusal(
                obj="window",
                problem="it was not opened in this run (--limit, --tags, --skip-tags or --start-at-task left the opening out?)",
                next_step="Run the whole playbook, and choose steps with -e window_only=STEP,... or -e window_skip=STEP,...",
            )
        return self._run

    def proceed(self) -> Result:
        """Whether a later step can have anything to do: not after a failure with nothing open."""
        with self._opened().writing() as session:
            _bury(session, "", ())
            window = session.window()
        words = f"nothing is left to do after: {window.cause()}" if window.over else "go on"
        return {"changed": False, "proceed": not window.over, "msg": words}

    def close(self, evidence: Iterable[str]) -> Result:
        """Close the occurrence: record the state, write the report, give the lease back."""
        run = self._opened()
        with run.writing() as session:
            _bury(session, "", ())
            if session.lost_records:
                words = f"{len(session.lost_records)} records could not be written to the journal"
                session.write("failure", step="journal", host=run.control, error=words, refused=False, planning=False)
            for (step, host), why in session.window().unfinished():
                session.write("failure", step=step, host=host, error=why, refused=False, planning=False)
            window = session.window()
            told = report.build(
                window,
                name=run.name,
                at=self._clock(),
                rehearsal=run.rehearsal,
                evidence=evidence,
                journal=str(run.journal.path),
                version=run.version,
            )
            if not run.rehearsal:
                told["path"] = f"{run.stem}.{run.token}.html"
                write_report(told, Path(run.stem))
            session.write("close", state=told["state"], cause=told["cause"])
            if not run.rehearsal:
                run.lease.release(run.token)
        verdict = {
            "state": told["state"],
            "window": run.name,
            "window_id": run.id,
            "cause": told["cause"],
            "report": told.get("path"),
        }
        self._leave_verdict(verdict, report.last_line(told))
        return {"changed": False, "summary": report.text(told), "msg": report.last_line(told), **stats(verdict)}

    def settle(self, given: dict[str, Any]) -> Result:
        """Record that every bracket was put back by other means (the playbook restore_service)."""
        place = stem(given["dir"], given["site"], given["name"] or "")
        lease, journal = FileLease(Path(f"{place}.lease")), Journal(Path(f"{place}.journal"))
        if self._controller.rehearsal or not journal.path.exists():
            return {
                "changed": False,
                "msg": "no journal" if not journal.path.exists() else "nothing is written in check mode",
            }
        with lease.locked():
            held = lease.read()
            if held is not None and (why := lease.blocked_by(held)):
                raise Refusal(
                    obj=f"window {held.window_id}",
                    problem=f"{held.owner.describe()}, is running it ({why})",
                    next_step="Stop it first",
                )
            journal.append("settle", id="", run=held.token if held else 0)
        return {"changed": True, "msg": f"{journal.path}: nothing is owed any more"}

    def verdict(self) -> Result:
        """Fail with the first cause, or say how the window ended: the last line of a run."""
        path = Path(self._controller.folder, VERDICT)
        if not path.exists():
            raise Refusal(
                obj="window",
                problem="it was neither opened nor refused in this run",
                next_step="Open it in the first play",
            )
        left = json.loads(path.read_text(encoding="utf-8"))
        return {
            "changed": False,
            "failed": left["verdict"]["state"] in FAILED,
            "msg": left["line"],
            "_ansible_verbose_always": True,
            **left["verdict"],
        }

    def _leave_verdict(self, verdict: dict[str, Any], line: str) -> None:
        Path(self._controller.folder, VERDICT).write_text(
            json.dumps({"verdict": verdict, "line": line}), encoding="utf-8"
        )


def _bury(session: Session, step: str, batch: Iterable[str]) -> None:
    """Record steps whose host was lost as failed, before anything builds on them."""
    for (name, host), planning in session.window().died(step, batch):
        session.write("failure", step=name, host=host, error=DIED, refused=planning, planning=planning)
