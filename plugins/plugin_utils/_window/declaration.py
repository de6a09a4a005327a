# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared steps of a window, checked against the inventory before anything changes, and the plays that perform
them.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

OLD_KEYS = {"closes": "reverts", "follows": "only_after", "serial": "batches"}
"""Keys that people are likely to try, with the key that does it."""


STANDBY = "localhost"
"""Implicit host that stands in plays whose other hosts could all be lost: Ansible ends a run when all hosts of a play
are lost (ansible-core, seen on 2.19 to 2.21)."""


@dataclass(frozen=True)
class Step:
    """One declared step. ``batches`` holds the names of the hosts that perform it, batch after batch; ``estimate`` is
    in seconds; exactly one of ``role`` and ``tasks`` (a path) is set."""

    name: str
    role: str | None = None
    tasks_from: str = "main"
    tasks: str | None = None
    batches: tuple[tuple[str, ...], ...] = ()
    plan: bool = False
    reverts: str | None = None
    needs: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    reads_only: bool = False
    irreversible: bool = False
    estimate: float | None = None
    in_turn: bool = False

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that performs the step."""
        return tuple(host for batch in self.batches for host in batch)

    @property
    def performer(self) -> str:
        """The role or the task file, for messages."""
        return self.role or self.tasks or ""

    @property
    def result_variable(self) -> str:
        """Name of the variable in which the role, or the task file, leaves its result."""
        return f"{(self.role or self.name).rpartition('.')[2]}_result"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Play:
    """One play of the window: a batch (counted from 0) of a step on its hosts."""

    step: str
    batch: int
    batches: int
    hosts: tuple[str, ...]

    @property
    def title(self) -> str:
        """The play's name in Ansible's output."""
        return f"Step {self.step}" + (f" ({self.batch + 1} of {self.batches})" if self.batches > 1 else "")


@dataclass(frozen=True)
class Inventory:
    """What a declaration may name: groups with their hosts in inventory order, and the control host.

    ``find_task_file`` returns the absolute path of a declared task file, None when there is no such file.
    """

    groups: Mapping[str, Sequence[str]]
    control: str
    find_task_file: Callable[[str], str | None]

    @property
    def hosts(self) -> list[str]:
        """All hosts."""
        return list(dict.fromkeys(host for members in self.groups.values() for host in members))

    def resolve(self, name: str, *, step: str) -> tuple[str, ...]:
        """Return the hosts that ``name`` (a group or a host) stands for. Raise Refusal for a name that is neither."""
        if name in self.groups:
            return tuple(self.groups[name])
        hosts = self.hosts
        if name in hosts:
            return (name,)
        raise refuse(
            f"step {step} names {name}, which is neither a group nor a host of this inventory",
            f"{suggest(name, [*self.groups, *hosts])}Correct the name in hosts or batches of step {step}",
        )


def refuse(problem: str, next_step: str) -> Refusal:
    """Return a refusal of the list of steps."""
    return Refusal(obj="window_steps", problem=problem, next_step=next_step)


def suggest(name: str, names: Iterable[str]) -> str:
    """Return ``Did you mean NAME? `` with the name that is most like ``name``; empty when none is."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"Did you mean {near[0]}? " if near else ""


def split_names(value: Any) -> list[str]:
    """Return a list of names from a list, or a text with commas or lines, without empty ones (a blank survey answer is
    no name)."""
    items = [value] if isinstance(value, str) else list(value or ())
    return [name for item in items for part in re.split(r"[,\n]", str(item)) for name in [part.strip()] if name]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _check_keys(entry: Any) -> str:
    if not isinstance(entry, dict) or not _is_name(entry.get("name")):
        raise refuse(f"an entry has no name ({entry!r})", "Give each step a name")
    known = {item.name for item in fields(Step)} | {"hosts"}
    name = str(entry["name"])
    for key in sorted(set(entry) - known, key=str):
        hint = f"{suggest(str(key), known)}Known keys: {', '.join(sorted(known))}"
        if key in OLD_KEYS:
            hint = f"Use {OLD_KEYS[key]} instead"
        raise refuse(f"step {name} has the unknown key {key}", hint)
    if bool(entry.get("role")) == bool(entry.get("tasks")):
        given = "both role and tasks" if entry.get("role") else "neither role nor tasks"
        raise refuse(f"step {name} has {given}", "Give the role that performs it, or a file of tasks")
    return name


def _as_names(entry: Mapping[str, Any], key: str, value: Any) -> list[str]:
    """Return the names in a value of ``key``. Raise Refusal for what is neither a text nor a list of texts."""
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(item is None or isinstance(item, str) for item in items):
        raise refuse(f"step {entry['name']} has {key}: {value!r}", "Give a name or a list of names")
    return split_names(value)


def _as_bool(entry: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = entry.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise refuse(f"step {entry['name']} has {key}: {value!r}", "Give true or false")
    return value


def _as_estimate(entry: Mapping[str, Any]) -> float | None:
    value = entry.get("estimate")
    try:
        seconds = None if value is None else -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise refuse(f"step {entry['name']} has the estimate {value!r}", "Give seconds as a number")
    return seconds


def _read_batches(entry: Mapping[str, Any], inventory: Inventory) -> tuple[tuple[str, ...], ...] | None:
    name = str(entry["name"])
    declared = entry.get("batches")
    hosts = [
        host for item in _as_names(entry, "hosts", entry.get("hosts")) for host in inventory.resolve(item, step=name)
    ]
    if declared is None:
        return (tuple(dict.fromkeys(hosts)),) if entry.get("hosts") is not None else None
    if isinstance(declared, str) or not isinstance(declared, (list, tuple)) or not declared:
        raise refuse(
            f"step {name} has batches: {declared!r}", "Give a list; each item is a host, a group or a list of them"
        )
    batches = [
        tuple(
            dict.fromkeys(
                host for item in _as_names(entry, "batches", batch) for host in inventory.resolve(item, step=name)
            )
        )
        for batch in declared
    ]
    flat = [host for batch in batches for host in batch]
    twice = sorted({host for host in flat if flat.count(host) > 1})
    if twice:
        raise refuse(f"step {name} has host {twice[0]} in two batches", "Leave it in one of them")
    if hosts and set(hosts) != set(flat):
        different = sorted(set(hosts) ^ set(flat))
        raise refuse(
            f"step {name} has hosts and batches that differ by {', '.join(different)}",
            "Leave out hosts: it is the union of the batches",
        )
    return tuple(batches)


def _list_declared_names(entry: Mapping[str, Any]) -> list[str]:
    """Return the names in hosts and batches, as declared."""
    batches = [name for batch in entry.get("batches") or () for name in split_names(batch)]
    return list(dict.fromkeys([*split_names(entry.get("hosts")), *batches]))


def _find_task_file(entry: Mapping[str, Any], inventory: Inventory) -> str | None:
    path = entry.get("tasks")
    if not path:
        return None
    absolute = inventory.find_task_file(str(path))
    if absolute is None:
        raise refuse(
            f"step {entry['name']} has tasks: {path}, and there is no such file",
            "Give a path relative to the directory of the inventory or the playbook, or to the working directory "
            "(in AWX the project), or an absolute one",
        )
    return str(absolute)


def _read_step(entry: Any, inventory: Inventory, earlier: Mapping[str, Step]) -> Step:
    name = _check_keys(entry)
    reverts = entry.get("reverts") or None
    if reverts is not None and not isinstance(reverts, str):
        raise refuse(f"step {name} has reverts: {reverts!r}", "Give the name of one step")
    batches = _read_batches(entry, inventory)
    if batches is None:
        if reverts is None:
            raise refuse(f"step {name} has no hosts", "Give hosts or batches: names of hosts or groups")
        reversible = earlier.get(reverts)  # without one the reference is refused, once all names are known
        batches = tuple(reversed(reversible.batches)) if reversible else ((inventory.control,),)
    if not any(batches):
        raise refuse(
            f"step {name} has no host: {', '.join(_list_declared_names(entry)) or 'the list'} is empty",
            "Fill the group, or leave the step out of window_steps",
        )
    return Step(
        name=name,
        role=str(entry["role"]) if entry.get("role") else None,
        tasks_from=str(entry.get("tasks_from") or "main"),
        tasks=_find_task_file(entry, inventory),
        batches=batches,
        plan=_as_bool(entry, "plan", bool(reverts)),
        reverts=reverts,
        needs=tuple(_as_names(entry, "needs", entry.get("needs"))),
        only_after=tuple(_as_names(entry, "only_after", entry.get("only_after"))),
        reads_only=_as_bool(entry, "reads_only"),
        irreversible=_as_bool(entry, "irreversible"),
        estimate=_as_estimate(entry),
        in_turn=_as_bool(entry, "in_turn"),
    )


class Declaration:
    """The ordered steps of a window. Iterating gives them in order."""

    def __init__(self, steps: Iterable[Step]) -> None:
        """Take steps that were checked before (:meth:`from_entries`, or a journal's)."""
        self._steps = {step.name: step for step in steps}
        self._order = {name: number for number, name in enumerate(self._steps)}

    @classmethod
    def from_entries(cls, entries: Sequence[Any], inventory: Inventory) -> Declaration:
        """Check ``window_steps`` against the inventory.

        Raise Refusal for: an unknown key, host or group; a step twice; a reference to a step that is absent, later or
        forms a circle; reversible steps that cross; a step that needs what is reverted before it.
        """
        if not isinstance(entries, (list, tuple)) or not entries:
            raise refuse("the list is empty", "Declare every step of the window, in its order")
        names = [_check_keys(entry) for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise refuse(f"step {twice[0]} is declared twice", "Give each step a name of its own")
        _check_circles(
            {name: _as_names(entry, "needs", entry.get("needs")) for name, entry in zip(names, entries, strict=True)}
        )
        steps: dict[str, Step] = {}
        for entry in entries:
            step = _read_step(entry, inventory, steps)
            steps[step.name] = step
        declaration = cls(steps.values())
        for step in declaration:
            declaration._check_references(step)
        declaration._check_nesting()
        return declaration

    @classmethod
    def from_dicts(cls, steps: Iterable[Mapping[str, Any]]) -> Declaration:
        """Return the declaration that :meth:`as_dicts` wrote, as a journal has it."""
        known = {item.name for item in fields(Step)}
        lists = ("needs", "only_after")
        return cls(
            Step(
                **{
                    **{key: value for key, value in values.items() if key in known and key not in lists},
                    **{key: tuple(values.get(key) or ()) for key in lists},
                    "batches": tuple(tuple(batch) for batch in values.get("batches") or ()),
                }
            )
            for values in steps
        )

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return plain values for JSON."""
        return [step.as_dict() for step in self]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps.values())

    def __contains__(self, name: object) -> bool:
        return name in self._steps

    def __getitem__(self, name: str) -> Step:
        """Return the step. Raise Refusal, with the declared names, when there is none."""
        if name not in self._steps:
            raise Refusal(
                obj=f"step {name}",
                problem=f"it is not in window_steps ({', '.join(self._steps)})",
                next_step=f"{suggest(name, self._steps)}Declare it there, or correct the name",
            )
        return self._steps[name]

    def get(self, name: str) -> Step | None:
        """Return the step, None when there is none."""
        return self._steps.get(name)

    @property
    def plays(self) -> list[Play]:
        """The plays in the order in which they run; a batch without hosts has none."""
        return [
            Play(step.name, number, len(step.batches), batch)
            for step in self
            for number, batch in enumerate(step.batches)
            if batch
        ]

    def find_play(self, step: str, batch: int) -> int:
        """Return the position of a play in :attr:`plays`. Raise Refusal when the declaration has none."""
        self[step]
        for number, play in enumerate(self.plays):
            if (play.step, play.batch) == (step, batch):
                return number
        raise Refusal(
            obj=f"step {step}",
            problem=f"it has no batch number {batch + 1} with hosts",
            next_step="Import the playbook step once for each step of window_steps, and no other",
        )

    def find_reverting(self, name: str) -> Step | None:
        """The step that reverts ``name``; None when nothing does."""
        return next((step for step in self if step.reverts == name), None)

    def list_needing(self, name: str) -> list[Step]:
        """The steps that declare that they need ``name``."""
        return [step for step in self if name in step.needs]

    def is_reverting_all(self, step: Step) -> bool:
        """Whether the reverting step, on any of its hosts, reverts for all hosts: others performed the reversible
        step."""
        reversible = self._steps.get(step.reverts or "")
        return reversible is not None and set(reversible.hosts) != set(step.hosts)

    def _check_references(self, step: Step) -> None:
        if step.in_turn and not step.reverts:
            raise refuse(
                f"step {step.name} has in_turn and reverts nothing", "Leave it out: every other step runs in its turn"
            )
        reverts = (step.reverts,) if step.reverts else ()
        earlier = list(self._steps)[: self._order[step.name]]
        for key, names in (("needs", step.needs), ("only_after", step.only_after), ("reverts", reverts)):
            for name in names:
                if name not in earlier:
                    hint = "" if name in self._steps else suggest(name, earlier)
                    raise refuse(
                        f"step {step.name} has {key}: {name}, which is no step before it",
                        f"{hint}Name a step that stands earlier in the list",
                    )

    def _check_nesting(self) -> None:
        """Reversible steps are reverted in reverse order, each once."""
        open_steps: list[str] = []
        reverted: dict[str, str] = {}
        for step in self:
            for name in step.needs:
                if name in reverted:
                    raise refuse(
                        f"step {step.name} needs {name}, which {reverted[name]} reverts before it",
                        f"Put it before {reverted[name]}",
                    )
            if step.reverts is None:
                if self.find_reverting(step.name) is not None:
                    open_steps.append(step.name)
                continue
            if self[step.reverts].reverts is not None:
                raise refuse(
                    f"step {step.name} reverts {step.reverts}, which reverts a step itself",
                    "Revert only steps that revert nothing",
                )
            if step.reverts in reverted or not open_steps or open_steps[-1] != step.reverts:
                inner = open_steps[-1] if open_steps else reverted.get(step.reverts, step.reverts)
                raise refuse(
                    f"step {step.name} reverts {step.reverts}, but {inner} comes first",
                    "Revert in the reverse order, each step once",
                )
            reverted[open_steps.pop()] = step.name

    def select(self, *, only: Iterable[str], skip: Iterable[str]) -> frozenset[str]:
        """Return the names of the steps that are left by ``window_only`` (with what these need and what reverts that)
        and ``window_skip``. Raise Refusal for an unknown name, and for a step left out on which another one rests."""
        only, skip = list(only), list(skip)
        for name in (*only, *skip):
            self[name]
        chosen = set(only) or set(self._steps)
        while True:
            more = {need for name in chosen for need in self[name].needs}
            more |= {step.name for name in chosen if (step := self.find_reverting(name))}
            more |= {reverts for name in chosen if (reverts := self[name].reverts)}
            if more <= chosen:
                break
            chosen |= more
        chosen -= set(skip)
        for name in sorted(chosen, key=self._order.__getitem__):
            step = self[name]
            for other in (*step.needs, *filter(None, [step.reverts])):
                if other not in chosen:
                    verb = "reverts" if step.reverts == other else "needs"
                    raise refuse(f"window_skip leaves out {other}, which {name} {verb}", f"Leave out {name} as well")
            reverting = self.find_reverting(name)
            if reverting is not None and reverting.name not in chosen:
                raise refuse(
                    f"window_skip leaves out {reverting.name}, which reverts {name}", f"Leave out {name} as well"
                )
        return frozenset(chosen)


def _check_circles(needs: Mapping[str, Sequence[str]]) -> None:
    """Refuse a circle by showing it; otherwise it would only be called a step that comes too late."""
    without: set[str] = set()

    def follow(path: list[str]) -> None:
        for name in needs.get(path[-1], ()):
            if name in path:
                shown = " -> ".join([*path[path.index(name) :], name])
                raise refuse(f"needs form a circle: {shown}", "Take one of these needs away")
            if name not in without:
                follow([*path, name])
        without.add(path[-1])

    for start in needs:
        follow([start])
