# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who stands in the way: of cleaning up dead rows, and of a lock. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.outcome import Blocker

if t.TYPE_CHECKING:
    from .connection import Session


class Horizon(t.NamedTuple):
    """Something that keeps dead rows from being removed. ``age`` is in transactions; ``began`` (by the server's clock, seconds
    since 1970) and ``seconds`` (ago) tell since when, if the server knows.

    ``catalogs_only`` is true for what holds rows of system catalogs alone (a logical slot's catalog_xmin).
    """

    what: str
    holder: str
    since: str | None
    began: float | None
    seconds: float | None
    age: int
    catalogs_only: bool
    next_step: str


class LockHolder(t.NamedTuple):
    """A session or prepared transaction that holds (``granted``) a lock on a relation. ``seconds`` is its transaction's age."""

    relation: int
    pid: int | None
    holder: str
    mode: str
    since: str | None
    seconds: float | None
    next_step: str


# Of ``a``, which is pg_stat_activity; what the server hides from this user is NULL there and left out here.
_WHO = """nullif(concat_ws(', ', 'pid ' || a.pid, 'user ' || a.usename, 'application ' || nullif(a.application_name, ''),
  'client ' || a.client_addr::text, a.state), '')"""

# A statement that reads under READ COMMITTED holds its own snapshot only, so what counts is when it began.
# Lazy VACUUM, CREATE INDEX CONCURRENTLY and this module's own sessions are not waited for by a VACUUM.
_HORIZONS = """
SELECT 'an open snapshot', {who}, s.since::text, extract(epoch FROM s.since)::float8,
  extract(epoch FROM clock_timestamp() - s.since)::float8,
  greatest(age(a.backend_xmin), age(a.backend_xid)), false,
  'End that transaction, or the session with SELECT pg_terminate_backend(' || a.pid || ')'
FROM pg_catalog.pg_stat_activity a
CROSS JOIN LATERAL (SELECT CASE WHEN a.state = 'active' AND a.backend_xid IS NULL THEN a.query_start ELSE a.xact_start END AS since) s
WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND a.datname = current_database()
  AND a.backend_type NOT IN ('autovacuum worker', 'walsender') AND a.pid <> pg_backend_pid()
  AND a.application_name <> current_setting('application_name')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
UNION ALL
SELECT 'a prepared transaction', concat_ws(', ', 'prepared transaction ' || quote_literal(gid), 'user ' || owner),
  prepared::text, extract(epoch FROM prepared)::float8, extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction), false,
  'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(gid)
FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()
UNION ALL
SELECT 'a replication slot', concat_ws(', ', slot_type || ' slot ' || quote_ident(slot_name), CASE WHEN active THEN 'active' ELSE 'inactive' END,
    'used by pid ' || active_pid),
  NULL, NULL, NULL, CASE WHEN xmin IS NOT NULL THEN age(xmin) ELSE age(catalog_xmin) END, xmin IS NULL,
  'Let its consumer catch up, or SELECT pg_drop_replication_slot(' || quote_literal(slot_name) || ')'
FROM pg_catalog.pg_replication_slots
WHERE xmin IS NOT NULL OR (catalog_xmin IS NOT NULL AND (database IS NULL OR database = current_database()))
UNION ALL
SELECT 'a standby with hot_standby_feedback', concat_ws(', ', 'standby ' || nullif(application_name, ''), 'pid ' || pid, 'client ' || client_addr::text),
  NULL, NULL, NULL, age(backend_xmin), false,
  'End the long query on that standby, or turn hot_standby_feedback off there'
FROM pg_catalog.pg_stat_replication WHERE backend_xmin IS NOT NULL
""".replace("{who}", _WHO)

_LOCKS = """
SELECT l.relation::bigint, l.pid,
  coalesce({who}, 'prepared transaction ' || quote_literal(p.gid) || ', user ' || p.owner, 'pid ' || l.pid),
  l.mode, coalesce(a.xact_start, p.prepared)::text,
  extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8,
  CASE WHEN p.gid IS NULL THEN 'End that transaction, or the session with SELECT pg_terminate_backend(' || l.pid || ')'
    ELSE 'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(p.gid) END
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction::text
WHERE l.locktype = 'relation' AND l.granted
  AND l.database IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
  AND l.relation = ANY(%(oids)s::bigint[]::oid[]) AND l.mode = ANY(%(modes)s) AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND coalesce(a.application_name, '') <> current_setting('application_name')
ORDER BY 6 DESC NULLS LAST
""".replace("{who}", _WHO)

# Who may be building an index: holders of a lock that admits no second one, vacuums and analyzes (cancelled or soon over) aside.
_BUILDERS = """
SELECT l.relation::bigint, {who}
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.relation = ANY(%(oids)s::bigint[]::oid[]) AND l.mode = ANY(%(modes)s)
  AND a.application_name <> current_setting('application_name')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = l.pid)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_analyze v WHERE v.pid = l.pid)
""".replace("{who}", _WHO)

# What ShareUpdateExclusiveLock (VACUUM, ANALYZE, concurrent index work) waits for.
CONFLICTS_WITH_VACUUM = [
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
]
# What the last phases of REINDEX CONCURRENTLY wait for: everybody who uses the table.
ANY_LOCK = [*CONFLICTS_WITH_VACUUM, "AccessShareLock", "RowShareLock", "RowExclusiveLock"]


def read_horizons(session: Session) -> list[Horizon]:
    """Everything that holds the horizon of this database back, the oldest first."""
    found = [Horizon(*row) for row in session.query(_HORIZONS) if row[5] is not None]
    return sorted(found, key=lambda horizon: -horizon.age)


def read_lock_holders(session: Session, oids: list[int], modes: list[str]) -> list[LockHolder]:
    """Who, other than this run, holds a lock of those modes on one of these relations; the oldest transaction first."""
    return [LockHolder(*row) for row in session.query(_LOCKS, {"oids": oids, "modes": modes})]


def read_builders(session: Session, oids: list[int]) -> dict[int, str]:
    """Who may be building or dropping an index, by the oid of the table or index that is locked for it."""
    return dict(session.query(_BUILDERS, {"oids": oids, "modes": CONFLICTS_WITH_VACUUM}))


def useless(
    horizons: list[Horizon],
    *,
    vacuumed: float | None,
    changed: int,
    minimum: int,
    catalog: bool,
) -> Horizon | None:
    """The holder that makes another VACUUM of a table remove nothing, or None.

    The table was vacuumed after the holder began: rows that died before it are gone already, and rows that died after it
    stay until it ends. Both times are the server's clock, since ages would be taken at different moments. Of a slot or a
    standby the server does not tell since when; it counts when the table was vacuumed and hardly changed since, so that its
    dead rows are those that the last VACUUM had to leave.
    """
    if vacuumed is None:
        return None
    for horizon in horizons:
        if horizon.catalogs_only and not catalog:
            continue
        if horizon.began is not None:
            if horizon.began <= vacuumed:
                return horizon
        elif changed < minimum:
            return horizon
    return None


def oldest(horizons: list[Horizon], *, catalog: bool) -> Horizon | None:
    """The holder of the oldest transaction that counts for a table."""
    return next((horizon for horizon in horizons if catalog or not horizon.catalogs_only), None)


def for_seconds(seconds: float | None) -> str:
    """``for 35 s``, or nothing when the server does not know."""
    return "" if seconds is None else f" for {seconds:.0f} s"


def horizon_blocker(table: str, horizon: Horizon, problem: str) -> Blocker:
    """A horizon as what stands in the way of one table."""
    return Blocker(
        object=table,
        what=f"{problem}: {horizon.what}, {horizon.age} transactions old",
        holder=f"{horizon.holder}{for_seconds(horizon.seconds)}",
        next_step=horizon.next_step,
        since=horizon.since,
    )


def lock_blocker(obj: str, holder: LockHolder) -> Blocker:
    """A lock as what stands in the way of one object."""
    return Blocker(
        object=obj,
        what=f"locked by somebody else ({holder.mode})",
        holder=f"{holder.holder}{for_seconds(holder.seconds)}",
        next_step=holder.next_step,
        since=holder.since,
    )
