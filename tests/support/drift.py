# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two places that say the same thing, compared: each function returns the differences as readable lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import jinja2.meta

# What documentation and argument specification both say of an option, and what silence means.
COMPARED: dict[str, Any] = {
    "type": "str",
    "default": None,
    "required": False,
    "choices": None,
    "elements": None,
    "aliases": [],
}


def _spec_findings(role: str, specs: Mapping[str, Any], entry_points: set[str]) -> Iterator[str]:
    """What is wrong with the argument specifications by themselves."""
    for entry, spec in specs.items():
        if entry not in entry_points:
            yield f"entry point {entry} has no tasks/{entry}.yml"
        if not spec.get("short_description"):
            yield f"entry point {entry} has no short_description"
        for name, option in (spec.get("options") or {}).items():
            if not name.startswith(f"{role}_"):
                yield f"input {name} does not start with {role}_"
            if not option.get("description"):
                yield f"input {name} has no description"
            if option.get("required") and "default" in option:
                yield f"input {name} is required and has a default"


def _default_finding(role: str, name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """How one documented input differs from ``defaults/main.yml``, None when it does not."""
    if name not in defaults:
        return (
            f"input {name} has the default {option['default']!r}, which defaults/main.yml lacks"
            if "default" in option
            else None
        )
    if "default" not in option and isinstance(defaults[name], str) and "{{" in defaults[name]:
        return _template_finding(role, name, option, defaults[name])
    if "default" not in option:
        return f"defaults/main.yml sets {name} to {defaults[name]!r}, its documentation names no default"
    if option["default"] != defaults[name] or type(option["default"]) is not type(defaults[name]):
        return f"input {name} is documented as {option['default']!r} and is {defaults[name]!r}"
    return None


def _template_finding(role: str, name: str, option: Mapping[str, Any], template: str) -> str | None:
    """How an input whose default comes from other variables differs from its documentation, None when it does not.

    The documentation names each of these variables and no value. It is ``required`` exactly where the default cannot
    do without them, that is, where it begins with a variable that is ``mandatory``.
    """
    environment = jinja2.Environment(autoescape=True)
    environment.filters["mandatory"] = str  # Ansible's; only names are looked for
    used = jinja2.meta.find_undeclared_variables(environment.parse(template))
    site = sorted(
        variable for variable in used if variable != "inventory_hostname" and not variable.startswith(f"{role}_")
    )
    described = str(option.get("description"))
    missing = [variable for variable in site if f"C({variable})" not in described]
    if missing or not site:
        return (
            f"input {name} comes from {', '.join(site) or 'no variable'}, its documentation lacks {', '.join(missing)}"
        )
    if bool(option.get("required")) is not ("mandatory(" in template and " if " not in template):
        return f"input {name} is required={bool(option.get('required'))}, its default is {template!r}"
    return None


def role_drift(role: str, defaults: Mapping[str, Any], specs: Mapping[str, Any], entry_points: set[str]) -> list[str]:
    """``defaults/main.yml`` against ``meta/argument_specs.yml``: names and values, over every entry point.

    ``entry_points`` are the task files that exist. An input without a default in one place has none in the other.
    """
    inputs = [(name, option) for spec in specs.values() for name, option in (spec.get("options") or {}).items()]
    documented = {name for name, _option in inputs}
    return [
        *_spec_findings(role, specs, entry_points),
        *(f"default {name} is no input" for name in defaults if name not in documented),
        *filter(None, (_default_finding(role, name, option, defaults) for name, option in inputs)),
    ]


def option_drift(documented: Mapping[str, Any], specified: Mapping[str, Any]) -> list[str]:
    """A documentation fragment's options against an argument specification."""
    found = [f"{name} is documented and not accepted" for name in sorted(documented.keys() - specified.keys())]
    found += [f"{name} is accepted and not documented" for name in sorted(specified.keys() - documented.keys())]
    for name in sorted(documented.keys() & specified.keys()):
        for key, silence in COMPARED.items():
            said, done = documented[name].get(key, silence), specified[name].get(key, silence)
            if said != done:
                found.append(f"{name}: {key} is documented as {said!r} and is {done!r}")
        inner = option_drift(documented[name].get("suboptions") or {}, specified[name].get("options") or {})
        found += [f"{name}.{line}" for line in inner]
    return found


def group_drift(
    groups: Mapping[str, list[str]], fragments: Mapping[str, list[str]], collection: str = "lowtide.ops"
) -> list[str]:
    """Action groups of ``meta/runtime.yml`` against the fragments that each module extends.

    ``fragments`` maps a module's short name to the full names of its fragments. Membership is documented by
    ``_attributes.actiongroup_NAME`` and means that the module takes the connection of that name: fragment ``_NAME``.
    """
    found = []
    for group, members in groups.items():
        if members != sorted(set(members)):
            found.append(f"group {group} is not sorted, or names a module twice")
        for member in members:
            name = member.removeprefix(f"{collection}.")
            if name not in fragments:
                found.append(f"group {group} names {member}, which does not exist")
                continue
            found.extend(
                f"{member} is in group {group} and does not extend {wanted}"
                for wanted in (f"{collection}._attributes.actiongroup_{group}", f"{collection}._{group}")
                if wanted not in fragments[name]
            )
    for name, extended in fragments.items():
        for fragment in extended:
            group = fragment.removeprefix(f"{collection}._attributes.actiongroup_")
            if group != fragment and f"{collection}.{name}" not in groups.get(group, []):
                found.append(f"{name} documents group {group} and is not in it")
    return found
