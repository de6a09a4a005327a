# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HPAs and KEDA's ScaledObjects: whether they would move a workload, and the writes that pause, resume and pin them.

For a stop the workload's replicas are saved on it first (``plan_save``), then the ScaledObject is paused, then the
workload is scaled: KEDA scales to the paused number by itself, and may be faster.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .fields import Json, as_dict, as_int, as_list, as_text, get_path
from .objects import Workload, index_conditions
from .patches import Write
from .resources import object_path
from .saved_state import (
    BOUNDS,
    BOUNDS_BEFORE,
    PAUSE,
    PAUSED_BY,
    STOPPED,
    SavedState,
    UnreadableSavedState,
    drop_state,
    find_owners,
    find_state,
    is_own_manager,
    save_state,
)

PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
"""KEDA scales to this number and stays there. It wins over the other annotation."""
PAUSED = "autoscaling.keda.sh/paused"
"""KEDA leaves the number as it is; every value that is not false counts as true."""
PAUSED_SCALE_OUT = "autoscaling.keda.sh/paused-scale-out"
"""KEDA gives no more than there are; its condition Paused is True then too, although it goes on lowering them."""
MADE_FOR = "scaledobject.keda.sh/name"
"""The label with the name of the ScaledObject, on it and on the HPA that KEDA makes for it."""
POLLING_SECONDS = 30
"""KEDA looks at triggers so often, unless a ScaledObject has its own ``pollingInterval``."""
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""What Go's strconv.ParseBool, and so KEDA, takes for false."""


class Autoscaler(t.NamedTuple):
    """An HPA or a ScaledObject.

    ``target`` is Kind/name of what it scales, ``managed_by`` the ScaledObject that made an HPA. ``minimum`` and
    ``maximum`` are its bounds with Kubernetes' or KEDA's defaults; ``idle`` is what KEDA scales to while nothing
    triggers it, None where that is the minimum. ``annotations`` are none of an HPA that KEDA made: it copies those of
    the ScaledObject, and what is saved there is to be restored there.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    target: str
    minimum: int
    maximum: int
    idle: int | None
    managed_by: str | None
    annotations: Json
    raw: Json

    @classmethod
    def from_object(cls, obj: Json, kind: str | None = None) -> Autoscaler:
        """Read an HPA (autoscaling/v2) or a ScaledObject; ``kind`` is needed for items of a list."""
        kind = kind or as_text(obj.get("kind"))
        meta, spec = as_dict(obj.get("metadata")), as_dict(obj.get("spec"))
        of_keda = kind == "ScaledObject"
        minimum, maximum = _BOUND_FIELDS[kind]
        idle = spec.get("idleReplicaCount")
        managed_by = None if of_keda else _find_maker(meta)
        target_kind = as_text(get_path(spec, "scaleTargetRef", "kind")) or ("Deployment" if of_keda else "")
        return cls(
            kind=kind,
            namespace=as_text(meta.get("namespace")),
            name=as_text(meta.get("name")),
            uid=as_text(meta.get("uid")),
            target=f"{target_kind}/{as_text(get_path(spec, 'scaleTargetRef', 'name'))}",
            minimum=as_int(spec.get(minimum), 0 if of_keda else 1),
            maximum=as_int(spec.get(maximum), 100 if of_keda else 1),
            idle=None if idle is None else as_int(idle),
            managed_by=managed_by,
            annotations={} if managed_by else as_dict(meta.get("annotations")),
            raw=obj,
        )

    @property
    def title(self) -> str:
        """Kind, namespace and name, for messages."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return object_path(self.kind, self.namespace, self.name)

    @property
    def bounds(self) -> dict[str, int]:
        """The bounds as plain data."""
        return {"min": self.minimum, "max": self.maximum}

    @property
    def paused_at(self) -> int | None:
        """The number at which KEDA holds the workload; None when there is none, or it is not a number."""
        text = self.annotations.get(PAUSED_REPLICAS)
        return as_int(text, -1) if isinstance(text, str) and text.isascii() and text.isdigit() else None

    @property
    def is_paused(self) -> bool:
        """Whether KEDA does not scale by its triggers now, whoever paused it."""
        if self.kind != "ScaledObject":
            return False
        return PAUSED_REPLICAS in self.annotations or self._is_set(PAUSED)

    @property
    def is_pause_awaited(self) -> bool:
        """Whether it is paused, and KEDA's operator, which says so in a condition, has not acted on that yet.

        The annotations decide whether it is paused, never the condition: it is True as well for a pause in one direction
        only, and may stay True after a resume (kedacore/keda#6982). KEDA before 2.11 publishes none.
        """
        conditions = index_conditions(as_dict(self.raw.get("status")))
        return self.is_paused and "Paused" in conditions and get_path(conditions["Paused"], "status") != "True"

    @property
    def polling_seconds(self) -> int:
        """How often KEDA looks at what triggers it."""
        return as_int(get_path(self.raw, "spec", "pollingInterval"), POLLING_SECONDS)

    @property
    def holds_at_zero(self) -> bool:
        """Whether a workload at 0 is there because it asks for no more: it scales to 0 and from there by itself.

        Of an HPA that KEDA made nothing is known: its ScaledObject says how few there may be.
        """
        if self.is_paused or self.managed_by is not None or self._is_set(PAUSED_SCALE_OUT):
            return False
        return self.accepts(0)

    def list_pausing_runs(self) -> list[str]:
        """Return the run that has paused it, if nobody has changed that since."""
        key = PAUSED_BY if PAUSED_BY in self.annotations else STOPPED
        try:
            state = find_state(self.annotations, key, PAUSE)
        except UnreadableSavedState:  # which run it was is not known, so that nothing counts by it
            return []
        return [state.run_id] if state is not None and self._is_pause_ours() else []

    @property
    def can_be_paused(self) -> bool:
        """Whether ``plan_pause`` keeps it from starting pods: KEDA can be paused, an HPA cannot."""
        return self.kind == "ScaledObject"

    @property
    def blocks_stop(self) -> bool:
        """Whether it would start pods again at 0 replicas.

        An HPA with a minimum of 1 or more rests at 0 (its condition says ScalingDisabled), unless KEDA made it: KEDA
        itself scales from 0, and it removes its HPA while it is paused.
        """
        if self.kind != "ScaledObject":
            return self.minimum == 0 or self.managed_by is not None
        if PAUSED_REPLICAS in self.annotations:
            return self.paused_at != 0
        return not self.is_paused

    def accepts(self, replicas: int) -> bool:
        """Return whether it may give the workload this number by itself.

        That is a number within its bounds, which of KEDA are 0 and more by default, and KEDA's idle number or one at
        which somebody has paused it. Of an HPA whose ScaledObject is not known all up to its maximum are. A pause at 0
        does not count: it is a stop, which a start undoes.
        """
        if replicas == self.idle or (replicas > 0 and replicas == self.paused_at):
            return True
        return (0 if self.managed_by is not None else self.minimum) <= replicas <= self.maximum

    def blocks_scale(self, replicas: int) -> bool:
        """Return whether it could move the workload away from this number."""
        if self.is_paused:
            return PAUSED_REPLICAS in self.annotations and self.paused_at != replicas
        return not self._is_pinned_at(replicas)

    def find_stop_blocker(self, workload: Workload) -> Blocker | None:
        """Return what it does to a stopped workload, None when it leaves it alone."""
        if not self.blocks_stop:
            return None
        if self.managed_by:
            what = f"{self.title} is made by ScaledObject {self.managed_by}, which would start pods again"
            next_step = "Leave keda in guards so that the ScaledObject can be paused, or pause it yourself"
        elif self.paused_at is not None:
            what = f"{self.title} is paused at {self.paused_at} replicas ({PAUSED_REPLICAS}) and would start pods again"
            next_step = "Set autoscaler to pause, which puts that number back at the start, or change it yourself"
        else:
            what = f"{self.title} owns its replicas ({self.minimum} to {self.maximum}) and would start pods again"
            next_step = (
                "Set autoscaler to pause, or pause it yourself"
                if self.can_be_paused
                else "Set its minReplicas to 1 or more, or remove it"
            )
        return Blocker(object=workload.title, what=what, holder=self.title, next_step=next_step)

    def find_scale_blocker(self, workload: Workload, replicas: int) -> Blocker | None:
        """Return what it does to a workload that is scaled to this number, None when it leaves it there."""
        if not self.blocks_scale(replicas):
            return None
        next_step = "Set autoscaler to adjust, change its bounds yourself, or remove it"
        what = f"{self.title} owns its replicas ({self.minimum} to {self.maximum})"
        if self.is_paused:
            what = f"{self.title} is paused and keeps it at {self.annotations.get(PAUSED_REPLICAS)} replicas"
            next_step = f"Remove its annotation {PAUSED_REPLICAS}, if it is meant to scale again"
        elif self.managed_by:
            next_step = f"Leave keda in guards, so that ScaledObject {self.managed_by} can be adjusted"
        return Blocker(object=workload.title, what=what, holder=self.title, next_step=next_step)

    def plan_pause(self, replicas_before: int, *, run_id: str, now: str) -> Write | None:
        """Plan to keep the workload at 0, and save what the annotation was and how many replicas the workload had.

        None when it does so already (whoever paused it), or cannot be paused.
        """
        if not self.can_be_paused or not self.blocks_stop:
            return None
        previous = self.annotations.get(PAUSED_REPLICAS)
        state = SavedState(
            {"paused_replicas": previous, "replicas": replicas_before}, run_id, now, self._generation, PAUSE
        )
        changes: Json = {PAUSED_REPLICAS: "0", **save_state(self.annotations, PAUSED_BY, state)}
        changes.update(drop_state(self.annotations, STOPPED, PAUSE))  # of format 1, out of date since it is not paused
        return self._write_annotations(changes)

    def plan_resume(self, *, only_windows: bool = False) -> Write | None:
        """Plan to undo ``plan_pause``. None where no run (or, if that is asked, no window) has paused it.

        What another client has made of the annotation since is left; only what was saved goes then. Refusal when what
        was saved cannot be read.
        """
        key, state = self._find_pause()
        if state is None or (only_windows and not state.is_of_window):
            return None
        changes: Json = dict(drop_state(self.annotations, key, PAUSE))
        if self._is_pause_ours():
            changes[PAUSED_REPLICAS] = state.spec.get("paused_replicas", state.spec.get("paused"))
        return self._write_annotations(changes)

    def find_saved_stop(self) -> SavedState | None:
        """Return the replicas that the workload had when a run paused this; None when nothing usable was saved."""
        _key, state = self._find_pause()
        if state is None or state.replicas is None or not self._is_pause_ours():
            return None
        return SavedState({"replicas": state.replicas}, state.run_id, state.at)

    def apply(self, write: Write | None) -> Autoscaler:
        """Return what it is after a write of its annotations, to judge what it will do then."""
        changes = as_dict(get_path(write.body, "metadata", "annotations")) if write is not None else {}
        annotations = {key: value for key, value in {**self.annotations, **changes}.items() if value is not None}
        return self._replace(annotations=annotations)

    def plan_bounds(self, replicas: int, *, run_id: str, now: str) -> Write | None:
        """Plan to give it this number as both bounds, and save the bounds that it had first; None when it has them.

        KEDA's idle number goes meanwhile, since it lies outside the bounds. Refusal for an HPA that KEDA made.
        """
        if self.managed_by:
            raise Refusal(
                obj=self.title,
                problem=f"ScaledObject {self.managed_by} made it and would put its bounds back",
                next_step=f"Leave keda in guards, so that ScaledObject {self.managed_by} is adjusted",
            )
        if replicas < 1:
            raise Refusal(
                obj=self.title,
                problem=f"its bounds cannot become {replicas}, which is less than 1",
                next_step="Use k8s_workload to stop a workload",
            )
        if self._is_pinned_at(replicas):
            return None
        fields = _BOUND_FIELDS[self.kind]
        spec = as_dict(self.raw.get("spec"))
        before: Json = {"min": spec.get(fields[0]), "max": spec.get(fields[1])}
        if self.idle is not None:
            before["idle"] = self.idle
        saved = self._find_bounds()
        if saved is not None and self._are_bounds_ours(saved):
            before = {name: value for name, value in saved.spec.items() if name != "pinned"}
        state = SavedState({**before, "pinned": replicas}, run_id, now, self._generation + 1, BOUNDS)
        values: Json = dict.fromkeys(fields, replicas)
        if self.idle is not None:
            values["idleReplicaCount"] = None
        return self._write_bounds(values, save_state(self.annotations, BOUNDS_BEFORE, state))

    def plan_restore_bounds(self, *, only_windows: bool = False) -> Write | None:
        """Plan to give back the bounds that ``plan_bounds`` saved; None where there are none, or of a window if asked.

        Where somebody has changed the bounds since, they stay, and only what was saved goes.
        """
        state = self._find_bounds()
        if state is None or (only_windows and not state.is_of_window):
            return None
        annotations = drop_state(self.annotations, BOUNDS_BEFORE, BOUNDS)
        if not self._are_bounds_ours(state):
            return self._write_bounds({}, annotations)
        fields = _BOUND_FIELDS[self.kind]
        values = {fields[0]: state.spec.get("min"), fields[1]: state.spec.get("max")}
        if "idle" in state.spec:
            values["idleReplicaCount"] = state.spec["idle"]
        return self._write_bounds(values, annotations)

    def _is_set(self, annotation: str) -> bool:
        return self.annotations.get(annotation, "false") not in _FALSE

    @property
    def _generation(self) -> int:
        return as_int(get_path(self.raw, "metadata", "generation"))

    def _is_pinned_at(self, replicas: int) -> bool:
        return (self.minimum, self.maximum) == (replicas, replicas) and self.idle in (None, replicas)

    def _are_bounds_ours(self, state: SavedState) -> bool:
        """Return whether the bounds are still those that were set when ``state`` was saved.

        Format 1 did not save which: they have to be one number then, and this collection's where that is known.
        """
        if "pinned" in state.spec:
            return self._is_pinned_at(as_int(state.spec["pinned"], -1))
        owners = find_owners(self.raw, "spec", _BOUND_FIELDS[self.kind][1])
        is_ours = not owners or any(is_own_manager(owner.manager) for owner in owners)
        return self.minimum == self.maximum and is_ours

    def _is_pause_ours(self) -> bool:
        """Return whether nobody has set the annotation since this collection did."""
        if self.annotations.get(PAUSED_REPLICAS) != "0":
            return False
        owners = find_owners(self.raw, "metadata", "annotations", PAUSED_REPLICAS)
        return not owners or any(is_own_manager(owner.manager) for owner in owners)

    def _find_pause(self) -> tuple[str, SavedState | None]:
        """Return what was saved when it was paused, and where: format 1 had it where a workload has its own."""
        for key in (PAUSED_BY, STOPPED):
            state = self._find(key, PAUSE, f"Set its annotation {PAUSED_REPLICAS} as it should be")
            if state is not None:
                return key, state
        return PAUSED_BY, None

    def _find_bounds(self) -> SavedState | None:
        return self._find(BOUNDS_BEFORE, BOUNDS, "Set its bounds as they should be")

    def _find(self, key: str, operation: str, next_step: str) -> SavedState | None:
        try:
            return find_state(self.annotations, key, operation)
        except UnreadableSavedState as error:
            raise Refusal(
                obj=self.title, problem=str(error), next_step=f"{next_step} and remove its annotation {key}"
            ) from error

    def _write_annotations(self, changes: Json) -> Write:
        """Write annotations, decided about by all of them: another client's pause must not be overwritten unseen."""
        return Write({"metadata": {"annotations": changes}}, tuple(("metadata", "annotations", key) for key in changes))

    def _write_bounds(self, values: Json, annotations: t.Mapping[str, str | None]) -> Write:
        body: Json = {"metadata": {"annotations": dict(annotations)}}
        if values:
            body["spec"] = values
        fields = dict.fromkeys([*_BOUND_FIELDS[self.kind], *values])
        return Write(body, tuple(("spec", field) for field in fields))


def _find_maker(meta: Json) -> str | None:
    """Return the ScaledObject for which KEDA made an HPA; None for one of somebody else."""
    makers = [ref for ref in as_list(meta.get("ownerReferences")) if get_path(ref, "kind") == "ScaledObject"]
    return as_text(makers[0].get("name") if makers else get_path(meta, "labels", MADE_FOR)) or None


_BOUND_FIELDS = {
    "HorizontalPodAutoscaler": ("minReplicas", "maxReplicas"),
    "ScaledObject": ("minReplicaCount", "maxReplicaCount"),
}


def select_autoscalers(autoscalers: t.Iterable[Autoscaler], workload: Workload) -> list[Autoscaler]:
    """Return those that scale the workload, without an HPA that KEDA made where its ScaledObject is known."""
    autoscalers = list(autoscalers)
    known = {scaler.name for scaler in autoscalers if scaler.kind == "ScaledObject"}
    return [scaler for scaler in autoscalers if scaler.target == workload.key and scaler.managed_by not in known]
