# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a backup of MariaDB, and how its objects are named; pure.

``<prefix>/<database>/<server>/<run>/<part>``. A MariaDB server has no identifier of its data, so the server's declared
name stands in the path, and the positions of replication tell whether a backup is of its past.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass

from .._backup import keys
from .._backup.manifest import WRONG_TYPES, NotAManifest, Published, explain_types, read_document, read_published
from .dump_text import digest_script

if t.TYPE_CHECKING:
    from .dump_text import DumpText

DUMP = "dump.sql.zst"
PARTS = (DUMP, keys.TABLES)
"""What each manifest vouches for."""
LAYOUT = keys.Layout(DUMP, (keys.STARTED, DUMP, keys.TABLES, keys.MANIFEST), re.compile(r"[A-Za-z0-9_%-]+"))
FORMAT = "lowtide.ops/mysql_backup"
FORMAT_VERSIONS = (1,)
_CHARSET = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class ServerIdentity:
    """What tells one server from another: its host and port, its server_id, and its server_uid, "" where it has none.

    None of them does by itself: host names and numbers repeat in containers, and server_uid comes of the MAC address.
    """

    host: str
    server_id: int
    uid: str

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"{self.host} (server_id {self.server_id}{f', server_uid {self.uid}' if self.uid else ''})"


@dataclass(frozen=True)
class MySqlManifest(Published):
    """A backup of a MariaDB database.

    ``gtid``, ``log_file`` and ``log_position`` are where the binary log stood at the snapshot; None where the server
    writes none. ``definitions`` is the number of views, routines, triggers, events and sequences. ``server`` is which
    server was dumped; None in a manifest of before it was noted.
    """

    gtid: str | None
    log_file: str | None
    log_position: int | None
    charset: str
    collation: str
    definitions: int
    server: ServerIdentity | None = None

    layout: t.ClassVar[keys.Layout] = LAYOUT

    def to_json(self) -> bytes:
        """Return the document."""
        return self.to_document(FORMAT, 1, "sha256, full decode, tables, rows and definitions counted")

    def report_more(self) -> dict[str, t.Any]:
        """Return the position in the binary log, and the number of definitions."""
        return {
            "gtid": self.gtid,
            "log_file": self.log_file,
            "log_position": self.log_position,
            "definitions": self.definitions,
        }


def read_manifest(body: bytes) -> MySqlManifest:
    """Return the manifest in ``body``, or raise NotAManifest."""
    document = read_document(body, kind=FORMAT, versions=FORMAT_VERSIONS)
    try:
        common = read_published(document)
        if set(common["parts"]) != set(PARTS):
            raise ValueError(f"parts are {sorted(common['parts'])}, not {sorted(PARTS)}")
        return MySqlManifest(
            **common,
            gtid=_optional(document["gtid"]),
            log_file=_optional(document["log_file"]),
            log_position=None if document["log_position"] is None else int(document["log_position"]),
            charset=_read_charset(document["charset"]),
            collation=_read_charset(document["collation"]),
            definitions=int(document["definitions"]),
            server=_read_identity(document.get("server")),
        )
    except WRONG_TYPES as error:
        raise NotAManifest(explain_types(error)) from error


def _read_identity(value: t.Any) -> ServerIdentity | None:
    return None if value is None else ServerIdentity(str(value["host"]), int(value["server_id"]), str(value["uid"]))


def _optional(value: t.Any) -> str | None:
    return None if value is None else str(value)


def _read_charset(value: t.Any) -> str:
    """Return the name of a character set or collation, which goes into statements as it is."""
    if not isinstance(value, str) or _CHARSET.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no character set or collation")
    return value


def parse_gtid(text: str) -> dict[int, int]:
    """Return the sequence number of each domain of a position such as ``0-1-4711,2-1-8``."""
    numbers = (entry.strip().split("-") for entry in text.split(",") if entry.strip())
    return {int(domain): int(sequence) for domain, _server, sequence in numbers}


@dataclass(frozen=True)
class MySqlOrigin:
    """A server by itself and by its position in replication: a backup that is ahead of it is not of its past.

    ``identity`` is None where the name of the server, or of a cluster, is declared: any server may have that name.
    """

    gtid: str
    identity: ServerIdentity | None = None

    def explain_foreign(self, manifest: Published) -> str | None:
        """Return why ``manifest`` is not of this server or its past; None when it is."""
        if not isinstance(manifest, MySqlManifest):
            return None
        problem = explain_other_server(self.identity, manifest)
        if problem is not None or not manifest.gtid:
            return problem
        own = parse_gtid(self.gtid)
        for domain, sequence in parse_gtid(manifest.gtid).items():
            if own.get(domain, 0) < sequence:
                return (
                    f"it is of GTID {manifest.gtid}, and this server is at {self.gtid or 'none'}: another one, or set"
                    " back"
                )
        return None


def explain_other_server(identity: ServerIdentity | None, manifest: MySqlManifest) -> str | None:
    """Return why a backup is of another server than ``identity``; None when it is of this one, or any may be meant."""
    if identity is None or manifest.server == identity or (manifest.server is None and identity.host in manifest.hosts):
        return None
    other = manifest.server or " and ".join(manifest.hosts)
    return f"it is of server {other}, and this one is {identity}; option server names what both are of, if they are"


def write_contents(dump: DumpText) -> bytes:
    """Return the document of what is in a dump: tables with their rows and hashes, and definitions."""
    document = {
        "tables": [
            {"name": name, "rows": table.rows, "digest": table.digest, "definition": table.definition}
            for name, table in sorted(dump.tables.items())
        ],
        "definitions": [
            {"kind": kind, "name": name, "digest": digest_script(script)}
            for (kind, name), script in sorted(dump.scripts.items())
        ],
        "definers": sorted(dump.definers),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Contents:
    """What a backup has: rows, hash of rows, and hash of the definition of each table; hashes of definitions."""

    tables: dict[str, tuple[int, str, str]]
    definitions: dict[tuple[str, str], str]
    definers: tuple[str, ...]


def read_contents(body: bytes) -> Contents:
    """Return what :func:`write_contents` wrote."""
    document = json.loads(body)
    return Contents(
        tables={
            entry["name"]: (int(entry["rows"]), entry["digest"], entry["definition"]) for entry in document["tables"]
        },
        definitions={(entry["kind"], entry["name"]): entry["digest"] for entry in document["definitions"]},
        definers=tuple(document["definers"]),
    )


class Difference(t.NamedTuple):
    """How an object differs from the backup's; ``kind`` and ``name`` as in :data:`Key`.

    ``how`` is ``missing``, ``extra``, ``rows``, or ``text`` where only its definition is worded otherwise.
    """

    kind: str
    name: str
    what: str
    how: str

    def __str__(self) -> str:
        """Return how it is told."""
        return f"{self.kind.lower()} {self.name} {self.what}"


def compare_dump(contents: Contents, dump: DumpText, *, with_events: bool, with_rows: bool = True) -> list[Difference]:
    """Return how a dump differs from the contents of a backup, each by name; nothing where they are equal.

    A dump of definitions alone has no rows to compare.
    """
    differences: list[Difference] = []
    for name in sorted({*contents.tables, *dump.tables}):
        expected, table = contents.tables.get(name), dump.tables.get(name)
        what, how = "", "rows"
        if table is None or expected is None:
            what, how = ("is missing", "missing") if table is None else ("is not in the backup", "extra")
        elif with_rows and table.rows != expected[0]:
            what = f"has {table.rows} rows, the backup {expected[0]}"
        elif with_rows and table.digest != expected[1]:
            what = f"has {table.rows} rows as in the backup, and some have other values"
        elif table.definition != expected[2]:
            what, how = "is defined otherwise (columns, indexes, constraints or options)", "text"
        if what:
            differences.append(Difference("TABLE", name, what, how))
    return differences + compare_definitions(contents, dump, with_events=with_events)


def compare_definitions(contents: Contents, dump: DumpText, *, with_events: bool) -> list[Difference]:
    """Return how views, routines, triggers, sequences and events differ from those of a backup."""
    differences: list[Difference] = []
    scripts = {key: digest_script(script) for key, script in dump.scripts.items()}
    for kind, name in sorted({*contents.definitions, *scripts}):
        key = kind, name
        if kind == "EVENT" and not with_events:
            continue
        if key not in scripts:
            differences.append(Difference(kind, name, "is missing", "missing"))
        elif key not in contents.definitions:
            differences.append(Difference(kind, name, "is not in the backup", "extra"))
        elif scripts[key] != contents.definitions[key]:
            what = "is another (definer, text, sql_mode, character set, or value of a sequence)"
            differences.append(Difference(kind, name, what, "text"))
    return differences
