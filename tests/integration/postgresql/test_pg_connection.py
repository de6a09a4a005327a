# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a user gets who mistypes a connection, and on a cluster: the primary, never a standby, also when it changes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from support.modules import finish_module, run_module, start_module

from .conftest import PASSWORD, Database

CONDITION: dict[str, Any] = {"dead_tuple_ratio": 0.1}


@pytest.mark.parametrize(
    ("options", "problem", "step"),
    [
        ({"login_host": "127.0.0.2", "login_port": 1}, "connection refused", "login_port"),
        ({"login_host": "nosuch.invalid"}, "does not resolve", "login_host"),
        ({"login_host": "/nosuch"}, "there is no such socket", "login_host"),
        ({"login_password": "wrong-canary"}, "refused the password", "login_password"),
        ({"login_password": None}, "none was found", "passfile"),
        ({"login_db": "feature"}, "there is no database feature", "login_db"),
        ({"login_user": "nobody"}, "refused the password", "login_password"),
        ({"ssl_mode": "verify-full", "ca_cert": "/etc/hostname"}, "offers none", "ssl_mode"),
        ({"passfile": "/nosuch/pgpass"}, "not readable", "passfile"),
        ({"login_db": ""}, "it is empty", "login_db"),
    ],
)
def test_mistyped_connection(database: Database, options: dict[str, Any], problem: str, step: str) -> None:
    params = {**database.server.params(database.name), **CONDITION, **options}
    for module in ("pg_maintenance", "pg_maintenance_info"):
        run = run_module(module, params, env={"PGPASSFILE": "/dev/null"})
        assert run.failed
        assert run.rc != 0
        assert problem in run["error"]["problem"]
        assert step in run["error"]["next_step"]
        assert "canary" not in json.dumps({key: value for key, value in run.result.items() if key != "invocation"})
        if module == "pg_maintenance":
            assert run["error"]["refused"]


def test_environment_does_not_redirect(database: Database, tmp_path: Path) -> None:
    """libpq would go to PGHOSTADDR whatever login_host says."""
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:{database.server.port}:*:postgres:{PASSWORD}\n")
    passfile.chmod(0o600)
    params = {**database.server.params(database.name), **CONDITION, "login_password": None, "passfile": str(passfile)}
    run = run_module(
        "pg_maintenance",
        params,
        env={"PGHOSTADDR": "127.0.0.3", "PGDATABASE": "postgres", "PGOPTIONS": "-c nonsense=1"},
    )
    assert run["database"] == database.name
    passfile.chmod(0o644)
    assert "0600" in run_module("pg_maintenance", params).msg


@pytest.fixture
def cluster(lab: dict[str, Any], unique_name: Callable[..., str]) -> Iterator[dict[str, Any]]:
    """Options for a database of its own on the lab's cluster."""
    facts = lab["postgresql"]
    name = unique_name("db", separator="_")
    params = {
        "login_host": ",".join(facts["hosts"]),
        "login_port": facts["port"],
        "login_user": facts["superuser"],
        "passfile": facts["passfile"],
        "login_db": name,
        "system_identifier": facts["system_identifier"],
    }
    _primary(params, "postgres", f"CREATE DATABASE {name}")
    _caught_up(params)
    yield params
    _primary(params, "postgres", f"DROP DATABASE {name} WITH (FORCE)")


def _connect(params: dict[str, Any], database: str) -> Any:
    connection = psycopg2.connect(
        host=params["login_host"],
        port=params["login_port"],
        user=params["login_user"],
        passfile=params["passfile"],
        dbname=database,
        target_session_attrs="read-write",
    )
    connection.autocommit = True
    return connection


def _primary(params: dict[str, Any], database: str, *statements: str) -> list[tuple[Any, ...]]:
    """Statements on the primary; the rows of the last."""
    with contextlib.closing(_connect(params, database)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _caught_up(params: dict[str, Any]) -> None:
    """Wait until both standbys know all that the primary knows, also the one that was a primary just now."""
    end = time.monotonic() + 180
    behind = "SELECT 2 - count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
    while _primary(params, "postgres", behind)[0][0]:
        assert time.monotonic() < end, "the standbys do not catch up"
        time.sleep(0.1)


def _members(lab: dict[str, Any]) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(lab["postgresql"]["patroni"][0]["rest"] + "/cluster", timeout=60) as answer:  # noqa: S310 - the lab's own address
        return {member["name"]: member for member in json.load(answer)["members"]}


@pytest.mark.lab("postgresql")
@pytest.mark.procedure("A11")
def test_never_on_a_standby(lab: dict[str, Any], cluster: dict[str, Any]) -> None:
    standby = next(member["host"] for member in _members(lab).values() if member["role"] != "leader")
    for module in ("pg_maintenance", "pg_maintenance_info"):
        run = run_module(module, {**cluster, **CONDITION, "login_host": standby, "login_db": "postgres"})
        assert run["error"]["refused"]
        assert "this server is a standby" in run.msg
        assert "login_host" in run["error"]["next_step"]


@pytest.mark.lab("postgresql")
@pytest.mark.alone
def test_switchover_in_the_middle_stops_and_the_next_run_ends_it(lab: dict[str, Any], cluster: dict[str, Any]) -> None:
    """F22: the session dies with the old primary; nothing runs on what is a standby now, and the next run finds the new one."""
    name = cluster["login_db"]
    for number in range(2):
        _primary(
            cluster,
            name,
            f"CREATE TABLE t{number} (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off)",
            f"INSERT INTO t{number} SELECT generate_series(1, 5000)",
        )
        _primary(cluster, name, f"VACUUM ANALYZE t{number}")
        _primary(cluster, name, f"UPDATE t{number} SET v = 1", "SELECT pg_stat_force_next_flush()")
    with contextlib.closing(_connect(cluster, name)) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("LOCK TABLE t1 IN SHARE MODE")
        process = start_module("pg_maintenance", {**cluster, **CONDITION, "lock_timeout": 600, "jobs": 2})
        end = time.monotonic() + 120
        while not _primary(cluster, name, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")[
            0
        ][0]:
            assert time.monotonic() < end
            time.sleep(0.1)
        members = _members(lab)
        leader = next(member for member in members.values() if member["role"] == "leader")
        candidate = next(member for member in members.values() if member["role"] != "leader")
        request = urllib.request.Request(
            f"http://{leader['host']}:8008/switchover",
            data=json.dumps({"leader": leader["name"], "candidate": candidate["name"]}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=180) as answer:  # noqa: S310 - the lab's own address
            assert answer.status == 200
    run = finish_module(process)
    assert run.failed
    assert "the connection was lost in the middle" in run.msg
    assert "Run again" in run["error"]["next_step"]
    again = run_module("pg_maintenance", {**cluster, **CONDITION})
    assert not again.failed
    assert again["server"] == candidate["host"]
    assert not run_module("pg_maintenance", {**cluster, **CONDITION}).changed


@contextlib.contextmanager
def _lagging(lab: dict[str, Any], host: str) -> Iterator[None]:
    """A standby that receives and does not replay, until the end of the block; Patroni would undo pg_wal_replay_pause()."""
    facts = lab["postgresql"]
    with (
        contextlib.closing(
            psycopg2.connect(
                host=host,
                port=facts["port"],
                user=facts["superuser"],
                passfile=facts["passfile"],
                dbname="postgres",
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'")
        ((pid,),) = cursor.fetchall()
        connection.rollback()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.lab("postgresql")
@pytest.mark.alone
def test_a_standby_that_lags_behind_does_not_decide_what_exists(
    lab: dict[str, Any], unique_name: Callable[..., str]
) -> None:
    """A database just made on the primary is found there, although the first host of the list does not know it yet."""
    facts = lab["postgresql"]
    roles = {member["host"]: member["role"] for member in _members(lab).values()}
    primary = next(host for host, role in roles.items() if role == "leader")
    standbys = [host for host in roles if host != primary]
    name = unique_name("db", separator="_")
    params = {
        "login_host": ",".join([*standbys, primary]),
        "login_port": facts["port"],
        "login_user": facts["superuser"],
        "passfile": facts["passfile"],
        "login_db": name,
        **CONDITION,
    }
    _caught_up({**params, "login_host": ",".join([primary, *standbys])})
    with _lagging(lab, standbys[0]):
        _primary(params, "postgres", f"CREATE DATABASE {name}")
        try:
            with pytest.raises(psycopg2.OperationalError, match="does not exist"):
                _connect(params, name)  # libpq by itself stops at the first host
            for module in ("pg_maintenance_info", "pg_maintenance"):
                run = run_module(module, params)
                assert not run.failed, run.msg
                assert run["server"] == primary

            away = run_module("pg_maintenance", {**params, "login_host": f"{standbys[0]},127.0.0.9"})
            assert away["error"]["refused"]
            assert "nothing listens there" in away.msg, away.msg
            assert "127.0.0.9" in away.msg
        finally:
            _primary(params, "postgres", f"DROP DATABASE {name} WITH (FORCE)")
        nowhere = run_module("pg_maintenance", params)
        assert nowhere["error"]["refused"]
        assert f"there is no database {name}" in nowhere.msg
        assert nowhere["error"]["next_step"] == "Correct login_db"
