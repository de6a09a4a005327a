# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read back what a run did: whether it happened, and what does not hold all the same. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError
from .._common.outcome import Blocker
from .._common.retry import Deadline
from . import catalog, names
from .assess import Assessment, cache_holders, examine_bloat
from .connection import Session
from .holders import XminHolder, find_oldest
from .plan import CATALOGS, plan_tables
from .plan_indexes import format_index
from .steps import Conditions, Phase, Plan, Skip, Step, describe_unmet
from .vacuum import EXACT_STATISTICS, STATISTICS_WAIT, Counts, find_unconfirmed, read_counts


class Verification(t.NamedTuple):
    """What was found: steps of which nothing is to be seen, what does not hold all the same, invalid indexes (None: not looked at)."""

    errors: list[tuple[Step, OpsError]]
    skips: list[Skip]
    unmet: dict[str, dict[str, str]]
    invalid_indexes: list[str] | None
    waited: float


def verify(
    session: Session,
    assessment: Assessment,
    conditions: Conditions,
    *,
    done: list[Step],
    before: dict[int, Counts],
) -> Verification:
    """Ask the server whether it happened and whether the condition holds now."""
    vacuumed = [step for step in done if step.phase in {Phase.FREEZE, Phase.CLEAN, Phase.PARENTS}]
    errors: list[tuple[Step, OpsError]] = []
    skips: list[Skip] = []
    unmet: dict[str, dict[str, str]] = {}
    waited = 0.0
    if vacuumed:
        errors, waited = _confirm(session, vacuumed, before)
        skips, unmet = _plan_again(session, assessment, conditions, vacuumed)
    touched = sorted({step.table for step in assessment.plan.steps if step.phase in _INDEX_PHASES})
    invalid = None
    if touched or conditions.invalid_indexes:
        invalid, index_skips = _verify_indexes(session, assessment, conditions, touched=touched, done=done)
        known = {skip.display_name for skip in assessment.plan.skips}
        skips += [skip for skip in index_skips if skip.display_name not in known]
    return Verification(errors, skips, unmet, invalid, waited)


_INDEX_PHASES = {Phase.LEFTOVERS, Phase.INVALID, Phase.BLOAT, Phase.COLLATION}


def _confirm(
    session: Session, vacuumed: list[Step], before: dict[int, Counts]
) -> tuple[list[tuple[Step, OpsError]], float]:
    """Return the steps that the statistics do not show; up to 14 they arrive late and are waited for."""
    is_exact = session.server.version >= EXACT_STATISTICS
    deadline = Deadline(0.0 if is_exact else STATISTICS_WAIT)
    while True:
        counts = read_counts(session, [step.oid for step in vacuumed])
        errors = find_unconfirmed(before, vacuumed, counts)
        if not errors or deadline.passed:
            return errors, 0.0 if is_exact else deadline.elapsed
        deadline.pause(0.1)


def _plan_again(
    session: Session, assessment: Assessment, conditions: Conditions, vacuumed: list[Step]
) -> tuple[list[Skip], dict[str, dict[str, str]]]:
    """Return what is still due of the tables that were done, and who holds it."""
    oids = {step.oid for step in vacuumed}
    # Partitioned tables are judged by their leaves, so these are read as well.
    has_parent = any(step.phase == Phase.PARENTS for step in vacuumed)
    tables = catalog.read_tables(session, system=True, oids=None if has_parent else sorted(oids))
    remaining = Plan()
    server = assessment.server._replace(in_scope=oids)
    read_holders = cache_holders(session)
    plan_tables(tables, conditions, read_holders=read_holders, server=server, plan=remaining)
    known = {skip.oid for skip in assessment.plan.skips}
    skips = [skip for skip in remaining.skips if skip.oid not in known]
    unmet = describe_unmet(remaining.steps)
    for skip in remaining.skips:
        condition = "transaction_id_age" if skip.is_danger else "dead_tuple_ratio"
        unmet.setdefault(skip.display_name, {})[condition] = skip.reason
    shared = {table.oid for table in tables if table.shared}
    for step in remaining.steps:
        holder = find_oldest(read_holders(), catalog=step.schema in CATALOGS, shared=step.oid in shared)
        limit = conditions.transaction_id_age
        skips.append(make_remaining_skip(step, holder, sees_sessions=session.server.sees_sessions, limit=limit))
    return skips, unmet


def make_remaining_skip(
    step: Step, oldest: XminHolder | None, *, sees_sessions: bool, limit: int | None = None
) -> Skip:
    """Return the record of a table that was done and is due again. One that was frozen and is as old as before is a danger.

    ``oldest`` may hold its dead rows: only a VACUUM (FREEZE), which the next run does, proves it, so it is no blocker yet. What held
    a table that was frozen has ended only if nothing is there that is older than the ``limit`` of its age.
    """
    if not step.is_danger:
        reason = f"done, and again: {step.why}; it is being written to, or held"
        if oldest is not None and "dead_tuple_ratio" in step.unmet:
            reason += f", perhaps by {oldest.holder} ({oldest.what}, {oldest.age} transactions old)"
        return Skip(step.oid, step.display_name, step.action, reason)
    holder, next_step = "something that held its rows and has ended since", "Run again"
    if not sees_sessions:
        holder = "perhaps an old transaction of another user, which login_user may not see"
        next_step = "GRANT pg_read_all_stats TO login_user, and run again: it names who holds the rows"
    elif oldest is not None and limit is not None and oldest.age > limit:
        holder = f"perhaps {oldest.holder} ({oldest.what}, {oldest.age} transactions old)"
        next_step = oldest.next_step
    blocker = Blocker(
        object=step.display_name,
        what=f"{step.action} was done, and all the same {step.why}",
        holder=holder,
        next_step=next_step,
    )
    return Skip(step.oid, step.display_name, step.action, f"{blocker.what}; {holder}", blocker, step.is_danger)


def _verify_indexes(
    session: Session, assessment: Assessment, conditions: Conditions, *, touched: list[int], done: list[Step]
) -> tuple[list[str], list[Skip]]:
    """Prove what is left of invalid indexes, and that what was rebuilt for its bloat is compact now."""
    oids = sorted({*touched, *(index.table_oid for index, _bloat in assessment.indexes if not index.valid)})
    minimum_pages = None if conditions.index_bloat_ratio is None else 1
    indexes = catalog.read_indexes(session, minimum_pages=minimum_pages, tables=oids, system=True) if oids else []
    skips: list[Skip] = []
    # A concurrent rebuild is a new index under the old name.
    rebuilt = {(step.table, step.schema, step.name): step for step in done if step.phase == Phase.BLOAT}
    fresh = [index for index in indexes if (index.table_oid, index.schema, index.name) in rebuilt]
    for index, bloat in examine_bloat(session, fresh, conditions, lock_timeout=1.0, budget=60.0):
        limit = conditions.index_bloat_ratio
        if bloat is not None and limit is not None and bloat.least > limit:
            step = rebuilt[index.table_oid, index.schema, index.name]
            reason = (
                f"rebuilt just now, so the estimate of {100 * bloat.least:.0f} % waste is wrong;"
                f" {f'{bloat.remedy}, or ' if bloat.remedy else ''}exclude its table"
            )
            skips.append(Skip(index.oid, step.display_name, step.action, reason))
    for index in indexes:
        if index.valid:
            continue
        blocker = Blocker(
            object=format_index(index),
            what="an invalid index is left",
            holder=names.format_name(index.table_schema, index.table),
            next_step="Run again",
        )
        reason = "it is invalid after this run"
        skips.append(Skip(index.oid, format_index(index), "DROP or REINDEX", reason, blocker))
    return sorted(names.format_name(index.schema, index.name) for index in indexes if not index.valid), skips
