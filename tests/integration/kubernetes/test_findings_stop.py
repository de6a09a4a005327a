# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What keeps a stop from ending, and what must not: leftovers, other owners' pods, Jobs, finalizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.kubernetes_objects import (
    change_spec,
    describe_cron_job,
    describe_job,
    is_complete,
    leave_evicted_pod,
    refer_to,
)
from support.kubernetes_server import ApiServer
from support.modules import ModuleRun
from support.rival_proxy import RivalProxy

from .conftest import Namespace
from .steps import apply_ready, list_pods, read_replicas, start, stop, tell

pytestmark = pytest.mark.lab("kubernetes")
HOLD = "example.org/hold"
SHORT = 6
"""Seconds after which a stop is given up; enough to read and to write, each, on a busy machine."""


def describe_pod(namespace: Namespace, *command: str) -> dict[str, Any]:
    """Return the specification of a pod that runs a command."""
    spec: dict[str, Any] = namespace.workload("w", command=[*command])["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def held(namespace: Namespace) -> Iterator[dict[str, Any]]:
    """The StatefulSet ``w`` with a pod that a finalizer keeps until the test is over."""
    workload = namespace.workload("w")
    workload["spec"]["template"]["metadata"]["finalizers"] = [HOLD]
    apply_ready(namespace, workload)
    yield workload
    for name in list_pods(namespace):
        namespace.request("PATCH", "Pod", name, {"metadata": {"finalizers": None}}, type_="merge-patch+json")


def test_an_evicted_pod_does_not_keep_a_stop_from_ending(namespace: Namespace, server: ApiServer) -> None:
    """A ReplicaSet never deletes a failed pod, and such a pod runs nothing."""
    apply_ready(namespace, namespace.workload("w", kind="Deployment"))
    leave_evicted_pod(server, namespace.name, "w")
    stopped = stop(namespace, "Deployment/w", timeout=120)
    assert not stopped.failed, stopped.msg
    assert list_pods(namespace) == {"evicted": "Failed"}


def test_a_completed_pod_of_a_job_does_not_keep_a_stop_from_ending(namespace: Namespace) -> None:
    """Charts give the pods of their hooks the labels of the workload."""
    finished = describe_job("migrate", describe_pod(namespace, "true"), labels={"app": "w"})
    namespace.apply(namespace.workload("w"), finished)
    namespace.ready("StatefulSet", "w", 1)
    namespace.wait("Job complete", lambda: is_complete(namespace.get("Job", "migrate")))
    stopped = stop(namespace, "StatefulSet/w", timeout=120)
    assert not stopped.failed, stopped.msg
    assert list(list_pods(namespace).values()) == ["Succeeded"]


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_a_pod_of_another_owner_is_not_waited_for(namespace: Namespace, kind: str) -> None:
    """A running Job's pod with the labels of the workload belongs to the Job; it goes on."""
    running = describe_job("import", describe_pod(namespace, "sleep", "100000"), labels={"app": "w"})
    namespace.apply(namespace.workload("w", kind=kind), running)
    namespace.ready(kind, "w", 1)
    namespace.wait("Job runs", lambda: namespace.get("Job", "import")["status"].get("ready") == 1)
    stopped = stop(namespace, f"{kind}/w", timeout=120)
    assert not stopped.failed, stopped.msg
    assert list(list_pods(namespace).values()) == ["Running"]


def test_a_job_that_runs_is_waited_for_and_named(namespace: Namespace) -> None:
    """Also one that its CronJob has not listed among its active ones, as in the moment after it was created."""
    pod = describe_pod(namespace, "sleep", "100000")
    namespace.apply(describe_cron_job("c", pod))
    owner = refer_to(namespace.get("CronJob", "c"), "CronJob")
    namespace.apply(describe_job("c-1", pod, owner=owner))
    namespace.wait("Job runs", lambda: namespace.get("Job", "c-1").get("status", {}).get("ready") == 1)
    run = stop(namespace, "CronJob/c", timeout=SHORT)
    assert run.failed
    assert run.changed
    assert f"Job {namespace.name}/c-1" in run.msg
    assert any("c-1" in blocker["object"] for blocker in run["blockers"])
    namespace.delete("Job", "c-1")
    again = stop(namespace, "CronJob/c", timeout=120)
    assert not again.failed, again.msg
    assert namespace.list("Pod") == []


@pytest.mark.usefixtures("held")
def test_a_pod_that_hangs_is_told_with_what_holds_it(namespace: Namespace) -> None:
    """The finalizer and the node are what a person needs to know."""
    node = namespace.get("Pod", "w-0")["spec"]["nodeName"]
    run = stop(namespace, "StatefulSet/w", timeout=SHORT)
    assert run.failed
    (blocker,) = [blocker for blocker in run["blockers"] if "w-0" in blocker["object"]]
    assert HOLD in str(blocker)
    assert node in str(blocker)


@pytest.mark.parametrize("act", [stop, start], ids=["stop", "start"])
def test_watches_that_fall_silent_are_no_failure(namespace: Namespace, act: Callable[..., ModuleRun]) -> None:
    """At the deadline the server is asked once more, and what it says then counts."""
    apply_ready(namespace, namespace.workload("w"))
    if act is start:
        assert stop(namespace, "StatefulSet/w").changed
    with RivalProxy(namespace.facts) as proxy:
        proxy.is_silent = True
        run = act(namespace, "StatefulSet/w", host=proxy.url, timeout=2 * SHORT)
    assert not run.failed, run.msg


@pytest.mark.usefixtures("held")
def test_a_stop_that_ends_half_done_says_what_was_stopped(namespace: Namespace) -> None:
    """Each workload with its replicas and its pods, also on a timeout."""
    apply_ready(namespace, namespace.workload("v"))
    run = stop(namespace, "StatefulSet/w", "StatefulSet/v", timeout=2 * SHORT)
    assert run.failed
    assert (run.changed, run["error"]["refused"]) == (True, False)
    described = {workload["name"]: workload for workload in run["workloads"]}
    assert {name: workload["replicas"] for name, workload in described.items()} == {"w": 0, "v": 0}
    assert (described["w"]["pods"], described["v"]["pods"]) == (1, 0)


def test_pods_that_end_one_after_the_other_are_waited_for(namespace: Namespace) -> None:
    """A StatefulSet whose pods follow each other (OrderedReady), with a partition and a strategy of its own."""
    ordered = change_spec(
        namespace.workload("w", replicas=2),
        podManagementPolicy="OrderedReady",
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
    )
    on_delete = change_spec(namespace.workload("v"), updateStrategy={"type": "OnDelete"})
    apply_ready(namespace, ordered, on_delete)
    stopped = stop(namespace, "StatefulSet/w", "StatefulSet/v", timeout=120)
    assert not stopped.failed, tell(stopped)
    assert namespace.list("Pod") == []
    assert read_replicas(namespace, "StatefulSet", "w", "v") == [0, 0]
