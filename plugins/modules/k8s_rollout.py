#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_rollout
short_description: Bring a workload to a pod template, or to an earlier revision, and put back what there was if it fails
version_added: 0.1.0
description:
  - Declares the image, variables, amounts or annotations of the pods of one Deployment, StatefulSet or DaemonSet, or one
    of its revisions. What is not named stays as it is.
  - The change is one patch, which tests that the pod template is still what was decided about, and at the same time
    saves in the annotation C(lowtide.ops/rollout) which revision there was, which run changed it, and when.
  - It then waits until all pods are of the new template and serve, as the controller says of the generation that was
    written, so that nothing that was true of the old pods counts.
  - A failure is named by its cause (image, crash loop with the last lines of the crashed container, memory, no node with
    room, quota, probe, progress deadline), of pods of the new template only. Then the recorded revision is put back,
    by the very template of its ReplicaSet or ControllerRevision as C(kubectl rollout undo) does, and waited for. Of a
    StatefulSet, pods of other revisions that are not ready are deleted, since it might wait for them for ever. The
    module fails all the same, and says that the earlier revision serves again.
  - The recorded revision is the newest one that serves, which is not that of the pod template where a person has broken
    it. Of a StatefulSet that is between two revisions it is the one that was complete (C(status.currentRevision)).
  - A pod of a DaemonSet on a node whose kubelet does not report fails nothing. It is a warning and stands in the summary,
    and it gets the new revision when the node is back. Where so many nodes do not report that the DaemonSet's controller
    replaces no pod elsewhere (C(maxUnavailable)), the rollout is refused, and one that this happens to is not undone.
  - Nothing is undone where another run or client has changed the pod template since, and nothing further is changed
    where the undo fails as well. The message has the commands for a person then.
  - A run that was cut off is gone on with by the next one with the same declaration. One with another declaration still
    goes back to the last revision that was complete.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  state:
    description:
      - With V(present) the workload is brought to what is declared.
      - With V(expired) every temporary change of it whose O(until) has come is taken back, and nothing else. A value that
        somebody has set since stays.
      - With V(undone) the revision is put back that there was before the run O(run_id) rolled something out, with the
        partition and the temporary changes of then. Nothing is done where another run has rolled out something since, where
        another client has changed the pod template (also where that is the same again), or where it was undone already. What
        O(guards) find is a warning. It needs O(run_id).
    type: str
    choices: [present, expired, undone]
    default: present
  kind:
    description: What kind of workload it is.
    type: str
    required: true
    choices: [Deployment, StatefulSet, DaemonSet]
  name:
    description: Its name.
    type: str
    required: true
  containers:
    description: What containers should have. Init containers are named here too.
    type: list
    elements: dict
    suboptions:
      name:
        description: The name of the container. One that does not exist is refused.
        type: str
        required: true
      image:
        description:
          - Its image. With a digest (C(name@sha256:...)) every new pod has to ask for that very digest, which its
            container runtime verifies; an image that the node shows under another one is a warning.
        type: str
      env:
        description:
          - Variables by name. A null removes one. A variable that was read from a Secret or ConfigMap becomes this value.
          - Values are shown by anybody who may read the workload. Keep secrets in a Secret.
        type: dict
      resources:
        description: What it requests and is limited to. What is not named stays, and a null removes an amount.
        type: dict
        suboptions:
          requests:
            description: Amounts by resource.
            type: dict
          limits:
            description: Amounts by resource. None may be below its request.
            type: dict
  image:
    description: The image, where pods have exactly one container beside init containers.
    type: str
  pod_annotations:
    description: Annotations of the pods. A null removes one.
    type: dict
  restarted_after:
    description:
      - A moment as in RFC 3339. If a pod is older, all pods are replaced, as C(kubectl rollout restart) does.
    type: str
  revision:
    description:
      - The number of an earlier revision, which is brought back with its whole template.
      - V(previous) is refused, since it means another revision at each run. The message has the number.
    type: str
  partition:
    description:
      - So many pods with the lowest ordinals of a StatefulSet stay as they are (canary). It is done when all others are
        new and serve. A later run with V(0) replaces the rest, and goes back to the first revision if that fails.
      - Without it the StatefulSet's own partition stays.
    type: int
  until:
    description:
      - When the change ends, as in RFC 3339. O(state=expired) takes it back then.
      - Only values of O(containers), O(image) and O(pod_annotations) can be temporary. A later declaration of the same value
        without O(until) makes it last.
    type: str
  serve_seconds:
    description:
      - For so long all pods have to serve without a break before a rollout counts as done, since a container that crashes
        after its start is ready for a moment where it has no readiness probe. So do pods that another client's rollout has
        not made ready yet.
      - The workload's own C(minReadySeconds) count beside it. Where all pods serve and nothing is changed nothing is waited for.
    type: float
    default: 5.0
  on_failure:
    description:
      - With V(undo) the recorded revision is put back, with V(stop) everything is left as it is.
      - That O(timeout) is over, without a pod more of the new revision that serves, is a failure too.
    type: str
    choices: [undo, stop]
    default: undo
  schema_version:
    description:
      - The version of the database's schema as it is now. A template says in its annotation
        C(lowtide.ops/schema-versions) with which it works, such as V(42) or V(40-42).
      - A change, or an undo, to a template that does not work with it is refused, and so is one to a template that says
        so where this option is missing, or says nothing where it is given.
    type: int
  guards:
    description:
      - What is looked at before the template is changed.
      - V(gitops) refuses where a GitOps tool or an operator would put the template back, and where a Canary of Flagger
        (C(spec.targetRef)) or a Rollout of Argo (C(spec.workloadRef)) rolls the workload out. Those that this account may
        not read are a warning. A GitOps tool leaves the annotation of a mere restart (O(restarted_after)) alone.
      - V(quota) refuses where ResourceQuotas or LimitRanges leave no room for the new pods.
      - V(capacity) refuses where no node has room for a new pod. It needs the rights to list nodes, and pods of all
        namespaces.
      - V(hpa) warns where an HPA is at its maximum, or measures a share of requests that change.
      - Whatever they are, a limit below its request, and a Java heap or C(GOMEMLIMIT) above the memory limit, are refused.
    type: list
    elements: str
    choices: [gitops, hpa, quota, capacity]
    default: [gitops, hpa, quota]
  timeout:
    description:
      - Seconds without progress after which the rollout has failed, and so of an undo. Each pod of the new revision that
        becomes ready, or available, gives the whole time again, so that a rollout of many pods that goes on is not undone.
      - What was ready before and is again is no progress, so that the number of pods bounds the whole time.
    type: float
    default: 300.0
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
    details:
      - Values of variables are not shown.
  idempotent:
    support: full
seealso:
  - module: lowtide.ops.k8s_workload
"""

EXAMPLES = r"""
- name: Bring the API to its next image, and back if that does not serve
  lowtide.ops.k8s_rollout:
    namespace: shop
    kind: Deployment
    name: api
    containers:
      - name: api
        image: registry.example.org/api:2.4.1
        env:
          FEATURE_CHECKOUT: "on"
          OLD_SWITCH: null

- name: Give the workers more memory until Monday
  lowtide.ops.k8s_rollout:
    namespace: feature-system
    kind: StatefulSet
    name: feature-worker
    containers:
      - name: worker
        resources:
          requests: {memory: 1Gi}
          limits: {memory: 2Gi}
    until: "2026-05-04T06:00:00Z"

- name: Take back what has ended
  lowtide.ops.k8s_rollout:
    namespace: feature-system
    kind: StatefulSet
    name: feature-worker
    state: expired

- name: Try the new image on the last of four workers
  lowtide.ops.k8s_rollout:
    namespace: feature-system
    kind: StatefulSet
    name: feature-worker
    image: registry.example.org/worker@sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b
    partition: 3

- name: Go back to a revision that works with the schema as it is
  lowtide.ops.k8s_rollout:
    namespace: shop
    kind: Deployment
    name: api
    revision: "7"
    schema_version: 41
"""

RETURN = r"""
summary:
  description: One line that says what was rolled out, would be in check mode, or was found or undone.
  returned: always
  type: str
  sample: "rolled out Deployment shop/api: api: image api:1 -> api:2; revision 8 serves with 3 replicas"
evidence:
  description: Short lines that prove the summary, among them what each container really runs.
  returned: always
  type: list
  elements: str
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
revision:
  description: Numbers of the revision C(before) and C(after) this run.
  returned: when the workload was read
  type: dict
  sample: {before: 7, after: 8}
workload:
  description:
    - Its C(title) in messages, how many C(replicas) it has, the C(partition) of a StatefulSet, and C(run_id) of the run of this module that wrote the
      pod template as it is, empty where that was somebody else. In check mode all as it is.
  returned: when the workload was read
  type: dict
  sample: {title: StatefulSet shop/worker, replicas: 4, partition: 0, run_id: "release-7"}
revisions:
  description: All revisions that there are, newest first, with C(number), C(name), C(images) and C(created).
  returned: when the workload was read
  type: list
  elements: dict
images:
  description: The image of each container by its name.
  returned: when the workload was read
  type: dict
  sample: {api: "api:2"}
pods:
  description: What each container of each new pod really runs, with C(pod), C(container), C(image) and C(image_id).
  returned: when the workload was read
  type: list
  elements: dict
temporary:
  description: The temporary changes that are in force, with C(until) and C(what).
  returned: when the workload was read
  type: list
  elements: dict
rolled_back:
  description: Whether the rollout failed and the earlier revision serves again.
  returned: always
  type: bool
cause:
  description:
    - Why the rollout failed, with C(reason), C(object), C(message), C(next_step), C(container), and in C(log) the last
      lines of a container that crashed. Null where nothing failed.
  returned: always
  type: dict
run_id:
  description: The run's name, as it is left in what was saved on the object.
  returned: when the cluster was reached
  type: str
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: What is changed (in check mode, would be), and why. C(reversible) says whether a failure can be undone.
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
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.rollout import run_rollout

AMOUNTS: dict[str, dict[str, t.Any]] = {"requests": {"type": "dict"}, "limits": {"type": "dict"}}
CONTAINER: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "image": {"type": "str"},
    "env": {"type": "dict"},
    "resources": {"type": "dict", "options": AMOUNTS},
}
WHOLE = ("containers", "image", "pod_annotations", "restarted_after", "until")
"""A revision brings its whole template, so that none of these stands beside it."""


def main() -> None:
    guards = ["gitops", "hpa", "quota"]
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            "state": {"type": "str", "choices": ["present", "expired", "undone"], "default": "present"},
            "kind": {"type": "str", "required": True, "choices": ["Deployment", "StatefulSet", "DaemonSet"]},
            "name": {"type": "str", "required": True},
            "containers": {"type": "list", "elements": "dict", "options": CONTAINER},
            "image": {"type": "str"},
            "pod_annotations": {"type": "dict"},
            "restarted_after": {"type": "str"},
            "revision": {"type": "str"},
            "partition": {"type": "int"},
            "until": {"type": "str"},
            "serve_seconds": {"type": "float", "default": 5.0},
            "on_failure": {"type": "str", "choices": ["undo", "stop"], "default": "undo"},
            "schema_version": {"type": "int"},
            "guards": {"type": "list", "elements": "str", "choices": [*guards, "capacity"], "default": guards},
        },
        mutually_exclusive=[("revision", name) for name in WHOLE],
        required_if=[("state", "undone", ["run_id"])],
        supports_check_mode=True,
    )
    run_module(module, run_rollout)


if __name__ == "__main__":
    main()
