# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Steps of the tests of k8s_job against the API server in memory."""

from __future__ import annotations

from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.job import run_job
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import run_operation

Json = dict[str, Any]


def describe_template(image: str = "i", **spec: Any) -> Json:
    """Return the spec of a Job with one container."""
    return {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}, **spec}


def run(memory: MemoryServer, *, check: bool = False, **params: Any) -> ModuleRun:
    """Run the Job of a template with the key ``k``, unless another one is given."""
    own: Json = {"name_prefix": "job", "key": "k"}
    if not {"from_cronjob", "from_workload"} & set(params):
        own["template"] = describe_template()
    return run_operation(memory, run_job, check=check, **{**own, **params})


def list_jobs(memory: MemoryServer) -> list[Json]:
    """Return all Jobs, in the order in which they were created."""
    return sorted(memory.read_all("Job"), key=lambda job: int(job["metadata"]["resourceVersion"]))
