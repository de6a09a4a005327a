#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_site
short_description: Have a declared one of two Patroni clusters be the primary one
version_added: 0.1.0
description:
  - Two Patroni clusters have the same data; the one in another region is a standby cluster (C(standby_cluster)). This module
    makes it the primary one, over the REST interface of both, and changes nothing where it is.
  - The order is fixed. First both are verified, the right to change their configuration among it. Then the old
    primary cluster is fenced, which makes it a standby cluster of the
    other one, so that Patroni itself keeps each of its members from accepting writes. Then the new one has to have
    received all WAL of the old one, of which each member has to say how far it is. One reading has to show both, right before
    the promotion. Then it is promoted, and the old one has to follow it.
  - Positions in the WAL count only where each member of the old cluster is on the timeline of the new one.
  - C(standby_cluster) of the new cluster must not have a C(primary_slot_name) with Patroni below 3.3, nor several hosts.
    Patroni has such a cluster ask for a server that accepts writes, so that it would not get the rest of the WAL after the
    fence. The refusal has the change that takes them out.
  - What C(standby_cluster) had (slot, C(restore_command), several hosts) is kept in the cluster's configuration as
    C(lowtide_standby_cluster) while it is the primary one, and is put back when it follows again. A slot is put back only
    where C(slots) in the configuration of the primary cluster has it, and hosts only where they were several. One host
    may be that of a standby by now, and the cluster has been given the leader. The other cluster follows one member at
    first. A warning says what it does not have.
  - A cluster that has been fenced and does not stream from the promoted one is no standby site. The run that promotes
    waits for it, and each later one says so in a warning, in RV(blockers) and in RV(summary).
  - Each address in C(urls) of the old cluster has to answer as well, since a member whose Patroni is gone has left the cluster
    and its PostgreSQL may accept writes. Take a member out of C(urls) only where it is off.
  - Where that cannot be shown in time, the message says how to go on and how to go back.
  - C(standby_cluster) of a cluster that follows has to be the host and port of a member of the other one, as its
    C(postgresql.connect_address) has them. Two clusters that follow a third one are refused, and so is the address of a
    load balancer, which leads nowhere once the other cluster is fenced.
  - Each step is read from the clusters, so that a run that was interrupted is gone on with by the next one.
  - While it acts, the run is noted in the configuration of both clusters, under a key of its own that Patroni does not read
    (C(lowtide_site_run_...)). Another run in a different direction is refused meanwhile, and named. It
    never ends the one that was first. A note of a run that was killed counts for nothing 60 s after it was renewed last;
    it is named in a warning, and taken out.
  - Where another client has changed a configuration in between (409), all is read and proven anew, and the change is
    sent again, until O(timeout).
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  primary:
    description: Connection to the cluster that is to be the primary one.
    type: dict
    required: true
    suboptions: &connection
      urls:
        description:
          - Address of the REST interface of each member, for example V(https://pg1.example.com:8008). Any of them answers for
            the cluster, so give all of them, so that one that is away does not matter.
          - Each member is also asked at the address that it has published (C(restapi.connect_address)).
        type: list
        elements: str
        required: true
      username:
        description: User of C(restapi.authentication). Reading needs none.
        type: str
      password:
        description: Password to C(username).
        type: str
      password_file:
        description: A file with the password in place of C(password), on the host where the module runs.
        type: path
      ca_path:
        description: Certificate of the authority that signed the members' certificates, in PEM, instead of the system's.
        type: path
      client_cert:
        description: Certificate that is shown to the members (C(restapi.verify_client)), in PEM.
        type: path
      client_key:
        description: Key to C(client_cert), without a passphrase.
        type: path
      validate_certs:
        description: Whether to verify the members' TLS certificates. V(false) is reported as a warning at each run.
        type: bool
        default: true
      request_timeout:
        description: Seconds that the answer to a question may take.
        type: float
        default: 5.0
      scope:
        description: Name of the cluster (C(scope) in Patroni's configuration). Nothing is done to a cluster of another name.
        type: str
      system_identifier:
        description: System identifier of the database cluster. Nothing is done to another one.
        type: str
  old_primary:
    description: Connection to the other cluster, which is to follow it.
    type: dict
    required: true
    suboptions: *connection
  old_site_lost:
    description:
      - Whether the other cluster may be left alone where it is gone. It cannot be fenced then, so make sure that it is off or
        cut from its clients. What it had not sent is lost. A cluster that can be reached is fenced all the same.
      - It is gone where none of its C(urls) takes a connection. Any answer (another scope, 401, 503, a TLS error, none to a
        connection that was made) is a refusal, as it is where the new cluster still receives WAL. So give the addresses of
        the members, not that of a load balancer.
      - Patroni below 3.0.4, and with a C(restore_command), does not say whether it receives WAL. Then no member may receive
        any for C(wal_receiver_timeout) (60 s unless configured) before the promotion. An old site without any writes looks
        the same. With a C(restore_command) so does one that accepts writes and reaches only the archive, which gets
        whole segments (16 MiB, or one for each C(archive_timeout)). A warning says so.
    type: bool
    default: false
  max_lag:
    description:
      - Bytes of WAL that the new primary cluster may lack before the old one is fenced. Unset means its
        C(maximum_lag_on_failover). It is promoted only after it has received the rest.
    type: int
  timeout:
    description: Seconds until all has to be done.
    type: float
    default: 300.0
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Both clusters need C(use_pg_rewind), so that an old primary with WAL of its own can follow without being copied anew.
seealso:
  - module: lowtide.ops.patroni_cluster
"""

EXAMPLES = r"""
- name: Have the cluster in the west be the primary one
  lowtide.ops.patroni_site:
    primary:
      urls: [https://west1.example.com:8008, https://west2.example.com:8008]
      username: lowtide
      password_file: /etc/lowtide/patroni-password
    old_primary:
      urls: [https://east1.example.com:8008, https://east2.example.com:8008]
      username: lowtide
      password_file: /etc/lowtide/patroni-password
"""

RETURN = r"""
summary:
  description: One line that says which cluster is the primary one, and what was done for it.
  returned: success
  type: str
  sample: "west is the primary cluster on timeline 5; east accepts no writes"
evidence:
  description: What proves each step, and a line for each member of the primary cluster.
  returned: always
  type: list
  elements: str
primary:
  description: The new primary cluster, as M(lowtide.ops.patroni_cluster_info) returns it.
  returned: when it was read
  type: dict
old_primary:
  description: The other cluster in the same way; none where it is lost.
  returned: when it was read
  type: dict
check_mode:
  description: Whether this was a prediction in check mode.
  returned: always
  type: bool
plan:
  description: What is to be done, in its order.
  returned: always
  type: list
  elements: dict
blockers:
  description:
    - Who may be a second primary, or of whom that is not known, and whether the old cluster does not follow, with what
      to do. What else stands in the way is refused.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds from the first change to the end.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused).
  returned: failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._common.module import run_module
from ..module_utils._patroni.arguments import CONNECTION
from ..module_utils._patroni.operations.site import run_site

CLUSTER: dict[str, t.Any] = {"type": "dict", "required": True, "options": CONNECTION}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "primary": CLUSTER,
            "old_primary": CLUSTER,
            "old_site_lost": {"type": "bool", "default": False},
            "max_lag": {"type": "int"},
            "timeout": {"type": "float", "default": 300.0},
        },
        supports_check_mode=True,
    )
    run_module(module, run_site)


if __name__ == "__main__":
    main()
