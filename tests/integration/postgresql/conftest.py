# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A PostgreSQL server of its own for what the lab's cluster is not configured for or must not suffer, and a database for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from support.modules import ModuleRun, run_module

BIN = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "canary-5d41402abc4b"  # noqa: S105 - of a server that lives for one test session on loopback
CONFIGURATION = """
listen_addresses = '127.0.0.1'
fsync = off
wal_level = logical
max_prepared_transactions = 10
max_connections = 60
autovacuum = off
deadlock_timeout = 200ms
"""


@dataclass(frozen=True)
class Server:
    """A running server; ``folder`` holds its data and socket."""

    folder: Path
    port: int
    system_identifier: str

    def params(self, database: str) -> dict[str, Any]:
        """Connection options of a module."""
        return {
            "login_host": "127.0.0.1",
            "login_port": self.port,
            "login_user": "postgres",
            "login_password": PASSWORD,
            "login_db": database,
        }


@dataclass(frozen=True)
class Database:
    """One database, ways to look at it past the module, and the module on it."""

    server: Server
    name: str

    def connect(self, *, autocommit: bool = True, application: str = "test") -> Any:
        """A session of its own, for tests that stand in the way."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.server.port,
            user="postgres",
            password=PASSWORD,
            dbname=self.name,
            application_name=application,
        )
        connection.autocommit = autocommit
        return connection

    def sql(self, *statements: Any) -> list[tuple[Any, ...]]:
        """Statements on a session of their own; the rows of the last one. What they did is in the statistics afterwards."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            # Else it is reported some time after the session has been closed.
            cursor.execute("SELECT pg_stat_force_next_flush()")
            return rows

    def one(self, statement: Any) -> Any:
        """The single value of a query."""
        return self.sql(statement)[0][0]

    def maintain(self, *, check: bool = False, **options: Any) -> ModuleRun:
        """pg_maintenance with these options."""
        return run_module("pg_maintenance", {**self.server.params(self.name), **options}, check=check)

    def info(self, **options: Any) -> ModuleRun:
        """pg_maintenance_info with these options."""
        return run_module("pg_maintenance_info", {**self.server.params(self.name), **options})

    def table(self, name: str, *, rows: int = 2000, dead: bool = True) -> None:
        """A table with a primary key and an index, analyzed; with ``dead`` half of its rows were updated after that."""
        table, index = sql.Identifier(name), sql.Identifier(name[:40] + "_state")
        self.sql(
            sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, state int, note text)").format(table),
            sql.SQL("INSERT INTO {} SELECT g, g % 7, 'x' FROM generate_series(1, {}) g").format(
                table, sql.Literal(rows)
            ),
            sql.SQL("CREATE INDEX {} ON {} (state)").format(index, table),
        )
        # On a session of its own: what VACUUM has counted, an INSERT that is reported later would be added to.
        self.sql(sql.SQL("VACUUM ANALYZE {}").format(table))
        if dead:
            self.sql(sql.SQL("UPDATE {} SET note = 'y' WHERE id % 2 = 0").format(table))

    def vacuums(self, name: str) -> int:
        """How often a table was vacuumed by command."""
        return int(
            self.one(
                sql.SQL("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = {}").format(sql.Literal(name))
            )
        )

    def invalid(self) -> list[str]:
        """Names of invalid indexes."""
        return [
            row[0]
            for row in self.sql("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")
        ]

    def fingerprint(self) -> list[tuple[Any, ...]]:
        """What a run could change: files, statistics and indexes of every user table."""
        return self.sql(
            "SELECT c.relname, c.relfilenode, c.reltuples, c.relfrozenxid::text, s.vacuum_count, s.analyze_count, s.n_dead_tup"
            " FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid"
            " WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) ORDER BY c.oid"
        )


def until(database: Database, question: str) -> None:
    """Wait until a query answers with more than nothing."""
    end = time.monotonic() + 30
    while not database.one(question):
        assert time.monotonic() < end, f"never: {question}"
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_postgres(*command: str | Path, cwd: Path) -> None:
    subprocess.run(
        ["runuser", "-u", "postgres", "--", *map(str, command)], check=True, cwd=cwd, stdout=subprocess.DEVNULL
    )


@pytest.fixture(scope="session")
def server(lab_facts: dict[str, Any]) -> Iterator[Server]:
    """A server with logical WAL, prepared transactions and no autovacuum, that asks for a password; beside the lab's own."""
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=Path(lab_facts["postgresql"]["passfile"]).parent))
    folder.chmod(0o755)
    shutil.chown(folder, "postgres", "postgres")
    data, password = folder / "data", folder / "password"
    password.write_text(PASSWORD)
    _as_postgres(BIN / "initdb", "-D", data, "-N", "-A", "scram-sha-256", f"--pwfile={password}", cwd=folder)
    port = _free_port()
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(f"{CONFIGURATION}\nport = {port}\nunix_socket_directories = '{folder}'\n")
    _as_postgres(BIN / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "start", cwd=folder)
    try:
        with (
            contextlib.closing(
                psycopg2.connect(host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="postgres")
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT system_identifier::text FROM pg_control_system()")
            ((identifier,),) = cursor.fetchall()
        yield Server(folder, port, identifier)
    finally:
        _as_postgres(BIN / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop", cwd=folder)
        shutil.rmtree(folder)


@pytest.fixture
def database(server: Server, unique_name: Callable[..., str]) -> Iterator[Database]:
    """An empty database for one test."""
    name = unique_name("db", separator="_")
    administration = Database(server, "postgres")
    administration.sql(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield Database(server, name)
    administration.sql(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def small_volume(server: Server) -> Iterator[Path]:
    """A file system of 24 MiB, owned by the server's user, for a tablespace that gets full."""
    mount = server.folder / f"volume-{os.getpid()}"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(mount)], check=True)
    shutil.chown(mount, "postgres", "postgres")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)
    mount.rmdir()
