# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several runs in one bucket: what was interrupted, what is another server's, what retention removes, what is damaged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.backups import PATIENCE, Site
from support.modules import ModuleRun, finish_module, run_module, start_module
from support.postgresql_servers import wait_for_row
from support.s3_proxy import Fault, Request, s3_proxy

pytestmark = pytest.mark.lab("postgresql", "s3", "versitygw")


def backup(site: Site, **options: Any) -> ModuleRun:
    """A new backup."""
    done = run_module("pg_backup", site.params(max_age="0", **options))
    assert done.changed, done.msg
    return done


def manifest_key(site: Site, run: ModuleRun) -> str:
    """The manifest of a run."""
    return next(key for key in site.names() if key.endswith(f"{run['backup']['run_id']}/manifest.json"))


def rewrite(site: Site, key: str, **changes: Any) -> None:
    """Change fields of a document in the bucket."""
    document = json.loads(site.get(key)) | changes
    site.client.put_object(Bucket=site.bucket, Key=key, Body=json.dumps(document).encode())


def removals(run: ModuleRun) -> list[str]:
    """What is planned to be removed."""
    return [item["object"] for item in run["plan"] if item["what"] == "remove"]


def wait_for_removal(site: Site) -> ModuleRun:
    """Predict until an interrupted run's time is over by the S3 server's clock."""
    end = time.monotonic() + PATIENCE
    while True:
        predicted = run_module("pg_backup", site.params(max_age="0"), check=True)
        if removals(predicted):
            return predicted
        assert time.monotonic() < end, predicted.result


def interrupt(site: Site) -> str:
    """Kill a run when it has sent its dump, and return its folder."""
    started: list[Any] = []

    def rule(request: Request) -> Fault | None:
        if not request.is_dump_read:
            return None
        started[0].send_signal(signal.SIGKILL)
        return Fault(status=500)

    before = set(site.names())
    with s3_proxy(site.server["endpoint_url"], rule) as proxy:
        process = start_module("pg_backup", site.params(endpoint_url=proxy.url, max_age="0"))
        started.append(process)
        process.communicate(timeout=120)
    site.wait_unlocked()
    (folder,) = {key.rpartition("/")[0] for key in set(site.names()) - before}
    return folder


@pytest.mark.procedure("A22")
def test_an_interrupted_run_is_removed_once_its_time_is_over(real_site: Site) -> None:
    """Before that it is named, since it may be at work; nothing is removed by a run that makes no backup."""
    folder = interrupt(real_site)
    url = f"s3://{real_site.bucket}/{folder}/"
    names = {key for key in real_site.names() if key.startswith(folder)}
    first = backup(real_site)
    assert (first["unfinished"], first["removed"]) == ([url], [])
    assert names <= set(real_site.names())
    rewrite(real_site, f"{folder}/started.json", timeout=1)
    idle = run_module("pg_backup", real_site.params())
    assert not idle.changed
    assert names <= set(real_site.names())
    predicted = wait_for_removal(real_site)
    second = backup(real_site)
    assert removals(second) == removals(predicted) == [url]
    assert (second["unfinished"], second["removed"]) == ([], [url])
    assert "removed 1 older or unfinished run" in second["summary"]
    real_site.nothing_left()


def test_a_dump_that_lost_its_manifest_is_never_removed(real_site: Site) -> None:
    """It is named as what does not count."""
    first = backup(real_site)
    folder = manifest_key(real_site, first).rpartition("/")[0]
    real_site.client.delete_object(Bucket=real_site.bucket, Key=f"{folder}/manifest.json")
    rewrite(real_site, f"{folder}/started.json", timeout=1)
    second = backup(real_site, keep=1, keep_for="0")
    assert "has been removed" in second["bad"][0]["problem"]
    assert f"{folder}/dump.pgc.zst" in real_site.names()


@pytest.mark.parametrize("changes", [{"hosts": ["staging:5432"]}, {"timeline": 999}], ids=["host", "timeline"])
def test_the_backup_of_a_copy_does_not_make_ours_superfluous(real_site: Site, changes: dict[str, Any]) -> None:
    """Of another host, or of a timeline that is not in our past: a new one is due, and theirs stays where it is."""
    foreign = backup(real_site)
    rewrite(real_site, manifest_key(real_site, foreign), **changes)
    due = run_module("pg_backup", real_site.params(), check=True)
    assert due["due"] is True
    assert due["foreign"][0]["run_id"] == foreign["backup"]["run_id"]
    own = backup(real_site, keep=1, keep_for="0")
    assert not run_module("pg_backup", real_site.params()).changed
    assert manifest_key(real_site, foreign) in real_site.names()
    info = run_module("pg_backup_info", real_site.s3_params(hosts=own["backup"]["hosts"]))
    listed = [entry["run_id"] for entry in info["backups"]]
    assert own["backup"]["run_id"] in listed
    assert (foreign["backup"]["run_id"] in listed) is ("timeline" in changes)


@pytest.mark.procedure("D25")
def test_retention_removes_older_ones_after_a_new_one_counts(real_site: Site) -> None:
    """Predicted, done, reported; the last verified one stays even where the newest is damaged, and where none is made."""
    runs = [backup(real_site) for _ in range(3)]
    # Apart, since a server may be quick enough to make two in one second.
    for day, run in enumerate(runs, start=1):
        rewrite(real_site, manifest_key(real_site, run), taken_at=f"2026-01-0{day}T00:00:00Z")
    predicted = run_module("pg_backup", real_site.params(max_age="0", keep=2), check=True)
    assert len(removals(predicted)) == 2
    assert len([key for key in real_site.names() if key.endswith("manifest.json")]) == 3
    last = backup(real_site, keep=2)
    assert removals(last) == removals(predicted) == last["removed"]
    assert [url.rstrip("/").rpartition("/")[2] for url in last["removed"]] == [
        run["backup"]["run_id"] for run in runs[:2]
    ]
    info = run_module("pg_backup_info", real_site.s3_params())
    assert [entry["run_id"] for entry in info["backups"]] == [last["backup"]["run_id"], runs[2]["backup"]["run_id"]]
    # The newest is damaged: the one before it is the last that counts, and a failing run removes nothing.
    dump = manifest_key(real_site, last).replace("manifest.json", "dump.pgc.zst")
    real_site.client.put_object(Bucket=real_site.bucket, Key=dump, Body=b"damaged")
    with s3_proxy(
        real_site.server["endpoint_url"], lambda request: Fault(flip_at=9) if request.is_dump_read else None
    ) as proxy:
        failed = run_module("pg_backup", real_site.params(endpoint_url=proxy.url, keep=1, keep_for="0", max_age="0"))
    assert failed.failed
    kept = run_module("pg_backup_info", real_site.s3_params())
    assert [entry["run_id"] for entry in kept["newest"]] == [runs[2]["backup"]["run_id"]]


@pytest.mark.procedure("D25")
def test_nothing_is_removed_when_a_clock_is_wrong(real_site: Site) -> None:
    """A backup from the future: the new one counts, and no older one is touched."""
    first, second = backup(real_site), backup(real_site)
    rewrite(real_site, manifest_key(real_site, second), taken_at="2999-01-01T00:00:00Z")
    done = backup(real_site, keep=1)
    assert done["removed"] == []
    assert "dated 2999-01-01T00:00:00Z" in done["blockers"][0]["what"]
    assert "no older backup is removed" in json.dumps(done["warnings"])
    assert manifest_key(real_site, first) in real_site.names()
    assert not run_module("pg_backup", real_site.params()).changed


@pytest.mark.procedure("A10", "D15")
def test_info_asserts_age_and_finds_the_newest_one_damaged(real_site: Site) -> None:
    """An older whole one does not hide that; a manifest that cannot be read is one bad run."""
    nothing = run_module("pg_backup_info", real_site.s3_params(max_age="1d"))
    assert "there is no verified backup" in nothing.msg
    older, newest = backup(real_site), backup(real_site)
    assert not run_module("pg_backup_info", real_site.s3_params(max_age="1d", verify="full")).failed
    end = time.monotonic() + PATIENCE
    while not (old := run_module("pg_backup_info", real_site.s3_params(max_age="0"))).failed:
        assert time.monotonic() < end  # ages are of whole seconds, and the newest one may be of this second
    assert "allowed are 0 s" in old.msg
    denied = manifest_key(real_site, older)

    def rule(request: Request) -> Fault | None:
        is_denied = request.method == "GET" and request.target.endswith(denied.rpartition("/pg/")[2])
        return Fault(status=403, code="AccessDenied") if is_denied else None

    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        info = run_module("pg_backup_info", real_site.s3_params(endpoint_url=proxy.url))
    assert [entry["run_id"] for entry in info["newest"]] == [newest["backup"]["run_id"]]
    assert "cannot be read" in info["bad"][0]["problem"]
    dump = manifest_key(real_site, newest).replace("manifest.json", "dump.pgc.zst")
    real_site.client.put_object(Bucket=real_site.bucket, Key=dump, Body=b"damaged")
    full = run_module("pg_backup_info", real_site.s3_params(verify="full"))
    assert full.failed
    assert newest["backup"]["run_id"] in full.msg
    assert full["decoded"] == [older["backup"]["run_id"]]


@pytest.mark.procedure("D27")
def test_partitions_by_the_hash_of_an_enum_are_found_in_the_dump(real_site: Site) -> None:
    """pg_dump copies them by the name of the root of their tree; decoded again, the rows are the same."""
    real_site.sql(
        "CREATE TYPE colour AS ENUM ('red', 'green', 'blue');"
        " CREATE TABLE hashed (c colour, i int) PARTITION BY HASH (c);"
        " CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        " CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST (i);"
        " CREATE TABLE hashed_1_rest PARTITION OF hashed_1 DEFAULT;"
        " INSERT INTO hashed SELECT c, g FROM unnest(enum_range(NULL::colour)) c, generate_series(1, 10) g"
    )
    done = backup(real_site)
    assert done["backup"]["rows"] == 2101 + 30
    full = run_module("pg_backup_info", real_site.s3_params(verify="full"))
    assert not full.failed, full.msg
    assert full["decoded"] == [done["backup"]["run_id"]]


@pytest.mark.procedure("A22")
def test_a_standby_is_as_new_as_the_primary_says(real_site: Site) -> None:
    """Named after it in login_host: without it nothing tells that nothing has been written since the last backup."""
    real_site.wait_replayed()
    standby = next(host for host in real_site.lab["postgresql"]["hosts"] if host != real_site.primary)
    both = real_site.params(login_host=f"{standby},{real_site.primary}", source="standby", max_age="0")
    end = time.monotonic() + PATIENCE
    for _ in range(2):
        # Others write to the primary meanwhile: a standby that is a moment behind is refused where the backup before is as new.
        while "this standby lags behind" in (done := run_module("pg_backup", both)).msg:
            assert time.monotonic() < end, done.msg
        assert done.changed, done.msg
        assert (done["backup"]["source"], done["backup"]["rows"]) == ("standby", 2101)


@pytest.mark.procedure("A22")
def test_a_standby_is_dumped_when_asked_for(real_site: Site) -> None:
    """Same manifest, but for its source; the primary is refused then, as the standby is otherwise."""
    real_site.sql("CREATE UNLOGGED TABLE passing (i int); INSERT INTO passing VALUES (1)")
    real_site.wait_replayed()
    hosts = real_site.lab["postgresql"]["hosts"]
    standby = next(host for host in hosts if host != real_site.primary)
    done = run_module("pg_backup", real_site.params(login_host=standby, source="standby"))
    assert done.changed, done.msg
    assert (done["backup"]["source"], done["backup"]["hosts"]) == ("standby", [f"{standby}:5432"])
    assert (done["backup"]["tables"], done["backup"]["rows"]) == (4, 2101)
    assert not run_module("pg_backup", real_site.params(login_host=standby, source="standby")).changed
    refused = run_module("pg_backup", real_site.params(source="standby"))
    assert refused["error"]["refused"] is True
    assert "this server is a primary" in refused.msg


@pytest.mark.procedure("A22")
@pytest.mark.parametrize("statement", ["TRUNCATE feature", "ALTER TABLE feature ALTER COLUMN id TYPE int"])
def test_a_table_that_is_written_anew_meanwhile_is_whole(real_site: Site, statement: str) -> None:
    """What reads with a snapshot from before finds it empty, so its lock comes first, whoever holds it when the run begins."""
    with closing(real_site.connect()) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("SELECT * INTO TEMP kept FROM feature")
            cursor.execute(statement)
            if statement.startswith("TRUNCATE"):
                cursor.execute("INSERT INTO feature SELECT * FROM kept")
            cursor.execute("SELECT count(*) FROM feature")
            (expected,) = cursor.fetchone()
            assert expected > 0
            process = start_module("pg_backup", real_site.params())
            with closing(real_site.connect()) as watcher, watcher.cursor() as watching:
                wait_for_row(
                    watching,
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'"
                    " AND relation = 'feature'::regclass)",
                )
            other.commit()
    run = finish_module(process)
    assert not run.failed, run.msg
    (tables,) = [key for key in real_site.names() if key.endswith("/tables.json")]
    counted = {entry["name"]: entry["rows"] for entry in json.loads(real_site.get(tables))}
    assert counted["feature"] == expected


OVERTAKING = """#!{python}
import os, pathlib, subprocess, sys, time
place = pathlib.Path({place!r})
if "--version" not in sys.argv and not (place / "done").exists():
    (place / "done").touch()
    (place / "due").touch()
    while not (place / "waits").exists():
        time.sleep(0.02)
os.execv({program!r}, [{program!r}, *sys.argv[1:]])
"""


def test_who_asks_for_a_lock_as_pg_dump_begins_comes_through(real_site: Site, tmp_path: Path) -> None:
    """He waits for this run's lock and pg_dump waits behind him, so it begins anew; nobody waits for lock_timeout."""
    for program in ("pg_dumpall", "pg_restore", "zstd"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    wrapper = tmp_path / "pg_dump"
    wrapper.write_text(OVERTAKING.format(python=sys.executable, place=str(tmp_path), program=shutil.which("pg_dump")))
    wrapper.chmod(0o755)
    process = start_module("pg_backup", real_site.params(bin_dir=str(tmp_path), lock_timeout=600))
    wait_for_file(tmp_path / "due", process)
    with closing(real_site.connect()) as other, closing(real_site.connect()) as watcher:
        waiting = threading.Thread(target=empty_and_fill, args=(other,))
        waiting.start()
        with watcher.cursor() as watching:
            wait_for_row(
                watching,
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
                " AND relation = 'feature'::regclass)",
            )
        (tmp_path / "waits").touch()
        waiting.join(PATIENCE)
        assert not waiting.is_alive(), "it waits for as long as this run would for its lock"
    run = finish_module(process)
    assert not run.failed, run.msg
    (tables,) = [key for key in real_site.names() if key.endswith("/tables.json")]
    assert {entry["name"]: entry["rows"] for entry in json.loads(real_site.get(tables))}["feature"] == 7


def empty_and_fill(connection: Any) -> None:
    """Empty a table, and have seven rows in it when it is to be read again."""
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE feature")
        cursor.execute("INSERT INTO feature (id) SELECT generate_series(1, 7)")
    connection.commit()


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a file is there, as long as the process runs."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
