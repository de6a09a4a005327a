# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one new backup, from the snapshot to the manifest. Private to lowtide.ops: do not import from other collections.

Everything goes up into the run's own folder, ``started.json`` first; there it is read back and decoded; the manifest,
without which nothing counts, comes last. So a kill at any point is harmless, and nothing has to be deleted or replaced: an
account that may only add objects is enough, and so is a bucket that keeps each of them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import typing as t
from dataclasses import dataclass
from functools import partial

from .._backup import keys, verify
from .._backup.manifest import Manifest, Part, write_started
from .._backup.pipeline import Pipeline, run
from .._backup.plan import part_size, refuse_large_parts
from .._backup.streams import Streams
from .._common.errors import OpsError
from .._common.outcome import Blocker
from .._common.text import format_count
from .._postgresql.pings import Pings
from .._s3.bucket import MEMORY, HashingReader
from . import database, dump_rows, programs
from .copy_rows import Expected, Table, TableName
from .packing import Stream, plan_streams

if t.TYPE_CHECKING:
    from .._backup.pipeline import Command
    from .._common.outcome import Outcome
    from .._common.retry import Deadline
    from .._postgresql.connection import Session
    from .._s3.bucket import Bucket
    from .copy_rows import RowCounter

GLOBALS_END = b"-- PostgreSQL database cluster dump complete"

ATTEMPTS = 5
OVERTAKEN_SECONDS = 5
"""For so long pg_dump waits for the lock of a table, which nobody but this run holds then."""

DAMAGE = (
    "invalid page in block",
    "could not read block",
    "missing chunk number",
    "unexpected chunk number",
    "compressed pglz data is corrupt",
    "compressed lz4 data is corrupt",
)
"""What the server says of a table or TOAST table whose data is damaged (SQLSTATE XX001), by pg_dump in English."""


NO_CONNECTION = (
    "too many connections for role",
    "too many connections for database",
    "too many clients already",
    "remaining connection slots are reserved",
)
"""What the server says where a limit of connections is reached (SQLSTATE 53300), in English."""


@dataclass(frozen=True)
class Setting:
    """What a new backup is made with. ``token`` tells this run from others; ``refuse_data`` raises for data too old to dump.

    ``warn`` tells of what the programs warn of, ``left_out`` is what has been told before that the dump will lack.
    """

    session: Session
    lock: database.Lock
    bucket: Bucket
    place: keys.Place
    programs: programs.Programs
    deadline: Deadline
    timeout: int
    lock_timeout: int
    max_parts: int
    role_passwords: bool
    encryption: str | None
    jobs: int
    token: str
    refuse_data: t.Callable[[database.DataMoment], None]
    warn: t.Callable[[str], None]
    left_out: t.Sequence[str] = ()


class NewBackup:
    """One new backup in the making; ``outcome`` learns what was tried and done."""

    def __init__(self, setting: Setting, outcome: Outcome) -> None:
        self._setting = setting
        self._outcome = outcome
        self._parts: dict[str, Part] = {}
        self._streams: list[Stream] = []
        self._sizes: dict[str, int] = {}
        self._warnings = list(setting.left_out)
        self.run_id = ""

    def make(self) -> Manifest:
        """Dump, verify, publish; on failure nothing of this run counts, and what of it could not be removed is named."""
        own = self._setting
        with Pings(own.session.is_alive):
            manifest = self._make()
        self._outcome.changed = True
        return manifest

    def _make(self) -> Manifest:
        own = self._setting
        environment = programs.client_environment(own.session, run_id=own.token[:8])
        roles = self._read_roles(environment)
        try:
            snapshot, expected, dump_seconds = self._dump_whole(roles, environment)
            started = time.monotonic()
            rows = self._verify(expected)
            self._parts = verify.adopt_etags(own.bucket, self._key(""), self._parts)
            manifest = self._describe(snapshot, rows, dump_seconds, time.monotonic() - started)
            own.lock.assert_held()
            own.bucket.put(self._key(keys.MANIFEST), manifest.to_json(), content_type="application/json")
        except BaseException:
            self._discard()
            raise
        return manifest

    def _dump_whole(self, roles: bytes, environment: dict[str, str]) -> tuple[database.Snapshot, list[Expected], float]:
        """Dump from one snapshot, and return it, the tables that the dump must have, and the seconds that it took.

        Who asks for the exclusive lock of a table between this run's locks and those of pg_dump waits for the former, and
        pg_dump waits behind him. Then all locks are given back, so that he comes through, and it begins anew.
        """
        for attempt in range(ATTEMPTS):
            snapshot = self._take_snapshot()
            # Nothing is ever replaced, so each attempt has a folder of its own.
            self.run_id = keys.run_id(snapshot.taken_at, self._setting.token if not attempt else secrets.token_hex(4))
            try:
                self._setting.refuse_data(snapshot.data)
                expected = snapshot.list_tables()
                self._streams = self._plan_streams(snapshot, expected)
                self._sizes = self._estimate_sizes()
                for size in self._sizes.values():
                    refuse_large_parts(size, max_parts=self._setting.max_parts)
                started = time.monotonic()
                with Pings(snapshot.is_alive):
                    self._upload(snapshot, roles, environment)
                return snapshot, expected, time.monotonic() - started
            except OpsError as error:
                is_lost = not snapshot.is_alive()
                database.end_programs(self._setting.session, programs.name_application(self._setting.token[:8]))
                if is_overtaken(error) and attempt < ATTEMPTS - 1 and not is_lost:
                    self._discard()
                    self._parts = {}
                    continue
                raise self._explain(error, is_lost=is_lost) from error
            finally:
                snapshot.close()
        raise AssertionError("the last attempt returns or raises")

    def _take_snapshot(self) -> database.Snapshot:
        own = self._setting
        return database.Snapshot(
            programs.bind_settings(own.session),
            run_id=own.token[:8],
            is_standby=own.session.server.in_recovery,
            reached=database.read_reached(own.session),
            position=database.ask_primary(own.session),
            lock_timeout=max(1, min(own.lock_timeout, int(own.deadline.remaining))),
        )

    def _explain(self, error: OpsError, *, is_lost: bool) -> OpsError:
        """Return what ended the work of a client program; ``is_lost``: the session that holds the snapshot has gone."""
        session = self._setting.session
        return explain_failure(
            error,
            target=session.settings.target,
            is_standby=session.server.in_recovery,
            is_snapshot_lost=is_lost and session.is_alive(),
            is_snapshot_held=not is_lost,
            jobs=max(1, len(self._streams)),
        )

    def _key(self, part: str) -> str:
        return self._setting.place.key(self.run_id, part)

    def _url(self, part: str) -> str:
        return self._setting.bucket.url(self._key(part))

    def _read_roles(self, environment: dict[str, str]) -> bytes:
        """Have roles and tablespaces written down. It comes before the snapshot, so that no lock is held meanwhile."""
        own = self._setting
        command = programs.globals_command(
            own.programs, environment, database=own.place.database, role_passwords=own.role_passwords
        )
        try:
            roles = run(command, deadline=own.deadline, warn=self._warn)
        except OpsError as error:
            raise self._explain(error, is_lost=False) from error
        if GLOBALS_END not in roles[-300:]:
            raise OpsError(
                obj="pg_dumpall",
                problem="its output has no end mark",
                next_step="Run again; nothing has been published",
            )
        return roles

    def _upload(self, snapshot: database.Snapshot, roles: bytes, environment: dict[str, str]) -> None:
        """Write all that is known before the dump can be decoded; small parts first, so that a refusal comes early."""
        own = self._setting
        self._outcome.write_attempted = True
        body = write_started(
            run_id=self.run_id,
            started_at=snapshot.taken_at,
            timeout=own.timeout,
            host=database.name_reached(own.session)[0],
        )
        own.bucket.put(self._key(keys.STARTED), body, content_type="application/json")
        self._put(keys.GLOBALS, roles, "application/sql")
        self._dump(snapshot, environment)

    def _dump(self, snapshot: database.Snapshot, environment: dict[str, str]) -> None:
        """Dump all streams, side by side."""
        own = self._setting
        beside = Streams()
        dumps = beside.run(
            [
                partial(
                    self._upload_stream,
                    programs.dump_commands(
                        own.programs,
                        environment,
                        database=own.place.database,
                        snapshot=snapshot.name,
                        lock_timeout=min(own.lock_timeout, OVERTAKEN_SECONDS),
                        encoding=own.session.connection.info.parameter_status("server_encoding"),
                        options=stream.options,
                    ),
                    part=stream.part,
                    size=self._sizes[stream.part],
                    beside=beside,
                )
                for stream in self._streams
            ]
        )
        self._parts |= {stream.part: part for stream, part in zip(self._streams, dumps, strict=True)}

    def _plan_streams(self, snapshot: database.Snapshot, expected: t.Iterable[Expected]) -> list[Stream]:
        """Divide the dump. What pg_dump writes under another name than its own stays in the main stream."""
        own = self._setting
        if own.jobs == 1:
            return [Stream(keys.DUMP, (), 0)]
        sizes = snapshot.list_sizes()
        movable = {entry.table: sizes[entry.table] for entry in expected if entry.root is None and entry.table in sizes}
        return plan_streams(movable, rest=sum(sizes.values()) - sum(movable.values()), jobs=own.jobs)

    def _estimate_sizes(self) -> dict[str, int]:
        """Return the bytes that each stream may have: those of its tables, of the main one all others of the database."""
        main, *further = self._streams
        rest = database.read_size(self._setting.session) - sum(stream.size for stream in further)
        return {main.part: max(0, rest), **{stream.part: stream.size for stream in further}}

    def _upload_stream(self, commands: t.Sequence[Command], *, part: str, size: int, beside: Streams) -> Part:
        """Dump one stream into its object."""
        own = self._setting
        with Pipeline(commands, deadline=own.deadline, collect=True) as pipeline:
            beside.attach(pipeline)
            source = HashingReader(pipeline.stdout, pipeline.finish)
            etag = own.bucket.upload(
                self._key(part),
                source,
                part_bytes=part_size(size, max_parts=own.max_parts),
                content_type="application/zstd",
                memory=MEMORY // len(self._streams),
            )
            for warning in choose_warnings(pipeline.warnings):
                self._warn(warning)
        return Part(size=source.size, sha256=source.sha256, etag=etag)

    def _warn(self, warning: str) -> None:
        """Tell of a warning once."""
        if warning not in self._warnings:
            self._warnings.append(warning)
            self._setting.warn(warning)

    def _put(self, part: str, body: bytes, content_type: str) -> None:
        etag = self._setting.bucket.put(self._key(part), body, content_type=content_type)
        self._parts[part] = Part(size=len(body), sha256=hashlib.sha256(body).hexdigest(), etag=etag)

    def _verify(self, expected: t.Iterable[Expected]) -> dict[Table, int]:
        """Read everything back, and write which tables and how many rows were found in the dump."""
        own = self._setting
        verify.verify_small(own.bucket, self._key(keys.GLOBALS), self._parts[keys.GLOBALS])
        counts = self._count()
        main, taken = self._streams[0], set(self._streams[0].tables)
        dump_rows.compare_tables(
            self._url(main.part), counts[0].copies, [entry for entry in expected if entry.table not in taken]
        )
        for stream, counted in zip(self._streams[1:], counts[1:], strict=True):
            dump_rows.compare_share(self._url(stream.part), counted.copies, stream.tables)
        rows = dump_rows.join_counts(
            {self._url(stream.part): counted for stream, counted in zip(self._streams, counts, strict=True)}
        )
        places = {table: stream.part for stream in self._streams[1:] for table in stream.tables}
        self._put(keys.TABLES, write_tables(rows, places), "application/json")
        verify.verify_small(own.bucket, self._key(keys.TABLES), self._parts[keys.TABLES])
        return rows

    def _count(self) -> list[RowCounter]:
        """Decode the objects of all streams, side by side."""
        own = self._setting
        beside = Streams()
        return beside.run(
            [
                partial(
                    dump_rows.verify_dump,
                    own.bucket,
                    self._key(stream.part),
                    self._parts[stream.part],
                    programs=(own.programs.pg_restore, own.programs.zstd),
                    deadline=own.deadline,
                    etag=self._parts[stream.part].etag,
                    streams=beside,
                )
                for stream in self._streams
            ]
        )

    def _describe(
        self, snapshot: database.Snapshot, rows: t.Mapping[Table, int], dump_seconds: float, verify_seconds: float
    ) -> Manifest:
        own = self._setting
        now = database.read_clock(own.session)
        return Manifest(
            run_id=self.run_id,
            database=own.place.database,
            system_identifier=own.place.system_identifier,
            server_version="{}.{}".format(*divmod(own.session.server.version, 10000)),
            client_version=own.programs.version,
            hosts=database.name_reached(own.session),
            timeline=database.read_identity(own.session).timeline,
            source="standby" if own.session.server.in_recovery else "primary",
            taken_at=snapshot.taken_at.replace(microsecond=0),
            finished_at=now,
            verified_at=now,
            dump_seconds=round(dump_seconds, 3),
            verify_seconds=round(verify_seconds, 3),
            tables=len(rows),
            rows=sum(rows.values()),
            role_passwords=own.role_passwords,
            encryption=own.encryption,
            parts=dict(self._parts),
            warnings=tuple(self._warnings),
            time_zone=programs.TIME_ZONE,
        )

    def _discard(self) -> None:
        """Remove what this run has written, manifest first, and name what could not be removed; the cause is told first."""
        own, folder = self._setting, self._key("")
        if not self._outcome.write_attempted:
            return
        try:
            for part in reversed(keys.order_parts({*keys.ORDER, *(stream.part for stream in self._streams)})):
                own.bucket.delete(self._key(part))
            for upload in own.bucket.list_uploads(folder):
                own.bucket.abort(upload)
        except OpsError as error:
            self._outcome.changed = True
            url = own.bucket.url(folder)
            self._outcome.facts["left_behind"] = f"{url} could not be cleared: {error.problem}"
            self._outcome.blockers.append(
                Blocker(
                    object=url,
                    what=f"what this failed run has written could not be removed: {error.problem}",
                    holder="",
                    next_step=f"{error.next_step}; it does not count as a backup, and may be removed by hand",
                )
            )


def choose_warnings(warnings: t.Iterable[str]) -> list[str]:
    """Return those of pg_dump's warnings that say something new.

    Foreign keys that go in a circle do not matter to a restore that makes them last, and subscriptions are named before.
    """
    return [line for line in warnings if "circular foreign-key" not in line and "subscriptions not dumped" not in line]


def is_overtaken(error: OpsError) -> bool:
    """Return whether pg_dump could not lock a table, all of which this run holds: somebody waits in between.

    pg_dump shows the statement that failed, whatever language the server speaks.
    """
    return "LOCK TABLE " in error.problem


def explain_failure(
    error: OpsError, *, target: str, is_standby: bool, is_snapshot_lost: bool, is_snapshot_held: bool, jobs: int
) -> OpsError:
    """Return what ended a dump: damaged data, the recovery of a standby, another server, a limit, or ``error`` itself.

    ``is_snapshot_lost`` says that the server still answers and has ended the session that holds the dump's snapshot,
    ``is_snapshot_held`` that this session is still there. ``jobs`` is in how many streams it was.
    """
    said = f"({error.obj}: {error.problem})"
    if any(words in error.problem for words in NO_CONNECTION):
        return OpsError(
            obj=target,
            problem=f"it has no connection left for the dump {said}",
            next_step=f"A dump in {format_count(jobs, 'stream')} takes {database.count_connections(jobs)} connections."
            " Raise the limit that the message names (of a role: ALTER ROLE ... CONNECTION LIMIT), end sessions, or"
            " lower jobs; then run again",
        )
    if any(words in error.problem for words in DAMAGE):
        return OpsError(
            obj=target,
            problem=f"its data is damaged, and cannot be dumped {said}",
            next_step="Keep the last verified backup, which this run has left alone, and prove it by"
            " lowtide.ops.pg_backup_info with verify: full before anything is dropped; run pg_amcheck, and look into"
            " the logs of server and disk",
        )
    if is_snapshot_held and "invalid snapshot identifier" in error.problem:
        return OpsError(
            obj=target,
            problem=f"pg_dump has reached another server than the session that holds its snapshot {said}",
            next_step=database.NAME_ONE_SERVER,
        )
    if is_standby and (is_snapshot_lost or "conflict with recovery" in error.problem):
        return OpsError(
            obj=target,
            problem=f"this standby went on with its recovery and ended the dump, which stood in its way {said}",
            next_step="Nothing counts as a backup of this run. Set hot_standby_feedback on, raise"
            " max_standby_streaming_delay beyond what a dump takes, or dump the primary; then run again",
        )
    return error


def write_tables(rows: t.Mapping[Table, int], places: t.Mapping[Table, str]) -> bytes:
    """Return the document of the tables in a dump and their numbers of rows.

    ``places`` are the objects of those whose rows are not in the main one.
    """
    entries = [
        {
            "schema": schema.decode("utf-8", "backslashreplace"),
            "name": name.decode("utf-8", "backslashreplace"),
            "rows": rows[schema, name],
            **({"object": places[schema, name]} if (schema, name) in places else {}),
        }
        for schema, name in sorted(rows)
    ]
    return json.dumps(entries, indent=1).encode() + b"\n"


def read_tables(body: bytes) -> dict[TableName, int]:
    """Return how many rows of each table a document of :func:`write_tables` has."""
    return {(entry["schema"], entry["name"]): int(entry["rows"]) for entry in json.loads(body)}


def name_rows(rows: t.Mapping[Table, int]) -> dict[TableName, int]:
    """Return counted rows under the names that :func:`read_tables` gives."""
    return {
        (schema.decode("utf-8", "backslashreplace"), name.decode("utf-8", "backslashreplace")): count
        for (schema, name), count in rows.items()
    }
