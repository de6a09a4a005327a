# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove interrupted runs and old backups once a new one counts. Private to lowtide.ops: do not import from other collections.

Nothing here decides whether there is a backup: what cannot be removed is named in a warning, and the rest goes on.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from datetime import timedelta

from .._common.errors import OpsError
from .._s3.errors import S3Error
from . import keys
from .catalogue import UNREADABLE, Run
from .manifest import read_timeout

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._s3.bucket import Bucket


def find_interrupted(
    bucket: Bucket, runs: t.Iterable[Run], *, now: datetime, timeout: int
) -> tuple[list[Run], list[Run]]:
    """Return the unfinished runs that cannot be at work any more, and those that may be.

    A run says itself how long it may take; ``now`` and the age of its objects are by the S3 server's clock. One that
    cannot be read is given ``timeout`` seconds.
    """
    interrupted: list[Run] = []
    possible: list[Run] = []
    for run in runs:
        if not run.is_unfinished:
            continue
        allowed = timedelta(seconds=read_allowed(bucket, run) or timeout)
        (interrupted if now - run.parts[keys.STARTED].modified > allowed else possible).append(run)
    return interrupted, possible


def read_allowed(bucket: Bucket, run: Run) -> int | None:
    """Return how many seconds a run may take, by what it wrote first; None where that cannot be read."""
    try:
        return read_timeout(bucket.read(run.parts[keys.STARTED].key))
    except S3Error as error:
        if error.code not in UNREADABLE:
            raise
        return None


@dataclass
class Cleaning:
    """Removals, one object at a time: which runs are gone, and warnings for what is not."""

    bucket: Bucket
    place: keys.Place
    removed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def remove(self, run: Run) -> None:
        """Remove a run's objects, its manifest first, so that what an interruption leaves does not count as a backup."""
        url = self.place.url(self.place.key(run.run_id, ""))
        try:
            for part in reversed(keys.ORDER):
                if part in run.parts:
                    self.bucket.delete(run.parts[part].key)
        except OpsError as error:
            self.warnings.append(f"{url} could not be removed: {error}")
            return
        self.removed.append(url)

    def abort_uploads(self, runs: t.Iterable[Run]) -> None:
        """Abort the multipart uploads of runs that cannot be at work any more."""
        folders = tuple(self.place.key(run.run_id, "") for run in runs)
        try:
            for upload in self.bucket.list_uploads(self.place.root):
                if upload.key.startswith(folders):
                    self.bucket.abort(upload)
        except OpsError as error:
            self.warnings.append(f"unfinished uploads below {self.place.url()} could not be aborted: {error}")
