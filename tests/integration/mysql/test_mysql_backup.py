# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_backup on MariaDB with its replica and on both S3 servers, by an account of the documented rights."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.backups import PATIENCE
from support.exchanges import MOMENTS, PROBLEMS, Exchange
from support.modules import finish_module, run_module, start_module
from support.mysql_sites import RIGHTS, MySqlSite, quoted
from support.s3_proxy import s3_proxy

pytestmark = [pytest.mark.lab("mariadb", "versitygw", "s3")]


@pytest.mark.procedure("E7", "E8")
def test_a_backup_is_made_once_and_has_everything(site: MySqlSite) -> None:
    """Check mode says so and writes nothing; a second run finds it; the S3 server holds what the manifest says."""
    rehearsed = run_module("mysql_backup", site.params(), check=True)
    assert rehearsed.changed, rehearsed.msg
    assert site.bucket.names() == []
    made = run_module("mysql_backup", site.params())
    assert made.changed, made.msg
    assert [item["what"] for item in made["plan"]] == [item["what"] for item in rehearsed["plan"]]
    names = [key.rpartition("/")[2] for key in site.bucket.names()]
    assert sorted(names) == ["dump.sql.zst", "manifest.json", "started.json", "tables.json"]
    backup = made["backup"]
    assert (backup["tables"], backup["rows"], backup["definitions"]) == (5, 2052, 7)
    assert re.fullmatch(r"\d+-\d+-\d+(,.*)?", backup["gtid"])
    logs = {row[0] for row in site.sql("SHOW BINARY LOGS", database="")}
    assert backup["log_file"] in logs
    assert backup["log_position"] > 0
    again = run_module("mysql_backup", site.params())
    assert not again.changed
    assert again["backup"]["run_id"] == backup["run_id"]


@pytest.mark.procedure("E7")
def test_encryption_is_asked_for_and_read_back(moto_site: MySqlSite) -> None:
    """Each object is encrypted by the server's own word, and the manifest says so."""
    made = run_module("mysql_backup", moto_site.params(encryption="AES256"))
    assert made.changed, made.msg
    assert made["backup"]["encryption"] == "AES256"
    for key in moto_site.bucket.names():
        head = moto_site.bucket.client.head_object(Bucket=moto_site.bucket.bucket, Key=key)
        assert head["ServerSideEncryption"] == "AES256"


@pytest.mark.procedure("E7")
def test_a_server_that_does_not_encrypt_is_refused(site: MySqlSite) -> None:
    """versitygw takes the request and encrypts nothing; no object stays behind."""
    run = run_module("mysql_backup", site.params(encryption="AES256"))
    assert run.failed
    assert "encryption AES256 was asked for, the server reports none" in run.msg
    assert site.bucket.names() == []
    assert site.bucket.uploads() == []


def read_parent(pid: int) -> int:
    """The process that has started this one: each client program leads a session of its own."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.procedure("E8")
def test_the_password_is_nowhere(site: MySqlSite) -> None:
    """Not in an argument or in the environment of any process of the run, not in a file of it, not in what it writes."""
    password = Path(site.params()["option_file"]).read_text().rpartition("password=")[2].strip().encode()
    hits: list[str] = []
    sampled: set[str] = set()

    def sample(leader: int) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if leader not in (session := os.getsid(int(folder.name)), read_parent(session)):
                    continue
                argv = (folder / "cmdline").read_bytes()
                if password in argv or password in (folder / "environ").read_bytes():
                    hits.append(argv.decode("utf-8", "replace"))
                if b"--version" not in argv:
                    sampled.add(argv.split(b"\0")[0].rpartition(b"/")[2].decode())
            except OSError:
                continue

    holder = site.connect()
    with closing(holder), holder.cursor() as cursor:
        cursor.execute("LOCK TABLES child WRITE")  # which holds up the dump until it has been looked at
        process = start_module("mysql_backup", site.params())
        end = time.monotonic() + 120
        while "mariadb-dump" not in sampled and process.poll() is None:
            assert time.monotonic() < end
            sample(process.pid)
    while process.poll() is None:
        sample(process.pid)
    run = finish_module(process)
    assert run.changed, run.msg
    assert "mariadb-dump" in sampled
    assert hits == []
    assert password.decode() not in str(run.result) + run.stderr
    for key in site.bucket.names():
        body = site.bucket.get(key)
        if key.endswith(".zst"):
            body = subprocess.run(["zstd", "-dc"], input=body, capture_output=True, check=True).stdout
            assert b"-- Dump completed" in body
            assert b"Enter password" not in body
        assert password not in body


@pytest.mark.procedure("E8")
def test_tables_without_transactions_are_refused_by_name(site: MySqlSite) -> None:
    """In check mode too, before anything is written."""
    site.sql("CREATE TABLE old_one (id int) ENGINE=MyISAM")
    site.sql("CREATE TABLE scratch (id int) ENGINE=MEMORY")
    for check in (True, False):
        run = run_module("mysql_backup", site.params(), check=check)
        assert run.failed
        assert run["error"]["refused"]
        assert "old_one (MyISAM)" in run.msg
        assert "scratch (MEMORY)" in run.msg
    assert site.bucket.names() == []


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ("SELECT, SHOW", "it is not there, or this account has no right in it|SELECT in"),
        pytest.param("SHOW VIEW, ", "GRANT SHOW VIEW ON", marks=pytest.mark.sweep),
        ("TRIGGER, ", "GRANT TRIGGER ON"),
        pytest.param(", EVENT", "GRANT EVENT ON", marks=pytest.mark.sweep),
        ("GRANT SELECT ON mysql.proc TO lowtide_backup@'%';", "routines are left out"),
        pytest.param("BINLOG MONITOR, ", "GRANT BINLOG MONITOR ON", marks=pytest.mark.sweep),
        pytest.param(", REPLICA MONITOR", "SLAVE MONITOR", marks=pytest.mark.sweep),
    ],
)
def test_each_documented_right_is_needed(site: MySqlSite, left_out: str, words: str) -> None:
    """An account with all of them but one is refused, and what it lacks is named."""
    user = f"few_{os.getpid()}_{site.database[-4:]}"
    site.sql(f"CREATE USER {user}@'%' IDENTIFIED BY '{user}'", database="")
    try:
        pattern = site.database.replace("_", "\\_")
        text = RIGHTS.read_text(encoding="utf-8").replace("`shop`", f"`{pattern}`")
        assert left_out in text
        text = text.replace(left_out, "SHOW" if left_out.startswith("SELECT") else "")
        for grant in re.findall(r"^GRANT [^;]* TO lowtide_backup@'%';$", text, re.MULTILINE):
            site.sql(grant.replace("lowtide_backup", user), database="")
        run = run_module(
            "mysql_backup", site.params(option_file=None, login_user=user, login_password=user), check=True
        )
        assert run.failed, run.result
        assert re.search(words, run.msg)
        assert site.bucket.names() == []
    finally:
        site.sql(f"DROP USER {user}@'%'", database="")


def wrap_dump(folder: Path, *, before: str = "", after: str = "") -> str:
    """A folder of programs in which mariadb-dump does something else as well."""
    for name in ("mariadb", "zstd"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    script = folder / "mariadb-dump"
    script.write_text(
        f'#!/bin/sh\ncase "$1" in --version) exec /usr/bin/mariadb-dump --version;; esac\n{before}\n/usr/bin/mariadb-dump "$@"\n{after}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(folder)


@pytest.mark.procedure("E8")
def test_ddl_during_the_dump_is_named(site: MySqlSite, tmp_path: Path) -> None:
    """A dump that may be of two states does not count."""
    socket = site.facts["primary"]["socket"]
    change = f"mariadb --no-defaults -S {socket} {site.database} -e 'ALTER TABLE child ADD COLUMN late int; CREATE TABLE young (id int)'"
    run = run_module("mysql_backup", site.params(bin_dir=wrap_dump(tmp_path, after=change)))
    assert run.failed
    assert "changed by DDL during the dump: table child (redefined), table young (made)" in run.msg
    assert site.bucket.names() == []


def test_a_dump_that_dies_is_none(site: MySqlSite, tmp_path: Path) -> None:
    """zstd would close a valid frame over half a dump: the producer's exit status counts, and nothing stays."""
    run = run_module(
        "mysql_backup", site.params(bin_dir=wrap_dump(tmp_path, before="echo '-- half'; echo broken >&2; exit 3"))
    )
    assert run.failed
    assert "mariadb-dump: exit status 3: broken" in run.msg
    assert site.bucket.names() == []
    assert site.bucket.uploads() == []


def test_a_dump_without_its_end_does_not_count(site: MySqlSite, tmp_path: Path) -> None:
    """Whatever the exit status says."""
    run = run_module("mysql_backup", site.params(bin_dir=wrap_dump(tmp_path, before="echo '-- MariaDB dump'; exit 0")))
    assert run.failed
    assert "it has no end mark" in run.msg
    assert site.bucket.names() == []


def test_retention_keeps_the_last_one_that_counts(site: MySqlSite) -> None:
    """Older ones go only after a new one was verified; one that was damaged is followed by a new one, and nothing goes for it."""
    runs: list[str] = []
    for _number in range(3):
        # The names of one second are in no order.
        while runs and time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) <= runs[-1].partition("-")[0]:
            time.sleep(0.05)
        made = run_module("mysql_backup", site.params(max_age="0", keep=2))
        assert made.changed, made.msg
        runs.append(made["backup"]["run_id"])
    kept = {key.split("/")[-2] for key in site.bucket.names()}
    assert len(kept) == 2
    assert runs[-1] in kept
    newest = next(key for key in site.bucket.names() if runs[-1] in key and key.endswith("dump.sql.zst"))
    body = bytearray(site.bucket.get(newest))
    body[len(body) // 2] ^= 1
    site.bucket.client.put_object(Bucket=site.bucket.bucket, Key=newest, Body=bytes(body))
    found = run_module("mysql_backup", site.params(keep=1), check=True)
    assert [entry["run_id"] for entry in found["bad"]] == [runs[-1]]
    assert kept == {key.split("/")[-2] for key in site.bucket.names()}


@pytest.mark.procedure("E7")
def test_rows_and_position_are_of_one_moment(site: MySqlSite) -> None:
    """While another session writes: what was committed up to the position is in the dump, and nothing after it."""
    site.sql("CREATE TABLE busy (id int PRIMARY KEY)")
    site.sql("CREATE TABLE twin (id int PRIMARY KEY)")
    written: dict[int, int] = {}
    stop = threading.Event()

    def write() -> None:
        with closing(site.connect()) as connection, connection.cursor() as cursor:
            number = 0
            while not stop.is_set():
                number += 1
                cursor.execute("BEGIN")
                cursor.execute("INSERT INTO busy VALUES (%s)", [number])
                cursor.execute("INSERT INTO twin VALUES (%s)", [number])
                cursor.execute("COMMIT")
                cursor.execute("SELECT @@last_gtid")
                written[number] = int(cursor.fetchone()[0].split("-")[2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run = run_module("mysql_backup", site.params())
    finally:
        stop.set()
        writer.join()
    assert run.changed, run.msg
    text = subprocess.run(
        ["zstd", "-dc"], input=site.bucket.get(site.bucket.key("dump.sql.zst")), capture_output=True, check=True
    ).stdout
    position = int(run["backup"]["gtid"].split("-")[2])
    upto = {number for number, sequence in written.items() if sequence <= position}
    assert 0 < len(upto) < len(written)
    for table in (b"busy", b"twin"):
        part = text.partition(b"INSERT INTO `" + table + b"` VALUES\n")[2].partition(b";\n")[0]
        assert {int(number) for number in re.findall(rb"^\((\d+)\)", part, re.MULTILINE)} == upto


def wait_for_replica(site: MySqlSite) -> None:
    """Until the replica has what the primary has written by now."""
    end = time.monotonic() + PATIENCE
    position = site.sql("SELECT @@gtid_binlog_pos", database="")[0][0]
    while site.sql("SELECT MASTER_GTID_WAIT(%s, 1)", [position], database="", server="replica")[0][0] != 0:
        assert time.monotonic() < end


@pytest.mark.procedure("E7")
def test_a_replica_can_be_dumped(site: MySqlSite) -> None:
    """By name only; the position is its own, and its backups have a folder of their own."""
    port = site.facts["replica"]["port"]
    site.sql("DROP EVENT tidy")
    wait_for_replica(site)
    refused = run_module("mysql_backup", site.params(login_port=port))
    assert refused.failed
    assert "this server is a replica" in refused.msg
    made = run_module("mysql_backup", site.params(login_port=port, source="replica"))
    assert made.changed, made.msg
    assert (made["backup"]["source"], made["backup"]["rows"]) == ("replica", 2052)
    wrong = run_module("mysql_backup", site.params(source="replica"))
    assert wrong.failed
    assert "this server is no replica" in wrong.msg


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"database": "mysql"}, "mysql is the server's own"),
        ({"database": "not_there"}, "it is not there"),
        pytest.param({"max_age": "soon"}, "'soon' is not a duration", marks=pytest.mark.sweep),
        pytest.param({"kms_key_id": "k"}, "it goes with encryption aws:kms", marks=pytest.mark.sweep),
        ({"login_port": 3399}, "error 2003"),
        pytest.param({"login_password": "wrong"}, "error 1045", marks=pytest.mark.sweep),
        ({"bucket": "no-such-bucket-of-ours"}, "no-such-bucket-of-ours"),
        pytest.param({"option_file": "/nowhere"}, "it is not there or not readable", marks=pytest.mark.sweep),
    ],
)
def test_bad_input_is_named(site: MySqlSite, more: dict[str, Any], words: str) -> None:
    """With the object, the value and the next step."""
    run = run_module("mysql_backup", site.params(**more), check=True)
    assert run.failed
    assert words in run.msg
    assert run["error"]["next_step"]


def test_names_and_passwords_are_no_code(site: MySqlSite) -> None:
    """An account whose password has every character that means something in an option file."""
    user, password = f"odd_{os.getpid()}", r"""a b#;'"\n=`%s{{x}}"""
    site.sql(f"CREATE USER {user}@'%%' IDENTIFIED BY %s", [password], database="")
    name = f"{site.database}-`x; --"
    site.sql(f"CREATE DATABASE {quoted(name)}", database="")
    try:
        site.sql("CREATE TABLE t (id int)", database=name)
        site.sql(f"GRANT ALL ON *.* TO {user}@'%'", database="")
        made = run_module(
            "mysql_backup", site.params(option_file=None, login_user=user, login_password=password, database=name)
        )
        assert made.changed, made.msg
        assert made["backup"]["tables"] == 1
    finally:
        site.sql(f"DROP DATABASE {quoted(name)}", database="")
        site.sql(f"DROP USER {user}@'%'", database="")


@pytest.mark.procedure("E8")
def test_values_that_a_dump_would_change_are_refused(site: MySqlSite) -> None:
    """FLOAT has six digits in a dump, and a byte without a character is a question mark; what a dump can hold may stay."""
    site.sql("CREATE TABLE `mea``sured` (id int PRIMARY KEY, v float, w float(10,2), d double, g float AS (id / 3))")
    site.sql(
        "INSERT INTO `mea``sured` VALUES (1, 4.5, 1234567.8, 0.12345679104328156, default), (2, NULL, 2.1, 1, default)"
    )
    site.sql("CREATE TABLE old_text (a varchar(9) CHARACTER SET cp1251, b varchar(9) CHARACTER SET latin1)")
    site.sql("INSERT INTO old_text VALUES (_cp1251 x'e0', _latin1 x'818d8f90')")
    site.sql("CREATE VIEW of_measured AS SELECT v FROM `mea``sured`")
    fine = run_module("mysql_backup", site.params())
    assert fine.changed, fine.msg
    site.sql("INSERT INTO `mea``sured` (id, v) VALUES (3, 1234567.8), (4, 16777217 / 3)")
    site.sql("SET sql_mode = ''; INSERT INTO old_text (a) VALUES (_cp1251 x'98')")
    for check in (True, False):
        run = run_module("mysql_backup", site.params(max_age="0"), check=check)
        assert run.failed
        assert run["error"]["refused"]
        assert "mea`sured.v (FLOAT, 2 values), old_text.a (cp1251, 1 value)" in run.msg
    assert len(site.bucket.names()) == 4
    site.sql("ALTER TABLE `mea``sured` MODIFY v double; DELETE FROM old_text")
    exact = run_module("mysql_backup", site.params(max_age="0", keep=1))
    assert exact.changed, exact.msg
    text = subprocess.run(
        ["zstd", "-dc"], input=site.bucket.get(site.bucket.key("dump.sql.zst")), capture_output=True, check=True
    ).stdout
    assert b"(3,1234567.75," in text


def test_a_value_that_comes_during_the_dump_is_refused_too(site: MySqlSite, tmp_path: Path) -> None:
    """The look before the dump cannot see it: nothing of the run counts."""
    site.sql("CREATE TABLE measured (v float)")
    socket = site.facts["primary"]["socket"]
    insert = f"mariadb --no-defaults -S {socket} {site.database} -e 'INSERT INTO measured VALUES (1234567.8)'"
    run = run_module("mysql_backup", site.params(bin_dir=wrap_dump(tmp_path, before=insert)))
    assert run.failed
    assert "measured.v (FLOAT, 1 value)" in run.msg
    assert site.bucket.names() == []


@pytest.mark.procedure("E7")
def test_events_of_a_replica_are_refused(site: MySqlSite) -> None:
    """All are off there: a restore on the primary would say that it succeeded, and none would run again."""
    wait_for_replica(site)
    refused = run_module("mysql_backup", site.params(login_port=site.facts["replica"]["port"], source="replica"))
    assert refused.failed
    assert refused["error"]["refused"]
    assert "1 event of it would be off after a restore, as on this replica (SLAVESIDE_DISABLED): tidy" in refused.msg
    assert site.bucket.names() == []


@pytest.mark.procedure("E7")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_dump_that_is_exchanged_before_its_manifest_does_not_count(moment: str, site: MySqlSite) -> None:
    """What is published is what was verified, whenever another client writes under its name."""
    exchange = Exchange(site.bucket, "dump.sql.zst", moment)
    with s3_proxy(site.bucket.server["endpoint_url"], exchange) as proxy:
        run = run_module("mysql_backup", site.params(endpoint_url=proxy.url))
    assert exchange.done
    assert run.failed
    assert PROBLEMS[moment] in run.msg
    assert ("manifest.json" in str(site.bucket.names())) == (moment == "published")
    after = run_module("mysql_backup", site.params(), check=True)
    assert after["due"], after.result
