# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Surveys from argument specs, and rules from local times: AWX takes each; what it would refuse is refused before."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.plugin_utils._awx import make_survey, plan_schedules
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.schedule import Schedule
from support.awx_surveys import check_answers, check_survey, read_rule, read_start, take_defaults
from support.checkout import load_yaml, role_names

STEPS = {"window_only": ["health", "backup"], "window_skip": ["health", "backup"]}
DEFAULTS = load_yaml(Path("roles/awx/defaults/main.yml"))
WEEKLY: dict[str, Any] = {"name": "weekly", "time": "02:30", "zone": "Europe/Berlin", "weekdays": ["mon", "wed"]}
NOW = datetime(2026, 11, 28, tzinfo=UTC).timestamp()
OPTIONS: dict[str, dict[str, Any]] = {
    "r_text": {"type": "str", "description": ["Which O(r_path) it is. Or V(a\\)b).", "More."]},
    "r_empty": {"type": "str", "default": "", "description": "d"},
    "r_path": {"type": "path", "required": True, "description": "d"},
    "r_count": {"type": "int", "default": 3, "description": "How many."},
    "r_share": {"type": "float", "default": "{{ other }}", "description": "d"},
    "window_start": {"type": "str", "default": "", "description": "d"},
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
        ("text", False, 1, 1024, None),
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
    """No default arrives, which would beat the inventory; nor does an empty text, which would as well.

    But for that of the window, which its role takes as not given.
    """
    spec = ask("r_text", "r_empty", "r_count", "r_kind", "r_kinds", "window_start")
    assert take_defaults(spec) == {}
    assert check_answers(spec, {}) == []
    assert check_answers(spec, {"window_start": "", "r_kinds": []}) == []
    for name in ("r_text", "r_empty"):
        assert check_answers(spec, {name: ""}) == [f"'{name}' value  is too small (must be at least 1)."]


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


def plan(**given: Any) -> dict[str, Any]:
    """Return one schedule as it is planned; its template asks for some of OPTIONS."""
    spec = ask("r_text", "r_count", "r_share", "r_kind", "r_kinds")
    surveys: dict[str, list[dict[str, Any]]] = {"approved window": spec, "backup": []}
    (planned,) = plan_schedules([{**WEEKLY, **given}], surveys, NOW)
    return planned


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, "FREQ=WEEKLY;INTERVAL=1;BYDAY=MO,WE"),
        ({"weekdays": None}, "FREQ=DAILY;INTERVAL=1"),
        ({"weekdays": ["Wednesday", "MON"]}, "FREQ=WEEKLY;INTERVAL=1;BYDAY=MO,WE"),
        ({"weekdays": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]}, "FREQ=DAILY;INTERVAL=1"),
        ({"weeks": [1]}, "FREQ=MONTHLY;INTERVAL=1;BYDAY=MO,WE;BYMONTHDAY=1,2,3,4,5,6,7"),
        ({"weekdays": None, "weeks": [5]}, "FREQ=MONTHLY;INTERVAL=1;BYMONTHDAY=29,30,31"),
        ({"time": "2:30", "weekdays": None}, "FREQ=DAILY;INTERVAL=1"),
    ],
)
def test_rules_are_taken(given: dict[str, Any], rule: str) -> None:
    """As they are, so that a second run changes nothing."""
    made = plan(**given)["rule"]
    assert made == f"DTSTART;TZID=Europe/Berlin:20260101T023000 RRULE:{rule}"
    assert read_rule(made)["rrule"] == made


@pytest.mark.parametrize("given", [{}, {"weekdays": ["sat", "sun"], "weeks": [1, 3]}, {"weekdays": None, "weeks": [5]}])
def test_awx_starts_when_the_window_is_declared(given: dict[str, Any]) -> None:
    """Each start of two years is at a time of ``window_times``, and each of these times has its start."""
    entry = {key: value for key, value in {**WEEKLY, **given}.items() if key != "name" and value is not None}
    made = plan(**given)["rule"]
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
    ("given", "days"),
    [
        ({"weekdays": None}, ["2027-03-28"]),
        ({"weekdays": ["sun"]}, ["2027-03-28"]),
        ({"weekdays": ["sat"]}, []),
        ({"weekdays": None, "time": "03:00"}, []),
        ({"weekdays": None, "time": "01:59"}, []),
        ({"weekdays": None, "zone": "America/New_York"}, ["2027-03-14"]),
        ({"weekdays": None, "zone": "UTC"}, []),
    ],
)
def test_a_day_without_that_hour_is_told(given: dict[str, Any], days: list[str]) -> None:
    """AWX leaves out a local time that does not exist; the window has it an hour later by the clock."""
    assert plan(**given)["left_out"] == days


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"time": 150}, 'time 150 is no time of day. Write it in quotes, as "02:00".'),
    ({"time": "25:00"}, "time '25:00' is no time of day"),
    ({"zone": "Europe/Berlinn"}, "zone 'Europe/Berlinn' is not known here"),
    ({"zone": ""}, "zone '' is not known here"),
    ({"zone": "UTC RRULE:FREQ=DAILY"}, "is not known here"),
    ({"weekdays": ["XX"]}, "weekdays has ['XX']. Give a list of mon, tue"),
    ({"weekdays": []}, "weekdays has []"),
    ({"weeks": [6]}, "weeks has [6]"),
    ({"weeks": []}, "weeks has []"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_what_is_no_time_is_refused(given: dict[str, Any], said: str) -> None:
    """With schedule, value and next step; of the window too, in the same words."""
    with pytest.raises(Refusal) as refused:
        plan(**given)
    assert f"schedule weekly: {said}" in str(refused.value) or said == "is not known here"
    with pytest.raises(Refusal) as of_window:
        Schedule.from_entries([{key: value for key, value in {**WEEKLY, **given}.items() if key != "name"}])
    assert str(of_window.value).replace("window_times: ", "schedule weekly: ") == str(refused.value)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"r_flag": "x"}, "it answers r_flag, which approved window does not ask for (it asks for r_count, r_kind,"),
        ({"r_kinds": "a"}, "its answer r_kinds is 'a', and approved window asks for a list of a, b. Correct"),
        ({"r_kinds": ["c"]}, "asks for a list of a, b"),
        ({"r_kind": "c"}, "asks for one of a, b"),
        ({"r_count": "3"}, "its answer r_count is '3', and approved window asks for a whole number"),
        ({"r_count": True}, "asks for a whole number"),
        ({"r_share": "x"}, "asks for a number"),
        ({"r_text": 3}, "asks for a text"),
        ({"r_text": ""}, "asks for at least 1 and at most 1024 characters"),
    ],
)
def test_a_wrong_answer_is_refused(answers: dict[str, Any], said: str) -> None:
    """Before anything is made: AWX would refuse it as the last of all."""
    with pytest.raises(Refusal) as refused:
        plan(answers=answers)
    assert said in str(refused.value)
    spec = ask("r_text", "r_count", "r_share", "r_kind", "r_kinds")
    assert check_answers(spec, answers) or not set(answers) <= {question["variable"] for question in spec}


def test_right_answers_are_kept() -> None:
    """Of each type."""
    answers = {"r_kinds": ["a"], "r_kind": "b", "r_count": 3, "r_share": 1, "r_text": "t"}
    assert plan(answers=answers)["answers"] == answers


def test_a_schedule_is_called_by_its_place() -> None:
    """Not by its time, which may change; one name of a template is one schedule."""
    times = [{"time": "04:00", "zone": "Europe/Berlin"}, {"time": "04:00", "zone": "America/New_York"}]
    surveys: dict[str, list[dict[str, Any]]] = {"approved window": [], "backup": []}
    planned = plan_schedules(times, surveys, NOW)
    assert [(one["name"], one["enabled"]) for one in planned] == [("time 1", False), ("time 2", False)]
    same = [{**WEEKLY, "template": template} for template in ("backup", "approved window")]
    assert [one["template"] for one in plan_schedules(same, surveys, NOW)] == ["backup", "approved window"]
    with pytest.raises(Refusal, match=r"weekly: approved window has two schedules of this name\."):
        plan_schedules([WEEKLY, {**WEEKLY, "time": "04:00"}], surveys, NOW)
    with pytest.raises(Refusal, match=r"weekly: it launches x, and there is approved window, backup\."):
        plan_schedules([{**WEEKLY, "template": "x"}], surveys, NOW)
