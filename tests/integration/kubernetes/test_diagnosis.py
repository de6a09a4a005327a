# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_diagnosis_info on real broken workloads: the cause is named, the evidence kept, and no planted secret is in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes_account import AuditLog, Right, expand, name_user, narrow, read_rules
from support.modules import ModuleRun

from .conftest import Namespace
from .steps import stop, tell

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]
Connect = Callable[..., Json]

DIAGNOSE = "k8s_diagnosis_info"
VALUE = "pl4nted-S3cret/value+1"
URL_VALUE = "pl4nted-Url-p4ss"
PLANTED = (VALUE, URL_VALUE, base64.b64encode(VALUE.encode()).decode(), "pl4nted%2D", "S3cret%2Fvalue%2B1")


def put_secret(namespace: Namespace, name: str = "db", **more: str) -> None:
    """Create a Secret with the planted values."""
    values = {"password": VALUE, "url": f"postgres://app:{URL_VALUE}@db:5432/app", **more}
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})


def refer_to_secret(*names: str, key: str = "password") -> list[Json]:
    """Return variables that hold a key of the Secret."""
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": "db", "key": key}}} for name in names]


def diagnose(namespace: Namespace, kind: str, name: str, **params: Any) -> ModuleRun:
    """Diagnose a workload; no planted secret is in anything that is said."""
    run = namespace.module(DIAGNOSE, kind=kind, name=name, **params)
    assert not run.failed, run.msg
    assert not run.changed
    check_no_secret(tell(run))
    return run


def check_no_secret(text: str) -> None:
    """Whatever form it was printed in."""
    assert [secret for secret in PLANTED if secret in text] == []


def wait_for(
    namespace: Namespace, kind: str, name: str, reason: str, seconds: float = 180, *, words: str = "", **params: Any
) -> ModuleRun:
    """Diagnose until the verdict is this one and its message has these words."""
    runs: list[ModuleRun] = []

    def is_so() -> bool:
        runs.append(diagnose(namespace, kind, name, **params))
        return bool(runs[-1]["verdict"]["reason"] == reason and words in runs[-1]["verdict"]["message"])

    try:
        namespace.wait(f"verdict {reason} {words}", is_so, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {runs[-1]['summary']} {runs[-1]['others']}") from error
    return runs[-1]


@pytest.mark.procedure("A2", "B3", "B4", "C1")
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_crash_loop_shows_the_end_of_the_previous_log_without_secrets(
    namespace: Namespace, kind: str, tmp_path: Path
) -> None:
    """The program prints its password in several ways before it ends, and has ended when somebody looks."""
    put_secret(namespace)
    script = (
        'echo "connect with $P"; echo "url $U"; echo "dsn user=app password=$P x=1"; printf "%s" "$P" | base64;'
        ' echo "fatal: cannot connect"; exit 3'
    )
    env = [*refer_to_secret("P"), *refer_to_secret("U", key="url"), {"name": "DB_PASSWORD", "value": URL_VALUE}]
    namespace.apply(namespace.workload("w", kind=kind, replicas=2, command=["sh", "-c", script], env=env))
    namespace.wait("every container was restarted", lambda: count_restarts(namespace) >= [1, 1])
    # Until both wait for their next start: while one of them runs, without a probe, it counts as ready.
    folder = str(tmp_path / "evidence")
    run = wait_for(namespace, kind, "w", "crash_loop", words="1 other pod alike", evidence_folder=folder)
    verdict = run["verdict"]
    assert verdict["reason"] == "crash_loop"
    assert "container main ended by itself (Error, exit code 3" in verdict["message"]
    assert verdict["message"].endswith("1 other pod alike")
    assert any("fatal: cannot connect" in line for line in verdict["evidence"])
    assert all("connect with [redacted]" in log["text"] or log["reason"] for log in run["logs"])
    assert not any("unable to retrieve" in log["text"] for log in run["logs"])
    assert {log["pod"] for log in run["logs"]} == {f"{namespace.name}/{pod['name']}" for pod in run["pods"]}
    check_bundle(Path(run["evidence_path"]))


def count_restarts(namespace: Namespace) -> list[int]:
    """Return how often the container of each pod was restarted, least first."""
    statuses = [pod["status"].get("containerStatuses", []) for pod in namespace.list("Pod")]
    return sorted(status[0]["restartCount"] for status in statuses if status)


def check_bundle(folder: Path) -> None:
    """Only the owner may read it, the index has every file's sum, and no planted secret is anywhere."""
    index = json.loads((folder / "index.json").read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"index.json"}
    assert files == set(index["files"])
    assert {"objects.json", "events.txt", "verdict.json"} <= files
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    for name, entry in index["files"].items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        check_no_secret(content.decode())


@pytest.mark.procedure("A5", "B6", "E19")
def test_an_oom_kill_is_told_by_the_state_of_the_container(namespace: Namespace) -> None:
    """With its limit, also while the container runs again; a sidecar that was not killed is not blamed."""
    grow = "echo growing; x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    sidecar = {"name": "sidecar", "image": namespace.facts["images"][0], "command": ["sleep", "100000"]}
    workload = namespace.workload("w", kind="Deployment", command=["sh", "-c", grow])
    workload["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "24Mi"}}
    workload["spec"]["template"]["spec"]["containers"].append(sidecar)
    namespace.apply(workload)
    run = wait_for(namespace, "Deployment", "w", "oom_killed")
    assert "container main was OOM killed at its memory limit of 24Mi" in run["verdict"]["message"]
    assert not [other for other in run["others"] if "sidecar" in other["message"]]


@pytest.mark.procedure("A5")
def test_an_oom_kill_that_is_over_is_history(namespace: Namespace) -> None:
    """The pod serves again; what happened within the time that is asked for is told, and no more before it."""
    once = (
        "if [ -e /data/x ]; then exec sleep 100000; fi; touch /data/x; x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    )
    volume = {"volumes": [{"name": "data", "emptyDir": {}}]}
    mounts = [{"name": "data", "mountPath": "/data"}]
    limits = {"limits": {"memory": "24Mi"}}
    pod: Json = {"command": ["sh", "-c", once], "volumeMounts": mounts, "resources": limits, "spec": volume}
    namespace.apply(namespace.workload("w", kind="Deployment", **pod))
    namespace.wait("it was killed once", lambda: count_restarts(namespace) == [1])
    namespace.ready("Deployment", "w", 1)
    verdict = diagnose(namespace, "Deployment", "w")["verdict"]
    assert (verdict["reason"], verdict["current"]) == ("oom_killed", False)
    assert diagnose(namespace, "Deployment", "w", since=0.001)["verdict"]["reason"] == "healthy"


@pytest.mark.procedure("B3")
def test_a_bad_image_is_named(namespace: Namespace) -> None:
    """With the tag that does not exist; what waits behind it is not the cause."""
    namespace.apply(namespace.workload("w", kind="Deployment", image="localhost/busybox:no-such-tag"))
    verdict = wait_for(namespace, "Deployment", "w", "image_pull")["verdict"]
    assert "localhost/busybox:no-such-tag" in verdict["message"]


@pytest.mark.procedure("B6")
def test_a_pod_that_fits_on_no_node(namespace: Namespace) -> None:
    """The scheduler's own words."""
    resources = {"requests": {"cpu": "1000"}}
    namespace.apply(namespace.workload("w", resources=resources))
    verdict = wait_for(namespace, "StatefulSet", "w", "unschedulable")["verdict"]
    assert "Insufficient cpu" in verdict["message"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_an_exceeded_quota(namespace: Namespace, kind: str) -> None:
    """Found on the ReplicaSet's condition or on the StatefulSet's event: there is no pod to look at."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    namespace.apply(quota)
    namespace.wait("quota counts", lambda: "hard" in namespace.get("ResourceQuota", "q").get("status", {}))
    namespace.apply(namespace.workload("w", kind=kind))
    verdict = wait_for(namespace, kind, "w", "quota")["verdict"]
    assert "exceeded quota: q" in verdict["message"]


@pytest.mark.procedure("E2")
def test_a_failing_readiness_probe_and_the_service_that_has_no_endpoint(namespace: Namespace) -> None:
    """Which probe of which container, with its command; the Service is the symptom."""
    probe = {"exec": {"command": ["cat", "/no-such-file"]}, "periodSeconds": 1}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}}
    service["spec"] = {"selector": {"app": "w"}, "ports": [{"port": 80}]}
    namespace.apply(service, namespace.workload("w", kind="Deployment", readinessProbe=probe))
    namespace.wait("the kubelet says it", lambda: any(e["reason"] == "Unhealthy" for e in namespace.list("Event")))
    run = wait_for(namespace, "Deployment", "w", "probe_failing", words="No such file")
    verdict = run["verdict"]
    assert "readiness probe of container main fails (command cat /no-such-file" in verdict["message"]
    assert "No such file" in verdict["message"]
    assert [other["object"] for other in run["others"] if other["reason"] == "no_endpoints"] == [
        f"Service {namespace.name}/api"
    ]


@pytest.mark.procedure("B3")
def test_a_liveness_probe_that_kills_is_the_cause_and_not_the_crash(namespace: Namespace) -> None:
    """The container ends by a signal that the kubelet sent."""
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    readiness = {"exec": {"command": ["true"]}, "initialDelaySeconds": 30}
    namespace.apply(namespace.workload("w", kind="Deployment", livenessProbe=probe, readinessProbe=readiness))
    namespace.wait("it was killed", lambda: bool(count_restarts(namespace)) and count_restarts(namespace)[0] >= 1)
    run = wait_for(namespace, "Deployment", "w", "probe_failing")
    assert "liveness probe of container main fails (command false" in run["verdict"]["message"]
    assert [other["reason"] for other in run["others"] if other["reason"] == "crash_loop"] == []


@pytest.mark.procedure("B4", "B5")
def test_a_missing_key_names_the_secret_and_its_keys_and_no_value(namespace: Namespace, tmp_path: Path) -> None:
    """The object that lacks it, what needs it, and the pods' own words; an optional one is not missed."""
    put_secret(namespace)
    optional = {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}}
    namespace.apply(namespace.workload("w", env=[*refer_to_secret("TOKEN", key="token"), optional]))
    run = wait_for(namespace, "StatefulSet", "w", "missing_configuration", evidence_folder=str(tmp_path))
    verdict = run["verdict"]
    assert verdict["object"] == f"Secret {namespace.name}/db"
    assert (
        "it has no key token, which variable TOKEN of container main needs; it has password, url" in verdict["message"]
    )
    namespace.wait(
        "the kubelet says so too",
        lambda: any("couldn't find key token" in line for line in diagnose(namespace, "StatefulSet", "w")["evidence"]),
    )
    assert [other["reason"] for other in diagnose(namespace, "StatefulSet", "w")["others"]] == []
    check_bundle(Path(run["evidence_path"]))


@pytest.mark.procedure("B5")
def test_a_config_map_that_does_not_exist_and_variables_that_nobody_sets(namespace: Namespace) -> None:
    """A volume of it keeps the pod from starting; a required variable is compared with env and envFrom."""
    put_secret(namespace)
    volumes = {"volumes": [{"name": "conf", "configMap": {"name": "none"}}]}
    pod: Json = {"volumeMounts": [{"name": "conf", "mountPath": "/conf"}], "spec": volumes}
    namespace.apply(namespace.workload("w", **pod), namespace.workload("v", envFrom=[{"secretRef": {"name": "db"}}]))
    missing = wait_for(namespace, "StatefulSet", "w", "missing_configuration")["verdict"]
    assert missing["object"] == f"ConfigMap {namespace.name}/none"
    assert "it does not exist, and volume conf needs it" in missing["message"]
    namespace.ready("StatefulSet", "v", 1)
    required = [{"container": "main", "required": ["password", "BROKERS"]}]
    verdict = diagnose(namespace, "StatefulSet", "v", configuration=required)["verdict"]
    assert "container main has no variable BROKERS, which is required" in verdict["message"]
    assert verdict["message"].endswith("its pods still run, and none that starts now will")
    assert diagnose(namespace, "StatefulSet", "v")["verdict"]["reason"] == "healthy"


def test_a_claim_without_a_volume_is_the_cause_of_a_pod_that_is_not_scheduled(namespace: Namespace) -> None:
    """No volume has its class."""
    claim: Json = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Mi"}}
    workload = namespace.workload("w")
    workload["spec"]["volumeClaimTemplates"] = [claim]
    namespace.apply(workload)
    namespace.wait("claimed", lambda: bool(namespace.list("PersistentVolumeClaim")))
    run = wait_for(namespace, "StatefulSet", "w", "claim_pending")
    assert run["verdict"]["object"] == f"PersistentVolumeClaim {namespace.name}/data-w-0"
    assert {other["reason"] for other in run["others"]} <= {"unschedulable"}


@pytest.mark.procedure("A28")
def test_scaled_to_zero_says_by_whom(namespace: Namespace) -> None:
    """A run of this collection, or another client."""
    namespace.apply(namespace.workload("a"), namespace.workload("b"))
    for name in "ab":
        namespace.ready("StatefulSet", name, 1)
    stopped = stop(namespace, "StatefulSet/a", run_id="night")
    assert not stopped.failed, stopped.msg
    namespace.set_replicas("StatefulSet", "b", 0, manager="kubectl-edit")
    ours = diagnose(namespace, "StatefulSet", "a")["verdict"]
    assert (ours["reason"], "run night" in ours["message"]) == ("scaled_to_zero", True)
    theirs = diagnose(namespace, "StatefulSet", "b")["verdict"]
    assert (theirs["reason"], "by kubectl-edit at 20" in theirs["message"]) == ("scaled_to_zero", True)


@pytest.mark.procedure("A2", "A28")
def test_a_healthy_workload_whose_group_does_not_consume(namespace: Namespace) -> None:
    """All pods serve; the logs of all of them are there, more than ten lines of each."""
    script = "for i in $(seq 1 30); do echo line $i; done; exec sleep 100000"
    namespace.apply(namespace.workload("w", replicas=2, command=["sh", "-c", script]))
    namespace.ready("StatefulSet", "w", 2)
    partitions = [{"topic": "t", "partition": number, "member_id": None, "lag": 7} for number in range(3)]
    group = {"name": "workers", "state": "empty", "member_count": 0, "total_lag": 21, "partitions": partitions}
    runs: list[ModuleRun] = []

    def has_written() -> bool:
        """A container counts as ready when it is started, which is before it has written anything."""
        runs.append(diagnose(namespace, "StatefulSet", "w", consumer_group_state={"groups": [group]}))
        return sorted(len(log["text"].splitlines()) for log in runs[-1]["logs"]) == [30, 30]

    namespace.wait("both logs are there as a whole", has_written)
    run = runs[-1]
    assert run["verdict"]["reason"] == "group_not_consuming"
    assert "0 of 3 partitions assigned, 0 members, lag 21" in run["verdict"]["message"]


def describe_daemon(namespace: Namespace, name: str) -> Json:
    """Return a DaemonSet of pods that do nothing."""
    daemon = namespace.workload(name, kind="DaemonSet")
    del daemon["spec"]["replicas"]
    return daemon


def test_an_account_with_the_documented_rights_reads_everything(namespace: Namespace, connect: Connect) -> None:
    """And uses each of them: a Deployment, a StatefulSet and a DaemonSet that all serve."""
    put_secret(namespace)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}}
    service["spec"] = {"selector": {"app": "w"}, "ports": [{"port": 80}]}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"LEVEL": "debug"}}
    env: Json = {"env": refer_to_secret("P"), "envFrom": [{"configMapRef": {"name": "c"}}]}
    namespace.apply(service, settings, namespace.workload("w", kind="Deployment", **env), namespace.workload("s"))
    namespace.apply(describe_daemon(namespace, "d"))
    for kind, name in (("Deployment", "w"), ("StatefulSet", "s")):
        namespace.ready(kind, name, 1)
    namespace.wait("daemons serve", lambda: namespace.get("DaemonSet", "d")["status"].get("numberAvailable", 0) >= 1)
    account = connect(read_rules("Role", "lowtide-diagnosis"))
    audit = AuditLog(namespace.facts)
    for kind, name in (("Deployment", "w"), ("StatefulSet", "s"), ("DaemonSet", "d")):
        run = wait_for(namespace, kind, name, "healthy", **account)
        assert [line for line in run["unreadable"] if "grant get nodes" not in line] == []
        assert [(log["reason"], log["text"]) for log in run["logs"] if log["reason"] != "it is empty"] == []
    documented = expand(read_rules("Role", "lowtide-diagnosis"))
    used = audit.wait_for_rights(name_user(namespace.name), documented)
    assert used - documented == set(), "used, and not documented"
    assert documented - used == set(), "documented, and not used"


def test_an_account_that_may_read_no_secret_still_gets_a_verdict(namespace: Namespace, connect: Connect) -> None:
    """By the kubelet's words, and it is told which right it lacks."""
    put_secret(namespace)
    namespace.apply(namespace.workload("w", env=refer_to_secret("TOKEN", key="token")))
    account = connect(narrow(read_rules("Role", "lowtide-diagnosis"), Right("get", "", "secrets")))
    less = wait_for(namespace, "StatefulSet", "w", "missing_configuration", **account)
    assert less["verdict"]["object"] == f"Pod {namespace.name}/w-0"
    assert f"not allowed to read: grant get secrets db in namespace {namespace.name}" in less["unreadable"]
