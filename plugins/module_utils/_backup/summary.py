# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Word what the modules of backups report; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t

from .._common.text import format_count, format_duration, format_size, join_some
from .manifest import stamp

if t.TYPE_CHECKING:
    from datetime import datetime

    from .catalogue import Examined
    from .keys import Place
    from .manifest import Published
    from .plan import Decision


def report_backup(manifest: Published, now: datetime, place: Place) -> dict[str, t.Any]:
    """Return a backup in the folder of a ``place`` as the modules report it."""
    return {
        "location": place.url(place.key(manifest.run_id, "")),
        "run_id": manifest.run_id,
        "database": manifest.database,
        "system_identifier": manifest.system_identifier,
        "server_version": manifest.server_version,
        "hosts": list(manifest.hosts),
        "source": manifest.source,
        "taken_at": stamp(manifest.taken_at),
        "verified_at": stamp(manifest.verified_at),
        "age_seconds": max(0, int((now - manifest.taken_at).total_seconds())),
        "size": manifest.size,
        "sha256": manifest.parts[manifest.main].sha256,
        "dumps": manifest.dumps,
        "tables": manifest.tables,
        "rows": manifest.rows,
        "encryption": manifest.encryption,
        **manifest.report_more(),
        "verified": True,
    }


def report_bad(examined: Examined) -> dict[str, t.Any]:
    """Return a run that does not count, and why."""
    return {
        "run_id": examined.run.run_id,
        "database": examined.run.database,
        "system_identifier": examined.run.system_identifier,
        "problem": examined.problem,
    }


def summarize_backup(
    *,
    database: str,
    url: str | None,
    decision: Decision,
    check_mode: bool,
    backup: t.Mapping[str, t.Any] | None,
    removed: t.Sequence[str],
) -> str:
    """Return one line: what was backed up and to where, what would be, or why nothing is due.

    ``backup`` is the new backup as :func:`report_backup` reports it, at ``url``; None where none was made.
    """
    if not decision.due:
        words = decision.why
    elif check_mode:
        words = f"would back up {database} ({decision.why})"
    elif backup is None:
        words = f"{database} was not backed up ({decision.why})"
    else:
        words = f"backed up {database}: {format_size(backup['size'])} to {url}, verified"
    if removed:
        words += (
            f"; {'would remove' if check_mode else 'removed'} {format_count(len(removed), 'older or unfinished run')}"
        )
    return words


def describe_streams(jobs: int) -> str:
    """Return in how many streams a dump may go, as it stands behind the word; nothing for one."""
    return f" in up to {jobs} streams" if jobs > 1 else ""


def describe_backup(backup: t.Mapping[str, t.Any], url: str) -> str:
    """Return one line of evidence: which backup it is, what is in it, and when it was verified."""
    objects = f" in {len(backup['dumps'])} dumps" if len(backup["dumps"]) > 1 else ""
    return (
        f"{url}: {format_count(backup['rows'], 'row')} of"
        f" {format_count(backup['tables'], 'table')}, {format_size(backup['size'])}{objects},"
        f" taken {backup['taken_at']}, verified {backup['verified_at']}, sha256 {backup['sha256'][:16]}"
    )


def summarize_backups(
    newest: t.Sequence[t.Mapping[str, t.Any]], *, location: str, bad: int, decoded: t.Sequence[str] | None
) -> str:
    """Return one line about the bucket: the newest verified backup of each database, and how many do not count.

    ``decoded`` names the backups that were decoded in this run, None where none was asked to be.
    """
    if newest:
        ages = [f"{entry['database']} {format_duration(entry['age_seconds'])} old" for entry in newest]
        words = f"newest verified {'backup' if len(newest) == 1 else 'backups'} in {location}: {join_some(ages)}"
    else:
        words = f"no verified backup in {location}"
    if decoded is not None:
        words += f"; {len(decoded)} decoded as a whole"
    return f"{words}; {bad} not verified" if bad else words
