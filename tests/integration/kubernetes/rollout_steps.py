# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roll out workloads of a test's namespace, and look at what becomes of them meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from support.kubernetes_account import read_rules
from support.kubernetes_server import ApiServer
from support.modules import ModuleRun

from .conftest import Namespace
from .steps import read_annotations

Json = dict[str, Any]

ROLLOUT = "k8s_rollout"
NOTE = "lowtide.ops/rollout"
RULES = read_rules("Role", "lowtide-rollout")
QUICK: Json = {"failure_grace_factor": 0.05, "timeout": 300}
"""Judge what waiting does not mend early."""
BAD_IMAGE = "10.77.0.1:1/none:1"
SCRIPT = """
echo "begins with $SETTING"
if [ -n "$CRASH" ]; then echo "cannot go on"; exit 3; fi
if [ -n "$EAT" ]; then exec tail /dev/zero; fi
exec sleep 100000
"""
SOUND: Json = {"readinessProbe": {"exec": {"command": ["sh", "-c", '[ -z "$CRASH$EAT" ]']}, "periodSeconds": 1}}
"""For pods that are to fail: without a probe they would be ready for the moment in which they run."""
KINDS = ("Deployment", "Parallel", "OrderedReady")
"""A Deployment, and a StatefulSet of each policy."""


def describe(namespace: Namespace, kind: str, replicas: int = 2, **pod: Any) -> Json:
    """Return a workload ``w`` of pods that end at once, and crash where the variable CRASH is set."""
    pod = {"command": ["sh", "-c", SCRIPT], "resources": {"requests": {"memory": "16Mi"}}, **pod}
    policy = kind if kind in ("Parallel", "OrderedReady") else ""
    workload = namespace.workload("w", kind="StatefulSet" if policy else kind, replicas=replicas, **pod)
    if policy:
        workload["spec"]["podManagementPolicy"] = policy
    if kind == "DaemonSet":
        del workload["spec"]["replicas"]
    return workload


def put(namespace: Namespace, kind: str, replicas: int = 2, **pod: Any) -> str:
    """Have such a workload serve; return its kind."""
    workload = describe(namespace, kind, replicas, **pod)
    namespace.apply(workload)
    namespace.wait("it serves", lambda: serves(namespace, workload["kind"], replicas))
    return str(workload["kind"])


def serves(namespace: Namespace, kind: str, replicas: int) -> bool:
    """Return whether its controller counts so many pods that are up to date and available."""
    obj = namespace.get(kind, "w")
    status = obj.get("status") or {}
    is_seen = status.get("observedGeneration", 0) >= obj["metadata"]["generation"]
    if kind == "DaemonSet":
        names = ("numberAvailable", "updatedNumberScheduled")
        return is_seen and all(status.get(name, 0) == status.get("desiredNumberScheduled") for name in names)
    return is_seen and all(status.get(name, 0) == replicas for name in ("availableReplicas", "updatedReplicas"))


def roll_out(namespace: Namespace, kind: str, **params: Any) -> ModuleRun:
    """Roll out ``w``."""
    return namespace.module(ROLLOUT, kind=kind, name="w", **{"timeout": 300, **params})


def check_done(run: ModuleRun) -> ModuleRun:
    """Check that a run came to a good end, and return it."""
    assert not run.failed, run.msg
    return run


def read_image(namespace: Namespace, kind: str) -> str:
    """Return the image that the template asks for."""
    return str(namespace.get(kind, "w")["spec"]["template"]["spec"]["containers"][0]["image"])


def list_running_images(namespace: Namespace) -> set[str]:
    """Return the images of pods that are not being deleted."""
    pods = [pod for pod in namespace.list("Pod") if "deletionTimestamp" not in pod["metadata"]]
    return {pod["spec"]["containers"][0]["image"] for pod in pods}


def read_note(namespace: Namespace, kind: str) -> Json:
    """Return what the rollout has saved."""
    operations = json.loads(read_annotations(namespace, kind, "w")[NOTE])["operations"]
    return dict(next(entry["spec"] for entry in operations if entry["operation"] == "rollout"))


def change_template(namespace: Namespace, kind: str, annotation: str, manager: str = "kubectl-edit") -> None:
    """Change the template as a person does."""
    template = {"metadata": {"annotations": {"person": annotation}}}
    namespace.request("PATCH", kind, "w", {"spec": {"template": template}}, type_="merge-patch+json", manager=manager)


class Onlooker:
    """A context manager that looks every moment when something is true for the first time."""

    def __init__(self, facts: Json, **questions: Callable[[ApiServer], bool]) -> None:
        self._server = ApiServer(facts)
        self._questions = questions
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.moments: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(60)

    def _look(self) -> None:
        """Look every moment, and once more at the end."""
        is_end = False
        while not is_end:
            is_end = self._end.wait(0.2)
            for name, question in self._questions.items():
                if name not in self.moments and question(self._server):
                    self.moments[name] = time.monotonic()
