# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.rolling_upgrade_plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rolling_upgrade_plan
short_description: "[INTERNAL] Say in which batches a release is rolled out"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.rolling_upgrade#role) and may change with it.
options:
  _input:
    description: Results of M(lowtide.ops.k8s_rollout) in check mode, one for each workload.
    type: list
    elements: dict
    required: true
  workloads:
    description: The role's list of workloads.
    type: list
    elements: dict
    required: true
  batches:
    description: How many pods of a StatefulSet are new after each batch.
    type: list
    elements: raw
    required: true
  begin:
    description: What C(rolling_upgrade_begin) returned.
    type: dict
    required: true
  resumed:
    description: Whether the run has a name that a later run shares.
    type: bool
    required: true
positional: workloads, batches, begin, resumed
"""

EXAMPLES = r"""
plan: "{{ predicted.results | lowtide.ops.rolling_upgrade_plan(rolling_upgrade_workloads, [1, '100%'], begin, true) }}"
"""

RETURN = r"""
_value:
  description: C(steps) (workloads with C(partition) and C(title)), C(changes), C(judges_again) and C(due).
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._rolling_upgrade import plan_upgrade


def plan(predicted: t.Any, workloads: t.Any, batches: t.Any, begin: t.Any, resumed: bool) -> dict[str, t.Any]:
    """Return the batches; a size that cannot be understood fails the task with object, value and next step."""
    try:
        return plan_upgrade(predicted, workloads, batches, begin, resumed=resumed)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"rolling_upgrade_plan": plan}
