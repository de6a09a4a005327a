# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Play the controllers that replace pods for the API server in memory: revisions, pods that fail, sets that are stuck.

They act after each write. Which images fail, and how, is said by the test.
"""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_templates import fingerprint

from .kubernetes_objects import refer_to
from .memory_controllers import ALWAYS, NAMESPACE, describe_workload
from .memory_kubernetes import MemoryServer
from .memory_objects import format_now

Json = dict[str, Any]

KINDS = ("Deployment", "StatefulSet", "DaemonSet")
REVISION = "deployment.kubernetes.io/revision"
PULL = {"state": {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse the name"}}}
CRASH = {
    "restartCount": 9,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
}
KILLED = {**CRASH, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
UNSCHEDULABLE: Json = {"phase": "Pending", "message": "0/2 nodes are available: 2 Insufficient cpu"}
UNREADY: Json = {"phase": "Running", "unready": "containers with unready status: [main]"}


class RolloutControllers:
    """Make pods and revisions of every workload as its template says. ``failures`` says how pods of an image fail.

    ``held`` are names of workloads that nothing is done for. ``image_ids`` gives what a pod really runs, and
    ``rewritten`` the image that an admission webhook gives a pod. ``silent`` are pods on nodes whose kubelet is gone.
    """

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.failures: dict[str, Json] = {}
        self.held: set[str] = set()
        self.image_ids: dict[str, str] = {}
        self.rewritten: dict[str, str] = {}
        self.silent: set[str] = set()
        self._known: dict[str, int] = {}
        for verb in ("patch", "delete"):
            server.add_rival(self.act, when="after", verb=verb, times=ALWAYS)

    def add(self, kind: str, name: str = "w", replicas: int = 2, **spec: Any) -> Json:
        """Put a workload that serves."""
        workload = describe_workload(kind, name, replicas, **spec)
        workload["metadata"]["uid"] = f"uid-{name}"
        if kind == "DaemonSet":
            workload["status"] = {"desiredNumberScheduled": workload["spec"].pop("replicas")}
        self.server.put(workload)
        self.act()
        return self.server.read(kind, NAMESPACE, name)

    def silence(self, pod: str, node: str) -> None:
        """Let the kubelet of a pod's node be gone, so that the node controller says that the pod is not ready."""
        self.silent.add(pod)
        conditions = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]

        def change(kept: Json) -> None:
            kept["spec"]["nodeName"] = node
            kept["status"]["conditions"] = conditions

        self.server.change("Pod", NAMESPACE, pod, change, manager="kube-controller-manager")
        self.act()

    def act(self) -> None:
        """Bring each workload as far as it comes."""
        for kind in KINDS:
            for obj in self.server.read_all(kind):
                if obj["metadata"]["name"] not in self.held:
                    self._act_for(kind, obj)

    def _act_for(self, kind: str, obj: Json) -> None:
        name, replicas = obj["metadata"]["name"], self._count(kind, obj)
        mark = self._keep_revision(kind, obj)
        pods = [pod for pod in self.server.read_all("Pod") if pod["metadata"]["labels"].get("app") == name]
        failure = self.failures.get(obj["spec"]["template"]["spec"]["containers"][0]["image"])
        partition = obj["spec"].get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0)
        unready = [pod for pod in pods if not _is_ready(pod)]
        is_ordered = kind == "StatefulSet" and obj["spec"].get("podManagementPolicy") != "Parallel"
        if not (is_ordered and any(_hash(pod) != mark for pod in unready)):  # kubernetes#67250
            self._replace(kind, obj, mark, replicas=replicas, partition=partition, failure=failure)
        self._count_status(kind, obj, mark)

    def _replace(self, kind: str, obj: Json, mark: str, *, replicas: int, partition: int, failure: Json | None) -> None:
        """Give pods the newest template; one that fails only to a pod beside the others, or to the last one."""
        name = obj["metadata"]["name"]
        present = {pod["metadata"]["name"]: pod for pod in self.server.read_all("Pod")}
        names = [f"{name}-{number}" for number in range(replicas)]
        due = [pod for pod in names[partition:] if pod not in self.silent]
        if replicas and not due:
            return  # what is unavailable counts, wherever it is
        if failure is not None and replicas:
            for pod in names:
                if pod not in present:
                    self._make_pod(kind, obj, pod, mark, failure)
            if all(_hash(present[pod]) != mark for pod in due if pod in present):
                self._make_pod(kind, obj, f"{name}-new" if kind == "Deployment" else due[-1], mark, failure)
            return
        if f"{name}-new" in present:
            self.server.remove("Pod", NAMESPACE, f"{name}-new")
        for pod in names:
            if pod not in present or (pod in due and (_hash(present[pod]) != mark or not _is_ready(present[pod]))):
                self._make_pod(kind, obj, pod, mark, None)

    def _make_pod(self, kind: str, obj: Json, name: str, mark: str, failure: Json | None) -> None:
        if any(pod["metadata"]["name"] == name for pod in self.server.read_all("Pod")):
            self.server.remove("Pod", NAMESPACE, name)
        owner = obj
        if kind == "Deployment":
            owner = self.server.read("ReplicaSet", NAMESPACE, f"{obj['metadata']['name']}-{mark}")
        label = "pod-template-hash" if kind == "Deployment" else "controller-revision-hash"
        metadata: Json = {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app": obj["metadata"]["name"], label: mark},
            "ownerReferences": [refer_to(owner, "ReplicaSet" if kind == "Deployment" else kind)],
        }
        image = obj["spec"]["template"]["spec"]["containers"][0]["image"]
        container = {"name": "main", "image": image, "imageID": self.image_ids.get(name, f"id-{image}")}
        spec = {"containers": [{"name": "main", "image": self.rewritten.get(name, image)}]}
        self.server.put(
            {"kind": "Pod", "metadata": metadata, "spec": spec, "status": _describe_status(container, failure)}
        )

    def _keep_revision(self, kind: str, obj: Json) -> str:
        """Keep the template as the newest revision, under its old name where there was one; return its hash."""
        name, template = obj["metadata"]["name"], copy.deepcopy(obj["spec"]["template"])
        mark = fingerprint(template)[:6]
        own = "ReplicaSet" if kind == "Deployment" else "ControllerRevision"
        known = [entry for entry in self.server.read_all(own) if entry["metadata"]["labels"]["app"] == name]
        numbers = {entry["metadata"]["name"]: _number(entry) for entry in known}
        label = name if kind == "DaemonSet" else f"{name}-{mark}"
        revision = f"{name}-{mark}"
        newest = max(numbers.values(), default=0)
        if numbers.get(revision) == newest and newest:
            return mark if kind != "StatefulSet" else label
        metadata: Json = {
            "name": revision,
            "namespace": NAMESPACE,
            "labels": {"app": name, "pod-template-hash": mark, "controller-revision-hash": mark},
            "annotations": {REVISION: str(newest + 1)},
            "ownerReferences": [refer_to(obj, kind)],
        }
        if revision in numbers:
            former = self.server.read(own, NAMESPACE, revision)["metadata"]["annotations"]
            history = filter(None, [former.get(f"{REVISION}-history"), former[REVISION]])
            metadata["annotations"][f"{REVISION}-history"] = ",".join(history)
        body: Json = {"kind": own, "metadata": metadata}
        if kind == "Deployment":
            template.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = mark
            body["spec"] = {"replicas": 0, "template": template}
            annotations = {**obj["metadata"].get("annotations", {}), REVISION: str(newest + 1)}
            self.server.change(
                kind,
                NAMESPACE,
                name,
                lambda kept: kept["metadata"].update(annotations=annotations),
                manager="controller",
            )
        else:
            body |= {"revision": newest + 1, "data": {"spec": {"template": {**template, "$patch": "replace"}}}}
        self.server.put(body)
        return mark if kind != "StatefulSet" else revision

    def _count_status(self, kind: str, obj: Json, mark: str) -> None:
        name, wanted = obj["metadata"]["name"], self._count(kind, obj)
        pods = [pod for pod in self.server.read_all("Pod") if pod["metadata"]["labels"].get("app") == name]
        ready, updated = sum(map(_is_ready, pods)), sum(_hash(pod) == mark for pod in pods)
        status: Json = {"observedGeneration": obj["metadata"]["generation"]}
        if kind == "DaemonSet":
            status |= {"desiredNumberScheduled": wanted, "currentNumberScheduled": len(pods)}
            status |= {"numberReady": ready, "numberAvailable": ready, "updatedNumberScheduled": updated}
        else:
            status |= {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
            status |= {"updatedReplicas": updated}
        if kind == "StatefulSet":
            is_complete = ready == updated == wanted
            former = obj.get("status", {}).get("currentRevision")
            status |= {"updateRevision": mark, "currentRevision": mark if is_complete or not former else former}
        self.server.change(kind, NAMESPACE, name, lambda kept: kept.update(status=status), manager="controller")

    def _count(self, kind: str, obj: Json) -> int:
        if kind == "DaemonSet":
            return int(obj["status"]["desiredNumberScheduled"])
        return int(obj["spec"]["replicas"])


def _number(revision: Json) -> int:
    return int(revision["metadata"]["annotations"][REVISION])


def _hash(pod: Json) -> str:
    labels = pod["metadata"]["labels"]
    return str(labels.get("pod-template-hash") or labels.get("controller-revision-hash"))


def _is_ready(pod: Json) -> bool:
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"]["conditions"])


def _describe_status(container: Json, failure: Json | None) -> Json:
    ready = {"type": "Ready", "status": "True" if failure is None else "False"}
    status: Json = {"phase": "Running", "startTime": format_now(), "conditions": [ready]}
    if failure is None:
        return {**status, "containerStatuses": [{**container, "state": {"running": {}}}]}
    if "phase" not in failure:
        phase = "Running" if "terminated" in failure["state"] else "Pending"
        return {**status, "phase": phase, "containerStatuses": [{**container, **failure}]}
    if "message" in failure:
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": failure["message"],
        }
        return {**status, "phase": "Pending", "conditions": [ready, scheduled]}
    return {**status, "conditions": [{**ready, "message": failure["unready"], "lastTransitionTime": format_now()}]}
