# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mysql_backup SIGKILLed before a request to the S3 server, or before a command to the database; then run again.

By default at some of them; LOWTIDE_EXHAUSTIVE=1 takes all.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from support.modules import ModuleRun, run_module, start_module
from support.mysql_proxy import CommandProxy
from support.mysql_sites import MySqlSite
from support.s3_proxy import Fault, Request, s3_proxy
from support.turns import is_sweep

pytestmark = pytest.mark.lab("mariadb", "versitygw")

UNPUBLISHED = "it has no manifest: it was never verified, or its manifest has been removed"
"""Of a run that was killed between the last of its parts and its manifest."""


def make_params(site: MySqlSite, **more: Any) -> dict[str, Any]:
    """Options under a declared name of the server, whatever way leads to it."""
    return site.params(server="primary", **more)


def start(site: MySqlSite, kill: list[subprocess.Popen[str]], **more: Any) -> None:
    """Run the module until something kills the process that is in ``kill``."""
    process = start_module("mysql_backup", make_params(site, **more))
    kill.append(process)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL


def kill_at_request(site: MySqlSite, number: int) -> None:
    """SIGKILL it at its request ``number``, of which the server then never hears."""
    started: list[subprocess.Popen[str]] = []

    def rule(request: Request) -> Fault | None:
        if request.number < number:
            return None
        os.kill(started[0].pid, signal.SIGKILL)
        return Fault(status=500)

    with s3_proxy(site.bucket.server["endpoint_url"], rule) as proxy:
        start(site, started, endpoint_url=proxy.url)


def kill_at_command(site: MySqlSite, number: int) -> None:
    """SIGKILL it before command ``number`` of it or of a program of it."""
    started: list[subprocess.Popen[str]] = []
    server = site.facts["primary"]
    with CommandProxy(server["host"], server["port"], stop_at=number) as proxy:
        proxy.act = lambda: os.kill(started[0].pid, signal.SIGKILL)
        start(site, started, login_port=proxy.port)


def list_manifests(site: MySqlSite) -> list[str]:
    """The keys of what is published."""
    return [key for key in site.bucket.names() if key.endswith("manifest.json")]


def check_point(site: MySqlSite, kill: Callable[[MySqlSite, int], None], number: int) -> tuple[bool, ModuleRun]:
    """Kill it there and run it again: one backup counts, and it is whole; was it published when it was killed?"""
    site.bucket.clear()
    kill(site, number)
    is_published = bool(list_manifests(site))
    again = run_module("mysql_backup", make_params(site))
    assert not again.failed, (number, again.msg)
    assert again.changed is not is_published, number
    assert (again["backup"]["tables"], again["backup"]["rows"]) == (5, 2052), number
    assert len(list_manifests(site)) == 1, number
    # What the killed run has written stays beside it until its time is over; it is told, and does not count.
    assert {entry["problem"] for entry in again["bad"]} <= {UNPUBLISHED}, number
    return is_published, again


def check_nothing_is_left_for_long(site: MySqlSite) -> None:
    """By the clock of the S3 server the killed run's time is over: the next one removes what it left."""
    later = {"Date": format_datetime(datetime.now(UTC) + timedelta(days=2), usegmt=True)}
    with s3_proxy(
        site.bucket.server["endpoint_url"], lambda request: Fault(headers=later) if request.is_list else None
    ) as proxy:
        run = run_module("mysql_backup", make_params(site, max_age="0", endpoint_url=proxy.url))
    assert run.changed, run.msg
    folders = {key.rpartition("/")[0] for key in site.bucket.names()}
    assert {key.rpartition("/")[0] for key in list_manifests(site)} == folders
    assert len(folders) == 2
    assert site.bucket.uploads() == []


def check_points(site: MySqlSite, kill: Callable[[MySqlSite, int], None], points: list[int]) -> None:
    """Every one of them. Those at which it was published are the last ones."""
    published = [check_point(site, kill, number)[0] for number in points]
    assert published == sorted(published)
    assert not run_module("mysql_backup", make_params(site)).changed
    check_nothing_is_left_for_long(site)


@pytest.mark.procedure("E8")
def test_killed_at_any_request_and_run_again(site: MySqlSite) -> None:
    """From the first write on; before it there is nothing to be left."""
    with s3_proxy(site.bucket.server["endpoint_url"], lambda _request: None) as proxy:
        assert run_module("mysql_backup", make_params(site, endpoint_url=proxy.url)).changed
        seen = list(proxy.seen)
    first = next(request.number for request in seen if request.method != "GET")
    manifest = next(request.number for request in seen if request.method == "PUT" and "manifest" in request.target)
    assert manifest - first > 6
    points = list(range(first, len(seen) + 1)) if is_sweep() else [first + 1, manifest, manifest + 1]
    check_points(site, kill_at_request, points)


@pytest.mark.procedure("E8")
def test_killed_at_a_command_and_run_again(site: MySqlSite) -> None:
    """Of the module or of mariadb-dump, which only read: one is enough, or twelve in the sweep."""
    server = site.facts["primary"]
    with CommandProxy(server["host"], server["port"]) as proxy:
        assert run_module("mysql_backup", make_params(site, login_port=proxy.port)).changed
        total = proxy.commands
    assert total > 20
    parts = 12 if is_sweep() else 2
    check_points(site, kill_at_command, [total * part // parts for part in range(1, parts)])
