# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts with a systemd of their own on 10.77.0.21-23, reached by SSH: containers of systemd-nspawn."""

from __future__ import annotations

import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import host_image, packages, process
from labkit.cgroup import Cgroup
from labkit.component import Component
from labkit.network import BRIDGE, PREFIX, SERVICE_HOSTS

if TYPE_CHECKING:
    from labkit.lab import Lab

ADMIN = "root"
"""Who prepares a test: installs units and looks at what the account of the procedures may not."""
HOSTS = tuple(f"service{number}" for number, _address in enumerate(SERVICE_HOSTS, start=1))
UNITS = "lab-*.service"
RULE = f"""// The whole rights of the account of the procedures: the units {UNITS}. No sudo, no root.
polkit.addRule(function (action, subject) {{
  if (subject.user === "{host_image.ACCOUNT}" && action.id === "org.freedesktop.systemd1.manage-units" &&
      ["start", "stop", "restart", "reset-failed"].indexOf(action.lookup("verb")) >= 0 &&
      /^lab-[a-z0-9-]+[.]service$/.test(action.lookup("unit"))) {{
    return polkit.Result.YES;
  }}
}});
"""
SSHD = """PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
HostKey /etc/ssh/ssh_host_ed25519_key
MaxStartups 100
"""
NETWORK = """[Unit]
Description=The address of this host on the lab's bridge
DefaultDependencies=no
Before=network.target shutdown.target

[Service]
Type=oneshot
RemainAfterExit=true
ExecStart=/usr/sbin/ip address add {address} dev host0
ExecStart=/usr/sbin/ip link set host0 up

[Install]
WantedBy=multi-user.target
"""
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-network-generator.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)
"""What a host of the lab does not need: its boot takes a third of the processor's time without them."""
JOURNAL = "[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n"
PROPAGATED = Path("/run/systemd/nspawn/propagate")
"""systemd-nspawn leaves an empty directory of each container there when it is killed."""


class ServiceHosts(Component):
    """Each host is an overlay on one image, with its own cgroup and network namespace on the lab's bridge."""

    name = "service_hosts"

    def install(self, lab: Lab) -> None:
        """systemd-nspawn and an SSH client from Debian, and the image."""
        packages.apt(lab, "systemd-container", "openssh-client")
        host_image.build(lab)

    def start(self, lab: Lab) -> None:
        """Boot the hosts that do not run."""
        keys = self._keys(lab)
        for name, address in zip(HOSTS, SERVICE_HOSTS, strict=True):
            running = lab.process(self.name, name)
            if running is None or not running.alive():
                self._end(lab, name)
                self._boot(lab, name, address, keys)

    def _boot(self, lab: Lab, name: str, address: str, keys: Path) -> None:
        """Write what is this host's own into its layer, mount it, and start it."""
        root = self._mount(lab, name)
        etc = root / "etc"
        (etc / "hostname").write_text(f"{name}\n")
        (etc / "machine-id").write_text((keys / f"{name}.machine-id").read_text())
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        (etc / "ssh/sshd_config.d/lab.conf").write_text(SSHD)
        (etc / "polkit-1/rules.d/50-lowtide.rules").write_text(RULE)
        (etc / "systemd/journald.conf.d").mkdir(exist_ok=True)
        (etc / "systemd/journald.conf.d/lab.conf").write_text(JOURNAL)
        self._choose_units(etc / "systemd/system", address)
        shutil.copy(keys / name, etc / "ssh/ssh_host_ed25519_key")
        shutil.copy(keys / f"{name}.pub", etc / "ssh/ssh_host_ed25519_key.pub")
        for home, user in ((root / "root", ADMIN), (root / "home" / host_image.ACCOUNT, host_image.ACCOUNT)):
            ssh = home / ".ssh"
            ssh.mkdir(mode=0o700, exist_ok=True)
            shutil.copy(keys / f"{user}.pub", ssh / "authorized_keys")
            owner = home.stat()
            for path in (ssh, ssh / "authorized_keys"):
                shutil.chown(path, owner.st_uid, owner.st_gid)
        machine = self._machine(lab, name)
        argv: list[str | Path] = ["/usr/bin/systemd-nspawn", "--quiet", f"--machine={machine}", f"--directory={root}"]
        argv += ["--register=no", "--keep-unit", "--boot", "--console=pipe", f"--network-bridge={BRIDGE}"]
        argv += [f"--hostname={name}", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        lab.spawn(self.name, name, argv, cgroup=name)

    @staticmethod
    def _choose_units(place: Path, address: str) -> None:
        """Mask what the host does not need, and give it its address."""
        for masked in MASKED:
            link = place / masked
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        (place / "host-network.service").write_text(NETWORK.format(address=f"{address}/{PREFIX}"))
        enabled = place / "multi-user.target.wants/host-network.service"
        enabled.unlink(missing_ok=True)
        enabled.symlink_to("/etc/systemd/system/host-network.service")

    def _mount(self, lab: Lab, name: str) -> Path:
        """The host's root: its own layer above the image."""
        place = lab.state(self.name) / name
        for folder in ("layer", "work", "root"):
            (place / folder).mkdir(parents=True, exist_ok=True)
        root = place / "root"
        if not root.is_mount():
            layers = f"lowerdir={host_image.image_path(lab.cache)},upperdir={place / 'layer'},workdir={place / 'work'}"
            packages.command(["mount", "-t", "overlay", "-o", layers, f"lowtide-{name}", str(root)])
        return root

    def _keys(self, lab: Lab) -> Path:
        """The key pairs of hosts and accounts, made once, all or none, readable by root only."""
        keys = lab.state(self.name) / "keys"
        if not keys.is_dir():
            partial = keys.with_name("keys.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            for name in (*HOSTS, ADMIN, host_image.ACCOUNT):
                lab.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", partial / name])
            for name in HOSTS:
                (partial / f"{name}.machine-id").write_text(f"{secrets.token_hex(16)}\n")
            public = ((partial / f"{name}.pub").read_text() for name in HOSTS)
            known = (f"{address} {key}" for address, key in zip(SERVICE_HOSTS, public, strict=True))
            (partial / "known_hosts").write_text("".join(known))
            partial.rename(keys)
        return keys

    @staticmethod
    def _machine(lab: Lab, name: str) -> str:
        """The container's name, which no other lab on the machine has."""
        return f"{lab.name}-{name}"

    def ready(self, lab: Lab) -> None:
        """Each host lets the account of the procedures in, which it does once its boot is through."""
        running = lab.processes(self.name)
        for address in SERVICE_HOSTS:
            argv = [*self._ssh(lab, address), "systemctl", "is-active", "multi-user.target", "dbus.socket"]
            lab.wait_for(f"service host {address}", lambda argv=argv: lab.run(argv, seconds=30).stdout, 300, *running)  # type: ignore[misc]

    def _ssh(self, lab: Lab, address: str) -> list[str | Path]:
        keys = lab.state(self.name) / "keys"
        options = ["BatchMode=yes", "ConnectTimeout=3", f"UserKnownHostsFile={keys / 'known_hosts'}"]
        chosen: list[str | Path] = [part for option in options for part in ("-o", option)]
        return ["ssh", "-F", "none", "-i", keys / host_image.ACCOUNT, *chosen, f"{host_image.ACCOUNT}@{address}"]

    def stop(self, lab: Lab) -> None:
        """Shut the hosts down at once, then end what a killed systemd-nspawn has left, and unmount."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self._stop(lab, name), HOSTS))

    def _stop(self, lab: Lab, name: str) -> None:
        lab.stop_process(self.name, name, seconds=5)
        self._end(lab, name)
        root = lab.state(self.name) / name / "root"
        if root.is_mount():
            packages.command(["umount", "--lazy", str(root)])

    def _end(self, lab: Lab, name: str) -> None:
        """End what outlived the systemd-nspawn of a host, and remove its traces elsewhere on the machine."""
        cgroup = Cgroup(f"{lab.cgroup.name}/{name}")

        def ended() -> bool:
            left = {pid for pid in cgroup.pids() if process.start_time(pid) is not None}
            process.kill(left)
            return not left

        lab.wait_for(f"service host {name}: end of its processes", ended, 60)
        cgroup.remove()
        place = PROPAGATED / self._machine(lab, name)
        if place.is_dir():
            place.rmdir()

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Addresses, accounts, keys, and which units the account of the procedures may start and stop."""
        keys = lab.state(self.name) / "keys"
        return {
            "hosts": [{"name": name, "address": address} for name, address in zip(HOSTS, SERVICE_HOSTS, strict=True)],
            "user": host_image.ACCOUNT,
            "key": str(keys / host_image.ACCOUNT),
            "admin_user": ADMIN,
            "admin_key": str(keys / ADMIN),
            "known_hosts": str(keys / "known_hosts"),
            "ssh_arguments": f"-F none -o BatchMode=yes -o UserKnownHostsFile={keys / 'known_hosts'}",
            # Shared connections of two labs must not meet: their hosts have the same addresses.
            "control_path": str(lab.state(self.name) / "cp"),
            "units": UNITS,
        }
