# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that an object is what was sent, and whole. Private to lowtide.ops: do not import from other collections.

The object is read back from the server and must have the size and SHA-256 of what was sent, and everything in it
must decode, with every exit status checked: a checksum alone would vouch for a dump whose producer died.
"""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import replace

from .._common.errors import OpsError, WaitTimeout
from .manifest import Part
from .pipeline import Command, Pipeline, Stopped

if t.TYPE_CHECKING:
    from .._common.retry import Deadline
    from .._s3.bucket import Listed
    from .streams import Streams

NEXT_STEP = "It does not count as a backup; find out what altered it, and run again"


class Source(t.Protocol):
    """Where objects are read from: a bucket."""

    def url(self, key: str) -> str:
        """Return a key as a person writes it."""

    def read(self, key: str) -> bytes:
        """Return an object."""

    def stream(self, key: str, *, etag: str | None = None) -> t.Iterator[bytes]:
        """Yield an object in pieces."""


class Listing(t.Protocol):
    """Where objects are listed, and asked for their ETags: a bucket."""

    def url(self, key: str) -> str:
        """Return a key as a person writes it."""

    def list_objects(self, prefix: str) -> list[Listed]:
        """Return the objects below a prefix."""

    def check(self, key: str, size: int) -> str:
        """Return the ETag of an object, which has to have this size."""


class NotVerified(OpsError):
    """What the server holds is not what it should hold."""


def compare_part(obj: str, part: Part, *, size: int, sha256: str) -> None:
    """Raise where size or checksum are not those of ``part``."""
    if size != part.size:
        raise NotVerified(obj=obj, problem=f"it has {size} bytes, not {part.size}", next_step=NEXT_STEP)
    if sha256 != part.sha256:
        raise NotVerified(obj=obj, problem=f"its SHA-256 is {sha256}, not {part.sha256}", next_step=NEXT_STEP)


def verify_small(source: Source, key: str, part: Part) -> bytes:
    """Return a small object of the right size and checksum."""
    body = source.read(key)
    compare_part(source.url(key), part, size=len(body), sha256=hashlib.sha256(body).hexdigest())
    return body


def adopt_etags(source: Listing, folder: str, parts: t.Mapping[str, Part]) -> dict[str, Part]:
    """Return ``parts`` with the ETags of a listing, by which later runs compare: some servers give others for HEAD.

    Where one differs from the ETag by which the object was read, the object has to have that one still: only then does
    the listed one belong to what was verified, and not to an object that has come into its place since.
    """
    listed = {entry.key.rpartition("/")[2]: entry for entry in source.list_objects(folder)}
    result = {}
    for name, part in parts.items():
        entry, url = listed.get(name), source.url(folder + name)
        if entry is None:
            raise NotVerified(obj=url, problem="it has been removed since it was verified", next_step=NEXT_STEP)
        is_same = entry.size == part.size and (
            entry.etag == part.etag or source.check(folder + name, part.size) == part.etag
        )
        if not is_same:
            raise NotVerified(obj=url, problem="it has been replaced since it was verified", next_step=NEXT_STEP)
        result[name] = replace(part, etag=entry.etag)
    return result


def decompress_command(zstd: str) -> Command:
    """Return the program that decompresses a dump."""
    return Command((zstd, "-d", "-q", "-c"), next_step=NEXT_STEP)


def decode_part(
    source: Source,
    key: str,
    part: Part,
    *,
    commands: t.Sequence[Command],
    take: t.Callable[[bytes], None],
    deadline: Deadline,
    etag: str | None,
    streams: Streams,
) -> None:
    """Read and compare an object and decode it by ``commands`` in one pass; ``take`` gets what comes of it, and must not raise."""
    obj = source.url(key)
    digest, size, is_fed = hashlib.sha256(), 0, True
    with Pipeline(commands, deadline=deadline, feed=True, collect=True) as pipeline:
        streams.attach(pipeline)
        pipeline.consume(take)
        for chunk in source.stream(key, etag=etag):
            pipeline.check()
            digest.update(chunk)
            size += len(chunk)
            if is_fed:
                try:
                    pipeline.stdin.write(chunk)
                except BrokenPipeError:
                    is_fed = False  # a decoder gave up; read on, because the checksum says more about the cause
        try:
            pipeline.finish()
        except (WaitTimeout, Stopped):
            raise
        except OpsError as error:
            compare_part(obj, part, size=size, sha256=digest.hexdigest())
            raise NotVerified(
                obj=obj, problem=f"it cannot be decoded: {error.obj} {error.problem}", next_step=NEXT_STEP
            ) from error
    compare_part(obj, part, size=size, sha256=digest.hexdigest())
    if not is_fed:
        raise NotVerified(obj=obj, problem="there is data behind the end of the dump", next_step=NEXT_STEP)
