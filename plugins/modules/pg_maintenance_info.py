#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Assess the tables and indexes of a PostgreSQL database against a declared condition."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_maintenance_info
short_description: Assess the tables and indexes of a PostgreSQL database against a declared condition
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Reads what M(lowtide.ops.pg_maintenance) would do and why, and what stands in its way. Writes nothing. The only lock
    it takes is a reader's, on an index that it measures (see O(index_bloat_ratio)).
  - A standby is refused, since its statistics do not count dead rows and would say that nothing is due.
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_postgresql
  - lowtide.ops._postgresql
  - lowtide.ops._postgresql.condition
options:
  lock_timeout:
    description: Seconds to wait for the lock on an index that is measured.
    type: float
    default: 5.0
seealso:
  - module: lowtide.ops.pg_maintenance
"""

EXAMPLES = r"""
- name: See what is due
  lowtide.ops.pg_maintenance_info:
    login_host: db1.example.com
    login_db: feature_db
    dead_tuple_ratio: 0.1
    invalid_indexes: none
  register: condition

- name: Show it
  ansible.builtin.debug:
    var: condition.plan
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "12 tables of shop in condition"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "database shop on 10.0.0.1, system identifier 7428119042137459183: 12 tables assessed, transaction id age 4711"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
due:
  description: Whether M(lowtide.ops.pg_maintenance) with the same options would do anything.
  returned: success
  type: bool
  sample: true
plan:
  description: What it would do, in that order.
  returned: always
  type: list
  elements: dict
  sample:
    - object: table public.feature_executions
      what: VACUUM (ANALYZE)
      why: 24.1 % dead rows (241003 of 1000012), more than 10 %
      reversible: true
      estimate: 0.9
not_done:
  description: What is due, or may be, and would be left, and why.
  returned: success
  type: list
  elements: dict
  sample: []
blockers:
  description: Who or what is in the way, since when, and what to do about it.
  returned: always
  type: list
  elements: dict
  sample: []
invalid_indexes_left:
  description: Invalid indexes among those that were looked at.
  returned: success
  type: list
  elements: str
  sample: []
database:
  description: The database.
  returned: success
  type: str
  sample: feature_db
server:
  description: The address of the server that was reached.
  returned: success
  type: str
  sample: 192.0.2.11
system_identifier:
  description: The identity of the cluster, for O(system_identifier).
  returned: success
  type: str
  sample: "7428119042137459183"
tables_assessed:
  description: How many tables were looked at.
  returned: success
  type: int
  sample: 42
transaction_id_age:
  description: How many transactions old the database's oldest unfrozen rows may be (V(age(datfrozenxid\))).
  returned: success
  type: int
  sample: 1204332
waited:
  description: Always 0, since there is nothing to wait for.
  returned: always
  type: float
  sample: 0.0
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.arguments import INFO_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.operations.maintenance import inform


def main() -> None:
    """Run the module."""
    run_module(AnsibleModule(argument_spec=INFO_SPEC, supports_check_mode=True), inform)


if __name__ == "__main__":
    main()
