# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of k8s_rollout: name the cause of a failure, put the recorded revision back, or say what to do by hand.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import OpsError, Refusal, WaitFailed
from .. import rollout_summary as words
from ..errors import NotFound
from ..fields import Json
from ..objects import Workload
from ..patches import Write
from ..plans.rollout import Plan
from ..plans.rollout_undo import describe_by_hand, describe_resume, find_hold, find_pause, plan_undo, read_partition
from ..pod_templates import find_schema_problem, fingerprint, list_images
from ..revisions import Known, find_current, make_unnumbered
from ..rollout_cause import NODE_NOT_READY, Cause, complete_cause, find_cause, find_start, list_image_ids
from ..rollout_conditions import find_template_writer
from ..rollout_notes import UNDOING, is_same_rollout, read_note
from ..selectors import format_selector
from .rollout_steps import Failure, RolloutSteps

if t.TYPE_CHECKING:
    from ..rollout_notes import Note


class RolloutUndo(RolloutSteps):
    """The failure of a rollout, and its undo."""

    def _explain_no_undo(self, back: Known | None) -> str:
        """Return why a failure could not be undone; empty where it could."""
        if back is None:
            return "no earlier revision of it is known"
        return find_schema_problem(back.template, self.params["schema_version"])

    def _fail(self, plan: Plan, failure: Failure, since: float) -> None:
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
        self._refuse_held(workload, cause)
        if note.phase == UNDOING:
            self.state = words.NOT_UNDONE
            earlier = find_current(self._list_revisions(workload), workload) or make_unnumbered(workload.template)
            begun = f"what run {note.run_id} has rolled out is taken back"
            raise self._give_up(workload, earlier, begun, str(cause), failed=note.failed, next_step=cause.next_step)
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
            current = find_current(self._list_revisions(workload), workload)
            raise WaitFailed(
                obj=workload.title,
                problem=f"its rollout failed: {cause}; it was not undone, since {obstacle}",
                next_step=f"{cause.next_step} and run again, or {_describe_way_back(workload, back, current.hash if current else '')}",
            )
        self._undo(plan, workload, back, cause)

    def _refuse_held(self, workload: Workload, cause: Cause) -> None:
        """Raise the error of a rollout that somebody has paused or holds: they want it to stop and stay as it is."""
        note = read_note(workload)
        holder = find_hold(workload, note) if note is not None else ""
        if note is not None and holder:
            raise WaitFailed(
                obj=workload.title,
                problem=f"{holder} has changed its partition from {note.canary} to {read_partition(workload)} while it was"
                f" rolled out ({cause}); it stays as it is, and nothing is undone",
                next_step="Find out why it is held there, then declare the partition that it is to have and run again",
            )
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
            self._refuse_held(current, cause)
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
            failed_hash = failed.hash if failed else ""
            raise self._give_up(
                workload, back, f"its rollout failed: {cause}", error.problem, failed=failed_hash
            ) from error
        workload = self.workload = Workload.from_object(obj, self.kind)
        self._verify_undo(plan, workload, back, cause, failed.hash if failed else "")

    def _verify_undo(self, plan: Plan, workload: Workload, back: Known, cause: Cause, failed: str) -> t.NoReturn:
        try:
            note = read_note(workload)
            lacking = note.lacking if note is not None else 0
            failure = self._wait_for_pods(
                workload,
                failed,
                serve_seconds=self.params["serve_seconds"],
                since=find_start(workload, self.client.read_server_clock()),
                lacking=lacking,
            )
        except OpsError as error:
            raise self._give_up(workload, back, f"its rollout failed: {cause}", str(error), failed=failed) from error
        if failure is not None:
            problem, step = failure.error.problem, failure.error.next_step
            raise self._give_up(workload, back, f"its rollout failed: {cause}", problem, failed=failed, next_step=step)
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

    def _give_up(
        self, workload: Workload, back: Known, begun: str, problem: str, *, failed: str, next_step: str = ""
    ) -> OpsError:
        """Return the error of an undo that failed as well: nothing more is changed, and a person is told what to do."""
        current = t.cast("Workload", self.workload)
        if fingerprint(current.template) == fingerprint(back.template):
            step = f"{next_step or 'Look at its pods'}; its pod template is the earlier one again: see"
            step += f" kubectl describe pods --namespace {workload.namespace}"
            step += f" --selector {format_selector(workload.selector)!r}, then run again"
        else:  # another client has changed it since, or it could not be written
            way = f"Put it back by hand: {describe_by_hand(workload, back.number, failed)}"
            step = next_step or (way if back.number else "Declare a template that is known to serve")
        return WaitFailed(
            obj=workload.title,
            problem=f"{begun}; and the undo to {words.name_revision(back)} failed as well: {problem}",
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


def _describe_way_back(workload: Workload, back: Known | None, failed: str) -> str:
    """Return how a person puts an earlier revision back; without its number kubectl would take the one before, whatever it is."""
    if back is None or not back.number:
        return "declare a template that is known to serve"
    return f"put the earlier one back: {describe_by_hand(workload, back.number, failed)}"
