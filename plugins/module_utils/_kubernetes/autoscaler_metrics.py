# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an HPA can read what it scales by: whether the cluster serves it, and what its controller says of it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import http
import typing as t

from .._common.outcome import Blocker
from .client import Client
from .conditions import CURRENT, FAILED, FIND_DELETER, IN_PROGRESS, Status
from .errors import ApiError
from .fields import as_dict, as_text, get_path
from .objects import Workload, format_condition, index_conditions
from .resources import find_resource, format_title
from .snapshot import Snapshot

if t.TYPE_CHECKING:
    from .fields import Json

KIND = "HorizontalPodAutoscaler"
SCALING_ACTIVE = "ScalingActive"
RESTS = "ScalingDisabled"
"""Its reason where the target has 0 replicas."""
KEEPS_BOUNDS = "until then it keeps its bounds only"
_RESOURCE = ("metrics.k8s.io", ("v1beta1",), "metrics-server")
_CUSTOM = ("custom.metrics.k8s.io", ("v1beta2", "v1beta1"), "an adapter for custom metrics, such as prometheus-adapter")
_EXTERNAL = ("external.metrics.k8s.io", ("v1beta1",), "an adapter for external metrics, such as KEDA's")
APIS = {
    "Resource": _RESOURCE,
    "ContainerResource": _RESOURCE,
    "Pods": _CUSTOM,
    "Object": _CUSTOM,
    "External": _EXTERNAL,
}
"""By type of metric: the API group that its controller asks, its versions, and what serves it."""


def find_unserved_metrics(client: Client, title: str, metrics: t.Iterable[Json]) -> list[Blocker]:
    """Return which APIs of the metrics the cluster does not serve, by one or two requests each.

    Nothing is said of what may not be asked.
    """
    blockers: list[Blocker] = []
    types = [as_text(get_path(metric, "type")) for metric in metrics]
    for group, versions, server in dict.fromkeys(APIS[kind] for kind in types if kind in APIS):
        problem = ""
        for version in versions:
            problem = _find_problem(client, f"{group}/{version}")
            if not problem:
                break
        if problem:
            blockers.append(
                Blocker(
                    object=title,
                    what=f"its metrics cannot be read: {problem}",
                    holder=f"API {group}",
                    next_step=f"Install {server}, or see what is wrong with it (kubectl get apiservice "
                    f"{versions[-1]}.{group}); {KEEPS_BOUNDS}",
                )
            )
    return blockers


def _find_problem(client: Client, api_version: str) -> str:
    """Return why an API cannot be asked; empty where it can, or where that is not to be known."""
    try:
        status = client.ask(f"/apis/{api_version}", obj=f"API {api_version}").status
    except ApiError as error:
        return f"API {api_version}: {error.problem}"
    if status == http.HTTPStatus.NOT_FOUND:
        return f"the cluster does not serve the API {api_version}"
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"the API {api_version} is not available (status {status})"
    return ""


class MetricsRead:
    """An HPA's controller has looked at it; with ``can_read`` it has read its metrics too, which takes new pods a while."""

    def __init__(self, hpa: Json, *, can_read: bool) -> None:
        self.kind = KIND
        self.resource = find_resource(KIND)
        self.namespace = as_text(get_path(hpa, "metadata", "namespace"))
        self.name = as_text(get_path(hpa, "metadata", "name"))
        self._can_read = can_read

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return (self.kind,)

    def find_workload(self, _snapshot: Snapshot) -> Workload | None:
        """Return None: it has no pods."""
        return None

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the HPA stands."""
        title = format_title(self.kind, self.namespace, self.name)
        hpa = snapshot.find(self.kind, self.namespace, self.name)
        if hpa is None:
            return Status(FAILED, title, "it was deleted while it was waited for", next_step=FIND_DELETER)
        condition = index_conditions(as_dict(hpa.get("status"))).get(SCALING_ACTIVE)
        if condition is None:
            return Status(IN_PROGRESS, title, "its controller has not looked at it yet")
        is_read = condition.get("status") == "True" or condition.get("reason") == RESTS
        return Status(CURRENT if is_read or not self._can_read else IN_PROGRESS, title, format_condition(condition))


def find_troubles(title: str, hpa: Json) -> list[Blocker]:
    """Return what an HPA says of itself: that it cannot scale, or cannot read its metrics."""
    troubles: list[Blocker] = []
    for kind, condition in index_conditions(as_dict(hpa.get("status"))).items():
        is_bad = kind in ("AbleToScale", SCALING_ACTIVE) and condition.get("status") == "False"
        if not is_bad or condition.get("reason") == RESTS:
            continue
        troubles.append(
            Blocker(
                object=title,
                what=f"{condition.get('reason')}: {format_condition(condition)}",
                holder=title,
                next_step=(
                    "Look whether its metrics are served (kubectl get apiservices) and whether the containers have"
                    f" requests; {KEEPS_BOUNDS}"
                ),
                since=as_text(condition.get("lastTransitionTime")) or None,
            )
        )
    return troubles


def describe_silence(title: str) -> Blocker:
    """Return that nothing has looked at a new HPA in the time that there was."""
    return Blocker(
        object=title,
        what="its controller has not said yet whether it can read its metrics",
        holder="kube-controller-manager",
        next_step=f"See its conditions (kubectl describe hpa), and whether kube-controller-manager runs; {KEEPS_BOUNDS}",
    )
