# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a PostgreSQL connection. Private to lowtide.ops: do not import from other collections.

Mirrors ``CONNECTION_SPEC`` in module_utils/_postgresql/connection.py and ``CONDITION_SPEC`` in arguments.py.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules of the action group C(lowtide.ops.postgresql)."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Host name or address of the server, or the folder of its socket.
      - A comma-separated list names the members of a cluster; a module that needs the primary finds it among them
        (libpq's C(target_session_attrs=read-write)).
    type: str
    default: localhost
  login_port:
    description: Port of the server, the same for every host of O(login_host).
    type: int
    default: 5432
  login_user:
    description:
      - The role to connect as. It need not be a superuser, which the default mostly is.
      - The file C(docs/postgresql-rights.sql) of the collection makes accounts with the rights that each module needs.
    type: str
    default: postgres
  login_password:
    description:
      - Password of O(login_user).
      - Without it libpq looks into O(passfile), then C(PGPASSWORD) and C(~/.pgpass).
    type: str
  passfile:
    description: A libpq password file, readable by its owner only.
    type: path
  login_db:
    description:
      - The database.
      - There is no default, since the tool's own default is a database that nobody meant.
    type: str
    required: true
  ssl_mode:
    description: How TLS is used and verified, as libpq's C(sslmode). Only V(verify-full) proves who the server is.
    type: str
    default: prefer
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: Certificate of the authority that signed the server's certificate.
    type: path
  ssl_cert:
    description: Client certificate.
    type: path
  ssl_key:
    description: Key of O(ssl_cert), readable by its owner only.
    type: path
  connect_timeout:
    description: Seconds to wait for each host of O(login_host).
    type: int
    default: 10
  system_identifier:
    description:
      - What the server's function C(pg_control_system) must say in C(system_identifier), so that no other cluster is taken for this one.
      - Anything else is a refusal before the first write.
    type: str
requirements:
  - psycopg2 (psycopg2-binary) >= 2.9
  - PostgreSQL 14 or newer; an older server is refused
notes:
  - An option that is not given is taken from libpq's variable in the environment, such as E(PGHOST), E(PGPORT), E(PGUSER),
    E(PGDATABASE), E(PGSSLMODE) and E(PGPASSFILE). C(docs/connections.md) of the collection has this for all systems.
  - Connect to the server itself where that is possible. A connection pooler that pools by transaction or statement is
    refused before anything is set, since settings and locks of a session would reach other clients. It is told by the
    server process that answers each of five connections, so a pooler needs as many to spare.
  - A proxy that ends connections without traffic (C(timeout client) and C(timeout server) of HAProxy) ends a single command
    that takes longer, too. Set these above the longest VACUUM or index build, or connect to the server itself.
"""

    CONDITION = r"""
options:
  schemas:
    description: Only tables in these schemas, each by its exact name.
    type: list
    elements: str
  tables:
    description:
      - Only these tables, as C(table) (in any schema) or C(schema.table).
      - A partitioned table stands for all of its partitions, in whatever schema they are. So it does in O(exclude).
      - Names are in SQL's notation. A name that is not made of lower-case letters, digits and underscores goes in double quotes.
    type: list
    elements: str
  exclude:
    description: Not these tables, written as in O(tables). A name that means no table is a warning.
    type: list
    elements: str
    default: []
  system_catalogs:
    description: Look at the tables of C(pg_catalog) and C(information_schema) as well.
    type: bool
    default: false
  dead_tuple_ratio:
    description:
      - The share of dead rows that a table, or its TOAST table, may have; above it the table is vacuumed and analyzed.
      - A table whose counters the server has lost (crash, failover, upgrade, reset, copied database) is vacuumed and
        analyzed once, since nobody knows. Blocks that are marked as visible to all are not read again.
    type: float
  changed_tuple_ratio:
    description:
      - The share of rows that may have changed since the last ANALYZE.
      - Of a table that was never analyzed, as far as the server knows, all rows count as changed.
    type: float
  inserted_tuple_ratio:
    description:
      - The share of rows that may have been inserted since the last VACUUM; above it the table is vacuumed.
      - Tables that only grow have no dead rows, and need it for index-only scans and for freezing in good time.
      - Where the server has lost the counter, the blocks not marked as visible to all decide, as the last ANALYZE found
        them; without one since then, the table is vacuumed.
    type: float
  minimum_tuples:
    description: Ratios count from this many dead, changed or inserted rows on, and the lack of statistics from this many rows on.
    type: int
    default: 1000
  statistics_age:
    description: Seconds that the statistics of a table may be old, if it has changed since; one never analyzed is due from O(minimum_tuples) rows on.
    type: int
  transaction_id_age:
    description: How old the oldest unfrozen transaction (or multixact) id of a table may be; above it the table is frozen.
    type: int
  invalid_indexes:
    description:
      - With V(none) there may be no invalid index. Copies left by an interrupted rebuild are dropped, others are rebuilt.
      - With V(ignore) they are not looked at.
    type: str
    choices: [none, ignore]
    default: ignore
  index_bloat_ratio:
    description:
      - The share of a btree index that may be wasted space.
      - Where the extension C(pgstattuple) is installed and O(login_user) may call it (C(GRANT pg_stat_scan_tables)), indexes
        that may be above it are read whole, also in check mode, for at most a quarter of O(time_budget), those of which most
        could be gained first. Where a table has to be frozen because of O(transaction_id_age), they are read after that.
    type: float
  minimum_index_size:
    description: Bytes; O(index_bloat_ratio) counts for indexes of at least this size.
    type: int
    default: 1048576
  collation_versions:
    description:
      - What to do about collations whose version is another than the one on record (from PostgreSQL 15 on also the
        database's own). After an update of the operating system, indexes built by the old rules are in wrong order. Look-ups
        miss rows, and unique indexes let duplicates in.
      - With V(refresh) all indexes by such a collation are rebuilt, and if all of them were, its new version is put on
        record. They have to be in scope, and to fit into O(time_budget) together, since all of it is done in one run. With
        V(report) it is a blocker.
      - An index counts that compares by such a collation anywhere within its types, expressions or predicate. Of types that
        an extension made that is not known, so they count for the database's own collation.
      - Collations by which tables are divided (partitioned) are only named, since rows may be in the wrong partition. So are
        those without any index, all on one line, unless they are refreshed.
      - Constraints and materialized views that depend on the order are not looked at.
    type: str
    choices: [ignore, report, refresh]
    default: ignore
  jobs:
    description: How many connections work at once.
    type: int
    default: 2
  time_budget:
    description:
      - Seconds for the whole run. What does not fit by its estimate is not started, and is a blocker.
      - Freezing because of O(transaction_id_age) ignores it. Of the commands that need more than all of it, each run
        starts one, after everything else.
    type: int
"""
