# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be the place of a site's windows in a container, as each AWX job runs in one.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os

from ansible_collections.lowtide.ops.plugins.module_utils._common.containers import find_fleeting
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal


def refuse_fleeting_directory(directory: str, *, is_job: bool) -> None:
    """Raise Refusal where lease and journals would end with this container, so that the next run would know nothing."""
    why = find_fleeting(directory, is_job=is_job)
    if why:
        raise Refusal(
            obj=f"window_dir {directory}",
            problem=why,
            next_step="Set window_store to a Kubernetes or PostgreSQL connection, or mount a volume for window_dir "
            "that all nodes share (ReadWriteMany)",
        )


def refuse_common_site(site: str) -> None:
    """Raise Refusal where a job of AWX has a directory for its site: it is the same one for every inventory."""
    if os.path.isabs(site):
        raise Refusal(
            obj=f"window_site {site}",
            problem="in a job of AWX that directory is the same for every inventory, so that sites would share a lease",
            next_step="Set window_site to the name of the site, in the inventory's variables",
        )
