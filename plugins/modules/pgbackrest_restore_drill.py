#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.pgbackrest_restore_drill."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_restore_drill
short_description: Keep a proven restore of a pgBackRest backup that is no older than declared
version_added: 0.1.0
description:
  - Restores a backup with pgBackRest into a directory of its own, starts a server of its own on it, has it recover
    from the WAL archive, asks the application's own query of it, has every block read, measures what it took, removes
    all of it, and writes signed evidence. While the last proven drill is young enough nothing is done, but that what
    an earlier one could not remove is removed.
  - Evidence counts that is of this stanza, repository and cluster, and of the same O(database), O(query), O(target) and
    O(backup). That of O(target=latest) counts for V(immediate) as well. A query that was changed makes a drill due, so
    it is to have no date of the day in it.
  - The server is reached by a socket in a directory of this user only. None of the settings that come with the backup
    is used, so it archives nothing into the repository, streams from no primary, subscribes to no publication, and
    preloads no library that runs jobs.
  - What pgBackRest's configuration says of a restore in earnest does not count. Tablespaces and linked folders come
    to be in the directory, nothing that is there is overwritten, and the queue of a running server (C(spool-path)) is
    neither used nor removed.
  - PostgreSQL takes a WAL segment that is missing or damaged for the end of the archive, and starts. So a recovery
    that does not reach the newest segment of the repository is a failure.
  - It runs on a host with pgBackRest and the programs of the server's version, as the user of the server
    (C(become_user)), who may read the repository.
options:
  stanza:
    description: Name of the stanza.
    type: str
    required: true
  repository:
    description: Number of the repository, as in C(repo1-path).
    type: int
    default: 1
  config:
    description: pgBackRest's configuration file, if it is not in its usual place.
    type: path
  bin_dir:
    description: Folder of C(pgbackrest), if it is not on PATH.
    type: path
  server_bin_dir:
    description:
      - Folder of C(postgres), C(pg_controldata), C(pg_checksums) and C(pg_amcheck) of the backup's major version, if
        it is not where the packages of Debian or of the PostgreSQL project put them, or on PATH.
    type: path
  directory:
    description:
      - A directory for drills only. It is made where it is missing, and is empty afterwards.
      - One that has anything in it that no drill has put there is refused, and so is one in a data directory. It
        needs room for the whole database cluster, and for WAL that is replayed, which goes at checkpoints of the original
        only, and so may be of its C(max_wal_size). Where a tenth of the file system, but no more than the cluster's
        size (or 128 MiB, if that is more), does not stay free, the drill ends.
      - Required with O(on_due=run).
    type: path
  backup:
    description:
      - Label of the backup; V(latest) is the newest one against which nothing is known. Newer ones that are passed over
        are warnings, and in RV(passed_over).
    type: str
    default: latest
  target:
    description:
      - How far it recovers. V(latest) replays all WAL that is in the repository, and so proves the archive too;
        V(immediate) what the backup needs to be consistent.
    type: str
    choices: [latest, immediate]
    default: latest
  max_age:
    description:
      - How old the last proven drill may be, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w).
      - A drill is made also if the last one would be too old at the next run, see O(interval).
    type: str
    default: 7d
  interval:
    description:
      - How long it is until this runs again, written as O(max_age), which is also its default.
      - Where the last proven drill would be older than O(max_age) by then one is made now, unless the last one is
        younger than a twelfth of this. So with V(7d) for both, a weekly run makes one each week.
      - With O(on_due=fail) it does not count.
    type: str
  max_rpo:
    description:
      - How old the newest data may be that is recovered, written as O(max_age). Older data proves nothing, so that no
        drill is green after backups and archiving have stopped.
      - With O(target=immediate) it is refused before the restore; otherwise it is known after the recovery only.
    type: str
    default: 2d
  on_due:
    description:
      - V(run) makes a drill where one is due.
      - V(fail) fails where one is due and makes none. It is for a check that runs more often, with an O(max_age) that
        leaves the drill its time, such as V(8d). It starts no server, so it may be root, and O(database) and O(query)
        are compared with the evidence only where they are given.
    type: str
    choices: [run, fail]
    default: run
  database:
    description: The database that O(query) is asked in. Required with O(on_due=run).
    type: str
  superuser:
    description: Who this connects as, on the restored server. A superuser, who installs amcheck there.
    type: str
    default: postgres
  query:
    description:
      - One statement that returns one row. Its boolean columns must all be true; the others are evidence. It cannot
        write. Required with O(on_due=run).
    type: str
  query_timeout:
    description: Seconds after which the server cancels the query.
    type: float
    default: 60.0
  signing_key:
    description:
      - File with an Ed25519 private key in PEM, which only this user may read. C(openssl genpkey -algorithm ed25519)
        makes one. Required with O(on_due=run).
    type: path
  public_keys:
    description:
      - Ed25519 public keys in base64, as C(public_key) of the evidence, whose evidence counts as well. With
        O(on_due=fail) they are enough, so that whoever only looks holds no key that could make evidence.
    type: list
    elements: str
    default: []
  evidence_dir:
    description:
      - Folder on this host in which the evidence is kept and looked for. Evidence that is signed neither by
        O(signing_key) nor by one of O(public_keys) does not count.
      - One that this user cannot write to is refused, in check mode too. A file C(.started) is written there before the
        restore.
    type: path
    required: true
  timeout:
    description: Seconds that the whole run may take.
    type: int
    default: 86400
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads the repository, looks at the directory and its room, and says what would be done and why.
  diff_mode:
    support: none
  idempotent:
    support: full
    details:
      - While the last proven drill is young enough, also for the next run.
requirements:
  - pgBackRest 2.45 or newer, and PostgreSQL 14 or newer of the backup's major version
  - psycopg2 (psycopg2-binary) >= 2.9, for the Python of the host that runs this task
  - cryptography >= 3.1, for the same
notes:
  - C(pg_amcheck) is used where it is installed. Without data checksums all rows are read by C(pg_dump) instead of all
    blocks. Both run without the timeouts, roles and read only transactions that databases or users have set, and
    without event triggers.
  - What cannot be removed after a proven drill is an error, and the evidence is written all the same, with
    C(copy_removed) false. Each run tries again, and fails until it is removed, whether a drill is due or not.
  - Killed anywhere, the next run ends the server and removes what is left. C(pgbackrest restore) goes on to its end
    after a kill, and until then the next run is refused.
  - A database that needs C(shared_preload_libraries) to be read, such as one with TimescaleDB, cannot be drilled.
  - RPO is how old the last transaction that was recovered was when the drill began, or the end of the backup where
    that is later. RTO is how long it took from then until the query was answered.
seealso:
  - module: lowtide.ops.pgbackrest_backup
  - module: lowtide.ops.pg_restore_drill
author:
  - The lowtide.ops team (@lowtide-ops)
"""

EXAMPLES = r"""
- name: Have a restore of this week that is proven
  lowtide.ops.pgbackrest_restore_drill:
    stanza: feature
    directory: /var/lib/postgresql/drill
    database: feature_db
    query: SELECT count(*) > 1000 AS has_features, max(created_at) AS newest FROM features
    signing_key: /etc/lowtide/drill.pem
    evidence_dir: /var/lib/lowtide/evidence
  become: true
  become_user: postgres
"""

RETURN = r"""
summary:
  description: One line that says what was proven or would be done, or why nothing is due.
  returned: always
  type: str
  sample: "proved backup 20261127-020000F of stanza feature by a restore: RPO 41 s, RTO 312 s"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
version:
  description: Version of pgBackRest.
  returned: when it could be asked
  type: str
due:
  description: Whether a drill was due.
  returned: when the repository and the evidence could be read
  type: bool
why:
  description: Why, or why not.
  returned: when the repository and the evidence could be read
  type: str
last:
  description: The evidence of the last proven drill, with its C(path) and C(age_seconds); null where there is none.
  returned: when the repository and the evidence could be read
  type: dict
bad:
  description: Newer evidence that does not count, each with C(path) and C(problem).
  returned: when the repository and the evidence could be read
  type: list
  elements: dict
backup:
  description: The backup to be restored, as M(lowtide.ops.pgbackrest_backup) reports it; null where nothing is due.
  returned: when the repository and the evidence could be read
  type: dict
passed_over:
  description: Newer backups that do not count, each with C(backup) and C(problem). Empty where O(backup) names one.
  returned: when the repository and the evidence could be read
  type: list
  elements: dict
removed:
  description: What earlier drills had left in the directory.
  returned: when the repository and the evidence could be read
  type: list
  elements: str
restore_seconds:
  description: How long C(pgbackrest restore) took.
  returned: when it was restored
  type: float
recovery_seconds:
  description: How long the server took to recover.
  returned: when it has recovered
  type: float
answer:
  description: The rows of the query.
  returned: when it was answered
  type: list
  elements: dict
drill:
  description: The evidence of this drill, with its C(path); null where none was proven.
  returned: when the repository and the evidence could be read
  type: dict
  sample:
    path: /var/lib/lowtide/evidence/20261127T030512Z-5f1c2a77.json
    backup: 20261127-020000F
    recovered_to: {lsn: 0/5000148, time: "2026-11-27T02:59:31Z"}
    rpo_seconds: 41
    rto_seconds: 312.4
    checks: ["pg_checksums: every block"]
plan:
  description: What is intended.
  returned: always
  type: list
  elements: dict
blockers:
  description: Always empty here.
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
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.operations.restore_drill import (
    ARGUMENT_SPEC,
    run_drill,
)


def main() -> None:
    """Wire options to work."""
    run_module(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True), run_drill)


if __name__ == "__main__":
    main()
