# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules promise about modes, reruns and defaults. Private to lowtide.ops: do not import from other collections.

A module that acts extends C(lowtide.ops._attributes) and states C(support) itself; a module that only reads extends
C(lowtide.ops._attributes.info_module) as well; a member of an action group extends C(lowtide.ops._attributes.actiongroup_NAME).
"""

from __future__ import annotations


class ModuleDocFragment:
    """One class attribute for each fragment, as Ansible looks them up."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: With C(check_mode) nothing is written, and the result says what the same run without it would do.
  diff_mode:
    description: With C(--diff) the result holds the values before and after the change.
  idempotent:
    description: Running again with the same arguments, in a world that nobody else touched, changes nothing.
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module only reads.
  diff_mode:
    support: N/A
    details:
      - This module only reads.
  idempotent:
    support: full
    details:
      - This module only reads.
"""

    ACTIONGROUP_KAFKA = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/lowtide.ops.kafka) in C(module_defaults) to set the connection once for all its modules.
    support: full
    membership:
      - lowtide.ops.kafka
"""

    ACTIONGROUP_KUBERNETES = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/lowtide.ops.kubernetes) in C(module_defaults) to set the connection once for all its modules.
    support: full
    membership:
      - lowtide.ops.kubernetes
"""

    ACTIONGROUP_MYSQL = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/lowtide.ops.mysql) in C(module_defaults) to set the connection once for all its modules.
    support: full
    membership:
      - lowtide.ops.mysql
"""

    ACTIONGROUP_PATRONI = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/lowtide.ops.patroni) in C(module_defaults) to set the connection once for all its modules.
    support: full
    membership:
      - lowtide.ops.patroni
"""

    ACTIONGROUP_POSTGRESQL = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/lowtide.ops.postgresql) in C(module_defaults) to set the connection once for all its modules.
    support: full
    membership:
      - lowtide.ops.postgresql
"""

    ACTIONGROUP_S3 = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/lowtide.ops.s3) in C(module_defaults) to set the connection once for all its modules.
    support: full
    membership:
      - lowtide.ops.s3
"""
