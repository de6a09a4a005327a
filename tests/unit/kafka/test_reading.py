# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lag, and the wait for a group, with a clock and pauses of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from confluent_kafka import ConsumerGroupState
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal, WaitFailed, WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kafka import protocol, reading
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.api import Group, Log, Member, TopicPartition
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.errors import unreachable


def view(state: str, *lags: int | None, members: int = 0) -> reading.GroupView:
    """A group in a state, a partition for each lag."""
    who = tuple(Member(f"m{number}", "app", "10.0.0.1") for number in range(members))
    rows = [reading.PartitionView(TopicPartition("t", n), 0, 0, lag, lag, None) for n, lag in enumerate(lags)]
    return reading.GroupView(Group("g", state, members=who, member_count=members), tuple(rows))


class World:
    """Readings one after the other, and a clock which only pauses move."""

    def __init__(self, *readings: reading.GroupView | Exception) -> None:
        self.readings = itertools.chain(readings[1:], itertools.repeat(readings[-1]))
        self.first = readings[0]
        self.now = 0.0
        self.pauses: list[float] = []
        self.told: list[Sequence[reading.GroupView]] = []

    def read(self) -> list[reading.GroupView]:
        """The next reading."""
        found = next(self.readings)
        if isinstance(found, Exception):
            raise found
        return [found]

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.pauses.append(seconds)
        self.now += seconds

    def wait(self, wanted: reading.Wanted, timeout: float = 60.0) -> None:
        """Wait in this world."""
        assert isinstance(self.first, reading.GroupView)
        deadline = Deadline(timeout, clock=lambda: self.now)
        reading.wait(self.read, [self.first], wanted, deadline, tell=self.told.append, sleep=self.sleep)


EMPTY = reading.Wanted(states=("empty",))


@given(committed=st.none() | st.integers(0, 100), log=st.tuples(st.integers(0, 50), st.integers(50, 100)))
def test_lag_counts_what_can_still_be_read(committed: int | None, log: tuple[int, int]) -> None:
    """Not what retention removed, and never below 0."""
    start, end = log
    found = reading.lag(committed, Log(start, end))
    assert found == len([offset for offset in range(start, end) if committed is None or offset >= committed])


def test_total_lag_is_unknown_where_it_is_not_known() -> None:
    """No partition, or a topic that is gone, is not a lag of 0."""
    assert view("stable").total_lag is None
    assert view("stable", 3, None).total_lag is None
    assert view("stable", 3, 4).total_lag == 7
    assert "lag is unknown" in reading.Wanted(max_lag=0).unmet(view("stable"))


def test_a_condition_that_holds_is_not_waited_for() -> None:
    """No pause, no second reading."""
    world = World(view("empty", 0))
    world.wait(EMPTY)
    assert (world.pauses, world.told) == ([], [])


def test_pauses_grow_to_a_bound() -> None:
    """Asked often at first."""
    world = World(*[view("stable", 1, members=1)] * 20, view("empty", 1))
    world.wait(EMPTY)
    assert world.pauses[:2] == [0.1, pytest.approx(0.15)]
    assert max(world.pauses) == reading.LONGEST_PAUSE
    assert world.told[-1][0].group.state == "empty"


def test_timeout_names_group_value_and_members() -> None:
    """And ends at the deadline, not a pause after it."""
    world = World(view("stable", 5, members=1))
    with pytest.raises(WaitTimeout) as caught:
        world.wait(reading.Wanted(states=("empty",), max_lag=0), timeout=3.0)
    assert world.now == pytest.approx(3.0)
    message = str(caught.value)
    assert "group g: after 3.0 s it is stable with 1 members, not empty, and its lag is 5, not 0 or less" in message
    assert "client app at 10.0.0.1 (member m0)" in message


@pytest.mark.parametrize(
    ("members", "static", "told", "not_told"),
    [
        (3, False, "(member m2)", "more"),
        (5, False, "(member m2) and 2 more", "static"),
        (1, True, "(member m0, group.instance.id i0). Members with a group.instance.id are static: they stay", "more"),
        (4, True, "(member m2, group.instance.id i2) and 1 more. Members with a group.instance.id", "m3"),
    ],
)
def test_timeout_tells_of_static_members_and_counts_the_rest(
    members: int, static: bool, told: str, not_told: str
) -> None:
    """They stay in the group until their session is over, which a wait for an empty group has to outlast."""
    who = tuple(Member(f"m{number}", "app", "10.0.0.1", f"i{number}" if static else None) for number in range(members))
    held = reading.GroupView(Group("g", "stable", members=who, member_count=members), ())
    with pytest.raises(WaitTimeout) as caught:
        World(held).wait(EMPTY, timeout=1.0)
    assert told in str(caught.value)
    assert not_told not in str(caught.value)


def test_a_missing_group_is_not_an_empty_one() -> None:
    """Unless the caller says so."""
    with pytest.raises(WaitFailed, match="no such group"):
        World(view("missing")).wait(EMPTY)
    World(view("missing")).wait(reading.Wanted(states=("empty", "missing")))
    world = World(view("missing"), view("stable", 0, members=1))
    world.wait(reading.Wanted(states=("stable",)))


def test_a_lag_that_stays_unknown_ends_the_wait_and_is_refused_in_check_mode() -> None:
    """A topic is gone; a group that has committed nothing has nothing to be unknown."""
    drained = reading.Wanted(states=("empty",), lag_known=True)
    World(view("empty", 3, 4)).wait(drained)
    World(view("empty")).wait(drained)
    with pytest.raises(WaitFailed, match="its lag is unknown, since topic t is gone"):
        World(view("empty", 3, None)).wait(drained)
    World(view("empty", 3, None)).wait(EMPTY)
    with pytest.raises(Refusal, match="topic t is gone"):
        reading.refuse_lasting([view("empty", 3, None)], drained)
    with pytest.raises(Refusal, match="no such group"):
        reading.refuse_lasting([view("missing")], drained)
    reading.refuse_lasting([view("stable", 3, members=1)], drained)
    assert reading.read_wanted({"lag_known": True, "timeout": 1.0}) == (reading.Wanted(lag_known=True), 1.0)


def test_a_group_that_rpk_cannot_see_ends_the_wait() -> None:
    """Rather than waiting for what will never be shown."""
    with pytest.raises(WaitFailed, match="client: kafka"):
        World(view("unknown")).wait(EMPTY)


def test_every_state_of_the_client_library_is_known() -> None:
    """Joining members are a rebalance, and so is a state newer than the library; a wait goes on through both."""
    states = {state.name: protocol.state_of(state.name) for state in ConsumerGroupState}
    assert states == {
        "UNKNOWN": "rebalancing",
        "PREPARING_REBALANCING": "rebalancing",
        "COMPLETING_REBALANCING": "rebalancing",
        "STABLE": "stable",
        "DEAD": "dead",
        "EMPTY": "empty",
    }
    World(view("rebalancing", 1, members=2), view("empty", 1)).wait(EMPTY)


def test_brokers_that_are_away_for_a_while_are_waited_for() -> None:
    """Up to the deadline."""
    away = unreachable("b:1", "refused")
    World(view("stable", 1, members=1), away, away, view("empty", 1)).wait(EMPTY)
    with pytest.raises(type(away), match="no broker answers"):
        World(view("stable", 1, members=1), away).wait(EMPTY, timeout=2.0)


@pytest.mark.parametrize("option", [{"timeout": 1.0}, {"max_lag": -1, "timeout": 1.0}, {"max_lag": 0, "timeout": -1.0}])
def test_conditions_that_are_none(option: dict[str, object]) -> None:
    """Refused before anything is asked."""
    with pytest.raises(Refusal, match="wait_for"):
        reading.read_wanted(option)
