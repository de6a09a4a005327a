# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a Service's requests go, by its EndpointSlices, and in words."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.endpoints import (
    Endpoint,
    PodsReady,
    Routed,
    list_endpoints,
    list_missing_ports,
    list_ready,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Pod
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.traffic import Change
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_proxy import Reading
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.routes import parse_target
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.snapshot import Snapshot
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.traffic_summary import (
    describe_quiet,
    describe_route,
    describe_unmet,
    summarize_away,
    summarize_back,
)

from .traffic_steps import describe_pod

Json = dict[str, Any]
NAMESPACE = "n"
WEB = {"app": "web"}


def describe_slice(*pods: tuple[str, bool | None], service: str = "web") -> Json:
    """Return an EndpointSlice with these pods, each with its readiness."""
    endpoints = [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {} if ready is None else {"ready": ready},
            "targetRef": {"kind": "Pod", "name": name},
        }
        for name, ready in pods
    ]
    labels = {"kubernetes.io/service-name": service}
    metadata = {"name": f"{service}-{len(pods)}", "namespace": NAMESPACE, "labels": labels}
    return {"kind": "EndpointSlice", "metadata": metadata, "endpoints": endpoints}


def test_endpoints_are_those_of_one_service() -> None:
    """Readiness that is not stated is readiness; an address without a pod is named by itself."""
    slices = [describe_slice(("b", None), ("a", False)), describe_slice(("x", True), service="other")]
    slices[0]["endpoints"].append({"addresses": ["10.0.0.9"], "conditions": {"ready": True}})
    assert list_endpoints(slices, "web") == [
        Endpoint("10.0.0.9", True, is_pod=False),
        Endpoint("a", False),
        Endpoint("b", True),
    ]
    assert list_ready(slices, "web") == ["10.0.0.9", "b"]
    assert list_ready([{"metadata": {}, "endpoints": None}], "web") == []


@pytest.mark.parametrize(
    ("pods", "is_serving", "is_current", "words"),
    [
        ([("web-1", True)], True, True, "1 ready endpoint (web-1)"),
        ([("web-1", True), ("page-1", True)], True, False, "its EndpointSlices still have page-1"),
        ([("web-1", True), ("page-1", False)], True, False, "its EndpointSlices still have page-1"),
        ([("web-1", False)], True, False, "0 ready endpoints (none)"),
        ([], True, False, "0 ready endpoints (none)"),
        ([], False, True, "0 ready endpoints (none)"),
    ],
)
def test_requests_reach_only_what_is_selected(
    pods: list[tuple[str, bool | None]], is_serving: bool, is_current: bool, words: str
) -> None:
    """A pod that is not ready counts too: it may become so."""
    objects = [describe_pod("web-1", "web"), describe_pod("page-1", "page"), describe_slice(*pods)]
    status = Routed(NAMESPACE, "web", WEB, is_serving=is_serving).evaluate(Snapshot.from_objects(objects))
    assert (status.is_current, status.message) == (is_current, words)
    assert status.title == "Service n/web"


def test_a_pod_without_the_port_gets_no_request() -> None:
    """It is ready in a slice that has no ports, as the controller of EndpointSlices leaves it."""
    portless, whole = describe_slice(("page-1", True)), describe_slice(("page-1", True), ("page-2", True))
    whole["endpoints"].pop(0)
    whole["ports"] = [{"name": "", "port": 8080}]
    pods = [describe_pod("page-1", "page"), describe_pod("page-2", "page")]
    condition = Routed(NAMESPACE, "web", {"app": "page"}, is_serving=True, has_ports=True)
    late = condition.evaluate(Snapshot.from_objects([*pods, portless]))
    words = "0 ready endpoints (none); without the port that its targetPort names: page-1"
    assert (late.is_current, late.message) == (False, words)
    assert condition.evaluate(Snapshot.from_objects([*pods, portless, whole])).is_current
    assert list_ready([portless, whole], "web", ports=[""]) == ["page-2"]
    assert list_ready([portless, whole], "web", ports=["", "admin"]) == []


def test_names_of_ports_are_looked_up_in_the_pod() -> None:
    """With their protocol; of init containers those that go on running."""
    service = {
        "spec": {"ports": [{"targetPort": "http"}, {"targetPort": 80}, {"targetPort": "dns", "protocol": "UDP"}]}
    }
    pod = describe_pod("page-1", "page")
    assert list_missing_ports(service, Pod.from_object(pod)) == ["dns", "http"]
    pod["spec"]["initContainers"] = [{"ports": [{"name": "http", "containerPort": 80}]}]
    pod["spec"]["containers"] = [{"ports": [{"name": "dns", "containerPort": 53}]}]
    assert list_missing_ports(service, Pod.from_object(pod)) == ["dns", "http"]
    pod["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    pod["spec"]["containers"][0]["ports"][0]["protocol"] = "UDP"
    assert list_missing_ports(service, Pod.from_object(pod)) == []


def test_pods_have_to_be_ready_before_they_get_requests() -> None:
    """One that ends does not count."""
    ending = describe_pod("web-2", "web")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    condition = PodsReady(NAMESPACE, "web", WEB)
    late = condition.evaluate(Snapshot.from_objects([describe_pod("web-1", "web", ready=False), ending]))
    assert (late.is_current, late.message) == (
        False,
        "0 of 2 pods with app=web ready, and 1 needed (1 served before, 1 wanted now)",
    )
    assert condition.evaluate(Snapshot.from_objects([describe_pod("web-1", "web")])).is_current


# --- in words ---------------------------------------------------------------------------------------------------------

TARGETS = {
    "Service n/web": parse_target({"kind": "Service", "name": "web", "selector": {"app": "page"}}, is_away=True),
    "Ingress n/shop": parse_target(
        {"kind": "Ingress", "name": "shop", "to_service": "page", "to_port": 80}, is_away=True
    ),
}
DUE = Change(None, {"selector": WEB}, {"selector": {"app": "page"}}, "asked to be in maintenance", is_assumed=True)
IDLE = Change(None, {}, {}, "run r sent it there at 2026-01-01T00:00:00Z")


def test_what_was_sent_away_is_said_and_what_was_not() -> None:
    """After a failure in the middle both."""
    changes = {"Service n/web": DUE, "Ingress n/shop": DUE}
    assert summarize_away(TARGETS, changes, written=None, quiet="") == (
        "would send traffic to the maintenance page: Service n/web (pods with app=page), Ingress n/shop (Service page:80)"
    )
    assert summarize_away(TARGETS, changes, written={"Service n/web"}, quiet="requests may be in flight") == (
        "sent traffic to the maintenance page: Service n/web (pods with app=page); not changed: Ingress n/shop;"
        " requests may be in flight"
    )
    assert summarize_away(TARGETS, changes, written=set(), quiet="") == "no traffic was sent to the maintenance page"
    assert summarize_away(TARGETS, {"Service n/web": IDLE}, written=set(), quiet="in flight 0") == (
        "traffic goes to the maintenance page already; in flight 0"
    )


def test_what_was_given_back_is_said_and_what_stays() -> None:
    """With the reason for which it stays."""
    changes = {
        "Service n/web": DUE._replace(changed_since=("selector",)),
        "Ingress n/shop": IDLE._replace(is_left=True),
    }
    assert summarize_back(changes, written={"Service n/web"}, smoke="2 smoke checks passed in 1 pod") == (
        "gave traffic back to Service n/web; left in maintenance: Ingress n/shop;"
        " left as another client has set it since: Service n/web; 2 smoke checks passed in 1 pod"
    )
    assert summarize_back({"Service n/web": DUE}, written=set(), smoke="") == "no traffic was given back"
    assert summarize_back({"Service n/web": IDLE}, written=None, smoke="") == "no traffic is in maintenance"


def test_readings_in_words() -> None:
    """Those that are not met, and all of them together."""
    readings = [
        Reading("Pod n/a", "in_flight", is_met=False, value=2.0, message="in_flight 2"),
        Reading("Pod n/b", "in_flight", is_met=True, value=0.0, message="in_flight 0"),
    ]
    assert describe_unmet(readings) == "Pod n/a: in_flight 2"
    assert describe_quiet(readings[1:], 2.0) == "in flight 0 in 1 pod for 2 s"
    assert describe_quiet([], 2.0) == "no pod is left in which a request could be in flight"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("selector", {"b": "2", "a": "1"}, "a=1,b=2"),
        ("selector", None, "no selector"),
        ("a.example Prefix /", {"service": {"name": "web", "port": {"number": 80}}}, "web:80"),
        ("a.example Prefix /", {"service": {"name": "web", "port": {"name": "http"}}}, "web:http"),
        ("a.example Prefix /", {"resource": {"kind": "Bucket", "name": "static"}}, "static"),
        ("[]", [{"name": "web", "weight": 0}, {"name": "page"}], "web (weight 0), page (weight 1)"),
        ("nginx.ingress.kubernetes.io/canary", None, "not set"),
    ],
)
def test_routes_in_words(key: str, value: Any, words: str) -> None:
    """As plan and diff show them."""
    assert describe_route(key, value) == words
