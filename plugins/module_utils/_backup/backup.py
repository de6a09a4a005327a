# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what is there, decide, and make a backup where one is due. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
import uuid
from dataclasses import dataclass

from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker, PlanItem
from .._common.retry import Deadline
from . import catalogue, database, keys, plan, programs, rights
from .cleaning import Cleaning, find_interrupted
from .making import NewBackup, Setting
from .plan import SKEW, Decision, Retention, decide, explain_clock, explain_old_data, explain_old_result
from .summary import describe_backup, describe_streams, report_backup, report_bad, summarize_backup

if t.TYPE_CHECKING:
    from datetime import datetime, timedelta

    from .._common.outcome import Outcome
    from .._postgresql.connection import Session
    from .._s3.bucket import Bucket
    from .manifest import Identity, Manifest


@dataclass(frozen=True)
class Options:
    """What the module was asked for; durations in seconds unless typed otherwise."""

    max_age: timedelta
    interval: timedelta
    retention: Retention
    lock_timeout: int
    timeout: int
    max_parts: int
    role_passwords: bool
    encryption: str | None
    jobs: int
    bin_dir: str | None


@dataclass(frozen=True)
class State:
    """What there is: the decision, the newest verified backup, what does not count, and what would be removed."""

    now: datetime
    data: database.DataMoment
    decision: Decision
    found: catalogue.Findings
    interrupted: list[catalogue.Run]
    unfinished: list[catalogue.Run]
    prunable: list[tuple[catalogue.Run, Manifest]]
    clock_problem: str | None

    @property
    def doomed(self) -> list[catalogue.Run]:
        """Return the runs that are to be removed, in order."""
        return [*self.interrupted, *(run for run, _manifest in self.prunable)]


class Backup:
    """The work of one module run on one database and one place; ``warn`` tells of what was left undone."""

    def __init__(
        self,
        *,
        session: Session,
        bucket: Bucket,
        place: keys.Place,
        options: Options,
        outcome: Outcome,
        warn: t.Callable[[str], None],
    ) -> None:
        self._session = session
        self._bucket = bucket
        self._manifests = catalogue.Manifests(bucket)
        self._place = place
        self._options = options
        self._outcome = outcome
        self._warn = warn
        self._deadline = Deadline(options.timeout)
        self._left_out: list[str] = []

    def ensure(self, *, check: bool) -> None:
        """Read, plan, and unless ``check`` do what is due."""
        state = self._read()
        self._report(state)
        if not state.decision.due:
            self._summarize(state, made=None, check=check)
            return
        found_programs = programs.find_programs(self._session, bin_dir=self._options.bin_dir, deadline=self._deadline)
        newer = programs.explain_newer(self._session.server.version // 10000, found_programs.version)
        if check and newer is not None:
            self._warn(f"{found_programs.pg_dump}: {newer}.")
        lock = database.Lock(self._session)
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
            self._refuse_old_data(state, state.data)
            rights.refuse_lacking(
                self._session, role_passwords=self._options.role_passwords, blockers=self._outcome.blockers
            )
            database.refuse_few_connections(self._session, self._options.jobs)
            plan.refuse_large_parts(
                database.read_size(self._session) // self._options.jobs, max_parts=self._options.max_parts
            )
            self._left_out = rights.read_left_out(self._session)
            for words in self._left_out:
                self._warn(f"{self._session.settings.target}: {words}.")
        self._plan(state)
        made: Manifest | None = None
        if check:
            self._outcome.changed = state.decision.due
        elif state.decision.due:
            made = self._make(lock, found_programs, state)
            self._clean(state, made)
        self._summarize(state, made=made, check=check)

    def _refuse_old_data(self, state: State, data: database.DataMoment) -> None:
        """Refuse a standby, paused or behind, whose ``data`` would make no backup that counts."""
        if data.is_current:
            return
        problem = explain_old_data(
            moment=data.moment, newest=state.found.newest, now=state.now, max_age=self._options.max_age
        )
        if problem is None:
            return
        raise Refusal(
            obj=self._session.settings.target,
            problem=f"this standby {'is paused' if data.is_paused else 'lags behind'}: {problem}",
            next_step="Resume its replay (pg_wal_replay_resume())"
            if data.is_paused
            else "Find out why it does not receive or replay (pg_stat_wal_receiver, and its log), or dump the primary."
            " Where nothing has been written, name the primary in login_host, after this standby, so that it can say so",
        )

    def _read(self) -> State:
        """Read the state: one S3 request, plus one for each manifest looked at, normally one."""
        now = self._now()
        data = database.read_moment(self._session, database.ask_primary(self._session))
        identity = database.read_identity(self._session)
        runs = catalogue.group(self._bucket.list_objects(self._place.root), self._place.prefix)
        server_time = self._bucket.server_time
        found = catalogue.find_newest(self._manifests, runs, identity, latest=now + SKEW)
        options = self._options
        decision = decide(newest=found.newest, now=now, max_age=options.max_age, interval=options.interval)
        interrupted: list[catalogue.Run] = []
        unfinished: list[catalogue.Run] = []
        prunable: list[tuple[catalogue.Run, Manifest]] = []
        problem: str | None = None
        if decision.due:
            interrupted, unfinished = find_interrupted(
                self._bucket, runs, now=server_time or now, timeout=options.timeout
            )
            examined = self._examine_own(runs, identity)
            manifests = [manifest for _run, manifest in examined]
            chosen = options.retention.choose(manifests, now=now, taken_at=data.moment)
            newest_taken = max((manifest.taken_at for manifest in manifests), default=None)
            problem = explain_clock(now=now, server_time=server_time, newest_taken=newest_taken) if chosen else None
            names = {manifest.run_id for manifest in chosen} if problem is None else set()
            prunable = [(run, manifest) for run, manifest in reversed(examined) if manifest.run_id in names]
        return State(now, data, decision, found, interrupted, unfinished, prunable, problem)

    def _examine_own(self, runs: t.Iterable[catalogue.Run], identity: Identity) -> list[tuple[catalogue.Run, Manifest]]:
        """Return the verified backups of this server, newest first; only where some of them may have to go."""
        if not self._options.retention.is_limited:
            return []
        own = []
        for run in runs:
            if not run.is_published:
                continue
            examined = catalogue.examine(self._manifests, run)
            manifest = examined.manifest
            if manifest is not None and examined.verified and identity.explain_foreign(manifest) is None:
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
                what=f"dump{describe_streams(self._options.jobs)}, upload, verify by a full decode, publish",
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

    def _now(self) -> datetime:
        """Ask for the database server's clock."""
        now: datetime = self._session.query("SELECT pg_catalog.clock_timestamp()")[0][0]
        return now

    def _make(self, lock: database.Lock, found_programs: programs.Programs, state: State) -> Manifest:
        """Make a backup and read it back as the next run will. Its own snapshot is judged again, before it is dumped."""
        options = self._options
        setting = Setting(
            session=self._session,
            lock=lock,
            bucket=self._bucket,
            place=self._place,
            programs=found_programs,
            deadline=self._deadline,
            timeout=options.timeout,
            lock_timeout=options.lock_timeout,
            max_parts=options.max_parts,
            role_passwords=options.role_passwords,
            encryption=options.encryption,
            jobs=options.jobs,
            token=uuid.uuid4().hex,
            refuse_data=lambda data: self._refuse_old_data(state, data),
            warn=self._warn,
            left_out=self._left_out,
        )
        made = NewBackup(setting, self._outcome).make()
        runs = catalogue.group(self._bucket.list_objects(self._place.key(made.run_id, "")), self._place.prefix)
        examined = [catalogue.examine(self._manifests, run) for run in runs]
        if not examined or not examined[0].verified:
            raise OpsError(
                obj=self._place.url(self._place.key(made.run_id, keys.MANIFEST)),
                problem=f"published, but {examined[0].problem if examined else 'it is not in the listing'}",
                next_step="Look who else writes below this prefix, and run again",
            )
        self._outcome.facts["backup"] = report_backup(made, self._now(), self._place)
        return made

    def _clean(self, state: State, made: Manifest) -> None:
        """Remove what the plan says, and nothing newer than ``made``, which counts whatever comes of this."""
        cleaning = Cleaning(self._bucket, self._place)
        problem = explain_old_result(made=made, now=self._now(), max_age=self._options.max_age)
        if problem is not None and state.prunable:
            self._warn(f"{self._place.url()}: {problem}. Find out why its data is that old.")
        prunable = [run for run, manifest in state.prunable if problem is None and manifest.taken_at <= made.taken_at]
        if state.interrupted:
            cleaning.abort_uploads(state.interrupted)
        cleaning.remove([*state.interrupted, *prunable])
        self._outcome.facts["removed"] = cleaning.removed
        if cleaning.warning is not None:
            self._warn(cleaning.warning)

    def _summarize(self, state: State, *, made: Manifest | None, check: bool) -> None:
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
