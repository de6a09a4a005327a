# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be waited for, as pure functions of a snapshot.

``rollout_conditions`` and ``job_conditions`` have those that only a rollout or a Job waits for.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod

from .._common.text import format_count, join_some
from .autoscalers import Autoscaler
from .fields import as_dict
from .objects import Job, Pod, Workload, find_controller
from .resources import Resource, find_resource, list_kinds_between
from .saved_state import AUTOSCALER_MANAGERS
from .selectors import format_selector
from .snapshot import Snapshot

CURRENT, IN_PROGRESS, FAILED, NOT_FOUND = "Current", "InProgress", "Failed", "NotFound"
"""Words of kstatus (sigs.k8s.io/cli-utils) for what an object's state is."""

_HOLD_OWNER = "Pause or adjust whoever owns the number of replicas (autoscaler, GitOps tool, operator), then run again"
FIND_DELETER = "Find out who deleted it; create it again, then run again"


class Status(t.NamedTuple):
    """Where an object stands: one of the four words, the object, and its numbers in words.

    ``goal`` is the number of pods that the condition asks for now; ``next_step`` is filled where waiting is in vain, or
    will be unless somebody acts. ``look_again`` is after how many seconds it may hold without any change. ``progress`` is
    how far it has come of what its goal bounds: more of it than ever before gives a wait its whole time again. None: the
    time is a total.
    """

    state: str
    title: str
    message: str
    goal: int | None = None
    next_step: str = ""
    look_again: float | None = None
    progress: int | None = None

    @property
    def is_current(self) -> bool:
        """Whether the condition holds."""
        return self.state == CURRENT

    @property
    def is_failed(self) -> bool:
        """Whether waiting cannot make it hold."""
        return self.state in (FAILED, NOT_FOUND)


class Condition(t.Protocol):
    """What ``wait_until`` waits for."""

    kind: str
    resource: Resource
    namespace: str
    name: str

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the object stands."""

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""

    def find_workload(self, snapshot: Snapshot) -> Workload | None:
        """Return the object whose pods are waited for, as it is now; None when it does not exist."""


class WorkloadCondition(ABC):
    """What the conditions of a workload have in common: it is the same object still, and nobody deletes it."""

    def __init__(self, workload: Workload) -> None:
        self.kind = workload.kind
        self.resource = workload.resource
        self.namespace = workload.namespace
        self.name = workload.name
        self._first = workload

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return (self.kind,)

    def find_workload(self, snapshot: Snapshot) -> Workload | None:
        """Return the workload as it is now; None when it does not exist any more."""
        workload = snapshot.workload(self.resource, self.namespace, self.name)
        return workload if workload is not None and workload.uid == self._first.uid else None

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the workload stands."""
        workload = self.find_workload(snapshot)
        if self.kind not in snapshot.known:
            return Status(IN_PROGRESS, self._first.title, "it has not been read yet")
        if workload is None or workload.is_being_deleted:
            return Status(FAILED, self._first.title, self._describe_loss(snapshot), next_step=FIND_DELETER)
        return self._evaluate(snapshot, workload)

    @abstractmethod
    def _evaluate(self, snapshot: Snapshot, workload: Workload) -> Status:
        """Return where the workload stands, which is the one that was begun with."""

    def _describe_loss(self, snapshot: Snapshot) -> str:
        workload = snapshot.workload(self.resource, self.namespace, self.name)
        if workload is None:
            return "it was deleted while it was waited for"
        if workload.uid != self._first.uid:
            return "it was deleted and created again while it was waited for"
        return "it is being deleted while it is waited for"

    def _is_rival(self, workload: Workload) -> bool:
        """Return whether its spec was changed after what was read or written last; it decides nothing alone."""
        return workload.generation > self._first.generation

    def _is_observed(self, workload: Workload) -> bool:
        """Return whether the object is as new as ours, and its controller has seen it."""
        return workload.observed_generation >= max(workload.generation, self._first.generation)


class Serving(WorkloadCondition):
    """Exactly ``goal`` pods exist, are up to date, and serve (ready, and for ``minReadySeconds``).

    ``workload`` is what was last read or written. With ``autoscalers`` the goal follows the replicas that one of them
    accepts, which may be 0; where none is known (an empty sequence), those that are written under the name of an
    autoscaler. Another number is somebody else's, and a failure that names who. A DaemonSet's goal is the number of nodes; a CronJob
    or Job serves when it is not suspended.
    """

    def __init__(
        self,
        workload: Workload,
        goal: int,
        *,
        autoscalers: t.Sequence[Autoscaler] | None = None,
    ) -> None:
        super().__init__(workload)
        self.goal = goal
        self._autoscalers = autoscalers

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without: pods where the workload itself need not say how many serve."""
        if self.resource.is_known:
            return (self.kind,)
        return (self.kind, *list_kinds_between(self.resource), "Pod")

    def _evaluate(self, snapshot: Snapshot, workload: Workload) -> Status:
        workload = _count_what_is_not_said(snapshot, workload)
        goal = self._find_goal(workload)
        if workload.replicas != goal and self._is_rival(workload):
            rival = self._describe_rival(workload, goal)
            if self._may_be_late(workload):
                return Status(IN_PROGRESS, workload.title, rival, goal)
            return Status(FAILED, workload.title, rival, goal, _HOLD_OWNER)
        is_current = self._is_observed(workload) and workload.replicas == goal and serves(workload, goal)
        is_resting = is_current and goal == 0 and self._is_accepted(workload)
        message = "0 replicas, as its autoscaler asks" if is_resting else describe_progress(workload, goal)
        return Status(CURRENT if is_current else IN_PROGRESS, workload.title, message, goal)

    def _find_goal(self, workload: Workload) -> int:
        if workload.kind == "DaemonSet":
            return workload.replicas
        return workload.replicas if self._is_accepted(workload) else self.goal

    def _is_accepted(self, workload: Workload) -> bool:
        """Return whether its number is one that an autoscaler gives it; of an object from before the write it is not."""
        if workload.generation < self._first.generation:
            return False
        if self._autoscalers is None:
            return False
        if not self._autoscalers:
            return workload.writer in AUTOSCALER_MANAGERS and workload.kind not in _SUSPENDED
        return any(scaler.accepts(workload.replicas) for scaler in self._autoscalers)

    def _may_be_late(self, workload: Workload) -> bool:
        """Return whether KEDA may have scaled it to 0 after it was resumed, from what it had read before.

        It scales by the subresource, which leaves a 0 without a manager; its next look corrects it.
        """
        scalers = [scaler for scaler in self._autoscalers or () if scaler.kind == "ScaledObject"]
        return bool(scalers) and workload.replicas == 0 and workload.writer is None

    def _describe_rival(self, workload: Workload, goal: int) -> str:
        who = workload.writer or "an unknown writer"
        if workload.kind in _SUSPENDED:
            return f"suspend was set to false, and {who} has set it to true since"
        limits = "".join(f" (the bounds of {s.title} are {s.minimum} to {s.maximum})" for s in self._autoscalers or ())
        return f"replicas were set to {goal}, and {who} has set them to {workload.replicas} since{limits}"


_SUSPENDED = ("CronJob", "Job")


def _count_what_is_not_said(snapshot: Snapshot, workload: Workload) -> Workload:
    """Return a workload of another API with the numbers of its pods where its status does not have them."""
    if workload.resource.is_known or "Pod" not in snapshot.known:
        return workload
    said = as_dict(workload.raw.get("status"))
    pods = snapshot.list_running_pods(workload)
    if said.get("replicas") is None:
        workload = workload._replace(pods=len(pods))
    if said.get("readyReplicas") is None and said.get("availableReplicas") is None:
        serving = sum(pod.is_ready and not pod.is_terminating for pod in pods)
        workload = workload._replace(ready=serving, available=serving)
    return workload


def serves(workload: Workload, goal: int) -> bool:
    """Return whether as many pods as the goal are there, serve, and are of the newest template as far as they should be."""
    if workload.kind in _SUSPENDED:
        return True
    is_updated = workload.updated >= min(goal, workload.updated_wanted)
    return workload.pods == goal and workload.serving == goal and is_updated


def describe_progress(workload: Workload, goal: int) -> str:
    """Return the numbers of a workload in words: 3 of 5 replicas ready (5 pods), and what else it lacks."""
    if workload.kind in _SUSPENDED:
        return "suspended" if workload.is_stopped else "not suspended"
    words = f"{workload.ready} of {format_count(goal, 'replica')} ready ({format_count(workload.pods, 'pod')})"
    if workload.serving < workload.ready:
        words += f", {workload.serving} of them for minReadySeconds ({workload.min_ready_seconds} s)"
    wanted = min(goal, workload.updated_wanted)
    if workload.updated < wanted:
        words += f", {workload.updated} of {wanted} updated{', paused' if workload.paused else ''}"
    if not workload.is_observed:
        words += f", its controller has not seen generation {workload.generation} yet"
    return words


class Gone(WorkloadCondition):
    """No pod that the workload owns runs any more, as the controller of the newest spec says; of a CronJob also no Job.

    Pods that have ended (Succeeded, Failed, among them evicted ones) run nothing and do not count; nor do pods that
    something else owns, whatever their labels are. A Job that has ended starts none, suspended or not. ``workload`` is
    what was last read or written.
    """

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return (self.kind, *list_kinds_between(self.resource), "Pod")

    def _evaluate(self, snapshot: Snapshot, workload: Workload) -> Status:
        has_ended = _has_ended(workload)
        if not workload.is_stopped and not has_ended and self._is_rival(workload) and self.kind != "DaemonSet":
            return self._describe_rival(workload)
        pods = snapshot.list_running_pods(workload)
        jobs = snapshot.list_active_jobs(workload)
        labels = format_selector(workload.selector)
        needs = [kind for kind in self.needs() if kind != self.kind]
        is_known = all(snapshot.covers(kind, self.namespace, labels if kind == "Pod" else "") for kind in needs)
        is_quiet = has_ended or (self._is_observed(workload) and workload.is_stopped and workload.pods == 0)
        state = CURRENT if is_known and is_quiet and not pods and not jobs else IN_PROGRESS
        message = _describe_rest(workload, pods, jobs)
        foreign = describe_foreign_pods(snapshot, workload) if state == CURRENT else ""
        return Status(state, workload.title, f"{message}; {foreign}" if foreign else message, 0)

    def _describe_rival(self, workload: Workload) -> Status:
        """Say who starts it again. An autoscaler may have begun before it was paused, and still comes to rest."""
        who = workload.writer or "an unknown writer"
        now = "set suspend to false" if self.kind in _SUSPENDED else f"set its replicas to {workload.replicas}"
        state = IN_PROGRESS if workload.writer in AUTOSCALER_MANAGERS and self.kind not in _SUSPENDED else FAILED
        return Status(state, workload.title, f"it was stopped, and {who} has {now} since", 0, _HOLD_OWNER)


def _has_ended(workload: Workload) -> bool:
    """Return whether it is a Job that has completed or failed, which starts no pod any more."""
    if workload.kind != "Job":
        return False
    job = Job.from_object(workload.raw)
    return job.is_complete or job.is_failed


def describe_foreign_pods(snapshot: Snapshot, workload: Workload) -> str:
    """Return to whom running pods belong that have a workload's labels and are not its own; "" where there are none.

    A Rollout of Argo, for example, that took the pod template over.
    """
    counts: dict[str, int] = {}
    for pod in snapshot.list_foreign_pods(workload):
        controller = find_controller(as_dict(pod.raw.get("metadata")))
        name = f"{controller['kind']} {controller.get('name')}" if controller.get("kind") else "no controller"
        counts[name] = counts.get(name, 0) + 1
    words = []
    for name, count in sorted(counts.items(), key=lambda entry: -entry[1]):
        if count == 1:
            words.append(f"1 pod with the same labels belongs to {name} and stays")
        else:
            words.append(f"{count} pods with the same labels belong to {name} and stay")
    return join_some(words, limit=3)


def _describe_rest(workload: Workload, pods: list[Pod], jobs: list[Job]) -> str:
    parts = []
    if jobs:
        parts.append(f"{format_count(len(jobs), 'active Job')} ({join_some([job.name for job in jobs], limit=3)})")
    if pods:
        parts.append(f"{format_count(len(pods), 'pod')} left ({join_some([pod.name for pod in pods], limit=3)})")
    elif workload.pods and not jobs:
        counted = "Job" if workload.kind == "CronJob" else "pod"
        parts.append(f"its controller still counts {format_count(workload.pods, counted)}")
    if not workload.is_observed:
        parts.append(f"its controller has not seen generation {workload.generation} yet")
    return ", ".join(parts) or "no pod left"


class PauseTaken:
    """KEDA's operator has acted on the pause of a ScaledObject, so that what it has begun undoes no stop.

    It holds as well where there is nothing to wait for: KEDA has scaled the workload to 0 by itself (before 2.18 it says
    later that it is paused), or the ScaledObject is gone, or not paused any more.
    """

    def __init__(self, scaler: Autoscaler, workload: Workload) -> None:
        self.resource = find_resource(scaler.kind)
        self.kind = self.resource.kind
        self.namespace = scaler.namespace
        self.name = scaler.name
        self._scaler = scaler
        self._workload = workload

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return (self.kind,)

    def find_workload(self, snapshot: Snapshot) -> Workload | None:  # noqa: ARG002
        """Return nothing: no pods are waited for."""
        return None

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the ScaledObject stands."""
        obj = snapshot.find(self.kind, self.namespace, self.name)
        workload = snapshot.workload(self._workload.resource, self._workload.namespace, self._workload.name)
        is_awaited = obj is not None and Autoscaler.from_object(obj, self.kind).is_pause_awaited
        if is_awaited and (workload is None or workload.replicas):
            return Status(IN_PROGRESS, self._scaler.title, "its operator has not said that it has paused it")
        return Status(CURRENT, self._scaler.title, "nothing has to be waited for before its workload is stopped")


def assess_alone(workload: Workload) -> Status:
    """Return where a workload stands by what it says of itself: whether as many pods as its spec asks for serve.

    Of a stopped one, whether its controller counts no pod any more; which pods are left only a snapshot can tell.
    """
    snapshot = Snapshot.from_objects([{**workload.raw, "kind": workload.kind}])
    if workload.is_stopped:
        is_quiet = workload.is_observed and workload.pods == 0
        return Status(CURRENT if is_quiet else IN_PROGRESS, workload.title, _describe_rest(workload, [], []), 0)
    return Serving(workload, workload.replicas).evaluate(snapshot)
