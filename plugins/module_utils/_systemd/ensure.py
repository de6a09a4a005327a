# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the module systemd_units. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import calendar
import re
import time
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from . import probes, releases
from .apply import Limits, Run
from .lock import hold_host
from .manager import Manager
from .plan import (
    Decision,
    decide,
    find_unread,
    find_unread_starts,
    flatten,
    list_plan,
    order_stops,
    refuse_entangled,
    refuse_pulled,
    refuse_short_limits,
    refuse_unmanageable,
)
from .releases import LinkState, read_links, read_links_left
from .summary import describe_link, describe_unit, list_amiss, summarize
from .units import Release, Unit, UnitState, parse_tiers

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .._common.outcome import Outcome

ARGUMENT_SPEC: dict[str, t.Any] = {
    "tiers": {"type": "list", "elements": "raw", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped", "restarted"], "default": "started"},
    "restarted_after": {"type": "str"},
    "on_busy": {"type": "str", "choices": ["fail", "stop"], "default": "fail"},
    "canary_seconds": {"type": "float", "default": 0.0},
    "log_lines": {"type": "int", "default": 20},
    "lock_timeout": {"type": "float", "default": 300.0},
}
RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(?:Z|([+-])(\d\d):(\d\d))")


def parse_time(text: str) -> float:
    """Return an RFC 3339 time in seconds since the epoch."""
    match = RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S")) + float(match[2] or 0)
    except ValueError as error:
        raise Refusal(
            obj="restarted_after",
            problem=f"{text!r} is no time after RFC 3339",
            next_step="Give one with its zone, for example 2026-11-26T02:00:00Z",
        ) from error
    if match[3]:
        seconds -= int(f"{match[3]}1") * (int(match[4]) * 3600 + int(match[5]) * 60)
    return seconds


def read_restarted_after(params: t.Mapping[str, t.Any]) -> float | None:
    """Return the time before which processes are too old. Refuse ``restarted`` without one, and one in the future."""
    given = params["restarted_after"]
    if params["state"] != "restarted":
        return None
    if not given:
        raise Refusal(
            obj="state restarted",
            problem="restarted_after is not set, so a second run would restart everything once more",
            next_step="Set restarted_after to the time of this change; units that were started later stay as they are",
        )
    after = parse_time(given)
    if after > time.time():
        raise Refusal(
            obj="restarted_after",
            problem=f"{given} is in the future, so every run until then would restart everything",
            next_step="Give a time that has passed, and look at the clock of this host",
        )
    return after


def ensure_units(module: AnsibleModule, outcome: Outcome) -> None:
    """Bring the units of this host to the declared state: one plan over all tiers, all refusals before any change."""
    params = module.params
    tiers = parse_tiers(params["tiers"])
    after = read_restarted_after(params)
    limits = Limits(params["on_busy"], params["canary_seconds"], params["log_lines"])
    run = Run(tiers, Manager(), outcome, limits)
    if module.check_mode:
        perform(run, state=params["state"], restarted_after=after)
        return
    deadline = Deadline(params["lock_timeout"])
    with hold_host(deadline):
        outcome.waited += deadline.elapsed
        perform(run, state=params["state"], restarted_after=after)


def perform(run: Run, *, state: str, restarted_after: float | None) -> None:
    """Read, decide, and unless this is check mode do it."""
    outcome = run.outcome
    states = _find_own_names(run)
    units = flatten(run.tiers)
    links = {} if state == "stopped" else read_links(units)
    related = run.related
    related.update(states)
    while find_unread(related):
        related.update(run.manager.show(find_unread(related)))
    decision = decide(run.tiers, related, links, state=state, restarted_after=restarted_after)
    refuse_entangled(run.tiers, related, decision)
    while find_unread_starts(decision, related):
        related.update(run.manager.show(find_unread_starts(decision, related)))
    refuse_pulled(run.tiers, related, decision)
    refuse_unmanageable(run.tiers, related, decision)
    refuse_short_limits(units, states, decision)
    outcome.plan = list_plan(run.tiers, related, decision, links)
    outcome.before = _describe(states, links, set())
    run.collect_kills(states, decision)
    if outcome.check_mode:
        _predict(run, units, states, links, decision)
        return
    try:
        _apply(run, decision, links, state)
    except OpsError as cause:
        run.collect_evidence()
        error = _take_back(run, decision, links, cause, state)
        run.cancel_drains()
        _report(run, units, state, failed=True)
        raise error from cause
    unread: OpsError | None = None
    try:
        for release in [*decision.switch, *decision.unproven]:
            run.outcome.changed = True
            releases.forget_previous(release)
    finally:
        unread = _report(run, units, state, failed=False)
    if unread is not None:
        raise unread


def _find_own_names(run: Run) -> dict[str, UnitState]:
    """Return the states of the declared units. An alias is the unit that it stands for from here on."""
    shown = run.manager.show([unit.name for unit in flatten(run.tiers)])
    states: dict[str, UnitState] = {}
    for unit in flatten(run.tiers):
        own = shown[unit.name].own_name
        if own in states:
            raise Refusal(
                obj=f"unit {own}", problem=f"it is declared twice, once as {unit.name}", next_step="Leave one of them"
            )
        states[own] = shown[unit.name]._replace(name=own)
    run.tiers = [[unit._replace(name=shown[unit.name].own_name) for unit in tier] for tier in run.tiers]
    return states


def _apply(run: Run, decision: Decision, links: t.Mapping[str, LinkState], state: str) -> None:
    run.stop(decision)
    if state == "stopped":
        return
    run.switch(decision, links)
    run.stop_woken(decision)
    run.start()
    run.watch(decision)


def _take_back(run: Run, decision: Decision, links: t.Mapping[str, LinkState], cause: OpsError, state: str) -> OpsError:
    """Put back what this run, or a killed one before it, has switched; or start again what it has stopped.

    What did not drain or stop proves nothing against a release, which therefore stays.
    """
    if run.is_stopping:
        return run.bring_back(cause) if run.stopped and state != "stopped" else cause
    unproven: dict[str, tuple[Release, str]] = {
        release.link: (release, links[release.link].previous) for release in decision.unproven
    }
    for release in decision.switch:
        previous = links[release.link].previous or links[release.link].target
        if release.link in run.switched and previous != release.target:
            unproven[release.link] = (release, previous)
    if unproven:
        return run.put_back(unproven, decision, cause)
    if run.stopped and not run.started and state != "stopped":
        return run.bring_back(cause)
    return cause


def _predict(
    run: Run,
    units: t.Sequence[Unit],
    states: t.Mapping[str, UnitState],
    links: t.Mapping[str, LinkState],
    due: Decision,
) -> None:
    """Say what a run would do, and what each unit says of itself now."""
    outcome = run.outcome
    outcome.changed = due.due
    outcome.after = _describe(states, links, set(due.stop) & set(due.start))
    outcome.after.update({f"unit {name}": "inactive" for name in due.stop if name not in due.start})
    outcome.after.update({f"unit {name}": "active" for name in due.start if name not in due.stop})
    outcome.after.update({release.link: release.target for release in due.switch})
    names = [unit.name for unit in units]
    outcome.summary = summarize(
        units,
        [unit.name for unit in order_stops(run.tiers, run.related, due.stop)],
        [name for name in names if name in due.start],
        [release.link for release in due.switch],
        mode="would",
        killed=_name_killed(outcome),
    )
    for unit in units:
        shown = states[unit.name]
        proof = ""
        if unit.ready is not None and shown.running:
            why = probes.find_unready(unit.ready)
            proof = f"not ready: {why}" if why else "ready"
        outcome.evidence.append(describe_unit(unit, shown, proof))
    outcome.evidence += run.notes


def _report(run: Run, units: t.Sequence[Unit], state: str, *, failed: bool) -> OpsError | None:
    """Read back, also after a failure, what there is now. Return why the units could not be read.

    Nothing is refused any more. What cannot be read is told as such, beside what the run did.
    """
    outcome = run.outcome
    unread: OpsError | None = None
    try:
        states = run.manager.show([unit.name for unit in units])
    except OpsError as error:
        unread = error
        run.notes.append(f"how the units were left could not be read: {error}")
        states = {unit.name: run.related[unit.name] for unit in units}
    links, unread_links = ({}, []) if state == "stopped" else read_links_left(units)
    run.notes += unread_links
    outcome.after = _describe(states, links, set(run.stopped) & set(run.started))
    if outcome.facts.get("rolled_back"):
        outcome.summary = f"put back after a failure: {', '.join(link.target for link in links.values())}"
    else:
        started = [name for name in dict.fromkeys(run.started) if unread or states[name].serving]
        amiss = ["how the units were left could not be read"] if unread else list_amiss(units, states, state)
        outcome.summary = summarize(
            units,
            list(dict.fromkeys(run.stopped)),
            started,
            run.switched,
            mode="failed" if failed else "did",
            amiss=amiss,
            killed=_name_killed(outcome),
        )
    if not unread:
        outcome.evidence += [describe_unit(unit, states[unit.name], run.proofs.get(unit.name, "")) for unit in units]
    outcome.evidence += [describe_link(path, link) for path, link in links.items()]
    outcome.evidence += run.notes
    outcome.facts.setdefault("rolled_back", False)
    outcome.facts["units"] = [
        {
            "name": unit.name,
            "tier": unit.tier,
            "state": "unknown" if unread else states[unit.name].active,
            "ready": unit.name in run.proofs,
            "stopped": unit.name in run.stopped,
            "started": unit.name in run.started,
        }
        for unit in units
    ]
    return unread


def _name_killed(outcome: Outcome) -> list[str]:
    return [entry["unit"] for entry in outcome.facts["out_of_memory"]]


def _describe(
    states: t.Mapping[str, UnitState], links: t.Mapping[str, LinkState], anew: t.Collection[str]
) -> dict[str, str]:
    """Return what a diff compares, in words that a prediction can have too: a unit's state, a link's target."""
    words = {
        f"unit {name}": f"{shown.active}, started anew" if name in anew else shown.active
        for name, shown in states.items()
    }
    return {**words, **{path: link.target for path, link in links.items()}}
