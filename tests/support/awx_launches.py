# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What AWX 24.6.1 makes of a launch, and of the prompts of schedules and nodes; see ``awx_stand_in``."""

from __future__ import annotations

import json
from typing import Any

from .awx_surveys import Json, RefusedError, check_answers, parse_text, take_defaults

PROMPTS = {
    "inventory": "ask_inventory_on_launch",
    "limit": "ask_limit_on_launch",
    "scm_branch": "ask_scm_branch_on_launch",
    "job_tags": "ask_tags_on_launch",
    "skip_tags": "ask_skip_tags_on_launch",
    "diff_mode": "ask_diff_mode_on_launch",
    "job_type": "ask_job_type_on_launch",
    "verbosity": "ask_verbosity_on_launch",
    "execution_environment": "ask_execution_environment_on_launch",
    "forks": "ask_forks_on_launch",
    "job_slice_count": "ask_job_slice_count_on_launch",
    "timeout": "ask_timeout_on_launch",
}
NOT_ASKED = ["Field is not configured to prompt on launch."]


def _name_template(template: Json) -> str:
    return "Workflow Job Template" if "/workflow_job_templates/" in template["url"] else "Job Template"


def _find_not_allowed(template: Json, spec: list[Json], answers: Json) -> list[str]:
    asked = {question["variable"] for question in spec}
    own = parse_text(template["extra_vars"])
    if template["ask_variables_on_launch"]:
        return []
    return [name for name, value in answers.items() if name not in asked and (name not in own or own[name] != value)]


def _refuse_variables(template: Json, names: list[str]) -> list[str]:
    return [
        f"Variables {', '.join(names)} are not allowed on launch."
        f" Check the Prompt on Launch setting on the {_name_template(template)} to include Extra Variables."
    ]


def check_prompts(template: Json, survey: Json | None, given: Json, *, is_node: bool = False) -> None:
    """Refuse what a schedule or a node gives and the template does not ask for."""
    problems: Json = {
        name: NOT_ASKED for name, asked in PROMPTS.items() if given.get(name) is not None and not template.get(asked)
    }
    spec = (survey or {}).get("spec", [])
    answers = given.get("extra_data") or {}
    names = _find_not_allowed(template, spec, answers)
    if names:
        problems["extra_data"] = _refuse_variables(template, names)
    wrong = check_answers(
        [{**question, "required": question["required"] and not is_node} for question in spec], answers
    )
    if wrong:
        problems["variables_needed_to_start"] = wrong
    if problems:
        raise RefusedError(problems)


def launch_job(template: Json, survey: Json | None, body: Json) -> Json:
    """Return the job: what it does not ask for is ignored."""
    spec = (survey or {}).get("spec", [])
    answers = _read_answers(body)
    names = _find_not_allowed(template, spec, answers)
    ignored = {name: value for name, value in body.items() if name in PROMPTS and not template[PROMPTS[name]]}
    if names:
        ignored["extra_vars"] = {name: answers.pop(name) for name in names}
    _check_required(spec, answers)
    job = {
        "ignored_fields": ignored,
        "job_type": template["job_type"],
        "limit": template["limit"],
        "diff_mode": template["diff_mode"],
    }
    job |= {name: value for name, value in body.items() if name in PROMPTS and name not in ignored}
    variables = {**parse_text(template["extra_vars"]), **take_defaults(spec), **answers}
    return {**job, "extra_vars": json.dumps(variables), "launch_type": "manual", "status": "pending"}


def launch_workflow(template: Json, survey: Json | None, body: Json) -> Json:
    """Return the workflow job: what it does not ask for is refused."""
    spec = (survey or {}).get("spec", [])
    answers = _read_answers(body)
    problems: Json = {name: NOT_ASKED for name in body if name in PROMPTS and not template.get(PROMPTS[name])}
    names = _find_not_allowed(template, spec, answers)
    if names:
        problems["extra_vars"] = _refuse_variables(template, names)
    if problems:
        raise RefusedError(problems)
    _check_required(spec, answers)
    variables = {**parse_text(template["extra_vars"]), **take_defaults(spec), **answers}
    return {"ignored_fields": {}, "limit": template["limit"], "extra_vars": json.dumps(variables)}


def _read_answers(body: Json) -> Json:
    given: Any = body.get("extra_vars") or {}
    try:
        return dict(given) if isinstance(given, dict) else parse_text(given)
    except RefusedError as refused:
        raise RefusedError({"extra_vars": refused.body}) from refused


def _check_required(spec: list[Json], answers: Json) -> None:
    wrong = check_answers(spec, answers)
    if wrong:
        raise RefusedError({"variables_needed_to_start": wrong})
