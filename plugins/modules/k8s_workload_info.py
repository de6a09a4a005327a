#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_workload_info
short_description: What runs in a namespace, and what was left stopped, since when and by which run
version_added: 0.1.0
description:
  - Lists the StatefulSets, Deployments and CronJobs of a namespace, or the workloads that are named, Jobs among them,
    with what M(lowtide.ops.k8s_workload) saved on those that it has stopped.
  - Workloads of other APIs are read where they are named. One whose status says neither C(readyReplicas) nor
    C(availableReplicas) counts as not ready, since no pods are read.
  - With RV(stopped_by_lowtide) a playbook can put back whatever was left stopped.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  namespace:
    description:
      - The namespace.
      - Without it nothing but RV(cluster_uid) is read, which needs the right to C(get) the namespace C(kube-system).
    type: str
  workloads:
    description: Only these; without it all of the namespace. One that does not exist is a refusal.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description:
          - What kind of workload it is, V(StatefulSet), V(Deployment), V(CronJob), V(Job) or V(DaemonSet), or another one
            with O(workloads[].api_version).
        type: str
        required: true
      name:
        description: Its name.
        type: str
        required: true
      api_version:
        description:
          - The API of another kind, as the object has it (C(GROUP/VERSION)), such as C(argoproj.io/v1alpha1) for a C(Rollout).
          - The kind needs the subresource C(scale), with its replicas at C(spec.replicas).
        type: str
      plural:
        description:
          - With O(workloads[].api_version), the plural of that kind, as in paths and access rules, such as C(rollouts).
          - Without it, it is found by one request for what the API serves.
        type: str
  timeout:
    description: Seconds that the whole module may take.
    type: float
    default: 30.0
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
seealso:
  - module: lowtide.ops.k8s_workload
"""

EXAMPLES = r"""
- name: Look
  lowtide.ops.k8s_workload_info:
    namespace: feature-system
  register: seen

- name: Start what was left stopped
  lowtide.ops.k8s_workload:
    state: running
    namespace: feature-system
    workloads: "{{ seen.stopped_by_lowtide }}"
  when: seen.stopped_by_lowtide | length > 0
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "3 of 3 workloads as asked for"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "Deployment shop/api: 2 of 2 replicas ready"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
cluster_uid:
  description:
    - The identity of the cluster (the UID of its namespace kube-system), for O(cluster_uid).
    - Null where the account may not read it, unless nothing else was asked for.
  returned: success
  type: str
workloads:
  description: The workloads as seen.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: The kind.
      type: str
    api_version:
      description: The API of that kind.
      type: str
      sample: apps/v1
    name:
      description: The name.
      type: str
    namespace:
      description: The namespace.
      type: str
    replicas:
      description: How many replicas are asked for; for a CronJob 0 when it is suspended and 1 otherwise.
      type: int
    pods:
      description: How many pods its controller counts; for a CronJob, active jobs.
      type: int
    ready:
      description: How many pods serve.
      type: int
    status:
      description:
        - C(Current) if exactly as many pods as asked for are up to date and serve (of a stopped one, if none is counted
          any more), C(InProgress) if not yet, C(Failed) if that cannot become so by waiting.
      type: str
    detail:
      description: The numbers behind it.
      type: str
    stopped_by_lowtide:
      description: What the run that stopped it saved (C(run), C(since), and what there was), while it is stopped.
      type: dict
    stale_saved_state:
      description: Such a saved state that no longer counts, because another client has changed the workload since.
      type: dict
    problem:
      description: Why what was saved on it cannot be understood.
      type: str
stopped_by_lowtide:
  description: Those of RV(workloads) that M(lowtide.ops.k8s_workload) stopped and no client has changed since.
  returned: success
  type: list
  elements: dict
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: Empty, since it changes nothing.
  returned: always
  type: list
  elements: dict
  sample: []
blockers:
  description: Empty. A workload that is not as asked for is in RV(workloads).
  returned: always
  type: list
  elements: dict
  sample: []
waited:
  description: Seconds spent waiting; 0, since it waits for nothing.
  returned: always
  type: float
  sample: 0.0
error:
  description: The parts of the message (C(object), C(problem), C(next_step)).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload_info import read_workloads

WORKLOAD = {
    "kind": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "api_version": {"type": "str"},
    "plural": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "namespace": {"type": "str"},
            "workloads": {"type": "list", "elements": "dict", "default": [], "options": WORKLOAD},
            "timeout": {"type": "float", "default": 30.0},
        },
        supports_check_mode=True,
    )
    run_module(module, read_workloads)


if __name__ == "__main__":
    main()
