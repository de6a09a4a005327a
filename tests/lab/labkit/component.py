# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a component of the lab is, and how components are found. Adding one is one file in ../components."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.lab import Lab

COMPONENTS = Path(__file__).resolve().parents[1] / "components"


class Component(ABC):
    """One server, or one set of servers that only makes sense together.

    Every verb may be called at any time and again: on a fresh machine, on a running lab, on the remains of a killed
    run. ``install`` runs outside the lab's network (it may download); all other verbs run in a thread that is inside
    it, so plain sockets, urllib and subprocesses reach the lab's addresses and nothing else.
    """

    name: ClassVar[str]
    """Name on the command line, of the state directory and of the key in the facts."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Components that must be ready before this one is started."""

    @abstractmethod
    def install(self, lab: Lab) -> None:
        """Bring packages, binaries and images into ``lab.cache``; nothing to do when they are there already."""

    @abstractmethod
    def start(self, lab: Lab) -> None:
        """Write configuration and spawn processes with ``lab.spawn`` (which leaves a living process alone)."""

    @abstractmethod
    def ready(self, lab: Lab) -> None:
        """Return when the component serves; else ``lab.wait_for`` raises and names the cause."""

    @abstractmethod
    def facts(self, lab: Lab) -> dict[str, Any]:
        """What a test or an inventory needs in order to use the component, from the running servers."""

    def stop(self, lab: Lab) -> None:
        """Stop all processes, last started first. Override where something must be stopped before or cleaned after.

        After this `lab down` kills what is left in the lab's cgroups and network namespace and unmounts everything
        below the state directory, so that only things elsewhere on the machine need care here.
        """
        for process in reversed(lab.processes(self.name)):
            lab.stop_process(self.name, process.name)


def discover(folder: Path = COMPONENTS) -> dict[str, Component]:
    """All components by name: the one ``Component`` subclass of each file in ``folder``."""
    found: dict[str, Component] = {}
    for path in sorted(folder.glob("[a-z]*.py")):
        module = importlib.import_module(f"components.{path.stem}")
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Component) and value.__module__ == module.__name__
        ]
        if len(classes) != 1:
            raise LabError(
                obj=f"component file {path.name}",
                problem=f"it defines {len(classes)} Component classes",
                next_step="Define exactly one in each file",
            )
        component: Component = classes[0]()
        found[component.name] = component
    return found


def in_order(wanted: list[str], components: dict[str, Component]) -> list[Component]:
    """``wanted`` (all when empty) and what they require, each after what it requires."""
    ordered: dict[str, Component] = {}
    pending: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name not in components:
            raise LabError(
                obj=f"component {name!r}",
                problem="there is no such component",
                next_step=f"Choose from: {', '.join(sorted(components))}",
            )
        if name in pending:
            raise LabError(
                obj=f"component {name!r}",
                problem=f"it requires itself: {' -> '.join([*pending, name])}",
                next_step="Remove one of these requirements",
            )
        pending.append(name)
        for required in components[name].requires:
            visit(required)
        pending.pop()
        ordered[name] = components[name]

    for name in wanted or sorted(components):
        visit(name)
    return list(ordered.values())
