# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of a rollout: the revision that it goes back to, the writes, and what a person does instead.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.text import join_some
from ..fields import Json, as_int, as_text, get_path
from ..objects import CONTROLLER_REVISION_HASH, Pod, Workload
from ..patches import Write
from ..pod_templates import diff_template, fingerprint
from ..revisions import Known, find_by_name, make_unnumbered
from ..rollout_notes import DONE, PARTITION, UNDOING, Note, read_temporaries, write_notes
from ..saved_state import ROLLED_OUT, find_owners, is_own_manager

_NOTES = ("metadata", "annotations", ROLLED_OUT)
_TEMPLATE = ("spec", "template")
_PAUSED = ("spec", "paused")


def read_partition(workload: Workload) -> int:
    """Return how many of the lowest ordinals a StatefulSet leaves alone."""
    return as_int(get_path(workload.raw, *PARTITION))


def list_stuck_pods(workload: Workload, target: str, pods: t.Sequence[Pod]) -> list[Pod]:
    """Return the pods that are not ready and not of the target, without those that the partition leaves as they are."""
    first = as_int(get_path(workload.raw, "spec", "ordinals", "start"))
    partition, former = read_partition(workload), as_text(get_path(workload.raw, "status", "currentRevision"))
    return [
        pod
        for pod in pods
        if not pod.is_ready
        and pod.template_hash != target
        and not (pod.template_hash == former and as_int(pod.name.rpartition("-")[2]) < first + partition)
    ]


def find_back(revisions: t.Sequence[Known], note: Note) -> Known | None:
    """Return the revision that a note goes back to: the recorded one, or the template that it kept."""
    back = find_by_name(revisions, note.back[1])
    return make_unnumbered(note.replaced) if back is None and note.replaced is not None else back


def plan_completion(workload: Workload, note: Note) -> Write:
    """Return the write that says that a rollout is complete, or as far as its partition lets it be."""
    partition = read_partition(workload) if workload.kind == "StatefulSet" else 0
    before = () if note.failed_mark else note.temporary_before
    done = note._replace(phase=DONE, canary=partition, mark=fingerprint(workload.template), temporary_before=before)
    done = done._replace(unproven=workload.replicas == 0)
    if not partition and workload.replicas:
        done = done._replace(replaced=None)
    body = {"metadata": {"annotations": write_notes(workload, done, read_temporaries(workload))}}
    return Write(body, (_TEMPLATE, _NOTES))


def plan_undo(workload: Workload, note: Note, back: Known, *, failed: str, cause: str) -> tuple[Write, Note] | None:
    """Return the write that puts the recorded revision back, with its note; None when the template is not ours any more.

    The partition goes back with it, unless somebody has set another since.
    """
    if not note.is_of(workload):
        return None
    partition = read_partition(workload)
    before = partition if note.partition_before is None or partition != note.canary else note.partition_before
    undoing = note._replace(
        phase=UNDOING,
        mark=fingerprint(back.template),
        generation=workload.generation + 1,
        failed_mark=fingerprint(workload.template),
        failed=failed,
        cause=cause,
        declared=None,
        canary=before,
        number=note.number + 1,
    )
    spec: Json = {"template": diff_template(workload.template, back.template)}
    tests = (_TEMPLATE, _NOTES, PARTITION if workload.kind == "StatefulSet" else _PAUSED)
    if before != partition:
        spec["updateStrategy"] = {"rollingUpdate": {"partition": before}}
    notes = write_notes(workload, undoing, note.temporary_before)
    return Write({"metadata": {"annotations": notes}, "spec": spec}, tests), undoing


def describe_by_hand(workload: Workload, number: int, failed: str) -> str:
    """Return the commands by which a person puts a revision back.

    A StatefulSet with OrderedReady waits for a pod of the failed revision for ever (kubernetes#67250): it is deleted.
    """
    target = f"{workload.kind.lower()}/{workload.name} --namespace {workload.namespace}"
    steps = [f"kubectl rollout undo {target} --to-revision={number}", f"kubectl rollout status {target}"]
    is_ordered = get_path(workload.raw, "spec", "podManagementPolicy") != "Parallel"
    if workload.kind == "StatefulSet" and is_ordered:
        selector = {**workload.selector.get("matchLabels", {}), CONTROLLER_REVISION_HASH: failed}
        pods = f"--selector {','.join(f'{key}={value}' for key, value in selector.items())}"
        which = pods if failed else "POD (the one that is not ready)"
        steps.insert(1, f"kubectl delete pod --namespace {workload.namespace} {which}")
    return " && ".join(steps)


def find_hold(workload: Workload, note: Note) -> str:
    """Return who has set another partition since, empty where nobody has. It means: no further than that."""
    partition = read_partition(workload)
    if workload.kind != "StatefulSet" or partition == note.canary:
        return ""
    owners = find_owners(workload.raw, *PARTITION) or []
    return join_some([owner.manager for owner in owners if not is_own_manager(owner.manager)]) or "another client"


def find_pause(workload: Workload) -> str:
    """Return who has paused a Deployment, empty where it is not paused. A pause means that it stops and stays."""
    if not workload.paused:
        return ""
    owners = find_owners(workload.raw, "spec", "paused") or []
    return join_some([owner.manager for owner in owners]) or "another client"


def describe_resume(workload: Workload) -> str:
    """Return the command by which a person resumes a Deployment."""
    return f"kubectl rollout resume deployment/{workload.name} --namespace {workload.namespace}"
