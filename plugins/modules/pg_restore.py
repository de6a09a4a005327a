#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.pg_restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Restore a verified backup of a PostgreSQL database beside the live one, compare it, and swap the two
version_added: 0.1.0
description:
  - Declares that a backup of M(lowtide.ops.pg_backup) is there as a database of its own beside the live one
    (O(state=beside)), or under the live name (O(state=live)).
  - The dump is streamed from the bucket into C(pg_restore --exit-on-error) without touching the local disk, and its SHA-256
    is compared with its manifest. The first error ends the run.
  - What has come to be is then compared with the dump, by a dump of its own - the number of rows of each table and their
    hashes, sequences, large objects, definitions, owners, grants, extensions, and settings of the database and of roles
    in it. Each difference is named. The copy also gets statistics (C(ANALYZE)), which no dump has.
  - The live database is not written to. The copy takes its name by two renames in one transaction, so that a kill at any
    moment leaves the original or the restored one, whole, under the live name. The original stays under a name of its
    own until O(state=released) lets it go.
  - A copy is known by a mark in its comment (C(COMMENT ON DATABASE)). A database without that mark is never dropped or
    renamed, whatever its name; a copy that a killed run has left is dropped by the next run, which begins anew. A complete
    copy of other tables than O(tables) is refused, since somebody may have worked in it.
  - A live database with sessions is refused, and each of them named (O(sessions)).
options:
  state:
    description:
      - V(beside) restores into a database of its own, whose name is in the result, and compares it. Where it is there
        already, it is compared again.
      - V(live) compares that copy once more, and renames it to O(login_db), and what had that name to
        C(<login_db>_before_<run>). The copy has to be there, made whole by V(beside). A swap uses it up, so that a request which
        comes once more, long after it was fulfilled, is refused and does not put an old backup over what was written since.
      - Where O(login_db) does not exist, V(live) makes the copy itself. Where the backup has taken that name already, nothing
        is done or compared, and C(live_since) says since when the database is in use.
      - V(live) refuses a database that has a logical replication slot or an enabled subscription. They belong to the database
        and not to its name, and would stay with the original.
      - V(absent) drops the copy beside.
      - V(released) drops the original that V(live) has kept, as long as the restored one has the live name.
    type: str
    choices: [beside, live, absent, released]
    default: beside
  login_db:
    description:
      - Name of the live database. It need not exist.
      - No session is opened in it, see O(maintenance_db), but before O(foreign_dump) takes its place.
    type: str
    required: true
  maintenance_db:
    description: Another database of the server, which the run connects to.
    type: str
    default: postgres
  backup:
    description:
      - Which backup, by its C(run_id) in the result of M(lowtide.ops.pg_backup_info).
      - V(latest) is the newest one that counts, with O(state=beside) only.
      - With V(absent) and V(released) also the C(run_id) of a foreign dump, in the result of the run that has restored it.
    type: str
    default: latest
  foreign_dump:
    description:
      - Key of a dump in the bucket that has no manifest (C(pg_dump -Fc), plain or packed by zstd or gzip), instead of
        O(backup). Nothing proves that it is whole; this is a warning, and C(backup.proven) is false.
      - With O(state=live) it is refused where tables of O(login_db) that have rows would be missing or empty.
      - It is known by its key, size, ETag and time, so that another dump under the same key is another backup.
      - Restore only what you trust. A dump may hold code that runs with the rights of O(login_user).
    type: str
  source_database:
    description: Which database the backup is of; O(login_db) by default.
    type: str
  source_system_identifier:
    description:
      - Which cluster the backup is of, where it is not the one that is restored to, as after the loss of a server.
    type: str
  tables:
    description:
      - Only the rows of these tables, as C(table) or C(schema.table) in the notation of SQL. The definitions of the whole
        database come along, without indexes, constraints and triggers.
      - With O(state=beside) only. Copy from there what is needed.
    type: list
    elements: str
    default: []
  compare_with:
    description:
      - V(original) compares the copy with the live database as well. It differs wherever somebody has written since the
        backup, so this is for a database that is quiet.
      - Definitions, owners, grants, extensions and settings can be compared only between servers and C(pg_dump) of one major version
        each; otherwise C(not_compared) says so.
    type: str
    choices: [backup, original]
    default: backup
  roles:
    description:
      - V(required) refuses a backup that names roles (owners, grantees) which the server does not have, and names them.
      - V(created) creates those from C(globals.sql) of the backup, with their attributes and memberships, and with
        passwords only if the backup has them. This takes a superuser.
    type: str
    choices: [required, created]
    default: required
  sessions:
    description:
      - What is done about sessions on the live database when the copy takes its name.
      - V(refuse) changes nothing, and names process, user and application of each.
      - V(end) ends them, if all of them can be ended by O(login_user); otherwise none is. New ones are held back by the lock of
        the rename for C(swap_seconds), and not by a setting of the database which a killed run would leave. Then the server
        refuses those with SQLSTATE 3D000 (the database was just renamed), and their next attempt finds the restored database.
      - Sessions on standbys are not seen. They go on reading the original, under its new name, until they end; a warning says so.
      - With V(refuse) a database that was shut beforehand (C(ALLOW_CONNECTIONS false), C(CONNECTION LIMIT 0)) stays so under the
        restored one. With V(end) nobody has to shut it, and the restored one lets clients in as in the backup.
    type: str
    choices: [refuse, end]
    default: refuse
  bucket:
    description: The bucket.
    type: str
    required: true
  prefix:
    description: Folder in the bucket, as for M(lowtide.ops.pg_backup).
    type: str
    default: ''
  timeout:
    description: Seconds that the run may take.
    type: int
    default: 86400
  bin_dir:
    description:
      - Folder of C(pg_dump), C(pg_dumpall), C(pg_restore) and C(psql) on the host that runs this task, if they are not on
        PATH. Their major version must not be lower than the server's, nor than that of the C(pg_dump) of the backup.
    type: path
seealso:
  - module: lowtide.ops.pg_backup
  - module: lowtide.ops.pg_restore_drill
requirements:
  - pg_dump, pg_dumpall, pg_restore (psql and sed too, for a pg_restore of 17 or newer on a server before 17), and zstd
notes:
  - The extension C(amcheck), which M(lowtide.ops.pg_integrity_info) asks for and which holds nothing of its own, is not compared. Where
    O(login_user) may not create it, or the server does not have it, the copy is without it.
  - A dump that has the extension C(timescaledb) is refused. It takes calls before and after the restore.
  - A backup in several objects takes as many server connections as it has objects, and two.
author:
  - The lowtide.ops team (@lowtide-ops)
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_postgresql
  - lowtide.ops._attributes.actiongroup_s3
  - lowtide.ops._postgresql
  - lowtide.ops._s3
attributes:
  check_mode:
    support: full
    details:
      - Writes nothing and takes no lock. A copy that is there already is compared.
  diff_mode:
    support: full
  idempotent:
    support: full
  action_group:
    membership:
      - lowtide.ops.postgresql
      - lowtide.ops.s3
"""

EXAMPLES = r"""
- name: The newest backup is there beside the live database, compared
  lowtide.ops.pg_restore:
    login_host: 10.77.0.11,10.77.0.12,10.77.0.13
    login_db: feature_db
    login_user: lowtide_restore
    passfile: /etc/lowtide/pgpass
    bucket: feature-backups
    prefix: postgresql
  register: copy

- name: It takes the place of the live database, which nobody uses any more
  lowtide.ops.pg_restore:
    login_host: 10.77.0.11,10.77.0.12,10.77.0.13
    login_db: feature_db
    login_user: lowtide_restore
    passfile: /etc/lowtide/pgpass
    bucket: feature-backups
    prefix: postgresql
    backup: "{{ copy.backup.run_id }}"
    state: live

- name: A week later, somebody lets the original go
  lowtide.ops.pg_restore:
    login_db: feature_db
    bucket: feature-backups
    backup: 20261121T020000Z-5f1c2a77
    state: released
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "backup 20261121T020000Z-5f1c2a77 has taken the place of shop, which is kept as shop_before_20261121t020000z_5f1c2a77"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - >-
      s3://shop-backups/shop/7428119042137459183/20261121T020000Z-5f1c2a77/: 3000 rows of 12 tables in
      shop_restore_20261121t020000z_5f1c2a77 equal backup 20261121T020000Z-5f1c2a77: rows, sequences, large objects,
      definitions, owners, grants, extensions, settings; restored in 4.1 s; compared in 1.3 s
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
backup:
  description: Which backup it is. C(proven) is false of a dump without a manifest.
  returned: when a backup was found
  type: dict
  sample:
    run_id: 20261121T020000Z-5f1c2a77
    url: s3://shop-backups/shop/7428119042137459183/20261121T020000Z-5f1c2a77/
    proven: true
    taken_at: "2026-11-21T02:00:00Z"
    hosts: ["10.77.0.11:5432"]
    tables: 12
    rows: 3000
database:
  description: The database that the backup is in - the copy beside, or the live name.
  returned: when known
  type: str
  sample: shop_restore_20261121t020000z_5f1c2a77
kept:
  description: Under which name the original is kept; null where there is none.
  returned: when known
  type: str
  sample: shop_before_20261121t020000z_5f1c2a77
live_since:
  description: When the backup has taken the live name, by an earlier run; null otherwise.
  returned: when a backup was found
  type: str
  sample: "2026-11-21T02:10:00Z"
passed_over:
  description: Newer runs than the backup that do not count, each with url and problem. They are warnings as well.
  returned: when a backup was found
  type: list
  elements: dict
  sample: []
swap_seconds:
  description: For how long the live name was locked by the two renames; null where there was no swap.
  returned: when a backup was found
  type: float
sessions_ended:
  description: How many sessions on the live database were ended.
  returned: when a backup was found
  type: int
restored:
  description: Whether the copy was restored in this run.
  returned: when a backup was found
  type: bool
compared:
  description: What was compared with what.
  returned: when a backup was found
  type: list
  elements: str
not_compared:
  description: What could not be compared, and why.
  returned: when a backup was found
  type: list
  elements: str
differences:
  description:
    - The first 100 things that differ, each with O(ignore:object) and what; any of them is a failure.
  returned: when a backup was found
  type: list
  elements: dict
  sample:
    - object: table public.orders
      what: it has 1999 rows, not 2000
restore_seconds:
  description: How long the restore took, with ANALYZE; null where the copy was there already.
  returned: when a backup was found
  type: float
compare_seconds:
  description: How long the comparison took.
  returned: when a backup was found
  type: float
rows:
  description: How many rows were compared.
  returned: when the copy was compared
  type: int
tables:
  description: How many tables were compared.
  returned: when the copy was compared
  type: int
plan:
  description: What was to be done, each with O(ignore:object), what, why, whether it can be undone, and the estimated seconds.
  returned: always
  type: list
  elements: dict
blockers:
  description: Who is connected to the database or replicates it, which rights, extensions or tablespaces are missing, or who
    holds the lock, and what to do.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds waited; always 0 here.
  returned: always
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.entry import RESTORE_SPEC, restore
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._s3.connection import ARGUMENT_SPEC, REQUIRED_TOGETHER


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(
        argument_spec={**CONNECTION_SPEC, **ARGUMENT_SPEC, **RESTORE_SPEC},
        required_together=REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    run_module(module, restore)


if __name__ == "__main__":
    main()
