# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pgbackrest_restore_drill on a real server and repository: what it proves, what it refuses, and that it reaches nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from labkit.postgresql_programs import USER

from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import stamp
from support.modules import ModuleRun, finish_module, start_module

from .conftest import AS_OWNER, PATIENCE, STANZA, Archived

pytestmark = pytest.mark.procedure("D19", "E6", "A10")
QUERY = "SELECT count(*) >= 5000 AS has_orders, count(*) AS orders FROM orders"
MARK = ".lowtide-drill"
WAITS = """
CREATE FUNCTION has_come(file text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  WHILE (pg_stat_file(file, true)).size IS NULL LOOP PERFORM pg_sleep(0.05); END LOOP; RETURN true; END $$
"""


class Drilled:
    """The archived server with a backup, and the module on it as their owner."""

    def __init__(self, archived: Archived) -> None:
        self.archived, self.place = archived, archived.place
        self.directory, self.evidence = self.place / "drill", self.place / "evidence"
        self.key = self.place / "drill.pem"

    def start(self, *, check: bool = False, **more: Any) -> subprocess.Popen[str]:
        """Start the module."""
        params = {
            "stanza": STANZA,
            "config": self.archived.config,
            "directory": str(self.directory),
            "database": "postgres",
            "query": QUERY,
            "signing_key": str(self.key),
            "evidence_dir": str(self.evidence),
            "superuser": USER,
            "server_bin_dir": str(self.archived.programs),
            "timeout": 200,
            **more,
        }
        return start_module("pgbackrest_restore_drill", params, check=check, wrapper=AS_OWNER)

    def drill(self, *, check: bool = False, **more: Any) -> ModuleRun:
        """The module to its end."""
        return finish_module(self.start(check=check, **more))

    def list_evidence(self) -> list[Path]:
        """The documents that were written."""
        return sorted(self.evidence.glob("*.json")) if self.evidence.exists() else []

    def date_back(self, document: Path, age: timedelta) -> None:
        """Have the evidence say that the drill ended some time ago, signed by the same key."""
        content = json.loads(document.read_text()) | {"finished_at": stamp(datetime.now(UTC) - age)}
        document.write_text(json.dumps(content))
        sign = ("pkeyutl", "-sign", "-inkey", self.key, "-rawin", "-in", document, "-out", f"{document}.sig")
        self.archived.run("openssl", *sign)

    def list_left(self) -> list[str]:
        """What is in the directory of drills."""
        return sorted(path.name for path in self.directory.iterdir()) if self.directory.exists() else []

    def list_archived(self) -> list[str]:
        """The WAL and history files in the repository."""
        return sorted(path.name for path in (self.place / "repository/archive").rglob("*") if path.is_file())

    def is_quiet(self) -> bool:
        """Whether nothing runs on the directory of drills any more."""
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            try:
                if str(self.directory) in os.readlink(entry):
                    return False
            except OSError:
                continue
        return True


@pytest.fixture
def drilled(archived: Archived) -> Iterator[Drilled]:
    """A table, a full backup that is verified, and a commit after it that is in the archive only."""
    made = Drilled(archived)
    archived.run("openssl", "genpkey", "-algorithm", "ed25519", "-out", made.key)
    made.key.chmod(0o600)
    archived.sql("CREATE TABLE orders AS SELECT g, md5(g::text) AS note FROM generate_series(1, 5000) g")
    assert not archived.back_up().failed
    archived.sql("INSERT INTO orders VALUES (5001, 'after the backup')")
    wait_archived(made)
    yield made
    for server in made.directory.glob("drill-*/data/postmaster.pid"):
        os.kill(int(server.read_text().split()[0]), signal.SIGQUIT)


def wait_archived(made: Drilled) -> None:
    """Have the current segment archived, and wait until it is in the repository."""
    segment = made.archived.sql("SELECT pg_walfile_name(pg_switch_wal())")
    end = time.monotonic() + PATIENCE
    while made.archived.sql(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver") != "t":
        assert time.monotonic() < end, f"{segment} is not archived"
        time.sleep(0.05)


def make_waiting_query(made: Drilled) -> tuple[str, Path]:
    """A query by which a drill stands still until a file is there, and the file."""
    made.archived.sql(WAITS)
    wait_archived(made)
    file = made.place / "go-on"
    return f"SELECT public.has_come('{file}') AS has_come", file


def test_a_backup_is_proven_and_then_young_enough(drilled: Drilled) -> None:
    """Check mode predicts it; the commit after the backup is there; nothing came into the repository; all is removed."""
    predicted = drilled.drill(check=True)
    assert (predicted.failed, predicted.changed, drilled.directory.exists()) == (False, True, False), predicted.msg
    archived = drilled.list_archived()
    queued = drilled.place / f"spool/archive/{STANZA}/out/000000010000000000000007.ok"
    queued.parent.mkdir(parents=True)
    queued.touch()
    for path in (drilled.place / "spool").rglob("*"):
        shutil.chown(path, USER, USER)
    run = drilled.drill()
    assert queued.exists(), "the queue of the live server"
    assert (run.failed, run.changed, run["plan"]) == (False, True, predicted["plan"]), run.msg
    assert run["answer"] == [{"has_orders": True, "orders": 5001}]
    assert run["drill"]["checks"][-1] == "pg_checksums: every block"
    assert any("pg_amcheck" in check for check in run["drill"]["checks"])
    assert 0 <= run["drill"]["rpo_seconds"] <= 600
    assert run["drill"]["rto_seconds"] >= run["restore_seconds"] + run["recovery_seconds"]
    assert drilled.list_archived() == archived
    assert drilled.list_left() == []
    assert drilled.is_quiet()
    (path,) = drilled.list_evidence()
    public = drilled.place / "drill.pub"
    drilled.archived.run("openssl", "pkey", "-in", drilled.key, "-pubout", "-out", public)
    checked = ("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", path, "-sigfile", f"{path}.sig")
    assert "Verified Successfully" in drilled.archived.run("openssl", *checked)
    document = json.loads(path.read_text())
    assert (document["proven"], document["backup"]) == (True, run["backup"]["label"])

    again = drilled.drill()
    assert (again.failed, again.changed, again["plan"]) == (False, False, [])
    assert again["last"]["backup"] == run["backup"]["label"]
    assert len(drilled.list_evidence()) == 1

    failed = drilled.drill(max_age="0s", on_due="fail")
    assert failed.failed
    assert "allowed are 0 s" in failed.msg
    looking: dict[str, Any] = dict.fromkeys(("directory", "database", "query", "signing_key")) | {"on_due": "fail"}
    seen = drilled.drill(**looking, public_keys=[run["drill"]["public_key"]])
    assert (seen.failed, seen["last"]["path"]) == (False, str(path)), seen.msg
    assert "neither it nor public_keys is given" in drilled.drill(**looking).msg
    drilled.date_back(path, timedelta(days=6, hours=23))
    weekly = drilled.drill(check=True)
    assert "would be 13 d 23 h old at the next run, allowed are 7 d" in weekly["summary"]
    for options in ({"on_due": "fail"}, {"interval": "10m"}):
        young = drilled.drill(check=True, **options)
        assert (young.failed, young.changed) == (False, False), young.msg
    questions: list[dict[str, Any]] = [{"query": "SELECT true AS other"}, {"database": "template1"}]
    for question in questions:
        other = drilled.drill(**question, on_due="fail")
        assert "there is no evidence of a proven drill with this" in other.msg
    path.write_text(path.read_text().replace('"proven": true', '"proven":  true'))
    assert drilled.drill(check=True)["bad"][0]["problem"] == "its signature is not of this key"


def test_settings_of_the_original_do_not_count(drilled: Drilled) -> None:
    """It archives, streams, subscribes and preloads nothing, though all of that is in the backup; a tablespace is inside, no checksums."""
    archived = drilled.archived
    space = drilled.place / "space"
    space.mkdir()
    shutil.chown(space, USER, USER)
    archived.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    archived.sql("CREATE TABLE fast_orders TABLESPACE fast AS SELECT 1 AS i")
    archived.sql("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
    archived.sql("ALTER SYSTEM SET max_connections = 300")
    archived.sql("ALTER SYSTEM SET max_prepared_transactions = 5")
    archived.sql("ALTER SYSTEM SET listen_addresses = '127.0.0.1'")
    archived.sql("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
    archived.control("stop")
    archived.run(archived.programs / "pg_checksums", "--disable", "-D", archived.place / "data")
    archived.control("start")
    archived.sql("CREATE DATABASE \"a=b 'c'\"")
    subscription = "CREATE SUBSCRIPTION away CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p"
    archived.sql(f"{subscription} WITH (connect = false, create_slot = false, enabled = false, slot_name = 'x')")
    archived.sql("ALTER SUBSCRIPTION away ENABLE")
    archived.sql("BEGIN; INSERT INTO orders VALUES (0, 'prepared'); PREPARE TRANSACTION 'held'")
    before = sorted(path.name for path in space.rglob("*"))
    assert not archived.back_up(max_age="0s", full_max_age="0s").failed
    query = (
        "SELECT current_setting('archive_mode') = 'off' AND current_setting('archive_command') IN ('', '(disabled)') AS"
        " archives_nothing, current_setting('primary_conninfo') = '' AS streams_not,"
        " current_setting('listen_addresses') = '' AS listens_not,"
        " current_setting('shared_preload_libraries') = '' AS preloads_not,"
        " current_setting('max_logical_replication_workers') = '0' AS subscribes_not,"
        " NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type ~ 'logical|archiver|walreceiver') AS alone,"
        " (SELECT count(*) = 1 FROM fast_orders) AS has_tablespace,"
        " (SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast') AS place"
    )
    run = drilled.drill(query=query)
    assert not run.failed, run.msg
    assert run["drill"]["checks"][-1].startswith("pg_dump: every row of every database; without data checksums")
    assert run["answer"][0]["place"].startswith(str(drilled.directory))
    assert sorted(path.name for path in space.rglob("*")) == before
    assert drilled.list_left() == []

    archived.pgbackrest("annotate", f"--set={run['backup']['label']}", "--annotation=lowtide-damaged=T")
    older = drilled.drill(check=True, max_age="0s")
    assert [each["backup"] for each in older["passed_over"]] == [run["backup"]["label"]]
    assert older["backup"]["label"] == archived.list_backups()[0]["label"]


def test_what_an_application_has_set_is_no_damage(drilled: Drilled) -> None:
    """Timeouts, a role, read only transactions and an event trigger, of the database or the user, come with a backup."""
    archived = drilled.archived
    archived.sql(
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$;"
        " CREATE EVENT TRIGGER forbidden ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION')"
        " EXECUTE FUNCTION forbid()"
    )
    archived.sql("CREATE DATABASE other TEMPLATE postgres")
    for setting in ("statement_timeout = '1ms'", "role = 'pg_monitor'", "default_transaction_read_only = on"):
        archived.sql(f"ALTER DATABASE other SET {setting}")
    archived.sql("ALTER DATABASE postgres SET default_transaction_read_only = on")
    wait_archived(drilled)
    run = drilled.drill(query="SELECT true AS fine")
    assert not run.failed, run.msg
    assert any("pg_amcheck" in check for check in run["drill"]["checks"])


def test_what_must_not_be_is_refused(drilled: Drilled) -> None:
    """Nothing is touched. Options, with what is said of them."""
    live, shut, closed = str(drilled.place / "data"), drilled.place / "shut", drilled.place / "closed"
    shut.mkdir(mode=0o755)
    (closed / "drill").mkdir(parents=True)
    closed.chmod(0o700)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"directory": str(drilled.place / "log")}, "it is not empty: it has"),
        ({"directory": f"{live}/base/drill"}, "is the data directory of a PostgreSQL server"),
        ({"directory": live}, "is the data directory of a PostgreSQL server"),
        ({"directory": str(closed)}, "this user cannot use it: Permission denied"),
        ({"directory": str(closed / "drill")}, "this user cannot use it: Permission denied"),
        ({"directory": "/proc/drill"}, "are free there, and the drill takes"),
        ({"backup": "20200101-000000F"}, "backup 20200101-000000F of stanza shop: the repository has"),
        ({"signing_key": live}, "it cannot be read"),
        ({"query": " "}, "it is empty"),
        ({"directory": None}, "option directory: it is not given"),
        ({"evidence_dir": str(shut / "below")}, "shut is not writable for this user"),
        ({"target": "immediate", "max_rpo": "0s"}, "the newest data in the repository is"),
    ]
    for options, words in cases:
        run = drilled.drill(check="evidence_dir" in options, **options)
        assert run.failed
        assert words in run.msg
        assert run["error"]["refused"]
    assert drilled.archived.sql("SELECT count(*) FROM orders") == "5001"
    assert drilled.list_evidence() == []


def damage(path: Path) -> None:
    """Overwrite bytes in the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(byte ^ 0xFF for byte in content[middle : middle + 8])
    path.write_bytes(content)


@pytest.mark.parametrize(
    "case", ["check", "old", "missing_wal", "damage", "repository", pytest.param("needed_wal", marks=pytest.mark.sweep)]
)
def test_a_failure_proves_nothing_and_leaves_nothing(drilled: Drilled, case: str) -> None:
    """A query that is not true, data that is too old, an archive with a gap, a damaged repository, WAL that the backup itself needs."""
    archived = drilled.archived
    (backup,) = archived.list_backups()
    segments = sorted((drilled.place / f"repository/archive/{STANZA}").glob("15-1/*/0000*-*"))
    options: dict[str, Any] = {}
    if case == "check":
        options, words = {"query": "SELECT count(*) = 7 AS has_seven FROM orders"}, "not true: has_seven is False"
    elif case == "old":
        options, words = {"max_rpo": "0s"}, "the newest data in the repository is"
    elif case == "missing_wal":
        for number in range(3):
            archived.sql(f"INSERT INTO orders VALUES ({6000 + number}, 'later')")
            wait_archived(drilled)
        later = sorted(set((drilled.place / f"repository/archive/{STANZA}").glob("15-1/*/0000*-*")) - set(segments))
        later[0].unlink()
        words = "is missing or damaged"
    elif case == "damage":
        archived.sql(
            "CREATE FUNCTION sorts(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($1, $2)';"
            " CREATE OPERATOR CLASS other FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,"
            " OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 sorts(int, int); CREATE INDEX sorted ON orders (g other);"
            " CREATE OR REPLACE FUNCTION sorts(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)'"
        )
        wait_archived(drilled)
        words = 'exit status 2:\nbtree index "postgres.public.sorted":\nERROR:  item order invariant violated'
    elif case == "repository":
        damage(next((drilled.place / f"repository/backup/{STANZA}" / backup["label"] / "bundle").iterdir()))
        words = "pgbackrest"
    else:
        next(path for path in segments if path.name.startswith(backup["archive"]["stop"])).unlink()
        words = "it ended with"
    run = drilled.drill(**options)
    assert run.failed
    assert words in run.msg, run.msg
    assert ("The backup has damage" in run.msg) is (case == "damage")
    assert not run["error"]["refused"]
    assert drilled.list_evidence() == []
    assert drilled.list_left() == []
    assert drilled.is_quiet()


def test_what_cannot_be_removed_takes_nothing_from_the_proof(drilled: Drilled) -> None:
    """A folder of somebody else is in the way: that is an error, and the evidence is there all the same."""
    query, go_on = make_waiting_query(drilled)
    process = drilled.start(query=query)
    while not (started := list(drilled.directory.glob("drill-*/data/postmaster.pid"))):
        assert process.poll() is None, process.communicate()
    kept = started[0].parents[1] / "tablespaces/kept"
    kept.mkdir(mode=0o755)
    (kept / "file").touch()
    go_on.touch()
    run = finish_module(process)
    assert run.failed
    assert "what a drill has put there cannot be removed" in run.msg
    assert (run["drill"]["proven"], run["drill"]["copy_removed"]) == (True, False)
    assert drilled.is_quiet()
    assert not drilled.drill(query=query, on_due="fail").failed
    for again in (drilled.drill(query=query), drilled.drill(query=query, max_age="0s")):
        assert again.failed, "the copy is all of the data"
        assert "what a drill has put there cannot be removed" in again.msg
    shutil.rmtree(kept)
    after = drilled.drill(query=query)
    assert (after.failed, after.changed, after["drill"], drilled.list_left()) == (False, True, None, []), after.msg


@pytest.mark.parametrize(
    "point",
    ["server", pytest.param("mark", marks=pytest.mark.sweep), pytest.param("data", marks=pytest.mark.sweep)],
)
def test_a_killed_drill_is_made_up_for(drilled: Drilled, point: str) -> None:
    """What it left is ended and removed by the next one; beside a running one no other begins."""
    sign = {"mark": MARK, "data": "drill-*/data/PG_VERSION", "server": "drill-*/data/postmaster.pid"}[point]
    options: dict[str, Any] = {"query": make_waiting_query(drilled)[0]} if point == "server" else {}
    process = drilled.start(**options)
    while not list(drilled.directory.glob(sign)):
        assert process.poll() is None, process.communicate()
    beside = drilled.drill()
    assert beside["error"]["refused"] or process.poll() is not None
    if point == "server":
        assert "another drill is running in it" in beside.msg, beside.msg
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + PATIENCE
    while (run := drilled.drill()).failed:
        assert "is still running" in run.msg, run.msg
        assert time.monotonic() < end
    assert run["drill"]["proven"]
    assert drilled.list_left() == []
    assert drilled.is_quiet()
