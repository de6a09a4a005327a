# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and words in what a pod answers: a metric in Prometheus' text format, a field of JSON, the whole body.

Private to lowtide.ops: do not import from other collections.

Source: Prometheus, "Exposition formats", text-based format 0.0.4.
"""

from __future__ import annotations

import json
import math
import re
import typing as t

from .._common.redaction import Redactor

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|(?=\}))')
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n"}
SHOWN = 120
"""Characters of an answer that are shown in a message."""
LONGEST = 65536
"""Characters of an answer in which secrets are looked for, before it is shortened."""
REDACTOR = Redactor()
"""What a pod answers is its own business: no value is known to be secret, they are found by their names and forms."""


class UnreadableAnswer(ValueError):
    """An answer in which what was asked for is not, or is no number."""


class Sample(t.NamedTuple):
    """One line of Prometheus' text format."""

    name: str
    labels: dict[str, str]
    value: float


def read_samples(text: str) -> list[Sample]:
    """Return all samples of an exposition. Raises UnreadableAnswer for a line that is none."""
    lines = [line.strip() for line in text.splitlines()]
    try:
        return [_read_sample(line) for line in lines if line and not line.startswith("#")]
    except UnreadableAnswer as error:
        # A line may be of a secret of several, which shows only in all of the answer.
        redacted = REDACTOR.redact(text[:LONGEST])
        if all(line in redacted for line in lines):
            raise
        raise UnreadableAnswer(f"{shorten(text)!r} is not Prometheus' text format") from error


def _read_sample(line: str) -> Sample:
    name = _NAME.match(line)
    if name is None:
        raise UnreadableAnswer(f"{shorten(line)!r} is no line of Prometheus' text format")
    rest = line[name.end() :].lstrip()
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        labels, rest = _read_labels(rest, line)
    words = rest.split()
    if len(words) not in (1, 2):  # the value, and perhaps a time
        raise UnreadableAnswer(f"{shorten(line)!r} is no line of Prometheus' text format")
    return Sample(name.group(), labels, _read_number(words[0], line))


def _read_labels(rest: str, line: str) -> tuple[dict[str, str], str]:
    labels: dict[str, str] = {}
    place = 1
    while not rest[place:].lstrip().startswith("}"):
        label = _LABEL.match(rest, place)
        if label is None:
            raise UnreadableAnswer(f"{shorten(line)!r} is no line of Prometheus' text format")
        labels[label[1]] = _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), label[2])
        place = label.end()
    return labels, rest[place:].lstrip()[1:]


def _read_number(word: str, where: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise UnreadableAnswer(f"{shorten(where)!r} has no number") from error


def sum_metric(text: str, name: str, labels: t.Mapping[str, str]) -> float:
    """Return the sum over the samples of a metric that have these labels. Raises UnreadableAnswer when there is none.

    That there is none is no zero: a metric that was renamed would otherwise prove anything.
    """
    samples = [sample for sample in read_samples(text) if sample.name == name]
    chosen = [sample for sample in samples if labels.items() <= sample.labels.items()]
    if not chosen:
        described = f"metric {name}" + (f" with the labels {dict(labels)}" if labels else "")
        raise UnreadableAnswer(f"it has no {described}")
    return _check_finite(math.fsum(sample.value for sample in chosen), name)


def read_field(text: str, field: str) -> float:
    """Return the number in a field of a JSON object, its keys joined by dots. Raises UnreadableAnswer."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UnreadableAnswer(f"{shorten(text)!r} is not JSON") from error
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise UnreadableAnswer(f"{shorten(text)!r} has no field {field}")
        value = value[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableAnswer(f"its field {field} is {shorten(repr(_redact_value(field, value)))}, which is no number")
    return _check_finite(float(value), field)


def _redact_value(field: str, value: t.Any) -> t.Any:
    """Return the value of a field without secrets: whether it is one may show only from the field's name."""
    key = field.rpartition(".")[2]
    return REDACTOR.redact_document({key: value})[key]


def read_body(text: str) -> float:
    """Return the number that is all of an answer. Raises UnreadableAnswer."""
    return _check_finite(_read_number(text.strip(), text), "its number")


def _check_finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise UnreadableAnswer(f"{name} is {value}, which is no count")
    return value


def format_number(value: float) -> str:
    """Return a number without a fraction where it has none: ``3``, ``0.5``."""
    return str(int(value)) if value.is_integer() else str(value)


def shorten(text: str) -> str:
    """Return the first characters of a text, as one line without secrets, with three dots where there are more."""
    line = " ".join(REDACTOR.redact(text[:LONGEST]).split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
