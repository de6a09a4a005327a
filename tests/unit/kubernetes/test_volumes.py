# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A claim policy that deletes data stands against a stop and against fewer replicas, and no plan calls it reversible."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Blocker
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints import volumes
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.plans.stop_start import plan_stop
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.saved_state import will_delete_claims
from support.kept_object import load_object, load_objects

Json = dict[str, Any]


@pytest.mark.parametrize("obj", load_objects("claims"), ids=lambda obj: obj["metadata"]["name"])
def test_a_stop_that_will_delete_claims_names_them(obj: Json) -> None:
    """Only a StatefulSet with claims, whose policy for scaling is Delete, and that has pods to lose."""
    workload = Workload.from_object(obj)
    blockers = volumes.find_volume_blockers(workload, 0)
    named = str((obj["metadata"].get("annotations") or {}).get("claims", ""))
    assert [f"the claims {named} with" in blocker.what for blocker in blockers] == ([True] if named else [])
    assert plan_stop(workload, run_id="r", now="t").reversible is (named == "")


def test_words_about_claims() -> None:
    """The policy, the claims, and how to set it first."""
    workload = Workload.from_object(load_object("claims", "numbered"))
    assert volumes.find_volume_blockers(workload, 1) == [
        Blocker(
            object="StatefulSet n/numbered",
            what=(
                "its persistentVolumeClaimRetentionPolicy.whenScaled is Delete: going from 2 to 1 replicas deletes the"
                " claims data-numbered-6 with their data"
            ),
            holder="StatefulSet n/numbered",
            next_step=(
                "Set spec.persistentVolumeClaimRetentionPolicy.whenScaled to Retain first; or set"
                " allow_volume_deletion to true, if that data is not needed any more"
            ),
        )
    ]


@given(st.integers(0, 9))
def test_a_scale_down_loses_the_claims_of_the_pods_that_go(replicas: int) -> None:
    """And as many replicas, or more, lose none."""
    workload = Workload.from_object(load_object("claims", "deletes"))
    claims = volumes.list_claims(workload, replicas)
    assert len(claims) == 2 * max(0, 3 - replicas)
    assert bool(volumes.find_volume_blockers(workload, replicas)) is (replicas < 3)
    assert will_delete_claims(workload, replicas) is (replicas < 3)
