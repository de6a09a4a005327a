# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what shares the connections of a database with a workload: other workloads, and what their autoscalers allow.

It costs one request for each of them that is read.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .client import Client
from .cluster import read_object
from .constraints.connections import OPTION, ConnectionBudget, SharedPool, parse_budget
from .objects import Workload
from .resources import format_title
from .scalable import find_scaled_resource
from .tiers import parse_api

if t.TYPE_CHECKING:
    from .scaling_constraints import ScalingConstraints

KINDS = ("StatefulSet", "Deployment")
"""The kinds that need no api_version."""


def read_budget(
    client: Client, params: t.Mapping[str, t.Any], constraints: ScalingConstraints
) -> ConnectionBudget | None:
    """Return the budget of the option ``connection_budget`` with what shares it; None where it is not set.

    A workload with an autoscaler may have as many replicas as that allows.
    """
    option = params.get("connection_budget")
    budget = parse_budget(option)
    if budget is None or option is None:
        return budget
    shared = tuple(
        _read_pool(client, pool, params["namespace"], constraints)
        for pool in option["shared_with"] or []
        if (pool["kind"], pool["name"]) != (params.get("kind"), params.get("name"))
    )
    return budget._replace(shared=shared)


def _read_pool(
    client: Client, pool: t.Mapping[str, t.Any], namespace: str, constraints: ScalingConstraints
) -> SharedPool:
    if pool.get("replicas") is not None:
        return SharedPool(
            format_title(pool["kind"], namespace, pool["name"]), pool["replicas"], pool["pool_per_replica"]
        )
    api_version, plural = parse_api(pool, f"{OPTION}: shared_with kind", kinds=KINDS)
    resource = find_scaled_resource(client, pool["kind"], api_version, plural)
    workload = Workload.from_object(read_object(client, resource, namespace, pool["name"]), resource)
    maxima = [scaler.maximum for scaler in constraints.list_autoscalers(workload) if not scaler.is_paused]
    return SharedPool(workload.title, max([workload.replicas, *maxima]), pool["pool_per_replica"])
