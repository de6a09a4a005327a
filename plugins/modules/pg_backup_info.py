#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.pg_backup_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_info
short_description: List the verified backups of PostgreSQL databases in an S3 bucket
version_added: 0.1.0
description:
  - Lists what M(lowtide.ops.pg_backup) has put below a prefix, with age and size, names the newest verified backup of
    each database, and names what does not count as a backup and why.
  - A backup counts as verified when it was published by M(lowtide.ops.pg_backup) (and so read back and decoded as a
    whole then), and every object in it still has the size and the ETag of that moment.
  - No database is asked; ages are judged by the S3 server's clock.
options:
  bucket:
    description: The bucket.
    type: str
    required: true
  prefix:
    description: Folder in the bucket, as given to M(lowtide.ops.pg_backup).
    type: str
    default: ''
  database:
    description: List only the backups of this database.
    type: str
  system_identifier:
    description: List only the backups of this database cluster.
    type: str
  hosts:
    description:
      - List only the backups that were taken from one of these servers, each as C(host:port), see C(hosts) in
        RV(lowtide.ops.pg_backup#module:backup). A physical copy of a cluster has its system identifier, and only this
        tells the two apart. C(localhost) and other names of the machine that runs this mean what they meant for
        M(lowtide.ops.pg_backup) on it.
      - Runs whose manifest cannot be read are listed whatever this says.
    type: list
    elements: str
  max_age:
    description:
      - How old the newest verified backup of each database may be, as a whole number with a unit V(s), V(m), V(h), V(d)
        or V(w). An older one, or none at all, is a failure; so is a database of which only runs are listed that
        do not count.
    type: str
  verify:
    description:
      - V(published) trusts the verification at publishing, as long as nothing has changed since.
      - A backup whose objects have their size and another ETag, as after a copy of the bucket, does not count by
        itself. V(full) decides about the newest one by its SHA-256, and says so in RV(evidence).
      - V(full) reads the newest verified backup of each database back, decodes all of its objects and compares the rows of each
        table with what was counted when it was made. One that does not pass, none at all, or a newer one that does not
        count, is a failure.
    type: str
    choices:
      - published
      - full
    default: published
  timeout:
    description: Seconds that O(verify=full) may take.
    type: int
    default: 86400
  bin_dir:
    description:
      - Folder of C(pg_restore) on the host that runs this task, for O(verify=full), if it is not on PATH.
      - One whose major version is lower than that of the C(pg_dump) that made a backup is refused.
    type: path
seealso:
  - module: lowtide.ops.pg_backup
requirements:
  - pg_restore and zstd, with O(verify=full)
author:
  - The lowtide.ops team (@lowtide-ops)
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_s3
  - lowtide.ops._s3
"""

EXAMPLES = r"""
- name: Which backups of the feature database are there
  lowtide.ops.pg_backup_info:
    bucket: feature-backups
    prefix: postgresql
    database: feature_db

- name: Prove that the newest backup of each database still decodes
  lowtide.ops.pg_backup_info:
    bucket: feature-backups
    prefix: postgresql
    verify: full
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "newest verified backup in s3://shop-backups: shop 3 h 20 min old"
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
backups:
  description: Verified backups, newest first; the fields are those of RV(lowtide.ops.pg_backup#module:backup),
    C(location) is the folder of each.
  returned: when the bucket could be read
  type: list
  elements: dict
newest:
  description: The newest verified backup of each database and cluster.
  returned: when the bucket could be read
  type: list
  elements: dict
bad:
  description: What lies under a backup's name and does not count, each with its C(problem).
  returned: when the bucket could be read
  type: list
  elements: dict
node:
  description: Name of the machine that ran this, which stands for C(localhost) in C(hosts) of a backup.
  returned: when the bucket could be read
  type: str
  sample: control
unpublished:
  description: Runs that are active, or were interrupted; M(lowtide.ops.pg_backup) removes them once their time is over.
  returned: when the bucket could be read
  type: list
  elements: dict
decoded:
  description: Names of the runs that were decoded as a whole now.
  returned: with O(verify=full)
  type: list
  elements: str
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
blockers:
  description: Always empty.
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
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.entry import INFO_SPEC, backup_info
from ansible_collections.lowtide.ops.plugins.module_utils._s3.connection import ARGUMENT_SPEC, REQUIRED_TOGETHER


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(
        argument_spec={**ARGUMENT_SPEC, **INFO_SPEC},
        required_together=REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    run_module(module, backup_info)


if __name__ == "__main__":
    main()
