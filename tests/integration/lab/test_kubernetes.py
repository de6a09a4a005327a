# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's cluster is a real one: two nodes, pods that reach one another, exit codes, rollouts, and no event lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE_SECONDS = 300.0


class Kubectl:
    """kubectl with the lab's administrator."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._argv = [facts["kubectl"], f"--kubeconfig={facts['kubeconfig']}", f"--context={facts['context']}"]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it, whatever it answers."""
        return subprocess.run(
            [*self._argv, *arguments], input=stdin, capture_output=True, text=True, timeout=400, check=False
        )

    def must(self, *arguments: str, stdin: str = "") -> str:
        """Run it and return what it prints; it has to succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Objects as data."""
        found: dict[str, Any] = json.loads(self.must("get", *arguments, "--output=json"))
        return found


@pytest.fixture
def kubectl(lab: dict[str, Any]) -> Kubectl:
    return Kubectl(lab["kubernetes"])


@pytest.fixture
def namespace(kubectl: Kubectl, unique_name: Callable[..., str]) -> Iterator[str]:
    """A namespace of this test's own."""
    name = unique_name("cluster")
    kubectl.must("create", "namespace", name)
    yield name
    kubectl.must("delete", "namespace", name, "--wait=false")


def _pod(name: str, node: str, image: str, command: list[str]) -> dict[str, Any]:
    container = {"name": "main", "image": image, "command": command}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def pods(kubectl: Kubectl, namespace: str, lab: dict[str, Any]) -> dict[str, str]:
    """A small web server on each node: node name -> address of its pod, which is named as the node."""
    image = lab["kubernetes"]["images"][0]
    serve = ["/bin/httpd", "-f", "-p", "8080", "-h", "/etc"]
    names = [node["name"] for node in lab["kubernetes"]["nodes"]]
    items = [_pod(name, name, image, serve) for name in names]
    kubectl.must(
        "create", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    kubectl.must("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=300s")
    found = kubectl.get("pods", "-n", namespace)["items"]
    return {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in found}


@pytest.mark.lab("kubernetes")
def test_two_nodes_are_ready_and_the_cluster_is_who_it_says(kubectl: Kubectl, lab: dict[str, Any]) -> None:
    nodes = kubectl.get("nodes")["items"]
    conditions = {
        node["metadata"]["name"]: [one["status"] for one in node["status"]["conditions"] if one["type"] == "Ready"]
        for node in nodes
    }
    assert conditions == {"node1": ["True"], "node2": ["True"]}
    addresses = {
        (node["metadata"]["name"], one["address"])
        for node in nodes
        for one in node["status"]["addresses"]
        if one["type"] == "InternalIP"
    }
    assert addresses == {(node["name"], node["address"]) for node in lab["kubernetes"]["nodes"]}
    assert kubectl.get("namespace", "kube-system")["metadata"]["uid"] == lab["kubernetes"]["cluster_uid"]
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} == {"v1.35.8"}


@pytest.mark.lab("kubernetes")
def test_pods_on_different_nodes_reach_one_another_and_exit_codes_come_back(
    kubectl: Kubectl, namespace: str, pods: dict[str, str]
) -> None:
    first, second = sorted(pods)
    assert pods[first].startswith("10.78.1.")
    assert pods[second].startswith("10.78.2.")
    for here, there in ((first, second), (second, first)):
        url = f"http://{pods[there]}:8080/release"
        assert kubectl.must("exec", "-n", namespace, here, "--", "wget", "-qO-", url) == "1.0.0\n"
    failing = kubectl.run("exec", "-n", namespace, first, "--", "sh", "-c", "exit 3")
    assert failing.returncode == 3, failing.stderr


def _releases(kubectl: Kubectl, service: dict[str, Any]) -> set[str]:
    """What each serving pod of the API itself says its release is."""
    found = kubectl.get("pods", "-n", service["namespace"], "-l", f"app={service['api']}")["items"]
    serving = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    answers = set()
    for pod in serving:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{service['port']}/version", timeout=60) as answer:
            answers.add(json.load(answer)["release"])
    return answers


@pytest.mark.lab("feature_service")
def test_an_upgrade_of_the_api_is_real(kubectl: Kubectl, lab: dict[str, Any]) -> None:
    service = lab["feature_service"]
    deployment = ("-n", service["namespace"], f"deployment/{service['api']}")
    old, new = service["images"]
    assert _releases(kubectl, service) == {"1.0.0"}
    try:
        kubectl.must("set", "image", *deployment, f"{service['api']}={new}")
        kubectl.must("rollout", "status", *deployment, "--timeout=300s")
        assert _releases(kubectl, service) == {"1.1.0"}
    finally:
        kubectl.must("set", "image", *deployment, f"{service['api']}={old}")
        kubectl.must("rollout", "status", *deployment, "--timeout=300s")
    assert _releases(kubectl, service) == {"1.0.0"}


def _worker_pid(lab_name: str, pod: str) -> int:
    """The process of the worker in ``pod`` of this very lab, seen from the machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"/lowtide-{lab_name}/node" not in (entry / "cgroup").read_text():
                    continue
                environment = (entry / "environ").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                continue
            if f"PGAPPNAME={pod}".encode() in environment:
                return int(entry.name)
    pytest.fail(f"no process of pod {pod} in lab {lab_name}")


def _audit(service: dict[str, Any], *, patience: float = PATIENCE_SECONDS) -> dict[str, Any]:
    """The audit's verdict, once everything in the topic is recorded or time is over."""
    deadline = time.monotonic() + patience
    while True:
        done = subprocess.run(
            service["audit"],
            env={**os.environ, **service["database_environment"]},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.stdout, done.stderr
        verdict: dict[str, Any] = json.loads(done.stdout)
        assert verdict["ok"] == (done.returncode == 0)
        if verdict["missing"] == 0 or time.monotonic() > deadline:
            return verdict


def _produce(service: dict[str, Any], count: int) -> dict[str, Any]:
    """Produce so many events, as fast as the broker takes them, and return what the producer says."""
    command = [*service["producer"], "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.lab("feature_service")
def test_a_killed_worker_loses_nothing_and_doubles_nothing(kubectl: Kubectl, lab: dict[str, Any]) -> None:
    service = lab["feature_service"]
    pod = f"{service['worker']}-1"
    before = _audit(service)
    assert before["ok"], before

    def restarts() -> int:
        found = kubectl.get("pod", "-n", service["namespace"], pod)
        return int(found["status"]["containerStatuses"][0]["restartCount"])

    restarted_before = restarts()
    # It is told to end once the worker is killed, however long that takes.
    producer = subprocess.Popen(
        [*service["producer"], "--count", "1000000", "--rate", "500"], stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _recorded_by(service, pod, since=before["recorded"]) == 0:
            assert time.monotonic() < deadline, f"{pod} records nothing"
            assert producer.poll() is None, "the producer ended before the worker could be killed"
        os.kill(_worker_pid(lab["lab"]["name"], pod), signal.SIGKILL)
        later = _produce(service, 1000)
    finally:
        producer.terminate()
        output, _nothing = producer.communicate(timeout=300)
    produced = json.loads(output)
    assert (produced["ended_by"], produced["unconfirmed"]) == ("signal", 0)
    assert (later["acknowledged"], later["unconfirmed"]) == (1000, 0)

    after = _audit(service)
    assert after["ok"], after
    assert after["recorded"] == before["recorded"] + produced["acknowledged"] + 1000 == after["produced"]
    assert after["applied"] == after["recorded"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while restarts() == restarted_before:
        assert time.monotonic() < deadline, f"{pod} was not restarted"
    kubectl.must("wait", "-n", service["namespace"], "--for=condition=Ready", f"pod/{pod}", "--timeout=300s")


def _sql(service: dict[str, Any], statement: str, **values: object) -> str:
    """What a statement answers, as the owner of the database; ``values`` stand for :'name' in it."""
    done = subprocess.run(
        [
            *["psql", "--no-psqlrc", "-qtA", "-v", "ON_ERROR_STOP=1"],
            *(part for name, value in values.items() for part in ("-v", f"{name}={value}")),
        ],
        input=statement,
        env={**os.environ, **service["database_environment"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _recorded_by(service: dict[str, Any], pod: str, *, since: int) -> int:
    """How many of the newest events (all but ``since``) this worker has recorded."""
    statement = (
        "SELECT count(*) FROM (SELECT worker FROM execution_events ORDER BY recorded_at DESC "
        "LIMIT greatest(0, (SELECT count(*) FROM execution_events) - :since)) AS newest WHERE worker = :'pod'"
    )
    return int(_sql(service, statement, since=since, pod=pod))


@pytest.mark.lab("feature_service")
@pytest.mark.parametrize(
    ("damage", "repair", "seen"),
    [
        pytest.param(
            "UPDATE feature_executions SET events_applied = events_applied + 1 WHERE id = :'feature'",
            "UPDATE feature_executions SET events_applied = events_applied - 1 WHERE id = :'feature'",
            {"doubled": 1, "wrong_features": 1, "missing": 0},
            id="applied twice",
        ),
        pytest.param(
            "UPDATE execution_events SET topic = 'lost' WHERE event_id = :'event'",
            "UPDATE execution_events SET topic = :'topic' WHERE event_id = :'event'",
            {"doubled": 0, "wrong_features": 0, "missing": 1},
            id="not recorded",
        ),
    ],
)
def test_the_audit_sees_what_is_wrong(lab: dict[str, Any], damage: str, repair: str, seen: dict[str, int]) -> None:
    service = lab["feature_service"]
    _produce(service, 50)
    assert _audit(service)["ok"]
    row = _sql(service, "SELECT event_id, feature_execution_id FROM execution_events LIMIT 1")
    event, feature = row.split("|")
    _sql(service, damage, event=event, feature=feature)
    try:
        verdict = _audit(service, patience=0)
    finally:
        _sql(service, repair, event=event, feature=feature, topic=service["topic"])
    assert not verdict["ok"]
    assert {key: verdict[key] for key in seen} == seen
    assert _audit(service)["ok"]
