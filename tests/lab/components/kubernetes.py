# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes 1.35: etcd, API server, controller manager, scheduler and two nodes with a kubelet and containerd each.

There is no kube-proxy, no cluster DNS and no metrics server: pods reach one another, and the lab's other servers, by
address. Images come from archives in the cache; no registry can be reached.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from labkit import kubernetes_config as config
from labkit import kubernetes_install, packages
from labkit.component import Component
from labkit.errors import LabError
from labkit.kubernetes_node import Node
from labkit.kubernetes_pki import Pki, Subject
from labkit.lab import Lab
from labkit.network import CONTROL
from labkit.private import write_private
from labkit.process import Process

SERVER = f"https://{CONTROL}:{config.API_PORT}"
TICKS_PER_SECOND = 100
RIGHTS = Path("docs/kubernetes-rights.yml")
"""What the collection's users apply: a Role for each namespace, and a ClusterRole for the cluster's identity."""
GRANTED = (("Role", "lowtide"), ("Role", "lowtide-rollout"), ("ClusterRole", "lowtide-identity"))
"""Which of them the account gets in the namespace of the feature service."""
RESTRICTED = "lowtide"
"""The account that demo and scenarios act as; it has no right but those of ``grant_rights``."""


class Kubernetes(Component):
    """The cluster."""

    name: ClassVar[str] = "kubernetes"

    def install(self, lab: Lab) -> None:
        packages.apt(lab, *kubernetes_install.DEBIAN)
        packages.etcd_binary(lab)
        kubernetes_install.containerd(lab)
        kubernetes_install.basic_images(lab)
        kubernetes_install.binaries(lab)

    def start(self, lab: Lab) -> None:
        state = lab.state(self.name)
        pki = self._pki(lab)
        users = {
            "admin": f"lowtide-{lab.name}",
            RESTRICTED: f"lowtide-{lab.name}",
            "controller-manager": "lab",
            "scheduler": "lab",
            "node1": "lab",
            "node2": "lab",
        }
        for user, context in users.items():
            text = pki.kubeconfig(user, server=SERVER, context=context)
            write_private(self._kubeconfig(lab, user), text)
        audit = state / "audit-policy.json"
        audit.write_text(config.audit_policy())
        containerd = kubernetes_install.containerd(lab)
        nodes = self._nodes(lab)
        runtimes = [node.start_runtime(containerd) for node in nodes]
        self._start_api(lab)
        for node, runtime in zip(nodes, runtimes, strict=True):
            lab.wait_for(f"{runtime.name} answers", partial(node.ctr, containerd, "version"), 300, runtime)
            node.load(containerd, kubernetes_install.basic_images(lab))
        self._wait_for_api(lab)
        # Not earlier: on a slow machine the controller manager would give up on the API server after 10 s.
        self._start_controllers(lab)
        for node in nodes:
            node.start_kubelet(pki=pki.folder, kubeconfig=self._kubeconfig(lab, node.spec.name))

    def _start_api(self, lab: Lab) -> None:
        state = lab.state(self.name)
        programs = kubernetes_install.binaries(lab)
        pki = str(self._pki(lab).folder)
        lab.spawn(
            self.name,
            "etcd",
            [
                *[
                    str(packages.etcd_binary(lab)),
                    "--data-dir",
                    str(state / "etcd"),
                    "--unsafe-no-fsync",
                    "--log-level",
                    "warn",
                ],
                *["--listen-client-urls", config.ETCD, "--advertise-client-urls", config.ETCD],
                *["--listen-peer-urls", "http://127.0.0.1:2380"],
            ],
        )
        arguments = config.apiserver(
            address=CONTROL, pki=pki, audit=f"{state}/audit-policy.json", audit_log=f"{state}/audit.log"
        )
        lab.spawn(self.name, "kube-apiserver", [programs / "kube-apiserver", *arguments])

    def _start_controllers(self, lab: Lab) -> None:
        programs = kubernetes_install.binaries(lab)
        pki = str(self._pki(lab).folder)
        manager = config.controller_manager(
            address=CONTROL, pki=pki, kubeconfig=str(self._kubeconfig(lab, "controller-manager"))
        )
        lab.spawn(self.name, "kube-controller-manager", [programs / "kube-controller-manager", *manager])
        scheduler = config.scheduler(address=CONTROL, kubeconfig=str(self._kubeconfig(lab, "scheduler")))
        lab.spawn(self.name, "kube-scheduler", [programs / "kube-scheduler", *scheduler])

    def ready(self, lab: Lab) -> None:
        """Both kubelets have reported since they were started, and pods can be made."""
        running = lab.processes(self.name)
        for node in self._nodes(lab):
            kubelet = next(one for one in running if one.name == f"{node.spec.name}-kubelet")
            lab.wait_for(f"node {node.spec.name} ready", partial(self._node_ready, lab, node, kubelet), 400, kubelet)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        lab.wait_for("default service account", lambda: self.get(lab, account), 300, *running)
        scheduler = next(one for one in running if one.name == "kube-scheduler")
        lab.wait_for("scheduler", lambda: self._open(lab, f"https://{CONTROL}:10259/readyz") == b"ok", 120, scheduler)

    def facts(self, lab: Lab) -> dict[str, Any]:
        system = self.get(lab, "/api/v1/namespaces/kube-system")
        return {
            "kubeconfig": str(self._kubeconfig(lab, "admin")),
            "context": f"lowtide-{lab.name}",
            "restricted": {
                "kubeconfig": str(self._kubeconfig(lab, RESTRICTED)),
                "context": f"lowtide-{lab.name}",
                "user": RESTRICTED,
            },
            "server": SERVER,
            "cluster_uid": system["metadata"]["uid"],
            "kubectl": str(kubernetes_install.binaries(lab) / "kubectl"),
            "nodes": [{"name": node.name, "address": node.address} for node in config.NODES],
            "images": [f"localhost/busybox:{tag}" for tag in kubernetes_install.BUSYBOX_TAGS],
            "audit_log": str(lab.state(self.name) / "audit.log"),
        }

    def stop(self, lab: Lab) -> None:
        for node in self._nodes(lab):
            node.stop()
        super().stop(lab)

    # -- for components that run in the cluster -----------------------------------------------------------------------

    def load_images(self, lab: Lab, archive: Path) -> None:
        """Import an image archive on every node."""
        for node in self._nodes(lab):
            node.load(kubernetes_install.containerd(lab), archive)

    def grant_rights(self, lab: Lab, namespace: str) -> None:
        """Give the restricted account the documented rights in a namespace, and that to identify the cluster."""
        self.kubectl(lab, "apply", "--namespace", namespace, "-f", str(lab.checkout / RIGHTS))
        group = "rbac.authorization.k8s.io"
        subjects = [{"apiGroup": group, "kind": "User", "name": RESTRICTED}]
        bindings = [
            {
                "apiVersion": f"{group}/v1",
                "kind": kind.removesuffix("Role") + "RoleBinding",
                "metadata": {"name": name},
                "subjects": subjects,
                "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            }
            for kind, name in GRANTED
        ]
        listing = json.dumps({"apiVersion": "v1", "kind": "List", "items": bindings})
        self.kubectl(lab, "apply", "--namespace", namespace, "-f", "-", stdin=listing)

    def get(self, lab: Lab, path: str) -> dict[str, Any]:
        """GET ``path`` as administrator. OSError when the server cannot be reached or answers with an error."""
        answer: dict[str, Any] = json.loads(self._open(lab, SERVER + path))
        return answer

    def exists(self, lab: Lab, kind: str, metadata: dict[str, Any]) -> bool:
        """Whether there is an object of this kind with this name and namespace."""
        place = ["--namespace", str(metadata["namespace"])] if "namespace" in metadata else []
        return bool(
            self.kubectl(lab, "get", kind, str(metadata["name"]), *place, "--ignore-not-found", "--output=name").strip()
        )

    def kubectl(self, lab: Lab, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator; what it prints."""
        program = kubernetes_install.binaries(lab) / "kubectl"
        kubeconfig = self._kubeconfig(lab, "admin")
        return lab.run([program, f"--kubeconfig={kubeconfig}", *arguments], stdin=stdin).stdout

    # -- internals ----------------------------------------------------------------------------------------------------

    def _nodes(self, lab: Lab) -> list[Node]:
        programs = lab.cache / f"kubernetes-{kubernetes_install.VERSION}"
        return [Node(lab, spec, programs) for spec in config.NODES]

    def _pki(self, lab: Lab) -> Pki:
        pki = Pki(lab.state(self.name) / "pki", lab.run)
        own = (
            f"IP:{CONTROL}",
            "IP:127.0.0.1",
            f"IP:{config.FIRST_SERVICE_IP}",
            "DNS:kubernetes.default.svc",
            "DNS:localhost",
        )
        pki.create(
            [
                Subject("apiserver", "kube-apiserver", names=own),
                Subject("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
                Subject("admin", "kubernetes-admin", "system:masters"),
                Subject(RESTRICTED, RESTRICTED),
                Subject("controller-manager", "system:kube-controller-manager"),
                Subject("scheduler", "system:kube-scheduler"),
                *(
                    Subject(
                        node.name,
                        f"system:node:{node.name}",
                        "system:nodes",
                        (f"IP:{node.address}", f"DNS:{node.name}"),
                    )
                    for node in config.NODES
                ),
            ]
        )
        return pki

    def _kubeconfig(self, lab: Lab, user: str) -> Path:
        return lab.state(self.name) / f"{user}.kubeconfig"

    def _wait_for_api(self, lab: Lab) -> None:
        names = {"etcd", "kube-apiserver"}
        needed = [one for one in lab.processes(self.name) if one.name in names]
        lab.wait_for("Kubernetes API", lambda: self._open(lab, f"{SERVER}/readyz") == b"ok", 400, *needed)

    def _node_ready(self, lab: Lab, node: Node, kubelet: Process) -> bool:
        status = self.get(lab, f"/api/v1/nodes/{node.spec.name}")["status"]
        condition = next(one for one in status["conditions"] if one["type"] == "Ready")
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        started = time.gmtime(boot + kubelet.started / TICKS_PER_SECOND)
        fresh = str(condition["lastHeartbeatTime"]) >= time.strftime("%Y-%m-%dT%H:%M:%SZ", started)
        if condition["status"] != "True":
            raise LabError(
                obj=f"node {node.spec.name}", problem=str(condition["message"]), next_step="See the kubelet's log"
            )
        return fresh

    def _open(self, lab: Lab, url: str) -> bytes:
        pki = lab.state(self.name) / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        if not url.startswith(f"{SERVER}/"):
            # The scheduler certifies itself; it is asked over an address of this lab only.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:  # noqa: S310 (the URL is the lab's own)
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise OSError(f"{url}: {error.code} {error.read()[:300]!r}") from error
        return body
