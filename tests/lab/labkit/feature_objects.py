# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of the feature service in its cluster, as data."""

from __future__ import annotations

from typing import Any

NAMESPACE = "feature-system"
WORKER = "feature-worker"
API = "feature-service"
SECRET = "feature-database"  # noqa: S105 (the name of an object)
REPLICAS = {WORKER: 4, API: 2}
PORT = 8080


def _container(name: str, image: str, program: str, environment: dict[str, str], probe: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "command": ["/usr/bin/python3.11", f"/app/{program}"],
        "env": [
            *({"name": key, "value": value} for key, value in environment.items()),
            {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "password"}}},
            {"name": "PGAPPNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {
            "httpGet": {"path": probe, "port": PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _pod(app: str, container: dict[str, Any]) -> dict[str, Any]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": app}},
    }
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 10,
            "topologySpreadConstraints": [spread],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532},
            "containers": [container],
        },
    }


def _object(kind: str, name: str, api_version: str = "v1", **content: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {"app": name}}
    if kind != "Namespace":
        metadata["namespace"] = NAMESPACE
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def objects(*, image: str, bus: dict[str, str], database: dict[str, str], password: str) -> list[dict[str, Any]]:
    """Everything, in the order of creation. ``bus`` and ``database`` are environment variables."""
    service = {"clusterIP": "None", "ports": [{"name": "http", "port": PORT}]}
    worker = _container(WORKER, image, "worker.py", {**bus, **database}, "/")
    api = _container(API, image, "api.py", database, "/healthz")
    return [
        _object("Namespace", NAMESPACE),
        _object("Secret", SECRET, stringData={"password": password}),
        _object("Service", WORKER, spec={**service, "selector": {"app": WORKER}}),
        _object("Service", API, spec={**service, "selector": {"app": API}}),
        _object(
            "StatefulSet",
            WORKER,
            "apps/v1",
            spec={
                "replicas": REPLICAS[WORKER],
                "serviceName": WORKER,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": WORKER}},
                "template": _pod(WORKER, worker),
            },
        ),
        _object(
            "Deployment",
            API,
            "apps/v1",
            spec={
                "replicas": REPLICAS[API],
                "selector": {"matchLabels": {"app": API}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": _pod(API, api),
            },
        ),
    ]
