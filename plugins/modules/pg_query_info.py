#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the rows of one SQL statement, in a transaction that cannot write."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_query_info
short_description: Read the rows of one SQL statement, in a transaction that cannot write
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Runs one statement that returns rows, and returns them as values that JSON can hold without loss.
  - The server itself sees to it that nothing is written. Session and transaction are read only before the statement is
    sent, and the transaction is rolled back after it; a second statement in the same text, and one that returns no rows,
    are refused.
  - A function that acts outside of tables, such as C(pg_terminate_backend), acts in a read-only transaction too.
    Use a role that may not call it.
  - Names are looked up in the C(search_path) of O(login_user), as in a session of its own.
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_postgresql
  - lowtide.ops._postgresql
options:
  query:
    description:
      - One statement that returns rows, such as C(SELECT), C(VALUES), C(SHOW) or C(EXPLAIN).
      - Without O(values) it is sent as it is. With them, V(%(name\)s) stands for a value and C(%%) for a percent sign.
    type: str
    required: true
  values:
    description:
      - Values by name, which the driver quotes into O(query). A value is never taken for SQL.
      - A list is bound as an array. A dictionary, or a list of dictionaries, is bound as JSON, to be written
        V(%(name\)s::jsonb).
    type: dict
    default: {}
  max_rows:
    description: How many rows there may be. One more is an error, and no row is returned; nothing is cut off silently.
    type: int
    default: 1000
  timeout:
    description: Seconds after which the server cancels the statement, also while it waits for a lock.
    type: float
    default: 60.0
  target:
    description:
      - With V(primary) a standby is refused, and looked past where O(login_host) names several hosts.
      - With V(any) the first host that answers is asked.
    type: str
    choices: [primary, any]
    default: primary
requirements:
  - the language plpgsql in the database, which is there unless somebody dropped it
notes:
  - While it runs, C(pg_stat_activity) shows it as a C(FETCH) of an application named C(lowtide.ops pg_query_info).
seealso:
  - module: lowtide.ops.pg_maintenance_info
"""

EXAMPLES = r"""
- name: See how far the standbys are behind
  lowtide.ops.pg_query_info:
    login_host: pg1,pg2,pg3
    login_user: lowtide_query
    login_db: feature_db
    passfile: /etc/lowtide/pgpass
    query: SELECT application_name, replay_lag::text AS lag FROM pg_stat_replication
  register: standbys

- name: Count what was recorded since then
  lowtide.ops.pg_query_info:
    login_host: pg1
    login_user: lowtide_query
    login_db: feature_db
    query: SELECT count(*) AS events FROM execution_events WHERE topic = %(topic)s AND recorded_at >= %(since)s
    values:
      topic: feature.events
      since: "2026-11-26T03:00:00Z"
"""

RETURN = r"""
check_mode:
  description: Whether this was run in check mode, which makes no difference here.
  returned: always
  type: bool
  sample: false
summary:
  description: What was read, in one line. Empty on a failure.
  returned: always
  type: str
  sample: 1 row from database feature_db
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - 1 row from database feature_db (cluster 7428119042137459183)
rows:
  description:
    - The rows, in the statement's order, each a dictionary by column name. NULL is null.
    - Booleans, C(smallint), C(integer), C(bigint), C(real), C(double precision), C(json), C(jsonb) and arrays are what
      they are in JSON. A C(numeric) without decimal places is an integer, any other one a string of its exact digits.
    - C(timestamptz) is a string after RFC 3339, C(timestamp) the same without an offset. An infinity of either, and a
      year before Christ, is as the server writes it.
    - C(bytea) is hexadecimal after C(\x). Every other type is a string as the server writes it, like a cast to C(text).
  returned: success
  type: list
  elements: dict
  sample:
    - events: 12034
row_count:
  description: How many rows there are.
  returned: success
  type: int
  sample: 1
columns:
  description: The names of the columns, in the statement's order. Two of one name are an error.
  returned: success
  type: list
  elements: str
  sample: [events]
database:
  description: The database.
  returned: when it was reached
  type: str
  sample: feature_db
server:
  description: The address of the server that was reached.
  returned: when it was reached
  type: str
  sample: 192.0.2.11
server_version:
  description: The version of the server.
  returned: when it was reached
  type: str
  sample: "15.18"
system_identifier:
  description: The identity of the cluster, for O(system_identifier).
  returned: when it was reached
  type: str
  sample: "7428119042137459183"
in_recovery:
  description: Whether the server that was reached is a standby.
  returned: when it was reached
  type: bool
  sample: false
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
blockers:
  description: Always empty.
  returned: always
  type: list
  elements: dict
waited:
  description: Always 0, since there is nothing to wait for.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.operations.query_info import QUERY_SPEC, run_query


def main() -> None:
    """Run the module."""
    run_module(AnsibleModule(argument_spec=QUERY_SPEC, supports_check_mode=True), run_query)


if __name__ == "__main__":
    main()
