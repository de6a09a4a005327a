# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find what is to be restored: a backup by its manifest, or a dump of somebody else. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from .._backup import catalogue, keys, verify
from .._backup.manifest import Manifest
from .._backup.plan import SKEW
from .._common.errors import Refusal
from .._common.text import join_some
from .restoring import Dump

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._backup.manifest import Published
    from .._postgresql.names import TableName
    from .._s3.bucket import Bucket, Listed

LATEST = "latest"


@dataclass(frozen=True)
class Source:
    """What is restored: ``run`` names it; ``manifest`` is None of a foreign dump, which nothing vouches for."""

    run: str
    database: str
    url: str
    dump: Dump
    manifest: Published | None
    listed: dict[str, str]
    passed: tuple[tuple[str, str], ...] = ()
    """Newer runs that do not count, by their address, with the reason."""

    @property
    def time_zone(self) -> str | None:
        """Return in which time zone the dump shows times, if that is known."""
        return self.manifest.time_zone if isinstance(self.manifest, Manifest) else None

    def read_globals(self) -> str | None:
        """Read the roles of the backup; None where there are none."""
        if self.manifest is None:
            return None
        key = self.listed[keys.GLOBALS]
        body = verify.verify_small(self.dump.bucket, key, self.manifest.parts[keys.GLOBALS])
        return body.decode("utf-8", "backslashreplace")

    def read_tables(self) -> list[dict[str, t.Any]]:
        """Read which tables the backup has, how many rows, and in which object; none of a foreign dump."""
        if self.manifest is None:
            return []
        body = verify.verify_small(self.dump.bucket, self.listed[keys.TABLES], self.manifest.parts[keys.TABLES])
        return list(json.loads(body))


def find_backup(bucket: Bucket, place: keys.Place, *, run: str, now: datetime) -> Source:
    """Return the backup of that name, or the newest one that counts."""
    runs = catalogue.group(bucket.list_objects(place.root), place.prefix)
    manifests = catalogue.Manifests(bucket)
    bad: list[catalogue.Examined] = []
    for candidate in runs:
        if run not in (LATEST, candidate.run_id):
            continue
        examined = catalogue.examine(manifests, candidate)
        manifest = examined.manifest
        # What only other ETags keep from counting is proven by its SHA-256, as everything that is restored.
        is_usable = manifest is not None and (examined.verified or examined.is_moved)
        if manifest is not None and is_usable and manifest.taken_at <= now + SKEW:
            listed = {name: entry.key for name, entry in candidate.parts.items()}
            dump = Dump(bucket, {name: listed[name] for name in manifest.dumps}, manifest.parts)
            url = place.url(place.key(candidate.run_id, ""))
            passed = tuple((name_run(place, entry), explain_bad(entry)) for entry in bad)
            return Source(candidate.run_id, manifest.database, url, dump, manifest, listed, passed)
        bad.append(examined)
    raise explain_none(bucket, place, run=run, bad=bad)


def name_run(place: keys.Place, examined: catalogue.Examined) -> str:
    """Return the address of a run."""
    return place.url(place.key(examined.run.run_id, ""))


def explain_bad(examined: catalogue.Examined) -> str:
    """Return why a run does not count."""
    return examined.problem or "it is dated in the future"


def explain_none(bucket: Bucket, place: keys.Place, *, run: str, bad: list[catalogue.Examined]) -> Refusal:
    """Return why there is no backup to restore, and where there are some."""
    step = "See with lowtide.ops.pg_backup_info which backups there are"
    if bad:
        return Refusal(
            obj=name_run(place, bad[0]),
            problem=f"it does not count as a backup: {explain_bad(bad[0])}",
            next_step=step,
        )
    above = place.root.rsplit("/", 2)[0] + "/"
    others = sorted({entry.system_identifier for entry in catalogue.group(bucket.list_objects(above), place.prefix)})
    others = [name for name in others if name != place.system_identifier]
    if others:
        step = f"There are runs of cluster {join_some(others)}: name the one that is meant in source_system_identifier"
    elif run == LATEST:
        step = f"Look whether bucket, prefix ({place.prefix or 'none'}) and database are those of the backups. {step}"
    what = "there is no backup" if run == LATEST else f"there is no backup {run}"
    return Refusal(obj=place.url(), problem=what, next_step=step)


def name_foreign(entry: Listed) -> str:
    """Return how a foreign dump is called, as backups are by their runs: another one under the same key is another."""
    content = f"{entry.key}\n{entry.size}\n{entry.etag}\n{entry.modified.isoformat()}"
    return f"foreign-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def is_foreign(run: str) -> bool:
    """Return whether ``run`` is a name that :func:`name_foreign` makes."""
    return re.fullmatch("foreign-[0-9a-f]{8}", run) is not None


def find_foreign(bucket: Bucket, key: str, *, database: str) -> Source:
    """Return a dump that has no manifest of ours, by its key."""
    entry = next((entry for entry in bucket.list_objects(key) if entry.key == key), None)
    if entry is None:
        raise Refusal(
            obj=bucket.url(key),
            problem="there is no such object",
            next_step="Correct foreign_dump: the key in the bucket. To remove what was made of it, name backup.run_id of that"
            " run in backup",
        )
    return Source(name_foreign(entry), database, bucket.url(key), Dump(bucket, {keys.DUMP: key}, None), None, {})


def place_tables(source: Source, tables: t.Sequence[TableName]) -> dict[str, list[tuple[str, str]]]:
    """Return the objects that the rows of ``tables`` are in, with those tables; one that is not in the backup is refused."""
    known = source.read_tables()
    places: dict[str, list[tuple[str, str]]] = {}
    for table in tables:
        fitting = [entry for entry in known if entry["name"] == table.name and table.schema in (None, entry["schema"])]
        if len(fitting) != 1:
            where = join_some(sorted(entry["schema"] for entry in fitting))
            raise Refusal(
                obj=f"option tables: {table.name if table.schema is None else f'{table.schema}.{table.name}'}",
                problem=f"it is in several schemas: {where}"
                if fitting
                else f"backup {source.run} has no rows of such a table",
                next_step="Name it with its schema, as in tables.json of the backup",
            )
        entry = fitting[0]
        places.setdefault(entry.get("object", source.dump.main), []).append((entry["schema"], entry["name"]))
    return places
