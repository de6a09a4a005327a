# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock, name and snapshot the database of a backup. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import socket
import typing as t

from .._backup.manifest import Identity, name_members, name_server, stamp
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker
from .._postgresql.connection import Session, Settings, driver_error, new_run_id
from .._postgresql.errors import sql_error, sqlstate
from .._postgresql.locks import LOCK_CLASS, AdvisoryLock, LockKey
from .copy_rows import Expected, Table
from .held_tables import hold_tables

if t.TYPE_CHECKING:
    from datetime import datetime

LOCK = {"class": LOCK_CLASS, "object": int(LockKey.BACKUP)}
"""The advisory lock of backups. Advisory locks are per database already."""

_HOLDER = """
SELECT a.pid, a.application_name, pg_catalog.host(a.client_addr), a.backend_start
  FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
   AND l.classid = %(class)s AND l.objid = %(object)s
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
NOT_IN_PREREQUISITE_STATE = "55000"
# Tables whose rows pg_dump dumps in any case: ordinary ones that no extension brought. One that lies in the schema of an
# extension and is not the extension's own, as a chunk of TimescaleDB does, is dumped as well. Names as bytes of the database's
# own encoding, which is that of the dump. Hashes of an enum differ between databases, so pg_dump has the partitions of a
# table that is divided by them restored by the name of that table, the root of the tree.
_TABLES = """
SELECT pg_catalog.convert_to(n.nspname::text, pg_catalog.getdatabaseencoding()),
       pg_catalog.convert_to(c.relname::text, pg_catalog.getdatabaseencoding()),
       pg_catalog.convert_to(rn.nspname::text, pg_catalog.getdatabaseencoding()),
       pg_catalog.convert_to(r.relname::text, pg_catalog.getdatabaseencoding())
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class r
    ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
       AND EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a
                     JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relid
                     JOIN pg_catalog.pg_opclass o ON o.oid = ANY (p.partclass)
                     JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
                    WHERE o.opcname = 'enum_ops' AND m.amname = 'hash')
  LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence = ANY (%(persistence)s)
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
# How much there is to dump: heap and TOAST, without indexes. Large objects are dumped with the main stream.
_SIZES = """
SELECT pg_catalog.convert_to(n.nspname::text, pg_catalog.getdatabaseencoding()),
       pg_catalog.convert_to(c.relname::text, pg_catalog.getdatabaseencoding()),
       coalesce(pg_catalog.pg_table_size(c.oid), 0)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence = ANY (%(persistence)s)
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
UNION ALL
SELECT 'pg_catalog'::bytea, 'pg_largeobject'::bytea, pg_catalog.pg_table_size('pg_catalog.pg_largeobject')
"""
_END_PROGRAMS = """
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND usename = session_user AND application_name = %(name)s
   AND pid <> pg_catalog.pg_backend_pid()
"""
# A superuser is held by neither limit. The limit of the server is not known to be free before a connection is tried.
_CONNECTION_LIMITS = """
SELECT CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit END AS role_limit,
       CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit END AS database_limit
  FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
 WHERE r.rolname = session_user AND NOT r.rolsuper AND d.datname = pg_catalog.current_database()
"""
# The control file knows a new timeline only from its next checkpoint on, hence the name of the file that is written now.
_TIMELINE = """
SELECT ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int
"""
_CHECKPOINT_TIMELINE = "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()"
# The moment that the data of a standby is of: it has at least the last transaction that it has replayed since its start, and
# what the primary had at the last checkpoint that it knows. That it has replayed all that it received proves nothing: the
# standby that it receives from may be cut off itself. Only the primary knows, if it is asked for its position just before.
_STANDBY_MOMENT = """
SELECT CASE WHEN is_current THEN greatest(at_least, %(asked_at)s::pg_catalog.timestamptz) ELSE at_least END AS moment, is_current, is_paused
  FROM (SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn() >= %(position)s::pg_catalog.pg_lsn, false) AS is_current,
               pg_catalog.pg_is_wal_replay_paused() AS is_paused,
               greatest(pg_catalog.pg_last_xact_replay_timestamp(), checkpoint_time) AS at_least
          FROM pg_catalog.pg_control_checkpoint()) AS standby
"""
_POSITION = "SELECT pg_catalog.pg_current_wal_lsn()::text AS position, pg_catalog.now() AS asked_at"
_PRIMARY_MOMENT = "SELECT pg_catalog.now() AS moment, true AS is_current, false AS is_paused"
# Which of the servers behind a name this is, and since when it runs.
_SERVER = """
SELECT pg_catalog.host(pg_catalog.inet_server_addr()) AS address, pg_catalog.pg_postmaster_start_time() AS started_at
"""


class Reached(t.NamedTuple):
    """The server that a session has reached: its own address (None: by a socket), and when it was started."""

    address: str | None
    started_at: datetime

    def explain_other(self, other: Reached) -> str | None:
        """Return why ``other``, reached by the same name, is another server; None when it is this one."""
        if self == other:
            return None
        words = " and ".join(
            f"{server.address or 'a socket'} (started {stamp(server.started_at)})" for server in (self, other)
        )
        return f"its name leads to several servers: {words}"


def read_reached(session: Session) -> Reached:
    """Ask which server a session has reached."""
    return session.read(Reached, _SERVER)[0]


def read_identity(session: Session) -> Identity:
    """Ask which server this is: every name by which it may be reached, and its timeline."""
    reached = name_reached(session)
    names = name_members(
        session.settings.hosts,
        session.connection.info.port,
        address=session.server.address,
        reached=reached,
        node=platform.node(),
    )
    return Identity(hosts=names, timeline=read_timeline(session), reached=reached)


def read_clock(session: Session) -> datetime:
    """Ask for the server's clock, by which backups are dated."""
    now: datetime = session.query("SELECT pg_catalog.clock_timestamp()")[0][0]
    return now


def read_timeline(session: Session) -> int:
    """Ask for the timeline that is written or replayed now.

    Amazon Aurora does not tell its position in the log below wal_level logical; the last checkpoint has to do there.
    """
    if not session.server.in_recovery:
        try:
            return int(session.query(_TIMELINE)[0][0])
        except driver_error() as error:
            if sqlstate(error) != NOT_IN_PREREQUISITE_STATE:
                raise
    return int(session.query(_CHECKPOINT_TIMELINE)[0][0])


def name_reached(session: Session) -> tuple[str, ...]:
    """Return the names of the one server that was reached: as it was asked for, and its own address."""
    info, server_port = session.connection.info, session.query("SELECT pg_catalog.inet_server_port()")[0][0]
    return name_server(
        info.host,
        info.port,
        address=session.server.address,
        server_port=server_port,
        node=platform.node(),
        peer=read_peer(session.connection.fileno()),
    )


def read_peer(descriptor: int) -> str | None:
    """Return the address that a connection goes to; None for a socket of the machine itself."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        peer = connection.getpeername()
    if not isinstance(peer, tuple):
        return None
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


NAME_ONE_SERVER = (
    "Name one server in login_host, by its address or a name of its own: a snapshot exists on one server only"
)


def end_programs(session: Session, name: str) -> None:
    """End the server sessions of client programs that were killed: one that waits for a lock would not notice it by itself."""
    # A connection that is lost, too, is part of the failure that has led here and is told.
    with contextlib.suppress(driver_error()):
        session.query(_END_PROGRAMS, {"name": name})


class ConnectionLimits(t.NamedTuple):
    """How many connections the role and the database may have; None: any number."""

    role_limit: int | None
    database_limit: int | None

    def explain_lack(self, needed: int) -> str | None:
        """Return which of them is lower than ``needed``; None where there are enough."""
        for name, limit in (("login_user", self.role_limit), ("the database", self.database_limit)):
            if limit is not None and limit < needed:
                return f"{needed} connections are needed, and the CONNECTION LIMIT of {name} is {limit}"
        return None


def count_connections(jobs: int) -> int:
    """Return how many connections a run has at once: a stream each, one for its lock and one for its snapshot."""
    return jobs + 2


def refuse_few_connections(session: Session, jobs: int) -> None:
    """Refuse a number of streams for which the role or the database may never have connections enough."""
    for limits in session.read(ConnectionLimits, _CONNECTION_LIMITS):
        problem = limits.explain_lack(count_connections(jobs))
        if problem is not None:
            raise Refusal(
                obj=session.settings.target,
                problem=problem,
                next_step="Lower jobs, or raise that limit (ALTER ROLE, or ALTER DATABASE, ... CONNECTION LIMIT), and"
                " run again",
            )


class DataMoment(t.NamedTuple):
    """What moment a server's data is of. A standby that is not current, because it is paused or lags, has it only so far."""

    moment: datetime
    is_current: bool
    is_paused: bool


class Position(t.NamedTuple):
    """How far the primary had written, and when it said so, by its clock; all None where no primary could be asked."""

    position: str | None = None
    asked_at: datetime | None = None


def ask_primary(session: Session) -> Position:
    """Ask the primary how far it has written, where a standby is read and login_host names further members."""
    if not session.server.in_recovery or len(session.settings.hosts) == 1:
        return Position()
    try:
        with Session(session.settings, module="pg_backup", run_id=new_run_id(), writes=False) as primary:
            if primary.server.system_identifier != session.server.system_identifier:
                return Position()
            return primary.read(Position, _POSITION)[0]
    except (OpsError, driver_error()):
        # A standby is dumped also while there is no primary: then its data is dated by what it has replayed.
        return Position()


def read_moment(session: Session, position: Position) -> DataMoment:
    """Ask what moment the data is of that ``session`` reads; of a standby, given the ``position`` of its primary before."""
    if session.server.in_recovery:
        return session.read(DataMoment, _STANDBY_MOMENT, position._asdict())[0]
    return session.read(DataMoment, _PRIMARY_MOMENT)[0]


def read_size(session: Session) -> int:
    """Ask for the bytes of the database."""
    return int(session.query("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")[0][0])


class Lock:
    """The right to back up one database, held by a session and gone with it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def holder(self) -> Blocker | None:
        """Read who holds it now."""
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
        if AdvisoryLock(self._session, LockKey.BACKUP).try_acquire():
            return None
        return self.holder() or Blocker(
            object=self._session.settings.target,
            what="another backup of this database was running a moment ago",
            holder="a session that has ended since",
            next_step="Run again",
        )

    def assert_held(self) -> None:
        """Raise if the session, and with it the lock, has been lost."""
        try:
            pids = [row[0] for row in self._session.query(_HOLDER, LOCK)]
        except driver_error() as error:
            raise sql_error(f"lock on {self._session.settings.target}", error) from error
        if self._session.server.pid not in pids:
            raise OpsError(
                obj=f"lock on {self._session.settings.target}",
                problem="it is not held any more",
                next_step="See in the server's log who ended the session that held it, and run again; nothing has been published",
            )


class Snapshot:
    """A repeatable-read transaction whose snapshot pg_dump uses too, so that the list of tables is of its moment.

    It reads the catalog only: counting would lock each index, too. The tables are locked as pg_dump locks them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_id: str,
        is_standby: bool,
        reached: Reached,
        position: Position,
        lock_timeout: int,
    ) -> None:
        self._session = Session(settings, module="pg_backup", run_id=run_id, primary=not is_standby, writes=False)
        try:
            problem = reached.explain_other(read_reached(self._session))
            if problem is not None:
                raise Refusal(obj=settings.target, problem=problem, next_step=NAME_ONE_SERVER)
            # Rows of unlogged tables are on the primary only.
            self._persistence = {"persistence": ["p"] if is_standby else ["p", "u"]}
            hold_tables(self._session, self._persistence["persistence"], lock_timeout=lock_timeout)
            self.data = read_moment(self._session, position)
            self.name: str = self._session.query("SELECT pg_catalog.pg_export_snapshot()")[0][0]
        except BaseException:
            self._session.close()
            raise
        self.taken_at: datetime = self.data.moment

    def list_tables(self) -> list[Expected]:
        """List the tables that the dump must have."""
        return [
            Expected((bytes(schema), bytes(name)), None if root is None else (bytes(root_schema), bytes(root)))
            for schema, name, root_schema, root in self._session.query(_TABLES, self._persistence)
        ]

    def list_sizes(self) -> dict[Table, int]:
        """Return the bytes of each table."""
        rows = self._session.query(_SIZES, self._persistence)
        return {(bytes(schema), bytes(name)): int(size) for schema, name, size in rows}

    def is_alive(self) -> bool:
        """Return whether the transaction, and with it the snapshot, is still there: the server may have ended it."""
        return self._session.is_alive()

    def close(self) -> None:
        """End the transaction."""
        self._session.close()
