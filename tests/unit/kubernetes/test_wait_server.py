# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The wait loop on the real cache, with a double of the API memory."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import WaitFailed, WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cache import Cache
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.conditions import Condition, Gone, Serving
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.diagnosis import GracePeriod
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import Forbidden
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.wait import wait_until
from support.memory_kubernetes import MemoryServer
from unit.kubernetes.yaml_objects import find, load, replace, swap

Json = dict[str, Any]
WEB = load("deployment")
READY = find(load("statefulset"), "StatefulSet")
LATE = replace(READY, status__readyReplicas=2, status__availableReplicas=2)


def wait_on(cache: Cache, *conditions: Condition, seconds: float = 60) -> Snapshot:
    """Wait on the real clock."""
    return wait_until(conditions, cache, deadline=Deadline(seconds), grace=GracePeriod(), outcome=Outcome())


def follow(cache: Cache, obj: Json) -> Workload:
    """Follow one workload, and return it."""
    meta = obj["metadata"]
    cache.follow(obj["kind"], meta["namespace"], name=meta["name"])
    workload = cache.snapshot().workload(obj["kind"], meta["namespace"], meta["name"])
    assert workload is not None
    return workload


def test_a_start_is_seen_by_one_watch(memory: MemoryServer) -> None:
    """LIST and WATCH of the workload, nothing else in the first second; the end is not polled for."""
    memory.put(LATE)
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        workload = follow(cache, LATE)

        def serve() -> None:
            memory.change("StatefulSet", "shop", "db", lambda obj: obj["status"].update(READY["status"]))

        threading.Timer(0.1, serve).start()
        wait_on(cache, Serving(workload, 3))
    assert [request.verb for request in memory.log] == ["list", "watch"]


def test_a_stop_is_done_although_evicted_and_foreign_pods_are_left(memory: MemoryServer) -> None:
    """Case 4: with the pods of a Helm hook's Job, which have the same labels."""
    stopped: Json = {
        f"status__{name}": 0 for name in ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
    }
    for obj in swap(WEB, "Deployment", spec__replicas=0, **stopped):
        memory.put(obj)
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        workload = follow(cache, find(WEB, "Deployment"))
        begun = time.monotonic()
        for name in ("web-5d4-old", "web-7c9-ready", "web-7c9-leaving"):
            memory.remove("Pod", "shop", name)
        snapshot = wait_on(cache, Gone(workload))
        assert time.monotonic() - begun < 30
    assert {pod.name for pod in snapshot.list_pods(workload)} == {"web-7c9-evicted"}
    selectors = [request.query.get("labelSelector") for request in memory.log if "/pods" in request.path]
    assert set(selectors) == {"app=web"}


def test_an_object_that_is_deleted_meanwhile_ends_the_wait(memory: MemoryServer) -> None:
    """By its DELETED event."""
    memory.put(LATE)
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        workload = follow(cache, LATE)
        memory.remove("StatefulSet", "shop", "db")
        with pytest.raises(WaitFailed, match="it was deleted while it was waited for"):
            wait_on(cache, Serving(workload, 3))


def test_explanations_that_may_not_be_read_are_warnings(memory: MemoryServer) -> None:
    """The wait itself goes on; what it needs is required."""
    memory.put(LATE)
    for resource in ("pods", "events"):
        memory.deny("*", resource)
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        workload = follow(cache, LATE)
        with pytest.raises(WaitTimeout, match="2 of 3 replicas ready"):
            wait_on(cache, Serving(workload, 3), seconds=1.3)
        assert [warning.partition(":")[0] for warning in cache.warnings] == [
            "Pods of namespace shop",
            "Events of namespace shop",
        ]
        with pytest.raises(Forbidden):
            wait_on(cache, Gone(workload))


def test_an_account_without_the_right_to_watch_waits_by_polling(memory: MemoryServer) -> None:
    """B31: it is slower, and says so."""
    memory.put(LATE)
    memory.deny("watch", "*")
    with contextlib.closing(memory.client()) as client, Cache(client, poll_seconds=0.05) as cache:
        workload = follow(cache, LATE)
        cache.wait_for_change(0.2)
        memory.change("StatefulSet", "shop", "db", lambda obj: obj["status"].update(READY["status"]))
        wait_on(cache, Serving(workload, 3))
        assert len(cache.warnings) == 1


def test_an_idle_wait_on_the_real_clock_looks_a_few_times(memory: MemoryServer) -> None:
    """Bookmarks and ended watches included."""
    memory.put(LATE)
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        workload = follow(cache, LATE)
        looks = cache.looks
        memory.send_bookmarks()
        memory.end_watches()
        with pytest.raises(WaitTimeout):
            wait_on(cache, Serving(workload, 3), seconds=1.5)
        assert cache.looks - looks <= 8


@pytest.mark.parametrize("named", [False, True])
def test_the_jobs_of_a_cronjob_are_followed_beside_a_job_that_is_stopped_too(memory: MemoryServer, named: bool) -> None:
    """A Job that is followed by its name says nothing of the others."""
    purge = [obj for obj in load("cronjob") if obj["metadata"]["name"] in ("purge", "purge-3")]
    cron_job = replace(find(purge, "CronJob"), status__active=None)
    other = {
        "kind": "Job",
        "metadata": {"name": "other", "namespace": "shop", "uid": "j-other"},
        "spec": {"suspend": True},
    }
    for obj in (cron_job, find(purge, "Job"), other):
        memory.put(obj)
    with contextlib.closing(memory.client()) as client, Cache(client) as cache:
        conditions = [Gone(follow(cache, cron_job))]
        if named:
            conditions.append(Gone(follow(cache, other)))
        with pytest.raises(WaitTimeout, match=r"1 active Job \(purge-3\)"):
            wait_on(cache, *conditions, seconds=0.3)
