# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a database has connections for as many replicas: each may open its whole pool.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import Refusal
from ..._common.outcome import Blocker
from ..._common.text import format_count, join_some
from ..objects import Workload

OPTION = "option connection_budget"
SERVER = "max_connections"
"""What bounds the connections where nothing narrower does."""


class SharedPool(t.NamedTuple):
    """Another workload that may open connections to the same server: how many replicas it may have, and its pool."""

    title: str
    replicas: int
    per_replica: int

    @property
    def connections(self) -> int:
        """How many connections it may open."""
        return self.replicas * self.per_replica


class ConnectionBudget(t.NamedTuple):
    """What a database server has for a workload.

    ``used_by_others`` are connections of clients that are none of the workloads here, ``reserved`` those that are kept
    free, ``per_replica`` the most that one replica opens, ``limit`` the setting that says how many there are.
    """

    maximum: int
    per_replica: int
    used_by_others: int = 0
    reserved: int = 0
    shared: tuple[SharedPool, ...] = ()
    limit: str = SERVER

    @property
    def left(self) -> int:
        """How many connections there are for the workload; below 0 where others may open more than there are."""
        return self.maximum - self.reserved - self.used_by_others - sum(pool.connections for pool in self.shared)

    @property
    def fitting(self) -> int:
        """How many replicas fit, 0 and more."""
        return max(0, self.left // self.per_replica)

    def describe(self, replicas: int) -> str:
        """Return the sum in words, for evidence and messages."""
        beside = [f"{pool.connections} of {pool.title}" for pool in self.shared]
        beside += [f"{self.used_by_others} of other clients"] if self.used_by_others else []
        beside += [f"{self.reserved} reserved"] if self.reserved else []
        words = f", beside {join_some(beside)}" if beside else ""
        who, opened = format_count(replicas, "replica"), replicas * self.per_replica
        allowed = "" if self.limit == SERVER else f" that {self.limit} allows"
        return f"{who} may open {opened} of the {self.maximum} connections of the database{allowed}{words}"


def parse_budget(option: t.Mapping[str, t.Any] | None) -> ConnectionBudget | None:
    """Return the budget of the option ``connection_budget``, without what shares it. Raises Refusal."""
    if option is None:
        return None
    least = {SERVER: 0, "pool_per_replica": 1, "used_by_others": 0, "reserved": 0}
    numbers = [(name, option[name], minimum) for name, minimum in least.items()]
    for pool in option["shared_with"] or []:
        numbers.append((f"shared_with {pool['kind']}/{pool['name']} pool_per_replica", pool["pool_per_replica"], 0))
    for name, number, minimum in numbers:
        if number < minimum:
            raise Refusal(
                obj=OPTION,
                problem=f"its {name} is {number}, which is less than {minimum}",
                next_step=f"Set it to a whole number of at least {minimum}",
            )
    return ConnectionBudget(
        maximum=option[SERVER],
        per_replica=option["pool_per_replica"],
        used_by_others=option["used_by_others"],
        reserved=option["reserved"],
        limit=option["limited_by"],
    )


def find_connection_blockers(workload: Workload, replicas: int, budget: ConnectionBudget | None) -> list[Blocker]:
    """Return what keeps the database from serving so many replicas: nothing where they fit or are no more than now."""
    if budget is None or replicas <= workload.replicas or replicas * budget.per_replica <= budget.left:
        return []
    return [make_connection_blocker(workload.title, replicas, budget)]


def make_connection_blocker(title: str, replicas: int, budget: ConnectionBudget) -> Blocker:
    """Return that so many replicas of an object do not fit, with the number that does."""
    fitting = format_count(budget.fitting, "replica")
    fits = f"{fitting} fit{'s' if budget.fitting == 1 else ''}"
    return Blocker(
        object=title,
        what=f"{budget.describe(replicas)}; {fits if budget.fitting else 'not one replica fits'}",
        holder=f"{budget.limit} {budget.maximum}",
        next_step=(
            f"Declare at most {fitting}, or lower the pool of each replica ({budget.per_replica}), or raise"
            f" {budget.limit}, or let a pooler such as PgBouncer stand between"
        ),
    )
