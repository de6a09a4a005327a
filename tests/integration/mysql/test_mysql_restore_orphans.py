# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_restore is SIGKILLed, and the client that loads its dump goes on alone: the next run ends it first."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.modules import run_module, start_module
from support.mysql_sites import MySqlSite

pytestmark = pytest.mark.lab("mariadb", "versitygw")
SLEEPING = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = %s AND INFO LIKE 'DO SLEEP%%'"


def make_slow_client(folder: Path) -> str:
    """A folder of programs whose mariadb has more to do after the dump, as one has that is behind with a large one."""
    for name in ("mariadb-dump", "zstd"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    script = folder / "mariadb"
    more = "DO SLEEP(6); INSERT INTO child SELECT seq, seq FROM seq_60_to_69;"
    script.write_text(f'#!/bin/sh\n{{ cat; echo "{more}"; }} | /usr/bin/mariadb "$@"\n')
    script.chmod(0o755)
    return str(folder)


def wait_for(site: MySqlSite, database: str, *, there: bool) -> None:
    """Until the client of the killed run is at its last work, or has gone."""
    end = time.monotonic() + 60
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
