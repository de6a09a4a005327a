#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.pg_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Keep a verified backup of a PostgreSQL database in an S3 bucket
version_added: 0.1.0
description:
  - Declares that a verified backup of a database is in a bucket and not older than O(max_age). If there is one, nothing
    is done; otherwise one is made.
  - The dump is streamed (C(pg_dump -Fc -Z0), C(zstd), multipart upload) into the run's own folder without touching the
    local disk. Roles and tablespaces (C(pg_dumpall --globals-only)) lie beside it.
  - There it is read back from the server, compared with the SHA-256 of what was sent, and decoded as a whole
    (C(zstd -d | pg_restore)); the rows of each table are counted, and every table that the database had at the moment of
    the snapshot must be there. The manifest is written last; without it nothing counts as a backup.
  - Nothing has to be deleted or replaced for that, so an account that may only add objects is enough, and a bucket with
    Object Lock is no obstacle.
  - A run that was killed leaves a folder without a manifest. Once the O(timeout) of that run is over, the next run that
    makes a backup removes the folder after it, or warns if it may not.
  - Before anything is written, in check mode too, the catalog is asked for what O(login_user) may not read (schemas, tables,
    sequences, large objects, rows hidden by row-level security). Each is a blocker whose C(next_step) is the statement that
    grants it.
  - Two runs on one database exclude each other by an advisory lock in that database. A server has its own locks, so a run
    on a standby and one on its primary do not, and each makes a backup of its own, in a folder of its own.
  - Age is judged by the database server's clock, from the moment of the dump's snapshot.
  - A backup counts for this server only if it was taken from one of the hosts of O(login_host), or from the server's own
    address, and not on a later timeline. A physical copy of the cluster has the same system identifier, and its backups
    do not vouch for the original. Name every member of a cluster in O(login_host), so that those count that were taken
    before a switchover.
  - A name that leads to another address than it did for a backup, such as a service name after a switchover, proves nothing,
    and a new backup is made. C(localhost), where the server has an address elsewhere (a tunnel, a container), counts only
    together with that address and the name of the machine that runs this.
options:
  bucket:
    description: The bucket; it must exist.
    type: str
    required: true
  prefix:
    description:
      - Folder in the bucket. Below it the backup lies in C(<database>/<system identifier>/<run>/).
    type: str
    default: ''
  max_age:
    description:
      - How old the newest verified backup may be, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w).
      - V(0) asks for a new backup at each run.
      - A backup is made also if the newest one would be too old at the next run, see O(interval).
    type: str
    default: 24h
  interval:
    description:
      - How long it is until this runs again, written as O(max_age), which is also its default.
      - A backup that would be older than O(max_age) by then is made now, unless the newest one is younger than a
        twelfth of this. So with V(24h) for both, a nightly run makes one each night, although the last one is some minutes
        younger than that, or was made up for in the afternoon, and a second run within two hours makes none.
    type: str
  keep:
    description:
      - How many verified backups of this server are kept. Unset, the number does not matter.
      - Older backups are removed only after a new one has been made and verified in the same run, so that the last
        verified one always stays, however O(keep) and O(keep_for) are set. If both are set, a backup has to be beyond
        both. If neither is, none is removed.
      - A backup that is dated after the data of the new one, which may be of a standby that lags, is not removed either.
      - Backups that do not count, and those of other servers, are not removed. If the new one is older than O(max_age)
        already, the database server's clock and the S3 server's differ by more than five minutes, or a backup is dated in
        the future, none is removed, with a warning.
    type: int
  keep_for:
    description: How old verified backups of this server may get, written as O(max_age); see O(keep).
    type: str
  source:
    description:
      - Whether the primary is dumped, or a standby, whose data is as old as what it has replayed last. Rows of unlogged
        tables are not on a standby.
      - A conflict with recovery ends the dump; C(hot_standby_feedback) or C(max_standby_streaming_delay) prevent it.
      - A standby that is paused or lags is refused if its data is no newer than the last verified backup, or older than
        O(max_age), where that is not 0.
      - Its data is dated by the last transaction that it has replayed, since only the primary knows whether there is more. Where
        hours pass without a transaction, name the primary in O(login_host), after the standby, which is then dated by it.
      - With V(standby), the standby is the first server in O(login_host).
    type: str
    choices: [primary, standby]
    default: primary
  role_passwords:
    description:
      - Whether the roles are saved with their password hashes, which only a superuser can read.
      - The hashes are secrets; protect the bucket accordingly.
    type: bool
    default: false
  encryption:
    description:
      - Server-side encryption to ask for. It is read back from the server; anything else than asked for is a failure.
      - Unset leaves it to the bucket.
    type: str
    choices:
      - AES256
      - aws:kms
  kms_key_id:
    description:
      - Key for O(encryption=aws:kms), as its id, ARN or alias; unset means the bucket's.
      - The server answers with the key of an alias, so that one is not compared.
    type: str
  lock_timeout:
    description:
      - Seconds that the run waits for its share lock on a table before it gives up and names who holds it. All tables are
        locked before the moment of the dump is chosen, since one that is emptied (C(TRUNCATE)) or written anew
        (C(ALTER TABLE)) between the two would be empty in the dump.
    type: int
    default: 60
  max_parts:
    description:
      - How many parts the S3 server allows for one upload. The size of a part follows from this and the size of the
        database; at least two parts are held in memory.
      - Most servers allow 10,000; Scaleway, for example, 1,000.
    type: int
    default: 10000
  jobs:
    description:
      - In how many streams at most the database is dumped, all of one snapshot. With more than one, the largest tables are
        taken out of the main dump and go into objects of their own, C(data-1.pgc.zst) and so on, so that all have about
        the same size. They are read back and decoded side by side, too. A backup counts with all of its objects.
      - It helps where one C(pg_dump) leaves processors of the database server and of the host that runs this idle, and
        where the database is not mostly one table, since a table (a partition, where it has some) is never divided.
        No more streams are used than shorten the dump, and none below 16 MiB on average; a small database is one object.
      - Large objects, tables of extensions, and tables that are hash partitioned by an enum stay in the main dump.
      - Each stream takes one connection, besides two of the run itself. A C(CONNECTION LIMIT) of O(login_user) or of the
        database below O(jobs) + 2 is refused.
      - Each stream has at most three parts of its upload waiting in memory and reads a fourth, 64 MiB together as long as
        parts have 16 MiB (up to 78 GiB in a stream, where O(max_parts) is 10,000). Of larger parts no more than 256 MiB
        wait in all streams together, or two in each stream if that is more.
      - How it is restored is in the README of the role P(lowtide.ops.backup#role).
    type: int
    default: 1
  timeout:
    description: Seconds that the whole backup may take, verification included.
    type: int
    default: 86400
  bin_dir:
    description:
      - Folder of C(pg_dump), C(pg_dumpall) and C(pg_restore) on the host that runs this task. Their major version must not be
        lower than the server's; a dump by newer ones does not go back into a server of this version without help, of which check
        mode warns.
      - Unset, those of the server's own version are used where Debian or the packages of the PostgreSQL project put them
        (C(/usr/lib/postgresql/16/bin), C(/usr/pgsql-16/bin)), else those on PATH.
    type: path
seealso:
  - module: lowtide.ops.pg_backup_info
requirements:
  - pg_dump, pg_dumpall, pg_restore (of the server's major version or newer) and zstd, when a backup is made
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
      - Takes no lock and writes nothing.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - Makes a backup when the newest one has become older than O(max_age); with O(max_age=0) at each run.
  action_group:
    membership:
      - lowtide.ops.postgresql
      - lowtide.ops.s3
"""

EXAMPLES = r"""
- name: A verified backup of the feature database is not older than a day
  lowtide.ops.pg_backup:
    login_host: 10.77.0.11,10.77.0.12,10.77.0.13
    login_db: feature_db
    passfile: /etc/lowtide/pgpass
    system_identifier: "7462919812386541234"
    bucket: feature-backups
    prefix: postgresql
    max_age: 24h
    keep: 7
    keep_for: 14d
    jobs: 4

- name: A new backup before an upgrade, encrypted by the server
  lowtide.ops.pg_backup:
    login_db: feature_db
    bucket: feature-backups
    max_age: 0s
    encryption: AES256
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "backed up shop: 12.3 MiB to s3://shop-backups/shop/7428119042137459183/20261121T020000Z-5f1c2a77, verified"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - >-
      s3://shop-backups/shop/7428119042137459183/20261121T020000Z-5f1c2a77: 3000 rows of 12 tables, 12.3 MiB,
      taken 2026-11-21T02:00:00Z, verified 2026-11-21T02:00:09Z, sha256 0123456789abcdef
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
due:
  description: Whether a new backup was due (in check mode, is due).
  returned: when the state could be read
  type: bool
why:
  description: The reason, in one line.
  returned: when the state could be read
  type: str
  sample: newest verified backup 20261121T020000Z-5f1c2a77 is 1 h 32 min old, younger than 1 d
location:
  description: The folder of this database's backups.
  returned: when the state could be read
  type: str
  sample: s3://feature-backups/postgresql/feature_db/7462919812386541234/
backup:
  description:
    - The newest verified backup, which is the new one if one was made; null if there is none.
    - C(dumps) are the objects that C(pg_dump) has written, the main one first; C(sha256) is that of the main one, and C(size)
      that of the whole backup. C(warnings) say what is not in it, such as subscriptions where the role is no superuser, and
      what C(pg_dump) has warned of.
  returned: when the state could be read
  type: dict
  sample:
    location: s3://feature-backups/postgresql/feature_db/7462919812386541234/20261121T020000Z-5f1c2a77/
    run_id: 20261121T020000Z-5f1c2a77
    database: feature_db
    system_identifier: "7462919812386541234"
    server_version: "15.18"
    hosts: ["10.77.0.11:5432"]
    timeline: 3
    source: primary
    taken_at: "2026-11-21T02:00:00Z"
    verified_at: "2026-11-21T02:00:04Z"
    age_seconds: 5520
    size: 55574528
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    dumps: [dump.pgc.zst]
    tables: 12
    rows: 2000000
    encryption: null
    warnings: []
    verified: true
bad:
  description: Newer runs in the bucket that do not count, each with its C(problem).
  returned: when the state could be read
  type: list
  elements: dict
foreign:
  description: Newer backups in the folder that are of another server, each with its C(problem).
  returned: when the state could be read
  type: list
  elements: dict
unfinished:
  description: Folders of runs that have no manifest and may still be at work; read only when a backup is due.
  returned: when the state could be read
  type: list
  elements: str
removed:
  description: Folders of interrupted runs and of older backups that were removed.
  returned: when the state could be read
  type: list
  elements: str
left_behind:
  description: Where something of this failed run lies that could not be removed. It does not count as a backup.
  returned: when the module failed and could not clean up
  type: str
plan:
  description: What was to be done, each with O(ignore:object), what, why, whether it can be undone, and the estimated seconds.
  returned: always
  type: list
  elements: dict
blockers:
  description:
    - Who holds the lock of this database's backups, since when, and what to do; which rights are missing; why no older
      backup is removed; or what a failed run could not remove.
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
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.entry import BACKUP_SPEC, backup
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._s3.connection import ARGUMENT_SPEC, REQUIRED_TOGETHER


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(
        argument_spec={**CONNECTION_SPEC, **ARGUMENT_SPEC, **BACKUP_SPEC},
        required_together=REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    run_module(module, backup)


if __name__ == "__main__":
    main()
