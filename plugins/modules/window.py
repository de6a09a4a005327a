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
  - The one action behind the role P(lowtide.ops.window#role), which the playbooks of the collection use. Write windows with
    those playbooks; this page is for reading their results.
  - It runs on the controller, whatever the host's connection is, and starts no module.
  - Opening checks the declaration, takes the site's lease and opens or resumes the journal of an occurrence. Each step asks
    whether it is due, and records how it ended. Closing writes the report and gives the lease back.
  - A failed step is recorded; later steps are then skipped, except those that revert what is in force.
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
    details:
      - The whole window is predicted. Neither lease, journal nor report is written; a copy of the journal lives in Ansible's
        temporary directory of that run.
  diff_mode:
    support: none
    details:
      - The window itself has no state to show; the modules of its steps do.
  idempotent:
    support: full
    details:
      - A window that finds nothing due changes nothing but its own journal and report.
options:
  phase:
    description:
      - What to do.
      - V(open) stands in the first play, V(close) and V(verdict) in the last one, on the only host of the group C(control).
      - V(begin) stands before a step on each of its hosts, and V(end) or V(fail) after it; O(planning=true) around its planning.
      - V(verdict) is the last task; it fails when the window did.
      - V(in_force) tells which reverting steps are to run out of turn, when the window opens and when it closes.
      - V(status) reads what is open at a site, V(holder) who holds it now.
    type: str
    required: true
    choices: [open, begin, end, fail, in_force, close, verdict, status, holder]
  name:
    description: Name of the window. Required for V(open).
    type: str
  mode:
    description: For V(open), V(restore) only reverts what windows of the site left in force.
    type: str
    choices: [window, restore]
    default: window
  start:
    description:
      - For V(open), the scheduled start, any text, which together with O(name) is the occurrence.
      - When empty, that of the newest occurrence that came to no good end and whose time is not over, else now.
      - An occurrence can be resumed until its end, which its first opening sets by O(duration).
    type: str
    default: ""
  times:
    description: For V(open), when the window is to begin. See C(window_times) of the role's entry point C(open).
    type: list
    elements: dict
    default: []
  steps:
    description: For V(open), the declared steps in their order. See C(window_steps) of the role's entry point C(open).
    type: list
    elements: raw
    default: []
  only:
    description: For V(open), names of the steps to perform, with what these need and what reverts that. Empty means all.
    type: list
    elements: str
    default: []
  skip:
    description: For V(open), names of steps to leave out. Leaving out what another step needs is refused.
    type: list
    elements: str
    default: []
  dir:
    description:
      - Directory on the controller for lease, journals and reports, for V(open), V(status) and V(holder).
      - One that ends with the controller's container is refused by V(open).
    type: path
  store:
    description:
      - Where they are kept instead of O(dir). Given to every phase but V(verdict), since it is kept nowhere.
      - Either C(kubernetes), the options of a Kubernetes connection with C(namespace), or C(postgresql), those of a PostgreSQL one.
    type: dict
    default: {}
  site:
    description: Name of the site; there is one lease for it, whatever the window. One directory for each below O(dir).
    type: str
    default: ""
  duration:
    description: For V(open), seconds from the first opening of an occurrence to its end. Later only reverting steps are started.
    type: int
    default: 14400
  orphan_timeout:
    description: For V(open), seconds to wait for a process that a killed run left running on the controller.
    type: int
    default: 300
  keep_days:
    description: For V(open), days after which closing removes old journals and reports. V(0) keeps them.
    type: int
    default: 90
  places:
    description: For V(open), how many plays the playbook has for steps. V(0) means that it names its steps.
    type: int
    default: 0
  approved_only:
    description:
      - For V(open), whether this run follows a check mode that was approved. A window is refused whose revision or
        declaration is not what its check mode, earlier in a workflow of AWX, has shown. With this option it is also
        refused where nothing is known of that.
    type: bool
    default: false
  place:
    description: For V(begin), V(end) and V(fail), the number of the play among all plays of the window.
    type: int
  step:
    description: For V(begin), V(end) and V(fail), the name of the step, instead of O(place).
    type: str
    default: ""
  batch:
    description: The batch of O(step), from 0.
    type: int
    default: 0
  planning:
    description: Whether the role is run in check mode to find out whether the step is due.
    type: bool
    default: false
  reverting:
    description: For V(begin), whether the step runs out of turn, as V(in_force) told.
    type: bool
    default: false
  result_variable:
    description: For V(end), the name of the variable in which the role left its result. Required for it.
    type: str
  error:
    description: For V(fail), the result of the task that failed. Required for it.
    type: dict
  failed_task:
    description: For V(fail), name, action and no_log of the task that failed. Required for it.
    type: dict
author:
  - The lowtide.ops team (@lowtide-ops)
"""

EXAMPLES = r"""
- name: Open
  import_playbook: lowtide.ops.window_open

- name: Stop the workers
  import_playbook: lowtide.ops.step
  vars:
    window_step: shutdown

- name: Maintain
  import_playbook: lowtide.ops.step
  vars:
    window_step: database_maintenance

- name: Start the workers
  import_playbook: lowtide.ops.step
  vars:
    window_step: startup

- name: Close
  import_playbook: lowtide.ops.window_close
"""

RETURN = r"""
msg:
  description: What happened, in one line.
  returned: always
  type: str
lines:
  description: The report or the status for people, line by line.
  returned: for O(phase=close) and O(phase=status)
  type: list
  elements: str
perform:
  description: Whether this host performs the step now; C(msg) says why.
  returned: for O(phase=begin)
  type: bool
over:
  description: Whether nothing is left to do in this run, after a failure.
  returned: for O(phase=begin)
  type: bool
window_id:
  description: The occurrence, C(name@start).
  returned: for O(phase=open) and O(phase=verdict)
  type: str
token:
  description: The fencing token of this run, higher than that of any run of the site before.
  returned: for O(phase=open)
  type: int
plays:
  description: The plays of the window in their order, with C(title), C(step), C(batch) and C(hosts).
  returned: for O(phase=open)
  type: list
  elements: dict
planning:
  description: The steps that are planned, by host.
  returned: for O(phase=open)
  type: dict
planning_reverts:
  description: The reverting steps that are planned, by host.
  returned: for O(phase=open)
  type: dict
items:
  description: The reverting steps that are to run out of turn, with C(step) and C(batch).
  returned: for O(phase=in_force)
  type: list
  elements: dict
hosts:
  description: The hosts of C(items).
  returned: for O(phase=in_force)
  type: list
  elements: str
not_reverted:
  description: What is in force from runs before. For V(open) one text each, for V(status) one dictionary each.
  returned: for O(phase=open) and O(phase=status)
  type: list
  elements: raw
resumed:
  description: Whether an occurrence is resumed.
  returned: for O(phase=open)
  type: bool
opened_at:
  description: When the occurrence was first opened, in RFC 3339.
  returned: for O(phase=open)
  type: str
ends_at:
  description: When the occurrence ends, in RFC 3339.
  returned: for O(phase=open)
  type: str
state:
  description: How the window ended.
  returned: for O(phase=verdict)
  type: str
  choices: [no_changes, succeeded, refused, failed_reverted, failed_not_reverted]
report:
  description: Path of the report's HTML page; the same as JSON is in the file beside it.
  returned: for O(phase=verdict)
  type: str
holder:
  description: Who holds the site now, empty when nobody does.
  returned: for O(phase=status) and O(phase=holder)
  type: str
occurrences:
  description: The newest occurrences, with C(window_id), C(state), C(opened_at), C(ends_at), C(cause) and C(not_reverted).
  returned: for O(phase=status)
  type: list
  elements: dict
error:
  description: Object, problem and next step of a refusal.
  returned: on failure
  type: dict
"""
