# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pgbackrest_backup on a real server and repository: what counts as a backup, and what pgBackRest's exit code hides."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from labkit.postgresql_programs import USER

from support.local_servers import wait_until

from .conftest import PATIENCE, Archived

pytestmark = pytest.mark.procedure("A22")


def damage(path: Path, *, offset: int) -> None:
    """Overwrite two bytes in the middle of a file, with what was not there."""
    with path.open("r+b") as file:
        file.seek(offset)
        former = file.read(2)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in former))


def test_a_backup_is_made_verified_and_then_young_enough(archived: Archived) -> None:
    """Check mode predicts it; the second run changes nothing; a full one first, then what builds on it; then a full one."""
    predicted = archived.back_up(check=True)
    assert (predicted.changed, archived.list_backups()) == (True, [])
    assert predicted["summary"] == "would make a full backup of shop (there is no backup)"
    first = archived.back_up()
    assert (first.failed, first.changed, first["plan"]) == (False, True, predicted["plan"]), first.msg
    (listed,) = archived.list_backups()
    assert (listed["type"], list(listed["annotation"])) == ("full", ["lowtide-verified"])
    assert first["backup"]["label"] == listed["label"]
    again = archived.back_up()
    assert (again.changed, again["plan"]) == (False, [])
    assert again["backup"] == first["backup"]
    second = archived.back_up(max_age="0s", between="incr")
    assert (second["backup"]["type"], second["backup"]["builds_on"]) == ("incr", [listed["label"]])
    third = archived.back_up(max_age="0s", full_max_age="0s")
    assert third["backup"]["type"] == "full"


def test_what_nobody_verified_is_verified(archived: Archived) -> None:
    """As after a run that was cut off, or a backup of cron's; and no backup is made for it."""
    archived.pgbackrest("backup", "--type=full")
    run = archived.back_up()
    assert (run.changed, run["plan"][0]["what"]) == (True, f"verify backup {run['backup']['label']}")
    assert len(archived.list_backups()) == 1
    assert run["backup"]["verified_at"]
    assert not archived.back_up().changed


def test_damage_in_the_repository_is_found_though_pgbackrest_ends_well(archived: Archived) -> None:
    """A backup with another byte does not count, and the next one builds on nothing that it is part of."""
    full = archived.back_up()["backup"]["label"]
    bundle = next((archived.place / "repository/backup/shop" / full / "bundle").iterdir())
    damage(bundle, offset=bundle.stat().st_size // 2)
    assert "status: error" in archived.pgbackrest("verify", "--output=text")
    run = archived.back_up(max_age="0s")
    assert run.failed
    assert f"backup {full} is invalid" in run.msg
    assert run["damaged"][0] == full
    after = archived.back_up()
    assert (after.failed, after["backup"]["type"], after["backup"]["builds_on"]) == (False, "full", []), after.msg


def test_a_missing_wal_segment_is_found_though_verify_calls_all_good(archived: Archived) -> None:
    """The one that a backup needs to become consistent."""
    archived.pgbackrest("backup", "--type=full")
    archived.sql("SELECT pg_switch_wal()")
    (backup,) = archived.list_backups()
    needed = backup["archive"]["stop"]
    (segment,) = (archived.place / "repository/archive/shop").glob(f"15-1/*/{needed}-*")
    segment.rename(archived.place / "kept")
    assert "status: ok" in archived.pgbackrest("verify", "--output=text", "--verbose")
    run = archived.back_up()
    assert f"WAL segment {needed} is not in the archive" in run.msg
    assert archived.back_up()["backup"]["type"] == "full"


def test_a_damaged_database_is_no_backup_and_names_the_files(archived: Archived) -> None:
    """pgBackRest backs a page with an invalid checksum up, warns, and ends with 0."""
    archived.sql("CREATE TABLE orders AS SELECT g, md5(g::text) FROM generate_series(1, 5000) g")
    relation = archived.sql("SELECT pg_relation_filepath('orders')")
    archived.control("stop", "-m", "fast")
    damage(archived.place / "data" / relation, offset=20000)
    archived.control("start")
    run = archived.back_up()
    assert run.failed
    assert f"pages with an invalid checksum: {relation} (database postgres)" in run.msg
    (listed,) = archived.list_backups()
    assert (listed["error"], "annotation" in listed) == (True, False)
    again = archived.back_up()
    assert again.failed
    assert not again["backups"][0]["verified_at"]
    assert len(archived.list_backups()) == 1


def test_damage_of_wal_that_no_new_backup_needs_is_a_warning(archived: Archived) -> None:
    """One segment from before it: the backup counts, the damage is told, and nothing is made again for it."""
    first = archived.back_up()["backup"]["label"]
    needed = archived.list_backups()[0]["archive"]["start"]
    archived.sql("SELECT pg_switch_wal()")
    (segment,) = (archived.place / "repository/archive/shop").glob(f"15-1/*/{needed}-*")
    damage(segment, offset=segment.stat().st_size // 2)
    run = archived.back_up(max_age="0s", full_max_age="0s")
    assert not run.failed, run.msg
    assert run["backup"]["label"] != first
    assert any("WAL archive 15-1" in line for line in run["archive_problems"])
    assert not archived.back_up().changed


def test_refusals_name_what_to_do(archived: Archived) -> None:
    """A stanza or repository that does not exist, an archive that does not work, no program, a wrong duration."""
    unknown = archived.back_up(stanza="shoq")
    assert "stanza shoq in repository 1: pgBackRest says: missing stanza path" in unknown.msg
    assert unknown["error"]["refused"]
    assert "it is not configured; there is 1" in archived.back_up(repository=2).msg
    assert "'soon' is not a duration" in archived.back_up(max_age="soon").msg
    assert "it is not in /nonexistent" in archived.back_up(bin_dir="/nonexistent").msg
    archived.sql("ALTER SYSTEM SET archive_command = '/bin/false'")
    archived.sql("SELECT pg_reload_conf()")
    broken = archived.back_up()
    assert broken.failed
    assert "archive_command '/bin/false' must contain pgbackrest" in broken.msg
    assert archived.list_backups() == []


def find_backup(archived: Archived) -> int | None:
    """The process of pgBackRest that makes a backup, None where there is none."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = entry.read_text().split("\0")
            if "backup" in argv and f"--config={archived.config}" in argv:
                return int(entry.parent.name)
    return None


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock of pgBackRest; the file alone is there before it is locked."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def is_at_rest(pid: int) -> bool:
    """Whether a process that was sent SIGSTOP does nothing any more: the signal takes effect a moment later."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"T", "Z", "X"}


def stop_in_backup(archived: Archived, process: subprocess.Popen[str]) -> int:
    """Stop the module's pgBackRest while it holds its lock, and return its process."""
    while True:
        assert process.poll() is None, process.communicate()
        if (running := find_backup(archived)) is None:
            continue
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # ended meanwhile; the loop says so
            os.kill(running, signal.SIGSTOP)
            wait_until("pgBackRest is stopped", functools.partial(is_at_rest, running), PATIENCE)
            if is_held(archived.place / "lock/shop-backup.lock"):
                return running
            os.kill(running, signal.SIGCONT)


def test_another_run_is_not_disturbed_and_a_killed_one_is_made_up_for(archived: Archived) -> None:
    """pgBackRest's lock says that somebody is at it; once it is gone, the next run ends with a whole backup."""
    archived.sql("CREATE TABLE big AS SELECT g, repeat(md5(g::text), 20) t FROM generate_series(1, 150000) g")
    process = archived.start()
    running = stop_in_backup(archived, process)
    beside = archived.back_up()
    os.killpg(process.pid, signal.SIGKILL)
    os.kill(running, signal.SIGCONT)
    process.communicate()
    assert "a backup or an expire is running" in beside.msg
    assert beside["error"]["refused"]
    # pgBackRest itself goes on to the end of its backup, which nobody has verified then.
    end = time.monotonic() + PATIENCE
    while (run := archived.back_up()).failed:
        assert "a backup or an expire is running" in run.msg
        assert time.monotonic() < end
    assert run["backup"]["verified_at"]
    assert len(archived.list_backups()) == 1
    assert Path(archived.place / "repository").owner() == USER
