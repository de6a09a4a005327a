# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for damaged blocks of a database, and change nothing. Private to lowtide.ops: do not import from other collections.

The server's own counts of wrong checksums come first. They know only blocks that somebody has read. Then amcheck reads
every block of the tables (verify_heapam) and B-tree indexes (bt_index_check): that tells which relation and which block.

Damage is only what the server itself calls that. A false word of it has somebody replace a good database, so every other error
(a table that was dropped meanwhile, a lock, memory, a function of an index) leaves a relation unchecked, and never whole.
"""

from __future__ import annotations

import re
import typing as t

from .._common.retry import Deadline
from .blockers import read_lock_holders
from .connection import Session, driver_error
from .errors import LOCK_NOT_AVAILABLE, is_lost, one_line, sql_error, sqlstate
from .holders import VACUUM_NEXT_STEP
from .names import TableName, format_name

MAX_BLOCKS = 20
"""So many unreadable blocks of a table are named; each takes a statement."""
MAX_MESSAGES = 50
"""So many findings of amcheck in one table are returned."""
LOCK_SECONDS = 5.0
"""So long a relation that somebody has locked is waited for at first; it is come back to after all the others."""
LAST_LOCK_SECONDS = 60.0
"""So long it is waited for then."""
OWN_SECONDS = 0.1
"""The least time that a statement gets, so that one that only asks the catalog gets its answer at the end of the time."""

CORRUPTED = ("XX001", "XX002")
"""What the server finds wrong in blocks of tables and of indexes."""
UNREADABLE = ("58030", "58P01")
"""A file that the operating system does not read, or that is not there: damage, if the relation still is."""
PASSING = (LOCK_NOT_AVAILABLE, "40001", "40P01")
"""What is over after a while: somebody's lock, a standby's conflict with its recovery, a deadlock."""
MISSING_RIGHT = "42501"
CANCELLED = "57014"
OUT_OF_RANGE = "22023"
INTERNAL = "XX000"

DUMP = "Dump the table whole (pg_backup reads every row); amcheck has nothing for it"
SEE_TO_TABLE = "See to its table first"

NO_EXTENSION, NO_METHOD, INVALID, UNLOGGED = "extension", "method", "invalid", "unlogged"
TIME, LOCK, RIGHT, TABLE, ERROR = "time", "lock", "right", "table", "error"

_CHECKSUMS_SQL = """
SELECT pg_catalog.current_setting('data_checksums') AS enabled, datname AS database,
       coalesce(checksum_failures, 0) AS failures, checksum_last_failure::text AS last_failure,
       coalesce(checksum_last_failure > %(after)s::timestamptz, true) AS counts
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
       coalesce(i.indisvalid AND i.indisready, true) AS valid,
       c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery() AS missing
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_catalog.pg_class o ON o.oid = i.indrelid
 WHERE c.relkind IN ('r', 'm', 'i') AND c.relpersistence <> 't'
   AND (n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema' OR %(catalogs)s AND n.nspname = 'pg_catalog')
 ORDER BY n.nspname, coalesce(o.relname, c.relname), c.relkind DESC, c.relname
"""
# A partitioned table has no rows of its own: it stands for its partitions.
_CHOSEN_SQL = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS is_parent, coalesce(p.relid::oid, c.oid)::bigint AS oid
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL pg_catalog.pg_partition_tree(c.oid) p ON c.relkind = 'p'
 WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
   AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY (%(schemas)s::text[]))
"""
_HEAP_SQL = """
SELECT blkno::bigint AS block, offnum::int AS "offset", msg AS message
  FROM {schema}.verify_heapam(%(oid)s::oid, check_toast => %(toast)s, startblock => %(start)s) LIMIT %(limit)s
"""
_BLOCKS_SQL = (
    "SELECT (pg_catalog.pg_relation_size(%(oid)s::oid) / pg_catalog.current_setting('block_size')::bigint)::bigint"
)
_EXISTS_SQL = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = %(oid)s::oid)"
# The relation that a file is of, and the table whose TOAST values it has, if it is of those or their index.
_FILE_SQL = """
SELECT t.oid::bigint AS toast_of, c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       coalesce(o.relname, c.relname) AS table_name, coalesce(o.oid, c.oid)::bigint AS table_oid
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_catalog.pg_class o ON o.oid = i.indrelid
  LEFT JOIN pg_catalog.pg_class t ON t.reltoastrelid = coalesce(i.indrelid, c.oid) AND t.reltoastrelid <> 0
 WHERE pg_catalog.pg_relation_filepath(c.oid) = %(path)s
"""
_PATH = re.compile(r"((?:base/\d+|global|pg_tblspc/\d+/[^/\s\"]+/\d+)/\d+)(?:\.\d+)?")
_BLOCK = re.compile(r"block (\d+)")
_RANGE = re.compile(r"(\d+)\.\.\d+")
_NUMBER = re.compile(r"\d+")


class Checksums(t.NamedTuple):
    """What the server has counted for one database; ``database`` is None for what all share.

    ``counts`` is false if the last of them was before the time after which somebody has the database judged.
    """

    enabled: str
    database: str | None
    failures: int
    last_failure: str | None
    counts: bool


class Amcheck(t.NamedTuple):
    """The extension as it is installed: its schema, quoted, and which functions it has."""

    schema: str
    version: str
    heap: bool
    gin: bool


class Relation(t.NamedTuple):
    """A table, materialized view or index; ``table_oid`` is its own or that of the index's table.

    ``missing`` is true for an unlogged one on a standby, which has no rows of it.
    """

    oid: int
    schema: str
    name: str
    kind: str
    method: str
    table_name: str
    table_oid: int
    pages: int
    valid: bool
    missing: bool

    @property
    def title(self) -> str:
        """Return what messages call it."""
        return f"{'index' if self.kind == 'i' else 'table'} {format_name(self.schema, self.name)}"


class Chosen(t.NamedTuple):
    """A table that a name means, by the oid of what has rows: for a partitioned one each of its partitions, and itself."""

    schema: str
    name: str
    is_parent: bool
    oid: int

    def is_of(self, tables: t.Iterable[TableName]) -> bool:
        """Return whether one of these names means it."""
        return any(self.name == table.name and table.schema in (None, self.schema) for table in tables)


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
    """A relation that was not looked at to its end: the cause for programs, and for people the reason and what to do."""

    title: str
    cause: str
    reason: str
    next_step: str = ""


class Place(t.NamedTuple):
    """Where an unreadable block is: of which relation, and whether it is in that one's own file or in its TOAST values."""

    owner: Relation
    block: int | None
    is_toast: bool


class Examination(t.NamedTuple):
    """What was found: of every relation either nothing, damage, that it was not looked at, or that it is gone."""

    checked: list[Relation]
    damage: list[Damage]
    unchecked: list[Unchecked]
    gone: list[Relation]


def read_checksums(session: Session, after: str | None) -> list[Checksums]:
    """Return what the server counts of wrong checksums: this database, what all share, and others that have any."""
    return session.read(Checksums, _CHECKSUMS_SQL, {"after": after})


def find_amcheck(session: Session) -> Amcheck | None:
    """Return the extension, or None where this database has it not."""
    rows = session.read(Amcheck, _AMCHECK_SQL)
    return rows[0] if rows else None


def list_relations(
    session: Session, *, schemas: t.Sequence[str] | None, tables: t.Sequence[TableName], catalogs: bool
) -> list[Relation]:
    """Return the tables that are asked for with their indexes, each table before its own."""
    relations = session.read(Relation, _RELATIONS_SQL, {"catalogs": catalogs})
    if not tables and schemas is None:
        return relations
    chosen = {entry.oid for entry in read_chosen(session, schemas) if not tables or entry.is_of(tables)}
    return [relation for relation in relations if relation.table_oid in chosen]


def read_chosen(session: Session, schemas: t.Sequence[str] | None) -> list[Chosen]:
    """Return which tables the names in ``schemas`` mean: those of that name, and the partitions wherever they are."""
    return session.read(Chosen, _CHOSEN_SQL, {"schemas": schemas})


def find_unknown(
    session: Session,
    relations: t.Sequence[Relation],
    *,
    schemas: t.Sequence[str] | None,
    tables: t.Sequence[TableName],
) -> tuple[list[str], list[str]]:
    """Return the schemas, and the tables, of which there is nothing; of a partitioned table that has no partition there is."""
    if not tables and schemas is None:
        return [], []
    found = {relation.table_oid for relation in relations}
    chosen = read_chosen(session, schemas)
    own = [entry for entry in chosen if entry.is_parent or entry.oid in found]
    # With names of tables, one of a schema need not be among them.
    known = {entry.schema for entry in (chosen if tables else own)}
    return (
        [schema for schema in schemas or [] if schema not in known],
        [format_name(*filter(None, table)) for table in tables if not any(entry.is_of([table]) for entry in own)],
    )


class Examiner:
    """Has the server read relations whole, one by one."""

    def __init__(self, session: Session, amcheck: Amcheck, *, heapallindexed: bool, deadline: Deadline) -> None:
        self._session = session
        self._amcheck = amcheck
        self._heapallindexed = heapallindexed
        self._deadline = deadline
        self._relations: dict[int, Relation] = {}
        self._postponed: list[Relation] = []
        self._locked: dict[int, Unchecked] = {}
        self._is_last = False
        self.result = Examination([], [], [], [])

    def examine(self, list_all: t.Callable[[], t.Sequence[Relation]]) -> Examination:
        """Look at every relation; once more at what was locked, and at what has taken the place of one that is gone."""
        self._look(list_all())
        self._return_to_postponed()
        if self.result.gone:
            self._look([relation for relation in list_all() if relation.oid not in self._relations])
            self._return_to_postponed()
        return self.result

    def _look(self, relations: t.Sequence[Relation]) -> None:
        self._relations |= {relation.oid: relation for relation in relations}
        for relation in relations:
            entry = self._explain_unsupported(relation)
            if entry:
                self.result.unchecked.append(entry)
            elif relation.table_oid in self._locked:
                # Its table was not to be had a moment ago: not to wait for the same lock for each index.
                self._note_locked(self._locked[relation.table_oid]._replace(title=relation.title), relation)
            elif relation.kind == "i":
                self._examine_index(relation)
            else:
                self._examine_table(relation)

    def _return_to_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        self._locked.clear()
        self._is_last = True
        self._look(postponed)
        self._is_last = False
        self._locked.clear()

    def _explain_unsupported(self, relation: Relation) -> Unchecked | None:
        title = relation.title
        if self._deadline.passed:
            return Unchecked(title, TIME, f"the time of {self._deadline.seconds:.0f} s was over before its turn")
        if relation.missing:
            return Unchecked(title, UNLOGGED, "it is unlogged, and a standby has no rows of it")
        if not relation.valid:
            return Unchecked(title, INVALID, "it is invalid, so nothing reads it")
        return self._explain_method(relation)

    def _explain_method(self, relation: Relation) -> Unchecked | None:
        amcheck = self._amcheck
        known = ["heap"] if relation.kind != "i" else ["btree", "gin"] if amcheck.gin else ["btree"]
        if relation.method not in known:
            version = f"amcheck {amcheck.version} knows {' and '.join(known)}"
            return Unchecked(relation.title, NO_METHOD, f"its access method is {relation.method}, and {version}")
        if relation.kind != "i" and not amcheck.heap:
            step = "Have a superuser run ALTER EXTENSION amcheck UPDATE in it, on the primary"
            return Unchecked(relation.title, NO_EXTENSION, f"amcheck {amcheck.version} has no verify_heapam", step)
        return None

    def _examine_table(self, relation: Relation) -> None:
        """Read a table to its end, and past each block that cannot be read."""
        start, unreadable, toast = 0, 0, True
        sql = _HEAP_SQL.format(schema=self._amcheck.schema)
        while True:
            try:
                # verify_heapam refuses to begin beyond the last block.
                if start and start >= int(self._session.query(_BLOCKS_SQL, {"oid": relation.oid})[0][0] or 0):
                    break
                self._limit_time()
                values = {"oid": relation.oid, "start": start, "limit": MAX_MESSAGES, "toast": toast}
                lines = self._session.read(HeapLine, sql, values)
            except driver_error() as error:
                unreadable += 1
                if start and sqlstate(error) == OUT_OF_RANGE and unreadable < MAX_BLOCKS:
                    continue  # it was cut off there a moment ago
                place = self._take_error(relation, error, "verify_heapam")
                if place is None:
                    return
                if place.is_toast and toast:
                    toast = False  # its own blocks can be looked at all the same
                    continue
                if place.owner != relation or place.block is None or place.block < start or unreadable >= MAX_BLOCKS:
                    return
                start = place.block + 1
                continue
            self.result.damage.extend(
                Damage(relation, line.block, line.offset, "verify_heapam", line.message) for line in lines
            )
            break
        if toast:
            self.result.checked.append(relation)
        else:
            self.result.unchecked.append(
                Unchecked(relation.title, TABLE, "its TOAST values cannot be read to their end", SEE_TO_TABLE)
            )

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
            place = self._take_error(relation, error, name)
            if place is None or place.owner != relation:
                return
        self.result.checked.append(relation)

    def _limit_time(self) -> None:
        remaining = max(OWN_SECONDS, self._deadline.remaining)
        # A lock's time is over before that of the statement: else nobody would ask who has it.
        patience = min(LAST_LOCK_SECONDS, remaining * 0.9) if self._is_last else min(LOCK_SECONDS, remaining / 4)
        self._session.query(
            "SELECT pg_catalog.set_config('statement_timeout', %(statement)s, false),"
            " pg_catalog.set_config('lock_timeout', %(lock)s, false)",
            {
                "statement": str(int(min(remaining * 1000, 2**31 - 1))),
                "lock": str(max(1, int(patience * 1000))),
            },
        )

    def _take_error(self, relation: Relation, error: Exception, check: str) -> Place | None:
        """Note what an error says, and return where the damage is, if it is any."""
        code = sqlstate(error)
        if is_lost(error, self._session.connection):
            # The server may have crashed on it: then this is the one to look at.
            raise sql_error(f"{relation.title} in {self._session.settings.target}", error) from error
        if code not in CORRUPTED and not (code in UNREADABLE and self._exists(relation)):
            self._note_unchecked(relation, error, code)
            return None
        text = describe_error(error)
        place = self._find_place(relation, error)
        known = [(damage.relation.oid, damage.block, damage.message) for damage in self.result.damage]
        block = None if place.is_toast else place.block
        if not any(
            oid == place.owner.oid and (number == block if block is not None else message == text)
            for oid, number, message in known
        ):
            self.result.damage.append(Damage(place.owner, block, None, check, text))
        if place.owner.oid != relation.oid:
            reason = f"{place.owner.title} cannot be read to its end"
            self.result.unchecked.append(Unchecked(relation.title, TABLE, reason, SEE_TO_TABLE))
        return place

    def _note_unchecked(self, relation: Relation, error: Exception, code: str) -> None:
        """Note an error that tells nothing of the relation's blocks."""
        if code == LOCK_NOT_AVAILABLE:
            entry = self._explain_lock(relation)
            if relation.kind != "i":
                self._locked[relation.oid] = entry
            self._note_locked(entry, relation)
        elif code in PASSING and not self._is_last:
            self._postponed.append(relation)
        elif self._exists(relation):
            self.result.unchecked.append(self._explain_error(relation, error, code))
        else:
            self.result.gone.append(relation)

    def _note_locked(self, entry: Unchecked, relation: Relation) -> None:
        if self._is_last:
            self.result.unchecked.append(entry)
        else:
            self._postponed.append(relation)

    def _explain_lock(self, relation: Relation) -> Unchecked:
        title = relation.title
        holders = read_lock_holders(self._session, [relation.oid, relation.table_oid], ["AccessExclusiveLock"])
        if not holders:
            return Unchecked(title, LOCK, "it was locked by somebody else all the time")
        holder = holders[0]
        since = f", since {holder.since}" if holder.since else ""
        step = VACUUM_NEXT_STEP.get(holder.vacuum, holder.next_step)
        return Unchecked(title, LOCK, f"it is locked by {holder.holder}{since}", step)

    def _explain_error(self, relation: Relation, error: Exception, code: str) -> Unchecked:
        title, found = relation.title, sql_error(relation.title, error)
        if code == CANCELLED and self._deadline.passed:
            return Unchecked(title, TIME, f"the time of {self._deadline.seconds:.0f} s is over")
        if code == MISSING_RIGHT:
            return Unchecked(title, RIGHT, found.problem)
        step = found.next_step
        if code == INTERNAL:
            step = f"Ask again. If it stays, see the server's log: damage can be behind it. {DUMP}"
        return Unchecked(title, ERROR, f"{found.problem} (SQLSTATE {code})", step)

    def _exists(self, relation: Relation) -> bool:
        return bool(self._session.query(_EXISTS_SQL, {"oid": relation.oid})[0][0])

    def _find_place(self, relation: Relation, error: Exception) -> Place:
        """Return where the block is that an error names: in a relation that is looked at, in its TOAST, or unknown."""
        block, path = find_block(error)
        if path is None:
            return Place(relation, block, is_toast=False)
        try:
            rows = self._session.query(_FILE_SQL, {"path": path})
        except driver_error() as failure:
            if is_lost(failure, self._session.connection):
                raise
            rows = []  # the catalog itself may be damaged
        if not rows:
            return Place(relation, None, is_toast=False)
        toast_of, oid, schema, name, kind, table_name, table_oid = rows[0]
        if toast_of in self._relations:
            return Place(self._relations[toast_of], block, is_toast=True)
        other = Relation(oid, schema, name, kind, "", table_name, table_oid, 0, valid=True, missing=False)
        return Place(self._relations.get(oid, other), block, is_toast=False)


def describe_error(error: Exception) -> str:
    """Return the server's message with its detail, which for amcheck names places and no values."""
    diagnosis = getattr(error, "diag", None)
    primary = one_line(str(getattr(diagnosis, "message_primary", None) or error))
    detail = getattr(diagnosis, "message_detail", None) if sqlstate(error) == "XX002" else None
    return f"{primary}; {one_line(str(detail))}" if detail else primary


def find_block(error: Exception) -> tuple[int | None, str | None]:
    """Return the block that a message names, and the path of the file that it is in; None for what it does not name.

    Only the path is the same in each language of messages; what numbers are beside it is told by their order. Of several
    blocks that were read at once, the detail names the first that is wrong.
    """
    diagnosis = getattr(error, "diag", None)
    text = one_line(str(getattr(diagnosis, "message_primary", None) or error))
    match = _PATH.search(text)
    if match is None:
        found = _BLOCK.search(text)
        return (int(found[1]) if found else None), None
    text = text[: match.start()] + text[match.end() :]
    several = _RANGE.search(text)
    first = _NUMBER.search(str(getattr(diagnosis, "message_detail", None) or "")) if several else None
    if first:
        return int(first[0]), match[1]
    found = several or _NUMBER.search(text)
    return (int(found[1] if several else found[0]) if found else None), match[1]
