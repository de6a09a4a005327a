# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rights that login_user lacks: named before anything is done, with the statement that grants them. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.operations.maintenance import raise_skipped
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan import Surroundings, plan_tables
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan_indexes import Rights, find_obstacle
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.steps import Conditions, Plan

from .test_plan import INDEX, TABLE

DUE = TABLE._replace(schema="shop", dead=9000, owner="Shop Owner")


@pytest.mark.parametrize(
    ("change", "version", "grant"),
    [
        ({"may_enter": False}, 180000, "GRANT USAGE ON SCHEMA shop TO keeper"),
        ({"may_enter": False}, 140000, "GRANT USAGE ON SCHEMA shop TO keeper"),
        ({"may_vacuum": False}, 170000, "GRANT MAINTAIN ON shop.t TO keeper"),
        ({"may_vacuum": False}, 160000, 'GRANT "Shop Owner" TO keeper WITH INHERIT TRUE'),
        ({"may_vacuum": False}, 150000, 'GRANT "Shop Owner" TO keeper; ALTER ROLE keeper INHERIT'),
    ],
)
def test_a_missing_right_is_a_blocker_with_its_grant(change: dict[str, Any], version: int, grant: str) -> None:
    plan = Plan()
    server = Surroundings(version=version, user="keeper")
    conditions = Conditions(dead_tuple_ratio=0.1)
    plan_tables([DUE._replace(**change)], conditions, read_holders=list, server=server, plan=plan)
    assert plan.steps == []
    (skip,) = plan.skips
    assert skip.blocker is not None
    assert grant in skip.blocker.next_step
    with pytest.raises(OpsError, match="no permission"):
        raise_skipped(plan.skips, Outcome(), on_blocked="report")


@pytest.mark.parametrize("dropping", [True, False])
def test_an_index_in_a_schema_that_is_closed(dropping: bool) -> None:
    index = INDEX._replace(schema="shop", table_schema="shop", may_enter=False)
    obstacle = find_obstacle(index, Rights(user="keeper"), dropping=dropping)
    assert obstacle is not None
    assert (obstacle.next_step, obstacle.missing_right) == ("GRANT USAGE ON SCHEMA shop TO keeper", True)


@pytest.mark.parametrize(
    ("rights", "change", "missing"),
    [
        (Rights(sees_sessions=False), {}, True),
        (Rights(), {"may_reindex": False}, True),
        (Rights(140003), {}, False),
        (Rights(), {"exclusion": True}, False),
    ],
)
def test_only_a_right_fails_whatever_on_blocked_says(rights: Rights, change: dict[str, Any], missing: bool) -> None:
    obstacle = find_obstacle(INDEX._replace(**change), rights)
    assert obstacle is not None
    assert obstacle.missing_right is missing
