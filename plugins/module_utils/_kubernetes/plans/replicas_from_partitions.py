# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many replicas the partitions of topics ask for, and the write that a workload needs for it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import typing as t

from ..._common.errors import Refusal
from ..._common.text import format_count
from ..fields import Json
from ..objects import Workload
from ..patches import Write
from ..saved_state import (
    STOP,
    STOPPED,
    SavedState,
    SavedStop,
    drop_state,
    list_scale_paths,
    read_stop,
    will_delete_claims,
)

_ANNOTATION = ("metadata", "annotations", STOPPED)


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
    reason: str


class Scaling(t.NamedTuple):
    """What the workload needs: a write (None: nothing), its replicas before and after, and the reason.

    ``before`` counts a workload that was stopped as 0. ``is_left``: it was at 0 before it was stopped, and stays so.
    ``reversible``: False where the write makes the controller delete volume claims.
    """

    write: Write | None
    before: int
    after: int
    reason: str
    is_left: bool = False
    reversible: bool = True


def read_given_counts(partitions: t.Any, topics: t.Sequence[str]) -> dict[str, int]:
    """Return the partition counts that were passed as data: a mapping, or one number for one topic. Else a Refusal."""
    if partitions is None:
        raise Refusal(
            obj="options partitions and kafka_connection",
            problem="neither of them is set, so that the number of partitions is not known",
            next_step="Set partitions, or kafka_connection to read them from Kafka; nothing has been scaled",
        )
    if isinstance(partitions, dict):
        return check_counts(partitions, topics or sorted(partitions))
    if len(topics) > 1:
        raise Refusal(
            obj="option partitions",
            problem=f"it is the one value {partitions!r} for the {len(topics)} topics {', '.join(topics)}",
            next_step="Give a mapping of topic to number of partitions",
        )
    name = topics[0] if topics else "the topic"
    return {name: check_count(partitions, f"topic {name!r}" if topics else "option partitions")}


def check_counts(counts: t.Mapping[str, t.Any], topics: t.Sequence[str]) -> dict[str, int]:
    """Return the partition count of each topic; a Refusal when one is missing, null, zero, negative or not a number."""
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
        result[topic] = check_count(counts[topic], f"topic {topic!r}")
    return result


def check_count(value: t.Any, obj: str) -> int:
    """Return a partition count of at least 1 from a number or its decimal text; anything else is a Refusal.

    Text with a carriage return is refused too: it is what a terminal adds, and what came through one is not to be
    trusted.
    """
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        shown = "null" if value is None else repr(value)
        raise Refusal(
            obj=obj,
            problem=f"its partition count is {shown}, which is not a whole number of at least 1",
            next_step="Check that the topic exists and how its partitions were read; nothing has been scaled",
        )
    return number


def compute_target(counts: t.Mapping[str, int], rule: Rule) -> Target:
    """Return the replicas for these partition counts: never 0, never above max_replicas.

    With ``even_divisors_only`` every replica gets the same share: the result divides each topic's count (combine max),
    or their sum (combine sum).
    """
    max_replicas = rule.max_replicas
    if rule.min_replicas < 1 or (max_replicas is not None and max_replicas < rule.min_replicas):
        raise Refusal(
            obj="options min_replicas and max_replicas",
            problem=f"min_replicas is {rule.min_replicas} and max_replicas is {max_replicas}",
            next_step="Use 1 <= min_replicas <= max_replicas",
        )
    partitions = sum(counts.values()) if rule.combine == "sum" else max(counts.values())
    reason = f"{rule.combine} of {_describe_counts(counts)}" if len(counts) > 1 else _describe_counts(counts)
    replicas = partitions
    if max_replicas is not None and replicas > max_replicas:
        replicas, reason = max_replicas, f"{reason}, at most {max_replicas} (max_replicas)"
    if rule.even_divisors_only:
        divided = partitions if rule.combine == "sum" else math.gcd(*counts.values())
        largest = max(number for number in range(1, min(replicas, divided) + 1) if divided % number == 0)
        if largest < rule.min_replicas:
            raise Refusal(
                obj=", ".join(f"topic {topic!r}" for topic in counts),
                problem=f"no even divisor of {divided} lies between min_replicas {rule.min_replicas} and {replicas}",
                next_step="Lower min_replicas, raise max_replicas, or set even_divisors_only to false",
            )
        if largest != replicas:
            replicas, reason = largest, f"{reason}, largest even divisor of {divided}"
    if replicas < rule.min_replicas:
        replicas, reason = rule.min_replicas, f"{reason}, at least {rule.min_replicas} (min_replicas)"
    return Target(replicas=replicas, partitions=partitions, reason=reason)


def _describe_counts(counts: t.Mapping[str, int]) -> str:
    return ", ".join(f"{topic} has {format_count(count, 'partition')}" for topic, count in sorted(counts.items()))


def limit_direction(current: int, target: Target, *, allow_scale_down: bool) -> int:
    """Return the replicas to go to from ``current``: fewer only where that is allowed."""
    return target.replicas if allow_scale_down else max(current, target.replicas)


def plan_scale(
    workload: Workload,
    target: Target,
    *,
    allow_scale_down: bool,
    start_stopped: bool,
    assume_stopped: bool = False,
    fallback: SavedState | None = None,
    pausing_runs: t.Collection[str] | None = None,
) -> Scaling:
    """Plan to give the workload the target's replicas, and to drop what a stop saved on it.

    One that a run has stopped is refused unless ``start_stopped``; it counts as having what it had then. Where that
    was 0, it stays at 0. ``fallback`` is what was saved on its ScaledObject, for a workload on which nothing was saved, and
    ``pausing_runs`` as for ``read_stop``.
    With ``assume_stopped`` it is taken for one that was stopped as it is now. Refusal where it is stopped and what was
    saved cannot be read.
    """
    saved = read_stop(workload, pausing_runs=pausing_runs)
    if saved.problem and workload.replicas == 0:
        raise Refusal(
            obj=workload.title,
            problem=saved.problem,
            next_step=f"Remove the annotation {STOPPED} if it is not needed",
        )
    state = saved.state or (fallback if saved.stale is None and workload.replicas == 0 else None)
    current = workload.replicas
    if state is not None:
        current = state.replicas or 0
        if not start_stopped:
            raise Refusal(
                obj=workload.title,
                problem=(
                    f"it was stopped on purpose by run {state.run_id} at {state.at}, when it had"
                    f" {format_count(current, 'replica')}"
                ),
                next_step="Start it with the role startup or k8s_workload, or set start_stopped to true",
            )
        if current == 0:
            reason = f"it was at 0 replicas before run {state.run_id} at {state.at}, and stays so"
            return Scaling(_write(workload, saved, 0), 0, 0, reason, is_left=True)
    elif assume_stopped and current == 0:
        reason = "it is stopped now, and stays so (assumed to be stopped by then)"
        return Scaling(Write({}), 0, 0, reason, is_left=True)
    elif assume_stopped and not start_stopped:
        raise Refusal(
            obj=workload.title,
            problem="it will be stopped by then, as the option assume says, and what was stopped on purpose is not scaled",
            next_step="Scale it after the step that starts it, or set start_stopped to true",
        )
    replicas = limit_direction(current, target, allow_scale_down=allow_scale_down)
    before = 0 if assume_stopped else workload.replicas
    return Scaling(
        _write(workload, saved, replicas),
        before,
        replicas,
        target.reason,
        reversible=not will_delete_claims(workload, replicas),
    )


def _write(workload: Workload, saved: SavedStop, replicas: int) -> Write | None:
    body: Json = {}
    if replicas != workload.replicas:
        body["spec"] = {"replicas": replicas}
    drop = drop_state(workload.annotations, STOPPED, STOP) if saved != SavedStop() else {}
    if drop:
        body["metadata"] = {"annotations": drop}
    return Write(body, (*list_scale_paths(workload.kind), _ANNOTATION)) if body else None
