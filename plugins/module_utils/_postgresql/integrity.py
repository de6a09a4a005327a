# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for damaged blocks of a database, and change nothing. Private to lowtide.ops: do not import from other collections.

The server's own counts of wrong checksums come first. They know only blocks that somebody has read. Then amcheck reads
every block of the tables (verify_heapam) and B-tree indexes (bt_index_check): that tells which relation and which block.
"""

from __future__ import annotations

import re
import typing as t

from .._common.retry import Deadline
from .connection import Session, driver_error
from .errors import is_lost, one_line, sqlstate
from .names import TableName, format_name

MAX_BLOCKS = 20
"""So many unreadable blocks of a table are named; each takes a statement."""
MAX_MESSAGES = 50
"""So many findings of amcheck in one table are returned."""
MISSING_RIGHT = "42501"
GONE = ("42P01", "42704", "XX000")
CANCELLED = "57014"

_CHECKSUMS_SQL = """
SELECT pg_catalog.current_setting('data_checksums') AS enabled, datname AS database,
       coalesce(checksum_failures, 0) AS failures, checksum_last_failure::text AS last_failure
  FROM pg_catalog.pg_stat_database
 WHERE datname = pg_catalog.current_database() OR (datname IS NULL) OR checksum_failures > 0
 ORDER BY datname NULLS FIRST
"""
_AMCHECK_SQL = """
SELECT pg_catalog.quote_ident(n.nspname) AS schema, e.extversion AS version,
       EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'verify_heapam') AS heap,
       EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'gin_index_check') AS gin
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'amcheck'
"""
_RELATIONS_SQL = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       coalesce(a.amname, '') AS method, coalesce(o.relname, c.relname) AS table_name,
       coalesce(o.oid, c.oid)::bigint AS table_oid, c.relpages::bigint AS pages,
       coalesce(i.indisvalid AND i.indisready, true) AS valid
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_catalog.pg_class o ON o.oid = i.indrelid
 WHERE c.relkind IN ('r', 'm', 'i') AND c.relpersistence <> 't'
   AND (n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema' OR %(catalogs)s AND n.nspname = 'pg_catalog')
   AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY (%(schemas)s::text[]))
 ORDER BY n.nspname, coalesce(o.relname, c.relname), c.relkind DESC, c.relname
"""
_HEAP_SQL = """
SELECT blkno::bigint AS block, offnum::int AS "offset", msg AS message
  FROM {schema}.verify_heapam(%(oid)s::oid, check_toast => true, startblock => %(start)s) LIMIT %(limit)s
"""
_BLOCKS_SQL = (
    "SELECT (pg_catalog.pg_relation_size(%(oid)s::oid) / pg_catalog.current_setting('block_size')::bigint)::bigint"
)
_FILE_SQL = """
SELECT c.oid::bigint FROM pg_catalog.pg_class c WHERE pg_catalog.pg_relation_filepath(c.oid) = %(path)s
"""
_BLOCK = re.compile(r'block (\d+)(?:\.\.\d+)?[^"]*?(?:relation "?|file ")(base/\d+/\d+|global/\d+)')
_BLOCK_ONLY = re.compile(r"block (\d+)")


class Checksums(t.NamedTuple):
    """What the server has counted for one database; ``database`` is None for what all share."""

    enabled: str
    database: str | None
    failures: int
    last_failure: str | None


class Amcheck(t.NamedTuple):
    """The extension as it is installed: its schema, quoted, and which functions it has."""

    schema: str
    version: str
    heap: bool
    gin: bool


class Relation(t.NamedTuple):
    """A table, materialized view or index; ``table_oid`` is its own or that of the index's table."""

    oid: int
    schema: str
    name: str
    kind: str
    method: str
    table_name: str
    table_oid: int
    pages: int
    valid: bool

    @property
    def title(self) -> str:
        """Return what messages call it."""
        return f"{'index' if self.kind == 'i' else 'table'} {format_name(self.schema, self.name)}"


class HeapLine(t.NamedTuple):
    """One finding of verify_heapam."""

    block: int | None
    offset: int | None
    message: str


class Damage(t.NamedTuple):
    """One finding: in which relation, in which block where that is known, found by what."""

    relation: Relation
    block: int | None
    offset: int | None
    check: str
    message: str

    def describe(self) -> str:
        """Return it in one line."""
        place = "" if self.block is None else f", block {self.block}"
        place += "" if self.offset is None else f", line pointer {self.offset}"
        return f"{self.relation.title}{place}: {self.message} ({self.check})"


class Unchecked(t.NamedTuple):
    """A relation that was not looked at, and why; ``sqlstate`` is the server's, "" where it was not asked."""

    title: str
    reason: str
    sqlstate: str = ""


class Examination(t.NamedTuple):
    """What was found: of every relation either nothing, damage, or that it was not looked at."""

    checked: list[Relation]
    damage: list[Damage]
    unchecked: list[Unchecked]


def read_checksums(session: Session) -> list[Checksums]:
    """Return what the server counts of wrong checksums: this database, what all share, and others that have any."""
    return session.read(Checksums, _CHECKSUMS_SQL)


def find_amcheck(session: Session) -> Amcheck | None:
    """Return the extension, or None where this database has it not."""
    rows = session.read(Amcheck, _AMCHECK_SQL)
    return rows[0] if rows else None


def list_relations(
    session: Session, *, schemas: t.Sequence[str] | None, tables: t.Sequence[TableName], catalogs: bool
) -> list[Relation]:
    """Return the tables that are asked for with their indexes, each table before its own."""
    relations = session.read(Relation, _RELATIONS_SQL, {"schemas": schemas, "catalogs": catalogs})
    if not tables:
        return relations
    names = {(table.schema, table.name) for table in tables}
    return [
        relation
        for relation in relations
        if (relation.schema, relation.table_name) in names or (None, relation.table_name) in names
    ]


class Examiner:
    """Has the server read relations whole, one by one."""

    def __init__(self, session: Session, amcheck: Amcheck, *, heapallindexed: bool, deadline: Deadline) -> None:
        self._session = session
        self._amcheck = amcheck
        self._heapallindexed = heapallindexed
        self._deadline = deadline
        self._relations: dict[int, Relation] = {}
        self.result = Examination([], [], [])

    def examine(self, relations: t.Sequence[Relation]) -> Examination:
        """Look at every relation."""
        self._relations = {relation.oid: relation for relation in relations}
        for relation in relations:
            reason = self._explain_unsupported(relation)
            if reason:
                self.result.unchecked.append(Unchecked(relation.title, reason))
            elif relation.kind == "i":
                self._examine_index(relation)
            else:
                self._examine_table(relation)
        return self.result

    def _explain_unsupported(self, relation: Relation) -> str:
        if self._deadline.passed:
            return f"the time of {self._deadline.seconds:.0f} s was over before its turn"
        if relation.kind != "i":
            if relation.method != "heap":
                return f"its access method is {relation.method}, and amcheck knows heap"
            return "" if self._amcheck.heap else f"amcheck {self._amcheck.version} has no verify_heapam"
        if not relation.valid:
            return "it is invalid, so nothing reads it"
        if relation.method == "btree" or (relation.method == "gin" and self._amcheck.gin):
            return ""
        return f"its access method is {relation.method}, and amcheck {self._amcheck.version} knows btree" + (
            " and gin" if self._amcheck.gin else ""
        )

    def _examine_table(self, relation: Relation) -> None:
        """Read a table to its end, and past each block that cannot be read."""
        start, unreadable = 0, 0
        sql = _HEAP_SQL.format(schema=self._amcheck.schema)
        while True:
            try:
                # verify_heapam refuses to begin beyond the last block.
                if start and start >= int(self._session.query(_BLOCKS_SQL, {"oid": relation.oid})[0][0]):
                    break
                self._limit_time()
                values = {"oid": relation.oid, "start": start, "limit": MAX_MESSAGES}
                lines = self._session.read(HeapLine, sql, values)
            except driver_error() as error:
                block = self._take_error(relation, error, "verify_heapam")
                unreadable += 1
                if block is None or block < start or unreadable >= MAX_BLOCKS:
                    return
                start = block + 1
                continue
            self.result.damage.extend(
                Damage(relation, line.block, line.offset, "verify_heapam", line.message) for line in lines
            )
            break
        self.result.checked.append(relation)

    def _examine_index(self, relation: Relation) -> None:
        call, name = "bt_index_check(%(oid)s::oid, %(all)s)", "bt_index_check"
        if relation.method == "gin":
            call = name = "gin_index_check"
            call += "(%(oid)s::oid)"
        try:
            self._limit_time()
            values = {"oid": relation.oid, "all": self._heapallindexed}
            self._session.query(f"SELECT {self._amcheck.schema}.{call}::text", values)
        except driver_error() as error:
            self._take_error(relation, error, name)
            return
        self.result.checked.append(relation)

    def _limit_time(self) -> None:
        milliseconds = max(1, min(int(self._deadline.remaining * 1000), 2**31 - 1))
        self._session.execute(
            "SELECT pg_catalog.set_config('statement_timeout', %(value)s, false)", {"value": str(milliseconds)}
        )

    def _take_error(self, relation: Relation, error: Exception, check: str) -> int | None:
        """Note what an error says, and return the block of this relation that it is about, if any."""
        code = sqlstate(error)
        if is_lost(error, self._session.connection):
            raise error
        text = describe_error(error)
        if code in (MISSING_RIGHT, CANCELLED) or code.startswith(("55", "40")):
            reason = f"the time of {self._deadline.seconds:.0f} s is over" if code == CANCELLED else text
            self.result.unchecked.append(Unchecked(relation.title, reason, code))
            return None
        block, path = find_block(text)
        owner = relation if path is None else self._find_owner(path, relation)
        known = [(damage.relation.oid, damage.block) for damage in self.result.damage]
        if block is None or (owner.oid, block) not in known:
            self.result.damage.append(Damage(owner, block, None, check, text))
        if owner.oid != relation.oid:
            self.result.unchecked.append(Unchecked(relation.title, f"{owner.title} cannot be read to its end", code))
            return None
        if relation not in self.result.checked and check != "verify_heapam":
            self.result.checked.append(relation)
        return block

    def _find_owner(self, path: str, relation: Relation) -> Relation:
        """Return the relation that a file is of; ``relation`` where that is none of those that are looked at."""
        try:
            rows = self._session.query(_FILE_SQL, {"path": path})
        except driver_error():
            return relation
        return self._relations.get(rows[0][0], relation) if rows else relation


def describe_error(error: Exception) -> str:
    """Return the server's message with its detail, which for amcheck names places and no values."""
    diagnosis = getattr(error, "diag", None)
    primary = one_line(str(getattr(diagnosis, "message_primary", None) or error))
    detail = getattr(diagnosis, "message_detail", None) if sqlstate(error) == "XX002" else None
    return f"{primary}; {one_line(str(detail))}" if detail else primary


def find_block(text: str) -> tuple[int | None, str | None]:
    """Return the block that a message names, and the path of the file that it is in; None for what it does not name."""
    match = _BLOCK.search(text)
    if match:
        return int(match[1]), match[2]
    match = _BLOCK_ONLY.search(text)
    return (int(match[1]) if match else None), None
