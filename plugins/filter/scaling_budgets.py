# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.scaling_budgets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scaling_budgets
short_description: "[INTERNAL] The connections of a database that each workload of the role scaling may take"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - For the role lowtide.ops.scaling only; what it takes and returns may change at any time.
options:
  _input:
    description: The input C(scaling_autoscalers).
    type: list
    elements: dict
    required: true
  workloads:
    description: The input C(scaling_workloads).
    type: list
    elements: dict
    required: true
  budget:
    description: The input C(scaling_connection_budget).
    type: dict
    required: true
  rows:
    description: What the database says of its connections.
    type: list
    elements: dict
    required: true
positional: workloads, budget, rows
"""

EXAMPLES = r"""
- name: Show what each may take
  ansible.builtin.debug:
    msg: "{{ [] | lowtide.ops.scaling_budgets(scaling_workloads, {'users': ['shop']}, rows) }}"
  vars:
    rows:
      - max_connections: 100
        reserved: 3
        used_by_others: 12
        database: shop
        database_limit: 40
        used_in_database: 2
        role_limit: -1
"""

RETURN = r"""
_value:
  description: Options C(connection_budget), of C(autoscalers) by name and of C(workloads) by Kind/name.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._scaling import compute_budgets


def compute(autoscalers: t.Any, workloads: t.Any, budget: t.Any, rows: t.Any) -> dict[str, dict[str, t.Any]]:
    """The filter: an input that cannot be meant fails the task with object, value and next step."""
    try:
        return compute_budgets(autoscalers, workloads, budget, rows)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the one filter by its name."""
        return {"scaling_budgets": compute}
