# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_workload_info against the API server in memory: what is listed, said of it, and asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload_info import read_workloads
from support.memory_controllers import NAMESPACE, Controllers, describe_workload, scale
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import name_workloads, run_operation


def put_namespaces(memory: MemoryServer) -> None:
    """Put the namespaces, one of which is the identity of the cluster."""
    memory.put({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "here"}})
    memory.put({"kind": "Namespace", "metadata": {"name": NAMESPACE}})


@pytest.fixture
def controllers(memory: MemoryServer) -> Controllers:
    """Who settles a shop at once."""
    put_namespaces(memory)
    controllers = Controllers(memory)
    controllers.add("StatefulSet", "w")
    controllers.add("Deployment", "d", 2)
    memory.put(describe_workload("CronJob", "c", 1))
    memory.put(describe_workload("Job", "j", 1))
    return controllers


def read(memory: MemoryServer, *names: str, **params: Any) -> ModuleRun:
    """Read the workloads named, or all."""
    run = run_operation(memory, read_workloads, workloads=name_workloads(names), **params)
    assert not run.changed
    return run


def stop(memory: MemoryServer, name: str) -> None:
    """Stop a workload."""
    run = run_operation(memory, run_workload, state="stopped", workloads=name_workloads([name]), run_id="night")
    assert not run.failed, run.msg


@pytest.mark.usefixtures("controllers")
def test_all_workloads_of_a_namespace(memory: MemoryServer) -> None:
    """One request for the identity and for each kind; a Job is usually a run of a CronJob and not listed."""
    run = read(memory)
    assert [(entry["kind"], entry["name"], entry["replicas"]) for entry in run["workloads"]] == [
        ("StatefulSet", "w", 3),
        ("Deployment", "d", 2),
        ("CronJob", "c", 1),
    ]
    assert (run["cluster_uid"], run["requests"], len(memory.log)) == ("here", 4, 4)
    assert run["summary"] == "3 of 3 workloads as asked for"
    assert run["evidence"][0] == "StatefulSet n/w: 3 of 3 replicas ready"
    assert run["stopped_by_lowtide"] == []


def test_what_is_stopped_and_what_is_not_ready(memory: MemoryServer, controllers: Controllers) -> None:
    """Who stopped it and what it had; its entries can be passed on to k8s_workload."""
    stop(memory, "StatefulSet/w")
    controllers.held = {"d"}
    scale(memory, "Deployment", "d", 5)
    run = read(memory)
    assert run["summary"] == "2 of 3 workloads as asked for; stopped by lowtide.ops: StatefulSet n/w"
    assert [entry["name"] for entry in run["stopped_by_lowtide"]] == ["w"]
    saved = run["stopped_by_lowtide"][0]["stopped_by_lowtide"]
    assert (saved["run"], saved["replicas"]) == ("night", 3)
    by_name = {entry["name"]: entry for entry in run["workloads"]}
    assert (by_name["d"]["status"], by_name["d"]["ready"]) == ("InProgress", 2)
    started = run_operation(memory, run_workload, state="running", workloads=run["stopped_by_lowtide"])
    assert not started.failed, started.msg
    assert read(memory)["stopped_by_lowtide"] == []


@pytest.mark.usefixtures("controllers")
def test_what_a_person_changed_since_is_stale(memory: MemoryServer) -> None:
    """It counts no longer, and is told."""
    stop(memory, "StatefulSet/w")
    scale(memory, "StatefulSet", "w", 2, manager="kubectl")
    entry = read(memory, "StatefulSet/w")["workloads"][0]
    assert entry["stopped_by_lowtide"] is None
    assert entry["stale_saved_state"]["run"] == "night"


@pytest.mark.usefixtures("controllers")
def test_named_workloads_only(memory: MemoryServer) -> None:
    """Also a Job; one request for each kind."""
    run = read(memory, "StatefulSet/w", "Job/j", cluster_uid="here")
    assert [entry["name"] for entry in run["workloads"]] == ["w", "j"]
    assert [request.verb for request in memory.log] == ["get", "list", "list"]


@pytest.mark.usefixtures("controllers")
def test_a_missing_one_is_named(memory: MemoryServer) -> None:
    """And what there is instead."""
    run = read(memory, "StatefulSet/w", "StatefulSet/gone")
    assert run.failed
    assert "StatefulSet n/gone: it does not exist" in run.msg
    assert "StatefulSets there: w" in run.msg
    assert run["requests"] == len(memory.log)


def test_the_identity_alone(memory: MemoryServer) -> None:
    """Without a namespace nothing else is asked."""
    put_namespaces(memory)
    run = read(memory, namespace=None)
    assert (run["cluster_uid"], run["workloads"], run["requests"], run["summary"]) == ("here", [], 1, "cluster here")


def test_names_without_a_namespace_ask_nothing(memory: MemoryServer) -> None:
    """They could not be found."""
    run = read(memory, "StatefulSet/w", namespace=None)
    assert (run.failed, run["error"]["object"], memory.log) == (True, "option namespace", [])


@pytest.mark.usefixtures("controllers")
def test_an_account_of_one_namespace(memory: MemoryServer) -> None:
    """It may not read the identity: that is not known then, and no failure unless it alone is asked for."""
    memory.deny("get", "namespaces")
    assert (read(memory)["cluster_uid"], len(read(memory)["workloads"])) == (None, 3)
    run = read(memory, namespace=None)
    assert run.failed
    assert "Grant this account the verb get on the namespace kube-system" in run.msg


def test_an_empty_namespace_and_one_that_does_not_exist(memory: MemoryServer) -> None:
    """The server answers both alike; only an account that may read no namespace cannot tell them apart."""
    put_namespaces(memory)
    assert read(memory)["workloads"] == []
    run = read(memory, namespace="gone")
    assert run.failed
    assert "namespace gone" in run.msg
    memory.deny("get", "namespaces")
    assert read(memory)["workloads"] == []


@pytest.mark.usefixtures("controllers")
def test_a_listing_that_is_forbidden_is_a_failure(memory: MemoryServer) -> None:
    """An incomplete list would look like an empty namespace."""
    memory.deny("list", "deployments.apps")
    run = read(memory)
    assert run.failed
    assert "Deployments of namespace n" in run.msg


@pytest.mark.usefixtures("controllers")
def test_another_cluster_is_refused_before_anything(memory: MemoryServer) -> None:
    """One request tells; the cluster that is expected is not asked twice."""
    run = read(memory, cluster_uid="elsewhere")
    assert (run.failed, run["error"]["refused"], run["requests"], len(memory.log)) == (True, True, 1, 1)
    assert read(memory, cluster_uid="here")["requests"] == 4


@pytest.mark.parametrize(("ready", "status"), [(2, "Current"), (1, "InProgress")])
def test_a_daemon_set_is_read_where_it_is_named(memory: MemoryServer, ready: int, status: str) -> None:
    """Its number is that of the nodes, which nobody can set: it is refused for a stop."""
    put_namespaces(memory)
    numbers = {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2}
    counted = {**numbers, "numberReady": ready, "numberAvailable": ready, "observedGeneration": 1}
    memory.put({**describe_workload("DaemonSet", "agent"), "status": counted})
    run = read(memory, "DaemonSet/agent")
    assert [(entry["replicas"], entry["ready"], entry["status"]) for entry in run["workloads"]] == [(2, ready, status)]
    refused = run_operation(memory, run_workload, state="stopped", workloads=name_workloads(["DaemonSet/agent"]))
    assert refused["error"]["refused"]
    assert refused["error"]["next_step"] == "Leave it out, or give its template a nodeSelector that no node has"
