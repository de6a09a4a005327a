# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure that a verified backup of a PostgreSQL database is there. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import typing as t
import uuid
from dataclasses import dataclass

from .._backup import plan
from .._backup.plan import explain_old_data
from .._backup.run import BackupRun, Requirements, State
from .._backup.summary import describe_streams
from .._common.errors import Refusal
from . import database, programs, rights
from .making import NewBackup, Setting

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._backup import keys
    from .._backup.manifest import Identity, Manifest
    from .._common.outcome import Outcome
    from .._postgresql.connection import Session
    from .._s3.bucket import Bucket


@dataclass(frozen=True)
class Options(Requirements):
    """What the module was asked for; durations in seconds unless typed otherwise."""

    lock_timeout: int
    max_parts: int
    role_passwords: bool
    encryption: str | None
    jobs: int
    bin_dir: str | None


class Backup(BackupRun):
    """The work of one run of pg_backup."""

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
        self._data: database.DataMoment | None = None
        self._programs: programs.Programs | None = None
        self._lock: database.Lock | None = None
        self._left_out: list[str] = []
        self.dumping = f"dump{describe_streams(options.jobs)}"

    def read_clock(self) -> datetime:
        """Ask for the database server's clock."""
        return database.read_clock(self._session)

    def read_moment(self) -> datetime:
        """Ask of which moment the data is, and keep whether that of a standby is current."""
        self._data = database.read_moment(self._session, database.ask_primary(self._session))
        return self._data.moment

    def read_origin(self) -> Identity:
        """Ask which server this is."""
        return database.read_identity(self._session)

    def find_tools(self, *, check: bool) -> None:
        """Find the client programs. What a dump by newer ones takes is told in check mode."""
        self._programs = programs.find_programs(self._session, bin_dir=self._options.bin_dir, deadline=self._deadline)
        newer = programs.explain_newer(self._session.server.version // 10000, self._programs.version)
        if check and newer is not None:
            self._warn(f"{self._programs.pg_dump}: {newer}.")

    def make_lock(self) -> database.Lock:
        """Return the advisory lock of backups."""
        self._lock = database.Lock(self._session)
        return self._lock

    def refuse_unfit(self, state: State) -> None:
        """Refuse old data, lacking rights, too few connections, and parts that are too large. Tell what is left out."""
        if self._data is not None:
            self._refuse_old_data(state, self._data)
        rights.refuse_lacking(
            self._session, role_passwords=self._options.role_passwords, blockers=self._outcome.blockers
        )
        database.refuse_few_connections(self._session, self._options.jobs)
        plan.refuse_large_parts(
            database.read_size(self._session) // self._options.jobs, max_parts=self._options.max_parts
        )
        self._left_out = rights.read_left_out(self._session)
        for words in self._left_out:
            self._warn(f"{self._session.settings.target}: {words}.")

    def _refuse_old_data(self, state: State, data: database.DataMoment) -> None:
        """Refuse a standby, paused or behind, whose ``data`` would make no backup that counts."""
        if data.is_current:
            return
        problem = explain_old_data(
            moment=data.moment, newest=state.found.newest, now=state.now, max_age=self._options.max_age
        )
        if problem is None:
            return
        raise Refusal(
            obj=self._session.settings.target,
            problem=f"this standby {'is paused' if data.is_paused else 'lags behind'}: {problem}",
            next_step="Resume its replay (pg_wal_replay_resume())"
            if data.is_paused
            else "Find out why it does not receive or replay (pg_stat_wal_receiver, and its log), or dump the primary."
            " Where nothing has been written, name the primary in login_host, after this standby, so that it can say so",
        )

    def make(self, state: State) -> Manifest:
        """Make a backup. Its own snapshot is judged again, before it is dumped."""
        if self._lock is None or self._programs is None:
            raise TypeError("make_lock and find_tools come before make")
        options = self._options
        setting = Setting(
            session=self._session,
            lock=self._lock,
            bucket=self._bucket,
            place=self._place,
            programs=self._programs,
            deadline=self._deadline,
            timeout=options.timeout,
            lock_timeout=options.lock_timeout,
            max_parts=options.max_parts,
            role_passwords=options.role_passwords,
            encryption=options.encryption,
            jobs=options.jobs,
            token=uuid.uuid4().hex,
            refuse_data=lambda data: self._refuse_old_data(state, data),
            warn=self._warn,
            left_out=self._left_out,
        )
        return NewBackup(setting, self._outcome).make()
