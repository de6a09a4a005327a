# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of objects as JSON patches that are conditional on exactly what was decided about.

Private to lowtide.ops: do not import from other collections.

Sources: RFC 6902 (JSON patch), RFC 6901 (pointers), RFC 7396 (merge patch).
"""

from __future__ import annotations

import json
import typing as t

from .fields import Json

Operations = list[Json]

_GO_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


class Write(t.NamedTuple):
    """One intended change: a JSON merge patch, and the paths whose present value it was decided about.

    ``depends_on`` holds paths such as ``("spec", "replicas")``. The object's uid is always among them, its
    resourceVersion is not: a status that changes meanwhile is no conflict.
    """

    body: Json
    depends_on: tuple[tuple[str, ...], ...] = ()


def build_json_patch(current: Json, write: Write) -> Operations:
    """Return the JSON patch that makes ``write`` of an object that was read as ``current``.

    It begins with tests: the uid, then each path of ``depends_on`` (null stands for "not there"). Fields of the body
    are set one by one, so that what others change beside them stays. Where a whole branch is not there yet (an object
    without annotations), that it still is not there is tested too: otherwise another writer's branch would be lost.
    Raises ValueError when ``current`` has no uid or a path leads through something that is no object.
    """
    uid = (current.get("metadata") or {}).get("uid")
    if not uid:
        raise ValueError("an object without metadata.uid cannot be changed conditionally")
    tests: dict[tuple[str, ...], t.Any] = {("metadata", "uid"): uid}
    for path in write.depends_on:
        deepest, value = _find_value(current, path)
        tests[deepest] = value
    changes: Operations = []
    _collect_changes(current, write.body, (), tests, changes)
    return [{"op": "test", "path": format_pointer(path), "value": value} for path, value in tests.items()] + changes


def changes_something(operations: t.Iterable[Json]) -> bool:
    """Return whether a JSON patch does more than test."""
    return any(operation["op"] != "test" for operation in operations)


def format_pointer(path: t.Iterable[str]) -> str:
    """Return the JSON pointer of a path: ``/metadata/annotations/lowtide.ops~1stopped``."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def encode_json(document: object) -> bytes:
    """Return a document as the API server would write it.

    The server compares the strings of a ``test`` as they are written, escapes and all, with its own encoding of the
    object, in which ``<``, ``>`` and ``&`` are escaped and other letters are not.
    """
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).translate(_GO_ESCAPES).encode()


def _find_value(current: Json, path: tuple[str, ...]) -> tuple[tuple[str, ...], t.Any]:
    """Return the value at a path; when it is not there, the first part of the path that is not, and None."""
    node: t.Any = current
    for depth, part in enumerate(path):
        if not isinstance(node, dict):
            raise ValueError(f"{format_pointer(path[:depth])} is no object, so {format_pointer(path)} cannot be in it")
        node = node.get(part)
        if node is None:
            return path[: depth + 1], None
    return path, node


def _collect_changes(
    current: Json, body: Json, place: tuple[str, ...], tests: dict[tuple[str, ...], t.Any], changes: Operations
) -> None:
    for key, value in body.items():
        path = (*place, key)
        present = current.get(key)
        if value is None:
            if present is not None:
                changes.append({"op": "remove", "path": format_pointer(path)})
        elif not isinstance(value, dict):
            changes.append({"op": "add", "path": format_pointer(path), "value": value})
        elif isinstance(present, dict):
            _collect_changes(present, value, path, tests, changes)
        else:
            made = _drop_nulls(value)
            if made or not value or present is not None:  # removing from what is not there is no change
                tests.setdefault(path, present)
                changes.append({"op": "add", "path": format_pointer(path), "value": made})


def _drop_nulls(value: Json) -> Json:
    """Return a merge patch as the value that it makes where nothing was."""
    return {
        key: _drop_nulls(item) if isinstance(item, dict) else item for key, item in value.items() if item is not None
    }
