# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an autoscaler can read its metrics: predicted by what the cluster serves, and waited for where it is made."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from support.memory_controllers import NAMESPACE, Controllers
from support.memory_kubernetes import MemoryServer

from .test_operation_autoscaler import CPU, DECLARED, HPA, put_hpa, run, serve_metrics, set_condition

Json = dict[str, Any]
NOT_SERVED = "its metrics cannot be read: the cluster does not serve the API metrics.k8s.io/v1beta1"
PODS: Json = {
    "type": "Pods",
    "pods": {"metric": {"name": "rate"}, "target": {"type": "AverageValue", "averageValue": "5"}},
}
QUEUE: Json = {
    "type": "External",
    "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "5"}},
}


@pytest.fixture
def api(memory: MemoryServer) -> MemoryServer:
    """A cluster with an API of 3 replicas, without metrics and without a controller of HPAs."""
    Controllers(memory).add("Deployment", "api")
    return memory


def list_whats(run: Any) -> list[str]:
    """Return what stands in the way."""
    return [blocker["what"] for blocker in run["blockers"]]


def judge(memory: MemoryServer, status: str, reason: str) -> None:
    """Have the controller of HPAs look at the new one, a while after it was made."""

    def act() -> None:
        if memory.read_all(HPA):
            threading.Timer(0.2, set_condition, [memory, status, reason]).start()

    memory.add_rival(act, when="after", verb="create", path="autoscalers", times=2)


@pytest.mark.parametrize("check", [True, False])
def test_metrics_that_no_one_serves_are_named(api: MemoryServer, check: bool) -> None:
    """In check mode, and where the controller has not come to say so; what to install is the next step."""
    done = run(api, check=check, timeout=0.5, **DECLARED)
    assert not done.failed, done.msg
    assert (done.changed, list_whats(done)) == (True, [NOT_SERVED])
    assert done["blockers"][0]["next_step"].startswith(
        "Install metrics-server, or see what is wrong with it (kubectl get apiservice v1beta1.metrics.k8s.io)"
    )


def test_the_reason_of_a_new_one_is_waited_for(api: MemoryServer) -> None:
    """The controller's own words, as soon as it says them: nobody serves the metrics, so they are final."""
    judge(api, "False", "FailedGetResourceMetric")
    done = run(api, timeout=20, **DECLARED)
    assert not done.failed, done.msg
    assert [what.partition(":")[0] for what in list_whats(done)] == ["FailedGetResourceMetric"]
    assert 0 < done["waited"] < 10
    assert list_whats(run(api, **DECLARED)) == list_whats(done)


def test_a_new_one_whose_metrics_come_is_waited_for(api: MemoryServer) -> None:
    """Those of new pods come late: that they cannot be read yet is no last word."""
    serve_metrics(api, "metrics.k8s.io/v1beta1")
    judge(api, "True", "ValidMetricFound")
    api.add_rival(
        lambda: set_condition(api, "False", "FailedGetResourceMetric") if api.read_all(HPA) else None,
        when="after",
        verb="create",
        path="autoscalers",
        times=2,
    )
    done = run(api, timeout=20, **DECLARED)
    assert (done.failed, list_whats(done)) == (False, [])
    assert done["waited"] > 0


def test_a_new_one_whose_metrics_do_not_come_is_told(api: MemoryServer) -> None:
    """At the end of the wait, by its reason; or that its controller says nothing."""
    serve_metrics(api, "metrics.k8s.io/v1beta1")
    silent = run(api, timeout=0.5, **DECLARED)
    assert (silent.failed, list_whats(silent)) == (
        False,
        ["its controller has not said yet whether it can read its metrics"],
    )
    api.remove(HPA, NAMESPACE, "h")
    judge(api, "False", "FailedGetResourceMetric")
    told = run(api, timeout=1.5, **DECLARED)
    assert not told.failed, told.msg
    assert [what.partition(":")[0] for what in list_whats(told)] == ["FailedGetResourceMetric"]


def test_one_that_is_deleted_meanwhile_is_a_failure(api: MemoryServer) -> None:
    """Nobody is told that it was made."""
    serve_metrics(api, "metrics.k8s.io/v1beta1")

    def remove() -> None:
        if api.read_all(HPA):
            threading.Timer(0.2, api.remove, [HPA, NAMESPACE, "h"]).start()

    api.add_rival(remove, when="after", verb="create", path="autoscalers", times=2)
    failed = run(api, timeout=20, **DECLARED)
    assert failed.failed
    assert f"{HPA} n/h: it was deleted while it was waited for" in failed.msg


@pytest.mark.parametrize(
    ("metrics", "served", "missing"),
    [
        ([CPU], "metrics.k8s.io/v1beta1", []),
        ([PODS], "custom.metrics.k8s.io/v1beta1", []),
        ([PODS], "custom.metrics.k8s.io/v1beta2", []),
        ([PODS, QUEUE, CPU], "metrics.k8s.io/v1beta1", ["custom.metrics.k8s.io", "external.metrics.k8s.io"]),
        ([QUEUE], "external.metrics.k8s.io/v1beta1", []),
        ([CPU, CPU], "other/v1", ["metrics.k8s.io"]),
    ],
)
def test_each_kind_of_metric_has_its_api(
    api: MemoryServer, metrics: list[Json], served: str, missing: list[str]
) -> None:
    """A change of the metrics is asked about as well; where they stay, nothing is asked."""
    serve_metrics(api, served)
    put_hpa(api, metrics=[CPU] if metrics != [CPU] else [PODS])
    foreseen = run(api, check=True, metrics=metrics)
    assert [blocker["holder"] for blocker in foreseen["blockers"]] == [f"API {group}" for group in missing]
    changed = run(api, metrics=metrics)
    assert changed["blockers"] == foreseen["blockers"]
    api.log.clear()
    run(api, metrics=metrics)
    assert [request.path for request in api.log if "metrics" in request.path] == []


def test_an_api_that_is_not_available_is_named_and_one_that_may_not_be_asked_is_not(api: MemoryServer) -> None:
    """Its service is down; a right that is lacking says nothing of it."""
    serve_metrics(api, "metrics.k8s.io/v1beta1")
    api.fail_next(503, path="metrics.k8s.io")
    down = run(api, check=True, **DECLARED)
    assert list_whats(down) == [
        "its metrics cannot be read: the API metrics.k8s.io/v1beta1 is not available (status 503)"
    ]
    api.deny("get", "/apis/metrics.k8s.io/v1beta1")
    assert list_whats(run(api, check=True, **DECLARED)) == []


def test_an_api_that_does_not_answer_is_named(api: MemoryServer) -> None:
    """What stands behind it takes the connection and says nothing."""
    serve_metrics(api, "metrics.k8s.io/v1beta1")
    api.lose_next(path="metrics.k8s.io")
    (what,) = list_whats(run(api, check=True, **DECLARED))
    assert what.startswith("its metrics cannot be read: API metrics.k8s.io/v1beta1: no answer came")
