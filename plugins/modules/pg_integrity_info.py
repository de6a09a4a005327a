#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which blocks of a database are damaged, and change nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_integrity_info
short_description: Tell which tables, indexes and blocks of a PostgreSQL database are damaged
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Reads what the server has counted of blocks with a wrong checksum (C(pg_stat_database)), and has the extension amcheck read
    tables (C(verify_heapam), with their TOAST values) and indexes (C(bt_index_check), C(gin_index_check) from PostgreSQL 18 on)
    to their ends. A damaged block does not end it; it goes on with what comes after.
  - Damage is no failure of the module. It is in RV(damaged), with relation and block, and RV(status) says C(damaged). It is what
    the server says is corrupted (SQLSTATE C(XX001), C(XX002)), and a file that cannot be read or is missing (C(58030), C(58P01)).
    No other error is taken for it.
  - RV(status) is C(whole) only if all tables of the database were read and nothing was found. What could not be looked at is in
    RV(unchecked) and makes it C(unproven); without the extension that is all. So does O(schemas) or O(tables), since the rest was not
    looked at; RV(summary) says then how many tables are whole. What was dropped meanwhile is in RV(gone); what has
    taken its place is looked at.
  - For a relation that somebody has locked it waits 5 s, and up to a minute once all the others have been read.
  - Nothing is written, repaired or installed. It also runs on a standby, whose files are others than those of its primary.
  - It holds C(ACCESS SHARE) locks, as a query does, and reads every block of what it looks at.
options:
  schemas:
    description:
      - Look at the tables of these schemas only. A schema without a table is refused by its name.
      - A partitioned table stands for all of its partitions, also for those in another schema.
    type: list
    elements: str
  tables:
    description:
      - Look at these tables and their indexes only, each as C(table) or C(schema.table). One that is not there is refused by its name.
      - A partitioned table stands for all of its partitions. If it has none, nothing is read.
    type: list
    elements: str
  system_catalogs:
    description: Whether to look at the system catalogs, too.
    type: bool
    default: false
  heapallindexed:
    description:
      - Whether to look in each index for every row of its table, too. That finds rows that are missing in it, and takes the time of
        a scan of the table for each index.
    type: bool
    default: true
  checksum_failures_after:
    description:
      - Blocks with a wrong checksum that the server has counted do not count for RV(status) if the last of them was up to this
        time, given with its zone, such as V(2026-11-27T02:00:00Z). Unset means that all count.
      - The server keeps the count for ever. Give it once the cause is mended and every relation, those of O(system_catalogs) too,
        has been read whole.
    type: str
  timeout:
    description: Seconds after which no further relation is looked at. The rest is in RV(unchecked).
    type: int
    default: 3600
notes:
  - Without data checksums a block whose content has changed on the disk is found only where its form is wrong, too.
seealso:
  - module: lowtide.ops.pg_backup_info
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_postgresql
  - lowtide.ops._postgresql
"""

EXAMPLES = r"""
- name: Is the database whole
  lowtide.ops.pg_integrity_info:
    login_host: pg1,pg2,pg3
    login_user: lowtide_integrity
    login_db: shop
    passfile: /etc/lowtide/pgpass
  register: integrity

- name: Go on only if it is proven to be
  ansible.builtin.assert:
    that: integrity.status == 'whole'
    fail_msg: "{{ integrity.summary }}"
"""

RETURN = r"""
summary:
  description: The verdict in one line. Empty on a failure.
  returned: always
  type: str
  sample: "database shop is damaged: 41 relations read whole, 1 relation damaged"
evidence:
  description: A line for each finding, and whether data checksums are on.
  returned: always
  type: list
  elements: str
  sample:
    - "table public.orders, block 7: invalid page in block 7 of relation base/16384/16391 (verify_heapam)"
check_mode:
  description: Whether this was run in check mode, which makes no difference here.
  returned: always
  type: bool
  sample: false
status:
  description:
    - C(whole), C(damaged), or C(unproven) where nothing was found and not everything of the database was looked at, as with O(tables)
      or O(schemas).
  returned: success
  type: str
  sample: damaged
damaged:
  description:
    - Each finding with C(object), C(kind) (C(table) or C(index)), C(schema), C(name), C(table), C(block) and C(line_pointer)
      (null where the server does not say), C(check) and the server's C(message).
    - A block of the TOAST values of a table is named in the message alone.
    - Of one table at most 20 blocks that cannot be read are named, and 50 other findings.
  returned: success
  type: list
  elements: dict
checked:
  description: What was read to its end. A table with findings in blocks that can be read is among these.
  returned: success
  type: list
  elements: str
unchecked:
  description:
    - What was not looked at to its end, each with C(object), C(reason) for people, and C(cause).
    - The cause is C(extension) (amcheck is not installed, or too old), C(method) (amcheck does not know the access method), C(invalid) (an
      index that nothing reads), C(unlogged) (on a standby), C(time), C(lock), C(right), C(table) (what it depends on cannot be
      read), or C(error) (any other error of the server).
  returned: success
  type: list
  elements: dict
gone:
  description: What was dropped by others before its turn.
  returned: success
  type: list
  elements: str
  sample: ["index public.orders_note"]
checksum_failures:
  description: Databases of the cluster in which blocks with a wrong checksum were counted, with C(failures), C(last_failure), and
    C(counts), which is false for what O(checksum_failures_after) leaves out.
  returned: success
  type: list
  elements: dict
data_checksums:
  description: Whether the cluster has data checksums.
  returned: success
  type: bool
  sample: true
amcheck:
  description: The version of the extension in this database; null where it is not installed.
  returned: success
  type: str
  sample: "1.4"
database:
  description: The database.
  returned: success
  type: str
  sample: shop
database_oid:
  description: Its object identifier, which no other database of the cluster has.
  returned: success
  type: int
  sample: 16389
database_comment:
  description: Its comment, in which M(lowtide.ops.pg_restore) notes of which backup it is; null where there is none.
  returned: success
  type: str
server:
  description: The address of the server that was reached.
  returned: success
  type: str
  sample: 192.0.2.11
server_version:
  description: The version of the server.
  returned: success
  type: str
  sample: "17.6"
system_identifier:
  description: The identity of the cluster.
  returned: success
  type: str
  sample: "7428119042137459183"
in_recovery:
  description: Whether the server that was reached is a standby.
  returned: success
  type: bool
  sample: false
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
blockers:
  description: Each damaged relation, and why others were not looked at, with the next step.
  returned: always
  type: list
  elements: dict
waited:
  description: Always 0.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.operations.integrity_info import (
    INTEGRITY_SPEC,
    inform_integrity,
)


def main() -> None:
    """Run the module."""
    run_module(AnsibleModule(argument_spec=INTEGRITY_SPEC, supports_check_mode=True), inform_integrity)


if __name__ == "__main__":
    main()
