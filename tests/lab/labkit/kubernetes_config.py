# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration files of the lab's Kubernetes: pure functions from values to file texts (JSON where YAML is read)."""

from __future__ import annotations

import json
from dataclasses import dataclass

SERVICE_RANGE = "10.79.0.0/16"
FIRST_SERVICE_IP = "10.79.0.1"
POD_RANGE = "10.78.0.0/16"
API_PORT = 6443
ETCD = "http://127.0.0.1:2379"
SANDBOX_IMAGE = "localhost/pause:1.0.0"


@dataclass(frozen=True)
class NodeSpec:
    """A node: its name, its address on the lab's bridge, its own bridge for pods (at most 15 characters), its pods."""

    name: str
    address: str
    bridge: str
    pods: str


NODES = (
    NodeSpec(name="node1", address="10.77.0.1", bridge="pods1", pods="10.78.1.0/24"),
    NodeSpec(name="node2", address="10.77.0.2", bridge="pods2", pods="10.78.2.0/24"),
)


def audit_policy() -> str:
    """Log who asked for what (no bodies), once per finished request, for all but the cluster's own components."""
    own = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
    rules = [
        {"level": "None", "users": own},
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
        {"level": "Metadata", "omitStages": ["RequestReceived", "ResponseStarted"]},
    ]
    return json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}, indent=1)


def apiserver(*, address: str, pki: str, audit: str, audit_log: str) -> list[str]:
    """Arguments of kube-apiserver; ``pki`` is the folder of the certificates."""
    return [
        f"--etcd-servers={ETCD}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--audit-policy-file={audit}",
        f"--audit-log-path={audit_log}",
        "--audit-log-mode=blocking",
    ]


QUICK = ("--kube-api-qps=300", "--kube-api-burst=600")
"""Controllers and scheduler make 1,000 pods in seconds; by default the former send 20 requests a second."""


def controller_manager(*, address: str, pki: str, kubeconfig: str) -> list[str]:
    """Arguments of kube-controller-manager. An autoscaler decides every 2 s instead of 15, so that tests see it."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--bind-address={address}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--horizontal-pod-autoscaler-sync-period=2s",
        *QUICK,
    ]


def scheduler(*, address: str, kubeconfig: str) -> list[str]:
    """Arguments of kube-scheduler."""
    return [f"--kubeconfig={kubeconfig}", f"--bind-address={address}", "--leader-elect=false", *QUICK]


def kubelet(node: NodeSpec, *, pki: str, cgroup_root: str, runtime_socket: str) -> str:
    """KubeletConfiguration for a machine with cgroup v1, without swap control and without the right to raise
    priorities against the out-of-memory killer. Images come from no registry, so none is ever collected."""
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzBindAddress": node.address,
        "healthzPort": 10248,
        "readOnlyPort": 0,
        "tlsCertFile": f"{pki}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki}/{node.name}.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "containerRuntimeEndpoint": f"unix://{runtime_socket}",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "200Mi", "imagefs.available": "200Mi"},
        "imageGCHighThresholdPercent": 100,
        # A container that was killed, or crashes, is started again after 5 s at most instead of 10 s to 5 min.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
        "clusterDomain": "cluster.local",
        # Nothing listens there: a look-up fails at once instead of after a time-out.
        "clusterDNS": ["10.77.0.1"],
    }
    return json.dumps(configuration, indent=1)


def containerd(*, root: str, socket: str, runc: str, cni_plugins: str, cni_configuration: str) -> str:
    """config.toml of a node's containerd 1.7."""
    return f"""\
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", \
"io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_plugins}"
    conf_dir = "{cni_configuration}"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
"""


def cni(node: NodeSpec, *, leases: str) -> str:
    """A bridge for the node's pods, with the bridge as their gateway: the lab's namespace routes between nodes."""
    addresses = {
        "type": "host-local",
        "dataDir": leases,
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": node.bridge, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return json.dumps({"cniVersion": "1.0.0", "name": node.bridge, "plugins": [bridge]}, indent=1)
