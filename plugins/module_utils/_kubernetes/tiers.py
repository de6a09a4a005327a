# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options workloads and tiers of k8s_workload, as typed values.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .resources import check_name

KINDS = ("StatefulSet", "Deployment", "CronJob", "Job")
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
_KEYS = ("kind", "name", "replicas", *INFO_KEYS)
_EXAMPLE = "Write a list of tiers such as [[{kind: StatefulSet, name: worker}], [{kind: Deployment, name: api}]]"


class Entry(t.NamedTuple):
    """A declared workload; ``replicas`` is None where what was saved on the object decides."""

    kind: str
    name: str
    replicas: int | None = None

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
    _refuse_duplicates(tiers, option)
    return tiers


def _refuse_duplicates(tiers: t.Iterable[Tier], option: str) -> None:
    keys = [entry.key for tier in tiers for entry in tier]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise Refusal(
            obj=f"option {option}",
            problem=f"it names {', '.join(twice)} more than once",
            next_step="Name each workload once",
        )


def _parse_entry(element: t.Any, where: str, namespace: str) -> Entry:
    if not isinstance(element, dict):
        raise Refusal(obj=where, problem=f"it is {element!r}, not a mapping with kind and name", next_step=_EXAMPLE)
    unknown = sorted(str(key) for key in element if key not in _KEYS)
    if unknown:
        raise Refusal(
            obj=where,
            problem=f"it has the unknown keys {', '.join(unknown)}",
            next_step="Use kind, name and replicas",
        )
    kind, name = element.get("kind"), element.get("name")
    if kind not in KINDS:
        raise Refusal(obj=where, problem=f"its kind is {kind!r}", next_step=f"Use one of {', '.join(KINDS)}")
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
    return Entry(kind, check_name("name", name), _parse_replicas(given, f"{where} ({kind} {name})"))


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
