# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role awx declares: calls as complete as recorded ones, examples of inputs, types that are taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.awx_objects import load
from support.awx_stand_in import AwxStandIn
from support.checkout import load_yaml, text

NOT_MADE: dict[str, set[str]] = {
    "organization": {"description", "galaxy_credentials"},
    "execution_environment": {"pull", "description"},
    "project": {"description", "scm_update_cache_timeout", "update_project", "local_path"},
    "inventory": {"description", "variables", "instance_groups", "prevent_instance_group_fallback"},
    "workflow_job_template": {"workflow_nodes"},
    "workflow_job_template_node": {"extra_data"},
    "schedule": {"description"},
    "credential": set(),
}
"""Options of recorded calls that the role leaves as they are in AWX, or does in another way."""


def list_tasks(name: str) -> list[dict[str, Any]]:
    """Return the tasks of a file of the role, those in blocks too."""
    found, ahead = [], list(load_yaml(Path(f"roles/awx/tasks/{name}.yml")))
    while ahead:
        task = ahead.pop(0)
        ahead += [inner for key in ("block", "rescue") for inner in task.get(key, [])]
        found.append(task)
    return found


def test_calls_are_as_complete_as_recorded_ones() -> None:
    """Each option that a real AWX was given is given, or known not to be."""
    given: dict[str, set[str]] = {}
    for name in ("base", "templates", "workflow"):
        for task in list_tasks(name):
            for key, options in task.items():
                if key.startswith("awx.awx."):
                    given.setdefault(key.removeprefix("awx.awx."), set()).update(options)
    missing: dict[str, set[str]] = {}
    for entry in load("objects"):
        kind = entry["module"].removeprefix("awx.awx.")
        if kind in given and entry["input"].get("kind") != "constructed":
            lacking = set(entry["input"]) - given[kind] - NOT_MADE.get(kind, set())
            missing |= {kind: lacking} if lacking else {}
    assert missing == {}
    assert given["job_template"] >= {"ask_limit_on_launch", "ask_tags_on_launch", "ask_skip_tags_on_launch"}
    assert given["job_template"] >= {"host_config_key", "webhook_service", "scm_branch"}, "what starts or changes it"


@pytest.mark.parametrize("page", ["docs/awx.md", "roles/awx/README.md"])
def test_examples_declare_inputs(page: str) -> None:
    """Of the role, by their keys too."""
    options = load_yaml(Path("roles/awx/meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    examples = [yaml.safe_load(example) for example in re.findall(r"```yaml\n(.*?)```", text(Path(page)), re.DOTALL)]
    assert examples
    window = load_yaml(Path("roles/window/meta/argument_specs.yml"))["argument_specs"]["open"]["options"]
    for name, value in [item for example in examples for item in example.items()]:
        assert name in (window if name.startswith("window_") else options)
        if name.startswith("window_"):
            continue
        for entry in value if options[name].get("options") else []:
            assert set(entry) <= set(options[name]["options"]), (name, entry)


def test_no_input_is_a_variable_of_awx() -> None:
    """AWX gives each job variables that begin with awx_, and they win."""
    options = load_yaml(Path("roles/awx/meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    by_awx = ("awx_job_", "awx_user_", "awx_schedule_", "awx_workflow_", "awx_parent_", "awx_inventory_id")
    assert [name for name in options if name.startswith(by_awx)] == []
    taken = {"awx_project_revision", "awx_project_scm_branch", "awx_inventory_name", "awx_execution_node"}
    assert taken & set(options) == set()


def test_a_certificate_of_postgresql_proves_the_server() -> None:
    """Under libpq's default the authority would be asked for, and prove nothing."""
    kinds = {
        kind["name"]: kind["injectors"]
        for kind in load_yaml(Path("roles/awx/vars/main.yml"))["__awx_all_credential_types"]
    }
    assert kinds["lowtide PostgreSQL certificate"]["env"]["PGSSLMODE"] == "verify-full"


def test_credential_types_of_the_role_are_taken() -> None:
    """Each of them, and as it is: a second run would change it otherwise."""
    kinds = load_yaml(Path("roles/awx/vars/main.yml"))["__awx_all_credential_types"]
    choices = load_yaml(Path("roles/awx/meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    assert [kind["name"] for kind in kinds] == choices["awx_credential_types"]["choices"]
    awx = AwxStandIn()
    for kind in kinds:
        status, made = awx.ask("POST", "/api/v2/credential_types/", {"kind": "cloud", **kind})
        assert (status, made["inputs"], made["injectors"]) == (201, kind["inputs"], kind["injectors"])
