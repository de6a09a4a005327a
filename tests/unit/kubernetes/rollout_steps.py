# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Steps of the tests of k8s_rollout against the API server in memory."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.rollout import run_rollout
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import run_operation

Json = dict[str, Any]

KEY = "lowtide.ops/rollout"
KINDS = ("Deployment", "StatefulSet", "DaemonSet")
QUICK: Json = {"failure_grace_factor": 0.001, "timeout": 2.0}
"""Judge what waiting does not mend at once; it is looked for after a fifth of the time."""


def roll_out(memory: MemoryServer, kind: str = "Deployment", **params: Any) -> ModuleRun:
    """Roll out the workload ``w``."""
    return run_operation(memory, run_rollout, kind=kind, **params)


def check_done(run: ModuleRun) -> ModuleRun:
    """Check that a run came to a good end, and return it."""
    assert not run.failed, run.msg
    return run


def read_template(memory: MemoryServer, kind: str = "Deployment") -> Json:
    """The pod template."""
    return dict(memory.read(kind, NAMESPACE, "w")["spec"]["template"])


def read_image(memory: MemoryServer, kind: str = "Deployment") -> str:
    """The image that the template asks for."""
    return str(read_template(memory, kind)["spec"]["containers"][0]["image"])


def read_saved(memory: MemoryServer, kind: str = "Deployment", operation: str = "rollout") -> Json | None:
    """What a rollout has saved on the workload; None when there is nothing."""
    text = memory.read(kind, NAMESPACE, "w")["metadata"].get("annotations", {}).get(KEY)
    entries = json.loads(text)["operations"] if text else []
    return next((dict(entry["spec"]) for entry in entries if entry["operation"] == operation), None)


def read_pod_images(memory: MemoryServer) -> set[str]:
    """The images that pods run."""
    return {str(pod["status"]["containerStatuses"][0]["image"]) for pod in memory.read_all("Pod")}
