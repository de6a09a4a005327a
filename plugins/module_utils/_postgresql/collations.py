# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collations whose rules the operating system has changed since indexes were built by them. Private to lowtide.ops: do not import from other collections.

Such an index is in the wrong order: look-ups miss rows, and unique ones admit duplicates. The server notes the version of
a collation when it is made, and from 15 on that of the database's own.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from . import names
from .catalog import IndexState
from .plan_indexes import Rights, add_possible_step, make_index_step
from .steps import Conditions, Phase, Plan, Step

if t.TYPE_CHECKING:
    from .connection import Session

DATABASE = 0
"""The oid that stands for the database's own collation, which is no row of pg_collation."""

HOLDER = "the operating system's update"

DEFAULT_COLLATION = 100
"""The oid of the collation "default", which means the database's (src/include/catalog/pg_collation.dat)."""


class Collation(t.NamedTuple):
    """A collation, or the database's own, whose version differs; ``indexes`` are the oids of all that are built by it.

    So are those over types that compare by it (jsonb, ranges, composite types), and those with an expression or a predicate
    that does. ``partitioned`` are the names of the tables whose rows are divided into ranges by it.
    """

    oid: int
    schema: str
    name: str
    recorded: str
    actual: str
    may_alter: bool
    indexes: list[int]
    partitioned: list[str]


_COLLATIONS = """
WITH outdated AS (
  SELECT oid, (SELECT nspname::text FROM pg_catalog.pg_namespace n WHERE n.oid = collnamespace) AS schema, collname::text AS name, collversion AS recorded,
    pg_collation_actual_version(oid) AS actual, pg_has_role(collowner, 'USAGE') AS may_alter
  FROM pg_catalog.pg_collation
  WHERE collversion <> pg_collation_actual_version(oid)
  {database}
)
SELECT CASE WHEN o.oid = 100 THEN 0 ELSE o.oid::bigint END AS oid, o.schema, o.name, o.recorded, o.actual, o.may_alter,
  ARRAY(SELECT x.indexrelid::bigint FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
    WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND (o.oid = ANY(x.indcollation) OR EXISTS (
      SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = x.indexrelid
      AND d.refclassid = 'pg_catalog.pg_collation'::regclass AND d.refobjid = o.oid)
      OR position(':inputcollid ' || o.oid || ' ' IN concat(x.indexprs::text, x.indpred::text)) > 0
      OR EXISTS (SELECT FROM pg_catalog.pg_attribute ia JOIN pg_catalog.pg_type ty ON ty.oid = ia.atttypid
        WHERE ia.attrelid = x.indexrelid AND (
          (o.oid = 100 AND ty.oid = 'pg_catalog.jsonb'::pg_catalog.regtype AND c.relam = 403)
          OR EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngcollation = o.oid AND ty.oid IN (r.rngtypid, r.rngmultitypid))
          OR EXISTS (SELECT FROM pg_catalog.pg_attribute ca WHERE ty.typtype = 'c' AND ca.attrelid = ty.typrelid
            AND ca.attcollation = o.oid)))) ORDER BY 1) AS indexes,
  ARRAY(SELECT quote_ident(pn.nspname) || '.' || quote_ident(pc.relname) FROM pg_catalog.pg_partitioned_table p
    JOIN pg_catalog.pg_class pc ON pc.oid = p.partrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
    WHERE p.partstrat = 'r' AND o.oid = ANY(p.partcollation) ORDER BY 1) AS partitioned
FROM outdated o ORDER BY 1
"""

_DATABASE = """UNION ALL
  SELECT 100, '', datname::text, datcollversion, pg_database_collation_actual_version(oid), pg_has_role(datdba, 'USAGE')
  FROM pg_catalog.pg_database WHERE datname = current_database()
  AND datcollversion <> pg_database_collation_actual_version(oid)
"""


def read_collations(session: Session) -> list[Collation]:
    """Return the collations of this database whose version is another than the one noted, and the indexes by them."""
    database = _DATABASE if session.server.version >= 150000 else ""
    return session.read(Collation, _COLLATIONS.replace("{database}", database))


def format_collation(collation: Collation) -> str:
    """Return how messages name it."""
    if collation.oid == DATABASE:
        return f"database {names.format_name(collation.name)}"
    return f"collation {names.format_name(collation.schema, collation.name)}"


def name_refresh(collation: Collation) -> str:
    """Return the command that notes the version of now."""
    if collation.oid == DATABASE:
        return f"ALTER DATABASE {names.format_name(collation.name)} REFRESH COLLATION VERSION"
    return f"ALTER COLLATION {names.format_name(collation.schema, collation.name)} REFRESH VERSION"


def plan_collations(
    collations: list[Collation],
    indexes: list[IndexState],
    conditions: Conditions,
    *,
    rights: Rights,
    block_size: int,
    plan: Plan,
) -> None:
    """Add the rebuild of all indexes by a changed collation, then the note of its new version; or name them.

    ``indexes`` are those in scope. The version is refreshed only when every index by the collation has been rebuilt in the
    same run: once it is refreshed nothing tells an old index from a new one. Where tables are divided into ranges by it,
    rows may be in the wrong partition, which no rebuild cures; then nothing is done but to name them.
    """
    idle = [collation for collation in collations if not collation.indexes and not collation.partitioned]
    if conditions.collation_versions == "refresh":
        idle = [collation for collation in idle if not collation.may_alter]
    if idle:
        _skip_idle(idle, plan)
    by_oid = {index.oid: index for index in indexes}
    rebuilt = {step.oid for step in plan.steps if step.phase in {Phase.INVALID, Phase.BLOAT}}
    for collation in collations:
        if collation in idle:
            continue
        why = f"built by rules of version {collation.recorded}, and {format_collation(collation)} is of {collation.actual} now"
        outside = [oid for oid in collation.indexes if oid not in by_oid]
        report = conditions.collation_versions == "report" or bool(collation.partitioned)
        if report or outside or not collation.may_alter:
            _skip_collation(collation, why, outside, conditions, plan)
            continue
        for oid in collation.indexes:
            if oid in rebuilt:
                continue
            rebuilt.add(oid)
            step = make_index_step(
                by_oid[oid],
                phase=Phase.COLLATION,
                unmet={"collation_versions": why},
                priority=float(by_oid[oid].pages),
                block_size=block_size,
            )
            add_possible_step(step, by_oid[oid], rights, plan)
        plan.steps.append(make_refresh_step(collation))


def make_refresh_step(collation: Collation) -> Step:
    """Return the step that notes the version of now."""
    return Step(
        phase=Phase.REFRESH,
        table=0,
        oid=collation.oid,
        schema=collation.schema,
        name=collation.name,
        display_name=format_collation(collation),
        action="REFRESH COLLATION VERSION" if collation.oid == DATABASE else "REFRESH VERSION",
        unmet={"collation_versions": f"version {collation.recorded} is on record, and it is {collation.actual} now"},
        priority=0.0,
        size=0,
        estimate=0.001,
    )


def _skip_collation(collation: Collation, why: str, outside: list[int], conditions: Conditions, plan: Plan) -> None:
    count = len(collation.indexes)
    what = f"{count} indexes are {why}"
    missing_right = False
    next_step = f"REINDEX INDEX CONCURRENTLY each of its {count} indexes (collation_versions: refresh does it), then {name_refresh(collation)}"
    if collation.partitioned:
        what += (
            f"; {len(collation.partitioned)} tables are divided into ranges by it, first {collation.partitioned[0]}, so"
            " rows of them may be in the wrong partition"
        )
        next_step = (
            f"Move the rows of {', '.join(collation.partitioned[:5])} that are outside the bounds of their partition, REINDEX"
            f" every index by the collation, then {name_refresh(collation)}"
        )
    elif conditions.collation_versions == "refresh" and outside:
        next_step = f"Widen the scope: {len(outside)} of its {count} indexes are not in it"
    elif conditions.collation_versions == "refresh":
        next_step = "Connect as its owner, who alone may refresh the version"
        missing_right = True
    blocker = Blocker(format_collation(collation), what, HOLDER, next_step)
    plan.skip(
        collation.oid,
        format_collation(collation),
        "REINDEX and REFRESH VERSION",
        what,
        blocker,
        missing_right=missing_right,
    )


def _skip_idle(collations: list[Collation], plan: Plan) -> None:
    """Put on one line all collations of another version that nothing is built by."""
    first = collations[0]
    more = f" and {len(collations) - 1} more" if len(collations) > 1 else ""
    what = "of another version than the one on record, and no index is built by any of them"
    blocker = Blocker(
        f"{format_collation(first)}{more}", what, HOLDER, f"As the owner of each, {name_refresh(first)} and so on"
    )
    plan.skip(first.oid, blocker.object, "REFRESH VERSION", what, blocker)
