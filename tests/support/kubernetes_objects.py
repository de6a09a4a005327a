# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make what real clusters have beside workloads that run well: volumes, leftovers, Jobs, owners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .kubernetes_server import JSON, ApiServer, build_path

Json = dict[str, Any]

VOLUME_SIZE = "1Mi"
CLAIM = "data"
EVICTED = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: ephemeral-storage.",
}


def refer_to(owner: Json, kind: str) -> Json:
    """Return the reference by which ``owner`` controls an object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


# -- volumes ----------------------------------------------------------------------------------------------------------


def add_claims(workload: Json, *, when_scaled: str = "Retain", when_deleted: str = "Retain") -> Json:
    """Give a StatefulSet a volume for each pod, at /data, and say what becomes of it; return the StatefulSet."""
    spec = workload["spec"]
    spec["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": when_scaled, "whenDeleted": when_deleted}
    spec["volumeClaimTemplates"] = [
        {
            "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "resources": {"requests": {"storage": VOLUME_SIZE}},
            },
        }
    ]
    for container in spec["template"]["spec"]["containers"]:
        container["volumeMounts"] = [{"name": CLAIM, "mountPath": "/data"}]
    return workload


def name_claim(workload: str, number: int) -> str:
    """Return the name of the claim of a pod of a StatefulSet."""
    return f"{CLAIM}-{workload}-{number}"


def describe_volume(namespace: str, workload: str, number: int, folder: Path, node: str) -> Json:
    """Return a volume that is a folder of the machine, for one claim of a StatefulSet and no other."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{workload}-{number}"},
        "spec": {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": name_claim(workload, number)},
            "local": {"path": str(folder)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                            ]
                        }
                    ]
                }
            },
        },
    }


# -- pods that run nothing --------------------------------------------------------------------------------------------


def leave_pod(
    server: ApiServer, namespace: str, name: str, *, status: Json, labels: Json, owner: Json | None = None
) -> None:
    """Leave a pod that has ended, as a kubelet that evicted it or a Job leaves it.

    It was never scheduled, so that no kubelet changes its status; it gets its labels and its owner after it has ended,
    so that its owner's controller takes it for nothing else.
    """
    collection = build_path("Pod", namespace)
    container = {"name": "main", "image": "localhost/busybox:1.0.0"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"schedulingGates": [{"name": "example.org/never"}], "containers": [container]},
    }
    server.request("POST", collection, pod, content_type=JSON)
    path = build_path("Pod", namespace, name)
    server.patch(f"{path}/status", {"status": status})
    references = [] if owner is None else [owner]
    server.patch(path, {"metadata": {"labels": labels, "ownerReferences": references}})


def find_replica_set(server: ApiServer, namespace: str, deployment: str) -> Json:
    """Return the only ReplicaSet of a Deployment."""
    (replica_set,) = [
        candidate
        for candidate in server.list("ReplicaSet", namespace)
        if candidate["metadata"]["ownerReferences"][0]["name"] == deployment
    ]
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", **replica_set}


def leave_evicted_pod(server: ApiServer, namespace: str, deployment: str, name: str = "evicted") -> None:
    """Leave an evicted pod of a Deployment, which its ReplicaSet never deletes."""
    replica_set = find_replica_set(server, namespace, deployment)
    labels = replica_set["spec"]["template"]["metadata"]["labels"]
    leave_pod(server, namespace, name, status=EVICTED, labels=labels, owner=refer_to(replica_set, "ReplicaSet"))


# -- Jobs -------------------------------------------------------------------------------------------------------------


def describe_job(name: str, pod: Json, *, labels: Json | None = None, owner: Json | None = None) -> Json:
    """Return a Job of one pod with this specification."""
    metadata: Json = {"name": name}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    template = {"metadata": {"labels": labels or {}}, "spec": {**pod, "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": template},
    }


def describe_cron_job(name: str, pod: Json) -> Json:
    """Return a CronJob that is due once a year."""
    template = {"spec": {"template": {"spec": {**pod, "restartPolicy": "Never"}}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": template},
    }


def is_complete(job: Json) -> bool:
    """Whether a Job has come to a good end."""
    conditions = job.get("status", {}).get("conditions") or []
    return any((entry["type"], entry["status"]) == ("Complete", "True") for entry in conditions)


def change_spec(workload: Json, **fields: Any) -> Json:
    """Give a workload these fields of its specification; return it."""
    workload["spec"].update(fields)
    return workload


def change_template(workload: Json, change: Callable[[Json], None]) -> Json:
    """Let ``change`` change the specification of a workload's pods; return the workload."""
    change(workload["spec"]["template"]["spec"])
    return workload
