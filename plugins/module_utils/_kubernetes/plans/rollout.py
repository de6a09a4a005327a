# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declared pod template means for a workload as it is: the write, the revision to go back to, and why.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.text import join_some
from ..fields import Json, as_text, get_path, resolve_share
from ..objects import Pod, Workload
from ..patches import Write
from ..pod_templates import (
    ANNOTATION,
    ENV,
    IMAGE,
    LIMITS,
    REQUESTS,
    RESTARTED_AT,
    Edit,
    Place,
    apply_edits,
    diff_template,
    fingerprint,
    list_images,
    plan_edits,
)
from ..revisions import (
    Known,
    find_by_name,
    find_by_number,
    find_by_template,
    find_current,
    make_unnumbered,
    parse_revision,
)
from ..rollout_notes import (
    DONE,
    PARTITION,
    ROLLING,
    UNDOING,
    Note,
    Temporary,
    add_temporary,
    keep_template,
    read_note,
    read_temporaries,
    split_due,
    take_back,
    write_notes,
)
from ..saved_state import ROLLED_OUT
from ..temporary_ends import check_end
from .rollout_undo import describe_resume, find_back, list_stuck_pods, plan_undo, read_partition

DECLARING = ("containers", "image", "pod_annotations", "restarted_after", "revision", "partition", "until")
"""Options that say what is declared."""
ROLL, WAIT, FINISH_UNDO = "roll", "wait", "finish undo"
_NOTES = ("metadata", "annotations", ROLLED_OUT)
_TEMPLATE = ("spec", "template")


class Declared(t.NamedTuple):
    """What the options ask for. ``restart`` is the moment that pods must not be older than, where some are."""

    values: t.Mapping[Place, t.Any] = {}
    revision: int | None = None
    partition: int | None = None
    until: str = ""
    restart: str = ""
    takes_back: bool = False
    undoes_run: str = ""


class Plan(t.NamedTuple):
    """What is to be done: ``step`` says whether to write and wait, only to wait, or to finish an undo.

    ``note`` is the unfinished rollout that is waited for, None where there is none. ``back`` is the revision that a
    failure goes back to, None where it is the target itself. ``stuck`` names another revision, such as that of an
    earlier rollout that failed, whose pods are not ready and may hold up a StatefulSet.
    """

    step: str
    template: Json
    edits: tuple[Edit, ...]
    what: str
    why: str
    write: Write | None = None
    note: Note | None = None
    back: Known | None = None
    current: Known | None = None
    stuck: str = ""
    partition: tuple[int, int] = (0, 0)

    @property
    def changes_template(self) -> bool:
        """Whether pods are replaced."""
        return "template" in (get_path(self.write.body if self.write else {}, "spec") or {})


def read_values(params: t.Mapping[str, t.Any], workload: Workload) -> dict[Place, t.Any]:
    """Return the values that the options declare. A Refusal says which container is meant by ``image`` alone."""
    values: dict[Place, t.Any] = {}
    if params.get("image"):
        images = list_images({"spec": {"containers": get_path(workload.template, "spec", "containers") or []}})
        if len(images) != 1:
            raise Refusal(
                obj=f"option image for {workload.title}",
                problem=f"its pods have {len(images)} containers: {', '.join(images)}",
                next_step="Name the container in containers",
            )
        values[Place(next(iter(images)), IMAGE)] = params["image"]
    for entry in params.get("containers") or []:
        name = entry["name"]
        if entry.get("image"):
            values[Place(name, IMAGE)] = entry["image"]
        for key, value in (entry.get("env") or {}).items():
            values[Place(name, ENV, key)] = None if value is None else {"value": _as_variable(value)}
        for part in (REQUESTS, LIMITS):
            amounts = (entry.get("resources") or {}).get(part) or {}
            values.update({Place(name, part, key): amount for key, amount in amounts.items()})
    for key, value in (params.get("pod_annotations") or {}).items():
        values[Place("", ANNOTATION, key)] = None if value is None else _as_variable(value)
    return values


def read_declared(
    params: t.Mapping[str, t.Any], workload: Workload, revisions: t.Sequence[Known], *, run_id: str, at: float
) -> Declared:
    """Return what the options declare, but for a restart, which depends on pods. A Refusal says what does not fit."""
    if params["state"] != "present":
        given = [name for name in DECLARING if params[name] is not None]
        if given:
            raise Refusal(
                obj=f"option {given[0]}",
                problem=f"state {params['state']} takes something back and declares nothing else",
                next_step=f"Leave {', '.join(given)} out, or set state to present",
            )
        return Declared(takes_back=True, undoes_run=run_id if params["state"] == "undone" else "")
    check_end(params["until"], at)
    current = find_current(revisions, workload)
    values = read_values(params, workload)
    if params["until"] and not values:
        raise Refusal(
            obj="option until",
            problem="there is no value that could be taken back then",
            next_step="Give containers, image or pod_annotations with it",
        )
    return Declared(
        values=values,
        revision=parse_revision(params["revision"], revisions, current, workload.title),
        partition=params["partition"],
        until=params["until"] or "",
    )


def _as_variable(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_settled(workload: Workload) -> bool:
    """Return whether all its pods serve and are of its template, apart from those that its partition leaves alone."""
    is_whole = workload.pods == workload.serving == workload.replicas
    return workload.is_observed and is_whole and workload.updated >= workload.updated_wanted


def find_serving(workload: Workload, revisions: t.Sequence[Known], pods: t.Sequence[Pod]) -> Known | None:
    """Return the newest revision that serves, which need not be that of the template: a person may have broken it.

    ``pods`` may be empty where all of them serve. A StatefulSet keeps by itself which revision was complete last.
    """
    current = find_current(revisions, workload)
    if workload.kind == "StatefulSet":
        former = find_by_name(revisions, as_text(get_path(workload.raw, "status", "currentRevision")))
        newest = as_text(get_path(workload.raw, "status", "updateRevision"))
        is_counted = current is not None and current.name == newest
        is_complete = is_settled(workload) and not read_partition(workload)
        return current if former is None or (is_counted and is_complete) else former
    ready = {pod.template_hash for pod in pods if pod.is_ready}
    serving = next((entry for entry in revisions if entry.hash in ready), current)
    return current if serving is None or (current is not None and current.name == serving.name) else serving


def find_stuck(workload: Workload, revisions: t.Sequence[Known], desired: Json, pods: t.Sequence[Pod]) -> str:
    """Return another revision than the desired one whose pods are not ready and hold a StatefulSet up; "" for none."""
    if workload.kind != "StatefulSet" or get_path(workload.raw, "spec", "podManagementPolicy") == "Parallel":
        return ""
    is_present = fingerprint(desired) == fingerprint(workload.template)
    target = find_current(revisions, workload) if is_present else find_by_template(revisions, desired)
    return next((pod.template_hash for pod in list_stuck_pods(workload, target.hash if target else "", pods)), "")


def plan_rollout(
    workload: Workload,
    revisions: t.Sequence[Known],
    declared: Declared,
    *,
    run_id: str,
    now: str,
    at: float,
    pods: t.Sequence[Pod] = (),
) -> Plan:
    """Return what the declaration means for the workload. Raises Refusal.

    ``pods`` are the workload's, and may be left out where all of them serve.
    """
    note, current = read_note(workload), find_current(revisions, workload)
    if note is not None and not note.is_of(workload, current.number if current is not None else 0):
        note = None  # somebody has changed the template since
    known = read_temporaries(workload)
    if declared.undoes_run:
        return _plan_undone(workload, revisions, note, declared.undoes_run)
    edits, desired, target = _find_target(workload, revisions, declared, note=note, known=known, at=at)
    partition = read_partition(workload)
    partitions = (partition, partition if declared.partition is None else declared.partition)
    is_new = fingerprint(desired) != fingerprint(workload.template)
    is_undoing = note is not None and note.phase == UNDOING and not is_settled(workload)
    if note is not None and is_undoing and fingerprint(desired) == note.failed_mark:
        back = find_back(revisions, note)
        why = f"run {note.run_id} began to undo it and did not finish"
        return Plan(FINISH_UNDO, workload.template, (), "finish the undo", why, None, note, back, current, note.failed)
    temporaries = _plan_temporaries(known, edits, declared, run_id=run_id, now=now, at=at)
    if not is_new and partitions[0] == partitions[1]:
        plan = _plan_wait(
            workload,
            declared,
            note=note,
            known=known,
            temporaries=temporaries,
            current=current,
            partitions=partitions,
        )
        back = find_back(revisions, plan.note) if plan.note is not None else None
        is_target = back is not None and _is_revision(back, current, workload.template)
        return plan._replace(back=None if is_target else back)
    _refuse_strategy(workload, declared, is_new=is_new)
    serves = is_settled(workload) and workload.replicas > 0 and not partition  # whoever waited for it, or nobody
    unfinished = note is not None and not serves and (note.phase != DONE or note.canary > 0 or note.unproven)
    replaced = note.replaced if note is not None and unfinished else None
    if note is not None and unfinished:
        back = find_back(revisions, note)
    else:
        back = find_serving(workload, revisions, pods)
        if back is None:
            replaced = keep_template(workload.template)
            back = None if replaced is None else make_unnumbered(replaced)
    is_failing = note is not None and note.phase == ROLLING and is_new
    stuck = current.hash if is_failing and current is not None else find_stuck(workload, revisions, desired, pods)
    made = Note(
        phase=ROLLING,
        mark=fingerprint(desired),
        generation=workload.generation + 1,
        back=(0, "") if back is None else (back.number, back.name),
        partition_before=_find_partition_before(note, unfinished=unfinished, partitions=partitions),
        declared=None if target is None else (t.cast("int", declared.revision), target.name),
        temporary_before=note.temporary_before if note is not None and unfinished else known,
        canary=partitions[1],
        number=max((entry.number for entry in revisions), default=0) + is_new,
        failed=stuck,
        run_id=run_id,
        at=now,
        replaced=replaced if is_new else None,
        lacking=note.lacking if note is not None and unfinished else max(workload.replicas - workload.serving, 0),
    )
    spec: Json = {}
    if is_new:
        spec["template"] = diff_template(workload.template, desired)
    if partitions[0] != partitions[1]:
        spec["updateStrategy"] = {"rollingUpdate": {"partition": partitions[1]}}
    body: Json = {"metadata": {"annotations": write_notes(workload, made, temporaries)}, "spec": spec}
    tests = (_TEMPLATE, _NOTES, *((PARTITION,) if workload.kind == "StatefulSet" else ()))
    is_target = back is not None and _is_revision(back, target, desired)
    return Plan(
        ROLL,
        desired,
        tuple(edits),
        _describe_change(declared, edits, current, target, partitions),
        _explain(declared, known, at),
        Write(body, tests),
        made,
        None if is_target else back,
        current,
        stuck,
        partitions,
    )


def _plan_undone(workload: Workload, revisions: t.Sequence[Known], note: Note | None, run_id: str) -> Plan:
    """Plan to put back what there was before a run rolled something out; nothing where it did not, or it was undone."""
    current = find_current(revisions, workload)
    partition = read_partition(workload)
    if note is None or note.run_id != run_id or (note.failed_mark and note.phase == DONE):
        why = f"nothing that run {run_id} has rolled out is in force"
        return Plan(WAIT, workload.template, (), "", why, current=current, partition=(partition, partition))
    if note.phase == UNDOING:
        why = f"the undo of what run {run_id} has rolled out is not finished"
        return Plan(WAIT, workload.template, (), "finish the undo", why, None, note, None, current, note.failed)
    back = find_back(revisions, note)
    if back is None:
        raise Refusal(
            obj=workload.title,
            problem=f"revision {note.back[0]}, which there was before run {run_id}, does not exist any more"
            if note.back[1]
            else f"no revision of before run {run_id} is known",
            next_step="Declare the earlier template itself (containers), and keep more revisions (revisionHistoryLimit)",
        )
    _refuse_strategy(workload, Declared(), is_new=True)
    failed = current.hash if current is not None else ""
    write, undoing = t.cast("tuple[Write, Note]", plan_undo(workload, note, back, failed=failed, cause=f"run {run_id}"))
    what = f"revision {current.number if current else '?'} -> {back.number} ({', '.join(list_images(back.template).values())})"
    partitions = (partition, undoing.canary)
    why = f"what run {run_id} has rolled out is taken back"
    return Plan(ROLL, back.template, (), what, why, write, undoing, None, current, failed, partitions)


def _is_revision(back: Known, known: Known | None, template: Json) -> bool:
    """Return whether a template is that of a revision, by name where it is known whose it is."""
    is_named = known is not None and known.name == back.name != ""
    return is_named or fingerprint(back.template) == fingerprint(template)


def _find_target(
    workload: Workload,
    revisions: t.Sequence[Known],
    declared: Declared,
    *,
    note: Note | None,
    known: t.Sequence[Temporary],
    at: float,
) -> tuple[list[Edit], Json, Known | None]:
    """Return the changes of values, the template that they make, and the revision that was asked for by its number."""
    title = workload.title
    if declared.revision is not None:
        again = note.declared if note is not None else None
        target = find_by_number(revisions, declared.revision, title=title, declared=again)
        return [], target.template, target
    if declared.takes_back:
        edits = take_back(workload.template, split_due(known, at)[0], title)
    else:
        edits = plan_edits(workload.template, declared.values, title)
    restart = [Edit(Place("", ANNOTATION, RESTARTED_AT), None, declared.restart)] if declared.restart else []
    return edits, apply_edits(workload.template, [*edits, *restart], title), None


def _find_partition_before(note: Note | None, *, unfinished: bool, partitions: tuple[int, int]) -> int | None:
    """Return the partition that an undo gives back: that of before the first of the changes that are not finished."""
    if note is not None and unfinished and note.partition_before is not None:
        return note.partition_before
    return partitions[0] if partitions[0] != partitions[1] else None


def _plan_temporaries(
    known: tuple[Temporary, ...], edits: t.Sequence[Edit], declared: Declared, *, run_id: str, now: str, at: float
) -> tuple[Temporary, ...]:
    if declared.takes_back:
        return tuple(split_due(known, at)[1])
    return add_temporary(known, edits, declared.until, run_id=run_id, at=now, places=declared.values)


def _plan_wait(
    workload: Workload,
    declared: Declared,
    *,
    note: Note | None,
    known: tuple[Temporary, ...],
    temporaries: tuple[Temporary, ...],
    current: Known | None,
    partitions: tuple[int, int],
) -> Plan:
    """Plan for a template that is as declared: wait, for an unfinished rollout as the run that began it would have."""
    unfinished = note if note is not None and not note.is_settled(workload) else None
    write, what, why = None, "", "its pod template is as declared"
    if temporaries != known:
        notes = write_notes(workload, None, temporaries)
        write = Write({"metadata": {"annotations": notes}}, (_TEMPLATE, _NOTES))
        what = f"end at {declared.until}" if declared.until else "stay as it is, without an end"
        why = "the temporary change has another end" if declared.until else "its temporary change is declared to last"
        if declared.takes_back:
            what, why = "forget what has been given back already", "somebody has set those values since"
    elif unfinished is not None:
        what = "go on with the rollout"
        why = f"run {unfinished.run_id} began it at {unfinished.at} and did not finish"
        if unfinished.unproven:
            why = f"run {unfinished.run_id} wrote it when there was no pod, so that nothing was proven"
    elif declared.takes_back:
        ends = [entry.until for entry in known]
        why = f"the next temporary change ends at {min(ends)}" if ends else "it has no temporary change"
    stuck = unfinished.failed if unfinished is not None else ""
    return Plan(WAIT, workload.template, (), what, why, write, unfinished, None, current, stuck, partitions)


def _refuse_strategy(workload: Workload, declared: Declared, *, is_new: bool) -> None:
    strategy = get_path(workload.raw, "spec", "updateStrategy", "type")
    if declared.partition is not None and workload.kind != "StatefulSet":
        raise Refusal(
            obj="option partition",
            problem=f"{workload.title} has no partition: only a StatefulSet has",
            next_step="Leave partition out",
        )
    if declared.partition and 0 < workload.replicas <= declared.partition:
        raise Refusal(
            obj="option partition",
            problem=f"it is {declared.partition}, and {workload.title} has {workload.replicas} replicas, so that none is new",
            next_step=f"Set partition to a number below {workload.replicas}",
        )
    if strategy == "OnDelete" and (is_new or declared.partition is not None):
        raise Refusal(
            obj=workload.title,
            problem="its updateStrategy is OnDelete, with which nothing replaces its pods",
            next_step="Set spec.updateStrategy.type to RollingUpdate, then run again",
        )
    if workload.paused:
        raise Refusal(
            obj=workload.title,
            problem="spec.paused is true, so that no pod of a new template is made",
            next_step=f"Resume it ({describe_resume(workload)})",
        )


def _describe_change(
    declared: Declared,
    edits: t.Sequence[Edit],
    current: Known | None,
    target: Known | None,
    partitions: tuple[int, int],
) -> str:
    words = [edit.describe() for edit in edits]
    if target is not None:
        before = "" if current is None else f"{current.number} -> "
        words.append(f"revision {before}{declared.revision} ({', '.join(list_images(target.template).values())})")
    if declared.restart:
        words.append(f"replace pods that are older than {declared.restart}")
    if partitions[0] != partitions[1]:
        words.append(f"partition {partitions[0]} -> {partitions[1]}")
    return join_some(words, limit=10)


def _explain(declared: Declared, known: t.Sequence[Temporary], at: float) -> str:
    if declared.takes_back:
        ends = [entry.until for entry in split_due(known, at)[0]]
        return f"its temporary change ended at {', '.join(ends)}"
    return f"declared, until {declared.until}" if declared.until else "declared"


def count_unavailable(workload: Workload) -> int:
    """Return how many old pods may go before a new one comes."""
    if workload.kind == "StatefulSet":
        return 1
    if get_path(workload.raw, "spec", "strategy", "type") == "Recreate":
        return workload.replicas
    strategy = "strategy" if workload.kind == "Deployment" else "updateStrategy"
    rolling = get_path(workload.raw, "spec", strategy, "rollingUpdate") or {}
    default = "25%" if workload.kind == "Deployment" else 1
    is_rounded_up = workload.kind == "DaemonSet"
    unavailable = resolve_share(rolling.get("maxUnavailable", default), workload.replicas, round_up=is_rounded_up)
    surge = rolling.get("maxSurge", default if workload.kind == "Deployment" else 0)
    return unavailable if unavailable or str(surge).strip("%") != "0" else 1
