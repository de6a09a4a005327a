# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_traffic against the API server in memory: what is done, in which order, what is refused, what is reported."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.operation_runs import list_writes

from .traffic_steps import (
    CHECK,
    GAUGE,
    NOTE,
    SERVICE,
    TARGET,
    answer,
    answer_once_away,
    check_done,
    describe_ingress,
    describe_pod,
    describe_service,
    give_back,
    play_endpoints,
    put_site,
    read_saved,
    read_selector,
    send_away,
    set_selector,
)

Json = dict[str, Any]
INGRESS: Json = {"kind": "Ingress", "name": "shop", "to_service": "page", "to_port": 8080}


@pytest.fixture
def site(memory: MemoryServer) -> MemoryServer:
    """A server with a site and its page."""
    put_site(memory)
    return memory


def count_proxied(memory: MemoryServer) -> int:
    """How often a pod was asked."""
    return sum("/proxy/" in request.path for request in memory.log)


# --- there and back ---------------------------------------------------------------------------------------------------


def test_traffic_goes_to_the_page_in_one_write_and_back_as_it_was(site: MemoryServer) -> None:
    """The note and the switch are one patch; a second run of each changes nothing and still asks."""
    run = check_done(send_away(site, in_flight=[GAUGE]))
    assert run.changed
    assert read_selector(site) == {"app": "page"}
    assert read_saved(site) == {
        "before": {"selector": {"app": "web"}},
        "after": {"selector": {"app": "page"}},
        "endpoints": 2,
        "pods": ["web-1-1", "web-1-2"],
    }
    assert len(list_writes(site)) == 1
    assert run["summary"].startswith(
        f"sent traffic to the maintenance page: {SERVICE} (pods with app=page); in flight 0 in 2 pods for 0 s"
    )
    assert [reading["value"] for reading in run["readings"]] == [0.0, 0.0]

    asked = count_proxied(site)
    again = check_done(send_away(site, in_flight=[GAUGE]))
    assert (again.changed, len(list_writes(site))) == (False, 1)
    assert count_proxied(site) == asked + 2

    back = check_done(give_back(site, smoke=[CHECK, {**CHECK, "path": "/version"}]))
    assert (back.changed, read_selector(site), read_saved(site)) == (True, {"app": "web"}, None)
    assert back["summary"] == f"gave traffic back to {SERVICE}; 4 smoke checks passed in 2 pods"
    again = check_done(give_back(site, smoke=[CHECK]))
    assert (again.changed, again["summary"]) == (False, "no traffic is in maintenance")
    assert len(list_writes(site)) == 2


def test_check_mode_predicts_both_ways_and_writes_nothing(site: MemoryServer) -> None:
    """Plan, diff and changed are those of the run."""
    for act, options in ((send_away, {"in_flight": [GAUGE]}), (give_back, {"smoke": [CHECK]})):
        before = len(list_writes(site))
        predicted = check_done(act(site, check=True, **options))
        assert len(list_writes(site)) == before
        assert predicted["summary"].startswith("would ")
        real = check_done(act(site, **options))
        for key in ("plan", "diff", "changed"):
            assert predicted[key] == real[key], key


def test_a_rehearsal_assumes_that_traffic_was_sent_away(site: MemoryServer) -> None:
    """Only in check mode."""
    run = check_done(give_back(site, check=True, assume="maintenance", smoke=[CHECK]))
    assert (run.changed, run["summary"]) == (True, f"would give traffic back to {SERVICE}")
    assert run["plan"][0]["what"] == "selector: app=page -> app=web"
    unnamed = give_back(site, {"kind": "Ingress", "name": "shop"}, check=True, assume="maintenance")
    assert "to_service or to_port is missing" in unnamed.msg
    refused = give_back(site, assume="maintenance")
    assert refused.failed
    assert refused["error"]["refused"]


def test_without_selector_no_pod_is_selected(site: MemoryServer) -> None:
    """A selector that no pod has, since without one the addresses would stay."""
    run = check_done(send_away(site, {"kind": "Service", "name": "web"}))
    assert read_selector(site) == {"lowtide.ops/traffic": "none"}
    assert "(no pods)" in run["summary"]
    assert site.read("EndpointSlice", NAMESPACE, "web-1")["endpoints"] == []
    check_done(give_back(site))
    assert read_selector(site) == {"app": "web"}


def test_a_run_that_was_killed_between_two_writes_goes_on(site: MemoryServer) -> None:
    """The second is made, and what the first has saved stays; the same on the way back."""
    site.put(describe_ingress(("a.example", "/")))
    check_done(send_away(site, TARGET))
    run = check_done(send_away(site, TARGET, INGRESS))
    assert [entry["object"] for entry in run["plan"]] == ["Ingress n/shop"]
    assert read_saved(site)["before"] == {"selector": {"app": "web"}}
    assert read_saved(site, "Ingress", "shop")["after"] == {
        "a.example Prefix /": {"service": {"name": "page", "port": {"number": 8080}}}
    }
    check_done(give_back(site, INGRESS))
    run = check_done(give_back(site, TARGET, INGRESS))
    assert [entry["object"] for entry in run["plan"]] == [SERVICE]


# --- in flight --------------------------------------------------------------------------------------------------------


def test_requests_in_flight_are_waited_for(site: MemoryServer) -> None:
    """Until every pod says nothing; the most that was seen is in the evidence."""
    values = iter([3, 2, 1, 0])
    site.pod_answers[NAMESPACE, "web-1-2:8080"] = lambda _path: (200, f'in_flight{{pod="x"}} {next(values, 0)}\n')
    run = check_done(send_away(site, in_flight=[GAUGE]))
    assert "Pod n/web-1-2: in_flight 0 (was 3)" in run["evidence"]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("in_flight 2\n", 200, "in_flight 2"),
        ("other 0\n", 200, "it has no metric in_flight"),
        ("in_flight NaN\n", 200, "no count"),
        ("<html>", 200, "no line of Prometheus"),
        ("", 200, "it has no metric in_flight"),
        ("in_flight 0\n", 404, "it answered 404"),
        ("in_flight 0\n", 503, "it answered 503"),
    ],
)
def test_what_is_not_proven_fails_closed(site: MemoryServer, text: str, status: int, words: str) -> None:
    """Traffic is away then, and stays so; the message names the pod, what it said and the next step."""
    answer_once_away(site, "web-1-2", text, status)
    run = send_away(site, in_flight=[GAUGE], in_flight_timeout=0.3)
    assert run.failed
    assert (run.changed, run["error"]["refused"]) == (True, False)
    assert run["error"]["object"] == "Pod n/web-1-2"
    assert words in run.msg
    assert "state=normal gives traffic back" in run.msg
    assert ("raise in_flight_timeout" in run.msg) == (text == "in_flight 2\n" or status == 503)
    assert "requests may be in flight" in run["summary"]
    assert read_saved(site) is not None


def test_a_pod_that_cannot_be_reached_fails_closed(site: MemoryServer) -> None:
    """Unless it is gone by the next round."""
    del site.pod_answers[NAMESPACE, "web-1-1:8080"]
    run = send_away(site, in_flight=[GAUGE], in_flight_timeout=0.3)
    assert run.failed
    assert "could not ask it" in run.msg
    site.remove("Pod", NAMESPACE, "web-1-1")
    assert "in flight 0 in 1 pod for 0 s" in check_done(send_away(site, in_flight=[GAUGE]))["summary"]


def test_nothing_has_to_hold_for_a_time(site: MemoryServer) -> None:
    """A request that comes in between begins it anew."""
    values = iter([0, 0, 1, 0, 0])
    site.pod_answers[NAMESPACE, "web-1-2:8080"] = lambda _path: (200, f"in_flight {next(values, 0)}\n")
    run = check_done(send_away(site, in_flight=[GAUGE], quiet_seconds=0.25, in_flight_timeout=30.0))
    assert next(values, None) is None
    assert run["waited"] >= 0.25


def test_a_pods_clock_is_not_the_servers(site: MemoryServer) -> None:
    """The proxy passes on the time that the pod says."""
    client = site.client()
    site.clock_ahead = 1000.0
    client.get("/api/v1/namespaces/n/services/web", obj="the Service")
    site.clock_ahead = 0.0
    path = "/api/v1/namespaces/n/pods/web-1-1:8080/proxy/metrics"
    assert client.ask(path, obj="the pod").content == b"in_flight 0\n"
    assert client.clock_offset > 900
    client.get("/api/v1/namespaces/n/services/web", obj="the Service")
    assert client.clock_offset < 100
    client.close()


def test_a_port_may_have_a_name(site: MemoryServer) -> None:
    """Which the API server's proxy does not know: it is looked up in the pod."""
    gauge = {**GAUGE, "port": "http"}
    run = send_away(site, in_flight=[gauge], in_flight_timeout=0.2)
    assert run.failed
    assert "none of its containers has a port named http" in run.msg
    ports = [{"name": "http", "containerPort": 8080}]
    for pod in ("web-1-1", "web-1-2"):
        site.change(
            "Pod", NAMESPACE, pod, lambda obj: obj["spec"].update(containers=[{"name": "main", "ports": ports}])
        )
    check_done(send_away(site, in_flight=[gauge]))


def test_fields_of_json_and_limits(site: MemoryServer) -> None:
    """A pod may count the request that asks."""
    for pod in ("web-1-1", "web-1-2"):
        answer(site, pod, json.dumps({"requests": {"active": 1}}))
    gauge = {**GAUGE, "metric": None, "field": "requests.active"}
    assert send_away(site, in_flight=[gauge], in_flight_timeout=0.2).failed
    check_done(send_away(site, in_flight=[{**gauge, "limit": 1.0}]))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_nothing_is_sent_to_a_page_that_is_not_ready(memory: MemoryServer) -> None:
    """Pods of a selector, and endpoints of a Service, also in check mode."""
    put_site(memory, page_is_ready=False)
    memory.put(describe_ingress(("a.example", "/")))
    for target, words in ((TARGET, "none of the 1 pods with app=page is ready"), (INGRESS, "no ready endpoint")):
        for check in (True, False):
            run = send_away(memory, target, check=check)
            assert run.failed
            assert run["error"]["refused"]
            assert words in run.msg
    assert list_writes(memory) == []


def test_a_port_that_the_page_does_not_have_is_refused(site: MemoryServer) -> None:
    """With those that it has."""
    site.put(describe_ingress(("a.example", "/")))
    run = send_away(site, {**INGRESS, "to_port": 81})
    assert run.failed
    assert "Service n/page: it has no port 81; its ports are 8080" in run.msg


def set_target_port(memory: MemoryServer, service: str, port: str) -> None:
    """Let a Service name the port of its pods."""
    ports = [{"port": 8080, "targetPort": port}]
    memory.change("Service", NAMESPACE, service, lambda obj: obj["spec"].update(ports=ports))
    play_endpoints(memory)


def test_a_page_without_the_port_that_is_named_is_refused(site: MemoryServer) -> None:
    """It would be ready, and get no request: behind the Service itself, and behind one that an Ingress is led to."""
    site.put(describe_ingress(("a.example", "/")))
    set_target_port(site, "web", "http")
    set_target_port(site, "page", "http")
    words = {
        SERVICE: "its targetPort is http, and none of the 1 ready pods with app=page has a container port of that name",
        "Service n/page": "its ready endpoints do not have the container port that its targetPort names",
    }
    for target, title in ((TARGET, SERVICE), (INGRESS, "Service n/page")):
        for check in (True, False):
            run = send_away(site, target, check=check)
            assert run.failed
            assert (run["error"]["refused"], run["error"]["object"]) == (True, title)
            assert words[title] in run.msg
    assert list_writes(site) == []
    containers = [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}]
    for pod in ("page-1", "web-1-1", "web-1-2"):
        site.change("Pod", NAMESPACE, pod, lambda obj: obj["spec"].update(containers=containers))
    play_endpoints(site)
    check_done(send_away(site, TARGET, INGRESS))


def test_a_gitops_tool_that_would_put_it_back_is_named(site: MemoryServer) -> None:
    """The way back asks nobody."""
    tool = {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}
    site.remove("Service", NAMESPACE, "web")
    site.put(describe_service("web", {"app": "web"}, **tool), manager="kustomize-controller")
    run = send_away(site)
    assert run.failed
    assert run["error"]["refused"]
    assert "Flux Kustomization shop" in run.msg
    assert "spec.selector" in run.msg
    check_done(send_away(site, guards=[]))
    check_done(give_back(site))
    again = send_away(site)
    assert again.failed, "though the field is this collection's since"
    assert "manager kustomize-controller set spec.selector before run r" in again.msg


def test_smoke_checks_that_fail_keep_traffic_away(site: MemoryServer) -> None:
    """On any pod, and any of the checks; the rehearsal says so and does not fail."""
    check_done(send_away(site))
    answer(site, "web-1-2", "database is down", 503)
    rehearsal = check_done(give_back(site, smoke=[CHECK], check=True))
    assert [blocker["object"] for blocker in rehearsal["blockers"]] == ["Pod n/web-1-2"]
    run = give_back(site, smoke=[CHECK], smoke_timeout=0.3)
    assert run.failed
    assert (run.changed, run["error"]["refused"]) == (False, True)
    assert "Pod n/web-1-2: /healthz: it answered 503 and not 200: 'database is down'" in run.msg
    assert read_selector(site) == {"app": "page"}
    answer(site, "web-1-2", "release 7")
    assert give_back(site, smoke=[{**CHECK, "contains": "release 8"}], smoke_timeout=0.3).failed
    answer(site, "web-1-1", "release 7")
    check_done(give_back(site, smoke=[{**CHECK, "contains": "release 7"}]))


def test_a_look_that_the_deadline_cuts_short_does_not_hide_what_was_seen(site: MemoryServer) -> None:
    """A pod that answers, and then no more: what it said is the reason, not that it was asked for too short a time."""
    check_done(send_away(site))
    asked: list[str] = []
    is_over = threading.Event()

    def answer_once(path: str) -> tuple[int, str]:
        asked.append(path)
        if len(asked) > 1:
            is_over.wait(20)
        return 503, "database is down"

    site.pod_answers[NAMESPACE, "web-1-2:8080"] = answer_once
    run = give_back(site, smoke=[CHECK], smoke_timeout=1.0)
    is_over.set()
    assert len(asked) > 1
    assert "it answered 503 and not 200: 'database is down'" in run.msg


def test_traffic_does_not_go_back_to_pods_that_are_not_ready(site: MemoryServer) -> None:
    """They are waited for."""
    check_done(send_away(site))
    for number in (1, 2):
        site.put(describe_pod(f"web-1-{number}", "web", ready=False, owner="web-1"))
    run = give_back(site, timeout=1.0)
    assert run.failed
    assert "0 of 2 pods with app=web ready" in run.msg
    assert read_selector(site) == {"app": "page"}
    site.put(describe_pod("web-1-1", "web", owner="web-1"))
    run = give_back(site, timeout=1.0)
    assert run.failed, "one of two"
    assert "1 of 2 pods with app=web ready, and 2 needed (2 served before, 2 wanted now)" in run.msg
    assert read_selector(site) == {"app": "page"}
    site.change("Deployment", NAMESPACE, "web", lambda obj: obj["spec"].update(replicas=1))
    check_done(give_back(site))


def test_as_many_pods_as_served_have_to_be_ready_and_no_more(site: MemoryServer) -> None:
    """Scaled out meanwhile, the new ones are not waited for; pods of other kinds count as they are."""
    site.put(describe_pod("agent", "web"))
    play_endpoints(site)
    check_done(send_away(site))
    site.change("Deployment", NAMESPACE, "web", lambda obj: obj["spec"].update(replicas=9))
    site.put(describe_pod("agent", "web", ready=False))
    run = give_back(site, timeout=1.0)
    assert run.failed
    assert "2 of 3 pods with app=web ready, and 3 needed (3 served before, 10 wanted now)" in run.msg
    site.put(describe_pod("web-1-3", "web", owner="web-1"))
    check_done(give_back(site))


def test_without_the_right_to_read_workloads_as_many_as_served_are_waited_for(site: MemoryServer) -> None:
    """With a warning: the way back does not fail for it."""
    check_done(send_away(site))
    site.deny("list", "deployments")
    run = check_done(give_back(site))
    assert any("2 ready pods are waited for" in warning for warning in run["warnings"]), run["warnings"]


def test_a_missing_right_is_found_before_the_first_write(site: MemoryServer) -> None:
    """The proxy's too, and in check mode."""
    site.deny("get", "pods/proxy")
    for check in (True, False):
        run = send_away(site, in_flight=[GAUGE], check=check)
        assert run.failed
        assert "get pods/proxy in namespace n" in run.msg
    assert list_writes(site) == []
    check_done(send_away(site))
    run = send_away(site, in_flight=[GAUGE])
    assert run.failed
    assert "Grant this account: get pods/proxy" in run.msg


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"kind": "Service", "name": "web", "to_service": "page"}, "to_service is not for this kind"),
        ({"kind": "Ingress", "name": "shop"}, "to_service or to_port is missing"),
        ({"kind": "Ingress", "name": "shop", "canary_weight": -1}, "below 0"),
        ({"kind": "Ingress", "name": "shop", "canary_weight": 9, "to_port": 1}, "together with to_port"),
        ({**INGRESS, "hosts": ["b.example"]}, "its hosts are a.example"),
        ({"kind": "Service", "name": "none"}, "Services there: page, web"),
    ],
)
def test_a_target_that_cannot_be_is_refused(site: MemoryServer, target: Json, words: str) -> None:
    """Before anything is changed."""
    site.put(describe_ingress(("a.example", "/")))
    run = send_away(site, target)
    assert run.failed
    assert run["error"]["refused"]
    assert words in run.msg
    assert list_writes(site) == []


def test_a_service_without_a_selector_is_refused(site: MemoryServer) -> None:
    """Its addresses are somebody else's."""
    site.put(describe_service("outside", None))
    run = send_away(site, {"kind": "Service", "name": "outside"})
    assert run.failed
    assert "it has no selector" in run.msg


# --- others who change it meanwhile -----------------------------------------------------------------------------------


def test_what_a_person_has_set_since_stays(site: MemoryServer) -> None:
    """It is reported once, and forgotten."""
    check_done(send_away(site))
    set_selector(site, {"app": "web", "version": "2"})
    run = check_done(give_back(site))
    assert read_selector(site) == {"app": "web", "version": "2"}
    assert read_saved(site) is None
    assert f"left as another client has set it since: {SERVICE}" in run["summary"]
    assert run["blockers"][0]["object"] == SERVICE
    again = check_done(give_back(site))
    assert (again.changed, again["blockers"]) == (False, [])


def test_a_person_who_changes_it_during_the_write_is_not_overwritten(site: MemoryServer) -> None:
    """What is saved is what was there at the time of the write."""
    site.add_rival(lambda: set_selector(site, {"app": "web", "version": "2"}), verb="patch", path="/services/web")
    check_done(send_away(site))
    assert read_saved(site)["before"] == {"selector": {"app": "web", "version": "2"}}
    site.change("Pod", NAMESPACE, "web-1-1", lambda pod: pod["metadata"]["labels"].update(version="2"))
    check_done(give_back(site))
    assert read_selector(site) == {"app": "web", "version": "2"}


def test_a_write_whose_answer_is_lost_is_found(site: MemoryServer) -> None:
    """It is read again, and not saved a second time. (The first patch is the dry run.)"""
    site.add_rival(lambda: site.lose_next("after", 1, verb="patch", path="/services/web"), when="after", times=1)
    run = check_done(send_away(site))
    assert run.changed
    assert read_saved(site)["before"] == {"selector": {"app": "web"}}


def test_an_annotation_that_cannot_be_read_stops_both_ways(site: MemoryServer) -> None:
    """The others are given back."""
    site.put(describe_service("web", {"app": "page"}, annotations={NOTE: "{"}))
    site.put(describe_ingress(("a.example", "/")))
    assert send_away(site).failed
    check_done(send_away(site, INGRESS))
    run = give_back(site, TARGET, INGRESS)
    assert run.failed
    assert f"{SERVICE}: annotation {NOTE} is not JSON" in run.msg
    assert read_saved(site, "Ingress", "shop") is None
    assert [target["state"] for target in run["targets"]] == ["normal", "unknown"]


def test_a_window_leaves_what_no_window_sent_away(site: MemoryServer) -> None:
    """And gives back what a window did."""
    check_done(send_away(site, run_id="by hand"))
    run = check_done(give_back(site, saved_by="window"))
    assert (run.changed, read_selector(site)) == (False, {"app": "page"})
    assert (run["blockers"][0]["holder"], run["summary"]) == (
        "run by hand",
        f"nothing to give back; left in maintenance: {SERVICE}",
    )
    check_done(give_back(site))
    check_done(send_away(site, run_id="weekly@2026-01-01T00:00:00Z"))
    assert check_done(give_back(site, saved_by="window")).changed


def test_another_page_keeps_what_was_saved(site: MemoryServer) -> None:
    """The way back leads to where the requests went at first."""
    check_done(send_away(site))
    site.put(describe_pod("page-2", "other"))
    play_endpoints(site)
    check_done(send_away(site, {**TARGET, "selector": {"app": "other"}}))
    assert read_saved(site)["before"] == {"selector": {"app": "web"}}
    check_done(give_back(site))
    assert read_selector(site) == {"app": "web"}
