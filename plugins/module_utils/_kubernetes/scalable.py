# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads of other APIs: how the server has their kind, and that their replicas are where they are written.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._common.retry import Deadline
from .client import Client
from .errors import ApiError, Forbidden, NotFound
from .fields import as_dict, as_list, as_text, get_path
from .objects import Workload
from .resources import RESOURCES, Resource, object_path

if t.TYPE_CHECKING:
    from .fields import Json
    from .tiers import Entry

SCALE_SECONDS = 10.0
"""How long the subresource scale may take: a server answers 500 for ever where the CRD's path leads to nothing."""
_OTHER_WAY = "Stop, start and scale it by the means of its operator"


def find_resources(client: Client, entries: t.Iterable[Entry]) -> dict[str, Resource]:
    """Return the resource of each kind of the entries, by kind. Costs a request for each kind whose plural is not given."""
    resources: dict[str, Resource] = {}
    for entry in entries:
        if entry.kind not in resources:
            resources[entry.kind] = find_scaled_resource(client, entry.kind, entry.api_version, entry.plural)
    return resources


def find_scaled_resource(client: Client, kind: str, api_version: str, plural: str = "") -> Resource:
    """Return the resource of a kind: a known one, or (with ``api_version``) one of another API that can be scaled.

    Its plural is found by one discovery request unless it is given. Raises Refusal and ApiError.
    """
    if not api_version:
        return RESOURCES[kind]
    if plural:
        return Resource(api_version, plural, kind)
    title = f"kind {kind} of {api_version}"
    served = as_list(_discover(client, api_version).get("resources"))
    names = {as_text(get_path(entry, "name")): entry for entry in served}
    found = [name for name, entry in names.items() if get_path(entry, "kind") == kind and "/" not in name]
    if not found:
        kinds = sorted({as_text(get_path(entry, "kind")) for name, entry in names.items() if "/" not in name})
        raise Refusal(
            obj=title,
            problem=f"this API has no such kind; it has {', '.join(kinds) or 'none'}",
            next_step="Correct kind or api_version",
        )
    if get_path(names[found[0]], "namespaced") is not True:
        raise Refusal(obj=title, problem="its objects belong to no namespace", next_step=_OTHER_WAY)
    if f"{found[0]}/scale" not in names:
        raise _make_unscalable(title)
    return Resource(api_version, found[0], kind)


def check_scale(client: Client, workload: Workload) -> Workload:
    """Return a workload, of another API as it is read at the same moment as its scale.

    Its replicas have to be at ``spec.replicas``, as the subresource ``scale`` says. Raises Refusal and ApiError.
    """
    if workload.resource.is_known:
        return workload
    path = object_path(workload.resource, workload.namespace, workload.name)
    while True:
        asked = get_path(workload.raw, "spec", "replicas")
        if asked is None:
            raise Refusal(
                obj=workload.title,
                problem="it has no spec.replicas, where the number of replicas is read and written",
                next_step=f"Set spec.replicas of it, if that is the number; otherwise: {_OTHER_WAY[0].lower()}{_OTHER_WAY[1:]}",
            )
        scale = _read_scale(client, workload)
        scaled = get_path(scale, "spec", "replicas") or 0
        if scaled == asked:
            return workload
        is_same = get_path(scale, "metadata", "resourceVersion") == workload.resource_version
        if is_same or client.deadline.passed:
            raise Refusal(
                obj=workload.title,
                problem=f"its spec.replicas is {asked!r} and its scale says {scaled!r}, so that the number is in another field",
                next_step=_OTHER_WAY,
            )
        workload = Workload.from_object(client.get(path, obj=workload.title), workload.resource)


def _discover(client: Client, api_version: str) -> Json:
    title = f"API {api_version}"
    try:
        return client.get(f"/{'apis' if '/' in api_version else 'api'}/{api_version}", obj=title)
    except NotFound as error:
        raise Refusal(
            obj=title,
            problem=f"the cluster {client.access.server} does not have it",
            next_step="Correct api_version, or install what defines it",
        ) from error
    except Forbidden as error:
        raise Forbidden(
            obj=error.obj,
            problem=error.problem,
            next_step="Give the plural of the kind as well, or bind the ClusterRole system:discovery to this account",
            status=error.status,
        ) from error


def _read_scale(client: Client, workload: Workload) -> Json:
    deadline = client.deadline
    client.deadline = Deadline(min(SCALE_SECONDS, max(deadline.remaining, 0.0)))
    path = object_path(workload.resource, workload.namespace, workload.name, "scale")
    try:
        return as_dict(client.get(path, obj=f"scale of {workload.title}"))
    except NotFound as error:
        raise _make_unscalable(workload.title) from error
    except ApiError as error:
        if error.status != 500 or "replicas field" not in error.problem:
            raise
        raise Refusal(
            obj=workload.title, problem=f"it cannot be scaled: {error.problem}", next_step=_OTHER_WAY
        ) from error
    finally:
        client.deadline = deadline


def _make_unscalable(title: str) -> Refusal:
    return Refusal(
        obj=title,
        problem="it has no subresource scale, so that nothing says how many replicas it has",
        next_step=f"{_OTHER_WAY}, or add subresources.scale to its CustomResourceDefinition",
    )
