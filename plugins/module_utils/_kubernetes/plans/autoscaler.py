# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an HPA needs to be as declared, and to be again what it was: without I/O.

A declaration is compared by effect: what it does not name stays as it is, amounts are compared as amounts. What a
temporary change replaces is saved on the HPA in the same write, field by field, with what was put there; a field that
another client has changed since is not given back.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import typing as t

from ..._common.errors import Refusal
from ..fields import Json, as_dict, as_int, as_text, get_path
from ..patches import Write
from ..quantities import canonicalize_quantity
from ..saved_state import (
    AUTOSCALE,
    AUTOSCALER_BEFORE,
    BOUNDS,
    BOUNDS_BEFORE,
    SavedState,
    UnreadableSavedState,
    drop_state,
    find_state,
    save_state,
)
from ..temporary_ends import is_due

FIELDS = ("minReplicas", "maxReplicas", "metrics", "behavior")
"""The fields of an HPA's spec that can be declared, in the order in which they are told."""
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}
"""The field that has the source of a metric, by its type."""
_AMOUNTS = ("averageValue", "value")
_LONGEST_WINDOW = 3600
"""What the server takes for stabilizationWindowSeconds at most."""
_DIRECTIONS = ("scaleUp", "scaleDown")


class Declared(t.NamedTuple):
    """What an HPA is to be; None and absent keys: as it is.

    ``until`` is the end of a temporary change (RFC 3339, empty: none); ``saves`` says that what is replaced is saved.
    """

    values: dict[str, t.Any]
    until: str = ""
    saves: bool = False


class FieldChange(t.NamedTuple):
    """One field of the spec: its name, and its value before and after, None where there is none."""

    name: str
    before: t.Any
    after: t.Any


class HpaChange(t.NamedTuple):
    """What an HPA needs: a write (None: nothing), the fields that it changes, and why.

    ``left`` are fields that are not given back, since another client has changed them.
    """

    write: Write | None
    fields: tuple[FieldChange, ...] = ()
    why: str = "declared"
    left: tuple[str, ...] = ()

    @property
    def after(self) -> dict[str, t.Any]:
        """The changed fields as they will be."""
        return {change.name: change.after for change in self.fields}


def parse_declared(params: t.Mapping[str, t.Any]) -> Declared:
    """Return what the options declare. Raises Refusal for what an HPA does not have, or cannot be meant."""
    if params["scale_down_utilisation"] is not None:
        raise Refusal(
            obj="option scale_down_utilisation",
            problem=(
                f"it is {params['scale_down_utilisation']}, and an HPA has no separate threshold for scaling down: it"
                " goes down when its metrics have asked for fewer replicas for some time"
            ),
            next_step=(
                "Remove it, and declare that time as behavior.scaleDown.stabilizationWindowSeconds (in seconds) and how"
                " fast it goes down as behavior.scaleDown.policies"
            ),
        )
    values: dict[str, t.Any] = {}
    for name, option in (("minReplicas", "min_replicas"), ("maxReplicas", "max_replicas")):
        if params[option] is not None:
            values[name] = _check_bound(option, params[option])
    if params["metrics"] is not None:
        values["metrics"] = _read_metrics(params["metrics"])
    if params["behavior"] is not None:
        values["behavior"] = _read_behavior(params["behavior"])
    return Declared(values, params["until"] or "", bool(params["until"]) or params["save_before"])


def _check_bound(option: str, value: int) -> int:
    if value < 1:
        raise Refusal(
            obj=f"option {option}",
            problem=f"it is {value}, which is less than 1",
            next_step="Set it to 1 or more; KEDA scales to 0, and k8s_workload stops a workload",
        )
    return value


def _read_metrics(metrics: t.Sequence[t.Any]) -> list[Json]:
    if not metrics:
        raise Refusal(
            obj="option metrics",
            problem="it is empty, for which the server sets 80 % of the requested CPU",
            next_step="Name the metrics, or leave the option out to keep those that there are",
        )
    return [_read_metric(metric, f"option metrics, entry {number}") for number, metric in enumerate(metrics, 1)]


def _read_metric(metric: t.Any, where: str) -> Json:
    kind = get_path(metric, "type")
    source = _SOURCES.get(kind) if isinstance(kind, str) else None
    if source is None:
        raise Refusal(
            obj=where,
            problem=f"its type is {kind!r}",
            next_step=f"Write it as in autoscaling/v2, with one of the types {', '.join(_SOURCES)}",
        )
    target = get_path(metric, source, "target")
    if not isinstance(target, dict) or not target.get("type"):
        raise Refusal(
            obj=where,
            problem=f"its {source}.target is {target!r}, which says no value to keep",
            next_step=f"Give {source}.target its type and value, such as type Utilization and averageUtilization 70",
        )
    return _canonicalize_metric(metric, source, where)


def _canonicalize_metric(metric: Json, source: str, where: str) -> Json:
    """Return a metric as the server would write it."""
    body = as_dict(metric.get(source))
    target = dict(as_dict(body.get("target")))
    for name in _AMOUNTS:
        if name in target:
            target[name] = _read_amount(target[name], where, f"{source}.target.{name}")
    if "averageUtilization" in target:
        target["averageUtilization"] = _read_number(target["averageUtilization"], f"{where}, averageUtilization")
    return {**metric, source: {**body, "target": target}}


def _read_amount(value: t.Any, where: str, field: str) -> str:
    """Return an amount as the server would write it."""
    try:
        return canonicalize_quantity(value)
    except ValueError as error:
        raise Refusal(
            obj=where,
            problem=f"its {field} is {value!r}",
            next_step="Write an amount as Kubernetes does, such as 30, 500m or 2Gi",
        ) from error


def _read_number(value: t.Any, where: str) -> int:
    """Return a number from itself or its decimal text, which templates make of numbers."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Refusal(obj=where, problem=f"it is {value!r}", next_step="Set it to a whole number of 0 or more")
    return value


def _read_behavior(behavior: t.Mapping[str, t.Any]) -> Json:
    unknown = sorted(set(behavior) - set(_DIRECTIONS))
    if unknown or not behavior:
        raise Refusal(
            obj="option behavior",
            problem=f"it has {', '.join(unknown) or 'nothing in it'}",
            next_step="Write it as in autoscaling/v2, with scaleUp, scaleDown or both",
        )
    return {direction: _read_rules(rules, f"option behavior.{direction}") for direction, rules in behavior.items()}


def _read_rules(rules: t.Any, where: str) -> Json:
    known = ("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance")
    if not isinstance(rules, dict) or not rules or set(rules) - set(known):
        raise Refusal(
            obj=where,
            problem=f"it is {rules!r}",
            next_step=f"Write it as in autoscaling/v2, with any of {', '.join(known)}",
        )
    result = dict(rules)
    if "stabilizationWindowSeconds" in rules:
        name = f"{where}.stabilizationWindowSeconds"
        seconds = result["stabilizationWindowSeconds"] = _read_number(rules["stabilizationWindowSeconds"], name)
        if seconds > _LONGEST_WINDOW:
            raise Refusal(
                obj=name, problem=f"it is {seconds} s", next_step=f"Set it to at most {_LONGEST_WINDOW} s (an hour)"
            )
    if rules.get("tolerance") is not None:
        result["tolerance"] = _read_amount(rules["tolerance"], where, "tolerance")
    if "policies" in rules:
        result["policies"] = [_read_policy(policy, f"{where}.policies") for policy in rules["policies"]]
    return result


def _read_policy(policy: t.Any, where: str) -> Json:
    if not isinstance(policy, dict) or policy.get("type") not in ("Pods", "Percent"):
        raise Refusal(
            obj=where,
            problem=f"an entry of it is {policy!r}",
            next_step="Give each the type Pods or Percent, a value and periodSeconds",
        )
    numbers = {name: _read_number(policy.get(name), f"{where}, {name}") for name in ("value", "periodSeconds")}
    return {**policy, **numbers}


def check_bounds(values: t.Mapping[str, t.Any], title: str) -> None:
    """Refuse a minimum above the maximum, by the values that an HPA will have."""
    minimum, maximum = as_int(values.get("minReplicas"), 1), as_int(values.get("maxReplicas"), 1)
    if minimum > maximum:
        raise Refusal(
            obj=title,
            problem=f"its minReplicas would be {minimum} and its maxReplicas {maximum}",
            next_step="Declare both, with min_replicas at most max_replicas",
        )


def build_hpa(declared: Declared, *, namespace: str, name: str, target: Json) -> Json:
    """Return a new HPA. Raises Refusal where the declaration is not enough for one."""
    title = f"HorizontalPodAutoscaler {namespace}/{name}"
    missing = [
        option
        for option, field in (("max_replicas", "maxReplicas"), ("metrics", "metrics"))
        if field not in declared.values
    ]
    if missing:
        raise Refusal(
            obj=title,
            problem=f"it does not exist, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not declared",
            next_step=f"Correct name, or declare {' and '.join(missing)} so that it can be made",
        )
    if declared.saves:
        raise Refusal(
            obj=title,
            problem="it does not exist, so that there is nothing that could be given back later",
            next_step="Leave until and save_before out to make it for good",
        )
    check_bounds(declared.values, title)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, **declared.values},
    }


def plan_present(hpa: Json, declared: Declared, *, run_id: str, now: str) -> HpaChange:
    """Plan what makes an HPA as declared, and save what a temporary change replaces; None where it is so."""
    spec = as_dict(hpa.get("spec"))
    check_bounds({**spec, **declared.values}, _make_title(hpa))
    fields = [
        FieldChange(name, spec.get(name), _merge(spec.get(name), value))
        for name, value in declared.values.items()
        if not covers(spec.get(name), value)
    ]
    saved = find_saved(hpa)
    annotations = _plan_note(hpa, declared, fields, saved, run_id=run_id, now=now)
    if not declared.saves and {"minReplicas", "maxReplicas"} & set(declared.values):
        annotations |= drop_state(_get_annotations(hpa), BOUNDS_BEFORE, BOUNDS)
    why = f"declared, until {declared.until}" if declared.until else "declared"
    return _make_change(fields, {name: declared.values[name] for name, _b, _a in fields}, annotations, why)


def _plan_note(
    hpa: Json,
    declared: Declared,
    fields: t.Sequence[FieldChange],
    saved: SavedState | None,
    *,
    run_id: str,
    now: str,
) -> dict[str, str | None]:
    """Plan what is saved on the HPA: what a temporary change replaces; what is declared for good is forgotten."""
    spec = as_dict(hpa.get("spec"))
    annotations = _get_annotations(hpa)
    before = dict(as_dict(saved.spec.get("before"))) if saved is not None else {}
    placed = dict(as_dict(saved.spec.get("set"))) if saved is not None else {}
    if declared.saves:
        for change in fields:
            if change.name not in before or not covers(spec.get(change.name), placed.get(change.name)):
                before[change.name] = change.before
            placed[change.name] = change.after
        until = declared.until
    else:
        before = {name: value for name, value in before.items() if name not in declared.values}
        placed = {name: value for name, value in placed.items() if name in before}
        until = as_text(saved.spec.get("until")) if saved is not None else ""
    if not before:
        return drop_state(annotations, AUTOSCALER_BEFORE, AUTOSCALE)
    note = {"before": before, "set": placed, "until": until}
    if saved is not None and saved.spec == note:
        return {}
    return save_state(annotations, AUTOSCALER_BEFORE, SavedState(note, run_id, now, operation=AUTOSCALE))


def plan_takeback(hpa: Json, *, due_at: float | None, only_windows: bool = False) -> HpaChange:
    """Plan to give back what a temporary change replaced; with ``due_at`` only where its end has come by then.

    With ``only_windows`` what a run that is no window has changed stays.
    """
    saved = find_saved(hpa)
    if saved is None:
        return HpaChange(None, why="nothing was saved on it")
    if only_windows and not saved.is_of_window:
        return HpaChange(None, why=f"run {saved.run_id}, which is no window, changed it for a time at {saved.at}")
    until = as_text(saved.spec.get("until"))
    if due_at is not None and not is_due(until, due_at):
        return HpaChange(
            None, why=f"its temporary change ends at {until}" if until else "its temporary change has no end"
        )
    spec = as_dict(hpa.get("spec"))
    placed = as_dict(saved.spec.get("set"))
    before = as_dict(saved.spec.get("before"))
    names = [name for name in FIELDS if name in before]
    left = tuple(name for name in names if not covers(spec.get(name), placed.get(name)))
    fields = [FieldChange(name, spec.get(name), before[name]) for name in names if name not in left]
    check_bounds({**spec, **{name: after for name, _b, after in fields}}, _make_title(hpa))
    annotations = drop_state(_get_annotations(hpa), AUTOSCALER_BEFORE, AUTOSCALE)
    why = f"as it was before run {saved.run_id} at {saved.at}"
    body = {name: _replace(now, after) for name, now, after in fields}
    return _make_change(fields, body, annotations, why)._replace(left=left)


def find_saved(hpa: Json) -> SavedState | None:
    """Return what a temporary change saved on an HPA; None where there is none. Raises Refusal where it is unreadable."""
    try:
        return find_state(_get_annotations(hpa), AUTOSCALER_BEFORE, AUTOSCALE)
    except UnreadableSavedState as error:
        raise Refusal(
            obj=_make_title(hpa),
            problem=str(error),
            next_step=f"Set its fields as they should be and remove its annotation {AUTOSCALER_BEFORE}",
        ) from error


def _make_change(
    fields: t.Sequence[FieldChange], body: Json, annotations: t.Mapping[str, str | None], why: str
) -> HpaChange:
    if not fields and not annotations:
        return HpaChange(None)
    patch: Json = {}
    if annotations:
        patch["metadata"] = {"annotations": dict(annotations)}
    if fields:
        patch["spec"] = body
    depends_on = [("spec", name) for name in FIELDS] + [("metadata", "annotations", key) for key in annotations]
    order = sorted(fields, key=lambda change: FIELDS.index(change.name))
    return HpaChange(Write(patch, tuple(depends_on)), tuple(order), why)


def _make_title(hpa: Json) -> str:
    metadata = as_dict(hpa.get("metadata"))
    return f"HorizontalPodAutoscaler {as_text(metadata.get('namespace'))}/{as_text(metadata.get('name'))}"


def _get_annotations(hpa: Json) -> Json:
    return as_dict(get_path(hpa, "metadata", "annotations"))


def covers(value: t.Any, declared: t.Any) -> bool:
    """Return whether a value has all that is declared; what it has beside that, such as defaults, does not count.

    Metrics are matched by their source, since servers before 1.28 give them back in another order.
    """
    if isinstance(declared, dict):
        return isinstance(value, dict) and all(covers(value.get(key), part) for key, part in declared.items())
    if isinstance(declared, list):
        is_alike = isinstance(value, list) and len(value) == len(declared)
        return is_alike and all(
            covers(part, other)
            for part, other in zip(sorted(value, key=_identify), sorted(declared, key=_identify), strict=True)
        )
    return bool(value == declared)


def _identify(entry: t.Any) -> str:
    """Return what tells a metric from others: type, name, selector and object; "" for what is none and keeps its place."""
    kind = as_text(get_path(entry, "type"))
    if kind not in _SOURCES or _SOURCES[kind] not in entry:  # policies have a type Pods too
        return ""
    source = as_dict(entry.get(_SOURCES[kind]))
    return json.dumps([kind, {name: part for name, part in source.items() if name != "target"}], sort_keys=True)


def _merge(value: t.Any, declared: t.Any) -> t.Any:
    """Return what a merge patch makes of a value."""
    if not isinstance(declared, dict):
        return declared
    return {**as_dict(value), **{key: _merge(as_dict(value).get(key), part) for key, part in declared.items()}}


def _replace(value: t.Any, goal: t.Any) -> t.Any:
    """Return the merge patch that makes ``goal`` of a value: what it has more is removed."""
    if not isinstance(value, dict) or not isinstance(goal, dict):
        return goal
    return {
        **dict.fromkeys(set(value) - set(goal)),
        **{key: _replace(value.get(key), part) for key, part in goal.items()},
    }


def describe_change(change: FieldChange) -> str:
    """Return in words what becomes of a field."""
    if change.name == "metrics":
        return f"metrics {_describe_metrics(change.before)} -> {_describe_metrics(change.after)}"
    if change.name == "behavior":
        before, after = dict(_list_leaves(change.before)), dict(_list_leaves(change.after))
        names = sorted({name for name in {**before, **after} if before.get(name) != after.get(name)})
        parts = [f"{name} {before.get(name, 'default')} -> {after.get(name, 'default')}" for name in names]
        return f"behavior {', '.join(parts)}"
    return f"{change.name} {change.before} -> {change.after}"


def _describe_metrics(metrics: t.Any) -> str:
    return " and ".join(describe_metric(metric) for metric in metrics or []) or "none"


def describe_metric(metric: Json) -> str:
    """Return a metric in words: ``cpu 80 %``, ``External queue_length AverageValue 30``."""
    kind = as_text(metric.get("type"))
    source = as_dict(metric.get(_SOURCES.get(kind, "")))
    target = as_dict(source.get("target"))
    if "averageUtilization" in target:
        amount = f"{target['averageUtilization']} %"
    else:
        amount = " ".join(f"{name} {target[name]}" for name in _AMOUNTS if name in target)
    container = [f"container {source['container']}"] if source.get("container") else []
    name = as_text(source.get("name") or get_path(source, "metric", "name"))
    named = [name] if kind in ("Resource", "ContainerResource") else [kind, name]
    return " ".join([*container, *named, amount])


def _list_leaves(value: t.Any, path: str = "") -> t.Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _list_leaves(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        yield path, "[" + "; ".join(_describe_policy(entry) for entry in value) + "]"
    elif value is not None:
        yield path, str(value)


def _describe_policy(policy: t.Any) -> str:
    policy = as_dict(policy)
    unit = " %" if policy.get("type") == "Percent" else " pods"
    return f"{policy.get('value')}{unit} in {policy.get('periodSeconds')} s"


def summarize_autoscaler(
    title: str, change: HpaChange, *, bounds: tuple[int, int], is_new: bool, check_mode: bool, done: bool
) -> str:
    """Return one line for k8s_autoscaler; ``done`` says that it was written and that its target serves within it."""
    words = ", ".join(describe_change(field) for field in change.fields)
    left = f"; left, as another client has changed it since: {', '.join(change.left)}" if change.left else ""
    if is_new:
        verb = "would make" if check_mode else "made"
        return f"{verb} {title} ({bounds[0]} to {bounds[1]} replicas)"
    if not change.fields:
        rest = (
            f"; {'would change' if check_mode else 'changed'} what is saved on it" if change.write is not None else ""
        )
        reason = "as declared" if change.why.startswith("declared") else change.why
        return f"{title} is unchanged ({reason}){rest}{left}"
    if check_mode:
        return f"would set {words} of {title} ({change.why}){left}"
    if not done:
        return f"{title} is not in force yet: {words} ({change.why}){left}"
    return f"set {words} of {title} ({change.why}){left}"
