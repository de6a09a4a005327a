# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Patroni's REST interface is reached. Private to lowtide.ops: do not import from other collections.

Mirrors ``plugins/module_utils/_patroni/arguments.py``.
"""

from __future__ import annotations


class ModuleDocFragment:
    """The connection options of every module that speaks with Patroni."""

    DOCUMENTATION = r"""
options:
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
    description: Password to O(username).
    type: str
  password_file:
    description: A file with the password in place of O(password), on the host where the module runs.
    type: path
  ca_path:
    description: Certificate of the authority that signed the members' certificates, in PEM, instead of the system's.
    type: path
  client_cert:
    description: Certificate that is shown to the members (C(restapi.verify_client)), in PEM.
    type: path
  client_key:
    description: Key to O(client_cert), without a passphrase.
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
"""
