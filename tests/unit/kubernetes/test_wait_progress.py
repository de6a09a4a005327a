# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rollout's time is the time without progress: what renews it, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import WaitTimeout
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.diagnosis import GracePeriod
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.rollout_conditions import RolledOut
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.wait import wait_until
from unit.kubernetes.timeline_cache import TimelineCache
from unit.kubernetes.yaml_objects import find, load, replace

Json = dict[str, Any]
WEB = load("deployment")


def make_rollout(*counts: int, generation: int = 7) -> Json:
    """Return a Deployment of 3 replicas with these numbers of pods, updated, ready and available ones."""
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    status = {f"status__{name}": count for name, count in zip(names, counts, strict=True)}
    status |= {"spec__replicas": 3, "metadata__generation": 7, "status__observedGeneration": generation}
    return replace(find(WEB, "Deployment"), **status)


def wait_for_rollout(cache: TimelineCache, seconds: float) -> None:
    """Wait until the Deployment is rolled out."""
    condition = RolledOut(Workload.from_object(make_rollout(3, 3, 3, 3)), None)
    deadline = Deadline(seconds, clock=cache.clock)
    wait_until([condition], cache, deadline=deadline, grace=GracePeriod(), outcome=Outcome(), diagnose_after=1.0)


def test_a_rollout_that_progresses_takes_longer_than_its_time() -> None:
    """Each pod of the new revision that becomes ready gives the whole time again; 75 s of 20."""
    cache = TimelineCache(
        {
            0.0: [make_rollout(3, 0, 3, 3, generation=6)],
            5.0: [make_rollout(4, 1, 3, 3)],
            20.0: [make_rollout(4, 1, 4, 4)],
            38.0: [make_rollout(4, 2, 4, 3)],
            55.0: [make_rollout(4, 3, 4, 4)],
            75.0: [make_rollout(3, 3, 3, 3)],
        }
    )
    wait_for_rollout(cache, 20)
    assert cache.now == 75.0


def test_readiness_that_flaps_is_no_progress() -> None:
    """Only more than ever before is; the first time that it was ready is what the time counts from."""
    unready, ready = [make_rollout(4, 1, 3, 3)], [make_rollout(4, 1, 4, 4)]
    timeline = {0.0: unready} | {float(at): ready if at % 10 else unready for at in range(5, 200, 5)}
    cache = TimelineCache(timeline)
    with pytest.raises(WaitTimeout, match="after 20 s without progress: its new pod template: 4 of 3 replicas ready"):
        wait_for_rollout(cache, 20)
    assert cache.now == 25.0


def test_old_pods_that_end_and_new_ones_that_do_not_serve_are_no_progress() -> None:
    """A rollout that takes pods away and adds ones that never become ready ends in time."""
    cache = TimelineCache(
        {
            0.0: [make_rollout(3, 0, 3, 3)],
            8.0: [make_rollout(2, 0, 2, 2)],
            16.0: [make_rollout(3, 1, 2, 2)],
            24.0: [make_rollout(4, 2, 2, 2)],
        }
    )
    with pytest.raises(WaitTimeout):
        wait_for_rollout(cache, 20)
    assert cache.now == 20.0


def test_progress_that_no_watch_has_told_of_counts() -> None:
    """What the server says at the deadline gives the time again, once."""
    cache = TimelineCache({0.0: [make_rollout(4, 1, 3, 3)]}, truth=[make_rollout(4, 2, 4, 4)])
    with pytest.raises(WaitTimeout):
        wait_for_rollout(cache, 20)
    assert cache.refreshed == [20.0, 40.0]


def test_time_without_progress_counts_for_each_goal() -> None:
    """An autoscaler that takes replicas away hides no progress, and one that swings adds none."""
    many, few = make_rollout(4, 2, 4, 4), replace(make_rollout(3, 2, 3, 3), spec__replicas=2)
    timeline = {float(at): [few if at % 20 else many] for at in range(0, 300, 10)}
    cache = TimelineCache(timeline)
    with pytest.raises(WaitTimeout):
        wait_for_rollout(cache, 25)
    assert cache.now == 35.0
