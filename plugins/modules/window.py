#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does all the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: window
short_description: Opens and closes a maintenance window, and stands around each of its steps
version_added: 0.1.0
description:
  - The one action behind the role P(lowtide.ops.window#role), which is how it is meant to be used.
  - It runs on the controller, whatever the host's connection is, and starts no module.
  - Opening takes the window's lease and opens or resumes the journal of its occurrence. Each step asks whether it is due, and
    records how it ended. Closing writes the report and gives the lease back.
  - A failed step is recorded; later steps are then left out, except those that close what is open.
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
    details:
      - The whole window rehearses. Neither lease, journal nor report is written; the rehearsal's own journal lives in Ansible's
        temporary folder of that run.
  diff_mode:
    support: none
    details:
      - The window itself has no state to show; the modules of its steps do.
  idempotent:
    support: full
    details:
      - A window that finds nothing due touches nothing but its own journal and report.
options:
  phase:
    description:
      - What to do.
      - V(open) and V(close) stand in the first and in the last play, on the only host of the group C(control).
      - V(begin) and V(end) stand around a step on each of its hosts, and around its planning when O(planning=true).
      - V(proceed) says whether any later step can begin or close something.
      - V(verdict) is the last task; it fails when the window did.
      - V(settle) records that everything left open was put back by other means.
    type: str
    required: true
    choices: [open, begin, end, proceed, close, verdict, settle]
  name:
    description: Name of the window. Required for V(open) and V(settle).
    type: str
  start:
    description:
      - Scheduled start, which together with O(name) is the occurrence.
      - When empty, that of an unfinished occurrence opened within the last 24 hours, else the day in UTC.
    type: str
    default: ""
  steps:
    description: The declared steps in their order. See the role's entry point C(open).
    type: list
    elements: dict
    default: []
  only:
    description: Names of the steps to perform, with what these need and what closes that. Empty means all.
    type: list
    elements: str
    default: []
  skip:
    description: Names of steps to leave out. Leaving out what another step needs is refused.
    type: list
    elements: str
    default: []
  dir:
    description: Folder on the controller for journals, leases and reports. Required for V(open) and V(settle).
    type: path
  site:
    description: What keeps windows of the same name apart; one folder for each below O(dir).
    type: str
    default: ""
  duration:
    description: Seconds after which no further step begins, except closing ones, and the lease is no longer renewed.
    type: int
    default: 14400
  orphan_timeout:
    description: Seconds to wait for a step that a killed run left running on this host.
    type: int
    default: 300
  step:
    description: Name of the step.
    type: str
  role:
    description: Role that performs the step.
    type: str
  tasks_from:
    description: Entry point of that role.
    type: str
    default: main
  planning:
    description: Whether the role is run in check mode to find out whether the step is due.
    type: bool
    default: false
  required:
    description: Whether to refuse the step when no window was opened in this run, instead of performing it plainly.
    type: bool
    default: false
  error:
    description: Result of the task that failed. Absent when the step succeeded.
    type: dict
  failed_task:
    description: The task that failed.
    type: dict
  evidence:
    description: Lines for the report, for instance how many messages were processed.
    type: list
    elements: str
    default: []
author:
  - The lowtide.ops team (@lowtide)
"""

EXAMPLES = r"""
- name: Open the window, through the role
  hosts: control
  gather_facts: false
  tags: [always]
  tasks:
    - name: Open
      ansible.builtin.include_role:
        name: lowtide.ops.window
        tasks_from: open
      vars:
        window_name: weekly
        window_steps:
          - name: shutdown
          - name: maintenance
            needs: [shutdown]
          - name: startup
            closes: shutdown
"""

RETURN = r"""
msg:
  description: What happened, in one line.
  returned: always
  type: str
summary:
  description: The window in words, line by line; steps with hosts, outcome, duration and reason, then evidence.
  returned: for O(phase=close)
  type: list
  elements: str
run:
  description: For V(begin), whether this host performs the step now. For V(open), the fencing token of this run.
  returned: for O(phase=begin) and O(phase=open)
  type: raw
why:
  description: Why the step is or is not performed here.
  returned: for O(phase=begin)
  type: str
window_id:
  description: The occurrence, C(name@start).
  returned: for O(phase=open) and O(phase=verdict)
  type: str
state:
  description: How the window ended.
  returned: for O(phase=verdict)
  type: str
  choices: [nothing_to_do, done, refused, failed_closed, failed_open]
report:
  description: Path of the report's HTML page; the same as JSON lies beside it.
  returned: for O(phase=verdict)
  type: str
error:
  description: Object, problem and next step of a refusal.
  returned: on failure
  type: dict
"""
