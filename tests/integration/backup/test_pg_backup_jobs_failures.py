# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup in several streams when one of them fails, when the run is killed, and what later runs make of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.backups import PATIENCE, Site, make_site, quoted
from support.modules import finish_module, run_module, start_module
from support.postgresql_servers import wait_for_row
from support.s3_proxy import Fault, Request, s3_proxy

pytestmark = pytest.mark.lab("postgresql", "versitygw")

DATA = "data-1.pgc.zst"
DUMPS = ["main.pgc.zst", DATA]
# Two tables of some 18 MB, and the money of a bank that its accounts never have more or less of, all together.
SEED = """
CREATE TABLE first AS SELECT g AS id, 0 AS money, repeat(md5(g::text), 10) AS v FROM generate_series(1, %(rows)s) g;
CREATE TABLE second AS SELECT * FROM first;
CREATE TABLE small (i int);
"""
SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'lowtide.ops%'
"""


@pytest.fixture
def halves(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[Site]:
    """A database that is dumped in two streams."""
    with make_site(lab, "versitygw", unique_name, rows=50_000, seed=SEED) as site:
        yield site


def list_children(pid: int) -> dict[int, list[str]]:
    """Processes below ``pid``, with their arguments."""
    found: dict[int, list[str]] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:  # threads and processes end while they are being read
            for child in task.read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_pg_dump(process: subprocess.Popen[str], option: str) -> int:
    """The pid of the stream's pg_dump, as soon as it has become one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid, arguments in list_children(process.pid).items():
            if "-Fc" in arguments and any(argument.startswith(option) for argument in arguments):
                return pid
        assert process.poll() is None, "the module ended before its pg_dump was seen"
    raise AssertionError("no pg_dump")


def wait_no_session(site: Site, sessions: str = SESSIONS) -> None:
    """Until no session of the collection is left in the database."""
    end = time.monotonic() + PATIENCE
    while site.sql(sessions)[0][0]:
        assert time.monotonic() < end, "a session goes on"
        time.sleep(0.05)


def writes(request: Request, name: str) -> bool:
    """Whether a request writes that object, or a part of it."""
    return request.method in ("PUT", "POST") and name in request.target


def test_the_database_is_dumped_in_two_streams(halves: Site) -> None:
    """Which the tests below rest on; four are not worth it for two tables."""
    done = run_module("pg_backup", halves.params(jobs=4))
    assert done.changed, done.msg
    assert done["backup"]["dumps"] == DUMPS
    assert (done["backup"]["tables"], done["backup"]["rows"]) == (3, 100_000)


@pytest.mark.procedure("C18")
def test_all_streams_are_of_one_moment(halves: Site) -> None:
    """Money that goes from one table to the other all the time is neither lost nor made."""
    done = threading.Event()
    moved = threading.Semaphore(0)

    def move() -> None:
        with closing(halves.connect()) as connection, connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute(
                    "WITH taken AS (UPDATE first SET money = money - 1 WHERE id = 1 + (random() * 1000)::int RETURNING 1)"
                    " INSERT INTO second SELECT 0, 1 FROM taken"
                )
                moved.release()

    writer = threading.Thread(target=move)
    writer.start()
    try:
        assert moved.acquire(timeout=PATIENCE)
        run = run_module("pg_backup", halves.params(jobs=2))
    finally:
        done.set()
        writer.join()
    assert run.changed, run.msg
    assert run["backup"]["dumps"] == DUMPS
    sums = {}
    for name in DUMPS:
        plain = subprocess.run(
            ["zstd", "-d", "-c"], input=halves.get(halves.key(name)), capture_output=True, check=True
        )
        for table in ("first", "second"):
            arguments = ["pg_restore", "--data-only", "-t", table, "-f", "-"]
            text = subprocess.run(arguments, input=plain.stdout, capture_output=True, check=True).stdout.decode()
            rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
            if rows:
                sums[table] = sum(int(row[1]) for row in rows)
    assert sums["second"] > 0
    assert sums["first"] == -sums["second"]


@pytest.mark.procedure("A22")
@pytest.mark.parametrize("option", ["--exclude-table-data=", "--table="], ids=["main", "further"])
def test_a_killed_stream_ends_the_others(halves: Site, option: str) -> None:
    """Its cause is told; no object, no upload, no process and no session is left; then a run that succeeds."""
    process = start_module("pg_backup", halves.params(jobs=2))
    os.kill(wait_pg_dump(process, option), signal.SIGKILL)
    run = finish_module(process)
    assert run.failed
    assert "pg_dump: killed by signal 9" in run.msg
    assert not run.changed
    assert halves.names() == []
    halves.nothing_left()
    wait_no_session(halves)
    assert run_module("pg_backup", halves.params(jobs=2)).changed


def test_a_refused_object_ends_a_stream_that_waits(halves: Site) -> None:
    """S3 refuses one object, while the other stream waits behind somebody for a lock: the refusal is told, and at once.

    A stream that went on waiting would have the run begin anew after some seconds, and then wait for that lock.
    """
    with closing(halves.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        asking = threading.Thread(target=cursor.execute, args=("LOCK TABLE small IN ACCESS EXCLUSIVE MODE",))

        def rule(request: Request) -> Fault | None:
            if request.target.endswith("started.json") and request.method == "PUT":
                asking.start()
                with closing(halves.connect()) as watcher, watcher.cursor() as watching:
                    wait_for_row(
                        watching,
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'small'::regclass)",
                    )
            return Fault(status=403, code="AccessDenied") if writes(request, DATA) else None

        with s3_proxy(halves.server["endpoint_url"], rule) as proxy:
            run = run_module("pg_backup", halves.params(jobs=2, endpoint_url=proxy.url))
        asking.join()
        assert run.failed
        assert DATA in run.msg
        assert "denied" in run.msg
        wait_no_session(halves)
    assert halves.names() == []
    halves.nothing_left()


def test_a_table_that_is_locked_is_named_before_any_stream_begins(halves: Site) -> None:
    """All tables are locked at once, so that no stream waits while another one makes others wait."""
    with closing(halves.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")
        run = run_module("pg_backup", halves.params(jobs=2, lock_timeout=1))
        assert run.failed
        assert (run["error"]["object"], run["error"]["refused"]) == ("table public.small", True)
    assert halves.names() == []


@pytest.mark.procedure("A22", "D25")
@pytest.mark.parametrize(("method", "name"), [("PUT", "main.pgc.zst"), ("HEAD", DATA), ("GET", DATA)])
def test_a_killed_run_leaves_no_session_and_is_removed_later(halves: Site, method: str, name: str) -> None:
    """SIGKILL before, between and after the objects of its dump: no pg_dump goes on; the folder goes after its time."""
    started: list[subprocess.Popen[str]] = []

    def rule(request: Request) -> Fault | None:
        if request.method == method and name in request.target:
            started[0].send_signal(signal.SIGKILL)
            return Fault(status=500)
        return None

    with s3_proxy(halves.server["endpoint_url"], rule) as proxy:
        started.append(start_module("pg_backup", halves.params(jobs=2, endpoint_url=proxy.url)))
        started[0].communicate(timeout=120)
    assert started[0].returncode == -signal.SIGKILL
    wait_no_session(halves)
    left = halves.names()
    assert method == "PUT" or DATA in {key.rpartition("/")[2] for key in left}
    key = next(key for key in left if key.endswith("started.json"))
    body = json.dumps(json.loads(halves.get(key)) | {"timeout": 1}).encode()
    halves.client.put_object(Bucket=halves.bucket, Key=key, Body=body)
    end = time.monotonic() + PATIENCE
    while not any(step["what"] == "remove" for step in run_module("pg_backup", halves.params(), check=True)["plan"]):
        assert time.monotonic() < end, "the killed run is never said to be over"
    again = run_module("pg_backup", halves.params(jobs=2))
    assert len(again["removed"]) == 1, again.result
    assert set(left).isdisjoint(halves.names())
    halves.nothing_left()
    # Retention removes a whole backup too.
    last = run_module("pg_backup", halves.params(max_age="0", keep=1))
    assert len(last["removed"]) == 1, last.result
    assert last["backup"]["dumps"] == ["dump.pgc.zst"]
    assert {key.split("/")[-2] for key in halves.names()} == {last["backup"]["run_id"]}


@pytest.mark.procedure("D27")
@pytest.mark.parametrize("name", [DUMPS[0], *(pytest.param(name, marks=pytest.mark.sweep) for name in DUMPS[1:])])
def test_damage_in_any_object_is_found(halves: Site, name: str) -> None:
    """On the way back, before it is published; and later, by the listing and by decoding, which name the object."""

    def rule(request: Request) -> Fault | None:
        return Fault(flip_at=-5) if request.method == "GET" and request.target.endswith(name) else None

    with s3_proxy(halves.server["endpoint_url"], rule) as proxy:
        run = run_module("pg_backup", halves.params(jobs=2, endpoint_url=proxy.url))
        assert run.failed
        assert name in run.msg
        assert "SHA-256" in run.msg
        assert halves.names() == []
        halves.nothing_left()
        done = run_module("pg_backup", halves.params(jobs=2))
        assert done.changed, done.msg
        proven = run_module("pg_backup_info", halves.s3_params(verify="full"))
        assert proven["decoded"] == [done["backup"]["run_id"]], proven.msg
        assert proven["newest"][0]["dumps"] == DUMPS
        # What the server gives back is damaged, and its listing does not know.
        silent = run_module("pg_backup_info", halves.s3_params(verify="full", endpoint_url=proxy.url))
        assert silent.failed
        assert name in silent.msg
    key = halves.key(name)
    body = halves.get(key)
    for altered in (body[:-1], body[:-1] + bytes([body[-1] ^ 1]), None):
        if altered is None:
            halves.client.delete_object(Bucket=halves.bucket, Key=key)
        else:
            halves.client.put_object(Bucket=halves.bucket, Key=key, Body=altered)
        listed = run_module("pg_backup_info", halves.s3_params())
        assert listed["backups"] == []
        assert name in listed["bad"][0]["problem"]
        decoded = run_module("pg_backup_info", halves.s3_params(verify="full"))
        assert decoded.failed
        if altered is not None and len(altered) == len(body):
            assert name in decoded.msg
        assert run_module("pg_backup", halves.params(), check=True)["due"] is True


def test_a_limit_of_connections_is_named(halves: Site, unique_name: Callable[..., str]) -> None:
    """One that can never do is refused before anything is written, in check mode too; one that is reached now is told."""
    role, password = unique_name("saver", separator="_"), "canary-of-the-saver"
    of_role = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"
    halves.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' CONNECTION LIMIT 3")
    halves.sql(f"GRANT pg_read_all_data TO {role}")
    options = {**halves.params(jobs=2), "login_user": role, "login_password": password}
    del options["passfile"]
    try:
        for check in (True, False):
            refused = run_module("pg_backup", options, check=check)
            assert refused["error"]["refused"] is True
            assert "4 connections are needed, and the CONNECTION LIMIT of login_user is 3" in refused.msg
            assert halves.names() == []
        wait_no_session(halves, of_role)  # one that has not ended yet counts
        halves.sql(f"ALTER ROLE {role} CONNECTION LIMIT 4")
        with closing(halves.connect()) as other, other.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {quoted(halves.database)} CONNECTION LIMIT 4")
            reached = run_module("pg_backup", options)
            assert reached.failed
            assert "too many connections for database" in reached.msg
            assert "2 streams takes 4 connections" in reached["error"]["next_step"]
            assert halves.names() == []
            cursor.execute(f"ALTER DATABASE {quoted(halves.database)} CONNECTION LIMIT -1")
        wait_no_session(halves, of_role)
        done = run_module("pg_backup", options)
        assert done.changed, done.msg
        assert done["backup"]["dumps"] == DUMPS
    finally:
        halves.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(("jobs", "words"), [(0, "not a positive number of streams"), (17, "at most 16")])
def test_a_number_of_streams_that_cannot_be_meant_is_refused(halves: Site, jobs: int, words: str) -> None:
    """With its option."""
    run = run_module("pg_backup", halves.params(jobs=jobs), check=True)
    assert run["error"]["refused"] is True
    assert "option jobs" in run.msg
    assert words in run.msg
