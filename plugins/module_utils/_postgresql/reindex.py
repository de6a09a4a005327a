# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""REINDEX CONCURRENTLY without leftovers. Private to lowtide.ops: do not import from other collections.

An interrupted REINDEX CONCURRENTLY leaves an invalid ``NAME_ccnew`` (or, after the swap, ``NAME_ccold``) that every write to
the table goes on maintaining. Those of this run and of earlier ones are dropped; another session's that is at work is not.
"""

from __future__ import annotations

import time
import typing as t

from .._common.dependencies import require
from .._common.outcome import Blocker
from .._common.retry import Deadline
from . import blockers, names
from .catalog import NO_BLOAT, IndexState, read_indexes
from .connection import Session, driver_error
from .crew import Crew, somebody_in_the_way
from .errors import is_lost, sql_error
from .plan import BLOAT, LEFTOVERS, Step
from .plan_indexes import leftover_of

POLL = 0.1  # seconds between two looks at old transactions

# The index, and whether anybody may be in its way: uses the table, or is in a transaction that is old enough to matter.
_INDEX = """
SELECT n.nspname::text, c.relname::text, x.indisvalid,
  EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.granted AND l.relation = %(table)s::bigint::oid
    AND l.database IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
    AND l.pid IS DISTINCT FROM pg_backend_pid())
  OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
    AND a.datname = current_database() AND a.xact_start <= clock_timestamp() - %(old)s * interval '1 second'
    AND a.application_name <> current_setting('application_name'))
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE x.indexrelid = %(oid)s::bigint::oid
"""


class TableTask(t.NamedTuple):
    """Index steps of one table, done one after the other by one worker: two of them on one table would wait for each other."""

    steps: list[Step]
    attempt: int


def by_table(steps: list[Step]) -> list[TableTask]:
    """One task for each table, in the order of its first step."""
    tasks: dict[int, list[Step]] = {}
    for step in steps:
        tasks.setdefault(step.table, []).append(step)
    return [TableTask(group, 0) for group in tasks.values()]


def statement(verb: str, schema: str, name: str) -> t.Any:
    """``verb`` and the index, quoted by the driver."""
    sql = require("psycopg2.sql", package="psycopg2-binary", why="to quote identifiers")
    return sql.SQL(verb + " {}").format(sql.Identifier(schema, name))


def leftovers(session: Session, table: int) -> list[IndexState]:
    """Invalid copies that a REINDEX CONCURRENTLY left on a table and that nobody is at work on."""
    indexes = read_indexes(session, pages=NO_BLOAT, tables=[table], system=True)
    found = [index for index in indexes if leftover_of(index, indexes) is not None]
    building = blockers.read_builders(session, [table, *(index.oid for index in found)]) if found else {}
    return [index for index in found if index.oid not in building and table not in building]


class Reindex:
    """The index part of a run."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def run(self, steps: list[Step]) -> None:
        """All steps of one phase."""
        self._crew.run(by_table(steps), self._perform, size=lambda task: sum(step.size for step in task.steps))

    def _perform(self, session: Session, task: TableTask) -> list[TableTask]:
        again: list[Step] = []
        for step in task.steps:
            if not self._one(session, step, task.attempt):
                again.append(step)
        return [TableTask(again, task.attempt + 1)] if again else []

    def _one(self, session: Session, step: Step, attempt: int) -> bool:
        """One index; False when it is worth another attempt."""
        if self._crew.too_late(step.estimate):
            self._crew.skip_late(step)
            return True
        now = session.query(_INDEX, {"oid": step.oid, "table": step.table, "old": self._crew.lock_timeout})
        # Somebody else dropped, rebuilt or validated it since it was planned.
        if not now or (step.phase != BLOAT and now[0][2]):
            self._crew.record.add_settled(step)
            return True
        schema, name, _valid, somebody = now[0]
        holder = self._old_transaction(session, step) if somebody else None
        if holder is not None:
            self._crew.record.add_not_done(step, f"{step.why}; {holder.what}: {holder.holder}", holder)
            return True
        begun = time.monotonic()
        try:
            session.execute(statement(step.what, schema, name))
        except driver_error() as error:
            if is_lost(error, session.connection):
                raise
            if step.phase != LEFTOVERS:
                self._sweep(session, step)
            if somebody_in_the_way(error):
                if attempt < self._crew.retries:
                    return False
                self._crew.skip_locked(session, step, blockers.ANY_LOCK)
            else:
                self._crew.record.add_error(sql_error(f"{step.shown}, {step.what}", error))
            return True
        self._crew.record.add_done([step], time.monotonic() - begun)
        return True

    def _old_transaction(self, session: Session, step: Step) -> Blocker | None:
        """Who would keep a concurrent build waiting at its end; None when nobody uses the table, or nobody is older than
        lock_timeout after waiting that long (whoever comes and goes does not keep it waiting).

        Asked before the build, since a build that waits in vain has been for nothing and leaves an invalid index.
        """
        deadline = Deadline(self._crew.lock_timeout)
        while True:
            holders = blockers.read_lock_holders(session, [step.table], blockers.ANY_LOCK)
            blocker = self._old_now(session, step, holders)
            if (not holders and blocker is None) or deadline.passed or self._crew.too_late(step.estimate):
                return blocker
            deadline.pause(POLL)

    def _old_now(self, session: Session, step: Step, holders: list[blockers.LockHolder]) -> Blocker | None:
        limit = self._crew.lock_timeout
        for holder in holders:
            if holder.seconds is None or holder.seconds >= limit:
                return blockers.lock_blocker(step.shown, holder)
        if step.phase == LEFTOVERS:
            return None
        for horizon in blockers.read_horizons(session):
            if horizon.what == "an open snapshot" and horizon.seconds is not None and horizon.seconds >= limit:
                return blockers.horizon_blocker(
                    step.shown, horizon, "a concurrent build would wait for an old transaction"
                )
        return None

    def _sweep(self, session: Session, step: Step) -> None:
        """Drop what a failed build left on its table; what cannot be dropped now is on record for the next run."""
        for index in leftovers(session, step.table):
            try:
                session.execute(statement("DROP INDEX CONCURRENTLY", index.schema, index.name))
            except driver_error() as error:
                if is_lost(error, session.connection):
                    raise
                shown = f"index {names.shown(index.schema, index.name)}"
                self._crew.record.add_error(sql_error(f"{shown}, DROP INDEX CONCURRENTLY", error))
