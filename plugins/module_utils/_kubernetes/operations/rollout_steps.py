# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each run of k8s_rollout does with its workload: read its revisions and pods, wait, unstick, note that it serves.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import WaitError
from ..._common.outcome import Outcome
from ..._common.redaction import Redactor
from ..._common.retry import Deadline
from .. import rollout_summary as words
from ..client import Client
from ..conditions import Condition
from ..errors import Conflict, NotFound
from ..fields import Json
from ..objects import Pod, Workload
from ..patches import Write
from ..plans.rollout import Declared, Plan
from ..plans.rollout_undo import plan_completion
from ..resources import collection_path, object_path
from ..revisions import KINDS_OF_REVISIONS, Known, read_revisions
from ..rollout_cause import LogReader, make_redactor, read_last_lines, redact_blockers, redact_error
from ..rollout_conditions import RolledOut, RolledOutOrHeld, may_be_held
from ..rollout_notes import Note, read_note
from ..selectors import format_selector
from ..silent_nodes import describe_silent
from ..snapshot import Snapshot
from ..workload_wait import follow_each, wait_for_workloads

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


class Failure(t.NamedTuple):
    """A wait without success, and what was known then."""

    error: WaitError
    snapshot: Snapshot
    redactor: Redactor


class RolloutSteps:
    """One workload, what is known of it, and what a run does with it whichever way it goes."""

    def __init__(
        self, module: AnsibleModule, outcome: Outcome, client: Client, *, read_log: LogReader = read_last_lines
    ) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.client = client
        self.read_log = read_log
        self.kind = str(self.params["kind"])
        self.namespace = str(self.params["namespace"])
        self.path = object_path(self.kind, self.namespace, self.params["name"])
        self.at = 0.0
        """When it began, by the server's clock."""
        self.declared = Declared()
        self.revisions: list[Known] = []
        self.workload: Workload | None = None
        self.plan: Plan | None = None
        self.state = words.PLANNED
        self.cause = ""
        self.images: list[Json] = []
        self.aside = ""

    def _list_revisions(self, workload: Workload) -> list[Known]:
        kind = KINDS_OF_REVISIONS[self.kind]
        listing = self._list(kind, workload)
        return read_revisions(workload, [{**obj, "kind": kind} for obj in listing])

    def _list(self, kind: str, workload: Workload) -> list[Json]:
        selector = format_selector(workload.selector)
        title = f"{kind}s of {workload.title}"
        path = collection_path(kind, self.namespace)
        return self.client.list(path, obj=title, params={"labelSelector": selector} if selector else None).items

    def _list_pods(self, workload: Workload) -> list[Pod]:
        """Return the pods of the workload that have not ended and are not about to."""
        objects: list[Json] = [{**pod, "kind": "Pod"} for pod in self._list("Pod", workload)]
        if self.kind == "Deployment":
            objects += [{**obj, "kind": "ReplicaSet"} for obj in self._list("ReplicaSet", workload)]
        pods = Snapshot.from_objects(objects, known=("Pod",)).list_running_pods(workload)
        return [pod for pod in pods if not pod.is_terminating]

    def _wait(self, workload: Workload, condition: Condition, *, since: float | None = None) -> Failure | None:
        """Wait for a condition; return why it does not hold where that is so."""
        last: list[Snapshot] = []

        def take(snapshot: Snapshot) -> None:
            last.append(snapshot)
            self.workload = snapshot.workload(self.kind, self.namespace, workload.name) or workload
            self.aside = describe_silent(snapshot, self.workload)

        followed = follow_each([workload])
        try:
            wait_for_workloads(self.module, self.client, self.outcome, [condition], followed, since=since, take=take)
        except WaitError as error:
            return self._describe_failure(error, last[-1], workload)
        if self.aside:
            self.module.warn(f"{workload.title}: {self.aside}")
        return None

    def _describe_failure(self, error: WaitError, snapshot: Snapshot, workload: Workload) -> Failure:
        """Return a failed wait, from whose words the secrets are taken; what it was given of time may be used up."""
        self.client.deadline = Deadline(self.params["timeout"])
        redactor = make_redactor(self.client, workload, snapshot.list_pods(workload))
        self.outcome.blockers = redact_blockers(self.outcome.blockers, redactor)
        return Failure(redact_error(error, redactor), snapshot, redactor)

    def _wait_for_pods(
        self, workload: Workload, failed: str, *, serve_seconds: float, since: float | None, lacking: int = 0
    ) -> Failure | None:
        """Wait until the template serves; return why it does not where that is so.

        Where a revision has ``failed``, pods of other revisions that are not ready are deleted meanwhile, whenever one
        holds the StatefulSet up.
        """
        if not may_be_held(workload) or not failed:
            condition = RolledOut(workload, None, serve_seconds=serve_seconds, lacking=lacking)
            return self._wait(workload, condition, since=since)
        held = RolledOutOrHeld(workload, None, serve_seconds=serve_seconds, lacking=lacking, failed=failed)
        failure = self._wait(workload, held, since=since)
        while failure is None and held.stuck:
            for pod in held.stuck:
                held.deleted.add(pod.uid)
                self._delete_stuck(pod)
            failure = self._wait(t.cast("Workload", self.workload), held, since=since)
        return failure

    def _delete_stuck(self, pod: Pod) -> None:
        path = object_path("Pod", pod.namespace, pod.name)
        try:
            self.client.delete(path, obj=pod.title, uid=pod.uid)
        except (NotFound, Conflict):
            return  # its controller has replaced it already
        self.outcome.evidence.append(f"deleted {pod.title}, which was of revision {pod.template_hash} and not ready")

    def _complete(self, workload: Workload, note: Note) -> None:
        """Say on the object that what was written serves. Its generation stays."""

        def decide(obj: Json) -> Write | None:
            current = Workload.from_object(obj, self.kind)
            present = read_note(current)
            if (
                present is None
                or present.is_settled(current)
                or present.run_id != note.run_id
                or not present.is_of(current)
            ):
                return None
            return plan_completion(current, present)

        obj, _sent = self.client.patch_with_retry(self.path, decide, obj=workload.title)
        self.workload = Workload.from_object(obj, self.kind)

    def _read_again(self, workload: Workload) -> Workload:
        """Read the workload with time to act: what the rollout had may be used up."""
        self.client.deadline = Deadline(self.params["timeout"])
        current = Workload.from_object(self.client.get(self.path, obj=workload.title), self.kind)
        self.workload = current
        return current
