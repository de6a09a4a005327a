# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.awx_rule."""

from __future__ import annotations

DOCUMENTATION = r"""
name: awx_rule
short_description: "[INTERNAL] The rule of an AWX schedule, from a declared time of day"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - For the role P(lowtide.ops.awx#role) only; what it takes and returns may change at any time.
options:
  _input:
    description: An entry of the input C(awx_schedules).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the rule
  ansible.builtin.debug:
    msg: "{{ {'time': '02:00', 'zone': 'Europe/Berlin', 'weekdays': ['sat']} | lowtide.ops.awx_rule }}"
"""

RETURN = r"""
_value:
  description: What the module awx.awx.schedule takes as C(rrule).
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._awx import make_rule


def rule(schedule: t.Mapping[str, t.Any]) -> str:
    """Return the rule. What AWX would refuse fails the task with object, problem and next step."""
    try:
        return make_rule(schedule)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"awx_rule": rule}
