# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Away, then back, gives every route what it had, whatever others did in between; pure, on real shapes of objects."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import build_json_patch
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.traffic import (
    Change,
    Served,
    list_fresh,
    plan_away,
    plan_back,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.routes import (
    CANARY,
    CANARY_WEIGHT,
    NO_PODS,
    Backends,
    Target,
    choose_routes,
    list_backends,
    list_page_services,
    parse_target,
    read_routes,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import TRAFFIC
from support.memory_objects import apply_operations

from .traffic_steps import describe_ingress, describe_service

Json = dict[str, Any]
NOW = "2026-01-01T00:00:00Z"


def make(entry: Json) -> Target:
    """Return a target of the option targets."""
    return parse_target(entry, is_away=True)


SERVICE = make({"kind": "Service", "name": "web", "selector": {"app": "page"}})
INGRESS = make({"kind": "Ingress", "name": "shop", "to_service": "page", "to_port": 80})
CANARY_TARGET = make({"kind": "Ingress", "name": "shop", "canary_weight": 100})
ROUTE = make({"kind": "HTTPRoute", "name": "shop", "to_service": "page", "to_port": 80})


def describe_route(*weights: int) -> Json:
    """Return an HTTPRoute with a backend for each weight, and a rule that only redirects."""
    references = [
        {"group": "", "kind": "Service", "name": f"web-{number}", "port": 80, "weight": weight}
        for number, weight in enumerate(weights)
    ]
    redirect = {"matches": [{"path": {"value": "/old"}}], "filters": [{"type": "RequestRedirect"}]}
    rules = [{"matches": [{"path": {"value": "/"}}], "backendRefs": references}, redirect]
    return {"kind": "HTTPRoute", "metadata": {"name": "shop", "namespace": "n"}, "spec": {"rules": rules}}


def number(obj: Json) -> Json:
    """Return an object as a server keeps it: with a uid."""
    return {**obj, "metadata": {**obj["metadata"], "uid": "u"}}


def apply(obj: Json, change: Change) -> Json:
    """Return an object after the write of a change, as the server makes it of the JSON patch."""
    assert change.write is not None, change.reason
    return apply_operations(obj, build_json_patch(obj, change.write))


def go_away(obj: Json, target: Target, *, run_id: str = "r") -> Json:
    """Return an object in maintenance."""
    return apply(obj, plan_away(obj, target, served=Served(ready=2), run_id=run_id, now=NOW))


def go_back(obj: Json, target: Target) -> Json:
    """Return an object after it was given back."""
    return apply(obj, plan_back(obj, target))


def drop_annotations(obj: Json) -> Json:
    """Return an object without an empty mapping of annotations, which a removed annotation leaves."""
    result = copy.deepcopy(obj)
    if not result["metadata"].get("annotations"):
        result["metadata"].pop("annotations", None)
    return result


LABELS = st.dictionaries(
    st.sampled_from(["app", "tier", "a/b", "x~y"]), st.sampled_from(["web", "1", "<>&"]), min_size=1
)
PATHS = st.lists(
    st.tuples(st.sampled_from(["", "a.example", "b.example"]), st.sampled_from(["/", "/api"])), min_size=1, max_size=4
)
BACKENDS = st.sampled_from(
    [
        {"service": {"name": "web", "port": {"name": "http"}}},
        {"resource": {"apiGroup": "storage.example", "kind": "Bucket", "name": "static"}},
    ]
)
OBJECTS = st.one_of(
    st.tuples(st.builds(describe_service, st.just("web"), LABELS), st.just(SERVICE)),
    st.tuples(PATHS.map(lambda paths: describe_ingress(*paths)), st.sampled_from([INGRESS, CANARY_TARGET])),
    st.tuples(
        st.builds(lambda paths, backend: describe_ingress(*paths, defaultBackend=backend), PATHS, BACKENDS),
        st.just(INGRESS),
    ),
    st.tuples(
        st.lists(st.integers(0, 9), min_size=1, max_size=3).map(lambda weights: describe_route(*weights)),
        st.just(ROUTE),
    ),
)


@given(OBJECTS)
def test_back_is_exactly_what_there_was(case: tuple[Json, Target]) -> None:
    """A second time away changes nothing, and back neither."""
    obj, target = number(case[0]), case[1]
    away = go_away(obj, target)
    assert plan_away(away, target, served=Served(ready=0), run_id="other", now=NOW).write is None
    back = go_back(away, target)
    assert drop_annotations(back) == obj
    assert plan_back(back, target).write is None


@given(OBJECTS, st.sampled_from(["again", "other page", "none"]))
def test_what_was_saved_first_is_what_comes_back(case: tuple[Json, Target], then: str) -> None:
    """Whatever else was declared in between."""
    obj, target = number(case[0]), case[1]
    away = go_away(obj, target)
    others = {"again": target, "other page": target._replace(selector={"app": "p2"}, to_port=81), "none": target}
    other = others[then]._replace(selector=NO_PODS) if then == "none" else others[then]
    change = plan_away(away, other, served=Served(ready=0), run_id="r2", now=NOW)
    away = apply(away, change) if change.write is not None else away
    assert drop_annotations(go_back(away, target)) == obj


def test_routes_are_given_back_one_by_one() -> None:
    """A person's route, a new path and a removed one are theirs."""
    obj = number(describe_ingress(("a.example", "/"), ("b.example", "/"), ("c.example", "/")))
    away = go_away(obj, INGRESS)
    rules = away["spec"]["rules"]
    mine = {"service": {"name": "mine", "port": {"number": 1}}}
    rules[1]["http"]["paths"][0]["backend"] = mine
    del rules[2]
    rules.insert(0, copy.deepcopy(obj["spec"]["rules"][0]) | {"host": "d.example"})
    change = plan_back(away, INGRESS)
    assert change.changed_since == ("b.example Prefix /", "c.example Prefix /")
    back = apply(away, change)
    names = [rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in back["spec"]["rules"]]
    assert names == ["web", "web", "mine"]
    assert TRAFFIC not in back["metadata"]["annotations"]


def test_what_a_person_has_set_is_what_was_before_the_next_time() -> None:
    """The note of the first time counts no longer for that route."""
    away = go_away(number(describe_service("web", {"app": "web"})), SERVICE)
    away["spec"]["selector"] = {"app": "web", "version": "2"}
    again = go_away(away, SERVICE)
    assert go_back(again, SERVICE)["spec"]["selector"] == {"app": "web", "version": "2"}


def name_backends(obj: Json) -> dict[str, str]:
    """Return the Service of each path of an Ingress."""
    routes = read_routes(obj, "Ingress")
    return {key: route["service"]["name"] for key, route in routes.items() if isinstance(route, dict)}


def test_only_what_is_asked_for_is_switched() -> None:
    """By hosts and paths; what is no longer asked for gets back what it had."""
    obj = number(describe_ingress(("a.example", "/"), ("a.example", "/api"), ("", "/")))
    some = INGRESS._replace(hosts=("a.example", "*"), paths=("/",))
    away = go_away(obj, some)
    assert name_backends(away) == {"a.example Prefix /": "page", "a.example Prefix /api": "web", "* Prefix /": "page"}
    fewer = go_away(away, INGRESS._replace(hosts=("*",)))
    assert name_backends(fewer) == {"a.example Prefix /": "web", "a.example Prefix /api": "web", "* Prefix /": "page"}
    saved = json.loads(fewer["metadata"]["annotations"][TRAFFIC])["operations"][0]["spec"]
    assert list(saved["before"]) == ["* Prefix /"]
    assert drop_annotations(go_back(fewer, INGRESS)) == obj


def test_what_goes_to_the_page_already_is_nobodys_switch() -> None:
    """Nothing is saved, and nothing is given back."""
    obj = number(describe_service("web", {"app": "page"}))
    change = plan_away(obj, SERVICE, served=Served(ready=1), run_id="r", now=NOW)
    assert (change.write, change.reason) == (
        None,
        "it goes there already, and no run of this collection has sent it there",
    )
    assert plan_back(obj, SERVICE).write is None


def test_weights_are_shifted_and_the_redirect_stays() -> None:
    """A page that is among the backends already gets its weight there."""
    obj = number(describe_route(1, 3))
    obj["spec"]["rules"][0]["backendRefs"].append({"name": "page", "port": 80, "weight": 0})
    away = go_away(obj, ROUTE)
    assert [(ref["name"], ref["weight"]) for ref in away["spec"]["rules"][0]["backendRefs"]] == [
        ("web-0", 0),
        ("web-1", 0),
        ("page", 1),
    ]
    assert away["spec"]["rules"][1] == obj["spec"]["rules"][1]


def test_a_canary_gets_its_weight_by_annotations() -> None:
    """The page is what its paths lead to."""
    obj = number(describe_ingress(("a.example", "/")))
    obj["metadata"]["annotations"] = {CANARY: "true", CANARY_WEIGHT: "5", "other": "x"}
    away = go_away(obj, CANARY_TARGET)
    assert away["metadata"]["annotations"][CANARY_WEIGHT] == "100"
    assert list_page_services(obj, CANARY_TARGET) == ["web"]
    assert go_back(away, CANARY_TARGET) == obj


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"canary-by-header": "x-team"}, "it has nginx.ingress.kubernetes.io/canary-by-header, which come before"),
        ({"canary-by-cookie": "beta"}, "it has nginx.ingress.kubernetes.io/canary-by-cookie, which come before"),
        ({"canary-weight-total": "1000"}, "canary_weight is 100 of a total of 1000"),
        ({"canary-weight-total": "50"}, "canary_weight is 100, above its total of 50"),
    ],
)
def test_a_canary_that_does_not_send_all_away_is_refused(annotations: dict[str, str], words: str) -> None:
    """With the annotation's name and what to do."""
    obj = number(describe_ingress(("a.example", "/")))
    obj["metadata"]["annotations"] = {
        CANARY: "true",
        **{f"nginx.ingress.kubernetes.io/{name}": value for name, value in annotations.items()},
    }
    with pytest.raises(Refusal, match=words):
        choose_routes(obj, CANARY_TARGET)


def test_a_canary_of_another_total_gets_all_of_it() -> None:
    """A weight of 1000 in 1000."""
    obj = number(describe_ingress(("a.example", "/")))
    obj["metadata"]["annotations"] = {CANARY: "true", "nginx.ingress.kubernetes.io/canary-weight-total": "1000"}
    assert choose_routes(obj, CANARY_TARGET._replace(canary_weight=1000))[CANARY_WEIGHT] == "1000"


@pytest.mark.parametrize(
    "text", ["{", '{"format": 9}', '{"format": 2, "operations": [{"operation": "switch", "spec": {}}]}']
)
def test_a_note_that_cannot_be_read_is_no_guess(text: str) -> None:
    """Neither way."""
    obj = number(describe_service("web", {"app": "page"}, annotations={TRAFFIC: text}))
    for change in (plan_away(obj, SERVICE, served=Served(ready=0), run_id="r", now=NOW), plan_back(obj, SERVICE)):
        assert change.write is None
        assert TRAFFIC in change.problem


def test_a_target_says_what_it_needs() -> None:
    """On the way back only its name."""
    assert parse_target({"kind": "Ingress", "name": "shop"}, is_away=False).to_service == ""
    with pytest.raises(Refusal, match="option targets, HTTPRoute shop: to_service or to_port is missing"):
        make({"kind": "HTTPRoute", "name": "shop", "to_service": "page"})


@pytest.mark.parametrize(
    ("target", "routes", "services", "is_complete"),
    [
        (SERVICE, {"selector": {"app": "web"}}, ("web",), True),
        (SERVICE, {}, (), True),
        (INGRESS, {"a": {"service": {"name": "web"}}, "b": {"service": {"name": "api"}}}, ("api", "web"), True),
        (INGRESS, {"a": {"service": {"name": "web"}}, "b": {"resource": {"kind": "Bucket"}}}, ("web",), False),
        (CANARY_TARGET, {CANARY_WEIGHT: None}, (), False),
        (ROUTE, {"[]": [{"name": "web"}, {"name": "old", "weight": 0}, {"name": "page"}]}, ("web",), True),
        (ROUTE, {"[]": [{"name": "web", "namespace": "n"}, {"name": "x", "namespace": "m"}]}, ("web",), False),
        (ROUTE, {"[]": [{"name": "bucket", "kind": "Bucket", "group": "g"}]}, (), False),
    ],
)
def test_which_services_get_the_requests(
    target: Target, routes: Json, services: tuple[str, ...], is_complete: bool
) -> None:
    """Beside the page's; and whether something else gets some too."""
    assert list_backends(target, routes, "n") == Backends(services, is_complete)


def test_pods_of_both_switches_are_saved() -> None:
    """When a person has switched it meanwhile, requests may be in flight in the pods of before and of after."""
    obj = describe_service("web", {"app": "web"}, uid="u")
    away = plan_away(obj, SERVICE, served=Served(("blue",), 1), run_id="r", now=NOW)
    assert away.served == Served(("blue",), 1)
    changed = apply(obj, away)
    changed["spec"]["selector"] = {"app": "green"}
    assert list_fresh(changed, SERVICE) == {"selector": {"app": "green"}}
    again = plan_away(changed, SERVICE, served=Served(("green",), 1, is_complete=False), run_id="r2", now=NOW)
    assert again.served == Served(("blue", "green"), 1, is_complete=False)
    saved = apply(changed, again)
    assert list_fresh(saved, SERVICE) == {}
    assert plan_away(saved, SERVICE, served=Served(), run_id="r3", now=NOW).served.pods == ("blue", "green")
