# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure that a verified backup is there: read what there is, decide, and have one made where one is due.

What differs between databases (their clock, their identity, how they are locked and dumped) is left to a subclass.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import abc
import typing as t
from dataclasses import dataclass

from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.retry import Deadline
from . import catalogue, keys
from .cleaning import Cleaning, find_interrupted
from .manifest import read_manifest
from .plan import SKEW, Decision, Retention, decide, explain_clock, explain_old_result
from .summary import describe_backup, report_backup, report_bad, summarize_backup

if t.TYPE_CHECKING:
    from datetime import datetime, timedelta

    from .._common.outcome import Outcome
    from .._s3.bucket import Bucket
    from .manifest import Origin, Published


@dataclass(frozen=True)
class Requirements:
    """What every backup is asked for; ``timeout`` in seconds."""

    max_age: timedelta
    interval: timedelta
    retention: Retention
    timeout: int


@dataclass(frozen=True)
class State:
    """What there is: the decision, the newest verified backup, what does not count, and what would be removed.

    ``moment`` is that of the data which a dump would have.
    """

    now: datetime
    moment: datetime
    decision: Decision
    found: catalogue.Findings
    interrupted: list[catalogue.Run]
    unfinished: list[catalogue.Run]
    prunable: list[tuple[catalogue.Run, Published]]
    clock_problem: str | None

    @property
    def doomed(self) -> list[catalogue.Run]:
        """Return the runs that are to be removed, in order."""
        return [*self.interrupted, *(run for run, _manifest in self.prunable)]


class Lock(t.Protocol):
    """What keeps two runs on one database apart."""

    def holder(self) -> Blocker | None:
        """Return who holds it; None when it is free."""

    def take(self) -> Blocker | None:
        """Take it, or return who holds it."""


class BackupRun(abc.ABC):
    """The work of one module run on one database and one place; ``warn`` tells of what was left undone."""

    layout: t.ClassVar[keys.Layout] = keys.POSTGRESQL
    dumping: str = "dump"

    def __init__(
        self,
        *,
        bucket: Bucket,
        place: keys.Place,
        requirements: Requirements,
        outcome: Outcome,
        warn: t.Callable[[str], None],
    ) -> None:
        self._bucket = bucket
        self._manifests = catalogue.Manifests(bucket, self.parse_manifest)
        self._place = place
        self._requirements = requirements
        self._outcome = outcome
        self._warn = warn
        self._deadline = Deadline(requirements.timeout)

    def parse_manifest(self, body: bytes) -> Published:
        """Return the manifest in ``body``, or raise NotAManifest."""
        return read_manifest(body)

    @abc.abstractmethod
    def read_clock(self) -> datetime:
        """Ask for the database server's clock."""

    @abc.abstractmethod
    def read_moment(self) -> datetime:
        """Ask of which moment the data of a dump would be."""

    @abc.abstractmethod
    def read_origin(self) -> Origin:
        """Ask which server this is."""

    @abc.abstractmethod
    def find_tools(self, *, check: bool) -> None:
        """Find the programs of a dump; refused where one is missing or does not fit. ``check`` is check mode."""

    @abc.abstractmethod
    def make_lock(self) -> Lock:
        """Return the lock of this database's backups, not taken yet."""

    @abc.abstractmethod
    def refuse_unfit(self, state: State) -> None:
        """Refuse what would end in no backup, or in one that lacks something; nothing has been written so far."""

    @abc.abstractmethod
    def make(self, state: State) -> Published:
        """Make a backup, under the lock."""

    def ensure(self, *, check: bool) -> None:
        """Read, plan, and unless ``check`` do what is due."""
        state = self._read()
        self._report(state)
        if not state.decision.due:
            self._summarize(state, made=None, check=check)
            return
        self.find_tools(check=check)
        lock = self.make_lock()
        holder = lock.holder() if check else lock.take()
        if holder is not None:
            self._outcome.blockers.append(holder)
            raise Refusal(
                obj=holder.object,
                problem=f"{holder.what}: {holder.holder}, since {holder.since or 'just now'}",
                next_step=holder.next_step,
            )
        if not check:
            state = self._read()  # the run that held the lock before may have finished in between
            self._report(state)
        if state.decision.due:
            self.refuse_unfit(state)
        self._plan(state)
        made: Published | None = None
        if check:
            self._outcome.changed = state.decision.due
        elif state.decision.due:
            made = self._make(state)
            self._clean(state, made)
        self._summarize(state, made=made, check=check)

    def _read(self) -> State:
        """Read the state: one S3 request, plus one for each manifest looked at, normally one."""
        now = self.read_clock()
        moment = self.read_moment()
        origin = self.read_origin()
        runs = catalogue.group(self._bucket.list_objects(self._place.root), self._place.prefix, self.layout)
        server_time = self._bucket.server_time
        found = catalogue.find_newest(self._manifests, runs, origin, latest=now + SKEW)
        options = self._requirements
        decision = decide(newest=found.newest, now=now, max_age=options.max_age, interval=options.interval)
        interrupted: list[catalogue.Run] = []
        unfinished: list[catalogue.Run] = []
        prunable: list[tuple[catalogue.Run, Published]] = []
        problem: str | None = None
        if decision.due:
            interrupted, unfinished = find_interrupted(
                self._bucket, runs, now=server_time or now, timeout=options.timeout
            )
            examined = self._examine_own(runs, origin)
            manifests = [manifest for _run, manifest in examined]
            chosen = options.retention.choose(manifests, now=now, taken_at=moment)
            newest_taken = max((manifest.taken_at for manifest in manifests), default=None)
            problem = explain_clock(now=now, server_time=server_time, newest_taken=newest_taken) if chosen else None
            names = {manifest.run_id for manifest in chosen} if problem is None else set()
            prunable = [(run, manifest) for run, manifest in reversed(examined) if manifest.run_id in names]
        return State(now, moment, decision, found, interrupted, unfinished, prunable, problem)

    def _examine_own(self, runs: t.Iterable[catalogue.Run], origin: Origin) -> list[tuple[catalogue.Run, Published]]:
        """Return the verified backups of this server, newest first; only where some of them may have to go."""
        if not self._requirements.retention.is_limited:
            return []
        own = []
        for run in runs:
            if not run.is_published:
                continue
            examined = catalogue.examine(self._manifests, run)
            manifest = examined.manifest
            if manifest is not None and examined.verified and origin.explain_foreign(manifest) is None:
                own.append((run, manifest))
        return own

    def _report(self, state: State) -> None:
        newest = state.found.newest
        self._outcome.facts |= {
            "due": state.decision.due,
            "why": state.decision.why,
            "backup": None if newest is None else report_backup(newest, state.now, self._place),
            "location": self._place.url(),
            "bad": [report_bad(examined) for examined in state.found.bad],
            "foreign": [report_bad(examined) for examined in state.found.foreign],
            "unfinished": [self._name(run) for run in state.unfinished],
            "removed": [],
        }
        self._outcome.before = {"verified_backup_is_recent": not state.decision.due}
        self._outcome.after = {"verified_backup_is_recent": True}

    def _name(self, run: catalogue.Run) -> str:
        return self._place.url(self._place.key(run.run_id, ""))

    def _plan(self, state: State) -> None:
        """Tell what is to be done, in order. The estimate is what the newest verified backup took."""
        if not state.decision.due:
            return
        newest = state.found.newest
        estimate = None if newest is None else round(newest.dump_seconds + newest.verify_seconds, 1)
        self._outcome.plan = [
            PlanItem(
                object=self._place.url(),
                what=f"{self.dumping}, upload, verify by a full decode, publish",
                why=state.decision.why,
                estimate=estimate,
            ),
            *(
                PlanItem(
                    self._name(run), "remove", "an interrupted run left it, and its time is over", reversible=False
                )
                for run in state.interrupted
            ),
            *(
                PlanItem(self._name(run), "remove", "retention keeps younger ones", reversible=False)
                for run, _manifest in state.prunable
            ),
        ]
        doomed = [self._name(run) for run in state.doomed]
        if doomed:
            self._outcome.before = {**self._outcome.before, "older_or_unfinished": doomed}
            self._outcome.after = {**self._outcome.after, "older_or_unfinished": []}
        if state.clock_problem is not None:
            blocker = Blocker(
                object=self._place.url(),
                what=f"no older backup is removed: {state.clock_problem}",
                holder="a clock that is wrong",
                next_step="Set the clocks by NTP; remove a backup that is dated in the future by hand",
            )
            self._outcome.blockers.append(blocker)
            self._warn(f"{blocker.object}: {blocker.what}. {blocker.next_step}.")

    def _make(self, state: State) -> Published:
        """Make a backup and read it back as the next run will."""
        made = self.make(state)
        runs = catalogue.group(
            self._bucket.list_objects(self._place.key(made.run_id, "")), self._place.prefix, self.layout
        )
        examined = [catalogue.examine(self._manifests, run) for run in runs]
        if not examined or not examined[0].verified:
            raise OpsError(
                obj=self._place.url(self._place.key(made.run_id, keys.MANIFEST)),
                problem=f"published, but {examined[0].problem if examined else 'it is not in the listing'}",
                next_step="Look who else writes below this prefix, and run again",
            )
        self._outcome.facts["backup"] = report_backup(made, self.read_clock(), self._place)
        return made

    def _clean(self, state: State, made: Published) -> None:
        """Remove what the plan says, and nothing newer than ``made``, which counts whatever comes of this."""
        cleaning = Cleaning(self._bucket, self._place)
        problem = explain_old_result(made=made, now=self.read_clock(), max_age=self._requirements.max_age)
        if problem is not None and state.prunable:
            self._warn(f"{self._place.url()}: {problem}. Find out why its data is that old.")
        prunable = [run for run, manifest in state.prunable if problem is None and manifest.taken_at <= made.taken_at]
        if state.interrupted:
            cleaning.abort_uploads(state.interrupted)
        cleaning.remove([*state.interrupted, *prunable])
        self._outcome.facts["removed"] = cleaning.removed
        if cleaning.warning is not None:
            self._warn(cleaning.warning)

    def _summarize(self, state: State, *, made: Published | None, check: bool) -> None:
        """Word the summary and the evidence from what was reported."""
        facts = self._outcome.facts
        url = None if facts["backup"] is None else f"{self._place.url()}{facts['backup']['run_id']}"
        doomed = [self._name(run) for run in state.doomed]
        self._outcome.summary = summarize_backup(
            database=self._place.database,
            url=url,
            decision=state.decision,
            check_mode=check,
            backup=None if made is None else facts["backup"],
            removed=doomed if check else facts["removed"],
        )
        if url is not None:
            self._outcome.evidence = [describe_backup(facts["backup"], url)]
