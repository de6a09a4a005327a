# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one line and the evidence of the Kubernetes modules, without I/O.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t

from .._common.outcome import Blocker
from .._common.text import format_count, join_some
from .._common.timestamps import format_utc
from .conditions import assess_alone
from .saved_state import SavedState, read_stop

if t.TYPE_CHECKING:
    from .logs import Log
    from .objects import Job, Workload
    from .plans.job import Exit, Holder
    from .plans.stop_start import Change

SUSPENDED_KINDS = ("CronJob", "Job")
NAMED = 10
"""Workloads named in a summary at most; the plan and the evidence have all."""

LINE = 300
"""Characters of a log's line that a message repeats."""
EVIDENCE_LINES = 10
"""Lines of each log that are evidence; the result has more."""

START_AGAIN = "; lowtide.ops.startup starts them again"
"""After what was stopped by a run that is no window: the next window does not start it."""


def summarize_stop(
    workloads: t.Sequence[Workload],
    changes: t.Mapping[str, Change],
    *,
    written: t.Collection[str] | None,
    late: t.Sequence[str] = (),
) -> str:
    """Return one line: what was stopped, or in check mode (``written`` is None) would be, from what was there before.

    ``late`` are those whose wait ended before they were gone, each with its numbers.
    """
    due = [workload for workload in workloads if changes[workload.key].before]
    due = [workload for workload in due if changes[workload.key].write is not None]
    if not due:
        summary = "all workloads were already stopped"
    elif written is None:
        summary = f"would stop {join_some([_title(workload, changes) for workload in due], limit=NAMED)}"
    else:
        summary = _done_and_not("stopped", due, changes, written)
    if late:
        summary = f"{summary}; not gone yet: {join_some(late, limit=NAMED)}"
    at_zero = [workload.title for workload in workloads if _is_kept_at_zero(changes[workload.key])]
    if at_zero:
        summary += f"; stopped before, {'would be saved' if written is None else 'saved'} as such: "
        summary += join_some(at_zero, limit=NAMED)
    return summary


def summarize_start(
    workloads: t.Sequence[Workload],
    changes: t.Mapping[str, Change],
    *,
    written: t.Collection[str] | None,
    late: t.Sequence[str] = (),
    moved: t.Mapping[str, int] | None = None,
) -> str:
    """Return one line: what was started, or in check mode (``written`` is None) would be, and what was left stopped.

    ``late`` are those whose wait ended before they served, each with its numbers; ``moved`` says how many replicas those
    have to which an autoscaler has given another number meanwhile.
    """
    left = [workload for workload in workloads if changes[workload.key].is_left]
    kept = [workload.title for workload in workloads if _is_kept_at_zero(changes[workload.key])]
    held = [workload.title for workload in workloads if changes[workload.key].is_held_at_zero]
    due = [workload for workload in workloads if changes[workload.key].after]
    due = [workload for workload in due if changes[workload.key].write is not None]
    if due and written is None:
        summary = f"would start {join_some([_title(workload, changes) for workload in due], limit=NAMED)}"
    elif due:
        summary = _done_and_not("started", due, changes, written or (), moved)
    elif left or kept or held:
        summary = "nothing to start"
    else:
        summary = "nothing had to be started" if late else "all workloads run"
    if late:
        summary += f"; not serving yet: {join_some(late, limit=NAMED)}"
    if kept:
        summary += f"; left as it was before it was stopped: {join_some(kept, limit=NAMED)}"
    if held:
        summary += f"; left at 0, where its autoscaler holds it: {join_some(held, limit=NAMED)}"
    unsaved = [workload.title for workload in left if changes[workload.key].stopper is None]
    if unsaved:
        summary += f"; left stopped, as nothing was saved on it: {join_some(unsaved, limit=NAMED)}"
    of_others = [workload.title for workload in left if changes[workload.key].stopper is not None]
    if of_others:
        summary += f"; left stopped, as no window stopped it: {join_some(of_others, limit=NAMED)}"
    return summary


def _is_kept_at_zero(change: Change) -> bool:
    """Return whether the change only saves, or forgets, that there was nothing to stop."""
    return change.write is not None and not change.before and not change.after


def _done_and_not(
    verb: str,
    due: t.Sequence[Workload],
    changes: t.Mapping[str, Change],
    written: t.Collection[str],
    moved: t.Mapping[str, int] | None = None,
) -> str:
    done = [_title(workload, changes, moved) for workload in due if workload.key in written]
    missing = [workload.title for workload in due if workload.key not in written]
    parts = [f"{verb} {join_some(done, limit=NAMED)}"] if done else []
    if missing:
        parts.append(f"not {verb}: {join_some(missing, limit=NAMED)}")
    return "; ".join(parts)


def _title(workload: Workload, changes: t.Mapping[str, Change], moved: t.Mapping[str, int] | None = None) -> str:
    """Name a workload with the replicas that it had, or gets, or that its autoscaler has given it."""
    change = changes[workload.key]
    if workload.kind in SUSPENDED_KINDS:
        return workload.title
    if moved and workload.key in moved:
        return f"{workload.title} ({format_count(moved[workload.key], 'replica')}, as its autoscaler asks)"
    if change.before and change.after and change.before != change.after:
        return f"{workload.title} ({change.before} -> {format_count(change.after, 'replica')})"
    return f"{workload.title} ({format_count(max(change.before, change.after), 'replica')})"


def list_change_evidence(
    workloads: t.Sequence[Workload], changes: t.Mapping[str, Change], *, check_mode: bool
) -> list[str]:
    """Return one line for each workload, as last seen: its pods, and why it was changed or not."""
    if check_mode:
        return [f"{workload.title}: {changes[workload.key].reason}" for workload in workloads]
    return [f"{describe_state(workload)}; {changes[workload.key].reason}" for workload in workloads]


def describe_state(workload: Workload) -> str:
    """Return what a workload is, such as ``StatefulSet n/w: 3 of 3 replicas ready``, with the pods that are left."""
    if workload.kind in SUSPENDED_KINDS:
        state = "running" if workload.replicas else "suspended"
        return f"{workload.title}: {state}, {format_count(workload.pods, 'active job' if workload.kind == 'CronJob' else 'pod')}"
    if workload.replicas == 0:
        return f"{workload.title}: stopped, {format_count(workload.pods, 'pod')} left"
    return f"{workload.title}: {workload.ready} of {format_count(workload.replicas, 'replica')} ready"


def describe_workload(workload: Workload) -> dict[str, t.Any]:
    """Return the plain facts about a workload for a module's result."""
    saved = read_stop(workload)
    status = assess_alone(workload)
    return {
        "kind": workload.kind,
        "api_version": workload.resource.group_version,
        "name": workload.name,
        "namespace": workload.namespace,
        "replicas": workload.replicas,
        "pods": workload.pods,
        "ready": workload.ready,
        "status": status.state,
        "detail": status.message,
        "stopped_by_lowtide": _describe_saved(saved.state),
        "stale_saved_state": _describe_saved(saved.stale),
        "problem": saved.problem or None,
    }


def _describe_saved(state: SavedState | None) -> dict[str, t.Any] | None:
    return {"run": state.run_id, "since": state.at, **state.spec} if state is not None else None


def name_stopper(workload: Workload, stopper: SavedState | None) -> Blocker:
    """Return who keeps a workload stopped that a start leaves so: the run that stopped it, or another client."""
    if stopper is None:
        return Blocker(
            object=workload.title,
            what="it is stopped and nothing usable was saved on it, so it is left as it is",
            holder="the client that stopped it",
            next_step="Give replicas for it, if it is meant to run",
        )
    return Blocker(
        object=workload.title,
        what=f"it is stopped by run {stopper.run_id} since {stopper.at}, not by a window, so it is left as it is",
        holder=f"run {stopper.run_id}",
        since=stopper.at,
        next_step="Start it with lowtide.ops.startup or lowtide.ops.restore_service, if it is meant to run",
    )


def summarize_workloads(workloads: t.Sequence[Workload], described: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """Return one line for k8s_workload_info: how many there are, how many are as asked for, what was left stopped."""
    current = sum(entry["status"] == "Current" for entry in described)
    summary = f"{current} of {format_count(len(workloads), 'workload')} as asked for"
    names = [
        workload.title for workload, entry in zip(workloads, described, strict=True) if entry["stopped_by_lowtide"]
    ]
    return f"{summary}; stopped by lowtide.ops: {join_some(names, limit=NAMED)}" if names else summary


def summarize_scaling(
    title: str, *, before: int, after: int, why: str, adjusted: t.Sequence[str], check_mode: bool, done: bool
) -> str:
    """Return one line for k8s_scale_to_partitions; ``done`` says that the replicas were written and serve."""
    bounds = f"; {'would adjust' if check_mode else 'adjusted'} {join_some(adjusted)}" if adjusted else ""
    if before == after:
        return f"{title} has {format_count(after, 'replica')} ({why}){bounds}"
    if check_mode:
        return f"would scale {title} from {before} to {format_count(after, 'replica')} ({why}){bounds}"
    if not done:
        return f"{title} is not at {format_count(after, 'replica')} yet, it had {before} ({why}){bounds}"
    return f"scaled {title} from {before} to {format_count(after, 'replica')} ({why}){bounds}"


def summarize_job(title: str, action: str, *, job: Job | None, created: bool, seconds: float | None, key: str) -> str:
    """Return one line for k8s_job; ``action`` is what was decided (``plans.job.Decision``), ``job`` None in check mode."""
    took = f" after {seconds:.0f} s" if seconds is not None else ""
    if action == "done":
        return f"{title} was complete already (key {key}), it took {seconds or 0:.0f} s"
    if action == "failed":
        return f"{title} has failed before (key {key})"
    if job is None:
        return f"would run {title}" if action == "create" else f"would wait for {title}, which an earlier run began"
    begun = "" if created else ", which an earlier run began,"
    if job.is_complete:
        return f"{title}{begun} is complete{took}"
    return f"{title}{begun} {'failed' + took if job.is_failed else 'has not completed'}"


def describe_end(end: Exit | None, log: str) -> str:
    """Return how a Job's container ended and the last line of its log, to be added to a message."""
    words = f"; {end}" if end is not None else ""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    return f"{words}; its last line: {last[:LINE]}" if last else words


def list_job_evidence(job: Job, end: Exit | None, logs: t.Sequence[Log], *, seconds: float | None) -> list[str]:
    """Return lines that prove how a Job ended: its state, its container's exit, the last lines of each log."""
    state = "complete" if job.is_complete else f"failed: {job.failure_message}" if job.is_failed else "not ended"
    took = f" after {seconds:.0f} s" if seconds is not None else ""
    lines = [f"{job.title}: {state}{took} ({job.succeeded} succeeded, {job.failed} failed)"]
    lines += [str(end)] if end is not None else []
    if not logs:
        lines.append("no pod of it is left, so that there is no log")
    for log in logs:
        told = log.text.splitlines()[-EVIDENCE_LINES:]
        lines += [f"{log.title}: {line}" for line in told] or [f"{log.title}: {log.reason}"]
    return lines


_HEADING = re.compile(r"^==> ((?:previous )?log of container \S+ of Pod \S+?)(?: \(its end\))? <==$", re.MULTILINE)


def format_logs(logs: t.Sequence[Log]) -> str:
    """Return logs as one text, each below a line that says whose it is."""
    parts = [
        f"==> {log.title}{' (its end)' if log.truncated else ''} <==\n{log.text or f'({log.reason})'}\n" for log in logs
    ]
    return "\n".join(parts) or "(no pod was left, so that there was no log)\n"


def find_lost_logs(kept: str, logs: t.Sequence[Log], *, job: str) -> list[str]:
    """Return which logs a text of ``format_logs`` has that these logs lack, or have less of; nothing where none.

    Logs of other Jobs are lost only if there is nothing in their place.
    """
    texts = {log.title: log.text for log in logs if log.text}
    if not texts and kept.strip() and not kept.startswith("("):
        return ["no pod with a log was left"]
    parts = _HEADING.split(kept)
    lost = []
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        old, new = body.strip("\n"), texts.get(title, "").strip("\n")
        is_of_job = title.rpartition(" of Pod ")[2].startswith(f"{job}-")
        if is_of_job and old and not old.startswith("(") and old != new and old.endswith(new):
            lost.append(title)
    return lost


def name_holder(holder: Holder, lock: str) -> Blocker:
    """Return who holds the lock that a Job waits for."""
    return Blocker(
        object=holder.title,
        what=f"it holds the lock {lock}: {holder.what}",
        holder=f"run {holder.run_id}" if holder.run_id else holder.title,
        next_step="Wait until it has ended, or delete it if nobody goes on with it",
        since=format_utc(holder.since) if holder.since is not None else None,
    )
