# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads everything that explains the state of a workload, and makes it printable.

What may not be read is noted and no error. Values of Secrets are read to be recognised in other texts, and kept nowhere.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import typing as t

from .._common.redaction import Redactor, is_secret_name, list_argument_secrets, list_secret_parts
from .._common.timestamps import format_utc
from .client import Client
from .cluster import read_object
from .errors import ApiError, Forbidden, NotFound
from .fields import Json, as_dict, as_list, as_text, get_path
from .logs import Log, list_logs
from .objects import ContainerState, Pod, Workload
from .references import list_containers, list_references
from .resources import collection_path, find_resource, format_title, object_path
from .selectors import format_selector, matches
from .snapshot import Snapshot, identify

SERVICE_NAME = "kubernetes.io/service-name"
NODES_LIMIT = 50
"""Nodes of a workload's pods that are looked at, at most."""
_OF_NAMESPACE = (
    "Event",
    "Service",
    "HorizontalPodAutoscaler",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "PersistentVolumeClaim",
)
_NEEDED = ("Pod", "Service", "EndpointSlice")
"""Kinds without which nobody can say that a workload is well."""
_OWN = {"Deployment": "ReplicaSet", "StatefulSet": "ControllerRevision", "DaemonSet": "ControllerRevision"}
_PUBLIC = re.compile(
    r"(?:.*[_.-])?(?:user|username|login|host|hostname|port|db|dbname|database|name|namespace|region|bucket|endpoint"
    r"|sslmode|type|scheme|protocol|ca\.crt|tls\.crt)",
    re.IGNORECASE,
)


class Material(t.NamedTuple):
    """What was read of a workload, at ``snapshot.at``.

    ``contents`` has the keys of Secrets and ConfigMaps, ``unreadable`` what could not be read and why, ``services`` the
    names of those that select its pods. ``lacking`` is what of ``unreadable`` nobody is called healthy without.
    """

    workload: Workload
    snapshot: Snapshot
    contents: dict[tuple[str, str], frozenset[str] | None]
    services: tuple[str, ...]
    logs: tuple[Log, ...]
    unreadable: tuple[str, ...]
    redactor: Redactor
    lacking: tuple[str, ...] = ()

    @property
    def pods(self) -> list[Pod]:
        """The workload's pods that have not ended, by name."""
        return sorted(self.snapshot.list_running_pods(self.workload), key=lambda pod: pod.name)


class _Reader:
    """Reads objects, and notes what could not be read."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.objects: list[Json] = []
        self.known: set[str] = set()
        self.unreadable: list[str] = []
        self.lacking: list[str] = []

    def list(self, kind: str, *, label_selector: str = "") -> list[Json]:
        """Return the objects of a kind in the namespace, none where they may not be read."""
        params = {"labelSelector": label_selector} if label_selector else None
        title = f"{kind}s of namespace {self.namespace}"
        try:
            listing = self.client.list(collection_path(kind, self.namespace), obj=title, params=params)
        except ApiError as error:
            note = self._note(error, f"list {find_resource(kind).qualified} in namespace {self.namespace}")
            self.lacking += [note] if kind in _NEEDED else []
            return []
        self.known.add(kind)
        return [{**obj, "kind": kind} for obj in listing.items]

    def get(self, kind: str, name: str) -> tuple[Json | None, bool]:
        """Return an object, and whether that it is None means that there is none."""
        resource = find_resource(kind)
        namespace = self.namespace if resource.namespaced else None
        try:
            obj = self.client.get(object_path(kind, namespace, name), obj=format_title(kind, namespace, name))
        except NotFound:
            return None, True
        except ApiError as error:
            where = f" in namespace {namespace}" if namespace else ""
            self._note(error, f"get {resource.qualified} {name}{where}")
            return None, False
        return {**obj, "kind": kind}, True

    def keep(self, objects: t.Iterable[Json]) -> None:
        """Make objects part of the snapshot."""
        self.objects += objects

    def _note(self, error: ApiError, right: str) -> str:
        if isinstance(error, Forbidden):
            note = f"not allowed to read: grant {right}"
        elif isinstance(error, NotFound):
            note = f"not served here: {error.obj}"
        else:
            note = f"could not be read: {error.obj}: {error.problem}"
        if note not in self.unreadable:
            self.unreadable.append(note)
        return note


def collect(client: Client, kind: str, namespace: str, name: str, *, log_lines: int, log_bytes: int) -> Material:
    """Read a workload and everything that explains its state. Raises Refusal when there is no such workload."""
    obj = {**read_object(client, kind, namespace, name), "kind": kind}
    workload = Workload.from_object(obj, kind)
    reader = _Reader(client, namespace)
    reader.keep([obj])
    selector = format_selector(workload.selector)
    for of_selector in ("Pod", _OWN[kind]):
        reader.keep(reader.list(of_selector, label_selector=selector))
    by_kind = {of_namespace: reader.list(of_namespace) for of_namespace in _OF_NAMESPACE}
    pods = [other for other in reader.objects if other["kind"] == "Pod"]
    services = _select_services(by_kind["Service"], workload)
    claims = _name_claims(pods)
    reader.keep(by_kind["ResourceQuota"] + by_kind["LimitRange"] + by_kind["PodDisruptionBudget"])
    reader.keep(services)
    reader.keep(claim for claim in by_kind["PersistentVolumeClaim"] if claim["metadata"]["name"] in claims)
    reader.keep(hpa for hpa in by_kind["HorizontalPodAutoscaler"] if _is_target(hpa, workload))
    if services:
        names = [as_text(service["metadata"]["name"]) for service in services]
        reader.keep(reader.list("EndpointSlice", label_selector=f"{SERVICE_NAME} in ({','.join(names)})"))
    for node in sorted({as_text(get_path(pod, "spec", "nodeName")) for pod in pods} - {""})[:NODES_LIMIT]:
        found, _problem = reader.get("Node", node)
        reader.keep([] if found is None else [found])
    about = {identify(other) for other in reader.objects}
    reader.keep(event for event in by_kind["Event"] if get_path(event, "involvedObject", "uid") in about)
    contents, secrets = _read_contents(reader, [workload.template, *pods])
    redactor = Redactor([*secrets, *client.access.secrets()])
    snapshot = Snapshot.from_objects(reader.objects, known=reader.known, at=client.read_server_clock())
    logs = _read_logs(client, workload, snapshot, redactor, log_lines=log_lines, log_bytes=log_bytes)
    services_names = tuple(as_text(service["metadata"]["name"]) for service in services)
    unreadable, lacking = tuple(reader.unreadable), tuple(reader.lacking)
    return Material(workload, snapshot, contents, services_names, tuple(logs), unreadable, redactor, lacking)


def _select_services(services: t.Iterable[Json], workload: Workload) -> list[Json]:
    labels = as_dict(get_path(workload.template, "metadata", "labels"))
    selected = []
    for service in services:
        selector = as_dict(get_path(service, "spec", "selector"))
        if selector and matches({"matchLabels": selector}, labels):
            selected.append(service)
    return selected


def _name_claims(pods: t.Iterable[Json]) -> set[str]:
    return {
        as_text(get_path(volume, "persistentVolumeClaim", "claimName"))
        for pod in pods
        for volume in as_list(get_path(pod, "spec", "volumes"))
    } - {""}


def _is_target(hpa: Json, workload: Workload) -> bool:
    target = as_dict(get_path(hpa, "spec", "scaleTargetRef"))
    return (target.get("kind"), target.get("name")) == (workload.kind, workload.name)


def _read_contents(
    reader: _Reader, sources: t.Iterable[Json]
) -> tuple[dict[tuple[str, str], frozenset[str] | None], list[str]]:
    """Return the keys of the Secrets and ConfigMaps that pods use, and every secret value that is known from them."""
    specs = [as_dict(source.get("spec")) for source in sources]
    used = dict.fromkeys((ref.kind, ref.name) for spec in specs for ref in list_references(spec))
    contents: dict[tuple[str, str], frozenset[str] | None] = {}
    secrets = [secret for spec in specs for secret in _list_literal_secrets(spec)]
    for kind, name in used:
        found, is_certain = reader.get(kind, name)
        if not is_certain:
            continue
        values = {} if found is None else _decode_values(found)
        contents[kind, name] = None if found is None else frozenset(values)
        for key, value in values.items():
            is_secret = not _PUBLIC.fullmatch(key) if kind == "Secret" else is_secret_name(key)
            secrets += [value] if is_secret else list_secret_parts(value)
    # What configuration calls a secret may be the name of one, and names are evidence.
    public = {reader.namespace, *(name for _kind, name in used)}
    return contents, [secret for secret in secrets if secret not in public]


def read_known_secrets(client: Client, namespace: str, sources: t.Iterable[Json]) -> list[str]:
    """Return the secret values that pods (or pod templates) use, as far as they may be read: to keep them out of logs."""
    _contents, secrets = _read_contents(_Reader(client, namespace), sources)
    return secrets


def _list_literal_secrets(spec: Json) -> t.Iterator[str]:
    """Yield secrets that stand in a pod's specification itself."""
    for container in list_containers(spec):
        for entry in as_list(container.get("env")):
            name, value = as_text(get_path(entry, "name")), as_text(get_path(entry, "value"))
            yield from [value] if is_secret_name(name) else list_secret_parts(value)
        handlers = [as_dict(container.get(f"{probe}Probe")) for probe in ("liveness", "readiness", "startup")]
        handlers += [as_dict(handler) for handler in as_dict(container.get("lifecycle")).values()]
        for words in (
            [*as_list(container.get("command")), *as_list(container.get("args"))],
            *(as_list(get_path(handler, "exec", "command")) for handler in handlers),
        ):
            yield from list_argument_secrets(words)


def _decode_values(obj: Json) -> dict[str, str]:
    """Return the values of a Secret or ConfigMap by key; what is no text is "" (its key counts)."""
    values = {key: as_text(value) for key, value in as_dict(obj.get("data")).items()}
    if obj["kind"] == "Secret":
        return {key: _decode(value) for key, value in values.items()}
    return {**dict.fromkeys(as_dict(obj.get("binaryData")), ""), **values}


def _decode(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, ValueError):
        return value


def has_failed(container: ContainerState) -> bool:
    """Return whether a container waits for something, or was ever restarted or ended with an error."""
    return bool(container.waiting_reason) or container.restarts > 0 or container.last_exit_code not in (None, 0)


def _read_logs(
    client: Client, workload: Workload, snapshot: Snapshot, redactor: Redactor, *, log_lines: int, log_bytes: int
) -> list[Log]:
    """Return the logs of the containers that failed, and of pods that are not ready; where all is well, of all."""
    pods = sorted(snapshot.list_pods(workload), key=lambda pod: (pod.is_ready, pod.name))
    if log_lines <= 0:
        return []
    failed = {
        (pod.uid, container.name)
        for pod in pods
        for container in pod.containers
        if has_failed(container) or not pod.is_ready
    }
    return list_logs(
        client,
        pods,
        redact=redactor.redact,
        tail_lines=log_lines,
        limit_bytes=log_bytes,
        select=lambda pod, container: not failed or (pod.uid, container.name) in failed,
    )


def list_files(material: Material) -> dict[str, str]:
    """Return the evidence as files: objects, events in the order of their times, logs, and what could not be read."""
    document = material.redactor.redact_document(_strip(material.snapshot.as_document()))
    files = {
        "objects.json": json.dumps(document, indent=1, ensure_ascii=False),
        "events.txt": "".join(f"{line}\n" for line in list_event_lines(material)),
        "unreadable.txt": "".join(f"{line}\n" for line in material.unreadable),
    }
    for log in material.logs:
        suffix = ".previous" if log.previous else ""
        name = f"logs/{log.pod.rpartition('/')[2]}_{log.container}{suffix}.log"
        files[name] = f"{log.text}\n" if log.text else f"({log.reason})\n"
    contents = {
        f"{kind}/{name}": None if keys is None else sorted(keys) for (kind, name), keys in material.contents.items()
    }
    files["configuration_keys.json"] = json.dumps(contents, indent=1)
    return files


def list_event_lines(material: Material) -> list[str]:
    """Return the events about the workload and what belongs to it, oldest first, redacted."""
    items = material.snapshot.as_document()["items"]
    uids = {identify(obj) for obj in items if obj["kind"] != "Event"}
    events = [event for uid in sorted(uids) for event in material.snapshot.list_events(uid)]
    events.sort(key=lambda event: (event.at, event.about_name))
    return [
        material.redactor.redact(
            f"{format_utc(event.at)} {event.type} {event.about_kind}/{event.about_name} {event.reason}"
            f" (x{event.times}): {event.message}"
        )
        for event in events
    ]


def _strip(document: Json) -> Json:
    """Return the objects without managedFields, which say who wrote which field in many lines."""
    items = [
        {
            **obj,
            "metadata": {key: value for key, value in as_dict(obj.get("metadata")).items() if key != "managedFields"},
        }
        for obj in document["items"]
    ]
    return {**document, "items": items}
