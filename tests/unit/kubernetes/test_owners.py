# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who would put the replicas of a workload back: GitOps tools that own the field, operators that own the object."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.constraints import owners
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.objects import Workload
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.patches import Write
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


def make_taken(*entries: Json, **metadata: Any) -> Workload:
    """A workload whose fields belong to these managers."""
    meta = {"name": "w", "namespace": "n", "uid": "u", "managedFields": list(entries), **metadata}
    return Workload.from_object({"kind": "StatefulSet", "metadata": meta, "spec": {"replicas": 3}})


def own(manager: str, *fields: str, operation: str = "Update") -> Json:
    """What a manager owns of a spec."""
    return {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {f"f:{name}": {} for name in fields}}}


@pytest.mark.parametrize("manager", ["lowtide.ops", "lowtide.ops/r", "keda-operator", "kubectl"])
def test_a_client_side_apply_keeps_what_was_taken_over(manager: str) -> None:
    """By this collection or an autoscaler: Argo CD sets the other fields, and has the replicas in Git."""
    applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"spec": {"replicas": 3}}'}
    workload = make_taken(own("argocd-controller", "template"), own(manager, "replicas"), annotations=applied)
    blockers = owners.find_owner_blockers(workload)
    assert [blocker.holder for blocker in blockers] == ([] if manager == "kubectl" else ["Argo CD application"])
    assert all("last-applied-configuration has spec.replicas" in blocker.what for blocker in blockers)
    of_none = make_taken(own("other", "template"), own(manager, "replicas"), annotations=applied)
    assert owners.find_owner_blockers(of_none) == []


def test_an_apply_by_the_server_is_remembered_by_the_write_that_takes_over() -> None:
    """Nothing else tells of it afterwards; without replicas in Git nothing is remembered."""
    before = make_taken(own("argocd-controller", "template", "replicas", operation="Apply"))
    write = Write({"spec": {"replicas": 0}, "metadata": {"annotations": {"a": "b"}}}, (("spec", "replicas"),))
    taking = owners.remember_owner(write, before, run_id="r", now="2026-01-01T00:00:00Z")
    assert taking is not None
    annotations = taking.body["metadata"]["annotations"]
    assert (annotations["a"], taking.body["spec"]) == ("b", {"replicas": 0})
    fields = [own("argocd-controller", "template", operation="Apply"), own("lowtide.ops", "replicas")]
    [blocker] = owners.find_owner_blockers(make_taken(*fields, annotations=annotations))
    assert "manager argocd-controller set spec.replicas before run r" in blocker.what
    assert owners.find_owner_blockers(make_taken(*fields)) == []
    unreadable = {"lowtide.ops/replicas-taken-from": "{"}
    assert owners.find_owner_blockers(make_taken(*fields, annotations=unreadable)) == []
    assert owners.find_owner_blockers(make_taken(fields[1], annotations=annotations)) == []
    untouched = make_taken(own("argocd-controller", "template", operation="Apply"))
    assert owners.remember_owner(write, untouched, run_id="r", now="") == write
    assert owners.remember_owner(None, before, run_id="r", now="") is None


@pytest.mark.parametrize(
    ("marks", "is_kept"), [({}, True), ({"helm.toolkit.fluxcd.io/driftDetection": "disabled"}, False)]
)
@pytest.mark.parametrize("place", ["labels", "annotations"])
def test_a_helm_release_keeps_what_it_looks_after(marks: Json, is_kept: bool, place: str) -> None:
    """Before and after our own write, unless its drift detection is off for the object."""
    first = make_taken(own("helm-controller", "template", "replicas"), **{place: marks})
    later = make_taken(own("helm-controller", "template"), own("lowtide.ops", "replicas"), **{place: marks})
    for workload in (first, later):
        assert bool(owners.find_owner_blockers(workload)) is is_kept
    scaled = make_taken(own("helm-controller", "template"), own("kube-controller-manager", "replicas"))
    assert owners.find_owner_blockers(scaled) == []
