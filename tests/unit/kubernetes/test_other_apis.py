# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Workloads of other APIs that have the subresource scale: how they are read, and whose pods are theirs."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.conditions import Gone, Serving, assess_alone
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.resources import (
    RESOURCES,
    Resource,
    list_kinds_between,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.scalable import (
    check_scale,
    find_scaled_resource,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.selectors import format_selector, parse_selector
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from support.memory_kubernetes import MemoryServer

Json = dict[str, Any]

API = "argoproj.io/v1alpha1"
ROLLOUT = Resource(API, "rollouts", "Rollout")


def describe(replicas: int | None = 2, status: Json | None = None, **spec: Any) -> Json:
    """A Rollout ``n/r`` of generation 4."""
    own = {} if replicas is None else {"replicas": replicas}
    metadata = {"name": "r", "namespace": "n", "uid": "u-r", "generation": 4, "resourceVersion": "7"}
    return {"apiVersion": API, "kind": "Rollout", "metadata": metadata, "spec": {**own, **spec}, "status": status or {}}


def read(replicas: int | None = 2, status: Json | None = None, **spec: Any) -> Workload:
    """The workload that it is."""
    return Workload.from_object(describe(replicas, status, **spec), ROLLOUT)


def make_pod(name: str, owner: Json | None, *, ready: bool = True, **labels: str) -> Json:
    """A pod of that controller."""
    metadata: Json = {"name": name, "namespace": "n", "uid": f"u-{name}", "labels": labels}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running", "conditions": conditions}}


def make_owner(name: str, kind: str = "ReplicaSet") -> Json:
    """The reference to a controller ``u-NAME``."""
    return {"apiVersion": "x/v1", "kind": kind, "name": name, "uid": f"u-{name}", "controller": True}


def make_replica_set(name: str, owner: str) -> Json:
    """A ReplicaSet that the object ``owner`` controls."""
    metadata = {"name": name, "namespace": "n", "uid": f"u-{name}", "ownerReferences": [make_owner(owner, "Rollout")]}
    return {"kind": "ReplicaSet", "metadata": metadata, "spec": {"replicas": 2}}


# --- how they are read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "numbers"),
    [
        ({"replicas": 2, "readyReplicas": 1, "availableReplicas": 1}, (2, 1, 1)),
        ({"replicas": 2, "readyReplicas": 2}, (2, 2, 2)),
        ({"replicas": 2, "availableReplicas": 2}, (2, 2, 2)),
        ({"replicas": 2}, (2, 0, 0)),
        ({}, (0, 0, 0)),
    ],
)
def test_numbers_are_those_of_the_status(status: Json, numbers: tuple[int, int, int]) -> None:
    """Ready stands for available and the other way round, where only one of them is said."""
    workload = read(2, status)
    assert (workload.replicas, (workload.pods, workload.ready, workload.available)) == (2, numbers)
    assert (workload.title, workload.key, workload.updated_wanted) == ("Rollout n/r", "Rollout/r", 0)


@pytest.mark.parametrize(
    ("observed", "is_observed"), [(4, True), ("4", True), (3, False), ("3", False), ("7bd5f9", True), (None, True)]
)
def test_what_says_no_generation_has_seen_the_newest(observed: Any, is_observed: bool) -> None:
    """Argo writes the number as text, and wrote a hash before."""
    assert read(2, {"observedGeneration": observed}).is_observed is is_observed


@pytest.mark.parametrize(
    ("spec", "status", "labels"),
    [
        ({"selector": {"matchLabels": {"app": "r"}}}, {"selector": "app=other"}, "app=r"),
        ({"selector": {"app": "r"}}, {"selector": "app=r,tier in (a,b)"}, "app=r,tier in (a,b)"),
        ({}, {"labelSelector": "app=r"}, "app=r"),
        ({}, {"labelSelector": {"matchLabels": {"app": "r"}}}, "app=r"),
        ({}, {"selector": "", "labelSelector": "app=r"}, "app=r"),
        ({}, {}, ""),
    ],
)
def test_the_selector_is_where_apis_have_it(spec: Json, status: Json, labels: str) -> None:
    """In the spec as Deployments have it, else in the status, as text."""
    assert format_selector(read(2, status, **spec).selector) == labels


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("app=r", "app=r"),
        ("app==r, tier=b", "app=r,tier=b"),
        ("a in (x, y),b notin (z),c,!d", "a in (x,y),b notin (z),c,!d"),
        ("app!=r", "app notin (r)"),
        ("example.org/app=r", "example.org/app=r"),
        ("app=", "app="),
        ("", ""),
        ("app>3", ""),
        ("a in x", ""),
    ],
)
def test_a_selector_as_text(text: str, again: str) -> None:
    """As kubectl writes it; nothing is known by one that is not understood."""
    assert format_selector(parse_selector(text)) == again


# --- their pods -----------------------------------------------------------------------------------------------------


def test_pods_belong_by_the_chain_of_owners() -> None:
    """At any depth, of the kinds that were read."""
    objects = [
        describe(),
        make_replica_set("rs", "r"),
        make_replica_set("deeper", "rs"),
        make_replica_set("foreign", "other"),
        make_pod("own", make_owner("r", "Rollout")),
        make_pod("through", make_owner("rs")),
        make_pod("far", make_owner("deeper")),
        make_pod("of-another", make_owner("foreign"), app="r"),
    ]
    snapshot = Snapshot.from_objects(objects)
    selected = read(selector={"matchLabels": {"app": "r"}})
    for workload in (read(), selected):
        assert sorted(pod.name for pod in snapshot.list_pods(workload)) == ["far", "own", "through"]


def test_pods_of_an_unknown_owner_belong_by_the_selector() -> None:
    """A ReplicaSet that is gone, or a kind that nobody reads; but not one without any controller."""
    objects = [
        describe(),
        make_pod("orphan", make_owner("gone"), app="r"),
        make_pod("of-a-set", make_owner("set", "StrimziPodSet"), app="r"),
        make_pod("of-others", make_owner("gone"), app="s"),
        make_pod("bare", None, app="r"),
    ]
    snapshot = Snapshot.from_objects(objects, known=["ReplicaSet"])
    assert [pod.name for pod in snapshot.list_pods(read())] == []
    selected = read(2, {"selector": "app=r"})
    assert sorted(pod.name for pod in snapshot.list_pods(selected)) == ["of-a-set", "orphan"]
    elsewhere = selected._replace(namespace="m")
    assert snapshot.list_pods(elsewhere) == []


def test_gone_waits_for_the_pods_behind_its_replica_sets() -> None:
    """Also where the status says that there is none."""
    stopped = describe(0, {"replicas": 0})
    condition = Gone(Workload.from_object(stopped, ROLLOUT))
    assert condition.needs() == ("Rollout", "ReplicaSet", "Pod")
    left = [stopped, make_replica_set("rs", "r"), make_pod("p", make_owner("rs"))]
    status = condition.evaluate(Snapshot.from_objects(left))
    assert (status.is_current, status.message) == (False, "1 pod left (p)")
    assert condition.evaluate(Snapshot.from_objects(left[:2], known=["Pod"])).is_current
    assert not condition.evaluate(Snapshot.from_objects(left[:2])).is_current
    counted = describe(0, {"replicas": 1})
    assert not condition.evaluate(Snapshot.from_objects([counted, left[1]], known=["Pod"])).is_current


@pytest.mark.parametrize(
    ("status", "ready", "is_current"),
    [
        ({"replicas": 2, "readyReplicas": 2}, False, True),
        ({"replicas": 2, "readyReplicas": 1}, True, False),
        ({"replicas": 3, "readyReplicas": 2}, True, False),
        ({"replicas": 2}, True, True),
        ({"replicas": 2}, False, False),
        ({}, True, True),
        ({"replicas": 2, "observedGeneration": 3}, True, False),
    ],
)
def test_serving_counts_pods_where_the_status_says_nothing(status: Json, ready: bool, is_current: bool) -> None:
    """What it says wins."""
    condition = Serving(read(), 2)
    assert condition.needs() == ("Rollout", "ReplicaSet", "Pod")
    pods = [make_pod(name, make_owner("rs"), ready=ready) for name in ("p", "q")]
    snapshot = Snapshot.from_objects([describe(2, status), make_replica_set("rs", "r"), *pods])
    assert condition.evaluate(snapshot).is_current is is_current


def test_alone_it_is_as_its_status_says() -> None:
    """Nothing is counted where no pods were read."""
    assert assess_alone(read(2, {"replicas": 2, "readyReplicas": 2})).is_current
    assert not assess_alone(read(2, {"replicas": 2})).is_current
    assert assess_alone(read(0, {})).is_current


def test_kinds_between() -> None:
    """Of what is known exactly those, of other APIs the usual one."""
    assert [list_kinds_between(RESOURCES[kind]) for kind in ("Deployment", "CronJob", "StatefulSet")] == [
        ("ReplicaSet",),
        ("Job",),
        (),
    ]
    assert list_kinds_between(ROLLOUT) == ("ReplicaSet",)
    assert not Resource("example.org/v1", "jobs", "Job").is_known


# --- how the server has them ----------------------------------------------------------------------------------------


def test_the_plural_is_found_by_one_request(memory: MemoryServer) -> None:
    """None is sent where it is given, or where the kind is known."""
    memory.register(ROLLOUT, scaled="replicas")
    client = memory.client()
    assert find_scaled_resource(client, "Rollout", API) == ROLLOUT
    assert [request.path for request in memory.log] == [f"/apis/{API}"]
    assert find_scaled_resource(client, "Rollout", API, "rollouts") == ROLLOUT
    assert find_scaled_resource(client, "StatefulSet", "") == RESOURCES["StatefulSet"]
    assert len(memory.log) == 1


@pytest.mark.parametrize(
    ("kind", "api_version", "words"),
    [
        (
            "Rollout",
            "argoproj.io/v9",
            "API argoproj.io/v9: the cluster .* does not have it. Correct api_version, or inst",
        ),
        ("Rollin", API, r"kind Rollin of argoproj.io/v1alpha1: this API has no such kind; it has .*Rollout\. Correct"),
        (
            "Experiment",
            API,
            "it has no subresource scale, .*. Stop, start and scale it by the means of its operator, or",
        ),
        ("Everywhere", API, "its objects belong to no namespace"),
    ],
)
def test_what_cannot_be_scaled_is_refused_by_name(
    memory: MemoryServer, kind: str, api_version: str, words: str
) -> None:
    """With what to do."""
    memory.register(ROLLOUT, scaled="replicas")
    memory.register(Resource(API, "experiments", "Experiment"))
    memory.register(Resource(API, "everywheres", "Everywhere", namespaced=False), scaled="replicas")
    with pytest.raises(Refusal, match=words):
        find_scaled_resource(memory.client(), kind, api_version)


def test_an_account_that_may_not_discover_is_told_to_give_the_plural(memory: MemoryServer) -> None:
    """It has lost what all authenticated accounts may do."""
    memory.register(ROLLOUT, scaled="replicas")
    memory.deny("get", f"/apis/{API}")
    with pytest.raises(
        Exception, match="Give the plural of the kind as well, or bind the ClusterRole system:discovery"
    ):
        find_scaled_resource(memory.client(), "Rollout", API)


def test_a_scale_that_is_another_field_is_refused(memory: MemoryServer) -> None:
    """Its numbers differ while it is one version of the object."""
    memory.register(ROLLOUT, scaled="workers")
    kept = Workload.from_object(memory.put(describe(2, workers=5)), ROLLOUT)
    with pytest.raises(
        Refusal, match=r"Rollout n/r: its spec\.replicas is 2 and its scale says 5, so that the number is"
    ):
        check_scale(memory.client(), kept)
    bare = Workload.from_object(memory.put(describe(None, workers=5)), ROLLOUT)
    with pytest.raises(Refusal, match=r"it has no spec\.replicas, where .* Set spec\.replicas of it, if"):
        check_scale(memory.client(), bare)


def test_a_scale_that_leads_to_nothing_is_refused(memory: MemoryServer) -> None:
    """The server answers 500 then, which is asked again for a moment only."""
    memory.register(ROLLOUT, scaled="workers")
    kept = Workload.from_object(memory.put(describe()), ROLLOUT)
    client = memory.client(0.2)
    with pytest.raises(Refusal, match=r"it cannot be scaled: .*the spec replicas field .* does not exist"):
        check_scale(client, kept)
    assert client.deadline.seconds == 0.2


def test_a_kind_with_a_given_plural_and_without_scale_is_refused(memory: MemoryServer) -> None:
    """By its object, since nothing was discovered."""
    memory.register(ROLLOUT)
    kept = Workload.from_object(memory.put(describe()), ROLLOUT)
    with pytest.raises(Refusal, match="Rollout n/r: it has no subresource scale"):
        check_scale(memory.client(), kept)


def test_a_workload_that_is_scaled_meanwhile_is_read_again(memory: MemoryServer) -> None:
    """Two numbers of two moments are no disagreement."""
    memory.register(ROLLOUT, scaled="replicas")
    kept = Workload.from_object(memory.put(describe()), ROLLOUT)
    memory.change("Rollout", "n", "r", lambda obj: obj["spec"].update(replicas=3))
    assert check_scale(memory.client(), kept).replicas == 3
    same = Workload.from_object(memory.read("Rollout", "n", "r"), ROLLOUT)
    memory.log.clear()
    assert check_scale(memory.client(), same) == same
    assert [request.path.rpartition("/")[2] for request in memory.log] == ["scale"]


def test_a_known_kind_is_not_asked_for_its_scale(memory: MemoryServer) -> None:
    """It costs nothing."""
    deployment = {"metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": 2}}
    check_scale(memory.client(), Workload.from_object(deployment, "Deployment"))
    assert memory.log == []
