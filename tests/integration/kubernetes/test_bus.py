# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Partitions read from a real bus, partitions added meanwhile, and the roles startup and shutdown with a consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from support.held_pods import HeldPods
from support.modules import finish_module, start_module
from support.playbooks import PlaybookRun

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes", "kafka")
SCALE = "k8s_scale_to_partitions"


@pytest.fixture
def admin(lab: dict[str, Any]) -> AdminClient:
    """The bus as an administrator sees it."""
    return AdminClient({"bootstrap.servers": lab["kafka"]["bootstrap_servers"]})


@pytest.fixture
def topic(admin: AdminClient, unique_name: Callable[..., str]) -> Iterator[str]:
    """A topic of two partitions, each of which answers: the broker learns of it after the controller."""
    name = unique_name("topic")
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(120)
    logs = {TopicPartition(name, number): OffsetSpec.latest() for number in range(2)}
    end = time.monotonic() + 120
    while any(future.exception() for future in admin.list_offsets(logs).values()):
        assert time.monotonic() < end, f"the partitions of {name} do not answer"
        # librdkafka keeps metadata without leaders for good, and every later question fails by them.
        admin.list_topics(name, 60)
    yield name
    admin.delete_topics([name])[name].result(120)


@pytest.fixture
def bus(lab: dict[str, Any]) -> dict[str, Any]:
    """The connection."""
    return {"brokers": [lab["kafka"]["bootstrap_servers"]], "cluster_id": lab["kafka"]["cluster_id"]}


@pytest.mark.procedure("A18", "A29")
def test_partitions_added_meanwhile_are_followed(
    namespace: Namespace, admin: AdminClient, topic: str, bus: dict[str, Any], held_pods: HeldPods
) -> None:
    """Read again after the wait; never past the max_replicas."""
    held_pods.hold()
    namespace.apply(namespace.workload("w", **held_pods.fields))
    process = start_module(
        SCALE, namespace.params(kind="StatefulSet", name="w", topics=[topic], kafka_connection=bus, max_replicas=3)
    )
    namespace.wait(
        "scaled", lambda: process.poll() is not None or namespace.get("StatefulSet", "w")["spec"]["replicas"] == 2
    )
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(120)
    namespace.wait("the broker knows them", lambda: len(admin.list_topics(topic, 60).topics[topic].partitions) == 5)
    held_pods.let_ready()
    run = finish_module(process)
    assert not run.failed, run.msg
    assert (run["partitions"], run["ready"], run["target"]) == ({topic: 5}, 3, 3)
    assert run["diff"] == {"before": {"replicas": 1}, "after": {"replicas": 3}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"topics": ["no-such-topic"]}, "no-such-topic"),
        ({"topics": []}, "names no topic"),
        ({"kafka_connection": {"brokers": ["10.77.0.1:1"], "request_timeout": 2}}, "10.77.0.1:1"),
        ({"kafka_connection": {"brokers": ["10.77.0.1:9092"], "cluster_id": "another"}}, "another"),
    ],
)
def test_bus_that_cannot_say_is_a_refusal(
    namespace: Namespace, topic: str, bus: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    """Topic missing, none named, broker down, another cluster: nothing is scaled."""
    namespace.apply(namespace.workload("w"))
    run = namespace.module(
        SCALE, **{"kind": "StatefulSet", "name": "w", "topics": [topic], "kafka_connection": bus, **change}
    )
    assert run.failed
    assert said in run.msg
    assert run["error"]["refused"] is True
    assert namespace.get("StatefulSet", "w")["spec"]["replicas"] == 1


def play(namespace: Namespace, role: str, variables: dict[str, Any]) -> list[dict[str, Any]]:
    """A play that runs a role, which finds the site variables, and shows its result."""
    site = {
        "kubernetes_connection": {
            "kubeconfig": namespace.facts["kubeconfig"],
            "cluster_uid": namespace.facts["cluster_uid"],
        },
        "kubernetes_namespace": namespace.name,
        "tiers": [[{"kind": "StatefulSet", "name": "w"}], [{"kind": "Deployment", "name": "d"}]],
        **variables,
    }
    include = {"ansible.builtin.include_role": {"name": f"lowtide.ops.{role}"}}
    show = {"ansible.builtin.debug": {"msg": f"SUMMARY {{{{ {role}_result.summary }}}}"}}
    return [
        {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": site, "tasks": [include, show]}
    ]


SCALING = {"scaling_workloads": [{"kind": "StatefulSet", "name": "w"}]}


def words(run: PlaybookRun) -> str:
    """What was printed, without the line breaks."""
    return " ".join(run.stdout.split())


def test_roles_drain_scale_and_restore(
    namespace: Namespace,
    topic: str,
    bus: dict[str, Any],
    unique_name: Callable[..., str],
    ansible_playbook: Callable[..., PlaybookRun],
) -> None:
    """A group that does not exist is found by a rehearsal; not drained while a member is left; then drained, started, scaled."""
    namespace.apply(namespace.workload("w"), namespace.workload("d", kind="Deployment"))
    group = unique_name("group")
    inputs = {"consumer_groups": [group], "kafka_connection": bus}
    unconnected = ansible_playbook(play(namespace, "shutdown", {"consumer_groups": [group]}))
    assert unconnected.rc != 0
    assert "localhost: set kafka_connection or shutdown_kafka_connection" in words(unconnected)
    rehearsed = ansible_playbook(play(namespace, "shutdown", inputs), "--check")
    assert rehearsed.rc != 0
    assert f"group {group}: there is no such group" in words(rehearsed)
    assert namespace.get("StatefulSet", "w")["spec"]["replicas"] == 1

    producer = Producer({"bootstrap.servers": bus["brokers"][0]})
    for number in range(3):
        producer.produce(topic, str(number))
    assert producer.flush(120) == 0
    consumer = Consumer({"bootstrap.servers": bus["brokers"][0], "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(120)
    assert message is not None
    consumer.commit(message=message, asynchronous=False)
    active = ansible_playbook(play(namespace, "shutdown", {**inputs, "shutdown_drain_timeout": 2}))
    assert active.rc != 0
    assert group in active.stdout
    assert namespace.get("Deployment", "d")["spec"]["replicas"] == 0
    consumer.close()

    drained = ansible_playbook(play(namespace, "shutdown", inputs))
    assert drained.rc == 0, drained.stdout
    assert f"SUMMARY all workloads were already stopped; {group} empty, lag 2" in words(drained)
    # The include, the validation of its arguments, two modules, the result, and this test's own message.
    assert drained.stats["localhost"]["ok"] == 6
    stopped = ansible_playbook(play(namespace, "scaling", {**inputs, **SCALING, "topics": [topic]}))
    assert "it was stopped on purpose" in words(stopped)
    started = ansible_playbook(play(namespace, "startup", {}))
    assert started.rc == 0, started.stdout
    assert (
        f"SUMMARY started StatefulSet {namespace.name}/w (1 replica), Deployment {namespace.name}/d (1 replica)"
        in words(started)
    )
    scaled = ansible_playbook(play(namespace, "scaling", {**inputs, **SCALING, "topics": [topic]}))
    assert scaled.rc == 0, scaled.stdout
    assert f"SUMMARY scaled StatefulSet {namespace.name}/w from 1 to 2 replicas ({topic} has 2 partitions)" in words(
        scaled
    )
    assert namespace.get("StatefulSet", "w")["status"]["readyReplicas"] == 2
    assert namespace.get("Deployment", "d")["status"]["readyReplicas"] == 1
