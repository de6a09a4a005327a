# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects as an API server keeps them: patches, selectors, owners of fields, as functions of plain values.

They belong to ``support.memory_kubernetes``, a double.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import Resource

Json = dict[str, Any]

WITH_SCALE = {"StatefulSet": "replicas", "Deployment": "replicas", "ReplicaSet": "replicas"}
"""Kinds with the subresource scale, and the field of their spec that it shows as replicas."""
PATCH_NOT_APPLIED = "the server rejected our request due to an error in our request"


class Key(NamedTuple):
    """Where an object is."""

    resource: Resource
    namespace: str
    name: str


class Target(NamedTuple):
    """What a path means."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def title(self) -> str:
        """As the server calls it in messages."""
        return f'{self.resource.qualified} "{self.name}"'


class Change(NamedTuple):
    """One entry of the history that watches follow."""

    version: int
    kind: str
    key: Key
    obj: Json
    before: Json | None


class Rejected(Exception):
    """The server answers with an error: its status, the reason in the Status object, its message."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    def as_status(self) -> Json:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.status,
        }


def format_now(ahead: float = 0.0) -> str:
    """The time as in metadata, by a clock that is so many seconds ahead."""
    return (datetime.now(UTC) + timedelta(seconds=ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def apply_operations(target: Json, operations: Any) -> Json:
    """Apply a JSON patch (RFC 6902: test, add, replace, remove), as the server's library does it.

    A test of null holds where nothing is, as long as what would hold it is there.
    """
    result = copy.deepcopy(target)
    if not isinstance(operations, list):
        raise Rejected(400, "BadRequest", "cannot unmarshal object into Go value of type jsonpatch.Patch")
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        parent: Any = result
        for part in parts[:-1]:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if not isinstance(parent, dict) or not _apply_operation(parent, parts[-1], operation):
            raise Rejected(422, "Invalid", PATCH_NOT_APPLIED)
    return result


def _apply_operation(parent: Json, key: str, operation: Json) -> bool:
    kind = operation["op"]
    if kind == "test":
        return bool(parent.get(key) == operation["value"])
    if kind in ("remove", "replace") and key not in parent:
        return False
    if kind == "remove":
        del parent[key]
    elif kind in ("add", "replace"):
        parent[key] = copy.deepcopy(operation["value"])
    else:
        raise Rejected(422, "Invalid", f"Unexpected kind: {kind}")
    return True


def matches_labels(selector: str, labels: Json) -> bool:
    """Whether labels match a labelSelector: ``a=b,c!=d,e in (f,g),h notin (i),j,!k``."""
    for term in re.findall(r"[^,(]+(?:\([^)]*\))?", selector):
        match = re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", term.strip())
        if match is not None:
            values = {value.strip() for value in match[3].split(",")}
            fits = (labels.get(match[1]) in values) == (match[2] == "in")
        elif "!=" in term:
            key, value = term.split("!=")
            fits = labels.get(key.strip()) != value.strip()
        elif "=" in term:
            key, value = term.replace("==", "=").split("=")
            fits = labels.get(key.strip()) == value.strip()
        else:
            name = term.strip()
            fits = name.removeprefix("!") not in labels if name.startswith("!") else name in labels
        if not fits:
            return False
    return True


def matches_fields(selector: str, obj: Json) -> bool:
    """Whether an object matches a fieldSelector: ``metadata.name=x,involvedObject.uid!=y``."""
    for term in filter(None, selector.split(",")):
        path, operator, value = re.split(r"(!=|==|=)", term, maxsplit=1)
        node: Any = obj
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if (str(node or "") == value) == (operator == "!="):
            return False
    return True


def walk_leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value of an object that is no object itself, with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk_leaves(value, (*path, key))
    else:
        yield path, node


def own_fields(before: Json, after: Json, manager: str, subresource: str = "", operation: str = "Update") -> list[Json]:
    """The managedFields after a change: the values that changed belong to who changed them, as with updates."""
    old = dict(walk_leaves({key: value for key, value in before.items() if key != "metadata"}))
    new = dict(walk_leaves({key: value for key, value in after.items() if key != "metadata"}))
    for kind in ("annotations", "labels"):
        for leaves, obj in ((old, before), (new, after)):
            leaves.update(walk_leaves((obj.get("metadata") or {}).get(kind) or {}, ("metadata", kind)))
    for constant in (("kind",), ("apiVersion",)):
        new.pop(constant, None)
    taken = {path for path, value in new.items() if path not in old or old[path] != value}
    entries: list[Json] = []
    for entry in (before.get("metadata") or {}).get("managedFields") or []:
        left = {path for path in _read_fields(entry["fieldsV1"]) if path in new and path not in taken}
        is_same = (entry["manager"], entry["operation"], entry.get("subresource", "")) == (
            manager,
            operation,
            subresource,
        )
        if is_same:
            taken |= left
        elif left:
            entries.append({**entry, "fieldsV1": _write_fields(left)})
    if taken:
        own = {
            "manager": manager,
            "operation": operation,
            "apiVersion": after.get("apiVersion", "v1"),
            "time": format_now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": _write_fields(taken),
        }
        entries.append({**own, "subresource": subresource} if subresource else own)
    return entries


def _read_fields(fields: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in fields.items():
        here = (*path, key.removeprefix("f:"))
        if value:
            yield from _read_fields(value, here)
        else:
            yield here


def _write_fields(paths: set[tuple[str, ...]]) -> Json:
    fields: Json = {}
    for path in sorted(paths):
        node = fields
        for part in path:
            node = node.setdefault(f"f:{part}", {})
    return fields


def show(obj: Json, subresource: str, scaled: dict[str, str]) -> Json:
    """Return an object, or its scale (for the kinds that are ``scaled``), as it is shown."""
    if subresource != "scale":
        return copy.deepcopy(obj)
    if obj["kind"] not in scaled:
        raise Rejected(404, "NotFound", "the server could not find the requested resource")
    field = scaled[obj["kind"]]
    if obj["kind"] not in WITH_SCALE and field not in obj["spec"]:
        raise Rejected(500, "InternalError", f'the spec replicas field ".spec.{field}" does not exist')
    metadata = {k: v for k, v in obj["metadata"].items() if k in ("name", "namespace", "uid", "resourceVersion")}
    replicas = obj["spec"].get(field, 1)
    status = {"replicas": (obj.get("status") or {}).get("replicas", 0)}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": replicas},
        "status": status,
    }


def ignore_managers(obj: Json) -> Json:
    """Return an object without its managedFields."""
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


def is_in(key: Key, target: Target) -> bool:
    """Return whether a path means an object."""
    return key.resource == target.resource and target.namespace in ("", key.namespace) and target.name in ("", key.name)


def fits(obj: Json, query: dict[str, str]) -> bool:
    """Return whether an object fits the selectors of a query."""
    return matches_labels(query.get("labelSelector", ""), obj["metadata"].get("labels") or {}) and matches_fields(
        query.get("fieldSelector", ""), obj
    )


def make_error(status: int, reason: str, message: str) -> Json:
    """Return the event of an error."""
    return {"type": "ERROR", "object": Rejected(status, reason, message).as_status()}
