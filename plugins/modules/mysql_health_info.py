#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module lowtide.ops.mysql_health_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_health_info
short_description: Find out why clients cannot connect to a MariaDB server, before anything is restarted
version_added: 0.1.0
description:
  - Reads what a server says of its connections, sessions, transactions, locks and replication, and names what is the matter,
    with what to do about it. That there is no connection is a finding too, not a failure.
  - A restart loses this evidence, rolls open transactions back, and empties the caches. So the result says whether one is
    refused (RV(restart_refused)), and why. It is, unless something was found that a restart could mend, and each of the
    steps that come before it has been tried (O(tried)) and the finding is still there.
  - The text of statements is not returned, since it may hold secrets.
options:
  connections_ratio:
    description: From which share of C(max_connections) on they count as taken.
    type: float
    default: 0.8
  idle:
    description: Seconds from which on a sleeping session counts as idle.
    type: int
    default: 300
  transaction:
    description: Seconds from which on an open transaction counts as long.
    type: int
    default: 60
  lag:
    description: Seconds from which on a replica counts as lagging.
    type: int
    default: 30
  tried:
    description: The steps that have been done so far.
    type: list
    elements: dict
    default: []
    suboptions:
      step:
        description: Name of the step, as in C(steps) of a finding.
        type: str
        required: true
        choices:
          - check_process
          - check_network
          - end_idle_sessions
          - correct_pools
          - raise_max_connections
          - end_long_transactions
          - end_lock_holders
      at:
        description: When it was done, in ISO 8601 with a time zone.
        type: str
        required: true
  settle:
    description: Seconds after a step within which it may still show its effect.
    type: int
    default: 30
  query_timeout:
    description: Seconds to wait for each answer of the server.
    type: int
    default: 10
author:
  - The lowtide.ops team (@lowtide-ops)
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_mysql
  - lowtide.ops._mysql
attributes:
  action_group:
    membership:
      - lowtide.ops.mysql
"""

EXAMPLES = r"""
- name: Why clients cannot connect
  lowtide.ops.mysql_health_info:
    login_host: mysql.example.com
    option_file: /etc/lowtide/mysql-monitor.cnf
  register: health

- name: What is the matter
  ansible.builtin.debug:
    var: health.findings
"""

RETURN = r"""
summary:
  description: One line, how many connections are taken and what is the matter.
  returned: always
  type: str
  sample: "150 of 151 connections taken; connections_taken, long_transactions"
evidence:
  description: What was found, a line each.
  returned: always
  type: list
  elements: str
  sample: ["connections_taken: 150 of 151 connections are taken: app has 140, 131 of them idle for 5 min or more"]
check_mode:
  description: Whether this was a run in check mode, which reads the same.
  returned: always
  type: bool
  sample: false
read_at:
  description: When it was read.
  returned: success
  type: str
  sample: "2026-11-21T02:00:00Z"
server:
  description: Where the server is.
  returned: success
  type: str
  sample: mysql.example.com:3306
reachable:
  description: Whether there was a connection.
  returned: success
  type: bool
version:
  description: The version of the server.
  returned: when there was a connection
  type: str
  sample: 10.11.19-MariaDB
connections:
  description: The limit (C(max)), how many there are (C(used)), and the server's counters; null without a connection.
  returned: success
  type: dict
  sample: {max: 151, used: 150, aborted_connects: 3, connection_errors_max_connections: 71, max_used_connections: 152}
users:
  description: For each user its sessions, how many of them are active or idle, and how many are in which state.
  returned: success
  type: list
  elements: dict
  sample: [{user: app, sessions: 140, active: 3, idle: 131, states: {Sleep: 137, Sending data: 3}}]
transactions:
  description: Open transactions, the oldest first.
  returned: success
  type: list
  elements: dict
  sample: [{id: 42, user: app, command: Sleep, rows_modified: 12, seconds: 3600}]
waits:
  description: Who waits for whom.
  returned: when there was a connection
  type: list
  elements: dict
read_only:
  description: Whether the server is read only.
  returned: when there was a connection
  type: bool
replica:
  description: Seconds that a replica is behind (C(lag)), its threads and its last error; null where it is none.
  returned: success
  type: dict
findings:
  description: What is the matter, with C(name), C(what), C(next_step), and the C(steps) that come before a restart.
  returned: success
  type: list
  elements: dict
restart_refused:
  description: Whether a restart is refused.
  returned: success
  type: bool
restart_reasons:
  description: Why a restart is refused.
  returned: success
  type: list
  elements: str
  sample: ["connections_taken: step end_idle_sessions was not tried. End the sessions that idle (KILL, wait_timeout)"]
restart_refusal:
  description: The same in one text; empty where a restart is not refused.
  returned: success
  type: str
plan:
  description: Empty; nothing is changed.
  returned: always
  type: list
  elements: dict
blockers:
  description: Empty.
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
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.connection import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.health import HEALTH_SPEC, health_info


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(argument_spec={**CONNECTION_SPEC, **HEALTH_SPEC}, supports_check_mode=True)
    run_module(module, health_info)


if __name__ == "__main__":
    main()
