# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Secrets, ConfigMaps and keys of them a pod needs, and which of these are missing: pure.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .fields import Json, as_dict, as_list, as_text, get_path

Contents: t.TypeAlias = "t.Mapping[tuple[str, str], t.Collection[str] | None]"
"""Keys by kind and name of what was read; None for what does not exist. What may not be read is not in it."""

_ENV_SOURCES = (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef"))
_ENV_FROM_SOURCES = (("Secret", "secretRef"), ("ConfigMap", "configMapRef"))
_VOLUME_SOURCES = (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name"))


class Reference(t.NamedTuple):
    """A Secret or ConfigMap that a pod uses; ``key`` is "" for all of it, ``use`` says what for."""

    kind: str
    name: str
    key: str
    use: str
    optional: bool


class Missing(t.NamedTuple):
    """What a pod lacks: the object (or container) that should have it, its name there, and what needs it."""

    object: str
    message: str
    key: str


def list_references(spec: Json) -> list[Reference]:
    """Return what the specification of a pod uses: by variables (valueFrom, envFrom) and by volumes."""
    references: list[Reference] = []
    for container in list_containers(spec):
        name = as_text(container.get("name"))
        for entry in as_list(container.get("env")):
            use = f"variable {as_text(get_path(entry, 'name'))} of container {name}"
            for kind, field in _ENV_SOURCES:
                references += _read_source(kind, as_dict(get_path(entry, "valueFrom", field)), use)
        for entry in as_list(container.get("envFrom")):
            for kind, field in _ENV_FROM_SOURCES:
                references += _read_source(kind, as_dict(get_path(entry, field)), f"variables of container {name}")
    for volume in as_list(spec.get("volumes")):
        use = f"volume {as_text(get_path(volume, 'name'))}"
        for source in [volume, *as_list(get_path(volume, "projected", "sources"))]:
            for kind, field, name_field in _VOLUME_SOURCES:
                # Below "projected" a Secret is named as a ConfigMap is.
                described = as_dict(get_path(source, field))
                references += _read_source(kind, described, use, name=described.get(name_field, described.get("name")))
    return references


def _read_source(kind: str, source: Json, use: str, *, name: t.Any = None) -> list[Reference]:
    """Return the reference of a source to one key, to the keys of its items, or to the whole object."""
    name = as_text(name if name is not None else source.get("name"))
    if not name:
        return []
    items = [as_text(get_path(item, "key")) for item in as_list(source.get("items"))]
    keys = [as_text(source["key"])] if source.get("key") else items or [""]
    return [Reference(kind, name, key, use, source.get("optional") is True) for key in keys]


def list_containers(spec: Json) -> list[Json]:
    """Return the containers of a pod's specification, init containers first."""
    return [as_dict(entry) for field in ("initContainers", "containers") for entry in as_list(spec.get(field))]


def find_missing(references: t.Iterable[Reference], contents: Contents, namespace: str) -> list[Missing]:
    """Return the objects and keys that do not exist and that pods do not start without."""
    missing: dict[tuple[str, str], Missing] = {}
    for reference in references:
        if reference.optional or (reference.kind, reference.name) not in contents:
            continue
        title = f"{reference.kind} {namespace}/{reference.name}"
        keys = contents[reference.kind, reference.name]
        if keys is None:
            lack = Missing(title, f"it does not exist, and {reference.use} needs it", "")
        elif reference.key and reference.key not in keys:
            has = f"it has {', '.join(sorted(keys))}" if keys else "it has none"
            message = f"it has no key {reference.key}, which {reference.use} needs; {has}"
            lack = Missing(title, message, reference.key)
        else:
            continue
        missing.setdefault((title, lack.key), lack)
    return list(missing.values())


def list_variables(container: Json, contents: Contents) -> tuple[set[str], list[str]]:
    """Return the names of a container's variables, and the sources that may hold more and could not be read."""
    names = {as_text(get_path(entry, "name")) for entry in as_list(container.get("env"))}
    unknown = []
    for entry in as_list(container.get("envFrom")):
        prefix = as_text(get_path(entry, "prefix"))
        for kind, field in _ENV_FROM_SOURCES:
            name = as_text(get_path(entry, field, "name"))
            if not name:
                continue
            if (kind, name) in contents:
                names |= {prefix + key for key in contents[kind, name] or ()}
            else:
                unknown.append(f"{kind} {name}")
    return names, unknown


def find_missing_variables(
    spec: Json, required: t.Mapping[str, t.Collection[str]], contents: Contents, title: str
) -> tuple[list[Missing], list[str]]:
    """Return the required variables that containers lack, and what could not be told.

    ``required`` are names by container; ``title`` is the workload's. Neither a default in the image nor a value that
    the program reads elsewhere is known here.
    """
    by_name = {as_text(container.get("name")): container for container in list_containers(spec)}
    missing, untold = [], []
    for name, variables in required.items():
        if name not in by_name:
            known = ", ".join(by_name)
            missing.append(
                Missing(title, f"it has no container {name}, whose variables are required; it has {known}", "")
            )
            continue
        present, unknown = list_variables(by_name[name], contents)
        for variable in sorted(set(variables) - present):
            if unknown:
                untold.append(f"whether container {name} has {variable}: {', '.join(unknown)} could not be read")
            else:
                missing.append(
                    Missing(title, f"container {name} has no variable {variable}, which is required", variable)
                )
    return missing, untold
