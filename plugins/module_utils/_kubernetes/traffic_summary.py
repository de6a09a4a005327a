# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line, the plan and the evidence of k8s_traffic, without I/O.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import typing as t

from .._common.outcome import Blocker, PlanItem
from .._common.text import format_count, join_some
from .fields import as_list, as_text, get_path
from .pod_proxy import Reading
from .readings import format_number
from .routes import SELECTOR, Target, format_labels

if t.TYPE_CHECKING:
    from .plans.traffic import Change

NAMED = 10
"""Objects named in a summary at most; the plan and the evidence have all."""
GIVE_BACK = "; the role maintenance_mode with maintenance_mode_state: normal gives it back"
"""After what was switched by a run that is no window: the next window does not give it back."""


def describe_route(key: str, value: t.Any) -> str:
    """Return in words what a route is set to."""
    if key == SELECTOR:
        return format_labels(value or {}) or "no selector"
    if isinstance(value, list):
        return ", ".join(f"{as_text(ref.get('name'))} (weight {ref.get('weight', 1)})" for ref in as_list(value))
    if isinstance(value, dict):
        port = get_path(value, "service", "port") or {}
        name = as_text(get_path(value, "service", "name") or get_path(value, "resource", "name"))
        return f"{name}:{port.get('number') or port.get('name')}" if port else name
    return "not set" if value is None else as_text(value)


def list_plan(title: str, change: Change) -> list[PlanItem]:
    """Return a line of the plan for each route of an object that is to be set."""
    if not change.is_due:
        return []
    if not change.after:
        return [PlanItem(title, "change what is saved on it, and no route", change.reason)]
    return [
        PlanItem(
            title,
            f"{key}: {describe_route(key, change.before.get(key))} -> {describe_route(key, value)}",
            change.reason,
        )
        for key, value in change.after.items()
    ]


def describe_routes(routes: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return routes in words, for the diff."""
    return {key: describe_route(key, value) for key, value in routes.items()}


def summarize_away(
    targets: t.Mapping[str, Target],
    changes: t.Mapping[str, Change],
    *,
    written: t.Collection[str] | None,
    quiet: str,
) -> str:
    """Return one line: what was sent to the maintenance page, or in check mode (``written`` is None) would be.

    ``targets`` and ``changes`` are by the objects' titles; ``quiet`` says what is known of requests in flight.
    """
    due = [title for title, change in changes.items() if change.is_due]
    done = due if written is None else [title for title in due if title in written]
    named = [f"{title} ({targets[title].goal})" for title in done]
    if not due:
        summary = "traffic goes to the maintenance page already"
    elif written is None:
        summary = f"would send traffic to the maintenance page: {join_some(named, limit=NAMED)}"
    elif done:
        summary = f"sent traffic to the maintenance page: {join_some(named, limit=NAMED)}"
    else:
        summary = "no traffic was sent to the maintenance page"
    summary += _name_missing(due, done)
    return f"{summary}; {quiet}" if quiet else summary


def summarize_back(changes: t.Mapping[str, Change], *, written: t.Collection[str] | None, smoke: str) -> str:
    """Return one line: what was given back, or in check mode (``written`` is None) would be, and what stays away.

    ``smoke`` says how many checks have passed before, empty where none was asked for.
    """
    due = [title for title, change in changes.items() if change.is_due]
    done = due if written is None else [title for title in due if title in written]
    left = [title for title, change in changes.items() if change.is_left]
    if written is None and due:
        summary = f"would give traffic back to {join_some(due, limit=NAMED)}"
    elif done:
        summary = f"gave traffic back to {join_some(done, limit=NAMED)}"
    elif due:
        summary = "no traffic was given back"
    else:
        summary = "nothing to give back" if left else "no traffic is in maintenance"
    summary += _name_missing(due, done)
    if left:
        summary += f"; left in maintenance: {join_some(left, limit=NAMED)}"
    others = [title for title, change in changes.items() if change.changed_since]
    if others:
        summary += f"; left as another client has set it since: {join_some(others, limit=NAMED)}"
    return f"{summary}; {smoke}" if smoke else summary


def _name_missing(due: t.Sequence[str], done: t.Sequence[str]) -> str:
    missing = [title for title in due if title not in done]
    return f"; not changed: {join_some(missing, limit=NAMED)}" if missing and done else ""


def describe_quiet(readings: t.Sequence[Reading], seconds: float, *, unknown: t.Sequence[str] = ()) -> str:
    """Return what the last readings of requests in flight say: of how many pods, and for how long it held.

    ``unknown`` are the objects of which it is not known which pods have served their requests.
    """
    pods = {reading.pod for reading in readings}
    total = math.fsum(reading.value or 0.0 for reading in readings)
    known = f"in flight {format_number(total)} in {format_count(len(pods), 'pod')} for {seconds:g} s"
    if unknown:
        known = known if pods else "no workload of in_flight has a pod"
        return f"{known}; which pods served {join_some(unknown, limit=NAMED)} before is not known"
    return known if pods else "no pod is left in which a request could be in flight"


def describe_smoke(readings: t.Sequence[Reading]) -> str:
    """Return how many smoke checks have passed, on how many pods."""
    pods = {reading.pod for reading in readings}
    return f"{format_count(len(readings), 'smoke check')} passed in {format_count(len(pods), 'pod')}" if pods else ""


def describe_unmet(readings: t.Sequence[Reading]) -> str:
    """Return what the readings say that are not as they must be, each once with its pods."""
    pods: dict[str, list[str]] = {}
    for reading in readings:
        if not reading.is_met:
            pods.setdefault(reading.message, []).append(reading.pod)
    return join_some([f"{join_some(names, limit=3)}: {message}" for message, names in pods.items()], limit=3)


def describe_lasting(readings: t.Sequence[Reading]) -> str:
    """Return what the first of these readings says, and of how many other pods the number is not to be had."""
    others = len({reading.pod for reading in readings} - {readings[0].pod})
    also = f" ({format_count(others, 'other pod')} cannot be read either)" if others else ""
    return f"{readings[0].message}{also}"


def list_evidence(
    changes: t.Mapping[str, Change], readings: t.Sequence[Reading], *, highest: t.Mapping[str, float]
) -> list[str]:
    """Return a line for each object and for each reading; ``highest`` is what each pod said at most."""
    lines = [f"{title}: {_describe_change(change)}" for title, change in changes.items()]
    return lines + [f"{reading.pod}: {reading.message}{_describe_highest(reading, highest)}" for reading in readings]


def _describe_highest(reading: Reading, highest: t.Mapping[str, float]) -> str:
    most = highest.get(reading.pod, 0.0)
    return f" (was {format_number(most)})" if reading.value is not None and most > reading.value else ""


def _describe_change(change: Change) -> str:
    routes = "; ".join(item.what for item in list_plan("", change))
    return f"{routes}; {change.reason}" if routes else change.reason


def list_left(title: str, change: Change) -> list[Blocker]:
    """Return what of an object stays as it is on the way back, who holds it, and what to do."""
    blockers: list[Blocker] = []
    if change.is_left and change.saved is not None:
        blockers.append(
            Blocker(
                title,
                f"it stays in maintenance: {change.reason}",
                f"run {change.saved.run_id}",
                "Run the role maintenance_mode with maintenance_mode_state: normal outside a window, or restore_service",
                since=change.saved.at,
            )
        )
    if change.changed_since:
        what = f"{join_some(change.changed_since)}: another client has set it since, and it stays so"
        blockers.append(Blocker(title, what, "another client", "Look at it (kubectl get -o yaml), and set it by hand"))
    return blockers
