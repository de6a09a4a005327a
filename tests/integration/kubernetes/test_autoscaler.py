# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_autoscaler against a real cluster, whose controller of HPAs keeps the bounds though the lab has no metrics."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from support.kubernetes_account import AuditLog, expand, name_user, read_rules
from support.moving_autoscaler import describe_autoscaler

from .conftest import Namespace
from .test_scale import scaled_object
from .test_scale_declared import apply_api, list_pods

pytestmark = pytest.mark.lab("kubernetes")
AUTOSCALER = "k8s_autoscaler"
HPA = "HorizontalPodAutoscaler"
Json = dict[str, Any]
CPU: Json = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
}
QUEUE: Json = {
    "type": "External",
    "external": {"metric": {"name": "queue_length"}, "target": {"type": "AverageValue", "averageValue": "0.5"}},
}
BEHAVIOR: Json = {
    "scaleDown": {"stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
}
DECLARED: Json = {
    "name": "api",
    "target": {"kind": "Deployment", "name": "api"},
    "min_replicas": 3,
    "max_replicas": 6,
    "metrics": [CPU, QUEUE],
    "behavior": BEHAVIOR,
}
BEFORE = "lowtide.ops/autoscaler-before"


def read_spec(namespace: Namespace) -> Json:
    """Return the spec of the HPA."""
    spec: Json = namespace.get(HPA, "api")["spec"]
    return spec


@pytest.mark.procedure("C6", "E11")
def test_made_and_changed_with_the_documented_rights(namespace: Namespace, connect: Callable[..., Json]) -> None:
    """Check, real, check again, real again, for one that is made and one that is changed; the target follows."""
    apply_api(namespace, replicas=2)
    before = list_pods(namespace)
    account = connect(read_rules("Role", "lowtide-autoscaler"))
    predicted = namespace.module(AUTOSCALER, check=True, **DECLARED, **account)
    assert not predicted.failed, predicted.msg
    assert (predicted.changed, namespace.list(HPA)) == (True, [])
    made = namespace.module(AUTOSCALER, timeout=300, **DECLARED, **account)
    assert not made.failed, made.msg
    assert (made.changed, made["plan"], made["diff"]) == (True, predicted["plan"], predicted["diff"])
    assert [entry["what"] for entry in made["plan"]][-1] == "replicas 2 -> 3"
    assert namespace.get("Deployment", "api")["status"]["readyReplicas"] == 3
    after = list_pods(namespace)
    assert {uid: after.get(uid) for uid in before} == before
    check_unchanged(namespace, account, DECLARED)

    changed = {**DECLARED, "max_replicas": 9, "metrics": [CPU], "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}
    foreseen = namespace.module(AUTOSCALER, check=True, **changed, **account)
    assert foreseen.changed
    done = namespace.module(AUTOSCALER, **changed, **account)
    assert not done.failed, done.msg
    assert (done.changed, done["plan"], done["diff"]) == (True, foreseen["plan"], foreseen["diff"])
    spec = read_spec(namespace)
    assert (spec["maxReplicas"], len(spec["metrics"])) == (9, 1)
    down = spec["behavior"]["scaleDown"]
    assert (down["selectPolicy"], down["stabilizationWindowSeconds"]) == ("Disabled", 600)
    check_unchanged(namespace, account, changed)


def check_unchanged(namespace: Namespace, account: Json, declared: Json) -> None:
    """Check that neither a rehearsal nor a run has anything to do."""
    version = namespace.get(HPA, "api")["metadata"]["uid"], read_spec(namespace)
    for check in (True, False):
        again = namespace.module(AUTOSCALER, check=check, **declared, **account)
        assert not again.failed, again.msg
        assert (again.changed, again["plan"]) == (False, [])
        assert (namespace.get(HPA, "api")["metadata"]["uid"], read_spec(namespace)) == version


@pytest.mark.procedure("C6")
def test_metrics_that_nobody_serves_are_named(namespace: Namespace, connect: Callable[..., Json]) -> None:
    """Foreseen in check mode by what the cluster serves, and told at once by the real controller's reason; no failure."""
    apply_api(namespace, replicas=3)
    account = connect(read_rules("Role", "lowtide-autoscaler"))
    predicted = namespace.module(AUTOSCALER, check=True, **DECLARED, **account)
    assert [blocker["holder"] for blocker in predicted["blockers"]] == [
        "API metrics.k8s.io",
        "API external.metrics.k8s.io",
    ]
    assert "the cluster does not serve the API metrics.k8s.io/v1beta1" in predicted["blockers"][0]["what"]
    assert "Install metrics-server" in predicted["blockers"][0]["next_step"]
    made = namespace.module(AUTOSCALER, timeout=300, **DECLARED, **account)
    assert not made.failed, made.msg
    assert made["blockers"][0]["what"].startswith("FailedGetResourceMetric: "), made["blockers"]
    assert made["waited"] < 150


@pytest.mark.procedure("C6")
def test_a_change_for_a_time_is_given_back(namespace: Namespace) -> None:
    """Not before its end; then exactly, except for what another client has changed since."""
    apply_api(namespace, replicas=2)
    namespace.apply({**describe_autoscaler("api", 2, 3, kind="Deployment"), "metadata": {"name": "api"}})
    before = read_spec(namespace)
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    wide: Json = {"name": "api", "min_replicas": 3, "max_replicas": 5, "behavior": BEHAVIOR}
    done = namespace.module(AUTOSCALER, timeout=300, until=end, **wide)
    assert not done.failed, done.msg
    assert namespace.get("Deployment", "api")["spec"]["replicas"] == 3
    early = namespace.module(AUTOSCALER, name="api", state="expired")
    assert (early.failed, early.changed, early["summary"]) == (
        False,
        False,
        f"HorizontalPodAutoscaler {namespace.name}/api is unchanged (its temporary change ends at {end})",
    )
    namespace.request("PATCH", HPA, "api", {"spec": {"maxReplicas": 4}}, type_="merge-patch+json", manager="somebody")
    foreseen = namespace.module(AUTOSCALER, name="api", state="restored", check=True)
    restored = namespace.module(AUTOSCALER, name="api", state="restored")
    assert not restored.failed, restored.msg
    assert (restored.changed, restored["plan"]) == (True, foreseen["plan"])
    assert "left, as another client has changed it since: maxReplicas" in restored["summary"]
    assert read_spec(namespace) == {**before, "maxReplicas": 4}
    assert BEFORE not in namespace.get(HPA, "api")["metadata"].get("annotations", {})
    again = namespace.module(AUTOSCALER, name="api", state="restored")
    assert (again.failed, again.changed) == (False, False)


@pytest.mark.usefixtures("keda")
@pytest.mark.procedure("C6", "E11", "B10")
def test_refused_by_name(namespace: Namespace) -> None:
    """A second autoscaler, bounds that cannot be, replicas that would go, a threshold that no HPA has, and a full database."""
    apply_api(namespace, replicas=3)
    declared = {**DECLARED, "min_replicas": 1}
    pool = {"max_connections": 100, "reserved": 3, "used_by_others": 17, "pool_per_replica": 20}
    cases: list[tuple[Json, str]] = [
        ({"min_replicas": 9}, "its minReplicas would be 9 and its maxReplicas 6"),
        ({"max_replicas": 2}, "let go 1 of them at once"),
        ({"scale_down_utilisation": 30}, "stabilizationWindowSeconds"),
        ({"connection_budget": pool}, "4 replicas fit"),
        ({"metrics": None}, "metrics is not declared"),
        ({"target": {"kind": "Deployment", "name": "other"}}, "it does not exist"),
        ({"until": "2001-01-01T00:00:00Z"}, "has passed"),
    ]
    for params, words in cases:
        check_refused(namespace, {**declared, **params}, words)
    namespace.apply(describe_autoscaler("api", 1, 6, kind="Deployment"))
    check_refused(namespace, declared, f"HorizontalPodAutoscaler {namespace.name}/api-hpa scales it already")
    namespace.delete(HPA, "api-hpa")
    scaled = scaled_object(namespace, "api", 1, 6)
    scaled["spec"]["scaleTargetRef"]["kind"] = "Deployment"
    namespace.apply(scaled)
    check_refused(namespace, declared, f"ScaledObject {namespace.name}/api-keda scales it already")


def check_refused(namespace: Namespace, declared: Json, words: str) -> None:
    """Check that it is refused in check mode and without, and that there is no HPA of that name after it."""
    for check in (True, False):
        run = namespace.module(AUTOSCALER, check=check, **declared)
        assert run.failed, declared
        assert run["error"]["refused"], run.msg
        assert words in run.msg, (declared, run.msg)
    assert [hpa for hpa in namespace.list(HPA) if hpa["metadata"]["name"] == "api"] == []


@pytest.mark.usefixtures("keda")
def test_the_documented_rights_are_those_that_are_used(namespace: Namespace, connect: Callable[..., Json]) -> None:
    """No more and no less, whatever it comes upon: a new HPA, one that exists, a quota, a target that never serves."""
    apply_api(namespace, replicas=1)
    namespace.apply(
        namespace.workload("w"),
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "50"}}},
        namespace.workload("never", kind="Deployment", image="localhost/none:1", imagePullPolicy="Never"),
        namespace.workload("never-s", image="localhost/none:1", imagePullPolicy="Never"),
    )
    audit = AuditLog(namespace.facts)
    rules = read_rules("Role", "lowtide-autoscaler")
    account = connect(rules)
    shared = [{"kind": "StatefulSet", "name": "w", "pool_per_replica": 1}]
    budget = {"max_connections": 100, "pool_per_replica": 1, "shared_with": shared}
    for maximum in (6, 7):
        declared = {**DECLARED, "min_replicas": 1, "max_replicas": maximum, "connection_budget": budget}
        done = namespace.module(AUTOSCALER, **declared, **account)
        assert not done.failed, done.msg
    for kind, name in (("Deployment", "never"), ("StatefulSet", "never-s")):
        target = {"name": name, "target": {"kind": kind, "name": name}}
        late = namespace.module(AUTOSCALER, **{**DECLARED, **target, "min_replicas": 1}, timeout=10, **account)
        assert late.failed
        assert "localhost/none:1" in late.msg
    missing = namespace.module(AUTOSCALER, name="other", min_replicas=2, **account)
    assert "HorizontalPodAutoscalers there: api, never, never-s" in missing.msg
    documented = expand(rules)
    used = audit.wait_for_rights(name_user(namespace.name), documented)
    assert used - documented == set(), "used, and not documented"
    assert documented - used == set(), "documented, and not used"
