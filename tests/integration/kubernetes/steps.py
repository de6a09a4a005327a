# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop, start and scale workloads of a test's namespace, and read back what became of them."""

from __future__ import annotations

import json
from typing import Any

from support.modules import ModuleRun

from .conftest import Namespace

Json = dict[str, Any]

WORKLOAD = "k8s_workload"
SCALE = "k8s_scale_to_partitions"
INFO = "k8s_workload_info"
SAVED = "lowtide.ops/stopped"
QUICK: Json = {"failure_grace_factor": 0.1}
"""Judge what waiting does not mend as early as can be asked for."""


def name_workloads(*workloads: str) -> list[Json]:
    """Return ``StatefulSet/w`` and the like as the option ``workloads`` has them."""
    return [dict(zip(("kind", "name"), workload.split("/"), strict=True)) for workload in workloads]


def stop(namespace: Namespace, *workloads: str, **params: Any) -> ModuleRun:
    """Stop workloads, each named ``StatefulSet/w``."""
    return namespace.module(WORKLOAD, state="stopped", workloads=name_workloads(*workloads), **params)


def start(namespace: Namespace, *workloads: str, **params: Any) -> ModuleRun:
    """Start workloads, each named ``StatefulSet/w``."""
    return namespace.module(WORKLOAD, state="running", workloads=name_workloads(*workloads), **params)


def read_replicas(namespace: Namespace, kind: str, *names: str) -> list[int]:
    """Return how many replicas are asked for."""
    return [int(namespace.get(kind, name)["spec"]["replicas"]) for name in names]


def read_annotations(namespace: Namespace, kind: str, name: str) -> Json:
    """Return the annotations of an object."""
    return dict(namespace.get(kind, name)["metadata"].get("annotations") or {})


def read_saved(namespace: Namespace, kind: str, name: str) -> Json | None:
    """Return what a stop saved on an object."""
    text = read_annotations(namespace, kind, name).get(SAVED)
    return json.loads(text) if text else None


def list_pods(namespace: Namespace) -> dict[str, str]:
    """Return the phase of each pod by its name."""
    return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in namespace.list("Pod")}


def tell(run: ModuleRun) -> str:
    """Return everything that a run says, as one text."""
    return json.dumps(run.result, ensure_ascii=False)


def apply_ready(namespace: Namespace, *workloads: Json) -> None:
    """Create workloads and wait until each of them serves."""
    namespace.apply(*workloads)
    for workload in workloads:
        namespace.ready(workload["kind"], workload["metadata"]["name"], workload["spec"]["replicas"])
