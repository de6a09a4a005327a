# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.event_reconciliation."""

from __future__ import annotations

DOCUMENTATION = r"""
name: event_reconciliation
short_description: "[INTERNAL] Compare the events that a consumer group has passed with those that a database recorded"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the role P(lowtide.ops.event_reconciliation#role) and may change with it.
options:
  _input:
    description: The result of M(lowtide.ops.rpk_group_info) for one group.
    type: dict
    required: true
  ledger:
    description: >-
      The result of M(lowtide.ops.pg_query_info), one row with the columns recorded, doubled, recorded_since, or one for
      each partition with topic and partition as well.
    type: dict
    required: true
  since:
    description: The time stamp of C(recorded_since), empty for since ever.
    type: str
    default: ""
  records:
    description: What M(lowtide.ops.rpk_group_info) has counted of the ranges in C(to_count), if it was asked.
    type: list
    elements: dict
  before:
    description: Groups as M(lowtide.ops.rpk_group_info) returned them before the consumers were stopped.
    type: list
    elements: dict
    default: []
positional: ledger, since, records, before
"""

EXAMPLES = r"""
event_reconciliation_result: "{{ bus | lowtide.ops.event_reconciliation(ledger, window_opened_at) }}"
"""

RETURN = r"""
_value:
  description: The public result of the role, with a blocker when an event was lost or doubled, or that is not known.
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._reconciliation import reconcile


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"event_reconciliation": reconcile}
