# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rpk_group when something breaks at the worst moment: between the undo and the commit, and between the commit and its answer.

A proxy before the real broker (``support.tcp_proxy``) holds, drops or cuts the one request, and counts all of them.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from support.kafka_consumer import consumer
from support.modules import ModuleRun, finish_module, run_module, start_module
from support.tcp_proxy import LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, KafkaProxy

from .conftest import PARTITIONS, RECORDS, Bus

pytestmark = [pytest.mark.lab("kafka"), pytest.mark.procedure("A15")]
AT_FOUR, AT_END = dict.fromkeys(range(PARTITIONS), 4), dict.fromkeys(range(PARTITIONS), RECORDS)
HOST, PORT = "10.77.0.1", 9092


def params(bus: Bus, proxy: KafkaProxy | None = None, **options: Any) -> dict[str, Any]:
    """To the end, by the proxy."""
    through = {"brokers": [proxy.address]} if proxy else {}
    general = {"offsets": [{"to": "end"}], "max_skipped": 1000, "request_timeout": 10.0}
    return {**bus.params, **through, **general, **options}


def restored(bus: Bus) -> bool:
    """Whether the undo file puts every partition back to the offset before."""
    files = {"restore_file": str(bus.undo), "undo_file": f"{bus.undo}.back"}
    back = run_module("rpk_group", {**bus.params, **files})
    return back.changed and bus.offsets() == AT_FOUR


@pytest.mark.parametrize("where", ["before the commit", "after the commit"])
@pytest.mark.parametrize("declared", [{"to": "end"}, {"shift": 6}])
def test_killed_then_run_again(bus: Bus, where: str, declared: dict[str, Any]) -> None:
    """SIGKILL with the undo on disk: the next run ends in the same state, and the first undo still restores."""
    held: dict[str, Any] = (
        {"hold_request": OFFSET_COMMIT} if where == "before the commit" else {"hold_answer": OFFSET_COMMIT}
    )
    with KafkaProxy(HOST, PORT, **held) as proxy:
        process = start_module("rpk_group", params(bus, proxy, offsets=[declared]))
        assert proxy.held.wait(120)
        process.kill()
        process.wait(timeout=60)
        assert bus.undo.exists()
        assert bus.offsets() == (AT_FOUR if where == "before the commit" else AT_END)
    again = run_module("rpk_group", params(bus, offsets=[declared]))
    assert not again.failed, again.msg
    assert again.changed == (where == "before the commit")
    assert bus.offsets() == AT_END
    assert restored(bus)


class Unready:
    """Alters the first ``times`` answers to ListOffsets: an error of the broker's for the first partition of ``topic``."""

    def __init__(self, topic: str, code: int, *, times: int) -> None:
        self.topic, self.code, self.left = topic.encode(), code, times

    def __call__(self, key: int, frame: bytes) -> bytes:
        # After the topic's name: the number of partitions (1 byte), then of the first one its number (4) and error code (2).
        place = frame.find(self.topic) + len(self.topic) + 5
        if key != LIST_OFFSETS or not self.left:
            return frame
        assert frame[place : place + 2] == b"\0\0", "the answer has another shape, or an error of its own"
        self.left -= 1
        return frame[:place] + struct.pack(">h", self.code) + frame[place + 2 :]


@pytest.mark.parametrize("code", [3, 56, 74, 75, 78], ids=lambda code: KafkaError(code).name())
def test_a_broker_that_is_not_ready_yet_is_asked_again(bus: Bus, code: int) -> None:
    """A leader has just moved, or a topic was just made: what Kafka calls retriable passes by itself."""
    unready = Unready(bus.topic, code, times=2)
    with KafkaProxy(HOST, PORT, alter=unready) as proxy:
        made = run_module("rpk_group", params(bus, proxy))
    assert not made.failed, made.msg
    assert unready.left == 0
    assert bus.offsets() == AT_END


def test_a_wait_goes_on_while_a_broker_is_not_ready(bus: Bus) -> None:
    """Longer than one question may take."""
    unready = Unready(bus.topic, 75, times=12)
    with KafkaProxy(HOST, PORT, alter=unready) as proxy:
        wait = {"states": ["empty"], "timeout": 60.0}
        options = {"brokers": [proxy.address], "names": [bus.group], "request_timeout": 1.0, "wait_for": wait}
        read = run_module("rpk_group_info", options)
    assert not read.failed, read.msg
    assert unready.left == 0
    assert read["waited"] > 1.0


class Revoked:
    """Alters answers to OffsetFetch from the second one on: the group may not be read any more."""

    def __init__(self) -> None:
        self.answers = 0

    def __call__(self, key: int, frame: bytes) -> bytes:
        if key != OFFSET_FETCH:
            return frame
        self.answers += 1
        # At the end: the error code of the one group (2 bytes), its tagged fields (1) and those of the answer (1).
        assert frame[-4:] == bytes(4), "the answer has another shape, or an error of its own"
        return frame if self.answers == 1 else frame[:-4] + struct.pack(">h", 30) + bytes(2)


def test_a_right_that_is_revoked_after_the_commit_hides_what_it_did(bus: Bus) -> None:
    """The commit is named, what it did is not guessed, and a further run goes on from what is there."""
    with KafkaProxy(HOST, PORT, alter=Revoked()) as proxy:
        failed = run_module("rpk_group", params(bus, proxy))
        assert proxy.counts[OFFSET_COMMIT] == 1
    assert failed.failed
    assert failed.changed
    assert not failed["error"]["refused"]
    assert "a commit of 3 offsets was sent, and what it did is not known, because reading back failed" in failed.msg
    assert "GROUP_AUTHORIZATION_FAILED" in failed.msg
    assert f"{bus.undo} holds the offsets before" in failed.msg
    assert failed["summary"] == f"a commit of 3 offsets of {bus.group} was sent, and what it did is not known"
    assert all("was not read back" in row["error"] for row in failed["partitions"])
    assert bus.offsets() == AT_END
    assert not run_module("rpk_group", params(bus)).changed
    assert restored(bus)


class Leaderless:
    """Alters the first ``times`` answers to Metadata that tell of ``topic``: none of its partitions has a leader."""

    PARTITION_BYTES = 26
    """One partition of one replica: error code (2), number (4), leader (4), its epoch (4), and three arrays."""

    def __init__(self, topic: str, *, times: int) -> None:
        self.topic, self.left = topic.encode(), times

    def __call__(self, key: int, frame: bytes) -> bytes:
        if key != METADATA or self.topic not in frame or not self.left:
            return frame
        self.left -= 1
        altered = bytearray(frame)
        # After the topic's name: its id (16 bytes), whether it is internal (1), and how many partitions there are (1).
        first = frame.find(self.topic) + len(self.topic) + 18
        assert frame[first - 1] == PARTITIONS + 1, "the answer has another shape"
        for place in range(first, first + PARTITIONS * self.PARTITION_BYTES, self.PARTITION_BYTES):
            number = frame[place + 2 : place + 6]
            assert int.from_bytes(number, "big") < PARTITIONS, "the answer has another shape"
            altered[place : place + 10] = struct.pack(">h", 5) + number + struct.pack(">i", -1)
        return bytes(altered)


def test_a_topic_without_leaders_for_a_while_is_asked_again(bus: Bus) -> None:
    """A broker restarts: librdkafka would keep metadata without leaders for as long as the client lives."""
    leaderless = Leaderless(bus.topic, times=3)
    with KafkaProxy(HOST, PORT, alter=leaderless) as proxy:
        made = run_module("rpk_group", params(bus, proxy))
    assert not made.failed, made.msg
    assert leaderless.left == 0
    assert bus.offsets() == AT_END


def test_a_topic_that_stays_without_leaders_is_named(bus: Bus) -> None:
    with KafkaProxy(HOST, PORT, alter=Leaderless(bus.topic, times=1000)) as proxy:
        failed = run_module("rpk_group", params(bus, proxy, request_timeout=3.0))
        assert not proxy.counts[OFFSET_COMMIT]
    assert failed.failed
    assert f"reading the log of {bus.topic}[" in failed.msg
    assert "no leader" in failed.msg
    assert bus.offsets() == AT_FOUR


def test_a_broker_that_does_not_get_ready_is_named(bus: Bus) -> None:
    """Bounded by request_timeout; nothing is committed."""
    unready = Unready(bus.topic, 75, times=1000)
    with KafkaProxy(HOST, PORT, alter=unready) as proxy:
        failed = run_module("rpk_group", params(bus, proxy, request_timeout=3.0))
        assert not proxy.counts[OFFSET_COMMIT]
    assert failed.failed
    assert not failed.changed
    assert f"reading the log of {bus.topic}[" in failed.msg
    assert "failed: UNKNOWN_LEADER_EPOCH" in failed.msg
    assert bus.offsets() == AT_FOUR


def test_commit_answered_but_the_connection_cut(bus: Bus) -> None:
    """F16: read back before repeating; one commit is enough, and changed is true."""
    with KafkaProxy(HOST, PORT, cut_before_answer=OFFSET_COMMIT) as proxy:
        made = run_module("rpk_group", params(bus, proxy))
    assert made.changed, made.msg
    assert not made.failed
    assert (proxy.cuts, proxy.counts[OFFSET_COMMIT]) == (1, 1)
    assert bus.offsets() == AT_END
    assert restored(bus)


def test_commit_that_never_arrived_is_repeated(bus: Bus) -> None:
    """Read back, found undone, done."""
    with KafkaProxy(HOST, PORT, drop_request=OFFSET_COMMIT) as proxy:
        made = run_module("rpk_group", params(bus, proxy))
    assert made.changed, made.msg
    assert (proxy.cuts, proxy.counts[OFFSET_COMMIT]) == (1, 1)
    assert bus.offsets() == AT_END


def test_commit_that_never_arrives_is_reported_as_not_done(bus: Bus) -> None:
    """After the deadline: failed, not changed, every partition where it was."""
    with KafkaProxy(HOST, PORT, drop_request=OFFSET_COMMIT, cut_times=1000) as proxy:
        failed = run_module("rpk_group", params(bus, proxy, request_timeout=4.0))
    assert failed.failed
    assert not failed.changed
    assert not failed["error"]["refused"]
    assert "3 of 3 partitions are not where they were set" in failed.msg
    assert str(bus.undo) in failed.msg
    assert [row["actual"] for row in failed["partitions"]] == [4, 4, 4]
    assert bus.offsets() == AT_FOUR


class Vanishing(KafkaProxy):
    """Has no answers to OffsetFetch any more from its cut on."""

    def cut(self, client: socket.socket) -> None:
        """Hold them before the client can ask again."""
        self.release.clear()
        super().cut(client)


def test_what_a_commit_did_is_not_guessed(bus: Bus) -> None:
    """Committed, but the bus is gone before it can be read back: says that it is not known, and a further run tells."""
    with Vanishing(HOST, PORT, cut_before_answer=OFFSET_COMMIT, hold_answer=OFFSET_FETCH, cut_times=1) as proxy:
        proxy.release.set()
        failed = run_module("rpk_group", params(bus, proxy, request_timeout=4.0))
    assert "what it did is not known" in failed.msg
    assert failed.failed
    assert bus.offsets() == AT_END
    assert not run_module("rpk_group", params(bus)).changed
    assert restored(bus)


def test_partial_success_is_reported_as_what_it_is(bus: Bus, unique_name: Callable[..., str]) -> None:
    """A topic vanishes between the plan and the commit: its partitions failed, the others are done, and both are said."""
    other = unique_name("doomed")
    bus.create(other, 2)
    bus.produce(other, 2)
    bus.set({0: 1, 1: 1}, topic=other)
    declared = [{"topic": bus.topic, "to": "end"}, {"topic": other, "to": "end"}]
    with KafkaProxy(HOST, PORT, hold_request=OFFSET_COMMIT) as proxy:
        process = start_module("rpk_group", params(bus, proxy, offsets=declared, request_timeout=60.0))
        assert proxy.held.wait(120)
        bus.remove([other], [])
        proxy.release.set()
        failed = finish_module(process)
    assert failed.failed
    assert failed.changed
    assert "2 of 5 partitions are not where they were set" in failed.msg
    assert f"{other}[0]" in failed.msg
    assert "UNKNOWN_TOPIC_OR_PART" in failed.msg
    done = {(row["topic"], row["partition"]): row["error"] for row in failed["partitions"]}
    assert [done[bus.topic, number] for number in range(PARTITIONS)] == [""] * PARTITIONS
    assert all(done[other, number] for number in range(2))
    assert bus.offsets() == AT_END


def test_member_that_joins_after_the_plan(bus: Bus) -> None:
    """The broker refuses; nothing has moved, and the result says so."""
    with KafkaProxy(HOST, PORT, hold_request=OFFSET_COMMIT) as proxy:
        # A member needs seconds to join: so long the commit is on its way.
        process = start_module("rpk_group", params(bus, proxy, request_timeout=60.0))
        assert proxy.held.wait(120)
        with consumer(bus.brokers, bus.group, bus.topic):
            proxy.release.set()
            failed = finish_module(process)
            assert bus.offsets() == AT_FOUR
    assert "the group has members" in failed.msg
    assert failed.failed
    assert not failed.changed


def counted(bus: Bus, **options: Any) -> tuple[ModuleRun, dict[str, int]]:
    """A run by a counting proxy."""
    with KafkaProxy(HOST, PORT) as proxy:
        made = run_module("rpk_group", params(bus, proxy, **options))
        assert not made.failed, made.msg
        return made, proxy.named_counts


def test_requests_do_not_grow_with_partitions(bus: Bus, unique_name: Callable[..., str], tmp_path: Path) -> None:
    """Goal P13 by count: 3 and 300 partitions cost the same; one OffsetCommit, and one reading back."""
    wide = unique_name("wide")
    bus.create(wide, 300)
    try:
        _made, few = counted(bus)
        offsets = [{"topic": wide, "to": "end"}]
        made, many = counted(bus, offsets=offsets, undo_file=str(tmp_path / "wide.json"))
        assert len(made["partitions"]) == 300
        assert few["OffsetCommit"] == many["OffsetCommit"] == 1
        assert few["OffsetFetch"] == many["OffsetFetch"] == 2
        assert few["ListOffsets"] == many["ListOffsets"] == 2
        assert sum(many.values()) <= 13
        again, idle = counted(bus, offsets=offsets, undo_file=str(tmp_path / "wide.json"))
        assert not again.changed
        assert "OffsetCommit" not in idle
        assert sum(idle.values()) <= 11
        record = json.loads((tmp_path / "wide.json").read_text())
        assert {row["before"] for row in record["offsets"]} == {None}
    finally:
        bus.remove([wide], [])
