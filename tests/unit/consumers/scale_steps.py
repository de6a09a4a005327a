# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Steps of the tests of k8s_scale_to_partitions against the API server in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._consumers.operations.scale_to_partitions import (
    PartitionTarget,
    run_scale_to_partitions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._consumers.partitions import Partitions
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cluster import connect
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.scaling import ScaleWorkload
from support.memory_controllers import (
    NAMESPACE,
)
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import list_writes, make_module, name_workloads, run_operation, run_work

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Json = dict[str, Any]

WORKER = "StatefulSet/w"
TITLE = "StatefulSet n/w"
BOUNDS_BEFORE = "lowtide.ops/bounds-before"


def scale_to(memory: MemoryServer, partitions: Any, *, check: bool = False, **params: Any) -> ModuleRun:
    """Scale the workload to so many partitions."""
    return run_operation(memory, run_scale_to_partitions, check=check, partitions=partitions, **params)


class Growing(Partitions):
    """Partitions that are others each time that they are asked for; the last number stays."""

    def __init__(self, *counts: int) -> None:
        super().__init__({"topics": ["t"], "partitions": None, "kafka_connection": {}})
        self.counts = list(counts)
        self.asked = 0

    def read_counts(self) -> dict[str, int]:
        """Return the next number."""
        self.asked += 1
        return {"t": self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]}


def follow(memory: MemoryServer, partitions: Growing, *, check: bool = False, **params: Any) -> ModuleRun:
    """Scale to live partitions."""

    def work(module: AnsibleModule, outcome: Outcome) -> None:
        client = connect(module, seconds=module.params["timeout"])
        try:
            ScaleWorkload(module, outcome, client).run(PartitionTarget(partitions, module.params))
        finally:
            client.close()
            outcome.write_attempted = client.write_attempted

    module = make_module(memory, run_scale_to_partitions, check=check, **params)
    return run_work(work, module)


def check_done(run: ModuleRun) -> ModuleRun:
    """Check that a run came to a good end, and return it."""
    assert not run.failed, run.msg
    return run


def check_refused(memory: MemoryServer, run: ModuleRun, words: str) -> None:
    """Check that a run was refused before anything was written, and says why."""
    assert run.failed
    assert (run.changed, run["error"]["refused"], list_writes(memory)) == (False, True, [])
    assert words in run.msg


def count_replicas(memory: MemoryServer) -> Any:
    """What the workload asks for."""
    return memory.read("StatefulSet", NAMESPACE, "w")["spec"]["replicas"]


def read_bounds(memory: MemoryServer, kind: str = "HorizontalPodAutoscaler", name: str = "h") -> list[int]:
    """The bounds of an autoscaler."""
    spec = memory.read(kind, NAMESPACE, name)["spec"]
    fields = ("minReplicaCount", "maxReplicaCount") if kind == "ScaledObject" else ("minReplicas", "maxReplicas")
    return [spec[field] for field in fields]


def read_annotations(memory: MemoryServer, kind: str, name: str) -> dict[str, str]:
    """The annotations of an object."""
    return dict(memory.read(kind, NAMESPACE, name)["metadata"].get("annotations") or {})


def act_between(memory: MemoryServer, action: Callable[[], object], path: str = "/statefulsets") -> None:
    """Let another client act once, after the dry run of the workload's write and before that write."""
    memory.add_rival(action, when="after", path=path)


def stop(memory: MemoryServer, **params: Any) -> ModuleRun:
    """Stop the workload."""
    return check_done(
        run_operation(memory, run_workload, state="stopped", workloads=name_workloads([WORKER]), run_id="s", **params)
    )
