# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether ResourceQuotas leave enough for more pods, and for their volume claims.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from decimal import Decimal

from ..._common.outcome import Blocker
from ..._common.text import format_count, join_some
from ..fields import Json, as_dict, as_int, as_list, as_text, get_path
from ..objects import Workload
from ..quantities import (
    Amounts,
    compute_limits,
    compute_requests,
    format_quantity,
    parse_quantity,
    read_limits,
    read_requests,
)

_DEMANDED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""What every container has to state where a quota limits it, or the server refuses its pod."""
_WITHOUT_PREFIX = ("cpu", "memory", "ephemeral-storage")
"""Requests that a quota may also name without ``requests.``; huge pages too."""


def find_quota_blockers(
    workload: Workload,
    replicas: int,
    quotas: t.Sequence[Json],
    *,
    limit_ranges: t.Sequence[Json] = (),
    claims: t.Collection[str] = (),
) -> list[Blocker]:
    """Return the quotas that refuse the additional pods of the workload, and those that have too little left for them.

    ``limit_ranges`` are the namespace's, whose defaults count. ``claims`` are the names of the volume claims that are
    there already: of the others that the pods need, each counts.
    """
    extra = replicas - workload.pods
    if extra <= 0:
        return []
    spec = as_dict(workload.template.get("spec"))
    for_pods = {name: amount * extra for name, amount in _count_pod(spec, limit_ranges).items()}
    for_claims = _count_claims(workload, replicas, claims)
    blockers: list[Blocker] = []
    for quota in quotas:
        name = f"ResourceQuota {workload.namespace}/{as_text(get_path(quota, 'metadata', 'name'))}"
        hard = _read_hard(quota)
        used = as_dict(get_path(quota, "status", "used"))
        needs = {} if _has_scopes(quota) else dict(for_claims)
        if _is_about_pods(quota, spec, limit_ranges):
            needs.update(for_pods)
            blockers += _find_unstated(workload, spec, limit_ranges, name, hard)
        for resource, limit in hard.items():
            wanted = needs.get(resource, Decimal(0))
            free = max(parse_quantity(limit) - parse_quantity(used.get(resource, 0)), Decimal(0))
            if wanted > free:
                blockers.append(
                    Blocker(
                        object=workload.title,
                        what=(
                            f"{extra} more {'pod needs' if extra == 1 else 'pods need'} {format_quantity(wanted)} of"
                            f" {resource}; {name} has {format_quantity(free)} of {limit} left"
                        ),
                        holder=name,
                        next_step="Raise that quota or lower max_replicas",
                    )
                )
    return blockers


def is_about_claims(workload: Workload, replicas: int, quotas: t.Sequence[Json]) -> bool:
    """Return whether a quota limits volume claims that more pods of the workload may need."""
    needs = _count_claims(workload, replicas, ()) if replicas > workload.pods else {}
    return any(not needs.keys().isdisjoint(_read_hard(quota)) for quota in quotas if not _has_scopes(quota))


def _read_hard(quota: Json) -> Json:
    return as_dict(get_path(quota, "status", "hard")) or as_dict(get_path(quota, "spec", "hard"))


def find_rollout_quota_blockers(
    workload: Workload,
    template: Json,
    quotas: t.Sequence[Json],
    *,
    limit_ranges: t.Sequence[Json] = (),
    unavailable: int,
) -> list[Blocker]:
    """Return the quotas that leave no room for a first pod of this template, or not for as many as there are.

    ``unavailable`` is how many old pods go before a new one comes.
    """
    if not workload.replicas:
        return []
    spec, old = as_dict(template.get("spec")), as_dict(workload.template.get("spec"))
    need, freed = _count_pod(spec, limit_ranges), _count_pod(old, limit_ranges)
    blockers: list[Blocker] = []
    for quota in quotas:
        if not _is_about_pods(quota, spec, limit_ranges):
            continue
        name = f"ResourceQuota {workload.namespace}/{as_text(get_path(quota, 'metadata', 'name'))}"
        hard = _read_hard(quota)
        used = as_dict(get_path(quota, "status", "used"))
        is_about_old = _is_about_pods(quota, old, limit_ranges)
        blockers += _find_unstated(workload, spec, limit_ranges, name, hard)
        for resource, limit in hard.items():
            wanted = need.get(resource, Decimal(0))
            of_old = freed.get(resource, Decimal(0)) if is_about_old else Decimal(0)
            free = parse_quantity(limit) - parse_quantity(used.get(resource, 0))
            room = free + of_old * min(unavailable, workload.pods)
            all_wanted, all_room = wanted * workload.replicas, free + of_old * workload.pods
            if wanted <= room and all_wanted <= all_room:
                continue
            count, amount, left = (1, wanted, room) if wanted > room else (workload.replicas, all_wanted, all_room)
            blockers.append(
                Blocker(
                    object=workload.title,
                    what=(
                        f"{format_count(count, 'new pod')} {'needs' if count == 1 else 'need'} {format_quantity(amount)} of"
                        f" {resource}; {name} has {format_quantity(max(left, Decimal(0)))} of {limit} left for that"
                    ),
                    holder=name,
                    next_step="Raise that quota or lower the requests",
                )
            )
    return blockers


def _count_pod(spec: Json, limit_ranges: t.Sequence[Json]) -> Amounts:
    """Return what one pod counts for, by the names that a quota uses."""
    needs = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for resource, amount in compute_requests(spec, limit_ranges).items():
        needs[f"requests.{resource}"] = amount
        if resource in _WITHOUT_PREFIX or resource.startswith("hugepages-"):
            needs[resource] = amount
    for resource, amount in compute_limits(spec, limit_ranges).items():
        needs[f"limits.{resource}"] = amount
    return needs


def _count_claims(workload: Workload, replicas: int, claims: t.Collection[str]) -> Amounts:
    """Return what the volume claims count for that the pods need and that are not there yet."""
    needs: Amounts = {}
    first = as_int(get_path(workload.raw, "spec", "ordinals", "start"))
    for template in as_list(get_path(workload.raw, "spec", "volumeClaimTemplates")):
        name = as_text(get_path(template, "metadata", "name"))
        new = [n for n in range(first, first + replicas) if f"{name}-{workload.name}-{n}" not in claims]
        storage = parse_quantity(get_path(template, "spec", "resources", "requests", "storage") or 0) * len(new)
        storage_class = get_path(template, "spec", "storageClassName")
        prefixes = ["", f"{storage_class}.storageclass.storage.k8s.io/"] if storage_class else [""]
        counts = {"count/persistentvolumeclaims": Decimal(len(new))}
        for prefix in prefixes:
            counts[f"{prefix}persistentvolumeclaims"] = Decimal(len(new))
            counts[f"{prefix}requests.storage"] = storage
        for resource, amount in counts.items():
            needs[resource] = needs.get(resource, Decimal(0)) + amount
    return needs


def _has_scopes(quota: Json) -> bool:
    return bool(get_path(quota, "spec", "scopes") or get_path(quota, "spec", "scopeSelector", "matchExpressions"))


def _is_about_pods(quota: Json, spec: Json, limit_ranges: t.Sequence[Json]) -> bool:
    """Return whether all scopes of the quota hold for such a pod."""
    requirements: list[Json] = [
        {"scopeName": scope, "operator": "Exists"} for scope in as_list(get_path(quota, "spec", "scopes"))
    ]
    requirements += as_list(get_path(quota, "spec", "scopeSelector", "matchExpressions"))
    return all(_is_in_scope(requirement, spec, limit_ranges) for requirement in requirements)


def _is_in_scope(requirement: Json, spec: Json, limit_ranges: t.Sequence[Json]) -> bool:
    """Return whether one scope holds. One that is not about pods, or not known, never does."""
    scope = requirement.get("scopeName")
    if scope in ("Terminating", "NotTerminating"):
        return (scope == "Terminating") is (spec.get("activeDeadlineSeconds") is not None)
    if scope in ("BestEffort", "NotBestEffort"):
        return (scope == "BestEffort") is _is_best_effort(spec, limit_ranges)
    if scope == "PriorityClass":
        return _is_of_priority(requirement, as_text(spec.get("priorityClassName")))
    if scope == "CrossNamespacePodAffinity":
        return _has_foreign_affinity(spec)
    return False


def _is_of_priority(requirement: Json, priority: str) -> bool:
    operator, values = requirement.get("operator"), as_list(requirement.get("values"))
    if operator == "In":
        return priority in values
    if operator == "NotIn":
        return priority not in values
    return (operator == "Exists") is bool(priority)


def _is_best_effort(spec: Json, limit_ranges: t.Sequence[Json]) -> bool:
    """Return whether neither the pod nor a container of it asks for processor time or memory."""
    level = as_dict(spec.get("resources"))
    stated = {**as_dict(level.get("limits")), **as_dict(level.get("requests"))}
    amounts = [parse_quantity(amount) for name, amount in stated.items() if name in ("cpu", "memory")]
    for container in _list_containers(spec):
        for read in (read_requests, read_limits):
            amounts += [amount for name, amount in read(container, limit_ranges).items() if name in ("cpu", "memory")]
    return not any(amounts)


def _has_foreign_affinity(spec: Json) -> bool:
    """Return whether the pod looks at pods of other namespaces for its place."""
    for kind in ("podAffinity", "podAntiAffinity"):
        affinity = as_dict(get_path(spec, "affinity", kind))
        terms = [
            *as_list(affinity.get("requiredDuringSchedulingIgnoredDuringExecution")),
            *(
                get_path(weighted, "podAffinityTerm")
                for weighted in as_list(affinity.get("preferredDuringSchedulingIgnoredDuringExecution"))
            ),
        ]
        if any(get_path(term, "namespaces") or get_path(term, "namespaceSelector") is not None for term in terms):
            return True
    return False


def _list_containers(spec: Json) -> list[Json]:
    return [*as_list(spec.get("containers")), *as_list(spec.get("initContainers"))]


def _find_unstated(
    workload: Workload, spec: Json, limit_ranges: t.Sequence[Json], quota: str, hard: Json
) -> list[Blocker]:
    """Return what the quota demands of each container and one of them does not state. The pod's own resources do too."""
    if as_dict(spec.get("resources")):
        return []
    missing: dict[str, list[str]] = {}
    for container in _list_containers(spec):
        stated = set()
        for resource in read_requests(container, limit_ranges):
            stated |= {resource, f"requests.{resource}"}
        stated |= {f"limits.{resource}" for resource in read_limits(container, limit_ranges)}
        for resource in _DEMANDED:
            if resource in hard and resource not in stated:
                missing.setdefault(resource, []).append(as_text(container.get("name")))
    return [
        Blocker(
            object=workload.title,
            what=(
                f"{quota} limits {resource}, and {format_count(len(names), 'container')}"
                f" ({join_some(names)}) of its pods state none, so that the server refuses them"
            ),
            holder=quota,
            next_step=f"Set {resource} for each container, or a default in a LimitRange",
        )
        for resource, names in missing.items()
    ]
