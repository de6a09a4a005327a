# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was there before is saved in annotations of the object itself, and whether it still counts.

An annotation holds a list of operations (format 2), newest last::

    {"format": 2, "operations": [{"operation": "stop", "run": "...", "at": "...", "generation": 7,
                                  "spec": {"replicas": 3}}]}

Format 1, ``{"format": 1, "run": "...", "at": "...", "replicas": 3}``, is one operation and is still read.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import typing as t

STOPPED = "lowtide.ops/stopped"
"""On a workload: what it had when it was stopped."""
BOUNDS_BEFORE = "lowtide.ops/bounds-before"
"""On an autoscaler: the bounds that it had before they were set to one number."""
PAUSED_BY = "lowtide.ops/paused-by"
"""On a ScaledObject: which run paused it, and what its annotation was before."""

TAKEN_FROM = "lowtide.ops/replicas-taken-from"
"""On a workload: the GitOps tool that owned its replicas before this collection set them. It stays after a start."""

AUTOSCALER_BEFORE = "lowtide.ops/autoscaler-before"
"""On an HPA: what a temporary change of it replaced, and what it put there."""
ROLLED_OUT = "lowtide.ops/rollout"
"""On a workload: what a rollout replaced and where it stands, and the temporary changes of its template."""
TRAFFIC = "lowtide.ops/traffic"
"""On a Service, Ingress or HTTPRoute: where its requests went before they were sent to the maintenance page."""

FORMAT = 2
MANAGER = "lowtide.ops"
"""The field manager of every write; format 1 was written as ``lowtide.ops/RUN``."""
AUTOSCALER_MANAGERS = frozenset({"keda", "keda-operator", "kube-controller-manager", "horizontal-pod-autoscaler"})
"""Managers under which autoscalers set replicas: what they do is no person's change."""

STOP = "stop"
BOUNDS = "bounds"
PAUSE = "pause"
TAKE = "take"
AUTOSCALE = "autoscale"
ROLL_OUT = "rollout"
TEMPORARY = "temporary"
SWITCH = "switch"
_OPERATION_OF_KEY = {STOPPED: STOP, BOUNDS_BEFORE: BOUNDS, PAUSED_BY: PAUSE, TAKEN_FROM: TAKE}
_SUSPENDED_KINDS = ("CronJob", "Job")
VOLUME_POLICY = ("spec", "persistentVolumeClaimRetentionPolicy")
"""The field of a StatefulSet that says whether fewer replicas delete volume claims."""


class SavedState(t.NamedTuple):
    """What an operation saved before it changed the object.

    ``spec`` is what to restore: {"replicas": n}, {"suspend": bool}, an autoscaler's bounds. ``at`` is RFC 3339.
    ``generation`` is the object's metadata.generation with that change in it, 0 where it is not known (format 1).
    """

    spec: dict[str, t.Any]
    run_id: str
    at: str
    generation: int = 0
    operation: str = STOP

    @property
    def is_of_window(self) -> bool:
        """Whether a window's run saved it."""
        return is_window(self.run_id)

    @property
    def replicas(self) -> int | None:
        """How many replicas were saved: 0 or 1 for what can be suspended; None when nothing usable was saved."""
        suspend, replicas = self.spec.get("suspend"), self.spec.get("replicas")
        if isinstance(suspend, bool):
            return 0 if suspend else 1
        if isinstance(replicas, int) and not isinstance(replicas, bool) and replicas >= 0:
            return replicas
        return None

    def as_dict(self) -> dict[str, t.Any]:
        """Return the entry of an annotation."""
        return {
            "operation": self.operation,
            "run": self.run_id,
            "at": self.at,
            "generation": self.generation,
            "spec": self.spec,
        }


def is_window(run_id: str) -> bool:
    """Return whether a run's name is that of a window's occurrence, NAME@START."""
    return "@" in run_id


class UnreadableSavedState(ValueError):
    """An annotation of ours whose text or format is not understood."""


Annotations = t.Mapping[str, t.Any]


def read_states(annotations: Annotations, key: str) -> list[SavedState]:
    """Return everything that is saved under ``key``, oldest first. Raise UnreadableSavedState."""
    text = annotations.get(key)
    if text is None:
        return []
    try:
        document = json.loads(text)
    except (TypeError, ValueError) as error:
        raise UnreadableSavedState(f"annotation {key} is not JSON: {text!r}") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version == 1:
        return [_read_format_1(document, key)]
    operations = document.get("operations") if version == FORMAT else None
    if not isinstance(operations, list):
        raise UnreadableSavedState(f"annotation {key} is not of format 1 or {FORMAT}: {text!r}")
    return [_read_entry(entry, key, text) for entry in operations]


def _read_format_1(document: dict[str, t.Any], key: str) -> SavedState:
    spec = {name: value for name, value in document.items() if name not in ("format", "run", "at")}
    operation = PAUSE if "paused" in spec else _OPERATION_OF_KEY.get(key, STOP)
    return SavedState(spec, str(document.get("run", "")), str(document.get("at", "")), operation=operation)


def _read_entry(entry: t.Any, key: str, text: str) -> SavedState:
    if not isinstance(entry, dict) or not isinstance(entry.get("spec"), dict) or not entry.get("operation"):
        raise UnreadableSavedState(f"annotation {key} has an operation that is not understood: {text!r}")
    generation = entry.get("generation")
    return SavedState(
        spec=entry["spec"],
        run_id=str(entry.get("run", "")),
        at=str(entry.get("at", "")),
        generation=generation if isinstance(generation, int) else 0,
        operation=str(entry["operation"]),
    )


def find_state(annotations: Annotations, key: str, operation: str) -> SavedState | None:
    """Return what the operation saved under ``key``, None when there is nothing. Raise UnreadableSavedState."""
    return next((state for state in read_states(annotations, key) if state.operation == operation), None)


def save_state(annotations: Annotations, key: str, state: SavedState) -> dict[str, str | None]:
    """Return the annotation that has ``state`` in place of what its operation saved before, beside all others.

    One that cannot be read is replaced.
    """
    return {key: _encode([*_read_others(annotations, key, state.operation), state])}


def drop_state(annotations: Annotations, key: str, operation: str) -> dict[str, str | None]:
    """Return the annotation without what the operation saved: null when nothing else is in it, or it is unreadable."""
    if key not in annotations:
        return {}
    others = _read_others(annotations, key, operation)
    return {key: _encode(others) if others else None}


def _read_others(annotations: Annotations, key: str, operation: str) -> list[SavedState]:
    try:
        return [state for state in read_states(annotations, key) if state.operation != operation]
    except UnreadableSavedState:
        return []


def _encode(states: t.Sequence[SavedState]) -> str:
    return json.dumps({"format": FORMAT, "operations": [state.as_dict() for state in states]}, sort_keys=True)


def is_own_manager(manager: str) -> bool:
    """Return whether a field manager is this collection's, of this or an earlier release."""
    return manager == MANAGER or manager.startswith(f"{MANAGER}/")


class FieldOwner(t.NamedTuple):
    """Who set a field: the manager's name, and whether it applied or updated the object."""

    manager: str
    operation: str


def find_owners(obj: t.Mapping[str, t.Any], *path: str) -> list[FieldOwner] | None:
    """Return who owns a field by managedFields, several when they agree on its value.

    None where the object has no managedFields, so that nothing is known.
    """
    entries = (obj.get("metadata") or {}).get("managedFields")
    if not entries:
        return None
    owners: list[FieldOwner] = []
    for entry in entries:
        fields = entry.get("fieldsV1")
        for name in path:
            fields = fields.get(f"f:{name}") if isinstance(fields, dict) else None
        if fields is not None:
            owners.append(FieldOwner(str(entry.get("manager", "")), str(entry.get("operation", ""))))
    return owners


class _VolumePolicy(t.Protocol):
    @property
    def when_scaled(self) -> str: ...


class ScaledWorkload(t.Protocol):
    """The part of a workload that saved states are about."""

    @property
    def kind(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def replicas(self) -> int: ...
    @property
    def annotations(self) -> dict[str, t.Any]: ...
    @property
    def volume_policy(self) -> _VolumePolicy: ...
    @property
    def volume_claims(self) -> tuple[str, ...]: ...
    @property
    def raw(self) -> dict[str, t.Any]: ...


def get_scale_path(kind: str) -> tuple[str, str]:
    """Return the field that stops and starts a kind."""
    return ("spec", "suspend") if kind in _SUSPENDED_KINDS else ("spec", "replicas")


def list_scale_paths(kind: str) -> tuple[tuple[str, ...], ...]:
    """Return what a write of fewer replicas is decided about: the field itself, and what becomes of the claims."""
    policy = (VOLUME_POLICY,) if kind == "StatefulSet" else ()
    return (get_scale_path(kind), *policy)


def is_current(state: SavedState, workload: ScaledWorkload, *, pausing_runs: t.Collection[str] | None = None) -> bool:
    """Return whether nobody has set the replicas (or ``suspend``) of the workload since ``state`` was saved.

    The object is of the generation that it was saved for; or it has a later one, since something else was changed, and
    the field still belongs to this collection, or to an autoscaler that was paused with it. That counts no longer once
    somebody has resumed the autoscaler: it scales by itself since. ``pausing_runs`` are those whose pause is still there,
    None where that is not known. Where managedFields say nothing, the generation and that pause decide.
    """
    if state.generation and state.generation == workload.generation:
        return True
    owners = find_owners(workload.raw, *get_scale_path(workload.kind))
    if not owners:
        # A scale to 0 leaves the field without an owner. While the run's own pause is there, KEDA did it.
        return not state.generation or state.run_id in (pausing_runs or ())
    autoscalers = AUTOSCALER_MANAGERS if pausing_runs is None or state.run_id in pausing_runs else frozenset()
    return any(is_own_manager(owner.manager) or owner.manager in autoscalers for owner in owners)


class SavedStop(t.NamedTuple):
    """What a stop saved on a workload: ``state`` where it counts, ``stale`` where the workload was changed since.

    ``problem`` says why the annotation cannot be used, empty otherwise.
    """

    state: SavedState | None = None
    stale: SavedState | None = None
    problem: str = ""


def read_stop(workload: ScaledWorkload, *, pausing_runs: t.Collection[str] | None = None) -> SavedStop:
    """Return what a stop saved on the workload.

    On one that runs it is out of date in any case. On one that is stopped, "it was stopped before" never is.
    """
    try:
        state = find_state(workload.annotations, STOPPED, STOP)
    except UnreadableSavedState as error:
        return SavedStop(problem=str(error))
    if state is None:
        return SavedStop()
    if state.replicas is None:
        return SavedStop(problem=f"annotation {STOPPED} has no usable number of replicas: {state.spec!r}")
    if workload.replicas == 0 and (state.replicas == 0 or is_current(state, workload, pausing_runs=pausing_runs)):
        return SavedStop(state=state)
    return SavedStop(stale=state)


def will_delete_claims(workload: ScaledWorkload, replicas: int) -> bool:
    """Return whether so few replicas make the controller delete volume claims, which no saved state can restore."""
    return (
        workload.kind == "StatefulSet"
        and bool(workload.volume_claims)
        and workload.volume_policy.when_scaled == "Delete"
        and replicas < workload.replicas
    )
