# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One backup from the first read to the manifest. Private to lowtide.ops: do not import from other collections.

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
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from .._common.errors import OpsError, Refusal
from .._common.module import Deadline, require
from .._postgresql.connection import Session, driver_error
from .._postgresql.errors import sql_error
from .._s3.api import Reader
from .._s3.connection import Connection, write_client
from . import catalogue, database, keys, verify
from .manifest import Manifest, Part
from .pipeline import Pipeline, run
from .plan import Decision, bad_summary, decide, part_size, plan, summary
from .upload import Bucket, Encryption

if t.TYPE_CHECKING:
    from .._common.outcome import Outcome

GLOBALS_END = b"-- PostgreSQL database cluster dump complete"


@dataclass(frozen=True)
class Options:
    """What the module was asked for; durations in seconds unless typed otherwise."""

    max_age: timedelta
    lock_timeout: int
    timeout: int
    role_passwords: bool
    encryption: Encryption | None
    bin_dir: str | None


@dataclass(frozen=True)
class State:
    """What was found: the decision, the newest verified backup, what does not count, what was left behind."""

    now: datetime
    decision: Decision
    newest: Manifest | None
    bad: list[catalogue.Examined]
    left: catalogue.Leftovers


class Backup:
    """The work of one module run on one database and one place."""

    def __init__(
        self,
        *,
        session: Session,
        reader: Reader,
        connection: Connection,
        place: keys.Place,
        options: Options,
        outcome: Outcome,
    ) -> None:
        self.session = session
        self.reader = reader
        self.connection = connection
        self.place = place
        self.options = options
        self.outcome = outcome
        self.lock = database.Lock(session)
        self.deadline = Deadline(options.timeout)

    def ensure(self, *, check: bool) -> None:
        """Read, plan, and unless ``check`` do what is due."""
        state = self._read()
        if not (state.decision.due or state.left):
            self._report(state, planned=True)
            return
        programs = None
        if state.decision.due:
            require("boto3", package="boto3", why="to write to S3")
            programs = database.find_programs(self.session, bin_dir=self.options.bin_dir, deadline=self.deadline)
        holder = self.lock.holder() if check else self.lock.take()
        if holder is not None:
            self._report(state, planned=False)
            if not state.decision.due:
                return  # what lies in .incoming belongs to the run that is active
            self.outcome.blockers.append(holder)
            raise Refusal(
                obj=holder.object,
                problem=f"{holder.what}: {holder.holder}, since {holder.since or 'just now'}",
                next_step=holder.next_step,
            )
        if not check:
            state = self._read()  # the run that held the lock before may have finished in between
        self._report(state, planned=True)
        if check:
            self.outcome.changed = bool(self.outcome.plan)
        elif self.outcome.plan:
            self._apply(state, programs)

    def _read(self) -> State:
        """The state, in two S3 requests plus one for each manifest looked at, normally one."""
        now = self.session.query("SELECT pg_catalog.clock_timestamp()")[0][0]
        runs = catalogue.group(self.reader.objects(self.place.root), self.place.prefix)
        uploads = self.reader.uploads(self.place.root)
        found, bad = catalogue.newest_verified(self.reader, runs)
        newest = None if found is None else found.manifest
        return State(
            now=now,
            decision=decide(newest=newest, now=now, max_age=self.options.max_age),
            newest=newest,
            bad=bad,
            left=catalogue.leftovers(runs, uploads),
        )

    def _report(self, state: State, *, planned: bool) -> None:
        self.outcome.facts |= {
            "due": state.decision.due,
            "why": state.decision.why,
            "backup": None if state.newest is None else summary(state.newest, state.now),
            "location": self.place.url(),
            "bad": [bad_summary(examined) for examined in state.bad],
            "leftovers": state.left.names if planned else [],
        }
        if planned:
            self.outcome.plan = plan(self.place, state.decision, state.left, state.newest)
            self.outcome.before = {"verified_backup_is_recent": not state.decision.due, "leftovers": state.left.names}
            self.outcome.after = {"verified_backup_is_recent": True, "leftovers": []}

    def _apply(self, state: State, programs: database.Programs | None) -> None:
        run_token = uuid.uuid4().hex
        bucket = Bucket(
            write_client(self.connection),
            name=self.place.bucket,
            endpoint=self.connection.endpoint,
            encryption=self.options.encryption,
            metadata={"lowtide-run": run_token[:8]},
        )
        if state.left:
            bucket.remove(state.left)
            self.outcome.changed = True
        if state.decision.due and programs is not None:
            One(self, bucket, programs, run_token).make()


class One:
    """One new backup in the making."""

    def __init__(self, backup: Backup, bucket: Bucket, programs: database.Programs, token: str) -> None:
        self.backup = backup
        self.bucket = bucket
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

    def _dump(self, settings: t.Any, snapshot: database.Snapshot) -> tuple[list[database.Rows], float]:
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
        backup.lock.assert_held()
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
        backup.lock.assert_held()
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


def run_backup(backup: Backup, *, check: bool) -> None:
    """:meth:`Backup.ensure`, with the driver's errors told as ours."""
    try:
        backup.ensure(check=check)
    except driver_error() as error:
        raise sql_error(backup.session.settings.target, error) from error
