# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_workload_info. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.outcome import Outcome
from .. import summary
from ..client import Client
from ..cluster import check_identity, connect, disconnect, list_named, read_cluster_uid
from ..errors import Forbidden
from ..objects import Workload
from ..resources import collection_path, object_path
from ..scalable import check_scale, find_resources
from ..tiers import Entry, parse_workloads

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

LISTED = ("StatefulSet", "Deployment", "CronJob")
"""Kinds that are read where ``workloads`` names none: a Job is usually one run of a CronJob."""


def read_workloads(module: AnsibleModule, outcome: Outcome) -> None:
    """List the workloads of a namespace, or those named; without a namespace, read only the cluster's identity."""
    params = module.params
    if params["workloads"] and params["namespace"] is None:
        raise Refusal(
            obj="option namespace", problem="it is not set, and workloads names some", next_step="Set namespace"
        )
    client = connect(module, seconds=params["timeout"])
    try:
        check_identity(client, params["cluster_uid"])
        if params["namespace"] is None:
            outcome.facts["cluster_uid"] = params["cluster_uid"] or read_cluster_uid(client)
            workloads = []
        else:
            outcome.facts["cluster_uid"] = params["cluster_uid"] or _try_cluster_uid(client)
            entries = parse_workloads(params["workloads"], params["namespace"])
            workloads = _list_named(client, params["namespace"], entries) or _list_all(client, params["namespace"])
    finally:
        disconnect(module, outcome, client)
    described = [summary.describe_workload(workload) for workload in workloads]
    outcome.facts["workloads"] = described
    outcome.facts["stopped_by_lowtide"] = [entry for entry in described if entry["stopped_by_lowtide"]]
    outcome.summary = (
        f"cluster {outcome.facts['cluster_uid']}"
        if params["namespace"] is None
        else summary.summarize_workloads(workloads, described)
    )
    outcome.evidence = [summary.describe_state(workload) for workload in workloads]


def _try_cluster_uid(client: Client) -> str | None:
    """Return the cluster's identity, None for an account that may not read it."""
    try:
        return read_cluster_uid(client)
    except Forbidden:
        return None


def _list_named(client: Client, namespace: str, entries: t.Sequence[Entry]) -> list[Workload]:
    workloads: list[Workload] = []
    for kind, resource in find_resources(client, entries).items():
        listing = list_named(client, resource, namespace, [entry.name for entry in entries if entry.kind == kind])
        workloads += [check_scale(client, Workload.from_object(obj, resource)) for obj in listing.items]
    return workloads


def _list_all(client: Client, namespace: str) -> list[Workload]:
    workloads: list[Workload] = []
    for kind in LISTED:
        listing = client.list(collection_path(kind, namespace), obj=f"{kind}s of namespace {namespace}")
        workloads += [Workload.from_object(obj, kind) for obj in listing.items]
    if not workloads:
        _check_namespace(client, namespace)
    return workloads


def _check_namespace(client: Client, namespace: str) -> None:
    """Raise NotFound for a namespace that does not exist: it lists as an empty one does.

    An account of one namespace, which may not read it, has its rights in it, so that it exists.
    """
    try:
        client.get(object_path("Namespace", None, namespace), obj=f"namespace {namespace}")
    except Forbidden:
        return
