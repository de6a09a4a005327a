# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_restore is SIGKILLed, and the client that loads its dump goes on alone: the next run ends it first."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pymysql
import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._mysql.locks import name_client
from support.backups import PATIENCE
from support.modules import run_module, start_module
from support.mysql_restores import restore, run_until
from support.mysql_sites import MySqlSite

pytestmark = pytest.mark.lab("mariadb", "versitygw")
SLEEPING = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = %s AND INFO LIKE 'DO SLEEP%%'"


def make_slow_client(folder: Path) -> str:
    """A folder of programs whose mariadb has more to do after the dump, as one has that is behind with a large one."""
    for name in ("mariadb-dump", "zstd"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    script = folder / "mariadb"
    more = "DO SLEEP(600); INSERT INTO child SELECT seq, seq FROM seq_60_to_69;"
    script.write_text(f'#!/bin/sh\n{{ cat; echo "{more}"; }} | /usr/bin/mariadb "$@"\n')
    script.chmod(0o755)
    return str(folder)


def wait_for(site: MySqlSite, database: str, *, there: bool) -> None:
    """Until the client of the killed run is at its last work, or has gone."""
    end = time.monotonic() + PATIENCE
    while bool(site.sql(SLEEPING, [database], database="")) is not there:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.procedure("E9")
def test_a_client_that_a_killed_run_has_left_writes_nothing_into_the_next_one(site: MySqlSite, tmp_path: Path) -> None:
    """Sessions of MariaDB know a database by its name, so it would write into the one that is made anew."""
    made = run_module("mysql_backup", site.params())
    assert made.changed, made.msg
    beside = f"{site.database}__restored"
    process = start_module("mysql_restore", site.params("restore", bin_dir=make_slow_client(tmp_path)))
    wait_for(site, beside, there=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = run_module("mysql_restore", site.params("restore"))
    assert again.changed, again.msg
    wait_for(site, beside, there=False)
    placed = run_module("mysql_restore", site.params("restore", state="in_place"))
    assert placed.changed, placed.msg
    assert site.sql("SELECT count(*) FROM child")[0][0] == 50


@pytest.mark.procedure("E9")
def test_a_client_that_a_killed_move_has_left_is_ended(site: MySqlSite, backup: str, tmp_path: Path) -> None:
    """It makes a definition in the database itself, which is in place by then: it is known by the lock that it holds."""
    assert restore(site, "beside").changed
    params = site.params("restore", state="in_place", compare_live=False, bin_dir=make_slow_client(tmp_path))
    process = start_module("mysql_restore", params)
    wait_for(site, site.database, there=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    placed = restore(site, "in_place", backup=backup)
    assert placed.changed, placed.msg
    assert f"{site.database}: 1 session of this account ended, which a killed run had left" in placed["evidence"]
    wait_for(site, site.database, there=False)
    assert site.sql("SELECT count(*) FROM child")[0][0] == 50


@pytest.mark.procedure("E9")
def test_others_of_the_same_account_are_not_ended(site: MySqlSite, backup: str) -> None:
    """F31: an application that works by the account of the restore is named, as any other; only the client is ended."""
    run_until(site, 0, before=b"RENAME TABLE `")
    account = {"read_default_file": site.facts["accounts"]["restore"]["option_file"], "database": site.database}
    server = {"host": site.facts["primary"]["host"], "port": site.facts["primary"]["port"]}
    sessions: list[Any] = [pymysql.connect(**server, **account) for _number in range(2)]
    application, client = sessions
    try:
        with client.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", [name_client(site.database)])
        run = restore(site, "in_place", backup=backup)
        assert run.failed
        assert "it is in use by 1 session: " in run.msg
        assert f"(connection {application.thread_id()})" in run.msg
        with application.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM child")
            assert cursor.fetchall() == ((40,),)
        with pytest.raises(pymysql.OperationalError):
            client.ping(reconnect=False)
    finally:
        application.close()
        client.close()
    assert restore(site, "in_place", backup=backup).changed
