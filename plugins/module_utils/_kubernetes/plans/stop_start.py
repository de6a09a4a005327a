# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stopping and starting a workload means: the write, and why.

What was there before is saved in the same write that changes it, so that any later run, on any controller, can restore
it exactly; also that there was nothing: "it was at 0" and "it was suspended".

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.text import format_count
from ..fields import Json, as_int, get_path
from ..objects import Workload
from ..patches import Write
from ..saved_state import (
    AUTOSCALER_MANAGERS,
    STOP,
    STOPPED,
    SavedState,
    SavedStop,
    drop_state,
    get_scale_path,
    list_scale_paths,
    read_stop,
    save_state,
    will_delete_claims,
)
from ..tiers import refuse_daemon_set

HELD_AT_ZERO = "its autoscaler holds it at 0"
"""Why there is nothing to start, though nothing was saved: nobody has stopped it."""

_ANNOTATION = ("metadata", "annotations", STOPPED)


class Change(t.NamedTuple):
    """What one workload needs: a write (None: nothing), its replicas before and after, and the reason.

    ``is_left``: it is stopped and stays so, because nothing usable was saved on it, or because ``stopper``, which is no
    window, stopped it. ``reversible``: False where the write makes the controller delete volume claims. ``loss`` is what
    is lost though a start brings the workload back.
    """

    write: Write | None
    before: int
    after: int
    reason: str
    is_left: bool = False
    stopper: SavedState | None = None
    reversible: bool = True
    loss: str = ""

    @property
    def is_held_at_zero(self) -> bool:
        """Whether there is nothing to start, as an autoscaler has the workload at 0."""
        return self.write is None and self.reason == HELD_AT_ZERO

    @property
    def what(self) -> str:
        """What the write does, for a plan; empty when there is none."""
        if self.write is None:
            return ""
        suspend = get_path(self.write.body, "spec", "suspend")
        if isinstance(suspend, bool):
            what = f"suspend {str(not suspend).lower()} -> {str(suspend).lower()}"
            return f"{what}, {self.loss}" if self.loss else what
        if self.before != self.after:
            return f"replicas {self.before} -> {self.after}"
        if get_path(self.write.body, "metadata", "annotations", STOPPED):
            return f"save that it has {format_count(self.after, 'replica')}"
        return "remove what was saved on it"


def plan_stop(
    workload: Workload,
    *,
    run_id: str,
    now: str,
    first: Workload | None = None,
    has_paused: bool = False,
    pausing_runs: t.Collection[str] | None = None,
) -> Change:
    """Plan to scale to zero (to suspend a CronJob or Job) and to save what there was.

    One that is stopped already keeps what an earlier stop saved; where there is nothing of that, it is saved that it
    was stopped. ``first`` is how this run saw the workload before: when it had replicas then and an autoscaler has set
    it to 0 since, what there was at first is saved; who that was may be unknown where this run ``has_paused`` one. A
    person who does so has stopped it. ``pausing_runs`` as for ``read_stop``. Refusal for a kind that cannot be stopped.
    """
    _refuse_unstoppable(workload)
    if has_ended(workload):
        return Change(None, 0, 0, "it has ended")
    if workload.replicas == 0:
        is_autoscaled = workload.writer in AUTOSCALER_MANAGERS or (workload.writer is None and has_paused)
        saved = read_stop(workload, pausing_runs=pausing_runs)
        return _plan_kept_stop(workload, saved, first, is_autoscaled=is_autoscaled, run_id=run_id, now=now)
    write = _write_stop(workload, get_scale_value(workload), run_id=run_id, now=now, scales=True)
    reversible = not will_delete_claims(workload, 0)
    loss = "which ends its pods: their work begins anew after the start" if workload.kind == "Job" else ""
    return Change(write, workload.replicas, 0, "asked to be stopped", reversible=reversible, loss=loss)


def plan_save(workload: Workload, *, run_id: str, now: str) -> Change:
    """Plan to save what the workload has without stopping it: before an autoscaler is paused that scales by itself.

    Nothing where this run has saved it already, or where it is stopped, which is for ``plan_stop``.
    """
    _refuse_unstoppable(workload)
    count = workload.replicas
    saved = read_stop(workload).stale
    is_saved = saved is not None and (saved.run_id, saved.replicas) == (run_id, count)
    if count == 0 or is_saved or has_ended(workload):
        return Change(None, count, count, "there is nothing to save before an autoscaler is paused")
    write = _write_stop(workload, get_scale_value(workload), run_id=run_id, now=now, scales=False)
    return Change(write, count, count, "saved before its autoscaler is paused")


def plan_start(
    workload: Workload,
    *,
    replicas: int | None,
    only_windows: bool,
    assume_stopped: bool = False,
    leave_unsaved: bool = False,
    fallback: SavedState | None = None,
    pausing_runs: t.Collection[str] | None = None,
    is_held_at_zero: bool = False,
) -> Change:
    """Plan to restore what was saved, or ``replicas`` (at least 1), and to drop what was saved, in one write.

    With ``only_windows`` nothing changes where a run that is no window stopped it, whatever ``replicas`` says. With
    ``assume_stopped`` a running workload is taken for one that was stopped as it is now. Where nothing usable was
    saved, nothing says what it should be: a Refusal, or with ``leave_unsaved`` no change; unless ``is_held_at_zero``:
    an autoscaler has it at 0 and starts it by itself. ``fallback`` is what was saved on its ScaledObject, for a workload
    on which nothing was saved; ``pausing_runs`` as for ``read_stop``.
    """
    _check_replicas(workload, replicas)
    if workload.kind == "DaemonSet" or has_ended(workload):
        count, reason = (0, "it has ended") if has_ended(workload) else (workload.replicas, "it is never stopped")
        return Change(None, count, count, reason)
    if workload.replicas and assume_stopped:
        count = _choose_replicas(workload, replicas)
        return _restore(workload, count, "restores what is there now (assumed to be stopped by then)")
    if workload.replicas:
        return _plan_running(workload, replicas if replicas is not None else _find_reduced(workload, only_windows))
    saved = read_stop(workload, pausing_runs=pausing_runs)
    state = saved.state or (fallback if saved.stale is None else None)
    if only_windows and state is not None and not state.is_of_window:
        reason = f"it is stopped by run {state.run_id} since {state.at}, not by a window"
        return Change(None, 0, 0, reason, is_left=True, stopper=state)
    if replicas is None and state is None and not assume_stopped:
        return _leave(workload, saved, leave_unsaved=leave_unsaved, is_held_at_zero=is_held_at_zero)
    return _plan_given(workload, replicas) if replicas is not None else _plan_from_saved(workload, state)


def get_scale_value(workload: Workload) -> Json:
    """Return the field that says how many there are now: {"replicas": n}, or {"suspend": bool}."""
    return _make_spec(workload.kind, workload.replicas)


def _make_spec(kind: str, replicas: int) -> Json:
    return {"suspend": replicas == 0} if _is_suspended_kind(kind) else {"replicas": replicas}


def _is_suspended_kind(kind: str) -> bool:
    return get_scale_path(kind)[1] == "suspend"


def has_ended(workload: Workload) -> bool:
    """Return whether it is a Job that will start no pod any more."""
    ends = (workload.conditions.get(name) for name in ("Complete", "Failed"))
    return workload.kind == "Job" and any(get_path(end, "status") == "True" for end in ends)


def _refuse_unstoppable(workload: Workload) -> None:
    if workload.kind == "DaemonSet":
        refuse_daemon_set(workload.title)


def _check_replicas(workload: Workload, replicas: int | None) -> None:
    if replicas is not None and (isinstance(replicas, bool) or replicas < 1):
        raise Refusal(
            obj=workload.title,
            problem=f"its replicas are to be {replicas!r}, which is not a whole number of at least 1",
            next_step="Correct replicas, leave it out to restore what was saved, or use state stopped",
        )


def _plan_kept_stop(
    workload: Workload, saved: SavedStop, first: Workload | None, *, is_autoscaled: bool, run_id: str, now: str
) -> Change:
    """Plan for a workload that is at 0: keep what an earlier stop saved, else save what there was.

    What this run has saved before an autoscaler was faster is saved for the object as it is now: that counts also when
    the autoscaler is not paused any more.
    """
    if saved.state is not None and saved.state.replicas:
        before = first.replicas if first is not None else 0
        reason = f"it is stopped already, by run {saved.state.run_id} at {saved.state.at}"
        is_older = saved.state.run_id == run_id and saved.state.generation != workload.generation
        if before and is_autoscaled and is_older:
            write = _write_stop(workload, saved.state.spec, run_id=run_id, now=now, scales=False)
            return Change(write, before, 0, "asked to be stopped")
        return Change(None, before, 0, reason)
    if first is not None and first.uid == workload.uid and first.replicas and is_autoscaled:
        write = _write_stop(workload, get_scale_value(first), run_id=run_id, now=now, scales=False)
        reason = f"asked to be stopped; {workload.writer or 'another client'} has scaled it to 0 meanwhile"
        return Change(write, first.replicas, 0, reason, reversible=not will_delete_claims(first, 0))
    if saved.state is not None:
        reason = f"it was stopped before run {saved.state.run_id} at {saved.state.at}, which is saved"
        return Change(None, 0, 0, reason)
    if saved.problem:
        return Change(None, 0, 0, f"it is stopped already; {saved.problem}")
    reason = "it is stopped already, and that is saved, so that a start leaves it so"
    if saved.stale is not None:
        reason += f"; what run {saved.stale.run_id} saved at {saved.stale.at} is out of date"
    write = _write_stop(workload, get_scale_value(workload), run_id=run_id, now=now, scales=False)
    return Change(write, 0, 0, reason)


def _write_stop(workload: Workload, value: Json, *, run_id: str, now: str, scales: bool) -> Write:
    """Return the write that saves ``value``, and with ``scales`` also stops, which makes another generation of it."""
    generation = workload.generation + 1 if scales and workload.generation else workload.generation
    state = SavedState(value, run_id, now, generation, STOP)
    body: Json = {"metadata": {"annotations": save_state(workload.annotations, STOPPED, state)}}
    if scales:
        body["spec"] = _make_spec(workload.kind, 0)
    return Write(body, (*list_scale_paths(workload.kind), _ANNOTATION))


def _find_reduced(workload: Workload, only_windows: bool) -> int | None:
    """Return what a start should have restored when the server gave it fewer, and nobody has changed it since."""
    state = read_stop(workload).stale
    if state is None or not state.generation or state.generation != workload.generation:
        return None
    if state.replicas is None or (only_windows and not state.is_of_window):
        return None
    return max(state.replicas, workload.replicas)


def _plan_running(workload: Workload, replicas: int | None) -> Change:
    """Plan for a workload that runs: to ``replicas`` where those are more, since a start lowers nothing."""
    count = _choose_replicas(workload, replicas)
    drop = drop_state(workload.annotations, STOPPED, STOP) if _has_saved_stop(workload) else {}
    reason = "it is running"
    body: Json = {}
    if count < workload.replicas:
        reason = f"it is running with {workload.replicas} replicas, and a start does not lower them to {count}"
        count = workload.replicas
    if count != workload.replicas:
        body["spec"] = _make_spec(workload.kind, count)
        reason = "replicas as given"
    if drop:
        body["metadata"] = {"annotations": drop}
        reason += "; what an earlier stop saved is out of date"
    write = Write(body, (get_scale_path(workload.kind), _ANNOTATION)) if body else None
    return Change(write, workload.replicas, count, reason)


def _plan_given(workload: Workload, replicas: int) -> Change:
    return _restore(workload, _choose_replicas(workload, replicas), "replicas as given")


def _plan_from_saved(workload: Workload, state: SavedState | None) -> Change:
    """Plan what ``state`` says; without one the workload is assumed to be stopped as it is now, and stays so."""
    if state is not None and state.replicas:
        word = "was not suspended" if _is_suspended_kind(workload.kind) else f"had {state.replicas}"
        count = _choose_replicas(workload, state.replicas)
        return _restore(workload, count, f"{word} when run {state.run_id} stopped it at {state.at}")
    if state is not None:
        word = "suspended" if _is_suspended_kind(workload.kind) else "at 0 replicas"
        reason = f"it was {word} before run {state.run_id} at {state.at}, and stays so"
        return Change(_write_drop(workload), 0, 0, reason)
    return Change(_write_drop(workload), 0, 0, "it is stopped now, and stays so (assumed to be stopped by then)")


def _restore(workload: Workload, count: int, reason: str) -> Change:
    write = _write_drop(workload)
    return Change(write._replace(body={**write.body, "spec": _make_spec(workload.kind, count)}), 0, count, reason)


def _write_drop(workload: Workload) -> Write:
    """Return the write that removes what a stop saved, if there is anything."""
    drop = drop_state(workload.annotations, STOPPED, STOP)
    body: Json = {"metadata": {"annotations": drop}} if drop else {}
    return Write(body, (get_scale_path(workload.kind), _ANNOTATION))


def _has_saved_stop(workload: Workload) -> bool:
    return read_stop(workload) != SavedStop()


def _choose_replicas(workload: Workload, replicas: int | None) -> int:
    """Return the number to go to: a CronJob has no other than 1, and a Job has its parallelism."""
    if workload.kind == "CronJob":
        return 1
    if workload.kind == "Job":
        return as_int(get_path(workload.raw, "spec", "parallelism"), 1)
    return workload.replicas if replicas is None else replicas


def _leave(workload: Workload, saved: SavedStop, *, leave_unsaved: bool, is_held_at_zero: bool) -> Change:
    """Leave a workload stopped on which nothing usable was saved, or refuse to guess."""
    if is_held_at_zero and not saved.problem:
        return Change(None, 0, 0, HELD_AT_ZERO)
    state = "is suspended" if _is_suspended_kind(workload.kind) else "has 0 replicas"
    if saved.stale is not None:
        why = (
            f"it was changed by {workload.writer or 'another client'} since run {saved.stale.run_id} saved what it had"
            f" at {saved.stale.at}"
        )
    elif saved.problem:
        why = saved.problem
    else:
        why = "nothing was saved on it: another client stopped it"
    if leave_unsaved:
        return Change(None, 0, 0, f"it {state}, and {why}", is_left=True)
    raise Refusal(
        obj=workload.title,
        problem=f"it {state}, and {why}",
        next_step="Give replicas for it, if it is meant to run",
    )
