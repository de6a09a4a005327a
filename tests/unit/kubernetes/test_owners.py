# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who would put the replicas of a workload back: GitOps tools that own the field, operators that own the object."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints import owners
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from support.kept_object import load_object, load_objects

Json = dict[str, Any]


@pytest.mark.parametrize("obj", load_objects("owners"), ids=lambda obj: obj["metadata"]["name"])
def test_who_would_put_the_replicas_back(obj: Json) -> None:
    """One owner at most in each of these; an operator's says how it is told."""
    workload = Workload.from_object(obj)
    annotations = obj["metadata"].get("annotations") or {}
    blockers = owners.find_owner_blockers(workload)
    assert [blocker.holder for blocker in blockers] == ([annotations["expected"]] if "expected" in annotations else [])
    for blocker in blockers:
        assert blocker.object == workload.title
        assert blocker.holder in blocker.what
        assert blocker.next_step.startswith(annotations.get("next", "Let that tool ignore spec."))
        assert blocker.next_step.endswith("then leave gitops out of guards")


@pytest.mark.parametrize(
    ("name", "what", "next_step"),
    [
        (
            "argo-label-and-manager",
            "it is kept by Argo CD application shop (manager argocd-controller set spec.replicas), which may put its"
            " replicas back",
            "Let that tool ignore spec.replicas (or pause it), then leave gitops out of guards",
        ),
        (
            "argo-taken-over",
            "it is kept by Argo CD application shop (argocd.argoproj.io/instance, and"
            " kubectl.kubernetes.io/last-applied-configuration has spec.replicas), which may put its replicas back",
            "Let that tool ignore spec.replicas (or pause it), then leave gitops out of guards",
        ),
        (
            "tracked-without-managers",
            "it is kept by Argo CD application shop (argocd.argoproj.io/tracking-id), which may put its replicas back",
            "Let that tool ignore spec.replicas (or pause it), then leave gitops out of guards",
        ),
        (
            "flux-cronjob",
            "it is kept by Flux Kustomization (manager kustomize-controller set spec.suspend), which may put its"
            " replicas back",
            "Let that tool ignore spec.suspend (or pause it), then leave gitops out of guards",
        ),
        (
            "unknown-operator",
            "it belongs to Thing n/t (example.com/v1), whose operator may put its replicas back",
            "Pause Thing n/t, or set the replicas there, then leave gitops out of guards",
        ),
    ],
)
def test_words_about_owners(name: str, what: str, next_step: str) -> None:
    """The evidence, and what to do."""
    [blocker] = owners.find_owner_blockers(Workload.from_object(load_object("owners", name)))
    assert (blocker.what, blocker.next_step) == (what, next_step)


@pytest.mark.parametrize(
    ("group", "how"),
    [
        ("kafka.strimzi.io", "Annotate Kind n/o with strimzi.io/pause-reconciliation=true"),
        ("cluster.redpanda.com", "Annotate Kind n/o with cluster.redpanda.com/managed=false"),
        ("monitoring.coreos.com", "Set spec.paused of Kind n/o to true"),
        ("rabbitmq.com", "Label Kind n/o with rabbitmq.com/pauseReconciliation=true"),
        ("elasticsearch.k8s.elastic.co", "Annotate Kind n/o with eck.k8s.elastic.co/managed=false"),
        ("kibana.k8s.elastic.co", "Annotate Kind n/o with eck.k8s.elastic.co/managed=false"),
        ("example.com", "Pause Kind n/o, or set the replicas there"),
    ],
)
def test_how_operators_are_told(group: str, how: str) -> None:
    """Those that are known, whatever the version of their API; only Strimzi's references need not name a controller."""
    reference = {"apiVersion": f"{group}/v9", "kind": "Kind", "name": "o", "controller": True}
    meta: Json = {"name": "w", "namespace": "n", "ownerReferences": [reference]}
    workload = Workload.from_object({"kind": "StatefulSet", "metadata": meta})
    blocker = owners.find_operator_blocker(workload)
    assert blocker is not None
    assert blocker.next_step == f"{how}, then leave gitops out of guards"
    reference["controller"] = False
    assert (owners.find_operator_blocker(workload) is not None) is (group == "kafka.strimzi.io")


def test_an_operators_object_that_is_in_git_has_two_owners() -> None:
    """Both are told."""
    obj = load_object("owners", "prometheus")
    obj["metadata"]["managedFields"] = load_object("owners", "flux")["metadata"]["managedFields"]
    blockers = owners.find_owner_blockers(Workload.from_object(obj))
    assert [blocker.holder for blocker in blockers] == ["Flux Kustomization", "Prometheus n/k8s"]
