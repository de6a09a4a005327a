# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_site between fence and promotion, when neither cluster may accept writes, and its note for the way back."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.claims import LEASE, Claims, read_clock
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.sites import KEPT_SECTION, make_note
from support.modules import ModuleRun, run_module
from support.patroni_site_pair import CLAIM, SiteStandIn, merge

Json = dict[str, Any]
CLAIMS = "ansible_collections.lowtide.ops.plugins.module_utils._patroni.claims"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def east() -> Iterator[SiteStandIn]:
    """The primary cluster."""
    with SiteStandIn("east") as site:
        yield site


@pytest.fixture
def west(east: SiteStandIn) -> Iterator[SiteStandIn]:
    """The cluster that follows it; once it is promoted, east follows."""
    with SiteStandIn("west") as site:
        site.follow(east)
        site.on_patch = lambda: follow(east, site)
        yield site


def follow(old: SiteStandIn, new: SiteStandIn) -> None:
    """The old cluster is on the timeline of the new one, and streams, once that is promoted."""
    if not new.is_standby and old.is_standby:
        old.timeline = new.timeline
        new.streaming.append(old.name)


def declare(new: SiteStandIn, *old: str, silent_after: float = 20, **more: Any) -> ModuleRun:
    """Have ``new`` be the primary cluster; an old one that says nothing for ``silent_after`` seconds is silent."""
    options = {
        "primary": {"urls": [new.url], "request_timeout": 20},
        "old_primary": {"urls": list(old), "request_timeout": silent_after},
    }
    return run_module("patroni_site", {**options, "timeout": 60, **more})


def once(act: Callable[[], None], when: Callable[[], bool]) -> Callable[[], None]:
    """What acts at the first call at which ``when`` holds."""
    done: list[int] = []

    def call() -> None:
        if when() and not done:
            done.append(1)
            act()

    return call


@pytest.mark.parametrize("codes", [[503, 503], [409] * 30, [500], [502, 502], [0, 0]], ids=str)
def test_a_cluster_that_takes_no_change_for_a_moment_does_not_end_the_run(
    west: SiteStandIn, east: SiteStandIn, codes: list[int]
) -> None:
    """The fence is to be confirmed in its DCS: Patroni answers 409 where etcd refuses, a proxy 502, or nothing does."""
    east.on_patch = once(lambda: east.next_codes.extend(codes), lambda: east.is_standby)
    run = declare(west, east.url)
    assert not run.failed, run.msg
    assert (west.is_standby, east.is_standby) == (False, True)
    assert not east.next_codes


def test_a_login_that_is_not_accepted_any_more_ends_the_run_at_once(west: SiteStandIn, east: SiteStandIn) -> None:
    """That does not pass."""
    east.on_patch = once(lambda: setattr(east, "patch_code", 401), lambda: east.is_standby)
    run = declare(west, east.url)
    assert run.failed
    assert "it answers 401" in run.msg
    assert "To go back to east" in run.msg
    assert west.is_standby
    assert run["waited"] < 30


@pytest.mark.parametrize("code", [503, -503, 0, 409])
def test_a_promotion_whose_answer_is_an_error_is_looked_for(west: SiteStandIn, east: SiteStandIn, code: int) -> None:
    """It may have come about: then it is not sent until it is proven again, which could not be any more."""
    east.on_patch = once(lambda: west.next_codes.append(code), lambda: east.is_standby)
    run = declare(west, east.url)
    assert not run.failed, run.msg
    assert run.changed
    assert (west.is_standby, east.is_standby) == (False, True)
    assert not west.next_codes
    sent = [patch for patch in west.patches if "standby_cluster" in patch]
    assert len(sent) == 1


def test_a_fence_that_somebody_takes_away_is_not_looked_for_all_the_time(west: SiteStandIn, east: SiteStandIn) -> None:
    """Each look at the DCS is a write to it; the members of a paused cluster stay standbys meanwhile."""
    read, stale = east.read, dict[str, Any]()

    def unfence() -> None:
        stale.update(east.config)
        del east.config["standby_cluster"]
        east.status = {"role": "standby_leader", "xlog": {"received_location": 5000, "replayed_location": 5000}}

    east.read = lambda path: stale if path == "/config" and stale else read(path)  # type: ignore[method-assign]
    east.on_patch = once(unfence, lambda: east.is_standby)
    run = declare(west, east.url, timeout=3)
    assert "the configuration of east has no standby_cluster" in run.msg, run.msg
    assert len(east.claims) < 30


def test_a_lost_site_that_comes_back_during_a_conflict_is_not_passed_over(west: SiteStandIn) -> None:
    """It is looked for again before each promotion that is sent."""
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        west.conflicts = 1

        def come_back() -> None:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))

        west.on_refusal = come_back
        run = declare(west, f"http://127.0.0.1:{port}", silent_after=1, old_site_lost=True)
    assert run["error"]["refused"], run.msg
    assert "the old site is there" in run.msg
    assert "it has come back during this run" in run.msg
    assert west.is_standby


def test_who_has_let_a_claim_lapse_looks_for_rivals_before_it_writes(
    west: SiteStandIn, east: SiteStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim counted for nothing to others meanwhile."""
    clients = [Client([site.url]) for site in (west, east)]
    reached = [(client, client.read_cluster()) for client in clients]
    claims = Claims(reached[0], reached[1], lambda _text: None)
    begin = read_clock()
    entry = {"owner": "ops2", "becomes": "primary", "peers": [f"{west.url}/patroni"]}
    with claims.hold():
        monkeypatch.setattr(f"{CLAIMS}.read_clock", lambda: begin + 2 * LEASE)
        east.config[f"{CLAIM}rival"] = {**entry, "seen": clients[1].now}
        with pytest.raises(Refusal, match="another run is at work, which makes it a primary"):
            claims.require(clients[1])
        monkeypatch.setattr(f"{CLAIMS}.read_clock", lambda: begin + 4 * LEASE)
        with pytest.raises(Refusal, match="another run is at work, which makes it a primary"):
            claims.confirm(clients[1])


def test_a_conflict_does_not_count_as_what_was_put_back(west: SiteStandIn, east: SiteStandIn) -> None:
    """Slot and archive of the cluster that follows again, sent while another client changes its configuration."""
    west.config["standby_cluster"]["restore_command"] = "cp /archive/%f %p"
    before = dict(west.config["standby_cluster"])
    assert not declare(west, east.url).failed
    west.on_patch = lambda: None

    def interfere() -> None:
        follow(west, east)
        west.conflicts = 1

    east.on_patch = interfere
    back = declare(east, west.url)
    assert not back.failed, back.msg
    assert west.config["standby_cluster"] == before
    assert KEPT_SECTION not in west.config


SLOT, ARCHIVE = {"primary_slot_name": "west"}, {"restore_command": "cp"}


@pytest.mark.parametrize(
    ("note", "section", "kept"),
    [
        (None, {"host": "a1"}, None),
        (None, {"host": "a1", **ARCHIVE}, {"host": "a1", **ARCHIVE}),
        ({"host": "a1,a2", **ARCHIVE}, {"host": "a1", "port": 6, **ARCHIVE}, {"host": "a1,a2", **ARCHIVE}),
        ({"host": "a1,a2", "port": "5,5"}, {"host": "a1", "port": 6}, {"host": "a1,a2", "port": "5,5"}),
        ({"host": "a1,a2"}, {"host": "b1,b2", "port": 6}, {"host": "b1,b2", "port": 6}),
        ({"host": "a1", **SLOT, **ARCHIVE}, {"host": "a2", **ARCHIVE}, {"host": "a2", **SLOT, **ARCHIVE}),
        (
            {"host": "a1", "archive_cleanup_command": "rm", **ARCHIVE},
            {"host": "a1", **ARCHIVE},
            {"host": "a1", **ARCHIVE},
        ),
    ],
)
def test_what_is_noted_for_the_way_back(note: Json | None, section: Json, kept: Json | None) -> None:
    """Several hosts and a slot had to be taken out of the section before the fence; what else is gone, is gone."""
    config: Json = {"standby_cluster": section, **({KEPT_SECTION: note} if note else {})}
    assert merge(config, make_note(config)).get(KEPT_SECTION) == kept


def test_several_hosts_that_cannot_be_put_back_are_told(west: SiteStandIn, east: SiteStandIn) -> None:
    """One of them has been replaced meanwhile: it follows one host, until somebody writes the present ones."""
    note = {"host": "127.0.0.1,127.0.0.9", "port": f"{east.port},{east.port}", **ARCHIVE}
    west.config["standby_cluster"].update(ARCHIVE)
    west.config[KEPT_SECTION] = note
    assert not declare(west, east.url).failed
    assert west.config[KEPT_SECTION] == note
    west.on_patch = lambda: None
    east.on_patch = lambda: follow(west, east)
    back = declare(east, west.url)
    assert not back.failed, back.msg
    said = "without hosts 127.0.0.1,127.0.0.9 (not all of them are members of east), which lowtide_standby_cluster"
    assert said in str(back["warnings"])
    assert west.config["standby_cluster"]["restore_command"] == "cp"
    west.config["standby_cluster"].update(host="127.0.0.1,127.0.0.1", port=f"{east.port},{east.port}")
    again = declare(east, west.url)
    assert not again.failed, again.msg
    assert "warnings" not in again.result


def test_equal_names_and_synchronous_mode_are_warned_of(west: SiteStandIn, east: SiteStandIn) -> None:
    """PostgreSQL takes whoever has the name of a synchronous standby for it."""
    member = {"role": "replica", "state": "running", "api_url": f"{west.url}/patroni", "host": "127.0.0.1"}
    for mode, warned in ((None, False), ("quorum", True)):
        west.config["synchronous_mode"] = mode
        east.members = [{**member, "name": west.name, "port": 1, "api_url": "http://127.0.0.2:9/patroni"}]
        run = declare(west, east.url)
        assert ("have members of the same name (west1), and synchronous_mode counts" in str(run.result)) is warned
