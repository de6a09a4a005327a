# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lag, and the wait for groups, with a clock and pauses of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import (
    OpsError,
    Refusal,
    WaitFailed,
    WaitTimeout,
)
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import wait
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import (
    Group,
    Member,
    OffsetRange,
    TopicPartition,
    UnknownState,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.errors import (
    BusUnsupportedError,
    not_allowed,
    not_ready,
    unreachable,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.groups import (
    GroupReading,
    compute_lag,
    read_groups,
    read_partition,
)
from unit.kafka.memory_bus import T0, T1, MemoryBus

EMPTY = wait.Condition(states=("empty",))
DRAINED = wait.Condition(states=("empty",), lag_known=True)
CAUGHT_UP = wait.Condition(max_lag=0)


def reading(state: str, *lags: int | None, members: int = 0) -> GroupReading:
    """A group in a state, a partition for each lag; None is one of a topic that is gone."""
    who = tuple(Member(f"m{number}", "app", "10.0.0.1") for number in range(members))
    rows = [
        read_partition(TopicPartition("t", n), 0, None if lag is None else OffsetRange(0, lag), None)
        for n, lag in enumerate(lags)
    ]
    return GroupReading(Group("g", state, members=who, member_count=members), tuple(rows))


class World:
    """Readings one after the other, the last one for good, and a clock which only pauses move."""

    def __init__(self, *readings: GroupReading | Exception) -> None:
        self.readings = list(readings)
        self.now = 0.0
        self.pauses: list[float] = []
        self.told: list[Sequence[GroupReading]] = []

    def read(self) -> list[GroupReading]:
        """The next reading."""
        answer = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.pauses.append(seconds)
        self.now += seconds

    def wait(
        self,
        condition: wait.Condition,
        timeout: float = 60.0,
        *,
        bus: MemoryBus | None = None,
        read: Callable[[], list[GroupReading]] | None = None,
    ) -> list[GroupReading]:
        """Wait in this world, or for what a bus in memory tells of its group."""
        deadline = Deadline(timeout, clock=lambda: self.now, sleep=self.sleep)
        tails = wait.Tails(bus or MemoryBus())
        look = read or ((lambda: read_groups(bus, ["g"])) if bus else self.read)
        return wait.wait_for_groups(look, condition, deadline, tails=tails, tell=self.told.append)


@given(committed=st.none() | st.integers(0, 100), log=st.tuples(st.integers(0, 50), st.integers(50, 100)))
def test_lag_counts_what_can_still_be_read(committed: int | None, log: tuple[int, int]) -> None:
    """Not what retention removed, and nothing that is known of a commit beyond the log."""
    start, end = log
    lag = compute_lag(committed, OffsetRange(start, end))
    left = len([offset for offset in range(start, end) if committed is None or offset >= committed])
    assert lag == (None if committed is not None and committed > end else left)


@pytest.mark.parametrize(
    ("committed", "log", "lag", "lost", "beyond_end"),
    [
        (4, (0, 10), 6, 0, 0),
        (None, (3, 10), 7, 0, 0),
        (3, (100, 110), 10, 97, 0),
        (3, (110, 110), 0, 107, 0),
        (5000, (0, 10), None, 0, 4990),
        (10, (0, 10), 0, 0, 0),
    ],
)
def test_a_commit_outside_of_the_log_is_told(
    committed: int | None, log: tuple[int, int], lag: int | None, lost: int, beyond_end: int
) -> None:
    """What retention took before it was read is no small lag, and a commit that no record reaches is no lag of 0."""
    row = read_partition(T0, committed, OffsetRange(*log), None)
    assert (row.lag, row.lost, row.beyond_end) == (lag, lost, beyond_end)
    entry = GroupReading(Group("g", "empty"), (row,)).as_dict()["partitions"][0]
    assert (entry["topic"], entry["partition"], entry["lost"], entry["beyond_end"]) == ("t", 0, lost, beyond_end)


def test_total_lag_is_unknown_where_it_is_not_known() -> None:
    """No partition, or a topic that is gone, is not a lag of 0."""
    assert reading("stable").total_lag is None
    assert reading("stable", 3, None).total_lag is None
    assert reading("stable", 3, 4).total_lag == 7
    assert "its lag is unknown, not 0 or less" in CAUGHT_UP.explain_unmet(reading("stable"))
    assert CAUGHT_UP.explain_unmet(reading("stable", None)) == "its lag is unknown, since topic t is gone"


def test_a_condition_that_holds_is_not_waited_for() -> None:
    """No pause, one reading."""
    world = World(reading("empty", 0))
    assert world.wait(EMPTY) == [reading("empty", 0)]
    assert (world.pauses, len(world.told)) == ([], 1)


def test_pauses_grow_to_a_bound() -> None:
    """Asked often at first."""
    world = World(*[reading("stable", 1, members=1)] * 20, reading("empty", 1))
    world.wait(EMPTY)
    assert world.pauses[:2] == [0.1, pytest.approx(0.15)]
    assert max(world.pauses) == wait.LONGEST_PAUSE
    assert world.told[-1][0].group.state == "empty"


def test_timeout_names_group_value_and_members() -> None:
    """And ends at the deadline, not a pause after it."""
    world = World(reading("stable", 5, members=1))
    with pytest.raises(WaitTimeout) as caught:
        world.wait(wait.Condition(states=("empty",), max_lag=0), timeout=3.0)
    assert world.now == pytest.approx(3.0)
    message = str(caught.value)
    assert "group g: after 3.0 s it is stable with 1 members, not empty, and its lag is 5, not 0 or less" in message
    assert "client app at 10.0.0.1 (member m0)" in message


@pytest.mark.parametrize(
    ("members", "static", "told", "not_told"),
    [
        (3, False, "(member m2)", "more"),
        (5, False, "(member m2) and 2 more", "static"),
        (1, True, "i0 is a static member (group.instance.id): a consumer that was stopped stays in the group", "more"),
        (4, True, "(member m2, group.instance.id i2) and 1 more. i0, i1, i2, i3 are static members", "m3"),
    ],
)
def test_timeout_tells_of_static_members_and_counts_the_rest(
    members: int, static: bool, told: str, not_told: str
) -> None:
    """They stay in the group until their session ends, which a wait for an empty group has to outlast."""
    who = tuple(Member(f"m{number}", "app", "10.0.0.1", f"i{number}" if static else None) for number in range(members))
    held = GroupReading(Group("g", "stable", members=who, member_count=members), ())
    with pytest.raises(WaitTimeout) as caught:
        World(held).wait(EMPTY, timeout=1.0)
    assert told in str(caught.value)
    assert not_told not in str(caught.value)
    assert ("session.timeout.ms after its last heartbeat" in str(caught.value)) == static


def test_a_missing_group_is_not_an_empty_one() -> None:
    """Unless the caller says so."""
    with pytest.raises(WaitFailed, match="no such group"):
        World(reading("missing")).wait(EMPTY)
    World(reading("missing")).wait(wait.Condition(states=("empty", "missing")))
    world = World(reading("missing"), reading("stable", 0, members=1))
    world.wait(wait.Condition(states=("stable",)))


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (reading("stable", members=2), "it was stable with 2 members and 0 committed offsets"),
        (reading("empty"), "it was empty with 0 members and 0 committed offsets"),
        (reading("dead"), "it was rebalancing with 1 member and 0 committed offsets"),
    ],
)
@pytest.mark.parametrize("condition", [EMPTY, DRAINED])
def test_a_group_that_the_broker_removes_during_the_wait_is_drained(
    before: GroupReading, told: str, condition: wait.Condition
) -> None:
    """Brokers remove a group that has committed nothing once its last member has left; the answer says so."""
    world = World(reading("rebalancing", members=1), before, reading("missing"))
    if before.group.state == "empty":
        world.readings = [before, reading("missing")]  # offsets that stand still are waited for until it is removed
        condition = condition._replace(idle_for=1.0)
    (drained,) = world.wait(condition)
    assert drained.group.state == "missing"
    assert drained.removed == f"{told} earlier in this wait, and has been removed since"
    assert drained.as_dict()["reason"] == drained.removed
    assert world.told[-1] == [drained]


def test_a_removed_group_is_told_with_the_offsets_that_it_had() -> None:
    """Those went with it; it is read again through brokers that are away."""
    (drained,) = World(reading("stable", 3, members=1), unreachable("b:1", "x"), reading("missing")).wait(EMPTY)
    assert drained.removed.startswith("it was stable with 1 member and 1 committed offset ")


def test_a_group_that_is_removed_is_not_what_other_conditions_wait_for() -> None:
    """It is not stable, and with its offsets went what its lag was."""
    with pytest.raises(WaitTimeout, match="it is missing with 0 members"):
        World(reading("stable", 3, members=1), reading("missing")).wait(wait.Condition(("stable",), max_lag=0), 5.0)
    with pytest.raises(WaitFailed, match="its lag is unknown, since it was stable with 1 member ") as caught:
        World(reading("stable", 3, members=1), reading("missing")).wait(wait.Condition(("empty",), max_lag=0))
    assert "no such group" not in str(caught.value)


def test_a_group_of_another_name_or_kind_says_nothing_of_a_missing_one() -> None:
    """Each name is judged by itself, and what could not be told was no sighting."""
    other = GroupReading(Group("h", "empty"), ())
    with pytest.raises(WaitFailed, match="group g: there is no such group"):
        World().wait(EMPTY, read=lambda: [other, reading("missing")])
    with pytest.raises(WaitFailed, match="no such group"):
        World(reading("unknown"), reading("missing")).wait(EMPTY)


def test_a_lag_that_stays_unknown_ends_the_wait_and_is_refused_in_check_mode() -> None:
    """A topic is gone; a group that has committed nothing has nothing to be unknown."""
    World(reading("empty", 3, 4)).wait(DRAINED)
    World(reading("empty")).wait(DRAINED)
    with pytest.raises(WaitFailed, match="its lag is unknown, since topic t is gone"):
        World(reading("empty", 3, None)).wait(DRAINED)
    World(reading("empty", 3, None)).wait(EMPTY)
    with pytest.raises(Refusal, match="topic t is gone"):
        wait.refuse_lasting([reading("empty", 3, None)], DRAINED)
    with pytest.raises(Refusal, match="no such group"):
        wait.refuse_lasting([reading("missing")], DRAINED)
    wait.refuse_lasting([reading("stable", 3, members=1)], DRAINED)
    assert wait.read_condition({"lag_known": True, "timeout": 1.0}) == (wait.Condition(lag_known=True), 1.0)


@pytest.mark.parametrize("condition", [DRAINED, wait.Condition(states=("empty",), max_lag=100)])
def test_a_commit_beyond_the_log_is_no_proof_of_a_drain(condition: wait.Condition) -> None:
    """Nobody can mend it in an empty group; members of a living one may."""
    bus = MemoryBus()
    bus.offsets["g"][T1] = 5000
    with pytest.raises(WaitFailed, match=r"it has committed 5000 in t\[1\], beyond the log's end 10") as caught:
        World().wait(condition, bus=bus)
    assert "rpk_group" in caught.value.next_step
    with pytest.raises(Refusal, match="beyond the log's end"):
        wait.refuse_lasting(read_groups(bus, ["g"]), condition)
    bus.state["g"] = Group("g", "stable", member_count=1)
    with pytest.raises(WaitTimeout, match="beyond the log's end 10"):
        World().wait(wait.Condition(max_lag=100), 5.0, bus=bus)


def test_what_retention_took_counts_as_lag() -> None:
    """With the place; a limit that allows for it is met; an empty group will not pass it any more."""
    bus = MemoryBus()
    bus.offsets["g"] = {T0: 3, T1: 110}
    bus.ranges = {T0: OffsetRange(110, 110), T1: OffsetRange(0, 110)}
    lost = r"107 offsets that it had not passed are no longer in the log \(first in t\[0\]: committed 3, the log starts at 110"
    with pytest.raises(WaitFailed, match=lost):
        World().wait(CAUGHT_UP, bus=bus)
    World().wait(wait.Condition(max_lag=107), bus=bus)
    bus.state["g"] = Group("g", "stable", member_count=1)
    with pytest.raises(WaitTimeout, match="its lag is 0, not 0 or less, and 107 offsets"):
        World().wait(CAUGHT_UP, 5.0, bus=bus)


def test_a_group_that_cannot_be_seen_ends_the_wait_by_its_own_reason() -> None:
    """Rather than waiting for what will never be shown; a state without a name may get one."""
    blind = UnknownState("rpk cannot tell", "Use client: kafka")
    with pytest.raises(WaitFailed, match=r"rpk cannot tell\. Use client: kafka"):
        World(GroupReading(Group("g", "unknown", unknown=blind), ())).wait(EMPTY)
    World(reading("unknown"), reading("empty", 1)).wait(EMPTY)
    with pytest.raises(WaitTimeout, match=r"it is unknown with 0 members .its state is not told., not empty"):
        World(reading("unknown")).wait(EMPTY, 2.0)


def test_a_rebalance_is_waited_for() -> None:
    """Each group of a real broker passes through it, for the first 3 s by default."""
    World(reading("rebalancing", 1, members=2), reading("empty", 1)).wait(EMPTY)


@pytest.mark.parametrize(
    "passing",
    [unreachable("b:1", "refused"), not_ready("b:1", "reading", "COORDINATOR_LOAD_IN_PROGRESS, loading")],
    ids=["unreachable", "not ready"],
)
def test_brokers_that_are_away_or_not_ready_are_waited_for(passing: OpsError) -> None:
    """From the first look on, up to the deadline; then the wait says what it last saw."""
    World(passing, reading("stable", 1, members=1), passing, passing, reading("empty", 1)).wait(EMPTY)
    for answers in ([passing], [reading("stable", 1, members=1), passing]):
        with pytest.raises(WaitTimeout) as caught:
            World(*answers).wait(EMPTY, timeout=2.0)
        assert f"event bus b:1: after 2.0 s {passing.problem}" in str(caught.value)


def test_a_denial_ends_the_wait() -> None:
    """Credentials do not get better by waiting."""
    denied = not_allowed("b:1", "bad password")
    world = World(reading("stable", 1, members=1), denied)
    with pytest.raises(type(denied), match="bad password"):
        world.wait(EMPTY)
    assert world.now < 1


def test_control_records_behind_the_last_record_are_no_lag() -> None:
    """A consumer that commits the offset after its last record stays one behind the end of each transaction's log."""
    bus = MemoryBus()
    bus.offsets["g"] = {T0: 9, T1: 10}
    bus.control_records = {(T0, 9)}
    (done,) = World().wait(CAUGHT_UP, bus=bus)
    assert [row.lag for row in done.partitions] == [0, 0]
    assert (done.partitions[0].committed, done.partitions[0].log_end) == (9, 10)
    assert bus.calls.count("count_records") == 1


def test_a_partition_of_control_records_only_has_no_lag_without_a_commit() -> None:
    """All of its transactions were aborted, so there was nothing to commit."""
    bus = MemoryBus()
    bus.offsets["g"] = {T1: 10}
    bus.ranges[T0] = OffsetRange(0, 2)
    bus.control_records = {(T0, 0), (T0, 1)}
    (done,) = World().wait(CAUGHT_UP, bus=bus)
    assert done.total_lag == 0


def test_a_record_that_is_left_is_looked_for_once_per_commit() -> None:
    """While a group does not move, its logs are not read again and again."""
    bus = MemoryBus()
    with pytest.raises(WaitTimeout, match="its lag is 12, not 0 or less"):
        World().wait(CAUGHT_UP, 30.0, bus=bus)
    assert bus.calls.count("committed") > 10
    assert bus.calls.count("count_records") == 1


def test_a_group_that_works_off_its_backlog_is_not_read_after() -> None:
    """Its commits move between two looks, so nothing has to be read to know that it goes on."""
    bus = MemoryBus()
    bus.offsets["g"] = {T0: 0, T1: 10}

    def work(question: str) -> None:
        if question == "committed" and bus.offsets["g"][T0] < 10:
            bus.offsets["g"][T0] += 1

    bus.on_call = work
    World().wait(CAUGHT_UP, bus=bus)
    assert "count_records" not in bus.calls


def test_the_last_look_reads_what_it_has_not_read_yet() -> None:
    """A wait of 0 s has one look only."""
    bus = MemoryBus()
    bus.offsets["g"] = {T0: 9, T1: 10}
    bus.control_records = {(T0, 9)}
    World().wait(CAUGHT_UP, 0.0, bus=bus)


def test_an_open_transaction_is_lag_and_is_named() -> None:
    """Its records may still come."""
    bus = MemoryBus()
    bus.offsets["g"] = {T0: 8, T1: 10}
    bus.last_stable = {T0: 8}
    with pytest.raises(WaitTimeout, match=r"its lag is 2.*a transaction is open in t\[0\] from offset 8 on"):
        World().wait(CAUGHT_UP, 5.0, bus=bus)


@pytest.mark.parametrize(
    "error",
    [
        not_allowed("b:1", "TOPIC_AUTHORIZATION_FAILED"),
        BusUnsupportedError(obj="b", problem="client: rpk cannot count", next_step="x"),
    ],
)
def test_who_may_not_read_the_topic_is_told_why_the_lag_stays(error: OpsError) -> None:
    """The lag of offsets is what there is then, and is asked for no more."""
    bus = MemoryBus()
    bus.offsets["g"] = {T0: 9, T1: 10}
    bus.control_records = {(T0, 9)}
    bus.fail("count_records", *[error] * 50)
    with pytest.raises(WaitTimeout) as caught:
        World().wait(CAUGHT_UP, 5.0, bus=bus)
    assert "its lag is 1, not 0 or less (whether that is of control records" in str(caught.value)
    assert error.problem in str(caught.value)
    assert bus.calls.count("count_records") == 1


def test_a_consumer_that_is_no_member_is_found_by_its_commits() -> None:
    """Its group is empty while it reads; only its offsets tell."""
    bus = MemoryBus()
    busy = [True]

    def work(question: str) -> None:
        if question == "committed" and busy:
            bus.offsets["g"][T0] += 1

    bus.on_call = work
    bus.ranges[T0] = OffsetRange(0, 10_000)
    quiet = wait.Condition(states=("empty",), idle_for=10.0)
    with pytest.raises(WaitTimeout, match=r"stood still for 0\.0 s, not for 10 s") as caught:
        World().wait(quiet, 30.0, bus=bus)
    assert "assigns partitions to itself" in caught.value.next_step
    busy.clear()
    world = World()
    world.wait(quiet, 30.0, bus=bus)
    assert 10 <= world.now < 13


@pytest.mark.parametrize(
    "option",
    [
        {"timeout": 1.0},
        {"max_lag": -1, "timeout": 1.0},
        {"max_lag": 0, "timeout": -1.0},
        {"idle_for": -1.0, "timeout": 1.0},
        {"idle_for": 2.0, "timeout": 1.0},
    ],
)
def test_conditions_that_are_none(option: dict[str, object]) -> None:
    """Refused before anything is asked."""
    with pytest.raises(Refusal, match="wait_for"):
        wait.read_condition(option)
