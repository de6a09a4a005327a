# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read, decide, and make a backup where one is due. Private to lowtide.ops: do not import from other collections.

A run that has nothing to do ends after one query and three S3 requests, and imports no boto3.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._common.dependencies import require
from .._common.errors import Refusal
from .._common.retry import Deadline
from .._postgresql.connection import driver_error
from .._postgresql.errors import sql_error
from . import catalogue, database
from .make import apply
from .plan import Decision, bad_summary, decide, describe_backup, plan, summarize_backup, summary

if t.TYPE_CHECKING:
    from datetime import datetime, timedelta

    from .._common.outcome import Outcome
    from .._postgresql.connection import Session
    from .._s3.api import Reader
    from .._s3.connection import Connection
    from .keys import Place
    from .manifest import Manifest


@dataclass(frozen=True)
class Encryption:
    """Server-side encryption asked for: ``AES256`` or ``aws:kms``, with a key's id for the latter (None: the bucket's)."""

    method: str
    kms_key_id: str | None = None

    def arguments(self) -> dict[str, str]:
        """As boto3 takes it."""
        found = {"ServerSideEncryption": self.method}
        return found | {"SSEKMSKeyId": self.kms_key_id} if self.kms_key_id else found


@dataclass(frozen=True)
class Options:
    """What the module was asked for; durations in seconds unless typed otherwise."""

    max_age: timedelta
    lock_timeout: int
    timeout: int
    role_passwords: bool
    encryption: Encryption | None
    bin_dir: str | None


@dataclass(frozen=True)
class State:
    """What was found: the decision, the newest verified backup, what does not count, what was left behind."""

    now: datetime
    decision: Decision
    newest: Manifest | None
    bad: list[catalogue.Examined]
    left: catalogue.Leftovers


class Backup:
    """The work of one module run on one database and one place."""

    def __init__(
        self,
        *,
        session: Session,
        reader: Reader,
        connection: Connection,
        place: Place,
        options: Options,
        outcome: Outcome,
    ) -> None:
        self.session = session
        self.reader = reader
        self.connection = connection
        self.place = place
        self.options = options
        self.outcome = outcome
        self.deadline = Deadline(options.timeout)

    def ensure(self, *, check: bool) -> None:
        """Read, plan, and unless ``check`` do what is due."""
        state = self._read()
        if not (state.decision.due or state.left):
            self._report(state, planned=True)
            self._summarize(state, check=check, made=False)
            return
        programs = None
        require("boto3", package="boto3", why="to write to S3")
        if state.decision.due:
            programs = database.find_programs(self.session, bin_dir=self.options.bin_dir, deadline=self.deadline)
        lock = database.Lock(self.session)
        holder = lock.holder() if check else lock.take()
        if holder is not None:
            self._report(state, planned=False)
            if not state.decision.due:
                self._summarize(state, check=check, made=False)
                return  # what lies in .incoming belongs to the run that is active
            self.outcome.blockers.append(holder)
            raise Refusal(
                obj=holder.object,
                problem=f"{holder.what}: {holder.holder}, since {holder.since or 'just now'}",
                next_step=holder.next_step,
            )
        if not check:
            state = self._read()  # the run that held the lock before may have finished in between
        self._report(state, planned=True)
        if check:
            self.outcome.changed = bool(self.outcome.plan)
        elif self.outcome.plan:
            apply(self, state, lock, programs)
        self._summarize(state, check=check, made=not check and state.decision.due)

    def _read(self) -> State:
        """The state, in two S3 requests plus one for each manifest looked at, normally one."""
        now = self.session.query("SELECT pg_catalog.clock_timestamp()")[0][0]
        runs = catalogue.group(self.reader.objects(self.place.root), self.place.prefix)
        uploads = self.reader.uploads(self.place.root)
        found, bad = catalogue.newest_verified(self.reader, runs)
        newest = None if found is None else found.manifest
        return State(
            now=now,
            decision=decide(newest=newest, now=now, max_age=self.options.max_age),
            newest=newest,
            bad=bad,
            left=catalogue.leftovers(runs, uploads),
        )

    def _report(self, state: State, *, planned: bool) -> None:
        self.outcome.facts |= {
            "due": state.decision.due,
            "why": state.decision.why,
            "backup": None if state.newest is None else summary(state.newest, state.now),
            "location": self.place.url(),
            "bad": [bad_summary(examined) for examined in state.bad],
            "leftovers": state.left.names if planned else [],
        }
        if planned:
            self.outcome.plan = plan(self.place, state.decision, state.left, state.newest)
            self.outcome.before = {"verified_backup_is_recent": not state.decision.due, "leftovers": state.left.names}
            self.outcome.after = {"verified_backup_is_recent": True, "leftovers": []}

    def _summarize(self, state: State, *, check: bool, made: bool) -> None:
        """Word the summary and the evidence from what was reported; ``made`` says that the backup is a new one."""
        facts = self.outcome.facts
        url = None if facts["backup"] is None else f"{self.place.url()}{facts['backup']['run_id']}"
        self.outcome.summary = summarize_backup(
            database=self.place.database,
            url=url,
            decision=state.decision,
            check_mode=check,
            backup=facts["backup"] if made else None,
            leftovers=facts["leftovers"],
        )
        if url is not None:
            self.outcome.evidence = [describe_backup(facts["backup"], url)]


def run_backup(backup: Backup, *, check: bool) -> None:
    """:meth:`Backup.ensure`, with the driver's errors told as ours."""
    try:
        backup.ensure(check=check)
    except driver_error() as error:
        raise sql_error(backup.session.settings.target, error) from error
