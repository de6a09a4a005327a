#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_job
short_description: Run a Kubernetes Job once, wait for its end, and keep its log
version_added: 0.1.0
description:
  - Runs a Job that is made from a CronJob, from a workload or from a template, under a name of its own, and waits until it is complete
    or has failed, whichever comes first.
  - O(key) tells one execution from others. A run that is cut off leaves the Job running, and the next run with the same
    key goes on waiting for it. Once the Job is complete, a run with this key changes nothing and returns its log again,
    for as long as Kubernetes keeps the Job (O(ttl_seconds)). Afterwards the key is unknown, and the Job runs again.
  - With O(lock), at most one Job of a lock runs at a time, whatever their keys and whoever runs them. The Job is created
    suspended and is started when its turn has come. The lock is kept by the Jobs themselves, and it is free when the Job
    has ended and none of its pods is left, so that nothing has to be unlocked after a run that was cut off.
  - The Job ends by itself (C(activeDeadlineSeconds)), and is removed by Kubernetes some time after its end
    (C(ttlSecondsAfterFinished)).
  - What waiting does not mend ends the wait early and is named, such as a wrong image name, a missing secret, or pods
    that a quota forbids. How often a pod may fail is said by the Job itself (C(backoffLimit)).
  - The ends of the logs of all its pods are returned, with passwords, tokens and keys redacted. Besides what looks like
    one, the values of the Secrets that the pods use are redacted, where this account may read them (C(get) on
    C(secrets) and C(configmaps)).
  - A pod of a Job that passes its deadline is deleted by Kubernetes, and with C(restartPolicy=OnFailure) also the pod of
    a Job that fails. Its log is read while the pod terminates; where that was too late, RV(evidence) says so. Without a
    C(restartPolicy), it is C(Never).
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  from_cronjob:
    description:
      - The CronJob whose C(jobTemplate) is run, with its labels and annotations, as C(kubectl create job --from) does it.
        The CronJob owns the Job. It may be suspended.
      - If its C(concurrencyPolicy) is C(Forbid), the Jobs that the CronJob has started itself are waited for first, and
        without O(lock) the Job gets the lock C(cronjob.NAME). The CronJob does not look at this Job, though, and may
        start the next one beside it. Where that must not happen, suspend it first (M(lowtide.ops.k8s_workload)).
      - Exactly one of O(from_cronjob), O(from_workload) and O(template) is given.
    type: str
  from_workload:
    description:
      - A command to run as a container of a workload would, with its image, environment, secrets and service account,
        such as a probe of what it connects to, or the migration that comes with its image.
      - The pod has none of the workload's labels, so that no Service sends it requests. Other containers, init
        containers, probes, and volumes with data (claims, C(hostPath)) are left out. It is not repeated when it fails.
    type: dict
    suboptions:
      kind:
        description: The kind of the workload.
        type: str
        required: true
        choices: [Deployment, StatefulSet]
      name:
        description: Its name.
        type: str
        required: true
      container:
        description: The container by its name, needed when there are several.
        type: str
      image:
        description: Another image than the container has, such as the one that is about to be rolled out.
        type: str
      command:
        description:
          - The program and its arguments. No shell is put around it, so that C($NAME) means nothing here; Kubernetes
            replaces V($(NAME\)) by a variable of the container.
          - A secret does not belong into it, since it is in the list of processes.
        type: list
        elements: str
        required: true
      args:
        description: Further arguments.
        type: list
        elements: str
  template:
    description:
      - The C(spec) of the Job, with the pod's spec in C(template), and for example C(backoffLimit).
      - A secret does not belong into it, where everybody sees it who may read Jobs. Name the Secret instead
        (C(valueFrom.secretKeyRef), C(envFrom), a volume), and let the program read it from there; an argument of a
        command is in the list of processes too.
      - A field that the server does not know is refused.
    type: dict
  name_prefix:
    description:
      - What the Job's name begins with; a digest follows.
      - Needed with O(template) and O(from_workload). Without it, the name of the CronJob.
    type: str
  labels:
    description: Labels of the Job, beside those of the CronJob's template.
    type: dict
  annotations:
    description: Annotations of the Job, beside those of the CronJob's template.
    type: dict
  key:
    description:
      - What this execution is for, such as the version of a migration or the start of a window. Together with
        O(name_prefix) it names the Job.
      - Without it, O(run_id) is the key, and without that each run starts another Job.
      - A Job with the same key that was made from another template is a refusal, since what is asked for now has not run.
    type: str
  on_failed:
    description:
      - What to do when the last Job with this key has failed.
      - With V(fail) nothing is started, and its log is returned once more. With V(again) another one is started, also
        from another template.
      - One whose work is done is not repeated with V(again) either. A plain sidecar, of the template or injected, may have
        kept its pod until Kubernetes failed the Job at its deadline. A run that sees it notes it on the Job, since the pod
        is deleted then.
      - Nor is one of which that cannot be told, as the pod had several containers and no run was there at the end. A
        person finds out, and deletes the Job if its work is not done; then the next run starts it again.
    type: str
    choices: [fail, again]
    default: fail
  lock:
    description:
      - The name of a lock. Jobs with the same one, in the same namespace, never run at the same time.
      - Nor do two pods of one Job; it gets C(podReplacementPolicy=Failed), so that a pod which is slow to end on a drained
        node is not replaced before it has ended (Kubernetes 1.28 and later; older servers drop the field). A
        C(parallelism) other than 1 is refused.
      - A Job with it that somebody suspends while it runs keeps the lock, since its work is half done.
    type: str
  lock_timeout:
    description:
      - Seconds to wait for the lock at most. With V(0) it is refused at once when another Job has it.
      - Then the Job, which has not run, is deleted again, and the message names who holds the lock.
      - A Job whose run was cut off before it started it is removed by the others a minute after its own time.
      - Without it, as long as O(timeout) lasts.
    type: float
  deadline:
    description:
      - Seconds that the Job may run until Kubernetes ends it. Time in which it waits for the lock does not count.
      - Without it, as the template says, and otherwise an hour.
      - A Job that exists keeps the one that it was made with.
    type: int
  ttl_seconds:
    description:
      - Seconds after its end until Kubernetes removes the Job and its pods, at least 60. Until then its key is known.
      - It takes the place of what the template says.
    type: int
    default: 86400
  log_lines:
    description: How many of the last lines of each log are kept.
    type: int
    default: 100
  log_bytes:
    description: How many bytes of each log are kept at most.
    type: int
    default: 65536
  log_file:
    description:
      - A file on the host where the module runs, usually the control host, for the logs. It is replaced, and only its
        owner may read it. Its folder must be there.
      - A file that has more of this Job's logs than can be read now, as its pods are gone, is left as it is, with a warning.
    type: path
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
  - lowtide.ops._kubernetes.acting
attributes:
  check_mode:
    support: full
    details:
      - Nothing is created and nothing is waited for. Without a key the name of the Job is not the one that it gets.
      - Who has the lock at that time is in RV(blockers).
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - With a key, by O(key) or O(run_id), and as long as the Job is kept. Without one each run starts a Job.
seealso:
  - module: lowtide.ops.k8s_workload
notes:
  - The rights in C(docs/kubernetes-rights.yml) for this module are asked for before the Job is created. C(delete)
    is needed with a lock only.
"""

EXAMPLES = r"""
- name: Clean up artifacts now, as the CronJob does every night
  lowtide.ops.k8s_job:
    namespace: shop
    from_cronjob: artifact-cleanup
    deadline: 1800
    timeout: 1900

- name: Migrate the database once for this release, never twice at a time
  lowtide.ops.k8s_job:
    namespace: shop
    name_prefix: migrate
    key: "schema-42"
    lock: schema
    deadline: 600
    timeout: 900
    log_file: "/var/log/maintenance/migrate-42.log"
    template:
      backoffLimit: 0
      template:
        spec:
          serviceAccountName: migrator
          containers:
            - name: migrate
              image: registry.example.org/shop@sha256:4b2f...
              command: [alembic, upgrade, head]
              envFrom:
                - secretRef: {name: shop-database}

- name: Ask the git server with the account, the secrets and the environment of the builders
  lowtide.ops.k8s_job:
    namespace: shop
    name_prefix: probe-git
    deadline: 60
    ttl_seconds: 600
    from_workload:
      kind: Deployment
      name: builder
      command: [git, ls-remote, https://git.example.org/shop.git]
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "Job shop/migrate-0a1b2c3d4e is complete after 12 s"
evidence:
  description: Short lines that prove the summary, the last lines of the logs among them.
  returned: always
  type: list
  elements: str
  sample:
    - "Job shop/migrate-0a1b2c3d4e: complete after 12 s (1 succeeded, 0 failed)"
    - "container migrate of Pod shop/migrate-0a1b2c3d4e-x7k2p ended with exit code 0"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
key:
  description: The key of the Job, also where it was made up since none was given.
  returned: when the options could be understood
  type: str
  sample: schema-42
job:
  description: The name of the Job.
  returned: when there is a Job, also on a failure
  type: str
  sample: migrate-0a1b2c3d4e
succeeded:
  description: How many of its pods have succeeded.
  returned: when there is a Job, also on a failure
  type: int
  sample: 1
failed_pods:
  description: How many of its pods have failed.
  returned: when there is a Job, also on a failure
  type: int
  sample: 0
exit_code:
  description:
    - The exit code of the container that decided, which for a failed Job is the last one that failed. Null when that is
      not known, as after the deadline.
  returned: when there is a Job, also on a failure
  type: int
  sample: 0
seconds:
  description: How long it took, null while it has not ended.
  returned: when there is a Job, also on a failure
  type: float
  sample: 12.0
log:
  description: The end of the log of the container that decided, redacted.
  returned: when there is a Job, also on a failure
  type: str
logs:
  description:
    - The ends of the logs of all its pods' containers, those of the newest pod first, redacted. C(truncated) says that
      there is more before it, C(reason) why there is nothing.
  returned: when there is a Job, also on a failure
  type: list
  elements: dict
run_id:
  description: The name of this run, which is left on the Job.
  returned: when the cluster was reached
  type: str
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: What is done (in check mode, would be), and why.
  returned: always
  type: list
  elements: dict
blockers:
  description: What stands in the way, who holds it, and what to do about it.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting, for the lock and for the end.
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
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.job import run_job

LIKE: dict[str, dict[str, t.Any]] = {
    "kind": {"type": "str", "required": True, "choices": ["Deployment", "StatefulSet"]},
    "name": {"type": "str", "required": True},
    "container": {"type": "str"},
    "image": {"type": "str"},
    "command": {"type": "list", "elements": "str", "required": True},
    "args": {"type": "list", "elements": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            "from_cronjob": {"type": "str"},
            "from_workload": {"type": "dict", "options": LIKE},
            "template": {"type": "dict"},
            "name_prefix": {"type": "str"},
            "labels": {"type": "dict"},
            "annotations": {"type": "dict"},
            "key": {"type": "str", "no_log": False},
            "on_failed": {"type": "str", "choices": ["fail", "again"], "default": "fail"},
            "lock": {"type": "str"},
            "lock_timeout": {"type": "float"},
            "deadline": {"type": "int"},
            "ttl_seconds": {"type": "int", "default": 86400},
            "log_lines": {"type": "int", "default": 100},
            "log_bytes": {"type": "int", "default": 65536},
            "log_file": {"type": "path"},
        },
        required_one_of=[("from_cronjob", "from_workload", "template")],
        mutually_exclusive=[("from_cronjob", "from_workload", "template")],
        supports_check_mode=True,
    )
    run_module(module, run_job)


if __name__ == "__main__":
    main()
