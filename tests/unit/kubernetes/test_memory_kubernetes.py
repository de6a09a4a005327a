# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The double of the API server does what tests build on: versions, generations, owners, pages, watches, rights.

That it does so as a real server does is what tests/integration/kubernetes/test_client_faults.py is for.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import APPLY_PATCH, JSON_PATCH
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import (
    Resource,
    collection_path,
    object_path,
    path_of,
)
from support.memory_kubernetes import MemoryServer
from support.memory_objects import apply_operations, matches_fields, matches_labels, merge

SETS, WORKER = collection_path("StatefulSet", "n"), object_path("StatefulSet", "n", "w")


def put(memory: MemoryServer, name: str = "w", *, kind: str = "StatefulSet", **metadata: Any) -> dict[str, Any]:
    """An object."""
    return memory.put({"kind": kind, "metadata": {"name": name, "namespace": "n", **metadata}, "spec": {"replicas": 3}})


def set_labels(labels: dict[str, str], obj: dict[str, Any]) -> None:
    """As another client would."""
    obj["metadata"]["labels"] = labels


def test_versions_and_generations(memory: MemoryServer) -> None:
    """Every change has a version, changes of the spec a generation; no change has neither."""
    first = put(memory)["metadata"]
    assert (first["generation"], first["uid"] != "", first["creationTimestamp"][-1]) == (1, True, "Z")
    status = memory.change("StatefulSet", "n", "w", lambda obj: obj.update(status={"replicas": 3}))["metadata"]
    spec = memory.change("StatefulSet", "n", "w", lambda obj: obj["spec"].update(replicas=4))["metadata"]
    none = memory.change("StatefulSet", "n", "w", len)["metadata"]
    assert [metadata["generation"] for metadata in (status, spec, none)] == [1, 2, 2]
    versions = [int(metadata["resourceVersion"]) for metadata in (first, status, spec, none)]
    assert versions == [1001, 1002, 1003, 1003]
    assert none["uid"] == first["uid"]


def test_a_status_is_written_only_as_such(memory: MemoryServer) -> None:
    """As resources with that subresource have it."""
    put(memory)
    client = memory.client()
    assert "status" not in client.patch(WORKER, {"status": {"replicas": 3}}, obj="w")
    path = object_path("StatefulSet", "n", "w", "status")
    client.patch(path, {"status": {"replicas": 3}, "spec": {"replicas": 9}}, obj="w")
    assert memory.read("StatefulSet", "n", "w")["status"] == {"replicas": 3}
    assert memory.read("StatefulSet", "n", "w")["spec"] == {"replicas": 3}
    client.patch(WORKER, {"status": None, "spec": {"replicas": 2}}, obj="w")
    assert memory.read("StatefulSet", "n", "w")["status"] == {"replicas": 3}


def test_who_set_a_field_owns_it(memory: MemoryServer) -> None:
    """Values that stay the same stay with their owner."""
    put(memory)
    client = memory.client()
    client.patch(WORKER, {"spec": {"replicas": 0}, "metadata": {"annotations": {"a": "b"}}}, obj="w")
    client.patch(WORKER, {"spec": {"replicas": 0, "paused": True}}, obj="w", content_type=APPLY_PATCH)
    fields = {
        (entry["manager"], entry["operation"]): entry["fieldsV1"]
        for entry in memory.read("StatefulSet", "n", "w")["metadata"]["managedFields"]
    }
    assert fields == {
        ("lowtide.ops", "Update"): {"f:metadata": {"f:annotations": {"f:a": {}}}, "f:spec": {"f:replicas": {}}},
        ("lowtide.ops", "Apply"): {"f:spec": {"f:paused": {}}},
    }
    memory.change("StatefulSet", "n", "w", lambda obj: obj["spec"].update(replicas=7), manager="hpa")
    managers = [entry["manager"] for entry in memory.read("StatefulSet", "n", "w")["metadata"]["managedFields"]]
    assert managers == ["lowtide.ops", "lowtide.ops", "hpa"]


def test_items_of_lists_do_not_say_their_kind(memory: MemoryServer) -> None:
    """Those of built-in kinds; custom resources do. Single objects always do."""
    put(memory)
    memory.put({"kind": "ScaledObject", "metadata": {"name": "s", "namespace": "n"}})
    client = memory.client()
    assert "kind" not in client.list(SETS, obj="x").items[0]
    assert client.list(collection_path("ScaledObject", "n"), obj="x").items[0]["kind"] == "ScaledObject"
    assert client.get(WORKER, obj="x")["apiVersion"] == "apps/v1"


def test_selectors(memory: MemoryServer) -> None:
    """Of labels and fields; namespaces."""
    put(memory, "a", labels={"app": "x", "tier": "1"})
    put(memory, "b", labels={"app": "y"})
    put(memory, "c", namespace="m")
    client = memory.client()

    def names(path: str, **params: str) -> list[str]:
        return [item["metadata"]["name"] for item in client.list(path, obj="x", params=params).items]

    assert names(SETS) == ["a", "b"]
    assert names(collection_path("StatefulSet", None)) == ["c", "a", "b"]
    assert names(SETS, labelSelector="app=x") == ["a"]
    assert names(SETS, fieldSelector="metadata.name!=a") == ["b"]


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("", True),
        ("app=x", True),
        ("app==x", True),
        ("app=y", False),
        ("app!=y", True),
        ("app!=x", False),
        ("app in (x, y)", True),
        ("app in (y)", False),
        ("app notin (y,z),tier", True),
        ("app notin (x)", False),
        ("other notin (x)", True),
        ("tier", True),
        ("other", False),
        ("!other", True),
        ("!tier", False),
        ("app=x,tier=2", False),
    ],
)
def test_label_selectors(selector: str, fits: bool) -> None:
    """As the API has them."""
    assert matches_labels(selector, {"app": "x", "tier": "1"}) is fits


def test_field_selectors() -> None:
    """Any path; what is missing is empty."""
    obj = {"metadata": {"name": "a"}, "involvedObject": {"uid": "u"}}
    assert matches_fields("metadata.name=a,involvedObject.uid==u,status.phase!=Failed,spec.nodeName=", obj)
    assert not matches_fields("metadata.name=b", obj)


def test_a_watch_follows_its_selector(memory: MemoryServer) -> None:
    """What leaves it is deleted, what enters it is added; what was there before comes first without a version."""
    put(memory, labels={"app": "x"})
    stream = memory.client().stream(SETS, obj="x", params={"watch": "true", "labelSelector": "app=x"})
    events = iter(stream)
    kinds = [next(events)["type"]]
    for number, app in enumerate(("x2", "x", "x")):
        labels = {"app": app, "number": str(number)}
        memory.change("StatefulSet", "n", "w", functools.partial(set_labels, labels))
        kinds.append(next(events)["type"])
    memory.remove("StatefulSet", "n", "w")
    kinds.append(next(events)["type"])
    stream.close()
    assert kinds == ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]


def test_a_watch_from_forgotten_history_is_told_so(memory: MemoryServer) -> None:
    """By an event, as on a real server; an open one as well."""
    put(memory)
    client = memory.client()
    version = client.list(SETS, obj="x").version
    open_stream = client.stream(SETS, obj="x", params={"watch": "true", "resourceVersion": version})
    put(memory, "late")
    events = iter(open_stream)
    assert next(events)["type"] == "ADDED"
    memory.compact()
    stream = client.stream(SETS, obj="x", params={"watch": "true", "resourceVersion": version})
    assert [(event["type"], event["object"]["code"]) for event in stream] == [("ERROR", 410)]
    assert [event["type"] for event in events] == ["ERROR"]
    fresh = client.list(SETS, obj="x").version
    stream = client.stream(SETS, obj="x", params={"watch": "true", "resourceVersion": fresh, "timeoutSeconds": "0.1"})
    assert list(stream) == []


def test_deleting(memory: MemoryServer) -> None:
    """What it owns goes too; finalizers hold an object until they are taken away."""
    owner = put(memory)["metadata"]["uid"]
    for name, finalizers in (("p", []), ("q", ["example.org/hold"])):
        put(memory, name, kind="Pod", ownerReferences=[{"uid": owner}], finalizers=finalizers)
    client = memory.client()
    client.delete(object_path("Pod", "n", "q"), obj="q")
    held = memory.read("Pod", "n", "q")
    assert held["metadata"]["deletionTimestamp"]
    memory.change("Pod", "n", "q", lambda obj: obj["metadata"].update(finalizers=[]))
    client.delete(WORKER, obj="w")
    assert (memory.read_all("Pod"), memory.read_all("StatefulSet")) == ([], [])


def test_orphans_stay(memory: MemoryServer) -> None:
    """When they are told to."""
    owner = put(memory)["metadata"]["uid"]
    put(memory, "p", kind="Pod", ownerReferences=[{"uid": owner}])
    memory.client().delete(WORKER, obj="w", propagation="Orphan")
    assert len(memory.read_all("Pod")) == 1


def test_an_eviction_removes_a_pod(memory: MemoryServer) -> None:
    """One that is there."""
    put(memory, "p", kind="Pod")
    path = object_path("Pod", "n", "p", "eviction")
    memory.client().create(path, {"kind": "Eviction"}, obj="p")
    assert memory.read_all("Pod") == []
    with pytest.raises(NotFound):
        memory.client().create(path, {"kind": "Eviction"}, obj="p")


def test_rights(memory: MemoryServer) -> None:
    """By verb, resource with or without its group, subresource and namespace."""
    put(memory)
    client = memory.client()
    memory.deny("patch", "statefulsets/scale")
    memory.deny("list", "statefulsets.apps", "n")
    with pytest.raises(Forbidden, match="cannot patch resource"):
        client.patch(object_path("StatefulSet", "n", "w", "scale"), {"spec": {"replicas": 1}}, obj="w")
    client.patch(WORKER, {"spec": {"replicas": 1}}, obj="w")
    with pytest.raises(Forbidden):
        client.list(SETS, obj="x")
    client.list(collection_path("StatefulSet", "m"), obj="x")
    memory.allow("list", "statefulsets.apps", "n")
    client.list(SETS, obj="x")
    memory.deny("*", "*")
    with pytest.raises(Forbidden):
        client.get(WORKER, obj="x")


def test_identities(memory: MemoryServer) -> None:
    """When tokens are asked for."""
    put(memory)
    memory.tokens = {"good"}
    with pytest.raises(Unauthorized):
        memory.client().get(WORKER, obj="w")
    memory.client(token="good").get(WORKER, obj="w")  # noqa: S106


def test_kinds(memory: MemoryServer) -> None:
    """One that is not served is not found; another one can be."""
    client = memory.client()
    memory.unregister("ScaledObject")
    with pytest.raises(NotFound, match="could not find the requested resource"):
        client.list(collection_path("ScaledObject", "n"), obj="x")
    rollout = Resource("argoproj.io/v1alpha1", "rollouts", "Rollout")
    memory.register(rollout)
    memory.put({"kind": "Rollout", "metadata": {"name": "r", "namespace": "n"}})
    assert client.get(path_of(rollout, "n", "r"), obj="x")["apiVersion"] == "argoproj.io/v1alpha1"
    node = {"kind": "Node", "metadata": {"name": "n1"}}
    memory.put(node)
    assert "namespace" not in client.get(object_path("Node", None, "n1"), obj="x")["metadata"]


def test_what_is_invalid(memory: MemoryServer) -> None:
    """As far as our code can make it."""
    put(memory)
    client = memory.client()
    with pytest.raises(Invalid):
        client.create(SETS, {"metadata": {}}, obj="x")
    with pytest.raises(Conflict):
        client.patch(WORKER, [{"op": "remove", "path": "/spec/none"}], obj="x", content_type=JSON_PATCH)
    with pytest.raises(NotFound):
        client.get(object_path("Pod", "n", "w", "scale"), obj="x")


def test_server_side_apply_creates(memory: MemoryServer) -> None:
    """What is not there."""
    body = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "w"}, "spec": {"replicas": 1}}
    memory.client().patch(WORKER, body, obj="w", content_type=APPLY_PATCH)
    assert memory.read("StatefulSet", "n", "w")["spec"] == {"replicas": 1}


def test_merge_patches() -> None:
    """The examples of RFC 7396."""
    for target, patch, result in (
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ):
        assert merge(target, patch) == result


def test_json_patches() -> None:
    """Escapes, and null for what is not there."""
    target = {"a/b~c": 1}
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/a~1b~0c", "value": 1},
        {"op": "test", "path": "/none", "value": None},
        {"op": "replace", "path": "/a~1b~0c", "value": 2},
        {"op": "add", "path": "/d", "value": {}},
        {"op": "add", "path": "/d/e", "value": 3},
        {"op": "remove", "path": "/a~1b~0c"},
    ]
    assert apply_operations(target, operations) == {"d": {"e": 3}}
    assert target == {"a/b~c": 1}
