# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patroni with TLS and authentication on 10.77.0.1: ha (two members), east, and west, which follows east."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.component import Component
from labkit.network import CONTROL
from labkit.packages import apt, command, etcd_binary
from labkit.patroni_site import Node, PatroniSite, make_certificates, make_passwords
from labkit.patroni_state import ask
from labkit.postgresql_programs import install_debian

if TYPE_CHECKING:
    from labkit.lab import Lab

ETCD = f"{CONTROL}:2391"
ETCD_PEER = f"{CONTROL}:2392"
HA = (Node("ha1", 5451, 8451, {"site": "a"}), Node("ha2", 5452, 8452, {"site": "b"}))
EAST = (Node("east1", 5461, 8461),)
WEST = (Node("west1", 5471, 8471),)
BOOTSTRAPPED = "bootstrapped"
"""Marks, in the state directory, that all clusters have been ready once."""


class PatroniSites(Component):
    """Servers of their own, so that a leader may move without a test elsewhere noticing it."""

    name = "patroni_sites"

    def install(self, lab: Lab) -> None:
        """PostgreSQL and Patroni from Debian, etcd from the next release."""
        install_debian(lab)
        apt(lab, "patroni")
        etcd_binary(lab)

    def start(self, lab: Lab) -> None:
        """etcd, then the clusters; west, which copies east, once that has a leader."""
        state = lab.state(self.name)
        if not state.is_mount() and not any(state.iterdir()):
            command(["mount", "-t", "tmpfs", "-o", "mode=755", "lowtide-patroni-sites", str(state)])
        self._forget_half_made(lab, state)
        etcd: list[str | Path] = [etcd_binary(lab), "--name", "patroni", "--data-dir", state / "etcd"]
        etcd += ["--listen-client-urls", f"http://{ETCD}", "--advertise-client-urls", f"http://{ETCD}"]
        etcd += ["--listen-peer-urls", f"http://{ETCD_PEER}", "--initial-advertise-peer-urls", f"http://{ETCD_PEER}"]
        etcd += ["--initial-cluster", f"patroni=http://{ETCD_PEER}", "--log-level", "warn", "--unsafe-no-fsync"]
        lab.spawn(self.name, "etcd", etcd)
        ha, east, west = self._make_sites(state)
        self._spawn(lab, east)
        self._spawn(lab, ha)
        if not (state / BOOTSTRAPPED).exists():
            lab.wait_for("east: a leader", lambda: self._lead(east), 300, *lab.processes(self.name))
        self._spawn(lab, west)

    @staticmethod
    def _make_sites(state: Path) -> tuple[PatroniSite, PatroniSite, PatroniSite]:
        passwords = make_passwords(state)
        pki = make_certificates(state, CONTROL, command)
        primary = {"host": CONTROL, "port": EAST[0].port}
        return (
            PatroniSite("ha", state, CONTROL, ETCD, HA, passwords, pki),
            PatroniSite("east", state, CONTROL, ETCD, EAST, passwords, pki),
            PatroniSite("west", state, CONTROL, ETCD, WEST, passwords, pki, primary),
        )

    def _spawn(self, lab: Lab, site: PatroniSite) -> None:
        for node in site.nodes:
            config = site.write(node)
            lab.spawn(self.name, node.name, ["/usr/bin/patroni", config], user="postgres", cwd=config.parent)

    def _forget_half_made(self, lab: Lab, state: Path) -> None:
        """Begin anew when an earlier run was killed before the clusters had ever been ready."""
        processes = lab.processes(self.name)
        if (state / BOOTSTRAPPED).exists() or all(process.alive() for process in processes):
            return
        lab.say("patroni_sites: an earlier run ended before its clusters were ready: making them anew")
        self.stop(lab)
        for folder in ("etcd", *(node.name for node in (*HA, *EAST, *WEST))):
            shutil.rmtree(state / folder, ignore_errors=True)

    @staticmethod
    def _lead(site: PatroniSite) -> dict[str, Any] | None:
        """The leader of a site whose members all run."""
        members = ask(site, "/cluster").get("members", [])
        running = [member for member in members if member.get("state") in ("running", "streaming")]
        leaders = [member for member in running if member["role"] in ("leader", "standby_leader")]
        return leaders[0] if leaders and len(running) == len(site.nodes) else None

    def ready(self, lab: Lab) -> None:
        """All members run."""
        state = lab.state(self.name)
        for site in self._make_sites(state):
            lab.wait_for(
                f"Patroni cluster {site.scope}: all members run",
                partial(self._lead, site),
                300,
                *lab.processes(self.name),
            )
        (state / BOOTSTRAPPED).touch()

    def facts(self, lab: Lab) -> dict[str, Any]:
        """By cluster: connection options of the modules, addresses of PostgreSQL, and the superuser's passfile."""
        state = lab.state(self.name)
        return {
            site.scope: {
                "connection": {**site.make_rest_options(), "scope": site.scope},
                "members": [node.name for node in site.nodes],
                "host": CONTROL,
                "ports": [node.port for node in site.nodes],
                "superuser": "postgres",
                "passfile": str(state / "passfile"),
            }
            for site in self._make_sites(state)
        }
