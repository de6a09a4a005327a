# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a Kubernetes connection. Private to lowtide.ops: do not import from other collections.

Mirrors ``CONNECTION_SPEC``, ``ACTING_SPEC``, ``CONNECTION_BUDGET_SPEC`` and ``SCALING_SPEC`` in module_utils/_kubernetes/arguments.py.
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
  - kubernetes >= 33.1, only for a kubeconfig user with an exec or auth-provider (OIDC) credential plugin
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

    CONNECTION_BUDGET = r"""
options:
  connection_budget:
    description:
      - What a database has for the replicas, each of which may open its whole pool. What is asked for beyond that is
        refused, with the number that fits. Fewer replicas than now, and as many, are not refused for it.
      - The numbers of the server come from M(lowtide.ops.pg_query_info); the role C(scaling) reads them.
    type: dict
    suboptions:
      max_connections:
        description: How many connections there are, by the setting in O(connection_budget.limited_by).
        type: int
        required: true
      limited_by:
        description:
          - What says how many there are, for messages. A narrower limit than the server's is that of a database
            (C(pg_database.datconnlimit)) or of a role (C(pg_roles.rolconnlimit)); O(connection_budget.used_by_others) and
            O(connection_budget.reserved) are then what counts against that limit.
        type: str
        default: max_connections
      pool_per_replica:
        description: How many connections one replica opens at most, for all its processes together.
        type: int
        required: true
      used_by_others:
        description: Connections of clients that are neither this workload nor in O(connection_budget.shared_with).
        type: int
        default: 0
      reserved:
        description: Connections that are kept free, among them the server's own C(superuser_reserved_connections).
        type: int
        default: 0
      shared_with:
        description:
          - Other workloads of the namespace that open connections to the same server. Each is read, one request each,
            and counts with as many replicas as it has, or as its autoscaler allows.
          - The workload itself may be among them, and is left out then.
        type: list
        elements: dict
        default: []
        suboptions:
          kind:
            description: Kind of the workload, as O(connection_budget.shared_with[].name) has it.
            type: str
            required: true
          name:
            description: Its name.
            type: str
            required: true
          api_version:
            description: The API of another kind than StatefulSet and Deployment.
            type: str
          plural:
            description: With the API of another kind, the plural of that kind.
            type: str
          pool_per_replica:
            description: How many connections one of its replicas opens at most.
            type: int
            required: true
          replicas:
            description: Count it with so many replicas, instead of reading it.
            type: int
"""

    SCALING = r"""
options:
  kind:
    description: What kind of workload it is, V(StatefulSet) or V(Deployment), or another one with O(api_version).
    type: str
    required: true
  name:
    description: The name of the workload.
    type: str
    required: true
  api_version:
    description:
      - The API of another kind, as the object has it (C(GROUP/VERSION)), such as C(argoproj.io/v1alpha1) for a C(Rollout).
      - The kind needs the subresource C(scale), with its replicas at C(spec.replicas).
    type: str
  plural:
    description:
      - With O(api_version), the plural of that kind, as in paths and access rules, such as C(rollouts).
      - Without it, it is found by one request for what the API serves.
    type: str
  autoscaler:
    description:
      - What to do when an HPA or a KEDA ScaledObject owns the replicas and their number is not the wanted one.
      - With V(refuse) nothing is written, and the message names it and its bounds.
      - With V(adjust) both its bounds become the wanted number, so that it holds that number instead of fighting it.
        The bounds that it had first are saved in its annotation C(lowtide.ops/bounds-before).
      - With V(restore) it gets these bounds back, unless another client has changed them since, and the number of
        replicas is left to it.
    type: str
    choices: [refuse, adjust, restore]
    default: refuse
  start_stopped:
    description:
      - What to do with a workload that M(lowtide.ops.k8s_workload) has stopped. Without this it is refused, since it
        was stopped on purpose; with it, it is started at the right number at once, and what was saved on it is removed.
      - For O(allow_scale_down) it counts as having the replicas that it had when it was stopped.
    type: bool
    default: false
  allow_volume_deletion:
    description:
      - Whether a StatefulSet may be scaled down whose C(persistentVolumeClaimRetentionPolicy.whenScaled) is C(Delete), so
        that its controller deletes the volume claims of the pods that go, with their data.
      - With V(false) nothing is written, and the message names the claims. With V(true) the plan says that the step
        cannot be reversed.
    type: bool
    default: false
  assume:
    description:
      - For a rehearsal in check mode, where an earlier step would have stopped the workload. It is taken for stopped,
        with the replicas that it has now.
      - Outside check mode it is refused.
    type: str
    choices: [stopped]
"""
