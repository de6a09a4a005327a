# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the amounts of a pod template agree: with each other, with LimitRanges, and with the memory its runtimes take.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t
from decimal import Decimal

from ..._common.outcome import Blocker
from ..fields import Json, as_dict, as_list, as_text, get_path
from ..pod_templates import list_containers
from ..quantities import Amounts, format_quantity, parse_quantity, read_limits, read_requests

_HEAP = re.compile(r"-Xmx(\d+)([kmgKMG]?)", re.ASCII)
_GO_LIMIT = re.compile(r"(\d+)([KMGT]i)?B?", re.ASCII)
_JAVA_BEFORE = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS")
_JAVA_AFTER = "_JAVA_OPTIONS"
"""Where a JVM takes options from: before those of its command line, and after them. Of two the last one counts."""
RUNTIME_VARIABLES = frozenset({"GOMEMLIMIT", *_JAVA_BEFORE, _JAVA_AFTER})


def find_amount_blockers(
    title: str,
    template: Json,
    *,
    containers: t.Collection[str],
    limit_ranges: t.Sequence[Json] = (),
    sized: t.Collection[str] | None = None,
) -> list[Blocker]:
    """Return what is wrong with the amounts of these containers: the server would refuse it, or the kernel would.

    What a runtime is told counts only in ``sized`` containers, whose memory this change is about; else in all of them.
    """
    blockers: list[Blocker] = []
    for entry in list_containers(template):
        name = as_text(entry.get("name"))
        if name not in containers:
            continue
        requests, limits = read_requests(entry, limit_ranges), read_limits(entry, limit_ranges)
        problems = [
            (
                f"requests {format_quantity(amount)} of {resource} and is limited to {format_quantity(limits[resource])}",
                "",
            )
            for resource, amount in sorted(requests.items())
            if resource in limits and amount > limits[resource]
        ]
        problems += _find_range_problems(requests, limits, limit_ranges)
        if sized is None or name in sized:
            problems += [(words, "") for words in _find_runtime_problems(entry, limits)]
        blockers += [
            Blocker(
                object=title,
                what=f"container {name} {words}",
                holder=holder or "its pod template",
                next_step="Change that LimitRange or the amount" if holder else "Give requests and limits that agree",
            )
            for words, holder in problems
        ]
    return blockers


def list_runtime_warnings(
    title: str, template: Json, *, containers: t.Collection[str], limit_ranges: t.Sequence[Json] = ()
) -> list[str]:
    """Return what the runtimes of these containers have been told already, and the user should know of."""
    return [
        f"{title}: container {entry['name']} {words}, as before this change: it may be killed when its memory grows"
        for entry in list_containers(template)
        if entry.get("name") in containers
        for words in _find_runtime_problems(entry, read_limits(entry, limit_ranges))
    ]


def _find_range_problems(requests: Amounts, limits: Amounts, limit_ranges: t.Sequence[Json]) -> list[tuple[str, str]]:
    """Return which bounds of a LimitRange for containers are not kept, and whose they are."""
    problems: list[tuple[str, str]] = []
    for limit_range in limit_ranges:
        holder = f"LimitRange {as_text(get_path(limit_range, 'metadata', 'name'))}"
        for limit in as_list(get_path(limit_range, "spec", "limits")):
            if get_path(limit, "type") != "Container":
                continue
            for resource, bound in as_dict(limit.get("max")).items():
                amount = limits.get(resource)
                if amount is None or amount > parse_quantity(bound):
                    has = "no limit" if amount is None else format_quantity(amount)
                    problems.append((f"has {has} of {resource}, and {holder} allows at most {bound}", holder))
            for resource, bound in as_dict(limit.get("min")).items():
                amount = requests.get(resource)
                if amount is None or amount < parse_quantity(bound):
                    has = "no request" if amount is None else format_quantity(amount)
                    problems.append((f"has {has} of {resource}, and {holder} asks for at least {bound}", holder))
    return problems


def _find_runtime_problems(container: Json, limits: Amounts) -> list[str]:
    """Return which runtime is told to take more memory than the container may have: it would be killed."""
    limit = limits.get("memory")
    if limit is None:
        return []
    variables = {
        as_text(get_path(entry, "name")): as_text(get_path(entry, "value")) for entry in as_list(container.get("env"))
    }
    told: list[tuple[str, Decimal]] = []
    go = _GO_LIMIT.fullmatch(variables.get("GOMEMLIMIT", ""))
    if go is not None:
        told.append((f"GOMEMLIMIT={go[0]}", parse_quantity(go[1] + (go[2] or ""))))
    words = [variables.get(name, "") for name in _JAVA_BEFORE]
    words += [as_text(word) for part in ("command", "args") for word in as_list(container.get(part))]
    words.append(variables.get(_JAVA_AFTER, ""))
    for heap in list(_HEAP.finditer(" ".join(words)))[-1:]:
        unit = f"{heap[2].upper()}i" if heap[2] else ""
        told.append((heap[0], parse_quantity(heap[1] + unit)))
    return [
        f"is told {what}, and its memory limit is {format_quantity(limit)}" for what, amount in told if amount >= limit
    ]
