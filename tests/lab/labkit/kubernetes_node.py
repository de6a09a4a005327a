# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node of the lab's Kubernetes: a kubelet and a containerd in a mount namespace and a cgroup of their own.

Kubelet and containerd have paths that no option moves (/var/lib/kubelet/device-plugins, /run/containerd/s,
/var/lib/cni, /var/log/containers). So each node has a mount namespace in which these are directories of the lab's
state. Every pod's mounts live there too and end with its last process, whatever became of the programs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from labkit import kubernetes_config as config
from labkit import process
from labkit.cgroup import Cgroup
from labkit.kubernetes_config import NodeSpec
from labkit.lab import Lab
from labkit.process import Process

COMPONENT = "kubernetes"
PRIVATE = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/var/log/pods": "log-pods",
    "/var/log/containers": "log-containers",
    "/run/containerd": "run",
}
"""Path in the node's mount namespace: directory in the node's state."""


class Node:
    """The node ``spec`` of ``lab``."""

    def __init__(self, lab: Lab, spec: NodeSpec, programs: Path) -> None:
        self.lab = lab
        self.spec = spec
        self.programs = programs
        """The Kubernetes binaries."""
        self.folder = lab.state(COMPONENT) / spec.name
        self.socket = self.folder / "containerd.sock"
        self.cgroup = Cgroup(f"{lab.cgroup.name}/{spec.name}")
        """What holds the node's pods."""

    # -- start ------------------------------------------------------------------------------------------------------

    def start_runtime(self, containerd: Path) -> Process:
        """Have containerd running; ``containerd`` is the root that its package was unpacked to."""
        mounts = self._mounts()
        configuration = self.folder / "containerd.toml"
        network = self.folder / "cni-conf"
        network.mkdir(exist_ok=True)
        (network / "10-lab.conflist").write_text(config.cni(self.spec, leases="/var/lib/cni/networks"))
        configuration.write_text(
            config.containerd(
                root=str(self.folder / "containerd"),
                socket=str(self.socket),
                runc="/usr/sbin/runc",
                cni_plugins="/usr/lib/cni",
                cni_configuration=str(network),
            )
        )
        programs = containerd / "usr/bin"
        return self._inside(
            mounts,
            "containerd",
            [str(programs / "containerd"), "--config", str(configuration)],
            env={"PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def start_kubelet(self, *, pki: Path, kubeconfig: Path) -> Process:
        """Have the kubelet running."""
        self.lab.cgroup.create(self.spec.name)
        configuration = self.folder / "kubelet.json"
        configuration.write_text(
            config.kubelet(self.spec, pki=str(pki), cgroup_root=f"/{self.cgroup.name}", runtime_socket=str(self.socket))
        )
        argv = [str(self.programs / "kubelet"), f"--config={configuration}", f"--kubeconfig={kubeconfig}"]
        argv += [f"--hostname-override={self.spec.name}", f"--node-ip={self.spec.address}"]
        return self._inside(self._mounts(), "kubelet", argv)

    def _inside(self, mounts: Process, name: str, argv: list[str], env: dict[str, str] | None = None) -> Process:
        enter = ["/usr/bin/nsenter", f"--mount=/proc/{mounts.pid}/ns/mnt", "--"]
        return self.lab.spawn(COMPONENT, self._name(name), [*enter, *argv], env=env)

    def _name(self, program: str) -> str:
        return f"{self.spec.name}-{program}"

    def _mounts(self) -> Process:
        """The process that keeps the node's mount namespace; a fresh one when it has gone, as after a reboot."""
        holder = self.lab.process(COMPONENT, self._name("mounts"))
        if holder is not None and holder.alive() and (self.folder / "mounted").exists():
            return holder
        self.stop()
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        (self.folder / "mounted").unlink(missing_ok=True)
        argv = ["/usr/bin/unshare", "--mount", "--propagation", "slave", "--", "/usr/bin/sleep", "infinity"]
        holder = self.lab.spawn(COMPONENT, self._name("mounts"), argv)
        name = Path(f"/proc/{holder.pid}/comm")
        self.lab.wait_for(f"{self.spec.name}: mount namespace", lambda: name.read_text() == "sleep\n", 60, holder)
        enter = ["/usr/bin/nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
        for point, folder in PRIVATE.items():
            source = self.folder / folder
            source.mkdir(parents=True, exist_ok=True)
            Path(point).mkdir(parents=True, exist_ok=True)
            self.lab.run([*enter, "mount", "--bind", source, point])
        self.lab.run([*enter, "mount", "--make-rshared", "/"])
        (self.folder / "mounted").touch()
        return holder

    # -- use --------------------------------------------------------------------------------------------------------

    def ctr(self, containerd: Path, *arguments: str | Path, check: bool = True) -> str:
        """Run containerd's own client in the namespace of Kubernetes; what it prints."""
        argv = [containerd / "usr/bin/ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments]
        return self.lab.run(argv, seconds=600, check=check).stdout

    def load(self, containerd: Path, archive: Path) -> None:
        """Import an image archive, unless this node has had it already."""
        stat = archive.stat()
        marker = self.folder / "images" / f"{archive.name}-{stat.st_size}-{stat.st_mtime_ns}"
        if not marker.exists():
            self.ctr(containerd, "images", "import", archive)
            marker.parent.mkdir(exist_ok=True)
            marker.touch()

    # -- stop -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Kubelet first, so that nothing is started again; then pods, containerd with its shims, mounts, cgroups.

        Its images, and the cluster's objects, stay: a start after it is like a reboot of the node.
        """
        self.lab.stop_process(COMPONENT, self._name("kubelet"), seconds=5)
        self._end(self.cgroup.pids)
        self.lab.stop_process(COMPONENT, self._name("containerd"), seconds=5)
        self._end(self._shims)
        self.lab.stop_process(COMPONENT, self._name("mounts"), seconds=1)
        self.cgroup.remove()
        if self.lab.run(["ip", "link", "show", "dev", self.spec.bridge], check=False).returncode == 0:
            self.lab.run(["ip", "link", "del", self.spec.bridge])

    def _end(self, find: Callable[[], set[int]], seconds: float = 60.0) -> None:
        """Kill what ``find`` finds until it finds nothing."""

        def ended() -> bool:
            left = {pid for pid in find() if process.start_time(pid) is not None}
            process.kill(left)
            return not left

        self.lab.wait_for(f"{self.spec.name}: end of its processes", ended, seconds)

    def _shims(self) -> set[int]:
        """containerd's shims are not its children; each has this node's socket among its arguments."""
        address = f"\0-address\0{self.socket}\0".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    arguments = (entry / "cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                    continue
                if address in arguments:
                    found.add(int(entry.name))
        return found
