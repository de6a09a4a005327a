# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_restore: beside, compared with the backup, brought into place, and killed at every moment of it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

import pymysql
import pytest

from support.modules import run_module
from support.mysql_restores import definitions, place, restore, run_until
from support.mysql_sites import MySqlSite, quoted
from support.turns import is_sweep

pytestmark = [pytest.mark.lab("mariadb", "versitygw", "s3")]
SHARES = 16
"""Of how many tests the sweep is made."""


def assert_in_place(site: MySqlSite, before: dict[str, Any]) -> None:
    """The restored one is whole, and so is the original, under a name of its own."""
    original = f"{site.database}__original"
    assert site.sql("SELECT count(*) FROM child")[0][0] == 50
    assert site.sql("SELECT * FROM early")[0][0] == 1990
    assert site.sql("SELECT next_one(1), nextval(counter)")[0] == (2, 41)
    own = definitions(site, site.database)
    assert [name for name, _definer in own["views"]] == ["early", "late"]
    assert [name for name, _definer in own["triggers"]] == ["named", "noted"]
    assert own["events"] == [("tidy", "ENABLED")]
    assert len(own["routines"]) == 2
    site.sql("INSERT INTO feature (name) VALUES ('one more')")
    assert site.sql("SELECT said FROM log")[0][0] == "one more"
    kept = site.checksums(original)
    kept.pop("_lowtide_restore")
    assert kept == before
    left = definitions(site, original)
    assert [name for name, _definer in left["views"]] == ["late"]
    assert left["triggers"] == own["triggers"]
    assert left["routines"] == own["routines"]
    assert left["events"] == []
    assert not site.exists(f"{site.database}__restored")


@pytest.mark.procedure("E9")
def test_beside_compared_and_brought_into_place(site: MySqlSite, backup: str) -> None:
    """Each step says before what it does; each is done once; the database in use is not touched before the last one."""
    before = site.checksums()
    rehearsed = run_module("mysql_restore", site.params("restore"), check=True)
    assert rehearsed.changed, rehearsed.msg
    assert not site.exists(f"{site.database}__restored")
    beside = run_module("mysql_restore", site.params("restore"))
    assert beside.changed, beside.msg
    assert beside["plan"] == rehearsed["plan"]
    assert beside["backup"] == backup
    assert beside["live_differences"] == ["table child has 40 rows, the backup 50: others"]
    assert site.checksums() == before
    assert definitions(site, f"{site.database}__restored")["events"] == []
    assert len(definitions(site, f"{site.database}__restored")["triggers"]) == 2
    again = run_module("mysql_restore", site.params("restore"))
    assert not again.changed, again.msg
    placed = run_module("mysql_restore", site.params("restore", state="in_place"))
    assert placed.changed, placed.msg
    assert_in_place(site, before)
    last = run_module("mysql_restore", site.params("restore", state="in_place"))
    assert not last.changed, last.msg
    refused = run_module("mysql_restore", site.params("restore", state="in_place", backup="20200101T000000Z-00000000"))
    assert refused.failed
    assert "there is no verified backup 20200101T000000Z-00000000" in refused.msg


CHANGES = [
    (
        "UPDATE feature SET name = 'other' WHERE id = 1500",
        "table feature has 2000 rows as in the backup, and some have other values",
    ),
    ("DELETE FROM child WHERE id = 7", "table child has 49 rows, the backup 50"),
    ("DROP TABLE empty_one", "table empty_one is missing"),
    ("ALTER TABLE log ADD INDEX by_text (said(3))", "table log is defined otherwise"),
    ("SELECT setval(counter, 99)", "sequence counter is another"),
    ("DROP TRIGGER noted", "trigger noted is missing"),
    (
        "ALTER DEFINER = 'lab_root'@'%' VIEW late AS SELECT id, name FROM feature WHERE id > 10",
        "view late is another (definer",
    ),
    ("ALTER PROCEDURE count_features SQL SECURITY INVOKER", "procedure count_features is another"),
    ("CREATE FUNCTION extra() RETURNS int DETERMINISTIC RETURN 1", "function extra is not in the backup"),
]


@pytest.mark.procedure("E9")
def test_each_difference_is_named(site: MySqlSite, backup: str) -> None:
    """F30: a row, a table, an index, a sequence, a trigger, a definer, a routine; and then nothing is brought into place."""
    assert run_module("mysql_restore", site.params("restore", compare_live=False)).changed
    for statement, _words in CHANGES:
        site.sql(statement, database=f"{site.database}__restored")
    run = run_module("mysql_restore", site.params("restore", state="in_place", backup=backup))
    assert run.failed
    for _statement, words in CHANGES:
        assert any(difference.startswith(words) for difference in run["differences"]), (words, run["differences"])
    assert len(run["differences"]) == len(CHANGES)
    assert not site.exists(f"{site.database}__original")
    removed = run_module("mysql_restore", site.params("restore", state="absent"))
    assert removed.changed, removed.msg
    assert not site.exists(f"{site.database}__restored")
    assert not run_module("mysql_restore", site.params("restore", state="absent")).changed


@pytest.mark.procedure("E9")
def test_what_is_refused(site: MySqlSite, backup: str) -> None:
    """F31: a database in use, one that is not ours, a foreign key from elsewhere, a broken view, a definer without an account, a second original."""
    beside = f"{site.database}__restored"
    site.sql(f"CREATE DATABASE {quoted(beside)}", database="")
    run = run_module("mysql_restore", site.params("restore"))
    assert run.failed
    assert "no restore of this database has made it" in run.msg
    site.sql(f"DROP DATABASE {quoted(beside)}", database="")
    assert restore(site, "beside").changed
    user = site.connect()
    try:
        run = restore(site, "in_place")
        assert run.failed
        assert "it is in use by 1 session: root from localhost" in run.msg
        assert len(run["blockers"]) == 1
    finally:
        user.close()
    other = f"{site.database}_other"
    site.sql(f"CREATE DATABASE {quoted(other)}", database="")
    try:
        site.sql(
            f"CREATE TABLE {quoted(other)}.c (id int, FOREIGN KEY (id) REFERENCES {quoted(site.database)}.feature (id))"
        )
        run = run_module("mysql_restore", site.params("restore", state="in_place"), check=True)
        assert run.failed
        assert f"foreign keys of other databases refer to it, and would go with the original: {other}/c" in run.msg
    finally:
        site.sql(f"DROP DATABASE {quoted(other)}", database="")
    site.sql("CREATE TABLE gone (id int); CREATE VIEW of_gone AS SELECT id FROM gone; DROP TABLE gone")
    run = run_module("mysql_restore", site.params("restore", state="in_place"), check=True)
    assert run.failed
    assert "views of it cannot be used any more, so that mariadb-dump cannot note how they are made: of_gone" in run.msg
    site.sql("DROP VIEW of_gone")
    site.sql("CREATE DEFINER = gone@nowhere PROCEDURE of_gone() SELECT 1")
    newer = run_module("mysql_backup", site.params(max_age="0"))
    assert newer.changed, newer.msg
    assert restore(site, "absent").changed
    assert restore(site, "beside").changed
    options = {"state": "in_place", "backup": newer["backup"]["run_id"]}
    run = run_module("mysql_restore", site.params("restore", **options), check=True)
    assert run.failed
    assert "definers of the backup are no accounts of this server: gone@nowhere" in run.msg
    original = f"{site.database}__original"
    site.sql(f"CREATE DATABASE {quoted(original)}", database="")
    run = run_module("mysql_restore", site.params("restore", **options), check=True)
    assert run.failed
    assert f"{original}: it is there" in run.msg
    assert backup != newer["backup"]["run_id"]


@pytest.mark.procedure("E9")
def test_a_table_that_a_transaction_holds_ends_the_move_in_time(site: MySqlSite, backup: str) -> None:
    """From a session of another database, which the list of sessions does not tell: nothing is moved or dropped."""
    assert run_module("mysql_restore", site.params("restore", compare_live=False)).changed, backup
    before = definitions(site, site.database)
    holder = site.connect("mysql")
    try:
        with holder.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute(f"SELECT count(*) FROM {quoted(site.database)}.child")
        run = run_module("mysql_restore", site.params("restore", state="in_place"))
        assert run.failed
        assert f"by one of: {holder.thread_id()}" in run.msg
        assert run["blockers"][0]["holder"] == "root from localhost"
        assert definitions(site, site.database) == before
        assert not site.exists(f"{site.database}__original")
    finally:
        holder.close()
    assert run_module("mysql_restore", site.params("restore", state="in_place")).changed


@pytest.mark.procedure("E9")
@pytest.mark.parametrize("share", range(SHARES) if is_sweep() else ["sample"])
def test_killed_anywhere_and_run_again(site: MySqlSite, backup: str, share: Any) -> None:
    """Before each command that any client of the run sends and that changes something; the next run ends right.

    The restored one and the original are whole then. Each share of the sweep takes every so manieth.
    """
    before = site.checksums()
    writes = run_until(site, 0)
    assert_in_place(site, before)
    total = len(writes)
    sample = [total // 3, total * 4 // 5]
    chosen = sample if share == "sample" else range(share, total, SHARES)
    points = [writes[place] for place in chosen]
    print(f"{len(points)} of {total} commands")
    for point in points:
        site.sql(f"DROP DATABASE {quoted(site.database)}; CREATE DATABASE {quoted(site.database)}", database="")
        site.sql(f"DROP DATABASE IF EXISTS {quoted(site.database + '__original')}", database="")
        site.sql("CREATE TABLE lost (id int PRIMARY KEY)")
        site.sql("INSERT INTO lost VALUES (1), (2)")
        site.sql("CREATE TRIGGER gone BEFORE INSERT ON lost FOR EACH ROW SET new.id = new.id + 1")
        lost = site.checksums()
        run_until(site, point)
        again = restore(site, "in_place", backup=backup)
        if again.failed and "there is no whole copy of backup" in again.msg:  # killed before it was whole
            again = place(site, backup=backup)
        assert not again.failed, (point, again.msg)
        kept = site.checksums(f"{site.database}__original")
        kept.pop("_lowtide_restore")
        assert kept == lost, point
        assert definitions(site, f"{site.database}__original")["triggers"] == [("gone", "root@localhost")], point
        assert site.sql("SELECT (SELECT number FROM early), (SELECT count(*) FROM child)")[0] == (1990, 50), point
        assert len(definitions(site, site.database)["triggers"]) == 2, point


@pytest.mark.procedure("E9")
def test_a_damaged_backup_is_not_restored(site: MySqlSite, backup: str) -> None:
    """A byte that was flipped after the manifest was read: the checksum tells, and nothing beside counts."""
    key = site.bucket.key("dump.sql.zst")
    body = bytearray(site.bucket.get(key))
    body[len(body) // 2] ^= 1
    site.bucket.client.put_object(Bucket=site.bucket.bucket, Key=key, Body=bytes(body))
    run = run_module("mysql_restore", site.params("restore", backup=backup))
    assert run.failed
    assert "has been replaced since it was verified" in run.msg
    assert not site.exists(f"{site.database}__restored")


@pytest.mark.procedure("E9")
def test_an_interrupted_move_asks_again_and_can_be_given_up(site: MySqlSite, backup: str) -> None:
    """Killed before the rename: the application came back, so nothing is renamed; what was dropped is made again."""
    whole = definitions(site, site.database)
    run_until(site, 0, before=b"RENAME TABLE `")
    assert definitions(site, site.database)["triggers"] == []
    site.sql("CREATE TRIGGER by_hand BEFORE INSERT ON child FOR EACH ROW SET new.feature_id = 1")
    user = site.connect()
    try:
        with user.cursor() as cursor:
            cursor.execute("INSERT INTO child (id) VALUES (4711)")
        run = restore(site, "in_place")
        assert run.failed
        assert run["error"]["refused"]
        assert "it is in use by 1 session: root from localhost" in run.msg
        assert f"state absent makes them again, and removes {site.database}__restored" in run.msg
        assert definitions(site, site.database)["triggers"] == [("by_hand", "root@localhost")]
    finally:
        user.close()
    for key in site.bucket.names():  # to give up needs no backup
        site.bucket.client.delete_object(Bucket=site.bucket.bucket, Key=key)
    rehearsed = restore(site, "absent", check=True)
    assert rehearsed.changed, rehearsed.msg
    assert site.exists(f"{site.database}__restored")
    undone = restore(site, "absent")
    assert undone.changed, undone.msg
    assert undone["plan"] == rehearsed["plan"]
    assert "view late, trigger noted, trigger named, event tidy" in " ".join(undone["evidence"])
    whole["triggers"] = sorted([*whole["triggers"], ("by_hand", "root@localhost")])
    assert definitions(site, site.database) == whole
    assert site.sql("SELECT feature_id FROM child WHERE id = 4711") == ((1,),)
    assert not site.exists(f"{site.database}__restored")
    assert not site.exists(f"{site.database}__original")
    assert not restore(site, "absent").changed
    assert undone["backup"] == backup


@pytest.mark.procedure("E9")
def test_an_interrupted_move_notes_what_was_made_since(site: MySqlSite, backup: str) -> None:
    """Killed before the rename: a trigger that a person has made meanwhile does not stop it, and is kept with the rest."""
    run_until(site, 0, before=b"RENAME TABLE `")
    site.sql("CREATE TRIGGER by_hand BEFORE INSERT ON child FOR EACH ROW SET new.feature_id = 1")
    placed = restore(site, "in_place")
    assert placed.changed, placed.msg
    assert [name for name, _definer in definitions(site, site.database)["triggers"]] == ["named", "noted"]
    kept = definitions(site, f"{site.database}__original")["triggers"]
    assert [name for name, _definer in kept] == ["by_hand", "named", "noted"]
    assert backup == placed["backup"]


@pytest.mark.procedure("E9")
def test_a_move_is_completed_whatever_was_changed_since_its_tables_are_in_place(site: MySqlSite, backup: str) -> None:
    """Killed right after the rename: it is not given up, and what the application has changed meanwhile is told."""
    run_until(site, 0, before=b'\\"phase\\": \\"moved\\"')
    site.sql("SELECT nextval(counter)")
    site.sql("CREATE TABLE younger (id int); ALTER TABLE child ADD COLUMN more int")
    site.sql("CREATE TRIGGER younger_one BEFORE INSERT ON younger FOR EACH ROW SET new.id = 1")
    for key in site.bucket.names():  # by retention, say
        site.bucket.client.delete_object(Bucket=site.bucket.bucket, Key=key)
    refused = restore(site, "absent")
    assert refused.failed
    assert f"Complete it: run with state in_place and backup {backup}" in refused.msg
    user = site.connect()
    try:
        placed = restore(site, "in_place")
    finally:
        user.close()
    assert placed.changed, placed.msg
    assert [difference.rpartition(" is ")[0] for difference in placed["differences"]] == [
        "table child",
        "table younger",
        "sequence counter",
        "trigger younger_one",
    ]
    assert "changed since its tables are in place: table child" in " ".join(placed["evidence"])
    assert [name for name, _definer in definitions(site, site.database)["triggers"]] == [
        "named",
        "noted",
        "younger_one",
    ]
    assert placed["backup"] == backup
    assert not site.exists(f"{site.database}__restored")


@pytest.mark.procedure("E9")
def test_events_whose_time_has_passed_do_not_hold_up_a_restore(site: MySqlSite) -> None:
    """The server drops them when they are made, or makes them disabled: they are named, as is each that is off."""
    site.sql(
        """SET timestamp = 1000000000;
        CREATE EVENT once ON SCHEDULE AT '2001-09-10 00:00:00' DO SELECT 1;
        CREATE EVENT `on``ce kept` ON SCHEDULE AT '2001-09-10 00:00:00' ON COMPLETION PRESERVE DO SELECT 1;
        CREATE EVENT daily ON SCHEDULE EVERY '1:30' DAY_HOUR ENDS '2001-09-10 00:00:00' COMMENT 'x' DO SELECT 1"""
    )
    site.sql("CREATE EVENT off ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE DO SELECT 1")
    site.sql("CREATE EVENT later ON SCHEDULE AT '2037-01-01 00:00:00' DO SELECT 1")
    made = run_module("mysql_backup", site.params())
    assert made.changed, made.msg
    placed = place(site)
    assert placed.changed, placed.msg
    assert placed["differences"] == []
    time = "since its time has passed (2001-09-10 00:00:00, time zone SYSTEM)"
    assert placed["inactive_events"] == [
        f"event daily: not made, {time}",
        "event off: off, as in the backup (DISABLE)",
        f"event on`ce kept: off, {time}",
        f"event once: not made, {time}",
    ]
    assert "4 events of the backup do not run: daily, off, on`ce kept, once" in " ".join(placed["evidence"])
    assert definitions(site, site.database)["events"] == [
        ("later", "ENABLED"),
        ("off", "DISABLED"),
        ("on`ce kept", "DISABLED"),
        ("tidy", "ENABLED"),
    ]
    assert not site.exists(f"{site.database}__restored")
    assert not restore(site, "in_place").changed


@pytest.mark.procedure("E9")
def test_rights_on_routines_stay(site: MySqlSite, backup: str) -> None:
    """A routine that is dropped takes them along: they are replaced, whether they are as in the backup or not."""
    user = f"app_{os.getpid()}_{site.database[-4:]}"
    name = quoted(site.database)
    site.sql(f"CREATE USER {user}@localhost", database="")
    try:
        site.sql(
            "CREATE OR REPLACE FUNCTION next_one(x int) RETURNS int DETERMINISTIC RETURN x - 1; CREATE PROCEDURE p() DO 1"
        )
        for routine in ("PROCEDURE {}.count_features", "FUNCTION {}.next_one", "PROCEDURE {}.p"):
            site.sql(f"GRANT EXECUTE ON {routine.format(name)} TO {user}@localhost", database="")
        placed = place(site)
        assert placed.changed, placed.msg
        app = pymysql.connect(unix_socket=site.facts["primary"]["socket"], user=user)
        with closing(app), app.cursor() as cursor:
            cursor.execute(f"SELECT {name}.next_one(1)")
            assert cursor.fetchall() == ((2,),)
            cursor.execute(f"CALL {name}.count_features()")
        assert definitions(site, site.database)["routines"] == [
            ("count_features", "root@localhost"),
            ("next_one", "root@localhost"),
        ]
        assert len(definitions(site, f"{site.database}__original")["routines"]) == 3
        assert backup == placed["backup"]
    finally:
        site.sql(f"DROP USER {user}@localhost", database="")


@pytest.mark.procedure("E9")
def test_a_replica_is_not_restored_on(site: MySqlSite, backup: str) -> None:
    """What is written there is no part of what it follows, whether read_only would let it or not."""
    server = site.facts["replica"]
    for state in ("beside", "absent"):
        run = run_module(
            "mysql_restore", site.params("restore", state=state, login_port=server["port"], backup=backup), check=True
        )
        assert run.failed
        assert run["error"]["refused"]
        assert f"it is a replica of {server['host']}:{site.facts['primary']['port']}" in run.msg


@pytest.mark.procedure("E9")
def test_a_backup_of_another_version_is_compared_by_its_rows(site: MySqlSite, backup: str) -> None:
    """Another mariadb-dump may word the same definition otherwise: that is told, and rows and objects still count."""
    key = site.bucket.key("manifest.json")
    manifest = json.loads(site.bucket.get(key))
    manifest["client_version"] = "10.6.1"
    site.bucket.client.put_object(Bucket=site.bucket.bucket, Key=key, Body=json.dumps(manifest).encode())
    assert restore(site, "beside").changed
    beside = f"{site.database}__restored"
    site.sql(
        "ALTER PROCEDURE count_features SQL SECURITY INVOKER; ALTER TABLE log ADD INDEX (said(3))", database=beside
    )
    run = restore(site, "beside")
    assert not run.failed, run.msg
    assert [words.partition(" is ")[0] for words in run["not_compared"]] == ["table log", "procedure count_features"]
    assert "the backup is of server" in " ".join(run["evidence"])
    site.sql("DROP TRIGGER noted; DELETE FROM child WHERE id = 7", database=beside)
    failed = restore(site, "in_place")
    assert failed.failed
    assert failed["differences"] == ["table child has 49 rows, the backup 50", "trigger noted is missing"]
    assert backup == failed["backup"]
