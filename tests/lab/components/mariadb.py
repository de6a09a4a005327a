# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB 10.11: a primary on 10.77.0.1:3306 and its replica on 10.77.0.1:3307, with accounts of few rights."""

from __future__ import annotations

import pwd
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.component import Component
from labkit.network import CONTROL
from labkit.packages import apt, command
from labkit.private import write_private

if TYPE_CHECKING:
    from labkit.lab import Lab

USER = "mysql"
PORTS = {"primary": 3306, "replica": 3307}
ACCOUNTS = {"backup": "lowtide_backup", "restore": "lowtide_restore", "monitor": "lowtide_monitor"}
"""Those of docs/mysql-rights.sql, which ``start`` executes as it is."""
RIGHTS = Path(__file__).resolve().parents[3] / "docs" / "mysql-rights.sql"
DATABASE = "shop"
"""The database that the file of rights is printed for."""
CONFIGURATION = """[mariadbd]
user={user}
datadir={data}
socket={data}/mariadb.sock
pid-file={data}/mariadb.pid
bind-address={host}
port={port}
server-id={port}
log-bin=binlog
log-slave-updates=ON
log-bin-trust-function-creators=ON
gtid-strict-mode=ON
skip-name-resolve=ON
max-connections=60
innodb-buffer-pool-size=24M
innodb-log-file-size=16M
innodb-flush-log-at-trx-commit=2
performance-schema=OFF
read-only={read_only}
"""


class MariaDB(Component):
    """Two servers of Debian's packages; the replica follows by GTID."""

    name = "mariadb"

    def install(self, lab: Lab) -> None:
        """Server and client programs are Debian's; their user comes with a package that starts a server of its own."""
        apt(lab, "mariadb-server-core", "mariadb-client")
        if USER not in {entry.pw_name for entry in pwd.getpwall()}:
            command(["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER])

    def start(self, lab: Lab) -> None:
        """Make data directories where there are none, and run both servers."""
        state = lab.state(self.name)
        for role, port in PORTS.items():
            data = state / role
            file = state / f"{role}.cnf"
            file.write_text(
                CONFIGURATION.format(
                    user=USER, data=data, host=CONTROL, port=port, read_only="ON" if role == "replica" else "OFF"
                )
            )
            if not (data / "complete").exists() or data.stat().st_uid != pwd.getpwnam(USER).pw_uid:
                self._initialise(lab, data, file)
            lab.spawn(self.name, role, ["/usr/sbin/mariadbd", f"--defaults-file={file}"])

    @staticmethod
    def _initialise(lab: Lab, data: Path, file: Path) -> None:
        """Make a data directory anew; it counts once the mark is there."""
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        shutil.chown(data, USER, USER)
        argv: list[str | Path] = ["/usr/bin/mariadb-install-db", f"--defaults-file={file}", f"--user={USER}"]
        lab.run([*argv, "--auth-root-authentication-method=normal", "--skip-test-db"])
        (data / "complete").touch()

    def ready(self, lab: Lab) -> None:
        """Both answer, the accounts are there, and the replica has what the primary has."""
        for role in PORTS:
            lab.wait_for(
                f"MariaDB ({role})",
                lambda role=role: self._ask(lab, role, "SELECT 1") == "1",  # type: ignore[misc]
                120,
                *lab.processes(self.name),
            )
        self._make_accounts(lab)
        self._follow(lab)
        lab.wait_for("replica of MariaDB", lambda: self._is_level(lab), 120, *lab.processes(self.name))

    def _ask(self, lab: Lab, role: str, sql: str) -> str:
        """Run SQL as root by the socket, and return what it prints."""
        socket = lab.state(self.name) / role / "mariadb.sock"
        argv: list[str | Path] = ["/usr/bin/mariadb", "--no-defaults", f"--socket={socket}", "-u", "root", "-N", "-B"]
        return lab.run(argv, stdin=sql).stdout.strip()

    def _make_accounts(self, lab: Lab) -> None:
        """Make the accounts of the lab and give them the rights that the documentation prints."""
        root = self._password(lab, "root")
        self._ask(
            lab,
            "primary",
            f"""CREATE USER IF NOT EXISTS lab_root@'%' IDENTIFIED BY '{root}';
            GRANT ALL ON *.* TO lab_root@'%' WITH GRANT OPTION; CREATE DATABASE IF NOT EXISTS {DATABASE};"""
            + "".join(
                f"CREATE USER IF NOT EXISTS {account}@'%' IDENTIFIED BY '{self._password(lab, account)}';"
                for account in ACCOUNTS.values()
            )
            + RIGHTS.read_text(),
        )

    def _password(self, lab: Lab, account: str) -> str:
        """Return an account's password, made at the first time, with the option file that holds it."""
        user = "lab_root" if account == "root" else account
        file = lab.state(self.name) / f"{account}.cnf"
        if not file.exists():
            write_private(file, f"[client]\nuser={user}\npassword={secrets.token_hex(16)}\n")
        return file.read_text().rpartition("password=")[2].strip()

    def _follow(self, lab: Lab) -> None:
        """Have the replica follow the primary unless it does; repeated after a killed run."""
        if "Slave_IO_Running: Yes" in self._ask(lab, "replica", "SHOW SLAVE STATUS\\G"):
            return
        self._ask(
            lab,
            "replica",
            f"""STOP SLAVE; CHANGE MASTER TO MASTER_HOST='{CONTROL}', MASTER_PORT={PORTS["primary"]},
            MASTER_USER='lab_root', MASTER_PASSWORD='{self._password(lab, "root")}', MASTER_USE_GTID=slave_pos,
            MASTER_CONNECT_RETRY=1; START SLAVE;""",
        )

    def _is_level(self, lab: Lab) -> bool:
        """Ask whether both have written the same."""
        positions = [self._ask(lab, role, "SELECT @@gtid_current_pos") for role in PORTS]
        return positions[0] == positions[1] != ""

    def facts(self, lab: Lab) -> dict[str, Any]:
        """Where both are, and the option files of the accounts."""
        state = lab.state(self.name)
        names = {"root": "root", **ACCOUNTS}
        accounts = {
            role: {"user": "lab_root" if role == "root" else name, "option_file": str(state / f"{name}.cnf")}
            for role, name in names.items()
        }
        servers = {
            role: {"host": CONTROL, "port": port, "socket": str(state / role / "mariadb.sock")}
            for role, port in PORTS.items()
        }
        return {**servers, "accounts": accounts, "database": DATABASE}
