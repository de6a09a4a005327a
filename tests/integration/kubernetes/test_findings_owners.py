# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who puts the replicas back: operators, Argo CD, Flux, by what they leave on an object."""

from __future__ import annotations

from typing import Any

import pytest

from support.kubernetes_objects import refer_to

from .conftest import Namespace
from .steps import SCALE, apply_ready, read_replicas, start, stop, tell

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
ARGO_CD_LABEL = {"app.kubernetes.io/instance": "shop"}
ARGO_CD_ANNOTATION = {"argocd.argoproj.io/tracking-id": "shop:apps/StatefulSet:w"}


def apply_as(namespace: Namespace, workload: Json, manager: str) -> None:
    """Apply a workload as that field manager, so that it owns each field which is given."""
    namespace.request("PATCH", workload["kind"], workload["metadata"]["name"], workload, manager=manager)


def check_refused(namespace: Namespace, *words: str) -> None:
    """Check that neither a stop nor a scaling is done, in check mode either, and that the owner is named."""
    for check in (True, False):
        for run in (
            stop(namespace, "StatefulSet/w", check=check, timeout=20),
            namespace.module(SCALE, check=check, kind="StatefulSet", name="w", partitions=3, timeout=20),
        ):
            assert run.failed, tell(run)
            assert (run["error"]["refused"], run.changed) == (True, False)
            assert [word for word in words if word not in run.msg] == []
            assert run["blockers"]
    assert read_replicas(namespace, "StatefulSet", "w") == [1]


def test_a_workload_of_an_operator_is_not_stopped(namespace: Namespace) -> None:
    """Its owner makes it as it was, perhaps after everything was reported to be well."""
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "events"}})
    workload = namespace.workload("w")
    workload["metadata"]["ownerReferences"] = [refer_to(namespace.get("ConfigMap", "events"), "ConfigMap")]
    apply_ready(namespace, workload)
    check_refused(namespace, "ConfigMap", "events")


@pytest.mark.parametrize(
    "manager", ["argocd-controller", "argocd-application-controller", "kustomize-controller", "helm-controller"]
)
def test_a_tool_that_applies_the_replicas_is_named(namespace: Namespace, manager: str) -> None:
    """By the manager of the field, which is there without any mark of its own."""
    workload = namespace.workload("w")
    if manager.startswith("argocd"):
        workload["metadata"]["labels"] = ARGO_CD_LABEL
    apply_as(namespace, workload, manager)
    namespace.ready("StatefulSet", "w", 1)
    check_refused(namespace, "Argo CD" if manager.startswith("argocd") else "Flux")


def test_a_tool_that_leaves_the_replicas_alone_is_in_nobody_s_way(namespace: Namespace) -> None:
    """It tracks the object and applies it without replicas, as its documentation says where something else scales."""
    workload = namespace.workload("w")
    workload["metadata"]["annotations"] = ARGO_CD_ANNOTATION
    del workload["spec"]["replicas"]
    apply_as(namespace, workload, "argocd-controller")
    namespace.set_replicas("StatefulSet", "w", 2, manager="kubectl-scale")
    namespace.ready("StatefulSet", "w", 2)
    stopped = stop(namespace, "StatefulSet/w", timeout=120)
    assert not stopped.failed, stopped.msg
    started = start(namespace, "StatefulSet/w", timeout=120)
    assert not started.failed, started.msg
    assert read_replicas(namespace, "StatefulSet", "w") == [2]


def test_a_label_of_helm_alone_is_no_owner(namespace: Namespace) -> None:
    """Charts set app.kubernetes.io/instance without Argo CD having anything to do with them."""
    workload = namespace.workload("w")
    workload["metadata"]["labels"] = ARGO_CD_LABEL
    apply_as(namespace, workload, "helm")
    namespace.ready("StatefulSet", "w", 1)
    stopped = stop(namespace, "StatefulSet/w", timeout=120)
    assert not stopped.failed, stopped.msg
