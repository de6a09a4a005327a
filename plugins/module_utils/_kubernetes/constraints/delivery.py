# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who rolls a workload out instead of its own controller: a Canary of Flagger, a Rollout of Argo. They do not own it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.outcome import Blocker
from ..fields import Json, as_text, get_path
from ..objects import Workload
from ..resources import Resource


class DeliveryTool(t.NamedTuple):
    """A kind whose objects name the workload that they roll out, in ``reference`` of their spec."""

    resource: Resource
    reference: str
    kinds: tuple[str, ...]
    name: str


FLAGGER = DeliveryTool(
    Resource("flagger.app/v1beta1", "canaries", "Canary"), "targetRef", ("Deployment", "DaemonSet"), "Flagger"
)
ARGO = DeliveryTool(
    Resource("argoproj.io/v1alpha1", "rollouts", "Rollout"), "workloadRef", ("Deployment",), "Argo Rollouts"
)
DELIVERY_TOOLS = (FLAGGER, ARGO)


def find_delivery_blocker(workload: Workload, tool: DeliveryTool, objects: t.Iterable[Json]) -> Blocker | None:
    """Return the object of a tool that rolls the workload out; None when none of these does."""
    for obj in objects:
        reference = get_path(obj, "spec", tool.reference)
        if (get_path(reference, "kind"), get_path(reference, "name")) != (workload.kind, workload.name):
            continue
        if as_text(get_path(reference, "apiVersion") or "apps/v1").partition("/")[0] != workload.resource.group:
            continue
        title = f"{tool.resource.kind} {workload.namespace}/{as_text(get_path(obj, 'metadata', 'name'))}"
        return Blocker(
            object=workload.title,
            what=f"it is rolled out by {title} of {tool.name} (spec.{tool.reference}), so that its own pods do not tell",
            holder=title,
            next_step=f"Release it by {tool.name}, and follow {title}; or leave gitops out of guards",
        )
    return None
