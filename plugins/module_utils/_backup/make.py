# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One new backup, from the snapshot to the manifest. Private to lowtide.ops: do not import from other collections.

Order, and why a kill at any point is harmless: everything goes up below ``.incoming`` first; it is read back and
decoded there; only then it is copied to its final name; the manifest, without which nothing counts, comes last;
the incoming objects go after it. Whatever a killed run leaves is found by the next run, which removes it once it
holds the lock that the killed run's session has lost.
"""

from __future__ import annotations

import hashlib
import json
import time
import typing as t
import uuid
from dataclasses import asdict

from .._common.errors import OpsError
from .._postgresql.connection import driver_error
from .._postgresql.errors import sql_error
from .._s3.connection import write_client
from . import catalogue, database, keys, verify
from .manifest import Manifest, Part
from .pipeline import Pipeline, run
from .plan import part_size, summary
from .upload import Bucket

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._postgresql.connection import Settings
    from .ensure import Backup, State

GLOBALS_END = b"-- PostgreSQL database cluster dump complete"


def apply(backup: Backup, state: State, lock: database.Lock, programs: database.Programs | None) -> None:
    """Remove what interrupted runs left, and make a backup if one is due (``programs`` are at hand then)."""
    token = uuid.uuid4().hex
    backup.outcome.write_attempted = True
    bucket = Bucket(
        write_client(backup.connection),
        name=backup.place.bucket,
        endpoint=backup.connection.endpoint,
        encryption=backup.options.encryption,
        metadata={"lowtide-run": token[:8]},
    )
    if state.left:
        try:
            bucket.remove(state.left)
        finally:
            backup.outcome.changed = bucket.has_removed
    if state.decision.due and programs is not None:
        One(backup, bucket, lock, programs, token).make()


class One:
    """One new backup in the making."""

    def __init__(
        self, backup: Backup, bucket: Bucket, lock: database.Lock, programs: database.Programs, token: str
    ) -> None:
        self.backup = backup
        self.bucket = bucket
        self.lock = lock
        self.programs = programs
        self.token = token
        self.parts: dict[str, Part] = {}
        self.published = False

    def make(self) -> None:
        """Dump, verify, publish; on failure nothing of this run is left, or what is left is named."""
        settings = database.client_settings(self.backup.session)
        snapshot = database.Snapshot(settings, run_id=self.token[:8])
        self.run_id = keys.run_id(snapshot.taken_at, self.token)
        try:
            try:
                rows, dump_seconds = self._dump(settings, snapshot)
            finally:
                snapshot.close()
            started = time.monotonic()
            self._verify()
            verify_seconds = time.monotonic() - started
            self._publish(snapshot.taken_at, rows, dump_seconds, verify_seconds)
        except BaseException:
            self._discard()
            raise
        self._discard_incoming()
        self._read_back()

    def _key(self, part: str) -> str:
        return self.backup.place.key(self.run_id, part, incoming=True)

    def _dump(self, settings: Settings, snapshot: database.Snapshot) -> tuple[list[database.Rows], float]:
        """Upload everything below ``.incoming``; the small parts first, so that a refusal comes before the long work."""
        started = time.monotonic()
        options, deadline = self.backup.options, self.backup.deadline
        environment = database.client_environment(settings, run_id=self.token[:8])
        counting = snapshot.count()
        roles = run(
            database.globals_command(self.programs, environment, role_passwords=options.role_passwords),
            deadline=deadline,
        )
        if GLOBALS_END not in roles[-200:]:
            raise OpsError(
                obj="pg_dumpall",
                problem="its output has no end mark",
                next_step="Run again; nothing has been published",
            )
        self._put(keys.GLOBALS, roles, "application/sql")
        size = self.backup.session.query("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")[0][0]
        commands = database.dump_commands(
            self.programs, environment, snapshot=snapshot.name, lock_timeout=options.lock_timeout
        )
        with Pipeline(commands, deadline=deadline, collect=True) as pipeline:
            self.parts[keys.DUMP] = self.bucket.upload(
                self._key(keys.DUMP), pipeline.stdout, part_bytes=part_size(size), ended=pipeline.finish
            )
        try:
            rows = counting.result()
        except driver_error() as error:
            raise sql_error(f"{settings.target}: counting rows", error) from error
        self._put(keys.TABLES, json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n", "application/json")
        return rows, time.monotonic() - started

    def _put(self, part: str, body: bytes, content_type: str) -> None:
        etag = self.bucket.put(self._key(part), body, content_type=content_type)
        self.parts[part] = Part(size=len(body), sha256=hashlib.sha256(body).hexdigest(), etag=etag)

    def _verify(self) -> None:
        reader, deadline = self.backup.reader, self.backup.deadline
        for name in (keys.GLOBALS, keys.TABLES):
            verify.compare(reader, self.backup.place.bucket, self._key(name), self.parts[name])
        verify.decode(
            reader,
            self.backup.place.bucket,
            self._key(keys.DUMP),
            self.parts[keys.DUMP],
            programs=(self.programs.pg_restore, self.programs.zstd),
            deadline=deadline,
        )

    def _publish(
        self, taken_at: datetime, rows: list[database.Rows], dump_seconds: float, verify_seconds: float
    ) -> None:
        backup, place = self.backup, self.backup.place
        self.lock.assert_held()
        published = {
            name: self.bucket.copy(self._key(name), place.key(self.run_id, name), part)
            for name, part in self.parts.items()
        }
        now = backup.session.query("SELECT pg_catalog.clock_timestamp()")[0][0]
        manifest = Manifest(
            run_id=self.run_id,
            database=place.database,
            system_identifier=place.system_identifier,
            server_version="{}.{}".format(*divmod(backup.session.server.version, 10000)),
            client_version=self.programs.version,
            taken_at=taken_at,
            finished_at=now,
            verified_at=now,
            dump_seconds=round(dump_seconds, 3),
            verify_seconds=round(verify_seconds, 3),
            tables=len(rows),
            rows=sum(row.rows for row in rows),
            role_passwords=backup.options.role_passwords,
            encryption=None if backup.options.encryption is None else backup.options.encryption.method,
            parts=published,
        )
        self.lock.assert_held()
        self.bucket.put(place.key(self.run_id, keys.MANIFEST), manifest.to_json(), content_type="application/json")
        self.published = True
        backup.outcome.changed = True

    def _discard_incoming(self) -> None:
        incoming = tuple(self._key(part) for part in keys.PARTS)
        self.bucket.remove(catalogue.Leftovers(keys=incoming, uploads=()))

    def _discard(self) -> None:
        """Remove what this run has written, unless it has been published; name what cannot be removed."""
        place, outcome = self.backup.place, self.backup.outcome
        doomed = tuple(self._key(part) for part in keys.PARTS)
        if not self.published:
            doomed = (
                place.key(self.run_id, keys.MANIFEST),
                *(place.key(self.run_id, part) for part in keys.PARTS),
                *doomed,
            )
        try:
            self.bucket.remove(
                catalogue.Leftovers(
                    keys=doomed, uploads=tuple(self.backup.reader.uploads(place.key(self.run_id, "", incoming=True)))
                )
            )
        except OpsError as error:
            outcome.changed = True
            outcome.facts["left_behind"] = (
                f"{place.url(place.key(self.run_id, '', incoming=True))} could not be cleared ({error.problem}); the next run does it"
            )

    def _read_back(self) -> None:
        """The backup as the next run will see it; an error if that run would not count it."""
        backup = self.backup
        runs = catalogue.group(backup.reader.objects(backup.place.root + self.run_id + "/"), backup.place.prefix)
        found, bad = catalogue.newest_verified(backup.reader, runs)
        if found is None or found.manifest is None:
            problem = bad[0].problem if bad else "it is not in the listing"
            raise OpsError(
                obj=backup.place.url(backup.place.key(self.run_id, keys.MANIFEST)),
                problem=f"published, but {problem}",
                next_step="Look who else writes below this prefix, and run again",
            )
        now = backup.session.query("SELECT pg_catalog.clock_timestamp()")[0][0]
        backup.outcome.facts["backup"] = summary(found.manifest, now)
