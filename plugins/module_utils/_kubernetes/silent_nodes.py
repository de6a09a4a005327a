# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pods of a DaemonSet are on nodes whose kubelet does not report, and what becomes of its rollout meanwhile.

The pods themselves say so, so that no right to read nodes is needed. Pure functions.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from .._common.text import join_some
from .fields import as_dict, get_path, resolve_share
from .objects import Pod, Workload, index_conditions
from .snapshot import Snapshot


def is_silent(pod: Pod) -> bool:
    """Return whether the kubelet of a pod's node does not report, as the node controller says.

    That controller says of a pod that it is not ready, and nothing else: a kubelet gives a reason, and says that the
    containers are not ready either (or which readiness gate is not).
    """
    status = as_dict(pod.raw.get("status"))
    if status.get("reason") == "NodeLost" or pod.phase == "Unknown":
        return True
    conditions = index_conditions(status)
    ready, containers = as_dict(conditions.get("Ready")), as_dict(conditions.get("ContainersReady"))
    return ready.get("status") == "False" and not ready.get("reason") and containers.get("status") == "True"


def list_silent_pods(snapshot: Snapshot, workload: Workload) -> list[Pod]:
    """Return the pods of a DaemonSet on such nodes, terminating ones included; none of another kind, whose pods move."""
    if workload.kind != "DaemonSet":
        return []
    return [pod for pod in snapshot.list_running_pods(workload) if is_silent(pod)]


def serves_elsewhere(snapshot: Snapshot, workload: Workload) -> bool:
    """Return whether a DaemonSet's pods on all other nodes are of the newest revision, and serve."""
    silent = list_silent_pods(snapshot, workload)
    newest = snapshot.update_hash(workload)
    updated_there = len({pod.node for pod in silent if pod.template_hash == newest})
    least = workload.replicas - len({pod.node for pod in silent})
    is_updated = workload.updated - updated_there >= least
    return bool(silent) and is_updated and workload.pods <= workload.replicas and workload.serving >= least


def find_hold(silent: t.Sequence[Pod], workload: Workload) -> Blocker | None:
    """Return what keeps a DaemonSet's controller from replacing pods on other nodes; None where nothing does.

    Pods that are not available count against maxUnavailable (with a surge, maxSurge), wherever they are.
    """
    nodes = sorted({pod.node for pod in silent})
    option, allowed = _find_limit(workload)
    if len(nodes) < allowed or len(nodes) >= workload.replicas:
        return None
    where = _name_nodes(nodes)
    return Blocker(
        object=workload.title,
        what=f"the kubelet of {where} does not report, and with {option} {allowed} its controller replaces no pod elsewhere"
        " meanwhile",
        holder=where,
        next_step=f"Bring {where} back or delete {'it' if len(nodes) == 1 else 'them'} (kubectl delete node), or raise"
        f" updateStrategy.rollingUpdate.{option} above {len(nodes)}",
    )


def describe_silent(snapshot: Snapshot, workload: Workload) -> str:
    """Return what becomes of the pods on such nodes; empty where there are none."""
    silent = list_silent_pods(snapshot, workload)
    if not silent:
        return ""
    newest = snapshot.update_hash(workload)
    nodes = sorted({pod.node for pod in silent})
    old = [pod.name for pod in silent if pod.template_hash != newest]
    where = _name_nodes(nodes)
    if not old:
        return f"the kubelet of {where} does not report, and whether the pod there serves is not known"
    verb = "keeps" if len(old) == 1 else "keep"
    return (
        f"the kubelet of {where} does not report: {join_some(old)} {verb} the earlier revision until it does, and a later"
        " run verifies that"
    )


def _name_nodes(nodes: t.Sequence[str]) -> str:
    return f"{'node' if len(nodes) == 1 else 'nodes'} {join_some(nodes)}"


def _find_limit(workload: Workload) -> tuple[str, int]:
    """Return by which option, and how many pods may be unavailable at a time, as its controller rounds it (up)."""
    rolling = as_dict(get_path(workload.raw, "spec", "updateStrategy", "rollingUpdate"))
    surge = resolve_share(rolling.get("maxSurge", 0), workload.replicas, round_up=True)
    if surge:
        return "maxSurge", surge
    unavailable = resolve_share(rolling.get("maxUnavailable", 1), workload.replicas, round_up=True)
    return "maxUnavailable", max(unavailable, 1)
