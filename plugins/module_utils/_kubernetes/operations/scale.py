# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_scale: the target of a scaling is declared.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.outcome import Blocker, Outcome
from ..plans.replicas_from_partitions import Target
from ..scaling import TargetSource, run_scaling

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..objects import Workload


class DeclaredTarget(TargetSource):
    """The number of the option ``replicas``."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def read_target(self) -> Target:
        """Return the declared number; a Refusal when it is less than 1."""
        if self._replicas < 1:
            raise Refusal(
                obj="option replicas",
                problem=f"it is {self._replicas}, which is less than 1",
                next_step="Use k8s_workload (or the role shutdown) to stop a workload; nothing has been scaled",
            )
        return Target(self._replicas, 0, "declared")

    def list_facts(self) -> dict[str, t.Any]:
        """Return nothing: the target itself says all."""
        return {}

    def list_evidence(self) -> list[str]:
        """Return nothing: the state of the workload says all."""
        return []

    def find_surplus(self, workload: Workload, replicas: int, target: Target) -> Blocker:
        """Refuse: a workload with more replicas than declared is not as declared."""
        raise Refusal(
            obj=workload.title,
            problem=f"it has {replicas} replicas and {target.replicas} are declared, and allow_scale_down is false",
            next_step=f"Set allow_scale_down to true to let {replicas - target.replicas} go, or declare {replicas}",
        )


def run_scale(module: AnsibleModule, outcome: Outcome) -> None:
    """Scale to the declared number, and wait until it serves."""
    run_scaling(module, outcome, DeclaredTarget(module.params["replicas"]))
