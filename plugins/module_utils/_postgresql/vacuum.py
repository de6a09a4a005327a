# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VACUUM and ANALYZE of many tables. Private to lowtide.ops: do not import from other collections.

Up to 15, every VACUUM command ends with a scan of pg_class (vac_update_datfrozenxid), so a command for each of N tables is
O(N * N); from 16 on that can be left to the end. Hence one command for a chunk of tables.
"""

from __future__ import annotations

import math
import typing as t

from .._common.errors import OpsError
from .._common.retry import Deadline
from . import blockers, catalog, names
from .connection import Session, driver_error
from .errors import is_deadline, is_lost, sql_error, sqlstate
from .plan import ONLY_VERSION
from .steps import Step
from .worker_pool import WorkerPool, is_lock_conflict

STATISTICS_WAIT = 10.0
"""Seconds; up to 14 the statistics arrive by a collector, half a second late, and later on a busy server."""

EXACT_STATISTICS = 150000
"""From here on the statistics show at once what a command has done."""

CHUNK_TABLES = 500
# A table of this size is a statement of its own, so that it keeps no other waiting.
CHUNK_BYTES = 32 * 2**20

_COUNTS = """
SELECT o::bigint AS oid, pg_stat_get_vacuum_count(o) AS vacuum, pg_stat_get_analyze_count(o) AS analyze
FROM unnest(%(oids)s::bigint[]::oid[]) o
"""


class Counts(t.NamedTuple):
    """How often a table was vacuumed and analyzed by command, as the statistics count it."""

    oid: int
    vacuum: int
    analyze: int


class Chunk(t.NamedTuple):
    """Tables of one statement; ``attempt`` counts the earlier ones in which a lock was not to be had."""

    steps: list[Step]
    attempt: int


def build_chunks(steps: list[Step], *, jobs: int) -> list[Chunk]:
    """Return the steps of one phase as statements: same options together, at most CHUNK_TABLES and CHUNK_BYTES, every connection busy."""
    groups: dict[tuple[bool, bool, bool], list[list[Step]]] = {}
    most = min(CHUNK_TABLES, max(1, math.ceil(len(steps) / (4 * jobs))))
    ordered: list[list[Step]] = []
    sizes: dict[int, int] = {}
    for step in steps:
        opened = groups.setdefault(step.options, [])
        last = opened[-1] if opened else None
        if last is None or len(last) >= most or sizes[id(last)] + step.size > CHUNK_BYTES:
            last = []
            opened.append(last)
            ordered.append(last)
            sizes[id(last)] = 0
        last.append(step)
        sizes[id(last)] += step.size
    return [Chunk(chunk, 0) for chunk in ordered]


def build_statement(steps: list[Step], *, version: int, truncate: bool = True) -> t.Any:
    """Return the command for steps of the same options."""
    sql = catalog.load_sql()
    only = "ONLY " if version >= ONLY_VERSION else ""
    tables = sql.SQL(", ").join(sql.SQL(only) + sql.SQL(names.quote(step.schema, step.name)) for step in steps)
    vacuum, freeze, analyze = steps[0].options
    if not vacuum:
        return sql.SQL("ANALYZE {}").format(tables)
    words = {
        "FREEZE": freeze,
        "ANALYZE": analyze,
        "TRUNCATE false": not truncate,
        "SKIP_DATABASE_STATS": version >= 160000,
    }
    options = ", ".join(word for word, requested in words.items() if requested)
    return sql.SQL(f"VACUUM ({options}) {{}}" if options else "VACUUM {}").format(tables)


def read_counts(session: Session, oids: list[int]) -> dict[int, Counts]:
    """Return the counters of these tables, now."""
    return {counts.oid: counts for counts in session.read(Counts, _COUNTS, {"oids": oids})}


def is_confirmed(step: Step, before: Counts, after: Counts) -> bool:
    """Return whether the statistics show what the command claims."""
    return (not step.vacuum or after.vacuum > before.vacuum) and (not step.analyze or after.analyze > before.analyze)


class Vacuum:
    """The vacuum part of a run; ``before`` are the counters when it was planned."""

    def __init__(self, pool: WorkerPool, before: dict[int, Counts], *, truncate: bool) -> None:
        self._pool = pool
        self._before = before
        self._truncate = truncate

    def run(self, steps: list[Step]) -> None:
        """All steps of one phase."""
        chunks = build_chunks(steps, jobs=self._pool.limits.jobs)
        self._pool.run(chunks, self._perform, size=lambda chunk: sum(step.size for step in chunk.steps))

    def finish(self, session: Session) -> None:
        """From 16 on: what every chunk left to the end."""
        if session.server.version >= 160000 and any(step.vacuum for step, _seconds in self._pool.record.done):
            # It waits for others that do the same, whose turn is short.
            lock_timeout = session.query("SELECT current_setting('lock_timeout')")[0][0]
            session.execute("SET lock_timeout = 0")
            session.execute("VACUUM (ONLY_DATABASE_STATS)")
            session.query("SELECT set_config('lock_timeout', %(value)s, false)", {"value": lock_timeout})

    def _perform(self, session: Session, chunk: Chunk) -> list[Chunk]:
        steps = list(chunk.steps)
        while steps and self._pool.is_too_late(steps[-1], sum(step.estimate for step in steps)):
            self._pool.skip_late(steps.pop())
        if not steps:
            return []
        statement = build_statement(steps, version=session.server.version, truncate=self._truncate)
        try:
            seconds = self._pool.execute(session, statement, lock_timeout=self._pool.limits.lock_timeout)
        except driver_error() as error:
            if is_lost(error, session.connection):
                raise
            return self._handle_failure(session, Chunk(steps, chunk.attempt), error)
        self._pool.record.add_done(steps, seconds)
        return []

    def _handle_failure(self, session: Session, chunk: Chunk, error: Exception) -> list[Chunk]:
        """Tables before the one that failed are done; set that one apart, and go on with the others."""
        done = self._read_done(session, chunk.steps)
        self._pool.record.add_done(done, 0.0)
        left = [step for step in chunk.steps if step not in done]
        if is_deadline(error):
            self._skip_cancelled(left, error)
            return []
        if not is_lock_conflict(error):
            return self._bisect(session, left, chunk.attempt, error)
        oids = [step.oid for step in left]
        holders = blockers.read_lock_holders(session, oids, blockers.CONFLICTS_WITH_VACUUM, toast=True)
        locked_oids = {holder.relation for holder in holders}
        locked = [step for step in left if step.oid in locked_oids] or left[:1]
        free = [step for step in left if step not in locked]
        again = [Chunk(free, chunk.attempt)] if free else []
        if chunk.attempt < self._pool.limits.retries:
            return [*again, *(Chunk([step], chunk.attempt + 1) for step in locked)]
        for step in locked:
            self._pool.skip_locked(session, step, blockers.CONFLICTS_WITH_VACUUM, waited=self._pool.limits.lock_timeout)
        return again

    def _read_done(self, session: Session, steps: list[Step]) -> list[Step]:
        """Return which steps of a command that failed had been done. The first one is waited for where counters are late."""
        deadline = Deadline(1.0 if session.server.version < EXACT_STATISTICS and len(steps) > 1 else 0.0)
        while True:
            after = read_counts(session, [step.oid for step in steps])
            done = [step for step in steps if is_confirmed(step, self._before[step.oid], after[step.oid])]
            if done or deadline.passed:
                return done
            deadline.pause(0.1)

    def _skip_cancelled(self, left: list[Step], error: Exception) -> None:
        """Record a command that the timeout ended; one that a person cancelled is not begun again in pieces."""
        if self._pool.is_cancelled_by_timeout(error):
            for step in left:
                self._pool.skip_cancelled(step)
            return
        for step in left:
            reason = f"{step.why}; the command was cancelled before its turn"
            self._pool.record.add_skip(step, reason, None)
        for step in left[:1]:
            self._pool.record.add_error(step, sql_error(f"{step.display_name}, {step.action}", error))

    def _bisect(self, session: Session, left: list[Step], attempt: int, error: Exception) -> list[Chunk]:
        """Halve until the table that fails is alone; then it is on record."""
        if len(left) > 1:
            half = len(left) // 2
            return [Chunk(left[:half], attempt), Chunk(left[half:], attempt)]
        for step in left:
            # undefined_table, invalid_schema_name: dropped since it was planned, or something in a function of an index.
            if sqlstate(error) in {"42P01", "3F000"} and not catalog.exists(session, step.oid):
                self._pool.record.add_no_longer_needed(step)
            else:
                self._pool.record.add_error(step, sql_error(f"{step.display_name}, {step.action}", error))
        return []


def find_unconfirmed(
    before: dict[int, Counts], done: list[Step], after: dict[int, Counts]
) -> list[tuple[Step, OpsError]]:
    """Return the tables for which the server accepted the command and its statistics show nothing of it."""
    return [
        (
            step,
            OpsError(
                obj=f"{step.display_name}, {step.action}",
                problem="the server accepted the command, and its statistics do not show that it was done",
                next_step="Look for a warning about this table in the server's log",
            ),
        )
        for step in done
        if step.oid in after and not is_confirmed(step, before[step.oid], after[step.oid])
    ]
