# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the answer to a query is within its limits. What is not known is not within them.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import typing as t

from .._common.errors import Refusal
from .._common.text import join_some

Json = dict[str, t.Any]


class Query(t.NamedTuple):
    """An expression and what its values may be. ``min_series``: how many series there must be at least."""

    name: str
    text: str
    minimum: float | None = None
    maximum: float | None = None
    min_series: int = 1

    @property
    def limits(self) -> str:
        """The limits in words."""
        words = [] if self.minimum is None else [f"at least {self.minimum:g}"]
        return " and ".join(words if self.maximum is None else [*words, f"at most {self.maximum:g}"])


class Sample(t.NamedTuple):
    """A value with its labels as PromQL writes them, empty where it has none."""

    labels: str
    value: float


class Answer(t.NamedTuple):
    """What was answered to a query: samples, or why there are none."""

    query: Query
    samples: tuple[Sample, ...] = ()
    error: str = ""


class Breach(t.NamedTuple):
    """What is not within limits: the query, of which series, and why."""

    query: Query
    series: str
    problem: str

    @property
    def title(self) -> str:
        """The object of a message."""
        return f"query {self.query.name}{' ' if self.series else ''}{self.series}"

    def __str__(self) -> str:
        return f"{self.title}: {self.problem}"


def read_queries(options: t.Sequence[t.Mapping[str, t.Any]]) -> list[Query]:
    """Return the queries of the option. Raises Refusal for a limit that no value meets, and for a name given twice."""
    queries = [Query(o["name"], o["query"], o["min"], o["max"], o["min_series"]) for o in options]
    if not queries:
        raise Refusal(
            obj="option queries", problem="it is empty, so that nothing would be judged", next_step="Give a query"
        )
    for position, query in enumerate(queries):
        obj = f"option queries, {query.name}"
        if query.name in {earlier.name for earlier in queries[:position]}:
            raise Refusal(obj=obj, problem="there are two queries of this name", next_step="Give each its own")
        if query.minimum is None and query.maximum is None:
            raise Refusal(
                obj=obj, problem="it has neither min nor max", next_step="Set the limit that its values must keep"
            )
        if query.minimum is not None and query.maximum is not None and query.minimum > query.maximum:
            problem = f"no value is {query.limits}"
            raise Refusal(obj=obj, problem=problem, next_step="Correct min or max")
        if query.min_series < 1:
            problem = f"min_series is {query.min_series}, and an answer without a series is never within limits"
            raise Refusal(obj=obj, problem=problem, next_step="Set min_series to 1 or more")
    return queries


def read_answer(query: Query, data: t.Any) -> Answer:
    """Return the samples in ``data`` of an answer of the API. Raises Refusal for a result that cannot be judged."""
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar":
        return Answer(query, (Sample("", _read_value(result)),))
    if kind != "vector" or not isinstance(result, list):
        raise Refusal(
            obj=f"query {query.name}",
            problem=f"its result is of type {kind}, of which no value can be judged",
            next_step="Write an expression whose result is an instant vector or a scalar",
        )
    samples = []
    for entry in result:
        if "value" not in entry:
            raise Refusal(
                obj=f"query {query.name} {format_labels(entry.get('metric') or {})}",
                problem="it is a native histogram and not a number",
                next_step="Make a number of it, such as by histogram_quantile",
            )
        samples.append(Sample(format_labels(entry.get("metric") or {}), _read_value(entry["value"])))
    return Answer(query, tuple(samples))


def _read_value(pair: t.Any) -> float:
    try:
        return float(pair[1])
    except (TypeError, ValueError, IndexError, KeyError):
        return math.nan


def format_labels(labels: t.Mapping[str, t.Any]) -> str:
    """Return labels as PromQL writes them: ``up{job="api"}``."""
    pairs = ", ".join(f'{key}="{labels[key]}"' for key in sorted(labels) if key != "__name__")
    name = str(labels.get("__name__", ""))
    return f"{name}{{{pairs}}}" if pairs else name


def find_breaches(answers: t.Iterable[Answer]) -> list[Breach]:
    """Return what is not within limits, in the order of the queries."""
    return [breach for answer in answers for breach in _judge(answer)]


def _judge(answer: Answer) -> list[Breach]:
    query = answer.query
    if answer.error:
        return [Breach(query, "", f"its value is not known: {answer.error}")]
    breaches = [
        Breach(query, sample.labels, problem) for sample in answer.samples if (problem := _compare(query, sample))
    ]
    if not answer.samples:
        breaches.append(Breach(query, "", "there is no series, so that its value is not known"))
    elif len(answer.samples) < query.min_series:
        problem = f"it has {len(answer.samples)} series, fewer than min_series {query.min_series}"
        breaches.append(Breach(query, "", problem))
    return breaches


def _compare(query: Query, sample: Sample) -> str:
    value = sample.value
    if not math.isfinite(value):
        return f"its value is {value}, which is no number that could be within {query.limits}"
    if query.maximum is not None and value > query.maximum:
        return f"its value {value:g} is above max {query.maximum:g}"
    if query.minimum is not None and value < query.minimum:
        return f"its value {value:g} is below min {query.minimum:g}"
    return ""


def describe_answer(answer: Answer) -> list[str]:
    """Return a line of evidence for each sample, of many the outermost ones."""
    query = answer.query
    if answer.error:
        return [f"{query.name}: not known ({answer.error})"]
    ordered = sorted(answer.samples, key=lambda sample: sample.value if math.isfinite(sample.value) else math.inf)
    shown = ordered if len(ordered) <= 4 else [ordered[0], ordered[-1]]
    lines = [f"{query.name}{' ' if s.labels else ''}{s.labels}: {s.value:g} ({query.limits})" for s in shown]
    if len(shown) < len(ordered):
        lines.append(f"{query.name}: {len(ordered) - len(shown)} more series between these")
    return lines or [f"{query.name}: no series"]


def summarize_gate(
    answers: t.Sequence[Answer], breaches: t.Sequence[Breach], *, held: float = 0.0, check_mode: bool = False
) -> str:
    """Return one line that says whether the gate is open and why."""
    if breaches:
        return f"the gate is closed: {join_some([str(breach) for breach in breaches], limit=3)}"
    names = join_some([answer.query.name for answer in answers])
    if check_mode:
        return f"within limits now: {names}"
    return f"within limits{f' for {held:.0f} s' if held else ''}: {names}"
