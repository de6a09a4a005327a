# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed forms of Kubernetes objects: what waiting, scaling and stopping look at. Each bears missing and null fields.

Times are seconds since 1970. ``raw`` is the object as it was read; nothing may change it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .fields import Json, as_dict, as_int, as_list, as_text, as_time, get_path
from .resources import Kind, Resource, find_resource
from .selectors import parse_selector

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
POD_TEMPLATE_HASH = "pod-template-hash"
CONTROLLER_REVISION_HASH = "controller-revision-hash"


def find_controller(meta: Json) -> Json:
    """Return the owner reference of an object's controller, an empty one when it has none."""
    for reference in as_list(meta.get("ownerReferences")):
        if get_path(reference, "controller") is True:
            return as_dict(reference)
    return {}


def index_conditions(status: Json) -> dict[str, Json]:
    """Return ``status.conditions`` by type."""
    return {as_text(get_path(entry, "type")): as_dict(entry) for entry in as_list(status.get("conditions"))}


def format_condition(condition: Json) -> str:
    """Return what a condition says: its message, or its reason when it has none."""
    return as_text(condition.get("message") or condition.get("reason"))


class VolumePolicy(t.NamedTuple):
    """What becomes of a StatefulSet's claims: ``Retain`` or ``Delete`` (persistentVolumeClaimRetentionPolicy)."""

    when_scaled: str
    when_deleted: str


class Workload(t.NamedTuple):
    """A StatefulSet, Deployment, DaemonSet, ReplicaSet, CronJob or Job, or an object of another API that can be scaled.

    ``replicas`` is how many the spec asks for: 0 or 1 of a CronJob (by ``suspend``), ``parallelism`` of a Job (0 when
    it is suspended), the nodes that should run a pod of a DaemonSet. ``pods`` is what the controller counts, of a
    CronJob its active Jobs. ``updated_wanted`` is how many pods must be of the newest revision (a StatefulSet's
    partition and OnDelete leave the others alone on purpose), of another API none, since its rollouts may pause by
    themselves. ``writer`` is the manager that set ``spec.replicas``
    (or ``suspend``) last, ``owner`` kind and name of its controller.
    """

    kind: str
    resource: Resource
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    observed_generation: int
    replicas: int
    pods: int
    ready: int
    available: int
    updated: int
    updated_wanted: int
    paused: bool
    selector: Json
    labels: Json
    annotations: Json
    template: Json
    writer: str | None
    owner: tuple[str, str] | None
    min_ready_seconds: int
    conditions: dict[str, Json]
    volume_policy: VolumePolicy
    volume_claims: tuple[str, ...]
    revision: str
    raw: Json

    @classmethod
    def from_object(cls, obj: Json, kind: Kind | None = None) -> Workload:
        """Read an object; ``kind`` is needed for items of a list, which do not carry it, and for another API's."""
        resource = find_resource(kind or as_text(obj.get("kind")))
        kind = resource.kind
        meta, spec, status = as_dict(obj.get("metadata")), as_dict(obj.get("spec")), as_dict(obj.get("status"))
        generation = as_int(meta.get("generation"))
        counts = _count_pods(resource, spec, status)
        controller = find_controller(meta)
        policy = as_dict(spec.get("persistentVolumeClaimRetentionPolicy"))
        claims = as_list(spec.get("volumeClaimTemplates"))
        template = get_path(spec, "jobTemplate", "spec", "template") if kind == "CronJob" else spec.get("template")
        return cls(
            kind=kind,
            resource=resource,
            namespace=as_text(meta.get("namespace")),
            name=as_text(meta.get("name")),
            uid=as_text(meta.get("uid")),
            resource_version=as_text(meta.get("resourceVersion")),
            generation=generation,
            observed_generation=_find_observed_generation(resource, generation, status),
            replicas=counts.replicas,
            pods=counts.pods,
            ready=counts.ready,
            available=counts.available,
            updated=counts.updated,
            updated_wanted=_count_updated_wanted(resource, spec, counts.replicas),
            paused=spec.get("paused") is True,
            selector=_find_selector(resource, spec, status),
            labels=as_dict(meta.get("labels")),
            annotations=as_dict(meta.get("annotations")),
            template=as_dict(template),
            writer=_find_writer(meta, "f:suspend" if kind in _BATCH else "f:replicas"),
            owner=(as_text(controller.get("kind")), as_text(controller.get("name"))) if controller else None,
            min_ready_seconds=as_int(spec.get("minReadySeconds")),
            conditions=index_conditions(status),
            volume_policy=VolumePolicy(
                as_text(policy.get("whenScaled")) or "Retain", as_text(policy.get("whenDeleted")) or "Retain"
            ),
            volume_claims=tuple(as_text(get_path(claim, "metadata", "name")) for claim in claims),
            revision=_find_revision(kind, meta, status),
            raw=obj,
        )

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def key(self) -> str:
        """Kind/name, unique in a namespace."""
        return f"{self.kind}/{self.name}"

    @property
    def serving(self) -> int:
        """How many pods are ready, and have been for ``minReadySeconds``."""
        return min(self.ready, self.available)

    @property
    def is_stopped(self) -> bool:
        """Whether the spec asks for no pod (a suspended CronJob or Job); its pods may still run."""
        return self.replicas == 0

    @property
    def is_observed(self) -> bool:
        """Whether the controller has seen the newest spec."""
        return self.observed_generation >= self.generation

    @property
    def is_being_deleted(self) -> bool:
        """Whether somebody has deleted it and something still holds it back."""
        return get_path(self.raw, "metadata", "deletionTimestamp") is not None


_BATCH = ("CronJob", "Job")


class _Counts(t.NamedTuple):
    replicas: int
    pods: int
    ready: int
    available: int
    updated: int


def _find_observed_generation(resource: Resource, generation: int, status: Json) -> int:
    """Return which generation its controller has seen; the newest where that is not said.

    Kinds of the batch API do not say it, nor do some of other APIs, or in a way of their own (a hash).
    """
    if resource.kind in _BATCH:
        return generation
    return as_int(status.get("observedGeneration"), 0 if resource.is_known else generation)


def _find_selector(resource: Resource, spec: Json, status: Json) -> Json:
    """Return the selector of its pods; another API may have it as text in its status, an empty one where it is not known."""
    selector = as_dict(spec.get("selector"))
    if resource.is_known or {"matchLabels", "matchExpressions"} & selector.keys():
        return selector
    for stated in (status.get("selector"), status.get("labelSelector")):
        if isinstance(stated, str) and stated:
            return parse_selector(stated)
        if isinstance(stated, dict):
            return stated
    return {}


def _count_pods(resource: Resource, spec: Json, status: Json) -> _Counts:
    """Return the numbers of a workload under the names of a Deployment, whatever its kind calls them."""
    kind = resource.kind
    if kind == "CronJob":
        return _Counts(0 if spec.get("suspend") is True else 1, len(as_list(status.get("active"))), 0, 0, 0)
    if kind == "Job":
        replicas = 0 if spec.get("suspend") is True else as_int(spec.get("parallelism"), 1)
        active, ready = as_int(status.get("active")), as_int(status.get("ready"))
        return _Counts(replicas, active, ready, ready, active)
    if kind == "DaemonSet":
        return _Counts(
            as_int(status.get("desiredNumberScheduled")),
            as_int(status.get("currentNumberScheduled")),
            as_int(status.get("numberReady")),
            as_int(status.get("numberAvailable")),
            as_int(status.get("updatedNumberScheduled")),
        )
    if not resource.is_known:  # it may say only one of the two
        ready = as_int(status.get("readyReplicas"), as_int(status.get("availableReplicas")))
        available = as_int(status.get("availableReplicas"), ready)
        updated = as_int(status.get("updatedReplicas"))
        return _Counts(as_int(spec.get("replicas"), 1), as_int(status.get("replicas")), ready, available, updated)
    ready = as_int(status.get("readyReplicas"))
    # A server without the field for StatefulSets (before 1.22) knows no minReadySeconds either.
    default = ready if kind == "StatefulSet" and not as_int(spec.get("minReadySeconds")) else 0
    return _Counts(
        as_int(spec.get("replicas"), 1),
        as_int(status.get("replicas")),
        ready,
        as_int(status.get("availableReplicas"), default),
        as_int(status.get("updatedReplicas")),
    )


def _count_updated_wanted(resource: Resource, spec: Json, replicas: int) -> int:
    kind = resource.kind
    if not resource.is_known:
        return 0
    if kind not in ("StatefulSet", "DaemonSet"):
        return replicas
    if get_path(spec, "updateStrategy", "type") == "OnDelete":
        return 0
    return max(0, replicas - as_int(get_path(spec, "updateStrategy", "rollingUpdate", "partition")))


def _find_writer(meta: Json, field: str) -> str | None:
    """Return the manager that owns ``field`` of the spec (the newest, when they share it), from managedFields."""
    owners = [entry for entry in as_list(meta.get("managedFields")) if field in as_dict(_get_spec_fields(entry))]
    newest = max(owners, key=lambda entry: as_time(entry.get("time")) or 0.0, default=None)
    return as_text(newest.get("manager")) if newest is not None else None


def _get_spec_fields(entry: t.Any) -> t.Any:
    return get_path(entry, "fieldsV1", "f:spec")


def _find_revision(kind: str, meta: Json, status: Json) -> str:
    if kind == "StatefulSet":
        return as_text(status.get("updateRevision"))
    return as_text(get_path(meta, "annotations", REVISION_ANNOTATION))


class ContainerState(t.NamedTuple):
    """A container of a pod: why it waits ("" when it does not), how often it was restarted, how it last ended, and when it
    was started where it runs.
    """

    name: str
    image: str
    is_init: bool
    waiting_reason: str
    waiting_message: str
    restarts: int
    last_exit_code: int | None
    last_reason: str
    running_since: float | None = None

    @classmethod
    def from_status(cls, status: Json, *, is_init: bool) -> ContainerState:
        """Read an entry of ``containerStatuses`` or ``initContainerStatuses``."""
        state = as_dict(status.get("state"))
        waiting = as_dict(state.get("waiting"))
        ended = as_dict(get_path(status, "lastState", "terminated") or state.get("terminated"))
        exit_code = ended.get("exitCode")
        return cls(
            name=as_text(status.get("name")),
            image=as_text(status.get("image")),
            is_init=is_init,
            waiting_reason=as_text(waiting.get("reason")),
            waiting_message=as_text(waiting.get("message")),
            restarts=as_int(status.get("restartCount")),
            last_exit_code=None if exit_code is None else as_int(exit_code),
            last_reason=as_text(ended.get("reason")),
            running_since=as_time(get_path(state, "running", "startedAt")),
        )


class Pod(t.NamedTuple):
    """A pod. ``owner_uid`` is its controller's: a ReplicaSet's, not the Deployment's.

    ``deletion_timestamp`` is when its grace period ends, ``grace_period`` in seconds. ``template_hash`` is the revision
    that it was made from; ``unschedulable_message`` what the scheduler says, None when it has a node.
    """

    namespace: str
    name: str
    uid: str
    owner_uid: str
    owner_kind: str
    labels: Json
    phase: str
    is_ready: bool
    is_terminating: bool
    is_finished: bool
    node: str
    finalizers: tuple[str, ...]
    deletion_timestamp: float | None
    grace_period: int | None
    template_hash: str
    started_at: float | None
    containers: tuple[ContainerState, ...]
    unschedulable_message: str | None
    raw: Json
    created_at: float | None

    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> Pod:  # noqa: ARG003 (as for every class here)
        """Read a pod."""
        meta, status = as_dict(obj.get("metadata")), as_dict(obj.get("status"))
        conditions = index_conditions(status)
        controller = find_controller(meta)
        labels = as_dict(meta.get("labels"))
        grace = meta.get("deletionGracePeriodSeconds")
        phase = as_text(status.get("phase"))
        init = [
            ContainerState.from_status(as_dict(c), is_init=True) for c in as_list(status.get("initContainerStatuses"))
        ]
        main = [ContainerState.from_status(as_dict(c), is_init=False) for c in as_list(status.get("containerStatuses"))]
        return cls(
            namespace=as_text(meta.get("namespace")),
            name=as_text(meta.get("name")),
            uid=as_text(meta.get("uid")),
            owner_uid=as_text(controller.get("uid")),
            owner_kind=as_text(controller.get("kind")),
            labels=labels,
            phase=phase,
            is_ready=get_path(conditions, "Ready", "status") == "True",
            is_terminating=meta.get("deletionTimestamp") is not None,
            is_finished=phase in ("Succeeded", "Failed"),
            node=as_text(get_path(obj, "spec", "nodeName")),
            finalizers=tuple(as_text(name) for name in as_list(meta.get("finalizers"))),
            deletion_timestamp=as_time(meta.get("deletionTimestamp")),
            grace_period=None if grace is None else as_int(grace),
            template_hash=as_text(labels.get(POD_TEMPLATE_HASH) or labels.get(CONTROLLER_REVISION_HASH)),
            started_at=as_time(status.get("startTime")),
            containers=(*init, *main),
            unschedulable_message=_find_unschedulable_message(as_dict(conditions.get("PodScheduled"))),
            raw=obj,
            created_at=as_time(meta.get("creationTimestamp")),
        )

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"Pod {self.namespace}/{self.name}"


def list_native_sidecars(spec: Json) -> frozenset[str]:
    """Return the names of the init containers of a pod's spec that run beside its containers, and end after them."""
    return frozenset(
        as_text(get_path(entry, "name"))
        for entry in as_list(spec.get("initContainers"))
        if get_path(entry, "restartPolicy") == "Always"
    )


def list_keepers(pod: Pod, own: t.Collection[str]) -> list[str]:
    """Return the containers that keep a pod whose own work is done: all of ``own`` have ended with 0, and these go on.

    One that has failed since is among them. Empty where the work is not done, or the pod has succeeded.
    """
    codes: dict[str, int | None] = {}
    for entry in as_list(get_path(pod.raw, "status", "containerStatuses")):
        ended = get_path(entry, "state", "terminated", "exitCode")
        codes[as_text(get_path(entry, "name"))] = None if ended is None else as_int(ended)
    mine = [code for name, code in codes.items() if name in own]
    if not mine or any(code != 0 for code in mine) or pod.phase == "Succeeded":
        return []
    return sorted(name for name, code in codes.items() if name not in own and code != 0)


def _find_unschedulable_message(scheduled: Json) -> str | None:
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    return as_text(scheduled.get("message")) or "no node fits"


class ReplicaSet(t.NamedTuple):
    """A ReplicaSet of a Deployment. ``revision`` is the Deployment's number for it, 0 when it has none."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    template_hash: str
    revision: int
    replicas: int
    created_at: float | None
    raw: Json

    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> ReplicaSet:  # noqa: ARG003 (as for every class here)
        """Read a ReplicaSet."""
        meta = as_dict(obj.get("metadata"))
        return cls(
            namespace=as_text(meta.get("namespace")),
            name=as_text(meta.get("name")),
            uid=as_text(meta.get("uid")),
            owner_uid=as_text(find_controller(meta).get("uid")),
            template_hash=as_text(get_path(meta, "labels", POD_TEMPLATE_HASH)),
            revision=as_int(get_path(meta, "annotations", REVISION_ANNOTATION)),
            replicas=as_int(get_path(obj, "spec", "replicas"), 1),
            created_at=as_time(meta.get("creationTimestamp")),
            raw=obj,
        )


class Revision(t.NamedTuple):
    """A ControllerRevision of a StatefulSet or DaemonSet.

    ``template_hash`` is what pods carry in their label: the name for a StatefulSet, the hash alone for a DaemonSet.
    """

    namespace: str
    name: str
    uid: str
    owner_uid: str
    template_hash: str
    revision: int
    created_at: float | None
    raw: Json

    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> Revision:  # noqa: ARG003 (as for every class here)
        """Read a ControllerRevision."""
        meta = as_dict(obj.get("metadata"))
        controller = find_controller(meta)
        name = as_text(meta.get("name"))
        label = as_text(get_path(meta, "labels", CONTROLLER_REVISION_HASH))
        return cls(
            namespace=as_text(meta.get("namespace")),
            name=name,
            uid=as_text(meta.get("uid")),
            owner_uid=as_text(controller.get("uid")),
            template_hash=label if controller.get("kind") == "DaemonSet" else name,
            revision=as_int(obj.get("revision")),
            created_at=as_time(meta.get("creationTimestamp")),
            raw=obj,
        )


class Job(t.NamedTuple):
    """A Job: numbers of its pods, and whether it has ended. ``failure_message`` says why it failed, else "".

    A Job that is neither complete nor failed may still start pods, unless it is suspended.
    """

    namespace: str
    name: str
    uid: str
    owner_uid: str
    active: int
    succeeded: int
    failed: int
    suspended: bool
    is_complete: bool
    is_failed: bool
    failure_message: str
    completions: int
    created_at: float | None
    raw: Json

    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> Job:  # noqa: ARG003 (as for every class here)
        """Read a Job."""
        meta, spec, status = as_dict(obj.get("metadata")), as_dict(obj.get("spec")), as_dict(obj.get("status"))
        conditions = index_conditions(status)
        failed = as_dict(conditions.get("Failed"))
        is_failed = failed.get("status") == "True"
        return cls(
            namespace=as_text(meta.get("namespace")),
            name=as_text(meta.get("name")),
            uid=as_text(meta.get("uid")),
            owner_uid=as_text(find_controller(meta).get("uid")),
            active=as_int(status.get("active")),
            succeeded=as_int(status.get("succeeded")),
            failed=as_int(status.get("failed")),
            suspended=spec.get("suspend") is True,
            is_complete=get_path(conditions, "Complete", "status") == "True",
            is_failed=is_failed,
            failure_message=format_condition(failed) if is_failed else "",
            completions=as_int(spec.get("completions"), 1),
            created_at=as_time(meta.get("creationTimestamp")),
            raw=obj,
        )

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"Job {self.namespace}/{self.name}"

    @property
    def may_run(self) -> bool:
        """Whether it runs or may start pods: it has not ended, is not deleted, and not suspended without a pod."""
        if self.is_complete or self.is_failed or get_path(self.raw, "metadata", "deletionTimestamp") is not None:
            return False
        return not self.suspended or self.active > 0


class Event(t.NamedTuple):
    """An event, seen ``times`` times. ``at`` is when it was last seen, ``created_at`` when it was written down.

    ``about_field`` is the part of the object that it is about, such as ``spec.containers{main}``.
    """

    about_uid: str
    about_kind: str
    about_name: str
    reason: str
    message: str
    at: float
    type: str
    times: int
    created_at: float
    about_field: str = ""

    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> Event:  # noqa: ARG003 (as for every class here)
        """Read an event of the core or the events API."""
        involved = as_dict(obj.get("involvedObject") or obj.get("regarding"))
        created = as_time(get_path(obj, "metadata", "creationTimestamp")) or 0.0
        at = (
            as_time(get_path(obj, "series", "lastObservedTime"))
            or as_time(obj.get("lastTimestamp"))
            or as_time(obj.get("eventTime"))
        )
        return cls(
            about_uid=as_text(involved.get("uid")),
            about_kind=as_text(involved.get("kind")),
            about_name=as_text(involved.get("name")),
            reason=as_text(obj.get("reason")),
            message=as_text(obj.get("message") or obj.get("note")),
            at=at or created,
            type=as_text(obj.get("type")),
            times=as_int(get_path(obj, "series", "count") or obj.get("count"), 1),
            created_at=created,
            about_field=as_text(involved.get("fieldPath")),
        )
