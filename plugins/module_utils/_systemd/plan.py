# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done to units, decided without I/O. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import math
import typing as t

from .._common.errors import Refusal
from .._common.outcome import PlanItem
from .._common.timestamps import format_utc
from .releases import LinkState
from .units import DEPENDENCIES, Release, Unit, UnitState

ACTORS = (".service", ".socket", ".timer", ".path")
"""The kinds of units of which something runs, or that start it."""
Tiers = t.Sequence[t.Sequence[Unit]]
States = t.Mapping[str, UnitState]


class Decision(t.NamedTuple):
    """What is due: each unit to stop and to start, with why; links to switch; links that are not proven yet."""

    stop: dict[str, str]
    start: dict[str, str]
    switch: list[Release]
    unproven: list[Release]

    @property
    def due(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.stop or self.start or self.switch or self.unproven)


def flatten(tiers: Tiers) -> list[Unit]:
    """Return the units in start order."""
    return [unit for tier in tiers for unit in tier]


def decide(
    tiers: Tiers, states: States, links: t.Mapping[str, LinkState], *, state: str, restarted_after: float | None
) -> Decision:
    """Return what is due for ``state`` started, stopped or restarted. Refuse what systemd cannot do."""
    units = flatten(tiers)
    for unit in units:
        _check_loaded(states[unit.name], state)
    if state == "stopped":
        stop = {unit.name: "asked to be stopped" for unit in units if states[unit.name].running and not unit.shared}
        return Decision(stop=stop, start={}, switch=[], unproven=[])
    start = {unit.name: f"it is {states[unit.name].describe()}" for unit in units if not states[unit.name].serving}
    stop = _find_restarts(units, states, links, restarted_after if state == "restarted" else None)
    _add_dependents(units, states, stop)
    stop = {name: why for name, why in stop.items() if states[name].running}
    start.update({name: f"stopped before: {why}" for name, why in stop.items() if name not in start})
    switch: dict[str, Release] = {}
    unproven: dict[str, Release] = {}
    for unit in units:
        if unit.release is not None:
            link = links[unit.release.link]
            if link.target != unit.release.target:
                switch[unit.release.link] = unit.release
            elif link.previous:
                unproven[unit.release.link] = unit.release
    return Decision(stop=stop, start=start, switch=list(switch.values()), unproven=list(unproven.values()))


def _check_loaded(state: UnitState, target: str) -> None:
    if state.load == "not-found" and not (target == "stopped" and state.running):
        raise Refusal(
            obj=f"unit {state.name}",
            problem="systemd on this host knows no such unit",
            next_step="Correct its name, or install it and run `systemctl daemon-reload`",
        )
    if target == "stopped":
        return
    if state.load != "loaded":
        raise Refusal(
            obj=f"unit {state.name}",
            problem=f"its LoadState is {state.load}, so it cannot be started",
            next_step=f"See `systemctl status {state.name}`; a masked unit needs `systemctl unmask`",
        )
    if state.outdated:
        raise Refusal(
            obj=f"unit {state.name}",
            problem="its file has changed since systemd read it, so what would be started is not what is on the disk",
            next_step="Run `systemctl daemon-reload` on the host",
        )


def _find_restarts(
    units: t.Iterable[Unit], states: States, links: t.Mapping[str, LinkState], after: float | None
) -> dict[str, str]:
    """Return the units whose processes are older than what is declared, and why."""
    due: dict[str, str] = {}
    for unit in units:
        shown = states[unit.name]
        if unit.shared:
            continue
        if unit.release is not None:
            link = links[unit.release.link]
            if link.target != unit.release.target:
                due[unit.name] = f"its release is {link.target}"
            elif shown.entered < link.switched and link.previous:
                due[unit.name] = f"it was started before its release was switched to {link.target}"
        if after is not None and unit.name not in due and shown.entered < after:
            due[unit.name] = f"it runs since {format_utc(shown.entered)}, before {format_utc(after)}"
    return due


def _add_dependents(units: t.Sequence[Unit], states: States, due: dict[str, str]) -> None:
    """Add the declared units that systemd stops together with one that is due, so that they are drained before."""
    declared = {unit.name: unit for unit in units}
    pending = list(due)
    while pending:
        name = pending.pop()
        for other in find_dependents(name, states):
            if other in declared and other not in due and states[other].running:
                if declared[other].shared:
                    raise Refusal(
                        obj=f"unit {other}",
                        problem=f"it is shared, and systemd stops it together with {name} ({due[name]})",
                        next_step=f"Declare {name} as shared too, or take the dependency from {other}",
                    )
                due[other] = f"it requires {name}, which is restarted"
                pending.append(other)


def find_dependents(name: str, states: States) -> list[str]:
    """Return all that systemd stops together with a unit, through units of every kind, running or not."""
    known = {name}
    dependents: list[str] = []
    pending = [name]
    while pending:
        for other in states[pending.pop(0)].needed_by:
            if other not in known:
                known.add(other)
                dependents.append(other)
                pending.append(other)
    return dependents


def order_stops(tiers: Tiers, states: States, names: t.Container[str]) -> list[Unit]:
    """Return the units in the order in which they are stopped: the reverse of the declaration.

    What systemd would stop together with a unit, or what starts it again whenever it is down, goes before it, wherever
    it is declared.
    """
    left = {unit.name: unit for unit in reversed(flatten(tiers)) if unit.name in names}
    ordered: list[Unit] = []

    def take(name: str) -> None:
        unit = left.pop(name)
        before = {*find_dependents(name, states), *states[name].upheld_by}
        for other in list(left):
            if other in before and other in left:
                take(other)
        ordered.append(unit)

    while left:
        take(next(iter(left)))
    return ordered


def find_unread(states: States) -> list[str]:
    """Return the units that the read ones name, as dependents or as what starts them, and that were not read yet."""
    named = {other for shown in states.values() for other in (*shown.needed_by, *shown.triggered_by, *shown.upheld_by)}
    return sorted(named - set(states))


def find_pulled(decision: Decision, states: States) -> dict[str, list[str]]:
    """Return all that systemd would start together with what is due, each with the way to it from a unit that is due.

    It goes on only through what does not run. The socket, timer or path of a unit belongs to it, and is none of these.
    """
    ways: dict[str, list[str]] = {name: [] for name in decision.start}
    pending = list(ways)
    while pending:
        name = pending.pop(0)
        if name not in states:
            continue
        for other in states[name].pulls:
            if other not in ways and other not in states[name].triggered_by:
                ways[other] = [*ways[name], name]
                if other not in states or not states[other].running:
                    pending.append(other)
    return {name: way for name, way in ways.items() if way}


def find_unread_starts(decision: Decision, states: States) -> list[str]:
    """Return the units that a start would start or stop too, and that were not read yet."""
    pulled = find_pulled(decision, states)
    started = [name for name in (*decision.start, *pulled) if name in states and not states[name].running]
    named = {*pulled, *(other for name in (*decision.start, *started) for other in states[name].rivals)}
    return sorted(named - set(states))


def refuse_pulled(tiers: Tiers, states: States, decision: Decision) -> None:
    """Refuse to start what starts or stops units that nobody declared.

    A target by itself is nothing that runs, and a oneshot that does not remain ends by itself, so only what they start
    in turn counts.
    """
    declared = {unit.name for unit in flatten(tiers)}
    pulled = {name: way for name, way in find_pulled(decision, states).items() if not states[name].running}
    for name, way in pulled.items():
        shown = states[name]
        ends = shown.kind == "oneshot" and not shown.remains
        if name in declared or shown.load != "loaded" or ends or not name.endswith(ACTORS):
            continue
        through = f" (through {', '.join(way[1:])})" if way[1:] else ""
        step = "Declare it in a tier" if name.endswith(".service") else "Start it first"
        raise Refusal(
            obj=f"unit {name}",
            problem=f"it does not run, is not declared, and systemd would start it together with {way[0]}{through}",
            next_step=f"{step}, or take the dependency on it from {way[-1]}: "
            f"`systemctl show --property={','.join(DEPENDENCIES)} {way[-1]}`",
        )
    for name in (*decision.start, *pulled):
        for other in states[name].rivals:
            if states[other].running or other in decision.start:
                kind = "is declared too" if other in declared else "is not declared"
                kind = f"runs, {kind}" if states[other].running else kind
                raise Refusal(
                    obj=f"unit {other}",
                    problem=f"it {kind}, and systemd would stop it when {name} is started (Conflicts=)",
                    next_step=f"Stop {other} first, or take Conflicts= from the one or the other",
                )


def list_stoppable(tiers: Tiers, decision: Decision) -> list[str]:
    """Return the units that this run stops, or may stop to put a release back."""
    moved = {release.link for release in (*decision.switch, *decision.unproven)}
    return [
        unit.name
        for unit in flatten(tiers)
        if unit.name in decision.stop or (unit.release is not None and unit.release.link in moved)
    ]


def refuse_entangled(tiers: Tiers, states: States, decision: Decision) -> None:
    """Refuse to stop what running units that nobody declared need, and what would be started again at once.

    An active target counts like any other unit: it would be down, and nothing would start it again.
    """
    declared = {unit.name: unit for unit in flatten(tiers)}
    stoppable = list_stoppable(tiers, decision)
    for name in stoppable:
        for other in find_dependents(name, states):
            is_shared = other in declared and declared[other].shared
            if other in stoppable or (other in declared and not is_shared) or not states[other].running:
                continue
            kind = "is shared" if is_shared else "is not declared"
            raise Refusal(
                obj=f"unit {other}",
                problem=f"it runs, {kind}, and systemd would stop it together with {name}",
                next_step=f"Take the dependency from it, or mark {name} as shared"
                if is_shared
                else f"{_explain_dependent(other, name)}, or mark {name} as shared",
            )
    for name in decision.stop:
        if name in decision.start:
            continue
        for trigger in (*states[name].triggered_by, *states[name].upheld_by):
            if states[trigger].running and trigger not in decision.stop:
                raise Refusal(
                    obj=f"unit {name}",
                    problem=f"{trigger} is active and would start it again while it is to be stopped",
                    next_step=f"Stop {trigger} first, and start it again after this change",
                )


def refuse_unmanageable(tiers: Tiers, states: States, decision: Decision) -> None:
    """Refuse what systemd would not start or stop when told to, before anything else is stopped for it."""
    stoppable = list_stoppable(tiers, decision)
    for unit in flatten(tiers):
        shown = states[unit.name]
        back = unit.name in decision.start or (unit.name in stoppable and unit.name not in decision.stop)
        if back and not shown.can_start:
            problem, step = "systemd does not start it when told to", "Take RefuseManualStart= from it, or leave it out"
        elif unit.name in stoppable and shown.running and not shown.can_stop:
            problem, step = "systemd does not stop it when told to", "Take RefuseManualStop= from it, or leave it out"
        elif back and unit.name in stoppable and shown.running and shown.transient:
            problem = "it has no file (systemd-run), so it could not be started again once it was stopped"
            step = "Give it a unit file, or leave it out"
        else:
            continue
        raise Refusal(obj=f"unit {unit.name}", problem=problem, next_step=f"{step}; nothing was stopped")


def _explain_dependent(other: str, name: str) -> str:
    """Return what to do about a unit that nobody declared and that would be stopped together with another one."""
    if other.endswith(".service"):
        return f"Declare it in a tier after {name}"
    if other.endswith(".target"):
        return f"Let it want {name} (Wants=, WantedBy=) instead of requiring it"
    return f"Stop {other} first"


def refuse_short_limits(units: t.Sequence[Unit], states: States, decision: Decision) -> None:
    """Refuse to give up a start or a stop while systemd goes on with it: nobody would know how it ends."""
    stoppable = list_stoppable([units], decision)
    for unit in units:
        shown = states[unit.name]
        for option, given, limit, is_due, verb in (
            ("start_timeout", unit.start_timeout, shown.start_limit, unit.name in decision.start, "starting"),
            ("stop_timeout", unit.stop_timeout, shown.stop_limit, unit.name in stoppable, "stopping"),
        ):
            theirs = "TimeoutStartSec" if option == "start_timeout" else "TimeoutStopSec"
            if is_due and given and given <= limit < math.inf:
                raise Refusal(
                    obj=f"unit {unit.name}, {option}",
                    problem=f"{given:g} s is not longer than its {theirs}, {limit:g} s, "
                    f"so systemd would go on {verb} it after this run had given up",
                    next_step=f"Leave out {option}, then it waits as long as systemd does, or lower {theirs}",
                )


def list_plan(tiers: Tiers, states: States, decision: Decision, links: t.Mapping[str, LinkState]) -> list[PlanItem]:
    """Return what is done, in its order: stops from the last tier to the first, links, starts in order."""
    units = flatten(tiers)
    items = [
        PlanItem(object=f"unit {unit.name}", what="stop", why=decision.stop[unit.name])
        for unit in order_stops(tiers, states, decision.stop)
    ]
    items += [
        PlanItem(object=release.link, what=f"{links[release.link].target} -> {release.target}", why="declared release")
        for release in decision.switch
    ]
    items += [
        PlanItem(object=release.link, what="prove", why=f"{release.target} is not known to have served yet")
        for release in decision.unproven
    ]
    items += [
        PlanItem(object=f"unit {unit.name}", what="start", why=decision.start[unit.name])
        for unit in units
        if unit.name in decision.start
    ]
    return items
