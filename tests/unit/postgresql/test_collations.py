# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Collations of another version: what is rebuilt, and what is only named. Pure."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import names
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.arguments import Scope
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.collations import (
    Collation,
    fit_collations,
    plan_collations,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan_indexes import (
    REINDEX,
    Rights,
    make_index_step,
    warn_of_remains,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.scope import find_unmatched
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.steps import Conditions, Phase, Plan

from .test_plan import INDEX, TABLE

COLLATION = Collation(50, "public", "mine", "1", "2", True, [INDEX.oid], [])
IDLE = [COLLATION._replace(oid=oid, name=f"c{oid}", indexes=[], may_alter=False) for oid in range(100, 900)]


def planned(mode: str, *collations: Collation) -> Plan:
    """Return what is planned for them."""
    plan = Plan()
    conditions = Conditions(collation_versions=mode)
    plan_collations(list(collations), [INDEX], conditions, rights=Rights(), block_size=8192, plan=plan)
    return plan


def test_all_indexes_are_rebuilt_before_the_version_is_noted() -> None:
    assert [step.phase for step in planned("refresh", COLLATION).steps] == [Phase.COLLATION, Phase.REFRESH]


def test_a_version_is_not_noted_where_tables_are_divided_by_it() -> None:
    """It would hide that rows are in the wrong partition."""
    plan = planned("refresh", COLLATION._replace(partitioned=["public.customers"]))
    assert plan.steps == []
    (skip,) = plan.skips
    assert skip.blocker is not None
    assert "public.customers" in skip.blocker.what
    assert "Move the rows of public.customers" in skip.blocker.next_step


@pytest.mark.parametrize(
    ("budget", "done"),
    [(None, ["a", "b"]), (1000.0, ["a", "b"]), (0.05, ["b"]), (0.001, [])],
)
def test_what_cannot_be_finished_in_the_time_is_not_begun(budget: float | None, done: list[str]) -> None:
    """The version is noted when all have been rebuilt in one run, so each run would begin anew."""
    small = INDEX._replace(oid=90, name="small", pages=10)
    collations = [
        COLLATION._replace(oid=50, name="a", indexes=[INDEX.oid, 90]),
        COLLATION._replace(oid=51, name="b", indexes=[90]),
    ]
    plan = Plan()
    plan_collations(
        collations,
        [INDEX, small],
        Conditions(collation_versions="refresh"),
        rights=Rights(),
        block_size=8192,
        plan=plan,
    )
    fit_collations(plan, collations, budget=budget, jobs=1)
    assert [step.name for step in plan.steps if step.phase == Phase.REFRESH] == done
    rebuilt = {step.oid for step in plan.steps if step.phase == Phase.COLLATION}
    assert rebuilt == {oid for collation in collations if collation.name in done for oid in collation.indexes}
    assert [skip.display_name for skip in plan.skips] == [
        f"collation public.{name}" for name in ("b", "a") if name not in done
    ]
    assert all(skip.blocker and "in one run" in skip.blocker.what for skip in plan.skips)


@pytest.mark.parametrize("mode", ["report", "refresh"])
def test_collations_without_an_index_are_one_line(mode: str) -> None:
    """An update of ICU changes 800 at once."""
    plan = planned(mode, *IDLE)
    assert [skip.display_name for skip in plan.skips] == ["collation public.c100 and 799 more"]
    assert not plan.skips[0].missing_right
    own = planned("refresh", IDLE[0]._replace(may_alter=True))
    assert [step.phase for step in own.steps] == [Phase.REFRESH]


@pytest.mark.parametrize(
    ("exclude", "says"),
    [
        ("public.AuditLog", 'Did you mean public."AuditLog"?'),  # folded to lower case
        ("orderz", "Did you mean public.orders?"),
        ("zzzzzz", "there is no such table. Correct exclude"),
        ("orders", None),
    ],
)
def test_an_exclude_that_means_no_table_is_said(exclude: str, says: str | None) -> None:
    tables = [TABLE._replace(oid=1, name="AuditLog"), TABLE._replace(oid=2, name="orders")]
    scope = Scope(None, None, [names.parse_name(exclude, option="exclude")], False)
    warnings = find_unmatched(tables, scope, target="db")
    assert len(warnings) == (says is not None)
    assert says is None or says in warnings[0]


def test_what_could_not_be_dropped_is_said_before_it_is_built() -> None:
    """MAINTAIN lets an index be rebuilt, and not be dropped."""
    other = INDEX._replace(may_drop=False)
    steps = [make_index_step(other, phase=Phase.BLOAT, unmet={}, priority=1.0, block_size=8192)]
    assert steps[0].action == REINDEX
    (warning,) = warn_of_remains(steps, [other], user="keeper")
    assert "GRANT the role that owns public.t TO keeper" in warning
    assert warn_of_remains(steps, [INDEX], user="keeper") == []
    assert warn_of_remains([], [other], user="keeper") == []


def test_a_version_is_not_noted_while_an_index_is_out_of_scope() -> None:
    """Nothing would tell afterwards that it is built by the old rules."""
    plan = planned("refresh", COLLATION._replace(indexes=[INDEX.oid, 11]))
    assert plan.steps == []
    (skip,) = plan.skips
    assert skip.blocker is not None
    assert "1 of its 2 indexes are not in it" in skip.blocker.next_step
