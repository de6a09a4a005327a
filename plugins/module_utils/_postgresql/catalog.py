# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogs and the statistics say about tables and indexes. Private to lowtide.ops: do not import from other collections.

One statement for all tables, from pg_class and the statistics only: no size function, no file is touched (0.06 s for
10,000 tables), except for tables whose rows nobody has counted. Indexes are a second statement, asked only when a
condition is about them, and answers only for those that are invalid or large enough to matter.
"""

from __future__ import annotations

import typing as t

from .._common.dependencies import require
from .connection import Session, driver_error
from .errors import LOCK_NOT_AVAILABLE, sqlstate


class TableState(t.NamedTuple):
    """One table, partitioned table or materialized view. By the server's clock, None for never: ``vacuumed`` is the
    second since 1970 in which its last VACUUM ended, ``since_analyze`` the seconds since the last ANALYZE.

    ``frozen_xid`` is the older relfrozenxid of table and TOAST, 0 for none; ``inserted`` are the rows inserted since the
    last VACUUM; ``parent`` the partitioned table that it is a partition of.
    ``may_enter`` is the right to name what is in its schema, which is as needful as that to vacuum it.
    ``kind`` is pg_class.relkind; ``pages`` are blocks of heap and TOAST as of the last VACUUM or ANALYZE; ``live``, ``dead``
    and ``changed`` are the statistics' row counts (``changed``: since the last ANALYZE); the ``toast_*`` ones count chunks.
    What survives the loss of these counters: ``heap_pages``, and how many of them were ``visible_pages`` (to all) as of the
    last VACUUM or ANALYZE; ``toast_unknown``, about how many chunks there are of which nothing is counted; ``file_pages``,
    the blocks that a table has now: read only where nobody counted its rows, None where a lock forbids to look.
    ``shared``: a catalog that all databases have in common.
    """

    oid: int
    schema: str
    name: str
    kind: str
    pages: int
    reltuples: float
    xid_age: int
    multixact_age: int
    live: int
    dead: int
    changed: int
    vacuumed: float | None
    since_analyze: float | None
    vacuum_count: int
    analyze_count: int
    toast_live: int
    toast_dead: int
    parent: int | None
    may_vacuum: bool
    may_enter: bool
    frozen_xid: int
    inserted: int
    heap_pages: int
    visible_pages: int
    toast_unknown: float
    file_pages: int | None
    shared: bool = False
    owner: str = ""

    @property
    def is_uncounted(self) -> bool:
        """Whether neither the catalog nor a VACUUM or ANALYZE that the server knows of tells how many rows there are."""
        return self.kind in {"r", "m"} and self.reltuples < 0 and self.vacuumed is None and self.since_analyze is None


class IndexState(t.NamedTuple):
    """One index. ``signature`` tells two indexes of one definition; None where nothing on that table is invalid.

    ``is_safe``: no expression and no predicate, so that other concurrent builds need not wait for its own. ``toasted``: its
    table has values out of line, whose length in the statistics is that of a pointer.
    ``columns`` has, for each column, ``[length, alignment, average width, share of nulls, distinct values as pg_stats counts
    them]`` with length -1 for variable ones; None for an index that is not examined for bloat.
    """

    oid: int
    table_oid: int
    schema: str
    name: str
    table_schema: str
    table: str
    kind: str
    method: str
    pages: int
    tuples: float
    valid: bool
    live: bool
    unique: bool
    exclusion: bool
    constraint: bool
    fillfactor: int
    deduplicates: bool
    may_reindex: bool
    may_drop: bool
    may_enter: bool
    toast: bool
    signature: str | None
    is_safe: bool
    toasted: bool
    columns: list[list[t.Any]] | None


_TABLES = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
  c.relpages + coalesce(t.relpages, 0) AS pages, c.reltuples AS reltuples,
  CASE WHEN c.relfrozenxid <> '0' THEN greatest(age(c.relfrozenxid), age(t.relfrozenxid)) ELSE 0 END AS xid_age,
  CASE WHEN c.relminmxid <> '0' THEN greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid)) ELSE 0 END AS multixact_age,
  pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead, pg_stat_get_mod_since_analyze(c.oid) AS changed,
  extract(epoch FROM greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)))::float8 AS vacuumed,
  extract(epoch FROM clock_timestamp()
    - greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)))::float8 AS since_analyze,
  pg_stat_get_vacuum_count(c.oid) AS vacuum_count, pg_stat_get_analyze_count(c.oid) AS analyze_count,
  coalesce(pg_stat_get_live_tuples(t.oid), 0) AS toast_live, coalesce(pg_stat_get_dead_tuples(t.oid), 0) AS toast_dead,
  i.inhparent::bigint AS parent,
  {may_vacuum} AS may_vacuum, has_schema_privilege(n.oid, 'USAGE') AS may_enter,
  (CASE WHEN age(t.relfrozenxid) > age(c.relfrozenxid) THEN t.relfrozenxid ELSE c.relfrozenxid END)::text::bigint AS frozen_xid,
  pg_stat_get_ins_since_vacuum(c.oid) AS inserted,
  c.relpages AS heap_pages, c.relallvisible AS visible_pages,
  CASE WHEN t.reltuples > pg_stat_get_tuples_inserted(t.oid) AND pg_stat_get_last_vacuum_time(t.oid) IS NULL
    AND pg_stat_get_last_autovacuum_time(t.oid) IS NULL THEN t.reltuples ELSE 0 END AS toast_unknown,
  0 AS file_pages, c.relisshared AS shared, pg_get_userbyid(c.relowner)::text AS owner
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
CROSS JOIN (SELECT pg_has_role(datdba, 'USAGE') AS owner FROM pg_catalog.pg_database WHERE datname = current_database()) d
WHERE c.relkind = ANY(%(kinds)s) AND c.relpersistence <> 't'
  AND (%(oids)s::bigint[] IS NULL OR c.oid = ANY(%(oids)s::bigint[]::oid[]))
  AND (%(system)s OR n.nspname NOT IN ('pg_catalog', 'information_schema'))
  AND n.nspname <> 'pg_toast'
"""

# For the time that a VACUUM takes, which reads them whole. Asked only of tables that are to be vacuumed: over all tables
# it takes as long as everything else together.
_INDEX_PAGES = """
SELECT x.indrelid::bigint, sum(ic.relpages)::bigint
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class ic ON ic.oid = x.indexrelid
WHERE x.indrelid = ANY(%(oids)s::bigint[]::oid[]) GROUP BY x.indrelid
"""

# To ask for a size takes the weakest lock, so a table that somebody locks against readers, or is about to, is left out; a
# lock that comes in between ends the question after the session's lock_timeout.
_SIZES = """
SELECT c.oid::bigint AS oid, pg_relation_size(c.oid) AS bytes
FROM pg_catalog.pg_class c
WHERE c.oid = ANY(%(oids)s::bigint[]::oid[]) AND c.oid NOT IN (
  SELECT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
"""

# The owner, and the owner of the database except for shared catalogs; from 17 on also who was granted MAINTAIN.
_MAY_VACUUM = "pg_has_role(c.relowner, 'USAGE') OR (d.owner AND NOT c.relisshared)"
# The owner; from 17 on also who was granted MAINTAIN on the table.
_MAY_REINDEX = "pg_has_role(ic.relowner, 'USAGE')"
_MAY_REINDEX_17 = _MAY_REINDEX + " OR has_table_privilege(owner.oid, 'MAINTAIN')"
_MAY_VACUUM_17 = _MAY_VACUUM + " OR has_table_privilege(c.oid, 'MAINTAIN')"

# First the few that matter, then what they look like, so that nothing is joined that is not asked about.
_INDEXES = """
WITH scope AS MATERIALIZED (
  SELECT unnest(%(tables)s::bigint[]::oid[]) AS oid
  UNION ALL SELECT reltoastrelid FROM pg_catalog.pg_class WHERE oid = ANY(%(tables)s::bigint[]::oid[])
), broken AS MATERIALIZED (
  SELECT DISTINCT indrelid FROM pg_catalog.pg_index WHERE NOT indisvalid
    AND (%(tables)s::bigint[] IS NULL OR indrelid IN (SELECT oid FROM scope))
), wanted AS MATERIALIZED (
  SELECT indexrelid, indrelid, indkey FROM pg_catalog.pg_index WHERE indrelid IN (SELECT indrelid FROM broken)
  UNION
  SELECT x.indexrelid, x.indrelid, x.indkey
  FROM pg_catalog.pg_class ic JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree'
  JOIN pg_catalog.pg_index x ON x.indexrelid = ic.oid
  WHERE ic.relkind = 'i' AND ic.relpages >= %(pages)s
    AND (%(tables)s::bigint[] IS NULL OR x.indrelid IN (SELECT oid FROM scope))
  UNION
  SELECT indexrelid, indrelid, indkey FROM pg_catalog.pg_index WHERE indexrelid = ANY(%(indexes)s::bigint[]::oid[])
), measured AS MATERIALIZED (
  SELECT w.indexrelid, a.attnum, a.attlen, a.attalign, rn.nspname, r.relname, coalesce(ta.attname, a.attname) AS attname
  FROM wanted w
  JOIN pg_catalog.pg_class ic ON ic.oid = w.indexrelid AND ic.relpages >= %(pages)s
  JOIN pg_catalog.pg_attribute a ON a.attrelid = w.indexrelid
  LEFT JOIN pg_catalog.pg_attribute ta ON ta.attrelid = w.indrelid AND ta.attnum = w.indkey[a.attnum - 1]
  JOIN pg_catalog.pg_class r ON r.oid = CASE WHEN ta.attnum IS NULL THEN w.indexrelid ELSE w.indrelid END
  JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
), described AS (
  SELECT m.indexrelid,
    jsonb_agg(jsonb_build_array(m.attlen, m.attalign, s.avg_width, s.null_frac, s.n_distinct) ORDER BY m.attnum) AS columns
  FROM measured m
  LEFT JOIN pg_catalog.pg_stats s
    ON s.schemaname = m.nspname AND s.tablename = m.relname AND s.attname = m.attname AND NOT s.inherited
  GROUP BY m.indexrelid
)
SELECT ic.oid::bigint AS oid, owner.oid::bigint AS table_oid, xn.nspname::text AS schema, ic.relname::text AS name,
  hn.nspname::text AS table_schema, owner.relname::text AS table, ic.relkind::text AS kind, am.amname::text AS method,
  ic.relpages AS pages, ic.reltuples AS tuples, x.indisvalid AS valid, x.indislive AS live,
  x.indisunique AS unique, x.indisexclusion AS exclusion,
  EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = ic.oid AND k.contype IN ('p', 'u', 'x')) AS constraint,
  coalesce((SELECT option_value::int FROM pg_options_to_table(ic.reloptions) WHERE option_name = 'fillfactor'), 90) AS fillfactor,
  coalesce((SELECT option_value::bool FROM pg_options_to_table(ic.reloptions) WHERE option_name = 'deduplicate_items'), true) AS deduplicates,
  {may_reindex} AS may_reindex, pg_has_role(ic.relowner, 'USAGE') AS may_drop,
  has_schema_privilege(xn.oid, 'USAGE') AS may_enter,
  hc.relkind = 't' AS toast,
  CASE WHEN x.indrelid IN (SELECT indrelid FROM broken) THEN concat_ws('|', am.amname, x.indisunique, x.indkey, x.indclass,
    x.indcollation, x.indoption, pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid)) END AS signature,
  x.indexprs IS NULL AND x.indpred IS NULL AS is_safe,
  EXISTS (SELECT FROM pg_catalog.pg_class tc WHERE tc.oid = hc.reltoastrelid
    AND (tc.relpages > 0 OR pg_stat_get_tuples_inserted(tc.oid) > 0)) AS toasted,
  CASE WHEN am.amname = 'btree' AND hc.relkind <> 't' AND ic.relkind = 'i' THEN d.columns END AS columns
FROM wanted w
JOIN pg_catalog.pg_index x ON x.indexrelid = w.indexrelid
JOIN pg_catalog.pg_class ic ON ic.oid = x.indexrelid
JOIN pg_catalog.pg_namespace xn ON xn.oid = ic.relnamespace
JOIN pg_catalog.pg_class hc ON hc.oid = x.indrelid
LEFT JOIN pg_catalog.pg_class th ON hc.relkind = 't' AND th.reltoastrelid = hc.oid
JOIN pg_catalog.pg_class owner ON owner.oid = coalesce(th.oid, hc.oid)
JOIN pg_catalog.pg_namespace hn ON hn.oid = owner.relnamespace
JOIN pg_catalog.pg_am am ON am.oid = ic.relam
LEFT JOIN described d ON d.indexrelid = x.indexrelid
WHERE ic.relpersistence <> 't'
  AND (%(system)s OR hn.nspname NOT IN ('pg_catalog', 'information_schema'))
"""

# Most databases have none, and then the statement above takes longer to plan than all else that is asked.
_ANY_INVALID = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE NOT indisvalid)"

# pgstattuple's exact answer for one index, where the extension is installed, and whether it may be used.
_STATTUPLE = """
SELECT n.nspname::text AS schema, has_function_privilege(p.oid, 'EXECUTE') AS may_execute,
  has_schema_privilege(n.oid, 'USAGE') AS may_enter
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = 'pgstatindex'
WHERE e.extname = 'pgstattuple' AND p.proargtypes[0] = 'pg_catalog.regclass'::pg_catalog.regtype LIMIT 1
"""


class Stattuple(t.NamedTuple):
    """The extension pgstattuple as it is installed here: its schema, and whether this user may call it and enter there."""

    schema: str
    may_execute: bool
    may_enter: bool


_DATABASE = "SELECT age(datfrozenxid) FROM pg_catalog.pg_database WHERE datname = current_database()"

# The one table that the server silently does not analyze: it is where statistics are kept (src/include/catalog/pg_statistic.h).
PG_STATISTIC = 2619

MAX_OIDS_IN_QUERY = 1000
"""To send and compare more than these takes longer than to read all tables."""

NO_PAGES = 2**31 - 1
"""No index has so many blocks: none is examined for its size."""


def read_tables(
    session: Session,
    *,
    system: bool = False,
    oids: list[int] | None = None,
) -> list[TableState]:
    """Return every table, or those of ``oids``, in one round trip; foreign tables and views too (kinds f, v), so that a
    name given for one can be explained.
    """
    sql = _TABLES.replace("{may_vacuum}", _MAY_VACUUM_17 if session.server.version >= 170000 else _MAY_VACUUM)
    sent = oids if oids is not None and len(oids) <= MAX_OIDS_IN_QUERY else None
    tables = session.read(TableState, sql, {"kinds": list("rmpfv"), "oids": sent, "system": system})
    tables = _add_file_pages(session, tables)
    if oids is None:
        return tables
    requested = set(oids)
    return [table for table in tables if table.oid in requested]


def _add_file_pages(session: Session, tables: list[TableState]) -> list[TableState]:
    """Return the tables with the size of those whose rows nobody has counted."""
    uncounted = [table.oid for table in tables if table.is_uncounted]
    if not uncounted:
        return tables
    sizes = _read_sizes(session, uncounted)
    block_size = session.server.block_size

    def add_pages(table: TableState) -> TableState:
        size = sizes.get(table.oid)
        return table._replace(file_pages=None if size is None else size // block_size)

    return [add_pages(table) if table.is_uncounted else table for table in tables]


def _read_sizes(session: Session, oids: list[int]) -> dict[int, int | None]:
    """Return the bytes of each table, without those that a lock forbids to look at."""
    try:
        return dict(session.query(_SIZES, {"oids": oids}))
    except driver_error() as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        return {}


def read_index_pages(session: Session, oids: t.Sequence[int]) -> dict[int, int]:
    """Return the blocks of all indexes of each table, by its oid, as of the last VACUUM or ANALYZE."""
    return dict(session.query(_INDEX_PAGES, {"oids": list(oids)})) if oids else {}


def read_indexes(
    session: Session,
    *,
    minimum_pages: int | None,
    tables: list[int] | None,
    indexes: t.Sequence[int] = (),
    system: bool = False,
) -> list[IndexState]:
    """Return every index of a table that has an invalid one, btree indexes of at least ``minimum_pages`` blocks (None: no
    others), and those of the oids in ``indexes``.
    """
    if minimum_pages is None and not indexes and not session.query(_ANY_INVALID)[0][0]:
        return []
    values = {
        "pages": NO_PAGES if minimum_pages is None else minimum_pages,
        "tables": tables,
        "indexes": list(indexes),
        "system": system,
    }
    sql = _INDEXES.replace("{may_reindex}", _MAY_REINDEX_17 if session.server.version >= 170000 else _MAY_REINDEX)
    return session.read(IndexState, sql, values)


def read_stattuple(session: Session) -> Stattuple | None:
    """Return where pgstattuple is, or None when it is not installed in this database."""
    return next(iter(session.read(Stattuple, _STATTUPLE)), None)


def read_database_age(session: Session) -> int:
    """Return age(datfrozenxid): how many transactions old the oldest unfrozen row of the database may be."""
    return int(session.query(_DATABASE)[0][0])


def load_sql() -> t.Any:
    """Return the driver's module that quotes identifiers."""
    return require("psycopg2.sql", package="psycopg2-binary", why="to quote identifiers")


def exists(session: Session, oid: int) -> bool:
    """Return whether there is still a relation of that oid."""
    return bool(session.query("SELECT FROM pg_catalog.pg_class WHERE oid = %(oid)s::bigint::oid", {"oid": oid}))
