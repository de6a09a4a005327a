# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether fewer replicas delete volumes: a StatefulSet may tell its controller to delete the claims of pods that go.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

from ..._common.errors import Refusal
from ..._common.outcome import Blocker
from ..._common.text import join_some
from ..fields import as_int, get_path
from ..objects import Workload
from ..saved_state import will_delete_claims

ALLOW_OPTION = "allow_volume_deletion"
"""The option with which claims may be deleted."""


def list_claims(workload: Workload, replicas: int) -> list[str]:
    """Return the names of the claims of the pods that go when only ``replicas`` stay, the highest pod first."""
    first = as_int(get_path(workload.raw, "spec", "ordinals", "start"))
    gone = range(first + workload.replicas - 1, first + replicas - 1, -1)
    return [f"{claim}-{workload.name}-{ordinal}" for ordinal in gone for claim in workload.volume_claims]


def refuse_volume_deletion(workload: Workload, replicas: int) -> None:
    """Raise a Refusal when the workload, as it is now, loses claims by going down to this number."""
    for blocker in find_volume_blockers(workload, replicas):
        raise Refusal(obj=blocker.object, problem=blocker.what, next_step=blocker.next_step)


def find_volume_blockers(workload: Workload, replicas: int) -> list[Blocker]:
    """Return what deletes data when the workload goes down to this number; this guard cannot be left out."""
    if not will_delete_claims(workload, replicas):
        return []
    claims = join_some(list_claims(workload, replicas))
    return [
        Blocker(
            object=workload.title,
            what=(
                f"its persistentVolumeClaimRetentionPolicy.whenScaled is Delete: going from {workload.replicas} to"
                f" {replicas} replicas deletes the claims {claims} with their data"
            ),
            holder=workload.title,
            next_step=(
                "Set spec.persistentVolumeClaimRetentionPolicy.whenScaled to Retain first; or set"
                f" {ALLOW_OPTION} to true, if that data is not needed any more"
            ),
        )
    ]
