#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_secret_info
short_description: Tell the keys of Secrets, until when their certificates are valid, and how old their credential is
version_added: 0.1.0
description:
  - Reads Secrets by name, and never tells a value. Certificates are found in any key, each of a chain by itself.
  - How old a credential is stands in the note that M(lowtide.ops.pg_credential) leaves on the Secret. All ages are by the clock
    of the API server.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  names:
    description: The Secrets. One that does not exist is told as such.
    type: list
    elements: str
    required: true
  namespace:
    description: Their namespace.
    type: str
    required: true
  timeout:
    description: Seconds that the whole module may take.
    type: float
    default: 60.0
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
requirements:
  - cryptography >= 3.1, where a Secret has certificates; it comes with ansible-core
seealso:
  - module: lowtide.ops.pg_credential
"""

EXAMPLES = r"""
- name: Look at the certificate of the site
  lowtide.ops.k8s_secret_info:
    namespace: shop
    names: [tls, database]
  register: secrets

- name: It is valid for a month
  ansible.builtin.assert:
    that: secrets.secrets[0].certificates | map(attribute='seconds_left') | min > 30 * 86400
"""

RETURN = r"""
summary:
  description: One line that says how many were found.
  returned: always
  type: str
  sample: 2 Secrets of 2 found
evidence:
  description: A line for each Secret, each certificate and each credential.
  returned: always
  type: list
  elements: str
  sample: ["Secret shop/tls, key tls.crt: CN=shop.example.org, valid for 61 d"]
check_mode:
  description: Whether this was run in check mode.
  returned: always
  type: bool
secrets:
  description: The Secrets, in the order of O(names).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      type: str
    title:
      description: What it is called in messages.
      type: str
    exists:
      description: Whether it does.
      type: bool
    keys:
      description: The names of its keys.
      type: list
      elements: str
    certificates:
      description: Its certificates, with C(key), C(subject), C(not_before), C(not_after) and C(seconds_left), negative once it has expired.
      type: list
      elements: dict
    credential:
      description: C(phase), C(user), C(rotated_at) and C(age_seconds) of its credential; null where no rotation is noted.
      type: dict
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
blockers:
  description: Always empty.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting; always 0.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and C(refused).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.operations.secret_info import (
    INFO_SPEC,
    run_secret_info,
)


def main() -> None:
    """Wire options to work."""
    run_module(AnsibleModule(argument_spec=INFO_SPEC, supports_check_mode=True), run_secret_info)


if __name__ == "__main__":
    main()
