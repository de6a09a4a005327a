# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout with state undone against the API server in memory: what a run has rolled out is taken back, nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import PULL, RolloutControllers
from support.operation_runs import list_writes

from .rollout_steps import KINDS, QUICK, check_done, read_image, read_pod_images, read_saved, read_template, roll_out

Json = dict[str, Any]


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once."""
    return RolloutControllers(memory)


def undo(memory: MemoryServer, kind: str = "Deployment", **params: Any) -> Any:
    """Take back what the run ``release`` has rolled out."""
    return roll_out(memory, kind, **{"state": "undone", "run_id": "release", **params})


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_has_rolled_out_is_taken_back_once(
    memory: MemoryServer, controllers: RolloutControllers, kind: str
) -> None:
    controllers.add(kind)
    check_done(roll_out(memory, kind, image="j", run_id="release"))
    memory.log.clear()
    predicted = check_done(undo(memory, kind, check=True))
    assert (list_writes(memory), read_image(memory, kind)) == ([], "j")
    done = check_done(undo(memory, kind))
    assert done["plan"] == predicted["plan"]
    assert done["plan"][0]["what"] == "revision 2 -> 1 (i)"
    assert (done.changed, read_image(memory, kind), read_pod_images(memory)) == (True, "i", {"i"})
    assert done["diff"] == predicted["diff"] == {"before": {"main": "j"}, "after": {"main": "i"}}
    memory.log.clear()
    again = check_done(undo(memory, kind))
    assert (again.changed, memory.count("patch")) == (False, 0)


def test_a_canary_is_taken_back_with_its_partition(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """From the second of its batches too: it goes back to before the first."""
    controllers.add("StatefulSet", replicas=3)
    first = read_template(memory, "StatefulSet")
    for partition in (2, 1):
        check_done(roll_out(memory, "StatefulSet", image="j", partition=partition, run_id="release"))
    check_done(undo(memory, "StatefulSet"))
    assert read_template(memory, "StatefulSet") == first
    strategy = memory.read("StatefulSet", NAMESPACE, "w")["spec"].get("updateStrategy") or {}
    assert (strategy.get("rollingUpdate") or {}).get("partition", 0) == 0
    assert read_pod_images(memory) == {"i"}


def test_what_another_run_has_rolled_out_stays(memory: MemoryServer, controllers: RolloutControllers) -> None:
    controllers.add("Deployment")
    assert check_done(undo(memory)).changed is False
    check_done(roll_out(memory, image="j", run_id="other"))
    assert check_done(undo(memory)).changed is False
    assert read_image(memory) == "j"


def test_a_change_of_a_person_stays(memory: MemoryServer, controllers: RolloutControllers) -> None:
    controllers.add("Deployment")
    check_done(roll_out(memory, image="j", run_id="release"))

    def change(obj: Json) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = "k"

    memory.change("Deployment", NAMESPACE, "w", change, manager="kubectl-edit")
    assert check_done(undo(memory)).changed is False


def test_what_failed_and_was_undone_by_itself_is_left(memory: MemoryServer, controllers: RolloutControllers) -> None:
    controllers.failures["bad"] = PULL
    controllers.add("Deployment")
    assert roll_out(memory, image="bad", run_id="release", **QUICK).failed
    assert check_done(undo(memory)).changed is False
    saved = read_saved(memory)
    assert saved is not None
    assert (saved["completed"], read_image(memory)) == (True, "i")


def test_a_revision_that_does_not_work_with_the_schema_is_not_put_back(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """E10: the database has been migrated meanwhile."""
    controllers.add("Deployment")
    old = {"lowtide.ops/schema-versions": "41"}
    new = {"lowtide.ops/schema-versions": "41-42"}
    check_done(roll_out(memory, pod_annotations=old, schema_version=41))
    check_done(roll_out(memory, image="j", pod_annotations=new, schema_version=42, run_id="release"))
    refused = undo(memory, schema_version=42)
    assert refused.failed
    assert refused["error"]["refused"] is True
    assert "42" in refused.msg
    assert read_image(memory) == "j"


def test_it_declares_nothing_else(memory: MemoryServer, controllers: RolloutControllers) -> None:
    controllers.add("Deployment")
    refused = undo(memory, image="j")
    assert "state undone takes something back and declares nothing else" in refused.msg
