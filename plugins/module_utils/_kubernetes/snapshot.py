# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server held at one moment, joined by owner references: pure, and cheap for thousands of pods.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .fields import Json, as_dict, as_list, as_text, get_path
from .objects import Event, Job, Pod, ReplicaSet, Revision, Workload, find_controller
from .resources import Kind, find_resource
from .selectors import matches

Kept = dict[tuple[str, str], tuple[Json, t.Any]]
"""Typed objects by kind and uid, each with the raw object that it was made from: an unchanged one is not read again."""


class _Typed(t.Protocol):
    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> t.Any: ...


_T = t.TypeVar("_T", bound=_Typed)


class Snapshot:
    """Objects of some kinds as they were at one moment (``at``, in the server's seconds since 1970), found by name, owner, or subject.

    ``objects`` holds raw objects by kind and uid. ``known`` are the kinds of which something was read: of another kind
    nothing can be said. ``collections`` are those that were read whole, by kind, namespace and label selector: only of
    these an empty answer means that there is none. None: whatever is known is. Each index is built once, when it is first
    asked for.
    """

    def __init__(
        self,
        objects: t.Mapping[str, t.Mapping[str, Json]],
        known: t.Collection[str],
        at: float,
        *,
        kept: Kept | None = None,
        collections: t.Collection[tuple[str, str, str]] | None = None,
    ) -> None:
        self.at = at
        self.known = frozenset(known)
        self._collections = collections
        self._objects = objects
        self._kept: Kept = {} if kept is None else kept
        self._by_name: dict[str, dict[tuple[str, str], Json]] = {}
        self._by_owner: dict[str, dict[str, list[tuple[str, Json]]]] = {}
        self._events: dict[str, list[Event]] | None = None

    @classmethod
    def from_objects(cls, objects: t.Iterable[Json], *, known: t.Collection[str] = (), at: float = 0.0) -> Snapshot:
        """Make a snapshot of objects that carry their kind; ``known`` adds kinds of which there is none."""
        by_kind: dict[str, dict[str, Json]] = {}
        for obj in objects:
            by_kind.setdefault(as_text(obj.get("kind")), {})[identify(obj)] = obj
        return cls(by_kind, {*by_kind, *known}, at)

    def as_document(self) -> Json:
        """Return everything as plain data: a List that kubectl can read, ordered by kind, namespace and name."""
        items = [{**obj, "kind": kind} for kind, objects in self._objects.items() for obj in objects.values()]
        items.sort(key=lambda obj: (obj["kind"], get_path(obj, "metadata", "namespace") or "", _get_name(obj)))
        return {"apiVersion": "v1", "kind": "List", "at": self.at, "known": sorted(self.known), "items": items}

    def covers(self, kind: str, namespace: str, label_selector: str = "") -> bool:
        """Return whether all objects of a kind were read that a namespace has, or all that the selector selects."""
        if self._collections is None:
            return kind in self.known
        return any((kind, namespace, labels) in self._collections for labels in ("", label_selector))

    def find(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return an object by its name; None when there is none, or when its kind was not read."""
        if kind not in self._by_name:
            objects = self._objects.get(kind, {}).values()
            self._by_name[kind] = {(_get_namespace(obj), _get_name(obj)): obj for obj in objects}
        return self._by_name[kind].get((namespace, name))

    def list_all(self, kind: str, namespace: str) -> list[Json]:
        """Return all objects of a kind in a namespace that were read."""
        return [obj for obj in self._objects.get(kind, {}).values() if _get_namespace(obj) == namespace]

    def workload(self, kind: Kind, namespace: str, name: str) -> Workload | None:
        """Return a workload by its name; None when there is none, or when its kind was not read."""
        obj = self.find(find_resource(kind).kind, namespace, name)
        return Workload.from_object(obj, kind) if obj is not None else None

    def list_pods(self, workload: Workload) -> list[Pod]:
        """Return the pods that the workload owns, itself or through its ReplicaSets or Jobs, finished ones included.

        Labels do not make a pod the workload's. Only where the ReplicaSet or Job in between is not known (not read, or
        deleted before its pods were gone), a pod counts whose ReplicaSet has the name that a Deployment gives (and that
        the selector selects), or whose Job has the name that a CronJob gives. What owns the pods of a workload of another
        API need not be known at all: a pod that its selector selects counts if nothing that was read controls it.
        """
        if not workload.resource.is_known:
            owners = self._list_descendants(workload.uid)
            pods = self._list_selected(workload, owners)
        elif workload.kind == "Deployment":
            owners = [replica_set.uid for replica_set in self.list_replica_sets(workload)]
            pods = self._list_orphans(workload)
        elif workload.kind == "CronJob":
            owners = [job.uid for job in self.list_jobs(workload)]
            pods = self._list_orphans(workload)
        else:
            owners, pods = [workload.uid], []
        for owner in owners:
            pods += self._list_owned("Pod", Pod, owner)
        return pods

    def list_running_pods(self, workload: Workload) -> list[Pod]:
        """Return the pods of a workload that have not ended, terminating ones included."""
        return [pod for pod in self.list_pods(workload) if not pod.is_finished]

    def list_foreign_pods(self, workload: Workload) -> list[Pod]:
        """Return the pods that run with the labels of a workload's pods, and belong to something else."""
        own = {pod.uid for pod in self.list_pods(workload)}
        pods = [
            self._type(Pod, "Pod", key, obj)
            for key, obj in self._objects.get("Pod", {}).items()
            if _get_namespace(obj) == workload.namespace
            and matches(workload.selector, as_dict(get_path(obj, "metadata", "labels")))
        ]
        return [pod for pod in pods if pod.uid not in own and not (pod.is_finished or pod.is_terminating)]

    def list_jobs(self, workload: Workload) -> list[Job]:
        """Return the Jobs of a CronJob, also those that were made from it by hand: it owns them, and need not control."""
        return self._list_owned("Job", Job, workload.uid)

    def list_active_jobs(self, workload: Workload) -> list[Job]:
        """Return the Jobs of a CronJob that run or may start pods."""
        return [job for job in self.list_jobs(workload) if job.may_run]

    def list_replica_sets(self, workload: Workload) -> list[ReplicaSet]:
        """Return the ReplicaSets of a Deployment, old ones included."""
        return self._list_owned("ReplicaSet", ReplicaSet, workload.uid)

    def list_revisions(self, workload: Workload) -> list[Revision]:
        """Return the ControllerRevisions of a StatefulSet or DaemonSet."""
        return self._list_owned("ControllerRevision", Revision, workload.uid)

    def list_events(self, uid: str) -> list[Event]:
        """Return the events about the object with this uid, oldest first."""
        if self._events is None:
            self._events = {}
            for key, obj in self._objects.get("Event", {}).items():
                event = self._type(Event, "Event", key, obj)
                self._events.setdefault(event.about_uid, []).append(event)
            for events in self._events.values():
                events.sort(key=lambda event: event.at)
        return self._events.get(uid, [])

    def update_hash(self, workload: Workload) -> str | None:
        """Return the label value of pods of the newest revision; None when it is not known.

        That is ``status.updateRevision`` of a StatefulSet, the newest ReplicaSet's hash of a Deployment, the newest
        ControllerRevision's of a DaemonSet. Where these were not read, the youngest pod tells.
        """
        if workload.kind == "StatefulSet":
            return workload.revision or None
        newest: list[ReplicaSet] | list[Revision] | list[Pod]
        if workload.kind == "Deployment":
            newest = sorted(
                self.list_replica_sets(workload), key=lambda entry: (entry.revision, entry.created_at or 0.0)
            )
        elif workload.kind == "DaemonSet":
            newest = sorted(self.list_revisions(workload), key=lambda entry: entry.revision)
        else:
            return None
        if not newest:
            newest = sorted(self.list_pods(workload), key=lambda pod: pod.created_at or 0.0)
        return newest[-1].template_hash or None if newest else None

    def _list_descendants(self, uid: str) -> list[str]:
        """Return an object's uid, and those of whatever it controls, at any depth, of the kinds that were read."""
        uids = [uid]
        for owner in uids:  # grows while it is gone through
            for kind in self._objects.keys() - {"Pod", "Event"}:
                uids += [key for key, _obj in self._index_owners(kind).get(owner, ()) if key not in uids]
        return uids

    def _list_selected(self, workload: Workload, owners: t.Collection[str]) -> list[Pod]:
        """Return the pods that the workload's selector selects and whose controller is none that was read."""
        read = {*owners, *(uid for kind, objects in self._objects.items() if kind != "Pod" for uid in objects)}
        return [
            self._type(Pod, "Pod", key, obj)
            for owner, owned in self._index_owners("Pod").items()
            if owner not in read
            for key, obj in owned
            if _get_namespace(obj) == workload.namespace
            and matches(workload.selector, as_dict(get_path(obj, "metadata", "labels")))
        ]

    def _list_orphans(self, workload: Workload) -> list[Pod]:
        kind = "Job" if workload.kind == "CronJob" else "ReplicaSet"
        pods: list[Pod] = []
        for owner, owned in self._index_owners("Pod").items():
            if owner in self._objects.get(kind, {}) or not _is_made_by(workload, kind, owned[0][1]):
                continue
            pods += [self._type(Pod, "Pod", key, obj) for key, obj in owned if _is_made_by(workload, kind, obj)]
        return pods

    def _list_owned(self, kind: str, form: type[_T], owner: str) -> list[_T]:
        return [self._type(form, kind, key, obj) for key, obj in self._index_owners(kind).get(owner, ())]

    def _index_owners(self, kind: str) -> dict[str, list[tuple[str, Json]]]:
        if kind not in self._by_owner:
            index: dict[str, list[tuple[str, Json]]] = {}
            for key, obj in self._objects.get(kind, {}).items():
                for owner in _list_owner_uids(kind, as_dict(obj.get("metadata"))):
                    index.setdefault(owner, []).append((key, obj))
            self._by_owner[kind] = index
        return self._by_owner[kind]

    def _type(self, form: type[_T], kind: str, key: str, obj: Json) -> _T:
        held = self._kept.get((kind, key))
        if held is not None and held[0] is obj:
            return t.cast("_T", held[1])
        typed = form.from_object(obj, kind)
        self._kept[kind, key] = (obj, typed)
        return t.cast("_T", typed)


def _list_owner_uids(kind: str, meta: Json) -> set[str]:
    """Return the uid of an object's controller, of a Job those of all its owners."""
    references = as_list(meta.get("ownerReferences")) if kind == "Job" else [find_controller(meta)]
    return {as_text(get_path(reference, "uid")) for reference in references} - {""}


def _is_made_by(workload: Workload, kind: str, obj: Json) -> bool:
    """Return whether a pod's controller, which is not known, has the name that the workload gives.

    A Deployment adds the hash of the template to its own name, a CronJob the scheduled minute.
    """
    meta = as_dict(obj.get("metadata"))
    labels, controller = as_dict(meta.get("labels")), find_controller(meta)
    if meta.get("namespace") != workload.namespace or controller.get("kind") != kind:
        return False
    name = as_text(controller.get("name"))
    if kind == "Job":
        return name.startswith(f"{workload.name}-") and name.removeprefix(f"{workload.name}-").isdigit()
    return name == f"{workload.name}-{labels.get('pod-template-hash')}" and matches(workload.selector, labels)


def identify(obj: Json) -> str:
    """Return the uid; what has none (an object written by hand) is told apart by its name."""
    return as_text(get_path(obj, "metadata", "uid")) or f"{_get_namespace(obj)}/{_get_name(obj)}"


def _get_namespace(obj: Json) -> str:
    return as_text(get_path(obj, "metadata", "namespace"))


def _get_name(obj: Json) -> str:
    return as_text(get_path(obj, "metadata", "name"))
