# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the work of a Kubernetes module in this process against the API server in memory, without Ansible around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._consumers.operations.scale_to_partitions import (
    run_scale_to_partitions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import ACTING_SPEC, CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.autoscaler import run_autoscaler
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.diagnosis_info import read_diagnosis
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.job import run_job
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.rollout import run_rollout
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.scale import run_scale
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.traffic import run_traffic
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload_info import read_workloads

from .memory_controllers import NAMESPACE
from .memory_handler import Request
from .memory_kubernetes import MemoryServer
from .modules import ModuleRun

Work = Callable[[AnsibleModule, Outcome], None]

DEFAULTS: dict[Work, dict[str, Any]] = {
    run_workload: {
        "state": None,
        "workloads": None,
        "tiers": None,
        "on_missing_state": "fail",
        "saved_by": "any",
        "guards": ["hpa", "keda", "gitops"],
        "autoscaler": "refuse",
        "allow_volume_deletion": False,
        "assume": None,
    },
    run_scale_to_partitions: {
        "kind": "StatefulSet",
        "name": "w",
        "api_version": None,
        "plural": None,
        "topics": [],
        "partitions": None,
        "kafka_connection": None,
        "combine": "max",
        "min_replicas": 1,
        "max_replicas": None,
        "even_divisors_only": False,
        "allow_scale_down": False,
        "autoscaler": "refuse",
        "guards": ["hpa", "keda", "gitops"],
        "start_stopped": False,
        "allow_volume_deletion": False,
        "connection_budget": None,
        "assume": None,
    },
    run_scale: {
        "kind": "Deployment",
        "name": "api",
        "api_version": None,
        "plural": None,
        "replicas": 1,
        "allow_scale_down": False,
        "autoscaler": "refuse",
        "guards": ["hpa", "keda", "gitops", "disruption_budget", "quota"],
        "start_stopped": False,
        "allow_volume_deletion": False,
        "connection_budget": None,
        "assume": None,
    },
    run_autoscaler: {
        "state": "present",
        "name": "h",
        "target": None,
        "min_replicas": None,
        "max_replicas": None,
        "metrics": None,
        "behavior": None,
        "scale_down_utilisation": None,
        "until": None,
        "save_before": False,
        "saved_by": "any",
        "allow_scale_down": False,
        "connection_budget": None,
        "guards": ["keda", "gitops", "quota"],
    },
    run_rollout: {
        "state": "present",
        "kind": "Deployment",
        "name": "w",
        "containers": None,
        "image": None,
        "pod_annotations": None,
        "restarted_after": None,
        "revision": None,
        "partition": None,
        "until": None,
        "serve_seconds": 0.0,
        "on_failure": "undo",
        "schema_version": None,
        "guards": ["gitops", "hpa", "quota"],
    },
    read_workloads: {"workloads": []},
    read_diagnosis: {
        "kind": "Deployment",
        "name": "web",
        "since": 3600.0,
        "log_lines": 40,
        "log_bytes": 8192,
        "configuration": [],
        "consumer_group_state": None,
        "observations": [],
        "readings": [],
        "evidence_folder": None,
    },
    run_job: {
        "from_cronjob": None,
        "from_workload": None,
        "template": None,
        "name_prefix": None,
        "labels": None,
        "annotations": None,
        "key": None,
        "on_failed": "fail",
        "lock": None,
        "lock_timeout": None,
        "deadline": None,
        "ttl_seconds": 86400,
        "log_lines": 100,
        "log_bytes": 65536,
        "log_file": None,
    },
    run_traffic: {
        "state": None,
        "targets": [],
        "in_flight": [],
        "in_flight_timeout": 2.0,
        "quiet_seconds": 0.0,
        "smoke": [],
        "smoke_timeout": 2.0,
        "saved_by": "any",
        "guards": ["gitops"],
        "assume": None,
    },
}
"""The options that a module has beside those of all, with their defaults."""


class _Ended(Exception):
    """The module left, with its result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class ModuleDouble:
    """A double of AnsibleModule, as far as the work of a module knows it."""

    def __init__(self, params: dict[str, Any], *, check_mode: bool = False) -> None:
        self.params = params
        self.check_mode = check_mode
        self.no_log_values: set[str] = set()
        self.warnings: list[str] = []
        self._name = "double"

    def warn(self, warning: str) -> None:
        """Keep a warning."""
        self.warnings.append(warning)

    def exit_json(self, **result: Any) -> NoReturn:
        """Leave with a success."""
        raise _Ended({**result, "failed": False})

    def fail_json(self, **result: Any) -> NoReturn:
        """Leave with a failure."""
        raise _Ended({**result, "failed": True})


def make_module(server: MemoryServer, work: Work, *, check: bool = False, **params: Any) -> AnsibleModule:
    """Return a module with these options, for namespace ``n`` of the server."""
    shared = {name: spec.get("default") for name, spec in {**CONNECTION_SPEC, **ACTING_SPEC}.items()}
    own = {"host": server.url, "no_proxy": "127.0.0.1", "namespace": NAMESPACE, "run_id": "r", "timeout": 10.0}
    module = ModuleDouble({**shared, **own, **DEFAULTS[work], **params}, check_mode=check)
    return cast("AnsibleModule", module)


def run_work(work: Work, module: AnsibleModule) -> ModuleRun:
    """Run it to its end and return its result, with its warnings."""
    double = cast("ModuleDouble", module)
    try:
        run_module(module, work)
    except _Ended as ended:
        return ModuleRun({**ended.result, "warnings": double.warnings}, int(ended.result["failed"]), "")


def run_operation(server: MemoryServer, work: Work, *, check: bool = False, **params: Any) -> ModuleRun:
    """Run the work of a module with these options."""
    return run_work(work, make_module(server, work, check=check, **params))


def name_workloads(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the option for workloads that are written ``Kind/name``."""
    return [dict(zip(("kind", "name"), name.split("/"), strict=True)) for name in names]


def is_write(request: Request) -> bool:
    """Whether a request is to change something: no dry run, no question about rights."""
    is_question = request.path.endswith("accessreviews") or "dryRun" in request.query
    return request.verb in ("create", "patch", "update", "delete") and not is_question


def list_writes(server: MemoryServer) -> list[tuple[str, list[str]]]:
    """Return the name of what was written each time, and the last part of each field's path in the order written."""
    writes = [request for request in list(server.log) if is_write(request)]
    return [(request.path.rpartition("/")[2], _list_fields(request.body)) for request in writes]


def _list_fields(operations: list[dict[str, Any]] | dict[str, Any]) -> list[str]:
    if isinstance(operations, dict):  # a whole object
        return list(operations.get("spec") or {})
    return [field for operation in operations if operation["op"] != "test" for field in _expand(operation)]


def _expand(operation: dict[str, Any]) -> list[str]:
    """Return the fields that an operation sets: those in it, where it adds a whole branch."""
    value = operation.get("value")
    paths = list(value) if isinstance(value, dict) else [operation["path"].replace("~1", "/")]
    return [path.rpartition("/")[2] for path in paths]
