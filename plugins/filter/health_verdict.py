# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.health_verdict."""

from __future__ import annotations

DOCUMENTATION = r"""
name: health_verdict
short_description: "[INTERNAL] Compare what was read of a system with what is declared"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.health#role) and may change with it.
options:
  _input:
    description: The result of the task that read the system, also when it failed.
    type: dict
    required: true
  kind:
    description: What was read.
    type: str
    required: true
    choices: [workloads, groups, database, backups, alerts]
  limits:
    description: What was declared, C(name) among it, the object to name when nothing could be read.
    type: dict
    required: true
  host:
    description: Whose verdict it is.
    type: str
    required: true
positional: kind, limits, host
"""

EXAMPLES = r"""
health_result: "{{ seen | lowtide.ops.health_verdict('groups', {'name': 'bus', 'warn_ratio': 0.8, 'groups': [{'name': 'g', 'max_lag': 10}]}, 'bus1') }}"
"""

RETURN = r"""
_value:
  description:
    - The public result of the role. Its C(evidence.lines) have C(level) (OK, WARN or FAIL), C(object), C(seen) and C(text);
      those that failed are its C(blockers).
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.plugin_utils._health import health_result


def verdict(result: t.Mapping[str, t.Any], kind: str, limits: t.Mapping[str, t.Any], host: str) -> dict[str, t.Any]:
    """The filter: an input that cannot be understood fails the task with object, value and next step."""
    try:
        return health_result(result, kind, limits, host)
    except OpsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The one filter."""
        return {"health_verdict": verdict}
