# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.health_plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: health_plan
short_description: "[INTERNAL] Decide from the inputs of the role health what is to be checked on a host"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.health#role) and may change with it.
options:
  _input:
    description: The inputs of the role without their prefix, null where neither the input nor its site variable is set.
    type: dict
    required: true
  host:
    description: Whose inputs they are.
    type: str
    required: true
positional: host
"""

EXAMPLES = r"""
plan: "{{ inputs | lowtide.ops.health_plan(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description:
    - What is to be checked. Where that is nothing, or cannot be meant, its C(refusal) says why and what to set.
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._health_inputs import NothingDeclared, plan_checks


def plan(inputs: t.Mapping[str, t.Any], host: str) -> dict[str, t.Any]:
    """Return the plan, or the refusal as a value, so that the role fails with that message alone."""
    try:
        return {"refusal": "", **plan_checks(inputs, host)}
    except OpsError as error:
        return {"refusal": str(error), "declares_nothing": isinstance(error, NothingDeclared)}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"health_plan": plan}
