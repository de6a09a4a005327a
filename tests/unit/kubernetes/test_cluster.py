# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connecting to a cluster, its identity, named objects, and what is said of missing ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cluster import (
    KNOWN_NAMES,
    check_identity,
    connect,
    explain_missing,
    list_named,
    read_cluster_uid,
    read_object,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import ApiError, Forbidden
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from support.memory_controllers import NAMESPACE, describe_workload
from support.memory_kubernetes import MemoryServer
from support.operation_runs import ModuleDouble, make_module

KIND = "StatefulSet"


def put(memory: MemoryServer, *names: str) -> None:
    """Put a namespace with StatefulSets."""
    memory.put({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name in names:
        memory.put(describe_workload(KIND, name))


def put_identity(memory: MemoryServer) -> None:
    """Put what tells the cluster from others."""
    memory.put({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "here"}})


def make(memory: MemoryServer, **params: Any) -> Any:
    """The double of a module."""
    return make_module(memory, run_workload, **params)


# --- connecting -----------------------------------------------------------------------------------------------------


def test_nothing_is_sent_unless_an_identity_is_expected(memory: MemoryServer) -> None:
    """And then one request."""
    put_identity(memory)
    client = connect(make(memory, cluster_uid="here"), seconds=5)
    assert (client.run_id, client.deadline.seconds) == ("r", 5)
    check_identity(client, None)
    assert (client.requests, memory.log) == (0, [])
    check_identity(client, "here")
    assert (client.requests, len(memory.log)) == (1, 1)


def test_another_cluster_is_refused(memory: MemoryServer) -> None:
    """With both identities, and where the address came from."""
    put_identity(memory)
    with pytest.raises(Refusal, match=r"the option host.*is here, not the expected elsewhere"):
        check_identity(connect(make(memory), seconds=5), "elsewhere")


def test_the_identity_needs_one_right(memory: MemoryServer) -> None:
    """Which one, the message says."""
    put_identity(memory)
    memory.deny("get", "namespaces")
    with pytest.raises(Forbidden, match="resourceNames kube-system") as caught:
        read_cluster_uid(memory.client())
    assert caught.value.status == 403


@pytest.mark.parametrize("seconds", [0, -1.5])
def test_no_time_is_refused(memory: MemoryServer, seconds: float) -> None:
    """With the value."""
    with pytest.raises(Refusal, match=re.escape(f"option timeout: it is {seconds:g} s")):
        connect(make(memory), seconds=seconds)


def test_a_name_that_would_become_another_path_is_refused(memory: MemoryServer) -> None:
    """Of a namespace, and of an object."""
    with pytest.raises(Refusal, match=r"namespace '\.\./x'"):
        connect(make(memory, namespace="../x"), seconds=5)
    with pytest.raises(Refusal, match="name 'w/scale'"):
        read_object(memory.client(), KIND, NAMESPACE, "w/scale")
    assert memory.log == []


def test_a_run_without_a_name_gets_the_time(memory: MemoryServer) -> None:
    """In UTC, and no window's name."""
    assert re.fullmatch(r"\d{8}T\d{6}Z", connect(make(memory, run_id=None), seconds=5).run_id)


def test_credentials_are_kept_out_of_results(memory: MemoryServer, tmp_path: Path) -> None:
    """A token is one; the path of a kubeconfig, which Ansible takes for one, is none."""
    path = tmp_path / "kubeconfig"
    path.write_text("apiVersion: v1\nkind: Config\n", encoding="utf-8")
    module = make(memory, api_key="secret-token", kubeconfig=str(path))
    double = cast("ModuleDouble", module)
    double.no_log_values = {str(path), "kept"}
    connect(module, seconds=5)
    assert "secret-token" in double.no_log_values
    assert "kept" in double.no_log_values
    assert str(path) not in double.no_log_values


def test_a_certificate_that_is_not_verified_is_a_warning(memory: MemoryServer) -> None:
    """Nothing is sent for that."""
    module = make(memory, host="https://127.0.0.1:1", validate_certs=False)
    connect(module, seconds=5)
    assert "is not verified" in cast("ModuleDouble", module).warnings[0]
    plain = make(memory)
    connect(plain, seconds=5)
    assert cast("ModuleDouble", plain).warnings == []


# --- named objects --------------------------------------------------------------------------------------------------


def test_several_objects_take_one_list(memory: MemoryServer) -> None:
    """In the order asked for, whatever the server's is; the version is where a watch goes on."""
    put(memory, "a", "b", "c")
    listing = list_named(memory.client(), KIND, NAMESPACE, ["c", "a"])
    assert [item["metadata"]["name"] for item in listing.items] == ["c", "a"]
    assert listing.version == str(memory.version)
    assert [request.verb for request in memory.log] == ["list"]


def test_one_object_is_selected_by_the_server(memory: MemoryServer) -> None:
    """Not the whole namespace for it."""
    put(memory, "a", "b")
    list_named(memory.client(), KIND, NAMESPACE, ["b"])
    assert memory.log[0].query["fieldSelector"] == "metadata.name=b"


def test_objects_that_may_not_be_listed_are_read_one_by_one(memory: MemoryServer) -> None:
    """Where the role names them; there is no version to watch from."""
    put(memory, "a", "b")
    memory.deny("list", "statefulsets.apps")
    listing = list_named(memory.client(), KIND, NAMESPACE, ["b", "a"])
    assert [item["metadata"]["name"] for item in listing.items] == ["b", "a"]
    assert listing.version == ""


def test_what_is_missing_and_what_there_is_instead(memory: MemoryServer) -> None:
    """All that are missing in one message, which says where was looked."""
    put(memory, "a", "b")
    with pytest.raises(Refusal) as caught:
        list_named(memory.client(), KIND, NAMESPACE, ["a", "x", "y"])
    assert caught.value.obj == "StatefulSet n/x, StatefulSet n/y"
    assert f"it does not exist in cluster {memory.url} (the test); StatefulSets there: a, b" in caught.value.problem
    with pytest.raises(Refusal, match="StatefulSets there: a, b"):
        read_object(memory.client(), KIND, NAMESPACE, "x")


def test_many_names_are_cut(memory: MemoryServer) -> None:
    """And none is said too."""
    put(memory, *(f"w{number:02}" for number in range(KNOWN_NAMES + 5)))
    message = str(explain_missing(memory.client(), KIND, NAMESPACE, ["x"]))
    assert f"w{KNOWN_NAMES - 1:02}" in message
    assert f"w{KNOWN_NAMES:02}" not in message
    assert "Deployments there: none" in str(explain_missing(memory.client(), "Deployment", NAMESPACE, ["x"]))


def test_a_namespace_that_is_missing_is_what_is_named(memory: MemoryServer) -> None:
    """Rather than the object in it."""
    with pytest.raises(Refusal, match="namespace n: it does not exist in cluster"):
        read_object(memory.client(), KIND, NAMESPACE, "x")


@pytest.mark.parametrize("may_list", [True, False])
def test_an_account_that_may_read_no_namespace(memory: MemoryServer, may_list: bool) -> None:
    """It is told what it may know."""
    put(memory, "a")
    memory.deny("get", "namespaces")
    if not may_list:
        memory.deny("list", "statefulsets.apps")
    with pytest.raises(Refusal) as caught:
        list_named(memory.client(), KIND, NAMESPACE, ["x"])
    assert caught.value.obj == "StatefulSet n/x"
    words = "StatefulSets there: a" if may_list else "this account may not list what there is"
    assert words in caught.value.problem


def test_a_server_that_fails_meanwhile_is_what_is_told(memory: MemoryServer) -> None:
    """Not that something is missing."""
    put(memory, "a")
    memory.fail_next(500, times=1000, path="/namespaces/n", verb="get")
    with pytest.raises(ApiError, match="500"):
        list_named(memory.client(0.2), KIND, NAMESPACE, ["x"])
