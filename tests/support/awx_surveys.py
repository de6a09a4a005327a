# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What AWX 24.6.1 takes as a survey, as answers to one and as the rule of a schedule; see ``awx_stand_in``."""

from __future__ import annotations

import importlib
import json
import re
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

Json = dict[str, Any]

rules: Any = importlib.import_module("dateutil.rrule")  # it comes without types

TYPES = ("text", "textarea", "password", "multiplechoice", "multiselect", "integer", "float")
TEXTS = ("text", "textarea", "password")
CHOICES = ("multiplechoice", "multiselect")
NUMBERS = {"integer": int, "float": (int, float)}
DTSTART = re.compile(r"DTSTART(?:;TZID=([^:]+))?:(\d{8}T\d{6})(Z?)")
MONTH_DAY = re.compile(r".*?BYDAY[=:]+[0-9]+[a-zA-Z]{2}")
UNTIL = re.compile(r"UNTIL=(\d{8}T\d{6})(?!Z)")


class RefusedError(Exception):
    """What the API answers instead of doing it."""

    def __init__(self, body: Any, status: int = 400) -> None:
        super().__init__(body)
        self.body, self.status = body, status


def parse_text(value: Any) -> Json:
    """Return a mapping from JSON or YAML text, as extra variables and variables of hosts are given."""
    if not isinstance(value, str):
        raise RefusedError(["Not a valid string."])
    if not value:
        return {}
    try:
        found = json.loads(value)
    except ValueError as error:
        told = str(error)
    else:
        if isinstance(found, dict):
            return found
        told = f"Input type `{type(found).__name__}` is not a dictionary"
    try:
        found = yaml.safe_load(value)
        if isinstance(found, dict):
            return found
        said = f"Input type `{type(found).__name__}` is not a dictionary"
    except yaml.YAMLError as error:
        said = str(error)
    raise RefusedError([f"Cannot parse as JSON (error: {told}) or YAML (error: {said})."])


def check_survey(body: Any) -> None:
    """Refuse a survey that AWX refuses."""
    for key in ("name", "description", "spec"):
        if key not in body:
            raise RefusedError({"error": f"Field '{key}' is missing from survey spec."})
    spec = body["spec"]
    if not isinstance(spec, list):
        kind = "OrderedDict" if isinstance(spec, dict) else type(spec).__name__
        raise RefusedError({"error": f"Expected list of items for field 'spec', received {kind} type."})
    if not spec:
        raise RefusedError({"error": "'spec' doesn't contain any items."})
    names: set[str] = set()
    for number, question in enumerate(spec):
        problem = _find_problem(question, number, names)
        if problem:
            raise RefusedError({"error": problem})
        names.add(question["variable"])


def _find_problem(  # noqa: PLR0911  # one for each rule, in AWX's order
    question: Json, number: int, names: set[str]
) -> str:
    for key in ("type", "question_name", "variable", "required"):
        if key not in question:
            return f"'{key}' missing from survey question {number}"
    kind = question["type"]
    if kind not in TYPES:
        return f"'{kind}' in survey question {number} is not one of '{', '.join(TYPES)}' allowed question types."
    if not isinstance(question["required"], bool):
        return f"'required' in survey question {number} expected to be boolean."
    for key in ("min", "max"):
        if question.get(key) is not None and not isinstance(question[key], int):
            return f"The {key} limit in survey question {number} expected to be integer."
    if question["variable"] in names:
        return f"'variable' '{question['variable']}' duplicated in survey question {number}."
    if kind in CHOICES and not question.get("choices"):
        return f"Survey question {number} of type {kind} must specify choices."
    return _find_default_problem(question, number) if question.get("default", "") != "" else ""


def _find_default_problem(question: Json, number: int) -> str:
    kind, default = question["type"], question["default"]
    expected: Any = NUMBERS.get(kind, str)
    if not isinstance(default, expected):
        name = kind if kind in NUMBERS else "string"
        return f"Default value {default} in survey question {number} expected to be {name}."
    if default == "$encrypted$" and kind != "password":
        reserved = "$encrypted$ is a reserved keyword for password question defaults"
        return f"{reserved}, survey question {number} is type {kind}."
    if kind in CHOICES:
        given = default.split("\n")
        if kind == "multiplechoice" and len(given) > 1:
            return "Multiple Choice (Single Select) can only have one default value."
        if any(item not in question["choices"] for item in given):
            return "Default choice must be answered from the choices listed."
    return ""


def list_choices(question: Json) -> list[str]:
    """Return the choices of a question, which may be one text."""
    choices = question["choices"]
    return choices.split("\n") if isinstance(choices, str) else list(choices)


def check_answer(question: Json, answers: Mapping[str, Any]) -> list[str]:
    """Return what AWX says of the answer to one question."""
    name, kind = question["variable"], question["type"]
    if name not in answers:
        return [f"'{name}' value missing"] if question["required"] else []
    value = answers[name]
    if kind in TEXTS:
        wrong = [] if isinstance(value, str) else [f"Value {value} for '{name}' expected to be a string."]
        return wrong or _check_size(question, value, len(value))
    if kind in NUMBERS:
        expected: Any = NUMBERS[kind]
        article = "an integer" if kind == "integer" else "a numeric type"
        is_number = isinstance(value, expected) and not isinstance(value, bool)
        wrong = [] if is_number else [f"Value {value} for '{name}' expected to be {article}."]
        return wrong or _check_size(question, value, value)
    if kind == "multiselect" and not isinstance(value, list):
        return [f"'{name}' value is expected to be a list."]
    choices = list_choices(question)
    wrong = [item for item in (value if isinstance(value, list) else [value]) if item not in choices]
    return [f"Value {item} for '{name}' expected to be one of {choices}." for item in wrong]


def _check_size(question: Json, value: Any, size: float) -> list[str]:
    name = question["variable"]
    if question.get("min") not in ("", None) and size < question["min"]:
        return [f"'{name}' value {value} is too small (must be at least {question['min']})."]
    if question.get("max") not in ("", None) and size > question["max"]:
        return [f"'{name}' value {value} is too large (must be no more than {question['max']})."]
    return []


def check_answers(spec: list[Json], answers: Mapping[str, Any]) -> list[str]:
    """Return what AWX says of all answers."""
    return [problem for question in spec for problem in check_answer(question, answers)]


def take_defaults(spec: list[Json]) -> Json:
    """Return what arrives where nothing is answered: defaults that are answers by themselves."""
    found: Json = {}
    for question in spec:
        name = question["variable"]
        if "default" in question and not check_answer(question, {name: question["default"]}):
            found[name] = question["default"]
    return found


def read_start(value: str) -> tuple[datetime, str]:
    """Return DTSTART of a rule with its zone. ValueError says what is wrong."""
    match = DTSTART.search(value)
    zone = match[1] if match and match[1] else "UTC" if match and match[3] else ""
    if not match or zone not in zoneinfo.available_timezones():
        raise ValueError("A valid TZID must be provided (e.g., America/New_York)")
    start = datetime.strptime(match[2], "%Y%m%dT%H%M%S")
    return start.replace(tzinfo=zoneinfo.ZoneInfo(zone)), zone


def read_rule(value: str) -> Json:
    """Return rule, start, end, next run and zone of a schedule as the API shows them, or refuse it."""
    text = " ".join(value.split())
    if not text:
        raise RefusedError({"rrule": ["This field may not be blank."]})
    problems = _find_rule_problems(text)
    dates: Any = None
    try:
        for part in text.split():
            _name, _rest = part.split(":", 1)
        start, zone = read_start(text)
        text = UNTIL.sub(lambda match: f"UNTIL={_to_utc(match[1], zone)}", text)
        if "COUNT" in text and "UNTIL" in text:  # refused already, and dateutil would warn
            raise RefusedError({"rrule": problems})
        dates = rules.rrulestr("\n".join(text.split()), forceset=True, tzids=zoneinfo.ZoneInfo)
    except ValueError as error:
        problems.append(f"rrule parsing failed validation: {error}")
    if problems:
        raise RefusedError({"rrule": problems})
    bounded = "COUNT" in text or "UNTIL" in text
    coming = dates.after(datetime.now(UTC))
    until = re.search(r"UNTIL=(\d{8}T\d{6})Z", text)
    return {
        "rrule": text,
        "dtstart": _show(start),
        "dtend": _show(list(dates)[-1]) if bounded else None,
        "next_run": _show(coming) if coming else None,
        "timezone": zone,
        "until": _show_local(until[1], zone) if until else "",
    }


def _find_rule_problems(text: str) -> list[str]:
    found = []
    starts = DTSTART.findall(text)
    if not starts:
        found.append("Valid DTSTART required in rrule. Value should start with: DTSTART:YYYYMMDDTHHMMSSZ")
    if re.search(r"DTSTART:[0-9]+T[0-9]+ ", text):
        found.append("DTSTART cannot be a naive datetime.  Specify ;TZINFO= or YYYYMMDDTHHMMSSZZ.")
    if len(starts) > 1:
        found.append("Multiple DTSTART is not supported.")
    if "rrule" not in text.lower():
        found.append("One or more rule required in rrule.")
    found += [f"{name} not allowed in rrule." for name in ("RDATE", "EXDATE") if name in text]
    for rule in re.findall(r"RULE:[^\s]*", text):
        count = re.search(r"COUNT=([0-9]+)", rule)
        checks = {
            "INTERVAL required in rrule": "INTERVAL" not in rule,
            "SECONDLY is not supported": "SECONDLY" in rule,
            "BYDAY with numeric prefix not supported": bool(MONTH_DAY.match(rule)),
            "RRULE may not contain both COUNT and UNTIL": bool(count) and "UNTIL" in rule,
            "COUNT > 999 is unsupported": bool(count) and int(count[1] if count else 0) > 999,
        }
        found += [f"{problem}: {rule}" for problem, is_so in checks.items() if is_so]
    return found


def _to_utc(value: str, zone: str) -> str:
    local = datetime.strptime(value, "%Y%m%dT%H%M%S").replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return local.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _show(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show_local(value: str, zone: str) -> str:
    moment = datetime.strptime(value, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).astimezone(zoneinfo.ZoneInfo(zone))
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
