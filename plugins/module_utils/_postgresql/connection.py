# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One way to reach a PostgreSQL database and to know which one it is. Private to lowtide.ops: do not import from other collections.

``psycopg2`` is imported when a connection is opened, not before, so that a module file loads with the standard library alone.
The options are documented by the fragment ``lowtide.ops._postgresql``.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.common.parameters import env_fallback

from .._common.dependencies import require
from .._common.errors import Refusal
from .._common.retry import Deadline
from .errors import connect_error, find_decisive, server_refused, sql_error
from .pooler import PID_SQL, is_pooled, refuse_shared_sessions
from .time_limit import TimeLimit, end_process, find_address, find_places

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

VARIABLES = {
    "login_host": "PGHOST",
    "login_port": "PGPORT",
    "login_user": "PGUSER",
    "login_db": "PGDATABASE",
    "ssl_mode": "PGSSLMODE",
}
"""libpq's variables for what has a default here, or is required; the others it reads itself (PGPASSFILE, PGSSLROOTCERT)."""


def _describe(name: str, option: dict[str, t.Any]) -> dict[str, t.Any]:
    return {**option, "fallback": (env_fallback, [VARIABLES[name]])} if name in VARIABLES else option


# For ``argument_spec={**CONNECTION_SPEC, ...}``; mirrors doc_fragments/_postgresql.py.
_OPTIONS: dict[str, dict[str, t.Any]] = {
    "login_host": {"type": "str", "default": "localhost"},
    "login_port": {"type": "int", "default": 5432},
    "login_user": {"type": "str", "default": "postgres"},
    "login_password": {"type": "str", "no_log": True},
    "passfile": {"type": "path", "no_log": False},
    "login_db": {"type": "str", "required": True},
    "ssl_mode": {"type": "str", "default": "prefer", "choices": list(SSL_MODES)},
    "ca_cert": {"type": "path"},
    "ssl_cert": {"type": "path"},
    "ssl_key": {"type": "path", "no_log": False},
    "connect_timeout": {"type": "int", "default": 10},
    "system_identifier": {"type": "str"},
}
CONNECTION_SPEC = {name: _describe(name, option) for name, option in _OPTIONS.items()}

# What libpq would take from the environment to go somewhere else than the options say.
_REDIRECTING = ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS", "PGTARGETSESSIONATTRS", "PGREALM", "PGAPPNAME")

# From this version on libpq can look for a primary without asking that its transactions be writable.
LIBPQ_14 = 140000

# The oldest version that is supported; tested are 14 to 18.
OLDEST_VERSION = 140000

# Every timeout that a role, a database or the server may have set, for a session that works or waits for as long as its
# run; and jit, since queries over the catalogs take longer to compile than to run. A name that this version does not know
# is left alone, so that one statement serves all.
_PREPARE_SQL = """
SELECT pg_catalog.set_config(name, CASE WHEN name = 'search_path' THEN '' ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('search_path', 'jit', 'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
  'idle_session_timeout', 'transaction_timeout')
"""

_FACTS_SQL = """
SELECT pg_catalog.current_setting('server_version_num')::int AS version,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.current_database()::text AS database,
       (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS database_oid,
       pg_catalog.pg_backend_pid() AS pid,
       pg_catalog.current_setting('block_size')::int AS block_size,
       pg_catalog.host(pg_catalog.inet_server_addr()) AS address,
       pg_catalog.current_setting('transaction_read_only')::bool AS read_only,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions,
       pg_catalog.current_setting('track_counts')::bool AS track_counts,
       pg_catalog.current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max_age,
       pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixact_freeze_max_age
"""

POOLER_TIMEOUT = 10
"""Seconds to find out how a pooler pools, where connect_timeout is 0."""

CLOSE_SECONDS = 5.0
"""Seconds for the end of a session whose opening had a limit."""

CODEC = "lowtide_sql_ascii"
"""How text of a database without an encoding (SQL_ASCII) is read: as UTF-8, and bytes that are none survive."""


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != CODEC:
        return None
    return codecs.CodecInfo(
        name=CODEC,
        encode=lambda value, _errors="strict": codecs.utf_8_encode(value, "surrogateescape"),
        decode=lambda value, _errors="strict": codecs.utf_8_decode(value, "surrogateescape", True),
    )


codecs.register(_find_codec)


@dataclass(frozen=True)
class Settings:
    """Where and as whom to connect; ``host`` may be a comma-separated list. ``system_identifier`` is what it must be, if known."""

    host: str
    port: int
    user: str
    dbname: str
    password: str | None = field(default=None, repr=False)
    passfile: str | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    connect_timeout: int = 10
    system_identifier: str | None = None

    @property
    def target(self) -> str:
        """How messages name it; holds no secret."""
        return f"PostgreSQL database {self.dbname} at {self.host}:{self.port} as {self.user}"

    @property
    def hosts(self) -> list[str]:
        """The hosts, in the order given."""
        return [host.strip() for host in self.host.split(",") if host.strip()]

    def libpq(self, *, primary: bool) -> dict[str, t.Any]:
        """Keywords for libpq without the password; ``primary`` makes it look for the writable one of several hosts."""
        keywords: dict[str, t.Any] = {
            "host": ",".join(self.hosts),
            "port": self.port,
            "user": self.user,
            "dbname": self.dbname,
            "sslmode": self.sslmode,
            "connect_timeout": self.connect_timeout,
            # A server that vanished without a word is noticed within half a minute instead of two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 4,
        }
        optional = {
            "passfile": self.passfile,
            "sslrootcert": self.sslrootcert,
            "sslcert": self.sslcert,
            "sslkey": self.sslkey,
        }
        keywords.update({key: value for key, value in optional.items() if value})
        if primary and len(self.hosts) > 1:
            keywords["target_session_attrs"] = "read-write"
        return keywords

    def environment(self, *, primary: bool) -> dict[str, str]:
        """The same for a libpq program (pg_dump, pg_restore): variables for its environment, secrets included, nothing on argv."""
        names = {
            "host": "PGHOST",
            "port": "PGPORT",
            "user": "PGUSER",
            "dbname": "PGDATABASE",
            "sslmode": "PGSSLMODE",
            "connect_timeout": "PGCONNECT_TIMEOUT",
            "passfile": "PGPASSFILE",
            "sslrootcert": "PGSSLROOTCERT",
            "sslcert": "PGSSLCERT",
            "sslkey": "PGSSLKEY",
            "target_session_attrs": "PGTARGETSESSIONATTRS",
        }
        keywords = self.libpq(primary=primary)
        environment = {name: str(keywords[key]) for key, name in names.items() if key in keywords}
        if self.password is not None:
            environment["PGPASSWORD"] = self.password
        return environment


class Server(t.NamedTuple):
    """What answered: ``version`` as server_version_num (150018), ``block_size`` in bytes, ``pid`` of this session.

    ``sees_sessions``: the role may see what other users' sessions do (pg_read_all_stats).
    """

    version: int
    system_identifier: str
    in_recovery: bool
    database: str
    database_oid: int
    pid: int
    block_size: int
    address: str | None
    read_only: bool
    sees_sessions: bool
    track_counts: bool
    freeze_max_age: int
    multixact_freeze_max_age: int


Row = t.TypeVar("Row", bound=t.NamedTuple)


def settings_from(params: t.Mapping[str, t.Any]) -> Settings:
    """The connection options of a module's parameters; refuses what cannot be meant."""
    settings = read_settings(params)
    check_files(settings)
    return settings


def read_settings(params: t.Mapping[str, t.Any]) -> Settings:
    """The same without a look at the files, which may come and go while a process lives."""
    settings = Settings(
        host=params["login_host"],
        port=params["login_port"],
        user=params["login_user"],
        dbname=params["login_db"],
        password=params["login_password"],
        passfile=params["passfile"],
        sslmode=params["ssl_mode"],
        sslrootcert=params["ca_cert"],
        sslcert=params["ssl_cert"],
        sslkey=params["ssl_key"],
        connect_timeout=params["connect_timeout"],
        system_identifier=params["system_identifier"] or None,
    )
    for option, value in (
        ("login_host", ",".join(settings.hosts)),
        ("login_db", settings.dbname),
        ("login_user", settings.user),
    ):
        if not value.strip():
            raise Refusal(obj=f"option {option}", problem="it is empty", next_step=f"Set {option}")
    return settings


def check_files(settings: Settings) -> None:
    """Refuse files that are not there or that libpq would pass over."""
    # libpq passes over a missing passfile without a word and then says "no password supplied".
    for option, path in (
        ("passfile", settings.passfile),
        ("ca_cert", settings.sslrootcert),
        ("ssl_cert", settings.sslcert),
        ("ssl_key", settings.sslkey),
    ):
        if path and not os.access(path, os.R_OK):
            raise Refusal(
                obj=f"option {option}", problem=f"{path} is not there or not readable", next_step=f"Correct {option}"
            )
    if settings.passfile and os.stat(settings.passfile).st_mode & 0o077:
        raise Refusal(
            obj=f"option passfile: {settings.passfile}",
            problem="others may read it, so libpq ignores it",
            next_step="Set its mode to 0600",
        )


def new_run_id() -> str:
    """Eight characters that tell one run from another in pg_stat_activity."""
    return os.urandom(4).hex()


def _fit_connect_timeout(connect_timeout: int, seconds: float) -> int:
    """Return connect_timeout for one address that has ``seconds`` at most.

    Less than a second cannot be told, and 0 would be no limit.
    """
    most = max(1, int(seconds))
    return min(connect_timeout or most, most)


def _connect(psycopg2: t.Any, settings: Settings, keywords: dict[str, t.Any]) -> t.Any:
    """A connection, or a refusal that says why there is none.

    libpq goes on to the next host when one does not answer or is not the primary, and gives up when one answers that there
    is no such database, role or password. That may be a standby that lags behind, so all hosts are then asked one by one.
    """
    try:
        return psycopg2.connect(**keywords)
    except psycopg2.OperationalError as error:
        if len(settings.hosts) < 2 or not server_refused(error):
            raise connect_error(settings.target, error) from error
    errors: list[Exception] = []
    for host in settings.hosts:
        try:
            return psycopg2.connect(**{**keywords, "host": host})
        except psycopg2.OperationalError as error:
            errors.append(error)
    raise connect_error(settings.target, *errors) from find_decisive(errors)


def _connect_in_time(psycopg2: t.Any, settings: Settings, keywords: dict[str, t.Any], deadline: Deadline) -> t.Any:
    """Return a connection by the deadline, or a refusal that says why there is none.

    libpq resolves names without a limit, and takes connect_timeout for each address of one. So all addresses are asked one
    by one, and share the time. Those of a single name are one server: what one of them refuses is refused, and what the
    others lack does not count.
    """
    errors: list[Exception] = []
    unresolved: list[Exception] = []
    for found in find_places(settings.hosts, deadline):
        unresolved += [psycopg2.OperationalError(text) for text in found.unresolved]
        for number, place in enumerate(found.places):
            if errors and deadline.passed:
                break
            share = deadline.remaining / (len(found.places) - number + found.waiting)
            limit = _fit_connect_timeout(settings.connect_timeout, share)
            try:
                return psycopg2.connect(**{**keywords, **place, "connect_timeout": limit})
            except psycopg2.OperationalError as error:
                if len(settings.hosts) < 2 and server_refused(error):
                    raise connect_error(settings.target, error) from error
                errors.append(error)
    # What was asked is told before a name that nobody could be asked by, unless that may be the primary's.
    errors += unresolved
    raise connect_error(settings.target, *errors) from find_decisive(errors)


_SOUND_POOLERS: set[Settings] = set()
"""Poolers that this process has asked, and that keep a session for each client: working sessions need not ask again."""


class NotWritable(Refusal):
    """The server takes no writes now, which may be over soon: it is a standby, or transactions are read only."""


class Session:
    """One autocommit connection, by default only to a primary; closes at the end of its ``with`` block.

    ``application_name`` reads ``lowtide.ops <module> <run id>``, so that an auditor finds every statement.
    search_path is empty: every name in a statement is qualified. No timeout of the role or the server ends it: whoever
    wants one sets it. A pooler that shares sessions is refused before any of that is set, and one that does not gets its
    session back without settings. Errors of statements pass through as psycopg2's own.
    Without ``writes``, a role whose transactions are read only (default_transaction_read_only) is as good as any.
    ``seconds``: until it is open. All addresses of the hosts share them, since each one is waited for in turn; those of
    names that are known soon come first.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        module: str,
        run_id: str,
        primary: bool = True,
        writes: bool = True,
        seconds: float | None = None,
    ) -> None:
        self.settings = settings
        psycopg2 = require("psycopg2", package="psycopg2-binary", why="to talk to PostgreSQL")
        for name in _REDIRECTING:
            os.environ.pop(name, None)
        if settings.passfile is not None or settings.password is not None:
            # libpq would take a stray PGPASSWORD before the file that was named.
            os.environ.pop("PGPASSWORD", None)
        keywords = settings.libpq(primary=primary)
        if not writes and "target_session_attrs" in keywords and psycopg2.extensions.libpq_version() >= LIBPQ_14:
            keywords["target_session_attrs"] = "primary"
        keywords["client_encoding"] = "UTF8"
        keywords["application_name"] = f"lowtide.ops {module} {run_id}"[:63]
        if settings.password is not None:
            keywords["password"] = settings.password
        deadline = None if seconds is None else Deadline(seconds)
        if deadline is None:
            self.connection = _connect(psycopg2, settings, keywords)
        else:
            self.connection = _connect_in_time(psycopg2, settings, keywords, deadline)
        self.is_pooled = False
        self._keywords = keywords
        self._close_seconds = None if seconds is None else CLOSE_SECONDS
        try:
            if deadline is not None:
                limit = _fit_connect_timeout(settings.connect_timeout, deadline.remaining)
                self._keywords = {**keywords, **find_address(self.connection), "connect_timeout": limit}
            with self.limit(None if deadline is None else deadline.remaining):
                self.connection.autocommit = True
                self.is_pooled = self._check_pooler()
                self.server = self._identify(psycopg2)
                self._check(primary=primary, writes=writes)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def limit(self, seconds: float | None) -> t.Iterator[None]:
        """Raise TimeoutError where the block takes longer, however the server or the network hangs.

        What its statements did is not known then, and the session is over, here and on the server if that answers.
        """
        if seconds is None:
            yield
            return
        limit = TimeLimit(self.connection, seconds, then=self._end_process)
        lost: Exception | None = None
        try:
            yield
        except Exception as error:
            lost = error
        finally:
            has_passed = limit.stop()
        if has_passed:  # an answer by then may be that of a commit which gave up waiting for its standby
            self.connection.close()
            raise TimeoutError(f"there was no answer within {seconds:.0f} s") from lost
        if lost is not None:
            raise lost

    def _end_process(self) -> None:
        """Have the server end its process of this session, which may hold locks and never learn that nobody listens."""
        server = getattr(self, "server", None)  # not known while the session is being opened, and holds nothing
        if server is not None:
            with contextlib.suppress(driver_error(), TimeoutError):  # then the server's own timeouts end it
                end_process(self._keywords, server.pid)

    def _identify(self, psycopg2: t.Any) -> Server:
        """Set what belongs to every session, and ask who answers."""
        try:
            if self.connection.info.parameter_status("server_encoding") == "SQL_ASCII":
                psycopg2.extensions.encodings["SQLASCII"] = psycopg2.extensions.encodings["SQL_ASCII"] = CODEC
                self.connection.set_client_encoding("SQL_ASCII")
            self.execute("SET statement_timeout = 0")  # first, and fast: it may be shorter than the next statement
            self.query(_PREPARE_SQL)
            return self.read(Server, _FACTS_SQL)[0]
        except driver_error() as error:
            raise sql_error(self.settings.target, error) from error

    def _check_pooler(self) -> bool:
        """Return whether a pooler answers, and refuse one that shares sessions; nothing has been set so far."""
        try:
            if not is_pooled(self.connection, self._read_process()):
                return False
            if self.settings not in _SOUND_POOLERS:
                refuse_shared_sessions(
                    self._read_process,
                    {**self._keywords, "host": self.connection.info.host},
                    target=self.settings.target,
                    seconds=self._keywords["connect_timeout"] or POOLER_TIMEOUT,
                )
                _SOUND_POOLERS.add(self.settings)
        except driver_error() as error:
            raise sql_error(self.settings.target, error) from error
        return True

    def _read_process(self) -> int:
        return int(self.query(PID_SQL)[0][0])

    def _check(self, *, primary: bool, writes: bool) -> None:
        if self.server.version < OLDEST_VERSION:
            raise Refusal(
                obj=self.settings.target,
                problem="PostgreSQL {}.{} is not supported".format(*divmod(self.server.version, 10000)),
                next_step=f"Use PostgreSQL {OLDEST_VERSION // 10000} or newer",
            )
        expected = self.settings.system_identifier
        if expected and expected != self.server.system_identifier:
            raise Refusal(
                obj=self.settings.target,
                problem=f"this is another cluster: its system identifier is {self.server.system_identifier}, not {expected}",
                next_step="Correct login_host and login_port, or system_identifier if this is the cluster that is meant",
            )
        if primary and self.server.in_recovery:
            raise NotWritable(
                obj=self.settings.target,
                problem="this server is a standby (pg_is_in_recovery() is true)",
                next_step="Name the primary, or every member of the cluster, in login_host",
            )
        if primary and writes and self.server.read_only:
            raise NotWritable(
                obj=self.settings.target,
                problem="transactions are read only here (default_transaction_read_only is on)",
                next_step="Turn default_transaction_read_only off for login_user, or name the primary in login_host",
            )

    def query(self, sql: t.Any, values: t.Mapping[str, t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        """All rows of one statement; ``values`` are bound by the driver."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            rows: list[tuple[t.Any, ...]] = cursor.fetchall()
            return rows

    def read(self, record: type[Row], sql: t.Any, values: t.Mapping[str, t.Any] | None = None) -> list[Row]:
        """Return all rows as records. The statement names its columns as the record's fields, in their order."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            columns = tuple(column.name for column in cursor.description)
            if columns != record._fields:
                raise TypeError(f"{record.__name__} has the fields {record._fields}, the statement has {columns}")
            return list(map(record._make, cursor.fetchall()))

    def execute(self, sql: t.Any, values: t.Mapping[str, t.Any] | None = None) -> None:
        """One statement without rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)

    def is_alive(self) -> bool:
        """Return whether the server still answers."""
        try:
            self.query(PID_SQL)
        except driver_error():
            return False
        return True

    def close(self) -> None:
        """End the session; a pooler's, which goes on to its next client, is as it was before."""
        if self.is_pooled and self._is_idle():
            # A connection that is lost takes its settings with it.
            with contextlib.suppress(driver_error(), TimeoutError), self.limit(self._close_seconds):
                self.execute("DISCARD ALL")
        self.connection.close()

    def _is_idle(self) -> bool:
        """Return whether a statement could be sent outside of a transaction; a pooler ends what is left in the middle of one."""
        extensions = require("psycopg2.extensions", package="psycopg2-binary", why="to talk to PostgreSQL")
        return bool(self.connection.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def driver_error() -> type[Exception]:
    """psycopg2's base error class, for ``except`` clauses outside this file."""
    error: type[Exception] = require("psycopg2", package="psycopg2-binary", why="to talk to PostgreSQL").Error
    return error


@contextlib.contextmanager
def transact(session: Session, *, keep: bool = True) -> t.Iterator[None]:
    """Execute the statements of the block together; after an error none of them was, and the session goes on.

    Without ``keep`` it is a rehearsal, and none of them was in any case.
    """
    session.execute("BEGIN")
    try:
        yield
        session.execute("COMMIT" if keep else "ROLLBACK")
    except BaseException:
        if not session.connection.closed:
            session.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translate_errors(obj: str) -> t.Iterator[None]:
    """Raise an error of the driver as one with object, problem and next step."""
    try:
        yield
    except driver_error() as error:
        raise sql_error(obj, error) from error


__all__ = [
    "CONNECTION_SPEC",
    "OLDEST_VERSION",
    "SSL_MODES",
    "NotWritable",
    "Server",
    "Session",
    "Settings",
    "check_files",
    "driver_error",
    "new_run_id",
    "read_settings",
    "settings_from",
    "transact",
    "translate_errors",
]
