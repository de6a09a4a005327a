# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Volumes outlive a stop, and where their StatefulSet would delete them, nothing is stopped without being asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes_objects import add_claims, name_claim

from .conftest import Namespace
from .steps import SCALE, apply_ready, read_replicas, start, stop, tell

pytestmark = pytest.mark.lab("kubernetes")
Volume = Callable[[str, int], Path]
ALLOWED: dict[str, Any] = {"allow_volume_deletion": True}
"""Nothing else lets volumes go: it is no guard that can be left out."""


def read_claims(namespace: Namespace) -> dict[str, str]:
    """Return the uid of each claim that is not being deleted, by name."""
    claims = [claim["metadata"] for claim in namespace.list("PersistentVolumeClaim")]
    return {claim["name"]: claim["uid"] for claim in claims if "deletionTimestamp" not in claim}


def apply_with_claims(namespace: Namespace, replicas: int, **policy: str) -> dict[str, str]:
    """Create a StatefulSet with claims and return them; its pods need not run for that."""
    namespace.apply(add_claims(namespace.workload("w", replicas=replicas), **policy))
    namespace.wait("claims", lambda: len(read_claims(namespace)) == replicas)
    namespace.wait("counted", lambda: namespace.get("StatefulSet", "w").get("status", {}).get("replicas") == replicas)
    return read_claims(namespace)


@pytest.mark.parametrize("check", [True, False], ids=["check mode", "real"])
def test_a_stop_that_would_delete_volumes_is_refused(namespace: Namespace, check: bool) -> None:
    """By the policy's name, with the way out; the claims stay."""
    claims = apply_with_claims(namespace, 1, when_scaled="Delete")
    refused = stop(namespace, "StatefulSet/w", check=check, guards=[], timeout=20)
    assert refused.failed, tell(refused)
    assert (refused["error"]["refused"], refused.changed) == (True, False)
    assert f"StatefulSet {namespace.name}/w" in refused.msg
    assert "whenScaled" in refused.msg
    assert "Retain" in refused["error"]["next_step"]
    assert refused["blockers"]
    assert read_replicas(namespace, "StatefulSet", "w") == [1]
    assert read_claims(namespace) == claims


def test_scaling_down_what_would_delete_volumes_is_refused(namespace: Namespace) -> None:
    """The claims of the pods that go would go with them."""
    claims = apply_with_claims(namespace, 2, when_scaled="Delete")
    refused = namespace.module(
        SCALE, kind="StatefulSet", name="w", partitions=1, allow_scale_down=True, guards=[], timeout=20
    )
    assert refused.failed, tell(refused)
    assert (refused["error"]["refused"], refused.changed) == (True, False)
    assert "whenScaled" in refused.msg
    assert read_replicas(namespace, "StatefulSet", "w") == [2]
    assert read_claims(namespace) == claims


def test_a_stop_that_may_delete_volumes_is_called_irreversible(namespace: Namespace) -> None:
    """Asked for in so many words, and said in the plan, also in check mode."""
    apply_with_claims(namespace, 1, when_scaled="Delete")
    for check in (True, False):
        run = stop(namespace, "StatefulSet/w", check=check, timeout=120, **ALLOWED)
        assert not run.failed, run.msg
        (item,) = [item for item in run["plan"] if item["object"] == f"StatefulSet {namespace.name}/w"]
        assert item["reversible"] is False
    namespace.wait("claims gone", lambda: read_claims(namespace) == {})


def test_volumes_that_are_retained_come_back_with_what_was_on_them(namespace: Namespace, volume: Volume) -> None:
    """The same claim, the same file; whenDeleted is about another deletion and stands in nobody's way."""
    folder = volume("w", 0)
    command = ["sh", "-c", "echo started >> /data/starts; exec sleep 100000"]
    workload = add_claims(namespace.workload("w", command=command), when_scaled="Retain", when_deleted="Delete")
    apply_ready(namespace, workload)
    claims = read_claims(namespace)
    assert list(claims) == [name_claim("w", 0)]
    stopped = stop(namespace, "StatefulSet/w", timeout=120)
    assert not stopped.failed, stopped.msg
    assert [item["reversible"] for item in stopped["plan"]] == [True]
    started = start(namespace, "StatefulSet/w", timeout=120)
    assert not started.failed, started.msg
    assert read_claims(namespace) == claims
    assert (folder / "starts").read_text(encoding="utf-8") == "started\n" * 2


def test_scaling_up_keeps_volumes_and_is_not_refused(namespace: Namespace, volume: Volume) -> None:
    """Only fewer replicas let claims go, whatever the policy."""
    for number in range(2):
        volume("w", number)
    apply_ready(namespace, add_claims(namespace.workload("w"), when_scaled="Delete"))
    scaled = namespace.module(SCALE, kind="StatefulSet", name="w", partitions=2, timeout=120)
    assert not scaled.failed, scaled.msg
    assert len(read_claims(namespace)) == 2
