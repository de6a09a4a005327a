# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Workloads of other APIs on a real server, as an account that may do only what docs/kubernetes-rights.yml says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.kubernetes_account import AuditLog, expand, name_user, read_rules
from support.rollout_stand_in import API, RolloutStandIn

from .conftest import Namespace
from .steps import INFO, SCALE, WORKLOAD, read_replicas, read_saved

pytestmark = [pytest.mark.lab("kubernetes"), pytest.mark.usefixtures("keda", "other_apis")]
Json = dict[str, Any]
Connect = Callable[..., Json]
RULES = [*read_rules("Role", "lowtide"), *read_rules("Role", "lowtide-rollouts")]
R: Json = {"kind": "Rollout", "name": "r", "api_version": API}
OF_CREWS = {"api_version": "crews.example.org/v1alpha1", "kind": "Crew", "name": "c"}


def describe_rollout(namespace: Namespace, replicas: int) -> Json:
    """A Rollout with the spec of a Deployment."""
    return {**namespace.workload("r", kind="Deployment", replicas=replicas), "apiVersion": API, "kind": "Rollout"}


@pytest.fixture(params=[True, False], ids=["status says ready", "pods are counted"])
def controller(namespace: Namespace, request: pytest.FixtureRequest) -> Iterator[RolloutStandIn]:
    """Who gives a Rollout of 2 its pods, and says how many are ready, or not."""
    with RolloutStandIn(namespace.facts, namespace.name, says_ready=request.param) as stand_in:
        namespace.apply(describe_rollout(namespace, 2))
        namespace.wait("ReplicaSet made", lambda: bool(namespace.list("ReplicaSet")))
        namespace.ready("ReplicaSet", "r-5f8d", 2)
        yield stand_in


@pytest.mark.usefixtures("controller")
def test_a_rollout_is_stopped_started_and_scaled(namespace: Namespace, connect: Connect) -> None:
    """Check mode predicts it, a second run changes nothing, and the rights are exactly those of its Role."""
    audit = AuditLog(namespace.facts)
    account = {**connect(RULES), "timeout": 120}
    for state, left in (("stopped", 0), ("running", 2)):
        predicted = namespace.module(WORKLOAD, check=True, state=state, workloads=[R], **account)
        run = namespace.module(WORKLOAD, state=state, workloads=[R], **account)
        again = namespace.module(WORKLOAD, state=state, workloads=[R], **account)
        assert not run.failed, run.msg
        assert [predicted.changed, run.changed, again.changed] == [True, True, False], again.msg
        assert (predicted["plan"], predicted["diff"]) == (run["plan"], run["diff"])
        assert (read_replicas(namespace, "Rollout", "r"), len(namespace.list("Pod"))) == ([left], left)
        assert (read_saved(namespace, "Rollout", "r") is None) is bool(left)
        looked = namespace.module(INFO, workloads=[R], **account)
        assert not looked.failed, looked.msg
        assert len(looked["stopped_by_lowtide"]) == (0 if left else 1)
    scaled = namespace.module(SCALE, **R, partitions=3, **account)
    assert not scaled.failed, scaled.msg
    assert (scaled.changed, len(namespace.list("Pod"))) == (True, 3)
    documented = expand(read_rules("Role", "lowtide-rollouts"))
    used = audit.wait_for_rights(name_user(namespace.name), documented)
    assert {right for right in used if right.group == "argoproj.io"} == documented


@pytest.mark.usefixtures("controller")
def test_what_info_saw_starts_it_again(namespace: Namespace, connect: Connect) -> None:
    """Its result carries the API."""
    account = {**connect(RULES), "timeout": 120}
    stopped = namespace.module(WORKLOAD, state="stopped", workloads=[R], **account)
    assert not stopped.failed, stopped.msg
    seen = namespace.module(INFO, workloads=[R], **account)
    started = namespace.module(WORKLOAD, state="running", workloads=seen["stopped_by_lowtide"], **account)
    assert not started.failed, started.msg
    assert len(namespace.list("Pod")) == 2


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("workload", "spec", "words"),
    [
        ({"kind": "Experiment", "name": "e", "api_version": API}, {}, "it has no subresource scale"),
        ({"kind": "Experiment", "name": "e", "api_version": API, "plural": "experiments"}, {}, "no subresource scale"),
        (OF_CREWS, {"workers": 5}, "its spec.replicas is 2 and its scale says 5"),
        (OF_CREWS, {}, "it cannot be scaled: "),
        ({"kind": "Crow", "name": "c", "api_version": OF_CREWS["api_version"]}, {}, "it has Crew"),
        ({"kind": "Crew", "name": "c", "api_version": "nobody.example.org/v1"}, {}, "does not have it"),
    ],
)
def test_what_cannot_be_scaled_is_refused(
    namespace: Namespace, workload: Json, spec: Json, words: str, check: bool
) -> None:
    """By name, before anything is changed."""
    for kind, name, version in (("Experiment", "e", API), ("Crew", "c", OF_CREWS["api_version"])):
        metadata = {"name": name, "namespace": namespace.name}
        body = {"replicas": 2, **spec}
        namespace.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": body})
    refused = namespace.module(WORKLOAD, check=check, state="stopped", workloads=[workload], timeout=30)
    assert refused.failed
    assert words in refused.msg
    assert (refused["error"]["refused"], refused.changed) == (True, False)
    assert read_replicas(namespace, "Experiment", "e") + read_replicas(namespace, "Crew", "c") == [2, 2]
