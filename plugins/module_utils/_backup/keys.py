# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a backup's objects are; pure. Private to lowtide.ops: do not import from other collections.

``<prefix>/<database>/<system identifier>/<run>/<part>`` once published, and
``<prefix>/<database>/<system identifier>/.incoming/<run>/<part>`` before that. The database's name is
percent-encoded down to letters, digits, ``_`` and ``-``, so that no name can leave its folder, collide with
another one, or look like ``.incoming``. The system identifier is part of the path, so that two clusters with a
database of the same name never touch each other's objects.
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
GLOBALS = "globals.sql"
TABLES = "tables.json"
MANIFEST = "manifest.json"
PARTS = (DUMP, GLOBALS, TABLES)
INCOMING = ".incoming"

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_RUN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_KEY = re.compile(
    r"(?P<database>[A-Za-z0-9_%-]+)/(?P<system>\d+)/(?P<incoming>\.incoming/)?(?P<run>\d{8}T\d{6}Z-[0-9a-f]{8})/(?P<part>[a-z.]+)"
)


def encode_name(name: str) -> str:
    """A database's name as one path segment; reversible, and different for different names."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in name.encode())


def run_id(moment: datetime, token: str) -> str:
    """The name of a run: its time stamp (UTC, to the second) and eight hexadecimal digits of ``token``."""
    return f"{moment.strftime('%Y%m%dT%H%M%SZ')}-{token[:8]}"


def is_run_id(text: str) -> bool:
    """Whether ``text`` is a name that :func:`run_id` makes."""
    return _RUN.fullmatch(text) is not None


def clean_prefix(prefix: str) -> str:
    """``prefix`` without slashes at its ends; one with empty, ``.`` or ``..`` segments or control characters is refused."""
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
        """Key prefix of everything that belongs here, with its slash."""
        return (
            "/".join([*([self.prefix] if self.prefix else []), encode_name(self.database), self.system_identifier])
            + "/"
        )

    @property
    def incoming(self) -> str:
        """Key prefix of what has not been published."""
        return f"{self.root}{INCOMING}/"

    def url(self, key: str = "") -> str:
        """``key`` (or the folder) as a person writes it."""
        return f"s3://{self.bucket}/{key or self.root}"

    def key(self, run: str, part: str, *, incoming: bool = False) -> str:
        """The key of one part of one run."""
        return f"{self.incoming if incoming else self.root}{run}/{part}"


@dataclass(frozen=True)
class Address:
    """A key taken apart."""

    database: str
    system_identifier: str
    run: str
    part: str
    incoming: bool


def parse_key(key: str, prefix: str) -> Address | None:
    """``key`` below ``prefix`` taken apart; None for an object that is not one of ours."""
    start = f"{prefix}/" if prefix else ""
    match = _KEY.fullmatch(key[len(start) :]) if key.startswith(start) else None
    if match is None or match["part"] not in (*PARTS, MANIFEST):
        return None
    return Address(
        database=unquote(match["database"], errors="replace"),
        system_identifier=match["system"],
        run=match["run"],
        part=match["part"],
        incoming=match["incoming"] is not None,
    )
