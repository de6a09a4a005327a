# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening a window: check everything, take the site's lease, open or resume the occurrence.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .containers import refuse_common_site, refuse_fleeting_directory
from .declaration import Declaration, Inventory, Step
from .events import StepFailed, WindowOpened
from .lease import LeaseRecord
from .occurrences import Occurrences, read_occurrences
from .places import Place
from .processes import Orphan, Owner, find_orphans, read_boot_id, read_pid_namespace, wait_for_end
from .results import Result, make_stats
from .rules import RESTORE, WindowRules, describe_pending
from .schedule import Schedule, explain_lateness
from .session import SIGN, Controller, OpenWindow, make_copy, make_run_marker
from .state import WindowState
from .store import Store, find_obstacle
from .store_file import make_readable
from .verdict import leave_verdict

RESTORE_NAME = "restore_service"
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
POLL_INTERVAL = 1.0
"""Seconds between two looks at a lease whose owner cannot be looked at."""


@dataclass(frozen=True)
class Request:
    """What the opening is asked for: options of the action. ``duration`` and ``orphan_timeout`` are in seconds;
    ``places`` is how many plays the playbook has, 0 for any number; ``mode`` is ``window`` or :data:`.rules.RESTORE`;
    ``job`` is what AWX says of this job, empty elsewhere.
    """

    name: str
    steps: list[Any]
    place: Place
    version: str
    start: str = ""
    only: list[str] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)
    duration: float = 14400.0
    orphan_timeout: float = 300.0
    keep_days: int = 90
    places: int = 0
    mode: str = "window"
    job: dict[str, str] = field(default_factory=dict)
    times: Any = ()


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
    ) -> None:
        self._controller = controller
        self._clock = clock
        self._sleep = sleep

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
        if not request.place.shared:
            refuse_fleeting_directory(request.place.directory, is_job=bool(request.job))
        builder = RestoreBuilder if request.mode == RESTORE else WindowBuilder
        build = builder(request, inventory, preload)
        if controller.check_mode:
            return self._open_copy(request, store, build)
        try:
            return self._open_really(request, store, build)
        except OSError as error:
            raise Refusal(
                obj=f"site {store.location}",
                problem=f"it cannot be written ({error})",
                next_step="Make room there, bring its server back, or set window_dir to a directory of yours",
            ) from error

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
        deadline = Deadline(request.orphan_timeout, sleep=self._sleep)
        seen: float | None = None
        while True:
            with store.lock():
                held = store.read_lease()
                orphan = self._find_orphan(store, held, owner)
                obstacle = find_obstacle(store, held, owner)
                if orphan is None and obstacle is None:
                    now = self._read_clock(store)
                    occurrences = read_occurrences(store, also=build.name_occurrence(now))
                    opened = build.build(occurrences, now=now)
                    record = store.acquire(owner, opened.window_id, pipe=self._controller.pipe)
                    break
            if orphan is not None:
                self._wait_for_orphan(orphan, deadline.remaining, request.orphan_timeout)
                continue
            renewed = store.read_last_renewal()
            is_alive = held is None or held.owner.check_liveness() != "unknown"
            # The pod of a cancelled job may renew once more before it is gone; nobody else would start anything again.
            is_renewed = seen not in (None, renewed) and (request.mode != RESTORE or deadline.passed)
            if obstacle is not None and (is_alive or is_renewed):
                raise obstacle
            seen = renewed
            self._sleep(POLL_INTERVAL)
        try:
            sign = Path(self._controller.folder, SIGN)
            sign.touch()
            result = self._begin_run(request, store, opened, build, token=record.token)
            store.start_renewer(record, sign=sign)
        except (OpsError, OSError):
            with store.lock():
                store.release(record.token)
            raise
        return result

    def _read_clock(self, store: Store) -> float:
        return store.read_clock() if self._clock is None else self._clock()

    def _find_orphan(self, store: Store, held: LeaseRecord | None, owner: Owner) -> Orphan | None:
        """Return a process that the last owner, which ended without giving the lease back, left running here."""
        if held is None or held.released or held.owner.is_same_process(owner) or held.owner.check_liveness() != "dead":
            return None
        if (held.owner.boot, held.owner.namespace) != (read_boot_id(), read_pid_namespace()):
            return None
        left = find_orphans(
            mark=make_run_marker(store, held.token), pipe=held.pipe, ignore=frozenset({os.getpid(), owner.pid})
        )
        return left[0] if left else None

    @staticmethod
    def _wait_for_orphan(orphan: Orphan, seconds: float, timeout: float) -> None:
        if seconds <= 0 or not wait_for_end(orphan.pid, seconds):
            raise Refusal(
                obj="a step of the run before",
                problem=f"{orphan.describe()} still runs after {timeout:.0f} s, though its controller ended",
                next_step="Let it end and run the window again, or raise window_orphan_timeout",
            )

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
        )
        with window.open_session() as session:
            session.append(opened, durable=True)
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

    def __init__(self, request: Request, inventory: Inventory, preload: Callable[[Step], None]) -> None:
        self._request = request
        self._control = inventory.control
        self._declaration = Declaration.from_entries(request.steps, inventory)
        self._selected = self._declaration.select(only=request.only, skip=request.skip)
        self._schedule = Schedule.from_entries(request.times)
        self.failures: list[StepFailed] = []
        self.warnings: list[str] = []
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
            start = self._schedule.find_start(now, duration=self._request.duration)
        except Refusal:
            if strict:
                raise
            return ""
        return "" if start is None else format_utc(start)

    def build(self, occurrences: Occurrences, *, now: float) -> WindowOpened:
        """Return the event that opens or resumes the occurrence. Raise Refusal when a journal of this window is
        damaged, and for a new occurrence that no declared time is on for."""
        request = self._request
        self._look_at_damaged(occurrences.damaged)
        own = occurrences.select_window(request.name)
        start = choose_start(own, start=request.start, now=now, declared=lambda: self._declare_start(now, strict=True))
        window_id = f"{request.name}@{start}"
        resumed = own.get(window_id)
        begins = now
        if resumed is None and not request.start:
            begins = self._schedule.find_start(now, duration=request.duration) or now
            late = explain_lateness(begins, now)
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


class RestoreBuilder:
    """Makes the opening event of an occurrence that reverts everything that is in force at the site, whatever window
    left it."""

    def __init__(self, request: Request, inventory: Inventory, preload: Callable[[Step], None]) -> None:
        self._request = request
        self._inventory = inventory
        self._preload = preload
        self._declared = Declaration([])
        self.failures: list[StepFailed] = []
        self.warnings: list[str] = []
        try:
            self._declared = Declaration.from_entries(request.steps, inventory) if request.steps else self._declared
        except OpsError as error:  # the way back must not depend on a list that is being edited
            self._declared = read_reverting(request.steps, inventory)
            self._fail(
                "window_steps", inventory.control, f"{error} What can be read of it, and of journals, is reverted."
            )

    def name_occurrence(self, now: float) -> str:
        """Return nothing: each run of it is an occurrence of its own."""
        del now
        return ""

    def build(self, occurrences: Occurrences, *, now: float) -> WindowOpened:
        """Return the opening event: the declared reverting steps, on all their hosts, since what is in force is seen
        on the objects; and those of journals, on the hosts where these say so."""
        for error in occurrences.damaged.values():
            self._fail("journal", self._inventory.control, f"{error} What else it left in force is not known.")
        steps: dict[str, Step] = {step.name: as_plain_step(step) for step in self._declared if step.reverts}
        inherited: list[dict[str, str]] = []
        for window_id, state in occurrences.states.items():
            if not state.pending or state.opened is None:
                continue
            declaration = Declaration.from_dicts(state.declared.values())
            order = {step.name: number for number, step in enumerate(declaration)}
            pending = sorted(state.pending.items(), key=lambda item: order.get(item[1], -1))
            for (step_name, host), reverted_by in pending:
                if reverted_by not in declaration:
                    self._fail(reverted_by, host, f"the journal of {window_id} does not declare it")
                    continue
                reverting = declaration[reverted_by]
                name = self._add(steps, reverting, window_id, host, reverts_all=declaration.is_reverting_all(reverting))
                if name is not None:
                    inherited.append({"window_id": window_id, "step": step_name, "host": host, "reverted_by": name})
        steps = {name: step for name, step in steps.items() if self._can_load(step)}
        start = format_utc(now)
        return WindowOpened(
            window=self._request.name,
            window_id=f"{self._request.name}@{start}",
            start=start,
            mode=RESTORE,
            steps=[step.as_dict() for step in steps.values()],
            selected=sorted(steps),
            control=self._inventory.control,
            ends=now + self._request.duration,
            version=self._request.version,
            inherited=inherited,
            job=self._request.job,
        )

    def _add(
        self, steps: dict[str, Step], reverting: Step, window_id: str, host: str, *, reverts_all: bool
    ) -> str | None:
        """Add the reverting step of a journal to ``steps`` unless a declared one does the same; return its name, None
        when no host that would perform it is there."""
        known = set(self._inventory.hosts)
        hosts = reverting.hosts if reverts_all else (host,)
        present = tuple(name for name in hosts if name in known)
        name = next((name for name, step in steps.items() if _does_the_same(step, reverting)), "")
        if not present:
            problem = f"window {window_id} left it in force there, and this inventory has no such host"
            self._fail(name or reverting.name, host, problem)
            return None
        if not name:
            name = reverting.name if reverting.name not in steps else f"{reverting.name} of {window_id}"
            steps[name] = replace(as_plain_step(reverting, batches=()), name=name)
        step = steps[name]
        missing = tuple(host for host in present if host not in step.hosts)
        if missing:  # one batch for all that journals add to a step: a playbook has places for so many plays only
            declared = self._declared.get(name)
            kept = step.batches[: len(declared.batches)] if declared is not None else ()
            added = [host for batch in step.batches[len(kept) :] for host in batch]
            steps[name] = as_plain_step(step, batches=(*kept, (*added, *missing)))
        return name

    def _can_load(self, step: Step) -> bool:
        """A role that cannot be loaded does not hold back the others."""
        try:
            self._preload(step)
        except OpsError as error:
            for host in step.hosts:
                self._fail(step.name, host, str(error))
            return False
        return True

    def _fail(self, step: str, host: str, problem: str) -> None:
        self.failures.append(StepFailed(step=step, host=host, error=problem))


def read_reverting(entries: Iterable[Any], inventory: Inventory) -> Declaration:
    """Return the pairs of a reversible and its reverting step that can be read of a declaration that cannot be read
    whole."""
    by_name = {str(entry.get("name")): entry for entry in entries if isinstance(entry, dict)}
    steps: list[Step] = []
    for entry in by_name.values():
        reversible = by_name.get(str(entry.get("reverts")))
        if reversible is None:
            continue
        pair = [{**reversible, "needs": [], "only_after": []}, {**entry, "needs": [], "only_after": []}]
        try:
            steps += list(Declaration.from_entries(pair, inventory))
        except OpsError:
            continue  # the failure of the whole list is told
    return Declaration(steps)


def as_plain_step(step: Step, *, batches: Iterable[tuple[str, ...]] | None = None) -> Step:
    """Return the step as one that stands for itself."""
    return Step(
        name=step.name,
        role=step.role,
        tasks_from=step.tasks_from,
        tasks=step.tasks,
        batches=step.batches if batches is None else tuple(batches),
        estimate=step.estimate,
    )


def _does_the_same(step: Step, other: Step) -> bool:
    return (step.role, step.tasks_from, step.tasks) == (other.role, other.tasks_from, other.tasks)


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
    if job and job.get("launch") == "workflow" and job.get("workflow") == job.get("template"):
        raise Refusal(
            obj=f"AWX job {job['id']}",
            problem=f"its workflow has the name of its template, {job['template']}, as that of a sliced job has, "
            "and a slice is a window for a part of the hosts",
            next_step="Set Job Slicing of the template to 1, or give the workflow template another name",
        )
