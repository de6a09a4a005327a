# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.credentials_report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: credentials_report
short_description: "[INTERNAL] Make the result of a rotation that was taken back"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.credentials#role) and may change with it.
options:
  _input:
    description: The result of M(lowtide.ops.pg_credential) with which the run began.
    type: dict
    required: true
  failure:
    description: The result of the task of the restart that failed. Empty where an earlier run had failed.
    type: dict
    required: true
  reverted:
    description: The result of putting the old credential back.
    type: dict
    required: true
  undone:
    description: What was registered of putting the workloads back. Empty where that was not reached.
    type: dict
    required: true
  finished:
    description: The result of ending the new credential; skipped where that was not reached.
    type: dict
    required: true
positional: failure, reverted, undone, finished
"""

EXAMPLES = r"""
credentials_result: "{{ rotated | lowtide.ops.credentials_report(failure, reverted, undone, finished) }}"
"""

RETURN = r"""
_value:
  description: A result with C(changed), C(summary), C(plan), C(blockers), C(evidence) and C(failed).
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._credentials import report_reversion


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"credentials_report": report_reversion}
