# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases beside the live one, and the mark that says they are ours. Private to lowtide.ops: do not import from other collections.

The mark is the last line of the database's comment, and so belongs to the object and goes where it goes. A database cannot
be created with a comment, so it is created with a connection limit that nobody else gives, and the mark takes its place
in the next transaction: a run that is killed in between is recognised by the next one.
"""

from __future__ import annotations

import json
import typing as t
import zlib

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .._postgresql.locks import LOCK_CLASS
from .._postgresql.names import quote

if t.TYPE_CHECKING:
    from .._postgresql.connection import Session

MARK = "lowtide.ops pg_restore "
MARK_LIMIT = LOCK_CLASS
"""The connection limit of a database that was created by us and has no mark so far."""
INVALID = -2
"""The connection limit of a database that an interrupted DROP DATABASE has left: nobody comes in, and only DROP ends it."""
NAME_BYTES = 63
LOCALE_PROVIDER = 150000
"""The first version that knows that option, which newer programs write in any case."""
END_MILLISECONDS = 10000

RESTORING, RESTORED, LIVE, ORIGINAL = "restoring", "restored", "live", "original"

_DATABASES = """
SELECT d.oid::bigint AS oid, d.datname::text AS name, r.rolname::text AS owner,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment, d.datconnlimit AS connection_limit,
       d.datallowconn AS allows_connections
  FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
 WHERE d.datname::text = ANY (%(names)s)
"""
# What a pooler keeps of a client that has left: of the account itself, idle, and without the name that each client gives.
# Who may not read all statistics sees of others the process, the user and the application; background workers have no user.
_SESSIONS = """
SELECT pid, usename::text AS user, application_name AS application,
       coalesce(pg_catalog.host(client_addr),
                CASE WHEN backend_start IS NULL THEN 'where only pg_read_all_stats may see' ELSE 'the server itself' END) AS client,
       backend_start::text AS since, coalesce(usename = session_user AND state = 'idle' AND application_name = '', false) AS is_left
  FROM pg_catalog.pg_stat_activity
 WHERE datname::text = %(name)s AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL
UNION ALL
SELECT NULL, owner::text, 'prepared transaction ' || gid, 'nowhere', prepared::text, false
  FROM pg_catalog.pg_prepared_xacts WHERE database::text = %(name)s
 ORDER BY 1
"""
_END_POOLED = """
SELECT pg_catalog.pg_terminate_backend(pid, %(milliseconds)s) FROM pg_catalog.pg_stat_activity
 WHERE datname::text = %(name)s AND pid <> pg_catalog.pg_backend_pid()
   AND usename = session_user AND state = 'idle' AND application_name = ''
"""
# Of a superuser only a superuser ends a session, and what the server or an extension has started is none of a client. Who may
# not read all statistics does not see what kind a session is.
_UNENDABLE = """
SELECT a.pid FROM pg_catalog.pg_stat_activity a
  JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid JOIN pg_catalog.pg_roles me ON me.rolname = session_user
 WHERE a.datname::text = %(name)s AND a.pid <> pg_catalog.pg_backend_pid()
   AND (coalesce(a.backend_type, 'client backend') NOT IN ('client backend', 'parallel worker')
        OR NOT (me.rolsuper OR (NOT r.rolsuper AND (pg_catalog.pg_has_role(session_user, r.oid, 'USAGE')
                                                    OR pg_catalog.pg_has_role(session_user, 'pg_signal_backend', 'USAGE')))))
"""
_TABLES = """
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) > 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e') ORDER BY 1, 2
"""
_NOW = """SELECT to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""


class Mark(t.NamedTuple):
    """What we have noted on a database: of which backup of which database it is, and how far it got.

    ``oid`` and ``system`` say which database of which cluster, once it is whole: a dump takes the comment along, so that
    another database may have it too. ``since`` is when it was found equal to its backup, and of a live one when it took its place.
    """

    backup: str
    database: str
    state: str
    tables: tuple[str, ...] = ()
    schema_version: int = 1
    oid: int = 0
    system: str = ""
    since: str = ""

    def write(self, comment: str | None) -> str:
        """Return the comment with this mark as its last line."""
        own = read_comment(comment)[0]
        line = MARK + json.dumps(
            {"format": self.schema_version, "backup": self.backup, "database": self.database, "state": self.state}
            | ({"tables": list(self.tables)} if self.tables else {})
            | ({"oid": self.oid, "system": self.system, "since": self.since} if self.oid else {}),
            sort_keys=True,
        )
        return f"{own}\n{line}" if own else line


def read_comment(comment: str | None) -> tuple[str, Mark | None]:
    """Return a person's part of a comment and our mark in it."""
    own, _newline, last = (comment or "").rpartition("\n")
    if not last.startswith(MARK):
        return comment or "", None
    try:
        document = json.loads(last[len(MARK) :])
        mark = Mark(
            str(document["backup"]),
            str(document["database"]),
            str(document["state"]),
            tuple(str(table) for table in document.get("tables", [])),
            int(document["format"]),
            int(document.get("oid", 0)),
            str(document.get("system", "")),
            str(document.get("since", "")),
        )
    except (ValueError, KeyError, TypeError):
        return comment or "", None
    return own, mark if mark.schema_version == 1 else None


class Database(t.NamedTuple):
    """A database of the server."""

    oid: int
    name: str
    owner: str
    comment: str | None
    connection_limit: int
    allows_connections: bool

    @property
    def mark(self) -> Mark | None:
        """Return our mark on it; None where it is not ours."""
        return read_comment(self.comment)[1]

    def find_live_since(self, run: str, *, system: str) -> str | None:
        """Return when a backup has taken its place; None where this is not the very database that did."""
        mark = self.mark
        is_it = mark is not None and (mark.backup, mark.database, mark.state) == (run, self.name, LIVE)
        return mark.since if mark is not None and is_it and (mark.oid, mark.system) == (self.oid, system) else None

    def is_restored(self, expected: Mark, *, system: str) -> bool:
        """Return whether it is the very database that was restored whole, as a mark says that is to be there."""
        mark = self.mark
        is_it = mark is not None and mark._replace(since="") == expected._replace(oid=self.oid, system=system)
        return is_it and not self.is_invalid

    @property
    def is_invalid(self) -> bool:
        """Return whether an interrupted DROP DATABASE has left it: part of its files may be gone."""
        return self.connection_limit == INVALID

    @property
    def is_unmarked(self) -> bool:
        """Return whether a run of ours has created it and came no further."""
        return self.connection_limit == MARK_LIMIT and self.mark is None


class ClientSession(t.NamedTuple):
    """Who is connected to a database; ``pid`` is None of a prepared transaction.

    ``is_left``: a pooler may have kept it of a client of this account that has left.
    """

    pid: int | None
    user: str
    application: str
    client: str
    since: str | None
    is_left: bool

    def describe(self) -> str:
        """Return it as a person reads it."""
        who = f"user {self.user}, application {self.application or 'without a name'}, from {self.client}"
        return who if self.pid is None else f"pid {self.pid}, {who}"


def find_lock_key(database: str) -> int:
    """Return the key of the advisory lock of restores of a database: beyond all of LockKey, and an int4."""
    return zlib.crc32(database.encode()) & 0x3FFFFFFF | 0x40000000


def name_database(database: str, purpose: str, run: str) -> str:
    """Return the name of a database that belongs to a backup: that of its own, cut to what fits, what it is, and the run.

    >>> name_database("shop", "restore", "20261121T020000Z-5f1c2a77")
    'shop_restore_20261121t020000z_5f1c2a77'
    """
    tail = f"_{purpose}_{run.lower().replace('-', '_')}"
    head = database.encode()[: NAME_BYTES - len(tail)].decode("utf-8", "ignore")
    return head + tail


def read_databases(session: Session, *names: str) -> dict[str, Database]:
    """Return those of ``names`` that are databases of this server."""
    return {entry.name: entry for entry in session.read(Database, _DATABASES, {"names": list(names)})}


def read_time(session: Session) -> str:
    """Return the time of the server, UTC."""
    return str(session.query(_NOW)[0][0])


def list_sessions(session: Session, name: str) -> list[ClientSession]:
    """Return who is connected to a database."""
    return session.read(ClientSession, _SESSIONS, {"name": name})


def block_sessions(name: str, sessions: t.Iterable[ClientSession]) -> list[Blocker]:
    """Return a blocker for each of the sessions on a database."""
    return [
        Blocker(
            object=f"database {name}",
            what="somebody is connected to it",
            holder=entry.describe(),
            since=entry.since,
            next_step=f"SELECT pg_terminate_backend({entry.pid})"
            if entry.pid is not None
            else "COMMIT PREPARED or ROLLBACK PREPARED it in that database",
        )
        for entry in sessions
    ]


def refuse_sessions(session: Session, name: str, blockers: list[Blocker], *, own: str) -> None:
    """Refuse to rename or drop a database that somebody is connected to; each of them becomes a blocker.

    Sessions of this run, whose application begins with ``own``, are closed, and the server waits some seconds for their
    ends. What a pooler keeps of the account's own sessions is ended before the names are exchanged.
    """
    sessions = [
        entry
        for entry in list_sessions(session, name)
        if not (own and entry.application.startswith(own)) and not (entry.is_left and session.is_pooled)
    ]
    if not sessions:
        return
    blockers += block_sessions(name, sessions)
    raise Refusal(
        obj=f"database {name}",
        problem=f"{len(sessions)} sessions are connected to it: {sessions[0].describe()}",
        next_step="Stop the applications that use it (lowtide.ops.shutdown), or shut it yourself (ALTER DATABASE ..."
        " ALLOW_CONNECTIONS false) and end their sessions, or set sessions to end; then run again",
    )


def refuse_foreign(found: Database, *, expected: Mark) -> None:
    """Refuse a database of a name of ours that no run of ours has made for this backup."""
    if found.is_unmarked:
        return
    mark = found.mark
    if mark is None:
        problem = "there is a database of that name, and no run of this module has made it"
    elif (mark.backup, mark.database) != (expected.backup, expected.database):
        problem = f"it is of backup {mark.backup} of {mark.database}, not of {expected.backup} of {expected.database}"
    elif mark.state not in (RESTORING, RESTORED):
        problem = f"it is marked as {mark.state}, not as a restored copy"
    else:
        return
    raise Refusal(
        obj=f"database {found.name}",
        problem=problem,
        next_step="It is left alone. Look what it is, and rename or drop it by hand; then run again",
    )


def list_filled(session: Session) -> list[tuple[str, str]]:
    """Return the tables of the database of this session that have rows, but those of extensions."""
    return [
        (schema, name)
        for schema, name in session.query(_TABLES)
        if session.query(f"SELECT 1 FROM ONLY {quote(schema, name)} LIMIT 1")  # noqa: S608 - quoted names of the catalog
    ]


def refuse_other(found: Database, *, expected: Mark, system: str) -> None:
    """Refuse to drop a copy that is complete and not the one that is wanted: somebody may have worked in it."""
    mark = found.mark
    if mark is None or mark.state != RESTORED or found.is_invalid or found.is_restored(expected, system=system):
        return
    what = f"has the rows of {', '.join(mark.tables)} only" if mark.tables else "is a whole one"
    raise Refusal(
        obj=f"database {found.name}",
        problem=f"it {what}, was restored by an earlier run, and is not what is asked for now; somebody may have worked in it",
        next_step="Remove it first, once nobody needs what is in it (state: absent), or rename it; then run again",
    )


def refuse_unendable(session: Session, name: str, blockers: list[Blocker]) -> None:
    """Refuse to end the sessions on a database where not all of them can be ended: the others would be lost for nothing."""
    pids = {row[0] for row in session.query(_UNENDABLE, {"name": name})}
    sessions = [entry for entry in list_sessions(session, name) if entry.pid is None or entry.pid in pids]
    if not sessions:
        return
    blockers += block_sessions(name, sessions)
    raise Refusal(
        obj=f"database {name}",
        problem=f"of the sessions on it {len(sessions)} could not be ended by this account, so none is: {sessions[0].describe()}",
        next_step="End what blocks it by hand (of a superuser only a superuser can), or GRANT pg_signal_backend; then run again",
    )


def end_pooled(session: Session, name: str) -> None:
    """End what a pooler has kept of the sessions of this account in a database of ours; without a pooler there is nothing."""
    if session.is_pooled:
        session.query(_END_POOLED, {"name": name, "milliseconds": END_MILLISECONDS})


def create_database(session: Session, statement: str) -> None:
    """Create a database by a statement of its dump that names the copy already; it is recognised as ours from then on."""
    if session.server.version < LOCALE_PROVIDER:
        statement = statement.replace(" LOCALE_PROVIDER = libc", "", 1)
    session.execute(f"{statement.rstrip().rstrip(';')} CONNECTION LIMIT = {MARK_LIMIT}")


def set_mark(session: Session, name: str, mark: Mark, *, comment: str | None) -> None:
    """Write a mark behind the comment of a database."""
    session.execute(
        f"COMMENT ON DATABASE {quote(name).replace('%', '%%')} IS %(comment)s", {"comment": mark.write(comment)}
    )


def drop_database(session: Session, name: str, *, end_sessions: bool) -> None:
    """Drop a database; with its sessions, which are our own, where asked."""
    session.execute(f"DROP DATABASE {quote(name)}" + (" WITH (FORCE)" if end_sessions else ""))
