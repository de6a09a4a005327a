# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.corruption_verdict."""

from __future__ import annotations

DOCUMENTATION = r"""
name: corruption_verdict
short_description: "[INTERNAL] Judge what the role corruption_triage has read"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.corruption_triage#role) and may change with it.
options:
  _input:
    description: What M(lowtide.ops.pg_integrity_info) said of the database.
    type: dict
    required: true
  backups:
    description: What M(lowtide.ops.pg_backup_info) said, if it was asked.
    type: dict
    required: true
  replacement:
    description: What M(lowtide.ops.pg_integrity_info) said of the one that is to take its place, if it was asked.
    type: dict
    required: true
positional: backups, replacement
"""

EXAMPLES = r"""
- name: Show the verdict
  ansible.builtin.debug:
    msg: "{{ integrity | lowtide.ops.corruption_verdict(backups, replacement) }}"
  vars:
    integrity:
      {database: shop, system_identifier: "1", status: whole, summary: database shop is whole, check_mode: false,
       blockers: [], evidence: [], damaged: [], unchecked: [], checked: []}
    backups: {skipped: true}
    replacement: {skipped: true}
"""

RETURN = r"""
_value:
  description: The fact C(corruption_triage_result).
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._triage import judge


def compute(integrity: t.Any, backups: t.Any, replacement: t.Any) -> dict[str, t.Any]:
    """The filter: results of tasks that were skipped count as not asked."""
    return judge(
        dict(integrity),
        backups=None if backups.get("skipped") else dict(backups),
        replacement=None if replacement.get("skipped") else dict(replacement),
    )


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the one filter by its name."""
        return {"corruption_verdict": compute}
