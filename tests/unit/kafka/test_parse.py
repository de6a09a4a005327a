# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Parsers of rpk's tables, against recordings of both versions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kafka import parse
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import TopicPartition
from unit.kafka.recordings import VERSIONS, cases, stdout

both = pytest.mark.parametrize("version", VERSIONS)


def recorded(*command: str) -> list[tuple[str, str]]:
    """Every (version, case) of a command which ended with exit code 0."""
    return [
        (version, name)
        for version in VERSIONS
        for name, case in cases(version).items()
        if case["argv"][: len(command)] == list(command) and case["rc"] == 0
    ]


@pytest.mark.parametrize(("version", "case"), recorded("group", "describe"))
def test_every_described_group_can_be_read(version: str, case: str) -> None:
    """No recording is misread: TOTAL-LAG is the sum of the rows, and names survive blanks and dots."""
    argv = cases(version)[case]["argv"]
    named = argv[2 : argv.index("-X")]
    described = parse.group_describe(stdout(version, case))
    assert set(described) == set(named)
    for one in described.values():
        assert all(row.partition.partition >= 0 and row.log_end is not None for row in one.partitions)


@both
def test_stable_group(version: str) -> None:
    """Members with their partitions, clients and hosts."""
    one = parse.group_describe(stdout(version, "group-describe-stable"))["billing"]
    assert (one.group.state, one.group.assignor, one.group.member_count) == ("stable", "range", 2)
    first, second = one.group.members
    assert (first.client_id, first.host, first.instance_id) == ("app-a", "127.0.0.1", None)
    assert first.assignments == (TopicPartition("orders", 0), TopicPartition("orders", 1))
    assert second.assignments == (TopicPartition("orders", 2),)
    assert [row.committed for row in one.partitions] == [7, 8, 1]
    assert [row.log_end for row in one.partitions] == [10, 8, 6]


@both
def test_empty_cells_do_not_shift_columns(version: str) -> None:
    """Rows of an empty group have no member, client or host, and ``-`` for no commit."""
    one = parse.group_describe(stdout(version, "group-describe-empty"))["reports"]
    assert one.group.members == ()
    assert {row.partition: row.committed for row in one.partitions} == {
        TopicPartition("orders", 0): 4,
        TopicPartition("orders", 1): 8,
        TopicPartition("orders", 2): None,
        TopicPartition("shipments", 0): 1,
        TopicPartition("shipments", 1): 0,
    }


@both
def test_static_members(version: str) -> None:
    """The column INSTANCE-ID is there only when a member has one."""
    members = parse.group_describe(stdout(version, "group-describe-static"))["static-pool"].group.members
    assert [(member.instance_id, member.client_id) for member in members] == [
        ("inst-1", "worker"),
        ("inst-2", "worker"),
    ]


@both
@pytest.mark.parametrize(
    ("case", "group", "state", "members"),
    [
        ("group-describe-never-seen", "never-seen", "dead", 0),
        ("group-describe-rebalancing", "rebalancing", "rebalancing", 2),
        ("group-describe-completing", "half-joined", "rebalancing", 1),
        ("group-describe-new-style", "new-style", "dead", 0),
        ("group-describe-name-with-space", "team a", "empty", 0),
    ],
)
def test_states(version: str, case: str, group: str, state: str, members: int) -> None:
    """Kafka's states as this collection's; a member that owns nothing is counted."""
    one = parse.group_describe(stdout(version, case))[group].group
    assert (one.state, one.member_count) == (state, members)


@both
def test_error_column(version: str) -> None:
    """A deleted topic under a live member."""
    one = parse.group_describe(stdout(version, "group-describe-doomed-live"))["doomed-live"]
    assert all(row.error.startswith("UNKNOWN_TOPIC_OR_PARTITION") for row in one.partitions)


def test_group_list_has_states_in_the_newer_version_only() -> None:
    """Both list groups of the new protocol, of which ``group describe`` says Dead."""
    old = {row.name: row.state for row in parse.group_list(stdout("23.3", "group-list"))}
    new = {row.name: row.state for row in parse.group_list(stdout("24.3", "group-list"))}
    assert old["new-style"] is None
    assert new["new-style"] == "Stable"
    assert "team a" in old
    assert "team a" in new
    assert "never-seen" not in {*old, *new}


@pytest.mark.parametrize(("version", "case"), recorded("group", "seek"))
def test_seek_shows_no_error_exactly_where_the_offset_was_set(version: str, case: str) -> None:
    """Against what another client saw: an empty ERROR is a changed offset, whatever CURRENT-OFFSET says."""
    answered = parse.group_seek(stdout(version, case))
    observed: dict[str, Any] = cases(version)[case].get("observed") or {"after": {"offsets": {}}}
    after = observed["after"]["offsets"]
    for partition, error in answered.items():
        if error and "before" in observed:
            key = f"{partition.topic}:{partition.partition}"
            assert after.get(key) == observed["before"]["offsets"].get(key)


@both
def test_seek_of_a_live_group_is_refused_with_exit_code_0(version: str) -> None:
    """The case for which exit codes are never trusted."""
    assert cases(version)["seek-live"]["rc"] == 0
    assert all(
        error.startswith("INVALID_OPERATION") for error in parse.group_seek(stdout(version, "seek-live")).values()
    )


@both
def test_seek_half_done(version: str) -> None:
    """The good line is committed although its row shows -1."""
    answered = parse.group_seek(stdout(version, "seek-file-unknown-topic"))
    assert answered[TopicPartition("orders", 0)] == ""
    assert answered[TopicPartition("not-created", 0)].startswith("UNKNOWN_TOPIC_OR_PARTITION")


@both
def test_topics(version: str) -> None:
    """A missing topic has 0 partitions in rpk's table, and none here."""
    assert parse.topic_list(stdout(version, "topic-list-two-one-missing")) == {"not-created": None, "orders": 3}
    assert parse.topic_partitions("orders", stdout(version, "topic-describe-partitions")) == {
        TopicPartition("orders", 0): (0, 10),
        TopicPartition("orders", 1): (0, 8),
        TopicPartition("orders", 2): (0, 6),
    }
    assert len(parse.topic_partitions("clicks", stdout(version, "topic-describe-partitions-64"))) == 64
    assert parse.topic_partitions("x", stdout(version, "topic-describe-missing-partitions")) == {}


@both
def test_small_answers(version: str) -> None:
    """One word, one record."""
    assert parse.cluster_id(stdout(version, "cluster-info-cluster")) == stdout(version, "cluster-info-cluster").strip()
    assert parse.consumed_offset("0 3\n") == 3
    assert parse.consumed_offset("") is None
    with pytest.raises(parse.ParseError):
        parse.consumed_offset(stdout(version, "consume-timestamp-to-end"))


@both
@pytest.mark.parametrize(
    ("reader", "case"),
    [
        (parse.group_list, "refused-group-list"),
        (parse.topic_list, "refused-topic-list"),
        (parse.group_describe, "refused-group-describe"),
        (parse.group_seek, "refused-group-seek-file"),
        (parse.cluster_id, "refused-cluster-info"),
        (parse.group_seek, "seek-bad-word"),
        (parse.topic_list, "group-list"),
        (parse.group_list, "topic-list"),
    ],
)
def test_what_is_not_the_answer_is_refused(version: str, reader: Any, case: str) -> None:
    """Errors come on either stream, and on standard output they must not be taken for a table."""
    with pytest.raises(parse.ParseError):
        reader(stdout(version, case))


@both
@given(cut=st.integers(min_value=0))
def test_a_described_group_cut_short_is_never_read_as_one_with_less_lag(version: str, cut: int) -> None:
    """A stream from a pod may end early: the lag that is read is the right one, or the text is refused."""
    text = stdout(version, "group-describe-stable")
    short = text[: cut % len(text)]
    try:
        described = parse.group_describe(short)
    except parse.ParseError:
        return
    assert sum((row.log_end or 0) - (row.committed or 0) for row in described["billing"].partitions) == 8
