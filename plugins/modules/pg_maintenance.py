#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the tables and indexes of a PostgreSQL database into declared condition."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_maintenance
short_description: Bring the tables and indexes of a PostgreSQL database into declared condition
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Compares the tables and indexes of one database with a declared condition (dead rows, statistics, transaction-id
    age, invalid and bloated indexes) and does to each only what it needs. Where nothing is due, nothing is done.
  - Works in the order that helps most. Transaction-id age comes first, then invalid indexes, then the tables with the
    most dead rows, then the indexes with the most wasted space.
  - Many tables are vacuumed by one command, and on several connections. One locked table does not stop the others.
  - Indexes are rebuilt with C(REINDEX INDEX CONCURRENTLY). What an interrupted rebuild left behind (C(_ccnew),
    C(_ccold)), now or earlier, is dropped, unless somebody is building it at that moment.
  - What the server reports is not taken on trust. The statistics and the catalog are read back.
  - What would make a VACUUM useless (an old snapshot, a replication slot, a prepared transaction, a standby with
    C(hot_standby_feedback)) is named with its owner and age, and the table is not vacuumed over and over. That no row
    can be removed has to be proven first, for which one VACUUM freezes the table.
  - A table above O(transaction_id_age) is frozen whenever that lowers its age by something that counts, whatever
    O(time_budget) says. One that is above it and was not frozen fails the module, whatever O(on_blocked) says, unless
    an autovacuum against wraparound is at work on it.
  - Where neither O(schemas) nor O(tables) narrows the scope, a temporary table above O(transaction_id_age) fails the module
    as well, with its session named; so does an excluded table, or a system catalog, that is also older than
    C(autovacuum_freeze_max_age).
  - Never works on a standby, and never twice at once in one database.
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_postgresql
  - lowtide.ops._postgresql
  - lowtide.ops._postgresql.condition
attributes:
  check_mode:
    support: full
    details:
      - Reads only; takes no lock either.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  lock_timeout:
    description:
      - Seconds to wait for each lock. A table or index that is not to be had in that time is left for last.
      - An index is not rebuilt while a transaction older than this is open, since the rebuild would wait for it in
        vain.
    type: float
    default: 5.0
  index_wait_timeout:
    description:
      - Seconds that a concurrent rebuild waits for one transaction of another session before it gives up, which throws
        away what it has built. This wait hinders no other session.
    type: float
    default: 3600.0
  timeout:
    description:
      - Seconds after which a command that still runs is cancelled. A half-made index is dropped; a VACUUM keeps what it
        has done. Without it a command runs until it ends.
    type: int
  truncate:
    description:
      - Whether VACUUM gives empty blocks at the end of a table back to the operating system. That takes a short
        exclusive lock, which cancels queries on standbys.
    type: bool
    default: true
  lock_retries:
    description: How many times more a locked table or index is tried, after all others.
    type: int
    default: 1
  on_blocked:
    description:
      - What to do about things that are due and were not done, because somebody is in the way, or time ran out.
      - With V(fail) the module fails once everything else is done; with V(report) they are in RV(blockers) and
        RV(not_done) only.
      - A missing right fails the module in any case, once everything else is done, since no later run would do better. Its
        blocker has the C(GRANT).
    type: str
    choices: [fail, report]
    default: fail
notes:
  - O(login_user) owns the tables, or has C(MAINTAIN) on them or the role C(pg_maintain) (PostgreSQL 17), which does not
    include the right to name what is in a schema. That takes C(GRANT USAGE ON SCHEMA) for each schema but C(public).
  - To see what other users' sessions hold back, O(login_user) needs the role C(pg_read_all_stats) (or C(pg_monitor)).
    Without it there is a warning, and no index is rebuilt.
  - Bloat of an index is estimated from statistics, without reading the index, as an interval. Those that may be above
    O(index_bloat_ratio) are measured with C(pgstatindex) where the extension C(pgstattuple) is installed, which reads
    them whole, and that decides. Elsewhere the upper end of what a fresh index of the same rows could need (no
    deduplication, full padding) decides for a rebuild, and what is between is reported in RV(not_done). So is an index
    over values that the table stores out of line.
  - PostgreSQL 14.0 to 14.3 corrupt indexes that are built concurrently; there no index is rebuilt.
  - An index with an expression or a predicate is rebuilt while no other one is, since those would wait for it.
  - Connections that work side by side use one core of the server each. Parallel workers
    (C(max_parallel_maintenance_workers)) are used where O(jobs) is 1, and for what alone is more than a connection's
    share of all the work.
  - The working connections commit asynchronously (C(synchronous_commit=off)). A crash of the server within a second may
    undo the maintenance of a table, never its rows; the next run finds it due again.
  - The diff is in the result when it is asked for (C(--diff)).
  - Foreign tables, and temporary tables of other sessions, are not touched. TOAST tables are handled with their tables.
    A partitioned table gets statistics of its own; its partitions are tables like any other. Up to PostgreSQL 17 the
    server analyzes the partitions with it. One that has a foreign table as partition is not analyzed, nor, up to
    PostgreSQL 17, one of which a partition is excluded.
  - Messages and results hold no values of rows. Where the server quotes one, its log has the whole message.
seealso:
  - module: lowtide.ops.pg_maintenance_info
"""

EXAMPLES = r"""
- name: Keep the tables of an application in condition, within half an hour
  lowtide.ops.pg_maintenance:
    login_host: db1.example.com,db2.example.com,db3.example.com
    login_user: lowtide_maintenance
    passfile: /etc/ansible/pgpass
    login_db: feature_db
    system_identifier: "7428119042137459183"
    dead_tuple_ratio: 0.1
    changed_tuple_ratio: 0.1
    statistics_age: 604800
    transaction_id_age: 150000000
    invalid_indexes: none
    index_bloat_ratio: 0.5
    time_budget: 1800

- name: Remove what interrupted index builds left behind, nothing else
  lowtide.ops.pg_maintenance:
    login_host: db1.example.com
    login_db: feature_db
    invalid_indexes: none

- name: Clean up two tables, and go on when somebody holds them
  lowtide.ops.pg_maintenance:
    login_host: db1.example.com
    login_db: feature_db
    tables:
      - public.feature_executions
      - public."Audit Log"
    dead_tuple_ratio: 0.05
    on_blocked: report
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "did 1 of 1 step on 12 tables of shop: VACUUM of table public.orders (15.0 % dead rows (1500 of 10000))"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "VACUUM of table public.orders: 0.4 s"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
plan:
  description: What is due, in the order in which it is done. The same in check mode and in the run that follows.
  returned: always
  type: list
  elements: dict
  sample:
    - object: table public.feature_executions
      what: VACUUM (ANALYZE)
      why: 24.1 % dead rows (241003 of 1000012), more than 10 %
      reversible: true
      estimate: 0.9
done:
  description:
    - What was done, with the seconds of the command that did it (one command may be for many tables).
    - An index whose wasted space shows only after the VACUUM of its table is rebuilt as well. It is here, and could not
      be in RV(plan).
  returned: success
  type: list
  elements: dict
  sample:
    - object: table public.feature_executions
      what: VACUUM (ANALYZE)
      why: 24.1 % dead rows (241003 of 1000012), more than 10 %
      seconds: 0.812
not_done:
  description: What is due, or may be, and was left, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - object: table public.execution_steps
      what: VACUUM (ANALYZE)
      why: "no lock within 5 s in 2 attempts: pid 4711, user app, application report, idle in transaction for 3600 s"
blockers:
  description: Who or what is in the way, since when, and what to do about it.
  returned: always
  type: list
  elements: dict
  sample:
    - object: table public.execution_steps
      what: locked by somebody else (ShareLock)
      holder: pid 4711, user app, application report, idle in transaction for 3600 s
      since: "2026-11-21 02:00:00+00"
      next_step: End that transaction, or the session with SELECT pg_terminate_backend(4711)
errors:
  description: Commands that failed for another reason than a lock.
  returned: when there are any
  type: list
  elements: dict
invalid_indexes_left:
  description: Invalid indexes among those that were looked at, at the end. Empty when O(invalid_indexes=none) holds.
  returned: success
  type: list
  elements: str
  sample: []
database:
  description: The database.
  returned: success
  type: str
  sample: feature_db
server:
  description: The address of the server that was reached.
  returned: success
  type: str
  sample: 192.0.2.11
system_identifier:
  description: The identity of the cluster, for O(system_identifier).
  returned: success
  type: str
  sample: "7428119042137459183"
tables_assessed:
  description: How many tables were looked at.
  returned: success
  type: int
  sample: 42
transaction_id_age:
  description: How many transactions old the database's oldest unfrozen rows may be (the age of C(datfrozenxid)).
  returned: success
  type: int
  sample: 1204332
waited:
  description: Seconds spent waiting for statistics to arrive.
  returned: always
  type: float
  sample: 0.0
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.arguments import MAINTENANCE_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.operations.maintenance import maintain


def main() -> None:
    """Run the module."""
    run_module(AnsibleModule(argument_spec=MAINTENANCE_SPEC, supports_check_mode=True), maintain)


if __name__ == "__main__":
    main()
