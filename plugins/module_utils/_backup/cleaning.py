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
from .._common.text import format_count, join_some
from .._s3.errors import S3Error
from . import keys
from .catalogue import UNREADABLE, Run
from .manifest import read_timeout

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._s3.bucket import Bucket

DENIED = ("AccessDenied", "AllAccessDisabled")
"""Answers that come to each deletion once they come to one."""


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
    """Removals, one object at a time: which runs are gone, and one warning for all that is not."""

    bucket: Bucket
    place: keys.Place
    removed: list[str] = field(default_factory=list)
    _problems: list[str] = field(default_factory=list)
    _is_denied: bool = False

    @property
    def warning(self) -> str | None:
        """Return what could not be done, and what to do about it; None where nothing was in the way."""
        if not self._problems:
            return None
        advice = (
            " An account that may only add objects needs keep and keep_for unset; see retention in the role's README."
            if self._is_denied
            else ""
        )
        return f"{self.place.url()}: {'; '.join(self._problems)}{advice}"

    def remove(self, runs: t.Sequence[Run]) -> None:
        """Remove runs, one after the other. What is denied for one is not asked for again."""
        kept: list[str] = []
        first: OpsError | None = None
        for run in runs:
            url = self.place.url(self.place.key(run.run_id, ""))
            if not self._is_denied:
                try:
                    self._remove(run)
                except OpsError as error:
                    first = first or error
                    self._is_denied = isinstance(error, S3Error) and error.code in DENIED
                else:
                    self.removed.append(url)
                    continue
            kept.append(url)
        if first is not None:
            names = f"{format_count(len(kept), 'older or unfinished run')} could not be removed ({join_some(kept)})"
            self._problems.append(f"{names}: {first}")

    def _remove(self, run: Run) -> None:
        """Remove a run's objects, its manifest first, so that what an interruption leaves does not count as a backup."""
        for part in reversed(run.layout.order_parts(run.parts)):
            self.bucket.delete(run.parts[part].key)

    def abort_uploads(self, runs: t.Iterable[Run]) -> None:
        """Abort the multipart uploads of runs that cannot be at work any more."""
        folders = tuple(self.place.key(run.run_id, "") for run in runs)
        try:
            for upload in self.bucket.list_uploads(self.place.root):
                if upload.key.startswith(folders):
                    self.bucket.abort(upload)
        except OpsError as error:
            self._problems.append(f"unfinished uploads could not be aborted: {error}")
