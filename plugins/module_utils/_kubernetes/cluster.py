# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster that a module acts on: connecting, its identity, named objects, and what there is instead of them.

The options are documented by the fragment ``lowtide.ops._kubernetes``.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import time
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.outcome import Outcome
from .._common.retry import Deadline
from .access import resolve_access
from .client import Client, Listing
from .errors import ApiError, Forbidden, NotFound
from .kubeconfig import limit_masking
from .resources import Kind, check_name, collection_path, find_resource, format_collection, format_title, object_path

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from .fields import Json

KNOWN_NAMES = 20
"""Names of other objects in the message about a missing one, at most."""


def connect(module: AnsibleModule, *, seconds: float, params: t.Mapping[str, t.Any] | None = None) -> Client:
    """Return a client for the module's options, its deadline ``seconds`` away. Nothing is sent yet.

    ``params`` are the options of a module whose connection to Kubernetes is one of several. Raises Refusal for options
    that cannot be meant, among them ``assume`` outside check mode.
    """
    params = module.params if params is None else params
    if params.get("assume") and not module.check_mode:
        raise Refusal(
            obj="option assume", problem="it is set outside check mode", next_step="Use it for rehearsals only"
        )
    if params["namespace"] is not None:
        check_name("namespace", params["namespace"])
    if seconds <= 0:
        raise Refusal(obj="option timeout", problem=f"it is {seconds:g} s", next_step="Set it above 0")
    limit_masking(module.no_log_values, params["kubeconfig"])
    access = resolve_access(params, environ=os.environ)
    module.no_log_values.update(access.secrets())
    if access.secure and not access.verify:
        module.warn(f"The certificate of API server {access.server} is not verified (validate_certs is false)")
    run_id = params.get("run_id") or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return Client(access, run_id=run_id, deadline=Deadline(seconds))


def disconnect(module: AnsibleModule, outcome: Outcome, client: Client) -> None:
    """Close the client, and report what was sent; credentials that were renewed meanwhile stay out of the result."""
    client.close()
    module.no_log_values.update(client.access.secrets())
    for warning in dict.fromkeys([*client.access.warnings, *client.warnings]):
        module.warn(warning)
    outcome.write_attempted = client.write_attempted
    outcome.changed = outcome.changed or client.write_attempted
    outcome.facts["requests"] = client.requests


def read_cluster_uid(client: Client) -> str:
    """Return the identity of a cluster: the UID of its namespace kube-system, which lives as long as the cluster."""
    try:
        system = client.get(object_path("Namespace", None, "kube-system"), obj="namespace kube-system")
    except Forbidden as error:
        raise Forbidden(
            obj=error.obj,
            problem=error.problem,
            next_step="Grant this account the verb get on the namespace kube-system (a ClusterRole with resources namespaces and"
            " resourceNames kube-system), whose UID is the identity of the cluster",
            status=error.status,
        ) from error
    return str(system["metadata"]["uid"])


def check_identity(client: Client, expected: str | None) -> None:
    """Refuse another cluster than the one of the option ``cluster_uid``: one request, none where it is not given."""
    if not expected:
        return
    actual = read_cluster_uid(client)
    if actual != expected:
        raise Refusal(
            obj=f"cluster at {client.access.server} ({client.access.source})",
            problem=f"its UID (of namespace kube-system) is {actual}, not the expected {expected}",
            next_step="Set kubeconfig and context to the cluster that is meant, or cluster_uid if this one is",
        )


def read_object(client: Client, kind: Kind, namespace: str, name: str) -> Json:
    """Return one object; when it is missing the Refusal says whether the namespace is, and what there is instead."""
    path = object_path(kind, namespace, check_name("name", name))
    try:
        return client.get(path, obj=format_title(kind, namespace, name))
    except NotFound as error:
        raise explain_missing(client, kind, namespace, [name]) from error


def list_named(client: Client, kind: Kind, namespace: str, names: t.Sequence[str]) -> Listing:
    """Return the named objects of one kind, in the order of ``names``; a Refusal names those that are missing.

    It takes one LIST, or one GET each for an account whose role names the objects (``resourceNames``) and may not list.
    """
    title = format_collection(kind, namespace)
    params = {"fieldSelector": f"metadata.name={names[0]}"} if len(names) == 1 else None
    try:
        listing = client.list(collection_path(kind, namespace), obj=title, params=params)
    except Forbidden:
        objects = [read_object(client, kind, namespace, name) for name in names]
        return Listing(objects, "")
    by_name = {str(obj["metadata"]["name"]): obj for obj in listing.items}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise explain_missing(client, kind, namespace, absent)
    return Listing([by_name[name] for name in names], listing.version)


def explain_missing(client: Client, kind: Kind, namespace: str, names: t.Sequence[str]) -> OpsError:
    """Return the Refusal for objects that do not exist. Costs up to two requests, on this path only."""
    where = f"cluster {client.access.server} ({client.access.source})"
    try:
        client.get(object_path("Namespace", None, namespace), obj=f"namespace {namespace}")
    except NotFound:
        return Refusal(
            obj=f"namespace {namespace}",
            problem=f"it does not exist in {where}",
            next_step="Correct namespace, or kubeconfig and context",
        )
    except ApiError as error:
        # An account of one namespace may not read the namespace itself, and does not need to.
        if not isinstance(error, Forbidden):
            return error
    titles = ", ".join(format_title(kind, namespace, name) for name in names)
    try:
        listing = client.list(collection_path(kind, namespace), obj=format_collection(kind, namespace))
    except Forbidden:
        instead = "this account may not list what there is"
    else:
        known = sorted(str(item["metadata"]["name"]) for item in listing.items)
        instead = f"{find_resource(kind).kind}s there: {', '.join(known[:KNOWN_NAMES]) or 'none'}"
    return Refusal(
        obj=titles,
        problem=f"it does not exist in {where}; {instead}",
        next_step="Correct name, kind or namespace",
    )
