#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.mysql_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_backup
short_description: Keep a verified backup of a MariaDB database in an S3 bucket
version_added: 0.1.0
description:
  - Declares that a verified backup of a database is in a bucket and not older than O(max_age). If there is one, nothing
    is done; otherwise one is made.
  - The dump is streamed (C(mariadb-dump --single-transaction --routines --triggers --events), C(zstd), multipart upload)
    into the run's own folder without touching the local disk. Writers are not held up.
  - There it is read back from the server, compared with the SHA-256 of what was sent, and decoded as a whole; the rows of
    each table are counted, and every table, view, sequence, routine, trigger and event of the database must be there. The
    manifest is written last; without it nothing counts as a backup.
  - The manifest has the position in the binary log, as file and GTID, that belongs to the dump's snapshot, from which a
    replica or a recovery to a point in time begins. A server without a binary log has none.
  - The value of a sequence is that of the moment at which it was read, as sequences know no transactions.
  - What would make a dump inconsistent or incomplete is refused by name before anything is written, in check mode too.
    That is tables without transactions (MyISAM, Aria, MEMORY), tables with system versioning, and rights that
    O(login_user) lacks and without which C(mariadb-dump) leaves out triggers or routines without a word.
  - Values that the text of a dump cannot hold are refused by table and column, before the dump and once more after it. That
    is a FLOAT of more than six digits, and text in another character set than utf8mb4, utf8mb3 or latin1 with bytes that
    are no character of it. Both would be other values after a restore. Tables with such columns are read for it.
  - DDL during the dump makes the run fail, and what was changed is named. It is told by the definitions before and after
    it; a change that was undone in between is not told, unless the server itself ends the dump (error 1412).
  - The password is in no argument, no environment, no file on disk, and not in the dump.
  - Two runs on one database of one server exclude each other by a named lock of the server.
  - A run that was killed leaves a folder without a manifest. Once the O(timeout) of that run is over, the next run that
    makes a backup removes the folder after it, or warns if it may not.
  - MariaDB has no identifier of a server's data. A backup counts for the server that O(server) names, if it is not ahead of
    that server's GTID position. Where O(server) is not set it counts only for the very server that it was made of, by host name,
    port, C(server_id) and C(server_uid). What does not count is not removed by O(keep) either.
options:
  database:
    description: The database to back up.
    type: str
    required: true
  bucket:
    description: The bucket; it must exist.
    type: str
    required: true
  prefix:
    description: Folder in the bucket. Below it the backup lies in C(<database>/<server>/<run>/).
    type: str
    default: ''
  server:
    description:
      - The name of the server, or of the cluster, in the path of its backups. Unset means O(login_host) and O(login_port).
      - Set it where the address changes and the data does not.
    type: str
  max_age:
    description:
      - How old the newest verified backup may be, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w).
      - V(0) asks for a new backup at each run.
    type: str
    default: 24h
  interval:
    description:
      - How long it is until this runs again, written as O(max_age), which is also its default.
      - A backup that would be older than O(max_age) by then is made now, unless the newest one is younger than a
        twelfth of this.
    type: str
  keep:
    description:
      - How many verified backups of this server are kept. Unset, the number does not matter.
      - Older backups are removed only after a new one has been made and verified in the same run, so that the last
        verified one always stays. If O(keep_for) is set too, a backup has to be beyond both.
      - None is removed, with a warning, if the clocks of the servers differ by more than five minutes.
    type: int
  keep_for:
    description: How old verified backups of this server may get, written as O(max_age); see O(keep).
    type: str
  source:
    description:
      - Whether the primary is dumped, or a replica, whose data is as old as it lags. A replica that does not follow is
        refused, and one that lags if its data is no newer than the last verified backup.
      - A replica is refused too where the database has events. All are off there, and would be so after a restore; which of
        them the primary has on cannot be told by the replica.
    type: str
    choices: [primary, replica]
    default: primary
  encryption:
    description:
      - Server-side encryption to ask for. It is read back from the server (C(HeadObject)); anything else than asked for is
        a failure.
      - Unset leaves it to the bucket.
    type: str
    choices:
      - AES256
      - aws:kms
  kms_key_id:
    description: Key for O(encryption=aws:kms), as its id, ARN or alias; unset means the bucket's.
    type: str
  max_parts:
    description: How many parts the S3 server allows for one upload. At least two parts are held in memory.
    type: int
    default: 10000
  timeout:
    description: Seconds that the whole backup may take, verification included.
    type: int
    default: 86400
  bin_dir:
    description: Folder of C(mariadb-dump) and C(mariadb) on the host that runs this task, if they are not on PATH.
    type: path
seealso:
  - module: lowtide.ops.mysql_restore
requirements:
  - mariadb-dump, mariadb (10.5 or newer) and zstd, when a backup is made
author:
  - The lowtide.ops team (@lowtide-ops)
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_mysql
  - lowtide.ops._attributes.actiongroup_s3
  - lowtide.ops._mysql
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
      - lowtide.ops.mysql
      - lowtide.ops.s3
"""

EXAMPLES = r"""
- name: A verified backup of the shop is not older than a day, and encrypted by the S3 server
  lowtide.ops.mysql_backup:
    login_host: mysql.example.com
    option_file: /etc/lowtide/mysql-backup.cnf
    database: shop
    bucket: shop-backups
    prefix: mysql
    encryption: AES256
    max_age: 24h
    keep: 7
    keep_for: 30d
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "backed up shop: 12.3 MiB to s3://shop-backups/shop/mysql.example.com%3A3306/20261121T020000Z-5f1c2a77, verified"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - >-
      s3://shop-backups/shop/mysql.example.com%3A3306/20261121T020000Z-5f1c2a77: 3000 rows of 12 tables, 12.3 MiB,
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
  sample: there is no verified backup
location:
  description: The folder of this database's backups.
  returned: when the state could be read
  type: str
  sample: s3://shop-backups/mysql/shop/mysql.example.com%3A3306/
backup:
  description: The newest verified backup, which is the new one if one was made; null if there is none.
  returned: when the state could be read
  type: dict
  sample:
    location: s3://shop-backups/mysql/shop/mysql.example.com%3A3306/20261121T020000Z-5f1c2a77/
    run_id: 20261121T020000Z-5f1c2a77
    database: shop
    system_identifier: mysql.example.com:3306
    server_version: 10.11.19-MariaDB-log
    gtid: 0-1-4711
    log_file: binlog.000042
    log_position: 13370
    taken_at: "2026-11-21T02:00:00Z"
    verified_at: "2026-11-21T02:00:09Z"
    age_seconds: 5520
    size: 12897485
    tables: 12
    rows: 3000
    definitions: 9
    encryption: AES256
    verified: true
bad:
  description: Newer runs in the bucket that do not count, each with its C(problem).
  returned: when the state could be read
  type: list
  elements: dict
foreign:
  description: Newer backups in the folder that are not of this server's past, each with its C(problem).
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
  description: Who holds the lock of this database's backups; which rights are missing; or what could not be removed.
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
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.connection import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.entry import BACKUP_SPEC, backup
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
