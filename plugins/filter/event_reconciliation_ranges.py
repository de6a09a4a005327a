# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.event_reconciliation_ranges."""

from __future__ import annotations

DOCUMENTATION = r"""
name: event_reconciliation_ranges
short_description: "[INTERNAL] Return the offsets that a ledger is asked for"
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
  before:
    description: Groups as M(lowtide.ops.rpk_group_info) returned them before the consumers were stopped.
    type: list
    elements: dict
    default: []
positional: before
"""

EXAMPLES = r"""
passed: "{{ bus | lowtide.ops.event_reconciliation_ranges(shutdown_consumer_offsets) }}"
"""

RETURN = r"""
_value:
  description: >-
    For each partition C(topic), C(partition), C(log_start) (the first offset) and C(committed) (the first one after the
    last).
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._reconciliation import list_passed


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"event_reconciliation_ranges": list_passed}
