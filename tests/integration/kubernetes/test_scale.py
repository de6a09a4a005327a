# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_scale_to_partitions against a real cluster: changes, refusals, autoscalers, guards, counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes_proxy import KubernetesProxy
from support.modules import libraries_imported

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes")
SCALE = "k8s_scale_to_partitions"


def hpa(namespace: Namespace, name: str, low: int, high: int) -> dict[str, Any]:
    """A real autoscaler on a StatefulSet."""
    target = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"{name}-hpa", "namespace": namespace.name},
        "spec": {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high, "metrics": [metric]},
    }


def scaled_object(namespace: Namespace, name: str, low: int, high: int) -> dict[str, Any]:
    """KEDA's object; no operator acts on it here."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": f"{name}-keda", "namespace": namespace.name},
        "spec": {
            "scaleTargetRef": {"kind": "StatefulSet", "name": name},
            "minReplicaCount": low,
            "maxReplicaCount": high,
            "triggers": [{"type": "kafka", "metadata": {}}],
        },
    }


@pytest.mark.procedure("A18", "A29")
@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_up_and_down(namespace: Namespace, kind: str) -> None:
    """Check, real, check again, real again; up, and down only where that is allowed."""
    namespace.apply(namespace.workload("w", kind=kind))
    namespace.ready(kind, "w", 1)
    params: dict[str, Any] = {
        "kind": kind,
        "name": "w",
        "topics": ["events"],
        "partitions": {"events": 3},
        "run_id": "run-1",
    }

    before = namespace.get(kind, "w")["metadata"]["resourceVersion"]
    predicted = namespace.module(SCALE, check=True, **params)
    assert predicted.changed
    assert namespace.get(kind, "w")["metadata"]["resourceVersion"] == before
    done = namespace.module(SCALE, **params)
    assert (done.changed, done["diff"], done["plan"]) == (True, predicted["diff"], predicted["plan"])
    seen = namespace.get(kind, "w")
    assert (seen["spec"]["replicas"], seen["status"]["readyReplicas"], done["ready"]) == (3, 3, 3)
    assert "lowtide.ops" in [entry["manager"] for entry in seen["metadata"]["managedFields"]]
    for check in (True, False):
        again = namespace.module(SCALE, check=check, **params)
        assert (again.changed, again["plan"]) == (False, [])

    kept = namespace.module(SCALE, **{**params, "partitions": {"events": 2}})
    assert not kept.changed
    assert namespace.get(kind, "w")["spec"]["replicas"] == 3
    assert "allow_scale_down" in kept["blockers"][0]["holder"]
    down = {**params, "partitions": {"events": 2}, "allow_scale_down": True}
    assert namespace.module(SCALE, check=True, **down).changed
    assert namespace.module(SCALE, **down)["ready"] == 2
    assert not namespace.module(SCALE, **down).changed


def test_bad_counts_are_refused_before_anything_is_sent(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """Missing, null, zero and unparsable: an error, never a number, and no request."""
    cases = [
        ({}, "none"),
        ({"other": 3}, "other"),
        ({"events": None}, "null"),
        ({"events": 0}, "is 0"),
        ({"events": "12\r"}, "'12\\r'"),
    ]
    for partitions, said in cases:
        run = namespace.module(
            SCALE, host=proxy.url, kind="StatefulSet", name="w", topics=["events"], partitions=partitions
        )
        assert run.failed, partitions
        assert "events" in run.msg
        assert said in run.msg
        assert run["error"]["refused"] is True
        assert run.rc == 1
    assert proxy.requests == []


@pytest.mark.parametrize("scaler", ["HorizontalPodAutoscaler", "ScaledObject"])
@pytest.mark.usefixtures("keda")
def test_autoscaler_is_named_or_adjusted(namespace: Namespace, scaler: str) -> None:
    """By default a refusal with name and bounds; on request both bounds follow, the old ones noted."""
    make = hpa if scaler == "HorizontalPodAutoscaler" else scaled_object
    namespace.apply(namespace.workload("w", replicas=1), make(namespace, "w", 1, 5))
    namespace.ready("StatefulSet", "w", 1)
    params: dict[str, Any] = {"kind": "StatefulSet", "name": "w", "partitions": 2}
    for check in (True, False):
        refused = namespace.module(SCALE, check=check, **params)
        assert refused.failed
        assert f"{scaler} {namespace.name}/w-" in refused.msg
        assert "(1 to 5)" in refused.msg
        assert refused["error"]["refused"] is True
        assert refused["blockers"][0]["holder"].startswith(scaler)
    assert namespace.get("StatefulSet", "w")["spec"]["replicas"] == 1

    predicted = namespace.module(SCALE, check=True, autoscaler="adjust", **params)
    done = namespace.module(SCALE, autoscaler="adjust", run_id="r2", **params)
    assert (done.changed, done["diff"], done["plan"]) == (True, predicted["diff"], predicted["plan"])
    seen = namespace.get(scaler, "w-hpa" if make is hpa else "w-keda")
    assert [
        seen["spec"][key]
        for key in ("minReplicas", "maxReplicas", "minReplicaCount", "maxReplicaCount")
        if key in seen["spec"]
    ] == [2, 2]
    note = json.loads(seen["metadata"]["annotations"]["lowtide.ops/bounds-before"])
    (saved,) = note["operations"]
    assert (saved["spec"], saved["run"]) == ({"min": 1, "max": 5, "pinned": 2}, "r2")
    assert not namespace.module(SCALE, autoscaler="adjust", **params).changed
    assert not namespace.module(SCALE, **params).changed
    third = namespace.module(SCALE, autoscaler="adjust", **{**params, "partitions": 3})
    assert third.changed
    note = json.loads(
        namespace.get(scaler, seen["metadata"]["name"])["metadata"]["annotations"]["lowtide.ops/bounds-before"]
    )
    assert note["operations"][0]["spec"] == {"min": 1, "max": 5, "pinned": 3}


REQUESTS: dict[str, Any] = {"resources": {"requests": {"cpu": "100m", "memory": "8Mi"}}}


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ("quota", "3 more pods need 3 of pods"),
        ("headroom", "0 fit on the 0 usable of 2 nodes"),
        ("disruption_budget", "at least 2 pods"),
        ("gitops", "Argo CD application"),
    ],
)
def test_guard_refuses(namespace: Namespace, guard: str, said: str) -> None:
    """Each guard names what stands in the way, and nothing is written; without the guard it goes."""
    one = namespace.workload("w", replicas=3 if guard == "disruption_budget" else 1, **REQUESTS)
    if guard == "gitops":
        one["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop"}
    if guard == "headroom":
        one["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
    selector = {"matchLabels": {"app": "w"}}
    objects = {
        "quota": [
            {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}}
        ],
        "disruption_budget": [
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": "b"},
                "spec": {"minAvailable": 2, "selector": selector},
            }
        ],
    }.get(guard, [])
    namespace.apply(*objects, one)
    namespace.wait(
        "pod counted",
        lambda: namespace.get("StatefulSet", "w").get("status", {}).get("replicas") == one["spec"]["replicas"],
    )
    if guard == "quota":
        namespace.wait(
            "quota counted",
            lambda: namespace.get("ResourceQuota", "q").get("status", {}).get("used", {}).get("pods") == "1",
        )
    if guard == "gitops":
        namespace.set_replicas("StatefulSet", "w", 2, manager="argocd-controller")
    before = namespace.get("StatefulSet", "w")["spec"]["replicas"]
    params: dict[str, Any] = {
        "kind": "StatefulSet",
        "name": "w",
        "partitions": 1 if guard == "disruption_budget" else 4,
        "allow_scale_down": True,
    }
    run = namespace.module(SCALE, guards=[guard], **params)
    assert run.failed
    assert said in run.msg
    assert run["error"]["refused"] is True
    assert run["blockers"]
    assert namespace.get("StatefulSet", "w")["spec"]["replicas"] == before
    assert not namespace.module(SCALE, check=True, guards=[], **params).failed


def test_requests_are_few_and_known(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """At most five to read, write and wait, though readiness takes seconds; each guard costs what is documented; no discovery."""
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 3, "periodSeconds": 1}
    namespace.apply(namespace.workload("w", readinessProbe=probe))
    namespace.ready("StatefulSet", "w", 1)
    params: dict[str, Any] = {"host": proxy.url, "kind": "StatefulSet", "name": "w"}
    proxy.requests.clear()
    run = namespace.module(SCALE, partitions=2, guards=[], **params)
    assert run["ready"] == 2, run.msg
    assert run["waited"] > 2
    explaining = 4 if run["waited"] >= 5 else 0  # what explains a delay, looked for after five seconds
    assert run["requests"] == sum(proxy.verbs.values()) <= 5 + explaining
    assert (proxy.verbs["GET"], proxy.verbs["DRY_RUN"], proxy.verbs["PATCH"]) == (1, 1, 1)
    assert all(f"/namespaces/{namespace.name}/" in path for _verb, path in proxy.requests)
    for guards, cost in [
        ([], 0),
        (["gitops"], 0),
        (["hpa"], 1),
        (["keda"], 1),
        (["quota"], 1),
        (["disruption_budget"], 1),
        (["headroom"], 2),
    ]:
        proxy.requests.clear()
        run = namespace.module(SCALE, partitions=2, guards=guards, **params)
        assert (run.changed, run["requests"], sum(proxy.verbs.values())) == (False, 1 + cost, 1 + cost), guards
        assert proxy.verbs["PATCH"] == 0


def test_no_change_imports_only_what_reads_a_kubeconfig(namespace: Namespace) -> None:
    """Goal P1: neither kubernetes nor requests."""
    namespace.apply(namespace.workload("w"))
    namespace.ready("StatefulSet", "w", 1)
    one = {"kind": "StatefulSet", "name": "w"}
    tasks: dict[str, dict[str, Any]] = {
        SCALE: {**one, "partitions": 1},
        "k8s_workload": {"state": "running", "workloads": [one]},
    }
    for module, params in tasks.items():
        assert libraries_imported(module, namespace.params(**params)) == {"yaml"}


def test_check_mode_sends_no_write(namespace: Namespace, proxy: KubernetesProxy) -> None:
    """Seen from the wire."""
    namespace.apply(namespace.workload("w"), hpa(namespace, "w", 1, 5))
    run = namespace.module(
        SCALE, check=True, host=proxy.url, kind="StatefulSet", name="w", partitions=4, autoscaler="adjust"
    )
    assert run.changed
    assert set(proxy.verbs) <= {"GET", "LIST", "REVIEW"}


def test_audit_log_knows_the_run(namespace: Namespace) -> None:
    """The server's own count of the run's requests is the module's; the run's name is in it."""
    namespace.apply(namespace.workload("w"))
    namespace.ready("StatefulSet", "w", 1)
    run_id = f"audit-{namespace.name}"
    run = namespace.module(SCALE, kind="StatefulSet", name="w", partitions=2, run_id=run_id)
    assert run["ready"] == 2

    def entries() -> list[dict[str, Any]]:
        lines = Path(namespace.facts["audit_log"]).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if run_id in line]
        return [entry for entry in found if entry.get("userAgent") == f"lowtide.ops/{run_id}"]

    namespace.wait("audited", lambda: len({entry["auditID"] for entry in entries()}) == run["requests"])
    assert sorted({entry["verb"] for entry in entries()}) in (
        ["get", "list", "patch", "watch"],
        ["get", "list", "patch"],
    )


def test_nothing_heavy_is_imported(namespace: Namespace) -> None:
    """The no-change path needs no client library."""
    namespace.apply(namespace.workload("w"))
    namespace.ready("StatefulSet", "w", 1)
    run = namespace.module(SCALE, kind="StatefulSet", name="w", partitions=1, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert not run.changed
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in run.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "yaml" in imported
    assert not imported & {"kubernetes", "requests", "urllib3", "boto3", "confluent_kafka", "kafka", "psycopg2"}
