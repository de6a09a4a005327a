# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server of each supported version, 14 to 18, on 10.77.0.1:5414 to 5418, with restricted accounts."""

from __future__ import annotations

import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import packages, postgresql_accounts, postgresql_programs, process
from labkit.component import Component
from labkit.errors import LabError
from labkit.network import CONTROL, NETWORK
from labkit.postgresql_programs import USER, VERSIONS
from labkit.private import write_private

if TYPE_CHECKING:
    from labkit.lab import Lab
    from labkit.process import Process

FIRST_PORT = 5400
PODS = "10.78.0.0/16"
CONFIGURATION = """
listen_addresses = '{address}'
port = {port}
unix_socket_directories = '{sockets}'
max_connections = 100
shared_buffers = 32MB
max_wal_size = 512MB
password_encryption = scram-sha-256
# Tests say what is vacuumed, hold transactions prepared, have logical slots, and wait for deadlocks.
autovacuum = off
max_prepared_transactions = 10
wal_level = logical
deadlock_timeout = 200ms
# Killing a server loses nothing by this; only a crash of the machine does, and then the lab is made anew.
fsync = off
"""
IDENTIFY = "SELECT current_setting('server_version'), system_identifier FROM pg_control_system()"


def find_port(version: str) -> int:
    """Return the port of a version's server."""
    return FIRST_PORT + int(version)


class PostgreSQLVersions(Component):
    """Servers without replication, all with the same accounts; what fails over is the component ``postgresql``."""

    name = "postgresql_versions"

    def install(self, lab: Lab) -> None:
        """Servers with contrib, and one client for all of them."""
        postgresql_programs.install_debian(lab)
        postgresql_programs.install_servers(lab)
        postgresql_programs.install_client(lab)

    def start(self, lab: Lab) -> None:
        """Initialize those that have no data, all at once, and run them."""
        state = lab.state(self.name)
        if not state.is_mount() and not any(state.iterdir()):
            # As for the component postgresql: databases come and go here by the hundred.
            packages.command(["mount", "-t", "tmpfs", "-o", "mode=755", "lowtide-postgresql-versions", str(state)])
        passwords = postgresql_accounts.make_passwords(state)
        with ThreadPoolExecutor(len(VERSIONS)) as pool:
            list(pool.map(lambda version: self._start(lab, version, passwords), VERSIONS))

    def _start(self, lab: Lab, version: str, passwords: dict[str, str]) -> None:
        place = lab.state(self.name) / version
        place.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(place, USER, USER)
        data = place / "data"
        if not data.is_dir():
            self._initialize(lab, version, data, passwords[postgresql_accounts.SUPERUSER])
        self._forget_killed(lab, version, data)
        program = postgresql_programs.find_server_programs(lab, version) / "postgres"
        lab.spawn(self.name, f"pg{version}", [program, "-D", data], user=USER, cwd=place)

    def _forget_killed(self, lab: Lab, version: str, data: Path) -> None:
        """Remove the lock files of a server that was killed, once none of its processes works in its data folder.

        A new server would take a process that nobody has reaped yet, or another of that number, for the old server.
        """
        running = lab.process(self.name, f"pg{version}")
        if running is not None and running.alive():
            return
        self._end_processes(lab, data)
        for lock in (data / "postmaster.pid", data.with_name(f".s.PGSQL.{find_port(version)}.lock")):
            lock.unlink(missing_ok=True)

    @staticmethod
    def _end_processes(lab: Lab, *folders: Path) -> None:
        """Kill what works in one of the folders."""

        def are_deserted() -> bool:
            left = {pid for folder in folders for pid in process.working_in(folder)}
            process.kill(left)
            return not left

        lab.wait_for(f"{folders[0]}: end of the processes of an earlier run", are_deserted, 60)

    def _initialize(self, lab: Lab, version: str, data: Path, password: str) -> None:
        """Make the data folder of a version, whole or not at all."""
        partial = data.with_name("data.partial")
        self._end_processes(lab, data.parent, partial)  # of an initdb that outlived its `lab up`
        shutil.rmtree(partial, ignore_errors=True)
        argv: list[str | Path] = [postgresql_programs.find_server_programs(lab, version) / "initdb", "-D", partial]
        argv += ["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={USER}"]
        secret = data.with_name("password")
        write_private(secret, f"{password}\n")
        shutil.chown(secret, USER, USER)
        argv += ["--auth-local=peer", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
        lab.run(argv, user=USER, cwd=data.parent)
        settings = CONFIGURATION.format(address=CONTROL, port=find_port(version), sockets=data.parent)
        with (partial / "postgresql.conf").open("a") as configuration:
            configuration.write(settings)
        rules = ["local all all peer", *postgresql_accounts.make_access_rules((NETWORK, PODS))]
        (partial / "pg_hba.conf").write_text("".join(f"{rule}\n" for rule in rules))
        partial.rename(data)

    def ready(self, lab: Lab) -> None:
        """Each accepts connections, and has the accounts and their database."""
        passwords = postgresql_accounts.make_passwords(lab.state(self.name))
        with ThreadPoolExecutor(len(VERSIONS)) as pool:
            list(pool.map(lambda version: self._prepare(lab, version, passwords), VERSIONS))

    def _prepare(self, lab: Lab, version: str, passwords: dict[str, str]) -> None:
        server = lab.process(self.name, f"pg{version}")
        running: tuple[Process, ...] = (server,) if server else ()

        def has_accounts() -> bool:
            with lab.network.entered(), socket.create_connection((CONTROL, find_port(version)), timeout=5):
                self._psql(lab, version, statements=postgresql_accounts.make_statements(passwords))
                grants = postgresql_accounts.make_grant_arguments(**postgresql_accounts.ACCOUNTS)
                self._psql(lab, version, *grants, database=postgresql_accounts.DATABASE)
            return True

        lab.wait_for(f"PostgreSQL {version} at {CONTROL}:{find_port(version)}", has_accounts, 300, *running)

    def _psql(
        self, lab: Lab, version: str, *arguments: str | Path, database: str = "postgres", statements: str | None = None
    ) -> str:
        """Have psql do something as superuser; the rows, with tabs between their columns."""
        argv: list[str | Path] = [postgresql_programs.find_client_programs(lab) / "psql", "-X", "-q", "-A", "-t"]
        argv += ["-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", CONTROL, "-p", str(find_port(version))]
        superuser = postgresql_accounts.SUPERUSER
        passfile = postgresql_accounts.find_passfile(lab.state(self.name), superuser)
        argv += ["-U", superuser, "-d", database, *arguments]
        return lab.run(argv, env={"PGPASSFILE": str(passfile)}, stdin=statements).stdout

    def stop(self, lab: Lab) -> None:
        """Stop all at once, without waiting for their clients to go (SIGTERM would)."""
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(
                    lambda server: lab.stop_process(self.name, server.name, sent=signal.SIGINT),
                    lab.processes(self.name),
                )
            )

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Where each version listens, its programs, and the accounts with their passfiles."""
        state = lab.state(self.name)
        with ThreadPoolExecutor(len(VERSIONS)) as pool:
            servers = dict(zip(VERSIONS, pool.map(lambda version: self._describe(lab, version), VERSIONS), strict=True))
        return {
            "servers": servers,
            "client_programs": str(postgresql_programs.find_client_programs(lab)),
            "superuser": postgresql_accounts.SUPERUSER,
            "passfile": str(postgresql_accounts.find_passfile(state, postgresql_accounts.SUPERUSER)),
            "database": postgresql_accounts.DATABASE,
            "limited_role": postgresql_accounts.LIMITED,
            "accounts": {
                purpose: {"user": name, "passfile": str(postgresql_accounts.find_passfile(state, name))}
                for purpose, name in postgresql_accounts.ACCOUNTS.items()
            },
        }

    def _describe(self, lab: Lab, version: str) -> dict[str, Any]:
        answer = self._psql(lab, version, "-c", IDENTIFY).strip().split("\t")
        if len(answer) != 2:
            raise LabError(
                obj=f"PostgreSQL {version}",
                problem=f"it answers {answer} when it is asked for its version and identifier",
                next_step="See its log",
            )
        return {
            "host": CONTROL,
            "port": find_port(version),
            "version": answer[0].split()[0],
            "system_identifier": answer[1],
            "data": str(lab.state(self.name) / version / "data"),
            "programs": str(postgresql_programs.find_server_programs(lab, version)),
        }
