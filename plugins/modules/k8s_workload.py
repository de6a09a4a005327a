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
  - Brings workloads of one namespace, in tiers, to V(stopped) or V(running).
  - Stopping is one patch for each object, which sets its replicas to 0 and at the same time saves in its annotation
    C(lowtide.ops/stopped) how many there were, when, and which run it was. So any later run, on any controller, or a
    person with C(kubectl), can restore it.
  - A CronJob is suspended, and the Jobs that it has started are waited for. Of the runs that it misses meanwhile the
    last one starts at once when the CronJob is resumed, unless its C(startingDeadlineSeconds) are over by then; without
    that field it always does.
  - A Job is suspended. Its pods are deleted then, and when it is resumed their work starts over; what has succeeded
    counts. A Job that has ended is left as it is.
  - Starting restores what was saved and removes the annotation, in one patch.
  - Everything is read once and planned, and what must be refused is refused, before the first write. Then the tiers
    follow each other, in their order to start and in exactly the reverse order to stop. The next tier begins when the
    one before is done.
  - A tier is done when its pods are gone, terminating ones included, or when as many as declared are up to date and
    serve. That is waited for also when nothing had to be changed.
  - Workloads of other APIs that have the subresource C(scale) (O(workloads[].api_version)), such as a C(Rollout), are
    stopped and started by their C(spec.replicas) in the same way. How many serve is what their status says
    (C(readyReplicas) or C(availableReplicas)), otherwise their pods are counted, which are those that they own, also
    through what was read of theirs (ReplicaSets), or that their selector selects and nothing known owns. Each costs two
    more reads.
  - Before the first patch the server is asked for the rights that the run needs (one access review for each, a
    C(SelfSubjectAccessReview)), and each patch is tried as a dry run, so that what an admission webhook or a lacking
    right would refuse half way is refused before anything is changed. In check mode, which sends no patch at all, the
    right to C(patch) is asked for instead.
  - Up to the first patch, a stop of one StatefulSet takes three reads (the workload, and one for each of the guards
    V(hpa) and V(keda)), one access review and one dry run, and one more request for O(cluster_uid). Each further kind
    of workload costs a read and each further object a dry run. A start looks at HPAs and ScaledObjects whatever
    O(guards) are.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  state:
    description: What the workloads should be.
    type: str
    required: true
    choices: [stopped, running]
  workloads:
    description:
      - The workloads, as one tier. All of them are changed before any is waited for.
      - An entry may be what M(lowtide.ops.k8s_workload_info) returns for a workload. Only its API, kind and name are
        used then, and its namespace must be that of O(namespace).
      - Exactly one of O(workloads) and O(tiers) is given.
    type: list
    elements: dict
    suboptions:
      kind:
        description:
          - What kind of workload it is, V(StatefulSet), V(Deployment), V(CronJob) or V(Job), or another one with
            O(workloads[].api_version).
          - A DaemonSet is refused, since it has no number of replicas.
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
      replicas:
        description:
          - With O(state=running), this many replicas instead of what there was before; at least 1.
          - A workload that runs with more stays as it is, since a start lowers nothing.
          - It is needed for a workload that another client scaled to 0, since nothing says how many there were. Not
            used for a CronJob.
        type: int
      namespace:
        description: Of M(lowtide.ops.k8s_workload_info). It must be that of the option O(namespace).
        type: str
      pods:
        description: Of M(lowtide.ops.k8s_workload_info). Ignored.
        type: raw
      ready:
        description: Of M(lowtide.ops.k8s_workload_info). Ignored.
        type: raw
      status:
        description: Of M(lowtide.ops.k8s_workload_info). With it, RV(ignore:replicas) of the same entry is ignored.
        type: raw
      detail:
        description: Of M(lowtide.ops.k8s_workload_info). Ignored.
        type: raw
      stopped_by_lowtide:
        description: Of M(lowtide.ops.k8s_workload_info). Ignored.
        type: raw
      stale_saved_state:
        description: Of M(lowtide.ops.k8s_workload_info). Ignored.
        type: raw
      problem:
        description: Of M(lowtide.ops.k8s_workload_info). Ignored.
        type: raw
  tiers:
    description:
      - The tiers in the order in which they start, each a list of workloads with the same keys as an entry of
        O(workloads). With O(state=stopped) the last tier comes first.
      - A flat list of workloads is one tier.
    type: list
    elements: raw
  timeout:
    description:
      - Seconds that each tier may take, and that reading may take before the first. Running again after a timeout goes
        on waiting.
    type: float
    default: 300.0
  on_missing_state:
    description:
      - What to do, with O(state=running), about a workload that is stopped, on which nothing was saved, and for which
        no replicas are given. Another client stopped it, and nothing says whether it is meant to run.
      - One that an autoscaler holds at 0, as KEDA does while nothing triggers it, is not stopped. It stays as it is.
      - With V(fail) nothing is written, and the message names it.
      - With V(report) it stays as it is and is in RV(blockers), and all others are started.
    type: str
    choices: [fail, report]
    default: fail
  saved_by:
    description:
      - With O(state=running), whose stops are taken back.
      - With V(window) only those of windows. A run that is no window, such as the playbook C(lowtide.ops.shutdown),
        stopped a workload on purpose. It stays as it is, whatever O(workloads[].replicas) says, and is in RV(blockers);
        so does a ScaledObject that such a run has paused.
      - A run is a window if its O(run_id) contains C(@), as the variable C(window_id) does.
    type: str
    choices: [any, window]
    default: any
  guards:
    description:
      - What is looked at before a change. V(hpa) and V(keda) cost one request each, V(gitops) none.
      - They refuse a stop that an autoscaler or a GitOps tool would undo. An HPA with a minimum of 1 or more rests
        while its workload has 0 replicas, so it is no obstacle.
      - They never refuse a start, since it is the way back. Whatever they are, it looks at HPAs and ScaledObjects, and
        accepts the number of replicas to which an autoscaler moves the workload meanwhile.
    type: list
    elements: str
    choices: [hpa, keda, gitops]
    default: [hpa, keda, gitops]
  autoscaler:
    description:
      - What to do with a KEDA ScaledObject, which would start pods again.
      - With V(refuse) nothing is written, and the message names it.
      - With V(pause) its annotation C(autoscaling.keda.sh/paused-replicas) becomes V(0), and what it was is saved;
        starting puts that back, whatever this option is then.
      - Where KEDA publishes the condition C(Paused) (2.11 and later), a stop waits until KEDA has acted on the pause before
        it scales, for half of O(timeout) at most, and no longer than the C(pollingInterval) of the ScaledObject and 10
        seconds. Then it goes on with a warning.
      - An HPA that KEDA has made is never written; it is one with its ScaledObject.
    type: str
    choices: [refuse, pause]
    default: refuse
  allow_volume_deletion:
    description:
      - Whether a StatefulSet may be scaled down whose C(persistentVolumeClaimRetentionPolicy.whenScaled) is C(Delete), so
        that its controller deletes the volume claims of the pods that go, with their data.
      - With V(false) nothing is written, and the message names the claims. With V(true) the plan says that the step
        cannot be reversed.
    type: bool
    default: false
  assume:
    description:
      - For a rehearsal in check mode, where an earlier step would have stopped the workloads. They are taken for
        stopped, with the replicas that they have now saved on them.
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

- name: Stop three tiers, the API first and the database last
  lowtide.ops.k8s_workload:
    state: stopped
    namespace: shop
    tiers:
      - [{kind: StatefulSet, name: database}]
      - [{kind: StatefulSet, name: order-consumer}, {kind: CronJob, name: report}]
      - [{kind: Deployment, name: api}]
    timeout: 120

- name: Stop a Rollout of Argo
  lowtide.ops.k8s_workload:
    state: stopped
    namespace: shop
    workloads:
      - {api_version: argoproj.io/v1alpha1, kind: Rollout, name: web}

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
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "stopped StatefulSet shop/order-consumer (3 replicas), Deployment shop/api (2 replicas)"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "StatefulSet shop/order-consumer: stopped, 0 pods left; asked to be stopped"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
workloads:
  description: The workloads of all tiers as last seen, in the order in which they are changed.
  returned: when the workloads were read
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
reasons:
  description: For each workload why it is changed, or why not.
  returned: when the workloads were read
  type: dict
  sample: {StatefulSet/feature-worker: "had 3 when run 20260101T000000Z stopped it at 2026-01-01T00:00:00Z"}
run_id:
  description: The run's name, as it is left in what was saved on the objects.
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
  description:
    - The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused), that is, before
      this run changed anything.
  returned: failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import ACTING_SPEC, CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.workload import run_workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.tiers import INFO_KEYS

WORKLOAD: dict[str, dict[str, t.Any]] = {
    "kind": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "api_version": {"type": "str"},
    "plural": {"type": "str"},
    "replicas": {"type": "int"},
    **{key: {"type": "raw"} for key in INFO_KEYS},
    "namespace": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            "state": {"type": "str", "required": True, "choices": ["stopped", "running"]},
            "workloads": {"type": "list", "elements": "dict", "options": WORKLOAD},
            "tiers": {"type": "list", "elements": "raw"},
            "on_missing_state": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
            "saved_by": {"type": "str", "choices": ["any", "window"], "default": "any"},
            "guards": {
                "type": "list",
                "elements": "str",
                "choices": ["hpa", "keda", "gitops"],
                "default": ["hpa", "keda", "gitops"],
            },
            "autoscaler": {"type": "str", "choices": ["refuse", "pause"], "default": "refuse"},
            "allow_volume_deletion": {"type": "bool", "default": False},
            "assume": {"type": "str", "choices": ["stopped"]},
        },
        required_one_of=[("workloads", "tiers")],
        mutually_exclusive=[("workloads", "tiers")],
        supports_check_mode=True,
    )
    run_module(module, run_workload)


if __name__ == "__main__":
    main()
