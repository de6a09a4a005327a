# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL 15 under Patroni 3.0: a leader and two streaming standbys on 10.77.0.11-13, with an etcd of their own."""

from __future__ import annotations

import json
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import probe
from labkit.component import Component
from labkit.network import CONTROL, NETWORK, POSTGRESQL
from labkit.packages import apt, command, etcd_binary
from labkit.postgresql_accounts import make_access_rules
from labkit.postgresql_programs import DEBIAN_VERSION, install_debian

if TYPE_CHECKING:
    from labkit.lab import Lab

PORT = 5432
REST_PORT = 8008
SUPERUSER = "postgres"
ETCD = f"{CONTROL}:2389"
ETCD_PEER = f"{CONTROL}:2390"
PODS = "10.78.0.0/16"
BOOTSTRAPPED = "bootstrapped"
"""Marks, in the state directory, that the cluster has been ready once."""
PARAMETERS = {
    "max_connections": 100,
    "shared_buffers": "32MB",
    "max_prepared_transactions": 10,
    "max_wal_size": "512MB",
    "password_encryption": "scram-sha-256",
    # Killing a server loses nothing by this; only a crash of the machine does, and then the lab is made anew.
    "fsync": "off",
}


class PostgreSQL(Component):
    """Three nodes. Everything that runs as ``postgres`` uses the system's Python, which that user can read."""

    name = "postgresql"

    def install(self, lab: Lab) -> None:
        """PostgreSQL and Patroni from Debian, etcd from the next release."""
        install_debian(lab)
        apt(lab, "patroni")
        etcd_binary(lab)

    def start(self, lab: Lab) -> None:
        """etcd, then the three Patroni daemons, which bootstrap or find their data."""
        state = lab.state(self.name)
        self._keep_in_memory(state)
        self._forget_half_made(lab, state)
        passwords = self._passwords(state)
        etcd: list[str | Path] = [
            etcd_binary(lab),
            "--name",
            "patroni",
            "--data-dir",
            state / "etcd",
            "--unsafe-no-fsync",
        ]
        etcd += ["--listen-client-urls", f"http://{ETCD}", "--advertise-client-urls", f"http://{ETCD}"]
        etcd += ["--listen-peer-urls", f"http://{ETCD_PEER}", "--initial-advertise-peer-urls", f"http://{ETCD_PEER}"]
        etcd += ["--initial-cluster", f"patroni=http://{ETCD_PEER}", "--log-level", "warn"]
        lab.spawn(self.name, "etcd", etcd)
        for number, address in enumerate(POSTGRESQL, start=1):
            node = state / f"pg{number}"
            node.mkdir(exist_ok=True)
            node.chmod(0o700)
            shutil.chown(node, "postgres", "postgres")
            config = node / "patroni.yml"
            settings = self._settings(lab, f"pg{number}", address, node, passwords)
            self._write_secret(config, json.dumps(settings, indent=2), "postgres")
            lab.spawn(self.name, f"pg{number}", ["/usr/bin/patroni", config], user="postgres", cwd=node)

    @staticmethod
    def _keep_in_memory(state: Path) -> None:
        """Databases come and go here by the hundred, with 300 files each on each node. ext4 keeps the inodes of deleted
        files for minutes and looks at every one of them for each new file: 7 % of the processor's time in the
        integration tests."""
        if not state.is_mount() and not any(state.iterdir()):
            command(["mount", "-t", "tmpfs", "-o", "mode=755", "lowtide-postgresql", str(state)])

    def _forget_half_made(self, lab: Lab, state: Path) -> None:
        """Begin anew when an earlier run was killed before the cluster had ever been ready.

        Patroni's mark of who initializes the cluster stays in etcd when that node dies, and all wait for it for ever.
        """
        processes = lab.processes(self.name)
        if (state / BOOTSTRAPPED).exists() or all(process.alive() for process in processes):
            return
        lab.say("postgresql: an earlier run ended before its cluster was ready: making it anew")
        self.stop(lab)
        for folder in ("etcd", *(f"pg{number}" for number, _address in enumerate(POSTGRESQL, start=1))):
            shutil.rmtree(state / folder, ignore_errors=True)

    @staticmethod
    def _write_secret(path: Path, text: str, user: str) -> None:
        path.touch(mode=0o600)
        shutil.chown(path, user, user)
        path.write_text(text)

    def _passwords(self, state: Path) -> dict[str, str]:
        """The passwords of this lab's roles, made once; the superuser's also as a libpq passfile."""
        path = state / "passwords.json"
        if not path.exists():
            partial = state / "passwords.partial"
            made = {SUPERUSER: secrets.token_hex(16), "replicator": secrets.token_hex(16)}
            self._write_secret(partial, json.dumps(made), "root")
            partial.rename(path)
        passwords: dict[str, str] = json.loads(path.read_text())
        self._write_secret(state / "passfile", f"*:*:*:{SUPERUSER}:{passwords[SUPERUSER]}\n", "root")
        return passwords

    @staticmethod
    def _settings(lab: Lab, name: str, address: str, node: Path, passwords: dict[str, str]) -> dict[str, Any]:
        """Patroni's configuration (JSON is YAML)."""
        return {
            "scope": f"lab-{lab.name}",
            "name": name,
            "log": {"level": "INFO"},
            "restapi": {"listen": f"{address}:{REST_PORT}", "connect_address": f"{address}:{REST_PORT}"},
            "etcd3": {"hosts": [ETCD]},
            "bootstrap": {
                "dcs": {
                    "ttl": 20,
                    "loop_wait": 2,
                    "retry_timeout": 8,
                    "maximum_lag_on_failover": 1048576,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": f"{address}:{PORT}",
                "connect_address": f"{address}:{PORT}",
                "data_dir": str(node / "data"),
                "bin_dir": f"/usr/lib/postgresql/{DEBIAN_VERSION}/bin",
                "pgpass": str(node / "pgpass"),
                "parameters": {"unix_socket_directories": str(node)},
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {
                    "superuser": {"username": SUPERUSER, "password": passwords[SUPERUSER]},
                    "replication": {"username": "replicator", "password": passwords["replicator"]},
                },
                "pg_hba": [
                    "local all all peer",
                    *make_access_rules(("127.0.0.1/32", NETWORK, PODS)),
                    f"host replication replicator {NETWORK} scram-sha-256",
                ],
            },
        }

    @staticmethod
    def _ask(address: str, path: str) -> dict[str, Any]:
        """What a node's REST interface says; its status code stands for the role, not for success."""
        found: dict[str, Any] = json.loads(probe.request(f"{address}:{REST_PORT}", path).body)
        return found

    def _leader(self) -> dict[str, Any] | None:
        """The leader's own status once all nodes run and both standbys stream from it."""
        states = [self._ask(address, "/patroni") for address in POSTGRESQL]
        if any(state.get("state") != "running" for state in states):
            return None
        for state in states:
            streams = [one for one in state.get("replication", []) if one["state"] == "streaming"]
            if state.get("role") == "master" and len(streams) == len(POSTGRESQL) - 1:
                return state
        return None

    def ready(self, lab: Lab) -> None:
        """A running leader with two streaming standbys."""
        lab.wait_for("PostgreSQL: a leader and two streaming standbys", self._leader, 300, *lab.processes(self.name))
        (lab.state(self.name) / BOOTSTRAPPED).touch()

    def stop(self, lab: Lab) -> None:
        """The three nodes at once, then the etcd that they sign off from."""
        nodes = [process.name for process in lab.processes(self.name) if process.name != "etcd"]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: lab.stop_process(self.name, node), nodes))
        lab.stop_process(self.name, "etcd")

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Hosts, superuser, passfile, identity, and Patroni's REST interfaces."""
        leader = lab.wait_for("PostgreSQL's leader", self._leader, 120)
        return {
            "hosts": list(POSTGRESQL),
            "port": PORT,
            "superuser": SUPERUSER,
            "passfile": str(lab.state(self.name) / "passfile"),
            "system_identifier": str(leader["database_system_identifier"]),
            "patroni": [
                {"name": f"pg{number}", "rest": f"http://{address}:{REST_PORT}"}
                for number, address in enumerate(POSTGRESQL, start=1)
            ],
        }
