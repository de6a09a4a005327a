# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is due, in which order, in how many statements: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import bloat, names
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.arguments import Scope
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.bloat import sort_by_gain
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.catalog import IndexState, Stattuple, TableState
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.holders import XminHolder
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan import (
    Surroundings,
    add_index_time,
    apply_time_budget,
    plan_tables,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.plan_indexes import (
    Rights,
    find_original,
    plan_bloat,
    plan_invalid,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.scope import select_tables
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.steps import Conditions, Phase, Plan
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.vacuum import (
    CHUNK_BYTES,
    CHUNK_TABLES,
    build_chunks,
)

TABLE = TableState(
    oid=1, schema="public", name="t", kind="r", pages=10, reltuples=1000, xid_age=10, multixact_age=0, live=1000, dead=0, changed=0,
    vacuumed=1000.0, since_analyze=10.0, vacuum_count=1, analyze_count=1, toast_live=0, toast_dead=0, parent=None, may_vacuum=True, may_enter=True,
    frozen_xid=99_990, inserted=0, heap_pages=10, visible_pages=10, toast_unknown=0, file_pages=0,
)  # fmt: skip
INT4 = [4, "i", 4, 0.0, -1.0]
INDEX = IndexState(
    oid=10, table_oid=1, schema="public", name="t_pkey", table_schema="public", table="t", kind="i", method="btree", pages=1000, tuples=100000,
    valid=True, live=True, unique=True, exclusion=False, constraint=True, fillfactor=90, deduplicates=True, may_reindex=True, may_drop=True, may_enter=True, toast=False,
    signature="s", is_safe=True, toasted=False, columns=[INT4],
)  # fmt: skip
SNAPSHOT = XminHolder(
    what="an open snapshot",
    holder="pid 7",
    since="2026-11-21",
    began=900.0,
    seconds=100.0,
    age=50,
    xid=99_950,
    only_catalogs=False,
    next_step="End it",
)


def planned(
    *tables: TableState,
    holders: tuple[XminHolder, ...] = (),
    budget: float | None = None,
    version: int = 180000,
    in_scope: set[int] | None = None,
    excluded: frozenset[int] = frozenset(),
    **conditions: Any,
) -> Plan:
    plan = Plan()
    plan_tables(
        list(tables),
        Conditions(**conditions),
        read_holders=lambda: list(holders),
        server=Surroundings(version=version, in_scope=in_scope, excluded=excluded),
        plan=plan,
    )
    apply_time_budget(plan, budget=budget, jobs=1)
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
        TABLE._replace(oid=1, name="first", dead=9000, pages=76800),
        TABLE._replace(oid=2, name="big", dead=8000, pages=76800),
        TABLE._replace(oid=3, name="small", dead=2000),
    ]
    plan = planned(*tables, dead_tuple_ratio=0.1, budget=10)
    assert [step.name for step in plan.steps] == ["first", "small"]
    assert plan.skips[0].display_name == "table public.big"
    assert plan.skips[0].blocker is not None


def test_what_needs_more_than_the_budget_comes_last_and_is_not_starved() -> None:
    """On a busy database something else is due in every run."""
    tables = [
        TABLE._replace(oid=1, name="huge", dead=9000, pages=13107200),
        TABLE._replace(oid=2, name="small", dead=2000),
    ]
    plan = planned(*tables, dead_tuple_ratio=0.1, budget=10)
    assert [step.name for step in plan.steps] == ["small", "huge"]
    assert plan.skips == []


@pytest.mark.parametrize(
    ("change", "holder", "action"),
    [
        ({}, {"began": 995.0, "xid": 99_995}, "VACUUM (ANALYZE)"),  # it began later: what died before it can go
        ({"vacuumed": None}, {"began": 900.0, "xid": 99_995}, "VACUUM (ANALYZE)"),
        ({}, {"began": 900.0, "xid": 99_995}, "VACUUM (FREEZE, ANALYZE)"),  # an older one may have been there as well
        ({}, {"began": 900.0, "xid": 99_990}, None),  # frozen up to the holder, so nothing older is left
        ({}, {"began": 900.0, "xid": 99_989}, None),
        ({"vacuumed": None}, {"began": 995.0, "xid": 99_980}, None),
        ({"frozen_xid": 0}, {"began": 900.0, "xid": 5}, "VACUUM (FREEZE, ANALYZE)"),
        ({"frozen_xid": 5}, {"began": 900.0, "xid": 2**32 - 5}, None),  # ids wrap around
        ({"frozen_xid": 2**32 - 5}, {"began": 900.0, "xid": 5}, "VACUUM (FREEZE, ANALYZE)"),
        ({"changed": 5}, {"began": None, "xid": 99_995}, "VACUUM (FREEZE, ANALYZE)"),  # a slot; hardly changed since
        ({"changed": 9000}, {"began": None, "xid": 99_995}, "VACUUM (ANALYZE)"),
        ({}, {"began": 900.0, "xid": 99_980, "only_catalogs": True}, "VACUUM (ANALYZE)"),  # and this is no catalog
    ],
)
def test_a_vacuum_is_left_out_when_nothing_can_be_removed_and_this_is_proven(
    change: dict[str, Any], holder: dict[str, Any], action: str | None
) -> None:
    table = TABLE._replace(**{"dead": 9000, "vacuumed": 990.0, **change})
    plan = planned(table, holders=(SNAPSHOT._replace(**holder),), dead_tuple_ratio=0.1)
    assert [step.action for step in plan.steps] == ([] if action is None else [action])
    assert bool(plan.skips) is (action is None)


@pytest.mark.parametrize(
    ("age", "multixact_age", "holder", "frozen"),
    [
        (900, 0, 800, True),  # 100 to be gained, with a limit of 500
        (1_950_000_000, 0, 1_000, True),
        (900, 0, 890, False),  # not worth it
        (900, 0, 950, False),
        (900, 600, 890, True),  # the holder says nothing of multixacts
        (900, 0, 10, True),
        (200_000_010, 0, 200_000_000, True),  # the server would force it
        (200_000_010, 0, 200_000_020, False),
    ],
)
def test_freezing_is_judged_by_what_it_gains(age: int, multixact_age: int, holder: int, frozen: bool) -> None:
    table = TABLE._replace(xid_age=age, multixact_age=multixact_age)
    plan = planned(table, holders=(SNAPSHOT._replace(age=holder),), transaction_id_age=500)
    assert [step.action for step in plan.steps] == (["VACUUM (FREEZE)"] if frozen else [])
    assert [skip.is_danger for skip in plan.skips] == ([] if frozen else [True])


def test_a_slot_just_above_the_limit_does_not_switch_freezing_off() -> None:
    table = TABLE._replace(xid_age=1_950_000_000)
    plan = planned(table, holders=(SNAPSHOT._replace(age=150_000_001),), transaction_id_age=150_000_000)
    assert plan.steps[0].is_danger


def test_danger_ignores_the_time_budget() -> None:
    huge = TABLE._replace(oid=1, name="huge", pages=2**27, xid_age=1_900_000_000)
    small = TABLE._replace(oid=2, name="small", dead=2000)
    plan = planned(huge, small, dead_tuple_ratio=0.1, transaction_id_age=500, budget=1800)
    assert [step.name for step in plan.steps] == ["huge"]
    assert [(skip.display_name, skip.is_danger) for skip in plan.skips] == [("table public.small", False)]


def test_what_is_longer_than_the_budget_is_done_alone() -> None:
    tables = [TABLE._replace(oid=number, name=f"t{number}", dead=9000, pages=2**24) for number in range(2)]
    plan = planned(*tables, dead_tuple_ratio=0.1, budget=10)
    assert [step.name for step in plan.steps] == ["t0"]
    assert [skip.display_name for skip in plan.skips] == ["table public.t1"]


def test_indexes_count_for_the_time_of_a_vacuum() -> None:
    tables = [
        TABLE._replace(oid=1, dead=9000),
        TABLE._replace(oid=2, dead=9000),
        TABLE._replace(oid=3, live=9000, changed=9000),
    ]
    plan = planned(*tables, dead_tuple_ratio=0.1, changed_tuple_ratio=0.1)
    before = {step.oid: step.estimate for step in plan.steps}
    add_index_time(plan, {1: 2**20, 3: 2**20}, 8192)
    added = {step.oid: step.estimate - before[step.oid] for step in plan.steps}
    assert added[1] > 60
    assert added[2] == added[3] == 0  # no index; only analyzed, which reads none


PARENT = TABLE._replace(oid=9, name="events", kind="p", pages=-1, live=0, xid_age=0, since_analyze=900.0, frozen_xid=0)
PARTS = [
    TABLE._replace(oid=number, name=f"events_{number}", schema="parts", parent=9, pages=12800, dead=900, changed=900)
    for number in (1, 2)
]
OLD: dict[str, Any] = {"dead_tuple_ratio": 0.1, "changed_tuple_ratio": 0.1, "minimum_tuples": 100}


def test_a_partitioned_table_is_judged_by_all_its_leaves_whatever_the_scope() -> None:
    plan = planned(PARENT, *PARTS, in_scope={9}, **OLD)
    assert [(step.name, step.action) for step in plan.steps] == [("events", "ANALYZE")]
    assert plan.steps[0].size == 2 * 12800 * 8192
    assert plan.steps[0].estimate > 1


def test_analyze_of_a_parent_covers_its_partitions_where_the_server_does_so() -> None:
    only_changed = PARTS[1]._replace(dead=0)
    nested = PARENT._replace(oid=8, name="nested", parent=9)
    leaf = PARTS[0]._replace(oid=7, name="leaf", parent=8)
    tables = [PARENT, nested, PARTS[0], only_changed, leaf]
    old = planned(*tables, version=170000, **OLD)
    assert sorted((step.name, step.action) for step in old.steps) == [
        ("events", "ANALYZE"), ("events_1", "VACUUM"), ("leaf", "VACUUM"),
    ]  # fmt: skip
    new = planned(*tables, version=180000, **OLD)
    assert sorted((step.name, step.action) for step in new.steps) == [
        ("events", "ANALYZE"), ("events_1", "VACUUM (ANALYZE)"), ("events_2", "ANALYZE"), ("leaf", "VACUUM (ANALYZE)"),
        ("nested", "ANALYZE"),
    ]  # fmt: skip


def test_a_parent_is_not_analyzed_over_what_is_excluded_or_foreign() -> None:
    outside = planned(PARENT, *PARTS, version=170000, in_scope={9}, **OLD)
    assert [step.name for step in outside.steps] == ["events"]  # in another schema only
    without: dict[str, Any] = {"in_scope": {9, 1}, "excluded": frozenset({2})}
    plan = planned(PARENT, *PARTS, version=170000, **without, **OLD)
    assert [step.name for step in plan.steps] == ["events_1"]
    assert "events_2" in plan.skips[0].reason
    assert [step.name for step in planned(PARENT, *PARTS, **without, **OLD).steps] == ["events_1", "events"]
    foreign = PARTS[1]._replace(kind="f")
    for version in (170000, 180000):
        plan = planned(PARENT, PARTS[0], foreign, version=version, **OLD)
        assert [step.name for step in plan.steps] == ["events_1"]
        assert "foreign table" in plan.skips[0].reason
        assert plan.skips[0].blocker is None


@pytest.mark.parametrize(
    ("tables", "exclude", "schemas", "chosen"),
    [
        (["public.events"], [], None, {9, 1, 2}),
        (["events"], ["events_1"], None, {9, 2}),
        (None, ["events"], None, {3}),
        (None, [], ["public"], {9, 3}),
        (["events"], [], ["public"], {9, 1, 2}),
    ],
)
def test_a_named_partitioned_table_stands_for_its_tree(
    tables: list[str] | None, exclude: list[str], schemas: list[str] | None, chosen: set[int]
) -> None:
    scope = Scope(
        schemas,
        None if tables is None else [names.parse_name(name, option="tables") for name in tables],
        [names.parse_name(name, option="exclude") for name in exclude],
        False,
    )
    everything = [PARENT, *PARTS, TABLE._replace(oid=3, name="other")]
    assert {table.oid for table in select_tables(everything, scope, target="x")} == chosen


@pytest.mark.parametrize(("inserted", "due"), [(200, False), (201, True), (99, False)])
def test_rows_that_were_only_inserted_call_for_a_vacuum(inserted: int, due: bool) -> None:
    table = TABLE._replace(live=1000 if inserted > 100 else 10, inserted=inserted)
    plan = planned(table, inserted_tuple_ratio=0.2, minimum_tuples=100)
    assert [step.action for step in plan.steps] == (["VACUUM"] if due else [])


LOST = TABLE._replace(live=0, vacuumed=None, since_analyze=None)


@pytest.mark.parametrize(
    "condition", ["dead_tuple_ratio", "changed_tuple_ratio", "inserted_tuple_ratio", "statistics_age"]
)
@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({}, True),
        ({"live": 3, "dead": 2, "changed": 7, "inserted": 3}, True),  # written to since: still unknown
        ({"reltuples": 99}, False),
        ({"reltuples": -1.0, "file_pages": 10}, True),
        ({"reltuples": -1.0, "file_pages": 10, "changed": 7, "live": 3, "inserted": 3}, True),
        ({"reltuples": -1.0, "file_pages": None}, True),  # locked against readers
        ({"reltuples": -1.0}, False),  # empty
        ({"reltuples": 0.0}, False),
        ({"kind": "f"}, False),
    ],
)
def test_lost_counters_do_not_count_as_in_condition(condition: str, change: dict[str, Any], due: bool) -> None:
    """M16: after a failover, a crash or pg_upgrade each condition on its own has to say so, once."""
    conditions: dict[str, Any] = {condition: 0.5, "minimum_tuples": 100}
    plan = planned(LOST._replace(**change), **conditions)
    assert [step.vacuum for step in plan.steps] == [condition in {"dead_tuple_ratio", "inserted_tuple_ratio"}] * due
    after = change | {"live": 1000, "changed": 0, "dead": 0, "inserted": 0, "reltuples": 1000.0}
    cured = LOST._replace(**after, since_analyze=1.0, vacuumed=1000.0)
    assert planned(cured, **conditions).steps == []


@pytest.mark.parametrize("condition", ["dead_tuple_ratio", "inserted_tuple_ratio", "changed_tuple_ratio"])
def test_rows_that_were_counted_when_they_came_are_not_lost(condition: str) -> None:
    """A table that was filled and got an index has rows in the catalog without any VACUUM or ANALYZE."""
    fresh = LOST._replace(live=1000, changed=1000, inserted=1000)
    conditions: dict[str, Any] = {condition: 2.0, "minimum_tuples": 100}
    assert planned(fresh, **conditions).steps == []


@pytest.mark.parametrize(("visible", "due"), [(8, False), (7, True)])
def test_after_an_analyze_the_marked_blocks_tell_what_was_inserted(visible: int, due: bool) -> None:
    table = TABLE._replace(vacuumed=None, visible_pages=visible)
    assert bool(planned(table, inserted_tuple_ratio=0.2, minimum_tuples=100).steps) is due


@pytest.mark.parametrize(("chunks", "due"), [(100.0, True), (99.0, False)])
def test_toast_of_which_nothing_is_counted_is_unknown(chunks: float, due: bool) -> None:
    """An ANALYZE after the loss tells the rows, and nothing about what is stored out of line."""
    plan = planned(TABLE._replace(vacuumed=None, toast_unknown=chunks), dead_tuple_ratio=0.1, minimum_tuples=100)
    assert bool(plan.steps) is due


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
    made = build_chunks(steps, jobs=jobs)
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
    assert names.parse_name(names.format_name(schema, name), option="tables") == (schema, name)


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
    assert find_original(copy, [INDEX, copy]) is INDEX
    changed = copy._replace(**change)
    assert find_original(changed, [INDEX, changed]) is None
    assert find_original(copy, [copy]) is None


def test_invalid_indexes_that_cannot_be_rebuilt_say_why() -> None:
    broken = INDEX._replace(valid=False)
    cases: dict[str, dict[str, Any]] = {
        "exclusion": {"exclusion": True},
        "system catalog": {"table_schema": "pg_catalog"},
        "partition": {"kind": "I"},
        "drop": {"live": False},
        "own": {"may_reindex": False},
    }
    for word, change in cases.items():
        plan = Plan()
        plan_invalid([broken._replace(**change)], building={}, rights=Rights(), block_size=8192, plan=plan)
        assert plan.steps == []
        assert word in plan.skips[0].reason
        bloated = Plan()
        wasted = [(INDEX._replace(**change), bloat.Bloat(0.9, 0.9))]
        plan_bloat(wasted, Conditions(index_bloat_ratio=0.5), rights=Rights(), block_size=8192, plan=bloated)
        assert bloated.steps == []
        assert bloated.skips[0].blocker is not None
    plan = Plan()
    plan_invalid([broken], building={1: "pid 9"}, rights=Rights(), block_size=8192, plan=plan)
    assert "pid 9" in plan.skips[0].reason


@pytest.mark.parametrize(
    ("rights", "rebuilt"),
    [
        (Rights(140003), False),
        (Rights(140000), False),
        (Rights(140004), True),
        (Rights(130010), True),
        (Rights(180000, sees_sessions=False), False),
    ],
)
def test_no_rebuild_where_it_would_corrupt_or_nothing_is_seen_of_others(rights: Rights, rebuilt: bool) -> None:
    for phase in (Phase.INVALID, Phase.BLOAT):
        plan = Plan()
        plan_invalid(
            [INDEX._replace(valid=phase == Phase.BLOAT)], building={}, rights=rights, block_size=8192, plan=plan
        )
        wasted = [(INDEX._replace(valid=phase == Phase.BLOAT), bloat.Bloat(0.9, 0.9))]
        plan_bloat(wasted, Conditions(index_bloat_ratio=0.5), rights=rights, block_size=8192, plan=plan)
        assert [step.phase for step in plan.steps] == ([phase] if rebuilt else [])
        assert bool(plan.skips) is not rebuilt


def test_leftovers_are_dropped_without_the_right_to_see_others() -> None:
    copy = INDEX._replace(oid=11, name="t_pkey_ccnew", valid=False, constraint=False)
    plan = Plan()
    plan_invalid([INDEX, copy], building={}, rights=Rights(140000, False), block_size=8192, plan=plan)
    assert [step.phase for step in plan.steps] == [Phase.LEFTOVERS]
    plan = Plan()
    copy = copy._replace(may_drop=False)  # MAINTAIN lets an index be rebuilt, and not be dropped
    plan_invalid([INDEX, copy], building={}, rights=Rights(), block_size=8192, plan=plan)
    assert plan.steps == []


def test_a_fresh_integer_index_has_the_size_that_is_expected() -> None:
    """100,000 integers take 276 blocks just built (PostgreSQL 15, measured)."""
    fresh = bloat.estimate_bloat(INDEX._replace(pages=276), block_size=8192)
    assert fresh is not None
    assert fresh.most < 0.03
    half = bloat.estimate_bloat(INDEX._replace(pages=552), block_size=8192)
    assert half is not None
    assert 0.45 < half.least <= half.most < 0.55


@given(st.integers(1, 10**8), st.integers(1, 10**6), st.floats(1, 2000), st.floats(0, 1), st.floats(-1, 10**6))
def test_the_interval_is_one(tuples: int, pages: int, width: float, nulls: float, distinct: float) -> None:
    index = INDEX._replace(tuples=float(tuples), pages=pages, unique=False, columns=[[-1, "i", width, nulls, distinct]])
    waste = bloat.estimate_bloat(index, block_size=8192)
    assert waste is not None
    assert 0 <= waste.least <= waste.most + 1e-9 <= 1 + 1e-9
    # What is smaller than the rows need by themselves wastes nothing, what is ten times as large as they can need does.
    bytes_each = width * (1 - nulls)
    if pages * 8192 < min(tuples, 10**8) * 6:
        assert waste.least == 0
    if pages > 20 + 10 * tuples * (width + 40) / 4000 and bytes_each < 1500:
        assert waste.least > 0.5


REMEDY = bloat.find_remedy(None, user="keeper")


@pytest.mark.parametrize(
    ("stattuple", "remedy"),
    [
        (None, "install the extension pgstattuple to have it measured"),
        (Stattuple("public", True, True), ""),
        (Stattuple("public", False, True), "GRANT pg_stat_scan_tables TO keeper to have it measured by pgstattuple"),
        (
            Stattuple("Tools", False, False),
            'GRANT USAGE ON SCHEMA "Tools" TO keeper; GRANT pg_stat_scan_tables TO keeper to have it measured by pgstattuple',
        ),
    ],
)
def test_not_installed_is_not_the_same_as_not_executable(stattuple: Stattuple | None, remedy: str) -> None:
    assert bloat.find_remedy(stattuple, user="keeper") == remedy


def test_the_largest_gain_is_measured_first() -> None:
    """Time may run out: what is gained at most is the estimate of the largest share, times the size."""
    small, large = INDEX._replace(oid=1, pages=100), INDEX._replace(oid=2, pages=10_000)
    pairs = [(small, bloat.Bloat(0.0, 1.0)), (large, bloat.Bloat(0.0, 0.6)), (INDEX, bloat.Bloat(0.0, 0.9))]
    assert sort_by_gain(pairs) == [large, INDEX, small]


def test_undecided_bloat_is_said_and_not_acted_on() -> None:
    plan = Plan()
    plan_bloat(
        [(INDEX, bloat.Bloat(0.2, 0.8, remedy=REMEDY)), (INDEX, bloat.Bloat(0.0, 0.1)), (INDEX, None)],
        Conditions(index_bloat_ratio=0.5),
        rights=Rights(),
        block_size=8192,
        plan=plan,
    )
    assert plan.steps == []
    assert len(plan.skips) == 1
    assert "pgstattuple" in plan.skips[0].reason
    assert plan.skips[0].blocker is None  # nothing says that it is due


def test_values_out_of_line_are_not_known_to_the_estimate() -> None:
    """20,000 keys of 2.2 kB, whose width the statistics give as that of a pointer."""
    index = INDEX._replace(tuples=20000.0, pages=6700, toasted=True, columns=[[-1, "i", 18, 0.0, -1.0]])
    waste = bloat.estimate_bloat(index, block_size=8192)
    assert waste is not None
    assert waste.least == 0
    assert "out of line" in waste.why_unknown
    inline = bloat.estimate_bloat(index._replace(toasted=False), block_size=8192)
    assert inline is not None
    assert inline.least > 0.9
    fixed = bloat.estimate_bloat(index._replace(columns=[INT4]), block_size=8192)
    assert fixed is not None
    assert fixed.least > 0.9


@pytest.mark.parametrize("change", [{"tuples": -1.0}, {"columns": [[-1, "i", None, None, None]]}])
def test_without_statistics_an_index_is_undecided_and_not_healthy(change: dict[str, Any]) -> None:
    waste = bloat.estimate_bloat(INDEX._replace(**change), block_size=8192)
    assert waste is not None
    assert (waste.least, waste.most) == (0.0, 1.0)
    assert "pg_stats" in waste.why_unknown


def test_who_holds_rows_is_asked_only_when_a_table_is_due() -> None:
    """The question costs more than all others where nothing is due, which is most of the time."""

    def ask() -> list[XminHolder]:
        raise AssertionError("asked")

    conditions, server = Conditions(dead_tuple_ratio=0.1, transaction_id_age=500), Surroundings()
    plan_tables([TABLE], conditions, read_holders=ask, server=server, plan=Plan())
    with pytest.raises(AssertionError, match="asked"):
        plan_tables([TABLE._replace(dead=9000)], conditions, read_holders=ask, server=server, plan=Plan())
