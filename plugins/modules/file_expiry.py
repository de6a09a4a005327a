#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove old files of a folder, within limits, and never the last good ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_expiry
short_description: Remove old files of a folder, within limits, and never the last good ones
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Removes the files of a folder that are older than declared, except the newest O(keep) of each series, whatever their age. So the last
    backups stay also when backups have stopped, which C(find -mtime +30 -delete) does not know.
  - An empty file does not count among those, and with O(checksum_suffix) only a file does that is proven by its SHA-256. Where a
    series has fewer than O(keep), no file of it is removed.
  - If more is due than O(max_files), O(max_bytes) or O(max_share) allow, all of it is refused and nothing is removed.
  - A file that a process has open stays, since to remove it frees nothing. So does one that has changed since it was listed.
  - Symbolic links are not followed and not removed, not even one that is put in the place of a folder while this
    runs, and other file systems below O(path) are left alone.
  - It runs on the host itself.
options:
  path:
    description: The folder, as an absolute path; a symbolic link in it is refused, and so is a folder directly below
      C(/).
    type: str
    required: true
  patterns:
    description: Names of the files, as the shell writes them, such as V(*.dump).
    type: list
    elements: str
    required: true
  recurse:
    description: Whether files in folders below O(path) count, too. Each folder's are series of their own.
    type: bool
    default: false
  older_than:
    description: How long ago a file has to have been written, as a whole number with a unit V(s), V(m), V(h), V(d) or V(w).
    type: str
    required: true
  keep:
    description: How many of the newest files of each series stay whatever their age. V(0) has to be said.
    type: int
    required: true
  series:
    description:
      - What of a file's name tells one series from another, as a regular expression that is searched in it. Its groups are that,
        or all that it matches where it has none, so V(dump$) makes all files of a folder one series.
      - By default files are of one series whose names differ only in the day and the time at which they were written, such as
        V(shop-20261127.dump), V(shop-2026-11-27_02-00-05.dump), V(shop-20261127T0200.dump) or V(shop-20261127020005.dump). What
        else is a number may be a tenant's, such as V(0200) in V(shop-20261127-0200.dump), a month, seconds since the epoch, or a
        day more than a week from the one on which it was written. Where that keeps too much, a line of RV(blockers) says so, and
        V(^(.+\)[-_][0-9]{8}[-_][0-9]{4}) is what to give.
      - A file that it does not match is a series of its own, and so stays where O(keep) is not V(0).
    type: str
  checksum_suffix:
    description:
      - What the name of a file has after it that holds its SHA-256 as C(sha256sum) writes it, such as V(.sha256). Only files that
        agree with it count for O(keep). It is removed after its file; one whose file is gone goes by its own age.
      - As many of the newest files are read whole as it takes to find O(keep) that agree, if any file is old enough.
    type: str
  max_files:
    description: How many files may go at most in a run.
    type: int
    default: 1000
  max_bytes:
    description: How much may go at most in a run, as a number of bytes or with a unit V(KiB), V(MiB), V(GiB) or V(TiB).
    type: str
  max_share:
    description: The share in percent of the files, and of their bytes, that may go at most in a run.
    type: int
    default: 90
notes:
  - Which files are open is read from C(/proc); only root sees it of all accounts.
seealso:
  - module: lowtide.ops.s3_expiry
  - module: lowtide.ops.pg_backup
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The paths of what is due, before and after.
  idempotent:
    support: partial
    details:
      - Files become due with time.
"""

EXAMPLES = r"""
- name: Dumps older than a month go, and the seven newest that are whole stay
  lowtide.ops.file_expiry:
    path: /var/backups/pggit
    patterns: ["*.dump"]
    older_than: 30d
    keep: 7
    checksum_suffix: .sha256

- name: Rotated logs older than a week go
  lowtide.ops.file_expiry:
    path: /var/log/saga
    patterns: ["*.log.*"]
    recurse: true
    older_than: 7d
    keep: 0
    max_share: 100
"""

RETURN = r"""
summary:
  description:
    - One line that says what was removed, would be in check mode, or that nothing is due.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: removed 3 of 3 expired files in /var/backups/pggit, 3.4 GiB are free
evidence:
  description: Short lines that prove the summary, first those of files that are kept.
  returned: always
  type: list
  elements: str
  sample: ["kept whatever its age: '/var/backups/pggit/b.dump' (1.2 GiB), written 2026-10-01T02:00:00Z"]
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
path:
  description: The folder.
  returned: when it could be read
  type: str
  sample: /var/backups/pggit
listed:
  description: How many files are like O(patterns), with C(bytes) on the disk.
  returned: when it could be read
  type: dict
  sample: {files: 10, bytes: 3565158}
expired:
  description: Everything that is due, each with C(path), C(bytes) and C(modified).
  returned: when it could be read
  type: list
  elements: dict
kept:
  description: The files that stay because of O(keep).
  returned: when it could be read
  type: list
  elements: str
series:
  description: How many files there are of each series, by folder and what tells it from another.
  returned: when it could be read
  type: dict
  sample: {"/var/backups/pggit/shop-#.dump": 10}
removed:
  description: The files that were removed.
  returned: when it could be read
  type: list
  elements: str
not_removed:
  description: What is due and was not removed, each with C(path) and C(problem).
  returned: when it could be read
  type: list
  elements: dict
plan:
  description: One item if anything is due, with the number of files and their size.
  returned: always
  type: list
  elements: dict
blockers:
  description: Files that stay although they are old, or do not count for O(keep), each with why and what to do.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds waited; always 0 here.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether nothing was changed (C(refused)).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._files.entry import FILES_SPEC, expire_files


def main() -> None:
    """Run the module."""
    run_module(AnsibleModule(argument_spec=FILES_SPEC, supports_check_mode=True), expire_files)


if __name__ == "__main__":
    main()
