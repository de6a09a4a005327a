# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against the API server in memory, where another run or a person has rolled out something else."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.rollout import Declared, plan_rollout
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import ENV, IMAGE, Place
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.memory_objects import apply_operations
from support.memory_rollouts import PULL, RolloutControllers
from support.operation_runs import is_write

from .rollout_steps import QUICK, read_image, read_template, roll_out

Json = dict[str, Any]


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once. Pods of the image ``bad`` never start."""
    played = RolloutControllers(memory)
    played.failures["bad"] = PULL
    return played


def take_over(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Declare the good image and a variable as run ``b`` does."""

    def write(obj: Json) -> None:
        workload = Workload.from_object(obj, "Deployment")
        values = {Place("main", IMAGE): "i", Place("main", ENV, "SETTING"): {"value": "b"}}
        declared = Declared(values=values)
        planned = plan_rollout(workload, [], declared, run_id="b", now="2026-05-01T12:00:00Z", at=0.0)
        assert planned.write is not None
        obj.update(apply_operations(obj, build_json_patch(obj, planned.write)))

    if read_image(memory) == "bad":
        memory.change("Deployment", NAMESPACE, "w", write)
        controllers.act()


def count_writes(memory: MemoryServer) -> int:
    """Return how many writes the module has sent."""
    return sum(is_write(request) for request in memory.log)


@pytest.mark.parametrize(
    ("verb", "path", "said"),
    [
        ("list", "/events", "its pod template was changed by run b while it was rolled out"),
        ("patch", "", "run b has changed its pod template since, so that nothing is undone"),
    ],
)
def test_the_rollout_of_another_run_is_never_undone(
    memory: MemoryServer, controllers: RolloutControllers, verb: str, path: str, said: str
) -> None:
    """Neither when it comes while it is waited for, nor when it comes before the undo; the message names it."""
    controllers.add("Deployment")
    memory.add_rival(lambda: take_over(memory, controllers), verb=verb, path=path, times=9)
    run = roll_out(memory, image="bad", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory)) == (True, False, "i")
    assert said in run.msg
    assert read_template(memory)["spec"]["containers"][0]["env"] == [{"name": "SETTING", "value": "b"}]
    assert "would roll out" not in run["summary"]


def test_a_wait_that_fails_after_a_write_says_what_was_begun(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """And not what would be rolled out."""
    controllers.add("Deployment")
    memory.add_rival(lambda: take_over(memory, controllers), verb="list", path="/events", times=9)
    run = roll_out(memory, image="bad", **QUICK)
    assert run.changed
    assert run["summary"] == "began to roll out Deployment n/w: main: image i -> bad; it did not come to an end"
