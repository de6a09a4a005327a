#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_workload
short_description: Stop workloads so that anybody can restore them, and start them as they were
version_added: 0.1.0
description:
  - Brings a tier of workloads of one namespace, treated alike, to V(stopped) or V(running).
  - Stopping is one patch for each object, which sets its replicas to 0 and at the same time notes in its annotation
    C(lowtide.ops/stopped) how many there were, when, and which run it was. So any later run, on any controller, or a person
    with C(kubectl), can restore it. A CronJob is suspended.
  - Starting restores what the note says and removes it, in one patch.
  - It waits until the pods are gone, terminating ones included, or until as many as wanted are up to date and serve, also
    when nothing had to be changed.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  state:
    description: What the workloads should be.
    type: str
    required: true
    choices: [stopped, running]
  workloads:
    description: The workloads. All are changed before any is waited for.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description: What kind of workload it is.
        type: str
        required: true
        choices: [StatefulSet, Deployment, CronJob]
      name:
        description: Its name.
        type: str
        required: true
      replicas:
        description:
          - With O(state=running), this many replicas instead of what there was before.
          - It is needed for a workload that somebody else scaled to 0, since nobody knows how many there were; without it such
            a workload is a refusal. Not used for a CronJob.
        type: int
  guards:
    description:
      - What is looked at before a change. V(hpa) and V(keda) cost one request each, V(gitops) none.
      - An HPA with a minimum of 1 or more rests while its workload has 0 replicas, so it stands in nobody's way.
    type: list
    elements: str
    choices: [hpa, keda, gitops]
    default: [hpa, keda, gitops]
  autoscaler:
    description:
      - What to do with a KEDA ScaledObject, which would start pods again.
      - With V(refuse) nothing is written, and the message names it.
      - With V(freeze) its annotation C(autoscaling.keda.sh/paused-replicas) becomes V(0), with a note of what it was; starting
        puts that back, whatever this option is then.
    type: str
    choices: [refuse, freeze]
    default: refuse
  assume:
    description:
      - For a rehearsal in check mode, where an earlier step would have stopped the workloads. They are taken for stopped, with
        the replicas that they have now noted on them.
      - Outside check mode it is refused.
    type: str
    choices: [stopped]
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
  - lowtide.ops._kubernetes.acting
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
  - module: lowtide.ops.k8s_workload_info
"""

EXAMPLES = r"""
- name: Stop the workers
  lowtide.ops.k8s_workload:
    state: stopped
    namespace: feature-system
    workloads:
      - {kind: StatefulSet, name: feature-worker}

- name: Start them as they were
  lowtide.ops.k8s_workload:
    state: running
    namespace: feature-system
    workloads:
      - {kind: StatefulSet, name: feature-worker}

- name: Predict that start in a rehearsal, in which nothing was stopped
  lowtide.ops.k8s_workload:
    state: running
    namespace: feature-system
    workloads:
      - {kind: StatefulSet, name: feature-worker}
    assume: stopped
  check_mode: true
"""

RETURN = r"""
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
workloads:
  description: The workloads as last seen.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: The kind.
      type: str
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
    settled:
      description: Whether exactly as many pods as asked for are up to date and serve.
      type: bool
    stopped_by_us:
      description: The note of the run that stopped it (C(run), C(since), and what there was), while it is stopped.
      type: dict
    stale_note:
      description: Such a note on a workload that runs again; somebody else has started it.
      type: dict
    problem:
      description: Why the note on it cannot be understood.
      type: str
reasons:
  description: For each workload why it is changed, or why not.
  returned: when the workloads were read
  type: dict
  sample: {StatefulSet/feature-worker: "had 3 when run 20260101T000000Z stopped it at 2026-01-01T00:00:00Z"}
run_id:
  description: The run's name, as it is left in the note and the field manager.
  returned: when the cluster was reached
  type: str
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: What is changed (in check mode, would be), and why.
  returned: always
  type: list
  elements: dict
blockers:
  description: What stands in the way, who holds it, and what to do about it.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused) before any write.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.connection import ACTING_SPEC, CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.workloads import KINDS, run_workloads

WORKLOAD = {
    "kind": {"type": "str", "required": True, "choices": list(KINDS)},
    "name": {"type": "str", "required": True},
    "replicas": {"type": "int"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            "state": {"type": "str", "required": True, "choices": ["stopped", "running"]},
            "workloads": {"type": "list", "elements": "dict", "required": True, "options": WORKLOAD},
            "guards": {
                "type": "list",
                "elements": "str",
                "choices": ["hpa", "keda", "gitops"],
                "default": ["hpa", "keda", "gitops"],
            },
            "autoscaler": {"type": "str", "choices": ["refuse", "freeze"], "default": "refuse"},
            "assume": {"type": "str", "choices": ["stopped"]},
        },
        supports_check_mode=True,
    )
    run_module(module, run_workloads)


if __name__ == "__main__":
    main()
