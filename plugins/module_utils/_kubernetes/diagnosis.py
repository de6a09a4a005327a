# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a workload from its goal, as pure functions of a snapshot, and for how long each reason is borne.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import typing as t

from .._common.text import format_count, format_duration
from .fields import as_dict, as_list, as_text, as_time, get_path
from .objects import ContainerState, Event, Job, Pod, Workload, format_condition, index_conditions, list_keepers
from .snapshot import Snapshot

CRASH_LOOP_RESTARTS = 4
"""Restarts since the wait began. The pauses before them are 10, 20, 40 and 80 s: a database comes up meanwhile."""
SCALE_UP_SECONDS = 300.0
"""For so long an autoscaler of nodes that has said it adds one may take."""

GRACE_SECONDS: dict[str, float | None] = {
    "InvalidImageName": 15.0,
    "ErrImageNeverPull": 15.0,
    "ImagePullBackOff": 120.0,
    "CreateContainerConfigError": 15.0,
    "CreateContainerError": 30.0,
    "RunContainerError": 30.0,
    "CrashLoopBackOff": None,
    "Unschedulable": 180.0,
    "SchedulingGated": None,
    "QuotaExceeded": 60.0,
    "FailedCreate": 60.0,
    "Paused": 10.0,
    "ProgressDeadlineExceeded": 0.0,
    "FailedMount": None,
    "FailedAttachVolume": None,
    "FailedCreatePodSandBox": None,
    "ContainersNotReady": None,
    "Terminating": None,
    "OrderedReady": None,
    "ActiveJob": None,
    "KeptByContainer": 60.0,
}
"""For how long each reason may last before it fails a wait; None: it never does by itself.

Reasons are Kubernetes' own where it has one. CrashLoopBackOff is judged by restarts, see ``CRASH_LOOP_RESTARTS``.
"""

NEXT_STEPS: dict[str, str] = {
    "InvalidImageName": "Correct the name of the image",
    "ErrImageNeverPull": "Load the image onto the node, or change imagePullPolicy",
    "ImagePullBackOff": "Correct the image, or the registry's credentials (imagePullSecrets), or wait for the registry",
    "CreateContainerConfigError": "Create or correct the Secret, ConfigMap or key that the message names",
    "CreateContainerError": "Correct what the message names in the container's spec or on its node",
    "RunContainerError": "Correct the command, mount or device that the message names",
    "CrashLoopBackOff": "Look at the container's previous log (kubectl logs --previous)",
    "Unschedulable": "Add capacity, or lower the requests or the number of replicas",
    "SchedulingGated": "Find out who removes the gates that the message names (a queue such as Kueue, or an operator)",
    "QuotaExceeded": "Raise the quota, or lower the number of replicas",
    "FailedCreate": "Remove what the message names (admission webhook, pod security, service account)",
    "Paused": "Resume it (kubectl rollout resume), or take the change of its pod template back",
    "ProgressDeadlineExceeded": "Look at its pods, and undo the rollout (kubectl rollout undo) or correct it",
    "FailedMount": "Create what the message names, or look at the volume and its node",
    "FailedAttachVolume": "Find out which node still holds the volume (kubectl get volumeattachments)",
    "FailedCreatePodSandBox": "Look at the network plugin and the container runtime of the node",
    "ContainersNotReady": "Look at the pod's readiness probe and its log",
    "Terminating": "Find out what keeps it: a finalizer, a long grace period, or a node that is lost",
    "OrderedReady": (
        "Delete the pod (kubectl delete pod), or create the StatefulSet again with podManagementPolicy Parallel"
        " (kubectl delete --cascade=orphan keeps its pods)"
    ),
    "ActiveJob": "Wait for the Job, or suspend or delete it",
    "KeptByContainer": (
        "End the container that the message names before the Job's deadline (kubectl exec), which completes the Job; its"
        " work is done and must not be repeated; later leave that container out, or make it a native sidecar"
    ),
}

_PULL = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable")
_WAITING = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
_STARTING = ("ContainerCreating", "PodInitializing")
_SCALE_UP = ("TriggeredScaleUp", "Nominated")
_NODE_TROUBLES = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
_CREATION = ("FailedCreate", "SuccessfulCreate")


class Finding(t.NamedTuple):
    """Something that keeps a workload from its goal: reason (a key of ``GRACE_SECONDS``), object, and what it says.

    ``holder`` is who can let go (a node, a finalizer), ``revision`` the template hash of the pod, ``since`` when it
    began by the server's word. ``restarts`` are those of a crashing container, ``restarts_before`` those before the
    wait began, None when that is not known. Until ``held_until`` somebody is at work on it, and it fails no wait. Times
    are seconds since 1970.
    """

    reason: str
    object: str
    message: str
    holder: str = ""
    revision: str = ""
    since: float | None = None
    restarts: int = 0
    restarts_before: int | None = None
    held_until: float = 0.0

    def __str__(self) -> str:
        return f"{self.reason}: {self.object}: {self.message}"

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return NEXT_STEPS[self.reason]


def diagnose(snapshot: Snapshot, workload: Workload, *, since: float, goal: int) -> list[Finding]:
    """Return what keeps a workload from ``goal`` replicas, as far as the snapshot shows it; its own words first.

    ``since`` is when the wait began by the server's clock: what events and conditions say of the time before does not
    count. Pods count if
    they are of the newest revision, or stay what they are on purpose (partition, OnDelete); ended ones never do.
    """
    # Events and creation times are whole seconds.
    since = math.floor(since)
    findings = find_workload_failures(snapshot, workload, since=since, goal=goal)
    if goal == 0:
        findings += [_describe_job(job) for job in snapshot.list_active_jobs(workload)]
    if goal == 0 or workload.kind == "StatefulSet":
        # One that has ended and is kept by a finalizer is still counted by its controller.
        pods = snapshot.list_pods(workload)
        findings += [describe_terminating(pod, snapshot.at) for pod in pods if pod.is_terminating]
    if workload.kind == "StatefulSet" and workload.is_observed:
        findings += _find_held_by_order(snapshot, workload, since=since, goal=goal)
    if goal == 0 or not workload.is_observed:
        return findings
    for pod in list_pods_to_start(snapshot, workload):
        finding = _find_kept(workload, pod) or _find_failure(snapshot, pod, since)
        if finding is not None:
            findings.append(finding)
    return findings


def _find_kept(workload: Workload, pod: Pod) -> Finding | None:
    """Return what keeps the pod of a Job whose own containers have all ended with 0, such as an injected proxy."""
    if workload.kind != "Job":
        return None
    entries = as_list(get_path(workload.template, "spec", "containers"))
    own = [as_text(get_path(entry, "name")) for entry in entries]
    keepers = list_keepers(pod, own)
    if not keepers:
        return None
    message = (
        f"{' and '.join(own)} ended with 0; {' and '.join(keepers)} {'keeps' if len(keepers) == 1 else 'keep'} the pod"
    )
    return Finding("KeptByContainer", pod.title, message, keepers[0])


def _find_held_by_order(snapshot: Snapshot, workload: Workload, *, since: float, goal: int) -> list[Finding]:
    """Return the pods that a StatefulSet waits for although nothing makes them ready.

    With OrderedReady it deletes a pod that is not ready only if no lower one is unready too, and it neither replaces one
    of an old revision nor creates the next one before that is ready. While one terminates it waits for that.
    """
    if get_path(workload.raw, "spec", "podManagementPolicy") == "Parallel":
        return []
    numbered = [(_find_ordinal(pod), pod) for pod in snapshot.list_running_pods(workload)]
    by_ordinal = {ordinal: pod for ordinal, pod in numbered if ordinal is not None}
    pods = [by_ordinal[ordinal] for ordinal in sorted(by_ordinal)]
    if any(pod.is_terminating for pod in pods):
        return []
    unready = [pod for pod in pods if not pod.is_ready]
    if goal == 0:
        words = "its StatefulSet deletes it only once it is ready, since {lowest} is not ready either"
        return [
            _describe_held(pod, words.format(lowest=unready[0].name), _find_failure(snapshot, pod, since))
            for pod in unready[1:]
        ]
    newest = snapshot.update_hash(workload)
    findings = []
    for pod in unready:
        failure = _find_failure(snapshot, pod, since)
        if failure is not None and not _is_to_stay(workload, pod, newest):
            words = f"it is of revision {pod.template_hash}, and its StatefulSet replaces it only once it is ready"
            findings.append(_describe_held(pod, words, failure))
    return findings


def _find_failure(snapshot: Snapshot, pod: Pod, since: float) -> Finding | None:
    return find_pod_failure(pod, snapshot.list_events(pod.uid), since=since)


def _describe_held(pod: Pod, why: str, failure: Finding | None) -> Finding:
    own = f"{failure.reason}: {failure.message}" if failure is not None else "it is not ready"
    message = f"{why} (podManagementPolicy OrderedReady); {own}"
    return Finding("OrderedReady", pod.title, message, revision=pod.template_hash, since=pod.created_at)


def _find_ordinal(pod: Pod) -> int | None:
    """Return the number of a StatefulSet's pod; None for one that it does not count, whatever owns it."""
    ordinal = pod.name.rpartition("-")[2]
    return int(ordinal) if ordinal.isdigit() else None


def list_pods_to_start(snapshot: Snapshot, workload: Workload) -> list[Pod]:
    """Return the pods that are to become ready and are not: not ended, terminating, or about to be replaced."""
    newest = snapshot.update_hash(workload)
    return [
        pod
        for pod in snapshot.list_running_pods(workload)
        if not pod.is_ready and not pod.is_terminating and _is_to_stay(workload, pod, newest)
    ]


def _is_to_stay(workload: Workload, pod: Pod, newest: str | None) -> bool:
    """Return whether a pod is of the newest revision, or of an older one that its update strategy leaves alone."""
    if newest is None or pod.template_hash in ("", newest):
        return True
    strategy = as_dict(get_path(workload.raw, "spec", "updateStrategy"))
    if strategy.get("type") == "OnDelete":
        return True
    partition = get_path(strategy, "rollingUpdate", "partition")
    ordinal = _find_ordinal(pod)
    if not partition or ordinal is None:
        return False
    start = get_path(workload.raw, "spec", "ordinals", "start") or 0
    return ordinal - int(start) < int(partition)


def find_workload_failures(snapshot: Snapshot, workload: Workload, *, since: float, goal: int) -> list[Finding]:
    """Return what a workload's own fields and events say: paused, out of progress deadline, pods not to be created."""
    findings = []
    if workload.paused and goal > 0 and workload.updated < min(workload.pods, workload.updated_wanted):
        count = workload.pods - workload.updated
        message = f"spec.paused is true, and {format_count(count, 'pod')} of an older template will not be replaced"
        findings.append(Finding("Paused", workload.title, message))
    progressing = as_dict(workload.conditions.get("Progressing"))
    if progressing.get("reason") == "ProgressDeadlineExceeded" and progressing.get("status") == "False":
        at = as_time(progressing.get("lastUpdateTime") or progressing.get("lastTransitionTime")) or 0.0
        if at >= since and workload.is_observed:
            message = format_condition(progressing)
            findings.append(Finding("ProgressDeadlineExceeded", workload.title, message, since=at))
    is_short = workload.pods < goal or workload.updated < min(goal, workload.updated_wanted)
    if is_short and workload.is_observed:
        message = _find_create_failure(snapshot, workload, since)
        if message:
            reason = "QuotaExceeded" if "exceeded quota" in message else "FailedCreate"
            findings.append(Finding(reason, workload.title, message))
    return findings


def _find_create_failure(snapshot: Snapshot, workload: Workload, since: float) -> str:
    """Return why no pod is created, "" if none failed: by a condition, or by the newest event about creation."""
    condition = as_dict(workload.conditions.get("ReplicaFailure"))
    if condition.get("status") == "True":
        return format_condition(condition)
    if workload.kind == "Deployment":
        return ""  # events are about its ReplicaSets, and the condition repeats them
    about = [event for event in snapshot.list_events(workload.uid) if event.reason in _CREATION and event.at >= since]
    newest = max(about, key=lambda event: (event.at, event.reason == "FailedCreate"), default=None)
    return newest.message if newest is not None and newest.reason == "FailedCreate" else ""


def find_pod_failure(pod: Pod, events: t.Sequence[Event], *, since: float) -> Finding | None:
    """Return the first thing that keeps a pod from becoming ready, under Kubernetes' own reason; None if none does."""
    recent = [event for event in events if event.at >= since]
    if pod.unschedulable_message is not None:
        return _describe_unschedulable(pod, recent)
    gated = _find_scheduling_gates(pod)
    if gated is not None:
        return gated
    for container in pod.containers:
        finding = _find_container_failure(pod, container, since)
        if finding is not None:
            return finding
    starting = any(container.waiting_reason in _STARTING for container in pod.containers)
    newest = recent[-1] if recent else None
    if starting and newest is not None and newest.reason in _NODE_TROUBLES:
        return Finding(newest.reason, pod.title, newest.message, pod.node, pod.template_hash, newest.created_at)
    if pod.phase == "Running":
        return _find_unready_containers(pod)
    return None


def _describe_unschedulable(pod: Pod, recent: t.Sequence[Event]) -> Finding:
    message = pod.unschedulable_message or ""
    scale_ups = [event for event in recent if event.reason in _SCALE_UP]
    if scale_ups:
        message += f"; {scale_ups[-1].reason}: {scale_ups[-1].message}"
    held_until = scale_ups[-1].at + SCALE_UP_SECONDS if scale_ups else 0.0
    return Finding(
        "Unschedulable", pod.title, message, revision=pod.template_hash, since=pod.created_at, held_until=held_until
    )


def _find_scheduling_gates(pod: Pod) -> Finding | None:
    """Return what keeps the scheduler from looking at a pod, until somebody lets it in."""
    scheduled = as_dict(index_conditions(as_dict(pod.raw.get("status"))).get("PodScheduled"))
    if scheduled.get("status") != "False" or scheduled.get("reason") != "SchedulingGated":
        return None
    gates = [as_text(get_path(gate, "name")) for gate in as_list(get_path(pod.raw, "spec", "schedulingGates"))]
    message = as_text(scheduled.get("message")) or "a scheduling gate holds it"
    message += f" (gates {', '.join(gates)})" if gates else ""
    holder = gates[0] if gates else ""
    return Finding("SchedulingGated", pod.title, message, holder, pod.template_hash, pod.created_at)


def _find_container_failure(pod: Pod, container: ContainerState, since: float) -> Finding | None:
    reason = container.waiting_reason
    detail = f"container {container.name}: {reason}: {container.waiting_message}".rstrip(": ")
    if reason in _PULL:
        detail += f" (image {container.image})"
        reason = "ImagePullBackOff"
    if reason == "ImagePullBackOff" or reason in _WAITING:
        return Finding(reason, pod.title, detail, revision=pod.template_hash, since=pod.started_at)
    if reason != "CrashLoopBackOff":
        return None
    is_new = pod.created_at is not None and pod.created_at >= since
    detail += f"; {format_count(container.restarts, 'restart')}"
    if container.last_exit_code is not None:
        detail += f", it last ended with exit code {container.last_exit_code} ({container.last_reason})"
    return Finding(
        "CrashLoopBackOff",
        pod.title,
        detail,
        revision=pod.template_hash,
        since=pod.started_at,
        restarts=container.restarts,
        restarts_before=0 if is_new else None,
    )


def _find_unready_containers(pod: Pod) -> Finding | None:
    for condition in as_list(get_path(pod.raw, "status", "conditions")):
        if get_path(condition, "type") == "Ready" and get_path(condition, "status") == "False":
            message = as_text(condition.get("message")) or "it runs and is not ready"
            since = as_time(condition.get("lastTransitionTime"))
            return Finding("ContainersNotReady", pod.title, message, revision=pod.template_hash, since=since)
    return None


def describe_terminating(pod: Pod, now: float) -> Finding:
    """Say what a terminating pod waits for: its grace period, its node, finalizers."""
    parts = [f"on node {pod.node}" if pod.node else "on no node"]
    since = None
    if pod.deletion_timestamp is not None:
        left = pod.deletion_timestamp - now
        since = pod.deletion_timestamp - (pod.grace_period or 0)
        parts.append(
            f"{format_duration(left)} of its grace period of {pod.grace_period or 0} s left"
            if left > 0
            else f"its grace period of {pod.grace_period or 0} s ended {format_duration(-left)} ago"
        )
    if pod.finalizers:
        parts.append(f"finalizers {', '.join(pod.finalizers)}")
    holder = pod.finalizers[0] if pod.finalizers else pod.node
    return Finding("Terminating", pod.title, ", ".join(parts), holder, pod.template_hash, since)


def _describe_job(job: Job) -> Finding:
    message = f"{format_count(job.active, 'pod')} active, {job.succeeded} of {job.completions} succeeded"
    return Finding("ActiveJob", job.title, message, since=job.created_at)


class GracePeriod:
    """Tells findings that pass from those that last: each reason has its time, and ``factor`` stretches them all.

    ``overrides`` replaces entries of ``GRACE_SECONDS`` (None: never). One object serves one wait.
    """

    def __init__(self, factor: float = 1.0, overrides: t.Mapping[str, float | None] | None = None) -> None:
        self.factor = factor
        self._seconds = {**GRACE_SECONDS, **(overrides or {})}
        self._first_seen: dict[tuple[str, str], float] = {}
        self._restarts: dict[tuple[str, str], int] = {}
        self._expiries: list[float] = []

    def find_expired(self, findings: t.Sequence[Finding], recovering: t.Collection[str], now: float) -> Finding | None:
        """Return the first finding that has lasted longer than its reason is borne; None if none has.

        A finding counts from when it was first seen. One that has gone counts anew when it comes back, unless its
        object is in ``recovering`` (a crashed container runs again, and its pod is not ready yet).
        """
        present = {(finding.object, finding.reason) for finding in findings}
        kept = {key for key in self._first_seen if key in present or key[0] in recovering}
        self._first_seen = {key: at for key, at in self._first_seen.items() if key in kept}
        self._restarts = {key: count for key, count in self._restarts.items() if key in kept}
        self._expiries = []
        expired = None
        for finding in findings:
            if self._is_expired(finding, now) and expired is None:
                expired = finding
        return expired

    def describe_limit(self, finding: Finding) -> str:
        """Return for how long a finding was borne, in words; empty for one that is judged by restarts."""
        seconds = self._seconds[finding.reason]
        return "" if seconds is None else f" (for {seconds * self.factor:g} s, failure_grace_factor {self.factor:g})"

    def next_expiry(self, now: float) -> float:
        """Return the seconds until a finding of the last look expires by time alone; inf if none will."""
        return min((at - now for at in self._expiries if at > now), default=math.inf)

    def _is_expired(self, finding: Finding, now: float) -> bool:
        key = (finding.object, finding.reason)
        first_seen = self._first_seen.setdefault(key, now)
        if finding.reason == "CrashLoopBackOff" and self._seconds[finding.reason] is None:
            before = finding.restarts_before
            before = self._restarts.setdefault(key, finding.restarts) if before is None else before
            return finding.restarts - before >= max(1, round(CRASH_LOOP_RESTARTS * self.factor))
        seconds = self._seconds[finding.reason]
        if seconds is None:
            return False
        expiry = max(first_seen + seconds * self.factor, finding.held_until)
        self._expiries.append(expiry)
        return now >= expiry
