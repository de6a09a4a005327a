# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs joined by pipes, without a shell. Private to lowtide.ops: do not import from other collections.

Every member's exit status counts, every member's standard error is kept (its end), and a watchdog kills all of
them when the deadline passes, so that no read or write on the pipe outlasts it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import typing as t
from dataclasses import dataclass, field
from functools import partial

from .._common.errors import OpsError, Refusal, WaitTimeout
from .._common.retry import Deadline

STDERR_KEPT = 4000
NO_MESSAGE = "it wrote no message"
# Linux's default limit for one pipe; fewer, larger reads and writes than with its 64 KiB.
PIPE_BYTES = 1 << 20
GRACE = 5.0
"""Seconds that are waited for the end of a pipe whose programs have been killed. Who holds it still has left their group."""
_OTHER_LINES = r"(?:\n(?!\S+: |Command was: )[^\n]*)*"
# What PostgreSQL's programs pass on of a server's error, in the server's language: fields have two blanks after the colon
# (libpq, PQresultErrorMessage), and LINE n quotes the statement. A message of MariaDB names a value between quotes.
# The message itself is kept, also where no program's name is before it (psql that reads its standard input).
_ROW_FIELDS = re.compile(
    rf"^(?!(?:HINT|ERROR|FATAL|PANIC):)(?:[^\s:]+ ?:  |\S+ \d+: )[^\n]*{_OTHER_LINES}\n?", re.MULTILINE
)
_ROW_STATEMENT = re.compile(
    rf"^(Command was: (?:INSERT|UPDATE|SELECT)\b)[^\n]*{_OTHER_LINES}", re.MULTILINE | re.IGNORECASE
)
_ROW_VALUE = re.compile(r"(Duplicate entry ').*(' for key)", re.DOTALL)
_WARNING = re.compile(r"^\S+: warning: .*", re.MULTILINE)


class Stopped(OpsError):
    """A pipeline was ended from outside, since another one had failed."""


class Failed(OpsError):
    """A program ended with ``status``, which is negative for a signal; ``output`` is what it wrote, where :func:`run` ran it."""

    def __init__(self, *, obj: str, problem: str, next_step: str, status: int) -> None:
        super().__init__(obj=obj, problem=problem, next_step=next_step)
        self.status, self.output = status, b""


@dataclass(frozen=True)
class Command:
    """One member: argument list, environment (None: this process's own), and what to do when it fails.

    The environment may hold a password, and is not shown. ``files`` are the descriptors that it inherits.
    """

    argv: tuple[str, ...]
    env: t.Mapping[str, str] | None = field(default=None, repr=False)
    next_step: str = "Read its message; it names the cause"
    files: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return the program's name, for messages."""
        return self.argv[0].rpartition("/")[2]


def leave_out_rows(said: str) -> str:
    """Return what a program has said without the rows that it quotes: a message goes into logs and reports.

    >>> leave_out_rows("pg_restore: error: x: ERROR:  duplicate key\\nDETAIL:  Key (a)=(b) already exists.\\n")
    'pg_restore: error: x: ERROR:  duplicate key\\n(what it quotes of rows is left out; see the server log)'
    """
    cleaned = _ROW_VALUE.sub(r"\1...\2", _ROW_STATEMENT.sub(r"\1 ...", _ROW_FIELDS.sub("", said)))
    if cleaned == said:
        return said
    return f"{cleaned.strip()}\n(what it quotes of rows is left out; see the server log)"


def find_program(name: str, *, package: str, directory: str | None = None) -> str:
    """Return the path of ``name`` in ``directory`` or on PATH; a refusal that names the Debian ``package`` if there is none."""
    path = shutil.which(name, path=directory) if directory else shutil.which(name)
    if path is None:
        raise Refusal(
            obj=f"program {name}",
            problem=f"it is not in {directory}" if directory else "it is not on PATH",
            next_step=f"Install it on the host that runs this task (Debian: package {package})"
            + (" or correct bin_dir" if directory else ""),
        )
    return path


def start_process(command: Command, *, stdin: int | t.IO[bytes], stdout: int) -> subprocess.Popen[bytes]:
    """Start one member, with pipes of ``PIPE_BYTES`` where this user may have them (/proc/sys/fs/pipe-user-pages-soft).

    It leads a process group, so that what a wrapper starts is ended with it.
    """
    environment = None if command.env is None else dict(command.env)
    start = t.cast(
        "t.Callable[..., subprocess.Popen[bytes]]",
        partial(
            subprocess.Popen,
            command.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=command.files,
            start_new_session=True,
        ),
    )
    if sys.version_info >= (3, 10):  # noqa: UP036  # managed hosts may have Python 3.8
        with contextlib.suppress(PermissionError):
            return start(pipesize=PIPE_BYTES)
    return start()


class Pipeline:
    """Commands joined by pipes. A context manager: leaving it, by whatever way, leaves no process behind.

    With ``feed`` the first command's standard input is :attr:`stdin`; with ``collect`` the last one's standard
    output is :attr:`stdout`.
    """

    def __init__(
        self, commands: t.Sequence[Command], *, deadline: Deadline, feed: bool = False, collect: bool = False
    ) -> None:
        self._commands = commands
        self._deadline = deadline
        self._feed = feed
        self._collect = collect
        self._processes: list[subprocess.Popen[bytes]] = []
        self._drains: list[threading.Thread] = []
        self._stderr: list[bytes] = []
        self._expired = threading.Event()
        self._stopped = threading.Event()
        self._watchdog = threading.Timer(deadline.remaining, self._expire)
        self._watchdog.daemon = True

    def __enter__(self) -> Pipeline:
        previous: int | t.IO[bytes] = subprocess.PIPE if self._feed else subprocess.DEVNULL
        try:
            for index, command in enumerate(self._commands):
                last = index == len(self._commands) - 1
                process = start_process(
                    command, stdin=previous, stdout=subprocess.PIPE if self._collect or not last else subprocess.DEVNULL
                )
                if index and not isinstance(previous, int):
                    previous.close()  # this end belongs to the child now; a dead member must be felt by its neighbour
                self._processes.append(process)
                self._keep_stderr(index, process)
                if process.stdout is not None:
                    previous = process.stdout
        except OSError as error:
            self._kill()
            raise OpsError(
                obj=command.name,
                problem=f"it cannot be started: {error.strerror}",
                next_step="Check the program and its permissions",
            ) from error
        self._watchdog.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._watchdog.cancel()
        self._kill()

    @property
    def stdin(self) -> t.IO[bytes]:
        """Return where the first command reads from."""
        return t.cast("t.IO[bytes]", self._processes[0].stdin)

    @property
    def stdout(self) -> t.IO[bytes]:
        """Return what the last command writes."""
        return t.cast("t.IO[bytes]", self._processes[-1].stdout)

    def consume(self, take: t.Callable[[bytes], None]) -> None:
        """Hand what the last command writes to ``take``, in a thread that ends with the output."""
        stream = self.stdout

        def read() -> None:
            while chunk := stream.read1(PIPE_BYTES):  # type: ignore[attr-defined]  # a pipe of Popen is a BufferedReader
                take(chunk)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._drains.append(thread)

    def finish(self, *, may_end_early: bool = False) -> None:
        """Wait for every member; the first one (in the pipe's order of blame) that failed is the error.

        A member killed by SIGPIPE or complaining about one is a consequence of its reader's end, so a member that
        ended for a reason of its own goes first. Where the last member ``may_end_early``, since it does not need all
        of its input, such an end of the others is none.
        """
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                self._close_quietly(process.stdin)
        statuses = [process.wait() for process in self._processes]
        for drain in self._drains:
            drain.join(max(0.0, self._deadline.remaining) + GRACE)
        if self._stopped.is_set() or self._expired.is_set():
            raise self._explain_end()
        is_early = may_end_early and statuses[-1] == 0
        failed = [index for index, status in enumerate(statuses) if status != 0 and not (is_early and status == -13)]
        if not failed:
            return
        blamed = next((index for index in failed if statuses[index] != -13), failed[0])
        said = leave_out_rows(self._read_stderr(blamed)).strip() or NO_MESSAGE
        status = statuses[blamed]
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        command = self._commands[blamed]
        raise Failed(obj=command.name, problem=f"{how}: {said}", next_step=command.next_step, status=status)

    def _read_stderr(self, index: int) -> str:
        """Return what a member has said, without a line whose beginning was not kept."""
        kept = self._stderr[index]
        return (kept if len(kept) < STDERR_KEPT else kept.partition(b"\n")[2]).decode("utf-8", "replace")

    @property
    def warnings(self) -> list[str]:
        """Return what members have warned of: a line each, with the program's name before it."""
        return [line for said in self._stderr for line in _WARNING.findall(said.decode("utf-8", "replace"))]

    def stop(self) -> None:
        """End every member, from another thread; whoever works with this pipeline gets :class:`Stopped`."""
        self._stopped.set()
        self._end_groups()

    def check(self) -> None:
        """Raise where the deadline has passed, or the pipeline was stopped."""
        if self._stopped.is_set() or self._deadline.passed:
            raise self._explain_end()

    def _explain_end(self) -> OpsError:
        """Return the error for a pipeline that was ended before its own end."""
        title = " | ".join(command.name for command in self._commands)
        if self._stopped.is_set():
            return Stopped(obj=title, problem="it was stopped, since another stream failed", next_step="Run again")
        return WaitTimeout(
            obj=title,
            problem=f"not finished within the time allowed ({self._deadline.seconds:.0f} s)",
            next_step="Find out what it waits for (locks, network), or raise the option timeout",
        )

    def _keep_stderr(self, index: int, process: subprocess.Popen[bytes]) -> None:
        self._stderr.append(b"")
        stream = t.cast("t.IO[bytes]", process.stderr)

        def drain() -> None:
            with stream:
                while chunk := stream.read1(4096):  # type: ignore[attr-defined]  # a pipe of Popen is a BufferedReader
                    self._stderr[index] = (self._stderr[index] + chunk)[-STDERR_KEPT:]

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        self._drains.append(thread)

    def _expire(self) -> None:
        self._expired.set()
        self._end_groups()

    def _end_groups(self) -> None:
        """Kill each member that is at work, and what it has started: who holds its standard error is at work."""
        for process, drain in zip(self._processes, list(self._drains)):  # noqa: B905  # managed hosts may have Python 3.8
            if process.poll() is None or drain.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _kill(self) -> None:
        self._end_groups()
        for process in self._processes:
            process.wait()
        for drain in self._drains:
            drain.join(GRACE)
        # What a thread still reads cannot be closed before it has come to its end.
        is_read = any(drain.is_alive() for drain in self._drains[len(self._processes) :])
        for process in self._processes:
            for stream in (process.stdin, None if is_read else process.stdout):
                if stream is not None and not stream.closed:
                    self._close_quietly(stream)

    @staticmethod
    def _close_quietly(stream: t.IO[bytes]) -> None:
        """Close; a reader that has gone already is judged by its exit status, not by the flush that found it out."""
        try:
            stream.close()
        except BrokenPipeError:
            raw = getattr(stream, "raw", None)
            if raw is not None:
                raw.close()


def run(command: Command, *, deadline: Deadline, warn: t.Callable[[str], None] | None = None) -> bytes:
    """Run one command to its end and return its standard output, which must be small enough for memory.

    ``warn`` is called with each warning.
    """
    with Pipeline([command], deadline=deadline, collect=True) as pipeline:
        output = pipeline.stdout.read()
        try:
            pipeline.finish()
        except Failed as error:
            error.output = output
            raise
        if warn is not None:
            for warning in pipeline.warnings:
                warn(warning)
    return output
