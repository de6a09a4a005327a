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

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.schedule import KEYS as KEYS_OF_TIME
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.schedule import WEEKDAYS, DeclaredTime, read_entry

Json = dict[str, t.Any]
Options = t.Mapping[str, t.Mapping[str, t.Any]]

TYPES = {"str": "text", "path": "text", "int": "integer", "float": "float"}
"""Types of questions by type of the option."""
OWN_TYPES = ("text", "textarea", "password", "integer", "float", "multiplechoice", "multiselect")
KEYS = ("variable", "question", "description", "type", "choices", "default", "required", "min", "max")
MAX_TEXT = 1024
MARKUP = re.compile(r"\b[A-Z]+\(((?:[^()\\]|\\.)*)\)")
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
EMPTY_IS_NONE = ("window_start", "window_only", "window_skip")
"""Options of which the role takes an empty value as not given, though it is an extra variable."""
WORKFLOW = "approved window"
MAX_WEEKS = 5
BEGIN = "20260101"


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
        "min": given.get("min", _find_minimum(kind, variable)),
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


def _find_minimum(kind: str, variable: str) -> int | None:
    """Return 1 for a text: AWX hands an empty one over, which would beat the inventory, and refuses it so."""
    if kind not in ("text", "textarea", "password"):
        return None
    return 0 if variable in EMPTY_IS_NONE else 1


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


def plan_schedules(
    entries: t.Sequence[t.Mapping[str, t.Any]], surveys: t.Mapping[str, t.Sequence[Json]], now: float
) -> list[Json]:
    """Return the schedules of AWX with their rules, and the days within a year on which AWX leaves each out.

    ``entries`` are those of ``window_times``, with what is to be launched; one without a name is called by its place
    in the list, so that another time changes its schedule instead of making a second. ``surveys`` has the questions
    of each template, by its name.
    """
    planned: list[Json] = []
    for number, entry in enumerate(entries, 1):
        name, template = str(entry.get("name") or f"time {number}"), str(entry.get("template") or WORKFLOW)
        obj = f"schedule {name}"
        if template not in surveys:
            next_step = "Correct the name, or add its playbook to awx_procedures"
            raise Refusal(
                obj=obj, problem=f"it launches {template}, and there is {_join(surveys)}", next_step=next_step
            )
        if any((one["name"], one["template"]) == (name, template) for one in planned):
            raise Refusal(
                obj=obj, problem=f"{template} has two schedules of this name", next_step="Give one of them another name"
            )
        declared = read_entry({key: entry[key] for key in entry if key in KEYS_OF_TIME}, obj)
        answers = dict(entry.get("answers") or {})
        _check_answers(obj, template, answers, surveys[template])
        planned.append(
            {
                "name": name,
                "template": template,
                "rule": make_rule(declared),
                "answers": answers,
                "enabled": bool(entry.get("enabled", False)),
                "left_out": [day.isoformat() for day in declared.list_gaps(now)],
            }
        )
    return planned


def make_rule(declared: DeclaredTime) -> str:
    """Return the rule by which AWX starts a template at a declared time of day, in summer and winter.

    It begins at a date that is always the same, so that a second run changes nothing; AWX does not make up for what is
    past.
    """
    days = [day[:2].upper() for number, day in enumerate(WEEKDAYS) if number in declared.weekdays]
    days, weeks = days if len(days) < len(WEEKDAYS) else [], sorted(declared.weeks)
    is_monthly = len(weeks) < MAX_WEEKS
    rule = f"FREQ={'MONTHLY' if is_monthly else 'WEEKLY' if days else 'DAILY'};INTERVAL=1"
    if days:
        rule += f";BYDAY={','.join(days)}"
    if is_monthly:  # by the days of the month: a number before BYDAY is refused; BYSETPOS counts all weekdays together
        dates = [day for week in weeks for day in range(7 * week - 6, min(7 * week, 31) + 1)]
        rule += f";BYMONTHDAY={','.join(map(str, dates))}"
    return f"DTSTART;TZID={declared.zone.key}:{BEGIN}T{declared.hour:02}{declared.minute:02}00 RRULE:{rule}"


def _check_answers(obj: str, template: str, answers: Json, spec: t.Sequence[Json]) -> None:
    asked = {question["variable"]: question for question in spec}
    unasked = [name for name in answers if name not in asked]
    if unasked:
        raise Refusal(
            obj=obj,
            problem=f"it answers {_join(unasked)}, which {template} does not ask for (it asks for {_join(asked)})",
            next_step="Add the question, or set the variable in the inventory",
        )
    for name, answer in answers.items():
        wanted = _explain_wrong(asked[name], answer)
        if wanted:
            problem = f"its answer {name} is {answer!r}, and {template} asks for {wanted}"
            raise Refusal(obj=obj, problem=problem, next_step="Correct the answer")


def _explain_wrong(question: Json, answer: t.Any) -> str:
    """Return what a question asks for, empty where the answer is that."""
    kind = question["type"]
    if kind in ("multiplechoice", "multiselect"):
        chosen = answer if kind == "multiselect" and isinstance(answer, list) else [answer]
        is_list = isinstance(answer, list)
        fits = is_list == (kind == "multiselect") and all(item in question["choices"] for item in chosen)
        return "" if fits else f"{'a list' if kind == 'multiselect' else 'one'} of {_join(question['choices'])}"
    low, high = question.get("min"), question.get("max")
    expected: t.Any = {"integer": int, "float": (int, float)}.get(kind, str)
    if isinstance(answer, bool) or not isinstance(answer, expected):
        return {"integer": "a whole number", "float": "a number"}.get(kind, "a text")
    size = len(answer) if isinstance(answer, str) else answer
    if (low is None or size >= low) and (high is None or size <= high):
        return ""
    bounds = [f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else ""]
    return " and ".join(bound for bound in bounds if bound) + (" characters" if isinstance(answer, str) else "")


def _join(names: t.Iterable[t.Any]) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"
