# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening a window: check everything, take the site's lease, open or resume the occurrence.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.containers import find_fleeting
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .approval import Shown, describe_shown, refuse_other
from .containers import refuse_common_site, refuse_fleeting_directory
from .declaration import Declaration, Inventory, Step
from .events import StepFailed, WindowOpened
from .occurrences import Occurrences, read_occurrences
from .processes import Owner
from .renewal import SIGN, Moment, Sign
from .request import Request
from .restoring import RestoreBuilder
from .results import Result, make_stats
from .rules import RESTORE, WindowRules, describe_pending
from .schedule import EARLY, Schedule, explain_lateness
from .session import Controller, OpenWindow, make_copy
from .state import WindowState
from .store import PATIENCE, Store
from .store_file import make_readable
from .succession import Succession
from .verdict import leave_verdict

RESTORE_NAME = "restore_service"
WITHOUT_STORE = """-e '{"window_store": {}}'"""
"""The option with which a restore does without the site's store."""
NEXT_STEP = "Choose steps by name with -e window_only=STEP,... or -e window_skip=STEP,..."
NEXT_STEP_IN_AWX = {
    "--limit": "Launch the template again, or relaunch on all hosts: relaunch on failed hosts sets a limit by itself. "
    "Leave the limit of template and launch empty, and choose steps with window_only or window_skip",
    "--tags": "Leave the job tags of template and launch empty, and choose steps with window_only or window_skip",
    "--skip-tags": "Leave the skip tags of template and launch empty, and choose steps with window_only or window_skip",
    "--start-at-task": NEXT_STEP,
}
"""What to do about a run that would be partial, by its option."""
BATCHES_OF_STEP = 8
"""Batches of a step for which the playbook step has places."""


def choose_start(
    occurrences: Mapping[str, WindowState], *, start: str, now: float, declared: Callable[[], str] = lambda: ""
) -> str:
    """Return the start of the occurrence that this run belongs to: the given one; else that of the newest one that was
    not brought to a good end and whose time is not over; else the declared one; else now, to the second.

    Raise Refusal when the given one is over. ``occurrences`` are those of the window that are not settled, and the
    given one.
    """
    by_start = {state.opened.start: state for state in occurrences.values() if state.opened is not None}
    if start:
        state = by_start.get(start)
        if state is not None and state.opened is not None and now >= state.opened.ends:
            raise Refusal(
                obj=f"window {state.opened.window_id}",
                problem=f"its time was over at {format_utc(state.opened.ends)}, "
                "and an occurrence cannot be resumed after it",
                next_step="Start another occurrence: leave window_start empty, or give another one",
            )
        return start
    resumable = [state for state in by_start.values() if state.opened is not None and now < state.opened.ends]
    if not resumable:
        return declared() or format_utc(now)
    newest: Any = max(resumable, key=lambda state: state.first_opened).opened
    return str(newest.start)


class Opening:
    """Opens the window of one controller run."""

    def __init__(
        self,
        controller: Controller,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        ticks: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = lambda _words: None,
    ) -> None:
        self._controller = controller
        self._clock = clock
        self._sleep = sleep
        self._ticks = ticks
        self._tell = tell

    def open(self, request: Request, inventory: Inventory, *, preload: Callable[[Step], None]) -> Result:
        """Open or resume the occurrence. A refusal is a result, which the last line tells, so that it also reaches
        set_stats."""
        try:
            return self._open(request, inventory, preload)
        except OpsError as error:
            return self._refuse(request, error)

    def _refuse(self, request: Request, error: OpsError) -> Result:
        line = f"lowtide window {request.name or 'without a name'}: refused (refused before any change): {error}"
        verdict = {"state": "refused", "window": request.name, "window_id": None, "cause": str(error), "report": None}
        leave_verdict(self._controller.folder, verdict, line)
        return {"changed": False, "refused": True, "error": error.as_dict(), "msg": line, **make_stats(verdict)}

    def _open(self, request: Request, inventory: Inventory, preload: Callable[[Step], None]) -> Result:
        controller = self._controller
        refuse_partial_runs(controller.limits, is_job=bool(request.job))
        refuse_slice(request.job)
        if controller.control != [controller.host]:
            raise Refusal(
                obj="group control",
                problem=f"it has {', '.join(controller.control) or 'no host'}, "
                f"and the window is opened on {controller.host}",
                next_step="Give the group control exactly one host (ansible_connection: local)",
            )
        if not request.name:
            raise Refusal(obj="window_name", problem="it is empty", next_step="Name the window")
        if request.name == RESTORE_NAME and request.mode != RESTORE:
            raise Refusal(
                obj=f"window_name {request.name}",
                problem="the playbook restore_service keeps its journals under that name",
                next_step="Give the window another name",
            )
        if request.keep_days < 0:
            raise Refusal(
                obj=f"window_keep_days {request.keep_days}",
                problem="it is negative",
                next_step="Give days, or 0 to keep all journals",
            )
        store = request.place.connect(controller.folder)
        if request.job:
            refuse_common_site(request.place.site)
        build: WindowBuilder | RestoreBuilder
        if request.mode == RESTORE:
            build = RestoreBuilder(request, inventory, preload)
        else:
            build = WindowBuilder(request, inventory, preload, is_rehearsal=controller.check_mode)
        self._look_at_directory(request, build)
        if controller.check_mode:
            return self._open_copy(request, store, build)
        try:
            return self._open_really(request, store, build)
        except OSError as error:
            raise Refusal(
                obj=f"site {store.location}",
                problem=f"it cannot be written ({error})",
                next_step=_explain_way_without(is_job=bool(request.job))
                if request.place.shared
                else "Make room there, or set window_dir to a directory of yours",
            ) from error

    @staticmethod
    def _look_at_directory(request: Request, build: WindowBuilder | RestoreBuilder) -> None:
        """Refuse a directory that ends with this container; a restore goes by the objects, and only warns."""
        if request.place.shared:
            return
        is_job = bool(request.job)
        if request.mode != RESTORE:
            refuse_fleeting_directory(request.place.directory, is_job=is_job)
            return
        why = find_fleeting(request.place.directory, is_job=is_job)
        if why:
            build.warnings.append(
                f"window_dir {request.place.directory}: {why}; what journals elsewhere tell is not known to this run, "
                "which reverts what the declared reverting steps find"
            )

    def _open_copy(self, request: Request, store: Store, build: WindowBuilder | RestoreBuilder) -> Result:
        """Open in check mode: on a private copy of the journals, without the lease."""
        copy = make_copy(self._controller.folder)
        copy.create()
        try:
            is_new = store.is_new()
            held = None if is_new else store.read_lease()
            occurrences = (
                Occurrences({}, {})
                if is_new
                else read_occurrences(store, also=build.name_occurrence(self._read_clock(store)))
            )
            for window_id in occurrences.states:
                copy.copy(copy.make_name(window_id), store.load(store.make_name(window_id)))
            opened = build.build(occurrences, now=self._read_clock(store))
        except OSError as error:
            raise Refusal(
                obj=f"site {store.location}",
                problem=f"it cannot be read ({error})",
                next_step="Run check mode as a user who may read it, or bring its server back",
            ) from error
        tokens = [state.opened.token for state in occurrences.states.values() if state.opened is not None]
        token = max([held.token if held else 0, *tokens]) + 1
        result = self._begin_run(request, copy, opened, build, token=token)
        if held is not None and not held.released and held.owner.check_liveness() != "dead":
            warning = f"{held.owner.describe()}, holds the site now: what it changes is not in this prediction"
            result["warnings"] = [*result.get("warnings", []), warning]
        return result

    def _open_really(self, request: Request, store: Store, build: WindowBuilder | RestoreBuilder) -> Result:
        store.create()
        owner = Owner.from_pid(self._controller.pid)
        sign = Sign(Path(self._controller.folder, SIGN))
        succession = Succession(request, store, owner, sign, sleep=self._sleep, clock=self._ticks, tell=self._tell)
        while True:
            with succession.give_back(), store.lock():
                if succession.may_begin(store.read_lease()):
                    now = self._read_clock(store)
                    occurrences = read_occurrences(store, also=build.name_occurrence(now))
                    opened = build.build(occurrences, now=now)
                    begun = Moment.now()
                    record = succession.acquire(opened.window_id, pipe=self._controller.pipe)
                    break
            succession.wait()
        with succession.give_back():
            sign.write(begun)
            result = self._begin_run(request, store, opened, build, token=record.token)
            store.start_renewer(record, sign=sign.path)
        return result

    def _read_clock(self, store: Store) -> float:
        return store.read_clock() if self._clock is None else self._clock()

    def _begin_run(
        self,
        request: Request,
        store: Store,
        opened: WindowOpened,
        build: WindowBuilder | RestoreBuilder,
        *,
        token: int,
    ) -> Result:
        controller = self._controller
        window = OpenWindow(
            window=opened.window,
            window_id=opened.window_id,
            token=token,
            journal=store.make_name(opened.window_id),
            place=request.place,
            control=opened.control,
            check_mode=controller.check_mode,
            version=request.version,
            folder=controller.folder,
            keep_days=request.keep_days,
            shown=build.shown,
        )
        with window.open_session(patience=PATIENCE) as session:
            # The way back needs no record, only the lease: what is in force is seen on the objects.
            session.append(opened, durable=request.mode != RESTORE or not session.has_lease)
            for failure in build.failures:
                session.append(failure)
            state, rules = session.state, session.rules
        window.save()
        left = describe_pending(state)
        kind = "Check mode of window" if controller.check_mode else "Window"
        words = f"{kind} {opened.window_id} is {'resumed' if state.resumed else 'open'}"
        if left:
            words += f"; not reverted by a run before: {', '.join(left)}"
        hosts = sorted({host for step in rules.declaration for host in step.hosts})
        return {
            "changed": False,
            "refused": False,
            "msg": words,
            "window_id": opened.window_id,
            "token": token,
            "resumed": state.resumed,
            "opened_at": format_utc(state.first_opened),
            "ends_at": format_utc(opened.ends),
            "not_reverted": left,
            "plays": [
                {"title": play.title, "step": play.step, "batch": play.batch, "hosts": list(play.hosts)}
                for play in rules.declaration.plays
            ],
            "planning_reverts": _list_planned(rules, hosts, reverting=True),
            "planning": _list_planned(rules, hosts, reverting=False),
            "warnings": build.warnings,
        }


def _list_planned(rules: WindowRules, hosts: Iterable[str], *, reverting: bool) -> dict[str, list[str]]:
    """Return the steps that each host plans, without the hosts that plan none."""
    planned = {host: rules.list_planned_steps(host, reverting=reverting) for host in hosts}
    return {host: names for host, names in planned.items() if names}


class WindowBuilder:
    """Checks the declaration, and makes the opening event of a window."""

    def __init__(
        self, request: Request, inventory: Inventory, preload: Callable[[Step], None], *, is_rehearsal: bool = False
    ) -> None:
        self._request = request
        self._is_rehearsal = is_rehearsal
        self._control = inventory.control
        self._declaration = Declaration.from_entries(request.steps, inventory)
        self._selected = self._declaration.select(only=request.only, skip=request.skip)
        self._schedule = Schedule.from_entries(request.times)
        self.failures: list[StepFailed] = []
        self.warnings: list[str] = []
        self.shown: Shown = describe_shown(request, self._declaration, self._selected)
        plays = self._declaration.plays
        if request.places and len(plays) > request.places:
            raise Refusal(
                obj="window_steps",
                problem=f"its steps and batches are {len(plays)} plays, "
                f"and this playbook has places for {request.places}",
                next_step="Join batches, or write a playbook from window_open, step and window_close",
            )
        for step in self._declaration:
            if not request.places and len(step.batches) > BATCHES_OF_STEP:
                raise Refusal(
                    obj=f"step {step.name}",
                    problem=f"it has {len(step.batches)} batches, "
                    f"and the playbook step has places for {BATCHES_OF_STEP}",
                    next_step="Join batches, or use the playbook maintenance_window",
                )
            if step.name in self._selected or step.reverts:
                preload(step)

    def name_occurrence(self, now: float) -> str:
        """Return the occurrence that is asked for, by its start or as the one whose time is on; empty for none."""
        start = self._request.start or self._declare_start(now, strict=False)
        return f"{self._request.name}@{start}" if start else ""

    def _declare_start(self, now: float, *, strict: bool) -> str:
        try:
            start = self._find_declared(now)
        except Refusal:
            if strict:
                raise
            return ""
        return "" if start is None else format_utc(start)

    def _find_declared(self, now: float) -> float | None:
        """Return the declared time that is on; in check mode the next one where none is. Raise Refusal without one."""
        try:
            return self._schedule.find_start(now, duration=self._request.duration)
        except Refusal:
            coming = [start for one in self._schedule.times for start in one.list_starts(now) if start > now]
            # What a workflow has approved is to run now.
            if not (self._is_rehearsal and coming) or self._request.job.get("workflow_id"):
                raise
            return min(coming)

    def build(self, occurrences: Occurrences, *, now: float) -> WindowOpened:
        """Return the event that opens or resumes the occurrence. Raise Refusal when a journal of this window is
        damaged, and for a new occurrence that no declared time is on for."""
        request = self._request
        self._look_at_damaged(occurrences.damaged)
        own = occurrences.select_window(request.name)
        start = choose_start(own, start=request.start, now=now, declared=lambda: self._declare_start(now, strict=True))
        window_id = f"{request.name}@{start}"
        resumed = own.get(window_id)
        if not self._is_rehearsal:
            refuse_other(request, self.shown, resumed)
        begins = now
        if resumed is None and not request.start:
            begins = self._find_declared(now) or now
            late = explain_lateness(begins, now)
            if begins > now + EARLY:
                late = f"no declared time is on now, so this is the prediction for the next one, {format_utc(begins)}"
            self.warnings += [f"window {window_id}: {late}"] if late else []
        # What older ones left may have been reverted since the run that is resumed, by it or by another.
        inherited = self._find_inherited({key: state for key, state in own.items() if key != window_id})
        self._warn_of_others(occurrences, own)
        return WindowOpened(
            window=request.name,
            window_id=window_id,
            start=start,
            mode=request.mode,
            steps=self._declaration.as_dicts(),
            selected=sorted(self._selected),
            control=self._control,
            ends=resumed.opened.ends
            if resumed is not None and resumed.opened is not None
            else begins + request.duration,
            version=request.version,
            inherited=inherited,
            job=request.job,
        )

    def _look_at_damaged(self, damaged: Mapping[str, Refusal]) -> None:
        own = f"{self._request.name}@"
        for name, error in damaged.items():
            if name.startswith((own, make_readable(own))):  # as it is, or as the name of a file
                raise error
            self.warnings.append(str(error))

    def _find_inherited(self, own: Mapping[str, WindowState]) -> list[dict[str, str]]:
        """Return what older occurrences of this window left in force and this one reverts."""
        inherited = []
        for window_id, state in own.items():
            for step, host in state.pending:
                reverting = self._declaration.find_reverting(step) if step in self._declaration else None
                if reverting is None or (
                    host not in reverting.hosts and not self._declaration.is_reverting_all(reverting)
                ):
                    self.warnings.append(
                        f"{step} on {host} was left by {window_id}, and no step of this window reverts it there. "
                        "Run the playbook restore_service"
                    )
                    continue
                inherited.append({"window_id": window_id, "step": step, "host": host, "reverted_by": reverting.name})
        return inherited

    def _warn_of_others(self, occurrences: Occurrences, own: Mapping[str, WindowState]) -> None:
        for window_id, state in occurrences.states.items():
            if window_id not in own and state.pending:
                left = ", ".join(describe_pending(state))
                self.warnings.append(f"window {window_id} left not reverted: {left}. Run the playbook restore_service")


def _explain_way_without(*, is_job: bool) -> str:
    """Return what to do while the server of the store is away."""
    way = f"run restore_service with {WITHOUT_STORE}"
    if is_job:
        way = f"launch the template of restore_service whose window_store is empty, or {way} from a shell"
    return (
        f"Bring its server back. What is in force can be reverted without it: make sure that no window runs, and {way}"
    )


def refuse_partial_runs(limits: Mapping[str, Any], *, is_job: bool = False) -> None:
    """Refuse the options that would silently leave out the opening or the closing.

    In AWX the template may ask for none of them: a relaunch on failed hosts sets the limit all the same.
    """
    for option, value in limits.items():
        if value:
            shown = value if isinstance(value, str) else ",".join(value)
            raise Refusal(
                obj=f"{option} {shown}",
                problem="it would silently leave out the opening or the closing of the window",
                next_step=NEXT_STEP_IN_AWX[option] if is_job else NEXT_STEP,
            )


def refuse_slice(job: Mapping[str, str]) -> None:
    """Refuse the slice of an AWX job that got the control host: it has a part of the hosts, and no variable says so.

    It is known by the workflow that AWX makes for the slices, which has the template's name.
    """
    if job.get("launch") == "workflow" and "template" in job and job.get("workflow") == job["template"]:
        raise Refusal(
            obj=f"AWX job {job['id']}",
            problem=f"its workflow has the name of its template, {job['template']}, as that of a sliced job has, "
            "and a slice is a window for a part of the hosts",
            next_step="Set Job Slicing of the template to 1, or give the workflow template another name",
        )
