# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A double of the Kubernetes API server, in memory on a loopback socket, for tests of what is above ``client.Client``.

It keeps objects with uid, resourceVersion and generation, takes merge, JSON and apply patches, answers conflicts,
lists in pages, watches with bookmarks, dry runs, access reviews. It runs no controllers: a test changes objects itself
(``change``), or lets a rival do so in the middle of a request (``add_rival``). What it says of errors is what a real
server says as far as our code looks at it; ``tests/integration/kubernetes/test_client_faults.py`` holds the client
against the real one.
"""

from __future__ import annotations

import base64
import copy
import itertools
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Backoff, Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import ClusterAccess
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import RESOURCES, Resource

from .memory_handler import Fault, Handler, Request, Rival, find_manager, is_dry
from .memory_objects import (
    WITH_SCALE,
    Change,
    Json,
    Key,
    Rejected,
    Target,
    apply_operations,
    fits,
    format_now,
    ignore_managers,
    is_in,
    make_error,
    merge,
    own_fields,
    show,
)

PodAnswer = Callable[[str], tuple[int, str]]
"""What a pod answers to a path: a status and a body."""


@dataclass
class _Store:
    objects: dict[Key, Json] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    version: int = 1000
    oldest: int = 1000
    pages: dict[str, tuple[list[Json], str]] = field(default_factory=dict)


class MemoryServer:
    """A context manager; ``client`` makes a client for it. With ``tls`` it speaks TLS.

    ``log`` has every request, ``tokens`` the bearer tokens that are accepted (None: everybody), ``log_lines`` what a
    pod has logged, by (namespace, name), and ``previous_lines`` what a container of it had before its last restart, by
    (namespace, name, container), ``pod_answers`` what it answers through its proxy, by (namespace, name:port), a
    function of the path, ``review_status`` what access reviews answer instead of what is denied, ``connections`` how
    many were opened. Its clock is ``clock_ahead`` seconds ahead of ours; ``date`` is what its answers say of the time
    instead.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.log: list[Request] = []
        self.tokens: set[str] | None = None
        self.rivals: list[Rival] = []
        self.faults: list[Fault] = []
        self.log_lines: dict[tuple[str, str], list[str]] = {}
        self.previous_lines: dict[tuple[str, str, str], list[str]] = {}
        self.pod_answers: dict[tuple[str, str], PodAnswer] = {}
        self.resources = {(resource.group_version, resource.plural): resource for resource in RESOURCES.values()}
        self.scaled = dict(WITH_SCALE)
        self.review_status: Json | None = None
        self.connections = 0
        self.clock_ahead = 0.0
        self.date: str | None = None
        self.open_connections: set[socket.socket] = set()
        self.changed = threading.Condition(threading.RLock())
        self.bookmarks = self.watch_ends = self.watch_cuts = 0
        self._denied: set[tuple[str, str, str]] = set()
        self._store = _Store()
        self._numbers = itertools.count(1)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._http.memory = self  # type: ignore[attr-defined]
        self.is_closed = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; open watches end."""
        if not self.is_closed:
            self.is_closed = True
            with self.changed:
                self.changed.notify_all()
            self._http.shutdown()
            self._http.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    def client(
        self, deadline: float | Deadline = 10, *, run_id: str = "test", token: str | None = None, silence: float = 90.0
    ) -> Client:
        """Return a client of this server, with short pauses."""
        return Client(
            ClusterAccess(server=self.url, source="the test", token=token),
            run_id=run_id,
            deadline=deadline if isinstance(deadline, Deadline) else Deadline(deadline),
            backoff=lambda: Backoff(first=0.01, limit=0.05),
            silence=silence,
        )

    # --- what a test does -------------------------------------------------------------------------------------------

    def register(self, resource: Resource, *, scaled: str = "") -> None:
        """Serve another kind; ``scaled`` is the field of its spec that its subresource scale shows, if it has one."""
        self.resources[resource.group_version, resource.plural] = resource
        if scaled:
            self.scaled[resource.kind] = scaled

    def unregister(self, kind: str) -> None:
        """Serve a kind no longer, as a cluster without its operator."""
        self.resources = {key: resource for key, resource in self.resources.items() if resource.kind != kind}

    def put(self, obj: Json, *, manager: str = "test") -> Json:
        """Create or replace an object as it is given, its status too. Returns it as it is kept."""
        with self.changed:
            resource = self.find_kind(str(obj["kind"]))
            metadata = obj["metadata"]
            key = Key(resource, metadata.get("namespace", "") if resource.namespaced else "", metadata["name"])
            return copy.deepcopy(self._save(key, copy.deepcopy(obj), manager=manager))

    def change(
        self, kind: str, namespace: str, name: str, function: Callable[[Json], object], *, manager: str = "rival"
    ) -> Json:
        """Let ``function`` change an object in place. Returns it as it is then."""
        with self.changed:
            key = Key(self.find_kind(kind), namespace, name)
            obj = copy.deepcopy(self._store.objects[key])
            function(obj)
            return copy.deepcopy(self._save(key, obj, manager=manager))

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Remove an object, whatever its finalizers say."""
        with self.changed:
            self._erase(Key(self.find_kind(kind), namespace, name))

    def read(self, kind: str, namespace: str, name: str) -> Json:
        """An object, as it is kept. Raises KeyError when there is none."""
        with self.changed:
            return copy.deepcopy(self._store.objects[Key(self.find_kind(kind), namespace, name)])

    def read_all(self, kind: str) -> list[Json]:
        """All objects of a kind."""
        with self.changed:
            return [copy.deepcopy(obj) for key, obj in self._store.objects.items() if key.resource.kind == kind]

    def deny(self, verb: str, resource: str, namespace: str = "") -> None:
        """Forbid a verb on ``pods``, ``pods/eviction``, ``statefulsets.apps``, everywhere or in one namespace."""
        self._denied.add((verb, resource, namespace))

    def allow(self, verb: str, resource: str, namespace: str = "") -> None:
        """Take a ``deny`` back."""
        self._denied.discard((verb, resource, namespace))

    def fail_next(
        self,
        status: int,
        retry_after: int | None = None,
        times: int = 1,
        *,
        verb: str = "",
        path: str = "",
        is_after: bool = False,
    ) -> None:
        """Answer the next requests with an error."""
        self.faults.append(Fault(times, verb, path, status, retry_after, is_after=is_after))

    def lose_next(self, when: str = "before", times: int = 1, *, verb: str = "", path: str = "") -> None:
        """Cut the connection of the next requests."""
        self.faults.append(Fault(times, verb, path, lose=when))

    def hang_next(self, seconds: float, times: int = 1, *, verb: str = "", path: str = "") -> None:
        """Let the next requests wait for their answer."""
        self.faults.append(Fault(times, verb, path, hang=seconds))

    def answer_next(
        self, status: int, body: str | bytes, headers: dict[str, str] | None = None, *, drip: float = 0.0
    ) -> None:
        """Answer the next request with these very bytes."""
        content = body.encode() if isinstance(body, str) else body
        self.faults.append(Fault(1, status=status, body=content, headers=headers or {}, drip=drip))

    def cut_idle_connections(self) -> None:
        """Close every open connection in order, as a load balancer closes idle ones, and wait until that is done."""
        with self.changed:
            for connection in self.open_connections:
                connection.shutdown(socket.SHUT_RDWR)
            self.changed.wait_for(lambda: not self.open_connections, timeout=5)

    def add_rival(
        self,
        action: Callable[[], object],
        *,
        when: str = "before",
        verb: str = "patch",
        path: str = "",
        times: int = 1,
    ) -> None:
        """Let another client act in the middle of the next requests."""
        self.rivals.append(Rival(action, when, verb, path, times))

    def compact(self) -> None:
        """Forget history and begun lists: watches from an older version, and continuations, are answered with 410."""
        with self.changed:
            self._store.oldest = self._store.version = self._store.version + 1
            self._store.history.clear()
            self._store.pages.clear()
            self.changed.notify_all()

    def send_bookmarks(self) -> None:
        """Send a bookmark on every open watch that asked for them."""
        with self.changed:
            self._store.version += 1
            self.bookmarks += 1
            self.changed.notify_all()

    def end_watches(self, *, cut: bool = False) -> None:
        """End every open watch, in order or by cutting its connection."""
        with self.changed:
            self.watch_ends += 1
            self.watch_cuts += cut
            self.changed.notify_all()

    def count(self, verb: str, path: str = "") -> int:
        """How many requests of a verb arrived."""
        return sum(request.verb == verb and path in request.path for request in list(self.log))

    # --- what the handler asks --------------------------------------------------------------------------------------

    def find_kind(self, kind: str) -> Resource:
        """The resource of a kind that is served."""
        return next(resource for resource in self.resources.values() if resource.kind == kind)

    def take_fault(self, request: Request) -> Fault | None:
        """Note a request and say which fault it meets."""
        with self.changed:
            self.log.append(request)
            for fault in self.faults:
                if fault.times > 0 and fault.verb in ("", request.verb) and fault.path in request.path:
                    fault.times -= 1
                    return fault
            return None

    def run_rivals(self, when: str, request: Request) -> None:
        """Let the others act."""
        for rival in self.rivals:
            if rival.times > 0 and (rival.when, rival.verb) == (when, request.verb) and rival.path in request.path:
                rival.times -= 1
                rival.action()

    def parse_path(self, path: str) -> Target:
        """What a path means; a 404 for what is not served."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        version, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        resource = self.resources.get((version, rest[0])) if rest else None
        if resource is None:
            raise Rejected(404, "NotFound", "the server could not find the requested resource")
        name, subresource = [*rest[1:], "", ""][:2]
        return Target(resource, namespace, name, subresource)

    def discover(self, path: str) -> Json | None:
        """Return what a version of an API serves (with its subresources scale); None for any other path."""
        version = path.removeprefix("/apis/").removeprefix("/api/")
        served = [resource for resource in self.resources.values() if resource.group_version == version]
        if not served:
            return None
        if ("get", path, "") in self._denied:
            raise Rejected(403, "Forbidden", f'forbidden: User "test" cannot get path "{path}"')
        entries = [{"name": entry.plural, "kind": entry.kind, "namespaced": entry.namespaced} for entry in served]
        for entry in served:
            if entry.kind in self.scaled:
                entries.append({"name": f"{entry.plural}/scale", "kind": "Scale", "namespaced": entry.namespaced})
        return {"kind": "APIResourceList", "groupVersion": version, "resources": entries}

    def check_present(self, target: Target) -> None:
        """Raise the 404 of an object that is not there."""
        if Key(target.resource, target.namespace, target.name) not in self._store.objects:
            raise Rejected(404, "NotFound", f"{target.title} not found")

    def read_log(self, target: Target, query: dict[str, str]) -> list[str]:
        """Return the last ``tailLines`` lines of a log; without a restart there is no previous one."""
        key, container = (target.namespace, target.name), query.get("container", "")
        lines = self.log_lines.get(key, [])
        if query.get("previous") == "true":
            if (*key, container) not in self.previous_lines:
                problem = f'previous terminated container "{container}" in pod "{target.name}" not found'
                raise Rejected(400, "BadRequest", problem)
            lines = self.previous_lines[*key, container]
        return lines[-int(query["tailLines"]) :] if "tailLines" in query else lines

    def ask_pod(self, target: Target, path: str) -> tuple[int, str]:
        """Ask a pod through its proxy; raises Rejected as the API server answers where it cannot reach it."""
        name = target.name.removeprefix("https:").partition(":")[0]
        self.check_present(target._replace(name=name))
        answer = self.pod_answers.get((target.namespace, target.name))
        if answer is None:
            raise Rejected(503, "ServiceUnavailable", "error trying to reach service: connection refused")
        return answer(path.partition("/proxy")[2])

    def check_access(self, verb: str, resource: Resource, namespace: str, subresource: str) -> bool:
        """Whether nobody has denied it."""
        suffix = f"/{subresource}" if subresource else ""
        names = {f"{name}{suffix}" for name in (resource.plural, resource.qualified, "*")}
        return not any(
            denied_verb in (verb, "*") and denied_resource in names and denied_namespace in ("", namespace)
            for denied_verb, denied_resource, denied_namespace in self._denied
        )

    def answer(self, request: Request) -> Json:
        """Carry out a request that is no watch; raises Rejected."""
        target = self.parse_path(request.path)
        if request.verb == "create" and target.resource.kind == "SelfSubjectAccessReview":
            return self._review(request.body)
        with self.changed:
            if request.verb == "list":
                return self._list(target, request.query)
            if request.verb == "create":
                return self.create_object(target, request)
            return self._answer_for(target, Key(target.resource, target.namespace, target.name), request)

    def _answer_for(self, target: Target, key: Key, request: Request) -> Json:
        """Carry out a request about one object."""
        current = self._store.objects.get(key)
        if current is None:
            if request.verb == "patch" and "apply-patch" in request.content_type:
                return self._save(key, {**request.body}, manager=find_manager(request), dry_run=is_dry(request))
            raise Rejected(404, "NotFound", f"{target.title} not found")
        if request.verb == "get":
            return show(current, target.subresource, self.scaled)
        if request.verb == "patch":
            return self.patch_object(target, key, current, request)
        return self._delete(target, key, current, request)

    def list_changes(self, target: Target, query: dict[str, str], after: int) -> tuple[int, list[Json]]:
        """The events of a watch after a version, and the version they reach; an ERROR event when history is lost."""
        store = self._store
        if after < store.oldest:
            return after, [make_error(410, "Expired", f"too old resource version: {after} ({store.oldest})")]
        events = []
        for change in store.history:
            if change.version <= after or not is_in(change.key, target):
                continue
            is_in_now, was_in = fits(change.obj, query), change.before is not None and fits(change.before, query)
            kind = change.kind
            if kind != "DELETED":
                kind = ("MODIFIED" if was_in else "ADDED") if is_in_now else "DELETED"
            if is_in_now or was_in:
                events.append({"type": kind, "object": change.obj})
        return store.version, events

    def list_present(self, target: Target, query: dict[str, str]) -> tuple[int, list[Json]]:
        """The ADDED events with which a watch without a version begins."""
        objects = self._select(target, query)
        return self._store.version, [{"type": "ADDED", "object": copy.deepcopy(obj)} for obj in objects]

    @property
    def version(self) -> int:
        """The newest resourceVersion."""
        return self._store.version

    # --- storage ----------------------------------------------------------------------------------------------------

    def _select(self, target: Target, query: dict[str, str]) -> list[Json]:
        chosen = [key for key in self._store.objects if is_in(key, target)]
        objects = [self._store.objects[key] for key in sorted(chosen, key=lambda key: (key.namespace, key.name))]
        return [obj for obj in objects if fits(obj, query)]

    def _list(self, target: Target, query: dict[str, str]) -> Json:
        store = self._store
        token = query.get("continue", "")
        if token:
            if token not in store.pages:
                raise Rejected(410, "Expired", "The provided continue parameter is too old")
            objects, version = store.pages.pop(token)
        else:
            objects, version = [copy.deepcopy(obj) for obj in self._select(target, query)], str(store.version)
        limit = int(query.get("limit") or 0)
        metadata: Json = {"resourceVersion": version}
        if limit and len(objects) > limit:
            metadata["continue"] = base64.b64encode(f"page {next(self._numbers)}".encode()).decode()
            metadata["remainingItemCount"] = len(objects) - limit
            store.pages[metadata["continue"]] = (objects[limit:], version)
            objects = objects[:limit]
        if "." not in target.resource.group_version.partition("/")[0] or target.resource.group.endswith(".k8s.io"):
            # A built-in kind's items do not say what they are; those of a custom resource do.
            objects = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in objects]
        return {
            "kind": f"{target.resource.kind}List",
            "apiVersion": target.resource.group_version,
            "metadata": metadata,
            "items": objects,
        }

    def create_object(self, target: Target, request: Request) -> Json:
        """Make an object; a test may put before it what a server drops."""
        body = copy.deepcopy(request.body)
        if target.subresource == "eviction":
            self._erase(Key(target.resource, target.namespace, target.name), dry_run=is_dry(request))
            return {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}
        metadata = body.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{next(self._numbers):05d}"
        key = Key(target.resource, target.namespace, str(metadata.get("name") or ""))
        if not key.name:
            raise Rejected(422, "Invalid", f"{target.resource.kind} is invalid: metadata.name: Required value")
        if key in self._store.objects:
            title = f'{target.resource.qualified} "{key.name}"'
            raise Rejected(409, "AlreadyExists", f"{title} already exists")
        body.pop("status", None)
        return self._save(key, body, manager=find_manager(request), dry_run=is_dry(request))

    def patch_object(self, target: Target, key: Key, current: Json, request: Request) -> Json:
        """Carry out a patch; a test may put admission webhooks before it."""
        shown = show(current, target.subresource, self.scaled)
        if "json-patch" in request.content_type:
            patched = apply_operations(shown, request.body)
        elif "merge-patch" in request.content_type or "apply-patch" in request.content_type:
            patched = merge(shown, request.body)
        else:
            raise Rejected(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        for field_name in ("uid", "resourceVersion"):
            if patched["metadata"].get(field_name) != current["metadata"].get(field_name):
                message = f"Operation cannot be fulfilled on {target.title}: the object has been modified"
                raise Rejected(409, "Conflict", message)
        replicas = (patched.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            message = f"{target.title} is invalid: spec.replicas: Invalid value: {replicas}"
            raise Rejected(422, "Invalid", message)
        after = copy.deepcopy(current)
        if target.subresource == "scale":
            after["spec"][self.scaled[current["kind"]]] = patched["spec"]["replicas"]
        elif target.subresource == "status":
            after["status"] = patched.get("status") or {}
        else:
            patched.pop("status", None)
            after = {**patched, **({"status": current["status"]} if "status" in current else {})}
        saved = self._save(
            key,
            after,
            manager=find_manager(request),
            subresource=target.subresource,
            dry_run=is_dry(request),
            operation="Apply" if "apply-patch" in request.content_type else "Update",
        )
        return show(saved, target.subresource, self.scaled)

    def _delete(self, target: Target, key: Key, current: Json, request: Request) -> Json:
        options = request.body or {}
        preconditions = options.get("preconditions") or {}
        for name in ("uid", "resourceVersion"):
            if name in preconditions and preconditions[name] != current["metadata"][name]:
                message = f"Precondition failed: {name} in precondition: {preconditions[name]}"
                raise Rejected(409, "Conflict", f"Operation cannot be fulfilled on {target.title}: {message}")
        dry_run = bool(options.get("dryRun")) or is_dry(request)
        if current["metadata"].get("finalizers"):
            after = copy.deepcopy(current)
            after["metadata"].setdefault("deletionTimestamp", format_now(self.clock_ahead))
            return self._save(key, after, manager=find_manager(request), dry_run=dry_run)
        self._erase(key, dry_run=dry_run, orphan=options.get("propagationPolicy") == "Orphan")
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"name": key.name}}

    def _save(
        self,
        key: Key,
        obj: Json,
        *,
        manager: str,
        subresource: str = "",
        dry_run: bool = False,
        operation: str = "Update",
    ) -> Json:
        store = self._store
        before = store.objects.get(key)
        metadata = obj.setdefault("metadata", {})
        old = before["metadata"] if before else {}
        metadata["name"] = key.name
        if key.resource.namespaced:
            metadata["namespace"] = key.namespace
        metadata["uid"] = old.get("uid") or metadata.get("uid") or str(uuid.uuid4())
        metadata["creationTimestamp"] = (
            old.get("creationTimestamp") or metadata.get("creationTimestamp") or format_now(self.clock_ahead)
        )
        if before is None:
            metadata["generation"] = metadata.get("generation") or 1
        else:
            changed_spec = before.get("spec") != obj.get("spec")
            metadata["generation"] = old.get("generation", 1) + changed_spec
        obj["kind"], obj["apiVersion"] = key.resource.kind, key.resource.group_version
        metadata["resourceVersion"] = old.get("resourceVersion", "")
        managed = own_fields(before or {}, obj, manager, subresource, operation)
        if before is not None and ignore_managers(before) == ignore_managers(obj):
            return before  # nothing changes, as on a real server
        metadata["managedFields"] = managed
        if dry_run:
            return obj
        store.version += 1
        metadata["resourceVersion"] = str(store.version)
        store.objects[key] = obj
        kind = "MODIFIED" if before else "ADDED"
        store.history.append(Change(store.version, kind, key, copy.deepcopy(obj), before))
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and before is not None:
            had_finalizers = bool(old.get("finalizers"))
            if had_finalizers:
                self._erase(key)
        self.changed.notify_all()
        return obj

    def _erase(self, key: Key, *, dry_run: bool = False, orphan: bool = False) -> None:
        store = self._store
        if key not in store.objects:
            raise Rejected(404, "NotFound", f'{key.resource.qualified} "{key.name}" not found')
        if dry_run:
            return
        obj = store.objects.pop(key)
        store.version += 1
        last = copy.deepcopy(obj)
        last["metadata"]["resourceVersion"] = str(store.version)
        store.history.append(Change(store.version, "DELETED", key, last, obj))
        self.changed.notify_all()
        uid = obj["metadata"]["uid"]
        for other, dependent in list(store.objects.items()):
            owners = dependent["metadata"].get("ownerReferences") or []
            if not orphan and other in store.objects and any(owner.get("uid") == uid for owner in owners):
                self._erase(other)

    def _review(self, body: Json) -> Json:
        attributes = body["spec"]["resourceAttributes"]
        group, version = attributes.get("group", ""), attributes.get("version", "")
        resource = Resource(f"{group}/{version}".strip("/"), attributes["resource"], "")
        allowed = self.check_access(
            attributes["verb"], resource, attributes.get("namespace", ""), attributes.get("subresource", "")
        )
        return {**body, "status": {"allowed": allowed} if self.review_status is None else self.review_status}
