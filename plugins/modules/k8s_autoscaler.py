#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_autoscaler
short_description: Declare bounds, metrics and behavior of an HPA, for good or for a time
version_added: 0.1.0
description:
  - Makes a HorizontalPodAutoscaler be as declared, and waits until its target serves with a number of replicas within
    its bounds. What is not declared stays as it is.
  - A change for a time (O(until), O(save_before)) saves what it replaces on the HPA in the same write, so that any later
    run gives it back (O(state=expired), O(state=restored)). What another client has changed since stays.
  - Of an HPA that it makes it waits, for at most a minute, until its controller has read its metrics or has said why it
    cannot. That they cannot be read is no failure, since the HPA keeps its bounds; it is in RV(blockers), with the
    controller's reason. Where metrics are declared anew, it asks whether the cluster serves their API, in check mode too.
  - There is one autoscaler for a workload. A second HPA, and an HPA beside a ScaledObject of KEDA, are refused, as is an
    HPA that KEDA has made.
  - It refuses bounds that would let replicas go at once (without O(allow_scale_down)), a minimum that a quota or the
    nodes have no room for, and a maximum for which a database has no connections (O(connection_budget)). Where only the
    maximum would exceed a quota or the nodes, that is reported in RV(blockers).
  - Its write is tried as a dry run first; in check mode, which sends no write at all, the right to C(patch) or C(create)
    is asked for instead.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  state:
    description:
      - With V(present) the HPA is made as declared.
      - With V(restored) it gets back what a change for a time replaced, whether its end has come or not.
      - With V(expired) it gets that back if O(until) of that change has come by the server's clock.
    type: str
    choices: [present, restored, expired]
    default: present
  name:
    description: The name of the HPA.
    type: str
    required: true
  target:
    description:
      - What it scales. An HPA that does not exist is made for it; one that scales something else is refused.
      - Without it, the HPA has to be there.
    type: dict
    suboptions:
      kind:
        description: Kind of the workload, V(Deployment) or V(StatefulSet), or another one with O(target.api_version).
        type: str
        required: true
      name:
        description: Name of the workload.
        type: str
        required: true
      api_version:
        description: The API of another kind that has the subresource C(scale), such as C(argoproj.io/v1alpha1).
        type: str
      plural:
        description: With O(target.api_version), the plural of that kind.
        type: str
  min_replicas:
    description: Never fewer replicas than this, at least 1. A new HPA has 1 without it.
    type: int
  max_replicas:
    description: Never more replicas than this. A new HPA needs it.
    type: int
  metrics:
    description:
      - What it scales by, as C(spec.metrics) of C(autoscaling/v2). The list is the whole list. A new HPA needs it.
    type: list
    elements: dict
  behavior:
    description:
      - How fast it scales, as C(spec.behavior) of C(autoscaling/v2), with C(scaleUp), C(scaleDown) or both.
      - C(stabilizationWindowSeconds) says for how long fewer (or more) replicas have to be asked for, and C(policies)
        how many may go or come in a time. What is not named stays as it is.
    type: dict
  scale_down_utilisation:
    description:
      - Refused, whatever it is. An HPA has no separate threshold for scaling down; what such a threshold is meant for is
        C(stabilizationWindowSeconds) of C(scaleDown) in O(behavior).
    type: int
    aliases: [scale_down_utilization]
  until:
    description: The end of a change for a time, as in RFC 3339. What it replaces is saved on the HPA.
    type: str
  save_before:
    description: Save what is replaced on the HPA, for O(state=restored), as for a step of a window that another step reverts.
    type: bool
    default: false
  saved_by:
    description:
      - With O(state=restored) and O(state=expired), whose changes for a time are given back.
      - With V(window) only those of windows, whose O(run_id) contains C(@), as the variable C(window_id) does.
    type: str
    choices: [any, window]
    default: any
  allow_scale_down:
    description: Whether a maximum below the replicas that there are is set, which lets them go at once.
    type: bool
    default: false
  guards:
    description:
      - What is looked at beside the other HPAs of the namespace. V(keda) finds ScaledObjects on the same target, V(gitops)
        a GitOps tool that has a changed field in Git, V(quota) quotas, V(headroom) room on the nodes.
      - Each costs the requests that it costs M(lowtide.ops.k8s_scale_to_partitions); V(headroom) takes a ClusterRole.
    type: list
    elements: str
    choices: [keda, gitops, quota, headroom]
    default: [keda, gitops, quota]
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
  - lowtide.ops._kubernetes.acting
  - lowtide.ops._kubernetes.connection_budget
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
  - module: lowtide.ops.k8s_scale
  - module: lowtide.ops.k8s_scale_to_partitions
"""

EXAMPLES = r"""
- name: Up at once, down only after ten calm minutes and one pod a minute
  lowtide.ops.k8s_autoscaler:
    namespace: shop
    name: api
    target: {kind: Deployment, name: api}
    min_replicas: 2
    max_replicas: 20
    metrics:
      - type: Resource
        resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}
    behavior:
      scaleUp: {stabilizationWindowSeconds: 0}
      scaleDown:
        stabilizationWindowSeconds: 600
        policies: [{type: Pods, value: 1, periodSeconds: 60}]

- name: At least eight until the sale is over
  lowtide.ops.k8s_autoscaler:
    namespace: shop
    name: api
    min_replicas: 8
    until: "2027-01-02T06:00:00Z"

- name: Give back what has ended
  lowtide.ops.k8s_autoscaler:
    namespace: shop
    name: api
    state: expired
"""

RETURN = r"""
summary:
  description: One line that says what was done, would be done in check mode, or was found. Empty on an early failure.
  returned: always
  type: str
  sample: "set minReplicas 2 -> 8 of HorizontalPodAutoscaler shop/api (declared, until 2027-01-02T06:00:00Z)"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "HorizontalPodAutoscaler shop/api: 8 to 20 replicas"
    - "Deployment shop/api: 8 of 8 replicas ready"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
autoscaler:
  description: The bounds, metrics and behavior that the HPA has.
  returned: success, except in check mode
  type: dict
  sample: {minReplicas: 8, maxReplicas: 20}
replicas:
  description: How many replicas the target has.
  returned: when it was read
  type: int
  sample: 8
run_id:
  description: The run's name, as it is left in the user agent of each request and in what is saved on the HPA.
  returned: when the cluster was reached
  type: str
  sample: 20260101T000000Z
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
  sample: 7
plan:
  description: What is changed (in check mode, would be), and why, among it what the HPA does to its target at once.
  returned: always
  type: list
  elements: dict
  sample:
    - object: HorizontalPodAutoscaler shop/api
      what: minReplicas 2 -> 8
      why: declared, until 2027-01-02T06:00:00Z
      reversible: true
      estimate: null
    - object: Deployment shop/api
      what: replicas 3 -> 8
      why: minReplicas of HorizontalPodAutoscaler shop/api
      reversible: true
      estimate: null
blockers:
  description:
    - What stands in the way, who holds it, and what to do about it. Also what the HPA says of itself, such as metrics
      that it cannot read, and what its maximum has no room for.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting.
  returned: always
  type: float
  sample: 12.4
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
    CONNECTION_BUDGET_SPEC,
    CONNECTION_SPEC,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.autoscaler import (
    GUARDS,
    run_autoscaler,
)

TARGET_SPEC = {
    "kind": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "api_version": {"type": "str"},
    "plural": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            "state": {"type": "str", "choices": ["present", "restored", "expired"], "default": "present"},
            "name": {"type": "str", "required": True},
            "target": {"type": "dict", "options": TARGET_SPEC},
            "min_replicas": {"type": "int"},
            "max_replicas": {"type": "int"},
            "metrics": {"type": "list", "elements": "dict"},
            "behavior": {"type": "dict"},
            "scale_down_utilisation": {"type": "int", "aliases": ["scale_down_utilization"]},
            "until": {"type": "str"},
            "save_before": {"type": "bool", "default": False},
            "saved_by": {"type": "str", "choices": ["any", "window"], "default": "any"},
            "allow_scale_down": {"type": "bool", "default": False},
            "connection_budget": {"type": "dict", "options": CONNECTION_BUDGET_SPEC},
            "guards": {
                "type": "list",
                "elements": "str",
                "choices": list(GUARDS),
                "default": ["keda", "gitops", "quota"],
            },
        },
        supports_check_mode=True,
    )
    run_module(module, run_autoscaler)


if __name__ == "__main__":
    main()
