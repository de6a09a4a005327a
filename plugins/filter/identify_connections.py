# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.identify_connections."""

from __future__ import annotations

DOCUMENTATION = r"""
name: identify_connections
short_description: "[INTERNAL] List every distinct connection of an inventory with the hosts that use it"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the playbook C(lowtide.ops.identify) and may change with it.
options:
  _input:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts to look at.
    type: list
    elements: str
    required: true
positional: hosts
"""

EXAMPLES = r"""
connections: "{{ hostvars | lowtide.ops.identify_connections(ansible_play_hosts_all) }}"
"""

RETURN = r"""
_value:
  description:
    - By kind of system (C(kubernetes), C(kafka), C(postgresql), C(s3)) a list of connections, each with the C(host) to
      ask and all of its C(hosts), and without what it connects with.
    - Under C(unreadable) the variables that have no value, and why.
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._identify import list_connections


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"identify_connections": list_connections}
