# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups a bucket holds, and which of them count. Private to lowtide.ops: do not import from other collections.

A backup counts as verified when its manifest is readable and every object that the manifest names is still there
with the size and the ETag that it had when it was published: one listing tells that, whatever the backups' size.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import keys
from .manifest import Manifest, NotAManifest, read_manifest

if t.TYPE_CHECKING:
    from .._s3.api import Reader
    from .._s3.parse import Listed, Upload


@dataclass
class Run:
    """What lies below one run's name: published and incoming objects by part."""

    database: str
    system_identifier: str
    run_id: str
    published: dict[str, Listed] = field(default_factory=dict)
    incoming: dict[str, Listed] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """A published run with its manifest, or with the ``problem`` that keeps it from counting."""

    run: Run
    manifest: Manifest | None
    problem: str | None

    @property
    def verified(self) -> bool:
        """Whether it counts."""
        return self.problem is None and self.manifest is not None


def group(objects: t.Iterable[Listed], prefix: str) -> list[Run]:
    """The runs among ``objects``, newest name first; objects that are not ours are left out."""
    runs: dict[tuple[str, str, str], Run] = {}
    for listed in objects:
        address = keys.parse_key(listed.key, prefix)
        if address is None:
            continue
        identity = (address.database, address.system_identifier, address.run)
        run = runs.setdefault(identity, Run(address.database, address.system_identifier, address.run))
        (run.incoming if address.incoming else run.published)[address.part] = listed
    return sorted(runs.values(), key=lambda run: run.run_id, reverse=True)


def judge(run: Run, body: bytes) -> Examined:
    """Whether ``run`` counts, given the bytes of its manifest; pure."""
    try:
        manifest = read_manifest(body)
    except NotAManifest as error:
        return Examined(run, None, f"its manifest cannot be used: {error}")
    expected = (run.database, run.system_identifier, run.run_id)
    stated = (manifest.database, manifest.system_identifier, manifest.run_id)
    if stated != expected:
        return Examined(
            run, manifest, f"its manifest is of {' '.join(stated)!r}, but lies below {' '.join(expected)!r}"
        )
    for name, part in manifest.parts.items():
        listed = run.published.get(name)
        if listed is None:
            return Examined(run, manifest, f"{name} is missing")
        if listed.size != part.size:
            return Examined(run, manifest, f"{name} has {listed.size} bytes, the manifest says {part.size}")
        if listed.etag != part.etag:
            return Examined(
                run, manifest, f"{name} has been replaced since it was verified (ETag {listed.etag}, was {part.etag})"
            )
    return Examined(run, manifest, None)


def examine(reader: Reader, run: Run) -> Examined:
    """Read ``run``'s manifest (one request) and judge it."""
    listed = run.published.get(keys.MANIFEST)
    if listed is None:
        return Examined(run, None, "it has no manifest: it was never verified, or its manifest has been removed")
    return judge(run, reader.get(listed.key))


def newest_verified(reader: Reader, runs: t.Sequence[Run]) -> tuple[Examined | None, list[Examined]]:
    """The newest run that counts, and the newer ones that do not; one request for each that was looked at."""
    bad: list[Examined] = []
    for run in runs:
        if not run.published:
            continue
        examined = examine(reader, run)
        if examined.verified:
            return examined, bad
        bad.append(examined)
    return None, bad


@dataclass(frozen=True)
class Leftovers:
    """What interrupted runs left behind: keys to delete and multipart uploads to abort."""

    keys: tuple[str, ...]
    uploads: tuple[Upload, ...]

    def __bool__(self) -> bool:
        return bool(self.keys or self.uploads)

    @property
    def names(self) -> list[str]:
        """One line each, sorted."""
        return sorted([*self.keys, *(f"{upload.key} (multipart upload {upload.upload_id})" for upload in self.uploads)])


def leftovers(runs: t.Iterable[Run], uploads: t.Iterable[Upload]) -> Leftovers:
    """What may be removed once no other run is active; pure.

    Incoming objects always; published objects only of a run that has no manifest and still has its incoming
    objects, which is what a run killed between the copy and the manifest leaves. A run without both is not
    touched: somebody may have lost its manifest and still want its dump.
    """
    doomed: list[str] = []
    for run in runs:
        if not run.incoming:
            continue
        doomed += [listed.key for listed in run.incoming.values()]
        if keys.MANIFEST not in run.published:
            doomed += [listed.key for listed in run.published.values()]
    return Leftovers(keys=tuple(sorted(doomed)), uploads=tuple(uploads))
