# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL servers of tests, by version and account, and databases on them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg2
from labkit.postgresql_programs import USER
from psycopg2 import sql

from support.database_ports import find_port
from support.modules import ModuleRun, run_module
from support.postgresql_rights import Superuser, grant_documented_rights

PASSWORD = "canary-5d41402abc4b"  # noqa: S105 - of a server that lives for one test session on loopback
SUPERUSER = "superuser"
OWNER = "owner"
MAINTENANCE = "maintenance"
BACKUP = "backup"
FLUSHES_ON_DEMAND = 15
"""The first version with statistics in shared memory; before, a process collected them and wrote a file."""
SECONDS = 120.0
"""So long a condition is waited for, and the start or the end of a server: a machine may be busy with other tests."""
BLOCK = 8192
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
class Account:
    """A user and what proves it: a passfile, or a password."""

    user: str
    passfile: str = ""
    password: str = field(default="", repr=False)

    @property
    def params(self) -> dict[str, str]:
        """Options of a module."""
        proof = {"passfile": self.passfile} if self.passfile else {"login_password": self.password}
        return {"login_user": self.user, **proof}

    @property
    def libpq(self) -> dict[str, str]:
        """Parameters of libpq."""
        proof = {"passfile": self.passfile} if self.passfile else {"password": self.password}
        return {"user": self.user, **proof}


@dataclass(frozen=True)
class Server:
    """A running server. ``default`` names the account that tests act by; ``folder`` holds its data and socket."""

    host: str
    port: int
    version: int
    system_identifier: str
    programs: Path
    folder: Path
    accounts: Mapping[str, Account]
    default: str

    @property
    def superuser(self) -> Superuser:
        """Who grants rights by psql."""
        account = self.accounts[SUPERUSER]
        return Superuser(self.host, self.port, account.user, account.passfile, account.password)

    def params(self, database: str, account: str = "") -> dict[str, Any]:
        """Connection options of a module, for the account by that name or the server's default."""
        options = {"login_host": self.host, "login_port": self.port, "login_db": database}
        return {**options, **self.accounts[account or self.default].params}

    def connect(self, database: str, account: str = "", *, application: str = "test") -> Any:
        """A session in autocommit."""
        who = self.accounts[account or self.default].libpq
        parameters: dict[str, Any] = {"host": self.host, "port": self.port, "dbname": database, **who}
        connection = psycopg2.connect(**parameters, application_name=application)
        connection.autocommit = True
        return connection

    def administer(self, *statements: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute statements as superuser on a session of their own; the rows of the last one."""
        with contextlib.closing(self.connect(database, SUPERUSER)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


@dataclass(frozen=True)
class Database:
    """One database, ways to look at it past the module, and the module on it, by the server's default account."""

    server: Server
    name: str

    def connect(self, *, autocommit: bool = True, application: str = "test", account: str = "") -> Any:
        """A session of its own, for tests that stand in the way."""
        connection = self.server.connect(self.name, account, application=application)
        connection.autocommit = autocommit
        return connection

    def sql(self, *statements: Any, account: str = "", reads_only: bool = False) -> list[tuple[Any, ...]]:
        """Statements on a session of their own; the rows of the last one. What they did is in the statistics then."""
        with contextlib.closing(self.connect(account=account)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            if self.server.version >= FLUSHES_ON_DEMAND:
                # Else it is reported some time after the session has been closed.
                cursor.execute("SELECT pg_stat_force_next_flush()")
                return rows
            process = connection.info.backend_pid
        if not reads_only:
            self._wait_for_statistics(process)
        return rows

    def _wait_for_statistics(self, process: int) -> None:
        """Wait until a session has ended, which sends what it counted, and the collector has written that down."""
        with contextlib.closing(self.connect(account=SUPERUSER)) as connection, connection.cursor() as cursor:
            wait_for_row(cursor, f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {process})")
            cursor.execute("SELECT clock_timestamp()")
            ((ended,),) = cursor.fetchall()
            wait_for_row(cursor, f"SELECT pg_stat_get_snapshot_timestamp() > '{ended.isoformat()}'")

    def administer(self, *statements: Any) -> list[tuple[Any, ...]]:
        """The same as superuser, for what the account may not: extensions, settings, other users' sessions."""
        return self.sql(*statements, account=SUPERUSER)

    def one(self, statement: Any) -> Any:
        """The single value of a query."""
        return self.sql(statement, reads_only=True)[0][0]

    def wait_until(self, question: str) -> None:
        """Wait until a query answers with more than nothing."""
        with contextlib.closing(self.connect(account=SUPERUSER)) as connection, connection.cursor() as cursor:
            wait_for_row(cursor, question)

    def maintain(self, *, check: bool = False, account: str = "", **options: Any) -> ModuleRun:
        """pg_maintenance with these options."""
        return run_module("pg_maintenance", {**self.server.params(self.name, account), **options}, check=check)

    def info(self, *, account: str = "", **options: Any) -> ModuleRun:
        """pg_maintenance_info with these options."""
        return run_module("pg_maintenance_info", {**self.server.params(self.name, account), **options})

    def make_backup_account(self) -> Account:
        """Make an account that may read all of this database and comes into no other; it goes with the database."""
        account = Account(self.name, password=secrets.token_hex(16))
        grant_documented_rights(self.server.superuser, self.name, backup=account.user)
        statements = ("GRANT lowtide_limited TO {role}", "ALTER ROLE {role} PASSWORD {password}")
        for statement in statements:
            names = {"role": sql.Identifier(account.user), "password": sql.Literal(account.password)}
            self.server.administer(sql.SQL(statement).format(**names))
        return account

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
            for row in self.sql(
                "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1", reads_only=True
            )
        ]

    def fingerprint(self) -> list[tuple[Any, ...]]:
        """What a run could change: files, statistics and indexes of every user table."""
        return self.sql(
            "SELECT c.relname, c.relfilenode, c.reltuples, c.relfrozenxid::text,"
            " s.vacuum_count, s.analyze_count, s.n_dead_tup"
            " FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid"
            " WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
            " ORDER BY c.oid",
            reads_only=True,
        )


def wait_for_row(cursor: Any, question: str) -> None:
    """Wait until a query's single value is true."""
    end = time.monotonic() + SECONDS
    while True:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(question)
        if cursor.fetchone()[0]:
            return
        assert time.monotonic() < end, f"never: {question}"
        time.sleep(0.05)


def find_server(lab: dict[str, Any], version: str) -> Server:
    """Describe the lab's server of a version; by default tests act as the owner of their database, and no more."""
    facts = lab["postgresql_versions"]
    server = facts["servers"][version]
    accounts = {name: Account(entry["user"], entry["passfile"]) for name, entry in facts["accounts"].items()}
    return Server(
        host=server["host"],
        port=server["port"],
        version=int(version),
        system_identifier=server["system_identifier"],
        programs=Path(server["programs"]),
        folder=Path(server["data"]).parent,
        accounts={**accounts, SUPERUSER: Account(facts["superuser"], facts["passfile"])},
        default=OWNER,
    )


@contextmanager
def make_database(server: Server, unique_name: Callable[..., str]) -> Iterator[Database]:
    """An empty database, which the server's default account owns; nobody else comes in but who is granted it."""
    name = unique_name("db", separator="_")
    database, owner = sql.Identifier(name), sql.Identifier(server.accounts[server.default].user)
    server.administer(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
    if MAINTENANCE in server.accounts:
        maintenance = sql.Identifier(server.accounts[MAINTENANCE].user)
        server.administer(
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, maintenance),
        )
    try:
        yield Database(server, name)
    finally:
        server.administer(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database),
            sql.SQL("DROP ROLE IF EXISTS {}").format(database),
        )


@contextmanager
def start_server(version: str, programs: Path, parent: Path) -> Iterator[Server]:
    """Run a server that a test can have for itself: of that version, with the superuser as its only account.

    It has logical WAL, prepared transactions and no autovacuum, and asks for a password.
    """
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=parent))
    folder.chmod(0o755)
    shutil.chown(folder, USER, USER)
    data, password = folder / "data", folder / "password"
    password.write_text(PASSWORD)
    _run_as_postgres(
        programs / "initdb", "-D", data, "-N", "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", cwd=folder
    )
    port = find_port()
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(f"{CONFIGURATION}\nport = {port}\nunix_socket_directories = '{folder}'\n")
    _run_as_postgres(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "start", cwd=folder)
    try:
        accounts = {SUPERUSER: Account(USER, password=PASSWORD)}
        server = Server("127.0.0.1", port, int(version), "", programs, folder, accounts, SUPERUSER)
        ((identifier,),) = server.administer("SELECT system_identifier::text FROM pg_control_system()")
        yield Server("127.0.0.1", port, int(version), identifier, programs, folder, accounts, SUPERUSER)
    finally:
        _run_as_postgres(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop", cwd=folder)
        shutil.rmtree(folder)


def damage_table(server: Server, database: str, table: str) -> None:
    """Overwrite the header of a page of a table, as a failing disk does. The server is one of :func:`start_server`."""
    damage_blocks(server, database, (table, 1, b"\xff" * 64))


def damage_blocks(server: Server, database: str, *damage: tuple[str, int, bytes]) -> None:
    """Stop a server of :func:`start_server`, overwrite the beginning of blocks of relations, and start it again."""
    data = server.folder / "data"
    names = [relation for relation, _block, _content in damage]
    paths = [
        server.administer(f"SELECT pg_relation_filepath('{name}'::regclass)", database=database)[0][0] for name in names
    ]
    _run_as_postgres(server.programs / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop", cwd=server.folder)
    for path, (_relation, block, content) in zip(paths, damage, strict=True):
        with (data / path).open("r+b") as file:
            file.seek(block * BLOCK)
            file.write(content)
    log = server.folder / "log"
    _run_as_postgres(server.programs / "pg_ctl", "-D", data, "-l", log, "-w", "start", cwd=server.folder)


def crash_server(server: Server) -> None:
    """Let a server of :func:`start_server` come back from a crash, in which no session cleans up after itself."""
    data, log = server.folder / "data", server.folder / "log"
    _run_as_postgres(server.programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop", cwd=server.folder)
    _run_as_postgres(server.programs / "pg_ctl", "-D", data, "-l", log, "-w", "start", cwd=server.folder)


@contextmanager
def start_standby(primary: Server, *settings: str) -> Iterator[Server]:
    """Run a standby of a server of :func:`start_server`, which streams from it; ``settings`` are lines of its own."""
    folder = primary.folder / "standby"
    data, port = folder / "data", find_port()
    folder.mkdir(mode=0o755)
    shutil.chown(folder, USER, USER)
    conninfo = f"host={primary.host} port={primary.port} user={USER} password={PASSWORD}"
    copy = ("-D", data, "-d", conninfo, "-c", "fast", "-X", "stream", "-R")
    _run_as_postgres(primary.programs / "pg_basebackup", *copy, cwd=folder)
    with (data / "postgresql.conf").open("a") as configuration:
        lines = [f"port = {port}", f"unix_socket_directories = '{folder}'", *settings]
        configuration.write("\n".join(lines) + "\n")
    _run_as_postgres(primary.programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "start", cwd=folder)
    try:
        yield replace(primary, port=port, folder=folder)
    finally:
        _run_as_postgres(primary.programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop", cwd=folder)


@contextmanager
def mount_small_volume(server: Server) -> Iterator[Path]:
    """A file system of 24 MiB, owned by the server's user, for a tablespace that gets full."""
    mount = server.folder / f"volume-{os.getpid()}"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(mount)], check=True)
    shutil.chown(mount, USER, USER)
    try:
        yield mount
    finally:
        # Lazily: a session that has just been closed may have a file of it open until its process has ended.
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
        mount.rmdir()


def _run_as_postgres(*command: str | Path, cwd: Path) -> None:
    argv = ["runuser", "-u", USER, "--", *map(str, command)]
    environment = {**os.environ, "PGCTLTIMEOUT": f"{SECONDS:.0f}"}
    subprocess.run(argv, check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)
