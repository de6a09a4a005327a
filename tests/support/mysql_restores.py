# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore a MariaDB database beside and in place, whole or through a proxy that disturbs it."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

from support.modules import ModuleRun, finish_module, run_module, start_module
from support.mysql_proxy import CommandProxy
from support.mysql_sites import MySqlSite


def definitions(site: MySqlSite, database: str) -> dict[str, Any]:
    """What a rename cannot carry."""
    names = {
        "views": "SELECT TABLE_NAME, DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s",
        "triggers": "SELECT TRIGGER_NAME, DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s",
        "routines": "SELECT ROUTINE_NAME, DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s",
        "events": "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s",
    }
    return {kind: sorted(site.sql(query, [database], database="")) for kind, query in names.items()}


def name_server(site: MySqlSite) -> str:
    """How the server is named in the path of its backups, by whichever port it is reached."""
    server = site.facts["primary"]
    return f"{server['host']}:{server['port']}"


def restore(site: MySqlSite, state: str, *, check: bool = False, **more: Any) -> ModuleRun:
    """Run the module for a backup of this server."""
    params = site.params("restore", **{"state": state, "server": name_server(site), "compare_live": False, **more})
    return run_module("mysql_restore", params, check=check)


def place(site: MySqlSite, **more: Any) -> ModuleRun:
    """Restore beside, and bring that into place."""
    beside = restore(site, "beside", **more)
    assert not beside.failed, beside.msg
    return restore(site, "in_place", **more)


def run_until(site: MySqlSite, number: int, *, before: bytes = b"") -> list[int]:
    """Restore beside and in place through a proxy, killed before its ``number``-th command, or before the one with the
    text ``before`` in it; return which it has sent that write."""
    server = site.facts["primary"]
    with CommandProxy(server["host"], server["port"], stop_at=number, stop_before=before) as proxy:
        for state in ("beside", "in_place"):
            params = site.params("restore", state=state, login_port=proxy.port, compare_live=False)
            process = start_module("mysql_restore", {**params, "server": name_server(site)})
            proxy.act = functools.partial(os.killpg, process.pid, signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                process.communicate()
                break
            run = finish_module(process)
            assert not run.failed, run.msg
        return proxy.list_writes()


def restore_and_act(site: MySqlSite, *, before: bytes, act: Any) -> ModuleRun:
    """Bring into place what is beside, and call ``act`` before the command with the text ``before``."""
    server = site.facts["primary"]
    with CommandProxy(server["host"], server["port"], stop_before=before, act=act, goes_on=True) as proxy:
        run = restore(site, "in_place", login_port=proxy.port)
        assert proxy.act is None, proxy.texts
        return run
