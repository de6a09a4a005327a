# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds, their API paths, and names: requests go over fixed paths, without discovery.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import re
import typing as t
from urllib.parse import quote

from .._common.errors import Refusal

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Resource(t.NamedTuple):
    """One kind of object: ``group_version`` as in ``apiVersion``, ``plural`` as in paths and access rules."""

    group_version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group, empty for the core one."""
        return self.group_version.rpartition("/")[0]

    @property
    def qualified(self) -> str:
        """The plural with its group, as kubectl writes it: ``statefulsets.apps``, ``pods``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_known(self) -> bool:
        """Whether it is one of ``RESOURCES``, of which it is known how they count and own pods."""
        return RESOURCES.get(self.kind) == self


RESOURCES: dict[str, Resource] = {
    resource.kind: resource
    for resource in (
        Resource("apps/v1", "statefulsets", "StatefulSet"),
        Resource("apps/v1", "deployments", "Deployment"),
        Resource("apps/v1", "daemonsets", "DaemonSet"),
        Resource("apps/v1", "replicasets", "ReplicaSet"),
        Resource("apps/v1", "controllerrevisions", "ControllerRevision"),
        Resource("batch/v1", "cronjobs", "CronJob"),
        Resource("batch/v1", "jobs", "Job"),
        Resource("v1", "pods", "Pod"),
        Resource("v1", "events", "Event"),
        Resource("v1", "namespaces", "Namespace", namespaced=False),
        Resource("v1", "nodes", "Node", namespaced=False),
        Resource("v1", "resourcequotas", "ResourceQuota"),
        Resource("v1", "limitranges", "LimitRange"),
        Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
        Resource("v1", "configmaps", "ConfigMap"),
        Resource("v1", "secrets", "Secret"),
        Resource("v1", "services", "Service"),
        Resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
        Resource("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        Resource("keda.sh/v1alpha1", "scaledobjects", "ScaledObject"),
        Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
        Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False),
        Resource("coordination.k8s.io/v1", "leases", "Lease"),
        Resource("networking.k8s.io/v1", "ingresses", "Ingress"),
        Resource("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
    )
}
"""The kinds that this collection knows, by kind."""


Kind: t.TypeAlias = "str | Resource"
"""A kind of ``RESOURCES`` by its name, or a resource of any API."""


def find_resource(kind: Kind) -> Resource:
    """Return the resource of a kind, a resource as it is. Raises Refusal for a name that is not in ``RESOURCES``."""
    if isinstance(kind, Resource):
        return kind
    resource = RESOURCES.get(kind)
    if resource is None:
        raise Refusal(
            obj=f"kind {kind!r}",
            problem=f"it is not known here; known are {', '.join(sorted(RESOURCES))}",
            next_step="Correct the kind, or give its api_version (and plural)",
        )
    return resource


def list_kinds_between(resource: Resource) -> tuple[str, ...]:
    """Return the kinds of the objects that stand between a workload and its pods; of another API often ReplicaSets."""
    if not resource.is_known:
        return ("ReplicaSet",)
    return {"Deployment": ("ReplicaSet",), "CronJob": ("Job",)}.get(resource.kind, ())


def path_of(resource: Resource, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """Return the path of a collection, of an object when ``name`` is given, or of its subresource (``scale``, ``eviction``).

    Without ``namespace`` it is the collection over all namespaces, or an object that belongs to none.
    """
    root = "apis" if "/" in resource.group_version else "api"
    parts = [root, resource.group_version]
    if namespace is not None and resource.namespaced:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name:
        parts.append(quote(name, safe=""))
        parts += [subresource] if subresource else []
    return "/" + "/".join(parts)


def collection_path(kind: Kind, namespace: str | None) -> str:
    """Return the path of all objects of a kind in a namespace; with None, of all namespaces."""
    return path_of(find_resource(kind), namespace)


def object_path(kind: Kind, namespace: str | None, name: str, subresource: str = "") -> str:
    """Return the path of one object, or of its subresource."""
    return path_of(find_resource(kind), namespace, name, subresource)


def format_title(kind: Kind, namespace: str | None, name: str) -> str:
    """Return what messages call an object: ``StatefulSet shop/worker``, ``Node n1``."""
    kind = kind.kind if isinstance(kind, Resource) else kind
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def format_collection(kind: Kind, namespace: str) -> str:
    """Return what messages call the objects of a kind: ``StatefulSets of namespace shop``."""
    return f"{kind.kind if isinstance(kind, Resource) else kind}s of namespace {namespace}"


def check_name(option: str, value: str) -> str:
    """Return ``value`` when it can be the name of an object or namespace. Raises Refusal otherwise: it becomes part of a path."""
    if not _NAME.fullmatch(value) or len(value) > 253 or ".." in value:
        raise Refusal(
            obj=f"{option} {value!r}",
            problem="this is not a Kubernetes name",
            next_step="Use lower case letters, digits, '-' and '.', beginning and ending with a letter or digit",
        )
    return value
