# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_rollout: read, plan, ask, write, wait; on a failure name its cause and put back what there was.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import OpsError, Refusal
from ..._common.outcome import Outcome, PlanItem
from ..._common.timestamps import format_utc
from .. import rollout_summary as words
from ..cluster import check_identity, connect, disconnect, read_object
from ..fields import Json, as_time
from ..objects import Pod, Workload
from ..patches import Write
from ..plans.rollout import FINISH_UNDO, ROLL, Declared, Plan, is_settled, plan_rollout, read_declared
from ..plans.rollout_undo import read_partition
from ..pod_templates import RESTARTED_AT, find_schema_problem, fingerprint, list_images
from ..preflight import Planned, check_answer, check_rights
from ..resources import find_resource
from ..reviews import Right
from ..revisions import KINDS_OF_REVISIONS, find_current
from ..rollout_cause import Cause, find_digest_problem, find_mixed_tags, find_other_digests, find_start, list_image_ids
from ..rollout_conditions import has_just_restarted, may_be_held
from ..rollout_guards import find_rollout_blockers
from ..rollout_notes import UNDOING, is_same_rollout, read_note, read_temporaries
from ..temporary_ends import read_moment
from .rollout_undo import RolloutUndo

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


SKEW_SECONDS = 60.0
"""By so much the clocks of this machine and of the cluster may differ."""


class Rollout(RolloutUndo):
    """One run for one workload."""

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

    def _refuse_blocked(self, plan: Plan, workload: Workload) -> None:
        guards = self.params["guards"] if plan.changes_template else ()
        blockers, warnings = find_rollout_blockers(self.client, workload, plan, guards)
        for warning in warnings:
            self.module.warn(warning)
        if self.declared.undoes_run:  # what stands in its way may be what it takes back
            for blocker in blockers:
                self.module.warn(f"{workload.title}: {blocker.what}. {blocker.next_step}")
        elif blockers:
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
        since = as_time(note.at) if note is not None and note.phase != UNDOING else None
        if plan.step == ROLL:
            since = find_start(workload, self.at)
        # Whoever began it: what has to be waited for may crash again after each start.
        serve_seconds = self.params["serve_seconds"] if note is not None or not is_settled(workload) else 0.0
        failure = self._wait_for_pods(workload, plan.stuck, serve_seconds=serve_seconds, since=since)
        if failure is not None:
            self._fail(plan, failure, since or self.at)
            return
        workload = t.cast("Workload", self.workload)
        pods = self._list_pods(workload)
        if not serve_seconds and has_just_restarted(pods, self.params["serve_seconds"], now=self.at):
            # Between two crashes a container without a probe is ready.
            failure = self._wait_for_pods(workload, plan.stuck, serve_seconds=self.params["serve_seconds"], since=since)
            if failure is not None:
                self._fail(plan, failure, since or self.at)
                return
            pods = self._list_pods(workload)
        problem = self._read_images(workload, pods)
        if problem is not None:
            current = self._read_again(workload)
            cause = Cause("WrongImage", problem.obj, problem.problem, problem.next_step)
            self._fail_by(plan, current, cause, problem)
        if note is not None:
            self._complete(workload, note)
        self.state = words.DONE if note is not None else words.AS_DECLARED

    def _read_images(self, workload: Workload, pods: t.Sequence[Pod]) -> OpsError | None:
        self.revisions = self._list_revisions(workload)
        current = find_current(self.revisions, workload)
        newest = [pod for pod in pods if current is None or pod.template_hash == current.hash]
        self.images = list_image_ids(newest)
        template = workload.template
        for warning in [*find_mixed_tags(template, self.images), *find_other_digests(template, self.images)]:
            self.module.warn(warning)
        return find_digest_problem(template, newest)

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
        note, number = read_note(workload), current.number if current is not None else 0
        facts["workload"] = {
            "title": workload.title,
            "replicas": workload.replicas,
            "partition": read_partition(workload),
            "run_id": note.run_id if note is not None and note.is_of(workload, number) else "",
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
