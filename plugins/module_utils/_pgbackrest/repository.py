# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pgBackRest says of a repository, read from its own output; pure.

The exit code says little: in 2.45 ``info`` of a stanza that does not exist and ``verify`` of a damaged backup end with
0, and so does a backup that found invalid page checksums. Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import json
import re
import typing as t

from .._common.errors import OpsError, Refusal
from .._common.timestamps import format_utc

OK, NO_BACKUPS = 0, 2
"""The codes of a stanza's status with which it can be worked with."""
VERIFIED = "lowtide-verified"
"""The annotation with the time at which a backup was verified as a whole, in UTC."""
DAMAGED = "lowtide-damaged"
"""The annotation with the time at which a verification found damage in a backup, in UTC."""
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?")
_BACKUP = re.compile(r"\s+backup: (\S+), status: ([^,]+)(?:,|$)")
_ARCHIVE = re.compile(r"\s+archiveId: ([^,]+),")
_COUNT = re.compile(r"(missing|checksum invalid|size invalid|other): (\d+)")
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d |\s{8}")
_BAD_SEGMENT = re.compile(r"invalid \w+ '?(?:[^'\s]*/)?([^'/\s]+)/[0-9A-F]{16}/([0-9A-F]{24})-[0-9a-f]{40}")
_SEGMENT = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?")


class Backup(t.NamedTuple):
    """A backup. ``started`` and ``ended`` are seconds since the epoch; ``has_errors``: pages with an invalid checksum.

    ``references`` are the labels of the backups that it needs besides itself; ``verified_at`` and ``damaged_at`` are
    what this collection has noted on it, empty for none. ``is_current``: it is of the cluster of the stanza, and
    not from before a ``stanza-upgrade``.
    """

    label: str
    type: str
    started: int
    ended: int
    has_errors: bool
    references: tuple[str, ...]
    archive_id: str
    first_segment: str
    last_segment: str
    start_lsn: str
    size: int
    stored: int
    verified_at: str
    damaged_at: str
    is_current: bool = True


class Stanza(t.NamedTuple):
    """What ``info`` says of a stanza in one repository; ``is_locked``: a backup or expire of it is running.

    ``system_identifier`` is of the cluster that it is of now, and ``newest_segments`` are the last WAL segments in the
    repository, by archive.
    """

    name: str
    code: int
    message: str
    is_locked: bool
    backups: tuple[Backup, ...]
    system_identifier: str = ""
    newest_segments: t.Mapping[str, str] = {}


class Verification(t.NamedTuple):
    """What ``verify`` says: of each backup its status, and what is wrong with the repository, as lines.

    ``wal_damage`` says the same of the WAL in it, ``invalid`` how many segments of each archive are, and
    ``bad_segments`` which: archive and name.
    """

    status: str
    backups: dict[str, str]
    problems: tuple[str, ...]
    wal_damage: tuple[str, ...] = ()
    invalid: t.Mapping[str, int] = {}
    bad_segments: frozenset[tuple[str, str]] = frozenset()


def parse_version(output: str) -> tuple[int, int] | None:
    """Return the version in the output of ``pgbackrest version``; None where there is none."""
    match = _VERSION.search(output)
    return None if match is None else (int(match[1]), int(match[2]))


def parse_info(output: str, *, stanza: str, repository: int) -> Stanza:
    """Read the output of ``info --output=json --stanza=STANZA``. What is not of the known form is an error."""
    try:
        entries = json.loads(output)
        entry = next(entry for entry in entries if entry["name"] == stanza)
        known = {repo["key"]: repo["status"] for repo in entry["repo"]}
        status = known.get(repository)
        if status is None:
            numbers = ", ".join(str(key) for key in sorted(known))
            raise Refusal(
                obj=f"repository {repository} of stanza {stanza}",
                problem=f"it is not configured; there is {numbers}",
                next_step="Correct the option repository, or configure it on this host",
            )
        current = max((db["id"] for db in entry["db"] if db["repo-key"] == repository), default=None)
        archives = {(db["id"], db["repo-key"]): f"{db['version']}-{db['id']}" for db in entry["db"]}
        backups = tuple(
            _read_backup(
                backup,
                archives[backup["database"]["id"], repository],
                is_current=backup["database"]["id"] == current,
            )
            for backup in entry["backup"]
            if backup["database"]["repo-key"] == repository
        )
        is_locked = bool(entry["status"]["lock"]["backup"]["held"])
        systems = [str(db["system-id"]) for db in entry["db"] if db["repo-key"] == repository and db["id"] == current]
        segments = {
            archive["id"]: str(archive["max"])
            for archive in entry.get("archive") or ()
            if archive["database"]["repo-key"] == repository and archive.get("max")
        }
        code, message = int(status["code"]), str(status["message"])
        return Stanza(stanza, code, message, is_locked, backups, "".join(systems[:1]), segments)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise OpsError(
            obj=f"pgbackrest info of stanza {stanza}",
            problem=f"its output is not of the known form ({type(error).__name__})",
            next_step="Run `pgbackrest info --output=json` as this user and look at it",
        ) from error


def _read_backup(entry: dict[str, t.Any], archive_id: str, *, is_current: bool) -> Backup:
    notes = entry.get("annotation") or {}
    archive = entry["archive"]
    return Backup(
        label=entry["label"],
        type=entry["type"],
        started=int(entry["timestamp"]["start"]),
        ended=int(entry["timestamp"]["stop"]),
        has_errors=bool(entry.get("error")),
        references=tuple(entry.get("reference") or ()),
        archive_id=archive_id,
        first_segment=archive["start"] or "",
        last_segment=archive["stop"] or "",
        start_lsn=(entry.get("lsn") or {}).get("start") or "",
        size=int(entry["info"]["size"]),
        stored=int(entry["info"]["repository"].get("delta") or 0),
        verified_at=str(notes.get(VERIFIED) or ""),
        damaged_at=str(notes.get(DAMAGED) or ""),
        is_current=is_current,
    )


def parse_bad_files(output: str, label: str) -> list[str]:
    """Return the files in which a backup found pages with an invalid checksum, of the output of ``info --set``.

    They are paths below the data directory, with the name of the database where pgBackRest knows it.
    """
    try:
        backups = [backup for entry in json.loads(output) for backup in entry["backup"] if backup["label"] == label]
        names = {str(ref["oid"]): ref["name"] for backup in backups for ref in backup.get("database-ref") or ()}
        files = [str(path) for backup in backups for path in backup.get("error-list") or ()]
    except (ValueError, KeyError, TypeError):
        return []
    return [_name_file(path, names) for path in files]


def _name_file(path: str, databases: t.Mapping[str, str]) -> str:
    parts = path.split("/")
    name = databases.get(parts[1]) if len(parts) > 1 else None
    return f"{path} (database {name})" if name else path


def parse_verification(output: str) -> Verification | None:
    """Read the output of ``verify --output=text --verbose``; None where it does not say a status.

    With ``--log-level-console=info`` lines of the log are among it, which are all that names a damaged segment.
    """
    status, backup, archive_id = "", "", ""
    backups: dict[str, str] = {}
    problems: list[str] = []
    wal_damage: list[str] = []
    invalid: dict[str, int] = {}
    for line in output.splitlines():
        text = line.strip()
        if _LOG_LINE.match(line):
            continue
        if text.startswith("status:") and not status:
            status = text.partition(":")[2].strip()
        elif (match := _BACKUP.match(line)) is not None:
            backup = match[1]
            backups[backup] = match[2].strip()
        elif (match := _ARCHIVE.match(line)) is not None:
            backup, archive_id = "", match[1]
        elif counts := _COUNT.findall(line):
            wrong = ", ".join(f"{name}: {count}" for name, count in counts if int(count))
            if wrong and backup:
                backups[backup] += f" ({wrong})"
            elif wrong:
                wal_damage.append(f"WAL archive {archive_id}: {wrong}")
                invalid[archive_id] = sum(int(count) for name, count in counts if name != "missing")
        elif line.startswith("  ") and not line.startswith("   "):
            problems.append(text)
    bad = frozenset(_BAD_SEGMENT.findall(output))
    return Verification(status, backups, tuple(problems), tuple(wal_damage), invalid, bad) if status else None


def list_needed_segments(backup: Backup) -> list[str]:
    """Return the names of the WAL segments without which a backup cannot be made consistent, in order."""
    first, last = backup.first_segment, backup.last_segment
    if not (first and last):
        return []
    timeline, per_file = first[:8], _count_segments(backup)
    number = int(first[8:16], 16) * per_file + int(first[16:], 16)
    end = int(last[8:16], 16) * per_file + int(last[16:], 16)
    return [f"{timeline}{index // per_file:08X}{index % per_file:08X}" for index in range(number, end + 1)]


def _count_segments(backup: Backup) -> int:
    """Return how many segments make 4 GiB: where a name and the LSN in it fit several sizes, of the most usual, 16 MiB.

    It matters only between two files of 4 GiB, where the segment's number is large and only one size fits.
    """
    offset, number = int(backup.start_lsn.partition("/")[2] or "0", 16), int(backup.first_segment[16:], 16)
    sizes = [size for size in (1 << power for power in range(20, 31)) if offset // size == number]
    size = 16 << 20 if 16 << 20 in sizes or not sizes else sizes[0]
    return (1 << 32) // size


def list_archived(output: str) -> set[str]:
    """Return the WAL segments in the output of ``repo-ls --output=json`` of a folder of the archive."""
    try:
        entries = json.loads(output)
    except ValueError:
        return set()
    names = (_SEGMENT.fullmatch(name.rpartition("/")[2]) for name in entries)
    return {match[1] for match in names if match is not None}


def has_reached(position: str, segment: str, segment_size: int) -> bool:
    """Return whether a server that has replayed to ``position`` has come to the WAL segment of this name."""
    high, _slash, low = position.partition("/")
    start = (int(segment[8:16], 16) << 32) + int(segment[16:], 16) * segment_size
    return (int(high, 16) << 32) + int(low, 16) >= start


def describe(backup: Backup) -> dict[str, t.Any]:
    """Return a backup as the module reports it."""
    return {
        "label": backup.label,
        "type": backup.type,
        "started_at": format_utc(backup.started),
        "ended_at": format_utc(backup.ended),
        "builds_on": list(backup.references),
        "size": backup.size,
        "stored": backup.stored,
        "has_page_errors": backup.has_errors,
        "verified_at": backup.verified_at or None,
        "damaged_at": backup.damaged_at or None,
    }
