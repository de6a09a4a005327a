# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""patroni_cluster against a stand-in of the REST interface: answers that are lost or no, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.modules import ModuleRun, run_module
from support.patroni_stand_in import PatroniStandIn

Json = dict[str, Any]


def declare(cluster: PatroniStandIn, *, check: bool = False, **more: Any) -> ModuleRun:
    """Have pg2 lead."""
    return run_module(
        "patroni_cluster",
        {"urls": cluster.urls, "leader": "pg2", "timeout": 30, "request_timeout": 20, **more},
        check=check,
    )


def test_a_switchover_is_one_request() -> None:
    with PatroniStandIn() as cluster:
        run = declare(cluster)
        assert not run.failed, run.msg
        assert cluster.posts == [("/switchover", {"candidate": "pg2", "leader": "pg1"})]
        assert not declare(cluster).changed
        assert len(cluster.posts) == 1


def answer_503_after(cluster: PatroniStandIn, _path: str, body: Json) -> tuple[int, str]:
    """It has happened, and Patroni does not know."""
    cluster.switch(body["candidate"])
    return 503, "Switchover status unknown"


def drop_after(cluster: PatroniStandIn, _path: str, body: Json) -> tuple[int, str]:
    """It has happened, and the connection breaks."""
    cluster.switch(body["candidate"])
    raise ConnectionError


@pytest.mark.parametrize("on_post", [answer_503_after, drop_after])
def test_an_answer_that_is_no_verdict_is_read_from_the_members(on_post: Any) -> None:
    """F24: 503, and no answer at all."""
    with PatroniStandIn(on_post) as cluster:
        run = declare(cluster)
        assert not run.failed, run.msg
        assert run["summary"] == "pg2 leads shop on timeline 4, was pg1 (switchover)"
        assert len(cluster.posts) == 1


@pytest.mark.parametrize(
    ("answer", "said", "refused"),
    [
        ((412, "leader name does not match"), "Patroni rejects it: 412 leader name does not match", True),
        ((503, "Switchover failed"), "pg1 leads as before; Patroni's answer was 503 Switchover failed", False),
        ((401, "not authenticated"), "401 not authenticated. Correct username and password", True),
    ],
)
def test_what_patroni_did_not_do_is_a_failure(answer: tuple[int, str], said: str, refused: bool) -> None:
    """With its own words; refused is what has changed nothing for certain."""
    with PatroniStandIn(lambda _cluster, _path, _body: answer) as cluster:
        run = declare(cluster)
        assert run.failed
        assert said in run.msg, run.msg
        assert run["error"]["refused"] is refused
        assert cluster.leader == "pg1"


def make_restarts(cluster: PatroniStandIn, said: str, *, leads: bool) -> None:
    """A standby waits for a restart, which Patroni refuses as the cluster is another one by then."""
    status = cluster.status
    cluster.status = lambda name: {  # type: ignore[method-assign]
        **status(name),
        "pending_restart": name == "pg2" and not cluster.posts,
    }

    def answer(stand_in: PatroniStandIn, _path: str, _body: Json) -> tuple[int, str]:
        if leads:
            stand_in.switch("pg2")
            stand_in.status = lambda name: {**status(name), "pending_restart": True}  # type: ignore[method-assign]
        return 503, said

    cluster.on_post = answer


UNSATISFIED = "restart conditions are not satisfied"


def test_a_restart_says_what_it_rests_on() -> None:
    """A standby that leads by now is not restarted as one; one that does not wait any more needs no restart."""
    with PatroniStandIn() as cluster:
        make_restarts(cluster, UNSATISFIED, leads=True)
        run = declare(cluster, leader=None, restart="pending")
        assert cluster.posts == [("/restart", {"role": "replica", "restart_pending": True})]
        assert "member pg2: it was not restarted, since it leads by now" in run.msg, run.msg
        assert not run.changed
    with PatroniStandIn() as cluster:
        make_restarts(cluster, UNSATISFIED, leads=False)
        run = declare(cluster, leader=None, restart="pending")
        assert not run.failed, run.msg
        assert not run.changed


def test_a_synchronous_cluster_is_whole_again_once_as_many_confirm_as_before() -> None:
    """Else the next step of the run, or the next run, finds nobody who may take over."""
    with PatroniStandIn() as cluster:
        cluster.config["synchronous_mode"] = True
        answer = cluster.cluster
        looks: list[str] = []

        def confirm() -> Json:
            """The one that does not lead confirms commits, but only some looks after the switchover."""
            looks.append(cluster.leader)
            late = looks.count("pg2")
            members = [
                {**m, "role": "sync_standby"} if m["role"] == "replica" and (late == 0 or late > 5) else m
                for m in answer()["members"]
            ]
            return {"members": members}

        cluster.cluster = confirm  # type: ignore[method-assign]
        run = declare(cluster)
        assert not run.failed, run.msg
        assert looks.count("pg2") > 5
        cluster.cluster = answer  # type: ignore[method-assign]


def lead_without_promotion(cluster: PatroniStandIn, _path: str, body: Json) -> tuple[int, str]:
    """The leader changes, its timeline does not."""
    cluster.leader = body["candidate"]
    return 200, "done"


def test_a_leader_whose_timeline_has_not_risen_was_not_promoted() -> None:
    with PatroniStandIn(lead_without_promotion) as cluster:
        run = declare(cluster)
        assert "its timeline is 3 and was 3 before" in run.msg, run.msg


def test_a_standby_that_does_not_come_back_is_named() -> None:
    """The move is done, and reported as changed."""

    def forget_old(cluster: PatroniStandIn, _path: str, body: Json) -> tuple[int, str]:
        answer = cluster.switch(body["candidate"])
        cluster.status = lambda name, status=cluster.status: (  # type: ignore[method-assign,misc]
            status(name) if name == cluster.leader else {**status(name), "state": "starting"}
        )
        return answer

    with PatroniStandIn(forget_old) as cluster:
        run = declare(cluster, timeout=2)
        assert run.failed
        assert "it is not whole: pg1 is starting" in run.msg, run.msg
        assert run.changed
        assert not run["error"]["refused"]


def test_what_stands_against_a_candidate_is_said_with_its_number() -> None:
    with PatroniStandIn() as cluster:
        cluster.lag = 4000
        run = declare(cluster)
        assert "pg2: it has 4000 bytes of WAL to replay, more than max_lag 1000" in run.msg, run.msg
        assert declare(cluster, max_lag=4000, check=True).changed
        cluster.extra = {"scheduled_switchover": {"at": "2026-11-28T02:00:00+00:00", "to": "pg1"}}
        assert "a switchover is scheduled, at 2026-11-28T02:00:00+00:00 to pg1" in declare(cluster).msg
        cluster.extra = {}
        cluster.lag = 0
        cluster.config["synchronous_mode"] = True
        assert "pg2: synchronous_mode is on, and it does not confirm commits" in declare(cluster).msg
        assert cluster.posts == []


def test_a_member_without_an_address_is_named() -> None:
    with PatroniStandIn() as cluster:
        extra = {"name": "pg3", "role": "replica", "state": "running"}
        cluster.extra = {"members": [*cluster.cluster()["members"], extra]}
        run = declare(cluster, leader="pg3")
        assert "pg3: it has published no address of its REST interface" in run.msg, run.msg
        assert cluster.posts == []


def test_without_a_dcs_nothing_is_sent() -> None:
    with PatroniStandIn() as cluster:
        cluster.dcs_is_away = True
        run = declare(cluster)
        assert run["error"]["refused"]
        assert "2 of 2 members answer, and none reads the DCS" in run.msg, run.msg
        assert cluster.posts == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"urls": []}, "option urls: it is empty"),
        ({"urls": ["pg1:8008"]}, "'pg1:8008' is not an address of the shape https://host:8008"),
        ({"urls": ["http://a:b@pg1:8008"]}, "an address has a login in it"),
        ({"urls": ["http://127.0.0.1:9"]}, "no member answers /cluster: http://127.0.0.1:9: [Errno 111]"),
        ({"password": "x1y2z3", "password_file": "/dev/null"}, "password_file is given as well"),
        ({"password_file": "/nowhere"}, "password_file /nowhere: it cannot be read: No such file"),
        ({"ca_path": "/nowhere"}, "ca_path /nowhere: it cannot be read as certificates"),
        ({"client_cert": "/nowhere"}, "client_cert /nowhere: it cannot be used with client_key None"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: Json, said: str) -> None:
    """With the option, its value, and what to do."""
    run = run_module("patroni_cluster_info", {"urls": ["http://127.0.0.1:9"], **options})
    assert run["error"]["refused"]
    assert said in run.msg, run.msg


def test_no_password_is_in_a_result(tmp_path: Path) -> None:
    """Neither of the option nor of the file."""
    secret = tmp_path / "password"
    secret.write_text("canary-4711\n", encoding="utf-8")
    with PatroniStandIn() as cluster:
        given: list[Json] = [{"password": "canary-4711"}, {"password_file": str(secret)}]
        for options in given:
            run = declare(cluster, username="lowtide", **options)
            assert "canary-4711" not in str({**run.result, "invocation": None})


THREE = ("pg1", "pg2", "pg3")
REASON = {"max_connections": {"old_value": "200", "new_value": "100"}}


@pytest.mark.procedure("A26")
def test_each_member_is_restarted_once_and_the_leader_hands_over_once() -> None:
    """Standbys first; the switchover restarts the old leader."""
    with PatroniStandIn(names=THREE) as cluster:
        cluster.pending = dict.fromkeys(THREE)
        run = declare(cluster, leader=None, restart="pending")
        assert not run.failed, run.msg
        assert cluster.moves == ["restart pg2", "restart pg3", "switch to pg2"]
        assert run["summary"].startswith("restarted pg2, pg3, pg1; pg2 leads")
        assert not declare(cluster, leader=None, restart="pending").changed


@pytest.mark.procedure("A26")
@pytest.mark.parametrize("reason", [None, REASON])
def test_a_restart_that_does_not_help_is_tried_on_one_standby_only(reason: Json | None) -> None:
    """No write stops for it, and what waits is named: nothing of it is a success."""
    with PatroniStandIn(names=THREE) as cluster:
        cluster.pending = dict.fromkeys(THREE, reason)
        cluster.stubborn = set(THREE)
        run = declare(cluster, leader=None, restart="pending")
        assert run.failed
        assert run.changed
        assert not run["error"]["refused"]
        assert cluster.moves == ["restart pg2"]
        assert "member pg2: it was restarted, and waits for a restart all the same" in run.msg, run.msg
        assert ("max_connections 200 -> 100" in run.msg) == (reason is not None)
        assert "pg_settings" in run.msg
        assert cluster.leader == "pg1"


def test_a_leader_that_waits_after_its_restart_is_named_when_all_is_done() -> None:
    """There is one switchover, and no way back and forth; the declared leader leads in the end."""
    with PatroniStandIn(names=THREE) as cluster:
        cluster.pending = {"pg1": None}
        cluster.stubborn = {"pg1"}
        run = declare(cluster, leader="pg3", restart="pending")
        assert run.failed
        assert "member pg1: it was restarted, and waits for a restart all the same" in run.msg, run.msg
        assert cluster.moves == ["switch to pg3", "restart pg1"]
        assert cluster.leader == "pg3"


def test_a_start_time_in_the_future_restarts_one_member_only() -> None:
    """A clock that is wrong, or a wrong option."""
    with PatroniStandIn(names=THREE) as cluster:
        run = declare(cluster, leader=None, started_after="2026-11-27T03:00:00Z")
        assert run.failed
        assert cluster.moves == ["restart pg2"]
        assert "it runs since 2026-11-27 02:00:01+00:00" in run.msg, run.msg
        assert "Correct started_after, or the clocks" in run.msg
