# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many replicas the connections of a database bear, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints.connections import (
    ConnectionBudget,
    SharedPool,
    find_connection_blockers,
    parse_budget,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from support.memory_controllers import describe_workload

OPTION: dict[str, Any] = {
    "max_connections": 100,
    "limited_by": "max_connections",
    "pool_per_replica": 20,
    "used_by_others": 17,
    "reserved": 3,
    "shared_with": [],
}


def make_workload(replicas: int) -> Workload:
    """Return a Deployment of so many replicas."""
    return Workload.from_object(describe_workload("Deployment", "api", replicas))


def test_a_narrower_limit_than_that_of_the_server_is_named() -> None:
    """In the sum, as what holds, and as what may be raised; 0 is a limit."""
    limit = "datconnlimit of database shop"
    budget = parse_budget({**OPTION, "limited_by": limit, "max_connections": 30, "reserved": 0, "used_by_others": 0})
    (blocker,) = find_connection_blockers(make_workload(0), 2, budget)
    assert blocker.what == (
        f"2 replicas may open 40 of the 30 connections of the database that {limit} allows; 1 replica fits"
    )
    assert blocker.holder == f"{limit} 30"
    assert f"or raise {limit}, or" in blocker.next_step
    closed = parse_budget({**OPTION, "limited_by": limit, "max_connections": 0})
    (blocker,) = find_connection_blockers(make_workload(0), 1, closed)
    assert blocker.what.endswith("not one replica fits")


def test_what_does_not_fit_is_named_with_the_number_that_does() -> None:
    """80 connections are left: four pools of twenty, exactly."""
    budget = parse_budget(OPTION)
    assert find_connection_blockers(make_workload(2), 4, budget) == []
    blockers = find_connection_blockers(make_workload(2), 5, budget)
    assert [blocker.what for blocker in blockers] == [
        "5 replicas may open 100 of the 100 connections of the database, beside 17 of other clients, 3 reserved;"
        " 4 replicas fit"
    ]
    assert blockers[0].next_step.startswith("Declare at most 4 replicas, or lower the pool of each replica (20)")


def test_others_count_with_their_whole_pools() -> None:
    """Also where nothing is left for one replica."""
    budget = ConnectionBudget(100, 20, shared=(SharedPool("StatefulSet n/w", 5, 19),))
    blockers = find_connection_blockers(make_workload(0), 1, budget)
    assert "95 of StatefulSet n/w" in blockers[0].what
    assert blockers[0].what.endswith("not one replica fits")


def test_fewer_and_as_many_as_now_are_not_refused() -> None:
    """They do not make it worse; and without a budget nothing is."""
    full = ConnectionBudget(10, 20)
    workload = make_workload(3)
    assert [find_connection_blockers(workload, replicas, full) for replicas in (1, 3)] == [[], []]
    assert find_connection_blockers(workload, 1000, None) == []
    assert parse_budget(None) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_connections", -1, "its max_connections is -1, which is less than 0"),
        ("pool_per_replica", 0, "its pool_per_replica is 0, which is less than 1"),
        ("used_by_others", -1, "its used_by_others is -1"),
        ("reserved", -5, "its reserved is -5"),
        ("shared_with", [{"kind": "Deployment", "name": "x", "pool_per_replica": -1}], "Deployment/x pool_per_replica"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(name: str, value: Any, words: str) -> None:
    """Each by its name and value."""
    with pytest.raises(Refusal, match=words):
        parse_budget({**OPTION, name: value})


@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 200), st.integers(0, 20), st.integers(0, 9))
def test_the_number_that_fits_fits_and_one_more_does_not(
    maximum: int, pool: int, used: int, replicas: int, other: int
) -> None:
    """Whatever the numbers are."""
    budget = ConnectionBudget(maximum, pool, used, 3, (SharedPool("Deployment n/o", replicas, other),))
    spent = used + 3 + replicas * other
    workload = make_workload(0)
    assert budget.fitting == 0 or budget.fitting * pool + spent <= maximum
    assert (budget.fitting + 1) * pool + spent > maximum
    assert find_connection_blockers(workload, budget.fitting + 1, budget)
    assert budget.fitting == 0 or not find_connection_blockers(workload, budget.fitting, budget)
