#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_cluster
short_description: Have a declared member lead a Patroni cluster, and restart what waits for it
version_added: 0.1.0
description:
  - Brings the member O(leader), or one with O(leader_tags) (a site), to lead, by a switchover over Patroni's REST interface.
    C(patronictl) is not needed. Where it leads already, nothing is sent.
  - The candidate has to run, to be on the leader's timeline, to have no tag C(nofailover), to confirm commits where
    C(synchronous_mode) is on, and to lag by no more than O(max_lag). Of several, those that confirm commits come first,
    then C(failover_priority), then the least lag. Otherwise nothing is sent, and the message has the number of each.
  - In a failover the candidate is who has the most WAL, and only then the one with the higher priority. It is refused where a
    standby that may not take over has more, or where one that is silent may have rows that a quorum has acknowledged, or
    had more when it was noted last.
  - A member that is silent, that was there before, or whose address is only in O(urls) may be a second primary whose
    Patroni is gone. It is a standby where it streams from a member that answers, by its name and its address
    (C(postgresql.connect_address)). Where no address tells, as behind NAT, whether it is the one of its name is not
    known. It is off where its PostgreSQL refuses connections and that of each member that runs takes one from here; a
    firewall that rejects looks the same. Where it takes one, the run fails. Where neither can be seen, or is known,
    RV(blockers), a warning and RV(summary) say so. Take an address out of O(urls) only where PostgreSQL is off.
  - An answer of Patroni that is lost, late or 503 is no verdict. The members are asked until there is one.
  - It ends when one member accepts writes, its timeline has risen, and every member that ran before, the old leader among
    them, streams on that timeline. With C(synchronous_mode) as many members have to confirm commits as before, which takes
    Patroni one or two C(loop_wait) more. A standby that leads by the time of its restart is not restarted as one.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  leader:
    description: Name of the member that is to lead. Unset means any that O(leader_tags) admits.
    type: str
  leader_tags:
    description: Tags that the leader must have, such as C(site), as they are in the members' configuration.
    type: dict
  allow_failover:
    description:
      - Whether a leader that is gone may be replaced. What no standby has received is lost then, and Patroni elects a
        leader itself as a rule, once the old one's key has ended (C(ttl)).
      - A leader whose Patroni is silent and whose PostgreSQL takes connections is not gone, and is refused all the same.
        One that cannot be reached at all is declared with this to be off, or cut from its clients.
      - Needed as well where nobody leads.
    type: bool
    default: false
  max_lag:
    description:
      - Bytes of WAL that the candidate may lack, or have to replay. Unset means C(maximum_lag_on_failover) of the cluster.
      - A switchover loses nothing whatever the lag, but writes stop for as long as the candidate needs for it.
    type: int
  restart:
    description:
      - With V(pending), PostgreSQL of each member whose settings wait for a restart is restarted, one at a time and standbys
        first. The leader hands over before, and comes last.
      - Each is restarted once, and the leader hands over once at most. A standby that waits for a restart all the same ends the
        run before anybody hands over; one case is a setting of which a standby does not go below its primary.
    type: str
    choices: [never, pending]
    default: never
  started_after:
    description:
      - A time with its zone, such as V(2026-11-27T02:00:00Z). Members whose PostgreSQL runs since before it are restarted
        in the same way.
    type: str
  timeout:
    description: Seconds until all has to be done.
    type: float
    default: 300.0
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_patroni
  - lowtide.ops._patroni
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - A cluster that is paused, a switchover that is scheduled, a DCS without a quorum and a second primary are refused.
  - Killed at any time, run it again. Patroni ends on its own what it has begun.
seealso:
  - module: lowtide.ops.patroni_cluster_info
"""

EXAMPLES = r"""
- name: Have pg2 lead
  lowtide.ops.patroni_cluster:
    urls: [https://pg1.example.com:8008, https://pg2.example.com:8008, https://pg3.example.com:8008]
    username: lowtide
    password_file: /etc/lowtide/patroni-password
    ca_path: /etc/lowtide/patroni-ca.pem
    scope: shop
    leader: pg2

- name: Move the leader into the data centre that stays up
  lowtide.ops.patroni_cluster:
    urls: [https://pg1.example.com:8008, https://pg2.example.com:8008, https://pg3.example.com:8008]
    username: lowtide
    password_file: /etc/lowtide/patroni-password
    leader_tags: {site: east}

- name: Apply settings that wait for a restart, with one short gap in writes
  lowtide.ops.patroni_cluster:
    urls: [https://pg1.example.com:8008, https://pg2.example.com:8008, https://pg3.example.com:8008]
    username: lowtide
    password_file: /etc/lowtide/patroni-password
    restart: pending
"""

RETURN = r"""
summary:
  description: One line that says who leads and what was done for it.
  returned: success
  type: str
  sample: "pg2 leads shop on timeline 5, was pg1 (switchover)"
evidence:
  description: The timeline before and after, what Patroni answered, and a line for each member.
  returned: always
  type: list
  elements: str
cluster:
  description: The cluster afterwards, as M(lowtide.ops.patroni_cluster_info) returns it.
  returned: when it was read
  type: dict
check_mode:
  description: Whether this was a prediction in check mode.
  returned: always
  type: bool
plan:
  description: What is to be done, with why.
  returned: always
  type: list
  elements: dict
blockers:
  description:
    - Who may be a second primary, or of whom that is not known, with what to do. What else stands in the way is refused.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds from the first request to the end.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._common.module import run_module
from ..module_utils._patroni.arguments import CONNECTION
from ..module_utils._patroni.operations.cluster import run_cluster


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "leader": {"type": "str"},
            "leader_tags": {"type": "dict"},
            "allow_failover": {"type": "bool", "default": False},
            "max_lag": {"type": "int"},
            "restart": {"type": "str", "choices": ["never", "pending"], "default": "never"},
            "started_after": {"type": "str"},
            "timeout": {"type": "float", "default": 300.0},
        },
        supports_check_mode=True,
    )
    run_module(module, run_cluster)


if __name__ == "__main__":
    main()
