# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may lead, who takes over, and which of two clusters is to be fenced: decisions without a server."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.moving import list_lacking
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.plan import (
    Leadership,
    Limits,
    list_restarts,
    parse_time,
    plan_move,
)
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.sites import (
    Sites,
    check_still,
    check_unfed,
    explain_missing,
    has_archive,
    is_receiving_known,
    list_unproven,
    plan_section,
    plan_sites,
    read_receiver_timeout,
)
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.state import Cluster, Member, Status, format_lsn

ANY = Limits(max_lag=100)


def make_member(name: str, *, role: str = "replica", tags: dict[str, Any] | None = None, **status: Any) -> Member:
    """A member that runs on timeline 2 and has all WAL up to 1000."""
    is_primary = role == "leader"
    known: dict[str, Any] = {
        "state": "running",
        "role": "master" if is_primary else "replica",
        "timeline": 2,
        "written": 1000 if is_primary else None,
        "received": None if is_primary else 1000,
        "replayed": None if is_primary else 1000,
        "system_identifier": "7",
        "scope": "shop",
        **status,
    }
    return Member(name, role, "running", f"http://{name}", host=name, tags=tags or {}, status=Status(**known))


def make_cluster(*members: Member, paused: bool = False, **config: Any) -> Cluster:
    """A cluster of these members."""
    return Cluster(members, paused, {"maximum_lag_on_failover": 100, **config}, {})


LEADER = make_member("a", role="leader")


def plan(*members: Member, limits: Limits = ANY, tags: dict[str, Any] | None = None, **config: Any) -> str:
    """Return the action and its candidate."""
    move = plan_move(make_cluster(*members, **config), Leadership(tags=tags or B), limits)
    return f"{move.action} to {move.candidate.name}" if move else "nothing"


B = {"site": "b"}


@pytest.mark.parametrize(
    ("members", "config", "expected"),
    [
        ((LEADER, make_member("b", tags=B), make_member("c", tags=B)), {}, "switchover to b"),
        ((LEADER, make_member("b", tags=B, received=950), make_member("c", tags=B)), {}, "switchover to c"),
        ((LEADER, make_member("b", tags=B, replayed=950), make_member("c", tags=B)), {}, "switchover to c"),
        (
            (LEADER, make_member("b", tags=B), make_member("c", tags={**B, "failover_priority": 2})),
            {},
            "switchover to c",
        ),
        ((LEADER, make_member("b", tags=B), make_member("c", role="sync_standby", tags=B)), {}, "switchover to c"),
        ((make_member("a", role="leader", tags=B), make_member("b", tags=B)), {}, "nothing"),
        ((make_member("a", role="leader", tags={"site": "a"}), make_member("b", tags=B)), {}, "switchover to b"),
        (
            (LEADER, make_member("b", tags=B), make_member("c", role="quorum_standby", tags=B)),
            {"synchronous_mode": "quorum"},
            "switchover to c",
        ),
    ],
)
def test_the_best_standby_takes_over(members: tuple[Member, ...], config: dict[str, Any], expected: str) -> None:
    """Who confirms commits, then priority, then lag, then name; nothing where a declared one leads."""
    assert plan(*members, **config) == expected


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (make_member("b", tags={**B, "nofailover": True}), "b: tag nofailover is True"),
        (make_member("b", tags={**B, "failover_priority": "0"}), "b: tag failover_priority is 0"),
        (make_member("b", tags={**B, "failover_priority": -1}), "b: tag failover_priority is -1"),
        (make_member("b", tags=B, timeline=1), "b: it is on timeline 1, and the cluster on 2"),
        (make_member("b", tags=B, received=899, replayed=899), "b: it lacks 101 bytes of WAL, more than max_lag 100"),
        (
            make_member("b", tags=B, replayed=800, replay_paused=True),
            "b: it has 200 bytes of WAL to replay, more than max_lag 100, and replay is paused",
        ),
        (make_member("b", tags=B, received=None, replayed=None), "b: its lag is not known"),
        (make_member("b", tags=B, state="starting"), "b: its PostgreSQL is starting"),
        (make_member("b", tags=B, error="it is away"), "b: it is away"),
        (make_member("b", tags=B, dcs_age=99.0), "b: it has not read the DCS for 99 s"),
    ],
)
def test_a_standby_that_may_not_take_over_is_named_with_why(member: Member, said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        plan(LEADER, member)
    assert said in str(refusal.value)


def test_a_leader_that_is_gone_is_replaced_only_where_that_is_allowed() -> None:
    """Then what is known of its WAL is what it has noted in the DCS."""
    gone = make_member("a", role="leader", error="it is away", written=None)
    standby = make_member("b", tags=B)
    with pytest.raises(Refusal, match="the leader a does not answer: it is away, so that this is no switchover"):
        plan(gone, standby)
    allowed = Limits(100, allow_failover=True)
    assert plan(gone, standby, limits=allowed) == "failover to b"
    with pytest.raises(Refusal, match="b: it lacks 5000 bytes of WAL"):
        plan(gone, standby._replace(known_lag=5000), limits=allowed)
    with pytest.raises(Refusal, match="nobody holds the leader key"):
        plan(standby)


FAILOVER = Limits(1000, allow_failover=True)
QUORUM: dict[str, Any] = {"synchronous_mode": "quorum"}


def make_quorum(name: str, position: int | None, *, tags: dict[str, Any] | None = None, error: str = "") -> Member:
    """A standby that may confirm commits and has WAL up to a position."""
    return make_member(name, role="quorum_standby", tags=tags or B, received=position, replayed=position, error=error)


def test_a_failover_takes_who_has_the_wal_before_who_has_the_priority() -> None:
    """What the candidate lacks is lost; priority decides among those that have as much."""
    preferred = {**B, "failover_priority": 2}
    assert plan(make_quorum("b", 500, tags=preferred), make_quorum("c", 1000), limits=FAILOVER, **QUORUM) == (
        "failover to c"
    )
    assert plan(make_quorum("b", 1000), make_quorum("c", 1000, tags=preferred), limits=FAILOVER, **QUORUM) == (
        "failover to c"
    )


def test_a_failover_is_refused_where_another_standby_has_more() -> None:
    """Whether that one may take over or not."""
    ahead = make_member("c", tags={"nofailover": True})
    with pytest.raises(Refusal, match="b would take over, and c has 400 bytes of WAL more, which would be lost"):
        plan(make_member("b", tags=B, received=600, replayed=600), ahead, limits=FAILOVER)


def test_a_failover_is_refused_where_a_silent_standby_may_have_acknowledged_rows() -> None:
    """One of two confirms each commit, and only one of them answers."""
    silent = make_quorum("c", None, error="it is away")
    with pytest.raises(Refusal, match="the position of c is not known, so that b may lack acknowledged rows"):
        plan(make_quorum("b", 1000), silent, limits=FAILOVER, **QUORUM)
    both = {**QUORUM, "synchronous_node_count": 2}
    assert plan(make_quorum("b", 1000), silent, limits=FAILOVER, **both) == "failover to b"


def test_a_failover_is_refused_where_a_silent_standby_lacked_less() -> None:
    """Without a comparison Patroni promotes whom it is told to."""
    gone = make_member("a", role="leader", error="it is away", written=None)
    candidate = make_member("b", tags=B)._replace(known_lag=50)
    silent = make_member("c", error="it is away", received=None, replayed=None)
    for lag, said in ((0, "c lacked 0 bytes"), (None, "c lacked an unknown number of bytes")):
        with pytest.raises(Refusal, match=f"b, which lacks 50 bytes of the leader's WAL, .* by /cluster {said}"):
            plan(gone, candidate, silent._replace(known_lag=lag), limits=FAILOVER)
    assert plan(gone, candidate, silent._replace(known_lag=50), limits=FAILOVER) == "failover to b"
    sync = candidate._replace(role="sync_standby")
    assert plan(gone, sync, silent._replace(known_lag=0), limits=FAILOVER, synchronous_mode=True) == "failover to b"


def test_a_standby_cluster_has_nobody_who_confirms_commits() -> None:
    """Patroni disregards synchronous_mode there; a section without a source makes no standby cluster."""
    leader = make_member("a", role="standby_leader")
    assert plan(leader, make_member("b", tags=B), synchronous_mode=True, **FOLLOWS) == "switchover to b"
    assert not make_cluster(LEADER, standby_cluster={"create_replica_methods": ["basebackup"]}).is_standby_cluster
    with pytest.raises(Refusal, match="it does not confirm commits"):
        plan(LEADER, make_member("b", tags=B), synchronous_mode=True)


def test_the_tag_nofailover_counts_before_the_priority() -> None:
    """As in Patroni."""
    assert plan(LEADER, make_member("b", tags={**B, "nofailover": False, "failover_priority": 0})) == "switchover to b"


def test_who_has_the_leader_key_and_is_no_primary_does_not_lead() -> None:
    """Its promotion hangs."""
    hangs = make_member("b", role="leader", tags=B)._replace(status=make_member("b").status)
    with pytest.raises(Refusal, match="b has the leader key, and is replica, so that nobody accepts writes"):
        plan(hangs, make_member("c", tags=B))
    follows_another = make_cluster(hangs, **FOLLOWS)
    assert plan_move(follows_another, Leadership(tags=B), ANY) is None


def test_the_greatest_lag_is_that_of_patroni_where_none_is_configured() -> None:
    assert make_cluster(LEADER)._replace(config={}).max_lag == 1048576
    assert make_cluster(LEADER)._replace(config={"maximum_lag_on_failover": 0}).max_lag == 0


def test_two_primaries_are_refused() -> None:
    with pytest.raises(Refusal, match=r"2 members accept writes: a \(timeline 2\), b \(timeline 3\)"):
        plan(
            LEADER,
            make_member("b", tags=B, role="replica", timeline=3)._replace(status=LEADER.status._replace(timeline=3)),
        )


def test_restarts_come_standbys_first() -> None:
    """Those that wait for it, and those that run since before a time."""
    old = "2026-11-27 01:00:00.5+00:00"
    members = (
        make_member("a", role="leader", pending_restart=True),
        make_member("b", pending_restart=True),
        make_member("c", started_at=old),
    )
    cluster = make_cluster(*members)
    assert [member.name for member in list_restarts(cluster, None, pending=True)] == ["b", "a"]
    assert [m.name for m in list_restarts(cluster, parse_time("2026-11-27T02:00:00+01:00"), pending=False)] == []
    assert [m.name for m in list_restarts(cluster, parse_time("2026-11-27T02:00:00Z"), pending=True)] == ["b", "c", "a"]


def make_pair(
    *, new: dict[str, Any] | None = None, old: dict[str, Any] | None = None, streaming: str = "w", position: int = 1000
) -> Sites:
    """West, which follows east; configurations and how far west has come can be others."""
    west = make_member("w", role="standby_leader", received=position, replayed=position)
    east = make_member("e", role="leader", streaming=frozenset({streaming}))
    new_config = {"standby_cluster": {"host": "e"}} if new is None else new
    if not new_config.get("standby_cluster"):
        west = west._replace(status=west.status._replace(role="master", written=position))
    if (old or {}).get("standby_cluster"):
        east = east._replace(status=east.status._replace(role="standby_leader"))
    return Sites(make_cluster(west, **new_config), make_cluster(east, **(old or {})))


EAST = make_member("e", role="leader")
FOLLOWS: dict[str, Any] = {"standby_cluster": {"host": "w"}}
THIRD: dict[str, Any] = {"standby_cluster": {"host": "x", "port": 5433}}


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        (make_pair(), ["fence", "promote"]),
        (make_pair(new={"standby_cluster": {"host": "e", "port": "5432"}}), ["fence", "promote"]),
        (make_pair(old=FOLLOWS), ["promote"]),
        (make_pair(new={}, old=FOLLOWS), []),
        (make_pair()._replace(old=None), ["promote"]),
        (make_pair(new={})._replace(old=None), []),
    ],
)
def test_what_is_left_is_read_from_both_clusters(sites: Sites, expected: list[str]) -> None:
    assert plan_sites(sites, 100) == expected


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (make_pair(new={}), "neither is a standby cluster, so that both accept writes"),
        (make_pair(old=THIRD), "follows {'host': 'x', 'port': 5433}, and no member of shop has this address (w:5432)"),
        (make_pair(new=THIRD, old=FOLLOWS), "no member of shop has this address (e:5432), so that a third cluster may"),
        (make_pair(new=THIRD, old=THIRD), "so that a third cluster may be the primary one"),
        (make_pair(new={}, old=THIRD), "no member of shop has this address (w:5432)"),
        (make_pair(new=THIRD), "no member of shop has this address (e:5432)"),
        (make_pair(streaming="other"), "its leader w does not stream from shop, so that it may have another history"),
        (make_pair(position=2000), "it has WAL up to 0/7D0, and shop, which it follows, only up to 0/3E8"),
        (make_pair(position=800), "it lacks 200 bytes of WAL of shop, more than max_lag 100"),
        (make_pair()._replace(new=make_cluster(paused=True)), "it is paused"),
        (make_pair()._replace(new=make_cluster(**FOLLOWS)), "nobody leads it"),
        (make_pair()._replace(old=make_cluster(EAST, paused=True)), "so that it would go on accepting writes"),
        (
            make_pair()._replace(old=make_cluster(EAST, make_member("f", error="it is away"))),
            "not every member runs, so that it could not be proven fenced (f: it is away)",
        ),
    ],
)
def test_a_site_that_must_not_take_over_is_refused(sites: Sites, said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        plan_sites(sites, 100)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("section", "version", "said"),
    [
        ({"host": "e", "primary_slot_name": "west"}, "3.0.2", r"primary_slot_name west \(with Patroni 3.0.2\)"),
        ({"host": "e", "primary_slot_name": "west"}, "", "primary_slot_name west"),
        ({"host": "e,e", "port": "5432,5432"}, "4.0.4", "host e,e"),
        ({"host": "e", "primary_slot_name": "west"}, "3.3.0", ""),
    ],
)
def test_a_receiver_that_wants_a_primary_is_no_receiver_after_the_fence(
    section: dict[str, Any], version: str, said: str
) -> None:
    """Neither site would accept writes then, for as long as the run waits."""
    sites = make_pair(new={"standby_cluster": section})
    members = [member._replace(status=member.status._replace(version=version)) for member in sites.new.members]
    sites = sites._replace(new=sites.new._replace(members=tuple(members)))
    if not said:
        assert plan_sites(sites, 100) == ["fence", "promote"]
        return
    with pytest.raises(Refusal, match=f"its standby_cluster has {said}") as refusal:
        plan_sites(sites, 100)
    assert '"primary_slot_name": null}, "lowtide_standby_cluster": {"host": "e' in str(refusal.value)


def prove(sites: Sites) -> str:
    """Return why the promotion is not safe, from one reading."""
    return "; ".join(list_unproven(sites, ()))


@pytest.mark.parametrize(
    ("timeline", "position", "said"),
    [
        (2, 1000, ""),
        (
            3,
            990,
            "e is on timeline 3, and w of shop on 2; shop has WAL up to 0/3E8, and shop only up to 0/3DE",
        ),
        (3, 1000, "e is on timeline 3, and w of shop on 2"),
        (None, 1000, "e is on timeline unknown, and w of shop on 2"),
        (2, 990, "shop has WAL up to 0/3E8, and shop only up to 0/3DE"),
        (2, 1010, "shop has not received 10 bytes of WAL of shop"),
    ],
)
def test_positions_count_on_one_timeline_only(timeline: int | None, position: int, said: str) -> None:
    """The old site has elected another member, below what the new one had: its rows are not among the missing bytes."""
    west, east = make_pair(old=FOLLOWS)
    assert east is not None
    status = east.members[0].status._replace(
        timeline=timeline, written=None, received=position, replayed=position, streaming=frozenset()
    )
    assert prove(Sites(west, east._replace(members=(east.members[0]._replace(status=status),)))) == said


def test_whether_a_lost_site_still_sends_is_known_only_where_patroni_says_it() -> None:
    """Patroni says it since 3.0.4, and not where a restore_command is set and nothing streams."""
    answer = {"state": "running", "role": "standby_leader"}

    def read(version: str, **more: Any) -> bool | None:
        return Status.from_answer({**answer, **more, "patroni": {"version": version}}).is_receiving

    assert read("3.0.2") is None
    assert read("") is None
    assert read("3.0.4") is False
    assert read("4.0.4", replication_state="streaming") is True
    assert read("4.0.4", replication_state="in archive recovery") is None


def test_a_lost_site_that_nobody_can_ask_about_is_not_lost() -> None:
    """No leader, a silent one, one that streams; and bytes that have come meanwhile where Patroni does not say it."""
    sites = make_pair()
    west = sites.new.members[0]

    def with_status(**changes: Any) -> Cluster:
        return sites.new._replace(members=(west._replace(status=west.status._replace(**changes)),))

    for cluster, said in (
        (sites.new._replace(members=()), "whether it still receives WAL is not known: nobody leads it"),
        (with_status(error="it is away"), "whether it still receives WAL is not known: it is away"),
        (with_status(is_receiving=True), "its leader w streams WAL from another server"),
    ):
        with pytest.raises(Refusal) as refusal:
            check_unfed(cluster)
        assert said in str(refusal.value)
    check_unfed(sites.new)
    assert not is_receiving_known(sites.new)
    assert is_receiving_known(with_status(is_receiving=False))
    check_still(sites.new, sites.new)
    with pytest.raises(Refusal, match="w has received 24 bytes of WAL during this run"):
        check_still(sites.new, with_status(received=1024))


@pytest.mark.parametrize(
    ("value", "seconds"), [("2s", 2.0), ("1min", 60.0), (5000, 5.0), ("0", 60.0), (None, 60.0), ("x", 60.0)]
)
def test_the_time_after_which_a_receiver_gives_up_is_read_as_postgresql_does(value: Any, seconds: float) -> None:
    cluster = make_cluster(LEADER, postgresql={"parameters": {"wal_receiver_timeout": value}})
    assert read_receiver_timeout(cluster) == seconds


KEPT = {"host": "w", "primary_slot_name": "east", "restore_command": "cp"}


@pytest.mark.parametrize(
    ("slots", "section", "expected", "missing"),
    [
        (
            {},
            {"host": "w"},
            ["configure"],
            "without primary_slot_name east (slots in the configuration of shop has none",
        ),
        ({}, {"host": "w", "restore_command": "cp"}, [], "without primary_slot_name east"),
        ({"east": {"type": "physical"}}, {"host": "w"}, ["configure"], ""),
        ({"east": {"type": "physical"}}, KEPT, [], ""),
    ],
)
def test_what_a_standby_cluster_had_before_is_put_back(
    slots: dict[str, Any], section: dict[str, Any], expected: list[str], missing: str
) -> None:
    """A slot only where the primary cluster keeps it: without it nothing would stream."""
    sites = make_pair(new={"slots": slots}, old={"standby_cluster": section, "lowtide_standby_cluster": KEPT})
    assert plan_sites(sites, 100) == expected
    assert missing in explain_missing(sites)
    assert bool(missing) is bool(explain_missing(sites))


def test_several_hosts_are_put_back_and_one_is_not() -> None:
    """The one may be a standby by now; what follows has been given the leader."""
    sites = make_pair(old={"standby_cluster": {"host": "w"}})
    second = make_member("w2")
    new = sites.new._replace(members=(*sites.new.members, second))

    def read_section(host: str) -> dict[str, Any]:
        kept = {"host": host, "port": 5432, "restore_command": "cp"}
        return plan_section(sites.new._replace(config={"lowtide_standby_cluster": kept}), new)[0]

    assert read_section("w2") == {"restore_command": "cp"}
    assert read_section("w,w2") == {"host": "w,w2", "port": 5432, "restore_command": "cp"}


@pytest.mark.parametrize(
    ("configuration", "receives"),
    [
        ({}, False),
        ({"standby_cluster": {"host": "e", "restore_command": "cp"}}, True),
        ({"postgresql": {"recovery_conf": {"restore_command": "cp"}}}, True),
        ({"postgresql": {"parameters": {"restore_command": "cp"}}}, True),
    ],
)
def test_an_archive_may_bring_wal_as_well(configuration: dict[str, Any], receives: bool) -> None:
    assert has_archive(make_cluster(LEADER, **configuration)) is receives


def test_a_member_follows_where_a_server_of_its_name_is_sent_wal() -> None:
    """It answers as a standby itself, so that its name is enough: behind NAT the leader sees it at another address."""
    clients = frozenset({("b", "10.9.9.9")})
    leader = make_member("a", role="leader", streaming=frozenset({"b"}), clients=clients)

    def list_problems(name: str, *, is_receiving: bool | None) -> list[str]:
        follower = make_member(name, is_receiving=is_receiving)._replace(host="10.1.1.1")
        return list_lacking(make_cluster(leader, follower), [name])

    assert list_problems("b", is_receiving=None) == []
    assert list_problems("b", is_receiving=True) == []
    assert list_problems("b", is_receiving=False) == ["b does not stream from a"]
    assert list_problems("c", is_receiving=None) == ["c does not stream from a"]
    assert list_problems("c", is_receiving=True) == ["c does not stream from a"], "nobody here sends it anything"


def test_equal_names_on_both_sites_are_told_apart_by_their_addresses() -> None:
    """The old site's own replica of this name streams as well, and proves nothing."""
    west = make_member("pg1", role="standby_leader")._replace(host="10.2.0.1")
    replica = make_member("pg1")._replace(host="10.1.0.2", api_url="http://east")

    def make_sites(address: str) -> Sites:
        clients = frozenset({("pg1", "10.1.0.2"), ("pg1", address)})
        east = make_member("e", role="leader", streaming=frozenset({"pg1"}), clients=clients)
        return Sites(make_cluster(west, standby_cluster={"host": "e"}), make_cluster(east, replica))

    assert plan_sites(make_sites("10.2.0.1"), 100) == ["fence", "promote"]
    with pytest.raises(Refusal, match=r"does not stream from shop from 10\.2\.0\.1 \(a member there has the same name"):
        plan_sites(make_sites("10.1.0.2"), 100)


def test_a_position_is_written_as_postgresql_does() -> None:
    assert format_lsn(0x1_0500_0060) == "1/5000060"
