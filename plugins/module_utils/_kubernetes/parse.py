# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed views of Kubernetes objects. Every function bears missing and null fields. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import json
import typing as t

Json = t.Mapping[str, t.Any]

STOPPED = "lowtide.ops/stopped"
BOUNDS = "lowtide.ops/bounds-before"
FORMAT = 1


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


class Record(t.NamedTuple):
    """What this collection wrote onto an object together with the change that it made (format 1).

    ``value`` holds what to restore: {"replicas": n}, {"suspend": bool}, or an autoscaler's bounds.
    """

    value: dict[str, t.Any]
    run: str
    at: str

    def encode(self) -> str:
        """The annotation's text."""
        return json.dumps({"format": FORMAT, "run": self.run, "at": self.at, **self.value}, sort_keys=True)

    @property
    def is_of_window(self) -> bool:
        """Whether a window's run wrote it."""
        return is_window(self.run)


def is_window(run: str) -> bool:
    """Return whether a run's name is that of a window's occurrence, NAME@START."""
    return "@" in run


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


class Workload(t.NamedTuple):
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


class Scaler(t.NamedTuple):
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
    owner = next(
        (str(o.get("name")) for o in sequence(meta.get("ownerReferences")) if o.get("kind") == "ScaledObject"), None
    )
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
