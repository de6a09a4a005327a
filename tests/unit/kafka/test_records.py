# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Counting records of ranges from what a consumer is given: records, ends of logs, and both beyond the range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import OffsetRange, RecordCount, TopicPartition
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.records import RecordCounter, reader_config

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@given(
    start=st.integers(0, 20),
    size=st.integers(0, 20),
    more=st.integers(0, 5),
    holes=st.sets(st.integers(0, 45)),
)
def test_every_record_of_the_range_is_counted_once(start: int, size: int, more: int, holes: set[int]) -> None:
    """Whatever has no record, also at the range's end, and whatever follows it."""
    end = start + size
    counter = RecordCounter({T0: OffsetRange(start, end)}, None)
    visible = [offset for offset in range(start, end + more) if offset not in holes]
    for offset in visible:
        counter.add_record(T0, offset)
    counter.add_end(T0, end + more)
    assert not counter.open
    assert counter.as_counts()[T0] == RecordCount(len([offset for offset in visible if offset < end]), end)


def test_a_range_is_done_as_soon_as_it_can_be() -> None:
    """By its last record, by one beyond it, by the log's end, by the limit, or as it is empty."""
    assert RecordCounter({T0: OffsetRange(3, 5)}, None).add_record(T0, 4)
    assert RecordCounter({T0: OffsetRange(3, 5)}, None).add_record(T0, 9)
    assert RecordCounter({T0: OffsetRange(3, 5)}, None).add_end(T0, 5)
    assert RecordCounter({T0: OffsetRange(3, 5)}, 1).add_record(T0, 3)
    assert not RecordCounter({T0: OffsetRange(3, 5)}, None).add_record(T0, 3)
    assert not RecordCounter({T0: OffsetRange(5, 5)}, None).open


def test_a_log_that_may_be_read_less_far_than_the_range_says_where_it_stopped() -> None:
    """A transaction is open from there on."""
    counter = RecordCounter({T0: OffsetRange(0, 10), T1: OffsetRange(0, 10)}, None)
    counter.add_record(T0, 0)
    assert counter.describe_progress() == "1 of 20 offsets have been read in 2 partitions"
    assert counter.add_end(T0, 6)
    assert counter.as_counts()[T0] == RecordCount(1, 6)
    assert counter.open == {T1}
    assert not counter.add_record(T0, 7)
    assert counter.as_counts()[T0] == RecordCount(1, 6)


def test_the_reader_leaves_nothing_behind() -> None:
    """No commit, no reset to another place, and only what transactions have committed."""
    config = reader_config({"bootstrap.servers": "b", "sasl.password": "p"}, "g", 1)
    assert config["sasl.password"] == "p"
    assert (config["group.id"], config["isolation.level"]) == ("g", "read_committed")
    assert (config["enable.auto.commit"], config["auto.offset.reset"]) == (False, "error")
    assert "queued.min.messages" not in reader_config({}, "g", None)
