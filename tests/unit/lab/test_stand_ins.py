# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the stand-ins decide, and what is made of the documented rights, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.argo_cd_stand_in import describe_application, is_healing, track
from support.keda_stand_in import (
    PAUSED,
    PAUSED_REPLICAS,
    decide_replicas,
    describe_conditions,
    describe_hpa,
)
from support.kubernetes_account import AuditLog, Right, expand, narrow, read_rules
from support.kubernetes_server import build_path

SPEC = {"minReplicaCount": 1, "maxReplicaCount": 5}


@pytest.mark.parametrize(
    ("annotations", "replicas", "demand", "goal"),
    [
        (None, 0, None, 1),
        (None, 3, None, 3),
        (None, 9, None, 5),
        (None, 1, 4, 4),
        (None, 1, 9, 5),
        ({PAUSED_REPLICAS: "0"}, 3, 4, 0),
        ({PAUSED_REPLICAS: "7"}, 3, None, 7),
        ({PAUSED_REPLICAS: "2", PAUSED: "true"}, 0, None, 2),
        ({PAUSED: "true"}, 0, 4, 0),
        ({PAUSED: "false"}, 0, None, 1),
    ],
)
def test_keda_scales_to_its_bounds_or_to_what_it_was_paused_at(
    annotations: dict[str, str] | None, replicas: int, demand: int | None, goal: int
) -> None:
    scaled_object = {"metadata": {"annotations": annotations}, "spec": SPEC}
    assert decide_replicas(scaled_object, replicas, demand) == goal


def test_keda_has_bounds_of_its_own() -> None:
    """0 to 100, where none are given."""
    scaled_object: dict[str, Any] = {"metadata": {}, "spec": {}}
    assert [decide_replicas(scaled_object, replicas) for replicas in (0, 7, 101)] == [0, 7, 100]


def list_statuses(scaled_object: dict[str, Any], demand: int | None = None) -> list[tuple[str, str]]:
    """Publish the conditions of a ScaledObject, and return type and status of each."""
    scaled_object["status"] = {"conditions": describe_conditions(scaled_object, demand)}
    return [(entry["type"], entry["status"]) for entry in scaled_object["status"]["conditions"]]


def test_keda_publishes_that_it_is_paused_and_resumed() -> None:
    """While it is paused it looks at no triggers."""
    scaled_object: dict[str, Any] = {"metadata": {"annotations": {}}, "spec": SPEC}
    running = [("Ready", "True"), ("Active", "False"), ("Fallback", "False"), ("Paused", "False")]
    assert list_statuses(scaled_object, 0) == running
    scaled_object["metadata"]["annotations"] = {PAUSED_REPLICAS: "0"}
    assert list_statuses(scaled_object, 4) == [*running[:3], ("Paused", "True")]
    scaled_object["metadata"]["annotations"] = {}
    assert list_statuses(scaled_object, 0) == running
    assert scaled_object["status"]["conditions"][3]["reason"] == "ScaledObjectUnpaused"


def test_kedas_hpa_is_owned_by_its_scaled_object() -> None:
    """It has at least one replica, and the annotations of the ScaledObject."""
    metadata = {"name": "k", "uid": "u", "annotations": {"a": "b"}}
    target = {"kind": "StatefulSet", "name": "w"}
    hpa = describe_hpa({"metadata": metadata, "spec": {"scaleTargetRef": target, "minReplicaCount": 0}})
    assert (hpa["metadata"]["name"], hpa["metadata"]["annotations"]) == ("keda-hpa-k", {"a": "b"})
    assert [(owner["kind"], owner["uid"]) for owner in hpa["metadata"]["ownerReferences"]] == [("ScaledObject", "u")]
    assert [hpa["spec"][bound] for bound in ("minReplicas", "maxReplicas")] == [1, 100]


def test_rights_are_expanded_and_narrowed() -> None:
    """Each verb on each resource of each rule, and the same again without one of them."""
    rules = [{"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["get", "patch"]}]
    left_out = Right("patch", "apps", "deployments")
    assert len(expand(rules)) == 4
    assert expand(narrow(rules, left_out)) == expand(rules) - {left_out}


def test_the_documented_role_has_no_right_twice() -> None:
    """And none that is a wildcard."""
    for kind, name in (
        ("Role", "lowtide"),
        ("Role", "lowtide-rollouts"),
        ("ClusterRole", "lowtide-identity"),
        ("ClusterRole", "lowtide-headroom"),
    ):
        rules = read_rules(kind, name)
        counted = sum(len(rule["verbs"]) * len(rule["resources"]) * len(rule["apiGroups"]) for rule in rules)
        assert counted == len(expand(rules))
        assert not any("*" in part for right in expand(rules) for part in right)


def describe_entry(verb: str, user: str = "u", decision: str = "allow", **reference: str) -> dict[str, Any]:
    """Return an entry of an audit log."""
    return {
        "verb": verb,
        "user": {"username": user},
        "annotations": {"authorization.k8s.io/decision": decision},
        "objectRef": {"resource": "deployments", "apiGroup": "apps", **reference},
    }


def test_rights_that_were_used_are_read_from_the_log(tmp_path: Path) -> None:
    """Of that user, allowed, since the beginning of the test, with the subresource, without what everybody may do."""
    log = tmp_path / "audit.log"
    log.write_text(json.dumps(describe_entry("delete")) + "\n", encoding="utf-8")
    audit = AuditLog({"audit_log": str(log)})
    entries = [
        describe_entry("patch", subresource="scale"),
        describe_entry("list"),
        describe_entry("list"),
        describe_entry("get", decision="forbid"),
        describe_entry("watch", user="another-u"),
        describe_entry("create", resource="selfsubjectaccessreviews", apiGroup="authorization.k8s.io"),
        {"verb": "get", "user": {"username": "u"}, "annotations": {}, "requestURI": "/apis/keda.sh"},
    ]
    with log.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)
        file.write('{"verb": "patch", "user": {"username": "u"}')  # being written
    assert audit.read_rights("u") == {Right("patch", "apps", "deployments/scale"), Right("list", "apps", "deployments")}


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("Deployment", "n"), "/apis/apps/v1/namespaces/n/deployments"),
        (("Deployment", "n", "w", "scale"), "/apis/apps/v1/namespaces/n/deployments/w/scale"),
        (("Pod", "n", "w-0"), "/api/v1/namespaces/n/pods/w-0"),
        (("Node", "", "node1"), "/api/v1/nodes/node1"),
    ],
)
def test_paths(arguments: tuple[str, ...], path: str) -> None:
    assert build_path(*arguments) == path


def test_argo_cd_heals_where_its_application_says_so() -> None:
    assert is_healing(describe_application("shop"))
    assert not is_healing(describe_application("shop", self_heal=False))
    assert not is_healing({"spec": {}})


def test_argo_cd_marks_what_it_applies() -> None:
    """The object in Git stays as it is."""
    metadata = {"name": "w", "annotations": {"a": "b"}}
    tracked = track({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata}, "shop", "n")
    identity = "shop:apps/StatefulSet:n/w"
    assert tracked["metadata"]["annotations"] == {"a": "b", "argocd.argoproj.io/tracking-id": identity}
    assert metadata["annotations"] == {"a": "b"}
