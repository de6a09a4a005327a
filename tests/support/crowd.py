# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Crowd a namespace with thousands of pods of a node that does not exist, which KWOK plays."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .kubernetes_server import ApiServer, build_path
from .kwok_stages import STAGES
from .modules import ModuleRun, finish_module, start_module

Json = dict[str, Any]

FAKE = "kwok.x-k8s.io/node"
TOLERATION = {"key": FAKE, "operator": "Exists", "effect": "NoSchedule"}
CAPACITY = {"cpu": "1000", "memory": "1Ti", "pods": "10000"}
LEASE_SECONDS = 40
WRITERS = 8
"""How many connections make pods at once."""


@contextmanager
def play_node(facts: Json, program: str, name: str, folder: Path) -> Iterator[str]:
    """Have a node of this name, on which every pod runs at once though nothing runs; its pods go with it.

    What KWOK does and says is in ``folder``.
    """
    server = ApiServer(facts)
    server.request("POST", build_path("Node", ""), describe_node(name))
    stages, log = folder / "kwok.yml", folder / "kwok.log"
    stages.write_text(yaml.safe_dump_all(STAGES), encoding="utf-8")
    command = [program, f"--kubeconfig={facts['kubeconfig']}", f"--config={stages}", f"--manage-single-node={name}"]
    command.append(f"--node-lease-duration-seconds={LEASE_SECONDS}")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(server, name, process, log)
        yield name
    finally:
        process.terminate()
        process.wait(120)
        server.request("DELETE", build_path("Node", "", name))


def wait_until_ready(server: ApiServer, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until KWOK has made the node ready; if it ends, what it said is the failure."""
    deadline = time.monotonic() + 300
    while True:
        conditions = server.request("GET", build_path("Node", "", name))["status"].get("conditions") or []
        if any((entry["type"], entry["status"]) == ("Ready", "True") for entry in conditions):
            return
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)


def describe_node(name: str) -> Json:
    """Return a node with room for every test, where only pods run that bear it."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {FAKE: "fake"}},
        "spec": {"taints": [{"key": FAKE, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": CAPACITY, "capacity": CAPACITY},
    }


def add_pods(server: ApiServer, namespace: str, node: str, numbers: range) -> None:
    """Make a pod for each number, bound to the node; they belong to nobody."""
    path = build_path("Pod", namespace)

    def add(number: int) -> None:
        server.request("POST", path, describe_pod(f"crowd-{number}", node))

    with ThreadPoolExecutor(WRITERS) as pool:
        for _done in pool.map(add, numbers):
            pass


def describe_pod(name: str, node: str) -> Json:
    """Return a pod about as large as those of real workloads."""
    variables = [{"name": f"SETTING_{number}", "value": "x" * 20} for number in range(10)]
    container = {"name": "main", "image": "localhost/busybox:1.0.0", "command": ["sleep", "100000"], "env": variables}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "crowd", "tier": "backend", "version": "1.0.0"}},
        "spec": {"nodeName": node, "containers": [container], "tolerations": [TOLERATION]},
    }


def are_all_running(server: ApiServer, namespace: str) -> bool:
    """Whether no pod of a namespace waits for its kubelet any more, without reading those that run."""
    path = f"{build_path('Pod', namespace)}?limit=1&fieldSelector=status.phase!%3DRunning"
    return not server.request("GET", path)["items"]


def remove_pods(server: ApiServer, namespace: str) -> None:
    """Delete all pods of a namespace at once, without their kubelet."""
    server.request("DELETE", f"{build_path('Pod', namespace)}?gracePeriodSeconds=0")


def measure_module(name: str, params: Json) -> tuple[ModuleRun, float]:
    """Run a module in a process of its own; return what it left, and the seconds of processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = finish_module(start_module(name, params))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
