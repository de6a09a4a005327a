#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_secret
short_description: Declare keys of a Secret, without touching or showing the others
version_added: 0.1.0
description:
  - Each named key gets its value, is generated where it is missing, or is removed. All other keys, labels and annotations
    stay as they are.
  - The change is one patch of these keys, on the condition that the Secret is still the one that was read, so that nothing is
    written over what another client has set meanwhile.
  - No value is in a result, a difference or a message.
  - An immutable Secret is refused, and so is one that a GitOps tool or an operator keeps.
  - Keys of a credential that M(lowtide.ops.pg_credential) replaces are refused, since another value would lock clients out.
  - Pods get values of variables when their containers start. Restart them with M(lowtide.ops.k8s_rollout).
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  name:
    description: The name of the Secret.
    type: str
    required: true
  namespace:
    description: Its namespace.
    type: str
    required: true
  data:
    description: Values by key, as text. An empty one is refused.
    type: dict
    default: {}
  generate:
    description: Keys that get a random value of 256 bits (letters, digits, C(-) and C(_)) where they are missing or empty.
    type: list
    elements: str
    default: []
  remove:
    description: Keys that are not to be there.
    type: list
    elements: str
    default: []
  type:
    description: The type of a Secret that is made. One that exists with another type is refused, unless this is V(Opaque).
    type: str
    default: Opaque
  create:
    description: Whether a Secret that does not exist is made.
    type: bool
    default: true
  guards:
    description: With V(gitops), a Secret that a GitOps tool or an operator keeps is refused.
    type: list
    elements: str
    choices: [gitops]
    default: [gitops]
  timeout:
    description: Seconds that the whole module may take.
    type: float
    default: 60.0
  run_id:
    description: The name of this run, which is left in the user agent of each request.
    type: str
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written; whether this account may write is asked for.
  diff_mode:
    support: full
    details:
      - It has the names of keys, never a value.
  idempotent:
    support: full
seealso:
  - module: lowtide.ops.pg_credential
"""

EXAMPLES = r"""
- name: A Secret with a key from a vault and one of its own
  lowtide.ops.k8s_secret:
    namespace: shop
    name: api
    data:
      payment-token: "{{ vault_payment_token }}"
    generate: [session-key]
    remove: [old-token]
  no_log: true # the variable
"""

RETURN = r"""
summary:
  description: One line that says which keys were changed, or would be in check mode.
  returned: always
  type: str
  sample: "changed Secret shop/api: generate session-key"
evidence:
  description: The names of all keys.
  returned: always
  type: list
  elements: str
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
secret:
  description: What the Secret is called in messages.
  returned: when it was read
  type: str
  sample: Secret shop/api
keys:
  description: The names of its keys.
  returned: when it was read
  type: list
  elements: str
created:
  description: Whether there was none before.
  returned: when it was read
  type: bool
run_id:
  description: The run's name.
  returned: when the cluster was reached
  type: str
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: What is changed, by key.
  returned: always
  type: list
  elements: dict
blockers:
  description: What stands in the way, who holds it, and what to do about it.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting; always 0.
  returned: always
  type: float
error:
  description:
    - The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused), that is, before
      this run changed anything.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.secret import SECRET_SPEC, run_secret


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(argument_spec=SECRET_SPEC, supports_check_mode=True)
    run_module(module, run_secret)


if __name__ == "__main__":
    main()
