# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Snapshots: whose a pod is, which revision is the newest, and what a look at thousands of pods costs."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from unit.kubernetes.yaml_objects import NOW, describe_event, find, load, replace, swap, take, without

WEB, DB, PURGE, AGENT = load("deployment"), load("statefulset"), load("cronjob"), load("daemonset")
ALL = [*WEB, *DB, *PURGE, *AGENT]
OWN_PODS = {"web-5d4-old", "web-7c9-ready", "web-7c9-evicted", "web-7c9-leaving"}


def read(snapshot: Snapshot, kind: str, name: str) -> Workload:
    """A workload that must be there."""
    workload = snapshot.workload(kind, "shop", name)
    assert workload is not None
    return workload


def names(entries: list[Any]) -> set[str]:
    """The names, each of which must occur once."""
    found = [entry.name for entry in entries]
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("Deployment", "web", OWN_PODS),
        ("StatefulSet", "db", {"db-0", "db-1"}),
        ("CronJob", "purge", {"purge-3-a", "purge-1-a"}),
        ("DaemonSet", "agent", {"agent-x", "agent-y"}),
        ("Job", "purge-3", {"purge-3-a"}),
        ("ReplicaSet", "web-7c9", OWN_PODS - {"web-5d4-old"}),
    ],
)
def test_pods_are_found_by_owner(kind: str, name: str, expected: set[str]) -> None:
    """Labels do not make a pod the workload's: Jobs' pods, another ReplicaSet's and a bare one have the same."""
    snapshot = take(ALL)
    assert names(snapshot.list_pods(read(snapshot, kind, name))) == expected


def test_pods_that_have_ended_do_not_run() -> None:
    """Those that terminate do."""
    snapshot = take(ALL)
    running = snapshot.list_running_pods(read(snapshot, "Deployment", "web"))
    assert names(running) == OWN_PODS - {"web-7c9-evicted"}
    assert names(snapshot.list_running_pods(read(snapshot, "CronJob", "purge"))) == {"purge-3-a"}


@pytest.mark.parametrize("gone", [{"web-5d4", "web-7c9"}, {"web-5d4"}])
def test_pods_whose_replica_set_is_not_known_are_found_by_its_name(gone: set[str]) -> None:
    """Not read, or deleted before its pods were gone; pods of ReplicaSets that somebody made are still nobody's."""
    snapshot = take([obj for obj in WEB if obj["metadata"]["name"] not in gone])
    assert names(snapshot.list_pods(read(snapshot, "Deployment", "web"))) == OWN_PODS


def test_pods_of_a_job_that_is_gone_are_found_by_its_name() -> None:
    """Deleted before its pods were gone; a Job that somebody named is still nobody's."""
    left = [obj for obj in PURGE if obj["kind"] != "Job"]
    snapshot = take(left)
    assert names(snapshot.list_pods(read(snapshot, "CronJob", "purge"))) == {"purge-3-a", "purge-1-a"}
    pod = next(obj for obj in left if obj["metadata"]["name"] == "purge-3-a")
    (owner,) = pod["metadata"]["ownerReferences"]
    renamed = replace(pod, metadata__ownerReferences=[{**owner, "name": "purge-by-hand"}])
    snapshot = take([renamed if obj is pod else obj for obj in left])
    assert names(snapshot.list_pods(read(snapshot, "CronJob", "purge"))) == {"purge-1-a"}


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata__namespace": "other"},
        {"metadata__labels": {"app": "x", "pod-template-hash": "5d4"}},
        {"metadata__labels": {"app": "web", "pod-template-hash": "5d5"}},
        {"metadata__ownerReferences": [{"kind": "Job", "name": "web-5d4", "uid": "u", "controller": True}]},
        {"metadata__ownerReferences": [{"kind": "ReplicaSet", "name": "web-x", "uid": "u", "controller": True}]},
        {"metadata__ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4", "uid": "u"}]},
    ],
)
def test_a_name_alone_does_not_make_a_pod_the_deployments(fields: dict[str, Any]) -> None:
    """Namespace, selector, hash, kind and control must agree as well."""
    objects = without(swap(WEB, "Pod", "web-5d4-old", **fields), "ReplicaSet")
    snapshot = take(objects)
    assert names(snapshot.list_pods(read(snapshot, "Deployment", "web"))) == OWN_PODS - {"web-5d4-old"}


def test_jobs_of_a_cronjob() -> None:
    """Its own, whatever their labels; active are those that may have pods."""
    snapshot = take(PURGE)
    purge = read(snapshot, "CronJob", "purge")
    assert names(snapshot.list_jobs(purge)) == {f"purge-{number}" for number in range(1, 6)}
    assert names(snapshot.list_active_jobs(purge)) == {"purge-3"}


@pytest.mark.parametrize(
    ("objects", "kind", "name", "expected"),
    [
        (WEB, "Deployment", "web", "7c9"),
        (WEB[::-1], "Deployment", "web", "7c9"),
        # A revision of two digits is newer than one of one digit.
        (
            swap(WEB, "ReplicaSet", "web-5d4", metadata__annotations={"deployment.kubernetes.io/revision": "10"}),
            "Deployment",
            "web",
            "5d4",
        ),
        # Without numbers the younger one is the newer one.
        (
            swap(
                swap(WEB, "ReplicaSet", "web-5d4", metadata__annotations={}),
                "ReplicaSet",
                "web-7c9",
                metadata__annotations={},
            ),
            "Deployment",
            "web",
            "5d4",
        ),
        # Where no ReplicaSet can be read, the youngest pod tells.
        (without(WEB, "ReplicaSet"), "Deployment", "web", "7c9"),
        (without(WEB, "ReplicaSet")[::-1], "Deployment", "web", "7c9"),
        (without(WEB, "ReplicaSet", "Pod"), "Deployment", "web", None),
        (DB, "StatefulSet", "db", "db-66f"),
        (swap(DB, "StatefulSet", status__updateRevision=None), "StatefulSet", "db", None),
        (AGENT, "DaemonSet", "agent", "bbb"),
        (AGENT[::-1], "DaemonSet", "agent", "bbb"),
        (without(AGENT, "ControllerRevision"), "DaemonSet", "agent", "aaa"),
        (PURGE, "CronJob", "purge", None),
        (WEB, "ReplicaSet", "web-7c9", None),
    ],
)
def test_the_hash_of_the_newest_revision(
    objects: list[dict[str, Any]], kind: str, name: str, expected: str | None
) -> None:
    """By the number of the revision: one that was rolled back to is older than the one it replaces."""
    snapshot = take(objects)
    assert snapshot.update_hash(read(snapshot, kind, name)) == expected


def test_replica_sets_and_revisions() -> None:
    """Those that the workload owns."""
    foreign = replace(find(WEB, "ReplicaSet", "web-5d4"), metadata__uid="rs-x", metadata__name="x")
    foreign["metadata"]["ownerReferences"][0]["uid"] = "d-other"
    snapshot = take([*ALL, foreign])
    assert names(snapshot.list_replica_sets(read(snapshot, "Deployment", "web"))) == {"web-5d4", "web-7c9"}
    assert names(snapshot.list_revisions(read(snapshot, "DaemonSet", "agent"))) == {"agent-aaa", "agent-bbb"}


def event(uid: str, reason: str, second: int) -> dict[str, Any]:
    """An event about the object with this uid."""
    return describe_event(uid, reason, at=f"2026-05-01T10:00:{second:02}Z")


def test_events_about_an_object_oldest_first() -> None:
    """By uid: an object of the same name that is gone had other events."""
    snapshot = take([event("u", "B", 9), event("v", "X", 1), event("u", "A", 3)])
    assert [entry.reason for entry in snapshot.list_events("u")] == ["A", "B"]
    assert snapshot.list_events("w") == []


def test_find_by_name() -> None:
    """In its namespace; a kind that was not read has no objects, and is not known."""
    snapshot = take(ALL, "Event")
    assert snapshot.find("StatefulSet", "shop", "db") == find(DB, "StatefulSet")
    assert snapshot.find("StatefulSet", "other", "db") is None
    assert snapshot.find("Node", "shop", "db") is None
    assert snapshot.workload("StatefulSet", "shop", "web") is None
    assert ("Event" in snapshot.known, "Pod" in snapshot.known, "Node" in snapshot.known) == (True, True, False)


def test_items_of_a_list_do_not_carry_their_kind() -> None:
    """The key that they are kept under does."""
    bare = {key: value for key, value in find(DB, "StatefulSet").items() if key != "kind"}
    snapshot = Snapshot({"StatefulSet": {"s-db": bare}}, ["StatefulSet"], NOW)
    assert read(snapshot, "StatefulSet", "db").kind == "StatefulSet"
    assert snapshot.as_document()["items"][0]["kind"] == "StatefulSet"


def test_a_document_is_a_list_that_makes_the_same_snapshot() -> None:
    """Ordered, so that two of them can be compared."""
    document = take(ALL[::-1], "Event").as_document()
    assert document == {**take(ALL, "Event").as_document()}
    assert (document["kind"], document["apiVersion"], document["at"]) == ("List", "v1", NOW)
    assert "Event" in document["known"]
    kinds = [obj["kind"] for obj in document["items"]]
    assert (len(kinds), kinds) == (len(ALL), sorted(kinds))
    names_of_pods = [("a", "z"), ("b", "a"), ("b", "b")]
    pods = [{"kind": "Pod", "metadata": {"namespace": space, "name": name}} for space, name in names_of_pods]
    assert take(pods[::-1]).as_document()["items"] == pods
    again = Snapshot.from_objects(document["items"], known=document["known"], at=document["at"])
    assert again.as_document() == document


def test_objects_without_a_uid_are_told_apart_by_name() -> None:
    """As in a document that was written by hand."""
    objects = [{"kind": "Pod", "metadata": {"name": name, "namespace": "n"}} for name in ("a", "b")]
    assert len(Snapshot.from_objects(objects).as_document()["items"]) == 2


def test_unchanged_objects_are_typed_once() -> None:
    """What a cache keeps between two snapshots is used again as long as the raw object is the same one."""
    kept: dict[Any, Any] = {}
    pods = {obj["metadata"]["uid"]: obj for obj in DB if obj["kind"] == "Pod"}
    workload = Workload.from_object(find(DB, "StatefulSet"))
    first = Snapshot({"Pod": pods}, ["Pod"], NOW, kept=kept).list_pods(workload)
    changed = {**pods, "p-db-1": replace(pods["p-db-1"], status__phase="Failed")}
    second = Snapshot({"Pod": changed}, ["Pod"], NOW, kept=kept).list_pods(workload)
    assert second[0] is first[0]
    assert [pod.phase for pod in second] == ["Running", "Failed"]


def make_namespace(pods: int, workloads: int = 10) -> tuple[dict[str, dict[str, Any]], list[Workload]]:
    """Raw objects of Deployments, half of whose ReplicaSets are known, and their pods."""
    objects: dict[str, dict[str, Any]] = {"Pod": {}, "ReplicaSet": {}, "Deployment": {}}
    for number in range(workloads):
        name, uid = f"w{number}", f"d{number}"
        meta = {"name": name, "namespace": "n", "uid": uid, "generation": 1}
        spec = {"replicas": pods // workloads, "selector": {"matchLabels": {"app": name}}}
        objects["Deployment"][uid] = {"kind": "Deployment", "metadata": meta, "spec": spec, "status": {}}
        owner = {"kind": "Deployment", "name": name, "uid": uid, "controller": True}
        if number % 2:
            labels = {"app": name, "pod-template-hash": "h"}
            meta = {
                "name": f"{name}-h",
                "namespace": "n",
                "uid": f"rs{number}",
                "labels": labels,
                "ownerReferences": [owner],
            }
            objects["ReplicaSet"][f"rs{number}"] = {"metadata": meta, "spec": {}}
    for number in range(pods):
        name = f"w{number % workloads}"
        owner = {"kind": "ReplicaSet", "name": f"{name}-h", "uid": f"rs{number % workloads}", "controller": True}
        meta = {
            "name": f"{name}-h-{number}",
            "namespace": "n",
            "uid": f"p{number}",
            "labels": {"app": name, "pod-template-hash": "h"},
            "creationTimestamp": "2026-05-01T10:00:00Z",
            "ownerReferences": [owner],
        }
        conditions = [{"type": kind, "status": "True"} for kind in ("Initialized", "Ready", "ContainersReady")]
        container = {"name": "c", "image": "i", "restartCount": 0, "state": {"running": {}}}
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container, container]}
        objects["Pod"][f"p{number}"] = {"metadata": meta, "spec": {"nodeName": "node"}, "status": status}
    return objects, [Workload.from_object(obj) for obj in objects["Deployment"].values()]


def test_every_pod_of_a_large_namespace_is_found_once() -> None:
    """Whether its ReplicaSet is known or not."""
    objects, workloads = make_namespace(200)
    snapshot = Snapshot(objects, objects.keys(), NOW)
    assert [len(names(snapshot.list_pods(workload))) for workload in workloads] == [20] * 10


class CountedObjects(dict[str, dict[str, Any]]):
    """Objects that count how often all of them are gone through."""

    passes = 0

    def items(self) -> Any:
        """Count."""
        self.passes += 1
        return super().items()


def test_one_pass_serves_all_workloads() -> None:
    """However many there are: the indices are kept."""
    objects, workloads = make_namespace(200)
    counted = {kind: CountedObjects(entries) for kind, entries in {**objects, "Event": {}}.items()}
    snapshot = Snapshot(counted, counted.keys(), NOW)
    for workload in workloads * 2:
        snapshot.list_pods(workload)
        snapshot.list_events(workload.uid)
    assert {kind: entries.passes for kind, entries in counted.items()} == {
        "Pod": 1,
        "ReplicaSet": 1,
        "Event": 1,
        "Deployment": 0,
    }


def measure_first_look(pods: int) -> float:
    """Processor seconds for one snapshot in which the pods of ten workloads are listed; the least of five."""
    objects, workloads = make_namespace(pods)
    seconds = []
    gc.disable()  # the collector looks at every object of the whole test run
    try:
        for _attempt in range(5):
            begun = time.process_time()
            snapshot = Snapshot(objects, objects.keys(), NOW)
            assert sum(len(snapshot.list_pods(workload)) for workload in workloads) == pods
            seconds.append(time.process_time() - begun)
    finally:
        gc.enable()
    return min(seconds)


def test_a_first_look_at_5000_pods_costs_at_most_a_second_and_grows_linearly() -> None:
    """Processor time, not the clock's. Five times as many pods cost 5 to 8 times as much here; were it quadratic, 25."""
    small, large = measure_first_look(1000), measure_first_look(5000)
    assert large <= 1.0
    assert large / small <= 12


def test_a_job_of_a_cronjob_need_not_be_controlled_by_it() -> None:
    """As one that was made by hand from it: an owner reference with its uid is enough."""
    owner = {"kind": "CronJob", "name": "purge", "uid": find(PURGE, "CronJob")["metadata"]["uid"]}
    other = {"kind": "Thing", "name": "x", "uid": "x", "controller": True}
    meta = {"name": "by-hand", "namespace": "shop", "uid": "j-9", "ownerReferences": [other, owner]}
    job = {"kind": "Job", "metadata": meta, "spec": {}, "status": {"active": 1}}
    pod_owner = {"kind": "Job", "name": "by-hand", "uid": "j-9", "controller": True}
    pod = replace(find(DB, "Pod", "db-0"), metadata__ownerReferences=[pod_owner], metadata__name="by-hand-x")
    snapshot = take([*PURGE, job, pod])
    workload = read(snapshot, "CronJob", "purge")
    assert "by-hand" in names(snapshot.list_active_jobs(workload))
    assert "by-hand-x" in names(snapshot.list_running_pods(workload))
    twice = replace(job, metadata__ownerReferences=[owner, {**owner, "controller": True}])
    assert "by-hand" in names(take([*PURGE, twice]).list_jobs(workload))


def test_what_was_read_of_a_kind_need_not_be_all_of_it() -> None:
    """Objects by name or of a selector are known, and are not the collection."""
    collections = {("Job", "n", ""), ("Pod", "n", "app=a")}
    snapshot = Snapshot({}, {"Job", "Pod", "CronJob"}, NOW, collections=collections)
    assert snapshot.covers("Job", "n")
    assert snapshot.covers("Job", "n", "app=a")
    assert snapshot.covers("Pod", "n", "app=a")
    for kind, namespace, labels in (("Job", "m", ""), ("Pod", "n", ""), ("Pod", "n", "app=b"), ("CronJob", "n", "")):
        assert not snapshot.covers(kind, namespace, labels)
    assert take([], "Job").covers("Job", "n")
    assert not take([], "Job").covers("Pod", "n")
