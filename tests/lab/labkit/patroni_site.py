# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Patroni cluster whose REST interface wants TLS, a client certificate and a password: settings and files of it."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.kubernetes_pki import Pki, Subject
from labkit.postgresql_programs import DEBIAN_VERSION
from labkit.private import write_private

USER = "postgres"
SUPERUSER = "postgres"
REPLICATOR = "replicator"
REST_USER = "lowtide"
PARAMETERS = {
    "max_connections": 60,
    "shared_buffers": "16MB",
    "max_wal_size": "256MB",
    "password_encryption": "scram-sha-256",
    "fsync": "off",
    # A writer that connects while a member starts would wait for a second of its own accord.
    "authentication_timeout": "10s",
}


@dataclass(frozen=True)
class Node:
    """One member: its name, where PostgreSQL and the REST interface listen, and its tags."""

    name: str
    port: int
    rest_port: int
    tags: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Passwords:
    """Of the superuser, of replication, and of the REST interface."""

    superuser: str
    replicator: str
    rest: str


def make_passwords(folder: Path) -> Passwords:
    """Return the passwords, made once; those of the superuser and the REST interface also as files of their own."""
    path = folder / "passwords.json"
    if not path.exists():
        write_private(path, json.dumps({name: secrets.token_hex(16) for name in ("superuser", "replicator", "rest")}))
    passwords = Passwords(**json.loads(path.read_text()))
    write_private(folder / "passfile", f"*:*:*:{SUPERUSER}:{passwords.superuser}\n")
    write_private(folder / "rest-password", f"{passwords.rest}\n")
    return passwords


def make_certificates(folder: Path, address: str, run: Callable[[list[str]], object]) -> Pki:
    """Make an authority, a certificate of the members and one of their clients in ``folder``/pki."""
    pki = Pki(folder / "pki", run)
    names = tuple(f"IP:{name}" for name in dict.fromkeys((address, "127.0.0.1")))
    pki.create([Subject("server", "patroni", names=names), Subject("client", "lowtide")])
    pki.folder.chmod(0o755)
    # Members run as another user than the one who makes the files.
    for path in (pki.key("server"), pki.certificate("server"), pki.certificate("ca")):
        shutil.chown(path, USER, USER)
    return pki


@dataclass(frozen=True)
class PatroniSite:
    """One cluster: ``scope`` names it in the DCS at ``etcd``. ``primary``: whom it follows as a standby cluster."""

    scope: str
    folder: Path
    address: str
    etcd: str
    nodes: Sequence[Node]
    passwords: Passwords
    pki: Pki
    primary: dict[str, Any] | None = None
    dcs: dict[str, Any] = field(default_factory=dict)

    def write(self, node: Node) -> Path:
        """Write the configuration of a member, which only its user may read, and return where it is."""
        place = self.folder / node.name
        place.mkdir(exist_ok=True)
        place.chmod(0o700)
        path = place / "patroni.yml"
        write_private(path, json.dumps(self._make_settings(node, place), indent=2))
        shutil.chown(path, USER, USER)
        shutil.chown(place, USER, USER)
        return path

    def make_rest_options(self) -> dict[str, Any]:
        """Return the connection options of a module."""
        return {
            "urls": [f"https://{self.address}:{node.rest_port}" for node in self.nodes],
            "username": REST_USER,
            "password_file": str(self.folder / "rest-password"),
            "ca_path": str(self.pki.certificate("ca")),
            "client_cert": str(self.pki.certificate("client")),
            "client_key": str(self.pki.key("client")),
        }

    def _make_settings(self, node: Node, place: Path) -> dict[str, Any]:
        tls = {"certfile": str(self.pki.certificate("server")), "keyfile": str(self.pki.key("server"))}
        ca = str(self.pki.certificate("ca"))
        dcs: dict[str, Any] = {
            "ttl": 20,
            "loop_wait": 1,
            "retry_timeout": 3,
            "maximum_lag_on_failover": 1048576,
            "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
            **self.dcs,
        }
        if self.primary:
            dcs["standby_cluster"] = self.primary
        return {
            "scope": self.scope,
            "name": node.name,
            "log": {"level": "INFO"},
            "restapi": {
                "listen": f"{self.address}:{node.rest_port}",
                "connect_address": f"{self.address}:{node.rest_port}",
                "authentication": {"username": REST_USER, "password": self.passwords.rest},
                "cafile": ca,
                "verify_client": "optional",
                **tls,
            },
            "ctl": {"cacert": ca, **tls},
            "etcd3": {"hosts": [self.etcd]},
            "bootstrap": {
                "dcs": dcs,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": f"{self.address}:{node.port}",
                "connect_address": f"{self.address}:{node.port}",
                "data_dir": str(place / "data"),
                "bin_dir": f"/usr/lib/postgresql/{DEBIAN_VERSION}/bin",
                "pgpass": str(place / "pgpass"),
                "parameters": {"unix_socket_directories": str(place)},
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {
                    "superuser": {"username": SUPERUSER, "password": self.passwords.superuser},
                    "replication": {"username": REPLICATOR, "password": self.passwords.replicator},
                },
                "pg_hba": [
                    "local all all peer",
                    f"host all all {self.address}/32 scram-sha-256",
                    "host all all 127.0.0.1/32 scram-sha-256",
                    f"host replication {REPLICATOR} {self.address}/32 scram-sha-256",
                    f"host replication {REPLICATOR} 127.0.0.1/32 scram-sha-256",
                ],
            },
            "tags": node.tags,
        }
