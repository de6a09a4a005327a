#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_scale_to_partitions
short_description: Give a workload as many replicas as its topics have partitions
version_added: 0.1.0
description:
  - Scales a StatefulSet or Deployment of consumers, or a workload of another API that has the subresource C(scale), to
    the number of partitions of the topics that it reads, since more replicas than partitions sit idle and fewer leave
    work undone.
  - The partition counts are data (O(partitions)) or are read from Kafka (O(kafka_connection)). A topic that is missing,
    and a count that is null, zero or not a number, is a refusal before any write; scaling to zero is impossible.
  - It then waits until the replicas serve, also when nothing had to be changed, and ends early on a state that waiting
    does not mend, which it names.
  - After the wait it reads partition counts from Kafka again and follows partitions that were added meanwhile.
  - Before the first write, each write is tried as a dry run, so that what a quota, an admission webhook or a lacking
    right would refuse is refused before anything is changed. In check mode, which sends no write at all, the right to
    C(patch) is asked for instead, by an access review (C(SelfSubjectAccessReview)).
  - Reading, the dry run, writing and waiting take five requests, however many replicas there are, and one more for
    each of O(guards) and for O(cluster_uid). It takes more when it waits longer than a second, since then it looks for
    the reasons (pods, events). Lost connections and conflicts are repeated, and those repetitions count as well.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  topics:
    description:
      - The topics that the workload consumes.
      - It may be left out when O(partitions) is given; a mapping's keys are the topics then.
    type: list
    elements: str
    default: []
  partitions:
    description:
      - The number of partitions as data, either a mapping of topic to number or, for one topic, the number.
      - A number may be written as text. Anything that is not a whole number of at least 1 is refused.
    type: raw
  kafka_connection:
    description: The connection to the Kafka cluster from which the partitions are read.
    type: dict
    suboptions:
      brokers:
        description: Addresses of brokers to begin with, as C(host:port).
        type: list
        elements: str
        default: []
      security_protocol:
        description: How to speak to the brokers.
        type: str
        choices: [PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL]
        default: PLAINTEXT
      sasl_mechanism:
        description: How to authenticate.
        type: str
        choices: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]
      sasl_username:
        description: The user.
        type: str
      sasl_password:
        description: The user's password.
        type: str
      ssl_cafile:
        description: File with the certificate of the authority that signed the brokers' certificates.
        type: path
      ssl_certfile:
        description: File with a client certificate.
        type: path
      ssl_keyfile:
        description: File with the key of O(kafka_connection.ssl_certfile).
        type: path
      cluster_id:
        description: What the cluster's id must be. Another one is a refusal.
        type: str
      client:
        description: The Kafka protocol, or the C(rpk) command.
        type: str
        choices: [kafka, rpk]
        default: kafka
      rpk_command:
        description: The C(rpk) program, with O(kafka_connection.client=rpk).
        type: str
        default: rpk
      rpk_pod:
        description:
            - Run C(rpk) in this pod, with O(kafka_connection.client=rpk), instead of on this host.
            - It needs C(kubectl) on this host, and the rights to C(get) pods and to C(create) C(pods/exec) there.
        type: dict
        suboptions:
          namespace:
            description: Namespace of the pod.
            type: str
            required: true
          name:
            description: Name of the pod.
            type: str
            required: true
          container:
            description: The container, where the pod has several.
            type: str
          kubeconfig:
            description: The kubeconfig for C(kubectl).
            type: path
          context:
            description: The context for C(kubectl).
            type: str
          kubectl:
            description: The C(kubectl) program.
            type: str
            default: kubectl
      request_timeout:
        description: Seconds that one request to Kafka may take.
        type: float
        default: 15.0
  combine:
    description:
      - How the counts of several topics become one number.
      - V(max) suits consumers that read each topic with all replicas (Kafka's range assignor gives partition 0 of every
        topic to the same replica); V(sum) suits assignors that spread all partitions of all topics over the replicas.
    type: str
    choices: [max, sum]
    default: max
  min_replicas:
    description: Never fewer replicas than this.
    type: int
    default: 1
  max_replicas:
    description: Never scale to more replicas than this, whatever the number of partitions.
    type: int
  even_divisors_only:
    description:
      - Choose the largest number of replicas up to the limit that gives each replica the same number of partitions.
        With O(combine=max) it divides the count of each topic, with O(combine=sum) their sum.
      - A refusal when no such number lies between O(min_replicas) and the limit.
    type: bool
    default: false
  allow_scale_down:
    description:
      - Whether replicas that are more than wanted are let go.
      - Without it their number stays, which is reported in RV(blockers).
    type: bool
    default: false
  guards:
    description:
      - What is looked at before a change. Each costs one request, except V(headroom), which costs two (nodes and pods),
        V(quota), which costs two where there is a ResourceQuota and three where one limits the volume claims that a
        StatefulSet is to get, and V(gitops), which costs none.
      - V(hpa) and V(keda) find the autoscaler that owns the replicas.
      - V(gitops) refuses when Argo CD or Flux keeps the workload's replicas, or when an operator owns the workload.
      - V(disruption_budget) refuses fewer replicas than a PodDisruptionBudget's C(minAvailable).
      - V(quota) refuses more pods than a ResourceQuota has left. Quotas with scopes count where they cover the pods,
        and requests that a LimitRange sets count as well, as do volume claims that are not there yet (their number and
        size, also by the StorageClass that the StatefulSet names).
      - V(headroom) refuses more pods than fit on the nodes by requests, cordons, taints and C(nodeSelector). Leave it
        out where a cluster autoscaler adds nodes.
    type: list
    elements: str
    choices: [hpa, keda, gitops, disruption_budget, quota, headroom]
    default: [hpa, keda, gitops]
requirements:
  - confluent-kafka >= 2.16 (with O(kafka_connection.client=kafka))
  - C(rpk) (with O(kafka_connection.client=rpk)), and C(kubectl) (with O(kafka_connection.rpk_pod))
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
  - module: lowtide.ops.k8s_workload
"""

EXAMPLES = r"""
- name: As many workers as the topic has partitions, read from Kafka
  lowtide.ops.k8s_scale_to_partitions:
    kind: StatefulSet
    name: feature-worker
    namespace: feature-system
    topics: [feature.events]
    kafka_connection:
      brokers: [redpanda-0.redpanda:9092]
    max_replicas: 64

- name: Two topics, counts known, the same share for each worker, room on the nodes looked at
  lowtide.ops.k8s_scale_to_partitions:
    kind: Deployment
    name: indexer
    namespace: search
    partitions:
      documents: 24
      deletions: 12
    max_replicas: 10
    even_divisors_only: true
    guards: [hpa, keda, gitops, quota, headroom]

- name: Where an HPA owns the workers, give it these bounds
  lowtide.ops.k8s_scale_to_partitions:
    kind: StatefulSet
    name: feature-worker
    namespace: feature-system
    partitions: 12
    autoscaler: adjust
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "scaled StatefulSet shop/order-consumer from 3 to 12 replicas (orders has 12 partitions)"
evidence:
  description: Short lines that prove the summary.
  returned: always
  type: list
  elements: str
  sample:
    - "StatefulSet shop/order-consumer: 12 of 12 replicas ready"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
partitions:
  description: The number of partitions of each topic, as last read.
  returned: when they are known
  type: dict
  sample: {feature.events: 12}
target:
  description: The wanted number of replicas.
  returned: when it is known
  type: int
  sample: 12
replicas:
  description: The number of replicas that the workload has, or in check mode would have.
  returned: when the workload was read
  type: int
  sample: 12
reason:
  description: Why it is that number.
  returned: when the workload was read
  type: str
  sample: feature.events has 12 partitions
ready:
  description: How many replicas serve.
  returned: success, except in check mode
  type: int
  sample: 12
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
    - object: StatefulSet feature-system/feature-worker
      what: replicas 3 -> 12
      why: feature.events has 12 partitions
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
from ansible_collections.lowtide.ops.plugins.module_utils._consumers.operations.scale_to_partitions import (
    run_scale_to_partitions,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kafka.connection import connection_spec
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import (
    ACTING_SPEC,
    CONNECTION_SPEC,
    SCALING_SPEC,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.scaling_constraints import GUARDS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            **SCALING_SPEC,
            "topics": {"type": "list", "elements": "str", "default": []},
            "partitions": {"type": "raw"},
            "kafka_connection": {"type": "dict", "options": connection_spec()},
            "combine": {"type": "str", "choices": ["max", "sum"], "default": "max"},
            "min_replicas": {"type": "int", "default": 1},
            "max_replicas": {"type": "int"},
            "even_divisors_only": {"type": "bool", "default": False},
            "allow_scale_down": {"type": "bool", "default": False},
            "guards": {
                "type": "list",
                "elements": "str",
                "choices": list(GUARDS),
                "default": ["hpa", "keda", "gitops"],
            },
        },
        required_one_of=[("partitions", "kafka_connection")],
        mutually_exclusive=[("partitions", "kafka_connection")],
        supports_check_mode=True,
    )
    run_module(module, run_scale_to_partitions)


if __name__ == "__main__":
    main()
