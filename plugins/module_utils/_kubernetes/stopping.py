# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stopping and starting a workload means, without I/O. Private to lowtide.ops: do not import from other collections.

What was there before is written in the same patch that changes it, so that any later run, on any controller, can restore it.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .api import Json
from .parse import STOPPED, Record, Scaler, UnreadableRecord, Workload, record

PAUSED = "autoscaling.keda.sh/paused-replicas"


class Change(t.NamedTuple):
    """What one object needs: a merge patch (None: nothing), its replicas before and after, and the reason.

    ``is_left``: it is stopped and stays so, because nothing was saved on it, or because ``stopper`` stopped it.
    """

    body: Json | None
    before: int
    after: int
    why: str
    is_left: bool = False
    stopper: Record | None = None


def stop(view: Workload, *, run: str, at: str) -> Change:
    """Scale to zero (suspend a CronJob) and note what there was; nothing when it is stopped already, whoever did it."""
    if view.replicas == 0:
        return Change(None, 0, 0, _stopped_by(view))
    value = {"suspend": False} if view.kind == "CronJob" else {"replicas": view.replicas}
    note = Record(value, run, at).encode()
    return Change(
        {"metadata": {"annotations": {STOPPED: note}}, "spec": _spec(view.kind, 0)},
        view.replicas,
        0,
        "asked to be stopped",
    )


def start(
    view: Workload,
    *,
    replicas: int | None,
    assume_stopped: bool = False,
    leave_unsaved: bool = False,
    only_of_windows: bool = False,
) -> Change:
    """Restore what the note on the object says, or ``replicas``; drop the note in the same patch.

    With ``assume_stopped`` a running workload is taken for one that was stopped as it is now. Where it is stopped
    without a note, nothing says how many replicas there were: a Refusal, or with ``leave_unsaved`` no change. With
    ``only_of_windows`` there is no change either where a run that is no window stopped it, whatever ``replicas`` says.
    """
    if assume_stopped and view.replicas:
        wanted = _wanted(view, replicas)
        return Change(
            {"spec": _spec(view.kind, wanted)}, 0, wanted, "restores what is there now (assumed to be stopped by then)"
        )
    note = read_note(view, needed=replicas is None and view.replicas == 0)
    if view.replicas:
        return _keep_running(view, replicas)
    if only_of_windows and note is not None and not note.is_of_window:
        why = f"it is stopped by run {note.run} since {note.at}, not by a window"
        return Change(None, 0, 0, why, is_left=True, stopper=note)
    if leave_unsaved and replicas is None and note is None:
        return Change(None, 0, 0, "it is stopped, and nothing was saved on it", is_left=True)
    if replicas is not None or view.kind == "CronJob":
        wanted, why = _wanted(view, replicas), "replicas as given" if replicas is not None else "asked to be running"
    else:
        wanted, why = _restored(view, note)
    body: Json = {"spec": _spec(view.kind, wanted)}
    if STOPPED in view.annotations:
        body["metadata"] = {"annotations": {STOPPED: None}}
    return Change(body, 0, wanted, why)


def _keep_running(view: Workload, replicas: int | None) -> Change:
    wanted = _wanted(view, replicas)
    body: Json = {"spec": _spec(view.kind, wanted)} if wanted != view.replicas else {}
    why = "replicas as given" if body else "it is running"
    if STOPPED in view.annotations:
        body["metadata"] = {"annotations": {STOPPED: None}}
        why = f"{why}; the note of an earlier stop is out of date"
    return Change(body or None, view.replicas, wanted, why)


def _restored(view: Workload, note: Record | None) -> tuple[int, str]:
    count = note.value.get("replicas") if note is not None else None
    if note is not None and isinstance(count, int) and not isinstance(count, bool) and count > 0:
        return count, f"had {count} when run {note.run} stopped it at {note.at}"
    raise Refusal(
        obj=view.title,
        problem="it has 0 replicas and no note of how many there were: it was not k8s_workload that stopped it",
        next_step="Give replicas for it, if it is meant to run",
    )


def read_note(view: Workload, *, needed: bool = True) -> Record | None:
    """The note on the object. One that cannot be understood is a Refusal if it is needed, and otherwise none."""
    try:
        return record(view.annotations, STOPPED)
    except UnreadableRecord as error:
        if not needed:
            return None
        raise Refusal(
            obj=view.title, problem=str(error), next_step="Give replicas for it, which overrides the note"
        ) from error


def _wanted(view: Workload, replicas: int | None) -> int:
    return view.replicas or 1 if replicas is None or view.kind == "CronJob" else replicas


def _spec(kind: str, replicas: int) -> Json:
    return {"suspend": replicas == 0} if kind == "CronJob" else {"replicas": replicas}


def _stopped_by(view: Workload) -> str:
    try:
        note = record(view.annotations, STOPPED)
    except UnreadableRecord as error:
        return f"it is stopped already; {error}"
    return (
        f"it is stopped already, by run {note.run} at {note.at}"
        if note
        else "it is stopped already, not by k8s_workload"
    )


def freeze(scaler: Scaler, *, run: str, at: str) -> Json | None:
    """The patch that makes KEDA keep the workload at zero, with a note of what there was; None when it does already."""
    if scaler.annotations.get(PAUSED) == "0":
        return None
    note = Record({"paused": scaler.annotations.get(PAUSED)}, run, at).encode()
    return {"metadata": {"annotations": {PAUSED: "0", STOPPED: note}}}


def unfreeze(scaler: Scaler, *, only_of_windows: bool = False) -> Json | None:
    """The patch that undoes :func:`freeze`; None where there is no note of it, or of a window if that is asked."""
    if STOPPED not in scaler.annotations:
        return None
    try:
        note = record(scaler.annotations, STOPPED)
    except UnreadableRecord as error:
        raise Refusal(
            obj=scaler.title,
            problem=str(error),
            next_step=f"Set its annotation {PAUSED} as it should be and remove the note",
        ) from error
    if only_of_windows and note is not None and not note.is_of_window:
        return None
    return {"metadata": {"annotations": {PAUSED: note.value.get("paused") if note else None, STOPPED: None}}}


def fights_stop(scaler: Scaler) -> bool:
    """Whether an autoscaler would start pods again at 0 replicas. An HPA with a minimum of 1 or more rests at 0 (ScalingDisabled)."""
    if scaler.kind == "ScaledObject":
        return scaler.annotations.get(PAUSED) != "0"
    return scaler.minimum == 0


def described(view: Workload) -> dict[str, t.Any]:
    """The plain facts about a workload for a module's result."""
    note: dict[str, t.Any] | None = None
    problem: str | None = None
    try:
        found = record(view.annotations, STOPPED)
    except UnreadableRecord as error:
        problem = str(error)
    else:
        note = {"run": found.run, "since": found.at, **found.value} if found else None
    return {
        "kind": view.kind,
        "name": view.name,
        "namespace": view.namespace,
        "replicas": view.replicas,
        "pods": view.pods,
        "ready": view.ready,
        "settled": view.settled(view.replicas),
        "stopped_by_us": note if view.replicas == 0 else None,
        "stale_note": note if view.replicas else None,
        "problem": problem,
    }
