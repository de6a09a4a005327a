# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against the API server in memory, where another run or a person has rolled out something else."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.rollout import Declared, plan_rollout
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import ENV, IMAGE, Place
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.memory_objects import apply_operations
from support.memory_rollouts import PULL, UNREADY, RolloutControllers

from .rollout_steps import KINDS, QUICK, check_done, read_image, read_pod_images, read_template, roll_out

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


# --- what a person has broken ----------------------------------------------------------------------------------------


def set_image(memory: MemoryServer, controllers: RolloutControllers, kind: str, image: str, **spec: Any) -> None:
    """Change the image as ``kubectl set image`` does."""

    def edit(obj: Json) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
        obj["spec"].update(spec)

    memory.change(kind, NAMESPACE, "w", edit, manager="kubectl-set")
    controllers.act()
    controllers.act()


def test_a_set_that_a_person_has_broken_is_mended(memory: MemoryServer, controllers: RolloutControllers) -> None:
    """Its pod that is not ready and of no declared revision holds the set up, and is deleted; the others stay."""
    controllers.add("StatefulSet")
    set_image(memory, controllers, "StatefulSet", "bad")
    assert read_pod_images(memory) == {"i", "bad"}
    run = check_done(roll_out(memory, "StatefulSet", image="i", timeout=30.0))
    assert read_pod_images(memory) == {"i"}
    assert [request.path for request in memory.log if request.method == "DELETE"] == ["/api/v1/namespaces/n/pods/w-1"]
    assert run.changed


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_goes_back_to_what_serves(memory: MemoryServer, controllers: RolloutControllers, kind: str) -> None:
    """Not to the template that a person has broken."""
    controllers.failures["worse"] = PULL
    controllers.add(kind)
    set_image(memory, controllers, kind, "bad")
    run = roll_out(memory, kind, image="worse", **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory, kind), read_pod_images(memory)) == (
        True,
        True,
        "i",
        {"i"},
    )


def test_a_canary_of_a_person_that_is_promoted_goes_back_to_what_was_complete(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """By the revision that the set itself has kept, with the partition that there was."""
    controllers.add("StatefulSet")
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    set_image(memory, controllers, "StatefulSet", "j", updateStrategy=strategy)
    assert read_pod_images(memory) == {"i", "j"}
    controllers.failures["j"] = UNREADY
    run = roll_out(memory, "StatefulSet", image="j", partition=0, **QUICK)
    assert (run.failed, run["rolled_back"], read_image(memory, "StatefulSet")) == (True, True, "i")
    assert read_pod_images(memory) == {"i"}
    assert memory.read("StatefulSet", NAMESPACE, "w")["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == 1


def test_a_person_s_release_that_is_ready_for_a_moment_does_not_serve(
    memory: MemoryServer, controllers: RolloutControllers
) -> None:
    """It crashes after each start, and has no probe. What serves when it is looked at is not waited for."""
    controllers.add("Deployment")
    controllers.held.add("w")

    def count_ready(number: int) -> None:
        status = {"readyReplicas": number, "availableReplicas": number}
        memory.change("Deployment", NAMESPACE, "w", lambda obj: obj["status"].update(status), manager="controller")

    count_ready(1)
    memory.add_rival(lambda: threading.Timer(0.3, count_ready, (2,)).start(), verb="watch", path="/deployments")
    memory.add_rival(lambda: threading.Timer(0.6, count_ready, (1,)).start(), verb="watch", path="/deployments")
    run = roll_out(memory, image="i", serve_seconds=1.0, timeout=2.0)
    assert (run.failed, run["rolled_back"], run.changed) == (True, False, False)
    count_ready(2)
    assert check_done(roll_out(memory, image="i", serve_seconds=30.0))["waited"] < 10
