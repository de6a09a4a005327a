# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One way to reach a MariaDB server and to know which one it is.

``pymysql`` is imported when a connection is opened. The options are documented by the fragment ``lowtide.ops._mysql``.
Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import typing as t
from dataclasses import dataclass, field

from .._common.dependencies import require
from .._common.errors import Refusal
from .errors import connect_error, sql_error

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# For ``argument_spec={**CONNECTION_SPEC, ...}``; mirrors doc_fragments/_mysql.py.
CONNECTION_SPEC: dict[str, dict[str, t.Any]] = {
    "login_host": {"type": "str", "default": "localhost"},
    "login_port": {"type": "int", "default": 3306},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "login_unix_socket": {"type": "path"},
    "option_file": {"type": "path"},
    "ca_cert": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "check_hostname": {"type": "bool", "default": True},
    "connect_timeout": {"type": "int", "default": 10},
}
OLDEST_VERSION = (10, 6)
"""From this version on DDL is atomic. Tested is 10.11."""
LOCK_SECONDS = 31536000
LOCAL = ("localhost", "127.0.0.1", "::1")

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)-MariaDB")
_FACTS = """
SELECT @@version AS version, @@hostname AS hostname, @@port AS port, @@server_id AS server_id, @@read_only AS read_only,
       @@log_bin AS log_bin, @@gtid_current_pos AS gtid, CONNECTION_ID() AS connection_id
"""


@dataclass(frozen=True)
class Settings:
    """Where and as whom to connect."""

    host: str
    port: int
    user: str
    password: str = field(default="", repr=False)
    unix_socket: str | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    check_hostname: bool = True
    connect_timeout: int = 10
    read_timeout: int | None = None

    @property
    def place(self) -> str:
        """How messages name where it is."""
        return self.unix_socket or f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """How messages name it; holds no secret."""
        return f"MariaDB server at {self.place} as {self.user}"

    @property
    def server_name(self) -> str:
        """Return ``host:port``; a server on this machine is named by the machine."""
        host = platform.node() if self.unix_socket or self.host in LOCAL else self.host
        return f"{host}:{self.port}"

    def driver(self) -> dict[str, t.Any]:
        """Return the keywords of the driver, password included."""
        keywords: dict[str, t.Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "unix_socket": self.unix_socket,
            "connect_timeout": self.connect_timeout,
            "read_timeout": self.read_timeout,
            "charset": "utf8mb4",
            "autocommit": True,
        }
        if self.ca_cert:
            keywords |= {"ssl_ca": self.ca_cert, "ssl_verify_cert": True, "ssl_verify_identity": self.check_hostname}
        if self.client_cert:
            keywords |= {"ssl_cert": self.client_cert, "ssl_key": self.client_key}
        return keywords

    def explain_unverified(self) -> str | None:
        """Return what to warn of where no certificate is verified; None where one is, or on this machine."""
        if self.ca_cert or self.unix_socket or self.host in LOCAL:
            return None
        return f"The connection to {self.place} is not verified and may be unencrypted: ca_cert is not set."

    def write_option_file(self) -> bytes:
        """Return an option file of the client programs that leads to the same server, with the password."""
        values: dict[str, str | int | None] = {
            "host": self.host,
            "port": self.port,
            "socket": self.unix_socket,
            "protocol": "socket" if self.unix_socket else "tcp",
            "user": self.user,
            "password": self.password,
            "ssl-ca": self.ca_cert,
            "ssl-cert": self.client_cert,
            "ssl-key": self.client_key,
        }
        lines = [f"{name}={quote_value(str(value))}" for name, value in values.items() if value]
        if self.ca_cert and self.check_hostname:
            lines.append("ssl-verify-server-cert")
        return "\n".join(["[client]", *lines, ""]).encode()


def quote_value(value: str) -> str:
    """Return a value as it stands in an option file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def read_option_file(path: str) -> dict[str, str]:
    """Return user and password of the section ``[client]``; a file that others may read is refused."""
    obj = f"option option_file: {path}"
    if not os.access(path, os.R_OK):
        raise Refusal(obj=obj, problem="it is not there or not readable", next_step="Correct option_file")
    if os.stat(path).st_mode & 0o077:
        raise Refusal(obj=obj, problem="others may read it, and it holds a password", next_step="Set its mode to 0600")
    parser = require("pymysql.optionfile", package="PyMySQL", why="to talk to MariaDB").Parser(
        interpolation=None, allow_no_value=True, strict=False
    )
    parser.read(path, encoding="utf-8")
    if not parser.has_section("client"):
        raise Refusal(obj=obj, problem="it has no section [client]", next_step="Add it, with user and password")
    return {
        name: parser.get("client", name)
        for name in ("user", "password")
        if parser.has_option("client", name) and parser.get("client", name) is not None
    }


def settings_from(params: t.Mapping[str, t.Any]) -> Settings:
    """Return the connection options of a module's parameters; refuse what cannot be meant."""
    kept = read_option_file(params["option_file"]) if params["option_file"] else {}
    user = params["login_user"] or kept.get("user", "")
    if not user:
        raise Refusal(
            obj="option login_user", problem="it is not set", next_step="Set it, or user in the file of option_file"
        )
    for option in ("ca_cert", "client_cert", "client_key"):
        if params[option] and not os.access(params[option], os.R_OK):
            raise Refusal(
                obj=f"option {option}",
                problem=f"{params[option]} is not there or not readable",
                next_step=f"Correct {option}",
            )
    password = params["login_password"] if params["login_password"] is not None else kept.get("password", "")
    if any(ord(char) < 0x20 for char in password + user):
        raise Refusal(
            obj="option login_password" if params["login_password"] else "option option_file",
            problem="user or password has a control character, which an option file cannot hold",
            next_step="Give the account another password",
        )
    return Settings(
        host=params["login_host"],
        port=params["login_port"],
        user=user,
        password=password,
        unix_socket=params["login_unix_socket"],
        ca_cert=params["ca_cert"],
        client_cert=params["client_cert"],
        client_key=params["client_key"],
        check_hostname=params["check_hostname"],
        connect_timeout=params["connect_timeout"],
    )


def warn_unverified(module: AnsibleModule, settings: Settings) -> None:
    """Warn of a connection over which rows go without a certificate that was verified."""
    problem = settings.explain_unverified()
    if problem is not None:
        module.warn(problem)


class Server(t.NamedTuple):
    """What answered."""

    version: str
    hostname: str
    port: int
    server_id: int
    read_only: int
    log_bin: int
    gtid: str
    connection_id: int


class Session:
    """One autocommit connection to a MariaDB server, in UTC; closes at the end of its ``with`` block."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        pymysql = require("pymysql", package="PyMySQL", why="to talk to MariaDB")
        try:
            self.connection = pymysql.connect(**settings.driver())
        except (pymysql.err.MySQLError, OSError) as error:
            raise connect_error(settings.target, error) from error
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """Refuse another product or an old version; then let no timeout of the server end the session."""
        said = str(self.query("SELECT @@version AS version")[0]["version"])
        match = _VERSION.match(said)
        if match is None:
            raise Refusal(
                obj=self.settings.target,
                problem=f"this server is no MariaDB: it says {said}",
                next_step="Use a server that lowtide.ops has been proven with: MariaDB 10.6 or newer, tested is 10.11",
            )
        if (int(match[1]), int(match[2])) < OLDEST_VERSION:
            raise Refusal(
                obj=self.settings.target,
                problem=f"MariaDB {match[0].partition('-')[0]} is not supported: its DDL is not atomic",
                next_step="Use MariaDB 10.6 or newer",
            )
        self.execute(
            "SET SESSION time_zone='+00:00', sql_mode='', max_statement_time=0, group_concat_max_len=1048576,"
            f" wait_timeout={LOCK_SECONDS}"
        )
        self.server = Server(**self.query(_FACTS)[0])

    def query(self, sql: str, values: t.Sequence[t.Any] | None = None) -> list[dict[str, t.Any]]:
        """Return all rows of one statement by the names of their columns."""
        cursors = require("pymysql.cursors", package="PyMySQL", why="to talk to MariaDB")
        with translate_errors(self.settings.target), self.connection.cursor(cursors.DictCursor) as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def execute(self, sql: str, values: t.Sequence[t.Any] | None = None) -> None:
        """Run one statement without rows."""
        with translate_errors(self.settings.target), self.connection.cursor() as cursor:
            cursor.execute(sql, values)

    def close(self) -> None:
        """End the session."""
        with contextlib.suppress(driver_error()):
            self.connection.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def read_replication(session: Session) -> list[dict[str, t.Any]]:
    """Ask which servers this one follows, those of named connections too; none where it is no replica."""
    return session.query("SHOW ALL REPLICAS STATUS")


def driver_error() -> type[Exception]:
    """Return PyMySQL's base error class."""
    error: type[Exception] = require("pymysql", package="PyMySQL", why="to talk to MariaDB").err.MySQLError
    return error


@contextlib.contextmanager
def translate_errors(obj: str) -> t.Iterator[None]:
    """Raise an error of the driver as one with object, problem and next step."""
    try:
        yield
    except driver_error() as error:
        raise sql_error(obj, error) from error


def quote_name(name: str) -> str:
    """Return an identifier of SQL, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


__all__ = ["CONNECTION_SPEC", "Server", "Session", "Settings", "driver_error", "quote_name", "settings_from"]
