# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Steps of the tests of k8s_traffic against the API server in memory: a site behind a Service, and its page."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.traffic import run_traffic
from support.memory_controllers import ALWAYS, NAMESPACE, describe_workload
from support.memory_kubernetes import MemoryServer
from support.modules import ModuleRun
from support.operation_runs import run_operation

Json = dict[str, Any]

NOTE = "lowtide.ops/traffic"
SERVICE = "Service n/web"
TARGET: Json = {"kind": "Service", "name": "web", "selector": {"app": "page"}}
GAUGE: Json = {
    "kind": "Deployment",
    "name": "web",
    "port": "8080",
    "path": "/metrics",
    "scheme": "http",
    "metric": "in_flight",
    "labels": None,
    "field": None,
    "limit": 0.0,
}
CHECK: Json = {
    "kind": "Deployment",
    "name": "web",
    "port": "8080",
    "path": "/healthz",
    "scheme": "http",
    "status": 200,
    "contains": None,
}
PORT = 8080


def describe_pod(name: str, app: str, *, ready: bool = True, owner: str = "") -> Json:
    """Return a pod of an app, perhaps of a ReplicaSet."""
    metadata: Json = {"name": name, "namespace": NAMESPACE, "labels": {"app": app}}
    if owner:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "conditions": conditions},
    }


def describe_service(name: str, selector: Json | None, **metadata: Any) -> Json:
    """Return a Service."""
    spec = {"selector": selector, "ports": [{"port": PORT}]} if selector is not None else {"ports": [{"port": PORT}]}
    return {"kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE, **metadata}, "spec": spec}


def describe_ingress(*paths: tuple[str, str], **spec: Any) -> Json:
    """Return an Ingress with a path for each host, all of them to the Service web."""
    backend = {"service": {"name": "web", "port": {"number": PORT}}}
    rules = [
        {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}
        for host, path in paths
    ]
    metadata = {"name": "shop", "namespace": NAMESPACE}
    return {"kind": "Ingress", "metadata": metadata, "spec": {"rules": rules, **spec}}


def put_site(memory: MemoryServer, *, page_is_ready: bool = True) -> None:
    """Put a Deployment web of two pods and a page of one, a Service for each, and the controller of EndpointSlices."""
    memory.put({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    deployment = memory.put(describe_workload("Deployment", "web", 2))
    reference = {"kind": "Deployment", "name": "web", "uid": deployment["metadata"]["uid"], "controller": True}
    memory.put(
        {
            "kind": "ReplicaSet",
            "metadata": {
                "name": "web-1",
                "namespace": NAMESPACE,
                "uid": "web-1",
                "labels": {"app": "web"},
                "ownerReferences": [reference],
            },
            "spec": {"replicas": 2},
        }
    )
    for number in (1, 2):
        memory.put(describe_pod(f"web-1-{number}", "web", owner="web-1"))
        answer(memory, f"web-1-{number}", "in_flight 0\n")
    memory.put(describe_pod("page-1", "page", ready=page_is_ready))
    memory.put(describe_service("web", {"app": "web"}))
    memory.put(describe_service("page", {"app": "page"}))
    play_endpoints(memory)
    memory.add_rival(lambda: play_endpoints(memory), when="after", times=ALWAYS)


def answer(memory: MemoryServer, pod: str, text: str, status: int = 200) -> None:
    """Let a pod answer so, whatever it is asked."""
    memory.pod_answers[NAMESPACE, f"{pod}:{PORT}"] = lambda _path: (status, text)


def answer_once_away(memory: MemoryServer, pod: str, text: str, status: int = 200) -> None:
    """Let a pod answer so once the Service is switched, and before that that nothing is in flight."""
    answers = {True: (200, "in_flight 0\n"), False: (status, text)}
    memory.pod_answers[NAMESPACE, f"{pod}:{PORT}"] = lambda _path: answers[read_selector(memory) == {"app": "web"}]


def play_endpoints(memory: MemoryServer) -> None:
    """Make the EndpointSlice of each Service what its selector selects, as the controller does."""
    pods = memory.read_all("Pod")
    for service in memory.read_all("Service"):
        name, selector = service["metadata"]["name"], service["spec"].get("selector")
        if not selector:
            continue
        selected = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
        names = [port["targetPort"] for port in service["spec"]["ports"] if isinstance(port.get("targetPort"), str)]
        portless = [pod for pod in selected if any(name not in list_port_names(pod) for name in names)]
        ports = [{"name": port.get("name", ""), "port": PORT} for port in service["spec"]["ports"]]
        _put_slice(memory, name, 1, [pod for pod in selected if pod not in portless], ports)
        _put_slice(memory, name, 2, portless, None)


def list_port_names(pod: Json) -> list[str]:
    """The names of a pod's ports."""
    return [port["name"] for container in pod["spec"].get("containers", []) for port in container.get("ports", [])]


def _put_slice(memory: MemoryServer, service: str, number: int, pods: list[Json], ports: list[Json] | None) -> None:
    endpoints = [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": pod["status"]["conditions"][0]["status"] == "True"},
            "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"]},
        }
        for pod in pods
    ]
    name = f"{service}-{number}"
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": service}}
    present = [obj for obj in memory.read_all("EndpointSlice") if obj["metadata"]["name"] == name]
    if present[0]["endpoints"] != endpoints if present else ports or endpoints:
        memory.put({"kind": "EndpointSlice", "metadata": metadata, "endpoints": endpoints, "ports": ports})


def send_away(memory: MemoryServer, *targets: Json, **params: Any) -> ModuleRun:
    """Send the traffic of the targets to the page, of the Service unless others are given."""
    return run_operation(memory, run_traffic, state="maintenance", targets=list(targets or [TARGET]), **params)


def give_back(memory: MemoryServer, *targets: Json, **params: Any) -> ModuleRun:
    """Give it back."""
    return run_operation(memory, run_traffic, state="normal", targets=list(targets or [TARGET]), **params)


def check_done(run: ModuleRun) -> ModuleRun:
    """Check that a run came to a good end, and return it."""
    assert not run.failed, run.msg
    return run


def read_selector(memory: MemoryServer, name: str = "web") -> Any:
    """Where a Service sends its requests."""
    return memory.read("Service", NAMESPACE, name)["spec"].get("selector")


def read_saved(memory: MemoryServer, kind: str = "Service", name: str = "web") -> Any:
    """What a switch saved on an object; None when there is nothing."""
    annotations = memory.read(kind, NAMESPACE, name)["metadata"].get("annotations") or {}
    return json.loads(annotations[NOTE])["operations"][0]["spec"] if NOTE in annotations else None


def set_selector(memory: MemoryServer, selector: Json) -> None:
    """As a person would, with kubectl edit."""
    memory.change(
        "Service", NAMESPACE, "web", lambda obj: obj["spec"].update(selector=selector), manager="kubectl-edit"
    )
