# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options workloads and tiers of the Kubernetes modules, as typed values.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t

from .._common.errors import Refusal
from .resources import RESOURCES, check_name

KINDS = ("StatefulSet", "Deployment", "CronJob", "Job")
READ_KINDS = (*KINDS, "DaemonSet")
"""Kinds that can be read; a DaemonSet has no number by which it could be stopped."""
# What k8s_workload_info returns for a workload besides kind, name and replicas: its result can be passed on.
INFO_KEYS = (
    "namespace",
    "pods",
    "ready",
    "status",
    "detail",
    "stopped_by_lowtide",
    "stale_saved_state",
    "problem",
)
_KEYS = ("kind", "name", "api_version", "plural", "replicas", *INFO_KEYS)
_VERSION = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9][a-z0-9]*")
_EXAMPLE = "Write a list of tiers such as [[{kind: StatefulSet, name: worker}], [{kind: Deployment, name: api}]]"


class Entry(t.NamedTuple):
    """A declared workload; ``replicas`` is None where what was saved on the object decides.

    ``api_version`` is empty for a kind of ``KINDS``; ``plural`` may be left to be found.
    """

    kind: str
    name: str
    replicas: int | None = None
    api_version: str = ""
    plural: str = ""

    @property
    def key(self) -> str:
        """Kind/name, unique in a namespace."""
        return f"{self.kind}/{self.name}"


Tier = tuple[Entry, ...]


def parse_tiers(params: t.Mapping[str, t.Any]) -> list[Tier]:
    """Return the declared tiers in start order, from ``tiers`` or ``workloads``. Raise a Refusal for invalid ones."""
    option = "workloads" if params["tiers"] is None else "tiers"
    declared = params[option]
    if not declared:
        raise Refusal(obj=f"option {option}", problem="it names nothing", next_step=_EXAMPLE)
    nested = [isinstance(element, list) for element in declared]
    if any(nested) and not all(nested):
        raise Refusal(
            obj=f"option {option}", problem="it mixes tiers (lists) and workloads (mappings)", next_step=_EXAMPLE
        )
    groups = declared if all(nested) else [declared]
    tiers: list[Tier] = []
    for number, group in enumerate(groups):
        where = f"option {option}[{number}]" if all(nested) else f"option {option}"
        if not group:
            raise Refusal(
                obj=where, problem="this tier is empty", next_step="Name its workloads, or leave the tier out"
            )
        tiers.append(
            tuple(
                _parse_entry(element, f"{where}[{position}]", str(params["namespace"]))
                for position, element in enumerate(group)
            )
        )
    _refuse_duplicates([entry for tier in tiers for entry in tier], option)
    return tiers


def parse_workloads(declared: t.Sequence[t.Any], namespace: str) -> list[Entry]:
    """Return the entries of an option ``workloads`` that are only read. Raise a Refusal for invalid ones."""
    entries = [
        _parse_entry(element, f"option workloads[{position}]", namespace, kinds=READ_KINDS)
        for position, element in enumerate(declared)
    ]
    _refuse_duplicates(entries, "workloads")
    return entries


def _refuse_duplicates(entries: t.Sequence[Entry], option: str) -> None:
    versions: dict[str, set[tuple[str, str]]] = {}
    for entry in entries:
        versions.setdefault(entry.kind, set()).add((entry.api_version, entry.plural))
    for kind, several in versions.items():
        if len(several) > 1:
            words = ", ".join(sorted(" ".join(filter(None, version)) for version in several))
            raise Refusal(
                obj=f"option {option}",
                problem=f"it has the kind {kind} of different APIs: {words}",
                next_step="Give all of them the same api_version and plural, or use one task for each API",
            )
    keys = [entry.key for entry in entries]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise Refusal(
            obj=f"option {option}",
            problem=f"it names {', '.join(twice)} more than once",
            next_step="Name each workload once",
        )


def _parse_entry(element: t.Any, where: str, namespace: str, *, kinds: t.Collection[str] = KINDS) -> Entry:
    if not isinstance(element, dict):
        raise Refusal(obj=where, problem=f"it is {element!r}, not a mapping with kind and name", next_step=_EXAMPLE)
    unknown = sorted(str(key) for key in element if key not in _KEYS)
    if unknown:
        raise Refusal(
            obj=where,
            problem=f"it has the unknown keys {', '.join(unknown)}",
            next_step="Use kind, name and replicas, for another API api_version and plural too",
        )
    kind, name = element.get("kind"), element.get("name")
    api_version, plural = parse_api(element, where, kinds=kinds)
    if not isinstance(name, str) or not name:
        raise Refusal(obj=where, problem=f"its name is {name!r}", next_step="Name the workload")
    elsewhere = element.get("namespace")
    if elsewhere is not None and elsewhere != namespace:
        raise Refusal(
            obj=f"{where} ({kind} {name})",
            problem=f"it is in namespace {elsewhere}, and the option namespace is {namespace}",
            next_step="Use one task for each namespace",
        )
    # In a result of k8s_workload_info, replicas says what the workload has, and not what it is to have.
    given = None if element.get("status") is not None else element.get("replicas")
    replicas = _parse_replicas(given, f"{where} ({kind} {name})")
    return Entry(str(kind), check_name("name", name), replicas, api_version, plural)


def parse_api(element: t.Mapping[str, t.Any], where: str, *, kinds: t.Collection[str] = KINDS) -> tuple[str, str]:
    """Return ``api_version`` and ``plural`` of a workload of another API, both empty for one of ``kinds``.

    Refusal for a kind that is neither.
    """
    kind, api_version, plural = (element.get(key) or "" for key in ("kind", "api_version", "plural"))
    if kind == "DaemonSet" and kind not in kinds:
        refuse_daemon_set(f"{where} ({kind} {element.get('name')})")
    known = RESOURCES.get(kind) if isinstance(kind, str) else None
    if kind in kinds and api_version in ("", known.group_version if known is not None else ""):
        return "", ""
    if known is not None or not isinstance(kind, str) or not kind or not api_version:
        raise Refusal(
            obj=where,
            problem=f"its kind is {element.get('kind')!r}" + (f" of {api_version}" if api_version else ""),
            next_step=f"Use one of {', '.join(kinds)}, or give the api_version of another kind that can be scaled",
        )
    if not isinstance(api_version, str) or not _VERSION.fullmatch(api_version):
        raise Refusal(
            obj=where,
            problem=f"its api_version is {api_version!r}",
            next_step="Write it as the object has it: GROUP/VERSION, such as argoproj.io/v1alpha1",
        )
    return api_version, check_name("plural", str(plural)) if plural else ""


def refuse_daemon_set(title: str) -> t.NoReturn:
    """Raise the Refusal for a DaemonSet that is to be stopped, started or scaled."""
    raise Refusal(
        obj=title,
        problem="a DaemonSet has no number of replicas: it runs a pod on each node that it selects",
        next_step="Leave it out, or give its template a nodeSelector that no node has",
    )


def _parse_replicas(value: t.Any, where: str) -> int | None:
    if value is None:
        return None
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise Refusal(
            obj=where,
            problem=f"its replicas are {value!r}, which is not a whole number of at least 1",
            next_step="Correct it, leave it out to restore what was saved, or use state stopped",
        )
    return number
