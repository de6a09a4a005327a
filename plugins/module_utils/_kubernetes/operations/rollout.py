# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_rollout: read, plan, ask, write, wait; on a failure name its cause and put back what there was.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import OpsError, Refusal, WaitError, WaitFailed
from ..._common.outcome import Outcome, PlanItem
from ..._common.redaction import Redactor
from ..._common.retry import Deadline
from ..._common.timestamps import format_utc
from .. import rollout_summary as words
from ..client import Client
from ..cluster import check_identity, connect, disconnect, read_object
from ..conditions import Condition
from ..errors import Conflict, NotFound
from ..fields import as_time
from ..objects import Pod, Workload
from ..plans.rollout import (
    FINISH_UNDO,
    ROLL,
    Declared,
    Plan,
    describe_by_hand,
    describe_resume,
    find_pause,
    is_settled,
    list_stuck_pods,
    plan_completion,
    plan_rollout,
    plan_undo,
    read_declared,
    read_partition,
)
from ..pod_templates import RESTARTED_AT, find_schema_problem, fingerprint, list_images
from ..preflight import Planned, check_answer, check_rights
from ..resources import collection_path, find_resource, object_path
from ..reviews import Right
from ..revisions import KINDS_OF_REVISIONS, Known, find_current, read_revisions
from ..rollout_cause import (
    NODE_NOT_READY,
    Cause,
    LogReader,
    complete_cause,
    find_cause,
    find_digest_problem,
    find_mixed_tags,
    find_other_digests,
    find_start,
    list_image_ids,
    make_redactor,
    read_last_lines,
    redact_blockers,
    redact_error,
)
from ..rollout_conditions import Observed, RolledOut, find_template_writer, may_be_held
from ..rollout_guards import find_rollout_blockers
from ..rollout_notes import UNDOING, Note, is_same_rollout, read_note, read_temporaries
from ..selectors import format_selector
from ..silent_nodes import describe_silent
from ..snapshot import Snapshot
from ..temporary_ends import read_moment
from ..workload_wait import follow_each, wait_for_workloads

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ..fields import Json
    from ..patches import Write

SKEW_SECONDS = 60.0
"""By so much the clocks of this machine and of the cluster may differ."""


class _Failure(t.NamedTuple):
    """A wait without success, and what was known then."""

    error: WaitError
    snapshot: Snapshot
    redactor: Redactor


class Rollout:
    """One run for one workload."""

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

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        try:
            self._run()
        finally:
            self._report()

    def _run(self) -> None:
        obj = read_object(self.client, self.kind, self.namespace, self.params["name"])
        self.at = self.client.read_server_clock()
        workload = self.workload = Workload.from_object(obj, self.kind)
        self.revisions = self._list_revisions(workload)
        self.declared = self._read_declared(workload)
        plan = self.plan = self._make_plan(workload)
        self._describe(plan, workload)
        if plan.step == ROLL:
            self._refuse_blocked(plan, workload)
        self._check_rights(plan, workload)
        if self.module.check_mode:
            self.outcome.changed = bool(self.outcome.plan)
            return
        if plan.step == FINISH_UNDO:
            self._finish_undo(plan, workload)
        if plan.write is not None:
            workload = self._write(workload)
            plan = self.plan
        self._settle(plan, workload)

    # --- reading and planning --------------------------------------------------------------------------------------

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

    def _read_declared(self, workload: Workload) -> Declared:
        run_id = self.client.run_id
        declared = read_declared(self.params, workload, self.revisions, run_id=run_id, at=self.at)
        return declared if declared.takes_back else declared._replace(restart=self._find_restart(workload))

    def _find_restart(self, workload: Workload) -> str:
        """Return the moment to write into the template; empty where no pod is older, or it is written already."""
        moment = read_moment("restarted_after", self.params["restarted_after"])
        if moment is None:
            return ""
        if moment > self.at + SKEW_SECONDS:
            raise Refusal(
                obj="option restarted_after",
                problem=f"{self.params['restarted_after']} is in the future, and no pod could be young enough",
                next_step="Set a moment that has passed",
            )
        annotations = (workload.template.get("metadata") or {}).get("annotations") or {}
        written = as_time(annotations.get(RESTARTED_AT))
        if written is not None and written >= moment:
            return ""
        older = [pod for pod in self._list_pods(workload) if pod.created_at is not None and pod.created_at < moment]
        return str(self.params["restarted_after"]) if older else ""

    def _make_plan(self, workload: Workload) -> Plan:
        plan = plan_rollout(
            workload,
            self.revisions,
            self.declared,
            run_id=self.client.run_id,
            now=format_utc(self.at),
            at=self.at,
            pods=() if is_settled(workload) else self._list_pods(workload),
        )
        if plan.step != ROLL:
            return plan
        problem = find_schema_problem(plan.template, self.params["schema_version"])
        if problem and plan.changes_template:
            raise Refusal(
                obj=f"pod template of {workload.title} ({', '.join(list_images(plan.template).values())})",
                problem=problem,
                next_step="Migrate the schema first, or declare a revision that works with it (schema_version)",
            )
        return plan

    def _describe(self, plan: Plan, workload: Workload) -> None:
        """Add plan and diff."""
        before, after = words.describe_edits(plan.edits)
        if self.declared.restart and plan.step == ROLL:
            after["pods not older than"] = self.declared.restart
        if plan.partition[0] != plan.partition[1]:
            before["partition"], after["partition"] = plan.partition
        if (self.declared.revision is not None or self.declared.undoes_run) and plan.changes_template:
            before.update(list_images(workload.template))
            after.update(list_images(plan.template))
        self.outcome.before, self.outcome.after = before, after
        if plan.what:
            reversible = plan.step != ROLL or self._explain_no_undo(plan.back) == ""
            self.outcome.plan.append(PlanItem(workload.title, plan.what, plan.why, reversible=reversible))

    def _explain_no_undo(self, back: Known | None) -> str:
        """Return why a failure could not be undone; empty where it could."""
        if back is None:
            return "no earlier revision of it is known"
        return find_schema_problem(back.template, self.params["schema_version"])

    def _refuse_blocked(self, plan: Plan, workload: Workload) -> None:
        guards = self.params["guards"] if plan.changes_template else ()
        blockers, warnings = find_rollout_blockers(self.client, workload, plan, guards)
        for warning in warnings:
            self.module.warn(warning)
        if blockers:
            self.outcome.blockers += blockers
            raise Refusal(
                obj=workload.title,
                problem=f"it cannot be rolled out: {'; '.join(blocker.what for blocker in blockers)}",
                next_step=blockers[0].next_step,
            )

    def _check_rights(self, plan: Plan, workload: Workload) -> None:
        may_delete = may_be_held(workload) and (self.params["on_failure"] == "undo" or plan.stuck != "")
        planned = []
        if plan.write is not None:
            planned.append(Planned(self.kind, workload.title, self.path, workload.raw, plan.write))
        check_rights(
            self.client,
            planned,
            namespace=self.namespace,
            reads={"Pod", KINDS_OF_REVISIONS[self.kind]},
            check_mode=self.module.check_mode,
            others=[Right("delete", find_resource("Pod"), self.namespace)] if may_delete else [],
        )

    # --- writing and waiting ---------------------------------------------------------------------------------------

    def _write(self, first: Workload) -> Workload:
        decided: list[Plan] = []

        def decide(obj: Json) -> Write | None:
            current = Workload.from_object(obj, self.kind)
            if fingerprint(current.template) != fingerprint(first.template):
                self.revisions = self._list_revisions(current)
            decided.append(self._make_plan(current))
            return decided[-1].write

        obj, sent = self.client.patch_with_retry(self.path, decide, obj=first.title, first=first.raw)
        plan = decided[-1]
        written = next((entry for entry in reversed(decided) if entry.step == ROLL), plan)
        self.plan = written if is_same_rollout(plan.note, written.note) else plan
        workload = self.workload = Workload.from_object(obj, self.kind)
        if sent and plan.write is not None:
            check_answer(obj, plan.write, workload.title)
        return workload

    def _settle(self, plan: Plan, workload: Workload) -> None:
        """Wait until the declared template serves, and say so on the object; undo what this collection began and failed."""
        note = plan.note
        if note is None and plan.step != ROLL and self.declared.takes_back:
            self.state = words.AS_DECLARED
            return
        self.state = words.BEGUN if note is not None else words.NOT_SERVING
        self._unstick(workload, plan.stuck)
        since = as_time(note.at) if note is not None and note.phase != UNDOING else None
        if plan.step == ROLL:
            since = find_start(workload, self.at)
        serve_seconds = self.params["serve_seconds"] if note is not None else 0.0
        condition = RolledOut(workload, None, serve_seconds=serve_seconds)
        failure = self._wait(workload, condition, since=since)
        if failure is not None:
            self._fail(plan, failure, since or self.at)
            return
        workload = t.cast("Workload", self.workload)
        pods = self._list_pods(workload)
        problem = self._read_images(workload, pods)
        if problem is not None:
            current = self._read_again(workload)
            cause = Cause("WrongImage", problem.obj, problem.problem, problem.next_step)
            self._fail_by(plan, current, cause, problem)
        if note is not None:
            self._complete(workload, note)
        self.state = words.DONE if note is not None else words.AS_DECLARED

    def _wait(self, workload: Workload, condition: Condition, *, since: float | None = None) -> _Failure | None:
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

    def _describe_failure(self, error: WaitError, snapshot: Snapshot, workload: Workload) -> _Failure:
        """Return a failed wait, from whose words the secrets are taken; what it was given of time may be used up."""
        self.client.deadline = Deadline(self.params["timeout"])
        redactor = make_redactor(self.client, workload, snapshot.list_pods(workload))
        self.outcome.blockers = redact_blockers(self.outcome.blockers, redactor)
        return _Failure(redact_error(error, redactor), snapshot, redactor)

    def _unstick(self, workload: Workload, failed: str) -> None:
        """Delete the pods of other revisions that are not ready: a StatefulSet may wait for them for ever.

        Only after its controller has seen the other template, or it would make them again as they were.
        """
        if not may_be_held(workload) or not failed:
            return
        failure = self._wait(workload, Observed(workload))
        if failure is not None:
            raise failure.error
        current = t.cast("Workload", self.workload)
        if fingerprint(current.template) != fingerprint(workload.template):
            return  # another client has changed it since, which the wait tells
        target = find_current(self._list_revisions(current), current)
        for pod in list_stuck_pods(current, target, self._list_pods(current)):
            if target is None and pod.template_hash != failed:
                continue
            path = object_path("Pod", pod.namespace, pod.name)
            try:
                self.client.delete(path, obj=pod.title, uid=pod.uid)
            except (NotFound, Conflict):
                continue  # its controller has replaced it already
            self.outcome.evidence.append(
                f"deleted {pod.title}, which was of revision {pod.template_hash} and not ready"
            )

    def _read_images(self, workload: Workload, pods: t.Sequence[Pod]) -> OpsError | None:
        self.revisions = self._list_revisions(workload)
        current = find_current(self.revisions, workload)
        newest = [pod for pod in pods if current is None or pod.template_hash == current.hash]
        self.images = list_image_ids(newest)
        template = workload.template
        for warning in [*find_mixed_tags(template, self.images), *find_other_digests(template, self.images)]:
            self.module.warn(warning)
        return find_digest_problem(template, newest)

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

    # --- failure and undo ------------------------------------------------------------------------------------------

    def _read_again(self, workload: Workload) -> Workload:
        """Read the workload with time to act: what the rollout had may be used up."""
        self.client.deadline = Deadline(self.params["timeout"])
        current = Workload.from_object(self.client.get(self.path, obj=workload.title), self.kind)
        self.workload = current
        return current

    def _fail(self, plan: Plan, failure: _Failure, since: float) -> None:
        """Name the cause and undo where that is asked for and possible; raise OpsError in any case."""
        known = t.cast("Workload", self.workload)
        cause, pod = find_cause(failure.error, failure.snapshot, known, since=since)
        try:
            current = self._read_again(known)
        except NotFound as error:
            raise failure.error from error
        note = read_note(current)
        is_other = plan.note is not None and not is_same_rollout(note, plan.note)
        if current.uid != known.uid or note is None or not note.is_of(current) or is_other:
            raise failure.error  # another run or client owns what is there now
        cause = complete_cause(self.client, cause, pod, self.read_log, failure.redactor)
        self._fail_by(plan, current, cause, failure.error)

    def _fail_by(self, plan: Plan, workload: Workload, cause: Cause, error: OpsError) -> t.NoReturn:
        self.cause, self.state = cause.reason, words.FAILED
        self.outcome.facts["cause"] = cause.as_dict()
        note = read_note(workload)
        if note is None or not self._is_own(plan, workload):
            raise error  # nothing that this run has begun or goes on with is under way
        self._refuse_paused(workload, cause)
        if note.lacking:
            cause = cause._replace(message=f"{cause.message}; {words.describe_lacking(note.lacking, workload)}")
            self.outcome.facts["cause"] = cause.as_dict()
        back = plan.back
        obstacle = self._explain_no_undo(back)
        if cause.reason == NODE_NOT_READY:
            obstacle = "that would hold an undo up as well"
        if self.params["on_failure"] == "stop":
            obstacle = "on_failure is stop"
        if obstacle or back is None:
            number = back.number if back is not None else None
            raise WaitFailed(
                obj=workload.title,
                problem=f"its rollout failed: {cause}; it was not undone, since {obstacle}",
                next_step=f"{cause.next_step} and run again, or put the earlier one back:"
                f" {describe_by_hand(workload, number)}",
            )
        self._undo(plan, workload, back, cause)

    def _refuse_paused(self, workload: Workload, cause: Cause) -> None:
        """Raise the error of a rollout that somebody has paused: they want it to stop and stay as it is."""
        pauser = find_pause(workload)
        if pauser:
            raise WaitFailed(
                obj=workload.title,
                problem=f"its rollout was paused by {pauser} ({cause}); it stays as it is, and nothing is undone",
                next_step=f"Resume it ({describe_resume(workload)}), then run again",
            )

    def _is_own(self, plan: Plan, workload: Workload) -> bool:
        """Return whether what is under way on the workload is the rollout that the plan began or goes on with."""
        note = read_note(workload)
        return (
            note is not None
            and not note.is_settled(workload)
            and note.is_of(workload)
            and is_same_rollout(note, plan.note)
        )

    def _undo(self, plan: Plan, workload: Workload, back: Known, cause: Cause) -> t.NoReturn:
        """Put the recorded revision back, verified; raise what the rollout failed by.

        Only where the note is of the same rollout: the write tests both it and the template.
        """
        self.state = words.NOT_UNDONE
        failed = find_current(self._list_revisions(workload), workload)

        def decide(obj: Json) -> Write | None:
            current = Workload.from_object(obj, self.kind)
            self._refuse_paused(current, cause)
            note = read_note(current) if self._is_own(plan, current) else None
            if note is not None and note.phase == UNDOING:
                return None  # the answer was lost
            text = f"{cause.reason}: {cause.object}: {cause.message}"
            made = plan_undo(current, note, back, failed=failed.hash if failed else "", cause=text) if note else None
            if made is None:
                raise Refusal(
                    obj=current.title,
                    problem=f"its rollout failed: {cause}; {find_template_writer(current)} has changed its pod template"
                    " since, so that nothing is undone",
                    next_step="Find out who changed it, and look at what it is now",
                )
            return made[0]

        try:
            obj, _sent = self.client.patch_with_retry(self.path, decide, obj=workload.title, first=workload.raw)
        except (Refusal, WaitFailed):
            raise
        except OpsError as error:
            raise self._give_up(workload, back, cause, error.problem) from error
        workload = self.workload = Workload.from_object(obj, self.kind)
        self._verify_undo(plan, workload, back, cause, failed.hash if failed else "")

    def _verify_undo(self, plan: Plan, workload: Workload, back: Known, cause: Cause, failed: str) -> t.NoReturn:
        try:
            self._unstick(workload, failed)
            note = read_note(workload)
            lacking = note.lacking if note is not None else 0
            condition = RolledOut(workload, None, serve_seconds=self.params["serve_seconds"], lacking=lacking)
            failure = self._wait(workload, condition, since=find_start(workload, self.client.read_server_clock()))
        except OpsError as error:
            raise self._give_up(workload, back, cause, str(error)) from error
        if failure is not None:
            raise self._give_up(workload, back, cause, failure.error.problem, failure.error.next_step)
        workload = t.cast("Workload", self.workload)
        note = t.cast("Note", read_note(workload))
        if note.lacking:
            self.outcome.evidence.append(words.describe_lacking(note.lacking, workload))
        self._complete(workload, t.cast("Note", plan.note))
        self.revisions = self._list_revisions(workload)
        self.images = list_image_ids(self._list_pods(workload))
        self.state = words.UNDONE
        self.outcome.facts["rolled_back"] = True
        number = find_current(self.revisions, workload)
        raise WaitFailed(
            obj=workload.title,
            problem=f"its rollout failed: {cause}; it was undone, and {words.name_revision(number or back)}"
            f" ({', '.join(list_images(back.template).values())}) {words.describe_return(workload)}",
            next_step=cause.next_step,
        )

    def _give_up(self, workload: Workload, back: Known, cause: Cause, problem: str, next_step: str = "") -> OpsError:
        """Return the error of an undo that failed as well: nothing more is changed, and a person is told what to do."""
        current = t.cast("Workload", self.workload)
        if fingerprint(current.template) == fingerprint(back.template):
            step = f"{next_step or 'Look at its pods'}; its pod template is the earlier one again: see"
            step += f" kubectl describe pods --namespace {workload.namespace}"
            step += f" --selector {format_selector(workload.selector)!r}, then run again"
        else:  # another client has changed it since, or it could not be written
            step = next_step or f"Put it back by hand: {describe_by_hand(workload, back.number)}"
        return WaitFailed(
            obj=workload.title,
            problem=f"its rollout failed: {cause}; and the undo to {words.name_revision(back)} failed as well: {problem}",
            next_step=step,
        )

    def _finish_undo(self, plan: Plan, workload: Workload) -> t.NoReturn:
        """Go on with an undo that another run began, and fail as it would have."""
        note = t.cast("Note", plan.note)
        reason, _colon, rest = note.cause.partition(": ")
        obj, _colon, message = rest.partition(": ")
        cause = Cause(reason, obj, message, "Correct what the cause names, then run again")
        self.cause, self.state = cause.reason, words.NOT_UNDONE
        self.outcome.facts["cause"] = cause.as_dict()
        back = plan.back or Known(note.back[0], note.back[1], "", workload.template)
        self._verify_undo(plan, workload, back, cause, note.failed)

    # --- reporting -------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Set what is known, also on a failure."""
        facts, workload, plan = self.outcome.facts, self.workload, self.plan
        facts.setdefault("rolled_back", False)
        facts.setdefault("cause", None)
        if workload is None:
            return
        current = find_current(self.revisions, workload)
        before = plan.current if plan is not None else current
        note = read_note(workload)
        facts["workload"] = {
            "title": workload.title,
            "replicas": workload.replicas,
            "partition": read_partition(workload),
            "run_id": note.run_id if note is not None and note.is_of(workload) else "",
        }
        facts["revisions"] = [entry.as_dict() for entry in self.revisions]
        facts["images"] = list_images(workload.template)
        facts["pods"] = self.images
        facts["revision"] = {
            "before": before.number if before is not None else None,
            "after": current.number if current is not None else None,
        }
        facts["temporary"] = [
            {"until": entry.until, "what": [edit.describe() for edit in entry.edits]}
            for entry in read_temporaries(workload)
        ]
        if plan is None:
            return
        if self.module.check_mode and not self.outcome.plan:
            self.state = words.AS_DECLARED
        elif self.state == words.PLANNED and self.outcome.changed and not self.module.check_mode:
            self.state = words.BEGUN  # it was written, or may have been
        self.outcome.summary = words.summarize_rollout(
            workload,
            self.state,
            what=plan.what,
            revision=current,
            cause=self.cause,
            partition=plan.partition[1],
            aside=self.aside,
        )
        self.outcome.evidence += words.list_rollout_evidence(workload, self.images, current)


def run_rollout(module: AnsibleModule, outcome: Outcome) -> None:
    """Read, plan, apply unless check mode, wait, undo on a failure, report."""
    client = connect(module, seconds=module.params["timeout"])
    outcome.facts["run_id"] = client.run_id
    try:
        check_identity(client, module.params["cluster_uid"])
        Rollout(module, outcome, client).run()
    finally:
        disconnect(module, outcome, client)
