# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is near wraparound all the same: tables that were frozen in vain, and those that nobody looks at. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.holders import XminHolder
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.steps import Conditions, Phase, Plan, Step
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.unfrozen import Unfrozen, plan_unfrozen
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.verify import make_remaining_skip

STEP = Step(
    phase=Phase.FREEZE, table=1, oid=1, schema="public", name="t", display_name="table public.t", action="VACUUM (FREEZE)",
    unmet={"transaction_id_age": "its oldest transaction id is 900 old"}, priority=1.0, size=1, estimate=1.0, vacuum=True,
)  # fmt: skip
TEMPORARY = Unfrozen(5, "pg_temp_3", "t", True, 900, 0, "pid 7, user app")
CATALOG = Unfrozen(6, "pg_catalog", "pg_largeobject", False, 900, 0, None)


@pytest.mark.parametrize(("sees_sessions", "advice"), [(True, "Run again"), (False, "GRANT pg_read_all_stats")])
def test_a_freeze_that_lowered_nothing_is_no_success(sees_sessions: bool, advice: str) -> None:
    skip = make_remaining_skip(STEP, None, sees_sessions=sees_sessions)
    assert skip.is_danger
    assert skip.blocker is not None
    assert "900 old" in skip.blocker.what
    assert advice in skip.blocker.next_step


@pytest.mark.parametrize(("age", "holder"), [(501, "perhaps prepared transaction 'x'"), (500, "has ended since")])
def test_what_is_there_has_not_ended(age: int, holder: str) -> None:
    """Of the limit that the table does not meet, only what is older can be the cause."""
    oldest = XminHolder(
        "a prepared transaction", "prepared transaction 'x'", None, None, None, age, 5, False, "ROLLBACK"
    )
    skip = make_remaining_skip(STEP, oldest, sees_sessions=True, limit=500)
    assert skip.is_danger
    assert skip.blocker is not None
    assert holder in skip.blocker.holder
    assert skip.blocker.next_step == ("ROLLBACK" if age > 500 else "Run again")


def test_a_table_that_is_written_to_is_due_again_without_danger() -> None:
    step = STEP._replace(unmet={"dead_tuple_ratio": "20 %"})
    skip = make_remaining_skip(step, None, sees_sessions=True)
    assert (skip.is_danger, skip.blocker) == (False, None)
    assert skip.reason.endswith("it is being written to, or held")


def test_who_may_hold_what_is_due_again_is_named_and_is_no_blocker_yet() -> None:
    """Nothing proves it before a VACUUM (FREEZE); rows that are no more than changed are held by nobody."""
    slot = XminHolder("its catalog_xmin", "replication slot s", None, None, None, 135, 5, True, "Drop it")
    step = STEP._replace(unmet={"dead_tuple_ratio": "20 %"})
    skip = make_remaining_skip(step, slot, sees_sessions=True)
    assert skip.blocker is None
    assert skip.reason.endswith("perhaps by replication slot s (its catalog_xmin, 135 transactions old)")
    changed = make_remaining_skip(STEP._replace(unmet={"changed_tuple_ratio": "20 %"}), slot, sees_sessions=True)
    assert "perhaps" not in changed.reason


def plan_for(*relations: Unfrozen, assessed: frozenset[int] = frozenset(), **ages: Any) -> Plan:
    """Return the plan with what is found too old, of a server that freezes by itself from 1000 on."""
    plan = Plan()
    limits = {"freeze_max_age": 1000, "multixact_freeze_max_age": 2000, **ages}
    plan_unfrozen(relations, assessed, Conditions(transaction_id_age=500), plan=plan, **limits)
    return plan


def test_a_temporary_table_is_named_with_its_session() -> None:
    """Nobody but the session can freeze it, autovacuum least of all."""
    (skip,) = plan_for(TEMPORARY, TEMPORARY._replace(oid=7, name="u")).skips
    assert skip.is_danger
    assert skip.display_name == "temporary table pg_temp_3.t"
    assert skip.blocker is not None
    assert skip.blocker.holder == "pid 7, user app"
    (unknown,) = plan_for(TEMPORARY._replace(session=None)).skips
    assert "pg_temp_3, or nobody any more" in unknown.reason
    assert unknown.blocker is not None
    assert "DROP TABLE pg_temp_3.t as a superuser" in unknown.blocker.next_step


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, False),  # the server has time left to freeze it by itself
        ({"xid_age": 1001}, True),
        ({"multixact_age": 2001}, True),
        ({"multixact_age": 1500}, False),
        ({"schema": "public", "xid_age": 1001}, True),
    ],
)
def test_what_the_server_should_have_frozen_is_named(change: dict[str, Any], named: bool) -> None:
    relation = CATALOG._replace(**change)
    plan = plan_for(relation)
    assert [skip.is_danger for skip in plan.skips] == [True] * named
    assert plan_for(relation, assessed=frozenset({6})).skips == []
