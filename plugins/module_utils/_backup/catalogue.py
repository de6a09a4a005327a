# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which backups a bucket holds, and which of them count. Private to lowtide.ops: do not import from other collections.

A backup counts as verified when its manifest is readable and every object that the manifest names is still there
with the size and the ETag that it had when it was published: one listing tells that, whatever the backups' size.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._s3.errors import S3Error
from . import keys
from .manifest import NotAManifest, Origin, Published, read_manifest

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._s3.bucket import Bucket, Listed

UNREADABLE = ("AccessDenied", "AllAccessDisabled", "InvalidObjectState", "NoSuchKey")
"""Answers that concern one object, and say nothing of the others."""


@dataclass
class Run:
    """What lies below one run's name: its objects by part."""

    database: str
    system_identifier: str
    run_id: str
    parts: dict[str, Listed] = field(default_factory=dict)
    layout: keys.Layout = keys.POSTGRESQL

    @property
    def is_published(self) -> bool:
        """Return whether it has a manifest."""
        return keys.MANIFEST in self.parts

    @property
    def is_unfinished(self) -> bool:
        """Return whether it is at work, or was interrupted: begun, and its dump never decoded.

        A run that has its tables and no manifest was verified. Somebody may have lost its manifest and want its dump.
        """
        return keys.STARTED in self.parts and not {keys.TABLES, keys.MANIFEST} & set(self.parts)

    @property
    def last_written(self) -> datetime:
        """Return when its newest object was written, by the server's clock."""
        return max(listed.modified for listed in self.parts.values())


@dataclass(frozen=True)
class Examined:
    """A run with its manifest, and the ``problem`` that keeps it from counting; None when it counts.

    ``is_moved`` says that all of it is there in the right size, and only the ETags are others: decoding it tells.
    """

    run: Run
    manifest: Published | None
    problem: str | None
    is_moved: bool = False

    @property
    def verified(self) -> bool:
        """Return whether it counts."""
        return self.problem is None and self.manifest is not None


def group(objects: t.Iterable[Listed], prefix: str, layout: keys.Layout = keys.POSTGRESQL) -> list[Run]:
    """Return the runs among ``objects``, newest name first; objects that are not ours are left out."""
    runs: dict[tuple[str, str, str], Run] = {}
    for listed in objects:
        address = keys.parse_key(listed.key, prefix, layout)
        if address is None:
            continue
        identity = (address.database, address.system_identifier, address.run)
        runs.setdefault(identity, Run(*identity, layout=layout)).parts[address.part] = listed
    return sorted(runs.values(), key=lambda run: run.run_id, reverse=True)


Reader = t.Callable[[bytes], Published]
"""What makes a manifest of bytes, or raises :class:`NotAManifest`."""


def judge(run: Run, body: bytes, read: Reader = read_manifest) -> Examined:
    """Return whether ``run`` counts, given the bytes of its manifest; pure."""
    try:
        manifest = read(body)
    except NotAManifest as error:
        return Examined(run, None, f"its manifest cannot be used: {error}")
    expected = (run.database, run.system_identifier, run.run_id)
    stated = (manifest.database, manifest.system_identifier, manifest.run_id)
    if stated != expected:
        return Examined(
            run, manifest, f"its manifest is of {' '.join(stated)!r}, but lies below {' '.join(expected)!r}"
        )
    changed: list[str] = []
    for name, part in manifest.parts.items():
        listed = run.parts.get(name)
        if listed is None:
            return Examined(run, manifest, f"{name} is missing")
        if listed.size != part.size:
            return Examined(run, manifest, f"{name} has {listed.size} bytes, the manifest says {part.size}")
        if listed.etag != part.etag:
            changed.append(f"{name} has been replaced since it was verified (ETag {listed.etag}, was {part.etag})")
    if changed:
        step = "if the bucket was copied from elsewhere, pg_backup_info with verify: full proves it by its SHA-256"
        return Examined(run, manifest, f"{changed[0]}; {step}", is_moved=True)
    return Examined(run, manifest, None)


class Manifests:
    """Reads the manifests of a bucket, each of them once as long as the listing has it with the same ETag.

    ``parse`` is for backups of another kind than those of PostgreSQL.
    """

    def __init__(self, bucket: Bucket, parse: Reader = read_manifest) -> None:
        self._bucket = bucket
        self._bodies: dict[tuple[str, str], bytes] = {}
        self.parse = parse

    def read(self, listed: Listed) -> bytes:
        """Return a manifest's bytes."""
        identity = (listed.key, listed.etag)
        if identity not in self._bodies:
            self._bodies[identity] = self._bucket.read(listed.key)
        return self._bodies[identity]


def examine(manifests: Manifests, run: Run) -> Examined:
    """Read ``run``'s manifest (one request) and judge it. One that cannot be read does not count; others may."""
    listed = run.parts.get(keys.MANIFEST)
    if listed is None:
        return Examined(run, None, "it has no manifest: it was never verified, or its manifest has been removed")
    try:
        return judge(run, manifests.read(listed), manifests.parse)
    except S3Error as error:
        if error.code not in UNREADABLE:
            raise
        return Examined(run, None, f"its manifest cannot be read: {error.problem}")


@dataclass(frozen=True)
class Findings:
    """The newest backup that counts for this server, and of the newer ones those that do not, and those of others."""

    newest: Published | None
    bad: list[Examined]
    foreign: list[Examined]


def find_newest(manifests: Manifests, runs: t.Iterable[Run], origin: Origin, *, latest: datetime) -> Findings:
    """Look for the newest run that counts; one request for each that was looked at. One dated after ``latest`` does not."""
    bad: list[Examined] = []
    foreign: list[Examined] = []
    for run in runs:
        if run.is_unfinished or not {keys.MANIFEST, *run.layout.mains} & set(run.parts):
            continue
        examined = examine(manifests, run)
        if examined.manifest is None or not examined.verified:
            bad.append(examined)
            continue
        reason = origin.explain_foreign(examined.manifest)
        if reason is not None:
            foreign.append(Examined(run, examined.manifest, reason))
        elif examined.manifest.taken_at > latest:
            bad.append(Examined(run, examined.manifest, "it is dated in the future"))
        else:
            return Findings(examined.manifest, bad, foreign)
    return Findings(None, bad, foreign)
