# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold the tables of a dump before its snapshot is taken. Private to lowtide.ops: do not import from other collections.

TRUNCATE and those forms of ALTER TABLE that write a table anew are not MVCC-safe (PostgreSQL's documentation, "Caveats" of
concurrency control): who reads with a snapshot from before finds the table empty. pg_dump takes its snapshot first and
its locks later, and waits for a TRUNCATE that is under way; what it then writes is an empty table, without a word.
"""

from __future__ import annotations

import typing as t

from .._common.errors import OpsError
from .._postgresql.blockers import read_lock_holders
from .._postgresql.connection import Session, driver_error
from .._postgresql.errors import LOCK_NOT_AVAILABLE, sql_error, sqlstate

ATTEMPTS = 5
BATCH = 500
"""Tables of one LOCK statement, whose text the server parses whole."""

AGAIN = {"42P01", "3F000", "40P01"}
"""A table, or its schema, has been dropped or renamed since it was listed; or two wait for each other's locks."""
# Names as bytes of the encoding that a statement is sent in. A database of SQL_ASCII converts nothing in either direction.
_LISTED = """
SELECT c.oid::bigint, convert_to(pg_catalog.format('%%I.%%I', n.nspname, c.relname),
         CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE pg_catalog.pg_client_encoding() END),
       c.relkind = 'r' AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence = ANY (%(persistence)s)
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""


class BeginAnew(Exception):
    """The tables cannot be locked as they were listed."""


def hold_tables(session: Session, persistence: t.Sequence[str], *, lock_timeout: int) -> None:
    """Begin a transaction that reads all from one moment, at which no table is being emptied or written anew.

    Each table is locked as pg_dump does it, before the moment is chosen; what came in between is locked afterwards, and
    must not have been written anew since. The locks are held until the transaction ends.
    """
    values = {"persistence": list(persistence)}
    rewritten: list[str] = []
    for _attempt in range(ATTEMPTS):
        listed = {oid: bytes(name) for oid, name, _is_other in session.query(_LISTED, values)}
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        session.execute(f"SET LOCAL lock_timeout = {int(lock_timeout) * 1000}")
        try:
            # A LOCK that comes first takes no snapshot: the data is of the moment of the query after it.
            _lock(session, listed)
            present = {oid: bytes(name) for oid, name, _is_other in session.query(_LISTED, values)}
            _lock(session, {oid: name for oid, name in present.items() if oid not in listed})
        except BeginAnew:
            session.execute("ROLLBACK")
            continue
        rewritten = [_show(bytes(name)) for _oid, name, is_other in session.query(_LISTED, values) if is_other]
        if not rewritten:
            return
        session.execute("ROLLBACK")
    raise OpsError(
        obj=session.settings.target,
        problem=f"its tables come, go or are written anew (TRUNCATE, ALTER TABLE) faster than they can be locked"
        f"{': ' + ', '.join(rewritten[:3]) if rewritten else ''}; {ATTEMPTS} attempts",
        next_step="A dump could have such a table empty. Run again when they are left alone; nothing has been written",
    )


def _lock(session: Session, tables: t.Mapping[int, bytes]) -> None:
    """Lock tables, in the order of their oids."""
    oids = sorted(tables)
    for start in range(0, len(oids), BATCH):
        batch = oids[start : start + BATCH]
        names = b", ".join(b"ONLY " + tables[oid] for oid in batch)
        try:
            session.execute(b"LOCK TABLE " + names + b" IN ACCESS SHARE MODE")
        except driver_error() as error:
            if sqlstate(error) in AGAIN:
                raise BeginAnew from error
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                session.execute("ROLLBACK")
                raise _explain_lock(session, {oid: tables[oid] for oid in batch}) from error
            raise sql_error(session.settings.target, error) from error


def _explain_lock(session: Session, tables: t.Mapping[int, bytes]) -> OpsError:
    """Return the error for tables that could not be locked in time, with who holds them now."""
    holders = read_lock_holders(session, list(tables), ["AccessExclusiveLock"])
    names = [_show(tables[holder.relation]) for holder in holders if holder.relation in tables]
    return OpsError(
        obj=f"table {names[0]}" if names else session.settings.target,
        problem=f"it could not be locked for the dump; {holders[0].holder} holds {holders[0].mode}"
        if names
        else "a table could not be locked for the dump; its holder has gone since",
        next_step=f"{holders[0].next_step + ', or raise' if names else 'Run again, or raise'} lock_timeout and timeout",
    )


def _show(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
