#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against kubectl and kubernetes.core.k8s, interleaved on the lab's cluster.

Rolls a Deployment of three pods to another image and measures seconds in all, and the requests in the server's audit log.
Then gives it an image that nobody has, and measures what each tool does about it within a minute: when it ended, after
how many seconds from the first ErrImagePull in the API, and which image the Deployment asks for then. Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_k8s_rollout.py --pairs 5

Prints one JSON document: medians and their ranges.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.kubernetes_server import APPLY, ApiServer, build_path
from support.modules import MAIN, module_environment

Json = dict[str, Any]

NAMESPACE = "bench-k8s-rollout"
PATH = build_path("Deployment", NAMESPACE, "w")
BAD_IMAGE = "10.77.0.1:1/none:1"
SECONDS = 60
FOREIGN = """
import json, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    from ansible_collections.kubernetes.core.plugins.modules.k8s import main
    main()
"""
AGENTS = {"ours": "lowtide.ops/", "kubectl": "kubectl/", "kubernetes.core.k8s": "OpenAPI-Generator/"}


def describe(image: str) -> Json:
    """Return a Deployment of three pods that do nothing."""
    container = {"name": "main", "image": image, "command": ["sleep", "100000"]}
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    template = {"metadata": {"labels": {"app": "w"}}, "spec": pod}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    metadata = {"name": "w", "namespace": NAMESPACE}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def reset(server: ApiServer, image: str) -> None:
    """Have the Deployment serve with this image, made anew."""
    server.ask("DELETE", PATH, {"propagationPolicy": "Foreground"})
    while server.ask("GET", PATH)[0] != 404:
        time.sleep(0.2)
    server.request("PATCH", f"{PATH}?fieldManager=bench&force=true", describe(image), content_type=APPLY)
    while server.request("GET", PATH).get("status", {}).get("availableReplicas") != 3:
        time.sleep(0.2)


def list_commands(tool: str, facts: Json, image: str) -> tuple[list[list[str]], str]:
    """Return what runs a rollout that may take a minute, and what it reads."""
    if tool == "ours":
        args = {"kubeconfig": facts["kubeconfig"], "namespace": NAMESPACE, "kind": "Deployment", "name": "w"}
        args |= {"image": image, "timeout": SECONDS, "failure_grace_factor": 0.05, "serve_seconds": 0}
        return [[sys.executable, str(MAIN)]], json.dumps({"module": "k8s_rollout", "args": args})
    if tool == "kubectl":
        base = [facts["kubectl"], "--kubeconfig", facts["kubeconfig"], "-n", NAMESPACE]
        status = [*base, "rollout", "status", "deployment/w", f"--timeout={SECONDS}s"]
        return [[*base, "set", "image", "deployment/w", f"main={image}"], status], ""
    wait = {"wait": True, "wait_timeout": SECONDS, "wait_sleep": 1}
    args = {"kubeconfig": facts["kubeconfig"], "definition": describe(image), **wait}
    return [[sys.executable, "-c", FOREIGN]], json.dumps(args)


def run_tool(tool: str, facts: Json, image: str) -> int:
    """Run it to its end and return its exit code."""
    environment = {key: value for key, value in module_environment().items() if key != "PYTHONDONTWRITEBYTECODE"}
    if tool == "kubernetes.core.k8s":
        environment.pop("PYTHONPATH")
    commands, text = list_commands(tool, facts, image)
    for command in commands:
        done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            return done.returncode
    return 0


def count_requests(facts: Json, agent: str, begin: datetime, end: datetime) -> int:
    """Count the requests of a client between two times, as the server recorded them."""
    seen = set()
    for line in Path(facts["audit_log"]).read_text(encoding="utf-8").splitlines():
        if f'"userAgent":"{agent}' in line and NAMESPACE in line:
            entry = json.loads(line)
            if begin <= datetime.fromisoformat(entry["requestReceivedTimestamp"]) <= end:
                seen.add(entry["auditID"])
    return len(seen)


def measure_success(server: ApiServer, tool: str) -> Json:
    """Roll out an image that runs."""
    old, new = server.facts["images"]
    reset(server, old)
    begin, started = datetime.now(UTC), time.monotonic()
    if run_tool(tool, server.facts, new):
        raise SystemExit(f"{tool} failed")
    seconds, end = time.monotonic() - started, datetime.now(UTC)
    time.sleep(0.5)  # the audit log is written in batches
    return {"seconds": seconds, "requests": count_requests(server.facts, AGENTS[tool], begin, end)}


def measure_failure(server: ApiServer, tool: str) -> Json:
    """Roll out an image that nobody has."""
    reset(server, server.facts["images"][0])
    visible: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2) and not visible:
            if '"ErrImagePull"' in json.dumps(server.list("Pod", NAMESPACE)):
                visible.append(time.monotonic())

    observer = threading.Thread(target=look)
    observer.start()
    code = run_tool(tool, server.facts, BAD_IMAGE)
    end = time.monotonic()
    ended.set()
    observer.join()
    image = server.request("GET", PATH)["spec"]["template"]["spec"]["containers"][0]["image"]
    return {"exit code": code, "seconds after visible": end - visible[0], "put back": image != BAD_IMAGE}


def spread(values: list[float]) -> Json:
    """Return median and range."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    server = ApiServer(json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))["kubernetes"])
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    server.request(
        "PATCH", f"{build_path('Namespace', '', NAMESPACE)}?fieldManager=bench&force=true", space, content_type=APPLY
    )
    report: Json = {"pairs": pairs, "load": os.getloadavg()[0]}
    successes: dict[str, list[Json]] = {tool: [] for tool in AGENTS}
    for _pair in range(pairs):
        for tool, results in successes.items():
            results.append(measure_success(server, tool))
    for tool, results in successes.items():
        report[tool] = {key: spread([entry[key] for entry in results]) for key in results[0]}
        report[tool]["bad image"] = measure_failure(server, tool)
    report["load after"] = os.getloadavg()[0]
    server.request("DELETE", build_path("Namespace", "", NAMESPACE))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
