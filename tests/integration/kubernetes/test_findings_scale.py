# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Thousands of pods: what a look costs, and that it grows with their number and not with its square.

LOWTIDE_EXHAUSTIVE=1 takes 5,000 pods and 1,000 replicas, instead of a fifth of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.crowd import TOLERATION, add_pods, are_all_running, measure_module, play_node, remove_pods
from support.kubernetes_server import ApiServer

from .conftest import Namespace
from .steps import SCALE, WORKLOAD, apply_ready, name_workloads, stop

pytestmark = [pytest.mark.alone, pytest.mark.lab("kubernetes", "kwok")]
Json = dict[str, Any]
EXHAUSTIVE = os.environ.get("LOWTIDE_EXHAUSTIVE") == "1"
CROWD, REPLICAS = (5_000, 1_000) if EXHAUSTIVE else (1_000, 200)
LOOKS = {"stop": 1, "start": 2}
"""How often the pods are read: a start that does not come to its end reads them once more at its deadline."""
BUDGET_SECONDS = 1.0
"""Of processor time, for the first look at a namespace with so many pods; what a look at an empty one costs is left out."""
GROWTH = 12
"""Of the processor time for five times as many pods: five times as much is linear, 25 times its square."""
NOISE_SECONDS, NOISE_SHARE = 0.05, 0.1
"""What two measurements of the same differ by on a busy machine, at least, and as a share of what is measured."""
NEVER_READY: Json = {"readinessProbe": {"exec": {"command": ["false"]}}}


@pytest.fixture
def node(lab: Json, namespace: Namespace, tmp_path: Path) -> Iterator[str]:
    """A node that KWOK plays, which only pods use that are made for it."""
    with play_node(lab["kubernetes"], lab["kwok"]["program"], f"kwok-{namespace.name}", tmp_path) as name:
        yield name


def grow(namespace: Namespace, server: ApiServer, node: str, numbers: range) -> None:
    """Add pods and wait until they run."""
    add_pods(server, namespace.name, node, numbers)
    namespace.wait("crowd runs", lambda: are_all_running(server, namespace.name), 400)


def measure_looks(namespace: Namespace) -> dict[str, float]:
    """Return the processor time of a stop, which reads pods, and of a start that fails, which follows them."""
    workloads = name_workloads("StatefulSet/w", "Deployment/d")
    stopped, stop_seconds = measure_module(
        WORKLOAD, namespace.params(state="stopped", workloads=workloads, timeout=200)
    )
    assert not stopped.failed, stopped.msg
    started, start_seconds = measure_module(WORKLOAD, namespace.params(state="running", workloads=workloads, timeout=5))
    assert started.failed
    return {"stop": stop_seconds, "start": start_seconds}


def test_a_look_at_thousands_of_pods_is_cheap_and_grows_with_their_number(
    namespace: Namespace, server: ApiServer, node: str
) -> None:
    """Two workloads among 5,000 pods of others, so that the pods of the whole namespace are read."""
    namespace.apply(namespace.workload("w", **NEVER_READY), namespace.workload("d", kind="Deployment", **NEVER_READY))
    alone = measure_looks(namespace)
    grow(namespace, server, node, range(CROWD // 5))
    fifth = measure_looks(namespace)
    grow(namespace, server, node, range(CROWD // 5, CROWD))
    whole = measure_looks(namespace)
    remove_pods(server, namespace.name)
    for look, seconds in whole.items():
        noise = max(NOISE_SECONDS, NOISE_SHARE * alone[look])
        assert seconds - alone[look] <= BUDGET_SECONDS * LOOKS[look], (look, alone, fifth, whole)
        assert seconds - alone[look] <= GROWTH * max(fifth[look] - alone[look], noise), (
            look,
            alone,
            fifth,
            whole,
        )


@pytest.mark.parametrize("kind", [pytest.param("Deployment", marks=pytest.mark.sweep), "StatefulSet"])
def test_many_replicas(namespace: Namespace, node: str, kind: str) -> None:
    """Scaled up and stopped, each within its deadline; what it takes is the controllers' own work."""
    selector = {"tolerations": [TOLERATION], "nodeSelector": {"kubernetes.io/hostname": node}}
    apply_ready(namespace, namespace.workload("w", kind=kind, spec={"terminationGracePeriodSeconds": 0, **selector}))
    scaled = namespace.module(SCALE, kind=kind, name="w", partitions=REPLICAS, timeout=200)
    assert not scaled.failed, scaled.msg
    assert scaled["ready"] == REPLICAS
    stopped = stop(namespace, f"{kind}/w", timeout=200)
    assert not stopped.failed, stopped.msg
    assert namespace.list("Pod") == []
