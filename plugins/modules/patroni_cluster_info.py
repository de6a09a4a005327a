#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_cluster_info
short_description: Read the members of a Patroni cluster, and which of them may take over
version_added: 0.1.0
description:
  - Reads C(/cluster), C(/config) and each member's own C(/patroni) over Patroni's REST interface. C(patronictl) is not needed.
  - A member that is silent, and each address in O(urls) that no member has published, is judged by its PostgreSQL, since
    it may be a primary whose Patroni is gone; see M(lowtide.ops.patroni_cluster).
  - Lag is measured from the members' positions in the WAL now. What Patroni shows as lag is as old as its last look.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  max_lag:
    description:
      - Bytes of WAL that a candidate may lack, or have to replay. Unset means C(maximum_lag_on_failover) of the cluster.
    type: int
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_patroni
  - lowtide.ops._patroni
seealso:
  - module: lowtide.ops.patroni_cluster
"""

EXAMPLES = r"""
- name: Read the cluster
  lowtide.ops.patroni_cluster_info:
    urls: [https://pg1.example.com:8008, https://pg2.example.com:8008, https://pg3.example.com:8008]
    ca_path: /etc/lowtide/patroni-ca.pem
  register: cluster

- name: Show who leads, and who may take over
  ansible.builtin.debug:
    msg: "{{ cluster.cluster.leader }} leads; {{ cluster.candidates | join(', ') or 'nobody' }} may take over"
"""

RETURN = r"""
summary:
  description: One line about leader, members and lag.
  returned: success
  type: str
  sample: "shop: pg1 leads on timeline 4, 3 of 3 members run, lag up to 0 B"
evidence:
  description: A line for each member.
  returned: success
  type: list
  elements: str
cluster:
  description: The cluster with its members.
  returned: success
  type: dict
  contains:
    scope:
      description: Its name in the DCS.
      type: str
    system_identifier:
      description: Identity of the data.
      type: str
    leader:
      description: Name of the leader; none where nobody leads.
      type: str
    timeline:
      description: Timeline of the leader.
      type: int
    paused:
      description: Whether it is in maintenance mode.
      type: bool
    synchronous:
      description: Whether only members that confirm commits may take over.
      type: bool
    standby_cluster:
      description: Whom it follows as a standby cluster; none where it is a cluster of its own.
      type: dict
    max_lag:
      description: C(maximum_lag_on_failover), in bytes.
      type: int
    scheduled_switchover:
      description: A switchover that is to come; none where there is none.
      type: dict
    members:
      description:
        - Each member with C(name), C(role), C(state), C(timeline), C(position), C(receive_lag), C(replay_lag) (in bytes),
          C(replay_paused), C(tags), C(pending_restart), C(started_at), C(host), C(port), C(api_url), C(version) and
          C(error), which is why it does not answer.
      type: list
      elements: dict
candidates:
  description: Names of the members that may take over.
  returned: success
  type: list
  elements: str
blockers:
  description: What keeps each other standby from taking over, with the value seen, and who may be a second primary.
  returned: always
  type: list
  elements: dict
check_mode:
  description: Whether this was a run in check mode, which is no different.
  returned: always
  type: bool
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
waited:
  description: Always 0.
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
from ..module_utils._patroni.operations.cluster_info import run_info


def main() -> None:
    module = AnsibleModule(argument_spec={**CONNECTION, "max_lag": {"type": "int"}}, supports_check_mode=True)
    run_module(module, run_info)


if __name__ == "__main__":
    main()
