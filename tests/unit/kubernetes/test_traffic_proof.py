# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_traffic: that nothing is in flight is proven of the pods that got the requests, and of no others."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.memory_controllers import NAMESPACE, describe_workload
from support.memory_kubernetes import MemoryServer
from support.operation_runs import list_writes

from .traffic_steps import (
    GAUGE,
    PORT,
    TARGET,
    answer,
    check_done,
    describe_ingress,
    describe_pod,
    give_back,
    play_endpoints,
    put_site,
    read_saved,
    read_selector,
    send_away,
)

Json = dict[str, Any]
INGRESS: Json = {"kind": "Ingress", "name": "shop", "to_service": "page", "to_port": 8080}
IDLE: Json = {**GAUGE, "name": "idle"}


@pytest.fixture
def site(memory: MemoryServer) -> MemoryServer:
    """A server with a site and its page, and a workload that has no pods."""
    put_site(memory)
    memory.put(describe_workload("Deployment", "idle", 0))
    return memory


def put_green(site: MemoryServer) -> None:
    """Put the other half of a blue/green pair behind the Service: a pod of a StatefulSet."""
    site.put(describe_workload("StatefulSet", "green", 1))
    pod = describe_pod("green-0", "web")
    pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "green", "uid": "g", "controller": True}]
    site.put(pod)
    play_endpoints(site)


@pytest.mark.parametrize("target", [TARGET, INGRESS])
@pytest.mark.parametrize("check", [True, False])
def test_a_workload_that_serves_nothing_proves_nothing(site: MemoryServer, target: Json, check: bool) -> None:
    """Neither alone nor as one of a pair: refused before anything is changed, with the workload to add."""
    site.put(describe_ingress(("a.example", "/")))
    run = send_away(site, target, in_flight=[IDLE], check=check)
    assert run.failed
    assert run["error"]["refused"]
    assert run["error"]["object"] == "Deployment n/web"
    assert "its pod web-1-1 gets requests of" in run.msg
    assert "Add Deployment web to in_flight" in run.msg
    put_green(site)
    run = send_away(site, target, in_flight=[GAUGE, IDLE], check=check)
    assert run.failed
    assert run["error"]["object"] == "StatefulSet n/green"
    assert list_writes(site) == []


def test_a_pod_that_no_workload_owns_is_named(site: MemoryServer) -> None:
    """It can be asked by nobody."""
    site.put(describe_pod("bare", "web"))
    play_endpoints(site)
    run = send_away(site, in_flight=[GAUGE])
    assert run.failed
    assert run["error"]["object"] == "Pod n/bare"
    assert "leave it out" in run.msg


def test_a_later_run_knows_which_pods_got_the_requests(site: MemoryServer) -> None:
    """They are saved with the switch, since the endpoints are the page's then; those that are gone do not matter."""
    put_green(site)
    check_done(send_away(site))
    assert read_saved(site)["pods"] == ["green-0", "web-1-1", "web-1-2"]
    run = send_away(site, in_flight=[GAUGE])
    assert run.failed
    assert run["error"]["object"] == "StatefulSet n/green"
    site.remove("Pod", NAMESPACE, "green-0")
    assert check_done(send_away(site, in_flight=[GAUGE]))["summary"].endswith("in flight 0 in 2 pods for 0 s")
    for number in (1, 2):
        site.remove("Pod", NAMESPACE, f"web-1-{number}")
    run = check_done(send_away(site, in_flight=[IDLE]))
    assert run["summary"].endswith("no pod is left in which a request could be in flight")


def test_a_pod_that_leaves_its_workload_meanwhile_is_still_looked_for(site: MemoryServer) -> None:
    """As when a person takes it out of the selector to look at it: it may have requests all the same."""

    def orphan() -> None:
        if read_selector(site) != {"app": "web"}:
            site.change("Pod", NAMESPACE, "web-1-2", lambda pod: pod["metadata"].update(ownerReferences=[]))

    site.add_rival(orphan, verb="patch", path="/services/web", when="after", times=2)
    run = send_away(site, in_flight=[GAUGE], in_flight_timeout=0.3)
    assert run.failed
    assert "Pod n/web-1-2: it got requests before, is still there, and no workload of in_flight owns it" in run.msg


def test_what_is_not_known_is_said(site: MemoryServer) -> None:
    """Whose requests a canary takes is not in it, and what a person has switched is not saved."""
    site.put(describe_ingress(("a.example", "/")))
    canary = {"kind": "Ingress", "name": "shop", "canary_weight": 100}
    words = "which pods served Ingress n/shop before is not known"
    run = check_done(send_away(site, canary, in_flight=[IDLE]))
    assert run["summary"].count(f"no workload of in_flight has a pod; {words}") == 1
    assert words in check_done(send_away(site, canary, in_flight=[GAUGE]))["summary"]
    check_done(give_back(site, canary))
    site.change("Service", NAMESPACE, "web", lambda obj: obj["spec"].update(selector={"app": "page"}))
    play_endpoints(site)
    run = check_done(send_away(site, in_flight=[GAUGE]))
    assert "which pods served Service n/web before is not known" in run["summary"]


HTML = "<!DOCTYPE html>\n<html><head><title>Not\n found</title></head><body>Nothing here</body></html>"


@pytest.mark.parametrize(
    ("gauge", "answered", "words", "step"),
    [
        ({}, (404, HTML), "it answered 404 and not 200: a page of HTML ('Not found')", "Correct path and port"),
        ({}, (401, ""), "it answered 401", "without a login"),
        ({}, (302, ""), "it answered 302", "Correct path, port and scheme"),
        ({}, (200, "other 0\n"), "it has no metric in_flight", "Correct metric and labels"),
        ({}, (200, HTML), "a page of HTML", "Correct path and port"),
        ({}, (200, '{"busy": 1}'), "no line of Prometheus", "in place of metric: field: busy"),
        ({"metric": None}, (200, '{"a": {"busy": 1}, "ok": true}'), "is JSON", "Give one of its fields: field: a.busy"),
        ({"metric": None}, (200, HTML), "a page of HTML ('Not found') has no number", "Correct path and port"),
        ({"metric": None}, (200, "in_flight 0\n"), "has no number", "Give metric: NAME"),
        ({"metric": None, "field": "b"}, (200, '{"busy": 0, "b": "x"}'), "which is no number", "field: busy"),
        ({"metric": None, "field": "c"}, (200, '{"busy": 0}'), "has no field c", "field: busy"),
        ({"metric": None, "field": "c"}, (200, "[]"), "has no field c", "no field with a number"),
        ({}, (200, "shop"), "is no line of Prometheus", "Correct path, port and what is read there"),
        ({}, (200, "in_flight NaN"), "which is no count", "Correct path, port and what is read there"),
        ({"port": "http"}, (200, ""), "none of its containers has a port named http", "Correct port"),
    ],
)
def test_what_a_pod_cannot_tell_is_refused_before_the_switch(
    site: MemoryServer, gauge: Json, answered: tuple[int, str], words: str, step: str
) -> None:
    """Also in check mode; waiting would not help, so nothing is said of it; and no page is printed."""
    for number in (1, 2):
        answer(site, f"web-1-{number}", answered[1], answered[0])
    for check in (True, False):
        run = send_away(site, in_flight=[{**GAUGE, **gauge}], check=check)
        assert run.failed
        assert (run["error"]["refused"], run["error"]["object"]) == (True, "Pod n/web-1-1")
        assert words in run.msg
        assert "(1 other pod cannot be read either)" in run.msg
        assert step in run["error"]["next_step"]
        assert "in_flight, Deployment web" in run["error"]["next_step"]
        assert "in_flight_timeout" not in run.msg
        assert "Nothing here" not in run.msg
    assert list_writes(site) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_pod_that_is_too_busy_to_tell_is_no_reason_to_refuse(site: MemoryServer, status: int) -> None:
    """It may tell once the requests go to the page."""
    answers = {True: (status, "busy"), False: (200, "in_flight 0\n")}
    site.pod_answers[NAMESPACE, f"web-1-1:{PORT}"] = lambda _path: answers[read_selector(site) == {"app": "web"}]
    check_done(send_away(site, in_flight=[GAUGE], check=True))
    check_done(send_away(site, in_flight=[GAUGE]))


def test_quiet_begins_anew_when_a_pod_says_more_than_nothing(site: MemoryServer) -> None:
    """From the first round after it, all pods say nothing for quiet_seconds."""
    asked: list[tuple[float, int]] = []

    def tell(_path: str) -> tuple[int, str]:
        value = 1 if len(asked) == 4 else 0
        asked.append((time.monotonic(), value))
        return 200, f"in_flight {value}\n"

    site.pod_answers[NAMESPACE, f"web-1-2:{PORT}"] = tell
    check_done(send_away(site, in_flight=[GAUGE], quiet_seconds=1.0, in_flight_timeout=20.0))
    busy = next(index for index, (_at, value) in enumerate(asked) if value)
    assert busy == 4, "it was asked at least twice before, while nothing was in flight"
    assert asked[-1][0] - asked[busy + 1][0] >= 0.9
