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
      - A kubeconfig file, a list of them, several in one text as in E(KUBECONFIG), or the content of one as a
        mapping. Each file must be there. Of two entries with one name the first counts, and relative paths start from
        the file that names them.
      - Without it and without O(host), the files in the environment variable E(KUBECONFIG) are read, or
        C(~/.kube/config). In a pod without any of them, its service account is used; never when O(context) or
        E(KUBECONFIG) names something else.
      - A key of a cluster, user or context that is not understood is refused, since ignoring it could mean another
        identity.
      - Of a mapping, tokens, passwords and keys are masked in the output.
    type: raw
  context:
    description: The context of the kubeconfig to use, instead of its current one.
    type: str
  host:
    description:
      - URL of the API server, such as C(https://10.0.0.1:6443). The kubeconfig is not read then, and O(context)
        cannot be given.
      - Credentials are sent without TLS to this machine itself only.
    type: str
  api_key:
    description:
      - A bearer token. It takes the place of everything by which the kubeconfig's user says who it is, plugins and
        certificate too.
    type: str
  username:
    description: A user name for basic authentication, with O(password). It takes the place of the kubeconfig's user
      as O(api_key) does.
    type: str
  password:
    description: The password of O(username).
    type: str
  ca_cert:
    description:
      - File with the certificate of the authority that signed the API server's certificate. An intermediate one is
        enough.
    type: path
  client_cert:
    description: File with a client certificate. It takes the place of the kubeconfig's user.
    type: path
  client_key:
    description: File with the key of O(client_cert). A key with a password is refused.
    type: path
  validate_certs:
    description:
      - Whether the API server's certificate is verified. V(false) gives a warning each time.
      - Without it the kubeconfig decides (C(insecure-skip-tls-verify)), and otherwise it is verified.
    type: bool
  tls_server_name:
    description: The name that the API server's certificate must have, instead of the one in its address.
    type: str
  proxy:
    description:
      - URL of a proxy, with the scheme C(http), C(https), C(socks5) or C(socks5h); the latter two resolve names
        there.
      - Without it the kubeconfig's C(proxy-url) counts, and otherwise E(HTTPS_PROXY) with E(NO_PROXY), in capitals or
        not.
    type: str
  no_proxy:
    description:
      - Servers to reach without any proxy, separated by commas, as V(10.0.0.0/8,.example.org,*). It takes the place
        of E(NO_PROXY), and exempts from O(proxy) and C(proxy-url) too.
    type: str
  impersonate_user:
    description:
      - The user to act as, instead of the kubeconfig's C(as) with all its attributes.
    type: str
  impersonate_groups:
    description: The groups to act as a member of, instead of the kubeconfig's C(as-groups).
    type: list
    elements: str
  cluster_uid:
    description:
      - What the UID of the namespace C(kube-system) must be, so that no other cluster is taken for this one.
      - Anything else is a refusal before the first write. Looking costs one request.
    type: str
requirements:
  - PyYAML, which comes with ansible-core, to read a kubeconfig
  - the Python package C(kubernetes), only for a kubeconfig user with an exec or auth-provider (OIDC) credential
    plugin
notes:
  - Requests go over fixed paths, and the result RV(ignore:requests) counts them. Discovery is asked for the group
    C(keda.sh) only, by an account that may not list ScaledObjects.
  - The file C(docs/kubernetes-rights.yml) of the collection has exactly the rights that an account needs.
  - Each connection option but O(cluster_uid) can be given by an environment variable with the name that
    kubernetes.core has for it, such as E(K8S_AUTH_HOST), E(K8S_AUTH_API_KEY), E(K8S_AUTH_VERIFY_SSL),
    E(K8S_AUTH_SSL_CA_CERT), E(K8S_AUTH_CERT_FILE), E(K8S_AUTH_KEY_FILE). An option wins over its variable. A task
    that gives O(kubeconfig) or O(context) gets neither address nor identity from the environment, one that gives
    O(host) no address.
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
      - A state which waiting does not mend ends a wait early, with its name, once it has lasted. How long that is
        depends on the state, since a scheduler that waits for a new node is not a wrong image name. It is 15 s where
        an image name is wrong or a secret is missing, 2 minutes where an image cannot be pulled, 3 where no node has
        room (longer while a cluster autoscaler adds one); a crash loop counts by the restarts since then. This number
        multiplies all of these times. All of them are in C(docs/troubleshooting.md) of the collection.
    type: float
    default: 1.0
  run_id:
    description:
      - The name of this run, which is left in the user agent of each request and in the note on a stopped object.
      - Without it, the time at which the module started.
    type: str
"""
