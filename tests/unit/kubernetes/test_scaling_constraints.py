# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the guards read, what each costs, and what an account that may not read it is told."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import ApiError, Forbidden, NotFound
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.scaling_constraints import (
    GUARDS,
    read_constraints,
)
from support.memory_controllers import (
    ALWAYS,
    NAMESPACE,
    describe_hpa,
    describe_scaled_object,
    describe_workload,
)
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer

WORKER = "StatefulSet/w"
RESOURCES = {
    "hpa": "horizontalpodautoscalers.autoscaling",
    "keda": "scaledobjects.keda.sh",
    "disruption_budget": "poddisruptionbudgets.policy",
    "quota": "resourcequotas",
}


def put_all(memory: MemoryServer) -> None:
    """Put one of everything that guards look at, here and in another namespace."""
    memory.put(describe_hpa(WORKER, 1, 9))
    memory.put(describe_scaled_object(WORKER, 1, 9))
    for kind in ("PodDisruptionBudget", "ResourceQuota"):
        for namespace in (NAMESPACE, "other"):
            memory.put({"kind": kind, "metadata": {"name": "x", "namespace": namespace}, "spec": {}})
    memory.put({"kind": "Node", "metadata": {"name": "n1"}})
    for namespace, phase in ((NAMESPACE, "Running"), ("other", "Pending"), ("other", "Failed")):
        metadata = {"name": phase.lower(), "namespace": namespace}
        memory.put({"kind": "Pod", "metadata": metadata, "status": {"phase": phase}})


def test_without_guards_nothing_is_asked(memory: MemoryServer) -> None:
    """Nor for owners, which the workload itself tells."""
    put_all(memory)
    constraints = read_constraints(memory.client(), NAMESPACE, ["gitops"])
    assert memory.log == []
    assert (constraints.autoscalers, constraints.budgets, constraints.quotas) == ([], [], [])
    assert (constraints.nodes, constraints.pods) == ([], [])


def test_all_guards(memory: MemoryServer) -> None:
    """One request each, two for quota, two for headroom, which looks at all namespaces and at what takes room."""
    put_all(memory)
    constraints = read_constraints(memory.client(), NAMESPACE, GUARDS)
    assert len(memory.log) == 7
    assert sorted(scaler.kind for scaler in constraints.autoscalers) == ["HorizontalPodAutoscaler", "ScaledObject"]
    assert [len(constraints.budgets), len(constraints.quotas), len(constraints.nodes)] == [1, 1, 1]
    assert sorted(pod["metadata"]["name"] for pod in constraints.pods) == ["pending", "running"]
    assert constraints.warnings == []


@pytest.mark.parametrize("guard", RESOURCES)
def test_each_guard_reads_its_own(memory: MemoryServer, guard: str) -> None:
    """And nothing else; where there are quotas, what pods get by default counts against them."""
    put_all(memory)
    read_constraints(memory.client(), NAMESPACE, [guard])
    assert [request.path.rpartition("/")[2] for request in memory.log] == [
        RESOURCES[guard].partition(".")[0],
        *(["limitranges"] if guard == "quota" else []),
    ]


def test_an_hpa_of_keda_is_its_scaled_object(memory: MemoryServer) -> None:
    """One that is of another workload is not counted."""
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "k", "uid": "u", "controller": True}
    memory.put(describe_hpa(WORKER, 1, 9, ownerReferences=[owner]))
    memory.put(describe_hpa("Deployment/w", 1, 9, name="other"))
    memory.put(describe_scaled_object(WORKER, 1, 9))
    constraints = read_constraints(memory.client(), NAMESPACE, ["hpa", "keda"])
    workload = Workload.from_object(describe_workload("StatefulSet", "w"))
    assert [scaler.title for scaler in constraints.list_autoscalers(workload)] == ["ScaledObject n/k"]
    alone = read_constraints(memory.client(), NAMESPACE, ["hpa"])
    assert [scaler.title for scaler in alone.list_autoscalers(workload)] == ["HorizontalPodAutoscaler n/h"]


@pytest.mark.parametrize("guard", RESOURCES)
def test_what_may_not_be_read(memory: MemoryServer, guard: str) -> None:
    """An error where it has to be known, and a warning on the way back."""
    memory.deny("list", RESOURCES[guard])
    memory.faults.append(Fault(ALWAYS, "get", "/apis/keda.sh", status=200, body=b"{}"))
    with pytest.raises(Forbidden, match="of namespace n"):
        read_constraints(memory.client(), NAMESPACE, [guard])
    constraints = read_constraints(memory.client(), NAMESPACE, [guard], required=False)
    assert len(constraints.warnings) == 1
    assert "Until then nothing is known of the" in constraints.warnings[0]


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("required", [True, False])
def test_a_cluster_without_keda(memory: MemoryServer, status: int, required: bool) -> None:
    """An account of one namespace gets 403 for what does not exist: whether it does, the list of groups tells."""
    memory.unregister("ScaledObject")
    if status == 403:
        memory.faults.append(Fault(ALWAYS, path="/scaledobjects", status=403))
    constraints = read_constraints(memory.client(), NAMESPACE, ["keda"], required=required)
    assert (constraints.autoscalers, constraints.warnings) == ([], [])
    assert len(memory.log) == (2 if status == 403 else 1)


def test_an_account_that_may_not_even_read_the_groups(memory: MemoryServer) -> None:
    """Then the first answer stands."""
    memory.faults.append(Fault(ALWAYS, path="/apis/keda.sh", status=403))
    with pytest.raises(Forbidden, match="ScaledObjects of namespace n"):
        read_constraints(memory.client(), NAMESPACE, ["keda"])


def test_only_keda_may_be_missing(memory: MemoryServer) -> None:
    """A server without budgets is no server that was meant."""
    memory.unregister("PodDisruptionBudget")
    with pytest.raises(NotFound):
        read_constraints(memory.client(), NAMESPACE, ["disruption_budget"])


@pytest.mark.parametrize("required", [True, False])
def test_a_server_that_fails_is_an_error(memory: MemoryServer, required: bool) -> None:
    """Also on the way back: it is not known what there is."""
    memory.fail_next(503, times=1000)
    with pytest.raises(ApiError, match="503"):
        read_constraints(memory.client(0.2), NAMESPACE, ["hpa"], required=required)
