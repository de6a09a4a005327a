# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.health_verdict."""

from __future__ import annotations

DOCUMENTATION = r"""
name: health_verdict
short_description: "[INTERNAL] Compare what was read of a host's systems with what is declared"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.health#role) and may change with it.
options:
  _input:
    description: The results of the tasks that read, by kind of check, also of those that failed.
    type: dict
    required: true
  plan:
    description: What P(lowtide.ops.health_plan#filter) made of the role's inputs.
    type: dict
    required: true
  pending:
    description:
      - The steps of a window that are in force. What they explain is a warning instead of a failure, such as a workload
        that is stopped, its empty consumer group and its lag.
    type: list
    elements: str
    default: []
  in_window:
    description: Whether a window is open, whose steps decide about backups; a missing or old one is then a warning.
    type: bool
    default: false
positional: plan, pending, in_window
"""

EXAMPLES = r"""
health_result: "{{ {'database': answer} | lowtide.ops.health_verdict(plan, ['shutdown']) }}"
"""

RETURN = r"""
_value:
  description:
    - The public result of the role. Its C(evidence) has every line, its C(blockers) those that failed, and its
      C(verdict) is V(OK), V(WARN) or V(FAIL).
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._health import judge_health


def judge(
    reads: t.Mapping[str, t.Any], plan: t.Mapping[str, t.Any], pending: t.Sequence[str] = (), in_window: bool = False
) -> dict[str, t.Any]:
    """Return the verdict; an input that cannot be understood fails the task with object, value and next step."""
    try:
        return judge_health(reads, plan, pending, in_window=in_window)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"health_verdict": judge}
