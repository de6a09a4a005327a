# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.rolling_upgrade_begin."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rolling_upgrade_begin
short_description: "[INTERNAL] Name a run of a rolling upgrade and its migration"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.rolling_upgrade#role) and may change with it.
options:
  _input:
    description: The role's list of workloads.
    type: list
    elements: dict
    required: true
  run_id:
    description: The name of the run, empty where none was given.
    type: str
    required: true
  has_migration:
    description: Whether a migration is declared.
    type: bool
    required: true
positional: run_id, has_migration
"""

EXAMPLES = r"""
begin: "{{ rolling_upgrade_workloads | lowtide.ops.rolling_upgrade_begin('release-7', true) }}"
"""

RETURN = r"""
_value:
  description:
    - C(run_id), the name of the run, C(names), kind and name of each workload, and C(key), that of the migration's Job.
  type: dict
"""

import time
import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.timestamps import format_utc
from ansible_collections.lowtide.ops.plugins.plugin_utils._rolling_upgrade import make_begin


def begin(workloads: t.Any, run_id: str, has_migration: bool) -> dict[str, t.Any]:
    """Return the names; a declaration that cannot be understood fails the task with object, value and next step."""
    try:
        return make_begin(workloads, run_id=str(run_id), now=format_utc(time.time()), has_migration=has_migration)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"rolling_upgrade_begin": begin}
