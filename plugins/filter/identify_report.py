# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter lowtide.ops.identify_report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: identify_report
short_description: "[INTERNAL] Put the identities that systems told of themselves into what can be pasted"
version_added: 0.1.0
author:
  - The lowtide.ops team (@lowtide-ops)
description:
  - This filter belongs to the playbook C(lowtide.ops.identify) and may change with it.
options:
  _input:
    description: What P(lowtide.ops.identify_connections#filter) returned.
    type: dict
    required: true
  answers:
    description: By kind of system, the registered result of the loop that asked each connection.
    type: dict
    required: true
positional: answers
"""

EXAMPLES = r"""
report: "{{ connections | lowtide.ops.identify_report({'kafka': answers}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(blocks) to paste, each with its hosts, C(notes), C(failures), and their C(summary), empty if there was none.
  type: dict
"""

import typing as t

from ansible_collections.lowtide.ops.plugins.plugin_utils._identify import report_identities


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter of this file."""
        return {"identify_report": report_identities}
