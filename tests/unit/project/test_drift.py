# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said twice is the same in both places; and each comparison finds a difference put there on purpose."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.checkout import below, load_yaml, module_names, playbook_names, role_names, text
from support.drift import group_drift, option_drift, role_drift
from support.modules import CHECKOUT

PLUGINS = "ansible_collections.lowtide.ops.plugins"
# Each connection's documentation fragment, and where its argument specification lives.
CONNECTIONS = {
    "_kafka": ("_kafka.connection", "connection_spec"),
    "_kubernetes": ("_kubernetes.arguments", "CONNECTION_SPEC"),
    "_mysql": ("_mysql.connection", "CONNECTION_SPEC"),
    "_patroni": ("_patroni.arguments", "CONNECTION"),
    "_postgresql": ("_postgresql.connection", "CONNECTION_SPEC"),
    "_s3": ("_s3.connection", "ARGUMENT_SPEC"),
}


def entry_points(role: str) -> set[str]:
    """The role's task files, by name without suffix."""
    return {path.stem for path in below(f"roles/{role}/tasks", ".yml")}


def module_documentation(name: str) -> dict[str, Any]:
    """The parsed DOCUMENTATION of a module."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    documentation: dict[str, Any] = yaml.safe_load(module.DOCUMENTATION)
    return documentation


def extended_fragments(name: str) -> list[str]:
    """The fragments that a module extends, by full name."""
    extended = module_documentation(name).get("extends_documentation_fragment", [])
    return [extended] if isinstance(extended, str) else list(extended)


@pytest.mark.parametrize("role", role_names())
def test_role_defaults_are_what_is_documented(role: str) -> None:
    """Names and values, every entry point."""
    defaults_path = Path(f"roles/{role}/defaults/main.yml")
    defaults = load_yaml(defaults_path) if (CHECKOUT / defaults_path).exists() else {}
    specs = load_yaml(Path(f"roles/{role}/meta/argument_specs.yml"))["argument_specs"]
    assert specs
    assert role_drift(role, defaults or {}, specs, entry_points(role)) == []


@pytest.mark.parametrize("role", role_names())
def test_role_has_a_readme(role: str) -> None:
    """Short, and there."""
    assert (CHECKOUT / "roles" / role / "README.md").is_file()


@pytest.mark.parametrize("role", [role for role in role_names() if "main" in entry_points(role)])
def test_procedure_has_a_scenario_and_a_result(role: str) -> None:
    """A role that performs a procedure has a scenario, and sets the fact by which others read its result."""
    for needed in (f"molecule/{role}/converge.yml", f"molecule/{role}/verify.yml"):
        assert (CHECKOUT / needed).is_file(), needed
    assert any(f"{role}_result" in text(path) for path in below(f"roles/{role}/tasks", ".yml"))


def test_every_option_of_maintenance_can_be_set_by_the_role() -> None:
    """Under its own name; the connection is one variable."""
    specification = importlib.import_module(f"{PLUGINS}.module_utils._postgresql.arguments").MAINTENANCE_SPEC
    connection = importlib.import_module(f"{PLUGINS}.module_utils._postgresql.connection").CONNECTION_SPEC
    options = set(specification) - set(connection)
    role = "database_maintenance"
    documented = load_yaml(Path(f"roles/{role}/meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    assert {f"{role}_{option}" for option in options} | {f"{role}_connection"} == set(documented)
    (block,) = load_yaml(Path(f"roles/{role}/tasks/main.yml"))
    (task,) = [task["lowtide.ops.pg_maintenance"] for task in block["block"] if "lowtide.ops.pg_maintenance" in task]
    assert set(task) == options
    assert all(f"{role}_{option}" in task[option] for option in options)
    readme = text(Path(f"roles/{role}/README.md"))
    assert [option for option in sorted(options) if f"_{option}`" not in readme] == []


def test_action_groups_are_what_modules_document() -> None:
    """``meta/runtime.yml`` against each module's fragments, both ways."""
    groups = load_yaml(Path("meta/runtime.yml"))["action_groups"]
    assert group_drift(groups, {name: extended_fragments(name) for name in module_names()}) == []


@pytest.mark.parametrize("name", sorted(CONNECTIONS))
def test_connection_options_are_what_is_documented(name: str) -> None:
    """A fragment and the argument specification that it mirrors."""
    place, attribute = CONNECTIONS[name]
    specification = getattr(importlib.import_module(f"{PLUGINS}.module_utils.{place}"), attribute)
    fragment = importlib.import_module(f"{PLUGINS}.doc_fragments.{name}").ModuleDocFragment
    documented = yaml.safe_load(fragment.DOCUMENTATION)["options"]
    assert option_drift(documented, specification() if callable(specification) else specification) == []


def test_every_connection_fragment_is_compared() -> None:
    """A new fragment gets a line in the table above."""
    assert {path.stem for path in below("plugins/doc_fragments", ".py")} - {
        "_attributes",
        "__init__",
    } == CONNECTIONS.keys()


@pytest.mark.parametrize("name", module_names())
def test_module_is_documented_in_the_readme(name: str) -> None:
    """A newcomer sees every module, role and playbook in one place."""
    assert f"`{name}`" in text(Path("README.md"))


@pytest.mark.parametrize("name", [*role_names(), *playbook_names()])
def test_role_and_playbook_are_documented_in_the_readme(name: str) -> None:
    """A newcomer sees every module, role and playbook in one place."""
    assert f"`{name}`" in text(Path("README.md"))


@pytest.mark.parametrize(
    ("defaults", "option"),
    [
        ({"r_a": 1}, {"type": "int", "default": 2, "description": "d"}),
        ({"r_a": True}, {"type": "int", "default": 1, "description": "d"}),
        ({"r_a": 1}, {"type": "int", "description": "d"}),
        ({}, {"type": "int", "default": 1, "description": "d"}),
        ({}, {"type": "int", "default": 1, "description": "d", "required": True}),
        ({}, {"type": "int"}),
    ],
)
def test_role_drift_is_found(defaults: dict[str, Any], option: dict[str, Any]) -> None:
    """A value, a type, a name that one side lacks, an input without words."""
    good = (
        {"r_a": 1},
        {"main": {"short_description": "s", "options": {"r_a": {"type": "int", "default": 1, "description": "d"}}}},
    )
    assert role_drift("r", *good, {"main"}) == []
    assert role_drift("r", defaults, {"main": {"short_description": "s", "options": {"r_a": option}}}, {"main"}) != []


@pytest.mark.parametrize(
    ("default", "option"),
    [
        ("{{ site | mandatory('set site') }}", {"required": True, "description": "Without it, the site's."}),
        ("{{ site | mandatory('set site') }}", {"description": "Without it, C(site)."}),
        ("{{ site | default([]) }}", {"required": True, "description": "Without it, C(site)."}),
        ("{{ [] }}", {"description": "Nothing."}),
        ("{{ site | default([]) }}", {"default": "x", "description": "Without it, C(site)."}),
    ],
    ids=["undocumented", "mandatory_and_optional", "optional_and_required", "constant", "two_defaults"],
)
def test_drift_of_defaults_from_site_variables_is_found(default: str, option: dict[str, Any]) -> None:
    """The variable that is not named, a need that only one side states, a template of nothing."""

    def drift(option: dict[str, Any], default: str) -> list[str]:
        spec = {"main": {"short_description": "s", "options": {"r_a": option}}}
        return role_drift("r", {"r_a": default}, spec, {"main"})

    assert drift({"description": "Without it, C(site)."}, "{{ site | default([]) }}") == []
    assert drift({"required": True, "description": "C(site)."}, "{{ site | mandatory(inventory_hostname) }}") == []
    assert len(drift(option, default)) == 1


def test_role_drift_is_found_in_names_and_entry_points() -> None:
    """A default nobody documented, an input of another name, an entry point without tasks."""
    specs = {"other": {"short_description": "s", "options": {"x_a": {"description": "d"}}}}
    assert role_drift("r", {"r_b": 1}, specs, {"main"}) == [
        "entry point other has no tasks/other.yml",
        "input x_a does not start with r_",
        "default r_b is no input",
    ]


@pytest.mark.parametrize(
    "documented",
    [{}, {"a": {"type": "int"}}, {"a": {"type": "str", "default": "x"}}, {"a": {"type": "str"}, "b": {"type": "str"}}],
)
def test_option_drift_is_found(documented: dict[str, Any]) -> None:
    """Missing, another type, another default, one too many."""
    assert option_drift({"a": {}}, {"a": {"type": "str"}}) == []
    assert len(option_drift(documented, {"a": {"type": "str"}})) == 1


@pytest.mark.parametrize(
    ("groups", "fragments"),
    [
        ({"g": ["lowtide.ops.m"]}, {}),
        ({"g": []}, {"m": ["lowtide.ops._attributes.actiongroup_g"]}),
        ({"g": ["lowtide.ops.m"]}, {"m": ["lowtide.ops._g"]}),
        ({"g": ["lowtide.ops.m"]}, {"m": ["lowtide.ops._attributes.actiongroup_g"]}),
    ],
)
def test_group_drift_is_found(groups: dict[str, list[str]], fragments: dict[str, list[str]]) -> None:
    """A member that is no module, a module that is no member, a member without the connection."""
    assert (
        group_drift({"g": ["lowtide.ops.m"]}, {"m": ["lowtide.ops._g", "lowtide.ops._attributes.actiongroup_g"]}) == []
    )
    assert len(group_drift(groups, fragments)) == 1
