# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a workload does not do what it is there for, as a pure function of what was read: the cause before the symptom.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t

from .._common.text import format_count, format_duration, join_some
from .._common.timestamps import format_utc
from .conditions import assess_alone
from .diagnosis import Finding, describe_terminating, find_pod_failure, find_workload_failures
from .evidence import SERVICE_NAME, Material
from .fields import Json, as_dict, as_int, as_list, as_text, as_time, get_path
from .objects import Event, Pod, index_conditions
from .pod_readings import Answers, judge_answers, judge_missing
from .reasons import REASONS, Verdict, judge_group, judge_observation, make_verdict
from .references import find_missing, find_missing_variables, list_containers, list_references
from .saved_state import read_stop

_RANKS = {reason: rank for rank, reason in enumerate(REASONS)}
_OF_FINDINGS = {
    "InvalidImageName": "image_pull",
    "ErrImageNeverPull": "image_pull",
    "ImagePullBackOff": "image_pull",
    "CreateContainerConfigError": "missing_configuration",
    "CrashLoopBackOff": "crash_loop",
    "Unschedulable": "unschedulable",
    "QuotaExceeded": "quota",
    "ContainersNotReady": "not_ready",
}
_NO_SUCH_SOURCE = re.compile(r"(?:secret|configmap) \"[^\"]*\" not found|references non-existent (?:secret|config) key")
_CONTAINER_OF_EVENT = re.compile(r"spec\.(?:initC|c)ontainers\{(.*)\}")
_PROBES = ("startup", "liveness", "readiness")
LAST_LINES = 5
"""Lines of a log that a verdict shows. The result and the saved evidence have more."""
_OOM = "OOMKilled"
CLEANUP_SECONDS = 15.0
"""What a node has after the grace period of a pod to report its end, and clocks to differ."""


class Question(t.NamedTuple):
    """What beside the workload's own state is to be judged: how far back, and what was read elsewhere.

    ``since`` is in seconds since 1970. ``required`` are names of variables by container. ``groups`` are consumer groups
    as rpk_group_info returns them, ``observations`` values with their limits, ``readings`` what the pods answered.
    """

    since: float = 0.0
    required: t.Mapping[str, t.Collection[str]] = {}
    groups: t.Sequence[Json] = ()
    observations: t.Sequence[Json] = ()
    readings: t.Sequence[Answers] = ()


def judge(material: Material, question: Question) -> list[Verdict]:
    """Return every verdict, the cause first: what holds now before history, then in the order of ``REASONS``.

    That a pod did not answer is no cause of anything, so it stands last; but then nothing is called healthy.
    """
    title = material.workload.title
    missing = [verdict for answers in question.readings for verdict in judge_missing(answers, title)]
    verdicts = [
        *_judge_replicas(material),
        *_judge_configuration(material, question),
        *_judge_nodes(material),
        *_judge_claims(material),
        *_judge_terminations(material, question.since),
        *_judge_probes(material, question.since),
        *_judge_findings(material),
        *_judge_ended_pods(material, question.since),
        *_judge_held_pods(material),
        *_judge_services(material),
        *(judge_group(group) for group in question.groups),
        *(judge_observation(observation) for observation in question.observations),
        *(verdict for answers in question.readings for verdict in judge_answers(answers)),
    ]
    causes = _merge(_drop_symptoms([verdict for verdict in verdicts if verdict is not None]))
    if not any(verdict.is_current for verdict in causes):
        causes += _judge_unread(material, question)
    causes = sorted(causes, key=_rank) or [_judge_rest(material, question.since)]
    return [verdict for verdict in causes if not missing or verdict.reason != "healthy"] + missing


def _rank(verdict: Verdict) -> tuple[bool, int, bool, float, str, str]:
    of_reason = (_RANKS[verdict.reason], not verdict.is_newest)
    return (not verdict.is_current, *of_reason, verdict.since or 0.0, verdict.object, verdict.message)


def _judge_unread(material: Material, question: Question) -> list[Verdict]:
    """Return the verdict on a workload of which too little could be read to call it healthy."""
    lacks = [*material.lacking, *list_untold(material, question)]
    if not lacks:
        return []
    status = assess_alone(material.workload)
    message = f"{status.message}, but nobody can say whether it is well without what could not be read ({lacks[0]})"
    step = f"Let this account read what lacks, and run again: {'; '.join(lacks)}"
    return [make_verdict("unknown", material.workload.title, message, next_step=step, evidence=tuple(lacks))]


def _judge_rest(material: Material, since: float) -> Verdict:
    """Return the verdict where nothing was found: all is well, or it is on its way."""
    workload = material.workload
    status = assess_alone(workload)
    if status.state == "Current":
        message = f"{workload.ready} of {format_count(workload.replicas, 'replica')} ready"
        ago = format_duration(material.snapshot.at - since)
        return make_verdict("healthy", workload.title, f"{message}, and nothing failed in the last {ago}")
    return make_verdict("not_ready", workload.title, f"{status.message}, and nothing that was read says why")


# -- the workload itself ----------------------------------------------------------------------------------------------


def _judge_replicas(material: Material) -> t.Iterator[Verdict]:
    """Say who scaled a workload to 0: a run of ours, an autoscaler, or the writer of the field."""
    workload = material.workload
    if workload.replicas > 0:
        return
    if workload.kind == "DaemonSet":
        yield make_verdict("scaled_to_zero", workload.title, "no node matches its selector, affinity and tolerations")
        return
    stopped = read_stop(workload).state
    if stopped is not None:
        message = f"it was stopped by run {stopped.run_id} at {stopped.at}, and had {format_count(stopped.replicas or 0, 'replica')}"
        step = "Start it with lowtide.ops.startup or lowtide.ops.restore_service, which give it what it had"
        yield make_verdict("scaled_to_zero", workload.title, message, since=as_time(stopped.at), next_step=step)
        return
    written_at = find_write_time(workload.raw, "f:replicas", workload.writer)
    by = f"by {workload.writer}" if workload.writer else "by a client that the object does not name"
    at = f" at {format_utc(written_at)}" if written_at is not None else ""
    step = "Ask who set it to 0, and give it replicas if it is meant to run"
    yield make_verdict(
        "scaled_to_zero", workload.title, f"its replicas were set to 0 {by}{at}", since=written_at, next_step=step
    )


def find_write_time(obj: Json, field: str, manager: str | None) -> float | None:
    """Return when a manager wrote a field of the spec last, by managedFields."""
    times = [
        as_time(entry.get("time")) or 0.0
        for entry in as_list(get_path(obj, "metadata", "managedFields"))
        if entry.get("manager") == manager and field in as_dict(get_path(entry, "fieldsV1", "f:spec"))
    ]
    return max(times, default=None)


def _judge_configuration(material: Material, question: Question) -> t.Iterator[Verdict]:
    workload = material.workload
    spec = as_dict(workload.template.get("spec"))
    missing = find_missing(list_references(spec), material.contents, workload.namespace)
    missing += find_missing_variables(spec, question.required, material.contents, workload.title)[0]
    serves = workload.ready >= max(workload.replicas, 1)
    waiting = [
        f"{pod.title}: container {container.name}: {container.waiting_message}"
        for pod in material.pods
        for container in pod.containers
        if container.waiting_reason == "CreateContainerConfigError"
    ]
    for lack in missing:
        message = lack.message + ("; its pods still run, and none that starts now will" if serves else "")
        yield make_verdict(
            "missing_configuration", lack.object, message, is_current=not serves, evidence=tuple(waiting)
        )


def list_untold(material: Material, question: Question) -> list[str]:
    """Return which required variables nothing can be said of, as what would hold them could not be read."""
    workload = material.workload
    spec = as_dict(workload.template.get("spec"))
    return find_missing_variables(spec, question.required, material.contents, workload.title)[1]


def _judge_nodes(material: Material) -> t.Iterator[Verdict]:
    for name in sorted({pod.node for pod in material.pods} - {""}):
        node = material.snapshot.find("Node", "", name)
        ready = index_conditions(as_dict(get_path(node, "status"))).get("Ready")
        if node is None or ready is None or ready.get("status") == "True":
            continue
        pods = [pod.name for pod in material.pods if pod.node == name]
        message = f"Ready is {ready.get('status')}: {as_text(ready.get('message')) or as_text(ready.get('reason'))}"
        evidence = (f"its pods of this workload: {join_some(pods)}",)
        since = as_time(ready.get("lastTransitionTime"))
        yield make_verdict("node_not_ready", f"Node {name}", message, since=since, evidence=evidence)


def _judge_claims(material: Material) -> t.Iterator[Verdict]:
    for pod in material.pods:
        if pod.node:
            continue
        for volume in as_list(get_path(pod.raw, "spec", "volumes")):
            name = as_text(get_path(volume, "persistentVolumeClaim", "claimName"))
            claim = material.snapshot.find("PersistentVolumeClaim", pod.namespace, name) if name else None
            verdict = _judge_claim(material, pod, claim) if claim is not None else None
            if verdict is not None:
                yield verdict


def _judge_claim(material: Material, pod: Pod, claim: Json) -> Verdict | None:
    if get_path(claim, "status", "phase") != "Pending":
        return None
    events = material.snapshot.list_events(as_text(get_path(claim, "metadata", "uid")))
    told = events[-1].message if events else ""
    if (
        events
        and events[-1].reason == "WaitForFirstConsumer"
        and "persistentvolume" not in _lower(pod.unschedulable_message)
    ):
        return None  # its volume is made once its pod has a node, which something else keeps from it
    title = f"PersistentVolumeClaim {pod.namespace}/{claim['metadata']['name']}"
    storage_class = get_path(claim, "spec", "storageClassName")
    what = (
        f"storage class {storage_class}"
        if storage_class
        else "no storage class, so that only an existing volume fits it"
    )
    message = f"no volume is bound to it ({what})" + (f": {told}" if told else "")
    since = as_time(get_path(claim, "metadata", "creationTimestamp"))
    return make_verdict("claim_pending", title, message, since=since, evidence=(f"{pod.title} waits for it",))


def _lower(text: str | None) -> str:
    return (text or "").lower()


# -- containers that ended --------------------------------------------------------------------------------------------


class _Termination(t.NamedTuple):
    pod: Pod
    container: str
    reason: str
    exit_code: int
    at: float | None
    restarts: int
    is_ready: bool
    waiting: str
    message: str


def _list_terminations(pod: Pod) -> t.Iterator[_Termination]:
    for field in ("initContainerStatuses", "containerStatuses"):
        for status in as_list(get_path(pod.raw, "status", field)):
            ended = as_dict(get_path(status, "state", "terminated") or get_path(status, "lastState", "terminated"))
            if not ended or (as_int(ended.get("exitCode")) == 0 and field == "initContainerStatuses"):
                continue
            yield _Termination(
                pod=pod,
                container=as_text(get_path(status, "name")),
                reason=as_text(ended.get("reason")),
                exit_code=as_int(ended.get("exitCode")),
                at=as_time(ended.get("finishedAt")),
                restarts=as_int(get_path(status, "restartCount")),
                is_ready=get_path(status, "ready") is True,
                waiting=as_text(get_path(status, "state", "waiting", "reason")),
                message=as_text(ended.get("message")),
            )


def _judge_terminations(material: Material, since: float) -> t.Iterator[Verdict]:
    """Tell containers that ran out of memory from those that end by themselves; by their state, never by events."""
    for pod in material.pods:
        if pod.is_terminating:
            continue
        for ended in _list_terminations(pod):
            if ended.at is not None and ended.at < since and _is_running(pod, ended.container):
                continue
            if ended.reason == _OOM:
                yield _describe_oom(material, ended)
            elif ended.waiting == "CrashLoopBackOff" or (ended.restarts > 0 and not ended.is_ready) or ended.exit_code:
                yield _describe_crash(material, ended)


def _describe_oom(material: Material, ended: _Termination) -> Verdict:
    limit = _find_memory_limit(ended.pod, ended.container)
    what = f"at its memory limit of {limit}" if limit else "without a memory limit of its own: its node or pod ran out"
    message = f"container {ended.container} was OOM killed {what} ({format_count(ended.restarts, 'restart')})"
    return _describe_ended(material, "oom_killed", ended, message)


def _describe_crash(material: Material, ended: _Termination) -> Verdict:
    why = f"{ended.reason}, exit code {ended.exit_code}"
    message = f"container {ended.container} ended by itself ({why}; {format_count(ended.restarts, 'restart')})"
    return _describe_ended(material, "crash_loop", ended, message)


def _describe_ended(material: Material, reason: str, ended: _Termination, message: str) -> Verdict:
    evidence = [f"{ended.pod.title}: {message}"]
    if ended.at is not None:
        evidence[0] += f", last at {format_utc(ended.at)}"
    if ended.message:
        evidence.append(f"termination message: {ended.message.strip()}")
    evidence += _find_last_lines(material, ended.pod, ended.container)
    return make_verdict(
        reason,
        ended.pod.title,
        message,
        since=ended.at,
        evidence=tuple(evidence),
        is_current=not ended.is_ready,
        is_newest=material.snapshot.update_hash(material.workload) in (None, ended.pod.template_hash),
        subject=ended.container,
        container=ended.container,
    )


def _find_memory_limit(pod: Pod, container: str) -> str:
    for described in list_containers(as_dict(pod.raw.get("spec"))):
        if described.get("name") == container:
            return as_text(get_path(described, "resources", "limits", "memory"))
    return ""


def _find_last_lines(material: Material, pod: Pod, container: str) -> list[str]:
    """Return the end of the log of the container that ended.

    While it runs again that is the previous log. Until then it is the current one, and the previous one is that of the
    container before it, which its node may have removed.
    """
    title = f"{pod.namespace}/{pod.name}"
    own = [log for log in material.logs if (log.pod, log.container) == (title, container) and log.text]
    own.sort(key=lambda log: log.previous != _is_running(pod, container))
    return [f"{log.title}: {line}" for log in own[:1] for line in log.text.splitlines()[-LAST_LINES:]]


# -- pods that have ended, or do not ----------------------------------------------------------------------------------


def _judge_ended_pods(material: Material, since: float) -> t.Iterator[Verdict]:
    """Name the pods of the present revision that failed as a whole: evicted, or refused by their node.

    Their containers are restarted by their node, so that no pod of a workload fails by itself.
    """
    workload = material.workload
    newest = material.snapshot.update_hash(workload)
    for pod in material.snapshot.list_pods(workload):
        ended_at = _find_end(pod)
        if pod.phase != "Failed" or ended_at < since or (newest and pod.template_hash not in ("", newest)):
            continue
        reason = as_text(get_path(pod.raw, "status", "reason")) or "Failed"
        told = as_text(get_path(pod.raw, "status", "message")).strip()
        where = f" on node {pod.node}" if pod.node else ""
        message = f"it ended{where}: {reason}{f': {told}' if told else ''}"
        yield make_verdict(
            "evicted",
            pod.title,
            message,
            since=ended_at,
            evidence=(f"{pod.title}: {message}, at {format_utc(ended_at)}",),
            is_current=workload.ready < workload.replicas,
            subject=reason,
        )


def _find_end(pod: Pod) -> float:
    """Return when a pod ended, by the latest time that its status has."""
    status = as_dict(pod.raw.get("status"))
    times = [as_time(get_path(entry, "lastTransitionTime")) for entry in as_list(status.get("conditions"))]
    times += [as_time(get_path(entry, "state", "terminated", "finishedAt")) for entry in _list_statuses(pod)]
    return max((at for at in [*times, pod.started_at, pod.created_at] if at is not None), default=0.0)


def _list_statuses(pod: Pod) -> list[t.Any]:
    return [
        status
        for field in ("initContainerStatuses", "containerStatuses")
        for status in as_list(get_path(pod.raw, "status", field))
    ]


def _judge_held_pods(material: Material) -> t.Iterator[Verdict]:
    """Name the pods that are still there although their grace period is over: a finalizer or a lost node holds them."""
    at = material.snapshot.at
    for pod in material.snapshot.list_pods(material.workload):
        if pod.deletion_timestamp is None or pod.deletion_timestamp + CLEANUP_SECONDS > at:
            continue
        finding = describe_terminating(pod, at)
        message = f"it is being deleted and does not go: {finding.message}"
        yield make_verdict("terminating", pod.title, message, since=finding.since, subject=finding.holder or "")


# -- probes -----------------------------------------------------------------------------------------------------------


def _judge_probes(material: Material, since: float) -> t.Iterator[Verdict]:
    """Say which probe of which container fails, for pods that run and are not ready or whose container it killed."""
    for pod in material.pods:
        if pod.is_terminating or pod.phase != "Running":
            continue
        events = [event for event in material.snapshot.list_events(pod.uid) if event.at >= since]
        ready = {
            as_text(get_path(status, "name")): get_path(status, "ready") is True
            for status in as_list(get_path(pod.raw, "status", "containerStatuses"))
        }
        for container in list_containers(as_dict(pod.raw.get("spec"))):
            name = as_text(container.get("name"))
            of_container = [event for event in events if _find_container(event, pod) == name]
            verdict = _judge_probe(material, pod, container, of_container, is_ready=ready.get(name, True))
            if verdict is not None:
                yield verdict


def _judge_probe(
    material: Material, pod: Pod, container: Json, events: t.Sequence[Event], *, is_ready: bool
) -> Verdict | None:
    name = as_text(container.get("name"))
    killed = [event for event in events if event.reason == "Killing" and "probe" in event.message]
    if is_ready and not killed:
        return None
    for probe in _PROBES:
        described = as_dict(container.get(f"{probe}Probe"))
        unhealthy = [
            event for event in events if event.reason == "Unhealthy" and _lower(event.message).startswith(probe)
        ]
        if not described or not unhealthy or (probe == "liveness" and not killed):
            continue
        what = f"{probe} probe of container {name} fails ({describe_probe(described)})"
        if killed and probe != "readiness":
            what += ", and its container is killed for it"
        last = unhealthy[-1]
        lines = [f"event {last.reason} (x{last.times}): {last.message}", *_find_last_lines(material, pod, name)]
        return make_verdict(
            "probe_failing",
            pod.title,
            f"{what}: {last.message}",
            since=last.created_at,
            evidence=tuple(lines),
            is_current=not is_ready,
            subject=f"{'killing ' if killed and probe != 'readiness' else ''}{probe} {name}",
            container=name,
        )
    if is_ready or not _is_running(pod, name) or not container.get("readinessProbe"):
        return None
    # Nothing says so, as the account may not read events or they are gone; but it runs, and only a probe is missing.
    what = (
        f"container {name} runs and is not ready; its readiness probe is {describe_probe(container['readinessProbe'])}"
    )
    lines = _find_last_lines(material, pod, name)
    return make_verdict(
        "probe_failing", pod.title, what, evidence=tuple(lines), subject=f"readiness {name}", container=name
    )


def _find_container(event: Event, pod: Pod) -> str:
    """Return the container that an event is about; of a pod with one container it need not say so."""
    match = _CONTAINER_OF_EVENT.fullmatch(event.about_field)
    if match is not None:
        return match[1]
    return pod.containers[0].name if len(pod.containers) == 1 else ""


def _is_running(pod: Pod, container: str) -> bool:
    return any(
        get_path(status, "name") == container and get_path(status, "state", "running") is not None
        for status in as_list(get_path(pod.raw, "status", "containerStatuses"))
    )


def describe_probe(probe: Json) -> str:
    """Return what a probe asks for, and its times."""
    http, tcp, grpc = (as_dict(probe.get(field)) for field in ("httpGet", "tcpSocket", "grpc"))
    if http:
        what = f"GET {as_text(http.get('path')) or '/'} on port {http.get('port')}"
    elif tcp:
        what = f"a connection to port {tcp.get('port')}"
    elif grpc:
        what = f"gRPC on port {grpc.get('port')}"
    else:
        what = f"command {' '.join(map(as_text, as_list(get_path(probe, 'exec', 'command'))))}"
    every, times = as_int(probe.get("periodSeconds"), 10), as_int(probe.get("failureThreshold"), 3)
    return f"{what}, timeout {as_int(probe.get('timeoutSeconds'), 1)} s, every {every} s, {times} failures"


# -- what a wait would say --------------------------------------------------------------------------------------------


def _judge_findings(material: Material) -> t.Iterator[Verdict]:
    """Translate what the diagnosis of waits finds, on each pod and on the workload itself."""
    workload, snapshot = material.workload, material.snapshot
    if workload.replicas == 0:
        return
    for finding in find_workload_failures(snapshot, workload, since=0.0, goal=workload.replicas):
        yield _translate(finding)
    for pod in material.pods:
        events = snapshot.list_events(pod.uid)
        failure = None if pod.is_ready or pod.is_terminating else find_pod_failure(pod, events, since=0.0)
        if failure is not None and failure.reason != "CrashLoopBackOff":  # how its container ended says more
            shown = [f"event {event.reason} (x{event.times}): {event.message}" for event in events[-3:]]
            yield _translate(failure, (*shown,))


def _translate(finding: Finding, evidence: tuple[str, ...] = ()) -> Verdict:
    reason = _OF_FINDINGS.get(finding.reason, "rollout_stuck")
    if finding.reason == "FailedMount" and _NO_SUCH_SOURCE.search(finding.message):
        reason = "missing_configuration"
    message = finding.message if finding.reason in _OF_FINDINGS else f"{finding.reason}: {finding.message}"
    return make_verdict(
        reason,
        finding.object,
        message,
        since=finding.since,
        next_step=finding.next_step,
        evidence=(f"{finding.object}: {finding.message}", *evidence),
        subject=f"{finding.reason} {finding.revision}",
    )


# -- what is around it ------------------------------------------------------------------------------------------------


def _judge_services(material: Material) -> t.Iterator[Verdict]:
    """Say which Services that select its pods have no ready endpoint, by EndpointSlices."""
    if "EndpointSlice" not in material.snapshot.known:
        return
    slices = [obj for obj in material.snapshot.as_document()["items"] if obj["kind"] == "EndpointSlice"]
    for service in material.services:
        own = [entry for entry in slices if get_path(entry, "metadata", "labels", SERVICE_NAME) == service]
        endpoints = [endpoint for entry in own for endpoint in as_list(entry.get("endpoints"))]
        # A condition that is not there counts as ready.
        ready = [endpoint for endpoint in endpoints if get_path(endpoint, "conditions", "ready") is not False]
        if not ready:
            count = format_count(len(endpoints), "endpoint")
            title = f"Service {material.workload.namespace}/{service}"
            yield make_verdict("no_endpoints", title, f"none of its {count} is ready, so that it answers nobody")
            continue
        yield from _judge_ports(material, service, own)


def _judge_ports(material: Material, service: str, slices: t.Sequence[Json]) -> t.Iterator[Verdict]:
    """Name the ports of a Service that go to a named port which no pod has: its EndpointSlices do not have them."""
    title = f"Service {material.workload.namespace}/{service}"
    obj = material.snapshot.find("Service", material.workload.namespace, service)
    served = {
        as_text(get_path(port, "name"))
        for entry in slices
        if entry.get("endpoints")
        for port in as_list(entry.get("ports"))
    }
    for port in as_list(get_path(obj, "spec", "ports")):
        target, name = get_path(port, "targetPort"), as_text(get_path(port, "name"))
        if isinstance(target, str) and not target.isdigit() and name not in served:
            own = f"{get_path(port, 'port')}{f' ({name})' if name else ''}"
            yield make_verdict(
                "no_endpoints",
                title,
                f"its port {own} goes to the port named {target!r}, which no container of its pods has, so that it answers"
                " nobody there",
                next_step=f"Name a port of a container {target!r} in the pod template, or correct targetPort of the {title}",
            )


# -- cause and symptom ------------------------------------------------------------------------------------------------


def _drop_symptoms(verdicts: t.Sequence[Verdict]) -> list[Verdict]:
    """Leave out what says of a pod in other words what another verdict says better."""
    reasons: dict[str, set[str]] = {}
    for verdict in verdicts:
        reasons.setdefault(verdict.object, set()).add(verdict.reason)
    killed = {
        verdict.object
        for verdict in verdicts
        if verdict.reason == "probe_failing" and verdict.subject.startswith("killing ")
    }
    is_named = any(verdict.object.startswith(("Secret ", "ConfigMap ")) for verdict in verdicts)
    covered = {
        "crash_loop": lambda verdict: verdict.object in killed,
        "not_ready": lambda verdict: len(reasons[verdict.object]) > 1,
        "missing_configuration": lambda verdict: is_named and _is_pod(verdict),
    }
    return [verdict for verdict in verdicts if not covered.get(verdict.reason, lambda _verdict: False)(verdict)]


def _is_pod(verdict: Verdict) -> bool:
    return verdict.object.startswith("Pod ")


def _merge(verdicts: t.Sequence[Verdict]) -> list[Verdict]:
    """Make one verdict of pods that fail alike: it names the first, and counts and shows the others."""
    groups: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in verdicts:
        own = (verdict.subject if _is_pod(verdict) else "") or verdict.object + verdict.message
        alike = (verdict.reason, own, str(verdict.is_current), str(verdict.is_newest))
        groups.setdefault(alike, []).append(verdict)
    return [_join(sorted(alike, key=lambda verdict: verdict.object)) for alike in groups.values()]


def _join(alike: t.Sequence[Verdict]) -> Verdict:
    first, *others = alike
    if not others:
        return first
    times = [verdict.since for verdict in alike if verdict.since is not None]
    lines = [(*verdict.evidence, f"{verdict.object}: {verdict.message}")[0] for verdict in others]
    message = f"{first.message}; {format_count(len(others), 'other pod')} alike"
    return first._replace(message=message, since=min(times, default=None), evidence=(*first.evidence, *lines))
