#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_credential
short_description: Replace the PostgreSQL password that clients have from a Kubernetes Secret
version_added: 0.1.0
description:
  - With O(state=rotated), the Secret has a password that is younger than O(max_age) and that the server takes. If it is too
    old, a new one is made, given to the role, put into the Secret, and proven by real logins.
  - Between this and O(state=finished) the workloads that use the Secret are restarted, with RV(rotated_at) as
    O(lowtide.ops.k8s_rollout#module:restarted_after). The role C(credentials) does all three.
  - With O(state=finished), the old credential is ended once no pod that may have it and no session of it is left, and a real
    login with it must be refused.
  - With O(state=reverted), a rotation whose clients do not run with the new credential is taken back. The Secret has the old
    credential again, and real logins prove that the server takes it; with O(method=one_role) it is set again. Then bring the
    workloads back to the revision that they had (O(lowtide.ops.k8s_rollout#module:state=undone), with RV(begun_by) as its
    O(lowtide.ops.k8s_rollout#module:run_id)), and end the new credential by O(state=finished). The role C(credentials) does that.
    The next run with O(state=rotated) makes another password.
  - With O(method=two_roles) the application has two roles, of which it uses one. Both are members of the role that owns
    what it uses, and act as that (C(ALTER ROLE ... SET role)). The idle one gets the new password, so that the old one works
    until the end. Roles between which the application could tell a difference are refused.
  - Where somebody else has changed the Secret, no client is locked out. A rotation whose annotation is gone is gone on with by
    the keys of the previous credential. Without these, nothing is begun while pods of before the last change of the Secret use it.
    Another credential in the Secret is refused, with what to do about it.
  - With O(method=one_role) the only role gets another password. Logins with the old one are refused from then on, until the
    clients have been restarted; so that is refused unless O(accept_interruption) says otherwise.
  - The password is made here (256 bits), and the server gets a SCRAM verifier of it only. It is in no result, no log, on no
    command line and in no statement.
  - How far it has come is noted in the annotation C(lowtide.ops/credential) of the Secret, which holds no secret. After
    any interruption, the next run goes on from there. The old password is kept in the Secret (keys
    C(lowtide.previous-username) and C(lowtide.previous-password)) until O(state=finished) has proven that it is refused.
  - Each change of the Secret is a patch of the named keys, on the condition that it is still the Secret that was read. An
    immutable Secret is refused, and so is one that a GitOps tool, an operator, Helm,
    External Secrets, Vault, Terraform or Pulumi keeps (O(guards)), one with the password in keys that O(templates) does not
    name, and a role whose C(VALID UNTIL) is before the next rotation.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  state:
    description:
      - Whether a young password is wanted in the Secret, the end of the one that it does not have any more, or, while a rotation
        is under way, the old one again.
    type: str
    choices: [rotated, finished, reverted]
    default: rotated
  secret:
    description: The Secret. It has the credential that clients use now.
    type: str
    required: true
  namespace:
    description: Its namespace, and that of the pods that use it.
    type: str
    required: true
  username_key:
    description: The key of the role's name.
    type: str
    default: username
  password_key:
    description: The key of the password.
    type: str
    default: password
  templates:
    description:
      - Other keys that contain the credential, and what they are, such as a connection URI. C({username}) and C({password})
        are replaced as they are; a password has letters, digits, C(-) and C(_) only.
    type: dict
    default: {}
  method:
    description: Whether two roles take turns, or the only one gets another password.
    type: str
    choices: [two_roles, one_role]
    default: two_roles
  roles:
    description: The two roles that take turns, or the only one. The Secret names one of them.
    type: list
    elements: str
    required: true
  owner:
    description: With O(method=two_roles), the role that owns what the application uses. Nobody logs in as it.
    type: str
  accept_interruption:
    description: With O(method=one_role), that clients cannot log in between the change and their restart is accepted.
    type: bool
    default: false
  max_age:
    description:
      - How old the password may be, such as V(90d) or V(12h), by the clock of the API server. V(0s) makes a new one at each run.
      - A Secret on which no rotation is noted has a password of unknown age, and gets a new one.
    type: str
    default: 90d
  guards:
    description: With V(gitops), a Secret that a GitOps tool or an operator keeps is refused, since that would put it back.
    type: list
    elements: str
    choices: [gitops]
    default: [gitops]
  logins:
    description:
      - Where clients log in. Each of these has to take the new password before the Secret is changed, and to refuse the old one
        in the end, such as a pooler or a standby. A wrong password must be refused there; of two roles the idle one is tried.
      - Standbys among them, and among the hosts of O(login_host), are asked for sessions of the old role too, by O(login_user).
        One that cannot be asked is named in RV(evidence) and in a warning.
      - Without it, the primary that O(login_host) leads to.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Host name or address.
        type: str
        required: true
      port:
        description: Port.
        type: int
        default: 5432
      database:
        description: The database. Without it O(login_db).
        type: str
      ssl_mode:
        description: How TLS is used there. Without it O(ssl_mode).
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      ca_cert:
        description: Certificate of the authority that signed the certificate of that address. Without it O(ca_cert).
        type: path
  timeout:
    description: Seconds that the whole module may take, the wait for pods and sessions with the old credential included.
    type: float
    default: 120.0
  run_id:
    description: The name of this run, which is left in the note. Without it, the time at which the module started.
    type: str
  kubernetes_connection:
    description: The connection to the cluster of the Secret.
    type: dict
    default: {}
    suboptions:
      kubeconfig:
        description:
          - A kubeconfig file, a list of them, several in one text as in E(KUBECONFIG), or the content of one as a mapping.
            Each file must be there. Of two entries with one name the first counts, and relative paths start from the file
            that names them.
          - Without it and without O(kubernetes_connection.host), the files in the environment variable E(KUBECONFIG) are read, or
            C(~/.kube/config). In a pod without any of them, its service account is used; never when O(kubernetes_connection.context)
            or E(KUBECONFIG) names something else.
          - A key of a cluster, user or context that is not understood is refused, since ignoring it could mean another
            identity.
          - Of a mapping, tokens, passwords and keys are masked in the output.
        type: raw
      context:
        description: The context of the kubeconfig to use, instead of its current one.
        type: str
      host:
        description:
          - URL of the API server, such as C(https://10.0.0.1:6443). The kubeconfig is not read then, and O(kubernetes_connection.context)
            cannot be given.
          - Credentials are sent without TLS to this machine itself only.
        type: str
      api_key:
        description:
          - A bearer token. It takes the place of everything by which the kubeconfig's user says who it is, plugins and
            certificate too.
        type: str
      username:
        description: A user name for basic authentication, with O(kubernetes_connection.password). It takes the place of the kubeconfig's
          user as O(kubernetes_connection.api_key) does.
        type: str
      password:
        description: The password of O(kubernetes_connection.username).
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
        description: File with the key of O(kubernetes_connection.client_cert). A key with a password is refused.
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
          - URL of a proxy, with the scheme C(http), C(https), C(socks5) or C(socks5h); the latter two resolve names there.
          - Without it the kubeconfig's C(proxy-url) counts, and otherwise E(HTTPS_PROXY) with E(NO_PROXY), in capitals
            or not.
        type: str
      no_proxy:
        description:
          - Servers to reach without any proxy, separated by commas, as V(10.0.0.0/8,.example.org,*). It takes the place
            of E(NO_PROXY), and exempts from O(kubernetes_connection.proxy) and C(proxy-url) too.
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
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_postgresql
  - lowtide.ops._postgresql
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written. Logins with the password of the Secret and with a wrong one are made, where a new one is due.
  diff_mode:
    support: full
    details:
      - It has the role's name and the phase, never a password.
  idempotent:
    support: full
    details:
      - With O(max_age=0s) each run makes a new password, once the one before it is finished.
notes:
  - O(login_user) needs no right to make or change roles. It is a member of O(roles), see C(docs/postgresql-rights.sql).
  - A client that logs in through PgBouncer is let in with the new password at once if that has C(auth_query). With a
    userlist file it has to have both roles, which cannot be done from here; name PgBouncer in O(logins), so that it is found
    before the Secret is changed.
  - A password that the server takes proves nothing where C(pg_hba.conf) asks for none; such an address is refused.
seealso:
  - module: lowtide.ops.k8s_rollout
  - module: lowtide.ops.k8s_secret
"""

EXAMPLES = r"""
- name: A password that is no older than 90 days
  lowtide.ops.pg_credential:
    login_host: db1.example.com,db2.example.com
    login_user: lowtide_credentials
    passfile: /etc/ansible/pgpass
    login_db: shop
    kubernetes_connection:
      kubeconfig: /etc/ansible/kubeconfig
    namespace: shop
    secret: database
    templates:
      DATABASE_URL: postgresql://{username}:{password}@db.example.com/shop
    roles: [shop_a, shop_b]
    owner: shop_owner
    max_age: 90d
  register: rotation

- name: Restart what uses it
  lowtide.ops.k8s_rollout:
    kubeconfig: /etc/ansible/kubeconfig
    namespace: shop
    kind: Deployment
    name: api
    restarted_after: "{{ rotation.rotated_at }}"
  when: rotation.rotating

- name: End the old one
  lowtide.ops.pg_credential:
    login_host: db1.example.com,db2.example.com
    login_user: lowtide_credentials
    passfile: /etc/ansible/pgpass
    login_db: shop
    kubernetes_connection:
      kubeconfig: /etc/ansible/kubeconfig
    namespace: shop
    secret: database
    roles: [shop_a, shop_b]
    owner: shop_owner
    state: finished
"""

RETURN = r"""
summary:
  description: One line that says what was done, would be in check mode, or why nothing was.
  returned: always
  type: str
  sample: "switched Secret shop/database from shop_a to shop_b, and shop_b can log in with it: the password is 91 d old, allowed are 90 d"
evidence:
  description: Which address took or refused which login, and where sessions of the old role were looked for.
  returned: always
  type: list
  elements: str
  sample: ["10.0.0.11:5432 lets shop_b in with the new password"]
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
secret:
  description: What the Secret is called in messages.
  returned: when it was read
  type: str
  sample: Secret shop/database
user:
  description: The role whose credential the Secret has; in check mode, would have.
  returned: when the Secret was read
  type: str
  sample: shop_b
phase:
  description:
    - How far the rotation has come (V(preparing), V(switched), V(proven), V(finished)), or the way back from it (V(reverting),
      V(reverted)); null where none is noted.
  returned: when the Secret was read
  type: str
  sample: proven
rotating:
  description: Whether clients may still have the old credential, so that they have to be restarted and the old one ended.
  returned: when the Secret was read
  type: bool
rotated_at:
  description: From when on a pod that is made has the credential; in check mode, now. Null where that was not proven yet.
  returned: when the Secret was read
  type: str
  sample: "2026-05-04T02:00:03Z"
begun_by:
  description: The name of the run that began the rotation; of the one that ended it, once it is over. Null where none is noted.
  returned: with O(state=rotated) and O(state=reverted), when the Secret was read
  type: str
age:
  description: How many seconds old the password is. Null where that is not known, as after a rotation that was taken back.
  returned: with O(state=rotated), when the Secret was read
  type: float
run_id:
  description: The run's name, as it is left in the note.
  returned: when the cluster was reached
  type: str
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: What is done up to the end of the rotation, in its order, and why.
  returned: always
  type: list
  elements: dict
blockers:
  description: What stands in the way, who holds it, and what to do about it.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting for pods and sessions with the old credential.
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
from ansible_collections.lowtide.ops.plugins.module_utils._credentials.operations.credential import (
    CREDENTIAL_SPEC,
    run_credential,
)


def main() -> None:
    """Wire options to work."""
    module = AnsibleModule(argument_spec=CREDENTIAL_SPEC, supports_check_mode=True)
    run_module(module, run_credential)


if __name__ == "__main__":
    main()
