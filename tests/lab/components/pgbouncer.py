# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer before the newest PostgreSQL: pooling by transaction on 10.77.0.1:6432, by session on 10.77.0.1:6433."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING, Any

from labkit import postgresql_accounts
from labkit.component import Component
from labkit.network import CONTROL
from labkit.packages import apt
from labkit.postgresql_programs import NEWEST, USER, find_client_programs
from labkit.private import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.lab import Lab

PORTS = {"transaction": 6432, "session": 6433}
CONFIGURATION = """[databases]
* = host={host} port={server_port}
[pgbouncer]
pool_mode = {mode}
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {accounts}
admin_users = {superuser}
; What libpq's clients send at their start is often ignored so, and then is not in effect.
ignore_startup_parameters = extra_float_digits,options
; After a restart of the server no client is handed a connection that ended with it.
server_check_delay = 0
"""


class PgBouncer(Component):
    """A process for each way of pooling; every account and database of the server can be reached through both."""

    name = "pgbouncer"
    requires = ("postgresql_versions",)

    def install(self, lab: Lab) -> None:
        """PgBouncer is Debian's."""
        apt(lab, "pgbouncer")

    def start(self, lab: Lab) -> None:
        """Write what both need, and run them."""
        state = lab.state(self.name)
        passwords = postgresql_accounts.make_passwords(lab.state("postgresql_versions"))
        accounts = state / "userlist.txt"
        self._write(accounts, "".join(f'"{name}" "{password}"\n' for name, password in passwords.items()))
        for mode, port in PORTS.items():
            settings = CONFIGURATION.format(
                mode=mode,
                host=CONTROL,
                port=port,
                server_port=self._server(lab)["port"],
                accounts=accounts,
                superuser=postgresql_accounts.SUPERUSER,
            )
            file = state / f"{mode}.ini"
            self._write(file, settings)
            lab.spawn(self.name, mode, ["/usr/sbin/pgbouncer", file], user=USER)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        write_private(path, text)
        shutil.chown(path, USER, USER)

    @staticmethod
    def _server(lab: Lab) -> dict[str, Any]:
        server: dict[str, Any] = lab.facts()["postgresql_versions"]["servers"][NEWEST]
        return server

    def ready(self, lab: Lab) -> None:
        """An account comes through each of them."""
        for mode, port in PORTS.items():
            lab.wait_for(
                f"PgBouncer (pooling by {mode}) at {CONTROL}:{port}",
                lambda port=port: self._comes_through(lab, port),  # type: ignore[misc]
                120,
                *lab.processes(self.name),
            )

    @staticmethod
    def _comes_through(lab: Lab, port: int) -> bool:
        with socket.create_connection((CONTROL, port), timeout=5):
            account = lab.facts()["postgresql_versions"]["accounts"]["owner"]
        argv: list[str | Path] = [find_client_programs(lab) / "psql", "-X", "-A", "-t", "-h", CONTROL, "-p", str(port)]
        argv += ["-U", account["user"], "-d", postgresql_accounts.DATABASE, "-c", "SELECT current_user"]
        return bool(lab.run(argv, env={"PGPASSFILE": account["passfile"]}).stdout.strip() == account["user"])

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Where each way of pooling is, and before which server; the accounts are those of ``postgresql_versions``."""
        ways = {mode: {"host": CONTROL, "port": port} for mode, port in PORTS.items()}
        return {**ways, "server": self._server(lab), "admin_database": "pgbouncer"}
