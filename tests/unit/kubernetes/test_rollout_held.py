# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which pods hold a StatefulSet up and are deleted, and what becomes of the end of a temporary change."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Pod, Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.rollout_undo import list_stuck_pods
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import ENV, Edit, Place
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_conditions import RolledOutOrHeld
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_notes import Temporary, add_temporary
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from support.memory_controllers import NAMESPACE, describe_workload

Json = dict[str, Any]


def make_set(*, start: int = 0, partition: int = 0, image: str = "i", **status: Any) -> Workload:
    """Return a StatefulSet of 3 replicas whose newest revision is ``new`` and whose earlier one is ``old``."""
    obj = describe_workload("StatefulSet", "w", 3, ordinals={"start": start})
    obj["metadata"] |= {"uid": "u", "generation": 2}
    obj["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": partition}}
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
    revisions = {"currentRevision": "old", "updateRevision": "new"}
    obj["status"] = {"observedGeneration": 2, "replicas": 3, "readyReplicas": 2, **revisions, **status}
    return Workload.from_object(obj)


def make_pod(number: int, revision: str, *, ready: bool = False, **metadata: Any) -> Json:
    """Return a pod of it."""
    condition = {"type": "Ready", "status": str(ready)}
    owner = {"uid": "u", "kind": "StatefulSet", "name": "w", "controller": True}
    meta = {"name": f"w-{number}", "namespace": NAMESPACE, "uid": f"p-{number}", "ownerReferences": [owner]}
    labels = {"app": "w", "controller-revision-hash": revision}
    return {
        "kind": "Pod",
        "metadata": {**meta, "labels": labels, **metadata},
        "spec": {"containers": []},
        "status": {"phase": "Running", "conditions": [condition]},
    }


@pytest.mark.parametrize(
    ("start", "partition", "revision", "stuck"),
    [
        (0, 0, "old", ["w-10", "w-12"]),
        (10, 2, "old", ["w-12"]),
        (10, 2, "failed", ["w-10", "w-12"]),
        (10, 3, "old", []),
        (0, 0, "new", []),
    ],
)
def test_a_partition_keeps_pods_of_the_earlier_revision(
    start: int, partition: int, revision: str, stuck: list[str]
) -> None:
    """Counted from where the set's ordinals start."""
    workload = make_set(start=start, partition=partition)
    objects = [make_pod(10, revision), make_pod(11, revision, ready=True), make_pod(12, revision)]
    pods = [Pod.from_object(obj) for obj in objects]
    assert [pod.name for pod in list_stuck_pods(workload, "new", pods)] == stuck


@pytest.mark.parametrize(
    ("present", "pod", "stuck"),
    [
        ({}, make_pod(1, "failed"), ["w-1"]),
        ({}, make_pod(1, "failed", ready=True), []),
        ({}, make_pod(1, "failed", deletionTimestamp="2026-05-01T00:00:00Z"), []),
        ({"observedGeneration": 1}, make_pod(1, "failed"), []),
        ({"image": "j"}, make_pod(1, "failed"), ["w-1"]),
        ({"updateRevision": ""}, make_pod(1, "failed"), ["w-1"]),
        ({"updateRevision": ""}, make_pod(1, "another"), []),
    ],
)
def test_only_what_holds_the_set_up_is_found(present: Json, pod: Json, stuck: list[str]) -> None:
    """Once its controller has seen the template; of revisions that are not known only the failed one."""
    workload = make_set(**present)
    condition = RolledOutOrHeld(workload, None, failed="failed")
    status = condition.evaluate(Snapshot.from_objects([workload.raw, pod], known=("Pod",)))
    assert ([entry.name for entry in condition.stuck], status.is_current) == (stuck, bool(stuck))
    condition.deleted.add("p-1")
    assert not condition.evaluate(Snapshot.from_objects([workload.raw, pod], known=("Pod",))).is_current


def test_nothing_is_deleted_under_the_template_of_somebody_else() -> None:
    """Which is a failure of the wait."""
    condition = RolledOutOrHeld(make_set(), None, failed="failed")
    other = make_set(image="k")
    other.raw["metadata"]["generation"] = 3
    snapshot = Snapshot.from_objects([other.raw, make_pod(1, "failed")], known=("Pod",))
    assert (condition.evaluate(snapshot).is_failed, condition.stuck) == (True, [])


A, B = Place("main", ENV, "A"), Place("main", ENV, "B")
FIRST = (Temporary("2026-05-01T00:00:00Z", (Edit(A, None, 1), Edit(B, None, 2)), "first", "then"),)


@pytest.mark.parametrize(
    ("edits", "until", "places", "ends"),
    [
        ([], "2026-05-01T00:00:00Z", [A, B], [("first", "01", "AB")]),
        ([], "2026-05-01T00:00:00Z", [A], [("first", "01", "AB")]),
        ([], "2026-05-02T00:00:00Z", [A, B], [("second", "02", "AB")]),
        ([], "2026-05-02T00:00:00Z", [A], [("first", "01", "B"), ("second", "02", "A")]),
        ([], "", [A], [("first", "01", "B")]),
        ([Edit(B, 2, 3)], "2026-05-02T00:00:00Z", [A, B], [("second", "02", "BA")]),
        ([Edit(B, 2, 3)], "", [A, B], []),
        ([], "", [], [("first", "01", "AB")]),
    ],
)
def test_what_is_declared_again_has_the_end_that_is_declared(
    edits: list[Edit], until: str, places: list[Place], ends: list[tuple[str, str, str]]
) -> None:
    """Also where its value is the same; what there was before the first change stays what is given back."""
    after = add_temporary(FIRST, edits, until, run_id="second", at="now", places=places)
    told = [(entry.run_id, entry.until[8:10], "".join(edit.place.key for edit in entry.edits)) for entry in after]
    assert told == ends
    assert all(edit.before is None for entry in after for edit in entry.edits)
