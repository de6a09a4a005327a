# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two places that say the same thing, compared: each function returns the differences as readable lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What documentation and argument specification both say of an option, and what silence means.
COMPARED = {"type": "str", "default": None, "required": False, "choices": None, "elements": None, "aliases": []}


def role_drift(role: str, defaults: Mapping[str, Any], specs: Mapping[str, Any], entry_points: set[str]) -> list[str]:
    """``defaults/main.yml`` against ``meta/argument_specs.yml``: names and values, over every entry point.

    ``entry_points`` are the task files that exist. An input without a default in one place has none in the other.
    """
    found = []
    documented: dict[str, list[Mapping[str, Any]]] = {}
    for entry, spec in specs.items():
        if entry not in entry_points:
            found.append(f"entry point {entry} has no tasks/{entry}.yml")
        if not spec.get("short_description"):
            found.append(f"entry point {entry} has no short_description")
        for name, option in (spec.get("options") or {}).items():
            documented.setdefault(name, []).append(option)
            if not name.startswith(f"{role}_"):
                found.append(f"input {name} does not start with {role}_")
            if not option.get("description"):
                found.append(f"input {name} has no description")
            if option.get("required") and "default" in option:
                found.append(f"input {name} is required and has a default")
    for name, value in defaults.items():
        if name not in documented:
            found.append(f"default {name} is no input")
    for name, options in documented.items():
        for option in options:
            if "default" in option and name not in defaults:
                found.append(f"input {name} has the default {option['default']!r}, which defaults/main.yml lacks")
            elif name in defaults and "default" not in option:
                found.append(f"defaults/main.yml sets {name} to {defaults[name]!r}, its documentation names no default")
            elif name in defaults and (option["default"] != defaults[name] or type(option["default"]) is not type(defaults[name])):
                found.append(f"input {name} is documented as {option['default']!r} and is {defaults[name]!r}")
    return found


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


def group_drift(groups: Mapping[str, list[str]], fragments: Mapping[str, list[str]], collection: str = "lowtide.ops") -> list[str]:
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
