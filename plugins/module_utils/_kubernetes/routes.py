# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a Service, an Ingress or an HTTPRoute sends requests, as a flat mapping of routes that can be set one by one.

``read_routes`` and ``build_body`` belong together: what the first reads, the second writes as a merge patch. A route is
identified by what it matches and never by its place in a list, so that others may add rules meanwhile.

Private to lowtide.ops: do not import from other collections.

Sources: Gateway API v1 (HTTPRouteSpec), ingress-nginx "Annotations" (canary).
"""

from __future__ import annotations

import copy
import json
import typing as t

from .._common.errors import Refusal
from .fields import Json, as_dict, as_list, as_text, get_path

KINDS = ("Service", "Ingress", "HTTPRoute")
SELECTOR = "selector"
DEFAULT_BACKEND = "default backend"
CANARY = "nginx.ingress.kubernetes.io/canary"
CANARY_WEIGHT = "nginx.ingress.kubernetes.io/canary-weight"
CANARY_TOTAL = "nginx.ingress.kubernetes.io/canary-weight-total"
_CANARY_CHOICES = tuple(
    f"nginx.ingress.kubernetes.io/canary-by-{name}" for name in ("header", "header-value", "header-pattern", "cookie")
)
"""Annotations by which the request itself chooses: they come before the weight."""
_DEFAULT_TOTAL = 100
NO_PODS = {"lowtide.ops/traffic": "none"}
"""A selector that no pod has. Without any selector, Kubernetes would leave the addresses as they are."""

Routes = dict[str, t.Any]
"""What a route is set to, by its key; None where it is not set."""


class Target(t.NamedTuple):
    """An object whose routes are switched, and to what.

    A Service gets ``selector``; an Ingress or an HTTPRoute ``to_service`` and ``to_port``, of an Ingress only for
    ``hosts`` and ``paths`` where they are given; an Ingress that is nginx's canary ``canary_weight``.
    """

    kind: str
    name: str
    selector: dict[str, str]
    to_service: str
    to_port: int
    hosts: tuple[str, ...]
    paths: tuple[str, ...]
    canary_weight: int | None

    @property
    def key(self) -> str:
        """Kind/name, unique in a namespace."""
        return f"{self.kind}/{self.name}"

    @property
    def is_canary(self) -> bool:
        """Whether weights of nginx decide."""
        return self.canary_weight is not None

    @property
    def goal(self) -> str:
        """Where the requests go in maintenance, for messages."""
        if self.kind == "Service":
            return "no pods" if self.selector == NO_PODS else f"pods with {format_labels(self.selector)}"
        if self.is_canary:
            return f"the canary ({self.canary_weight} %)"
        return f"Service {self.to_service}:{self.to_port}"

    @property
    def field(self) -> tuple[str, ...]:
        """The field of the object that is set, as far as who owns it can be told."""
        if self.is_canary:
            return ("metadata", "annotations", CANARY_WEIGHT)
        return ("spec", "selector") if self.kind == "Service" else ("spec", "rules")


def parse_target(entry: t.Mapping[str, t.Any], *, is_away: bool) -> Target:
    """Return an entry of the option targets. Raises Refusal where it lacks what its kind needs or has what it cannot."""
    kind, name = str(entry["kind"]), str(entry["name"])
    selector = entry.get("selector")
    to_service, to_port = entry.get("to_service") or "", entry.get("to_port") or 0
    weight = entry.get("canary_weight")
    hosts, paths = tuple(entry.get("hosts") or ()), tuple(entry.get("paths") or ())
    problem = _find_problem(kind, entry, is_away=is_away)
    if problem:
        raise Refusal(
            obj=f"option targets, {kind} {name}",
            problem=problem,
            next_step="A Service takes selector; an Ingress to_service and to_port, or canary_weight; an HTTPRoute"
            " to_service and to_port",
        )
    labels = {str(key): str(value) for key, value in (selector or NO_PODS).items()}
    return Target(kind, name, labels, str(to_service), int(to_port), hosts, paths, weight)


def _find_problem(kind: str, entry: t.Mapping[str, t.Any], *, is_away: bool) -> str:
    given = {key for key in ("selector", "to_service", "to_port", "hosts", "paths") if entry.get(key)}
    given |= {"canary_weight"} if entry.get("canary_weight") is not None else set()
    allowed = {
        "Service": {"selector"},
        "Ingress": {"to_service", "to_port", "hosts", "paths", "canary_weight"},
        "HTTPRoute": {"to_service", "to_port"},
    }[kind]
    foreign = sorted(given - allowed)
    if foreign:
        return f"{', '.join(foreign)} is not for this kind"
    if "canary_weight" in given:
        weight = entry["canary_weight"]
        if given != {"canary_weight"}:
            return f"canary_weight is given together with {', '.join(sorted(given - {'canary_weight'}))}"
        return "" if weight >= 0 else f"canary_weight is {weight}, which is below 0"
    if is_away and kind != "Service" and not {"to_service", "to_port"} <= given:
        return "to_service or to_port is missing"
    return ""


def format_labels(labels: t.Mapping[str, str]) -> str:
    """Return labels as kubectl writes them: ``app=web,tier=front``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def read_routes(obj: Json, kind: str) -> Routes:
    """Return every route of an object, by its key."""
    spec = as_dict(obj.get("spec"))
    if kind == "Service":
        return {SELECTOR: spec.get("selector")}
    if kind == "HTTPRoute":
        return {key: rule.get("backendRefs") for key, rule in _list_rules(spec) if rule.get("backendRefs")}
    annotations = as_dict(get_path(obj, "metadata", "annotations"))
    routes: Routes = {key: annotations.get(key) for key in (CANARY, CANARY_WEIGHT)}
    if spec.get("defaultBackend"):
        routes[DEFAULT_BACKEND] = spec["defaultBackend"]
    return {**routes, **{key: path.get("backend") for key, _rule, path in _list_paths(spec)}}


def _list_paths(spec: Json) -> list[tuple[str, Json, Json]]:
    """Return each path of an Ingress with its key and its rule. Of two equal ones only the first ever counts."""
    paths: dict[str, tuple[str, Json, Json]] = {}
    for rule in as_list(spec.get("rules")):
        for path in as_list(get_path(rule, "http", "paths")):
            key = f"{rule.get('host') or '*'} {path.get('pathType') or ''} {path.get('path') or '/'}"
            paths.setdefault(key, (key, rule, path))
    return list(paths.values())


def _list_rules(spec: Json) -> list[tuple[str, Json]]:
    """Return each rule of an HTTPRoute with its key: what it matches."""
    rules: dict[str, Json] = {}
    for rule in as_list(spec.get("rules")):
        rules.setdefault(json.dumps(rule.get("matches") or [], sort_keys=True), rule)
    return list(rules.items())


def choose_routes(obj: Json, target: Target) -> Routes:
    """Return what the target's routes are to be set to in maintenance. Raises Refusal where it has none of these."""
    if target.kind == "Service":
        _refuse_without_selector(obj, target)
        return {SELECTOR: dict(target.selector)}
    if target.is_canary:
        _check_canary(obj, target)
        return {CANARY: "true", CANARY_WEIGHT: str(target.canary_weight)}
    spec = as_dict(obj.get("spec"))
    if target.kind == "HTTPRoute":
        routes: Routes = {key: _shift_weights(refs, target) for key, refs in read_routes(obj, target.kind).items()}
    else:
        backend = {"service": {"name": target.to_service, "port": {"number": target.to_port}}}
        routes = {key: backend for key, rule, path in _list_paths(spec) if _is_chosen(rule, path, target)}
        if spec.get("defaultBackend") and not target.hosts and not target.paths:
            routes[DEFAULT_BACKEND] = backend
    if not routes:
        hosts = sorted({as_text(rule.get("host")) or "*" for rule in as_list(spec.get("rules"))})
        raise Refusal(
            obj=f"{target.kind} {target.name}",
            problem=f"it has no backend for hosts {list(target.hosts) or 'any'} and paths {list(target.paths) or 'any'};"
            f" its hosts are {', '.join(hosts) or 'none'}",
            next_step="Correct hosts and paths",
        )
    return routes


def _check_canary(obj: Json, target: Target) -> None:
    """Refuse a canary whose weight does not decide alone, or is more than its total."""
    annotations = as_dict(get_path(obj, "metadata", "annotations"))
    choices = [name for name in _CANARY_CHOICES if annotations.get(name)]
    if choices:
        raise Refusal(
            obj=f"Ingress {target.name}",
            problem=f"it has {' and '.join(choices)}, which come before the weight: requests with such a header or cookie"
            " would still go to the application",
            next_step=f"Remove {' and '.join(choices)} from it, or switch the backends of the main Ingress with to_service"
            " and to_port",
        )
    text = as_text(annotations.get(CANARY_TOTAL))
    total = int(text) if text.isascii() and text.isdigit() and int(text) > 0 else _DEFAULT_TOTAL
    if target.canary_weight is not None and target.canary_weight > total:
        raise Refusal(
            obj=f"Ingress {target.name}",
            problem=f"canary_weight is {target.canary_weight}, above its total of {total} ({CANARY_TOTAL})",
            next_step=f"Set canary_weight to {total} to send every request to the page",
        )
    if target.canary_weight == _DEFAULT_TOTAL < total:
        raise Refusal(
            obj=f"Ingress {target.name}",
            problem=f"canary_weight is {_DEFAULT_TOTAL} of a total of {total} ({CANARY_TOTAL}), so that the other"
            " requests still go to the application",
            next_step=f"Set canary_weight to {total} to send every request to the page",
        )


def _refuse_without_selector(obj: Json, target: Target) -> None:
    """Refuse a Service whose addresses somebody else sets."""
    if not get_path(obj, "spec", "selector"):
        raise Refusal(
            obj=f"Service {target.name}",
            problem=f"it has no selector (type {as_text(get_path(obj, 'spec', 'type')) or 'ClusterIP'}), so its"
            " addresses are not those of pods that it selects",
            next_step="Switch what sends requests to it, such as an Ingress",
        )


def _is_chosen(rule: Json, path: Json, target: Target) -> bool:
    host = as_text(rule.get("host")) or "*"
    is_host = not target.hosts or host in target.hosts
    return is_host and (not target.paths or (as_text(path.get("path")) or "/") in target.paths)


def _shift_weights(references: t.Any, target: Target) -> list[Json]:
    """Return backendRefs with all weight on the maintenance Service, each default written out as the server does."""
    page = {"group": "", "kind": "Service", "name": target.to_service, "port": target.to_port, "weight": 1}
    others = [{**ref, "weight": 0} for ref in as_list(references) if not _is_page(ref, target)]
    return [*others, page]


def _is_page(reference: Json, target: Target) -> bool:
    return (reference.get("name"), reference.get("port")) == (target.to_service, target.to_port)


def list_page_services(obj: Json, target: Target) -> list[str]:
    """Return the Services that must have a page to show before requests go there."""
    if not target.is_canary:
        return [target.to_service] if target.to_service else []
    backends = [route for key, route in read_routes(obj, target.kind).items() if key not in (CANARY, CANARY_WEIGHT)]
    names = [as_text(get_path(backend, "service", "name")) for backend in backends]
    return sorted({name for name in names if name})


class Backends(t.NamedTuple):
    """The Services whose pods get the requests of routes; ``is_complete`` is False where something else does too."""

    services: tuple[str, ...]
    is_complete: bool


def list_backends(target: Target, routes: Routes, namespace: str) -> Backends:
    """Return which Services get the requests of these routes of a target, as they are set, beside the page's."""
    if target.kind == "Service":
        return Backends((target.name,) if routes else (), is_complete=True)
    names: list[str] = []
    for key, route in routes.items():
        if key in (CANARY, CANARY_WEIGHT):  # the requests come from another Ingress, which is not named
            names.append("")
        elif isinstance(route, list):
            names += [_name_service(ref, namespace) for ref in as_list(route) if ref.get("weight", 1) != 0]
        else:
            names.append(as_text(get_path(route or {}, "service", "name")))
    return Backends(tuple(sorted({name for name in names if name} - {target.to_service})), is_complete=all(names))


def _name_service(reference: Json, namespace: str) -> str:
    """Return the Service of a backendRef; empty where it is something else, or of another namespace."""
    is_service = (reference.get("kind") or "Service") == "Service" and not reference.get("group")
    is_here = (reference.get("namespace") or namespace) == namespace
    return as_text(reference.get("name")) if is_service and is_here else ""


def list_paths(kind: str, routes: t.Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the fields that a change of these routes is decided about."""
    keys = set(routes)
    paths: list[tuple[str, ...]] = [("metadata", "annotations", key) for key in sorted(keys & {CANARY, CANARY_WEIGHT})]
    if SELECTOR in keys:
        paths.append(("spec", "selector"))
    if DEFAULT_BACKEND in keys:
        paths.append(("spec", "defaultBackend"))
    if kind != "Service" and keys - {CANARY, CANARY_WEIGHT, DEFAULT_BACKEND}:
        paths.append(("spec", "rules"))
    return tuple(paths)


def build_body(obj: Json, kind: str, routes: Routes) -> Json:
    """Return the merge patch that sets these routes of an object, and nothing else of it."""
    spec: Json = {}
    annotations = {key: routes[key] for key in (CANARY, CANARY_WEIGHT) if key in routes}
    if SELECTOR in routes:
        spec["selector"] = _replace(get_path(obj, "spec", "selector"), routes[SELECTOR])
    if DEFAULT_BACKEND in routes:
        spec["defaultBackend"] = _replace(get_path(obj, "spec", "defaultBackend"), routes[DEFAULT_BACKEND])
    rules = copy.deepcopy(as_list(get_path(obj, "spec", "rules")))
    changed = _set_rules(kind, rules, routes)
    body: Json = {"spec": {**spec, **({"rules": rules} if changed else {})}} if spec or changed else {}
    return {**body, "metadata": {"annotations": annotations}} if annotations else body


def _set_rules(kind: str, rules: list[Json], routes: Routes) -> bool:
    """Set the routes that are in rules, in place; return whether there was one."""
    if kind == "Service":
        return False
    spec = {"rules": rules}
    entries: list[tuple[str, Json]] = (
        _list_rules(spec) if kind == "HTTPRoute" else [(key, path) for key, _rule, path in _list_paths(spec)]
    )
    chosen = [(key, entry) for key, entry in entries if key in routes]
    for key, entry in chosen:
        entry["backendRefs" if kind == "HTTPRoute" else "backend"] = copy.deepcopy(routes[key])
    return bool(chosen)


def _replace(present: t.Any, value: t.Any) -> t.Any:
    """Return the merge patch that makes ``value`` of ``present``: keys that are to go are null."""
    if not isinstance(value, dict) or not isinstance(present, dict):
        return value
    gone: Json = dict.fromkeys(present.keys() - value.keys())
    return {**gone, **{key: _replace(present.get(key), item) for key, item in value.items()}}
