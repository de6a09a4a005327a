# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is due, in which order, in how many statements: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import bloat, names
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.blockers import Horizon, useless
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.catalog import IndexState, TableState
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan import (
    Conditions,
    Plan,
    fit,
    plan_tables,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan_indexes import (
    leftover_of,
    plan_bloat,
    plan_invalid,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.vacuum import CHUNK_BYTES, CHUNK_TABLES, chunks

TABLE = TableState(
    oid=1, schema="public", name="t", kind="r", pages=10, reltuples=1000, xid_age=10, multixact_age=0, live=1000, dead=0, changed=0,
    vacuumed=1000.0, since_analyze=10.0, vacuum_count=1, analyze_count=1, toast_live=0, toast_dead=0, parent=None, may_vacuum=True,
)  # fmt: skip
INT4 = [4, "i", 4, 0.0, -1.0]
INDEX = IndexState(
    oid=10, table_oid=1, schema="public", name="t_pkey", table_schema="public", table="t", kind="i", method="btree", pages=1000, tuples=100000,
    valid=True, live=True, unique=True, exclusion=False, constraint=True, fillfactor=90, deduplicates=True, may_reindex=True, toast=False,
    signature="s", columns=[INT4],
)  # fmt: skip
SNAPSHOT = Horizon(
    what="an open snapshot",
    holder="pid 7",
    since="2026-11-21",
    began=900.0,
    seconds=100.0,
    age=50,
    catalogs_only=False,
    next_step="End it",
)


def planned(
    *tables: TableState, horizons: tuple[Horizon, ...] = (), budget: float | None = None, **conditions: Any
) -> Plan:
    plan = Plan()
    plan_tables(list(tables), Conditions(**conditions), horizons=lambda: list(horizons), block_size=8192, plan=plan)
    fit(plan, budget=budget, jobs=1)
    return plan


@pytest.mark.parametrize(
    ("dead", "live", "minimum", "due"),
    [
        (100, 900, 100, False),
        (101, 900, 100, True),
        (99, 1, 100, False),
        (100, 1, 100, True),
        (0, 0, 0, False),
        (1, 0, 0, True),
    ],
)
def test_dead_rows_count_above_the_ratio_and_from_the_minimum_on(dead: int, live: int, minimum: int, due: bool) -> None:
    plan = planned(TABLE._replace(dead=dead, live=live), dead_tuple_ratio=0.1, minimum_tuples=minimum)
    assert bool(plan.steps) is due


@pytest.mark.parametrize(
    ("kind", "live", "changed", "due"),
    [("r", 99, 0, False), ("r", 100, 0, True), ("r", 0, 100, True), ("p", 0, 0, True)],
)
def test_lack_of_statistics_counts_from_the_minimum_on(kind: str, live: int, changed: int, due: bool) -> None:
    table = TABLE._replace(kind=kind, live=live, changed=changed, reltuples=0, since_analyze=None)
    assert bool(planned(table, statistics_age=10, minimum_tuples=100).steps) is due


def test_toast_counts_like_rows() -> None:
    plan = planned(TABLE._replace(toast_dead=5000, toast_live=1000), dead_tuple_ratio=0.1)
    assert "TOAST chunks" in plan.steps[0].why


def test_danger_first_then_the_biggest_effect() -> None:
    tables = [
        TABLE._replace(oid=1, name="few", dead=2000),
        TABLE._replace(oid=2, name="many", dead=9000),
        TABLE._replace(oid=3, name="old", xid_age=900),
        TABLE._replace(oid=4, name="older", xid_age=1000),
    ]
    plan = planned(*tables, dead_tuple_ratio=0.1, transaction_id_age=500)
    assert [step.name for step in plan.steps] == ["older", "old", "many", "few"]


def test_nothing_is_started_that_does_not_fit() -> None:
    tables = [
        TABLE._replace(oid=1, name="big", dead=9000, pages=13107200),
        TABLE._replace(oid=2, name="small", dead=2000),
    ]
    plan = planned(*tables, dead_tuple_ratio=0.1, budget=10)
    assert [step.name for step in plan.steps] == ["small"]
    assert plan.not_done[0]["object"] == "table public.big"


@pytest.mark.parametrize(
    ("began", "vacuumed", "changed", "catalogs_only", "holds"),
    [
        (900.0, 990.0, 9000, False, True),  # vacuumed after it began
        (995.0, 990.0, 0, False, False),  # it began after the last VACUUM: what died before it can go
        (900.0, None, 0, False, False),  # never vacuumed
        (None, 990.0, 5, False, True),  # a slot; hardly changed since
        (None, 990.0, 9000, False, False),  # a slot; much has died since
        (900.0, 990.0, 0, True, False),  # holds catalogs, and this is no catalog
    ],
)
def test_when_another_vacuum_is_useless(
    began: float | None, vacuumed: float | None, changed: int, catalogs_only: bool, holds: bool
) -> None:
    horizon = SNAPSHOT._replace(began=began, catalogs_only=catalogs_only)
    found = useless([horizon], vacuumed=vacuumed, changed=changed, minimum=1000, catalog=False)
    assert (found is horizon) is holds


def test_freezing_past_an_older_transaction_is_not_tried() -> None:
    plan = planned(TABLE._replace(xid_age=900), horizons=(SNAPSHOT._replace(age=800),), transaction_id_age=500)
    assert plan.steps == []
    assert "pid 7" in plan.blockers[0].holder


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 2 * CHUNK_BYTES // 8192), st.booleans()), min_size=1, max_size=1500),
)
def test_chunks_hold_every_table_once(jobs: int, tables: list[tuple[int, bool]]) -> None:
    states = [
        TABLE._replace(oid=number, name=f"t{number}", pages=pages, dead=5000 if vacuum else 0, changed=5000)
        for number, (pages, vacuum) in enumerate(tables)
    ]
    steps = planned(*states, dead_tuple_ratio=0.1, changed_tuple_ratio=0.1).steps
    made = chunks(steps, jobs=jobs)
    assert sorted(step.oid for chunk in made for step in chunk.steps) == list(range(len(tables)))
    for chunk in made:
        assert len({step.options for step in chunk.steps}) == 1
        assert len(chunk.steps) <= CHUNK_TABLES
        assert len(chunk.steps) == 1 or sum(step.size for step in chunk.steps) <= CHUNK_BYTES


@given(
    st.text(min_size=1).filter(lambda text: "\x00" not in text),
    st.text(min_size=1).filter(lambda text: "\x00" not in text),
)
def test_any_name_survives_quoting(schema: str, name: str) -> None:
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
    assert names.parse_name(quoted, option="tables") == (schema, name)
    assert names.parse_name(names.shown(schema, name), option="tables") == (schema, name)


@pytest.mark.parametrize(
    "text", ["", " ", "a.b.c", 'x"; DROP TABLE y', "a b", "a;", ".a", "a.", '"', '""', "1a", "a.$(id)"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="not the name of a table"):
        names.parse_name(text, option="tables")


@pytest.mark.parametrize(
    ("leftover", "original", "known"),
    [
        ("t_state_ccnew", "t_state", True),
        ("t_state_ccnew12", "t_state", True),
        ("t_state_ccold", "t_state", True),
        ("t_ccnew", "t_state", False),
        ("t_state_ccnewer", "t_state", False),
        ("i" * 57 + "_ccnew", "i" * 63, True),
        ("i" * 56 + "_ccnew1", "i" * 63, True),
        ("_ccnew", "t", False),
    ],
)
def test_leftovers_by_name(leftover: str, original: str, known: bool) -> None:
    assert names.is_leftover_of(leftover, original) is known


@pytest.mark.parametrize(
    "change",
    [{"signature": "other"}, {"schema": "other"}, {"name": "unrelated_ccnew"}, {"valid": True}, {"constraint": True}],
)
def test_nothing_is_dropped_that_may_be_somebodys_only_copy(change: dict[str, Any]) -> None:
    copy = INDEX._replace(oid=11, name="t_pkey_ccnew", valid=False, constraint=False)
    assert leftover_of(copy, [INDEX, copy]) is INDEX
    changed = copy._replace(**change)
    assert leftover_of(changed, [INDEX, changed]) is None
    assert leftover_of(copy, [copy]) is None


def test_invalid_indexes_that_cannot_be_rebuilt_say_why() -> None:
    broken = INDEX._replace(valid=False)
    cases: dict[str, dict[str, Any]] = {
        "exclusion": {"exclusion": True},
        "partition": {"kind": "I"},
        "drop": {"live": False},
        "own": {"may_reindex": False},
    }
    for word, change in cases.items():
        plan = Plan()
        plan_invalid([broken._replace(**change)], building={}, block_size=8192, plan=plan)
        assert plan.steps == []
        assert word in plan.not_done[0]["why"]
    plan = Plan()
    plan_invalid([broken], building={1: "pid 9"}, block_size=8192, plan=plan)
    assert "pid 9" in plan.not_done[0]["why"]


def test_a_fresh_integer_index_has_the_size_that_is_expected() -> None:
    """100,000 integers take 276 blocks just built (PostgreSQL 15, measured)."""
    fresh = bloat.estimate(INDEX._replace(pages=276), block_size=8192)
    assert fresh is not None
    assert fresh.most < 0.03
    half = bloat.estimate(INDEX._replace(pages=552), block_size=8192)
    assert half is not None
    assert 0.45 < half.least <= half.most < 0.55


@given(st.integers(1, 10**8), st.integers(1, 10**6), st.floats(1, 2000), st.floats(0, 1), st.floats(-1, 10**6))
def test_the_interval_is_one(tuples: int, pages: int, width: float, nulls: float, distinct: float) -> None:
    index = INDEX._replace(tuples=float(tuples), pages=pages, unique=False, columns=[[-1, "i", width, nulls, distinct]])
    found = bloat.estimate(index, block_size=8192)
    assert found is not None
    assert 0 <= found.least <= found.most + 1e-9 <= 1 + 1e-9


def test_undecided_bloat_is_said_and_not_acted_on() -> None:
    plan = Plan()
    plan_bloat(
        [(INDEX, bloat.Bloat(0.2, 0.8)), (INDEX, bloat.Bloat(0.0, 0.1)), (INDEX, None)],
        Conditions(index_bloat_ratio=0.5),
        block_size=8192,
        plan=plan,
    )
    assert plan.steps == []
    assert len(plan.not_done) == 1
    assert "pgstattuple" in plan.not_done[0]["why"]


def test_who_holds_rows_is_asked_only_when_a_table_is_due() -> None:
    """The question costs more than all others where nothing is due, which is most of the time."""

    def asked() -> list[Horizon]:
        raise AssertionError("asked")

    conditions = Conditions(dead_tuple_ratio=0.1, transaction_id_age=500)
    plan_tables([TABLE], conditions, horizons=asked, block_size=8192, plan=Plan())
    with pytest.raises(AssertionError, match="asked"):
        plan_tables([TABLE._replace(dead=9000)], conditions, horizons=asked, block_size=8192, plan=Plan())
