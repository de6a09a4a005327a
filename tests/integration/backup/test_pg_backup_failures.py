# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup when something is wrong: object, value and next step; nothing published; a later run ends right."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.backups import Site
from support.modules import finish_module, run_module, start_module
from support.s3_proxy import Fault, Request, s3_proxy

pytestmark = pytest.mark.lab("postgresql", "s3", "versitygw")


def children(pid: int) -> dict[int, list[str]]:
    """Processes below ``pid``, with their arguments."""
    found: dict[int, list[str]] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:  # threads and processes end while they are being read
            for child in task.read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                found |= children(int(child))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_dump(process: subprocess.Popen[str]) -> int:
    """The pid of the module's pg_dump (not the one that is asked for its version), as soon as there is one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid, arguments in children(process.pid).items():
            if "-Fc" in arguments:
                return pid
        assert process.poll() is None, "the module ended before its pg_dump was seen"
    raise AssertionError("no pg_dump")


def written(pid: int) -> int:
    """Bytes that ``pid`` has written so far."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise AssertionError("no wchar")


def kill_pg_dump(process: subprocess.Popen[str], *, after: int) -> None:
    """SIGKILL the module's pg_dump once it has written ``after`` bytes.

    It runs a moment at a time, through a pipe of one page, so that it cannot get far beyond the point between two looks.
    """
    pid = wait_dump(process)
    try:
        os.kill(pid, signal.SIGSTOP)
        with open(f"/proc/{pid}/fd/1", "wb") as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        while written(pid) < after:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.001)
            os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        assert after, "pg_dump ended before it wrote anything"


BAD_INPUT: list[tuple[str, dict[str, Any], list[str]]] = [
    ("no bucket", {"bucket": "lt-no-such-bucket"}, ["bucket lt-no-such-bucket", "does not exist", "Create the bucket"]),
    (
        "wrong secret",
        {"credentials_file": None, "profile": None, "secret_key": "canary-4c1d"},
        ["secret key is wrong", "SignatureDoesNotMatch", "secret_key"],
    ),
    (
        "wrong key",
        {"credentials_file": None, "profile": None, "access_key": "nobody", "secret_key": "canary-4c1d"},
        ["InvalidAccessKeyId", "access_key"],
    ),
    (
        "endpoint down",
        {"endpoint_url": "http://127.0.0.1:9"},
        ["http://127.0.0.1:9", "Connection refused", "endpoint_url"],
    ),
    ("no endpoint", {"endpoint_url": "ftp://x"}, ["ftp://x", "https://host"]),
    ("no profile", {"profile": "nobody"}, ["(nobody)", "credentials"]),
    (
        "no credentials file",
        {"credentials_file": "/nowhere/keys"},
        ["/nowhere/keys", "No such file", "credentials_file"],
    ),
    ("wrong database", {"login_db": "lt_no_such_db"}, ["lt_no_such_db", "there is no database", "login_db"]),
    (
        "wrong password",
        {"passfile": None, "login_password": "canary-wrong-password"},
        ["refused the password", "login_password"],
    ),
    ("wrong cluster", {"system_identifier": "42"}, ["another cluster", "42", "system_identifier"]),
    ("bad prefix", {"prefix": "a/../b"}, ["a/../b", "option prefix"]),
    ("bad age", {"max_age": "yesterday"}, ["yesterday", "24h"]),
    ("bad timeout", {"timeout": 0}, ["option timeout", "0"]),
    ("no programs", {"bin_dir": "/nowhere"}, ["pg_dump", "/nowhere", "postgresql-client"]),
]


def test_bad_input_is_refused_and_nothing_is_written(real_site: Site) -> None:
    """Each wrong option, in check mode and for real: the same words, an exit code, and an empty bucket."""
    keys = real_site.client._request_signer._credentials
    for number, (name, wrong, expected) in enumerate(BAD_INPUT):
        params = real_site.params(**wrong)
        if "secret_key" in wrong:
            params.setdefault("access_key", keys.access_key)
        params = {option: value for option, value in params.items() if value is not None}
        run = run_module("pg_backup", params)
        assert run.failed, name
        assert run.rc != 0, name
        assert not run.changed, name
        for words in expected:
            assert words in run.msg, (name, run.msg)
        assert run["error"]["next_step"], name
        if number % 4 == 0:
            assert run_module("pg_backup", params, check=True).msg == run.msg, name
        assert "canary-wrong-password" not in json.dumps(run.result) + run.stderr, name
    assert real_site.names() == []
    real_site.nothing_left()


def old_pg_dump(folder: Path) -> None:
    """Stand-ins (fakes) for the programs of an old major version."""
    for name in ("pg_dump", "pg_dumpall", "pg_restore"):
        path = folder / name
        path.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_an_older_pg_dump_is_refused(real_site: Site, tmp_path: Path) -> None:
    """Before anything is written, with the version that is needed."""
    old_pg_dump(tmp_path)
    run = run_module("pg_backup", real_site.params(bin_dir=str(tmp_path)))
    assert run.failed
    assert "9.6.24" in run.msg
    assert "postgresql-client-15" in run.msg
    assert real_site.names() == []


@pytest.mark.procedure("A22")
@pytest.mark.procedure("D27")
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_killed_pg_dump_publishes_nothing(real_site: Site, share: float) -> None:
    """SIGKILL of pg_dump at the start, half way and near the end: no object, no open upload; then a run that succeeds."""
    real_site.sql(
        "INSERT INTO feature SELECT g, g::text, repeat(md5(g::text), 20), now() FROM generate_series(10000, 60000) g"
    )
    total = real_site.sql("SELECT sum(length(x::text)) FROM feature x")[0][0]
    for _attempt in range(5):
        process = start_module("pg_backup", real_site.params())
        kill_pg_dump(process, after=int(total * share))
        run = finish_module(process)
        if run.failed:
            break
        # It was quicker than the signal: remove what it made, and try again.
        for key in real_site.names():
            real_site.client.delete_object(Bucket=real_site.bucket, Key=key)
    assert "pg_dump: killed by signal 9" in run.msg
    assert run.rc != 0
    assert not run.changed
    assert real_site.names() == []
    real_site.nothing_left()
    assert run_module("pg_backup", real_site.params()).changed


def test_a_lock_that_a_dump_cannot_get_ends_it(real_site: Site) -> None:
    """lock_timeout bounds the wait; the error names the table and who holds it."""
    with closing(real_site.connect()) as holder:
        holder.autocommit = False
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE feature IN ACCESS EXCLUSIVE MODE")
            run = run_module("pg_backup", real_site.params(lock_timeout=1))
    assert run.failed
    assert run["error"]["object"] == "table public.feature"
    assert "holds AccessExclusiveLock" in run.msg
    assert "pg_terminate_backend" in run["error"]["next_step"]
    assert "lock_timeout" in run["error"]["next_step"]
    assert real_site.names() == []
    real_site.nothing_left()


def test_the_deadline_ends_a_backup_that_waits(real_site: Site) -> None:
    """timeout is for the whole run, also where lock_timeout would let it wait longer."""
    with closing(real_site.connect()) as holder:
        holder.autocommit = False
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE feature IN ACCESS EXCLUSIVE MODE")
            begun = time.monotonic()
            run = run_module("pg_backup", real_site.params(timeout=6, lock_timeout=600))
            assert time.monotonic() - begun < 100
    assert run.failed
    assert run["error"]["object"] == "table public.feature"
    assert "raise lock_timeout and timeout" in run["error"]["next_step"]
    assert real_site.names() == []
    real_site.nothing_left()


def test_a_second_backup_of_the_same_database_is_refused(real_site: Site) -> None:
    """While one runs, the other names it and since when; check mode says so too; the first one is not disturbed."""
    reached, proceed = threading.Event(), threading.Event()

    def rule(request: Request) -> None:
        if request.is_part:
            reached.set()
            proceed.wait(60)

    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        first = start_module("pg_backup", real_site.params(endpoint_url=proxy.url))
        assert reached.wait(60)
        for check in (False, True):
            second = run_module("pg_backup", real_site.params(), check=check)
            assert second.failed
            assert second["error"]["refused"] is True
            assert "another backup of this database is running" in second.msg
            assert second["blockers"][0]["holder"].startswith("lowtide.ops pg_backup")
            assert second["blockers"][0]["since"]
        proceed.set()
        assert finish_module(first).changed
    real_site.nothing_left()


@pytest.mark.procedure("D27")
@pytest.mark.parametrize(
    "fault", [Fault(flip_at=100), Fault(flip_at=-5), Fault(cut_to=1000)], ids=["head", "tail", "truncated"]
)
def test_an_object_altered_between_upload_and_verification_is_not_published(real_site: Site, fault: Fault) -> None:
    """One bit, or the end missing, in what the server gives back."""
    with s3_proxy(real_site.server["endpoint_url"], lambda request: fault if request.is_dump_read else None) as proxy:
        run = run_module("pg_backup", real_site.params(endpoint_url=proxy.url))
    assert run.failed
    assert "dump.pgc.zst" in run.msg
    assert ("SHA-256" if fault.flip_at else "bytes, not") in run.msg
    assert real_site.names() == []
    real_site.nothing_left()


def test_reads_and_writes_survive_a_server_that_stumbles(real_site: Site) -> None:
    """503 on the first list and part, a broken read of the dump (resumed), a lost answer to the manifest's write."""
    hit: set[str] = set()

    def once(name: str) -> bool:
        return name not in hit and not hit.add(name)  # type: ignore[func-returns-value]

    def rule(request: Request) -> Fault | None:
        if request.method == "GET" and "list-type=2" in request.target and once("list"):
            return Fault(status=503, code="SlowDown")
        if request.is_part and once("part"):
            return Fault(status=503, code="SlowDown")
        if request.is_dump_read and once("read"):
            return Fault(break_at=5000)
        if request.method == "PUT" and request.target.endswith("manifest.json") and once("manifest"):
            return Fault(drop_answer=True)
        return None

    with s3_proxy(real_site.server["endpoint_url"], rule) as proxy:
        run = run_module("pg_backup", real_site.params(endpoint_url=proxy.url))
        assert run.changed, run.msg
    assert hit == {"list", "part", "read", "manifest"}
    real_site.nothing_left()
    assert not run_module("pg_backup", real_site.params()).changed


def test_a_server_that_stays_busy_ends_the_run(real_site: Site) -> None:
    """Bounded retries; the upload is aborted."""
    with s3_proxy(
        real_site.server["endpoint_url"],
        lambda request: Fault(status=503, code="SlowDown") if request.is_part else None,
    ) as proxy:
        run = run_module("pg_backup", real_site.params(endpoint_url=proxy.url))
    assert run.failed
    assert "SlowDown" in run.msg
    assert len([request for request in proxy.seen if request.is_part]) == 5
    assert real_site.names() == []
    real_site.nothing_left()


LOOKED_AT = """#!/bin/sh
case "$1" in --version) ;; *) while [ ! -e {place}/seen ]; do sleep 0.05; done ;; esac
exec {program} "$@"
"""


def make_slow_pg_dump(folder: Path) -> None:
    """Programs of which pg_dump begins when the file ``seen`` is there."""
    for program in ("pg_dumpall", "pg_restore", "zstd"):
        (folder / program).symlink_to(shutil.which(program) or "")
    wrapper = folder / "pg_dump"
    wrapper.write_text(LOOKED_AT.format(place=folder, program=shutil.which("pg_dump")))
    wrapper.chmod(0o755)


def test_no_secret_is_seen_anywhere(real_site: Site, unique_name: Callable[..., str], tmp_path: Path) -> None:
    """A canary password is on no command line while the backup runs, and in no result, message or object."""
    canary, role = "canary-7f3a-secret", unique_name("role", separator="_")
    real_site.sql(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{canary}'")
    make_slow_pg_dump(tmp_path)
    lines: set[bytes] = set()
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    lines.add(line := path.read_bytes())
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if b"-Fc" in line and bytes(tmp_path / "pg_dump") in line:
                    (tmp_path / "seen").touch()

    watcher = threading.Thread(target=sample)
    watcher.start()
    secrets = real_site.client._request_signer._credentials
    try:
        params = real_site.params(
            login_user=role, login_password=canary, access_key=secrets.access_key, secret_key=secrets.secret_key
        )
        params = {
            option: value
            for option, value in params.items()
            if option not in ("passfile", "credentials_file", "profile")
        }
        good = run_module("pg_backup", params | {"bin_dir": str(tmp_path)})
        bad = run_module("pg_backup", params | {"bucket": "lt-no-such-bucket"})
    finally:
        done.set()
        watcher.join()
        real_site.sql(f"DROP ROLE {role}")
    assert good.changed, good.msg
    assert bad.failed
    seen = b"\n".join(lines)
    assert b"pg_dump" in seen
    stored = b"\n".join(real_site.get(key) for key in real_site.names())
    told = json.dumps([good.result, bad.result]) + good.stderr + bad.stderr
    for secret in (canary, secrets.secret_key):
        assert secret.encode() not in seen
        assert secret.encode() not in stored
        assert secret not in told
