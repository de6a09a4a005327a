# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nothing may be dropped before a replacement has been found whole."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.side import LIVE, RESTORED, RESTORING, Mark
from ansible_collections.lowtide.ops.plugins.plugin_utils._triage import judge

MARK = Mark("R", "shop", RESTORED, oid=7, system="1", since="T")


def make_integrity(database: str = "shop", status: str = "whole", **more: Any) -> dict[str, Any]:
    """What pg_integrity_info returns."""
    return {
        "database": database,
        "system_identifier": "1",
        "status": status,
        "summary": f"database {database} is {status}",
        "check_mode": False,
        "blockers": [],
        "evidence": ["data checksums are on"],
        "damaged": [{"object": "table public.orders", "kind": "table"}] if status == "damaged" else [],
        "unchecked": [],
        "database_oid": 7,
        "database_comment": MARK.write("ours") if database == "copy" else None,
        "checked": ["table public.customers"] + (["table public.orders"] if status == "whole" else []),
        **more,
    }


BACKUPS = {
    "newest": [{"database": "shop", "system_identifier": "1", "run_id": "R", "taken_at": "T"}],
    "summary": "newest verified backup in s3://shop-backups/postgresql: shop 3 h old",
}
NO_BACKUPS: dict[str, Any] = {"newest": [], "summary": "no verified backup in s3://shop-backups/postgresql"}


@pytest.mark.procedure("B22")
@pytest.mark.parametrize(
    ("backups", "replacement", "words"),
    [
        (BACKUPS, None, "no replacement has been verified"),
        (None, None, "no replacement has been verified"),
        (BACKUPS, make_integrity("copy", "damaged"), "its replacement copy is damaged"),
        (BACKUPS, make_integrity("copy", "unproven", checked=[]), "its replacement copy is unproven"),
        (BACKUPS, make_integrity("shop"), "is the database itself"),
        (BACKUPS, make_integrity("copy", checked=["table public.customers"]), "copy has not table public.orders"),
    ],
)
def test_a_damaged_database_stays(
    backups: dict[str, Any] | None, replacement: dict[str, Any] | None, words: str
) -> None:
    """And what to do is named."""
    result = judge(make_integrity(status="damaged"), backups=backups, replacement=replacement)
    assert not result["may_be_replaced"]
    assert words in result["summary"]
    assert "must not be dropped" in result["summary"]
    assert "role restore" in result["blockers"][-1]["next_step"]


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        (None, "is not marked as restored"),
        ("a copy of the schema", "is not marked as restored"),
        (MARK._replace(oid=8).write(None), "is not marked as restored"),
        (MARK._replace(system="2").write(None), "is not marked as restored"),
        (MARK._replace(state=RESTORING).write(None), "is not marked as restored"),
        (MARK._replace(state=LIVE).write(None), "is not marked as restored"),
        (MARK._replace(backup="S").write(None), "is of backup S of shop, and the newest is R"),
        (MARK._replace(database="x").write(None), "is of backup R of x, and the newest is R"),
        (MARK._replace(tables=("public.a",)).write(None), "has the rows of some tables only (public.a)"),
        (MARK._replace(since="").write(None), "was not found equal to its backup R"),
    ],
)
def test_whole_blocks_are_no_rows(comment: str | None, words: str) -> None:
    """A schema without rows, a part, or another backup is whole as well."""
    replacement = make_integrity("copy", database_comment=comment)
    result = judge(make_integrity(status="damaged"), backups=BACKUPS, replacement=replacement)
    assert not result["may_be_replaced"]
    assert words in result["summary"]


def test_a_replacement_without_a_backup_to_compare_with_proves_nothing() -> None:
    """None was asked for, or there is none."""
    asked: list[dict[str, Any] | None] = [
        None,
        NO_BACKUPS,
    ]
    for backups in asked:
        result = judge(make_integrity(status="damaged"), backups=backups, replacement=make_integrity("copy"))
        assert not result["may_be_replaced"]
        assert "no verified backup is known" in result["summary"]


def test_tables_that_were_not_looked_at_have_to_be_there() -> None:
    """Time was over, or a right is missing."""
    unchecked = [{"object": f"{name} public.b", "cause": "time", "reason": "x"} for name in ("table", "index")]
    damaged = make_integrity(status="damaged", unchecked=unchecked)
    result = judge(damaged, backups=BACKUPS, replacement=make_integrity("copy"))
    assert not result["may_be_replaced"]
    assert "copy has not table public.b" in result["summary"]


GIN = {"object": "index public.orders_tags", "cause": "method", "reason": "its access method is gin"}


@pytest.mark.procedure("B22")
def test_indexes_that_amcheck_does_not_know_do_not_keep_a_restored_database_away() -> None:
    """They were built from tables that were found whole; they are named."""
    tables = ["table public.customers", "table public.orders"]
    copy = make_integrity("copy", "unproven", checked=tables, unchecked=[GIN])
    result = judge(make_integrity(status="damaged"), backups=BACKUPS, replacement=copy)
    assert result["may_be_replaced"]
    assert "copy can take its place: its tables are whole, and 1 index of methods" in result["summary"]
    assert "replacement: index public.orders_tags is not checked: its access method is gin" in result["evidence"]
    unequal = {**copy, "database_comment": MARK._replace(since="").write(None)}
    result = judge(make_integrity(status="damaged"), backups=BACKUPS, replacement=unequal)
    assert not result["may_be_replaced"]


@pytest.mark.parametrize(
    "entry",
    [
        {"object": "table public.events", "cause": "method", "reason": "its access method is columnar"},
        {"object": "index public.orders_pkey", "cause": "time", "reason": "the time is over"},
        {"object": "table public.orders", "cause": "lock", "reason": "it is locked"},
        {"object": "index public.orders_key", "cause": "error", "reason": "out of memory"},
        {"object": "table public.wide", "cause": "table", "reason": "its TOAST values cannot be read"},
    ],
)
def test_whatever_else_was_not_looked_at_keeps_it_away(entry: dict[str, Any]) -> None:
    """It could have been looked at, or nothing else tells that it is whole."""
    tables = ["table public.customers", "table public.orders"]
    copy = make_integrity("copy", "unproven", checked=tables, unchecked=[GIN, entry])
    result = judge(make_integrity(status="damaged"), backups=BACKUPS, replacement=copy)
    assert not result["may_be_replaced"]
    assert f"copy is unproven: {entry['object']} was not checked, {entry['reason']}" in result["summary"]


@pytest.mark.procedure("B22")
@pytest.mark.parametrize(
    ("unchecked", "checked", "overlooked"),
    [
        ([GIN], ["table public.orders"], []),
        ([{**GIN, "cause": "invalid"}, {**GIN, "cause": "unlogged"}], ["table public.orders"], []),
        ([{**GIN, "cause": "time"}], ["table public.orders"], [GIN["object"]]),
        ([{**GIN, "cause": "lock"}], ["table public.orders"], [GIN["object"]]),
        ([{**GIN, "cause": "right"}], [], [GIN["object"]]),
        ([{**GIN, "cause": "extension"}], [], [GIN["object"]]),
        ([GIN], [], [GIN["object"]]),
        ([], [], []),
    ],
)
def test_a_database_that_could_be_looked_at_and_was_not_is_told(
    unchecked: list[dict[str, Any]], checked: list[str], overlooked: list[str]
) -> None:
    """The role fails then; what amcheck does not know cannot be looked at."""
    found = make_integrity(status="unproven", unchecked=unchecked, checked=checked)
    result = judge(found, backups=None, replacement=None)
    assert result["overlooked"] == overlooked
    assert ("could be looked at and was not" in result["summary"]) == bool(overlooked)


def test_one_without_a_backup_is_saved_first() -> None:
    """There is nothing to restore."""
    result = judge(
        make_integrity(status="damaged"),
        backups=NO_BACKUPS,
        replacement=None,
    )
    assert "pg_backup" in result["blockers"][-1]["next_step"]
    expected = f"there is no verified backup of shop of this cluster; {NO_BACKUPS['summary']}"
    assert expected in result["evidence"]
    assert result["newest_backup"] is None


def test_a_replacement_that_is_whole_may_take_its_place() -> None:
    """A sound database is not to be replaced."""
    damaged = judge(make_integrity(status="damaged"), backups=BACKUPS, replacement=make_integrity("copy"))
    assert damaged["may_be_replaced"]
    assert damaged["summary"] == "database shop is damaged; copy is whole and can take its place"
    assert damaged["newest_backup"]["run_id"] == "R"
    assert damaged["blockers"] == []
    sound = judge(make_integrity(), backups=BACKUPS, replacement=make_integrity("copy"))
    assert not sound["may_be_replaced"]
    assert sound["summary"] == "database shop is whole"


LOST = {
    "failed": True,
    "msg": "pg1:5432/shop as lowtide: there is no database shop on this server (x). Correct login_db.",
    "error": {"problem": "there is no database shop on this server (x)"},
    "database": "shop",
}


@pytest.mark.parametrize(("identifier", "run_id"), [("1", "R"), ("", "R"), ("2", None)])
def test_a_lost_database_is_told_with_its_newest_backup(identifier: str, run_id: str | None) -> None:
    """Of its cluster, where that is known: a backup of another one is not offered."""
    result = judge({**LOST, "system_identifier": identifier}, backups=BACKUPS, replacement=None)
    assert result["status"] == "lost"
    assert not result["may_be_replaced"]
    assert (result["newest_backup"] or {}).get("run_id") == run_id
    assert result["summary"] == "database shop is lost: there is no database shop on this server (x)"


@pytest.mark.parametrize(("found", "steps"), [("shut", 1), ("invalid", 0)])
def test_a_database_that_nobody_can_connect_to_is_told_by_what_the_server_says(found: str, steps: int) -> None:
    """Whatever the language of its message, which is not read."""
    failure = {**LOST, "error": {"problem": "the connection failed: ..."}, "system_identifier": "1", "found": found}
    result = judge(failure, backups=BACKUPS, replacement=None)
    assert (result["status"], result["may_be_replaced"], result["overlooked"]) == (found, False, [])
    assert result["summary"].startswith(f"database shop is {found}: ")
    assert result["newest_backup"]["run_id"] == "R"
    assert len(result["blockers"]) == steps
