# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL and libpq say, as object, problem and next step. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re
import typing as t

from .._common.errors import OpsError, Refusal

_NOT_PRIMARY = r"session is read-only|hot standby mode"
_NOT_YET = r"starting up|not yet accepting|shutting down|recovery mode"
_FULL = r"too many (clients|connections)|remaining connection slots"

# libpq gives no SQLSTATE for a connection that never came to be, so its English text is what there is to go by; a server
# whose lc_messages is not English falls through to the last line, which still carries the whole text.
# Pattern, problem, next step. {name} is the first group of the pattern.
_CONNECT: tuple[tuple[str, str, str], ...] = (
    (r'could not translate host name "([^"]*)"', "the host name {name} does not resolve", "Correct login_host"),
    (
        r"password authentication failed",
        "the server refused the password",
        "Correct login_password or the passfile entry for this host, port, database and user",
    ),
    (
        r"no password supplied",
        "the server asks for a password and none was found",
        "Set login_password, or passfile with an entry for this host, port, database and user",
    ),
    (r'database "([^"]*)" does not exist', "there is no database {name} on this server", "Correct login_db"),
    (r'role "([^"]*)" does not exist', "there is no role {name} on this server", "Correct login_user"),
    (
        r"permission denied for database",
        "the user may not connect to this database",
        "GRANT CONNECT on it to login_user, or correct login_user",
    ),
    (
        r"too many (clients|connections)|remaining connection slots",
        "the server has no free connection for this user",
        "Look who holds them in pg_stat_activity, end idle ones, or raise max_connections",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "pg_hba.conf of the server does not let this user in from here",
        "Add an entry there, or correct login_user, login_host or ssl_mode",
    ),
    (
        r"server does not support SSL",
        "ssl_mode asks for TLS and the server offers none",
        "Enable ssl on the server, or set ssl_mode to prefer if clear text is accepted here",
    ),
    (
        r"certificate verify failed|self.signed certificate",
        "the server's certificate is not signed by the given authority",
        "Set ca_cert to the certificate of the authority that signed it",
    ),
    (
        r"does not match host name|server certificate for",
        "the server's certificate is for another name",
        "Use the name in the certificate as login_host, or have the certificate issued for this one",
    ),
    (
        r'root certificate file "([^"]*)" does not exist',
        "the authority's certificate {name} is not there",
        "Set ca_cert to an existing file",
    ),
    (
        r"certificate file|private key file",
        "the client certificate or its key cannot be used",
        "Correct ssl_cert and ssl_key; the key must not be readable by others (mode 0600)",
    ),
    (
        _NOT_PRIMARY,
        "no host of login_host is a primary that accepts writes",
        "Name the primary, or every member of the cluster, in login_host",
    ),
    (
        _NOT_YET,
        "the server is starting, stopping or recovering",
        "Run again when it accepts connections",
    ),
    (
        r"Connection refused",
        "nothing listens there (connection refused)",
        "Correct login_host and login_port, or start the server",
    ),
    (
        r"timeout expired|timed out",
        "no answer within connect_timeout",
        "Correct login_host and login_port, or let the traffic through",
    ),
    (
        r"No such file or directory",
        "there is no such socket",
        "Correct login_host (the folder of the socket) and login_port, or start the server",
    ),
    (
        r"Network is unreachable|No route to host",
        "there is no route to that host",
        "Correct login_host, or let the traffic through",
    ),
)


def one_line(text: str) -> str:
    """A server's message on one line."""
    return " ".join(text.split())


def server_refused(error: Exception) -> bool:
    """Whether a server answered, and refused the session; libpq's own errors have no severity."""
    return re.search(r"\bFATAL\b", str(error)) is not None


def _not_the_primary(error: Exception) -> bool:
    return re.search(_NOT_PRIMARY, str(error)) is not None


def find_decisive(errors: t.Sequence[Exception]) -> Exception:
    """Return that error, of one for each host, which may be the primary's: first that of a host that did not answer, since
    what the others know may be old, then of one that takes nobody at the moment, then what one answered that does not call
    itself a standby."""

    def rank(error: Exception) -> int:
        if _not_the_primary(error):  # which libpq itself says of a server that has let it in
            return 3
        if not server_refused(error):
            return 0
        return 1 if re.search(f"{_NOT_YET}|{_FULL}", str(error)) else 2

    return min(errors, key=rank)


def connect_error(target: str, *errors: Exception) -> Refusal:
    """Return a failed connection to ``target`` (``host:port/database as user``) as a refusal. Of several errors, one for
    each host, :func:`find_decisive` finds the one that counts."""
    matched = one_line(str(find_decisive(errors)))
    text = "; ".join(one_line(str(error)) for error in errors)
    # The password is asked about first: with several hosts libpq joins one message for each.
    for pattern, problem, next_step in _CONNECT:
        match = re.search(pattern, matched)
        if match:
            name = match.group(1) if match.groups() else ""
            return Refusal(obj=target, problem=f"{problem.replace('{name}', name)} ({text})", next_step=next_step)
    return Refusal(
        obj=target, problem=f"the connection failed: {text}", next_step="Correct the connection options by that message"
    )


# SQLSTATE class or code -> next step.
_NEXT_STEP: dict[str, str] = {
    "53100": "Free space on that volume (or in that tablespace) and run again; nothing half made is left",
    "53200": "Raise max_locks_per_transaction if the message names it, else lower maintenance_work_mem or jobs; run again",
    "55P03": "Run again when the holder has finished, or raise lock_timeout",
    "57014": "Somebody cancelled the statement or statement_timeout ended it; run again",
    "40001": "Run again; on a standby, set hot_standby_feedback on or raise max_standby_streaming_delay",
    "40P01": "Run again; the server ended one side of a deadlock",
    "42501": "GRANT login_user what the message names (USAGE, if it is a schema), or connect as the owner of the object",
    "57P05": "Run again; idle_session_timeout or a network device ended the session",
    "23505": "Remove the duplicate rows first: an index that is to be unique cannot be built over them",
    "XX002": "Run pg_amcheck on it; the index or table is corrupt",
    "XX001": "Run pg_amcheck on it; the index or table is corrupt",
    "57P01": "The server was shut down or switched over; run again against the new primary",
    "57P02": "The server crashed; look into its log before running again",
    "57P03": "Run again when the server accepts connections",
    "25006": "The server is read only now (switched over?); run again against the primary",
}


# Classes of SQLSTATE whose messages quote the values that they complain of: data exceptions, and what functions raise.
_SPEAKS_OF_VALUES = {"22", "P0", "23"}
_CONNECTION_CLASSES = {"08", "57", ""}

# What an expression of an index or a statistics object calls is looked up with an empty search_path.
_QUALIFY = "Qualify the names in that function with their schema, or ALTER FUNCTION ... SET search_path, and run again"
_NEXT_STEP_IN_FUNCTION = {"42P01": _QUALIFY, "42883": _QUALIFY, "42704": _QUALIFY, "3F000": _QUALIFY}
_FUNCTION = re.compile(r'function ((?:"[^"]*"|[\w$])+(?:\.(?:"[^"]*"|[\w$])+)?)\(')


def find_function(error: Exception) -> str | None:
    """Return the name of the function in which the server met the error, from its CONTEXT; None outside of functions.

    Only the name: the rest of the context may quote statements and values. SQL functions have no argument list there.
    """
    context = str(getattr(getattr(error, "diag", None), "context", None) or "")
    match = _FUNCTION.search(context) or re.search(r'SQL function "([^"]+)"', context)
    return match.group(1) if match else None


def is_deadline(error: Exception) -> bool:
    """Return whether the statement was cancelled: by statement_timeout, or by a person."""
    return sqlstate(error) == "57014"


LOCK_NOT_AVAILABLE = "55P03"
"""The SQLSTATE of a statement that lock_timeout has ended."""


def sqlstate(error: Exception) -> str:
    """The SQLSTATE of a driver error, empty when the connection was lost without one."""
    return str(getattr(error, "pgcode", None) or "")


def sql_error(obj: str, error: Exception) -> OpsError:
    """Return an error of a statement on ``obj`` as object, problem (the server's own words) and next step.

    The server's DETAIL is left out, and so are messages of conversions and of functions: they quote values of rows.
    """
    code = sqlstate(error)
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    text = one_line(str(primary or error))
    if code[:2] in _SPEAKS_OF_VALUES:
        text = f"{type(error).__name__} (SQLSTATE {code}); the server's log has its message, which may hold values of a row"
    function = find_function(error)
    if function and code[:2] not in _CONNECTION_CLASSES:
        text = f"{text}, in function {function}"
    step = _NEXT_STEP.get(code)
    if step is None and function:
        step = _NEXT_STEP_IN_FUNCTION.get(code, f"Mend the function {function}, and run again")
    if step is None:
        step = (
            "The connection was lost; run again, what is done is not done twice"
            if not code
            else f"Look up SQLSTATE {code} and the server's log"
        )
    return OpsError(obj=obj, problem=text, next_step=step)


def is_lost(error: Exception, connection: t.Any) -> bool:
    """Whether this error ended the session (server stopped, demoted, network gone), so that nothing more can be done on it."""
    return bool(connection.closed) or sqlstate(error) in {"57P01", "57P02", "57P03", "25006"}
