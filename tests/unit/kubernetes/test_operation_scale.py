# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_scale against the API server in memory: a declared number, what is refused, what is written."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.scale import run_scale
from support.memory_controllers import NAMESPACE, Controllers, describe_hpa
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import list_writes, run_operation

API = "Deployment/api"
POOL: dict[str, Any] = {
    "max_connections": 100,
    "limited_by": "max_connections",
    "pool_per_replica": 10,
    "used_by_others": 10,
    "reserved": 0,
    "shared_with": [{"kind": "StatefulSet", "name": "w", "pool_per_replica": 10, "replicas": None}],
}


@pytest.fixture
def controllers(memory: MemoryServer) -> Controllers:
    """Who settles at once what is written; there are an API of 3 replicas and workers of 2."""
    controllers = Controllers(memory)
    controllers.add("Deployment", "api")
    controllers.add("StatefulSet", "w", 2)
    return controllers


def scale(memory: MemoryServer, replicas: int, *, check: bool = False, **params: Any) -> ModuleRun:
    """Declare a number."""
    return run_operation(memory, run_scale, check=check, replicas=replicas, **params)


def count_replicas(memory: MemoryServer) -> int:
    """Return what the API has."""
    replicas: int = memory.read("Deployment", NAMESPACE, "api")["spec"]["replicas"]
    return replicas


def check_refused(memory: MemoryServer, run: ModuleRun, words: str) -> None:
    """Check that it was refused before anything was written."""
    assert (run.failed, run["error"]["refused"], list_writes(memory)) == (True, True, [])
    assert words in run.msg


@pytest.mark.usefixtures("controllers")
def test_check_mode_predicts_and_the_second_run_changes_nothing(memory: MemoryServer) -> None:
    """Plan, diff and summary of both agree; only the number is written."""
    predicted = scale(memory, 5, check=True)
    assert (predicted.changed, list_writes(memory)) == (True, [])
    assert predicted["summary"] == "would scale Deployment n/api from 3 to 5 replicas (declared)"
    real = scale(memory, 5)
    assert not real.failed, real.msg
    for key in ("plan", "diff", "changed", "target", "replicas"):
        assert predicted[key] == real[key], key
    assert list_writes(memory) == [("api", ["replicas"])]
    assert real["evidence"] == ["Deployment n/api: 5 of 5 replicas ready"]
    memory.log.clear()
    again = scale(memory, 5)
    assert (again.changed, again["plan"], list_writes(memory)) == (False, [], [])


@pytest.mark.usefixtures("controllers")
def test_more_than_declared_is_refused_unless_fewer_are_allowed(memory: MemoryServer) -> None:
    """Another number than declared is no success."""
    check_refused(memory, scale(memory, 2), "it has 3 replicas and 2 are declared, and allow_scale_down is false")
    lowered = scale(memory, 2, allow_scale_down=True)
    assert (lowered.failed, count_replicas(memory)) == (False, 2)


@pytest.mark.usefixtures("controllers")
@pytest.mark.parametrize("replicas", [0, -1])
def test_less_than_one_is_no_number(memory: MemoryServer, replicas: int) -> None:
    """Stopping is another module's."""
    check_refused(memory, scale(memory, replicas, allow_scale_down=True), f"it is {replicas}, which is less than 1")


@pytest.mark.usefixtures("controllers")
def test_an_autoscaler_is_named_with_its_bounds(memory: MemoryServer) -> None:
    """It holds the number where that is allowed."""
    memory.put(describe_hpa(API, 2, 4))
    check_refused(memory, scale(memory, 5), "HorizontalPodAutoscaler n/h owns its replicas (2 to 4)")
    held = scale(memory, 5, autoscaler="adjust")
    assert not held.failed, held.msg
    spec = memory.read("HorizontalPodAutoscaler", NAMESPACE, "h")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], count_replicas(memory)) == (5, 5, 5)


@pytest.mark.usefixtures("controllers")
def test_the_database_bounds_the_number(memory: MemoryServer) -> None:
    """100 connections, 10 of others, 20 of the workers: seven replicas."""
    for check in (True, False):
        check_refused(memory, scale(memory, 8, check=check, connection_budget=POOL), "7 replicas fit")
    fitting = scale(memory, 7, connection_budget=POOL)
    assert not fitting.failed, fitting.msg
    assert fitting["evidence"][1] == (
        "7 replicas may open 70 of the 100 connections of the database, beside 20 of StatefulSet n/w, 10 of other clients"
    )


@pytest.mark.usefixtures("controllers")
def test_what_shares_the_database_counts_with_its_autoscalers_maximum(memory: MemoryServer) -> None:
    """Or with a number that is given for it; the workload itself does not share with itself."""
    memory.put(describe_hpa("StatefulSet/w", 2, 6))
    check_refused(memory, scale(memory, 4, connection_budget=POOL), "3 replicas fit")
    given = [{**POOL["shared_with"][0], "replicas": 1}, {"kind": "Deployment", "name": "api", "pool_per_replica": 10}]
    fitting = scale(memory, 8, connection_budget={**POOL, "shared_with": given})
    assert not fitting.failed, fitting.msg


@pytest.mark.usefixtures("controllers")
def test_a_full_database_does_not_keep_replicas_from_going(memory: MemoryServer) -> None:
    """Fewer replicas make it better."""
    lowered = scale(memory, 2, allow_scale_down=True, connection_budget={**POOL, "max_connections": 1})
    assert (lowered.failed, count_replicas(memory)) == (False, 2)


@pytest.mark.usefixtures("controllers")
def test_a_lost_answer_is_no_second_write(memory: MemoryServer) -> None:
    """It is read whether the write has been carried out."""
    memory.lose_next("after", verb="patch", path="/deployments/api", times=2)  # the dry run, and the write
    run = scale(memory, 4)
    assert not run.failed, run.msg
    assert (run.changed, count_replicas(memory)) == (True, 4)
