# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.merge_results."""

from __future__ import annotations

DOCUMENTATION = r"""
name: merge_results
short_description: Make one result of the results of several tasks
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - For a role that calls several modules of lowtide.ops and sets one fact C(ROLE_result), as a window and the playbooks
    read it.
  - The results of skipped tasks are left out.
options:
  _input:
    description: Registered results in their order; for a loop, the C(results) of what was registered.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Stop the workers
  lowtide.ops.k8s_workload:
    state: stopped
    namespace: shop
    workloads: [{kind: StatefulSet, name: order-consumer}]
  register: stopped

- name: Wait until they have left their group
  lowtide.ops.rpk_group_info:
    names: [order-consumer]
    wait_for: {states: [empty]}
  register: drained

- name: Result
  ansible.builtin.set_fact:
    my_role_result: "{{ [stopped, drained] | lowtide.ops.merge_results }}"
"""

RETURN = r"""
_value:
  description:
    - C(changed) and C(check_mode), true if any of the results has them; C(summary), joined by a semicolon; C(plan),
      C(blockers) and C(evidence), one after the other.
  type: dict
  sample:
    changed: true
    check_mode: false
    summary: stopped StatefulSet shop/order-consumer (3 replicas); order-consumer empty, lag 0
    plan:
      - object: StatefulSet shop/order-consumer
        what: replicas 3 -> 0
        why: asked to be stopped
        reversible: true
        estimate: null
    blockers: []
    evidence:
      - "StatefulSet shop/order-consumer: stopped, 0 pods left; asked to be stopped"
      - consumer group order-consumer empty, lag 0, 12 partitions (cluster b3ZSNdnvSSC2P5vRG8OdWQ)
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._results import merge_results


def merge(results: t.Any) -> dict[str, t.Any]:
    """The filter: an input that cannot be understood fails the task with object, value and next step."""
    try:
        return merge_results(results)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the one filter by its name."""
        return {"merge_results": merge}
