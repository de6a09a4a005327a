# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that an object is a whole dump. Private to lowtide.ops: do not import from other collections.

The object is read back from the server and must have the size and SHA-256 of what was sent, and everything in it
must decode: ``zstd -d | pg_restore -f /dev/null`` with every exit status checked. Listing a dump's contents is not
enough, it succeeds on a truncated one; and a checksum alone would vouch for a dump whose producer died.
"""

from __future__ import annotations

import hashlib
import typing as t

from .._common.errors import OpsError
from .pipeline import Command, Pipeline

if t.TYPE_CHECKING:
    from .._common.retry import Deadline
    from .._s3.api import Reader
    from .manifest import Part

_NEXT = "It does not count as a backup; find out what altered it, and run again"


class NotVerified(OpsError):
    """What the server holds is not what it should hold."""


def _judge(bucket: str, key: str, part: Part, *, size: int, sha256: str) -> None:
    if size != part.size:
        raise NotVerified(obj=f"s3://{bucket}/{key}", problem=f"it has {size} bytes, not {part.size}", next_step=_NEXT)
    if sha256 != part.sha256:
        raise NotVerified(
            obj=f"s3://{bucket}/{key}", problem=f"its SHA-256 is {sha256}, not {part.sha256}", next_step=_NEXT
        )


def compare(reader: Reader, bucket: str, key: str, part: Part) -> None:
    """A small object: size and checksum."""
    body = reader.get(key)
    _judge(bucket, key, part, size=len(body), sha256=hashlib.sha256(body).hexdigest())


def decode(reader: Reader, bucket: str, key: str, part: Part, *, programs: tuple[str, str], deadline: Deadline) -> None:
    """A dump: size, checksum and full decode in one pass. ``programs`` are the paths of pg_restore and zstd."""
    pg_restore, zstd = programs
    digest, size = hashlib.sha256(), 0
    commands = [
        Command((zstd, "-d", "-q", "-c"), next_step=_NEXT),
        Command((pg_restore, "-f", "/dev/null"), next_step=_NEXT),
    ]
    with Pipeline(commands, deadline=deadline, feed=True) as pipeline:
        gone = False
        for chunk in reader.stream(key, etag=part.etag):
            digest.update(chunk)
            size += len(chunk)
            if not gone:
                try:
                    pipeline.stdin.write(chunk)
                except BrokenPipeError:
                    gone = True  # a decoder gave up; read on, because the checksum says more about the cause
        try:
            pipeline.finish()
        except OpsError as error:
            _judge(bucket, key, part, size=size, sha256=digest.hexdigest())
            raise NotVerified(
                obj=f"s3://{bucket}/{key}",
                problem=f"it cannot be decoded: {error.obj} {error.problem}",
                next_step=_NEXT,
            ) from error
        if gone:
            raise NotVerified(
                obj=f"s3://{bucket}/{key}", problem="there is data behind the end of the dump", next_step=_NEXT
            )
    _judge(bucket, key, part, size=size, sha256=digest.hexdigest())
