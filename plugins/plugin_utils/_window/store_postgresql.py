# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store in rows of a PostgreSQL database, which several controllers and sites share.

Private to lowtide.ops: do not import from other collections. The schema ``lowtide_window`` has the tables ``lease`` (a
row for each site), ``event`` (a row for each line of a journal) and ``report``; docs/window-store.sql makes them.

The lock is an advisory one of the session, so it ends with the connection; a holder that is cut off loses it within
half a minute (the session's keepalives and idle_session_timeout). Each question has one deadline, also where the server
accepts it and never answers. An event is inserted only while its token holds the lease,
which the same statement looks at under a row lock: a late write of an owner that has been succeeded is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Backoff, Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import (
    CONNECTION_SPEC,
    NotWritable,
    Session,
    Settings,
    check_files,
    driver_error,
    new_run_id,
    read_settings,
)
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.errors import (
    is_lost,
    server_refused,
    sql_error,
    sqlstate,
)

from .events import Event
from .journal import decode_last_line, decode_lines, encode_line
from .lease import LeaseRecord
from .options import read_options
from .processes import Owner
from .store import PATIENCE, Store, StoreUnreachable, explain_holder, find_obstacle

Answer = TypeVar("Answer")
LOCK_SECONDS, IDLE_SECONDS = 25, 15
"""How long the lock is waited for at most, within the patience; who is cut off while it has it loses it before that."""
SLACK = 3.0
"""Seconds after the patience in which what was begun may still be answered, so that a slow server is no silent one."""
_PASSING = frozenset({"53300", "57P03", "57P05", "25006"})
"""SQLSTATEs of a server that has no place for a session now, starts or stops, or is a standby for now."""
_NOT_MEANT = "authentication failed|no pg_hba.conf entry|does not exist|not permitted to log in|no password supplied"
_LOCK_NOT_AVAILABLE, _UNDEFINED = "55P03", frozenset({"3F000", "42P01"})
_INSUFFICIENT_PRIVILEGE = "42501"
_PREPARE = """
SELECT pg_catalog.set_config(name, value, false) FROM (VALUES
  ('lock_timeout', %(wait)s), ('idle_session_timeout', %(idle)s), ('idle_in_transaction_session_timeout', %(idle)s),
  ('default_transaction_isolation', 'read committed'), ('statement_timeout', %(limit)s), ('synchronous_commit', 'on'),
  ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '2'),
  ('client_min_messages', 'warning')
) AS wanted (name, value)
WHERE name <> 'synchronous_commit' OR pg_catalog.current_setting(name) = 'off'
"""
SCHEMA = """
CREATE SCHEMA IF NOT EXISTS lowtide_window;
CREATE TABLE IF NOT EXISTS lowtide_window.lease (
  site text PRIMARY KEY,
  token bigint NOT NULL,
  released boolean NOT NULL,
  record jsonb NOT NULL,
  renewed timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS lowtide_window.event (
  site text NOT NULL,
  journal text NOT NULL,
  number integer NOT NULL,
  token bigint NOT NULL,
  line text NOT NULL,
  PRIMARY KEY (site, journal, number)
);
CREATE TABLE IF NOT EXISTS lowtide_window.report (
  site text NOT NULL,
  journal text NOT NULL,
  token bigint NOT NULL,
  suffix text NOT NULL,
  contents text NOT NULL,
  PRIMARY KEY (site, journal, token, suffix)
);
"""
_FIND_TABLES = "SELECT pg_catalog.to_regclass('lowtide_window.report')"
_READ = "SELECT record::text FROM lowtide_window.lease WHERE site = %(site)s"
_CLOCK = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"
_RENEWED = "SELECT extract(epoch FROM renewed)::float8 FROM lowtide_window.lease WHERE site = %(site)s"
_EXPIRED = """
SELECT pg_catalog.clock_timestamp() >= renewed + pg_catalog.make_interval(secs => %(ttl)s)
FROM lowtide_window.lease WHERE site = %(site)s
"""
_NEWEST = """
SELECT greatest(extract(epoch FROM pg_catalog.clock_timestamp())::bigint - 1,
                (SELECT max(token) FROM lowtide_window.lease WHERE site = %(site)s),
                (SELECT max(token) FROM lowtide_window.event WHERE site = %(site)s), 0)
"""
_WRITE = """
INSERT INTO lowtide_window.lease AS held (site, token, released, record, renewed)
VALUES (%(site)s, %(token)s, %(released)s, %(record)s, pg_catalog.clock_timestamp())
ON CONFLICT (site) DO UPDATE SET token = excluded.token, released = excluded.released, record = excluded.record,
  renewed = excluded.renewed
WHERE held.token = %(last)s
RETURNING 1
"""
_RENEW = """
UPDATE lowtide_window.lease SET renewed = pg_catalog.clock_timestamp()
WHERE site = %(site)s AND token = %(token)s AND NOT released RETURNING 1
"""
_END = """
SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8, coalesce(max(number), 0),
       (SELECT line FROM lowtide_window.event
        WHERE site = %(site)s AND journal = %(journal)s ORDER BY number DESC LIMIT 1)
FROM lowtide_window.event WHERE site = %(site)s AND journal = %(journal)s
"""
_APPEND = """
INSERT INTO lowtide_window.event (site, journal, number, token, line)
SELECT %(site)s, %(journal)s, %(number)s, %(token)s, %(line)s
FROM (SELECT 1 FROM lowtide_window.lease WHERE site = %(site)s AND token = %(token)s AND NOT released FOR SHARE) AS held
RETURNING 1
"""
_LIST = """
SELECT journal, (SELECT line FROM lowtide_window.event
                 WHERE site = %(site)s AND journal = named.journal ORDER BY number DESC LIMIT 1)
FROM (SELECT DISTINCT journal FROM lowtide_window.event WHERE site = %(site)s) AS named ORDER BY 1
"""
_LINES = "SELECT line FROM lowtide_window.event WHERE site = %(site)s AND journal = %(journal)s ORDER BY number"
_LAST = f"{_LINES} DESC LIMIT 1"
_REPORT = """
INSERT INTO lowtide_window.report (site, journal, token, suffix, contents)
VALUES (%(site)s, %(journal)s, %(token)s, %(suffix)s, %(contents)s)
ON CONFLICT (site, journal, token, suffix) DO UPDATE SET contents = excluded.contents
"""
_REMOVE = """
WITH reports AS (DELETE FROM lowtide_window.report WHERE site = %(site)s AND journal = ANY(%(journals)s))
DELETE FROM lowtide_window.event WHERE site = %(site)s AND journal = ANY(%(journals)s)
"""


class PostgresqlStore(Store):
    """The store of ``site`` in the database of ``connection``, the options of a PostgreSQL module."""

    def __init__(self, connection: Mapping[str, Any], *, site: str, ttl: float, patience: float = PATIENCE) -> None:
        self._connection = dict(connection)
        # Its files are looked at when they are used: that one is gone by then is a server that cannot be reached.
        self._settings: Settings = read_settings(
            read_options(CONNECTION_SPEC, connection, obj="window_store.postgresql")
        )
        self._site = site
        self.patience = patience
        self.ttl = ttl
        self._session: Session | None = None
        self._is_locked = False
        self._last: dict[str, Event | None] = {}

    @property
    def location(self) -> str:
        """The database and the site."""
        return f"site {self._site} in schema lowtide_window of {self._settings.target}"

    def describe_place(self) -> dict[str, Any]:
        """Return the connection."""
        return {"kind": "postgresql", "connection": self._connection, "site": self._site, "ttl": self.ttl}

    # -- the connection -------------------------------------------------------------------------------------------

    def _open(self, deadline: Deadline, *, locked: bool = False) -> Session:
        """Open a session, on request with the lock; a server that does not answer is asked again until the deadline."""
        backoff = Backoff()
        while True:
            try:
                check_files(self._settings)
                session = Session(self._settings, module="window", run_id=new_run_id(), seconds=_find_limit(deadline))
                try:
                    with session.limit(_find_limit(deadline)):
                        self._prepare(session, deadline.remaining, locked=locked)
                except BaseException:
                    session.close()
                    raise
                return session
            except driver_error() as error:
                if deadline.passed or not _is_passing(error):
                    raise self._translate(error) from error
            except (OpsError, OSError) as error:
                if deadline.passed or (isinstance(error, OpsError) and _is_final(error)):
                    raise self._explain(error) from error
            deadline.pause(backoff.take_pause())

    def _prepare(self, session: Session, seconds: float, *, locked: bool) -> None:
        """Set the limits of the session, so that who is cut off soon has the lock no more, and wait so long for it."""
        values = {
            "wait": f"{max(1, int(min(LOCK_SECONDS, seconds) * 1000))}ms",
            "idle": f"{IDLE_SECONDS}s",
            "limit": f"{LOCK_SECONDS + 5}s",
        }
        session.query(_PREPARE, values)
        if locked:
            session.query("SELECT pg_catalog.pg_advisory_lock(%(key)s)", {"key": _find_key(self._site)})

    def _ask(self, question: Callable[[Session], Answer]) -> Answer:
        """Return what a question gives, on the session that is kept or on one for it alone.

        One whose session is lost is asked again on another, with the lock if it had that: each may be asked twice. One
        that is not answered in time is not: whether it was carried out is not known.
        """
        deadline = Deadline(self.patience)
        while True:
            with ExitStack() as stack:
                session = self._session or stack.enter_context(self._open(deadline))
                try:
                    with session.limit(_find_limit(deadline)):
                        return question(session)
                except TimeoutError as error:
                    raise self._explain(error) from error
                except driver_error() as error:
                    if deadline.passed or not is_lost(error, session.connection):
                        raise self._translate(error) from error
                    if self._session is not None:
                        self._session.close()
                        self._session = self._open(deadline, locked=self._is_locked)

    def _explain(self, error: Exception) -> StoreUnreachable:
        """Return what stands before the question: no connection, or none that can be meant."""
        text = str(error)
        return StoreUnreachable(text if self._settings.target in text else f"{self.location}: {text}")

    def _translate(self, error: Exception) -> StoreUnreachable:
        """Return what the server has said to the question."""
        code = sqlstate(error)
        if code in _UNDEFINED:
            return StoreUnreachable(
                f"{self.location}: its tables are not there. Open a window once, or run docs/window-store.sql"
            )
        if code == _LOCK_NOT_AVAILABLE:
            return StoreUnreachable(
                f"{self.location}: other processes have its lock for all the time that it was waited for"
            )
        return StoreUnreachable(str(sql_error(self.location, error)))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an advisory lock, which the server releases with the session."""
        with self._keep(locked=True):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Ask all questions on one session: that of the lock, where it is held."""
        if self._session is not None:
            yield
            return
        with self._keep(locked=False):
            yield

    @contextmanager
    def _keep(self, *, locked: bool) -> Iterator[None]:
        self._session, self._is_locked = self._open(Deadline(self.patience), locked=locked), locked
        try:
            yield
        finally:
            session, self._session, self._is_locked = self._session, None, False
            self._last = {}
            session.close()

    def is_new(self) -> bool:
        """Return whether the tables are not there."""
        return self._ask(lambda session: session.query(_FIND_TABLES)[0][0]) is None

    def create(self) -> None:
        """Create the schema and its tables where they are missing."""

        def make(session: Session) -> None:
            if session.query(_FIND_TABLES)[0][0] is not None:
                return
            key = {"key": _find_key("")}  # two that do so at once would fail on each other
            session.query("SELECT pg_catalog.pg_advisory_lock(%(key)s)", key)
            try:
                session.execute(SCHEMA)
            except driver_error() as error:
                if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
                    raise
                raise Refusal(
                    obj=self.location,
                    problem=f"the tables are not there, and {self._settings.user} may not make them",
                    next_step=f"Run docs/window-store.sql as the owner of database {self._settings.dbname}",
                ) from error
            finally:
                if not session.connection.closed:
                    session.query("SELECT pg_catalog.pg_advisory_unlock(%(key)s)", key)

        self._ask(make)

    def _select(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        return self._ask(lambda session: session.query(sql, {"site": self._site, **values}))

    def read_clock(self) -> float:
        """Return the server's time."""
        return float(self._select(_CLOCK)[0][0])

    # -- the lease ------------------------------------------------------------------------------------------------

    def read_lease(self) -> LeaseRecord | None:
        """Read the site's row."""
        rows = self._select(_READ)
        return LeaseRecord.from_json(rows[0][0], source=self.location) if rows else None

    def read_last_renewal(self) -> float:
        """Return the time that the server has written."""
        rows = self._select(_RENEWED)
        return float(rows[0][0]) if rows else 0.0

    def is_expired(self) -> bool:
        """Have the server compare."""
        rows = self._select(_EXPIRED, ttl=self.ttl)
        return not rows or bool(rows[0][0])

    def acquire(self, owner: Owner, window_id: str, *, pipe: str | None = None) -> LeaseRecord:
        """Replace the site's row, unless another has replaced it."""
        while True:
            held = self.read_lease()
            if held is not None and held == LeaseRecord(held.token, owner, window_id, pipe=pipe):
                self.renew(held.token)  # a write of this call whose answer was lost: as in append
                return held
            obstacle = find_obstacle(self, held, owner)
            if obstacle is not None:
                raise obstacle
            last = int(self._select(_NEWEST)[0][0])
            record = LeaseRecord(last + 1, owner, window_id, pipe=pipe)
            if self._write(record, last=held.token if held else 0):
                return record

    def _write(self, record: LeaseRecord, *, last: int) -> bool:
        """Write the row if it is still that of token ``last``; return whether it was."""
        values = {
            "site": self._site,
            "token": record.token,
            "released": record.released,
            "record": json.dumps(record.as_dict()),
            "last": last,
        }
        if record.released:  # there is nothing to renew then, and one that is lost ends by itself
            return bool(self._ask(lambda session: session.query(_WRITE, values)))
        return self._ask(lambda session: _write_durably(session, _WRITE, values))

    def check(self, token: int) -> None:
        """Read the site's row."""
        held = self.read_lease()
        if held is None or held.token != token or held.released:
            raise explain_holder(self.location, token, held)

    def release(self, token: int) -> None:
        """Mark the row."""
        self.check(token)
        held = self.read_lease()
        if held is not None and not self._write(replace(held, released=True), last=token):
            raise explain_holder(self.location, token, self.read_lease())

    def renew(self, token: int) -> None:
        """Have the server write its time."""
        if not self._select(_RENEW, token=token):
            raise explain_holder(self.location, token, self.read_lease())

    # -- journals and reports -------------------------------------------------------------------------------------

    def list_occurrences(self) -> list[str]:
        """Return the names that events have. Their last lines come with them."""
        rows = self._select(_LIST)
        if self._session is not None:
            self._last = {str(name): decode_last_line(str(line).encode()) for name, line in rows}
        return [str(name) for name, _line in rows]

    def make_name(self, window_id: str) -> str:
        """Return the occurrence itself: any text is a name."""
        return window_id

    def load(self, name: str) -> list[Event]:
        """Read all rows."""
        lines = "".join(f"{row[0]}\n" for row in self._select(_LINES, journal=name))
        return decode_lines(lines.encode(), source=f"{name} of {self.location}").events

    def read_last_event(self, name: str) -> Event | None:
        """Return what the listing has told; else read the last row."""
        if name in self._last:
            return self._last[name]
        rows = self._select(_LAST, journal=name)
        return decode_last_line(str(rows[0][0]).encode()) if rows else None

    def append(self, name: str, event: Event) -> Event:
        """Insert one row, with the server's time, while the event's token holds the lease."""
        written: list[tuple[Event, str]] = []

        def insert(session: Session) -> Event | None:
            values: dict[str, Any] = {"site": self._site, "journal": name}
            clock, number, last = session.query(_END, values)[0]
            for earlier, line in written:  # of a session that was lost before it could tell
                if line == last:
                    # To read it proves nothing: a server that ends a session in its wait for the standby lets others
                    # see the commit. A later commit is answered when the standby has both.
                    values["token"] = event.token
                    return earlier if session.query(_RENEW, values) else None
            timed = replace(event, at=round(float(clock), 3))
            line = encode_line(timed, int(number) + 1).decode().rstrip("\n")
            written.append((timed, line))
            values |= {"number": int(number) + 1, "token": event.token, "line": line}
            return timed if _write_durably(session, _APPEND, values) else None

        self._last.pop(name, None)
        appended = self._ask(insert)
        if appended is None:
            raise explain_holder(self.location, event.token, self.read_lease())
        return appended

    def write_report(self, name: str, token: int, contents: dict[str, str]) -> str:
        """Write one row for each suffix."""

        def write(session: Session) -> None:
            for suffix, text in contents.items():
                values = {"site": self._site, "journal": name, "token": token, "suffix": suffix, "contents": text}
                session.execute(_REPORT, values)

        self._ask(write)
        return f"lowtide_window.report of {self._settings.target}: site {self._site}, journal {name}, token {token}"

    def remove(self, names: Sequence[str]) -> None:
        """Delete their rows."""
        self._ask(lambda session: session.execute(_REMOVE, {"site": self._site, "journals": list(names)}))


def _find_key(site: str) -> int:
    """Return the key of the site's advisory lock (bigint). Those of two integers never meet one of these."""
    return int.from_bytes(sha256(f"lowtide_window:{site}".encode()).digest()[:8], "big", signed=True)


def _write_durably(session: Session, sql: str, values: Mapping[str, Any]) -> bool:
    """Execute a write of an owner, and return whether there was something to write; one with a warning is confirmed.

    A commit whose wait for the standby was cancelled (pg_cancel_backend) has succeeded, with a warning in the server's
    language. So whatever is said beside the answer is taken for that. A later commit is answered when the standby has
    both.
    """
    session.connection.notices.clear()
    if not session.query(sql, values):
        return False
    return not session.connection.notices or bool(session.query(_RENEW, values))


def _find_limit(deadline: Deadline) -> float:
    """Return the seconds until nothing is waited for any more."""
    return max(0.0, deadline.left + SLACK)


def _is_passing(error: Exception) -> bool:
    """Return whether the server takes a statement later on: its session was lost, or it is busy with itself."""
    code = sqlstate(error)
    return not code or code[:2] in {"08", "57"} or code in _PASSING


def _is_final(error: OpsError) -> bool:
    """Return whether asking again changes nothing: account, database or server is not the one that is meant.

    A server that starts, has no place for a session now, or is a standby until its proxy knows better, is asked again.
    libpq gives no SQLSTATE of a refused connection, so its words count; what they do not say in English is asked again.
    """
    cause = error.__cause__
    if isinstance(cause, (driver_error(), TimeoutError)):  # the latter of a pooler that was to be judged
        return server_refused(cause) and re.search(_NOT_MEANT, str(cause)) is not None
    return not isinstance(error, NotWritable)
