# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a MariaDB connection. Private to lowtide.ops: do not import from other collections.

Mirrors ``CONNECTION_SPEC`` in module_utils/_mysql/connection.py.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules of the action group C(lowtide.ops.mysql)."""

    DOCUMENTATION = r"""
options:
  login_host:
    description: Host name or address of the server.
    type: str
    default: localhost
  login_port:
    description: Port of the server.
    type: int
    default: 3306
  login_user:
    description:
      - The account to connect as. Unset means C(user) of O(option_file).
      - The file C(docs/mysql-rights.sql) of the collection has the rights that each module needs.
    type: str
  login_password:
    description: Password of O(login_user). Unset means C(password) of O(option_file).
    type: str
  login_unix_socket:
    description: Socket of a server on the host that runs this task; O(login_host) is not used then.
    type: path
  option_file:
    description:
      - An option file of MariaDB's clients, of which C(user) and C(password) of the section C([client]) are read. It has to
        be readable by its owner only.
      - Client programs get the password in a file in memory, which they inherit. It is in no argument and no environment.
    type: path
  ca_cert:
    description:
      - Certificate of the authority that signed the server's certificate. With it, TLS is required and verified.
      - Without it, a connection to another host is not verified and may be unencrypted, which is warned of.
    type: path
  client_cert:
    description: Client certificate.
    type: path
  client_key:
    description: Key of O(client_cert), readable by its owner only.
    type: path
  check_hostname:
    description: Whether the name in the server's certificate is compared with O(login_host).
    type: bool
    default: true
  connect_timeout:
    description: Seconds to wait for a connection.
    type: int
    default: 10
requirements:
  - PyMySQL >= 1.1
  - MariaDB 10.6 or newer; tested is 10.11. A server of another product is refused
"""
