#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.mysql_restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_restore
short_description: Restore a verified backup of a MariaDB database beside it, compare it, and bring it into place
version_added: 0.1.0
description:
  - Restores a backup that M(lowtide.ops.mysql_backup) has made into a new database beside the one in use,
    C(<database>__restored), streamed from the bucket and compared with the SHA-256 of its manifest. Nothing is ever
    restored over a database that is there. What a dump says of its own database is done in the new one; a statement that names
    a database otherwise is refused.
  - What was restored is compared with the backup, row by row (number and hashes of rows of each table), with the definition
    of each table, view, sequence, routine and trigger, and their definers. Each difference is named.
  - With O(state=in_place) it is then brought into place. All tables of the database in use are renamed into
    C(<database>__original), and those beside into their place, in one statement, which MariaDB does as a whole or not at
    all. The original is kept until a person drops it.
  - A database that has tables is replaced only by a backup of which there is a whole copy beside, made by O(state=beside)
    before. The move uses that copy up. So the same request is refused when it comes once more, long after it was fulfilled
    and its original was dropped, and what was written since stays. While the original is there, such a request looks whether
    all tables of the backup are in place, and changes nothing. A database that is gone is restored in one run.
  - A rename carries tables, indexes, foreign keys and sequences. It cannot carry triggers, views and events to another
    database; those are dropped before and made anew after it, in both, by scripts that were noted first. Until then the
    tables are in place without them, so a database that any session uses is refused. That is asked before the work begins,
    once more after all is loaded and compared, and right before the rename. Where a run fails between the drop and the
    rename, it makes again what it has dropped, and says so. In check mode sessions are a warning and C(blockers), since
    clients are stopped after the rehearsal.
    A table that a transaction holds from elsewhere ends the run after 5 seconds, before anything is moved or dropped.
  - Events do not run beside, nor in the kept original. Their scripts are in its table C(_lowtide_restore). An event whose
    time has passed since the backup is dropped by the server as soon as it is made, or made disabled; it is named in
    C(inactive_events), as is each event that is off in the backup, and does not hold up the restore.
  - Foreign keys of other databases that refer to this one are refused by name, and so are definers that this server has no
    account for. Rights on tables are by name, and stay. Routines are replaced, not dropped, so that rights on single routines
    stay as well; those on a routine that the database in use has not (any more), or the backup has not, are not in a backup.
  - A replica, and a server that is read only, are refused.
  - Where server or C(mariadb-dump) have another version than the backup is of, the same definition may be worded otherwise.
    Then such a difference is named in C(not_compared), and is no failure; rows, and what is there, are compared as ever.
  - Killed at any moment and run again with the same options, it ends with the original or the restored database, whole. How
    far a run came is noted in the comment of C(<database>__restored). Until the tables are renamed such a run asks again
    whether the database is in use, and O(state=absent) gives it up. After that it is only ever completed, and what was
    changed in place meanwhile is named in C(differences) and is no failure. Neither needs the backup to be there still.
  - A client program that a killed run has left goes on alone. So the sessions of O(login_user) in the databases beside are
    ended first. In the database itself only the client program of an interrupted move is ended, which holds a lock that says so.
options:
  database:
    description: The database to restore. Its name may have at most 54 characters.
    type: str
    required: true
  bucket:
    description: The bucket.
    type: str
    required: true
  prefix:
    description: Folder in the bucket, as it was given to M(lowtide.ops.mysql_backup).
    type: str
    default: ''
  server:
    description:
      - The name of the server that the backup is of, as in the path of its backups. Unset means O(login_host) and
        O(login_port).
      - Name it to restore the backup of another server. Unset, the newest backup of this very server is taken, by its host name,
        port, C(server_id) and C(server_uid), unless O(backup) names one.
    type: str
  state:
    description:
      - With V(beside) it is restored beside and compared; the database in use is not touched.
      - With V(in_place) what is restored beside is brought into place. Where the database is gone, it is restored before.
      - With V(absent) the database beside is removed, if a restore has made it. Where a run was killed while it brought it
        into place, before the tables were renamed, the triggers, views and events of the original are made again first.
        This needs no backup.
    type: str
    choices: [beside, in_place, absent]
    default: beside
  backup:
    description:
      - Name of the backup's run, such as V(20261121T020000Z-5f1c2a77).
      - Unset means the one that is restored beside, and else the newest verified one.
      - Name it with O(state=in_place), so that the same task never means another backup.
    type: str
  compare_live:
    description:
      - Whether what was restored is compared with the database in use as well (C(CHECKSUM TABLE), rows), for
        C(live_differences) in the result. It reads every table of both once.
    type: bool
    default: true
  timeout:
    description: Seconds that the whole restore may take.
    type: int
    default: 86400
  bin_dir:
    description: Folder of C(mariadb-dump) and C(mariadb) on the host that runs this task, if they are not on PATH.
    type: path
seealso:
  - module: lowtide.ops.mysql_backup
requirements:
  - mariadb-dump, mariadb (10.5 or newer) and zstd
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
      - Takes no lock and writes nothing. Whether the restored data is that of the backup is known only by restoring it.
      - A rehearsal of O(state=in_place) needs the copy beside, as the run itself does.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - What is restored beside is compared again at each run.
  action_group:
    membership:
      - lowtide.ops.mysql
      - lowtide.ops.s3
"""

EXAMPLES = r"""
- name: The newest verified backup is restored beside the shop, and compared
  lowtide.ops.mysql_restore: &shop
    login_host: mysql.example.com
    option_file: /etc/lowtide/mysql-restore.cnf
    database: shop
    bucket: shop-backups
    prefix: mysql
  register: beside

- name: That backup takes the place of the shop
  lowtide.ops.mysql_restore:
    login_host: mysql.example.com
    option_file: /etc/lowtide/mysql-restore.cnf
    database: shop
    bucket: shop-backups
    prefix: mysql
    backup: "{{ beside.backup }}"
    state: in_place
"""

RETURN = r"""
summary:
  description: One line that says what was done, would be done in check mode, or was found. Empty on a failure before that was known.
  returned: always
  type: str
  sample: "restored shop from backup 20261121T020000Z-5f1c2a77; the original is kept as shop__original"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "shop__restored: 3000 rows of 12 tables and 9 definitions are those of the backup"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
backup:
  description: The run of the backup. With O(state=absent) the one that was restored beside, null if there was none.
  returned: when it was found
  type: str
  sample: 20261121T020000Z-5f1c2a77
taken_at:
  description: The moment of its data.
  returned: when it was found, but for O(state=absent)
  type: str
  sample: "2026-11-21T02:00:00Z"
beside:
  description: The database that it is restored into.
  returned: when the backup was found
  type: str
  sample: shop__restored
original:
  description: The database that keeps the original.
  returned: when the backup was found
  type: str
  sample: shop__original
differences:
  description:
    - How what was restored differs from the backup; such a run fails.
    - Once the tables are in place, which is so at the end and where a run completes a killed one, it is what was changed there
      meanwhile, and no failure, but for definitions that are missing.
  returned: when the backup was found
  type: list
  elements: str
  sample: []
not_compared:
  description: Definitions that are worded otherwise, where server or C(mariadb-dump) have another version than the backup is of.
  returned: always, but for failures before the databases were read
  type: list
  elements: str
  sample: []
inactive_events:
  description: Events of the backup that do not run in place, each with the reason.
  returned: always, but for failures before the databases were read
  type: list
  elements: str
  sample: ["event close_sale: not made, since its time has passed (2026-11-21 20:00:00, time zone SYSTEM)"]
live_differences:
  description: How the database in use differs from what was restored.
  returned: when O(compare_live) is true and both were compared
  type: list
  elements: str
  sample: ["table orders has 3012 rows, the backup 3000: others"]
plan:
  description: What was to be done, each with O(ignore:object), what, why, whether it can be undone, and the estimated seconds.
  returned: always
  type: list
  elements: dict
blockers:
  description: Sessions that use the database, or who holds the lock of its restores.
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
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.entry import RESTORE_SPEC, restore
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
