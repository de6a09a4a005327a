# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a verified backup of a MariaDB database where one is due.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import hashlib
import time
import typing as t
import uuid
from dataclasses import dataclass
from datetime import timedelta

from .._backup import keys
from .._backup.catalogue import Run, group
from .._backup.cleaning import Cleaning
from .._backup.manifest import Part, write_started
from .._backup.pipeline import Pipeline
from .._backup.plan import explain_old_data, part_size
from .._backup.run import BackupRun, Requirements, State
from .._backup.streams import Streams
from .._backup.verify import NotVerified, adopt_etags, decode_part, decompress_command, verify_small
from .._common.errors import OpsError, Refusal
from .._common.outcome import Blocker
from .._common.text import join_some
from .._s3.bucket import HashingReader
from . import programs, schema
from .connection import read_replication
from .dump_text import DumpText
from .exactness import refuse_inexact
from .locks import NamedLock
from .manifest import DUMP, FORMAT, LAYOUT, MySqlManifest, MySqlOrigin, read_manifest, write_contents

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._common.outcome import Outcome
    from .._common.retry import Deadline
    from .._s3.bucket import Bucket
    from .connection import Session
    from .dump_text import Key

_SIZE = "SELECT COALESCE(SUM(DATA_LENGTH), 0) AS size FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
_NEXT = "It does not count as a backup; report this with the versions of server and mariadb-dump"


@dataclass(frozen=True)
class Options(Requirements):
    """What the module was asked for."""

    database: str
    source: str
    max_parts: int
    encryption: str | None
    bin_dir: str | None
    is_server_declared: bool = False


class MySqlBackup(BackupRun):
    """The work of one run of mysql_backup."""

    layout = LAYOUT

    def __init__(
        self,
        *,
        session: Session,
        bucket: Bucket,
        place: keys.Place,
        options: Options,
        outcome: Outcome,
        warn: t.Callable[[str], None],
    ) -> None:
        super().__init__(bucket=bucket, place=place, requirements=options, outcome=outcome, warn=warn)
        self._session = session
        self._options = options
        self._lock = NamedLock(session, options.database, "backup")
        self._programs: programs.Programs | None = None
        self._parts: dict[str, Part] = {}
        self._run_id = ""

    def parse_manifest(self, body: bytes) -> MySqlManifest:
        """Return the manifest in ``body``, or raise NotAManifest."""
        return read_manifest(body)

    def read_clock(self) -> datetime:
        """Ask for the database server's clock."""
        return schema.read_clock(self._session)

    def read_moment(self) -> datetime:
        """Ask of which moment the data is: on a replica, of as long ago as it lags."""
        lag = read_lag(self._session)
        target = self._session.settings.target
        if self._options.source == "primary":
            if lag is not None or self._session.server.read_only:
                raise Refusal(
                    obj=target,
                    problem="this server is a replica" if lag is not None else "this server is read only",
                    next_step="Name the primary in login_host, or set source to replica",
                )
            return self.read_clock()
        if lag is None:
            raise Refusal(
                obj=target,
                problem="this server is no replica, and option source is replica",
                next_step="Name the replica in login_host, or set source to primary",
            )
        return self.read_clock() - lag

    def read_origin(self) -> MySqlOrigin:
        """Ask which server this is, unless its name is declared, and how far it is in replication."""
        gtid = str(self._session.query("SELECT @@gtid_current_pos AS gtid")[0]["gtid"])
        return MySqlOrigin(gtid, None if self._options.is_server_declared else schema.read_identity(self._session))

    def find_tools(self, *, check: bool) -> None:  # noqa: ARG002
        """Find the client programs."""
        self._programs = programs.find_programs(self._options.bin_dir, deadline=self._deadline)

    def make_lock(self) -> NamedLock:
        """Return the named lock of backups."""
        return self._lock

    def refuse_unfit(self, state: State) -> None:
        """Refuse lacking rights, tables without transactions, and the data of a replica that is too old."""
        session, options = self._session, self._options
        schema.require_schema(session, options.database)
        schema.refuse_lacking(
            session, options.database, needs_log=bool(session.server.log_bin), blockers=self._outcome.blockers
        )
        schema.refuse_tables(session, options.database)
        if options.source == "replica":
            schema.refuse_replicated_events(session, options.database)
        refuse_inexact(session, options.database, then="Nothing was written", deadline=self._deadline)
        problem = None
        if state.now - state.moment > timedelta(seconds=1):
            problem = explain_old_data(
                moment=state.moment, newest=state.found.newest, now=state.now, max_age=options.max_age
            )
        if problem is not None:
            raise Refusal(
                obj=session.settings.target,
                problem=f"this replica lags behind: {problem}",
                next_step="Find out what holds it up (SHOW ALL REPLICAS STATUS), or dump the primary",
            )

    def make(self, state: State) -> MySqlManifest:  # noqa: ARG002  # the snapshot has a moment of its own
        """Dump, verify, publish; on failure nothing of this run counts, and what could not be removed is named."""
        taken_at = self.read_moment()
        self._run_id = keys.run_id(taken_at, uuid.uuid4().hex)
        try:
            started = time.monotonic()
            before = schema.read_objects(self._session, self._options.database)
            self._upload(taken_at)
            after = schema.read_objects(self._session, self._options.database)
            changed = schema.explain_ddl(before, after)
            if changed:
                raise OpsError(
                    obj=f"database {self._options.database} on {self._session.settings.target}",
                    problem=f"it was changed by DDL during the dump: {join_some(changed)}",
                    next_step="Nothing counts as a backup of this run. Run again when no DDL is at work",
                )
            dump_seconds = time.monotonic() - started
            # Again, since values may have come between the first look and the dump.
            then = "Nothing counts as a backup of this run"
            refuse_inexact(self._session, self._options.database, then=then, deadline=self._deadline)
            started = time.monotonic()
            dump = self._verify(before)
            manifest = self._describe(taken_at, dump, dump_seconds, time.monotonic() - started)
            self._lock.assert_held()
            self._bucket.put(self._key(keys.MANIFEST), manifest.to_json(), content_type="application/json")
        except BaseException:
            self._discard()
            raise
        self._outcome.changed = True
        return manifest

    def _key(self, part: str) -> str:
        return self._place.key(self._run_id, part)

    def _upload(self, taken_at: datetime) -> None:
        """Stream the dump into the run's folder."""
        if self._programs is None:
            raise TypeError("find_tools comes before make")
        options = self._options
        self._outcome.write_attempted = True
        body = write_started(
            run_id=self._run_id,
            started_at=taken_at,
            timeout=options.timeout,
            host=self._session.settings.server_name,
            kind=FORMAT,
        )
        self._bucket.put(self._key(keys.STARTED), body, content_type="application/json")
        size = int(self._session.query(_SIZE, [options.database])[0]["size"])
        with programs.option_file(self._session.settings) as descriptor:
            commands = [
                programs.dump_command(
                    self._programs, descriptor, options.database, with_position=bool(self._session.server.log_bin)
                ),
                programs.compress_command(self._programs),
            ]
            with Pipeline(commands, deadline=self._deadline, collect=True) as pipeline:
                source = HashingReader(pipeline.stdout, pipeline.finish)
                etag = self._bucket.upload(
                    self._key(DUMP),
                    source,
                    part_bytes=part_size(size, max_parts=options.max_parts),
                    content_type="application/zstd",
                )
        self._parts[DUMP] = Part(size=source.size, sha256=source.sha256, etag=etag)

    def _verify(self, expected: t.Mapping[Key, str]) -> DumpText:
        """Read the dump back, decode it as a whole, and compare what is in it with what the database has."""
        if self._programs is None:
            raise TypeError("find_tools comes before make")
        dump, url = DumpText(), self._bucket.url(self._key(DUMP))
        decode_dump(
            self._bucket,
            self._key(DUMP),
            self._parts[DUMP],
            zstd=self._programs.zstd,
            dump=dump,
            deadline=self._deadline,
        )
        found = {*(("TABLE", name) for name in dump.tables), *dump.scripts}
        missing = [f"{kind.lower()} {name}" for kind, name in sorted(set(expected) - found)]
        if missing:
            raise NotVerified(obj=url, problem=f"it lacks what the database has: {join_some(missing)}", next_step=_NEXT)
        if self._session.server.log_bin and dump.log_file is None:
            raise NotVerified(obj=url, problem="it has no position in the binary log", next_step=_NEXT)
        body = write_contents(dump)
        etag = self._bucket.put(self._key(keys.TABLES), body, content_type="application/json")
        self._parts[keys.TABLES] = Part(size=len(body), sha256=hashlib.sha256(body).hexdigest(), etag=etag)
        verify_small(self._bucket, self._key(keys.TABLES), self._parts[keys.TABLES])
        self._parts = adopt_etags(self._bucket, self._key(""), self._parts)
        return dump

    def _describe(
        self, taken_at: datetime, dump: DumpText, dump_seconds: float, verify_seconds: float
    ) -> MySqlManifest:
        """Return the manifest of what was made."""
        now = self.read_clock()
        made_with = "" if self._programs is None else self._programs.version
        defaults = schema.require_schema(self._session, self._options.database)
        server = self._session.server
        return MySqlManifest(
            run_id=self._run_id,
            database=self._place.database,
            system_identifier=self._place.system_identifier,
            server_version=server.version,
            client_version=made_with,
            hosts=(self._session.settings.server_name, f"{server.hostname}:{server.port}"),
            source=self._options.source,
            taken_at=taken_at.replace(microsecond=0),
            finished_at=now,
            verified_at=now,
            dump_seconds=round(dump_seconds, 3),
            verify_seconds=round(verify_seconds, 3),
            tables=len(dump.tables),
            rows=dump.rows,
            encryption=self._options.encryption,
            parts=dict(self._parts),
            gtid=dump.gtid,
            log_file=dump.log_file,
            log_position=dump.log_position,
            charset=defaults.charset,
            collation=defaults.collation,
            definitions=len(dump.scripts),
            server=schema.read_identity(self._session),
        )

    def _discard(self) -> None:
        """Remove what this run has written, and name what could not be removed; the cause is told first."""
        url = self._place.url(self._key(""))
        try:
            runs: list[Run] = group(self._bucket.list_objects(self._key("")), self._place.prefix, LAYOUT)
            cleaning = Cleaning(self._bucket, self._place)
            cleaning.abort_uploads(runs or [Run(self._place.database, self._place.system_identifier, self._run_id)])
            cleaning.remove(runs)
            problem = cleaning.warning
        except OpsError as error:
            problem = error.problem
        if problem is not None:
            self._outcome.facts["left_behind"] = f"{url} could not be cleared: {problem}"
            self._outcome.blockers.append(
                Blocker(
                    object=url,
                    what=f"what this failed run has written could not be removed: {problem}",
                    holder="",
                    next_step="It does not count as a backup, and may be removed by hand",
                )
            )


def decode_dump(
    bucket: Bucket,
    key: str,
    part: Part,
    *,
    zstd: str,
    dump: DumpText,
    deadline: Deadline,
    take: t.Callable[[bytes], None] | None = None,
) -> None:
    """Read an object back, compare it with ``part``, and read its text into ``dump``, which has to be whole."""
    decode_part(
        bucket,
        key,
        part,
        commands=[decompress_command(zstd)],
        take=take or dump.read,
        deadline=deadline,
        etag=part.etag,
        streams=Streams(),
    )
    dump.finish()
    problem = dump.explain_end()
    if problem is not None:
        raise NotVerified(obj=bucket.url(key), problem=f"its text is no whole dump: {problem}", next_step=_NEXT)


def read_lag(session: Session) -> timedelta | None:
    """Ask how far a replica is behind; None where this server is none. One that does not follow is refused.

    One that follows several servers is as far behind as it is behind any of them.
    """
    lags: list[timedelta] = []
    for status in read_replication(session):
        behind = status.get("Seconds_Behind_Master")
        if behind is None:
            said = status.get("Last_IO_Error") or status.get("Last_SQL_Error") or "no error is noted"
            name = f"connection {status['Connection_name']}: " if status.get("Connection_name") else ""
            raise Refusal(
                obj=session.settings.target,
                problem=f"this replica does not follow: {name}IO {status.get('Slave_IO_Running')},"
                f" SQL {status.get('Slave_SQL_Running')}, {said}",
                next_step="Mend its replication (SHOW ALL REPLICAS STATUS), or dump the primary",
            )
        lags.append(timedelta(seconds=int(behind)))
    return max(lags, default=None)
