# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.rolling_upgrade_report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rolling_upgrade_report
short_description: "[INTERNAL] Make the result of a rolling upgrade"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.rolling_upgrade#role) and may change with it.
options:
  _input:
    description: The results of the migration, the batches and the gates in their order.
    type: list
    elements: dict
    required: true
  begin:
    description: What C(rolling_upgrade_begin) returned.
    type: dict
    required: true
  plan:
    description: What C(rolling_upgrade_plan) returned.
    type: dict
    required: true
  before:
    description: The result of M(lowtide.ops.k8s_workload_info) before anything was changed.
    type: dict
    required: true
  failure:
    description:
      - The name of the failed C(task), its C(result), and what was registered of putting back (C(undone)) and of
        saving the evidence (C(diagnosed)). Empty where nothing failed.
    type: dict
positional: begin, plan, before, failure
"""

EXAMPLES = r"""
rolling_upgrade_result: "{{ results | lowtide.ops.rolling_upgrade_report(begin, plan, before) }}"
"""

RETURN = r"""
_value:
  description: A result with C(changed), C(summary), C(plan), C(blockers), C(evidence), C(run_id) and C(rolled_back).
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._rolling_upgrade import (
    report_failure,
    report_success,
)


def report(results: t.Any, begin: t.Any, plan: t.Any, before: t.Any, failure: t.Any = None) -> dict[str, t.Any]:
    """Return the result of the role."""
    if failure:
        return report_failure(begin, failure, results)
    return report_success(begin, plan, results, before)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"rolling_upgrade_report": report}
