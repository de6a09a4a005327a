# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.health_lines."""

from __future__ import annotations

DOCUMENTATION = r"""
name: health_lines
short_description: "[INTERNAL] Turn what was read of a system into the lines of a verdict"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide)
description:
  - This filter belongs to the role P(lowtide.ops.health#role) and may change with it.
options:
  _input:
    description: The result of the task that read the system, also when it failed.
    type: dict
    required: true
  kind:
    description: What was read.
    type: str
    required: true
    choices: [workloads, groups, database, backups, alerts]
  limits:
    description: What was declared, C(name) among it, the object to name when nothing could be read.
    type: dict
    required: true
positional: kind, limits
"""

EXAMPLES = r"""
lines: "{{ seen | lowtide.ops.health_lines('groups', {'name': 'bus', 'warn_ratio': 0.8, 'groups': [{'name': 'g', 'max_lag': 10}]}) }}"
"""

RETURN = r"""
_value:
  description: Lines, each with C(level) (OK, WARN or FAIL), C(object), C(seen) and C(text).
  type: list
  elements: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._health import health_lines


def lines(result: t.Mapping[str, t.Any], kind: str, limits: t.Mapping[str, t.Any]) -> list[dict[str, str]]:
    """The filter: an input that cannot be understood fails the task with object, value and next step."""
    try:
        return health_lines(result, kind, limits)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The one filter."""
        return {"health_lines": lines}
