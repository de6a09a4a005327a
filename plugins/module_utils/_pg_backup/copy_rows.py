# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the rows of each table in a dump's text. Private to lowtide.ops: do not import from other collections.

The text is what ``pg_restore --section=data`` writes: settings, one COPY for each table, sequences, large objects.
Outside of rows it is read token by token, so that nothing in a name or a literal is taken for a statement. In rows a line
is a row, and the line ``\\.`` ends them: COPY escapes both characters wherever they are data.
"""

from __future__ import annotations

import re
import typing as t

Table = tuple[bytes, bytes]
"""Schema and name, in the encoding of the database."""
TableName = tuple[str, str]
"""The same as text. Joined they would be no identity: a table b.c in a, and a table c in a.b."""


class Expected(t.NamedTuple):
    """A table that must be in the dump; its rows may be copied into ``root``, the table that it is a partition of."""

    table: Table
    root: Table | None = None


_END = b"\n\\.\n"
_TOKEN = re.compile(rb"""--[^\n]*\n|'[^']*'|"[^"]*"|;\n?|-(?=[^-])|[^-'";]+""")
_NAME = rb'("(?:[^"]|"")*"|[^\s."(]+)'
_COPY = re.compile(rb"COPY\s+" + _NAME + rb"\." + _NAME + rb"[\s(].*FROM stdin\Z", re.DOTALL)


class RowCounter:
    """Reads the text in pieces; ``rows`` are the counts of the tables that have ended, ``copies`` of their COPYs.

    More than one COPY names a table whose partitions are dumped by its name.
    """

    def __init__(self) -> None:
        self.rows: dict[Table, int] = {}
        self.copies: dict[Table, int] = {}
        self._table: Table | None = None
        self._count = 0
        self._rest = b""
        self._statement: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Read one piece of any size."""
        self._rest += piece
        while self._read_rows() if self._table is not None else self._read_statements():
            pass

    def explain_end(self) -> str | None:
        """Return why the text cannot end here; None when it can."""
        if self._table is not None:
            return f"it ends inside the rows of {name_table(self._table)}"
        if self._rest.strip() or b"".join(self._statement).strip().startswith(b"COPY "):
            return "it ends inside a statement"
        return None

    def _read_rows(self) -> bool:
        """Count rows up to their end, or in what there is; return whether there is more to read."""
        end = self._rest.find(_END)
        if end < 0:
            # What may be the beginning of the end is kept.
            kept = len(_END) - 1
            self._count += self._rest.count(b"\n", 0, max(0, len(self._rest) - kept))
            self._rest = self._rest[-kept:]
            return False
        self._count += self._rest.count(b"\n", 0, end)
        if self._table is not None:
            self.rows[self._table] = self.rows.get(self._table, 0) + self._count
            self.copies[self._table] = self.copies.get(self._table, 0) + 1
        self._table = None
        self._rest = self._rest[end + len(_END) :]
        return True

    def _read_statement(self, statement: bytes) -> Table | None:
        """Read one whole statement; the table that it copies rows into, if it does."""
        return parse_copy(statement)

    def _read_statements(self) -> bool:
        """Read whole tokens up to the beginning of rows; return whether there is more to read."""
        position = 0
        while match := _TOKEN.match(self._rest, position):
            token = match[0]
            if token == b";":
                break  # whether a line ends here is in the next piece
            position = match.end()
            if token.startswith(b"--"):
                continue
            if not token.startswith(b";"):
                self._statement.append(token)
                continue
            table = self._read_statement(b"".join(self._statement))
            self._statement = []
            if table is not None:
                # The line before the first row counts as ended with it, so that no row at all looks like any other.
                self._table, self._count = table, 0
                self._rest = b"\n" + self._rest[position:]
                return True
        self._rest = self._rest[position:]
        return False


def parse_copy(statement: bytes) -> Table | None:
    """Return the table that a statement copies rows into; None for any other statement."""
    match = _COPY.fullmatch(statement.strip())
    return None if match is None else (unquote_name(match[1]), unquote_name(match[2]))


def unquote_name(name: bytes) -> bytes:
    """Return an SQL identifier without its quotes."""
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name


def name_table(table: Table) -> str:
    """Return ``schema.name`` as a person reads it."""
    return b".".join(table).decode("utf-8", "backslashreplace")
