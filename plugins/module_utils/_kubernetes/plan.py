# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about replicas, without I/O. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import math
import typing as t

from .._common.errors import Refusal


class Rule(t.NamedTuple):
    """How partitions become replicas: the options of k8s_scale_to_partitions that decide it."""

    combine: str = "max"
    min_replicas: int = 1
    max_replicas: int | None = None
    even_divisors_only: bool = False


class Target(t.NamedTuple):
    """The wanted number of replicas, the partitions that it follows from, and the reason in words."""

    replicas: int
    partitions: int
    why: str


def checked_counts(counts: t.Mapping[str, t.Any], topics: t.Sequence[str]) -> dict[str, int]:
    """The partition count of each topic; a Refusal when one is missing, null, zero, negative or not a number."""
    if not topics:
        raise Refusal(
            obj="option topics", problem="it names no topic", next_step="Name the topics that the workload consumes"
        )
    result: dict[str, int] = {}
    for topic in topics:
        if topic not in counts:
            raise Refusal(
                obj=f"topic {topic!r}",
                problem=f"no partition count is known for it; known are {', '.join(sorted(counts)) or 'none'}",
                next_step="Correct the name of the topic or the option partitions; nothing has been scaled",
            )
        result[topic] = checked_count(counts[topic], f"topic {topic!r}")
    return result


def checked_count(value: t.Any, obj: str) -> int:
    """A partition count of at least 1 from a number or its decimal text; anything else is a Refusal, never a number.

    Text with a carriage return is refused too: it is what a terminal adds, and what came through one is not to be trusted.
    """
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        seen = "null" if value is None else repr(value)
        raise Refusal(
            obj=obj,
            problem=f"its partition count is {seen}, which is not a whole number of at least 1",
            next_step="Check that the topic exists and how its partitions were read; nothing has been scaled",
        )
    return number


def target_replicas(counts: t.Mapping[str, int], rule: Rule) -> Target:
    """The replicas for these partition counts: never 0, never above the max_replicas.

    With ``even_divisors_only`` every replica gets the same share: the result divides each topic's count (combine max), or
    their sum (combine sum).
    """
    max_replicas = rule.max_replicas
    if rule.min_replicas < 1 or (max_replicas is not None and max_replicas < rule.min_replicas):
        raise Refusal(
            obj="options min_replicas and max_replicas",
            problem=f"min_replicas is {rule.min_replicas} and max_replicas is {max_replicas}",
            next_step="Use 1 <= min_replicas <= max_replicas",
        )
    partitions = sum(counts.values()) if rule.combine == "sum" else max(counts.values())
    why = f"{rule.combine} of {_words(counts)}" if len(counts) > 1 else _words(counts)
    replicas = partitions
    if max_replicas is not None and replicas > max_replicas:
        replicas, why = max_replicas, f"{why}, at most {max_replicas} (max_replicas)"
    if rule.even_divisors_only:
        divided = partitions if rule.combine == "sum" else math.gcd(*counts.values())
        divisors = [n for n in range(1, min(replicas, divided) + 1) if divided % n == 0]
        if divisors[-1] < rule.min_replicas:
            raise Refusal(
                obj=", ".join(f"topic {topic!r}" for topic in counts),
                problem=f"no even divisor of {divided} lies between min_replicas {rule.min_replicas} and {replicas}",
                next_step="Lower min_replicas, raise max_replicas, or set even_divisors_only to false",
            )
        if divisors[-1] != replicas:
            replicas, why = divisors[-1], f"{why}, largest even divisor of {divided}"
    if replicas < rule.min_replicas:
        replicas, why = rule.min_replicas, f"{why}, at least {rule.min_replicas} (min_replicas)"
    return Target(replicas=replicas, partitions=partitions, why=why)


def _words(counts: t.Mapping[str, int]) -> str:
    return ", ".join(
        f"{topic} has {count} partition{'s' if count > 1 else ''}" for topic, count in sorted(counts.items())
    )


def with_direction(current: int, target: Target, *, allow_scale_down: bool) -> int:
    """The replicas to go to from ``current``: fewer only where that is allowed."""
    return target.replicas if allow_scale_down else max(current, target.replicas)
