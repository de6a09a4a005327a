# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the server who stands in the way: of cleaning up dead rows, and of a lock. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .holders import LockHolder, XminHolder

if t.TYPE_CHECKING:
    from .connection import Session

# Of ``a``, which is pg_stat_activity; what the server hides from this user is NULL there and left out here.
_WHO = """nullif(concat_ws(', ', 'pid ' || a.pid,
  CASE WHEN a.backend_type = 'autovacuum worker' THEN coalesce(nullif(a.query, ''), 'autovacuum worker') END,
  'user ' || a.usename, 'application ' || nullif(a.application_name, ''), 'client ' || a.client_addr::text, a.state,
  CASE WHEN a.datname <> current_database() THEN 'database ' || quote_ident(a.datname) END), '')"""

# A backup is not to be ended for a VACUUM that the next run does as well.
_END = """CASE WHEN a.application_name IN ('pg_dump', 'pg_dumpall') OR starts_with(a.application_name, 'lowtide.ops pg_backup ')
    THEN 'Run again when that backup has ended, and begin the two at different times'
    WHEN starts_with(a.application_name, 'lowtide.ops ') THEN 'Run again when that run has ended'
    ELSE 'End that transaction, or the session with SELECT pg_terminate_backend(' || a.pid || ')' END"""

# A statement that reads under READ COMMITTED holds its own snapshot only, so what counts is when it began.
# A concurrent build waits for the whole transaction. Lazy VACUUM and this module's own sessions are not waited for by a
# VACUUM, and what a lost slot once held is let go. Who is in another database holds rows of shared catalogs. Up to 15 a
# setting can hold rows as well.
_XMIN_HOLDERS = """
WITH holders AS (
SELECT 'an open snapshot' AS what, {who} AS holder, s.since::text AS since, extract(epoch FROM s.since)::float8 AS began,
  extract(epoch FROM clock_timestamp() - s.since)::float8 AS seconds,
  CASE WHEN age(a.backend_xid) > age(a.backend_xmin) THEN a.backend_xid ELSE coalesce(a.backend_xmin, a.backend_xid) END AS xid,
  false AS only_catalogs,
  {end} AS next_step,
  extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds, a.datname <> current_database() AS only_shared
FROM pg_catalog.pg_stat_activity a
CROSS JOIN LATERAL (SELECT CASE WHEN a.state = 'active' AND a.backend_xid IS NULL THEN a.query_start ELSE a.xact_start END AS since) s
WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND a.datname IS NOT NULL
  AND a.backend_type NOT IN ('autovacuum worker', 'walsender') AND a.pid <> pg_backend_pid()
  AND coalesce(a.application_name, '') <> current_setting('application_name')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
UNION ALL
SELECT 'a prepared transaction', concat_ws(', ', 'prepared transaction ' || quote_literal(gid), 'user ' || owner,
    CASE WHEN database <> current_database() THEN 'database ' || quote_ident(database) END),
  prepared::text, extract(epoch FROM prepared)::float8, extract(epoch FROM clock_timestamp() - prepared)::float8, transaction, false,
  'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(gid), NULL, database <> current_database()
FROM pg_catalog.pg_prepared_xacts
UNION ALL
SELECT 'a replication slot', concat_ws(', ', slot_type || ' slot ' || quote_ident(slot_name), CASE WHEN active THEN 'active' ELSE 'inactive' END,
    'used by pid ' || active_pid),
  NULL, NULL, NULL, coalesce(xmin, catalog_xmin), xmin IS NULL,
  'Let its consumer catch up, or SELECT pg_drop_replication_slot(' || quote_literal(slot_name) || ')', NULL, false
FROM pg_catalog.pg_replication_slots
WHERE (xmin IS NOT NULL OR catalog_xmin IS NOT NULL) AND wal_status IS DISTINCT FROM 'lost'
UNION ALL
SELECT 'a standby with hot_standby_feedback', concat_ws(', ', 'standby ' || nullif(application_name, ''), 'pid ' || pid, 'client ' || client_addr::text),
  NULL, NULL, NULL, backend_xmin, false,
  'End the long query on that standby, or turn hot_standby_feedback off there', NULL, false
FROM pg_catalog.pg_stat_replication WHERE backend_xmin IS NOT NULL
UNION ALL
SELECT 'a setting of the server', 'vacuum_defer_cleanup_age = ' || setting, NULL, NULL, NULL,
  (greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint - setting::bigint, 3) % 4294967296)::text::xid, false,
  'ALTER SYSTEM SET vacuum_defer_cleanup_age = 0, then SELECT pg_reload_conf()', NULL, false
FROM pg_catalog.pg_settings WHERE name = 'vacuum_defer_cleanup_age' AND setting::bigint > 0
)
SELECT what, holder, since, began, seconds, age(xid) AS age, xid::text::bigint AS xid, only_catalogs, next_step,
  transaction_seconds, only_shared
FROM holders WHERE xid IS NOT NULL ORDER BY age(xid) DESC
""".replace("{who}", _WHO).replace("{end}", _END)

# Up to PostgreSQL 18 only the text of an autovacuum worker's command tells whether it is there against wraparound. Who may
# not read it sees that a VACUUM without a user runs, and no more; it is taken for one that is.
_LOCKS = """
SELECT coalesce((SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY(%(oids)s::bigint[]::oid[])
    AND c.reltoastrelid = l.relation AND c.reltoastrelid <> 0), l.relation)::bigint AS relation, l.pid,
  coalesce({who}, 'prepared transaction ' || quote_literal(p.gid) || ', user ' || p.owner, 'pid ' || l.pid) AS holder,
  l.mode, coalesce(a.xact_start, p.prepared)::text AS since,
  extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8 AS seconds,
  CASE WHEN p.gid IS NULL THEN coalesce({end}, 'End session ' || l.pid)
    ELSE 'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(p.gid) END AS next_step,
  CASE WHEN a.backend_type = 'autovacuum worker' AND position('(to prevent wraparound)' IN a.query) = 0 THEN 'autovacuum'
    WHEN a.backend_type = 'autovacuum worker' OR (a.backend_type IS NULL AND a.usesysid IS NULL AND v.pid IS NOT NULL)
    THEN 'wraparound'
    WHEN v.pid IS NOT NULL THEN 'command' ELSE '' END AS vacuum
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_stat_progress_vacuum v ON v.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction::text
WHERE l.locktype = 'relation' AND l.granted
  AND l.database IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
  AND (l.relation = ANY(%(oids)s::bigint[]::oid[]) OR (%(toast)s AND l.relation IN (
    SELECT reltoastrelid FROM pg_catalog.pg_class WHERE oid = ANY(%(oids)s::bigint[]::oid[]) AND reltoastrelid <> 0)))
  AND l.mode = ANY(%(modes)s) AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND coalesce(a.application_name, '') <> current_setting('application_name')
ORDER BY seconds DESC NULLS LAST
""".replace("{who}", _WHO).replace("{end}", _END)

# Who may be building an index: holders of a lock that admits no second one, vacuums and analyzes (cancelled or soon over) aside.
_BUILDERS = """
SELECT l.relation::bigint, {who}
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.relation = ANY(%(oids)s::bigint[]::oid[]) AND l.mode = ANY(%(modes)s)
  AND coalesce(a.application_name, '') <> current_setting('application_name')
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


def read_xmin_holders(session: Session) -> list[XminHolder]:
    """Return everything that keeps dead rows of this database or of shared catalogs, the oldest first."""
    return session.read(XminHolder, _XMIN_HOLDERS)


def read_lock_holders(session: Session, oids: list[int], modes: list[str], *, toast: bool = False) -> list[LockHolder]:
    """Return who, other than this run, holds a lock of those modes on one of these relations; the oldest transaction first.

    With ``toast`` a lock on the TOAST table counts as one on its table, as VACUUM needs both.
    """
    return session.read(LockHolder, _LOCKS, {"oids": oids, "modes": modes, "toast": toast})


def read_builders(session: Session, oids: list[int]) -> dict[int, str]:
    """Return who may be building or dropping an index, by the oid of the table or index that is locked for it."""
    return dict(session.query(_BUILDERS, {"oids": oids, "modes": CONFLICTS_WITH_VACUUM}))
