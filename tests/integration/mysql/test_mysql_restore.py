# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_restore: beside, compared with the backup, brought into place, and killed at every moment of it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from support.modules import finish_module, run_module, start_module
from support.mysql_proxy import CommandProxy
from support.mysql_sites import MySqlSite, quoted
from support.turns import is_sweep

pytestmark = [pytest.mark.lab("mariadb", "versitygw", "s3")]
SHARES = 16
"""Of how many tests the sweep is made."""


@pytest.fixture
def backup(site: MySqlSite) -> str:
    """A backup of the seeded database; then something is lost in it."""
    name = quoted(site.database)
    site.sql(f"CREATE TRIGGER {name}.named BEFORE UPDATE ON {name}.log FOR EACH ROW SET new.said = upper(new.said)")
    site.sql(
        f"ALTER DATABASE {name} CHARACTER SET latin1 COLLATE latin1_swedish_ci"
    )  # as one that has been moved since
    made = run_module("mysql_backup", site.params())
    assert made.changed, made.msg
    site.sql("DELETE FROM child WHERE id > 40")
    site.sql("DROP VIEW early")
    return str(made["backup"]["run_id"])


def definitions(site: MySqlSite, database: str) -> dict[str, Any]:
    """What a rename cannot carry."""
    names = {
        "views": "SELECT TABLE_NAME, DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s",
        "triggers": "SELECT TRIGGER_NAME, DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s",
        "routines": "SELECT ROUTINE_NAME, DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s",
        "events": "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s",
    }
    return {kind: sorted(site.sql(query, [database], database="")) for kind, query in names.items()}


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
    """F31: a database in use, one that is not ours, a foreign key from elsewhere, a definer without an account, a second original."""
    beside = f"{site.database}__restored"
    site.sql(f"CREATE DATABASE {quoted(beside)}", database="")
    run = run_module("mysql_restore", site.params("restore"))
    assert run.failed
    assert "no restore of this database has made it" in run.msg
    site.sql(f"DROP DATABASE {quoted(beside)}", database="")
    user = site.connect()
    try:
        run = run_module("mysql_restore", site.params("restore", state="in_place"), check=True)
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
    site.sql("CREATE DEFINER = gone@nowhere PROCEDURE of_gone() SELECT 1")
    newer = run_module("mysql_backup", site.params(max_age="0"))
    assert newer.changed, newer.msg
    options = {"state": "in_place", "backup": newer["backup"]["run_id"]}
    run = run_module("mysql_restore", site.params("restore", **options), check=True)
    assert run.failed
    assert "definers of the backup are no accounts of this server: gone@nowhere" in run.msg
    original = f"{site.database}__original"
    site.sql(f"CREATE DATABASE {quoted(original)}", database="")
    run = run_module("mysql_restore", site.params("restore", state="in_place", backup=backup), check=True)
    assert run.failed
    assert f"{original}: it is there" in run.msg


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


def run_until(site: MySqlSite, number: int) -> list[int]:
    """Restore in place through a proxy, killed before its ``number``-th command; return which it has sent that write."""
    server = site.facts["primary"]
    with CommandProxy(server["host"], server["port"], stop_at=number) as proxy:
        params = site.params("restore", state="in_place", login_port=proxy.port, compare_live=False)
        params["server"] = f"{server['host']}:{server['port']}"
        process = start_module("mysql_restore", params)
        proxy.act = lambda: os.killpg(process.pid, signal.SIGKILL)
        if number:
            process.communicate()
        else:
            run = finish_module(process)
            assert not run.failed, run.msg
        return proxy.list_writes()


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
        server = site.facts["primary"]
        again = run_module(
            "mysql_restore",
            site.params("restore", state="in_place", backup=backup, server=f"{server['host']}:{server['port']}"),
        )
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
