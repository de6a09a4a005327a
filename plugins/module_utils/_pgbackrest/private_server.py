# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server on a restored copy that reaches nothing and that nothing reaches but this run.

Private to lowtide.ops: do not import from other collections.

None of the original's settings is used: not its postgresql.conf, not what ALTER SYSTEM has set, not its pg_hba.conf.
They may archive into the repository, stream from the primary, subscribe to publications, listen, or load what runs
jobs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import typing as t

from .._backup.pipeline import Command, run
from .._common.errors import OpsError, Refusal, WaitTimeout
from .._postgresql.connection import OLDEST_VERSION

if t.TYPE_CHECKING:
    from .._common.retry import Deadline
    from .drill_place import DrillPlace

OLDEST = OLDEST_VERSION // 10000
"""A restored server is asked as any other one is."""
STOP_SECONDS = 60.0
_CONTROL = re.compile(r"^(max_\w+) setting:\s*(\d+)$", re.MULTILINE)
_NAMES = {"max_worker_processes", "max_prepared_xacts", "max_locks_per_xact", "max_connections"}
_SEGMENT = re.compile(r"^Bytes per WAL segment:\s*(\d+)$", re.MULTILINE)
_CHECKSUMS = re.compile(r"^Data page checksum version:\s*(\d+)$", re.MULTILINE)
_FATAL = re.compile(r"(?:FATAL|PANIC|ERROR):.*")
HBA = "local all all trust\n"
"""Whoever can enter the directory of the socket, which is this user's alone."""


def quote_setting(value: str) -> str:
    """Return a value of a line of postgresql.conf."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def leave_out_libpq(environment: t.Mapping[str, str]) -> dict[str, str]:
    """Return an environment without libpq's variables; those of pgBackRest stay, where a site configures it by them."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("PG") or name.startswith("PGBACKREST_")
    }


def make_restore_command(argv: t.Sequence[str]) -> str:
    """Return the command by which the server asks for WAL: ``argv`` with the two that the server puts in."""
    return " ".join([*(shlex.quote(part).replace("%", "%%") for part in argv), "%f", '"%p"'])


def write_settings(
    place: DrillPlace,
    *,
    version: int,
    limits: t.Mapping[str, int],
    restore_command: str,
    target: str,
    segment: int = 16 << 20,
) -> str:
    """Return the whole configuration of the server.

    ``limits`` are those of the control file, and so is ``segment``, the bytes of a WAL segment.
    """
    values: dict[str, str] = {
        "cluster_name": "lowtide-drill",
        "hba_file": str(place.run / "pg_hba.conf"),
        "ident_file": str(place.run / "pg_ident.conf"),
        "listen_addresses": "",
        "unix_socket_directories": str(place.socket),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] %e ",  # with the SQLSTATE, by which damage is told from a timeout
        "lc_messages": "C",
        # Nothing leaves: neither WAL nor connections.
        "archive_mode": "off",
        "archive_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "max_wal_senders": "0",
        "max_logical_replication_workers": "0",
        "max_replication_slots": "64",  # origins of subscriptions are restored, and each takes one
        "wal_level": "replica",
        # Nothing that was preloaded works on: pg_cron would run its jobs.
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "autovacuum": "off",
        "restart_after_crash": "off",
        # Without readers during recovery the original's limits need not be kept, but that of prepared transactions.
        "hot_standby": "off",
        "max_prepared_transactions": str(limits.get("max_prepared_xacts", 0)),
        "max_worker_processes": str(max(8, limits.get("max_worker_processes", 8))),
        "max_locks_per_transaction": str(limits.get("max_locks_per_xact", 64)),
        "max_connections": "20",
        "restore_command": restore_command,
        # Replayed WAL stays until a restartpoint, which can be made at a checkpoint of the original only.
        "max_wal_size": f"{max(64, 3 * segment >> 20)}MB",
        "min_wal_size": f"{2 * segment >> 20}MB",
        "checkpoint_timeout": "30s",
        "recovery_target_timeline": "latest",
        "recovery_target": "immediate" if target == "immediate" else "",
        "recovery_target_action": "promote",
    }
    if version >= 15:
        values["archive_library"] = ""
    if version >= 17:
        values["event_triggers"] = "off"
    return "".join(f"{name} = {quote_setting(value)}\n" for name, value in values.items())


class ServerPrograms:
    """PostgreSQL's programs of one major version on this host."""

    def __init__(self, version: int, directory: str | None) -> None:
        self.version = version
        debian = f"/usr/lib/postgresql/{version}/bin"
        pgdg = f"/usr/pgsql-{version}/bin"
        places = [directory] if directory else [debian, pgdg, *os.environ.get("PATH", "").split(os.pathsep)]
        self._folder = next((place for place in places if place and os.access(f"{place}/postgres", os.X_OK)), None)
        if self._folder is None:
            raise Refusal(
                obj=f"the programs of PostgreSQL {version}",
                problem=f"there is no postgres in {directory or f'{debian} and on PATH'}",
                next_step=f"Install the server's package (Debian: postgresql-{version}), or correct server_bin_dir",
            )

    def find(self, name: str) -> str | None:
        """Return the path of a program; None where it is not installed."""
        path = f"{self._folder}/{name}"
        return path if os.access(path, os.X_OK) else None

    def run(
        self,
        name: str,
        *arguments: str,
        deadline: Deadline,
        next_step: str,
        environment: t.Mapping[str, str] | None = None,
    ) -> str:
        """Run one to its end; return its output. ``environment`` is all that it has of libpq's variables."""
        own = {**leave_out_libpq(os.environ), **(environment or {}), "LC_ALL": "C"}
        command = Command((f"{self._folder}/{name}", *arguments), env=own, next_step=next_step)
        return run(command, deadline=deadline).decode("utf-8", "replace")

    def check_version(self, deadline: Deadline) -> None:
        """Refuse programs of another major version than the backup's."""
        output = self.run("postgres", "--version", deadline=deadline, next_step="Look at that program")
        match = re.search(r"\b(\d+)(?:\.|devel|beta|rc)", output)
        if match is None or int(match[1]) != self.version:
            raise Refusal(
                obj=f"{self._folder}/postgres",
                problem=f"it is {output.strip()}, and the backup is of PostgreSQL {self.version}",
                next_step="Name the programs of that version in server_bin_dir",
            )


class PrivateServer:
    """The server of one drill, from its start to its end."""

    def __init__(self, place: DrillPlace, programs: ServerPrograms, deadline: Deadline) -> None:
        self._place, self._programs, self._deadline = place, programs, deadline
        self._process: subprocess.Popen[bytes] | None = None
        self._log = place.run / "server.log"
        self.has_checksums = False

    def configure(self, *, restore_command: str, target: str) -> None:
        """Give the copy settings of its own, in the place of all that it came with."""
        data = self._place.data
        found = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
        if found != str(self._programs.version):
            raise OpsError(
                obj=f"directory {data}",
                problem=f"it is of PostgreSQL {found}, and {self._programs.version} was expected",
                next_step="Look at `pgbackrest info`",
            )
        control = self._programs.run(
            "pg_controldata", str(data), deadline=self._deadline, next_step="The restored control file cannot be read"
        )
        limits = {name: int(value) for name, value in _CONTROL.findall(control) if name in _NAMES}
        checksums = _CHECKSUMS.search(control)
        self.has_checksums = checksums is not None and int(checksums[1]) > 0
        segment = _SEGMENT.search(control)
        settings = write_settings(
            self._place,
            version=self._programs.version,
            limits=limits,
            restore_command=restore_command,
            target=target,
            segment=int(segment[1]) if segment else 16 << 20,
        )
        for name in ("standby.signal", "postmaster.pid", "postmaster.opts"):
            (data / name).unlink(missing_ok=True)
        # What ALTER SYSTEM has set, and pgBackRest for the recovery, would win over a configuration file.
        (data / "postgresql.auto.conf").write_text("", encoding="utf-8")
        (data / "recovery.signal").write_text("", encoding="utf-8")
        for name, text in (("postgresql.conf", settings), ("pg_hba.conf", HBA), ("pg_ident.conf", "")):
            (self._place.run / name).write_text(text, encoding="utf-8")

    def start(self, is_ready: t.Callable[[], bool]) -> None:
        """Start it, and wait until it has recovered and takes connections."""
        argv = [
            t.cast("str", self._programs.find("postgres")),
            *("-D", str(self._place.data)),
            *("-c", f"config_file={self._place.run / 'postgresql.conf'}"),
        ]
        with self._log.open("wb") as log:
            # In a session of its own, so that a signal to this run does not end it halfway; the next run ends it.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**leave_out_libpq(os.environ), "LC_ALL": "C"},
                pass_fds=(self._place.mark,),
                start_new_session=True,
                cwd=self._place.run,
            )
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=min(0.1, max(self._deadline.remaining, 0.001)))
                raise OpsError(
                    obj="the restored server",
                    problem=f"it ended with {code} before it had recovered: {self.read_errors()}",
                    next_step="The backup with its WAL cannot be restored as it is. Have it verified"
                    " (lowtide.ops.pgbackrest_backup), and make another one",
                )
            if is_ready():
                return
            self._place.refuse_full()
            if self._deadline.passed:
                raise WaitTimeout(
                    obj="the restored server",
                    problem=f"it had not recovered after {self._deadline.seconds:.0f} s: {self.read_errors()}",
                    next_step="Raise timeout, or set target to immediate, which replays less WAL",
                )

    @property
    def log_size(self) -> int:
        """How much it has logged so far."""
        return self._log.stat().st_size if self._log.exists() else 0

    def read_log(self, begin: int = 0) -> str:
        """Return what it has logged since it had logged this much."""
        return self._log.read_bytes()[begin:].decode("utf-8", "replace") if self._log.exists() else ""

    def read_errors(self) -> str:
        """Return the last errors in the server's log, or its last line."""
        lines = self.read_log().splitlines()
        # Each attempt to connect during recovery leaves one, which says nothing.
        found = [match[0] for line in lines if (match := _FATAL.search(line))]
        errors = [error for error in found if "the database system is" not in error]
        return "; ".join(dict.fromkeys(errors[-5:])) or (lines[-1] if lines else "it has logged nothing")

    def stop(self) -> None:
        """End it in order, so that its files can be checked."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=max(1.0, min(STOP_SECONDS, self._deadline.remaining)))
        except subprocess.TimeoutExpired as error:
            raise WaitTimeout(
                obj="the restored server",
                problem=f"it did not end in {STOP_SECONDS:.0f} s",
                next_step="It is ended at once, and the drill proves nothing; run again",
            ) from error

    def end(self) -> None:
        """End it at once, whatever it does."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
