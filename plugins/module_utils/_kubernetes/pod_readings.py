# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the pods of a workload for metrics, and judge each sample against its bounds. A pod that does not answer is told.

The container is the one that listens on the port: a sidecar is asked at its own port, whatever programs its image has.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import typing as t

from .._common.errors import Refusal
from .._common.text import format_count
from .client import Client
from .errors import Forbidden
from .fields import as_list, as_text, get_path
from .objects import Pod
from .pod_proxy import Place, ask_text, parse_place
from .readings import Sample, UnreadableAnswer, format_number, format_sample, parse_series, select_samples, shorten
from .reasons import Verdict, make_verdict

SAMPLES_SHOWN = 5
"""Samples of one pod beyond a bound that a verdict shows, and at most so many of it are in the result."""


class Metric(t.NamedTuple):
    """What each pod is asked for: the samples of a series at a place, none of which may be beyond the bounds."""

    name: str
    place: Place
    metric: str
    labels: dict[str, str]
    limit: float
    minimum: float


class PodReading(t.NamedTuple):
    """What one pod answered: its samples, those beyond a bound first; or why there is none."""

    pod: str
    container: str
    samples: tuple[Sample, ...] = ()
    problem: str = ""

    def as_dict(self, name: str) -> dict[str, t.Any]:
        """Return plain values for a result."""
        shown = [
            {"series": format_sample(sample), "value": sample.value if math.isfinite(sample.value) else None}
            for sample in self.samples[:SAMPLES_SHOWN]
        ]
        return {
            "name": name,
            "pod": self.pod,
            "container": self.container or None,
            "samples": shown,
            "count": len(self.samples),
            "problem": self.problem,
        }


class Answers(t.NamedTuple):
    """What all pods answered for one metric. ``denied`` is the right that is lacking, in words."""

    metric: Metric
    pods: tuple[PodReading, ...]
    denied: str = ""


def parse_metrics(entries: t.Iterable[t.Mapping[str, t.Any]], *, kind: str, workload: str) -> list[Metric]:
    """Return the entries of the option readings. Raises Refusal for one without a bound, or whose metric is none."""
    metrics: list[Metric] = []
    for entry in entries:
        obj = f"reading {entry['name']}"
        limit, minimum = entry.get("limit"), entry.get("min")
        bounds = [bound for bound in (limit, minimum) if bound is not None]
        if not bounds or not all(math.isfinite(bound) for bound in bounds):
            raise Refusal(
                obj=obj,
                problem=f"limit {limit} and min {minimum} bound nothing",
                next_step="Give limit, min or both as numbers",
            )
        if limit is not None and minimum is not None and minimum > limit:
            raise Refusal(
                obj=obj, problem=f"its min {minimum:g} is above its limit {limit:g}", next_step="Exchange them"
            )
        try:
            metric, labels = parse_series(str(entry["metric"]))
        except UnreadableAnswer as error:
            raise Refusal(
                obj=obj,
                problem=f"its metric {entry['metric']!r} is no name with labels",
                next_step='Write it as in the answer of the pod, such as requests_active{cluster="db"}',
            ) from error
        place = parse_place("readings", {**entry, "kind": kind, "name": workload})
        metrics.append(
            Metric(
                name=str(entry["name"]),
                place=place,
                metric=metric,
                labels=labels,
                limit=math.inf if limit is None else float(limit),
                minimum=-math.inf if minimum is None else float(minimum),
            )
        )
    return metrics


def ask_pods(client: Client, pods: t.Iterable[Pod], metrics: t.Sequence[Metric]) -> list[Answers]:
    """Ask each pod that is not about to end, once for each place, and return what came for each metric."""
    asked = [pod for pod in pods if not pod.is_terminating]
    readings: dict[int, list[PodReading]] = {number: [] for number in range(len(metrics))}
    denied = ""
    for pod in asked:
        texts: dict[Place, tuple[str, str]] = {}
        for number, metric in enumerate(metrics):
            if metric.place not in texts:
                text, problem = "", denied
                if not denied:
                    try:
                        text = ask_text(client, pod, metric.place, expected=200)
                    except UnreadableAnswer as error:
                        problem = str(error)
                    except Forbidden as error:
                        denied = problem = f"{error.problem}; {error.next_step}"
                texts[metric.place] = text, problem
            readings[number].append(_read(pod, metric, *texts[metric.place]))
    return [Answers(metric, tuple(readings[number]), denied) for number, metric in enumerate(metrics)]


def _read(pod: Pod, metric: Metric, text: str, problem: str) -> PodReading:
    container = _find_container(pod, metric.place.port)
    if not problem:
        try:
            samples = select_samples(text, metric.metric, metric.labels)
        except UnreadableAnswer as error:
            problem = str(error)
        else:
            undefined = [sample for sample in samples if math.isnan(sample.value)]
            if undefined:
                return PodReading(
                    pod.title, container, problem=f"{format_sample(undefined[0])} is NaN, which is no number"
                )
            ordered = sorted(samples, key=lambda sample: -_measure_excess(metric, sample.value))
            return PodReading(pod.title, container, tuple(ordered))
    return PodReading(pod.title, container, problem=shorten(problem, 400))


def _measure_excess(metric: Metric, value: float) -> float:
    """Return by how much a value is beyond its bounds; 0 within them."""
    if value > metric.limit:
        return value - metric.limit
    return metric.minimum - value if value < metric.minimum else 0.0


def _find_container(pod: Pod, port: str) -> str:
    """Return the name of the container that declares a port, by its number or name; empty where none does."""
    containers = as_list(get_path(pod.raw, "spec", "containers")) + as_list(get_path(pod.raw, "spec", "initContainers"))
    for container in containers:
        for entry in as_list(get_path(container, "ports")):
            if port in (str(entry.get("containerPort")), entry.get("name")):
                return as_text(container.get("name"))
    return ""


def judge_answers(answers: Answers) -> list[Verdict]:
    """Return the verdicts on samples beyond a bound, the worst pod's in words."""
    metric = answers.metric
    verdicts: list[Verdict] = []
    for reason, bound, words, sign in (
        ("observation_above_limit", metric.limit, "above its limit of", 1),
        ("observation_below_minimum", metric.minimum, "below its minimum of", -1),
    ):
        beyond = [
            (sample, reading)
            for reading in answers.pods
            for sample in reading.samples
            if sign * sample.value > sign * bound
        ]
        if not beyond:
            continue
        beyond.sort(key=lambda entry: (-_measure_excess(metric, entry[0].value), entry[1].pod))
        sample, reading = beyond[0]
        pods = {other.pod for _sample, other in beyond}
        others = f"; {format_count(len(pods) - 1, 'other pod')} alike" if len(pods) > 1 else ""
        message = f"{reading.pod}: {format_sample(sample)} is {format_number(sample.value)}, {words} {bound:g}{others}"
        lines = [f"{other.pod}: {format_sample(each)} {format_number(each.value)}" for each, other in beyond]
        verdicts.append(
            make_verdict(
                reason, metric.name, message, evidence=tuple(lines[:SAMPLES_SHOWN]), container=reading.container
            )
        )
    return verdicts


def judge_missing(answers: Answers, workload: str) -> list[Verdict]:
    """Return the finding that pods did not say what they were asked for: that is never taken for health."""
    metric = answers.metric
    if not answers.pods:
        message = f"no pod of {workload} runs that could be asked for it"
        return [make_verdict("reading_missing", metric.name, message)]
    silent = [reading for reading in answers.pods if reading.problem]
    if not silent:
        return []
    others = f"; {format_count(len(silent) - 1, 'other pod')} alike" if len(silent) > 1 else ""
    message = f"{silent[0].pod}: port {metric.place.port}, {metric.place.path}: {silent[0].problem}{others}"
    lines = tuple(f"{reading.pod}: {reading.problem}" for reading in silent[:SAMPLES_SHOWN])
    return [
        make_verdict("reading_missing", metric.name, message, evidence=lines, container=silent[0].container),
    ]
