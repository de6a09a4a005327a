# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.window_play."""

from __future__ import annotations

DOCUMENTATION = r"""
name: window_play
short_description: "[INTERNAL] The play of a window that stands at a place of its playbook"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the playbooks of the collection and may change with them.
options:
  _input:
    description: The variable C(hostvars), or an empty dictionary where a playbook is only listed.
    type: dict
    required: true
  groups:
    description: The variable C(groups).
    type: dict
    required: true
  place:
    description: The number of the play among all plays of the window, or the name of a step, or V(planning).
    type: raw
    required: true
  batch:
    description: The batch of a step that is given by its name, from 0.
    type: int
    default: 0
positional: groups, place, batch
"""

EXAMPLES = r"""
hosts: "{{ (hostvars | lowtide.ops.window_play(groups, 0)).hosts }}"
"""

RETURN = r"""
_value:
  description: C(title) for C(name) and C(hosts) for C(hosts) of the play. A place that is not used matches no host.
  type: dict
"""

import typing as t

from ansible import context

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.inputs import as_plain

NO_HOST = "all:!all"
PLANNING = "planning"


def is_listing() -> bool:
    """Return whether ansible-playbook only lists or parses: nothing can have been opened then."""
    return any(context.CLIARGS.get(option) for option in ("listhosts", "listtasks", "listtags", "syntax"))


def find_hosts_to_plan(control: t.Mapping[str, t.Any]) -> list[str]:
    """Return the hosts that plan a step."""
    opened = as_plain(control["window_opened"]) if "window_opened" in control else {}
    return list(opened.get("planning") or {})


def window_play(
    hostvars: t.Mapping[str, t.Any], groups: t.Mapping[str, t.Any], place: int | str, batch: int = 0
) -> dict[str, t.Any]:
    """Return title and hosts of a play."""
    unused = {"title": f"Place {place} is not used", "hosts": NO_HOST}
    members = list(groups.get("control") or []) if groups else []
    # As after --limit or --start-at-task: each host is told so, instead of nothing being done and rc 0.
    not_opened = {"title": "The window was not opened", "hosts": "all"}
    if not hostvars or not members:
        return unused if place == PLANNING or is_listing() else not_opened
    name = str(members[0])
    control = hostvars[name]
    if place == PLANNING:
        hosts = find_hosts_to_plan(control)
        return {"title": "Find out what is due", "hosts": [*hosts, name]} if hosts else unused
    if "__window_begin" in control and as_plain(control["__window_begin"]).get("over"):
        return {**unused, "title": f"Place {place}: nothing is left to do after a failure"}
    if "window_opened" not in control:
        return not_opened
    for number, play in enumerate(as_plain(control["window_opened"]).get("plays") or []):
        if place == number if isinstance(place, int) else (place, batch) == (play["step"], play["batch"]):
            return {"title": play["title"], "hosts": [*play["hosts"], *([name] if name not in play["hosts"] else [])]}
    return unused


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The one filter."""
        return {"window_play": window_play}
