# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the text of a dump: its objects, and what rows, sequences and large objects hold; pure.

Private to lowtide.ops: do not import from other collections.

Two texts that the same version of the programs has written of servers of one version can be compared object by object:
each has a header with kind, schema and name. Rows are compared by their number and the sum of their hashes, since their
order means nothing. The hash is Python's own (SipHash with a key of this process), so two texts have to be read by
one process.
"""

from __future__ import annotations

import hashlib
import re
import typing as t

from .._common.errors import Refusal
from .._common.text import join_some
from .._pg_backup.copy_rows import RowCounter, Table, TableName, parse_copy
from .sql_text import (
    IDENTIFIER,
    blank_literals,
    find_headers,
    is_limit,
    read_created,
    refuse,
    rename_database,
    split_statements,
)

_SETTING = re.compile(r"SET [a-z_]+ = [^\n]*;|\\(?:un)?restrict \w+|\\encoding \S+|\\connect .*|--.*")
_SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', '', false);"
_DUMPED_FROM = re.compile(r"^-- Dumped from database version (\d+)", re.MULTILINE)
_DUMPED_BY = re.compile(r"^-- Dumped by pg_dump version (\d+)", re.MULTILINE)
_ENCODING = re.compile(r"^SET client_encoding = '([^']+)';$", re.MULTILINE)
_SETVAL = re.compile(rb"SELECT pg_catalog\.setval\((E?)'((?:[^']|'')*)', (-?\d+), (true|false)\)")
_LO_OPEN = re.compile(rb"SELECT pg_catalog\.lo_open\('(\d+)', \d+\)")
# With standard_conforming_strings off, which a database may have, a backslash is written twice.
_LO_WRITE = re.compile(rb"SELECT pg_catalog\.lowrite\(0, E?'\\\\?x([0-9a-f]*)'\)")
_LO_MADE = re.compile(rb"SELECT pg_catalog\.lo_create\('(\d+)'\)")
_LO_ABOUT = re.compile(
    rb"(?:ALTER|COMMENT ON|(?:GRANT|REVOKE) .*? ON|SECURITY LABEL .*? ON) LARGE OBJECT (\d+)\s.*", re.DOTALL
)
_MEANINGLESS = re.compile(rb"SELECT pg_catalog\.(?:set_config\('search_path', '', false\)|lo_close\(0\))")
_LO_OWNER = re.compile(r"^\d+; \d+ \d+ BLOB METADATA - \S+ (.+)$", re.MULTILINE)
_OWNER = re.compile(rf" OWNER TO ({IDENTIFIER});")
_GRANT = re.compile(
    rf"^(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .* (?:TO|FROM) ({IDENTIFIER})(?: WITH GRANT OPTION)?;$", re.MULTILINE
)
_TABLESPACE = re.compile(
    rf"^SET default_tablespace = ({IDENTIFIER});$|^CREATE DATABASE .* TABLESPACE = ({IDENTIFIER})", re.MULTILINE
)
_IN_DATABASE = re.compile(rf"^ALTER ROLE ({IDENTIFIER}) IN DATABASE ", re.MULTILINE)
_FOR_ROLE = re.compile(rf"^ALTER DEFAULT PRIVILEGES FOR ROLE ({IDENTIFIER}) ", re.MULTILINE)
_POLICY = re.compile(rf"^CREATE POLICY .* TO ((?:{IDENTIFIER})(?:, (?:{IDENTIFIER}))*)(?: USING| WITH|;)", re.MULTILINE)
_GRANTOR = re.compile(rf"^SET SESSION AUTHORIZATION ({IDENTIFIER});$", re.MULTILINE)
_NAME = re.compile(IDENTIFIER)
_HASH_BITS = (1 << 64) - 1

DATABASE_KINDS = ("DATABASE", "DATABASE PROPERTIES")
DATABASE_OWNER = "pg_database_owner"
"""The role that whoever owns a database is a member of in it, whose schema public is."""
NO_OWNER = ("", "-")
"""How a header says that an object has none, as an extension."""
_GRANTS = ("ACL", "COMMENT", "SECURITY LABEL")


class Entry(t.NamedTuple):
    """One object of a dump by its header."""

    kind: str
    schema: str
    name: str

    @property
    def title(self) -> str:
        """Return it as a person names it; a header has no schema as ``-``."""
        own = self.name if self.schema == "-" else f"{self.schema}.{self.name}"
        if self.kind in ("ACL", "COMMENT", "SECURITY LABEL"):
            kind, _space, rest = self.name.partition(" ")
            own = f"{kind} {rest}" if self.schema == "-" else f"{kind} {self.schema}.{rest}"
            return f"{'grants on' if self.kind == 'ACL' else self.kind.lower() + ' of'} {own}"
        return f"{self.kind.lower()} {own}"

    @property
    def is_of_database(self) -> bool:
        """Return whether it belongs to the database as a whole, which is under another name elsewhere."""
        is_about = self.kind in _GRANTS and self.schema == "-" and self.name.startswith("DATABASE ")
        return self.kind in DATABASE_KINDS or is_about


class CopyStatements(t.NamedTuple):
    """What makes a database: the statement that creates it, those that follow at once, and those for the end.

    ``limits`` say who may come in, or make it a template: they are for the live name, and in the way before.
    """

    creating: str
    further: list[str]
    properties: list[str]
    limits: list[str]


class Schema(t.NamedTuple):
    """The statements of a dump by object; with the versions of the server and of pg_dump.

    ``object_owners`` own large objects, where pg_dump has written that among the rows (17 and newer). ``about_owners`` are
    the grants, comments and security labels with the owner of what they are on, by their headers.
    """

    entries: dict[Entry, list[str]]
    server_version: int | None
    program_version: int | None
    object_owners: frozenset[str] = frozenset()
    tablespaces: frozenset[str] = frozenset()
    about_owners: frozenset[tuple[Entry, str]] = frozenset()

    @property
    def extensions(self) -> list[str]:
        """Return the names of the extensions in it."""
        return sorted(entry.name for entry in self.entries if entry.kind == "EXTENSION")

    @property
    def has_database(self) -> bool:
        """Return whether it says what the database itself is like."""
        return any(entry.kind == "DATABASE" for entry in self.entries)

    def find_roles(self) -> set[str]:
        """Return the roles that its statements name: owners, grantees, and those of policies."""
        roles: set[str] = set()
        for entry, statements in self.entries.items():
            text = blank_literals("\n".join(statements))
            for pattern in (_OWNER, _GRANT, _FOR_ROLE, *((_IN_DATABASE,) if entry.is_of_database else ())):
                roles |= {match[1] for match in pattern.finditer(text)}
            if entry.kind == "POLICY":
                roles |= {name for match in _POLICY.finditer(text) for name in _NAME.findall(match[1])}
        return {unquote(role) for role in roles if role not in ("PUBLIC", "public")} | self.object_owners

    def find_owners(self) -> set[str]:
        """Return the roles that own something in it, or whose default privileges it sets."""
        texts = (blank_literals("\n".join(statements)) for statements in self.entries.values())
        found = {match[1] for text in texts for pattern in (_OWNER, _FOR_ROLE) for match in pattern.finditer(text)}
        return {unquote(name) for name in found} | self.object_owners

    def find_owned(self, role: str) -> list[str]:
        """Return what a role owns in it, or whose default privileges it sets, as a person names it."""
        titles = ["large objects"] if role in self.object_owners else []
        for entry, statements in self.entries.items():
            text = blank_literals("\n".join(statements))
            found = (match[1] for pattern in (_OWNER, _FOR_ROLE) for match in pattern.finditer(text))
            if role in map(unquote, found):
                titles.append(entry.title)
        return sorted(titles)

    def find_grantors(self) -> set[str]:
        """Return the roles as which a restore grants, since they have passed on what was granted to them."""
        texts = (blank_literals("\n".join(statements)) for statements in self.entries.values())
        return {unquote(match[1]) for text in texts for match in _GRANTOR.finditer(text)}

    def find_given(self) -> list[tuple[Entry, str]]:
        """Return grants, comments and labels on what the dump does not make, with its owner: the server's own, or of extensions."""
        made = self.find_owners() | {*NO_OWNER, DATABASE_OWNER}
        return sorted((entry, owner) for entry, owner in self.about_owners if owner not in made)

    def name_copy(self, quoted: str) -> CopyStatements:
        """Return what makes a database named ``quoted`` what the dump says of its own; a Refusal of any other statement."""
        own = {
            entry: split_statements("\n".join(lines)) for entry, lines in self.entries.items() if entry.is_of_database
        }
        created = [statement for entry, found in own.items() if entry.kind == "DATABASE" for statement in found]
        if not created:
            return CopyStatements(f"CREATE DATABASE {quoted} TEMPLATE template0", [], [], [])
        name = read_created(created[0])
        names = [entry.name for entry in own if entry.kind == "DATABASE"]
        if name is None or names != [unquote(name)] or any(read_created(further) for further in created[1:]):
            raise Refusal(
                obj=f"objects {join_some(names)} of the dump",
                problem="they are not one database that is created by one statement",
                next_step="It is not restored. Find out who has made the dump",
            )
        rest = [statement for entry, found in own.items() if entry.kind in _GRANTS for statement in found]
        last = [statement for entry, found in own.items() if entry.kind == "DATABASE PROPERTIES" for statement in found]
        first, *further = (rename_database(statement, name, quoted) for statement in (*created, *rest))
        named = [rename_database(statement, name, quoted) for statement in last]
        limits = [statement for statement in named if is_limit(statement)]
        return CopyStatements(first, further, [statement for statement in named if statement not in limits], limits)


def unquote(name: str) -> str:
    """Return an SQL identifier without its quotes."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def find_encoding(text: bytes) -> str:
    """Return PostgreSQL's name of the encoding that a dump is in."""
    match = _ENCODING.search(text[:8192].decode("ascii", "replace"))
    return match[1] if match else "UTF8"


def list_object_owners(listing: str) -> frozenset[str]:
    """Return who owns the large objects of a dump, from the listing of pg_restore."""
    return frozenset(match[1] for match in _LO_OWNER.finditer(listing))


def read_schema(text: str) -> Schema:
    """Return the objects in the text of a dump, each with its statements."""
    entries: dict[Entry, list[str]] = {}
    headers = find_headers(text)
    for header, following in zip(headers, [*headers[1:], None], strict=False):
        end = len(text) if following is None else following.start
        fixed = max(header.end, header.fixed)
        lines = text[fixed:end].split("\n")
        # What follows belongs to the next one: settings, and their order is that of the objects.
        while lines and (not lines[-1] or _SETTING.fullmatch(lines[-1]) or lines[-1] == _SEARCH_PATH):
            lines.pop()
        body = (text[header.end : fixed] + "\n".join(lines)).strip("\n")
        entries.setdefault(Entry(header.kind, header.schema, header.name), []).extend(body.split("\n"))
    head = text[: headers[0].start] if headers else text
    versions = [pattern.search(head) for pattern in (_DUMPED_FROM, _DUMPED_BY)]
    server, program = (None if match is None else int(match[1]) for match in versions)
    tablespaces = {match[1] or match[2] for match in _TABLESPACE.finditer(blank_literals(text))}
    about = frozenset(
        (Entry(header.kind, header.schema, header.name), header.owner) for header in headers if header.kind in _GRANTS
    )
    return Schema(entries, server, program, tablespaces=frozenset(map(unquote, tablespaces)), about_owners=about)


class Rows(t.NamedTuple):
    """How many rows a table has, and the sum of their hashes."""

    number: int
    total: int


class Data(t.NamedTuple):
    """What is in tables, sequences (last value, whether it was called) and large objects (hashes).

    ``about`` are the hashes of owner, grants and comment of large objects, where the dump has them among the rows.
    """

    rows: dict[TableName, Rows]
    sequences: dict[str, tuple[int, bool]]
    objects: dict[int, str]
    about: dict[int, int]


class DataReader(RowCounter):
    """Counts rows as :class:`RowCounter` does, hashes them, and reads sequences and large objects."""

    def __init__(self) -> None:
        super().__init__()
        self._totals: dict[Table, int] = {}
        self._total = 0
        self._sequences: dict[str, tuple[int, bool]] = {}
        self._objects: dict[int, t.Any] = {}
        self._about: dict[int, int] = {}
        self._open: int | None = None
        self._unknown: bytes | None = None
        self._inserted: bytes | None = None

    def check(self) -> None:
        """Raise where something has been read by now whose outcome cannot be compared."""
        if self._unknown is not None:
            text = self._unknown.decode("utf-8", "backslashreplace")
            raise refuse(text, "it is no call that pg_dump is known to write among the rows")
        if self._inserted is not None:
            raise Refusal(
                obj=f"statement {self._inserted.decode('utf-8', 'backslashreplace')!r} of the dump",
                problem="its rows are statements (pg_dump --inserts, --column-inserts, --rows-per-insert), and are not compared so",
                next_step="Make the dump without these options (lowtide.ops.pg_backup, or pg_dump -Fc), or restore it by hand",
            )

    def read(self) -> Data:
        """Return what has been read so far; a Refusal where it has something whose outcome cannot be compared."""
        self.check()
        rows = {decode_table(table): Rows(count, self._totals[table]) for table, count in self.rows.items()}
        objects = {oid: found.hexdigest() for oid, found in self._objects.items()}
        return Data(rows, dict(self._sequences), objects, dict(self._about))

    def _read_rows(self) -> bool:
        end = self._rest.find(b"\n\\.\n")
        stop = end if end >= 0 else self._rest.rfind(b"\n")
        if stop > 0:
            lines = self._rest[1:stop].split(b"\n")
            self._count += len(lines)
            self._total = (self._total + sum(map(hash, lines))) & _HASH_BITS
            self._rest = self._rest[stop:]
        if end < 0:
            return False
        if self._table is not None:
            self.rows[self._table] = self.rows.get(self._table, 0) + self._count
            self.copies[self._table] = self.copies.get(self._table, 0) + 1
            self._totals[self._table] = (self._totals.get(self._table, 0) + self._total) & _HASH_BITS
        self._table, self._total = None, 0
        self._rest = self._rest[len(b"\n\\.\n") :]
        return True

    def _read_statement(self, statement: bytes) -> Table | None:
        statement = statement.strip()
        if statement.startswith(b"SELECT pg_catalog."):
            self._read_call(statement)
            return None
        if match := _LO_ABOUT.fullmatch(statement):
            oid = int(match[1])
            self._about[oid] = (self._about.get(oid, 0) + hash(statement)) & _HASH_BITS
            return None
        if statement.startswith(b"INSERT INTO ") and self._inserted is None:
            self._inserted = statement.partition(b" VALUES")[0].partition(b"(")[0].strip()[:80]  # no values
        return parse_copy(statement)

    def _read_call(self, statement: bytes) -> None:
        if match := _SETVAL.fullmatch(statement):
            name = match[2].replace(b"''", b"'")
            if match[1]:
                name = name.replace(b"\\\\", b"\\")
            self._sequences[name.decode("utf-8", "backslashreplace")] = (int(match[3]), match[4] == b"true")
        elif match := _LO_OPEN.fullmatch(statement):
            self._open = int(match[1])
            self._objects.setdefault(self._open, hashlib.sha256())
        elif (match := _LO_WRITE.fullmatch(statement)) and self._open is not None:
            self._objects[self._open].update(match[1])
        elif match := _LO_MADE.fullmatch(statement):
            self._objects.setdefault(int(match[1]), hashlib.sha256())
        elif not _MEANINGLESS.fullmatch(statement):
            self._unknown = self._unknown or statement.partition(b"(")[0][:80]  # no values


def decode_table(table: Table) -> TableName:
    """Return schema and name of a table as text."""
    schema, name = (part.decode("utf-8", "backslashreplace") for part in table)
    return schema, name


def join_data(parts: t.Iterable[Data]) -> Data:
    """Return what is in several objects of one dump together; each thing is in one of them."""
    joined = Data({}, {}, {}, {})
    for part in parts:
        joined.rows.update(part.rows)
        joined.sequences.update(part.sequences)
        joined.objects.update(part.objects)
        joined.about.update(part.about)
    return joined
