# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Members that Patroni says nothing of, or that another one answers for: which of them may be a second primary."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._patroni.client import GRACE, Client
from ansible_collections.lowtide.ops.plugins.module_utils._patroni.unheard import find_unheard
from support.modules import ModuleRun, run_module
from support.patroni_site_pair import SiteStandIn
from support.patroni_stand_in import PatroniStandIn

Json = dict[str, Any]
GONE = "127.0.0.2"
"""Where the server of a member is whose Patroni is gone."""


@contextlib.contextmanager
def listening(address: str = GONE) -> Iterator[int]:
    """A port that takes connections and answers nothing, as PostgreSQL without a greeting does."""
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


def free_port(address: str) -> int:
    """A port that nobody listens on."""
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def declare(cluster: PatroniStandIn, *urls: str, name: str = "patroni_cluster", **more: Any) -> ModuleRun:
    """Have pg1 lead, which it does, with more addresses than those of the members."""
    options = {} if name.endswith("_info") else {"leader": "pg1", "timeout": 30}
    return run_module(name, {"urls": [*cluster.urls, *urls], "request_timeout": 20, **options, **more})


def place(cluster: PatroniStandIn, port: int) -> None:
    """Have the members' PostgreSQL at a port of another address than the one that is gone."""
    cluster.extra = {"members": [{**m, "host": "127.0.0.1", "port": port} for m in cluster.cluster()["members"]]}


def test_a_server_that_has_left_the_cluster_and_takes_connections_may_be_a_primary() -> None:
    """Where it listens is taken from its address in urls and the port of the others."""
    with PatroniStandIn() as cluster, listening() as port:
        place(cluster, port)
        run = declare(cluster, f"http://{GONE}:9")
        assert run["error"]["refused"], run.msg
        said = (
            f"address http://{GONE}:9: its PostgreSQL takes connections at {GONE}:{port}, streams from no member that"
        )
        assert f"there may be a second primary: {said}" in run.msg
        info = declare(cluster, f"http://{GONE}:9", name="patroni_cluster_info")
        assert not info.failed, info.msg
        assert [(blocker["object"], "takes connections" in blocker["what"]) for blocker in info["blockers"]] == [
            (f"address http://{GONE}:9", True)
        ]


@pytest.mark.parametrize("name", ["patroni_cluster", "patroni_cluster_info"])
def test_what_is_not_known_is_said(name: str) -> None:
    """Another port may have it: no connection at the port of the others proves nothing."""
    with PatroniStandIn() as cluster:
        port = free_port(GONE)
        place(cluster, port)
        run = declare(cluster, f"http://{GONE}:9", name=name)
        assert not run.failed, run.msg
        (blocker,) = run["blockers"]
        assert f"where its PostgreSQL listens is not known (tried {GONE}:{port})" in blocker["what"]
        assert "take its address out of urls" in blocker["next_step"]
        assert "whether it accepts writes is not known" in str(run["warnings"])
        if name == "patroni_cluster":
            assert f"; whether address http://{GONE}:9 accepts writes is not known" in run["summary"]


def make_member(cluster: PatroniStandIn, port: int, host: str = GONE, others: Json | None = None) -> None:
    """Add a member that /cluster has and that does not answer; ``others`` are where the PostgreSQL of the rest is."""
    cluster.extra = {}
    member = {"name": "pg3", "role": "replica", "state": "running", "api_url": f"http://{GONE}:9/patroni"}
    rest = [{**known, **(others or {})} for known in cluster.cluster()["members"]]
    cluster.extra = {"members": [*rest, {**member, "host": host, "port": port}]}


def stream(cluster: PatroniStandIn, *sources: tuple[str, str]) -> None:
    """Have pg1 send WAL to pg2, and to these names at these addresses."""
    status = PatroniStandIn.status
    clients = [("pg2", "127.0.0.1"), *sources]
    rows = [{"application_name": name, "client_addr": address, "state": "streaming"} for name, address in clients]

    def answer(name: str) -> Json:
        return {**status(cluster, name), "replication": rows if name == cluster.leader else []}

    cluster.status = answer  # type: ignore[method-assign]


def test_a_member_that_is_silent_is_judged_by_its_server() -> None:
    """It takes connections; it streams from the leader; it takes none."""
    with PatroniStandIn() as cluster, listening() as port:
        make_member(cluster, port)
        run = declare(cluster)
        assert f"member pg3: its PostgreSQL takes connections at {GONE}:{port}" in run.msg, run.msg
        stream(cluster, ("pg3", GONE))
        run = declare(cluster)
        assert not run.failed, run.msg
        assert (run["blockers"], run.result.get("warnings", [])) == ([], [])
        stream(cluster)
        make_member(cluster, free_port(GONE), others={"host": GONE, "port": port})
        run = declare(cluster)
        assert not run.failed, run.msg
        assert run["blockers"] == []
        assert "member pg3: its PostgreSQL takes no connection at" in str(run["evidence"])


@pytest.mark.parametrize("name", ["patroni_cluster", "patroni_cluster_info"])
def test_another_server_of_the_same_name_is_not_the_member(name: str) -> None:
    """The other site's pg3 streams from here; the one of this cluster, whose Patroni is gone, may be a primary."""
    with PatroniStandIn() as cluster, listening() as port:
        make_member(cluster, port, others={"host": "127.0.0.1", "port": port})
        stream(cluster, ("pg3", "10.9.9.9"))
        run = declare(cluster, name=name)
        said = run.msg if name == "patroni_cluster" else run["blockers"][-1]["what"]
        assert run.failed is (name == "patroni_cluster"), run.msg
        assert f"its PostgreSQL takes connections at {GONE}:{port}, streams from no member that answers" in said
        assert "a server of its name streams from 10.9.9.9, which is not its address" in said
        assert ("before its PostgreSQL is stopped, look whether it is the server of its name" in run.msg) == run.failed
        stream(cluster, ("pg3", "10.9.9.9"), ("pg3", "10.9.9.8"))
        make_member(cluster, port)
        assert declare(cluster, name=name).failed is (name == "patroni_cluster"), "two servers have its name"


@pytest.mark.parametrize("name", ["patroni_cluster", "patroni_cluster_info"])
@pytest.mark.parametrize("host", [GONE, "pg3.invalid"])
def test_a_standby_that_is_seen_at_another_address_is_not_called_a_primary(name: str, host: str) -> None:
    """Behind NAT, a service mesh or a second network no address tells; a name that is not known here tells none."""
    with PatroniStandIn() as cluster, listening() as port:
        others = {"host": "127.0.0.3", "port": port} if host == GONE else {"host": "127.0.0.1", "port": port}
        make_member(cluster, port, host=host, others=others)
        stream(cluster, ("pg3", "127.0.0.6"))
        run = declare(cluster, name=name)
        assert not run.failed, run.msg
        blocker = run["blockers"][-1]
        assert "whether it accepts writes is not known" in blocker["what"]
        assert "a server of its name streams from 127.0.0.6, " in blocker["what"]
        assert "whether it accepts writes is not known" in str(run["warnings"])


def test_a_member_that_has_left_is_not_taken_for_another_of_its_name() -> None:
    """Nor by another address, as one that /cluster still has may be."""
    with PatroniStandIn() as cluster, listening() as port:
        for host in (GONE, "pg3.invalid"):
            make_member(cluster, port, host=host)
            stream(cluster, ("pg3", "10.9.9.9"))
            client = Client(cluster.urls, request_timeout=1.0)
            before = client.read_cluster()
            (silent,) = find_unheard(client, before)
            assert not silent.may_write
            cluster.extra = {}
            (gone,) = find_unheard(client, client.read_cluster(), before)
            assert (gone.label, gone.may_write) == ("member pg3", host == GONE)
            stream(cluster, ("pg3", GONE))
            assert bool(find_unheard(client, client.read_cluster(), before)) is (host != GONE)


def test_a_port_that_refuses_proves_nothing_where_those_of_members_that_run_do_so_too() -> None:
    """A firewall that rejects answers as a server does that is off."""
    with PatroniStandIn() as cluster:
        port = free_port("127.0.0.1")
        for others in (None, {"host": "127.0.0.1", "port": port}):
            make_member(cluster, free_port(GONE), others=others)
            run = declare(cluster)
            assert not run.failed, run.msg
            assert "; whether member pg3 accepts writes is not known" in run["summary"]
            assert "takes no connection" not in str(run["evidence"])
            assert "refuses connections, which may be a firewall" in run["blockers"][0]["what"]


def test_an_address_by_name_is_that_of_the_member_that_has_published_it() -> None:
    """The host is off: it is judged once."""
    with PatroniStandIn() as cluster, listening("127.0.0.1") as port:
        make_member(cluster, free_port("127.0.0.1"), host="127.0.0.1")
        (*known, silent) = cluster.extra["members"]
        rest = [{**member, "host": "127.0.0.1", "port": port} for member in known]
        url = f"http://localhost:{free_port('127.0.0.1')}"
        cluster.extra = {"members": [*rest, {**silent, "api_url": url.replace("localhost", "127.0.0.1") + "/patroni"}]}
        run = declare(cluster, url)
        assert not run.failed, run.msg
        assert run["blockers"] == []


def test_a_primary_that_the_cluster_does_not_have_is_the_second_one() -> None:
    """It answers, with the same scope, and is another server than the leader."""
    with PatroniStandIn() as cluster, SiteStandIn("shop") as other:
        other.status = {"postmaster_start_time": "2026-11-27 01:00:00+00:00"}
        run = declare(cluster, other.url)
        assert run["error"]["refused"], run.msg
        assert f"address {other.url}: it is not in /cluster, and accepts writes" in run.msg
        other.status["patroni"] = {"version": "4.0.4", "scope": "shop", "name": "pg1"}
        status = cluster.status
        cluster.status = lambda name: {  # type: ignore[method-assign]
            **status(name),
            "patroni": {"version": "4.0.4", "scope": "shop", "name": name},
        }
        assert not declare(cluster, other.url).failed


def test_members_of_one_address_are_no_two_primaries() -> None:
    """connect_address is 127.0.0.1 on each: whoever asks speaks to one of them."""
    with PatroniStandIn() as cluster:
        members = [{**m, "api_url": f"{cluster.urls[0]}/patroni"} for m in cluster.cluster()["members"]]
        cluster.extra = {"members": members}
        run = declare(cluster)
        assert run["error"]["refused"], run.msg
        assert f"pg2 has published the same address of its REST interface, {cluster.urls[0]}" in run.msg
        assert "accept writes" not in run.msg


def test_another_member_that_answers_at_an_address_is_named() -> None:
    with PatroniStandIn() as cluster:
        status = cluster.status
        cluster.status = lambda name: {  # type: ignore[method-assign]
            **status(name),
            "patroni": {"version": "3.1.0", "scope": "shop", "name": "pg7"},
        }
        run = declare(cluster)
        assert f"member pg1: it has published {cluster.urls[0]}, and pg7 answers there" in run.msg, run.msg


def test_one_that_answers_nothing_slows_down_only_the_first_look() -> None:
    """A host that drops packets, while the others change."""
    with PatroniStandIn() as cluster, listening() as port:
        silent = {"name": "pg3", "role": "replica", "state": "running", "api_url": f"http://{GONE}:{port}/patroni"}
        cluster.extra = {"members": [*cluster.cluster()["members"], silent]}
        looks = Client(cluster.urls, request_timeout=1.0)
        looks.read_cluster()
        looks.request_timeout = 20.0
        begin = time.monotonic()
        for _look in range(3):
            seen = looks.read_cluster()
            assert seen.members[0].status.state == "running"
            assert seen.members[2].status.error
        assert time.monotonic() - begin < 15, "each look has waited for it"


def test_a_member_that_starts_does_not_hold_up_the_looks_that_wait_for_it() -> None:
    """Patroni's answer of /patroni waits for its PostgreSQL, so that looks ask what it knows."""
    with PatroniStandIn() as cluster:
        looks = Client(cluster.urls, request_timeout=60.0)
        before = looks.read_cluster()
        status = cluster.status
        cluster.status = lambda name: {**status(name), **({"state": "starting"} if name == "pg2" else {})}  # type: ignore[method-assign]
        begin = time.monotonic()
        assert looks.read_cluster(before.config).members[1].status.state == "starting"
        assert time.monotonic() - begin < 15, "the look has waited for PostgreSQL"
        cluster.has_started.set()


def test_one_member_that_is_reached_does_not_stand_for_all() -> None:
    """That the server of one takes connections from here does not say that no firewall rejects those to others."""
    with PatroniStandIn() as cluster, listening("127.0.0.1") as port:
        make_member(cluster, free_port(GONE), others={"host": "127.0.0.1", "port": port})
        cluster.extra["members"][1]["port"] = free_port("127.0.0.1")
        run = declare(cluster)
        assert not run.failed, run.msg
        assert "refuses connections, which may be a firewall" in run["blockers"][0]["what"]


def test_an_address_that_cannot_be_resolved_is_asked_all_the_same() -> None:
    """It is none of a member, so that it must not be left out in silence."""
    with PatroniStandIn() as cluster:
        run = declare(cluster, "http://pg9.invalid:8008")
        assert not run.failed, run.msg
        assert [blocker["object"] for blocker in run["blockers"]] == ["address http://pg9.invalid:8008"]


def test_each_member_that_has_left_is_judged_also_without_an_address() -> None:
    """Two that had published none are two."""
    with PatroniStandIn() as cluster:
        members = cluster.cluster()["members"]
        gone = [{"name": name, "role": "replica", "state": "running"} for name in ("pg3", "pg4")]
        cluster.extra = {"members": [*members, *gone]}
        client = Client(cluster.urls, request_timeout=1.0)
        before = client.read_cluster()
        cluster.extra = {}
        judged = find_unheard(client, client.read_cluster(), before)
        assert [one.label for one in judged] == ["member pg3", "member pg4"]


def test_one_that_answers_late_and_was_silent_once_is_heard_again() -> None:
    """Over a WAN each answer takes longer than a look waits for who was silent at the last one."""
    with PatroniStandIn() as cluster:
        looks = Client(cluster.urls, request_timeout=20.0)
        before = looks.read_cluster()
        status, away = cluster.status, ["pg2"]

        def answer(name: str) -> Json:
            if name in away:
                raise ConnectionError
            threading.Event().wait(3 * GRACE if name == "pg2" else 0)
            return status(name)

        cluster.status = answer  # type: ignore[method-assign]
        assert looks.read_cluster(before.config).members[1].status.error
        away.clear()
        for _look in range(3):
            looks.read_cluster(before.config)
            for question in looks._open_questions.values():
                question.join()  # its answer comes between two looks
        assert not looks.read_cluster(before.config).members[1].status.error
