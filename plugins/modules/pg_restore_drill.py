#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.pg_restore_drill."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_drill
short_description: Keep a proven restore drill of a PostgreSQL database no older than declared, with signed evidence
version_added: 0.1.0
description:
  - Declares that a proven restore drill of a database is not older than O(max_age). If there is evidence of one, nothing is
    done; otherwise one is made, or its absence is a failure (O(on_due)).
  - A drill restores the newest backup that counts beside the live database and compares it, as M(lowtide.ops.pg_restore)
    does, asks the application's own O(query) of the copy, and removes the copy again, also after a failure. Sessions of others on
    the copy are ended then, which takes the rights of C(pg_signal_backend).
  - The evidence says which backup it was, what was compared, what the application's query returned, how old the backup's
    data was when the drill began (RPO), and how long it took until the query was answered (RTO).
  - It is signed with Ed25519 and lies in the bucket, in C(<prefix>/restore-drills/<database>/<system identifier>/), with the
    signature of its bytes in an object beside it. Evidence without a signature of O(signing_key) does not count.
options:
  login_db:
    description:
      - Name of the live database, as for M(lowtide.ops.pg_restore). No session is opened in it, and it need not be on this
        server.
    type: str
    required: true
  maintenance_db:
    description: Another database of the server, which the run connects to.
    type: str
    default: postgres
  max_age:
    description:
      - How old the last proven drill may be, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w). V(0) asks for a
        new one at each run.
      - A drill is made also if the last one would be too old at the next run, see O(interval).
    type: str
    default: 7d
  interval:
    description:
      - How long it is until this runs again, written as O(max_age), which is also its default.
      - Where the last proven drill would be older than O(max_age) by then one is made now, unless the last one is younger
        than a twelfth of this. So with V(7d) for both, a weekly run makes one each week, also after one that was made up for
        in between. With O(on_due=fail) it does not count.
    type: str
  max_rpo:
    description:
      - How old the data of the backup may be, written as O(max_age). A newest backup that is older is refused before it is
        restored, and proves nothing.
    type: str
    default: 2d
  on_due:
    description:
      - V(run) makes a drill where one is due.
      - V(fail) fails where one is due and says since when, and makes none. It is for a check that runs more often, with an
        O(max_age) that leaves the drill its time, such as V(8d).
    type: str
    choices: [run, fail]
    default: run
  query:
    description:
      - One statement that only reads, and that returns one row with at least one boolean column. All boolean columns must be
        true; the others are evidence. Required with O(on_due=run).
      - Where it is given, evidence of another query does not count. So have no date of the day in it.
      - For example V(SELECT count(*\) > 1000 AS has_orders, max(placed\) AS newest FROM orders).
    type: str
  query_timeout:
    description: Seconds that O(query) may take.
    type: float
    default: 60.0
  signing_key:
    description:
      - Ed25519 private key in PEM, without a passphrase, mode 0600, on the host that runs this task. C(openssl genpkey
        -algorithm ed25519) makes one.
      - Evidence that another key has signed does not count unless O(public_keys) has that key, so the first run with a new
        key makes a drill. Required with O(on_due=run).
    type: path
  public_keys:
    description:
      - Ed25519 public keys in base64, as C(public_key) of the evidence, whose evidence counts as well. With O(on_due=fail) they
        are enough, so that whoever only looks holds no key that could make evidence.
    type: list
    elements: str
    default: []
  evidence_dir:
    description:
      - Folder on the host that runs this task, where the evidence and its signature are written to as well. That of the
        last drill is written there if it is missing. One that this user cannot write to is refused, in check mode too.
      - Here and in the bucket a file C(.started) is written before the restore, so that a right that is missing is noticed then.
    type: path
  source_database:
    description: Which database the backups are of; O(login_db) by default.
    type: str
  source_system_identifier:
    description: Which cluster the backups are of, where the drill is made on another one.
    type: str
  roles:
    description: As for M(lowtide.ops.pg_restore). Roles that were created stay.
    type: str
    choices: [required, created]
    default: required
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
    description: Folder of the PostgreSQL programs, as for M(lowtide.ops.pg_restore).
    type: path
seealso:
  - module: lowtide.ops.pg_restore
  - module: lowtide.ops.pg_backup
requirements:
  - cryptography >= 3.1
  - pg_dump, pg_dumpall, pg_restore, and zstd, as for pg_restore
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
      - Writes nothing, takes no lock, and does not ask O(query).
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - Makes a drill when the last proven one is older than O(max_age), or would be at the next run; with O(max_age=0) at
        each run.
  action_group:
    membership:
      - lowtide.ops.postgresql
      - lowtide.ops.s3
"""

EXAMPLES = r"""
- name: A restore of the feature database has been proven within a week
  lowtide.ops.pg_restore_drill:
    login_host: restore.example.com
    login_user: lowtide_restore
    login_db: feature_db
    passfile: /etc/lowtide/pgpass
    source_system_identifier: "7462919812386541234"
    bucket: feature-backups
    prefix: postgresql
    query: SELECT count(*) > 1000 AS has_features, count(*) AS features FROM features
    signing_key: /etc/lowtide/drill.pem
    evidence_dir: /var/lib/lowtide/drills
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "proved backup 20261121T020000Z-5f1c2a77 of shop by a restore: RPO 5 h 12 min, RTO 4 min 10 s"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
due:
  description: Whether a drill was due (in check mode, is due).
  returned: when the evidence could be read
  type: bool
why:
  description: The reason, in one line.
  returned: when the evidence could be read
  type: str
  sample: the last proven drill is 9 d 2 h old, allowed are 7 d
last:
  description: The last proven drill before this run, with its C(url) and C(age_seconds); null where there is none.
  returned: when the evidence could be read
  type: dict
bad:
  description: Newer evidence that does not count, each with C(url) and C(problem).
  returned: when the evidence could be read
  type: list
  elements: dict
drill:
  description: The evidence of the drill that was made in this run, with its C(url) and C(path); null where none was made.
  returned: when the evidence could be read
  type: dict
  sample:
    url: s3://shop-backups/restore-drills/shop/7428119042137459183/20261121T070000Z-0c9d1b52.json
    proven: true
    backup: 20261121T020000Z-5f1c2a77
    rpo_seconds: 18000
    rto_seconds: 250.4
    answer: {has_orders: true, orders: 3000}
answer:
  description: The rows that the query returned.
  returned: when the query was asked
  type: list
  elements: dict
removed:
  description:
    - Copies of earlier drills which this run has dropped, or would drop in check mode. They were killed, or could not remove their own.
    - Where no drill is due they are dropped, too, but with O(on_due=fail). What cannot be dropped is an error then, and a warning
      where a drill is made.
  returned: when the evidence could be read
  type: list
  elements: str
backup:
  description: Which backup it is, as M(lowtide.ops.pg_restore) returns it.
  returned: when a drill was made or predicted
  type: dict
compared:
  description: What was compared with what.
  returned: when a drill was made or predicted
  type: list
  elements: str
not_compared:
  description: What could not be compared, and why.
  returned: when a drill was made or predicted
  type: list
  elements: str
differences:
  description: What differs, as M(lowtide.ops.pg_restore) returns it.
  returned: when a drill was made or predicted
  type: list
  elements: dict
passed_over:
  description: Newer runs than the backup that do not count, each with url and problem. They are warnings, and in the evidence.
  returned: when a drill was due
  type: list
  elements: dict
  sample: []
plan:
  description: What was to be done, each with O(ignore:object), what, why, whether it can be undone, and the estimated seconds.
  returned: always
  type: list
  elements: dict
blockers:
  description: Which rights or extensions are missing, or who holds the lock, and what to do.
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
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore.drill_entry import DRILL_SPEC, drill
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._s3.connection import ARGUMENT_SPEC, REQUIRED_TOGETHER


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(
        argument_spec={**CONNECTION_SPEC, **ARGUMENT_SPEC, **DRILL_SPEC},
        required_together=REQUIRED_TOGETHER,
        supports_check_mode=True,
    )
    run_module(module, drill)


if __name__ == "__main__":
    main()
