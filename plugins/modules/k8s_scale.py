#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_scale
short_description: Give a workload a declared number of replicas
version_added: 0.1.0
description:
  - Gives a stateless service, or any other Deployment, StatefulSet or workload of another API that has the subresource
    C(scale), the number of replicas that is declared, and waits until they serve. For consumers of topics,
    M(lowtide.ops.k8s_scale_to_partitions) computes that number.
  - Before the first write it looks at who else sets the number (an HPA, KEDA, a GitOps tool), at disruption budgets,
    quotas, room on the nodes, and the connections of a database (O(connection_budget)). What stands against the number
    is a refusal that names it, and nothing is written.
  - It also waits when nothing had to be changed, and ends early on a state that waiting does not mend, which it names.
  - Only the number is written. Pods that run stay as they are, and nothing is restarted.
  - Each write is tried as a dry run first; in check mode, which sends no write at all, the right to C(patch) is asked
    for instead, by an access review (C(SelfSubjectAccessReview)).
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  replicas:
    description: How many replicas it is to have, at least 1. M(lowtide.ops.k8s_workload) stops workloads.
    type: int
    required: true
  allow_scale_down:
    description: Whether there may be fewer replicas than now. Without it, a workload that has more is refused.
    type: bool
    default: false
  guards:
    description:
      - What is looked at before a change, as the option of M(lowtide.ops.k8s_scale_to_partitions).
      - V(headroom) reads the nodes and the pods of all namespaces, which takes a ClusterRole. Add it where the account
        has that and no cluster autoscaler adds nodes.
    type: list
    elements: str
    choices: [hpa, keda, gitops, disruption_budget, quota, headroom]
    default: [hpa, keda, gitops, disruption_budget, quota]
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
  - lowtide.ops._kubernetes.acting
  - lowtide.ops._kubernetes.connection_budget
  - lowtide.ops._kubernetes.scaling
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written, and nothing is waited for.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: lowtide.ops.k8s_scale_to_partitions
  - module: lowtide.ops.k8s_autoscaler
  - module: lowtide.ops.k8s_workload
"""

EXAMPLES = r"""
- name: Six replicas of the API, if they fit on the nodes
  lowtide.ops.k8s_scale:
    kind: Deployment
    name: api
    namespace: shop
    replicas: 6
    guards: [hpa, keda, gitops, disruption_budget, quota, headroom]

- name: Ten replicas, if the database has connections for them
  lowtide.ops.k8s_scale:
    kind: Deployment
    name: api
    namespace: shop
    replicas: 10
    connection_budget:
      max_connections: 500
      reserved: 13
      used_by_others: 40
      pool_per_replica: 40
      shared_with:
        - {kind: StatefulSet, name: order-consumer, pool_per_replica: 5}

- name: Exactly four, also where an HPA would give another number
  lowtide.ops.k8s_scale:
    kind: Deployment
    name: api
    namespace: shop
    replicas: 4
    allow_scale_down: true
    autoscaler: adjust
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "scaled Deployment shop/api from 3 to 6 replicas (declared)"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "Deployment shop/api: 6 of 6 replicas ready"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
target:
  description: The declared number of replicas.
  returned: when it is known
  type: int
  sample: 6
replicas:
  description: The number of replicas that the workload has, or in check mode would have.
  returned: when the workload was read
  type: int
  sample: 6
reason:
  description: Why it is that number.
  returned: when the workload was read
  type: str
  sample: declared
ready:
  description: How many replicas serve.
  returned: success, except in check mode
  type: int
  sample: 6
run_id:
  description: The run's name, as it is left in the user agent of each request and in what is saved on the objects.
  returned: when the cluster was reached
  type: str
  sample: 20260101T000000Z
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
  sample: 3
plan:
  description: What is changed (in check mode, would be), and why.
  returned: always
  type: list
  elements: dict
  sample:
    - object: Deployment shop/api
      what: replicas 3 -> 6
      why: declared
      reversible: true
      estimate: null
blockers:
  description: What stands in the way, who holds it, and what to do about it.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting.
  returned: always
  type: float
  sample: 2.1
error:
  description:
    - The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused), that is, before
      this run changed anything.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import (
    ACTING_SPEC,
    CONNECTION_SPEC,
    SCALING_SPEC,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.scale import run_scale
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.scaling_constraints import GUARDS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            **SCALING_SPEC,
            "replicas": {"type": "int", "required": True},
            "allow_scale_down": {"type": "bool", "default": False},
            "guards": {
                "type": "list",
                "elements": "str",
                "choices": list(GUARDS),
                "default": ["hpa", "keda", "gitops", "disruption_budget", "quota"],
            },
        },
        supports_check_mode=True,
    )
    run_module(module, run_scale)


if __name__ == "__main__":
    main()
