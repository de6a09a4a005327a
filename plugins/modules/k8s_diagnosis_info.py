#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_diagnosis_info
short_description: Why a workload does not do what it is there for, with the evidence, saved before anything is changed
version_added: 0.1.0
description:
  - Reads a workload, its revisions, pods, events, logs (of all pods, the previous ones too), autoscaler, quotas, claims,
    nodes, Services with their EndpointSlices, and the keys of the ConfigMaps and Secrets that its pods use, and says the
    cause of what is wrong as RV(verdict), with RV(others) after it.
  - It only reads. What the account may not read is in RV(unreadable) and no error; the verdict rests on the rest then.
  - Every text in the result and in the saved files is redacted. Values of Secrets are read to be recognised there, and
    are in none of them. Where Secrets may not be read, secrets are recognised by names such as C(password=), and by
    their form.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  namespace:
    description: The namespace.
    type: str
    required: true
  kind:
    description: What kind of workload it is.
    type: str
    required: true
    choices: [Deployment, StatefulSet, DaemonSet]
  name:
    description: Its name. One that does not exist is a refusal, which names those that do.
    type: str
    required: true
  since:
    description:
      - For so many seconds back containers that ended, and probes that failed, count although all is well again.
      - What holds now counts however old it is.
    type: float
    default: 3600.0
  log_lines:
    description: Lines of each log that are read, from its end; 0 for no logs.
    type: int
    default: 40
  log_bytes:
    description: Bytes of each log at most.
    type: int
    default: 8192
  configuration:
    description:
      - Which variables containers must have, by C(env) or C(envFrom). Keys that a pod uses by reference are looked at
        without being named here.
      - A default that is in the image is not known here; do not name such a variable.
    type: list
    elements: dict
    default: []
    suboptions:
      container:
        description: The container.
        type: str
        required: true
      required:
        description: Names of variables.
        type: list
        elements: str
        required: true
  consumer_group_state:
    description:
      - What M(lowtide.ops.rpk_group_info) registered of the groups that the workload's pods are members of.
      - A group that has no members, that rebalances, or of which partitions have no member is part of the verdict.
    type: dict
  observations:
    description: Values that were measured elsewhere, each with its limit.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is, for the verdict.
        type: str
        required: true
      value:
        description: A number. Null or an empty text is a value that could not be measured, which is never below a limit.
        type: raw
        required: true
      limit:
        description: Above it, it is part of the verdict.
        type: float
        required: true
  readings:
    description:
      - What each pod of the workload is asked for through the API server's pod proxy, a metric in Prometheus' text format.
      - Each sample is judged. One beyond its bounds is the verdict V(observation_above_limit) or
        V(observation_below_minimum), with the reading's name as its object and pod, sample and value in its message.
      - A pod that does not answer, or not with that metric, is the finding V(reading_missing), and the workload is then
        not called healthy.
      - A sidecar is asked at its own port, such as Envoy at 15090, so it matters neither which programs its image has nor
        which container is the first. The program has to listen on the pod's address, not only on C(127.0.0.1).
      - The account needs C(get) of C(pods/proxy) only with this option; the Role C(lowtide-diagnosis-readings) has it.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is, for the verdict.
        type: str
        required: true
      port:
        description: The number of the port, or its name in the pod.
        type: str
        required: true
      path:
        description: The path that is asked for.
        type: str
        default: /metrics
      scheme:
        description: How the pod is asked. The API server does not check its certificate.
        type: str
        choices: [http, https]
        default: http
      metric:
        description:
          - The name of the metric, and labels that its samples must have, as the pod writes them.
          - For example C(envoy_cluster_upstream_rq_active{cluster_name="db"}).
        type: str
        required: true
      limit:
        description: No sample may be above it. At least one of O(readings[].limit) and O(readings[].min) is needed.
        type: float
      min:
        description: No sample may be below it.
        type: float
  evidence_folder:
    description:
      - A folder on the host of the task where everything that was read is saved, in a folder of its own for each run
        that only its owner can read. It is never overwritten, and nothing removes it.
      - C(index.json) in it has the sha256 of each file; a folder without it is of a run that was killed.
      - In check mode nothing is saved. A saved folder is no change (RV(ignore:changed) stays false).
      - In the container of a job of AWX it has to be on a volume. Another folder would end with the job, and is refused.
    type: path
  timeout:
    description: Seconds that the whole module may take; logs may take 10 s more.
    type: float
    default: 60.0
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
seealso:
  - module: lowtide.ops.rpk_group_info
"""

EXAMPLES = r"""
- name: Find out why the workers do not work, and keep what proves it
  lowtide.ops.k8s_diagnosis_info:
    namespace: feature-system
    kind: StatefulSet
    name: feature-worker
    configuration:
      - {container: worker, required: [DATABASE_URL, BROKERS]}
    readings:
      - name: requests waiting in Envoy
        port: "15090"
        path: /stats/prometheus
        metric: envoy_cluster_upstream_rq_pending_active
        limit: 20
    evidence_folder: /var/lib/lowtide/evidence
  register: diagnosis

- name: Say it
  ansible.builtin.debug:
    var: diagnosis.verdict
"""

RETURN = r"""
summary:
  description:
    - One line with the verdict and the number of other findings.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "oom_killed: Pod shop/worker-0: container worker was OOM killed at its memory limit of 512Mi (4 restarts)"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "StatefulSet shop/worker: 1 of 2 replicas ready"
check_mode:
  description: Whether this was a rehearsal in check mode. It reads as it would otherwise, and saves nothing.
  returned: always
  type: bool
  sample: false
verdict:
  description: The cause.
  returned: success
  type: dict
  contains:
    reason:
      description:
        - C(scaled_to_zero), C(missing_configuration), C(node_not_ready), C(claim_pending), C(quota), C(image_pull),
          C(oom_killed), C(probe_failing), C(crash_loop), C(unschedulable), C(terminating) (a pod that is still there after
          its grace period), C(group_not_consuming), C(observation_above_limit), C(observation_below_minimum),
          C(rollout_stuck), C(evicted), C(no_endpoints), C(not_ready) (nothing that was read says why), C(reading_missing)
          (a pod did not answer for O(readings)), C(unknown) (pods, Services or EndpointSlices, or what O(configuration)
          asks for, could not be read, so that nobody can call it healthy), or C(healthy).
        - This is their order too, what may be the cause before what it causes. What holds now comes before what is over.
      type: str
    object:
      description: The object. Of pods that fail alike it is the first, and the message counts the others.
      type: str
    container:
      description: The container that it is about; null where it is about none.
      type: str
    message:
      description: What is so.
      type: str
    since:
      description: Since when, or when it happened last; null where nothing says so.
      type: str
    next_step:
      description: What to do about it.
      type: str
    evidence:
      description: Lines that prove it, the last ones of a container's previous log among them.
      type: list
      elements: str
    current:
      description: Whether it holds now. A container that was killed and runs well again is not.
      type: bool
others:
  description: The other findings, in the same form and order.
  returned: success
  type: list
  elements: dict
workload:
  description: The workload as M(lowtide.ops.k8s_workload_info) describes it.
  returned: success
  type: dict
containers:
  description: The containers of its newest pods, init containers first, each with name, image, requests and limits.
  returned: success
  type: list
  elements: dict
pods:
  description: Its pods that have not ended, each with name, node, phase, ready, revision and restarts.
  returned: success
  type: list
  elements: dict
revisions:
  description: Its revisions, newest first, each with revision, name, created and images.
  returned: success
  type: list
  elements: dict
last_changes:
  description:
    - When its pods were restarted on purpose (restarted_at), who wrote its replicas and when (replicas_by, replicas_at),
      and what the role diagnose did last (fixed, with fix, reason, at and run).
    - Restarts and fixes of earlier revisions count, since a fix that failed has been undone.
  returned: success
  type: dict
events:
  description: The events about all of that, oldest first.
  returned: success
  type: list
  elements: str
logs:
  description:
    - The ends of the logs of each container that failed or whose pod is not ready; where there is none, of all. Each
      has pod, container, previous (of the container before its last restart), text, truncated, and the reason why there
      is nothing.
  returned: success
  type: list
  elements: dict
readings:
  description:
    - What each pod answered for each of O(readings), with name, pod, container (that declares the port, or null), samples
      (at most 5, those beyond the bounds first, each with series and value, which is null for an infinite one), count and problem (why there is none).
  returned: success
  type: list
  elements: dict
services:
  description: The Services that select its pods.
  returned: success
  type: list
  elements: str
unreadable:
  description: What could not be read, with the right to grant.
  returned: success
  type: list
  elements: str
evidence_path:
  description: The folder of this run in O(evidence_folder), null where nothing was saved.
  returned: success
  type: str
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
  description: Empty. What stands in the way of the workload is in RV(verdict).
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
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.diagnosis_info import read_diagnosis

CONFIGURATION = {
    "container": {"type": "str", "required": True},
    "required": {"type": "list", "elements": "str", "required": True},
}
OBSERVATION = {
    "name": {"type": "str", "required": True},
    "value": {"type": "raw", "required": True},
    "limit": {"type": "float", "required": True},
}
READING = {
    "name": {"type": "str", "required": True},
    "port": {"type": "str", "required": True},
    "path": {"type": "str", "default": "/metrics"},
    "scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    "metric": {"type": "str", "required": True},
    "limit": {"type": "float"},
    "min": {"type": "float"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "namespace": {"type": "str", "required": True},
            "kind": {"type": "str", "required": True, "choices": ["Deployment", "StatefulSet", "DaemonSet"]},
            "name": {"type": "str", "required": True},
            "since": {"type": "float", "default": 3600.0},
            "log_lines": {"type": "int", "default": 40},
            "log_bytes": {"type": "int", "default": 8192},
            "configuration": {"type": "list", "elements": "dict", "default": [], "options": CONFIGURATION},
            "consumer_group_state": {"type": "dict"},
            "observations": {"type": "list", "elements": "dict", "default": [], "options": OBSERVATION},
            "readings": {"type": "list", "elements": "dict", "default": [], "options": READING},
            "evidence_folder": {"type": "path"},
            "timeout": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    run_module(module, read_diagnosis)


if __name__ == "__main__":
    main()
