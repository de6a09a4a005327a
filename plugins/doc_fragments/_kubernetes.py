# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a Kubernetes connection. Private to lowtide.ops: do not import from other collections.

Mirrors ``CONNECTION_SPEC`` and ``ACTING_SPEC`` in module_utils/_kubernetes/connection.py.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules of the action group C(lowtide.ops.kubernetes)."""

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - A kubeconfig file. Without it and without O(host), the files in the environment variable E(KUBECONFIG) are read, or
        C(~/.kube/config); inside a pod without any of them, its service account.
    type: path
  context:
    description: The context of the kubeconfig to use, instead of its current one.
    type: str
  host:
    description: URL of the API server, such as C(https://10.0.0.1:6443). The kubeconfig is not read then.
    type: str
  api_key:
    description: A bearer token.
    type: str
  ca_cert:
    description: File with the certificate of the authority that signed the API server's certificate.
    type: path
  client_cert:
    description: File with a client certificate.
    type: path
  client_key:
    description: File with the key of O(client_cert).
    type: path
  validate_certs:
    description:
      - Whether the API server's certificate is verified. V(false) gives a warning each time.
      - Without it the kubeconfig decides (C(insecure-skip-tls-verify)), and otherwise it is verified.
    type: bool
  cluster_uid:
    description:
      - What the UID of the namespace C(kube-system) must be, so that no other cluster is taken for this one.
      - Anything else is a refusal before the first write. Looking costs one request.
    type: str
requirements:
  - PyYAML, which comes with ansible-core, to read a kubeconfig
  - the Python package C(kubernetes), only for a kubeconfig user with an exec or auth-provider credential plugin
notes:
  - Requests go over fixed paths, without discovery; the result RV(ignore:requests) counts them.
"""

    ACTING = r"""
options:
  namespace:
    description: The namespace of the objects.
    type: str
    required: true
  timeout:
    description: Seconds that the whole module may take. Running again after a timeout goes on waiting.
    type: float
    default: 300.0
  patience:
    description:
      - Seconds that a state which waiting does not mend must last before the wait ends early and names it. These states are
        an image that cannot be pulled, a pod that cannot be scheduled, an exceeded quota, a crash loop, a container that
        cannot be made.
    type: float
    default: 15.0
  run_id:
    description:
      - The name of this run, which is left in the field manager of each write and in the note on a stopped object.
      - Without it, the time at which the module started.
    type: str
"""
