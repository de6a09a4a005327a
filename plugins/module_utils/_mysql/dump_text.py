# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the text of a dump as mariadb-dump writes it: tables, rows, definitions, position; pure.

Each row is on a line of its own, and no value has a line break in it, since the client escapes them. The rows of a
table are known by their number and the sum of their hashes, so that two dumps may be equal in any order of rows.

A dump names its database where it changes the default character set around a definition, and where a trigger was made
with the name in its text. The name is taken out, so that a restore acts on the database that it is in and on no other.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

_SANDBOX = b"/*M!999999\\- "
"""The first line of newer dumps, at which an older client ends. It forbids commands that ``--binary-mode`` lacks."""
_NAME = rb"`((?:[^`]|``)+)`"
_TABLE = re.compile(rb"CREATE TABLE " + _NAME + rb" \(\n")
_SEQUENCE = re.compile(rb"CREATE SEQUENCE " + _NAME)
_INSERT = re.compile(rb"INSERT INTO " + _NAME + rb"(?: \([^\n]*\))? VALUES\n")
_DROP = re.compile(
    rb"/\*!(?:50032|50003|50106) DROP (TRIGGER|PROCEDURE|FUNCTION|PACKAGE BODY|PACKAGE|EVENT) IF EXISTS " + _NAME
)
_NEXT_EVENT = re.compile(rb"(/\*!50106 DROP EVENT IF EXISTS " + _NAME + rb" \*/;);\n")
_VIEW = re.compile(rb"-- Final view structure for view " + _NAME + rb"\n")
_LOG = re.compile(rb"-- CHANGE MASTER TO MASTER_LOG_FILE='([^']*)', MASTER_LOG_POS=(\d+);")
_GTID = re.compile(rb"-- SET GLOBAL gtid_slave_pos='([^']*)';")
_COUNTER = re.compile(rb" AUTO_INCREMENT=\d+")
_DEFINER = re.compile(rb"DEFINER=`((?:[^`]|``)*)`@`((?:[^`]|``)*)`|DEFINER=`((?:[^`]|``)*)`")
_VIEW_END = b"/*!50001 SET collation_connection      = @saved_col_connection */;\n"
_ID = rb"(?:`(?:[^`]|``)+`|[\w$\x80-\xff]+)"
_DEFAULTS = re.compile(rb"ALTER DATABASE " + _NAME + rb" (CHARACTER SET \w+ COLLATE \w+ ;;?)\n")
_NAMES_DATABASE = re.compile(
    rb"\s*(?:/\*M?!\d*\s*)?(?:USE\b|(?:CREATE|ALTER|DROP)(?:\s+OR\s+REPLACE)?\s+(?:DATABASE|SCHEMA)\b"
    rb"|(?:CREATE|ALTER|DROP|LOCK|TRUNCATE|RENAME|INSERT|REPLACE|UPDATE|DELETE)\b.*" + _NAME + rb"\s*\.)",
    re.IGNORECASE,
)
_TRIGGER = re.compile(
    rb"(\bTRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?)(?:"
    + _ID
    + rb"\s*\.\s*)?("
    + _ID
    + rb"\s+(?:BEFORE|AFTER)\s+(?:INSERT|UPDATE|DELETE)\s+ON\s+)(?:"
    + _ID
    + rb"\s*\.\s*)?("
    + _ID
    + rb"\s+FOR\s+EACH\s+ROW\b)",
    re.IGNORECASE,
)
MODULUS = 1 << 128
Key = tuple[str, str]
"""Kind and name of a definition: ``("TRIGGER", "price_check")``."""


def unquote(name: bytes) -> str:
    """Return a name as it is without its backquotes."""
    return name.replace(b"``", b"`").decode("utf-8", "replace")


@dataclass
class Table:
    """A table in a dump: number of its rows, sum of their hashes, hash of its definition."""

    rows: int = 0
    total: int = 0
    definition: str = ""

    @property
    def digest(self) -> str:
        """Return the sum of the hashes of its rows, in hexadecimal."""
        return f"{self.total:032x}"


@dataclass
class DumpText:
    """What has been read so far. ``problem`` is set by the first line that mariadb-dump does not write.

    ``unclear`` are triggers whose text may name their database in a way that is not known; they are never passed on.
    """

    tables: dict[str, Table] = field(default_factory=dict)
    scripts: dict[Key, bytes] = field(default_factory=dict)
    log_file: str | None = None
    log_position: int | None = None
    gtid: str | None = None
    is_complete: bool = False
    problem: str | None = None
    unclear: list[str] = field(default_factory=list)
    _rest: bytes = b""
    _state: str = "plain"
    _table: Table | None = None
    _pending: Key | None = None
    _lines: list[bytes] = field(default_factory=list)
    _is_event: bool = False
    _held: list[bytes] = field(default_factory=list)
    _is_switched: bool = False
    _switched: Key | None = None

    @property
    def rows(self) -> int:
        """Return the number of all rows."""
        return sum(table.rows for table in self.tables.values())

    @property
    def definers(self) -> set[str]:
        """Return the accounts that definitions belong to, as ``user@host``."""
        found = set()
        for script in self.scripts.values():
            match = _DEFINER.search(script)
            if match is not None:
                found.add(f"{unquote(match[1])}@{unquote(match[2])}" if match[3] is None else unquote(match[3]))
        return found

    def feed(self, chunk: bytes) -> list[bytes]:
        """Read on, and return the lines of it that are to be restored at once: all but those that make events.

        Nor is that among them which asks the client for its sandbox.

        They name no database. Nothing that follows a problem is among them.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        kept: list[bytes] = []
        for text in lines:
            line = text + b"\n"
            is_event, key = self._is_event, self._pending
            try:
                line = self._take_out_name(line)
                self._take(line)
            except ValueError as error:
                self.problem = self.problem or str(error)
            if self.problem is not None or (is_event and self._is_event) or line.startswith(_SANDBOX):
                self._held = []
                continue
            self._held.append(line)
            if self._state != "block":
                kept += self._release(key)
        return kept

    def _release(self, key: Key | None) -> list[bytes]:
        """Return what was held until the end of a definition, which is known only there."""
        held, self._held = self._held, []
        if len(held) == 1 or key is None or key[0] != "TRIGGER":
            return held
        return [] if key[1] in self.unclear else [_TRIGGER.sub(rb"\1\2\3", b"".join(held), count=1)]

    def _take_out_name(self, line: bytes) -> bytes:
        """Return a statement so that it acts on the database that it is executed in; one that cannot is an error."""
        if self._state not in ("plain", "block"):
            return line
        match = _DEFAULTS.fullmatch(line)
        if match is not None and match[2].endswith(b";;") == (self._state == "block"):
            self._is_switched = not self._is_switched
            return b"ALTER DATABASE " + match[2] + b"\n"
        if self._state == "plain" and _NAMES_DATABASE.match(line) is not None:
            raise ValueError(f"a statement names a database: {line[:80]!r}")
        return line

    def read(self, chunk: bytes) -> None:
        """Read on."""
        self.feed(chunk)

    def finish(self) -> None:
        """Read the last line, which has no line break."""
        if self._rest:
            self.feed(b"\n")

    def explain_end(self) -> str | None:
        """Return why this is not a whole dump; None when it is."""
        if self.problem is not None:
            return self.problem
        if self._state != "plain":
            return "it ends in the middle of a statement"
        return None if self.is_complete else "it has no end mark"

    def _take(self, line: bytes) -> None:
        if self._state == "rows":
            self._take_row(line)
        elif self._state == "table":
            self._lines.append(line)
            if line.endswith(b";\n"):
                self._end_table()
        elif self._state == "block":
            match = _NEXT_EVENT.fullmatch(line) if self._is_event else None
            if match is not None:
                self._begin_next_event(match)
                return
            self._lines.append(line)
            if line == b"DELIMITER ;\n":
                self._end_definition()
        elif self._state == "view":
            self._lines.append(line)
            if line == _VIEW_END:
                self._end_definition()
        elif line.startswith(b"ALTER DATABASE "):
            self._take_defaults(line)
        else:
            self._take_plain(line)

    def _take_defaults(self, line: bytes) -> None:
        """Keep a change of the default character set with the definition before which, or after which, it stands."""
        if self._switched is None:
            self._lines.append(line)
        else:
            self.scripts[self._switched] += line
            self._switched = None

    def _take_row(self, line: bytes) -> None:
        table = self._table
        if table is None or not line.startswith(b"(") or line[-3:] not in (b"),\n", b");\n"):
            raise ValueError(f"a line among rows is none: {line[:40]!r}")
        table.rows += 1
        table.total = (
            table.total + int.from_bytes(hashlib.blake2b(line[:-2], digest_size=16).digest(), "big")
        ) % MODULUS
        if line.endswith(b";\n"):
            self._state = "plain"

    def _take_plain(self, line: bytes) -> None:
        if line.startswith(b"INSERT INTO "):
            match = _INSERT.fullmatch(line)
            if match is None or unquote(match[1]) not in self.tables:
                raise ValueError(f"rows without a table: {line[:60]!r}")
            self._table, self._state = self.tables[unquote(match[1])], "rows"
        elif line.startswith(b"CREATE TABLE "):
            match = _TABLE.fullmatch(line)
            if match is None:
                raise ValueError(f"a table whose name cannot be read: {line[:80]!r}")
            self._table = self.tables.setdefault(unquote(match[1]), Table())
            self._lines, self._state = [line], "table"
        elif line.startswith(b"CREATE SEQUENCE "):
            match = _SEQUENCE.match(line)
            if match is None:
                raise ValueError(f"a sequence whose name cannot be read: {line[:80]!r}")
            self._pending = "SEQUENCE", unquote(match[1])
            self.scripts[self._pending] = line
        elif line.startswith(b"DO SETVAL(") and self._pending is not None:
            self.scripts[self._pending] += line
            self._pending = None
        elif line.startswith(b"--"):
            self._take_comment(line)
        elif line == b"DELIMITER ;;\n":
            self._lines.append(line)
            self._state = "block"
        elif line.startswith(b"/*!50"):
            match = _DROP.match(line)
            if match is not None:
                self._pending = match[1].decode(), unquote(match[2])
            self._lines.append(line)
        else:
            self._lines = []

    def _take_comment(self, line: bytes) -> None:
        if line.startswith(b"-- Dumping events for database "):
            self._is_event = True
        elif line.startswith(
            (b"-- Dumping routines for database ", b"-- Final view structure", b"-- The deferred gtid")
        ):
            self._is_event = False
        elif line.startswith(b"-- Dump completed"):
            self.is_complete = True
        if (match := _VIEW.fullmatch(line)) is not None:
            self._pending, self._lines, self._state = ("VIEW", unquote(match[1])), [], "view"
        if (match := _LOG.match(line)) is not None:
            self.log_file, self.log_position = match[1].decode(), int(match[2])
        if (match := _GTID.match(line)) is not None:
            self.gtid = match[1].decode()

    def _end_table(self) -> None:
        if self._table is not None:
            self._table.definition = hashlib.sha256(_COUNTER.sub(b"", b"".join(self._lines))).hexdigest()
        self._lines, self._state = [], "plain"

    def _begin_next_event(self, match: re.Match[bytes]) -> None:
        """Part two events, between which mariadb-dump does not change the delimiter back, as it does elsewhere."""
        self._lines.append(b"DELIMITER ;\n")
        self._end_definition()
        self._pending, self._state = ("EVENT", unquote(match[2])), "block"
        self._lines = [match[1] + b"\n"]

    def _end_definition(self) -> None:
        """Keep the statements that make a trigger, routine, event or view, with the settings of its maker."""
        if self._pending is None:
            raise ValueError("a definition without a name")
        kept = [line for line in self._lines if b"@save" not in line and line not in (b"--\n", b"\n")]
        script = b"".join(kept)
        if self._pending[0] == "TRIGGER":
            script, number = _TRIGGER.subn(rb"\1\2\3", script, count=1)
            self.unclear += [] if number else [self._pending[1]]
        self.scripts[self._pending] = script
        self._switched = self._pending if self._is_switched else None
        self._pending, self._lines, self._state = None, [], "plain"


def digest_script(script: bytes) -> str:
    """Return the hash of a definition, in hexadecimal."""
    return hashlib.sha256(script).hexdigest()
