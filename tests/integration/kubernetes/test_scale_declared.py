# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_scale against a real cluster: a declared number, what stands against it, and pods that stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.moving_autoscaler import describe_autoscaler

from .conftest import Namespace

pytestmark = pytest.mark.lab("kubernetes")
SCALE = "k8s_scale"
API: dict[str, Any] = {"kind": "Deployment", "name": "api"}
Json = dict[str, Any]


def apply_api(namespace: Namespace, replicas: int = 2, **pod: Any) -> None:
    """Have a stateless service that serves."""
    namespace.apply(namespace.workload("api", kind="Deployment", replicas=replicas, **pod))
    namespace.ready("Deployment", "api", replicas)


def list_pods(namespace: Namespace) -> dict[str, int]:
    """Return the uid of each pod and how often its container was restarted."""
    pods = [pod for pod in namespace.list("Pod") if "deletionTimestamp" not in pod["metadata"]]
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}


@pytest.mark.procedure("A19", "B10", "E4", "E17")
def test_up_and_down_with_the_documented_rights(namespace: Namespace, connect: Callable[..., Json]) -> None:
    """Check, real, check again, real again; pods that ran before are neither restarted nor replaced."""
    apply_api(namespace)
    before = list_pods(namespace)
    account = connect()
    predicted = namespace.module(SCALE, check=True, replicas=4, **API, **account)
    assert (predicted.changed, namespace.get("Deployment", "api")["spec"]["replicas"]) == (True, 2)
    done = namespace.module(SCALE, replicas=4, **API, **account)
    assert not done.failed, done.msg
    assert (done.changed, done["plan"], done["diff"], done["ready"]) == (True, predicted["plan"], predicted["diff"], 4)
    assert done["summary"] == f"scaled Deployment {namespace.name}/api from 2 to 4 replicas (declared)"
    after = list_pods(namespace)
    assert {uid: after.get(uid) for uid in before} == before
    for check in (True, False):
        again = namespace.module(SCALE, check=check, replicas=4, **API, **account)
        assert (again.changed, again["plan"], list_pods(namespace)) == (False, [], after)

    refused = namespace.module(SCALE, replicas=3, **API, **account)
    assert (refused.failed, refused["error"]["refused"]) == (True, True)
    assert refused["error"]["problem"] == "it has 4 replicas and 3 are declared, and allow_scale_down is false"
    lowered = namespace.module(SCALE, replicas=3, allow_scale_down=True, **API, **account)
    assert (lowered.changed, lowered["ready"]) == (True, 3)


@pytest.mark.procedure("A19", "B10", "C6")
def test_what_stands_against_a_number_is_refused_by_name(namespace: Namespace) -> None:
    """A disruption budget, a quota, room on the nodes, an autoscaler and the connections of a database."""
    apply_api(namespace, resources={"requests": {"cpu": "1m"}})
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "api"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "api"}}},
    }
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "4"}},
    }
    namespace.apply(budget, quota)
    namespace.wait("quota counted", lambda: namespace.get("ResourceQuota", "q").get("status", {}).get("used"))
    pool = {"max_connections": 100, "reserved": 3, "used_by_others": 17, "pool_per_replica": 25}
    guards = ["hpa", "keda", "gitops", "disruption_budget", "quota", "headroom"]
    cases: list[tuple[Json, str]] = [
        ({"replicas": 1, "allow_scale_down": True}, "wants at least 2 pods available"),
        ({"replicas": 5}, "ResourceQuota"),
        ({"replicas": 100000, "guards": ["headroom"]}, "fit"),
        ({"replicas": 4, "connection_budget": pool}, "3 replicas fit"),
        ({"replicas": 0}, "less than 1"),
    ]
    for params, words in cases:
        run = namespace.module(SCALE, **{**API, "guards": guards, **params})
        assert (run.failed, run["error"]["refused"], run.changed) == (True, True, False), params
        assert words in run.msg, (params, run.msg)
    namespace.apply(describe_autoscaler("api", 2, 3, kind="Deployment"))
    owned = namespace.module(SCALE, **API, replicas=4)
    assert "owns its replicas (2 to 3)" in owned.msg
    assert namespace.get("Deployment", "api")["spec"]["replicas"] == 2
    fitting = namespace.module(SCALE, **API, replicas=3, autoscaler="adjust", connection_budget=pool)
    assert not fitting.failed, fitting.msg
    bounds = namespace.get("HorizontalPodAutoscaler", namespace.list("HorizontalPodAutoscaler")[0]["metadata"]["name"])
    assert (bounds["spec"]["minReplicas"], bounds["spec"]["maxReplicas"]) == (3, 3)
