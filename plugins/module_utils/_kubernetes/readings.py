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
_HTML = re.compile(r"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
SHOWN = 120
"""Characters of an answer that are shown in a message."""
ADVISED = 5
"""Fields that are proposed at most."""
LONGEST = 65536
"""Characters of an answer in which secrets are looked for, before it is shortened."""
REDACTOR = Redactor()
"""What a pod answers is its own business: no value is known to be secret, they are found by their names and forms."""


class UnreadableAnswer(ValueError):
    """An answer in which what was asked for is not, or is no number.

    ``is_lasting`` says that waiting does not help, ``next_step`` what does.
    """

    def __init__(self, message: str, *, next_step: str = "", is_lasting: bool = True) -> None:
        super().__init__(message)
        self.next_step = next_step
        self.is_lasting = is_lasting


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


def parse_series(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the labels of a series as an exposition writes them. Raises UnreadableAnswer."""
    series = text.strip()
    name = _NAME.match(series)
    rest = series[name.end() :].lstrip() if name is not None else series
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        labels, rest = _read_labels(rest, series)
    if name is None or rest:
        raise UnreadableAnswer(f"{shorten(series)!r} is no name of a metric with labels")
    return name.group(), labels


def format_sample(sample: Sample) -> str:
    """Return the series of a sample as an exposition writes it, without its value."""
    labels = ",".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sample.labels.items())
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def select_samples(text: str, name: str, labels: t.Mapping[str, str]) -> list[Sample]:
    """Return the samples of a metric that have these labels. Raises UnreadableAnswer when there is none.

    That there is none is no zero: a metric that was renamed would otherwise prove anything.
    """
    if _HTML.match(text) or _is_json(text):
        what = quote_answer(text)
        raise UnreadableAnswer(f"{what} is no line of Prometheus' text format", next_step=_advise(text, "metric"))
    samples = [sample for sample in read_samples(text) if sample.name == name]
    chosen = [sample for sample in samples if labels.items() <= sample.labels.items()]
    if not chosen:
        described = f"metric {name}" + (f" with the labels {dict(labels)}" if labels else "")
        raise UnreadableAnswer(f"it has no {described}", next_step="Correct metric and labels, or path and port")
    return chosen


def sum_metric(text: str, name: str, labels: t.Mapping[str, str]) -> float:
    """Return the sum over the samples of a metric that have these labels. Raises UnreadableAnswer when there is none."""
    chosen = select_samples(text, name, labels)
    return _check_finite(math.fsum(sample.value for sample in chosen), name)


def read_field(text: str, field: str) -> float:
    """Return the number in a field of a JSON object, its keys joined by dots. Raises UnreadableAnswer."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UnreadableAnswer(f"{quote_answer(text)} is not JSON", next_step=_advise(text, "field")) from error
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise UnreadableAnswer(f"{quote_answer(text)} has no field {field}", next_step=_advise(text, "field"))
        value = value[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        problem = f"its field {field} is {shorten(repr(_redact_value(field, value)))}, which is no number"
        raise UnreadableAnswer(problem, next_step=_advise(text, "field"))
    return _check_finite(float(value), field)


def _redact_value(field: str, value: t.Any) -> t.Any:
    """Return the value of a field without secrets: whether it is one may show only from the field's name."""
    key = field.rpartition(".")[2]
    return REDACTOR.redact_document({key: value})[key]


def read_body(text: str) -> float:
    """Return the number that is all of an answer. Raises UnreadableAnswer."""
    try:
        value = float(text.strip())
    except ValueError as error:
        problem = f"{quote_answer(text)} has no number" if not _is_json(text) else f"{quote_answer(text)} is JSON"
        raise UnreadableAnswer(problem, next_step=_advise(text, "")) from error
    return _check_finite(value, "its number")


def _is_json(text: str) -> bool:
    """Return whether a text is an object or a list of JSON."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _advise(text: str, option: str) -> str:
    """Return what to give in place of ``option``, by what an answer is."""
    if _HTML.match(text):
        return "Correct path and port: a page of HTML is for people"
    if _is_json(text):
        fields = list_number_fields(json.loads(text))
        instead = " in place of metric" if option == "metric" else ""
        if fields:
            return f"Give one of its fields{instead}: " + ", ".join(f"field: {name}" for name in fields[:ADVISED])
        return "Correct path and port: this JSON has no field with a number"
    if option == "":
        return "Give metric: NAME where this is Prometheus' text format, or correct path and port"
    return f"Correct {option}, or path and port"


def list_number_fields(document: t.Any) -> list[str]:
    """Return the fields of JSON that have a number, their keys joined by dots."""
    if not isinstance(document, dict):
        return []
    names: list[str] = []
    for key, value in document.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            names.append(key)
        names += [f"{key}.{name}" for name in list_number_fields(value)]
    return [name for name in names if name and name.isprintable()]


def _check_finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise UnreadableAnswer(f"{name} is {value}, which is no count")
    return value


def format_number(value: float) -> str:
    """Return a number without a fraction where it has none: ``3``, ``0.5``."""
    return str(int(value)) if value.is_integer() else str(value)


def quote_answer(text: str) -> str:
    """Return an answer as a message shows it: its first characters in quotes, of a page of HTML only the title."""
    if not _HTML.match(text):
        return repr(shorten(text))
    title = _TITLE.search(text)
    return f"a page of HTML ({shorten(title[1])!r})" if title else "a page of HTML"


def shorten(text: str, length: int = SHOWN) -> str:
    """Return the first characters of a text, as one line without secrets, with three dots where there are more."""
    line = " ".join(REDACTOR.redact(text[:LONGEST]).split())
    return line if len(line) <= length else f"{line[:length]}..."
