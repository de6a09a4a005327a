# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.diagnose_proposal."""

from __future__ import annotations

DOCUMENTATION = r"""
name: diagnose_proposal
short_description: "[INTERNAL] Find the bounded fix for the cause that a diagnosis named"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.diagnose#role) and may change with it.
options:
  _input:
    description: The result of M(lowtide.ops.k8s_diagnosis_info).
    type: dict
    required: true
  trees:
    description: The role's decision trees.
    type: list
    elements: dict
    required: true
  apply:
    description: Whether the fix is to be made.
    type: bool
    default: false
  cooldown:
    description: For so many seconds nothing is done again for the same cause.
    type: float
    default: 3600.0
  run_id:
    description: Name of the run, which is noted with the fix.
    type: str
    default: ""
positional: trees, apply, cooldown, run_id
"""

EXAMPLES = r"""
proposal: "{{ diagnosis | lowtide.ops.diagnose_proposal(diagnose_trees, diagnose_apply, diagnose_cooldown) }}"
"""

RETURN = r"""
_value:
  description:
    - A result with summary, plan, blockers and evidence, C(apply) (whether a fix is to be made now) and C(proposal)
      (fix, what, why, refused and the options of the module that makes it).
  type: dict
"""

import time
import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._diagnosis import propose_fix


def propose(
    diagnosis: t.Mapping[str, t.Any], trees: t.Any, apply: bool = False, cooldown: float = 3600.0, run_id: str = ""
) -> dict[str, t.Any]:
    """Return the proposal; an entry that cannot be understood fails the task with object, value and next step."""
    try:
        return propose_fix(diagnosis, trees, apply=apply, cooldown=cooldown, now=time.time(), run_id=run_id)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"diagnose_proposal": propose}
