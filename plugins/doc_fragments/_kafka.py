# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection options of the action group kafka. Private to lowtide.ops: do not import from other collections.

Mirrors ``connection_spec`` of ``plugins/module_utils/_kafka/connection.py``.
"""

from __future__ import annotations


class ModuleDocFragment:
    """One class attribute for each fragment, as Ansible looks them up."""

    DOCUMENTATION = r"""
options:
  brokers:
    description:
      - Brokers to begin with, each as V(host:port). The others are learnt from them.
      - Needed with O(client=kafka). With O(client=rpk) an empty list leaves the choice to rpk's own configuration.
    type: list
    elements: str
    default: []
  security_protocol:
    description: How to speak with the brokers.
    type: str
    choices: [PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL]
    default: PLAINTEXT
  sasl_mechanism:
    description: How to log in, where O(security_protocol) has SASL.
    type: str
    choices: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]
  sasl_username:
    description: The user to log in as.
    type: str
  sasl_password:
    description:
      - That user's password. It is never an argument of a command.
      - Cannot be given with O(rpk_pod), because a command in a pod gets its environment from the pod.
    type: str
  ssl_cafile:
    description: PEM file of the authorities which may have signed the brokers' certificates. Default is the system's.
    type: path
  ssl_certfile:
    description: PEM file of the client's certificate.
    type: path
  ssl_keyfile:
    description: PEM file of the client's key.
    type: path
  cluster_id:
    description:
      - The id of the cluster that is meant. Any other one is refused before the first change.
    type: str
  client:
    description:
      - V(kafka) speaks with the brokers itself and needs the Python package confluent-kafka.
      - V(rpk) uses the C(rpk) command (versions 23.3 to 24.3), on this host or in a pod, where brokers cannot be reached otherwise.
        Its exit code is ignored; what it did is read back.
      - C(rpk) cannot see groups of the new consumer protocol (KIP-848). Such groups are reported as V(unknown), and refused.
    type: str
    choices: [kafka, rpk]
    default: kafka
  rpk_command:
    description: Name or path of the rpk program, on this host or in the pod.
    type: str
    default: rpk
  rpk_pod:
    description:
      - Run rpk in this pod, with C(kubectl exec), without a terminal and without a shell.
      - It is bounded inside the pod by the program C(timeout), which has to be in the container, since a command in a
        pod runs on when C(kubectl) ends.
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
        description: Container in the pod. Default is its default container.
        type: str
      kubeconfig:
        description: Kubernetes client configuration. Default is C(kubectl)'s own.
        type: path
      context:
        description: Context in that configuration. Default is its current one.
        type: str
      kubectl:
        description: Name or path of the kubectl program.
        type: str
        default: kubectl
  request_timeout:
    description: Seconds that one question to the brokers, or one rpk command, may take.
    type: float
    default: 15.0
requirements:
  - confluent-kafka >= 2.16 (with O(client=kafka))
notes:
  - An option that is not given is taken from the environment - E(KAFKA_BROKERS) (separated by commas), E(KAFKA_SECURITY_PROTOCOL),
    E(KAFKA_SASL_MECHANISM), E(KAFKA_SASL_USERNAME), E(KAFKA_SASL_PASSWORD), E(KAFKA_SSL_CAFILE), E(KAFKA_SSL_CERTFILE),
    E(KAFKA_SSL_KEYFILE). C(docs/connections.md) of the collection has this for all systems.
"""
