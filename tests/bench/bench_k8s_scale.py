#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_scale_to_partitions against kubectl and kubernetes.core.k8s_scale, interleaved on the lab's cluster.

Scales a StatefulSet from 3 to 6 and measures how long after readiness each tool returns (its process has ended), as an
observer of its own sees readiness on a watch; counts the requests in the server's audit log; then times a task that has
nothing to do against a module that does nothing (the difference between 11 tasks and 1, divided by 10). Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_k8s_scale.py --pairs 7

Prints one JSON document: medians, their ranges, and medians of the pairwise ratios.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.http_proxy import upstream
from support.modules import MAIN, module_environment
from support.playbooks import playbook_command, playbook_environment

NAMESPACE = "bench-k8s-scale"
PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"
FOREIGN = """
import json, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    from ansible_collections.kubernetes.core.plugins.modules.k8s_scale import main
    main()
"""
AGENTS = {
    "ours": "lowtide.ops/",
    "kubectl cold": "kubectl/",
    "kubectl warm": "kubectl/",
    "k8s_scale": "OpenAPI-Generator/",
}
NOOP_MODULE = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""


class Cluster:
    """Plain requests to the API server."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.target = upstream(facts["kubeconfig"])

    def request(self, method: str, path: str, body: Any = None, type_: str = "apply-patch+yaml") -> dict[str, Any]:
        """One request on a connection of its own."""
        connection = http.client.HTTPSConnection(self.target[0], self.target[1], context=self.target[2])
        headers = {"Content-Type": f"application/{type_}", "User-Agent": "bench"}
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        connection.close()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {answer}")
        return answer

    def settled(self, replicas: int) -> float:
        """Watch until so many replicas are ready; the time at which that was seen."""
        connection = http.client.HTTPSConnection(self.target[0], self.target[1], context=self.target[2])
        connection.request("GET", f"{PATH}?watch=true&fieldSelector=metadata.name%3Dw", headers={"User-Agent": "bench"})
        response = connection.getresponse()
        while True:
            status = json.loads(response.readline())["object"]["status"]
            if status.get("readyReplicas", 0) == replicas == status.get("replicas"):
                seen = time.monotonic()
                connection.close()
                return seen

    def scale(self, replicas: int) -> None:
        """Set the replicas and wait."""
        self.request("PATCH", f"{PATH}/w", {"spec": {"replicas": replicas}}, "merge-patch+json")
        self.settled(replicas)

    def audited(self, agent: str, begin: datetime, end: datetime) -> int:
        """Requests of a client between two times, as the server recorded them."""
        found = set()
        for line in Path(self.facts["audit_log"]).read_text(encoding="utf-8").splitlines():
            if f'"userAgent":"{agent}' in line and NAMESPACE in line:
                entry = json.loads(line)
                at = datetime.fromisoformat(entry["requestReceivedTimestamp"])
                if begin <= at <= end:
                    found.add(entry["auditID"])
        return len(found)


def prepare(cluster: Cluster) -> None:
    """A namespace and a StatefulSet of three pods that do nothing."""
    container = {"name": "main", "image": cluster.facts["images"][0], "command": ["sleep", "100000"]}
    template = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    spec = {
        "replicas": 3,
        "serviceName": "w",
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": {"app": "w"}},
        "template": template,
    }
    apply = "?fieldManager=bench&force=true"
    cluster.request(
        "PATCH",
        f"/api/v1/namespaces/{NAMESPACE}{apply}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    )
    cluster.request(
        "PATCH",
        f"{PATH}/w{apply}",
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "w"}, "spec": spec},
    )
    cluster.settled(3)


def run_tool(tool: str, facts: dict[str, Any], folder: str) -> float:
    """Scale to 6 and wait with one tool; the time at which its last process had ended."""
    environment = {key: value for key, value in module_environment().items() if key != "PYTHONDONTWRITEBYTECODE"}
    target = {"kubeconfig": facts["kubeconfig"], "kind": "StatefulSet", "name": "w", "namespace": NAMESPACE}
    if tool == "ours":
        request = json.dumps({"module": "k8s_scale_to_partitions", "args": {**target, "partitions": 6, "guards": []}})
        commands, text = [[sys.executable, str(MAIN)]], request
    elif tool == "k8s_scale":
        environment.pop("PYTHONPATH")
        text = json.dumps({**target, "api_version": "apps/v1", "replicas": 6, "wait": True, "wait_timeout": 120})
        commands = [[sys.executable, "-c", FOREIGN]]
    else:
        cache = f"{folder}/{time.monotonic_ns() if 'cold' in tool else 'cache'}"
        base = [facts["kubectl"], "--kubeconfig", facts["kubeconfig"], "--cache-dir", cache, "-n", NAMESPACE]
        commands, text = (
            [[*base, "scale", "statefulset/w", "--replicas=6"], [*base, "rollout", "status", "statefulset/w"]],
            "",
        )
    for command in commands:
        done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{tool}: {done.stdout}{done.stderr}")
    return time.monotonic()


def measure(cluster: Cluster, tool: str, folder: str) -> dict[str, float]:
    """One scaling: seconds after readiness, seconds in all, requests."""
    cluster.scale(3)
    seen: list[float] = []
    observer = threading.Thread(target=lambda: seen.append(cluster.settled(6)))
    observer.start()
    begin, started = datetime.now(UTC), time.monotonic()
    ended = run_tool(tool, cluster.facts, folder)
    end = datetime.now(UTC)
    observer.join()
    time.sleep(0.3)  # the audit log is written in batches
    return {
        "reaction": ended - seen[0],
        "total": ended - started,
        "requests": cluster.audited(AGENTS[tool], begin, end),
    }


def task_seconds(task: dict[str, Any], folder: str) -> float:
    """What one more task costs: 11 tasks minus 1, divided by 10."""
    spent = []
    for count in (11, 1):
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task] * count}
        play["vars"] = {"ansible_python_interpreter": sys.executable}
        path = Path(folder, f"play-{count}.yml")
        path.write_text(yaml.safe_dump([play], default_flow_style=False), encoding="utf-8")
        environment = playbook_environment({"ANSIBLE_LIBRARY": f"{folder}/library"})
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        begin = time.monotonic()
        done = subprocess.run(playbook_command(path), capture_output=True, text=True, env=environment, check=False)
        spent.append(time.monotonic() - begin)
        if done.returncode or "changed=0" not in done.stdout:
            raise SystemExit(done.stdout + done.stderr)
    return (spent[0] - spent[1]) / 10


def tasks(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tasks with nothing to do: the StatefulSet has 6 replicas."""
    target = {"kubeconfig": facts["kubeconfig"], "kind": "StatefulSet", "name": "w", "namespace": NAMESPACE}
    return {
        "no-op": {"noop": {}},
        "ours": {"lowtide.ops.k8s_scale_to_partitions": {**target, "partitions": 6}},
        "k8s_workload": {
            "lowtide.ops.k8s_workload": {
                "kubeconfig": facts["kubeconfig"],
                "namespace": NAMESPACE,
                "state": "running",
                "workloads": [{"kind": "StatefulSet", "name": "w"}],
            }
        },
        "k8s_scale": {"kubernetes.core.k8s_scale": {**target, "api_version": "apps/v1", "replicas": 6}},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    pairs = parser.parse_args().pairs
    cluster = Cluster(json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))["kubernetes"])
    prepare(cluster)
    report: dict[str, Any] = {"pairs": pairs, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "library").mkdir()
        Path(folder, "library", "noop.py").write_text(NOOP_MODULE, encoding="utf-8")
        run_tool("kubectl warm", cluster.facts, folder)
        scalings: dict[str, list[dict[str, float]]] = {tool: [] for tool in AGENTS}
        for _pair in range(pairs):
            for tool, results in scalings.items():
                results.append(measure(cluster, tool, folder))
        for tool, results in scalings.items():
            report[tool] = {key: spread([one[key] for one in results]) for key in results[0]}
            report[tool]["reaction against ours"] = spread(
                [one["reaction"] / mine["reaction"] for one, mine in zip(results, scalings["ours"], strict=True)]
            )
        idle: dict[str, list[float]] = {name: [] for name in tasks(cluster.facts)}
        for _pair in range(pairs):
            for name, task in tasks(cluster.facts).items():
                idle[name].append(task_seconds(task, folder))
        report["nothing to do"] = {
            name: {
                "seconds": spread(values),
                "against no-op": spread([a / b for a, b in zip(values, idle["no-op"], strict=True)]),
            }
            for name, values in idle.items()
        }
        report["load after"] = os.getloadavg()[0]
    cluster.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
