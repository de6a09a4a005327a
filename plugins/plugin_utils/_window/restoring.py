# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The opening of restore_service: what is reverted, and where. Private to lowtide.ops: do not import from other
collections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc

from .declaration import Declaration, Inventory, Step
from .events import DAMAGED, JOURNAL, StepFailed, WindowOpened
from .occurrences import Occurrences
from .request import Request
from .rules import RESTORE


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
        self.shown: dict[str, str] = {}
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
            self._fail(DAMAGED, self._inventory.control, f"{error} What else it left in force is not known.")
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
        if step == JOURNAL:  # one that somebody called so
            step = f"step {step}"
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
