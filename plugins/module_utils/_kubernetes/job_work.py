# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the work of a Job that failed is done nevertheless, so that it must not be repeated.

A Job succeeds when its pod does, and the pod when all of its containers have ended. Where one goes on after the work is
done, Kubernetes fails the Job at its deadline and deletes the pod, the only proof. So what was seen of the pod is kept on
the Job, as a note.

Private to lowtide.ops: do not import from other collections.

Source: Kubernetes, pkg/controller/job: deleteActivePods at activeDeadlineSeconds and backoffLimit, which are looked at
before the pods that have succeeded are.
"""

from __future__ import annotations

import json
import typing as t

from .fields import as_dict, as_int, as_list, as_text, get_path
from .objects import Job, Pod, index_conditions, list_keepers
from .patches import Write
from .plans.job import list_own_containers, read_annotation

WORK = "lowtide.ops/job-work"
"""On a Job: what a run has seen of the work of its last pod with several containers."""

DONE = "done"
OPEN = "open"
UNKNOWN = "unknown"


class Work(t.NamedTuple):
    """What is known of a Job's work: ``state``, by which pod, which containers ended with 0 in it, and which did not."""

    state: str
    pod: str = ""
    ended: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return it as a part of a sentence."""
        if self.state == DONE:
            kept = f", and {' and '.join(self.others)} kept the pod" if self.others else ""
            return f"its work is done: {' and '.join(self.ended)} of {self.pod} ended with 0{kept}"
        if self.ended:
            return (
                f"its work may be done: {' and '.join(self.ended)} of {self.pod} ended with 0,"
                f" and {' and '.join(self.others)} did not end"
            )
        names = f" ({', '.join(self.others)})" if self.others else ""
        return (
            f"its pod has several containers{names} and was deleted with it, so that it is not known whether one of them"
            " had done the work and another one kept the pod"
        )


def is_about_to_fail(job: Job) -> bool:
    """Return whether the failure of a Job is decided, though its pods have not ended yet."""
    conditions = index_conditions(as_dict(job.raw.get("status")))
    return as_text(get_path(conditions, "FailureTarget", "status")) == "True"


def judge_work(job: Job, pods: t.Iterable[Pod]) -> Work | None:
    """Return what the pods of a Job that is not complete say of its work; None where each has a single container.

    Once its failure is decided, a pod that is still there and in which nothing has ended with 0 proves that the work was
    open. Which of several containers of the template does the work is not known: it may be the one that has ended.
    """
    own = list_own_containers(job)
    newest = sorted(pods, key=lambda pod: (pod.created_at or 0.0, pod.name), reverse=True)
    for pod in newest:
        keepers = list_keepers(pod, own)
        if keepers or (job.completions == 1 and pod.phase == "Succeeded"):
            ended = sorted(own & _list_codes(pod).keys())
            return Work(DONE, pod.title, tuple(ended), tuple(keepers))
    is_final = job.is_failed or is_about_to_fail(job)
    states = [
        _judge_pod(pod, own, is_final=is_final)
        for pod in newest
        if len(_list_codes(pod)) > 1 and (pod.is_terminating or not pod.is_finished)
    ]
    if states:
        return next((work for work in states if work.state == UNKNOWN), states[0])
    names = [as_text(get_path(entry, "name")) for entry in as_list(_get_pod_spec(job).get("containers"))]
    return Work(UNKNOWN, others=tuple(names)) if len(names) > 1 else None


def read_work(job: Job, pods: t.Iterable[Pod]) -> Work | None:
    """Return what is known of the work of a Job: by its pods, and where they do not say it, by its note."""
    by_pods, noted = judge_work(job, pods), _read_note(job)
    return noted if noted is not None and (by_pods is None or by_pods.state == UNKNOWN) else by_pods


def forbids_again(job: Job, work: Work | None) -> bool:
    """Return whether a failed Job is not repeated without a person's consent: its work is done, or may be.

    It may be where Kubernetes has deleted the pod that ran: at the deadline, and where its containers were restarted.
    """
    if work is None or not job.is_failed or work.state == OPEN:
        return False
    failed = index_conditions(as_dict(job.raw.get("status"))).get("Failed")
    is_deleted = (
        get_path(failed, "reason") == "DeadlineExceeded" or _get_pod_spec(job).get("restartPolicy") == "OnFailure"
    )
    return work.state == DONE or is_deleted


def advise(job: Job, work: Work) -> str:
    """Return what to do about a Job that is not repeated."""
    delete = f"delete it first (kubectl delete job --namespace {job.namespace} {job.name})"
    if work.state == DONE:
        return (
            f"Go on without it. Before the next one, leave {' and '.join(work.others) or 'what kept its pod'} out of the"
            f" pod, or make it a native sidecar. To run this one once more nevertheless, {delete}"
        )
    return f"Find out by its effects whether its work is done. If it is, go on without it; if it is not, {delete} and run again"


def plan_note(job: Job, work: Work) -> Write | None:
    """Return the write that keeps what was seen of a Job's work; None when it says so already."""
    if not work.pod or work == _read_note(job) or job.is_complete:
        return None
    text = json.dumps({"format": 1, **work._asdict()}, sort_keys=True)
    return Write({"metadata": {"annotations": {WORK: text}}})


def _judge_pod(pod: Pod, own: t.Collection[str], *, is_final: bool) -> Work:
    """Return what a pod with several containers says, of which not all of the template's have ended with 0."""
    codes = _list_codes(pod)
    ended = tuple(sorted(name for name, code in codes.items() if code == 0 and name in own))
    others = tuple(sorted(name for name in codes if name not in ended))
    return Work(UNKNOWN if ended or not is_final else OPEN, pod.title, ended, others)


def _list_codes(pod: Pod) -> dict[str, int | None]:
    """Return with which code each container of a pod has ended, None where it has not; without init containers."""
    codes: dict[str, int | None] = {}
    for entry in as_list(get_path(pod.raw, "status", "containerStatuses")):
        ended = get_path(entry, "state", "terminated", "exitCode")
        codes[as_text(get_path(entry, "name"))] = None if ended is None else as_int(ended)
    return codes


def _get_pod_spec(job: Job) -> dict[str, t.Any]:
    return as_dict(get_path(job.raw, "spec", "template", "spec"))


def _read_note(job: Job) -> Work | None:
    document = read_annotation(job, WORK)
    if document is None or document.get("state") not in (DONE, OPEN, UNKNOWN):
        return None
    ended, others = (tuple(map(as_text, as_list(document.get(name)))) for name in ("ended", "others"))
    return Work(as_text(document["state"]), as_text(document.get("pod")), ended, others)
