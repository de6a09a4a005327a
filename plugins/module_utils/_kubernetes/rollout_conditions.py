# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a rollout has come to its end, as pure functions of a snapshot.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from .conditions import CURRENT, FAILED, IN_PROGRESS, Status, WorkloadCondition, describe_progress, serves
from .fields import get_path
from .objects import Pod, Workload
from .plans.rollout_undo import list_stuck_pods, read_partition
from .pod_templates import fingerprint
from .rollout_notes import read_note
from .saved_state import find_owners, is_own_manager
from .silent_nodes import serves_elsewhere
from .snapshot import Snapshot


class RolledOut(WorkloadCondition):
    """All pods are of ``revision`` and serve: nothing of another revision is left that is to be replaced.

    ``revision`` is the Deployment's number (annotation deployment.kubernetes.io/revision), the StatefulSet's
    ``updateRevision``, or the hash that pods of it carry. Another newest revision is somebody else's, and a failure.
    None is the revision that the controller makes of the template of ``workload``, which is what was last written;
    another template is somebody else's then. With ``serve_seconds`` they have to serve for so long without a break: a
    container that crashes after its start is ready for a moment. ``lacking`` pods need not serve: an undo makes it no
    worse than it was. Nor need those of a DaemonSet whose node does not report.
    """

    def __init__(
        self, workload: Workload, revision: str | None, *, serve_seconds: float = 0.0, lacking: int = 0
    ) -> None:
        super().__init__(workload)
        self.revision = revision
        self._mark = fingerprint(workload.template)
        self._serve_seconds = serve_seconds
        self._lacking = lacking
        self._served_since: float | None = None

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return (self.kind, "ControllerRevision", "Pod") if self.kind == "DaemonSet" else (self.kind,)

    def _evaluate(self, snapshot: Snapshot, workload: Workload) -> Status:
        goal = workload.replicas
        named = "its new pod template" if self.revision is None else f"revision {self.revision}"
        message = f"{named}: {describe_progress(workload, goal)}"
        if self.revision is None and self._is_rival(workload) and fingerprint(workload.template) != self._mark:
            problem = f"its pod template was changed by {find_template_writer(workload)} while it was rolled out"
            return Status(FAILED, workload.title, problem, goal, "Find out who changed the pod template since")
        partition = (read_partition(self._first), read_partition(workload))
        if self.revision is None and self._is_rival(workload) and partition[0] != partition[1]:
            problem = f"its partition was changed from {partition[0]} to {partition[1]} while it was rolled out"
            return Status(FAILED, workload.title, problem, goal, "Find out who holds it at that partition, and why")
        if not self._is_observed(workload):
            return Status(IN_PROGRESS, workload.title, message, goal)
        if self.revision is None:
            return self._assess_steadiness(snapshot, workload, message)._replace(progress=measure_progress(workload))
        newest = [name for name in (workload.revision, snapshot.update_hash(workload)) if name]
        if newest and self.revision not in newest:
            problem = f"revision {self.revision} was rolled out, and its newest revision is {newest[0]} now"
            return Status(FAILED, workload.title, problem, goal, "Find out who changed the pod template since")
        state = CURRENT if newest and serves(workload, goal) else IN_PROGRESS
        return Status(state, workload.title, message, goal)

    def _assess_steadiness(self, snapshot: Snapshot, workload: Workload, message: str) -> Status:
        """Return whether its pods serve, and have for as long as they have to."""
        goal = workload.replicas
        is_served = serves(workload, goal) or serves_elsewhere(snapshot, workload)
        if not (is_served or self._is_no_worse(workload, goal)):
            self._served_since = None
            return Status(IN_PROGRESS, workload.title, message, goal)
        if self._served_since is None:
            self._served_since = snapshot.at
        left = self._serve_seconds - (snapshot.at - self._served_since) if goal else 0.0
        if left <= 0:
            return Status(CURRENT, workload.title, message, goal)
        message += f", and have to serve for {self._serve_seconds:g} s without a break"
        return Status(IN_PROGRESS, workload.title, message, goal, look_again=left)

    def _is_no_worse(self, workload: Workload, goal: int) -> bool:
        """Return whether all serve but as many as did not before."""
        least = goal - self._lacking
        is_updated = workload.updated >= min(least, workload.updated_wanted)
        return self._lacking > 0 and is_updated and workload.pods <= goal and workload.serving >= max(least, 0)


class RolledOutOrHeld(RolledOut):
    """As ``RolledOut``; it comes to an end as well when a pod of another revision holds the StatefulSet up for ever.

    Its controller waits for that pod to be ready before it replaces any (kubernetes#67250). ``stuck`` are such pods, without
    those in ``deleted``. Only once the controller has seen the template, or it would make them again as they were.
    """

    def __init__(self, *args: t.Any, failed: str, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._failed = failed
        self.stuck: list[Pod] = []
        self.deleted: set[str] = set()

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return (*super().needs(), "Pod")

    def _evaluate(self, snapshot: Snapshot, workload: Workload) -> Status:
        status = super()._evaluate(snapshot, workload)
        self.stuck = []
        if not status.is_failed and self._is_observed(workload):
            pods = [pod for pod in snapshot.list_running_pods(workload) if not pod.is_terminating]
            self.stuck = [
                pod
                for pod in list_stuck_pods(workload, workload.revision, pods)
                if pod.uid not in self.deleted and (workload.revision or pod.template_hash == self._failed)
            ]
        return status._replace(state=CURRENT) if self.stuck else status


def measure_progress(workload: Workload) -> int:
    """Return a number that rises with each pod of the newest revision that becomes ready, and again when it serves.

    A controller counts the ready pods of all revisions together. That an old one ends changes nothing: it is not ready any
    more, and not old any more either.
    """
    return workload.ready + workload.serving - 2 * (workload.pods - workload.updated)


def has_just_restarted(pods: t.Iterable[Pod], seconds: float, *, now: float) -> bool:
    """Return whether a container that was restarted runs for less than ``seconds``, by the server's clock."""
    return any(
        container.restarts and container.running_since is not None and now - container.running_since < seconds
        for pod in pods
        for container in pod.containers
        if not container.is_init
    )


def find_template_writer(workload: Workload) -> str:
    """Return who has written the pod template: a run by its note, or who else has set something in it."""
    note = read_note(workload)
    if note is not None and note.run_id and note.is_of(workload):
        return f"run {note.run_id}"
    owners = find_owners(workload.raw, "spec", "template") or []
    others = [owner.manager for owner in owners if not is_own_manager(owner.manager)]
    return others[-1] if others else "another client"


def may_be_held(workload: Workload) -> bool:
    """Return whether pods that are not ready may hold a rollout up for ever: a StatefulSet's with OrderedReady."""
    return workload.kind == "StatefulSet" and get_path(workload.raw, "spec", "podManagementPolicy") != "Parallel"
