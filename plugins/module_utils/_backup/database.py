# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database's side of a backup: lock, snapshot, row counts, client programs. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from .._common.dependencies import require
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker
from .._postgresql.connection import Session, Settings, driver_error
from .._postgresql.errors import sql_error
from .manifest import stamp
from .pipeline import Command, find_program, run

if t.TYPE_CHECKING:
    from .._common.retry import Deadline

# Key of the advisory lock: "lowt" in ASCII, and 1 for backups. Advisory locks are per database already.
LOCK = {"class": 0x6C6F7774, "object": 1}
# Tables counted by one statement, so that ten thousand of them cost twenty statements.
TABLES_A_STATEMENT = 500

_HOLDER = """
SELECT a.pid, a.application_name, pg_catalog.host(a.client_addr), a.backend_start
  FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
   AND l.classid = %(class)s AND l.objid = %(object)s
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
# What pg_dump dumps the rows of: ordinary tables that no extension brought.
_TABLES = """
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""


class Lock:
    """The right to back up one database, held by a session and gone with it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        if session.server.version >= 140000:
            # The session is idle while the dump runs, and must live as long as it.
            session.execute("SET idle_session_timeout = 0")

    def holder(self) -> Blocker | None:
        """Who holds it now; reads only."""
        rows = self._session.query(_HOLDER, LOCK)
        if not rows:
            return None
        pid, name, address, since = rows[0]
        return Blocker(
            object=self._session.settings.target,
            what="another backup of this database is running",
            holder=f"{name or 'a session'} (server process {pid}, from {address or 'the server itself'})",
            since=None if since is None else stamp(since),
            next_step="Wait for it to end, or end that session, and run again",
        )

    def take(self) -> Blocker | None:
        """Take it; None when taken, otherwise who has it."""
        if self._session.query("SELECT pg_catalog.pg_try_advisory_lock(%(class)s, %(object)s)", LOCK)[0][0]:
            return None
        return self.holder() or Blocker(
            object=self._session.settings.target,
            what="another backup of this database was running a moment ago",
            holder="a session that has ended since",
            next_step="Run again",
        )

    def assert_held(self) -> None:
        """An error if the session, and with it the lock, has been lost."""
        try:
            pids = [row[0] for row in self._session.query(_HOLDER, LOCK)]
        except driver_error() as error:
            raise sql_error(f"lock on {self._session.settings.target}", error) from error
        if self._session.server.pid not in pids:
            raise OpsError(
                obj=f"lock on {self._session.settings.target}",
                problem="it is not held any more (a connection pooler in between?)",
                next_step="Connect to the server itself and run again; nothing has been published",
            )


@dataclass(frozen=True)
class Rows:
    """Rows of one table in the snapshot."""

    schema: str
    name: str
    rows: int


class Snapshot:
    """A repeatable-read transaction whose snapshot pg_dump uses too, so that counts and dump are of one moment."""

    def __init__(self, settings: Settings, *, run_id: str) -> None:
        self._session = Session(settings, module="pg_backup", run_id=run_id)
        try:
            for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
                self._session.execute(f"SET {setting} = 0")
            # Rows that a policy would hide are an error here, as they are for pg_dump.
            self._session.execute("SET row_security = off")
            self._session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            row = self._session.query("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.now()")[0]
        except BaseException:
            self._session.close()
            raise
        self.name: str = row[0]
        self.taken_at: datetime = row[1]
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._counting: Future[list[Rows]] | None = None

    def count(self) -> Future[list[Rows]]:
        """Start counting every table's rows beside the dump."""
        self._counting = self._pool.submit(self._count)
        return self._counting

    def _count(self) -> list[Rows]:
        sql = require("psycopg2.sql", package="psycopg2-binary", why="to count rows")
        tables = self._session.query(_TABLES)
        found: list[Rows] = []
        for first in range(0, len(tables), TABLES_A_STATEMENT):
            chunk = tables[first : first + TABLES_A_STATEMENT]
            union = sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {}, pg_catalog.count(*) FROM ONLY {}").format(
                    sql.Literal(index), sql.Identifier(*table)
                )
                for index, table in enumerate(chunk)
            )
            counts = dict(self._session.query(union))
            found += [Rows(schema=schema, name=name, rows=counts[index]) for index, (schema, name) in enumerate(chunk)]
        return found

    def close(self) -> None:
        """End the transaction; a count that still runs is cancelled."""
        if self._counting is not None and not self._counting.done():
            # If the server is gone, so is the count; what made us stop is the error to tell.
            with contextlib.suppress(driver_error()):
                self._session.connection.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._session.close()


@dataclass(frozen=True)
class Programs:
    """The client programs, found and of a version that fits."""

    pg_dump: str
    pg_dumpall: str
    pg_restore: str
    zstd: str
    version: str


def find_decoders(bin_dir: str | None) -> tuple[str, str]:
    """``pg_restore`` and ``zstd``: what a verification needs."""
    return find_program("pg_restore", package="postgresql-client", directory=bin_dir), find_program(
        "zstd", package="zstd"
    )


def find_programs(session: Session, *, bin_dir: str | None, deadline: Deadline) -> Programs:
    """All programs; refused when pg_dump is older than the server, which it cannot dump."""
    pg_dump = find_program("pg_dump", package="postgresql-client", directory=bin_dir)
    said = run(Command((pg_dump, "--version")), deadline=deadline).decode("utf-8", "replace").strip()
    match = re.search(r"(\d+)(?:\.\d+|devel|beta\d|rc\d)?", said)
    server = session.server.version // 10000
    if match is None or int(match[1]) < server:
        raise Refusal(
            obj=pg_dump,
            problem=f"{said!r} cannot dump a server of version {server}",
            next_step=f"Install postgresql-client-{server} or newer, and name its folder in bin_dir",
        )
    pg_restore, zstd = find_decoders(bin_dir)
    return Programs(
        pg_dump=pg_dump,
        pg_dumpall=find_program("pg_dumpall", package="postgresql-client", directory=bin_dir),
        pg_restore=pg_restore,
        zstd=zstd,
        version=match[0],
    )


def client_settings(session: Session) -> Settings:
    """``session``'s settings bound to the one server that it reached: a snapshot exists on that server only."""
    info = session.connection.info
    return replace(session.settings, host=info.host, port=info.port)


def client_environment(settings: Settings, *, run_id: str) -> dict[str, str]:
    """The environment of a client program: connection and password here, so that nothing of it is on a command line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return (
        environment
        | settings.environment(primary=True)
        | {"PGAPPNAME": f"lowtide.ops pg_backup {run_id}", "LC_ALL": "C"}
    )


def dump_commands(
    programs: Programs, environment: dict[str, str], *, snapshot: str, lock_timeout: int
) -> list[Command]:
    """pg_dump, uncompressed, into zstd: measured 2.3 times as fast as pg_dump's own gzip, and smaller.

    The database's name is in the environment: as an argument libpq would take one with ``=`` for a connection string.
    """
    dump = Command(
        (
            programs.pg_dump,
            "-Fc",
            "-Z0",
            "--no-password",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={lock_timeout * 1000}",
        ),
        env=environment,
        next_step="Nothing has been published; correct what the message says and run again (a lock: end its holder, or raise lock_timeout)",
    )
    return [dump, Command((programs.zstd, "-1", "-T2", "-q", "-c"))]


def globals_command(programs: Programs, environment: dict[str, str], *, role_passwords: bool) -> Command:
    """pg_dumpall for roles and tablespaces, which a dump of one database lacks."""
    argv = (
        programs.pg_dumpall,
        "--globals-only",
        "--no-password",
        *(() if role_passwords else ("--no-role-passwords",)),
    )
    return Command(
        argv,
        env=environment,
        next_step="Give login_user the rights it lacks (role_passwords needs a superuser), and run again",
    )
