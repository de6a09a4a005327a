# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed views of Kubernetes objects. Every function bears missing and null fields. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

Json = t.Mapping[str, t.Any]

STOPPED = "lowtide.ops/stopped"
BOUNDS = "lowtide.ops/bounds-before"
FORMAT = 1
_SUFFIXES = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def dig(value: t.Any, *keys: str) -> t.Any:
    """The value below nested keys; None as soon as something on the way is missing or null."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def number(value: t.Any, default: int = 0) -> int:
    """An integer field, ``default`` when it is missing or null."""
    return default if value is None else int(value)


def mapping(value: t.Any) -> dict[str, t.Any]:
    """A mapping field, empty when it is missing or null."""
    return dict(value) if isinstance(value, dict) else {}


def sequence(value: t.Any) -> list[t.Any]:
    """A list field, empty when it is missing or null."""
    return list(value) if isinstance(value, list) else []


@dataclass(frozen=True)
class Record:
    """What this collection wrote onto an object together with the change that it made (format 1).

    ``value`` holds what to restore: {"replicas": n}, {"suspend": bool}, or an autoscaler's bounds.
    """

    value: dict[str, t.Any]
    run: str
    at: str

    def encode(self) -> str:
        """The annotation's text."""
        return json.dumps({"format": FORMAT, "run": self.run, "at": self.at, **self.value}, sort_keys=True)


class UnreadableRecord(ValueError):
    """An annotation of ours whose text or format version is not understood."""


def record(annotations: Json, key: str) -> Record | None:
    """The record under ``key``; None when there is none; UnreadableRecord when it cannot be understood."""
    text = annotations.get(key)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (TypeError, ValueError) as error:
        raise UnreadableRecord(f"annotation {key} is not JSON: {text!r}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UnreadableRecord(f"annotation {key} is not of format {FORMAT}: {text!r}")
    value = {name: entry for name, entry in document.items() if name not in ("format", "run", "at")}
    return Record(value=value, run=str(document.get("run", "")), at=str(document.get("at", "")))


@dataclass(frozen=True)
class Workload:
    """A StatefulSet, Deployment or CronJob as far as scaling and stopping look at it.

    For a CronJob ``replicas`` is 0 when it is suspended and 1 otherwise, and ``pods`` counts its active jobs.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    observed: int
    replicas: int
    pods: int
    ready: int
    available: int
    updated: int
    must_update: int
    selector: dict[str, t.Any]
    labels: dict[str, t.Any]
    annotations: dict[str, t.Any]
    template: dict[str, t.Any]
    create_failure: str | None
    writer: str | None
    raw: Json

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def key(self) -> str:
        """Kind/name, unique in a namespace."""
        return f"{self.kind}/{self.name}"

    def stopped_record(self) -> Record | None:
        """What ``k8s_workload`` wrote when it stopped this object."""
        return record(self.annotations, STOPPED)

    def settled(self, replicas: int) -> bool:
        """Whether exactly ``replicas`` pods exist, are up to date and serve, as the controller of the newest spec says."""
        if self.observed < self.generation or self.replicas != replicas:
            return False
        if self.kind == "CronJob":
            return replicas > 0 or self.pods == 0
        serving = self.ready if self.kind == "StatefulSet" else min(self.ready, self.available)
        return self.pods == replicas and serving == replicas and self.updated >= min(replicas, self.must_update)


def workload(obj: Json, kind: str) -> Workload:
    """The typed view of an object; ``kind`` is passed because items of a list do not carry it."""
    meta, spec, status = mapping(obj.get("metadata")), mapping(obj.get("spec")), mapping(obj.get("status"))
    cron = kind == "CronJob"
    replicas = int(not spec.get("suspend")) if cron else number(spec.get("replicas"), 1)
    generation = number(meta.get("generation"))
    return Workload(
        kind=kind,
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        resource_version=str(meta.get("resourceVersion", "")),
        generation=generation,
        observed=generation if cron else number(status.get("observedGeneration")),
        replicas=replicas,
        pods=len(sequence(status.get("active"))) if cron else number(status.get("replicas")),
        ready=number(status.get("readyReplicas")),
        available=number(status.get("availableReplicas")),
        updated=number(status.get("updatedReplicas")),
        must_update=_must_update(kind, spec, replicas),
        selector=mapping(spec.get("selector")),
        labels=mapping(meta.get("labels")),
        annotations=mapping(meta.get("annotations")),
        template=mapping(spec.get("template")),
        create_failure=_create_failure(status),
        writer=_writer(meta),
        raw=obj,
    )


def _must_update(kind: str, spec: Json, replicas: int) -> int:
    """How many pods must be of the newest revision: a StatefulSet's partition and OnDelete leave some alone on purpose."""
    if kind != "StatefulSet":
        return replicas
    if dig(spec, "updateStrategy", "type") == "OnDelete":
        return 0
    return max(0, replicas - number(dig(spec, "updateStrategy", "rollingUpdate", "partition")))


def _create_failure(status: Json) -> str | None:
    for condition in sequence(status.get("conditions")):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason"))
    return None


def _writer(meta: Json) -> str | None:
    """Who set spec.replicas last, from managedFields."""
    for entry in sequence(meta.get("managedFields")):
        if "f:replicas" in mapping(dig(entry, "fieldsV1", "f:spec")):
            return str(entry.get("manager"))
    return None


@dataclass(frozen=True)
class Pod:
    """A pod: whether it is ready, and what keeps it from becoming so (class and message), if that is visible."""

    name: str
    uid: str
    labels: dict[str, t.Any]
    ready: bool
    terminating: bool
    trouble: tuple[str, str] | None


_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def pod(obj: Json) -> Pod:
    """The typed view of a pod."""
    status = mapping(obj.get("status"))
    conditions = {str(c.get("type")): c for c in sequence(status.get("conditions"))}
    return Pod(
        name=str(dig(obj, "metadata", "name") or ""),
        uid=str(dig(obj, "metadata", "uid") or ""),
        labels=mapping(dig(obj, "metadata", "labels")),
        ready=dig(conditions, "Ready", "status") == "True",
        terminating=dig(obj, "metadata", "deletionTimestamp") is not None,
        trouble=_trouble(status, conditions),
    )


def _trouble(status: Json, conditions: Json) -> tuple[str, str] | None:
    scheduled = mapping(conditions.get("PodScheduled"))
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "unschedulable", str(scheduled.get("message") or "no node fits")
    for container in sequence(status.get("initContainerStatuses")) + sequence(status.get("containerStatuses")):
        waiting = mapping(dig(container, "state", "waiting"))
        reason = str(waiting.get("reason") or "")
        detail = f"container {container.get('name')}: {reason}: {waiting.get('message') or ''}".rstrip(": ")
        if reason in _IMAGE:
            return "image pull", f"{detail} (image {container.get('image')})"
        if reason in _CONFIG:
            return "container configuration", detail
        if reason == "CrashLoopBackOff":
            ended = mapping(dig(container, "lastState", "terminated"))
            return "crash loop", f"{detail}; it last ended with exit code {ended.get('exitCode')} ({ended.get('reason')})"
    return None


@dataclass(frozen=True)
class Event:
    """An event about the creation of a workload's pods. ``at`` is RFC 3339 and sorts as text."""

    about: str
    reason: str
    message: str
    at: str


def event(obj: Json) -> Event:
    """The typed view of a core/v1 event."""
    involved = mapping(obj.get("involvedObject"))
    at = dig(obj, "series", "lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime")
    return Event(
        about=f"{involved.get('kind')}/{involved.get('name')}",
        reason=str(obj.get("reason") or ""),
        message=str(obj.get("message") or ""),
        at=str(at or dig(obj, "metadata", "creationTimestamp") or ""),
    )


@dataclass(frozen=True)
class Scaler:
    """An HPA or a KEDA ScaledObject that owns a workload's replicas."""

    kind: str
    namespace: str
    name: str
    target: str
    minimum: int
    maximum: int
    managed_by: str | None
    annotations: dict[str, t.Any]
    raw: Json

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def bounds(self) -> dict[str, int]:
        """The bounds as plain data."""
        return {"min": self.minimum, "max": self.maximum}


def hpa(obj: Json) -> Scaler:
    """The typed view of a HorizontalPodAutoscaler (autoscaling/v2); ``managed_by`` names KEDA's object where it made this one."""
    spec, meta = mapping(obj.get("spec")), mapping(obj.get("metadata"))
    owner = next((str(o.get("name")) for o in sequence(meta.get("ownerReferences")) if o.get("kind") == "ScaledObject"), None)
    return Scaler(
        kind="HorizontalPodAutoscaler",
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        target=f"{dig(spec, 'scaleTargetRef', 'kind')}/{dig(spec, 'scaleTargetRef', 'name')}",
        minimum=number(spec.get("minReplicas"), 1),
        maximum=number(spec.get("maxReplicas"), 1),
        managed_by=owner,
        annotations=mapping(meta.get("annotations")),
        raw=obj,
    )


def scaled_object(obj: Json) -> Scaler:
    """The typed view of a KEDA ScaledObject; its defaults are Deployment, 0 and 100."""
    spec, meta = mapping(obj.get("spec")), mapping(obj.get("metadata"))
    return Scaler(
        kind="ScaledObject",
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        target=f"{dig(spec, 'scaleTargetRef', 'kind') or 'Deployment'}/{dig(spec, 'scaleTargetRef', 'name')}",
        minimum=number(spec.get("minReplicaCount"), 0),
        maximum=number(spec.get("maxReplicaCount"), 100),
        managed_by=None,
        annotations=mapping(meta.get("annotations")),
        raw=obj,
    )


def matches(selector: Json, labels: Json) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) selects ``labels``; an empty one selects nothing here."""
    wanted, expressions = mapping(selector.get("matchLabels")), sequence(selector.get("matchExpressions"))
    if not wanted and not expressions:
        return False
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_expression(expression, labels) for expression in expressions)


def _expression(expression: Json, labels: Json) -> bool:
    key, values = str(expression.get("key")), sequence(expression.get("values"))
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case operator:
            raise ValueError(f"unknown selector operator {operator!r}")


def quantity(value: t.Any) -> Decimal:
    """A resource quantity as a plain number: cores, bytes or pieces. ValueError when it is none."""
    text = str(value).strip()
    digits = text.rstrip("KMGTPEkinum") if not text[-1:].isdigit() else text
    suffix = text[len(digits) :]
    try:
        if suffix in _BINARY:
            return Decimal(digits) * Decimal(1024) ** _BINARY[suffix]
        return Decimal(digits).scaleb(_SUFFIXES[suffix])
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"not a quantity: {value!r}") from error


def pod_requests(template_spec: Json) -> dict[str, Decimal]:
    """What one pod requests, per resource: the sum of its containers, or its largest init container if that is more."""
    total: dict[str, Decimal] = {}
    for container in sequence(template_spec.get("containers")):
        for name, amount in _requests(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in sequence(template_spec.get("initContainers")):
        for name, amount in _requests(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def _requests(container: Json) -> dict[str, Decimal]:
    """A container's requests; a limit without a request is its request."""
    resources = mapping(container.get("resources"))
    asked = {**mapping(resources.get("limits")), **mapping(resources.get("requests"))}
    return {name: quantity(amount) for name, amount in asked.items()}
