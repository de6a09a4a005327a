# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Steps of the tests of k8s_workload against the API server in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from support.memory_controllers import (
    NAMESPACE,
)
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import name_workloads, run_operation

Json = dict[str, Any]

NOTE = "lowtide.ops/stopped"
PAUSED_BY = "lowtide.ops/paused-by"
WORKER = "StatefulSet/w"
TITLE = "StatefulSet n/w"


def stop(memory: MemoryServer, *names: str, **params: Any) -> ModuleRun:
    """Stop workloads, the one that there is unless others are named."""
    return run_operation(memory, run_workload, state="stopped", workloads=name_workloads(names or [WORKER]), **params)


def start(memory: MemoryServer, *names: str, **params: Any) -> ModuleRun:
    """Start them."""
    return run_operation(memory, run_workload, state="running", workloads=name_workloads(names or [WORKER]), **params)


def run_tiers(memory: MemoryServer, state: str, *tiers: list[str], **params: Any) -> ModuleRun:
    """Stop or start tiers."""
    return run_operation(memory, run_workload, state=state, tiers=[name_workloads(tier) for tier in tiers], **params)


def check_done(run: ModuleRun) -> ModuleRun:
    """Check that a run came to a good end, and return it."""
    assert not run.failed, run.msg
    return run


def count_replicas(memory: MemoryServer, name: str = "w", kind: str = "StatefulSet") -> Any:
    """What its spec asks for."""
    return memory.read(kind, NAMESPACE, name)["spec"]["replicas"]


def read_annotations(memory: MemoryServer, kind: str, name: str) -> dict[str, str]:
    """The annotations of an object."""
    return dict(memory.read(kind, NAMESPACE, name)["metadata"].get("annotations") or {})


def read_saved(memory: MemoryServer, name: str = "w", kind: str = "StatefulSet") -> Any:
    """What a stop saved on a workload; None when there is nothing."""
    text = read_annotations(memory, kind, name).get(NOTE)
    return json.loads(text)["operations"][0]["spec"] if text else None


def take_picture(memory: MemoryServer) -> dict[str, tuple[Json, Json]]:
    """Spec and annotations of everything that a run may change."""
    kinds = ("StatefulSet", "Deployment", "CronJob", "Job", "ScaledObject", "HorizontalPodAutoscaler")
    return {
        f"{kind}/{obj['metadata']['name']}": (obj["spec"], obj["metadata"].get("annotations") or {})
        for kind in kinds
        for obj in memory.read_all(kind)
    }


def act_between(memory: MemoryServer, action: Callable[[], object], path: str = "") -> None:
    """Let another client act once, after the dry run and before the first write (of an object)."""
    memory.add_rival(action, when="after", path=path)


def own_by_operator(obj: Json) -> None:
    """Let an operator own it."""
    reference = {"apiVersion": "example.org/v1", "kind": "Shop", "name": "s", "uid": "u", "controller": True}
    obj["metadata"]["ownerReferences"] = [reference]


def describe_claims() -> Json:
    """The fields of a StatefulSet whose controller deletes claims."""
    return {
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
    }


def change_worker(change: Callable[[Json], None], manager: str = "argocd-controller") -> Callable[[MemoryServer], Any]:
    """Return what makes a change of the workload."""
    return lambda memory: memory.change("StatefulSet", NAMESPACE, "w", change, manager=manager)
