# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""StatefulSets that change one pod after the other: what holds the next one up is named."""

from __future__ import annotations

from typing import Any

import pytest

from unit.kubernetes.yaml_objects import find, replace

from .test_diagnosis import DB, pending, reasons, run

Json = dict[str, Any]


# --- a StatefulSet that goes on only when a pod is ready --------------------------------------------------------------


def make_stuck(policy: str | None, *pods: Json, **fields: Any) -> list[Json]:
    """A StatefulSet of this policy, and its pods."""
    return [replace(find(DB, "StatefulSet"), spec__podManagementPolicy=policy, **fields), *pods]


def make_pod(ordinal: int, reason: str = "", revision: str = "db-66f", **fields: Any) -> Json:
    """A pod that waits for this reason, or serves without one."""
    meta = {"metadata__name": f"db-{ordinal}", "metadata__uid": f"p-{ordinal}"}
    labels = {"app": "db", "controller-revision-hash": revision}
    pod = replace(find(DB, "Pod", "db-0"), **meta, metadata__labels=labels)
    return replace(pending(pod, reason) if reason else pod, **fields)


GONE_DOWN: Json = {"spec__replicas": 0, "status__readyReplicas": 0}
CRASH = "CrashLoopBackOff"


def test_a_stop_that_waits_for_a_pod_that_crashes_names_it() -> None:
    """Of several pods that are not ready only the lowest one is deleted; the others have to be by hand."""
    objects = make_stuck(None, make_pod(0, CRASH), make_pod(1, CRASH), **GONE_DOWN)
    (finding,) = run(objects, "StatefulSet", 0)
    assert (finding.reason, finding.object, finding.revision) == ("OrderedReady", "Pod shop/db-1", "db-66f")
    assert finding.message == (
        "its StatefulSet deletes it only once it is ready, since db-0 is not ready either"
        " (podManagementPolicy OrderedReady); CrashLoopBackOff: container main: CrashLoopBackOff; 0 restarts"
    )
    assert finding.next_step.startswith("Delete the pod (kubectl delete pod)")
    assert "podManagementPolicy Parallel" in finding.next_step
    ready = make_stuck("OrderedReady", make_pod(0, "ContainerCreating"), make_pod(1), make_pod(2, CRASH), **GONE_DOWN)
    assert reasons(run(ready, "StatefulSet", 0)) == [("OrderedReady", "Pod shop/db-2")]
    silent = make_stuck(None, make_pod(0, CRASH), make_pod(1, "ContainerCreating"), **GONE_DOWN)
    assert run(silent, "StatefulSet", 0)[0].message.endswith("(podManagementPolicy OrderedReady); it is not ready")


def test_the_order_is_by_number() -> None:
    """Not by name."""
    objects = make_stuck(None, make_pod(10, CRASH), make_pod(9, CRASH), **GONE_DOWN)
    assert reasons(run(objects, "StatefulSet", 0)) == [("OrderedReady", "Pod shop/db-10")]


@pytest.mark.parametrize(
    "objects",
    [
        make_stuck("Parallel", make_pod(0, CRASH), make_pod(1, CRASH), **GONE_DOWN),
        make_stuck(None, make_pod(0, CRASH), make_pod(1), **GONE_DOWN),
        make_stuck(None, make_pod(0, CRASH), make_pod(1, CRASH), **GONE_DOWN, status__observedGeneration=3),
        make_stuck(None, make_pod(0), make_pod(1, CRASH), **GONE_DOWN),
    ],
)
def test_a_stop_that_is_not_held_up_by_the_order(objects: list[Json]) -> None:
    """Another policy, one pod that is not ready, a controller that has not begun."""
    assert run(objects, "StatefulSet", 0) == []


def test_a_pod_that_leaves_holds_up_a_stop_by_itself() -> None:
    """The controller goes on when it is gone."""
    leaving = make_pod(2, metadata__deletionTimestamp="2026-05-01T10:00:00Z")
    objects = make_stuck(None, make_pod(0, CRASH), make_pod(1, CRASH), leaving, **GONE_DOWN)
    assert reasons(run(objects, "StatefulSet", 0)) == [("Terminating", "Pod shop/db-2")]


def test_a_start_that_waits_for_a_pod_of_an_old_revision_names_it() -> None:
    """The template was corrected, and the pod of the wrong one is not replaced."""
    objects = make_stuck(None, make_pod(0, "ImagePullBackOff", "db-old"), status__replicas=1, status__updatedReplicas=0)
    (finding,) = run(objects, "StatefulSet", 1)
    assert (finding.reason, finding.object) == ("OrderedReady", "Pod shop/db-0")
    assert finding.message == (
        "it is of revision db-old, and its StatefulSet replaces it only once it is ready"
        " (podManagementPolicy OrderedReady); ImagePullBackOff: container main: ImagePullBackOff (image )"
    )
    for others in (
        make_stuck("Parallel", make_pod(0, "ImagePullBackOff", "db-old")),
        make_stuck(None, make_pod(0, "ContainerCreating", "db-old")),
        make_stuck(None, make_pod(0, "", "db-old")),
    ):
        assert run(others, "StatefulSet", 1) == []
    on_delete = make_stuck(None, make_pod(0, CRASH, "db-old"), spec__updateStrategy={"type": "OnDelete"})
    assert reasons(run(on_delete, "StatefulSet", 1)) == [(CRASH, "Pod shop/db-0")]
    assert reasons(run(make_stuck(None, make_pod(0, CRASH)), "StatefulSet", 1)) == [(CRASH, "Pod shop/db-0")]
