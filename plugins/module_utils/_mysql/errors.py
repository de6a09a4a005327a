# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Word what MariaDB and its driver say. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

from .._common.errors import OpsError, Refusal

CONNECT_STEPS = {
    1040: "Ask mysql_health_info by an account with CONNECTION ADMIN, or on extra_port, who has them; end"
    " idle sessions or correct the pools of the clients before anything is restarted",
    1044: "Give login_user the rights of docs/mysql-rights.sql",
    1045: "Correct login_user and its password (login_password or option_file), or the host that the account is for",
    1049: "Correct the name of the database",
    1129: "The server has blocked this host after max_connect_errors: find out what connected and broke off, then FLUSH"
    " HOSTS",
    1130: "No account is for this host: create login_user for it",
    1203: "login_user has reached max_user_connections: end its idle sessions or raise the limit",
    1226: "login_user has reached a limit of its account: end its idle sessions or raise the limit",
    2002: "Correct login_unix_socket, or find out whether the server runs",
    2003: "Correct login_host and login_port; find out whether the server runs, and listens there (bind_address,"
    " firewall)",
}
SQL_STEPS = {
    1142: "Give login_user the rights of docs/mysql-rights.sql",
    1143: "Give login_user the rights of docs/mysql-rights.sql",
    1044: "Give login_user the rights of docs/mysql-rights.sql",
    1205: "A session holds a lock: find it in information_schema.INNODB_TRX, end it, and run again",
    1227: "Give login_user the rights of docs/mysql-rights.sql",
    1370: "Give login_user the rights of docs/mysql-rights.sql",
    1969: "Find out what holds the server up, or raise timeout, and run again",
    2006: "The server ended the session: look into its log, and run again",
    2013: "The server ended the session: look into its log, and run again",
}


def read_code(error: BaseException) -> int:
    """Return the number of an error of the driver, 0 where it has none."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def read_message(error: BaseException) -> str:
    """Return the server's words; the driver's own errors have them as the second argument."""
    return str(error.args[1] if len(error.args) > 1 else error)


def connect_error(target: str, error: BaseException) -> OpsError:
    """Return why there is no connection."""
    code = read_code(error)
    return Refusal(
        obj=target,
        problem=f"no connection: {read_message(error)}" + (f" (error {code})" if code else ""),
        next_step=CONNECT_STEPS.get(code, "Correct the connection options, or find out whether the server runs"),
    )


def sql_error(target: str, error: BaseException) -> OpsError:
    """Return what ended a statement."""
    code = read_code(error)
    return OpsError(
        obj=target,
        problem=f"the server says: {read_message(error)} (error {code})",
        next_step=SQL_STEPS.get(code, "Correct what the message names, and run again"),
    )
