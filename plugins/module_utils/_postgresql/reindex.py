# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""REINDEX CONCURRENTLY without leftovers. Private to lowtide.ops: do not import from other collections.

An interrupted REINDEX CONCURRENTLY leaves an invalid ``NAME_ccnew`` (or, after the swap, ``NAME_ccold``) that every write to
the table goes on maintaining. Those of this run and of earlier ones are dropped; another session's that is at work is not.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from .._common.retry import Deadline
from . import blockers, names
from .catalog import IndexState, load_sql, read_indexes
from .connection import Session, driver_error
from .errors import is_lost, sql_error
from .holders import LockHolder, find_lasting, find_old_snapshot, make_lock_blocker, make_xmin_blocker
from .plan_indexes import DROP, find_original, format_index
from .steps import Phase, Step
from .worker_pool import WorkerPool, is_lock_conflict

POLL = 0.1  # seconds between two looks at old transactions

# The index, and whether anybody may be in its way: uses the table, or is in a transaction that is old enough to matter.
_INDEX = """
SELECT n.nspname::text AS schema, c.relname::text AS name, x.indisvalid AS valid,
  EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.granted AND l.relation = %(table)s::bigint::oid
    AND l.database IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
    AND l.pid IS DISTINCT FROM pg_backend_pid())
  OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
    AND a.datname = current_database() AND a.xact_start <= clock_timestamp() - %(old)s * interval '1 second'
    AND coalesce(a.application_name, '') <> current_setting('application_name')) AS in_use
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE x.indexrelid = %(oid)s::bigint::oid
"""


class IndexNow(t.NamedTuple):
    """An index as it is just before its step; ``in_use``: another session may be in the way of it."""

    schema: str
    name: str
    valid: bool
    in_use: bool


class TableTask(t.NamedTuple):
    """Index steps of one table, done one after the other by one worker: two of them on one table would wait for each other."""

    steps: list[Step]
    attempt: int


def build_tasks(steps: list[Step]) -> list[TableTask]:
    """Return one task for each table, in the order of its first step."""
    tasks: dict[int, list[Step]] = {}
    for step in steps:
        tasks.setdefault(step.table, []).append(step)
    return [TableTask(group, 0) for group in tasks.values()]


def build_statement(action: str, schema: str, name: str) -> t.Any:
    """Return ``action`` on the index."""
    sql = load_sql()
    return sql.SQL(action + " {}").format(sql.SQL(names.quote(schema, name)))


def find_leftovers(session: Session, table: int) -> list[IndexState]:
    """Return invalid copies that a REINDEX CONCURRENTLY left on a table and that no session is at work on."""
    indexes = read_indexes(session, minimum_pages=None, tables=[table], system=True)
    copies = [index for index in indexes if find_original(index, indexes) is not None]
    building = blockers.read_builders(session, [table, *(index.oid for index in copies)]) if copies else {}
    return [index for index in copies if index.oid not in building and table not in building]


class Reindex:
    """The index part of a run."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def run(self, steps: list[Step]) -> None:
        """All steps of one phase.

        A concurrent build waits for every older snapshot, also for that of a build of an index with an expression or a
        predicate. So those are built one at a time, after the others.
        """
        for group, jobs in (
            ([step for step in steps if step.is_safe], None),
            ([step for step in steps if not step.is_safe], 1),
        ):
            if group:
                self._pool.run(
                    build_tasks(group),
                    self._perform,
                    size=lambda task: sum(step.size for step in task.steps),
                    jobs=jobs,
                )

    def _perform(self, session: Session, task: TableTask) -> list[TableTask]:
        again = [step for step in task.steps if not self._perform_step(session, step, task.attempt)]
        return [TableTask(again, task.attempt + 1)] if again else []

    def _perform_step(self, session: Session, step: Step, attempt: int) -> bool:
        """Do one index; return False when it is worth another attempt."""
        if self._pool.is_too_late(step, step.estimate):
            self._pool.skip_late(step)
            return True
        limits = self._pool.limits
        indexes = session.read(IndexNow, _INDEX, {"oid": step.oid, "table": step.table, "old": limits.lock_timeout})
        # Another session dropped, rebuilt or validated it since it was planned.
        if not indexes or (step.phase in {Phase.LEFTOVERS, Phase.INVALID} and indexes[0].valid):
            self._pool.record.add_no_longer_needed(step)
            return True
        index = indexes[0]
        blocker = self._wait_for_old_transactions(session, step) if index.in_use else None
        if blocker is not None:
            self._pool.record.add_skip(step, f"{step.why}; {blocker.what}: {blocker.holder}", blocker)
            return True
        statement = build_statement(step.action, index.schema, index.name)
        try:
            seconds = self._pool.execute(session, statement, lock_timeout=self._get_wait(step))
        except driver_error() as error:
            if is_lost(error, session.connection):
                raise
            return self._handle_failure(session, step, error, attempt)
        self._pool.record.add_done([step], seconds)
        return True

    def _get_wait(self, step: Step) -> float:
        """Return the seconds that one wait of the step's command may take."""
        limits = self._pool.limits
        return limits.lock_timeout if step.phase == Phase.LEFTOVERS else limits.index_wait_timeout

    def _handle_failure(self, session: Session, step: Step, error: Exception, attempt: int) -> bool:
        """Clean up, and put the step on record; return False when it is worth another attempt."""
        if step.phase != Phase.LEFTOVERS:
            self._drop_leftovers(session, step)
        if self._pool.is_cancelled_by_timeout(error):
            self._pool.skip_cancelled(step)
        elif not is_lock_conflict(error):
            self._pool.record.add_error(step, sql_error(f"{step.display_name}, {step.action}", error))
        elif attempt < self._pool.limits.retries:
            return False
        else:
            self._pool.skip_locked(session, step, blockers.ANY_LOCK, waited=self._get_wait(step))
        return True

    def _wait_for_old_transactions(self, session: Session, step: Step) -> Blocker | None:
        """Return who would keep a concurrent build waiting; None when no session uses the table, or none is older than
        lock_timeout after waiting that long (sessions that come and go do not keep it waiting).

        Asked before the build, since a build that waits in vain has been for nothing and leaves an invalid index.
        """
        deadline = Deadline(self._pool.limits.lock_timeout)
        while True:
            holders = [
                holder
                for holder in blockers.read_lock_holders(session, [step.table], blockers.ANY_LOCK)
                if holder.vacuum != "autovacuum"
            ]
            blocker = self._find_old_transaction(session, step, holders)
            if (not holders and blocker is None) or deadline.passed or self._pool.is_too_late(step, step.estimate):
                return blocker
            deadline.pause(POLL)

    def _find_old_transaction(self, session: Session, step: Step, holders: list[LockHolder]) -> Blocker | None:
        limit = self._pool.limits.lock_timeout
        lasting = find_lasting(holders, limit=limit)
        if lasting is not None:
            return make_lock_blocker(step.display_name, lasting)
        if step.phase == Phase.LEFTOVERS:
            return None
        snapshot = find_old_snapshot(blockers.read_xmin_holders(session), limit=limit)
        if snapshot is None:
            return None
        return make_xmin_blocker(step.display_name, snapshot, "a concurrent build would wait for an old transaction")

    def _drop_leftovers(self, session: Session, step: Step) -> None:
        """Drop what a failed build left on its table; what cannot be dropped now is on record for the next run."""
        for index in find_leftovers(session, step.table):
            statement = build_statement(DROP, index.schema, index.name)
            try:
                self._pool.execute(session, statement, lock_timeout=self._pool.limits.lock_timeout, may_be_late=True)
            except driver_error() as error:
                if is_lost(error, session.connection):
                    raise
                self._pool.record.add_error(None, sql_error(f"{format_index(index)}, {DROP}", error))
