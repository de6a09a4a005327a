# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VACUUM and ANALYZE of many tables. Private to lowtide.ops: do not import from other collections.

Up to 15, every VACUUM command ends with a scan of pg_class (vac_update_datfrozenxid), so a command for each of N tables is
O(N * N); from 16 on that can be left to the end. Hence one command for a chunk of tables.
"""

from __future__ import annotations

import math
import time
import typing as t

from .._common.dependencies import require
from .._common.errors import OpsError
from . import blockers
from .connection import Session, driver_error
from .crew import Crew, somebody_in_the_way
from .errors import is_lost, sql_error, sqlstate
from .plan import Step

CHUNK_TABLES = 500
# A table of this size is a statement of its own, so that it keeps no other waiting.
CHUNK_BYTES = 32 * 2**20

_COUNTS = "SELECT o, pg_stat_get_vacuum_count(o), pg_stat_get_analyze_count(o) FROM unnest(%(oids)s::bigint[]::oid[]) o"


class Counts(t.NamedTuple):
    """How often a table was vacuumed and analyzed by command, as the statistics count it."""

    vacuum: int
    analyze: int


class Chunk(t.NamedTuple):
    """Tables of one statement; ``attempt`` counts the earlier ones in which a lock was not to be had."""

    steps: list[Step]
    attempt: int


def chunks(steps: list[Step], *, jobs: int) -> list[Chunk]:
    """Steps of one phase as statements: same options together, at most CHUNK_TABLES and CHUNK_BYTES, every connection busy."""
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


def statement(steps: list[Step], *, version: int) -> t.Any:
    """The command for steps of the same options, identifiers quoted by the driver."""
    sql = require("psycopg2.sql", package="psycopg2-binary", why="to quote identifiers")
    tables = sql.SQL(", ").join(sql.Identifier(step.schema, step.name) for step in steps)
    vacuum, freeze, analyze = steps[0].options
    if not vacuum:
        return sql.SQL("ANALYZE {}").format(tables)
    words = [
        word
        for word, wanted in (("FREEZE", freeze), ("ANALYZE", analyze), ("SKIP_DATABASE_STATS", version >= 160000))
        if wanted
    ]
    return sql.SQL("VACUUM ({}) {}" if words else "VACUUM {1}").format(sql.SQL(", ".join(words)), tables)


def read_counts(session: Session, oids: list[int]) -> dict[int, Counts]:
    """The counters of these tables, now."""
    return {oid: Counts(vacuum, analyze) for oid, vacuum, analyze in session.query(_COUNTS, {"oids": oids})}


def was_done(step: Step, before: Counts, after: Counts) -> bool:
    """Whether the statistics show what the command claims."""
    return (not step.vacuum or after.vacuum > before.vacuum) and (not step.analyze or after.analyze > before.analyze)


class Vacuum:
    """The vacuum part of a run; ``before`` are the counters when it was planned."""

    def __init__(self, crew: Crew, before: dict[int, Counts]) -> None:
        self._crew = crew
        self._before = before

    def run(self, steps: list[Step], *, jobs: int) -> None:
        """All steps of one phase."""
        self._crew.run(
            chunks(steps, jobs=jobs), self._perform, size=lambda chunk: sum(step.size for step in chunk.steps)
        )

    def finish(self, session: Session) -> None:
        """From 16 on: what every chunk left to the end."""
        if session.server.version >= 160000 and any(step.vacuum for step, _seconds in self._crew.record.done):
            session.execute("VACUUM (ONLY_DATABASE_STATS)")

    def _perform(self, session: Session, chunk: Chunk) -> list[Chunk]:
        steps = list(chunk.steps)
        while steps and self._crew.too_late(sum(step.estimate for step in steps)):
            self._crew.skip_late(steps.pop())
        if not steps:
            return []
        begun = time.monotonic()
        try:
            session.execute(statement(steps, version=session.server.version))
        except driver_error() as error:
            if is_lost(error, session.connection):
                raise
            return self._after_failure(session, Chunk(steps, chunk.attempt), error, begun)
        self._crew.record.add_done(steps, time.monotonic() - begun)
        return []

    def _after_failure(self, session: Session, chunk: Chunk, error: Exception, begun: float) -> list[Chunk]:
        """Tables before the one that failed are done; set that one apart, and go on with the others."""
        after = read_counts(session, [step.oid for step in chunk.steps])
        done = [step for step in chunk.steps if was_done(step, self._before[step.oid], after[step.oid])]
        self._crew.record.add_done(done, time.monotonic() - begun)
        left = [step for step in chunk.steps if step not in done]
        if not somebody_in_the_way(error):
            return self._narrow(left, chunk.attempt, error)
        held = {
            holder.relation
            for holder in blockers.read_lock_holders(
                session, [step.oid for step in left], blockers.CONFLICTS_WITH_VACUUM
            )
        }
        locked = [step for step in left if step.oid in held] or left[:1]
        free = [step for step in left if step not in locked]
        again = [Chunk(free, chunk.attempt)] if free else []
        if chunk.attempt < self._crew.retries:
            return [*again, *(Chunk([step], chunk.attempt + 1) for step in locked)]
        for step in locked:
            self._crew.skip_locked(session, step, blockers.CONFLICTS_WITH_VACUUM)
        return again

    def _narrow(self, left: list[Step], attempt: int, error: Exception) -> list[Chunk]:
        """Halve until the table that fails is alone; then it is on record."""
        if len(left) > 1:
            half = len(left) // 2
            return [Chunk(left[:half], attempt), Chunk(left[half:], attempt)]
        for step in left:
            # undefined_table, invalid_schema_name: dropped since it was planned, so nothing is left to do.
            if sqlstate(error) in {"42P01", "3F000"}:
                self._crew.record.add_settled(step)
            else:
                self._crew.record.add_error(sql_error(f"{step.shown}, {step.what}", error))
        return []


def not_shown(before: dict[int, Counts], done: list[Step], after: dict[int, Counts]) -> list[OpsError]:
    """Tables for which the server accepted the command and its statistics show nothing of it."""
    return [
        OpsError(
            obj=f"{step.shown}, {step.what}",
            problem="the server accepted the command, and its statistics do not show that it was done",
            next_step="Look for a warning about this table in the server's log",
        )
        for step in done
        if step.oid in after and not was_done(step, before[step.oid], after[step.oid])
    ]
