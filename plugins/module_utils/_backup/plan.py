# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a backup due, and what is to be done; pure. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from datetime import datetime, timedelta

from .._common.errors import Refusal
from .._common.outcome import PlanItem
from .._common.text import format_count, format_duration, format_size, join_some
from .manifest import Manifest, stamp

if t.TYPE_CHECKING:
    from .catalogue import Examined, Leftovers
    from .keys import Place

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(\d+)([smhdw]?)")
# A backup dated this far ahead of the database server's clock is not believed.
SKEW = timedelta(minutes=5)
MIN_PART = 16 << 20
MAX_PARTS = 10_000


def parse_age(text: str) -> timedelta:
    """``24h``, ``90m``, ``7d``, ``3600`` (seconds) as a duration; anything else is refused."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise Refusal(
            obj="option max_age",
            problem=f"{text!r} is not a duration",
            next_step="Give a whole number with a unit s, m, h, d or w, for example 24h; 0 asks for a new backup every time",
        )
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise Refusal(
            obj="option max_age", problem=f"{text!r} is longer than can be counted", next_step="Give fewer days"
        ) from None


def readable_age(age: timedelta) -> str:
    """Return a duration as a person says it: the two largest units."""
    return format_duration(age.total_seconds())


@dataclass(frozen=True)
class Decision:
    """Whether a backup is due and the one line that says why."""

    due: bool
    why: str


def decide(*, newest: Manifest | None, now: datetime, max_age: timedelta) -> Decision:
    """Whether a new backup is due, judged by the database server's clock ``now``. Age counts from the snapshot."""
    if newest is None:
        return Decision(True, "there is no verified backup")
    age = now - newest.taken_at
    if age < -SKEW:
        return Decision(True, f"the newest verified backup {newest.run_id} is dated {readable_age(-age)} in the future")
    if age > max_age:
        return Decision(
            True,
            f"the newest verified backup {newest.run_id} is {readable_age(age)} old, allowed are {readable_age(max_age)}",
        )
    return Decision(
        False,
        f"newest verified backup {newest.run_id} is {readable_age(age)} old, younger than {readable_age(max_age)}",
    )


def plan(place: Place, decision: Decision, found: Leftovers, newest: Manifest | None) -> list[PlanItem]:
    """What is to be done, in order. The estimate is what the newest verified backup took."""
    items = []
    if found:
        items.append(
            PlanItem(
                object=place.url(place.incoming),
                what=f"remove {len(found.keys)} objects and {len(found.uploads)} unfinished uploads",
                why="an interrupted run left them and no run is active",
                reversible=False,
            )
        )
    if decision.due:
        estimate = None if newest is None else round(newest.dump_seconds + newest.verify_seconds, 1)
        items.append(
            PlanItem(
                object=place.url(),
                what="dump, upload, verify by a full decode, publish",
                why=decision.why,
                estimate=estimate,
            )
        )
    return items


def part_size(database_bytes: int) -> int:
    """Bytes of one part of the upload: equal parts, few enough for S3's limit of 10,000 even if nothing compresses.

    The text form of a dump may be larger than the table it comes from, hence the factor of two.
    """
    wanted = max(MIN_PART, -(-2 * database_bytes // MAX_PARTS))
    return -(-wanted // (1 << 20)) * (1 << 20)


def summary(manifest: Manifest, now: datetime) -> dict[str, t.Any]:
    """A backup as the modules report it."""
    return {
        "run_id": manifest.run_id,
        "database": manifest.database,
        "system_identifier": manifest.system_identifier,
        "server_version": manifest.server_version,
        "taken_at": stamp(manifest.taken_at),
        "verified_at": stamp(manifest.verified_at),
        "age_seconds": max(0, int((now - manifest.taken_at).total_seconds())),
        "size": manifest.size,
        "sha256": manifest.parts["dump.pgc.zst"].sha256,
        "tables": manifest.tables,
        "rows": manifest.rows,
        "encryption": manifest.encryption,
        "verified": True,
    }


def bad_summary(examined: Examined) -> dict[str, t.Any]:
    """A run that does not count, and why."""
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
    leftovers: t.Sequence[str],
) -> str:
    """Return one line: what was backed up and to where, what would be, or why nothing is due.

    ``backup`` is the new backup as :func:`summary` reports it, at ``url``; None where none was made.
    """
    if not decision.due:
        words = decision.why
    elif check_mode:
        words = f"would back up {database} ({decision.why})"
    elif backup is None:
        words = f"{database} was not backed up ({decision.why})"
    else:
        words = f"backed up {database}: {format_size(backup['size'])} to {url}, verified"
    if leftovers:
        verb = "would remove" if check_mode else "removed"
        words += f"; {verb} {format_count(len(leftovers), 'leftover')} of an interrupted run"
    return words


def describe_backup(backup: t.Mapping[str, t.Any], url: str) -> str:
    """Return one line of evidence: which backup it is, what is in it, and when it was verified."""
    return (
        f"{url}: {format_count(backup['rows'], 'row')} of"
        f" {format_count(backup['tables'], 'table')}, {format_size(backup['size'])},"
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
