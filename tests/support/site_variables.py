# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tables of docs/site-variables.md, from what roles, playbooks and connection fragments say of themselves.

A page holds prose, and for each table a pair of comments ``<!-- table NAME -->`` and ``<!-- end NAME -->``: the
table between them is written anew.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from . import checkout

PAGE = Path("docs/site-variables.md")
SITE_VARIABLES = {
    "kubernetes_connection": "a dictionary, see [below](#kubernetes_connection)",
    "kafka_connection": "a dictionary, see [below](#kafka_connection)",
    "postgresql_connection": "a dictionary, see [below](#postgresql_connection)",
    "mysql_connection": "a dictionary, see [below](#mysql_connection)",
    "patroni_connection": "a dictionary, see [below](#patroni_connection)",
    "s3_connection": "a dictionary, see [below](#s3_connection)",
    "kubernetes_namespace": "a name",
    "tiers": "a list of lists of `{kind, name}` (also with `replicas`, and of another API `api_version`) in start"
    " order; a flat list is one tier",
    "consumer_groups": "a list of names",
    "topics": "a list of names",
    "bucket": "a name",
}
"""The variables that inputs of roles default to, with the shape of each."""
SET_BY_PLAYBOOKS = {
    "window_batch",
    "window_mode",
    "window_place",
    "window_places",
    "window_planning",
    "window_procedure",
    "window_step",
}
"""Inputs of the role window that are no business of a site."""
TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
MARKUP = re.compile(r"\b[A-Z]\(((?:[^()]|\([^()]*\))*)\)")
NAMED = re.compile(r"\bC\((\w+)\)")

Inputs = dict[str, list[str]]


def find_inputs(role: str, specs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find each site variable that an input of the role defaults to, with that input."""
    for spec in specs.values():
        for name, option in (spec.get("options") or {}).items():
            words = " ".join(_list_sentences(option.get("description")))
            for variable in NAMED.findall(words):
                if variable in SITE_VARIABLES and name.startswith(f"{role}_"):
                    yield variable, name


def collect_inputs() -> Inputs:
    """Return the inputs of all roles by the site variable that they default to, as they are documented."""
    inputs: Inputs = {name: [] for name in SITE_VARIABLES}
    for role in checkout.role_names():
        specs = checkout.load_yaml(Path(f"roles/{role}/meta/argument_specs.yml"))["argument_specs"]
        for variable, name in find_inputs(role, specs):
            if name not in inputs[variable]:
                inputs[variable].append(name)
    return inputs


def _list_sentences(description: Any) -> list[str]:
    return [description] if isinstance(description, str) else list(description or [])


def make_plain(description: Any) -> str:
    """Return a description as Markdown for the cell of a table: markup becomes code, a bar is escaped."""
    words = " ".join(" ".join(_list_sentences(description)).split())
    return MARKUP.sub(r"`\1`", words).replace("|", "\\|")


def make_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def make_variables_table(inputs: Inputs) -> str:
    """Return the table of site variables: shape, and which inputs default to each."""
    rows = [
        [f"`{name}`", shape, ", ".join(f"`{item}`" for item in inputs[name])] for name, shape in SITE_VARIABLES.items()
    ]
    return make_table(["variable", "shape", "inputs that default to it"], rows)


def make_connection_table(options: Mapping[str, Any]) -> str:
    """Return the keys of a connection."""
    rows = [
        [
            f"`{name}`",
            "required" if option.get("required") else _show_default(option.get("default")),
            make_plain(option["description"]) + _show_choices(option.get("choices")),
        ]
        for name, option in options.items()
    ]
    return make_table(["key", "default", "what"], rows)


def _show_default(value: Any) -> str:
    if value is None or value in ([], "") or "{{" in str(value):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _show_choices(choices: list[Any] | None) -> str:
    return f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""


def make_window_table(specs: Mapping[str, Any]) -> str:
    """Return the variables of a window that a site sets."""
    options = {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}
    rows = [
        [f"`{name}`", _show_default(option.get("default")), make_plain(option["description"])]
        for name, option in options.items()
        if name not in {*SET_BY_PLAYBOOKS, "window_steps"}
    ]
    return make_table(["variable", "default", "what"], rows)


def make_playbooks_table(playbooks: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return the hosts of the playbooks that perform one role."""
    rows = [
        [f"`{name}`", f"`{play['hosts']}`"]
        for name, plays in playbooks.items()
        for play in plays
        for task in play.get("tasks") or []
        if "window_procedure" in (task.get("vars") or {})
    ]
    return make_table(["playbook", "hosts"], rows)


def load_connection(system: str) -> dict[str, Any]:
    """Return the options of a connection, as its fragment documents them."""
    place = f"ansible_collections.lowtide.ops.plugins.doc_fragments._{system}"
    options: dict[str, Any] = yaml.safe_load(importlib.import_module(place).ModuleDocFragment.DOCUMENTATION)["options"]
    return options


def make_tables() -> dict[str, str]:
    """Return all tables of the page as the checkout has them now, by name."""
    window = checkout.load_yaml(Path("roles/window/meta/argument_specs.yml"))["argument_specs"]
    playbooks = {name: checkout.load_yaml(Path(f"playbooks/{name}.yml")) for name in checkout.playbook_names()}
    connections = {
        name: make_connection_table(load_connection(name))
        for name in ("kubernetes", "kafka", "postgresql", "mysql", "patroni", "s3")
    }
    return {
        "variables": make_variables_table(collect_inputs()),
        "window": make_window_table(window),
        "playbooks": make_playbooks_table(playbooks),
        **connections,
    }


def write_tables(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with its tables written anew. Raise KeyError for a table that nothing makes."""
    return TABLE.sub(lambda match: f"{match[1]}{tables[match[2]]}{match[3]}", page)


def make_page() -> str:
    """Return the page as the checkout has it now."""
    return write_tables(checkout.text(PAGE), make_tables())
