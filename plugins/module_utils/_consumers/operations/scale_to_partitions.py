# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_scale_to_partitions: the target of a scaling follows from partition counts.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import OpsError
from ..._common.outcome import Blocker, Outcome
from ..._common.text import format_count
from ..._kubernetes.plans.replicas_from_partitions import Rule, Target, compute_target
from ..._kubernetes.scaling import ROUNDS, TargetSource, run_scaling
from ..partitions import Partitions

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..._kubernetes.objects import Workload


class PartitionTarget(TargetSource):
    """As many replicas as the partitions of topics ask for."""

    def __init__(self, partitions: Partitions, params: t.Mapping[str, t.Any]) -> None:
        self._partitions = partitions
        self._rule = Rule(
            params["combine"], params["min_replicas"], params["max_replicas"], params["even_divisors_only"]
        )
        self._counts: dict[str, int] = {}

    @property
    def is_live(self) -> bool:
        """Whether asking again can give another answer."""
        return self._partitions.is_live

    def read_target(self) -> Target:
        """Return the number that the counts ask for now."""
        self._counts = self._partitions.read_counts()
        return compute_target(self._counts, self._rule)

    def list_facts(self) -> dict[str, t.Any]:
        """Return the counts."""
        return {"partitions": self._counts}

    def list_evidence(self) -> list[str]:
        """Return a line for each topic."""
        counts = sorted(self._counts.items())
        return [f"topic {topic}: {format_count(count, 'partition')}" for topic, count in counts]

    def find_surplus(self, workload: Workload, replicas: int, target: Target) -> Blocker:
        """Return how many replicas have nothing to do."""
        return Blocker(
            object=workload.title,
            what=(
                f"it has {replicas} replicas and {target.replicas} are wanted ({target.reason});"
                f" {replicas - target.replicas} more than can be of use"
            ),
            holder="option allow_scale_down (false)",
            next_step="Set allow_scale_down to true to let them go",
        )

    def explain_instability(self, workload: Workload) -> OpsError:
        """Return the error for topics that got partitions again and again."""
        return OpsError(
            obj=", ".join(self._counts),
            problem=(
                f"their partitions changed {ROUNDS} times while {workload.title} was scaled; it has"
                f" {workload.replicas} replicas"
            ),
            next_step="Run again when the number of partitions is stable",
        )


def run_scale_to_partitions(module: AnsibleModule, outcome: Outcome) -> None:
    """Read the partitions, scale to them, wait, and look at them again."""
    partitions = Partitions(module.params)
    try:
        run_scaling(module, outcome, PartitionTarget(partitions, module.params))
    finally:
        partitions.close()
