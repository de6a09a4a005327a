# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Surveys of AWX from argument specs, and rules of its schedules. Private to lowtide.ops: do not import from other
collections.

A question has no default of the option: AWX would hand it over as an extra variable, which beats the inventory. So
what is not answered is not given, and the role finds what the inventory says.
"""

from __future__ import annotations

import re
import typing as t
import zoneinfo

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal

Json = dict[str, t.Any]
Options = t.Mapping[str, t.Mapping[str, t.Any]]

TYPES = {"str": "text", "path": "text", "int": "integer", "float": "float"}
"""Types of questions by type of the option."""
OWN_TYPES = ("text", "textarea", "password", "integer", "float", "multiplechoice", "multiselect")
KEYS = ("variable", "question", "description", "type", "choices", "default", "required", "min", "max")
MAX_TEXT = 1024
MARKUP = re.compile(r"\b[A-Z]+\(((?:[^()\\]|\\.)*)\)")
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
BEGIN = "20260101"
ZONE = re.compile(r"[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+)*")


def make_survey(
    options: Options, questions: t.Sequence[t.Any], name: str, choices: t.Mapping[str, t.Sequence[str]]
) -> Json:
    """Return the survey of a template, empty where nothing is asked.

    ``questions`` are names of options, or dictionaries with ``variable`` and what differs. ``choices`` are those of
    options that have none of their own, such as the names of a site's steps.
    """
    spec = [_make_question(options, question, name, choices) for question in questions]
    names = [question["variable"] for question in spec]
    twice = sorted({variable for variable in names if names.count(variable) > 1})
    if twice:
        raise _refuse(name, twice[0], "it is asked twice", "Ask it once")
    return {"name": name, "description": "An empty answer means: not given", "spec": spec} if spec else {}


def _make_question(options: Options, question: t.Any, survey: str, choices: t.Mapping[str, t.Sequence[str]]) -> Json:
    given = dict(question) if isinstance(question, t.Mapping) else {"variable": question}
    variable = str(given.get("variable", ""))
    unknown = sorted(set(given) - set(KEYS))
    if unknown:
        raise _refuse(survey, variable, f"it has the unknown key {unknown[0]}", f"Known keys: {', '.join(KEYS)}")
    if not NAME.fullmatch(variable) or variable.startswith(("awx_", "tower_")):
        problem = "its variable is not one that a playbook can be given"
        raise _refuse(survey, variable, problem, "Name a variable of the role; AWX sets awx_ and tower_ itself")
    option = options.get(variable, {})
    if not option and "type" not in given:
        problem = "it is no option of the role, and no type is given"
        raise _refuse(survey, variable, problem, f"Correct the name, or give a type: {', '.join(OWN_TYPES)}")
    allowed = _list_choices(given, option, choices.get(variable, ()))
    kind = given.get("type") or _choose_type(option, allowed, survey, variable)
    if kind not in OWN_TYPES:
        raise _refuse(survey, variable, f"its type is {kind}", f"AWX has {', '.join(OWN_TYPES)}")
    made: Json = {
        "question_name": str(given.get("question") or variable.replace("_", " ").capitalize()),
        "question_description": str(given.get("description") or _describe(option)),
        "variable": variable,
        "type": kind,
        "required": bool(given.get("required", option.get("required", False))),
        "min": given.get("min", _find_minimum(kind, option, given)),
        "max": given.get("max", MAX_TEXT if kind in ("text", "textarea", "password") else None),
    }
    if kind in ("multiplechoice", "multiselect"):
        if not allowed:
            raise _refuse(survey, variable, "it has no choices", "Give choices, a list of texts")
        made["choices"] = allowed
    if "default" in given:
        made["default"] = _check_default(given["default"], made, survey)
    return made


def _list_choices(given: Json, option: t.Mapping[str, t.Any], of_site: t.Sequence[str]) -> list[str]:
    """Return what can be chosen. An empty text is none: nothing chosen means it."""
    found = given.get("choices") or option.get("choices") or of_site
    return [str(choice) for choice in found if str(choice)]


def _choose_type(option: t.Mapping[str, t.Any], choices: list[str], survey: str, variable: str) -> str:
    kind = str(option.get("type", "str"))
    if kind == "list" and choices:
        return "multiselect"
    if kind in TYPES:
        return "multiplechoice" if choices else TYPES[kind]
    if kind == "bool":
        raise _refuse(
            survey,
            variable,
            "it is true or false, and an answer of AWX is text",
            "Make a template of its own for it, with the value in its variables",
        )
    next_step = "Leave it to the inventory" + (", or give choices" if kind == "list" else "")
    raise _refuse(survey, variable, f"it is of the type {kind}, for which AWX has no question", next_step)


def _find_minimum(kind: str, option: t.Mapping[str, t.Any], given: Json) -> int | None:
    """Return 1 for a text whose emptiness would mean something else than not to be given: AWX refuses it then."""
    if kind not in ("text", "textarea", "password"):
        return None
    return 0 if option.get("default") == "" and not given.get("required") else 1


def _check_default(default: t.Any, question: Json, survey: str) -> t.Any:
    """Return a default that AWX takes: of several choices it is one text, a line each."""
    kind, variable = question["type"], question["variable"]
    chosen = [str(item) for item in default] if isinstance(default, (list, tuple)) else str(default).split("\n")
    if kind == "multiselect":
        problem = "AWX does not hand over a default of several choices"
        raise _refuse(survey, variable, problem, "Leave the default out, and set the variable in the inventory")
    if kind == "multiplechoice" and (len(chosen) > 1 or chosen[0] not in question["choices"]):
        raise _refuse(survey, variable, f"its default {default} is no choice", "Give one of its choices")
    expected: t.Any = {"integer": int, "float": (int, float)}.get(kind, str)
    if isinstance(default, bool) or not isinstance(default, expected):
        raise _refuse(survey, variable, f"its default {default} is not of the type {kind}", "Correct the default")
    if kind == "password":
        problem = "a template with a default password is changed at each run"
        raise _refuse(survey, variable, problem, "Keep secrets in a credential")
    return default


def _describe(option: t.Mapping[str, t.Any]) -> str:
    """Return the first sentence of an option in plain words, with its default."""
    description = option.get("description") or ""
    words = description if isinstance(description, str) else str(description[0])
    plain = MARKUP.sub(lambda match: match[1].replace("\\", ""), " ".join(words.split()))
    default = option.get("default")
    if default in (None, "", [], {}) or "{{" in str(default):
        return plain
    return f"{plain.rstrip('.')}. Not given: {default}, unless the inventory says otherwise."


def _refuse(survey: str, variable: str, problem: str, next_step: str) -> Refusal:
    return Refusal(
        obj=f"survey of {survey}, question {variable or '(without a name)'}", problem=problem, next_step=next_step
    )


def make_rule(schedule: t.Mapping[str, t.Any]) -> str:
    """Return the rule by which AWX starts a template at a declared time of day, in summer and winter.

    ``time``, ``zone``, ``weekdays`` and ``weeks`` are those of an entry of ``window_times``. The rule begins at a date
    that is always the same, so that a second run changes nothing; AWX does not make up for what is past.
    """
    name, time, zone = f"schedule {schedule.get('name', '')}", schedule.get("time"), str(schedule.get("zone") or "")
    if not isinstance(time, str) or not TIME.fullmatch(time):
        next_step = 'Give a time of day in quotes, such as "02:00"'
        raise Refusal(obj=name, problem=f"its time is {time}", next_step=next_step)
    if not ZONE.fullmatch(zone) or not _knows_zone(zone):
        next_step = "Give one such as Europe/Berlin or UTC"
        raise Refusal(obj=name, problem=f"its zone '{zone}' is none of the tz database", next_step=next_step)
    days = [str(day).lower() for day in schedule.get("weekdays") or ()]
    weeks = list(schedule.get("weeks") or ())
    wrong = [day for day in days if day not in DAYS] + [week for week in weeks if week not in range(1, 6)]
    if wrong:
        next_step = f"Weekdays are {', '.join(DAYS)}, weeks 1 to 5"
        raise Refusal(obj=name, problem=f"{wrong[0]} is no day or week", next_step=next_step)
    rule = f"FREQ={'MONTHLY' if weeks else 'WEEKLY' if days else 'DAILY'};INTERVAL=1"
    if days:
        rule += f";BYDAY={','.join(day[:2].upper() for day in days)}"
    if weeks:  # by the days of the month: a number before BYDAY is refused, and BYSETPOS counts all weekdays together
        dates = [day for week in sorted(weeks) for day in range(7 * week - 6, min(7 * week, 31) + 1)]
        rule += f";BYMONTHDAY={','.join(map(str, dates))}"
    return f"DTSTART;TZID={zone}:{BEGIN}T{time.replace(':', '')}00 RRULE:{rule}"


def _knows_zone(zone: str) -> bool:
    """Return whether the controller knows a zone. Without a tz database here it is left to AWX."""
    known = zoneinfo.available_timezones()
    return not known or zone in known
