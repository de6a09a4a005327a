# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name a backup's objects; pure. Private to lowtide.ops: do not import from other collections.

``<prefix>/<database>/<system identifier>/<run>/<part>``. The database's name is percent-encoded down to letters,
digits, ``_`` and ``-``, so that no name can leave its folder or collide with another one. The system identifier is
part of the path, so that two clusters with a database of the same name have a folder each. A physical copy of a
cluster has its identifier, too: whose backup it is, is in the manifest.

A dump in several streams has, beside the main object, further ones with the rows of its largest tables. Its main object
has a name of its own, so that nobody restores it as the whole dump that it is not.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from urllib.parse import unquote

from .._common.errors import Refusal

if t.TYPE_CHECKING:
    from datetime import datetime

DUMP = "dump.pgc.zst"
"""A whole dump. Before :data:`MAIN` was introduced it was also the main object of a dump in several streams."""
MAIN = "main.pgc.zst"
"""The main object of a dump in several streams: the schema, and all rows but those of the further objects."""
GLOBALS = "globals.sql"
TABLES = "tables.json"
MANIFEST = "manifest.json"
STARTED = "started.json"
PARTS = (DUMP, GLOBALS, TABLES)
"""What each manifest vouches for, besides the further objects of its dump."""
ORDER = (STARTED, GLOBALS, DUMP, TABLES, MANIFEST)
"""In which order a run writes its objects. The tables are known once the dump has been read back and decoded."""
MAX_JOBS = 16
"""In how many streams at most a database is dumped; one more server connection and some parts in memory for each."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_RUN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_KEY = re.compile(
    r"(?P<database>[A-Za-z0-9_%-]+)/(?P<system>[A-Za-z0-9_%-]+)/(?P<run>\d{8}T\d{6}Z-[0-9a-f]{8})/(?P<part>[a-z0-9.-]+)"
)
_DATA = re.compile(r"data-([1-9]\d{0,2})\.pgc\.zst")


@dataclass(frozen=True)
class Layout:
    """How the objects of one kind of backup are named: its ``dump``, the parts in the ``order`` in which they are written.

    ``system`` is the pattern of a server's name in the path, and ``further`` that of further objects of a dump, if any, which
    then has ``main`` in place of ``dump``.
    """

    dump: str
    order: tuple[str, ...]
    system: re.Pattern[str]
    further: re.Pattern[str] | None = None
    main: str | None = None

    @property
    def mains(self) -> frozenset[str]:
        """Return the names of which one is the main object of a dump."""
        return frozenset(filter(None, (self.dump, self.main)))

    def is_part(self, name: str) -> bool:
        """Return whether an object of that name in a run's folder is ours."""
        return name in {*self.order, *self.mains} or (
            self.further is not None and self.further.fullmatch(name) is not None
        )

    def order_parts(self, names: t.Iterable[str]) -> list[str]:
        """Return those of ``names`` that are parts in the order in which a run writes them."""

        def rank(name: str) -> tuple[int, int]:
            match = self.further.fullmatch(name) if self.further is not None else None
            place = self.order.index(self.dump if match or name in self.mains else name)
            return (place, int(match[1]) if match else 0)

        return sorted(filter(self.is_part, names), key=rank)


POSTGRESQL = Layout(DUMP, ORDER, re.compile(r"\d+"), _DATA, MAIN)


def name_data(number: int) -> str:
    """Return the name of a further object of a dump, with the rows of some tables; they count from 1."""
    return f"data-{number}.pgc.zst"


def is_part(name: str) -> bool:
    """Return whether an object of that name in a run's folder is of a backup of PostgreSQL."""
    return POSTGRESQL.is_part(name)


def order_parts(names: t.Iterable[str]) -> list[str]:
    """Return those of ``names`` that are parts in the order in which a run writes them: further objects after the main one."""
    return POSTGRESQL.order_parts(names)


def list_dumps(names: t.Iterable[str]) -> list[str]:
    """Return the objects among ``names`` that pg_dump has written: the main one, and those with further rows."""
    return [name for name in order_parts(names) if name in (DUMP, MAIN) or _DATA.fullmatch(name)]


def name_main(names: t.Collection[str]) -> str:
    """Return the main object of a backup with the parts ``names``: the one that has the schema."""
    return MAIN if MAIN in names else DUMP


def is_complete(names: t.Collection[str]) -> bool:
    """Return whether ``names`` are the parts that a manifest vouches for: no gap among those with further rows.

    A main object without any is not the whole dump.
    """
    further = [name_data(number) for number in range(1, len(names) - len(PARTS) + 1)]
    mains = (DUMP, MAIN) if further else (DUMP,)
    return any(set(names) == {main, GLOBALS, TABLES, *further} for main in mains)


def encode_name(name: str) -> str:
    """Return a database's name as one path segment; reversible, and different for different names."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in name.encode())


def run_id(moment: datetime, token: str) -> str:
    """Return the name of a run: its time stamp (UTC, to the second) and eight hexadecimal digits of ``token``."""
    return f"{moment.strftime('%Y%m%dT%H%M%SZ')}-{token[:8]}"


def is_run_id(text: str) -> bool:
    """Return whether ``text`` is a name that :func:`run_id` makes."""
    return _RUN.fullmatch(text) is not None


def clean_prefix(prefix: str) -> str:
    """Return ``prefix`` without slashes at its ends; one with empty, ``.`` or ``..`` segments or control characters is refused."""
    stripped = prefix.strip("/")
    segments = stripped.split("/") if stripped else []
    if any(segment in ("", ".", "..") for segment in segments) or any(
        ord(char) < 0x20 or ord(char) == 0x7F for char in stripped
    ):
        raise Refusal(
            obj="option prefix",
            problem=f"{prefix!r} has an empty, '.' or '..' segment or a control character",
            next_step="Give plain folder names, for example backups/feature",
        )
    return stripped


@dataclass(frozen=True)
class Place:
    """The folder of one database of one cluster in one bucket. ``prefix`` comes from :func:`clean_prefix`."""

    bucket: str
    prefix: str
    database: str
    system_identifier: str

    @property
    def root(self) -> str:
        """Return the key prefix of everything that belongs here, with its slash."""
        return (
            "/".join(
                [
                    *([self.prefix] if self.prefix else []),
                    encode_name(self.database),
                    encode_name(self.system_identifier),
                ]
            )
            + "/"
        )

    def url(self, key: str = "") -> str:
        """Return ``key`` (or the folder) as a person writes it."""
        return f"s3://{self.bucket}/{key or self.root}"

    def key(self, run: str, part: str) -> str:
        """Return the key of one part of one run; that of the run's folder for no part."""
        return f"{self.root}{run}/{part}"


@dataclass(frozen=True)
class Address:
    """A key taken apart."""

    database: str
    system_identifier: str
    run: str
    part: str


def parse_key(key: str, prefix: str, layout: Layout = POSTGRESQL) -> Address | None:
    """Take ``key`` below ``prefix`` apart; None for an object that is not one of ours."""
    start = f"{prefix}/" if prefix else ""
    match = _KEY.fullmatch(key[len(start) :]) if key.startswith(start) else None
    if match is None or not layout.is_part(match["part"]) or layout.system.fullmatch(match["system"]) is None:
        return None
    return Address(
        database=unquote(match["database"], errors="replace"),
        system_identifier=unquote(match["system"], errors="replace"),
        run=match["run"],
        part=match["part"],
    )
