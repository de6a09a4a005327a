# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_restore in place: a request that comes once more, and who comes while the move begins."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from support.modules import run_module
from support.mysql_restores import definitions, place, restore, restore_and_act, run_until
from support.mysql_sites import MySqlSite, quoted

pytestmark = [pytest.mark.lab("mariadb", "versitygw")]


@pytest.mark.procedure("E9")
def test_a_request_that_was_fulfilled_replaces_nothing_when_it_comes_once_more(site: MySqlSite, backup: str) -> None:
    """F31: what was written since would go. While the original is there it says what it looked at; then it refuses."""
    placed = place(site, backup=backup)
    assert placed.changed, placed.msg
    original = f"{site.database}__original"
    site.sql("INSERT INTO child (id) VALUES (4711)")
    for key in site.bucket.names():  # by retention, say
        site.bucket.client.delete_object(Bucket=site.bucket.bucket, Key=key)
    again = restore(site, "in_place", backup=backup)
    assert not again.failed, again.msg
    assert not again.changed
    assert f"all of the 6 tables of backup {backup} are there; their rows were not compared" in " ".join(
        again["evidence"]
    )
    site.sql("DROP TABLE child")
    gone = restore(site, "in_place", backup=backup)
    assert gone.failed
    assert gone["error"]["refused"]
    assert "and 1 table of it is not there any more: child" in gone.msg
    newer = run_module("mysql_backup", site.params())
    assert newer.changed, newer.msg
    unnamed = restore(site, "in_place")
    assert unnamed.failed
    assert f"brought, and this request means backup {newer['backup']['run_id']}" in unnamed.msg
    assert f"If it is {backup} that is meant, it is in place: name it in backup" in unnamed.msg
    site.sql(f"DROP DATABASE {quoted(original)}", database="")
    site.sql("INSERT INTO feature (name) VALUES ('of November')")
    before = site.checksums()
    for more in ({}, {"backup": newer["backup"]["run_id"]}):
        refused = restore(site, "in_place", **more)
        assert refused.failed
        assert refused["error"]["refused"]
        assert f"there is no whole copy of backup {newer['backup']['run_id']} beside it" in refused.msg
    assert site.checksums() == before
    assert not site.exists(original)


@pytest.mark.procedure("E9")
def test_a_database_that_is_gone_is_restored_in_one_run(site: MySqlSite, backup: str) -> None:
    """Nothing was written since, so no copy beside has to be looked at first."""
    site.sql(f"DROP DATABASE {quoted(site.database)}", database="")
    placed = restore(site, "in_place", backup=backup)
    assert placed.changed, placed.msg
    assert site.sql("SELECT (SELECT number FROM early), (SELECT count(*) FROM child)")[0] == (1990, 50)
    assert not restore(site, "in_place", backup=backup).changed


@pytest.mark.procedure("E9")
@pytest.mark.parametrize(
    ("database", "before", "words"),
    [
        ("", b"WITH CONSISTENT SNAPSHOT", "it is in use by 1 session: root from localhost"),
        ("", b"DROP VIEW IF EXISTS `{}`.", "it is in use by 1 session: root from localhost"),
        ("mysql", b"RENAME TABLE `", "error 1205"),
    ],
    ids=["while it is compared", "while it is begun", "before it is renamed"],
)
def test_who_comes_before_the_rename_ends_the_move(
    site: MySqlSite, backup: str, database: str, before: bytes, words: str
) -> None:
    """F31: a client that connects, or holds a table. Nothing is moved, and what was dropped is made again."""
    assert restore(site, "beside").changed, backup
    whole = definitions(site, site.database)
    users: list[Any] = []

    def come() -> None:
        users.append(site.connect(database or None))
        with users[0].cursor() as cursor:
            cursor.execute("START TRANSACTION" if database else "SELECT 1")
            cursor.execute(f"SELECT count(*) FROM {quoted(site.database)}.child")

    try:
        run = restore_and_act(site, before=before.replace(b"{}", site.database.encode()), act=come)
    finally:
        for user in users:
            user.close()
    assert run.failed
    assert words in run.msg
    assert "othing has been moved" in run.msg
    is_begun = b"SNAPSHOT" not in before
    assert ("is made again: view late, trigger noted, trigger named, event tidy" in run.msg) == is_begun, run.msg
    assert definitions(site, site.database) == whole
    assert site.checksums(f"{site.database}__original") == {}
    placed = restore(site, "in_place")
    assert placed.changed, placed.msg
    assert site.sql("SELECT (SELECT number FROM early), (SELECT count(*) FROM child)")[0] == (1990, 50)


@pytest.mark.procedure("E9")
@pytest.mark.parametrize("state", ["in_place", "absent"])
def test_what_was_changed_after_a_move_gave_back_stays(site: MySqlSite, backup: str, state: str) -> None:
    """The workers may start then, and what their owners drop is not made again, nor does it hold up the next move."""
    site.sql("CREATE TABLE t2 (id int); CREATE VIEW v2 AS SELECT id FROM t2")
    assert restore(site, "beside").changed, backup
    beside = definitions(site, f"{site.database}__restored")
    holder = site.connect("mysql")

    def come() -> None:
        with holder.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute(f"SELECT count(*) FROM {quoted(site.database)}.child")

    try:
        run = restore_and_act(site, before=b"RENAME TABLE `", act=come)
    finally:
        holder.close()
    assert run.failed
    assert "is made again: view late, view v2, trigger noted, trigger named, event tidy" in run.msg
    assert definitions(site, f"{site.database}__restored") == beside
    assert not site.exists(f"{site.database}__original")
    site.sql("DROP TRIGGER named; DROP VIEW v2; DROP TABLE t2")
    whole = definitions(site, site.database)
    assert not restore(site, "beside").changed
    ended = restore(site, state)
    assert ended.changed, ended.msg
    left = definitions(site, site.database if state == "absent" else f"{site.database}__original")
    assert (left["views"], left["triggers"]) == (whole["views"], whole["triggers"])
    assert not site.exists(f"{site.database}__restored")


@pytest.mark.procedure("E9")
@pytest.mark.parametrize("state", ["in_place", "absent"])
def test_what_was_noted_and_has_lost_its_table_is_named(site: MySqlSite, backup: str, state: str) -> None:
    """Killed before the rename; then a table of the original was dropped, and its view cannot be made any more."""
    site.sql("CREATE TABLE t2 (id int); CREATE VIEW v2 AS SELECT id FROM t2")
    run_until(site, 0, before=b"RENAME TABLE `")
    site.sql("DROP TABLE t2")
    refused = restore(site, "beside")
    assert refused.failed
    assert "or, unless its tables have been moved already, give it up (state absent)" in refused.msg
    ended = restore(site, state, backup=backup)
    assert ended.changed, ended.msg
    where = site.database if state == "absent" else f"{site.database}__original"
    words = f"{where}: not made again, since what they need is not there any more: view v2"
    assert words in ended["evidence"]
    assert [name for name, _definer in definitions(site, where)["views"]] == ["late"]
    assert [name for name, _definer in definitions(site, where)["triggers"]] == ["named", "noted"]


@pytest.mark.procedure("E9")
def test_a_connection_that_ends_at_the_rename_says_nothing_of_it(site: MySqlSite, backup: str) -> None:
    """The server may have done it; the next run finds out."""
    assert restore(site, "beside").changed, backup

    def cut() -> None:
        lock = f"lowtide.ops restore {hashlib.sha256(site.database.encode()).hexdigest()[:24]}"
        site.sql(f"KILL {site.sql('SELECT IS_USED_LOCK(%s)', [lock], database='')[0][0]}", database="")

    run = restore_and_act(site, before=b"RENAME TABLE `", act=cut)
    assert run.failed
    assert "Nothing has been moved" not in run.msg
    assert f"Whether the tables of {site.database} were moved is not known" in run.msg
    assert "keep its clients stopped, and run again" in run.msg
    assert restore(site, "in_place").changed


@pytest.mark.procedure("E9")
@pytest.mark.parametrize("state", ["in_place", "absent"])
def test_a_view_whose_own_view_was_dropped_holds_nothing_up(site: MySqlSite, backup: str, state: str) -> None:
    """Killed while it drops views: what is left of them cannot be dumped, and is noted already."""
    site.sql("CREATE VIEW above AS SELECT name FROM late")
    whole = definitions(site, site.database)
    run_until(site, 0, before=f"DROP VIEW IF EXISTS `{site.database}`.".encode())
    site.sql("DROP VIEW late")
    run = restore(site, state, backup=backup)
    assert run.changed, run.msg
    where = site.database if state == "absent" else f"{site.database}__original"
    assert definitions(site, where)["views"] == whole["views"]
    assert definitions(site, site.database)["triggers"] == whole["triggers"]
    assert not site.exists(f"{site.database}__restored")


@pytest.mark.procedure("E9")
def test_tables_that_somebody_has_moved_by_hand_are_not_passed_over(site: MySqlSite, backup: str) -> None:
    """To give up a move says that no table was moved; it is refused where one is in the original."""
    run_until(site, 0, before=b"RENAME TABLE `")
    site.sql(f"RENAME TABLE log TO {quoted(site.database + '__original')}.log")
    run = restore(site, "absent")
    assert run.failed, backup
    assert "it has tables (log), though no restore has moved those of" in run.msg
    assert site.exists(f"{site.database}__restored")


def list_order(site: MySqlSite, database: str) -> list[str]:
    """Triggers of one moment, as they are executed."""
    query = (
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s AND EVENT_OBJECT_TABLE = 'log'"
        " AND EVENT_MANIPULATION = 'INSERT' ORDER BY ACTION_ORDER"
    )
    return [name for (name,) in site.sql(query, [database], database="")]


@pytest.mark.procedure("E9")
def test_triggers_of_one_moment_stay_in_their_order(site: MySqlSite) -> None:
    """Each sees what the one before it has made of the row. Killed while they are dropped, given up, and restored."""
    names = ["zz", "aa", "mm"]
    for name in names:
        site.sql(f"CREATE TRIGGER {name} BEFORE INSERT ON log FOR EACH ROW SET new.said = concat(new.said, '{name}')")
    made = run_module("mysql_backup", site.params())
    assert made.changed, made.msg
    run_until(site, 0, before=f"DROP TRIGGER IF EXISTS `{site.database}`.`zz`".encode())
    assert list_order(site, site.database) == ["zz"]
    assert restore(site, "absent").changed
    assert list_order(site, site.database) == names
    placed = place(site)
    assert placed.changed, placed.msg
    assert list_order(site, site.database) == names
    assert list_order(site, f"{site.database}__original") == names
