# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_diagnosis_info asks the pods themselves: each sample is judged, and silence is never health."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.diagnosis_info import read_diagnosis
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import is_write, run_operation
from unit.kubernetes.broken_shop import PLANTED, Shop

Json = dict[str, Any]
PORT = 15090
READING: Json = {
    "name": "requests in flight",
    "port": str(PORT),
    "path": "/stats/prometheus",
    "scheme": "http",
    "metric": 'rq_active{cluster="db"}',
    "limit": 20.0,
    "min": None,
}


def answer(memory: MemoryServer, number: int, text: str, status: int = 200) -> None:
    """Let a pod answer so at its sidecar's port."""
    memory.pod_answers[NAMESPACE, f"web-1-{number}:{PORT}"] = lambda _path: (status, text)


def diagnose(memory: MemoryServer, **changes: Any) -> ModuleRun:
    """Diagnose with one reading."""
    run = run_operation(memory, read_diagnosis, readings=[{**READING, **changes}])
    assert not run.failed, run.msg
    assert [request for request in memory.log if is_write(request)] == []
    return run


def list_reasons(run: ModuleRun) -> list[str]:
    """Return the reason of the verdict and of the others."""
    return [run["verdict"]["reason"], *(other["reason"] for other in run["others"])]


def test_a_sample_above_the_limit_is_the_verdict(memory: MemoryServer) -> None:
    """Pod, value and limit are named; a sum or another cluster's sample would have hidden it."""
    Shop(memory, replicas=3)
    for number, value in enumerate((3, 25, 40)):
        answer(
            memory, number, f'# TYPE rq_active gauge\nrq_active{{cluster="db"}} {value}\nrq_active{{cluster="x"}} 99\n'
        )
    run = diagnose(memory)
    verdict = run["verdict"]
    assert list_reasons(run) == ["observation_above_limit"]
    assert verdict["object"] == "requests in flight"
    assert (
        verdict["message"] == 'Pod n/web-1-2: rq_active{cluster="db"} is 40, above its limit of 20; 1 other pod alike'
    )
    assert verdict["evidence"] == [
        'Pod n/web-1-2: rq_active{cluster="db"} 40',
        'Pod n/web-1-1: rq_active{cluster="db"} 25',
    ]
    assert [entry["samples"][0]["value"] for entry in run["readings"]] == [3.0, 25.0, 40.0]


@pytest.mark.parametrize(
    ("values", "bounds", "reasons"),
    [
        ((20, 0), {"limit": 20.0}, ["healthy"]),
        ((20, 20.5), {"limit": 20.0}, ["observation_above_limit"]),
        ((15, 15), {"limit": 20.0}, ["healthy"]),
        (("+Inf", 1), {"limit": 20.0}, ["observation_above_limit"]),
        ((1, 3), {"limit": None, "min": 2.0}, ["observation_below_minimum"]),
        (("+Inf", 3), {"limit": None, "min": 2.0}, ["healthy"]),
        ((1, 30), {"limit": 20.0, "min": 2.0}, ["observation_above_limit", "observation_below_minimum"]),
        (("NaN", 1), {"limit": 20.0}, ["reading_missing"]),
    ],
)
def test_each_sample_is_judged(memory: MemoryServer, values: Any, bounds: Json, reasons: list[str]) -> None:
    """None of them for all, and never their sum; what is no number is missing."""
    Shop(memory, replicas=1)
    answer(memory, 0, "".join(f'rq_active{{p="{number}"}} {value}\n' for number, value in enumerate(values)))
    run = diagnose(memory, metric="rq_active", **bounds)
    assert list_reasons(run) == reasons
    json.loads(json.dumps(run.result, allow_nan=False))


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [
        (0, "", "the API server could not ask it: error trying to reach service: connection refused"),
        (404, "no", "it answered 404 and not 200: 'no'"),
        (200, "", "it has no metric rq_active with the labels {'cluster': 'db'}"),
        (200, '{"json": 1}', "is no line of Prometheus' text format"),
    ],
)
def test_a_pod_that_does_not_answer_is_never_healthy(
    memory: MemoryServer, status: int, text: str, problem: str
) -> None:
    """It is a finding, although all that the API server knows is well."""
    Shop(memory)
    answer(memory, 0, 'rq_active{cluster="db"} 1\n')
    if status:
        answer(memory, 1, text, status)
    run = diagnose(memory)
    assert list_reasons(run) == ["reading_missing"]
    assert run["verdict"]["message"].startswith("Pod n/web-1-1: port 15090, /stats/prometheus: ")
    assert problem in run["verdict"]["message"]
    assert problem in run["readings"][1]["problem"]


def test_a_missing_reading_stands_after_any_cause(memory: MemoryServer) -> None:
    """What is above its limit in one pod, or a crash, comes first."""
    shop = Shop(memory)
    answer(memory, 0, 'rq_active{cluster="db"} 21\n')
    assert list_reasons(diagnose(memory)) == ["observation_above_limit", "reading_missing"]
    answer(memory, 0, 'rq_active{cluster="db"} 1\n')
    shop.put_pod("web-1-1", **shop.end("OOMKilled", code=137, ago=300, ready=True))
    run = diagnose(memory)
    assert (list_reasons(run), run["verdict"]["current"]) == (["oom_killed", "reading_missing"], False)


def test_no_pod_to_ask_is_said(memory: MemoryServer) -> None:
    """A workload without pods has not answered."""
    Shop(memory, replicas=0)
    run = diagnose(memory)
    assert list_reasons(run) == ["scaled_to_zero", "reading_missing"]
    assert run["others"][0]["message"] == "no pod of Deployment n/web runs that could be asked for it"


def test_the_container_is_the_one_of_the_port(memory: MemoryServer) -> None:
    """By number and by name, and each pod is asked once for all metrics of a place."""
    Shop(memory, replicas=1, container={"ports": [{"name": "http-envoy-prom", "containerPort": PORT}]})
    answer(memory, 0, "rq_active 30\nrq_pending 40\n")
    readings = [
        {**READING, "name": name, "metric": metric, "port": "http-envoy-prom"}
        for name, metric in (("active", "rq_active"), ("pending", "rq_pending"))
    ]
    run = run_operation(memory, read_diagnosis, readings=readings)
    assert list_reasons(run) == ["observation_above_limit"] * 2
    assert {run["verdict"]["container"], run["others"][0]["container"]} == {"app"}
    paths = [request.path for request in memory.log if "/proxy" in request.path]
    assert paths == ["/api/v1/namespaces/n/pods/web-1-0:15090/proxy/stats/prometheus"]
    assert diagnose(memory, metric="rq_active")["verdict"]["container"] == "app"


def test_a_lacking_right_is_told_and_nothing_is_asked_again(memory: MemoryServer) -> None:
    """It is no error, and no health either."""
    Shop(memory, replicas=3)
    memory.deny("get", "pods/proxy")
    run = diagnose(memory)
    assert list_reasons(run) == ["reading_missing"]
    assert "Grant this account: get pods/proxy" in run["verdict"]["message"]
    assert run["unreadable"] == ["not allowed to ask: grant get pods/proxy in namespace n"]
    assert sum("/proxy" in request.path for request in memory.log) == 1


def test_without_the_option_no_pod_is_asked(memory: MemoryServer) -> None:
    """And no right for it is needed."""
    Shop(memory)
    memory.deny("get", "pods/proxy")
    run = run_operation(memory, read_diagnosis)
    assert (list_reasons(run), run["readings"], run["unreadable"]) == (["healthy"], [], [])
    assert not any("/proxy" in request.path for request in memory.log)


def test_secrets_in_an_answer_are_redacted(memory: MemoryServer) -> None:
    """In labels and in what is no metric."""
    env = {"env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]}
    shop = Shop(memory, replicas=2, container=env)
    shop.put_secret()
    answer(memory, 0, f'rq_active{{cluster="db",dsn="{PLANTED}"}} 30\n')
    answer(memory, 1, f"error: {PLANTED}")
    run = diagnose(memory)
    assert list_reasons(run) == ["observation_above_limit", "reading_missing"]
    assert PLANTED not in json.dumps(run.result)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"limit": None}, "limit None and min None bound nothing"),
        ({"min": 21.0}, "its min 21 is above its limit 20"),
        ({"metric": "9x"}, "its metric '9x' is no name with labels"),
        ({"metric": 'x{y="1"'}, "is no name with labels"),
        ({"metric": "x 1"}, "is no name with labels"),
        ({"path": "metrics"}, "path 'metrics' is no path of a URL"),
    ],
)
def test_a_reading_that_cannot_be_judged_is_refused(memory: MemoryServer, changes: Json, problem: str) -> None:
    """Before anything is read."""
    Shop(memory)
    run = run_operation(memory, read_diagnosis, readings=[{**READING, **changes}])
    assert (run.failed, run["error"]["refused"]) == (True, True)
    assert problem in run.msg
    assert not [request for request in memory.log if "pods" in request.path]
