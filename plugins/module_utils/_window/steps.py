# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared steps of a window, checked before anything moves. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._common.errors import Refusal


@dataclass(frozen=True)
class Step:
    """One declared step; ``estimate`` in seconds. ``hosts``: names of hosts or groups that perform it, () for all but the control
    host. ``role``: what performs it, named so that opening can check that it loads."""

    name: str
    closes: str | None = None
    needs: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    irreversible: bool = False
    reads_only: bool = False
    estimate: float | None = None
    hosts: tuple[str, ...] = ()
    role: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def refuse(problem: str, next_step: str) -> Refusal:
    """A refusal about the list of steps."""
    return Refusal(obj="window_steps", problem=problem, next_step=next_step)


def _step(entry: Any) -> Step:
    known = set(Step.__dataclass_fields__)
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise refuse(f"an entry has no name ({entry!r})", "Give each step a name")
    unknown = sorted(set(entry) - known)
    if unknown:
        raise refuse(
            f"step {entry['name']} has the unknown key {unknown[0]}", f"Known keys: {', '.join(sorted(known))}"
        )
    values = dict(entry)
    for key in ("needs", "follows", "hosts"):
        value = values.get(key) or ()
        values[key] = (value,) if isinstance(value, str) else tuple(value)
    try:
        values["estimate"] = None if values.get("estimate") is None else float(values["estimate"])
    except (TypeError, ValueError):
        raise refuse(
            f"step {entry['name']} has the estimate {entry['estimate']!r}", "Give seconds as a number"
        ) from None
    return Step(**values)


class Steps:
    """The ordered list of steps of a window. Iterating gives them in order."""

    def __init__(self, entries: Sequence[Any]) -> None:
        """Refuse duplicates, references to absent or later steps, brackets that cross, and work outside what it needs open."""
        if not entries:
            raise refuse("the list is empty", "Declare every step of the window, in its order")
        self._steps = {step.name: step for step in map(_step, entries)}
        if len(self._steps) < len(entries):
            raise refuse("two steps have the same name", "Give each step a name of its own")
        self._order = {name: number for number, name in enumerate(self._steps)}
        for step in self:
            self._check_references(step)
        self._check_brackets()

    def __iter__(self) -> Any:
        return iter(self._steps.values())

    def __contains__(self, name: object) -> bool:
        return name in self._steps

    def __getitem__(self, name: str) -> Step:
        """The step, or a refusal that lists the declared ones."""
        if name not in self._steps:
            raise Refusal(
                obj=f"step {name}",
                problem=f"it is not in window_steps ({', '.join(self._steps)})",
                next_step="Declare it there, so that its cost and its way back are known before anything moves",
            )
        return self._steps[name]

    def closer_of(self, name: str) -> Step | None:
        """The step that closes ``name``; None when nothing has to."""
        return next((step for step in self if step.closes == name), None)

    def needed_by(self, name: str) -> list[Step]:
        """Steps that declare that they need ``name``."""
        return [step for step in self if name in step.needs]

    def _check_references(self, step: Step) -> None:
        for key, names in (
            ("needs", step.needs),
            ("follows", step.follows),
            ("closes", (step.closes,) if step.closes else ()),
        ):
            for name in names:
                if name not in self._steps or self._order[name] >= self._order[step.name]:
                    raise refuse(
                        f"step {step.name} {key} {name}, which is no step before it",
                        "Name a step that stands earlier in the list",
                    )

    def _check_brackets(self) -> None:
        stack: list[str] = []
        closed: dict[str, str] = {}
        for step in self:
            for name in step.needs:
                if name in closed:
                    raise refuse(
                        f"step {step.name} needs {name}, which {closed[name]} closes before it",
                        f"Put it before {closed[name]}",
                    )
            if step.closes is None:
                if self.closer_of(step.name) is not None:
                    stack.append(step.name)
                continue
            if step.closes in closed or not stack or stack[-1] != step.closes:
                inner = stack[-1] if stack else closed[step.closes]
                raise refuse(
                    f"step {step.name} closes {step.closes}, but {inner} is the one to close next",
                    "Close in the reverse order of opening",
                )
            closed[stack.pop()] = step.name

    def select(self, *, only: Iterable[str], skip: Iterable[str]) -> frozenset[str]:
        """Names of the steps left after ``window_only`` (with what these need and what closes that) and ``window_skip``."""
        only, skip = list(only), list(skip)
        for name in (*only, *skip):
            self[name]
        chosen = set(only) or set(self._steps)
        grown = True
        while grown:
            more = {need for name in chosen for need in self[name].needs}
            more |= {closer.name for name in chosen if (closer := self.closer_of(name))}
            more |= {opener for name in chosen if (opener := self[name].closes)}
            grown = not more <= chosen
            chosen |= more
        chosen -= set(skip)
        for name in sorted(chosen, key=self._order.__getitem__):
            for other in (*self[name].needs, *filter(None, [self[name].closes])):
                if other not in chosen:
                    raise refuse(
                        f"window_skip leaves out {other}, which {name} {'closes' if self[name].closes == other else 'needs'}",
                        f"Leave out {name} as well",
                    )
            closer = self.closer_of(name)
            if closer is not None and closer.name not in chosen:
                raise refuse(f"window_skip leaves out {closer.name}, which closes {name}", f"Leave out {name} as well")
        return frozenset(chosen)

    def performs(self, step: Step, host: str, groups: Iterable[str], *, control: str) -> bool:
        """Whether ``host`` (member of ``groups``) performs ``step`` itself, or only stands by."""
        if step.hosts:
            return host in step.hosts or not set(step.hosts).isdisjoint(groups)
        return host != control
