# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the server is asked for before the first write, and how its refusals are told."""

from __future__ import annotations

import json
from collections.abc import Collection

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import Write
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.preflight import Planned, check_rights
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import format_title, object_path
from support.memory_controllers import NAMESPACE, describe_workload, scale
from support.memory_handler import Fault
from support.memory_kubernetes import MemoryServer
from support.operation_runs import list_writes

REVIEWS = "selfsubjectaccessreviews"


def plan(memory: MemoryServer, *names: str, replicas: int = 0) -> list[Planned]:
    """Put workloads and plan to scale them."""
    planned = []
    for name in names:
        raw = memory.put(describe_workload("StatefulSet", name))
        path, title = object_path("StatefulSet", NAMESPACE, name), format_title("StatefulSet", NAMESPACE, name)
        write = Write({"spec": {"replicas": replicas}}, (("spec", "replicas"),))
        planned.append(Planned("StatefulSet", title, path, raw, write))
    return planned


def check(
    client: Client, planned: list[Planned], *, reads: Collection[str] = ("Pod",), check_mode: bool = False
) -> list[str]:
    """Ask for everything, and return the warnings."""
    check_rights(client, planned, namespace=NAMESPACE, reads=reads, check_mode=check_mode)
    return client.warnings


@pytest.mark.parametrize("check_mode", [True, False])
def test_where_nothing_is_planned_nothing_is_asked(memory: MemoryServer, check_mode: bool) -> None:
    """Not even with rights that are missing."""
    memory.deny("list", "pods")
    assert check(memory.client(), [], check_mode=check_mode) == []
    assert memory.log == []


def test_each_write_is_tried_and_nothing_is_changed(memory: MemoryServer) -> None:
    """A dry run each, after the rights to read."""
    planned = plan(memory, "a", "b")
    client = memory.client()
    check(client, planned, reads=("Pod", "ReplicaSet"))
    assert [request.verb for request in memory.log] == ["create", "create", "patch", "patch"]
    assert [request.query.get("dryRun") for request in memory.log[2:]] == ["All", "All"]
    assert (list_writes(memory), client.write_attempted) == ([], False)
    assert [obj["spec"]["replicas"] for obj in memory.read_all("StatefulSet")] == [3, 3]


def test_check_mode_asks_for_rights_only(memory: MemoryServer) -> None:
    """Once for each kind, whatever the number of objects is."""
    check(memory.client(), plan(memory, "a", "b", "c"), check_mode=True)
    asked = [request.body["spec"]["resourceAttributes"] for request in memory.log]
    assert [(right["verb"], right["resource"], right["namespace"]) for right in asked] == [
        ("list", "pods", NAMESPACE),
        ("patch", "statefulsets", NAMESPACE),
    ]


def test_all_that_is_missing_is_named(memory: MemoryServer) -> None:
    """With the account's server, and where to look."""
    planned = plan(memory, "a")
    for verb, resource in (("list", "pods"), ("list", "replicasets.apps"), ("patch", "statefulsets.apps")):
        memory.deny(verb, resource)
    with pytest.raises(Refusal) as caught:
        check(memory.client(), planned, reads=("ReplicaSet", "Pod"), check_mode=True)
    message = str(caught.value)
    for rule in ("list pods", "list replicasets.apps", "patch statefulsets.apps"):
        assert f"{rule} in namespace n" in message
    assert memory.url in message
    assert "docs/kubernetes-rights.yml" in message


def test_without_the_right_to_list_no_write_is_even_tried(memory: MemoryServer) -> None:
    """It could not be said that the pods are gone."""
    planned = plan(memory, "a")
    memory.deny("list", "pods")
    with pytest.raises(Refusal, match="list pods in namespace n"):
        check(memory.client(), planned)
    assert memory.count("patch") == 0


def answer_reviews(memory: MemoryServer, *allowed: bool) -> None:
    """Answer the next questions about rights."""
    for answer in allowed:
        body = json.dumps({"status": {"allowed": answer}}).encode()
        memory.faults.append(Fault(1, "create", REVIEWS, status=201, body=body))


def test_rights_may_be_about_named_objects(memory: MemoryServer) -> None:
    """A role with resourceNames: the kind is denied, each object is allowed."""
    planned = plan(memory, "a", "b")
    answer_reviews(memory, False, True, True)
    check(memory.client(), planned, reads=(), check_mode=True)
    names = [request.body["spec"]["resourceAttributes"].get("name") for request in memory.log]
    assert names == [None, "a", "b"]


def test_the_object_that_a_role_does_not_name_is_named(memory: MemoryServer) -> None:
    """The others are not."""
    planned = plan(memory, "a", "b")
    answer_reviews(memory, False, True, False)
    with pytest.raises(Refusal, match=r"it may not patch statefulsets\.apps b in namespace n, which"):
        check(memory.client(), planned, reads=(), check_mode=True)


def test_rights_that_cannot_be_asked_for_are_a_warning(memory: MemoryServer) -> None:
    """The dry run still says what is refused."""
    planned = plan(memory, "a")
    memory.faults.append(Fault(99, "create", REVIEWS, status=403))
    assert "could not be asked beforehand" in " ".join(check(memory.client(), planned))
    assert memory.count("patch") == 1


def test_what_the_server_would_refuse_is_named_altogether(memory: MemoryServer) -> None:
    """Webhooks, quotas, schemas: with what they say."""
    planned = plan(memory, "a", "b", "c")
    for name in ("a", "c"):
        memory.fail_next(403 if name == "a" else 422, verb="patch", path=f"/{name}")
    with pytest.raises(Refusal) as caught:
        check(memory.client(), planned)
    assert caught.value.obj == "StatefulSet n/a, StatefulSet n/c"
    assert "injected 403" in caught.value.problem
    assert "injected 422" in caught.value.problem
    assert "nothing has been changed" in caught.value.problem


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_does_not_work_refuses_nothing(memory: MemoryServer, status: int) -> None:
    """That is another failure, and the first one ends it."""
    planned = plan(memory, "a", "b")
    memory.fail_next(status, times=1000, verb="patch")
    with pytest.raises(OpsError) as caught:
        check(memory.client(0.2), planned)
    assert not isinstance(caught.value, Refusal)
    assert caught.value.obj == "StatefulSet n/a"
    assert memory.count("patch", "/b") == 0


def test_a_rival_between_read_and_dry_run_is_no_refusal(memory: MemoryServer) -> None:
    """The real write is decided about anew as well."""
    planned = plan(memory, "a")
    memory.add_rival(lambda: scale(memory, "StatefulSet", "a", 7))
    check(memory.client(), planned)
