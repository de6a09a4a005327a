# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rpk_group_info on a real broker: states, members, lag, topics, and waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from support.kafka_consumer import CLIENT_ID, consumer
from support.modules import ModuleRun, finish_module, run_module, start_module
from support.tcp_proxy import DESCRIBE_GROUPS, LIST_OFFSETS, OFFSET_FETCH, SYNC_GROUP, KafkaProxy

from .conftest import Bus

pytestmark = [pytest.mark.lab("kafka"), pytest.mark.procedure("A9")]
CLIENTS = ["kafka", "rpk 23.3", "rpk 24.3"]


def info(bus: Bus, *names: str, client: str = "kafka", rpk: str = "", check: bool = False, **options: Any) -> ModuleRun:
    """Read groups."""
    name, _blank, version = client.partition(" ")
    params = {"brokers": [bus.brokers], "names": list(names), "client": name, "rpk_command": rpk or "rpk", **options}
    return run_module("rpk_group_info", params, check=check, env={"FAKE_RPK_VERSION": version})


@pytest.mark.parametrize("client", CLIENTS)
def test_missing_empty_and_live_groups_are_three_answers(
    bus: Bus, unique_name: Callable[..., str], rpk: str, client: str
) -> None:
    """All in one call; with members, their partitions, offsets and lag, and logs of the topic."""
    live, never = unique_name("live"), unique_name("never")
    bus.set({0: 1, 1: 2, 2: 10}, group=live)
    try:
        with consumer(bus.brokers, live, bus.topic):
            seen = info(bus, bus.group, live, never, client=client, rpk=rpk, topics=[bus.topic, "no.such.topic"])
    finally:
        bus.remove([], [live])
    assert not seen.failed, seen.msg
    empty, stable, missing = seen["groups"]
    assert [group["state"] for group in (empty, stable, missing)] == ["empty", "stable", "missing"]
    assert (empty["member_count"], empty["total_lag"]) == (0, 18)
    assert (stable["member_count"], stable["total_lag"]) == (1, 17)
    assert (missing["total_lag"], missing["partitions"]) == (None, [])
    member = stable["members"][0]
    assert (member["client_id"], member["host"]) == (CLIENT_ID, "10.77.0.1")
    assert [own["partition"] for own in member["assignments"]] == [0, 1, 2]
    assert [(row["committed"], row["log_start"], row["log_end"], row["lag"]) for row in stable["partitions"]] == [
        (1, 0, 10, 9),
        (2, 0, 10, 8),
        (10, 0, 10, 0),
    ]
    assert {row["member_id"] for row in stable["partitions"]} == {member["member_id"]}
    topic, absent = seen["topics"]
    assert (topic["partition_count"], topic["held"], topic["written"]) == (3, 30, 30)
    assert (absent["exists"], absent["partition_count"], absent["written"]) == (False, None, None)
    assert seen["cluster_id"] == bus.cluster_id
    assert not seen.changed


def test_new_consumer_protocol(bus: Bus, unique_name: Callable[..., str], rpk: str) -> None:
    """The protocol client tells its members and state; rpk says that it cannot, and no wait hangs on that."""
    group = unique_name("new-style")
    try:
        with consumer(bus.brokers, group, bus.topic, protocol="consumer"):
            seen = info(bus, group)["groups"][0]
            assert (seen["state"], seen["protocol"], seen["member_count"]) == ("stable", "consumer", 1)
            assert seen["members"][0]["client_id"] == CLIENT_ID
            blind = info(bus, group, client="rpk 24.3", rpk=rpk)["groups"][0]
            assert (blind["state"], blind["total_lag"]) == ("unknown", None)
            hopeless = info(bus, group, client="rpk 24.3", rpk=rpk, wait_for={"states": ["empty"], "timeout": 60})
            assert "client: kafka" in hopeless.msg
            assert hopeless.failed
    finally:
        bus.remove([], [group])


def test_drain_is_waited_for(bus: Bus) -> None:
    """A consumer leaves while the module waits; it returns with the group empty."""
    wait = {"states": ["empty"], "timeout": 60.0}
    with consumer(bus.brokers, bus.group, bus.topic) as member, KafkaProxy("10.77.0.1", 9092) as proxy:
        process = start_module("rpk_group_info", {"brokers": [proxy.address], "names": [bus.group], "wait_for": wait})
        while proxy.counts[OFFSET_FETCH] < 2 and process.poll() is None:  # it has read twice, so it waits
            proxy.held.wait(0.02)
        assert process.poll() is None
        member.terminate()
        drained = finish_module(process)
    assert not drained.failed, drained.msg
    assert drained["condition_met"]
    assert drained["waited"] > 0
    assert drained["groups"][0]["state"] == "empty"


def test_a_group_that_is_removed_during_the_wait_is_drained(bus: Bus) -> None:
    """As brokers do with one without offsets; here it is deleted once the wait has read it."""
    wait = {"states": ["empty"], "idle_for": 20.0, "timeout": 60.0}
    with KafkaProxy("10.77.0.1", 9092) as proxy:
        process = start_module("rpk_group_info", {"brokers": [proxy.address], "names": [bus.group], "wait_for": wait})
        while proxy.counts[OFFSET_FETCH] < 2 and process.poll() is None:  # it has read twice, so it waits
            proxy.held.wait(0.02)
        assert process.poll() is None
        bus.remove([], [bus.group])
        drained = finish_module(process)
    assert not drained.failed, drained.msg
    assert drained["condition_met"]
    (group,) = drained["groups"]
    assert group["state"] == "missing"
    assert "it was empty with 0 members and 3 committed offsets earlier in this wait" in group["reason"]
    assert group["reason"] in drained["evidence"][0]


def test_a_topic_that_is_deleted_while_it_is_read_is_gone(bus: Bus, unique_name: Callable[..., str]) -> None:
    """And the error says so. That no broker makes it again is for the unit tests: the lab's is told never to make any."""
    doomed = unique_name("doomed")
    bus.create(doomed)
    with KafkaProxy("10.77.0.1", 9092, hold_request=LIST_OFFSETS) as proxy:
        options = {"brokers": [proxy.address], "topics": [doomed], "request_timeout": 5.0}
        process = start_module("rpk_group_info", options)
        assert proxy.held.wait(120)
        bus.remove([doomed], [])
        end = time.monotonic() + 120
        while doomed in bus.admin.list_topics(timeout=60).topics:  # the broker hears of it after the controller
            assert time.monotonic() < end, "it was not removed"
        proxy.release.set()
        failed = finish_module(process)
    assert f"topic {doomed} on event bus" in failed.msg
    assert "it is gone" in failed.msg
    assert doomed not in bus.admin.list_topics(timeout=10).topics


def test_backlog_is_waited_for(bus: Bus) -> None:
    """Until every record has been read; the totals are those of topic and group."""
    with consumer(bus.brokers, bus.group, bus.topic, consume=True):
        done = info(bus, bus.group, topics=[bus.topic], wait_for={"states": ["stable"], "max_lag": 0, "timeout": 120.0})
    assert not done.failed, done.msg
    group, topic = done["groups"][0], done["topics"][0]
    assert group["total_lag"] == 0
    assert sum(row["committed"] for row in group["partitions"]) == topic["written"] == 30


def test_deadline_names_what_is_missing(bus: Bus) -> None:
    """Group, value, member; and what was read last is in the result."""
    with consumer(bus.brokers, bus.group, bus.topic):
        late = info(bus, bus.group, wait_for={"states": ["empty"], "max_lag": 0, "timeout": 0.5})
    assert late.failed
    assert f"group {bus.group}" in late.msg
    assert "it is stable with 1 members, not empty, and its lag is 18, not 0 or less" in late.msg
    assert CLIENT_ID in late.msg
    assert not late["condition_met"]
    assert late["groups"][0]["total_lag"] == 18
    assert late["waited"] >= 0.5


def test_a_static_member_outlives_its_process(bus: Bus) -> None:
    """Closed, it is still in the group: the message says why, and a wait that is longer than its session ends well."""

    def join_and_end(milliseconds: int) -> None:
        """Be the member, with a session of this length, and end."""
        settings = {
            "bootstrap.servers": bus.brokers,
            "group.id": bus.group,
            "group.instance.id": "worker-0",
            "session.timeout.ms": milliseconds,
        }
        joined: list[bool] = []
        member = Consumer(settings)
        member.subscribe([bus.topic], on_assign=lambda *_: joined.append(True))
        deadline = time.monotonic() + 120
        while not joined:
            assert time.monotonic() < deadline, "it was assigned nothing"
            member.poll(1)
        member.close()

    join_and_end(120_000)  # longer than what is asked meanwhile takes
    late = info(bus, bus.group, wait_for={"states": ["empty"], "timeout": 0.5})
    assert late.failed
    assert "group.instance.id worker-0" in late.msg
    assert "worker-0 is a static member (group.instance.id): a consumer that was stopped stays in the group" in late.msg
    assert "session.timeout.ms after its last heartbeat" in late.msg
    refused = run_module("rpk_group", {**bus.params, "offsets": [{"to": "start"}]})
    assert "worker-0 is a static member (group.instance.id)" in refused["error"]["next_step"]
    join_and_end(6_000)
    assert info(bus, bus.group, wait_for={"states": ["empty"], "timeout": 60.0})["condition_met"]


def test_check_mode_does_not_wait(bus: Bus) -> None:
    """What it would wait for has not been done; it says whether the condition holds."""
    seen = info(bus, bus.group, check=True, wait_for={"states": ["stable"], "timeout": 60.0})
    assert not seen.failed
    assert (seen["condition_met"], seen["waited"]) == (False, 0)


def test_missing_group_is_not_drained(bus: Bus, unique_name: Callable[..., str]) -> None:
    """A wrong name must not look like an empty group, unless that is said to be good enough."""
    name = unique_name("never")
    assert "no such group" in info(bus, name, wait_for={"states": ["empty"], "timeout": 60.0}).msg
    assert info(bus, name, wait_for={"states": ["empty", "missing"], "timeout": 60.0})["condition_met"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster_id": "other"}, "cluster_id says other"),
        ({"brokers": ["10.77.0.1:9"]}, "event bus 10.77.0.1:9: no broker answers"),
        ({"wait_for": {"timeout": 1.0}}, "names no condition"),
    ],
)
def test_refused(bus: Bus, options: dict[str, Any], words: str) -> None:
    """By name."""
    assert words in info(bus, bus.group, **options).msg


def test_the_identity_can_be_asked_for_alone(bus: Bus) -> None:
    """Without groups and topics it says which cluster it is; but nothing can be waited for then."""
    run = info(bus)
    assert (run["cluster_id"], run["groups"], run["topics"]) == (bus.cluster_id, [], [])
    assert "option names: it is empty" in info(bus, wait_for={"states": ["empty"], "timeout": 1.0}).msg


def test_members_that_join_are_a_rebalance_and_are_waited_for(bus: Bus) -> None:
    """Two real members of a new group: it rebalances until they have shared out its partitions, which is held up here."""
    with KafkaProxy("10.77.0.1", 9092, hold_request=SYNC_GROUP) as proxy:
        settings = {"bootstrap.servers": proxy.address, "group.id": bus.group, "session.timeout.ms": 120_000}
        members = [Consumer(settings), Consumer(settings)]
        try:
            for member in members:
                member.subscribe([bus.topic])
            deadline = time.monotonic() + 120
            early = info(bus, bus.group)["groups"][0]
            while early["member_count"] < len(members):
                assert early["state"] == ("rebalancing" if early["member_count"] else "empty")
                assert time.monotonic() < deadline, "the members do not join"
                early = info(bus, bus.group)["groups"][0]
            assert early["state"] == "rebalancing"
            refused = run_module("rpk_group", {**bus.params, "offsets": [{"to": "start"}]})
            assert "it is rebalancing with 2 members" in refused.msg
            proxy.release.set()
            waited = info(bus, bus.group, wait_for={"states": ["stable"], "timeout": 120.0})
            assert not waited.failed, waited.msg
            assert (waited["groups"][0]["state"], waited["groups"][0]["member_count"]) == ("stable", 2)
        finally:
            proxy.release.set()
            for member in members:
                member.close()


def test_a_member_that_does_not_answer_holds_the_group_in_its_rebalance(bus: Bus) -> None:
    """It counts as one, by both clients, until it answers; a drain goes on through it, and its members are named."""
    settings = {
        "bootstrap.servers": bus.brokers,
        "group.id": bus.group,
        "partition.assignment.strategy": "range",
    }
    joined: list[bool] = []
    first, second = Consumer(settings), Consumer(settings)
    try:
        first.subscribe([bus.topic], on_assign=lambda *_: joined.append(True))
        while not joined:
            first.poll(1)
        second.subscribe([bus.topic])
        deadline = time.monotonic() + 120
        while (read := info(bus, bus.group))["groups"][0]["state"] == "stable":
            assert time.monotonic() < deadline, "the second member does not join"
        assert read["groups"][0]["state"] == "rebalancing"
        late = info(bus, bus.group, wait_for={"states": ["empty"], "timeout": 0.5})
        assert "it is rebalancing with" in late.msg
        process = start_module(
            "rpk_group_info",
            {
                "brokers": [bus.brokers],
                "names": [bus.group],
                "wait_for": {"states": ["empty"], "timeout": 60.0},
            },
        )
        first.close()
        second.close()
        drained = finish_module(process)
        assert not drained.failed, drained.msg
    finally:
        first.close()
        second.close()


def test_offsets_outside_of_the_log_are_told(bus: Bus) -> None:
    """Records that retention removed before they were read, and a commit beyond the end: no small lag, and none of 0."""
    bus.set({0: 2, 1: 10, 2: 5000})
    bus.remove_records({0: 8})
    read = info(bus, bus.group)["groups"][0]
    assert [(row["lag"], row["lost"], row["beyond_end"]) for row in read["partitions"]] == [
        (2, 6, 0),
        (0, 0, 0),
        (None, 0, 4990),
    ]
    assert read["total_lag"] is None
    drain = info(bus, bus.group, wait_for={"states": ["empty"], "lag_known": True, "timeout": 60.0})
    assert f"it has committed 5000 in {bus.topic}[2], beyond the log's end 10" in drain.msg
    bus.set({2: 10})
    behind = info(bus, bus.group, wait_for={"max_lag": 7, "timeout": 1.0})
    assert "its lag is 2, not 7 or less, and 6 offsets that it had not passed are no longer in the log" in behind.msg
    assert not info(bus, bus.group, wait_for={"max_lag": 8, "timeout": 1.0}).failed


def test_a_consumer_without_membership_is_found_by_its_commits(bus: Bus) -> None:
    """It assigns partitions to itself, so its group is empty while it consumes."""
    member = Consumer({"bootstrap.servers": bus.brokers, "group.id": bus.group, "enable.auto.commit": False})
    member.assign([TopicPartition(bus.topic, 0, 0)])

    def commit_next(key: int, frame: bytes) -> bytes:
        """Commit another offset before each answer that tells offsets is passed on, so that the next one differs."""
        if key == OFFSET_FETCH:
            commits.append(len(commits) % 10)
            member.commit(offsets=[TopicPartition(bus.topic, 0, commits[-1])], asynchronous=False)
        return frame

    commits: list[int] = []
    try:
        assert info(bus, bus.group, wait_for={"states": ["empty"], "timeout": 60.0})["condition_met"]
        params = {"names": [bus.group], "wait_for": {"states": ["empty"], "idle_for": 2.0, "timeout": 4.0}}
        with KafkaProxy("10.77.0.1", 9092, alter=commit_next) as proxy:
            found = run_module("rpk_group_info", {"brokers": [proxy.address], **params})
        assert len(commits) > 1
        assert "its offsets have stood still for" in found.msg
        assert "assigns partitions to itself" in found.msg
    finally:
        member.close()
    quiet = info(bus, bus.group, wait_for={"states": ["empty"], "idle_for": 1.0, "timeout": 60.0})
    assert not quiet.failed, quiet.msg
    assert quiet["waited"] >= 1.0


def describe_as_dead(key: int, frame: bytes) -> bytes:
    """Alter answers to DescribeGroups: an empty group is said to be dead, as brokers say of groups of another kind."""
    return frame.replace(b"\x06Empty", b"\x05Dead") if key == DESCRIBE_GROUPS else frame


def test_a_group_of_another_kind_is_not_dead(bus: Bus) -> None:
    """The broker lists it alive: it is neither gone nor drained, and nothing is set or created there."""
    with KafkaProxy("10.77.0.1", 9092, alter=describe_as_dead) as proxy:
        params = {"brokers": [proxy.address], "names": [bus.group]}
        read = run_module("rpk_group_info", params)
        assert read["groups"][0]["state"] == "unknown"
        assert "it is listed (empty), but described as dead: a group of another kind" in read["groups"][0]["reason"]
        for states in (["dead"], ["empty", "dead"]):
            waited = run_module("rpk_group_info", {**params, "wait_for": {"states": states, "timeout": 60.0}})
            assert "a group of another kind" in waited.msg
        declared = {"create": True, "offsets": [{"topic": bus.topic, "to": "start"}]}
        refused = run_module("rpk_group", {**bus.params, "brokers": [proxy.address], **declared})
        assert "a group of another kind" in refused.msg
        assert refused["error"]["refused"]


def test_a_bus_that_is_away_at_first_is_waited_for(bus: Bus) -> None:
    """The wait begins before the broker answers."""
    with KafkaProxy("10.77.0.1", 9092) as closed:
        port = closed.port
    params = {"brokers": [f"10.77.0.1:{port}"], "names": [bus.group], "request_timeout": 2.0}
    away = run_module("rpk_group_info", {**params, "wait_for": {"states": ["empty"], "timeout": 1.0}})
    assert f"event bus 10.77.0.1:{port}: after" in away.msg
    assert "no broker answers" in away.msg
    assert away["waited"] >= 1.0


def test_a_broker_of_the_environment_is_asked(bus: Bus) -> None:
    """As a credential type of AWX gives it."""
    seen = run_module("rpk_group_info", {"names": [bus.group]}, env={"KAFKA_BROKERS": bus.brokers})
    assert seen["groups"][0]["state"] == "empty", seen.msg
    wrong = run_module(
        "rpk_group_info", {"names": [bus.group], "request_timeout": 2.0}, env={"KAFKA_BROKERS": "127.0.0.1:1"}
    )
    assert wrong.failed
    assert "127.0.0.1:1" in wrong.msg
