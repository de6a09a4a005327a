# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.awx_schedules."""

from __future__ import annotations

DOCUMENTATION = r"""
name: awx_schedules
short_description: "[INTERNAL] The schedules of AWX, from declared times of day"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - For the role P(lowtide.ops.awx#role) only; what it takes and returns may change at any time.
options:
  _input:
    description: The input C(awx_schedules).
    type: list
    elements: dict
    required: true
  surveys:
    description: The questions of each template that can be launched, by its name behind the site's.
    type: dict
    required: true
positional: surveys
"""

EXAMPLES = r"""
- name: Show the rule
  ansible.builtin.debug:
    msg: "{{ [{'time': '04:00', 'zone': 'Europe/Berlin', 'weekdays': ['sat']}] | lowtide.ops.awx_schedules(surveys) }}"
  vars:
    surveys: {approved window: []}
"""

RETURN = r"""
_value:
  description:
    - Of each schedule C(name), C(template), C(rule) as the module awx.awx.schedule takes it, C(answers), C(enabled),
      and C(left_out), the days within a year on which the clock goes forward over its hour - AWX starts nothing then.
  type: list
  elements: dict
"""

import time
import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._awx import plan_schedules


def schedules(entries: t.Sequence[t.Mapping[str, t.Any]], surveys: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the schedules. What AWX would refuse fails the task with object, problem and next step."""
    try:
        return plan_schedules(entries, surveys, time.time())
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"awx_schedules": schedules}
