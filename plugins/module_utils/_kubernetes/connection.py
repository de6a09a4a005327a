# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options and what is checked before anything is done. Private to lowtide.ops: do not import from other collections.

The options are documented by the fragment ``lowtide.ops._kubernetes``.
"""

from __future__ import annotations

import os
import time
import typing as t
from http import HTTPStatus

from .._common.errors import OpsError, Refusal
from .._common.retry import Deadline
from .api import Api, Json, check_name, collection_path, object_path
from .config import resolve
from .errors import ApiError, NotFound

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# For ``argument_spec={**CONNECTION_SPEC, ...}``; mirrors doc_fragments/_kubernetes.py.
CONNECTION_SPEC: dict[str, dict[str, t.Any]] = {
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
    "host": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "ca_cert": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "validate_certs": {"type": "bool"},
    "cluster_uid": {"type": "str"},
}

# What every module that waits and writes takes besides; documented by the same fragment's ACTING part.
ACTING_SPEC: dict[str, dict[str, t.Any]] = {
    "namespace": {"type": "str", "required": True},
    "timeout": {"type": "float", "default": 300.0},
    "patience": {"type": "float", "default": 15.0},
    "run_id": {"type": "str"},
}


def connect(module: AnsibleModule, *, seconds: float) -> Api:
    """An API client for the module's options, its deadline ``seconds`` away, and only for the expected cluster.

    Nothing is sent unless ``cluster_uid`` is given, which costs one request.
    """
    params = module.params
    if params["namespace"] is not None:
        check_name("namespace", params["namespace"])
    if seconds <= 0:
        raise Refusal(obj="option timeout", problem=f"it is {seconds:g} s", next_step="Set it above 0")
    access = resolve(params, os.environ)
    if not access.verify:
        module.warn(f"The certificate of API server {access.server} is not verified (validate_certs is false)")
    run_id = params.get("run_id") or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    api = Api(access, run_id=run_id, deadline=Deadline(seconds))
    if params.get("cluster_uid"):
        _check_identity(api, str(params["cluster_uid"]))
    return api


def read_cluster_uid(api: Api) -> str:
    """Return the identity of a cluster: the UID of its namespace kube-system, which lives as long as the cluster."""
    try:
        system = api.get("/api/v1/namespaces/kube-system", obj="namespace kube-system")
    except ApiError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        raise ApiError(
            obj=error.obj,
            problem=error.problem,
            next_step="Grant this account the verb get on the namespace kube-system (a ClusterRole with resources namespaces and"
            " resourceNames kube-system), whose UID is the identity of the cluster",
            status=error.status,
        ) from error
    return str(system["metadata"]["uid"])


def _check_identity(api: Api, expected: str) -> None:
    seen = read_cluster_uid(api)
    if seen != expected:
        raise Refusal(
            obj=f"cluster at {api.access.server} ({api.access.source})",
            problem=f"its UID (of namespace kube-system) is {seen}, not the expected {expected}",
            next_step="Set kubeconfig and context to the cluster that is meant, or cluster_uid if this one is",
        )


def read_object(api: Api, kind: str, namespace: str, name: str) -> Json:
    """One object; when it is missing the Refusal says whether the namespace is, and what there is instead."""
    label = f"{kind} {namespace}/{name}"
    try:
        return api.get(object_path(kind, namespace, check_name("name", name)), obj=label)
    except NotFound as error:
        raise missing(api, kind, namespace, [name]) from error


def missing(api: Api, kind: str, namespace: str, names: t.Sequence[str]) -> OpsError:
    """The Refusal for objects that do not exist. Costs up to two requests, on this path only."""
    where = f"cluster {api.access.server} ({api.access.source})"
    try:
        api.get(f"/api/v1/namespaces/{namespace}", obj=f"namespace {namespace}")
    except NotFound:
        return Refusal(
            obj=f"namespace {namespace}",
            problem=f"it does not exist in {where}",
            next_step="Correct namespace, or kubeconfig and context",
        )
    except ApiError as error:
        # An account of one namespace may not read the namespace itself, and does not need to.
        if error.status != HTTPStatus.FORBIDDEN:
            return error
    items = api.get(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}").get("items") or []
    known = ", ".join(sorted(str(item["metadata"]["name"]) for item in items)[:20])
    return Refusal(
        obj=", ".join(f"{kind} {namespace}/{name}" for name in names),
        problem=f"it does not exist in {where}; {kind}s there: {known or 'none'}",
        next_step="Correct name, kind or namespace",
    )
