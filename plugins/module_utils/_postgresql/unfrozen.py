# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps the database near wraparound although no table in scope does. Private to lowtide.ops: do not import from other collections.

The age of a database is that of its oldest relation: a catalog, an excluded table, a temporary one. A session alone can
freeze its temporary tables; all others the server freezes by itself from autovacuum_freeze_max_age on, so of those only
what is older counts.
"""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker
from . import names
from .steps import Conditions, Plan

if t.TYPE_CHECKING:
    from .connection import Session

ACTION = "VACUUM (FREEZE)"


class Unfrozen(t.NamedTuple):
    """A relation with old ids; of a TOAST table, the table that it belongs to. ``session`` is whose temporary table it is."""

    oid: int
    schema: str
    name: str
    temporary: bool
    xid_age: int
    multixact_age: int
    session: str | None


# From 16 on the number of a temporary schema is that by which the server tells who has it. What a crash left has nobody, and
# its number may be that of a session by now, even of another database.
_UNFROZEN = """
WITH aged AS (
  SELECT c.oid, c.relkind, c.relpersistence = 't' AS temporary, age(c.relfrozenxid) AS xid_age, mxid_age(c.relminmxid) AS multixact_age
  FROM pg_catalog.pg_class c
  WHERE c.relkind IN ('r', 'm', 't') AND c.relfrozenxid <> '0'
    AND (age(c.relfrozenxid) > %(limit)s OR mxid_age(c.relminmxid) > %(limit)s)
), named AS (
  SELECT coalesce(h.oid, o.oid) AS oid, o.temporary, o.xid_age, o.multixact_age
  FROM aged o LEFT JOIN pg_catalog.pg_class h ON o.relkind = 't' AND h.reltoastrelid = o.oid
)
SELECT c.oid::bigint AS oid, s.nspname::text AS schema, c.relname::text AS name, n.temporary, n.xid_age, n.multixact_age,
  (SELECT concat_ws(', ', 'pid ' || a.pid, 'user ' || a.usename, 'application ' || nullif(a.application_name, ''),
    'client ' || a.client_addr::text, a.state) FROM pg_catalog.pg_stat_activity a WHERE n.temporary AND a.pid = {pid}
    AND a.datname = current_database()) AS session
FROM named n JOIN pg_catalog.pg_class c ON c.oid = n.oid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
ORDER BY greatest(n.xid_age, n.multixact_age) DESC
"""
_PID = "CASE WHEN n.temporary THEN pg_stat_get_backend_pid(substring(s.nspname::text FROM '[0-9]+$')::int) END"
NUMBERED_SESSIONS = 160000


def read_unfrozen(session: Session, *, limit: int) -> list[Unfrozen]:
    """Return every relation of this database with ids older than ``limit``, the oldest first, temporary ones included."""
    pid = _PID if session.server.version >= NUMBERED_SESSIONS else "NULL"
    return session.read(Unfrozen, _UNFROZEN.replace("{pid}", pid), {"limit": limit})


def plan_unfrozen(
    relations: t.Iterable[Unfrozen],
    assessed: t.Collection[int],
    conditions: Conditions,
    *,
    freeze_max_age: int,
    multixact_freeze_max_age: int,
    plan: Plan,
) -> None:
    """Name as a danger what is too old and not among the tables that are ``assessed``: one blocker for each session or table."""
    limit = conditions.transaction_id_age
    if limit is None:
        return
    known: set[str] = set()
    for relation in relations:
        xid_limit = limit if relation.temporary else max(limit, freeze_max_age)
        multixact_limit = limit if relation.temporary else max(limit, multixact_freeze_max_age)
        if relation.oid in assessed:
            continue
        if relation.xid_age > xid_limit:
            age = f"its oldest transaction id is {relation.xid_age} old, more than {xid_limit}"
        elif relation.multixact_age > multixact_limit:
            age = f"its oldest multixact id is {relation.multixact_age} old, more than {multixact_limit}"
        else:
            continue
        holder, next_step = _explain(relation)
        if holder in known:
            continue
        known.add(holder)
        kind = "temporary table" if relation.temporary else "table"
        display_name = f"{kind} {names.format_name(relation.schema, relation.name)}"
        what = f"{age}, and it is not among the tables that are looked at, so the database's age does not go down"
        plan.skip(
            relation.oid,
            display_name,
            ACTION,
            f"{what}; {holder}",
            Blocker(object=display_name, what=what, holder=holder, next_step=next_step),
            danger=True,
        )


def _explain(relation: Unfrozen) -> tuple[str, str]:
    """Return who has the relation, and what to do."""
    name = names.format_name(relation.schema, relation.name)
    if relation.temporary:
        holder = (
            relation.session or f"a session of this database that has the schema {relation.schema}, or nobody any more"
        )
        return holder, (
            f"If that session uses temporary tables, end it, or have it run DROP TABLE, or {ACTION}, on {name}; nobody else"
            f" can freeze it. If none does, a crash has left it: DROP TABLE {name} as a superuser"
        )
    if relation.schema in {"pg_catalog", "information_schema"}:
        return f"system catalog {name}", f"Run {ACTION} on it as a superuser, or set system_catalogs to true"
    return f"out of scope: {name}", f"Run {ACTION} on it, or take it out of exclude"
