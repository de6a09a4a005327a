# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_diagnosis_info against the API server in memory: the cause before the symptom, without secrets, with fewer rights."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.redaction import MARKER
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.diagnosis_info import read_diagnosis
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.reasons import REASONS
from support.memory_controllers import NAMESPACE
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import is_write, run_operation
from unit.kubernetes.broken_shop import PLANTED, Shop, format_ago

Json = dict[str, Any]
SECRET_ENV = {"env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]}


def diagnose(memory: MemoryServer, **params: Any) -> ModuleRun:
    """Diagnose the Deployment: nothing is written, and the planted secret is in nothing that is said."""
    run = run_operation(memory, read_diagnosis, **params)
    assert not run.failed, run.msg
    assert not run.changed
    assert [request for request in memory.log if is_write(request)] == []
    assert PLANTED not in json.dumps(run.result)
    assert base64.b64encode(PLANTED.encode()).decode() not in json.dumps(run.result)
    return run


def list_reasons(run: ModuleRun) -> list[str]:
    """Return the reason of the verdict and of the others."""
    return [run["verdict"]["reason"], *(other["reason"] for other in run["others"])]


def test_a_healthy_workload(memory: MemoryServer) -> None:
    """Says so, with its pods and revisions; the number of requests does not depend on the number of pods."""
    Shop(memory, replicas=3)
    run = diagnose(memory)
    verdict = run["verdict"]
    assert verdict["message"] == "3 of 3 replicas ready, and nothing failed in the last 1 h"
    assert (list_reasons(run), verdict["object"], verdict["current"]) == (["healthy"], "Deployment n/web", True)
    assert [pod["name"] for pod in run["pods"]] == ["web-1-0", "web-1-1", "web-1-2"]
    assert [revision["images"] for revision in run["revisions"]] == [["shop:1"]]
    assert run["summary"] == f"healthy: Deployment n/web: {verdict['message']}"
    assert [request.path.rpartition("/")[2] for request in memory.log if request.verb == "get"] == ["web", "n1"] + [
        "log"
    ] * 3


def test_a_missing_workload_is_refused(memory: MemoryServer) -> None:
    """With what there is."""
    Shop(memory)
    run = run_operation(memory, read_diagnosis, name="wbe")
    assert (run.failed, run["error"]["refused"]) == (True, True)
    assert "Deployments there: web" in run.msg


def test_pods_that_crash_alike_are_one_verdict(memory: MemoryServer) -> None:
    """With the number of others, the end of the log and no secret in it; the current log while it waits to restart."""
    shop = Shop(memory, container=SECRET_ENV)
    shop.put_secret()
    for number in range(2):
        shop.put_pod(f"web-1-{number}", **shop.end("Error", code=3))
        memory.log_lines[NAMESPACE, f"web-1-{number}"] = ["begin", f"cannot login with {PLANTED}"]
    shop.count(0)
    run = diagnose(memory)
    verdict = run["verdict"]
    assert (verdict["reason"], verdict["object"], verdict["container"]) == ("crash_loop", "Pod n/web-1-0", "app")
    assert verdict["message"] == ("container app ended by itself (Error, exit code 3; 2 restarts); 1 other pod alike")
    assert verdict["evidence"][1:3] == [
        "log of container app of Pod n/web-1-0: begin",
        f"log of container app of Pod n/web-1-0: cannot login with {MARKER}",
    ]
    assert [other["reason"] for other in run["others"]] == []
    assert len(run["logs"]) == 4


def test_an_oom_kill_is_no_crash_and_has_its_limit(memory: MemoryServer) -> None:
    """Told by the state of the container; the event of that name is about something else."""
    shop = Shop(memory, container={"resources": {"limits": {"memory": "64Mi"}}})
    shop.put_pod("web-1-0", **shop.end("OOMKilled", code=137))
    shop.count(1)
    run = diagnose(memory)
    assert list_reasons(run) == ["oom_killed"]
    assert run["verdict"]["message"] == "container app was OOM killed at its memory limit of 64Mi (2 restarts)"
    assert run["containers"] == [{"name": "app", "image": "shop:1", "requests": {}, "limits": {"memory": "64Mi"}}]


@pytest.mark.parametrize("newest", ["64Mi", "16Mi"])
def test_a_pod_of_the_newest_revision_comes_before_an_older_one_that_fails_alike(
    memory: MemoryServer, newest: str
) -> None:
    """An undone fix leaves pods of both for a while: what counts is the limit that stays."""
    older = "16Mi" if newest == "64Mi" else "64Mi"
    shop = Shop(memory, replicas=1, container={"resources": {"limits": {"memory": older}}})
    shop.put_pod("web-1-0", **shop.end("OOMKilled", code=137, ago=60))
    shop.put_revision(2, container={"resources": {"limits": {"memory": newest}}})
    shop.put_pod("web-2-0", **shop.end("OOMKilled", code=137, ago=30))
    shop.count(0)
    run = diagnose(memory)
    assert list_reasons(run) == ["oom_killed", "oom_killed"]
    assert run["verdict"]["object"] == "Pod n/web-2-0"
    assert f"its memory limit of {newest} (" in run["verdict"]["message"]


@pytest.mark.parametrize(("since", "reasons"), [(3600.0, ["oom_killed"]), (60.0, ["healthy"])])
def test_what_is_over_counts_for_as_long_as_is_asked(memory: MemoryServer, since: float, reasons: list[str]) -> None:
    """And is marked as over; what holds now comes before it."""
    shop = Shop(memory)
    shop.put_pod("web-1-0", **shop.end("OOMKilled", code=137, ago=300, ready=True))
    run = diagnose(memory, since=since)
    assert list_reasons(run) == reasons
    assert run["verdict"]["current"] is (reasons == ["healthy"])


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
@pytest.mark.parametrize(("since", "reasons"), [(3600.0, ["oom_killed"]), (60.0, ["healthy"])])
def test_how_long_ago_it_is_by_the_clock_of_the_server(
    memory: MemoryServer, ahead: float, since: float, reasons: list[str]
) -> None:
    """A clock of our own that is two hours off neither hides what is new nor shows what is old."""
    memory.clock_ahead = ahead
    shop = Shop(memory)
    shop.put_pod("web-1-0", **shop.end("OOMKilled", code=137, ago=300 - ahead, ready=True))
    assert list_reasons(diagnose(memory, since=since)) == reasons
    shop.put_pod("web-1-1", **shop.end("Error"))
    shop.count(1)
    assert list_reasons(diagnose(memory, since=since))[0] == "crash_loop"


def test_a_crash_of_long_ago_is_not_why_a_pod_is_not_ready(memory: MemoryServer) -> None:
    """It runs since; its readiness probe is what keeps it, although no event is left of it."""
    shop = Shop(memory, replicas=1, container={"readinessProbe": {"tcpSocket": {"port": 5432}}})
    status = shop.end("Error", ago=90_000, ready=True)
    shop.put_pod("web-1-0", **{**status, "ready": False})
    shop.count(0)
    run = diagnose(memory)
    assert list_reasons(run) == ["probe_failing"]
    assert "its readiness probe is a connection to port 5432" in run["verdict"]["message"]


def test_a_probe_that_kills_is_the_cause_of_the_restarts(memory: MemoryServer) -> None:
    """Which probe of which container; the crash is the symptom."""
    probe = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5}
    shop = Shop(memory, replicas=1, container={"livenessProbe": probe})
    shop.put_pod("web-1-0", **shop.end("Error", code=137))
    field = "spec.containers{app}"
    shop.put_event("Pod", "web-1-0", "Unhealthy", "Liveness probe failed: status 503", field=field)
    shop.put_event("Pod", "web-1-0", "Killing", "Container app failed liveness probe, will be restarted", field=field)
    shop.count(0)
    run = diagnose(memory)
    assert list_reasons(run) == ["probe_failing"]
    assert run["verdict"]["message"] == (
        "liveness probe of container app fails (GET /ready on port 8080, timeout 1 s, every 5 s, 3 failures),"
        " and its container is killed for it: Liveness probe failed: status 503"
    )


def test_a_missing_key_is_the_object_s_and_covers_its_pods(memory: MemoryServer) -> None:
    """The pods' own words are its evidence."""
    shop = Shop(memory, container=SECRET_ENV)
    shop.put_secret("db", username="u", url="x")
    waiting = {"reason": "CreateContainerConfigError", "message": "couldn't find key password in Secret n/db"}
    for number in range(2):
        shop.put_pod(f"web-1-{number}", state={"waiting": waiting})
    shop.count(0)
    run = diagnose(memory)
    assert list_reasons(run) == ["missing_configuration"]
    assert run["verdict"]["object"] == "Secret n/db"
    assert (
        run["verdict"]["message"]
        == "it has no key password, which variable P of container app needs; it has url, username"
    )
    assert "Pod n/web-1-1: container app: couldn't find key password in Secret n/db" in run["verdict"]["evidence"]


def test_the_name_of_a_secret_is_no_secret(memory: MemoryServer) -> None:
    """Although configuration has it under such a name; what else stands there is one."""
    shop = Shop(memory, container={**SECRET_ENV, "envFrom": [{"configMapRef": {"name": "settings"}}]})
    shop.put_secret("db-login", username="u")
    shop.put("ConfigMap", "settings", data={"app.ini": f"secret = db-main\npassword = {PLANTED}\nuser=db-main"})
    env = [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "db-main", "key": "password"}}}]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{**shop.container, "env": env}]}}
    memory.change("Deployment", NAMESPACE, "web", lambda obj: obj["spec"].update(template=template))
    shop.put_event("Pod", "web-1-0", "Failed", f"secret db-main: login with {PLANTED} refused")
    shop.count(1)
    run = diagnose(memory)
    assert (run["verdict"]["object"], run["verdict"]["reason"]) == ("Secret n/db-main", "missing_configuration")
    assert run["events"][0].endswith(f"secret db-main: login with {MARKER} refused")


def test_what_may_not_be_read_is_noted(memory: MemoryServer) -> None:
    """And the kubelet's words name the cause."""
    shop = Shop(memory, container=SECRET_ENV)
    shop.put_secret("db", username="u")
    waiting = {"reason": "CreateContainerConfigError", "message": "couldn't find key password in Secret n/db"}
    shop.put_pod("web-1-0", state={"waiting": waiting})
    shop.count(1)
    denied = [("get", "secrets"), ("list", "events"), ("get", "nodes"), ("list", "services"), ("get", "pods/log")]
    for verb, resource in denied:
        memory.deny(verb, resource)
    run = diagnose(memory, configuration=[{"container": "app", "required": ["P", "Q"]}])
    assert list_reasons(run) == ["missing_configuration", "missing_configuration"]
    assert run["unreadable"] == [
        "not allowed to read: grant list events in namespace n",
        "not allowed to read: grant list services in namespace n",
        "not allowed to read: grant get nodes n1",
        "not allowed to read: grant get secrets db in namespace n",
    ]
    assert all("not allowed to read it: grant get on pods/log" in log["reason"] for log in run["logs"])


@pytest.mark.parametrize("denied", ["pods", "services", "endpointslices"])
def test_nobody_is_healthy_whose_pods_nobody_has_read(memory: MemoryServer, denied: str) -> None:
    """An account that may get the Deployment alone is told which rights lack; the counts of the status prove little."""
    shop = Shop(memory)
    shop.put("Service", "web", spec={"selector": {"app": "web"}})
    put_slice(shop, ports=[{"name": "", "port": 80}])
    assert list_reasons(diagnose(memory)) == ["healthy"]
    memory.deny("list", denied)
    run = diagnose(memory)
    assert list_reasons(run) == ["unknown"]
    assert f"grant list {denied}" in run["verdict"]["next_step"]
    assert run["verdict"]["message"].endswith("in namespace n)")


def test_configuration_that_was_asked_for_and_not_read_is_not_well(memory: MemoryServer) -> None:
    """Without the question a Secret that may not be read is only noted."""
    shop = Shop(memory, container={"envFrom": [{"secretRef": {"name": "db"}}]})
    shop.put_secret("db", username="u")
    memory.deny("get", "secrets")
    assert list_reasons(diagnose(memory)) == ["healthy"]
    run = diagnose(memory, configuration=[{"container": "app", "required": ["P"]}])
    assert list_reasons(run) == ["unknown"]


@pytest.mark.parametrize(
    ("ago", "revision", "reasons"),
    [(60.0, "1", ["evicted"]), (7200.0, "1", ["healthy"]), (60.0, "0", ["healthy"])],
)
def test_an_evicted_pod_is_named(memory: MemoryServer, ago: float, revision: str, reasons: list[str]) -> None:
    """One of this revision, for as long as is asked; what holds now comes before it."""
    shop = Shop(memory)
    put_evicted(shop, ago=ago, revision=revision)
    run = diagnose(memory)
    assert list_reasons(run) == reasons
    if reasons == ["evicted"]:
        assert run["verdict"]["object"] == "Pod n/web-1-x"
        assert run["verdict"]["message"] == "it ended on node n1: Evicted: The node was low on resource: memory."
        assert run["verdict"]["current"] is False
        shop.put_pod("web-1-0", **shop.end("Error"))
        shop.count(1)
        assert list_reasons(diagnose(memory)) == ["crash_loop", "evicted"]


def put_evicted(shop: Shop, *, ago: float, revision: str) -> None:
    """Put a pod that its node has evicted."""
    shop.put(
        "Pod",
        "web-1-x",
        created=ago + 60,
        owner=("ReplicaSet", "web-1"),
        labels={"app": "web", "pod-template-hash": revision},
        spec={"nodeName": "n1", "containers": [shop.container]},
        status={
            "phase": "Failed",
            "reason": "Evicted",
            "message": "The node was low on resource: memory. ",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": format_ago(ago)}],
        },
    )


@pytest.mark.parametrize(("ago", "reasons"), [(300.0, ["terminating"]), (-20.0, ["healthy"])])
def test_a_pod_that_a_finalizer_holds_is_named(memory: MemoryServer, ago: float, reasons: list[str]) -> None:
    """Once its grace period is over."""
    shop = Shop(memory)
    shop.put_pod("web-1-x")
    meta = {"deletionTimestamp": format_ago(ago), "deletionGracePeriodSeconds": 30, "finalizers": ["example.org/hold"]}
    memory.change("Pod", NAMESPACE, "web-1-x", lambda obj: obj["metadata"].update(meta))
    run = diagnose(memory)
    assert list_reasons(run) == reasons
    if reasons == ["terminating"]:
        assert run["verdict"]["object"] == "Pod n/web-1-x"
        assert "finalizers example.org/hold" in run["verdict"]["message"]


def put_slice(shop: Shop, *, ports: list[Json]) -> None:
    """Put the EndpointSlice of the Service ``web`` with one ready endpoint."""
    labels = {"kubernetes.io/service-name": "web"}
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]
    shop.put("EndpointSlice", "web-a", labels=labels, endpoints=endpoints, ports=ports, addressType="IPv4")


@pytest.mark.parametrize(
    ("ports", "named"),
    [([{"name": "http", "port": 8080}], ""), ([], "80 (http)"), ([{"name": "metrics", "port": 9}], "80 (http)")],
)
def test_a_service_with_a_port_that_no_pod_has_answers_nobody(
    memory: MemoryServer, ports: list[Json], named: str
) -> None:
    """Its endpoints are ready, and its EndpointSlices have no such port."""
    shop = Shop(memory)
    port = {"name": "http", "port": 80, "targetPort": "web-http"}
    shop.put("Service", "web", spec={"selector": {"app": "web"}, "ports": [port, {"port": 81, "targetPort": 8081}]})
    put_slice(shop, ports=ports)
    run = diagnose(memory)
    assert list_reasons(run) == (["no_endpoints"] if named else ["healthy"])
    if named:
        assert f"its port {named} goes to the port named 'web-http'" in run["verdict"]["message"]


def test_a_kind_that_is_not_served_and_an_error_are_noted(memory: MemoryServer) -> None:
    """They are no reason to say nothing."""
    Shop(memory)
    memory.unregister("PodDisruptionBudget")
    memory.fail_next(500, path="/resourcequotas", times=10_000)
    run = diagnose(memory, timeout=2.0)
    assert list_reasons(run) == ["healthy"]
    assert any(line.startswith("not served here: PodDisruptionBudgets") for line in run["unreadable"])
    assert any(line.startswith("could not be read: ResourceQuotas") for line in run["unreadable"])


def test_a_node_that_is_lost_comes_before_what_it_causes(memory: MemoryServer) -> None:
    """Its pods are not ready for no reason of their own."""
    shop = Shop(memory)
    condition = {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}
    shop.put("Node", "n1", status={"conditions": [{**condition, "lastTransitionTime": format_ago(90)}]})
    shop.put("Service", "web", spec={"selector": {"app": "web"}})
    shop.put_pod("web-1-0", state={"running": {}})
    shop.count(1)
    run = diagnose(memory)
    assert list_reasons(run) == ["node_not_ready", "no_endpoints", "not_ready"]
    assert run["verdict"]["object"] == "Node n1"


def test_a_claim_that_waits_for_its_pod_is_not_the_cause(memory: MemoryServer) -> None:
    """Its volume is made once the pod has a node; one that has no volume is the cause."""
    shop = Shop(memory, replicas=1)
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1: Insufficient cpu",
    }
    shop.put(
        "Pod",
        "web-1-0",
        owner=("ReplicaSet", "web-1"),
        labels={"app": "web", "pod-template-hash": "1"},
        spec={"containers": [shop.container], "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]},
        status={"phase": "Pending", "conditions": [scheduled]},
    )
    shop.count(0)
    shop.put("PersistentVolumeClaim", "data", spec={"storageClassName": "fast"}, status={"phase": "Pending"})
    assert list_reasons(diagnose(memory)) == ["claim_pending", "unschedulable"]
    shop.put_event("PersistentVolumeClaim", "data", "WaitForFirstConsumer", "waiting for first consumer")
    assert list_reasons(diagnose(memory)) == ["unschedulable"]


def test_a_deployment_that_is_stuck(memory: MemoryServer) -> None:
    """However long ago it ran out of its time."""
    shop = Shop(memory)
    stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    shop.count(1, conditions=[{**stuck, "lastUpdateTime": format_ago(90_000)}])
    run = diagnose(memory)
    assert list_reasons(run) == ["rollout_stuck"]
    assert run["verdict"]["message"] == "ProgressDeadlineExceeded: timed out"


GROUPS = {
    "empty": (
        "empty",
        None,
        "it has no members, so that nobody consumes (0 of 2 partitions assigned, 0 members, lag 9)",
    ),
    "rebalancing": ("rebalancing", None, "it rebalances, and consumes nothing meanwhile"),
    "unassigned": ("stable", None, "partitions have no member (0 of 2 partitions assigned"),
    "fine": ("stable", "m1", None),
}


@pytest.mark.parametrize("case", GROUPS)
def test_a_group_that_does_not_consume(memory: MemoryServer, case: str) -> None:
    """Assigned and unassigned partitions are told apart; the group alone or the whole result may be given."""
    state, member, message = GROUPS[case]
    Shop(memory)
    partitions = [{"topic": "t", "partition": number, "member_id": member, "lag": 4} for number in range(2)]
    members = 0 if member is None else 2
    group = {"name": "g", "state": state, "member_count": members, "total_lag": 9, "partitions": partitions}
    for given in (group, {"groups": [group], "changed": False}):
        run = diagnose(memory, consumer_group_state=given)
        assert list_reasons(run) == (["healthy"] if message is None else ["group_not_consuming"])
        assert (message or "") in run["verdict"]["message"]


def test_a_group_that_could_not_be_read_is_said(memory: MemoryServer) -> None:
    """It is no reason to save no evidence; what is no group at all is refused."""
    Shop(memory)
    run = diagnose(memory, consumer_group_state={"failed": True, "msg": "kafka:9092: it cannot be reached"})
    assert "kafka:9092: it cannot be reached" in run["verdict"]["message"]
    refused = run_operation(memory, read_diagnosis, consumer_group_state={"x": 1})
    assert (refused.failed, refused["error"]["object"]) == (True, "option consumer_group_state")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (9, None),
        ("10", None),
        (10.5, "it is 10.5, above its limit of 10"),
        (None, "it has no value (limit 10)"),
        ("", "no value"),
    ],
)
def test_observations(memory: MemoryServer, value: Any, message: str | None) -> None:
    """A value that is missing is never below its limit."""
    Shop(memory)
    run = diagnose(memory, observations=[{"name": "rate of 429", "value": value, "limit": 10.0}])
    assert run["verdict"]["reason"] == ("healthy" if message is None else "observation_above_limit")
    assert (message or "") in run["verdict"]["message"]


@pytest.mark.parametrize(
    ("params", "obj"),
    [
        ({"observations": [{"name": "x", "value": "many", "limit": 1.0}]}, "observation x"),
        ({"observations": [{"name": "x", "value": "nan", "limit": 1.0}]}, "observation x"),
        ({"since": 0.0}, "option since"),
        ({"log_lines": -1}, "option log_lines"),
    ],
)
def test_options_that_mean_nothing_are_refused(memory: MemoryServer, params: Json, obj: str) -> None:
    """Before anything is asked."""
    run = run_operation(memory, read_diagnosis, **params)
    assert (run.failed, run["error"]["object"], memory.log) == (True, obj, [])


def test_scaled_to_zero_comes_before_everything_that_follows(memory: MemoryServer) -> None:
    """By whom and when; its Service and its group are symptoms."""
    shop = Shop(memory, replicas=0)
    shop.put("Service", "web", spec={"selector": {"app": "web"}})
    group = {"name": "g", "state": "empty", "member_count": 0, "total_lag": 9, "partitions": []}
    run = diagnose(memory, consumer_group_state=group)
    assert list_reasons(run) == ["scaled_to_zero", "group_not_consuming", "no_endpoints"]
    assert run["verdict"]["message"].startswith("its replicas were set to 0 by ")


def test_a_fix_that_was_undone_is_remembered(memory: MemoryServer) -> None:
    """Its revision still says what it was; one that nobody understands is no fix."""
    shop = Shop(memory)
    assert diagnose(memory)["last_changes"]["fixed"] is None
    notes = [
        "restart for oom_killed at 2026-05-01T08:00:00Z",
        "raise_limit for oom_killed at 2026-05-01T09:00:00Z by a@b c",
    ]
    for number, note in enumerate([*notes, "something"], 2):
        annotations = {"lowtide.ops/fixed": note, "kubectl.kubernetes.io/restartedAt": f"2026-05-01T0{number}:00:00Z"}
        template = {"metadata": {"labels": {"app": "web"}, "annotations": annotations}}
        labels = {"app": "web", "pod-template-hash": str(number)}
        spec = {"replicas": 0, "template": template}
        shop.put("ReplicaSet", f"web-{number}", owner=("Deployment", "web"), labels=labels, spec=spec)
    changes = diagnose(memory)["last_changes"]
    fixed = {"fix": "raise_limit", "reason": "oom_killed", "at": "2026-05-01T09:00:00Z", "run": "a@b c"}
    assert (changes["fixed"], changes["restarted_at"]) == (fixed, "2026-05-01T04:00:00Z")


def test_the_evidence_is_saved_without_secrets(memory: MemoryServer, tmp_path: Path) -> None:
    """Also not in the specification of a pod, in the annotation of kubectl, or in an event; and not in check mode."""
    env = [
        *SECRET_ENV["env"],
        {"name": "DB_PASSWORD", "value": PLANTED},
        {"name": "U", "value": f"db://u:{PLANTED}x@h"},
    ]
    shop = Shop(memory, container={"env": env, "args": ["--token", PLANTED]})
    shop.put_secret()
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"env": env})}
    memory.change("Deployment", NAMESPACE, "web", lambda obj: obj["metadata"].update(annotations=applied))
    shop.put_event("Pod", "web-1-0", "Failed", f"exec of [--token {PLANTED}] failed")
    memory.log_lines[NAMESPACE, "web-1-0"] = [f"url=db://u:{PLANTED}@h"]
    predicted = diagnose(memory, check=True, evidence_folder=str(tmp_path))
    assert (predicted["evidence_path"], list(tmp_path.iterdir())) == (None, [])
    run = diagnose(memory, evidence_folder=str(tmp_path))
    files = {path.name: path.read_text() for path in Path(run["evidence_path"]).rglob("*") if path.is_file()}
    assert {"web-1-0_app.log", "web-1-1_app.log", "objects.json", "events.txt", "verdict.json", "index.json"} <= set(
        files
    )
    assert [name for name, text in files.items() if "pl4nted" in text] == []
    kept = json.loads(files["configuration_keys.json"])
    assert kept == {"Secret/db": ["password", "username"]}
    assert json.loads(files["index.json"])["object"] == "Deployment n/web"
    again = diagnose(memory, evidence_folder=str(tmp_path))
    assert again["evidence_path"] != run["evidence_path"]


def test_evidence_that_cannot_be_saved_is_an_error(memory: MemoryServer, tmp_path: Path) -> None:
    """So that nobody changes anything after it."""
    Shop(memory)
    (tmp_path / "file").write_text("")
    run = run_operation(memory, read_diagnosis, evidence_folder=str(tmp_path / "file"))
    assert run.failed
    assert "nothing can be saved there" in run.msg
    assert run["verdict"]["reason"] == "healthy"


def test_every_reason_has_a_next_step() -> None:
    """And is documented, in its order."""
    text = Path("plugins/modules/k8s_diagnosis_info.py").read_text(encoding="utf-8")
    positions = [text.find(f"C({reason})") for reason in REASONS]
    assert -1 not in positions
    assert positions == sorted(positions)
    assert all(REASONS.values())


@pytest.mark.parametrize("check", [False, True])
def test_evidence_that_would_end_with_a_job_of_awx_is_refused(
    memory: MemoryServer, monkeypatch: pytest.MonkeyPatch, *, check: bool
) -> None:
    """Before anything is read, in check mode as well; without evidence a job may ask."""
    Shop(memory)
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", "/runner/artifacts/7")
    run = run_operation(memory, read_diagnosis, check=check, evidence_folder="/runner/evidence")
    assert run.failed
    assert run.msg.startswith("evidence folder /runner/evidence: it is in /runner, which is made for one job.")
    assert memory.log == []
    assert list_reasons(diagnose(memory)) == ["healthy"]
