# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: what makes an object a backup; pure. Private to lowtide.ops: do not import from other collections.

It is written last. Whoever finds one knows that the objects it names were read back and decoded as a whole
before it was written. ``format_version`` 1 stays readable by later releases; 2 is that of a dump in several objects, so
that a release which knows only of one does not take that one for the whole.
"""

from __future__ import annotations

import ipaddress
import json
import typing as t
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from . import keys

UTC = timezone.utc  # noqa: UP017  # managed hosts may have Python 3.8
FORMAT = "lowtide.ops/pg_backup"
FORMAT_VERSIONS = (1, 2)
_VIA = " via "
"""Stands between a server's own address and the one that leads to it."""


class NotAManifest(Exception):  # reads as what it says
    """The bytes are no manifest of a version this release reads; the text says why."""


@dataclass(frozen=True)
class Part:
    """One object of a backup: ``size`` in bytes, ``sha256`` in hexadecimal, ``etag`` as the server gave it on publishing."""

    size: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class Published:
    """One published backup, of whatever kind. Times are UTC; ``taken_at`` is the moment of the data, by the database server's clock.

    ``hosts`` is by which names and addresses the server was reached.
    """

    run_id: str
    database: str
    system_identifier: str
    server_version: str
    client_version: str
    hosts: tuple[str, ...]
    source: str
    taken_at: datetime
    finished_at: datetime
    verified_at: datetime
    dump_seconds: float
    verify_seconds: float
    tables: int
    rows: int
    encryption: str | None
    parts: dict[str, Part]

    layout: t.ClassVar[keys.Layout] = keys.POSTGRESQL

    def to_document(self, kind: str, version: int, verification: str) -> bytes:
        """Return the document, stable in its order of keys."""
        document = {"format": kind, "format_version": version, "verification": verification, **asdict(self)}
        for name in ("taken_at", "finished_at", "verified_at"):
            document[name] = stamp(document[name])
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"

    @property
    def dumps(self) -> list[str]:
        """Return the parts that hold the dump, the main one first."""
        return [self.layout.dump]

    @property
    def main(self) -> str:
        """Return the part that has the schema."""
        return self.layout.dump

    @property
    def size(self) -> int:
        """Return the bytes of all parts together."""
        return sum(part.size for part in self.parts.values())

    def report_more(self) -> dict[str, t.Any]:
        """Return what modules report of this kind of backup beside what all kinds have."""
        return {}


@dataclass(frozen=True)
class Manifest(Published):
    """A backup of PostgreSQL.

    ``timeline`` is on which one the server was: a physical copy of a cluster has its system identifier and its database
    names, and only this and ``hosts`` tell the two apart. ``warnings`` say what is not in it, or what pg_dump has warned
    of; earlier releases did not write them. ``time_zone`` is the one in which the dump shows times; None of one with the settings
    of its server.
    """

    timeline: int
    role_passwords: bool
    warnings: tuple[str, ...] = ()
    time_zone: str | None = None

    def to_json(self) -> bytes:
        """Return the document."""
        version = FORMAT_VERSIONS[len(self.dumps) > 1]
        return self.to_document(FORMAT, version, "sha256, full decode, tables and their rows counted")

    @property
    def dumps(self) -> list[str]:
        """Return the parts that pg_dump has written, the main one first."""
        return keys.list_dumps(self.parts)

    @property
    def main(self) -> str:
        """Return the part that has the schema."""
        return keys.name_main(self.parts)

    def report_more(self) -> dict[str, t.Any]:
        """Return the timeline, and the warnings."""
        return {"timeline": self.timeline, "warnings": list(self.warnings)}


def stamp(moment: datetime) -> str:
    """Return a moment in ISO 8601, UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_stamp(text: t.Any) -> datetime:
    """Return the moment that a text of :func:`stamp` says."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


@dataclass(frozen=True)
class Identity:
    """Which server a backup is of: the names by which it may be reached, its timeline, and how it was ``reached`` now."""

    hosts: tuple[str, ...]
    timeline: int
    reached: tuple[str, ...] = ()

    def explain_foreign(self, manifest: Published) -> str | None:
        """Return why ``manifest`` is not of this server or its past; None when it is."""
        if isinstance(manifest, Manifest) and manifest.timeline > self.timeline:
            return f"it is of timeline {manifest.timeline}, and this server is on timeline {self.timeline}"
        common = set(manifest.hosts) & set(self.hosts)
        taken_from = f"it was taken from {' = '.join(manifest.hosts)}, and this server is"
        if not common:
            return f"{taken_from} {' = '.join(self.hosts)}"
        address, own_address = find_address(manifest.hosts), find_address(self.reached)
        if address is None or own_address is None or address == own_address:
            return None
        # The one name by which both were reached has led to two servers. Members of a cluster have a name each.
        if common - (set(manifest.hosts[:1]) & set(self.reached[:1])):
            return None
        return f"{taken_from} {' = '.join(self.reached)}: one name, another address"


def is_local(host: str | None) -> bool:
    """Return whether a name means the machine itself: a socket, or a loopback address."""
    return not host or host.startswith(("/", "@", "127.")) or host in ("localhost", "::1")


def name_host(host: str | None, port: int, *, node: str) -> str:
    """Return ``host:port``; a server on the machine itself is named by the machine's name ``node``."""
    return f"{node if is_local(host) else host}:{port}"


def name_server(
    host: str | None, port: int, *, address: str | None, server_port: int | None, node: str, peer: str | None = None
) -> tuple[str, ...]:
    """Return the names of a server that was reached by ``host``, its own ``address`` last (None: by a socket).

    One that the connection does not go to (``peer`` is another address), at the end of a tunnel, behind a translated address
    or in a container, has an address that others may have elsewhere: it is one only together with what leads to it.
    """
    if is_local(host) and address is not None and not is_local(address):
        return (f"{address}:{server_port}{_VIA}{node}:{port}",)
    name = name_host(host, port, node=node)
    if address is None:
        return (name,)
    if peer is not None and peer != address:
        return (name, f"{address}:{server_port}{_VIA}{name}")
    return tuple(dict.fromkeys((name, name_host(address, port, node=node))))


def name_members(
    hosts: t.Iterable[str], port: int, *, address: str | None, reached: tuple[str, ...], node: str
) -> tuple[str, ...]:
    """Return every name that a cluster may have: as listed, and as it was ``reached``.

    A name of the machine itself is none of a server that has an address elsewhere.
    """
    is_here = address is None or is_local(address)
    listed = [name_host(host, port, node=node) for host in hosts if is_here or not is_local(host)]
    return tuple(dict.fromkeys((*listed, *reached)))


def find_address(hosts: t.Sequence[str]) -> str | None:
    """Return the server's own address among its names, where it is the last; None where that is a name."""
    own = hosts[-1].partition(_VIA)[0] if hosts else ""
    try:
        ipaddress.ip_address(own.rpartition(":")[0])
    except ValueError:
        return None
    return own


def is_taken_from(names: t.Iterable[str], hosts: t.Iterable[str], *, node: str) -> bool:
    """Return whether a server that a manifest gives ``names`` is among ``hosts``, each ``host:port`` as seen from ``node``."""
    names = tuple(names)
    for given in hosts:
        host, _colon, port = given.rpartition(":")
        if not is_local(host):
            if given in names:
                return True
        elif f"{node}:{port}" in names or any(name.endswith(f"{_VIA}{node}:{port}") for name in names):
            return True
    return False


class Origin(t.Protocol):
    """A server that tells its own backups from those of others."""

    def explain_foreign(self, manifest: Published) -> str | None:
        """Return why ``manifest`` is not of this server or its past; None when it is."""


def write_started(*, run_id: str, started_at: datetime, timeout: int, host: str, kind: str = FORMAT) -> bytes:
    """Return the document that a run writes first: who it is, and for how long at most it is at work."""
    document = {
        "format": kind,
        "run_id": run_id,
        "started_at": stamp(started_at),
        "timeout": timeout,
        "host": host,
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def read_timeout(body: bytes) -> int | None:
    """Return for how many seconds the run of this document may be at work; None when it does not say so."""
    try:
        timeout = json.loads(body)["timeout"]
    except (ValueError, KeyError, TypeError):
        return None
    return timeout if isinstance(timeout, int) and timeout > 0 else None


def read_document(body: bytes, *, kind: str, versions: t.Collection[int]) -> dict[str, t.Any]:
    """Return the document in ``body`` if it is of this kind and of a version that this release reads."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise NotAManifest(f"it is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != kind:
        raise NotAManifest(f"its format is not {kind}")
    version = document.get("format_version")
    if version not in versions:
        readable = " and ".join(map(str, versions))
        raise NotAManifest(f"its format_version is {version!r}; this release reads {readable}")
    return document


def read_published(document: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the fields that all kinds of backups have, typed."""
    if not keys.is_run_id(document["run_id"]):
        raise ValueError(f"run_id is {document['run_id']!r}")
    return {
        "run_id": document["run_id"],
        **{
            name: str(document[name])
            for name in ("database", "system_identifier", "server_version", "client_version", "source")
        },
        "hosts": tuple(str(host) for host in document["hosts"]),
        **{name: parse_stamp(document[name]) for name in ("taken_at", "finished_at", "verified_at")},
        **{name: float(document[name]) for name in ("dump_seconds", "verify_seconds")},
        **{name: int(document[name]) for name in ("tables", "rows")},
        "encryption": None if document["encryption"] is None else str(document["encryption"]),
        "parts": {
            name: Part(size=int(entry["size"]), sha256=str(entry["sha256"]), etag=str(entry["etag"]))
            for name, entry in document["parts"].items()
        },
    }


WRONG_TYPES = (KeyError, TypeError, ValueError, AttributeError)
"""What comes of a document with other fields than a manifest has."""


def read_manifest(body: bytes) -> Manifest:
    """Return the manifest in ``body``, or :class:`NotAManifest`."""
    document = read_document(body, kind=FORMAT, versions=FORMAT_VERSIONS)
    try:
        return _typed(document)
    except WRONG_TYPES as error:
        raise NotAManifest(explain_types(error)) from error


def explain_types(error: Exception) -> str:
    """Return what to say of one of ``WRONG_TYPES``."""
    return f"a field is missing or of the wrong type: {type(error).__name__} {error}"


def _typed(document: dict[str, t.Any]) -> Manifest:
    common = read_published(document)
    if not keys.is_complete(common["parts"]):
        raise ValueError(
            f"parts are {sorted(common['parts'])}, not {sorted(keys.PARTS)}, nor {keys.MAIN} with data-1.pgc.zst and so on"
        )
    return Manifest(
        **common,
        timeline=int(document["timeline"]),
        role_passwords=bool(document["role_passwords"]),
        warnings=tuple(str(warning) for warning in document.get("warnings", ())),
        time_zone=None if document.get("time_zone") is None else str(document["time_zone"]),
    )
