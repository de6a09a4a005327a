#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.pgbackrest_backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_backup
short_description: Keep a verified pgBackRest backup that is no older than declared
version_added: 0.1.0
description:
  - Makes a backup with pgBackRest when the newest one without errors is older than allowed, has the repository verified,
    and notes on the backup that it was. Otherwise nothing is done.
  - What pgBackRest prints is read. Its exit code says too little; of a damaged repository C(pgbackrest verify) ends with 0,
    and so does a backup that found pages with an invalid checksum in the database.
  - A backup counts when C(verify) calls it and all that it builds on valid, and every WAL segment that it needs is in the
    archive, which C(verify) does not tell by itself.
  - It runs on the host where C(pgbackrest backup) runs, as the user who owns the repository (C(become_user)). Retention stays
    with pgBackRest (C(repo1-retention-full)), and C(pgbackrest expire) is run only after a backup has been verified.
  - A backup that finds damage in the database fails this and every run until it is O(max_age) old; none is expired meanwhile.
  - WAL that is damaged and that the backup does not need is a warning. Backups from before a C(stanza-upgrade) do not count.
options:
  stanza:
    description: Name of the stanza. It must exist.
    type: str
    required: true
  repository:
    description: Number of the repository, as in C(repo1-path).
    type: int
    default: 1
  config:
    description: pgBackRest's configuration file, if it is not in its usual place.
    type: path
  max_age:
    description:
      - How old the newest backup may be, by its start, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w).
      - A backup is made also if the newest one would be too old at the next run, see O(interval).
    type: str
    default: 24h
  interval:
    description:
      - How long it is until this runs again, written as O(max_age), which is also its default.
      - A backup that would be older than O(max_age) by then is made now, unless the newest one is younger than a
        twelfth of this. So with V(24h) for both, a nightly run makes one each night, and a second run within two hours none.
    type: str
  full_max_age:
    description:
      - How old the newest full backup may be, written as O(max_age). The backup that is made nearest to that age, to half
        of O(interval), is a full one; so with V(7d) nightly runs make one each week, on the same day.
    type: str
    default: 7d
  between:
    description:
      - The type of a backup while there is a verified full one that is young enough; V(diff) builds on the full one only,
        V(incr) on the newest one.
    type: str
    choices: [diff, incr]
    default: diff
  timeout:
    description: Seconds that the whole run may take. pgBackRest is ended then, and nothing counts as a backup.
    type: int
    default: 86400
  bin_dir:
    description: Folder of C(pgbackrest), if it is not on PATH.
    type: path
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads the repository, and says what would be made and why.
  diff_mode:
    support: none
  idempotent:
    support: full
    details:
      - While the newest verified backup is young enough.
requirements:
  - pgBackRest 2.45 or newer on the host that runs this task
notes:
  - Ages are judged by the clock of the host that runs the task, which is the one that backups are stamped with.
  - The verification reads the whole repository. A run that was cut off before it is made up for by the next one.
  - Two notes are written on backups (C(pgbackrest annotate)), C(lowtide-verified) and C(lowtide-damaged), each with a time.
seealso:
  - module: lowtide.ops.pg_backup
author:
  - The lowtide.ops team (@lowtide-ops)
"""

EXAMPLES = r"""
- name: Have a verified backup of today, and a full one each week
  lowtide.ops.pgbackrest_backup:
    stanza: feature
    max_age: 24h
    full_max_age: 7d
  become: true
  become_user: postgres
"""

RETURN = r"""
summary:
  description: One line that says what was made or would be, or why nothing is due.
  returned: always
  type: str
  sample: "feature: full backup 20261127-020000F, 21.9 MiB of data, verified"
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
backup:
  description: The backup that was made or verified, or the newest verified one where nothing was due; None otherwise.
  returned: when the repository could be read
  type: dict
  contains:
    label:
      description: pgBackRest's name of it.
      type: str
    type:
      description: V(full), V(diff) or V(incr).
      type: str
    started_at:
      description: When it began, in UTC.
      type: str
    ended_at:
      description: When it ended, in UTC.
      type: str
    builds_on:
      description: Labels of the backups without which it cannot be restored.
      type: list
      elements: str
    size:
      description: Bytes of the database's files.
      type: int
    stored:
      description: Bytes that it takes in the repository.
      type: int
    has_page_errors:
      description: Whether pages with an invalid checksum were found in the database.
      type: bool
    verified_at:
      description: When it was verified, in UTC; None if it was not.
      type: str
    damaged_at:
      description: When damage of it was found, in UTC; None if none was.
      type: str
backups:
  description: All backups of the stanza in this repository, oldest first, with the fields of RV(backup).
  returned: when the repository could be read
  type: list
  elements: dict
damaged:
  description: Labels of all backups that the verification calls damaged.
  returned: when the repository was verified
  type: list
  elements: str
archive_problems:
  description: What the verification says of damage in the WAL archive, needed by the backup or not.
  returned: when the repository was verified
  type: list
  elements: str
plan:
  description: What is intended.
  returned: always
  type: list
  elements: dict
blockers:
  description: What stands in the way, such as another run.
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
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.operations.backup import ARGUMENT_SPEC, run_backup


def main() -> None:
    """Wire options to work."""
    run_module(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True), run_backup)


if __name__ == "__main__":
    main()
