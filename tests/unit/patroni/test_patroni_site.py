# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_site against stand-ins of two clusters: when a site is lost, and when the other one may be promoted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support.modules import ModuleRun, run_module
from support.patroni_site_pair import SiteStandIn

Json = dict[str, Any]
LOST = {"old_site_lost": True}


@pytest.fixture
def east() -> Iterator[SiteStandIn]:
    """The primary cluster."""
    with SiteStandIn("east") as site:
        yield site


@pytest.fixture
def west(east: SiteStandIn) -> Iterator[SiteStandIn]:
    """The cluster that follows it."""
    with SiteStandIn("west") as site:
        site.follow(east)
        yield site


def declare(new: SiteStandIn, old: Json | SiteStandIn, **more: Any) -> ModuleRun:
    """Have ``new`` be the primary cluster."""
    old_primary = {"urls": [old.url]} if isinstance(old, SiteStandIn) else old
    options = {
        "primary": {"urls": [new.url], "request_timeout": 2},
        "old_primary": {**old_primary, "request_timeout": 1},
    }
    return run_module("patroni_site", {**options, "timeout": 2, **more})


def test_a_site_that_nobody_can_connect_to_is_lost_where_that_is_declared(west: SiteStandIn) -> None:
    run = declare(west, {"urls": ["http://127.0.0.1:9"]}, **LOST)
    assert not run.failed, run.msg
    assert west.patches == [{"standby_cluster": None}]


@pytest.mark.parametrize("code", [401, 403, 503])
def test_a_site_that_answers_is_not_lost(west: SiteStandIn, east: SiteStandIn, code: int) -> None:
    """Whatever it answers: a primary that has lost its DCS answers 503, one with another password 401."""
    east.code = code
    run = declare(west, east, **LOST)
    assert run["error"]["refused"], run.msg
    assert f"the old site is there: {east.url} answers {code}" in run.msg
    assert west.patches == []


def test_a_site_of_another_scope_or_without_its_dcs_is_not_lost(west: SiteStandIn, east: SiteStandIn) -> None:
    other = declare(west, {"urls": [east.url], "scope": "shop"}, **LOST)
    assert "its scope is east, and shop is meant" in other.msg
    east.status = {"dcs_last_seen": 1000}
    alone = declare(west, east, **LOST)
    assert "none reads the DCS" in alone.msg
    assert other["error"]["refused"]
    assert alone["error"]["refused"]
    assert west.patches == []


def test_a_site_that_takes_connections_and_says_nothing_is_not_lost(west: SiteStandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run = declare(west, {"urls": ["http://127.0.0.1:9", f"http://127.0.0.1:{listener.getsockname()[1]}"]}, **LOST)
    assert "takes connections" in run.msg
    assert west.patches == []


def test_a_site_that_sends_wal_is_not_lost(west: SiteStandIn) -> None:
    west.status = {"replication_state": "streaming"}
    run = declare(west, {"urls": ["http://127.0.0.1:9"]}, **LOST)
    assert "old_site_lost is set, and its leader west1 streams WAL from another server" in run.msg
    assert west.patches == []
