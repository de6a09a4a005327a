# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether fewer replicas break a PodDisruptionBudget for good.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.outcome import Blocker
from ..._common.text import format_count
from ..fields import Json, as_dict, as_text, get_path
from ..objects import Workload
from ..selectors import matches


def find_budget_blockers(workload: Workload, replicas: int, budgets: t.Sequence[Json]) -> list[Blocker]:
    """Return the budgets whose ``minAvailable`` is a number of pods above the new number of replicas.

    A percentage, and ``maxUnavailable``, go with the number of replicas.
    """
    if replicas >= workload.replicas:
        return []
    labels = as_dict(get_path(workload.template, "metadata", "labels"))
    blockers: list[Blocker] = []
    for budget in budgets:
        least = get_path(budget, "spec", "minAvailable")
        if not isinstance(least, int) or least <= replicas or not _is_about(budget, labels):
            continue
        name = f"PodDisruptionBudget {workload.namespace}/{as_text(get_path(budget, 'metadata', 'name'))}"
        blockers.append(
            Blocker(
                object=workload.title,
                what=(
                    f"{name} wants at least {format_count(least, 'pod')} available;"
                    f" {format_count(replicas, 'replica')} can never give that"
                ),
                holder=name,
                next_step=(
                    f"Lower its minAvailable, keep at least {least} replicas, or leave disruption_budget out of guards"
                ),
            )
        )
    return blockers


def _is_about(budget: Json, labels: Json) -> bool:
    """Return whether the budget is about these pods: an empty selector means all of the namespace, none means none."""
    selector = get_path(budget, "spec", "selector")
    return isinstance(selector, dict) and (not any(selector.values()) or matches(selector, labels))
