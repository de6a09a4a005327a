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

    So are those over types that compare by it, however deep inside (jsonb, ranges, arrays, domains, composite types), and
    those with an expression or a predicate that does. ``partitioned`` are the names of the tables whose rows are divided by it.
    """

    oid: int
    schema: str
    name: str
    recorded: str
    actual: str
    may_alter: bool
    indexes: list[int]
    partitioned: list[str]


# Of a type that an extension made it is not known how it compares: it is taken for one that does so by the default collation,
# and a record for one that does so by any (NULL). List and hash partitions depend on it only where equal is not identical.
_COLLATIONS = """
WITH RECURSIVE outdated AS (
  SELECT oid, (SELECT nspname::text FROM pg_catalog.pg_namespace n WHERE n.oid = collnamespace) AS schema, collname::text AS name, collversion AS recorded,
    pg_collation_actual_version(oid) AS actual, pg_has_role(collowner, 'USAGE') AS may_alter, collisdeterministic AS deterministic
  FROM pg_catalog.pg_collation
  WHERE collversion <> pg_collation_actual_version(oid)
  {database}
), keyed AS (
  SELECT x.indexrelid AS relation, true AS is_index, false AS ranged, x.indcollation::oid[] AS collations,
    concat(x.indexprs::text, x.indpred::text) AS trees,
    ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = x.indexrelid) AS types
  FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
  WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND EXISTS (SELECT FROM outdated)
  UNION ALL
  SELECT p.partrelid, false, p.partstrat = 'r', p.partcollation::oid[], coalesce(p.partexprs::text, ''),
    ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.partrelid AND a.attnum = ANY(p.partattrs))
  FROM pg_catalog.pg_partitioned_table p WHERE EXISTS (SELECT FROM outdated)
), typed AS (
  SELECT relation, unnest(types) AS type FROM keyed
  UNION SELECT relation, (regexp_matches(trees, ':[a-z_]*type[a-z_]* ([0-9]+)', 'g'))[1]::oid FROM keyed
), reached AS (
  SELECT DISTINCT type, type AS part, 0::oid AS rules FROM typed
  UNION
  SELECT r.type, p.part, p.rules FROM reached r CROSS JOIN LATERAL (
    SELECT CASE ty.typtype WHEN 'd' THEN ty.typbasetype ELSE ty.typelem END, 0::oid FROM pg_catalog.pg_type ty
      WHERE ty.oid = r.part AND (ty.typtype = 'd' OR (ty.typelem <> 0 AND ty.typlen = -1))
    UNION ALL SELECT CASE r.part WHEN g.rngtypid THEN g.rngsubtype ELSE g.rngtypid END, g.rngcollation
      FROM pg_catalog.pg_range g WHERE r.part IN (g.rngtypid, g.rngmultitypid)
    UNION ALL SELECT a.atttypid, a.attcollation FROM pg_catalog.pg_type ty JOIN pg_catalog.pg_attribute a ON a.attrelid = ty.typrelid
      WHERE ty.oid = r.part AND ty.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 0::oid, CASE ty.typtype WHEN 'p' THEN NULL ELSE 100::oid END
      FROM pg_catalog.pg_type ty
      WHERE ty.oid = r.part AND (ty.oid IN ('pg_catalog.jsonb'::pg_catalog.regtype, 'pg_catalog.record'::pg_catalog.regtype)
        OR (ty.typtype = 'b' AND ty.oid >= 16384 AND NOT (ty.typelem <> 0 AND ty.typlen = -1)))
  ) p(part, rules)
), used AS (
  SELECT relation, unnest(collations) AS rules FROM keyed
  UNION SELECT relation, regexp_split_to_table(btrim((regexp_matches(trees, ':inputcollids? (?:[(]o )?([0-9 ]+)', 'g'))[1]), ' +')::oid FROM keyed
  UNION SELECT d.objid, d.refobjid FROM keyed k JOIN pg_catalog.pg_depend d ON d.objid = k.relation
    WHERE k.is_index AND d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_collation'::regclass
  UNION SELECT y.relation, r.rules FROM typed y JOIN reached r ON r.type = y.type
), bound AS (
  SELECT DISTINCT o.oid AS rules, k.relation, k.is_index
  FROM outdated o JOIN used u ON u.rules = o.oid OR u.rules IS NULL JOIN keyed k ON k.relation = u.relation
  WHERE k.is_index OR k.ranged OR k.trees <> '' OR NOT o.deterministic
)
SELECT CASE WHEN o.oid = 100 THEN 0 ELSE o.oid::bigint END AS oid, o.schema, o.name, o.recorded, o.actual, o.may_alter,
  ARRAY(SELECT b.relation::bigint FROM bound b WHERE b.rules = o.oid AND b.is_index ORDER BY 1) AS indexes,
  ARRAY(SELECT quote_ident(pn.nspname) || '.' || quote_ident(pc.relname) FROM bound b
    JOIN pg_catalog.pg_class pc ON pc.oid = b.relation JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
    WHERE b.rules = o.oid AND NOT b.is_index ORDER BY 1) AS partitioned
FROM outdated o ORDER BY 1
"""

_DATABASE = """UNION ALL
  SELECT 100, '', datname::text, datcollversion, pg_database_collation_actual_version(oid), pg_has_role(datdba, 'USAGE'), true
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
    same run: once it is refreshed nothing tells an old index from a new one. Where tables are divided by it,
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


def fit_collations(plan: Plan, collations: list[Collation], *, budget: float | None, jobs: int) -> None:
    """Keep the rebuilds of those collations alone whose indexes can all be rebuilt within the time budget, the quickest first.

    Of what is rebuilt in a run that does not come to the end nothing is noted, so that the next one would begin anew.
    """
    if budget is None:
        return
    own = {Phase.COLLATION, Phase.REFRESH}
    refreshes = {step.oid: step for step in plan.steps if step.phase == Phase.REFRESH}
    rebuilds = {step.oid: step for step in plan.steps if step.phase == Phase.COLLATION}
    used = sum(
        step.estimate for step in plan.steps if step.phase not in own and (step.is_danger or step.estimate <= budget)
    )

    def list_rebuilds(collation: Collation) -> list[Step]:
        return [rebuilds[oid] for oid in collation.indexes if oid in rebuilds]

    def add_estimates(steps: t.Iterable[Step]) -> float:
        return sum(step.estimate for step in steps)

    kept: set[int] = set()
    for collation in sorted(collations, key=lambda collation: add_estimates(list_rebuilds(collation))):
        if collation.oid not in refreshes:
            continue
        steps = list_rebuilds(collation)
        seconds = add_estimates([*(step for step in steps if step.oid not in kept), refreshes[collation.oid]])
        if (used + seconds) / jobs <= budget:
            used += seconds
            kept.update(step.oid for step in steps)
            continue
        step = refreshes.pop(collation.oid)
        blocker = Blocker(
            object=step.display_name,
            what=f"no time for the rebuild of its {len(collation.indexes)} indexes, about"
            f" {add_estimates(steps) / jobs:.0f} s, in one run, without which its version cannot be noted",
            holder=f"time_budget of {budget:g} s",
            next_step=f"Run once with a time_budget of more than {(used + seconds) / jobs:.0f} s, or without one",
        )
        plan.skip(collation.oid, step.display_name, step.action, f"{step.why}; {blocker.what}", blocker)
    plan.steps[:] = [
        step
        for step in plan.steps
        if step.phase not in own or step.oid in (kept if step.phase == Phase.COLLATION else refreshes)
    ]


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
            f"; {len(collation.partitioned)} tables are divided by it, first {collation.partitioned[0]}, so"
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
