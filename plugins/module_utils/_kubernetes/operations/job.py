# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of k8s_job: find the Job of a key or create it, wait for its turn, start it, wait for its end, keep its log.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import math
import os
import typing as t

from ..._common.errors import OpsError, Refusal, WaitError, WaitFailed, WaitTimeout
from ..._common.outcome import Outcome, PlanItem
from ..._common.redaction import Redactor
from ..._common.retry import Deadline
from ..._common.text import join_some
from ..._common.timestamps import format_utc
from .. import job_work, summary
from ..cache import Cache
from ..client import Client, Listing
from ..cluster import check_identity, connect, disconnect
from ..conditions import Condition
from ..diagnosis import GracePeriod
from ..errors import ApiError, Conflict, NotFound, WriteUnknown
from ..evidence import read_known_secrets
from ..fields import Json, as_dict, get_path
from ..files import read_text, write_private
from ..job_conditions import JobDone, JobEnding, Turn
from ..job_options import read_request
from ..logs import Log, allow_seconds, list_logs
from ..objects import ContainerState, Job, Pod
from ..patches import Write
from ..plans import job as plans
from ..preflight import refuse_missing
from ..resources import collection_path, find_resource, format_title, object_path
from ..reviews import Right, require_rights
from ..selectors import format_selector
from ..wait import wait_until

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

REPORT_SECONDS = 10.0
"""For reading what became of a Job, also after the deadline."""
WITHDRAW_SECONDS = 5.0
"""Kept of the time, for deleting a Job whose turn did not come."""
PATIENCE = {"CrashLoopBackOff": math.inf}
"""How often a pod may fail is the Job's business (backoffLimit)."""


class JobRun:
    """One run of k8s_job."""

    def __init__(self, module: AnsibleModule, outcome: Outcome, client: Client) -> None:
        self.params = module.params
        self.module = module
        self.outcome = outcome
        self.client = client
        self.namespace = str(self.params["namespace"])
        self.grace = GracePeriod(self.params["failure_grace_factor"], PATIENCE)
        self.is_keyed = bool(self.params["key"] or self.params["run_id"])
        self.request = read_request(client, module.params)
        self.job: Job | None = None
        self.decision = plans.Decision("create", "", 1)
        self.created = False
        self.is_withdrawn = False
        self.until = 0.0
        self.spared: set[str] = set()
        self.end: plans.Exit | None = None
        self.work: job_work.Work | None = None
        self.kept_logs: list[Log] = []

    def run(self) -> None:
        """Fill the outcome; raise OpsError."""
        self._decide()
        self._describe()
        if self.decision.action == "changed":
            raise self._explain_changed()
        self.outcome.facts["key"] = self.request.key
        if self.decision.action in ("create", "wait"):
            self._check_rights()
        try:
            self._perform()
        finally:
            self._summarize()

    def _perform(self) -> None:
        if not self.module.check_mode:
            self._ensure()
        if self.decision.action in ("done", "failed"):
            self._report()
            if self.decision.action == "failed":
                raise self._explain_earlier_failure()
            return
        if self.module.check_mode:
            if self.request.lock:
                self._report_holders()
            return
        try:
            if self.request.lock:
                self._take_turn()
            self._await_end()
        except WaitError as error:
            raise self._explain(error) from error
        self._report()

    # --- what is asked for ------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Decide what is to be done. A Job that has failed is not repeated while its work is done, or may be."""
        decision = plans.decide(self.request, self._list_jobs(), on_failed=self.params["on_failed"])
        failed = decision.job
        if decision.action == "create" and failed is not None:
            work = job_work.read_work(failed, self._list_pods(failed))
            if job_work.forbids_again(failed, work):
                decision = plans.Decision("failed", failed.name, decision.attempt - 1, failed)
        self.decision, self.job = decision, decision.job

    def _list_jobs(self) -> list[Job]:
        """Return the Jobs with this key."""
        listing = self._list("Job", f"{plans.KEY_LABEL}={self.request.key_label}")
        return [Job.from_object(obj) for obj in listing.items]

    def _list(self, kind: str, labels: str) -> Listing:
        path = collection_path(kind, self.namespace)
        return self.client.list(path, obj=f"{kind}s of namespace {self.namespace}", params={"labelSelector": labels})

    def _check_rights(self) -> None:
        """Refuse before the first write what the server would refuse later, the log as evidence included."""
        jobs, pods = find_resource("Job"), find_resource("Pod")
        verbs = ["create", "get", "list", "patch", *(["delete"] if self.request.lock else [])]
        rights = [Right(verb, jobs, self.namespace) for verb in verbs]
        rights += [Right("list", pods, self.namespace), Right("get", pods, self.namespace, subresource="log")]
        refuse_missing(self.client, require_rights(self.client, rights))

    def _describe(self) -> None:
        """Add the plan and the diff."""
        title = format_title("Job", self.namespace, self.decision.name)
        if self.decision.action == "create":
            before = self.decision.job
            why = f"key {self.request.key} has no Job yet"
            if before is not None:
                why = f"attempt {self.decision.attempt - 1} with key {self.request.key}, {before.title}, has failed"
            source = "from the template"
            if self.request.cron_job is not None:
                source = f"from {self.request.cron_job.title}"
            elif self.params["from_workload"]:
                like = self.params["from_workload"]
                source = f"like a pod of {format_title(like['kind'], self.namespace, like['name'])}"
            lock = f", when it has the lock {self.request.lock}" if self.request.lock else ""
            self.outcome.plan.append(PlanItem(title, f"create {source} and run{lock}", why, reversible=False))
            self.outcome.before, self.outcome.after = {"job": None}, {"job": self.decision.name}
        elif self.decision.action == "wait" and self.job is not None:
            self._warn_of_deadline(self.job)
        if self.decision.action == "wait" and self.job is not None and plans.is_unstarted(self.job):
            why = f"a run was cut off before it had the lock {self.request.lock}"
            self.outcome.plan.append(PlanItem(title, "start", why, reversible=False))
            self.outcome.before, self.outcome.after = {"suspend": True}, {"suspend": False}
        self.outcome.changed = self.module.check_mode and bool(self.outcome.plan)

    def _warn_of_deadline(self, job: Job) -> None:
        """Say that a Job keeps the deadline that it was made with."""
        own, asked = get_path(job.raw, "spec", "activeDeadlineSeconds"), self.request.spec["activeDeadlineSeconds"]
        if own != asked:
            self.module.warn(
                f"{job.title}: it was made with a deadline of {own} s, which counts, and not {asked} s as given now"
            )

    # --- the Job ----------------------------------------------------------------------------------------------------

    def _ensure(self) -> None:
        """Create the Job unless there is one. A rival with the same key may create it first: then it is the Job."""
        while self.decision.action == "create":
            now = self.client.read_server_clock()
            self.until = now + self._count_lock_seconds() + plans.CLAIM_MARGIN
            body = plans.build_job(self.request, self.decision, run_id=self.client.run_id, now=now, until=self.until)
            path = object_path("Job", self.namespace, self.decision.name)
            title = format_title("Job", self.namespace, self.decision.name)
            obj, created = self.client.create_named(collection_path("Job", self.namespace), path, body, obj=title)
            job = Job.from_object(obj)
            if get_path(obj, "metadata", "labels", plans.KEY_LABEL) != self.request.key_label:
                raise Refusal(
                    obj=job.title,
                    problem="a Job of this name exists, and was not made by this module",
                    next_step="Delete it, or give another name_prefix or key",
                )
            self.job = job
            if created:
                self.created = True
                return
            self._decide()
        if self.decision.action == "changed":
            raise self._explain_changed()

    def _count_lock_seconds(self) -> float:
        """Return for how long the turn is waited for."""
        left = self.client.deadline.remaining
        limit = max(left - min(WITHDRAW_SECONDS, self.client.deadline.seconds / 10), 0.0)
        asked = self.params["lock_timeout"]
        return limit if asked is None else min(float(asked), limit)

    def _take_turn(self) -> None:
        """Wait until nobody comes before the Job, and start it; at the end of the time delete it and refuse."""
        deadline = Deadline(self._count_lock_seconds())
        if not self._take_number(deadline):
            return
        while True:
            holders = self._await_turn(deadline)
            if not holders:
                break
            if self._remove_abandoned(holders):
                continue
            if deadline.passed:
                raise self._withdraw(holders, deadline)
        self._start()

    def _take_number(self, deadline: Deadline) -> bool:
        """Give the Job its number in the queue; return whether it still has to be started."""
        self.until = until = self.client.read_server_clock() + deadline.remaining + plans.CLAIM_MARGIN
        others = self._list_of_lock()
        self._patch(lambda obj: plans.plan_number(Job.from_object(obj), others, run_id=self.client.run_id, until=until))
        return plans.is_unstarted(self._get_job())

    def _list_of_lock(self) -> list[Job]:
        return [Job.from_object(obj) for obj in self._list("Job", f"{plans.LOCK_LABEL}={self.request.lock}").items]

    def _report_holders(self) -> None:
        """Say in a rehearsal who has the lock now, which need not be so by then."""
        own = self.job or Job.from_object({})
        for holder in plans.find_holders(own, self._list_of_lock(), [], lock=self.request.lock, cron_job_uid=""):
            self.outcome.blockers.append(summary.name_holder(holder, self.request.lock))

    def _await_turn(self, deadline: Deadline) -> list[plans.Holder]:
        """Wait for the Job's turn; return who still comes before it when time is up, or when one of them can be removed."""
        request = self.request
        job = self._get_job()
        turn = Turn(job, lock=request.lock, cron_job_uid=request.cron_job_uid)
        labels = f"{plans.LOCK_LABEL}={request.lock}"
        with Cache(self.client) as cache:
            # In this order: a pod that is left of a Job which has ended by the first LIST is in the second one.
            cache.follow("Job", self.namespace, label_selector=None if request.cron_job_uid else labels)
            cache.follow("Pod", self.namespace, label_selector=labels)
            holders = turn.list_holders(cache.snapshot())
            ends = [
                holder.until - self.client.read_server_clock()
                for holder in holders
                if holder.until is not None and holder.uid not in self.spared
            ]
            seconds = min([deadline.remaining, *(max(end, 0.0) for end in ends)])
            try:
                wait_until(
                    [turn],
                    cache,
                    deadline=Deadline(seconds),
                    grace=self.grace,
                    outcome=self.outcome,
                    diagnose_after=math.inf,
                )
            except WaitTimeout:
                return turn.list_holders(cache.snapshot())
            finally:
                self._warn(cache)
            if holders:  # once more, by LISTs one after the other: watches of two kinds need not be equally fast
                cache.refresh()
            return turn.list_holders(cache.snapshot())

    def _remove_abandoned(self, holders: t.Sequence[plans.Holder]) -> bool:
        """Delete Jobs that were never started and whose runs wait no longer; return whether there were any."""
        now = self.client.read_server_clock()
        has_removed = False
        for holder in holders:
            if holder.until is None or holder.until > now or holder.uid in self.spared:
                continue
            if self._delete_unstarted(holder.title.rpartition("/")[2], holder.uid, now):
                why = f"run {holder.run_id} made it and was cut off before it started it"
                self.outcome.plan.append(PlanItem(holder.title, "delete", why, reversible=False))
                has_removed = True
            else:
                self.spared.add(holder.uid)
        return has_removed

    def _delete_unstarted(self, name: str, uid: str, until: float) -> bool:
        """Delete a Job only while it has never been started, and no run waits with it for longer than ``until``."""
        path, title = object_path("Job", self.namespace, name), format_title("Job", self.namespace, name)
        while True:
            try:
                obj = self.client.get(path, obj=title)
                job = Job.from_object(obj)
                claim = plans.read_claim(job)
                if job.uid != uid or not plans.is_unstarted(job) or claim is None or claim.until > until:
                    return False
                version = str(obj["metadata"]["resourceVersion"])
                self.client.delete(path, obj=title, uid=uid, version=version, propagation="Background")
            except NotFound:
                return True
            except (Conflict, WriteUnknown):
                if self.client.deadline.passed:
                    raise
            else:
                return True

    def _withdraw(self, holders: t.Sequence[plans.Holder], deadline: Deadline) -> OpsError:
        """Delete the Job whose turn did not come; return the Refusal that names who holds the lock."""
        job = self._get_job()
        with allow_seconds(self.client, Deadline(REPORT_SECONDS)):
            is_gone = self._delete_unstarted(job.name, job.uid, self.until)
        self.is_withdrawn = True
        holder = holders[0]
        words = join_some([f"{entry.title} ({entry.what}{_name_run(entry)})" for entry in holders], limit=3)
        rest = "it was deleted again, and never ran" if is_gone else "another run with the same key goes on with it"
        self.outcome.blockers += [summary.name_holder(entry, self.request.lock) for entry in holders]
        return Refusal(
            obj=job.title,
            problem=f"the lock {self.request.lock} is held after {deadline.seconds:.0f} s by {words}; {rest}",
            next_step=f"Wait for {holder.title} and run again, or raise lock_timeout; if nobody goes on with it,"
            f" delete it (kubectl delete {holder.title.split()[0].lower()} --namespace {self.namespace}"
            f" {holder.title.rpartition('/')[2]})",
        )

    def _start(self) -> None:
        self._patch(lambda obj: plans.plan_start(Job.from_object(obj)))

    def _patch(self, decide: t.Callable[[Json], Write | None]) -> None:
        """Change the Job, as long as it is the same one."""
        job = self._get_job()

        def decide_about_ours(obj: Json) -> Write | None:
            if obj["metadata"]["uid"] != job.uid:
                raise WaitFailed(
                    obj=job.title,
                    problem="it was deleted and created again by another client before it was started",
                    next_step="Find out who deleted it, and run again",
                )
            return decide(obj)

        path = object_path("Job", self.namespace, job.name)
        try:
            obj, _sent = self.client.patch_with_retry(path, decide_about_ours, obj=job.title)
        except NotFound as error:
            raise WaitFailed(
                obj=job.title,
                problem="it was deleted by another client before it was started",
                next_step="Find out who deleted it, and run again",
            ) from error
        self.job = Job.from_object(obj)

    def _await_end(self) -> None:
        job = self._get_job()
        listed = Listing([job.raw], str(job.raw["metadata"]["resourceVersion"]))
        # Of what fails, Kubernetes deletes pods that have not ended: at the deadline, and those that it restarts.
        ending, done = (form(self.namespace, job.name, job.uid) for form in (JobEnding, JobDone))
        with Cache(self.client) as cache:
            cache.follow("Job", self.namespace, name=job.name, listed=listed)
            try:
                self._wait(ending, cache)
                job = self._get_job()
                if not job.is_complete and not job.is_failed:
                    pods = self._list_pods(job)
                    self._note_work(pods)
                    self.kept_logs = self._read_logs(pods)
                # A failure that was seen together with its announcement was not judged yet: the announcement stays.
                self._wait(done, cache)
            finally:
                self._warn(cache)

    def _wait(self, condition: Condition, cache: Cache) -> None:
        """Wait until the Job is as it should be, and keep it as it is then."""
        job = self._get_job()
        deadline, grace = self.client.deadline, self.grace
        try:
            wait_until([condition], cache, deadline=deadline, grace=grace, outcome=self.outcome)
        finally:
            latest = cache.snapshot().find("Job", self.namespace, job.name)
            if latest is not None and Job.from_object(latest).uid == job.uid:
                self.job = Job.from_object(latest)

    def _get_job(self) -> Job:
        if self.job is None:
            raise AssertionError("unreachable: a Job is created or found first")
        return self.job

    def _warn(self, cache: Cache) -> None:
        for warning in cache.warnings:
            self.module.warn(warning)

    # --- what became of it ------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Set what is known of the Job: its pods, how they ended, their logs."""
        job = self._get_job()
        facts = self.outcome.facts
        with allow_seconds(self.client, Deadline(REPORT_SECONDS)):
            pods = self._list_pods(job)
        if self.decision.action in ("create", "wait") and not self.module.check_mode:
            self._note_work(pods)
        self.work = None if job.is_complete else job_work.read_work(self._get_job(), pods)
        end = plans.find_exit(pods, is_failed=not job.is_complete, own=plans.list_own_containers(job))
        logs = self._read_logs(pods)
        present = {log.pod for log in logs if log.text}
        logs += [log for log in self.kept_logs if log.pod not in present]
        facts["job"] = job.name
        facts["succeeded"], facts["failed_pods"] = job.succeeded, job.failed
        facts["exit_code"] = end.exit_code if end is not None else None
        facts["seconds"] = plans.measure_seconds(job)
        facts["logs"] = [log._asdict() for log in logs]
        facts["log"] = _choose_log(logs, end)
        self.end = end
        if self.params["log_file"] and not self.module.check_mode:
            self._save_logs(self.params["log_file"], job, logs)
        self.outcome.evidence = summary.list_job_evidence(job, end, logs, seconds=facts["seconds"])

    def _note_work(self, pods: t.Sequence[Pod]) -> None:
        """Keep on the Job what its pods say of its work, since Kubernetes deletes them when it fails."""
        job = self._get_job()
        work = None if job.is_complete else job_work.judge_work(job, pods)
        if work is None:
            return

        def decide_about_ours(obj: Json) -> Write | None:
            latest = Job.from_object(obj)
            return job_work.plan_note(latest, work) if latest.uid == job.uid else None

        path = object_path("Job", self.namespace, job.name)
        try:
            with allow_seconds(self.client, Deadline(REPORT_SECONDS)):
                obj, _sent = self.client.patch_with_retry(path, decide_about_ours, obj=job.title, first=job.raw)
        except ApiError as error:
            self.module.warn(f"{job.title}: it could not be noted on it that {work.describe()}: {error.problem}")
        else:
            self.job = Job.from_object(obj) if obj["metadata"]["uid"] == job.uid else job

    def _save_logs(self, path: str, job: Job, logs: t.Sequence[Log]) -> None:
        """Write the logs into a file, unless it has more of this Job than there is now: its pods do not stay."""
        kept = read_text(path) if os.path.exists(path) else ""
        lost = summary.find_lost_logs(kept, logs, job=f"{job.namespace}/{job.name}")
        if not lost:
            write_private(path, summary.format_logs(logs))
            return
        self.module.warn(
            f"file {path}: it is left as it was, since it has more than could be read of {job.title} now: {join_some(lost)}"
        )

    def _list_pods(self, job: Job) -> list[Pod]:
        selector = format_selector(as_dict(get_path(job.raw, "spec", "selector")))
        if not selector:
            return []
        pods = [Pod.from_object(obj) for obj in self._list("Pod", selector).items]
        return sorted(
            (pod for pod in pods if pod.owner_uid == job.uid), key=lambda pod: (pod.created_at or 0.0, pod.name)
        )

    def _read_logs(self, pods: t.Sequence[Pod]) -> list[Log]:
        def has_begun(_pod: Pod, container: ContainerState) -> bool:
            return not container.waiting_reason or container.restarts > 0

        return list_logs(
            self.client,
            list(reversed(pods)),
            redact=self._make_redactor(pods).redact,
            tail_lines=self.params["log_lines"],
            limit_bytes=self.params["log_bytes"],
            select=has_begun,
        )

    def _make_redactor(self, pods: t.Sequence[Pod]) -> Redactor:
        """Return what takes secrets out of logs: those that the pods use, as far as this account may read them."""
        if not pods:
            return Redactor()
        with allow_seconds(self.client, Deadline(REPORT_SECONDS)):
            known = read_known_secrets(self.client, self.namespace, [pods[-1].raw])
        return Redactor([*known, *self.client.access.secrets()])

    def _summarize(self) -> None:
        if self.is_withdrawn:
            title = format_title("Job", self.namespace, self.decision.name)
            self.outcome.summary = f"{title} did not run: another one has the lock {self.request.lock}"
            return
        self.outcome.summary = summary.summarize_job(
            format_title("Job", self.namespace, self.decision.name),
            self.decision.action,
            job=None if self.module.check_mode else self.job,
            created=self.created,
            seconds=self.outcome.facts.get("seconds"),
            key=self.request.key,
        )

    def _explain(self, error: WaitError) -> OpsError:
        """Return what a wait ended with, with how the container ended and its last line."""
        job = self._get_job()
        try:
            self._report()
        except OpsError as second:
            self.module.warn(f"{job.title}: its pods could not be read: {second}")
            return error
        if isinstance(error, WaitTimeout) and not self.is_keyed:
            return WaitTimeout(
                obj=error.obj,
                problem=error.problem,
                next_step=f"Run again with key={self.request.key} and a longer timeout to go on waiting for it; without a"
                " key another Job would be started",
            )
        if not job.is_failed:
            return error
        words, next_step = self._describe_failure(job)
        return WaitFailed(obj=error.obj, problem=f"{error.problem}{words}", next_step=next_step)

    def _describe_failure(self, job: Job) -> tuple[str, str]:
        """Return how a failed Job's work ended, to be added to a message, and what to do."""
        words = summary.describe_end(self.end, self.outcome.facts["log"])
        if self.work is not None and job_work.forbids_again(job, self.work):
            return f"; {self.work.describe()}{words}", job_work.advise(job, self.work)
        return words, (
            "Correct what its log says (in this result), and run again with on_failed=again, or with another key"
        )

    def _explain_earlier_failure(self) -> OpsError:
        job = self._get_job()
        words, next_step = self._describe_failure(job)
        return OpsError(
            obj=job.title,
            problem=f"it has failed before, with the same key {self.request.key}: {job.failure_message}{words}",
            next_step=next_step,
        )

    def _explain_changed(self) -> OpsError:
        job = self._get_job()
        state = "complete" if job.is_complete else "still active"
        return Refusal(
            obj=job.title,
            problem=f"it has the key {self.request.key} and is {state}, but was made from another template than is given now",
            next_step="Give another key for what is to run now"
            + ("" if job.is_complete else ", and wait for this Job or delete it"),
        )


def _name_run(holder: plans.Holder) -> str:
    since = f" since {format_utc(holder.since)}" if holder.since is not None else ""
    return f"{since}, of run {holder.run_id}" if holder.run_id else since


def _choose_log(logs: t.Sequence[Log], end: plans.Exit | None) -> str:
    """Return the log of the container that decided how the Job ended, else the first there is."""
    for log in logs:
        if end is not None and (log.pod, log.container) == (end.pod, end.container) and log.text:
            return log.text
    return next((log.text for log in logs if log.text), "")


def run_job(module: AnsibleModule, outcome: Outcome) -> None:
    """Run the Job that is asked for, unless it has been run, and report how it ended."""
    client = connect(module, seconds=module.params["timeout"])
    outcome.facts["run_id"] = client.run_id
    try:
        check_identity(client, module.params["cluster_uid"])
        JobRun(module, outcome, client).run()
    finally:
        disconnect(module, outcome, client)
