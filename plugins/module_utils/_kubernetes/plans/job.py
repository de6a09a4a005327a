# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What k8s_job decides, without I/O: which Job is the one that is asked for, what it is made of, and whose turn it is.

The lock is Lamport's bakery over Jobs, which needs nothing but that a LIST shows everything that was written before. A
Job is created suspended and without a number. Its number is one more than the highest that a LIST after that shows, and
is written on it. Then it waits for each other Job of the lock that has no number yet, or a lower one. The time of
creation would not do: it is in whole seconds, so that the second of two Jobs could take itself for the first one.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from ..._common.errors import Refusal
from ..._common.timestamps import format_utc
from ..fields import Json, as_dict, as_int, as_list, as_text, as_time, get_path
from ..objects import Job, Pod, Workload, list_keepers, list_native_sidecars
from ..patches import Write

KEY_LABEL = "lowtide.ops/job-key"
"""On a Job: a digest of its prefix and key."""
LOCK_LABEL = "lowtide.ops/job-lock"
"""On a Job and its pods: the name of its lock."""
NOTE = "lowtide.ops/job"
"""On a Job: key, run, attempt, and the digest of what it was made from."""
CLAIM = "lowtide.ops/job-claim"
"""On a Job with a lock: its number, and until when a Job that has not been started yet is waited with."""

LONGEST_PREFIX = 52
"""As of a CronJob: the name of a Job is a label of its pods, which has 63 characters, and the digest takes 11."""
LONGEST_LOCK = 63
CLAIM_MARGIN = 60.0
"""Seconds after the end of its run's wait until a Job that was never started is removed by others."""

_KEPT_OF_POD = [
    "serviceAccountName",
    "automountServiceAccountToken",
    "imagePullSecrets",
    "securityContext",
    "nodeSelector",
    "tolerations",
    "runtimeClassName",
    "priorityClassName",
    "dnsPolicy",
    "dnsConfig",
    "hostAliases",
    "enableServiceLinks",
]
_KEPT_OF_CONTAINER = [
    "name",
    "image",
    "imagePullPolicy",
    "env",
    "envFrom",
    "workingDir",
    "securityContext",
    "resources",
]
_OWN_VOLUMES = ("persistentVolumeClaim", "ephemeral", "hostPath")
"""Volumes with data of the workload's own pods."""
_LIMITS = ("activeDeadlineSeconds", "ttlSecondsAfterFinished", "suspend")
_MANUAL = {"cronjob.kubernetes.io/instantiate": "manual"}


class JobRequest(t.NamedTuple):
    """What is asked for. ``key`` tells this execution from others; ``lock`` is "" where there is none."""

    namespace: str
    prefix: str
    key: str
    lock: str
    spec: Json
    labels: Json
    annotations: Json
    cron_job: Workload | None = None

    @property
    def key_label(self) -> str:
        """The value of the label by which its Jobs are found."""
        return _digest(self.prefix, self.key)[:32]

    @property
    def template_digest(self) -> str:
        """What is run, as far as it makes a difference for what it does: not how long it may run or is kept."""
        kept = {name: value for name, value in self.spec.items() if name not in _LIMITS}
        return _digest(json.dumps(kept, sort_keys=True))[:16]

    @property
    def cron_job_uid(self) -> str:
        """The uid of the CronJob whose active Jobs are waited for; "" where none are."""
        return self.cron_job.uid if self.cron_job is not None and forbids_others(self.cron_job) else ""


class Note(t.NamedTuple):
    """What a run has left on a Job."""

    key: str
    run_id: str
    attempt: int
    template: str


class Claim(t.NamedTuple):
    """Where a Job stands in the queue of its lock: ``number`` is None until it has one.

    Until ``until`` (seconds since 1970) its run may still start it. ``is_started`` stays when somebody suspends it later.
    """

    run_id: str
    number: int | None = None
    until: float = 0.0
    is_started: bool = False


class Decision(t.NamedTuple):
    """What becomes of a request: ``create`` a Job, ``wait`` for the one there is, report a ``done`` or ``failed`` one.

    ``changed`` says that the one there is was made from something else, which is a refusal. ``name`` is the Job's.
    """

    action: str
    name: str
    attempt: int
    job: Job | None = None


class Holder(t.NamedTuple):
    """Who comes before a Job: the object, what it does, since when, and of which run it is."""

    title: str
    what: str
    since: float | None
    run_id: str = ""
    uid: str = ""
    until: float | None = None


class Exit(t.NamedTuple):
    """How a container of a Job's pod ended. ``keeper`` is the container that kept the pod from ending after it."""

    pod: str
    container: str
    exit_code: int
    reason: str
    keeper: str = ""

    def __str__(self) -> str:
        words = f"container {self.container} of Pod {self.pod} ended with exit code {self.exit_code}"
        words = words if self.reason in ("", "Error", "Completed") else f"{words} ({self.reason})"
        return f"{words}, and {self.keeper} kept the pod" if self.keeper else words


def name_job(prefix: str, key: str, attempt: int) -> str:
    """Return the name of a Job: its prefix, and a digest of its key and attempt."""
    return f"{prefix}-{_digest(prefix, key, str(attempt))[:10]}"


def choose_lock(lock: str | None, cron_job: Workload | None) -> str:
    """Return the lock that is asked for; without one, that of a CronJob which lets none of its Jobs run beside another."""
    if not lock and cron_job is not None and forbids_others(cron_job):
        return f"cronjob.{cron_job.name}"
    return lock or ""


def forbids_others(cron_job: Workload) -> bool:
    """Return whether a CronJob lets none of its Jobs run beside another one."""
    return as_text(get_path(cron_job.raw, "spec", "concurrencyPolicy")) == "Forbid"


def read_cron_job(cron_job: Workload) -> tuple[Json, Json, Json]:
    """Return the spec, labels and annotations of the Jobs of a CronJob."""
    template = as_dict(get_path(cron_job.raw, "spec", "jobTemplate"))
    metadata = as_dict(template.get("metadata"))
    return as_dict(template.get("spec")), as_dict(metadata.get("labels")), as_dict(metadata.get("annotations"))


def build_spec_like(
    workload: Workload, *, container: str | None, image: str | None, command: list[str], args: list[str] | None
) -> Json:
    """Return the spec of a Job that runs a command as a container of a workload would: account, secrets, environment.

    Labels are left out, by which Services and controllers would take the pod for one of the workload's, and so are
    probes, other containers, and volumes with data. Raises Refusal for a container that there is not.
    """
    pod = as_dict(workload.template.get("spec"))
    by_name = {as_text(get_path(entry, "name")): as_dict(entry) for entry in as_list(pod.get("containers"))}
    chosen = by_name.get(container or "") if container or len(by_name) != 1 else next(iter(by_name.values()))
    if chosen is None:
        raise Refusal(
            obj=workload.title,
            problem=f"it has no container {container!r}"
            if container
            else "it has several containers, and none is named",
            next_step=f"Set from_workload.container to one of {', '.join(sorted(by_name))}",
        )
    volumes = [volume for volume in as_list(pod.get("volumes")) if not set(volume) & set(_OWN_VOLUMES)]
    names = {as_text(volume.get("name")) for volume in volumes}
    mounts = [mount for mount in as_list(chosen.get("volumeMounts")) if as_text(get_path(mount, "name")) in names]
    used = {as_text(get_path(mount, "name")) for mount in mounts}
    own: Json = {key: chosen[key] for key in _KEPT_OF_CONTAINER if key in chosen}
    own |= {"command": command, **({"image": image} if image else {}), **({"args": args} if args else {})}
    own |= {"volumeMounts": mounts} if mounts else {}
    spec: Json = {key: pod[key] for key in _KEPT_OF_POD if key in pod}
    spec["containers"] = [own]
    kept = [volume for volume in volumes if as_text(volume.get("name")) in used]
    spec |= {"volumes": kept} if kept else {}
    return {"backoffLimit": 0, "template": {"spec": spec}}


def complete_spec(spec: Json, *, deadline: int | None, default_deadline: int, ttl: int, lock: str) -> Json:
    """Return a Job's spec that ends by itself and leaves nothing behind, with the lock's label on its pods.

    With a lock its pods are never two: by default a Job makes another pod while the one before still terminates, as when
    its node is drained (KEP-3939). Servers before 1.28 do not know the field and drop it.

    Pods of a Job cannot be restarted always, which is what a pod is by default: without a policy it is ``Never``, which
    keeps the pods and their logs when the Job fails.
    """
    own_deadline = spec.get("activeDeadlineSeconds")
    template = as_dict(spec.get("template"))
    pod = {"restartPolicy": "Never", **as_dict(template.get("spec"))}
    metadata = as_dict(template.get("metadata"))
    if lock:
        metadata = {**metadata, "labels": {**as_dict(metadata.get("labels")), LOCK_LABEL: lock}}
    return {
        **spec,
        **({"podReplacementPolicy": "Failed"} if lock else {}),
        "activeDeadlineSeconds": deadline or own_deadline or default_deadline,
        "ttlSecondsAfterFinished": ttl,
        "template": {**template, "spec": pod, **({"metadata": metadata} if metadata else {})},
    }


def build_job(request: JobRequest, decision: Decision, *, run_id: str, now: float, until: float) -> Json:
    """Return the Job to create: suspended where it has to wait for its turn."""
    note = {
        "format": 1,
        "key": request.key,
        "run": run_id,
        "at": format_utc(now),
        "attempt": decision.attempt,
        "template": request.template_digest,
    }
    annotations = {**request.annotations, NOTE: json.dumps(note, sort_keys=True)}
    labels = {**request.labels, KEY_LABEL: request.key_label}
    spec = dict(request.spec)
    if request.lock:
        annotations[CLAIM] = format_claim(Claim(run_id, until=until))
        labels[LOCK_LABEL] = request.lock
        spec["suspend"] = True
    metadata: Json = {"name": decision.name, "namespace": request.namespace}
    if request.cron_job is not None:
        annotations |= _MANUAL
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": request.cron_job.name}
        metadata["ownerReferences"] = [{**owner, "uid": request.cron_job.uid}]
    metadata |= {"labels": labels, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def read_note(job: Job) -> Note | None:
    """Return what a run has left on a Job; None for a Job of others, or one whose note is not understood."""
    document = read_annotation(job, NOTE)
    if document is None:
        return None
    return Note(
        as_text(document.get("key")),
        as_text(document.get("run")),
        as_int(document.get("attempt"), 1),
        as_text(document.get("template")),
    )


def decide(request: JobRequest, jobs: t.Iterable[Job], *, on_failed: str) -> Decision:
    """Return what is to be done, given the Jobs with the request's key. The last attempt is the one that counts.

    One that is being deleted is nobody's any more, but its name is still taken.
    """
    attempts = sorted((_read_attempt(job), job.created_at or 0.0, job.uid, job) for job in jobs)
    alive = [entry for entry in attempts if not _is_being_deleted(entry[-1])]
    following = attempts[-1][0] + 1 if attempts else 1
    if not alive:
        return Decision("create", name_job(request.prefix, request.key, following), following)
    attempt, _created, _uid, job = alive[-1]
    if job.is_failed:
        if on_failed == "again":
            return Decision("create", name_job(request.prefix, request.key, following), following, job)
        return Decision("failed", job.name, attempt, job)
    note = read_note(job)
    if note is None or note.template != request.template_digest:
        return Decision("changed", job.name, attempt, job)
    return Decision("done" if job.is_complete else "wait", job.name, attempt, job)


def read_claim(job: Job) -> Claim | None:
    """Return where a Job stands in the queue; None where that is not said, or not understood."""
    document = read_annotation(job, CLAIM)
    if document is None:
        return None
    number = document.get("number")
    return Claim(
        as_text(document.get("run")),
        number if isinstance(number, int) and not isinstance(number, bool) else None,
        as_time(document.get("until")) or 0.0,
        document.get("started") is True,
    )


def format_claim(claim: Claim) -> str:
    """Return a claim as an annotation."""
    document = {
        "format": 1,
        "run": claim.run_id,
        "number": claim.number,
        "until": format_utc(claim.until),
        "started": claim.is_started,
    }
    return json.dumps(document, sort_keys=True)


def plan_number(job: Job, others: t.Iterable[Job], *, run_id: str, until: float) -> Write | None:
    """Return the write that gives a Job its number, and the time until which its run waits; None when it was started.

    A number that it has stays: another run has given it, or this one before it was cut off.
    """
    claim = read_claim(job) or Claim(run_id)
    if claim.is_started or not job.suspended:
        return None
    number = claim.number
    if number is None:
        number = 1 + max((_read_number(other) for other in others if other.uid != job.uid), default=0)
    changed = Claim(run_id, number, max(until, claim.until))
    return Write({"metadata": {"annotations": {CLAIM: format_claim(changed)}}}, _CLAIM_AND_SUSPEND)


def plan_start(job: Job) -> Write | None:
    """Return the write that starts a Job whose turn it is; None when it has been started."""
    claim = read_claim(job) or Claim("")
    if claim.is_started or not job.suspended or job.is_complete or job.is_failed:
        return None
    started = format_claim(claim._replace(is_started=True))
    return Write({"metadata": {"annotations": {CLAIM: started}}, "spec": {"suspend": False}}, _CLAIM_AND_SUSPEND)


_CLAIM_AND_SUSPEND = (("metadata", "annotations", CLAIM), ("spec", "suspend"))


def is_unstarted(job: Job) -> bool:
    """Return whether a Job has never run, so that deleting it loses nothing."""
    claim = read_claim(job)
    return job.suspended and not job.active and claim is not None and not claim.is_started


def find_holders(
    own: Job, jobs: t.Iterable[Job], pods: t.Iterable[Pod], *, lock: str, cron_job_uid: str
) -> list[Holder]:
    """Return who comes before a Job that has its number: Jobs of the lock, pods of such that are gone, the CronJob's.

    ``jobs`` and ``pods`` may hold others too.
    """
    holders: list[Holder] = []
    ended: set[str] = set()
    present: set[str] = set()
    for job in jobs:
        present.add(job.uid)
        if job.uid == own.uid:
            continue
        if job.is_complete or job.is_failed:
            ended.add(job.uid)
        elif get_path(job.raw, "metadata", "labels", LOCK_LABEL) == lock:
            holders += _describe_holder(own, job)
        elif cron_job_uid and cron_job_uid in _list_owners(job) and job.may_run:
            holders.append(Holder(job.title, "it runs, started by its CronJob", job.created_at, uid=job.uid))
    for pod in pods:
        is_left = pod.owner_uid in ended or pod.owner_uid not in present
        if pod.labels.get(LOCK_LABEL) == lock and is_left and pod.owner_uid != own.uid and not pod.is_finished:
            words = (
                f"it still {'terminates' if pod.is_terminating else 'runs'}{f' on node {pod.node}' if pod.node else ''}"
            )
            holders.append(Holder(pod.title, f"{words}, though its Job has ended", pod.created_at))
    return holders


def _describe_holder(own: Job, job: Job) -> list[Holder]:
    """Return a Job as a holder, nothing when it comes later."""
    claim, note = read_claim(job), read_note(job)
    run_id = claim.run_id if claim is not None else note.run_id if note is not None else ""
    if not job.suspended:
        return [Holder(job.title, "it runs", job.created_at, run_id, job.uid)]
    if _is_being_deleted(job) and not job.active:
        return []
    if claim is None or claim.is_started:
        words = "it is suspended" if claim is None else "it was started, and somebody has suspended it since"
        return [Holder(job.title, words, job.created_at, run_id, job.uid)]
    mine = read_claim(own) or Claim("")
    if claim.number is not None and mine.number is not None and (mine.number, own.uid) < (claim.number, job.uid):
        return []
    return [Holder(job.title, "it waits for its turn, before this one", job.created_at, run_id, job.uid, claim.until)]


def find_exit(pods: t.Iterable[Pod], *, is_failed: bool, own: t.Collection[str] = ()) -> Exit | None:
    """Return how the Job's work ended: of the newest pod of a failed Job the container that failed first.

    Of a complete one it is the newest container that did not fail. ``own`` are the containers of the Job's template:
    they come before those that others have put into the pod, whose exit says nothing of the work. Where all of them
    ended with 0 in a pod that goes on, the work is done, whatever becomes of the others.
    """
    ranked: list[tuple[bool, float, Exit]] = []
    for pod in pods:
        ends = _list_ends(pod)
        mine = [entry for entry in ends if not own or entry[1].container in own]
        keepers = list_keepers(pod, own)
        if is_failed and keepers:
            at, end = max(mine, key=lambda entry: entry[0])
            ranked.append((True, at, end._replace(keeper=" and ".join(keepers))))
            continue
        for is_own, entries in ((True, mine), (False, ends)):
            matching = [entry for entry in entries if (entry[1].exit_code != 0) == is_failed]
            if matching:
                at, end = (min if is_failed else max)(matching, key=lambda entry: entry[0])
                ranked.append((is_own, at, end))
                break
    return max(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def list_own_containers(job: Job) -> frozenset[str]:
    """Return the names of the containers of a Job's template, without its native sidecars."""
    spec = as_dict(get_path(job.raw, "spec", "template", "spec"))
    entries = [*as_list(spec.get("initContainers")), *as_list(spec.get("containers"))]
    return frozenset(as_text(get_path(entry, "name")) for entry in entries) - list_native_sidecars(spec)


def _list_ends(pod: Pod) -> list[tuple[float, Exit]]:
    """Return how the containers of a pod ended, and when; native sidecars are ended by Kubernetes and do not count."""
    status = as_dict(pod.raw.get("status"))
    sidecars = list_native_sidecars(as_dict(pod.raw.get("spec")))
    ends = []
    for entry in [*as_list(status.get("initContainerStatuses")), *as_list(status.get("containerStatuses"))]:
        ended = as_dict(get_path(entry, "state", "terminated") or get_path(entry, "lastState", "terminated"))
        name = as_text(entry.get("name"))
        if ended.get("exitCode") is None or name in sidecars:
            continue
        end = Exit(f"{pod.namespace}/{pod.name}", name, as_int(ended.get("exitCode")), as_text(ended.get("reason")))
        ends.append((as_time(ended.get("finishedAt")) or 0.0, end))
    return ends


def measure_seconds(job: Job) -> float | None:
    """Return how long a Job that has ended took, from its (last) start; None when that is not known."""
    started = as_time(get_path(job.raw, "status", "startTime"))
    ends = [as_time(get_path(job.raw, "status", "completionTime"))]
    for condition in as_list(get_path(job.raw, "status", "conditions")):
        if as_dict(condition).get("type") in ("Complete", "Failed"):
            ends.append(as_time(condition.get("lastTransitionTime")))
    known = [end for end in ends if end is not None]
    return max(0.0, known[0] - started) if known and started is not None else None


def _list_owners(job: Job) -> list[str]:
    return [as_text(get_path(owner, "uid")) for owner in as_list(get_path(job.raw, "metadata", "ownerReferences"))]


def _read_number(job: Job) -> int:
    claim = read_claim(job)
    return claim.number or 0 if claim is not None else 0


def _read_attempt(job: Job) -> int:
    note = read_note(job)
    return note.attempt if note is not None else 0


def _is_being_deleted(job: Job) -> bool:
    return get_path(job.raw, "metadata", "deletionTimestamp") is not None


def read_annotation(job: Job, key: str) -> Json | None:
    """Return what a run has left on a Job under a key; None where there is nothing, or it is not understood."""
    text = get_path(job.raw, "metadata", "annotations", key)
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("format") == 1 else None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
