# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the client programs and word their command lines. Private to lowtide.ops: do not import from other collections.

The password is in no argument, in no environment and in no file on disk: each program inherits an option file that is
in memory only, and reads it under ``/dev/fd``. Nor do the option files of the machine lead it elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t
from dataclasses import dataclass

from .._backup.pipeline import Command, find_program, run
from .._common.errors import Refusal

if t.TYPE_CHECKING:
    from .._common.retry import Deadline
    from .connection import Settings

PACKAGE = "mariadb-client"
LOCK_WAIT = 5
"""For how many seconds a statement that redefines waits for a transaction; all others on the table queue behind it."""
REDIRECTING = ("MYSQL_", "MARIADB_")
_VERSION = re.compile(r"(\d+)\.(\d+)\.\d+-MariaDB")
_ONE_LINE_EACH = (10, 5)
"""From this version on mariadb-dump writes each row on a line of its own."""


@dataclass(frozen=True)
class Programs:
    """The client programs, found and of a version that fits."""

    dump: str
    client: str
    zstd: str
    version: str


def find_programs(bin_dir: str | None, *, deadline: Deadline) -> Programs:
    """Find all programs; refused where the dump program is not MariaDB's, whose text is what is verified."""
    dump = find_program("mariadb-dump", package=PACKAGE, directory=bin_dir)
    said = run(Command((dump, "--version")), deadline=deadline).decode("utf-8", "replace").strip()
    match = _VERSION.search(said)
    if match is None or (int(match[1]), int(match[2])) < _ONE_LINE_EACH:
        raise Refusal(
            obj=dump,
            problem=f"its dumps cannot be verified: it says {said!r}",
            next_step=f"Install MariaDB's client programs of version 10.5 or newer (Debian: package {PACKAGE})",
        )
    return Programs(
        dump=dump,
        client=find_program("mariadb", package=PACKAGE, directory=bin_dir),
        zstd=find_program("zstd", package="zstd"),
        version=match[0].partition("-")[0],
    )


@contextlib.contextmanager
def option_file(settings: Settings) -> t.Iterator[int]:
    """Yield the descriptor of a file in memory with the connection; it ends with the block, and with this process."""
    descriptor = os.memfd_create("option-file")
    try:
        os.fchmod(descriptor, 0o600)  # a file that all may write is passed over
        os.write(descriptor, settings.write_option_file())
        yield descriptor
    finally:
        os.close(descriptor)


def make_environment() -> dict[str, str]:
    """Return this process's environment without what leads a client program elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(REDIRECTING)}
    return {**kept, "LC_ALL": "C"}


def dump_command(
    programs: Programs,
    descriptor: int,
    database: str,
    *,
    with_position: bool = False,
    options: tuple[str, ...] = (),
) -> Command:
    """Return mariadb-dump of one database with everything in it, in one transaction."""
    position = ("--master-data=2", "--gtid") if with_position else ()
    argv = (
        programs.dump,
        f"--defaults-file=/dev/fd/{descriptor}",
        "--single-transaction",
        "--quick",
        "--routines",
        "--triggers",
        "--events",
        "--hex-blob",
        "--add-drop-trigger",
        "--no-tablespaces",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
        *position,
        *options,
        "--",
        database,
    )
    return Command(
        argv,
        env=make_environment(),
        files=(descriptor,),
        next_step="Nothing counts as a backup; correct what the message says and run again (error 1412: a table was"
        " redefined meanwhile)",
    )


def client_command(programs: Programs, descriptor: int, database: str, *, mark: str | None = None) -> Command:
    """Return the client that executes a script in one database, and ends at the first error.

    It holds the named lock ``mark``, by which a later run knows its session. The client before it may be ending still.
    """
    first = f"SET SESSION lock_wait_timeout={LOCK_WAIT}"
    if mark is not None:
        first += f", @lowtide_ops_mark=GET_LOCK('{mark}', {LOCK_WAIT})"
    argv = (
        programs.client,
        f"--defaults-file=/dev/fd/{descriptor}",
        "--batch",
        "--binary-mode",
        "--skip-reconnect",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
        f"--init-command={first}",
        f"--database={database}",
    )
    return Command(argv, env=make_environment(), files=(descriptor,))


def compress_command(programs: Programs) -> Command:
    """Return zstd."""
    return Command((programs.zstd, "-1", "-T2", "-q", "-c"))
