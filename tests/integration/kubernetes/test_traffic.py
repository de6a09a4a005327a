# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_traffic on a real cluster: no request is lost on the way to the page and back, and nothing in flight is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.kubernetes_account import AuditLog, expand, name_user, narrow, read_rules
from support.modules import ModuleRun, finish_module, start_module
from support.traffic_site import Balancer, HeldRequest

from .conftest import Namespace, define

pytestmark = [pytest.mark.lab("kubernetes", "feature_service"), pytest.mark.usefixtures("gateway")]
Json = dict[str, Any]
Connect = Callable[..., Json]

MODULE = "k8s_traffic"
NOTE = "lowtide.ops/traffic"
SERVICE_NAME = "kubernetes.io/service-name"
RULES = read_rules("Role", "lowtide-traffic")
WEB: Json = {"kind": "Service", "name": "web", "selector": {"app": "page"}}
INGRESS: Json = {
    "kind": "Ingress",
    "name": "shop",
    "hosts": ["shop.example.org"],
    "to_service": "page",
    "to_port": 8080,
}
ROUTE: Json = {"kind": "HTTPRoute", "name": "shop", "to_service": "page", "to_port": 8080}
GAUGE: Json = {
    "kind": "Deployment",
    "name": "web",
    "port": "http",
    "path": "/metrics?by=module",
    "metric": "http_requests_in_flight",
}
SMOKE: list[Json] = [
    {"kind": "Deployment", "name": "web", "port": "8080", "path": "/healthz", "contains": "ok"},
    {"kind": "Deployment", "name": "web", "port": "8080", "path": "/", "contains": "web"},
]


@pytest.fixture(scope="session")
def gateway(lab_facts: Json) -> None:
    """The HTTPRoute's resource definition, as far as the module looks at it. No Gateway controller runs: this is its API only."""
    defaults = {"group": {"type": "string", "default": ""}, "kind": {"type": "string", "default": "Service"}}
    reference = {
        "type": "object",
        "properties": {
            **defaults,
            "name": {"type": "string"},
            "port": {"type": "integer"},
            "weight": {"type": "integer", "default": 1},
        },
    }
    rule = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"backendRefs": {"type": "array", "items": reference}},
    }
    spec = {"type": "object", "properties": {"rules": {"type": "array", "items": rule}}}
    schema = {"type": "object", "properties": {"spec": spec}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/891"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "httproutes.gateway.networking.k8s.io", "annotations": approved},
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
            "versions": [version],
        },
    }
    define(Namespace("default", lab_facts["kubernetes"]), definition)


@pytest.fixture
def account(connect: Connect) -> Json:
    """The options that connect as an account with the documented rights, those of the Role lowtide included."""
    return connect([*read_rules("Role", "lowtide"), *RULES])


def send_away(site: Namespace, *targets: Json, **params: Any) -> ModuleRun:
    """Send the traffic of the targets to the page, of the Service unless others are given."""
    return site.module(MODULE, state="maintenance", targets=list(targets or [WEB]), **params)


def give_back(site: Namespace, *targets: Json, **params: Any) -> ModuleRun:
    """Give it back."""
    return site.module(MODULE, state="normal", targets=list(targets or [WEB]), **params)


def check_done(run: ModuleRun) -> ModuleRun:
    """Check that a run came to a good end, and return it."""
    assert not run.failed, run.msg
    return run


def read_note(site: Namespace, kind: str = "Service", name: str = "web") -> Json | None:
    """What is saved on an object."""
    text = (site.get(kind, name)["metadata"].get("annotations") or {}).get(NOTE)
    return json.loads(text)["operations"][0]["spec"] if text else None


@pytest.fixture
def held(site: Namespace, balancer: Balancer) -> Iterator[HeldRequest]:
    """A request that is in flight until it is released."""
    request = HeldRequest(balancer.list_addresses()[0])
    site.wait("the request arrives", lambda: request.has_arrived)
    yield request
    request.release()


def start_away(site: Namespace, **params: Any) -> subprocess.Popen[str]:
    """Begin to send the Service's traffic away."""
    return start_module(
        MODULE, site.params(state="maintenance", targets=[WEB], in_flight=[GAUGE], in_flight_timeout=250, **params)
    )


@pytest.mark.procedure("B25", "B27")
def test_no_request_fails_while_traffic_goes_to_the_page_and_back(
    site: Namespace, balancer: Balancer, held: HeldRequest, account: Json
) -> None:
    """A request is on its way: maintenance is not done before it has its answer, and that is measured."""
    predicted = check_done(send_away(site, in_flight=[GAUGE], check=True, **account))
    assert (read_note(site), held.measurements > 0) == (None, True)
    process = start_away(site, **account)
    site.wait("the switch is saved", lambda: read_note(site) is not None)
    balancer.wait_for("page")
    measured = held.measurements
    site.wait("it is measured since", lambda: held.measurements > measured)
    assert process.poll() is None
    assert held.release() == "web"
    away = check_done(finish_module(process))

    assert (away.changed, away["plan"], away["diff"]) == (True, predicted["plan"], predicted["diff"])
    assert [reading["value"] for reading in away["readings"]] == [0.0, 0.0]
    assert any("(was 1)" in line for line in away["evidence"])
    again = check_done(send_away(site, in_flight=[GAUGE], **account))
    assert not again.changed

    back = check_done(give_back(site, smoke=SMOKE, **account))
    assert back.changed
    assert [reading["met"] for reading in back["readings"]] == [True] * 4
    balancer.wait_for("web")
    assert not check_done(give_back(site, smoke=SMOKE, **account)).changed
    assert read_note(site) is None
    assert site.get("Service", "web")["spec"]["selector"] == {"app": "web"}
    assert balancer.failures == []


@pytest.mark.procedure("B25")
def test_a_request_that_does_not_end_is_named(site: Namespace, balancer: Balancer, held: HeldRequest) -> None:
    """With its pod; the page is shown, and running again goes on."""
    run = send_away(site, in_flight=[GAUGE], in_flight_timeout=6)
    assert run.failed
    assert run.changed
    assert "http_requests_in_flight 1" in run.msg
    assert run["error"]["object"].startswith(f"Pod {site.name}/web-")
    balancer.wait_for("page")
    held.release()
    assert not check_done(send_away(site, in_flight=[GAUGE])).changed


@pytest.mark.procedure("B25")
def test_a_killed_run_is_finished_by_the_next(site: Namespace, balancer: Balancer, held: HeldRequest) -> None:
    """It was killed after the switch, while it waited: what it saved is there, and leads back."""
    process = start_away(site)
    site.wait("the switch is saved", lambda: read_note(site) is not None)
    balancer.wait_for("page")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_note(site) is not None
    held.release()
    assert not check_done(finish_module(start_away(site))).changed
    check_done(give_back(site, smoke=SMOKE))
    balancer.wait_for("web")
    assert balancer.failures == []


@pytest.mark.procedure("B27")
def test_a_site_that_does_not_pass_its_checks_stays_away(site: Namespace, balancer: Balancer) -> None:
    """Any check on any pod; it is refused, and the page is still shown."""
    check_done(send_away(site))
    wrong = [*SMOKE, {**SMOKE[1], "contains": "release 8"}]
    run = give_back(site, smoke=wrong, smoke_timeout=5)
    assert run.failed
    assert (run.changed, run["error"]["refused"]) == (False, True)
    assert "'web' does not contain 'release 8'" in run.msg
    balancer.wait_for("page")
    check_done(give_back(site, smoke=SMOKE))
    balancer.wait_for("web")


def describe_route() -> Json:
    """Return an HTTPRoute with two backends, one of them with a default weight."""
    references = [{"name": "web", "port": 8080}, {"name": "web-next", "port": 8080, "weight": 3}]
    matches = [{"path": {"type": "PathPrefix", "value": "/"}}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "shop"},
        "spec": {"rules": [{"matches": matches, "backendRefs": references}]},
    }


@pytest.mark.procedure("B25", "B27")
def test_ingresses_and_routes_are_switched_with_the_documented_rights(site: Namespace, account: Json) -> None:
    """And with none of them left over: the API server's log has exactly these verbs on these resources."""
    audit = AuditLog(site.facts)
    site.apply(describe_route())
    before = {kind: site.get(kind, "shop")["spec"] for kind in ("Ingress", "HTTPRoute")}
    targets = [WEB, INGRESS, ROUTE]
    check_done(send_away(site, *targets, in_flight=[GAUGE], **account))
    backends = [
        path["backend"]["service"]["name"]
        for rule in site.get("Ingress", "shop")["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert backends == ["page", "web"]
    references = site.get("HTTPRoute", "shop")["spec"]["rules"][0]["backendRefs"]
    assert [(ref["name"], ref["weight"]) for ref in references] == [("web", 0), ("web-next", 0), ("page", 1)]
    assert not check_done(send_away(site, *targets, **account)).changed
    check_done(give_back(site, *targets, smoke=SMOKE, **account))
    assert {kind: site.get(kind, "shop")["spec"] for kind in before} == before
    assert [read_note(site, kind, name) for kind, name in (("Service", "web"), ("HTTPRoute", "shop"))] == [None, None]
    agent = {**GAUGE, "kind": "DaemonSet", "name": "none"}
    missing = send_away(site, in_flight=[agent], **account)
    assert "DaemonSet" in missing.msg

    needed = {right for right in expand(RULES) if right.verb != "watch"}
    used = audit.wait_for_rights(name_user(site.name), needed)
    assert used - expand([*read_rules("Role", "lowtide"), *RULES]) == set(), "used, and not documented"
    assert needed - used == set(), "documented, and not used"


def test_what_would_prove_nothing_is_refused(site: Namespace, account: Json) -> None:
    """A workload that gets no requests; a gauge that the pods do not have; with the documented rights."""
    for gauge, words in (
        ({"name": "page"}, "Add Deployment web to in_flight"),
        ({"metric": "requests_active"}, "it has no metric requests_active"),
        ({"path": "/none"}, "Correct path, port and what is read there"),
        ({"port": "1"}, "Correct port and scheme"),
    ):
        for check in (True, False):
            run = send_away(site, in_flight=[{**GAUGE, **gauge}], check=check, **account)
            assert run.failed
            assert run["error"]["refused"]
            assert words in run["error"]["next_step"] or words in run.msg
    assert read_note(site) is None


def test_a_page_without_the_port_that_is_named_is_refused(site: Namespace, account: Json) -> None:
    """By the pods' containers, and by what the controller makes of them in EndpointSlices."""
    for name in ("web", "page"):
        service = site.get("Service", name)
        ports = [{"port": 8080, "targetPort": "other"}]
        site.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {**service["spec"], "ports": ports},
            }
        )

    def is_resolved() -> bool:
        slices = [obj for obj in site.list("EndpointSlice") if obj["metadata"]["labels"][SERVICE_NAME] == "page"]
        return bool(slices) and not any(obj.get("ports") for obj in slices)

    site.wait("the controller finds no port", is_resolved)
    for target, words in ((WEB, "its targetPort is other"), (INGRESS, "do not have the container port")):
        run = send_away(site, target, **account)
        assert run.failed
        assert run["error"]["refused"]
        assert words in run.msg


def test_a_right_that_is_missing_is_found_before_the_first_write(site: Namespace, connect: Connect) -> None:
    """The proxy's."""
    proxied = [right for right in expand(RULES) if right.resource == "pods/proxy"]
    account = connect([*read_rules("Role", "lowtide"), *narrow(RULES, *proxied)])
    run = send_away(site, in_flight=[GAUGE], **account)
    assert run.failed
    assert run["error"]["refused"]
    assert "get pods/proxy" in run.msg
    assert read_note(site) is None
