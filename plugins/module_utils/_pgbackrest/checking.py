# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have all of a restored copy read, and tell damage from what keeps its reader from reading.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._backup.pipeline import NO_MESSAGE, Failed, leave_out_rows
from .._common.errors import OpsError
from .._common.text import format_count

if t.TYPE_CHECKING:
    from .._common.retry import Deadline
    from .drill_place import DrillPlace
    from .private_server import PrivateServer, ServerPrograms

DAMAGE = "The backup has damage that the restore brought along. Look into the database itself (corruption_triage)"
NO_DAMAGE = "Nothing is proven, and that is no sign of damage. Correct what it names, and run again"
_SESSION = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "temp_file_limit": "-1",
    "default_transaction_read_only": "off",
    "role": "none",
    # An event trigger may ask for a library that is not preloaded here, or forbid to create an extension.
    "session_replication_role": "replica",
    "log_min_messages": "error",
}
"""What databases and roles may have set otherwise, for the application, and what came with the backup."""
LINES_SHOWN = 10
_CODE = re.compile(r" ([0-9A-Z]{5}) (?:ERROR|FATAL|PANIC):  (.*)")
_ENVIRONMENT = re.compile("25|53|55|57|58030")
"""SQLSTATE: a transaction's state, room, objects in use, an operator's doing; and a disk that fails."""
_LIBRARY = re.compile(r'could not (?:access file "\$libdir|load library)|must be (?:pre)?loaded')
_FOUND = re.compile(r", block \d+|terminated by signal (?:6|7|8|11)\b| XX00[12] (?:ERROR|FATAL|PANIC):")
"""What pg_amcheck says of a table, a server that broke on it, and what PostgreSQL itself calls corrupted."""


def is_damage(error: Failed, output: str, log: str) -> bool:
    """Return whether a program has failed for what it read; ``log`` is what the server logged meanwhile.

    pg_amcheck ends with 2 where it has read something that is wrong, or could not read it, and with 1 where it could
    not begin. pg_dump knows one status only.
    """
    if _FOUND.search(output) or _FOUND.search(log):
        return True
    if error.obj == "pg_amcheck" and error.status != 2:
        return False
    errors = _CODE.findall(log)
    return not errors or not all(_ENVIRONMENT.match(code) or _LIBRARY.search(message) for code, message in errors)


def check_copy(
    server: PrivateServer,
    programs: ServerPrograms,
    place: DrillPlace,
    *,
    user: str,
    list_databases: t.Callable[[], list[str]],
    deadline: Deadline,
) -> list[str]:
    """Have all of it read: by amcheck where there is one, by checksums where there are any, else by a dump."""
    settings = {**_SESSION, **({"transaction_timeout": "0"} if programs.version >= 17 else {})}
    environment = {
        "PGHOST": str(place.socket),
        "PGPORT": "5432",
        "PGUSER": user,
        "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }

    def read(program: str, *arguments: str, database: str = "postgres") -> None:
        # By the environment a name is one, whatever is in it.
        own = {**environment, "PGDATABASE": database}
        begin = server.log_size
        try:
            programs.run(program, *arguments, deadline=deadline, next_step=DAMAGE, environment=own)
        except Failed as error:
            raise _explain(error, server.read_log(begin)) from error

    checks: list[str] = []
    if programs.find("pg_amcheck"):
        read("pg_amcheck", "--all", "--install-missing", "--no-strict-names")
        checks.append("pg_amcheck: every table and B-tree index of every database")
    if not server.has_checksums:
        for database in list_databases():
            read("pg_dump", "-f", os.devnull, database=database)
        checks.append("pg_dump: every row of every database; without data checksums, and so not every block")
    server.stop()
    if server.has_checksums:
        programs.run("pg_checksums", "--check", "-D", str(place.data), deadline=deadline, next_step=DAMAGE)
        checks.append("pg_checksums: every block")
    return checks


def _explain(error: Failed, log: str) -> OpsError:
    """Return the error with what the program has written of what it found, and with what to do about it."""
    output = leave_out_rows(error.output.decode("utf-8", "replace"))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if len(lines) > LINES_SHOWN:
        lines = [*lines[:LINES_SHOWN], f"and {format_count(len(lines) - LINES_SHOWN, 'line')} more"]
    said = error.problem.replace(NO_MESSAGE, "").rstrip() if lines else error.problem
    return OpsError(
        obj=error.obj,
        problem="\n".join([said, *lines]),
        next_step=DAMAGE if is_damage(error, output, log) else NO_DAMAGE,
    )
