# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_health_info: evidence of what keeps clients from connecting, also where there is no connection."""

from __future__ import annotations

import contextlib
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
import pytest

from support.modules import run_module
from support.mysql_sites import MySqlSite

pytestmark = [pytest.mark.lab("mariadb", "versitygw")]


def params(site: MySqlSite, **more: Any) -> dict[str, Any]:
    """Options of the module, by the account of the documented rights."""
    server = site.facts["primary"]
    account = site.facts["accounts"]["monitor"]
    return {"login_host": server["host"], "login_port": server["port"], "option_file": account["option_file"], **more}


@pytest.mark.procedure("E18")
def test_evidence_comes_before_a_restart(site: MySqlSite) -> None:
    """Idle sessions, a transaction that is open for long, and who waits for it; a restart is refused until all else was tried."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(contextlib.closing(site.connect())) for _number in range(5)]
        for connection, statement in ((idle[0], "UPDATE child SET id = id WHERE id = 1"), (idle[1], "SELECT 1")):
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(statement)
        with idle[1].cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 300")
        idle[1]._execute_command(pymysql.constants.COMMAND.COM_QUERY, "UPDATE child SET id = id WHERE id = 1")
        limits = {"connections_ratio": 0.05, "idle": 0, "transaction": 0}
        end = time.monotonic() + 120
        while True:
            run = run_module("mysql_health_info", params(site, **limits))
            names = [finding["name"] for finding in run["findings"]]
            if "lock_waits" in names:
                break
            assert time.monotonic() < end, names
        assert not run.changed
        assert {"connections_taken", "lock_waits", "long_transactions"} <= set(names)
        assert run["users"][0]["sessions"] >= 5
        assert run["connections"]["max"] == 60
        assert "UPDATE" not in str(run["transactions"]) + str(run["findings"])
        steps = sorted({step for finding in run["findings"] for step in finding["steps"]})
        assert run["restart_refused"]
        assert all(f"step {step} was not tried" in " ".join(run["restart_reasons"]) for step in steps)
        at = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
        tried = [{"step": step, "at": at} for step in steps]
        last = run_module("mysql_health_info", params(site, **limits, tried=tried))
        assert not last["restart_refused"], last["restart_reasons"]


@pytest.mark.procedure("E18")
def test_no_connection_is_evidence_too(site: MySqlSite) -> None:
    """A closed port, a server that accepts and is silent, a wrong password: told apart, and none is a failure."""
    closed = run_module("mysql_health_info", params(site, login_port=3399))
    assert [finding["name"] for finding in closed["findings"]] == ["unreachable"]
    denied = run_module("mysql_health_info", params(site, login_password=str(time.monotonic())))
    assert [finding["name"] for finding in denied["findings"]] == ["access_denied"]
    assert "access_denied: a restart cannot mend it" in denied["restart_reasons"][0]
    with socket.create_server((site.facts["primary"]["host"], 0)) as silent:
        port = silent.getsockname()[1]
        run = run_module("mysql_health_info", params(site, login_port=port, connect_timeout=1, query_timeout=1))
    assert [finding["name"] for finding in run["findings"]] == ["not_responding"], run["findings"]
    for answer in (closed, denied, run):
        assert not answer.failed
        assert not answer["reachable"]


@pytest.mark.procedure("E18")
def test_a_replica_tells_how_it_follows(site: MySqlSite) -> None:
    """Its lag, and no finding for being read only."""
    run = run_module("mysql_health_info", params(site, login_port=site.facts["replica"]["port"]))
    assert run["read_only"]
    assert run["replica"]["io"] == "Yes"
    assert "read_only" not in [finding["name"] for finding in run["findings"]]


def test_an_account_that_sees_only_itself_is_refused(site: MySqlSite) -> None:
    """It would say that all is well."""
    run = run_module("mysql_health_info", params(site, option_file=site.facts["accounts"]["backup"]["option_file"]))
    assert run.failed
    assert "it lacks PROCESS" in run.msg
    moment = run_module("mysql_health_info", params(site, tried=[{"step": "correct_pools", "at": "yesterday"}]))
    assert moment.failed
    assert "'yesterday' is not a moment" in moment.msg
