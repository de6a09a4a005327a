# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One object as an API server keeps it, so that tests of plans see what their writes make of it."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.autoscalers import Autoscaler
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import Write, build_json_patch
from support.checkout import load_yaml
from support.memory_objects import apply_operations, merge, own_fields

Json = dict[str, Any]
OURS = "lowtide.ops"


class KeptObject:
    """Applies writes as the client sends them: with tests, a generation that follows the spec, and owners of fields.

    With ``managed=False`` it has no managedFields, as behind a proxy that strips them.
    """

    def __init__(self, obj: Json, *, managed: bool = True, manager: str = "kubectl-client-side-apply") -> None:
        self.managed = managed
        self.obj: Json = {}
        given = copy.deepcopy(obj)
        given["metadata"] = {"uid": "u1", "generation": 1, "namespace": "n", **given["metadata"]}
        self._keep(given, manager)

    @property
    def workload(self) -> Workload:
        """It as a workload."""
        return Workload.from_object(self.obj)

    @property
    def autoscaler(self) -> Autoscaler:
        """It as an autoscaler."""
        return Autoscaler.from_object(self.obj)

    @property
    def annotations(self) -> Json:
        """Its annotations."""
        return dict(self.obj["metadata"].get("annotations") or {})

    @property
    def spec(self) -> Json:
        """Its spec."""
        return dict(self.obj["spec"])

    def write(self, write: Write | None) -> None:
        """Apply a write of this collection, decided about the object as it is now."""
        if write is not None:
            self.send(build_json_patch(self.obj, write))

    def send(self, operations: list[Json], *, manager: str = OURS) -> None:
        """Apply a JSON patch, perhaps one that was made before somebody else changed the object. Raises Rejected."""
        self._keep(apply_operations(self.obj, operations), manager)

    def change(self, patch: Json, *, manager: str = "kubectl") -> None:
        """Let another client make a merge patch."""
        self._keep(merge(self.obj, patch), manager)

    def scale(self, replicas: int, *, manager: str = "kubectl") -> None:
        """Let another client set the replicas."""
        self.change({"spec": {"replicas": replicas}}, manager=manager)

    def _keep(self, obj: Json, manager: str) -> None:
        metadata = obj["metadata"]
        if self.obj and self.obj["spec"] != obj["spec"]:
            metadata["generation"] = self.obj["metadata"]["generation"] + 1
        if self.managed:
            metadata["managedFields"] = own_fields(self.obj, obj, manager)
        self.obj = obj


def load_objects(name: str) -> list[Json]:
    """The objects of a YAML file below ``tests/unit/kubernetes/data``, a list, each time as copies."""
    return copy.deepcopy(_read_objects(name))


@functools.cache
def _read_objects(name: str) -> list[Json]:
    objects: list[Json] = load_yaml(Path(f"tests/unit/kubernetes/data/{name}.yml"))
    return objects


def load_object(name: str, obj_name: str) -> Json:
    """The one object of such a file that has this name."""
    return next(obj for obj in load_objects(name) if obj["metadata"]["name"] == obj_name)
