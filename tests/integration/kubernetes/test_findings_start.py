# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a start restores, what it waits for, and what does not make it fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from support.kubernetes_objects import change_spec, change_template
from support.kubernetes_server import ApiServer, build_path
from support.modules import finish_module, start_module
from support.rival_proxy import Rival, RivalProxy

from .conftest import Namespace
from .steps import (
    INFO,
    QUICK,
    SCALE,
    WORKLOAD,
    apply_ready,
    name_workloads,
    read_replicas,
    read_saved,
    start,
    stop,
    tell,
)
from .test_workload import cron_job

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]


def set_image(namespace: Namespace, kind: str, name: str, number: int) -> None:
    """Give a workload's pods another of the lab's images."""
    container = {"name": "main", "image": namespace.facts["images"][number]}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    namespace.request("PATCH", kind, name, body, type_="strategic-merge-patch+json")


def test_what_was_at_zero_stays_at_zero(namespace: Namespace) -> None:
    """A tier with a workload that was at 0 on purpose comes back as it was, without any option."""
    apply_ready(namespace, namespace.workload("a", replicas=2), namespace.workload("b", replicas=0))
    stopped = stop(namespace, "StatefulSet/a", "StatefulSet/b")
    assert not stopped.failed, stopped.msg
    started = start(namespace, "StatefulSet/a", "StatefulSet/b")
    assert not started.failed, started.msg
    assert read_replicas(namespace, "StatefulSet", "a", "b") == [2, 0]
    assert [read_saved(namespace, "StatefulSet", name) for name in ("a", "b")] == [None, None]
    again = start(namespace, "StatefulSet/a")
    assert (again.failed, again.changed) == (False, False)


def test_a_cron_job_that_was_suspended_stays_suspended(namespace: Namespace) -> None:
    """One that was not is resumed beside it."""
    suspended = change_spec(cron_job(namespace, "purge"), suspend=True)
    namespace.apply(suspended, cron_job(namespace, "report"))
    stopped = stop(namespace, "CronJob/purge", "CronJob/report")
    assert not stopped.failed, stopped.msg
    started = start(namespace, "CronJob/purge", "CronJob/report")
    assert not started.failed, started.msg
    states = {name: namespace.get("CronJob", name)["spec"]["suspend"] for name in ("purge", "report")}
    assert states == {"purge": True, "report": False}


def test_one_who_starts_it_at_the_same_time_decides_how_many_there_are(namespace: Namespace, server: ApiServer) -> None:
    """Between reading and writing: what is there then is the goal, and nothing is waited for that nobody asked for."""
    apply_ready(namespace, namespace.workload("w", replicas=1))
    assert stop(namespace, "StatefulSet/w").changed

    def scale() -> None:
        server.scale("StatefulSet", namespace.name, "w", 2, manager="kubectl-scale")

    with RivalProxy(namespace.facts, Rival("PATCH", "/statefulsets/w", scale)) as proxy:
        started = start(namespace, "StatefulSet/w", host=proxy.url, timeout=120)
        assert proxy.rivals[0].times == 0
    assert not started.failed, started.msg
    assert read_replicas(namespace, "StatefulSet", "w") == [2]
    assert [started["workloads"][0][key] for key in ("replicas", "ready")] == [2, 2]


def test_what_a_person_did_since_outlives_what_was_saved(namespace: Namespace) -> None:
    """Stopped with 1, started by hand with 2, later scaled to 0 by hand: nothing says that 1 is right."""
    apply_ready(namespace, namespace.workload("w", replicas=1))
    assert stop(namespace, "StatefulSet/w").changed
    for replicas in (2, 0):
        namespace.set_replicas("StatefulSet", "w", replicas, manager="kubectl-edit")
    assert namespace.module(INFO)["stopped_by_lowtide"] == []
    refused = start(namespace, "StatefulSet/w", timeout=20)
    assert refused.failed, tell(refused)
    assert (refused["error"]["refused"], refused.changed) == (True, False)
    assert read_replicas(namespace, "StatefulSet", "w") == [0]
    given = namespace.module(
        WORKLOAD, state="running", workloads=[{"kind": "StatefulSet", "name": "w", "replicas": 1}], timeout=120
    )
    assert not given.failed, given.msg
    assert read_saved(namespace, "StatefulSet", "w") is None


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_a_pod_serves_when_it_has_been_ready_long_enough(namespace: Namespace, kind: str) -> None:
    """minReadySeconds says how long: until then it is not available, whatever the kind."""
    apply_ready(namespace, change_spec(namespace.workload("w", kind=kind), minReadySeconds=2))
    assert stop(namespace, f"{kind}/w").changed
    started = start(namespace, f"{kind}/w", timeout=120)
    assert not started.failed, started.msg
    status = namespace.get(kind, "w")["status"]
    assert (status["readyReplicas"], status.get("availableReplicas")) == (1, 1)
    # What readiness began with is a whole second.
    assert started["waited"] > 1


def test_a_paused_deployment_with_a_change_of_its_template_is_named(namespace: Namespace) -> None:
    """Its controller keeps the pods of the old template: no deadline is waited for, and the result says why."""
    apply_ready(namespace, namespace.workload("w", kind="Deployment"))
    namespace.request("PATCH", "Deployment", "w", {"spec": {"paused": True}}, type_="merge-patch+json")
    set_image(namespace, "Deployment", "w", 1)
    assert stop(namespace, "Deployment/w", timeout=120).changed
    started = start(namespace, "Deployment/w", timeout=200, **QUICK)
    assert started["waited"] < 100
    assert "paused" in tell(started).lower(), started.msg
    assert started.changed
    (pod,) = namespace.list("Pod")
    assert pod["spec"]["containers"][0]["image"] == namespace.facts["images"][0]


@pytest.mark.parametrize(
    "strategy", [{"type": "OnDelete"}, {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}], ids=str
)
def test_a_stateful_set_that_keeps_old_pods_is_as_declared(namespace: Namespace, strategy: Json) -> None:
    """With OnDelete, and below a partition, a pod of the old template is right."""
    apply_ready(namespace, change_spec(namespace.workload("w"), updateStrategy=strategy))
    set_image(namespace, "StatefulSet", "w", 1)
    started = start(namespace, "StatefulSet/w", timeout=20)
    assert (started.failed, started.changed) == (False, False), started.msg


def test_pods_of_an_old_template_are_no_reason_to_give_up(namespace: Namespace) -> None:
    """The old one crashes until the new one serves, which is what mends it."""
    crashing = change_spec(
        namespace.workload("w", kind="Deployment", command=["false"]),
        strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    )
    namespace.apply(crashing)
    namespace.wait("crashed", lambda: count_restarts(namespace) >= 1)
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 4, "periodSeconds": 1}
    mended = change_spec(namespace.workload("w", kind="Deployment", readinessProbe=probe))
    mended["spec"]["strategy"] = crashing["spec"]["strategy"]
    namespace.apply(mended)
    started = start(namespace, "Deployment/w", timeout=200, **QUICK)
    assert not started.failed, started.msg


def count_restarts(namespace: Namespace) -> int:
    """Return how often the containers of all pods were started again."""
    states = [state for pod in namespace.list("Pod") for state in pod["status"].get("containerStatuses") or []]
    return sum(state["restartCount"] for state in states)


COUNTING = "n=$(cat /scratch/n || echo 0); echo $((n + 1)) > /scratch/n; [ $n -lt 2 ] && exit 1; exec sleep 100000"
THIRD = {"exec": {"command": ["grep", "-q", "3", "/scratch/n"]}, "periodSeconds": 1}


def test_a_pod_that_crashes_twice_and_then_runs_is_waited_for(namespace: Namespace) -> None:
    """As whatever starts before the database answers, at the end of every window."""
    scratch = {"volumes": [{"name": "scratch", "emptyDir": {}}], "terminationGracePeriodSeconds": 0}
    mounts = [{"name": "scratch", "mountPath": "/scratch"}]
    command = ["sh", "-c", COUNTING]
    workload = namespace.workload("w", command=command, volumeMounts=mounts, readinessProbe=THIRD, spec=scratch)
    namespace.apply(workload)
    started = start(namespace, "StatefulSet/w", timeout=120)
    assert not started.failed, started.msg
    assert count_restarts(namespace) == 2


@pytest.fixture
def label_node(namespace: Namespace, server: ApiServer) -> Iterator[Callable[[], None]]:
    """Give a node the label ``lowtide-test`` with the namespace's name; it is taken away afterwards."""
    path = build_path("Node", "", namespace.facts["nodes"][0]["name"])

    def set_label(value: str | None) -> None:
        server.patch(path, {"metadata": {"labels": {"lowtide-test": value}}})

    yield lambda: set_label(namespace.name)
    set_label(None)


def test_a_pod_that_waits_for_a_node_is_waited_for(namespace: Namespace, label_node: Callable[[], None]) -> None:
    """A cluster autoscaler takes minutes to bring one; here the node comes three seconds after it was missed."""
    workload = change_template(
        namespace.workload("w", replicas=0), lambda pod: pod.update(nodeSelector={"lowtide-test": namespace.name})
    )
    namespace.apply(workload)
    entry = {**name_workloads("StatefulSet/w")[0], "replicas": 1}
    process = start_module(WORKLOAD, namespace.params(state="running", workloads=[entry], timeout=200, **QUICK))
    namespace.wait("unschedulable for three seconds", lambda: measure_unschedulable(namespace) >= 3)
    label_node()
    started = finish_module(process)
    assert not started.failed, started.msg


def measure_unschedulable(namespace: Namespace) -> float:
    """Return for how many seconds a pod has been unschedulable."""
    conditions = [entry for pod in namespace.list("Pod") for entry in pod["status"].get("conditions") or []]
    since = [
        datetime.fromisoformat(entry["lastTransitionTime"]).timestamp()
        for entry in conditions
        if (entry["type"], entry.get("reason")) == ("PodScheduled", "Unschedulable")
    ]
    return max((time.time() - at for at in since), default=0)


@pytest.mark.parametrize("replicas", [0, -1])
def test_running_with_no_replicas_is_refused(namespace: Namespace, replicas: int) -> None:
    """Fewer than 1 is no way to run; nothing is scaled to 0 without saying what was there."""
    apply_ready(namespace, namespace.workload("w"))
    entry = {"kind": "StatefulSet", "name": "w", "replicas": replicas}
    refused = namespace.module(WORKLOAD, state="running", workloads=[entry])
    assert refused.failed
    assert str(replicas) in refused.msg
    assert (refused["error"]["refused"], refused.changed) == (True, False)
    assert read_replicas(namespace, "StatefulSet", "w") == [1]


def test_scaling_without_a_number_of_partitions_is_refused(namespace: Namespace) -> None:
    """Neither as data nor where to ask: the options are named, and nothing is asked."""
    refused = namespace.module(SCALE, kind="StatefulSet", name="w", topics=["orders"])
    assert refused.failed
    for option in ("partitions", "kafka_connection"):
        assert option in refused.msg
    assert "NoneType" not in refused.msg


def test_workloads_of_one_name_are_told_apart_by_their_kind(namespace: Namespace) -> None:
    """A Deployment, a StatefulSet and a CronJob named the same are stopped and started each by itself."""
    namespace.apply(namespace.workload("x"), namespace.workload("y", kind="Deployment"), cron_job(namespace, "x"))
    deployment = namespace.workload("x", kind="Deployment")
    labels = {"app": "x-of-deployment"}
    deployment["spec"]["selector"] = {"matchLabels": labels}
    deployment["spec"]["template"]["metadata"]["labels"] = labels
    apply_ready(namespace, deployment)
    namespace.ready("StatefulSet", "x", 1)
    names = ("StatefulSet/x", "Deployment/x", "CronJob/x")
    assert stop(namespace, *names).changed
    partial = start(namespace, "Deployment/x")
    assert not partial.failed, partial.msg
    assert read_replicas(namespace, "StatefulSet", "x") == [0]
    started = start(namespace, *names)
    assert not started.failed, started.msg
    assert read_replicas(namespace, "StatefulSet", "x") + read_replicas(namespace, "Deployment", "x", "y") == [1, 1, 1]
    assert namespace.get("CronJob", "x")["spec"]["suspend"] is False
