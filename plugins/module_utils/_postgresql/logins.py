# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log in as a role with a password, to learn whether the server takes it. Private to lowtide.ops: do not import from other collections.

What counts is a real login at the address that clients use: through a pooler, on a standby, by whatever pg_hba.conf says.
"""

from __future__ import annotations

import re
import secrets
import typing as t
from dataclasses import replace

from .._common.dependencies import require
from .._common.errors import OpsError, Refusal, WaitTimeout
from .._common.retry import Backoff, Deadline
from .connection import Settings, driver_error
from .errors import connect_error, one_line, server_refused

# PostgreSQL, and PgBouncer, which has words of its own. libpq hands over no SQLSTATE of a login that failed.
_REFUSED_PASSWORD = re.compile(
    r"password authentication failed|SASL authentication failed|authentication failed for user"
    r"|is not permitted to log in|no such user|empty password returned by client",
    re.IGNORECASE,
)
# Where no server answered, or none in time.
_NO_ANSWER = re.compile(
    r"Connection refused|timeout|timed out|No such file|unreachable|No route to host|could not translate"
)
APPLICATION = "lowtide.ops pg_credential"
"""The application_name of these logins. The server shows a session a moment longer than it lasts."""
PROPAGATION_MOMENT = 1.0
"""Seconds after which nearly every standby has a new password."""
_WHO_SQL = "SELECT session_user::text, current_user::text"


class Login(t.NamedTuple):
    """How a login ended: ``current_user`` once it was let in; ``error`` where the password was refused."""

    is_accepted: bool
    current_user: str = ""
    error: str = ""


def settings_for_login(
    base: Settings, *, host: str, port: int, dbname: str, sslmode: str | None, sslrootcert: str | None
) -> Settings:
    """Return where clients log in: no identity of ``base`` is in it, neither its passfile nor its certificate."""
    return replace(
        base,
        host=host,
        port=port,
        dbname=dbname,
        sslmode=sslmode or base.sslmode,
        sslrootcert=sslrootcert or base.sslrootcert,
        user="",
        password=None,
        passfile=None,
        sslcert=None,
        sslkey=None,
    )


def try_login(address: Settings, user: str, password: str) -> Login:
    """Log in, ask who it is, and leave. Raise OpsError where neither yes nor no was the answer (nothing listens, no room)."""
    psycopg2 = require("psycopg2", package="psycopg2-binary", why="to talk to PostgreSQL")
    settings = replace(address, user=user, password=password)
    keywords = {**settings.libpq(primary=False), "password": password, "application_name": APPLICATION}
    try:
        connection = psycopg2.connect(**keywords)
    except psycopg2.OperationalError as error:
        if (server_refused(error) and _REFUSED_PASSWORD.search(str(error))) or _is_refused_elsewise(settings, error):
            return Login(False, error=one_line(str(error)))
        raise connect_error(settings.target, error) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute(_WHO_SQL)
            _session_user, current_user = cursor.fetchone()
    except driver_error() as error:
        raise OpsError(
            obj=settings.target,
            problem=f"the server let the role in and then could not say who it is: {one_line(str(error))}",
            next_step="Look into the log of the server, or of the pooler that answers there",
        ) from error
    finally:
        connection.close()
    return Login(True, current_user=str(current_user))


def _is_refused_elsewise(settings: Settings, error: Exception) -> bool:
    """Return whether an answer in a language that is not read here says that the password is wrong.

    A role that nobody has gets the same answer with its own name in it (the server does not tell which roles there are).
    Answers without the name are of the server's state (full, starting), and those with the database's name are not about
    a password.
    """
    if settings.hosts[1:] or _NO_ANSWER.search(str(error)):
        return False
    psycopg2 = require("psycopg2", package="psycopg2-binary", why="to talk to PostgreSQL")
    stranger = f"lowtide_{secrets.token_hex(8)}"
    keywords = replace(settings, user=stranger).libpq(primary=False)
    try:
        psycopg2.connect(**keywords, password=secrets.token_hex(8), application_name=APPLICATION).close()
    except psycopg2.OperationalError as answer:
        pattern = str(answer)
        is_about_role = stranger in pattern and settings.dbname not in pattern.replace(stranger, "")
        return is_about_role and pattern.replace(stranger, settings.user) == str(error)
    return False


def wait_for_login(address: Settings, user: str, password: str, *, deadline: Deadline) -> Login:
    """Return the login that the server accepts, or the last one that it refuses; another server of it may be a moment behind.

    Three attempts at most: at once, a moment later, and at the deadline. Where failed logins are counted, more of them
    would lock the role or this address.
    """
    login = try_login(address, user, password)
    for pause in (PROPAGATION_MOMENT, deadline.seconds):
        if login.is_accepted or deadline.passed:
            break
        deadline.pause(pause)
        login = try_login(address, user, password)
    return login


def require_login(
    address: Settings, user: str, password: str, *, current_user: str | None, deadline: Deadline
) -> Login:
    """Return the login that the server accepts; a standby or a pooler may know of a new password a moment later.

    ``current_user`` is whom it must be then (``ALTER ROLE ... SET role``). Raises WaitTimeout and OpsError.
    """
    login = wait_for_login(address, user, password, deadline=deadline)
    if not login.is_accepted:
        raise WaitTimeout(
            obj=replace(address, user=user).target,
            problem=f"the new password is refused there: {login.error}",
            next_step="Let the role in by pg_hba.conf; where a pooler answers, give it auth_query, or the role in its userlist",
        )
    if current_user and login.current_user != current_user:
        raise OpsError(
            obj=replace(address, user=user).target,
            problem=f"a login of {user} acts as {login.current_user}, not as {current_user}, so what it makes is not shared",
            next_step=f"ALTER ROLE {user} SET role = {current_user}; where a pooler answers, let it pass that setting",
        )
    return login


def require_refusal(address: Settings, user: str, password: str, *, deadline: Deadline) -> str:
    """Return the words by which the server refuses a password that must no longer open; raise OpsError when it lets it in."""
    backoff = Backoff(first=0.05, limit=1.0)
    while (login := try_login(address, user, password)).is_accepted:
        if deadline.passed:
            raise OpsError(
                obj=replace(address, user=user).target,
                problem="the old password still opens it",
                next_step="Look at pg_hba.conf (trust, ident, cert), and at what the pooler there keeps (userlist, auth_query)",
            )
        deadline.pause(backoff.take_pause())
    return login.error


def refuse_open_door(address: Settings, user: str, wrong_password: str) -> None:
    """Refuse an address that lets the role in whatever its password is: a rotation would prove nothing there."""
    if try_login(address, user, wrong_password).is_accepted:
        raise Refusal(
            obj=replace(address, user=user).target,
            problem="it lets this role in with a wrong password, so a password protects nothing there",
            next_step="Have pg_hba.conf of that address ask for scram-sha-256, or name the address that clients use in logins",
        )
