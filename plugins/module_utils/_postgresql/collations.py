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

DEFAULT_COLLATION = 100
"""The oid of the collation "default", which means the database's (src/include/catalog/pg_collation.dat)."""


class Collation(t.NamedTuple):
    """A collation, or the database's own, whose version differs; ``indexes`` are the oids of all that are built by it."""

    oid: int
    schema: str
    name: str
    recorded: str
    actual: str
    may_alter: bool
    indexes: list[int]


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
      AND d.refclassid = 'pg_catalog.pg_collation'::regclass AND d.refobjid = o.oid)) ORDER BY 1) AS indexes
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
    same run: once it is refreshed nothing tells an old index from a new one.
    """
    by_oid = {index.oid: index for index in indexes}
    rebuilt = {step.oid for step in plan.steps if step.phase in {Phase.INVALID, Phase.BLOAT}}
    for collation in collations:
        why = f"built by rules of version {collation.recorded}, and {format_collation(collation)} is of {collation.actual} now"
        outside = [oid for oid in collation.indexes if oid not in by_oid]
        if conditions.collation_versions == "report" or outside or not collation.may_alter:
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
    next_step = f"REINDEX INDEX CONCURRENTLY each of its {count} indexes (collation_versions: refresh does it), then {name_refresh(collation)}"
    if conditions.collation_versions == "refresh" and outside:
        next_step = f"Widen the scope: {len(outside)} of its {count} indexes are not in it"
    elif conditions.collation_versions == "refresh":
        next_step = "Connect as its owner, who alone may refresh the version"
    blocker = Blocker(
        format_collation(collation), f"{count} indexes are {why}", "the operating system's update", next_step
    )
    plan.skip(
        collation.oid, format_collation(collation), "REINDEX and REFRESH VERSION", f"{count} indexes are {why}", blocker
    )
