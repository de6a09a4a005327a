# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a MariaDB server what a database has, and what a dump of it would lack.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import re
import typing as t
from datetime import UTC

from .._common.errors import Refusal
from .._common.outcome import Blocker
from .._common.text import format_count, join_some
from .connection import quote_name, read_replication
from .manifest import ServerIdentity

if t.TYPE_CHECKING:
    from datetime import datetime

    from .connection import Session
    from .dump_text import Key

KINDS = {"BASE TABLE": "TABLE", "SYSTEM VERSIONED": "TABLE", "VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")

_TABLES = """
SELECT TABLE_NAME AS name, TABLE_TYPE AS type, ENGINE AS engine, CREATE_TIME AS created, TABLE_COMMENT AS comment
  FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
"""
_OWN_TABLES = """
SELECT TABLE_NAME AS name FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') ORDER BY TABLE_NAME
"""
_TRANSACTIONAL = "SELECT ENGINE AS engine FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES'"
_DEFINITIONS = """
SELECT ROUTINE_TYPE AS kind, ROUTINE_NAME AS name,
       CONCAT_WS(' ', DEFINER, LAST_ALTERED, MD5(ROUTINE_DEFINITION)) AS state
  FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s
UNION ALL
SELECT 'TRIGGER', TRIGGER_NAME, CONCAT_WS(' ', DEFINER, CREATED, MD5(ACTION_STATEMENT))
  FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
UNION ALL
SELECT 'EVENT', EVENT_NAME, CONCAT_WS(' ', DEFINER, LAST_ALTERED, STATUS)
  FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s
UNION ALL
SELECT 'VIEW', TABLE_NAME, CONCAT_WS(' ', DEFINER, SECURITY_TYPE, MD5(VIEW_DEFINITION))
  FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s
"""
_SCHEMA = """
SELECT DEFAULT_CHARACTER_SET_NAME AS charset, DEFAULT_COLLATION_NAME AS collation, SCHEMA_COMMENT AS comment
  FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s
"""
_REPLICATED_EVENTS = """
SELECT EVENT_NAME AS name FROM information_schema.EVENTS
 WHERE EVENT_SCHEMA = %s AND STATUS NOT IN ('ENABLED', 'DISABLED') ORDER BY EVENT_NAME
"""
_GRANT = re.compile(r"GRANT (?P<rights>.+) ON (?P<object>\S.*?) TO ")
NEEDED = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")


class Schema(t.NamedTuple):
    """A database: its defaults, and its comment."""

    charset: str
    collation: str
    comment: str


def read_schema(session: Session, database: str) -> Schema | None:
    """Ask for a database; None where there is none that this account may see."""
    rows = session.query(_SCHEMA, [database])
    return Schema(**rows[0]) if rows else None


def require_schema(session: Session, database: str) -> Schema:
    """Ask for a database that has to be there."""
    schema = read_schema(session, database)
    if schema is None:
        raise Refusal(
            obj=f"database {database} on {session.settings.target}",
            problem="it is not there, or this account has no right in it",
            next_step="Correct database, or give login_user the rights of docs/mysql-rights.sql",
        )
    return schema


def list_tables(session: Session, database: str) -> list[str]:
    """Return the names of tables and sequences, which is what a rename moves; none where there is no such database."""
    return [row["name"] for row in session.query(_OWN_TABLES, [database])]


def read_clock(session: Session) -> datetime:
    """Ask for the server's clock, in UTC."""
    now: datetime = session.query("SELECT UTC_TIMESTAMP(6) AS now")[0]["now"]
    return now.replace(tzinfo=UTC)


def read_identity(session: Session) -> ServerIdentity:
    """Ask which server this is. Only newer releases have a server_uid."""
    rows = session.query("SHOW GLOBAL VARIABLES LIKE 'server_uid'")
    server = session.server
    return ServerIdentity(f"{server.hostname}:{server.port}", server.server_id, str(rows[0]["Value"]) if rows else "")


def read_objects(session: Session, database: str) -> dict[Key, str]:
    """Return everything in a database, each with what changes when it is redefined.

    Two readings that are equal tell that no DDL came between them.
    """
    objects: dict[Key, str] = {}
    for row in session.query(_TABLES, [database]):
        kind = KINDS.get(row["type"])
        if kind == "TABLE":
            shown = session.query(f"SHOW CREATE TABLE {quote_name(database)}.{quote_name(row['name'])}")[0]
            text = _COUNTER.sub("", str(shown["Create Table"]))
            state = f"{row['created']} {hashlib.sha256(text.encode()).hexdigest()}"
            objects[kind, row["name"]] = state
        elif kind == "SEQUENCE":
            objects[kind, row["name"]] = str(row["created"])
    for row in session.query(_DEFINITIONS, [database] * 4):
        objects[row["kind"], row["name"]] = str(row["state"])
    return objects


def explain_ddl(before: t.Mapping[Key, str], after: t.Mapping[Key, str]) -> list[str]:
    """Return what was made, redefined or dropped between two readings."""
    changed: list[str] = []
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            how = "made" if key not in before else "dropped" if key not in after else "redefined"
            changed.append(f"{key[0].lower()} {key[1]} ({how})")
    return changed


def refuse_tables(session: Session, database: str) -> None:
    """Refuse a database of which no consistent dump can be made, and name what stands in the way."""
    engines = {row["engine"].lower() for row in session.query(_TRANSACTIONAL)}
    rows = session.query(_TABLES, [database])
    obj = f"database {database} on {session.settings.target}"
    broken = [
        row["name"] for row in rows if row["engine"] is None and row["type"] in ("BASE TABLE", "SYSTEM VERSIONED")
    ]
    if broken:
        names = [f"{row['name']} ({row['comment']})" for row in rows if row["name"] in broken]
        raise Refusal(
            obj=obj,
            problem=f"{format_count(len(broken), 'table')} cannot be opened: {join_some(names)}",
            next_step="Repair or drop them; a dump would end there",
        )
    plain = [
        f"{row['name']} ({row['engine']})"
        for row in rows
        if row["type"] in KINDS and row["type"] != "VIEW" and str(row["engine"]).lower() not in engines
    ]
    if plain:
        raise Refusal(
            obj=obj,
            problem=f"{format_count(len(plain), 'table')} without transactions, whose rows would not be of the dump's"
            f" snapshot: {join_some(plain, limit=20)}",
            next_step="Convert them (ALTER TABLE ... ENGINE=InnoDB), or keep them in another database",
        )
    versioned = [row["name"] for row in rows if row["type"] == "SYSTEM VERSIONED"]
    if versioned:
        raise Refusal(
            obj=obj,
            problem=f"the history of system-versioned tables would be lost: {join_some(versioned)}",
            next_step="Back up the server by mariadb-backup, or keep these tables in another database",
        )
    odd = [row["name"] for row in rows if any(ord(char) < 0x20 for char in row["name"])]
    if odd:
        raise Refusal(
            obj=obj,
            problem=f"names with a control character cannot be told in a dump: {join_some(list(map(repr, odd)))}",
            next_step="Rename these tables",
        )
    if not any(row["type"] == "BASE TABLE" for row in rows):
        raise Refusal(obj=obj, problem="it has no table", next_step="Correct database; there is nothing to back up")


def refuse_replicated_events(session: Session, database: str) -> None:
    """Refuse a replica's events: all of them are off there, and nothing tells which of them the primary has off."""
    names = [row["name"] for row in session.query(_REPLICATED_EVENTS, [database])]
    if names:
        raise Refusal(
            obj=f"database {database} on {session.settings.target}",
            problem=f"{format_count(len(names), 'event')} of it would be off after a restore, as on this replica"
            f" (SLAVESIDE_DISABLED): {join_some(names, limit=20)}",
            next_step="Dump the primary (source primary), which knows which of its events are enabled",
        )


def refuse_replica(session: Session) -> None:
    """Refuse to write on a server that follows another one, whose changes could no longer be done there."""
    followed = read_replication(session)
    if not followed and not session.server.read_only:
        return
    problem = "it is read only"
    if followed:
        names = [f"{row.get('Master_Host')}:{row.get('Master_Port')}" for row in followed]
        problem = f"it is a replica of {join_some(names)}, and a restore on it would part it from there"
    raise Refusal(
        obj=session.settings.target,
        problem=problem,
        next_step="Restore on the primary; or make it a server of its own first (STOP ALL REPLICAS, RESET REPLICA ALL,"
        " read_only OFF)",
    )


def find_rights(grants: t.Iterable[str], database: str) -> tuple[set[str], bool, set[str]]:
    """Return from SHOW GRANTS the rights in ``database``, whether mysql.proc may be read, and the global rights."""
    own: set[str] = set()
    everywhere: set[str] = set()
    reads_routines = False
    for text in grants:
        match = _GRANT.match(text)
        if match is None:
            continue
        rights = {right.strip() for right in match["rights"].split(",")}
        if "ALL PRIVILEGES" in rights:
            rights |= {*NEEDED, "BINLOG MONITOR", "REPLICA MONITOR", "PROCESS"}
        obj = match["object"]
        if obj == "*.*":
            everywhere |= rights
            own |= rights
            reads_routines = reads_routines or "SELECT" in rights
        elif obj in ("`mysql`.`proc`", "`mysql`.*"):
            reads_routines = reads_routines or "SELECT" in rights
        elif obj.endswith(".*") and matches_pattern(obj[:-2].strip("`").replace("``", "`"), database):
            own |= rights
    return own, reads_routines, everywhere


def matches_pattern(pattern: str, name: str) -> bool:
    """Return whether a name in a grant means ``name``: ``_`` and ``%`` are wild unless a backslash precedes."""
    expression = ""
    for part in re.findall(r"\\.|.", pattern, re.DOTALL):
        wild = {"_": ".", "%": ".*"}.get(part)
        expression += wild or re.escape(part[1:] if len(part) == 2 else part)
    return re.fullmatch(expression, name, re.DOTALL) is not None


def refuse_lacking(session: Session, database: str, *, needs_log: bool, blockers: list[Blocker]) -> None:
    """Refuse an account whose dump would lack something: each missing right is a blocker with its statement."""
    rows = session.query("SHOW GRANTS")
    grants = [str(next(iter(row.values()))) for row in rows]
    own, reads_routines, everywhere = find_rights(grants, database)
    account = session.query("SELECT CURRENT_USER() AS account")[0]["account"]
    user, _at, host = str(account).rpartition("@")
    grantee = f"{quote_name(user)}@{quote_name(host)}"
    scope = quote_name(database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))
    lacking = [
        (f"{right} in {database}", f"GRANT {right} ON {scope}.* TO {grantee}") for right in NEEDED if right not in own
    ]
    if not reads_routines:
        lacking.append(
            ("SELECT on mysql.proc, without which routines are left out", f"GRANT SELECT ON mysql.proc TO {grantee}")
        )
    if needs_log and not everywhere & {"BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"}:
        lacking.append(("BINLOG MONITOR", f"GRANT BINLOG MONITOR ON *.* TO {grantee}"))
    if not lacking:
        return
    blockers += [
        Blocker(object=f"account {account}", what=f"it lacks {what}", holder="", next_step=statement)
        for what, statement in lacking
    ]
    raise Refusal(
        obj=f"account {account} on {session.settings.target}",
        problem=f"a dump by it would lack something: it has not {join_some([what for what, _statement in lacking])}",
        next_step="; ".join(statement for _what, statement in lacking),
    )
