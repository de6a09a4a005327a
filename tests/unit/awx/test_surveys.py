# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Surveys from argument specs, and rules from local times: AWX takes each; what it would refuse is refused before."""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._awx import make_rule, make_survey
from support.awx_surveys import check_answers, check_survey, read_rule, read_start, take_defaults
from support.checkout import load_yaml, role_names

STEPS = {"window_only": ["health", "backup"], "window_skip": ["health", "backup"]}
DEFAULTS = load_yaml(Path("roles/awx/defaults/main.yml"))
WEEKLY: dict[str, Any] = {"name": "weekly", "time": "02:30", "zone": "Europe/Berlin", "weekdays": ["mon", "wed"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "r_text": {"type": "str", "description": ["Which O(r_path) it is. Or V(a\\)b).", "More."]},
    "r_empty": {"type": "str", "default": "", "description": "d"},
    "r_path": {"type": "path", "required": True, "description": "d"},
    "r_count": {"type": "int", "default": 3, "description": "How many."},
    "r_share": {"type": "float", "default": "{{ other }}", "description": "d"},
    "r_kind": {"type": "str", "choices": ["", "a", "b"], "default": "a", "description": "d"},
    "r_kinds": {"type": "list", "elements": "str", "choices": ["a", "b"], "default": [], "description": "d"},
    "r_names": {"type": "list", "elements": "str", "default": [], "description": "d"},
    "r_flag": {"type": "bool", "default": False, "description": "d"},
    "r_map": {"type": "dict", "description": "d"},
}


def read_options(role: str, entry: str = "main") -> dict[str, Any]:
    """Return the options of an entry point."""
    options: dict[str, Any] = load_yaml(Path(f"roles/{role}/meta/argument_specs.yml"))["argument_specs"][entry][
        "options"
    ]
    return options


def ask(*questions: Any) -> list[dict[str, Any]]:
    """Return the questions made of OPTIONS, which AWX takes."""
    survey = make_survey(OPTIONS, questions, "s", {})
    check_survey(survey)
    spec: list[dict[str, Any]] = survey["spec"]
    return spec


def test_each_type_has_its_question() -> None:
    """With its choices, without the empty one: nothing chosen means it."""
    spec = ask("r_text", "r_empty", "r_path", "r_count", "r_share", "r_kind", "r_kinds")
    assert [(q["type"], q["required"], q["min"], q["max"], q.get("choices")) for q in spec] == [
        ("text", False, 1, 1024, None),
        ("text", False, 0, 1024, None),
        ("text", True, 1, 1024, None),
        ("integer", False, None, None, None),
        ("float", False, None, None, None),
        ("multiplechoice", False, None, None, ["a", "b"]),
        ("multiselect", False, None, None, ["a", "b"]),
    ]
    assert [q["question_description"] for q in spec][::3] == [
        "Which r_path it is. Or a)b.",
        "How many. Not given: 3, unless the inventory says otherwise.",
        "d",
    ]


def test_what_is_not_answered_is_not_given() -> None:
    """No default arrives, which would beat the inventory; an empty text is no answer, or is one that means the same."""
    spec = ask("r_text", "r_empty", "r_count", "r_kind", "r_kinds")
    assert take_defaults(spec) == {}
    assert check_answers(spec, {}) == []
    assert check_answers(spec, {"r_empty": "", "r_kinds": []}) == []
    assert check_answers(spec, {"r_text": ""}) == ["'r_text' value  is too small (must be at least 1)."]


def test_a_question_can_differ_from_its_option() -> None:
    """In each of its parts; a variable that is no option has a type."""
    (question,) = ask({"variable": "r_count", "question": "Q", "description": "D", "min": 1, "max": 9, "default": 4})
    assert question == {
        "question_name": "Q",
        "question_description": "D",
        "variable": "r_count",
        "type": "integer",
        "required": False,
        "min": 1,
        "max": 9,
        "default": 4,
    }
    (question,) = ask({"variable": "ticket", "type": "text", "required": True})
    assert (question["question_name"], question["required"], question["min"]) == ("Ticket", True, 1)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("r_other", "question r_other: it is no option of the role, and no type is given. Correct the name"),
        ("r_flag", "question r_flag: it is true or false, and an answer of AWX is text. Make a template of its own"),
        ("r_map", "question r_map: it is of the type dict, for which AWX has no question. Leave it to the inventory."),
        ("r_names", "question r_names: it is of the type list, for which AWX has no question. Leave it"),
        ("r count", "question r count: its variable is not one that a playbook can be given."),
        ({"variable": "awx_job_id", "type": "text"}, "AWX sets awx_ and tower_ itself"),
        ({"variable": "r_count", "kind": "x"}, "question r_count: it has the unknown key kind. Known keys: variable"),
        ({"variable": "x", "type": "boolean"}, "question x: its type is boolean. AWX has text, textarea"),
        ({"variable": "x", "type": "multiselect"}, "question x: it has no choices. Give choices"),
        ({"variable": "r_kind", "default": "c"}, "question r_kind: its default c is no choice"),
        ({"variable": "r_count", "default": "3"}, "question r_count: its default 3 is not of the type integer"),
        ({"variable": "r_kinds", "default": ["a"]}, "AWX does not hand over a default of several choices"),
        (
            {"variable": "x", "type": "password", "default": "y"},
            "a template with a default password is changed at each",
        ),
    ],
)
def test_what_awx_has_no_question_for_is_refused(question: Any, said: str) -> None:
    """With survey, question and next step."""
    with pytest.raises(Refusal) as refused:
        make_survey(OPTIONS, [question], "shop x", {})
    assert str(refused.value).startswith("survey of shop x, question ")
    assert said in str(refused.value)


def test_a_question_is_asked_once() -> None:
    """AWX refuses the second."""
    with pytest.raises(Refusal, match="r_count: it is asked twice"):
        make_survey(OPTIONS, ["r_count", {"variable": "r_count"}], "s", {})


def test_nothing_asked_is_no_survey() -> None:
    """An empty one would be refused."""
    assert make_survey(OPTIONS, [], "s", {}) == {}


def test_surveys_of_the_role_are_taken() -> None:
    """That of the window, with the steps of the site, and those of its procedures."""
    survey = make_survey(read_options("window", "open"), DEFAULTS["awx_questions"], "shop window", STEPS)
    check_survey(survey)
    assert [(q["variable"], q["type"], q["required"]) for q in survey["spec"]] == [
        ("window_start", "text", False),
        ("window_only", "multiselect", False),
        ("window_skip", "multiselect", False),
        ("window_duration", "integer", False),
    ]
    for procedure in DEFAULTS["awx_procedures"]:
        questions = procedure.get("questions", [])
        if questions:
            check_survey(make_survey(read_options(procedure["playbook"]), questions, "s", {}))


@pytest.mark.parametrize("role", [role for role in role_names() if role not in ("awx", "window")])
def test_each_option_of_a_role_is_asked_for_or_refused(role: str) -> None:
    """What is made of it is taken."""
    options = read_options(role)
    unasked = {
        name
        for name, option in options.items()
        if option["type"] in ("dict", "raw", "bool") or (option["type"] == "list" and "choices" not in option)
    }
    for name in set(options) - unasked:
        check_survey(make_survey(options, [name], "s", {}))
    for name in unasked:
        with pytest.raises(Refusal, match=r"Leave it to the inventory|template of its own"):
            make_survey(options, [name], "s", {})


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, "FREQ=WEEKLY;INTERVAL=1;BYDAY=MO,WE"),
        ({"weekdays": []}, "FREQ=DAILY;INTERVAL=1"),
        ({"weeks": [1]}, "FREQ=MONTHLY;INTERVAL=1;BYDAY=MO,WE;BYMONTHDAY=1,2,3,4,5,6,7"),
        ({"weekdays": None, "weeks": [5]}, "FREQ=MONTHLY;INTERVAL=1;BYMONTHDAY=29,30,31"),
    ],
)
def test_rules_are_taken(given: dict[str, Any], rule: str) -> None:
    """As they are, so that a second run changes nothing."""
    made = make_rule({**WEEKLY, **given})
    assert made == f"DTSTART;TZID=Europe/Berlin:20260101T023000 RRULE:{rule}"
    assert read_rule(made)["rrule"] == made


@pytest.mark.parametrize("given", [{}, {"weekdays": ["sat", "sun"], "weeks": [1, 3]}, {"weekdays": [], "weeks": [5]}])
def test_awx_starts_when_the_window_is_declared(given: dict[str, Any]) -> None:
    """Each start of two years is at a time of ``window_times``, and each of these times has its start."""
    entry = {key: value for key, value in {**WEEKLY, **given}.items() if key != "name" and value != []}
    made = make_rule({"name": "s", **entry})
    start, _zone = read_start(made)
    rules: Any = importlib.import_module("dateutil.rrule")
    until = start + timedelta(days=730)
    starts = rules.rrulestr(made.split(" ")[1].removeprefix("RRULE:"), dtstart=start).between(start, until, inc=True)
    days = (start + timedelta(days=number) for number in range(731))
    wanted = [
        day
        for day in days
        if ("weekdays" not in entry or f"{day:%a}".lower() in entry["weekdays"])
        and ("weeks" not in entry or (day.day - 1) // 7 + 1 in entry["weeks"])
    ]
    assert [moment.replace(tzinfo=None) for moment in starts] == [day.replace(tzinfo=None) for day in wanted]
    assert len({moment.utcoffset() for moment in starts}) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"time": 150}, 'schedule weekly: its time is 150. Give a time of day in quotes, such as "02:00".'),
        ({"time": "25:00"}, "its time is 25:00"),
        ({"zone": "Europe/Berlinn"}, "its zone 'Europe/Berlinn' is none of the tz database. Give one such as"),
        ({"zone": ""}, "its zone '' is none"),
        ({"weekdays": ["XX"]}, "xx is no day or week. Weekdays are mon, tue"),
        ({"weeks": [6]}, "6 is no day or week"),
    ],
)
def test_what_is_no_time_is_refused(given: dict[str, Any], said: str) -> None:
    """With schedule, value and next step."""
    with pytest.raises(Refusal) as refused:
        make_rule({**WEEKLY, **given})
    assert said in str(refused.value)
