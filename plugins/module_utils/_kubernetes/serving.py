# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods the requests of a route go to, whether they are still there, and whose they are.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .client import Client
from .endpoints import SERVICE_NAME, list_endpoints
from .fields import Json, as_dict, as_text, get_path
from .objects import Pod, Workload, find_controller
from .plans.traffic import Served
from .pod_proxy import KINDS, Reading
from .resources import collection_path
from .routes import Backends
from .selectors import format_selector

_STEP = "See what it still does, and add the workload that owns it to in_flight, or remove it"


def list_slices(client: Client, namespace: str, service: str) -> list[Json]:
    """Return the EndpointSlices of a Service."""
    path = collection_path("EndpointSlice", namespace)
    params = {"labelSelector": f"{SERVICE_NAME}={service}"}
    return client.list(path, obj=f"EndpointSlices of Service {namespace}/{service}", params=params).items


def read_served(client: Client, namespace: str, backends: Backends) -> Served:
    """Return the pods that the requests of Services go to now. One that is not ready may still have some of before."""
    endpoints = {
        endpoint
        for service in backends.services
        for endpoint in list_endpoints(list_slices(client, namespace, service), service)
    }
    pods = {endpoint.name for endpoint in endpoints if endpoint.is_pod}
    ready = {endpoint.name for endpoint in endpoints if endpoint.is_ready}
    is_complete = backends.is_complete and all(endpoint.is_pod for endpoint in endpoints)
    return Served(tuple(sorted(pods)), len(ready), is_complete=is_complete)


def list_left_pods(client: Client, namespace: str, names: t.Collection[str]) -> list[Pod]:
    """Return those of these pods that are still there and have not ended. For no names nothing is asked."""
    if not names:
        return []
    listing = client.list(collection_path("Pod", namespace), obj=f"pods of namespace {namespace}", params={})
    pods = [Pod.from_object(obj) for obj in listing.items]
    return sorted((pod for pod in pods if pod.name in names and not pod.is_finished), key=lambda pod: pod.name)


def count_wanted(client: Client, namespace: str, selector: t.Mapping[str, str]) -> int:
    """Return how many pods with these labels are wanted: the replicas of the workloads that make them.

    Pods of anything else, such as of a DaemonSet, count as they are.
    """
    wanted = 0
    counted: set[str] = set()
    for kind, owner_kind in (("Deployment", "ReplicaSet"), ("StatefulSet", "StatefulSet")):
        listing = client.list(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}", params={})
        for obj in listing.items:
            labels = as_dict(get_path(obj, "spec", "template", "metadata", "labels"))
            if selector.items() <= labels.items():
                wanted += Workload.from_object(obj, kind).replicas
                counted.add(owner_kind)
    params = {"labelSelector": format_selector({"matchLabels": dict(selector)})}
    listing = client.list(collection_path("Pod", namespace), obj=f"pods of namespace {namespace}", params=params)
    pods = [Pod.from_object(obj) for obj in listing.items]
    others = [pod for pod in pods if pod.owner_kind not in counted and not (pod.is_finished or pod.is_terminating)]
    return wanted + len(others)


def find_owner(client: Client, pod: Pod) -> tuple[str, str]:
    """Return kind and name of the workload that a pod belongs to, of the pod itself where it is nobody's."""
    owner = find_controller(as_dict(pod.raw.get("metadata")))
    if not owner:
        return "Pod", pod.name
    if owner.get("kind") == "ReplicaSet":
        path = collection_path("ReplicaSet", pod.namespace)
        listing = client.list(path, obj=f"ReplicaSets of namespace {pod.namespace}", params={})
        sets = [as_dict(obj.get("metadata")) for obj in listing.items]
        above = [find_controller(meta) for meta in sets if get_path(meta, "uid") == owner.get("uid")]
        owner = next((controller for controller in above if controller), owner)
    return as_text(owner.get("kind")), as_text(owner.get("name"))


def make_uncovered_refusal(client: Client, pod: Pod, service: str) -> Refusal:
    """Return why nothing could be proven of a pod that no entry of in_flight asks."""
    kind, name = find_owner(client, pod)
    next_step = f"Add {kind} {name} to in_flight, with the port and the metric of its pods"
    if kind not in KINDS:
        next_step = f"in_flight asks pods of {', '.join(KINDS)} only: leave it out, and the result says so"
    return Refusal(
        obj=f"{kind} {pod.namespace}/{name}",
        problem=f"its pod {pod.name} gets requests of {service}, and no entry of in_flight asks that pod, so whether"
        " requests are in flight would not be known",
        next_step=next_step,
    )


def describe_uncovered(pod: Pod) -> Reading:
    """Return as a reading that a pod got requests and is not asked."""
    message = "it got requests before, is still there, and no workload of in_flight owns it"
    return Reading(pod.title, "requests in flight", is_met=False, value=None, message=message, next_step=_STEP)
