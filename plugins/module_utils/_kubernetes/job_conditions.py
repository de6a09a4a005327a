# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a Job has ended, and when it is its turn, as pure functions of a snapshot.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from .._common.text import format_count, join_some
from .conditions import CURRENT, FAILED, FIND_DELETER, IN_PROGRESS, NOT_FOUND, Status
from .job_work import is_about_to_fail
from .objects import Job, Pod, Workload
from .plans.job import Holder, find_holders
from .resources import find_resource
from .snapshot import Snapshot


class JobDone:
    """A Job has completed; a failed one, a deleted one and another one of the same name are failures."""

    def __init__(self, namespace: str, name: str, uid: str) -> None:
        self.resource = find_resource("Job")
        self.kind = self.resource.kind
        self.namespace = namespace
        self.name = name
        self.uid = uid

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without."""
        return ("Job",)

    def find_workload(self, snapshot: Snapshot) -> Workload | None:
        """Return the Job as it is now; None when it does not exist any more."""
        workload = snapshot.workload("Job", self.namespace, self.name)
        return workload if workload is not None and workload.uid == self.uid else None

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the Job stands."""
        title = f"Job {self.namespace}/{self.name}"
        obj = snapshot.find("Job", self.namespace, self.name)
        if obj is None:
            problem = "it does not exist any more, so it is not known how it ended"
            return Status(
                NOT_FOUND, title, problem, next_step="Set ttlSecondsAfterFinished higher; look for its effects"
            )
        job = Job.from_object(obj)
        if job.uid != self.uid:
            return Status(
                FAILED, title, "it was deleted and created again while it was waited for", next_step=FIND_DELETER
            )
        if job.is_failed:
            problem = f"it has failed after {format_count(job.failed, 'failed pod')}: {job.failure_message}"
            return Status(FAILED, title, problem, next_step="Look at the log of its last pod (kubectl logs job/NAME)")
        if job.is_complete:
            return Status(CURRENT, title, f"complete ({job.succeeded} succeeded)", 0)
        words = f"{job.succeeded} of {job.completions} succeeded, {job.active} active, {job.failed} failed"
        if job.suspended:
            writer = Workload.from_object(obj, "Job").writer or "an unknown writer"
            words, advice = f"suspended by {writer}, {words}", f"Find out why {writer} suspended it, and let it go on"
            return Status(IN_PROGRESS, title, words, job.completions, advice)
        return Status(IN_PROGRESS, title, words, job.completions)


class JobEnding(JobDone):
    """A Job has ended, or is about to fail: its pods, which Kubernetes deletes then, may still be there with their logs."""

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the Job stands."""
        obj = snapshot.find("Job", self.namespace, self.name)
        job = Job.from_object(obj or {})
        if job.uid == self.uid and is_about_to_fail(job):
            return Status(CURRENT, f"Job {self.namespace}/{self.name}", "it is about to fail")
        return super().evaluate(snapshot)


class Turn:
    """It is the turn of a Job that waits for a lock: nobody comes before it (``plans.job``).

    ``job`` has its number. The Jobs and pods of the lock are followed by the caller, and where the CronJob's active Jobs
    count too (``cron_job_uid``), all Jobs of the namespace.
    """

    def __init__(self, job: Job, *, lock: str, cron_job_uid: str) -> None:
        self.resource = find_resource("Job")
        self.kind = self.resource.kind
        self.namespace = job.namespace
        self.name = job.name
        self._job = job
        self._lock = lock
        self._cron_job_uid = cron_job_uid

    def needs(self) -> tuple[str, ...]:
        """Return the kinds that it cannot judge without, which the caller follows."""
        return ()

    def find_workload(self, snapshot: Snapshot) -> Workload | None:  # noqa: ARG002
        """Return None: a Job that has not been started has no pods."""
        return None

    def list_holders(self, snapshot: Snapshot) -> list[Holder]:
        """Return who comes before it; nobody once it has been started, by another run with the same key."""
        own = snapshot.find("Job", self.namespace, self.name)
        if own is not None and not Job.from_object(own).suspended:
            return []
        jobs = [Job.from_object(obj) for obj in snapshot.list_all("Job", self.namespace)]
        pods = [Pod.from_object(obj) for obj in snapshot.list_all("Pod", self.namespace)]
        return find_holders(self._job, jobs, pods, lock=self._lock, cron_job_uid=self._cron_job_uid)

    def evaluate(self, snapshot: Snapshot) -> Status:
        """Return where the Job stands."""
        obj = snapshot.find("Job", self.namespace, self.name)
        if obj is None or Job.from_object(obj).uid != self._job.uid:
            problem = f"it was deleted while it waited for the lock {self._lock}"
            return Status(NOT_FOUND, self._job.title, problem, next_step=FIND_DELETER)
        holders = self.list_holders(snapshot)
        if not holders and {"Job", "Pod"} <= snapshot.known:
            return Status(CURRENT, self._job.title, f"it has the lock {self._lock}")
        words = join_some([f"{holder.title} ({holder.what})" for holder in holders], limit=3)
        return Status(IN_PROGRESS, self._job.title, f"it waits for the lock {self._lock}: {words}")
