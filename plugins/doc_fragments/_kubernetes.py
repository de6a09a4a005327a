# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a Kubernetes connection. Private to lowtide.ops: do not import from other collections.

Mirrors ``CONNECTION_SPEC`` and ``ACTING_SPEC`` in module_utils/_kubernetes/arguments.py.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules of the action group C(lowtide.ops.kubernetes)."""

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - A kubeconfig as C(kubectl) reads it, as the path of a file, a list of paths (the first that has an entry wins), or
        its content as a mapping.
      - Without it and without O(host), the environment variables E(K8S_AUTH_KUBECONFIG) and E(KUBECONFIG) name it, or it
        is C(~/.kube/config). Inside a pod, where there is none of them, the pod's service account is used; a
        O(context), or a variable that names no file, is refused there, so that no other cluster is taken.
      - What is not understood in it is refused by name.
    type: raw
  context:
    description: The context of the kubeconfig to use, instead of its current one. (E(K8S_AUTH_CONTEXT))
    type: str
  host:
    description:
      - URL of the API server, such as C(https://10.0.0.1:6443). The kubeconfig is not read then. (E(K8S_AUTH_HOST))
    type: str
  api_key:
    description:
      - A bearer token. It is used instead of whatever credentials the kubeconfig has. (E(K8S_AUTH_API_KEY))
      - Credentials are never sent over plain C(http), except to an address of the host itself.
    type: str
  username:
    description: User for basic authentication, with O(password). (E(K8S_AUTH_USERNAME))
    type: str
  password:
    description: Password of O(username). (E(K8S_AUTH_PASSWORD))
    type: str
  ca_cert:
    description: File with the certificate of the authority that signed the API server's. (E(K8S_AUTH_SSL_CA_CERT))
    type: path
  client_cert:
    description: File with a client certificate. (E(K8S_AUTH_CERT_FILE))
    type: path
  client_key:
    description: File with the key of O(client_cert). It must not be encrypted. (E(K8S_AUTH_KEY_FILE))
    type: path
  validate_certs:
    description:
      - Whether the API server's certificate is verified. V(false) gives a warning each time. (E(K8S_AUTH_VERIFY_SSL))
      - Without it the kubeconfig decides (C(insecure-skip-tls-verify)), and otherwise it is verified.
    type: bool
  tls_server_name:
    description: The name that the API server's certificate must have, instead of the host's.
    type: str
  proxy:
    description:
      - URL of a proxy to reach the API server through; C(http), C(https), C(socks5) and C(socks5h). (E(K8S_AUTH_PROXY))
      - Without it C(proxy-url) of the kubeconfig, or E(HTTPS_PROXY) counts.
    type: str
  no_proxy:
    description:
      - Hosts, domains and networks (CIDR) that are reached without a proxy, separated by commas. (E(K8S_AUTH_NO_PROXY))
      - Without it E(NO_PROXY) counts.
    type: str
  impersonate_user:
    description: The user to act as (C(as) in a kubeconfig). (E(K8S_AUTH_IMPERSONATE_USER))
    type: str
  impersonate_groups:
    description: The groups to act as, with O(impersonate_user). (E(K8S_AUTH_IMPERSONATE_GROUPS))
    type: list
    elements: str
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
  failure_grace_factor:
    description:
      - How long a state that waiting does not mend may last before the wait ends early and names it, as a multiple of
        what is usual for that state.
      - It is 15 s where an image name is wrong or a secret is missing, 2 minutes where an image cannot be pulled, 3 where
        no node has room (longer while a cluster autoscaler adds one); a crash loop counts by the restarts since then.
    type: float
    default: 1.0
  run_id:
    description:
      - The name of this run, which is left in what is saved on a stopped object, and in the user agent.
      - Without it, the time at which the module started.
    type: str
"""
