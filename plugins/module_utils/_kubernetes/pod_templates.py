# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pod templates: values in them by container and field, their comparison by effect, and changes that can be taken back.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import typing as t

from .._common.errors import Refusal
from .fields import Json, as_dict, as_list, as_text, get_path
from .objects import POD_TEMPLATE_HASH
from .quantities import canonicalize_quantity, parse_quantity

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""The annotation by which ``kubectl rollout restart`` makes a new revision."""
SCHEMA_VERSIONS = "lowtide.ops/schema-versions"
"""On a template: the versions of its database's schema that this code works with, ``42`` or ``40-42``."""

IMAGE, ENV, REQUESTS, LIMITS, ANNOTATION = "image", "env", "requests", "limits", "annotation"
_LISTS = ("containers", "initContainers")
_VERSIONS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?", re.ASCII)
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$", re.ASCII)


class Place(t.NamedTuple):
    """One value of a template: a container's image, variable or amount; an annotation has no container."""

    container: str
    field: str
    key: str = ""

    def __str__(self) -> str:
        words = " ".join(filter(None, [self.field, self.key]))
        return f"{self.container}: {words}" if self.container else words


class Edit(t.NamedTuple):
    """A value that changes. A variable is its entry without its name; None is "not there"."""

    place: Place
    before: t.Any
    after: t.Any

    def as_dict(self) -> Json:
        """Return it as it is saved."""
        return {**self.place._asdict(), "before": self.before, "after": self.after}

    @classmethod
    def from_dict(cls, entry: Json) -> Edit:
        """Read what was saved."""
        place = Place(as_text(entry.get("container")), as_text(entry.get("field")), as_text(entry.get("key")))
        return cls(place, entry.get("before"), entry.get("after"))

    def describe(self) -> str:
        """Return it in words. Values of variables are left out: they may be secrets."""
        if self.place.field == ENV:
            verb = "remove" if self.after is None else "set" if self.before is None else "change"
            return f"{verb} {self.place}"
        before, after = ("none" if value is None else value for value in (self.before, self.after))
        return f"{self.place} {before} -> {after}"


def list_containers(template: Json) -> list[Json]:
    """Return all containers, init containers last."""
    return [as_dict(entry) for section in _LISTS for entry in as_list(get_path(template, "spec", section))]


def list_images(template: Json) -> dict[str, str]:
    """Return the image of each container by its name."""
    return {as_text(entry.get("name")): as_text(entry.get("image")) for entry in list_containers(template)}


def find_digest(image: str) -> str | None:
    """Return the digest by which an image is named; None where a tag names it."""
    match = _DIGEST.search(image)
    return match[1] if match else None


def find_container(template: Json, name: str, title: str) -> Json:
    """Return a container by its name; a Refusal lists those that there are."""
    entry = next((entry for entry in list_containers(template) if entry.get("name") == name), None)
    if entry is None:
        raise Refusal(
            obj=f"container {name!r} of {title}",
            problem=f"it has no such container; it has {', '.join(list_images(template))}",
            next_step="Correct the name in containers",
        )
    return entry


def get_value(template: Json, place: Place, title: str) -> t.Any:
    """Return a value as it is now, None when it is not there."""
    if place.field == ANNOTATION:
        return get_path(template, "metadata", "annotations", place.key)
    entry = find_container(template, place.container, title)
    if place.field == IMAGE:
        return entry.get("image")
    if place.field in (REQUESTS, LIMITS):
        return get_path(entry, "resources", place.field, place.key)
    variables = [as_dict(item) for item in as_list(entry.get("env")) if get_path(item, "name") == place.key]
    return _strip_name(variables[-1]) if variables else None


def _strip_name(variable: Json) -> Json:
    """Return the entry of a variable without its name; the server leaves an empty value out."""
    kept = {key: value for key, value in variable.items() if key != "name" and value is not None}
    return {key: value for key, value in kept.items() if not (key == "value" and value == "")}


def is_same(place: Place, left: t.Any, right: t.Any) -> bool:
    """Return whether two values have the same effect: amounts are compared as amounts, all else literally."""
    if place.field in (REQUESTS, LIMITS) and left is not None and right is not None:
        return parse_quantity(left) == parse_quantity(right)
    if place.field == ENV and left is not None and right is not None:
        return _strip_name(left) == _strip_name(right)
    return bool(left == right)


def plan_edits(template: Json, values: t.Mapping[Place, t.Any], title: str) -> list[Edit]:
    """Return what is to change so that the template has these values."""
    edits = []
    for place, value in values.items():
        before = get_value(template, place, title)
        after = canonicalize_quantity(value) if place.field in (REQUESTS, LIMITS) and value is not None else value
        if not is_same(place, before, after):
            edits.append(Edit(place, before, after))
    return edits


def apply_edits(template: Json, edits: t.Iterable[Edit], title: str) -> Json:
    """Return a copy of the template with the changes in it."""
    changed = copy.deepcopy(template)
    for edit in edits:
        _set_value(changed, edit.place, edit.after, title)
    return changed


def _set_value(template: Json, place: Place, value: t.Any, title: str) -> None:
    if place.field == ANNOTATION:
        _set_key(template, ("metadata", "annotations"), place.key, value)
        return
    entry = find_container(template, place.container, title)
    if place.field == IMAGE:
        entry["image"] = value
    elif place.field in (REQUESTS, LIMITS):
        _set_key(entry, ("resources", place.field), place.key, value)
    else:
        _set_variable(entry, place.key, value)


def _set_key(node: Json, path: tuple[str, ...], key: str, value: t.Any) -> None:
    """Set one key of a mapping; a mapping in which nothing is left goes with its last key."""
    parent = node
    for part in path[:-1]:
        parent = parent.setdefault(part, {})
    mapping = {**as_dict(parent.get(path[-1])), key: value}
    mapping = {name: item for name, item in mapping.items() if item is not None}
    if mapping:
        parent[path[-1]] = mapping
    else:
        parent.pop(path[-1], None)


def _set_variable(entry: Json, name: str, value: Json | None) -> None:
    """Set a variable where it stands, since later ones may refer to it; a new one comes last."""
    variables = [as_dict(item) for item in as_list(entry.get("env"))]
    made = [] if value is None else [{"name": name, **_strip_name(value)}]
    places = [number for number, item in enumerate(variables) if item.get("name") == name]
    if not places:
        variables += made
    else:
        variables[places[-1] : places[-1] + 1] = made
        variables = [item for number, item in enumerate(variables) if number not in places[:-1]]
    if variables:
        entry["env"] = variables
    else:
        entry.pop("env", None)


def clean_template(template: Json) -> Json:
    """Return a template of a revision as a workload has it: without the hash of its ReplicaSet, and without nulls."""
    cleaned = t.cast("Json", _drop_nulls(template))
    cleaned.pop("$patch", None)
    labels = get_path(cleaned, "metadata", "labels")
    if isinstance(labels, dict):
        labels.pop(POD_TEMPLATE_HASH, None)
    return cleaned


def _drop_nulls(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_drop_nulls(item) for item in value]
    return value


def fingerprint(template: Json) -> str:
    """Return what two templates have in common exactly when they have the same effect."""
    cleaned = clean_template(template)
    for entry in list_containers(cleaned):
        for part in (REQUESTS, LIMITS):
            amounts = get_path(entry, "resources", part)
            if isinstance(amounts, dict):
                entry["resources"][part] = {name: canonicalize_quantity(amount) for name, amount in amounts.items()}
    text = json.dumps(cleaned, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def diff_template(before: Json, after: Json) -> Json:
    """Return the merge patch that makes the one template of the other; a list is given whole."""
    patch: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        present = before.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            inner = diff_template(present, value)
            if inner:
                patch[key] = inner
        elif present != value:
            patch[key] = value
    return patch


def read_versions(template: Json) -> str | None:
    """Return which versions of its schema a template declares to work with; None when it declares none."""
    text = get_path(template, "metadata", "annotations", SCHEMA_VERSIONS)
    return None if text is None else as_text(text).strip()


def find_schema_problem(template: Json, schema_version: int | None) -> str:
    """Return why a template may not run with the schema as it is; empty when it may."""
    declared = read_versions(template)
    if declared is None:
        if schema_version is None:
            return ""
        return f"the schema is of version {schema_version}, and its template has no annotation {SCHEMA_VERSIONS}"
    match = _VERSIONS.fullmatch(declared)
    if match is None:
        return f"its annotation {SCHEMA_VERSIONS} is {declared!r}, not a version such as 42 or a range such as 40-42"
    if schema_version is None:
        return f"it works with schema versions {declared} only, and schema_version does not say which one there is"
    low, high = int(match[1]), int(match[2] or match[1])
    if low <= schema_version <= high:
        return ""
    return f"it works with schema versions {declared}, and the schema is of version {schema_version}"
