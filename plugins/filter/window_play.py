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
    description:
      - The number of the play among all plays of the window, or the name of a step,
      - or one of V(:planning_reverts), V(:planning) and V(:reverting).
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

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.declaration import STANDBY
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.inputs import as_plain

NO_HOST = "all:!all"
REVERTING = ":reverting"
EXTRA_PLAYS = {
    ":planning_reverts": ("planning_reverts", "Find out what is in force"),
    ":planning": ("planning", "Find out what is due"),
    REVERTING: ("hosts", "Revert what is still in force"),
}
"""Plays that are not those of a step: the key of their hosts, and their title."""


def is_listing() -> bool:
    """Return whether ansible-playbook only lists or parses: nothing can have been opened then."""
    return any(context.CLIARGS.get(option) for option in ("listhosts", "listtasks", "listtags", "syntax"))


def find_extra_play(control: t.Mapping[str, t.Any], place: int | str) -> dict[str, t.Any] | None:
    """Return title and hosts of a play that is not a step's, None when it has nothing to do."""
    key, title = EXTRA_PLAYS[str(place)]
    variable = "__window_in_force" if place == REVERTING else "window_opened"
    values = as_plain(control[variable]) if variable in control else {}
    hosts = list(values.get(key) or {})
    return {"title": title, "hosts": hosts} if hosts else None


def find_step_play(
    plays: t.Sequence[t.Mapping[str, t.Any]], place: int | str, batch: int
) -> t.Mapping[str, t.Any] | None:
    """Return the play of a place, None when no step stands there."""
    for number, play in enumerate(plays):
        if place == number if isinstance(place, int) else (place, batch) == (play["step"], play["batch"]):
            return play
    return None


def find_play(control: t.Mapping[str, t.Any], name: str, place: int | str, batch: int) -> dict[str, t.Any] | None:
    """Return title and hosts of a place in a window that is open; None when it is not used."""
    if place in EXTRA_PLAYS:
        extra = find_extra_play(control, place)
        return {**extra, "hosts": [*extra["hosts"], name, STANDBY]} if extra else None
    if "__window_begin" in control and as_plain(control["__window_begin"]).get("over"):
        return {"title": f"Place {place}: nothing is left to do after a failure", "hosts": NO_HOST}
    plays = list(as_plain(control["window_opened"]).get("plays") or [])
    play = find_step_play(plays, place, batch)
    if play is not None:
        standby = [STANDBY] if name in play["hosts"] else []  # there the control host itself may be lost
        return {"title": play["title"], "hosts": [*play["hosts"], name, *standby]}
    if isinstance(place, str) and batch == 0 and place not in {other["step"] for other in plays}:
        # A step of a playbook of one's own, misspelt: not left out in silence, the engine refuses it by its name.
        return {"title": f"Step {place}, which is not declared", "hosts": [name, STANDBY]}
    return None


def window_play(
    hostvars: t.Mapping[str, t.Any], groups: t.Mapping[str, t.Any], place: int | str, batch: int = 0
) -> dict[str, t.Any]:
    """Return title and hosts of a play."""
    unused = {"title": f"Place {place} is not used", "hosts": NO_HOST}
    members = list(groups.get("control") or []) if groups else []
    is_opened = bool(hostvars) and bool(members) and "window_opened" in hostvars[str(members[0])]
    if not is_opened:
        if place in EXTRA_PLAYS or is_listing():
            return unused
        # As after --limit or --start-at-task: each host is told so, instead of nothing being done and rc 0.
        return {"title": "The window was not opened", "hosts": "all"}
    name = str(members[0])
    play = find_play(hostvars[name], name, place, batch) or unused
    hosts = play["hosts"]
    return {**play, "hosts": hosts if isinstance(hosts, str) else list(dict.fromkeys(hosts))}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The one filter."""
        return {"window_play": window_play}
