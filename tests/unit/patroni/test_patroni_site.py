# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_site against stand-ins of two clusters: when a site is lost, and when the other one may be promoted."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.claims import (
    LEASE,
    RENEWAL,
    Claim,
    Claims,
    read_clock,
)
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.client import Client
from support.modules import ModuleRun, run_module
from support.patroni_site_pair import CLAIM, SiteStandIn

Json = dict[str, Any]
LOST = {"old_site_lost": True}
RIGHTS = {"lowtide_rights": None}
CLAIMS = "ansible_collections.lowtide.ops.plugins.module_utils._patroni.claims"


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


def declare(new: SiteStandIn, old: Json | SiteStandIn, *, check: bool = False, **more: Any) -> ModuleRun:
    """Have ``new`` be the primary cluster."""
    old_primary = {"urls": [old.url]} if isinstance(old, SiteStandIn) else old
    options = {
        "primary": {"urls": [new.url], "request_timeout": 20},
        "old_primary": {"request_timeout": 20, **old_primary},
    }
    return run_module("patroni_site", {**options, "timeout": 30, **more}, check=check)


def test_a_site_that_nobody_can_connect_to_is_lost_where_that_is_declared(west: SiteStandIn) -> None:
    run = declare(west, {"urls": ["http://127.0.0.1:9"]}, **LOST)
    assert not run.failed, run.msg
    assert west.patches == [RIGHTS, {"standby_cluster": None}]


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
        urls = ["http://127.0.0.1:9", f"http://127.0.0.1:{listener.getsockname()[1]}"]
        run = declare(west, {"urls": urls, "request_timeout": 1}, **LOST)
    assert "takes connections" in run.msg
    assert west.patches == []


def test_a_site_that_sends_wal_is_not_lost(west: SiteStandIn) -> None:
    west.status = {"replication_state": "streaming"}
    run = declare(west, {"urls": ["http://127.0.0.1:9"]}, **LOST)
    assert "old_site_lost is set, and its leader west1 streams WAL from another server" in run.msg
    assert west.patches == []


def test_rights_on_both_are_tried_before_the_fence(west: SiteStandIn, east: SiteStandIn) -> None:
    """A login that is wrong only there would be found by the promotion, when neither accepts writes any more."""
    west.patch_code = 401
    run = declare(west, east)
    assert run["error"]["refused"], run.msg
    assert f"{west.url}: it answers 401" in run.msg
    assert east.patches == [RIGHTS]
    west.patch_code = 503
    assert "west: it takes no change of its configuration: 503" in declare(west, east).msg
    assert not east.is_standby


def test_the_other_site_takes_over(west: SiteStandIn, east: SiteStandIn) -> None:
    """Fenced first; the next run changes nothing."""
    west.on_patch = lambda: east_follows(east, west)
    run = declare(west, east)
    assert not run.failed, run.msg
    assert east.patches == [RIGHTS, {"standby_cluster": {"host": "127.0.0.1", "port": west.port}}]
    assert west.patches == [RIGHTS, {"standby_cluster": None}]
    again = declare(west, east)
    assert not again.failed, again.msg
    assert not again.changed


EXTRAS: Json = {"primary_slot_name": "west", "restore_command": "cp /archive/%f %p"}


def test_there_and_back_a_standby_cluster_has_what_it_had(west: SiteStandIn, east: SiteStandIn) -> None:
    """Its slot and archive are kept with it while it is the primary cluster; the other one is said to have none."""
    west.config["standby_cluster"].update(EXTRAS)
    east.config["slots"] = {"west": {"type": "physical"}}
    before = dict(west.config["standby_cluster"])
    west.on_patch = lambda: east_follows(east, west)
    there = declare(west, east)
    assert not there.failed, there.msg
    assert west.config["lowtide_standby_cluster"] == before
    assert "standby_cluster of east is" in str(there["warnings"])
    assert "without primary_slot_name, restore_command, which lowtide_standby_cluster in the" in str(there["warnings"])
    assert not declare(west, east).changed

    west.on_patch = lambda: None
    east.on_patch = lambda: east_follows(west, east)
    predicted = declare(east, west, check=True)
    back = declare(east, west)
    assert not back.failed, back.msg
    assert back["plan"] == predicted["plan"]
    assert west.config["standby_cluster"] == before
    assert "lowtide_standby_cluster" not in west.config
    assert "warnings" not in back.result
    assert not declare(east, west).changed


def test_a_lost_site_whose_wal_may_still_come_is_watched(west: SiteStandIn) -> None:
    """Patroni below 3.0.4 does not say whether it streams."""
    west.status = {"patroni": {"version": "3.0.2", "scope": "west"}}
    west.config["postgresql"] = {"parameters": {"wal_receiver_timeout": "1s"}}
    reads: list[int] = []

    def read_more(path: str, read: Any = west.read) -> Json:
        answer: Json = read(path)
        if path == "/patroni" and len(reads) < 40:
            reads.append(1)
            position = west.position + 10 * len(reads)
            answer["xlog"] = {"received_location": position, "replayed_location": position}
        return answer

    west.read = read_more  # type: ignore[method-assign]
    lost: Json = {"urls": ["http://127.0.0.1:9"]}
    run = declare(west, lost, timeout=30, **LOST)
    assert run["error"]["refused"], run.msg
    assert "bytes of WAL during this run, so that another server still sends them" in run.msg
    assert west.is_standby
    reads.extend([1] * 40)
    run = declare(west, lost, timeout=30, **LOST)
    assert not run.failed, run.msg
    assert "west has received no WAL for 2 s (wal_receiver_timeout and loop_wait)" in str(run["evidence"])
    assert not west.is_standby


def east_follows(old: SiteStandIn, new: SiteStandIn) -> None:
    """The old cluster is on the new timeline and streams."""
    old.timeline = new.timeline
    new.streaming.append(old.name)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"state": "starting", "xlog": {}}, "east1: standby_leader, starting"),
        ({"xlog": {}}, "the position of east1 is not known"),
        ({"xlog": {"received_location": 5100, "replayed_location": 5100}}, "west has not received 100 bytes of WAL"),
    ],
)
def test_a_fence_that_is_not_proven_ends_with_the_way_back(
    west: SiteStandIn, east: SiteStandIn, status: Json, said: str
) -> None:
    """An old leader that is silent about its WAL may have more than all others."""
    east.on_patch = lambda: east.status.update(status if east.is_standby else {})
    run = declare(west, east, timeout=2)
    assert run.failed
    assert said in run.msg, run.msg
    assert "To go back to east, run with primary and old_primary exchanged; where that" in run.msg
    assert f'send PATCH {{"standby_cluster": null}} to {east.url}/config' in run.msg
    assert west.is_standby
    assert not run["error"]["refused"]


def add_replica(site: SiteStandIn, replica: SiteStandIn, *, state: str) -> None:
    """Make ``replica`` answer as the second member of a cluster."""
    replica.status = {"role": "replica", "state": state}
    site.members = [{"name": "east2", "role": "replica", "state": state, "api_url": f"{replica.url}/patroni"}]


def test_a_member_that_leaves_the_old_site_after_the_fence_is_missed(west: SiteStandIn, east: SiteStandIn) -> None:
    """Its Patroni may be gone and its PostgreSQL not."""
    with SiteStandIn("east") as replica:
        add_replica(east, replica, state="running")
        east.on_patch = lambda: east.members.clear() if east.is_standby else None
        run = declare(west, east, timeout=2)
    assert "east2 is not in the cluster any more" in run.msg, run.msg
    assert west.is_standby


def test_a_silent_address_of_the_old_site_may_be_a_primary(west: SiteStandIn, east: SiteStandIn) -> None:
    """Patroni was killed there, so that /cluster has forgotten the member; its PostgreSQL may go on."""
    run = declare(west, {"urls": [east.url, "http://127.0.0.1:9"]})
    assert run["error"]["refused"], run.msg
    said = "not every address of old_primary.urls answers, so that it could not be proven fenced (http://127.0.0.1:9:"
    assert said in run.msg
    assert east.patches == []


def test_a_run_in_the_other_direction_ends_this_one(west: SiteStandIn, east: SiteStandIn) -> None:
    """It has promoted the old cluster again while this run waits: two primaries otherwise."""
    east.on_patch = lambda: east.config.pop("standby_cluster", None)
    run = declare(west, east, timeout=2)
    assert "the configuration of east has no standby_cluster" in run.msg, run.msg
    assert west.is_standby


def test_a_promotion_that_is_refused_ends_with_the_way_back(west: SiteStandIn, east: SiteStandIn) -> None:
    east.on_patch = lambda: setattr(west, "patch_code", 401 if east.is_standby else 200)
    run = declare(west, east)
    assert "it answers 401" in run.msg
    assert "To go back to east" in run.msg
    assert not run["error"]["refused"]


def test_a_fence_that_could_never_be_proven_is_not_sent(west: SiteStandIn, east: SiteStandIn) -> None:
    """A replica that answers and does not run."""
    with SiteStandIn("east") as replica:
        add_replica(east, replica, state="start failed")
        run = declare(west, east)
    assert "not every member runs, so that it could not be proven fenced (east2: start failed)" in run.msg, run.msg
    assert east.patches == []


def claim(site: SiteStandIn, run: str, becomes: str, peer: SiteStandIn, age: float) -> None:
    """Note another run in a cluster's configuration."""
    entry = {"run": run, "owner": "ops2 (process 7)", "becomes": becomes, "peers": [f"{peer.url}/patroni"]}
    site.config[f"{CLAIM}{run}"] = {**entry, "seen": round(time.time() - age)}


def list_claims(*sites: SiteStandIn) -> list[str]:
    """The keys of what runs have noted."""
    return [key for site in sites for key in site.config if key.startswith(CLAIM)]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("becomes", ["standby", "primary"])
def test_a_run_in_the_other_direction_is_refused_with_its_owner(
    west: SiteStandIn, east: SiteStandIn, becomes: str, check: bool
) -> None:
    """Whichever cluster it is noted in. One that has nothing to do is refused as well: it would be told wrongly."""
    site, peer = (west, east) if becomes == "standby" else (east, west)
    claim(site, "5ca1ab1e", becomes, peer, 20)
    run = declare(west, east, check=check)
    assert run["error"]["refused"], run.msg
    assert f"which makes it a {becomes}: run 5ca1ab1e of ops2 (process 7), seen " in run.msg
    assert (west.patches, east.patches, west.claims, east.claims) == ([], [], [], [])


def test_a_run_that_makes_a_third_cluster_the_primary_one_is_refused(west: SiteStandIn, east: SiteStandIn) -> None:
    with SiteStandIn("north") as north:
        claim(east, "5ca1ab1e", "standby", north, 20)
        assert "run 5ca1ab1e" in declare(west, east).msg


def test_what_a_dead_run_has_noted_is_taken_over_and_told(west: SiteStandIn, east: SiteStandIn) -> None:
    """Also in the other direction. What a live run in the same direction has noted stays."""
    claim(west, "dead", "standby", east, 61)
    claim(west, "twin", "primary", east, 1)
    west.on_patch = lambda: east_follows(east, west)
    run = declare(west, east)
    assert not run.failed, run.msg
    said = r"run dead of ops2 \(process 7\), seen \d+ s ago, has not ended; this run takes over"
    assert re.search(said, str(run["warnings"])), run["warnings"]
    assert list_claims(west, east) == [f"{CLAIM}twin"]
    noted = west.claims[0]
    ((key, entry),) = noted.items()
    assert entry["becomes"] == "primary"
    assert west.claims[-1] == {key: None}


def test_of_two_that_begin_at_once_exactly_one_has_its_claim(west: SiteStandIn, east: SiteStandIn) -> None:
    """The other one has noted itself after this one had looked: it is in the answer to this one's note."""
    first = min(west, east, key=lambda site: site.url)
    west.on_patch = lambda: claim(first, "rival", "standby" if first is west else "primary", other(first), 0)

    def other(site: SiteStandIn) -> SiteStandIn:
        return east if site is west else west

    run = declare(west, east)
    assert run["error"]["refused"], run.msg
    assert "run rival of ops2" in run.msg
    assert list_claims(west, east) == [f"{CLAIM}rival"]
    assert not east.is_standby
    assert west.is_standby


def test_a_failed_run_leaves_no_claim(west: SiteStandIn, east: SiteStandIn) -> None:
    east.on_patch = lambda: east.status.update({"xlog": {}} if east.is_standby else {})
    assert declare(west, east, timeout=2).failed
    assert west.claims
    assert list_claims(west, east) == []


@pytest.mark.parametrize("seconds", [RENEWAL, LEASE])
def test_a_run_that_stood_still_does_not_write_once_another_one_has_taken_over(
    west: SiteStandIn, east: SiteStandIn, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A minute later, its note is gone; where it is still there, nobody has begun, and it goes on.

    Another run whose clock is ahead takes over earlier.
    """
    clients = [Client([site.url]) for site in (west, east)]
    reached = [(client, client.read_cluster()) for client in clients]
    claims = Claims(reached[0], reached[1], lambda _text: None)
    later = read_clock() + seconds + 1
    with claims.hold():
        monkeypatch.setattr(f"{CLAIMS}.read_clock", lambda: later)
        claims.require(clients[0])
        (key,) = list_claims(west)
        assert west.claims[-1][key]["becomes"] == "primary"
        del east.config[list_claims(east)[0]]
        with pytest.raises(OpsError, match="another one has taken over"):
            claims.require(clients[1])
        with pytest.raises(OpsError, match="another one has taken over"):
            claims.renew()
    assert list_claims(west, east) == []


def test_a_member_of_the_old_site_without_patroni_is_no_success(west: SiteStandIn, east: SiteStandIn) -> None:
    """West is the primary cluster already; the server of a member that east has lost takes connections."""
    west.on_patch = lambda: east_follows(east, west)
    assert not declare(west, east).failed
    silent = "http://127.0.0.2:9"
    known = declare(west, {"urls": [east.url, silent]})
    assert not known.failed, known.msg
    assert "whether it accepts writes is not known" in str(known["warnings"])
    assert [blocker["object"] for blocker in known["blockers"]] == [f"address {silent}"]
    with socket.create_server(("127.0.0.2", east.port)):
        run = declare(west, {"urls": [east.url, silent]})
    assert run["error"]["refused"], run.msg
    assert f"Patroni cluster east: there may be a second primary: address {silent}" in run.msg


def test_a_run_that_holds_its_claim_is_not_ended_by_one_that_comes_later(
    west: SiteStandIn, east: SiteStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one has noted itself and looks then; here it is killed before it takes its note out again."""
    clients = [Client([site.url]) for site in (west, east)]
    reached = [(client, client.read_cluster()) for client in clients]
    claims = Claims(reached[0], reached[1], lambda _text: None)
    begin = read_clock()
    with claims.hold():
        claim(west, "later", "standby", east, 0)
        claim(east, "later", "primary", west, 0)
        monkeypatch.setattr(f"{CLAIMS}.read_clock", lambda: begin + RENEWAL + 1)
        (own, *_others) = west.claims[0]
        claims.renew()
        claims.require(clients[1])
        assert [entry[own]["becomes"] for entry in west.claims if entry.get(own)] == ["primary"] * 2
        assert claims.confirm(clients[0])["standby_cluster"] == west.config["standby_cluster"]
        monkeypatch.setattr(f"{CLAIMS}.read_clock", lambda: begin + 2 * LEASE)
        with pytest.raises(Refusal, match="another run is at work, which makes it a "):
            claims.renew()


def test_a_rerun_for_a_lost_site_is_no_rival_of_the_first() -> None:
    """A killed run for a lost site has noted no other cluster; it made the same one the primary."""

    def make(becomes: str, *peers: str) -> Claim:
        return Claim("1", "", becomes, peers, 0.0)

    lost, named = make("primary"), make("primary", "a", "b")
    assert not lost.is_opposed_to(lost)
    assert not lost.is_opposed_to(named)
    assert not named.is_opposed_to(lost)
    assert not named.is_opposed_to(make("primary", "b"))
    assert named.is_opposed_to(make("primary", "c"))
    assert lost.is_opposed_to(make("standby"))
    assert lost.is_opposed_to(make("standby", "a"))


def test_a_change_of_another_client_in_between_is_no_failure(west: SiteStandIn, east: SiteStandIn) -> None:
    """409 to the fence and to the promotion: all is read and proven again before it is sent again."""
    west.conflicts = east.conflicts = 1
    west.on_patch = lambda: east_follows(east, west)
    run = declare(west, east, timeout=20)
    assert not run.failed, run.msg
    assert (west.conflicts, east.conflicts) == (0, 0)
    assert (west.is_standby, east.is_standby) == (False, True)


def test_a_conflict_that_does_not_end_is_told_with_the_way_back(west: SiteStandIn, east: SiteStandIn) -> None:
    west.conflicts = 1000
    run = declare(west, east, timeout=2)
    assert "Patroni answers 409" in run.msg, run.msg
    assert "To go back to east" in run.msg
    assert west.is_standby


def test_a_conflict_is_judged_anew(west: SiteStandIn, east: SiteStandIn) -> None:
    """The other client's change came before the fence, and stands against it."""
    east.conflicts = 1
    read = east.read

    def pause(path: str) -> Json:
        if not east.conflicts:
            east.config["pause"] = True
        return {**read(path), **({"pause": True} if path == "/cluster" and not east.conflicts else {})}

    east.read = pause  # type: ignore[method-assign]
    run = declare(west, east)
    assert "so that it would go on accepting writes" in run.msg, run.msg
    assert not east.is_standby


def test_a_lost_site_is_looked_for_again_after_a_conflict(west: SiteStandIn) -> None:
    west.conflicts = 1
    run = declare(west, {"urls": ["http://127.0.0.1:9"]}, timeout=20, **LOST)
    assert not run.failed, run.msg
    assert not west.is_standby


def test_what_keeps_the_old_cluster_from_writes_is_read_from_the_dcs(west: SiteStandIn, east: SiteStandIn) -> None:
    """Patroni answers /config with what it read at its last round: the way back may have been sent since."""
    stale: Json = {}
    read = east.read

    def answer(path: str) -> Json:
        return stale if path == "/config" and stale else read(path)

    def unfence() -> None:
        if east.is_standby:
            stale.update(east.config)
            del east.config["standby_cluster"]
            received = {"received_location": 5000, "replayed_location": 5000}
            east.status = {"role": "standby_leader", "xlog": received}

    east.read = answer  # type: ignore[method-assign]
    east.on_patch = unfence
    run = declare(west, east, timeout=2)
    assert run.failed
    assert "the configuration of east has no standby_cluster" in run.msg, run.msg
    assert west.is_standby


def test_an_old_site_that_does_not_follow_is_told(west: SiteStandIn, east: SiteStandIn) -> None:
    """Whatever keeps it from streaming. A second run goes on, so that clients can be led to what is promoted."""
    west.on_patch = lambda: setattr(east, "timeline", west.timeline)
    first = declare(west, east, timeout=2)
    assert first.failed
    assert "east1 is on timeline 4, and does not stream from it yet" in first.msg, first.msg
    for check in (True, False):
        run = declare(west, east, check=check)
        assert not run.failed, run.msg
        assert not run.changed
        assert run["summary"].endswith("; east does not follow it")
        assert [blocker["object"] for blocker in run["blockers"]] == ["Patroni cluster east"]
        assert "it does not follow west, so that it is no standby site: east1 is on" in str(run["warnings"])
    west.streaming.append(east.name)
    again = declare(west, east)
    assert not again.failed, again.msg
    assert "warnings" not in again.result


@pytest.mark.parametrize("archive", [False, True])
def test_what_a_lost_site_may_be_all_the_same_is_said(west: SiteStandIn, archive: bool) -> None:
    """WAL by archive comes in whole segments, so that none in a minute says little."""
    west.status = {"patroni": {"version": "3.0.2", "scope": "west"}}
    west.config["postgresql"] = {"parameters": {"wal_receiver_timeout": "1ms"}}
    west.config["standby_cluster"].update({"restore_command": "cp"} if archive else {})
    run = declare(west, {"urls": ["http://127.0.0.1:9"]}, timeout=20, **LOST)
    assert not run.failed, run.msg
    assert ("restore_command brings WAL in whole segments" in str(run["evidence"])) is archive
    assert ("restore_command brings WAL in whole segments" in str(run["warnings"])) is archive
